/* pool.h: a fixed set of threads that run numbered tasks.
 *
 * A job is n tasks; workers take the next number from an atomic ticket.  Which worker runs a task is left to chance, so
 * a task writes only what is its own: results then do not depend on the number of threads. */
#ifndef TQ_BASE_POOL_H
#define TQ_BASE_POOL_H

#include "base/status.h"

typedef struct tq_pool tq_pool;

/* worker is 0..n_threads-1: an index for scratch memory, never for results. */
typedef void (*tq_task_fn)(void *ctx, int task, int worker);

/* n_threads 0: tq_usable_cpus().  The calling thread is worker 0; n_threads - 1 are started. */
tq_status tq_pool_new(int n_threads, tq_pool **out, tq_error *err);
void tq_pool_free(tq_pool *pool);

int tq_pool_threads(const tq_pool *pool);

/* Run tasks 0..n_tasks-1 and return when all are done.  One caller at a time per pool. */
void tq_pool_run(tq_pool *pool, tq_task_fn fn, void *ctx, int n_tasks);

/* The same, where memory streams better if a thread takes neighbours: each thread has an equal run of the tasks as its own and
 * takes them in order; who has none left takes the last one of another's. */
void tq_pool_run_shares(tq_pool *pool, tq_task_fn fn, void *ctx, int n_tasks);

/* Processors this process may use: the affinity mask, cut by the cgroup's CPU quota (rounded up). */
int tq_usable_cpus(void);

#endif
