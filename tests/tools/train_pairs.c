/* train_pairs BITS SEEDS: finds the tables of src/codec/pair_tables.c: 2^BITS points of the plane, BITS = 5, 6 or 7.
 *
 * Lloyd's method on pairs of coordinates of random vectors of norm sqrt(128), from SEEDS starts; the best is rounded to
 * integers and printed with its distortion on fresh vectors, each with its best scale. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/pair_codebook.h"

enum { DIM = 128, PAIRS = 60000, TEST_VECTORS = 8000, MAX_POINTS = 128, STEPS = 60, LAST_STEPS = 200 };

static uint64_t random_state;

static double uniform(void) { /* xorshift64 */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(random_state >> 11) * 0x1p-53;
}

static double normal(void) { return sqrt(-2 * log(uniform() + 1e-18)) * cos(6.283185307179586 * uniform()); }

static void random_vector(double *x) {
    double norm = 0;
    for (int i = 0; i < DIM; i++) x[i] = normal(), norm += x[i] * x[i];
    for (int i = 0; i < DIM; i++) x[i] *= sqrt(DIM / norm);
}

typedef double point[2];

static int nearest(const point *points, int n, const double *x) {
    int best = 0;
    double least = 1e9;
    for (int c = 0; c < n; c++) {
        double a = x[0] - points[c][0], b = x[1] - points[c][1], distance = a * a + b * b;
        if (distance < least) least = distance, best = c;
    }
    return best;
}

/* Points move to the mean of the samples they are nearest to.  Returns the mean square error a coordinate. */
static double improve(point *points, int n, const point *samples) {
    point sums[MAX_POINTS] = {{0}};
    double counts[MAX_POINTS] = {0}, error = 0;
    for (int s = 0; s < PAIRS; s++) {
        int c = nearest(points, n, samples[s]);
        for (int k = 0; k < 2; k++) {
            sums[c][k] += samples[s][k];
            error += (samples[s][k] - points[c][k]) * (samples[s][k] - points[c][k]);
        }
        counts[c]++;
    }
    for (int c = 0; c < n; c++)
        for (int k = 0; k < 2 && counts[c] > 0; k++) points[c][k] = sums[c][k] / counts[c];
    return error / (2 * PAIRS);
}

static void round_points(const point *points, int bits, tq_pair_codebook *book) {
    double top = 0;
    int n = 1 << bits;
    for (int c = 0; c < n; c++) top = fmax(top, fmax(fabs(points[c][0]), fabs(points[c][1])));
    book->bits = bits, book->sigma = (float)(127 / top);
    for (int c = 0; c < TQ_PAIR_POINTS; c++) {
        book->first[c] = (uint8_t)(128 + lrint(points[c % n][0] * 127 / top));
        book->second[c] = (uint8_t)(128 + lrint(points[c % n][1] * 127 / top));
    }
}

static double measure(const tq_pair_codebook *book) {
    double error = 0;
    for (int v = 0; v < TEST_VECTORS; v++) {
        double x[DIM], xy = 0, yy = 0;
        int16_t samples[DIM];
        uint8_t codes[DIM / 2];
        random_vector(x);
        for (int i = 0; i < DIM; i++) samples[i] = (int16_t)lrint(x[i] * (double)book->sigma * TQ_PAIR_UNIT);
        tq_pairs_encode(book, samples, DIM / 2, codes);
        for (int i = 0; i < DIM; i++) {
            int level = (i % 2 ? book->second : book->first)[codes[i / 2]] - 128;
            xy += x[i] * level, yy += (double)level * level;
        }
        error += (DIM - xy * xy / yy) / DIM;
    }
    return error / TEST_VECTORS;
}

int main(int argc, char **argv) {
    int bits = argc > 1 ? atoi(argv[1]) : 0, seeds = argc > 2 ? atoi(argv[2]) : 0;
    if (bits < 5 || bits > 7 || seeds < 1) {
        fprintf(stderr, "usage: train_pairs BITS SEEDS; BITS is 5, 6 or 7\n");
        return 2;
    }
    static point samples[PAIRS], best[MAX_POINTS];
    int n = 1 << bits, best_seed = 0;
    double least = 1;
    random_state = 88172645463325252u;
    for (int s = 0; s < PAIRS; s += DIM / 2) {
        double x[DIM];
        random_vector(x);
        for (int i = 0; i < DIM / 2 && s + i < PAIRS; i++) memcpy(samples[s + i], x + 2 * i, sizeof(point));
    }
    for (int seed = 1; seed <= seeds; seed++) {
        point points[MAX_POINTS];
        random_state = 88172645463325252u + (uint64_t)seed * 7919000003u;
        for (int i = 0; i < 50; i++) uniform();
        for (int c = 0; c < n; c++)
            for (int k = 0; k < 2; k++) points[c][k] = 1.3 * normal();
        double error = 1;
        for (int i = 0; i < STEPS; i++) error = improve(points, n, (const point *)samples);
        if (error < least) least = error, best_seed = seed, memcpy(best, points, sizeof best);
    }
    for (int i = 0; i < LAST_STEPS; i++) improve(best, n, (const point *)samples);
    tq_pair_codebook book;
    round_points((const point *)best, bits, &book);
    printf("/* seed %d of %d: distortion %.5f */\n{%d, %.4ff,\n {", best_seed, seeds, measure(&book), bits, (double)book.sigma);
    for (int table = 0; table < 2; table++)
        for (int c = 0; c < TQ_PAIR_POINTS; c++)
            printf("%d%s", (table ? book.second : book.first)[c],
                   c < TQ_PAIR_POINTS - 1 ? (c % 16 == 15 ? ",\n  " : ", ") : table ? "}},\n" : "},\n {");
    return 0;
}
