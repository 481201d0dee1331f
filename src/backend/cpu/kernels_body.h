/* kernels_body.h: the kernels that are the same in every instruction set but for the width of a register.
 *
 * Included once by each kernels_<set>.c, which first defines
 *     VL                          floats of a register
 *     GEMM_TOKENS, SUM_COLUMNS    accumulators that fit the register file
 *     vf, vi                      VL floats, VL int32
 *     load_f16(p), sum_lanes(v)
 *     load_u8(p), load_u16(p)     VL integers widened to vi
 *     store_i8(p, v), store_i16   the low bits of VL integers of small magnitude
 *     unpack_tile, dot_tile       the integer kernels
 *     expand_codes                codes of a row to floats
 *     sum_registers(v)            VL registers -> one, lane i the sum of register i's lanes
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

static float max_of(const float *x, int n, float start) {
    vf top = spread(start);
    int i = 0;
    for (; i + VL <= n; i += VL) top = larger(load(x + i), top);
    for (int l = 0; l < VL; l++) start = top[l] > start ? top[l] : start;
    for (; i < n; i++) start = x[i] > start ? x[i] : start;
    return start;
}

static float exp_sum(float *x, int n, float max) {
    vf total = {0};
    int i = 0;
    for (; i + VL <= n; i += VL) {
        vf e = exp_vf(load(x + i) - max);
        store(x + i, e);
        total += e;
    }
    float sum = sum_lanes(total);
    if (i < n) {
        float tail[VL];
        for (int l = 0; l < VL; l++) tail[l] = i + l < n ? x[i + l] - max : -INFINITY;
        vf e = exp_vf(load(tail));
        for (int l = 0; i + l < n; l++) x[i + l] = e[l];
        sum += sum_lanes(e);
    }
    return sum;
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
    for (; i < n; i++) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
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

INLINE void dot_rows(const float *q, int n_q, int q_stride, const void *rows, int n_rows, int row_stride, int width,
                     float *out, int out_stride, const bool half) {
    for (; n_q >= 4; n_q -= 4, q += 4 * q_stride, out += 4 * out_stride)
        dot_rows_queries(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 4, half);
    if (n_q >= 2) {
        dot_rows_queries(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 2, half);
        n_q -= 2, q += 2 * q_stride, out += 2 * out_stride;
    }
    if (n_q == 1) dot_rows_queries(q, q_stride, rows, n_rows, row_stride, width, out, out_stride, 1, half);
}

static void dot_rows_f32(const float *q, int n_q, int q_stride, const float *rows, int n_rows, int row_stride, int width,
                         float *out, int out_stride) {
    dot_rows(q, n_q, q_stride, rows, n_rows, row_stride, width, out, out_stride, false);
}

static void dot_rows_f16(const float *q, int n_q, int q_stride, const uint16_t *rows, int n_rows, int row_stride,
                         int width, float *out, int out_stride) {
    dot_rows(q, n_q, q_stride, rows, n_rows, row_stride, width, out, out_stride, true);
}

/* n_q accumulators of n_c registers, over all rows. */
INLINE void sum_rows_block(const float *w, int w_stride, const void *rows, int n_rows, int row_stride, float *acc,
                           int acc_stride, const int n_q, const int n_c, const bool half) {
    vf sum[4][SUM_COLUMNS];
    for (int i = 0; i < n_q; i++)
        for (int c = 0; c < n_c; c++) sum[i][c] = load(acc + i * acc_stride + c * VL);
    for (int r = 0; r < n_rows; r++) {
        const void *row = row_at(rows, (size_t)r * (size_t)row_stride, half);
        vf v[SUM_COLUMNS];
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
    int j = 0;
    for (; j + SUM_COLUMNS * VL <= width; j += SUM_COLUMNS * VL)
        sum_rows_block(w, w_stride, row_at(rows, (size_t)j, half), n_rows, row_stride, acc + j, acc_stride, n_q,
                       SUM_COLUMNS, half);
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
        store_i8(out->high + at + i, upper);
        store_i8(out->low + at + i, value - (upper << 8));
        sum += (vu)value;
    }
    uint32_t total = 0;
    for (int l = 0; l < VL; l++) total += sum[l];
    out->step[index] = top / 32512.0f + sum_lanes(poison);
    out->sum[index] = (int32_t)total;
}

static void finish_scores(const int32_t *dots, float step, const uint16_t *scales, float offset, float *scores) {
    for (int i = 0; i < 16; i += VL)
        store(scores + i, to_float(*(const vi_unaligned *)(dots + i)) * (load_f16(scales + i) * step) + offset);
}

static void finish_values(const int32_t *dots, float step, float *acc) {
    for (int i = 0; i < 16; i += VL)
        store(acc + i, to_float(*(const vi_unaligned *)(dots + i)) * step + load(acc + i));
}

static void scale_weights(float *w, const uint16_t *scales, int n) {
    for (int i = 0; i < n; i += VL) store(w + i, load(w + i) * load_f16(scales + i));
}

/* ---- weights: unpacking ---------------------------------------------------------------------------------------------- */

INLINE float affine_constant(const void *constants, size_t at, tq_dtype dtype) {
    switch (dtype) {
    case TQ_BF16: return tq_bf16_f32(((const uint16_t *)constants)[at]);
    case TQ_F16: return tq_f16_f32(((const uint16_t *)constants)[at]);
    default: return ((const float *)constants)[at];
    }
}

/* n 4-bit codes -> code * s + b, in split order: of every 2 VL values the even ones, then the odd ones. */
INLINE void unpack_affine4_split(const uint8_t *stream, int n, float s, float b, float *dst) {
    for (int i = 0; i < n; i += 2 * VL) {
        vi pair = load_u8(stream + i / 2);
        store(dst + i, to_float(pair & 15) * s + b);
        store(dst + i + VL, to_float(pair >> 4) * s + b);
    }
}

/* A group's codes -> code * s + b.  split: 4-bit codes may stay in split order. */
static void unpack_affine(const uint8_t *stream, int bits, int n, float s, float b, bool split, float *dst) {
    if (bits == 4 && split) {
        unpack_affine4_split(stream, n, s, b, dst);
    } else if (bits == 4) {
        float run[128]; /* the largest group */
        unpack_affine4_split(stream, n, s, b, run);
        for (int i = 0; i < n; i += 2 * VL)
            for (int l = 0; l < VL; l++) {
                dst[i + 2 * l] = run[i + l];
                dst[i + 2 * l + 1] = run[i + VL + l];
            }
    } else if (bits == 8) {
        for (int i = 0; i < n; i += VL) store(dst + i, to_float(load_u8(stream + i)) * s + b);
    } else {
        uint64_t mask = (1u << bits) - 1;
        for (int i = 0; i < n; i += 8, stream += bits) {
            uint64_t word = 0;
            memcpy(&word, stream, (size_t)bits);
            for (int k = 0; k < 8; k++) dst[i + k] = (float)(int32_t)(word >> (k * bits) & mask) * s + b;
        }
    }
}

/* Columns col0..col0+n of a row.  For AFFINE col0 and n are multiples of the group. */
static void unpack_columns(const tq_matrix *w, int row, int col0, int n, bool split, float *dst) {
    size_t at = (size_t)row * (size_t)w->cols + (size_t)col0;
    int i = 0;
    switch (w->kind) {
    case TQ_MATRIX_F32: memcpy(dst, (const float *)w->data + at, (size_t)n * sizeof(float)); return;
    case TQ_MATRIX_F16:
        for (; i + VL <= n; i += VL) store(dst + i, load_f16((const uint16_t *)w->data + at + i));
        for (; i < n; i++) dst[i] = tq_f16_f32(((const uint16_t *)w->data)[at + (size_t)i]);
        return;
    case TQ_MATRIX_BF16:
        for (; i + VL <= n; i += VL) store(dst + i, load_bf16((const uint16_t *)w->data + at + i));
        for (; i < n; i++) dst[i] = tq_bf16_f32(((const uint16_t *)w->data)[at + (size_t)i]);
        return;
    case TQ_MATRIX_AFFINE: {
        const uint8_t *stream = (const uint8_t *)w->data + at * (size_t)w->bits / 8;
        size_t group = at / (size_t)w->group_size;
        for (; i < n; i += w->group_size, group++, stream += w->group_size * w->bits / 8)
            unpack_affine(stream, w->bits, w->group_size, affine_constant(w->scales, group, w->scale_dtype),
                          affine_constant(w->biases, group, w->scale_dtype), split, dst + i);
        return;
    }
    case TQ_N_MATRIX_KINDS: return;
    }
}

static void unpack_row(const tq_matrix *w, int row, float *dst) { unpack_columns(w, row, 0, w->cols, false, dst); }

/* ---- weights: matrix times vector --------------------------------------------------------------------------------------- */

static void gemv_prepare(const tq_matrix *w, tq_gemv_input *input) {
    if (w->kind != TQ_MATRIX_AFFINE || w->bits != 4) return;
    for (int base = 0; base < w->cols; base += 2 * VL)
        for (int i = 0; i < VL; i++) {
            input->split[base + i] = input->x[base + 2 * i];
            input->split[base + VL + i] = input->x[base + 2 * i + 1];
        }
    for (int g = 0; g < w->cols / w->group_size; g++) {
        float sum = 0;
        for (int i = 0; i < w->group_size; i++) sum += input->x[g * w->group_size + i];
        input->group_sums[g] = sum;
    }
}

/* sum over groups of scale * (codes . x) + bias * sum(x): two codes a byte, even ones low. */
static float dot_affine4(const tq_matrix *w, int row, const tq_gemv_input *input) {
    const uint8_t *stream = (const uint8_t *)w->data + (size_t)row * (size_t)w->cols / 2;
    int groups = w->cols / w->group_size;
    size_t group0 = (size_t)row * (size_t)groups;
    vf total = {0};
    float biased = 0;
    for (int g = 0; g < groups; g++) {
        vf sum = {0};
        for (int i = g * w->group_size; i < (g + 1) * w->group_size; i += 2 * VL) {
            vi pair = load_u8(stream + i / 2);
            sum += to_float(pair & 15) * load(input->split + i);
            sum += to_float(pair >> 4) * load(input->split + i + VL);
        }
        total += sum * affine_constant(w->scales, group0 + (size_t)g, w->scale_dtype);
        biased += affine_constant(w->biases, group0 + (size_t)g, w->scale_dtype) * input->group_sums[g];
    }
    return sum_lanes(total) + biased;
}

INLINE float dot_plain(const void *row, const float *x, int n, const tq_matrix_kind kind) {
    vf sum[4] = {{0}, {0}, {0}, {0}};
    int i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (int u = 0; u < 4; u++) {
            int at = i + u * VL;
            vf v = kind == TQ_MATRIX_F32   ? load((const float *)row + at)
                   : kind == TQ_MATRIX_F16 ? load_f16((const uint16_t *)row + at)
                                           : load_bf16((const uint16_t *)row + at);
            sum[u] += v * load(x + at);
        }
    float tail = 0;
    for (; i < n; i++) {
        float v = kind == TQ_MATRIX_F32   ? ((const float *)row)[i]
                  : kind == TQ_MATRIX_F16 ? tq_f16_f32(((const uint16_t *)row)[i])
                                          : tq_bf16_f32(((const uint16_t *)row)[i]);
        tail += v * x[i];
    }
    return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) + tail;
}

static void gemv(const tq_matrix *w, int row0, int n_rows, const tq_gemv_input *input, float *y, float *scratch) {
    size_t row_bytes = tq_matrix_row_bytes(w);
    for (int i = 0; i < n_rows; i++) {
        const uint8_t *row = (const uint8_t *)w->data + (size_t)(row0 + i) * row_bytes;
        switch (w->kind) {
        case TQ_MATRIX_F32: y[i] = dot_plain(row, input->x, w->cols, TQ_MATRIX_F32); break;
        case TQ_MATRIX_F16: y[i] = dot_plain(row, input->x, w->cols, TQ_MATRIX_F16); break;
        case TQ_MATRIX_BF16: y[i] = dot_plain(row, input->x, w->cols, TQ_MATRIX_BF16); break;
        default:
            if (w->bits == 4) {
                y[i] = dot_affine4(w, row0 + i, input);
            } else {
                unpack_row(w, row0 + i, scratch);
                y[i] = dot_plain(scratch, input->x, w->cols, TQ_MATRIX_F32);
            }
        }
    }
}

/* ---- weights: matrix times matrix ----------------------------------------------------------------------------------------
 * A panel is TQ_GEMM_DEPTH columns of TQ_GEMM_ROWS rows, unpacked and transposed: panel[k][row].  Two registers of rows
 * times GEMM_TOKENS tokens stay in accumulators while k runs. */

static void fill_panel(const tq_matrix *w, int row0, int n_rows, int col0, int depth, float *panel, float *row) {
    if (n_rows < TQ_GEMM_ROWS) memset(panel, 0, (size_t)depth * TQ_GEMM_ROWS * sizeof(float));
    bool split = w->kind == TQ_MATRIX_AFFINE && w->bits == 4;
    for (int r = 0; r < n_rows; r++) {
        unpack_columns(w, row0 + r, col0, depth, split, row);
        if (split) {
            for (int k = 0; k < depth; k += 2 * VL)
                for (int l = 0; l < VL; l++) {
                    panel[(k + 2 * l) * TQ_GEMM_ROWS + r] = row[k + l];
                    panel[(k + 2 * l + 1) * TQ_GEMM_ROWS + r] = row[k + VL + l];
                }
        } else {
            for (int k = 0; k < depth; k++) panel[k * TQ_GEMM_ROWS + r] = row[k];
        }
    }
}

/* tokens x (2 VL rows): acc += panel^T x; y is written for the first n_rows of them. */
INLINE void gemm_tile(const float *panel, int depth, const float *x, int ldx, float *y, int ldy, int n_rows, bool first,
                      const int tokens) {
    vf acc[GEMM_TOKENS][2];
    bool whole = n_rows >= 2 * VL;
    for (int t = 0; t < tokens; t++)
        for (int c = 0; c < 2; c++) acc[t][c] = first || !whole ? (vf){0} : load(y + t * ldy + c * VL);
    for (int k = 0; k < depth; k++) {
        vf w0 = load(panel + k * TQ_GEMM_ROWS), w1 = load(panel + k * TQ_GEMM_ROWS + VL);
        for (int t = 0; t < tokens; t++) {
            vf value = spread(x[t * ldx + k]);
            acc[t][0] += w0 * value;
            acc[t][1] += w1 * value;
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int c = 0; c < 2; c++) {
            if (whole) {
                store(y + t * ldy + c * VL, acc[t][c]);
                continue;
            }
            for (int l = 0; l < VL && c * VL + l < n_rows; l++) {
                float *at = y + t * ldy + c * VL + l;
                *at = first ? acc[t][c][l] : *at + acc[t][c][l];
            }
        }
}

static void gemm(const tq_matrix *w, int row0, int n_rows, const float *x, int n, float *y, int ldy, float *scratch) {
    float *panel = scratch, *row = scratch + TQ_GEMM_ROWS * TQ_GEMM_DEPTH;
    for (int col0 = 0; col0 < w->cols; col0 += TQ_GEMM_DEPTH) {
        int depth = w->cols - col0 < TQ_GEMM_DEPTH ? w->cols - col0 : TQ_GEMM_DEPTH;
        fill_panel(w, row0, n_rows, col0, depth, panel, row);
        for (int r = 0; r < n_rows; r += 2 * VL) {
            const float *tile_x = x + col0;
            float *tile_y = y + r;
            int t = 0, rows = n_rows - r;
            for (; t + GEMM_TOKENS <= n; t += GEMM_TOKENS)
                gemm_tile(panel + r, depth, tile_x + (size_t)t * (size_t)w->cols, w->cols,
                          tile_y + (size_t)t * (size_t)ldy, ldy, rows, col0 == 0, GEMM_TOKENS);
            for (; t < n; t++)
                gemm_tile(panel + r, depth, tile_x + (size_t)t * (size_t)w->cols, w->cols,
                          tile_y + (size_t)t * (size_t)ldy, ldy, rows, col0 == 0, 1);
        }
    }
}

#define KERNEL_TABLE(set_name, runs)                                                                                   \
    {                                                                                                                  \
        .name = set_name, .runs_here = runs, .gemv_prepare = gemv_prepare, .gemv = gemv, .gemm = gemm,                 \
        .unpack_row = unpack_row, .rms_norm = rms_norm, .silu_mul = silu_mul, .add = add,                              \
        .dot_rows_f32 = dot_rows_f32, .dot_rows_f16 = dot_rows_f16, .sum_rows_f32 = sum_rows_f32,                      \
        .sum_rows_f16 = sum_rows_f16, .expand_codes = expand_codes, .to_int = to_int, .unpack_tile = unpack_tile, .dot_tile = dot_tile,              \
        .finish_scores = finish_scores, .finish_values = finish_values, .scale_weights = scale_weights, .max = max_of, \
        .exp_sum = exp_sum, .scale = scale,                                                                            \
    }
