/* cpu_backend.c: the CPU backend's operations but attention: each splits its rows over the pool and calls kernels. */
#include "backend/cpu/cpu_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GEMV_ROWS = 64, TOKENS_A_TASK = 8, FLOATS_A_TASK = 16384 };

static tq_cpu_backend *cpu(tq_backend *backend) { return (tq_cpu_backend *)backend; }
static int ceil_div(size_t a, size_t b) { return (int)((a + b - 1) / b); }
static size_t at_most(size_t a, size_t b) { return a < b ? a : b; }

/* ---- matmul ------------------------------------------------------------------------------------------------------ */

typedef struct matmul_job {
    tq_cpu_backend *cpu;
    const tq_matrix *w;
    const float *bias, *x;
    const tq_gemv_input *inputs; /* (n), of a few tokens */
    int n;
    float *y;
} matmul_job;

static void add_bias(const matmul_job *job, int row0, int n_rows) {
    if (!job->bias) return;
    for (int t = 0; t < job->n; t++)
        job->cpu->kernels->add(job->y + (size_t)t * (size_t)job->w->rows + row0, job->bias + row0, n_rows);
}

static void gemv_task(void *ctx, int task, int worker) {
    const matmul_job *job = ctx;
    int row0 = task * GEMV_ROWS, n_rows = (int)at_most(GEMV_ROWS, (size_t)(job->w->rows - row0));
    float *scratch = job->cpu->worker_scratch + (size_t)worker * job->cpu->worker_floats;
    job->cpu->kernels->gemv(job->w, row0, n_rows, job->inputs, job->n, job->y + row0, job->w->rows, scratch);
    add_bias(job, row0, n_rows);
}

static void gemm_task(void *ctx, int task, int worker) {
    const matmul_job *job = ctx;
    int row0 = task * TQ_GEMM_ROWS, n_rows = (int)at_most(TQ_GEMM_ROWS, (size_t)(job->w->rows - row0));
    float *scratch = job->cpu->worker_scratch + (size_t)worker * job->cpu->worker_floats;
    job->cpu->kernels->gemm(job->w, row0, n_rows, job->x, job->n, job->y + row0, job->w->rows, scratch);
    add_bias(job, row0, n_rows);
}

/* Heads whose rows stand as rotary pairs, back to halves.  One head at a time: n is the rows of a token. */
static void part_pairs(const tq_matrix *w, int n, float *y) {
    int size = w->paired_rows, half = size / 2;
    float head[TQ_PAIRED_ROWS_MAX];
    for (size_t at = 0, end = (size_t)n * (size_t)w->rows; at < end; at += (size_t)size) {
        memcpy(head, y + at, (size_t)size * sizeof *head);
        for (int i = 0; i < half; i++) {
            y[at + (size_t)i] = head[2 * i];
            y[at + (size_t)(i + half)] = head[2 * i + 1];
        }
    }
}

static void matmul_as_stored(tq_backend *backend, const tq_matrix *w, const float *bias, const float *x, int n, float *y) {
    tq_cpu_backend *c = cpu(backend);
    if (n > TQ_SINGLE_TOKENS) {
        matmul_job job = {.cpu = c, .w = w, .bias = bias, .x = x, .n = n, .y = y};
        tq_pool_run(c->pool, gemm_task, &job, ceil_div((size_t)w->rows, TQ_GEMM_ROWS));
        return;
    }
    tq_gemv_input inputs[TQ_SINGLE_TOKENS];
    for (int t = 0; t < n; t++) {
        inputs[t] = (tq_gemv_input){x + (size_t)t * (size_t)w->cols, c->split + (size_t)t * c->max_cols,
                                    c->group_sums + (size_t)t * c->max_cols};
        c->kernels->gemv_prepare(w, &inputs[t]);
    }
    matmul_job job = {.cpu = c, .w = w, .bias = bias, .inputs = inputs, .n = n, .y = y};
    tq_pool_run(c->pool, gemv_task, &job, ceil_div((size_t)w->rows, GEMV_ROWS));
}

static void matmul(tq_backend *backend, const tq_matrix *w, const float *bias, const float *x, int n, float *y) {
    matmul_as_stored(backend, w, bias, x, n, y);
    if (w->paired_rows) part_pairs(w, n, y);
}

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

static void silu_mul_task(void *ctx, int task, int worker) {
    (void)worker;
    const rows_job *job = ctx;
    size_t from = (size_t)task * FLOATS_A_TASK;
    job->kernels->silu_mul(job->y + from, job->x + from, (int)at_most(FLOATS_A_TASK, job->count - from));
}

static void silu_mul(tq_backend *backend, float *gate, const float *up, size_t count) {
    rows_job job = {.kernels = cpu(backend)->kernels, .x = up, .y = gate, .count = count};
    tq_pool_run(cpu(backend)->pool, silu_mul_task, &job, ceil_div(count, FLOATS_A_TASK));
}

/* ---- the backend ------------------------------------------------------------------------------------------------- */

static void cpu_free(tq_backend *backend) {
    tq_cpu_backend *c = cpu(backend);
    tq_pool_free(c->pool);
    free(c->worker_scratch);
    free(c->trellis_scratch);
    free(c->split);
    free(c->group_sums);
    free(c);
}

static const tq_backend_ops cpu_ops = {
    .free = cpu_free, .embed = embed, .matmul = matmul, .rms_norm = rms_norm, .add = add, .silu_mul = silu_mul,
    .rope = tq_cpu_rope, .gelu_mul = tq_cpu_gelu_mul, .clamped_swiglu = tq_cpu_clamped_swiglu,
    .sigmoid_mul = tq_cpu_sigmoid_mul, .soft_cap = tq_cpu_soft_cap, .scale = tq_cpu_scale,
    .scale_rows = tq_cpu_scale_rows, .split = tq_cpu_split, .gather_rows = tq_cpu_gather_rows,
    .scatter_rows = tq_cpu_scatter_rows, .route = tq_cpu_route, .conv = tq_cpu_conv, .delta = tq_cpu_delta, .attend = tq_cpu_attend, .flush = tq_cpu_flush, .attend_bytes = tq_cpu_attend_bytes,
};

void tq_backend_free(tq_backend *backend) {
    if (backend) backend->ops->free(backend);
}

tq_status tq_cpu_backend_new(int n_threads, const char *kernels, int max_cols, tq_backend **out, tq_error *err) {
    tq_cpu_backend *c = calloc(1, sizeof *c);
    if (!c) return tq_fail_memory(err, sizeof *c, "the CPU backend");
    c->base.ops = &cpu_ops;
    tq_status status = tq_kernels_select(kernels, &c->kernels, err);
    if (status == TQ_OK) status = tq_pool_new(n_threads, &c->pool, err);
    if (status == TQ_OK) {
        c->base.n_threads = tq_pool_threads(c->pool);
        snprintf(c->base.name, sizeof c->base.name, "cpu/%s", c->kernels->name);
        size_t cols = ((size_t)max_cols + 63) / 64 * 64;
        c->worker_floats = cols > TQ_GEMM_SCRATCH ? cols : TQ_GEMM_SCRATCH;
        size_t bytes = (size_t)c->base.n_threads * c->worker_floats * sizeof(float);
        c->worker_scratch = aligned_alloc(64, bytes);
        c->max_cols = cols;
        c->trellis_scratch = aligned_alloc(64, (size_t)c->base.n_threads * TQ_TRELLIS_SCRATCH(TQ_MAX_PLANAR_DIM));
        c->split = aligned_alloc(64, TQ_SINGLE_TOKENS * cols * sizeof(float));
        c->group_sums = aligned_alloc(64, TQ_SINGLE_TOKENS * cols * sizeof(float));
        if (!c->worker_scratch || !c->trellis_scratch || !c->split || !c->group_sums)
            status = tq_fail_memory(err, bytes, "matmul scratch");
    }
    if (status != TQ_OK) {
        cpu_free(&c->base);
        return status;
    }
    *out = &c->base;
    return TQ_OK;
}
