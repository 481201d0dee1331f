/* kernels_neon_dotprod.c: AArch64 with dot products of bytes (FEAT_DotProd: Cortex-A76, Neoverse N1, Apple M1 and later). */
#include <sys/auxv.h>

#include "backend/cpu/kernels_neon.h"

/* ---- products with weights */

#define BYTE_DOTS
#define BYTE_TOKENS 4 /* 24 of 32 registers */
#define CODES_LESS 128
#ifdef __clang__
#define QUAD_LOOP
#else
#define QUAD_LOOP _Pragma("GCC unroll 2") /* unrolled further, its sums leave the registers */
#endif
#define SUMS_APART false /* SDOT's sum waits for the one before it for a cycle only */
#define FETCH_BYTES 32 /* two quads of 4-bit codes of a panel, or one of bytes */
#define FILL_FETCHES 0

typedef struct digit_pair {
    int8x16_t first; /* four dwords of six */
    int8x8_t last;
} digit_pair;
static inline digit_pair load_digits(const uint8_t *p) {
    return (digit_pair){vld1q_s8((const int8_t *)p), vld1_s8((const int8_t *)p + 16)};
}
static inline __attribute__((always_inline)) vi dot_bytes(vi sum, vi codes, digit_pair d, const int dword) {
    int32x4_t s = (int32x4_t)sum;
    int8x16_t c = (int8x16_t)codes;
    return (vi)(dword == 0   ? vdotq_laneq_s32(s, c, d.first, 0)
                : dword == 1 ? vdotq_laneq_s32(s, c, d.first, 1)
                : dword == 2 ? vdotq_laneq_s32(s, c, d.first, 2)
                : dword == 3 ? vdotq_laneq_s32(s, c, d.first, 3)
                : dword == 4 ? vdotq_lane_s32(s, c, d.last, 0)
                             : vdotq_lane_s32(s, c, d.last, 1));
}
static inline vi low_nibbles(vi v) { return v & 0x0f0f0f0f; }
static inline vi high_nibbles(vi v) { return (vi)vshrq_n_u8((uint8x16_t)v, 4); }
static inline vi nearest(vf v) { return (vi)vcvtnq_s32_f32((float32x4_t)v); }
static inline void put_digits(const vi *v, const uint8_t *places, uint8_t *to) { /* of eight columns */
    uint8x16x2_t all = {{(uint8x16_t)v[0], (uint8x16_t)v[1]}};
    vst1q_u8(to, veorq_u8(vqtbl2q_u8(all, vld1q_u8(places)), vdupq_n_u8(128)));
    vst1_u8(to + 16, veor_u8(vqtbl2_u8(all, vld1_u8(places + 16)), vdup_n_u8(128)));
}

/* ---- and with GGUF's blocks */

static inline void turn_16(const uint8_t *const rows[VL], size_t at, vi m[4]) {
    for (int l = 0; l < VL; l++) m[l] = (vi)vld1q_u8(rows[l] + at);
    transpose(m);
}
static inline void turn_32(const uint8_t *const rows[VL], size_t at, vi m[8]) {
    turn_16(rows, at, m);
    turn_16(rows, at + 16, m + 4);
}
static inline vf halves_to_floats(vi v) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32((uint32x4_t)v))); }
static inline vf load_spaced_f16(const uint8_t *p, int step) {
    uint16_t halves[VL];
    for (int l = 0; l < VL; l++) memcpy(&halves[l], p + l * step, sizeof *halves);
    return load_f16(halves);
}

/* ---- attention over packed pages */

#include "backend/cpu/page_dots_neon.h"

#include "backend/cpu/kernels_body.h"

/* All that the flags in CMakeLists.txt allow the compiler. */
static bool runs_here(void) {
    const unsigned long wanted = HWCAP_ASIMDDP | HWCAP_ASIMDRDM | HWCAP_ATOMICS | HWCAP_CRC32;
    return (getauxval(AT_HWCAP) & wanted) == wanted;
}

const tq_kernels tq_kernels_neon_dotprod = KERNEL_TABLE("neon-dotprod", runs_here);
