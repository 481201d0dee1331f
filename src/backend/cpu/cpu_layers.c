/* cpu_layers.c: the CPU backend's operations of single kinds of layers: rotary encoding, gates and caps, experts,
 * delta nets.  Each splits its rows, channels or heads over the pool. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_backend.h"

enum { TOKENS_A_TASK = 8, FLOATS_A_TASK = 16384, CHANNELS_A_TASK = 256 };

static tq_cpu_backend *cpu(tq_backend *backend) { return (tq_cpu_backend *)backend; }
static int ceil_div(size_t a, size_t b) { return (int)((a + b - 1) / b); }
static int min_int(int a, int b) { return a < b ? a : b; }

/* ---- runs of values ------------------------------------------------------------------------------------------------ */

typedef enum run_kind { RUN_ACTIVATE, RUN_SIGMOID_MUL, RUN_SOFT_CAP, RUN_SCALE } run_kind;

typedef struct run_job {
    const tq_kernels *kernels;
    run_kind kind;
    float *x;
    const float *y;
    float a;
    const tq_gating *gating;
    size_t count;
} run_job;

void tq_cpu_gate(const tq_kernels *k, const tq_gating *gating, float *gate, const float *up, int n) {
    switch (gating->activation) {
    case TQ_ACTIVATION_SILU: k->silu_mul(gate, up, n); break;
    case TQ_ACTIVATION_GELU: k->gelu_mul(gate, up, n); break;
    case TQ_ACTIVATION_CLAMPED_SWIGLU: k->clamped_swiglu(gate, up, n, gating->alpha, gating->limit); break;
    }
}

static void run_task(void *ctx, int task, int worker) {
    (void)worker;
    const run_job *job = ctx;
    size_t from = (size_t)task * FLOATS_A_TASK, left = job->count - from;
    int n = left < FLOATS_A_TASK ? (int)left : FLOATS_A_TASK;
    float *x = job->x + from;
    const float *y = job->y ? job->y + from : NULL;
    switch (job->kind) {
    case RUN_ACTIVATE: tq_cpu_gate(job->kernels, job->gating, x, y, n); break;
    case RUN_SIGMOID_MUL: job->kernels->sigmoid_mul(x, y, n); break;
    case RUN_SOFT_CAP: job->kernels->soft_cap(x, n, job->a); break;
    case RUN_SCALE: job->kernels->scale(x, n, job->a); break;
    }
}

static void run(tq_backend *backend, run_job job) {
    job.kernels = cpu(backend)->kernels;
    tq_pool_run(cpu(backend)->pool, run_task, &job, ceil_div(job.count, FLOATS_A_TASK));
}

void tq_cpu_activate(tq_backend *backend, const tq_gating *gating, float *gate, const float *up, size_t count) {
    run(backend, (run_job){.kind = RUN_ACTIVATE, .x = gate, .y = up, .gating = gating, .count = count});
}

void tq_cpu_sigmoid_mul(tq_backend *backend, float *x, const float *gate, size_t count) {
    run(backend, (run_job){.kind = RUN_SIGMOID_MUL, .x = x, .y = gate, .count = count});
}

void tq_cpu_soft_cap(tq_backend *backend, float *x, float cap, size_t count) {
    run(backend, (run_job){.kind = RUN_SOFT_CAP, .x = x, .a = cap, .count = count});
}

void tq_cpu_scale(tq_backend *backend, float *x, float factor, size_t count) {
    run(backend, (run_job){.kind = RUN_SCALE, .x = x, .a = factor, .count = count});
}

/* ---- rows ---------------------------------------------------------------------------------------------------------- */

typedef struct rows_job {
    const tq_kernels *kernels;
    const float *x, *factors;
    float *y;
    const int32_t *rows;
    const tq_split_part *parts;
    int n, dim, n_groups, n_parts;
} rows_job;

/* Rows task * TOKENS_A_TASK up to *last. */
static int first_row(const rows_job *job, int task, int *last) {
    *last = min_int(job->n, (task + 1) * TOKENS_A_TASK);
    return task * TOKENS_A_TASK;
}

static void run_rows(tq_backend *backend, void (*task)(void *, int, int), rows_job *job) {
    job->kernels = cpu(backend)->kernels;
    tq_pool_run(cpu(backend)->pool, task, job, ceil_div((size_t)job->n, TOKENS_A_TASK));
}

static void scale_rows_task(void *ctx, int task, int worker) {
    (void)worker;
    const rows_job *job = ctx;
    int last;
    for (int t = first_row(job, task, &last); t < last; t++)
        job->kernels->scale(job->y + (size_t)t * (size_t)job->dim, job->dim, job->factors[t]);
}

void tq_cpu_scale_rows(tq_backend *backend, float *x, const float *factors, int n, int dim) {
    rows_job job = {.y = x, .factors = factors, .n = n, .dim = dim};
    run_rows(backend, scale_rows_task, &job);
}

static void split_task(void *ctx, int task, int worker) {
    (void)worker;
    const rows_job *job = ctx;
    int last;
    for (int t = first_row(job, task, &last); t < last; t++) {
        const float *from = job->x + (size_t)t * (size_t)job->dim;
        for (int g = 0; g < job->n_groups; g++)
            for (int p = 0; p < job->n_parts; p++) {
                const tq_split_part *part = &job->parts[p];
                float *to = part->to + (size_t)t * part->stride + (size_t)g * (size_t)part->width;
                for (int i = 0; i < part->width; i++) to[i] = from[i];
                from += part->width;
            }
    }
}

void tq_cpu_split(tq_backend *backend, const float *x, int n, int n_groups, const tq_split_part *parts, int n_parts) {
    rows_job job = {.x = x, .n = n, .n_groups = n_groups, .parts = parts, .n_parts = n_parts};
    for (int p = 0; p < n_parts; p++) job.dim += parts[p].width * n_groups;
    run_rows(backend, split_task, &job);
}

static void gather_task(void *ctx, int task, int worker) {
    (void)worker;
    const rows_job *job = ctx;
    size_t dim = (size_t)job->dim;
    int last;
    for (int t = first_row(job, task, &last); t < last; t++)
        memcpy(job->y + (size_t)t * dim, job->x + (size_t)job->rows[t] * dim, dim * sizeof(float));
}

void tq_cpu_gather_rows(tq_backend *backend, const float *x, const int32_t *rows, int n, int dim, float *y) {
    rows_job job = {.x = x, .y = y, .rows = rows, .n = n, .dim = dim};
    run_rows(backend, gather_task, &job);
}

static void scatter_task(void *ctx, int task, int worker) {
    (void)worker;
    const rows_job *job = ctx;
    size_t dim = (size_t)job->dim;
    int last;
    for (int i = first_row(job, task, &last); i < last; i++) {
        float *to = job->y + (size_t)job->rows[i] * dim;
        const float *from = job->x + (size_t)i * dim;
        for (size_t j = 0; j < dim; j++) to[j] += job->factors[i] * from[j];
    }
}

void tq_cpu_scatter_rows(tq_backend *backend, const float *y, const int32_t *rows, const float *weights, int n, int dim,
                         float *x) {
    rows_job job = {.x = y, .y = x, .rows = rows, .factors = weights, .n = n, .dim = dim};
    run_rows(backend, scatter_task, &job);
}

/* ---- rotary encoding ----------------------------------------------------------------------------------------------- */

typedef struct rope_job {
    float *x;
    const float *angles;
    int n, n_heads, head_dim, n_dims;
    bool adjacent;
} rope_job;

static void rope_task(void *ctx, int task, int worker) {
    (void)worker;
    const rope_job *job = ctx;
    int pairs = job->n_dims / 2, step = job->adjacent ? 2 : 1, apart = job->adjacent ? 1 : pairs;
    for (int t = task * TOKENS_A_TASK; t < job->n && t < (task + 1) * TOKENS_A_TASK; t++) {
        const float *angles = job->angles + (size_t)t * (size_t)job->n_dims;
        for (int h = 0; h < job->n_heads; h++) {
            float *x = job->x + ((size_t)t * (size_t)job->n_heads + (size_t)h) * (size_t)job->head_dim;
            for (int i = 0; i < pairs; i++) {
                float *first = x + i * step, a = *first, b = first[apart], c = angles[2 * i], s = angles[2 * i + 1];
                *first = a * c - b * s;
                first[apart] = b * c + a * s;
            }
        }
    }
}

void tq_cpu_rope(tq_backend *backend, float *x, const float *angles, int n, int n_heads, int head_dim, int n_dims,
                 bool adjacent) {
    rope_job job = {x, angles, n, n_heads, head_dim, n_dims, adjacent};
    tq_pool_run(cpu(backend)->pool, rope_task, &job, ceil_div((size_t)n, TOKENS_A_TASK));
}

/* ---- experts ------------------------------------------------------------------------------------------------------- */

typedef struct route_job {
    const float *logits;
    int n, n_experts, k;
    bool renormalize;
    int32_t *ids;
    float *weights;
} route_job;

static void route_token(const route_job *job, const float *logits, int32_t *ids, float *weights) {
    float top = -INFINITY, all = 0, chosen = 0;
    for (int e = 0; e < job->n_experts; e++) top = logits[e] > top ? logits[e] : top;
    for (int e = 0; e < job->n_experts; e++) all += expf(logits[e] - top);
    int n = 0; /* ids so far, the largest logit first */
    for (int e = 0; e < job->n_experts; e++) {
        int at = n;
        while (at > 0 && logits[e] > logits[ids[at - 1]]) at--;
        if (at == job->k) continue;
        if (n < job->k) n++;
        for (int i = n - 1; i > at; i--) ids[i] = ids[i - 1];
        ids[at] = e;
    }
    for (int i = 0; i < n; i++) {
        weights[i] = expf(logits[ids[i]] - top) / all;
        chosen += weights[i];
    }
    for (int i = 0; job->renormalize && i < n; i++) weights[i] /= chosen;
}

static void route_task(void *ctx, int task, int worker) {
    (void)worker;
    const route_job *job = ctx;
    for (int t = task * TOKENS_A_TASK; t < job->n && t < (task + 1) * TOKENS_A_TASK; t++)
        route_token(job, job->logits + (size_t)t * (size_t)job->n_experts, job->ids + (size_t)t * (size_t)job->k,
                    job->weights + (size_t)t * (size_t)job->k);
}

void tq_cpu_route(tq_backend *backend, const float *logits, int n, int n_experts, int k, bool renormalize, int32_t *ids,
                  float *weights) {
    route_job job = {logits, n, n_experts, k, renormalize, ids, weights};
    tq_pool_run(cpu(backend)->pool, route_task, &job, ceil_div((size_t)n, TOKENS_A_TASK));
}

/* ---- delta nets ---------------------------------------------------------------------------------------------------- */

typedef struct conv_job {
    const tq_kernels *kernels;
    const tq_conv_args *args;
} conv_job;

/* The input at time `at` of the chunk; before it: in the state. */
static const float *conv_input(const tq_conv_args *a, int at) {
    size_t width = (size_t)a->channels;
    return at < 0 ? a->state + (size_t)(a->kernel - 1 + at) * width : a->x + (size_t)at * width;
}

static void conv_task(void *ctx, int task, int worker) {
    (void)worker;
    const conv_job *job = ctx;
    const tq_conv_args *a = job->args;
    int past = a->kernel - 1, from = task * CHANNELS_A_TASK, width = min_int(a->channels - from, CHANNELS_A_TASK);
    for (int t = 0; t < a->n; t++) {
        float *y = a->y + (size_t)t * (size_t)a->channels + from;
        memset(y, 0, (size_t)width * sizeof *y);
        for (int i = 0; i < a->kernel; i++) {
            const float *x = conv_input(a, t - past + i) + from, *w = a->weight + (size_t)i * (size_t)a->channels + from;
            for (int c = 0; c < width; c++) y[c] += w[c] * x[c];
        }
        job->kernels->sigmoid_mul(y, y, width);
    }
    for (int i = 0; i < past; i++) /* upwards: what moves within the state is read before it is written */
        memcpy(a->state + (size_t)i * (size_t)a->channels + from, conv_input(a, a->n - past + i) + from,
               (size_t)width * sizeof(float));
}

void tq_cpu_conv(tq_backend *backend, const tq_conv_args *args) {
    conv_job job = {cpu(backend)->kernels, args};
    tq_pool_run(cpu(backend)->pool, conv_task, &job, ceil_div((size_t)args->channels, CHANNELS_A_TASK));
}

typedef struct delta_job {
    const tq_kernels *kernels;
    const tq_delta_args *args;
    size_t key_floats, row_floats; /* of all queries; of a row of qkv */
} delta_job;

static void l2_norm(float *x, int n, float scale) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    float factor = scale / sqrtf(sum + 1e-6f);
    for (int i = 0; i < n; i++) x[i] *= factor;
}

static void norm_keys_task(void *ctx, int task, int worker) {
    (void)worker;
    const delta_job *job = ctx;
    const tq_delta_args *a = job->args;
    float q_scale = 1.0f / sqrtf((float)a->key_dim);
    for (int t = task * TOKENS_A_TASK; t < a->n && t < (task + 1) * TOKENS_A_TASK; t++)
        for (int h = 0; h < 2 * a->n_key_heads; h++)
            l2_norm(a->qkv + (size_t)t * job->row_floats + (size_t)h * (size_t)a->key_dim, a->key_dim,
                    h < a->n_key_heads ? q_scale : 1.0f);
}

static void delta_task(void *ctx, int head, int worker) {
    (void)worker;
    const delta_job *job = ctx;
    const tq_delta_args *a = job->args;
    int key_head = a->tiled ? head % a->n_key_heads : head / (a->n_value_heads / a->n_key_heads);
    float *state = a->state + (size_t)head * (size_t)a->value_dim * (size_t)a->key_dim;
    for (int t = 0; t < a->n; t++) {
        const float *q = a->qkv + (size_t)t * job->row_floats + (size_t)key_head * (size_t)a->key_dim;
        const float *v = a->qkv + (size_t)t * job->row_floats + 2 * job->key_floats + (size_t)head * (size_t)a->value_dim;
        size_t at = (size_t)t * (size_t)a->n_value_heads + (size_t)head;
        float x = a->a[at] + a->bias[head], softplus = x > 20 ? x : log1pf(expf(x));
        float decay = expf(-a->rate[head] * softplus), beta = 1.0f / (1 + expf(-a->b[at]));
        job->kernels->delta_step(state, q, q + job->key_floats, v, decay, beta, a->key_dim, a->value_dim,
                                 a->y + at * (size_t)a->value_dim);
    }
}

void tq_cpu_delta(tq_backend *backend, const tq_delta_args *args) {
    delta_job job = {.kernels = cpu(backend)->kernels, .args = args};
    job.key_floats = (size_t)args->n_key_heads * (size_t)args->key_dim;
    job.row_floats = 2 * job.key_floats + (size_t)args->n_value_heads * (size_t)args->value_dim;
    tq_pool_run(cpu(backend)->pool, norm_keys_task, &job, ceil_div((size_t)args->n, TOKENS_A_TASK));
    tq_pool_run(cpu(backend)->pool, delta_task, &job, args->n_value_heads);
}
