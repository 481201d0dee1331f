/* codec.h: what is inside a tq_codec.  The public face is turboquant/tq_codec.h. */
#ifndef TQ_CODEC_CODEC_H
#define TQ_CODEC_CODEC_H

#include <stdbool.h>
#include <turboquant/tq_codec.h>

#include "base/status.h"
#include "codec/codebook.h"
#include "codec/pair_codebook.h"
#include "codec/rotation.h"
#include "codec/trellis.h"
#include "codec/trellis_weave.h"

typedef enum tq_codec_kind {
    TQ_CODEC_F32,
    TQ_CODEC_F16,
    TQ_CODEC_PLANAR, /* q8 lm2..4 tcq2..4 vq2.5..3.5 uniform: integer levels, attended to with integer arithmetic */
    TQ_CODEC_MSE,    /* paper-mse */
    TQ_CODEC_PROD,   /* paper-prod, paper-prod-orth */
    TQ_CODEC_SPLIT,  /* paper:2.5, paper:3.5: outlier channels apart (outlier_split.h) */
    TQ_CODEC_MINMAX, /* minmax, q4-group, q8-group */
} tq_codec_kind;

enum { TQ_MAX_DIM = 1024, TQ_MAX_PLANAR_DIM = 512 };

/* Everything but PLANAR is a row codec: a packed row expands to `width` floats in the codec's own basis, where
 *     <q, decode(row)> = <query(q), expand(row)>   and   decode(row) = output(expand(row)),
 * query and output linear.  PLANAR codecs have the same functions for single rows, and their own page layout
 * (codec/page.h). */
struct tq_codec {
    char name[32];
    tq_codec_kind kind;
    int dim, width;
    int bits, group;         /* bits: of a code, which pairs have one for two values */
    size_t row_bytes;
    tq_rotation rotation;    /* PLANAR: Hadamard; MSE, PROD, SPLIT (of the outliers): Haar; else empty */
    float *sketch;           /* PROD: (dim, dim) */
    float sketch_step;       /* PROD: what a sign is worth, by the residual's norm */
    bool orthogonal;         /* PROD: the sketch is a Haar matrix, not a Gaussian one */
    bool uniform;            /* PLANAR: evenly spaced levels, the row's step searched */
    bool bare;               /* PLANAR: pages of keys have no centre; rows alone never do */
    bool affine;             /* MINMAX: groups as MLX quantizes them: zero is a level */
    const tq_trellis *trellis; /* tcq2 tcq3 tcq4, else NULL */
    tq_trellis_weave weave;    /* of the trellis */
    const tq_pair_codebook *pairs; /* vq2.5 vq3 vq3.5, else NULL */
    tq_codebook codebook;    /* lm2 lm3 lm4, MSE, PROD (bits - 1), SPLIT (of the outliers: bits + 1) */
    int n_outliers;          /* SPLIT: channels that get one bit more */
    tq_rotation rest_rotation; /* SPLIT: of the other channels, as is the codebook */
    tq_codebook rest_codebook;
    uint8_t channels[TQ_MAX_DIM / 8]; /* SPLIT: bit i is set where channel i is an outlier; pages have their own */
    uint8_t levels[256];     /* PLANAR without trellis: code -> level + 128, level in -127..127, repeated to fill the table */
};

/* Codes of a packed row that share constants: value i = offset + scale * levels[code i], code i at bits i*bits.. of
 * stream.  A row of MSE, PROD, SPLIT and MINMAX is one run or several, in the order of the expanded row. */
typedef struct tq_code_run {
    const uint8_t *stream;
    const float *levels; /* 2^bits, of a table of 16 floats or more */
    int bits, n;
    float scale, offset;
} tq_code_run;

enum { TQ_MAX_RUNS = TQ_MAX_DIM / 4 };

/* runs: (TQ_MAX_RUNS).  How many there are; 0 for F32, F16 and PLANAR. */
int tq_row_runs(const tq_codec *codec, const uint8_t *row, tq_code_run *runs);

/* PLANAR: y already in the codec's basis (rotated, centred) -> codes (n_codes), 0..2^bits-1, and the row's scale: the value
 * of level 127, rounded to f16.  decode: level / 127 * scale.  Code i is coordinate i's, or of pairs, that of coordinates
 * tq_pair_place(i, lanes) and tq_pair_step(lanes) after.
 *
 * `lanes` divides dim and is the order of a trellis: its sample t is coordinate tq_chain_place(t, dim, lanes).  Rows have
 * 1; pages have what lets a register of codes follow another (codec/page.h). */
uint16_t tq_planar_quantize(const tq_codec *codec, int lanes, const float *y, uint8_t *codes);

/* The inverse, without the scale: codes -> levels, -127..127. */
void tq_planar_levels(const tq_codec *codec, int lanes, const uint8_t *codes, int8_t *levels);

/* Codes of a row: one a coordinate, or one a pair. */
static inline int tq_codec_codes(const tq_codec *codec) { return codec->pairs ? codec->dim / 2 : codec->dim; }

/* Pairs of neighbours (rows), 4 apart (keys: the same place of the next vector) or 8 (values: of the tile's other half). */
static inline int tq_pair_step(int lanes) { return lanes == 16 ? 8 : lanes; }
static inline int tq_pair_place(int i, int lanes) {
    int step = tq_pair_step(lanes);
    return i / step * 2 * step + i % step;
}

static inline int tq_chain_place(int t, int dim, int lanes) { return lanes * (t % (dim / lanes)) + t / (dim / lanes); }

/* tq_planar_quantize in two halves, for those who encode many rows at once.  begin: y -> the trellis' samples, in chain
 * order, `stride` apart.  Returns their unit's inverse; 0 if there is nothing to choose: *scale is final and every code 0.
 * scale: from tq_trellis_sums of the codes found. */
float tq_trellis_begin(const tq_codec *codec, int lanes, const float *y, int16_t *samples, int stride, uint16_t *scale);
float tq_trellis_factor(const tq_codec *codec, double energy, uint16_t *scale); /* the inverse, of |y|^2 */
uint16_t tq_trellis_scale(float inverse_unit, int32_t product, int32_t energy);

/* All names, for messages; and whether one is among them, its numbers aside. */
extern const char tq_codec_names[];
bool tq_codec_is_known(const char *name);

/* Row codecs: rows -> (n, width). */
void tq_codec_expand(const tq_codec *codec, const uint8_t *rows, int n, float *expanded);

/* Back from the codec's basis: acc (width) -> x (dim).  Linear. */
void tq_codec_output(const tq_codec *codec, const float *acc, float *x);

/* Bytes of tables (rotation, sketch). */
size_t tq_codec_table_bytes(const tq_codec *codec);

/* True for f32 and f16: nothing is compressed. */
bool tq_codec_is_exact(const tq_codec *codec);

/* Bits k*bits.. of a little-endian bit stream, bits 1..8. */
static inline unsigned tq_stream_get(const uint8_t *stream, int k, int bits) {
    unsigned at = (unsigned)k * (unsigned)bits, byte = at / 8, shift = at % 8;
    unsigned word = stream[byte];
    if (shift + (unsigned)bits > 8) word |= (unsigned)stream[byte + 1] << 8;
    return word >> shift & ((1u << bits) - 1);
}

/* The stream's bits must be zero before. */
static inline void tq_stream_put(uint8_t *stream, int k, int bits, unsigned code) {
    unsigned at = (unsigned)k * (unsigned)bits, byte = at / 8, shift = at % 8;
    stream[byte] |= (uint8_t)(code << shift);
    if (shift + (unsigned)bits > 8) stream[byte + 1] |= (uint8_t)(code >> (8 - shift));
}

#endif
