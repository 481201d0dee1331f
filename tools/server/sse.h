/* sse.h: server-sent events, made one at a time as the client takes them.
 *
 * next(ctx, out) waits for something and writes it with sse_data or sse_comment; it returns false after the last. */
#ifndef TQ_SERVER_SSE_H
#define TQ_SERVER_SSE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "../tq/json_out.h"

typedef struct sse_out {
    char *data;
    size_t n, cap, taken;
    bool ended, failed;
} sse_out;

/* "data: JSON", a blank line; takes what was built.  A JSON text has no line breaks. */
void sse_data(sse_out *out, jout *j);
void sse_done(sse_out *out);                       /* "data: [DONE]" */
void sse_comment(sse_out *out, const char *text);  /* ": text": for what watches the connection, not for programs */

/* 1..cap bytes into buf, calling next while there are none; 0: the end; -1: memory ran out, so that the stream has a hole. */
ssize_t sse_read(sse_out *out, char *buf, size_t cap, bool (*next)(void *ctx, sse_out *out), void *ctx);

void sse_free(sse_out *out);

#endif
