/* fuzz_gguf.c: any bytes as a GGUF file: what is accepted must be readable, as tensors, as a config and as a tokenizer. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/gguf_text.h"
#include "file/weights.h"
#include "model/config.h"
#include "model/config_gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An error text is one line and not empty. */
static void check_error(tq_status status, const tq_error *err) {
    if (status == TQ_OK) return;
    if (err->code == TQ_OK || !err->text[0] || !memchr(err->text, 0, sizeof err->text) || strchr(err->text, '\n')) abort();
}

/* Touch every byte that the tensors and strings claim: a sanitizer sees what is not there. */
static void touch(const tq_gguf *gguf, size_t size) {
    volatile uint8_t sum = 0;
    size_t claimed = 0;
    for (int i = 0; i < gguf->n_tensors; i++) {
        const tq_tensor *tensor = &gguf->tensors[i];
        size_t elements = 1, block = (size_t)tq_dtype_block(tensor->dtype);
        for (int d = 0; d < tensor->n_dims; d++) elements *= (size_t)tensor->shape[d];
        if (elements / block * tq_dtype_bytes(tensor->dtype) != tensor->bytes || !tensor->name[0]) abort();
        for (size_t k = 0; k < tensor->bytes; k++) sum = (uint8_t)(sum + ((const uint8_t *)tensor->data)[k]);
        claimed += tensor->bytes;
    }
    if (claimed > size) abort(); /* they overlap */
    for (int i = 0; i < gguf->n_entries; i++) {
        const tq_gguf_entry *entry = &gguf->entries[i];
        for (size_t k = 0; k < entry->bytes; k++) sum = (uint8_t)(sum + entry->data[k]);
        if (!entry->is_array || entry->type != TQ_GGUF_STRING) continue;
        tq_gguf_string *strings;
        size_t n;
        tq_error err = {0};
        if (tq_gguf_strings(gguf, entry->key, &strings, &n, &err) != TQ_OK || n != entry->n) abort();
        for (size_t k = 0; k < n; k++)
            for (size_t j = 0; j < strings[k].length; j++) sum = (uint8_t)(sum + (uint8_t)strings[k].text[j]);
        free(strings);
    }
}

/* The parser again, behind a model of one part, as gguf_model.c makes it of a file. */
static void read_model(const tq_gguf *gguf) {
    char architecture[] = "llama", path[] = "fuzz";
    tq_gguf_part part = {.path = path, .gguf = *gguf, .tensors = gguf->tensors};
    tq_gguf_model model = {.parts = &part, .n_parts = 1, .architecture = architecture};
    tq_error err = {0};
    json_t *json = NULL;
    tq_config config;
    tq_status status = tq_config_from_gguf(&model, &json, &err);
    if (status == TQ_OK) status = tq_config_read(json, "fuzz", &config, &err);
    check_error(status, &err);
    json_decref(json);
    tq_weights *weights = NULL;
    check_error(tq_weights_open_gguf(&model, &weights, &err), &err);
    tq_weights_close(weights);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tq_gguf gguf;
    tq_error err = {0};
    tq_status status = tq_gguf_parse(data, size, "fuzz", &gguf, &err);
    check_error(status, &err);
    if (status != TQ_OK) return 0;
    touch(&gguf, size);
    read_model(&gguf);
    tq_tokenizer *tokenizer = NULL;
    status = tq_gguf_tokenizer(&gguf, &tokenizer, &err);
    check_error(status, &err);
    if (tokenizer) {
        tq_ids ids = {0};
        tq_tokenizer_encode_prompt(tokenizer, "a b\n<x>", 7, true, &ids, &err);
        free(ids.ids);
        tq_tokenizer_free(tokenizer);
    }
    tq_gguf_free(&gguf);
    return 0;
}
