/* kernels_neon.c: the AArch64 baseline (ARMv8.0: no dot-product instructions). */
#include "backend/cpu/kernels_neon.h"

/* ---- products with weights */

typedef int16_t vw __attribute__((vector_size(VL * 4)));

static inline vw load_words(const uint8_t *p) { return (vw)vmovl_u8(vld1_u8(p)); }
static inline vi pair_sums(vi sum, vw a, vw b) {
    int32x4_t low = vmull_s16(vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
    int32x4_t high = vmull_high_s16((int16x8_t)a, (int16x8_t)b);
    return (vi)vaddq_s32((int32x4_t)sum, vpaddq_s32(low, high));
}
static inline vf spread_scales(const float *p, int lanes) {
    (void)lanes; /* a register is within a group */
    return (vf)vdupq_n_f32(*p);
}

/* ---- attention over packed pages */

static void unpack_tile(int bits, const uint8_t *levels, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    switch (bits) {
    case 2: unpack_codes(2, vld1q_u8(levels), tile, n_vectors, dst, 64, 16); break;
    case 3: unpack_codes(3, vld1q_u8(levels), tile, n_vectors, dst, 64, 16); break;
    default: unpack_codes(4, vld1q_u8(levels), tile, n_vectors, dst, 64, 16);
    }
}

/* Bytes widen to 16 bits and meet 16-bit queries in SMLAL: exact.  4 queries x 4 lanes are 16 of 32 registers. */
static inline __attribute__((always_inline)) void dot_queries(const uint8_t *unpacked, int n_vectors,
                                                              const tq_int_vectors *q, int first, int32_t *out,
                                                              const int n_q) {
    for (int quarter = 0; quarter < 4; quarter++) { /* 4 lanes: 16 bytes */
        int32x4_t sum[4][4];
        for (int i = 0; i < n_q; i++)
            for (int lane = 0; lane < 4; lane++) sum[i][lane] = vdupq_n_s32(0);
        for (int v = 0; v < n_vectors; v++) {
            uint8x16_t bytes = vld1q_u8(unpacked + 64 * v + 16 * quarter);
            int16x8_t low = vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(bytes), vdup_n_u8(128)));
            int16x8_t high = vreinterpretq_s16_u16(vsubl_u8(vget_high_u8(bytes), vdup_n_u8(128)));
            for (int i = 0; i < n_q; i++) {
                int16x4_t wide = vld1_s16(q->wide + (size_t)(first + i) * (size_t)q->stride + 4 * v);
                sum[i][0] = vmlal_s16(sum[i][0], vget_low_s16(low), wide);
                sum[i][1] = vmlal_s16(sum[i][1], vget_high_s16(low), wide);
                sum[i][2] = vmlal_s16(sum[i][2], vget_low_s16(high), wide);
                sum[i][3] = vmlal_s16(sum[i][3], vget_high_s16(high), wide);
            }
        }
        for (int i = 0; i < n_q; i++)
            vst1q_s32(out + i * 16 + quarter * 4,
                      vpaddq_s32(vpaddq_s32(sum[i][0], sum[i][1]), vpaddq_s32(sum[i][2], sum[i][3])));
    }
}

static void dot_tile(const uint8_t *unpacked, int n_vectors, const tq_int_vectors *q, int first_q, int n_q,
                     int32_t *out) {
    for (; n_q >= 4; n_q -= 4, first_q += 4, out += 64) dot_queries(unpacked, n_vectors, q, first_q, out, 4);
    if (n_q == 3) dot_queries(unpacked, n_vectors, q, first_q, out, 3);
    if (n_q == 2) dot_queries(unpacked, n_vectors, q, first_q, out, 2);
    if (n_q == 1) dot_queries(unpacked, n_vectors, q, first_q, out, 1);
}

#include "backend/cpu/page_dots_tiles.h"
#include "backend/cpu/kernels_body.h"

static bool runs_here(void) { return true; /* every AArch64 processor has it */ }

const tq_kernels tq_kernels_neon = KERNEL_TABLE("neon", runs_here);
