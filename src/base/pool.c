/* pool.c: the thread pool.  Workers spin briefly for the next job, then sleep on a condition variable, so that a token
 * is not slowed by wake-ups and an idle program uses no processor. */
#define _GNU_SOURCE
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* A round is a pause: 15 to 50 ns.  A worker outlives the serial parts of a token; whoever waits for the last task gives
 * its processor away sooner, because on a shared machine the task's owner may be the one that needs it. */
enum { SPIN_ROUNDS = 2000, WAIT_ROUNDS = 400, MAX_THREADS = 256 };

/* Tasks of a run that nobody has taken: the next of its owner's << 32 | the end of them. */
typedef struct pool_share {
    _Alignas(64) _Atomic uint64_t left;
} pool_share;

/* ticket packs (job generation << 32 | tasks not yet taken): a worker late for one job can never take a task of the
 * next.  fn, ctx and n_tasks change only between jobs, when no worker holds a task, and are read only by a worker that
 * holds one. */
struct tq_pool {
    int n_threads, n_started;
    pthread_t threads[MAX_THREADS];
    pthread_mutex_t lock;
    pthread_cond_t wake;
    tq_task_fn fn;
    void *ctx;
    uint32_t n_tasks;
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t unfinished;
    _Alignas(64) _Atomic int sleepers;
    _Atomic bool stop;
    pool_share shares[MAX_THREADS];
};

typedef struct worker_arg {
    tq_pool *pool;
    int index;
} worker_arg;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static uint32_t generation_of(uint64_t ticket) { return (uint32_t)(ticket >> 32); }

/* Take and run tasks of this generation until none is left. */
static void work(tq_pool *pool, uint32_t generation, int worker) {
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    while (generation_of(ticket) == generation && (uint32_t)ticket > 0) {
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket - 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        pool->fn(pool->ctx, (int)(pool->n_tasks - (uint32_t)ticket), worker);
        atomic_fetch_sub_explicit(&pool->unfinished, 1, memory_order_release);
        ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    }
}

/* The generation after `seen`, once it is on offer. */
static uint32_t wait_for_job(tq_pool *pool, uint32_t seen) {
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        uint32_t now = generation_of(atomic_load_explicit(&pool->ticket, memory_order_acquire));
        if (now != seen || atomic_load_explicit(&pool->stop, memory_order_relaxed)) return now;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    /* Sequentially consistent against tq_pool_run: either it sees this sleeper, or this sees its ticket. */
    atomic_fetch_add(&pool->sleepers, 1);
    uint32_t now;
    while ((now = generation_of(atomic_load(&pool->ticket))) == seen && !atomic_load(&pool->stop))
        pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
    return now;
}

static void *worker_main(void *arg) {
    tq_pool *pool = ((worker_arg *)arg)->pool;
    int index = ((worker_arg *)arg)->index;
    free(arg);
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_job(pool, seen);
        if (atomic_load(&pool->stop)) return NULL;
        work(pool, seen, index);
    }
}

static void wake_sleepers(tq_pool *pool) {
    if (atomic_load(&pool->sleepers) == 0) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

void tq_pool_run(tq_pool *pool, tq_task_fn fn, void *ctx, int n_tasks) {
    if (n_tasks <= 0) return;
    if (pool->n_started == 0 || n_tasks == 1) {
        for (int i = 0; i < n_tasks; i++) fn(ctx, i, 0);
        return;
    }
    pool->fn = fn;
    pool->ctx = ctx;
    pool->n_tasks = (uint32_t)n_tasks;
    atomic_store_explicit(&pool->unfinished, (uint32_t)n_tasks, memory_order_relaxed);
    uint32_t generation = generation_of(atomic_load_explicit(&pool->ticket, memory_order_relaxed)) + 1;
    atomic_store(&pool->ticket, (uint64_t)generation << 32 | (uint32_t)n_tasks);
    wake_sleepers(pool);
    work(pool, generation, 0);
    for (int i = 0; atomic_load_explicit(&pool->unfinished, memory_order_acquire) > 0; i++) {
        if (i < WAIT_ROUNDS) relax();
        else sched_yield(); /* the machine is shared: let the worker that holds the last task run */
    }
}

/* ---- shares -------------------------------------------------------------------------------------------------------- */

typedef struct shares_job {
    tq_pool *pool;
    tq_task_fn fn;
    void *ctx;
    int n_shares;
} shares_job;

/* The next task of a share, or its last one; -1: none is left. */
static int take_from(pool_share *share, bool last) {
    uint64_t left = atomic_load_explicit(&share->left, memory_order_relaxed), rest;
    uint32_t next, end;
    do {
        next = (uint32_t)(left >> 32), end = (uint32_t)left;
        if (next >= end) return -1;
        rest = last ? left - 1 : left + (UINT64_C(1) << 32);
    } while (!atomic_compare_exchange_weak_explicit(&share->left, &left, rest, memory_order_relaxed, memory_order_relaxed));
    return (int)(last ? end - 1 : next);
}

/* All that is left, the worker's own share first.  Whoever comes late finds nothing. */
static void work_through_shares(void *ctx, int ticket, int worker) {
    (void)ticket;
    const shares_job *job = ctx;
    for (int i = 0, task; i < job->n_shares; i++) {
        pool_share *share = &job->pool->shares[(worker + i) % job->n_shares];
        while ((task = take_from(share, i > 0)) >= 0) job->fn(job->ctx, task, worker);
    }
}

void tq_pool_run_shares(tq_pool *pool, tq_task_fn fn, void *ctx, int n_tasks) {
    shares_job job = {pool, fn, ctx, pool->n_started + 1};
    if (job.n_shares == 1 || n_tasks <= 1) {
        tq_pool_run(pool, fn, ctx, n_tasks);
        return;
    }
    for (int64_t i = 0, from = 0, to; i < job.n_shares; i++, from = to) {
        to = (i + 1) * n_tasks / job.n_shares;
        atomic_store_explicit(&pool->shares[i].left, (uint64_t)from << 32 | (uint64_t)to, memory_order_relaxed);
    }
    tq_pool_run(pool, work_through_shares, &job, job.n_shares); /* which publishes the shares, and waits for the last task */
}

int tq_pool_threads(const tq_pool *pool) { return pool->n_threads; }

tq_status tq_pool_new(int n_threads, tq_pool **out, tq_error *err) {
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return tq_fail(err, TQ_INVALID, "threads: want 1..%d, got %d", MAX_THREADS, n_threads);
    if (n_threads == 0) n_threads = tq_usable_cpus();
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    tq_pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (!pool) return tq_fail_memory(err, sizeof *pool, "the thread pool");
    *pool = (tq_pool){.n_threads = n_threads};
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (int i = 1; i < n_threads; i++) {
        worker_arg *arg = malloc(sizeof *arg);
        if (arg) *arg = (worker_arg){pool, i};
        if (!arg || pthread_create(&pool->threads[pool->n_started], NULL, worker_main, arg) != 0) {
            free(arg);
            tq_pool_free(pool);
            return tq_fail(err, TQ_NO_MEMORY, "threads: could not start %d, stopped at %d", n_threads, i);
        }
        pool->n_started++;
    }
    *out = pool;
    return TQ_OK;
}

void tq_pool_free(tq_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->n_started; i++) pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

int tq_usable_cpus(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (f) {
        long quota, period;
        if (fscanf(f, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0) {
            long limit = (quota + period - 1) / period;
            if (limit < n) n = (int)limit;
        }
        fclose(f);
    }
    return n < 1 ? 1 : n;
}
