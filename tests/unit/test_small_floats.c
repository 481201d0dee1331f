/* test_small_floats.c: matrices in MXFP4, MXFP8 and NVFP4: every code and scale against the formats' definitions, and
 * products of every kernel table against plain loops; a slice of rows is a matrix like any other. */
#include "testing.h"

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

enum { ROWS = 67, COLS = 96 };

/* Sign, exponent and fraction as the OCP formats define them. */
static double small_float(unsigned code, int exponent_bits, int fraction_bits, int bias) {
    int exponent = (int)(code >> fraction_bits) & ((1 << exponent_bits) - 1);
    double fraction = (code & ((1u << fraction_bits) - 1)) / (double)(1 << fraction_bits);
    double magnitude = exponent ? ldexp(1 + fraction, exponent - bias) : ldexp(fraction, 1 - bias);
    return code >> (exponent_bits + fraction_bits) & 1 ? -magnitude : magnitude;
}

static double want_at(const tq_matrix *m, int row, int col) {
    size_t at = (size_t)row * COLS + (size_t)col;
    const uint8_t *codes = m->data, scale = ((const uint8_t *)m->scales)[at / (size_t)m->group_size];
    double value = m->bits == 8 ? small_float(codes[at], 4, 3, 7) : small_float(codes[at / 2] >> at % 2 * 4 & 15, 2, 1, 1);
    return value * (m->kind == TQ_MATRIX_NVFP4 ? small_float(scale, 4, 3, 7) : ldexp(1, scale - 127));
}

static const tq_matrix kinds[] = {
    {.kind = TQ_MATRIX_MXFP4, .rows = ROWS, .cols = COLS, .bits = 4, .group_size = 32, .scale_dtype = TQ_U8},
    {.kind = TQ_MATRIX_MXFP8, .rows = ROWS, .cols = COLS, .bits = 8, .group_size = 32, .scale_dtype = TQ_U8},
    {.kind = TQ_MATRIX_NVFP4, .rows = ROWS, .cols = COLS, .bits = 4, .group_size = 16, .scale_dtype = TQ_U8},
};

static uint8_t codes[ROWS * COLS], scales[ROWS * COLS / 16];

static void fill(const tq_matrix *m, bool wide) {
    tq_rng rng = {3};
    for (size_t i = 0; i < sizeof codes; i++) {
        codes[i] = (uint8_t)tq_rng_u64(&rng);
        if (m->bits == 8 && (codes[i] & 0x7f) == 0x7f) codes[i] ^= 1; /* no NaN */
    }
    for (size_t i = 0; i < sizeof scales; i++) {
        uint8_t any = (uint8_t)tq_rng_u64(&rng);
        if (m->kind == TQ_MATRIX_NVFP4) scales[i] = wide ? any % 127 : 40 + any % 16;
        else scales[i] = wide ? any % 240 : 120 + any % 10; /* above, products leave float32 */
    }
}

/* Exactly: both factors have few bits. */
static void every_code_and_scale_is_what_it_means(void **state) {
    (void)state;
    for (const tq_kernels *const *k = tq_kernels_all; *k; k++)
        for (int i = 0; (*k)->runs_here() && i < 3; i++) {
            tq_matrix m = kinds[i];
            m.data = codes, m.scales = scales;
            fill(&m, true);
            float row[COLS];
            for (int r = 0; r < ROWS; r++) {
                (*k)->unpack_row(&m, r, row);
                for (int c = 0; c < COLS; c++)
                    if (row[c] != (float)want_at(&m, r, c))
                        fail_msg("%s, kind %d: row %d, column %d is %g, want %g", (*k)->name, i, r, c, (double)row[c],
                                 want_at(&m, r, c));
            }
        }
}

static void products_and_slices_are_right(void **state) {
    (void)state;
    enum { N = 5, FIRST = 9, SLICE = 33 };
    tq_rng rng = {5};
    float x[N * COLS];
    test_normals(&rng, x, N * COLS);
    tq_backend *backend = NULL;
    for (const tq_kernels *const *k = tq_kernels_all; *k; k++)
        for (int i = 0; (*k)->runs_here() && i < 3; i++) {
            tq_matrix m = kinds[i];
            m.data = codes, m.scales = scales;
            fill(&m, false);
            OK(tq_cpu_backend_new(2, (*k)->name, false, COLS, &backend, &e));
            for (int n = 1; n <= N; n += N - 1)
                for (int slice = 0; slice < 2; slice++) {
                    int first = slice ? FIRST : 0, rows = slice ? SLICE : ROWS;
                    tq_matrix part = tq_matrix_rows(&m, first, rows);
                    float y[N * ROWS];
                    backend->ops->matmul(backend, &part, NULL, x, n, y);
                    for (int t = 0; t < n; t++)
                        for (int r = 0; r < rows; r++) {
                            double want = 0, size = 0;
                            for (int c = 0; c < COLS; c++) {
                                want += want_at(&m, first + r, c) * x[t * COLS + c];
                                size += fabs(want_at(&m, first + r, c) * x[t * COLS + c]);
                            }
                            if (!(fabs(y[t * rows + r] - want) <= 1e-5 * size))
                                fail_msg("%s, kind %d, %d tokens, slice %d: row %d is %g, want %g", (*k)->name, i, n, slice, r,
                                         (double)y[t * rows + r], want);
                        }
                }
            tq_backend_free(backend);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_and_scale_is_what_it_means),
        cmocka_unit_test(products_and_slices_are_right),
    };
    return cmocka_run_group_tests_name("small floats", tests, NULL, NULL);
}
