/* ffn_layer.c: x += down(silu(gate(h)) * up(h)) with h = norm(x). */
#include "model/transformer.h"

void tq_ffn_layer(const tq_transformer *model, int index, tq_backend *backend, tq_activations *a, int n) {
    const tq_config *c = &model->config;
    const tq_layer *l = &model->layers[index];
    const tq_backend_ops *op = backend->ops;
    op->rms_norm(backend, a->x, l->ffn_norm, n, c->hidden, c->rms_eps, a->h);
    op->matmul(backend, &l->gate.w, l->gate.bias, a->h, n, a->gate);
    op->matmul(backend, &l->up.w, l->up.bias, a->h, n, a->up);
    op->silu_mul(backend, a->gate, a->up, (size_t)n * (size_t)c->intermediate);
    op->matmul(backend, &l->down.w, l->down.bias, a->gate, n, a->h);
    op->add(backend, a->x, a->h, (size_t)n * (size_t)c->hidden);
}
