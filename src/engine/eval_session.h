/* eval_session.h: a session of a measurement: made for it alone, with progress counted over all of its evaluations. */
#ifndef TQ_ENGINE_EVAL_SESSION_H
#define TQ_ENGINE_EVAL_SESSION_H

#include "engine/session.h"

typedef struct tq_eval_session {
    tq_session *session;
    tq_progress_fn progress; /* the caller's, or NULL */
    void *progress_ctx;
    int done, total; /* tokens */
    double started;
} tq_eval_session;

/* params->ctx is replaced by ctx; total: the tokens that will be evaluated, for progress.  Must not be moved. */
tq_status tq_eval_session_open(tq_model *model, const tq_session_params *params, int ctx, int total,
                               tq_eval_session *out, tq_error *err);
void tq_eval_session_close(tq_eval_session *e);

/* tq_session_eval_all; fn may be NULL. */
tq_status tq_eval_session_run(tq_eval_session *e, const int32_t *ids, int n, tq_logits_fn fn, void *ctx, tq_error *err);

/* Index of the largest of x (n). */
int tq_eval_argmax(const float *x, int n);

/* log(sum exp x) in double. */
double tq_eval_log_sum_exp(const float *x, int n);

#endif
