/* tiles_avx512.h: matrices by tiles of 16 rows of 64 bytes, as AMX loads them and as 16 lanes of 16 registers.  Part of kernels_avx512.c and
 * kernels_amx.c.  row_of: which rows of W lanes stand for. */

enum { SIDE = 16, TILE_BYTES = 1024, TILE_FLOATS = 256 };

static int at_most_int(int a, int b) { return a < b ? a : b; }

/* 64 bytes of 16 rows -> dword by dword of all rows. */
INLINE void store_tile(vi m[SIDE], uint8_t *to) {
    transpose(m);
    for (int i = 0; i < SIDE; i++) _mm512_storeu_si512(to + 64 * i, (__m512i)m[i]);
}

/* Up to RUN 4-bit codes of 16 rows, column col and on: m[d] dword d of all rows.  Returns how many dwords there are. */
INLINE int turn_codes4(const tq_matrix *w, const int *row_of, int col, int n, vi m[SIDE]) {
    size_t row_bytes = tq_matrix_row_bytes(w);
    int dwords = n < RUN ? n / 8 : SIDE;
    __mmask16 some = (__mmask16)((1u << dwords) - 1);
    for (int l = 0; l < SIDE; l++)
        m[l] = (vi)_mm512_maskz_loadu_epi32(some, (const uint8_t *)w->data + (size_t)row_of[l] * row_bytes + (size_t)col / 2);
    transpose(m);
    return dwords;
}

/* Constants of n groups of 16 rows, lane l of m[g] row l's; groups that are not there are 0. */
INLINE void turn_constants(const void *constants, tq_dtype dtype, const int *row_of, int groups, int g0, int n, vi m[SIDE]) {
    __mmask16 some = (__mmask16)((1u << n) - 1);
    for (int l = 0; l < SIDE; l++) {
        size_t at = (size_t)row_of[l] * (size_t)groups + (size_t)g0;
        if (dtype == TQ_F32) {
            m[l] = (vi)_mm512_maskz_loadu_epi32(some, (const float *)constants + at);
        } else {
            __m256i half = _mm256_maskz_loadu_epi16(some, (const uint16_t *)constants + at);
            m[l] = dtype == TQ_F16 ? (vi)_mm512_cvtph_ps(half) : (vi)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
        }
    }
    transpose(m);
}

/* n columns -> a tile of 16 pairs of columns after the other. */
static void tiles_of_bf16(const tq_matrix *w, const int *row_of, int col0, int n, uint8_t *to) {
    for (int k = 0; k < n; k += 2 * SIDE, to += TILE_BYTES) {
        vi m[SIDE];
        for (int l = 0; l < SIDE; l++)
            m[l] = (vi)_mm512_loadu_si512((const uint16_t *)w->data + (size_t)row_of[l] * (size_t)w->cols + col0 + k);
        store_tile(m, to);
    }
}

/* Lines of the codes that are unpacked next, one a step. */
typedef struct code_fetch {
    const uint8_t *at; /* of the first row */
    size_t row_bytes;
    int rows, lines, line;
} code_fetch;

/* Columns col0 and on, at most n. */
static code_fetch fetch_behind(const tq_matrix *w, int row0, int n_rows, int col0, int n) {
    code_fetch f = {.row_bytes = tq_matrix_row_bytes(w)};
    if (col0 >= w->cols) return f;
    size_t from = f.row_bytes * (size_t)col0 / (size_t)w->cols, bytes = f.row_bytes * (size_t)at_most_int(n, w->cols - col0) / (size_t)w->cols;
    f.at = (const uint8_t *)w->data + (size_t)row0 * f.row_bytes + from;
    f.rows = n_rows, f.lines = (int)((bytes + 63) / 64);
    return f;
}

INLINE void fetch_codes(code_fetch *f) {
    if (f->rows == 0) return;
    __builtin_prefetch(f->at + f->line * 64, 0, 2);
    if (++f->line < f->lines) return;
    f->line = 0, f->rows--, f->at += f->row_bytes;
}
