/* ffn_layer.c: x += down(activation(gate(h)) * up(h)) with h = norm(x). */
#include "model/transformer.h"

void tq_ffn_layer(const tq_transformer *model, int index, tq_backend *backend, tq_activations *a, int n) {
    const tq_config *c = &model->config;
    const tq_layer *l = &model->layers[index];
    const tq_ffn_weights *w = &l->ffn;
    const tq_backend_ops *op = backend->ops;
    const float *h = tq_norm_in(model, backend, l->ffn_in, a->x, n, a->h);
    tq_product gate_up[] = {{&w->gate.w, w->gate.bias, a->gate}, {&w->up.w, w->up.bias, a->up}};
    op->matmul_many(backend, gate_up, 2, h, n);
    tq_activate(c, backend, a->gate, a->up, (size_t)n * (size_t)c->intermediate);
    op->matmul(backend, &w->down.w, w->down.bias, a->gate, n, a->h);
    tq_add_to_stream(model, backend, l->ffn_out, a->h, n, a->x);
}
