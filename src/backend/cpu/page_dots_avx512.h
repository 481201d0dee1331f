/* page_dots_avx512.h: codes of a page against eight queries, without leaving the registers.  Included by
 * kernels_avx512.h; pages_avx512.c has the functions.
 *
 * A look-up by VPERMB takes 6 bits of an index, a code has 2 to 4 of them: so a table may ignore the bits on either side
 * of the code, and a byte of several codes is shifted only where a code lies above bit 5.  Eight vectors of 3-bit codes
 * cost 4 shifts, 8 merges of the planes (VPTERNLOG) and 8 look-ups. */

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* Softmax weights, 128 too large, as VPDPBUSD wants them: high and low bytes, of which the low one is off by its sign bit. */
static inline __attribute__((always_inline)) void store_weights(const tq_int_vectors *w, int row, int at, vi shifted) {
    const __m512i bytes = _mm512_set_epi64(0, 0, 0, 0, 0x3d3935312d292521, 0x1d1915110d090501, 0x3c3834302c282420,
                                           0x1c1814100c080400);
    __m512i sorted = _mm512_permutexvar_epi8(bytes, (__m512i)shifted);
    __m128i low = _mm_xor_si128(_mm512_castsi512_si128(sorted), _mm_set1_epi8(-128));
    int8_t *to = w->high + row * 2 * TQ_INT_STRIDE + at;
    _mm_storeu_si128((__m128i *)(void *)(to + TQ_INT_STRIDE), low);
    _mm_storeu_si128((__m128i *)(void *)to, _mm512_extracti32x4_epi32(sorted, 1));
}
/* Sums wrap where a weight was not finite: not for _mm512_reduce_add_epi32, which ends in signed arithmetic. */
static inline int32_t sum_integers(vi v) {
    __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256((__m512i)v), _mm512_extracti64x4_epi64((__m512i)v, 1));
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

/* Of 64 indices: the level of the code whose low bits stand at `low` (as many as `mask` has) and whose bit 2, if there is
 * one, stands at `high`. */
static inline __m512i page_table(__m512i levels, unsigned low, int mask, int high) {
    const __m512i index = _mm512_set_epi64(0x3f3e3d3c3b3a3938, 0x3736353433323130, 0x2f2e2d2c2b2a2928, 0x2726252423222120,
                                           0x1f1e1d1c1b1a1918, 0x1716151413121110, 0x0f0e0d0c0b0a0908, 0x0706050403020100);
    __m512i code = _mm512_and_si512(_mm512_srli_epi16(index, low), _mm512_set1_epi8((char)mask));
    if (high >= 0) {
        __m512i up = _mm512_and_si512(_mm512_srli_epi16(index, (unsigned)high), _mm512_set1_epi8(1));
        code = _mm512_or_si512(code, _mm512_slli_epi16(up, 2));
    }
    return _mm512_permutexvar_epi8(code, levels);
}

typedef struct page_tables {
    __m512i at[6];
} page_tables;

static inline __attribute__((always_inline)) page_tables page_tables_of(const uint8_t *levels, const int bits) {
    __m512i all = _mm512_loadu_si512(levels);
    page_tables t;
    if (bits == 3) {
        static const int low[6] = {0, 2, 4, 4, 0, 2}, high[6] = {2, 1, 2, 3, 4, 5};
        for (int i = 0; i < 6; i++) t.at[i] = page_table(all, (unsigned)low[i], 3, high[i]);
    } else {
        int mask = (1 << bits) - 1;
        for (int i = 0; i < 3; i++) t.at[i] = page_table(all, 2 * (unsigned)i, mask, -1);
    }
    return t;
}

/* Two tiles share every load of a query: a broadcast costs as much as a product.  High bytes first, which leave the levels
 * of both tiles in L1 for the low ones. */
typedef struct page_sums {
    __m512i first[TQ_PAGE_QUERIES], second[TQ_PAGE_QUERIES];
} page_sums;

static inline __attribute__((always_inline)) void add_vectors(page_sums *s, __m512i first, __m512i second,
                                                              const int8_t *q, const int n_q) {
    UNROLL for (int i = 0; i < n_q; i++) {
        int32_t four;
        __builtin_memcpy(&four, q + i * 2 * TQ_INT_STRIDE, 4);
        __m512i places = _mm512_set1_epi32(four);
        __asm__("" : "+v"(places)); /* one register for both: clang would load it twice, as an operand, at half the speed */
        s->first[i] = _mm512_dpbusd_epi32(s->first[i], first, places);
        s->second[i] = _mm512_dpbusd_epi32(s->second[i], second, places);
    }
}

/* Where the levels of two tiles are put: vector v of both at 128 v. */
typedef struct page_pass_state {
    page_sums sums;
    const int8_t *q;
    uint8_t *levels;
    const uint8_t *fetch, *fetch_last;
} page_pass_state;

/* A line of the next page.  One at a time between products: there are few places for lines that are on their way, and
 * whoever asks for more waits. */
static inline __attribute__((always_inline)) void fetch_line(page_pass_state *s) {
    __builtin_prefetch(s->fetch, 0, 3);
    s->fetch += 64;
    if (s->fetch > s->fetch_last) s->fetch = s->fetch_last;
}

/* Levels of vector v, for the high bytes; kept for the low ones. */
static inline __attribute__((always_inline)) void add_levels(page_pass_state *s, int v, __m512i first, __m512i second,
                                                             const int n_q) {
    _mm512_store_si512(s->levels + 128 * v, first);
    _mm512_store_si512(s->levels + 128 * v + 64, second);
    add_vectors(&s->sums, first, second, s->q + 4 * v, n_q);
    if (v % 2) fetch_line(s);
}

static inline __attribute__((always_inline)) void add_codes(page_pass_state *s, int v, __m512i table, __m512i first,
                                                            __m512i second, const int n_q) {
    add_levels(s, v, _mm512_permutexvar_epi8(first, table), _mm512_permutexvar_epi8(second, table), n_q);
}

/* A low and a high plane of each tile; mask ? low : high. */
static inline __attribute__((always_inline)) void add_planes(page_pass_state *s, int v, __m512i table, __m512i low1,
                                                             __m512i high1, __m512i low2, __m512i high2, char mask,
                                                             const int n_q) {
    __m512i choice = _mm512_set1_epi8(mask);
    add_codes(s, v, table, _mm512_ternarylogic_epi32(low1, high1, choice, 0xe4),
              _mm512_ternarylogic_epi32(low2, high2, choice, 0xe4), n_q);
}

enum { BITS01 = 3, BITS23 = 12, BITS45 = 48 };

/* Vectors 0-3 of a group of 3-bit codes. */
static inline __attribute__((always_inline)) void add_group3_first(page_pass_state *s, const page_tables *t, __m512i low1,
                                                                   __m512i high1, __m512i low2, __m512i high2,
                                                                   const int n_q) {
    add_planes(s, 0, t->at[0], low1, _mm512_slli_epi16(high1, 2), low2, _mm512_slli_epi16(high2, 2), BITS01, n_q);
    add_planes(s, 1, t->at[1], low1, high1, low2, high2, BITS23, n_q);
    add_planes(s, 2, t->at[2], low1, high1, low2, high2, BITS45, n_q);
    add_planes(s, 3, t->at[3], _mm512_srli_epi16(low1, 2), high1, _mm512_srli_epi16(low2, 2), high2, BITS45, n_q);
}

static inline __attribute__((always_inline)) void add_group3(page_pass_state *s, const page_tables *t, const uint8_t *tile1,
                                                             const uint8_t *tile2, const int n_q) {
    __m512i high1 = _mm512_loadu_si512(tile1 + 128), high2 = _mm512_loadu_si512(tile2 + 128);
    add_group3_first(s, t, _mm512_loadu_si512(tile1), high1, _mm512_loadu_si512(tile2), high2, n_q);
    __m512i low1 = _mm512_loadu_si512(tile1 + 64), low2 = _mm512_loadu_si512(tile2 + 64);
    add_planes(s, 4, t->at[4], low1, high1, low2, high2, BITS01, n_q);
    add_planes(s, 5, t->at[5], low1, high1, low2, high2, BITS23, n_q);
    high1 = _mm512_srli_epi16(high1, 4), high2 = _mm512_srli_epi16(high2, 4);
    add_planes(s, 6, t->at[2], low1, high1, low2, high2, BITS45, n_q);
    add_planes(s, 7, t->at[3], _mm512_srli_epi16(low1, 2), high1, _mm512_srli_epi16(low2, 2), high2, BITS45, n_q);
}

/* Four vectors of codes that stand within a byte. */
static inline __attribute__((always_inline)) void add_group4(page_pass_state *s, const page_tables *t, const uint8_t *tile1,
                                                             const uint8_t *tile2, const int n_q, const int bits) {
    if (bits == 4) {
        UNROLL for (int v = 0; v < 4; v += 2) {
            __m512i two1 = _mm512_loadu_si512(tile1 + 32 * v), two2 = _mm512_loadu_si512(tile2 + 32 * v);
            add_codes(s, v, t->at[0], two1, two2, n_q);
            add_codes(s, v + 1, t->at[1], _mm512_srli_epi16(two1, 2), _mm512_srli_epi16(two2, 2), n_q);
        }
    } else {
        __m512i four1 = _mm512_loadu_si512(tile1), four2 = _mm512_loadu_si512(tile2);
        add_codes(s, 0, t->at[0], four1, four2, n_q);
        add_codes(s, 1, t->at[1], four1, four2, n_q);
        add_codes(s, 2, t->at[2], four1, four2, n_q);
        add_codes(s, 3, t->at[2], _mm512_srli_epi16(four1, 2), _mm512_srli_epi16(four2, 2), n_q);
    }
}

static inline __attribute__((always_inline)) void clear_sums(page_sums *sum, const int n_q) {
    UNROLL for (int i = 0; i < n_q; i++) sum->first[i] = sum->second[i] = _mm512_setzero_si512();
}

/* The sums of two tiles have the high bytes: the low ones, of levels that stand `step` bytes apart.  The 128 of every level is
 * taken off with the queries' sums; sums wrap modulo 2^32 on the way and are exact at the end: |result| < 2^31 for up to 512
 * places. */
static inline __attribute__((always_inline)) void add_low_bytes(page_pass_state *s, const uint8_t *first,
                                                                const uint8_t *second, int step, int n_vectors,
                                                                const int8_t *low, const int32_t *sums, int32_t *dots1,
                                                                int32_t *dots2, const int n_q) {
    page_sums *sum = &s->sums;
    UNROLL for (int i = 0; i < n_q; i++) {
        __m512i offset = _mm512_set1_epi32((int32_t)((uint32_t)sums[i] * 128u));
        sum->first[i] = _mm512_sub_epi32(_mm512_slli_epi32(sum->first[i], 8), offset);
        sum->second[i] = _mm512_sub_epi32(_mm512_slli_epi32(sum->second[i], 8), offset);
    }
    for (int v = 0; v < n_vectors; v++) {
        fetch_line(s);
        add_vectors(sum, _mm512_loadu_si512(first + step * v), _mm512_loadu_si512(second + step * v), low + 4 * v, n_q);
    }
    UNROLL for (int i = 0; i < n_q; i++) {
        _mm512_storeu_si512(dots1 + 16 * i, sum->first[i]);
        _mm512_storeu_si512(dots2 + 16 * i, sum->second[i]);
    }
}

/* Two tiles of n_vectors (a multiple of 4). */
static inline __attribute__((always_inline)) void dot_two_tiles(const uint8_t *tile1, const uint8_t *tile2, int n_vectors,
                                                                const page_tables *t, uint8_t *levels,
                                                                const uint8_t *fetch, const uint8_t *fetch_last,
                                                                const int8_t *high, const int8_t *low,
                                                                const int32_t *sums, int32_t *dots1, int32_t *dots2,
                                                                const int n_q, const int bits) {
    page_pass_state s = {.q = high, .levels = levels, .fetch = fetch, .fetch_last = fetch_last};
    clear_sums(&s.sums, n_q);
    int v = 0;
    if (bits == 3) {
        for (; v + 8 <= n_vectors; v += 8, tile1 += 192, tile2 += 192, s.q += 32, s.levels += 1024)
            add_group3(&s, t, tile1, tile2, n_q);
        if (v < n_vectors)
            add_group3_first(&s, t, _mm512_loadu_si512(tile1), _mm512_loadu_si512(tile1 + 64), _mm512_loadu_si512(tile2),
                             _mm512_loadu_si512(tile2 + 64), n_q);
    } else if (bits == 8) {
        for (; v < n_vectors; v++) {
            fetch_line(&s);
            add_vectors(&s.sums, _mm512_loadu_si512(tile1 + 64 * v), _mm512_loadu_si512(tile2 + 64 * v), high + 4 * v, n_q);
        }
    } else {
        for (; v < n_vectors; v += 4, tile1 += 32 * bits, tile2 += 32 * bits, s.q += 16, s.levels += 512)
            add_group4(&s, t, tile1, tile2, n_q, bits);
    }
    if (bits == 8) add_low_bytes(&s, tile1, tile2, 64, n_vectors, low, sums, dots1, dots2, n_q);
    else add_low_bytes(&s, levels, levels + 64, 128, n_vectors, low, sums, dots1, dots2, n_q);
}

static inline __attribute__((always_inline)) void dot_page(const tq_page_codes *side, const tq_int_vectors *q, int first,
                                                           int32_t *dots, const int n_q, const int bits) {
    uint8_t levels[2 * 128 * 64] __attribute__((aligned(64)));
    page_tables t = page_tables_of(side->levels, bits);
    const int8_t *high = q->high + first * 2 * TQ_INT_STRIDE, *low = high + TQ_INT_STRIDE;
    size_t share = side->next_bytes / (size_t)side->n_tiles;
    for (int tile = 0; tile < side->n_tiles; tile += 2) {
        size_t at = (size_t)tile * side->tile_bytes;
        bool two = tile + 1 < side->n_tiles; /* the last of an odd number goes with itself */
        const uint8_t *from = side->next_bytes ? side->next + share * (size_t)tile : side->codes;
        const uint8_t *last = side->next_bytes ? from + (two ? 2 : 1) * share : from;
        int32_t *to = dots + tile * TQ_PAGE_QUERIES * 16;
        dot_two_tiles(side->codes + at, side->codes + at + (two ? side->tile_bytes : 0), side->n_vectors, &t, levels, from,
                      last, high, low, q->sum + first, to, to + (two ? TQ_PAGE_QUERIES * 16 : 0), n_q, bits);
    }
}
