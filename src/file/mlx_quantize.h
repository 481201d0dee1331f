/* mlx_quantize.h: one row of a matrix to MLX's affine form. */
#ifndef TQ_FILE_MLX_QUANTIZE_H
#define TQ_FILE_MLX_QUANTIZE_H

#include <stdbool.h>
#include <stdint.h>

/* x: (cols), cols a multiple of group_size -> packed: cols*bits/8 bytes, scales, biases: (cols / group_size).  The
 * same float32 operations as mlx.core.quantize, bit for bit; scales and biases are yet to be rounded to the type they
 * are stored in, as there.  False, with the outputs unspecified, if a value is not finite or a group's range is not. */
bool tq_mlx_quantize_row(const float *x, int cols, int bits, int group_size, uint8_t *packed, float *scales,
                         float *biases);

#endif
