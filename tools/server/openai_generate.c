/* openai_generate.c: /chat/completions and /completions: from a body to an answer or a stream. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "openai_reply.h"
#include "prompts.h"
#include "server_state.h"
#include "sse.h"

/* How often a waiting thread looks whether its client is still there, and how long a stream may be silent. */
#define LOOK_SECONDS 0.1
#define SILENCE_SECONDS 0.9
/* How often timings_per_token reports the cache: a picture of it need not move faster. */
#define REPORT_SECONDS 0.2

typedef struct generation {
    server *server;
    http_request request; /* its connection outlives the stream */
    gen_request asked;
    prompt_list prompts;
    answers *answers;
    gen_reply reply;
    sse_out out;
    double spoke;            /* when the stream last said something */
    double looked;           /* when the client was last seen */
    double reported;         /* when it last told of the cache */
    int done, total;         /* of the prompt that is evaluated just now */
    bool greeted, ended;
    char *note; /* of the reply, for the log */
    size_t note_cap;
} generation;

static void free_generation(void *ctx) {
    generation *g = ctx;
    if (g->reply.choices) {
        tq_usage u = gen_reply_usage(&g->reply);
        snprintf(g->note, g->note_cap, "kv=%s prompt=%d cached=%d generated=%d%s", g->reply.kv, u.prompt_tokens, u.cached_tokens,
                 u.generated_tokens, gen_reply_done(&g->reply) ? "" : " unfinished");
    }
    answers_free(g->answers);
    gen_reply_free(&g->reply);
    prompts_free(&g->prompts);
    gen_request_free(&g->asked);
    sse_free(&g->out);
    free(g);
}

/* ---- starting ------------------------------------------------------------------------------------------------------ */

static bool check_lengths(const generation *g, api_error *error) {
    for (int i = 0; i < g->prompts.n; i++) {
        size_t n = g->prompts.items[i].n;
        int want = g->asked.max_tokens > 0 ? g->asked.max_tokens : 1;
        if (n + (size_t)want <= (size_t)g->server->ctx) continue;
        api_fail_context(error, (int)n, want, g->server->ctx);
        if (g->asked.kind == GEN_TEXT) snprintf(error->param, sizeof error->param, "prompt");
        return false;
    }
    return true;
}

static bool opens_reasoning(const generation *g, const prompt_ids *prompt) {
    size_t tail = prompt->n < 16 ? prompt->n : 16, length;
    char *text;
    tq_error error;
    if (tq_detokenize(g->server->model, prompt->ids + prompt->n - tail, tail, true, &text, &length, &error) != TQ_OK) return false;
    bool open = reasoning_is_open(g->server->marks, text, length);
    tq_free(text);
    return open;
}

static bool read_request(generation *g, gen_kind kind, api_error *error) {
    server *s = g->server;
    pthread_mutex_lock(&s->reading);
    bool ok = gen_request_parse(kind, g->request.body, g->request.body_n, &s->limits, &g->asked, error);
    if (ok && kind == GEN_CHAT)
        ok = prompts_of_chat(s, g->asked.messages, g->asked.template_kwargs, g->asked.reasoning_effort, &g->prompts, error);
    else if (ok) ok = prompts_of_value(s, g->asked.prompt, "prompt", GEN_PROMPTS_CAP, &g->prompts, error);
    pthread_mutex_unlock(&s->reading);
    return ok && check_lengths(g, error);
}

static bool submit_all(generation *g, api_error *error) {
    server *s = g->server;
    tq_request_params p = tq_request_params_default();
    p.max_tokens = g->asked.max_tokens;
    p.ignore_eos = g->asked.ignore_eos;
    p.kv = g->asked.kv;
    p.n_logprobs = g->asked.n_logprobs;
    p.stops = g->asked.stops;
    p.n_stops = g->asked.n_stops;
    p.use_cache = g->asked.use_cache;
    if (g->asked.kind == GEN_CHAT) {
        p.shown = s->shown;
        p.n_shown = s->n_shown;
    }
    p.deadline = s->config->request_seconds;
    p.sampling = g->asked.sampling;
    for (int i = 0; i < g->reply.n_choices; i++) {
        const prompt_ids *prompt = &g->prompts.items[i / g->asked.n];
        p.ids = prompt->ids;
        p.n_ids = (int)prompt->n;
        p.sampling.seed = g->asked.sampling.seed + (uint64_t)(i % g->asked.n);
        tq_error from;
        tq_status status = answers_submit(g->answers, i, s->scheduler, &p, &from);
        if (status == TQ_OK) continue;
        server_fail_submit(s, error, status, &from, g->asked.kv);
        return false; /* free_generation cancels those that were taken */
    }
    return true;
}

static bool start(generation *g, gen_kind kind, api_error *error) {
    server *s = g->server;
    if (!server_is_ready(s, error) || !read_request(g, kind, error)) return false;
    int n = g->prompts.n * g->asked.n;
    if (n > s->limits.max_choices)
        return api_fail(error, 400, "n", "invalid_value", "%d prompts and n = %d ask for %d replies; want at most %d", g->prompts.n,
                        g->asked.n, n, s->limits.max_choices);
    if (!g->asked.seed_given) server_random(&g->asked.sampling.seed, sizeof g->asked.sampling.seed);
    g->answers = answers_new(n, s->metrics);
    if (!g->answers || !gen_reply_init(&g->reply, &g->asked, n))
        return api_fail(error, 503, NULL, "out_of_memory", "No memory for %d replies", n);
    gen_reply *r = &g->reply;
    r->model = s->model;
    r->model_name = server_model_name(s, g->asked.model);
    r->created = (long long)time(NULL);
    r->sinks = s->config->cache.sinks;
    snprintf(r->kv, sizeof r->kv, "%s", g->asked.kv ? g->asked.kv : s->kv);
    server_make_id(r->id, sizeof r->id, kind == GEN_CHAT ? "chatcmpl-" : "cmpl-");
    for (int i = 0; i < n; i++) r->choices[i].split.marks = s->marks;
    for (int i = 0; i < n && r->split_reasoning; i++)
        if (opens_reasoning(g, &g->prompts.items[i / g->asked.n])) r->choices[i].split.state = REASONING_OPENED;
    return submit_all(g, error);
}

/* ---- a whole answer ------------------------------------------------------------------------------------------------ */

static bool ended_well(const tq_event *e) { return e->finish == TQ_REQUEST_STOP || e->finish == TQ_REQUEST_LENGTH; }

/* Looked at now and then, however fast the pieces come. */
static bool has_left(generation *g) {
    double now = clock_seconds();
    if (now - g->looked < LOOK_SECONDS) return false;
    g->looked = now;
    return http_is_gone(&g->request);
}

/* False: failed, *error says why; its status is 0 when the client has left. */
static bool wait_for_all(generation *g, api_error *error) {
    while (!gen_reply_done(&g->reply)) {
        answer_piece *piece = answers_wait(g->answers, LOOK_SECONDS);
        if (answers_lost(g->answers) || g->reply.failed_memory) {
            free(piece);
            return api_fail(error, 503, NULL, "out_of_memory", "No memory for the answer");
        }
        if (has_left(g)) {
            free(piece);
            *error = (api_error){0};
            return false;
        }
        if (!piece) continue;
        bool ok = piece->event.kind != TQ_EVENT_DONE || ended_well(&piece->event);
        if (!ok) server_fail_event(error, &piece->event);
        else if (piece->event.kind == TQ_EVENT_TOKEN || piece->event.kind == TQ_EVENT_DONE)
            gen_reply_take(&g->reply, piece->choice, &piece->event);
        free(piece);
        if (!ok) return false;
    }
    return true;
}

static void answer_whole(generation *g, http_reply *reply) {
    api_error error;
    if (wait_for_all(g, &error)) {
        jout j = {0};
        gen_reply_write(&g->reply, &j);
        http_reply_json(reply, 200, &j);
    } else {
        if (error.status == 0) api_fail(&error, 503, NULL, "client_left", "The client has closed the connection"); /* for the log */
        http_reply_error(reply, &error);
    }
    free_generation(g);
}

/* ---- a stream ------------------------------------------------------------------------------------------------------ */

static void write_greeting(generation *g, sse_out *out) {
    jout j = {0};
    for (int i = 0; i < g->reply.n_choices && g->asked.kind == GEN_CHAT; i++) {
        gen_reply_write_role(&g->reply, i, &j);
        sse_data(out, &j);
    }
    if (g->asked.kind == GEN_TEXT) sse_comment(out, "accepted");
    g->greeted = true;
}

static void write_fresh(generation *g, int choice, sse_out *out) {
    jout j = {0};
    if (gen_reply_write_reasoning(&g->reply, choice, &j)) sse_data(out, &j);
    if (gen_reply_write_content(&g->reply, choice, &j)) sse_data(out, &j);
    if (gen_reply_write_finish(&g->reply, choice, &j)) sse_data(out, &j);
}

static void write_end(generation *g, sse_out *out) {
    jout j = {0};
    if (g->asked.include_usage) {
        gen_reply_write_usage(&g->reply, &j);
        sse_data(out, &j);
    }
    sse_done(out);
    g->ended = true;
}

static void write_failure(generation *g, const api_error *error, sse_out *out) {
    jout j = {0};
    jout_object(&j);
    jout_key(&j, "error");
    api_error_write(&j, error);
    jout_end(&j);
    sse_data(out, &j);
    g->ended = true; /* without [DONE]: it is not */
    answers_cancel(g->answers);
}

/* What the choice holds by now, if that was asked for and it is time. */
static void write_cache(generation *g, int choice, sse_out *out) {
    tq_request_cache cache;
    double now = clock_seconds();
    if (!g->asked.timings_per_token || now - g->reported < REPORT_SECONDS) return;
    if (!answers_find_cache(g->answers, choice, g->server->scheduler, &cache)) return;
    g->reported = now;
    jout j = {0};
    gen_reply_write_cache(&g->reply, &cache, &j);
    sse_data(out, &j);
}

static void take_piece(generation *g, const answer_piece *piece, sse_out *out) {
    const tq_event *e = &piece->event;
    if (e->kind == TQ_EVENT_START || e->kind == TQ_EVENT_PREFILL) {
        g->done = e->done;
        g->total = e->total;
        if (g->asked.return_progress) {
            jout j = {0};
            gen_reply_write_progress(&g->reply, e, &j);
            sse_data(out, &j);
        }
        write_cache(g, piece->choice, out);
        return;
    }
    if (e->kind == TQ_EVENT_DONE && !ended_well(e)) {
        api_error error;
        server_fail_event(&error, e);
        write_failure(g, &error, out);
        return;
    }
    gen_reply_take(&g->reply, piece->choice, e);
    write_fresh(g, piece->choice, out);
    if (e->kind == TQ_EVENT_TOKEN) write_cache(g, piece->choice, out);
    if (gen_reply_done(&g->reply)) write_end(g, out);
}

static void keep_alive(const generation *g, sse_out *out) {
    char text[64] = "queued";
    if (g->total) snprintf(text, sizeof text, "prefill %d/%d", g->done, g->total);
    if (g->total && g->done == g->total) snprintf(text, sizeof text, "generating");
    sse_comment(out, text);
}

/* Waits until there is something to send. */
static bool next_event(void *ctx, sse_out *out) {
    generation *g = ctx;
    if (g->ended) return false;
    if (!g->greeted) write_greeting(g, out);
    while (out->n == out->taken && !g->ended) {
        answer_piece *piece = answers_wait(g->answers, LOOK_SECONDS);
        if (answers_lost(g->answers) || g->reply.failed_memory) out->failed = true;
        else if (has_left(g)) out->failed = true; /* nobody reads the rest */
        else if (piece) take_piece(g, piece, out);
        else if (clock_seconds() - g->spoke > SILENCE_SECONDS) keep_alive(g, out);
        free(piece);
        if (out->failed) return false;
    }
    g->spoke = clock_seconds();
    return true;
}

static ssize_t read_stream(void *ctx, char *buf, size_t cap) {
    generation *g = ctx;
    return sse_read(&g->out, buf, cap, next_event, g);
}

/* ---- the endpoints ------------------------------------------------------------------------------------------------- */

static void serve(server *s, gen_kind kind, const http_request *request, http_reply *reply) {
    generation *g = calloc(1, sizeof *g);
    api_error error;
    if (!g) {
        api_fail(&error, 503, NULL, "out_of_memory", "No memory for a request");
        http_reply_error(reply, &error);
        return;
    }
    g->server = s;
    g->request = *request;
    g->note = reply->note;
    g->note_cap = sizeof reply->note;
    g->spoke = clock_seconds();
    if (!start(g, kind, &error)) {
        http_reply_error(reply, &error);
        free_generation(g);
    } else if (g->asked.stream) {
        http_reply_stream(reply, "text/event-stream", read_stream, free_generation, g);
    } else {
        answer_whole(g, reply);
    }
}

void serve_chat_completions(void *ctx, const http_request *request, http_reply *reply) { serve(ctx, GEN_CHAT, request, reply); }
void serve_completions(void *ctx, const http_request *request, http_reply *reply) { serve(ctx, GEN_TEXT, request, reply); }
