/* config.c: config.json -> tq_config: the table of families, sizes, layers, and what is refused. */
#include "model/config.h"

#include <math.h>
#include <string.h>

#include "model/config_reader.h"

/* ---- families ------------------------------------------------------------------------------------------------------ */

static const tq_norm_names in_norms = {"input_layernorm", NULL, "post_attention_layernorm", NULL};
static const tq_norm_names out_norms = {NULL, "post_attention_layernorm", NULL, "post_feedforward_layernorm"};
static const tq_norm_names gemma_norms = {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                                          "post_feedforward_layernorm"};
static const tq_norm_names glm_norms = {"input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm",
                                        "post_mlp_layernorm"};

static const tq_moe_config qwen_moe = {.module = "mlp", .router = "gate", .gate = "gate_proj", .up = "up_proj", .down = "down_proj"};
static const tq_moe_config mixtral_moe = {.renormalize = true, .module = "block_sparse_moe", .router = "gate",
                                          .gate = "w1", .up = "w3", .down = "w2"};
static const tq_moe_config gpt_oss_moe = {.renormalize = true, .router_bias = true, .expert_bias = true, .module = "mlp",
                                          .router = "router", .gate = "gate_proj", .up = "up_proj", .down = "down_proj"};

/* Where "attention_bias" true puts biases, or where they are whatever it says. */
typedef enum bias_rule { BIAS_AS_SAID, BIAS_QKV_AS_SAID, BIAS_QKV_ALWAYS, BIAS_NEVER } bias_rule;

/* Which layers slide where "layer_types" does not say. */
typedef enum slide_rule {
    SLIDE_ALL,          /* with a "sliding_window" */
    SLIDE_IF_USED,      /* with "use_sliding_window": from layer max_window_layers on */
    SLIDE_EVEN,         /* layers 0, 2, ... */
    SLIDE_BY_PATTERN,   /* all but each sliding_window_pattern'th */
    SLIDE_NEVER
} slide_rule;

/* What a family's code has that its config.json does not say.  defaults: JSON of keys that a file may leave out. */
typedef struct family {
    const char *type, *name; /* model_type; what it is called here */
    const tq_norm_names *norms;
    const tq_moe_config *moe; /* NULL: no experts */
    const char *defaults;
    tq_activation activation;
    tq_qk_norm qk_norm;
    bias_rule bias;
    slide_rule slide;
    bool offset_norms;    /* files hold weight - 1 */
    bool gemma_scales;    /* embeddings times sqrt(hidden); query_pre_attn_scalar; caps */
    bool granite_scales;  /* the four multipliers */
    bool hybrid;          /* delta layers, gated attention; files of MLX hold norms as they are used */
    bool adjacent_pairs, learned_sinks, skips_ropes;
} family;

#define QWEN3_5_DEFAULTS                                                                                               \
    "{\"full_attention_interval\": 4, \"linear_conv_kernel_dim\": 4, \"partial_rotary_factor\": 0.25, "                \
    "\"norm_topk_prob\": true}"
#define GEMMA3_DEFAULTS                                                                                                \
    "{\"num_attention_heads\": 8, \"num_key_value_heads\": 4, \"head_dim\": 256, \"vocab_size\": 262208, "             \
    "\"max_position_embeddings\": 131072, \"rope_theta\": 1000000.0, \"rope_local_base_freq\": 10000.0, "              \
    "\"query_pre_attn_scalar\": 256, \"sliding_window\": 4096, \"sliding_window_pattern\": 6, "                        \
    "\"tie_word_embeddings\": true}"

static const family families[] = {
    {"llama", "llama", .norms = &in_norms, .bias = BIAS_AS_SAID, .slide = SLIDE_NEVER},
    {"mistral", "mistral", .norms = &in_norms, .bias = BIAS_NEVER, .slide = SLIDE_ALL},
    {"ministral3", "ministral3", .norms = &in_norms, .bias = BIAS_NEVER, .slide = SLIDE_ALL},
    {"qwen2", "qwen2", .norms = &in_norms, .bias = BIAS_QKV_ALWAYS, .slide = SLIDE_IF_USED},
    {"qwen3", "qwen3", .norms = &in_norms, .qk_norm = TQ_QK_NORM_HEAD, .slide = SLIDE_IF_USED},
    {"qwen3_moe", "qwen3_moe", .norms = &in_norms, .moe = &qwen_moe, .qk_norm = TQ_QK_NORM_HEAD, .slide = SLIDE_IF_USED},
    {"mixtral", "mixtral", .norms = &in_norms, .moe = &mixtral_moe, .bias = BIAS_NEVER, .slide = SLIDE_ALL},
    {"qwen3_next", "qwen3_next", .norms = &in_norms, .moe = &qwen_moe, .qk_norm = TQ_QK_NORM_HEAD, .slide = SLIDE_NEVER,
     .offset_norms = true, .hybrid = true, .defaults = QWEN3_5_DEFAULTS},
    {"qwen3_5_text", "qwen3_5", .norms = &in_norms, .qk_norm = TQ_QK_NORM_HEAD, .slide = SLIDE_NEVER, .offset_norms = true,
     .hybrid = true, .defaults = QWEN3_5_DEFAULTS},
    {"qwen3_5_moe_text", "qwen3_5_moe", .norms = &in_norms, .moe = &qwen_moe, .qk_norm = TQ_QK_NORM_HEAD,
     .slide = SLIDE_NEVER, .offset_norms = true, .hybrid = true, .defaults = QWEN3_5_DEFAULTS},
    {"gemma2", "gemma2", .norms = &gemma_norms, .activation = TQ_ACTIVATION_GELU, .slide = SLIDE_EVEN, .offset_norms = true,
     .gemma_scales = true,
     .defaults = "{\"tie_word_embeddings\": true, \"query_pre_attn_scalar\": 256, \"sliding_window\": 4096, "
                 "\"attn_logit_softcapping\": 50.0, \"final_logit_softcapping\": 30.0, \"head_dim\": 256}"},
    {"gemma3_text", "gemma3", .norms = &gemma_norms, .activation = TQ_ACTIVATION_GELU, .qk_norm = TQ_QK_NORM_HEAD,
     .slide = SLIDE_BY_PATTERN, .offset_norms = true, .gemma_scales = true, .defaults = GEMMA3_DEFAULTS},
    {"phi3", "phi3", .norms = &in_norms, .bias = BIAS_NEVER, .slide = SLIDE_ALL},
    {"olmo2", "olmo2", .norms = &out_norms, .qk_norm = TQ_QK_NORM_ROW, .slide = SLIDE_NEVER},
    {"smollm3", "smollm3", .norms = &in_norms, .slide = SLIDE_NEVER, .skips_ropes = true},
    {"granite", "granite", .norms = &in_norms, .slide = SLIDE_NEVER, .granite_scales = true},
    {"glm4", "glm4", .norms = &glm_norms, .bias = BIAS_QKV_AS_SAID, .slide = SLIDE_NEVER, .adjacent_pairs = true,
     .defaults = "{\"partial_rotary_factor\": 0.5}"},
    {"gpt_oss", "gpt_oss", .norms = &in_norms, .moe = &gpt_oss_moe, .activation = TQ_ACTIVATION_CLAMPED_SWIGLU,
     .slide = SLIDE_EVEN, .learned_sinks = true,
     .defaults = "{\"attention_bias\": true, \"rms_norm_eps\": 1e-5, \"head_dim\": 64}"},
};

/* "qwen3_5" is what the text model's wrapper and GGUF-like exports call it too. */
static bool is_type(const family *f, const char *type) { return strcmp(f->type, type) == 0 || strcmp(f->name, type) == 0; }

static tq_status find_family(const tq_config_reader *r, const char *type, const family **out) {
    enum { N = sizeof families / sizeof *families };
    char names[512] = "";
    for (int i = 0; i < N; i++) {
        if (is_type(&families[i], type)) {
            *out = &families[i];
            return TQ_OK;
        }
        if (i) strcat(names, i == N - 1 ? " or " : ", ");
        strcat(names, families[i].name);
    }
    return tq_fail(r->err, TQ_UNSUPPORTED, "%s: model_type \"%.60s\" is not supported: want %s", r->label, type, names);
}

/* ---- what is refused ------------------------------------------------------------------------------------------------- */

/* Settings that change what some model computes.  Those that a family's reader did not ask for must be absent or say
 * that nothing happens: null, false, 0, 1 or an empty list. */
static const char *const maths_keys[] = {
    "alibi", "attention_chunk_size", "attention_multiplier", "attn_logit_softcapping", "attn_temperature_tuning",
    "clip_qkv", "conv_bias", "cross_layer_attention", "embedding_multiplier", "first_k_dense_replace",
    "final_logit_softcapping", "full_attention_interval", "kv_lora_rank", "layer_types", "linear_num_value_heads",
    "local_rope_theta", "logit_scale", "logits_scaling", "mamba_d_state", "moe_intermediate_size", "n_group",
    "n_routed_experts", "n_shared_experts", "no_rope_layers", "num_experts", "num_kv_shared_layers", "num_local_experts",
    "parallel_attn", "position_embedding_type", "q_lora_rank", "qk_layernorm", "qk_norm", "query_pre_attn_scalar",
    "residual_multiplier", "rope_interleave", "routed_scaling_factor", "scale_depth", "scale_emb",
    "shared_expert_intermediate_size", "shared_intermediate_size", "sliding_window_pattern", "topk_group", "use_alibi",
    "use_bidirectional_attention", "use_mup", "use_parallel_residual", "use_qk_norm", "v_head_dim",
};

static bool says_nothing(const json_t *value) {
    if (json_is_number(value)) return json_number_value(value) == 0 || json_number_value(value) == 1;
    return json_is_null(value) || json_is_false(value) || (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_string(value) && (strcmp(json_string_value(value), "rope") == 0 ||
                                      strcmp(json_string_value(value), "full_attention") == 0));
}

static tq_status check_unread(const tq_config_reader *r, const char *name) {
    for (size_t i = 0; i < sizeof maths_keys / sizeof *maths_keys; i++) {
        const json_t *value = json_object_get(r->json, maths_keys[i]);
        if (value && !tq_config_was_read(r, maths_keys[i]) && !says_nothing(value))
            return tq_fail(r->err, TQ_UNSUPPORTED, "%s: the setting \"%s\" is not supported in family %s", r->label,
                           maths_keys[i], name);
    }
    return TQ_OK;
}

/* ---- parts --------------------------------------------------------------------------------------------------------- */

static tq_status read_sizes(tq_config_reader *r, const family *f, tq_config *c) {
    TQ_TRY(tq_config_int(r, "num_hidden_layers", 1, TQ_MAX_LAYERS, 0, &c->n_layers));
    tq_config_set_defaults(c);
    TQ_TRY(tq_config_int(r, "hidden_size", 1, 1 << 17, 0, &c->hidden));
    bool all_moe = f->moe && strcmp(f->name, "qwen3_5_moe") == 0; /* its files may leave out what no layer has */
    TQ_TRY(tq_config_int(r, "intermediate_size", 1, 1 << 20, all_moe ? 1 : 0, &c->intermediate));
    TQ_TRY(tq_config_int(r, "num_attention_heads", 1, 4096, 0, &c->n_heads));
    TQ_TRY(tq_config_int(r, "num_key_value_heads", 1, 4096, c->n_heads, &c->n_kv_heads));
    TQ_TRY(tq_config_int(r, "vocab_size", 1, 1 << 24, 0, &c->vocab));
    TQ_TRY(tq_config_int(r, "max_position_embeddings", 1, 1 << 28, 0, &c->max_context));
    if (!tq_config_value(r, "head_dim") && c->hidden % c->n_heads)
        return tq_fail(r->err, TQ_FORMAT, "%s: hidden size %d is not a multiple of %d heads", r->label, c->hidden, c->n_heads);
    int derived = c->hidden / c->n_heads;
    TQ_TRY(tq_config_int(r, "head_dim", 4, 1024, derived >= 4 ? derived : 4, &c->head_dim));
    TQ_TRY(tq_config_float(r, "rms_norm_eps", 0, 1, 1e-6, &c->rms_eps));
    c->tie_unless_head = !tq_config_value(r, "tie_word_embeddings");
    return tq_config_bool(r, "tie_word_embeddings", false, &c->tie_embeddings);
}

static tq_status read_attention(tq_config_reader *r, const family *f, tq_config *c) {
    bool said = false;
    if (f->bias != BIAS_NEVER) TQ_TRY(tq_config_bool(r, "attention_bias", false, &said));
    c->qkv_bias = f->bias == BIAS_QKV_ALWAYS || said;
    c->out_bias = f->bias == BIAS_AS_SAID && said;
    c->qk_norm = f->qk_norm;
    c->learned_sinks = f->learned_sinks;
    c->output_gate = f->hybrid;
    return f->hybrid ? tq_config_bool(r, "attn_output_gate", true, &c->output_gate) : TQ_OK;
}

static tq_status read_scales(tq_config_reader *r, const family *f, tq_config *c) {
    if (f->gemma_scales) {
        double scalar;
        c->embedding_scale = sqrtf((float)c->hidden);
        TQ_TRY(tq_config_number(r, "query_pre_attn_scalar", 1e-3, 1e6, 0, &scalar));
        c->attention_scale = (float)(1 / sqrt(scalar));
        TQ_TRY(tq_config_float(r, "attn_logit_softcapping", 0, 1e6, 0, &c->attention_cap));
        TQ_TRY(tq_config_float(r, "final_logit_softcapping", 0, 1e6, 0, &c->logit_cap));
    }
    if (f->granite_scales) {
        double divisor;
        TQ_TRY(tq_config_float(r, "embedding_multiplier", 1e-6, 1e6, 1, &c->embedding_scale));
        TQ_TRY(tq_config_float(r, "residual_multiplier", 1e-6, 1e6, 1, &c->residual_scale));
        TQ_TRY(tq_config_float(r, "attention_multiplier", 1e-6, 1e6, 1, &c->attention_scale));
        TQ_TRY(tq_config_number(r, "logits_scaling", 1e-6, 1e6, 1, &divisor));
        c->logit_scale = (float)(1 / divisor);
    }
    return TQ_OK;
}

static tq_status read_activation(tq_config_reader *r, const family *f, tq_config *c) {
    static const struct {
        const char *name;
        tq_activation activation;
    } names[] = {{"silu", TQ_ACTIVATION_SILU}, {"swish", TQ_ACTIVATION_SILU}, {"gelu_pytorch_tanh", TQ_ACTIVATION_GELU}};
    const char *keys[] = {"hidden_activation", "hidden_act"}, *name = NULL, *key = NULL;
    c->gating.activation = f->activation;
    for (int i = 0; i < 2 && !name; i++) TQ_TRY(tq_config_string(r, key = keys[i], &name));
    if (f->activation == TQ_ACTIVATION_CLAMPED_SWIGLU) {
        TQ_TRY(tq_config_float(r, "swiglu_alpha", 0, 1e3, 1.702, &c->gating.alpha));
        TQ_TRY(tq_config_float(r, "swiglu_limit", 1e-3, 1e6, 7, &c->gating.limit));
        if (!name || strcmp(name, "silu") == 0) return TQ_OK; /* their name for it */
    }
    if (!name) return TQ_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i].name) == 0) {
            c->gating.activation = names[i].activation;
            return TQ_OK;
        }
    return tq_fail(r->err, TQ_UNSUPPORTED,
                   "%s: \"%s\": only \"silu\" and \"gelu_pytorch_tanh\" are supported, the file has \"%.60s\"", r->label,
                   key, name);
}

static bool is_listed(const json_t *list, int n) {
    size_t i;
    const json_t *entry;
    json_array_foreach(list, i, entry) if (json_is_integer(entry) && json_integer_value(entry) == n) return true;
    return false;
}

static tq_status read_experts(tq_config_reader *r, const family *f, tq_config *c) {
    if (!f->moe) return TQ_OK;
    tq_moe_config *m = &c->moe;
    *m = *f->moe;
    const char *count = tq_config_value(r, "num_experts") ? "num_experts" : "num_local_experts";
    TQ_TRY(tq_config_int(r, count, 1, 65536, 0, &m->n_experts));
    tq_config_value(r, "num_experts"), tq_config_value(r, "num_local_experts"); /* one means the other */
    TQ_TRY(tq_config_int(r, "num_experts_per_tok", 1, 256, 0, &m->n_active));
    if (m->n_active > m->n_experts)
        return tq_fail(r->err, TQ_FORMAT, "%s: %d experts a token, but there are %d", r->label, m->n_active, m->n_experts);
    m->intermediate = c->intermediate;
    if (f->moe == &qwen_moe) {
        int step;
        TQ_TRY(tq_config_int(r, "moe_intermediate_size", 1, 1 << 20, 0, &m->intermediate));
        TQ_TRY(tq_config_bool(r, "norm_topk_prob", false, &m->renormalize));
        TQ_TRY(tq_config_int(r, "decoder_sparse_step", 1, TQ_MAX_LAYERS, 1, &step));
        if (f->hybrid) TQ_TRY(tq_config_int(r, "shared_expert_intermediate_size", 0, 1 << 20, 0, &m->shared_intermediate));
        const json_t *dense = tq_config_value(r, "mlp_only_layers");
        for (int l = 0; l < c->n_layers; l++) c->layers[l].moe = (l + 1) % step == 0 && !is_listed(dense, l);
    } else {
        for (int l = 0; l < c->n_layers; l++) c->layers[l].moe = true;
    }
    return TQ_OK;
}

static tq_status read_delta(tq_config_reader *r, const family *f, tq_config *c) {
    if (!f->hybrid) return TQ_OK;
    tq_delta_config *d = &c->delta;
    TQ_TRY(tq_config_int(r, "linear_num_key_heads", 1, 4096, 0, &d->n_key_heads));
    TQ_TRY(tq_config_int(r, "linear_num_value_heads", 1, 4096, 0, &d->n_value_heads));
    TQ_TRY(tq_config_int(r, "linear_key_head_dim", 1, 1024, 0, &d->key_dim));
    TQ_TRY(tq_config_int(r, "linear_value_head_dim", 1, 1024, 0, &d->value_dim));
    TQ_TRY(tq_config_int(r, "linear_conv_kernel_dim", 1, 64, 0, &d->kernel));
    int interval;
    TQ_TRY(tq_config_int(r, "full_attention_interval", 1, TQ_MAX_LAYERS, 0, &interval));
    for (int l = 0; l < c->n_layers; l++)
        c->layers[l].mixer = (l + 1) % interval == 0 ? TQ_MIXER_ATTENTION : TQ_MIXER_DELTA;
    return TQ_OK;
}

/* Whether layer l slides where layer_types does not say. */
static bool slides(const family *f, int l, int first, int pattern) {
    switch (f->slide) {
    case SLIDE_ALL: return true;
    case SLIDE_IF_USED: return l >= first;
    case SLIDE_EVEN: return l % 2 == 0;
    case SLIDE_BY_PATTERN: return (l + 1) % pattern != 0;
    case SLIDE_NEVER: break;
    }
    return false;
}

/* Mixers and windows; which rope is for read_ropes to say. */
static tq_status read_layers(tq_config_reader *r, const family *f, tq_config *c) {
    int window, first = 0, pattern = 1;
    bool used = f->slide != SLIDE_IF_USED, said = false;
    TQ_TRY(tq_config_bool(r, "use_sliding_window", used, &said));
    TQ_TRY(tq_config_int(r, "sliding_window", 0, 1 << 28, 0, &window));
    if (f->slide == SLIDE_IF_USED) TQ_TRY(tq_config_int(r, "max_window_layers", 0, 1 << 20, 0, &first));
    if (f->slide == SLIDE_BY_PATTERN) {
        const char *key = tq_config_value(r, "_sliding_window_pattern") ? "_sliding_window_pattern" : "sliding_window_pattern";
        TQ_TRY(tq_config_int(r, key, 1, TQ_MAX_LAYERS, 6, &pattern));
        tq_config_value(r, "sliding_window_pattern");
    }
    if (f->slide == SLIDE_NEVER && tq_config_value(r, "use_sliding_window") && said)
        return tq_fail(r->err, TQ_UNSUPPORTED, "%s: sliding windows are not supported in family %s", r->label, f->name);
    const json_t *types = tq_config_value(r, "layer_types");
    if (types && (!json_is_array(types) || (int)json_array_size(types) != c->n_layers))
        return tq_fail(r->err, TQ_FORMAT, "%s: \"layer_types\": want a list of %d", r->label, c->n_layers);
    for (int l = 0; l < c->n_layers; l++) {
        bool slide = said && window > 0 && slides(f, l, first, pattern);
        if (types) {
            const char *type = json_string_value(json_array_get(types, (size_t)l));
            slide = type && strcmp(type, "sliding_attention") == 0 && f->slide != SLIDE_NEVER;
            bool delta = type && strcmp(type, "linear_attention") == 0 && f->hybrid;
            if (!slide && !delta && (!type || strcmp(type, "full_attention") != 0))
                return tq_fail(r->err, TQ_UNSUPPORTED, "%s: layer type \"%.40s\" is not supported in family %s", r->label,
                               type ? type : "?", f->name);
            if (slide && window == 0)
                return tq_fail(r->err, TQ_FORMAT, "%s: layer %d slides, but \"sliding_window\" is missing", r->label, l);
            c->layers[l].mixer = delta ? TQ_MIXER_DELTA : TQ_MIXER_ATTENTION;
        }
        c->layers[l].window = slide ? window : 0;
    }
    return TQ_OK;
}

static tq_status read_ropes(tq_config_reader *r, const family *f, tq_config *c) {
    int sliding;
    TQ_TRY(tq_config_ropes(r, f->adjacent_pairs, c, &sliding));
    for (int l = 0; l < c->n_layers; l++) c->layers[l].rope = (uint8_t)(c->layers[l].window ? sliding : 0);
    if (!f->skips_ropes) return TQ_OK;
    int interval;
    TQ_TRY(tq_config_int(r, "no_rope_layer_interval", 1, 1 << 20, 4, &interval));
    const json_t *list = tq_config_value(r, "no_rope_layers"); /* 1: the layer has one */
    if (list && (!json_is_array(list) || (int)json_array_size(list) != c->n_layers))
        return tq_fail(r->err, TQ_FORMAT, "%s: \"no_rope_layers\": want a list of %d", r->label, c->n_layers);
    for (int l = 0; l < c->n_layers; l++) {
        bool has = list ? json_integer_value(json_array_get(list, (size_t)l)) != 0 : (l + 1) % interval != 0;
        if (!has) c->layers[l].rope = TQ_NO_ROPE;
    }
    return TQ_OK;
}

static tq_status read_all(tq_config_reader *r, const family *f, tq_config *c) {
    c->family = f->name;
    TQ_TRY(read_sizes(r, f, c));
    c->norms = *f->norms;
    c->norm_offset = f->offset_norms ? 1 : 0;
    c->mlx_has_offset = f->hybrid;
    TQ_TRY(tq_config_bool(r, "mlp_bias", false, &c->mlp_bias));
    TQ_TRY(read_attention(r, f, c));
    TQ_TRY(read_scales(r, f, c));
    TQ_TRY(read_activation(r, f, c));
    TQ_TRY(read_experts(r, f, c));
    TQ_TRY(read_delta(r, f, c));
    TQ_TRY(read_layers(r, f, c));
    TQ_TRY(read_ropes(r, f, c));
    TQ_TRY(check_unread(r, f->name));
    return tq_config_complete(c, r->label, r->err);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------- */

void tq_config_set_defaults(tq_config *c) {
    c->embedding_scale = c->residual_scale = c->logit_scale = 1;
    c->norms = in_norms;
    for (int l = 0; l < c->n_layers; l++) c->layers[l] = (tq_layer_config){.mixer = TQ_MIXER_ATTENTION};
}

tq_status tq_config_complete(tq_config *c, const char *label, tq_error *err) {
    if (c->n_heads % c->n_kv_heads)
        return tq_fail(err, TQ_FORMAT, "%s: %d attention heads are not a multiple of %d KV heads", label, c->n_heads,
                       c->n_kv_heads);
    if (c->head_dim % 2) return tq_fail(err, TQ_FORMAT, "%s: head_dim: want an even number, got %d", label, c->head_dim);
    if (c->attention_scale == 0) c->attention_scale = (float)(1 / sqrt(c->head_dim));
    c->n_attention_layers = c->n_delta_layers = 0;
    for (int l = 0; l < c->n_layers; l++) {
        if (c->layers[l].mixer == TQ_MIXER_DELTA) c->n_delta_layers++;
        else c->n_attention_layers++;
    }
    if (c->n_attention_layers == 0) return tq_fail(err, TQ_UNSUPPORTED, "%s: no layer is attention", label);
    if (c->n_delta_layers > 0 && c->delta.n_value_heads % c->delta.n_key_heads)
        return tq_fail(err, TQ_FORMAT, "%s: %d value heads are not a multiple of %d key heads", label,
                       c->delta.n_value_heads, c->delta.n_key_heads);
    return TQ_OK;
}

/* The text model's part of a config: itself, or its "text_config" with what only the whole says. */
static json_t *text_part(const json_t *json) {
    const json_t *text = json_object_get(json, "text_config");
    if (!json_is_object(text)) return json_copy((json_t *)(uintptr_t)json);
    json_t *part = json_copy((json_t *)(uintptr_t)text);
    static const char *const whole[] = {"model_type", "tie_word_embeddings"};
    for (size_t i = 0; part && i < sizeof whole / sizeof *whole; i++) {
        json_t *value = json_object_get(json, whole[i]);
        if (value && !json_object_get(part, whole[i])) json_object_set(part, whole[i], value);
    }
    return part;
}

tq_status tq_config_read(const json_t *json, const char *label, tq_config *out, tq_error *err) {
    *out = (tq_config){0};
    if (!json_is_object(json)) return tq_fail(err, TQ_FORMAT, "%s: want a JSON object", label);
    json_t *part = text_part(json);
    if (!part) return tq_fail_memory(err, 1, "a config");
    tq_config_reader r = {.json = part, .label = label, .err = err};
    const char *type = json_string_value(tq_config_value(&r, "model_type"));
    const family *f = NULL;
    tq_status status = type ? find_family(&r, type, &f) : tq_fail(err, TQ_FORMAT, "%s: \"model_type\" is missing", label);
    if (status == TQ_OK && f->defaults) {
        json_t *defaults = json_loads(f->defaults, 0, NULL);
        if (!defaults || json_object_update_missing(part, defaults) != 0) status = tq_fail_memory(err, 1, "a config");
        json_decref(defaults);
    }
    if (status == TQ_OK) status = read_all(&r, f, out);
    json_decref(part);
    return status;
}
