/* test_pool.c: the thread pool.  Meant to be run under ThreadSanitizer too. */
#include "testing.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "base/pool.h"

enum { MOST_TASKS = 300, MOST_THREADS = 8 };

typedef struct job {
    int runs[MOST_TASKS]; /* plain: two runs of one task would race */
    int worker_of[MOST_TASKS];
    int n_threads, stamp;
    long product[MOST_TASKS];
} job;

static void run_once(void *ctx, int task, int worker) {
    job *j = ctx;
    j->runs[task]++;
    j->worker_of[task] = worker;
    j->product[task] = (long)task * task + j->stamp;
}

static void check_job(const job *j, int n) {
    for (int i = 0; i < MOST_TASKS; i++) {
        if (j->runs[i] != (i < n)) fail_msg("task %d of %d ran %d times", i, n, j->runs[i]);
        if (i < n) {
            assert_true(j->worker_of[i] >= 0 && j->worker_of[i] < j->n_threads);
            assert_int_equal(j->product[i], (long)i * i + j->stamp);
        }
    }
}

static void run_every_task_once(void (*run)(tq_pool *, tq_task_fn, void *, int)) {
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        tq_pool *pool;
        OK(tq_pool_new(threads, &pool, &e));
        assert_int_equal(tq_pool_threads(pool), threads);
        for (int round = 0; round < 2500; round++) { /* jobs come so fast that workers are late for most */
            int n = round % 7 == 0 ? MOST_TASKS - round % 50 : round % 11;
            job j = {.n_threads = threads, .stamp = round};
            run(pool, run_once, &j, n);
            check_job(&j, n);
        }
        tq_pool_free(pool);
    }
}

static void every_task_runs_exactly_once(void **state) {
    (void)state;
    run_every_task_once(tq_pool_run);
}

static void every_task_of_shares_runs_exactly_once(void **state) {
    (void)state;
    run_every_task_once(tq_pool_run_shares);
}

typedef struct meeting {
    _Atomic int arrived;
    int met;
} meeting;

static void meet(void *ctx, int task, int worker) {
    meeting *m = ctx;
    atomic_fetch_add(&m->arrived, 1);
    for (long i = 0; atomic_load(&m->arrived) < 2; i++) {
        if (i > 20000000) return;
        sched_yield();
    }
    if (task == 0) m->met = 1;
    (void)worker;
}

/* Tasks that wait for each other finish only if two threads run them. */
static void two_threads_work_at_the_same_time(void **state) {
    (void)state;
    tq_pool *pool;
    OK(tq_pool_new(2, &pool, &e));
    for (int i = 0; i < 20; i++) {
        meeting m = {0};
        tq_pool_run(pool, meet, &m, 2);
        assert_int_equal(m.met, 1);
    }
    tq_pool_free(pool);
}

typedef struct waiting {
    _Atomic int first, done;
    int order[MOST_TASKS], stuck; /* order: which of those done a task was */
} waiting;

/* The first task of all waits for the others, its neighbours too. */
static void wait_for_the_others(void *ctx, int task, int worker) {
    (void)worker;
    waiting *w = ctx;
    bool waits = atomic_fetch_add(&w->first, 1) == 0;
    for (long i = 0; waits && atomic_load(&w->done) < MOST_TASKS - 1; i++) {
        if (i > 20000000) {
            w->stuck = 1;
            break;
        }
        sched_yield();
    }
    w->order[task] = atomic_fetch_add(&w->done, 1);
}

/* A thread that is held up keeps nothing but the task it is at: the other one comes from the end of its share. */
static void shares_are_helped_out_with(void **state) {
    (void)state;
    tq_pool *pool;
    OK(tq_pool_new(2, &pool, &e));
    for (int i = 0; i < 20; i++) {
        waiting w = {0};
        tq_pool_run_shares(pool, wait_for_the_others, &w, MOST_TASKS);
        assert_int_equal(w.stuck, 0);
        int last = w.order[0] == MOST_TASKS - 1 ? 0 : MOST_TASKS / 2; /* the first of one of the shares waited */
        assert_int_equal(w.order[last], MOST_TASKS - 1);
        int own = last ? 0 : MOST_TASKS / 2, others = last ? MOST_TASKS / 2 : 0;
        for (int t = 1; t < MOST_TASKS / 2; t++) {
            assert_true(w.order[own + t] > w.order[own + t - 1]);
            if (t > 1) assert_true(w.order[others + t] < w.order[others + t - 1]);
        }
    }
    tq_pool_free(pool);
}

typedef struct sums {
    const float *x;
    float partial[64];
} sums;

static void sum_slice(void *ctx, int task, int worker) {
    (void)worker;
    sums *s = ctx;
    for (int i = 0; i < 1000; i++) s->partial[task] += s->x[task * 1000 + i];
}

static void results_do_not_depend_on_the_number_of_threads(void **state) {
    (void)state;
    float *x = test_floats(64000);
    tq_rng rng = {3};
    test_normals(&rng, x, 64000);
    sums alone = {.x = x};
    for (int i = 0; i < 64; i++) sum_slice(&alone, i, 0);
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        tq_pool *pool;
        OK(tq_pool_new(threads, &pool, &e));
        for (int round = 0; round < 20; round++) {
            sums s = {.x = x};
            tq_pool_run(pool, sum_slice, &s, 64);
            assert_memory_equal(s.partial, alone.partial, sizeof alone.partial);
        }
        tq_pool_free(pool);
    }
    free(x);
}

/* Workers sleep after a while; a job must wake them or finish without them. */
static void a_job_after_a_pause_is_run(void **state) {
    (void)state;
    tq_pool *pool;
    OK(tq_pool_new(4, &pool, &e));
    for (int round = 0; round < 30; round++) {
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); /* spinning takes less, on a processor of one's own */
        job j = {.n_threads = 4, .stamp = round};
        tq_pool_run(pool, run_once, &j, 17);
        check_job(&j, 17);
    }
    tq_pool_free(pool);
}

static void pools_come_and_go(void **state) {
    (void)state;
    for (int i = 0; i < 200; i++) {
        tq_pool *pool;
        OK(tq_pool_new(1 + i % 5, &pool, &e));
        if (i % 3) { /* some never get a job */
            job j = {.n_threads = 1 + i % 5};
            tq_pool_run(pool, run_once, &j, i % 9);
            check_job(&j, i % 9);
        }
        tq_pool_free(pool);
    }
    tq_pool_free(NULL);
}

static void impossible_thread_counts_are_refused(void **state) {
    (void)state;
    tq_pool *pool = NULL;
    FAILS(tq_pool_new(-1, &pool, &e), TQ_INVALID, "-1");
    FAILS(tq_pool_new(257, &pool, &e), TQ_INVALID, "257");
    assert_null(pool);
    OK(tq_pool_new(0, &pool, &e));
    assert_int_equal(tq_pool_threads(pool), tq_usable_cpus());
    assert_true(tq_usable_cpus() >= 1);
    job j = {.n_threads = tq_pool_threads(pool)};
    tq_pool_run(pool, run_once, &j, 0);
    tq_pool_run(pool, run_once, &j, -3);
    check_job(&j, 0);
    tq_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_exactly_once), cmocka_unit_test(every_task_of_shares_runs_exactly_once),
        cmocka_unit_test(shares_are_helped_out_with),
        cmocka_unit_test(two_threads_work_at_the_same_time),
        cmocka_unit_test(results_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(a_job_after_a_pause_is_run),
        cmocka_unit_test(pools_come_and_go),
        cmocka_unit_test(impossible_thread_counts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
