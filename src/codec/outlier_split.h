/* outlier_split.h: the paper's outlier channels: a quarter of the channels, those with the largest norms, are one vector
 * with bits + 1 bits a value, the others another with `bits`: two instances of TurboQuant_mse, each with its own rotation,
 * codebook and norm (arXiv 2504.19874, section 4.3: 32 of 128 channels).
 *
 * Which channels these are differs by layer, head and side, and a codec knows none of them: a page's block holds its own
 * mask of dim bits (page.h), chosen by its first page's rows.  A row's order is that of the mask: outliers, then the
 * rest, each by ascending channel. */
#ifndef TQ_CODEC_OUTLIER_SPLIT_H
#define TQ_CODEC_OUTLIER_SPLIT_H

#include "codec/codec.h"

static inline int tq_split_outliers(int dim) { return dim / 4; }
static inline size_t tq_split_mask_bytes(int dim) { return (size_t)(dim + 7) / 8; }

/* energy: (dim) sums of squares -> the mask of the n_outliers largest; of equals the first. */
void tq_split_choose(const double *energy, int dim, int n_outliers, uint8_t *channels);

void tq_split_encode(const tq_codec *codec, const uint8_t *channels, const float *x, uint8_t *row);
void tq_split_query(const tq_codec *codec, const uint8_t *channels, const float *q, float *prepared);
void tq_split_output(const tq_codec *codec, const uint8_t *channels, const float *acc, float *x);

#endif
