/* block_rows.c: GGUF's block-quantized types, one element after the other.  f16 and u16 are little-endian, codes of
 * fewer than 8 bits stand low bits first.  Bytes of a block, in order:
 *
 *     q4_0    d f16, codes 16             d * (code - 8); the low halves are elements 0..15, the high ones 16..31
 *     q4_1    d f16, m f16, codes 16      d * code + m
 *     q5_0    d f16, fifth bits u32, codes 16        d * (code - 16)
 *     q5_1    d f16, m f16, fifth bits u32, codes 16 d * code + m
 *     q8_0    d f16, codes 32             d * code, signed
 *     q2_k    scales 16 (4 bits of scale, 4 of minimum, for 16 elements), codes 64, d f16, dmin f16
 *     q3_k    third bits 32, codes 64, scales 12 (16 of 6 bits), d f16
 *     q4_k    d f16, dmin f16, scales 12 (8 scales and minima of 6 bits, for 32 elements), codes 128
 *     q5_k    d f16, dmin f16, scales 12, fifth bits 32, codes 128
 *     q6_k    low 4 bits 128, high 2 bits 64, scales 16 (signed, for 16 elements), d f16
 *     iq4_nl  d f16, codes 16             d * level[code]
 *     iq4_xs  d f16, scales' high bits u16, low bits 4, codes 128
 *     mxfp4   e u8, codes 16              2^(e - 127) * e2m1[code] */
#include "backend/cpu/block_rows.h"

#include <string.h>

#include "base/half.h"

static const int8_t levels_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t doubled_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static float half_at(const uint8_t *at) { return tq_f16_f32((uint16_t)(at[0] | at[1] << 8)); }

static uint32_t u32_at(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* ---- blocks of 32 -------------------------------------------------------------------------------------------------- */

static void unpack_q4_0(const uint8_t *b, float *dst) {
    float d = half_at(b);
    for (int j = 0; j < 16; j++) {
        dst[j] = d * (float)((b[2 + j] & 15) - 8);
        dst[j + 16] = d * (float)((b[2 + j] >> 4) - 8);
    }
}

static void unpack_q4_1(const uint8_t *b, float *dst) {
    float d = half_at(b), m = half_at(b + 2);
    for (int j = 0; j < 16; j++) {
        dst[j] = d * (float)(b[4 + j] & 15) + m;
        dst[j + 16] = d * (float)(b[4 + j] >> 4) + m;
    }
}

static void unpack_q5_0(const uint8_t *b, float *dst) {
    float d = half_at(b);
    uint32_t fifth = u32_at(b + 2);
    for (int j = 0; j < 16; j++) {
        dst[j] = d * (float)((int)((b[6 + j] & 15) | (fifth >> j & 1) << 4) - 16);
        dst[j + 16] = d * (float)((int)(b[6 + j] >> 4 | (fifth >> (j + 16) & 1) << 4) - 16);
    }
}

static void unpack_q5_1(const uint8_t *b, float *dst) {
    float d = half_at(b), m = half_at(b + 2);
    uint32_t fifth = u32_at(b + 4);
    for (int j = 0; j < 16; j++) {
        dst[j] = d * (float)((b[8 + j] & 15) | (fifth >> j & 1) << 4) + m;
        dst[j + 16] = d * (float)(b[8 + j] >> 4 | (fifth >> (j + 16) & 1) << 4) + m;
    }
}

static void unpack_q8_0(const uint8_t *b, float *dst) {
    float d = half_at(b);
    for (int j = 0; j < 32; j++) dst[j] = d * (float)(int8_t)b[2 + j];
}

static void unpack_levels(const uint8_t *codes, const int8_t *levels, float d, float *dst) {
    for (int j = 0; j < 16; j++) {
        dst[j] = d * (float)levels[codes[j] & 15];
        dst[j + 16] = d * (float)levels[codes[j] >> 4];
    }
}

static void unpack_iq4_nl(const uint8_t *b, float *dst) { unpack_levels(b + 2, levels_iq4, half_at(b), dst); }

/* The levels are doubled, hence 2^(e - 128): below 2^-126 no longer a normal float. */
static void unpack_mxfp4(const uint8_t *b, float *dst) {
    float d = b[0] < 2 ? tq_bits_f32(0x00200000u << b[0]) : tq_bits_f32((uint32_t)(b[0] - 1) << 23);
    unpack_levels(b + 1, doubled_e2m1, d, dst);
}

/* ---- blocks of 256 ------------------------------------------------------------------------------------------------- */

/* 128 elements share 32 bytes of 2-bit codes: bits 0-1 of each are elements 0..31, bits 2-3 the next, and so on. */
static void unpack_q2_k(const uint8_t *b, float *dst) {
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int i = 0; i < 256; i++) {
        int scale = b[i / 16], code = b[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        dst[i] = d * (float)(scale & 15) * (float)code - dmin * (float)(scale >> 4);
    }
}

/* Codes as in q2_k; the third bit of elements 32 k..32 k + 31 is bit k of the first 32 bytes, and its absence is -4. */
static void unpack_q3_k(const uint8_t *b, float *dst) {
    const uint8_t *packed = b + 96;
    float d = half_at(b + 108);
    for (int i = 0; i < 256; i++) {
        int s = i / 16, low = s < 8 ? packed[s] & 15 : packed[s - 8] >> 4;
        int scale = (low | (packed[8 + s % 4] >> (s / 4 * 2) & 3) << 4) - 32;
        int code = b[32 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        if (!(b[i % 32] >> (i / 32) & 1)) code -= 4;
        dst[i] = d * (float)scale * (float)code;
    }
}

/* 64 elements share 32 bytes of 4-bit codes: the low halves, then the high ones.  fifth: NULL, or one bit more. */
static void unpack_k4(const uint8_t *b, const uint8_t *fifth, const uint8_t *codes, float *dst) {
    float d = half_at(b), dmin = half_at(b + 2);
    for (int group = 0; group < 8; group++) {
        int scale, min;
        tq_block_scale_min(b + 4, group, &scale, &min);
        float step = d * (float)scale, offset = dmin * (float)min;
        for (int j = 0; j < 32; j++) {
            int code = codes[group / 2 * 32 + j] >> (group % 2 * 4) & 15;
            if (fifth) code |= (fifth[j] >> group & 1) << 4;
            dst[group * 32 + j] = step * (float)code - offset;
        }
    }
}

static void unpack_q4_k(const uint8_t *b, float *dst) { unpack_k4(b, NULL, b + 16, dst); }
static void unpack_q5_k(const uint8_t *b, float *dst) { unpack_k4(b, b + 16, b + 48, dst); }

/* 128 elements: low bits as in q4_k over 64 bytes (0..63 low halves, 64..127 high ones), high bits as in q2_k. */
static void unpack_q6_k(const uint8_t *b, float *dst) {
    float d = half_at(b + 208);
    for (int i = 0; i < 256; i++) {
        int at = i % 128, low = b[i / 128 * 64 + at % 64] >> (at / 64 * 4) & 15;
        int high = b[128 + i / 128 * 32 + at % 32] >> (at / 32 * 2) & 3;
        dst[i] = d * (float)(int8_t)b[192 + i / 16] * (float)((low | high << 4) - 32);
    }
}

static void unpack_iq4_xs(const uint8_t *b, float *dst) {
    float d = half_at(b);
    int high = b[2] | b[3] << 8;
    for (int group = 0; group < 8; group++) {
        int scale = (b[4 + group / 2] >> (group % 2 * 4) & 15) | (high >> (2 * group) & 3) << 4;
        unpack_levels(b + 8 + group * 16, levels_iq4, d * (float)(scale - 32), dst + group * 32);
    }
}

/* ---- any ----------------------------------------------------------------------------------------------------------- */

void tq_block_unpack(tq_dtype type, const uint8_t *blocks, int n, float *dst) {
    static void (*const unpack[TQ_N_DTYPES])(const uint8_t *block, float *to) = {
        [TQ_Q4_0] = unpack_q4_0, [TQ_Q4_1] = unpack_q4_1, [TQ_Q5_0] = unpack_q5_0,     [TQ_Q5_1] = unpack_q5_1,
        [TQ_Q8_0] = unpack_q8_0, [TQ_Q2_K] = unpack_q2_k, [TQ_Q3_K] = unpack_q3_k,     [TQ_Q4_K] = unpack_q4_k,
        [TQ_Q5_K] = unpack_q5_k, [TQ_Q6_K] = unpack_q6_k, [TQ_IQ4_NL] = unpack_iq4_nl, [TQ_IQ4_XS] = unpack_iq4_xs,
        [TQ_MXFP4] = unpack_mxfp4,
    };
    int block = tq_dtype_block(type);
    size_t bytes = tq_dtype_bytes(type);
    for (int i = 0; i < n; i += block, blocks += bytes) unpack[type](blocks, dst + i);
}
