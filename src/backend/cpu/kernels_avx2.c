/* kernels_avx2.c: AVX2 + FMA + F16C (Haswell, Zen and later). */
#define VL 8
#define GEMM_TOKENS 6
#define GEMM_STEP 2
#define SUM_COLUMNS 2

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/kernels.h"

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));

static inline vi load_u8(const uint8_t *p) { return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
static inline vi load_u16(const uint16_t *p) { return (vi)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)); }
static inline __m128i narrow_i16(vi v) {
    return _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
}
static inline void store_i16(int16_t *p, vi v) { _mm_storeu_si128((__m128i *)p, narrow_i16(v)); }
static inline void store_i8(int8_t *p, vi v) {
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(narrow_i16(v), _mm_setzero_si128()));
}
static inline vf load_f16(const uint16_t *p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

static inline float sum_lanes(vf v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

static inline vf max_vf(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }

static inline vf max_magnitude(vf a, vf b) { return max_vf((vf)((vi)a & 0x7fffffff), (vf)((vi)b & 0x7fffffff)); }

static inline float max_lanes(vf v) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

/* ---- for products with weights */

typedef int16_t vw __attribute__((vector_size(VL * 4)));

static inline vw load_words(const uint8_t *p) { return (vw)_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)); }
static inline vi pair_sums(vi sum, vw a, vw b) { return sum + (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b); }

/* lanes is 4: two groups of 32 in a register of codes. */
static inline vf spread_scales(const float *p, int lanes) {
    (void)lanes;
    __m128 two = _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(const void *)p));
    return (vf)_mm256_set_m128(_mm_shuffle_ps(two, two, 0x55), _mm_shuffle_ps(two, two, 0));
}

static inline vf lookup(vi codes) { return __builtin_convertvector(codes & 15, vf); }
static inline void transpose(vi m[VL]) {
    __m256i a[VL], b[VL];
    for (int i = 0; i < VL; i += 2) { /* dwords of two rows alternate */
        a[i] = _mm256_unpacklo_epi32((__m256i)m[i], (__m256i)m[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32((__m256i)m[i], (__m256i)m[i + 1]);
    }
    for (int i = 0; i < VL; i += 4) /* columns c and c + 4 of four rows, c = place in b */
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = _mm256_unpacklo_epi64(a[i + j], a[i + j + 2]);
            b[i + 2 * j + 1] = _mm256_unpackhi_epi64(a[i + j], a[i + j + 2]);
        }
    for (int c = 0; c < 4; c++) {
        m[c] = (vi)_mm256_permute2x128_si256(b[c], b[c + 4], 0x20);
        m[c + 4] = (vi)_mm256_permute2x128_si256(b[c], b[c + 4], 0x31);
    }
}

/* ---- attention over packed pages */

/* In each half: the sums of four registers' four lanes. */
static inline __m256 sum_quads(const vf *v) {
    __m256 a = (__m256)v[0], b = (__m256)v[1], c = (__m256)v[2], d = (__m256)v[3];
    return _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
}

static inline vf sum_registers(const vf *v) {
    __m256 first = sum_quads(v), second = sum_quads(v + 4);
    return (vf)_mm256_add_ps(_mm256_permute2f128_ps(first, second, 0x20),
                             _mm256_permute2f128_ps(first, second, 0x31));
}

/* Levels of eight codes: one or two tables of eight in a register, or a gather. */
static inline __m256 look_up_floats(const float *levels, int bits, __m256i codes) {
    if (bits > 4) return _mm256_i32gather_ps(levels, codes, 4);
    __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(levels), codes);
    if (bits < 4) return low;
    __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(levels + 8), codes);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28))); /* bit 3 is the sign now */
}

/* Eight codes are at most eight bytes: one VPSHUFB brings each code's two bytes to its lane, one shift its bits to 0. */
static void expand_codes(const uint8_t *stream, int bits, const float *levels, int n, float scale, float offset,
                         float *out) {
    __m256i at = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(bits));
    __m256i byte = _mm256_srli_epi32(at, 3), shift = _mm256_and_si256(at, _mm256_set1_epi32(7));
    /* bytes byte, byte + 1 and two zeros; byte + 1 may be 8, the zero above the word */
    __m256i twice = _mm256_mullo_epi32(byte, _mm256_set1_epi32(0x101));
    __m256i pick = _mm256_add_epi32(twice, _mm256_set1_epi32((int)0x80800100));
    __m256i mask = _mm256_set1_epi32((1 << bits) - 1);
    __m256 s = _mm256_set1_ps(scale), o = _mm256_set1_ps(offset);
    for (int i = 0; i < n; i += 8, stream += bits, out += 8) {
        int count = n - i < 8 ? n - i : 8;
        uint64_t word = 0;
        __builtin_memcpy(&word, stream, (size_t)(count * bits + 7) / 8);
        __m256i codes = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_cvtsi64_si128((int64_t)word)), pick);
        codes = _mm256_and_si256(_mm256_srlv_epi32(codes, shift), mask);
        __m256 x = _mm256_fmadd_ps(look_up_floats(levels, bits, codes), s, o);
        if (count == 8) {
            _mm256_storeu_ps(out, x);
        } else {
            float last[8];
            _mm256_storeu_ps(last, x);
            __builtin_memcpy(out, last, (size_t)count * sizeof *out);
        }
    }
}

/* 32 codes -> level + 128.  VPSHUFB looks at bits 0-3 and 7 of an index. */
static inline void put_levels(uint8_t *dst, __m256i table, __m256i codes) {
    _mm256_storeu_si256((__m256i *)dst, _mm256_shuffle_epi8(table, codes));
}

static void unpack_tile(int bits, const uint8_t *levels, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)levels));
    __m256i three = _mm256_set1_epi8(3), fifteen = _mm256_set1_epi8(15), four = _mm256_set1_epi8(4);
    for (int v = 0; v < n_vectors; v++)
        for (int half = 0; half < 64; half += 32, dst += 32) {
            if (bits == 8) {
                _mm256_storeu_si256((__m256i *)dst, _mm256_loadu_si256((const __m256i *)(tile + v * 64 + half)));
            } else if (bits == 4) {
                __m256i two = _mm256_loadu_si256((const __m256i *)(tile + v / 2 * 64 + half));
                put_levels(dst, table, _mm256_and_si256(_mm256_srli_epi16(two, v % 2 * 4), fifteen));
            } else if (bits == 2) {
                __m256i all = _mm256_loadu_si256((const __m256i *)(tile + v / 4 * 64 + half));
                put_levels(dst, table, _mm256_and_si256(_mm256_srli_epi16(all, v % 4 * 2), three));
            } else {
                const uint8_t *group = tile + v / 8 * 192;
                const uint8_t *high_plane = group + (v / 8 * 8 + 8 <= n_vectors ? 128 : 64);
                __m256i low = _mm256_loadu_si256((const __m256i *)(group + v % 8 / 4 * 64 + half));
                __m256i high = _mm256_loadu_si256((const __m256i *)(high_plane + half));
                low = _mm256_and_si256(_mm256_srli_epi16(low, v % 4 * 2), three);
                high = v % 8 < 2 ? _mm256_slli_epi16(high, 2 - v % 8) : _mm256_srli_epi16(high, v % 8 - 2);
                put_levels(dst, table, _mm256_or_si256(low, _mm256_and_si256(high, four)));
            }
        }
}

/* Codes widen to 16 bits, in pairs of a lane's first two and last two, and meet 16-bit queries in VPMADDWD; a broadcast
 * serves 16 lanes.  The 128 of every level is taken off at the end; sums wrap modulo 2^32 on the way and are exact then. */
static inline __attribute__((always_inline)) void dot_queries(const uint8_t *unpacked, int n_vectors,
                                                              const tq_int_vectors *q, int first, int32_t *out,
                                                              const int n_q) {
    const __m256i front = _mm256_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1, 0, -1, 1, -1, 4, -1, 5,
                                           -1, 8, -1, 9, -1, 12, -1, 13, -1);
    const int16_t *wide = q->wide + (size_t)first * (size_t)q->stride;
    const ptrdiff_t stride = q->stride;
    __m256i sum[4][2];
    for (int i = 0; i < n_q; i++) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    for (int v = 0; v < n_vectors; v++) {
        __m256i codes0 = _mm256_loadu_si256((const __m256i *)(const void *)(unpacked + 64 * v));
        __m256i codes1 = _mm256_loadu_si256((const __m256i *)(const void *)(unpacked + 64 * v + 32));
        __m256i front0 = _mm256_shuffle_epi8(codes0, front), front1 = _mm256_shuffle_epi8(codes1, front);
        __m256i back0 = _mm256_shuffle_epi8(_mm256_srli_epi32(codes0, 16), front);
        __m256i back1 = _mm256_shuffle_epi8(_mm256_srli_epi32(codes1, 16), front);
        for (int i = 0; i < n_q; i++) {
            int32_t two, other_two;
            __builtin_memcpy(&two, wide + i * stride + 4 * v, sizeof two);
            __builtin_memcpy(&other_two, wide + i * stride + 4 * v + 2, sizeof other_two);
            __m256i a = _mm256_set1_epi32(two), b = _mm256_set1_epi32(other_two);
            sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(front0, a));
            sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(front1, a));
            __asm__("" : "+x"(sum[i][0]), "+x"(sum[i][1])); /* in this order: GCC runs out of registers in another */
            sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(back0, b));
            sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(back1, b));
            __asm__("" : "+x"(sum[i][0]), "+x"(sum[i][1]));
        }
    }
    for (int i = 0; i < n_q; i++) {
        __m256i offset = _mm256_set1_epi32((int32_t)((uint32_t)q->sum[first + i] * 128u));
        _mm256_storeu_si256((__m256i *)(void *)(out + 16 * i), _mm256_sub_epi32(sum[i][0], offset));
        _mm256_storeu_si256((__m256i *)(void *)(out + 16 * i + 8), _mm256_sub_epi32(sum[i][1], offset));
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

/* ---- look-ups and sums of bytes for trellis codes.  VPSHUFB looks up 16 entries by bits 0-3: four of them and bits 4 and 5
 * choose among 64; a linear table is the sum of its 16 first entries and its 4 multiples of 16. */
#define VB 32
typedef uint8_t vb __attribute__((vector_size(VB)));
typedef struct byte_table {
    __m256i part[4];
} byte_table;
typedef struct mix_table {
    __m256i low, high;
} mix_table;
static inline byte_table load_table(const uint8_t *p) {
    byte_table t;
    for (int i = 0; i < 4; i++) t.part[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(p + 16 * i)));
    return t;
}
static inline vb look_up(byte_table t, vb index) {
    __m256i i = (__m256i)index, bit4 = _mm256_slli_epi16(i, 3), bit5 = _mm256_slli_epi16(i, 2); /* to bit 7 */
    __m256i a = _mm256_blendv_epi8(_mm256_shuffle_epi8(t.part[0], i), _mm256_shuffle_epi8(t.part[1], i), bit4);
    __m256i b = _mm256_blendv_epi8(_mm256_shuffle_epi8(t.part[2], i), _mm256_shuffle_epi8(t.part[3], i), bit4);
    return (vb)_mm256_blendv_epi8(a, b, bit5);
}
static inline mix_table load_mix(const uint8_t *p) {
    return (mix_table){_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p)),
                       _mm256_setr_epi8((char)p[0], (char)p[16], (char)p[32], (char)p[48], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                        0, (char)p[0], (char)p[16], (char)p[32], (char)p[48], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                        0, 0)};
}
static inline vb look_up_mix(mix_table t, vb index) {
    __m256i i = (__m256i)index, low = _mm256_and_si256(i, _mm256_set1_epi8(15));
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(i, 4), _mm256_set1_epi8(3));
    return (vb)_mm256_xor_si256(_mm256_shuffle_epi8(t.low, low), _mm256_shuffle_epi8(t.high, high));
}
static inline vb choose_bits(uint8_t mask, vb a, vb b) { return (a & mask) | (b & (uint8_t)~mask); }
static inline vb exclusive_or_bits(vb a, vb b, uint8_t mask) { return a ^ (b & mask); }
static inline void next_lanes(vb v[2]) {
    const __m256i around = _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6);
    __m256i a = _mm256_permutevar8x32_epi32((__m256i)v[0], around), b = _mm256_permutevar8x32_epi32((__m256i)v[1], around);
    v[0] = (vb)_mm256_blend_epi32(a, b, 1), v[1] = (vb)_mm256_blend_epi32(b, a, 1);
}
static inline vb add_capped(vb a, vb b) { return (vb)_mm256_adds_epu8((__m256i)a, (__m256i)b); }
static inline vb min_u8(vb a, vb b) { return (vb)_mm256_min_epu8((__m256i)a, (__m256i)b); }
static inline vb distance_u8(vb a, vb b) {
    return (vb)_mm256_or_si256(_mm256_subs_epu8((__m256i)a, (__m256i)b), _mm256_subs_epu8((__m256i)b, (__m256i)a));
}

/* ---- and for codes of pairs: bit 6 chooses among two tables */
typedef struct pair_table {
    byte_table half[2];
} pair_table;
static inline pair_table load_pairs(const uint8_t *p) { return (pair_table){{load_table(p), load_table(p + 64)}}; }
static inline vb look_up_pair(pair_table t, vb index) {
    __m256i bit6 = _mm256_slli_epi16((__m256i)index, 1); /* to bit 7 */
    return (vb)_mm256_blendv_epi8((__m256i)look_up(t.half[0], index), (__m256i)look_up(t.half[1], index), bit6);
}
#define exchange_halves(a, b) ((void)0) /* registers are halves */

#include "backend/cpu/kernels_body.h"

static bool runs_here(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); /* every processor with both has F16C */
}

const tq_kernels tq_kernels_avx2 = KERNEL_TABLE("avx2", runs_here);
