/* page_dots_tiles.h: page_dots of the instruction sets that unpack a tile into L1 and multiply from there.
 * Included after unpack_tile and dot_tile. */

/* 15-bit softmax weights as dot_tile wants them. */
#define store_weights(w, row, at, shifted)                                                                             \
    store_i16((w)->wide + (row) * TQ_INT_STRIDE + (at), (shifted) - (vi)spread(WEIGHT_SHIFT))
static inline int32_t sum_integers(vi v) {
    uint32_t sum = 0;
    for (int l = 0; l < VL; l++) sum += (uint32_t)v[l];
    return (int32_t)sum;
}

static void page_dots(const tq_page_codes *side, const tq_int_vectors *q, int first_q, int n_q, int32_t *dots) {
    uint8_t unpacked[128 * 64] __attribute__((aligned(64)));
    size_t share = side->next_bytes / (size_t)side->n_tiles; /* of the next page, fetched with each tile */
    for (int t = 0; t < side->n_tiles; t++, dots += TQ_PAGE_QUERIES * 16) {
        for (size_t at = 0; at < share; at += 64) __builtin_prefetch(side->next + (size_t)t * share + at, 0, 3);
        const uint8_t *tile = side->codes + (size_t)t * side->tile_bytes;
        if (side->bits < 8) unpack_tile(side->bits, side->levels, tile, side->n_vectors, unpacked);
        dot_tile(side->bits < 8 ? unpacked : tile, side->n_vectors, q, first_q, n_q, dots);
    }
}
