/* pair_codebook.h: codebooks of the plane: a code names two levels at once, so that 32, 64 or 128 points give 2.5, 3 or
 * 3.5 bits a value.  Where Lloyd-Max gives E|x-c|^2 / |x|^2 = .0340 at 3 bits, 64 points give .0299; the widths between
 * have no scalar code (tests/unit/test_pairs.c).
 *
 * Points were found for a pair of coordinates of a random unit vector of dimension 128 and rounded to integers; rows fit
 * their scale to what they are.  Tables: pair_tables.c. */
#ifndef TQ_CODEC_PAIR_CODEBOOK_H
#define TQ_CODEC_PAIR_CODEBOOK_H

#include <stdint.h>

enum {
    TQ_PAIR_POINTS = 128,
    TQ_PAIR_UNIT = 2, /* samples are in half levels */
};

typedef struct tq_pair_codebook {
    int bits;    /* of a pair: 5, 6, 7 */
    float sigma; /* levels a standard deviation */
    /* Of a point, level + 128, level in -127..127; the points are repeated to fill the tables. */
    uint8_t first[TQ_PAIR_POINTS], second[TQ_PAIR_POINTS];
} tq_pair_codebook;

/* bits 5, 6 or 7. */
const tq_pair_codebook *tq_pair_codebook_of(int bits);

/* samples (n, 2): in half levels, within +-8192 -> the nearest points (n), the first of equals. */
void tq_pairs_encode(const tq_pair_codebook *book, const int16_t *samples, int n, uint8_t *codes);

#endif
