/* attend_page_amx.h: a whole page against any number of query rows with tiles.  Included by kernels_amx.c.
 *
 * A vector of a page's codes, looked up, is a row of a tile as TDPBSSD wants it: 16 keys x 4 dims, or 16 dims x 4 keys.  So
 * both sides are unpacked once, into panels of signed levels, and every eight query rows are one operand: their high and low
 * bytes in turn, sixteen rows.
 *
 * The softmax is relative to a power of two near the largest score that a row has met in its first page; only a page with
 * scores much larger moves it.  So no page waits for its own maximum, and what was gathered before is rarely scaled. */

/* ---- tiles: 0 to 3 are sums, 4 the rows of integers, 6 and 7 levels */

typedef struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;

static void begin_pages(int n_rows) {
    tile_shapes shapes = {.palette = 1};
    uint8_t rows = n_rows < TQ_PAGE_QUERIES ? (uint8_t)(2 * n_rows) : 16;
    for (int i = 0; i < 8; i++) {
        shapes.row_bytes[i] = 64;
        shapes.rows[i] = i < 6 ? rows : 16;
    }
    __asm__ volatile("" : : "r"(&shapes) : "memory"); /* GCC 12 takes _tile_loadconfig for a reader of 8 bytes */
    _tile_loadconfig(&shapes);
}

static void end_pages(void) { _tile_release(); }

/* Tile i of sums = rows of integers, 64 n_steps places, times tile i of levels, for i < n <= 4.  The barrier: GCC does not know
 * that tiles are read from memory. */
INLINE void multiply_tiles(const int8_t *rows, const uint8_t *levels, size_t tile_bytes, int n_steps, int n) {
    __asm__ volatile("" : : : "memory");
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int s = 0; s < n_steps; s++, levels += 1024) {
        _tile_loadd(4, rows + 64 * s, TQ_INT_STRIDE);
        _tile_loadd(6, levels, 64);
        _tile_dpbssd(0, 4, 6);
        if (n > 1) {
            _tile_loadd(7, levels + tile_bytes, 64);
            _tile_dpbssd(1, 4, 7);
        }
        if (n > 2) {
            _tile_loadd(6, levels + 2 * tile_bytes, 64);
            _tile_dpbssd(2, 4, 6);
        }
        if (n > 3) {
            _tile_loadd(7, levels + 3 * tile_bytes, 64);
            _tile_dpbssd(3, 4, 7);
        }
    }
}

INLINE void store_tiles(int32_t *dots, int n) {
    _tile_stored(0, dots, 64);
    if (n > 1) _tile_stored(1, dots + 256, 64);
    if (n > 2) _tile_stored(2, dots + 512, 64);
    if (n > 3) _tile_stored(3, dots + 768, 64);
}

/* ---- unpacking */

/* Lines of the next page, one at a time between other work: keys, then values.  A core waits for 16 lines at a time: so only
 * every second line is asked for, and the processor brings the other one of the pair. */
typedef struct page_fetch {
    const uint8_t *at, *end, *then, *then_end;
    unsigned turn;
} page_fetch;

enum { FETCH_EVERY = 2, FETCH_STEP = 128 };

static page_fetch fetch_of(const tq_planar_page *page) {
    const tq_page_codes *k = &page->keys, *v = &page->values;
    page_fetch f = {k->codes, k->codes, k->codes, k->codes, 0}; /* nothing to fetch: always the same line */
    if (v->next_bytes) f = (page_fetch){v->next, v->next + v->next_bytes, v->next, v->next, 0};
    if (k->next_bytes) f = (page_fetch){k->next, k->next + k->next_bytes, f.at, f.end, 0};
    return f;
}

INLINE void fetch_next(page_fetch *f) {
    if (++f->turn % FETCH_EVERY) return;
    __builtin_prefetch(f->at, 0, 2);
    f->at += FETCH_STEP;
    if (f->at < f->end) return;
    f->at = f->then, f->end = f->then_end;
    f->then = f->then_end;
}

INLINE void put_levels(uint8_t *to, int v, __m512i table, __m512i codes) {
    _mm512_store_si512(to + 64 * v, _mm512_permutexvar_epi8(codes, table));
}

INLINE void put_planes(uint8_t *to, int v, __m512i table, __m512i low, __m512i high, char mask) {
    put_levels(to, v, table, _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi8(mask), 0xe4));
}

/* A tile of codes -> signed levels.  The tables are of page_tables_of, with the sign of every level turned. */
INLINE void unpack_signed(const page_tables *t, const uint8_t *tile, int n_vectors, uint8_t *to, page_fetch *f, const int bits) {
    if (bits == 3) {
        for (int v = 0; v < n_vectors; v += 8, tile += 192, to += 512) {
            bool whole = v + 8 <= n_vectors;
            __m512i low = _mm512_loadu_si512(tile), high = _mm512_loadu_si512(tile + (whole ? 128 : 64));
            put_planes(to, 0, t->at[0], low, _mm512_slli_epi16(high, 2), BITS01);
            put_planes(to, 1, t->at[1], low, high, BITS23);
            put_planes(to, 2, t->at[2], low, high, BITS45);
            put_planes(to, 3, t->at[3], _mm512_srli_epi16(low, 2), high, BITS45);
            fetch_next(f);
            if (!whole) break;
            low = _mm512_loadu_si512(tile + 64);
            put_planes(to, 4, t->at[4], low, high, BITS01);
            put_planes(to, 5, t->at[5], low, high, BITS23);
            high = _mm512_srli_epi16(high, 4);
            put_planes(to, 6, t->at[2], low, high, BITS45);
            put_planes(to, 7, t->at[3], _mm512_srli_epi16(low, 2), high, BITS45);
            fetch_next(f);
        }
    } else if (bits == 8) {
        for (int v = 0; v < n_vectors; v++) {
            _mm512_store_si512(to + 64 * v, _mm512_xor_si512(_mm512_loadu_si512(tile + 64 * v), _mm512_set1_epi8(-128)));
            if (v % 2) fetch_next(f);
        }
    } else {
        for (int v = 0; v < n_vectors; v += 4, tile += 32 * bits, to += 256) {
            __m512i codes = _mm512_loadu_si512(tile);
            fetch_next(f);
            if (bits == 4) {
                __m512i more = _mm512_loadu_si512(tile + 64);
                put_levels(to, 0, t->at[0], codes);
                put_levels(to, 1, t->at[1], _mm512_srli_epi16(codes, 2));
                put_levels(to, 2, t->at[0], more);
                put_levels(to, 3, t->at[1], _mm512_srli_epi16(more, 2));
            } else {
                put_levels(to, 0, t->at[0], codes);
                put_levels(to, 1, t->at[1], codes);
                put_levels(to, 2, t->at[2], codes);
                put_levels(to, 3, t->at[2], _mm512_srli_epi16(codes, 2));
            }
        }
    }
}

/* Tiles from..to-1 of a side -> panel, each filled up to panel_vectors with zeros. */
static void unpack_tiles(const tq_page_codes *side, const page_tables *t, int from, int to, int panel_vectors, uint8_t *panel,
                         page_fetch *f) {
    const uint8_t *tile = side->codes + (size_t)from * side->tile_bytes;
    panel += (size_t)from * (size_t)panel_vectors * 64;
    for (; from < to; from++, tile += side->tile_bytes, panel += panel_vectors * 64) {
        switch (side->bits) {
        case 2: unpack_signed(t, tile, side->n_vectors, panel, f, 2); break;
        case 3: unpack_signed(t, tile, side->n_vectors, panel, f, 3); break;
        case 4: unpack_signed(t, tile, side->n_vectors, panel, f, 4); break;
        default: unpack_signed(t, tile, side->n_vectors, panel, f, 8);
        }
        for (int v = side->n_vectors; v < panel_vectors; v++) _mm512_store_si512(panel + 64 * v, _mm512_setzero_si512());
    }
}

static page_tables signed_tables_of(const tq_page_codes *side) {
    page_tables t = {0};
    switch (side->bits) {
    case 2: t = page_tables_of(side->levels, 2); break;
    case 3: t = page_tables_of(side->levels, 3); break;
    case 4: t = page_tables_of(side->levels, 4); break;
    default: return t;
    }
    for (int i = 0; i < 6; i++) t.at[i] = _mm512_xor_si512(t.at[i], _mm512_set1_epi8(-128));
    return t;
}

/* ---- softmax: in powers of two */

#define LOG2E 1.44269504f
#define LN2 0.693147181f

/* Lane i: the sum (or largest) of v[i]'s lanes, i < 8. */
#define FOLD_EIGHT(name, op)                                                                                           \
    INLINE __m256 name(const __m512 *v) {                                                                              \
        __m512 two[4], four[2];                                                                                        \
        for (int i = 0; i < 4; i++)                                                                                    \
            two[i] = op(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));       \
        for (int i = 0; i < 2; i++) {                                                                                  \
            __m512d a = _mm512_castps_pd(two[2 * i]), b = _mm512_castps_pd(two[2 * i + 1]);                            \
            four[i] = op(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));      \
        }                                                                                                              \
        __m512 all = op(_mm512_shuffle_f32x4(four[0], four[1], 0x88), _mm512_shuffle_f32x4(four[0], four[1], 0xdd));   \
        all = op(_mm512_shuffle_f32x4(all, all, 0x88), _mm512_shuffle_f32x4(all, all, 0xdd));                          \
        return _mm512_castps512_ps256(all);                                                                            \
    }
FOLD_EIGHT(sums_of_eight, _mm512_add_ps)
FOLD_EIGHT(largest_of_eight, _mm512_max_ps)

/* The power of two that a row's softmax is relative to. */
static float exponent_of(float max) { return __builtin_rintf(max * LOG2E); }

/* 2^y.  A polynomial of degree 4 for the fraction: relative error below 2.7e-6, and rounding to 15 bits comes afterwards.
 * Below -100: 2^-100, so that products with scales are no subnormals, which are slow; NaN stays NaN. */
INLINE __m512 exp2_weights(__m512 y) {
    y = _mm512_max_ps(_mm512_set1_ps(-100.0f), y);
    __m512 r = _mm512_reduce_ps(y, 1); /* less its floor */
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.0135341679f), _mm512_set1_ps(0.0520114606f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.241442757f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693003834f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.00000259f));
    return _mm512_scalef_ps(p, y);
}

/* A page on its way: its panels, its scales, and the products with a block of rows. */
typedef struct page_state {
    const tq_planar_page *page;
    const tq_key_range *seen;
    const tq_page_rows *rows;
    page_fetch fetch;
    uint8_t *keys, *values;
    float *weights; /* (8, 128) */
    int8_t *bytes;  /* of the weights: as of tq_int_vectors */
    float scales[128], factors[128], poison;
} page_state;

/* Up to eight rows.  dots: (8 tiles, 8 rows, high and low, 16). */
typedef struct row_block {
    int first, n;
    __mmask8 sees, unset; /* rows that see something of the page; of these the ones that saw nothing before it */
    bool whole;           /* all see all of it */
    float unit[8], offset[8]; /* score = products * unit * scale + offset, in powers of two relative to the row's */
    float step[8];        /* what an integer of its weights is worth, times 127 */
    int32_t *dots;
} row_block;

/* Scores of keys 16 t on. */
INLINE __m512 page_score(const page_state *p, const int32_t *dots, int t, __m512 unit, __m512 offset) {
    __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(dots + 256 * t), 8), _mm512_load_si512(dots + 256 * t + 16));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(_mm512_load_ps(p->scales + 16 * t), unit), offset);
}

/* -infinity where nothing is seen of keys 16 t on. */
static __m512 only_seen(__m512 y, int t, tq_key_range seen) {
    int from = seen.from - 16 * t, to = seen.to - 16 * t;
    uint32_t below_to = to <= 0 ? 0 : to >= 16 ? 0xffff : (1u << to) - 1;
    uint32_t below_from = from <= 0 ? 0 : from >= 16 ? 0xffff : (1u << from) - 1;
    return _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), (__mmask16)(below_to & ~below_from), y);
}

INLINE void soften_row_tiles(page_state *p, const row_block *b, int i, const bool whole, __m512 *sum, __m512 *most) {
    __m512 total = _mm512_setzero_ps(), largest = total, unit = _mm512_set1_ps(b->unit[i]), offset = _mm512_set1_ps(b->offset[i]);
    UNROLL for (int t = 0; t < 8; t++) {
        __m512 y = page_score(p, b->dots + 32 * i, t, unit, offset);
        if (!whole) y = only_seen(y, t, p->seen[b->first + i]);
        __m512 e = exp2_weights(y);
        total = _mm512_add_ps(total, e);
        e = _mm512_mul_ps(e, _mm512_load_ps(p->factors + 16 * t));
        largest = _mm512_range_ps(e, largest, 11); /* without signs, the larger */
        _mm512_store_ps(p->weights + 128 * i + 16 * t, e);
        fetch_next(&p->fetch);
    }
    *sum = total;
    *most = largest;
}

static __attribute__((noinline)) void soften_partly(page_state *p, const row_block *b, int i, __m512 *sum, __m512 *most) {
    soften_row_tiles(p, b, i, false, sum, most);
}

/* The products of a row -> their bytes, high and low. */
INLINE void round_weights(const float *products, float inverse, int8_t *high) {
    const __m512i bytes = _mm512_set_epi64(0x3f3b37332f2b2723, 0x1f1b17130f0b0703, 0x3d3935312d292521, 0x1d1915110d090501,
                                           0x3e3a36322e2a2622, 0x1e1a16120e0a0602, 0x3c3834302c282420, 0x1c1814100c080400);
    __m512 by = _mm512_set1_ps(inverse), shift = _mm512_set1_ps(WEIGHT_SHIFT);
    UNROLL for (int j = 0; j < 128; j += 32) {
        __m512i first = _mm512_castps_si512(_mm512_fmadd_ps(_mm512_load_ps(products + j), by, shift));
        __m512i second = _mm512_castps_si512(_mm512_fmadd_ps(_mm512_load_ps(products + j + 16), by, shift));
        __m512i words = _mm512_mask_blend_epi16(0xaaaaaaaa, first, _mm512_slli_epi32(second, 16));
        __m512i planes = _mm512_permutexvar_epi8(bytes, words);
        __m256i low = _mm256_xor_si256(_mm512_castsi512_si256(planes), _mm256_set1_epi8(-128));
        _mm256_store_si256((__m256i *)(void *)(high + TQ_INT_STRIDE + j), low);
        _mm256_store_si256((__m256i *)(void *)(high + j), _mm512_extracti64x4_epi64(planes, 1));
    }
}

/* Row i moves to a power of two near its largest score of this page, and what it gathered with it. */
static __attribute__((noinline)) void raise_row(page_state *p, row_block *b, int i) {
    const tq_page_rows *rows = p->rows;
    int row = b->first + i, dim = p->page->dim;
    float before = rows->max[row], top;
    b->offset[i] += before == -INFINITY ? 0 : exponent_of(before);
    __m512 tops = _mm512_set1_ps(-INFINITY);
    for (int t = 0; t < 8; t++) {
        __m512 y = page_score(p, b->dots + 32 * i, t, _mm512_set1_ps(b->unit[i]), _mm512_set1_ps(b->offset[i]));
        tops = _mm512_max_ps(only_seen(y, t, p->seen[row]), tops);
    }
    top = _mm512_reduce_max_ps(tops);
    if (!(top > -INFINITY && top < INFINITY)) top = 0; /* the sum will be no number, whatever it is relative to */
    rows->max[row] = __builtin_rintf(top) * LN2;
    b->offset[i] -= exponent_of(rows->max[row]);
    if (before == -INFINITY) return;
    float keep = _mm_cvtss_f32(_mm_scalef_ss(_mm_set_ss(1), _mm_set_ss(exponent_of(before) - exponent_of(rows->max[row]))));
    rows->sum[row] *= keep;
    scale(rows->acc + (size_t)row * (size_t)dim, dim, keep);
}

/* What can be known of a block before its products. */
static void begin_block(const page_state *p, row_block *b, int first, int32_t *dots) {
    const tq_page_rows *rows = p->rows;
    const int dim = p->page->dim, n = rows->n - first < TQ_PAGE_QUERIES ? rows->n - first : TQ_PAGE_QUERIES;
    *b = (row_block){.first = first, .n = n, .whole = true, .dots = dots};
    __m512 sums[8];
    for (int i = 0; i < 8; i++) sums[i] = _mm512_setzero_ps();
    for (int j = 0; j < dim; j += 16) {
        __m512 centre = (__m512)load_f16(p->page->centre + j);
        const float *q = rows->q + (size_t)first * (size_t)dim + j;
        for (int i = 0; i < n; i++, q += dim) sums[i] = _mm512_fmadd_ps(_mm512_loadu_ps(q), centre, sums[i]);
    }
    for (int i = 0; i < n; i++) {
        tq_key_range seen = p->seen[first + i];
        b->sees |= (__mmask8)((seen.from < seen.to) << i);
        b->whole = b->whole && seen.from <= 0 && seen.to >= 128;
    }
    __mmask8 all = (__mmask8)((1u << n) - 1);
    __m256 max = _mm256_maskz_loadu_ps(all, rows->max + first), to = _mm256_mul_ps(max, _mm256_set1_ps(LOG2E));
    __mmask8 none = _mm256_cmp_ps_mask(max, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ);
    b->unset = none & b->sees;
    to = _mm256_maskz_roundscale_ps((__mmask8)~none, to, 8);
    _mm256_storeu_ps(b->offset, _mm256_fmsub_ps(sums_of_eight(sums), _mm256_set1_ps(LOG2E), to));
    _mm256_storeu_ps(b->unit, _mm256_mul_ps(_mm256_maskz_loadu_ps(all, rows->q_int.step + first), _mm256_set1_ps(LOG2E / 127)));
}

/* Rows from..to-1 of a block: products -> weights times the values' scales. */
INLINE void soften_rows(page_state *p, const row_block *b, int from, int to, __m512 *sums, __m512 *mosts) {
    for (int i = from; i < to; i++) {
        if (b->whole) soften_row_tiles(p, b, i, true, sums + i, mosts + i);
        else soften_partly(p, b, i, sums + i, mosts + i);
    }
}

/* ... -> bytes. */
static void end_block(page_state *p, row_block *b, __m512 *sums, __m512 *mosts) {
    for (int i = b->n; i < 8; i++) sums[i] = mosts[i] = _mm512_setzero_ps();
    __m256 total = sums_of_eight(sums), most = largest_of_eight(mosts);
    unsigned above = _mm256_cmp_ps_mask(total, _mm256_set1_ps(0x1p40f), _CMP_GT_OQ) & b->sees;
    if (above) { /* rare: scores far above all before them */
        for (int i = 0; i < b->n; i++) {
            if (!(above >> i & 1)) continue;
            raise_row(p, b, i);
            soften_partly(p, b, i, sums + i, mosts + i);
        }
        total = sums_of_eight(sums), most = largest_of_eight(mosts);
    }
    float *sum = p->rows->sum + b->first, inverse[8];
    __mmask8 all = (__mmask8)((1u << b->n) - 1);
    _mm256_mask_storeu_ps(sum, b->sees, _mm256_add_ps(_mm256_maskz_loadu_ps(all, sum), total));
    _mm256_storeu_ps(b->step, _mm256_maskz_mul_ps(b->sees, most, _mm256_set1_ps(1.0f / 32512)));
    __mmask8 some = _mm256_cmp_ps_mask(most, _mm256_set1_ps(1e-33f), _CMP_GT_OQ);
    _mm256_storeu_ps(inverse, _mm256_maskz_div_ps(some, _mm256_set1_ps(32512), most));
    for (int i = 0; i < b->n; i++) round_weights(p->weights + 128 * i, inverse[i], p->bytes + i * 2 * TQ_INT_STRIDE);
}

/* ---- the page ---- */

INLINE void multiply_keys(const page_state *p, int first, int steps, int half) {
    size_t tile_bytes = 1024 * (size_t)steps;
    multiply_tiles(p->rows->q_int.high + (size_t)first * 2 * TQ_INT_STRIDE, p->keys + 4 * half * tile_bytes, tile_bytes, steps, 4);
}

/* Value tiles 4 * group on, up to four. */
INLINE int multiply_values(const page_state *p, int group) {
    int n = p->page->values.n_tiles - 4 * group < 4 ? p->page->values.n_tiles - 4 * group : 4;
    multiply_tiles(p->bytes, p->values + (size_t)group * 8192, 2048, 2, n);
    return n;
}

static void gather_values(const page_state *p, const row_block *b, const int32_t *dots) {
    const int dim = p->page->dim;
    for (int i = 0; i < b->n; i++) {
        __m512 worth = _mm512_set1_ps(b->step[i] * (1.0f / 127) + p->poison);
        float *acc = p->rows->acc + (size_t)(b->first + i) * (size_t)dim;
        for (int t = 0; t < dim / 16; t++) {
            const int32_t *at = dots + 256 * t + 32 * i;
            __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(at), 8), _mm512_load_si512(at + 16));
            _mm512_storeu_ps(acc + 16 * t, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), worth, _mm512_loadu_ps(acc + 16 * t)));
        }
    }
}

/* A tile that is loaded soon after it was stored waits (unpacking 128 vectors of keys and multiplying them at once took 285
 * cycles more than both apart).  So panels are written well before they are multiplied: the values' while the first block of
 * rows meets the keys, the next page's keys while the last one meets the values.  Likewise the products of a block, before the
 * softmax of the one before it. */
static void attend_page(const tq_planar_page *page, const tq_key_range *seen, tq_page_rows *rows) {
    const int steps = (page->dim + 63) / 64, n_values = page->values.n_tiles;
    const size_t panel_bytes = 128 * 64 * (size_t)steps;
    page_state p = {.page = page, .seen = seen, .rows = rows, .fetch = fetch_of(page)};
    p.keys = rows->scratch, p.values = p.keys + panel_bytes;
    int32_t *dots = (int32_t *)(void *)(p.values + panel_bytes), *value_dots = dots + 2 * 2048;
    p.weights = (float *)(value_dots + 1024 * steps), p.bytes = (int8_t *)(p.weights + TQ_PAGE_QUERIES * 128);
    page_tables key_tables = signed_tables_of(&page->keys), value_tables = key_tables;
    if (page->values.levels != page->keys.levels || page->values.bits != page->keys.bits) value_tables = signed_tables_of(&page->values);
    if (rows->ready != page->keys.codes) unpack_tiles(&page->keys, &key_tables, 0, 8, 16 * steps, p.keys, &p.fetch);
    for (int r = 0; r < 128; r += 16) _mm512_store_ps(p.scales + r, (__m512)load_f16(page->key_scales + r));
    p.poison = page_factors(page->value_scales, page->n, p.factors);

    row_block blocks[2], *now = blocks, *next = blocks + 1;
    multiply_keys(&p, 0, steps, 0);
    begin_block(&p, now, 0, dots);
    unpack_tiles(&page->values, &value_tables, 0, n_values / 2, 32, p.values, &p.fetch);
    store_tiles(dots, 4);
    multiply_keys(&p, 0, steps, 1);
    unpack_tiles(&page->values, &value_tables, n_values / 2, n_values, 32, p.values, &p.fetch);
    store_tiles(dots + 1024, 4);
    for (int first = 0; first < rows->n; first += TQ_PAGE_QUERIES) {
        bool last = first + TQ_PAGE_QUERIES >= rows->n;
        __m512 sums[8], mosts[8];
        int half = now->n / 2, following = first + TQ_PAGE_QUERIES;
        if (now->unset)
            for (int i = 0; i < now->n; i++)
                if (now->unset >> i & 1) raise_row(&p, now, i);
        int32_t *to = now->dots == dots ? dots + 2048 : dots;
        if (!last) multiply_keys(&p, following, steps, 0);
        soften_rows(&p, now, 0, half, sums, mosts);
        if (!last) {
            store_tiles(to, 4);
            multiply_keys(&p, following, steps, 1);
        }
        soften_rows(&p, now, half, now->n, sums, mosts);
        if (!last) store_tiles(to + 1024, 4);
        end_block(&p, now, sums, mosts);
        for (int group = 0; 4 * group < n_values; group++) {
            int n = multiply_values(&p, group);
            if (last && group == 0 && page->keys.next_bytes) {
                tq_page_codes keys = page->keys;
                rows->ready = keys.codes = keys.next;
                unpack_tiles(&keys, &key_tables, 0, 8, 16 * steps, p.keys, &p.fetch);
            } else if (!last && group == 0) {
                begin_block(&p, next, following, to);
            }
            store_tiles(value_dots + 1024 * group, n);
        }
        gather_values(&p, now, value_dots);
        row_block *done = now;
        now = next, next = done;
    }
}
