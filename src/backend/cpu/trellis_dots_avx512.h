/* trellis_dots_avx512.h: page_dots of woven trellis codes (codec/trellis_weave.h), without leaving the registers.  Included by
 * pages_avx512.c.
 *
 * Two tiles at a time, as everywhere (page_dots_avx512.h).  Of keys they are two chains side by side; of values two steps of
 * the same chains.  A vector of levels costs two look-ups, one merge of what the codes before give with the code's own bits,
 * and every second time another merge that is the next state. */

/* 3 and 4 bits: a strand of each of two tiles of keys, which is two vectors. */
static inline __attribute__((always_inline)) void weave_key_strands(page_pass_state *s, const weave_tables *t, vb before[2],
                                                                    vb strand1, vb strand2, const int i, const int n_q,
                                                                    const int bits) {
    vb level1[2], level2[2];
    weave_two(t, before[0], strand1, level1, bits);
    weave_two(t, before[1], strand2, level2, bits);
    before[0] = strand1, before[1] = strand2;
    add_levels(s, 2 * i, (__m512i)level1[0], (__m512i)level2[0], n_q);
    add_levels(s, 2 * i + 1, (__m512i)level1[1], (__m512i)level2[1], n_q);
}

/* 3 bits: a group of `strands` strands, 4, or 2 in the last one. */
static inline __attribute__((always_inline)) void weave_keys3(page_pass_state *s, const weave_tables *t, vb before[2],
                                                              const uint8_t *group1, const uint8_t *group2,
                                                              int strands, const int n_q) {
    UNROLL for (int i = 0; i < 4; i++) {
        if (i == 2 && strands == 2) break;
        weave_key_strands(s, t, before, weave_strand(group1, i, 0), weave_strand(group2, i, 0), i, n_q, 3);
    }
}

/* 4 bits: four vectors. */
static inline __attribute__((always_inline)) void weave_keys4(page_pass_state *s, const weave_tables *t, vb before[2],
                                                              const uint8_t *tile1, const uint8_t *tile2, const int n_q) {
    UNROLL for (int i = 0; i < 2; i++)
        weave_key_strands(s, t, before, load_b(tile1 + 64 * i), load_b(tile2 + 64 * i), i, n_q, 4);
}

/* 2 bits: the same. */
static inline __attribute__((always_inline)) void weave_keys2(page_pass_state *s, const weave_tables *t, vb before[2],
                                                              const uint8_t *tile1, const uint8_t *tile2, const int turn,
                                                              const int n_q) {
    vb strand1 = load_b(tile1), strand2 = load_b(tile2), level1[4], level2[4];
    weave_four(t, before[0], strand1, level1, turn);
    weave_four(t, before[1], strand2, level2, turn);
    UNROLL for (int i = 0; i < 4; i++) add_levels(s, i, (__m512i)level1[i], (__m512i)level2[i], n_q);
    before[0] = weave_last(strand1, turn), before[1] = weave_last(strand2, turn);
}

static inline __attribute__((always_inline)) void dot_two_key_tiles(page_pass_state *s, const tq_trellis_weave *w,
                                                                    const weave_tables *t, const uint8_t *tile1,
                                                                    const uint8_t *tile2, int n_vectors, const int n_q,
                                                                    const int bits) {
    vb before[2] = {weave_key_begin(w, tile1, n_vectors, 0, bits), weave_key_begin(w, tile2, n_vectors, 0, bits)};
    int v = 0;
    if (bits == 3) {
        for (; v < n_vectors; v += 8, tile1 += 192, tile2 += 192, s->q += 32, s->levels += 1024)
            weave_keys3(s, t, before, tile1, tile2, n_vectors - v >= 8 ? 4 : 2, n_q);
    } else if (bits == 4) {
        for (; v < n_vectors; v += 4, tile1 += 128, tile2 += 128, s->q += 16, s->levels += 512)
            weave_keys4(s, t, before, tile1, tile2, n_q);
    } else {
        for (; v < n_vectors; v += 12, tile1 += 192, tile2 += 192) {
            weave_keys2(s, t, before, tile1, tile2, 0, n_q);
            s->q += 16, s->levels += 512;
            if (v + 4 >= n_vectors) break;
            weave_keys2(s, t, before, tile1 + 64, tile2 + 64, 1, n_q);
            s->q += 16, s->levels += 512;
            if (v + 8 >= n_vectors) break;
            weave_keys2(s, t, before, tile1 + 128, tile2 + 128, 2, n_q);
            s->q += 16, s->levels += 512;
        }
    }
}

/* Value tiles 2 s and 2 s + 1 at 3 and 4 bits.  now, past: their strands and those before them. */
static inline __attribute__((always_inline)) void weave_values(page_pass_state *s, const weave_tables *t, const uint8_t *now,
                                                               const uint8_t *past, bool first, const int n_q,
                                                               const int bits) {
    for (int v = 0; v < VALUE_VECTORS; v += 4, s->q += 16, s->levels += 512) {
        UNROLL for (int i = 0; i < 4; i++) {
            vb strand = value_strand(now, 0, v, i, 0, bits), before = value_strand(past, 0, v, i, 0, bits), level[2];
            if (first) next_lanes(&before);
            weave_two(t, before, strand, level, bits);
            add_levels(s, i, (__m512i)level[0], (__m512i)level[1], n_q);
        }
    }
}

/* 2 bits: two of the four tiles whose strands are `now`, from number `half` on, the first of them of `turn`; past_turn: of the
 * strands before.  Turns are no constants here: tables come from L1. */
static inline __attribute__((always_inline)) void weave_values2(page_pass_state *s, const weave_tables *t, byte_table begin,
                                                                const uint8_t *now, const uint8_t *past, bool first,
                                                                const int half, int turn, int past_turn, const int n_q) {
    for (int v = 0; v < VALUE_VECTORS; v += 4, s->q += 16, s->levels += 512) {
        UNROLL for (int i = 0; i < 4; i++) {
            vb level[4], before = weave_last(load_b(past + 64 * (v + i)), past_turn);
            if (first) {
                before = look_up(begin, before);
                next_lanes(&before);
            }
            weave_four(t, before, load_b(now + 64 * (v + i)), level, turn);
            add_levels(s, i, (__m512i)level[half], (__m512i)level[half + 1], n_q);
        }
    }
}

static inline __attribute__((always_inline)) void dot_two_value_tiles(page_pass_state *s, const tq_trellis_weave *w,
                                                                      const weave_tables *t, const uint8_t *codes, int tile,
                                                                      int n_tiles, const int n_q, const int bits) {
    const int at_once = tq_weave_codes(bits);
    const size_t bytes = (size_t)(VALUE_TILE * bits / 8 * at_once); /* of the tiles that share strands */
    int step = tile / at_once, last = n_tiles / at_once - 1;
    const uint8_t *now = codes + (size_t)step * bytes, *past = codes + (size_t)(step ? step - 1 : last) * bytes;
    if (bits != 2) {
        weave_values(s, t, now, past, step == 0, n_q, bits);
        return;
    }
    byte_table begin = load_table(w->begin[(n_tiles - 1) % 3]);
    int turn = step % 3, past_turn = step ? (step - 1) % 3 : last % 3;
    if (tile % 4) weave_values2(s, t, begin, now, past, step == 0, 2, turn, past_turn, n_q);
    else weave_values2(s, t, begin, now, past, step == 0, 0, turn, past_turn, n_q);
}

static inline __attribute__((always_inline)) void dot_woven_page(const tq_page_codes *side, const tq_int_vectors *q, int first,
                                                                 int32_t *dots, const int n_q, const int bits) {
    uint8_t levels[2 * 128 * 64] __attribute__((aligned(64)));
    weave_tables t;
    load_weave(side->weave, bits, &t);
    const int8_t *high = q->high + first * 2 * TQ_INT_STRIDE;
    size_t share = side->next_bytes / (size_t)side->n_tiles;
    for (int tile = 0; tile < side->n_tiles; tile += 2) {
        bool two = tile + 1 < side->n_tiles; /* the last of an odd number goes with itself */
        const uint8_t *tile1 = side->codes + (size_t)tile * side->tile_bytes, *tile2 = tile1 + (two ? side->tile_bytes : 0);
        const uint8_t *from = side->next_bytes ? side->next + share * (size_t)tile : side->codes;
        const uint8_t *last = side->next_bytes ? from + (two ? 2 : 1) * share : from;
        int32_t *to = dots + tile * TQ_PAGE_QUERIES * 16;
        page_pass_state s = {.q = high, .levels = levels, .fetch = from, .fetch_last = last};
        clear_sums(&s.sums, n_q);
        if (side->values) dot_two_value_tiles(&s, side->weave, &t, side->codes, tile, side->n_tiles, n_q, bits);
        else dot_two_key_tiles(&s, side->weave, &t, tile1, tile2, side->n_vectors, n_q, bits);
        add_low_bytes(&s, levels, levels + 64, 128, side->n_vectors, high + TQ_INT_STRIDE, q->sum + first, to,
                      to + (two ? TQ_PAGE_QUERIES * 16 : 0), n_q);
    }
}
