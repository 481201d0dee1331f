/* test_scheduler.c: requests that run together get what they get alone; budgets, reuse, cancelling, failing, draining. */
#define _GNU_SOURCE
#include "testing.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/session.h"
#include <turboquant/tq_scheduler.h>

#define BOOKWORM TQ_SOURCE_DIR "/models/bookworm"
#define HYBRID TQ_SOURCE_DIR "/tests/goldens/qwen3_next"
#define SLIDING TQ_SOURCE_DIR "/tests/goldens/gemma3"

/* ---- what a request said --------------------------------------------------------------------------------------------- */

enum { MOST_TOKENS = 512, MOST_TEXT = 8192 };

typedef struct heard {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    tq_request *request;
    int starts, prefills, tokens, dones;
    const char *wrong; /* what an event had that it must not have: asserting is for the test's own thread */
    int32_t ids[MOST_TOKENS];
    float logprobs[MOST_TOKENS];
    tq_token_logprob top[MOST_TOKENS][3];
    char text[MOST_TEXT];
    size_t text_len;
    tq_request_finish finish;
    tq_status status;
    int stop;
    int32_t end_id;
    char error[512];
    tq_usage usage;
    int last_done;
    float *embedding;
    int n_embedding;
    int cancel_at_token, cancel_at_prefill, cancel_at_start; /* from within the callback; 0: never */
    double token_at[MOST_TOKENS];
} heard;

static void hear_text(heard *h, const tq_event *e) {
    if (h->text_len + e->text_len >= MOST_TEXT) {
        h->wrong = "too much text";
        return;
    }
    if (e->text_len) memcpy(h->text + h->text_len, e->text, e->text_len);
    h->text_len += e->text_len;
    h->text[h->text_len] = 0;
}

static void hear_token(heard *h, const tq_event *e) {
    if (h->starts != 1 || h->tokens == MOST_TOKENS) {
        h->wrong = "a token before the start, or too many";
        return;
    }
    h->ids[h->tokens] = e->id;
    h->logprobs[h->tokens] = e->logprob;
    for (int i = 0; i < e->n_top && i < 3; i++) h->top[h->tokens][i] = e->top[i];
    h->token_at[h->tokens] = tq_clock_seconds();
    h->tokens++;
    hear_text(h, e);
}

static void on_event(void *ctx, tq_request *request, const tq_event *e) {
    heard *h = ctx;
    pthread_mutex_lock(&h->lock);
    if (h->dones) h->wrong = "an event after the last";
    switch (e->kind) {
    case TQ_EVENT_START:
        h->starts++;
        if (h->cancel_at_start) tq_request_cancel(request);
        break;
    case TQ_EVENT_PREFILL:
        if (e->done <= h->last_done || e->done > e->total || e->cached > e->done) h->wrong = "progress that is none";
        h->last_done = e->done;
        if (++h->prefills == h->cancel_at_prefill) tq_request_cancel(request);
        break;
    case TQ_EVENT_TOKEN:
        hear_token(h, e);
        if (h->tokens == h->cancel_at_token) tq_request_cancel(request);
        break;
    case TQ_EVENT_DONE:
        hear_text(h, e);
        h->finish = e->finish;
        h->status = e->status;
        h->stop = e->stop;
        h->end_id = e->end_id;
        h->usage = e->usage;
        snprintf(h->error, sizeof h->error, "%s", e->error);
        if (e->embedding) {
            h->embedding = malloc((size_t)e->n_embedding * sizeof(float));
            memcpy(h->embedding, e->embedding, (size_t)e->n_embedding * sizeof(float));
            h->n_embedding = e->n_embedding;
        }
        h->dones++;
        break;
    }
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

static heard *listener(void) {
    heard *h = test_alloc(sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
    return h;
}

static void wait_done(heard *h) {
    pthread_mutex_lock(&h->lock);
    while (!h->dones) pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

static void forget(heard *h) {
    if (h->wrong) fail_msg("%s", h->wrong);
    assert_int_equal(h->dones, 1);
    tq_request_release(h->request);
    free(h->embedding);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
    free(h);
}

/* ---- models, prompts -------------------------------------------------------------------------------------------------- */

static tq_model *open_model(const char *path) {
    tq_model_params params = {.n_threads = 2};
    tq_model *model = NULL;
    OK(tq_model_open(path, &params, &model, &e));
    return model;
}

static tq_scheduler *open_scheduler(tq_model *model, const tq_scheduler_params *params) {
    tq_scheduler *s = NULL;
    OK(tq_scheduler_new(model, params, &s, &e));
    return s;
}

static tq_scheduler_params small(void) {
    tq_scheduler_params p = tq_scheduler_params_default();
    p.ctx = 4096;
    p.cache_bytes = (size_t)128 << 20;
    p.prefill_chunk = 64;
    p.keep_replies = false;
    return p;
}

/* Ids that look like words to nobody but are the same every time. */
static void random_ids(int32_t *ids, int n, int vocab, uint64_t seed) {
    tq_rng rng = {seed};
    for (int i = 0; i < n; i++) ids[i] = (int32_t)(3 + tq_rng_u64(&rng) % (uint64_t)(vocab - 3));
}

static tq_request_params ask(const int32_t *ids, int n, int max_tokens, heard *h) {
    tq_request_params p = tq_request_params_default();
    p.ids = ids;
    p.n_ids = n;
    p.max_tokens = max_tokens;
    p.on_event = on_event;
    p.ctx = h;
    return p;
}

static void submit(tq_scheduler *s, const tq_request_params *p, heard *h) {
    OK(tq_scheduler_submit(s, p, &h->request, &e));
}

/* The same by a session alone. */
static tq_generate_result alone(tq_model *model, const tq_scheduler_params *sp, const tq_request_params *rp) {
    tq_session_params params = tq_session_params_default();
    params.ctx = sp->ctx;
    params.cache = sp->cache;
    if (rp->kv) params.cache.kv = rp->kv;
    params.prefill_chunk = sp->prefill_chunk;
    tq_session *session = NULL;
    OK(tq_session_new(model, &params, &session, &e));
    OK(tq_session_eval(session, rp->ids, rp->n_ids, &e));
    tq_generate_params gp = tq_generate_params_default();
    gp.max_tokens = rp->max_tokens;
    gp.sampling = rp->sampling;
    gp.ignore_eos = rp->ignore_eos;
    tq_generate_result result;
    OK(tq_generate(session, &gp, &result, &e));
    tq_session_free(session);
    return result;
}

static void want_same(const heard *h, const tq_generate_result *want, const char *what) {
    if (h->tokens != want->n_ids || memcmp(h->ids, want->ids, (size_t)want->n_ids * sizeof *h->ids) != 0)
        fail_msg("%s: got %d tokens, want %d, or others", what, h->tokens, want->n_ids);
    assert_int_equal(h->text_len, want->text_len);
    assert_memory_equal(h->text, want->text, want->text_len);
    assert_int_equal(h->usage.generated_tokens, want->n_ids);
}

/* Ask and wait; then the answer must be the one of a session alone. */
static heard *want_as_alone(tq_scheduler *s, tq_model *model, const tq_scheduler_params *sp, tq_request_params p) {
    heard *h = listener();
    p.ctx = h;
    submit(s, &p, h);
    wait_done(h);
    assert_string_equal(h->error, "");
    tq_generate_result want = alone(model, sp, &p);
    want_same(h, &want, "as alone");
    tq_generate_result_free(&want);
    return h;
}

static tq_scheduler_stats stats_of(tq_scheduler *s) {
    tq_scheduler_stats stats;
    tq_scheduler_get_stats(s, &stats);
    assert_true(stats.cache_exact + stats.cache_packed + stats.cache_tree + stats.cache_free == stats.cache_limit);
    assert_true(stats.cache_running <= stats.cache_limit && stats.cache_shared <= stats.cache_packed);
    return stats;
}

/* ---- together as alone ----------------------------------------------------------------------------------------------- */

enum { MANY = 10 };

static void together(const char *path, const char *const *kvs, int n_kvs, int longest) {
    tq_model *model = open_model(path);
    tq_scheduler_params sp = small();
    int vocab = tq_model_get_info(model)->vocab, most = tq_model_get_info(model)->max_context;
    if (sp.ctx > most) sp.ctx = most;
    sp.parallel = 6; /* some queue */
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t *ids = test_alloc((size_t)longest * MANY * sizeof *ids);
    heard *h[MANY];
    tq_request_params p[MANY];
    for (int i = 0; i < MANY; i++) {
        int32_t *mine = ids + (size_t)longest * (size_t)i;
        int n = 1 + (longest - 1) * (i + 1) / MANY;
        random_ids(mine, n, vocab, i % 3 == 2 ? 1000 : 1000 + (uint64_t)i); /* some begin alike */
        h[i] = listener();
        p[i] = ask(mine, n, 12 + i, h[i]);
        p[i].kv = kvs[i % n_kvs];
        p[i].ignore_eos = i % 2;
        p[i].sampling.seed = 7 + (uint64_t)i;
        if (i % 4) p[i].sampling.temp = .8f, p[i].sampling.top_p = .95f;
        if (i == 5) p[i].sampling.repeat_penalty = 1.3f, p[i].sampling.presence_penalty = .5f;
        submit(s, &p[i], h[i]);
    }
    for (int i = 0; i < MANY; i++) {
        wait_done(h[i]);
        assert_string_equal(h[i]->error, "");
        tq_generate_result want = alone(model, &sp, &p[i]);
        want_same(h[i], &want, kvs[i % n_kvs]);
        assert_int_equal(h[i]->finish, want.finish == TQ_FINISH_STOP ? TQ_REQUEST_STOP : TQ_REQUEST_LENGTH);
        tq_generate_result_free(&want);
        forget(h[i]);
    }
    tq_scheduler_stats stats = stats_of(s);
    assert_int_equal(stats.accepted, MANY);
    assert_int_equal(stats.finished[TQ_REQUEST_STOP] + stats.finished[TQ_REQUEST_LENGTH], MANY);
    assert_true(stats.decode_steps < stats.generated_tokens); /* some steps were taken together */
    tq_scheduler_free(s);
    tq_model_free(model);
    free(ids);
}

static void requests_together_get_what_they_get_alone(void **state) {
    (void)state;
    const char *const kvs[] = {NULL, "tq3", "f16", "mlx-k3v2", "tq2,first=2,last=2:q8"};
    together(BOOKWORM, kvs, 5, 700);
}

static void so_do_those_of_hybrid_and_sliding_models(void **state) {
    (void)state;
    const char *const kvs[] = {"f16", "q8"};
    together(HYBRID, kvs, 2, 200);
    together(SLIDING, kvs, 2, 200);
}


/* ---- reuse ------------------------------------------------------------------------------------------------------------ */

/* A run with a checkpoint must give what a run from nothing gives. */
static void reuse(const char *path, const char *kv, int n, int boundary) {
    tq_model *model = open_model(path);
    tq_scheduler_params sp = small();
    int most = tq_model_get_info(model)->max_context, vocab = tq_model_get_info(model)->vocab;
    if (sp.ctx > most) sp.ctx = most;
    sp.prefill_chunk = boundary;
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t *ids = test_alloc((size_t)(n + 100) * sizeof *ids);
    random_ids(ids, n + 100, vocab, 5);
    tq_request_params p = ask(ids, n, 20, NULL);
    p.kv = kv;
    p.sampling.temp = 1, p.sampling.seed = 11;

    heard *h = want_as_alone(s, model, &sp, p);
    assert_int_equal(h->usage.cached_tokens, 0);
    forget(h);
    h = want_as_alone(s, model, &sp, p); /* the same */
    assert_int_equal(h->usage.cached_tokens, (n - 1) / boundary * boundary);
    forget(h);
    p.n_ids = n + 100; /* longer */
    h = want_as_alone(s, model, &sp, p);
    assert_int_equal(h->usage.cached_tokens, n / boundary * boundary);
    forget(h);
    h = want_as_alone(s, model, &sp, p); /* the first two wrote behind it, into pages of their own */
    assert_int_equal(h->usage.cached_tokens, (n + 99) / boundary * boundary);
    forget(h);
    p.n_ids = n;
    h = want_as_alone(s, model, &sp, p);
    assert_int_equal(h->usage.cached_tokens, (n - 1) / boundary * boundary);
    forget(h);
    p.kv = strcmp(kv, "f16") ? "f16" : "q8"; /* another codec has another tree */
    h = want_as_alone(s, model, &sp, p);
    assert_int_equal(h->usage.cached_tokens, 0);
    forget(h);
    p.kv = kv;
    p.use_cache = false;
    h = want_as_alone(s, model, &sp, p);
    assert_int_equal(h->usage.cached_tokens, 0);
    forget(h);

    tq_scheduler_stats stats = stats_of(s);
    assert_int_equal(stats.prefix[TQ_PREFIX_NEW], 2);
    assert_int_equal(stats.prefix[TQ_PREFIX_UNUSED], 1);
    assert_int_equal(stats.prefix[TQ_PREFIX_HIT] + stats.prefix[TQ_PREFIX_PARTIAL], 4);
    assert_true(stats.tree_tokens >= (n + 99) / boundary * boundary && stats.tree_checkpoints >= 2);
    tq_scheduler_free(s);
    tq_model_free(model);
    free(ids);
}

static void a_reused_prefix_gives_the_bits_of_a_cold_run(void **state) {
    (void)state;
    reuse(BOOKWORM, "tq3", 1000, 64);
    reuse(BOOKWORM, "tq3", 640, 128);
    reuse(BOOKWORM, "f16", 500, 64);
    reuse(BOOKWORM, "mlx-k3v2", 300, 32);
    reuse(BOOKWORM, "tq3,first=2:q8", 400, 96);
}

static void so_do_recurrent_states_and_sliding_windows(void **state) {
    (void)state;
    reuse(HYBRID, "q8", 150, 32);
    reuse(SLIDING, "q8", 300, 32);
    reuse(SLIDING, "f16", 150, 16);
}

/* Prompts that part in the middle: the second one meets the first's checkpoints up to there, the third one's is exact. */
static void prompts_that_part_share_what_they_have_in_common(void **state) {
    (void)state;
    tq_model *model = open_model(BOOKWORM);
    tq_scheduler_params sp = small();
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[3][600];
    for (int i = 0; i < 3; i++) {
        random_ids(ids[i], 600, 8192, 20 + (uint64_t)i);
        random_ids(ids[i], 300, 8192, 77);
    }
    int want[3] = {0, 256, 256}; /* of 300 in common, chunks of 64: 256; the spaced checkpoint is there */
    for (int i = 0; i < 3; i++) {
        heard *h = want_as_alone(s, model, &sp, ask(ids[i], 600, 8, NULL));
        assert_int_equal(h->usage.cached_tokens, want[i]);
        if (i > 0) assert_true(h->usage.cache.shared_pages >= 1);
        forget(h);
    }
    assert_int_equal(stats_of(s).tree_tokens, 256 + 3 * (576 - 256));
    tq_scheduler_free(s);
    tq_model_free(model);
}

/* Four choices at once: one prefill. */
static void choices_wait_for_the_first_ones_prefill(void **state) {
    (void)state;
    tq_model *model = open_model(BOOKWORM);
    tq_scheduler_params sp = small();
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[1000];
    random_ids(ids, 1000, 8192, 3);
    heard *h[4];
    tq_request_params p[4];
    for (int i = 0; i < 4; i++) {
        h[i] = listener();
        p[i] = ask(ids, i == 3 ? 700 : 1000, 10, h[i]); /* the last one is only a part */
        p[i].sampling.temp = 1, p[i].sampling.seed = (uint64_t)i;
        submit(s, &p[i], h[i]);
    }
    int differ = 0;
    for (int i = 0; i < 4; i++) {
        wait_done(h[i]);
        tq_generate_result want = alone(model, &sp, &p[i]);
        want_same(h[i], &want, "choice");
        tq_generate_result_free(&want);
        differ += memcmp(h[i]->ids, h[0]->ids, 10 * sizeof(int32_t)) != 0;
        if (i > 0) assert_int_equal(h[i]->usage.cached_tokens, i == 3 ? 640 : 960);
    }
    assert_true(differ >= 2);
    assert_int_equal(stats_of(s).prefill_tokens, 1000 + 40 + 40 + 60);
    for (int i = 0; i < 4; i++) forget(h[i]);
    tq_scheduler_free(s);
    tq_model_free(model);
}

static void wait_idle(tq_scheduler *s, uint64_t prefill_tokens) {
    for (int i = 0; i < 2000 && stats_of(s).prefill_tokens < prefill_tokens; i++)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

/* The second turn goes on from the first reply, and still gives the bits of a cold run. */
static void replies_join_the_tree_when_idle(void **state) {
    (void)state;
    tq_model *model = open_model(BOOKWORM);
    tq_scheduler_params sp = small();
    sp.keep_replies = true;
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[800];
    random_ids(ids, 800, 8192, 9);
    tq_request_params p = ask(ids, 300, 200, NULL);
    p.ignore_eos = true;
    heard *h = want_as_alone(s, model, &sp, p);
    memcpy(ids + 300, h->ids, 200 * sizeof *ids);
    forget(h);
    wait_idle(s, 300 + 448 - 256); /* from the prompt's last boundary to the reply's */
    assert_int_equal(stats_of(s).running, 0);
    h = want_as_alone(s, model, &sp, ask(ids, 530, 8, NULL));
    assert_int_equal(h->usage.cached_tokens, 448);
    forget(h);
    tq_scheduler_free(s);
    tq_model_free(model);
}

/* ---- budgets ---------------------------------------------------------------------------------------------------------- */

typedef struct log_lines {
    pthread_mutex_t lock;
    char text[1 << 16];
} log_lines;

static void keep_line(void *ctx, tq_log_level level, const char *text) {
    (void)level;
    log_lines *log = ctx;
    pthread_mutex_lock(&log->lock);
    if (strlen(log->text) + strlen(text) + 2 < sizeof log->text) strcat(strcat(log->text, text), "\n");
    pthread_mutex_unlock(&log->lock);
}

/* Far more prompts than fit: nothing fails, the limit holds, and what was taken is named. */
static void the_budget_is_hard_and_the_oldest_go(void **state) {
    (void)state;
    tq_model *model = open_model(BOOKWORM);
    tq_scheduler_params sp = small();
    log_lines *log = test_alloc(sizeof *log);
    pthread_mutex_init(&log->lock, NULL);
    sp.log = keep_line, sp.log_ctx = log;
    sp.cache_bytes = (size_t)14 << 20; /* a prompt of 1,000 tokens and its checkpoint: 3.5 MB; attention's scratch: 1 */
    sp.parallel = 2;
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[1000];
    for (int i = 0; i < 8; i++) {
        random_ids(ids, 1000, 8192, 40 + (uint64_t)i);
        forget(want_as_alone(s, model, &sp, ask(ids, 1000, 4, NULL)));
        assert_true(stats_of(s).cache_free < sp.cache_bytes);
    }
    tq_scheduler_stats stats = stats_of(s);
    assert_true(stats.checkpoints_evicted > 0 && stats.tree_checkpoints > 0);
    heard *h = want_as_alone(s, model, &sp, ask(ids, 1000, 4, NULL)); /* the newest is there */
    assert_int_equal(h->usage.cached_tokens, 960);
    forget(h);
    random_ids(ids, 1000, 8192, 40);
    h = want_as_alone(s, model, &sp, ask(ids, 1000, 4, NULL));
    assert_int_equal(h->usage.cached_tokens, 0);
    forget(h);
    assert_int_equal(stats_of(s).prefix[TQ_PREFIX_EVICTED], 1);
    assert_non_null(strstr(log->text, "up to 960 had been kept, but the budget took it"));
    assert_non_null(strstr(log->text, "parts from it at token 0"));
    tq_scheduler_free(s);
    tq_model_free(model);
    free(log);
}

/* One may hold all of the budget: the others wait for their turn, and all get what they get alone. */
static void requests_wait_for_bytes_and_none_fails(void **state) {
    (void)state;
    tq_model *model = open_model(BOOKWORM);
    tq_scheduler_params sp = small();
    sp.cache_bytes = (size_t)20 << 20;
    sp.cache.kv = "f16"; /* 8 KB a token: two requests of 1,000 tokens at once, not three */
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[6][1000];
    heard *h[6];
    tq_request_params p[6];
    for (int i = 0; i < 6; i++) {
        random_ids(ids[i], 1000, 8192, 60 + (uint64_t)i);
        h[i] = listener();
        p[i] = ask(ids[i], 960, 40, h[i]);
        p[i].ignore_eos = true;
        submit(s, &p[i], h[i]);
    }
    int most_running = 0;
    for (bool all = false; !all;) {
        tq_scheduler_stats stats = stats_of(s);
        if (stats.running > most_running) most_running = stats.running;
        all = stats.finished[TQ_REQUEST_LENGTH] == 6 || stats.finished[TQ_REQUEST_FAILED] > 0;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    assert_true(most_running <= 2);
    for (int i = 0; i < 6; i++) {
        wait_done(h[i]);
        assert_string_equal(h[i]->error, "");
        tq_generate_result want = alone(model, &sp, &p[i]);
        want_same(h[i], &want, "after waiting");
        tq_generate_result_free(&want);
        forget(h[i]);
    }
    tq_scheduler_free(s);
    tq_model_free(model);
}

/* Whatever cannot be is refused at once, with both numbers, and nothing comes of it. */
static void what_cannot_be_is_refused_with_both_numbers(void **state) {
    (void)state;
    tq_model *model = open_model(BOOKWORM);
    tq_scheduler_params sp = small();
    sp.cache_bytes = (size_t)16 << 20;
    sp.parallel = 1;
    sp.queue_limit = 1;
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t *ids = test_alloc(5000 * sizeof *ids);
    random_ids(ids, 5000, 8192, 1);
    heard *h = listener();
    tq_request *r;
    tq_request_params p = ask(ids, 4000, 97, h);
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_FULL, "context of 4096 tokens: no room for a prompt of 4000 and a reply of 97");
    p.n_ids = 4097, p.max_tokens = 0;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_FULL, "4097");
    p.n_ids = 4000, p.max_tokens = 96, p.kv = "f16";
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_FULL, "cache budget of 16777216 bytes: 4096 tokens can take");
    p.kv = "tq9";
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "tq9");
    p.kv = "";
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "");
    p.kv = NULL, p.n_ids = 0;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "prompt");
    p.n_ids = 10, ids[3] = 8192;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "token id 8192 is outside the vocabulary of 8192");
    ids[3] = 5, p.n_logprobs = 21;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "n_logprobs");
    const char *stops[] = {"x", ""};
    p.n_logprobs = -1, p.stops = stops, p.n_stops = 2;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "stop");
    p.n_stops = 0, p.sampling.temp = -1;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "temp");
    assert_int_equal(h->starts + h->dones, 0);
    assert_int_equal(stats_of(s).refused_full, 3);

    heard *first = listener(), *second = listener();
    tq_request_params long_one = ask(ids, 2000, 500, first), next = ask(ids, 10, 4, second);
    long_one.ignore_eos = true;
    submit(s, &long_one, first);
    submit(s, &next, second);
    p = ask(ids, 10, 4, h);
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_BUSY, "1 requests wait already, of 1");
    tq_request_cancel(first->request);
    wait_done(second);
    assert_string_equal(second->error, "");
    assert_int_equal(first->finish, TQ_REQUEST_CANCELLED);
    assert_int_equal(stats_of(s).refused_busy, 1);
    forget(first), forget(second);
    free(h);
    tq_scheduler_free(s);
    tq_scheduler *none;
    sp.cache_bytes = 1000;
    FAILS(tq_scheduler_new(model, &sp, &none, &e), TQ_FULL, "1000");
    sp.cache_bytes = 1 << 24, sp.parallel = 65;
    FAILS(tq_scheduler_new(model, &sp, &none, &e), TQ_INVALID, "parallel");
    tq_model_free(model);
    free(ids);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_together_get_what_they_get_alone),
        cmocka_unit_test(so_do_those_of_hybrid_and_sliding_models),
        cmocka_unit_test(a_reused_prefix_gives_the_bits_of_a_cold_run),
        cmocka_unit_test(so_do_recurrent_states_and_sliding_windows),
        cmocka_unit_test(prompts_that_part_share_what_they_have_in_common),
        cmocka_unit_test(choices_wait_for_the_first_ones_prefill),
        cmocka_unit_test(replies_join_the_tree_when_idle),
        cmocka_unit_test(the_budget_is_hard_and_the_oldest_go),
        cmocka_unit_test(requests_wait_for_bytes_and_none_fails),
        cmocka_unit_test(what_cannot_be_is_refused_with_both_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
