/* matmul_bytes.h: a few tokens against matrices of codes, where the processor sums products of bytes (VPDPBUSD, SDOT).
 *
 * Part of matmul_body.h, for the sets that define BYTE_DOTS, and
 *     digit_pair, load_digits(p)  the 24 bytes of two quads of a token
 *     dot_bytes(sum, c, d, i)     sum[l] + the four codes of lane l times those of dword i of d (int32)
 *     CODES_LESS                  0: codes are unsigned bytes; 128: they are signed, and those of more than 4 bits come 128 less
 *     low_nibbles(v), high_nibbles(v)     of every byte
 *     nearest(v)                  VL floats to the nearest int32
 *     put_digits(v, places, to)   DIGIT_REGISTERS of VL int32, as bytes in the order `places`, less 128: 3 of 4
 *     BYTE_TOKENS                 tokens whose sums stay in registers: 6 registers each
 *     QUAD_LOOP, SUMS_APART       how far the loop over a group's quads is unrolled; two sums for one token
 *     FETCH_BYTES, FILL_FETCHES   how far a fetch goes on, and how many there are with VL dwords of VL rows
 *
 * Values.  Each group of a token is rounded to whole numbers of 24 bits against its largest value, which is what a float32 sum
 * would keep of it, and those are taken apart into three planes of signed bytes.  Codes times planes are exact sums of 32 bits.
 * The weights' codes turn around in registers, so that a lane is a row: no sum goes across lanes, and what a row and a token get is
 * the same fixed sequence of operations, group after group, whatever other rows and tokens there are.
 *
 * The order of values.  A quad is four columns; a dword of eight 4-bit codes is the quads 0, 2, 4, 6 and 1, 3, 5, 7; other widths
 * go through bytes in natural order, and so do GGUF's blocks, of 4 bits or more.  A prepared token has 12 bytes a quad: of the
 * highest plane four, then of the others.  Behind them, where codes come 128 less, 128 times each plane's sum of each group: what
 * the sums of products begin with. */

enum {
    PLANE_COUNT = 3,
    QUAD_DIGITS = 4 * PLANE_COUNT,
    PANEL_TILES = 2,               /* of VL rows: both use a token's bytes while they are in a register */
    PANEL_ROWS = PANEL_TILES * VL,
    PANEL_COLS = 512,              /* columns unpacked at a time: they stay in L1 */
    PANEL_GROUPS = PANEL_COLS / 32,
    DIGIT_REGISTERS = VL < 8 ? 8 / VL : 1, /* eight columns at least: the order of 4-bit codes is within eight */
    DIGIT_COLUMNS = DIGIT_REGISTERS * VL,
    DIGITS_TOP = 127 * 65536,      /* the largest whole number: digits are -128..127 */
};

/* ---- preparing activations ------------------------------------------------------------------------------------------------ */

static bool has_starts(const tq_matrix *w) { return CODES_LESS && w->bits != 4; } /* all blocks: they share their tokens */
static size_t token_bytes(const tq_matrix *w) {
    return (size_t)w->cols * PLANE_COUNT + (has_starts(w) ? (size_t)(w->cols / code_group(w)) * PLANE_COUNT * sizeof(int32_t) : 0);
}
static int32_t *token_starts(const tq_matrix *w, const tq_matmul_input *in, int t) {
    return (int32_t *)(void *)((uint8_t *)in->prepared + (size_t)t * token_bytes(w) + (size_t)w->cols * PLANE_COUNT);
}

/* Where the bytes of DIGIT_COLUMNS int32 go: quads of the highest plane, the middle one, the lowest one. */
static void digit_places(bool nibbles, uint8_t places[3 * DIGIT_COLUMNS]) {
    static const uint8_t natural[8] = {0, 1, 2, 3, 4, 5, 6, 7}, apart[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    for (int i = 0; i < 3 * DIGIT_COLUMNS; i++) {
        int column = i / 12 * 4 + i % 4, plane = 2 - i % 12 / 4;
        places[i] = (uint8_t)(4 * (column / 8 * 8 + (nibbles ? apart : natural)[column % 8]) + plane);
    }
}

static void prepare_token(const tq_matrix *w, const tq_matmul_input *in, int t) {
    int group = code_group(w), stride = padded_groups(w);
    const float *x = in->x + (size_t)t * (size_t)in->cols;
    uint8_t *to = (uint8_t *)in->prepared + (size_t)t * token_bytes(w), places[3 * DIGIT_COLUMNS];
    float *step = in->step + (size_t)t * (size_t)stride, *sum = in->sum + (size_t)t * (size_t)stride;
    digit_places(w->bits == 4, places);
    for (int g = 0; g < w->cols / group; g++, x += group) {
        vf tops = {0}, poison = {0}; /* poison: 0, or NaN if a value is not finite; it goes into the step */
        for (int i = 0; i < group; i += VL) {
            vf v = load(x + i);
            tops = max_magnitude(v, tops);
            poison += v * 0.0f;
        }
        float top = max_lanes(tops), inverse = top > 1e-29f ? DIGITS_TOP / top : 0.0f; /* less is nothing, and its inverse no float */
        vu total = {0}, digits[PLANE_COUNT] = {{0}, {0}, {0}}; /* unsigned: what a NaN leaves must not overflow */
        for (int i = 0; i < group; i += DIGIT_COLUMNS, to += 3 * DIGIT_COLUMNS) {
            vi raised[DIGIT_REGISTERS];
            for (int r = 0; r < DIGIT_REGISTERS; r++) {
                vi value = nearest(load(x + i + r * VL) * inverse);
                total += (vu)value;
                raised[r] = (vi)((vu)value + 0x808080);
                for (int j = 0; CODES_LESS && j < PLANE_COUNT; j++) digits[j] += ((vu)raised[r] >> (16 - 8 * j) & 255) - 128;
            }
            put_digits(raised, places, to);
        }
        for (int j = 0; has_starts(w) && j < PLANE_COUNT; j++)
            token_starts(w, in, t)[g * PLANE_COUNT + j] = CODES_LESS * sum_integers((vi)digits[j]);
        step[g] = top / DIGITS_TOP + sum_lanes(poison);
        sum[g] = step[g] * sum_lanes(to_float((vi)total));
    }
}

/* ---- a panel: some columns of PANEL_ROWS rows ------------------------------------------------------------------------------ */

typedef struct code_panel {
    uint8_t *codes;          /* (dword of a row, tile) of VL rows: four codes, or eight of 4 bits */
    float *scales, *biases;  /* (PANEL_GROUPS, PANEL_ROWS) */
    uint8_t *bytes;          /* (VL, PANEL_COLS): rows on their way */
} code_panel;

static code_panel code_panel_in(float *scratch) {
    code_panel p = {.codes = (uint8_t *)scratch};
    p.scales = scratch + PANEL_COLS * PANEL_ROWS / 4;
    p.biases = p.scales + PANEL_GROUPS * PANEL_ROWS;
    p.bytes = (uint8_t *)(p.biases + PANEL_GROUPS * PANEL_ROWS);
    return p;
}
static float *sums_in(float *scratch) { return scratch + PANEL_COLS * PANEL_ROWS / 4 + 2 * PANEL_GROUPS * PANEL_ROWS + VL * PANEL_COLS / 4; }
_Static_assert(PANEL_COLS * PANEL_ROWS / 4 + 2 * PANEL_GROUPS * PANEL_ROWS + VL * PANEL_COLS / 4 + TQ_GEMV_TOKENS * PANEL_ROWS <= TQ_TILES_SCRATCH,
               "a panel and its sums fit the scratch");

/* What memory is asked for while a panel is at work: the next panel's rows, line after line, as the processor's own prefetching
 * likes it.  That sees little in 32 rows at once, and what it does not fetch waits for a few buffers next to L1. */
typedef struct line_cursor {
    uintptr_t at;
    size_t step; /* FETCH_BYTES, or 0: the tokens before have fetched it */
} line_cursor;

INLINE void fetch_lines(line_cursor *c, int n) {
    for (int i = 0; i < n; i++, c->at += c->step) __builtin_prefetch((const void *)c->at, 0, 2);
}
/* Into L1: what Zen 5 wants where less is computed for a line; GGUF's q4_k, whose rows lie askew of lines: 29 GB/s against 18. */
INLINE void fetch_near(line_cursor *c, int n) {
    for (int i = 0; i < n; i++, c->at += c->step) __builtin_prefetch((const void *)c->at, 0, 3);
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

/* n bytes of each of VL rows, whole dwords; flip: CODES_LESS in every byte, or 0. */
INLINE void fill_dwords(const uint8_t *const rows[VL], size_t at, size_t n, const int32_t flip, line_cursor *next, uint8_t *to) {
    vi m[VL];
    const uint8_t *row[VL]; /* what is stored might be a pointer, for all that the compiler knows */
    memcpy(row, rows, sizeof row);
    line_cursor c = *next;
    for (size_t end = at + n / BYTES * BYTES; at < end; at += BYTES, to += VL * PANEL_TILES * BYTES) {
        fetch_lines(&c, FILL_FETCHES);
        turn_dwords(row, at, m);
        for (int d = 0; d < VL; d++) *(vi_unaligned *)(to + d * PANEL_TILES * BYTES) = flip ? m[d] ^ flip : m[d];
    }
    *next = c;
    int some = (int)(n % BYTES) / 4;
    if (some) turn_some_dwords(rows, at, some, m);
    for (int d = 0; d < some; d++) *(vi_unaligned *)(to + d * PANEL_TILES * BYTES) = flip ? m[d] ^ flip : m[d];
}

static __attribute__((noinline)) void fill_nibbles(const uint8_t *const rows[VL], size_t at, size_t n, line_cursor *next, uint8_t *to) {
    fill_dwords(rows, at, n, 0, next, to);
}
static __attribute__((noinline)) void fill_bytes(const uint8_t *const rows[VL], size_t at, size_t n, line_cursor *next, uint8_t *to) {
    fill_dwords(rows, at, n, (int32_t)(CODES_LESS * 0x01010101u), next, to);
}

static void fill_codes(const tq_matrix *w, const int row_of[VL], int col0, int n, const code_panel *p, line_cursor *next, uint8_t *to) {
    size_t row_bytes = tq_matrix_row_bytes(w);
    const uint8_t *rows[VL];
    for (int l = 0; l < VL; l++) rows[l] = (const uint8_t *)w->data + (size_t)row_of[l] * row_bytes;
    if (w->bits == 4) {
        fill_nibbles(rows, (size_t)col0 / 2, (size_t)n / 2, next, to);
        return;
    }
    size_t at = (size_t)col0;
    for (int l = 0; w->bits != 8 && l < VL; l++) {
        unpack_bytes(rows[l] + (size_t)col0 * (size_t)w->bits / 8, w->bits, n, p->bytes + l * PANEL_COLS);
        rows[l] = p->bytes + l * PANEL_COLS;
        at = 0;
    }
    fill_bytes(rows, at, (size_t)n, next, to);
}

/* As many of the VL constants of each row as there are before `end`: behind the last row is no memory. */
static __attribute__((noinline)) void load_last_constants(const void *constants, tq_dtype dtype, const size_t first[VL], size_t end,
                                                          vi m[VL]) {
    for (int l = 0; l < VL; l++) {
        float some[VL] = {0};
        for (int i = 0; i < VL && first[l] + (size_t)i < end; i++) some[i] = affine_constant(constants, first[l] + (size_t)i, dtype);
        m[l] = load_vi(some);
    }
}

/* Constants of VL groups, of which n are there or more, of rows whose first stand at `first`: lane l of to[g * PANEL_ROWS] is row
 * l's. */
INLINE void fill_constants(const void *constants, const tq_dtype dtype, const size_t first[VL], int n, size_t end, float *to) {
    vi m[VL];
    if (first[VL - 1] + VL <= end) {
        for (int l = 0; l < VL; l++) m[l] = (vi)affine_constants(constants, first[l], dtype);
    } else {
        size_t at[VL];
        vi last[VL];
        memcpy(at, first, sizeof at); /* copies: only they leave the registers */
        load_last_constants(constants, dtype, at, end, last);
        for (int l = 0; l < VL; l++) m[l] = last[l];
    }
    transpose(m);
    for (int g = 0; g < VL / 2; g++) store(to + g * PANEL_ROWS, (vf)m[g]);
    for (int g = VL / 2; n > VL / 2 && g < VL; g++) store(to + g * PANEL_ROWS, (vf)m[g]);
}

INLINE void fill_scales(const tq_matrix *w, const tq_dtype dtype, const int row_of[PANEL_ROWS], int g0, const code_panel *p) {
    int groups = w->cols / w->group_size, last = groups - g0 < PANEL_GROUPS ? groups : g0 + PANEL_GROUPS;
    size_t end = (size_t)w->rows * (size_t)groups;
    const void *scales = w->scales, *biases = w->biases;
    for (int i = 0; i < PANEL_ROWS; i += VL) {
        size_t first[VL];
        for (int l = 0; l < VL; l++) first[l] = (size_t)row_of[i + l] * (size_t)groups + (size_t)g0;
        float *to_scales = p->scales + i, *to_biases = p->biases + i;
        for (int g = g0; g < last; g += VL, to_scales += VL * PANEL_ROWS, to_biases += VL * PANEL_ROWS) {
            fill_constants(scales, dtype, first, last - g, end, to_scales);
            fill_constants(biases, dtype, first, last - g, end, to_biases);
            for (int l = 0; l < VL; l++) first[l] += VL;
        }
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
    const int32_t *starts;    /* likewise: where has_starts */
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

/* Two quads of both tiles against all tokens of the block; other: the second quad's sums, if apart. */
INLINE void multiply_quads(const vi codes[2][PANEL_TILES], const uint8_t *digits, size_t stride, vi sum[][PANEL_TILES][PLANE_COUNT],
                           vi other[PANEL_TILES][PLANE_COUNT], const int tokens, const bool apart) {
    for (int t = 0; t < tokens; t++) {
        digit_pair d = load_digits(digits + (size_t)t * stride);
        for (int j = 0; j < PLANE_COUNT; j++)
            for (int i = 0; i < PANEL_TILES; i++) sum[t][i][j] = dot_bytes(sum[t][i][j], codes[0][i], d, j);
        for (int j = 0; j < PLANE_COUNT; j++)
            for (int i = 0; i < PANEL_TILES; i++) {
                if (apart) other[i][j] = dot_bytes(other[i][j], codes[1][i], d, PLANE_COUNT + j);
                else sum[t][i][j] = dot_bytes(sum[t][i][j], codes[1][i], d, PLANE_COUNT + j);
            }
    }
}

/* quads: of a group; they come by two.  For one token each of the two may have sums of its own: there are but six, and where a
 * sum waits for the one before it (VPDPBUSD: four cycles) that is too few. */
INLINE void multiply_groups(const code_panel *p, int n_groups, token_block *b, const int quads, const int tokens, const bool nibbles) {
    const bool apart = SUMS_APART && tokens == 1 && quads > 4;
    const uint8_t *codes = p->codes, *digits = b->digits;
    const char *starts = (const char *)b->starts;
    const float *step = b->step, *total = b->sum, *scales = p->scales + b->first_group * PANEL_ROWS,
                *biases = p->biases + b->first_group * PANEL_ROWS;
    const size_t stride = b->stride, group_stride = (size_t)b->group_stride;
    float *acc = b->acc;
    line_cursor next = b->next;
    for (int g = 0; g < n_groups; g++) {
        vi sum[BYTE_TOKENS][PANEL_TILES][PLANE_COUNT], other[PANEL_TILES][PLANE_COUNT];
        for (int t = 0; t < tokens; t++)
            for (int i = 0; i < PANEL_TILES; i++)
                for (int j = 0; j < PLANE_COUNT; j++) {
                    sum[t][i][j] = other[i][j] = (vi){0};
                    if (CODES_LESS && !nibbles) sum[t][i][j] += *(const int32_t *)(const void *)(starts + (size_t)t * stride + 4 * j);
                }
        QUAD_LOOP for (int q = 0; q < quads; q += 2, digits += 2 * QUAD_DIGITS) {
            vi pair[2][PANEL_TILES];
            if (nibbles) fetch_near(&next, 1);
            else fetch_lines(&next, 2);
            for (int i = 0; i < PANEL_TILES; i++) {
                vi all = load_vi(codes + i * BYTES);
                pair[0][i] = nibbles ? low_nibbles(all) : all;
                pair[1][i] = nibbles ? high_nibbles(all) : load_vi(codes + (PANEL_TILES + i) * BYTES);
            }
            codes += (nibbles ? 1 : 2) * PANEL_TILES * BYTES;
            multiply_quads(pair, digits, stride, sum, other, tokens, apart);
        }
        for (int i = 0; i < PANEL_TILES; i++) {
            for (int j = 0; apart && j < PLANE_COUNT; j++) sum[0][i][j] += other[i][j];
            for (int t = 0; t < tokens; t++) {
                float *to = acc + t * PANEL_ROWS + i * VL;
                vf step_of = spread(step[(size_t)t * group_stride]), total_of = spread(total[(size_t)t * group_stride]);
                store(to, add_group(load(to), sum[t][i], step_of, total_of, load(scales + i * VL), load(biases + i * VL)));
            }
        }
        step++, total++, scales += PANEL_ROWS, biases += PANEL_ROWS, starts += PLANE_COUNT * sizeof(int32_t);
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
    int at_a_time = group < 32 ? PANEL_GROUPS * group : PANEL_COLS;
    const multiply_fn *fns = multiply_fns_of(w);
    token_block b = {.stride = token_bytes(w), .group_stride = padded_groups(w), .next = {next, FETCH_BYTES}};
    for (int l = 0; l < PANEL_ROWS; l++) row_of[l] = row0 + (l < n_rows ? l : n_rows - 1); /* any: never looked at */
    for (int col0 = 0, n; col0 < w->cols; col0 += n) {
        n = w->cols - col0 < at_a_time ? w->cols - col0 : at_a_time;
        int g0 = col0 / group;
        b.next.step = FETCH_BYTES;
        if (w->kind == TQ_MATRIX_AFFINE && g0 % PANEL_GROUPS == 0) fill_affine_scales(w, row_of, g0, p);
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
            if (has_starts(w)) b.starts = token_starts(w, in, t) + g0 * PLANE_COUNT;
            b.first_group = g0 % PANEL_GROUPS;
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
