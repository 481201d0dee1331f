/* moe_layer.c: a mixture of experts: x += sum over the chosen experts of weight * expert(h), and of the shared expert
 * times sigmoid of its gate, with h = norm(x).  Tokens are gathered by expert, so that each expert's weights are read
 * once a chunk. */
#include <string.h>

#include "model/transformer.h"

/* y (n, hidden) = expert(x) */
static void run_expert(const tq_config *c, const tq_ffn_weights *w, int width, bool interleaved, tq_backend *backend,
                       tq_activations *a, const float *x, int n, float *y) {
    const tq_backend_ops *op = backend->ops;
    if (!interleaved) {
        op->gated(backend, &(tq_gated_args){.gate = {&w->gate.w, w->gate.bias, a->gate}, .up = {&w->up.w, w->up.bias, a->up},
                                            .down = {&w->down.w, w->down.bias, y}, .gating = c->gating, .x = x, .n = n});
        return;
    }
    tq_split_part parts[] = {{a->gate, 1, (size_t)width}, {a->up, 1, (size_t)width}};
    op->matmul(backend, &w->gate.w, w->gate.bias, x, n, a->wide);
    op->split(backend, a->wide, n, width, parts, 2);
    op->activate(backend, &c->gating, a->gate, a->up, (size_t)n * (size_t)width);
    op->matmul(backend, &w->down.w, w->down.bias, a->gate, n, y);
}

/* The tokens that chose expert e: rows, row_weights. */
static int tokens_of(const tq_activations *a, int n, int n_active, int e) {
    int count = 0;
    for (int i = 0; i < n * n_active; i++)
        if (a->expert_ids[i] == e) {
            a->rows[count] = i / n_active;
            a->row_weights[count++] = a->expert_weights[i];
        }
    return count;
}

void tq_moe_layer(const tq_transformer *model, int index, tq_backend *backend, tq_activations *a, int n) {
    const tq_config *c = &model->config;
    const tq_layer *l = &model->layers[index];
    const tq_moe_config *m = &c->moe;
    const tq_moe_weights *w = &l->moe;
    const tq_backend_ops *op = backend->ops;
    const float *h = tq_norm_in(model, backend, l->ffn_in, a->x, n, a->h);
    op->matmul(backend, &w->router.w, w->router.bias, h, n, a->router);
    op->route(backend, a->router, n, m->n_experts, m->n_active, m->renormalize, a->expert_ids, a->expert_weights);
    memset(a->sum, 0, (size_t)n * (size_t)c->hidden * sizeof(float));
    if (m->shared_intermediate > 0) {
        run_expert(c, &w->shared, m->shared_intermediate, false, backend, a, h, n, a->sum);
        op->matmul(backend, &w->shared_gate.w, NULL, h, n, a->router); /* the experts' logits have done their work */
        for (int t = 0; t < n; t++) a->row_weights[t] = 1;
        op->sigmoid_mul(backend, a->row_weights, a->router, (size_t)n);
        op->scale_rows(backend, a->sum, a->row_weights, n, c->hidden);
    }
    for (int e = 0; e < m->n_experts; e++) {
        int count = tokens_of(a, n, m->n_active, e);
        if (count == 0) continue;
        op->gather_rows(backend, h, a->rows, count, c->hidden, a->gathered);
        run_expert(c, &w->experts[e], m->intermediate, w->interleaved, backend, a, a->gathered, count, a->expert_out);
        op->scatter_rows(backend, a->expert_out, a->rows, a->row_weights, count, c->hidden, a->sum);
    }
    tq_add_to_stream(model, backend, l->ffn_out, a->sum, n, a->x);
}
