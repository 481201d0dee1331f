/* reply.h: a reply's tokens as text that can be passed on: whole characters, and nothing that may turn out to be the
 * beginning of a stop string. */
#ifndef TQ_ENGINE_REPLY_H
#define TQ_ENGINE_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "text/tokenizer.h"

typedef struct tq_reply {
    const tq_tokenizer *tokenizer; /* NULL: there is no text */
    const char *const *stops;      /* (n_stops), not empty; the caller's */
    int n_stops;
    const int32_t *shown;          /* (n_shown) control tokens that are text; the caller's */
    int n_shown;
    char *text; /* (length), NUL-terminated; NULL while empty.  After a stop string: what stands before it */
    size_t length, cap;
    size_t sent;     /* bytes that may be passed on; the rest is held back */
    int stop;        /* which stop string ended it, or -1 */
} tq_reply;

/* Tokenizer and stops are set, the rest is 0. */
tq_reply tq_reply_of(const tq_tokenizer *tokenizer, const char *const *stops, int n_stops);
void tq_reply_free(tq_reply *reply);

/* Append a token; sent grows by what can be passed on.  Not after a stop string.  TQ_NO_MEMORY changes nothing. */
tq_status tq_reply_append(tq_reply *reply, int32_t id, tq_error *err);

/* No more tokens come: what was held back can be passed on. */
void tq_reply_end(tq_reply *reply);

#endif
