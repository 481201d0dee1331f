/* mlx_quantization.h: which matrices config.json calls quantized, and how. */
#ifndef TQ_FILE_MLX_QUANTIZATION_H
#define TQ_FILE_MLX_QUANTIZATION_H

#include <jansson.h>
#include <stdbool.h>

#include "base/status.h"
#include "base/tensor.h"

typedef struct tq_mlx_quantization {
    const json_t *entry; /* borrowed from the config; NULL: it speaks of no quantization */
    tq_matrix_kind mode; /* TQ_MATRIX_AFFINE, MXFP4, MXFP8 or NVFP4 */
    int bits, group_size;
} tq_mlx_quantization;

const char *tq_mlx_mode_name(tq_matrix_kind mode);

/* Bits and group sizes that MLX's affine mode has. */
bool tq_mlx_bits_known(int bits);
bool tq_mlx_group_size_known(int group_size);

/* Find the entry in the config (which may be NULL): "quantization", else "quantization_config", else the same within
 * "text_config".  Hugging Face's own mxfp4 (gpt-oss) says all by its tensors' names and is no entry.  TQ_UNSUPPORTED names a mode, quant_method, bits or group size that is not read here. */
tq_status tq_mlx_quantization_read(const json_t *config, tq_mlx_quantization *out, tq_error *err);

/* Is the matrix at `path` quantized, and how?  Its own entry decides, else whether it has scales.  *out is written if
 * *quantized. */
tq_status tq_mlx_quantization_of(const tq_mlx_quantization *all, const char *path, bool has_scales, bool *quantized,
                                 tq_mlx_quantization *out, tq_error *err);

#endif
