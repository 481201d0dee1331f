/* kernels_small_floats.h: matrices of 4- and 8-bit floats in groups with a scale: MXFP4, MXFP8, NVFP4.
 * Part of kernels_body.h, which says what is defined here. */

/* sign, 2 exponent bits, 1 fraction bit */
static const float e2m1_values[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -.5f, -1, -1.5f, -2, -3, -4, -6};

/* 2^(x - 127), the smallest a subnormal; 255 is NaN */
INLINE float e8m0_value(uint8_t x) {
    uint32_t bits = x == 255 ? 0x7fc00000u : x == 0 ? 0x00400000u : (uint32_t)x << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* sign, 4 exponent bits (bias 7), 3 fraction bits; no infinities, 0x7f is NaN */
INLINE float e4m3_value(uint8_t x) {
    uint32_t magnitude = x & 0x7f, bits = magnitude == 0x7f ? 0x7fc00000u : magnitude << 20;
    float value;
    memcpy(&value, &bits, sizeof value);
    value *= 0x1p120f; /* the exponent's bias, 7 to 127; subnormals come out right */
    return x & 0x80 ? -value : value;
}

/* Columns col0..col0+n of a row, whole groups. */
static void unpack_small_floats(const tq_matrix *w, int row, int col0, int n, float *dst) {
    size_t at = (size_t)row * (size_t)w->cols + (size_t)col0;
    const uint8_t *codes = (const uint8_t *)w->data + at * (size_t)w->bits / 8;
    const uint8_t *scales = (const uint8_t *)w->scales + at / (size_t)w->group_size;
    for (int g = 0; g < n; g += w->group_size, scales++) {
        float scale = w->kind == TQ_MATRIX_NVFP4 ? e4m3_value(*scales) : e8m0_value(*scales);
        if (w->kind == TQ_MATRIX_MXFP8) {
            for (int i = 0; i < w->group_size; i++) dst[g + i] = e4m3_value(*codes++) * scale;
        } else {
            for (int i = 0; i < w->group_size; i += 2, codes++) {
                dst[g + i] = e2m1_values[*codes & 15] * scale;
                dst[g + i + 1] = e2m1_values[*codes >> 4] * scale;
            }
        }
    }
}
