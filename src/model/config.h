/* config.h: what a model is, read from config.json.  A family is data: a row of a table and these fields. */
#ifndef TQ_MODEL_CONFIG_H
#define TQ_MODEL_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/status.h"

enum { TQ_MAX_LAYERS = 1024, TQ_MAX_ROPES = 2, TQ_NO_ROPE = 255, TQ_MAX_ROPE_PAIRS = 512 };

/* ---- rotary position encoding ----------------------------------------------------------------------------------------- */

typedef enum tq_rope_kind {
    TQ_ROPE_DEFAULT,
    TQ_ROPE_LINEAR,
    TQ_ROPE_LLAMA3,
    TQ_ROPE_YARN,
    TQ_ROPE_LONGROPE, /* one of two lists of factors, by whether the context exceeds original_context */
    TQ_ROPE_DYNAMIC   /* theta grows where the context exceeds original_context */
} tq_rope_kind;

typedef struct tq_rope_config {
    tq_rope_kind kind;
    double theta, factor;
    int n_dims;          /* the first n_dims of a head are rotated: even, at most head_dim */
    bool adjacent_pairs; /* pairs (2i, 2i + 1); else (i, i + n_dims / 2) */
    int original_context;                     /* LLAMA3, YARN, LONGROPE, DYNAMIC */
    double low_freq_factor, high_freq_factor; /* LLAMA3 */
    double beta_fast, beta_slow;              /* YARN */
    bool truncate;                            /* YARN: the ramp's ends are whole numbers */
    double attention_factor;                  /* YARN, LONGROPE: of cosine and sine; else 1 */
    float short_factor[TQ_MAX_ROPE_PAIRS], long_factor[TQ_MAX_ROPE_PAIRS]; /* LONGROPE: (n_dims / 2) */
} tq_rope_config;

/* ---- layers ------------------------------------------------------------------------------------------------------------- */

typedef enum tq_mixer { TQ_MIXER_ATTENTION, TQ_MIXER_DELTA } tq_mixer;
typedef enum tq_qk_norm { TQ_QK_NORM_NONE, TQ_QK_NORM_HEAD, TQ_QK_NORM_ROW } tq_qk_norm;

typedef struct tq_layer_config {
    uint8_t mixer; /* tq_mixer */
    bool moe;
    uint8_t rope; /* index into ropes, or TQ_NO_ROPE */
    int window;   /* attention sees the newest `window` tokens; 0: all */
} tq_layer_config;

/* Names of a layer's norms in the file; NULL: there is none. */
typedef struct tq_norm_names {
    const char *attention_in, *attention_out, *ffn_in, *ffn_out;
} tq_norm_names;

/* Mixture of experts: softmax over all, the n_active largest, then with renormalize divided by their sum. */
typedef struct tq_moe_config {
    int n_experts, n_active, intermediate;
    int shared_intermediate; /* of the expert that every token sees, times sigmoid of its own gate; 0: none */
    bool renormalize;
    bool router_bias, expert_bias;
    const char *module, *router;     /* "mlp", "gate" */
    const char *gate, *up, *down;    /* of experts one by one: "gate_proj", ... */
} tq_moe_config;

/* Gated delta nets: a linear attention whose state is (n_value_heads, value_dim, key_dim). */
typedef struct tq_delta_config {
    int n_key_heads, n_value_heads, key_dim, value_dim, kernel;
    bool tiled_heads; /* value head j belongs to key head j % n_key_heads; else to j / (n_value_heads / n_key_heads) */
} tq_delta_config;

typedef struct tq_config {
    const char *family; /* static */
    int n_layers, n_heads, n_kv_heads, head_dim, hidden, intermediate, vocab, max_context;
    bool tie_embeddings, tie_unless_head; /* the second: tied if the file has no output matrix */

    float rms_eps;
    float norm_offset; /* added to the norms' weights: 1 where files hold weight - 1 */
    bool mlx_has_offset; /* files of MLX have the offset added already; their conv1d tells them */
    tq_norm_names norms;
    tq_qk_norm qk_norm;

    bool qkv_bias, out_bias, mlp_bias;
    bool output_gate;   /* q_proj gives a gate beside each head's query; the output is times its sigmoid */
    bool learned_sinks; /* a logit a head that takes part in the softmax */
    float attention_scale, attention_cap; /* cap 0: none */
    double query_beta;     /* queries at position p are times 1 + query_beta * log(1 + floor(p / query_context)) */
    int query_context;
    int n_ropes;
    tq_rope_config ropes[TQ_MAX_ROPES];

    tq_gating gating;
    tq_moe_config moe;     /* if a layer is */
    tq_delta_config delta; /* if a layer is */

    float embedding_scale, residual_scale, logit_scale; /* 1: nothing happens */
    float logit_cap;                                    /* 0: none */
    int n_attention_layers, n_delta_layers;
    tq_layer_config layers[TQ_MAX_LAYERS];
} tq_config;

/* What most models are: every scale 1, every layer full attention with ropes[0] and a dense ffn.  The caller fills in
 * sizes, eps and rope; n_layers must be set before. */
void tq_config_set_defaults(tq_config *config);

/* Count the kinds of layers; scale of attention and rotated dims where they are 0; TQ_FORMAT for what does not fit
 * together.  The last step of every reader. */
tq_status tq_config_complete(tq_config *config, const char *label, tq_error *err);

/* Read config.json, in the old form (rope_theta, rope_scaling) or the new (rope_parameters), alone or within the
 * "text_config" of a model that sees and hears.  Every field is checked for type and range; a family, activation, rotary
 * scaling, layer kind or setting that this version lacks is TQ_UNSUPPORTED, named.  label names the file in error texts. */
tq_status tq_config_read(const json_t *json, const char *label, tq_config *out, tq_error *err);

#endif
