/* config.c: config.json -> tq_config.  Reads the old form (rope_theta, rope_scaling) and the new (rope_parameters). */
#include "model/config.h"

#include <math.h>
#include <string.h>

/* What a family's code has that its config.json does not say. */
static const struct family {
    const char *name;
    bool qkv_bias;
} families[] = {
    {"llama", false},
    {"qwen2", true},
};

/* ---- typed access -------------------------------------------------------------------------------------------------- */

typedef struct reader {
    const json_t *json;
    const char *label;
    tq_error *err;
} reader;

/* An integer from low to high; absent or null: fallback, or an error if fallback < low. */
static tq_status read_int(const reader *r, const char *key, int low, int high, int fallback, int *out) {
    const json_t *value = json_object_get(r->json, key);
    if (!value || json_is_null(value)) {
        if (fallback < low) return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\" is missing", r->label, key);
        *out = fallback;
        return TQ_OK;
    }
    if (!json_is_integer(value)) return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want an integer", r->label, key);
    json_int_t n = json_integer_value(value);
    if (n < low || n > high)
        return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want %d to %d, got %lld", r->label, key, low, high, (long long)n);
    *out = (int)n;
    return TQ_OK;
}

static tq_status read_number(const reader *r, const char *key, double low, double high, double fallback, double *out) {
    const json_t *value = json_object_get(r->json, key);
    if (!value || json_is_null(value)) {
        if (fallback < low) return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\" is missing", r->label, key);
        *out = fallback;
        return TQ_OK;
    }
    if (!json_is_number(value)) return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want a number", r->label, key);
    *out = json_number_value(value);
    if (!(*out >= low && *out <= high))
        return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want %g to %g, got %g", r->label, key, low, high, *out);
    return TQ_OK;
}

static tq_status read_bool(const reader *r, const char *key, bool fallback, bool *out) {
    const json_t *value = json_object_get(r->json, key);
    if (value && !json_is_null(value) && !json_is_boolean(value))
        return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want true or false", r->label, key);
    *out = json_is_boolean(value) ? json_is_true(value) : fallback;
    return TQ_OK;
}

/* Absent, null, or exactly `want`. */
static tq_status want_string(const reader *r, const char *key, const char *want) {
    const json_t *value = json_object_get(r->json, key);
    if (!value || json_is_null(value)) return TQ_OK;
    if (!json_is_string(value)) return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want a string", r->label, key);
    if (strcmp(json_string_value(value), want) != 0)
        return tq_fail(r->err, TQ_UNSUPPORTED, "%s: \"%s\": only \"%s\" is supported, the file has \"%.60s\"", r->label, key,
                       want, json_string_value(value));
    return TQ_OK;
}

/* ---- parts --------------------------------------------------------------------------------------------------------- */

static tq_status read_family(const reader *r, const struct family **out) {
    const char *type = json_string_value(json_object_get(r->json, "model_type"));
    if (!type) return tq_fail(r->err, TQ_FORMAT, "%s: \"model_type\" is missing", r->label);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(type, families[i].name) == 0) {
            *out = &families[i];
            return TQ_OK;
        }
    return tq_fail(r->err, TQ_UNSUPPORTED, "%s: model_type \"%.60s\" is not supported: want llama or qwen2", r->label, type);
}

static tq_status read_rope(const reader *r, tq_rope_config *rope) {
    reader scaling = *r;
    scaling.json = json_object_get(r->json, "rope_parameters");
    bool modern = json_is_object(scaling.json);
    if (!modern) scaling.json = json_object_get(r->json, "rope_scaling");
    bool given = json_is_object(scaling.json);
    TQ_TRY(read_number(modern && json_object_get(scaling.json, "rope_theta") ? &scaling : r, "rope_theta", 1, 1e12, 10000,
                       &rope->theta));
    const char *type = "default";
    if (given) {
        const json_t *name = json_object_get(scaling.json, "rope_type");
        if (!name) name = json_object_get(scaling.json, "type");
        if (json_is_string(name)) type = json_string_value(name);
        TQ_TRY(read_number(&scaling, "partial_rotary_factor", 1, 1, 1, &rope->factor));
    }
    rope->factor = 1;
    if (strcmp(type, "default") == 0) {
        rope->kind = TQ_ROPE_DEFAULT;
    } else if (strcmp(type, "linear") == 0) {
        rope->kind = TQ_ROPE_LINEAR;
        TQ_TRY(read_number(&scaling, "factor", 1, 1e6, 0, &rope->factor));
    } else if (strcmp(type, "llama3") == 0) {
        rope->kind = TQ_ROPE_LLAMA3;
        TQ_TRY(read_number(&scaling, "factor", 1, 1e6, 0, &rope->factor));
        TQ_TRY(read_number(&scaling, "low_freq_factor", 1e-6, 1e6, 0, &rope->low_freq_factor));
        TQ_TRY(read_number(&scaling, "high_freq_factor", 1e-6, 1e6, 0, &rope->high_freq_factor));
        TQ_TRY(read_int(&scaling, "original_max_position_embeddings", 1, 1 << 28, 0, &rope->original_context));
        if (rope->high_freq_factor <= rope->low_freq_factor)
            return tq_fail(r->err, TQ_FORMAT, "%s: rope: high_freq_factor %g is not above low_freq_factor %g", r->label,
                           rope->high_freq_factor, rope->low_freq_factor);
    } else {
        return tq_fail(r->err, TQ_UNSUPPORTED, "%s: rope type \"%.40s\" is not supported: want default, linear or llama3",
                       r->label, type);
    }
    return TQ_OK;
}

/* Sliding windows and other layer kinds would be run as full attention: refuse them. */
static tq_status check_layers(const reader *r) {
    bool sliding = false;
    TQ_TRY(read_bool(r, "use_sliding_window", false, &sliding));
    if (sliding) return tq_fail(r->err, TQ_UNSUPPORTED, "%s: sliding-window attention is not supported", r->label);
    const json_t *types = json_object_get(r->json, "layer_types"), *type;
    size_t i;
    json_array_foreach(types, i, type) {
        const char *name = json_string_value(type);
        if (!name || strcmp(name, "full_attention") != 0)
            return tq_fail(r->err, TQ_UNSUPPORTED, "%s: layer type \"%.40s\" is not supported", r->label, name ? name : "?");
    }
    return TQ_OK;
}

static tq_status read_sizes(const reader *r, tq_config *c) {
    TQ_TRY(read_int(r, "num_hidden_layers", 1, 1024, 0, &c->n_layers));
    TQ_TRY(read_int(r, "hidden_size", 1, 1 << 17, 0, &c->hidden));
    TQ_TRY(read_int(r, "intermediate_size", 1, 1 << 20, 0, &c->intermediate));
    TQ_TRY(read_int(r, "num_attention_heads", 1, 4096, 0, &c->n_heads));
    TQ_TRY(read_int(r, "num_key_value_heads", 1, 4096, c->n_heads, &c->n_kv_heads));
    TQ_TRY(read_int(r, "vocab_size", 1, 1 << 24, 0, &c->vocab));
    TQ_TRY(read_int(r, "max_position_embeddings", 1, 1 << 28, 0, &c->max_context));
    if (c->n_heads % c->n_kv_heads)
        return tq_fail(r->err, TQ_FORMAT, "%s: %d attention heads are not a multiple of %d KV heads", r->label, c->n_heads,
                       c->n_kv_heads);
    if (!json_object_get(r->json, "head_dim") && c->hidden % c->n_heads)
        return tq_fail(r->err, TQ_FORMAT, "%s: hidden size %d is not a multiple of %d heads", r->label, c->hidden, c->n_heads);
    int derived = c->hidden / c->n_heads;
    TQ_TRY(read_int(r, "head_dim", 4, 1024, derived >= 4 ? derived : 4, &c->head_dim));
    if (c->head_dim % 2) return tq_fail(r->err, TQ_FORMAT, "%s: head_dim: want an even number, got %d", r->label, c->head_dim);
    return TQ_OK;
}

tq_status tq_config_read(const json_t *json, const char *label, tq_config *out, tq_error *err) {
    *out = (tq_config){0};
    reader r = {json, label, err};
    if (!json_is_object(json)) return tq_fail(err, TQ_FORMAT, "%s: want a JSON object", label);
    const struct family *family = NULL;
    TQ_TRY(read_family(&r, &family));
    out->family = family->name;
    TQ_TRY(read_sizes(&r, out));
    double eps;
    TQ_TRY(read_number(&r, "rms_norm_eps", 0, 1, 1e-6, &eps));
    out->rms_eps = (float)eps;
    TQ_TRY(read_bool(&r, "tie_word_embeddings", false, &out->tie_embeddings));
    bool attention_bias = false;
    TQ_TRY(read_bool(&r, "attention_bias", false, &attention_bias));
    TQ_TRY(read_bool(&r, "mlp_bias", false, &out->mlp_bias));
    out->qkv_bias = family->qkv_bias || attention_bias;
    out->out_bias = attention_bias && !family->qkv_bias;
    TQ_TRY(want_string(&r, "hidden_act", "silu"));
    TQ_TRY(check_layers(&r));
    return read_rope(&r, &out->rope);
}
