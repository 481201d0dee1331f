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

/* Lines of the next page, one at a time between other work: keys, then values. */
typedef struct page_fetch {
    const uint8_t *at, *end, *then, *then_end;
} page_fetch;

static page_fetch fetch_of(const tq_planar_page *page) {
    const tq_page_codes *k = &page->keys, *v = &page->values;
    page_fetch f = {k->codes, k->codes, k->codes, k->codes}; /* nothing to fetch: always the same line */
    if (v->next_bytes) f = (page_fetch){v->next, v->next + v->next_bytes, v->next, v->next};
    if (k->next_bytes) f = (page_fetch){k->next, k->next + k->next_bytes, f.at, f.end};
    return f;
}

INLINE void fetch_next(page_fetch *f) {
    __builtin_prefetch(f->at, 0, 3);
    f->at += 64;
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

INLINE void unpack_tiles_of(const tq_page_codes *side, int from, int to, int panel_vectors, uint8_t *panel, page_fetch *f,
                            const int bits) {
    page_tables t = {0};
    if (bits < 8) {
        t = page_tables_of(side->levels, bits);
        for (int i = 0; i < 6; i++) t.at[i] = _mm512_xor_si512(t.at[i], _mm512_set1_epi8(-128));
    }
    panel += (size_t)from * (size_t)panel_vectors * 64;
    for (int tile = from; tile < to; tile++, panel += panel_vectors * 64) {
        unpack_signed(&t, side->codes + (size_t)tile * side->tile_bytes, side->n_vectors, panel, f, bits);
        for (int v = side->n_vectors; v < panel_vectors; v++) _mm512_store_si512(panel + 64 * v, _mm512_setzero_si512());
    }
}

/* Tiles from..to-1 of a side -> panel, each filled up to panel_vectors with zeros. */
static void unpack_tiles(const tq_page_codes *side, int from, int to, int panel_vectors, uint8_t *panel, page_fetch *f) {
    switch (side->bits) {
    case 2: unpack_tiles_of(side, from, to, panel_vectors, panel, f, 2); break;
    case 3: unpack_tiles_of(side, from, to, panel_vectors, panel, f, 3); break;
    case 4: unpack_tiles_of(side, from, to, panel_vectors, panel, f, 4); break;
    default: unpack_tiles_of(side, from, to, panel_vectors, panel, f, 8);
    }
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

/* What a block of rows has of a page: its products with 128 keys, and their scales. */
typedef struct page_block {
    const int32_t *dots; /* (8 tiles, 8 rows, high and low, 16) */
    float scales[128], factors[128];
    float *weights; /* (8, 128) */
} page_block;

/* Scores of keys 16 t on, in powers of two: products * unit * scale + offset; -infinity where nothing is seen. */
INLINE __m512 page_score(const page_block *b, int row, int t, __m512 unit, __m512 offset, tq_key_range seen) {
    const int32_t *at = b->dots + 256 * t + 32 * row;
    __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(at), 8), _mm512_load_si512(at + 16));
    __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(_mm512_load_ps(b->scales + 16 * t), unit), offset);
    int from = seen.from - 16 * t, to = seen.to - 16 * t;
    if (from <= 0 && to >= 16) return y;
    uint32_t below_to = to <= 0 ? 0 : to >= 16 ? 0xffff : (1u << to) - 1;
    uint32_t below_from = from <= 0 ? 0 : from >= 16 ? 0xffff : (1u << from) - 1;
    return _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), (__mmask16)(below_to & ~below_from), y);
}

static float largest_score(const page_block *b, int row, float unit, float offset, tq_key_range seen) {
    __m512 top = _mm512_set1_ps(-INFINITY);
    for (int t = 0; t < 8; t++)
        top = _mm512_max_ps(page_score(b, row, t, _mm512_set1_ps(unit), _mm512_set1_ps(offset), seen), top);
    return _mm512_reduce_max_ps(top);
}

INLINE void soften_tiles(const page_block *b, int row, float unit, float offset, tq_key_range seen, page_fetch *f,
                         __m512 *sum, __m512 *most) {
    __m512 total = _mm512_setzero_ps(), largest = total, u = _mm512_set1_ps(unit), o = _mm512_set1_ps(offset);
    UNROLL for (int t = 0; t < 8; t++) {
        __m512 e = exp2_weights(page_score(b, row, t, u, o, seen));
        total = _mm512_add_ps(total, e);
        e = _mm512_mul_ps(e, _mm512_load_ps(b->factors + 16 * t));
        largest = _mm512_range_ps(e, largest, 11); /* without signs, the larger */
        _mm512_store_ps(b->weights + 128 * row + 16 * t, e);
        fetch_next(f);
    }
    *sum = total;
    *most = largest;
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

/* Rows of a block move to the power of two that this page wants. */
static void raise_row(const tq_page_rows *rows, int row, float largest, int dim) {
    if (!(largest < INFINITY)) return; /* it will be no number, whatever it is relative to */
    float before = rows->max[row];
    rows->max[row] = __builtin_rintf(largest) * LN2;
    if (before == -INFINITY) return;
    float keep = _mm_cvtss_f32(_mm_scalef_ss(_mm_set_ss(1), _mm_set_ss(exponent_of(before) - exponent_of(rows->max[row]))));
    rows->sum[row] *= keep;
    scale(rows->acc + (size_t)row * (size_t)dim, dim, keep);
}

/* One block of up to eight rows from `first` on: products -> weights as bytes; step[i]: what one of their integers is worth,
 * beside 1 / 127. */
INLINE void soften_block(page_block *b, const tq_planar_page *page, const tq_key_range *seen, const tq_page_rows *rows,
                         int first, int n_q, page_fetch *f, int8_t *weights, float *step) {
    const int dim = page->dim;
    __m512 sums[8], mosts[8];
    float offset[8] __attribute__((aligned(32))), unit[8], most[8], total[8], inverse[8];
    for (int i = 0; i < 8; i++) sums[i] = mosts[i] = _mm512_setzero_ps();
    for (int j = 0; j < dim; j += 16) {
        __m512 centre = (__m512)load_f16(page->centre + j);
        for (int i = 0; i < n_q; i++)
            sums[i] = _mm512_fmadd_ps(_mm512_loadu_ps(rows->q + (size_t)(first + i) * (size_t)dim + j), centre, sums[i]);
    }
    _mm256_store_ps(offset, _mm256_mul_ps(sums_of_eight(sums), _mm256_set1_ps(LOG2E)));
    for (int i = 0; i < n_q; i++) {
        int row = first + i;
        unit[i] = rows->q_int.step[row] * (LOG2E / 127);
        if (rows->max[row] == -INFINITY && seen[row].from < seen[row].to)
            raise_row(rows, row, largest_score(b, i, unit[i], offset[i], seen[row]), dim);
    }
    for (int i = 0; i < n_q; i++) {
        float to = rows->max[first + i] == -INFINITY ? 0 : exponent_of(rows->max[first + i]);
        tq_key_range all = {0, 128};
        if (seen[first + i].from <= 0 && seen[first + i].to >= 128)
            soften_tiles(b, i, unit[i], offset[i] - to, all, f, sums + i, mosts + i);
        else soften_tiles(b, i, unit[i], offset[i] - to, seen[first + i], f, sums + i, mosts + i);
    }
    _mm256_storeu_ps(total, sums_of_eight(sums));
    _mm256_storeu_ps(most, largest_of_eight(mosts));
    for (int i = 0; i < n_q; i++) {
        int row = first + i;
        bool sees = seen[row].from < seen[row].to;
        if (sees && total[i] > 0x1p40f) { /* rare: the largest so far by far */
            raise_row(rows, row, largest_score(b, i, unit[i], offset[i], seen[row]), dim);
            soften_tiles(b, i, unit[i], offset[i] - exponent_of(rows->max[row]), seen[row], f, sums + i, mosts + i);
            total[i] = _mm512_reduce_add_ps(sums[i]);
            most[i] = _mm512_reduce_max_ps(mosts[i]);
        }
        rows->sum[row] += sees ? total[i] : 0;
        step[i] = sees ? most[i] * (1.0f / 32512) : 0;
        inverse[i] = most[i] > 1e-33f ? 32512.0f / most[i] : 0;
    }
    for (int i = 0; i < n_q; i++) round_weights(b->weights + 128 * i, inverse[i], weights + i * 2 * TQ_INT_STRIDE);
}

static void attend_page(const tq_planar_page *page, const tq_key_range *seen, const tq_page_rows *rows) {
    const int dim = page->dim, steps = (dim + 63) / 64, n_values = dim / 16;
    const size_t panel_bytes = 128 * 64 * (size_t)steps, key_bytes = 1024 * (size_t)steps;
    uint8_t *keys = rows->scratch, *values = keys + panel_bytes;
    int32_t *dots = (int32_t *)(void *)(values + panel_bytes);
    page_block b = {.dots = dots, .weights = (float *)(dots + 256 * (4 * steps > 8 ? 4 * steps : 8))};
    int8_t *weights = (int8_t *)(b.weights + TQ_PAGE_QUERIES * 128);
    page_fetch f = fetch_of(page);
    for (int r = 0; r < 128; r += 16) _mm512_store_ps(b.scales + r, (__m512)load_f16(page->key_scales + r));
    float poison = page_factors(page->value_scales, page->n, b.factors);
    unpack_tiles(&page->keys, 0, 8, 16 * steps, keys, &f);
    for (int row = 0; row < rows->n; row += TQ_PAGE_QUERIES) {
        int n_q = rows->n - row < TQ_PAGE_QUERIES ? rows->n - row : TQ_PAGE_QUERIES;
        const int8_t *q = rows->q_int.high + (size_t)row * 2 * TQ_INT_STRIDE;
        /* The first eight rows' products meet the unpacking of the values, which needs other units. */
        multiply_tiles(q, keys, key_bytes, steps, 4);
        if (row == 0) unpack_tiles(&page->values, 0, n_values / 2, 32, values, &f);
        store_tiles(dots, 4);
        multiply_tiles(q, keys + 4 * key_bytes, key_bytes, steps, 4);
        if (row == 0) unpack_tiles(&page->values, n_values / 2, n_values, 32, values, &f);
        store_tiles(dots + 1024, 4);
        float step[TQ_PAGE_QUERIES];
        soften_block(&b, page, seen, rows, row, n_q, &f, weights, step);
        for (int t = 0; t < n_values; t += 4) {
            int n = n_values - t < 4 ? n_values - t : 4;
            multiply_tiles(weights, values + (size_t)t * 2048, 2048, 2, n);
            store_tiles(dots + 256 * t, n);
        }
        for (int i = 0; i < n_q; i++) {
            __m512 worth = _mm512_set1_ps(step[i] * (1.0f / 127) + poison);
            float *acc = rows->acc + (size_t)(row + i) * (size_t)dim;
            for (int t = 0; t < n_values; t++) {
                const int32_t *at = dots + 256 * t + 32 * i;
                __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(at), 8), _mm512_load_si512(at + 16));
                _mm512_storeu_ps(acc + 16 * t, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), worth, _mm512_loadu_ps(acc + 16 * t)));
            }
        }
    }
}
