/* encode.h: rows on their way into a page, many side by side, a row a lane: what src/codec does with one, bit for bit.
 *
 * Float operations come in the order of the specification (tq_block_rotate, tq_trellis_begin), lane by lane, and are never
 * fused: the encode_<set>.c are compiled with -ffp-contract=off.  So codes and scales do not depend on the instruction set. */
#ifndef TQ_BACKEND_CPU_ENCODE_H
#define TQ_BACKEND_CPU_ENCODE_H

#include <stdbool.h>
#include <stdint.h>

#include "codec/page.h"

/* A row as it waits in the queue: f32, or f16 where it has been in the window. */
typedef struct tq_exact_row {
    const void *x;
    bool half;
} tq_exact_row;

/* Bytes of scratch of trellis_begin, aligned to 64. */
#define TQ_ENCODE_SCRATCH(dim) ((size_t)(dim) * 16 * sizeof(float))

typedef struct tq_encoder {
    /* n_rows <= TQ_TRELLIS_ROWS rows for one side of a block -> what tq_block_rotate and tq_trellis_begin make of them:
     * samples (dim, TQ_TRELLIS_ROWS) in the order of tq_chain_place, their units' inverses and scales (n_rows).  Samples of a
     * row whose inverse is 0, and of what is no row, are anything. */
    void (*trellis_begin)(const tq_codec *codec, tq_side side, const uint8_t *block, const tq_exact_row *rows, int n_rows,
                          int16_t *samples, float *inverse_unit, uint16_t *scale, void *scratch);
    /* sums[i] += row[i] of one row after the other; i < dim, a multiple of 16. */
    void (*add_rows)(const tq_exact_row *rows, int n_rows, int dim, float *sums);
    /* half[i] = tq_f32_f16(x[i]), i < n */
    void (*to_half)(const float *x, int n, uint16_t *half);
} tq_encoder;

extern const tq_encoder tq_encoder_plain, tq_encoder_avx2, tq_encoder_avx512;

#endif
