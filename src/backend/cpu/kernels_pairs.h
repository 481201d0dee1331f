/* kernels_pairs.h: codes of pairs (codec/pair_codebook.h) in the tiles of a page.
 *
 * Included by kernels_body.h after kernels_trellis.h.  The kernels_<set>.c before it define, besides what that one wants,
 *     pair_table, load_pairs(p), look_up_pair(table, index)    128 entries, index 0..127
 *     exchange_halves(&a, &b)                                  where VB is 64: halves a0 a1, b0 b1 -> a0 b0, a1 b1
 *
 * A register of codes gives two registers of levels, one from each table.  For keys they are two vectors as they are; for
 * values each is half of two (codec/page.h). */

typedef struct pair_tables {
    byte_table first, second;     /* up to 64 points */
    pair_table first_7, second_7; /* 128 */
} pair_tables;

/* Where a group of eight vectors of codes has its planes. */
typedef struct pair_planes {
    const uint8_t *fours, *twos, *ones;
} pair_planes;

/* Codes of vector w = 0..7 of the group, at byte `at`. */
INLINE vb pair_codes(const pair_planes *p, const int w, int at, const int bits) {
    vb code = load_b(p->fours + w / 2 * 64 + at);
    code = (w % 2 ? shift_right(code, 4) : code) & 15;
    if (bits != 5) {
        vb two = load_b(p->twos + w / 4 * 64 + at);
        code |= (w % 4 < 2 ? shift_left(two, 4 - w % 4 * 2) : shift_right(two, w % 4 * 2 - 4)) & 48;
    }
    if (bits != 6) {
        vb one = load_b(p->ones + at);
        const int to = bits - 1;
        code |= (w < to ? shift_left(one, to - w) : shift_right(one, w - to)) & (uint8_t)(1 << to);
    }
    return code;
}

INLINE void unpack_pair_vector(const pair_tables *t, const pair_planes *p, uint8_t *dst, bool values, const int bits,
                               const int w) {
    dst += 128 * w;
    for (int at = 0; at < 64; at += VB) {
        vb code = pair_codes(p, w, at, bits);
        vb a = bits == 7 ? look_up_pair(t->first_7, code) : look_up(t->first, code);
        vb b = bits == 7 ? look_up_pair(t->second_7, code) : look_up(t->second, code);
        if (values && VB == 64) exchange_halves(&a, &b);
        if (values && VB < 64) {
            uint8_t *to = dst + at / 32 * 64 + at % 32;
            store_b(to, a);
            store_b(to + 32, b);
        } else {
            store_b(dst + at, a);
            store_b(dst + 64 + at, b);
        }
    }
}

INLINE void unpack_pair_tile(const tq_pair_codebook *book, const uint8_t *tile, int n_vectors, uint8_t *dst, bool values,
                             const int bits) {
    pair_tables t;
    t.first = load_table(book->first), t.second = load_table(book->second);
    t.first_7 = load_pairs(book->first), t.second_7 = load_pairs(book->second);
    int n = n_vectors / 2;
    const uint8_t *twos = tile + n / 2 * 64;
    pair_planes p = {tile, twos, bits == 5 ? twos : twos + (n + 3) / 4 * 64};
    for (int v = 0; v < n; v += 8, dst += 1024) {
        unpack_pair_vector(&t, &p, dst, values, bits, 0);
        unpack_pair_vector(&t, &p, dst, values, bits, 1);
        if (v + 2 < n) unpack_pair_vector(&t, &p, dst, values, bits, 2);
        if (v + 2 < n) unpack_pair_vector(&t, &p, dst, values, bits, 3);
        if (v + 4 < n) unpack_pair_vector(&t, &p, dst, values, bits, 4);
        if (v + 4 < n) unpack_pair_vector(&t, &p, dst, values, bits, 5);
        if (v + 6 < n) unpack_pair_vector(&t, &p, dst, values, bits, 6);
        if (v + 6 < n) unpack_pair_vector(&t, &p, dst, values, bits, 7);
        p.fours += 256, p.twos += 128, p.ones += 64;
    }
}

static void unpack_pairs(const tq_pair_codebook *book, const uint8_t *tile, int n_vectors, bool values, uint8_t *dst) {
    switch (book->bits) {
    case 5: unpack_pair_tile(book, tile, n_vectors, dst, values, 5); break;
    case 6: unpack_pair_tile(book, tile, n_vectors, dst, values, 6); break;
    default: unpack_pair_tile(book, tile, n_vectors, dst, values, 7);
    }
}
