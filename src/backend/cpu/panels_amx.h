/* panels_amx.h: the codes of a page -> panels of tiles.  Included by kernels_amx.c.
 *
 * A vector of codes, looked up, is a row of a tile as TDPBSSD wants it: 16 keys x 4 dims, or 16 dims x 4 keys.  So a panel of bytes is
 * signed levels, vector after vector: a tile is 16 of them.
 *
 * A panel of halves has the levels as bf16, which holds -127..127 exactly: for TDPBF16PS, rows of pairs.  A vector is two rows then, a tile
 * 8 vectors, of keys or values from 32 dims or tokens.  Which two make a pair is chosen so that a look-up of high bytes, one of low ones
 * and few merges make the rows:
 *     keys    rows 2v, 2v + 1: dims 4v and 4v + 2, dims 4v + 1 and 4v + 3, of 16 keys
 *     values  row i < 16: tokens i and i + 16, of 16 dims */

/* Lines of a page to come, few at a time between other work: there are few places for lines that are on their way. */
enum { FETCHED = 4 }; /* with eight vectors */

typedef struct page_fetch {
    const uint8_t *at, *last;
} page_fetch;

static page_fetch fetch_of(const tq_planar_page *page) {
    return (page_fetch){page->block, page->block + page->block_bytes - 64};
}

INLINE void fetch_next(page_fetch *f) {
    __builtin_prefetch(f->at, 0, 2);
    f->at = f->at < f->last ? f->at + 64 : f->last;
}

/* ---- tables of a side */

enum { LEVEL_BYTES, KEY_HALVES, VALUE_HALVES }; /* forms of a panel */

/* Signed levels, or the high and the low bytes of their halves: by places in a byte (page_tables_of), or by turns of a trellis. */
typedef struct panel_tables {
    __m512i at[6], low[6];
    weave_tables weave; /* its mix */
} panel_tables;

static void split_levels(const uint8_t *levels, uint8_t *high, uint8_t *low) {
    for (int i = 0; i < 64; i++) {
        float level = (float)(levels[i] - 128);
        uint32_t bits;
        memcpy(&bits, &level, sizeof bits);
        high[i] = (uint8_t)(bits >> 24), low[i] = (uint8_t)(bits >> 16);
    }
}

INLINE page_tables tables_of_bits(const uint8_t *levels, int bits) {
    return bits == 2 ? page_tables_of(levels, 2) : bits == 3 ? page_tables_of(levels, 3) : page_tables_of(levels, 4);
}

static void make_tables(const tq_page_codes *side, bool halves, panel_tables *out) {
    uint8_t high[64], low[64];
    if (side->weave && side->bits == 2) load_weave(side->weave, 2, &out->weave);
    if (side->weave && side->bits == 3) load_weave(side->weave, 3, &out->weave);
    if (side->weave && side->bits == 4) load_weave(side->weave, 4, &out->weave);
    for (int turn = 0; side->weave && turn < tq_weave_turns(side->bits); turn++) {
        if (halves) split_levels(side->weave->levels[turn], high, low);
        out->at[turn] = halves ? _mm512_loadu_si512(high) : _mm512_xor_si512(out->weave.levels[turn], _mm512_set1_epi8(-128));
        out->low[turn] = halves ? _mm512_loadu_si512(low) : _mm512_setzero_si512();
    }
    if (side->weave || side->bits == 8) return;
    if (halves) split_levels(side->levels, high, low);
    page_tables first = tables_of_bits(halves ? high : side->levels, side->bits), second = tables_of_bits(halves ? low : side->levels, side->bits);
    for (int i = 0; i < 6; i++) {
        out->at[i] = halves ? first.at[i] : _mm512_xor_si512(first.at[i], _mm512_set1_epi8(-128));
        out->low[i] = second.at[i];
    }
}

/* ---- vectors of a panel */

typedef struct panel {
    uint8_t *to; /* of vector 0 */
    const panel_tables *t;
    __m512i even[4], odd[4]; /* values' halves of vectors 0 to 3, which wait for 4 to 7 */
} panel;

INLINE __m512i choose_words(__m512i low, __m512i high, const int mask) {
    return _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi32(mask), 0xe4); /* mask ? low : high */
}

/* The halves of bytes 0 and 2 of every dword of vector v, and of bytes 1 and 3. */
INLINE void put_words(panel *p, const int v, __m512i even, __m512i odd, const int form) {
    if (form == KEY_HALVES) {
        _mm512_store_si512(p->to + 128 * v, even);
        _mm512_store_si512(p->to + 128 * v + 64, odd);
    } else if (v % 8 < 4) {
        p->even[v % 4] = even, p->odd[v % 4] = odd;
    } else {
        uint8_t *to = p->to + v / 8 * 1024 + v % 4 * 256;
        __m512i e = p->even[v % 4], o = p->odd[v % 4];
        _mm512_store_si512(to, choose_words(e, _mm512_slli_epi32(even, 16), 0xffff));
        _mm512_store_si512(to + 64, choose_words(o, _mm512_slli_epi32(odd, 16), 0xffff));
        _mm512_store_si512(to + 128, choose_words(_mm512_srli_epi32(e, 16), even, 0xffff));
        _mm512_store_si512(to + 192, choose_words(_mm512_srli_epi32(o, 16), odd, 0xffff));
    }
}

/* Vector v, of which there are places in table `table`. */
INLINE void put_places(panel *p, const int v, const int table, __m512i places, const int form) {
    __m512i high = _mm512_permutexvar_epi8(places, p->t->at[table]);
    if (form == LEVEL_BYTES) {
        _mm512_store_si512(p->to + 64 * v, high);
        return;
    }
    __m512i low = _mm512_permutexvar_epi8(places, p->t->low[table]);
    put_words(p, v, choose_words(low, _mm512_slli_epi16(high, 8), 0x00ff00ff), choose_words(_mm512_srli_epi16(low, 8), high, 0x00ff00ff), form);
}

INLINE __m512i half_of(__m512i levels, const unsigned byte) {
    return (__m512i)_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(levels, 24 - 8 * byte), 24));
}

/* Vector v, of which there are levels + 128. */
INLINE void put_levels(panel *p, const int v, __m512i shifted, const int form) {
    __m512i levels = _mm512_xor_si512(shifted, _mm512_set1_epi8(-128));
    if (form == LEVEL_BYTES) _mm512_store_si512(p->to + 64 * v, levels);
    else
        put_words(p, v, choose_words(_mm512_srli_epi32(half_of(levels, 0), 16), half_of(levels, 2), 0xffff),
                  choose_words(_mm512_srli_epi32(half_of(levels, 1), 16), half_of(levels, 3), 0xffff), form);
}

INLINE size_t vector_bytes(const int form) { return form == LEVEL_BYTES ? 64 : 128; }

/* ---- planar codes */

INLINE void put_planes(panel *p, const int v, const int table, __m512i low, __m512i high, char mask, const int form) {
    put_places(p, v, table, _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi8(mask), 0xe4), form);
}

/* Four vectors of codes of 2 or 4 bits, from number v of a group on. */
INLINE void unpack_four(panel *p, const uint8_t *codes, const int v, const int bits, const int form) {
    __m512i a = _mm512_loadu_si512(codes), b = bits == 4 ? _mm512_loadu_si512(codes + 64) : a;
    put_places(p, v, 0, a, form);
    put_places(p, v + 1, 1, bits == 4 ? _mm512_srli_epi16(a, 2) : a, form);
    put_places(p, v + 2, bits == 4 ? 0 : 2, b, form);
    put_places(p, v + 3, bits == 4 ? 1 : 2, _mm512_srli_epi16(b, 2), form);
}

/* A tile. */
INLINE void unpack_planar(panel *p, const uint8_t *codes, int n_vectors, page_fetch *f, const int bits, const int form) {
    for (int v = 0; v < n_vectors; v += 8, p->to += 8 * vector_bytes(form), codes += 64 * bits) {
        bool whole = v + 8 <= n_vectors;
        UNROLL for (int i = 0; i < FETCHED; i++) fetch_next(f);
        if (bits == 3) {
            __m512i low = _mm512_loadu_si512(codes), high = _mm512_loadu_si512(codes + (whole ? 128 : 64));
            put_planes(p, 0, 0, low, _mm512_slli_epi16(high, 2), BITS01, form);
            put_planes(p, 1, 1, low, high, BITS23, form);
            put_planes(p, 2, 2, low, high, BITS45, form);
            put_planes(p, 3, 3, _mm512_srli_epi16(low, 2), high, BITS45, form);
            if (!whole) break;
            low = _mm512_loadu_si512(codes + 64);
            put_planes(p, 4, 4, low, high, BITS01, form);
            put_planes(p, 5, 5, low, high, BITS23, form);
            high = _mm512_srli_epi16(high, 4);
            put_planes(p, 6, 2, low, high, BITS45, form);
            put_planes(p, 7, 3, _mm512_srli_epi16(low, 2), high, BITS45, form);
        } else if (bits == 8) {
            UNROLL for (int i = 0; i < 4; i++) put_levels(p, i, _mm512_loadu_si512(codes + 64 * i), form);
            if (!whole) break;
            UNROLL for (int i = 4; i < 8; i++) put_levels(p, i, _mm512_loadu_si512(codes + 64 * i), form);
        } else {
            unpack_four(p, codes, 0, bits, form);
            if (!whole) break;
            unpack_four(p, codes + 32 * bits, 4, bits, form);
        }
    }
}

/* ---- woven codes (codec/trellis_weave.h) */

/* Two vectors of a strand, of 3 or 4 bits. */
INLINE void put_two(panel *first, panel *second, const int v1, const int v2, vb before, vb strand, const int bits, const int form) {
    vb places[2];
    weave_two_places(&first->t->weave, before, strand, places, bits);
    put_places(first, v1, 0, (__m512i)places[0], form);
    put_places(second, v2, 1, (__m512i)places[1], form);
}

INLINE vb put_four(panel *p, const int v, const uint8_t *codes, vb before, const int turn, const int form) {
    vb places[4], strand = load_b(codes);
    weave_four_places(&p->t->weave, before, strand, places, turn);
    UNROLL for (int i = 0; i < 4; i++) put_places(p, v + i, (turn + i) % 3, (__m512i)places[i], form);
    return weave_last(strand, turn);
}

/* A tile of keys. */
INLINE void unpack_woven_keys(panel *p, const tq_page_codes *side, const uint8_t *codes, page_fetch *f, const int bits, const int form) {
    int n = side->n_vectors;
    vb before = weave_key_begin(side->weave, codes, n, 0, bits);
    for (int v = 0; bits == 2 && v < n; v += 12, codes += 192, p->to += 12 * vector_bytes(form)) {
        UNROLL for (int i = 0; i < FETCHED; i++) fetch_next(f);
        before = put_four(p, 0, codes, before, 0, form);
        if (v + 4 >= n) break;
        before = put_four(p, 4, codes + 64, before, 1, form);
        if (v + 8 >= n) break;
        before = put_four(p, 8, codes + 128, before, 2, form);
    }
    for (int v = 0; bits > 2 && v < n; v += 8, codes += 64 * bits, p->to += 8 * vector_bytes(form)) {
        bool whole = v + 8 <= n;
        UNROLL for (int i = 0; i < 4; i++) {
            if (i == 2 && !whole) break;
            if (i < FETCHED) fetch_next(f);
            vb strand = bits == 4 ? load_b(codes + 64 * i) : weave_strand(codes, i, 0);
            put_two(p, p, 2 * i, 2 * i + 1, before, strand, bits, form);
            before = strand;
        }
    }
}

/* The tiles of values that share strands: two of 3 or 4 bits, a panel each. */
INLINE void unpack_woven_two(panel *p, const uint8_t *now, const uint8_t *past, page_fetch *f, const bool first, const int bits, const int form) {
    for (int v = 0; v < VALUE_VECTORS; v += 8) {
        UNROLL for (int i = 0; i < 8; i++) {
            if (i < 2 * FETCHED) fetch_next(f);
            const int four = i / 4 * 4;
            vb strand = value_strand(now, 0, v + four, i % 4, 0, bits), before = value_strand(past, 0, v + four, i % 4, 0, bits);
            if (first) next_lanes(&before);
            put_two(p, p + 1, i, i, before, strand, bits, form);
        }
        p[0].to += 8 * vector_bytes(form), p[1].to += 8 * vector_bytes(form);
    }
}

/* Four of 2 bits.  Turns are no constants here: tables come from L1. */
INLINE void unpack_woven_four(panel *p, const tq_page_codes *side, const uint8_t *now, const uint8_t *past, page_fetch *f, int step,
                              const int form) {
    byte_table begin = load_table(side->weave->begin[(side->n_tiles - 1) % 3]);
    int turn = step % 3, past_turn = step ? (step - 1) % 3 : (side->n_tiles / 4 - 1) % 3;
    for (int v = 0; v < VALUE_VECTORS; v += 8) {
        UNROLL for (int i = 0; i < 8; i++) {
            if (i < 4 * FETCHED) fetch_next(f);
            vb places[4], before = weave_last(load_b(past + 64 * (v + i)), past_turn);
            if (step == 0) {
                before = look_up(begin, before);
                next_lanes(&before);
            }
            weave_four_places(&p->t->weave, before, load_b(now + 64 * (v + i)), places, turn);
            UNROLL for (int j = 0; j < 4; j++) put_places(p + j, i, (turn + j) % 3, (__m512i)places[j], form);
        }
        for (int j = 0; j < 4; j++) p[j].to += 8 * vector_bytes(form);
    }
}

INLINE void unpack_woven_values(panel *p, const tq_page_codes *side, page_fetch *f, int step, const int bits, const int form) {
    const size_t bytes = (size_t)(VALUE_TILE * bits / 8 * tq_weave_codes(bits));
    int last = side->n_tiles / tq_weave_codes(bits) - 1;
    const uint8_t *now = side->codes + (size_t)step * bytes, *past = side->codes + (size_t)(step ? step - 1 : last) * bytes;
    if (bits == 2) unpack_woven_four(p, side, now, past, f, step, form);
    else if (step) unpack_woven_two(p, now, past, f, false, bits, form);
    else unpack_woven_two(p, now, past, f, true, bits, form);
}

/* ---- tiles of a side.  A function a width and form. */

/* `to`: of the first tile; others of woven values follow panel_bytes apart. */
typedef void unpack_fn(const tq_page_codes *side, int tile, const panel_tables *t, uint8_t *to, size_t panel_bytes, page_fetch *fetch);

/* What changes is in locals: stores of vectors may alias anything else, and everything would wait for them. */
#define UNPACK_FUNCTION(name, n_panels, ...)                                                                             \
    static __attribute__((noinline)) void name(const tq_page_codes *side, int tile, const panel_tables *t, uint8_t *to,   \
                                               size_t panel_bytes, page_fetch *fetch) {                                   \
        page_fetch f = *fetch;                                                                                            \
        panel p[n_panels];                                                                                                \
        for (int i = 0; i < n_panels; i++) p[i].to = to + (size_t)i * panel_bytes, p[i].t = t;                            \
        __VA_ARGS__;                                                                                                      \
        *fetch = f;                                                                                                       \
    }
#define UNPACK(bits, form)                                                                                               \
    UNPACK_FUNCTION(planar##bits##_##form, 1,                                                                            \
                    unpack_planar(p, side->codes + (size_t)tile * side->tile_bytes, side->n_vectors, &f, bits, form))
#define UNPACK_KEYS(bits, form)                                                                                          \
    UNPACK_FUNCTION(woven_keys##bits##_##form, 1,                                                                        \
                    unpack_woven_keys(p, side, side->codes + (size_t)tile * side->tile_bytes, &f, bits, form))
#define UNPACK_VALUES(bits, form)                                                                                        \
    UNPACK_FUNCTION(woven_values##bits##_##form, (bits == 2 ? 4 : 2),                                                    \
                    unpack_woven_values(p, side, &f, tile / tq_weave_codes(bits), bits, form))
UNPACK(2, LEVEL_BYTES) UNPACK(3, LEVEL_BYTES) UNPACK(4, LEVEL_BYTES) UNPACK(8, LEVEL_BYTES)
UNPACK(2, KEY_HALVES) UNPACK(3, KEY_HALVES) UNPACK(4, KEY_HALVES) UNPACK(8, KEY_HALVES)
UNPACK(2, VALUE_HALVES) UNPACK(3, VALUE_HALVES) UNPACK(4, VALUE_HALVES) UNPACK(8, VALUE_HALVES)
UNPACK_KEYS(2, LEVEL_BYTES) UNPACK_KEYS(3, LEVEL_BYTES) UNPACK_KEYS(4, LEVEL_BYTES)
UNPACK_KEYS(2, KEY_HALVES) UNPACK_KEYS(3, KEY_HALVES) UNPACK_KEYS(4, KEY_HALVES)
UNPACK_VALUES(2, LEVEL_BYTES) UNPACK_VALUES(3, LEVEL_BYTES) UNPACK_VALUES(4, LEVEL_BYTES)
UNPACK_VALUES(2, VALUE_HALVES) UNPACK_VALUES(3, VALUE_HALVES) UNPACK_VALUES(4, VALUE_HALVES)

/* Tiles from..to-1 -> their places in the panel, panel_bytes each, filled up with zeros.  `from` of woven values is a multiple of the
 * tiles that share strands, and whole runs of them are made. */
static void unpack_tiles(const tq_page_codes *side, const panel_tables *t, int from, int to, uint8_t *to_panel, size_t panel_bytes,
                         page_fetch *fetch, bool halves) {
    static unpack_fn *const planar[3][4] = {
        {planar2_LEVEL_BYTES, planar3_LEVEL_BYTES, planar4_LEVEL_BYTES, planar8_LEVEL_BYTES},
        {planar2_KEY_HALVES, planar3_KEY_HALVES, planar4_KEY_HALVES, planar8_KEY_HALVES},
        {planar2_VALUE_HALVES, planar3_VALUE_HALVES, planar4_VALUE_HALVES, planar8_VALUE_HALVES}};
    static unpack_fn *const woven[2][2][3] = {
        {{woven_keys2_LEVEL_BYTES, woven_keys3_LEVEL_BYTES, woven_keys4_LEVEL_BYTES}, {woven_keys2_KEY_HALVES, woven_keys3_KEY_HALVES, woven_keys4_KEY_HALVES}},
        {{woven_values2_LEVEL_BYTES, woven_values3_LEVEL_BYTES, woven_values4_LEVEL_BYTES},
         {woven_values2_VALUE_HALVES, woven_values3_VALUE_HALVES, woven_values4_VALUE_HALVES}}};
    int at_once = side->weave && side->values ? tq_weave_codes(side->bits) : 1;
    unpack_fn *unpack = side->weave ? woven[side->values][halves][side->bits - 2]
                                    : planar[!halves ? 0 : side->values ? 2 : 1][side->bits == 8 ? 3 : side->bits - 2];
    for (int tile = from; tile < to; tile += at_once) {
        unpack(side, tile, t, to_panel + (size_t)tile * panel_bytes, panel_bytes, fetch);
        for (size_t at = (size_t)side->n_vectors * (halves ? 128 : 64); at < panel_bytes; at += 64)
            _mm512_store_si512(to_panel + (size_t)tile * panel_bytes + at, _mm512_setzero_si512()); /* keys only: values fill theirs */
    }
}
