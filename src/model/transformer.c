/* transformer.c: memory of a bound model and of its activations; which name in the file goes where is bind_weights.c's. */
#include "model/transformer.h"

#include <stdlib.h>

void tq_transformer_free(tq_transformer *model) {
    if (!model) return;
    for (int i = 0; i < model->n_owned; i++) free(model->owned[i]);
    free(model->owned);
    free(model->layers);
    free(model);
}

tq_cache_params tq_transformer_cache_params(const tq_transformer *model, int max_tokens, const tq_cache_config *config) {
    const tq_config *c = &model->config;
    return (tq_cache_params){
        .n_layers = c->n_attention_layers, .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim,
        .max_tokens = max_tokens, .config = *config, .scale = c->attention_scale, .softcap = c->attention_cap,
        .windows = model->windows, .sink_logits = model->sink_logits,
    };
}

static size_t delta_channels(const tq_delta_config *d) {
    return 2 * (size_t)d->n_key_heads * (size_t)d->key_dim + (size_t)d->n_value_heads * (size_t)d->value_dim;
}

size_t tq_transformer_state_floats(const tq_transformer *model) {
    const tq_delta_config *d = &model->config.delta;
    if (model->config.n_delta_layers == 0) return 0;
    return (size_t)(d->kernel - 1) * delta_channels(d) +
           (size_t)d->n_value_heads * (size_t)d->value_dim * (size_t)d->key_dim;
}

/* ---- activations ----------------------------------------------------------------------------------------------------- */

static size_t largest(const size_t *sizes, size_t n) {
    size_t top = 0;
    for (size_t i = 0; i < n; i++) top = sizes[i] > top ? sizes[i] : top;
    return top;
}

/* Widths of what depends on the kinds of layers that there are. */
typedef struct widths {
    size_t q, kv, gate, channels, value_heads, values, ffn, wide, experts, active, hidden;
} widths;

static widths widths_of(const tq_config *c) {
    const tq_delta_config *d = &c->delta;
    const tq_moe_config *m = &c->moe;
    bool delta = c->n_delta_layers > 0, moe = m->n_experts > 0;
    widths w = {.q = (size_t)c->n_heads * (size_t)c->head_dim, .kv = (size_t)c->n_kv_heads * (size_t)c->head_dim};
    w.gate = c->output_gate ? w.q : 0;
    w.channels = delta ? delta_channels(d) : 0;
    w.value_heads = delta ? (size_t)d->n_value_heads : 0;
    w.values = w.value_heads * (size_t)d->value_dim;
    size_t ffn[] = {(size_t)c->intermediate, moe ? (size_t)m->intermediate : 0, moe ? (size_t)m->shared_intermediate : 0};
    w.ffn = largest(ffn, 3);
    size_t wide[] = {2 * w.gate, w.channels + w.values, 2 * w.value_heads, moe ? 2 * (size_t)m->intermediate : 0};
    w.wide = largest(wide, 4);
    w.experts = moe ? (size_t)m->n_experts : 0;
    w.active = moe ? (size_t)m->n_active : 0;
    w.hidden = moe ? (size_t)c->hidden : 0;
    return w;
}

tq_status tq_activations_new(const tq_config *c, int max_n, int context, tq_activations *out, tq_error *err) {
    *out = (tq_activations){.max_n = max_n};
    widths w = widths_of(c);
    size_t hidden = (size_t)c->hidden;
    const struct {
        void **place;
        size_t width; /* of a token, in floats or int32 */
    } buffers[] = {
        {(void **)&out->x, hidden}, {(void **)&out->h, hidden}, {(void **)&out->q, w.q}, {(void **)&out->attended, w.q},
        {(void **)&out->k, w.kv}, {(void **)&out->v, w.kv}, {(void **)&out->wide, w.wide}, {(void **)&out->q_gate, w.gate},
        {(void **)&out->gate, w.ffn}, {(void **)&out->up, w.ffn}, {(void **)&out->conv_in, w.channels},
        {(void **)&out->conv_out, w.channels}, {(void **)&out->z, w.values}, {(void **)&out->delta_out, w.values},
        {(void **)&out->a, w.value_heads}, {(void **)&out->b, w.value_heads}, {(void **)&out->router, w.experts},
        {(void **)&out->expert_weights, w.active}, {(void **)&out->expert_ids, w.active},
        {(void **)&out->gathered, w.hidden}, {(void **)&out->expert_out, w.hidden}, {(void **)&out->sum, w.hidden},
        {(void **)&out->row_weights, w.experts ? 1 : 0}, {(void **)&out->rows, w.experts ? 1 : 0},
        {(void **)&out->query_scale, c->query_beta > 0 ? 1 : 0},
        {(void **)&out->angles[0], (size_t)c->ropes[0].n_dims}, {(void **)&out->angles[1], (size_t)c->ropes[1].n_dims},
    };
    enum { N = sizeof buffers / sizeof *buffers };
    size_t floats = 0, at[N], frequencies[TQ_MAX_ROPES];
    for (size_t i = 0; i < N; i++) {
        at[i] = floats;
        floats += (buffers[i].width * (size_t)max_n + 15) / 16 * 16;
    }
    for (int r = 0; r < TQ_MAX_ROPES; r++) {
        frequencies[r] = floats;
        floats += ((size_t)c->ropes[r].n_dims / 2 + 15) / 16 * 16;
    }
    out->bytes = floats * sizeof(float);
    out->memory = aligned_alloc(64, out->bytes);
    if (!out->memory) return tq_fail_memory(err, out->bytes, "activations");
    for (size_t i = 0; i < N; i++) *buffers[i].place = buffers[i].width ? (float *)out->memory + at[i] : NULL;
    for (int r = 0; r < c->n_ropes; r++) {
        out->inverse_frequency[r] = (float *)out->memory + frequencies[r];
        tq_rope_frequencies(&c->ropes[r], context, out->inverse_frequency[r]);
    }
    return TQ_OK;
}

void tq_activations_free(tq_activations *a) {
    free(a->memory);
    *a = (tq_activations){0};
}
