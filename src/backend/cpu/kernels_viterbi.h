/* kernels_viterbi.h: Viterbi's algorithm for many rows of a trellis (codec/trellis.h), in bytes: a row a lane.
 *
 * Included by kernels_body.h after kernels_trellis.h.  The kernels_<set>.c before it define, besides what that one wants,
 *     add_capped(a, b), min_u8(a, b), distance_u8(a, b)   sum of bytes, at most 255; the smaller; |a - b|
 *
 * costs[i * 64 + q] is the cost of state q before sample i, less least[i], which is taken off when it is read.  Choices are
 * not kept: the way back finds each again, for the one state of a row that matters. */

typedef struct chain_search {
    const tq_trellis *t;
    uint8_t level[TQ_TRELLIS_STATES], cost[64]; /* tq_trellis_search_tables; tables may point to them */
    byte_table levels, costs;
    mix_table mix;
    /* Where the costs of the steps from a state stand: that to code c is this ^ c * VB, as c are the new state's low bits. */
    uint16_t step_at[TQ_TRELLIS_STATES];
} chain_search;

static void begin_search(const tq_trellis *t, chain_search *s) {
    tq_trellis_search_tables(t, s->level, s->cost);
    s->t = t, s->levels = load_table(s->level), s->costs = load_table(s->cost), s->mix = load_mix(t->mix);
    for (unsigned q = 0; q < TQ_TRELLIS_STATES; q++) s->step_at[q] = (uint16_t)((tq_trellis_next(t, q, 0) ^ t->mix[q]) * VB);
}

INLINE vb cost_of_step(const chain_search *s, vb sample, vb level) {
    return look_up(s->costs, min_u8(distance_u8(sample, level), (vb){0} + 63));
}

/* Nothing is taken off in the first `start` steps. */
INLINE void search_steps(const chain_search *s, const uint8_t *samples, int n, int start, vb *costs, vb *least,
                         const int bits) {
    enum { AT_ONCE = VB == 32 ? 4 : 8 }; /* states whose costs grow in registers, of which AVX2 has sixteen */
    const int n_codes = 1 << bits, high = 6 - bits, at_once = n_codes < AT_ONCE ? n_codes : AT_ONCE;
    vb step[TQ_TRELLIS_STATES];
    const uint8_t *steps = (const uint8_t *)step;
    for (int i = 0; i < n; i++, costs += TQ_TRELLIS_STATES) {
        vb sample = load_b(samples + (size_t)i * TQ_TRELLIS_ROWS), smallest = (vb){0} + 255;
        for (int h = 0; h < TQ_TRELLIS_STATES; h++) step[h] = cost_of_step(s, sample, (vb){0} + s->level[h]);
        for (int first = 0; first < TQ_TRELLIS_STATES; first += at_once) { /* codes of a group */
            vb best[AT_ONCE];
            for (int m = 0; m < n_codes; m++) {
                int before = m << high | first >> bits, code = first & (n_codes - 1);
                unsigned at = s->step_at[before] ^ (unsigned)(code * VB);
                vb from = costs[before] - least[i];
                for (int c = 0; c < at_once; c++) {
                    vb cost = add_capped(from, *(const vb *)(const void *)(steps + (at ^ (unsigned)(c * VB))));
                    best[c] = m ? min_u8(best[c], cost) : cost;
                }
            }
            for (int c = 0; c < at_once; c++) {
                costs[TQ_TRELLIS_STATES + first + c] = best[c];
                smallest = min_u8(smallest, best[c]);
            }
        }
        least[i + 1] = i + 1 < start ? (vb){0} : smallest;
    }
}

/* The states before sample i on the best ways to the states p; the first of equals.  Near the seam only what comes from it. */
INLINE vb states_before(const chain_search *s, vb sample, int i, vb seam, vb p, const vb *costs, vb least, const int bits) {
    const int n_codes = 1 << bits, high = 6 - bits, n_groups = TQ_TRELLIS_STATES >> bits;
    const uint8_t from_seam = (uint8_t)(bits * i < 6 ? 63 >> bits * i : 0);
    vb group = shift_right(p, bits) & (uint8_t)(n_groups - 1), at_group[16], best = (vb){0} + 255, before = group;
    if (from_seam) before |= shift_left(seam, bits * i) & (uint8_t)((n_codes - 1) << high); /* the first that may be */
    for (int g = 0; g < n_groups; g++) at_group[g] = (vb)(group == (uint8_t)g);
    vb mixed = p ^ look_up_mix(s->mix, group);
    for (int m = 0; m < n_codes; m++) {
        vb cost = {0}, q = group | (uint8_t)(m << high);
        for (int g = 0; g < n_groups; g++) cost |= costs[m << high | g] & at_group[g];
        vb level = look_up(s->levels, mixed ^ s->t->mix[m << high]); /* mix is linear */
        cost = add_capped(cost - least, cost_of_step(s, sample, level));
        if (from_seam) cost |= ~(vb)((shift_right(q, bits * i) & from_seam) == (seam & from_seam)); /* 255 */
        vb better = (vb)(cost < best);
        best = min_u8(best, cost);
        before = (q & better) | (before & ~better);
    }
    return before;
}

/* The rows of a register: samples and codes TQ_TRELLIS_ROWS apart.  Codes and the levels of them, + 128. */
INLINE void encode_rows(const chain_search *s, const uint8_t *samples, int n, vb *costs, vb *least, uint8_t *codes,
                        uint8_t *levels, const int bits) {
    const int ahead = TQ_TRELLIS_AHEAD, warm_up = n < TQ_TRELLIS_WARM_UP + ahead ? n - ahead : TQ_TRELLIS_WARM_UP;
    vb seam = {0}, smallest = (vb){0} + 255;
    for (int p = 0; p < TQ_TRELLIS_STATES; p++) costs[p] = (vb){0};
    least[0] = (vb){0};
    search_steps(s, samples + (size_t)(n - warm_up) * TQ_TRELLIS_ROWS, warm_up, 0, costs, least, bits);
    search_steps(s, samples, ahead, 0, costs + (size_t)warm_up * TQ_TRELLIS_STATES, least + warm_up, bits);
    for (int p = 0; p < TQ_TRELLIS_STATES; p++) {
        vb cost = costs[(warm_up + ahead) * TQ_TRELLIS_STATES + p], less = (vb)(cost < smallest);
        smallest = min_u8(smallest, cost);
        seam = (less & (uint8_t)p) | (seam & ~less);
    }
    for (int i = ahead - 1; i >= 0; i--)
        seam = states_before(s, load_b(samples + (size_t)i * TQ_TRELLIS_ROWS), TQ_TRELLIS_STATES, seam, seam,
                             costs + (size_t)(warm_up + i) * TQ_TRELLIS_STATES, least[warm_up + i], bits);
    for (int p = 0; p < TQ_TRELLIS_STATES; p++) costs[p] = (vb)(seam != (uint8_t)p) & TQ_TRELLIS_UNREACHED;
    search_steps(s, samples, n, tq_trellis_start(s->t), costs, least, bits);
    byte_table table = load_table(s->t->levels);
    vb state = seam;
    for (int i = n - 1; i >= 0; i--) {
        vb before = i == 0 ? seam
                           : states_before(s, load_b(samples + (size_t)i * TQ_TRELLIS_ROWS), i, seam, state,
                                           costs + (size_t)i * TQ_TRELLIS_STATES, least[i], bits);
        store_b(codes + (size_t)i * TQ_TRELLIS_ROWS, state & (uint8_t)((1 << bits) - 1));
        store_b(levels + (size_t)i * TQ_TRELLIS_ROWS, look_up(table, state ^ look_up_mix(s->mix, before)));
        state = before;
    }
}

static void trellis_encode(const tq_trellis *t, const int16_t *samples, int n_rows, int n, uint8_t *codes, int32_t *product,
                           int32_t *energy, void *scratch) {
    enum { ROWS = TQ_TRELLIS_ROWS };
    vb *costs = scratch, *least = costs + (size_t)(n + 1) * TQ_TRELLIS_STATES;
    uint8_t *bytes = (uint8_t *)(least + n + 1), *levels = bytes + (size_t)n * ROWS;
    chain_search s;
    for (int i = 0; i < n * ROWS; i++) bytes[i] = tq_trellis_byte(t, samples[i]);
    begin_search(t, &s);
    for (int row = 0; row < n_rows; row += VB) switch (t->bits) {
        case 2: encode_rows(&s, bytes + row, n, costs, least, codes + row, levels + row, 2); break;
        case 3: encode_rows(&s, bytes + row, n, costs, least, codes + row, levels + row, 3); break;
        default: encode_rows(&s, bytes + row, n, costs, least, codes + row, levels + row, 4);
        }
    for (int r = 0; r < ROWS; r++) product[r] = energy[r] = 0;
    for (int i = 0; i < n; i++)
        for (int r = 0; r < (n_rows + VB - 1) / VB * VB; r++) {
            int level = (int)levels[i * ROWS + r] - 128;
            product[r] += samples[i * ROWS + r] * level;
            energy[r] += level * level;
        }
}
