/* synthetic_shapes.h: published shapes of models, and the tensors that they consist of.
 * Owns: the table of shapes.  Not here: what the tensors hold (synthetic.c). */
#ifndef TQ_ENGINE_SYNTHETIC_SHAPES_H
#define TQ_ENGINE_SYNTHETIC_SHAPES_H

#include <jansson.h>
#include <stdbool.h>

#include "base/status.h"

enum { TQ_SYNTHETIC_BITS = 4, TQ_SYNTHETIC_GROUP = 64 };

typedef struct tq_shape {
    const char *name, *family;
    int hidden, intermediate, n_layers, n_heads, n_kv_heads, vocab;
    double rope_theta;
    bool tied; /* the embedding is the head too */
    /* Values are made once and repeated every so many MB of each region; 0: all of them are made. */
    int repeat_mb;
    /* Mixtures of experts with gated delta nets in all layers but each `interval`th: */
    int head_dim; /* 0: hidden / n_heads */
    int interval, key_heads, value_heads, delta_dim, kernel;
    int experts, active_experts, expert_width;
} tq_shape;

/* TQ_NOT_FOUND lists the names there are. */
tq_status tq_shape_find(const char *name, const tq_shape **out, tq_error *err);
json_t *tq_shape_config(const tq_shape *shape); /* NULL: out of memory */

typedef enum tq_synthetic_kind {
    TQ_SYNTHETIC_CODES, TQ_SYNTHETIC_SCALES, TQ_SYNTHETIC_BIASES, TQ_SYNTHETIC_NORM,
    TQ_SYNTHETIC_SHIFT, /* of both signs, up to 1 */
    TQ_SYNTHETIC_DECAY, /* A_log */
} tq_synthetic_kind;

typedef struct tq_synthetic_tensor {
    char name[96];
    tq_synthetic_kind kind;
    int64_t shape[3]; /* as the file has it */
    int n_dims;
    int64_t cols; /* values of a row */
    size_t bytes, offset;
} tq_synthetic_tensor;

typedef struct tq_synthetic_tensors {
    tq_synthetic_tensor *at; /* free() */
    size_t n, cap;
} tq_synthetic_tensors;

/* All tensors of the model, in MLX's form; offsets are 0.  false: out of memory. */
bool tq_shape_tensors(const tq_shape *shape, tq_synthetic_tensors *out);

#endif
