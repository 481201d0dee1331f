/* attend_many_amx.h: runs of whole pages against many query rows, the chunks of a prefill, with tiles of bf16.  Included by kernels_amx.c.
 *
 * Queries and weights are two bf16 numbers each, 16 bits of a value whatever its size, or one where that is asked for (tq_page_rows.bf16);
 * levels are one, exactly (panels_amx.h).  So scores come out of the tiles as floats, what is gathered is added up in them, and a weight
 * needs no second pass against the largest.  In bf16 a page may be exact rows, whose panels are the rows rounded.
 *
 * A page is unpacked once for all rows; the work then goes by units of 32 rows: their scores, 16 KB, are softened to weights, which are
 * multiplied together with the next unit's scores.  Tiles and vectors take turns in such large steps because nothing of theirs overlaps:
 * loading a tile waits for the stores before it (docs/speed-log.md has the numbers). */

enum { MANY_ROWS = TQ_MANY_ROWS, PAGE_KEYS = 128, HALVES_TILE = 4096 /* a tile of values, 128 tokens */ };

typedef struct many_rows {
    const tq_planar_page *page;
    tq_page_rows *rows;
    page_fetch fetch;
    panel_tables key_tables, value_tables;
    int units, key_steps, value_tiles; /* of 32 rows; of 32 dims, of 16 */
    int key_pairs;                     /* of the page: 32 keys each */
    uint8_t *keys, *values;            /* panels */
    uint8_t *queries;                  /* (units, key steps, parts, 2) tiles */
    float *scores;                     /* (2, 8) tiles: rows, keys */
    uint8_t *weights;                  /* (4 steps, parts, 2) tiles */
    __m512 *sums;                      /* of a row */
    float *offsets, *exponents;        /* of a row: its product with the centre; what its softmax is relative to */
    _Alignas(64) float scales[PAGE_KEYS], factors[PAGE_KEYS];
} many_rows;

/* ---- products */

/* The parts of 32 rows, tiles a on, times two tiles of halves. */
INLINE void multiply_halves(const uint8_t *a, const uint8_t *b, size_t b_tile, bool two, const int parts) {
    _tile_loadd(6, b, 64);
    if (two) _tile_loadd(7, b + b_tile, 64);
    UNROLL for (int p = 0; p < parts; p++, a += 2 * TILE_BYTES) {
        _tile_loadd(4, a, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (two) _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + TILE_BYTES, 64);
        _tile_dpbf16ps(2, 5, 6);
        if (two) _tile_dpbf16ps(3, 5, 7);
    }
}

/* Tiles of 32 rows and the page's keys. */
INLINE void score_unit(const many_rows *m, int unit, const int parts) {
    const size_t step_bytes = 2 * TILE_BYTES * (size_t)parts, key_tile = TILE_BYTES * (size_t)m->key_steps;
    for (int pair = 0; pair < m->key_pairs; pair++) {
        const uint8_t *a = m->queries + step_bytes * (size_t)(unit * m->key_steps), *b = m->keys + 2 * key_tile * (size_t)pair;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int s = 0; s < m->key_steps; s++, a += step_bytes, b += TILE_BYTES) multiply_halves(a, b, key_tile, true, parts);
        float *to = m->scores + 2 * TILE_FLOATS * pair;
        _tile_stored(0, to, 64);
        _tile_stored(1, to + TILE_FLOATS, 64);
        _tile_stored(2, to + 8 * TILE_FLOATS, 64);
        _tile_stored(3, to + 9 * TILE_FLOATS, 64);
    }
}

/* What 32 rows have gathered += weights times the page's values. */
INLINE void gather_unit(const many_rows *m, int unit, const int parts) {
    const size_t dim = (size_t)m->rows->dim, below = SIDE * dim;
    for (int tile = 0; tile < m->value_tiles; tile += 2) {
        bool two = tile + 1 < m->value_tiles;
        float *acc = m->rows->acc + (size_t)(unit * MANY_ROWS) * dim + SIDE * tile;
        const uint8_t *a = m->weights, *b = m->values + HALVES_TILE * (size_t)tile;
        _tile_loadd(0, acc, dim * 4);
        if (two) _tile_loadd(1, acc + SIDE, dim * 4);
        _tile_loadd(2, acc + below, dim * 4);
        if (two) _tile_loadd(3, acc + below + SIDE, dim * 4);
        for (int s = 0; s < m->key_pairs; s++, a += 2 * TILE_BYTES * parts, b += TILE_BYTES) multiply_halves(a, b, HALVES_TILE, two, parts);
        _tile_stored(0, acc, dim * 4);
        if (two) _tile_stored(1, acc + SIDE, dim * 4);
        _tile_stored(2, acc + below, dim * 4);
        if (two) _tile_stored(3, acc + below + SIDE, dim * 4);
    }
}

/* ---- softmax of a row and a page */

/* Relative error below 7.5e-5, for weights that are rounded to bf16. */
INLINE __m512 exp2_coarse(__m512 y) {
    __m512 r = _mm512_reduce_ps(y, 1); /* less its floor */
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.0780245238f), _mm512_set1_ps(0.226067155f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.695833541f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.999925218f));
    return _mm512_scalef_ps(p, y);
}

/* Two vectors of 16 floats -> rows of pairs: rounded to bf16. */
INLINE __m512i rounded_pairs(__m512 a, __m512 b) {
    const __m512i half = _mm512_set1_epi32(0x8000);
    return choose_words(_mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(a), half), 16), _mm512_add_epi32(_mm512_castps_si512(b), half), 0xffff);
}

/* What bf16 keeps of each, cut off, and of the rest. */
INLINE void put_parts(__m512 a, __m512 b, uint8_t *to) {
    const __m512i upper = _mm512_set1_epi32(-65536);
    __m512i words_a = _mm512_castps_si512(a), words_b = _mm512_castps_si512(b);
    __m512i rest_a = _mm512_castps_si512(_mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_and_si512(words_a, upper))));
    __m512i rest_b = _mm512_castps_si512(_mm512_sub_ps(b, _mm512_castsi512_ps(_mm512_and_si512(words_b, upper))));
    _mm512_store_si512(to, choose_words(_mm512_srli_epi32(words_a, 16), words_b, 0xffff));
    _mm512_store_si512(to + 2 * TILE_BYTES, choose_words(_mm512_srli_epi32(rest_a, 16), rest_b, 0xffff));
}

/* Scores of keys 16 t on of the unit's row i, in powers of two. */
INLINE __m512 many_score(const many_rows *m, int i, int t, __m512 offset, tq_key_range seen, const bool whole) {
    const float *scores = m->scores + (i / SIDE * 8 + t) * TILE_FLOATS + i % SIDE * SIDE;
    __m512 y = _mm512_fmadd_ps(_mm512_load_ps(scores), _mm512_load_ps(m->scales + 16 * t), offset);
    return whole ? y : only_seen(y, t, seen);
}

/* 32 keys -> their weights; returns the sum of these, by lanes. */
INLINE __m512 soften_pair(const many_rows *m, int i, int pair, __m512 offset, tq_key_range seen, const bool whole, const int parts) {
    uint8_t *to = m->weights + i / SIDE * TILE_BYTES + i % SIDE * 64 + pair * 2 * TILE_BYTES * parts;
    __m512 a = many_score(m, i, 2 * pair, offset, seen, whole), b = many_score(m, i, 2 * pair + 1, offset, seen, whole);
    a = parts == 1 ? exp2_coarse(a) : exp2_weights(a);
    b = parts == 1 ? exp2_coarse(b) : exp2_weights(b);
    __m512 total = _mm512_add_ps(a, b);
    a = _mm512_mul_ps(a, _mm512_load_ps(m->factors + 32 * pair));
    b = _mm512_mul_ps(b, _mm512_load_ps(m->factors + 32 * pair + 16));
    if (parts == 1) _mm512_store_si512(to, rounded_pairs(a, b));
    else put_parts(a, b, to);
    return total;
}

/* A row that sees all keys of a whole page. */
INLINE __m512 soften_many(const many_rows *m, int i, float shift, const int parts) {
    __m512 offset = _mm512_set1_ps(shift), total = _mm512_setzero_ps();
    UNROLL for (int pair = 0; pair < PAGE_KEYS / 32; pair++)
        total = _mm512_add_ps(total, soften_pair(m, i, pair, offset, (tq_key_range){0, PAGE_KEYS}, true, parts));
    return total;
}

static __attribute__((noinline)) __m512 soften_many_partly(const many_rows *m, int i, float shift, tq_key_range seen) {
    __m512 offset = _mm512_set1_ps(shift), total = _mm512_setzero_ps();
    for (int pair = 0; pair < m->key_pairs; pair++)
        total = _mm512_add_ps(total, m->rows->bf16 ? soften_pair(m, i, pair, offset, seen, false, 1) : soften_pair(m, i, pair, offset, seen, false, 2));
    return total;
}

/* Row i of a unit moves to a power of two near its largest score of this page, and what it gathered with it. */
static __attribute__((noinline)) void raise_many(many_rows *m, int unit, int i) {
    tq_page_rows *rows = m->rows;
    int row = unit * MANY_ROWS + i;
    float before = rows->max[row];
    __m512 tops = _mm512_set1_ps(-INFINITY), offset = _mm512_set1_ps(m->offsets[row]);
    for (int t = 0; t < 2 * m->key_pairs; t++) tops = _mm512_max_ps(many_score(m, i, t, offset, range_of(m->page, row), false), tops);
    float top = _mm512_reduce_max_ps(tops);
    if (top == -INFINITY) return; /* nothing is seen yet */
    if (!(top < INFINITY)) top = 0; /* the sum will be no number, whatever it is relative to */
    float exponent = __builtin_rintf(top), keep = _mm_cvtss_f32(_mm_scalef_ss(_mm_set_ss(1), _mm_set_ss(m->exponents[row] - exponent)));
    m->exponents[row] = exponent;
    rows->max[row] = exponent * LN2;
    if (before == -INFINITY) return;
    m->sums[row] = _mm512_mul_ps(m->sums[row], _mm512_set1_ps(keep));
    scale(rows->acc + (size_t)row * (size_t)rows->dim, rows->dim, keep);
}

/* The 32 rows of a unit, or as many as there are. */
INLINE void soften_unit(many_rows *m, int unit, const int parts) {
    tq_page_rows *rows = m->rows;
    int first = unit * MANY_ROWS, n = at_most_int(rows->n - first, MANY_ROWS);
    bool whole = m->page->n == PAGE_KEYS && !m->page->seen;
    for (int i = 0; i < n; i++) {
        int row = first + i;
        if (rows->max[row] == -INFINITY) raise_many(m, unit, i);
        float shift = m->offsets[row] - m->exponents[row];
        __m512 total = whole ? soften_many(m, i, shift, parts) : soften_many_partly(m, i, shift, range_of(m->page, row));
        if (_mm512_cmp_ps_mask(total, _mm512_set1_ps(0x1p40f), _CMP_GT_OQ)) { /* rare: scores far above all before them */
            raise_many(m, unit, i);
            total = soften_many_partly(m, i, m->offsets[row] - m->exponents[row], range_of(m->page, row));
        }
        m->sums[row] = _mm512_add_ps(m->sums[row], total);
    }
}

/* ---- panels of exact rows */

/* The 16 values from `at` on of row r; zeros of rows and dims that are not there. */
INLINE __m512 exact_values(const tq_planar_page *page, const void *rows, int r, int at) {
    if (r >= page->n || at >= page->dim) return _mm512_setzero_ps();
    size_t from = (size_t)r * page->row_stride + (size_t)at;
    return page->row_dtype == TQ_F16 ? (__m512)load_f16((const uint16_t *)rows + from) : (__m512)load((const float *)rows + from);
}

/* About the mean of a page's keys, in halves: what is taken off them before they are rounded, as the centre of a packed page is. */
static void mean_key(const tq_planar_page *page, uint16_t *centre) {
    for (int at = 0; at < page->dim; at += 16) {
        __m512 sum = _mm512_setzero_ps();
        for (int r = 0; r < page->n; r++) sum = _mm512_add_ps(sum, exact_values(page, page->key_rows, r, at));
        sum = _mm512_mul_ps(sum, _mm512_set1_ps(1.0f / (float)page->n));
        sum = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_abs_ps(sum), _mm512_set1_ps(65000), _CMP_LT_OQ), sum); /* else: nothing */
        _mm256_storeu_si256((__m256i *)(void *)(centre + at), _mm512_cvtps_ph(sum, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
}

INLINE __m512 centred(const tq_planar_page *page, const uint16_t *centre, int r, int at) {
    if (r >= page->n || at >= page->dim) return _mm512_setzero_ps();
    return _mm512_sub_ps(exact_values(page, page->key_rows, r, at), (__m512)load_f16(centre + at));
}

/* As pairs of dims stand in a panel of keys (panels_amx.h). */
INLINE vi in_key_order(vi pairs) { return (vi)_mm512_shufflehi_epi16(_mm512_shufflelo_epi16((__m512i)pairs, 0xd8), 0xd8); }

WITH_BF16 static void round_keys(const many_rows *m, const tq_planar_page *page, const uint16_t *centre) {
    uint8_t *to = m->keys;
    for (int key = 0; key < 32 * m->key_pairs; key += SIDE)
        for (int s = 0; s < m->key_steps; s++, to += TILE_BYTES) {
            vi v[SIDE];
            for (int l = 0; l < SIDE; l++) {
                __m512 a = centred(page, centre, key + l, 32 * s), b = centred(page, centre, key + l, 32 * s + 16);
                v[l] = in_key_order((vi)_mm512_cvtne2ps_pbh(b, a));
            }
            store_tile(v, to);
        }
}

static void round_values(const many_rows *m, const tq_planar_page *page) {
    for (int tile = 0; tile < m->value_tiles; tile++)
        for (int i = 0; i < SIDE * m->key_pairs; i++) { /* rows of a tile, tile after tile */
            int token = i / SIDE * 32 + i % SIDE;
            __m512 a = exact_values(page, page->value_rows, token, SIDE * tile), b = exact_values(page, page->value_rows, token + SIDE, SIDE * tile);
            _mm512_store_si512(m->values + HALVES_TILE * (size_t)tile + 64 * (size_t)i, rounded_pairs(a, b));
        }
}

/* ---- a run of pages */

/* The queries in powers of two, as tiles: pairs of dims as panels of keys have them. */
WITH_BF16 static void prepare_many(many_rows *m, int parts) {
    const tq_page_rows *rows = m->rows;
    const size_t step_bytes = 2 * TILE_BYTES * (size_t)parts;
    memset(m->queries, 0, step_bytes * (size_t)(m->units * m->key_steps));
    for (int row = 0; row < rows->n; row++) {
        uint8_t *to = m->queries + step_bytes * (size_t)(row / MANY_ROWS * m->key_steps) + row % MANY_ROWS / SIDE * TILE_BYTES + row % SIDE * 64;
        for (int j = 0; j < rows->dim; j += 32, to += step_bytes) {
            float scaled[32] = {0};
            vi part[2];
            for (int k = 0; k < 32 && j + k < rows->dim; k += 16) store(scaled + k, load(rows->q + (size_t)row * (size_t)rows->dim + j + k) * LOG2E);
            split_values(scaled, 2, part);
            for (int i = 0; i < parts; i++) _mm512_store_si512(to + 2 * TILE_BYTES * i, (__m512i)in_key_order(part[i]));
        }
        m->exponents[row] = rows->max[row] == -INFINITY ? 0 : exponent_of(rows->max[row]);
        m->sums[row] = _mm512_maskz_mov_ps(1, _mm512_set1_ps(rows->sum[row]));
    }
}

/* Products of all rows with the centre. */
static void meet_centre(const many_rows *m, const uint16_t *centre) {
    const tq_page_rows *rows = m->rows;
    for (int row = 0; row < rows->n; row += 8) {
        int n = at_most_int(rows->n - row, 8);
        _mm256_mask_storeu_ps(m->offsets + row, (__mmask8)((1u << n) - 1), centre_scores(rows->q + (size_t)row * (size_t)rows->dim, n, rows->dim, centre));
    }
}

static void begin_exact(many_rows *m, const tq_planar_page *page) {
    uint16_t centre[TQ_INT_STRIDE];
    mean_key(page, centre);
    round_keys(m, page, centre);
    round_values(m, page);
    for (int r = 0; r < PAGE_KEYS; r++) m->scales[r] = 1, m->factors[r] = 1;
    meet_centre(m, centre);
}

static void begin_packed(many_rows *m, const tq_planar_page *page) {
    unpack_tiles(&page->keys, &m->key_tables, 0, 8, m->keys, TILE_BYTES * (size_t)m->key_steps, &m->fetch, true);
    unpack_tiles(&page->values, &m->value_tables, 0, m->value_tiles, m->values, HALVES_TILE, &m->fetch, true);
    page_factors(page->value_scales, page->n, m->factors);
    for (int r = 0; r < PAGE_KEYS; r += 16) {
        _mm512_store_ps(m->scales + r, (__m512)(load_f16(page->key_scales + r) * (1.0f / 127)));
        _mm512_store_ps(m->factors + r, (__m512)(load(m->factors + r) * (1.0f / 127)));
    }
    meet_centre(m, page->centre);
}

INLINE void attend_many_page(many_rows *m, const int parts) {
    for (int unit = -1; unit < m->units; unit++) {
        if (unit >= 0) soften_unit(m, unit, parts);
        __asm__ volatile("" : : : "memory"); /* the compiler does not know that tiles are read from memory, and when */
        if (unit + 1 < m->units) score_unit(m, unit + 1, parts);
        if (unit >= 0) gather_unit(m, unit, parts);
        __asm__ volatile("" : : : "memory");
    }
}

static __attribute__((noinline)) void attend_page_in_parts(many_rows *m) { attend_many_page(m, 2); }
static __attribute__((noinline)) void attend_page_in_bf16(many_rows *m) { attend_many_page(m, 1); }

static void attend_many(const tq_planar_page *pages, int n_pages, tq_page_rows *rows) {
    many_rows m = {.rows = rows, .units = (rows->n + MANY_ROWS - 1) / MANY_ROWS, .key_steps = (rows->dim + 31) / 32, .value_tiles = rows->dim / 16};
    size_t dims = ((size_t)rows->dim + 63) / 64 * 64;
    uint8_t *at = rows->scratch;
    m.keys = at, at += 256 * dims;
    m.values = at, at += 256 * dims;
    m.queries = at, at += 4 * (size_t)(m.units * MANY_ROWS) * dims;
    m.scores = (float *)(void *)at, at += MANY_ROWS * PAGE_KEYS * 4;
    m.weights = at, at += MANY_ROWS * PAGE_KEYS * 4;
    memset(m.weights, 0, MANY_ROWS * PAGE_KEYS * 4); /* of rows that are not there */
    m.sums = (__m512 *)(void *)at, at += 64 * (size_t)(m.units * MANY_ROWS);
    m.offsets = (float *)(void *)at, m.exponents = m.offsets + m.units * MANY_ROWS;
    bool packed = !pages->key_rows;
    if (packed) make_tables(&pages->keys, true, &m.key_tables);
    if (packed) make_tables(&pages->values, true, &m.value_tables);
    prepare_many(&m, rows->bf16 ? 1 : 2);
    for (int p = 0; p < n_pages; p++) {
        m.page = pages + p;
        m.key_pairs = (m.page->n + 31) / 32;
        if (packed) m.fetch = fetch_of(pages + (p + 1 < n_pages ? p + 1 : p));
        (packed ? begin_packed : begin_exact)(&m, m.page);
        (rows->bf16 ? attend_page_in_bf16 : attend_page_in_parts)(&m);
    }
    for (int row = 0; row < rows->n; row++) rows->sum[row] = _mm512_reduce_add_ps(m.sums[row]);
}

/* ---- any number of rows */

static void attend_pages(const tq_planar_page *pages, int n_pages, tq_page_rows *rows) {
    if (rows->n <= TQ_PAGE_QUERIES && !rows->bf16) attend_few(pages, n_pages, rows);
    else attend_many(pages, n_pages, rows);
}
