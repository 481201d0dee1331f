/* mlx_quantize.c: w = scale * q + bias, by groups along a row.
 * Owns: how scale and bias are chosen, and the bit stream.  Not here: files (engine/quantize_directory.c). */
#include "file/mlx_quantize.h"

#include <math.h>

/* The end of the range that is larger in magnitude becomes a grid point (`bias`), and the step is stretched so that
 * zero is one too; the step is negative where that end is the maximum.  The floor of 1e-7 keeps constant groups from
 * dividing by zero. */
static bool choose_grid(const float *x, int n, int levels, float *scale, float *bias) {
    float low = x[0], high = x[0];
    bool finite = true;
    for (int i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        finite &= isfinite(x[i]) != 0;
    }
    if (!finite || !isfinite(high - low)) return false;
    bool low_is_edge = fabsf(low) > fabsf(high);
    float step = fmaxf((high - low) / (float)levels, 1e-7f), edge = low_is_edge ? low : high;
    if (!low_is_edge) step = -step;
    float q0 = rintf(edge / step);
    *scale = q0 != 0.0f ? edge / q0 : step;
    *bias = q0 != 0.0f ? edge : 0.0f;
    return true;
}

bool tq_mlx_quantize_row(const float *x, int cols, int bits, int group_size, uint8_t *packed, float *scales,
                         float *biases) {
    const int levels = (1 << bits) - 1;
    for (int group = 0; group < cols / group_size; group++, x += group_size) {
        if (!choose_grid(x, group_size, levels, &scales[group], &biases[group])) return false;
        uint32_t pending = 0; /* the low n_pending bits of the stream; a group ends on a whole byte */
        int n_pending = 0;
        for (int i = 0; i < group_size; i++) {
            float q = rintf((x[i] - biases[group]) / scales[group]);
            q = fminf(fmaxf(q, 0.0f), (float)levels);
            pending |= (uint32_t)q << n_pending;
            for (n_pending += bits; n_pending >= 8; n_pending -= 8, pending >>= 8) *packed++ = (uint8_t)pending;
        }
    }
    return true;
}
