/* cpu_matmul.c: the CPU backend's products with weights.
 *
 * A job is one input and the matrices that take it as it was prepared.  Tasks are runs of rows: whoever runs them, however
 * many there are, a row's sum is the same. */
#include <string.h>

#include "backend/cpu/cpu_backend.h"

enum { GEMV_BYTES = 32768, GEMV_TASKS = 8, PREPARE_ALONE = 16384, JOB_PRODUCTS = 8 };

static int ceil_div(size_t a, size_t b) { return (int)((a + b - 1) / b); }
static size_t at_most(size_t a, size_t b) { return a < b ? a : b; }

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

/* Tokens token0..token0+n of x as products with w want them. */
static tq_matmul_input prepare(tq_cpu_backend *c, const tq_matrix *w, const float *x, int token0, int n) {
    tq_matmul_input input = c->input;
    input.cols = w->cols;
    input.n = n;
    input.x = x + (size_t)token0 * (size_t)input.cols;
    matmul_job job = {.cpu = c, .products = &(tq_product){.w = w}, .input = &input};
    int tiles = ceil_div((size_t)n, (size_t)(in_bf16(c, w, n) ? c->bf16->tile : tq_matmul_tile(n, c->kernels->gemm_tile)));
    if (tiles * input.cols < PREPARE_ALONE) /* waking the others takes longer */
        for (int i = 0; i < tiles; i++) prepare_task(&job, i, 0);
    else tq_pool_run(c->pool, prepare_task, &job, tiles);
    return input;
}

/* Products whose inputs are the same, prepared from tokens token0 and on. */
static void run_products(tq_cpu_backend *c, const tq_product *products, int count, const tq_matmul_input *input, int token0) {
    matmul_job job = {.cpu = c, .products = products, .input = input, .token0 = token0};
    for (int p = 0; p < count; p++) {
        job.task_rows[p] = rows_of_task(c, products[p].w, input->n);
        job.first_task[p + 1] = job.first_task[p] + ceil_div((size_t)products[p].w->rows, (size_t)job.task_rows[p]);
    }
    (input->n > TQ_GEMV_TOKENS ? tq_pool_run : tq_pool_run_shares)(c->pool, matmul_task, &job, job.first_task[count]);
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

/* Tokens of each of equal parts: none of many tokens is so small that it would be computed in another way. */
static int equal_parts(int n, int most) {
    int parts = ceil_div((size_t)n, (size_t)most);
    return parts > 1 ? ceil_div((size_t)n, (size_t)parts) : n;
}

/* As many of n as all products can take. */
static int tokens_at_a_time(const tq_cpu_backend *c, const tq_product *products, int count, int n) {
    for (int p = 0; p < count; p++)
        if (!c->bf16 || !c->bf16->takes(products[p].w)) return equal_parts(n, TQ_GEMM_TOKENS);
    return equal_parts(n, c->bf16->tokens);
}

void tq_cpu_matmul_many(tq_backend *backend, const tq_product *products, int count, const float *x, int n) {
    tq_cpu_backend *c = (tq_cpu_backend *)backend;
    size_t most = (size_t)tokens_at_a_time(c, products, count, n);
    for (int token0 = 0, block; token0 < n; token0 += block) {
        block = (int)at_most(most, (size_t)(n - token0));
        for (int p = 0, m; p < count; p += m) {
            for (m = 1; p + m < count && m < JOB_PRODUCTS; m++)
                if (!same_input(c, products[p].w, products[p + m].w, block)) break;
            tq_matmul_input input = prepare(c, products[p].w, x, token0, block);
            run_products(c, products + p, m, &input, token0);
        }
    }
    for (int p = 0; p < count; p++)
        if (products[p].w->paired_rows) part_pairs(products[p].w, n, products[p].y);
}

void tq_cpu_matmul(tq_backend *backend, const tq_matrix *w, const float *bias, const float *x, int n, float *y) {
    tq_cpu_matmul_many(backend, &(tq_product){w, bias, y}, 1, x, n);
}

/* ---- gated feed-forward blocks ------------------------------------------------------------------------------------------- */

typedef struct gated_job {
    tq_cpu_backend *cpu;
    const tq_gated_args *args;
    const tq_matmul_input *input, *between; /* between: of down, whose columns the tasks prepare */
} gated_job;

/* TQ_GATED_ROWS rows of gate and up, which are as many columns of down's input: they stay in L2 on their way there. */
static void gated_task(void *ctx, int task, int worker) {
    const gated_job *job = ctx;
    const tq_gated_args *a = job->args;
    tq_cpu_backend *c = job->cpu;
    const tq_bf16_kernels *k = c->bf16;
    int row0 = task * TQ_GATED_ROWS, n = job->input->n, n_rows = (int)at_most(TQ_GATED_ROWS, (size_t)(a->gate.w->rows - row0));
    float *scratch = c->worker_scratch + (size_t)worker * c->worker_floats;
    float *gate = c->gated_scratch + (size_t)worker * 2 * (size_t)k->tokens * TQ_GATED_ROWS, *up = gate + (size_t)k->tokens * TQ_GATED_ROWS;
    k->gemm(a->gate.w, row0, n_rows, job->input, gate, n_rows, scratch);
    k->gemm(a->up.w, row0, n_rows, job->input, up, n_rows, scratch);
    for (int t = 0; t < n; t += k->tile) {
        int end = (int)at_most((size_t)n, (size_t)(t + k->tile));
        for (int i = t; i < end; i++) {
            float *g = gate + i * n_rows, *u = up + i * n_rows;
            if (a->gate.bias) c->kernels->add(g, a->gate.bias + row0, n_rows);
            if (a->up.bias) c->kernels->add(u, a->up.bias + row0, n_rows);
            tq_cpu_gate(c->kernels, &a->gating, g, u, n_rows);
        }
        k->put(job->between, t / k->tile, row0, n_rows, gate + t * n_rows, n_rows);
    }
}

void tq_cpu_gated(tq_backend *backend, const tq_gated_args *args) {
    tq_cpu_backend *c = (tq_cpu_backend *)backend;
    const tq_product *gate = &args->gate, *up = &args->up, *down = &args->down;
    int n = args->n;
    if (!in_bf16(c, gate->w, n) || !in_bf16(c, up->w, n) || !in_bf16(c, down->w, n)) {
        tq_cpu_matmul_many(backend, (tq_product[]){*gate, *up}, 2, args->x, n);
        tq_cpu_activate(backend, &args->gating, gate->y, up->y, (size_t)n * (size_t)gate->w->rows);
        tq_cpu_matmul_many(backend, down, 1, gate->y, n);
        return;
    }
    int most = equal_parts(n, c->bf16->tokens);
    for (int token0 = 0, block; token0 < n; token0 += block) {
        block = (int)at_most((size_t)most, (size_t)(n - token0));
        tq_matmul_input input = prepare(c, gate->w, args->x, token0, block), between = input;
        between.cols = down->w->cols, between.prepared = c->gated_input;
        gated_job job = {.cpu = c, .args = args, .input = &input, .between = &between};
        tq_pool_run(c->pool, gated_task, &job, ceil_div((size_t)gate->w->rows, TQ_GATED_ROWS));
        run_products(c, down, 1, &between, token0);
    }
}
