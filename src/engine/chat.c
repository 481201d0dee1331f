/* chat.c: conversations to token ids, by a model's chat template.
 * Not here: the template language and the shape of JSON conversations (text/), text without a template (text.c). */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/model.h"
#include "text/chat_request.h"

static tq_status check_messages(const tq_message *messages, size_t n, tq_error *err) {
    for (size_t i = 0; i < n; i++) {
        const char *texts[2] = {messages[i].role, messages[i].content};
        for (int k = 0; k < 2; k++) {
            size_t length = strlen(texts[k]), valid = tq_utf8_valid_prefix(texts[k], length);
            if (valid < length)
                return tq_fail(err, TQ_INVALID, "chat: message %zu: invalid UTF-8 at byte %zu of its %s", i, valid,
                               k ? "content" : "role");
        }
    }
    return TQ_OK;
}

/* What transformers' apply_chat_template gives a template; it says null where there are no tools and documents. */
static json_t *message_variables(const tq_message *messages, size_t n) {
    json_t *list = json_array();
    bool ok = list != NULL;
    for (size_t i = 0; ok && i < n; i++)
        ok = json_array_append_new(list, json_pack("{s:s, s:s}", "role", messages[i].role, "content",
                                                   messages[i].content)) == 0;
    if (ok) return json_pack("{s:o, s:n, s:n}", "messages", list, "tools", "documents");
    json_decref(list);
    return NULL;
}

static tq_status add_variables(const tq_model *m, unsigned flags, json_t *variables, tq_error *err) {
    const char *names[] = {"bos_token", "eos_token"}, *texts[] = {m->bos_token, m->eos_token};
    bool ok = json_object_set_new(variables, "add_generation_prompt",
                                  json_boolean(flags & TQ_CHAT_ADD_GENERATION_PROMPT)) == 0;
    for (int i = 0; ok && i < 2; i++)
        ok = !texts[i] || json_object_set_new(variables, names[i], json_string(texts[i])) == 0;
    return ok ? TQ_OK : tq_fail_memory(err, 0, "a conversation");
}

/* The rendered text as one, with control tokens only where the template itself wrote them: encoding span by span would
 * give other ids at the seams. */
static tq_status encode_rendered(const tq_model *m, const tq_chat_text *rendered, tq_ids *list, tq_error *err) {
    tq_control_range *ranges = malloc((rendered->n_spans + 1) * sizeof *ranges);
    if (!ranges) return tq_fail_memory(err, rendered->n_spans * sizeof *ranges, "spans of a template");
    size_t n = 0;
    for (size_t i = 0; i < rendered->n_spans; i++)
        if (rendered->spans[i].from_template)
            ranges[n++] = (tq_control_range){rendered->spans[i].start, rendered->spans[i].length};
    tq_status status = tq_tokenizer_encode_ranges(m->tokenizer, rendered->text, rendered->length, ranges, n, list, err);
    free(ranges);
    return status;
}

/* Which template these variables take. */
static tq_status pick_template(const tq_model *m, const json_t *variables, const tq_chat_template **out, tq_error *err) {
    const json_t *tools = json_object_get(variables, "tools");
    return tq_chat_template_pick(&m->templates, tools && !json_is_null(tools), out, err);
}

/* The variables are complete but for what the model says. */
static tq_status variables_to_ids(const tq_model *m, json_t *variables, unsigned flags, int32_t **ids, size_t *n_ids,
                                  tq_error *err) {
    tq_chat_text rendered = {0};
    tq_ids list = {0};
    const tq_chat_template *tmpl;
    tq_status status = add_variables(m, flags, variables, err);
    if (status == TQ_OK) status = pick_template(m, variables, &tmpl, err);
    if (status == TQ_OK) status = tq_chat_template_render(tmpl, variables, &rendered, err);
    if (status == TQ_OK) status = tq_chat_request_check_tools(variables, &rendered, err);
    if (status == TQ_OK) status = encode_rendered(m, &rendered, &list, err);
    tq_chat_text_free(&rendered);
    if (status != TQ_OK) {
        free(list.ids);
        return status;
    }
    *ids = list.ids;
    *n_ids = list.n;
    return TQ_OK;
}

static tq_status want_template(const tq_model *m, unsigned flags, tq_error *err) {
    TQ_TRY(tq_model_want_tokenizer(m, err));
    if (!m->templates.n)
        return tq_fail(err, TQ_UNSUPPORTED, "%s: the model has no chat template; give it raw text", m->path);
    if (flags & ~(unsigned)TQ_CHAT_ADD_GENERATION_PROMPT) return tq_fail(err, TQ_INVALID, "chat: unknown flags %#x", flags);
    return TQ_OK;
}

tq_status tq_chat_tokens(const tq_model *model, const tq_message *messages, size_t n_messages, unsigned flags,
                         int32_t **ids, size_t *n_ids, tq_error *err) {
    TQ_TRY(want_template(model, flags, err));
    TQ_TRY(check_messages(messages, n_messages, err));
    json_t *variables = message_variables(messages, n_messages);
    if (!variables) return tq_fail(err, TQ_NO_MEMORY, "out of memory for a conversation of %zu messages", n_messages);
    tq_status status = variables_to_ids(model, variables, flags, ids, n_ids, err);
    json_decref(variables);
    return status;
}

tq_status tq_chat_tokens_json(const tq_model *model, const char *json, size_t json_len, unsigned flags, int32_t **ids,
                              size_t *n_ids, tq_error *err) {
    json_t *variables;
    TQ_TRY(want_template(model, flags, err));
    TQ_TRY(tq_chat_request_read(json, json_len, &model->templates, &variables, err));
    tq_status status = variables_to_ids(model, variables, flags, ids, n_ids, err);
    json_decref(variables);
    return status;
}
