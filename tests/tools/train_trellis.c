/* train_trellis BITS SEEDS [STEPS]: finds the tables of src/codec/trellis_tables.c.
 *
 * For every seed 1..SEEDS: mix is a random linear map of 6 bits; levels start as quantiles of a normal distribution, so
 * that the codes of one state spread over the whole line, and are then refined by Lloyd's method: encode random unit
 * vectors (times sqrt(128)) with the library's own encoder, move each level to the mean of the samples that chose it,
 * repeat.  The best seed gets more steps, is rounded to integers, and printed with its distortion on fresh vectors. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/trellis.h"

enum { DIM = 128, STATES = TQ_TRELLIS_STATES };

static uint64_t random_state;

static double uniform(void) { /* xorshift64 */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(random_state >> 11) * 0x1p-53;
}

static double normal(void) { return sqrt(-2 * log(uniform() + 1e-18)) * cos(6.283185307179586 * uniform()); }

static double quantile(double p) {
    double low = -8, high = 8;
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        *(0.5 * erfc(-middle / sqrt(2)) < p ? &low : &high) = middle;
    }
    return low;
}

typedef struct trainee {
    tq_trellis trellis;
    double levels[STATES]; /* in standard deviations */
} trainee;

static void start(trainee *t, int bits, int seed) {
    random_state = 88172645463325252u + (uint64_t)seed * 7919000003u;
    for (int i = 0; i < 50; i++) uniform();
    t->trellis.bits = bits;
    int columns[6];
    for (int b = 0; b < 6; b++) columns[b] = (int)(uniform() * STATES);
    for (int p = 0; p < STATES; p++) {
        t->trellis.mix[p] = 0;
        for (int b = 0; b < 6; b++)
            if (p >> b & 1) t->trellis.mix[p] ^= (uint8_t)columns[b];
    }
    for (int h = 0; h < STATES; h++) { /* code major, the other bits in reversed order */
        int code = h & ((1 << bits) - 1), rest = 0;
        for (int b = 0; b < 6 - bits; b++) rest |= (h >> (bits + b) & 1) << (5 - bits - b);
        t->levels[h] = 1.15 * quantile((code * (STATES >> bits) + rest + .5) / STATES);
    }
}

static void round_levels(trainee *t) {
    double top = 0;
    for (int h = 0; h < STATES; h++) top = fmax(top, fabs(t->levels[h]));
    t->trellis.sigma = (float)(127 / top);
    for (int h = 0; h < STATES; h++) t->trellis.levels[h] = (uint8_t)(128 + lrint(t->levels[h] * 127 / top));
}

/* Encode n vectors; with `train`, move the levels.  Returns the distortion with the best scale of each vector. */
static double step(trainee *t, int n, int train) {
    double sums[STATES] = {0}, counts[STATES] = {0}, error = 0, energy = 0;
    round_levels(t);
    for (int v = 0; v < n; v++) {
        double x[DIM], norm = 0, xy = 0, yy = 0, xx = 0;
        int16_t samples[DIM];
        uint8_t codes[DIM];
        int8_t levels[DIM];
        for (int i = 0; i < DIM; i++) x[i] = normal(), norm += x[i] * x[i];
        for (int i = 0; i < DIM; i++) {
            x[i] *= sqrt(DIM / norm);
            samples[i] = (int16_t)lrint(x[i] * t->trellis.sigma * TQ_TRELLIS_UNIT);
        }
        tq_trellis_encode(&t->trellis, samples, DIM, codes);
        tq_trellis_decode(&t->trellis, codes, DIM, levels);
        unsigned before = 0;
        for (int i = DIM - 4; i < DIM; i++) before = tq_trellis_next(&t->trellis, before, codes[i]);
        for (int i = 0; i < DIM; i++) {
            unsigned state = tq_trellis_next(&t->trellis, before, codes[i]);
            sums[state ^ t->trellis.mix[before]] += x[i];
            counts[state ^ t->trellis.mix[before]]++;
            before = state;
            xy += x[i] * levels[i], yy += (double)levels[i] * levels[i], xx += x[i] * x[i];
        }
        error += xx - xy * xy / yy;
        energy += xx;
    }
    if (train)
        for (int h = 0; h < STATES; h++)
            if (counts[h] > 0) t->levels[h] = sums[h] / counts[h];
    return error / energy;
}

int main(int argc, char **argv) {
    int bits = argc > 1 ? atoi(argv[1]) : 0, seeds = argc > 2 ? atoi(argv[2]) : 0, steps = argc > 3 ? atoi(argv[3]) : 12;
    if (bits < 2 || bits > 4 || seeds < 1 || steps < 1) {
        fprintf(stderr, "usage: train_trellis BITS SEEDS [STEPS]; BITS is 2, 3 or 4\n");
        return 2;
    }
    trainee best = {0};
    double best_distortion = 1;
    int best_seed = 0;
    for (int seed = 1; seed <= seeds; seed++) {
        trainee t = {0};
        start(&t, bits, seed);
        for (int i = 0; i < steps; i++) step(&t, i < 10 ? 200 : 600, 1);
        double distortion = step(&t, 1500, 0);
        if (distortion < best_distortion) best = t, best_distortion = distortion, best_seed = seed;
    }
    for (int i = 0; i < 20; i++) step(&best, 4000, 1);
    double distortion = step(&best, 8000, 0);
    printf("/* seed %d of %d: distortion %.5f */\n{%d, %.4ff,\n {", best_seed, seeds, distortion, bits,
           (double)best.trellis.sigma);
    for (int table = 0; table < 2; table++)
        for (int p = 0; p < STATES; p++)
            printf("%d%s", table ? best.trellis.mix[p] : best.trellis.levels[p],
                   p < STATES - 1 ? (p % 16 == 15 ? ",\n  " : ", ") : table ? "}},\n" : "},\n {");
    return 0;
}
