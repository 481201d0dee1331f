/* tq_codec.h: the vector quantizer alone.  No model, no files, no threads.
 *
 *     tq_codec *c;
 *     tq_codec_new("tq3", 128, 0, &c, &err);                  // 128 floats -> 50 bytes
 *     uint8_t *rows = malloc(n * tq_codec_row_bytes(c));
 *     tq_codec_encode(c, x, n, rows);                         // x: (n, 128)
 *     tq_codec_query(c, q, prepared);                         // once a query: rotate it
 *     tq_codec_score(c, prepared, rows, n, scores);           // <q, x_i> from the packed rows
 *     tq_codec_free(c);
 *
 * Codecs (bits a value are codes only; tq_codec_row_bytes counts everything):
 *
 *   f32, f16           stored as they are
 *   q8                 randomized Hadamard rotation, int8, one f16 scale a row
 *   tq2, tq2.5, tq3, tq3.5, tq4   the best there is of a size (docs/quality.md): tcq2, vq2.5, tcq3, vq3.5, tcq4
 *   lm2, lm3, lm4      randomized Hadamard rotation, 2/3/4-bit Lloyd-Max codes of the Beta density of a rotated
 *                      coordinate, one least-squares f16 scale a row
 *   tcq2, tcq3, tcq4   the same rotation and scale with trellis codes of as many bits (src/codec/trellis.h): a level depends
 *                      on the codes before it too, for a third to two fifths less error; encoding costs many times more
 *   vq2.5, vq3, vq3.5  the same with a codebook of the plane: one code of 5, 6 or 7 bits for two values
 *   uniform:B          randomized Hadamard rotation, B = 2..4 bits, evenly spaced levels with a step searched a row
 *   paper-mse:B        TurboQuant_mse (arXiv 2504.19874, Algorithm 1), B = 1..8: Haar rotation, float norm
 *   paper-prod:B       TurboQuant_prod (Algorithm 2), B = 2..4: B-1 bits, the sign of a Gaussian sketch of the
 *                      residual, and the residual's norm; inner products are unbiased
 *   paper-prod-orth:B  the same with an orthogonal (Haar) sketch: .36 of the variance
 *   paper:2.5          TurboQuant's outlier split: a quarter of the channels at 3 bits, the rest at 2, each part
 *                      TurboQuant_mse with its own rotation and f16 norm: 2.25 bits of codes, 2.5 with the norms at
 *                      dimension 128
 *   paper:3.5          likewise 4 and 3 bits: 3.25 and 3.5
 *   minmax:B[:G]       min-max integers of B = 2 or 4 bits in groups of G values (default 32), no rotation
 *   q4-group[:G]       MLX's affine quantization, as MLX-LM's quantized cache has it: 4-bit integers in groups of G
 *                      (default 64) with f16 scale and zero, no rotation; q8-group likewise at 8 bits
 *
 * A codec is read-only once made (and its outliers chosen): any number of threads may use one.  Vectors are float32; NaN
 * and infinity come back as NaN. */
#ifndef TQ_CODEC_H
#define TQ_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "tq_status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tq_codec tq_codec;

/* Make the codec `name` for vectors of `dim` values (4..1024, even; q8, tq*, lm*, tcq*, vq*: a multiple of 16 up to 512).  `seed`
 * selects the rotation: the same name, dim and seed always give the same rows.  TQ_INVALID names what is wrong with the
 * name, bits or dim. */
TQ_API tq_status tq_codec_new(const char *name, int dim, uint64_t seed, tq_codec **out, tq_error *err);
TQ_API void tq_codec_free(tq_codec *codec); /* NULL is fine */

TQ_API const char *tq_codec_name(const tq_codec *codec);
TQ_API int tq_codec_dim(const tq_codec *codec);

/* Bytes of one packed row: codes, scales and norms, everything that is stored. */
TQ_API size_t tq_codec_row_bytes(const tq_codec *codec);

/* Bits of codes a value: without scales and norms (the paper's outlier splits have 2.25 and 3.25). */
TQ_API double tq_codec_payload_bits(const tq_codec *codec);

/* paper:2.5 and paper:3.5: the outliers are the channels with the largest norm over x: (n, dim).  Before the first row is
 * encoded; until then they are the first quarter.  (A cache chooses by itself, for every layer and head, from the rows
 * of the first page.)  TQ_INVALID for other codecs. */
TQ_API tq_status tq_codec_choose_outliers(tq_codec *codec, const float *x, int n, tq_error *err);

/* x: (n, dim) -> rows: n * tq_codec_row_bytes.  rows needs no alignment. */
TQ_API void tq_codec_encode(const tq_codec *codec, const float *x, int n, uint8_t *rows);

/* rows -> x: (n, dim), back in the original basis. */
TQ_API void tq_codec_decode(const tq_codec *codec, const uint8_t *rows, int n, float *x);

/* Floats of a prepared query: dim, or 2*dim where the codec stores a sketch. */
TQ_API int tq_codec_query_width(const tq_codec *codec);

/* Move a query into the codec's basis.  q: (dim) -> prepared: (tq_codec_query_width). */
TQ_API void tq_codec_query(const tq_codec *codec, const float *q, float *prepared);

/* scores[i] = <q, decode(rows[i])>, read from the packed rows without decoding them; float32 sums. */
TQ_API void tq_codec_score(const tq_codec *codec, const float *prepared, const uint8_t *rows, int n, float *scores);

/* E|x - decode(encode(x))|^2 / |x|^2 that theory gives for a random direction, or a negative number where none is
 * known (f32, f16, q8, tq, tcq, vq, uniform, minmax, q4-group).  For paper-prod and paper-prod-orth it is dim times the variance
 * of the inner product of unit vectors. */
TQ_API double tq_codec_expected_distortion(const tq_codec *codec);

#ifdef __cplusplus
}
#endif
#endif
