/* matmul_words.h: a few tokens against matrices of codes, where the processor sums products of 16-bit words.
 *
 * Part of matmul_body.h, for the sets that do not define BYTE_DOTS, and which define
 *     vw                          2 VL int16
 *     pair_sums(sum, a, b)        sum[l] + a[2 l] * b[2 l] + a[2 l + 1] * b[2 l + 1] (int32)
 *     load_words(p)               2 VL bytes widened to vw
 *     spread_scales(p, lanes)     lane l: p[l / lanes], lanes a divisor of VL, 4 or more
 *
 * The order of values.  With 4-bit codes a register of bytes holds a *run* of 8 VL codes, four in each 16-bit word.  One
 * mask or shift takes out the codes k, k + 4, k + 8, ... of a run as a register of words; the activations stand in that
 * order: of every run first the values 0, 4, 8, ..., then 1, 5, 9, ..., 2, ..., 3.  Two neighbours (k, k + 4) are a pair: what
 * one lane of pair_sums adds up.  Of every run come first the high words, then the low ones.  Other widths go through bytes in
 * natural order: 2 VL high words, 2 VL low ones, and so on. */

enum {
    GEMV_BLOCK = 4,          /* tokens whose sums stay in registers while a row is unpacked */
    GEMV_LONG = 6144,        /* columns whose words, 4 bytes each, leave no room in L1: two rows take them at a time */
};

typedef uint16_t vuw __attribute__((vector_size(BYTES)));
typedef uint64_t fours __attribute__((vector_size(64)));
typedef uint16_t eight_words __attribute__((vector_size(16)));
typedef vw vw_unaligned __attribute__((aligned(2), may_alias));

INLINE vw load_wide(const int16_t *p) { return *(const vw_unaligned *)p; }

/* -1 in the first n lanes. */
INLINE vi first_lanes(int n) {
    static const int32_t ones[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    return load_vi(ones + 16 - n);
}

/* ---- preparing activations ------------------------------------------------------------------------------------------------ */

static int padded_cols(int cols) { return (cols + TQ_MATMUL_PAD - 1) / TQ_MATMUL_PAD * TQ_MATMUL_PAD; }

/* Words of a prepared token, high and low. */
static size_t token_words(const tq_matrix *w) { return 2 * (size_t)padded_cols(w->cols); }

/* n values -> n high and n low words; their step and sum. */
INLINE void round_group(const float *x, int n, int16_t *high, int16_t *low, float *step, float *sum) {
    vf tops = {0}, poison = {0}; /* poison: 0, or NaN if a value is not finite; it goes into the step */
    for (int i = 0; i < n; i += VL) {
        vf v = load(x + i);
        tops = larger((vf)((vi)v & 0x7fffffff), tops);
        poison += v * 0.0f;
    }
    float top = max_lanes(tops), inverse = top > 1e-29f ? 0x1p30f / top : 0.0f; /* less is nothing, and its inverse no float */
    vu high_sum = {0}, low_sum = {0}; /* unsigned: what a NaN leaves must not overflow */
    for (int i = 0; i < n; i += VL) {
        vi value = __builtin_convertvector(load(x + i) * inverse, vi); /* what it cuts off is 2^-30 of the largest */
        vi upper = (vi)((vu)value + 32768) >> 16, lower = (vi)((vu)value - ((vu)upper << 16));
        store_i16(high + i, upper);
        store_i16(low + i, lower);
        high_sum += (vu)upper;
        low_sum += (vu)lower;
    }
    *step = top * 0x1p-14f + sum_lanes(poison);
    /* exact: whole numbers below 2^24 for a group of 128 */
    *sum = *step * (sum_lanes(to_float((vi)high_sum)) + sum_lanes(to_float((vi)low_sum)) * 0x1p-16f);
}

/* n words of a group to where gemv wants them: at: their column. */
INLINE void place_words(const int16_t *words, int n, int at, bool by_runs, int16_t *token) {
    if (!by_runs) {
        for (int k = 0; k < n; k += 2 * VL) memcpy(token + 2 * (at + k), words + k, 4 * VL);
        return;
    }
    for (int k = 0; k < n; k += 32) { /* a run may have several groups, a group several runs; 32 are within both */
        int16_t *dst = token + 2 * ((at + k) / RUN * RUN) + (at + k) % RUN / 4;
        fours all; /* each lane has the words 4 i + j, j = 0..3 */
        memcpy(&all, words + k, sizeof all);
        for (int j = 0; j < 4; j++) {
            eight_words some = __builtin_convertvector(all >> (16 * j), eight_words);
            memcpy(dst + j * 2 * VL, &some, sizeof some);
        }
    }
}

/* One token, in the order of gemv. */
static void prepare_token(const tq_matrix *w, const tq_matmul_input *in, int t) {
    int group = code_group(w), groups = w->cols / group;
    const float *x = in->x + (size_t)t * (size_t)in->cols;
    int16_t *token = (int16_t *)(void *)in->prepared + (size_t)t * token_words(w);
    float *step = in->step + (size_t)t * (size_t)padded_groups(w), *sum = in->sum + (size_t)t * (size_t)padded_groups(w);
    bool by_runs = w->kind == TQ_MATRIX_AFFINE && w->bits == 4;
    int last = w->cols / RUN * RUN; /* the run that is not whole is filled up with 0 */
    if (by_runs && last < w->cols) memset(token + 2 * last, 0, 2 * RUN * sizeof *token);
    for (int g = groups; g < padded_groups(w); g++) step[g] = sum[g] = 0;
    for (int g = 0; g < groups; g++) {
        int16_t high[128], low[128]; /* the largest group */
        round_group(x + g * group, group, high, low, &step[g], &sum[g]);
        place_words(high, group, g * group, by_runs, token);
        place_words(low, group, g * group, by_runs, token + (by_runs ? RUN : 2 * VL));
    }
}

/* ---- products ---------------------------------------------------------------------------------------------------------------- */

/* products[t][g] = scale of the row's group g times the step of token t; returns in biased[t] what the biases add.  Scales and
 * biases are filled up to whole registers of 0. */
INLINE void block_constants(const float *scales, const float *biases, const tq_matmul_input *in, int t0, int stride, float *products,
                            float *biased, const int tokens) {
    vf sums[GEMV_BLOCK];
    for (int t = 0; t < tokens; t++) sums[t] = (vf){0};
    for (int g = 0; g < stride; g += VL)
        for (int t = 0; t < tokens; t++) {
            size_t from = (size_t)(t0 + t) * (size_t)stride + (size_t)g;
            store(products + t * stride + g, load(scales + g) * load(in->step + from));
            sums[t] += load(biases + g) * load(in->sum + from);
        }
    for (int t = 0; t < tokens; t++) biased[t] = sum_lanes(sums[t]);
}

/* The same of an affine matrix. */
INLINE void row_constants(const tq_matrix *w, int row, const tq_matmul_input *in, int t0, int groups, int stride, float *products,
                          float *biased, const int tokens) {
    size_t at = (size_t)row * (size_t)groups, end = (size_t)w->rows * (size_t)groups;
    vf sums[GEMV_BLOCK];
    for (int t = 0; t < tokens; t++) sums[t] = (vf){0};
    for (int g = 0; g < groups; g += VL) {
        vf scales, biases;
        if (at + (size_t)g + VL <= end) {
            scales = affine_constants(w->scales, at + (size_t)g, w->scale_dtype);
            biases = affine_constants(w->biases, at + (size_t)g, w->scale_dtype);
        } else { /* behind the last row is no memory */
            float s[VL] = {0}, b[VL] = {0};
            for (int l = 0; g + l < groups; l++) {
                s[l] = affine_constant(w->scales, at + (size_t)(g + l), w->scale_dtype);
                b[l] = affine_constant(w->biases, at + (size_t)(g + l), w->scale_dtype);
            }
            scales = load(s);
            biases = load(b);
        }
        if (g + VL > groups) { /* the next row's, which may be NaN where this one's are not */
            vi mine = first_lanes(groups - g);
            scales = (vf)((vi)scales & mine);
            biases = (vf)((vi)biases & mine);
        }
        for (int t = 0; t < tokens; t++) {
            size_t from = (size_t)(t0 + t) * (size_t)stride + (size_t)g;
            store(products + t * stride + g, scales * load(in->step + from));
            sums[t] += biases * load(in->sum + from);
        }
    }
    for (int t = 0; t < tokens; t++) biased[t] = sum_lanes(sums[t]);
}

/* The products' lanes for a register of 4-bit codes that begins at column col. */
INLINE vf run_scales(const float *products, int col, const int group) {
    return group >= RUN ? spread(products[col / group]) : spread_scales(products + col / group, group / 8);
}

/* wide: a run's high words, then its low ones. */
INLINE void dot_run4(const vw codes[4], const int16_t *wide, vf scales, vf *sum) {
    vi high = {0}, low = {0};
    for (int j = 0; j < 4; j++) {
        high = pair_sums(high, codes[j], load_wide(wide + j * 2 * VL));
        low = pair_sums(low, codes[j], load_wide(wide + RUN + j * 2 * VL));
    }
    *sum += (to_float(low) * 0x1p-16f + to_float(high)) * scales;
}

INLINE void split_codes(const uint8_t *stream, vw codes[4]) {
    vw all = load_wide((const int16_t *)(const void *)stream);
    codes[0] = all & 15;
    codes[1] = (vw)((vuw)all >> 4) & 15;
    codes[2] = (vw)((vuw)all >> 8) & 15;
    codes[3] = (vw)((vuw)all >> 12);
}

/* sum over groups of products[g] * (codes . wide) */
INLINE void dot_row4(const uint8_t *stream, int cols, const int16_t *wide, size_t token_stride, const float *products,
                     int product_stride, float *out, const int group, const int tokens) {
    vf sum[GEMV_BLOCK];
    vw codes[4];
    for (int t = 0; t < tokens; t++) sum[t] = (vf){0};
    int col = 0;
    for (; col + RUN <= cols; col += RUN, stream += BYTES) {
        __builtin_prefetch(stream + GEMV_AHEAD);
        split_codes(stream, codes);
        for (int t = 0; t < tokens; t++)
            dot_run4(codes, wide + (size_t)t * token_stride + 2 * col, run_scales(products + t * product_stride, col, group), &sum[t]);
    }
    if (col < cols) { /* wide is 0 behind the last column */
        uint8_t rest[BYTES] = {0};
        memcpy(rest, stream, (size_t)(cols - col) / 2);
        split_codes(rest, codes);
        for (int t = 0; t < tokens; t++)
            dot_run4(codes, wide + (size_t)t * token_stride + 2 * col, run_scales(products + t * product_stride, col, group), &sum[t]);
    }
    for (int t = 0; t < tokens; t++) out[t] = sum_lanes(sum[t]);
}

/* Two rows and one token: its words are loaded for both.  The same sums as of a row alone, bit for bit. */
INLINE void dot_two_rows4(const uint8_t *stream, size_t row_bytes, int cols, const int16_t *wide, const float *products,
                          int product_stride, float *out, const int group) {
    vf sum[2] = {{0}, {0}};
    size_t ahead = 2 * row_bytes > GEMV_AHEAD ? 2 * row_bytes : GEMV_AHEAD; /* the next two rows, where rows are long */
    for (int col = 0; col < cols; col += RUN, stream += BYTES) {
        vw codes[2][4];
        vi high[2] = {{0}, {0}}, low[2] = {{0}, {0}};
        for (int r = 0; r < 2; r++) {
            const uint8_t *at = stream + (size_t)r * row_bytes;
            uint8_t rest[BYTES] = {0};
            if (cols - col < RUN) { /* wide is 0 behind the last column */
                memcpy(rest, at, (size_t)(cols - col) / 2);
                at = rest;
            } else {
                __builtin_prefetch(at + ahead);
            }
            split_codes(at, codes[r]);
        }
        for (int j = 0; j < 4; j++) {
            vw upper = load_wide(wide + 2 * col + j * 2 * VL), lower = load_wide(wide + 2 * col + RUN + j * 2 * VL);
            for (int r = 0; r < 2; r++) {
                high[r] = pair_sums(high[r], codes[r][j], upper);
                low[r] = pair_sums(low[r], codes[r][j], lower);
            }
        }
        for (int r = 0; r < 2; r++)
            sum[r] += (to_float(low[r]) * 0x1p-16f + to_float(high[r])) * run_scales(products + r * product_stride, col, group);
    }
    for (int r = 0; r < 2; r++) out[r] = sum_lanes(sum[r]);
}

/* The same with codes as bytes: groups are whole registers. */
INLINE void dot_row8(const uint8_t *codes, int cols, const int16_t *wide, size_t token_stride, const float *products,
                     int product_stride, float *out, const int group, const int tokens) {
    vf sum[GEMV_BLOCK];
    for (int t = 0; t < tokens; t++) sum[t] = (vf){0};
    for (int col = 0; col < cols; col += group) {
        vi high[GEMV_BLOCK], low[GEMV_BLOCK];
        for (int t = 0; t < tokens; t++) high[t] = low[t] = (vi){0};
        for (int k = col; k < col + group; k += 64) __builtin_prefetch(codes + k + GEMV_AHEAD);
        for (int k = col; k < col + group; k += 2 * VL) {
            vw words = load_words(codes + k);
            for (int t = 0; t < tokens; t++) {
                const int16_t *at = wide + (size_t)t * token_stride + 2 * k;
                high[t] = pair_sums(high[t], words, load_wide(at));
                low[t] = pair_sums(low[t], words, load_wide(at + 2 * VL));
            }
        }
        for (int t = 0; t < tokens; t++)
            sum[t] += (to_float(low[t]) * 0x1p-16f + to_float(high[t])) * products[t * product_stride + col / group];
    }
    for (int t = 0; t < tokens; t++) out[t] = sum_lanes(sum[t]);
}

#include "backend/cpu/matmul_words_blocks.h"

INLINE void gemv_affine_block(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, int t0, float *y, int ldy,
                              float *scratch, const int group, const int tokens, const bool four_bits) {
    size_t row_bytes = tq_matrix_row_bytes(w), token_stride = token_words(w);
    const int16_t *wide = (const int16_t *)(const void *)in->prepared + (size_t)t0 * token_stride;
    int stride = padded_groups(w), cols = w->cols, bits = w->bits, groups = cols / group; /* a shift: no division a row */
    bool blocks = !four_bits && w->kind == TQ_MATRIX_BLOCKS;
    float *products = scratch, *scales = products + GEMV_BLOCK * stride, *biases = scales + stride; /* of blocks */
    uint8_t *bytes = (uint8_t *)(biases + stride);
    if (blocks) memset(scales, 0, 2 * (size_t)stride * sizeof *scales);
    const uint8_t *row = (const uint8_t *)w->data + (size_t)row0 * row_bytes;
    for (int i = 0; i < n_rows; i++, row += row_bytes) {
        float biased[GEMV_BLOCK], dots[GEMV_BLOCK];
        if (blocks) {
            block_row_scales(w->block_type, row, cols, scales, biases);
            block_constants(scales, biases, in, t0, stride, products, biased, tokens);
        } else {
            row_constants(w, row0 + i, in, t0, groups, stride, products, biased, tokens);
        }
        if (four_bits) {
            dot_row4(row, cols, wide, token_stride, products, stride, dots, group, tokens);
        } else if (blocks) {
            block_row_codes(w->block_type, row, cols, bytes);
            dot_row8(bytes, cols, wide, token_stride, products, stride, dots, group, tokens);
        } else {
            if (bits != 8) unpack_bytes(row, bits, cols, bytes);
            dot_row8(bits == 8 ? row : bytes, cols, wide, token_stride, products, stride, dots, group, tokens);
        }
        for (int t = 0; t < tokens; t++) y[(size_t)(t0 + t) * (size_t)ldy + (size_t)i] = dots[t] + biased[t];
    }
}

/* A function for each group size and number of tokens: in one function of all, the compiler runs out of registers. */
typedef void (*gemv_affine_fn)(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, int t0, float *y, int ldy,
                               float *scratch);
#define GEMV_AFFINE(bits_name, four_bits, group, tokens)                                                                \
    static __attribute__((noinline)) void gemv_##bits_name##_group##group##_tokens##tokens(                             \
        const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, int t0, float *y, int ldy, float *scratch) { \
        gemv_affine_block(w, row0, n_rows, in, t0, y, ldy, scratch, group, tokens, four_bits);                          \
    }
#define GEMV_AFFINE_TOKENS(bits_name, four_bits, group)                                                                 \
    GEMV_AFFINE(bits_name, four_bits, group, 1)                                                                         \
    GEMV_AFFINE(bits_name, four_bits, group, 2)                                                                         \
    GEMV_AFFINE(bits_name, four_bits, group, 3)                                                                         \
    GEMV_AFFINE(bits_name, four_bits, group, 4)
GEMV_AFFINE_TOKENS(nibbles, true, 32)
GEMV_AFFINE_TOKENS(nibbles, true, 64)
GEMV_AFFINE_TOKENS(nibbles, true, 128)
GEMV_AFFINE_TOKENS(bytes, false, 16)
GEMV_AFFINE_TOKENS(bytes, false, 32)
GEMV_AFFINE_TOKENS(bytes, false, 64)
GEMV_AFFINE_TOKENS(bytes, false, 128)
#define GEMV_AFFINE_ROW(bits_name, group)                                                                               \
    {gemv_##bits_name##_group##group##_tokens1, gemv_##bits_name##_group##group##_tokens2,                              \
     gemv_##bits_name##_group##group##_tokens3, gemv_##bits_name##_group##group##_tokens4}
static const gemv_affine_fn gemv_affine_fns[2][3][GEMV_BLOCK] = {
    {GEMV_AFFINE_ROW(bytes, 32), GEMV_AFFINE_ROW(bytes, 64), GEMV_AFFINE_ROW(bytes, 128)},
    {GEMV_AFFINE_ROW(nibbles, 32), GEMV_AFFINE_ROW(nibbles, 64), GEMV_AFFINE_ROW(nibbles, 128)},
};
static const gemv_affine_fn gemv_sixteens[GEMV_BLOCK] = GEMV_AFFINE_ROW(bytes, 16);

/* One token, 4 bits, two rows at a time. */
INLINE void gemv_pairs(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, float *y, float *scratch, const int group) {
    size_t row_bytes = tq_matrix_row_bytes(w);
    const int16_t *wide = (const int16_t *)(const void *)in->prepared;
    int stride = padded_groups(w), groups = w->cols / group;
    for (int i = 0; i < n_rows; i += 2) {
        float biased[2];
        for (int r = 0; r < 2; r++) row_constants(w, row0 + i + r, in, 0, groups, stride, scratch + r * stride, &biased[r], 1);
        dot_two_rows4((const uint8_t *)w->data + (size_t)(row0 + i) * row_bytes, row_bytes, w->cols, wide, scratch, stride, y + i, group);
        for (int r = 0; r < 2; r++) y[i + r] += biased[r];
    }
}

static __attribute__((noinline)) void gemv_long_rows(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, float *y,
                                                     float *scratch) {
    if (w->group_size == 32) gemv_pairs(w, row0, n_rows, in, y, scratch, 32);
    else if (w->group_size == 64) gemv_pairs(w, row0, n_rows, in, y, scratch, 64);
    else gemv_pairs(w, row0, n_rows, in, y, scratch, 128);
}

/* Few rows at a time, so that those for the first tokens are still in L1 for the last. */
static void gemv_integers(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, float *y, int ldy,
                          float *scratch) {
    int group = code_group(w), at_a_time = in->n > GEMV_BLOCK ? 4 : n_rows, first = 0;
    bool nibbles = w->kind == TQ_MATRIX_AFFINE && w->bits == 4;
    const gemv_affine_fn *fns = group == 16 ? gemv_sixteens : gemv_affine_fns[nibbles][group / 64]; /* 32, 64, 128 -> 0, 1, 2 */
    if (in->n == 1 && word_dots_of(w, true)) {
        first = n_rows;
        gemv_block_rows(w, row0, n_rows, in, y, scratch);
    } else if (in->n == 1 && nibbles && w->cols >= GEMV_LONG) {
        first = n_rows / 2 * 2;
        gemv_long_rows(w, row0, first, in, y, scratch);
    }
    for (int i = first; i < n_rows; i += at_a_time) {
        int rows = n_rows - i < at_a_time ? n_rows - i : at_a_time;
        for (int t = 0; t < in->n; t += GEMV_BLOCK) {
            int tokens = in->n - t < GEMV_BLOCK ? in->n - t : GEMV_BLOCK;
            fns[tokens - 1](w, row0 + i, rows, in, t, y + i, ldy, scratch);
        }
    }
}
