/* outlier_split.c: see outlier_split.h.  The row's layout: row_codecs.h. */
#include "codec/outlier_split.h"

#include <math.h>
#include <string.h>

#include "codec/row_codecs.h"

enum { NAN_F16 = 0x7e00 }; /* tq_scale_f16's */

static int is_outlier(const uint8_t *channels, int i) { return channels[i / 8] >> i % 8 & 1; }

void tq_split_choose(const double *energy, int dim, int n_outliers, uint8_t *channels) {
    memset(channels, 0, tq_split_mask_bytes(dim));
    for (int n = 0; n < n_outliers; n++) {
        int best = -1;
        for (int i = 0; i < dim; i++) { /* a NaN is larger than nothing: the first free channel stays */
            if (is_outlier(channels, i)) continue;
            if (best < 0 || energy[i] > energy[best]) best = i;
        }
        channels[best / 8] |= (uint8_t)(1 << best % 8);
    }
}

/* Where each channel stands: outliers, then the rest.  A mask from a damaged file may have any number of bits: places
 * beyond the last are the last. */
static void places(const tq_codec *codec, const uint8_t *channels, int *place) {
    int at[2] = {codec->n_outliers, 0}; /* of the rest, of the outliers */
    for (int i = 0; i < codec->dim; i++) {
        int next = at[is_outlier(channels, i)]++;
        place[i] = next < codec->dim ? next : codec->dim - 1;
    }
}

static void gather(const tq_codec *codec, const uint8_t *channels, const float *x, float *parted) {
    int place[TQ_MAX_DIM];
    places(codec, channels, place);
    for (int i = 0; i < codec->dim; i++) parted[place[i]] = x[i];
}

static void scatter(const tq_codec *codec, const uint8_t *channels, const float *parted, float *x) {
    int place[TQ_MAX_DIM];
    places(codec, channels, place);
    for (int i = 0; i < codec->dim; i++) x[i] = parted[place[i]];
}

void tq_split_encode(const tq_codec *codec, const uint8_t *channels, const float *x, uint8_t *row) {
    int n = codec->n_outliers;
    float parted[TQ_MAX_DIM] = {0};
    gather(codec, channels, x, parted);
    memset(row, 0, codec->row_bytes);
    uint8_t *stream = row + 4, *rest_stream = stream + (n * (codec->bits + 1) + 7) / 8;
    float norm = tq_directions_encode(&codec->rotation, &codec->codebook, parted, stream, NULL);
    float rest = tq_directions_encode(&codec->rest_rotation, &codec->rest_codebook, parted + n, rest_stream, NULL);
    uint16_t norms[2] = {tq_scale_f16(norm / sqrtf((float)n)), tq_scale_f16(rest / sqrtf((float)(codec->dim - n)))};
    for (int i = 0; i < 2; i++) /* a value that is not finite poisons the whole row */
        if (norms[i] == NAN_F16) norms[!i] = NAN_F16;
    memcpy(row, norms, sizeof norms);
}

void tq_split_query(const tq_codec *codec, const uint8_t *channels, const float *q, float *prepared) {
    float parted[TQ_MAX_DIM] = {0};
    gather(codec, channels, q, parted);
    tq_rotate(&codec->rotation, parted, prepared);
    tq_rotate(&codec->rest_rotation, parted + codec->n_outliers, prepared + codec->n_outliers);
}

void tq_split_output(const tq_codec *codec, const uint8_t *channels, const float *acc, float *x) {
    float parted[TQ_MAX_DIM];
    tq_rotate_back(&codec->rotation, acc, parted);
    tq_rotate_back(&codec->rest_rotation, acc + codec->n_outliers, parted + codec->n_outliers);
    scatter(codec, channels, parted, x);
}
