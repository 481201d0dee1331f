/* matmul_amx.h: products with many tokens on tiles.  Part of kernels_amx.c.
 *
 * AFFINE matrices: a token is rounded to integers of 24 bits against its largest value, which is what a float32 sum would keep of it,
 * and those are taken apart into three planes of bytes.  Planes times codes are exact sums of 32 bits, a tile a plane and group; the
 * vector unit puts the three together, multiplies by the group's scales and adds its biases times the tokens' sums.
 *
 *     tile A: 16 tokens x 64 columns      tile B: 16 quads of columns x 16 rows of W      tile C: 16 tokens x 16 rows
 *
 * Every other matrix but F32: a token's value is the sum of three bf16 numbers, and so is a weight; bf16 weights are one, f16 ones
 * two.  Products of parts that matter in float32 are summed in float tiles, of 32 columns each.
 *
 * Codes stand as the nibbles of a dword come apart, eight at a time: 0, 2, 4, 6, 1, 3, 5, 7. */

enum {
    ROW_TILES = TQ_TILES_ROWS / SIDE,
    AMX_TOKENS = 48, /* of a call of matmul_prepare: tiles of every kind */
    /* codes */
    PLANES = 3, CODE_COLS = 64,
    CODE_CHUNK = 512,                       /* columns between two visits to y: 16 tokens of them stay in L1 */
    CHUNK_GROUPS = CODE_CHUNK / 32,         /* of the smallest group */
    /* floats */
    PARTS = 3, FLOAT_COLS = 32,
    FLOAT_CHUNK = 256,                      /* whole blocks of every type */
};

/* How a matrix wants many tokens: 0: as floats; 1: as parts; more: as planes, and its group's sums. */
static int tiled_kind(const tq_matrix *w) {
    int cols = w->kind == TQ_MATRIX_AFFINE ? CODE_COLS : FLOAT_COLS;
    if (w->kind == TQ_MATRIX_F32 || w->cols % cols) return 0;
    return w->kind == TQ_MATRIX_AFFINE ? w->group_size : 1;
}

static bool matmul_same_input_amx(const tq_matrix *a, const tq_matrix *b, int n) {
    return n > TQ_GEMV_TOKENS ? tiled_kind(a) == tiled_kind(b) : matmul_same_input(a, b, n);
}

static int chunks_of(int cols) { return (cols + CODE_CHUNK - 1) / CODE_CHUNK; }

/* ---- where prepared tokens stand: tile `index` of 16 */

/* (columns / 64, planes) tiles of bytes */
static uint8_t *planes_of(const tq_matmul_input *in, int index) {
    return (uint8_t *)in->prepared + (size_t)index * SIDE * PLANES * (size_t)in->cols;
}
/* (chunk, group, token): sums of a group's integers. */
static float *sums_of(const tq_matmul_input *in, int index) {
    uint8_t *after_planes = (uint8_t *)in->prepared + (size_t)TQ_GEMM_TOKENS * PLANES * (size_t)in->cols;
    return (float *)(void *)after_planes + (size_t)index * (size_t)chunks_of(in->cols) * CHUNK_GROUPS * SIDE;
}
/* What 1 of the integers is worth. */
static float *steps_of(const tq_matmul_input *in, int index) {
    return sums_of(in, TQ_GEMM_TOKENS / SIDE) + index * SIDE;
}
/* (columns / 32, parts) tiles of bf16 */
static uint8_t *parts_of(const tq_matmul_input *in, int index) {
    return (uint8_t *)in->prepared + (size_t)index * SIDE * 2 * PARTS * (size_t)in->cols;
}

/* ---- bf16 */

INLINE vi nearest_bf16(vf x) { return (vi)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)x)); }

/* Parts of a lane's value, in its lower word. */
INLINE void split_lanes(vf x, vi part[PARTS]) {
    for (int i = 0; i < PARTS; i++) {
        part[i] = nearest_bf16(x);
        x -= (vf)(part[i] << 16);
    }
}

/* Parts of 32 values. */
INLINE void split_values(const float *x, int parts, vi *part) {
    vf a = load(x), b = load(x + VL);
    for (int i = 0; i < parts; i++) {
        __m512i words = (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
        a -= (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(words)), 16);
        b -= (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words, 1)), 16);
        part[i] = (vi)words;
    }
}

/* ---- preparing activations */

enum { PLANE_TOP = 127 * 65536 }; /* the largest integer: digits are -128..127 */

/* The first places of VPERMI2B's result: byte `byte` of 32 integers, as codes stand; then the next byte of them. */
static __m512i plane_places(int byte) {
    static const uint8_t order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    uint8_t places[64];
    for (int i = 0; i < 32; i++) {
        places[i] = (uint8_t)(4 * (i / 8 * 8 + order[i % 8]) + byte);
        places[32 + i] = (uint8_t)(places[i] - 1);
    }
    return _mm512_loadu_si512(places);
}

/* 32 values to three planes; returns their sum (wraps where a value is not finite). */
INLINE int32_t put_byte_planes(const float *x, float inverse, __m512i upper_places, __m512i lower_places, uint8_t *to) {
    vi a = (vi)_mm512_cvtps_epi32((__m512)(load(x) * inverse)), b = (vi)_mm512_cvtps_epi32((__m512)(load(x + VL) * inverse));
    /* with 128 more in every byte, bytes carry as digits of -128..127 do; then it is taken away again: the sign bit */
    __m512i shifted_a = (__m512i)((vu)a + 0x808080), shifted_b = (__m512i)((vu)b + 0x808080), sign = _mm512_set1_epi8(-128);
    __m512i upper = _mm512_xor_si512(_mm512_permutex2var_epi8(shifted_a, upper_places, shifted_b), sign);
    __m512i lower = _mm512_xor_si512(_mm512_permutex2var_epi8(shifted_a, lower_places, shifted_b), sign);
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_castsi512_si256(upper));
    _mm256_storeu_si256((__m256i *)(void *)(to + TILE_BYTES), _mm512_extracti64x4_epi64(upper, 1));
    _mm256_storeu_si256((__m256i *)(void *)(to + 2 * TILE_BYTES), _mm512_extracti64x4_epi64(lower, 1));
    return _mm512_reduce_add_epi32((__m512i)((vu)a + (vu)b));
}

/* A token's planes from `to` on, rows 64 bytes apart from tile to tile; its sums from sums_to on; returns its step. */
static float prepare_planes(const float *x, int cols, int group, uint8_t *to, float *sums_to) {
    __m512i upper_places = plane_places(2), lower_places = plane_places(1);
    vf tops[2] = {{0}, {0}}, poison[2] = {{0}, {0}}; /* poison: 0, or NaN if a value is not finite; it goes into the step */
    for (int i = 0; i < cols; i += 2 * VL)
        for (int j = 0; j < 2; j++) {
            vf v = load(x + i + j * VL);
            tops[j] = max_magnitude(v, tops[j]);
            poison[j] += v * 0.0f;
        }
    float top = max_lanes(max_vf(tops[0], tops[1]));
    float inverse = top > 1e-29f ? PLANE_TOP / top : 0.0f; /* less is nothing, and its inverse no float */
    for (int k = 0; k < cols; k += group) {
        float sum = 0;
        for (int i = k; i < k + group; i += 32) {
            uint8_t *at = to + i / CODE_COLS * PLANES * TILE_BYTES + i % CODE_COLS;
            sum += (float)put_byte_planes(x + i, inverse, upper_places, lower_places, at); /* below 2^29 */
        }
        sums_to[(k / CODE_CHUNK * CHUNK_GROUPS + k % CODE_CHUNK / group) * SIDE] = sum;
    }
    return top / PLANE_TOP + sum_lanes(poison[0] + poison[1]);
}

static void prepare_parts(const float *x, int cols, uint8_t *to) {
    for (int k = 0; k < cols; k += FLOAT_COLS, to += PARTS * TILE_BYTES) {
        vi part[PARTS];
        split_values(x + k, PARTS, part);
        for (int i = 0; i < PARTS; i++) _mm512_storeu_si512(to + i * TILE_BYTES, (__m512i)part[i]);
    }
}

static void prepare_tokens(const tq_matmul_input *in, int index, int kind) {
    for (int t = 0; t < SIDE && index * SIDE + t < in->n; t++) {
        const float *x = in->x + (size_t)(index * SIDE + t) * (size_t)in->cols;
        if (kind > 1) steps_of(in, index)[t] = prepare_planes(x, in->cols, kind, planes_of(in, index) + t * 64, sums_of(in, index) + t);
        else prepare_parts(x, in->cols, parts_of(in, index) + t * 64);
    }
}

static void matmul_prepare_amx(const tq_matrix *w, const tq_matmul_input *in, int index) {
    int kind = tiled_kind(w);
    if (in->n <= TQ_GEMV_TOKENS) matmul_prepare(w, in, index);
    else if (kind)
        for (int i = 0; i < AMX_TOKENS / SIDE; i++) prepare_tokens(in, index * (AMX_TOKENS / SIDE) + i, kind);
    else
        for (int i = 0; i < AMX_TOKENS / GEMM_TOKENS && index * AMX_TOKENS + i * GEMM_TOKENS < in->n; i++)
            prepare_tile(in, index * (AMX_TOKENS / GEMM_TOKENS) + i);
}

/* ---- unpacking a chunk of weights: for every 16 rows a tile of some columns after the other */

typedef struct tile_panel {
    uint8_t *weights; /* row tile after row tile */
    size_t row_tile;  /* bytes of one */
    float *scales;    /* (row tile, group) times 16 rows, and then as many biases */
    float *rows;      /* 16 rows of floats, or of bytes */
} tile_panel;

enum {
    PANEL_BYTES = TQ_TILES_ROWS * FLOAT_CHUNK * 2 * PARTS,
    CONSTANTS = ROW_TILES * CHUNK_GROUPS * SIDE,
    ROWS_BYTES = SIDE * FLOAT_CHUNK * 4,
};
_Static_assert(PANEL_BYTES >= TQ_TILES_ROWS * CODE_CHUNK && ROWS_BYTES >= SIDE * CODE_CHUNK, "codes take less room");
_Static_assert(PANEL_BYTES + ROWS_BYTES <= TQ_TILES_SCRATCH * 4, "a panel of floats fits the scratch");
_Static_assert(TQ_TILES_ROWS * CODE_CHUNK + 2 * CONSTANTS * 4 + ROWS_BYTES <= TQ_TILES_SCRATCH * 4, "a panel of codes fits the scratch");

static tile_panel panel_in(float *scratch, bool affine, int parts) {
    tile_panel p = {.rows = scratch, .weights = (uint8_t *)scratch + ROWS_BYTES};
    p.row_tile = affine ? SIDE * CODE_CHUNK : SIDE * FLOAT_CHUNK * 2 * (size_t)parts;
    p.scales = (float *)(void *)(p.weights + (size_t)TQ_TILES_ROWS * CODE_CHUNK); /* affine only */
    return p;
}

/* A dword of each row is eight codes: after they have turned around, two quads. */
static void tiles_of_codes4(const tq_matrix *w, const int *row_of, int col0, int n, uint8_t *to) {
    for (int k = 0; k < n; k += RUN) {
        vi m[SIDE];
        int dwords = turn_codes4(w, row_of, col0 + k, n - k, m);
        for (int d = 0; d < dwords; d++, to += 128) {
            _mm512_storeu_si512(to, (__m512i)(m[d] & 0x0f0f0f0f));
            _mm512_storeu_si512(to + 64, (__m512i)(m[d] >> 4 & 0x0f0f0f0f));
        }
    }
}

static void tiles_of_codes(const tq_matrix *w, const int *row_of, int col0, int n, uint8_t *bytes, uint8_t *to) {
    const __m512i order = _mm512_broadcast_i32x4(_mm_set_epi8(15, 13, 11, 9, 14, 12, 10, 8, 7, 5, 3, 1, 6, 4, 2, 0));
    size_t row_bytes = tq_matrix_row_bytes(w);
    for (int l = 0; l < SIDE; l++)
        unpack_bytes((const uint8_t *)w->data + (size_t)row_of[l] * row_bytes + (size_t)col0 * (size_t)w->bits / 8, w->bits, n,
                     bytes + l * CODE_CHUNK);
    for (int k = 0; k < n; k += CODE_COLS, to += TILE_BYTES) {
        vi m[SIDE];
        for (int l = 0; l < SIDE; l++) m[l] = (vi)_mm512_shuffle_epi8(_mm512_loadu_si512(bytes + l * CODE_CHUNK + k), order);
        store_tile(m, to);
    }
}

static void tiles_of_constants(const tq_matrix *w, const int *row_of, int col0, int n, float *scales) {
    int groups = w->cols / w->group_size, n_groups = n / w->group_size, g0 = col0 / w->group_size;
    vi s[SIDE], b[SIDE];
    turn_constants(w->scales, w->scale_dtype, row_of, groups, g0, n_groups, s);
    turn_constants(w->biases, w->scale_dtype, row_of, groups, g0, n_groups, b);
    for (int g = 0; g < n_groups; g++) {
        store(scales + g * SIDE, (vf)s[g]);
        store(scales + CONSTANTS + g * SIDE, (vf)b[g]);
    }
}

static void tiles_of_floats(const tq_matrix *w, const int *row_of, int col0, int n, int parts, float *rows, uint8_t *to) {
    for (int l = 0; l < SIDE; l++) unpack_columns(w, row_of[l], col0, n, rows + l * FLOAT_CHUNK);
    for (int k = 0; k < n; k += FLOAT_COLS, to += parts * TILE_BYTES) {
        vi m[PARTS][SIDE], part[PARTS];
        for (int l = 0; l < SIDE; l++) {
            split_values(rows + l * FLOAT_CHUNK + k, parts, part);
            for (int i = 0; i < parts; i++) m[i][l] = part[i];
        }
        for (int i = 0; i < parts; i++) store_tile(m[i], to + i * TILE_BYTES);
    }
}

static void fill_tiles(const tq_matrix *w, int row0, int n_rows, int col0, int n, int parts, const tile_panel *p) {
    for (int tile = 0; tile < (n_rows + 2 * SIDE - 1) / (2 * SIDE) * 2; tile++) { /* by pairs */
        int row_of[SIDE];
        for (int l = 0; l < SIDE; l++) row_of[l] = row0 + (tile * SIDE + l < n_rows ? tile * SIDE + l : n_rows - 1);
        uint8_t *to = p->weights + (size_t)tile * p->row_tile;
        if (w->kind == TQ_MATRIX_BF16) tiles_of_bf16(w, row_of, col0, n, to);
        else if (w->kind != TQ_MATRIX_AFFINE) tiles_of_floats(w, row_of, col0, n, parts, p->rows, to);
        else {
            if (w->bits == 4) tiles_of_codes4(w, row_of, col0, n, to);
            else tiles_of_codes(w, row_of, col0, n, (uint8_t *)p->rows, to);
            tiles_of_constants(w, row_of, col0, n, p->scales + tile * CHUNK_GROUPS * SIDE);
        }
    }
}

/* ---- products with codes: 16 tokens, a panel of rows and a chunk of columns */

/* What is multiplied with a panel: up to 16 tokens. */
typedef struct code_block {
    const uint8_t *planes;
    const float *sums, *steps;
    const tile_panel *panel;
    int n_tokens, n_rows, n_groups;
    bool first; /* y is set, not added to */
    float *y;
    int ldy;
    code_fetch *fetch;
} code_block;

/* A group of a row tile: its planes, codes, constants and sums of tokens. */
typedef struct code_place {
    int row_tile, group;
} code_place;

INLINE void next_place(code_place *at, int n_groups) {
    if (++at->group == n_groups) at->group = 0, at->row_tile++;
}

/* Row t of a group's sums: (plane 0 * 256 + plane 1) * 256 + plane 2, of which the last two fit 32 bits. */
INLINE vf row_sums(const int32_t *sums, int t) {
    vi low = (vi)((vu)load_vi(sums + TILE_FLOATS + t * SIDE) << 8) + load_vi(sums + 2 * TILE_FLOATS + t * SIDE);
    return to_float(load_vi(sums + t * SIDE)) * 65536.0f + to_float(low);
}

/* Three things at a time, which the processor would not find by itself, for each is hundreds of operations: a group's sums are made
 * in three tiles, those of the group before are stored from three others, and those of the one before that go through the vector
 * unit.  Each product is followed by a store and a third of the vector's work, so that none waits for another.
 * S0..S2 are made, T0..T2 stored; rows of acc. */
#define PLANE_STEP(S, T, plane, from, to)                                                                                 \
    for (int line = from; line < to; line++) __builtin_prefetch(ahead + 64 * line);                                       \
    if (plane == 0) _tile_loadd(7, b, 64);                                                                                \
    _tile_loadd(6, a + plane * TILE_BYTES, 64);                                                                           \
    _tile_zero(S);                                                                                                        \
    _tile_dpbsud(S, 6, 7);                                                                                                \
    _tile_stored(T, sums[!odd] + plane * TILE_FLOATS, 64);                                                                \
    _Pragma("GCC unroll 16") for (int t = from; t < to; t++) acc[t] += row_sums(sums[odd], t) * scales + biases * token_sums[t];
#define GROUP_STEP(S0, S1, S2, T0, T1, T2)                                                                                \
    PLANE_STEP(S0, T0, 0, 0, 5)                                                                                           \
    PLANE_STEP(S1, T1, 1, 5, 10)                                                                                          \
    PLANE_STEP(S2, T2, 2, 10, 16)                                                                                         \
    if (group == 128) { /* two tiles of columns */                                                                        \
        _tile_loadd(7, b + TILE_BYTES, 64);                                                                               \
        _tile_loadd(6, a + PLANES * TILE_BYTES, 64);                                                                      \
        _tile_dpbsud(S0, 6, 7);                                                                                           \
        _tile_loadd(6, a + (PLANES + 1) * TILE_BYTES, 64);                                                                \
        _tile_dpbsud(S1, 6, 7);                                                                                           \
        _tile_loadd(6, a + (PLANES + 2) * TILE_BYTES, 64);                                                                \
        _tile_dpbsud(S2, 6, 7);                                                                                           \
    }

/* y (tokens, 16 rows or fewer) = acc times steps, or that added to y; acc = 0. */
INLINE void put_rows(const code_block *m, vf acc[SIDE], int row0) {
    int rows = m->n_rows - row0;
    __mmask16 some = (__mmask16)(rows < SIDE ? (1u << rows) - 1 : 0xffff);
    float *y = m->y + row0;
    _Pragma("GCC unroll 16") for (int t = 0; t < SIDE; t++, y += m->ldy) {
        if (t < m->n_tokens) {
            vf before = m->first ? (vf){0} : (vf)_mm512_maskz_loadu_ps(some, y);
            _mm512_mask_storeu_ps(y, some, (__m512)(acc[t] * m->steps[t] + before));
        }
        acc[t] = (vf){0};
    }
}

/* Step i: place `made` is multiplied, the one before stored, and `summed`, the one before that, added up.  Before the first place
 * whatever is there is added 0 times, and after the last one it is multiplied again: so steps have no conditions. */
INLINE void code_step(const code_block *m, const int group, const bool odd, int32_t sums[2][PLANES * TILE_FLOATS], code_place *made,
                      code_place *summed, const int row_tiles, int i, vf acc[SIDE]) {
    const tile_panel *p = m->panel;
    const int k = made->group * group, constants = (summed->row_tile * CHUNK_GROUPS + summed->group) * SIDE;
    const uint8_t *a = m->planes + k / CODE_COLS * PLANES * TILE_BYTES + k % CODE_COLS;
    const uint8_t *b = p->weights + (size_t)made->row_tile * p->row_tile + k / 4 * 64, *ahead = b;
    next_place(made, m->n_groups);
    if (made->row_tile < row_tiles) ahead = p->weights + (size_t)made->row_tile * p->row_tile + made->group * group / 4 * 64;
    else *made = (code_place){row_tiles - 1, m->n_groups - 1};
    const float *token_sums = m->sums + summed->group * SIDE;
    vf scales = {0}, biases = {0};
    if (i > 1) scales = load(p->scales + constants), biases = load(p->scales + CONSTANTS + constants);
    fetch_codes(m->fetch);
    if (odd) {
        GROUP_STEP(3, 4, 5, 0, 1, 2)
    } else {
        GROUP_STEP(0, 1, 2, 3, 4, 5)
    }
    if (i < 2) return;
    if (summed->group == m->n_groups - 1) put_rows(m, acc, summed->row_tile * SIDE);
    next_place(summed, m->n_groups);
}

/* group: 32 (tiles half as deep), 64 or 128, known when it is compiled.  All groups of a row tile, and row tile after row tile. */
INLINE void multiply_codes(const code_block *m, const int group) {
    _Alignas(64) int32_t sums[2][PLANES * TILE_FLOATS] = {{0}};
    vf acc[SIDE] = {{0}};
    code_place made = {0, 0}, summed = {0, 0};
    const int row_tiles = (m->n_rows + SIDE - 1) / SIDE, steps = row_tiles * m->n_groups + 2;
    for (int i = 0; i < steps; i += 2) {
        code_step(m, group, false, sums, &made, &summed, row_tiles, i, acc);
        if (i + 1 < steps) code_step(m, group, true, sums, &made, &summed, row_tiles, i + 1, acc);
    }
}

static __attribute__((noinline)) void multiply_group32(const code_block *m) { multiply_codes(m, 32); }
static __attribute__((noinline)) void multiply_group64(const code_block *m) { multiply_codes(m, 64); }
static __attribute__((noinline)) void multiply_group128(const code_block *m) { multiply_codes(m, 128); }

/* ---- products with parts: 32 tokens, 32 rows, a chunk of columns */

typedef struct part_block {
    const uint8_t *a, *b;
    size_t a_tile, b_tile; /* bytes to the second tile of tokens, of rows */
    int n_tiles;           /* of columns */
} part_block;

/* Tiles 0..3 += part i of tokens times part j of rows. */
INLINE void multiply_part(const uint8_t *a, size_t a_tile) {
    _tile_loadd(4, a, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + a_tile, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* Those parts whose product is within 2^-24 of the whole. */
INLINE void multiply_parts(const part_block *m, float *to, const int parts) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const uint8_t *a = m->a, *b = m->b;
    for (int k = 0; k < m->n_tiles; k++, a += PARTS * TILE_BYTES, b += parts * TILE_BYTES)
        for (int j = parts - 1; j >= 0; j--) {
            _tile_loadd(6, b + j * TILE_BYTES, 64);
            _tile_loadd(7, b + m->b_tile + j * TILE_BYTES, 64);
            for (int i = PARTS - 1 - j; i >= 0; i--) multiply_part(a + i * TILE_BYTES, m->a_tile);
        }
    _tile_stored(0, to, 64);
    _tile_stored(1, to + TILE_FLOATS, 64);
    _tile_stored(2, to + 2 * TILE_FLOATS, 64);
    _tile_stored(3, to + 3 * TILE_FLOATS, 64);
}

static __attribute__((noinline)) void multiply_one_part(const part_block *m, float *to) { multiply_parts(m, to, 1); }
static __attribute__((noinline)) void multiply_two_parts(const part_block *m, float *to) { multiply_parts(m, to, 2); }
static __attribute__((noinline)) void multiply_three_parts(const part_block *m, float *to) { multiply_parts(m, to, 3); }

/* ---- the whole product */

/* y (tokens, rows), up to 16 each: tile, or that added to y. */
static void put_tile(const float *tile, int tokens, int rows, bool first, float *y, int ldy) {
    __mmask16 some = (__mmask16)(rows < SIDE ? (1u << rows) - 1 : 0xffff);
    for (int t = 0; t < tokens; t++, y += ldy) {
        vf sum = load(tile + t * SIDE);
        if (!first) sum += (vf)_mm512_maskz_loadu_ps(some, y);
        _mm512_mask_storeu_ps(y, some, (__m512)sum);
    }
}

static void gemm_codes(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, int col0, int n, const tile_panel *p,
                       float *y, int ldy) {
    code_fetch fetch = fetch_behind(w, row0, n_rows, col0 + n, CODE_CHUNK);
    code_block m = {.panel = p, .n_rows = n_rows, .n_groups = n / w->group_size, .first = col0 == 0, .ldy = ldy, .fetch = &fetch};
    void (*multiply)(const code_block *) = w->group_size == 32   ? multiply_group32
                                           : w->group_size == 64 ? multiply_group64
                                                                 : multiply_group128;
    for (int t = 0; t * SIDE < in->n; t++) {
        m.planes = planes_of(in, t) + (size_t)col0 / CODE_COLS * PLANES * TILE_BYTES;
        m.sums = sums_of(in, t) + col0 / CODE_CHUNK * CHUNK_GROUPS * SIDE;
        m.steps = steps_of(in, t);
        m.n_tokens = at_most_int(SIDE, in->n - t * SIDE);
        m.y = y + (size_t)(t * SIDE) * (size_t)ldy;
        multiply(&m);
    }
}

static void gemm_parts(int parts, int n_rows, const tq_matmul_input *in, int col0, int n, const tile_panel *p, float *y, int ldy) {
    _Alignas(64) float tiles[4 * TILE_FLOATS];
    part_block m = {.a_tile = (size_t)SIDE * 2 * PARTS * (size_t)in->cols, .b_tile = p->row_tile, .n_tiles = n / FLOAT_COLS};
    for (int t = 0; t * SIDE < in->n; t += 2) {
        m.a = parts_of(in, t) + (size_t)col0 / FLOAT_COLS * PARTS * TILE_BYTES;
        for (int r = 0; r * SIDE < n_rows; r += 2) {
            m.b = p->weights + (size_t)r * p->row_tile;
            (parts == 1 ? multiply_one_part : parts == 2 ? multiply_two_parts : multiply_three_parts)(&m, tiles);
            for (int i = 0; i < 4; i++) {
                int t0 = (t + i / 2) * SIDE, r0 = (r + i % 2) * SIDE;
                if (t0 < in->n && r0 < n_rows)
                    put_tile(tiles + i * TILE_FLOATS, at_most_int(SIDE, in->n - t0), at_most_int(SIDE, n_rows - r0), col0 == 0,
                             y + (size_t)t0 * (size_t)ldy + r0, ldy);
            }
        }
    }
}

static const struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} whole_tiles = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}},
  /* groups of 32: planes (tile 6) are 32 bytes wide, codes (7) 8 quads deep */
  half_tiles = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 32, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 8}};

static void gemm_tiled(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, float *y, int ldy, float *scratch) {
    bool affine = w->kind == TQ_MATRIX_AFFINE;
    int parts = w->kind == TQ_MATRIX_BF16 ? 1 : w->kind == TQ_MATRIX_F16 ? 2 : PARTS, at_a_time = affine ? CODE_CHUNK : FLOAT_CHUNK;
    tile_panel p = panel_in(scratch, affine, parts);
    _tile_loadconfig(affine && w->group_size == 32 ? &half_tiles : &whole_tiles);
    for (int col0 = 0; col0 < w->cols; col0 += at_a_time) {
        int n = at_most_int(at_a_time, w->cols - col0);
        fill_tiles(w, row0, n_rows, col0, n, parts, &p);
        __asm__ volatile("" ::: "memory"); /* loads of tiles do not tell the compiler what they read */
        if (affine) gemm_codes(w, row0, n_rows, in, col0, n, &p, y, ldy);
        else gemm_parts(parts, n_rows, in, col0, n, &p, y, ldy);
    }
    _tile_release();
}

static void gemm_amx(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, float *y, int ldy, float *scratch) {
    if (tiled_kind(w)) {
        gemm_tiled(w, row0, n_rows, in, y, ldy, scratch);
        return;
    }
    for (int r = 0; r < n_rows; r += TQ_GEMM_ROWS)
        gemm(w, row0 + r, at_most_int(n_rows - r, TQ_GEMM_ROWS), in, y + r, ldy, scratch);
}

#define MATMUL_KERNELS_AMX                                                                                                \
    .gemm_tile = AMX_TOKENS, .gemm_rows = TQ_TILES_ROWS, .matmul_same_input = matmul_same_input_amx,                      \
    .matmul_prepare = matmul_prepare_amx, .gemm = gemm_amx
