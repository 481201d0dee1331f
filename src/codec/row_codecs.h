/* row_codecs.h: one packed row of every codec.  These functions own the row layouts, drawn here; all scalars are
 * little-endian.
 *
 *   F32      dim f32                      F16      dim f16
 *   PLANAR   f16 scale | dim codes of `bits`, as a bit stream (2, 4, 8 bits) or, for 3 bits, a stream of the low two
 *            bits of every code and then a stream of the high bits.  Value: level(code) / 127 * scale.
 *            Of pairs: dim/2 codes of 5, 6 or 7 bits, as a bit stream; code i is that of values 2i and 2i + 1.
 *   MSE      f32 norm | bit stream of dim codes.  Value: norm / sqrt(dim) * level(code), rotated back.
 *   PROD     f32 norm | f32 residual norm | bit stream of dim (bits-1)-bit codes | dim sign bits (1 is positive)
 *   SPLIT    for the outliers, then for the rest: f16 norm / sqrt(channels) | for each a bit stream: (bits+1)-bit codes
 *            of the outliers, `bits`-bit codes of the rest.  Each part as MSE, in the order of its channels.
 *   MINMAX   bit stream of dim codes | for every group: f16 scale, f16 zero.  Value: zero + scale * code. */
#ifndef TQ_CODEC_ROW_CODECS_H
#define TQ_CODEC_ROW_CODECS_H

#include "codec/codec.h"

/* Codes of x / |x| rotated, put into a stream of zeros.  Returns |x|.  restored: the directions that the codes stand
 * for, times |x|, in the rotated basis; or NULL. */
float tq_directions_encode(const tq_rotation *rotation, const tq_codebook *codebook, const float *x, uint8_t *stream,
                           float *restored);

/* A finite f16, or NaN for NaN and infinity: what overflows saturates at 65504, which no key of a working model
 * reaches. */
uint16_t tq_scale_f16(float scale);

void tq_row_encode(const tq_codec *codec, const float *x, uint8_t *row);  /* x: (dim) */
void tq_row_expand(const tq_codec *codec, const uint8_t *row, float *expanded); /* (width) */

#endif
