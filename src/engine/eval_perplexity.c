/* eval_perplexity.c: how well a model predicts a text, and how it goes on from one. */
#include <string.h>

#include "engine/eval_session.h"

#include <turboquant/tq_eval.h>

typedef struct text_run {
    const int32_t *ids;
    int n, base, vocab;
    double nll;
} text_run;

static void add_nll(void *ctx, int i, const float *logits) {
    text_run *run = ctx;
    int next = run->base + i + 1;
    if (next >= run->n) return;
    run->nll += tq_eval_log_sum_exp(logits, run->vocab) - logits[run->ids[next]];
}

tq_status tq_eval_perplexity(tq_model *model, const int32_t *ids, int n, int chunk,
                             const tq_session_params *session_params, tq_perplexity_result *result, tq_error *err) {
    *result = (tq_perplexity_result){0};
    if (n < 2 || chunk < 1) return tq_fail(err, TQ_INVALID, "perplexity: want 2 or more tokens in chunks of 1 or more");
    tq_eval_session s;
    TQ_TRY(tq_eval_session_open(model, session_params, n, n, &s, err));
    text_run run = {.ids = ids, .n = n, .vocab = model->config.vocab};
    tq_status status = TQ_OK;
    for (; status == TQ_OK && run.base < n; run.base += chunk) {
        int m = n - run.base < chunk ? n - run.base : chunk;
        status = tq_eval_session_run(&s, ids + run.base, m, add_nll, &run, err);
    }
    tq_cache_stats stats;
    tq_session_get_cache_stats(s.session, &stats);
    *result = (tq_perplexity_result){.nll = run.nll, .tokens = n - 1, .bits_per_value = stats.bits_per_value,
                                     .packed_fraction = (double)stats.packed_tokens / (stats.tokens ? stats.tokens : 1)};
    tq_eval_session_close(&s);
    return status;
}

/* Tokens are evaluated one by one, as they come: progress after each. */
static tq_status decode(tq_eval_session *s, int max_tokens, int32_t *out, tq_error *err) {
    for (int i = 0; i < max_tokens; i++) {
        out[i] = tq_eval_argmax(tq_session_logits(s->session), s->session->model->config.vocab);
        if (i + 1 < max_tokens) TQ_TRY(tq_eval_session_run(s, &out[i], 1, NULL, NULL, err));
        if (s->progress && !s->progress(s->progress_ctx, s->done, s->total))
            return tq_fail(err, TQ_CANCELLED, "cancelled after %d of %d tokens", i + 1, max_tokens);
    }
    return TQ_OK;
}

tq_status tq_eval_greedy(tq_model *model, const int32_t *ids, int n, int max_tokens,
                         const tq_session_params *session_params, int32_t *out, tq_greedy_result *result,
                         tq_error *err) {
    if (n < 1 || max_tokens < 1)
        return tq_fail(err, TQ_INVALID, "greedy: want 1 or more tokens before and after, got %d and %d", n, max_tokens);
    tq_eval_session s;
    TQ_TRY(tq_eval_session_open(model, session_params, n + max_tokens, n + max_tokens - 1, &s, err));
    tq_status status = tq_eval_session_run(&s, ids, n, NULL, NULL, err);
    if (status == TQ_OK) status = decode(&s, max_tokens, out, err);
    tq_cache_stats stats;
    tq_session_get_cache_stats(s.session, &stats);
    if (result)
        *result = (tq_greedy_result){stats.bits_per_value,
                                     (double)stats.packed_tokens / (stats.tokens ? stats.tokens : 1)};
    tq_eval_session_close(&s);
    return status;
}
