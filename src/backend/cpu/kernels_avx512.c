/* kernels_avx512.c: AVX-512 F, BW, DQ, VL, VBMI and VNNI (Ice Lake, Zen 4 and later). */
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

typedef int16_t vw __attribute__((vector_size(VL * 4)));

static inline vw load_words(const uint8_t *p) { return (vw)_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)p)); }
static inline vi pair_sums(vi sum, vw a, vw b) { return (vi)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b); }

/* One shuffle within 128-bit lanes of what every lane has loaded: two groups of 64, or four of 32. */
static inline vf spread_scales(const float *p, int lanes) {
    double two;
    __builtin_memcpy(&two, p, sizeof two);
    if (lanes == 8)
        return (vf)_mm512_permutevar_ps(_mm512_castpd_ps(_mm512_set1_pd(two)),
                                        _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0));
    return (vf)_mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(p)),
                                    _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0));
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

/* ---- attention over packed pages */

/* The table has 64 entries with the codes repeated, so VPERMB needs no mask: bits of an index above the code are other
 * codes' bits and select a copy of the same level. */
static inline void put_levels(uint8_t *dst, __m512i table, __m512i codes) {
    _mm512_storeu_si512(dst, _mm512_permutexvar_epi8(codes, table));
}

static void unpack_bits4(__m512i table, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    for (int v = 0; v < n_vectors; v += 2, tile += 64, dst += 128) {
        __m512i two = _mm512_loadu_si512(tile);
        put_levels(dst, table, two);
        put_levels(dst + 64, table, _mm512_srli_epi16(two, 4));
    }
}

static void unpack_bits2(__m512i table, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    for (int v = 0; v < n_vectors; v += 4, tile += 64, dst += 256) {
        __m512i all = _mm512_loadu_si512(tile);
        put_levels(dst, table, all);
        put_levels(dst + 64, table, _mm512_srli_epi16(all, 2));
        put_levels(dst + 128, table, _mm512_srli_epi16(all, 4));
        put_levels(dst + 192, table, _mm512_srli_epi16(all, 6));
    }
}


/* Four vectors of a 3-bit group: bits 0-1 of a code from the low plane, bit 2 from the high plane, merged by one
 * VPTERNLOG (mask ? low : high); what stands above bit 2 is ignored by the table. */
static inline void unpack_group3(__m512i table, const uint8_t *low_plane, __m512i high, int first, uint8_t *dst) {
    __m512i three = _mm512_set1_epi8(3), low = _mm512_loadu_si512(low_plane);
    for (int i = 0; i < 4; i++) {
        int bit = first + i;
        __m512i up = bit < 2 ? _mm512_slli_epi16(high, (unsigned)(2 - bit)) : _mm512_srli_epi16(high, (unsigned)(bit - 2));
        __m512i codes = _mm512_ternarylogic_epi32(_mm512_srli_epi16(low, (unsigned)(2 * i)), up, three, 0xe4);
        put_levels(dst + 64 * i, table, codes);
    }
}

static void unpack_bits3(__m512i table, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    int v = 0;
    for (; v + 8 <= n_vectors; v += 8, tile += 192, dst += 512) {
        __m512i high = _mm512_loadu_si512(tile + 128);
        unpack_group3(table, tile, high, 0, dst);
        unpack_group3(table, tile + 64, high, 4, dst + 256);
    }
    if (v < n_vectors) unpack_group3(table, tile, _mm512_loadu_si512(tile + 64), 0, dst);
}

static void unpack_tile(int bits, const uint8_t *levels, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    __m512i table = _mm512_loadu_si512(levels);
    switch (bits) {
    case 8: __builtin_memcpy(dst, tile, (size_t)n_vectors * 64); break;
    case 4: unpack_bits4(table, tile, n_vectors, dst); break;
    case 3: unpack_bits3(table, tile, n_vectors, dst); break;
    default: unpack_bits2(table, tile, n_vectors, dst);
    }
}

/* VPDPBUSD takes unsigned codes against the high and the low bytes of the query; the 128 of every code is taken off at
 * the end.  Sums wrap modulo 2^32 on the way and are exact there: |result| < 2^31 for up to 512 dims. */
static inline __attribute__((always_inline)) void dot_queries(const uint8_t *unpacked, int n_vectors,
                                                              const tq_int_vectors *q, int first, int32_t *out,
                                                              const int n_q) {
    __m512i high[8], low[8];
    const int8_t *q_high = q->high + (size_t)first * (size_t)q->stride, *q_low = q->low + (size_t)first * (size_t)q->stride;
    for (int i = 0; i < n_q; i++) high[i] = low[i] = _mm512_setzero_si512();
    for (int v = 0; v < n_vectors; v++) {
        __m512i codes = _mm512_loadu_si512(unpacked + 64 * v);
        for (int i = 0; i < n_q; i++) {
            int32_t four_high, four_low;
            __builtin_memcpy(&four_high, q_high + (size_t)i * (size_t)q->stride + 4 * v, 4);
            __builtin_memcpy(&four_low, q_low + (size_t)i * (size_t)q->stride + 4 * v, 4);
            high[i] = _mm512_dpbusd_epi32(high[i], codes, _mm512_set1_epi32(four_high));
            low[i] = _mm512_dpbusd_epi32(low[i], codes, _mm512_set1_epi32(four_low));
        }
    }
    for (int i = 0; i < n_q; i++) {
        __m512i offset = _mm512_set1_epi32((int32_t)((uint32_t)q->sum[first + i] * 128u));
        __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(high[i], 8), low[i]);
        _mm512_storeu_si512(out + 16 * i, _mm512_sub_epi32(sum, offset));
    }
}

static void dot_tile(const uint8_t *unpacked, int n_vectors, const tq_int_vectors *q, int first_q, int n_q,
                     int32_t *out) {
    for (; n_q >= 8; n_q -= 8, first_q += 8, out += 128) dot_queries(unpacked, n_vectors, q, first_q, out, 8);
    switch (n_q) {
    case 7: dot_queries(unpacked, n_vectors, q, first_q, out, 7); break;
    case 6: dot_queries(unpacked, n_vectors, q, first_q, out, 6); break;
    case 5: dot_queries(unpacked, n_vectors, q, first_q, out, 5); break;
    case 4: dot_queries(unpacked, n_vectors, q, first_q, out, 4); break;
    case 3: dot_queries(unpacked, n_vectors, q, first_q, out, 3); break;
    case 2: dot_queries(unpacked, n_vectors, q, first_q, out, 2); break;
    case 1: dot_queries(unpacked, n_vectors, q, first_q, out, 1); break;
    default: break;
    }
}

#include "backend/cpu/page_dots_avx512.h"

/* ---- look-ups and minimum for trellis codes */
#define VB 64
typedef uint8_t vb __attribute__((vector_size(VB)));
typedef __m512i byte_table, mix_table;
static inline byte_table load_table(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline vb look_up(byte_table table, vb index) { return (vb)_mm512_permutexvar_epi8((__m512i)index, table); }
static inline mix_table load_mix(const uint8_t *p) { return load_table(p); }
static inline vb look_up_mix(mix_table table, vb index) { return look_up(table, index); }
static inline vi min_i32(vi a, vi b) { return (vi)_mm512_min_epi32((__m512i)a, (__m512i)b); }

#include "backend/cpu/kernels_body.h"

static bool runs_here(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("fma"); /* every processor with these has F16C */
}

const tq_kernels tq_kernels_avx512 = KERNEL_TABLE("avx512", runs_here);
