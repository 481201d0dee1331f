/* trellis.c: the specification of the trellis codes, in plain integers.  Tables: trellis_tables.c. */
#include "codec/trellis.h"

#include <stdlib.h>

enum { STATES = TQ_TRELLIS_STATES, MAX_SAMPLES = 1024, MAX_DISTANCE = 63 };

void tq_trellis_search_tables(const tq_trellis *t, uint8_t levels[STATES], uint8_t costs[64]) {
    for (int h = 0; h < STATES; h++) levels[h] = (uint8_t)(t->coarse ? (t->levels[h] + 129) >> 1 : t->levels[h]);
    for (int d = 0; d <= MAX_DISTANCE; d++) {
        int near = d < t->knee ? d : t->knee;
        costs[d] = (uint8_t)(((near * near * t->near + 128) >> 8) + ((d - near) * t->far >> 4));
    }
}

/* The search's bytes of a trellis. */
typedef struct search {
    const tq_trellis *t;
    uint8_t levels[STATES], costs[64];
} search;

static uint8_t capped_sum(int a, int b) { return (uint8_t)(a + b < 255 ? a + b : 255); }

static uint8_t cost_of_step(const search *s, uint8_t sample, int state, int before) {
    int distance = abs((int)sample - s->levels[state ^ s->t->mix[before]]);
    return s->costs[distance < MAX_DISTANCE ? distance : MAX_DISTANCE];
}

/* costs[i]: of the best way to each state before sample i, less that to the best of them; but nothing less in the first
 * `start` steps, when what is not reached must stay the dearest. */
static void viterbi(const search *s, const int16_t *samples, int n, int start, uint8_t (*costs)[STATES]) {
    int bits = s->t->bits, high = 6 - bits; /* bits of a state that stay in the next */
    for (int i = 0; i < n; i++) {
        uint8_t sample = tq_trellis_byte(s->t, samples[i]), least = 255;
        for (int p = 0; p < STATES; p++) {
            uint8_t best = 255;
            for (int m = 0; m < 1 << bits; m++) {
                int q = m << high | p >> bits;
                uint8_t c = capped_sum(costs[i][q], cost_of_step(s, sample, p, q));
                if (c < best) best = c;
            }
            costs[i + 1][p] = best;
            if (best < least) least = best;
        }
        for (int p = 0; p < STATES && i + 1 >= start; p++) costs[i + 1][p] = (uint8_t)(costs[i + 1][p] - least);
    }
}

/* The state before the sample that is `i` behind the seam, on the best way to state p; the first of equals.  The first steps
 * come from the seam, though costs may have reached 255: i samples on, a state still has 6 - i * bits bits of it. */
static int state_before(const search *s, int16_t sample, int i, int seam, int p, const uint8_t costs[STATES]) {
    int bits = s->t->bits, high = 6 - bits, best = 256, before = seam;
    for (int m = 0; m < 1 << bits && i > 0; m++) {
        int q = m << high | p >> bits;
        if (i < tq_trellis_start(s->t) && q >> bits * i != (seam & 63 >> bits * i)) continue;
        int c = capped_sum(costs[q], cost_of_step(s, tq_trellis_byte(s->t, sample), p, q));
        if (c < best) best = c, before = q;
    }
    return before;
}

void tq_trellis_encode(const tq_trellis *t, const int16_t *samples, int n, uint8_t *codes) {
    uint8_t costs[MAX_SAMPLES + 1][STATES] = {{0}};
    search s = {.t = t};
    tq_trellis_search_tables(t, s.levels, s.costs);
    int ahead = TQ_TRELLIS_AHEAD, warm_up = n < TQ_TRELLIS_WARM_UP + ahead ? n - ahead : TQ_TRELLIS_WARM_UP, seam = 0;
    viterbi(&s, samples + n - warm_up, warm_up, 0, costs);
    viterbi(&s, samples, ahead, 0, costs + warm_up);
    for (int p = 1; p < STATES; p++)
        if (costs[warm_up + ahead][p] < costs[warm_up + ahead][seam]) seam = p;
    for (int i = ahead - 1; i >= 0; i--) seam = state_before(&s, samples[i], STATES, 0, seam, costs[warm_up + i]);
    for (int p = 0; p < STATES; p++) costs[0][p] = p == seam ? 0 : TQ_TRELLIS_UNREACHED;
    viterbi(&s, samples, n, tq_trellis_start(t), costs);
    for (int i = n - 1, p = seam; i >= 0; i--) {
        codes[i] = (uint8_t)(p & ((1 << t->bits) - 1));
        p = state_before(&s, samples[i], i, seam, p, costs[i]);
    }
}

void tq_trellis_sums(const tq_trellis *t, const int16_t *samples, const uint8_t *codes, int n, int32_t *product,
                     int32_t *energy) {
    int8_t levels[MAX_SAMPLES];
    tq_trellis_decode(t, codes, n, levels);
    *product = *energy = 0;
    for (int i = 0; i < n; i++) {
        *product += samples[i] * levels[i];
        *energy += levels[i] * levels[i];
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
