/* page.h: TQ_PAGE_TOKENS keys and values of one layer and KV head, packed in the order the kernels read.
 *
 * A page is a key block and then a value block, each laid out by its codec.
 *
 * Row codecs:      128 rows as in row_codecs.h, one after the other.  SPLIT: and a mask of dim bits, the page's outlier
 *                  channels; all pages of a sequence's layer, head and side have the same.
 * PLANAR codecs:   tiles | 128 f16 scales | keys, if the codec is not bare: dim f16 centre (rotated basis)
 *                  key = centre + levels*scale/127
 *
 *   A vector is 64 codes.  Keys: 16 tokens x 4 dims, code of (token t, dim i) at place 4*(t%16) + i%4.
 *                          Values: 16 dims x 4 tokens, code of (token t, dim i) at place 4*(i%16) + t%4.
 *   So the same integer kernel takes 4 dims of a query against 16 keys, and 4 weights against 16 dims of values.
 *   A tile is a run of vectors.  Keys: 8 tiles of 16 tokens, dim/4 vectors each (dims 0-3, 4-7, ...).
 *                                Values: dim/16 tiles of 16 dims, 32 vectors each (tokens 0-3, 4-7, ...).
 *   Bytes of a tile, by groups of 8 vectors (a last group may have 4):
 *     8 bits: vector after vector, a byte a code.
 *     4 bits: vectors 2j and 2j+1 share 64 bytes: low and high nibble.
 *     2 bits: vectors 4j..4j+3 share 64 bytes: bits 0-1, 2-3, 4-5, 6-7.
 *     3 bits: a group is 64 bytes for the low two bits of vectors 0-3, 64 for those of 4-7 (absent in a group of 4),
 *             and 64 whose bit v is the high bit of vector v: 192 bytes for 512 codes.
 *
 *   Pairs have a code for two coordinates of a token, whose levels stand in two places.  A vector of 64 codes fills two
 *   vectors.  Keys: code of (token t, dims i and i + 4, i % 8 < 4) is number i/8 of the tile, place 4*(t%16) + i%4.
 *           Values: code of (token t, dims i and i + 8, i % 16 < 8) is number t/8, place 32*(t%8/4) + 4*(i%8) + t%4.
 *   Bytes of a tile of n vectors of codes: n/2 times 64 for the low four bits (vectors 2j, 2j+1); for 6 and 7 bits, n/4
 *   times 64 (rounded up) for two bits more (vectors 4j..4j+3); for 5 and 7 bits, n/8 times 64 (rounded up) for the
 *   highest bit (vectors 8j..8j+7).
 *
 *   Trellis codes stand in the same places of as many bytes, but not in the same bits of them (trellis_weave.h).  Keys: a
 *   tile's vectors share strands of 64 bytes, two to a strand at 3 and 4 bits, four at 2.  Values: two tiles share a strand
 *   for each vector, or four tiles; where their number is not a multiple of that, values' bits are as above.
 *   A row's trellis runs so that a sample follows the one at the same place of the vector (keys) or of the tile (values)
 *   before; after the last vector the chain of keys goes on at the next byte of a lane, and after the last tile that of
 *   values at the next lane: sample t is coordinate
 *     keys: 4 * (t % (dim/4)) + t / (dim/4)       values: 16 * (t % (dim/16)) + t / (dim/16)
 *   So all 16 rows of a tile of keys, or all 128 of a tile of values, are decoded at once.
 *
 * Version 3 of this layout; a snapshot names it. */
#ifndef TQ_CODEC_PAGE_H
#define TQ_CODEC_PAGE_H

#include <turboquant/tq_cache.h>

#include "codec/codec.h"

enum { TQ_PAGE_LAYOUT_VERSION = 3, TQ_TILE = 16, TQ_VECTOR_BYTES = 64 };

typedef enum tq_side { TQ_KEYS, TQ_VALUES } tq_side;

/* The order of a trellis in a block (tq_chain_place). */
static inline int tq_side_lanes(tq_side side) { return side == TQ_KEYS ? 4 : TQ_TILE; }

/* Are the bits of a trellis' codes those of trellis_weave.h? */
bool tq_block_is_woven(const tq_codec *codec, tq_side side);
static inline bool tq_values_are_woven(int bits, int n_tiles) { return n_tiles % tq_weave_codes(bits) == 0; }

size_t tq_block_bytes(const tq_codec *codec, tq_side side);

/* PLANAR: number of tiles, vectors of a tile, bytes of a tile; then where scales and centre stand in the block. */
int tq_block_tiles(const tq_codec *codec, tq_side side);
int tq_block_tile_vectors(const tq_codec *codec, tq_side side);
size_t tq_block_tile_bytes(const tq_codec *codec, tq_side side);
const uint16_t *tq_block_scales(const tq_codec *codec, tq_side side, const uint8_t *block);
const uint16_t *tq_block_centre(const tq_codec *codec, const uint8_t *block); /* zeros where the block has none */

/* PLANAR keys: give the block its centre, the rotated `mean` (dim), before its first row is stored. */
void tq_block_set_centre(const tq_codec *codec, uint8_t *block, const float *mean);
bool tq_block_has_centre(const tq_codec *codec, tq_side side);

/* SPLIT: the block's mask of outlier channels, set before its first row is stored. */
uint8_t *tq_block_channels(const tq_codec *codec, uint8_t *block);
bool tq_block_has_channels(const tq_codec *codec);

/* A query into the block's basis (width), and sums of its expanded rows back (dim): as tq_codec_query and
 * tq_codec_output but for SPLIT, whose basis depends on the mask. */
void tq_block_query(const tq_codec *codec, const uint8_t *block, const float *q, float *prepared);
void tq_block_output(const tq_codec *codec, const uint8_t *block, const float *acc, float *x);

/* Pack x (dim) as row 0..TQ_PAGE_TOKENS-1 of a block, over whatever was there. */
void tq_block_store(const tq_codec *codec, tq_side side, uint8_t *block, int row, const float *x);

/* PLANAR: the same in steps.  x -> y, what the block stores of it (rotated; keys less their centre); then the row's codes
 * (by coordinate) and scale. */
void tq_block_rotate(const tq_codec *codec, tq_side side, const uint8_t *block, const float *x, float *y);
void tq_block_put(const tq_codec *codec, tq_side side, uint8_t *block, int row, const uint8_t *codes, uint16_t scale);

/* tq_block_put of n <= TQ_TRELLIS_ROWS rows from `row` on, whose codes stand as trellises are encoded: (dim, TQ_TRELLIS_ROWS),
 * in the order of tq_chain_place.  Trellises only. */
void tq_block_put_chains(const tq_codec *codec, tq_side side, uint8_t *block, int row, int n, const uint8_t *chains,
                         const uint16_t *scales);

/* The row as the codes say, in the original basis: for tests and tools; attention never calls it. */
void tq_block_load(const tq_codec *codec, tq_side side, const uint8_t *block, int row, float *x);

#endif
