/* text.c: the public text functions: tokenizer and chat template of a model. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/model.h"

void tq_free(void *pointer) { free(pointer); }

static tq_status want_tokenizer(const tq_model *m, tq_error *err) {
    if (m->tokenizer) return TQ_OK;
    return tq_fail(err, TQ_UNSUPPORTED, "%s: there is no tokenizer, so text cannot be read or written", m->path);
}

tq_status tq_tokenize(const tq_model *model, const char *text, size_t text_len, bool parse_control, int32_t **ids,
                      size_t *n_ids, tq_error *err) {
    TQ_TRY(want_tokenizer(model, err));
    tq_ids list = {0};
    tq_status status = tq_tokenizer_encode(model->tokenizer, text, text_len, parse_control, &list, err);
    if (status != TQ_OK) {
        free(list.ids);
        return status;
    }
    *ids = list.ids;
    *n_ids = list.n;
    return TQ_OK;
}

tq_status tq_detokenize(const tq_model *model, const int32_t *ids, size_t n_ids, bool with_control, char **text,
                        size_t *text_len, tq_error *err) {
    TQ_TRY(want_tokenizer(model, err));
    size_t length = 0, at = 0;
    for (size_t i = 0; i < n_ids; i++) length += tq_tokenizer_piece(model->tokenizer, ids[i], with_control, NULL, 0);
    char *out = malloc(length + 1);
    if (!out) return tq_fail_memory(err, length + 1, "text");
    for (size_t i = 0; i < n_ids; i++)
        at += tq_tokenizer_piece(model->tokenizer, ids[i], with_control, out + at, length - at);
    out[length] = 0;
    *text = out;
    *text_len = length;
    return TQ_OK;
}

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

/* What transformers' apply_chat_template gives a template. */
static json_t *chat_context(const tq_model *m, const tq_message *messages, size_t n, unsigned flags) {
    json_t *list = json_array(), *context = json_object();
    bool ok = list && context;
    for (size_t i = 0; ok && i < n; i++)
        ok = json_array_append_new(list, json_pack("{s:s, s:s}", "role", messages[i].role, "content",
                                                   messages[i].content)) == 0;
    ok = ok && json_object_set(context, "messages", list) == 0 &&
         json_object_set_new(context, "add_generation_prompt", json_boolean(flags & TQ_CHAT_ADD_GENERATION_PROMPT)) == 0;
    if (ok && m->bos_token) ok = json_object_set_new(context, "bos_token", json_string(m->bos_token)) == 0;
    if (ok && m->eos_token) ok = json_object_set_new(context, "eos_token", json_string(m->eos_token)) == 0;
    json_decref(list);
    if (ok) return context;
    json_decref(context);
    return NULL;
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

tq_status tq_chat_tokens(const tq_model *model, const tq_message *messages, size_t n_messages, unsigned flags,
                         int32_t **ids, size_t *n_ids, tq_error *err) {
    TQ_TRY(want_tokenizer(model, err));
    if (!model->chat_template)
        return tq_fail(err, TQ_UNSUPPORTED, "%s: the model has no chat template; give it raw text", model->path);
    TQ_TRY(check_messages(messages, n_messages, err));
    json_t *context = chat_context(model, messages, n_messages, flags);
    if (!context) return tq_fail(err, TQ_NO_MEMORY, "out of memory for a conversation of %zu messages", n_messages);
    tq_chat_text rendered = {0};
    tq_ids list = {0};
    tq_status status = tq_chat_template_render(model->chat_template, context, &rendered, err);
    if (status == TQ_OK) status = encode_rendered(model, &rendered, &list, err);
    tq_chat_text_free(&rendered);
    json_decref(context);
    if (status != TQ_OK) {
        free(list.ids);
        return status;
    }
    *ids = list.ids;
    *n_ids = list.n;
    return TQ_OK;
}
