/* trellis.h: trellis-coded quantization of a rotated vector (TCQ): k bits a sample, but the level of a sample depends on
 * the codes before it too, so that the quantizer chooses among sequences of levels instead of single ones.
 *
 * A state is the last codes, 6 bits of them:      p[t] = (p[t-1] << k | code[t]) mod 64
 * and with the state before it names a level:     level[t] = levels[p[t] ^ mix[p[t-1]]]
 *
 * The state before the first sample is the state after the last (tail-biting): no bit is spent on a start.  A level is
 * found in two look-ups of 64 entries from 6 + k bits of codes (a bit-shift trellis: QTIP, arXiv 2406.11235); mix is
 * linear over GF(2), which finds better codes than a random table.  Where Lloyd-Max gives E|x-c|^2 / |x|^2 = .1160, .0340,
 * .0093 at 2, 3, 4 bits, this gives .0763, .0197, .0053 (dimension 128; tests/unit/test_trellis.c).
 *
 * The encoder is Viterbi's algorithm in bytes, so that a register holds as many rows as it has bytes, and in integers, so
 * that every implementation finds the same codes.  Against exact sums of squares bytes cost .5 to 1 % of distortion; a seam
 * chosen by the samples on both sides of it gains 2. */
#ifndef TQ_CODEC_TRELLIS_H
#define TQ_CODEC_TRELLIS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    TQ_TRELLIS_STATES = 64,
    TQ_TRELLIS_ROWS = 64,    /* rows that a backend encodes side by side */
    /* The seam's state is chosen first: the best of the last samples and the first ones, encoded as one run across it. */
    TQ_TRELLIS_WARM_UP = 12, /* at most: n less the following */
    TQ_TRELLIS_AHEAD = 6,
    TQ_TRELLIS_UNIT = 16,    /* samples are in sixteenths of a level */
    TQ_TRELLIS_UNREACHED = 255,
};

typedef struct tq_trellis {
    int bits;                            /* k: 2, 3, 4 */
    float sigma;                         /* levels a standard deviation */
    /* What a step costs, in bytes, that is a distance of d from its level: d^2 near / 256 up to `knee`, then far / 16 more
     * for each step of d, up to 63.  d is in levels, or in two for coarse trellises.  A normal row's cost is 2 to 2.5 a
     * sample; 255 is nearly never reached on a path that matters. */
    int near, knee, far;
    bool coarse;
    uint8_t levels[TQ_TRELLIS_STATES];   /* level + 128, level in -127..127 */
    uint8_t mix[TQ_TRELLIS_STATES];
} tq_trellis;

/* bits 2, 3 or 4. */
const tq_trellis *tq_trellis_of(int bits);

static inline unsigned tq_trellis_next(const tq_trellis *t, unsigned state, unsigned code) {
    return ((state << t->bits) | code) & (TQ_TRELLIS_STATES - 1);
}

/* What the search works with.  A sample, and the levels that it is compared with, in the unit of distances, + 128; what is
 * out of reach is clamped.  A distance's cost, for 0..63 and as 63 beyond. */
static inline uint8_t tq_trellis_byte(const tq_trellis *t, int16_t sample) {
    int rounded = ((sample >> (t->coarse ? 4 : 3)) + 1) >> 1;
    return (uint8_t)(rounded < -128 ? 0 : rounded > 127 ? 255 : rounded + 128);
}
void tq_trellis_search_tables(const tq_trellis *trellis, uint8_t levels[TQ_TRELLIS_STATES], uint8_t costs[64]);

/* Steps from the seam during which not every state can have been reached. */
static inline int tq_trellis_start(const tq_trellis *t) { return (5 + t->bits) / t->bits; }

/* samples (n): in TQ_TRELLIS_UNIT -> codes (n).  n >= 16.  The specification; backends have faster ones. */
void tq_trellis_encode(const tq_trellis *trellis, const int16_t *samples, int n, uint8_t *codes);

/* sum of samples * levels of a chain, and of levels^2: exact, n <= 512 whatever the samples. */
void tq_trellis_sums(const tq_trellis *trellis, const int16_t *samples, const uint8_t *codes, int n, int32_t *product,
                     int32_t *energy);

/* codes (n) -> levels (n), -127..127. */
void tq_trellis_decode(const tq_trellis *trellis, const uint8_t *codes, int n, int8_t *levels);

#endif
