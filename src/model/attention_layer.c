/* attention_layer.c: x += out(attend(rope(q), rope(k), v)), with q, k, v of norm(x).  The cache attends and stores. */
#include "model/transformer.h"

/* q, k, v, and with an output gate q_gate, of h. */
static void project(const tq_transformer *model, const tq_attention_weights *w, tq_backend *backend, tq_activations *a,
                    const float *h, int n) {
    const tq_config *c = &model->config;
    tq_product qkv[] = {{&w->q.w, w->q.bias, c->output_gate ? a->wide : a->q}, {&w->k.w, w->k.bias, a->k}, {&w->v.w, w->v.bias, a->v}};
    backend->ops->matmul_many(backend, qkv, 3, h, n);
    if (!c->output_gate) return;
    size_t row = (size_t)c->n_heads * (size_t)c->head_dim;
    tq_split_part parts[] = {{a->q, c->head_dim, row}, {a->q_gate, c->head_dim, row}};
    backend->ops->split(backend, a->wide, n, c->n_heads, parts, 2);
}

static void norm_heads(const tq_transformer *model, tq_backend *backend, const float *norm, float *x, int n, int n_heads) {
    const tq_config *c = &model->config;
    bool each = c->qk_norm == TQ_QK_NORM_HEAD;
    backend->ops->rms_norm(backend, x, norm, each ? n * n_heads : n, each ? c->head_dim : n_heads * c->head_dim, c->rms_eps,
                           x);
}

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
    const tq_attention_weights *w = &l->attention;
    const tq_backend_ops *op = backend->ops;
    const float *h = tq_norm_in(model, backend, l->attention_in, a->x, n, a->h);
    project(model, w, backend, a, h, n);
    if (w->q_norm) {
        norm_heads(model, backend, w->q_norm, a->q, n, c->n_heads);
        norm_heads(model, backend, w->k_norm, a->k, n, c->n_kv_heads);
    }
    int rope = c->layers[index].rope;
    if (rope != TQ_NO_ROPE) {
        const tq_rope_config *r = &c->ropes[rope];
        op->rope(backend, a->q, a->angles[rope], n, c->n_heads, c->head_dim, r->n_dims, r->adjacent_pairs);
        op->rope(backend, a->k, a->angles[rope], n, c->n_kv_heads, c->head_dim, r->n_dims, r->adjacent_pairs);
    }
    if (a->query_scale) op->scale_rows(backend, a->q, a->query_scale, n, c->n_heads * c->head_dim);
    TQ_TRY(attend(c, l->mixer_index, batch, a, err));
    if (c->output_gate)
        op->sigmoid_mul(backend, a->attended, a->q_gate, (size_t)n * (size_t)c->n_heads * (size_t)c->head_dim);
    op->matmul(backend, &w->out.w, w->out.bias, a->attended, n, a->h);
    tq_add_to_stream(model, backend, l->attention_out, a->h, n, a->x);
    return TQ_OK;
}
