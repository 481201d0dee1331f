/* row_codecs.c: encoding and expanding single rows; the specification that pages and kernels are tested against. */
#include "codec/row_codecs.h"

#include <math.h>
#include <string.h>

#include "base/half.h"

static void put_u16(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }
static uint16_t get_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static void put_f32(uint8_t *p, float v) { memcpy(p, &v, sizeof v); }
static float get_f32(const uint8_t *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

static float norm_of(const float *x, int n) {
    double sum = 0; /* squares of large keys leave the range of f32 early */
    for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return (float)sqrt(sum);
}

/* The first n codes of a bit stream, eight from `bits` bytes at a time. */
static void unpack_codes(const uint8_t *stream, int bits, int n, uint8_t *codes) {
    const uint8_t *at = stream;
    unsigned mask = (1u << bits) - 1;
    int i = 0;
    for (; i + 8 <= n; i += 8, at += bits) {
        uint64_t word = 0;
        memcpy(&word, at, (size_t)bits);
        for (int k = 0; k < 8; k++) codes[i + k] = (uint8_t)(word >> (k * bits) & mask);
    }
    for (; i < n; i++) codes[i] = (uint8_t)tq_stream_get(stream, i, bits);
}

/* ---- PLANAR ------------------------------------------------------------------------------------------------------ */

/* A finite f16, or NaN for NaN and infinity: an overflowing scale saturates at 65504, which no key of a working model
 * reaches. */
static uint16_t scale_to_f16(float scale) {
    if (scale > 65504.0f && isfinite(scale)) scale = 65504.0f;
    return isfinite(scale) ? tq_f32_f16(scale) : 0x7e00;
}

static uint16_t quantize_8bit(int dim, const float *y, uint8_t *codes) {
    float top = 0;
    for (int i = 0; i < dim; i++) {
        float magnitude = fabsf(y[i]);
        if (!(magnitude <= top) && !isnan(top)) top = magnitude; /* a NaN enters and stays */
    }
    uint16_t half = scale_to_f16(top);
    /* Rounding the scale down would push the largest value past 127. */
    if (tq_f16_f32(half) < top && half < 0x7bff) half++;
    float scale = tq_f16_f32(half), inverse = scale > 0 ? 127.0f / scale : 0.0f;
    for (int i = 0; i < dim; i++) {
        float level = isfinite(y[i]) ? rintf(y[i] * inverse) : 0.0f;
        level = level > 127 ? 127 : level < -127 ? -127 : level;
        codes[i] = (uint8_t)(128 + (int)level);
    }
    return half;
}

/* Least squares: the scale that minimises |y - scale * levels / 127|^2. */
static uint16_t fit_scale(int dim, const float *y, const int8_t *levels) {
    int64_t energy = 0; /* exact: levels are integers */
    double product = 0;
    for (int i = 0; i < dim; i++) {
        energy += levels[i] * levels[i];
        product += (double)y[i] * levels[i];
    }
    return energy > 0 ? scale_to_f16((float)(product * 127.0 / (double)energy)) : 0;
}

/* The factor that gives y variance 1, or 0: then *scale says what y is, zero or not finite. */
static float unit_factor(int dim, const float *y, uint16_t *scale) {
    float norm = norm_of(y, dim);
    *scale = norm == 0 ? 0 : 0x7e00;
    return norm > 0 && isfinite(norm) ? sqrtf((float)dim) / norm : 0.0f;
}

bool tq_trellis_begin(const tq_codec *codec, int lanes, const float *y, int16_t *samples, uint16_t *scale) {
    int dim = codec->dim;
    float factor = unit_factor(dim, y, scale) * (codec->trellis->sigma * TQ_TRELLIS_UNIT);
    if (factor == 0) return false;
    for (int t = 0; t < dim; t++) samples[t] = (int16_t)rintf(y[tq_chain_place(t, dim, lanes)] * factor);
    return true;
}

uint16_t tq_trellis_end(const tq_codec *codec, int lanes, const float *y, const uint8_t *chain, uint8_t *codes) {
    int8_t levels[TQ_MAX_DIM];
    for (int t = 0; t < codec->dim; t++) codes[tq_chain_place(t, codec->dim, lanes)] = chain[t];
    tq_planar_levels(codec, lanes, codes, levels);
    return fit_scale(codec->dim, y, levels);
}

void tq_planar_levels(const tq_codec *codec, int lanes, const uint8_t *codes, int8_t *levels) {
    int dim = codec->dim;
    if (!codec->trellis) {
        for (int i = 0; i < dim; i++) levels[i] = (int8_t)((int)codec->levels[codes[i]] - 128);
        return;
    }
    uint8_t chain[TQ_MAX_DIM] = {0};
    int8_t chain_levels[TQ_MAX_DIM];
    for (int t = 0; t < dim; t++) chain[t] = codes[tq_chain_place(t, dim, lanes)];
    tq_trellis_decode(codec->trellis, chain, dim, chain_levels);
    for (int t = 0; t < dim; t++) levels[tq_chain_place(t, dim, lanes)] = chain_levels[t];
}

uint16_t tq_planar_quantize(const tq_codec *codec, int lanes, const float *y, uint8_t *codes) {
    int dim = codec->dim;
    uint16_t scale;
    memset(codes, 0, (size_t)dim);
    if (codec->trellis) {
        int16_t samples[TQ_MAX_DIM];
        uint8_t chain[TQ_MAX_DIM] = {0};
        if (!tq_trellis_begin(codec, lanes, y, samples, &scale)) return scale;
        tq_trellis_encode(codec->trellis, samples, dim, chain);
        return tq_trellis_end(codec, lanes, y, chain, codes);
    }
    if (codec->bits == 8) return quantize_8bit(dim, y, codes);
    float factor = unit_factor(dim, y, &scale);
    if (factor == 0) return scale;
    int8_t levels[TQ_MAX_DIM];
    for (int i = 0; i < dim; i++) {
        codes[i] = tq_codebook_code(&codec->codebook, y[i] * factor);
        levels[i] = (int8_t)((int)codec->levels[codes[i]] - 128);
    }
    return fit_scale(dim, y, levels);
}

static void encode_planar(const tq_codec *codec, const float *x, uint8_t *row) {
    float y[TQ_MAX_DIM];
    uint8_t codes[TQ_MAX_DIM];
    tq_rotate(&codec->rotation, x, y);
    put_u16(row, tq_planar_quantize(codec, 1, y, codes));
    uint8_t *low = row + 2, *high = low + codec->dim / 4;
    memset(low, 0, codec->row_bytes - 2);
    for (int i = 0; i < codec->dim; i++) {
        if (codec->bits != 3) {
            tq_stream_put(low, i, codec->bits, codes[i]);
        } else {
            tq_stream_put(low, i, 2, codes[i] & 3u);
            tq_stream_put(high, i, 1, codes[i] >> 2);
        }
    }
}

static void expand_planar(const tq_codec *codec, const uint8_t *row, float *y) {
    float scale = tq_f16_f32(get_u16(row)) / 127.0f;
    const uint8_t *low = row + 2, *high = low + codec->dim / 4;
    uint8_t codes[TQ_MAX_DIM];
    int8_t levels[TQ_MAX_DIM];
    for (int i = 0; i < codec->dim; i++)
        codes[i] = (uint8_t)(codec->bits != 3 ? tq_stream_get(low, i, codec->bits)
                                              : tq_stream_get(low, i, 2) | tq_stream_get(high, i, 1) << 2);
    tq_planar_levels(codec, 1, codes, levels);
    for (int i = 0; i < codec->dim; i++) y[i] = (float)levels[i] * scale;
}

/* ---- MSE and PROD (arXiv 2504.19874, Algorithms 1 and 2) ----------------------------------------------------------- */

/* Codes of x / |x| rotated, and optionally the reconstruction in the rotated basis. */
static float encode_directions(const tq_codec *codec, int bits, const float *x, uint8_t *stream, float *restored) {
    float y[TQ_MAX_DIM], norm = norm_of(x, codec->dim);
    tq_rotate(&codec->rotation, x, y);
    float unit = sqrtf((float)codec->dim), inverse = norm > 0 ? unit / norm : 0.0f;
    for (int i = 0; i < codec->dim; i++) {
        uint8_t code = tq_codebook_code(&codec->codebook, y[i] * inverse);
        tq_stream_put(stream, i, bits, code);
        if (restored) restored[i] = codec->codebook.levels[code] * (norm / unit);
    }
    return norm;
}

static void expand_directions(const tq_codec *codec, int bits, const uint8_t *stream, float norm, float *y) {
    float scale = norm / sqrtf((float)codec->dim);
    uint8_t codes[TQ_MAX_DIM];
    unpack_codes(stream, bits, codec->dim, codes);
    for (int i = 0; i < codec->dim; i++) y[i] = codec->codebook.levels[codes[i]] * scale;
}

static void encode_mse(const tq_codec *codec, const float *x, uint8_t *row) {
    memset(row, 0, codec->row_bytes);
    put_f32(row, encode_directions(codec, codec->bits, x, row + 4, NULL));
}

static void encode_prod(const tq_codec *codec, const float *x, uint8_t *row) {
    int dim = codec->dim;
    float restored[TQ_MAX_DIM], residual[TQ_MAX_DIM], sketched[TQ_MAX_DIM];
    memset(row, 0, codec->row_bytes);
    put_f32(row, encode_directions(codec, codec->bits - 1, x, row + 8, restored));
    tq_rotate_back(&codec->rotation, restored, residual);
    for (int i = 0; i < dim; i++) residual[i] = x[i] - residual[i];
    put_f32(row + 4, norm_of(residual, dim));
    tq_dense_apply(codec->sketch, dim, residual, sketched);
    uint8_t *signs = row + 8 + (dim * (codec->bits - 1) + 7) / 8;
    for (int i = 0; i < dim; i++) tq_stream_put(signs, i, 1, sketched[i] > 0);
}

static void expand_prod(const tq_codec *codec, const uint8_t *row, float *expanded) {
    int dim = codec->dim;
    expand_directions(codec, codec->bits - 1, row + 8, get_f32(row), expanded);
    /* sqrt(pi/2)/d * |residual| * sign: <S q, that> estimates <q, residual> without bias. */
    float step = 1.2533141373155003f / (float)dim * get_f32(row + 4);
    const uint8_t *signs = row + 8 + (dim * (codec->bits - 1) + 7) / 8;
    uint8_t codes[TQ_MAX_DIM];
    unpack_codes(signs, 1, dim, codes);
    for (int i = 0; i < dim; i++) expanded[dim + i] = codes[i] ? step : -step;
}

/* ---- MINMAX ------------------------------------------------------------------------------------------------------ */

static void encode_minmax(const tq_codec *codec, const float *x, uint8_t *row) {
    int dim = codec->dim, group = codec->group, top = (1 << codec->bits) - 1;
    memset(row, 0, codec->row_bytes);
    uint8_t *constants = row + dim * codec->bits / 8;
    for (int g = 0; g < dim / group; g++) {
        const float *values = x + g * group;
        float low = values[0], high = values[0], poison = 0; /* 0, or NaN if a value is not finite */
        for (int i = 0; i < group; i++) {
            poison += values[i] * 0.0f;
            if (values[i] < low) low = values[i];
            if (values[i] > high) high = values[i];
        }
        /* Codes are chosen for the constants as stored. */
        uint16_t zero_half = tq_f32_f16(low + poison), scale_half = tq_f32_f16((high - low) / (float)top);
        float zero = tq_f16_f32(zero_half), scale = tq_f16_f32(scale_half);
        for (int i = 0; i < group; i++) {
            float code = scale > 0 ? rintf((values[i] - zero) / scale) : 0.0f;
            code = code > 0 ? (code < (float)top ? code : (float)top) : 0.0f; /* NaN becomes 0; its group's zero is NaN */
            tq_stream_put(row, g * group + i, codec->bits, (unsigned)code);
        }
        put_u16(constants + 4 * g, scale_half);
        put_u16(constants + 4 * g + 2, zero_half);
    }
}

static void expand_minmax(const tq_codec *codec, const uint8_t *row, float *x) {
    const uint8_t *constants = row + codec->dim * codec->bits / 8;
    uint8_t codes[TQ_MAX_DIM];
    unpack_codes(row, codec->bits, codec->dim, codes);
    for (int g = 0; g < codec->dim / codec->group; g++) {
        float scale = tq_f16_f32(get_u16(constants + 4 * g)), zero = tq_f16_f32(get_u16(constants + 4 * g + 2));
        for (int i = g * codec->group; i < (g + 1) * codec->group; i++) x[i] = zero + scale * (float)codes[i];
    }
}

/* ---- any --------------------------------------------------------------------------------------------------------- */

void tq_row_encode(const tq_codec *codec, const float *x, uint8_t *row) {
    switch (codec->kind) {
    case TQ_CODEC_F32: memcpy(row, x, codec->row_bytes); break;
    case TQ_CODEC_F16:
        for (int i = 0; i < codec->dim; i++) put_u16(row + 2 * i, tq_f32_f16(x[i]));
        break;
    case TQ_CODEC_PLANAR: encode_planar(codec, x, row); break;
    case TQ_CODEC_MSE: encode_mse(codec, x, row); break;
    case TQ_CODEC_PROD: encode_prod(codec, x, row); break;
    case TQ_CODEC_MINMAX: encode_minmax(codec, x, row); break;
    }
}

void tq_row_expand(const tq_codec *codec, const uint8_t *row, float *expanded) {
    switch (codec->kind) {
    case TQ_CODEC_F32: memcpy(expanded, row, codec->row_bytes); break;
    case TQ_CODEC_F16:
        for (int i = 0; i < codec->dim; i++) expanded[i] = tq_f16_f32(get_u16(row + 2 * i));
        break;
    case TQ_CODEC_PLANAR: expand_planar(codec, row, expanded); break;
    case TQ_CODEC_MSE: expand_directions(codec, codec->bits, row + 4, get_f32(row), expanded); break;
    case TQ_CODEC_PROD: expand_prod(codec, row, expanded); break;
    case TQ_CODEC_MINMAX: expand_minmax(codec, row, expanded); break;
    }
}
