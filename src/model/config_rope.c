/* config_rope.c: rotary encodings of a config.json, in each form that they were written in:
 *   rope_parameters {rope_type, rope_theta, ...}, or one such object for each type of layer       (transformers 5)
 *   rope_theta, rope_scaling {rope_type or type, ...}, and rope_local_base_freq for sliding layers (before) */
#include <math.h>
#include <string.h>

#include "model/config_reader.h"

static const char *const known_keys[] = {
    "rope_type", "type", "rope_theta", "factor", "partial_rotary_factor", "low_freq_factor", "high_freq_factor",
    "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor",
    "truncate", "short_factor", "long_factor", "llama_4_scaling_beta", "max_position_embeddings",
    /* three axes of positions, which are one and the same for text */
    "mrope_section", "mrope_interleaved",
    "finetuned", /* has no effect */
};

static tq_status check_keys(const tq_config_reader *scaling) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)scaling->json, key, value) {
        bool known = json_is_null(value);
        for (size_t i = 0; !known && i < sizeof known_keys / sizeof *known_keys; i++) known = strcmp(key, known_keys[i]) == 0;
        if (!known)
            return tq_fail(scaling->err, TQ_UNSUPPORTED, "%s: rope: the setting \"%.60s\" is not supported", scaling->label,
                           key);
    }
    return TQ_OK;
}

static tq_status read_factors(tq_config_reader *scaling, const char *key, int n, float *out) {
    const json_t *list = tq_config_value(scaling, key);
    if (!json_is_array(list) || (int)json_array_size(list) != n)
        return tq_fail(scaling->err, TQ_FORMAT, "%s: rope: \"%s\": want a list of %d numbers, one for each rotated pair",
                       scaling->label, key, n);
    for (int i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        out[i] = (float)json_number_value(value);
        if (!json_is_number(value) || !(out[i] > 0 && out[i] < 1e9f))
            return tq_fail(scaling->err, TQ_FORMAT, "%s: rope: \"%s\": want positive numbers", scaling->label, key);
    }
    return TQ_OK;
}

static double yarn_scale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * log(factor) + 1; }

static tq_status read_yarn(tq_config_reader *s, tq_rope_config *rope) {
    double mscale, all_dim;
    TQ_TRY(tq_config_number(s, "beta_fast", 1e-6, 1e6, 32, &rope->beta_fast));
    TQ_TRY(tq_config_number(s, "beta_slow", 1e-6, 1e6, 1, &rope->beta_slow));
    TQ_TRY(tq_config_bool(s, "truncate", true, &rope->truncate));
    TQ_TRY(tq_config_number(s, "mscale", 0, 1e3, 0, &mscale));
    TQ_TRY(tq_config_number(s, "mscale_all_dim", 0, 1e3, 0, &all_dim));
    double usual = mscale > 0 && all_dim > 0 ? yarn_scale(rope->factor, mscale) / yarn_scale(rope->factor, all_dim)
                                             : yarn_scale(rope->factor, 1);
    return tq_config_number(s, "attention_factor", 1e-3, 1e3, usual, &rope->attention_factor);
}

static tq_status read_longrope(tq_config_reader *s, tq_rope_config *rope) {
    TQ_TRY(read_factors(s, "short_factor", rope->n_dims / 2, rope->short_factor));
    TQ_TRY(read_factors(s, "long_factor", rope->n_dims / 2, rope->long_factor));
    double usual = rope->factor <= 1 ? 1.0 : sqrt(1 + log(rope->factor) / log(rope->original_context));
    return tq_config_number(s, "attention_factor", 1e-3, 1e3, usual, &rope->attention_factor);
}

static tq_status read_llama3(tq_config_reader *s, tq_rope_config *rope) {
    TQ_TRY(tq_config_number(s, "low_freq_factor", 1e-6, 1e6, 0, &rope->low_freq_factor));
    TQ_TRY(tq_config_number(s, "high_freq_factor", 1e-6, 1e6, 0, &rope->high_freq_factor));
    if (rope->high_freq_factor <= rope->low_freq_factor)
        return tq_fail(s->err, TQ_FORMAT, "%s: rope: high_freq_factor %g is not above low_freq_factor %g", s->label,
                       rope->high_freq_factor, rope->low_freq_factor);
    return TQ_OK;
}

static const struct kind {
    const char *name;
    tq_rope_kind kind;
    bool wants_factor, wants_original;
} kinds[] = {
    {"default", TQ_ROPE_DEFAULT, false, false}, {"mrope", TQ_ROPE_DEFAULT, false, false},
    {"linear", TQ_ROPE_LINEAR, true, false},    {"llama3", TQ_ROPE_LLAMA3, true, true},
    {"yarn", TQ_ROPE_YARN, true, true},         {"longrope", TQ_ROPE_LONGROPE, false, true},
    {"su", TQ_ROPE_LONGROPE, false, true},      {"dynamic", TQ_ROPE_DYNAMIC, true, false},
};

/* original_max_position_embeddings: within the rope's object, else beside it, else what yarn and longrope extended. */
static tq_status read_original(tq_config_reader *top, tq_config_reader *scaling, const struct kind *kind, int context,
                               tq_rope_config *rope) {
    tq_config_reader *where = tq_config_value(scaling, "original_max_position_embeddings") ? scaling : top;
    int usual = kind->kind == TQ_ROPE_YARN ? context : kind->kind == TQ_ROPE_LONGROPE ? context : 0;
    return tq_config_int(where, "original_max_position_embeddings", 2, 1 << 28, usual, &rope->original_context);
}

/* One rotary encoding.  json: its object, or NULL for the default kind; usual_theta where it names none. */
static tq_status read_rope(tq_config_reader *top, const json_t *json, double usual_theta, bool adjacent_pairs,
                           tq_config *c, tq_rope_config *rope) {
    tq_config_reader s = {.json = json, .label = top->label, .err = top->err};
    const char *type = NULL;
    if (json) TQ_TRY(check_keys(&s));
    TQ_TRY(tq_config_string(&s, "rope_type", &type));
    if (!type) TQ_TRY(tq_config_string(&s, "type", &type));
    if (!type) type = "default";
    const struct kind *kind = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(type, kinds[i].name) == 0) kind = &kinds[i];
    if (!kind)
        return tq_fail(top->err, TQ_UNSUPPORTED,
                       "%s: rope type \"%.40s\" is not supported: want default, linear, llama3, yarn, longrope or dynamic",
                       top->label, type);
    *rope = (tq_rope_config){.kind = kind->kind, .adjacent_pairs = adjacent_pairs, .attention_factor = 1};
    TQ_TRY(tq_config_number(&s, "rope_theta", 1, 1e12, usual_theta, &rope->theta));
    double partial;
    TQ_TRY(tq_config_number(tq_config_value(&s, "partial_rotary_factor") ? &s : top, "partial_rotary_factor", 1e-3, 1, 1,
                            &partial));
    rope->n_dims = (int)(c->head_dim * partial);
    if (rope->n_dims < 2 || rope->n_dims % 2 || rope->n_dims / 2 > TQ_MAX_ROPE_PAIRS)
        return tq_fail(top->err, TQ_FORMAT, "%s: rope: %g of %d dims are not a whole number of pairs", top->label, partial,
                       c->head_dim);
    if (kind->wants_original) TQ_TRY(read_original(top, &s, kind, c->max_context, rope));
    double extended = rope->original_context ? (double)c->max_context / rope->original_context : 0;
    bool has_usual = kind->kind == TQ_ROPE_YARN || kind->kind == TQ_ROPE_LONGROPE;
    if (kind->wants_factor || has_usual)
        TQ_TRY(tq_config_number(&s, "factor", 1, 1e6, has_usual ? fmax(1, extended) : 0, &rope->factor));
    if (kind->kind == TQ_ROPE_LLAMA3) TQ_TRY(read_llama3(&s, rope));
    if (kind->kind == TQ_ROPE_YARN) TQ_TRY(read_yarn(&s, rope));
    if (kind->kind == TQ_ROPE_LONGROPE) TQ_TRY(read_longrope(&s, rope));
    if (kind->kind == TQ_ROPE_DYNAMIC) { /* what it extends is the model's context */
        rope->original_context = c->max_context;
        double reach = c->max_context * rope->factor;
        c->max_context = reach < 1 << 28 ? (int)reach : 1 << 28;
    }
    TQ_TRY(tq_config_number(&s, "llama_4_scaling_beta", 0, 1e3, c->query_beta, &c->query_beta));
    if (c->query_beta > 0 && c->query_context == 0) {
        TQ_TRY(read_original(top, &s, kind, c->max_context, rope));
        c->query_context = rope->original_context;
    }
    return TQ_OK;
}

tq_status tq_config_ropes(tq_config_reader *r, bool adjacent_pairs, tq_config *c, int *sliding_rope) {
    double theta, local_theta;
    TQ_TRY(tq_config_number(r, "rope_theta", 1, 1e12, 10000, &theta));
    TQ_TRY(tq_config_number(r, "rope_local_base_freq", 0, 1e12, 0, &local_theta));
    const json_t *parameters = tq_config_value(r, "rope_parameters"), *scaling = tq_config_value(r, "rope_scaling");
    const json_t *json = parameters ? parameters : scaling;
    if (json && !json_is_object(json))
        return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want an object", r->label,
                       parameters ? "rope_parameters" : "rope_scaling");
    const json_t *full = json_object_get(json, "full_attention"), *sliding = json_object_get(json, "sliding_attention");
    c->n_ropes = 1;
    *sliding_rope = 0;
    if (full || sliding) {
        if (!json_is_object(full) || !json_is_object(sliding))
            return tq_fail(r->err, TQ_FORMAT, "%s: rope_parameters: want full_attention and sliding_attention", r->label);
        TQ_TRY(read_rope(r, full, theta, adjacent_pairs, c, &c->ropes[0]));
    } else {
        TQ_TRY(read_rope(r, json, theta, adjacent_pairs, c, &c->ropes[0]));
        if (local_theta <= 0) return TQ_OK;
    }
    c->n_ropes = 2; /* rope_scaling does not touch the local encoding */
    *sliding_rope = 1;
    return read_rope(r, sliding, sliding ? theta : local_theta, adjacent_pairs, c, &c->ropes[1]);
}
