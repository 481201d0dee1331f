/* trellis.h: trellis-coded quantization of a rotated vector (TCQ): k bits a sample, but the level of a sample depends on
 * the codes before it too, so that the quantizer chooses among sequences of levels instead of single ones.
 *
 * A state is the last codes, 6 bits of them:      p[t] = (p[t-1] << k | code[t]) mod 64
 * and with the state before it names a level:     level[t] = levels[p[t] ^ mix[p[t-1]]]
 *
 * The state before the first sample is the state after the last (tail-biting): no bit is spent on a start.  A level is
 * found in two look-ups of 64 entries from 6 + k bits of codes (a bit-shift trellis: QTIP, arXiv 2406.11235); mix is
 * linear over GF(2), which finds better codes than a random table.  Where Lloyd-Max gives E|x-c|^2 / |x|^2 = .1160, .0340,
 * .0093 at 2, 3, 4 bits, this gives .0764, .0199, .0054 (dimension 128; tests/unit/test_trellis.c).
 *
 * The encoder is Viterbi's algorithm in integers, so every implementation finds the same codes. */
#ifndef TQ_CODEC_TRELLIS_H
#define TQ_CODEC_TRELLIS_H

#include <stdint.h>

enum {
    TQ_TRELLIS_STATES = 64,
    TQ_TRELLIS_WARM_UP = 24,   /* samples at the end (or all) are encoded once before the first, to choose the seam's state */
    TQ_TRELLIS_UNIT = 2,       /* samples are in half levels */
    TQ_TRELLIS_UNREACHED = 1 << 28,
};

typedef struct tq_trellis {
    int bits;                            /* k: 2, 3, 4 */
    float sigma;                         /* levels a standard deviation */
    uint8_t levels[TQ_TRELLIS_STATES];   /* level + 128, level in -127..127 */
    uint8_t mix[TQ_TRELLIS_STATES];
} tq_trellis;

/* bits 2, 3 or 4. */
const tq_trellis *tq_trellis_of(int bits);

static inline unsigned tq_trellis_next(const tq_trellis *t, unsigned state, unsigned code) {
    return ((state << t->bits) | code) & (TQ_TRELLIS_STATES - 1);
}

/* samples (n): in half levels -> codes (n).  n >= 16.  The specification; backends have faster ones. */
void tq_trellis_encode(const tq_trellis *trellis, const int16_t *samples, int n, uint8_t *codes);

/* codes (n) -> levels (n), -127..127. */
void tq_trellis_decode(const tq_trellis *trellis, const uint8_t *codes, int n, int8_t *levels);

#endif
