/* matmul_bytes.h: a few tokens against matrices of codes, where the processor sums products of bytes (VPDPBUSD).
 *
 * Part of matmul_body.h, for the sets that define BYTE_DOTS, and
 *     dot_bytes(sum, u, s)        sum[l] + u[4 l] * s[4 l] + ... + u[4 l + 3] * s[4 l + 3]: unsigned times signed bytes (int32)
 *     nearest(v)                  VL floats to the nearest int32
 *     put_digits(v, places, to)   VL int32, as bytes in the order `places`, less 128: 3 VL bytes of them
 *     BYTE_TOKENS                 tokens whose sums stay in registers: 6 registers each
 *
 * Values.  Each group of a token is rounded to whole numbers of 24 bits against its largest value, which is what a float32 sum
 * would keep of it, and those are taken apart into three planes of signed bytes.  Codes times planes are exact sums of 32 bits.
 * The weights' codes turn around in registers, so that a lane is a row: no sum goes across lanes, and what a row and a token get is
 * the same fixed sequence of operations, group after group, whatever other rows and tokens there are.
 *
 * The order of values.  A quad is four columns; a dword of eight 4-bit codes is the quads 0, 2, 4, 6 and 1, 3, 5, 7; other widths
 * go through bytes in natural order, and so do GGUF's blocks, of 4 bits or more.  A prepared token has 12 bytes a quad: of the highest plane four, then of the others. */

enum {
    PLANE_COUNT = 3,
    QUAD_DIGITS = 4 * PLANE_COUNT,
    PANEL_TILES = 2,               /* of VL rows: both use a token's bytes while they are in a register */
    PANEL_ROWS = PANEL_TILES * VL,
    PANEL_COLS = 512,              /* columns unpacked at a time: they stay in L1 */
    DIGITS_TOP = 127 * 65536,      /* the largest whole number: digits are -128..127 */
};

/* ---- preparing activations ------------------------------------------------------------------------------------------------ */

/* Columns that share constants, of a matrix of codes. */
static int code_group(const tq_matrix *w) { return w->kind == TQ_MATRIX_BLOCKS ? block_group(w->block_type) : w->group_size; }

/* Matrices with the same number take the same integers; 0: none. */
static int integer_kind(const tq_matrix *w) {
    if (w->kind == TQ_MATRIX_BLOCKS) return -block_group(w->block_type);
    if (w->kind != TQ_MATRIX_AFFINE) return 0;
    return w->bits == 4 ? w->group_size : -w->group_size;
}

static size_t token_bytes(const tq_matrix *w) { return (size_t)w->cols * PLANE_COUNT; }
static int group_stride(const tq_matrix *w) { return (w->cols / code_group(w) + 15) / 16 * 16; }

/* Where the bytes of VL int32 go: quads of the highest plane, the middle one, the lowest one. */
static void digit_places(bool nibbles, uint8_t places[3 * VL]) {
    static const uint8_t natural[8] = {0, 1, 2, 3, 4, 5, 6, 7}, apart[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    for (int i = 0; i < 3 * VL; i++) {
        int column = i / 12 * 4 + i % 4, plane = 2 - i % 12 / 4;
        places[i] = (uint8_t)(4 * (column / 8 * 8 + (nibbles ? apart : natural)[column % 8]) + plane);
    }
}

static void prepare_token(const tq_matrix *w, const tq_matmul_input *in, int t) {
    int group = code_group(w), stride = group_stride(w);
    const float *x = in->x + (size_t)t * (size_t)in->cols;
    uint8_t *to = (uint8_t *)in->prepared + (size_t)t * token_bytes(w), places[3 * VL];
    float *step = in->step + (size_t)t * (size_t)stride, *sum = in->sum + (size_t)t * (size_t)stride;
    digit_places(w->kind == TQ_MATRIX_AFFINE && w->bits == 4, places);
    for (int g = 0; g < w->cols / group; g++, x += group) {
        vf tops = {0}, poison = {0}; /* poison: 0, or NaN if a value is not finite; it goes into the step */
        for (int i = 0; i < group; i += VL) {
            vf v = load(x + i);
            tops = max_magnitude(v, tops);
            poison += v * 0.0f;
        }
        float top = max_lanes(tops), inverse = top > 1e-29f ? DIGITS_TOP / top : 0.0f; /* less is nothing, and its inverse no float */
        vu total = {0}; /* unsigned: what a NaN leaves must not overflow */
        for (int i = 0; i < group; i += VL, to += 3 * VL) {
            vi value = nearest(load(x + i) * inverse);
            total += (vu)value;
            put_digits((vi)((vu)value + 0x808080), places, to);
        }
        step[g] = top / DIGITS_TOP + sum_lanes(poison);
        sum[g] = step[g] * sum_lanes(to_float((vi)total));
    }
}

/* ---- a panel: some columns of PANEL_ROWS rows ------------------------------------------------------------------------------ */

typedef struct code_panel {
    uint8_t *codes;          /* (dword of a row, tile) of VL rows: four codes, or eight of 4 bits */
    float *scales, *biases;  /* (VL groups, PANEL_ROWS) */
    uint8_t *bytes;          /* (VL, PANEL_COLS): rows on their way */
} code_panel;

static code_panel code_panel_in(float *scratch) {
    code_panel p = {.codes = (uint8_t *)scratch};
    p.scales = scratch + PANEL_COLS * PANEL_ROWS / 4;
    p.biases = p.scales + VL * PANEL_ROWS;
    p.bytes = (uint8_t *)(p.biases + VL * PANEL_ROWS);
    return p;
}
static float *sums_in(float *scratch) { return scratch + PANEL_COLS * PANEL_ROWS / 4 + 2 * VL * PANEL_ROWS + VL * PANEL_COLS / 4; }
_Static_assert(PANEL_COLS * PANEL_ROWS / 4 + 2 * VL * PANEL_ROWS + VL * PANEL_COLS / 4 + TQ_GEMV_TOKENS * PANEL_ROWS <= TQ_TILES_SCRATCH,
               "a panel and its sums fit the scratch");

/* What memory is asked for while a panel is at work: the next panel's rows, line after line, as the processor's own prefetching
 * likes it.  That sees little in 32 rows at once, and what it does not fetch waits for a few buffers next to L1. */
typedef struct line_cursor {
    uintptr_t at;
    size_t step; /* 64, or 0: the tokens before have fetched it */
} line_cursor;

INLINE void fetch_lines(line_cursor *c, int n) {
    for (int i = 0; i < n; i++, c->at += c->step) __builtin_prefetch((const void *)c->at, 0, 2);
}

/* VL dwords of each of VL rows turn around: m[d]: dword d of all rows. */
INLINE void turn_dwords(const uint8_t *const rows[VL], size_t at, vi m[VL]) {
    for (int l = 0; l < VL; l++) m[l] = load_vi(rows[l] + at);
    transpose(m);
}

/* The same for the last ones, of which there are `some`: behind the last row is no memory. */
static void turn_some_dwords(const uint8_t *const rows[VL], size_t at, int some, vi m[VL]) {
    for (int l = 0; l < VL; l++) {
        m[l] = (vi){0};
        memcpy(&m[l], rows[l] + at, (size_t)some * 4);
    }
    transpose(m);
}

/* n bytes of each of VL rows, whole dwords. */
static __attribute__((noinline)) void fill_dwords(const uint8_t *const rows[VL], size_t at, size_t n, line_cursor *next, uint8_t *to) {
    vi m[VL];
    line_cursor c = *next;
    for (size_t end = at + n / BYTES * BYTES; at < end; at += BYTES, to += VL * PANEL_TILES * BYTES) {
        fetch_lines(&c, VL / 2);
        turn_dwords(rows, at, m);
        for (int d = 0; d < VL; d++) *(vi_unaligned *)(to + d * PANEL_TILES * BYTES) = m[d];
    }
    *next = c;
    int some = (int)(n % BYTES) / 4;
    if (some) turn_some_dwords(rows, at, some, m);
    for (int d = 0; d < some; d++) *(vi_unaligned *)(to + d * PANEL_TILES * BYTES) = m[d];
}

static void fill_codes(const tq_matrix *w, const int row_of[VL], int col0, int n, const code_panel *p, line_cursor *next, uint8_t *to) {
    size_t row_bytes = tq_matrix_row_bytes(w);
    const uint8_t *rows[VL];
    for (int l = 0; l < VL; l++) rows[l] = (const uint8_t *)w->data + (size_t)row_of[l] * row_bytes;
    if (w->bits == 4 || w->bits == 8) {
        fill_dwords(rows, (size_t)col0 * (size_t)w->bits / 8, (size_t)n * (size_t)w->bits / 8, next, to);
        return;
    }
    for (int l = 0; l < VL; l++) {
        unpack_bytes(rows[l] + (size_t)col0 * (size_t)w->bits / 8, w->bits, n, p->bytes + l * PANEL_COLS);
        rows[l] = p->bytes + l * PANEL_COLS;
    }
    fill_dwords(rows, 0, (size_t)n, next, to);
}

/* VL constants from `at` on, of `end` that there are: behind the last row is no memory. */
static vi load_last_constants(const void *constants, tq_dtype dtype, size_t at, size_t end) {
    float some[VL] = {0};
    for (int i = 0; i < VL && at + (size_t)i < end; i++) some[i] = affine_constant(constants, at + (size_t)i, dtype);
    return load_vi(some);
}

/* Constants of n <= VL groups from g0 on: lane l of to[g * PANEL_ROWS] is row l's. */
INLINE void fill_constants(const void *constants, const tq_dtype dtype, const int row_of[VL], int groups, int g0, int n, size_t end,
                           float *to) {
    vi m[VL];
    if ((size_t)row_of[VL - 1] * (size_t)groups + (size_t)g0 + VL <= end) {
        for (int l = 0; l < VL; l++)
            m[l] = (vi)affine_constants(constants, (size_t)row_of[l] * (size_t)groups + (size_t)g0, dtype);
    } else {
        for (int l = 0; l < VL; l++)
            m[l] = load_last_constants(constants, dtype, (size_t)row_of[l] * (size_t)groups + (size_t)g0, end);
    }
    transpose(m);
    for (int g = 0; g < VL / 2; g++) store(to + g * PANEL_ROWS, (vf)m[g]);
    for (int g = VL / 2; n > VL / 2 && g < VL; g++) store(to + g * PANEL_ROWS, (vf)m[g]);
}

INLINE void fill_scales(const tq_matrix *w, const tq_dtype dtype, const int row_of[PANEL_ROWS], int g0, const code_panel *p) {
    int groups = w->cols / w->group_size, n = groups - g0 < VL ? groups - g0 : VL;
    size_t end = (size_t)w->rows * (size_t)groups;
    for (int i = 0; i < PANEL_ROWS; i += VL) {
        fill_constants(w->scales, dtype, row_of + i, groups, g0, n, end, p->scales + i);
        fill_constants(w->biases, dtype, row_of + i, groups, g0, n, end, p->biases + i);
    }
}

static __attribute__((noinline)) void fill_affine_scales(const tq_matrix *w, const int row_of[PANEL_ROWS], int g0, const code_panel *p) {
    if (w->scale_dtype == TQ_BF16) fill_scales(w, TQ_BF16, row_of, g0, p);
    else if (w->scale_dtype == TQ_F16) fill_scales(w, TQ_F16, row_of, g0, p);
    else fill_scales(w, TQ_F32, row_of, g0, p);
}

#include "backend/cpu/matmul_bytes_blocks.h"

/* ---- products ------------------------------------------------------------------------------------------------------------------ */

typedef struct token_block {
    const uint8_t *digits;    /* of the first token, at the panel's first column */
    const float *step, *sum;  /* at its first group */
    size_t stride;            /* bytes from token to token */
    int group_stride, first_group; /* first_group: of the panel's */
    float *acc;               /* (tokens, PANEL_ROWS) */
    line_cursor next;
} token_block;

/* What a group adds to a row's sum.  step and sum: the token's, in every lane. */
INLINE vf add_group(vf acc, const vi digits[PLANE_COUNT], vf step, vf sum, vf scales, vf biases) {
    vi upper = (vi)((vu)digits[0] << 8) + digits[1]; /* below 2^30 + 2^22: a group of 128 codes of 8 bits */
    vf dots = to_float(upper) * 256.0f + to_float(digits[2]);
    vf value = dots * step;
    acc = value * scales + acc;
    return biases * sum + acc;
}

/* One quad of both tiles against all tokens of the block. */
INLINE void multiply_quad(vi first, vi second, const uint8_t *digits, size_t stride, vi sum[][PANEL_TILES][PLANE_COUNT], const int tokens) {
    for (int t = 0; t < tokens; t++)
        for (int j = 0; j < PLANE_COUNT; j++) {
            vi four = spread_dword(digits + (size_t)t * stride + j * 4);
            sum[t][0][j] = dot_bytes(sum[t][0][j], first, four);
            sum[t][1][j] = dot_bytes(sum[t][1][j], second, four);
        }
}

/* quads: of a group; they come by two.  For one token each of the two has sums of its own: a sum waits four cycles for the one
 * before it, and there are but six. */
INLINE void multiply_groups(const code_panel *p, int n_groups, token_block *b, const int quads, const int tokens, const bool nibbles) {
    const bool apart = tokens == 1 && quads > 4;
    const uint8_t *codes = p->codes, *digits = b->digits;
    line_cursor next = b->next;
    for (int g = 0; g < n_groups; g++) {
        vi sum[BYTE_TOKENS][PANEL_TILES][PLANE_COUNT], other[1][PANEL_TILES][PLANE_COUNT];
        for (int t = 0; t < tokens; t++)
            for (int i = 0; i < PANEL_TILES; i++)
                for (int j = 0; j < PLANE_COUNT; j++) sum[t][i][j] = other[0][i][j] = (vi){0};
        for (int q = 0; q < quads; q += 2, digits += 2 * QUAD_DIGITS) {
            vi first = load_vi(codes), second = load_vi(codes + BYTES);
            fetch_lines(&next, nibbles ? 1 : 2);
            codes += PANEL_TILES * BYTES;
            multiply_quad(nibbles ? first & 0x0f0f0f0f : first, nibbles ? second & 0x0f0f0f0f : second, digits, b->stride, sum, tokens);
            if (nibbles) {
                first = (vi)((vu)first >> 4) & 0x0f0f0f0f, second = (vi)((vu)second >> 4) & 0x0f0f0f0f;
            } else {
                first = load_vi(codes), second = load_vi(codes + BYTES);
                codes += PANEL_TILES * BYTES;
            }
            multiply_quad(first, second, digits + QUAD_DIGITS, b->stride, apart ? other : sum, tokens);
        }
        for (int i = 0; i < PANEL_TILES; i++) {
            const float *scales = p->scales + (b->first_group + g) * PANEL_ROWS + i * VL;
            const float *biases = p->biases + (b->first_group + g) * PANEL_ROWS + i * VL;
            for (int j = 0; apart && j < PLANE_COUNT; j++) sum[0][i][j] += other[0][i][j];
            for (int t = 0; t < tokens; t++) {
                float *acc = b->acc + t * PANEL_ROWS + i * VL;
                vf step = spread(b->step[t * b->group_stride + g]), total = spread(b->sum[t * b->group_stride + g]);
                store(acc, add_group(load(acc), sum[t][i], step, total, load(scales), load(biases)));
            }
        }
    }
    b->next = next;
}

/* A function for each number of tokens and size of a group: the compiler keeps all sums in registers then. */
typedef void (*multiply_fn)(const code_panel *p, int n_groups, token_block *b);
#define MULTIPLY(codes, group, tokens)                                                                                   \
    static __attribute__((noinline)) void multiply_##codes##_group##group##_tokens##tokens(                              \
        const code_panel *p, int n_groups, token_block *b) {                                                       \
        multiply_groups(p, n_groups, b, group / 4, tokens, #codes[0] == 'n');                                            \
    }
#define MULTIPLY_TOKENS(codes, group)                                                                                    \
    MULTIPLY(codes, group, 1) MULTIPLY(codes, group, 2) MULTIPLY(codes, group, 3) MULTIPLY(codes, group, 4)
MULTIPLY_TOKENS(nibbles, 32)
MULTIPLY_TOKENS(nibbles, 64)
MULTIPLY_TOKENS(nibbles, 128)
MULTIPLY_TOKENS(bytes, 16)
MULTIPLY_TOKENS(bytes, 32)
MULTIPLY_TOKENS(bytes, 64)
MULTIPLY_TOKENS(bytes, 128)
#define MULTIPLY_ROW(codes, group)                                                                                       \
    {multiply_##codes##_group##group##_tokens1, multiply_##codes##_group##group##_tokens2,                               \
     multiply_##codes##_group##group##_tokens3, multiply_##codes##_group##group##_tokens4}
static const multiply_fn multiply_fns[2][3][BYTE_TOKENS] = {
    {MULTIPLY_ROW(bytes, 32), MULTIPLY_ROW(bytes, 64), MULTIPLY_ROW(bytes, 128)},
    {MULTIPLY_ROW(nibbles, 32), MULTIPLY_ROW(nibbles, 64), MULTIPLY_ROW(nibbles, 128)},
};
static const multiply_fn multiply_sixteens[BYTE_TOKENS] = MULTIPLY_ROW(bytes, 16);

static const multiply_fn *multiply_fns_of(const tq_matrix *w) {
    if (code_group(w) == 16) return multiply_sixteens;
    bool nibbles = w->kind == TQ_MATRIX_BLOCKS ? block_nibbles(w->block_type) : w->bits == 4;
    return multiply_fns[nibbles][code_group(w) / 64]; /* 32, 64, 128 -> 0, 1, 2 */
}

/* Tokens of the next block of those left: five are three and two. */
static int block_tokens(int left) { return left <= BYTE_TOKENS ? left : left < 2 * BYTE_TOKENS - 1 ? (left + 1) / 2 : BYTE_TOKENS; }

/* PANEL_ROWS rows from row0 on, of which n_rows are there, against all tokens.  next: what comes after them. */
static void multiply_panel(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, const code_panel *p, uintptr_t next,
                           float *acc) {
    int group = code_group(w), row_of[PANEL_ROWS];
    int at_a_time = group < 32 ? VL * group : PANEL_COLS; /* no more than VL groups of blocks */
    const multiply_fn *fns = multiply_fns_of(w);
    token_block b = {.stride = token_bytes(w), .group_stride = group_stride(w), .next = {next, 64}};
    for (int l = 0; l < PANEL_ROWS; l++) row_of[l] = row0 + (l < n_rows ? l : n_rows - 1); /* any: never looked at */
    for (int col0 = 0, n; col0 < w->cols; col0 += n) {
        n = w->cols - col0 < at_a_time ? w->cols - col0 : at_a_time;
        int g0 = col0 / group;
        b.next.step = 64;
        if (w->kind == TQ_MATRIX_AFFINE && g0 % VL == 0) fill_affine_scales(w, row_of, g0, p);
        for (int i = 0; i < PANEL_TILES; i++) {
            if (w->kind == TQ_MATRIX_BLOCKS) fill_blocks(w, row_of + i * VL, col0, n, p, &b.next, i);
            else fill_codes(w, row_of + i * VL, col0, n, p, &b.next, p->codes + i * BYTES);
        }
        for (int t = 0, tokens; t < in->n; t += tokens, b.next.step = 0) {
            tokens = block_tokens(in->n - t);
            b.digits = (const uint8_t *)in->prepared + (size_t)t * b.stride + (size_t)col0 * PLANE_COUNT;
            b.step = in->step + t * b.group_stride + g0;
            b.sum = in->sum + t * b.group_stride + g0;
            b.acc = acc + t * PANEL_ROWS;
            b.first_group = g0 % VL;
            fns[tokens - 1](p, n / group, &b);
        }
    }
}

static void fetch_run(const void *from, size_t bytes) {
    line_cursor c = {(uintptr_t)from, 64};
    fetch_lines(&c, (int)(bytes / 64));
}

/* Blocks have theirs between the codes. */
static void fetch_constants(const tq_matrix *w, int row0, int n_rows) {
    if (w->kind == TQ_MATRIX_BLOCKS) return;
    size_t row = (size_t)(w->cols / w->group_size) * tq_dtype_bytes(w->scale_dtype);
    fetch_run((const uint8_t *)w->scales + (size_t)row0 * row, (size_t)n_rows * row);
    fetch_run((const uint8_t *)w->biases + (size_t)row0 * row, (size_t)n_rows * row);
}

static void gemv_integers(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, float *y, int ldy, float *scratch) {
    code_panel p = code_panel_in(scratch);
    float *acc = sums_in(scratch);
    const uint8_t *data = (const uint8_t *)w->data + (size_t)row0 * tq_matrix_row_bytes(w);
    int first = n_rows < PANEL_ROWS ? n_rows : PANEL_ROWS;
    fetch_run(data, (size_t)first * tq_matrix_row_bytes(w));
    fetch_constants(w, row0, first);
    for (int r = 0, rows; r < n_rows; r += rows) {
        rows = n_rows - r < PANEL_ROWS ? n_rows - r : PANEL_ROWS;
        int left = n_rows - r - rows;
        if (left > 0) fetch_constants(w, row0 + r + rows, left < PANEL_ROWS ? left : PANEL_ROWS);
        memset(acc, 0, (size_t)(in->n * PANEL_ROWS) * sizeof *acc);
        multiply_panel(w, row0 + r, rows, in, &p, (uintptr_t)data + (size_t)(r + rows) * tq_matrix_row_bytes(w), acc);
        for (int t = 0; t < in->n; t++)
            memcpy(y + (size_t)t * (size_t)ldy + r, acc + t * PANEL_ROWS, (size_t)rows * sizeof *y);
    }
}
