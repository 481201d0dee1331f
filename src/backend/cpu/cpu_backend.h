/* cpu_backend.h: what the files of the CPU backend share. */
#ifndef TQ_BACKEND_CPU_CPU_BACKEND_H
#define TQ_BACKEND_CPU_CPU_BACKEND_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "base/pool.h"

/* What a thread needs to encode TQ_TRELLIS_ROWS rows. */
typedef struct tq_trellis_work {
    int16_t samples[TQ_MAX_PLANAR_DIM * TQ_TRELLIS_ROWS];
    uint8_t chains[TQ_MAX_PLANAR_DIM * TQ_TRELLIS_ROWS];
    uint8_t scratch[TQ_TRELLIS_SCRATCH(TQ_MAX_PLANAR_DIM)] __attribute__((aligned(64)));
} tq_trellis_work;

typedef struct tq_cpu_backend {
    tq_backend base;
    const tq_kernels *kernels;
    const tq_bf16_kernels *bf16; /* NULL: prefill is in float32 */
    tq_pool *pool;
    float *worker_scratch; /* (n_threads, worker_floats): what gemv and gemm want */
    size_t worker_floats;
    tq_trellis_work *trellis_work; /* (n_threads); touched only by trellis codecs, and no further than their dim */
    tq_matmul_input input; /* for TQ_GEMM_TOKENS tokens of the widest matrix */
    /* Where prefill is in bf16: down's input of a gated block, prepared; what comes to it from gate and up: (n_threads, 2, tokens, TQ_GATED_ROWS). */
    float *gated_input, *gated_scratch;
} tq_cpu_backend;

/* Rows of gate and up whose results, with those of 512 tokens, stay in L2 until they are down's input. */
enum { TQ_GATED_ROWS = 128 };

/* cpu_matmul.c */
void tq_cpu_matmul(tq_backend *backend, const tq_matrix *w, const float *bias, const float *x, int n, float *y);
void tq_cpu_matmul_many(tq_backend *backend, const tq_product *products, int count, const float *x, int n);
void tq_cpu_gated(tq_backend *backend, const tq_gated_args *args);
/* cpu_attend.c */
void tq_cpu_attend(tq_backend *backend, const tq_attend_args *args);
size_t tq_cpu_attend_bytes(const tq_backend *backend, const tq_codec *key, const tq_codec *value, int n_heads,
                           int n_kv_heads, int head_dim, int max_n, int max_tokens);
/* cpu_layers.c */
/* gate = gating of gate and up, on one thread */
void tq_cpu_gate(const tq_kernels *kernels, const tq_gating *gating, float *gate, const float *up, int n);
void tq_cpu_activate(tq_backend *backend, const tq_gating *gating, float *gate, const float *up, size_t count);
void tq_cpu_sigmoid_mul(tq_backend *backend, float *x, const float *gate, size_t count);
void tq_cpu_soft_cap(tq_backend *backend, float *x, float cap, size_t count);
void tq_cpu_scale(tq_backend *backend, float *x, float factor, size_t count);
void tq_cpu_scale_rows(tq_backend *backend, float *x, const float *factors, int n, int dim);
void tq_cpu_split(tq_backend *backend, const float *x, int n, int n_groups, const tq_split_part *parts, int n_parts);
void tq_cpu_gather_rows(tq_backend *backend, const float *x, const int32_t *rows, int n, int dim, float *y);
void tq_cpu_scatter_rows(tq_backend *backend, const float *y, const int32_t *rows, const float *weights, int n, int dim,
                         float *x);
void tq_cpu_route(tq_backend *backend, const float *logits, int n, int n_experts, int k, bool renormalize, int32_t *ids,
                  float *weights);
void tq_cpu_conv(tq_backend *backend, const tq_conv_args *args);
void tq_cpu_delta(tq_backend *backend, const tq_delta_args *args);
void tq_cpu_rope(tq_backend *backend, float *x, const float *angles, int n, int n_heads, int head_dim, int n_dims,
                 bool adjacent);

void tq_cpu_flush(tq_backend *backend, const tq_flush_args *args);
double tq_cpu_centre_share(tq_backend *backend, const tq_flush_args *args, int n);

#endif
