/* matmul_bf16.h: products with many tokens in bf16, for those who ask for them (tq_model_params.prefill).  Part of kernels_avx512.c, which
 * multiplies by VDPBF16PS, and of kernels_amx.c, which does so by tiles.
 *
 * A token's values and the weights are rounded to bf16, to nearest, ties to even; their products are exact and added up in float32.  So a
 * result is off by 2^-8 of the sum of its products' magnitudes, at most: about what a model loses that computes in bf16, as most were made to.
 *
 *     tile A: 16 tokens x 32 columns      tile B: 16 pairs of columns x 16 rows of W      tile C: 16 tokens x 16 rows */

enum {
    BF16_COLS = 2 * SIDE,
#ifdef BF16_TILES
    BF16_CHUNK = 256, /* columns unpacked at a time: those of 32 tokens stay in L1 while rows pass by */
#else
    BF16_CHUNK = 512, /* those of 32 rows, while tokens pass by */
#endif
    BF16_ROWS = TQ_TILES_ROWS,
    BF16_TOKENS = 512,  /* of a call: each unpacks all weights once */
#ifdef BF16_TILES
    BF16_SUMS = BF16_ROWS * BF16_TOKENS, /* kept between chunks */
#else
    BF16_SUMS = 0, /* they are in the result */
#endif
    BF16_PANEL = BF16_CHUNK / BF16_COLS * TILE_BYTES, /* bytes of 16 rows */
    BF16_FLOATS = 256,  /* columns of a row unpacked to floats at a time */
};
_Static_assert(BF16_TOKENS * 2 <= TQ_GEMM_TOKENS * 6, "prepared tokens have room");
_Static_assert(SIDE * BF16_FLOATS * 4 + BF16_ROWS / SIDE * BF16_PANEL + BF16_SUMS * 4 <= TQ_TILES_SCRATCH * 4, "a panel and sums fit the scratch");

/* VDPBF16PS and roundings are another processor's than those of kernels_avx512.c. */
#define WITH_BF16 __attribute__((target("avx512bf16")))

static bool has_avx512_bf16(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

static bool bf16_takes(const tq_matrix *w) { return w->kind != TQ_MATRIX_F32 && w->cols % BF16_COLS == 0; }

/* The tiles of 16 tokens, number `index`, and the chunk of columns from col0 on.  Chunks stand one after the other, so that what is
 * multiplied at a time has all of L2's sets.  Tokens that are not there have any values, and results that nobody reads. */
static uint8_t *bf16_tokens(const tq_matmul_input *in, int index, int col0) {
    size_t tokens = ((size_t)in->n + SIDE - 1) / SIDE * SIDE, cols = (size_t)at_most_int(BF16_CHUNK, in->cols - col0);
    return (uint8_t *)in->prepared + 2 * (tokens * (size_t)col0 + (size_t)index * SIDE * cols);
}

WITH_BF16 static void put_bf16(const tq_matmul_input *in, int index, int col0, int n, const float *x, int ldx) {
    for (int k = 0, part; k < n; k += part) { /* of chunks */
        int chunk = (col0 + k) / BF16_CHUNK * BF16_CHUNK;
        part = at_most_int(chunk + BF16_CHUNK - (col0 + k), n - k);
        for (int t = 0; t < SIDE && index * SIDE + t < in->n; t++) {
            const float *from = x + (size_t)t * (size_t)ldx + k;
            uint8_t *to = bf16_tokens(in, index, chunk) + (col0 + k - chunk) / BF16_COLS * TILE_BYTES + t * 64;
            for (int i = 0; i < part; i += BF16_COLS, to += TILE_BYTES)
                _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)load(from + i + VL), (__m512)load(from + i)));
        }
    }
}

static void prepare_bf16(const tq_matmul_input *in, int index) {
    put_bf16(in, index, 0, in->cols, in->x + (size_t)(index * SIDE) * (size_t)in->cols, in->cols);
}

/* ---- weights */

/* Nibble i of a lane as 1 + code / 16. */
INLINE vf nibble_level(vi v, const int i) {
    vu at = i < 5 ? (vu)v << (i < 5 ? 19 - 4 * i : 0) : (vu)v >> (i < 5 ? 0 : 4 * i - 19);
    return (vf)_mm512_ternarylogic_epi32((__m512i)at, _mm512_set1_epi32(0x00780000), _mm512_set1_epi32(0x3f800000), 0xea); /* a & b | c */
}

/* Nibbles i and i + 1 of 16 rows -> pairs. */
WITH_BF16 INLINE void store_pairs(uint8_t *to, vi v, const int i, vf scale, vf bias, __m512i order) {
    vf even = nibble_level(v, i) * scale + bias, odd = nibble_level(v, i + 1) * scale + bias;
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even)));
}

/* A dword of each row is eight codes, which are four pairs. */
WITH_BF16 static void bf16_of_codes4(const tq_matrix *w, const int *row_of, int col0, int n, uint8_t *to) {
    uint16_t places[2 * SIDE];
    for (int l = 0; l < 2 * SIDE; l++) places[l] = (uint16_t)(l / 2 + l % 2 * SIDE);
    const __m512i order = _mm512_loadu_si512(places);
    int groups = w->cols / w->group_size, g0 = col0 / w->group_size, n_groups = n / w->group_size;
    vi scales[SIDE], biases[SIDE];
    turn_constants(w->scales, w->scale_dtype, row_of, groups, g0, n_groups, scales);
    turn_constants(w->biases, w->scale_dtype, row_of, groups, g0, n_groups, biases);
    for (int k = 0; k < n; k += RUN) {
        vi m[SIDE];
        int dwords = turn_codes4(w, row_of, col0 + k, n - k, m);
        for (int d = 0; d < dwords; d++, to += 256) {
            int g = (k + 8 * d) / w->group_size;
            vf scale = (vf)scales[g] * 16.0f, bias = (vf)biases[g] - scale;
            store_pairs(to, m[d], 0, scale, bias, order);
            store_pairs(to + 64, m[d], 2, scale, bias, order);
            store_pairs(to + 128, m[d], 4, scale, bias, order);
            store_pairs(to + 192, m[d], 6, scale, bias, order);
        }
    }
}

WITH_BF16 static void bf16_of_floats(const tq_matrix *w, const int *row_of, int col0, int n, float *rows, uint8_t *to) {
    for (int k0 = 0; k0 < n; k0 += BF16_FLOATS) {
        int part = at_most_int(BF16_FLOATS, n - k0);
        for (int l = 0; l < SIDE; l++) unpack_columns(w, row_of[l], col0 + k0, part, rows + l * BF16_FLOATS);
        for (int k = 0; k < part; k += BF16_COLS, to += TILE_BYTES) {
            vi m[SIDE];
            for (int l = 0; l < SIDE; l++) {
                const float *x = rows + l * BF16_FLOATS + k;
                m[l] = (vi)_mm512_cvtne2ps_pbh((__m512)load(x + VL), (__m512)load(x));
            }
            store_tile(m, to);
        }
    }
}

/* What n columns of 16 rows are unpacked from, whole lines of it: from memory, it takes longer to come than to be unpacked. */
static void fetch_rows(const tq_matrix *w, int row0, int n_rows, int col0, int n) {
    size_t row_bytes = tq_matrix_row_bytes(w), from = row_bytes * (size_t)col0 / (size_t)w->cols, bytes = row_bytes * (size_t)n / (size_t)w->cols;
    for (int r = row0; r < row0 + n_rows; r++) {
        const uint8_t *at = (const uint8_t *)w->data + (size_t)r * row_bytes + from;
        for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i);
        if (w->kind != TQ_MATRIX_AFFINE) continue;
        size_t constant = tq_dtype_bytes(w->scale_dtype) * (((size_t)r * (size_t)w->cols + (size_t)col0) / (size_t)w->group_size);
        __builtin_prefetch((const uint8_t *)w->scales + constant);
        __builtin_prefetch((const uint8_t *)w->biases + constant);
    }
}

static void fill_bf16(const tq_matrix *w, int row0, int n_rows, int col0, int n, float *rows, uint8_t *panel) {
    for (int r = 0; r < (n_rows + 2 * SIDE - 1) / (2 * SIDE) * 2; r++, panel += BF16_PANEL) { /* by pairs */
        int row_of[SIDE];
        for (int l = 0; l < SIDE; l++) row_of[l] = row0 + at_most_int(r * SIDE + l, n_rows - 1);
        fetch_rows(w, row0 + (r + 1) * SIDE, at_most_int(SIDE, n_rows - (r + 1) * SIDE), col0, n);
        if (w->kind == TQ_MATRIX_BF16) tiles_of_bf16(w, row_of, col0, n, panel);
        else if (w->kind == TQ_MATRIX_AFFINE && w->bits == 4) bf16_of_codes4(w, row_of, col0, n, panel);
        else bf16_of_floats(w, row_of, col0, n, rows, panel);
    }
}

/* ---- products of up to BF16_BLOCK tokens and 32 rows: the sum over n tiles of columns, and over the chunks before */

typedef struct bf16_block {
    const uint8_t *a, *b;
    size_t next_a; /* bytes to the next 16 tokens */
    int n, tokens, rows;
    bool first, last; /* of the chunks of columns */
    float *y;         /* (tokens, rows); with tiles: four of them, one after the other */
    int ldy;
} bf16_block;

#ifdef BF16_TILES
enum { BF16_BLOCK = 2 * SIDE };

/* Tiles of tokens are in L1 and those of rows in L2; the processor fetches them early enough by itself. */
INLINE void bf16_step(const uint8_t *a, size_t next_a, const uint8_t *b) {
    _tile_loadd(6, b, 64);
    _tile_loadd(4, a, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + BF16_PANEL, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + next_a, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

static void multiply_bf16(const bf16_block *m) {
    float *sums = m->y;
    if (m->first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + TILE_FLOATS, 64);
        _tile_loadd(2, sums + 2 * TILE_FLOATS, 64);
        _tile_loadd(3, sums + 3 * TILE_FLOATS, 64);
    }
    const uint8_t *a = m->a, *b = m->b;
    for (int k = 0; k < m->n; k++, a += TILE_BYTES, b += TILE_BYTES) bf16_step(a, m->next_a, b);
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + TILE_FLOATS, 64);
    _tile_stored(2, sums + 2 * TILE_FLOATS, 64);
    _tile_stored(3, sums + 3 * TILE_FLOATS, 64);
}

/* The sums of up to 32 tokens and n_rows rows, 32 rows a block, -> y. */
static void put_sums(const float *sums, int tokens, int n_rows, float *y, int ldy) {
    for (int t = 0; t < tokens; t++, y += ldy)
        for (int r = 0; r < n_rows; r += SIDE) {
            const float *from = sums + r / SIDE / 2 * 4 * TILE_FLOATS + (t / SIDE * 2 + r / SIDE % 2) * TILE_FLOATS + t % SIDE * SIDE;
            _mm512_mask_storeu_ps(y + r, (__mmask16)((1u << at_most_int(SIDE, n_rows - r)) - 1), (__m512)load(from));
        }
}

/* All rows of the chunk: tokens stay in L1 while rows pass by, and results leave as whole runs of a token's: y is in no cache near. */
static void multiply_chunk(bf16_block *m, const tq_matmul_input *in, int col0, int n_rows, const uint8_t *panel, float *sums, float *y,
                           code_fetch *fetch) {
    const size_t ldy = (size_t)m->ldy;
    for (int t = 0; t < in->n; t += BF16_BLOCK, sums = m->y, y += BF16_BLOCK * ldy) {
        int tokens = at_most_int(BF16_BLOCK, in->n - t);
        m->a = bf16_tokens(in, t / SIDE, col0), m->b = panel, m->y = sums;
        for (int r = 0; r < n_rows; r += 2 * SIDE, m->b += 2 * BF16_PANEL, m->y += 4 * TILE_FLOATS) {
            for (int i = BF16_BLOCK * r / n_rows; m->last && i < at_most_int(BF16_BLOCK * (r + 2 * SIDE) / n_rows, tokens); i++)
                for (int at = 0; at < n_rows; at += SIDE) __builtin_prefetch(y + (size_t)i * ldy + at, 0, 2);
            multiply_bf16(m);
            for (int i = 0; i < BF16_BLOCK / 4; i++) fetch_codes(fetch);
        }
        if (m->last) put_sums(sums, tokens, n_rows, y, m->ldy);
    }
}
#else
enum { BF16_BLOCK = 8 }; /* times 32 rows: 16 of 32 registers, more than what is on its way */

WITH_BF16 static void multiply_bf16(const bf16_block *m) {
    __mmask16 some[2] = {(__mmask16)((1u << at_most_int(SIDE, m->rows)) - 1), (__mmask16)(m->rows > SIDE ? (1u << (m->rows - SIDE)) - 1 : 0)};
    __m512 sum[BF16_BLOCK][2];
    _Pragma("GCC unroll 8") for (int t = 0; t < BF16_BLOCK; t++)
        for (int r = 0; r < 2; r++) {
            sum[t][r] = _mm512_setzero_ps();
            if (!m->first && t < m->tokens) sum[t][r] = _mm512_maskz_loadu_ps(some[r], m->y + t * m->ldy + r * SIDE);
        }
    const uint8_t *a = m->a, *b = m->b;
    for (int k = 0; k < m->n; k++, a += TILE_BYTES)
        for (int j = 0; j < SIDE; j++, b += 64) {
            __m512bh w0 = (__m512bh)_mm512_load_si512(b), w1 = (__m512bh)_mm512_load_si512(b + BF16_PANEL);
            _Pragma("GCC unroll 8") for (int t = 0; t < BF16_BLOCK; t++) {
                int32_t pair;
                memcpy(&pair, a + t * 64 + j * 4, sizeof pair);
                __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
                sum[t][0] = _mm512_dpbf16_ps(sum[t][0], w0, x);
                sum[t][1] = _mm512_dpbf16_ps(sum[t][1], w1, x);
            }
        }
    _Pragma("GCC unroll 8") for (int t = 0; t < BF16_BLOCK; t++)
        for (int r = 0; r < 2; r++)
            if (t < m->tokens) _mm512_mask_storeu_ps(m->y + t * m->ldy + r * SIDE, some[r], sum[t][r]);
}

static void multiply_chunk(bf16_block *m, const tq_matmul_input *in, int col0, int n_rows, const uint8_t *panel, float *sums, float *y,
                           code_fetch *fetch) {
    (void)sums;
    for (int r = 0; r < n_rows; r += 2 * SIDE)
        for (int t = 0; t < in->n; t += BF16_BLOCK) {
            m->a = bf16_tokens(in, t / SIDE, col0) + t % SIDE * 64, m->b = panel + r / SIDE * BF16_PANEL;
            m->tokens = at_most_int(BF16_BLOCK, in->n - t), m->rows = at_most_int(2 * SIDE, n_rows - r);
            m->y = y + (size_t)t * (size_t)m->ldy + r;
            multiply_bf16(m);
            for (int i = 0; i < BF16_BLOCK / 4; i++) fetch_codes(fetch);
        }
}
#endif

static void gemm_bf16(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, float *y, int ldy, float *scratch) {
    uint8_t *panel = (uint8_t *)(scratch + SIDE * BF16_FLOATS);
    float *sums = (float *)(void *)(panel + BF16_ROWS / SIDE * BF16_PANEL);
#ifdef BF16_TILES
    _tile_loadconfig(&whole_tiles);
#endif
    for (int col0 = 0; col0 < w->cols; col0 += BF16_CHUNK) {
        int n = at_most_int(BF16_CHUNK, w->cols - col0);
        fill_bf16(w, row0, n_rows, col0, n, scratch, panel);
        code_fetch fetch = fetch_behind(w, row0, n_rows, col0 + n, BF16_CHUNK);
        bf16_block m = {.next_a = SIDE * 2 * (size_t)n, .n = n / BF16_COLS, .first = col0 == 0, .last = col0 + n == w->cols, .ldy = ldy};
        __asm__ volatile("" ::: "memory"); /* loads of tiles do not tell the compiler what they read */
        multiply_chunk(&m, in, col0, n_rows, panel, sums, y, &fetch);
        __asm__ volatile("" ::: "memory");
    }
#ifdef BF16_TILES
    _tile_release();
#endif
}

static const tq_bf16_kernels bf16_kernels = {.runs_here = has_avx512_bf16, .tile = SIDE, .rows = BF16_ROWS, .tokens = BF16_TOKENS,
                                             .takes = bf16_takes, .prepare = prepare_bf16, .put = put_bf16, .gemm = gemm_bf16,
#ifdef BF16_TILES
                                             .attends = true,
#endif
};
