/* scheduler_testing.h: asking a scheduler and hearing what it says; the same asked of a session alone. */
#ifndef TQ_SCHEDULER_TESTING_H
#define TQ_SCHEDULER_TESTING_H

#include "testing.h"

#include <pthread.h>
#include <time.h>

#include "base/clock.h"
#include "engine/session.h"
#include <turboquant/tq_scheduler.h>

#define BOOKWORM TQ_SOURCE_DIR "/models/bookworm"
#define TINY TQ_SOURCE_DIR "/tests/goldens/qwen2" /* no tokenizer; vocabulary of 384 */
#define HYBRID TQ_SOURCE_DIR "/tests/goldens/qwen3_next"
#define SLIDING TQ_SOURCE_DIR "/tests/goldens/gemma3"

/* ---- what a request said --------------------------------------------------------------------------------------------- */

enum { MOST_TOKENS = 4096, MOST_TEXT = 32768 };

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

static inline void hear_text(heard *h, const tq_event *e) {
    if (h->text_len + e->text_len >= MOST_TEXT) {
        h->wrong = "too much text";
        return;
    }
    if (e->text_len) memcpy(h->text + h->text_len, e->text, e->text_len);
    h->text_len += e->text_len;
    h->text[h->text_len] = 0;
}

static inline void hear_token(heard *h, const tq_event *e) {
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

static inline void on_event(void *ctx, tq_request *request, const tq_event *e) {
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

static inline heard *listener(void) {
    heard *h = test_alloc(sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
    return h;
}

static inline void wait_done(heard *h) {
    pthread_mutex_lock(&h->lock);
    while (!h->dones) pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

static inline void wait_tokens(heard *h, int n) {
    pthread_mutex_lock(&h->lock);
    while (!h->dones && h->tokens < n) pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

static inline void forget(heard *h) {
    if (h->wrong) fail_msg("%s", h->wrong);
    assert_int_equal(h->dones, 1);
    tq_request_release(h->request);
    free(h->embedding);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
    free(h);
}

/* ---- models, prompts -------------------------------------------------------------------------------------------------- */

static inline tq_model *open_model(const char *path) {
    tq_model_params params = {.n_threads = 2};
    tq_model *model = NULL;
    OK(tq_model_open(path, &params, &model, &e));
    return model;
}

static inline tq_scheduler *open_scheduler(tq_model *model, const tq_scheduler_params *params) {
    tq_scheduler *s = NULL;
    OK(tq_scheduler_new(model, params, &s, &e));
    return s;
}

static inline tq_scheduler_params small(void) {
    tq_scheduler_params p = tq_scheduler_params_default();
    p.ctx = 4096;
    p.cache_bytes = (size_t)128 << 20;
    p.prefill_chunk = 64;
    p.keep_replies = false;
    return p;
}

/* Ids that look like words to nobody but are the same every time. */
static inline void random_ids(int32_t *ids, int n, int vocab, uint64_t seed) {
    tq_rng rng = {seed};
    for (int i = 0; i < n; i++) ids[i] = (int32_t)(3 + tq_rng_u64(&rng) % (uint64_t)(vocab - 3));
}

static inline tq_request_params ask(const int32_t *ids, int n, int max_tokens, heard *h) {
    tq_request_params p = tq_request_params_default();
    p.ids = ids;
    p.n_ids = n;
    p.max_tokens = max_tokens;
    p.on_event = on_event;
    p.ctx = h;
    return p;
}

static inline void submit(tq_scheduler *s, const tq_request_params *p, heard *h) {
    OK(tq_scheduler_submit(s, p, &h->request, &e));
}

/* The same by a session alone. */
static inline tq_generate_result alone(tq_model *model, const tq_scheduler_params *sp, const tq_request_params *rp) {
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

static inline void want_same(const heard *h, const tq_generate_result *want, const char *what) {
    if (h->tokens != want->n_ids || memcmp(h->ids, want->ids, (size_t)want->n_ids * sizeof *h->ids) != 0)
        fail_msg("%s: got %d tokens, want %d, or others", what, h->tokens, want->n_ids);
    assert_int_equal(h->text_len, want->text_len);
    assert_memory_equal(h->text, want->text, want->text_len);
    assert_int_equal(h->usage.generated_tokens, want->n_ids);
}

/* Ask and wait; then the answer must be the one of a session alone. */
static inline heard *want_as_alone(tq_scheduler *s, tq_model *model, const tq_scheduler_params *sp, tq_request_params p) {
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

static inline tq_scheduler_stats stats_of(tq_scheduler *s) {
    tq_scheduler_stats stats;
    tq_scheduler_get_stats(s, &stats);
    assert_true(stats.cache_exact + stats.cache_packed + stats.cache_tree + stats.cache_free == stats.cache_limit);
    assert_true(stats.cache_running <= stats.cache_limit && stats.cache_shared <= stats.cache_packed);
    return stats;
}

#endif
