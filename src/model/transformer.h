/* transformer.h: a model's weights bound to their places, and the forward pass.
 * Owns: small vectors (norms, biases) in f32, and copies of what files hold transposed.  Other matrices stay in the
 * mapped files. */
#ifndef TQ_MODEL_TRANSFORMER_H
#define TQ_MODEL_TRANSFORMER_H

#include "backend/backend.h"
#include "cache/kv_cache.h"
#include "cache/recurrent_state.h"
#include "file/weights.h"
#include "model/config.h"

typedef struct tq_linear {
    tq_matrix w;
    float *bias; /* (rows), or NULL */
} tq_linear;

typedef struct tq_attention_weights {
    tq_linear q, k, v, out; /* q with an output gate: (n_heads, 2, head_dim) rows, each head's query and then its gate */
    float *q_norm, *k_norm; /* (head_dim) or (heads * head_dim), or NULL */
} tq_attention_weights;

typedef struct tq_delta_weights {
    tq_linear qkv, z, a, b; /* or, where qkvz.w.rows > 0: */
    tq_linear qkvz, ba;     /* for each key head its q, k, v, z and its b, a */
    tq_linear out;
    float *conv;        /* (kernel, channels) */
    float *rate, *bias; /* (n_value_heads): exp(A_log), dt_bias */
    float *norm;        /* (value_dim) */
} tq_delta_weights;

typedef struct tq_ffn_weights {
    tq_linear gate, up, down;
} tq_ffn_weights;

typedef struct tq_moe_weights {
    tq_linear router, shared_gate;
    tq_ffn_weights *experts;   /* (n_experts) */
    tq_ffn_weights shared;
    bool interleaved;          /* an expert's gate has 2 * intermediate rows: gate and up in turn; it has no up */
} tq_moe_weights;

typedef struct tq_layer {
    float *attention_in, *attention_out, *ffn_in, *ffn_out; /* norms (hidden), or NULL */
    int mixer_index; /* among the layers of its mixer: the cache's or the recurrent state's layer */
    tq_attention_weights attention;
    tq_delta_weights delta;
    tq_ffn_weights ffn;
    tq_moe_weights moe;
} tq_layer;

typedef struct tq_transformer {
    tq_config config;
    tq_matrix embedding, head; /* (vocab, hidden) */
    float *final_norm;
    tq_layer *layers;
    float *sink_logits; /* (n_attention_layers, n_heads), or NULL */
    int *windows;       /* (n_attention_layers) */
    int max_cols;       /* the widest matrix */
    void **owned;       /* everything that was allocated for weights */
    int n_owned, owned_cap;
    size_t owned_bytes;
} tq_transformer;

tq_status tq_transformer_bind(const tq_weights *weights, const tq_config *config, tq_transformer **out, tq_error *err);
void tq_transformer_free(tq_transformer *model);

/* What the cache of a session must know of the model. */
tq_cache_params tq_transformer_cache_params(const tq_transformer *model, int max_tokens, const tq_cache_config *config);
/* Floats of a delta layer's state: inputs of its convolution, then the heads' states. */
size_t tq_transformer_state_floats(const tq_transformer *model);

/* The tokens of a forward pass: of one sequence, or of several that decode together, one part each.  A part's results
 * are the same bits as without the others, up to TQ_SINGLE_TOKENS tokens in all. */
typedef struct tq_part {
    tq_cache *cache;
    tq_recurrent_state *state; /* NULL where the model has no delta layers */
    const int32_t *ids; /* (n) */
    int n, pos;         /* they stand at positions pos.. */
} tq_part;

typedef struct tq_batch {
    const tq_part *parts;
    int n_parts, n; /* n: tokens of all parts */
} tq_batch;

/* Activations of one chunk of up to max_n tokens.  Those that the model has no use for are NULL. */
typedef struct tq_activations {
    int max_n;
    float *inverse_frequency[TQ_MAX_ROPES]; /* (n_dims / 2) of each rotary encoding, for the session's context */
    float *angles[TQ_MAX_ROPES];            /* (n, n_dims / 2, 2) */
    float *query_scale;                     /* (n) */
    float *x, *h;                           /* (n, hidden): residual stream, its norm */
    float *q, *attended;                    /* (n, n_heads, head_dim) */
    float *k, *v;                           /* (n, n_kv_heads, head_dim) */
    float *wide, *q_gate;                   /* what is split; (n, n_heads, head_dim) */
    float *gate, *up;                       /* (n, widest ffn) */
    float *conv_in, *conv_out;              /* (n, channels) of delta layers */
    float *z, *a, *b, *delta_out;           /* (n, n_value_heads[, value_dim]) */
    float *router, *expert_weights;         /* (n, n_experts), (n, n_active) */
    float *gathered, *expert_out, *sum;     /* (n, hidden): an expert's tokens, its results, all experts' */
    float *row_weights;                     /* (n) of the gathered tokens */
    int32_t *expert_ids, *rows;             /* (n, n_active), (n) */
    void *memory;
    size_t bytes;
} tq_activations;

/* context: the tokens that the session can hold; longrope and dynamic rotary encodings depend on it. */
tq_status tq_activations_new(const tq_config *config, int max_n, int context, tq_activations *out, tq_error *err);
void tq_activations_free(tq_activations *a);

/* Inverse frequencies (n_dims / 2) of a rotary encoding in a context of so many tokens (model/rope.c). */
void tq_rope_frequencies(const tq_rope_config *rope, int context, float *inverse_frequency);
/* angles (n, n_dims / 2, 2): cosine and sine of position * frequency times the attention factor, in float32 as in
 * training. */
void tq_rope_angles(const tq_rope_config *rope, const float *inverse_frequency, int n, int pos, float *angles);

/* Run n <= max_n tokens through all layers; their keys and values go into their caches, what delta layers remember into
 * their states.  Leaves the normed final states in a->h (n, hidden), part after part. */
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
void tq_delta_layer(const tq_transformer *model, int index, tq_backend *backend, const tq_batch *batch, tq_activations *a);
void tq_ffn_layer(const tq_transformer *model, int index, tq_backend *backend, tq_activations *a, int n);
void tq_moe_layer(const tq_transformer *model, int index, tq_backend *backend, tq_activations *a, int n);

/* What layers share: y (n, hidden) = norm(x), or x itself where there is no norm; returns which. */
const float *tq_norm_in(const tq_transformer *model, tq_backend *backend, const float *norm, const float *x, int n,
                        float *y);
/* x += residual_scale * norm(h); h (n, hidden) is used up. */
void tq_add_to_stream(const tq_transformer *model, tq_backend *backend, const float *norm, float *h, int n, float *x);

#endif
