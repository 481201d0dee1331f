/* sse.c: the bytes of server-sent events. */
#include "sse.h"

#include <stdlib.h>
#include <string.h>

static void append(sse_out *out, const char *text, size_t n) {
    if (out->failed) return;
    if (out->taken == out->n) out->taken = out->n = 0;
    if (out->n + n > out->cap) {
        size_t cap = (out->n + n) * 2;
        char *grown = realloc(out->data, cap);
        if (!grown) {
            out->failed = true;
            return;
        }
        out->data = grown;
        out->cap = cap;
    }
    memcpy(out->data + out->n, text, n);
    out->n += n;
}

void sse_data(sse_out *out, jout *j) {
    if (j->failed) out->failed = true;
    append(out, "data: ", 6);
    append(out, j->data ? j->data : "", j->length);
    append(out, "\n\n", 2);
    free(j->data);
    *j = (jout){0};
}

void sse_done(sse_out *out) { append(out, "data: [DONE]\n\n", 14); }

void sse_comment(sse_out *out, const char *text) {
    append(out, ": ", 2);
    append(out, text, strlen(text));
    append(out, "\n\n", 2);
}

ssize_t sse_read(sse_out *out, char *buf, size_t cap, bool (*next)(void *ctx, sse_out *out), void *ctx) {
    while (out->taken == out->n && !out->ended && !out->failed)
        if (!next(ctx, out)) out->ended = true;
    if (out->failed) return -1;
    size_t n = out->n - out->taken < cap ? out->n - out->taken : cap;
    if (n) memcpy(buf, out->data + out->taken, n);
    out->taken += n;
    return (ssize_t)n;
}

void sse_free(sse_out *out) {
    free(out->data);
    *out = (sse_out){0};
}
