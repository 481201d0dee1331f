/* test_kernels.c: every kernel table that runs here: integer kernels against the scalar table bit for bit, float
 * kernels against plain loops in double (the scalar table too), guard bytes around every output. */
#include "kernel_testing.h"

#include "base/half.h"
#include "base/tensor.h"

static const int sizes[] = {1, 7, 16, 17, 31, 63, 64, 127, 128, 129, 257};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

static void unknown_kernels_are_refused_with_what_there_is(void **state) {
    (void)state;
    const tq_kernels *k = NULL;
    FAILS(tq_kernels_select("sse9", &k, &e), TQ_INVALID, "unknown kernels 'sse9': this build has ");
    FAILS(tq_kernels_select("sse9", &k, &e), TQ_INVALID, "scalar");
    assert_null(k);
    unsetenv("TQ_KERNELS");
    OK(tq_kernels_select(NULL, &k, &e));
    for (const tq_kernels *const *best = tq_kernels_all; *best; best++)
        if ((*best)->runs_here()) {
            assert_ptr_equal(k, *best);
            break;
        }
    setenv("TQ_KERNELS", "scalar", 1);
    OK(tq_kernels_select(NULL, &k, &e));
    assert_string_equal(k->name, "scalar");
    setenv("TQ_KERNELS", "nonsense", 1);
    FAILS(tq_kernels_select(NULL, &k, &e), TQ_INVALID, "nonsense");
    OK(tq_kernels_select("scalar", &k, &e)); /* the caller's word counts more */
    unsetenv("TQ_KERNELS");
}

/* ---- between the matrices ------------------------------------------------------------------------------------------
 */

static void check_elementwise(const tq_kernels *k) {
    tq_rng rng = {1};
    for (int s = 0; s < N_SIZES; s++)
        for (size_t shift = 0; shift < 2; shift++) { /* off a register's alignment */
            int n = sizes[s];
            size_t bytes = (size_t)n * sizeof(float);
            float x[300], y[300];
            test_normals(&rng, x, 300);
            test_normals(&rng, y, 300);
            guarded g = guarded_new(bytes, 4 * shift);
            memcpy(g.data, x, bytes);
            k->add(floats(&g), y + shift, n);
            for (int i = 0; i < n; i++)
                assert_true(floats(&g)[i] == x[i] + y[i + (int)shift]); /* one operation: exact */
            guarded_free(&g, "add");

            g = guarded_new(bytes, 4 * shift);
            memcpy(g.data, x, bytes);
            k->scale(floats(&g), n, 0.3f);
            for (int i = 0; i < n; i++) assert_true(floats(&g)[i] == x[i] * 0.3f);
            guarded_free(&g, "scale");

            g = guarded_new(bytes, 4 * shift);
            memset(g.data, 0xff, bytes);
            k->rms_norm(x + shift, y, n, 1e-6f, floats(&g));
            double squares = 0;
            for (int i = 0; i < n; i++) squares += (double)x[i + (int)shift] * x[i + (int)shift];
            for (int i = 0; i < n; i++) {
                double want = x[i + (int)shift] / sqrt(squares / n + 1e-6) * y[i];
                check_close(floats(&g)[i], want, sum_bound(n, fabs(want)), k->name, "rms_norm", n, i);
            }
            guarded_free(&g, "rms_norm");

            for (int i = 0; i < n; i++) x[i] *= 4;
            g = guarded_new(bytes, 4 * shift);
            memcpy(g.data, x, bytes);
            k->silu_mul(floats(&g), y, n);
            for (int i = 0; i < n; i++) { /* exp: 2e-7 relative, and three roundings */
                double want = x[i] / (1 + exp(-(double)x[i])) * y[i];
                check_close(floats(&g)[i], want, 5e-7 * fabs(want), k->name, "silu_mul", n, i);
            }
            guarded_free(&g, "silu_mul");
        }
}

static void elementwise_kernels_compute_their_formula(void **state) {
    (void)state;
    each_table(check_elementwise);
}

/* The gate of a large activation: exp(-gate) leaves the range of float, and the result must be 0, not the gate. */
static void check_silu_extremes(const tq_kernels *k) {
    static const float gates[] = {-1e30f, -1000, -200, -100, -90, -89.5f, -89, -88.5f, -88,   -87,   -80,    -20,
                                  0,      20,    87,   88,   89,  90,     100, 1000,   1e30f, -0.0f, 1e-30f, -1e-30f};
    enum { N = sizeof gates / sizeof *gates };
    float x[2 * N + 5], up[2 * N + 5];
    for (int first = 0; first < 5; first++) { /* every gate in a register and in a tail */
        for (int i = 0; i < 2 * N + 5; i++) x[i] = gates[(i + first * 7) % N], up[i] = 2;
        k->silu_mul(x, up, 2 * N + 5 - first);
        for (int i = 0; i < 2 * N + 5 - first; i++) {
            double g = gates[(i + first * 7) % N], want = g / (1 + exp(-g)) * 2;
            check_close(x[i], want, 5e-7 * fabs(want) + 1e-30, k->name, "silu_mul at an extreme", first, i);
        }
    }
    float bad[40], ones[40];
    for (int i = 0; i < 40; i++) bad[i] = NAN, ones[i] = 1;
    k->silu_mul(bad, ones, 40);
    for (int i = 0; i < 40; i++) assert_true(isnan(bad[i]));
}

static void silu_of_a_very_negative_gate_is_zero(void **state) {
    (void)state;
    each_table(check_silu_extremes);
}

/* ---- attention over float rows -------------------------------------------------------------------------------------
 */

enum { MAX_Q = 9, MAX_ROWS = 11, MAX_WIDTH = 257 };

static void check_rows(const tq_kernels *k) {
    static const int n_rows_of[] = {1, 3, 11}, q_counts[] = {1, 2, 3, 4, 5, 7, 9};
    tq_rng rng = {4};
    for (int s = 0; s < N_SIZES; s++)
        for (size_t r = 0; r < 3; r++)
            for (size_t c = 0; c < sizeof q_counts / sizeof *q_counts; c++) {
                int width = sizes[s], rows = n_rows_of[r], n_q = q_counts[c];
                int q_stride = width + (int)c % 3, row_stride = width + 2 * (int)r, out_stride = rows + (int)c % 2;
                size_t n_row_values = (size_t)(rows * row_stride) + 1;
                float *q = test_floats((size_t)(n_q * q_stride)), *x = test_floats(n_row_values),
                      *w = test_floats((size_t)(n_q * out_stride));
                uint16_t *half = test_alloc(n_row_values * sizeof *half);
                test_normals(&rng, q, (size_t)(n_q * q_stride));
                test_normals(&rng, x, n_row_values);
                test_normals(&rng, w, (size_t)(n_q * out_stride));
                for (size_t i = 0; i < n_row_values; i++) half[i] = tq_f32_f16(x[i]);
                for (int f16 = 0; f16 < 2; f16++) {
                    /* rows begin one element off */
                    guarded g = guarded_new((size_t)(n_q * out_stride) * sizeof(float), 4);
                    memset(g.data, 0x7f, g.bytes);
                    if (f16)
                        k->dot_rows_f16(q, n_q, q_stride, half + 1, rows, row_stride, width, floats(&g), out_stride);
                    else k->dot_rows_f32(q, n_q, q_stride, x + 1, rows, row_stride, width, floats(&g), out_stride);
                    for (int i = 0; i < n_q; i++)
                        for (int at = 0; at < out_stride; at++) {
                            if (at >= rows) { /* between the queries' outputs */
                                uint32_t bits = tq_f32_bits(floats(&g)[i * out_stride + at]);
                                assert_int_equal(bits, 0x7f7f7f7f);
                                continue;
                            }
                            double want = 0, size = 0;
                            for (int j = 0; j < width; j++) {
                                int from = 1 + at * row_stride + j;
                                double product = (double)q[i * q_stride + j] * (f16 ? tq_f16_f32(half[from]) : x[from]);
                                want += product, size += fabs(product);
                            }
                            check_close(floats(&g)[i * out_stride + at], want, sum_bound(width, size), k->name,
                                        f16 ? "dot_rows_f16" : "dot_rows_f32", width, n_q);
                        }
                    guarded_free(&g, "dot_rows");

                    g = guarded_new((size_t)(n_q * q_stride) * sizeof(float), 4);
                    memcpy(g.data, q, g.bytes); /* what is there already is added to */
                    if (f16)
                        k->sum_rows_f16(w, n_q, out_stride, half + 1, rows, row_stride, width, floats(&g), q_stride);
                    else k->sum_rows_f32(w, n_q, out_stride, x + 1, rows, row_stride, width, floats(&g), q_stride);
                    for (int i = 0; i < n_q; i++)
                        for (int j = 0; j < q_stride; j++) {
                            double want = q[i * q_stride + j], size = fabs(want);
                            for (int at = 0; at < rows && j < width; at++) {
                                int from = 1 + at * row_stride + j;
                                double product =
                                    (double)w[i * out_stride + at] * (f16 ? tq_f16_f32(half[from]) : x[from]);
                                want += product, size += fabs(product);
                            }
                            check_close(floats(&g)[i * q_stride + j], want, j < width ? sum_bound(rows, size) : 0,
                                        k->name, f16 ? "sum_rows_f16" : "sum_rows_f32", width, n_q);
                        }
                    guarded_free(&g, "sum_rows");
                }
                free(q), free(x), free(w), free(half);
            }
}

static void float_rows_are_scored_and_summed(void **state) {
    (void)state;
    each_table(check_rows);
}

/* ---- codes of a row to floats ------------------------------------------------------------------------------------- */

static void check_expand(const tq_kernels *k) {
    static const int counts[] = {1, 4, 7, 8, 12, 16, 20, 36, 63, 64, 65, 80, 96, 127, 128, 200};
    tq_rng rng = {31};
    float levels[256];
    for (int i = 0; i < 256; i++) levels[i] = (float)test_normal(&rng);
    for (int bits = 1; bits <= 8; bits++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            int n = counts[c];
            size_t bytes = (size_t)(n * bits + 7) / 8;
            uint8_t *stream = test_alloc(bytes); /* of its own: a sanitizer sees a byte read behind it */
            for (size_t i = 0; i < bytes; i++) stream[i] = (uint8_t)tq_rng_u64(&rng);
            float scale = (float)test_normal(&rng), offset = c % 2 ? (float)test_normal(&rng) : 0;
            guarded out = guarded_new((size_t)n * sizeof(float), 4 * (c % 3));
            k->expand_codes(stream, bits, levels, n, scale, offset, floats(&out));
            for (int i = 0; i < n; i++) {
                unsigned code = 0;
                for (int b = 0; b < bits; b++) {
                    int at = i * bits + b;
                    code |= (unsigned)(stream[at / 8] >> at % 8 & 1) << b;
                }
                double want = offset + (double)scale * levels[code];
                check_close(floats(&out)[i], want, 2e-7 * (fabs(offset) + fabs(scale * levels[code])), k->name,
                            "expand_codes, bits and place", bits, i);
            }
            guarded_free(&out, "expand_codes");
            free(stream);
        }
}

static void codes_of_any_width_and_count_are_expanded(void **state) {
    (void)state;
    each_table(check_expand);
}

/* ---- integers of queries and weights
 * --------------------------------------------------------------------------------- */

typedef struct int_vectors {
    tq_int_vectors v;
    guarded wide, bytes, step, sum;
} int_vectors;

static void int_new(int_vectors *x, int n, int stride) {
    size_t places = (size_t)n * (size_t)stride;
    x->wide = guarded_new(2 * places, 0);
    x->bytes = guarded_new(2 * places, 0);
    x->step = guarded_new((size_t)n * 4, 0);
    x->sum = guarded_new((size_t)n * 4, 0);
    int8_t *bytes = (int8_t *)x->bytes.data;
    x->v = (tq_int_vectors){(int16_t *)(void *)x->wide.data, bytes, bytes + stride, floats(&x->step),
                            (int32_t *)(void *)x->sum.data,  stride};
}

static void int_free(int_vectors *x) {
    guarded_free(&x->wide, "to_int's wide");
    guarded_free(&x->bytes, "to_int's bytes");
    guarded_free(&x->step, "to_int's step");
    guarded_free(&x->sum, "to_int's sum");
}

static void check_int_vector(const tq_kernels *k, const float *x, int n, const tq_int_vectors *v, int index) {
    double top = 0;
    long sum = 0;
    for (int i = 0; i < n; i++) top = fmax(top, fabs((double)x[i]));
    check_close(v->step[index], top / 32512, 1e-7 * top / 32512 + 0x1p-149, k->name, "to_int's step", n, index);
    for (int i = 0; i < n; i++) {
        int at = index * v->stride + i, wide = v->wide[at];
        assert_true(wide >= -32512 && wide <= 32512);
        assert_int_equal(wide, 256 * v->high[at + index * v->stride] + v->low[at + index * v->stride]);
        assert_true(v->high[at + index * v->stride] >= -127);
        sum += wide;
        /* half a step, and the rounding of x / step in float */
        check_close(wide * (double)v->step[index], x[i], top / 32512 * .502, k->name, "to_int", n, i);
        if (fabs((double)x[i]) == top && top > 0) assert_int_equal(abs(wide), 32512);
    }
    assert_int_equal(sum, v->sum[index]);
}

static void check_to_int(const tq_kernels *k) {
    static const int counts[] = {16, 32, 64, 80, 96, 112, 128, 192, 256, 512};
    tq_rng rng = {5};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int kind = 0; kind < 6; kind++) {
            int n = counts[c];
            float x[513];
            test_normals(&rng, x, 513);
            for (int i = 0; i < 513; i++) {
                if (kind == 1) x[i] = 0;
                if (kind == 2) x[i] *= 1e-30f;
                if (kind == 3) x[i] *= 1e30f;
                if (kind == 4) x[i] = i == n / 2 ? -7 : i == 1 ? 7 : 1e-20f; /* one value towers over the rest */
                if (kind == 5) x[i] = i % 2 ? 1 : -1;
            }
            int_vectors v;
            int_new(&v, 3, (n + 63) / 64 * 64);
            for (int index = 0; index < 3; index++) k->to_int(x + index % 2, n, &v.v, index); /* also off alignment */
            for (int index = 0; index < 3; index++) check_int_vector(k, x + index % 2, n, &v.v, index);
            int_free(&v);
        }
}

static void integers_are_the_nearest_to_the_floats(void **state) {
    (void)state;
    each_table(check_to_int);
}

/* Softmax weights of a page far below the maximum: their largest is a subnormal, and 32512 / it overflows.  Whatever
 * the integers are, they must agree with each other and be worth less than 1e-30 together. */
static void check_to_int_tiny(const tq_kernels *k) {
    static const float tops[] = {1e-33f, 1e-34f, 1e-35f, 1e-37f, 1e-38f, 1e-40f, 1e-44f};
    for (size_t t = 0; t < sizeof tops / sizeof *tops; t++) {
        float x[128] = {0};
        for (int i = 0; i < 128; i += 3) x[i] = tops[t] * (float)(128 - i) / 128;
        int_vectors v;
        int_new(&v, 1, 128);
        k->to_int(x, 128, &v.v, 0);
        double worth = 0;
        for (int i = 0; i < 128; i++) {
            assert_int_equal(v.v.wide[i], 256 * v.v.high[i] + v.v.low[i]);
            worth += fabs(127.0 * v.v.wide[i] * v.v.step[0]);
        }
        if (!(worth <= 1e-28)) fail_msg("%s: weights of %g are worth %g", k->name, (double)tops[t], worth);
        int_free(&v);
    }
}

static void vanishing_weights_stay_vanishing(void **state) {
    (void)state;
    each_table(check_to_int_tiny);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_kernels_are_refused_with_what_there_is),
        cmocka_unit_test(elementwise_kernels_compute_their_formula),
        cmocka_unit_test(silu_of_a_very_negative_gate_is_zero),
        cmocka_unit_test(float_rows_are_scored_and_summed),
        cmocka_unit_test(codes_of_any_width_and_count_are_expanded),
        cmocka_unit_test(integers_are_the_nearest_to_the_floats),
        cmocka_unit_test(vanishing_weights_stay_vanishing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
