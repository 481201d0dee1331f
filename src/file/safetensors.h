/* safetensors.h: one safetensors file (github.com/huggingface/safetensors, format section of its README).
 * u64 header length, JSON header {name: {dtype, shape, data_offsets}}, data. */
#ifndef TQ_FILE_SAFETENSORS_H
#define TQ_FILE_SAFETENSORS_H

#include "base/status.h"
#include "base/tensor.h"

typedef struct tq_safetensors {
    tq_tensor *tensors; /* in the header's order; data points into the caller's bytes */
    int n_tensors;
} tq_safetensors;

/* Read the header of data[0..bytes).  Everything is checked before use: lengths, offsets, that shape times size is the
 * range, that no name occurs twice, no ranges overlap.  label names the file in error texts. */
tq_status tq_safetensors_parse(const void *data, size_t bytes, const char *label, tq_safetensors *out, tq_error *err);
void tq_safetensors_free(tq_safetensors *st);

/* As the header spells it: "BF16". */
const char *tq_safetensors_dtype_name(tq_dtype dtype);

#endif
