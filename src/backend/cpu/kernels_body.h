/* kernels_body.h: the kernels that are the same in every instruction set but for the width of a register.
 *
 * Included once by each kernels_<set>.c, which first defines
 *     VL                          floats of a register
 *     GEMM_TOKENS, SUM_COLUMNS    accumulators that fit the register file
 *     vf, vi                      VL floats, VL int32
 *     load_f16(p), sum_lanes(v)
 *     load_u8(p), load_u16(p)     VL integers widened to vi
 *     store_i8(p, v), store_i16   the low bits of VL integers of small magnitude
 *     expand_codes                codes of a row to floats
 *     sum_registers(v)            VL registers -> one, lane i the sum of register i's lanes
 *     max_vf(a, b)                the larger, b if one is NaN
 *     max_magnitude(a, b)         of |a| and |b|; of one NaN and a number, either
 *     page_dots, store_weights, sum_integers  the integer kernels (page_dots_*.h); or PAGE_DOTS, page_dots' name elsewhere
 *     and what kernels_trellis.h, kernels_viterbi.h, kernels_pairs.h and matmul_body.h ask for
 * and afterwards writes its table.  Written with the vector extensions that GCC and clang share; these files are compiled
 * with -ffp-contract=fast, so that a * b + c is one instruction where the set has it. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "base/half.h"

typedef vf vf_unaligned __attribute__((aligned(4), may_alias));
typedef vi vi_unaligned __attribute__((aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(VL * 4))); /* where sums may wrap */

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p) { return *(const vf_unaligned *)p; }
INLINE void store(float *p, vf v) { *(vf_unaligned *)p = v; }
INLINE vf spread(float x) { return x - (vf){0}; }
INLINE vf load_bf16(const uint16_t *p) { return (vf)(load_u16(p) << 16); }
INLINE vf to_float(vi v) { return __builtin_convertvector(v, vf); }
INLINE vf choose(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
INLINE vf larger(vf a, vf b) { return choose(a > b, a, b); }

/* ---- exp --------------------------------------------------------------------------------------------------------- */

/* exp(x): 2^n * p(r), |r| <= ln2/2, degree 6; relative error below 2e-7.  Below -87: 0; above 88.7: infinity; NaN stays
 * NaN, because each choice keeps x where the comparison is false. */
INLINE vf exp_vf(vf x) {
    vi vanishes = x < spread(-87.0f);
    x = choose(vanishes, spread(-87.0f), x);
    x = choose(x > spread(89.0f), spread(89.0f), x);
    vf shifted = x * 1.44269504f + 12582912.0f; /* the integer part lands in the low bits */
    vf n = shifted - 12582912.0f;
    vf r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    vf p = r * (1.0f / 720) + (1.0f / 120);
    p = p * r + (1.0f / 24);
    p = p * r + (1.0f / 6);
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    vf power = (vf)(((vi)shifted - (vi)spread(12582912.0f) + 127) << 23);
    return choose(vanishes, (vf){0}, p * power);
}

static void scale(float *x, int n, float factor) {
    int i = 0;
    for (; i + VL <= n; i += VL) store(x + i, load(x + i) * factor);
    for (; i < n; i++) x[i] *= factor;
}

/* ---- between the matrices ------------------------------------------------------------------------------------------ */

static void rms_norm(const float *x, const float *weight, int n, float eps, float *y) {
    vf squares = {0};
    float tail = 0;
    int i = 0;
    for (; i + VL <= n; i += VL) squares += load(x + i) * load(x + i);
    for (; i < n; i++) tail += x[i] * x[i];
    float factor = 1.0f / sqrtf((sum_lanes(squares) + tail) / (float)n + eps);
    for (i = 0; i + VL <= n; i += VL) store(y + i, load(x + i) * factor * load(weight + i));
    for (; i < n; i++) y[i] = x[i] * factor * weight[i];
}

static void silu_mul(float *gate, const float *up, int n) {
    int i = 0;
    for (; i + VL <= n; i += VL) {
        vf g = load(gate + i);
        store(gate + i, g / (1.0f + exp_vf(-g)) * load(up + i));
    }
    if (i < n) { /* the same exp as above: a value's result must not depend on where it stands */
        float tail[VL] = {0};
        for (int l = 0; i + l < n; l++) tail[l] = gate[i + l];
        vf g = load(tail), y = g / (1.0f + exp_vf(-g));
        for (int l = 0; i + l < n; l++) gate[i + l] = y[l] * up[i + l];
    }
}

static void add(float *x, const float *y, int n) {
    int i = 0;
    for (; i + VL <= n; i += VL) store(x + i, load(x + i) + load(y + i));
    for (; i < n; i++) x[i] += y[i];
}

/* ---- attention over float rows --------------------------------------------------------------------------------------
 * Four queries share every load of a row.  One body for both element types: `half` is a constant where it is used. */

INLINE vf load_element(const void *row, int at, bool half) {
    return half ? load_f16((const uint16_t *)row + at) : load((const float *)row + at);
}

INLINE float element(const void *row, int at, bool half) {
    return half ? tq_f16_f32(((const uint16_t *)row)[at]) : ((const float *)row)[at];
}

INLINE const void *row_at(const void *rows, size_t index, bool half) {
    return half ? (const void *)((const uint16_t *)rows + index) : (const void *)((const float *)rows + index);
}

INLINE void dot_rows_block(const float *q, int q_stride, const void *rows, int n_rows, int row_stride, int width,
                           float *out, int out_stride, const int n_q, const bool half) {
    for (int r = 0; r < n_rows; r++) {
        const void *row = row_at(rows, (size_t)r * (size_t)row_stride, half);
        vf sum[4] = {{0}, {0}, {0}, {0}};
        int j = 0;
        for (; j + VL <= width; j += VL) {
            vf k = load_element(row, j, half);
            for (int i = 0; i < n_q; i++) sum[i] += load(q + i * q_stride + j) * k;
        }
        for (int i = 0; i < n_q; i++) {
            float tail = 0;
            for (int l = j; l < width; l++) tail += q[i * q_stride + l] * element(row, l, half);
            out[i * out_stride + r] = sum_lanes(sum[i]) + tail;
        }
    }
}

/* n_q x n_r = VL products at a time: n_q + n_r loads for VL multiplications, and one tree of additions at the end
 * instead of VL sums of lanes. */
INLINE void dot_rows_square(const float *q, int q_stride, const void *rows, int row_stride, int width, float *out,
                            int out_stride, const int n_q, const int n_r, const bool half) {
    vf sum[VL];
    for (int i = 0; i < VL; i++) sum[i] = (vf){0};
    int j = 0;
    for (; j + VL <= width; j += VL)
        for (int r = 0; r < n_r; r++) {
            vf k = load_element(row_at(rows, (size_t)r * (size_t)row_stride, half), j, half);
            for (int i = 0; i < n_q; i++) sum[i * n_r + r] += load(q + i * q_stride + j) * k;
        }
    float total[VL];
    store(total, sum_registers(sum));
    for (int r = 0; r < n_r; r++)
        for (int i = 0; i < n_q; i++) {
            float tail = 0;
            for (int l = j; l < width; l++)
                tail += q[i * q_stride + l] * element(row_at(rows, (size_t)r * (size_t)row_stride, half), l, half);
            out[i * out_stride + r] = total[i * n_r + r] + tail;
        }
}

INLINE void dot_rows_queries(const float *q, int q_stride, const void *rows, int n_rows, int row_stride, int width,
                             float *out, int out_stride, const int n_q, const bool half) {
    int r = 0;
    for (; r + VL / n_q <= n_rows; r += VL / n_q)
        dot_rows_square(q, q_stride, row_at(rows, (size_t)r * (size_t)row_stride, half), row_stride, width, out + r,
                        out_stride, n_q, VL / n_q, half);
    dot_rows_block(q, q_stride, row_at(rows, (size_t)r * (size_t)row_stride, half), n_rows - r, row_stride, width,
                   out + r, out_stride, n_q, half);
}

/* Many queries, VL rows at a time: the rows are turned once, so that no query needs a sum across a register.  Rows 32 on
 * are fetched meanwhile. */
INLINE void dot_rows_turned(const float *q, int q_stride, const void *rows, int row_stride, int width, float *out,
                            int out_stride, const int n_q, const bool half) {
    vf sum[8];
    for (int i = 0; i < n_q; i++) sum[i] = (vf){0};
    for (int j = 0; j < width; j += VL) {
        vi column[VL];
        for (int r = 0; r < VL; r++) {
            const void *row = row_at(rows, (size_t)r * (size_t)row_stride, half);
            if (j % (half ? 32 : 16) == 0) __builtin_prefetch(row_at(row, 32 * (size_t)row_stride + (size_t)j, half), 0, 3);
            column[r] = (vi)load_element(row, j, half);
        }
        transpose(column);
        for (int l = 0; l < VL; l++)
            for (int i = 0; i < n_q; i++) sum[i] += q[(size_t)i * (size_t)q_stride + (size_t)(j + l)] * (vf)column[l];
    }
    for (int i = 0; i < n_q; i++) store(out + (size_t)i * (size_t)out_stride, sum[i]);
}

/* All whole runs of VL rows; returns how many rows were done. */
INLINE int dot_rows_runs(const float *q, int q_stride, const void *rows, int n_rows, int row_stride, int width, float *out,
                         int out_stride, const int n_q, const bool half) {
    int r = 0;
    for (; r + VL <= n_rows; r += VL)
        dot_rows_turned(q, q_stride, row_at(rows, (size_t)r * (size_t)row_stride, half), row_stride, width, out + r,
                        out_stride, n_q, half);
    return r;
}

INLINE int dot_rows_many(const float *q, int n_q, int q_stride, const void *rows, int n_rows, int row_stride, int width,
                         float *out, int out_stride, const bool half) {
    switch (n_q) {
    case 3: return dot_rows_runs(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 3, half);
    case 4: return dot_rows_runs(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 4, half);
    case 5: return dot_rows_runs(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 5, half);
    case 6: return dot_rows_runs(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 6, half);
    case 7: return dot_rows_runs(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 7, half);
    default: return dot_rows_runs(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 8, half);
    }
}

INLINE void dot_rows_few(const float *q, int n_q, int q_stride, const void *rows, int n_rows, int row_stride, int width,
                     float *out, int out_stride, const bool half) {
    for (; n_q >= 4; n_q -= 4, q += 4 * q_stride, out += 4 * out_stride)
        dot_rows_queries(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 4, half);
    if (n_q >= 2) {
        dot_rows_queries(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 2, half);
        n_q -= 2, q += 2 * q_stride, out += 2 * out_stride;
    }
    if (n_q == 1) dot_rows_queries(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 1, half);
}

INLINE void dot_rows(const float *q, int n_q, int q_stride, const void *rows, int n_rows, int row_stride, int width,
                     float *out, int out_stride, const bool half) {
    while (n_q > 0) {
        int n = n_q < 8 ? n_q : 8, done = 0;
        if (n > 2 && width % VL == 0)
            done = dot_rows_many(q, n, q_stride, rows, n_rows, row_stride, width, out, out_stride, half);
        dot_rows_few(q, n, q_stride, row_at(rows, (size_t)done * (size_t)row_stride, half), n_rows - done, row_stride, width,
                     out + done, out_stride, half);
        n_q -= n, q += n * q_stride, out += n * out_stride;
    }
}

static void dot_rows_f32(const float *q, int n_q, int q_stride, const float *rows, int n_rows, int row_stride, int width,
                         float *out, int out_stride) {
    dot_rows(q, n_q, q_stride, rows, n_rows, row_stride, width, out, out_stride, false);
}

static void dot_rows_f16(const float *q, int n_q, int q_stride, const uint16_t *rows, int n_rows, int row_stride,
                         int width, float *out, int out_stride) {
    dot_rows(q, n_q, q_stride, rows, n_rows, row_stride, width, out, out_stride, true);
}

/* n_q accumulators of n_c registers, over all rows; rows 32 on are fetched meanwhile. */
INLINE void sum_rows_block(const float *w, int w_stride, const void *rows, int n_rows, int row_stride, float *acc,
                           int acc_stride, const int n_q, const int n_c, const bool half) {
    vf sum[8][SUM_COLUMNS];
    for (int i = 0; i < n_q; i++)
        for (int c = 0; c < n_c; c++) sum[i][c] = load(acc + i * acc_stride + c * VL);
    for (int r = 0; r < n_rows; r++) {
        const void *row = row_at(rows, (size_t)r * (size_t)row_stride, half);
        vf v[SUM_COLUMNS];
        for (int c = 0; c < n_c * VL * (half ? 2 : 4); c += 64)
            __builtin_prefetch((const char *)row_at(row, 32 * (size_t)row_stride, half) + c, 0, 3);
        for (int c = 0; c < n_c; c++) v[c] = load_element(row, c * VL, half);
        for (int i = 0; i < n_q; i++) {
            vf weight = spread(w[i * w_stride + r]);
            for (int c = 0; c < n_c; c++) sum[i][c] += weight * v[c];
        }
    }
    for (int i = 0; i < n_q; i++)
        for (int c = 0; c < n_c; c++) store(acc + i * acc_stride + c * VL, sum[i][c]);
}

INLINE void sum_rows_queries(const float *w, int w_stride, const void *rows, int n_rows, int row_stride, int width,
                             float *acc, int acc_stride, const int n_q, const bool half) {
    const int columns = n_q > 4 ? SUM_COLUMNS / 2 : SUM_COLUMNS;
    int j = 0;
    for (; j + columns * VL <= width; j += columns * VL)
        sum_rows_block(w, w_stride, row_at(rows, (size_t)j, half), n_rows, row_stride, acc + j, acc_stride, n_q, columns,
                       half);
    for (; j + VL <= width; j += VL)
        sum_rows_block(w, w_stride, row_at(rows, (size_t)j, half), n_rows, row_stride, acc + j, acc_stride, n_q, 1, half);
    for (; j < width; j++)
        for (int i = 0; i < n_q; i++)
            for (int r = 0; r < n_rows; r++)
                acc[i * acc_stride + j] +=
                    w[i * w_stride + r] * element(row_at(rows, (size_t)r * (size_t)row_stride, half), j, half);
}

INLINE void sum_rows(const float *w, int n_q, int w_stride, const void *rows, int n_rows, int row_stride, int width,
                     float *acc, int acc_stride, const bool half) {
#if VL == 16 /* registers enough for eight queries */
    for (; n_q >= 8; n_q -= 8, w += 8 * w_stride, acc += 8 * acc_stride)
        sum_rows_queries(w, w_stride, rows, n_rows, row_stride, width, acc, acc_stride, 8, half);
    if (n_q == 7) sum_rows_queries(w, w_stride, rows, n_rows, row_stride, width, acc, acc_stride, 7, half);
    if (n_q == 6) sum_rows_queries(w, w_stride, rows, n_rows, row_stride, width, acc, acc_stride, 6, half);
    if (n_q == 5) sum_rows_queries(w, w_stride, rows, n_rows, row_stride, width, acc, acc_stride, 5, half);
    if (n_q >= 5) return;
#endif
    for (; n_q >= 4; n_q -= 4, w += 4 * w_stride, acc += 4 * acc_stride)
        sum_rows_queries(w, w_stride, rows, n_rows, row_stride, width, acc, acc_stride, 4, half);
    if (n_q == 3) sum_rows_queries(w, w_stride, rows, n_rows, row_stride, width, acc, acc_stride, 3, half);
    if (n_q == 2) sum_rows_queries(w, w_stride, rows, n_rows, row_stride, width, acc, acc_stride, 2, half);
    if (n_q == 1) sum_rows_queries(w, w_stride, rows, n_rows, row_stride, width, acc, acc_stride, 1, half);
}

static void sum_rows_f32(const float *w, int n_q, int w_stride, const float *rows, int n_rows, int row_stride, int width,
                         float *acc, int acc_stride) {
    sum_rows(w, n_q, w_stride, rows, n_rows, row_stride, width, acc, acc_stride, false);
}

static void sum_rows_f16(const float *w, int n_q, int w_stride, const uint16_t *rows, int n_rows, int row_stride,
                         int width, float *acc, int acc_stride) {
    sum_rows(w, n_q, w_stride, rows, n_rows, row_stride, width, acc, acc_stride, true);
}

/* ---- attention over packed pages: the float ends of the integer kernels ---------------------------------------------- */

/* Rounding to 15 bits and a sign against the largest magnitude: an error of 2^-16 of it in each place.  n is a multiple
 * of 16. */
static void to_int(const float *x, int n, tq_int_vectors *out, int index) {
    vf tops = {0}, poison = {0}; /* poison: 0, or NaN if a value is not finite; it goes into the step */
    for (int i = 0; i < n; i += VL) {
        vf v = load(x + i);
        tops = larger((vf)((vi)v & 0x7fffffff), tops);
        poison += v * 0.0f;
    }
    float top = 0;
    for (int l = 0; l < VL; l++) top = tops[l] > top ? tops[l] : top;
    float inverse = top > 1e-33f ? 32512.0f / top : 0.0f; /* less is nothing, and its inverse no float */
    size_t at = (size_t)index * (size_t)out->stride;
    vu sum = {0}; /* wraps where a value is not finite; the step is NaN then */
    for (int i = 0; i < n; i += VL) {
        vf shifted = load(x + i) * inverse + 12582912.0f; /* the nearest integer lands in the low bits */
        vi value = (vi)shifted - (vi)spread(12582912.0f);
        vi upper = (value + 128) >> 8; /* low in -128..127, high in -127..127 */
        store_i16(out->wide + at + i, value);
        store_i8(out->high + 2 * at + i, upper);
        store_i8(out->low + 2 * at + i, value - (upper << 8));
        sum += (vu)value;
    }
    uint32_t total = 0;
    for (int l = 0; l < VL; l++) total += sum[l];
    out->step[index] = top / 32512.0f + sum_lanes(poison);
    out->sum[index] = (int32_t)total;
}

#include "backend/cpu/kernels_pages.h"
#include "backend/cpu/kernels_trellis.h"
#include "backend/cpu/kernels_viterbi.h"
#include "backend/cpu/kernels_pairs.h"

#include "backend/cpu/matmul_body.h"
#include "backend/cpu/kernels_layers.h"

/* The same bits for any register (encode.h): one for each width. */
#if VL == 16
#define WIDTH_ENCODER tq_encoder_avx512
#elif VL == 8
#define WIDTH_ENCODER tq_encoder_avx2
#else
#define WIDTH_ENCODER tq_encoder_plain
#endif

/* The entries of a table, in parts, so that a set may have its own for some. */
#define MATMUL_KERNELS                                                                                                 \
    .gemm_tile = GEMM_TOKENS, .gemm_rows = TQ_GEMM_ROWS, .matmul_same_input = matmul_same_input, .matmul_prepare = matmul_prepare, .gemm = gemm
#ifndef PAGE_DOTS
#define PAGE_DOTS page_dots
#endif
#define PAGE_KERNELS                                                                                                   \
    .unpack_trellis_keys = unpack_trellis_keys, .unpack_trellis_values = unpack_trellis_values,                        \
    .unpack_pairs = unpack_pairs,                                                                                      \
    .page_dots = PAGE_DOTS, .page_offsets = page_offsets, .page_scores = page_scores,                                  \
    .page_factors = page_factors, .page_weights = page_weights, .page_values = page_values
#define OTHER_KERNELS                                                                                                  \
    .gemv = gemv, .unpack_row = unpack_row, .rms_norm = rms_norm, .silu_mul = silu_mul, .add = add,                    \
    .dot_rows_f32 = dot_rows_f32, .dot_rows_f16 = dot_rows_f16, .sum_rows_f32 = sum_rows_f32,                          \
    .sum_rows_f16 = sum_rows_f16, .expand_codes = expand_codes, .to_int = to_int, .trellis_encode = trellis_encode,    \
    .encoder = &WIDTH_ENCODER,                                                                                         \
    .scale = scale, .gelu_mul = gelu_mul, .clamped_swiglu = clamped_swiglu, .sigmoid_mul = sigmoid_mul,                \
    .soft_cap = soft_cap, .delta_step = delta_step
#define KERNEL_TABLE(set_name, runs)                                                                                   \
    { .name = set_name, .runs_here = runs, MATMUL_KERNELS, PAGE_KERNELS, OTHER_KERNELS }
