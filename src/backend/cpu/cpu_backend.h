/* cpu_backend.h: what the files of the CPU backend share. */
#ifndef TQ_BACKEND_CPU_CPU_BACKEND_H
#define TQ_BACKEND_CPU_CPU_BACKEND_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "base/pool.h"

typedef struct tq_cpu_backend {
    tq_backend base;
    const tq_kernels *kernels;
    tq_pool *pool;
    float *worker_scratch; /* (n_threads, worker_floats): gemm panels, gemv rows */
    size_t worker_floats;
    uint8_t *trellis_scratch;  /* (n_threads, TQ_TRELLIS_SCRATCH(TQ_MAX_PLANAR_DIM)); touched only by trellis codecs */
    float *split, *group_sums; /* (max_cols) each: the prepared input of a matrix-vector product */
} tq_cpu_backend;

void tq_cpu_attend(tq_backend *backend, const tq_attend_args *args);
size_t tq_cpu_attend_bytes(const tq_backend *backend, const tq_codec *key, const tq_codec *value, int n_heads,
                           int n_kv_heads, int head_dim, int max_n, int max_tokens);
void tq_cpu_flush(tq_backend *backend, const tq_flush_args *args);

#endif
