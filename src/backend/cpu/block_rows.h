/* block_rows.h: GGUF's block-quantized types, one element after the other. */
#ifndef TQ_BACKEND_CPU_BLOCK_ROWS_H
#define TQ_BACKEND_CPU_BLOCK_ROWS_H

#include <stdint.h>

#include "base/tensor.h"

/* The n elements (a whole number of blocks of `type`) that begin at blocks -> dst.  Plain C, the specification: each
 * product and sum is rounded to float32 in the order written in block_rows.c. */
void tq_block_unpack(tq_dtype type, const uint8_t *blocks, int n, float *dst);

/* Scale and minimum `index` < 8 of the 12 bytes that q4_k and q5_k pack them in, 6 bits each. */
static inline void tq_block_scale_min(const uint8_t *packed, int index, int *scale, int *min) {
    if (index < 4) {
        *scale = packed[index] & 63;
        *min = packed[index + 4] & 63;
    } else {
        *scale = (packed[index + 4] & 15) | packed[index - 4] >> 6 << 4;
        *min = packed[index + 4] >> 4 | packed[index] >> 6 << 4;
    }
}

#endif
