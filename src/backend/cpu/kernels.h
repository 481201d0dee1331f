/* kernels.h: the hot functions of the CPU backend, one table an instruction set.
 *
 * Same functions, same meaning in every table; integer results are equal bit for bit, float results differ by the order
 * of summation only (tolerances: tests/unit/test_kernels.c).  The scalar table is the specification.  Tables are const;
 * the one in use is chosen when a backend is made and lives there. */
#ifndef TQ_BACKEND_CPU_KERNELS_H
#define TQ_BACKEND_CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/tensor.h"

/* Float vectors as 16-bit integers: value = step * wide, |wide| <= 127 * 256, wide = 256 * high + low.
 * Vector i of several stands at i * stride; sum is the sum of its wide values. */
typedef struct tq_int_vectors {
    int16_t *wide;
    int8_t *high, *low;
    float *step;
    int32_t *sum;
    int stride; /* a multiple of 64 */
} tq_int_vectors;

/* The input of a matrix-vector product and what the affine kernels want of it. */
typedef struct tq_gemv_input {
    const float *x;    /* (cols) */
    float *split;      /* (cols): every run of 2*k values as its even, then its odd members; k by table (VL) */
    float *group_sums; /* (cols / group_size) */
} tq_gemv_input;

enum {
    TQ_GEMM_ROWS = 32,   /* rows of W that gemm handles at a time */
    TQ_GEMM_DEPTH = 256, /* columns of W unpacked at a time: 32 x 256 floats stay in L1 */
    TQ_GEMM_SCRATCH = 2 * TQ_GEMM_ROWS * TQ_GEMM_DEPTH, /* floats */
};

typedef struct tq_kernels {
    const char *name;
    bool (*runs_here)(void);

    /* ---- weights; f32 sums */
    void (*gemv_prepare)(const tq_matrix *w, tq_gemv_input *input);
    /* y[i] = W[row0 + i] . x for i < n_rows.  scratch: (cols). */
    void (*gemv)(const tq_matrix *w, int row0, int n_rows, const tq_gemv_input *input, float *y, float *scratch);
    /* y[t * ldy + i] = W[row0 + i] . x[t] for t < n, i < n_rows <= TQ_GEMM_ROWS; x: (n, cols).
     * scratch: TQ_GEMM_SCRATCH floats. */
    void (*gemm)(const tq_matrix *w, int row0, int n_rows, const float *x, int n, float *y, int ldy, float *scratch);
    /* Row `row` of W -> (cols) floats. */
    void (*unpack_row)(const tq_matrix *w, int row, float *dst);

    /* ---- between the matrices */
    void (*rms_norm)(const float *x, const float *weight, int n, float eps, float *y); /* y = x / rms(x) * weight */
    void (*silu_mul)(float *gate, const float *up, int n); /* gate = gate / (1 + exp(-gate)) * up */
    void (*add)(float *x, const float *y, int n);

    /* ---- attention over float rows.  Query i at q + i * q_stride; row r at rows + r * row_stride (elements). */
    void (*dot_rows_f32)(const float *q, int n_q, int q_stride, const float *rows, int n_rows, int row_stride, int width,
                         float *out, int out_stride); /* out[i * out_stride + r] = q_i . row_r */
    void (*dot_rows_f16)(const float *q, int n_q, int q_stride, const uint16_t *rows, int n_rows, int row_stride,
                         int width, float *out, int out_stride);
    /* acc_i += sum over r of w[i * w_stride + r] * row_r; acc_i at acc + i * acc_stride. */
    void (*sum_rows_f32)(const float *w, int n_q, int w_stride, const float *rows, int n_rows, int row_stride, int width,
                         float *acc, int acc_stride);
    void (*sum_rows_f16)(const float *w, int n_q, int w_stride, const uint16_t *rows, int n_rows, int row_stride,
                         int width, float *acc, int acc_stride);

    /* The codes of a little-endian bit stream, 1..8 bits each -> out[i] = offset + scale * levels[code i], i < n.
     * levels: a table of 16 floats or more, 2^bits of which count.  Reads no byte behind the last code's. */
    void (*expand_codes)(const uint8_t *stream, int bits, const float *levels, int n, float scale, float offset,
                         float *out);

    /* ---- attention over packed pages (layout: codec/page.h) */
    /* x: (n), n a multiple of 16 -> vector `index` of out. */
    void (*to_int)(const float *x, int n, tq_int_vectors *out, int index);
    /* Codes of a tile -> bytes level + 128, 64 a vector.  levels: 256 entries, the table repeated. */
    void (*unpack_tile)(int bits, const uint8_t *levels, const uint8_t *tile, int n_vectors, uint8_t *dst);
    /* out[i * 16 + lane] = sum over vectors v and j < 4 of (dst[64 v + 4 lane + j] - 128) * wide_i[4 v + j]. */
    void (*dot_tile)(const uint8_t *unpacked, int n_vectors, const tq_int_vectors *q, int first_q, int n_q,
                     int32_t *out);
    /* scores[r] = dots[r] * (step * scales[r]) + offset for r < 16. */
    void (*finish_scores)(const int32_t *dots, float step, const uint16_t *scales, float offset, float *scores);
    /* acc[i] += dots[i] * step for i < 16. */
    void (*finish_values)(const int32_t *dots, float step, float *acc);
    /* w[r] *= scales[r] for r < n, n a multiple of 16. */
    void (*scale_weights)(float *w, const uint16_t *scales, int n);

    /* ---- softmax */
    float (*max)(const float *x, int n, float start);
    float (*exp_sum)(float *x, int n, float max); /* x = exp(x - max); returns the sum.  -INFINITY gives 0 */
    void (*scale)(float *x, int n, float factor);
} tq_kernels;

extern const tq_kernels *const tq_kernels_all[]; /* best first, NULL ends the list */

/* want NULL: the environment's TQ_KERNELS, else the best that runs here.  TQ_INVALID lists what there is; asking for a
 * table that does not run on this processor is TQ_UNSUPPORTED. */
tq_status tq_kernels_select(const char *want, const tq_kernels **out, tq_error *err);

#endif
