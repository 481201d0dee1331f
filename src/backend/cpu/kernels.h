/* kernels.h: the hot functions of the CPU backend, one table an instruction set.
 *
 * Same functions, same meaning in every table; integer results are equal bit for bit, float results differ by the order
 * of summation only (tolerances: tests/unit/test_kernels.c).  The scalar table is the specification.  Tables are const;
 * the one in use is chosen when a backend is made and lives there. */
#ifndef TQ_BACKEND_CPU_KERNELS_H
#define TQ_BACKEND_CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/cpu/encode.h"
#include "base/status.h"
#include "base/tensor.h"
#include "codec/pair_codebook.h"
#include "codec/trellis_weave.h"

/* Float vectors as 16-bit integers: value = step * wide, |wide| <= 127 * 256, wide = 256 * high + low.
 * Vector i of several: its wide places stand at i * stride, its high bytes at i * 2 stride and its low ones stride bytes after
 * them, so that the bytes of several are the rows of one matrix.  sum is the sum of its wide values. */
typedef struct tq_int_vectors {
    int16_t *wide;
    int8_t *high, *low; /* low = high + stride */
    float *step;
    int32_t *sum;
    int stride; /* a multiple of 64 */
} tq_int_vectors;

/* Keys a query sees: from..to-1 of a run of them. */
typedef struct tq_key_range {
    int from, to;
} tq_key_range;

/* Whole pages are attended to by up to TQ_PAGE_QUERIES queries at a time, whose integer vectors stand TQ_INT_STRIDE apart. */
enum { TQ_PAGE_QUERIES = 8, TQ_INT_STRIDE = 512 };

/* The codes of one side of a page (codec/page.h). */
typedef struct tq_page_codes {
    const uint8_t *codes, *levels; /* levels: of a code, + 128; 256 entries, the table repeated */
    const uint8_t *next;           /* the next page's block of this side, to be fetched meanwhile; or NULL */
    size_t next_bytes;
    int bits, n_tiles, n_vectors;  /* 8 bits: level + 128 */
    size_t tile_bytes;
    const tq_trellis_weave *weave; /* codes are a trellis' as they are: for woven_dots and attend_pages */
    bool values;
} tq_page_codes;

/* Softmax over pages: of each query the largest score so far and the sum of weights relative to it; then what a page
 * changes: the factor for what was gathered before and the one for what the page brings. */
typedef struct tq_page_softmax {
    float *max, *sum;
    float keep[TQ_PAGE_QUERIES], bring[TQ_PAGE_QUERIES];
} tq_page_softmax;

/* A page whose codecs are planar on both sides, with `n` rows in it; or, for attention in bf16, n exact rows. */
typedef struct tq_planar_page {
    tq_page_codes keys, values;
    const uint16_t *key_scales, *centre, *value_scales;
    int dim, n;
    const tq_key_range *seen; /* of each row; NULL: every row sees all n */
    const uint8_t *block;     /* all of it, to be fetched ahead; at least 64 bytes */
    size_t block_bytes;
    const void *key_rows, *value_rows; /* exact rows, row_stride values apart, and nothing of the above but dim, n and seen; or NULL */
    size_t row_stride;
    tq_dtype row_dtype; /* TQ_F32 or TQ_F16 */
} tq_planar_page;

/* Query rows on their way over such pages.  The softmax of a row is relative to max, which is near its largest score but not
 * equal to it.  Up to TQ_PAGE_QUERIES rows are taken by their integers, more by their floats.
 * In bf16 (where the table's `bf16` says that it attends so) queries, weights and exact rows are rounded to it, and any number of rows is
 * taken as many. */
enum { TQ_MANY_ROWS = 32 };
typedef struct tq_page_rows {
    int n, dim;
    bool bf16;
    const float *q;         /* (n, dim), scaled, in the keys' basis */
    tq_int_vectors q_int;   /* the same; TQ_PAGE_QUERIES may be read */
    float *max, *sum, *acc; /* (n), (n), (n, dim); of acc, with more than TQ_PAGE_QUERIES rows or in bf16, a multiple of TQ_MANY_ROWS may be written */
    void *scratch;          /* tq_page_rows_bytes(n, dim), in bf16 of more than TQ_PAGE_QUERIES at least; aligned to 64 */
    unsigned saved;         /* the table's own */
} tq_page_rows;

/* Few rows: levels of both sides in tiles of whole registers, products of keys of two pages and of values of one, weights.  Many:
 * panels of halves, parts of queries, and for TQ_MANY_ROWS rows scores and weights of a page. */
static inline size_t tq_page_rows_bytes(int n, int dim) {
    size_t dims = ((size_t)dim + 63) / 64 * 64, rows = ((size_t)n + TQ_MANY_ROWS - 1) / TQ_MANY_ROWS * TQ_MANY_ROWS;
    if (n <= TQ_PAGE_QUERIES) return 2 * 128 * dims + 2 * 8192 + 64 * dims + TQ_PAGE_QUERIES * (128 * sizeof(float) + 2 * TQ_INT_STRIDE);
    return 2 * 256 * dims + 4 * rows * dims + 2 * TQ_MANY_ROWS * 128 * sizeof(float) + 72 * rows;
}

/* Activations x (n, cols) as the products with a matrix want them.
 *
 * A few tokens: F32, F16, BF16 matrices take x as it is; AFFINE ones and the common BLOCKS (q4_0, q8_0, q4_k, q5_k, q6_k) take
 * integers, the rest floats.  Each run of values of a token that meets one scale is rounded against its largest, to two words of
 * 31 bits together (matmul_words.h) or to three bytes (matmul_bytes.h), which a float32 sum could not tell from x.  Codes times
 * words or bytes are summed exactly, in 32 bits, over a group or part of one; scales, biases and steps come in as floats
 * afterwards.
 * Many tokens: floats in tiles, whose tokens are interleaved.  Where the processor multiplies tiles (matmul_amx.h) AFFINE matrices
 * take integers of 24 bits against the token's largest value, others but F32 three bf16 numbers that are the value.
 *
 * The order of values is the table's own (matmul_body.h): a prepared input belongs to the table that made it. */
typedef struct tq_matmul_input {
    const float *x; /* (n, cols) */
    int n, cols;
    float *prepared;   /* tq_matmul_input_count(cols): integers or tiles */
    float *step, *sum; /* tq_matmul_step_count(cols) each: of a group; sum: of its values as they were rounded */
} tq_matmul_input;

enum {
    TQ_GEMV_TOKENS = 16, /* tokens that gemv takes at a time; more go through gemm */
    TQ_GEMV_ROWS = 32,   /* rows that some tables' gemv takes together */
    TQ_GEMM_ROWS = 32,   /* rows of W that gemm handles at a time */
    TQ_TILES_ROWS = 256, /* the same where tiles multiply: the most of any table */
    TQ_GEMM_DEPTH = 256, /* columns of W unpacked at a time, at most: half of it where blocks allow (gemm) */
    TQ_GEMM_TOKENS = 288, /* tokens that gemm takes at a time: a multiple of every table's tile */
    TQ_MATMUL_PAD = 128,  /* columns are filled up to a multiple of this */
    TQ_TILES_SCRATCH = 168 * 1024, /* floats: 256 rows of 256 columns in tiles three times, and their constants; or once, and sums with 512 tokens */
};

static inline size_t tq_matmul_padded(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }
static inline size_t tq_matmul_input_count(int cols) {
    return (size_t)TQ_GEMM_TOKENS * tq_matmul_padded((size_t)cols, TQ_MATMUL_PAD) / 2 * 3; /* six bytes a value, for tiles */
}
/* Groups have 16 values or more; their number is filled up to whole registers. */
static inline size_t tq_matmul_step_count(int cols) {
    return (size_t)TQ_GEMV_TOKENS * tq_matmul_padded((size_t)cols / 16 + 1, 16);
}
/* Floats of scratch that a worker needs for gemv and gemm of matrices of up to `cols` columns. */
static inline size_t tq_matmul_scratch(int cols) {
    size_t gemv = tq_matmul_padded((size_t)cols, TQ_MATMUL_PAD) + tq_matmul_step_count(cols);
    size_t gemm = 2 * TQ_GEMM_ROWS * TQ_GEMM_DEPTH + TQ_GEMM_ROWS * TQ_GEMM_TOKENS;
    if (gemm < TQ_TILES_SCRATCH) gemm = TQ_TILES_SCRATCH;
    return gemv > gemm ? gemv : gemm;
}
/* Tokens that matmul_prepare takes at a time: n of them make ceil(n / this) calls. */
static inline int tq_matmul_tile(int n, int gemm_tile) { return n > TQ_GEMV_TOKENS ? gemm_tile : 1; }

/* Bytes of trellis_encode's scratch for rows of n samples, aligned to 64. */
#define TQ_TRELLIS_SCRATCH(n) (((size_t)(n) + 1) * (TQ_TRELLIS_STATES + 3) * TQ_TRELLIS_ROWS)

/* Products with more than TQ_GEMV_TOKENS tokens whose values are rounded to bf16, as weights are; sums are float32.  A result is off by
 * 2^-8 of the sum of its products' magnitudes, at most. */
typedef struct tq_bf16_kernels {
    bool (*runs_here)(void); /* where the table does */
    bool attends;            /* attend_pages takes rows in bf16 */
    int tile, rows, tokens;  /* tokens of a call of prepare; rows and tokens that gemm takes at a time, at most */
    bool (*takes)(const tq_matrix *w); /* others are multiplied in float32 */
    void (*prepare)(const tq_matmul_input *input, int index);
    /* Prepare columns col0..col0+n (multiples of 32) of it, from values x (tokens, ldx) that do not stand in the input. */
    void (*put)(const tq_matmul_input *input, int index, int col0, int n, const float *x, int ldx);
    void (*gemm)(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *input, float *y, int ldy, float *scratch);
} tq_bf16_kernels;

typedef struct tq_kernels {
    const char *name;
    bool (*runs_here)(void);

    /* ---- weights */
    int gemm_tile; /* tokens of a whole tile */
    int gemm_rows; /* rows that gemm takes at a time, at most: TQ_GEMM_ROWS, or TQ_TILES_ROWS */
    /* May n tokens prepared for matrix a be used with b? */
    bool (*matmul_same_input)(const tq_matrix *a, const tq_matrix *b, int n);
    /* Prepare tile `index` of the input for products with w: tokens index * tq_matmul_tile(n, gemm_tile) and on. */
    void (*matmul_prepare)(const tq_matrix *w, const tq_matmul_input *input, int index);
    /* y[t * ldy + i] = W[row0 + i] . x[t] for i < n_rows and all tokens, of which there are at most TQ_GEMV_TOKENS: a
     * token's result is the same, bit for bit, however many there are. */
    void (*gemv)(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *input, float *y, int ldy, float *scratch);
    /* The same for more tokens, up to TQ_GEMM_TOKENS, and n_rows <= gemm_rows.  scratch of both: tq_matmul_scratch(cols) floats. */
    void (*gemm)(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *input, float *y, int ldy, float *scratch);
    const tq_bf16_kernels *bf16; /* NULL: this table has none */
    /* Row `row` of W -> (cols) floats. */
    void (*unpack_row)(const tq_matrix *w, int row, float *dst);

    /* ---- between the matrices */
    void (*rms_norm)(const float *x, const float *weight, int n, float eps, float *y); /* y = x / rms(x) * weight */
    void (*silu_mul)(float *gate, const float *up, int n); /* gate = gate / (1 + exp(-gate)) * up */
    void (*add)(float *x, const float *y, int n);
    void (*gelu_mul)(float *gate, const float *up, int n); /* gate = gelu(gate) * up, the tanh form */
    /* gate = g sigmoid(alpha g) (u + 1), g = min(gate, limit), u = up within +-limit */
    void (*clamped_swiglu)(float *gate, const float *up, int n, float alpha, float limit);
    void (*sigmoid_mul)(float *x, const float *gate, int n);  /* x *= sigmoid(gate) */
    void (*soft_cap)(float *x, int n, float cap);             /* x = cap * tanh(x / cap) */
    /* The gated delta rule, a token of a head: state (dv, dk) = decay state + beta (v - decay state k) k^T, y = state q. */
    void (*delta_step)(float *state, const float *q, const float *k, const float *v, float decay, float beta, int dk,
                       int dv, float *y);

    /* ---- attention over float rows.  Query i at q + i * q_stride; row r at rows + r * row_stride (elements). */
    void (*dot_rows_f32)(const float *q, int n_q, int q_stride, const float *rows, int n_rows, int row_stride, int width,
                         float *out, int out_stride); /* out[i * out_stride + r] = q_i . row_r */
    void (*dot_rows_f16)(const float *q, int n_q, int q_stride, const uint16_t *rows, int n_rows, int row_stride,
                         int width, float *out, int out_stride);
    /* acc_i += sum over r of w[i * w_stride + r] * row_r; acc_i at acc + i * acc_stride. */
    void (*sum_rows_f32)(const float *w, int n_q, int w_stride, const float *rows, int n_rows, int row_stride, int width,
                         float *acc, int acc_stride);
    void (*sum_rows_f16)(const float *w, int n_q, int w_stride, const uint16_t *rows, int n_rows, int row_stride,
                         int width, float *acc, int acc_stride);

    /* The codes of a little-endian bit stream, 1..8 bits each -> out[i] = offset + scale * levels[code i], i < n.
     * levels: a table of 16 floats or more, 2^bits of which count.  Reads no byte behind the last code's. */
    void (*expand_codes)(const uint8_t *stream, int bits, const float *levels, int n, float scale, float offset,
                         float *out);

    /* ---- attention over packed pages (layout: codec/page.h) */
    /* x: (n), n a multiple of 16 -> vector `index` of out. */
    void (*to_int)(const float *x, int n, tq_int_vectors *out, int index);
    /* Trellis codes -> bytes level + 128, 64 a vector: of a tile of keys, which stands for itself; of all tiles of values. */
    void (*unpack_trellis_keys)(const tq_trellis_weave *weave, const uint8_t *tile, int n_vectors, uint8_t *dst);
    void (*unpack_trellis_values)(const tq_trellis_weave *weave, const uint8_t *codes, int n_tiles, uint8_t *dst);
    /* Codes of pairs of a tile of n_vectors vectors (a multiple of 4) -> bytes level + 128, 64 a vector. */
    void (*unpack_pairs)(const tq_pair_codebook *book, const uint8_t *tile, int n_vectors, bool values, uint8_t *dst);
    const tq_encoder *encoder; /* rows on their way into a page */
    /* tq_trellis_encode of n_rows <= TQ_TRELLIS_ROWS rows side by side, and tq_trellis_sums of each: samples and codes are
     * (n, TQ_TRELLIS_ROWS), product and energy (TQ_TRELLIS_ROWS).  What belongs to no row may be read and comes out as
     * anything.  n >= 16; scratch: TQ_TRELLIS_SCRATCH(n). */
    void (*trellis_encode)(const tq_trellis *trellis, const int16_t *samples, int n_rows, int n, uint8_t *codes,
                           int32_t *product, int32_t *energy, void *scratch);

    /* ---- whole pages: n_q <= TQ_PAGE_QUERIES queries, of which `first_q` of the integer vectors is the first; the others'
     * arguments begin at their own.  dots: (tile, TQ_PAGE_QUERIES, 16). */
    /* dots[t][i][lane] = sum over vectors v and j < 4 of wide[4 v + j] of query first_q + i times the level of the code at
     * place 4 lane + j of vector v of tile t: exact. */
    void (*page_dots)(const tq_page_codes *side, const tq_int_vectors *q, int first_q, int n_q, int32_t *dots);
    /* The same of a woven side's codes as they are, where that gains anything over unpacking them before; else NULL. */
    void (*woven_dots)(const tq_page_codes *side, const tq_int_vectors *q, int first_q, int n_q, int32_t *dots);
    /* offsets[i] = q_i . centre / unit[i] */
    void (*page_offsets)(const uint16_t *centre, int dim, const float *q, int q_stride, const float *unit, int n_q,
                         float *offsets);
    /* scores[i * 128 + r] = dots * scales[r] + offsets[i], for the 16 n_tiles keys */
    void (*page_scores)(const int32_t *dots, const uint16_t *scales, const float *offsets, int n_q, int n_tiles,
                        float *scores);
    /* factors[r] = scales[r] for r < n, else 0.  Returns 0, or NaN if one of them is not finite. */
    float (*page_factors)(const uint16_t *scales, int n, float *factors);
    /* scores (in units of unit[i] > 0) of the keys seen, of 128 -> weights.  With factors: w = weight * factor as integers,
     * of which the planes that page_dots reads, relative to the page's largest score.  Without: floats in place of the scores,
     * relative to s->max as it is then, and bring is 1 in effect.  A NaN comes out in s->sum. */
    void (*page_weights)(float *scores, const float *unit, const tq_key_range *seen, int n_q, const float *factors,
                         tq_int_vectors *w, tq_page_softmax *s);
    /* acc_i = acc_i * keep_i + dots * bring_i * step_i / 127, for 16 n_tiles places at acc + i * acc_stride */
    void (*page_values)(const int32_t *dots, const float *step, const tq_page_softmax *s, int n_q, int n_tiles, float *acc,
                        int acc_stride);

    /* ---- planar pages in one step, for instruction sets that gain by it; NULL: by the steps above */
    /* Before and after a thread's runs of pages for these rows. */
    void (*begin_pages)(tq_page_rows *rows);
    void (*end_pages)(tq_page_rows *rows);
    /* What the steps above do, for a run of pages of the same codecs and any number of rows: max, sum and acc take the pages in. */
    void (*attend_pages)(const tq_planar_page *pages, int n_pages, tq_page_rows *rows);

    void (*scale)(float *x, int n, float factor);
} tq_kernels;

extern const tq_kernels *const tq_kernels_all[]; /* best first, NULL ends the list */

/* want NULL: the environment's TQ_KERNELS, else the best that runs here.  TQ_INVALID lists what there is; asking for a
 * table that does not run on this processor is TQ_UNSUPPORTED. */
tq_status tq_kernels_select(const char *want, const tq_kernels **out, tq_error *err);

#endif
