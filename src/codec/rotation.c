/* rotation.c: Hadamard and Haar rotations. */
#include "codec/rotation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

/* ---- Hadamard ---------------------------------------------------------------------------------------------------- */

tq_status tq_rotation_hadamard(int dim, uint64_t seed, tq_rotation *out, tq_error *err) {
    *out = (tq_rotation){.dim = dim, .pow2 = dim & -dim};
    out->odd = dim / out->pow2;
    size_t n = (size_t)dim, m = (size_t)out->odd;
    out->signs = malloc(n * sizeof(float));
    out->mix = m > 1 ? malloc(m * m * sizeof(float)) : NULL;
    if (!out->signs || (m > 1 && !out->mix)) {
        tq_rotation_free(out);
        return tq_fail_memory(err, (n + m * m) * sizeof(float), "a rotation");
    }
    tq_rng rng = {seed};
    float magnitude = (float)(1.0 / sqrt((double)out->pow2));
    for (int i = 0; i < dim; i++) out->signs[i] = tq_rng_u64(&rng) >> 63 ? -magnitude : magnitude;
    for (size_t i = 0; m > 1 && i < m; i++)
        for (size_t j = 0; j < m; j++)
            out->mix[i * m + j] = (float)(sqrt((i ? 2.0 : 1.0) / (double)m) *
                                          cos(3.14159265358979323846 * ((double)j + 0.5) * (double)i / (double)m));
    return TQ_OK;
}

typedef float four __attribute__((vector_size(16)));

static four load_four(const float *p) {
    four v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void turn(four v[4]) {
    four a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5), b = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
    four c = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5), d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
    v[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5), v[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    v[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5), v[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

/* Two stages: of neighbours, then of those. */
static void two_stages(four v[4]) {
    four a = v[0] + v[1], b = v[0] - v[1], c = v[2] + v[3], d = v[2] - v[3];
    v[0] = a + c, v[1] = b + d, v[2] = a - c, v[3] = b - d;
}

/* The stages of halves 1, 2, 4 and 8 over 16 values: the first two with a value of each run of four in a register. */
static void four_stages(float *y) {
    four v[4];
    for (int i = 0; i < 4; i++) v[i] = load_four(y + 4 * i);
    turn(v);
    two_stages(v);
    turn(v);
    two_stages(v);
    memcpy(y, v, sizeof v);
}

/* The stages of halves `run` and 2 run; run is a multiple of four. */
static void two_wide_stages(float *y, int dim, int run) {
    for (int base = 0; base < dim; base += 4 * run)
        for (int i = base; i < base + run; i += 4) {
            four v[4];
            for (int k = 0; k < 4; k++) v[k] = load_four(y + i + k * run);
            two_stages(v);
            for (int k = 0; k < 4; k++) memcpy(y + i + k * run, &v[k], sizeof v[k]);
        }
}

/* Butterflies over the pow2 axis of y: (pow2, odd); unnormalised, its own inverse up to pow2. */
static void walsh_hadamard(float *restrict y, int pow2, int odd) {
    int half = 1;
    if (odd == 1 && pow2 >= 16) {
        for (int i = 0; i < pow2; i += 16) four_stages(y + i);
        for (half = 16; 4 * half <= pow2; half *= 4) two_wide_stages(y, pow2, half);
    }
    for (; half < pow2; half *= 2) {
        int run = half * odd;
        for (int base = 0; base < pow2 * odd; base += 2 * run)
            for (int i = base; i < base + run; i++) {
                float a = y[i], b = y[i + run];
                y[i] = a + b;
                y[i + run] = a - b;
            }
    }
}

/* Every run of `odd` values times C, or times its transpose. */
static void mix_runs(const tq_rotation *r, float *y, int transposed) {
    int m = r->odd;
    float run[1024];
    for (int base = 0; base < r->dim; base += m) {
        for (int i = 0; i < m; i++) {
            float sum = 0;
            for (int j = 0; j < m; j++) sum += (transposed ? r->mix[j * m + i] : r->mix[i * m + j]) * y[base + j];
            run[i] = sum;
        }
        memcpy(y + base, run, (size_t)m * sizeof(float));
    }
}

/* ---- dense ------------------------------------------------------------------------------------------------------- */

tq_status tq_gaussian_matrix(int dim, uint32_t seed, float **out, tq_error *err) {
    size_t n = (size_t)dim * (size_t)dim;
    *out = malloc(n * sizeof(float));
    if (!*out) return tq_fail_memory(err, n * sizeof(float), "a Gaussian matrix");
    tq_mt19937 mt;
    tq_mt19937_seed(&mt, seed);
    for (size_t i = 0; i < n; i++) (*out)[i] = (float)tq_mt19937_normal(&mt);
    return TQ_OK;
}

tq_status tq_rotation_haar(int dim, uint32_t seed, tq_rotation *out, tq_error *err) {
    *out = (tq_rotation){.dim = dim};
    TQ_TRY(tq_gaussian_matrix(dim, seed, &out->matrix, err));
    size_t n = (size_t)dim;
    double *columns = malloc(n * n * sizeof(double));
    if (!columns) {
        tq_rotation_free(out);
        return tq_fail_memory(err, n * n * sizeof(double), "a QR factorisation");
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) columns[j * n + i] = out->matrix[i * n + j];
    /* Gram-Schmidt with every projection done twice: R_ii > 0 by construction, orthogonal to rounding. */
    for (size_t j = 0; j < n; j++) {
        double *c = columns + j * n;
        for (int pass = 0; pass < 2; pass++)
            for (size_t k = 0; k < j; k++) {
                const double *q = columns + k * n;
                double dot = 0;
                for (size_t i = 0; i < n; i++) dot += q[i] * c[i];
                for (size_t i = 0; i < n; i++) c[i] -= dot * q[i];
            }
        double norm = 0;
        for (size_t i = 0; i < n; i++) norm += c[i] * c[i];
        norm = 1.0 / sqrt(norm);
        for (size_t i = 0; i < n; i++) c[i] *= norm;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) out->matrix[i * n + j] = (float)columns[j * n + i];
    free(columns);
    return TQ_OK;
}

/* Four rows at once, each with its own four chains: one row's additions would wait for one another. */
static void dense_apply_four(const float *rows, int dim, const float *x, float *y) {
    float s[4][4] = {{0}};
    int j = 0;
    for (; j + 4 <= dim; j += 4)
        for (int r = 0; r < 4; r++)
            for (int l = 0; l < 4; l++) s[r][l] += rows[r * dim + j + l] * x[j + l];
    for (int r = 0; r < 4; r++) {
        for (int l = j; l < dim; l++) s[r][0] += rows[r * dim + l] * x[l];
        y[r] = (s[r][0] + s[r][1]) + (s[r][2] + s[r][3]);
    }
}

void tq_dense_apply(const float *matrix, int dim, const float *x, float *y) {
    int i = 0;
    for (; i + 4 <= dim; i += 4) dense_apply_four(matrix + (size_t)i * (size_t)dim, dim, x, y + i);
    for (; i < dim; i++) {
        const float *row = matrix + (size_t)i * (size_t)dim;
        float s[4] = {0};
        int j = 0;
        for (; j + 4 <= dim; j += 4)
            for (int l = 0; l < 4; l++) s[l] += row[j + l] * x[j + l];
        for (; j < dim; j++) s[0] += row[j] * x[j];
        y[i] = (s[0] + s[1]) + (s[2] + s[3]);
    }
}

void tq_dense_apply_transposed(const float *matrix, int dim, const float *y, float *x) {
    memset(x, 0, (size_t)dim * sizeof(float));
    int i = 0;
    for (; i + 4 <= dim; i += 4) { /* in the same order as one row after the other, with a quarter of the stores */
        const float *rows = matrix + (size_t)i * (size_t)dim;
        for (int j = 0; j < dim; j++)
            x[j] = (((x[j] + rows[j] * y[i]) + rows[dim + j] * y[i + 1]) + rows[2 * dim + j] * y[i + 2]) +
                   rows[3 * dim + j] * y[i + 3];
    }
    for (; i < dim; i++) {
        const float *row = matrix + (size_t)i * (size_t)dim;
        for (int j = 0; j < dim; j++) x[j] += row[j] * y[i];
    }
}

/* ---- either ------------------------------------------------------------------------------------------------------ */

void tq_rotate(const tq_rotation *r, const float *x, float *y) {
    if (r->matrix) {
        tq_dense_apply(r->matrix, r->dim, x, y);
        return;
    }
    for (int i = 0; i < r->dim; i++) y[i] = x[i] * r->signs[i];
    walsh_hadamard(y, r->pow2, r->odd);
    if (r->mix) mix_runs(r, y, 0);
}

void tq_rotate_back(const tq_rotation *r, const float *y, float *x) {
    if (r->matrix) {
        tq_dense_apply_transposed(r->matrix, r->dim, y, x);
        return;
    }
    if (x != y) memcpy(x, y, (size_t)r->dim * sizeof(float));
    if (r->mix) mix_runs(r, x, 1);
    walsh_hadamard(x, r->pow2, r->odd);
    for (int i = 0; i < r->dim; i++) x[i] *= r->signs[i];
}

void tq_rotation_free(tq_rotation *rotation) {
    free(rotation->signs);
    free(rotation->mix);
    free(rotation->matrix);
    *rotation = (tq_rotation){0};
}

size_t tq_rotation_bytes(const tq_rotation *r) {
    size_t n = (size_t)r->dim, m = (size_t)r->odd;
    return ((r->matrix ? n * n : 0) + (r->signs ? n : 0) + (r->mix ? m * m : 0)) * sizeof(float);
}
