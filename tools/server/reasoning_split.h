/* reasoning_split.h: a reply's text, arriving in pieces, into what the model thought and what it said.
 *
 * Thought is what stands between the marks (<think> and </think>, or what the model's tokenizer has in their place) at the
 * reply's beginning, or from the beginning to the closing one if the prompt has opened it.  The marks and the white space
 * around them belong to neither.  What may turn out to be a mark is held back.
 *
 * With channels (gpt-oss's harmony) a reply is several messages, <|channel|>NAME<|message|>TEXT<|end|><|start|>assistant
 * before the next: those of the channel "analysis" are thought, others said; all but TEXT belongs to neither. */
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
    REASONING_HEADER, /* a channel's name */
    REASONING_SAID,   /* text of a channel that is no thought */
    REASONING_BETWEEN, /* messages */
} reasoning_state;

typedef struct reasoning_marks {
    const char *open, *close;
    const char *body; /* behind a channel's name; NULL: there are no channels */
} reasoning_marks;

enum { REASONING_FORMATS = 4 };
extern const reasoning_marks reasoning_formats[REASONING_FORMATS]; /* <think> first */

typedef struct reasoning_split {
    reasoning_state state;
    const reasoning_marks *marks; /* NULL: <think> */
    char held[64];
    size_t n_held;
} reasoning_split;

/* Gets runs of text in order; whole characters if what is pushed has whole characters. */
typedef void (*reasoning_fn)(void *ctx, bool thought, const char *text, size_t n);

/* Does a rendered prompt end with an open thought? */
bool reasoning_is_open(const reasoning_marks *marks, const char *prompt, size_t n);

void reasoning_push(reasoning_split *r, const char *text, size_t n, reasoning_fn fn, void *ctx);
void reasoning_finish(reasoning_split *r, reasoning_fn fn, void *ctx); /* what was held back */

#endif
