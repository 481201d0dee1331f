/* forward.c: THE MAIN PATH.  Token ids in, final states out; one loop over layers. */
#include <math.h>

#include "model/transformer.h"

/* angles (n, head_dim/2, 2): cosine and sine of position * frequency, in float32 as in training. */
static void fill_angles(const tq_transformer *model, int n, int pos, float *angles) {
    int half = model->config.head_dim / 2;
    for (int t = 0; t < n; t++)
        for (int i = 0; i < half; i++) {
            float angle = (float)(pos + t) * model->inverse_frequency[i];
            angles[2 * (t * half + i)] = cosf(angle);
            angles[2 * (t * half + i) + 1] = sinf(angle);
        }
}

void tq_forward_begin(const tq_transformer *model, tq_backend *backend, const tq_batch *batch, tq_activations *a) {
    const tq_config *c = &model->config;
    int first = 0;
    for (const tq_part *p = batch->parts; p < batch->parts + batch->n_parts; first += p->n, p++) {
        backend->ops->embed(backend, &model->embedding, p->ids, p->n, a->x + (size_t)first * (size_t)c->hidden);
        fill_angles(model, p->n, p->pos, a->angles + (size_t)first * (size_t)c->head_dim);
    }
}

tq_status tq_forward_layer(const tq_transformer *model, int index, tq_backend *backend, const tq_batch *batch,
                           tq_activations *a, tq_error *err) {
    TQ_TRY(tq_attention_layer(model, index, backend, batch, a, err));
    tq_ffn_layer(model, index, backend, a, batch->n);
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
    backend->ops->matmul(backend, &model->head, NULL, h, n, logits);
}
