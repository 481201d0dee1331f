/* chat_template.h: conversations to prompts, by the Jinja subset that models' chat templates use.
 *
 * Rendering keeps the origin of every byte of output: text that came from the template may become control tokens, text
 * that came from a variable (what a person or a model wrote) may not.  Templates come from untrusted files: steps,
 * recursion and output size are limited. */
#ifndef TQ_TEXT_CHAT_TEMPLATE_H
#define TQ_TEXT_CHAT_TEMPLATE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/status.h"

typedef struct tq_chat_template tq_chat_template;

/* Parse a template.  TQ_FORMAT or TQ_UNSUPPORTED with the line and the construct. */
tq_status tq_chat_template_new(const char *source, size_t source_len, tq_chat_template **out, tq_error *err);
void tq_chat_template_free(tq_chat_template *tmpl);

/* A run of output bytes of one origin. */
typedef struct tq_chat_span {
    size_t start, length;
    bool from_template; /* may hold control tokens */
} tq_chat_span;

typedef struct tq_chat_text {
    char *text; /* NUL-terminated */
    size_t length;
    tq_chat_span *spans; /* in order, without gaps */
    size_t n_spans;
} tq_chat_text;

/* Render with the variables of `context` (a JSON object: messages, add_generation_prompt, bos_token, eos_token, ...),
 * as transformers' apply_chat_template does.  raise_exception() in a template is TQ_INVALID with its text. */
tq_status tq_chat_template_render(const tq_chat_template *tmpl, const json_t *context, tq_chat_text *out,
                                  tq_error *err);
void tq_chat_text_free(tq_chat_text *text);

#endif
