/* bench_kernels.c: every kernel of every instruction set, first checked against the scalar table, then timed.
 * Owns: the shapes that are measured.  Not here: what is right to the last bit (tests/unit/test_kernels.c). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/kernels.h"
#include "base/half.h"
#include "base/rng.h"

#include <turboquant/tq_bench.h>

enum { TABLES_CAP = 8, REPEATS_CAP = 101, STREAM_BYTES = 96 << 20, HEAD = 128, ROWS = 128, QUERIES = 8 };

/* One measurement: `run` computes n_out floats into out. */
typedef struct bench_case {
    const char *name;
    char shape[64];
    void (*run)(const tq_kernels *k, const struct bench_case *c, float *out);
    size_t n_out;
    double tolerance, bytes, flops;
    /* its data */
    tq_matrix w;
    tq_matmul_input input;
    float *x, *y, *scratch;
    uint8_t *data;
    bool in_bf16; /* of products: tq_kernels.bf16, checked against float32 */
    int n, bits, stride; /* stride: rows of w from one call's block to the next */
    tq_trellis_weave weave; /* of pages with trellis codes */
} bench_case;

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* other processes do not count */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- products with weights ------------------------------------------------------------------------------------------ */

enum { CHECK_ROWS = 64 };

static void multiply(const tq_kernels *k, const bench_case *c) {
    const tq_bf16_kernels *coarse = c->in_bf16 ? k->bf16 : NULL; /* the scalar table, which others are checked against, has none */
    int rows = c->w.rows, tile = coarse ? coarse->tile : tq_matmul_tile(c->n, k->gemm_tile);
    int at_a_time = coarse ? coarse->rows : c->n > TQ_GEMV_TOKENS ? k->gemm_rows : TQ_GEMM_ROWS;
    for (int i = 0; i * tile < c->n; i++) {
        if (coarse) coarse->prepare(&c->input, i);
        else k->matmul_prepare(&c->w, &c->input, i);
    }
    for (int row0 = 0; row0 < rows; row0 += at_a_time) {
        if (coarse) coarse->gemm(&c->w, row0, at_a_time, &c->input, c->y + row0, rows, c->scratch);
        else if (c->n > TQ_GEMV_TOKENS) k->gemm(&c->w, row0, at_a_time, &c->input, c->y + row0, rows, c->scratch);
        else k->gemv(&c->w, row0, at_a_time, &c->input, c->y + row0, rows, c->scratch);
    }
}

/* All rows; out gets the first CHECK_ROWS of each token. */
static void run_matmul(const tq_kernels *k, const bench_case *c, float *out) {
    int rows = c->w.rows;
    multiply(k, c);
    for (int t = 0; out && t < c->n; t++)
        memcpy(out + (size_t)t * CHECK_ROWS, c->y + (size_t)t * (size_t)rows, CHECK_ROWS * sizeof *out);
}

typedef struct matmul_case {
    tq_matrix_kind kind;
    int bits, group, cols, n;
    tq_dtype type; /* BLOCKS */
} matmul_case;

static const char *matmul_name(const matmul_case *m, bool in_bf16) {
    return in_bf16 ? "gemm_bf16" : m->n > TQ_GEMV_TOKENS ? "gemm" : "gemv";
}

/* Random bytes of blocks; the f16 scales among them small. */
static void fill_blocks(uint8_t *data, size_t bytes, tq_dtype type, tq_rng *rng) {
    bool two = type == TQ_Q4_K || type == TQ_Q5_K;
    size_t block = tq_dtype_bytes(type), at = type == TQ_Q6_K ? 208 : 0;
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        uint64_t word = tq_rng_u64(rng);
        memcpy(data + i, &word, 8);
    }
    for (size_t i = 0; i < bytes; i += block)
        for (size_t j = 0; j < (two ? 2 : 1); j++) {
            uint16_t half = tq_f32_f16((float)(0.001 + 0.001 * tq_rng_uniform(rng)));
            memcpy(data + i + at + 2 * j, &half, 2);
        }
}

/* A matrix of random weights that stands in no cache if it is streamed. */
static bool make_matmul(bench_case *c, const matmul_case *m, bool in_bf16, tq_rng *rng) {
    tq_matrix_kind kind = m->kind;
    int bits = m->bits, group = m->group, cols = m->cols, n = m->n;
    c->w = (tq_matrix){.kind = kind, .cols = cols, .bits = bits, .group_size = group, .scale_dtype = TQ_BF16, .block_type = m->type};
    size_t row_bytes = tq_matrix_row_bytes(&c->w), groups = kind == TQ_MATRIX_AFFINE ? (size_t)(cols / group) : 0;
    size_t rows = n > TQ_GEMV_TOKENS ? 512 : STREAM_BYTES / row_bytes / TQ_GEMM_ROWS * TQ_GEMM_ROWS;
    c->w.rows = (int)rows;
    c->n = n;
    c->data = aligned_alloc(64, tq_matmul_padded(rows * (row_bytes + 4 * groups) + 64, 64));
    c->x = aligned_alloc(64, tq_matmul_padded((size_t)n * (size_t)cols * 4, 64));
    c->y = aligned_alloc(64, tq_matmul_padded((size_t)n * rows * 4, 64));
    c->scratch = aligned_alloc(64, tq_matmul_padded(tq_matmul_scratch(cols) * 4, 64));
    size_t steps = tq_matmul_padded(tq_matmul_step_count(cols) * 4, 64);
    c->input = (tq_matmul_input){.x = c->x, .n = n, .cols = cols,
                                 .prepared = aligned_alloc(64, tq_matmul_padded(tq_matmul_input_count(cols) * 4, 64)),
                                 .step = aligned_alloc(64, steps), .sum = aligned_alloc(64, steps)};
    if (!c->data || !c->x || !c->y || !c->scratch || !c->input.prepared || !c->input.step || !c->input.sum) return false;
    uint16_t *half = (uint16_t *)(void *)c->data;
    if (kind == TQ_MATRIX_AFFINE) {
        uint16_t *scales = (uint16_t *)(void *)(c->data + rows * row_bytes);
        c->w.scales = scales;
        c->w.biases = scales + rows * groups;
        for (size_t i = 0; i + 8 <= rows * row_bytes; i += 8) {
            uint64_t word = tq_rng_u64(rng);
            memcpy(c->data + i, &word, 8);
        }
        for (size_t i = 0; i < rows * groups; i++) {
            float s = (float)(0.01 + 0.01 * tq_rng_uniform(rng));
            scales[i] = tq_f32_bf16(s);
            scales[rows * groups + i] = tq_f32_bf16(-s * (float)((1 << bits) - 1) / 2);
        }
    } else if (kind == TQ_MATRIX_BLOCKS) {
        fill_blocks(c->data, rows * row_bytes, m->type, rng);
    } else {
        for (size_t i = 0; i < rows * (size_t)cols; i++) {
            float v = (float)((int64_t)(tq_rng_u64(rng) >> 44) - (1 << 19)) * 0x1p-20f;
            half[i] = kind == TQ_MATRIX_F16 ? tq_f32_f16(v) : tq_f32_bf16(v);
        }
    }
    c->w.data = c->data;
    for (size_t i = 0; i < (size_t)n * (size_t)cols; i++) c->x[i] = (float)(tq_rng_uniform(rng) - 0.5);
    c->run = run_matmul;
    c->n_out = (size_t)n * CHECK_ROWS;
    c->in_bf16 = in_bf16;
    c->tolerance = c->in_bf16 ? 0x1p-8 : 1e-5; /* float sums of up to 4864 terms in another order: 1e-6 is usual */
    c->bytes = (double)rows * (double)(row_bytes + 4 * groups);
    c->flops = 2.0 * (double)rows * cols * n;
    char type[24];
    if (kind == TQ_MATRIX_AFFINE) snprintf(type, sizeof type, "%d-bit/%d", bits, group);
    else snprintf(type, sizeof type, "%s", kind == TQ_MATRIX_BLOCKS ? tq_dtype_name(m->type) : kind == TQ_MATRIX_F16 ? "f16" : "bf16");
    c->name = matmul_name(m, in_bf16);
    snprintf(c->shape, sizeof c->shape, "%s, %d columns, %d token%s", type, cols, n, n == 1 ? "" : "s");
    return true;
}

/* ---- the rest, in L1 ---------------------------------------------------------------------------------------------------- */

static void run_rms_norm(const tq_kernels *k, const bench_case *c, float *out) {
    k->rms_norm(c->x, c->y, c->n, 1e-6f, out ? out : c->scratch);
}
static void run_silu_mul(const tq_kernels *k, const bench_case *c, float *out) {
    float *to = out ? out : c->scratch;
    memcpy(to, c->x, (size_t)c->n * sizeof *to);
    k->silu_mul(to, c->y, c->n);
}
static void run_dot_rows_f16(const tq_kernels *k, const bench_case *c, float *out) {
    k->dot_rows_f16(c->x, QUERIES, HEAD, (const uint16_t *)(const void *)c->data, ROWS, HEAD, HEAD, out ? out : c->scratch, ROWS);
}
static void run_sum_rows_f16(const tq_kernels *k, const bench_case *c, float *out) {
    float *to = out ? out : c->scratch;
    memset(to, 0, QUERIES * HEAD * sizeof *to);
    k->sum_rows_f16(c->x, QUERIES, ROWS, (const uint16_t *)(const void *)c->data, ROWS, HEAD, HEAD, to, HEAD);
}
/* ---- whole pages: 7 queries (the group of a Qwen2.5-0.5B) or 56 (8 tokens of it), 128 keys or values of HEAD or 64 */

enum { GROUP = 7, MANY = 56, MANY_FLOATS = MANY * HEAD };

/* Floats of scratch: what is gathered, then sums and maxima, the steps' own, the integers of queries and of weights. */
enum {
    SUMS_AT = MANY_FLOATS,
    STEPS_AT = SUMS_AT + 4 * 64,
    QUERIES_AT = STEPS_AT + 8192,
    WEIGHTS_AT = QUERIES_AT + MANY * (TQ_INT_STRIDE + 2),
    UNPACKED_AT = (WEIGHTS_AT + TQ_PAGE_QUERIES * (TQ_INT_STRIDE + 2) + 15) / 16 * 16,
    ROWS_AT = UNPACKED_AT + 2 * ROWS * HEAD / 4,
    SCRATCH_FLOATS = ROWS_AT + 49152
};
enum { RUN = 16 }; /* pages that a thread takes at a time */

static tq_int_vectors int_vectors_in(float *at, int n) {
    int8_t *bytes = (int8_t *)at;
    size_t plane = (size_t)n * TQ_INT_STRIDE;
    return (tq_int_vectors){.wide = (int16_t *)(void *)bytes, .high = bytes + 2 * plane, .low = bytes + 2 * plane + TQ_INT_STRIDE,
                            .step = at + plane, .sum = (int32_t *)(void *)(at + plane + n), .stride = TQ_INT_STRIDE};
}

static tq_page_codes page_codes_of(const bench_case *c, int dim) {
    size_t bytes = (size_t)dim * ROWS * (size_t)c->bits / 8 / (ROWS / 16);
    return (tq_page_codes){.codes = c->data, .levels = c->data + 65536, .bits = c->bits, .n_tiles = ROWS / 16,
                           .n_vectors = dim / 4, .tile_bytes = bytes, .weave = c->weave.trellis ? &c->weave : NULL};
}

/* c->n is the width. */
static void run_page_dots(const tq_kernels *k, const bench_case *c, float *out) {
    tq_int_vectors q = int_vectors_in(c->scratch + QUERIES_AT, MANY);
    if (out)
        for (int i = 0; i < GROUP; i++) k->to_int(c->x + i * c->n, c->n, &q, i);
    tq_page_codes codes = page_codes_of(c, c->n);
    int32_t *dots = (int32_t *)(void *)(c->scratch + STEPS_AT);
    k->page_dots(&codes, &q, 0, GROUP, dots);
    for (int t = 0; out && t < codes.n_tiles; t++)
        for (int i = 0; i < GROUP * 16; i++) out[t * GROUP * 16 + i] = (float)dots[t * TQ_PAGE_QUERIES * 16 + i];
}

/* Woven codes of a side -> levels, where the table has no products of such codes or there are too many rows for them. */
static tq_page_codes readable(const tq_kernels *k, const tq_page_codes *side, int n_rows, uint8_t *to) {
    tq_page_codes c = *side;
    if (!side->weave || (k->woven_dots && n_rows <= TQ_PAGE_QUERIES)) return c;
    c.weave = NULL, c.codes = to, c.bits = 8, c.tile_bytes = 64 * (size_t)c.n_vectors;
    if (side->values) k->unpack_trellis_values(side->weave, side->codes, side->n_tiles, to);
    for (int t = 0; !side->values && t < side->n_tiles; t++)
        k->unpack_trellis_keys(side->weave, side->codes + (size_t)t * side->tile_bytes, side->n_vectors, to + (size_t)t * c.tile_bytes);
    return c;
}

static void dots_of(const tq_kernels *k, const tq_page_codes *side, const tq_int_vectors *q, int first, int n, int32_t *dots) {
    if (side->weave) k->woven_dots(side, q, first, n, dots);
    else k->page_dots(side, q, first, n, dots);
}

/* Eight rows at a time, step by step. */
static void run_page_steps(const tq_kernels *k, const bench_case *c, const tq_planar_page *page, const tq_key_range *seen,
                           const tq_page_rows *rows) {
    uint8_t *unpacked = (uint8_t *)(c->scratch + UNPACKED_AT);
    tq_page_codes keys = readable(k, &page->keys, rows->n, unpacked), values = readable(k, &page->values, rows->n, unpacked + ROWS * c->n);
    float *scores = c->scratch + STEPS_AT, *factors = scores + TQ_PAGE_QUERIES * ROWS, offsets[TQ_PAGE_QUERIES], unit[TQ_PAGE_QUERIES];
    int32_t *dots = (int32_t *)(void *)(factors + ROWS);
    tq_int_vectors w = int_vectors_in(c->scratch + WEIGHTS_AT, TQ_PAGE_QUERIES);
    k->page_factors(page->value_scales, ROWS, factors);
    for (int row = 0, n; row < rows->n; row += n) {
        n = rows->n - row < TQ_PAGE_QUERIES ? rows->n - row : TQ_PAGE_QUERIES;
        for (int i = 0; i < n; i++) unit[i] = rows->q_int.step[row + i] / 127;
        k->page_offsets(page->centre, c->n, rows->q + row * c->n, c->n, unit, n, offsets);
        dots_of(k, &keys, &rows->q_int, row, n, dots);
        k->page_scores(dots, page->key_scales, offsets, n, page->keys.n_tiles, scores);
        tq_page_softmax soft = {.max = rows->max + row, .sum = rows->sum + row};
        k->page_weights(scores, unit, seen, n, factors, &w, &soft);
        dots_of(k, &values, &w, 0, n, dots);
        k->page_values(dots, w.step, &soft, n, page->values.n_tiles, rows->acc + row * c->n, c->n);
    }
}

/* All that a page of c->n coordinates costs; out: what was gathered.  Tables that take runs of pages are given a run of the same one. */
static void run_pages(const tq_kernels *k, const bench_case *c, int n_pages, float *out) {
    int n = (int)(c->n_out / (size_t)c->n);
    bool coarse = c->in_bf16 && k->bf16; /* the scalar table has none */
    tq_page_rows rows = {.n = n, .dim = c->n, .bf16 = coarse, .q = c->x, .q_int = int_vectors_in(c->scratch + QUERIES_AT, MANY), .acc = c->scratch,
                         .max = c->scratch + SUMS_AT, .sum = c->scratch + SUMS_AT + 64, .scratch = c->scratch + ROWS_AT};
    tq_key_range seen[MANY];
    for (int i = 0; i < n; i++) {
        if (out) k->to_int(c->x + i * c->n, c->n, &rows.q_int, i);
        if (out) rows.max[i] = -INFINITY, rows.sum[i] = 0;
        seen[i] = (tq_key_range){0, ROWS};
    }
    if (out) memset(rows.acc, 0, c->n_out * sizeof *rows.acc);
    const uint16_t *scales = (const uint16_t *)(const void *)(c->data + 32768);
    tq_planar_page page = {.keys = page_codes_of(c, c->n), .values = page_codes_of(c, c->n), .key_scales = scales,
                           .centre = scales + 2 * ROWS, .value_scales = scales + ROWS, .dim = c->n, .n = ROWS, .block = c->data};
    page.values.codes = page.keys.codes + (size_t)page.keys.n_tiles * page.keys.tile_bytes;
    page.values.n_vectors = ROWS / 4, page.values.n_tiles = c->n / 16, page.values.values = true;
    page.values.tile_bytes = page.keys.tile_bytes * (size_t)page.keys.n_tiles / (size_t)page.values.n_tiles;
    page.block_bytes = 2 * page.keys.tile_bytes * (size_t)page.keys.n_tiles;
    if (!k->attend_pages) {
        for (int i = 0; i < n_pages; i++) run_page_steps(k, c, &page, seen, &rows);
    } else {
        tq_planar_page run[RUN];
        for (int i = 0; i < n_pages; i++) run[i] = page;
        k->begin_pages(&rows);
        k->attend_pages(run, n_pages, &rows);
        k->end_pages(&rows);
    }
    for (size_t i = 0; out && i < c->n_out; i++) out[i] = rows.acc[i] / rows.sum[i / (size_t)c->n];
}

static void run_page(const tq_kernels *k, const bench_case *c, float *out) { run_pages(k, c, out ? 1 : RUN, out); }
static void run_woven_page(const tq_kernels *k, const bench_case *c, float *out) { run_page(k, c, out); } /* its codes are a trellis' */

static void run_coarse_page(const tq_kernels *k, const bench_case *c, float *out) { run_page(k, c, out); } /* the same in bf16 */

static bool is_woven(const bench_case *c) { return c->run == run_woven_page || c->run == run_coarse_page; }
static int calls_in(const bench_case *c) { return c->run == run_page || is_woven(c) ? RUN : 1; }

static const struct {
    const char *name, *shape;
    void (*run)(const tq_kernels *k, const bench_case *c, float *out);
    int n, bits;
    size_t n_out;
    double tolerance, bytes, flops;
} small_cases[] = {
    {"rms_norm", "2048 values", run_rms_norm, 2048, 0, 2048, 1e-6, 2048 * 12, 2048 * 4},
    {"silu_mul", "4864 values", run_silu_mul, 4864, 0, 4864, 1e-6, 4864 * 12, 4864 * 20},
    {"dot_rows_f16", "8 queries, 128 rows of 128", run_dot_rows_f16, QUERIES * HEAD, 0, QUERIES * ROWS, 2e-6, ROWS * HEAD * 2,
     2.0 * QUERIES * ROWS * HEAD},
    {"sum_rows_f16", "8 queries, 128 rows of 128", run_sum_rows_f16, QUERIES * ROWS, 0, QUERIES * HEAD, 2e-6, ROWS * HEAD * 2,
     2.0 * QUERIES * ROWS * HEAD},
    {"page_dots", "2 bits, 7 queries, 128 keys of 64", run_page_dots, 64, 2, GROUP * ROWS, 1e-5, 64 * ROWS * 2 / 8, 2.0 * GROUP * ROWS * 64},
    {"page_dots", "3 bits, 7 queries, 128 keys of 64", run_page_dots, 64, 3, GROUP * ROWS, 1e-5, 64 * ROWS * 3 / 8, 2.0 * GROUP * ROWS * 64},
    {"page_dots", "4 bits, 7 queries, 128 keys of 64", run_page_dots, 64, 4, GROUP * ROWS, 1e-5, 64 * ROWS * 4 / 8, 2.0 * GROUP * ROWS * 64},
    {"page_dots", "2 bits, 7 queries, 128 keys of 128", run_page_dots, 128, 2, GROUP * ROWS, 1e-5, 128 * ROWS * 2 / 8, 2.0 * GROUP * ROWS * 128},
    {"page_dots", "3 bits, 7 queries, 128 keys of 128", run_page_dots, 128, 3, GROUP * ROWS, 1e-5, 128 * ROWS * 3 / 8, 2.0 * GROUP * ROWS * 128},
    {"page_dots", "4 bits, 7 queries, 128 keys of 128", run_page_dots, 128, 4, GROUP * ROWS, 1e-5, 128 * ROWS * 4 / 8, 2.0 * GROUP * ROWS * 128},
    {"page", "2 bits, 7 queries, 128 keys and values of 64", run_page, 64, 2, GROUP * 64, 2e-4, 64 * ROWS * 2 / 4, 4.0 * GROUP * ROWS * 64},
    {"page", "3 bits, 7 queries, 128 keys and values of 64", run_page, 64, 3, GROUP * 64, 2e-4, 64 * ROWS * 3 / 4, 4.0 * GROUP * ROWS * 64},
    {"page", "4 bits, 7 queries, 128 keys and values of 64", run_page, 64, 4, GROUP * 64, 2e-4, 64 * ROWS * 4 / 4, 4.0 * GROUP * ROWS * 64},
    {"page", "trellis of 3 bits, 7 queries, 128 keys and values of 64", run_woven_page, 64, 3, GROUP * 64, 2e-4, 64 * ROWS * 3 / 4, 4.0 * GROUP * ROWS * 64},
    {"page", "3 bits, 56 queries, 128 keys and values of 64", run_page, 64, 3, MANY * 64, 2e-4, 64 * ROWS * 3 / 4, 4.0 * MANY * ROWS * 64},
    {"page", "trellis of 3 bits, 56 queries, 128 keys and values of 64", run_woven_page, 64, 3, MANY * 64, 2e-4, 64 * ROWS * 3 / 4, 4.0 * MANY * ROWS * 64},
    {"page_bf16", "trellis of 3 bits, 56 queries, 128 keys and values of 64", run_coarse_page, 64, 3, MANY * 64, 6e-3, 64 * ROWS * 3 / 4, 4.0 * MANY * ROWS * 64},
    {"page", "2 bits, 7 queries, 128 keys and values of 128", run_page, 128, 2, GROUP * 128, 2e-4, 128 * ROWS * 2 / 4, 4.0 * GROUP * ROWS * 128},
    {"page", "3 bits, 7 queries, 128 keys and values of 128", run_page, 128, 3, GROUP * 128, 2e-4, 128 * ROWS * 3 / 4, 4.0 * GROUP * ROWS * 128},
    {"page", "trellis of 3 bits, 7 queries, 128 keys and values of 128", run_woven_page, 128, 3, GROUP * 128, 2e-4, 128 * ROWS * 3 / 4, 4.0 * GROUP * ROWS * 128},
    {"page", "4 bits, 7 queries, 128 keys and values of 128", run_page, 128, 4, GROUP * 128, 2e-4, 128 * ROWS * 4 / 4, 4.0 * GROUP * ROWS * 128},
};

static bool make_small(bench_case *c, size_t which, tq_rng *rng) {
    enum { FLOATS = SCRATCH_FLOATS, DATA = 65536 };
    *c = (bench_case){.name = small_cases[which].name, .run = small_cases[which].run, .n = small_cases[which].n,
                      .bits = small_cases[which].bits, .n_out = small_cases[which].n_out,
                      .tolerance = small_cases[which].tolerance, .bytes = small_cases[which].bytes,
                      .flops = small_cases[which].flops};
    snprintf(c->shape, sizeof c->shape, "%s", small_cases[which].shape);
    c->in_bf16 = c->run == run_coarse_page;
    if (is_woven(c)) tq_trellis_weave_make(tq_trellis_of(c->bits), &c->weave);
    c->data = aligned_alloc(64, DATA + 256);
    c->x = aligned_alloc(64, FLOATS * sizeof *c->x);
    c->y = aligned_alloc(64, FLOATS * sizeof *c->y);
    c->scratch = aligned_alloc(64, FLOATS * sizeof *c->scratch);
    if (!c->data || !c->x || !c->y || !c->scratch) return false;
    for (int i = 0; i < FLOATS; i++) {
        c->x[i] = (float)(4 * tq_rng_uniform(rng) - 2);
        c->y[i] = (float)tq_rng_uniform(rng);
    }
    for (int i = 0; i < DATA / 2; i++) {
        uint16_t half = tq_f32_f16((float)(tq_rng_uniform(rng) - 0.5));
        memcpy(c->data + 2 * i, &half, 2);
    }
    for (int i = 0; i < 256; i++) c->data[DATA + i] = (uint8_t)((i & ((1 << (c->bits ? c->bits : 1)) - 1)) * 15 + 8); /* levels */
    return true;
}

static void free_case(bench_case *c) {
    free(c->data);
    free(c->x);
    free(c->y);
    free(c->scratch);
    free(c->input.prepared);
    free(c->input.step);
    free(c->input.sum);
}

/* ---- measuring -------------------------------------------------------------------------------------------------------- */

typedef struct bench_tables {
    const tq_kernels *at[TABLES_CAP];
    int n;
} bench_tables;

static tq_status choose_tables(const char *want, bench_tables *tables, tq_error *err) {
    tables->n = 0;
    if (want) {
        tables->n = 1;
        return tq_kernels_select(want, &tables->at[0], err);
    }
    for (const tq_kernels *const *k = tq_kernels_all; *k && tables->n < TABLES_CAP; k++)
        if ((*k)->runs_here()) tables->at[tables->n++] = *k;
    return TQ_OK;
}

static bool has_case(const tq_kernels *k, const bench_case *c) {
    return !c->in_bf16 || (k->bf16 && k->bf16->runs_here() && (c->run == run_matmul || k->bf16->attends));
}

static double largest_difference(const float *a, const float *b, size_t n) {
    double worst = 0, top = 1e-30;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst)) worst = d;
        if (fabs((double)b[i]) > top) top = fabs((double)b[i]);
    }
    return worst / top;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void repeat(const tq_kernels *k, const bench_case *c, int calls) {
    for (int i = 0; i < calls; i++) c->run(k, c, NULL);
}

/* Calls that take about `seconds` together. */
static int calls_for(const tq_kernels *k, const bench_case *c, double wanted) {
    for (int calls = 1;; calls *= 2) {
        double start = seconds();
        repeat(k, c, calls);
        double took = seconds() - start;
        if (took * 2 > wanted || calls > 1 << 24) return took > wanted ? (int)(calls * wanted / took) + 1 : calls;
    }
}

static tq_status measure(const bench_case *c, const bench_tables *chosen, const tq_bench_kernels_params *p, tq_kernel_row_fn fn,
                         void *ctx, tq_error *err) {
    bench_tables with_case = {0}, *tables = &with_case;
    for (int t = 0; t < chosen->n; t++)
        if (has_case(chosen->at[t], c)) with_case.at[with_case.n++] = chosen->at[t];
    if (with_case.n == 0) return TQ_OK;
    const tq_kernels *scalar;
    TQ_TRY(tq_kernels_select("scalar", &scalar, err));
    float *want = malloc(2 * c->n_out * sizeof *want), *got = want ? want + c->n_out : NULL;
    double *times = malloc((size_t)tables->n * REPEATS_CAP * sizeof *times);
    tq_status status = want && times ? TQ_OK : tq_fail_memory(err, 2 * c->n_out * sizeof *want, "measuring a kernel");
    double errors[TABLES_CAP];
    int calls[TABLES_CAP];
    if (status == TQ_OK) c->run(scalar, c, want);
    for (int t = 0; status == TQ_OK && t < tables->n; t++) {
        c->run(tables->at[t], c, got);
        errors[t] = largest_difference(got, want, c->n_out);
        calls[t] = calls_for(tables->at[t], c, p->seconds);
    }
    for (int r = 0; status == TQ_OK && r < p->repeats; r++)
        for (int t = 0; t < tables->n; t++) {
            double start = seconds();
            repeat(tables->at[t], c, calls[t]);
            times[t * REPEATS_CAP + r] = (seconds() - start) / calls[t] / calls_in(c);
        }
    for (int t = 0; status == TQ_OK && t < tables->n; t++) {
        double *x = times + t * REPEATS_CAP, median;
        qsort(x, (size_t)p->repeats, sizeof *x, compare);
        median = x[p->repeats / 2];
        tq_kernel_row row = {.kernels = tables->at[t]->name, .name = c->name, .shape = c->shape, .error = errors[t],
                             .tolerance = c->tolerance, .nanoseconds = 1e9 * median, .bytes = c->bytes, .flops = c->flops,
                             .spread = (x[p->repeats * 3 / 4] - x[p->repeats / 4]) / median,
                             .bytes_per_second = c->bytes / median, .flops_per_second = c->flops / median};
        if (!fn(ctx, &row)) status = tq_fail(err, TQ_CANCELLED, "cancelled");
    }
    free(want);
    free(times);
    return status;
}

static const matmul_case matmul_cases[] = {
    {TQ_MATRIX_AFFINE, 4, 64, 896, 1, 0},  {TQ_MATRIX_AFFINE, 4, 64, 2048, 1, 0}, {TQ_MATRIX_AFFINE, 4, 64, 4864, 1, 0},
    {TQ_MATRIX_AFFINE, 4, 64, 11008, 1, 0},
    {TQ_MATRIX_AFFINE, 4, 32, 2048, 1, 0}, {TQ_MATRIX_AFFINE, 8, 64, 2048, 1, 0}, {TQ_MATRIX_BF16, 0, 0, 2048, 1, 0},
    {TQ_MATRIX_F16, 0, 0, 2048, 1, 0},     {TQ_MATRIX_AFFINE, 4, 64, 2048, 4, 0}, {TQ_MATRIX_AFFINE, 4, 64, 2048, 8, 0},
    {TQ_MATRIX_BLOCKS, 0, 0, 2048, 1, TQ_Q4_0}, {TQ_MATRIX_BLOCKS, 0, 0, 2048, 1, TQ_Q8_0}, {TQ_MATRIX_BLOCKS, 0, 0, 2048, 1, TQ_Q4_K},
    {TQ_MATRIX_BLOCKS, 0, 0, 2048, 1, TQ_Q5_K}, {TQ_MATRIX_BLOCKS, 0, 0, 2048, 1, TQ_Q6_K},
    {TQ_MATRIX_BLOCKS, 0, 0, 2048, 8, TQ_Q4_0}, {TQ_MATRIX_BLOCKS, 0, 0, 2048, 8, TQ_Q8_0}, {TQ_MATRIX_BLOCKS, 0, 0, 2048, 8, TQ_Q4_K},
    {TQ_MATRIX_BLOCKS, 0, 0, 2048, 8, TQ_Q6_K},
    {TQ_MATRIX_AFFINE, 4, 64, 896, 256, 0}, {TQ_MATRIX_AFFINE, 4, 64, 2048, 256, 0}, {TQ_MATRIX_AFFINE, 8, 64, 2048, 256, 0},
    {TQ_MATRIX_BF16, 0, 0, 2048, 256, 0},
};
static const matmul_case bf16_cases[] = {
    {TQ_MATRIX_AFFINE, 4, 64, 896, 256, 0}, {TQ_MATRIX_AFFINE, 4, 64, 2048, 256, 0}, {TQ_MATRIX_AFFINE, 8, 64, 2048, 256, 0},
    {TQ_MATRIX_BF16, 0, 0, 2048, 256, 0}, {TQ_MATRIX_BLOCKS, 0, 0, 2048, 256, TQ_Q4_K},
};

static bool wanted(const tq_bench_kernels_params *p, const char *name) { return !p->filter || strstr(name, p->filter); }

tq_status tq_bench_kernels(const tq_bench_kernels_params *params, tq_kernel_row_fn fn, void *ctx, tq_error *err) {
    tq_bench_kernels_params p = *params;
    if (p.repeats < 1 || p.repeats > REPEATS_CAP)
        return tq_fail(err, TQ_INVALID, "repeats: want 1 to %d, got %d", REPEATS_CAP, p.repeats);
    bench_tables tables;
    TQ_TRY(choose_tables(p.kernels, &tables, err));
    enum { N_MATMUL = sizeof matmul_cases / sizeof *matmul_cases, N_BF16 = sizeof bf16_cases / sizeof *bf16_cases,
           N_SMALL = sizeof small_cases / sizeof *small_cases };
    tq_status status = TQ_OK;
    for (size_t i = 0; i < N_MATMUL + N_BF16 + N_SMALL && status == TQ_OK; i++) {
        bench_case c = {0};
        tq_rng rng = {i + 1};
        bool in_bf16 = i >= N_MATMUL, small = i >= N_MATMUL + N_BF16, made;
        if (small) {
            size_t at = i - N_MATMUL - N_BF16;
            if (!wanted(&p, small_cases[at].name)) continue;
            made = make_small(&c, at, &rng);
        } else {
            const matmul_case *m = in_bf16 ? &bf16_cases[i - N_MATMUL] : &matmul_cases[i];
            if (!wanted(&p, matmul_name(m, in_bf16))) continue;
            made = make_matmul(&c, m, in_bf16, &rng);
        }
        status = made ? measure(&c, &tables, &p, fn, ctx, err) : tq_fail_memory(err, STREAM_BYTES, "measuring a kernel");
        free_case(&c);
    }
    return status;
}
