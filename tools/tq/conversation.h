/* conversation.h: the messages of a chat, and their file.
 *
 * The file is JSON: {"format": "turboquant-chat", "version": 1, "model": ..., "kv": ..., "messages": [{"role": "user",
 * "content": ...}, ...]}.  Not here: the cache, which is saved beside it by the library. */
#ifndef TQ_TOOL_CONVERSATION_H
#define TQ_TOOL_CONVERSATION_H

#include <stdbool.h>
#include <stddef.h>

#include "turboquant/tq.h"

typedef struct conversation {
    tq_message *messages; /* (n); contents belong to the conversation, roles are constants */
    size_t n, cap;
} conversation;

void conversation_free(conversation *c);                                       /* leaves it empty */
bool conversation_add(conversation *c, const char *role, const char *content); /* false: out of memory */
void conversation_drop_last(conversation *c);
void conversation_reset(conversation *c); /* all but the system message */

const char *conversation_system(const conversation *c);             /* NULL: there is none */
bool conversation_set_system(conversation *c, const char *content); /* NULL: none; false: out of memory */

/* Write the file: complete or not at all.  0 or EXIT_FAILURE, the reason printed. */
int conversation_save(const conversation *c, const char *command, const char *path, const char *model, const char *kv);

/* Replace *c by the file's messages; unchanged on failure.  0 or EXIT_FAILURE, the reason printed. */
int conversation_load(conversation *c, const char *command, const char *path);

#endif
