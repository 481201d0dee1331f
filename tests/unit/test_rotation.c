/* test_rotation.c: rotations are orthogonal, and the matrices they are said to be. */
#include "testing.h"

#include "codec/rotation.h"

static void check_orthogonal(const tq_rotation *r, double bound, const char *what) {
    int n = r->dim;
    float *y = test_floats((size_t)n * (size_t)n), *unit = test_floats((size_t)n), *back = test_floats((size_t)n);
    for (int i = 0; i < n; i++) {
        memset(unit, 0, (size_t)n * sizeof *unit);
        unit[i] = 1;
        tq_rotate(r, unit, y + (size_t)i * (size_t)n);
        tq_rotate_back(r, y + (size_t)i * (size_t)n, back);
        for (int j = 0; j < n; j++)
            if (fabs((double)back[j] - unit[j]) > bound) fail_msg("%s %d: not its own inverse", what, n);
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double dot = test_dot(y + (size_t)i * (size_t)n, y + (size_t)j * (size_t)n, (size_t)n);
            if (fabs(dot - (i == j)) > bound) fail_msg("%s %d: columns %d, %d: %g", what, n, i, j, dot);
        }
    free(y), free(unit), free(back);
}

/* Bound: f32 rounding of unit rows; the largest seen is printed by a failure. */
static void every_rotation_is_orthogonal(void **state) {
    (void)state;
    static const int dims[] = {16, 48, 64, 80, 96, 112, 128, 192, 256, 320, 384, 496, 512};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        tq_rotation r;
        OK(tq_rotation_hadamard(dims[i], 42, &r, &e));
        check_orthogonal(&r, 2e-6, "Hadamard");
        tq_rotation_free(&r);
        if (dims[i] > 256 || dims[i] == 48) continue;
        OK(tq_rotation_haar(dims[i], 42, &r, &e));
        check_orthogonal(&r, 2e-6, "Haar");
        tq_rotation_free(&r);
    }
}

/* R = (H (x) C) diag(signs): H by the parity of i & j, C the DCT-II. */
static void hadamard_is_the_kronecker_product_it_claims(void **state) {
    (void)state;
    static const int dims[] = {16, 80, 96, 112, 128, 192};
    for (size_t k = 0; k < sizeof dims / sizeof *dims; k++) {
        int n = dims[k], pow2 = n & -n, odd = n / pow2;
        tq_rotation r;
        OK(tq_rotation_hadamard(n, 9, &r, &e));
        float *unit = test_floats((size_t)n), *y = test_floats((size_t)n);
        int negative = 0;
        for (int j = 0; j < n; j++) {
            memset(unit, 0, (size_t)n * sizeof *unit);
            unit[j] = 1;
            tq_rotate(&r, unit, y);
            double sign = y[0] > 0 ? 1 : -1; /* row 0 of both factors is positive */
            negative += sign < 0;
            for (int i = 0; i < n; i++) {
                double h = (__builtin_popcount((unsigned)(i / odd & j / odd)) % 2 ? -1 : 1) / sqrt(pow2);
                int a = i % odd, b = j % odd;
                double c = sqrt((a ? 2.0 : 1.0) / odd) * cos(3.14159265358979323846 * (b + .5) * a / odd);
                assert_true(fabs(y[i] - sign * h * c) < 1e-6);
            }
        }
        assert_true(negative > n / 5 && negative < n - n / 5); /* the signs are random */
        /* in place */
        tq_rng rng = {4};
        test_normals(&rng, unit, (size_t)n);
        tq_rotate(&r, unit, y);
        tq_rotate(&r, unit, unit);
        assert_memory_equal(unit, y, (size_t)n * sizeof *y);
        free(unit), free(y);
        tq_rotation_free(&r);
    }
}

/* Q R = G with R upper triangular and a positive diagonal: there is only one such Q. */
static void haar_is_the_qr_factor_with_positive_diagonal(void **state) {
    (void)state;
    static const int dims[] = {16, 64, 128};
    for (size_t k = 0; k < sizeof dims / sizeof *dims; k++) {
        int n = dims[k];
        tq_rotation r;
        float *g;
        OK(tq_rotation_haar(n, 49, &r, &e));
        OK(tq_gaussian_matrix(n, 49, &g, &e));
        tq_mt19937 *mt = test_alloc(sizeof *mt);
        tq_mt19937_seed(mt, 49);
        for (int i = 0; i < n * n; i++) assert_true(g[i] == (float)tq_mt19937_normal(mt));
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) { /* R = Q^T G */
                double sum = 0;
                for (int l = 0; l < n; l++) sum += (double)r.matrix[l * n + i] * g[l * n + j];
                if (i > j) assert_true(fabs(sum) < 1e-5);
                if (i == j) assert_true(sum > 0);
            }
        free(mt), free(g);
        tq_rotation_free(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rotation_is_orthogonal),
        cmocka_unit_test(hadamard_is_the_kronecker_product_it_claims),
        cmocka_unit_test(haar_is_the_qr_factor_with_positive_diagonal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
