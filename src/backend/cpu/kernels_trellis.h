/* kernels_trellis.h: trellis codes (codec/trellis.h) in the tiles of a page.
 *
 * Included by kernels_body.h, and where codes are attended to in registers.  Before it are INLINE and, of each set,
 *     VB                       bytes of a register; vb: VB uint8
 *     byte_table, load_table(p), look_up(table, index)    64 entries, index 0..63
 *     load_mix(p), look_up_mix(table, index)              the same for a table that is linear over GF(2), by the low 6 bits
 *     choose_bits(mask, a, b)              a's bits where the mask's are 1, else b's
 *     exclusive_or_bits(a, b, mask)        a ^ (b & mask)
 *     next_lanes(v)                        64 bytes in registers, 4 bytes on, around
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

/* ---- woven codes (codec/trellis_weave.h): a state is a byte, or bits of two -------------------------------------------- */

typedef struct weave_tables {
    byte_table levels[TQ_WEAVE_TURNS];
    mix_table mix[TQ_WEAVE_TURNS];
} weave_tables;

INLINE void load_weave(const tq_trellis_weave *w, const int bits, weave_tables *t) {
    for (int i = 0; i < tq_weave_turns(bits); i++) t->levels[i] = load_table(w->levels[i]), t->mix[i] = load_mix(w->mix[i]);
}

/* Where the level of the code that stands in the bits of `turn`, after state `before`, stands in the table of that turn. */
INLINE vb weave_place(const weave_tables *t, vb before, vb code, const int turn, const int bits) {
    return exclusive_or_bits(look_up_mix(t->mix[turn], before), code, tq_weave_mask(bits, turn));
}

/* 3 and 4 bits: a strand of two codes, after the strand `before` -> places of two vectors, in the tables of turns 0 and 1.  The
 * strand is the state after them. */
INLINE void weave_two_places(const weave_tables *t, vb before, vb strand, vb out[2], const int bits) {
    vb first = bits == 4 ? shift_right(strand, 2) : strand;
    vb between = choose_bits(tq_weave_mask(bits, 0), first, before);
    out[0] = weave_place(t, before, first, 0, bits);
    out[1] = weave_place(t, between, strand, 1, bits);
}
INLINE void weave_two(const weave_tables *t, vb before, vb strand, vb out[2], const int bits) {
    weave_two_places(t, before, strand, out, bits);
    for (int i = 0; i < 2; i++) out[i] = look_up(t->levels[i], out[i]);
}

/* 2 bits: a strand of four codes, the first of them the code of a t % 3 = turn; its last one brought down; places in the tables of
 * turns turn, turn + 1, turn + 2, turn; the levels. */
INLINE vb weave_last(vb strand, const int turn) {
    return choose_bits(tq_weave_mask(2, turn), shift_right(strand, 6 - 2 * turn), strand);
}
INLINE void weave_four_places(const weave_tables *t, vb before, vb strand, vb out[4], const int turn) {
    const int second = (turn + 1) % 3, third = (turn + 2) % 3;
    vb last = weave_last(strand, turn);
    out[0] = weave_place(t, before, strand, turn, 2);
    out[1] = weave_place(t, choose_bits(tq_weave_mask(2, turn), strand, before), strand, second, 2);
    out[2] = weave_place(t, choose_bits(tq_weave_mask(2, third), before, strand), strand, third, 2);
    out[3] = weave_place(t, strand, last, turn, 2);
}
INLINE void weave_four(const weave_tables *t, vb before, vb strand, vb out[4], const int turn) {
    weave_four_places(t, before, strand, out, turn);
    for (int i = 0; i < 4; i++) out[i] = look_up(t->levels[(turn + i) % 3], out[i]);
}

/* 3 bits: the strand that stands in the top bits of three others. */
INLINE vb weave_fourth(vb a, vb b, vb c) {
    return choose_bits(3, shift_right(a, 6), choose_bits(12, shift_right(b, 4), shift_right(c, 2)));
}

/* 3 bits: strand 0..3 of a group. */
INLINE vb weave_strand(const uint8_t *group, int strand, int at) {
    if (strand < 3) return load_b(group + 64 * strand + at);
    return weave_fourth(load_b(group + at), load_b(group + 64 + at), load_b(group + 128 + at));
}

/* Keys: the state after the last of n vectors, which is the one before the first, a byte of the lane on. */
INLINE vb weave_key_begin(const tq_trellis_weave *w, const uint8_t *tile, int n_vectors, int at, const int bits) {
    vb last;
    if (bits == 4) {
        last = load_b(tile + (n_vectors / 2 - 1) * 64 + at);
    } else if (bits == 3) {
        last = weave_strand(tile + (n_vectors - 1) / 8 * 192, (n_vectors - 1) % 8 / 2, at);
    } else {
        vb strand = load_b(tile + (n_vectors / 4 - 1) * 64 + at);
        int turn = (n_vectors - 1) % 3;
        last = turn == 0 ? weave_last(strand, 0) : turn == 1 ? weave_last(strand, 1) : weave_last(strand, 2);
        last = look_up(load_table(w->begin[turn]), last & 63);
    }
    return (vb)((vb32)last << 8 | (vb32)last >> 24);
}

/* A strand of two codes -> two vectors; returns the state after them. */
INLINE vb unpack_two(const weave_tables *t, vb before, vb strand, uint8_t *to, const int bits) {
    vb level[2];
    weave_two(t, before, strand, level, bits);
    store_b(to, level[0]), store_b(to + 64, level[1]);
    return strand;
}

INLINE void unpack_key_chain(const tq_trellis_weave *w, const uint8_t *tile, int n_vectors, uint8_t *dst, const int bits) {
    weave_tables t;
    load_weave(w, bits, &t);
    for (int at = 0; at < 64; at += VB) {
        vb before = weave_key_begin(w, tile, n_vectors, at, bits);
        uint8_t *to = dst + at;
        if (bits == 2) {
            for (int g = 0; g < n_vectors / 4; g++, to += 256) {
                vb strand = load_b(tile + 64 * g + at), level[4];
                switch (g % 3) {
                case 0: weave_four(&t, before, strand, level, 0), before = weave_last(strand, 0); break;
                case 1: weave_four(&t, before, strand, level, 1), before = weave_last(strand, 1); break;
                default: weave_four(&t, before, strand, level, 2), before = weave_last(strand, 2);
                }
                for (int i = 0; i < 4; i++) store_b(to + 64 * i, level[i]);
            }
        } else if (bits == 3) {
            for (int v = 0; v < n_vectors; v += 8, to += 512) {
                const uint8_t *group = tile + v * 24 + at;
                vb a = load_b(group), b = load_b(group + 64);
                before = unpack_two(&t, before, a, to, 3);
                before = unpack_two(&t, before, b, to + 128, 3);
                if (n_vectors - v < 8) break;
                vb c = load_b(group + 128);
                before = unpack_two(&t, before, c, to + 256, 3);
                before = unpack_two(&t, before, weave_fourth(a, b, c), to + 384, 3);
            }
        } else {
            for (int s = 0; s < n_vectors / 2; s++, to += 128) before = unpack_two(&t, before, load_b(tile + 64 * s + at), to, 4);
        }
    }
}

static inline void unpack_trellis_keys(const tq_trellis_weave *w, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    switch (w->trellis->bits) {
    case 2: unpack_key_chain(w, tile, n_vectors, dst, 2); break;
    case 3: unpack_key_chain(w, tile, n_vectors, dst, 3); break;
    default: unpack_key_chain(w, tile, n_vectors, dst, 4);
    }
}

enum { VALUE_VECTORS = 32, VALUE_TILE = 64 * VALUE_VECTORS }; /* of a tile of values, unpacked */

/* The strand of values' vector v + i, v a multiple of 4, of tiles 2 s and 2 s + 1 (3, 4 bits) or 4 s to 4 s + 3. */
INLINE vb value_strand(const uint8_t *codes, int s, int v, int i, int at, const int bits) {
    if (bits == 3) return weave_strand(codes + s * 1536 + v / 4 * 192, i, at);
    return load_b(codes + s * VALUE_TILE + 64 * (v + i) + at);
}

/* The states before tile 0, where the chain of a lane goes on from the lane before it. */
INLINE void weave_value_begin(const tq_trellis_weave *w, const uint8_t *codes, int n_tiles, int v, int i, vb begin[64 / VB],
                              const int bits) {
    for (int r = 0; r < 64 / VB; r++) {
        vb strand = value_strand(codes, n_tiles / tq_weave_codes(bits) - 1, v, i, r * VB, bits);
        if (bits == 2) {
            int turn = (n_tiles - 1) % 3;
            strand = turn == 0 ? weave_last(strand, 0) : turn == 1 ? weave_last(strand, 1) : weave_last(strand, 2);
            strand = look_up(load_table(w->begin[turn]), strand & 63);
        }
        begin[r] = strand;
    }
    next_lanes(begin);
}

/* The chains of four vectors side by side, which share the strands of 3 bits. */
INLINE void unpack_four_chains(const tq_trellis_weave *w, const weave_tables *t, const uint8_t *codes, int n_tiles, int v,
                               uint8_t *dst, const int bits) {
    const int n_codes = tq_weave_codes(bits);
    vb begin[4][64 / VB];
    for (int i = 0; i < 4; i++) weave_value_begin(w, codes, n_tiles, v, i, begin[i], bits);
    for (int at = 0; at < 64; at += VB) {
        uint8_t *to = dst + 64 * v + at;
        vb before[4];
        for (int i = 0; i < 4; i++) before[i] = begin[i][at / VB];
        for (int s = 0; s < n_tiles / n_codes; s++, to += VALUE_TILE * n_codes)
            for (int i = 0; i < 4; i++) {
                vb strand = value_strand(codes, s, v, i, at, bits), level[4];
                if (bits == 2) {
                    switch (s % 3) {
                    case 0: weave_four(t, before[i], strand, level, 0), before[i] = weave_last(strand, 0); break;
                    case 1: weave_four(t, before[i], strand, level, 1), before[i] = weave_last(strand, 1); break;
                    default: weave_four(t, before[i], strand, level, 2), before[i] = weave_last(strand, 2);
                    }
                } else {
                    weave_two(t, before[i], strand, level, bits);
                    before[i] = strand;
                }
                for (int c = 0; c < n_codes; c++) store_b(to + 64 * i + VALUE_TILE * c, level[c]);
            }
    }
}

INLINE void unpack_value_chains(const tq_trellis_weave *w, const uint8_t *codes, int n_tiles, uint8_t *dst, const int bits) {
    weave_tables t;
    load_weave(w, bits, &t);
    for (int v = 0; v < VALUE_VECTORS; v += 4) unpack_four_chains(w, &t, codes, n_tiles, v, dst, bits);
}

/* ---- values whose tiles are too odd in number to be woven: a state goes from tile to tile ------------------------------- */

INLINE void unpack_straight_tile(const tq_trellis *t, const uint8_t *tile, uint8_t *states, uint8_t *dst, const int bits) {
    byte_table levels = load_table(t->levels);
    mix_table mix = load_mix(t->mix);
    vb code[4];
    for (int v = 0; v < VALUE_VECTORS; v += 4)
        for (int at = 0; at < 64; at += VB) {
            four_codes(tile, VALUE_VECTORS, v, at, bits, code);
            for (int i = 0; i < 4; i++) {
                uint8_t *state_at = states + (v + i) * 64 + at;
                vb before = load_b(state_at), state = next_state(before, code[i], bits);
                store_b(state_at, state);
                if (dst) store_b(dst + (v + i) * 64 + at, look_up(levels, state ^ look_up_mix(mix, before)));
            }
        }
}

/* The states before the first tile are those after the last, a lane on. */
INLINE void unpack_straight_values(const tq_trellis *t, const uint8_t *codes, int n_tiles, uint8_t *dst, const int bits) {
    uint8_t states[VALUE_TILE] __attribute__((aligned(64))) = {0};
    const size_t tile_bytes = (size_t)(VALUE_TILE * bits / 8);
    int remembered = (5 + bits) / bits; /* codes in a state */
    for (int chain = n_tiles - remembered; chain < n_tiles; chain++) { /* fewer tiles than that: around more than once */
        int tile = ((chain % n_tiles) + n_tiles) % n_tiles;
        unpack_straight_tile(t, codes + (size_t)tile * tile_bytes, states, NULL, bits);
        for (int v = 0; tile == n_tiles - 1 && v < VALUE_VECTORS; v++) {
            uint8_t *s = states + v * 64, last[4];
            memcpy(last, s + 60, 4);
            memmove(s + 4, s, 60);
            memcpy(s, last, 4);
        }
    }
    for (int tile = 0; tile < n_tiles; tile++, dst += VALUE_TILE)
        unpack_straight_tile(t, codes + (size_t)tile * tile_bytes, states, dst, bits);
}

static inline void unpack_trellis_values(const tq_trellis_weave *w, const uint8_t *codes, int n_tiles, uint8_t *dst) {
    bool woven = n_tiles % tq_weave_codes(w->trellis->bits) == 0;
    switch (w->trellis->bits) {
    case 2:
        if (woven) unpack_value_chains(w, codes, n_tiles, dst, 2);
        else unpack_straight_values(w->trellis, codes, n_tiles, dst, 2);
        break;
    case 3:
        if (woven) unpack_value_chains(w, codes, n_tiles, dst, 3);
        else unpack_straight_values(w->trellis, codes, n_tiles, dst, 3);
        break;
    default:
        if (woven) unpack_value_chains(w, codes, n_tiles, dst, 4);
        else unpack_straight_values(w->trellis, codes, n_tiles, dst, 4);
    }
}
