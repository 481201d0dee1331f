/* trellis_weave.c: see trellis_weave.h. */
#include "codec/trellis_weave.h"

enum { STRAND_BYTES = 64 };

/* A state, the last code lowest -> its bits in the order they have after sample t, t % turns = turn. */
static unsigned turned(int bits, int turn, unsigned state) {
    int by = bits == 2 ? 2 * turn : bits == 3 ? 3 * turn : turn ? 0 : 2;
    if (bits == 2) state = (state & 3) | (state & 12) << 2 | (state & 48) >> 2; /* the code before stands one lower, around */
    return (state << by | state >> (6 - by)) & (TQ_TRELLIS_STATES - 1);
}

void tq_trellis_weave_make(const tq_trellis *t, tq_trellis_weave *out) {
    int bits = t->bits, turns = tq_weave_turns(bits);
    *out = (tq_trellis_weave){.trellis = t};
    for (int turn = 0; turn < turns; turn++)
        for (unsigned p = 0; p < TQ_TRELLIS_STATES; p++) {
            unsigned before = turned(bits, (turn + turns - 1) % turns, p);
            out->levels[turn][turned(bits, turn, p)] = t->levels[p];
            out->mix[turn][before] = (uint8_t)turned(bits, turn, t->mix[p] ^ tq_trellis_next(t, p, 0));
            out->begin[turn][turned(bits, turn, p)] = (uint8_t)turned(bits, turns - 1, p);
        }
}

tq_weave_place tq_weave_place_of(int bits, int strand, int t) {
    tq_weave_place p = {.at = {(size_t)strand * STRAND_BYTES}, .n = {bits}};
    if (bits == 2) p.shift[0] = t % 4 == 3 ? 6 : t % 3 * 2;
    if (bits == 4) p.shift[0] = t % 2 ? 0 : 4;
    if (bits != 3) return p;
    size_t group = (size_t)(strand / 4) * 3 * STRAND_BYTES;
    if (strand % 4 < 3) {
        p.at[0] = group + (size_t)(strand % 4) * STRAND_BYTES;
        p.shift[0] = t % 2 * 3;
    } else if (t % 2 == 0) { /* bits 0 and 1 of six; bit 2 */
        p = (tq_weave_place){{group, group + STRAND_BYTES}, {6, 6}, {2, 1}};
    } else { /* bit 3; bits 4 and 5 */
        p = (tq_weave_place){{group + STRAND_BYTES, group + 2 * STRAND_BYTES}, {7, 6}, {1, 2}};
    }
    return p;
}
