/* chat_turn.h: a conversation held in a session: reading what is new of it, and replying.
 *
 * The session's tokens are the truth about what is in the cache.  Before each reply the whole conversation is rendered
 * by the chat template; what agrees with the session's tokens is kept, the rest is evaluated.  A template that renders
 * earlier turns differently later, a changed system message or a loaded file therefore cost time, never correctness. */
#ifndef TQ_TOOL_CHAT_TURN_H
#define TQ_TOOL_CHAT_TURN_H

#include "conversation.h"
#include "terminal.h"

typedef struct chat_turn {
    tq_model *model;
    tq_session *session;
    conversation talk;
    tq_sampling sampling; /* each reply takes the seed after the last one's */
    int max_tokens;       /* of a reply */

    /* The last turn. */
    int n_kept, n_read; /* tokens of the conversation found in the cache, and evaluated */
    int n_replied;
    double seconds, decode_seconds; /* the whole turn, and the reply alone */
    tq_finish finish;
    bool write_failed; /* stdout is gone */

    progress_bar bar;
    char *reply; /* the text so far (reply_n) */
    size_t reply_n, reply_cap;
} chat_turn;

/* Say `text` and stream the reply to stdout.  On failure or Ctrl-C before the first word the message is taken back, as
 * if never said; after it, what was said is kept.  TQ_CANCELLED: Ctrl-C before the first word.  TQ_FULL: the
 * conversation does not fit the context; the error names both numbers. */
tq_status chat_turn_say(chat_turn *t, const char *text, tq_error *err);

/* Evaluate what the session does not hold of the conversation so far, for instance after it was made anew. */
tq_status chat_turn_catch_up(chat_turn *t, tq_error *err);

#endif
