/* page.c: owner of the page layout drawn in page.h. */
#include "codec/page.h"

#include <string.h>

#include "base/half.h"
#include "codec/outlier_split.h"
#include "codec/row_codecs.h"

int tq_block_tiles(const tq_codec *codec, tq_side side) {
    return side == TQ_KEYS ? TQ_PAGE_TOKENS / TQ_TILE : codec->dim / TQ_TILE;
}

int tq_block_tile_vectors(const tq_codec *codec, tq_side side) {
    return side == TQ_KEYS ? codec->dim / 4 : TQ_PAGE_TOKENS / 4;
}

/* A tile of pairs, n vectors of codes: where the planes of two and of one bit begin, in units of 64 bytes. */
static int twos_at(int n) { return n / 2; }
static int ones_at(const tq_codec *codec, int n) { return twos_at(n) + (codec->bits == 5 ? 0 : (n + 3) / 4); }

size_t tq_block_tile_bytes(const tq_codec *codec, tq_side side) {
    size_t vectors = (size_t)tq_block_tile_vectors(codec, side);
    if (codec->pairs) return ((size_t)ones_at(codec, (int)vectors / 2) + (codec->bits == 6 ? 0 : (vectors + 15) / 16)) * TQ_VECTOR_BYTES;
    if (codec->bits != 3) return vectors * TQ_VECTOR_BYTES * (size_t)codec->bits / 8;
    return (vectors / 4 + (vectors + 7) / 8) * TQ_VECTOR_BYTES;
}

static size_t tiles_bytes(const tq_codec *codec, tq_side side) {
    return (size_t)tq_block_tiles(codec, side) * tq_block_tile_bytes(codec, side);
}

bool tq_block_is_woven(const tq_codec *codec, tq_side side) {
    return codec->trellis && (side == TQ_KEYS || tq_values_are_woven(codec->bits, codec->dim / TQ_TILE));
}

bool tq_block_has_centre(const tq_codec *codec, tq_side side) {
    return codec->kind == TQ_CODEC_PLANAR && side == TQ_KEYS && !codec->bare;
}

size_t tq_block_bytes(const tq_codec *codec, tq_side side) {
    if (codec->kind != TQ_CODEC_PLANAR)
        return TQ_PAGE_TOKENS * codec->row_bytes + (tq_block_has_channels(codec) ? tq_split_mask_bytes(codec->dim) : 0);
    return tiles_bytes(codec, side) + TQ_PAGE_TOKENS * 2 + (tq_block_has_centre(codec, side) ? (size_t)codec->dim * 2 : 0);
}

bool tq_block_has_channels(const tq_codec *codec) { return codec->kind == TQ_CODEC_SPLIT; }

uint8_t *tq_block_channels(const tq_codec *codec, uint8_t *block) { return block + TQ_PAGE_TOKENS * codec->row_bytes; }

static const uint8_t *channels_of(const tq_codec *codec, const uint8_t *block) {
    return block + TQ_PAGE_TOKENS * codec->row_bytes;
}

void tq_block_query(const tq_codec *codec, const uint8_t *block, const float *q, float *prepared) {
    if (codec->kind == TQ_CODEC_SPLIT) tq_split_query(codec, channels_of(codec, block), q, prepared);
    else tq_codec_query(codec, q, prepared);
}

void tq_block_output(const tq_codec *codec, const uint8_t *block, const float *acc, float *x) {
    if (codec->kind == TQ_CODEC_SPLIT) tq_split_output(codec, channels_of(codec, block), acc, x);
    else tq_codec_output(codec, acc, x);
}

/* Tiles are whole multiples of 64 bytes and blocks are aligned, so these pointers are aligned too. */
const uint16_t *tq_block_scales(const tq_codec *codec, tq_side side, const uint8_t *block) {
    return (const uint16_t *)(const void *)(block + tiles_bytes(codec, side));
}

const uint16_t *tq_block_centre(const tq_codec *codec, const uint8_t *block) {
    static const uint16_t nowhere[TQ_MAX_PLANAR_DIM] __attribute__((aligned(TQ_VECTOR_BYTES))) = {0};
    if (codec->bare) return nowhere;
    return tq_block_scales(codec, TQ_KEYS, block) + TQ_PAGE_TOKENS;
}

/* Where the code of (row, dim) stands: tile, vector in the tile, place in the vector. */
typedef struct spot {
    int tile, vector, place;
} spot;

static spot find_spot(tq_side side, int row, int dim) {
    if (side == TQ_KEYS) return (spot){row / TQ_TILE, dim / 4, 4 * (row % TQ_TILE) + dim % 4};
    return (spot){dim / TQ_TILE, row / 4, 4 * (dim % TQ_TILE) + row % 4};
}

static void put_bits(uint8_t *byte, int shift, unsigned mask, unsigned value) {
    *byte = (uint8_t)((*byte & ~(mask << shift)) | value << shift);
}

/* A 3-bit group: where its low and high planes begin.  Groups before it are full. */
static size_t group3_at(int vector) { return (size_t)(vector / 8) * 3 * TQ_VECTOR_BYTES; }
static size_t high3_at(int vector, int vectors) {
    return group3_at(vector) + (vector / 8 * 8 + 8 <= vectors ? 2 : 1) * TQ_VECTOR_BYTES;
}

/* The code of the pair whose first coordinate stands at s: its vector of codes and the place there. */
static spot pair_spot(tq_side side, spot s) {
    if (side == TQ_KEYS) return (spot){s.tile, s.vector / 2, s.place};
    return (spot){s.tile, s.vector / 2, s.vector % 2 * 32 + s.place};
}

static void put_pair(const tq_codec *codec, int n, uint8_t *tile, spot s, unsigned code) {
    int v = s.vector;
    put_bits(tile + v / 2 * TQ_VECTOR_BYTES + s.place, v % 2 * 4, 15, code & 15);
    if (codec->bits != 5)
        put_bits(tile + (twos_at(n) + v / 4) * TQ_VECTOR_BYTES + s.place, v % 4 * 2, 3, code >> 4 & 3);
    if (codec->bits != 6)
        put_bits(tile + (ones_at(codec, n) + v / 8) * TQ_VECTOR_BYTES + s.place, v % 8, 1, code >> (codec->bits - 1));
}

static unsigned get_pair(const tq_codec *codec, int n, const uint8_t *tile, spot s) {
    int v = s.vector;
    unsigned code = tile[v / 2 * TQ_VECTOR_BYTES + s.place] >> v % 2 * 4 & 15u;
    if (codec->bits != 5) code |= (tile[(twos_at(n) + v / 4) * TQ_VECTOR_BYTES + s.place] >> v % 4 * 2 & 3u) << 4;
    if (codec->bits != 6)
        code |= (tile[(ones_at(codec, n) + v / 8) * TQ_VECTOR_BYTES + s.place] >> v % 8 & 1u) << (codec->bits - 1);
    return code;
}

/* Where a code of a woven trellis stands: its place in a block (at[] of it, from the block's beginning). */
static tq_weave_place woven_place(const tq_codec *codec, tq_side side, int row, int dim) {
    spot s = find_spot(side, row, dim);
    int codes = tq_weave_codes(codec->bits), t = side == TQ_KEYS ? s.vector : s.tile;
    int strand = side == TQ_KEYS ? s.vector / codes : s.vector;
    size_t begins = side == TQ_KEYS ? (size_t)s.tile : (size_t)(s.tile / codes * codes);
    tq_weave_place p = tq_weave_place_of(codec->bits, strand, t);
    for (int i = 0; i < 2; i++) p.at[i] += begins * tq_block_tile_bytes(codec, side) + (size_t)s.place;
    return p;
}

static unsigned get_woven(const uint8_t *block, tq_weave_place p) {
    unsigned code = block[p.at[0]] >> p.shift[0] & ((1u << p.n[0]) - 1);
    return code | (block[p.at[1]] >> p.shift[1] & ((1u << p.n[1]) - 1)) << p.n[0];
}

/* The six bits of strand i of a group, at 3 bits a code, over what was there. */
static void put_six(uint8_t *group, int i, unsigned six) {
    if (i < 3) {
        put_bits(group + i * TQ_VECTOR_BYTES, 0, 63, six);
    } else {
        for (int j = 0; j < 3; j++) put_bits(group + j * TQ_VECTOR_BYTES, 6, 3, six >> 2 * j & 3);
    }
}

/* A row's codes, lane by lane; what woven_place says of each. */
static void put_woven_row(const tq_codec *codec, tq_side side, uint8_t *block, int row, const uint8_t *codes) {
    const size_t tile_bytes = tq_block_tile_bytes(codec, side);
    const int lanes = tq_side_lanes(side), at_once = tq_weave_codes(codec->bits), steps = codec->dim / lanes / at_once;
    for (int lane = 0; lane < lanes; lane++) {
        int place = side == TQ_KEYS ? 4 * (row % TQ_TILE) + lane : 4 * lane + row % 4;
        int strand = side == TQ_KEYS ? 0 : row / 4;
        uint8_t *to = block + (side == TQ_KEYS ? (size_t)(row / TQ_TILE) * tile_bytes : 0) + place;
        const uint8_t *from = codes + lane;
        for (int s = 0; s < steps; s++, from += at_once * lanes) {
            if (codec->bits == 4) {
                to[strand * TQ_VECTOR_BYTES] = (uint8_t)(from[0] << 4 | from[lanes]);
            } else if (codec->bits == 2) {
                int r = s % 3 * 2; /* slots r, r + 2, r + 4, around at 6 */
                unsigned three = (unsigned)(from[0] | from[lanes] << 2 | from[2 * lanes] << 4);
                to[strand * TQ_VECTOR_BYTES] = (uint8_t)(((three << r | three >> (6 - r)) & 63) | (unsigned)from[3 * lanes] << 6);
            } else {
                put_six(to + strand / 4 * 3 * TQ_VECTOR_BYTES, strand % 4, (unsigned)(from[0] | from[lanes] << 3));
            }
            if (side == TQ_KEYS) strand++;
            else to += (size_t)at_once * tile_bytes;
        }
    }
}

static void put_code(const tq_codec *codec, int vectors, uint8_t *tile, spot s, unsigned code) {
    int v = s.vector;
    switch (codec->bits) {
    case 8: tile[v * TQ_VECTOR_BYTES + s.place] = (uint8_t)code; break;
    case 4: put_bits(tile + v / 2 * TQ_VECTOR_BYTES + s.place, v % 2 * 4, 15, code); break;
    case 2: put_bits(tile + v / 4 * TQ_VECTOR_BYTES + s.place, v % 4 * 2, 3, code); break;
    default:
        put_bits(tile + group3_at(v) + (size_t)(v % 8 / 4 * TQ_VECTOR_BYTES + s.place), v % 4 * 2, 3, code & 3);
        put_bits(tile + high3_at(v, vectors) + s.place, v % 8, 1, code >> 2);
    }
}

static unsigned get_code(const tq_codec *codec, int vectors, const uint8_t *tile, spot s) {
    int v = s.vector;
    switch (codec->bits) {
    case 8: return tile[v * TQ_VECTOR_BYTES + s.place];
    case 4: return tile[v / 2 * TQ_VECTOR_BYTES + s.place] >> v % 2 * 4 & 15;
    case 2: return tile[v / 4 * TQ_VECTOR_BYTES + s.place] >> v % 4 * 2 & 3;
    default:
        return (tile[group3_at(v) + (size_t)(v % 8 / 4 * TQ_VECTOR_BYTES + s.place)] >> v % 4 * 2 & 3u) |
               (tile[high3_at(v, vectors) + (size_t)s.place] >> v % 8 & 1u) << 2;
    }
}

void tq_block_set_centre(const tq_codec *codec, uint8_t *block, const float *mean) {
    float rotated[TQ_MAX_DIM];
    tq_rotate(&codec->rotation, mean, rotated);
    uint16_t *centre = (uint16_t *)(uintptr_t)tq_block_centre(codec, block);
    for (int i = 0; i < codec->dim; i++) centre[i] = tq_f32_f16(rotated[i]);
}

void tq_block_rotate(const tq_codec *codec, tq_side side, const uint8_t *block, const float *x, float *y) {
    tq_rotate(&codec->rotation, x, y);
    if (!tq_block_has_centre(codec, side)) return;
    const uint16_t *centre = tq_block_centre(codec, block);
    for (int i = 0; i < codec->dim; i++) y[i] -= tq_f16_f32(centre[i]);
}

void tq_block_put(const tq_codec *codec, tq_side side, uint8_t *block, int row, const uint8_t *codes, uint16_t scale) {
    uint16_t *scales = (uint16_t *)(uintptr_t)tq_block_scales(codec, side, block);
    scales[row] = scale;
    size_t tile_bytes = tq_block_tile_bytes(codec, side);
    int vectors = tq_block_tile_vectors(codec, side);
    for (int i = 0; codec->pairs && i < codec->dim / 2; i++) {
        spot s = find_spot(side, row, tq_pair_place(i, tq_side_lanes(side)));
        put_pair(codec, vectors / 2, block + (size_t)s.tile * tile_bytes, pair_spot(side, s), codes[i]);
    }
    if (tq_block_is_woven(codec, side)) {
        put_woven_row(codec, side, block, row, codes);
        return;
    }
    for (int i = 0; !codec->pairs && i < codec->dim; i++) {
        spot s = find_spot(side, row, i);
        put_code(codec, vectors, block + (size_t)s.tile * tile_bytes, s, codes[i]);
    }
}

/* ---- 16 rows at a time, of woven codes ------------------------------------------------------------------------------------ */

typedef uint8_t sixteen __attribute__((vector_size(16)));
typedef uint16_t eight __attribute__((vector_size(16)));

static sixteen load_sixteen(const uint8_t *p) {
    sixteen v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The codes of a lane's strand `s`, codes TQ_TRELLIS_ROWS apart: the byte that put_woven_row makes of them, or their six bits. */
static sixteen strand_of(const uint8_t *codes, int bits, int s) {
    enum { NEXT = TQ_TRELLIS_ROWS };
    sixteen first = load_sixteen(codes), second = load_sixteen(codes + NEXT);
    if (bits == 4) return first << 4 | second;
    if (bits == 3) return first | second << 3;
    int r = s % 3 * 2;
    sixteen three = first | second << 2 | load_sixteen(codes + 2 * NEXT) << 4;
    return ((three << r | three >> (6 - r)) & 63) | load_sixteen(codes + 3 * NEXT) << 6;
}

/* Four lanes of 16 rows -> 64 bytes, a row's lanes side by side. */
static void interleave(const sixteen lane[4], uint8_t *to) {
#define FIRST_BYTES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define LAST_BYTES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define FIRST_PAIRS 0, 8, 1, 9, 2, 10, 3, 11
#define LAST_PAIRS 4, 12, 5, 13, 6, 14, 7, 15
    eight a = (eight)__builtin_shufflevector(lane[0], lane[1], FIRST_BYTES);
    eight b = (eight)__builtin_shufflevector(lane[2], lane[3], FIRST_BYTES);
    eight c = (eight)__builtin_shufflevector(lane[0], lane[1], LAST_BYTES);
    eight d = (eight)__builtin_shufflevector(lane[2], lane[3], LAST_BYTES);
    eight all[4] = {__builtin_shufflevector(a, b, FIRST_PAIRS), __builtin_shufflevector(a, b, LAST_PAIRS),
                    __builtin_shufflevector(c, d, FIRST_PAIRS), __builtin_shufflevector(c, d, LAST_PAIRS)};
    memcpy(to, all, sizeof all);
#undef FIRST_BYTES
#undef LAST_BYTES
#undef FIRST_PAIRS
#undef LAST_PAIRS
}

/* A tile of keys. */
static void put_key_tile(const tq_codec *codec, uint8_t *tile, const uint8_t *chains) {
    const int bits = codec->bits, at_once = tq_weave_codes(bits), steps = codec->dim / 4 / at_once;
    const size_t lane_bytes = (size_t)(codec->dim / 4) * TQ_TRELLIS_ROWS;
    for (int s = 0, n; s < steps; s += n) {
        sixteen strands[4][4]; /* lanes of a strand */
        n = bits != 3 ? 1 : steps - s < 4 ? steps - s : 4;
        for (int i = 0; i < n; i++)
            for (int lane = 0; lane < 4; lane++)
                strands[i][lane] = strand_of(chains + (size_t)lane * lane_bytes + (size_t)((s + i) * at_once) * TQ_TRELLIS_ROWS, bits, s + i);
        for (int i = 0; n == 4 && i < 3; i++) /* put_six */
            for (int lane = 0; lane < 4; lane++) strands[i][lane] |= (strands[3][lane] >> 2 * i & 3) << 6;
        for (int i = 0; i < (n == 4 ? 3 : n); i++, tile += TQ_VECTOR_BYTES) interleave(strands[i], tile);
    }
}

/* 16 rows of values, of which the first is `row` of the block. */
static void put_value_rows(const tq_codec *codec, uint8_t *block, int row, const uint8_t *chains) {
    const int bits = codec->bits, at_once = tq_weave_codes(bits), tiles = codec->dim / TQ_TILE;
    const size_t tile_bytes = tq_block_tile_bytes(codec, TQ_VALUES);
    const int n = bits == 3 ? 3 : 4; /* strands of four vectors */
    block += (size_t)(row / 16 * n * TQ_VECTOR_BYTES);
    for (int lane = 0; lane < TQ_TILE; lane++)
        for (int t = 0; t < tiles; t += at_once, chains += at_once * TQ_TRELLIS_ROWS) {
            uint32_t rows[4]; /* bytes of four rows each */
            sixteen strand = strand_of(chains, bits, t / at_once);
            memcpy(rows, &strand, sizeof rows);
            uint8_t *to = block + (size_t)t * tile_bytes + 4 * lane;
            for (int i = 0; i < n; i++, to += TQ_VECTOR_BYTES) {
                if (bits == 3) rows[i] |= (rows[3] >> 2 * i & 0x03030303) << 6; /* put_six */
                memcpy(to, &rows[i], sizeof rows[i]);
            }
        }
}

static void put_chain(const tq_codec *codec, tq_side side, uint8_t *block, int row, const uint8_t *chain, uint16_t scale) {
    int dim = codec->dim, lanes = tq_side_lanes(side);
    uint8_t codes[TQ_MAX_PLANAR_DIM];
    for (int lane = 0; lane < lanes; lane++) /* in the order of tq_chain_place */
        for (int i = lane; i < dim; i += lanes, chain += TQ_TRELLIS_ROWS) codes[i] = *chain;
    tq_block_put(codec, side, block, row, codes, scale);
}

void tq_block_put_chains(const tq_codec *codec, tq_side side, uint8_t *block, int row, int n, const uint8_t *chains,
                         const uint16_t *scales) {
    /* A last group of two strands leaves bits of its bytes as they are. */
    bool by_tiles = tq_block_is_woven(codec, side) && (side == TQ_VALUES || codec->bits != 3 || codec->dim % 32 == 0);
    size_t tile_bytes = tq_block_tile_bytes(codec, side);
    uint16_t *to = (uint16_t *)(uintptr_t)tq_block_scales(codec, side, block);
    for (int done = 0, now; done < n; done += now, row += now, chains += now, scales += now) {
        now = by_tiles && row % TQ_TILE == 0 && n - done >= TQ_TILE ? TQ_TILE : 1;
        if (now == 1) {
            put_chain(codec, side, block, row, chains, *scales);
            continue;
        }
        if (side == TQ_KEYS) put_key_tile(codec, block + (size_t)(row / TQ_TILE) * tile_bytes, chains);
        else put_value_rows(codec, block, row, chains);
        memcpy(to + row, scales, (size_t)now * sizeof *scales);
    }
}

void tq_block_store(const tq_codec *codec, tq_side side, uint8_t *block, int row, const float *x) {
    if (codec->kind == TQ_CODEC_SPLIT) {
        tq_split_encode(codec, channels_of(codec, block), x, block + (size_t)row * codec->row_bytes);
        return;
    }
    if (codec->kind != TQ_CODEC_PLANAR) {
        tq_row_encode(codec, x, block + (size_t)row * codec->row_bytes);
        return;
    }
    float y[TQ_MAX_DIM];
    uint8_t codes[TQ_MAX_DIM];
    tq_block_rotate(codec, side, block, x, y);
    uint16_t scale = tq_planar_quantize(codec, tq_side_lanes(side), y, codes);
    tq_block_put(codec, side, block, row, codes, scale);
}

void tq_block_load(const tq_codec *codec, tq_side side, const uint8_t *block, int row, float *x) {
    float y[2 * TQ_MAX_DIM];
    if (codec->kind != TQ_CODEC_PLANAR) {
        tq_row_expand(codec, block + (size_t)row * codec->row_bytes, y);
    } else {
        float scale = tq_f16_f32(tq_block_scales(codec, side, block)[row]) / 127.0f;
        size_t tile_bytes = tq_block_tile_bytes(codec, side);
        int vectors = tq_block_tile_vectors(codec, side);
        uint8_t codes[TQ_MAX_DIM];
        int8_t levels[TQ_MAX_DIM];
        for (int i = 0; codec->pairs && i < codec->dim / 2; i++) {
            spot s = find_spot(side, row, tq_pair_place(i, tq_side_lanes(side)));
            codes[i] = (uint8_t)get_pair(codec, vectors / 2, block + (size_t)s.tile * tile_bytes, pair_spot(side, s));
        }
        for (int i = 0; !codec->pairs && i < codec->dim; i++) {
            spot s = find_spot(side, row, i);
            codes[i] = (uint8_t)(tq_block_is_woven(codec, side)
                                     ? get_woven(block, woven_place(codec, side, row, i))
                                     : get_code(codec, vectors, block + (size_t)s.tile * tile_bytes, s));
        }
        tq_planar_levels(codec, tq_side_lanes(side), codes, levels);
        for (int i = 0; i < codec->dim; i++) {
            y[i] = (float)levels[i] * scale;
            if (tq_block_has_centre(codec, side)) y[i] += tq_f16_f32(tq_block_centre(codec, block)[i]);
        }
    }
    tq_block_output(codec, block, y, x);
}
