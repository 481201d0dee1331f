/* trellis_weave.h: how the codes of a trellis stand in a byte: so that a byte, or bits of two, is a state as it is.
 *
 * A state is 6 bits of the last codes (trellis.h), and a look-up by VPERMB takes the low 6 bits of a byte.  So sample t of a
 * chain has its code in bits that depend on t, and the state after it is the code's own bits of one byte and all others of the
 * byte before:
 *
 *     3 bits: code t in bits 0-2 (t even) or 3-5 (t odd).           Byte: two codes; the two bits left over: below.
 *     4 bits: code t in bits 0-3 (t odd); t even: bits 4-5 are its low two, 6-7 its high two, and after a shift by two it is
 *             in bits 2-5.                                          Byte: two codes.
 *     2 bits: code t in bits 2r and 2r + 1, r = t % 3, which t % 4 = 3 takes after a shift down from bits 6 and 7.
 *                                                                   Byte: four codes.
 *
 * The six bits of a fourth pair of 3-bit codes stand in bits 6 and 7 of the three bytes that hold the pairs before it.
 *
 * The order of a state's bits is therefore one of two or three, by t; look-up tables for each say the rest.  With mix linear,
 *     level[t] = levels_t[codebits(t) ^ mix_t[state t-1]]
 * where mix_t has in it what the codes before t are in the new state. */
#ifndef TQ_CODEC_TRELLIS_WEAVE_H
#define TQ_CODEC_TRELLIS_WEAVE_H

#include <stdbool.h>
#include <stddef.h>

#include "codec/trellis.h"

enum { TQ_WEAVE_TURNS = 3 };

typedef struct tq_trellis_weave {
    const tq_trellis *trellis; /* NULL: no trellis */
    uint8_t levels[TQ_WEAVE_TURNS][TQ_TRELLIS_STATES], mix[TQ_WEAVE_TURNS][TQ_TRELLIS_STATES]; /* of t % turns */
    uint8_t begin[TQ_WEAVE_TURNS][TQ_TRELLIS_STATES]; /* a state after t -> the same where it is the one before t = 0 */
} tq_trellis_weave;

void tq_trellis_weave_make(const tq_trellis *trellis, tq_trellis_weave *out);

/* Orders of a state's bits, and codes of a byte. */
static inline int tq_weave_turns(int bits) { return bits == 2 ? 3 : 2; }
static inline int tq_weave_codes(int bits) { return bits == 2 ? 4 : 2; }

/* The bits of code t, t % turns = turn, in a state. */
static inline uint8_t tq_weave_mask(int bits, int turn) {
    if (bits == 2) return (uint8_t)(3 << 2 * turn);
    if (bits == 3) return turn ? 56 : 7;
    return turn ? 15 : 60;
}

/* Where the bits of a code stand: its low ones, n[0] of them from bit shift[0] of byte at[0] on, and if it is split the others.
 * Strands: bytes side by side, 64 to the next; `strand` is which of them, t the sample. */
typedef struct tq_weave_place {
    size_t at[2];
    int shift[2], n[2];
} tq_weave_place;

tq_weave_place tq_weave_place_of(int bits, int strand, int t);

#endif
