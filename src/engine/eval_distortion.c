/* eval_distortion.c: what is lost when vectors are packed: random ones, for which theory knows the loss, and a model's
 * own keys and values, packed by a cache as it packs them in use. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "cache/cache_rows.h"
#include "engine/eval_session.h"

#include <turboquant/tq_eval.h>

/* ---- the codec alone ------------------------------------------------------------------------------------------------- */

static void random_direction(tq_mt19937 *mt, float *x, int dim) {
    double sum = 0;
    for (int i = 0; i < dim; i++) {
        double v = tq_mt19937_normal(mt);
        x[i] = (float)v;
        sum += v * v;
    }
    for (int i = 0; i < dim; i++) x[i] = (float)(x[i] / sqrt(sum));
}

static tq_status measure_codec(const tq_codec *codec, int n, uint64_t seed, tq_codec_distortion *out, tq_error *err) {
    int dim = tq_codec_dim(codec);
    size_t row_bytes = tq_codec_row_bytes(codec);
    float *x = malloc(2 * (size_t)dim * sizeof *x);
    uint8_t *row = malloc(row_bytes);
    tq_mt19937 *mt = malloc(sizeof *mt);
    if (!x || !row || !mt) {
        free(x), free(row), free(mt);
        return tq_fail_memory(err, row_bytes, "a row");
    }
    tq_mt19937_seed(mt, (uint32_t)seed + 900001); /* not a stream that a rotation was drawn from */
    float *back = x + dim;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        random_direction(mt, x, dim);
        tq_codec_encode(codec, x, 1, row);
        tq_codec_decode(codec, row, 1, back);
        for (int j = 0; j < dim; j++) sum += ((double)x[j] - back[j]) * ((double)x[j] - back[j]);
    }
    snprintf(out->codec, sizeof out->codec, "%s", tq_codec_name(codec));
    out->measured = sum / n;
    out->expected = tq_codec_expected_distortion(codec);
    out->bits_per_value = 8.0 * (double)row_bytes / dim;
    free(x);
    free(row);
    free(mt);
    return TQ_OK;
}

tq_status tq_eval_codecs(const tq_cache_config *config, int dim, int n, uint64_t seed, tq_codec_distortion out[2],
                         tq_error *err) {
    if (n < 1) return tq_fail(err, TQ_INVALID, "distortion: want 1 or more vectors, got %d", n);
    tq_cache_params params = tq_cache_params_default();
    /* The middle of eight layers: not one that a schedule sets apart. */
    params.n_layers = 8;
    params.n_heads = params.n_kv_heads = 1;
    params.head_dim = dim;
    params.max_tokens = TQ_PAGE_TOKENS;
    params.n_threads = 1;
    params.config = *config;
    tq_cache *cache;
    TQ_TRY(tq_cache_new(&params, &cache, err));
    const tq_kv_store *store = &cache->layers[4].store;
    tq_status status = measure_codec(store->key, n, seed, &out[0], err);
    if (status == TQ_OK) status = measure_codec(store->value, n, seed, &out[1], err);
    tq_cache_free(cache);
    return status;
}

/* ---- a model's own keys and values ------------------------------------------------------------------------------------ */

struct tq_kv_rows {
    int n, n_layers, n_kv_heads, head_dim;
    float *rows; /* (n_layers, n_kv_heads, 2, n, head_dim) */
};

static float *rows_of(const tq_kv_rows *r, int layer, int kv_head, bool values) {
    size_t index = ((size_t)layer * (size_t)r->n_kv_heads + (size_t)kv_head) * 2 + values;
    return r->rows + index * (size_t)r->n * (size_t)r->head_dim;
}

static void copy_rows(const tq_cache *cache, tq_kv_rows *r) {
    for (int layer = 0; layer < r->n_layers; layer++)
        for (int head = 0; head < r->n_kv_heads; head++)
            for (int side = 0; side < 2; side++)
                for (int t = 0; t < r->n; t++)
                    tq_cache_load_row(cache, layer, head, side ? TQ_VALUES : TQ_KEYS, t,
                                      rows_of(r, layer, head, side) + (size_t)t * (size_t)r->head_dim);
}

tq_status tq_kv_rows_new(tq_model *model, const int32_t *ids, int n, tq_kv_rows **out, tq_error *err) {
    const tq_config *c = &model->config;
    if (n < TQ_PAGE_TOKENS)
        return tq_fail(err, TQ_INVALID, "distortion: want %d tokens or more, which fill a page, got %d", TQ_PAGE_TOKENS, n);
    /* f32, everything in pages: the rows as the model made them. */
    tq_session_params params = tq_session_params_default();
    params.ctx = n;
    params.cache = (tq_cache_config){.kv = "f32", .flush_batch_size = 1};
    tq_session *s;
    TQ_TRY(tq_session_new(model, &params, &s, err));
    tq_kv_rows *r = calloc(1, sizeof *r);
    size_t count = 2 * (size_t)n * (size_t)c->n_layers * (size_t)c->n_kv_heads * (size_t)c->head_dim;
    if (r) {
        *r = (tq_kv_rows){.n = n, .n_layers = c->n_layers, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim};
        r->rows = malloc(count * sizeof *r->rows);
    }
    tq_status status = r && r->rows ? tq_session_eval(s, ids, n, err)
                                    : tq_fail_memory(err, count * sizeof(float), "keys and values");
    for (int layer = 0; status == TQ_OK && layer < c->n_layers; layer++)
        if (tq_cache_paged_rows(s->cache, layer) != n)
            status = tq_fail(err, TQ_UNSUPPORTED, "distortion: layer %d keeps %d of %d rows", layer,
                             tq_cache_paged_rows(s->cache, layer), n);
    if (status == TQ_OK) copy_rows(s->cache, r);
    tq_session_free(s);
    if (status != TQ_OK) {
        tq_kv_rows_free(r);
        return status;
    }
    *out = r;
    return TQ_OK;
}

void tq_kv_rows_free(tq_kv_rows *rows) {
    if (!rows) return;
    free(rows->rows);
    free(rows);
}

const float *tq_kv_rows_get(const tq_kv_rows *rows, int layer, int kv_head, bool values) {
    return rows_of(rows, layer, kv_head, values);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Energy of rows first..last-1 about their mean; *total: their energy. */
static double spread(const float *x, int first, int last, int dim, double *total) {
    double about = 0;
    for (int i = 0; i < dim; i++) {
        double sum = 0, square = 0;
        for (int t = first; t < last; t++) {
            double v = x[(size_t)t * (size_t)dim + (size_t)i];
            sum += v;
            square += v * v;
        }
        *total += square;
        about += square - sum * sum / (last - first);
    }
    return about;
}

tq_kv_stats tq_kv_rows_stats(const tq_kv_rows *rows, int layer, int kv_head, bool values) {
    const float *x = rows_of(rows, layer, kv_head, values);
    int dim = rows->head_dim;
    double channel[TQ_MAX_DIM] = {0}, sorted[TQ_MAX_DIM], total = 0, about = 0, outliers = 0;
    for (int t = 0; t < rows->n; t += TQ_PAGE_TOKENS) {
        int last = t + TQ_PAGE_TOKENS < rows->n ? t + TQ_PAGE_TOKENS : rows->n;
        about += spread(x, t, last, dim, &total);
    }
    for (int t = 0; t < rows->n; t++)
        for (int i = 0; i < dim; i++) {
            double v = x[(size_t)t * (size_t)dim + (size_t)i];
            channel[i] += v * v;
        }
    memcpy(sorted, channel, sizeof sorted);
    qsort(sorted, (size_t)dim, sizeof *sorted, by_value);
    int n_outliers = 0;
    for (int i = 0; i < dim; i++)
        if (channel[i] > TQ_OUTLIER_RATIO * sorted[dim / 2]) {
            outliers += channel[i];
            n_outliers++;
        }
    if (!(total > 0)) return (tq_kv_stats){0};
    return (tq_kv_stats){.norm = sqrt(total / rows->n), .outlier_share = outliers / total, .outlier_channels = n_outliers,
                         .centre_energy = 1 - about / total};
}

/* ---- packed as in use --------------------------------------------------------------------------------------------------- */

/* Keys and values through a cache of the model's shape, chunk by chunk; queries are zero, for nobody asks. */
static tq_status fill_cache(const tq_kv_rows *r, tq_cache *cache, int chunk, tq_error *err) {
    size_t row = (size_t)r->n_kv_heads * (size_t)r->head_dim, count = (size_t)chunk * row;
    float *memory = calloc(4 * count, sizeof *memory);
    if (!memory) return tq_fail_memory(err, 4 * count * sizeof *memory, "a chunk of keys and values");
    float *q = memory, *out = q + count, *side[2] = {out + count, out + 2 * count};
    tq_status status = TQ_OK;
    for (int at = 0; status == TQ_OK && at < r->n; at += chunk) {
        int n = r->n - at < chunk ? r->n - at : chunk;
        for (int layer = 0; status == TQ_OK && layer < r->n_layers; layer++) {
            for (int head = 0; head < r->n_kv_heads; head++)
                for (int s = 0; s < 2; s++)
                    for (int t = 0; t < n; t++)
                        memcpy(side[s] + (size_t)t * row + (size_t)head * (size_t)r->head_dim,
                               rows_of(r, layer, head, s) + (size_t)(at + t) * (size_t)r->head_dim,
                               (size_t)r->head_dim * sizeof(float));
            status = tq_cache_attend(cache, layer, q, side[0], side[1], n, out, err);
        }
    }
    free(memory);
    return status;
}

static tq_distortion compare_rows(const tq_kv_rows *r, const tq_cache *cache, int layer, int head, bool values) {
    const float *x = rows_of(r, layer, head, values);
    int dim = r->head_dim, packed = tq_cache_paged_rows(cache, layer), sinks = tq_cache_sink_rows(cache, layer);
    float back[TQ_MAX_DIM];
    double wrong = 0, total = 0, about = 0;
    for (int page = 0; page < packed; page += TQ_PAGE_TOKENS) {
        int last = page + TQ_PAGE_TOKENS < packed ? page + TQ_PAGE_TOKENS : packed;
        about += spread(x, sinks + page, sinks + last, dim, &total);
    }
    for (int row = 0; row < packed; row++) {
        const float *want = x + (size_t)(sinks + row) * (size_t)dim;
        tq_cache_load_row(cache, layer, head, values ? TQ_VALUES : TQ_KEYS, row, back);
        for (int i = 0; i < dim; i++) wrong += ((double)want[i] - back[i]) * ((double)want[i] - back[i]);
    }
    return (tq_distortion){.centred = !values && tq_cache_layer_kind(&cache->layers[layer]) == TQ_CENTRED_PAGES,
                           .rows = packed, .error = total > 0 ? wrong / total : 0,
                           .error_of_spread = about > 0 ? wrong / about : 0};
}

tq_status tq_eval_distortion(tq_model *model, const tq_kv_rows *rows, const tq_cache_config *config,
                             tq_distortion *results, double *bits_per_value, tq_error *err) {
    enum { CHUNK = 256 };
    tq_cache_params params = tq_cache_params_default();
    params.n_layers = rows->n_layers;
    params.n_heads = params.n_kv_heads = rows->n_kv_heads;
    params.head_dim = rows->head_dim;
    params.max_tokens = rows->n;
    params.config = *config;
    tq_cache *cache;
    TQ_TRY(tq_cache_new_on(model->backend, &params, CHUNK, &cache, err));
    pthread_mutex_lock(&model->turn);
    tq_status status = fill_cache(rows, cache, CHUNK, err);
    pthread_mutex_unlock(&model->turn);
    if (status == TQ_OK && tq_cache_paged_rows(cache, 0) == 0)
        status = tq_fail(err, TQ_INVALID, "distortion: '%s' packs none of %d tokens", config->kv, rows->n);
    for (int layer = 0; status == TQ_OK && layer < rows->n_layers; layer++)
        for (int head = 0; head < rows->n_kv_heads; head++)
            for (int side = 0; side < 2; side++)
                *results++ = compare_rows(rows, cache, layer, head, side);
    tq_cache_stats stats;
    tq_cache_get_stats(cache, &stats);
    *bits_per_value = stats.bits_per_value;
    tq_cache_free(cache);
    return status;
}
