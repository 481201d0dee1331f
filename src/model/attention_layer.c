/* attention_layer.c: x += out(attend(rope(q), rope(k), v)), with q, k, v of norm(x).  The cache attends and stores. */
#include "model/transformer.h"

tq_status tq_attention_layer(const tq_transformer *model, int index, tq_backend *backend, tq_cache *cache,
                             tq_activations *a, int n, tq_error *err) {
    const tq_config *c = &model->config;
    const tq_layer *l = &model->layers[index];
    const tq_backend_ops *op = backend->ops;
    op->rms_norm(backend, a->x, l->attention_norm, n, c->hidden, c->rms_eps, a->h);
    op->matmul(backend, &l->q.w, l->q.bias, a->h, n, a->q);
    op->matmul(backend, &l->k.w, l->k.bias, a->h, n, a->k);
    op->matmul(backend, &l->v.w, l->v.bias, a->h, n, a->v);
    op->rope(backend, a->q, a->angles, n, c->n_heads, c->head_dim);
    op->rope(backend, a->k, a->angles, n, c->n_kv_heads, c->head_dim);
    TQ_TRY(tq_cache_attend(cache, index, a->q, a->k, a->v, n, a->attended, err));
    op->matmul(backend, &l->out.w, l->out.bias, a->attended, n, a->h);
    op->add(backend, a->x, a->h, (size_t)n * (size_t)c->hidden);
    return TQ_OK;
}
