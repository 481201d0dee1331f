/* plan.h: is there room for a session? */
#ifndef TQ_ENGINE_PLAN_H
#define TQ_ENGINE_PLAN_H

#include <turboquant/tq_plan.h>

#include "engine/session.h"

/* As tq_session_params_default's chunk may be longer than the context, the context of a session that is only asked. */
int tq_plan_probe_ctx(const tq_model *model, const tq_session_params *params);

/* What session (of any ctx) would take with a context of ctx tokens. */
void tq_plan_of(const tq_session *session, int ctx, tq_plan *out);

/* The largest ctx up to `most` for which there is room: by the model's limit, or what the system has now.  0: none.
 * Nothing is refused where the model has no limit (memory_limit < 0): then it is `most`. */
int tq_plan_room(const tq_session *session, int most);

/* TQ_NO_MEMORY unless there is room for ctx tokens: what is needed, what there is, and what would fit. */
tq_status tq_plan_check(const tq_session *session, int ctx, tq_error *err);

/* TQ_NO_MEMORY unless `bytes` more can be had; `what` needs them. */
tq_status tq_plan_check_bytes(int64_t memory_limit, int64_t bytes, const char *what, tq_error *err);

#endif
