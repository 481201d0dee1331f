/* bench_session.c: contexts of random keys and values, and what the memory delivers. */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "base/pool.h"
#include "engine/session.h"

#include <turboquant/tq_bench.h>

/* ---- filling a context ------------------------------------------------------------------------------------------- */

enum { BLOCK_ROWS = 1024, AT_A_TIME = 256 };

static void fill_normals(tq_rng *rng, float *x, size_t n) {
    for (size_t i = 0; i + 2 <= n; i += 2) {
        double radius = sqrt(-2.0 * log(1.0 - tq_rng_uniform(rng))), angle = 6.283185307179586 * tq_rng_uniform(rng);
        x[i] = (float)(radius * cos(angle));
        x[i + 1] = (float)(radius * sin(angle));
    }
}

tq_status tq_bench_fill(tq_session *s, int n, tq_error *err) {
    if (n < 0 || n > s->params.ctx - s->n_tokens)
        return tq_fail(err, n < 0 ? TQ_INVALID : TQ_FULL, "fill: %d tokens held and %d new ones do not fit into %d",
                       s->n_tokens, n, s->params.ctx);
    const tq_config *c = &s->model->config;
    if (c->n_delta_layers > 0)
        return tq_fail(err, TQ_UNSUPPORTED, "fill: %s has %d recurrent layers, whose state only a prefill computes", c->family,
                       c->n_delta_layers);
    size_t row = (size_t)c->n_kv_heads * (size_t)c->head_dim, floats = (2 * BLOCK_ROWS + AT_A_TIME) * row;
    float *block = malloc(floats * sizeof *block);
    if (!block) return tq_fail_memory(err, floats * sizeof *block, "random rows");
    tq_rng rng = {(uint64_t)s->n_tokens + 1};
    fill_normals(&rng, block, floats);
    /* Keys have a common part, as those of models do: without one their pages would have no centres to be read. */
    for (size_t i = 0; i < (BLOCK_ROWS + AT_A_TIME) * row; i++) block[i] += 1;
    tq_status status = TQ_OK;
    for (int done = 0, m; done < n && status == TQ_OK; done += m) {
        m = n - done < s->params.prefill_chunk ? n - done : s->params.prefill_chunk;
        if (m > AT_A_TIME) m = AT_A_TIME;
        for (int layer = 0; layer < c->n_layers && status == TQ_OK; layer++) { /* rows differ by layer and chunk */
            const float *k = block + (size_t)(tq_rng_u64(&rng) % BLOCK_ROWS) * row;
            status = tq_cache_append(s->cache, layer, k, k + BLOCK_ROWS * row, m, err);
        }
    }
    free(block);
    if (status != TQ_OK) return status;
    for (int i = 0; i < n; i++) s->tokens[s->n_tokens + i] = (int32_t)(tq_rng_u64(&rng) % (uint64_t)c->vocab);
    s->n_tokens += n;
    s->has_logits = false;
    return TQ_OK;
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

enum { PIECE = 1 << 18 };

typedef struct read_job {
    const uint8_t *data;
    size_t bytes;
    uint64_t *sums; /* (n_threads * 8): so that reading is not optimized away */
} read_job;

typedef uint64_t wide __attribute__((vector_size(64)));

static void read_piece(void *ctx, int task, int worker) {
    const read_job *job = ctx;
    size_t from = (size_t)task * PIECE, to = from + PIECE < job->bytes ? from + PIECE : job->bytes;
    wide a = {0}, b = {0};
    for (size_t i = from; i + 128 <= to; i += 128) {
        __builtin_prefetch(job->data + i + 4096);
        __builtin_prefetch(job->data + i + 4096 + 64);
        a ^= *(const wide *)(const void *)(job->data + i);
        b ^= *(const wide *)(const void *)(job->data + i + 64);
    }
    a ^= b;
    for (int i = 0; i < 8; i++) job->sums[worker * 8 + i] ^= a[i];
}

/* One thread is timed by its own processor time, which others on a shared machine do not lengthen. */
static double seconds(bool alone) {
    struct timespec t;
    clock_gettime(alone ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

tq_status tq_bench_read_bandwidth(int n_threads, size_t bytes, int repeats, double *gb_per_second, tq_error *err) {
    *gb_per_second = 0;
    if (bytes < PIECE || repeats < 1)
        return tq_fail(err, TQ_INVALID, "bandwidth: want at least %d bytes and one repeat", PIECE);
    uint8_t *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return tq_fail_memory(err, bytes, "measuring bandwidth");
    madvise(data, bytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < bytes; i += 4096) data[i] = (uint8_t)(i >> 12);
    tq_pool *pool = NULL;
    tq_status status = tq_pool_new(n_threads, &pool, err);
    uint64_t *sums = status == TQ_OK ? calloc((size_t)tq_pool_threads(pool) * 8, sizeof *sums) : NULL;
    if (status == TQ_OK && !sums) status = tq_fail_memory(err, 4096, "measuring bandwidth");
    read_job job = {data, bytes, sums};
    bool alone = status == TQ_OK && tq_pool_threads(pool) == 1;
    for (int i = 0; status == TQ_OK && i < repeats; i++) {
        double start = seconds(alone);
        tq_pool_run(pool, read_piece, &job, (int)(bytes / PIECE));
        double rate = (double)(bytes / PIECE * PIECE) / (seconds(alone) - start) * 1e-9;
        if (rate > *gb_per_second) *gb_per_second = rate;
    }
    free(sums);
    tq_pool_free(pool);
    munmap(data, bytes);
    return status;
}
