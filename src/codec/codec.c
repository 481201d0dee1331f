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

/* "name", "name:N" or "name:N:M"; every number must be there and nothing after it. */
static bool match(const char *text, const char *name, int n_numbers, int *numbers) {
    size_t length = strlen(name);
    if (strncmp(text, name, length) != 0) return false;
    text += length;
    for (int i = 0; i < n_numbers; i++) {
        if (text[0] != ':' || text[1] < '0' || text[1] > '9') return false;
        char *end;
        long value = strtol(text + 1, &end, 10);
        if (value > 1000000) return false;
        numbers[i] = (int)value;
        text = end;
    }
    return *text == 0;
}

static tq_status parse_name(const char *name, tq_codec *codec, tq_error *err) {
    int numbers[2] = {0, 32}, group = 64;
    if (match(name, "f32", 0, NULL)) codec->kind = TQ_CODEC_F32, codec->bits = 32;
    else if (match(name, "f16", 0, NULL)) codec->kind = TQ_CODEC_F16, codec->bits = 16;
    else if (match(name, "q8", 0, NULL)) codec->kind = TQ_CODEC_PLANAR, codec->bits = 8;
    else if (match(name, "tq2", 0, NULL)) codec->kind = TQ_CODEC_PLANAR, codec->bits = 2;
    else if (match(name, "tq3", 0, NULL)) codec->kind = TQ_CODEC_PLANAR, codec->bits = 3;
    else if (match(name, "tq4", 0, NULL)) codec->kind = TQ_CODEC_PLANAR, codec->bits = 4;
    else if (match(name, "paper-mse", 1, numbers)) {
        if (numbers[0] < 1 || numbers[0] > 8)
            return tq_fail(err, TQ_INVALID, "codec '%s': want 1 to 8 bits, got %d", name, numbers[0]);
        codec->kind = TQ_CODEC_MSE, codec->bits = numbers[0];
    } else if (match(name, "paper-prod", 1, numbers)) {
        if (numbers[0] < 2 || numbers[0] > 4)
            return tq_fail(err, TQ_INVALID, "codec '%s': want 2 to 4 bits, got %d", name, numbers[0]);
        codec->kind = TQ_CODEC_PROD, codec->bits = numbers[0];
    } else if (match(name, "paper-prod-orth", 1, numbers)) {
        if (numbers[0] < 2 || numbers[0] > 4)
            return tq_fail(err, TQ_INVALID, "codec '%s': want 2 to 4 bits, got %d", name, numbers[0]);
        codec->kind = TQ_CODEC_PROD, codec->bits = numbers[0], codec->orthogonal = true;
    } else if (match(name, "paper:2.5", 0, NULL)) {
        codec->kind = TQ_CODEC_SPLIT, codec->bits = 2;
    } else if (match(name, "paper:3.5", 0, NULL)) {
        codec->kind = TQ_CODEC_SPLIT, codec->bits = 3;
    } else if (match(name, "uniform", 1, numbers)) {
        if (numbers[0] < 2 || numbers[0] > 4)
            return tq_fail(err, TQ_INVALID, "codec '%s': want 2 to 4 bits, got %d", name, numbers[0]);
        codec->kind = TQ_CODEC_PLANAR, codec->bits = numbers[0], codec->uniform = true;
    } else if (match(name, "q4-group", 0, NULL) || match(name, "q4-group", 1, &group)) {
        codec->kind = TQ_CODEC_MINMAX, codec->bits = 4, codec->group = group, codec->affine = true;
    } else if (match(name, "q8-group", 0, NULL) || match(name, "q8-group", 1, &group)) {
        codec->kind = TQ_CODEC_MINMAX, codec->bits = 8, codec->group = group, codec->affine = true;
    } else if (match(name, "minmax", 1, numbers) || match(name, "minmax", 2, numbers)) {
        if (numbers[0] != 2 && numbers[0] != 4)
            return tq_fail(err, TQ_INVALID, "codec '%s': want 2 or 4 bits, got %d", name, numbers[0]);
        codec->kind = TQ_CODEC_MINMAX, codec->bits = numbers[0], codec->group = numbers[1];
    } else {
        return tq_fail(err, TQ_INVALID,
                       "unknown codec '%s': want f32, f16, q8, tq2, tq3, tq4, uniform:2..4, paper-mse:1..8, "
                       "paper-prod:2..4, paper-prod-orth:2..4, paper:2.5|3.5, minmax:2|4[:GROUP], q4-group[:GROUP] or "
                       "q8-group[:GROUP]",
                       name);
    }
    return TQ_OK;
}

/* ---- construction ------------------------------------------------------------------------------------------------ */

static tq_status check_dim(const tq_codec *codec, tq_error *err) {
    int dim = codec->dim;
    if (dim < 4 || dim > TQ_MAX_DIM || dim % 2)
        return tq_fail(err, TQ_INVALID, "codec '%s': want an even dimension from 4 to %d, got %d", codec->name,
                       TQ_MAX_DIM, dim);
    if (codec->kind == TQ_CODEC_PLANAR && (dim % 16 || dim > 512))
        return tq_fail(err, TQ_INVALID, "codec '%s': want a dimension that is a multiple of 16, up to 512, got %d",
                       codec->name, dim);
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
    return 1.7724538509055160273 * exp(lgamma((dim + 1) / 2.0) - lgamma(dim / 2.0)) / dim;
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
        codec->row_bytes = 2 + d * (size_t)bits / 8;
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
    return tq_rotation_bytes(&codec->rotation) + tq_rotation_bytes(&codec->rest_rotation) + (codec->sketch ? d * d * sizeof(float) : 0);
}

double tq_codec_payload_bits(const tq_codec *codec) {
    if (codec->kind != TQ_CODEC_SPLIT) return codec->bits;
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
    case TQ_CODEC_PLANAR: return codec->bits == 8 || codec->uniform ? -1 : codec->codebook.distortion;
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
