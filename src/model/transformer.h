/* transformer.h: a model's weights bound to their places, and the forward pass.
 * Owns: small vectors (norms, biases) in f32.  Matrices stay in the mapped files. */
#ifndef TQ_MODEL_TRANSFORMER_H
#define TQ_MODEL_TRANSFORMER_H

#include "backend/backend.h"
#include "cache/kv_cache.h"
#include "file/weights.h"
#include "model/config.h"

typedef struct tq_linear {
    tq_matrix w;
    float *bias; /* (rows), or NULL */
} tq_linear;

typedef struct tq_layer {
    float *attention_norm, *ffn_norm; /* (hidden) */
    tq_linear q, k, v, out;
    tq_linear gate, up, down;
} tq_layer;

typedef struct tq_transformer {
    tq_config config;
    tq_matrix embedding, head; /* (vocab, hidden) */
    float *final_norm;
    float *inverse_frequency; /* (head_dim / 2), of the rotary encoding */
    tq_layer *layers;
    int max_cols; /* the widest matrix */
} tq_transformer;

tq_status tq_transformer_bind(const tq_weights *weights, const tq_config *config, tq_transformer **out, tq_error *err);
void tq_transformer_free(tq_transformer *model);

/* The tokens of a forward pass: of one sequence, or of several that decode together, one part each.  A part's results
 * are the same bits as without the others, up to TQ_SINGLE_TOKENS tokens in all. */
typedef struct tq_part {
    tq_cache *cache;
    const int32_t *ids; /* (n) */
    int n, pos;         /* they stand at positions pos.. */
} tq_part;

typedef struct tq_batch {
    const tq_part *parts;
    int n_parts, n; /* n: tokens of all parts */
} tq_batch;

/* Activations of one chunk of up to max_n tokens. */
typedef struct tq_activations {
    int max_n;
    float *x, *h;               /* (n, hidden): residual stream, its norm */
    float *q, *attended;        /* (n, n_heads, head_dim) */
    float *k, *v;               /* (n, n_kv_heads, head_dim) */
    float *gate, *up;           /* (n, intermediate) */
    float *angles;              /* (n, head_dim / 2, 2) */
    void *memory;
    size_t bytes;
} tq_activations;

tq_status tq_activations_new(const tq_config *config, int max_n, tq_activations *out, tq_error *err);
void tq_activations_free(tq_activations *a);

/* Run n <= max_n tokens through all layers and append their keys and values to their caches.
 * Leaves the normed final states in a->h (n, hidden), part after part. */
tq_status tq_forward(const tq_transformer *model, tq_backend *backend, const tq_batch *batch, tq_activations *a,
                     tq_error *err);

/* The same in steps, so that other work can come between: begin, the layers from 0 on, end. */
void tq_forward_begin(const tq_transformer *model, tq_backend *backend, const tq_batch *batch, tq_activations *a);
tq_status tq_forward_layer(const tq_transformer *model, int index, tq_backend *backend, const tq_batch *batch,
                           tq_activations *a, tq_error *err);
void tq_forward_end(const tq_transformer *model, tq_backend *backend, const tq_batch *batch, tq_activations *a);

/* logits (n, vocab) of final states h (n, hidden). */
void tq_forward_logits(const tq_transformer *model, tq_backend *backend, const float *h, int n, float *logits);

/* One layer each; x is updated in place. */
tq_status tq_attention_layer(const tq_transformer *model, int index, tq_backend *backend, const tq_batch *batch,
                             tq_activations *a, tq_error *err);
void tq_ffn_layer(const tq_transformer *model, int index, tq_backend *backend, tq_activations *a, int n);

#endif
