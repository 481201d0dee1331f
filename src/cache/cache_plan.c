/* cache_plan.c: see cache_plan.h. */
#include "cache/cache_plan.h"

static int pages_of(int tokens) { return (tokens + TQ_PAGE_TOKENS - 1) / TQ_PAGE_TOKENS; }

int tq_cache_layer_pages(int window, int max_tokens) {
    int pages = pages_of(max_tokens);
    if (window == 0 || window >= max_tokens) return pages;
    /* TQ_PAGE_TOKENS rows are kept for rewinding; a page at each end that the window has only a part of */
    int sliding = pages_of(window + TQ_PAGE_TOKENS) + 2;
    return sliding < pages ? sliding : pages;
}

tq_cache_bytes tq_cache_full_bytes(const tq_cache *cache, int max_tokens) {
    const tq_cache_params *p = &cache->params;
    tq_cache_bytes bytes = {0};
    size_t scratch = 0;
    int exact = p->config.sinks + p->config.buffer_size + p->config.flush_batch_size - 1;
    if (exact > max_tokens) exact = max_tokens;
    for (int l = 0; l < p->n_layers; l++) {
        const tq_cache_layer *layer = &cache->layers[l];
        const tq_kv_store *store = &layer->store;
        int packed = max_tokens - p->config.buffer_size - (store->sliding ? 0 : p->config.sinks);
        size_t pages = packed > 0 ? (size_t)tq_cache_layer_pages(store->sliding, packed) : 0;
        bytes.rows += 2 * (size_t)p->n_kv_heads * (size_t)exact * (size_t)p->head_dim * sizeof(uint16_t);
        if (!cache->forgets) bytes.rows += pages * layer->pool->slot_bytes;
        bytes.rest += (size_t)tq_cache_layer_pages(store->sliding, max_tokens) * (sizeof *layer->pages + sizeof(int));
        if (layer->owns_codecs) bytes.rest += tq_codec_table_bytes(layer->own_key) + tq_codec_table_bytes(layer->value);
        size_t attend = cache->backend->ops->attend_bytes(cache->backend, layer->key, layer->value, p->n_heads, p->n_kv_heads,
                                                          p->head_dim, cache->max_chunk, max_tokens);
        if (attend > scratch) scratch = attend;
    }
    bytes.rest += scratch;
    return bytes;
}
