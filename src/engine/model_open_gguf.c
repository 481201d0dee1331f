/* model_open_gguf.c: a GGUF file, or the first of several -> what model_open.c reads from a directory's files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/gguf_text.h"
#include "engine/model.h"
#include "model/config_gguf.h"

/* ---- control tokens ------------------------------------------------------------------------------------------------ */

static void add_eos(tq_model *m, int64_t id) {
    if (m->n_eos < TQ_MAX_EOS && !tq_model_is_eos(m, (int32_t)id)) m->eos[m->n_eos++] = (int32_t)id;
}

/* The text of a token, for the template; NULL: no such token. */
static char *token_text(const tq_tokenizer *tokenizer, int64_t id) {
    size_t n = tq_tokenizer_piece(tokenizer, (int32_t)id, true, NULL, 0);
    char *text = n ? malloc(n + 1) : NULL;
    if (!text) return NULL;
    tq_tokenizer_piece(tokenizer, (int32_t)id, true, text, n);
    text[n] = 0;
    return text;
}

/* "eos_token_id" is one token, and a turn may end with others: those that have a key, and those that are known by their
 * text, as generation_config.json would list them. */
static tq_status read_control_tokens(tq_model *m, const tq_gguf *head, tq_error *err) {
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    static const char *const texts[] = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|endoftext|>",
                                        "<|return|>", "<|call|>"};
    bool found;
    int64_t id;
    if (!m->tokenizer) return TQ_OK;
    int64_t last = tq_tokenizer_vocab_size(m->tokenizer) - 1;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        TQ_TRY(tq_gguf_integer(head, keys[i], 0, last, &found, &id, err));
        if (!found) continue;
        add_eos(m, id);
        if (i == 0) m->eos_token = token_text(m->tokenizer, id);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        id = tq_tokenizer_find(m->tokenizer, texts[i]);
        if (id >= 0 && tq_tokenizer_is_special(m->tokenizer, (int32_t)id)) add_eos(m, id);
    }
    TQ_TRY(tq_gguf_integer(head, "tokenizer.ggml.bos_token_id", 0, last, &found, &id, err));
    if (found) m->bos_token = token_text(m->tokenizer, id);
    return TQ_OK;
}

/* ---- chat templates ------------------------------------------------------------------------------------------------ */

static tq_status read_template(tq_chat_template_set *set, const tq_gguf *head, const char *key, const char *name, size_t n,
                               tq_error *err) {
    bool found;
    tq_gguf_string source;
    TQ_TRY(tq_gguf_text(head, key, &found, &source, err));
    return found ? tq_chat_template_set_add(set, name, n, source.text, source.length, err) : TQ_OK;
}

/* "tokenizer.chat_template", and of those named in "tokenizer.chat_templates" each "tokenizer.chat_template.NAME".  A file
 * may have tool_use without saying so. */
static tq_status read_templates(tq_chat_template_set *set, const tq_gguf *head, tq_error *err) {
    static const char whole[] = "tokenizer.chat_template", list[] = "tokenizer.chat_templates", tools[] = "tool_use";
    tq_gguf_string *names = NULL;
    size_t n = 0;
    char key[128];
    TQ_TRY(read_template(set, head, whole, "default", 7, err));
    if (tq_gguf_find(head, list)) TQ_TRY(tq_gguf_strings(head, list, &names, &n, err));
    enum { most = 64 };
    tq_status status = n <= most ? TQ_OK : tq_fail(err, TQ_UNSUPPORTED, "%s: %s: want at most %d", head->label, list, most);
    for (size_t i = 0; i < n && status == TQ_OK; i++) {
        if (names[i].length == strlen(tools) && memcmp(names[i].text, tools, names[i].length) == 0) continue;
        if (names[i].length > 64) continue; /* no key would be read for it */
        snprintf(key, sizeof key, "%s.%.*s", whole, (int)names[i].length, names[i].text);
        status = read_template(set, head, key, names[i].text, names[i].length, err);
    }
    free(names);
    TQ_TRY(status);
    snprintf(key, sizeof key, "%s.%s", whole, tools);
    return read_template(set, head, key, tools, strlen(tools), err);
}

/* ---- the model ----------------------------------------------------------------------------------------------------- */

tq_status tq_model_read_gguf(tq_model *m, tq_error *err) {
    TQ_TRY(tq_gguf_model_open(m->path, &m->gguf, err));
    const tq_gguf *head = tq_gguf_model_head(m->gguf);
    TQ_TRY(tq_config_from_gguf(m->gguf, &m->config_json, err));
    TQ_TRY(tq_config_read(m->config_json, m->path, &m->config, err));
    m->config.norm_offset = 0; /* GGUF's norms are stored as they are used */
    m->config.delta.tiled_heads = tq_gguf_has_tiled_heads(m->gguf);
    TQ_TRY(tq_weights_open_gguf(m->gguf, &m->weights, err));
    TQ_TRY(tq_transformer_bind(m->weights, &m->config, &m->transformer, err));
    TQ_TRY(tq_gguf_tokenizer(head, &m->tokenizer, err));
    TQ_TRY(read_control_tokens(m, head, err));
    m->sampling = tq_sampling_default();
    return read_templates(&m->templates, head, err);
}
