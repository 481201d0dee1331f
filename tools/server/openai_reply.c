/* openai_reply.c: what came of every choice, and its JSON. */
#include "openai_reply.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reply_json.h"

bool gen_reply_init(gen_reply *r, const gen_request *request, int n_choices) {
    r->kind = request->kind;
    r->split_reasoning = request->kind == GEN_CHAT && request->reasoning == GEN_REASONING_SPLIT;
    r->with_logprobs = request->n_logprobs >= 0;
    r->include_usage = request->include_usage;
    r->n_choices = n_choices;
    r->n_per_prompt = request->n;
    r->choices = calloc((size_t)n_choices, sizeof *r->choices);
    return r->choices != NULL;
}

static void free_logprobs(reply_choice *c, int n) {
    for (int i = 0; i < n; i++) {
        tq_free(c->logprobs[i].token);
        free(c->logprobs[i].top);
    }
    memmove(c->logprobs, c->logprobs + n, (size_t)(c->n_logprobs - n) * sizeof *c->logprobs);
    c->n_logprobs -= n;
}

void gen_reply_free(gen_reply *r) {
    for (int i = 0; r->choices && i < r->n_choices; i++) {
        reply_choice *c = &r->choices[i];
        if (c->logprobs) free_logprobs(c, c->n_logprobs);
        free(c->logprobs);
        free(c->content.data);
        free(c->reasoning.data);
    }
    free(r->choices);
    *r = (gen_reply){0};
}

/* ---- taking pieces in ---------------------------------------------------------------------------------------------- */

typedef struct taker {
    gen_reply *reply;
    reply_choice *choice;
} taker;

static void take_text(void *ctx, bool thought, const char *text, size_t n) {
    taker *t = ctx;
    reply_text *to = thought ? &t->choice->reasoning : &t->choice->content;
    if (to->n + n + 1 > to->cap) {
        size_t cap = (to->n + n + 1) * 2;
        char *grown = realloc(to->data, cap);
        if (!grown) {
            t->reply->failed_memory = true;
            return;
        }
        to->data = grown;
        to->cap = cap;
    }
    memcpy(to->data + to->n, text, n);
    to->n += n;
}

static bool grow_logprobs(reply_choice *c) {
    if (c->n_logprobs < c->logprobs_cap) return true;
    int cap = c->logprobs_cap ? 2 * c->logprobs_cap : 16;
    reply_logprob *grown = realloc(c->logprobs, (size_t)cap * sizeof *grown);
    if (!grown) return false;
    c->logprobs = grown;
    c->logprobs_cap = cap;
    return true;
}

static bool take_logprob(gen_reply *r, reply_choice *c, const tq_event *e) {
    reply_logprob lp = {.start = c->produced, .logprob = e->logprob, .n_top = e->n_top};
    tq_error error;
    if (tq_detokenize(r->model, &e->id, 1, true, &lp.token, &lp.token_n, &error) != TQ_OK) return false;
    c->produced += lp.token_n;
    lp.top = malloc((size_t)(e->n_top ? e->n_top : 1) * sizeof *lp.top);
    if (!lp.top || !grow_logprobs(c)) {
        free(lp.top);
        tq_free(lp.token);
        return false;
    }
    if (e->n_top) memcpy(lp.top, e->top, (size_t)e->n_top * sizeof *lp.top);
    c->logprobs[c->n_logprobs++] = lp;
    return true;
}

void gen_reply_take(gen_reply *r, int choice, const tq_event *e) {
    reply_choice *c = &r->choices[choice];
    taker t = {r, c};
    bool inside = c->split.state == REASONING_OPENED || c->split.state == REASONING_INSIDE;
    if (e->kind == TQ_EVENT_TOKEN) c->reasoning_tokens += r->split_reasoning && inside;
    if (e->kind == TQ_EVENT_TOKEN && r->with_logprobs && !take_logprob(r, c, e)) r->failed_memory = true;
    c->released += e->text_len;
    if (e->text_len && r->split_reasoning) reasoning_push(&c->split, e->text, e->text_len, take_text, &t);
    else if (e->text_len) take_text(&t, false, e->text, e->text_len);
    if (e->kind != TQ_EVENT_DONE) return;
    if (r->split_reasoning) reasoning_finish(&c->split, take_text, &t);
    c->done = true;
    c->finish = e->finish;
    c->stop = e->stop;
    c->usage = e->usage;
}

bool gen_reply_done(const gen_reply *r) {
    for (int i = 0; i < r->n_choices; i++)
        if (!r->choices[i].done) return false;
    return true;
}

tq_usage gen_reply_usage(const gen_reply *r) {
    tq_usage all = {0};
    for (int i = 0; i < r->n_choices; i++) {
        const tq_usage *u = &r->choices[i].usage;
        all.generated_tokens += u->generated_tokens;
        if (i % r->n_per_prompt) continue;
        all.prompt_tokens += u->prompt_tokens;
        all.cached_tokens += u->cached_tokens;
    }
    return all;
}

/* Log probabilities whose token's text has been passed on; those of a stop string never are. */
static int count_released(const reply_choice *c) {
    int n = 0;
    while (n < c->n_logprobs && (c->logprobs[n].start < c->released || (c->done && c->stop < 0))) n++;
    return n;
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static const char *finish_name(const reply_choice *c) { return c->finish == TQ_REQUEST_LENGTH ? "length" : "stop"; }

static void write_head(const gen_reply *r, bool chunk, jout *j) {
    static const char *const objects[2][2] = {{"chat.completion", "chat.completion.chunk"}, {"text_completion", "text_completion"}};
    jout_put_string(j, "id", r->id);
    jout_put_string(j, "object", objects[r->kind][chunk]);
    jout_put_int(j, "created", r->created);
    jout_put_string(j, "model", r->model_name);
    jout_key(j, "system_fingerprint");
    char fingerprint[48];
    int n = snprintf(fingerprint, sizeof fingerprint, "tq-%s", tq_version());
    jout_string(j, fingerprint, (size_t)n);
}

static void write_logprobs(gen_reply *r, reply_choice *c, jout *j) {
    jout_key(j, "logprobs");
    if (!r->with_logprobs) {
        jout_null(j);
        return;
    }
    int n = count_released(c);
    if (r->kind == GEN_CHAT) reply_json_chat_logprobs(j, r->model, c->logprobs, n);
    else reply_json_text_logprobs(j, r->model, c->logprobs, n);
    if (n) free_logprobs(c, n);
}

static void write_usage(const gen_reply *r, jout *j) {
    tq_usage u = gen_reply_usage(r);
    int reasoning = 0;
    for (int i = 0; i < r->n_choices; i++) reasoning += r->choices[i].reasoning_tokens;
    jout_key(j, "usage");
    reply_json_usage(j, &u, reasoning);
}

/* What only this server says: when and how fast, and what the cache holds. */
static void write_extensions(const gen_reply *r, const reply_choice *c, jout *j) {
    jout_key(j, "timings");
    reply_json_timings(j, &c->usage);
    jout_key(j, "turboquant");
    reply_json_cache(j, r->sinks, &c->usage.cache);
}

static void write_text(jout *j, const char *key, const reply_text *text) {
    jout_key(j, key);
    jout_string(j, text->n ? text->data : "", text->n);
}

void gen_reply_write(gen_reply *r, jout *j) {
    jout_object(j);
    write_head(r, false, j);
    jout_key(j, "choices");
    jout_array(j);
    for (int i = 0; i < r->n_choices; i++) {
        reply_choice *c = &r->choices[i];
        jout_object(j);
        jout_put_int(j, "index", i);
        if (r->kind == GEN_CHAT) {
            jout_key(j, "message");
            jout_object(j);
            jout_put_string(j, "role", "assistant");
            write_text(j, "content", &c->content);
            if (c->reasoning.n) write_text(j, "reasoning_content", &c->reasoning);
            jout_put_string(j, "refusal", NULL);
            jout_end(j);
        } else {
            write_text(j, "text", &c->content);
        }
        write_logprobs(r, c, j);
        jout_put_string(j, "finish_reason", finish_name(c));
        jout_end(j);
    }
    jout_end(j);
    write_usage(r, j);
    write_extensions(r, &r->choices[0], j);
    jout_end(j);
}

/* ---- chunks -------------------------------------------------------------------------------------------------------- */

/* Up to the delta of a chat, or the text of a completion, which the caller fills in. */
static void begin_chunk(gen_reply *r, int choice, jout *j) {
    jout_object(j);
    write_head(r, true, j);
    jout_key(j, "choices");
    jout_array(j);
    jout_object(j);
    jout_put_int(j, "index", choice);
    if (r->kind == GEN_CHAT) {
        jout_key(j, "delta");
        jout_object(j);
    }
}

static void end_chunk(gen_reply *r, reply_choice *c, bool finish, jout *j) {
    if (r->kind == GEN_CHAT) jout_end(j);
    if (r->with_logprobs && count_released(c)) write_logprobs(r, c, j);
    else jout_put_string(j, "logprobs", NULL);
    jout_put_string(j, "finish_reason", finish ? finish_name(c) : NULL);
    jout_end(j);
    jout_end(j);
    if (r->include_usage) jout_put_string(j, "usage", NULL);
    if (finish) write_extensions(r, c, j);
    jout_end(j);
}

void gen_reply_write_role(gen_reply *r, int choice, jout *j) {
    begin_chunk(r, choice, j);
    jout_put_string(j, "role", "assistant");
    jout_put_string(j, "content", "");
    end_chunk(r, &r->choices[choice], false, j);
}

bool gen_reply_write_reasoning(gen_reply *r, int choice, jout *j) {
    reply_choice *c = &r->choices[choice];
    if (c->reasoning.n == 0) return false;
    begin_chunk(r, choice, j);
    write_text(j, "reasoning_content", &c->reasoning);
    c->reasoning.n = 0;
    end_chunk(r, c, false, j);
    return true;
}

bool gen_reply_write_content(gen_reply *r, int choice, jout *j) {
    reply_choice *c = &r->choices[choice];
    if (c->content.n == 0 && count_released(c) == 0) return false;
    begin_chunk(r, choice, j);
    write_text(j, r->kind == GEN_CHAT ? "content" : "text", &c->content);
    c->content.n = 0;
    end_chunk(r, c, false, j);
    return true;
}

bool gen_reply_write_finish(gen_reply *r, int choice, jout *j) {
    reply_choice *c = &r->choices[choice];
    if (!c->done || c->written) return false;
    c->written = true;
    begin_chunk(r, choice, j);
    if (r->kind == GEN_TEXT) jout_put_string(j, "text", "");
    end_chunk(r, c, true, j);
    return true;
}

void gen_reply_write_usage(gen_reply *r, jout *j) {
    jout_object(j);
    write_head(r, true, j);
    jout_key(j, "choices");
    jout_array(j);
    jout_end(j);
    write_usage(r, j);
    jout_end(j);
}

/* A chunk without choices, up to what it has instead. */
static void begin_report(gen_reply *r, jout *j) {
    jout_object(j);
    write_head(r, true, j);
    jout_key(j, "choices");
    jout_array(j);
    jout_end(j);
    if (r->include_usage) jout_put_string(j, "usage", NULL);
}

void gen_reply_write_progress(gen_reply *r, const tq_event *e, jout *j) {
    begin_report(r, j);
    jout_key(j, "prompt_progress");
    jout_object(j);
    jout_put_int(j, "done", e->done);
    jout_put_int(j, "total", e->total);
    jout_put_int(j, "cached", e->cached);
    jout_end(j);
    jout_end(j);
}

void gen_reply_write_cache(gen_reply *r, const tq_request_cache *cache, jout *j) {
    begin_report(r, j);
    jout_key(j, "turboquant");
    reply_json_cache(j, r->sinks, cache);
    jout_end(j);
}
