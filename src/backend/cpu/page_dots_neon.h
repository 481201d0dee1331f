/* page_dots_neon.h: codes of a page against queries in signed bytes, by SDOT.  Included by kernels_neon_dotprod.c.
 *
 * A register of levels has four places of four lanes; SDOT by lane meets it with four places of a query.  So one load of a
 * query's bytes, high or low, serves four vectors.  Sums of high and of low bytes stay apart to the end. */

/* Softmax weights, 128 too large: high bytes as they are, low ones off by their sign bit. */
static inline void store_weights(const tq_int_vectors *w, int row, int at, vi shifted) {
    static const uint8_t order[16] = {1, 5, 9, 13, 0, 4, 8, 12, 16, 16, 16, 16, 16, 16, 16, 16}; /* 16: none */
    uint8x16_t sorted = vqtbl1q_u8((uint8x16_t)shifted, vld1q_u8(order));
    uint32x4_t bytes = vreinterpretq_u32_u8(veorq_u8(sorted, vreinterpretq_u8_u64(vdupq_n_u64(0x8080808000000000))));
    uint8_t *to = (uint8_t *)w->high + row * 2 * TQ_INT_STRIDE + at;
    uint32_t high = vgetq_lane_u32(bytes, 0), low = vgetq_lane_u32(bytes, 1);
    __builtin_memcpy(to, &high, sizeof high);
    __builtin_memcpy(to + TQ_INT_STRIDE, &low, sizeof low);
}
static inline int32_t sum_integers(vi v) { return (int32_t)vaddvq_u32((uint32x4_t)v); }

/* sum[l] + the four places `quad` of q times those of lane l */
static inline __attribute__((always_inline)) int32x4_t dot_lane(int32x4_t sum, int8x16_t levels, int8x16_t q, const int quad) {
    return quad == 0   ? vdotq_laneq_s32(sum, levels, q, 0)
           : quad == 1 ? vdotq_laneq_s32(sum, levels, q, 1)
           : quad == 2 ? vdotq_laneq_s32(sum, levels, q, 2)
                       : vdotq_laneq_s32(sum, levels, q, 3);
}

/* n_q queries against n_r registers of each vector, from lane 4 r0 on.  raised: levels are 128 too large, and vectors stand one
 * after the other; else their first registers do, then their second ones. */
static inline __attribute__((always_inline)) void dot_registers(const uint8_t *levels, int n_vectors, const tq_int_vectors *q,
                                                                int first, int32_t *out, int r0, const int n_q, const int n_r,
                                                                const bool raised) {
    int32x4_t high[4][4], low[4][4];
    const int8_t *bytes = q->high + (size_t)first * 2 * (size_t)q->stride;
    for (int i = 0; i < n_q; i++)
        for (int r = 0; r < n_r; r++) high[i][r] = low[i][r] = vdupq_n_s32(0);
    const size_t part_step = raised ? 16 : 16 * (size_t)n_vectors;
    levels += part_step * (size_t)r0;
    for (int v = 0; v < n_vectors; v += 4, bytes += 16) {
        int8x16_t q_high[4], q_low[4];
        for (int i = 0; i < n_q; i++) {
            q_high[i] = vld1q_s8(bytes + (size_t)(2 * i) * (size_t)q->stride);
            q_low[i] = vld1q_s8(bytes + (size_t)(2 * i + 1) * (size_t)q->stride);
        }
        for (int quad = 0; quad < 4; quad++, levels += raised ? 64 : 16)
            for (int r = 0; r < n_r; r++) {
                uint8x16_t all = vld1q_u8(levels + part_step * (size_t)r);
                int8x16_t level = vreinterpretq_s8_u8(raised ? veorq_u8(all, vdupq_n_u8(128)) : all);
                for (int i = 0; i < n_q; i++) {
                    high[i][r] = dot_lane(high[i][r], level, q_high[i], quad);
                    low[i][r] = dot_lane(low[i][r], level, q_low[i], quad);
                }
            }
    }
    for (int i = 0; i < n_q; i++)
        for (int r = 0; r < n_r; r++) { /* may wrap on the way */
            vi sum = (vi)(((uint32x4_t)high[i][r] << 8) + (uint32x4_t)low[i][r]);
            vst1q_s32(out + 16 * i + 4 * (r0 + r), (int32x4_t)sum);
        }
}

/* 16 sums of 32 registers, whatever the number of queries. */
#define DOT_QUERIES(n, name, raised)                                                                                    \
    static __attribute__((noinline)) void name##n(const uint8_t *levels, int n_vectors, const tq_int_vectors *q, int first, \
                                                  int32_t *out) {                                                      \
        const int n_r = n > 2 ? 2 : 4;                                                                                  \
        for (int r = 0; r < 4; r += n_r) dot_registers(levels, n_vectors, q, first, out, r, n, n_r, raised);            \
    }
DOT_QUERIES(1, dot_levels, false)
DOT_QUERIES(2, dot_levels, false)
DOT_QUERIES(3, dot_levels, false)
DOT_QUERIES(4, dot_levels, false)
DOT_QUERIES(1, dot_raised, true)
DOT_QUERIES(2, dot_raised, true)
DOT_QUERIES(3, dot_raised, true)
DOT_QUERIES(4, dot_raised, true)

static __attribute__((noinline)) void unpack_signed(int bits, uint8x16_t table, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    size_t part_step = 16 * (size_t)n_vectors;
    switch (bits) {
    case 2: unpack_codes(2, table, tile, n_vectors, dst, 16, part_step); break;
    case 3: unpack_codes(3, table, tile, n_vectors, dst, 16, part_step); break;
    default: unpack_codes(4, table, tile, n_vectors, dst, 16, part_step);
    }
}

static void page_dots(const tq_page_codes *side, const tq_int_vectors *q, int first_q, int n_q, int32_t *dots) {
    static void (*const all[2][4])(const uint8_t *, int, const tq_int_vectors *, int, int32_t *) = {
        {dot_levels1, dot_levels2, dot_levels3, dot_levels4}, {dot_raised1, dot_raised2, dot_raised3, dot_raised4}};
    uint8_t unpacked[128 * 64] __attribute__((aligned(64)));
    const bool raised = side->bits == 8;
    uint8x16_t table = veorq_u8(vld1q_u8(side->levels), vdupq_n_u8(128)); /* signed levels */
    size_t share = side->next_bytes / (size_t)side->n_tiles; /* of the next page, fetched with each tile */
    for (int t = 0; t < side->n_tiles; t++, dots += TQ_PAGE_QUERIES * 16) {
        for (size_t at = 0; at < share; at += 64) __builtin_prefetch(side->next + (size_t)t * share + at, 0, 3);
        const uint8_t *levels = side->codes + (size_t)t * side->tile_bytes;
        if (!raised) {
            unpack_signed(side->bits, table, levels, side->n_vectors, unpacked);
            levels = unpacked;
        }
        for (int i = 0, n; i < n_q; i += n) { /* five are three and two: loads of levels are shared evenly */
            n = n_q - i <= 4 ? n_q - i : n_q - i < 8 ? (n_q - i + 1) / 2 : 4;
            all[raised][n - 1](levels, side->n_vectors, q, first_q + i, dots + 16 * i);
        }
    }
}

#undef DOT_QUERIES
