/* codebook.h: Lloyd-Max quantizers for one coordinate of a uniformly random unit vector.
 *
 * On the unit sphere of R^d a coordinate has density f(x) = G(d/2) / (sqrt(pi) G((d-1)/2)) * (1-x^2)^((d-3)/2), which
 * tends to N(0, 1/d).  The quantizer with 2^bits levels that minimises E(x - c)^2 satisfies: boundaries halfway between
 * levels, levels at the mean of their cell (arXiv 2504.19874, section 3.1). */
#ifndef TQ_CODEC_CODEBOOK_H
#define TQ_CODEC_CODEBOOK_H

#include <math.h>
#include <stdint.h>

#include "base/status.h"

enum { TQ_MAX_LEVELS = 256 };

typedef struct tq_codebook {
    int bits, n_levels;
    float levels[TQ_MAX_LEVELS];         /* ascending, symmetric; for vectors of norm sqrt(d): unit variance */
    float boundaries[TQ_MAX_LEVELS - 1]; /* code(u) = how many boundaries are <= u */
    double distortion;                   /* E|x - c(x)|^2 / |x|^2 */
} tq_codebook;

/* bits 1..8, dim >= 4.  Newton's method on the two conditions, to 1e-13. */
tq_status tq_codebook_make(int dim, int bits, tq_codebook *out, tq_error *err);

static inline uint8_t tq_codebook_code(const tq_codebook *codebook, float u) {
    int low = 0; /* binary search; a NaN compares false everywhere and gets code 0 */
    for (int step = codebook->n_levels / 2; step > 0; step /= 2)
        if (u >= codebook->boundaries[low + step - 1]) low += step;
    return (uint8_t)low;
}

/* The logarithm of the gamma function of x > 0; lgamma itself writes a global variable. */
static inline double tq_log_gamma(double x) {
    int sign;
    return lgamma_r(x, &sign);
}

#endif
