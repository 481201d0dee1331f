/* test_matmul.c: products of weights and activations of every kernel table that runs here, against plain loops in double (the
 * scalar table too); a batch of tokens against its tokens alone, bit for bit; guard bytes around every output. */
#include "kernel_testing.h"

#include "backend/backend.h"
#include "backend/cpu/block_rows.h"
#include "base/half.h"
#include "base/tensor.h"

static const int sizes[] = {1, 7, 16, 17, 31, 63, 64, 127, 128, 129, 257};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

typedef struct weights {
    tq_matrix w;
    guarded data, scales, biases; /* data begins at an odd multiple of its element */
    float *plain;                 /* (rows, cols) */
    double *size;                 /* (rows, cols): the magnitude that the roundings of an element are relative to */
} weights;

static double put_constant(guarded *g, size_t at, tq_dtype dtype, float value) {
    if (dtype == TQ_F32) return floats(g)[at] = value;
    uint16_t half = dtype == TQ_F16 ? tq_f32_f16(value) : tq_f32_bf16(value);
    ((uint16_t *)(void *)g->data)[at] = half;
    return dtype == TQ_F16 ? tq_f16_f32(half) : tq_bf16_f32(half);
}

static weights weights_new(tq_matrix_kind kind, int rows, int cols, int bits, int group, tq_dtype constants,
                           tq_rng *rng) {
    weights m = {
        .w = {.kind = kind, .rows = rows, .cols = cols, .bits = bits, .group_size = group, .scale_dtype = constants}};
    size_t n = (size_t)rows * (size_t)cols;
    m.plain = test_floats(n);
    m.size = test_alloc(n * sizeof *m.size);
    if (kind != TQ_MATRIX_AFFINE) {
        tq_dtype dtype = kind == TQ_MATRIX_F32 ? TQ_F32 : kind == TQ_MATRIX_F16 ? TQ_F16 : TQ_BF16;
        m.data = guarded_new(n * tq_dtype_bytes(dtype), tq_dtype_bytes(dtype));
        for (size_t i = 0; i < n; i++) {
            m.plain[i] = (float)put_constant(&m.data, i, dtype, (float)test_normal(rng));
            m.size[i] = fabs((double)m.plain[i]);
        }
    } else {
        m.data = guarded_new(n * (size_t)bits / 8, 4);
        size_t constant = tq_dtype_bytes(constants), groups = n / (size_t)group;
        m.scales = guarded_new(groups * constant, constant);
        m.biases = guarded_new(groups * constant, constant);
        for (size_t i = 0; i < m.data.bytes; i++) m.data.data[i] = (uint8_t)tq_rng_u64(rng);
        for (size_t g = 0; g < groups; g++) {
            double s = put_constant(&m.scales, g, constants, (float)(.02 * test_normal(rng)));
            double b = put_constant(&m.biases, g, constants, (float)test_normal(rng));
            for (size_t i = g * (size_t)group; i < (g + 1) * (size_t)group; i++) {
                unsigned code = 0; /* bit by bit */
                size_t row_bits = (size_t)cols * (size_t)bits, row = i / (size_t)cols, col = i % (size_t)cols;
                for (int bit = 0; bit < bits; bit++) {
                    size_t at = row * row_bits + col * (size_t)bits + (size_t)bit;
                    code |= (unsigned)(m.data.data[at / 8] >> at % 8 & 1) << bit;
                }
                m.plain[i] = (float)(s * code + b);
                m.size[i] = fabs(s * code) + fabs(b);
            }
        }
        m.w.scales = m.scales.data;
        m.w.biases = m.biases.data;
    }
    m.w.data = m.data.data;
    return m;
}

static void weights_free(weights *m) {
    guarded_free(&m->data, "the weights");
    if (m->w.kind == TQ_MATRIX_AFFINE) {
        guarded_free(&m->scales, "the scales");
        guarded_free(&m->biases, "the biases");
    }
    free(m->plain), free(m->size);
}

static void check_unpack(const tq_kernels *k, const weights *m, const char *what) {
    int cols = m->w.cols;
    for (int r = 0; r < m->w.rows; r++) {
        guarded g = guarded_new((size_t)cols * sizeof(float), 4);
        k->unpack_row(&m->w, r, floats(&g));
        for (int j = 0; j < cols; j++) { /* a product and a sum, fused or not */
            size_t at = (size_t)r * (size_t)cols + (size_t)j;
            check_close(floats(&g)[j], m->plain[at], m->w.kind == TQ_MATRIX_AFFINE ? 3 * 0x1p-24 * m->size[at] : 0,
                        k->name, what, r, j);
        }
        guarded_free(&g, "unpack_row");
    }
}

/* y for rows row0.. of x, and the bound that a float sum over cols has. */
static void expect_product(const tq_kernels *k, const weights *m, int row, const float *x, double got,
                           const char *what) {
    double want = 0, size = 0;
    for (int j = 0; j < m->w.cols; j++) {
        size_t at = (size_t)row * (size_t)m->w.cols + (size_t)j;
        want += (double)m->plain[at] * x[j];
        size += m->size[at] * fabs((double)x[j]);
    }
    check_close(got, want, sum_bound(m->w.cols, size), k->name, what, row, m->w.cols);
}

/* Room for n prepared tokens, and the calls that prepare them. */
typedef struct prepared {
    tq_matmul_input in;
    guarded values, step, sum, scratch;
} prepared;

static void prepare(prepared *p, const tq_kernels *k, const weights *m, const float *x, int n) {
    p->values = guarded_new(tq_matmul_input_count(m->w.cols) * 4, 0);
    p->step = guarded_new(tq_matmul_step_count(m->w.cols) * 4, 0);
    p->sum = guarded_new(tq_matmul_step_count(m->w.cols) * 4, 0);
    p->scratch = guarded_new(tq_matmul_scratch(m->w.cols) * 4, 0);
    p->in = (tq_matmul_input){x, n, m->w.cols, floats(&p->values), floats(&p->step), floats(&p->sum)};
    memset(p->values.data, 0xff, p->values.bytes); /* NaN: what is not prepared must not be used */
    memset(p->step.data, 0xff, p->step.bytes);
    memset(p->sum.data, 0xff, p->sum.bytes);
    int tile = tq_matmul_tile(n, k->gemm_tile);
    for (int i = 0; i * tile < n; i++) k->matmul_prepare(&m->w, &p->in, i);
}

static void prepared_free(prepared *p) {
    guarded_free(&p->values, "a prepared input");
    guarded_free(&p->step, "a prepared input's steps");
    guarded_free(&p->sum, "a prepared input's sums");
    guarded_free(&p->scratch, "matmul's scratch");
}

/* Rows in pieces, y with room between the tokens; every token alone must give the same bits. */
static void check_gemv(const tq_kernels *k, const weights *m, const float *x, int n, const char *what) {
    prepared p, one;
    prepare(&p, k, m, x, n);
    for (int row0 = 0; row0 < m->w.rows; row0 += 5) {
        int rows = m->w.rows - row0 < 7 ? m->w.rows - row0 : 7, ldy = rows + 2;
        guarded y = guarded_new((size_t)(n * ldy) * 4, 4);
        memset(y.data, 0x7f, y.bytes);
        k->gemv(&m->w, row0, rows, &p.in, floats(&y), ldy, floats(&p.scratch));
        for (int t = 0; t < n; t++) {
            for (int i = 0; i < rows; i++)
                expect_product(k, m, row0 + i, x + (size_t)t * (size_t)m->w.cols, floats(&y)[t * ldy + i], what);
            for (int i = rows; i < ldy; i++) assert_int_equal(tq_f32_bits(floats(&y)[t * ldy + i]), 0x7f7f7f7f);
        }
        for (int t = 0; t < n; t++) {
            float alone[7];
            prepare(&one, k, m, x + (size_t)t * (size_t)m->w.cols, 1);
            k->gemv(&m->w, row0, rows, &one.in, alone, rows, floats(&one.scratch));
            assert_memory_equal(alone, floats(&y) + t * ldy, (size_t)rows * sizeof *alone);
            prepared_free(&one);
        }
        guarded_free(&y, "gemv");
    }
    prepared_free(&p);
}

static void check_gemm(const tq_kernels *k, const weights *m, const float *x, int n, const char *what) {
    int rows = m->w.rows, ldy = rows + 3;
    prepared p;
    prepare(&p, k, m, x, n);
    guarded y = guarded_new((size_t)(n * ldy) * 4, 4);
    memset(y.data, 0x7f, y.bytes);
    for (int row0 = 0; row0 < rows; row0 += k->gemm_rows) {
        int n_rows = rows - row0 < k->gemm_rows ? rows - row0 : k->gemm_rows;
        k->gemm(&m->w, row0, n_rows, &p.in, floats(&y) + row0, ldy, floats(&p.scratch));
    }
    for (int t = 0; t < n; t++) {
        for (int i = 0; i < rows; i++)
            expect_product(k, m, i, x + (size_t)t * (size_t)m->w.cols, floats(&y)[t * ldy + i], what);
        for (int i = rows; i < ldy; i++) assert_int_equal(tq_f32_bits(floats(&y)[t * ldy + i]), 0x7f7f7f7f);
    }
    guarded_free(&y, "gemm");
    prepared_free(&p);
}

static void check_matrix(const tq_kernels *k, weights *m, int n, tq_rng *rng) {
    char what[80];
    snprintf(what, sizeof what, "kind %d, %d x %d, %d bits, group %d, constants %d, n %d", (int)m->w.kind, m->w.rows,
             m->w.cols, m->w.bits, m->w.group_size, (int)m->w.scale_dtype, n);
    float *x = test_floats((size_t)n * (size_t)m->w.cols + 1);
    test_normals(rng, x, (size_t)n * (size_t)m->w.cols + 1);
    check_unpack(k, m, what);
    if (n <= TQ_GEMV_TOKENS) check_gemv(k, m, x + 1, n, what);
    else check_gemm(k, m, x + 1, n, what);
    free(x);
    weights_free(m);
}

/* One value that is not finite makes its token's results so, and leaves the other tokens alone. */
static void check_matmul_nan(const tq_kernels *k) {
    tq_rng rng = {12};
    for (int n = 2; n < 20; n += 16)
        for (int kind = 0; kind < 2; kind++) {
            weights m = weights_new(kind ? TQ_MATRIX_AFFINE : TQ_MATRIX_BF16, 33, 192, 4, 64, TQ_BF16, &rng);
            float *x = test_floats((size_t)n * 192), *y = test_floats((size_t)n * 33);
            test_normals(&rng, x, (size_t)n * 192);
            x[192 + 70] = n == 2 ? NAN : INFINITY;
            prepared p;
            prepare(&p, k, &m, x, n);
            for (int row0 = 0; row0 < 33; row0 += k->gemm_rows) {
                int rows = 33 - row0 < k->gemm_rows ? 33 - row0 : k->gemm_rows;
                if (n <= TQ_GEMV_TOKENS) k->gemv(&m.w, row0, rows, &p.in, y + row0, 33, floats(&p.scratch));
                else k->gemm(&m.w, row0, rows, &p.in, y + row0, 33, floats(&p.scratch));
            }
            for (int t = 0; t < n; t++)
                for (int i = 0; i < 33; i++)
                    if (isfinite(y[t * 33 + i]) != (t != 1)) fail_msg("%s: n %d, token %d, row %d: %g", k->name, n, t, i, (double)y[t * 33 + i]);
            prepared_free(&p);
            free(x), free(y);
            weights_free(&m);
        }
}

static void an_activation_that_is_not_finite_stays_with_its_token(void **state) {
    (void)state;
    each_table(check_matmul_nan);
}

static void check_plain_matrices(const tq_kernels *k) {
    static const int row_counts[] = {1, 7, 31, 32, 33, 65}, token_counts[] = {1, 19, 3, 25, 8, 16, 17};
    tq_rng rng = {9};
    int round = 0;
    for (int kind = TQ_MATRIX_F32; kind <= TQ_MATRIX_BF16; kind++)
        for (int s = 0; s < N_SIZES + 2; s++, round++) {
            int cols = s < N_SIZES ? sizes[s] : s == N_SIZES ? 600 : 608; /* several panels, of whole tiles or not */
            weights m = weights_new((tq_matrix_kind)kind, row_counts[round % 6], cols, 0, 0, TQ_F32, &rng);
            check_matrix(k, &m, token_counts[round % 7], &rng);
        }
}

static void plain_matrices_are_multiplied(void **state) {
    (void)state;
    each_table(check_plain_matrices);
}

static void check_affine_matrices(const tq_kernels *k) {
    static const int bits_of[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128}, row_counts[] = {1, 5, 16, 31, 33},
                     token_counts[] = {1, 4, 17, 7, 29};
    static const tq_dtype constants[] = {TQ_F16, TQ_BF16, TQ_F32};
    tq_rng rng = {10};
    int round = 0;
    for (int b = 0; b < 6; b++)
        for (int g = 0; g < 3; g++)
            for (int c = 0; c < 3; c++)
                for (int wide = 0; wide < 4; wide++, round++) { /* one, three, more than a panel, more than two of tiles */
                    int cols = wide == 0 ? groups[g] : wide == 1 ? 3 * groups[g] : wide == 2 ? 384 : 1152;
                    weights m = weights_new(TQ_MATRIX_AFFINE, row_counts[round % 5], cols, bits_of[b], groups[g],
                                            constants[c], &rng);
                    check_matrix(k, &m, token_counts[round / 5 % 5], &rng);
                }
}

static void affine_matrices_of_every_width_are_multiplied(void **state) {
    (void)state;
    each_table(check_affine_matrices);
}

/* One token takes two long rows at a time, several take one: each token must get the same bits. */
static void check_long_rows(const tq_kernels *k) {
    static const int groups[] = {32, 64, 128};
    tq_rng rng = {13};
    for (int g = 0; g < 3; g++) {
        weights m = weights_new(TQ_MATRIX_AFFINE, 5, 6144 + 128 + 64 * (g == 1), 4, groups[g], TQ_BF16, &rng);
        check_matrix(k, &m, 2, &rng);
    }
}

static void long_rows_are_multiplied(void **state) {
    (void)state;
    each_table(check_long_rows);
}

/* ---- GGUF's blocks -------------------------------------------------------------------------------------------------------
 * What the specification unpacks them to, in doubles.  Kernels may multiply unsigned codes and take off afterwards what is off by
 * then: errors are relative to both. */

static const struct {
    tq_dtype type;
    int halves[2], n_halves; /* where f16 numbers stand */
    int codes, code_bytes;   /* where codes stand, all bits of them */
    uint8_t zero;            /* bytes of codes of 0, taken as unsigned */
} block_cases[] = {
    {TQ_Q4_0, {0}, 1, 2, 16, 0},    {TQ_Q8_0, {0}, 1, 2, 32, 0x80},  {TQ_Q4_K, {0, 2}, 2, 16, 128, 0},
    {TQ_Q5_K, {0, 2}, 2, 16, 160, 0}, {TQ_Q6_K, {208}, 1, 0, 192, 0}, {TQ_Q5_1, {0, 2}, 2, 4, 20, 0},
};

static weights block_weights(size_t c, int rows, int cols, tq_rng *rng) {
    tq_dtype type = block_cases[c].type;
    weights m = {.w = {.kind = TQ_MATRIX_BLOCKS, .rows = rows, .cols = cols, .block_type = type}};
    size_t n = (size_t)rows * (size_t)cols, block = tq_dtype_bytes(type), blocks = n / (size_t)tq_dtype_block(type);
    float *zeros = test_floats(n);
    m.plain = test_floats(n);
    m.size = test_alloc(n * sizeof *m.size);
    m.data = guarded_new(blocks * block, 1);
    uint8_t *plain = test_alloc(blocks * block);
    for (size_t i = 0; i < blocks * block; i++) m.data.data[i] = (uint8_t)tq_rng_u64(rng);
    for (size_t b = 0; b < blocks; b++)
        for (int h = 0; h < block_cases[c].n_halves; h++) {
            uint16_t half = tq_f32_f16((float)(.02 * test_normal(rng)));
            memcpy(m.data.data + b * block + block_cases[c].halves[h], &half, sizeof half);
        }
    tq_block_unpack(type, m.data.data, (int)n, m.plain);
    memcpy(plain, m.data.data, blocks * block);
    for (size_t b = 0; b < blocks; b++) memset(plain + b * block + block_cases[c].codes, block_cases[c].zero, (size_t)block_cases[c].code_bytes);
    tq_block_unpack(type, plain, (int)n, zeros);
    for (size_t i = 0; i < n; i++) m.size[i] = fabs((double)m.plain[i] - (double)zeros[i]) + fabs((double)zeros[i]);
    free(plain), free(zeros);
    m.w.data = m.data.data;
    return m;
}

static void check_block_matrices(const tq_kernels *k) {
    static const int row_counts[] = {1, 5, 16, 31, 33}, token_counts[] = {1, 4, 1, 7, 3};
    tq_rng rng = {15};
    int round = 0;
    for (size_t c = 0; c < sizeof block_cases / sizeof *block_cases; c++)
        for (int wide = 0; wide < 5; wide++, round++) { /* a block, some of a register of scales, whole and broken panels */
            int block = tq_dtype_block(block_cases[c].type);
            int cols = wide == 0 ? block : wide == 1 ? 5 * block : wide == 2 ? 512 : wide == 3 ? 768 : 1280 + block;
            weights m = block_weights(c, row_counts[round % 5], cols, &rng);
            uint8_t *exact = test_alloc(m.data.bytes + 1); /* nothing behind the last block: a sanitizer sees who reads there */
            m.w.data = memcpy(exact + 1, m.data.data, m.data.bytes);
            check_matrix(k, &m, token_counts[round / 2 % 5], &rng);
            free(exact);
        }
}

static void blocks_of_gguf_are_multiplied(void **state) {
    (void)state;
    each_table(check_block_matrices);
}

/* ---- batches ---------------------------------------------------------------------------------------------------------
 * Requests that decode together must not see each other: whatever the batch, a token has the bits that it has alone. */

enum { BATCH_ROWS = 71, BATCH_COLS = 768 };

typedef struct batch_case {
    tq_matrix_kind kind;
    int bits, group; /* BLOCKS: where a block's halves are: at 0..bits, and at group if it is not 0 */
    tq_dtype type;   /* of constants, or of blocks */
} batch_case;

static const batch_case batch_cases[] = {
    {TQ_MATRIX_F32, 0, 0, TQ_F32},       {TQ_MATRIX_F16, 0, 0, TQ_F16},       {TQ_MATRIX_BF16, 0, 0, TQ_BF16},
    {TQ_MATRIX_AFFINE, 4, 64, TQ_BF16},  {TQ_MATRIX_AFFINE, 4, 32, TQ_F16},   {TQ_MATRIX_AFFINE, 4, 128, TQ_F32},
    {TQ_MATRIX_AFFINE, 8, 64, TQ_BF16},  {TQ_MATRIX_AFFINE, 8, 32, TQ_F32},   {TQ_MATRIX_AFFINE, 8, 128, TQ_F16},
    {TQ_MATRIX_AFFINE, 2, 64, TQ_BF16},  {TQ_MATRIX_AFFINE, 3, 32, TQ_BF16},  {TQ_MATRIX_AFFINE, 5, 64, TQ_F16},
    {TQ_MATRIX_AFFINE, 6, 128, TQ_BF16}, {TQ_MATRIX_MXFP4, 4, 32, TQ_U8},     {TQ_MATRIX_MXFP8, 8, 32, TQ_U8},
    {TQ_MATRIX_NVFP4, 4, 16, TQ_U8},     {TQ_MATRIX_BLOCKS, 1, 0, TQ_Q4_0},   {TQ_MATRIX_BLOCKS, 1, 0, TQ_Q8_0},
    {TQ_MATRIX_BLOCKS, 2, 0, TQ_Q4_K},   {TQ_MATRIX_BLOCKS, 0, 208, TQ_Q6_K}, {TQ_MATRIX_BLOCKS, 2, 0, TQ_Q5_1},
    {TQ_MATRIX_BLOCKS, 2, 0, TQ_Q5_K},
};

static uint8_t *random_bytes(tq_rng *rng, size_t n) {
    uint8_t *bytes = test_alloc(n);
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)tq_rng_u64(rng);
    return bytes;
}

static void put_half(tq_rng *rng, uint8_t *at, bool bf16) {
    float value = (float)(.02 * test_normal(rng));
    uint16_t half = bf16 ? tq_f32_bf16(value) : tq_f32_f16(value);
    memcpy(at, &half, sizeof half);
}

static uint8_t *random_constants(tq_rng *rng, size_t n, tq_dtype type) {
    uint8_t *bytes = random_bytes(rng, n * 4);
    for (size_t i = 0; i < n; i++) {
        float value = (float)(.02 * test_normal(rng));
        if (type == TQ_F32) memcpy(bytes + 4 * i, &value, sizeof value);
        else if (type == TQ_U8) bytes[i] = (uint8_t)(bytes[i] % 16 + 56);
        else put_half(rng, bytes + 2 * i, type == TQ_BF16);
    }
    return bytes;
}

static tq_matrix batch_matrix(const batch_case *c, tq_rng *rng) {
    enum { N = BATCH_ROWS * BATCH_COLS };
    tq_matrix w = {.kind = c->kind, .rows = BATCH_ROWS, .cols = BATCH_COLS, .bits = c->bits, .group_size = c->group, .scale_dtype = c->type};
    if (c->kind <= TQ_MATRIX_BF16) {
        w.data = random_constants(rng, N, c->type);
    } else if (c->kind == TQ_MATRIX_BLOCKS) {
        w.block_type = c->type;
        w.bits = w.group_size = 0;
        size_t block = tq_dtype_bytes(c->type), n = (size_t)N / (size_t)tq_dtype_block(c->type);
        uint8_t *data = random_bytes(rng, n * block);
        for (uint8_t *b = data; b < data + n * block; b += block) {
            for (int i = 0; i < c->bits; i++) put_half(rng, b + 2 * i, false);
            if (c->group) put_half(rng, b + c->group, false);
        }
        w.data = data;
    } else {
        uint8_t *codes = random_bytes(rng, N);
        for (int i = 0; i < N && c->kind == TQ_MATRIX_MXFP8; i++) codes[i] &= 0xf7; /* no NaN */
        w.data = codes;
        w.scales = random_constants(rng, (size_t)(N / c->group), c->type);
        w.biases = c->kind == TQ_MATRIX_AFFINE ? random_constants(rng, (size_t)(N / c->group), c->type) : NULL;
    }
    return w;
}

/* All rows of w for n tokens: y (n, rows). */
static void multiply_batch(const tq_kernels *k, const tq_matrix *w, const float *x, int n, float *y) {
    weights m = {.w = *w};
    prepared p;
    prepare(&p, k, &m, x, n);
    k->gemv(w, 0, 40, &p.in, y, w->rows, floats(&p.scratch)); /* tasks end anywhere */
    k->gemv(w, 40, w->rows - 40, &p.in, y + 40, w->rows, floats(&p.scratch));
    prepared_free(&p);
}

static void check_batches(const tq_kernels *k) {
    tq_rng rng = {14};
    float *x = test_floats((size_t)TQ_GEMV_TOKENS * BATCH_COLS), *y = test_floats((size_t)TQ_GEMV_TOKENS * BATCH_ROWS);
    float *alone = test_floats((size_t)TQ_GEMV_TOKENS * BATCH_ROWS);
    test_normals(&rng, x, (size_t)TQ_GEMV_TOKENS * BATCH_COLS);
    for (size_t c = 0; c < sizeof batch_cases / sizeof *batch_cases; c++) {
        tq_matrix w = batch_matrix(&batch_cases[c], &rng);
        for (int t = 0; t < TQ_GEMV_TOKENS; t++) multiply_batch(k, &w, x + t * BATCH_COLS, 1, alone + t * BATCH_ROWS);
        for (int i = 0; i < TQ_GEMV_TOKENS * BATCH_ROWS; i++) assert_true(isfinite(alone[i]) && alone[i] != 0);
        for (int first = 0; first < 2; first++) /* a token's place in the batch does not count either */
            for (int n = 1; first + n <= TQ_GEMV_TOKENS; n++) {
                multiply_batch(k, &w, x + first * BATCH_COLS, n, y);
                if (memcmp(y, alone + first * BATCH_ROWS, (size_t)(n * BATCH_ROWS) * sizeof *y) != 0)
                    fail_msg("%s: case %zu: %d tokens from %d on are not what each is alone", k->name, c, n, first);
            }
        free((void *)w.data), free((void *)w.scales), free((void *)w.biases);
    }
    free(x), free(y), free(alone);
}

static void a_token_gets_the_same_bits_in_every_batch(void **state) {
    (void)state;
    each_table(check_batches);
}

/* ---- bf16 ------------------------------------------------------------------------------------------------------------
 * The product of what bf16 keeps of values and weights, in doubles.  A kernel's weight may differ in its last float bits and so fall on
 * the other side where it is half way between two of bf16: as far as those are apart is allowed there, and nowhere else. */

static double bf16_of(double x) { return tq_bf16_f32(tq_f32_bf16((float)x)); }

static void check_bf16_matrix(const tq_kernels *k, weights *m, int n, tq_rng *rng) {
    const tq_bf16_kernels *b = k->bf16;
    int rows = m->w.rows, cols = m->w.cols, ldy = rows + 3;
    char what[80];
    snprintf(what, sizeof what, "in bf16, kind %d, %d x %d, %d bits, group %d, n %d", (int)m->w.kind, rows, cols, m->w.bits, m->w.group_size, n);
    assert_true(b->takes(&m->w));
    float *x = test_floats((size_t)n * (size_t)cols + 1);
    test_normals(rng, x, (size_t)n * (size_t)cols + 1);
    prepared p;
    prepare(&p, k, m, x + 1, n);
    memset(p.values.data, 0xff, p.values.bytes);
    for (int i = 0; i * b->tile < n; i++) b->prepare(&p.in, i);
    guarded y = guarded_new((size_t)(n * ldy) * 4, 4);
    memset(y.data, 0x7f, y.bytes);
    int at_a_time = rows > 128 ? b->rows : 96;
    for (int row0 = 0; row0 < rows; row0 += at_a_time)
        b->gemm(&m->w, row0, rows - row0 < at_a_time ? rows - row0 : at_a_time, &p.in, floats(&y) + row0, ldy, floats(&p.scratch));
    for (int t = 0; t < n; t++) {
        const float *value = x + 1 + (size_t)t * (size_t)cols;
        for (int i = 0; i < rows; i++) {
            double want = 0, size = 0, undecided = 0;
            for (int j = 0; j < cols; j++) {
                size_t at = (size_t)i * (size_t)cols + (size_t)j;
                double w = m->plain[at], near = 8 * 0x1p-24 * m->size[at];
                want += bf16_of(w) * bf16_of(value[j]);
                size += m->size[at] * fabs((double)value[j]);
                undecided += (bf16_of(w + near) - bf16_of(w - near)) * fabs((double)value[j]);
            }
            check_close(floats(&y)[t * ldy + i], want, sum_bound(cols, size) + undecided, k->name, what, t, i);
        }
        for (int i = rows; i < ldy; i++) assert_int_equal(tq_f32_bits(floats(&y)[t * ldy + i]), 0x7f7f7f7f);
    }
    guarded_free(&y, "gemm in bf16");
    prepared_free(&p);
    free(x);
    weights_free(m);
}

static void check_bf16(const tq_kernels *k) {
    static const int cols_of[] = {32, 64, 384, 512, 544, 1152}, row_counts[] = {1, 16, 17, 33, 64, 97, 300}, token_counts[] = {17, 64, 33, 24, 48, 7, 129};
    static const int bits_of[] = {2, 3, 4, 5, 6, 8, 4, 4}, groups[] = {32, 64, 128};
    static const tq_dtype constants[] = {TQ_BF16, TQ_F16, TQ_F32};
    if (!k->bf16 || !k->bf16->runs_here()) {
        print_message("skipped: %s has no products in bf16 here\n", k->name);
        return;
    }
    tq_rng rng = {21};
    int round = 0;
    for (int kind = TQ_MATRIX_F16; kind <= TQ_MATRIX_BF16; kind++)
        for (int s = 0; s < 6; s++, round++) {
            weights m = weights_new((tq_matrix_kind)kind, row_counts[round % 7], cols_of[s], 0, 0, TQ_F32, &rng);
            check_bf16_matrix(k, &m, token_counts[round % 5], &rng);
        }
    for (int i = 0; i < 8; i++)
        for (int g = 0; g < 3; g++, round++) {
            int cols = round % 3 == 0 ? groups[g] : round % 3 == 1 ? 384 : 1152;
            weights m = weights_new(TQ_MATRIX_AFFINE, row_counts[round % 7], cols, bits_of[i], groups[g], constants[(i + g) % 3], &rng);
            check_bf16_matrix(k, &m, token_counts[round % 7], &rng);
        }
    for (size_t c = 0; c < sizeof block_cases / sizeof *block_cases; c++, round++) {
        weights m = block_weights(c, row_counts[round % 7], 768, &rng);
        check_bf16_matrix(k, &m, token_counts[round % 7], &rng);
    }
    tq_matrix f32 = {.kind = TQ_MATRIX_F32, .rows = 1, .cols = 64}, odd = {.kind = TQ_MATRIX_F16, .rows = 1, .cols = 80};
    assert_false(k->bf16->takes(&f32));
    assert_false(k->bf16->takes(&odd));
}

static void products_in_bf16_are_those_of_rounded_values(void **state) {
    (void)state;
    each_table(check_bf16);
}

/* What a caller sees of it: refused where there is none; many tokens are rounded, few are not, and matrices that it does not take neither. */
static void check_backend(const tq_kernels *k) {
    enum { ROWS = 40, COLS = 96, MANY = 700, FEW = 16 };
    tq_backend *exact, *coarse;
    if (!k->bf16 || !k->bf16->runs_here()) {
        FAILS(tq_cpu_backend_new(1, k->name, true, COLS, &coarse, &e), TQ_UNSUPPORTED, "AVX-512 BF16 or AMX");
        return;
    }
    OK(tq_cpu_backend_new(2, k->name, false, COLS, &exact, &e));
    OK(tq_cpu_backend_new(2, k->name, true, COLS, &coarse, &e));
    assert_non_null(strstr(coarse->name, "bf16"));
    tq_rng rng = {22};
    weights m[3] = {weights_new(TQ_MATRIX_BF16, ROWS, COLS, 0, 0, TQ_F32, &rng), weights_new(TQ_MATRIX_AFFINE, ROWS, COLS, 4, 32, TQ_BF16, &rng),
                    weights_new(TQ_MATRIX_F32, ROWS, COLS, 0, 0, TQ_F32, &rng)};
    float *x = test_floats(MANY * COLS), *y[2][3];
    test_normals(&rng, x, MANY * COLS);
    for (int i = 0; i < 6; i++) y[i / 3][i % 3] = test_floats(MANY * ROWS);
    for (int together = 2; together <= 3; together++) /* all of a kind that it takes, or not */
        for (int n = FEW; n <= MANY; n += MANY - FEW) {
            for (int b = 0; b < 2; b++) {
                tq_product products[3];
                for (int p = 0; p < 3; p++) products[p] = (tq_product){&m[p].w, NULL, y[b][p]};
                tq_backend *backend = b ? coarse : exact;
                backend->ops->matmul_many(backend, products, together, x, n);
            }
            for (int p = 0; p < together; p++) {
                double worst = 0, top = 0;
                for (int i = 0; i < n * ROWS; i++) {
                    worst = fmax(worst, fabs((double)y[0][p][i] - y[1][p][i]));
                    top = fmax(top, fabs((double)y[0][p][i]));
                }
                bool rounded = p < 2 && n > FEW;
                if (rounded ? worst < 1e-5 * top || worst > 2e-3 * top : worst != 0)
                    fail_msg("%s, product %d of %d, %d tokens: differs by %g of %g", k->name, p, together, n, worst, top);
            }
        }
    for (int i = 0; i < 6; i++) free(y[i / 3][i % 3]);
    for (int p = 0; p < 3; p++) weights_free(&m[p]);
    free(x);
    tq_backend_free(exact);
    tq_backend_free(coarse);
}

static void a_backend_rounds_what_it_was_asked_to(void **state) {
    (void)state;
    each_table(check_backend);
}

/* One operation or three: the same bits, in bf16 as well, where the values between the matrices never leave as floats. */
static void check_gated(const tq_kernels *k) {
    enum { COLS = 96, WIDTH = 416, MOST = 700 };
    static const tq_gating gatings[] = {{TQ_ACTIVATION_SILU, 0, 0}, {TQ_ACTIVATION_GELU, 0, 0}, {TQ_ACTIVATION_CLAMPED_SWIGLU, 1.702f, 7}};
    static const int tokens[] = {1, 16, 17, 49, 513, MOST};
    tq_rng rng = {23};
    weights gate = weights_new(TQ_MATRIX_AFFINE, WIDTH, COLS, 4, 32, TQ_BF16, &rng), up = weights_new(TQ_MATRIX_BF16, WIDTH, COLS, 0, 0, TQ_F32, &rng);
    weights down = weights_new(TQ_MATRIX_AFFINE, COLS, WIDTH, 8, 32, TQ_F16, &rng), exact = weights_new(TQ_MATRIX_F32, COLS, WIDTH, 0, 0, TQ_F32, &rng);
    float *x = test_floats(MOST * COLS), *bias = test_floats(2 * WIDTH + COLS), *g = test_floats(MOST * WIDTH), *u = test_floats(MOST * WIDTH);
    float *want = test_floats(MOST * COLS);
    test_normals(&rng, x, MOST * COLS);
    test_normals(&rng, bias, 2 * WIDTH + COLS);
    for (int coarse = 0; coarse < 2; coarse++) {
        tq_backend *b;
        if (coarse && (!k->bf16 || !k->bf16->runs_here())) continue;
        OK(tq_cpu_backend_new(2, k->name, coarse, WIDTH, &b, &e));
        for (int i = 0; i < 6; i++)
            for (int biased = 0; biased < 2; biased++) {
                int n = tokens[i];
                const tq_gating *gating = &gatings[(i + biased) % 3];
                tq_product in[] = {{&gate.w, biased ? bias : NULL, g}, {&up.w, biased ? bias + WIDTH : NULL, u}};
                tq_product out = {i == 3 ? &exact.w : &down.w, biased ? bias + 2 * WIDTH : NULL, want}; /* exact: bf16 does not take it */
                b->ops->matmul_many(b, in, 2, x, n);
                b->ops->activate(b, gating, g, u, (size_t)n * WIDTH);
                b->ops->matmul(b, out.w, out.bias, g, n, want);
                guarded got = guarded_new((size_t)n * COLS * sizeof(float), 0);
                out.y = (float *)(void *)got.data;
                g[0] = u[0] = 12345; /* no gate comes to that */
                b->ops->gated(b, &(tq_gated_args){.gate = in[0], .up = in[1], .down = out, .gating = *gating, .x = x, .n = n});
                if (memcmp(got.data, want, (size_t)n * COLS * sizeof(float)) != 0)
                    fail_msg("%s, %d tokens, bias %d: a gated block is not its three operations", b->name, n, biased);
                bool near = coarse && n > 16 && i != 3; /* then nothing is written on the way */
                if ((g[0] == 12345 && u[0] == 12345) != near) fail_msg("%s, %d tokens: values between matrices %s memory", b->name, n, near ? "went to" : "did not go to");
                guarded_free(&got, "a gated block");
            }
        tq_backend_free(b);
    }
    free(x), free(bias), free(g), free(u), free(want);
    weights_free(&gate), weights_free(&up), weights_free(&down), weights_free(&exact);
}

static void a_gated_block_is_its_three_operations(void **state) {
    (void)state;
    each_table(check_gated);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_matrices_are_multiplied),
        cmocka_unit_test(affine_matrices_of_every_width_are_multiplied),
        cmocka_unit_test(long_rows_are_multiplied),
        cmocka_unit_test(blocks_of_gguf_are_multiplied),
        cmocka_unit_test(a_token_gets_the_same_bits_in_every_batch),
        cmocka_unit_test(products_in_bf16_are_those_of_rounded_values),
        cmocka_unit_test(a_backend_rounds_what_it_was_asked_to),
        cmocka_unit_test(a_gated_block_is_its_three_operations),
        cmocka_unit_test(an_activation_that_is_not_finite_stays_with_its_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
