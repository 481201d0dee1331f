/* attend_many_amx.h: runs of whole pages against many query rows, the chunks of a prefill, with tiles of bf16.  Included by kernels_amx.c.
 *
 * Queries and weights are two bf16 numbers each, 16 bits of a value whatever its size; levels are one, exactly (panels_amx.h).  So scores
 * come out of the tiles as floats, what is gathered is added up in them, and a weight needs no second pass against the largest.  The panels
 * take longer to unpack than bytes and are multiplied twice as long, which pays from two blocks of TQ_PAGE_QUERIES rows on.
 *
 * The work goes by 32 rows: four tiles of sums stay in registers, 16 KB each of scores and weights in L1.  Tiles are multiplied in long
 * runs, the scores of the rows that come next and then the values of those just softened: a load of a tile waits for every store
 * before it, so turns between tiles and vectors cost more than they overlap. */

enum { MANY_ROWS = TQ_MANY_ROWS, HALVES_TILE = 4096 /* a tile of values, 128 tokens */ };

typedef struct many_rows {
    const tq_planar_page *page;
    tq_page_rows *rows;
    page_fetch fetch;
    panel_tables key_tables, value_tables;
    int key_steps, value_tiles; /* of 32 dims, of 16 */
    uint8_t *keys, *values;     /* panels */
    uint8_t *queries;           /* (units, key steps, parts, 2) tiles */
    float *scores;              /* (32, 128) */
    uint8_t *weights;           /* (4 steps, parts, 2) tiles */
    __m512 *sums;               /* of a row */
    float *offsets, *exponents; /* of a row: its product with the centre; what its softmax is relative to */
    float scales[128], factors[128];
} many_rows;

/* ---- products */

/* Both parts of 32 rows, tiles a on, times two tiles of halves.  Loads stand between products: while the core's other thread is at
 * work, few tiles are on their way at once, and a row of loads would wait for all products before it. */
INLINE void multiply_halves(const uint8_t *a, const uint8_t *b, size_t b_tile, bool two) {
    _tile_loadd(6, b, 64);
    _tile_loadd(4, a, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (two) {
        _tile_loadd(7, b + b_tile, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_loadd(5, a + 1024, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(4, a + 2048, 64);
    if (two) _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(5, a + 3072, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (two) _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    if (two) _tile_dpbf16ps(3, 5, 7);
}

/* The compiler does not know that tiles are read from memory, and when. */
INLINE void tiles_barrier(void) { __asm__ volatile("" : : : "memory"); }

/* Scores of a unit's rows. */
static void score_unit(const many_rows *m, int unit) {
    const size_t key_tile = 1024 * (size_t)m->key_steps, stride = PAGE * sizeof(float);
    tiles_barrier();
    for (int tile = 0; tile < 8; tile += 2) {
        const uint8_t *a = m->queries + 4096 * (size_t)(unit * m->key_steps), *b = m->keys + (size_t)tile * key_tile;
        float *to = m->scores + 16 * tile;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int s = 0; s < m->key_steps; s++) multiply_halves(a + 4096 * s, b + 1024 * s, key_tile, true);
        _tile_stored(0, to, stride);
        _tile_stored(1, to + 16, stride);
        _tile_stored(2, to + 16 * PAGE, stride);
        _tile_stored(3, to + 16 * PAGE + 16, stride);
    }
    tiles_barrier();
}

/* What the weights of a unit's rows gather. */
static void gather_unit(const many_rows *m, int unit) {
    const size_t dim = (size_t)m->rows->dim, stride = dim * sizeof(float);
    tiles_barrier();
    for (int tile = 0; tile < m->value_tiles; tile += 2) {
        bool two = tile + 1 < m->value_tiles;
        float *acc = m->rows->acc + (size_t)(unit * MANY_ROWS) * dim + 16 * tile;
        _tile_loadd(0, acc, stride);
        if (two) _tile_loadd(1, acc + 16, stride);
        _tile_loadd(2, acc + 16 * dim, stride);
        if (two) _tile_loadd(3, acc + 16 * dim + 16, stride);
        for (int s = 0; s < 4; s++)
            multiply_halves(m->weights + 4096 * s, m->values + (size_t)tile * HALVES_TILE + 1024 * s, HALVES_TILE, two);
        _tile_stored(0, acc, stride);
        if (two) _tile_stored(1, acc + 16, stride);
        _tile_stored(2, acc + 16 * dim, stride);
        if (two) _tile_stored(3, acc + 16 * dim + 16, stride);
    }
    tiles_barrier();
}

/* ---- softmax */

/* Two vectors of 16 floats -> rows of pairs: what bf16 keeps of each, cut off, and of the rest. */
INLINE void put_parts(__m512 a, __m512 b, uint8_t *to) {
    const __m512i upper = _mm512_set1_epi32(-65536);
    __m512i words_a = _mm512_castps_si512(a), words_b = _mm512_castps_si512(b);
    __m512i rest_a = _mm512_castps_si512(_mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_and_si512(words_a, upper))));
    __m512i rest_b = _mm512_castps_si512(_mm512_sub_ps(b, _mm512_castsi512_ps(_mm512_and_si512(words_b, upper))));
    _mm512_store_si512(to, choose_words(_mm512_srli_epi32(words_a, 16), words_b, 0xffff));
    _mm512_store_si512(to + 2048, choose_words(_mm512_srli_epi32(rest_a, 16), rest_b, 0xffff));
}

INLINE __m512 many_score(const many_rows *m, int i, int t, __m512 offset, tq_key_range seen, const bool whole) {
    __m512 y = _mm512_fmadd_ps(_mm512_load_ps(m->scores + i * PAGE + 16 * t), _mm512_load_ps(m->scales + 16 * t), offset);
    return whole ? y : only_seen(y, t, seen);
}

/* Row i of a unit. */
INLINE __m512 soften_many(const many_rows *m, int i, float shift, tq_key_range seen, const bool whole) {
    __m512 offset = _mm512_set1_ps(shift), total = _mm512_setzero_ps();
    uint8_t *to = m->weights + i / 16 * 1024 + i % 16 * 64;
    UNROLL for (int t = 0; t < 8; t += 2, to += 4096) {
        __m512 a = exp2_weights(many_score(m, i, t, offset, seen, whole)), b = exp2_weights(many_score(m, i, t + 1, offset, seen, whole));
        total = _mm512_add_ps(total, _mm512_add_ps(a, b));
        put_parts(_mm512_mul_ps(a, _mm512_load_ps(m->factors + 16 * t)), _mm512_mul_ps(b, _mm512_load_ps(m->factors + 16 * t + 16)), to);
    }
    return total;
}

static __attribute__((noinline)) __m512 soften_many_partly(const many_rows *m, int i, float shift, tq_key_range seen) {
    return soften_many(m, i, shift, seen, false);
}

/* Row `row` of all, row i of its unit, moves to a power of two near its largest score of this page, and what it gathered with it. */
static __attribute__((noinline)) void raise_many(many_rows *m, int i, int row) {
    tq_page_rows *rows = m->rows;
    float before = rows->max[row];
    __m512 tops = _mm512_set1_ps(-INFINITY), offset = _mm512_set1_ps(m->offsets[row]);
    for (int t = 0; t < 8; t++) tops = _mm512_max_ps(many_score(m, i, t, offset, range_of(m->page, row), false), tops);
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

/* Scores of 32 rows, or as many as there are, -> weights. */
static void soften_unit(many_rows *m, int unit) {
    tq_page_rows *rows = m->rows;
    int first = unit * MANY_ROWS, n = rows->n - first < MANY_ROWS ? rows->n - first : MANY_ROWS;
    bool whole = m->page->n == 128 && !m->page->seen;
    for (int i = 0; i < n; i++) {
        int row = first + i;
        if (rows->max[row] == -INFINITY) raise_many(m, i, row);
        float shift = m->offsets[row] - m->exponents[row];
        __m512 total = whole ? soften_many(m, i, shift, (tq_key_range){0, 128}, true) : soften_many_partly(m, i, shift, range_of(m->page, row));
        if (_mm512_cmp_ps_mask(total, _mm512_set1_ps(0x1p40f), _CMP_GT_OQ)) { /* rare: scores far above all before them */
            raise_many(m, i, row);
            total = soften_many_partly(m, i, m->offsets[row] - m->exponents[row], range_of(m->page, row));
        }
        m->sums[row] = _mm512_add_ps(m->sums[row], total);
    }
}

/* ---- a run of pages */

/* The queries in powers of two, as tiles: pairs of dims as panels of keys have them. */
static void prepare_many(many_rows *m) {
    const tq_page_rows *rows = m->rows;
    int units = (rows->n + MANY_ROWS - 1) / MANY_ROWS;
    memset(m->queries, 0, 4096 * (size_t)(units * m->key_steps));
    for (int row = 0; row < rows->n; row++) {
        uint8_t *to = m->queries + 4096 * (size_t)(row / MANY_ROWS * m->key_steps) + row % MANY_ROWS / 16 * 1024 + row % 16 * 64;
        for (int j = 0; j < rows->dim; j += 32, to += 4096) {
            float scaled[32] = {0};
            vi part[2];
            for (int k = 0; k < 32 && j + k < rows->dim; k += 16) store(scaled + k, load(rows->q + (size_t)row * (size_t)rows->dim + j + k) * LOG2E);
            split_values(scaled, 2, part);
            for (int i = 0; i < 2; i++)
                _mm512_store_si512(to + 2048 * i, _mm512_shufflehi_epi16(_mm512_shufflelo_epi16((__m512i)part[i], 0xd8), 0xd8));
        }
        m->exponents[row] = rows->max[row] == -INFINITY ? 0 : exponent_of(rows->max[row]);
        m->sums[row] = _mm512_maskz_mov_ps(1, _mm512_set1_ps(rows->sum[row]));
    }
}

static void begin_many(many_rows *m, const tq_planar_page *page) {
    const tq_page_rows *rows = m->rows;
    m->page = page;
    page_factors(page->value_scales, page->n, m->factors);
    for (int r = 0; r < 128; r += 16) {
        _mm512_store_ps(m->scales + r, (__m512)(load_f16(page->key_scales + r) * (1.0f / 127)));
        _mm512_store_ps(m->factors + r, (__m512)(load(m->factors + r) * (1.0f / 127)));
    }
    for (int row = 0; row < rows->n; row += 8) {
        int n = rows->n - row < 8 ? rows->n - row : 8;
        _mm256_mask_storeu_ps(m->offsets + row, (__mmask8)((1u << n) - 1), centre_scores(rows->q + (size_t)row * (size_t)rows->dim, n, rows->dim, page->centre));
    }
}

static void attend_many(const tq_planar_page *pages, int n_pages, tq_page_rows *rows) {
    many_rows m = {.rows = rows, .key_steps = (rows->dim + 31) / 32, .value_tiles = rows->dim / 16};
    size_t dims = ((size_t)rows->dim + 63) / 64 * 64;
    int units = (rows->n + MANY_ROWS - 1) / MANY_ROWS;
    uint8_t *at = rows->scratch;
    m.keys = at, at += 256 * dims;
    m.values = at, at += 256 * dims;
    m.queries = at, at += 4 * (size_t)(units * MANY_ROWS) * dims;
    m.scores = (float *)(void *)at, at += MANY_ROWS * PAGE * 4;
    m.weights = memset(at, 0, MANY_ROWS * PAGE * 4), at += MANY_ROWS * PAGE * 4;
    m.sums = (__m512 *)(void *)at, at += 64 * (size_t)(units * MANY_ROWS);
    m.offsets = (float *)(void *)at, m.exponents = m.offsets + units * MANY_ROWS;
    make_tables(&pages->keys, true, &m.key_tables);
    make_tables(&pages->values, true, &m.value_tables);
    prepare_many(&m);
    for (int p = 0; p < n_pages; p++) {
        const tq_planar_page *page = pages + p;
        m.fetch = fetch_of(pages + (p + 1 < n_pages ? p + 1 : p));
        unpack_tiles(&page->keys, &m.key_tables, 0, 8, m.keys, 1024 * (size_t)m.key_steps, &m.fetch, true);
        unpack_tiles(&page->values, &m.value_tables, 0, m.value_tiles, m.values, HALVES_TILE, &m.fetch, true);
        begin_many(&m, page);
        score_unit(&m, 0);
        for (int unit = 0; unit < units; unit++) {
            soften_unit(&m, unit);
            if (unit + 1 < units) score_unit(&m, unit + 1);
            gather_unit(&m, unit);
        }
    }
    for (int row = 0; row < rows->n; row++) rows->sum[row] = _mm512_reduce_add_ps(m.sums[row]);
}

/* ---- any number of rows */

static void attend_pages(const tq_planar_page *pages, int n_pages, tq_page_rows *rows) {
    if (rows->n <= TQ_PAGE_QUERIES) attend_few(pages, n_pages, rows);
    else attend_many(pages, n_pages, rows);
}
