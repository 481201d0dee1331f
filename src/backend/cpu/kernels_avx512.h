/* kernels_avx512.h: the functions of AVX-512 F, BW, DQ, VL, VBMI and VNNI, for the tables of kernels_avx512.c and kernels_amx.c:
 * each includes this once. */
#define VL 16
#define GEMM_TOKENS 12
#define GEMM_STEP 4
#define SUM_COLUMNS 4

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend/cpu/kernels.h"

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));

static inline vi load_u8(const uint8_t *p) { return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
static inline vi load_u16(const uint16_t *p) { return (vi)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
static inline void store_i16(int16_t *p, vi v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16((__m512i)v));
}
static inline void store_i8(int8_t *p, vi v) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v)); }
static inline vf load_f16(const uint16_t *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
static inline float sum_lanes(vf v) { return _mm512_reduce_add_ps((__m512)v); }

static inline vf max_magnitude(vf a, vf b) { return (vf)_mm512_range_ps((__m512)a, (__m512)b, 11); } /* no sign, larger */
static inline vf max_vf(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }

static inline float max_lanes(vf v) { return _mm512_reduce_max_ps((__m512)v); }

/* ---- for products with weights */

#define BYTE_DOTS
#define BYTE_TOKENS 4 /* 24 of 32 registers */

#define CODES_LESS 0
#ifdef __clang__
#define QUAD_LOOP
#else
#define QUAD_LOOP _Pragma("GCC unroll 4")
#endif
#define SUMS_APART true
#define FETCH_BYTES 64
#define FILL_FETCHES (VL / 2) /* as many again with products */

typedef const uint8_t *digit_pair;
static inline digit_pair load_digits(const uint8_t *p) { return p; }
static inline vi dot_bytes(vi sum, vi codes, digit_pair d, int dword) {
    int32_t four;
    __builtin_memcpy(&four, d + 4 * dword, sizeof four);
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, _mm512_set1_epi32(four));
}
static inline vi low_nibbles(vi v) { return v & 0x0f0f0f0f; }
static inline vi high_nibbles(vi v) { return (vi)_mm512_srli_epi32((__m512i)v, 4) & 0x0f0f0f0f; }
static inline vi nearest(vf v) { return (vi)_mm512_cvtps_epi32((__m512)v); }
static inline void put_digits(const vi *v, const uint8_t *places, uint8_t *to) {
    __m512i order = _mm512_maskz_loadu_epi32(0x0fff, places);
    _mm512_mask_storeu_epi32(to, 0x0fff, _mm512_xor_si512(_mm512_permutexvar_epi8(order, (__m512i)*v), _mm512_set1_epi8(-128)));
}

/* VPERMPS looks at the low 4 bits of an index. */
static inline vf lookup(vi codes) {
    return (vf)_mm512_permutexvar_ps((__m512i)codes, _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
}
static inline void transpose(vi m[VL]) {
    __m512i a[VL], b[VL];
    for (int i = 0; i < VL; i += 2) { /* dwords of two rows alternate */
        a[i] = _mm512_unpacklo_epi32((__m512i)m[i], (__m512i)m[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32((__m512i)m[i], (__m512i)m[i + 1]);
    }
    for (int i = 0; i < VL; i += 4) /* columns c, c + 4, c + 8, c + 12 of four rows, c = place in b */
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + j + 2]);
            b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + j + 2]);
        }
    for (int c = 0; c < 4; c++) {
        __m512i low01 = _mm512_shuffle_i32x4(b[c], b[c + 4], 0x44), low23 = _mm512_shuffle_i32x4(b[c + 8], b[c + 12], 0x44);
        __m512i high01 = _mm512_shuffle_i32x4(b[c], b[c + 4], 0xee), high23 = _mm512_shuffle_i32x4(b[c + 8], b[c + 12], 0xee);
        m[c] = (vi)_mm512_shuffle_i32x4(low01, low23, 0x88);
        m[c + 4] = (vi)_mm512_shuffle_i32x4(low01, low23, 0xdd);
        m[c + 8] = (vi)_mm512_shuffle_i32x4(high01, high23, 0x88);
        m[c + 12] = (vi)_mm512_shuffle_i32x4(high01, high23, 0xdd);
    }
}

/* Dwords of four registers, whose quarters are as many rows, turn around: m[d], quarter l: dword d of quarter l of each. */
static inline __attribute__((always_inline)) void turn_quarters(const __m512i v[4], __m512i m[4]) {
    __m512i low01 = _mm512_unpacklo_epi32(v[0], v[1]), high01 = _mm512_unpackhi_epi32(v[0], v[1]);
    __m512i low23 = _mm512_unpacklo_epi32(v[2], v[3]), high23 = _mm512_unpackhi_epi32(v[2], v[3]);
    m[0] = _mm512_unpacklo_epi64(low01, low23);
    m[1] = _mm512_unpackhi_epi64(low01, low23);
    m[2] = _mm512_unpacklo_epi64(high01, high23);
    m[3] = _mm512_unpackhi_epi64(high01, high23);
}
static inline __m512i load_16(const uint8_t *const *rows, size_t at) { /* of rows 0, 4, 8 and 12 */
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)(rows[0] + at)));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(rows[4] + at)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(rows[8] + at)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(rows[12] + at)), 3);
}
static inline __attribute__((always_inline)) void turn_16(const uint8_t *const rows[VL], size_t at, vi m[4]) {
    __m512i v[4], turned[4];
    for (int r = 0; r < 4; r++) v[r] = load_16(rows + r, at);
    turn_quarters(v, turned);
    for (int d = 0; d < 4; d++) m[d] = (vi)turned[d];
}
static inline __m512i load_32(const uint8_t *const *rows, size_t at) { /* of rows 0 and 4 */
    __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)(rows[0] + at)));
    return _mm512_inserti64x4(v, _mm256_loadu_si256((const __m256i *)(const void *)(rows[4] + at)), 1);
}
static inline __attribute__((always_inline)) void turn_32(const uint8_t *const rows[VL], size_t at, vi m[8]) {
    __m512i v[8], turned[8];
    for (int r = 0; r < 4; r++) v[r] = load_32(rows + r, at), v[4 + r] = load_32(rows + 8 + r, at);
    turn_quarters(v, turned);
    turn_quarters(v + 4, turned + 4);
    for (int d = 0; d < 4; d++) {
        m[d] = (vi)_mm512_shuffle_i32x4(turned[d], turned[4 + d], 0x88);
        m[4 + d] = (vi)_mm512_shuffle_i32x4(turned[d], turned[4 + d], 0xdd);
    }
}

static inline vf halves_to_floats(vi v) { return (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)v)); }

/* A register of bytes holds the halves of four blocks of 18 bytes, or of two of 34. */
static inline __attribute__((always_inline)) vf load_spaced_f16(const uint8_t *p, const int step) {
    const int some = step == 18 ? 4 : 2;
    __m512i places = step == 18 ? _mm512_set1_epi64(27ll << 48 | 18ll << 32 | 9 << 16) : _mm512_set1_epi32(17 << 16), halves = _mm512_setzero_si512();
    for (int i = 0; i < VL; i += some)
        halves = _mm512_mask_permutexvar_epi16(halves, (__mmask32)((1u << some) - 1) << i, places, _mm512_loadu_si512(p + i * step));
    return (vf)_mm512_cvtph_ps(_mm512_castsi512_si256(halves));
}

/* ---- attention over packed pages */

/* In each quarter: the sums of four registers' four lanes. */
static inline __m512 sum_quads(const vf *v) {
    __m512 a = (__m512)v[0], b = (__m512)v[1], c = (__m512)v[2], d = (__m512)v[3];
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512d low = _mm512_castps_pd(ab), high = _mm512_castps_pd(cd);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)), _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
}

static inline __m512 fold_quarters(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

static inline vf sum_registers(const vf *v) {
    return (vf)fold_quarters(fold_quarters(sum_quads(v), sum_quads(v + 4)),
                             fold_quarters(sum_quads(v + 8), sum_quads(v + 12)));
}

/* 16 codes, bytes of a quarter of `codes`, to floats. */
static inline void put_values(const float *levels, int bits, __m128i codes, __m512 scale, __m512 offset, int n,
                              float *out) {
    __m512i index = _mm512_cvtepu8_epi32(codes);
    __m512 level = bits <= 4 ? _mm512_permutexvar_ps(index, _mm512_loadu_ps(levels)) : _mm512_i32gather_ps(index, levels, 4);
    __mmask16 some = n < 16 ? (__mmask16)((1u << n) - 1) : (__mmask16)0xffff;
    _mm512_mask_storeu_ps(out, some, _mm512_fmadd_ps(level, scale, offset));
}

/* 64 codes at a time: VPERMB spreads runs of `bits` bytes, eight codes each, over eight bytes; VPMULTISHIFTQB brings
 * each code to a byte of its own. */
static void expand_codes(const uint8_t *stream, int bits, const float *levels, int n, float scale, float offset,
                         float *out) {
    __m512i in_word = _mm512_set1_epi64(0x0706050403020100), times = _mm512_set1_epi16((short)bits);
    __m512i word = _mm512_srlv_epi64(_mm512_set1_epi64(0x0706050403020100), /* byte 0: 0, 1, ... 7; to all bytes: */
                                     _mm512_setr_epi64(0, 8, 16, 24, 32, 40, 48, 56));
    word = _mm512_shuffle_epi8(word, _mm512_set_epi64(0x0808080808080808, 0, 0x0808080808080808, 0, 0x0808080808080808,
                                                      0, 0x0808080808080808, 0));
    __m512i spread = _mm512_add_epi8(_mm512_mullo_epi16(word, times), in_word); /* products below 64: bytes stay apart */
    __m512i shift = _mm512_mullo_epi16(in_word, times), mask = _mm512_set1_epi8((char)((1 << bits) - 1));
    __m512 s = _mm512_set1_ps(scale), o = _mm512_set1_ps(offset);
    for (int i = 0; i < n; i += 64, stream += 8 * bits, out += 64) {
        int count = n - i < 64 ? n - i : 64, bytes = (count * bits + 7) / 8;
        __mmask64 some = bytes < 64 ? ((__mmask64)1 << bytes) - 1 : ~(__mmask64)0;
        __m512i words = _mm512_permutexvar_epi8(spread, _mm512_maskz_loadu_epi8(some, stream));
        __m512i codes = _mm512_and_si512(_mm512_multishift_epi64_epi8(shift, words), mask);
        put_values(levels, bits, _mm512_castsi512_si128(codes), s, o, count, out);
        if (count > 16) put_values(levels, bits, _mm512_extracti32x4_epi32(codes, 1), s, o, count - 16, out + 16);
        if (count > 32) put_values(levels, bits, _mm512_extracti32x4_epi32(codes, 2), s, o, count - 32, out + 32);
        if (count > 48) put_values(levels, bits, _mm512_extracti32x4_epi32(codes, 3), s, o, count - 48, out + 48);
    }
}

#include "backend/cpu/page_dots_avx512.h"

/* ---- look-ups and sums of bytes for trellis codes */
#define VB 64
typedef uint8_t vb __attribute__((vector_size(VB)));
typedef __m512i byte_table, mix_table;
static inline byte_table load_table(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline vb look_up(byte_table table, vb index) { return (vb)_mm512_permutexvar_epi8((__m512i)index, table); }
static inline mix_table load_mix(const uint8_t *p) { return load_table(p); }
static inline vb look_up_mix(mix_table table, vb index) { return look_up(table, index); }
static inline vb choose_bits(uint8_t mask, vb a, vb b) {
    return (vb)_mm512_ternarylogic_epi32((__m512i)a, (__m512i)b, _mm512_set1_epi8((char)mask), 0xe4);
}
static inline vb exclusive_or_bits(vb a, vb b, uint8_t mask) {
    return (vb)_mm512_ternarylogic_epi32((__m512i)a, (__m512i)b, _mm512_set1_epi8((char)mask), 0x78);
}
static inline void next_lanes(vb v[1]) { v[0] = (vb)_mm512_alignr_epi32((__m512i)v[0], (__m512i)v[0], 15); }
static inline vb add_capped(vb a, vb b) { return (vb)_mm512_adds_epu8((__m512i)a, (__m512i)b); }
static inline vb min_u8(vb a, vb b) { return (vb)_mm512_min_epu8((__m512i)a, (__m512i)b); }
static inline vb distance_u8(vb a, vb b) {
    return (vb)_mm512_or_si512(_mm512_subs_epu8((__m512i)a, (__m512i)b), _mm512_subs_epu8((__m512i)b, (__m512i)a));
}

/* ---- and for codes of pairs */
typedef struct pair_table {
    __m512i low, high;
} pair_table;
static inline pair_table load_pairs(const uint8_t *p) { return (pair_table){load_table(p), load_table(p + 64)}; }
static inline vb look_up_pair(pair_table t, vb index) {
    return (vb)_mm512_permutex2var_epi8(t.low, (__m512i)index, t.high);
}
static inline void exchange_halves(vb *a, vb *b) {
    __m512i first = _mm512_shuffle_i64x2((__m512i)*a, (__m512i)*b, 0x44);
    *b = (vb)_mm512_shuffle_i64x2((__m512i)*a, (__m512i)*b, 0xee);
    *a = (vb)first;
}

#include "backend/cpu/kernels_body.h"
#include "backend/cpu/trellis_dots_avx512.h"

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("fma"); /* every processor with these has F16C */
}
