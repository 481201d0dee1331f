/* cpu_flush.c: rows leave the window: packed into pages, a task for each KV head and side. */
#include <string.h>

#include "backend/cpu/cpu_backend.h"
#include "base/half.h"
#include "codec/outlier_split.h"
#include "codec/page.h"

/* A new page whose own keys are fewer than this takes over the centre of the page before it: the mean of a handful of
 * keys is further from the mean of the page than that is. */
enum { MIN_CENTRE_ROWS = 16 };

/* Row `index` of the queue -> x (head_dim): the window's rows, then the chunk's. */
static void queue_row(const tq_flush_args *a, tq_side side, int head, int index, float *x) {
    const tq_kv_store *s = a->store;
    size_t dim = (size_t)s->head_dim;
    if (index < s->n_window) {
        size_t row = (size_t)head * (size_t)s->exact_cap + (size_t)(s->n_sinks + index);
        const uint16_t *half = (side == TQ_KEYS ? s->exact_k : s->exact_v) + row * dim;
        for (size_t i = 0; i < dim; i++) x[i] = tq_f16_f32(half[i]);
    } else {
        size_t row = (size_t)(index - s->n_window) * (size_t)s->n_kv_heads + (size_t)head;
        memcpy(x, (side == TQ_KEYS ? a->k : a->v) + row * dim, dim * sizeof(float));
    }
}

/* The centre of a page whose first key is row `first` of the queue. */
static void give_centre(const tq_flush_args *a, int head, int first, uint8_t *block, const uint8_t *previous) {
    const tq_kv_store *s = a->store;
    int available = s->n_window + a->n - first;
    if (available > TQ_PAGE_TOKENS) available = TQ_PAGE_TOKENS;
    if (available < MIN_CENTRE_ROWS && previous) {
        memcpy((void *)(uintptr_t)tq_block_centre(s->key, block), tq_block_centre(s->key, previous),
               (size_t)s->head_dim * sizeof(uint16_t));
        return;
    }
    float mean[TQ_MAX_DIM] = {0}, x[TQ_MAX_DIM];
    for (int r = 0; r < available; r++) {
        queue_row(a, TQ_KEYS, head, first + r, x);
        for (int i = 0; i < s->head_dim; i++) mean[i] += x[i];
    }
    for (int i = 0; i < s->head_dim; i++) mean[i] /= (float)available;
    tq_block_set_centre(s->key, block, mean);
}

/* The outlier channels of a page whose first row is row `first` of the queue: those of the page before it, or where it is
 * the first, those of its own rows. */
static void give_channels(const tq_flush_args *a, tq_side side, int head, int first, uint8_t *block, uint8_t *previous) {
    const tq_kv_store *s = a->store;
    const tq_codec *codec = side == TQ_KEYS ? s->key : s->value;
    if (previous) {
        memcpy(tq_block_channels(codec, block), tq_block_channels(codec, previous), tq_split_mask_bytes(codec->dim));
        return;
    }
    int available = s->n_window + a->n - first;
    double energy[TQ_MAX_DIM] = {0};
    float x[TQ_MAX_DIM];
    for (int r = 0; r < available && r < TQ_PAGE_TOKENS; r++) {
        queue_row(a, side, head, first + r, x);
        for (int i = 0; i < s->head_dim; i++) energy[i] += (double)x[i] * x[i];
    }
    tq_split_choose(energy, codec->dim, codec->n_outliers, tq_block_channels(codec, block));
}

static void pack_rows(const tq_flush_args *a, tq_side side, int head) {
    const tq_kv_store *s = a->store;
    const tq_codec *codec = side == TQ_KEYS ? s->key : s->value;
    float x[TQ_MAX_DIM];
    for (int r = 0; r < a->n_pack; r++) {
        int at = s->n_packed + r, page = at / TQ_PAGE_TOKENS;
        size_t block_at = (size_t)head * s->page_bytes + (side == TQ_VALUES ? s->value_at : 0);
        uint8_t *block = s->pages[page] + block_at;
        if (at % TQ_PAGE_TOKENS == 0 && tq_block_has_centre(codec, side))
            give_centre(a, head, r, block, page > 0 ? s->pages[page - 1] + block_at : NULL);
        if (at % TQ_PAGE_TOKENS == 0 && tq_block_has_channels(codec))
            give_channels(a, side, head, r, block, page > 0 ? s->pages[page - 1] + block_at : NULL);
        queue_row(a, side, head, r, x);
        tq_block_store(codec, side, block, at % TQ_PAGE_TOKENS, x);
    }
}

/* The queue behind its first n_pack rows becomes the window. */
static void keep_rows(const tq_flush_args *a, tq_side side, int head) {
    const tq_kv_store *s = a->store;
    size_t dim = (size_t)s->head_dim;
    uint16_t *window = (side == TQ_KEYS ? s->exact_k : s->exact_v) +
                       ((size_t)head * (size_t)s->exact_cap + (size_t)s->n_sinks) * dim;
    int stay = s->n_window - a->n_pack; /* window rows that stay */
    if (stay > 0 && a->n_pack > 0) memmove(window, window + (size_t)a->n_pack * dim, (size_t)stay * dim * sizeof *window);
    if (stay < 0) stay = 0;
    for (int r = a->n_pack + stay; r < s->n_window + a->n; r++) {
        const float *x = (side == TQ_KEYS ? a->k : a->v) +
                         ((size_t)(r - s->n_window) * (size_t)s->n_kv_heads + (size_t)head) * dim;
        uint16_t *row = window + (size_t)(r - a->n_pack) * dim;
        for (size_t i = 0; i < dim; i++) row[i] = tq_f32_f16(x[i]);
    }
}

static void flush_task(void *ctx, int task, int worker) {
    (void)worker;
    const tq_flush_args *args = ctx;
    tq_side side = task % 2 ? TQ_VALUES : TQ_KEYS;
    if (!args->forget) pack_rows(args, side, task / 2);
    keep_rows(args, side, task / 2);
}

void tq_cpu_flush(tq_backend *backend, const tq_flush_args *args) {
    tq_cpu_backend *c = (tq_cpu_backend *)backend;
    tq_flush_args job = *args;
    int tasks = 2 * args->store->n_kv_heads;
    /* A row or two are not worth waking anybody. */
    if (args->n_pack == 0 && args->n <= 2)
        for (int i = 0; i < tasks; i++) flush_task(&job, i, 0);
    else tq_pool_run(c->pool, flush_task, &job, tasks);
    *(args->forget ? &args->store->n_forgotten : &args->store->n_packed) += args->n_pack;
    args->store->n_window += args->n - args->n_pack;
}
