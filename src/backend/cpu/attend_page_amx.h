/* attend_page_amx.h: runs of whole pages against up to eight query rows with tiles.  Included by kernels_amx.c, as attend_many_amx.h for
 * more rows.
 *
 * Both sides are unpacked into panels of bytes (panels_amx.h); the rows are one operand, their high and low bytes in turn, up to sixteen
 * rows.
 *
 * The softmax is relative to a power of two near the largest score that a row has met in its first page; only a page with
 * scores much larger moves it.  So no page waits for its own maximum, and what was gathered before is rarely scaled.
 *
 * Nothing that is stored is loaded soon afterwards: loading a tile waits for the stores before it.  So three pages are on their way at
 * once.  While page p is softened, the keys of p + 1 are multiplied; between the weights of p and their products the keys of p + 2 are
 * unpacked; during these products the values of p + 1; and what p brings is added up during the softmax of p + 1. */

/* ---- tiles: 0 to 3 are sums, 4 the rows of integers, 6 and 7 levels */

typedef struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;

/* Subnormals count as zeros meanwhile: products of weights and scales are many, and those would take a hundred times as long. */
static void begin_pages(tq_page_rows *rows) {
    tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.row_bytes[i] = 64;
        shapes.rows[i] = i < 6 && rows->n < TQ_PAGE_QUERIES && !rows->bf16 ? (uint8_t)(2 * rows->n) : 16;
    }
    __asm__ volatile("" : : "r"(&shapes) : "memory"); /* GCC 12 takes _tile_loadconfig for a reader of 8 bytes */
    _tile_loadconfig(&shapes);
    rows->saved = _mm_getcsr();
    _mm_setcsr(rows->saved | 0x8040);
}

static void end_pages(tq_page_rows *rows) {
    _mm_setcsr(rows->saved);
    _tile_release();
}

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

/* 2^y.  A polynomial of degree 4 for the fraction: relative error below 2.7e-6, and rounding to 15 bits comes afterwards.  2^-inf is 0;
 * NaN stays NaN. */
INLINE __m512 exp2_weights(__m512 y) {
    __m512 r = _mm512_reduce_ps(y, 1); /* less its floor */
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.0135341679f), _mm512_set1_ps(0.0520114606f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.241442757f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693003834f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.00000259f));
    return _mm512_scalef_ps(p, y);
}

/* Pages on their way: panels, what is taken up of the page that is softened, and its weights. */
typedef struct page_state {
    const tq_planar_page *page;
    tq_page_rows *rows;
    page_fetch fetch;
    panel_tables key_tables, value_tables;
    size_t key_tile; /* bytes */
    uint8_t *keys, *values;
    float *weights; /* (8, 128) */
    int8_t *bytes;  /* of the weights: as of tq_int_vectors */
    _Alignas(64) float scales[128], factors[128];
} page_state;

/* The rows and a page.  dots: (8 tiles, 8 rows, high and low, 16). */
typedef struct row_block {
    __mmask8 sees, unset; /* rows that see something of the page; of these the ones that saw nothing before it */
    bool whole;           /* all see all of it */
    float unit[8], offset[8]; /* score = products * unit * scale + offset, in powers of two relative to the row's */
    float step[8], poison; /* what an integer of its weights is worth, times 127; 0, or NaN if the values' scales are not finite */
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

static tq_key_range range_of(const tq_planar_page *page, int row) {
    return page->seen ? page->seen[row] : (tq_key_range){0, page->n};
}

INLINE void soften_row_tiles(page_state *p, const row_block *b, int i, const bool whole, __m512 *sum, __m512 *most) {
    page_fetch fetch = p->fetch; /* a local: stores may alias the other */
    __m512 total = _mm512_setzero_ps(), largest = total, unit = _mm512_set1_ps(b->unit[i]), offset = _mm512_set1_ps(b->offset[i]);
    UNROLL for (int t = 0; t < 8; t++) {
        __m512 y = page_score(p, b->dots + 32 * i, t, unit, offset);
        if (!whole) y = only_seen(y, t, range_of(p->page, i));
        __m512 e = exp2_weights(y);
        total = _mm512_add_ps(total, e);
        e = _mm512_mul_ps(e, _mm512_load_ps(p->factors + 16 * t));
        largest = _mm512_range_ps(e, largest, 11); /* without signs, the larger */
        _mm512_store_ps(p->weights + 128 * i + 16 * t, e);
        if (t % 2) fetch_next(&fetch);
    }
    p->fetch = fetch;
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
    float before = rows->max[i], top;
    b->offset[i] += before == -INFINITY ? 0 : exponent_of(before);
    __m512 tops = _mm512_set1_ps(-INFINITY);
    for (int t = 0; t < 8; t++) {
        __m512 y = page_score(p, b->dots + 32 * i, t, _mm512_set1_ps(b->unit[i]), _mm512_set1_ps(b->offset[i]));
        tops = _mm512_max_ps(only_seen(y, t, range_of(p->page, i)), tops);
    }
    top = _mm512_reduce_max_ps(tops);
    if (!(top > -INFINITY && top < INFINITY)) top = 0; /* the sum will be no number, whatever it is relative to */
    rows->max[i] = __builtin_rintf(top) * LN2;
    b->offset[i] -= exponent_of(rows->max[i]);
    if (before == -INFINITY) return;
    float keep = _mm_cvtss_f32(_mm_scalef_ss(_mm_set_ss(1), _mm_set_ss(exponent_of(before) - exponent_of(rows->max[i]))));
    rows->sum[i] *= keep;
    scale(rows->acc + (size_t)i * (size_t)rows->dim, rows->dim, keep);
}

/* Products of up to eight queries with a page's centre, in powers of two. */
INLINE __m256 centre_scores(const float *q, int n, int dim, const uint16_t *centre) {
    __m512 sums[8];
    for (int i = 0; i < 8; i++) sums[i] = _mm512_setzero_ps();
    for (int j = 0; j < dim; j += 16) {
        __m512 of_centre = (__m512)load_f16(centre + j);
        for (int i = 0; i < n; i++) sums[i] = _mm512_fmadd_ps(_mm512_loadu_ps(q + (size_t)i * (size_t)dim + j), of_centre, sums[i]);
    }
    return _mm256_mul_ps(sums_of_eight(sums), _mm256_set1_ps(LOG2E));
}

/* What can be known of a page before its products. */
static void begin_page(page_state *p, const tq_planar_page *page, row_block *b, int32_t *dots) {
    const tq_page_rows *rows = p->rows;
    const int n = rows->n;
    p->page = page;
    for (int r = 0; r < 128; r += 16) _mm512_store_ps(p->scales + r, (__m512)load_f16(page->key_scales + r));
    *b = (row_block){.whole = page->n == 128, .dots = dots, .poison = page_factors(page->value_scales, page->n, p->factors)};
    __mmask8 all = (__mmask8)((1u << n) - 1);
    b->sees = all;
    for (int i = 0; page->seen && i < n; i++) {
        tq_key_range seen = page->seen[i];
        if (seen.from >= seen.to) b->sees &= (__mmask8) ~(1u << i);
        b->whole = b->whole && seen.from <= 0 && seen.to >= 128;
    }
    __m256 max = _mm256_maskz_loadu_ps(all, rows->max), to = _mm256_mul_ps(max, _mm256_set1_ps(LOG2E));
    __mmask8 none = _mm256_cmp_ps_mask(max, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ);
    b->unset = none & b->sees;
    to = _mm256_maskz_roundscale_ps((__mmask8)~none, to, 8);
    _mm256_storeu_ps(b->offset, _mm256_sub_ps(centre_scores(rows->q, n, rows->dim, page->centre), to));
    _mm256_storeu_ps(b->unit, _mm256_mul_ps(_mm256_maskz_loadu_ps(all, rows->q_int.step), _mm256_set1_ps(LOG2E / 127)));
}

/* Rows from..to-1: products -> weights times the values' scales. */
INLINE void soften_rows(page_state *p, const row_block *b, int from, int to, __m512 *sums, __m512 *mosts) {
    for (int i = from; i < to; i++) {
        if (b->whole) soften_row_tiles(p, b, i, true, sums + i, mosts + i);
        else soften_partly(p, b, i, sums + i, mosts + i);
    }
}

/* ... -> bytes. */
static void end_softmax(page_state *p, row_block *b, __m512 *sums, __m512 *mosts) {
    const int n = p->rows->n;
    for (int i = n; i < 8; i++) sums[i] = mosts[i] = _mm512_setzero_ps();
    __m256 total = sums_of_eight(sums), most = largest_of_eight(mosts);
    unsigned above = _mm256_cmp_ps_mask(total, _mm256_set1_ps(0x1p40f), _CMP_GT_OQ) & b->sees;
    if (above) { /* rare: scores far above all before them */
        for (int i = 0; i < n; i++) {
            if (!(above >> i & 1)) continue;
            raise_row(p, b, i);
            soften_partly(p, b, i, sums + i, mosts + i);
        }
        total = sums_of_eight(sums), most = largest_of_eight(mosts);
    }
    float *sum = p->rows->sum, inverse[8];
    __mmask8 all = (__mmask8)((1u << n) - 1);
    _mm256_mask_storeu_ps(sum, b->sees, _mm256_add_ps(_mm256_maskz_loadu_ps(all, sum), total));
    _mm256_storeu_ps(b->step, _mm256_maskz_mul_ps(b->sees, most, _mm256_set1_ps(1.0f / 32512)));
    __mmask8 some = _mm256_cmp_ps_mask(most, _mm256_set1_ps(1e-33f), _CMP_GT_OQ);
    _mm256_storeu_ps(inverse, _mm256_maskz_div_ps(some, _mm256_set1_ps(32512), most));
    for (int i = 0; i < n; i++) round_weights(p->weights + 128 * i, inverse[i], p->bytes + i * 2 * TQ_INT_STRIDE);
}

/* ---- a run of pages ---- */

INLINE void multiply_keys(const page_state *p, int half) {
    multiply_tiles(p->rows->q_int.high, p->keys + 4 * (size_t)half * p->key_tile, p->key_tile, (int)(p->key_tile / 1024), 4);
}

/* Value tiles 4 * group on, up to four. */
INLINE int multiply_values(const page_state *p, int n_tiles, int group) {
    int n = n_tiles - 4 * group < 4 ? n_tiles - 4 * group : 4;
    multiply_tiles(p->bytes, p->values + (size_t)group * 8192, 2048, 2, n);
    return n;
}

static void gather_values(const tq_page_rows *rows, const row_block *b, const int32_t *dots) {
    for (int i = 0; i < rows->n; i++) {
        __m512 worth = _mm512_set1_ps(b->step[i] * (1.0f / 127) + b->poison);
        float *acc = rows->acc + (size_t)i * (size_t)rows->dim;
        for (int t = 0; t < rows->dim / 16; t++) {
            const int32_t *at = dots + 256 * t + 32 * i;
            __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(at), 8), _mm512_load_si512(at + 16));
            _mm512_storeu_ps(acc + 16 * t, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), worth, _mm512_loadu_ps(acc + 16 * t)));
        }
    }
}

static void unpack_keys(page_state *p, const tq_planar_page *page, int from, int to) {
    unpack_tiles(&page->keys, &p->key_tables, from, to, p->keys, p->key_tile, &p->fetch, false);
}

static void unpack_values(page_state *p, const tq_planar_page *page, int from, int to) {
    unpack_tiles(&page->values, &p->value_tables, from, to, p->values, 2048, &p->fetch, false);
}

static void attend_few(const tq_planar_page *pages, int n_pages, tq_page_rows *rows) {
    const size_t steps = ((size_t)rows->dim + 63) / 64, panel_bytes = 128 * 64 * steps;
    const int n_values = pages->values.n_tiles, groups = (n_values + 3) / 4;
    page_state p = {.rows = rows, .fetch = fetch_of(pages + (n_pages > 1)), .key_tile = 1024 * steps};
    p.keys = rows->scratch, p.values = p.keys + panel_bytes;
    int32_t *dots = (int32_t *)(void *)(p.values + panel_bytes), *value_dots = dots + 2 * 2048;
    p.weights = (float *)(value_dots + 256 * 4 * steps), p.bytes = (int8_t *)(p.weights + TQ_PAGE_QUERIES * 128);
    make_tables(&pages->keys, false, &p.key_tables);
    make_tables(&pages->values, false, &p.value_tables);

    row_block blocks[2];
    unpack_keys(&p, pages, 0, 8);
    begin_page(&p, pages, blocks, dots);
    unpack_values(&p, pages, 0, n_values);
    multiply_keys(&p, 0);
    store_tiles(dots, 4);
    multiply_keys(&p, 1);
    store_tiles(dots + 1024, 4);
    p.fetch = fetch_of(pages + (n_pages > 2 ? 2 : n_pages - 1));
    if (n_pages > 1) unpack_keys(&p, pages + 1, 0, 8);
    for (int at = 0; at < n_pages; at++) {
        const tq_planar_page *page = pages + at;
        row_block *b = blocks + at % 2;
        bool more = at + 1 < n_pages;
        int half = rows->n / 2;
        int32_t *to = dots + (at + 1) % 2 * 2048;
        __m512 sums[8], mosts[8];
        p.fetch = fetch_of(pages + (at + 3 < n_pages ? at + 3 : n_pages - 1));
        for (int i = 0; b->unset && i < rows->n; i++)
            if (b->unset >> i & 1) raise_row(&p, b, i);
        if (more) multiply_keys(&p, 0);
        soften_rows(&p, b, 0, half, sums, mosts);
        if (more) {
            store_tiles(to, 4);
            multiply_keys(&p, 1);
        }
        if (at > 0) gather_values(rows, blocks + (at + 1) % 2, value_dots);
        soften_rows(&p, b, half, rows->n, sums, mosts);
        if (more) store_tiles(to + 1024, 4);
        end_softmax(&p, b, sums, mosts);
        int keys_done = at + 2 < n_pages ? 0 : 8;
        if (keys_done < 8) unpack_keys(&p, page + 2, 0, keys_done = groups > 1 ? 4 : 8);
        for (int group = 0; group < groups; group++) {
            int n = multiply_values(&p, n_values, group);
            if (group + 1 == groups) {
                if (more) unpack_values(&p, page + 1, 0, n_values);
            } else if (keys_done < 8) {
                unpack_keys(&p, page + 2, keys_done, 8);
                keys_done = 8;
            }
            store_tiles(value_dots + 1024 * group, n);
        }
        if (more) begin_page(&p, page + 1, blocks + (at + 1) % 2, to);
        else gather_values(rows, b, value_dots);
    }
}
