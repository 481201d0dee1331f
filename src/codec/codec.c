/* codec.c: names to codecs, and the public functions.
 * Not here: how a row of each kind is written and read (row_codecs.c), pages (page.c). */
#include "codec/codec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/outlier_split.h"
#include "codec/row_codecs.h"

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* Every codec there is.  A name's numbers are its bits, where the row leaves them open (low..high), and then the size of a group, where the row has one. */
static const struct codec_family {
    const char *name;
    tq_codec_kind kind;
    int bits; /* 0: in the name */
    int low, high; /* even: no odd ones between */
    int group; /* if the name has none; 0: the family has no groups */
    bool even, trellis, pairs, uniform, orthogonal, affine;
} families[] = {
    {"f32", TQ_CODEC_F32, .bits = 32},
    {"f16", TQ_CODEC_F16, .bits = 16},
    {"q8", TQ_CODEC_PLANAR, .bits = 8},
    {"tq2", TQ_CODEC_PLANAR, .bits = 2, .trellis = true}, /* the best there is of a size: docs/quality.md */
    {"tq2.5", TQ_CODEC_PLANAR, .bits = 5, .pairs = true},
    {"tq3", TQ_CODEC_PLANAR, .bits = 3, .trellis = true},
    {"tq3.5", TQ_CODEC_PLANAR, .bits = 7, .pairs = true},
    {"tq4", TQ_CODEC_PLANAR, .bits = 4, .trellis = true},
    {"lm2", TQ_CODEC_PLANAR, .bits = 2},
    {"lm3", TQ_CODEC_PLANAR, .bits = 3},
    {"lm4", TQ_CODEC_PLANAR, .bits = 4},
    {"tcq2", TQ_CODEC_PLANAR, .bits = 2, .trellis = true},
    {"tcq3", TQ_CODEC_PLANAR, .bits = 3, .trellis = true},
    {"tcq4", TQ_CODEC_PLANAR, .bits = 4, .trellis = true},
    {"vq2.5", TQ_CODEC_PLANAR, .bits = 5, .pairs = true},
    {"vq3.5", TQ_CODEC_PLANAR, .bits = 7, .pairs = true},
    {"vq3", TQ_CODEC_PLANAR, .bits = 6, .pairs = true},
    {"uniform", TQ_CODEC_PLANAR, .low = 2, .high = 4, .uniform = true},
    {"paper-mse", TQ_CODEC_MSE, .low = 1, .high = 8},
    {"paper-prod", TQ_CODEC_PROD, .low = 2, .high = 4},
    {"paper-prod-orth", TQ_CODEC_PROD, .low = 2, .high = 4, .orthogonal = true},
    {"paper:2.5", TQ_CODEC_SPLIT, .bits = 2},
    {"paper:3.5", TQ_CODEC_SPLIT, .bits = 3},
    {"minmax", TQ_CODEC_MINMAX, .low = 2, .high = 4, .even = true, .group = 32},
    {"q4-group", TQ_CODEC_MINMAX, .bits = 4, .group = 64, .affine = true},
    {"q8-group", TQ_CODEC_MINMAX, .bits = 8, .group = 64, .affine = true},
};

/* The same for people. */
const char tq_codec_names[] = "f32, f16, q8, tq2, tq2.5, tq3, tq3.5, tq4, lm2, lm3, lm4, tcq2, tcq3, tcq4, vq2.5, vq3, vq3.5, uniform:2..4, "
                              "paper-mse:1..8, paper-prod:2..4, paper-prod-orth:2..4, paper:2.5|3.5, minmax:2|4[:GROUP], q4-group[:GROUP], q8-group[:GROUP]";

/* ":N" where `text` begins; behind it, or NULL. */
static const char *read_number(const char *text, int *number) {
    if (text[0] != ':' || text[1] < '0' || text[1] > '9') return NULL;
    char *end;
    long value = strtol(text + 1, &end, 10);
    *number = (int)value;
    return value <= 1000000 ? end : NULL;
}

/* The family of a name whose numbers are all there, and nothing behind them; or NULL.  numbers: bits and group. */
static const struct codec_family *family_of(const char *name, int numbers[2]) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const struct codec_family *f = &families[i];
        if (strncmp(name, f->name, strlen(f->name)) != 0) continue;
        const char *at = name + strlen(f->name);
        numbers[0] = f->bits, numbers[1] = f->group;
        if (!f->bits) at = read_number(at, &numbers[0]);
        if (at && *at && f->group) at = read_number(at, &numbers[1]);
        if (at && !*at) return f;
    }
    return NULL;
}

bool tq_codec_is_known(const char *name) {
    int numbers[2];
    return family_of(name, numbers) != NULL;
}

static tq_status parse_name(const char *name, tq_codec *codec, tq_error *err) {
    int numbers[2];
    const struct codec_family *f = family_of(name, numbers);
    if (!f) return tq_fail(err, TQ_INVALID, "unknown codec '%s': want %s", name, tq_codec_names);
    if (!f->bits && (numbers[0] < f->low || numbers[0] > f->high || (f->even && numbers[0] % 2)))
        return tq_fail(err, TQ_INVALID, "codec '%s': want %d %s %d bits, got %d", name, f->low, f->even ? "or" : "to",
                       f->high, numbers[0]);
    codec->kind = f->kind, codec->bits = numbers[0], codec->group = numbers[1];
    codec->uniform = f->uniform, codec->orthogonal = f->orthogonal, codec->affine = f->affine;
    if (f->trellis) {
        codec->trellis = tq_trellis_of(codec->bits);
        tq_trellis_weave_make(codec->trellis, &codec->weave);
    }
    if (f->pairs) codec->pairs = tq_pair_codebook_of(codec->bits);
    return TQ_OK;
}

/* ---- construction ------------------------------------------------------------------------------------------------ */

static tq_status check_dim(const tq_codec *codec, tq_error *err) {
    int dim = codec->dim;
    if (dim < 4 || dim > TQ_MAX_DIM || dim % 2)
        return tq_fail(err, TQ_INVALID, "codec '%s': want an even dimension from 4 to %d, got %d", codec->name,
                       TQ_MAX_DIM, dim);
    if (codec->kind == TQ_CODEC_PLANAR && (dim % 16 || dim > TQ_MAX_PLANAR_DIM))
        return tq_fail(err, TQ_INVALID, "codec '%s': want a dimension that is a multiple of 16, up to %d, got %d",
                       codec->name, TQ_MAX_PLANAR_DIM, dim);
    if (codec->kind == TQ_CODEC_SPLIT && (dim % 4 || dim < 16))
        return tq_fail(err, TQ_INVALID, "codec '%s': want a dimension that is a multiple of 4, from 16, got %d",
                       codec->name, dim);
    if (codec->kind == TQ_CODEC_MINMAX && (codec->group < 4 || codec->group % 4 || dim % codec->group))
        return tq_fail(err, TQ_INVALID, "codec '%s': want a group that is a multiple of 4 and divides %d, got %d",
                       codec->name, dim, codec->group);
    return TQ_OK;
}

/* Lloyd-Max levels scaled so that the outermost is 127, rounded to integers: costs at most .2 % of distortion, and the
 * row's scale is fitted to the rounded levels. */
static void fill_integer_levels(tq_codec *codec) {
    int n = 1 << codec->bits;
    for (int i = 0; i < 256 && codec->uniform; i++) /* odd multiples of the largest step that stays below 127 */
        codec->levels[i] = (uint8_t)(128 + 127 / (n - 1) * (2 * (i % n) - (n - 1)));
    for (int i = 0; i < 256 && !codec->uniform; i++) {
        int code = i % n;
        float level = codec->bits == 8 ? (float)(code - 128)
                                       : codec->codebook.levels[code] / codec->codebook.levels[n - 1] * 127.0f;
        codec->levels[i] = (uint8_t)(128 + (int)lrintf(level));
    }
}

/* 1 / (d * E|u|) for a coordinate u of a uniformly random unit vector: what a sign of an orthogonal sketch is worth, so
 * that the sum of the signs' rows has the residual's own length along it.  E|u| = G(d/2) / (sqrt(pi) G((d+1)/2)). */
static double orthogonal_step(int dim) {
    return 1.7724538509055160273 * exp(tq_log_gamma((dim + 1) / 2.0) - tq_log_gamma(dim / 2.0)) / dim;
}

static tq_status make_sketch(tq_codec *codec, uint32_t seed, tq_error *err) {
    if (!codec->orthogonal) {
        codec->sketch_step = 1.2533141373155003f / (float)codec->dim; /* sqrt(pi/2) / d */
        return tq_gaussian_matrix(codec->dim, seed, &codec->sketch, err);
    }
    tq_rotation haar;
    TQ_TRY(tq_rotation_haar(codec->dim, seed, &haar, err));
    codec->sketch = haar.matrix;
    codec->sketch_step = (float)orthogonal_step(codec->dim);
    return TQ_OK;
}

/* The rest's rotation has a stream of its own: no two matrices of a model are made from the same numbers. */
static tq_status build_split(tq_codec *codec, uint32_t seed, tq_error *err) {
    int dim = codec->dim, bits = codec->bits, n = codec->n_outliers = tq_split_outliers(dim);
    codec->row_bytes = 4 + (size_t)((n * (bits + 1) + 7) / 8 + ((dim - n) * bits + 7) / 8);
    for (int i = 0; i < n; i++) codec->channels[i / 8] |= (uint8_t)(1 << i % 8);
    TQ_TRY(tq_codebook_make(n, bits + 1, &codec->codebook, err));
    TQ_TRY(tq_codebook_make(dim - n, bits, &codec->rest_codebook, err));
    TQ_TRY(tq_rotation_haar(n, seed, &codec->rotation, err));
    return tq_rotation_haar(dim - n, seed + 2000000, &codec->rest_rotation, err);
}

static tq_status build(tq_codec *codec, uint64_t seed, tq_error *err) {
    int dim = codec->dim, bits = codec->bits;
    size_t d = (size_t)dim;
    codec->width = codec->kind == TQ_CODEC_PROD ? 2 * dim : dim;
    switch (codec->kind) {
    case TQ_CODEC_F32: codec->row_bytes = 4 * d; break;
    case TQ_CODEC_F16: codec->row_bytes = 2 * d; break;
    case TQ_CODEC_PLANAR:
        codec->row_bytes = 2 + ((size_t)tq_codec_codes(codec) * (size_t)bits + 7) / 8;
        if (codec->trellis || codec->pairs) return tq_rotation_hadamard(dim, seed, &codec->rotation, err);
        if (bits < 8 && !codec->uniform) TQ_TRY(tq_codebook_make(dim, bits, &codec->codebook, err));
        fill_integer_levels(codec);
        return tq_rotation_hadamard(dim, seed, &codec->rotation, err);
    case TQ_CODEC_MSE:
        codec->row_bytes = 4 + (d * (size_t)bits + 7) / 8;
        TQ_TRY(tq_codebook_make(dim, bits, &codec->codebook, err));
        return tq_rotation_haar(dim, (uint32_t)seed, &codec->rotation, err);
    case TQ_CODEC_PROD:
        codec->row_bytes = 8 + (d * (size_t)(bits - 1) + 7) / 8 + (d + 7) / 8;
        TQ_TRY(tq_codebook_make(dim, bits - 1, &codec->codebook, err));
        TQ_TRY(make_sketch(codec, (uint32_t)seed + 1000, err));
        return tq_rotation_haar(dim, (uint32_t)seed, &codec->rotation, err);
    case TQ_CODEC_SPLIT: return build_split(codec, (uint32_t)seed, err);
    case TQ_CODEC_MINMAX: codec->row_bytes = d * (size_t)bits / 8 + d / (size_t)codec->group * 4; break;
    }
    return TQ_OK;
}

tq_status tq_codec_new(const char *name, int dim, uint64_t seed, tq_codec **out, tq_error *err) {
    if (!name || strlen(name) >= sizeof(((tq_codec *)0)->name))
        return tq_fail(err, TQ_INVALID, "unknown codec '%.40s'", name ? name : "(null)");
    tq_codec *codec = calloc(1, sizeof *codec);
    if (!codec) return tq_fail_memory(err, sizeof *codec, "a codec");
    codec->dim = dim;
    strcpy(codec->name, name);
    tq_status status = parse_name(name, codec, err);
    if (status == TQ_OK) status = check_dim(codec, err);
    if (status == TQ_OK) status = build(codec, seed, err);
    if (status != TQ_OK) {
        tq_codec_free(codec);
        return status;
    }
    *out = codec;
    return TQ_OK;
}

void tq_codec_free(tq_codec *codec) {
    if (!codec) return;
    tq_rotation_free(&codec->rotation);
    tq_rotation_free(&codec->rest_rotation);
    free(codec->sketch);
    free(codec);
}

/* ---- facts ------------------------------------------------------------------------------------------------------- */

const char *tq_codec_name(const tq_codec *codec) { return codec->name; }
int tq_codec_dim(const tq_codec *codec) { return codec->dim; }
size_t tq_codec_row_bytes(const tq_codec *codec) { return codec->row_bytes; }
int tq_codec_query_width(const tq_codec *codec) { return codec->width; }
bool tq_codec_is_exact(const tq_codec *codec) { return codec->kind == TQ_CODEC_F32 || codec->kind == TQ_CODEC_F16; }

size_t tq_codec_table_bytes(const tq_codec *codec) {
    size_t d = (size_t)codec->dim;
    return tq_rotation_bytes(&codec->rotation) + tq_rotation_bytes(&codec->rest_rotation) +
           (codec->sketch ? d * d * sizeof(float) : 0);
}

double tq_codec_payload_bits(const tq_codec *codec) {
    if (codec->kind != TQ_CODEC_SPLIT) return codec->pairs ? codec->bits / 2.0 : codec->bits;
    return codec->bits + (double)codec->n_outliers / codec->dim;
}

tq_status tq_codec_choose_outliers(tq_codec *codec, const float *x, int n, tq_error *err) {
    if (codec->kind != TQ_CODEC_SPLIT)
        return tq_fail(err, TQ_INVALID, "codec '%s' has no outlier channels: want paper:2.5 or paper:3.5", codec->name);
    if (n < 1) return tq_fail(err, TQ_INVALID, "outlier channels: want 1 or more vectors to choose from, got %d", n);
    double energy[TQ_MAX_DIM] = {0};
    for (int r = 0; r < n; r++)
        for (int i = 0; i < codec->dim; i++) {
            double value = x[(size_t)r * (size_t)codec->dim + (size_t)i];
            energy[i] += value * value;
        }
    tq_split_choose(energy, codec->dim, codec->n_outliers, codec->channels);
    return TQ_OK;
}

double tq_codec_expected_distortion(const tq_codec *codec) {
    const double half_pi = 1.57079632679489661923;
    switch (codec->kind) {
    case TQ_CODEC_PLANAR: return codec->bits == 8 || codec->trellis || codec->pairs || codec->uniform ? -1 : codec->codebook.distortion;
    case TQ_CODEC_MSE: return codec->codebook.distortion;
    case TQ_CODEC_PROD:
        if (!codec->orthogonal) return half_pi * codec->codebook.distortion;
        return (orthogonal_step(codec->dim) * orthogonal_step(codec->dim) * codec->dim - 1) * codec->codebook.distortion;
    case TQ_CODEC_SPLIT:
        return (codec->n_outliers * codec->codebook.distortion +
                (codec->dim - codec->n_outliers) * codec->rest_codebook.distortion) / codec->dim;
    case TQ_CODEC_F32:
    case TQ_CODEC_F16:
    case TQ_CODEC_MINMAX: break;
    }
    return -1;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

void tq_codec_encode(const tq_codec *codec, const float *x, int n, uint8_t *rows) {
    for (int i = 0; i < n; i++)
        tq_row_encode(codec, x + (size_t)i * (size_t)codec->dim, rows + (size_t)i * codec->row_bytes);
}

void tq_codec_expand(const tq_codec *codec, const uint8_t *rows, int n, float *expanded) {
    for (int i = 0; i < n; i++)
        tq_row_expand(codec, rows + (size_t)i * codec->row_bytes, expanded + (size_t)i * (size_t)codec->width);
}

void tq_codec_decode(const tq_codec *codec, const uint8_t *rows, int n, float *x) {
    float expanded[2 * TQ_MAX_DIM];
    for (int i = 0; i < n; i++) {
        tq_row_expand(codec, rows + (size_t)i * codec->row_bytes, expanded);
        tq_codec_output(codec, expanded, x + (size_t)i * (size_t)codec->dim);
    }
}

void tq_codec_score(const tq_codec *codec, const float *prepared, const uint8_t *rows, int n, float *scores) {
    float expanded[2 * TQ_MAX_DIM]; /* one row in the codec's basis, in L1; the row is never rotated back */
    for (int i = 0; i < n; i++) {
        tq_row_expand(codec, rows + (size_t)i * codec->row_bytes, expanded);
        float s[4] = {0};
        int j = 0;
        for (; j + 4 <= codec->width; j += 4)
            for (int l = 0; l < 4; l++) s[l] += prepared[j + l] * expanded[j + l];
        for (; j < codec->width; j++) s[0] += prepared[j] * expanded[j];
        scores[i] = (s[0] + s[1]) + (s[2] + s[3]);
    }
}

void tq_codec_query(const tq_codec *codec, const float *q, float *prepared) {
    if (codec->kind == TQ_CODEC_F32 || codec->kind == TQ_CODEC_F16 || codec->kind == TQ_CODEC_MINMAX) {
        memcpy(prepared, q, (size_t)codec->dim * sizeof(float));
        return;
    }
    if (codec->kind == TQ_CODEC_SPLIT) {
        tq_split_query(codec, codec->channels, q, prepared);
        return;
    }
    tq_rotate(&codec->rotation, q, prepared);
    if (codec->kind == TQ_CODEC_PROD) tq_dense_apply(codec->sketch, codec->dim, q, prepared + codec->dim);
}

void tq_codec_output(const tq_codec *codec, const float *acc, float *x) {
    if (codec->kind == TQ_CODEC_F32 || codec->kind == TQ_CODEC_F16 || codec->kind == TQ_CODEC_MINMAX) {
        memcpy(x, acc, (size_t)codec->dim * sizeof(float));
        return;
    }
    if (codec->kind == TQ_CODEC_SPLIT) {
        tq_split_output(codec, codec->channels, acc, x);
        return;
    }
    tq_rotate_back(&codec->rotation, acc, x);
    if (codec->kind == TQ_CODEC_PROD) {
        float sketched[TQ_MAX_DIM];
        tq_dense_apply_transposed(codec->sketch, codec->dim, acc + codec->dim, sketched);
        for (int i = 0; i < codec->dim; i++) x[i] += sketched[i];
    }
}
