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

tq_status tq_forward(const tq_transformer *model, tq_backend *backend, tq_cache *cache, tq_activations *a,
                     const int32_t *ids, int n, int pos, tq_error *err) {
    const tq_config *c = &model->config;
    backend->ops->embed(backend, &model->embedding, ids, n, a->x);
    fill_angles(model, n, pos, a->angles);
    for (int layer = 0; layer < c->n_layers; layer++) {
        TQ_TRY(tq_attention_layer(model, layer, backend, cache, a, n, err));
        tq_ffn_layer(model, layer, backend, a, n);
    }
    backend->ops->rms_norm(backend, a->x, model->final_norm, n, c->hidden, c->rms_eps, a->h);
    return TQ_OK;
}

void tq_forward_logits(const tq_transformer *model, tq_backend *backend, const float *h, int n, float *logits) {
    backend->ops->matmul(backend, &model->head, NULL, h, n, logits);
}
