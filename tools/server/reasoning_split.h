/* reasoning_split.h: a reply's text, arriving in pieces, into what the model thought and what it said.
 *
 * Thought is what stands between <think> and </think> at the reply's beginning, or from the beginning to </think> if the
 * prompt has opened it.  The tags and the white space around them belong to neither.  What may turn out to be a tag is
 * held back. */
#ifndef TQ_SERVER_REASONING_SPLIT_H
#define TQ_SERVER_REASONING_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

typedef enum reasoning_state {
    REASONING_START,  /* nothing yet but, perhaps, the beginning of <think> */
    REASONING_OPENED, /* white space after <think> */
    REASONING_INSIDE,
    REASONING_CLOSED, /* white space after </think> */
    REASONING_TEXT,
} reasoning_state;

typedef struct reasoning_split {
    reasoning_state state;
    char held[64];
    size_t n_held;
} reasoning_split;

/* Gets runs of text in order; whole characters if what is pushed has whole characters. */
typedef void (*reasoning_fn)(void *ctx, bool thought, const char *text, size_t n);

/* Does a rendered prompt end with an open <think>? */
bool reasoning_is_open(const char *prompt, size_t n);

void reasoning_push(reasoning_split *r, const char *text, size_t n, reasoning_fn fn, void *ctx);
void reasoning_finish(reasoning_split *r, reasoning_fn fn, void *ctx); /* what was held back */

#endif
