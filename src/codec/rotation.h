/* rotation.h: the orthogonal maps that spread a vector's energy evenly over its coordinates. */
#ifndef TQ_CODEC_ROTATION_H
#define TQ_CODEC_ROTATION_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* y = R x with R orthogonal, one of
 *   Hadamard: random signs, then H (x) C over dim = 2^k * m, m odd: H the 2^k Walsh-Hadamard matrix, C the m-point
 *             orthonormal DCT-II (1 for m = 1).  d log d operations.
 *   dense:    any matrix; d^2 operations. */
typedef struct tq_rotation {
    int dim;
    int pow2, odd;  /* Hadamard: dim = pow2 * odd */
    float *signs;   /* Hadamard: (dim), +-1/sqrt(pow2) */
    float *mix;     /* Hadamard with odd > 1: C (odd, odd) */
    float *matrix;  /* dense: (dim, dim), row-major */
} tq_rotation;

tq_status tq_rotation_hadamard(int dim, uint64_t seed, tq_rotation *out, tq_error *err);

/* The Q of the QR factorisation, with positive diagonal of R, of a matrix of N(0,1) drawn by numpy's RandomState(seed)
 * and rounded to f32: uniform (Haar) over orthogonal matrices, and the matrix of the mlx-turboquant prototype.
 * y = Q x. */
tq_status tq_rotation_haar(int dim, uint32_t seed, tq_rotation *out, tq_error *err);

/* (dim, dim) N(0,1) from RandomState(seed), rounded to f32: the sketch of paper-prod.  free() it. */
tq_status tq_gaussian_matrix(int dim, uint32_t seed, float **out, tq_error *err);

void tq_rotation_free(tq_rotation *rotation);

/* x: (dim) -> y: (dim); they may be the same only for Hadamard. */
void tq_rotate(const tq_rotation *rotation, const float *x, float *y);
void tq_rotate_back(const tq_rotation *rotation, const float *y, float *x);

/* y = M x and x = M^T y for a row-major (dim, dim) matrix; float32 sums in four interleaved chains. */
void tq_dense_apply(const float *matrix, int dim, const float *x, float *y);
void tq_dense_apply_transposed(const float *matrix, int dim, const float *y, float *x);

size_t tq_rotation_bytes(const tq_rotation *rotation);

#endif
