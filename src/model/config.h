/* config.h: what a model is, read from config.json.  A family is data: a row of a table and these fields. */
#ifndef TQ_MODEL_CONFIG_H
#define TQ_MODEL_CONFIG_H

#include <jansson.h>
#include <stdbool.h>

#include "base/status.h"

typedef enum tq_rope_kind { TQ_ROPE_DEFAULT, TQ_ROPE_LINEAR, TQ_ROPE_LLAMA3 } tq_rope_kind;

typedef struct tq_rope_config {
    tq_rope_kind kind;
    double theta, factor;
    double low_freq_factor, high_freq_factor; /* LLAMA3 */
    int original_context;                     /* LLAMA3 */
} tq_rope_config;

typedef struct tq_config {
    const char *family; /* static */
    int n_layers, n_heads, n_kv_heads, head_dim, hidden, intermediate, vocab, max_context;
    float rms_eps;
    bool tie_embeddings;
    bool qkv_bias, out_bias, mlp_bias;
    tq_rope_config rope;
} tq_config;

/* Read config.json.  Every field is checked for type and range; a family, activation, rotary scaling or layer kind that
 * this version lacks is TQ_UNSUPPORTED, named.  label names the file in error texts. */
tq_status tq_config_read(const json_t *json, const char *label, tq_config *out, tq_error *err);

#endif
