/* ffn_layer.c: x += down(activation(gate(h)) * up(h)) with h = norm(x). */
#include "model/transformer.h"

void tq_ffn_layer(const tq_transformer *model, int index, tq_backend *backend, tq_activations *a, int n) {
    const tq_config *c = &model->config;
    const tq_layer *l = &model->layers[index];
    const tq_ffn_weights *w = &l->ffn;
    const float *h = tq_norm_in(model, backend, l->ffn_in, a->x, n, a->h);
    backend->ops->gated(backend, &(tq_gated_args){.gate = {&w->gate.w, w->gate.bias, a->gate}, .up = {&w->up.w, w->up.bias, a->up},
                                                  .down = {&w->down.w, w->down.bias, a->h}, .gating = c->gating, .x = h, .n = n});
    tq_add_to_stream(model, backend, l->ffn_out, a->h, n, a->x);
}
