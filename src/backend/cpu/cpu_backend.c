/* cpu_backend.c: the CPU backend, and its operations on rows and runs of values: each splits them over the pool and calls kernels. */
#include "backend/cpu/cpu_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS_A_TASK = 8, FLOATS_A_TASK = 16384 };

static tq_cpu_backend *cpu(tq_backend *backend) { return (tq_cpu_backend *)backend; }
static int ceil_div(size_t a, size_t b) { return (int)((a + b - 1) / b); }
static size_t at_most(size_t a, size_t b) { return a < b ? a : b; }

/* ---- rows and runs ----------------------------------------------------------------------------------------------- */

typedef struct rows_job {
    const tq_kernels *kernels;
    const tq_matrix *table;
    const int32_t *ids;
    const float *x, *weight;
    float *y;
    int n, dim;
    float eps;
    size_t count;
} rows_job;

static void embed_task(void *ctx, int task, int worker) {
    (void)worker;
    const rows_job *job = ctx;
    for (int t = task * TOKENS_A_TASK; t < job->n && t < (task + 1) * TOKENS_A_TASK; t++)
        job->kernels->unpack_row(job->table, job->ids[t], job->y + (size_t)t * (size_t)job->table->cols);
}

static void embed(tq_backend *backend, const tq_matrix *table, const int32_t *ids, int n, float *x) {
    rows_job job = {.kernels = cpu(backend)->kernels, .table = table, .ids = ids, .n = n, .y = x};
    tq_pool_run(cpu(backend)->pool, embed_task, &job, ceil_div((size_t)n, TOKENS_A_TASK));
}

static void rms_norm_task(void *ctx, int task, int worker) {
    (void)worker;
    const rows_job *job = ctx;
    size_t dim = (size_t)job->dim;
    for (int t = task * TOKENS_A_TASK; t < job->n && t < (task + 1) * TOKENS_A_TASK; t++)
        job->kernels->rms_norm(job->x + (size_t)t * dim, job->weight, job->dim, job->eps, job->y + (size_t)t * dim);
}

static void rms_norm(tq_backend *backend, const float *x, const float *weight, int n, int dim, float eps, float *y) {
    rows_job job = {.kernels = cpu(backend)->kernels, .x = x, .weight = weight, .n = n, .dim = dim, .eps = eps, .y = y};
    tq_pool_run(cpu(backend)->pool, rms_norm_task, &job, ceil_div((size_t)n, TOKENS_A_TASK));
}

static void add_task(void *ctx, int task, int worker) {
    (void)worker;
    const rows_job *job = ctx;
    size_t from = (size_t)task * FLOATS_A_TASK;
    job->kernels->add(job->y + from, job->x + from, (int)at_most(FLOATS_A_TASK, job->count - from));
}

static void add(tq_backend *backend, float *x, const float *y, size_t count) {
    rows_job job = {.kernels = cpu(backend)->kernels, .x = y, .y = x, .count = count};
    tq_pool_run(cpu(backend)->pool, add_task, &job, ceil_div(count, FLOATS_A_TASK));
}

/* ---- the backend ------------------------------------------------------------------------------------------------- */

static void cpu_free(tq_backend *backend) {
    tq_cpu_backend *c = cpu(backend);
    tq_pool_free(c->pool);
    free(c->worker_scratch);
    free(c->trellis_work);
    free(c->input.prepared);
    free(c->input.step);
    free(c->input.sum);
    free(c->gated_input);
    free(c->gated_scratch);
    free(c);
}

static const tq_backend_ops cpu_ops = {
    .free = cpu_free, .embed = embed, .matmul = tq_cpu_matmul, .matmul_many = tq_cpu_matmul_many, .gated = tq_cpu_gated, .rms_norm = rms_norm, .add = add,
    .rope = tq_cpu_rope, .activate = tq_cpu_activate,
    .sigmoid_mul = tq_cpu_sigmoid_mul, .soft_cap = tq_cpu_soft_cap, .scale = tq_cpu_scale,
    .scale_rows = tq_cpu_scale_rows, .split = tq_cpu_split, .gather_rows = tq_cpu_gather_rows,
    .scatter_rows = tq_cpu_scatter_rows, .route = tq_cpu_route, .conv = tq_cpu_conv, .delta = tq_cpu_delta, .attend = tq_cpu_attend, .flush = tq_cpu_flush, .centre_share = tq_cpu_centre_share, .attend_bytes = tq_cpu_attend_bytes,
};

void tq_backend_free(tq_backend *backend) {
    if (backend) backend->ops->free(backend);
}

static tq_status choose_kernels(tq_cpu_backend *c, const char *want, bool bf16_prefill, tq_error *err) {
    TQ_TRY(tq_kernels_select(want, &c->kernels, err));
    if (!bf16_prefill) return TQ_OK;
    c->bf16 = c->kernels->bf16;
    if (!c->bf16 || !c->bf16->runs_here())
        return tq_fail(err, TQ_UNSUPPORTED, "prefill in bf16: wants a processor with AVX-512 BF16 or AMX, and kernels 'avx512' or 'amx'; these are '%s'%s",
                       c->kernels->name, c->bf16 ? ", on a processor without" : "");
    return TQ_OK;
}

tq_status tq_cpu_backend_new(int n_threads, const char *kernels, bool bf16_prefill, int max_cols, tq_backend **out, tq_error *err) {
    tq_cpu_backend *c = calloc(1, sizeof *c);
    if (!c) return tq_fail_memory(err, sizeof *c, "the CPU backend");
    c->base.ops = &cpu_ops;
    tq_status status = choose_kernels(c, kernels, bf16_prefill, err);
    if (status == TQ_OK) status = tq_pool_new(n_threads, &c->pool, err);
    if (status == TQ_OK) {
        c->base.n_threads = tq_pool_threads(c->pool);
        snprintf(c->base.name, sizeof c->base.name, "cpu/%s%s", c->kernels->name, c->bf16 ? ", prefill in bf16" : "");
        c->worker_floats = tq_matmul_padded(tq_matmul_scratch(max_cols), 16);
        size_t bytes = (size_t)c->base.n_threads * c->worker_floats * sizeof(float);
        size_t steps = tq_matmul_step_count(max_cols) * sizeof(float), input = tq_matmul_input_count(max_cols) * sizeof(float);
        c->worker_scratch = aligned_alloc(64, bytes);
        c->trellis_work = aligned_alloc(64, (size_t)c->base.n_threads * sizeof *c->trellis_work);
        c->input.prepared = aligned_alloc(64, input);
        c->input.step = aligned_alloc(64, steps);
        c->input.sum = aligned_alloc(64, steps);
        if (c->bf16) {
            c->gated_input = aligned_alloc(64, tq_matmul_padded((size_t)c->bf16->tokens * (size_t)max_cols * sizeof(uint16_t), 64));
            c->gated_scratch = aligned_alloc(64, (size_t)c->base.n_threads * 2 * (size_t)c->bf16->tokens * TQ_GATED_ROWS * sizeof(float));
        }
        if (!c->worker_scratch || !c->trellis_work || !c->input.prepared || !c->input.step || !c->input.sum ||
            (c->bf16 && (!c->gated_input || !c->gated_scratch)))
            status = tq_fail_memory(err, bytes + input + 2 * steps, "matmul scratch");
    }
    if (status != TQ_OK) {
        cpu_free(&c->base);
        return status;
    }
    *out = &c->base;
    return TQ_OK;
}
