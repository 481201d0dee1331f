/* cache_plan.h: what a cache will take when it is full. */
#ifndef TQ_CACHE_CACHE_PLAN_H
#define TQ_CACHE_CACHE_PLAN_H

#include "cache/kv_cache.h"

/* Pages that a layer of a cache for max_tokens needs at most, if it keeps a window of them (0: all). */
int tq_cache_layer_pages(int window, int max_tokens);

typedef struct tq_cache_bytes {
    size_t rows;    /* pages, exact rows: what an attention over all of it reads */
    size_t rest;    /* tables of codecs, page tables, memory of the attention itself */
} tq_cache_bytes;

/* As this cache would be if it had been made for max_tokens, and held them. */
tq_cache_bytes tq_cache_full_bytes(const tq_cache *cache, int max_tokens);

#endif
