/* snapshot.c: see snapshot.h. */
#include "cache/snapshot.h"

#include <errno.h>
#include <string.h>

#include "base/checksum.h"
#include "base/file_map.h"
#include "codec/page.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "snapshots and pages are little-endian"
#endif

typedef struct snapshot_header {
    char magic[8]; /* "TQCACHE\n" */
    uint32_t layout_version;
    uint32_t n_layers, n_kv_heads, head_dim, page_tokens;
    uint32_t buffer_size, sinks, flush_batch_size;
    uint64_t slot_bytes, key_centre;
    char kv[64];
} snapshot_header;

_Static_assert(sizeof(snapshot_header) == 120, "a snapshot's header has no padding");

static snapshot_header header_of(const tq_cache *c) {
    snapshot_header h = {
        .magic = "TQCACHE\n", .layout_version = TQ_PAGE_LAYOUT_VERSION, .n_layers = (uint32_t)c->params.n_layers,
        .n_kv_heads = (uint32_t)c->params.n_kv_heads, .head_dim = (uint32_t)c->params.head_dim,
        .page_tokens = TQ_PAGE_TOKENS, .buffer_size = (uint32_t)c->params.config.buffer_size,
        .sinks = (uint32_t)c->params.config.sinks, .flush_batch_size = (uint32_t)c->params.config.flush_batch_size,
        .slot_bytes = tq_cache_largest_slot(&c->layers[0]), /* the other layers' follow from kv */
        .key_centre = (uint64_t)c->params.config.key_centre,
    };
    memcpy(h.kv, c->kv, sizeof h.kv);
    return h;
}

/* ---- a stream with a running checksum ------------------------------------------------------------------------------ */

typedef struct stream {
    FILE *file;
    const char *label;
    uint64_t sum;
    tq_error *err;
} stream;

static tq_status put(stream *s, const void *data, size_t n) {
    s->sum = tq_checksum(s->sum, data, n);
    if (fwrite(data, 1, n, s->file) != n) return tq_fail(s->err, TQ_IO, "%s: %s", s->label, strerror(errno));
    return TQ_OK;
}

static tq_status get(stream *s, void *data, size_t n) {
    if (fread(data, 1, n, s->file) != n) return tq_fail(s->err, TQ_FORMAT, "%s: the snapshot ends too early", s->label);
    s->sum = tq_checksum(s->sum, data, n);
    return TQ_OK;
}

/* The exact rows of one layer, in either direction. */
static tq_status each_exact_row_run(stream *s, const tq_kv_store *store, tq_status (*move)(stream *, void *, size_t)) {
    size_t dim = (size_t)store->head_dim, rows = (size_t)(store->n_sinks + store->n_window);
    for (int side = 0; side < 2; side++)
        for (int h = 0; h < store->n_kv_heads; h++) {
            uint16_t *at = (side ? store->exact_v : store->exact_k) + (size_t)h * (size_t)store->exact_cap * dim;
            TQ_TRY(move(s, at, rows * dim * sizeof *at));
        }
    return TQ_OK;
}

static tq_status put_rows(stream *s, void *data, size_t n) { return put(s, data, n); }

/* ---- writing ------------------------------------------------------------------------------------------------------- */

tq_status tq_snapshot_write(const tq_cache *cache, FILE *to, const char *label, tq_error *err) {
    stream s = {to, label, TQ_CHECKSUM_START, err};
    snapshot_header h = header_of(cache);
    TQ_TRY(put(&s, &h, sizeof h));
    for (int l = 0; l < cache->params.n_layers; l++) {
        const tq_cache_layer *layer = &cache->layers[l];
        uint32_t counts[6] = {(uint32_t)layer->store.n_sinks, (uint32_t)layer->store.n_packed,
                              (uint32_t)layer->store.n_forgotten, (uint32_t)layer->store.n_window,
                              (uint32_t)layer->store.sliding, layer->decided ? 1 + (uint32_t)tq_cache_layer_kind(layer) : 0};
        TQ_TRY(put(&s, counts, sizeof counts));
        TQ_TRY(each_exact_row_run(&s, &layer->store, put_rows));
        for (int p = 0; p * TQ_PAGE_TOKENS < layer->store.n_packed; p++) TQ_TRY(put(&s, layer->pages[p], layer->pool->slot_bytes));
    }
    uint64_t sum = s.sum;
    return put(&s, &sum, sizeof sum);
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static tq_status want_equal(const stream *s, const char *what, uint64_t want, uint64_t found) {
    if (want == found) return TQ_OK;
    return tq_fail(s->err, TQ_INVALID, "%s: %s: want %llu, the snapshot has %llu", s->label, what,
                   (unsigned long long)want, (unsigned long long)found);
}

static tq_status check_header(const stream *s, const snapshot_header *want, const snapshot_header *h) {
    if (memcmp(h->magic, want->magic, sizeof h->magic) != 0)
        return tq_fail(s->err, TQ_FORMAT, "%s: not a cache snapshot", s->label);
    TQ_TRY(want_equal(s, "page layout version", want->layout_version, h->layout_version));
    if (memcmp(h->kv, want->kv, sizeof h->kv) != 0)
        return tq_fail(s->err, TQ_INVALID, "%s: codec: want %s, the snapshot has %.*s", s->label, want->kv,
                       (int)strnlen(h->kv, sizeof h->kv), h->kv);
    TQ_TRY(want_equal(s, "layers", want->n_layers, h->n_layers));
    TQ_TRY(want_equal(s, "KV heads", want->n_kv_heads, h->n_kv_heads));
    TQ_TRY(want_equal(s, "head dimension", want->head_dim, h->head_dim));
    TQ_TRY(want_equal(s, "tokens of a page", want->page_tokens, h->page_tokens));
    TQ_TRY(want_equal(s, "buffer size", want->buffer_size, h->buffer_size));
    TQ_TRY(want_equal(s, "sinks", want->sinks, h->sinks));
    TQ_TRY(want_equal(s, "flush batch size", want->flush_batch_size, h->flush_batch_size));
    TQ_TRY(want_equal(s, "key centre (0 auto, 1 on, 2 off)", want->key_centre, h->key_centre));
    return want_equal(s, "bytes of a page", want->slot_bytes, h->slot_bytes);
}

/* length: what the layers before hold, or -1 for the first. */
static tq_status read_layer(tq_cache *cache, stream *s, tq_cache_layer *layer, int64_t *length) {
    tq_kv_store *store = &layer->store;
    uint32_t counts[6];
    TQ_TRY(get(s, counts, sizeof counts));
    TQ_TRY(want_equal(s, "a layer's sliding window", (uint64_t)store->sliding, counts[4]));
    int64_t total = (int64_t)counts[0] + counts[1] + counts[2] + counts[3];
    if (total > cache->params.max_tokens)
        return tq_fail(s->err, TQ_FULL, "%s: the snapshot holds %lld tokens, the cache has room for %d", s->label,
                       (long long)total, cache->params.max_tokens);
    if (counts[0] > (uint32_t)cache->params.config.sinks || counts[0] + counts[3] > (uint32_t)cache->exact_cap ||
        (cache->forgets && counts[1] > 0) || (!cache->forgets && !store->sliding && counts[2] > 0) ||
        (store->sliding && (counts[0] > 0 || (counts[1] + (uint64_t)TQ_PAGE_TOKENS - 1) / TQ_PAGE_TOKENS >
                                                 (uint64_t)layer->max_pages)) ||
        (*length >= 0 && *length != total))
        return tq_fail(s->err, TQ_FORMAT, "%s: the counts of a layer do not fit together", s->label);
    if (counts[5] > TQ_PAGE_KINDS || (counts[5] == 0 && counts[1] > 0) ||
        (counts[5] > 0 && !tq_cache_layer_decide(layer, (tq_page_kind)(counts[5] - 1))))
        return tq_fail(s->err, TQ_FORMAT, "%s: a layer cannot have pages of kind %u", s->label, counts[5]);
    *length = total;
    store->n_sinks = (int)counts[0];
    store->n_forgotten = (int)counts[2];
    store->n_window = (int)counts[3];
    TQ_TRY(each_exact_row_run(s, store, get));
    int pages = ((int)counts[1] + TQ_PAGE_TOKENS - 1) / TQ_PAGE_TOKENS;
    while (layer->n_pages < pages) {
        uint8_t *page = tq_page_pool_take(layer->pool);
        if (!page) return tq_fail(s->err, TQ_FULL, "%s: the cache budget has no room for %d pages a layer", s->label, pages);
        layer->pages[layer->n_pages++] = page;
        TQ_TRY(get(s, page, layer->pool->slot_bytes));
    }
    store->n_packed = (int)counts[1];
    return TQ_OK;
}

static tq_status read_all(tq_cache *cache, stream *s) {
    snapshot_header want = header_of(cache), h;
    TQ_TRY(get(s, &h, sizeof h));
    TQ_TRY(check_header(s, &want, &h));
    int64_t length = -1;
    for (int l = 0; l < cache->params.n_layers; l++) TQ_TRY(read_layer(cache, s, &cache->layers[l], &length));
    uint64_t want_sum = s->sum, sum;
    TQ_TRY(get(s, &sum, sizeof sum));
    if (sum != want_sum) return tq_fail(s->err, TQ_FORMAT, "%s: the checksum does not match: the file is damaged", s->label);
    return TQ_OK;
}

tq_status tq_snapshot_read(tq_cache *cache, FILE *from, const char *label, tq_error *err) {
    tq_cache_clear(cache);
    stream s = {from, label, TQ_CHECKSUM_START, err};
    tq_status status = read_all(cache, &s);
    if (status != TQ_OK) tq_cache_clear(cache);
    return status;
}

/* ---- a file of its own ----------------------------------------------------------------------------------------------- */

tq_status tq_cache_save(const tq_cache *cache, const char *path, tq_error *err) {
    tq_atomic_file file;
    TQ_TRY(tq_atomic_file_open(path, &file, err));
    tq_status status = tq_snapshot_write(cache, file.stream, path, err);
    if (status == TQ_OK) return tq_atomic_file_commit(&file, err);
    tq_atomic_file_abandon(&file);
    return status;
}

tq_status tq_cache_load(tq_cache *cache, const char *path, tq_error *err) {
    FILE *file = fopen(path, "rb");
    if (!file) return tq_fail(err, errno == ENOENT ? TQ_NOT_FOUND : TQ_IO, "%s: %s", path, strerror(errno));
    tq_status status = tq_snapshot_read(cache, file, path, err);
    fclose(file);
    return status;
}
