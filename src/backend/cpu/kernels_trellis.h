/* kernels_trellis.h: trellis codes (codec/trellis.h) in the tiles of a page, and Viterbi's algorithm for many rows.
 *
 * Included by kernels_body.h.  The kernels_<set>.c before it define
 *     VB                       bytes of a register; vb: VB uint8
 *     byte_table, load_table(p), look_up(table, index)    64 entries, index 0..63
 *     load_mix(p), look_up_mix(table, index)              the same for a table that is linear over GF(2)
 *     min_i32(a, b)            of two vi
 *
 * The samples of a row stand so that each follows the one at the same place of the vector before it, for keys, or of the
 * tile before it, for values (page.h).  A state register therefore moves down the vectors or the tiles, and only at the
 * seam does it move by a byte within a lane, or by a lane. */

typedef uint16_t vb16 __attribute__((vector_size(VB), may_alias));
typedef uint32_t vb32 __attribute__((vector_size(VB), may_alias));
typedef vb vb_unaligned __attribute__((aligned(1), may_alias));

INLINE vb load_b(const uint8_t *p) { return *(const vb_unaligned *)p; }
INLINE void store_b(uint8_t *p, vb v) { *(vb_unaligned *)p = v; }
/* Bits that cross into the neighbour are masked away by next_state. */
INLINE vb shift_left(vb v, const int n) { return (vb)((vb16)v << n); }
INLINE vb shift_right(vb v, const int n) { return (vb)((vb16)v >> n); }

INLINE vb next_state(vb state, vb code, const int bits) {
    const uint8_t low = (uint8_t)((1 << bits) - 1), high = (uint8_t)(63 & ~low);
    return (shift_left(state, bits) & high) | (code & low);
}

/* Codes of vectors v..v+3, v a multiple of 4, at byte `at` of the vectors; what stands above `bits` is anything. */
INLINE void four_codes(const uint8_t *tile, int n_vectors, int v, int at, const int bits, vb code[4]) {
    if (bits == 2) {
        vb all = load_b(tile + v / 4 * 64 + at);
        code[0] = all, code[1] = shift_right(all, 2), code[2] = shift_right(all, 4), code[3] = shift_right(all, 6);
    } else if (bits == 4) {
        vb a = load_b(tile + v / 2 * 64 + at), b = load_b(tile + v / 2 * 64 + 64 + at);
        code[0] = a, code[1] = shift_right(a, 4), code[2] = b, code[3] = shift_right(b, 4);
    } else {
        const uint8_t *group = tile + v / 8 * 192;
        vb low = load_b(group + v % 8 / 4 * 64 + at);
        vb high = load_b(group + (v / 8 * 8 + 8 <= n_vectors ? 128 : 64) + at);
        if (v % 8) high = shift_right(high, 4);
        code[0] = (low & 3) | (shift_left(high, 2) & 4);
        code[1] = (shift_right(low, 2) & 3) | (shift_left(high, 1) & 4);
        code[2] = (shift_right(low, 4) & 3) | (high & 4);
        code[3] = (shift_right(low, 6) & 3) | (shift_right(high, 1) & 4);
    }
}

INLINE void unpack_key_chain(const tq_trellis *t, const uint8_t *tile, int n_vectors, uint8_t *dst, const int bits) {
    byte_table levels = load_table(t->levels);
    mix_table mix = load_mix(t->mix);
    vb code[4];
    for (int at = 0; at < 64; at += VB) {
        vb state = {0};
        four_codes(tile, n_vectors, n_vectors - 4, at, bits, code); /* 4 codes are more than a state remembers */
        for (int i = 0; i < 4; i++) state = next_state(state, code[i], bits);
        state = (vb)((vb32)state << 8 | (vb32)state >> 24); /* the chain goes on at the next byte of the lane */
        for (int v = 0; v < n_vectors; v += 4) {
            four_codes(tile, n_vectors, v, at, bits, code);
            for (int i = 0; i < 4; i++) {
                vb before = state;
                state = next_state(state, code[i], bits);
                store_b(dst + (v + i) * 64 + at, look_up(levels, state ^ look_up_mix(mix, before)));
            }
        }
    }
}

static void unpack_trellis_keys(const tq_trellis *t, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    switch (t->bits) {
    case 2: unpack_key_chain(t, tile, n_vectors, dst, 2); break;
    case 3: unpack_key_chain(t, tile, n_vectors, dst, 3); break;
    default: unpack_key_chain(t, tile, n_vectors, dst, 4);
    }
}

INLINE void unpack_value_chain(const tq_trellis *t, const uint8_t *tile, int n_vectors, uint8_t *states, uint8_t *dst,
                               const int bits) {
    byte_table levels = load_table(t->levels);
    mix_table mix = load_mix(t->mix);
    vb code[4];
    for (int v = 0; v < n_vectors; v += 4)
        for (int at = 0; at < 64; at += VB) {
            four_codes(tile, n_vectors, v, at, bits, code);
            for (int i = 0; i < 4; i++) {
                uint8_t *state_at = states + (v + i) * 64 + at;
                vb before = load_b(state_at), state = next_state(before, code[i], bits);
                store_b(state_at, state);
                if (dst) store_b(dst + (v + i) * 64 + at, look_up(levels, state ^ look_up_mix(mix, before)));
            }
        }
}

static void unpack_trellis_values(const tq_trellis *t, const uint8_t *tile, int n_vectors, uint8_t *states, uint8_t *dst) {
    switch (t->bits) {
    case 2: unpack_value_chain(t, tile, n_vectors, states, dst, 2); break;
    case 3: unpack_value_chain(t, tile, n_vectors, states, dst, 3); break;
    default: unpack_value_chain(t, tile, n_vectors, states, dst, 4);
    }
}

/* ---- Viterbi: a row a lane ---------------------------------------------------------------------------------------- */

/* branch[q]: the metric of the step from q with code c stands at branch[q] ^ c. */
INLINE void viterbi(const tq_trellis *t, const uint8_t *branch, const vi *samples, int n, vi *cost, vi *choices,
                    const int bits) {
    const int n_codes = 1 << bits, high = 6 - bits, n_groups = TQ_TRELLIS_STATES >> bits;
    vi metric[TQ_TRELLIS_STATES], next[TQ_TRELLIS_STATES];
    for (int i = 0; i < n; i++) {
        for (int h = 0; h < TQ_TRELLIS_STATES; h++) {
            int level = (int)t->levels[h] - 128;
            metric[h] = (level - samples[i]) * (16 * level);
        }
        for (int g = 0; g < n_groups; g++) {
            vi from[16];
            for (int m = 0; m < n_codes; m++) from[m] = (cost[m << high | g] & ~15) | m;
            for (int c = 0; c < n_codes; c++) {
                vi best = from[0] + metric[branch[g] ^ c];
                for (int m = 1; m < n_codes; m++) best = min_i32(best, from[m] + metric[branch[m << high | g] ^ c]);
                next[g << bits | c] = best;
            }
        }
        for (int w = 0; w < TQ_TRELLIS_STATES / 8; w++) {
            vi word = {0};
            for (int k = 7; k >= 0; k--) {
                cost[w * 8 + k] = next[w * 8 + k];
                word = (word << 4) | (next[w * 8 + k] & 15);
            }
            if (choices) choices[i * (TQ_TRELLIS_STATES / 8) + w] = word;
        }
    }
}

INLINE void viterbi_lanes(const tq_trellis *t, const vi *samples, int n, uint8_t (*codes)[VL], vi *choices,
                          const int bits) {
    uint8_t branch[TQ_TRELLIS_STATES];
    for (int q = 0; q < TQ_TRELLIS_STATES; q++) branch[q] = (uint8_t)(tq_trellis_next(t, (unsigned)q, 0) ^ t->mix[q]);
    vi cost[TQ_TRELLIS_STATES], seam = {0};
    for (int p = 0; p < TQ_TRELLIS_STATES; p++) cost[p] = (vi){0};
    int warm_up = n < TQ_TRELLIS_WARM_UP ? n : TQ_TRELLIS_WARM_UP;
    viterbi(t, branch, samples + n - warm_up, warm_up, cost, NULL, bits);
    vi least = cost[0];
    for (int p = 1; p < TQ_TRELLIS_STATES; p++) {
        vi less = cost[p] < least;
        least = (cost[p] & less) | (least & ~less);
        seam = (p & less) | (seam & ~less);
    }
    for (int p = 0; p < TQ_TRELLIS_STATES; p++) cost[p] = (seam != p) & TQ_TRELLIS_UNREACHED;
    viterbi(t, branch, samples, n, cost, choices, bits);
    const int32_t *words = (const int32_t *)(const void *)choices;
    uint32_t state[VL];
    for (int l = 0; l < VL; l++) state[l] = (uint32_t)seam[l];
    for (int i = n - 1; i >= 0; i--)
        for (int l = 0; l < VL; l++) {
            uint32_t p = state[l], word = (uint32_t)words[(i * (TQ_TRELLIS_STATES / 8) + (int)(p / 8)) * VL + l];
            codes[i][l] = (uint8_t)(p & ((1u << bits) - 1));
            state[l] = (word >> p % 8 * 4 & 15) << (6 - bits) | p >> bits;
        }
}

static void trellis_encode(const tq_trellis *t, const int16_t *samples, int n_rows, int n, uint8_t *codes, void *scratch) {
    vi *lanes = scratch, *choices = lanes + n;
    uint8_t(*lane_codes)[VL] = (void *)(choices + (size_t)n * (TQ_TRELLIS_STATES / 8));
    for (int row = 0; row < n_rows; row += VL) {
        int rows = n_rows - row < VL ? n_rows - row : VL;
        for (int i = 0; i < n; i++)
            for (int l = 0; l < VL; l++) lanes[i][l] = samples[(size_t)(row + (l < rows ? l : 0)) * (size_t)n + (size_t)i];
        switch (t->bits) {
        case 2: viterbi_lanes(t, lanes, n, lane_codes, choices, 2); break;
        case 3: viterbi_lanes(t, lanes, n, lane_codes, choices, 3); break;
        default: viterbi_lanes(t, lanes, n, lane_codes, choices, 4);
        }
        for (int i = 0; i < n; i++)
            for (int l = 0; l < rows; l++) codes[(size_t)(row + l) * (size_t)n + (size_t)i] = lane_codes[i][l];
    }
}
