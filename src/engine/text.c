/* text.c: the public functions of a model's tokenizer.  Not here: conversations (chat.c). */
#include <stdlib.h>
#include <string.h>

#include "engine/model.h"

void tq_free(void *pointer) { free(pointer); }

tq_status tq_model_want_tokenizer(const tq_model *m, tq_error *err) {
    if (m->tokenizer) return TQ_OK;
    return tq_fail(err, TQ_UNSUPPORTED, "%s: there is no tokenizer, so text cannot be read or written", m->path);
}

static tq_status tokenize(const tq_model *model, const char *text, size_t text_len, bool parse_control, bool prompt,
                          int32_t **ids, size_t *n_ids, tq_error *err) {
    TQ_TRY(tq_model_want_tokenizer(model, err));
    tq_ids list = {0};
    tq_status status = prompt ? tq_tokenizer_encode_prompt(model->tokenizer, text, text_len, parse_control, &list, err)
                              : tq_tokenizer_encode(model->tokenizer, text, text_len, parse_control, &list, err);
    if (status != TQ_OK) {
        free(list.ids);
        return status;
    }
    *ids = list.ids;
    *n_ids = list.n;
    return TQ_OK;
}

tq_status tq_tokenize(const tq_model *model, const char *text, size_t text_len, bool parse_control, int32_t **ids,
                      size_t *n_ids, tq_error *err) {
    return tokenize(model, text, text_len, parse_control, false, ids, n_ids, err);
}

tq_status tq_tokenize_prompt(const tq_model *model, const char *text, size_t text_len, bool parse_control, int32_t **ids,
                             size_t *n_ids, tq_error *err) {
    return tokenize(model, text, text_len, parse_control, true, ids, n_ids, err);
}

const int32_t *tq_prompt_prefix(const tq_model *model, int *n) {
    size_t count = 0;
    const int32_t *ids = model->tokenizer ? tq_tokenizer_prefix(model->tokenizer, &count) : NULL;
    *n = (int)count;
    return ids;
}

tq_status tq_detokenize(const tq_model *model, const int32_t *ids, size_t n_ids, bool with_control, char **text,
                        size_t *text_len, tq_error *err) {
    TQ_TRY(tq_model_want_tokenizer(model, err));
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
