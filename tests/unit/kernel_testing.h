/* kernel_testing.h: what the tests of kernels share. */
#ifndef KERNEL_TESTING_H
#define KERNEL_TESTING_H

#include "testing.h"

#include "backend/cpu/kernels.h"

/* Run a test once for every table that this processor has. */
static inline void each_table(void (*test)(const tq_kernels *)) {
    int n = 0;
    for (const tq_kernels *const *k = tq_kernels_all; *k; k++) {
        if (!(*k)->runs_here()) {
            print_message("skipped: %s does not run here\n", (*k)->name);
            continue;
        }
        test(*k);
        n++;
    }
    assert_true(n > 0);
}

/* A float sum of n products in any order, with any number of chains, is within n roundings (2^-24 each) of the sum of
 * magnitudes; products and lane sums add a few.  FMA or not, and whatever the register, this holds. */
static inline double sum_bound(int n, double magnitudes) { return (n + 16) * 0x1p-24 * magnitudes + 1e-37; }

static inline void check_close(double got, double want, double bound, const char *table, const char *what, int a, int b) {
    if (!(fabs(got - want) <= bound))
        fail_msg("%s %s (%d, %d): got %.9g, want %.9g, bound %.3g", table, what, a, b, got, want, bound);
}

static inline float *floats(guarded *g) { return (float *)(void *)g->data; }

static inline size_t tile_bytes(int bits, int vectors) {
    return bits == 3 ? (size_t)(vectors / 4 + (vectors + 7) / 8) * 64 : (size_t)vectors * 64 * (size_t)bits / 8;
}

/* page.h, once more: the code of (vector, place). */
static inline unsigned code_of(int bits, const uint8_t *tile, int vectors, int v, int place) {
    if (bits == 8) return tile[64 * v + place];
    if (bits == 4) return tile[64 * (v / 2) + place] >> (v % 2 ? 4 : 0) & 15;
    if (bits == 2) return tile[64 * (v / 4) + place] >> 2 * (v % 4) & 3;
    int group = v / 8, in_group = v % 8, members = vectors - 8 * group < 8 ? vectors - 8 * group : 8;
    const uint8_t *base = tile + 192 * group;
    unsigned low = base[64 * (in_group / 4) + place] >> 2 * (in_group % 4) & 3;
    unsigned high = base[64 * (members / 4) + place] >> in_group & 1;
    return low + 4 * high;
}

#endif
