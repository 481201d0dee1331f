/* matmul_body.h: products of weight matrices with activations, the same in every instruction set but for its registers.
 *
 * Part of kernels_body.h.  Beyond what that wants, each kernels_<set>.c defines
 *     max_lanes(v)
 *     GEMM_TOKENS, GEMM_STEP      tokens of a tile; a last tile has a multiple of GEMM_STEP = GEMM_TOKENS / 3
 *     transpose(m)                VL x VL int32 in place
 *     lookup(codes)               VL int32, of which the low 4 bits count, -> floats 0..15
 *     and what matmul_bytes.h or matmul_words.h ask for
 */

enum {
    RUN = 8 * VL,            /* 4-bit codes of a register */
    BYTES = 4 * VL,          /* of a register */
    GEMV_AHEAD = 4096,       /* bytes of prefetching: across the ends of pages, where the processor's own stops */
};

INLINE vi load_vi(const void *p) { return *(const vi_unaligned *)p; }

/* ---- unpacking to floats --------------------------------------------------------------------------------------------- */

INLINE float affine_constant(const void *constants, size_t at, tq_dtype dtype) {
    switch (dtype) {
    case TQ_BF16: return tq_bf16_f32(((const uint16_t *)constants)[at]);
    case TQ_F16: return tq_f16_f32(((const uint16_t *)constants)[at]);
    default: return ((const float *)constants)[at];
    }
}

INLINE vf affine_constants(const void *constants, size_t at, tq_dtype dtype) {
    switch (dtype) {
    case TQ_BF16: return load_bf16((const uint16_t *)constants + at);
    case TQ_F16: return load_f16((const uint16_t *)constants + at);
    default: return load((const float *)constants + at);
    }
}

/* n codes of a row, n a multiple of 32 -> bytes in natural order. */
static void unpack_bytes(const uint8_t *stream, int bits, int n, uint8_t *dst) {
    if (bits == 8) {
        memcpy(dst, stream, (size_t)n);
    } else if (bits == 4) {
        for (int i = 0; i < n; i += 2, stream++) {
            dst[i] = *stream & 15;
            dst[i + 1] = *stream >> 4;
        }
    } else {
        uint64_t mask = (1u << bits) - 1;
        for (int i = 0; i < n; i += 8, stream += bits) {
            uint64_t word = 0;
            memcpy(&word, stream, (size_t)bits);
            for (int k = 0; k < 8; k++) dst[i + k] = (uint8_t)(word >> (k * bits) & mask);
        }
    }
}

#include "backend/cpu/kernels_blocks.h"
#include "backend/cpu/kernels_small_floats.h"

/* Columns col0..col0+n of a row.  For AFFINE col0 and n are multiples of the group, for BLOCKS of the block. */
static void unpack_columns(const tq_matrix *w, int row, int col0, int n, float *dst) {
    size_t at = (size_t)row * (size_t)w->cols + (size_t)col0;
    int i = 0;
    switch (w->kind) {
    case TQ_MATRIX_F32: memcpy(dst, (const float *)w->data + at, (size_t)n * sizeof(float)); return;
    case TQ_MATRIX_F16:
        for (; i + VL <= n; i += VL) store(dst + i, load_f16((const uint16_t *)w->data + at + i));
        for (; i < n; i++) dst[i] = tq_f16_f32(((const uint16_t *)w->data)[at + (size_t)i]);
        return;
    case TQ_MATRIX_BF16:
        for (; i + VL <= n; i += VL) store(dst + i, load_bf16((const uint16_t *)w->data + at + i));
        for (; i < n; i++) dst[i] = tq_bf16_f32(((const uint16_t *)w->data)[at + (size_t)i]);
        return;
    case TQ_MATRIX_AFFINE: {
        const uint8_t *stream = (const uint8_t *)w->data + at * (size_t)w->bits / 8;
        size_t group = at / (size_t)w->group_size;
        for (; i < n; i += w->group_size, group++, stream += w->group_size * w->bits / 8) {
            uint8_t codes[128]; /* the largest group */
            float s = affine_constant(w->scales, group, w->scale_dtype), b = affine_constant(w->biases, group, w->scale_dtype);
            unpack_bytes(stream, w->bits, w->group_size, codes);
            for (int k = 0; k < w->group_size; k += VL) store(dst + i + k, to_float(load_u8(codes + k)) * s + b);
        }
        return;
    }
    case TQ_MATRIX_MXFP4:
    case TQ_MATRIX_MXFP8:
    case TQ_MATRIX_NVFP4: unpack_small_floats(w, row, col0, n, dst); return;
    case TQ_MATRIX_BLOCKS: unpack_blocks(w, row, col0, n, dst); return;
    case TQ_N_MATRIX_KINDS: return;
    }
}

static void unpack_row(const tq_matrix *w, int row, float *dst) { unpack_columns(w, row, 0, w->cols, dst); }

/* ---- preparing activations --------------------------------------------------------------------------------------------- */

/* Columns that share constants, of a matrix of codes. */
static int code_group(const tq_matrix *w) { return w->kind == TQ_MATRIX_BLOCKS ? block_group(w->block_type) : w->group_size; }

/* Matrices with the same number take the same integers; 0: none. */
static int integer_kind(const tq_matrix *w) {
    if (w->kind == TQ_MATRIX_BLOCKS) return -block_group(w->block_type);
    if (w->kind != TQ_MATRIX_AFFINE) return 0;
    return w->bits == 4 ? w->group_size : -w->group_size;
}

static int padded_groups(const tq_matrix *w) { return (w->cols / code_group(w) + 15) / 16 * 16; }

#ifdef BYTE_DOTS
#include "backend/cpu/matmul_bytes.h"
#else
#include "backend/cpu/matmul_words.h"
#endif

static bool matmul_same_input(const tq_matrix *a, const tq_matrix *b, int n) {
    return n > TQ_GEMV_TOKENS || integer_kind(a) == integer_kind(b);
}

/* Tokens of the tile that begins at token `first` of n. */
static int tile_tokens(int n, int first) {
    int left = n - first;
    return left >= GEMM_TOKENS ? GEMM_TOKENS : (left + GEMM_STEP - 1) / GEMM_STEP * GEMM_STEP;
}

/* A tile (cols, tokens): the values of a column side by side; tokens that are not there are 0. */
static void prepare_tile(const tq_matmul_input *in, int index) {
    int first = index * GEMM_TOKENS, tokens = tile_tokens(in->n, first), k = 0;
    float *tile = in->prepared + (size_t)first * (size_t)in->cols;
    for (; k + VL <= in->cols; k += VL) /* VL columns of VL tokens turn around in registers */
        for (int t0 = 0; t0 < tokens; t0 += VL) {
            vi m[VL];
            for (int l = 0; l < VL; l++)
                m[l] = first + t0 + l < in->n && t0 + l < tokens ? load_vi(in->x + (size_t)(first + t0 + l) * (size_t)in->cols + k)
                                                                  : (vi){0};
            transpose(m);
            int n = tokens - t0 < VL ? tokens - t0 : VL;
            for (int l = 0; l < VL; l++) memcpy(tile + (size_t)(k + l) * (size_t)tokens + t0, &m[l], (size_t)n * sizeof(float));
        }
    for (; k < in->cols; k++)
        for (int t = 0; t < tokens; t++)
            tile[(size_t)k * (size_t)tokens + (size_t)t] = first + t < in->n ? in->x[(size_t)(first + t) * (size_t)in->cols + k] : 0;
}

static void matmul_prepare(const tq_matrix *w, const tq_matmul_input *input, int index) {
    if (input->n > TQ_GEMV_TOKENS) prepare_tile(input, index);
    else if (integer_kind(w)) prepare_token(w, input, index);
}

/* ---- a few tokens: gemv ------------------------------------------------------------------------------------------------- */

INLINE vf load_plain(const void *row, int at, const tq_matrix_kind kind) {
    return kind == TQ_MATRIX_F32   ? load((const float *)row + at)
           : kind == TQ_MATRIX_F16 ? load_f16((const uint16_t *)row + at)
                                   : load_bf16((const uint16_t *)row + at);
}

/* The last n < VL elements of a row. */
INLINE vf load_plain_tail(const void *row, int at, int n, const tq_matrix_kind kind) {
    uint16_t half[VL] = {0};
    float whole[VL] = {0};
    if (kind == TQ_MATRIX_F32) memcpy(whole, (const float *)row + at, (size_t)n * sizeof *whole);
    else memcpy(half, (const uint16_t *)row + at, (size_t)n * sizeof *half);
    return load_plain(kind == TQ_MATRIX_F32 ? (const void *)whole : half, 0, kind);
}

enum { PLAIN_ROWS = 4, PLAIN_TOKENS = 4, PLAIN_BLOCK_ROWS = VL / PLAIN_TOKENS };

/* Some rows, row_bytes apart, times some tokens, VL products at most: y[t * ldy + i].  Each is the sum of one register over all
 * columns, and its lanes are added in one order: the same bits whatever the block. */
INLINE void dot_plain(const void *rows, size_t row_bytes, const float *x, int cols, float *y, int ldy, const tq_matrix_kind kind,
                      const int n_rows, const int tokens) {
    vf sum[VL];
    float total[VL];
    int k = 0, element = kind == TQ_MATRIX_F32 ? 4 : 2;
    for (int i = 0; i < VL; i++) sum[i] = (vf){0};
    for (; k + VL <= cols; k += VL) {
        vf row[PLAIN_ROWS];
        for (int i = 0; i < n_rows; i++) {
            const char *at = (const char *)rows + (size_t)i * row_bytes;
            if (k * element % 64 == 0) __builtin_prefetch(at + (size_t)k * (size_t)element + GEMV_AHEAD);
            row[i] = load_plain(at, k, kind);
        }
        for (int t = 0; t < tokens; t++) {
            vf value = load(x + (size_t)t * (size_t)cols + k);
            for (int i = 0; i < n_rows; i++) sum[t * n_rows + i] += row[i] * value;
        }
    }
    for (int t = 0; k < cols && t < tokens; t++) {
        vf value = load_plain_tail(x + (size_t)t * (size_t)cols, k, cols - k, TQ_MATRIX_F32);
        for (int i = 0; i < n_rows; i++)
            sum[t * n_rows + i] += load_plain_tail((const char *)rows + (size_t)i * row_bytes, k, cols - k, kind) * value;
    }
    store(total, sum_registers(sum));
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < n_rows; i++) y[t * ldy + i] = total[t * n_rows + i];
}

INLINE void dot_plain_tokens(const void *rows, size_t row_bytes, const tq_matmul_input *in, float *y, int ldy,
                             const tq_matrix_kind kind, const int n_rows) {
    int cols = in->cols, t = 0;
    const float *x = in->x;
    for (; t + 4 <= in->n; t += 4, x += 4 * (size_t)cols, y += 4 * ldy) dot_plain(rows, row_bytes, x, cols, y, ldy, kind, n_rows, 4);
    if (in->n - t == 3) dot_plain(rows, row_bytes, x, cols, y, ldy, kind, n_rows, 3);
    if (in->n - t == 2) dot_plain(rows, row_bytes, x, cols, y, ldy, kind, n_rows, 2);
    if (in->n - t == 1) dot_plain(rows, row_bytes, x, cols, y, ldy, kind, n_rows, 1);
}

INLINE void gemv_plain(const uint8_t *rows, size_t row_bytes, int n_rows, const tq_matmul_input *in, float *y, int ldy,
                       const tq_matrix_kind kind) {
    int i = 0;
    if (in->n == 1)
        for (; i + PLAIN_ROWS <= n_rows; i += PLAIN_ROWS)
            dot_plain(rows + (size_t)i * row_bytes, row_bytes, in->x, in->cols, y + i, ldy, kind, PLAIN_ROWS, 1);
    for (; i + PLAIN_BLOCK_ROWS <= n_rows; i += PLAIN_BLOCK_ROWS)
        dot_plain_tokens(rows + (size_t)i * row_bytes, row_bytes, in, y + i, ldy, kind, PLAIN_BLOCK_ROWS);
    for (; i < n_rows; i++) dot_plain_tokens(rows + (size_t)i * row_bytes, row_bytes, in, y + i, ldy, kind, 1);
}

static __attribute__((noinline)) void gemv_f32(const uint8_t *rows, size_t row_bytes, int n_rows, const tq_matmul_input *in, float *y,
                                               int ldy) {
    gemv_plain(rows, row_bytes, n_rows, in, y, ldy, TQ_MATRIX_F32);
}
static __attribute__((noinline)) void gemv_f16(const uint8_t *rows, size_t row_bytes, int n_rows, const tq_matmul_input *in, float *y,
                                               int ldy) {
    gemv_plain(rows, row_bytes, n_rows, in, y, ldy, TQ_MATRIX_F16);
}
static __attribute__((noinline)) void gemv_bf16(const uint8_t *rows, size_t row_bytes, int n_rows, const tq_matmul_input *in, float *y,
                                                int ldy) {
    gemv_plain(rows, row_bytes, n_rows, in, y, ldy, TQ_MATRIX_BF16);
}

static void gemv(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, float *y, int ldy, float *scratch) {
    size_t row_bytes = tq_matrix_row_bytes(w);
    const uint8_t *rows = (const uint8_t *)w->data + (size_t)row0 * row_bytes;
    if (integer_kind(w)) {
        gemv_integers(w, row0, n_rows, in, y, ldy, scratch);
    } else if (w->kind == TQ_MATRIX_F32) {
        gemv_f32(rows, row_bytes, n_rows, in, y, ldy);
    } else if (w->kind == TQ_MATRIX_F16) {
        gemv_f16(rows, row_bytes, n_rows, in, y, ldy);
    } else if (w->kind == TQ_MATRIX_BF16) {
        gemv_bf16(rows, row_bytes, n_rows, in, y, ldy);
    } else {
        for (int i = 0; i < n_rows; i++) {
            unpack_row(w, row0 + i, scratch);
            gemv_f32((const uint8_t *)scratch, 0, 1, in, y + i, ldy);
        }
    }
}

/* ---- many tokens: gemm -----------------------------------------------------------------------------------------------------
 * A panel is up to TQ_GEMM_DEPTH columns of TQ_GEMM_ROWS rows as floats, transposed: panel[k][row].  TILE_ROWS rows times a tile's
 * tokens stay in accumulators while k runs. */

enum { TILE_ROWS = 2 * VL };

/* VL rows, columns col0..col0+depth, to the panel's columns r0.. */
INLINE void fill_floats(const float *const *rows, int depth, float *to) {
    int k = 0;
    for (; k + VL <= depth; k += VL) {
        vi m[VL];
        for (int l = 0; l < VL; l++) m[l] = load_vi(rows[l] + k);
        transpose(m);
        for (int l = 0; l < VL; l++) store(to + (k + l) * TQ_GEMM_ROWS, (vf)m[l]);
    }
    for (; k < depth; k++)
        for (int l = 0; l < VL; l++) to[k * TQ_GEMM_ROWS + l] = rows[l][k];
}

/* 4-bit codes of VL rows: VL dwords of each turn around in registers, then every dword gives eight columns. */
static void fill_codes4(const tq_matrix *w, const int *row_of, int col0, int depth, float *to) {
    int groups = w->cols / w->group_size;
    size_t row_bytes = tq_matrix_row_bytes(w);
    vf scales = {0}, biases = {0};
    for (int k = 0; k < depth; k += RUN) {
        vi m[VL];
        int dwords = depth - k < RUN ? (depth - k) / 8 : VL;
        for (int l = 0; l < VL; l++) {
            const uint8_t *at = (const uint8_t *)w->data + (size_t)row_of[l] * row_bytes + (size_t)(col0 + k) / 2;
            m[l] = (vi){0};
            if (dwords == VL) m[l] = load_vi(at);
            else memcpy(&m[l], at, (size_t)dwords * 4);
        }
        transpose(m);
        for (int d = 0; d < dwords; d++) {
            int col = col0 + k + 8 * d;
            if (col % w->group_size == 0)
                for (int l = 0; l < VL; l++) {
                    size_t at = (size_t)row_of[l] * (size_t)groups + (size_t)(col / w->group_size);
                    scales[l] = affine_constant(w->scales, at, w->scale_dtype);
                    biases[l] = affine_constant(w->biases, at, w->scale_dtype);
                }
            float *at = to + (k + 8 * d) * TQ_GEMM_ROWS;
            for (int j = 0; j < 8; j++) store(at + j * TQ_GEMM_ROWS, lookup((vi)((vu)m[d] >> (4 * j))) * scales + biases);
        }
    }
}

static void fill_panel(const tq_matrix *w, int row0, int n_rows, int col0, int depth, float *panel, float *unpacked) {
    for (int r0 = 0; r0 < TQ_GEMM_ROWS && r0 / TILE_ROWS * TILE_ROWS < n_rows; r0 += VL) {
        int row_of[VL];
        const float *rows[VL];
        for (int l = 0; l < VL; l++) row_of[l] = row0 + (r0 + l < n_rows ? r0 + l : n_rows - 1); /* any: never looked at */
        if (w->kind == TQ_MATRIX_AFFINE && w->bits == 4) {
            fill_codes4(w, row_of, col0, depth, panel + r0);
            continue;
        }
        for (int l = 0; l < VL; l++) {
            rows[l] = unpacked + l * TQ_GEMM_DEPTH;
            unpack_columns(w, row_of[l], col0, depth, unpacked + l * TQ_GEMM_DEPTH);
        }
        fill_floats(rows, depth, panel + r0);
    }
}

/* acc (tokens, TQ_GEMM_ROWS) += tile^T panel, for TILE_ROWS rows. */
INLINE void gemm_tile(const float *panel, int depth, const float *tile, float *acc, const int tokens) {
    vf sum[GEMM_TOKENS][2];
    for (int t = 0; t < tokens; t++)
        for (int c = 0; c < 2; c++) sum[t][c] = load(acc + t * TQ_GEMM_ROWS + c * VL);
    for (int k = 0; k < depth; k++, panel += TQ_GEMM_ROWS, tile += tokens) {
        vf w0 = load(panel), w1 = load(panel + VL);
        for (int t = 0; t < tokens; t++) {
            vf value = spread(tile[t]);
            sum[t][0] += w0 * value;
            sum[t][1] += w1 * value;
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int c = 0; c < 2; c++) store(acc + t * TQ_GEMM_ROWS + c * VL, sum[t][c]);
}

static void gemm_tiles(const float *panel, int depth, const float *tile, float *acc, int tokens) {
    switch (tokens) {
    case GEMM_STEP: gemm_tile(panel, depth, tile, acc, GEMM_STEP); break;
    case 2 * GEMM_STEP: gemm_tile(panel, depth, tile, acc, 2 * GEMM_STEP); break;
    default: gemm_tile(panel, depth, tile, acc, GEMM_TOKENS);
    }
}

static void gemm(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, float *y, int ldy, float *scratch) {
    float *acc = scratch, *panel = acc + TQ_GEMM_ROWS * TQ_GEMM_TOKENS, *unpacked = panel + TQ_GEMM_ROWS * TQ_GEMM_DEPTH;
    memset(acc, 0, (size_t)((in->n + GEMM_TOKENS - 1) / GEMM_TOKENS * GEMM_TOKENS) * TQ_GEMM_ROWS * sizeof *acc);
    /* Whole blocks have up to 256 columns; otherwise half a panel leaves room in L1 for a tile of x. */
    int at_a_time = w->kind == TQ_MATRIX_BLOCKS ? TQ_GEMM_DEPTH : TQ_GEMM_DEPTH / 2;
    for (int col0 = 0; col0 < w->cols; col0 += at_a_time) {
        int depth = w->cols - col0 < at_a_time ? w->cols - col0 : at_a_time;
        fill_panel(w, row0, n_rows, col0, depth, panel, unpacked);
        for (int t = 0; t < in->n; t += GEMM_TOKENS) {
            int tokens = tile_tokens(in->n, t);
            const float *tile = in->prepared + (size_t)t * (size_t)in->cols + (size_t)col0 * (size_t)tokens;
            for (int r0 = 0; r0 < n_rows; r0 += TILE_ROWS)
                gemm_tiles(panel + r0, depth, tile, acc + t * TQ_GEMM_ROWS + r0, tokens);
        }
    }
    for (int t = 0; t < in->n; t++)
        memcpy(y + (size_t)t * (size_t)ldy, acc + t * TQ_GEMM_ROWS, (size_t)n_rows * sizeof *y);
}
