/* tq_bench.h: how fast is it here, and how fast could it be?  What `tq bench` measures with.
 *
 * Nothing in here is needed for running a model. */
#ifndef TQ_BENCH_H
#define TQ_BENCH_H

#include "tq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Lengthen a session's context by n tokens whose keys and values are random: as fast to attend to as real ones, and
 * without the time of a prefill.  The model has no say in them, so what is generated afterwards means nothing.
 * TQ_FULL, and TQ_UNSUPPORTED for models with recurrent layers, change nothing. */
TQ_API tq_status tq_bench_fill(tq_session *session, int n, tq_error *err);

/* The machine's memory: GB/s that n_threads (0: one a usable processor) read from a buffer of `bytes` together, the best
 * of `repeats` passes (one thread: of its processor time).  What a model's decode is compared with. */
TQ_API tq_status tq_bench_read_bandwidth(int n_threads, size_t bytes, int repeats, double *gb_per_second, tq_error *err);

/* One kernel of one instruction set on one shape: first its result against the scalar table's, then its time. */
typedef struct tq_kernel_row {
    const char *kernels;  /* "avx512" */
    const char *name;     /* "gemv" */
    const char *shape;    /* "4-bit/64 4864x896, 1 token" */
    double error;         /* largest difference from the scalar table, over the largest result */
    double tolerance;     /* of that */
    double nanoseconds;   /* of one call: the median */
    double spread;        /* (slowest quarter - fastest quarter) / median */
    double bytes, flops;  /* that a call reads and computes (a multiplication and an addition are two) */
    double bytes_per_second, flops_per_second;
} tq_kernel_row;

typedef struct tq_bench_kernels_params {
    const char *kernels; /* one table, or NULL: all that run here */
    const char *filter;  /* only kernels whose name contains this; NULL: all */
    int repeats;
    double seconds;      /* that one repeat takes, about */
} tq_bench_kernels_params;

/* Measure on one thread, tables in turn within a repeat.  fn is called for each row in order; it may stop (false:
 * TQ_CANCELLED). */
typedef bool (*tq_kernel_row_fn)(void *ctx, const tq_kernel_row *row);
TQ_API tq_status tq_bench_kernels(const tq_bench_kernels_params *params, tq_kernel_row_fn fn, void *ctx, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
