/* chat_request.h: a conversation as JSON, checked and made into the variables of a chat template.
 *
 * Templates differ in what they read: some want content as a text, some as parts; most want a call's arguments as an
 * object, some as a text; some print a null content as "None".  What a template reads is found out by rendering a
 * conversation of a few words, and the messages are put into that form. */
#ifndef TQ_TEXT_CHAT_REQUEST_H
#define TQ_TEXT_CHAT_REQUEST_H

#include "text/chat_template_set.h"

/* Read {"messages", "tools", "documents", "chat_template_kwargs"} (tq.h: tq_chat_tokens_json) into a new object of
 * variables, for the template that tq_chat_template_pick gives where "tools" are not null; json_decref it.  TQ_FORMAT for what is not JSON, TQ_INVALID and TQ_UNSUPPORTED with the place, such as
 * "messages[2].content[0]: ...". */
tq_status tq_chat_request_read(const char *json, size_t length, const tq_chat_template_set *set,
                               json_t **variables, tq_error *err);

/* TQ_UNSUPPORTED if the rendered text of these variables lacks the name of one of their tools: the template knows of
 * none, and the model would never hear of them. */
tq_status tq_chat_request_check_tools(const json_t *variables, const tq_chat_text *rendered, tq_error *err);

#endif
