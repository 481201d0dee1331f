/* testing.h: what the tests share: random numbers that are the same everywhere, outputs with guarded edges, and failing
 * with the library's own words. */
#ifndef TQ_TESTING_H
#define TQ_TESTING_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/status.h"

#if defined(__SANITIZE_ADDRESS__)
#define TESTING_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TESTING_ASAN 1
#endif
#endif
#ifndef TESTING_ASAN
#define TESTING_ASAN 0
#endif

/* ---- status ------------------------------------------------------------------------------------------------------ */

/* OK(tq_thing_new(..., &e)): the call must succeed; otherwise its text is shown. */
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        tq_error e = {0};                                                                                              \
        if ((call) != TQ_OK) fail_msg("%s: %s", #call, e.text);                                                        \
    } while (0)

/* FAILS(tq_thing_new(..., &e), TQ_INVALID, "part of the text"): it must fail with this code and text. */
#define FAILS(call, want, part)                                                                                        \
    do {                                                                                                               \
        tq_error e = {0};                                                                                              \
        tq_status fails_status = (call);                                                                               \
        if (fails_status != (want) || e.code != (want) || !strstr(e.text, (part)) || strchr(e.text, '\n'))             \
            fail_msg("%s: got %d, code %d, \"%s\"; want %d, \"%s\"", #call, fails_status, e.code, e.text, (want),      \
                     (part));                                                                                          \
    } while (0)

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static inline void *test_alloc(size_t bytes) {
    void *memory = calloc(bytes ? bytes : 1, 1);
    assert_non_null(memory);
    return memory;
}

static inline float *test_floats(size_t n) { return test_alloc(n * sizeof(float)); }

enum { TEST_GUARD = 64 };

/* n bytes between two runs of guard bytes, from an address that is a multiple of 64, plus `misalign`. */
typedef struct guarded {
    uint8_t *memory, *data;
    size_t bytes;
} guarded;

static inline guarded guarded_new(size_t bytes, size_t misalign) {
    guarded g = {.bytes = bytes};
    g.memory = aligned_alloc(64, (bytes + misalign + 3 * TEST_GUARD + 63) / 64 * 64);
    assert_non_null(g.memory);
    g.data = g.memory + TEST_GUARD + misalign;
    memset(g.data - TEST_GUARD, 0xa5, bytes + 2 * TEST_GUARD);
    return g;
}

/* Check the edges and release. */
static inline void guarded_free(guarded *g, const char *what) {
    for (int i = 0; i < TEST_GUARD; i++)
        if (g->data[-1 - i] != 0xa5 || g->data[g->bytes + (size_t)i] != 0xa5)
            fail_msg("%s: wrote outside its output (%s)", what, g->data[-1 - i] != 0xa5 ? "before it" : "behind it");
    free(g->memory);
    *g = (guarded){0};
}

/* ---- random numbers ------------------------------------------------------------------------------------------------
 */

/* Box-Muller: shares nothing with the generator of the codecs. */
static inline double test_normal(tq_rng *rng) {
    double u = 1.0 - tq_rng_uniform(rng), v = tq_rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

static inline void test_normals(tq_rng *rng, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = (float)test_normal(rng);
}

static inline double test_dot(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)a[i] * b[i];
    return sum;
}

/* Uniform on the unit sphere, to the precision of float. */
static inline void test_unit_vector(tq_rng *rng, float *x, int dim) {
    test_normals(rng, x, (size_t)dim);
    double norm = sqrt(test_dot(x, x, (size_t)dim));
    for (int i = 0; i < dim; i++) x[i] = (float)(x[i] / norm);
}

static inline int test_below(tq_rng *rng, int n) { return (int)(tq_rng_u64(rng) % (uint64_t)n); }

/* |a - b|^2 / |a|^2 */
static inline double test_relative_error(const float *a, const float *b, size_t n) {
    double difference = 0, whole = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        whole += (double)a[i] * a[i];
    }
    return difference / whole;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static inline bool test_exists(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file) fclose(file);
    return file != NULL;
}

/* The whole file, or NULL where there is none. */
static inline uint8_t *test_read(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *n = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = test_alloc(*n);
    assert_int_equal(fread(data, 1, *n, file), *n);
    fclose(file);
    return data;
}

static inline void test_write(const char *path, const void *data, size_t n) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

#endif
