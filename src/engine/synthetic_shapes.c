/* synthetic_shapes.c: see synthetic_shapes.h. */
#include "engine/synthetic_shapes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "synthetic:"

/* As published in each model's config.json, but for the context: positions beyond it cost the same, and speed at length
 * is what synthetic models are for. */
static const tq_shape shapes[] = {
    {"qwen2.5-0.5b", "qwen2", 896, 4864, 24, 14, 2, 151936, 1e6, .tied = true},
    {"qwen2.5-1.5b", "qwen2", 1536, 8960, 28, 12, 2, 151936, 1e6, .tied = true},
    {"qwen2.5-3b", "qwen2", 2048, 11008, 36, 16, 2, 151936, 1e6, .tied = true},
    {"qwen2.5-7b", "qwen2", 3584, 18944, 28, 28, 4, 152064, 1e6, .tied = false},
    {"llama-3.1-8b", "llama", 4096, 14336, 32, 32, 8, 128256, 5e5, .tied = false},
    {"qwen2.5-14b", "qwen2", 5120, 13824, 48, 40, 8, 152064, 1e6, .repeat_mb = 1024},
    {"qwen2.5-32b", "qwen2", 5120, 27648, 64, 40, 8, 152064, 1e6, .repeat_mb = 1024},
    {"llama-3.1-70b", "llama", 8192, 28672, 80, 64, 8, 128256, 5e5, .repeat_mb = 1024},
    {"qwen3.5-35b-a3b", "qwen3_5_moe", 2048, 512, 40, 16, 2, 248320, 1e7, .repeat_mb = 1024, .head_dim = 256, .interval = 4,
     .key_heads = 16, .value_heads = 32, .delta_dim = 128, .kernel = 4, .experts = 256, .active_experts = 8, .expert_width = 512},
    /* Of no model: opened in a moment, for tests. */
    {"tiny", "qwen2", 512, 768, 2, 4, 2, 2048, 1e6, .tied = false},
    {"tiny-hybrid", "qwen3_5_moe", 256, 128, 8, 4, 2, 2048, 1e7, .repeat_mb = 1, .head_dim = 128, .interval = 4, .key_heads = 2,
     .value_heads = 4, .delta_dim = 64, .kernel = 4, .experts = 32, .active_experts = 4, .expert_width = 128},
};

enum { MAX_CONTEXT = 1 << 18, N_SHAPES = sizeof shapes / sizeof *shapes };

tq_status tq_shape_find(const char *name, const tq_shape **out, tq_error *err) {
    char known[320] = "";
    for (int i = 0; i < N_SHAPES; i++) {
        if (strcmp(name, shapes[i].name) == 0) {
            *out = &shapes[i];
            return TQ_OK;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", shapes[i].name);
    }
    return tq_fail(err, TQ_NOT_FOUND, PREFIX "%.60s: no such shape; there are %s", name, known);
}

static int head_dim(const tq_shape *s) { return s->head_dim ? s->head_dim : s->hidden / s->n_heads; }

static bool put_hybrid(json_t *config, const tq_shape *s) {
    json_t *more = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:{s:s, s:f, s:f}, s:b}", "head_dim", s->head_dim,
                             "full_attention_interval", s->interval, "linear_num_key_heads", s->key_heads,
                             "linear_num_value_heads", s->value_heads, "linear_key_head_dim", s->delta_dim,
                             "linear_value_head_dim", s->delta_dim, "linear_conv_kernel_dim", s->kernel,
                             "num_experts", s->experts, "num_experts_per_tok", s->active_experts,
                             "moe_intermediate_size", s->expert_width, "shared_expert_intermediate_size", s->expert_width,
                             "rope_parameters", "rope_type", "default", "rope_theta", s->rope_theta, "partial_rotary_factor", 0.25,
                             "attention_bias", 0);
    bool good = more && json_object_update(config, more) == 0 && json_object_del(config, "rope_theta") == 0;
    json_decref(more);
    return good;
}

json_t *tq_shape_config(const tq_shape *s) {
    json_t *config = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:{s:i, s:i}}", "model_type", s->family,
                               "hidden_size", s->hidden, "intermediate_size", s->intermediate, "num_hidden_layers", s->n_layers,
                               "num_attention_heads", s->n_heads, "num_key_value_heads", s->n_kv_heads, "vocab_size", s->vocab,
                               "max_position_embeddings", MAX_CONTEXT, "rope_theta", s->rope_theta, "rms_norm_eps", 1e-6,
                               "tie_word_embeddings", (int)s->tied, "quantization", "bits", TQ_SYNTHETIC_BITS, "group_size",
                               TQ_SYNTHETIC_GROUP);
    if (!config || !s->interval || put_hybrid(config, s)) return config;
    json_decref(config);
    return NULL;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

typedef struct lister {
    const tq_shape *s;
    tq_synthetic_tensors *list;
    int layer; /* -1: not of a layer */
    bool failed;
} lister;

/* Of n matrices (0: not a stack), or with rows 0 a vector; `tail` is a last dimension of 1, which conv1d has. */
static void add(lister *l, tq_synthetic_kind kind, int64_t n, int64_t rows, int64_t cols, bool tail, const char *path, const char *part) {
    tq_synthetic_tensors *list = l->list;
    if (!l->failed && list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 256;
        tq_synthetic_tensor *grown = realloc(list->at, cap * sizeof *grown);
        l->failed = !grown;
        if (grown) list->at = grown, list->cap = cap;
    }
    if (l->failed) return;
    tq_synthetic_tensor *t = &list->at[list->n++];
    *t = (tq_synthetic_tensor){.kind = kind, .cols = cols};
    if (l->layer >= 0) snprintf(t->name, sizeof t->name, "model.layers.%d.%s%s", l->layer, path, part);
    else snprintf(t->name, sizeof t->name, "%s%s", path, part);
    bool constants = kind == TQ_SYNTHETIC_SCALES || kind == TQ_SYNTHETIC_BIASES;
    int64_t stored = kind == TQ_SYNTHETIC_CODES ? cols * TQ_SYNTHETIC_BITS / 32 : constants ? cols / TQ_SYNTHETIC_GROUP : cols;
    t->bytes = (size_t)stored * (kind == TQ_SYNTHETIC_CODES ? 4 : 2);
    if (n) t->shape[t->n_dims++] = n, t->bytes *= (size_t)n;
    if (rows) t->shape[t->n_dims++] = rows, t->bytes *= (size_t)rows;
    t->shape[t->n_dims++] = stored;
    if (tail) t->shape[t->n_dims++] = 1;
}

static void add_stack(lister *l, int64_t n, int64_t rows, int64_t cols, const char *path) {
    add(l, TQ_SYNTHETIC_CODES, n, rows, cols, false, path, ".weight");
    add(l, TQ_SYNTHETIC_SCALES, n, rows, cols, false, path, ".scales");
    add(l, TQ_SYNTHETIC_BIASES, n, rows, cols, false, path, ".biases");
}

static void add_matrix(lister *l, int64_t rows, int64_t cols, const char *path) { add_stack(l, 0, rows, cols, path); }
static void add_vector(lister *l, tq_synthetic_kind kind, int64_t n, const char *name) { add(l, kind, 0, 0, n, false, name, ""); }

static void add_attention(lister *l) {
    const tq_shape *s = l->s;
    int q = s->n_heads * head_dim(s), kv = s->n_kv_heads * head_dim(s);
    add_matrix(l, s->interval ? 2 * q : q, s->hidden, "self_attn.q_proj"); /* with a gate beside each head's query */
    add_matrix(l, kv, s->hidden, "self_attn.k_proj");
    add_matrix(l, kv, s->hidden, "self_attn.v_proj");
    add_matrix(l, s->hidden, q, "self_attn.o_proj");
    if (strcmp(s->family, "qwen2") == 0) {
        add_vector(l, TQ_SYNTHETIC_SHIFT, q, "self_attn.q_proj.bias");
        add_vector(l, TQ_SYNTHETIC_SHIFT, kv, "self_attn.k_proj.bias");
        add_vector(l, TQ_SYNTHETIC_SHIFT, kv, "self_attn.v_proj.bias");
    }
    if (!s->interval) return;
    add_vector(l, TQ_SYNTHETIC_NORM, s->head_dim, "self_attn.q_norm.weight");
    add_vector(l, TQ_SYNTHETIC_NORM, s->head_dim, "self_attn.k_norm.weight");
}

static void add_delta(lister *l) {
    const tq_shape *s = l->s;
    int keys = s->key_heads * s->delta_dim, values = s->value_heads * s->delta_dim;
    add_matrix(l, 2 * keys + values, s->hidden, "linear_attn.in_proj_qkv");
    add_matrix(l, values, s->hidden, "linear_attn.in_proj_z");
    add_matrix(l, s->value_heads, s->hidden, "linear_attn.in_proj_a");
    add_matrix(l, s->value_heads, s->hidden, "linear_attn.in_proj_b");
    add_matrix(l, s->hidden, values, "linear_attn.out_proj");
    add(l, TQ_SYNTHETIC_SHIFT, 0, 2 * keys + values, s->kernel, true, "linear_attn.conv1d", ".weight");
    add_vector(l, TQ_SYNTHETIC_DECAY, s->value_heads, "linear_attn.A_log");
    add_vector(l, TQ_SYNTHETIC_SHIFT, s->value_heads, "linear_attn.dt_bias");
    add_vector(l, TQ_SYNTHETIC_NORM, s->delta_dim, "linear_attn.norm.weight");
}

static void add_ffn(lister *l, int width, const char *module) {
    char path[64];
    static const char *const parts[] = {"gate_proj", "up_proj", "down_proj"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s.%s", module, parts[i]);
        add_matrix(l, i == 2 ? l->s->hidden : width, i == 2 ? width : l->s->hidden, path);
    }
}

static void add_experts(lister *l) {
    const tq_shape *s = l->s;
    add_matrix(l, s->experts, s->hidden, "mlp.gate");
    add_stack(l, s->experts, s->expert_width, s->hidden, "mlp.switch_mlp.gate_proj");
    add_stack(l, s->experts, s->expert_width, s->hidden, "mlp.switch_mlp.up_proj");
    add_stack(l, s->experts, s->hidden, s->expert_width, "mlp.switch_mlp.down_proj");
    add_ffn(l, s->expert_width, "mlp.shared_expert");
    add_matrix(l, 1, s->hidden, "mlp.shared_expert_gate");
}

bool tq_shape_tensors(const tq_shape *s, tq_synthetic_tensors *out) {
    lister l = {.s = s, .list = out, .layer = -1};
    add_matrix(&l, s->vocab, s->hidden, "model.embed_tokens");
    for (l.layer = 0; l.layer < s->n_layers; l.layer++) {
        if (s->interval && (l.layer + 1) % s->interval) add_delta(&l);
        else add_attention(&l);
        if (s->experts) add_experts(&l);
        else add_ffn(&l, s->intermediate, "mlp");
        add_vector(&l, TQ_SYNTHETIC_NORM, s->hidden, "input_layernorm.weight");
        add_vector(&l, TQ_SYNTHETIC_NORM, s->hidden, "post_attention_layernorm.weight");
    }
    l.layer = -1;
    add_vector(&l, TQ_SYNTHETIC_NORM, s->hidden, "model.norm.weight");
    if (!s->tied) add_matrix(&l, s->vocab, s->hidden, "lm_head");
    return !l.failed;
}
