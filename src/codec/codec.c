/* codec.c: names to codecs, and the public functions.
 * Not here: how a row of each kind is written and read (row_codecs.c), pages (page.c). */
#include "codec/codec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static bool is_trellis(const char *name) {
    return strcmp(name, "tcq2") == 0 || strcmp(name, "tcq3") == 0 || strcmp(name, "tcq4") == 0;
}

static tq_status parse_name(const char *name, tq_codec *codec, tq_error *err) {
    int numbers[2] = {0, 32};
    if (match(name, "f32", 0, NULL)) codec->kind = TQ_CODEC_F32, codec->bits = 32;
    else if (match(name, "f16", 0, NULL)) codec->kind = TQ_CODEC_F16, codec->bits = 16;
    else if (match(name, "q8", 0, NULL)) codec->kind = TQ_CODEC_PLANAR, codec->bits = 8;
    else if (match(name, "tq2", 0, NULL)) codec->kind = TQ_CODEC_PLANAR, codec->bits = 2;
    else if (match(name, "tq3", 0, NULL)) codec->kind = TQ_CODEC_PLANAR, codec->bits = 3;
    else if (match(name, "tq4", 0, NULL)) codec->kind = TQ_CODEC_PLANAR, codec->bits = 4;
    else if (is_trellis(name)) {
        codec->kind = TQ_CODEC_PLANAR, codec->bits = name[3] - '0';
        codec->trellis = tq_trellis_of(codec->bits);
    } else if (match(name, "paper-mse", 1, numbers)) {
        if (numbers[0] < 1 || numbers[0] > 8)
            return tq_fail(err, TQ_INVALID, "codec '%s': want 1 to 8 bits, got %d", name, numbers[0]);
        codec->kind = TQ_CODEC_MSE, codec->bits = numbers[0];
    } else if (match(name, "paper-prod", 1, numbers)) {
        if (numbers[0] < 2 || numbers[0] > 4)
            return tq_fail(err, TQ_INVALID, "codec '%s': want 2 to 4 bits, got %d", name, numbers[0]);
        codec->kind = TQ_CODEC_PROD, codec->bits = numbers[0];
    } else if (match(name, "minmax", 1, numbers) || match(name, "minmax", 2, numbers)) {
        if (numbers[0] != 2 && numbers[0] != 4)
            return tq_fail(err, TQ_INVALID, "codec '%s': want 2 or 4 bits, got %d", name, numbers[0]);
        codec->kind = TQ_CODEC_MINMAX, codec->bits = numbers[0], codec->group = numbers[1];
    } else {
        return tq_fail(err, TQ_INVALID,
                       "unknown codec '%s': want f32, f16, q8, tq2, tq3, tq4, paper-mse:1..8, paper-prod:2..4 or "
                       "minmax:2|4[:GROUP]",
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
    if (codec->kind == TQ_CODEC_PLANAR && (dim % 16 || dim > TQ_MAX_PLANAR_DIM))
        return tq_fail(err, TQ_INVALID, "codec '%s': want a dimension that is a multiple of 16, up to %d, got %d",
                       codec->name, TQ_MAX_PLANAR_DIM, dim);
    if (codec->kind == TQ_CODEC_MINMAX && (codec->group < 4 || codec->group % 4 || dim % codec->group))
        return tq_fail(err, TQ_INVALID, "codec '%s': want a group that is a multiple of 4 and divides %d, got %d",
                       codec->name, dim, codec->group);
    return TQ_OK;
}

/* Lloyd-Max levels scaled so that the outermost is 127, rounded to integers: costs at most .2 % of distortion, and the
 * row's scale is fitted to the rounded levels. */
static void fill_integer_levels(tq_codec *codec) {
    int n = 1 << codec->bits;
    for (int i = 0; i < 256; i++) {
        int code = i % n;
        float level = codec->bits == 8 ? (float)(code - 128)
                                       : codec->codebook.levels[code] / codec->codebook.levels[n - 1] * 127.0f;
        codec->levels[i] = (uint8_t)(128 + (int)lrintf(level));
    }
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
        if (!codec->trellis && bits < 8) TQ_TRY(tq_codebook_make(dim, bits, &codec->codebook, err));
        if (!codec->trellis) fill_integer_levels(codec);
        return tq_rotation_hadamard(dim, seed, &codec->rotation, err);
    case TQ_CODEC_MSE:
        codec->row_bytes = 4 + (d * (size_t)bits + 7) / 8;
        TQ_TRY(tq_codebook_make(dim, bits, &codec->codebook, err));
        return tq_rotation_haar(dim, (uint32_t)seed, &codec->rotation, err);
    case TQ_CODEC_PROD:
        codec->row_bytes = 8 + (d * (size_t)(bits - 1) + 7) / 8 + (d + 7) / 8;
        TQ_TRY(tq_codebook_make(dim, bits - 1, &codec->codebook, err));
        TQ_TRY(tq_gaussian_matrix(dim, (uint32_t)seed + 1000, &codec->sketch, err));
        return tq_rotation_haar(dim, (uint32_t)seed, &codec->rotation, err);
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
    return tq_rotation_bytes(&codec->rotation) + (codec->sketch ? d * d * sizeof(float) : 0);
}

double tq_codec_expected_distortion(const tq_codec *codec) {
    const double half_pi = 1.57079632679489661923;
    switch (codec->kind) {
    case TQ_CODEC_PLANAR: return codec->bits == 8 || codec->trellis ? -1 : codec->codebook.distortion;
    case TQ_CODEC_MSE: return codec->codebook.distortion;
    case TQ_CODEC_PROD: return half_pi * codec->codebook.distortion;
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
    tq_rotate(&codec->rotation, q, prepared);
    if (codec->kind == TQ_CODEC_PROD) tq_dense_apply(codec->sketch, codec->dim, q, prepared + codec->dim);
}

void tq_codec_output(const tq_codec *codec, const float *acc, float *x) {
    if (codec->kind == TQ_CODEC_F32 || codec->kind == TQ_CODEC_F16 || codec->kind == TQ_CODEC_MINMAX) {
        memcpy(x, acc, (size_t)codec->dim * sizeof(float));
        return;
    }
    tq_rotate_back(&codec->rotation, acc, x);
    if (codec->kind == TQ_CODEC_PROD) {
        float sketched[TQ_MAX_DIM];
        tq_dense_apply_transposed(codec->sketch, codec->dim, acc + codec->dim, sketched);
        for (int i = 0; i < codec->dim; i++) x[i] += sketched[i];
    }
}
