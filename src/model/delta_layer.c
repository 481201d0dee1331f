/* delta_layer.c: x += out(norm(delta(conv(qkv))) * silu(z)), with qkv, z, a, b of norm(x).  A linear attention: what it
 * remembers is a state of fixed size, which each token decays and corrects. */
#include "model/transformer.h"

/* conv_in (n, channels), z, a, b of h. */
static void project(const tq_config *c, const tq_delta_weights *w, tq_backend *backend, tq_activations *s, const float *h,
                    int n) {
    const tq_delta_config *d = &c->delta;
    const tq_backend_ops *op = backend->ops;
    int ratio = d->n_value_heads / d->n_key_heads;
    size_t keys = (size_t)d->n_key_heads * (size_t)d->key_dim, values = (size_t)d->n_value_heads * (size_t)d->value_dim;
    size_t channels = 2 * keys + values;
    if (w->qkvz.w.rows == 0) {
        op->matmul(backend, &w->qkv.w, NULL, h, n, s->conv_in);
        op->matmul(backend, &w->z.w, NULL, h, n, s->z);
    } else {
        op->matmul(backend, &w->qkvz.w, NULL, h, n, s->wide);
        tq_split_part parts[] = {{s->conv_in, d->key_dim, channels},
                                 {s->conv_in + keys, d->key_dim, channels},
                                 {s->conv_in + 2 * keys, ratio * d->value_dim, channels},
                                 {s->z, ratio * d->value_dim, values}};
        op->split(backend, s->wide, n, d->n_key_heads, parts, 4);
    }
    if (w->ba.w.rows == 0) {
        op->matmul(backend, &w->a.w, NULL, h, n, s->a);
        op->matmul(backend, &w->b.w, NULL, h, n, s->b);
    } else {
        op->matmul(backend, &w->ba.w, NULL, h, n, s->wide);
        tq_split_part gates[] = {{s->b, ratio, (size_t)d->n_value_heads}, {s->a, ratio, (size_t)d->n_value_heads}};
        op->split(backend, s->wide, n, d->n_key_heads, gates, 2);
    }
}

/* Convolution and delta rule of a part's tokens, which begin at `first`, on the part's own state. */
static void remember(const tq_config *c, const tq_delta_weights *w, int layer, tq_backend *backend, const tq_part *part,
                     size_t first, tq_activations *s) {
    const tq_delta_config *d = &c->delta;
    size_t heads = (size_t)d->n_value_heads;
    int channels = 2 * d->n_key_heads * d->key_dim + d->n_value_heads * d->value_dim;
    float *state = tq_recurrent_state_layer(part->state, layer), *mixed = s->conv_out + first * (size_t)channels;
    tq_conv_args conv = {.x = s->conv_in + first * (size_t)channels, .weight = w->conv, .state = state, .y = mixed,
                         .n = part->n, .channels = channels, .kernel = d->kernel};
    backend->ops->conv(backend, &conv);
    tq_delta_args delta = {.qkv = mixed, .a = s->a + first * heads, .b = s->b + first * heads, .rate = w->rate,
                           .bias = w->bias, .state = state + (size_t)(d->kernel - 1) * (size_t)channels,
                           .y = s->delta_out + first * heads * (size_t)d->value_dim, .n = part->n,
                           .n_key_heads = d->n_key_heads, .n_value_heads = d->n_value_heads, .key_dim = d->key_dim,
                           .value_dim = d->value_dim, .tiled = d->tiled_heads};
    backend->ops->delta(backend, &delta);
}

void tq_delta_layer(const tq_transformer *model, int index, tq_backend *backend, const tq_batch *batch, tq_activations *s) {
    int n = batch->n;
    const tq_config *c = &model->config;
    const tq_delta_config *d = &c->delta;
    const tq_layer *l = &model->layers[index];
    const tq_delta_weights *w = &l->delta;
    const tq_backend_ops *op = backend->ops;
    project(c, w, backend, s, tq_norm_in(model, backend, l->attention_in, s->x, n, s->h), n);
    size_t first = 0;
    for (const tq_part *p = batch->parts; p < batch->parts + batch->n_parts; first += (size_t)p->n, p++)
        remember(c, w, l->mixer_index, backend, p, first, s);
    op->rms_norm(backend, s->delta_out, w->norm, n * d->n_value_heads, d->value_dim, c->rms_eps, s->delta_out);
    op->activate(backend, &(tq_gating){.activation = TQ_ACTIVATION_SILU}, s->z, s->delta_out, (size_t)n * (size_t)d->n_value_heads * (size_t)d->value_dim);
    op->matmul(backend, &w->out.w, NULL, s->z, n, s->h);
    tq_add_to_stream(model, backend, l->attention_out, s->h, n, s->x);
}
