/* forward.c: THE MAIN PATH.  Token ids in, final states out; one loop over layers. */
#include <math.h>

#include "model/transformer.h"

/* What is known of a part before the first layer: rotary angles, and scales of queries that depend on the position. */
static void fill_positions(const tq_config *c, tq_activations *a, const tq_part *part, int first) {
    for (int r = 0; r < c->n_ropes; r++)
        tq_rope_angles(&c->ropes[r], a->inverse_frequency[r], part->n, part->pos,
                       a->angles[r] + (size_t)first * (size_t)c->ropes[r].n_dims);
    for (int t = 0; a->query_scale && t < part->n; t++)
        a->query_scale[first + t] = (float)(1 + c->query_beta * log1p((part->pos + t) / c->query_context));
}

void tq_forward_begin(const tq_transformer *model, tq_backend *backend, const tq_batch *batch, tq_activations *a) {
    const tq_config *c = &model->config;
    int first = 0;
    for (const tq_part *p = batch->parts; p < batch->parts + batch->n_parts; first += p->n, p++) {
        backend->ops->embed(backend, &model->embedding, p->ids, p->n, a->x + (size_t)first * (size_t)c->hidden);
        fill_positions(c, a, p, first);
    }
    if (c->embedding_scale != 1)
        backend->ops->scale(backend, a->x, c->embedding_scale, (size_t)batch->n * (size_t)c->hidden);
}

tq_status tq_forward_layer(const tq_transformer *model, int index, tq_backend *backend, const tq_batch *batch,
                           tq_activations *a, tq_error *err) {
    const tq_layer_config *layer = &model->config.layers[index];
    if (layer->mixer == TQ_MIXER_DELTA) tq_delta_layer(model, index, backend, batch, a);
    else TQ_TRY(tq_attention_layer(model, index, backend, batch, a, err));
    if (layer->moe) tq_moe_layer(model, index, backend, a, batch->n);
    else tq_ffn_layer(model, index, backend, a, batch->n);
    return TQ_OK;
}

void tq_forward_end(const tq_transformer *model, tq_backend *backend, const tq_batch *batch, tq_activations *a) {
    const tq_config *c = &model->config;
    backend->ops->rms_norm(backend, a->x, model->final_norm, batch->n, c->hidden, c->rms_eps, a->h);
}

tq_status tq_forward(const tq_transformer *model, tq_backend *backend, const tq_batch *batch, tq_activations *a,
                     tq_error *err) {
    tq_forward_begin(model, backend, batch, a);
    for (int layer = 0; layer < model->config.n_layers; layer++)
        TQ_TRY(tq_forward_layer(model, layer, backend, batch, a, err));
    tq_forward_end(model, backend, batch, a);
    return TQ_OK;
}

void tq_forward_logits(const tq_transformer *model, tq_backend *backend, const float *h, int n, float *logits) {
    const tq_config *c = &model->config;
    size_t count = (size_t)n * (size_t)c->vocab;
    backend->ops->matmul(backend, &model->head, NULL, h, n, logits);
    if (c->logit_scale != 1) backend->ops->scale(backend, logits, c->logit_scale, count);
    if (c->logit_cap > 0) backend->ops->soft_cap(backend, logits, c->logit_cap, count);
}

const float *tq_norm_in(const tq_transformer *model, tq_backend *backend, const float *norm, const float *x, int n,
                        float *y) {
    if (!norm) return x;
    backend->ops->rms_norm(backend, x, norm, n, model->config.hidden, model->config.rms_eps, y);
    return y;
}

void tq_add_to_stream(const tq_transformer *model, tq_backend *backend, const float *norm, float *h, int n, float *x) {
    const tq_config *c = &model->config;
    size_t count = (size_t)n * (size_t)c->hidden;
    if (norm) backend->ops->rms_norm(backend, h, norm, n, c->hidden, c->rms_eps, h);
    if (c->residual_scale != 1) backend->ops->scale(backend, h, c->residual_scale, count);
    backend->ops->add(backend, x, h, count);
}
