/* trellis.c: the specification of the trellis codes, in plain integers.  Tables: trellis_tables.c. */
#include "codec/trellis.h"

#include <stdlib.h>
#include <string.h>

enum { STATES = TQ_TRELLIS_STATES, MAX_SAMPLES = 1024 };

/* Costs are 16 * |level|^2 - 16 * sample * level, summed: 16 |sample/2 - level|^2 less what no choice changes.  Their low
 * four bits are free and carry the choice: which predecessor, by its highest k bits. */
static void viterbi(const tq_trellis *t, const int16_t *samples, int n, int32_t *cost, uint8_t (*choices)[STATES]) {
    int high = 6 - t->bits; /* bits of a state that stay in the next */
    for (int i = 0; i < n; i++) {
        int32_t metric[STATES], next[STATES];
        for (int h = 0; h < STATES; h++) {
            int32_t level = (int32_t)t->levels[h] - 128;
            metric[h] = (level - samples[i]) * (16 * level);
        }
        for (int q = 0; q < STATES; q++) cost[q] = (cost[q] & ~15) | q >> high;
        for (int p = 0; p < STATES; p++) {
            int32_t best = INT32_MAX;
            for (int m = 0; m < 1 << t->bits; m++) {
                int q = m << high | p >> t->bits;
                int32_t c = cost[q] + metric[p ^ t->mix[q]];
                if (c < best) best = c;
            }
            next[p] = best;
            if (choices) choices[i][p] = (uint8_t)(best & 15);
        }
        memcpy(cost, next, sizeof next);
    }
}

void tq_trellis_encode(const tq_trellis *t, const int16_t *samples, int n, uint8_t *codes) {
    uint8_t choices[MAX_SAMPLES][STATES];
    int32_t cost[STATES] = {0};
    int warm_up = n < TQ_TRELLIS_WARM_UP ? n : TQ_TRELLIS_WARM_UP;
    viterbi(t, samples + n - warm_up, warm_up, cost, NULL);
    int seam = 0;
    for (int p = 1; p < STATES; p++)
        if (cost[p] < cost[seam]) seam = p;
    for (int p = 0; p < STATES; p++) cost[p] = p == seam ? 0 : TQ_TRELLIS_UNREACHED;
    viterbi(t, samples, n, cost, choices);
    for (int i = n - 1, p = seam; i >= 0; i--) {
        codes[i] = (uint8_t)(p & ((1 << t->bits) - 1));
        p = choices[i][p] << (6 - t->bits) | p >> t->bits;
    }
}

void tq_trellis_decode(const tq_trellis *t, const uint8_t *codes, int n, int8_t *levels) {
    unsigned before = 0;
    for (int i = n >= 4 ? n - 4 : 0; i < n; i++) before = tq_trellis_next(t, before, codes[i]);
    for (int i = 0; i < n; i++) {
        unsigned state = tq_trellis_next(t, before, codes[i]);
        levels[i] = (int8_t)((int)t->levels[state ^ t->mix[before]] - 128);
        before = state;
    }
}
