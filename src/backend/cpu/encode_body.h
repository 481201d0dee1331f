/* encode_body.h: encode.h for registers of VL floats, 4, 8 or 16, which each encode_<set>.c defines before it includes this.
 *
 * VL rows are turned so that a register holds one place of each: butterflies, squares and samples are then plain vertical
 * arithmetic, each lane a row in the specification's own order. */
#include <string.h>

#include "backend/cpu/encode.h"
#include "base/half.h"

#define INLINE static inline __attribute__((always_inline))
#ifndef __clang__
#define UNROLL _Pragma("GCC unroll 16")
#elif __has_feature(address_sanitizer) /* with UBSan's checks clang compiles the unrolled loops for minutes */
#define UNROLL
#else
#define UNROLL _Pragma("clang loop unroll(full)")
#endif

typedef float vf __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef int16_t vs __attribute__((vector_size(VL * 2)));
typedef uint16_t vh __attribute__((vector_size(VL * 2)));
/* The halves of vf, and as doubles. */
typedef float vf_part __attribute__((vector_size(VL * 2)));
typedef double vd __attribute__((vector_size(VL * 4)));

INLINE vf load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void store(float *p, vf v) { memcpy(p, &v, sizeof v); }
INLINE vf spread(float x) { return x - (vf){0}; }
INLINE vu choose(vi mask, vu yes, vu no) { return ((vu)mask & yes) | (~(vu)mask & no); }

/* tq_f16_f32: the exponent is put right by a product, which is exact for subnormals too. */
INLINE vf load_half(const uint16_t *p) {
    vh half;
    memcpy(&half, p, sizeof half);
    vu bits = __builtin_convertvector(half, vu), magnitude = (bits & 0x7fff) << 13;
    vu number = (vu)((vf)magnitude * 0x1p112f);
    number = choose((vi)(magnitude >= 0x0f800000), magnitude | 0x7f800000, number);
    return (vf)(number | (bits & 0x8000) << 16);
}

/* tq_f32_f16 */
INLINE void store_half(uint16_t *p, vf v) {
    vu bits = (vu)v, sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    vu small = (vu)((vf)bits + 0.5f) - 0x3f000000, normal = (bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13;
    vu half = choose((vi)(bits < 0x38800000), small, normal);
    half = choose((vi)(bits >= 0x477ff000), (vu){0} + 0x7c00, half);
    half = choose((vi)(bits > 0x7f800000), (vu){0} + 0x7e00, half);
    vh out = __builtin_convertvector(half | sign, vh);
    memcpy(p, &out, sizeof out);
}

INLINE vf load_row(const tq_exact_row *row, int at) {
    return row->half ? load_half((const uint16_t *)row->x + at) : load((const float *)row->x + at);
}

/* ---- a square of VL x VL turned over: registers i and i + VL/2 alternate, as often as VL has bits ------------------------ */

#if VL == 16
#define LOWER 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define UPPER 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif VL == 8
#define LOWER 0, 8, 1, 9, 2, 10, 3, 11
#define UPPER 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOWER 0, 4, 1, 5
#define UPPER 2, 6, 3, 7
#endif

INLINE void alternate(const vf *from, vf *to) {
    UNROLL for (int i = 0; i < VL / 2; i++) {
        to[2 * i] = __builtin_shufflevector(from[i], from[i + VL / 2], LOWER);
        to[2 * i + 1] = __builtin_shufflevector(from[i], from[i + VL / 2], UPPER);
    }
}

INLINE void transpose(vf m[VL]) {
    vf other[VL];
    for (int done = 1; done < VL; done *= 4) {
        alternate(m, other);
        if (2 * done < VL) {
            alternate(other, m);
        } else {
            UNROLL for (int i = 0; i < VL; i++) m[i] = other[i];
        }
    }
}

/* ---- rotation: tq_rotate, y (dim, VL) ------------------------------------------------------------------------------------- */

INLINE void stage(vf *v, const int n, const int half) {
    UNROLL for (int i = 0; i < n / 2; i++) {
        int at = i / half * 2 * half + i % half;
        vf a = v[at], b = v[at + half];
        v[at] = a + b;
        v[at + half] = a - b;
    }
}

/* n places, 2, 4, 8 or 16. */
INLINE void butterflies(vf *v, const int n) {
    stage(v, n, 1);
    if (n > 2) stage(v, n, 2);
    if (n > 4) stage(v, n, 4);
    if (n > 8) stage(v, n, 8);
}

/* The stages of log2(n) halves, of which the first is `run` places. */
INLINE void stages(float *y, int dim, int run, const int n) {
    for (int base = 0; base < dim; base += n * run)
        for (int i = base; i < base + run; i++) {
            vf v[8];
            UNROLL for (int k = 0; k < n; k++) v[k] = load(y + (i + k * run) * VL);
            butterflies(v, n);
            UNROLL for (int k = 0; k < n; k++) store(y + (i + k * run) * VL, v[k]);
        }
}

static void mix_runs(const tq_rotation *r, float *y) {
    int m = r->odd;
    float mixed[TQ_MAX_PLANAR_DIM / 16 * VL] __attribute__((aligned(64))); /* dim is a multiple of 16 */
    for (int base = 0; base < r->dim; base += m) {
        for (int i = 0; i < m; i++) {
            vf sum = {0};
            for (int j = 0; j < m; j++) sum += r->mix[i * m + j] * load(y + (base + j) * VL);
            store(mixed + i * VL, sum);
        }
        memcpy(y + base * VL, mixed, (size_t)(m * VL) * sizeof *y);
    }
}

static void rotate_rows(const tq_rotation *r, const tq_exact_row *const row[VL], float *y) {
    int done = r->odd == 1 ? VL : 1; /* of pow2 places */
    for (int at = 0; at < r->dim; at += VL) {
        vf m[VL];
        UNROLL for (int l = 0; l < VL; l++) m[l] = load_row(row[l], at);
        transpose(m);
        UNROLL for (int l = 0; l < VL; l++) m[l] *= r->signs[at + l];
        if (done > 1) butterflies(m, VL);
        UNROLL for (int l = 0; l < VL; l++) store(y + (at + l) * VL, m[l]);
    }
    for (; done * 8 <= r->pow2; done *= 8) stages(y, r->dim, done * r->odd, 8);
    if (done * 4 <= r->pow2) stages(y, r->dim, done * r->odd, 4), done *= 4;
    if (done * 2 <= r->pow2) stages(y, r->dim, done * r->odd, 2);
    if (r->mix) mix_runs(r, y);
}

/* ---- the table ------------------------------------------------------------------------------------------------------------ */

/* y -> y less the centre (dim), if there is one; the sums of its squares, place after place. */
static void centre_rows(const float *centre, int dim, float *y, double energy[VL]) {
    vd sum[2] = {{0}, {0}};
    for (int i = 0; i < dim; i++, y += VL) {
        if (centre) store(y, load(y) - centre[i]);
        UNROLL for (int part = 0; part < 2; part++) {
            vf_part some;
            memcpy(&some, y + part * (VL / 2), sizeof some);
            vd v = __builtin_convertvector(some, vd);
            sum[part] += v * v;
        }
    }
    memcpy(energy, sum, sizeof sum);
}

static void trellis_begin(const tq_codec *codec, tq_side side, const uint8_t *block, const tq_exact_row *rows, int n_rows,
                          int16_t *samples, float *inverse_unit, uint16_t *scale, void *scratch) {
    const float nearest = 12582912.0f; /* added, the nearest integer lands in the low bits */
    int dim = codec->dim, lanes = tq_side_lanes(side);
    float *y = scratch, centre[TQ_MAX_PLANAR_DIM];
    const uint16_t *half = tq_block_has_centre(codec, side) ? tq_block_centre(codec, block) : NULL;
    for (int i = 0; half && i < dim; i++) centre[i] = tq_f16_f32(half[i]);
    for (int first = 0; first < n_rows; first += VL, samples += VL) {
        const tq_exact_row *row[VL];
        double energy[VL];
        float factor[VL] = {0};
        for (int l = 0; l < VL; l++) row[l] = rows + (first + l < n_rows ? first + l : n_rows - 1);
        rotate_rows(&codec->rotation, row, y);
        centre_rows(half ? centre : NULL, dim, y, energy);
        for (int l = 0; l < VL && first + l < n_rows; l++)
            factor[l] = inverse_unit[first + l] = tq_trellis_factor(codec, energy[l], &scale[first + l]);
        vf factors = load(factor);
        int16_t *to = samples;
        for (int lane = 0; lane < lanes; lane++) /* in the order of tq_chain_place */
            for (int i = lane; i < dim; i += lanes, to += TQ_TRELLIS_ROWS) {
                vu shifted = (vu)(load(y + i * VL) * factors + nearest) - (vu)spread(nearest);
                vs sample = __builtin_convertvector((vi)shifted, vs);
                memcpy(to, &sample, sizeof sample);
            }
    }
}

static void add_rows(const tq_exact_row *rows, int n_rows, int dim, float *sums) {
    for (int i = 0; i < dim; i += VL) {
        vf sum = load(sums + i);
        for (int r = 0; r < n_rows; r++) sum += load_row(rows + r, i);
        store(sums + i, sum);
    }
}

static void to_half(const float *x, int n, uint16_t *half) {
    int i = 0;
    for (; i + VL <= n; i += VL) store_half(half + i, load(x + i));
    for (; i < n; i++) half[i] = tq_f32_f16(x[i]);
}

#define ENCODER {.trellis_begin = trellis_begin, .add_rows = add_rows, .to_half = to_half}
