/* kernels_neon.c: the AArch64 baseline (ARMv8.0: no dot-product instructions). */
#define VL 4
#define GEMM_TOKENS 6
#define GEMM_STEP 2
#define SUM_COLUMNS 4

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_plain.h"

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));

static inline vi load_u16(const uint16_t *p) { return (vi)vmovl_u16(vld1_u16(p)); }
static inline vi load_u8(const uint8_t *p) {
    uint32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return (vi)vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}
static inline void store_i16(int16_t *p, vi v) { vst1_s16(p, vmovn_s32((int32x4_t)v)); }
static inline void store_i8(int8_t *p, vi v) {
    int16x4_t half = vmovn_s32((int32x4_t)v);
    uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(half, half))), 0);
    __builtin_memcpy(p, &four, sizeof four);
}
static inline vf load_f16(const uint16_t *p) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline float sum_lanes(vf v) { return vaddvq_f32((float32x4_t)v); }
static inline vf sum_registers(const vf *v) {
    return (vf)vpaddq_f32(vpaddq_f32((float32x4_t)v[0], (float32x4_t)v[1]),
                          vpaddq_f32((float32x4_t)v[2], (float32x4_t)v[3]));
}

static inline vf max_vf(vf a, vf b) { return (vf)vbslq_f32(vcgtq_f32((float32x4_t)a, (float32x4_t)b), (float32x4_t)a, (float32x4_t)b); }

static inline vf max_magnitude(vf a, vf b) { return max_vf((vf)((vi)a & 0x7fffffff), (vf)((vi)b & 0x7fffffff)); }

static inline float max_lanes(vf v) { return vmaxvq_f32((float32x4_t)v); }

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
static inline vf lookup(vi codes) { return __builtin_convertvector(codes & 15, vf); }
static inline void transpose(vi m[VL]) {
    int32x4x2_t a = vtrnq_s32((int32x4_t)m[0], (int32x4_t)m[1]), b = vtrnq_s32((int32x4_t)m[2], (int32x4_t)m[3]);
    m[0] = (vi)vcombine_s32(vget_low_s32(a.val[0]), vget_low_s32(b.val[0]));
    m[1] = (vi)vcombine_s32(vget_low_s32(a.val[1]), vget_low_s32(b.val[1]));
    m[2] = (vi)vcombine_s32(vget_high_s32(a.val[0]), vget_high_s32(b.val[0]));
    m[3] = (vi)vcombine_s32(vget_high_s32(a.val[1]), vget_high_s32(b.val[1]));
}

/* Bits 2*k and 2*k+1 of every byte, k = v % 4. */
static inline uint8x16_t two_bits(uint8x16_t bytes, int v) {
    return vandq_u8(vshlq_u8(bytes, vdupq_n_s8((int8_t)(-2 * (v % 4)))), vdupq_n_u8(3));
}

static void unpack_tile(int bits, const uint8_t *levels, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    uint8x16_t table = vld1q_u8(levels); /* up to 4 bits: 16 entries are all there are */
    for (int v = 0; v < n_vectors; v++)
        for (int quarter = 0; quarter < 64; quarter += 16, dst += 16) {
            if (bits == 8) {
                vst1q_u8(dst, vld1q_u8(tile + v * 64 + quarter));
            } else if (bits == 4) {
                uint8x16_t two = vld1q_u8(tile + v / 2 * 64 + quarter);
                two = vandq_u8(vshlq_u8(two, vdupq_n_s8((int8_t)(-4 * (v % 2)))), vdupq_n_u8(15));
                vst1q_u8(dst, vqtbl1q_u8(table, two));
            } else if (bits == 2) {
                vst1q_u8(dst, vqtbl1q_u8(table, two_bits(vld1q_u8(tile + v / 4 * 64 + quarter), v)));
            } else { /* a 2-bit plane and a 1-bit plane; a negative shift goes right */
                const uint8_t *group = tile + v / 8 * 192;
                const uint8_t *high_plane = group + (v / 8 * 8 + 8 <= n_vectors ? 128 : 64);
                uint8x16_t low = two_bits(vld1q_u8(group + v % 8 / 4 * 64 + quarter), v);
                uint8x16_t high = vshlq_u8(vld1q_u8(high_plane + quarter), vdupq_n_s8((int8_t)(2 - v % 8)));
                vst1q_u8(dst, vqtbl1q_u8(table, vorrq_u8(low, vandq_u8(high, vdupq_n_u8(4)))));
            }
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

/* ---- look-ups and sums of bytes for trellis codes */
#define VB 16
typedef uint8_t vb __attribute__((vector_size(VB)));
typedef uint8x16x4_t byte_table, mix_table;
static inline byte_table load_table(const uint8_t *p) { return vld1q_u8_x4(p); }
static inline vb look_up(byte_table table, vb index) { return (vb)vqtbl4q_u8(table, (uint8x16_t)index); }
static inline mix_table load_mix(const uint8_t *p) { return load_table(p); }
static inline vb look_up_mix(mix_table table, vb index) { return look_up(table, index & 63); }
static inline vb choose_bits(uint8_t mask, vb a, vb b) { return (a & mask) | (b & (uint8_t)~mask); }
static inline vb exclusive_or_bits(vb a, vb b, uint8_t mask) { return a ^ (b & mask); }
static inline void next_lanes(vb v[4]) {
    vb last = v[3];
    for (int i = 3; i > 0; i--) v[i] = (vb)vextq_u8((uint8x16_t)v[i - 1], (uint8x16_t)v[i], 12);
    v[0] = (vb)vextq_u8((uint8x16_t)last, (uint8x16_t)v[0], 12);
}
static inline vb add_capped(vb a, vb b) { return (vb)vqaddq_u8((uint8x16_t)a, (uint8x16_t)b); }
static inline vb min_u8(vb a, vb b) { return (vb)vminq_u8((uint8x16_t)a, (uint8x16_t)b); }
static inline vb distance_u8(vb a, vb b) { return (vb)vabdq_u8((uint8x16_t)a, (uint8x16_t)b); }

/* ---- and for codes of pairs: an index beyond a table leaves what was there */
typedef struct pair_table {
    uint8x16x4_t half[2];
} pair_table;
static inline pair_table load_pairs(const uint8_t *p) { return (pair_table){{vld1q_u8_x4(p), vld1q_u8_x4(p + 64)}}; }
static inline vb look_up_pair(pair_table t, vb index) {
    uint8x16_t low = vqtbl4q_u8(t.half[0], (uint8x16_t)index);
    return (vb)vqtbx4q_u8(low, t.half[1], vsubq_u8((uint8x16_t)index, vdupq_n_u8(64)));
}
#define exchange_halves(a, b) ((void)0) /* registers are smaller than halves */

#include "backend/cpu/kernels_body.h"

static bool runs_here(void) { return true; /* every AArch64 processor has it */ }

const tq_kernels tq_kernels_neon = KERNEL_TABLE("neon", runs_here);
