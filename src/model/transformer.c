/* transformer.c: names in the file -> places in the model, and memory for activations. */
#include "model/transformer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- weights ------------------------------------------------------------------------------------------------------- */

typedef struct binder {
    const tq_weights *weights;
    tq_transformer *model;
    tq_error *err;
} binder;

static tq_status bind_vector(const binder *b, const char *name, int n, float **out) {
    *out = malloc((size_t)n * sizeof(float));
    if (!*out) return tq_fail_memory(b->err, (size_t)n * sizeof(float), name);
    return tq_weights_vector(b->weights, name, n, *out, b->err);
}

static tq_status bind_linear(const binder *b, int layer, const char *part, int rows, int cols, bool bias, tq_linear *out) {
    char path[128], name[160];
    snprintf(path, sizeof path, "model.layers.%d.%s", layer, part);
    TQ_TRY(tq_weights_matrix(b->weights, path, rows, cols, &out->w, b->err));
    if (cols > b->model->max_cols) b->model->max_cols = cols;
    snprintf(name, sizeof name, "%s.bias", path);
    if (bias) return bind_vector(b, name, rows, &out->bias);
    if (tq_weights_find(b->weights, name))
        return tq_fail(b->err, TQ_UNSUPPORTED, "%s: the file has a bias that family %s does not use", name,
                       b->model->config.family);
    return TQ_OK;
}

static tq_status bind_layer(const binder *b, int i) {
    const tq_config *c = &b->model->config;
    tq_layer *layer = &b->model->layers[i];
    int q_rows = c->n_heads * c->head_dim, kv_rows = c->n_kv_heads * c->head_dim;
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", i);
    TQ_TRY(bind_vector(b, name, c->hidden, &layer->attention_norm));
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", i);
    TQ_TRY(bind_vector(b, name, c->hidden, &layer->ffn_norm));
    TQ_TRY(bind_linear(b, i, "self_attn.q_proj", q_rows, c->hidden, c->qkv_bias, &layer->q));
    TQ_TRY(bind_linear(b, i, "self_attn.k_proj", kv_rows, c->hidden, c->qkv_bias, &layer->k));
    TQ_TRY(bind_linear(b, i, "self_attn.v_proj", kv_rows, c->hidden, c->qkv_bias, &layer->v));
    TQ_TRY(bind_linear(b, i, "self_attn.o_proj", c->hidden, q_rows, c->out_bias, &layer->out));
    TQ_TRY(bind_linear(b, i, "mlp.gate_proj", c->intermediate, c->hidden, c->mlp_bias, &layer->gate));
    TQ_TRY(bind_linear(b, i, "mlp.up_proj", c->intermediate, c->hidden, c->mlp_bias, &layer->up));
    return bind_linear(b, i, "mlp.down_proj", c->hidden, c->intermediate, c->mlp_bias, &layer->down);
}

/* Angles are computed in float32 from these, as the models were trained. */
static tq_status make_frequencies(tq_transformer *model, tq_error *err) {
    const tq_rope_config *rope = &model->config.rope;
    int half = model->config.head_dim / 2;
    model->inverse_frequency = malloc((size_t)half * sizeof(float));
    if (!model->inverse_frequency) return tq_fail_memory(err, (size_t)half * sizeof(float), "rotary frequencies");
    const double tau = 6.283185307179586;
    for (int i = 0; i < half; i++) {
        double f = 1.0 / pow(rope->theta, (double)(2 * i) / model->config.head_dim);
        if (rope->kind == TQ_ROPE_LINEAR) f /= rope->factor;
        if (rope->kind == TQ_ROPE_LLAMA3) { /* slow pairs are stretched, fast ones kept, those between blended */
            double turns = rope->original_context * f / tau;
            double keep = (turns - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
            keep = keep < 0 ? 0 : keep > 1 ? 1 : keep;
            f = f * keep + f / rope->factor * (1 - keep);
        }
        model->inverse_frequency[i] = (float)f;
    }
    return TQ_OK;
}

static tq_status bind_all(const binder *b) {
    tq_transformer *m = b->model;
    const tq_config *c = &m->config;
    m->max_cols = c->hidden;
    TQ_TRY(make_frequencies(m, b->err));
    TQ_TRY(tq_weights_matrix(b->weights, "model.embed_tokens", c->vocab, c->hidden, &m->embedding, b->err));
    if (c->tie_embeddings) m->head = m->embedding;
    else TQ_TRY(tq_weights_matrix(b->weights, "lm_head", c->vocab, c->hidden, &m->head, b->err));
    TQ_TRY(bind_vector(b, "model.norm.weight", c->hidden, &m->final_norm));
    for (int i = 0; i < c->n_layers; i++) TQ_TRY(bind_layer(b, i));
    return TQ_OK;
}

tq_status tq_transformer_bind(const tq_weights *weights, const tq_config *config, tq_transformer **out, tq_error *err) {
    tq_transformer *model = calloc(1, sizeof *model);
    if (!model) return tq_fail_memory(err, sizeof *model, "a model");
    model->config = *config;
    model->layers = calloc((size_t)config->n_layers, sizeof *model->layers);
    binder b = {weights, model, err};
    tq_status status = model->layers ? bind_all(&b) : tq_fail_memory(err, sizeof *model->layers, "a model's layers");
    if (status != TQ_OK) {
        tq_transformer_free(model);
        return status;
    }
    *out = model;
    return TQ_OK;
}

void tq_transformer_free(tq_transformer *model) {
    if (!model) return;
    for (int i = 0; model->layers && i < model->config.n_layers; i++) {
        tq_layer *l = &model->layers[i];
        free(l->attention_norm);
        free(l->ffn_norm);
        tq_linear *linears[] = {&l->q, &l->k, &l->v, &l->out, &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof linears / sizeof *linears; j++) free(linears[j]->bias);
    }
    free(model->layers);
    free(model->final_norm);
    free(model->inverse_frequency);
    free(model);
}

/* ---- activations ----------------------------------------------------------------------------------------------------- */

tq_status tq_activations_new(const tq_config *c, int max_n, tq_activations *out, tq_error *err) {
    size_t q = (size_t)c->n_heads * (size_t)c->head_dim, kv = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    size_t widths[] = {(size_t)c->hidden, (size_t)c->hidden, q, q, kv, kv, (size_t)c->intermediate, (size_t)c->intermediate,
                       (size_t)c->head_dim};
    float **places[] = {&out->x, &out->h, &out->q, &out->attended, &out->k, &out->v, &out->gate, &out->up, &out->angles};
    *out = (tq_activations){.max_n = max_n};
    size_t floats = 0;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) floats += (widths[i] * (size_t)max_n + 15) / 16 * 16;
    out->bytes = floats * sizeof(float);
    out->memory = aligned_alloc(64, out->bytes);
    if (!out->memory) return tq_fail_memory(err, out->bytes, "activations");
    float *at = out->memory;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        *places[i] = at;
        at += (widths[i] * (size_t)max_n + 15) / 16 * 16;
    }
    return TQ_OK;
}

void tq_activations_free(tq_activations *a) {
    free(a->memory);
    *a = (tq_activations){0};
}
