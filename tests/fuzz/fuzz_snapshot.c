/* fuzz_snapshot.c: any bytes as a cache snapshot.  The first byte selects the cache; the checksum at the end is made
 * right where the counts in the bytes say where it stands, so that what it hides is reached.  What is accepted must
 * hold together and be attended to.  corpus/snapshot: tq_cache_save of these caches at several lengths, behind their
 * number. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "cache/kv_cache.h"
#include "cache/snapshot.h"
#include "codec/page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LAYERS = 2, HEADS = 2, KV_HEADS = 1, DIM = 16, MAX_TOKENS = 300, HEADER = 120, KINDS = 8 };

static const char *const kinds[KINDS] = {"tq3",      "q8",  "f16",          "tq:k=paper-prod:2,v=minmax:2:16",
                                         "window:8", "tq4", "tq3,last=1:q8", "tq3"};
enum { SLIDES = 5, DECIDES = 7 }; /* its second layer has a window; knows enough keys to do without centres */
static const int windows[LAYERS] = {0, 20};

static tq_cache *cache_of(int kind) {
    static tq_cache *caches[KINDS];
    if (caches[kind]) return caches[kind];
    tq_cache_params p = tq_cache_params_default();
    p.n_layers = LAYERS, p.n_heads = HEADS, p.n_kv_heads = KV_HEADS, p.head_dim = DIM;
    p.max_tokens = MAX_TOKENS, p.n_threads = 1;
    p.config = (tq_cache_config){.kv = kinds[kind], .buffer_size = 4, .sinks = 2, .flush_batch_size = 3};
    if (kind == DECIDES) p.config.buffer_size = 20;
    if (kind == SLIDES) p.windows = windows;
    if (tq_cache_new(&p, &caches[kind], NULL) != TQ_OK) abort();
    return caches[kind];
}

/* Feed the checksum the runs that snapshot.h draws, and put it behind the last one. */
static void make_checksum_right(const tq_cache *cache, uint8_t *data, size_t size) {
    size_t at = HEADER;
    if (size < HEADER) return;
    uint64_t sum = tq_checksum(TQ_CHECKSUM_START, data, HEADER);
    for (int l = 0; l < LAYERS; l++) {
        uint32_t counts[6];
        const tq_cache_layer *layer = &cache->layers[l];
        if (size - at < sizeof counts) return;
        memcpy(counts, data + at, sizeof counts);
        sum = tq_checksum(sum, data + at, sizeof counts);
        at += sizeof counts;
        if (counts[0] > MAX_TOKENS || counts[1] > MAX_TOKENS || counts[3] > MAX_TOKENS) return;
        const tq_page_pool *pool = counts[5] >= 1 && counts[5] <= TQ_PAGE_KINDS ? layer->pools[counts[5] - 1] : NULL;
        size_t slot = pool ? pool->slot_bytes : 0;
        size_t run = (size_t)(counts[0] + counts[3]) * DIM * sizeof(uint16_t);
        for (int i = 0; i < 2 * KV_HEADS; i++, at += run) {
            if (size - at < run) return;
            sum = tq_checksum(sum, data + at, run);
        }
        for (uint32_t page = 0; page < (counts[1] + TQ_PAGE_TOKENS - 1) / TQ_PAGE_TOKENS; page++, at += slot) {
            if (size - at < slot) return;
            sum = tq_checksum(sum, data + at, slot);
        }
    }
    if (size - at >= sizeof sum) memcpy(data + at, &sum, sizeof sum);
}

static void use(tq_cache *cache) {
    int length = tq_cache_length(cache);
    if (length < 0 || length > MAX_TOKENS) abort();
    for (int l = 0; l < LAYERS; l++) {
        const tq_kv_store *s = &cache->layers[l].store;
        if (s->n_sinks + s->n_packed + s->n_forgotten + s->n_window != length) abort();
        if (s->n_sinks + s->n_window > s->exact_cap) abort();
    }
    float x[2 * HEADS * DIM], out[2 * HEADS * DIM];
    for (int i = 0; i < 2 * HEADS * DIM; i++) x[i] = (float)(i % 7) - 3;
    for (int l = 0; l < LAYERS; l++) {
        tq_status status = tq_cache_attend(cache, l, x, x, x, 2, out, NULL);
        if (status != TQ_OK && status != TQ_FULL) abort();
    }
    if (tq_cache_rewind(cache, length / 2, NULL) == TQ_OK && tq_cache_length(cache) != length / 2) abort();
}

static bool is_empty(const tq_cache *cache) {
    int used = 0;
    for (int l = 0; l < LAYERS; l++)
        for (int kind = 0; kind < TQ_PAGE_KINDS; kind++)
            if (cache->layers[l].pools[kind]) used += tq_page_pool_used(cache->layers[l].pools[kind]);
    return tq_cache_length(cache) == 0 && used == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    tq_cache *cache = cache_of(data[0] % KINDS);
    uint8_t *copy = malloc(size - 1);
    if (!copy) return 0;
    memcpy(copy, data + 1, size - 1);
    if (data[0] < 128) make_checksum_right(cache, copy, size - 1);
    FILE *file = fmemopen(copy, size - 1, "rb");
    if (!file) abort();
    tq_error err = {0};
    tq_status status = tq_snapshot_read(cache, file, "fuzz", &err);
    fclose(file);
    free(copy);
    if (status == TQ_OK) use(cache);
    else if (err.code != status || !memchr(err.text, 0, sizeof err.text) || strchr(err.text, '\n') ||
             !is_empty(cache))
        abort();
    return 0;
}
