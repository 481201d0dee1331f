/* half.h: 16-bit floats.  f16 rounds to nearest even and saturates nothing (overflow is infinity); bf16 likewise. */
#ifndef TQ_BASE_HALF_H
#define TQ_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float tq_bits_f32(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t tq_f32_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float tq_bf16_f32(uint16_t h) { return tq_bits_f32((uint32_t)h << 16); }

static inline uint16_t tq_f32_bf16(float value) {
    uint32_t bits = tq_f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float tq_f16_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 0x1fu, fraction = h & 0x3ffu;
    if (exponent == 31) return tq_bits_f32(sign | 0x7f800000u | fraction << 13);
    if (exponent) return tq_bits_f32(sign | (exponent + 112) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f; /* subnormal or zero: exact */
    return sign ? -magnitude : magnitude;
}

static inline uint16_t tq_f32_f16(float value) {
    uint32_t bits = tq_f32_bits(value), sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (bits >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more round to infinity */
    if (bits < 0x38800000u) {                                   /* below 2^-14: a multiple of 2^-24 */
        float scaled = tq_bits_f32(bits) + 0.5f;                /* the adder rounds to nearest even at 2^-24 */
        return (uint16_t)(sign | (tq_f32_bits(scaled) - 0x3f000000u));
    }
    bits += 0xfffu + (bits >> 13 & 1u);
    return (uint16_t)(sign | (bits - 0x38000000u) >> 13);
}

#endif
