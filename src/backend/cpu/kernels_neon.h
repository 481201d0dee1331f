/* kernels_neon.h: what the tables of NEON share, with dot products (kernels_neon_dotprod.c) and without (kernels_neon.c): each
 * includes this once, then defines its integer kernels and includes kernels_body.h. */
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

static inline vf lookup(vi codes) { return __builtin_convertvector(codes & 15, vf); }
static inline void transpose(vi m[VL]) {
    int32x4x2_t a = vtrnq_s32((int32x4_t)m[0], (int32x4_t)m[1]), b = vtrnq_s32((int32x4_t)m[2], (int32x4_t)m[3]);
    for (int i = 0; i < 2; i++) {
        m[i] = (vi)vtrn1q_s64(vreinterpretq_s64_s32(a.val[i]), vreinterpretq_s64_s32(b.val[i]));
        m[i + 2] = (vi)vtrn2q_s64(vreinterpretq_s64_s32(a.val[i]), vreinterpretq_s64_s32(b.val[i]));
    }
}

/* ---- codes of pages
 * TBL looks up by 4 bits and the table repeats itself, so what stands above a code of 2 or 3 bits does not matter below bit 4. */

static inline uint8x16_t look_up_low(uint8x16_t table, uint8x16_t codes) { return vqtbl1q_u8(table, vandq_u8(codes, vdupq_n_u8(15))); }
static inline uint8x16_t look_up_high(uint8x16_t table, uint8x16_t codes) { return vqtbl1q_u8(table, vshrq_n_u8(codes, 4)); }

/* Levels of 16 codes of each of eight vectors, from the low planes of the first four and of the others, and the high one. */
static inline __attribute__((always_inline)) void unpack_eight3(uint8x16_t table, uint8x16_t low, uint8x16_t low4, uint8x16_t high,
                                                                uint8x16_t level[8]) {
    const uint8x16_t low_bits = vdupq_n_u8(0x33);
    uint8x16_t first = vsliq_n_u8(low, low4, 4), second = vsriq_n_u8(low4, low, 4); /* vectors 0, 1, 4, 5; 2, 3, 6, 7 */
    uint8x16_t codes[4]; /* of vectors v and v + 4, in nibbles */
    codes[0] = vbslq_u8(low_bits, first, vshlq_n_u8(high, 2));
    codes[1] = vbslq_u8(low_bits, vshrq_n_u8(first, 2), vshlq_n_u8(high, 1));
    codes[2] = vbslq_u8(low_bits, second, high);
    codes[3] = vbslq_u8(low_bits, vshrq_n_u8(second, 2), vshrq_n_u8(high, 1));
    for (int i = 0; i < 4; i++) level[i] = look_up_low(table, codes[i]), level[i + 4] = look_up_high(table, codes[i]);
}

/* What the table has for the codes of a tile, up to 4 bits each; n_vectors is a multiple of 4.  The r-th 16 codes of vector v go
 * to dst + v * vector_step + r * part_step. */
static inline __attribute__((always_inline)) void unpack_codes(int bits, uint8x16_t table, const uint8_t *tile, int n_vectors,
                                                               uint8_t *dst, const size_t vector_step, size_t part_step) {
    uint8x16_t level[8];
    for (int v = 0, n; v < n_vectors; v += n, tile += 8 * bits * n, dst += vector_step * (size_t)n) {
        n = bits == 3 && n_vectors - v >= 8 ? 8 : 4;
        for (int r = 0; r < 4; r++) {
            const uint8_t *at = tile + 16 * r;
            uint8_t *to = dst + part_step * (size_t)r;
            uint8x16_t first = vld1q_u8(at);
            if (n == 8) {
                unpack_eight3(table, first, vld1q_u8(at + 64), vld1q_u8(at + 128), level);
                for (int i = 4; i < 8; i++) vst1q_u8(to + vector_step * (size_t)i, level[i]);
            } else if (bits == 3) {
                uint8x16_t high = vld1q_u8(at + 64);
                level[0] = look_up_low(table, vsliq_n_u8(first, high, 2));
                level[1] = look_up_low(table, vsliq_n_u8(vshrq_n_u8(first, 2), vshrq_n_u8(high, 1), 2));
                level[2] = look_up_low(table, vsliq_n_u8(vshrq_n_u8(first, 4), vshrq_n_u8(high, 2), 2));
                level[3] = look_up_low(table, vsliq_n_u8(vshrq_n_u8(first, 6), vshrq_n_u8(high, 3), 2));
            } else if (bits == 4) {
                uint8x16_t second = vld1q_u8(at + 64);
                level[0] = look_up_low(table, first), level[1] = look_up_high(table, first);
                level[2] = look_up_low(table, second), level[3] = look_up_high(table, second);
            } else {
                level[0] = look_up_low(table, first), level[1] = look_up_low(table, vshrq_n_u8(first, 2));
                level[2] = look_up_high(table, first), level[3] = vqtbl1q_u8(table, vshrq_n_u8(first, 6));
            }
            for (int i = 0; i < 4; i++) vst1q_u8(to + vector_step * (size_t)i, level[i]);
        }
    }
}

/* ---- look-ups and sums of bytes for trellis codes */
#define VB 16
typedef uint8_t vb __attribute__((vector_size(VB)));
typedef uint8x16x4_t byte_table, mix_table;
static inline byte_table load_table(const uint8_t *p) { return vld1q_u8_x4(p); }
static inline vb look_up(byte_table table, vb index) { return (vb)vqtbl4q_u8(table, (uint8x16_t)index); }
static inline mix_table load_mix(const uint8_t *p) { return load_table(p); }
static inline vb look_up_mix(mix_table table, vb index) { return look_up(table, index & 63); }
static inline vb choose_bits(uint8_t mask, vb a, vb b) { return (vb)vbslq_u8(vdupq_n_u8(mask), (uint8x16_t)a, (uint8x16_t)b); }
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
