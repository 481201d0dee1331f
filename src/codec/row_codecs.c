/* row_codecs.c: encoding and expanding single rows; the specification that pages and kernels are tested against. */
#include "codec/row_codecs.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "codec/outlier_split.h"

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

static double energy_of(const float *x, int n) {
    double sum = 0; /* squares of large keys leave the range of f32 early */
    for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}
static float norm_of(const float *x, int n) { return (float)sqrt(energy_of(x, n)); }

/* ---- PLANAR ------------------------------------------------------------------------------------------------------ */

uint16_t tq_scale_f16(float scale) {
    if (scale > 65504.0f && isfinite(scale)) scale = 65504.0f;
    return isfinite(scale) ? tq_f32_f16(scale) : 0x7e00;
}

static uint16_t quantize_8bit(int dim, const float *y, uint8_t *codes) {
    float top = 0;
    for (int i = 0; i < dim; i++) {
        float magnitude = fabsf(y[i]);
        if (!(magnitude <= top) && !isnan(top)) top = magnitude; /* a NaN enters and stays */
    }
    uint16_t half = tq_scale_f16(top);
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
    return energy > 0 ? tq_scale_f16((float)(product * 127.0 / (double)energy)) : 0;
}

/* The factor that gives y of squares `energy` variance 1, or 0: then *scale says what y is, zero or not finite. */
static float unit_of_energy(int dim, double energy, uint16_t *scale) {
    float norm = (float)sqrt(energy);
    *scale = norm == 0 ? 0 : 0x7e00;
    return norm > 0 && isfinite(norm) ? sqrtf((float)dim) / norm : 0.0f;
}
static float unit_factor(int dim, const float *y, uint16_t *scale) { return unit_of_energy(dim, energy_of(y, dim), scale); }

/* Evenly spaced levels, step * (1, 3, 5 ...) / 2 and their negatives.  A normal coordinate's best steps, in its standard
 * deviations, are BEST_STEP; a row of a hundred values has its own best nearby: of N_STEPS, from FIRST_STEP to
 * LAST_STEP times as large, the one whose codes lie closest to the row once its scale is fitted, so the one with the
 * largest <y, codes>^2 / |codes|^2.  65 steps instead gain .1 % and cost two and a half times as much. */
enum { N_STEPS = 25 };
static const float FIRST_STEP = 0.64f, LAST_STEP = 1.36f;
static const float BEST_STEP[5] = {0, 0, 0.9957f, 0.5860f, 0.3352f};

/* The figure of merit of a step of 1 / inverse for magnitudes a (dim, a multiple of 16); top: the last level's place. */
static float merit_of_step(int dim, const float *a, float inverse, float top) {
    float product[8] = {0};
    int32_t energy[8] = {0}; /* exact */
    for (int i = 0; i < dim; i += 8)
        for (int l = 0; l < 8; l++) {
            float at = a[i + l] * inverse;
            int odd = 2 * (int)(at < top ? at : top) + 1;
            energy[l] += odd * odd;
            product[l] += a[i + l] * (float)odd;
        }
    for (int l = 1; l < 8; l++) product[0] += product[l], energy[0] += energy[l];
    return product[0] * product[0] / (float)energy[0];
}

static uint16_t quantize_uniform(const tq_codec *codec, const float *y, uint8_t *codes) {
    int dim = codec->dim, half = 1 << (codec->bits - 1);
    float a[TQ_MAX_DIM], top = (float)half - 0.5f, best = 0, best_merit = -1;
    uint16_t scale;
    float unit = unit_factor(dim, y, &scale);
    if (unit == 0) return scale;
    for (int i = 0; i < dim; i++) a[i] = fabsf(y[i]) * unit; /* standard deviations */
    for (int s = 0; s < N_STEPS; s++) {
        float times = FIRST_STEP + (LAST_STEP - FIRST_STEP) / (N_STEPS - 1) * (float)s;
        float inverse = 1.0f / (BEST_STEP[codec->bits] * times), merit = merit_of_step(dim, a, inverse, top);
        if (merit > best_merit) best_merit = merit, best = inverse;
    }
    int8_t levels[TQ_MAX_DIM];
    for (int i = 0; i < dim; i++) {
        float at = a[i] * best;
        int above = (int)(at < top ? at : top); /* codes 0..2*half-1 stand for -(2*half-1), ..., -1, 1, ..., 2*half-1 */
        codes[i] = (uint8_t)(y[i] < 0 ? half - 1 - above : half + above);
        levels[i] = (int8_t)((int)codec->levels[codes[i]] - 128);
    }
    return fit_scale(dim, y, levels);
}

float tq_trellis_factor(const tq_codec *codec, double energy, uint16_t *scale) {
    float factor = unit_of_energy(codec->dim, energy, scale) * (codec->trellis->sigma * TQ_TRELLIS_UNIT);
    if (isfinite(factor)) return factor;
    *scale = 0; /* the row is so short that its scale is 0 */
    return 0;
}

float tq_trellis_begin(const tq_codec *codec, int lanes, const float *y, int16_t *samples, int stride, uint16_t *scale) {
    int dim = codec->dim;
    float factor = tq_trellis_factor(codec, energy_of(y, dim), scale);
    /* Of the row's length at most: 512 dims make 23 standard deviations, 18,000 units. */
    for (int lane = 0; factor != 0 && lane < lanes; lane++) /* in the order of tq_chain_place */
        for (int i = lane; i < dim; i += lanes, samples += stride) *samples = (int16_t)lrintf(y[i] * factor);
    return factor;
}

uint16_t tq_trellis_scale(float inverse_unit, int32_t product, int32_t energy) {
    if (energy == 0) return 0;
    return tq_scale_f16((float)((double)product / (double)energy * 127.0 / (double)inverse_unit));
}

void tq_planar_levels(const tq_codec *codec, int lanes, const uint8_t *codes, int8_t *levels) {
    int dim = codec->dim;
    if (codec->pairs) {
        for (int i = 0; i < dim / 2; i++) {
            int place = tq_pair_place(i, lanes);
            levels[place] = (int8_t)((int)codec->pairs->first[codes[i]] - 128);
            levels[place + tq_pair_step(lanes)] = (int8_t)((int)codec->pairs->second[codes[i]] - 128);
        }
        return;
    }
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

static uint16_t quantize_pairs(const tq_codec *codec, int lanes, const float *y, uint8_t *codes) {
    int dim = codec->dim;
    uint16_t scale;
    float factor = unit_factor(dim, y, &scale) * (codec->pairs->sigma * TQ_PAIR_UNIT);
    if (factor == 0) return scale;
    int16_t samples[TQ_MAX_DIM];
    for (int i = 0; i < dim / 2; i++) {
        int place = tq_pair_place(i, lanes);
        samples[2 * i] = (int16_t)rintf(y[place] * factor);
        samples[2 * i + 1] = (int16_t)rintf(y[place + tq_pair_step(lanes)] * factor);
    }
    tq_pairs_encode(codec->pairs, samples, dim / 2, codes);
    int8_t levels[TQ_MAX_DIM];
    tq_planar_levels(codec, lanes, codes, levels);
    return fit_scale(dim, y, levels);
}

uint16_t tq_planar_quantize(const tq_codec *codec, int lanes, const float *y, uint8_t *codes) {
    int dim = codec->dim;
    uint16_t scale;
    memset(codes, 0, (size_t)dim);
    if (codec->trellis) {
        int16_t samples[TQ_MAX_DIM];
        uint8_t chain[TQ_MAX_DIM] = {0};
        int32_t product, energy;
        float inverse_unit = tq_trellis_begin(codec, lanes, y, samples, 1, &scale);
        if (inverse_unit == 0) return scale;
        tq_trellis_encode(codec->trellis, samples, dim, chain);
        for (int t = 0; t < dim; t++) codes[tq_chain_place(t, dim, lanes)] = chain[t];
        tq_trellis_sums(codec->trellis, samples, chain, dim, &product, &energy);
        return tq_trellis_scale(inverse_unit, product, energy);
    }
    if (codec->pairs) return quantize_pairs(codec, lanes, y, codes);
    if (codec->bits == 8) return quantize_8bit(dim, y, codes);
    if (codec->uniform) return quantize_uniform(codec, y, codes);
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
    for (int i = 0; i < tq_codec_codes(codec); i++) {
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
    for (int i = 0; i < tq_codec_codes(codec); i++)
        codes[i] = (uint8_t)(codec->bits != 3 ? tq_stream_get(low, i, codec->bits)
                                              : tq_stream_get(low, i, 2) | tq_stream_get(high, i, 1) << 2);
    tq_planar_levels(codec, 1, codes, levels);
    for (int i = 0; i < codec->dim; i++) y[i] = (float)levels[i] * scale;
}

/* ---- MSE and PROD (arXiv 2504.19874, Algorithms 1 and 2) ----------------------------------------------------------- */

float tq_directions_encode(const tq_rotation *rotation, const tq_codebook *codebook, const float *x, uint8_t *stream,
                           float *restored) {
    int dim = rotation->dim;
    float y[TQ_MAX_DIM], norm = norm_of(x, dim);
    tq_rotate(rotation, x, y);
    float unit = sqrtf((float)dim), inverse = norm > 0 ? unit / norm : 0.0f;
    for (int i = 0; i < dim; i++) {
        uint8_t code = tq_codebook_code(codebook, y[i] * inverse);
        tq_stream_put(stream, i, codebook->bits, code);
        if (restored) restored[i] = codebook->levels[code] * (norm / unit);
    }
    return norm;
}

/* scale: norm / sqrt(dim), as levels are those of a vector of norm sqrt(dim). */
static tq_code_run directions_run(const tq_codebook *codebook, int dim, const uint8_t *stream, float scale) {
    return (tq_code_run){.stream = stream, .levels = codebook->levels, .bits = codebook->bits, .n = dim, .scale = scale};
}

static void encode_mse(const tq_codec *codec, const float *x, uint8_t *row) {
    memset(row, 0, codec->row_bytes);
    put_f32(row, tq_directions_encode(&codec->rotation, &codec->codebook, x, row + 4, NULL));
}

static void encode_prod(const tq_codec *codec, const float *x, uint8_t *row) {
    int dim = codec->dim;
    float restored[TQ_MAX_DIM], residual[TQ_MAX_DIM], sketched[TQ_MAX_DIM];
    memset(row, 0, codec->row_bytes);
    put_f32(row, tq_directions_encode(&codec->rotation, &codec->codebook, x, row + 8, restored));
    tq_rotate_back(&codec->rotation, restored, residual);
    for (int i = 0; i < dim; i++) residual[i] = x[i] - residual[i];
    put_f32(row + 4, norm_of(residual, dim));
    tq_dense_apply(codec->sketch, dim, residual, sketched);
    uint8_t *signs = row + 8 + (dim * (codec->bits - 1) + 7) / 8;
    for (int i = 0; i < dim; i++) tq_stream_put(signs, i, 1, sketched[i] > 0);
}

/* The signs' half, sketch_step * |residual| * sign: its product with S q estimates <q, residual> without bias. */
static int prod_runs(const tq_codec *codec, const uint8_t *row, tq_code_run *runs) {
    static const float signs[16] = {-1, 1};
    int dim = codec->dim;
    runs[0] = directions_run(&codec->codebook, dim, row + 8, get_f32(row) / sqrtf((float)dim));
    runs[1] = (tq_code_run){.stream = row + 8 + (dim * (codec->bits - 1) + 7) / 8, .levels = signs, .bits = 1, .n = dim,
                            .scale = codec->sketch_step * get_f32(row + 4)};
    return 2;
}

static int split_runs(const tq_codec *codec, const uint8_t *row, tq_code_run *runs) {
    int n = codec->n_outliers;
    runs[0] = directions_run(&codec->codebook, n, row + 4, tq_f16_f32(get_u16(row)));
    runs[1] = directions_run(&codec->rest_codebook, codec->dim - n, row + 4 + (n * (codec->bits + 1) + 7) / 8,
                             tq_f16_f32(get_u16(row + 2)));
    return 2;
}

/* ---- MINMAX ------------------------------------------------------------------------------------------------------ */

/* The constants of a group of values low..high, as f16. */
static void minmax_constants(float low, float high, float top, uint16_t *scale, uint16_t *zero) {
    *zero = tq_f32_f16(low);
    *scale = tq_f32_f16((high - low) / top);
}

/* As MLX has it: the step is stretched so that 0 is a level, and codes count from the end of larger magnitude.  A scale
 * may be negative. */
static void affine_constants(float low, float high, float top, uint16_t *scale, uint16_t *zero) {
    bool low_is_edge = fabsf(low) > fabsf(high);
    float edge = low_is_edge ? low : high, step = fmaxf((high - low) / top, 1e-7f);
    if (!low_is_edge) step = -step;
    float codes_to_zero = rintf(edge / step);
    *scale = tq_f32_f16(codes_to_zero != 0 ? edge / codes_to_zero : step);
    *zero = tq_f32_f16(codes_to_zero != 0 ? edge : 0);
}

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
        uint16_t zero_half, scale_half;
        if (codec->affine) affine_constants(low, high, (float)top, &scale_half, &zero_half);
        else minmax_constants(low, high, (float)top, &scale_half, &zero_half);
        if (isnan(poison)) zero_half = 0x7e00;
        float zero = tq_f16_f32(zero_half), scale = tq_f16_f32(scale_half);
        for (int i = 0; i < group; i++) {
            float code = scale != 0 ? rintf((values[i] - zero) / scale) : 0.0f;
            code = code > 0 ? (code < (float)top ? code : (float)top) : 0.0f; /* NaN becomes 0; its group's zero is NaN */
            tq_stream_put(row, g * group + i, codec->bits, (unsigned)code);
        }
        put_u16(constants + 4 * g, scale_half);
        put_u16(constants + 4 * g + 2, zero_half);
    }
}

static const float integers[256] = {
#define FOUR(n) n, n + 1, n + 2, n + 3
#define SIXTEEN(n) FOUR(n), FOUR(n + 4), FOUR(n + 8), FOUR(n + 12)
    SIXTEEN(0),   SIXTEEN(16),  SIXTEEN(32),  SIXTEEN(48),  SIXTEEN(64),  SIXTEEN(80),  SIXTEEN(96),  SIXTEEN(112),
    SIXTEEN(128), SIXTEEN(144), SIXTEEN(160), SIXTEEN(176), SIXTEEN(192), SIXTEEN(208), SIXTEEN(224), SIXTEEN(240),
#undef SIXTEEN
#undef FOUR
};

static int minmax_runs(const tq_codec *codec, const uint8_t *row, tq_code_run *runs) {
    const uint8_t *constants = row + codec->dim * codec->bits / 8;
    int n_groups = codec->dim / codec->group;
    for (int g = 0; g < n_groups; g++)
        runs[g] = (tq_code_run){.stream = row + g * codec->group * codec->bits / 8, .levels = integers,
                                .bits = codec->bits, .n = codec->group,
                                .scale = tq_f16_f32(get_u16(constants + 4 * g)),
                                .offset = tq_f16_f32(get_u16(constants + 4 * g + 2))};
    return n_groups;
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
    case TQ_CODEC_SPLIT: tq_split_encode(codec, codec->channels, x, row); break;
    case TQ_CODEC_MINMAX: encode_minmax(codec, x, row); break;
    }
}

int tq_row_runs(const tq_codec *codec, const uint8_t *row, tq_code_run *runs) {
    switch (codec->kind) {
    case TQ_CODEC_MSE:
        runs[0] = directions_run(&codec->codebook, codec->dim, row + 4, get_f32(row) / sqrtf((float)codec->dim));
        return 1;
    case TQ_CODEC_PROD: return prod_runs(codec, row, runs);
    case TQ_CODEC_SPLIT: return split_runs(codec, row, runs);
    case TQ_CODEC_MINMAX: return minmax_runs(codec, row, runs);
    case TQ_CODEC_F32:
    case TQ_CODEC_F16:
    case TQ_CODEC_PLANAR: break;
    }
    return 0;
}

/* Eight codes from `bits` bytes at a time; a last few one by one. */
static void expand_run(const tq_code_run *run, float *x) {
    const uint8_t *at = run->stream;
    unsigned mask = (1u << run->bits) - 1;
    int i = 0;
    for (; i + 8 <= run->n; i += 8, at += run->bits) {
        uint64_t word = 0;
        memcpy(&word, at, (size_t)run->bits);
        for (int k = 0; k < 8; k++) x[i + k] = run->offset + run->scale * run->levels[word >> (k * run->bits) & mask];
    }
    for (; i < run->n; i++) x[i] = run->offset + run->scale * run->levels[tq_stream_get(run->stream, i, run->bits)];
}

static void expand_runs(const tq_codec *codec, const uint8_t *row, float *x) {
    tq_code_run runs[TQ_MAX_RUNS];
    int n_runs = tq_row_runs(codec, row, runs);
    for (int r = 0; r < n_runs; x += runs[r++].n) expand_run(&runs[r], x);
}

void tq_row_expand(const tq_codec *codec, const uint8_t *row, float *expanded) {
    switch (codec->kind) {
    case TQ_CODEC_F32: memcpy(expanded, row, codec->row_bytes); break;
    case TQ_CODEC_F16:
        for (int i = 0; i < codec->dim; i++) expanded[i] = tq_f16_f32(get_u16(row + 2 * i));
        break;
    case TQ_CODEC_PLANAR: expand_planar(codec, row, expanded); break;
    case TQ_CODEC_MSE:
    case TQ_CODEC_PROD:
    case TQ_CODEC_SPLIT:
    case TQ_CODEC_MINMAX: expand_runs(codec, row, expanded); break;
    }
}
