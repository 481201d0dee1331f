/* attend_many_amx.h: runs of whole pages against many query rows, the chunks of a prefill, with tiles of bf16.  Included by kernels_amx.c.
 *
 * Queries and weights are two bf16 numbers each, 16 bits of a value whatever its size; levels are one, exactly (panels_amx.h).  So scores
 * come out of the tiles as floats, what is gathered is added up in them, and a weight needs no second pass against the largest.  The panels
 * take longer to unpack than bytes and are multiplied twice as long, for a third of the vector unit's work less.
 *
 * The work goes by 32 rows and half a page, which is four tiles of products at a time whose sums stay in registers and 16 KB of scores and
 * weights.  The vector unit takes as long for the softmax as the tiles for the products of two such units: those that come next and those
 * that were softened last, a step of eight tile products every few rows. */

enum { MANY_ROWS = TQ_MANY_ROWS, HALF_KEYS = 64, HALVES_TILE = 4096 /* a tile of values, 128 tokens */ };

/* Products of 32 rows with half a page. */
typedef struct tile_job {
    int half, unit, buffer, step, n_steps;
} tile_job;

typedef struct many_rows {
    const tq_planar_page *page;
    tq_page_rows *rows;
    page_fetch fetch;
    panel_tables key_tables, value_tables;
    int key_steps, value_tiles; /* of 32 dims, of 16 */
    uint8_t *keys, *values;     /* panels */
    uint8_t *queries;           /* (units, key steps, parts, 2) tiles */
    float *scores[2];           /* (32, 64) */
    uint8_t *weights[2];        /* (2 steps, parts, 2) tiles */
    __m512 *sums;               /* of a row */
    float *offsets, *exponents; /* of a row: its product with the centre; what its softmax is relative to */
    tile_job scoring, gathering;
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

static tile_job scoring_of(const many_rows *m, int half, int unit, int buffer) {
    return (tile_job){half, unit, buffer, 0, 2 * m->key_steps};
}

/* Two tiles of keys, 32 dims; then the next dims. */
static void score_step(many_rows *m, tile_job *job) {
    int pair = job->step / m->key_steps, s = job->step % m->key_steps;
    size_t key_tile = 1024 * (size_t)m->key_steps;
    if (s == 0) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    multiply_halves(m->queries + 4096 * (size_t)(job->unit * m->key_steps + s), m->keys + (size_t)(4 * job->half + 2 * pair) * key_tile + 1024 * (size_t)s,
                    key_tile, true);
    if (s + 1 == m->key_steps) {
        float *to = m->scores[job->buffer] + 32 * pair;
        _tile_stored(0, to, HALF_KEYS * 4);
        _tile_stored(1, to + 16, HALF_KEYS * 4);
        _tile_stored(2, to + 16 * HALF_KEYS, HALF_KEYS * 4);
        _tile_stored(3, to + 16 * HALF_KEYS + 16, HALF_KEYS * 4);
    }
    job->step++;
}

static tile_job gathering_of(const many_rows *m, int half, int unit, int buffer) {
    return (tile_job){half, unit, buffer, 0, (m->value_tiles + 1) / 2 * 2};
}

/* Two tiles of values, 32 tokens; then the other 32. */
static void gather_step(many_rows *m, tile_job *job) {
    int pair = job->step / 2, s = job->step % 2;
    bool two = 2 * pair + 1 < m->value_tiles;
    size_t dim = (size_t)m->rows->dim;
    float *acc = m->rows->acc + (size_t)(job->unit * MANY_ROWS) * dim + 32 * pair;
    if (s == 0) {
        _tile_loadd(0, acc, dim * 4);
        if (two) _tile_loadd(1, acc + 16, dim * 4);
        _tile_loadd(2, acc + 16 * dim, dim * 4);
        if (two) _tile_loadd(3, acc + 16 * dim + 16, dim * 4);
    }
    multiply_halves(m->weights[job->buffer] + 4096 * s, m->values + (size_t)(2 * pair) * HALVES_TILE + 1024 * (size_t)(2 * job->half + s), HALVES_TILE,
                    two);
    if (s == 1) {
        _tile_stored(0, acc, dim * 4);
        if (two) _tile_stored(1, acc + 16, dim * 4);
        _tile_stored(2, acc + 16 * dim, dim * 4);
        if (two) _tile_stored(3, acc + 16 * dim + 16, dim * 4);
    }
    job->step++;
}

static bool tiles_wait(const many_rows *m) {
    return m->scoring.step < m->scoring.n_steps || m->gathering.step < m->gathering.n_steps;
}

/* The compiler does not know that tiles are read from memory, and when. */
static void run_step(many_rows *m) {
    __asm__ volatile("" : : : "memory");
    if (m->scoring.step < m->scoring.n_steps) score_step(m, &m->scoring);
    else if (m->gathering.step < m->gathering.n_steps) gather_step(m, &m->gathering);
    __asm__ volatile("" : : : "memory");
}

static void finish_steps(many_rows *m) {
    while (tiles_wait(m)) run_step(m);
}

/* ---- softmax of a row and half a page */

/* Two vectors of 16 floats -> rows of pairs: what bf16 keeps of each, cut off, and of the rest. */
INLINE void put_parts(__m512 a, __m512 b, uint8_t *to) {
    const __m512i upper = _mm512_set1_epi32(-65536);
    __m512i words_a = _mm512_castps_si512(a), words_b = _mm512_castps_si512(b);
    __m512i rest_a = _mm512_castps_si512(_mm512_sub_ps(a, _mm512_castsi512_ps(_mm512_and_si512(words_a, upper))));
    __m512i rest_b = _mm512_castps_si512(_mm512_sub_ps(b, _mm512_castsi512_ps(_mm512_and_si512(words_b, upper))));
    _mm512_store_si512(to, choose_words(_mm512_srli_epi32(words_a, 16), words_b, 0xffff));
    _mm512_store_si512(to + 2048, choose_words(_mm512_srli_epi32(rest_a, 16), rest_b, 0xffff));
}

/* Where a row's weights stand; those of the next 32 keys 4096 bytes on. */
INLINE uint8_t *weights_at(const many_rows *m, int buffer, int row) { return m->weights[buffer] + row / 16 * 1024 + row % 16 * 64; }

INLINE __m512 half_score(const many_rows *m, const float *scores, int half, int t, __m512 offset, tq_key_range seen, const bool whole) {
    __m512 y = _mm512_fmadd_ps(_mm512_load_ps(scores + 16 * t), _mm512_load_ps(m->scales + HALF_KEYS * half + 16 * t), offset);
    return whole ? y : only_seen(y, 4 * half + t, seen);
}

INLINE __m512 soften_half(const many_rows *m, int half, int buffer, int row, float shift, tq_key_range seen, const bool whole) {
    const float *scores = m->scores[buffer] + row * HALF_KEYS, *factors = m->factors + HALF_KEYS * half;
    __m512 offset = _mm512_set1_ps(shift), total = _mm512_setzero_ps();
    uint8_t *to = weights_at(m, buffer, row);
    UNROLL for (int t = 0; t < 4; t += 2) {
        __m512 a = exp2_weights(half_score(m, scores, half, t, offset, seen, whole));
        __m512 b = exp2_weights(half_score(m, scores, half, t + 1, offset, seen, whole));
        total = _mm512_add_ps(total, _mm512_add_ps(a, b));
        put_parts(_mm512_mul_ps(a, _mm512_load_ps(factors + 16 * t)), _mm512_mul_ps(b, _mm512_load_ps(factors + 16 * t + 16)), to + 2048 * t);
    }
    return total;
}

static __attribute__((noinline)) __m512 soften_half_partly(const many_rows *m, int half, int buffer, int row, float shift, tq_key_range seen) {
    return soften_half(m, half, buffer, row, shift, seen, false);
}

/* Row `row` of all moves to a power of two near its largest score of this half, and what it gathered with it. */
static __attribute__((noinline)) void raise_many(many_rows *m, int half, int buffer, int row) {
    tq_page_rows *rows = m->rows;
    finish_steps(m); /* what was gathered is all there */
    float before = rows->max[row];
    __m512 tops = _mm512_set1_ps(-INFINITY), offset = _mm512_set1_ps(m->offsets[row]);
    for (int t = 0; t < 4; t++)
        tops = _mm512_max_ps(half_score(m, m->scores[buffer] + row % MANY_ROWS * HALF_KEYS, half, t, offset, range_of(m->page, row), false), tops);
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

/* 32 rows, or as many as there are, while tiles are multiplied. */
static void soften_unit(many_rows *m, int half, int unit, int buffer) {
    tq_page_rows *rows = m->rows;
    int first = unit * MANY_ROWS, n = rows->n - first < MANY_ROWS ? rows->n - first : MANY_ROWS;
    int steps = m->scoring.n_steps + m->gathering.n_steps, due = 0;
    bool whole = m->page->n == 128 && !m->page->seen;
    for (int i = 0; i < n; i++) {
        int row = first + i;
        for (due += steps; due >= n; due -= n) run_step(m);
        if (rows->max[row] == -INFINITY) raise_many(m, half, buffer, row);
        float shift = m->offsets[row] - m->exponents[row];
        __m512 total = whole ? soften_half(m, half, buffer, i, shift, (tq_key_range){0, 128}, true)
                             : soften_half_partly(m, half, buffer, i, shift, range_of(m->page, row));
        if (_mm512_cmp_ps_mask(total, _mm512_set1_ps(0x1p40f), _CMP_GT_OQ)) { /* rare: scores far above all before them */
            raise_many(m, half, buffer, row);
            total = soften_half_partly(m, half, buffer, i, m->offsets[row] - m->exponents[row], range_of(m->page, row));
        }
        m->sums[row] = _mm512_add_ps(m->sums[row], total);
    }
    finish_steps(m);
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

static void unpack_many_keys(many_rows *m, const tq_planar_page *page) {
    for (int tile = 0; tile < 8; tile++) {
        unpack_tiles(&page->keys, &m->key_tables, tile, tile + 1, m->keys, 1024 * (size_t)m->key_steps, &m->fetch, true);
        run_step(m);
    }
}

static void unpack_many_values(many_rows *m, const tq_planar_page *page) {
    int at_once = page->values.weave ? tq_weave_codes(page->values.bits) : 1;
    for (int tile = 0; tile < m->value_tiles; tile += at_once) {
        unpack_tiles(&page->values, &m->value_tables, tile, tile + at_once, m->values, HALVES_TILE, &m->fetch, true);
        run_step(m);
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
    for (int i = 0; i < 2; i++) {
        m.scores[i] = (float *)(void *)at, at += MANY_ROWS * HALF_KEYS * 4;
        m.weights[i] = at, at += MANY_ROWS * HALF_KEYS * 4;
        memset(m.weights[i], 0, MANY_ROWS * HALF_KEYS * 4);
    }
    m.sums = (__m512 *)(void *)at, at += 64 * (size_t)(units * MANY_ROWS);
    m.offsets = (float *)(void *)at, m.exponents = m.offsets + units * MANY_ROWS;
    make_tables(&pages->keys, true, &m.key_tables);
    make_tables(&pages->values, true, &m.value_tables);
    prepare_many(&m);
    int buffer = 0;
    for (int p = 0; p < n_pages; p++) {
        m.fetch = fetch_of(pages + (p + 1 < n_pages ? p + 1 : p));
        unpack_many_keys(&m, pages + p); /* while the last products of the page before are gathered */
        finish_steps(&m);
        m.scoring = scoring_of(&m, 0, 0, buffer);
        unpack_many_values(&m, pages + p);
        begin_many(&m, pages + p);
        finish_steps(&m);
        for (int item = 0; item < 2 * units; item++) {
            int half = item / units, unit = item % units, next = item + 1;
            if (next < 2 * units) m.scoring = scoring_of(&m, next / units, next % units, !buffer);
            soften_unit(&m, half, unit, buffer);
            m.gathering = gathering_of(&m, half, unit, buffer);
            buffer = !buffer;
        }
    }
    finish_steps(&m);
    for (int row = 0; row < rows->n; row++) rows->sum[row] = _mm512_reduce_add_ps(m.sums[row]);
}

/* ---- any number of rows */

static void attend_pages(const tq_planar_page *pages, int n_pages, tq_page_rows *rows) {
    if (rows->n <= TQ_PAGE_QUERIES) attend_few(pages, n_pages, rows);
    else attend_many(pages, n_pages, rows);
}
