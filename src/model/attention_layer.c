/* attention_layer.c: x += out(attend(rope(q), rope(k), v)), with q, k, v of norm(x).  The cache attends and stores. */
#include "model/transformer.h"

/* Every part of the batch in its own cache. */
static tq_status attend(const tq_config *c, int index, const tq_batch *batch, const tq_activations *a, tq_error *err) {
    size_t q = 0, kv = 0;
    for (const tq_part *p = batch->parts; p < batch->parts + batch->n_parts; p++) {
        TQ_TRY(tq_cache_attend(p->cache, index, a->q + q, a->k + kv, a->v + kv, p->n, a->attended + q, err));
        q += (size_t)p->n * (size_t)c->n_heads * (size_t)c->head_dim;
        kv += (size_t)p->n * (size_t)c->n_kv_heads * (size_t)c->head_dim;
    }
    return TQ_OK;
}

tq_status tq_attention_layer(const tq_transformer *model, int index, tq_backend *backend, const tq_batch *batch,
                             tq_activations *a, tq_error *err) {
    int n = batch->n;
    const tq_config *c = &model->config;
    const tq_layer *l = &model->layers[index];
    const tq_backend_ops *op = backend->ops;
    op->rms_norm(backend, a->x, l->attention_norm, n, c->hidden, c->rms_eps, a->h);
    op->matmul(backend, &l->q.w, l->q.bias, a->h, n, a->q);
    op->matmul(backend, &l->k.w, l->k.bias, a->h, n, a->k);
    op->matmul(backend, &l->v.w, l->v.bias, a->h, n, a->v);
    op->rope(backend, a->q, a->angles, n, c->n_heads, c->head_dim);
    op->rope(backend, a->k, a->angles, n, c->n_kv_heads, c->head_dim);
    TQ_TRY(attend(c, index, batch, a, err));
    op->matmul(backend, &l->out.w, l->out.bias, a->attended, n, a->h);
    op->add(backend, a->x, a->h, (size_t)n * (size_t)c->hidden);
    return TQ_OK;
}
