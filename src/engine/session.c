/* session.c: evaluating tokens in chunks, and keeping tokens and cache in step. */
#include "engine/session.h"

#include <stdlib.h>
#include <string.h>

#include "engine/plan.h"

tq_session_params tq_session_params_default(void) {
    return (tq_session_params){.ctx = 0, .cache = tq_cache_config_default(), .prefill_chunk = 256};
}

static tq_status check_params(const tq_model *model, tq_session_params *p, tq_error *err) {
    if (p->ctx < 1 || p->ctx > model->config.max_context)
        return tq_fail(err, TQ_INVALID, "ctx: the model was made for 1 to %d tokens, got %d", model->config.max_context, p->ctx);
    if (p->prefill_chunk < 1 || p->prefill_chunk > 1024)
        return tq_fail(err, TQ_INVALID, "prefill chunk: want 1 to 1024 tokens, got %d", p->prefill_chunk);
    if (p->prefill_chunk > p->ctx) p->prefill_chunk = p->ctx;
    return TQ_OK;
}

static tq_status build(tq_session *s, tq_error *err) {
    const tq_config *c = &s->model->config;
    tq_cache_params cache = tq_transformer_cache_params(s->model->transformer, s->params.ctx, &s->params.cache);
    TQ_TRY(tq_cache_new_on(s->model->backend, &cache, s->params.prefill_chunk, &s->cache, err));
    size_t state_floats = tq_transformer_state_floats(s->model->transformer);
    TQ_TRY(tq_recurrent_state_init(&s->state, c->n_delta_layers, state_floats, err));
    TQ_TRY(tq_recurrent_state_init(&s->checkpoint, c->n_delta_layers, state_floats, err));
    TQ_TRY(tq_activations_new(c, s->params.prefill_chunk, s->params.ctx, &s->activations, err));
    size_t vocab = (size_t)c->vocab;
    s->logits = malloc(TQ_LOGIT_ROWS * vocab * sizeof *s->logits);
    s->tokens = malloc((size_t)s->params.ctx * sizeof *s->tokens);
    s->candidates = malloc(vocab * sizeof *s->candidates);
    if (!s->logits || !s->tokens || !s->candidates)
        return tq_fail_memory(err, TQ_LOGIT_ROWS * vocab * sizeof *s->logits, "logits");
    return TQ_OK;
}

tq_status tq_session_build(tq_model *model, const tq_session_params *params, tq_session **out, tq_error *err) {
    tq_session *s = calloc(1, sizeof *s);
    if (!s) return tq_fail_memory(err, sizeof *s, "a session");
    s->model = model;
    s->params = *params;
    s->progress = s->params.progress;
    s->progress_ctx = s->params.progress_ctx;
    tq_status status = check_params(model, &s->params, err);
    if (status == TQ_OK) status = build(s, err);
    if (status != TQ_OK) {
        tq_session_free(s);
        return status;
    }
    *out = s;
    return TQ_OK;
}

/* Without a ctx: all that the model was made for, or as much of it as there is room for. */
static tq_status build_what_fits(tq_model *model, tq_session_params *p, tq_session **out, tq_error *err) {
    tq_session *probe;
    p->ctx = tq_plan_probe_ctx(model, p);
    TQ_TRY(tq_session_build(model, p, &probe, err));
    p->ctx = tq_plan_room(probe, model->config.max_context);
    tq_status status = p->ctx ? TQ_OK : tq_plan_check(probe, 1, err);
    tq_session_free(probe);
    return status == TQ_OK ? tq_session_build(model, p, out, err) : status;
}

/* Not even address space: say what the plan says, if it does. */
static tq_status explain_no_memory(tq_model *model, const tq_session_params *params, tq_error *err) {
    tq_session *probe;
    tq_session_params p = *params;
    p.ctx = tq_plan_probe_ctx(model, params);
    if (tq_session_build(model, &p, &probe, NULL) != TQ_OK) return TQ_NO_MEMORY;
    tq_plan_check(probe, params->ctx, err);
    tq_session_free(probe);
    return TQ_NO_MEMORY;
}

tq_status tq_session_new(tq_model *model, const tq_session_params *params, tq_session **out, tq_error *err) {
    tq_session_params p = params ? *params : tq_session_params_default();
    if (p.ctx == 0) return build_what_fits(model, &p, out, err);
    tq_session *s = NULL;
    tq_status status = tq_session_build(model, &p, &s, err);
    if (status == TQ_NO_MEMORY) return explain_no_memory(model, &p, err);
    if (status == TQ_OK) status = tq_plan_check(s, p.ctx, err);
    if (status == TQ_OK) *out = s;
    else tq_session_free(s); /* nothing of what it had reserved was used */
    return status;
}

void tq_session_free(tq_session *s) {
    if (!s) return;
    tq_cache_free(s->cache);
    tq_recurrent_state_destroy(&s->state);
    tq_recurrent_state_destroy(&s->checkpoint);
    tq_activations_free(&s->activations);
    free(s->logits);
    free(s->tokens);
    free(s->candidates);
    free(s);
}

void tq_session_set_progress(tq_session *session, tq_progress_fn fn, void *ctx) {
    session->progress = fn;
    session->progress_ctx = ctx;
}

/* ---- evaluation ---------------------------------------------------------------------------------------------------- */

static tq_status check_ids(const tq_session *s, const int32_t *ids, int n, tq_error *err) {
    if (n < 0) return tq_fail(err, TQ_INVALID, "eval: want 0 or more tokens, got %d", n);
    if (n > s->params.ctx - s->n_tokens)
        return tq_fail(err, TQ_FULL, "context full: %d tokens held and %d new ones do not fit into %d", s->n_tokens, n,
                       s->params.ctx);
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->model->config.vocab)
            return tq_fail(err, TQ_INVALID, "eval: token id %d is outside the vocabulary of %d", ids[i],
                           s->model->config.vocab);
    return TQ_OK;
}

static void forget_all(tq_session *s) {
    tq_cache_clear(s->cache);
    tq_recurrent_state_clear(&s->state);
    s->n_tokens = s->checkpoint_tokens = 0;
}

/* One chunk; on failure the cache goes back to where the tokens are, or where it cannot, all is forgotten. */
static tq_status eval_chunk(tq_session *s, const int32_t *ids, int n, tq_error *err) {
    pthread_mutex_lock(&s->model->turn);
    tq_part part = {.cache = s->cache, .state = &s->state, .ids = ids, .n = n, .pos = s->n_tokens};
    tq_batch batch = {.parts = &part, .n_parts = 1, .n = n};
    tq_status status = tq_forward(s->model->transformer, s->model->backend, &batch, &s->activations, err);
    pthread_mutex_unlock(&s->model->turn);
    if (status != TQ_OK) {
        if (s->state.n_layers > 0 || tq_cache_rewind(s->cache, s->n_tokens, NULL) != TQ_OK) forget_all(s);
        return status;
    }
    memmove(s->tokens + s->n_tokens, ids, (size_t)n * sizeof *ids);
    s->n_tokens += n;
    return TQ_OK;
}

static void compute_logits(tq_session *s, int first, int n) {
    const float *h = s->activations.h + (size_t)first * (size_t)s->model->config.hidden;
    pthread_mutex_lock(&s->model->turn);
    tq_forward_logits(s->model->transformer, s->model->backend, h, n, s->logits);
    pthread_mutex_unlock(&s->model->turn);
}

static void deliver_logits(tq_session *s, int done, int n, tq_logits_fn fn, void *ctx) {
    size_t vocab = (size_t)s->model->config.vocab;
    int rows = 0;
    for (int first = 0; first < n; first += rows) {
        rows = n - first < TQ_LOGIT_ROWS ? n - first : TQ_LOGIT_ROWS;
        compute_logits(s, first, rows);
        for (int i = 0; i < rows; i++) fn(ctx, done + first + i, s->logits + (size_t)i * vocab);
    }
    if (rows > 1) memcpy(s->logits, s->logits + (size_t)(rows - 1) * vocab, vocab * sizeof *s->logits);
}

/* Where a rewind can go back to: the end of the newest evaluation of several tokens, which a prompt is. */
static void mark_checkpoint(tq_session *s) {
    tq_recurrent_state_copy(&s->checkpoint, &s->state);
    s->checkpoint_tokens = s->n_tokens;
}

static tq_status eval(tq_session *s, const int32_t *ids, int n, tq_logits_fn fn, void *ctx, tq_error *err) {
    TQ_TRY(check_ids(s, ids, n, err));
    for (int done = 0; done < n;) {
        int m = n - done < s->params.prefill_chunk ? n - done : s->params.prefill_chunk;
        TQ_TRY(eval_chunk(s, ids + done, m, err));
        if (fn) deliver_logits(s, done, m, fn, ctx);
        else if (done + m == n) compute_logits(s, m - 1, 1);
        done += m;
        if (n > 1 && s->progress && !s->progress(s->progress_ctx, done, n) && done < n)
            return tq_fail(err, TQ_CANCELLED, "cancelled after %d of %d tokens", done, n);
    }
    if (n > 0) s->has_logits = true;
    if (n > 1) mark_checkpoint(s);
    return TQ_OK;
}

tq_status tq_session_eval(tq_session *session, const int32_t *ids, int n, tq_error *err) {
    return eval(session, ids, n, NULL, NULL, err);
}

tq_status tq_session_eval_all(tq_session *session, const int32_t *ids, int n, tq_logits_fn fn, void *ctx, tq_error *err) {
    return eval(session, ids, n, fn, ctx, err);
}

/* ---- facts ------------------------------------------------------------------------------------------------------- */

const float *tq_session_logits(const tq_session *session) { return session->has_logits ? session->logits : NULL; }
int tq_session_length(const tq_session *session) { return session->n_tokens; }
int tq_session_ctx(const tq_session *session) { return session->params.ctx; }
const int32_t *tq_session_tokens(const tq_session *session) { return session->tokens; }
const char *tq_session_kv(const tq_session *session) { return session->cache->kv; }

/* A recurrent state cannot be undone: back to the checkpoint, and from there on again. */
static tq_status rewind_state(tq_session *s, int length, tq_error *err) {
    int from = s->checkpoint_tokens;
    if (from == 0 || length < from)
        return tq_fail(err, TQ_INVALID,
                       "rewind: the recurrent state of %s goes back to 0 tokens%s%.0d%s, not to %d", s->model->config.family,
                       from ? " or to " : "", from, from ? " or more" : "", length);
    TQ_TRY(tq_cache_rewind(s->cache, from, err));
    tq_recurrent_state_copy(&s->state, &s->checkpoint);
    s->n_tokens = from;
    while (s->n_tokens < length) {
        int n = length - s->n_tokens < s->params.prefill_chunk ? length - s->n_tokens : s->params.prefill_chunk;
        TQ_TRY(eval_chunk(s, s->tokens + s->n_tokens, n, err));
    }
    return TQ_OK;
}

tq_status tq_session_rewind(tq_session *session, int length, tq_error *err) {
    if (length < 0 || length > session->n_tokens)
        return tq_fail(err, TQ_INVALID, "rewind: want 0 to %d tokens, got %d", session->n_tokens, length);
    if (length == session->n_tokens) return TQ_OK;
    if (length == 0) {
        forget_all(session);
    } else if (session->state.n_layers > 0) {
        TQ_TRY(rewind_state(session, length, err));
    } else {
        TQ_TRY(tq_cache_rewind(session->cache, length, err));
        session->n_tokens = length;
    }
    session->has_logits = false;
    return TQ_OK;
}

void tq_session_get_cache_stats(const tq_session *session, tq_cache_stats *stats) {
    tq_cache_get_stats(session->cache, stats);
}
