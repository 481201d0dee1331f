/* scheduler.c: what other threads see of a scheduler: submission, the queue, draining, stats. */
#include "engine/scheduler.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/plan.h"

tq_scheduler_params tq_scheduler_params_default(void) {
    return (tq_scheduler_params){.parallel = 8, .queue_limit = 64, .cache_bytes = (size_t)1 << 30,
                                 .cache = tq_cache_config_default(), .prefill_chunk = 256, .keep_prompts = true,
                                 .keep_replies = true};
}

void tq_scheduler_log(const tq_scheduler *s, tq_log_level level, const char *format, ...) {
    if (!s->params.log) return;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    s->params.log(s->params.log_ctx, level, text);
}

/* ---- sizes ----------------------------------------------------------------------------------------------------------- */

tq_cache_params tq_scheduler_cache_params(const tq_scheduler *s, const char *kv) {
    tq_cache_config config = s->params.cache;
    if (kv) { /* a whole codec: what refines the scheduler's own does not refine another */
        config.kv = kv;
        config.key_bits = config.value_bits = config.value_group_size = 0;
    }
    return tq_transformer_cache_params(s->model->transformer, s->params.ctx, &config);
}

static tq_cache *find_shape(const tq_scheduler *s, const char *kv) {
    for (int i = kv ? 1 : 0; i < s->n_shapes; i++)
        if (!kv || strcmp(s->shapes[i].kv, kv) == 0) return s->shapes[i].cache;
    return NULL;
}

const tq_cache *tq_scheduler_tables(tq_scheduler *s, const char *kv) {
    pthread_mutex_lock(&s->lock);
    const tq_cache *cache = find_shape(s, kv);
    pthread_mutex_unlock(&s->lock);
    return cache;
}

tq_status tq_scheduler_shape(tq_scheduler *s, const char *kv, tq_cache **out, bool *owned, tq_error *err) {
    pthread_mutex_lock(&s->lock);
    *out = find_shape(s, kv);
    pthread_mutex_unlock(&s->lock);
    *owned = false;
    if (*out) return TQ_OK;
    tq_cache_params params = tq_scheduler_cache_params(s, kv);
    TQ_TRY(tq_cache_new_on(s->model->backend, &params, s->params.prefill_chunk, out, err));
    pthread_mutex_lock(&s->lock);
    *owned = s->n_shapes == TQ_KV_SHAPES || (kv && strlen(kv) >= sizeof s->shapes->kv) || find_shape(s, kv);
    if (!*owned) {
        strcpy(s->shapes[s->n_shapes].kv, kv ? kv : "");
        s->shapes[s->n_shapes++].cache = *out;
        s->stats.table_bytes += tq_cache_table_bytes(*out);
    }
    pthread_mutex_unlock(&s->lock);
    return TQ_OK;
}

static tq_status check_fits(tq_scheduler *s, const char *kv, int n_tokens, tq_error *err) {
    tq_cache *shape;
    bool owned;
    TQ_TRY(tq_scheduler_shape(s, kv, &shape, &owned, err));
    size_t want = tq_cache_bytes_for(shape, n_tokens) + s->scratch_bytes +
                  (size_t)s->model->config.n_delta_layers * tq_transformer_state_floats(s->model->transformer) * sizeof(float);
    if (owned) tq_cache_free(shape);
    if (want <= s->params.cache_bytes) return TQ_OK;
    return tq_fail(err, TQ_FULL, "cache budget of %zu bytes: %d tokens can take %zu", s->params.cache_bytes, n_tokens, want);
}

/* ---- construction ---------------------------------------------------------------------------------------------------- */

static tq_status check_params(const tq_model *model, tq_scheduler_params *p, tq_error *err) {
    if (p->ctx == 0) p->ctx = model->config.max_context;
    if (p->ctx < 1 || p->ctx > model->config.max_context)
        return tq_fail(err, TQ_INVALID, "ctx: the model was made for 1 to %d tokens, got %d", model->config.max_context, p->ctx);
    if (p->parallel < 1 || p->parallel > TQ_MAX_PARALLEL)
        return tq_fail(err, TQ_INVALID, "parallel: want 1 to %d requests, got %d", TQ_MAX_PARALLEL, p->parallel);
    if (p->queue_limit < 0) return tq_fail(err, TQ_INVALID, "queue limit: want 0 or more, got %d", p->queue_limit);
    if (p->prefill_chunk < 1 || p->prefill_chunk > 1024)
        return tq_fail(err, TQ_INVALID, "prefill chunk: want 1 to 1024 tokens, got %d", p->prefill_chunk);
    if (p->prefill_chunk > p->ctx) p->prefill_chunk = p->ctx;
    if (p->cache.kv && strlen(p->cache.kv) >= sizeof((tq_scheduler *)0)->kv)
        return tq_fail(err, TQ_INVALID, "codec '%s': the name is too long", p->cache.kv);
    return TQ_OK;
}

/* Scratch of attention and exact rows as the scheduler's codec wants them: that they fit is known from here on. */
static tq_status try_cache(tq_scheduler *s, tq_error *err) {
    tq_cache_params params = tq_scheduler_cache_params(s, NULL);
    tq_cache *cache;
    TQ_TRY(tq_cache_new_within(s->model->backend, &params, s->params.prefill_chunk, &s->budget, &cache, err));
    memcpy(s->stats.kv, cache->kv, sizeof s->stats.kv);
    tq_cache_free(cache);
    s->scratch_bytes = s->budget.scratch_bytes;
    return check_fits(s, NULL, 1, err);
}

/* The whole budget and the weights are to fit into memory from the start: nobody is killed for a cache that filled up. */
static tq_status check_memory(const tq_scheduler *s, tq_error *err) {
    size_t most = s->params.cache_bytes < INT64_MAX / 2 ? s->params.cache_bytes : INT64_MAX / 2;
    int64_t weights = s->model->synthetic ? 0 : s->model->info.weight_bytes;
    return tq_plan_check_bytes(s->model->memory_limit, (int64_t)most + weights, "the model and the cache budget", err);
}

static tq_status build(tq_scheduler *s, tq_error *err) {
    const tq_config *c = &s->model->config;
    TQ_TRY(check_memory(s, err));
    int steps = s->params.parallel < TQ_SINGLE_TOKENS ? s->params.parallel : TQ_SINGLE_TOKENS;
    size_t vocab = (size_t)c->vocab, rows = (size_t)steps * vocab;
    TQ_TRY(tq_activations_new(c, s->params.prefill_chunk, s->params.ctx, &s->chunk_activations, err));
    TQ_TRY(tq_activations_new(c, steps, s->params.ctx, &s->step_activations, err));
    s->stats.work_bytes = s->chunk_activations.bytes + s->step_activations.bytes + rows * sizeof *s->logits + vocab * sizeof *s->candidates;
    s->logits = malloc(rows * sizeof *s->logits);
    s->candidates = malloc(vocab * sizeof *s->candidates);
    if (!s->logits || !s->candidates) return tq_fail_memory(err, rows * sizeof *s->logits, "logits");
    TQ_TRY(tq_prefix_tree_new(&s->budget, s->params.prefill_chunk, &s->tree, err));
    return try_cache(s, err);
}

static void init_locks(tq_scheduler *s) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, &attributes);
    pthread_cond_init(&s->ended, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void destroy(tq_scheduler *s) {
    for (int i = 0; i < s->n_shapes; i++) tq_cache_free(s->shapes[i].cache);
    tq_prefix_tree_free(s->tree);
    tq_page_budget_destroy(&s->budget);
    tq_activations_free(&s->chunk_activations);
    tq_activations_free(&s->step_activations);
    free(s->logits);
    free(s->candidates);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->ended);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* Signals are for the threads of the program. */
static tq_status start_thread(tq_scheduler *s, tq_error *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&s->thread, NULL, tq_scheduler_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) return tq_fail(err, TQ_NO_MEMORY, "scheduler: could not start a thread: %s", strerror(failed));
    return TQ_OK;
}

tq_status tq_scheduler_new(tq_model *model, const tq_scheduler_params *params, tq_scheduler **out, tq_error *err) {
    tq_scheduler_params p = params ? *params : tq_scheduler_params_default();
    TQ_TRY(check_params(model, &p, err));
    tq_scheduler *s = calloc(1, sizeof *s);
    if (!s) return tq_fail_memory(err, sizeof *s, "a scheduler");
    s->model = model;
    s->params = p;
    if (p.cache.kv) s->params.cache.kv = strcpy(s->kv, p.cache.kv);
    s->last = &s->first;
    s->stats = (tq_scheduler_stats){.ctx = p.ctx, .parallel = p.parallel, .queue_limit = p.queue_limit,
                                    .prefill_chunk = p.prefill_chunk, .n_slots = p.parallel, .cache_limit = p.cache_bytes};
    tq_page_budget_init(&s->budget, p.cache_bytes);
    init_locks(s);
    tq_status status = build(s, err);
    if (status == TQ_OK) tq_scheduler_publish(s);
    if (status == TQ_OK) status = start_thread(s, err);
    if (status != TQ_OK) {
        destroy(s);
        return status;
    }
    *out = s;
    return TQ_OK;
}

/* ---- the end --------------------------------------------------------------------------------------------------------- */

static struct timespec in_seconds(double seconds) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (!(seconds > 0)) return t;
    if (seconds > 1e8) seconds = 1e8;
    t.tv_sec += (time_t)seconds;
    t.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    return t;
}

bool tq_scheduler_drain(tq_scheduler *s, double seconds) {
    struct timespec until = in_seconds(seconds);
    pthread_mutex_lock(&s->lock);
    s->draining = s->stats.draining = true;
    int timed_out = 0;
    while (s->n_open > 0 && timed_out != ETIMEDOUT) timed_out = pthread_cond_timedwait(&s->ended, &s->lock, &until);
    bool all_finished = s->n_open == 0;
    s->cancel_all = true;
    while (s->n_open > 0) pthread_cond_wait(&s->ended, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return all_finished;
}

void tq_scheduler_free(tq_scheduler *s) {
    if (!s) return;
    tq_scheduler_drain(s, 0);
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    destroy(s);
}

/* ---- submission -------------------------------------------------------------------------------------------------------- */

static tq_status enqueue(tq_scheduler *s, tq_request *r, tq_error *err) {
    pthread_mutex_lock(&s->lock);
    bool full = s->n_open >= s->params.parallel + s->params.queue_limit, draining = s->draining;
    int open = s->n_open;
    if (full || draining) {
        s->stats.refused_busy++;
    } else {
        atomic_fetch_add(&r->references, 1);
        r->id = ++s->last_id;
        *s->last = r;
        s->last = &r->next;
        s->n_queued++;
        s->n_open++;
        s->stats.accepted++;
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->lock);
    if (draining) return tq_fail(err, TQ_BUSY, "the scheduler is shutting down");
    if (full) return tq_fail(err, TQ_BUSY, "%d requests run or wait already: %d may run, and %d wait", open,
                             s->params.parallel, s->params.queue_limit);
    return TQ_OK;
}

static void count_full(tq_scheduler *s) {
    pthread_mutex_lock(&s->lock);
    s->stats.refused_full++;
    pthread_mutex_unlock(&s->lock);
}

tq_status tq_scheduler_submit(tq_scheduler *s, const tq_request_params *params, tq_request **out, tq_error *err) {
    tq_request *r = NULL;
    tq_status status = tq_request_new(s->model, s->params.ctx, params, &r, err);
    if (status == TQ_OK) status = check_fits(s, params->kv, tq_request_most_tokens(r), err);
    if (status == TQ_FULL) count_full(s);
    if (status == TQ_OK) status = enqueue(s, r, err);
    if (status != TQ_OK) {
        tq_request_release(r);
        return status;
    }
    *out = r;
    return TQ_OK;
}

/* ---- facts ------------------------------------------------------------------------------------------------------------- */

void tq_scheduler_get_stats(tq_scheduler *s, tq_scheduler_stats *stats) {
    pthread_mutex_lock(&s->lock);
    *stats = s->stats;
    stats->queued = s->n_queued;
    pthread_mutex_unlock(&s->lock);
}

const char *tq_prefix_result_name(tq_prefix_result result) {
    static const char *const names[TQ_PREFIX_RESULTS] = {"hit", "partial", "new", "evicted", "short", "unused"};
    return (unsigned)result < TQ_PREFIX_RESULTS ? names[result] : "unknown";
}
