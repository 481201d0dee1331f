/* config_gguf.c: a GGUF file's metadata as the config.json of the same model: the keys' names are another's, some facts
 * stand in the tensors.  What the config means is config.c's. */
#include "model/config_gguf.h"

#include <stdio.h>
#include <string.h>

/* A family is a row. */
static const struct architecture {
    const char *name, *model_type;
    const char *also; /* what the converter takes for granted, as JSON; NULL: nothing */
    bool exact_yarn;   /* the ramp of its yarn is not rounded to whole pairs */
    bool expert_width; /* experts and dense layers have widths of their own; else the file says one width twice */
    bool tiled_heads;  /* value heads of delta nets stand in turn: one of each key head, then the next of each */
} architectures[] = {
    {.name = "llama", .model_type = "llama"}, /* and mistral, mixtral */
    {.name = "qwen2", .model_type = "qwen2"},
    {.name = "qwen3", .model_type = "qwen3"},
    {.name = "qwen3moe", .model_type = "qwen3_moe", .also = "{\"norm_topk_prob\": true}", .expert_width = true},
    {.name = "qwen3next", .model_type = "qwen3_next", .also = "{\"norm_topk_prob\": true}", .expert_width = true},
    {.name = "qwen35", .model_type = "qwen3_5_text", .tiled_heads = true},
    {.name = "qwen35moe", .model_type = "qwen3_5_moe_text", .also = "{\"norm_topk_prob\": true}", .expert_width = true,
     .tiled_heads = true},
    {.name = "olmo2", .model_type = "olmo2"},
    {.name = "phi3", .model_type = "phi3"},
    {.name = "granite", .model_type = "granite"},
    {.name = "smollm3", .model_type = "smollm3"},
    {.name = "gemma2", .model_type = "gemma2"},
    {.name = "gemma3", .model_type = "gemma3_text"},
    {.name = "glm4", .model_type = "glm4", .also = "{\"attention_bias\": true}"},
    {.name = "gpt-oss", .model_type = "gpt_oss", .also = "{\"attention_bias\": true}", .exact_yarn = true},
};

/* "<architecture>.<gguf>" -> "<config>".  A missing key is left out: config.c knows which it needs. */
static const struct {
    const char *gguf, *config;
} keys[] = {
    {"block_count", "num_hidden_layers"},
    {"embedding_length", "hidden_size"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"attention.sliding_window", "sliding_window"},
    {"context_length", "max_position_embeddings"},
    {"rope.freq_base", "rope_theta"},
    {"expert_count", "num_experts"},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_feed_forward_length", "moe_intermediate_size"},
    {"expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
    {"full_attention_interval", "full_attention_interval"},
    {"ssm.conv_kernel", "linear_conv_kernel_dim"},
    {"ssm.state_size", "linear_key_head_dim"},
    {"ssm.group_count", "linear_num_key_heads"},
    {"ssm.time_step_rank", "linear_num_value_heads"},
    {"attn_logit_softcapping", "attn_logit_softcapping"},
    {"final_logit_softcapping", "final_logit_softcapping"},
    {"rope.freq_base_swa", "rope_local_base_freq"},
    {"attention.scale", "attention_multiplier"},
    {"embedding_scale", "embedding_multiplier"},
    {"residual_scale", "residual_multiplier"},
    {"logit_scale", "logits_scaling"},
};

enum { KEY_CAP = 160 };

typedef struct builder {
    const tq_gguf_model *files;
    const tq_gguf *head;
    json_t *config;
    tq_error *err;
} builder;

static tq_status put(const builder *b, const char *key, json_t *value) {
    if (value && json_object_set_new(b->config, key, value) == 0) return TQ_OK;
    return tq_fail(b->err, TQ_NO_MEMORY, "%s: out of memory for its config", b->head->label);
}

static const tq_gguf_entry *find(const builder *b, const char *key, char full[KEY_CAP]) {
    snprintf(full, KEY_CAP, "%.64s.%s", b->files->architecture, key);
    return tq_gguf_find(b->head, full);
}

/* A number; of an array (one a layer) the value that all share. */
static tq_status copy_key(const builder *b, const char *gguf, const char *config) {
    char key[KEY_CAP];
    const tq_gguf_entry *entry = find(b, gguf, key);
    if (!entry) return TQ_OK;
    if (entry->type == TQ_GGUF_STRING || entry->type == TQ_GGUF_BOOL || entry->n == 0)
        return tq_fail(b->err, TQ_FORMAT, "%s: %s: want a number", b->head->label, key);
    double first = tq_gguf_number_at(entry, 0);
    for (uint64_t i = 1; i < entry->n; i++)
        if (tq_gguf_number_at(entry, i) != first)
            return tq_fail(b->err, TQ_UNSUPPORTED, "%s: %s: layers that differ in it are not supported (%g and %g)",
                           b->head->label, key, first, tq_gguf_number_at(entry, i));
    if (tq_gguf_is_integer(entry->type)) return put(b, config, json_integer(tq_gguf_integer_at(entry, 0)));
    if (!(first > -1e300 && first < 1e300))
        return tq_fail(b->err, TQ_FORMAT, "%s: %s: want a finite number", b->head->label, key);
    return put(b, config, json_real(first));
}

/* Heads of values as wide as those of keys; a rotary part as wide as a head. */
static tq_status check_widths(const builder *b) {
    static const char *const same[] = {"attention.value_length", "rope.dimension_count"};
    json_int_t heads = json_integer_value(json_object_get(b->config, "num_attention_heads"));
    json_int_t hidden = json_integer_value(json_object_get(b->config, "hidden_size"));
    json_int_t width = json_integer_value(json_object_get(b->config, "head_dim"));
    if (!width && heads > 0) width = hidden / heads;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char key[KEY_CAP];
        bool found;
        int64_t value = 0;
        find(b, same[i], key);
        TQ_TRY(tq_gguf_integer(b->head, key, 1, 1 << 16, &found, &value, b->err));
        if (!found || value == width) continue;
        if (i == 0)
            return tq_fail(b->err, TQ_UNSUPPORTED, "%s: %s: want %lld as of keys, the file has %lld", b->head->label, key,
                           (long long)width, (long long)value);
        TQ_TRY(put(b, "partial_rotary_factor", json_real((double)value / (double)width)));
    }
    return TQ_OK;
}

/* A tensor of one divisor a rotated pair. */
static tq_status add_divisors(const builder *b, const char *name, const char *key) {
    const tq_tensor *tensor = tq_gguf_model_find(b->files, name);
    if (!tensor || tensor->dtype != TQ_F32 || tensor->n_dims != 1 || tensor->shape[0] > 1 << 16)
        return tq_fail(b->err, TQ_FORMAT, "%s: %s: want a vector of f32", b->head->label, name);
    json_t *list = json_array();
    TQ_TRY(put(b, key, list));
    for (int64_t i = 0; i < tensor->shape[0]; i++) {
        float divisor;
        memcpy(&divisor, (const uint8_t *)tensor->data + i * 4, sizeof divisor);
        if (!(divisor > 0 && divisor < 1e9f))
            return tq_fail(b->err, TQ_FORMAT, "%s: %s: want positive numbers, got %g", b->head->label, name, (double)divisor);
        if (json_array_append_new(list, json_real((double)divisor)) != 0)
            return tq_fail(b->err, TQ_NO_MEMORY, "%s: out of memory for its config", b->head->label);
    }
    return TQ_OK;
}

/* "rope.scaling.type": none, linear, yarn.  Tensors of divisors are a longrope; Llama 3's scaling stands there too, as
 * one list for all contexts. */
static tq_status add_rope(const builder *b, bool exact_yarn) {
    static const struct {
        const char *gguf, *config;
    } parts[] = {
        {"rope.scaling.factor", "factor"},
        {"rope.scaling.original_context_length", "original_max_position_embeddings"},
        {"rope.scaling.yarn_beta_fast", "beta_fast"},
        {"rope.scaling.yarn_beta_slow", "beta_slow"},
    };
    static const char one_name[] = "rope_freqs.weight", short_name[] = "rope_factors_short.weight",
                      long_name[] = "rope_factors_long.weight";
    char key[KEY_CAP];
    tq_gguf_string type;
    bool found;
    find(b, "rope.scaling.type", key);
    TQ_TRY(tq_gguf_text(b->head, key, &found, &type, b->err));
    bool plain = !found || (type.length == 4 && memcmp(type.text, "none", 4) == 0);
    bool divided = tq_gguf_model_find(b->files, short_name) != NULL, one = tq_gguf_model_find(b->files, one_name) != NULL;
    if (plain && !divided && !one) return TQ_OK;
    json_t *scaling = json_object();
    TQ_TRY(put(b, "rope_scaling", scaling));
    builder inner = *b;
    inner.config = scaling;
    if (divided || one) {
        TQ_TRY(put(&inner, "rope_type", json_string("longrope")));
        TQ_TRY(add_divisors(&inner, divided ? short_name : one_name, "short_factor"));
        TQ_TRY(add_divisors(&inner, divided ? long_name : one_name, "long_factor"));
        TQ_TRY(put(&inner, "attention_factor", json_real(1)));
        TQ_TRY(put(&inner, "original_max_position_embeddings",
                   json_incref(json_object_get(b->config, "max_position_embeddings"))));
        if (one) return TQ_OK;
        TQ_TRY(copy_key(&inner, "rope.scaling.original_context_length", "original_max_position_embeddings"));
        return copy_key(&inner, "rope.scaling.attn_factor", "attention_factor");
    }
    static const char *const ones[] = {"rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor",
                                       "rope.scaling.yarn_ext_factor"};
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++) {
        double value = 1;
        find(b, ones[i], key);
        TQ_TRY(tq_gguf_number(b->head, key, &found, &value, b->err));
        if (value != 1)
            return tq_fail(b->err, TQ_UNSUPPORTED, "%s: %s: only 1 is supported, the file has %g", b->head->label, key, value);
    }
    TQ_TRY(put(&inner, "rope_type", json_stringn(type.text, type.length)));
    if (exact_yarn) TQ_TRY(put(&inner, "truncate", json_false()));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) TQ_TRY(copy_key(&inner, parts[i].gguf, parts[i].config));
    return TQ_OK;
}

/* Which layers slide, where a list says it; Gemma's scale of queries, which follows from its size. */
static tq_status add_layers(const builder *b) {
    char key[KEY_CAP];
    const tq_gguf_entry *pattern = find(b, "attention.sliding_window_pattern", key);
    if (pattern && pattern->is_array) {
        if (pattern->type != TQ_GGUF_BOOL) return tq_fail(b->err, TQ_FORMAT, "%s: %s: want bools", b->head->label, key);
        json_t *types = json_array();
        TQ_TRY(put(b, "layer_types", types));
        for (uint64_t i = 0; i < pattern->n; i++)
            if (json_array_append_new(types, json_string(pattern->data[i] ? "sliding_attention" : "full_attention")) != 0)
                return tq_fail(b->err, TQ_NO_MEMORY, "%s: out of memory for its config", b->head->label);
    } else if (pattern) {
        TQ_TRY(copy_key(b, "attention.sliding_window_pattern", "sliding_window_pattern"));
    }
    if (strncmp(b->files->architecture, "gemma", 5) != 0) return TQ_OK;
    json_int_t n_layers = json_integer_value(json_object_get(b->config, "num_hidden_layers"));
    json_int_t heads = json_integer_value(json_object_get(b->config, "num_attention_heads"));
    json_int_t hidden = json_integer_value(json_object_get(b->config, "hidden_size"));
    bool largest = n_layers == (b->files->architecture[5] == '2' ? 46 : 62) && heads > 0; /* the models of 27B */
    json_t *width = json_object_get(b->config, "head_dim");
    return put(b, "query_pre_attn_scalar", largest ? json_integer(hidden / heads) : json_incref(width));
}

/* Layers that predict further tokens are counted, and stand last; the width of a value head follows. */
static tq_status add_delta(const builder *b) {
    char key[KEY_CAP];
    bool found;
    int64_t extra = 0, inner = 0;
    json_int_t n_layers = json_integer_value(json_object_get(b->config, "num_hidden_layers"));
    find(b, "nextn_predict_layers", key);
    TQ_TRY(tq_gguf_integer(b->head, key, 0, n_layers, &found, &extra, b->err));
    if (extra > 0) TQ_TRY(put(b, "num_hidden_layers", json_integer(n_layers - extra)));
    find(b, "ssm.inner_size", key);
    TQ_TRY(tq_gguf_integer(b->head, key, 1, 1 << 24, &found, &inner, b->err));
    json_int_t heads = json_integer_value(json_object_get(b->config, "linear_num_value_heads"));
    if (!found) return TQ_OK;
    if (heads < 1 || inner % heads)
        return tq_fail(b->err, TQ_FORMAT, "%s: %s: want a multiple of %lld heads, the file has %lld", b->head->label, key,
                       (long long)heads, (long long)inner);
    return put(b, "linear_value_head_dim", json_integer(inner / heads));
}

/* The architecture llama is three families: experts make it mixtral, windows mistral. */
static const char *family_of(const builder *b, const struct architecture *row) {
    if (strcmp(row->name, "llama") != 0) return row->model_type;
    return json_integer_value(json_object_get(b->config, "num_experts")) > 0     ? "mixtral"
           : json_integer_value(json_object_get(b->config, "sliding_window")) > 0 ? "mistral"
                                                                                  : row->model_type;
}

/* What only the tensors tell. */
static tq_status add_facts(const builder *b) {
    const tq_tensor *embedding = tq_gguf_model_find(b->files, "model.embed_tokens.weight");
    if (!embedding || embedding->n_dims != 2)
        return tq_fail(b->err, TQ_FORMAT, "%s: want a matrix token_embd.weight", b->head->label);
    TQ_TRY(put(b, "vocab_size", json_integer(embedding->shape[0])));
    TQ_TRY(put(b, "tie_word_embeddings", json_boolean(!tq_gguf_model_find(b->files, "lm_head.weight"))));
    if (!json_object_get(b->config, "attention_bias"))
        TQ_TRY(put(b, "attention_bias",
                   json_boolean(tq_gguf_model_find(b->files, "model.layers.0.self_attn.o_proj.bias") != NULL)));
    return put(b, "mlp_bias", json_boolean(tq_gguf_model_find(b->files, "model.layers.0.mlp.down_proj.bias") != NULL));
}

/* Before config.c sees "vocab_size": a vocabulary of another length than the embedding is another model's. */
static tq_status check_vocabulary(const builder *b) {
    const tq_gguf_entry *tokens = tq_gguf_find(b->head, "tokenizer.ggml.tokens");
    json_int_t vocab = json_integer_value(json_object_get(b->config, "vocab_size"));
    if (!tokens || tokens->n <= (uint64_t)vocab) return TQ_OK;
    return tq_fail(b->err, TQ_FORMAT, "%s: %llu tokens, but the embedding has %lld rows", b->head->label,
                   (unsigned long long)tokens->n, (long long)vocab);
}

static const struct architecture *find_architecture(const tq_gguf_model *files) {
    for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++)
        if (strcmp(files->architecture, architectures[i].name) == 0) return &architectures[i];
    return NULL;
}

bool tq_gguf_has_tiled_heads(const tq_gguf_model *files) {
    const struct architecture *row = find_architecture(files);
    return row && row->tiled_heads;
}

static tq_status build(const builder *b) {
    const struct architecture *row = find_architecture(b->files);
    if (!row) {
        char names[512] = "";
        for (size_t i = 0, used = 0; i < sizeof architectures / sizeof *architectures && used < sizeof names; i++)
            used += (size_t)snprintf(names + used, sizeof names - used, i ? ", %s" : "%s", architectures[i].name);
        return tq_fail(b->err, TQ_UNSUPPORTED, "%s: architecture \"%s\" is not supported: want one of %s", b->head->label,
                       b->files->architecture, names);
    }
    if (row->also) {
        json_t *also = json_loads(row->also, 0, NULL);
        bool done = also && json_object_update(b->config, also) == 0;
        json_decref(also);
        if (!done) return tq_fail(b->err, TQ_NO_MEMORY, "%s: out of memory for its config", b->head->label);
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) TQ_TRY(copy_key(b, keys[i].gguf, keys[i].config));
    TQ_TRY(put(b, "model_type", json_string(family_of(b, row))));
    if (!row->expert_width) json_object_del(b->config, "moe_intermediate_size");
    TQ_TRY(add_delta(b));
    TQ_TRY(check_widths(b));
    TQ_TRY(add_rope(b, row->exact_yarn));
    TQ_TRY(add_layers(b));
    TQ_TRY(add_facts(b));
    return check_vocabulary(b);
}

tq_status tq_config_from_gguf(const tq_gguf_model *files, json_t **out, tq_error *err) {
    *out = NULL;
    builder b = {files, tq_gguf_model_head(files), json_object(), err};
    if (!b.config) return tq_fail(err, TQ_NO_MEMORY, "%s: out of memory for its config", b.head->label);
    tq_status status = build(&b);
    if (status == TQ_OK) *out = b.config;
    else json_decref(b.config);
    return status;
}
