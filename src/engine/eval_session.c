/* eval_session.c: see eval_session.h. */
#include "engine/eval_session.h"

#include <math.h>

#include "base/clock.h"

static bool pass_on(void *ctx, int done, int total) {
    (void)total;
    tq_eval_session *e = ctx;
    return e->progress(e->progress_ctx, e->done + done, e->total);
}

tq_status tq_eval_session_open(tq_model *model, const tq_session_params *params, int ctx, int total,
                               tq_eval_session *out, tq_error *err) {
    *out = (tq_eval_session){.progress = params->progress, .progress_ctx = params->progress_ctx, .total = total,
                             .started = tq_clock_seconds()};
    tq_session_params p = *params;
    p.ctx = ctx;
    p.progress = p.progress ? pass_on : NULL;
    p.progress_ctx = out;
    return tq_session_new(model, &p, &out->session, err);
}

void tq_eval_session_close(tq_eval_session *e) {
    tq_session_free(e->session);
    e->session = NULL;
}

tq_status tq_eval_session_run(tq_eval_session *e, const int32_t *ids, int n, tq_logits_fn fn, void *ctx, tq_error *err) {
    TQ_TRY(fn ? tq_session_eval_all(e->session, ids, n, fn, ctx, err) : tq_session_eval(e->session, ids, n, err));
    e->done += n;
    return TQ_OK;
}

int tq_eval_argmax(const float *x, int n) {
    int best = 0;
    for (int j = 1; j < n; j++)
        if (x[j] > x[best]) best = j;
    return best;
}

double tq_eval_log_sum_exp(const float *x, int n) {
    double top = x[tq_eval_argmax(x, n)], sum = 0;
    for (int j = 0; j < n; j++) sum += exp(x[j] - top);
    return top + log(sum);
}
