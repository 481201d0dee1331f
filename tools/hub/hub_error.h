/* hub_error.h: failing with a text, as the library does. */
#ifndef TQ_HUB_ERROR_H
#define TQ_HUB_ERROR_H

#include "turboquant/tq_status.h"

/* Write the text (err may be NULL) and return code.  What a server sent goes in as %s: control characters become '?'. */
tq_status hub_fail(tq_error *err, tq_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define HUB_TRY(call)                                                                                                  \
    do {                                                                                                               \
        tq_status try_status = (call);                                                                                 \
        if (try_status != TQ_OK) return try_status;                                                                    \
    } while (0)

#endif
