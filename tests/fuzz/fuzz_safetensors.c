/* fuzz_safetensors.c: any bytes as a safetensors file; what is accepted must be readable. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "file/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tq_safetensors st;
    tq_error err = {0};
    if (tq_safetensors_parse(data, size, "fuzz", &st, &err) != TQ_OK) {
        if (err.code == TQ_OK || !memchr(err.text, 0, sizeof err.text) || strchr(err.text, '\n')) abort();
        return 0;
    }
    volatile uint8_t sum = 0; /* touch every byte that the tensors claim: a sanitizer sees what is not there */
    size_t claimed = 0;
    for (int i = 0; i < st.n_tensors; i++) {
        const tq_tensor *tensor = &st.tensors[i];
        size_t want = tq_dtype_bytes(tensor->dtype);
        for (int d = 0; d < tensor->n_dims; d++) want *= (size_t)tensor->shape[d];
        if (want != tensor->bytes || strlen(tensor->name) == 0) abort();
        for (size_t k = 0; k < tensor->bytes; k++) sum = (uint8_t)(sum + ((const uint8_t *)tensor->data)[k]);
        claimed += tensor->bytes;
    }
    if (claimed > size) abort(); /* they overlap */
    tq_safetensors_free(&st);
    return 0;
}
