/* kv_cache.c: packed keys and values of one sequence.
 * Owns: pages, the exact rows (sinks and window), when rows are packed.
 * Not here: how a row is encoded (codec/), how it is attended to (backend/), which tokens it holds (engine/). */
#include "cache/kv_cache.h"

#include <stdlib.h>
#include <string.h>

#include "cache/cache_plan.h"
#include "codec/page.h"

/* Tokens behind its window that a sliding layer keeps, so that a rewind can go back. */
enum { REWIND_TOKENS = TQ_PAGE_TOKENS };

static int min_int(int a, int b) { return a < b ? a : b; }
static int max_int(int a, int b) { return a > b ? a : b; }
static int pages_of(int tokens) { return (tokens + TQ_PAGE_TOKENS - 1) / TQ_PAGE_TOKENS; }

tq_cache_params tq_cache_params_default(void) { return (tq_cache_params){.config = tq_cache_config_default()}; }

static void drop_pages(tq_cache_layer *layer, int keep) {
    while (layer->n_pages > keep) tq_page_pool_return(layer->pool, layer->pages[--layer->n_pages], TQ_HELD_RUNNING);
}

/* ---- construction -------------------------------------------------------------------------------------------------- */

static tq_status check_params(const tq_cache_params *p, int max_chunk, tq_error *err) {
    if (p->n_layers < 1 || p->n_kv_heads < 1 || p->n_heads < 1 || p->n_heads % p->n_kv_heads)
        return tq_fail(err, TQ_INVALID, "cache: want layers, KV heads and a multiple of them as heads, got %d, %d, %d",
                       p->n_layers, p->n_kv_heads, p->n_heads);
    if (p->max_tokens < 1) return tq_fail(err, TQ_INVALID, "cache: want room for at least 1 token, got %d", p->max_tokens);
    if (p->config.buffer_size < 0 || p->config.buffer_size > 1 << 24)
        return tq_fail(err, TQ_INVALID, "buffer size: want 0 or more tokens, got %d", p->config.buffer_size);
    if (p->config.sinks < 0 || p->config.sinks > 1 << 24)
        return tq_fail(err, TQ_INVALID, "sinks: want 0 or more tokens, got %d", p->config.sinks);
    if (p->config.flush_batch_size < 1 || p->config.flush_batch_size > 1 << 24)
        return tq_fail(err, TQ_INVALID, "flush batch size: want 1 or more rows, got %d", p->config.flush_batch_size);
    if ((int)p->config.key_centre < TQ_KEY_CENTRE_AUTO || (int)p->config.key_centre > TQ_KEY_CENTRE_OFF)
        return tq_fail(err, TQ_INVALID, "key centre: want auto, on or off (0 to 2), got %d", (int)p->config.key_centre);
    for (int l = 0; p->windows && l < p->n_layers; l++)
        if (p->windows[l] < 0)
            return tq_fail(err, TQ_INVALID, "cache: layer %d: want a window of 0 or more tokens, got %d", l, p->windows[l]);
    if (!(p->softcap >= 0)) return tq_fail(err, TQ_INVALID, "cache: want a soft cap of 0 or more, got %g", (double)p->softcap);
    if (max_chunk < 1) return tq_fail(err, TQ_INVALID, "cache: want chunks of at least 1 token, got %d", max_chunk);
    return TQ_OK;
}

/* A codec with a dense rotation draws one a layer, as the prototype does: seed 42 + 7 * layer.  Others are those of seed
 * 42 in any layer, and shared by the layers of a run. */
static bool is_drawn(const char *key, const char *value) { return strncmp(key, "paper", 5) == 0 || strncmp(value, "paper", 5) == 0; }

static void share_layer_codecs(tq_cache_layer *layer, const tq_cache_layer *from) {
    memcpy(layer->keys, from->keys, sizeof layer->keys);
    layer->key = from->key;
    layer->value = from->value;
}

static tq_status make_layer_codecs(tq_cache_layer *layer, int l, const char *key, const char *value, int head_dim,
                                   tq_key_centre centre, tq_error *err) {
    uint64_t seed = 42 + (is_drawn(key, value) ? 7 * (uint64_t)l : 0);
    layer->owns_codecs = true;
    TQ_TRY(tq_codec_new(value, head_dim, seed, &layer->value, err));
    TQ_TRY(tq_codec_new(key, head_dim, seed, &layer->own_key, err));
    bool planar = layer->own_key->kind == TQ_CODEC_PLANAR;
    layer->bare_key = *layer->own_key;
    layer->bare_key.bare = planar;
    layer->keys[TQ_BARE_PAGES] = planar && centre == TQ_KEY_CENTRE_ON ? NULL : &layer->bare_key;
    layer->keys[TQ_CENTRED_PAGES] = planar && centre != TQ_KEY_CENTRE_OFF ? layer->own_key : NULL;
    layer->key = planar && centre != TQ_KEY_CENTRE_OFF ? layer->own_key : &layer->bare_key;
    return TQ_OK;
}

static bool is_exact(const tq_cache_layer *layer) {
    return tq_codec_is_exact(layer->key) && tq_codec_is_exact(layer->value);
}

/* The codecs of every layer, and the cache's canonical name.  Overrides of bits and groups are for the middle layers. */
static tq_status make_codecs(tq_cache *cache, const tq_cache *tables, tq_layer_schedule *schedule, tq_error *err) {
    const tq_cache_config *config = &cache->params.config;
    const char *kv = tq_layer_schedule_resolve(config->kv, cache->params.head_dim);
    bool overridden = config->key_bits || config->value_bits || config->value_group_size;
    bool preset = !overridden && tq_layer_schedule_of_preset(kv, cache->params.n_layers, schedule);
    if (!preset) TQ_TRY(tq_layer_schedule_parse(kv, cache->params.n_layers, schedule, err));
    for (int run = 0; run < TQ_LAYER_RUNS; run++) {
        char key[64], value[64], canonical[64];
        tq_cache_config of_run = {.kv = schedule->name[run]};
        if (run == TQ_MIDDLE_LAYERS) {
            of_run = *config;
            of_run.kv = preset || *schedule->suffix ? schedule->name[run] : kv;
        } else if (schedule->count[run] == 0) {
            continue;
        }
        TQ_TRY(tq_cache_codec_names(&of_run, key, value, canonical, err));
        if (preset) {
            strcpy(cache->kv, kv);
        } else if (run == TQ_MIDDLE_LAYERS) {
            if (strlen(canonical) + strlen(schedule->suffix) >= sizeof cache->kv)
                return tq_fail(err, TQ_INVALID, "codec '%s%s': the name is too long", canonical, schedule->suffix);
            strcpy(cache->kv, canonical);
            strcat(cache->kv, schedule->suffix);
        }
        const tq_cache_layer *shared = NULL;
        for (int l = 0; l < cache->params.n_layers; l++) {
            if (tq_layer_schedule_run(schedule, l) != run) continue;
            tq_cache_layer *layer = &cache->layers[l];
            const tq_cache_layer *from = tables ? &tables->layers[l] : shared;
            if (from) share_layer_codecs(layer, from);
            else TQ_TRY(make_layer_codecs(layer, l, key, value, cache->params.head_dim, config->key_centre, err));
            if (!shared && !is_drawn(key, value)) shared = layer;
        }
    }
    int window = tq_cache_window_of(cache->kv);
    cache->forgets = window >= 0;
    bool all_exact = true, any_centred = false;
    for (int l = 0; l < cache->params.n_layers; l++) {
        all_exact = all_exact && is_exact(&cache->layers[l]);
        any_centred = any_centred || cache->layers[l].keys[TQ_CENTRED_PAGES];
    }
    if (config->key_centre == TQ_KEY_CENTRE_ON && !any_centred && !all_exact)
        return tq_fail(err, TQ_INVALID, "key centre: codec '%s' keeps none", cache->kv);
    if (cache->forgets) {
        cache->params.config.buffer_size = window;
    } else if (all_exact) {
        /* Nothing to gain from a window in front of rows that are exact anyway. */
        cache->params.config.buffer_size = 0;
        cache->params.config.sinks = 0;
        cache->params.config.flush_batch_size = 1;
    }
    return TQ_OK;
}

/* Where pages with keys of a codec have their values, and their size. */
static void lay_out_pages(const tq_codec *key, const tq_codec *value, size_t *value_at, size_t *page_bytes) {
    *value_at = (tq_block_bytes(key, TQ_KEYS) + 63) / 64 * 64;
    *page_bytes = (*value_at + tq_block_bytes(value, TQ_VALUES) + 63) / 64 * 64;
}

static tq_page_kind larger_kind(const tq_cache_layer *layer) {
    return layer->keys[TQ_CENTRED_PAGES] ? TQ_CENTRED_PAGES : TQ_BARE_PAGES;
}

static void use_kind(tq_cache_layer *layer, tq_page_kind kind) {
    layer->store.key = layer->key = layer->keys[kind];
    layer->pool = layer->pools[kind];
    lay_out_pages(layer->key, layer->value, &layer->store.value_at, &layer->store.page_bytes);
}

tq_page_kind tq_cache_layer_kind(const tq_cache_layer *layer) {
    return layer->key == layer->keys[TQ_CENTRED_PAGES] ? TQ_CENTRED_PAGES : TQ_BARE_PAGES;
}

bool tq_cache_layer_decide(tq_cache_layer *layer, tq_page_kind kind) {
    if (layer->n_pages > 0 || !layer->keys[kind]) return false;
    use_kind(layer, kind);
    layer->decided = true;
    return true;
}

static void forget_kind(tq_cache_layer *layer) {
    layer->decided = false;
    use_kind(layer, larger_kind(layer));
}

/* Pools for each run of layers: their pages of a kind are of one size.  A budget has one for each size. */
static tq_status make_pools(tq_cache *cache, const tq_layer_schedule *schedule, tq_error *err) {
    const tq_cache_params *p = &cache->params;
    size_t n_slots = 0;
    int of_run[TQ_LAYER_RUNS] = {0};
    for (int l = 0; l < p->n_layers; l++) {
        tq_cache_layer *layer = &cache->layers[l];
        layer->max_pages = tq_cache_layer_pages(p->windows ? p->windows[l] : 0, p->max_tokens);
        n_slots += (size_t)layer->max_pages;
        if (cache->budget) layer->max_pages += pages_of(cache->max_chunk) + 1; /* reserved before front pages go */
        if (n_slots <= INT32_MAX) of_run[tq_layer_schedule_run(schedule, l)] += layer->max_pages;
    }
    if (n_slots > INT32_MAX) return tq_fail(err, TQ_NO_MEMORY, "cache: %zu pages are too many", n_slots);
    for (int l = 0; l < p->n_layers; l++) {
        tq_cache_layer *layer = &cache->layers[l];
        int run = tq_layer_schedule_run(schedule, l);
        for (tq_page_kind kind = 0; kind < TQ_PAGE_KINDS; kind++) {
            if (!layer->keys[kind]) continue;
            size_t value_at, page_bytes;
            lay_out_pages(layer->keys[kind], layer->value, &value_at, &page_bytes);
            size_t slot_bytes = page_bytes * (size_t)p->n_kv_heads;
            if (cache->budget) {
                TQ_TRY(tq_page_budget_pool(cache->budget, slot_bytes, &layer->pools[kind], err));
                continue;
            }
            layer->pools[kind] = &cache->own_pools[run][kind];
            if (!layer->pools[kind]->memory) TQ_TRY(tq_page_pool_init(layer->pools[kind], slot_bytes, of_run[run], err));
        }
        forget_kind(layer);
    }
    return TQ_OK;
}

static tq_status allocate(tq_cache *cache, const tq_layer_schedule *schedule, tq_error *err) {
    const tq_cache_params *p = &cache->params;
    TQ_TRY(make_pools(cache, schedule, err));
    cache->exact_cap = min_int(p->config.sinks + p->config.buffer_size + p->config.flush_batch_size - 1, p->max_tokens);
    size_t side = (size_t)p->n_kv_heads * (size_t)cache->exact_cap * (size_t)p->head_dim, scratch = 0;
    cache->exact_bytes = 2 * side * (size_t)p->n_layers * sizeof(uint16_t);
    if (!tq_page_budget_charge(cache->budget, cache->exact_bytes, TQ_HELD_RUNNING))
        return tq_fail(err, TQ_FULL, "the cache budget of %zu bytes has no room for %zu bytes of exact rows",
                       cache->budget->limit, cache->exact_bytes);
    cache->exact_rows = malloc(cache->exact_bytes ? cache->exact_bytes : 1);
    if (!cache->exact_rows) {
        tq_page_budget_discharge(cache->budget, cache->exact_bytes, TQ_HELD_RUNNING);
        return tq_fail_memory(err, cache->exact_bytes, "the exact window");
    }

    for (int l = 0; l < p->n_layers; l++) {
        tq_cache_layer *layer = &cache->layers[l];
        layer->pages = calloc((size_t)layer->max_pages, sizeof *layer->pages);
        if (!layer->pages) return tq_fail_memory(err, (size_t)layer->max_pages * sizeof *layer->pages, "a page table");
        uint16_t *rows = (uint16_t *)cache->exact_rows + 2 * side * (size_t)l;
        layer->store = (tq_kv_store){
            .key = layer->key, .value = layer->value, .n_kv_heads = p->n_kv_heads, .head_dim = p->head_dim,
            .pages = layer->pages, .page_bytes = layer->store.page_bytes, .value_at = layer->store.value_at,
            .exact_k = rows, .exact_v = rows + side, .exact_cap = cache->exact_cap,
            .sliding = p->windows ? p->windows[l] : 0,
        };
        size_t bytes = cache->backend->ops->attend_bytes(cache->backend, layer->key, layer->value, p->n_heads,
                                                         p->n_kv_heads, p->head_dim, cache->max_chunk, p->max_tokens);
        if (bytes > scratch) scratch = bytes;
    }
    if (p->sink_logits) {
        size_t bytes = (size_t)p->n_layers * (size_t)p->n_heads * sizeof(float);
        cache->sink_logits = malloc(bytes);
        if (!cache->sink_logits) return tq_fail_memory(err, bytes, "learned sinks");
        memcpy(cache->sink_logits, p->sink_logits, bytes);
    }
    if (cache->budget) return tq_page_budget_scratch(cache->budget, scratch, err);
    cache->attend_scratch = aligned_alloc(64, (scratch + 63) / 64 * 64);
    if (!cache->attend_scratch) return tq_fail_memory(err, scratch, "attention");
    return TQ_OK;
}

tq_status tq_cache_new_sharing(tq_backend *backend, const tq_cache_params *params, int max_chunk, tq_page_budget *budget,
                               const tq_cache *tables, tq_cache **out, tq_error *err) {
    TQ_TRY(check_params(params, max_chunk, err));
    tq_cache *cache = calloc(1, sizeof *cache);
    if (!cache) return tq_fail_memory(err, sizeof *cache, "a cache");
    cache->params = *params;
    cache->backend = backend;
    cache->budget = budget;
    cache->max_chunk = max_chunk;
    if (params->scale == 0) cache->params.scale = 1.0f / __builtin_sqrtf((float)params->head_dim);
    cache->layers = calloc((size_t)params->n_layers, sizeof *cache->layers);
    tq_status status = cache->layers ? TQ_OK : tq_fail_memory(err, sizeof *cache->layers, "a cache's layers");
    tq_layer_schedule schedule;
    if (status == TQ_OK) status = make_codecs(cache, tables, &schedule, err);
    if (status == TQ_OK) status = allocate(cache, &schedule, err);
    cache->params.config.kv = cache->kv;
    cache->params.windows = NULL; /* the caller's; the layers have theirs */
    cache->params.sink_logits = NULL;
    if (status != TQ_OK) {
        tq_cache_free(cache);
        return status;
    }
    *out = cache;
    return TQ_OK;
}

tq_status tq_cache_new_within(tq_backend *backend, const tq_cache_params *params, int max_chunk, tq_page_budget *budget,
                              tq_cache **out, tq_error *err) {
    return tq_cache_new_sharing(backend, params, max_chunk, budget, NULL, out, err);
}

tq_status tq_cache_new_on(tq_backend *backend, const tq_cache_params *params, int max_chunk, tq_cache **out,
                          tq_error *err) {
    return tq_cache_new_within(backend, params, max_chunk, NULL, out, err);
}

enum { EMBEDDED_CHUNK = 512 };

tq_status tq_cache_new(const tq_cache_params *params, tq_cache **out, tq_error *err) {
    tq_backend *backend;
    TQ_TRY(tq_cpu_backend_new(params->n_threads, params->kernels, false, 64, &backend, err));
    tq_status status = tq_cache_new_on(backend, params, min_int(EMBEDDED_CHUNK, params->max_tokens), out, err);
    if (status != TQ_OK) tq_backend_free(backend);
    else (*out)->owns_backend = true;
    return status;
}

void tq_cache_free(tq_cache *cache) {
    if (!cache) return;
    for (int l = 0; cache->layers && l < cache->params.n_layers; l++) {
        if (cache->budget) drop_pages(&cache->layers[l], 0);
        free(cache->layers[l].pages);
        if (cache->layers[l].owns_codecs) {
            tq_codec_free(cache->layers[l].own_key);
            tq_codec_free(cache->layers[l].value);
        }
    }
    free(cache->layers);
    for (int run = 0; run < TQ_LAYER_RUNS; run++)
        for (int kind = 0; kind < TQ_PAGE_KINDS; kind++) tq_page_pool_destroy(&cache->own_pools[run][kind]);
    if (cache->exact_rows) tq_page_budget_discharge(cache->budget, cache->exact_bytes, TQ_HELD_RUNNING);
    free(cache->exact_rows);
    free(cache->sink_logits);
    free(cache->attend_scratch);
    if (cache->owns_backend) tq_backend_free(cache->backend);
    free(cache);
}

/* ---- storing ----------------------------------------------------------------------------------------------------- */

static int tokens_of(const tq_kv_store *store) {
    return store->n_sinks + store->n_packed + store->n_forgotten + store->n_window;
}

/* The first tokens of a sequence fill the sinks.  Returns how many of the n rows went there. */
static int fill_sinks(tq_cache *cache, tq_kv_store *store, const float *k, const float *v, int n) {
    int room = !store->sliding && tokens_of(store) == store->n_sinks ? cache->params.config.sinks - store->n_sinks : 0;
    int taken = min_int(n, room);
    if (taken <= 0) return 0;
    /* A sink is a window row that never leaves: append to an empty window, then count it as a sink. */
    tq_flush_args args = {.store = store, .k = k, .v = v, .n = taken, .n_pack = 0};
    cache->backend->ops->flush(cache->backend, &args);
    store->n_sinks += taken;
    store->n_window -= taken;
    return taken;
}

/* The first position that a sliding layer still wants once it holds n_tokens. */
static int first_kept(const tq_kv_store *store, int n_tokens) {
    return store->sliding ? max_int(0, n_tokens - store->sliding + 1 - REWIND_TOKENS) : 0;
}

/* Give back the front pages whose keys all stand before position `first`. */
static void drop_front_pages(tq_cache_layer *layer, int first) {
    tq_kv_store *store = &layer->store;
    int n = 0;
    while (store->n_packed > 0 && store->n_forgotten + min_int(TQ_PAGE_TOKENS, store->n_packed) <= first) {
        int rows = min_int(TQ_PAGE_TOKENS, store->n_packed);
        store->n_forgotten += rows;
        store->n_packed -= rows;
        tq_page_pool_return(layer->pool, layer->pages[n++], TQ_HELD_RUNNING);
    }
    if (n == 0) return;
    layer->n_pages -= n;
    memmove(layer->pages, layer->pages + n, (size_t)layer->n_pages * sizeof *layer->pages);
}

/* How many rows leave the window when n more come. */
static int leaving(const tq_cache *cache, const tq_kv_store *store, int n) {
    int batch = cache->params.config.flush_batch_size, over = store->n_window + n - cache->params.config.buffer_size;
    return over >= batch ? over / batch * batch : 0;
}

/* Which page is written next while it is held by others too, or -1. */
static int borrowed_page(const tq_cache_layer *layer) {
    int page = layer->store.n_packed / TQ_PAGE_TOKENS;
    if (layer->store.n_packed % TQ_PAGE_TOKENS == 0 || !tq_page_pool_shared(layer->pool, layer->pages[page])) return -1;
    return page;
}

/* A copy of its own instead of a page that others hold too. */
static bool own_page(tq_cache_layer *layer, int page) {
    uint8_t *own = tq_page_pool_take(layer->pool);
    if (!own) return false;
    memcpy(own, layer->pages[page], layer->pool->slot_bytes);
    tq_page_pool_return(layer->pool, layer->pages[page], TQ_HELD_RUNNING);
    layer->pages[page] = own;
    return true;
}

/* Pages for n more rows, all taken or none; and the page that is written next becomes the cache's own. */
static tq_status reserve_layer(tq_cache *cache, tq_cache_layer *layer, int n, tq_error *err) {
    int n_leave = leaving(cache, &layer->store, n), had = layer->n_pages; /* sinks are not deducted: a page too many */
    if (cache->forgets || n_leave == 0) return TQ_OK;
    int want = min_int(pages_of(layer->store.n_packed + n_leave), layer->max_pages), borrowed = borrowed_page(layer);
    while (layer->n_pages < want) {
        uint8_t *page = tq_page_pool_take(layer->pool);
        if (!page) break;
        layer->pages[layer->n_pages++] = page;
    }
    if (layer->n_pages >= want && (borrowed < 0 || own_page(layer, borrowed))) return TQ_OK;
    drop_pages(layer, had);
    return tq_fail(err, TQ_FULL, "the cache budget of %zu bytes has no room for %d more tokens", cache->budget->limit, n);
}

tq_status tq_cache_reserve(tq_cache *cache, int n, tq_error *err) {
    if (!cache->budget) return TQ_OK; /* its own pools have room for everything */
    for (int l = 0; l < cache->params.n_layers; l++) TQ_TRY(reserve_layer(cache, &cache->layers[l], n, err));
    return TQ_OK;
}

/* Pages of a layer within a budget once it holds n_tokens: what a chunk's rows need before front pages go is counted, and
 * one that is copied because others hold it. */
static int pages_for(const tq_cache *cache, const tq_cache_layer *layer, int n_tokens) {
    int most = layer->max_pages + (cache->budget ? 0 : pages_of(cache->max_chunk) + 1);
    return cache->forgets ? 0 : min_int(pages_of(n_tokens), most) + 1;
}

size_t tq_cache_largest_slot(const tq_cache_layer *layer) { return layer->pools[larger_kind(layer)]->slot_bytes; }

size_t tq_cache_bytes_for(const tq_cache *cache, int n_tokens) {
    size_t bytes = cache->exact_bytes;
    for (int l = 0; l < cache->params.n_layers; l++)
        bytes += (size_t)pages_for(cache, &cache->layers[l], n_tokens) * tq_cache_largest_slot(&cache->layers[l]);
    return bytes;
}

size_t tq_cache_bytes_wanted(const tq_cache *cache, int n_tokens) {
    size_t bytes = 0;
    for (int l = 0; l < cache->params.n_layers; l++) {
        const tq_cache_layer *layer = &cache->layers[l];
        bytes += (size_t)max_int(pages_for(cache, layer, n_tokens) - layer->n_pages, 0) * layer->pool->slot_bytes;
    }
    return bytes;
}

/* Whether a layer's pages get centres, from the keys that are about to be packed as its first (tq_cache.h says why 16 % and 16
 * keys).  It looks at no more keys than are known whatever the chunks are, so that chunks make no difference. */
static void decide_on_centres(tq_cache *cache, tq_cache_layer *layer, const tq_flush_args *args) {
    enum { MIN_KEYS = 16 };
    const double pays = 0.16;
    const tq_cache_config *config = &cache->params.config;
    tq_page_kind kind = larger_kind(layer);
    int known = min_int(TQ_PAGE_TOKENS, config->buffer_size + config->flush_batch_size);
    known = min_int(known, layer->store.n_window + args->n - args->n_forget);
    if (kind == TQ_CENTRED_PAGES && layer->keys[TQ_BARE_PAGES] && known >= MIN_KEYS) {
        double share = cache->backend->ops->centre_share(cache->backend, args, known);
        if (share >= 0 && share < pays) kind = TQ_BARE_PAGES;
    }
    int reserved = layer->n_pages; /* of the larger kind: as many of either fit */
    drop_pages(layer, 0);
    tq_cache_layer_decide(layer, kind);
    while (layer->n_pages < reserved) layer->pages[layer->n_pages++] = tq_page_pool_take(layer->pool);
}

size_t tq_cache_table_bytes(const tq_cache *cache) {
    size_t bytes = 0;
    for (int l = 0; l < cache->params.n_layers; l++) {
        const tq_cache_layer *layer = &cache->layers[l];
        if (layer->owns_codecs) bytes += tq_codec_table_bytes(layer->own_key) + tq_codec_table_bytes(layer->value);
    }
    return bytes;
}

static void store_rows(tq_cache *cache, tq_cache_layer *layer, const float *k, const float *v, int n) {
    tq_kv_store *store = &layer->store;
    int taken = fill_sinks(cache, store, k, v, n);
    size_t row = (size_t)store->n_kv_heads * (size_t)store->head_dim;
    k += (size_t)taken * row;
    v += (size_t)taken * row;
    n -= taken;
    int n_leave = leaving(cache, store, n);
    int first = first_kept(store, tokens_of(store) + n), n_forget = cache->forgets ? n_leave : 0;
    drop_front_pages(layer, first);
    if (store->n_packed == 0 && first > store->n_forgotten) n_forget = min_int(first - store->n_forgotten, n_leave);
    int n_pack = n_leave - n_forget, want_pages = pages_of(store->n_packed + n_pack);
    tq_flush_args args = {.store = store, .k = k, .v = v, .n = n, .n_forget = n_forget, .n_pack = n_pack};
    if (n_pack > 0 && !layer->decided) decide_on_centres(cache, layer, &args);
    while (layer->n_pages < want_pages) layer->pages[layer->n_pages++] = tq_page_pool_take(layer->pool);
    cache->backend->ops->flush(cache->backend, &args);
}

static tq_status check_room(const tq_cache *cache, const tq_cache_layer *layer, int n, tq_error *err) {
    int stored = tokens_of(&layer->store);
    if (n <= cache->params.max_tokens - stored) return TQ_OK;
    return tq_fail(err, TQ_FULL, "cache: %d tokens and %d more do not fit into %d", stored, n, cache->params.max_tokens);
}

tq_status tq_cache_append(tq_cache *cache, int layer, const float *k, const float *v, int n, tq_error *err) {
    tq_cache_layer *l = &cache->layers[layer];
    TQ_TRY(check_room(cache, l, n, err));
    size_t kv_row = (size_t)cache->params.n_kv_heads * (size_t)cache->params.head_dim;
    for (int m; n > 0; n -= m, k += (size_t)m * kv_row, v += (size_t)m * kv_row) {
        m = min_int(n, cache->max_chunk);
        if (cache->budget) TQ_TRY(reserve_layer(cache, l, m, err));
        store_rows(cache, l, k, v, m);
    }
    return TQ_OK;
}

tq_status tq_cache_attend(tq_cache *cache, int layer, const float *q, const float *k, const float *v, int n, float *out,
                          tq_error *err) {
    if (layer < 0 || layer >= cache->params.n_layers)
        return tq_fail(err, TQ_INVALID, "cache: want a layer from 0 to %d, got %d", cache->params.n_layers - 1, layer);
    if (n < 0) return tq_fail(err, TQ_INVALID, "cache: want 0 or more tokens, got %d", n);
    tq_cache_layer *l = &cache->layers[layer];
    TQ_TRY(check_room(cache, l, n, err));
    size_t q_row = (size_t)cache->params.n_heads * (size_t)cache->params.head_dim;
    size_t kv_row = (size_t)cache->params.n_kv_heads * (size_t)cache->params.head_dim;
    while (n > 0) { /* one pass where the caller's chunks are what the cache was made for */
        int m = min_int(n, cache->max_chunk);
        if (cache->budget) TQ_TRY(reserve_layer(cache, l, m, err));
        tq_attend_args args = {.store = &l->store, .n_heads = cache->params.n_heads, .n = m,
                               .scale = cache->params.scale, .cap = cache->params.softcap,
                               .sink_logits = cache->sink_logits
                                                  ? cache->sink_logits + (size_t)layer * (size_t)cache->params.n_heads
                                                  : NULL,
                               .q = q, .k = k, .v = v, .out = out,
                               .scratch = cache->budget ? cache->budget->scratch : cache->attend_scratch};
        cache->backend->ops->attend(cache->backend, &args);
        store_rows(cache, l, k, v, m);
        q += (size_t)m * q_row;
        out += (size_t)m * q_row;
        k += (size_t)m * kv_row;
        v += (size_t)m * kv_row;
        n -= m;
    }
    return TQ_OK;
}

/* ---- length, rewind, facts ----------------------------------------------------------------------------------------- */

int tq_cache_length(const tq_cache *cache) {
    int length = tokens_of(&cache->layers[0].store);
    for (int l = 1; l < cache->params.n_layers; l++) length = min_int(length, tokens_of(&cache->layers[l].store));
    return length;
}

static void rewind_layer(tq_cache_layer *layer, int length) {
    tq_kv_store *s = &layer->store;
    if (length >= tokens_of(s)) return;
    s->n_sinks = min_int(s->n_sinks, length);
    length -= s->n_sinks;
    s->n_forgotten = min_int(s->n_forgotten, length);
    length -= s->n_forgotten;
    s->n_packed = min_int(s->n_packed, length);
    s->n_window = length - s->n_packed;
    drop_pages(layer, pages_of(s->n_packed));
    if (s->n_packed == 0) forget_kind(layer);
}

void tq_cache_clear(tq_cache *cache) {
    for (int l = 0; l < cache->params.n_layers; l++) {
        tq_kv_store *s = &cache->layers[l].store;
        s->n_sinks = s->n_packed = s->n_forgotten = s->n_window = 0;
        drop_pages(&cache->layers[l], 0);
        forget_kind(&cache->layers[l]);
    }
}

tq_status tq_cache_rewind(tq_cache *cache, int length, tq_error *err) {
    int longest = 0;
    for (int l = 0; l < cache->params.n_layers; l++) {
        int n = tokens_of(&cache->layers[l].store);
        if (n > longest) longest = n;
    }
    if (length < 0 || length > longest)
        return tq_fail(err, TQ_INVALID, "rewind: want 0 to %d tokens, got %d", longest, length);
    if (cache->forgets && length > 0 && length < longest) {
        const tq_kv_store *s = &cache->layers[0].store;
        if (length < s->n_sinks + s->n_forgotten)
            return tq_fail(err, TQ_INVALID, "rewind: token %d has been forgotten by %s", length, cache->kv);
    }
    for (int l = 0; l < cache->params.n_layers; l++) {
        const tq_kv_store *s = &cache->layers[l].store;
        if (s->sliding && length > 0 && length < tokens_of(s) && s->n_forgotten > max_int(0, length - s->sliding + 1))
            return tq_fail(err, TQ_INVALID,
                           "rewind: layer %d keeps a window of %d tokens and has forgotten what token %d would see: want 0 "
                           "or at least %d tokens",
                           l, s->sliding, length, s->n_forgotten + s->sliding - 1);
    }
    for (int l = 0; l < cache->params.n_layers; l++) rewind_layer(&cache->layers[l], length);
    return TQ_OK;
}

/* The layer that a cache's counts are of compresses, if any does, and has packed the most. */
static bool packs_more(const tq_cache_layer *a, const tq_cache_layer *b) {
    if (is_exact(a) != is_exact(b)) return is_exact(b);
    if (a->store.n_packed != b->store.n_packed) return a->store.n_packed > b->store.n_packed;
    return a->store.n_forgotten < b->store.n_forgotten;
}

void tq_cache_get_stats(const tq_cache *cache, tq_cache_stats *stats) {
    const tq_cache_params *p = &cache->params;
    const tq_cache_layer *packs = &cache->layers[0];
    size_t values = 2 * (size_t)p->n_kv_heads * (size_t)p->head_dim, f16_rows = 0;
    for (int l = 0; l < p->n_layers; l++) {
        const tq_cache_layer *layer = &cache->layers[l];
        const tq_kv_store *each = &layer->store;
        if (packs_more(layer, packs)) packs = layer;
        f16_rows += (size_t)(each->sliding ? min_int(each->sliding, tokens_of(each)) : tokens_of(each));
    }
    const tq_kv_store *s = &packs->store;
    bool exact = is_exact(packs);
    *stats = (tq_cache_stats){.tokens = tokens_of(s)};
    stats->packed_tokens = exact ? 0 : s->n_packed;
    stats->forgotten_tokens = s->n_forgotten;
    stats->exact_tokens = stats->tokens - stats->packed_tokens - stats->forgotten_tokens;
    stats->bytes = cache->exact_bytes;
    size_t page_of_all = 0; /* one slot of every layer */
    for (int l = 0; l < p->n_layers; l++) {
        const tq_cache_layer *layer = &cache->layers[l];
        page_of_all += layer->pool->slot_bytes;
        stats->bytes += (size_t)layer->n_pages * layer->pool->slot_bytes;
    }
    stats->bytes += tq_cache_table_bytes(cache);
    stats->f16_bytes = f16_rows * values * sizeof(uint16_t);
    stats->bits_per_value = (double)page_of_all * 8 / ((double)values * TQ_PAGE_TOKENS * p->n_layers);
}
