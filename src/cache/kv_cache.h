/* kv_cache.h: inside of a tq_cache.  The public face is turboquant/tq_cache.h. */
#ifndef TQ_CACHE_KV_CACHE_H
#define TQ_CACHE_KV_CACHE_H

#include <turboquant/tq_cache.h>

#include "backend/backend.h"
#include "cache/layer_schedule.h"
#include "cache/page_pool.h"

/* Pages whose keys have a centre, and bare ones: all pages of a layer are of one kind.  Which, a layer of planar keys decides when
 * it packs its first row, unless tq_key_centre says; those of other codecs are bare. */
typedef enum tq_page_kind { TQ_CENTRED_PAGES, TQ_BARE_PAGES, TQ_PAGE_KINDS } tq_page_kind;

typedef struct tq_cache_layer {
    tq_codec *own_key, bare_key; /* as made, if owns_codecs; and for bare pages, with the tables of own_key */
    const tq_codec *keys[TQ_PAGE_KINDS]; /* NULL where the layer can have no pages of the kind */
    const tq_codec *key; /* one of keys */
    tq_codec *value;     /* codecs are shared by layers whose codec has no layer seed */
    tq_kv_store store;
    bool owns_codecs;
    bool decided; /* on the kind of its pages.  Until then it counts on the larger ones, centred */
    tq_page_pool *pools[TQ_PAGE_KINDS]; /* of the cache or its budget, for pages of these codecs */
    tq_page_pool *pool;                 /* one of pools */
    uint8_t **pages; /* (max_pages): store.pages */
    int n_pages, max_pages;
} tq_cache_layer;

struct tq_cache {
    tq_cache_params params;
    char kv[64]; /* the codec's name with every override in it */
    tq_backend *backend;
    bool owns_backend;
    bool forgets; /* window:N */
    int exact_cap;
    float *sink_logits; /* (n_layers, n_heads), or NULL */
    tq_cache_layer *layers;
    tq_page_pool own_pools[TQ_LAYER_RUNS][TQ_PAGE_KINDS]; /* slots of n_kv_heads pages; by run of layers (layer_schedule.h) */
    tq_page_budget *budget;                /* or NULL; then pools and scratch of attention are the budget's */
    void *exact_rows, *attend_scratch;
    size_t exact_bytes;
    int max_chunk;
};

/* A cache on somebody else's backend, for chunks of up to max_chunk tokens. */
tq_status tq_cache_new_on(tq_backend *backend, const tq_cache_params *params, int max_chunk, tq_cache **out,
                          tq_error *err);

/* The same, with pages from a budget's pools, which it shares with other caches and their checkpoints; exact rows are
 * charged to the budget too.  TQ_FULL if they have no room. */
tq_status tq_cache_new_within(tq_backend *backend, const tq_cache_params *params, int max_chunk, tq_page_budget *budget,
                              tq_cache **out, tq_error *err);

/* Likewise, with the codecs' tables of another cache of the same params, which must last longer: drawing a dense rotation for
 * every layer takes a good part of a second.  NULL: its own. */
tq_status tq_cache_new_sharing(tq_backend *backend, const tq_cache_params *params, int max_chunk, tq_page_budget *budget,
                               const tq_cache *tables, tq_cache **out, tq_error *err);
size_t tq_cache_table_bytes(const tq_cache *cache); /* of codecs' tables that are its own */

/* Take the pages that n more tokens will need, and make pages that others hold too its own where rows will be written:
 * storing up to n tokens then cannot fail for want of pages.  TQ_FULL leaves what is stored as it is.  Storing without
 * it reserves layer by layer. */
tq_status tq_cache_reserve(tq_cache *cache, int n, tq_error *err);

/* Bytes that a cache within a budget takes at most once it holds n_tokens, checkpoints not counted: in all (asked of any
 * cache of the same params), and on top of what it holds now. */
size_t tq_cache_bytes_for(const tq_cache *cache, int n_tokens);
size_t tq_cache_bytes_wanted(const tq_cache *cache, int n_tokens);

/* Store n tokens of a layer without attending: keys and values that come from elsewhere.  TQ_FULL changes nothing. */
tq_status tq_cache_append(tq_cache *cache, int layer, const float *k, const float *v, int n, tq_error *err);

/* The kind of the pages that a layer has and will have, and a new one while it has none.  False if there can be none of it. */
tq_page_kind tq_cache_layer_kind(const tq_cache_layer *layer);
bool tq_cache_layer_decide(tq_cache_layer *layer, tq_page_kind kind);

/* Bytes of a slot of the largest pages that the layer may have. */
size_t tq_cache_largest_slot(const tq_cache_layer *layer);

/* Forget everything. */
void tq_cache_clear(tq_cache *cache);

/* N of "window:N", or -1. */
int tq_cache_window_of(const char *kv);

/* Key and value codec names of a config, whose kv is neither NULL nor auto, for one run of layers: "tq3", "tq3";
 * "mlx-k3v2" -> "paper-prod:3", "minmax:2:32"; "window:N" -> f16.  canonical: the config's kv with the overrides in it.  Buffers of 64 bytes. */
tq_status tq_cache_codec_names(const tq_cache_config *config, char *key, char *value, char *canonical, tq_error *err);

#endif
