/* rng.h: random numbers that are the same on every machine.
 * tq_rng: splitmix64, for signs, seeds and sampling.  tq_mt19937: the generator of numpy.random.RandomState, for the
 * rotations of the published codecs. */
#ifndef TQ_BASE_RNG_H
#define TQ_BASE_RNG_H

#include <stdint.h>

typedef struct tq_rng {
    uint64_t state;
} tq_rng;

static inline uint64_t tq_rng_u64(tq_rng *rng) {
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Uniform in [0, 1), 53 bits. */
static inline double tq_rng_uniform(tq_rng *rng) { return (double)(tq_rng_u64(rng) >> 11) * 0x1p-53; }

typedef struct tq_mt19937 {
    uint32_t state[624];
    int next;
    double saved_normal;
    int has_saved;
} tq_mt19937;

/* Same sequence as numpy.random.RandomState(seed). */
void tq_mt19937_seed(tq_mt19937 *mt, uint32_t seed);

/* RandomState.randn(): the polar method, in numpy's order. */
double tq_mt19937_normal(tq_mt19937 *mt);

#endif
