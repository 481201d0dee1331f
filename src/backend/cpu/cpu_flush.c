/* cpu_flush.c: rows leave the window: packed into pages, a task for each KV head and side. */
#include <float.h>
#include <string.h>

#include "backend/cpu/cpu_backend.h"
#include "base/half.h"
#include "codec/outlier_split.h"
#include "codec/page.h"

/* A new page whose own keys are fewer than this takes over the centre of the page before it: the mean of a handful of
 * keys is further from the mean of the page than that is. */
enum { MIN_CENTRE_ROWS = 16 };

/* Row `index` of the queue: the window's rows, then the chunk's. */
static tq_exact_row queue_at(const tq_flush_args *a, tq_side side, int head, int index) {
    const tq_kv_store *s = a->store;
    size_t dim = (size_t)s->head_dim;
    if (index < s->n_window) {
        size_t row = (size_t)head * (size_t)s->exact_cap + (size_t)(s->n_sinks + index);
        return (tq_exact_row){(side == TQ_KEYS ? s->exact_k : s->exact_v) + row * dim, true};
    }
    size_t row = (size_t)(index - s->n_window) * (size_t)s->n_kv_heads + (size_t)head;
    return (tq_exact_row){(side == TQ_KEYS ? a->k : a->v) + row * dim, false};
}

static void queue_row(const tq_flush_args *a, tq_side side, int head, int index, float *x) {
    tq_exact_row row = queue_at(a, side, head, index);
    size_t dim = (size_t)a->store->head_dim;
    if (!row.half) memcpy(x, row.x, dim * sizeof(float));
    for (size_t i = 0; row.half && i < dim; i++) x[i] = tq_f16_f32(((const uint16_t *)row.x)[i]);
}

/* The centre of a page whose first key is row `first` of the queue. */
static void give_centre(const tq_flush_args *a, int head, int first, uint8_t *block, const uint8_t *previous,
                        const tq_encoder *encoder) {
    const tq_kv_store *s = a->store;
    int available = s->n_window + a->n - first;
    if (available > TQ_PAGE_TOKENS) available = TQ_PAGE_TOKENS;
    if (available < MIN_CENTRE_ROWS && previous) {
        memcpy((void *)(uintptr_t)tq_block_centre(s->key, block), tq_block_centre(s->key, previous),
               (size_t)s->head_dim * sizeof(uint16_t));
        return;
    }
    float mean[TQ_MAX_PLANAR_DIM] = {0};
    tq_exact_row rows[TQ_PAGE_TOKENS];
    for (int r = 0; r < available; r++) rows[r] = queue_at(a, TQ_KEYS, head, first + r);
    encoder->add_rows(rows, available, s->head_dim, mean);
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

/* n <= TQ_TRELLIS_ROWS rows of the queue from `first` on -> rows of one block, encoded side by side. */
static void pack_trellis(const tq_flush_args *a, tq_side side, int head, int first, int n, uint8_t *block, int row,
                         const tq_kernels *k, tq_trellis_work *work) {
    const tq_codec *codec = side == TQ_KEYS ? a->store->key : a->store->value;
    tq_exact_row rows[TQ_TRELLIS_ROWS];
    float inverse_unit[TQ_TRELLIS_ROWS];
    int32_t product[TQ_TRELLIS_ROWS], energy[TQ_TRELLIS_ROWS];
    uint16_t scale[TQ_TRELLIS_ROWS];
    for (int r = 0; r < n; r++) rows[r] = queue_at(a, side, head, first + r);
    k->encoder->trellis_begin(codec, side, block, rows, n, work->samples, inverse_unit, scale, work->scratch);
    k->trellis_encode(codec->trellis, work->samples, n, codec->dim, work->chains, product, energy, work->scratch);
    for (int r = 0; r < n; r++) {
        if (inverse_unit[r] != 0) scale[r] = tq_trellis_scale(inverse_unit[r], product[r], energy[r]);
        else
            for (int i = 0; i < codec->dim; i++) work->chains[i * TQ_TRELLIS_ROWS + r] = 0; /* nothing was chosen */
    }
    tq_block_put_chains(codec, side, block, row, n, work->chains, scale);
}

static void pack_rows(const tq_flush_args *a, tq_side side, int head, const tq_kernels *k, tq_trellis_work *work) {
    const tq_kv_store *s = a->store;
    const tq_codec *codec = side == TQ_KEYS ? s->key : s->value;
    float x[TQ_MAX_DIM];
    for (int r = 0, n; r < a->n_pack; r += n) {
        int at = s->n_packed + r, page = at / TQ_PAGE_TOKENS, row = at % TQ_PAGE_TOKENS;
        size_t block_at = (size_t)head * s->page_bytes + (side == TQ_VALUES ? s->value_at : 0);
        uint8_t *block = s->pages[page] + block_at;
        if (row == 0 && tq_block_has_centre(codec, side))
            give_centre(a, head, a->n_forget + r, block, page > 0 ? s->pages[page - 1] + block_at : NULL, k->encoder);
        if (row == 0 && tq_block_has_channels(codec))
            give_channels(a, side, head, a->n_forget + r, block, page > 0 ? s->pages[page - 1] + block_at : NULL);
        n = codec->trellis ? TQ_TRELLIS_ROWS : 1;
        if (n > a->n_pack - r) n = a->n_pack - r;
        if (n > TQ_PAGE_TOKENS - row) n = TQ_PAGE_TOKENS - row;
        if (codec->trellis) {
            pack_trellis(a, side, head, a->n_forget + r, n, block, row, k, work);
        } else {
            queue_row(a, side, head, a->n_forget + r, x);
            tq_block_store(codec, side, block, row, x);
        }
    }
}

/* The queue behind its first n_forget + n_pack rows becomes the window. */
static void keep_rows(const tq_flush_args *a, tq_side side, int head, const tq_encoder *encoder) {
    const tq_kv_store *s = a->store;
    size_t dim = (size_t)s->head_dim;
    uint16_t *window = (side == TQ_KEYS ? s->exact_k : s->exact_v) +
                       ((size_t)head * (size_t)s->exact_cap + (size_t)s->n_sinks) * dim;
    int leave = a->n_forget + a->n_pack, stay = s->n_window - leave; /* window rows that stay */
    if (stay > 0 && leave > 0) memmove(window, window + (size_t)leave * dim, (size_t)stay * dim * sizeof *window);
    if (stay < 0) stay = 0;
    for (int r = leave + stay; r < s->n_window + a->n; r++) {
        const float *x = (side == TQ_KEYS ? a->k : a->v) +
                         ((size_t)(r - s->n_window) * (size_t)s->n_kv_heads + (size_t)head) * dim;
        encoder->to_half(x, s->head_dim, window + (size_t)(r - leave) * dim);
    }
}

typedef struct flush_job {
    const tq_flush_args *args;
    tq_cpu_backend *cpu;
} flush_job;

static void flush_task(void *ctx, int task, int worker) {
    const flush_job *job = ctx;
    const tq_flush_args *args = job->args;
    tq_side side = task % 2 ? TQ_VALUES : TQ_KEYS;
    pack_rows(args, side, task / 2, job->cpu->kernels, &job->cpu->trellis_work[worker]);
    keep_rows(args, side, task / 2, job->cpu->kernels->encoder);
}

void tq_cpu_flush(tq_backend *backend, const tq_flush_args *args) {
    tq_cpu_backend *c = (tq_cpu_backend *)backend;
    flush_job job = {args, c};
    int tasks = 2 * args->store->n_kv_heads;
    /* A row or two are not worth waking anybody. */
    if (args->n_pack == 0 && args->n_forget == 0 && args->n <= 2)
        for (int i = 0; i < tasks; i++) flush_task(&job, i, 0);
    else tq_pool_run(c->pool, flush_task, &job, tasks);
    args->store->n_forgotten += args->n_forget;
    args->store->n_packed += args->n_pack;
    args->store->n_window += args->n - args->n_forget - args->n_pack;
}

double tq_cpu_centre_share(tq_backend *backend, const tq_flush_args *a, int n) {
    (void)backend;
    const tq_kv_store *s = a->store;
    double energy = 0, of_means = 0;
    for (int head = 0; head < s->n_kv_heads; head++) {
        double sum[TQ_MAX_DIM] = {0};
        float x[TQ_MAX_DIM];
        for (int r = 0; r < n; r++) {
            queue_row(a, TQ_KEYS, head, a->n_forget + r, x);
            for (int i = 0; i < s->head_dim; i++) {
                double v = tq_f16_f32(tq_f32_f16(x[i])); /* as if it had been in the window */
                sum[i] += v;
                energy += v * v;
            }
        }
        for (int i = 0; i < s->head_dim; i++) of_means += sum[i] * sum[i] / n;
    }
    return energy > 0 && energy <= DBL_MAX ? of_means / energy : -1;
}
