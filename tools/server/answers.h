/* answers.h: the replies to one HTTP request: from the scheduler's thread, where their pieces arise, to the connection's
 * thread, which waits for them.
 *
 * Pieces are copied into a list; the scheduler is never kept waiting.  A client that does not read is disconnected after the
 * server's idle time, so that the list holds what is generated meanwhile at most. */
#ifndef TQ_SERVER_ANSWERS_H
#define TQ_SERVER_ANSWERS_H

#include "api_error.h"
#include "server_metrics.h"
#include "turboquant/tq_scheduler.h"

typedef struct answers answers;

typedef struct answer_piece {
    struct answer_piece *next;
    int choice;
    tq_event event; /* pointers lead into this allocation */
} answer_piece;

answers *answers_new(int n_choices, server_metrics *metrics);

/* Hand a choice's request to the scheduler (on_event and ctx are set here).  *out of tq_scheduler_submit stays within. */
tq_status answers_submit(answers *a, int choice, tq_scheduler *scheduler, tq_request_params *params, tq_error *error);

/* The next piece, free(); NULL when none came within so many seconds. */
answer_piece *answers_wait(answers *a, double seconds);

/* Choices that were submitted and have not had their last piece made. */
int answers_running(answers *a);

/* What a choice's request holds, as of the scheduler's last step; false while it has no slot. */
bool answers_find_cache(answers *a, int choice, tq_scheduler *scheduler, tq_request_cache *out);

/* A piece could not be copied, for want of memory: what has come is not all. */
bool answers_lost(answers *a);

void answers_cancel(answers *a);
/* Cancels what runs and lets go; memory goes when the scheduler is through with it.  NULL is fine. */
void answers_free(answers *a);

#endif
