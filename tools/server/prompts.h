/* prompts.h: the token ids that a request's messages or prompts become. */
#ifndef TQ_SERVER_PROMPTS_H
#define TQ_SERVER_PROMPTS_H

#include "gen_request.h"
#include "server_state.h"

typedef struct prompt_ids {
    int32_t *ids;
    size_t n;
} prompt_ids;

typedef struct prompt_list {
    prompt_ids *items; /* (n) */
    int n;
} prompt_list;

/* Messages, and what the template is to know, as the model's template writes them.  Ends where the answer begins. */
bool prompts_of_chat(server *s, const json_t *messages, const json_t *template_kwargs, const char *reasoning_effort,
                     prompt_list *out, api_error *error);

/* A text, a list of texts, a list of token ids, or a list of such lists; `param` is the field's name.  Control tokens in
 * texts are recognised: a raw prompt is the caller's own. */
bool prompts_of_value(server *s, const json_t *value, const char *param, int cap, prompt_list *out, api_error *error);

void prompts_free(prompt_list *list);

#endif
