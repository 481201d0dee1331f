/* weights.h: the tensors of a model directory or of GGUF files, by name.
 * Owns: the mapped files and the table of names.  Not here: what the tensors mean (model/config). */
#ifndef TQ_FILE_WEIGHTS_H
#define TQ_FILE_WEIGHTS_H

#include <jansson.h>
#include <stdbool.h>

#include "base/file_map.h"
#include "base/status.h"
#include "base/tensor.h"
#include "file/gguf_model.h"

typedef struct tq_weights tq_weights;

/* Map every shard of a Hugging Face or MLX directory: model.safetensors.index.json and its shards, or else
 * model.safetensors.  config is the parsed config.json; its "quantization" (or "quantization_config") entry says how
 * MLX matrices are packed.  Borrowed until tq_weights_close. */
tq_status tq_weights_open(const char *directory, const json_t *config, tq_weights **out, tq_error *err);

/* The tensors of GGUF files under Hugging Face's names; those that have none there keep their own.  files is borrowed
 * until tq_weights_close. */
tq_status tq_weights_open_gguf(const tq_gguf_model *files, tq_weights **out, tq_error *err);
void tq_weights_close(tq_weights *weights);

/* The same over one safetensors file that is in memory already.  The mapping belongs to the weights from now on, also
 * when this fails.  label names it in error texts and in the description. */
tq_status tq_weights_adopt(tq_file_map *image, const char *label, const json_t *config, tq_weights **out, tq_error *err);

/* The tensor, or NULL. */
const tq_tensor *tq_weights_find(const tq_weights *weights, const char *name);

/* The matrix stored as "<path>.weight" (and, if quantized, "<path>.scales" and "<path>.biases"), which must be
 * (rows, cols).  Pointers into the mapped file.  Of a GGUF file the matrix may have paired_rows (base/tensor.h). */
tq_status tq_weights_matrix(const tq_weights *weights, const char *path, int rows, int cols, tq_matrix *out,
                            tq_error *err);

/* n matrices (rows, cols) that lie one behind the other: "<path>.weight" (n, rows, cols), quantized or not, as MLX writes
 * them; "<path>" in f32, f16 or bf16; or gpt-oss's "<path>_blocks" (n, rows, cols / 32, 16) with "<path>_scales".  GGUF: "<path>.weight" in any type. */
tq_status tq_weights_stack(const tq_weights *weights, const char *path, int n, int rows, int cols, tq_matrix *out,
                           tq_error *err);

/* n values of any shape, stored as `name` in f32, f16 or bf16, in the order of the file. */
tq_status tq_weights_floats(const tq_weights *weights, const char *name, int64_t n, float *dst, tq_error *err);

/* Matrices of floats turned round: bytes that n of them take, 0 if they are not f32, f16 or bf16; and into `to`, which
 * they then point to. */
size_t tq_weights_transposed_bytes(const tq_matrix *matrices, int n);
void tq_weights_transpose(tq_matrix *matrices, int n, void *to);

/* A vector of n floats stored as `name` in f32, f16 or bf16, converted into dst.  The bias of a matrix with
 * paired_rows comes in the order of its rows. */
tq_status tq_weights_vector(const tq_weights *weights, const char *name, int n, float *dst, tq_error *err);

int64_t tq_weights_total_bytes(const tq_weights *weights);
int64_t tq_weights_copied_bytes(const tq_weights *weights); /* in memory of their own; the others are mapped */
int64_t tq_weights_total_parameters(const tq_weights *weights); /* quantized values count, scales do not */
const char *tq_weights_description(const tq_weights *weights);  /* "bf16", "4-bit groups of 64", "q4_k", "mixed" */

/* How a tensor is stored ("4-bit groups of 64", "bf16", "q4_k") and the values that it has; false for what belongs to another
 * one, as scales do: then they are that tensor's, whose type it is. */
bool tq_weights_kind(const tq_weights *weights, const tq_tensor *tensor, char type[32], int64_t *parameters);

/* Iterate: 0..n-1, in the order of the files. */
int tq_weights_count(const tq_weights *weights);
const tq_tensor *tq_weights_at(const tq_weights *weights, int index);

#endif
