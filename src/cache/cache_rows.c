/* cache_rows.c: see cache_rows.h. */
#include "cache/cache_rows.h"

int tq_cache_paged_rows(const tq_cache *cache, int layer) { return cache->layers[layer].store.n_packed; }
int tq_cache_sink_rows(const tq_cache *cache, int layer) { return cache->layers[layer].store.n_sinks; }

void tq_cache_load_row(const tq_cache *cache, int layer, int kv_head, tq_side side, int row, float *x) {
    const tq_kv_store *s = &cache->layers[layer].store;
    const uint8_t *page = s->pages[row / TQ_PAGE_TOKENS] + (size_t)kv_head * s->page_bytes;
    if (side == TQ_KEYS) tq_block_load(s->key, TQ_KEYS, page, row % TQ_PAGE_TOKENS, x);
    else tq_block_load(s->value, TQ_VALUES, page + s->value_at, row % TQ_PAGE_TOKENS, x);
}
