/* eval_perplexity.c: how well a model predicts a text, and how it goes on from one. */
#include <math.h>
#include <string.h>

#include "engine/session.h"

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
    float top = logits[0];
    for (int j = 1; j < run->vocab; j++) top = logits[j] > top ? logits[j] : top;
    double sum = 0;
    for (int j = 0; j < run->vocab; j++) sum += exp((double)logits[j] - top);
    run->nll += top + log(sum) - logits[run->ids[next]];
}

tq_status tq_eval_perplexity(tq_model *model, const int32_t *ids, int n, int chunk,
                             const tq_session_params *session_params, tq_perplexity_result *result, tq_error *err) {
    *result = (tq_perplexity_result){0};
    if (n < 2 || chunk < 1) return tq_fail(err, TQ_INVALID, "perplexity: want 2 or more tokens in chunks of 1 or more");
    tq_session_params params = *session_params;
    params.ctx = n;
    tq_session *s;
    TQ_TRY(tq_session_new(model, &params, &s, err));
    text_run run = {.ids = ids, .n = n, .vocab = model->config.vocab};
    tq_status status = TQ_OK;
    for (; status == TQ_OK && run.base < n; run.base += chunk) {
        int m = n - run.base < chunk ? n - run.base : chunk;
        status = tq_session_eval_all(s, ids + run.base, m, add_nll, &run, err);
    }
    tq_cache_stats stats;
    tq_session_get_cache_stats(s, &stats);
    *result = (tq_perplexity_result){.nll = run.nll, .tokens = n - 1, .bits_per_value = stats.bits_per_value,
                                     .packed_fraction = (double)stats.packed_tokens / (stats.tokens ? stats.tokens : 1)};
    tq_session_free(s);
    return status;
}

tq_status tq_eval_greedy(tq_model *model, const int32_t *ids, int n, int max_tokens,
                         const tq_session_params *session_params, int32_t *out, tq_error *err) {
    tq_session_params params = *session_params;
    params.ctx = n + max_tokens;
    tq_session *s;
    TQ_TRY(tq_session_new(model, &params, &s, err));
    tq_generate_params gp = tq_generate_params_default();
    gp.max_tokens = max_tokens;
    gp.ignore_eos = true;
    tq_generate_result r = {0};
    tq_status status = tq_session_eval(s, ids, n, err);
    if (status == TQ_OK) status = tq_generate(s, &gp, &r, err);
    if (status == TQ_OK) memcpy(out, r.ids, (size_t)r.n_ids * sizeof *out);
    tq_generate_result_free(&r);
    tq_session_free(s);
    return status;
}
