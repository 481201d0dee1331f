/* request.h: inside of a tq_request: a copy of what was asked, checked, and how to reach who asked. */
#ifndef TQ_ENGINE_REQUEST_H
#define TQ_ENGINE_REQUEST_H

#include <stdatomic.h>
#include <turboquant/tq_scheduler.h>

#include "engine/model.h"

struct tq_request {
    _Atomic int references; /* the caller's handle, the scheduler */
    _Atomic bool cancelled;
    uint64_t id;
    tq_request_params params; /* arrays and strings are this request's; max_tokens is never 0 */
    double submitted;         /* by tq_clock_seconds */
    struct tq_request *next;  /* in the queue */
};

/* One reference.  TQ_INVALID, TQ_UNSUPPORTED name the parameter, TQ_FULL: more tokens than ctx. */
tq_status tq_request_new(const tq_model *model, int ctx, const tq_request_params *params, tq_request **out, tq_error *err);

/* Tokens that it can come to hold. */
int tq_request_most_tokens(const tq_request *request);

/* seconds is filled in. */
void tq_request_tell(tq_request *request, tq_event *event);

/* Whether it has to end now, and as what. */
bool tq_request_is_over(const tq_request *request, double now, tq_request_finish *finish);

#endif
