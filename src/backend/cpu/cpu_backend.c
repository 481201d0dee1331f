/* cpu_backend.c: the CPU backend's operations but attention: each splits its rows over the pool and calls kernels. */
#include "backend/cpu/cpu_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GEMV_BYTES = 32768, GEMV_TASKS = 8, PREPARE_ALONE = 16384, TOKENS_A_TASK = 8, FLOATS_A_TASK = 16384 };

static tq_cpu_backend *cpu(tq_backend *backend) { return (tq_cpu_backend *)backend; }
static int ceil_div(size_t a, size_t b) { return (int)((a + b - 1) / b); }
static size_t at_most(size_t a, size_t b) { return a < b ? a : b; }

/* ---- matmul ------------------------------------------------------------------------------------------------------
 * A job is one input and the matrices that take it as it was prepared.  Tasks are runs of rows: whoever runs them, however
 * many there are, a row's sum is the same. */

enum { JOB_PRODUCTS = 8 };

typedef struct matmul_job {
    tq_cpu_backend *cpu;
    const tq_product *products;
    int first_task[JOB_PRODUCTS + 1], task_rows[JOB_PRODUCTS];
    const tq_matmul_input *input;
    int token0; /* of the input's first token, for y */
} matmul_job;

static bool in_bf16(const tq_cpu_backend *c, const tq_matrix *w, int n) {
    return c->bf16 && n > TQ_GEMV_TOKENS && c->bf16->takes(w);
}

/* Rows of a task: those of a few tokens are some 32 KB of weights, of which all but the first TQ_GEMV_ROWS rows are fetched while
 * others are multiplied, or less where threads would have too few tasks to share. */
static int rows_of_task(const tq_cpu_backend *c, const tq_matrix *w, int n) {
    if (n > TQ_GEMV_TOKENS) { /* two tasks a thread, unless they get too small: rows do not depend on each other */
        size_t share = tq_matmul_padded((size_t)ceil_div((size_t)w->rows, 2 * (size_t)c->base.n_threads), TQ_GEMM_ROWS);
        return (int)at_most(share, (size_t)(in_bf16(c, w, n) ? c->bf16->rows : c->kernels->gemm_rows));
    }
    size_t share = tq_matmul_padded((size_t)ceil_div((size_t)w->rows, GEMV_TASKS * (size_t)c->base.n_threads), TQ_GEMV_ROWS);
    size_t rows = GEMV_BYTES / (tq_matrix_row_bytes(w) + 1) / TQ_GEMV_ROWS * TQ_GEMV_ROWS;
    return (int)at_most(share, at_most(rows < TQ_GEMV_ROWS ? TQ_GEMV_ROWS : rows, 256));
}

static void matmul_task(void *ctx, int task, int worker) {
    const matmul_job *job = ctx;
    int p = 0;
    while (task >= job->first_task[p + 1]) p++;
    const tq_product *product = &job->products[p];
    const tq_kernels *k = job->cpu->kernels;
    int rows = product->w->rows, row0 = (task - job->first_task[p]) * job->task_rows[p];
    int n_rows = (int)at_most((size_t)job->task_rows[p], (size_t)(rows - row0));
    float *scratch = job->cpu->worker_scratch + (size_t)worker * job->cpu->worker_floats;
    float *y = product->y + (size_t)job->token0 * (size_t)rows + row0;
    if (in_bf16(job->cpu, product->w, job->input->n)) job->cpu->bf16->gemm(product->w, row0, n_rows, job->input, y, rows, scratch);
    else if (job->input->n > TQ_GEMV_TOKENS) k->gemm(product->w, row0, n_rows, job->input, y, rows, scratch);
    else k->gemv(product->w, row0, n_rows, job->input, y, rows, scratch);
    for (int t = 0; product->bias && t < job->input->n; t++) k->add(y + (size_t)t * (size_t)rows, product->bias + row0, n_rows);
}

static void prepare_task(void *ctx, int task, int worker) {
    (void)worker;
    const matmul_job *job = ctx;
    const tq_matrix *w = job->products->w;
    if (in_bf16(job->cpu, w, job->input->n)) job->cpu->bf16->prepare(job->input, task);
    else job->cpu->kernels->matmul_prepare(w, job->input, task);
}

/* Products whose inputs are the same, over tokens token0..token0+n of x. */
static void run_products(tq_cpu_backend *c, const tq_product *products, int count, const float *x, int token0, int n) {
    tq_matmul_input input = c->input;
    input.cols = products->w->cols;
    input.n = n;
    input.x = x + (size_t)token0 * (size_t)input.cols;
    matmul_job job = {.cpu = c, .products = products, .input = &input, .token0 = token0};
    bool coarse = in_bf16(c, products->w, n);
    int tiles = ceil_div((size_t)n, (size_t)(coarse ? c->bf16->tile : tq_matmul_tile(n, c->kernels->gemm_tile)));
    if (tiles * input.cols < PREPARE_ALONE) /* waking the others takes longer */
        for (int i = 0; i < tiles; i++) prepare_task(&job, i, 0);
    else tq_pool_run(c->pool, prepare_task, &job, tiles);
    for (int p = 0; p < count; p++) {
        job.task_rows[p] = rows_of_task(c, products[p].w, n);
        job.first_task[p + 1] = job.first_task[p] + ceil_div((size_t)products[p].w->rows, (size_t)job.task_rows[p]);
    }
    (n > TQ_GEMV_TOKENS ? tq_pool_run : tq_pool_run_shares)(c->pool, matmul_task, &job, job.first_task[count]);
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

_Static_assert((int)TQ_GEMV_TOKENS == (int)TQ_SINGLE_TOKENS, "what gemv takes is what gets the same bits as alone");

/* May products of n tokens with both share a prepared input? */
static bool same_input(const tq_cpu_backend *c, const tq_matrix *a, const tq_matrix *b, int n) {
    bool coarse = in_bf16(c, a, n);
    return coarse == in_bf16(c, b, n) && (coarse || c->kernels->matmul_same_input(a, b, n));
}

/* As many as all products can take. */
static int tokens_at_a_time(const tq_cpu_backend *c, const tq_product *products, int count) {
    for (int p = 0; p < count; p++)
        if (!c->bf16 || !c->bf16->takes(products[p].w)) return TQ_GEMM_TOKENS;
    return c->bf16->tokens;
}

static void matmul_many(tq_backend *backend, const tq_product *products, int count, const float *x, int n) {
    tq_cpu_backend *c = cpu(backend);
    size_t most = (size_t)tokens_at_a_time(c, products, count);
    for (int token0 = 0, block; token0 < n; token0 += block) {
        block = (int)at_most(most, (size_t)(n - token0));
        for (int p = 0, m; p < count; p += m) {
            for (m = 1; p + m < count && m < JOB_PRODUCTS; m++)
                if (!same_input(c, products[p].w, products[p + m].w, block)) break;
            run_products(c, products + p, m, x, token0, block);
        }
    }
    for (int p = 0; p < count; p++)
        if (products[p].w->paired_rows) part_pairs(products[p].w, n, products[p].y);
}

static void matmul(tq_backend *backend, const tq_matrix *w, const float *bias, const float *x, int n, float *y) {
    matmul_many(backend, &(tq_product){w, bias, y}, 1, x, n);
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
    free(c->trellis_work);
    free(c->input.prepared);
    free(c->input.step);
    free(c->input.sum);
    free(c);
}

static const tq_backend_ops cpu_ops = {
    .free = cpu_free, .embed = embed, .matmul = matmul, .matmul_many = matmul_many, .rms_norm = rms_norm, .add = add, .silu_mul = silu_mul,
    .rope = tq_cpu_rope, .gelu_mul = tq_cpu_gelu_mul, .clamped_swiglu = tq_cpu_clamped_swiglu,
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
        if (!c->worker_scratch || !c->trellis_work || !c->input.prepared || !c->input.step || !c->input.sum)
            status = tq_fail_memory(err, bytes + input + 2 * steps, "matmul scratch");
    }
    if (status != TQ_OK) {
        cpu_free(&c->base);
        return status;
    }
    *out = &c->base;
    return TQ_OK;
}
