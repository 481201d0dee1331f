/* chat_template_set.h: the chat templates of one model, by name.  Most have one; some have another for conversations with
 * tools.  Which one a conversation takes is transformers' rule:
 *     tools are given (even an empty list) and there is a "tool_use"   that
 *     otherwise                                                        "default"
 * Other names ("rag") are kept for messages only: nothing asks for them. */
#ifndef TQ_TEXT_CHAT_TEMPLATE_SET_H
#define TQ_TEXT_CHAT_TEMPLATE_SET_H

#include "text/chat_template.h"

typedef struct tq_chat_template_set { /* zero-initialised is empty */
    tq_chat_template *plain, *tool_use;
    bool has_tool_use;
    tq_status tool_use_status; /* why tool_use could not be read, told when it is wanted */
    tq_error tool_use_error;
    int n; /* templates of any name */
    char names[200]; /* of all, ", " between them; "..." at the end for those that have no room */
    bool cut;
} tq_chat_template_set;

/* A template that the caller has the text of; one of the same name that is there already is replaced.  Errors: those of
 * tq_chat_template_new for "default"; the others' come from tq_chat_template_pick, if they are wanted. */
tq_status tq_chat_template_set_add(tq_chat_template_set *set, const char *name, size_t name_len, const char *source,
                                   size_t source_len, tq_error *err);
void tq_chat_template_set_clear(tq_chat_template_set *set);

/* The one for a conversation with or without tools; TQ_UNSUPPORTED with the names that there are, if there is none. */
tq_status tq_chat_template_pick(const tq_chat_template_set *set, bool tools, const tq_chat_template **out, tq_error *err);

#endif
