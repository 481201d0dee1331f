/* status.h: failing with a text, and passing a failure on. */
#ifndef TQ_BASE_STATUS_H
#define TQ_BASE_STATUS_H

#include <stddef.h>

#include <turboquant/tq_status.h>

/* Write the text (err may be NULL) and return code, so that `return tq_fail(err, TQ_IO, "...")` reads as one thing. */
tq_status tq_fail(tq_error *err, tq_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The one text for a failed allocation: how much, and for what. */
tq_status tq_fail_memory(tq_error *err, size_t bytes, const char *what);

#define TQ_TRY(call)                                                                                                   \
    do {                                                                                                               \
        tq_status try_status = (call);                                                                                 \
        if (try_status != TQ_OK) return try_status;                                                                    \
    } while (0)

#endif
