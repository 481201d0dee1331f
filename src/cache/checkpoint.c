/* checkpoint.c: see checkpoint.h. */
#include "cache/checkpoint.h"

#include <stdlib.h>
#include <string.h>

typedef struct checkpoint_layer {
    tq_page_pool *pool;
    int n_sinks, n_packed, n_forgotten, n_window, n_pages;
    bool decided; /* on the kind of its pages */
    tq_page_kind kind;
    uint8_t **pages;     /* (n_pages) into the list of all */
} checkpoint_layer;

struct tq_checkpoint {
    tq_page_budget *budget;
    char kv[64];
    int n_layers, n_tokens;
    size_t own_bytes; /* charged; 0 until then */
    checkpoint_layer *layers;
    uint8_t **pages;
    uint16_t *exact; /* layer by layer (2, n_kv_heads, n_sinks + n_window, head_dim): keys, values */
    tq_recurrent_state state;
};

static size_t exact_values(const tq_kv_store *store) {
    return 2 * (size_t)store->n_kv_heads * (size_t)(store->n_sinks + store->n_window) * (size_t)store->head_dim;
}

static int used_pages(const tq_kv_store *store) { return (store->n_packed + TQ_PAGE_TOKENS - 1) / TQ_PAGE_TOKENS; }

/* The exact rows of one layer between the cache (whose heads stand exact_cap rows apart) and a dense copy. */
static void copy_exact(const tq_kv_store *store, uint16_t *dense, bool to_cache) {
    size_t dim = (size_t)store->head_dim, run = (size_t)(store->n_sinks + store->n_window) * dim;
    for (int side = 0; side < 2; side++)
        for (int h = 0; h < store->n_kv_heads; h++, dense += run) {
            uint16_t *rows = (side ? store->exact_v : store->exact_k) + (size_t)h * (size_t)store->exact_cap * dim;
            if (to_cache) memcpy(rows, dense, run * sizeof *rows);
            else memcpy(dense, rows, run * sizeof *rows);
        }
}

typedef struct sizes {
    size_t exact, pages, bytes; /* values, entries, of everything */
} sizes;

static sizes sizes_of(const tq_cache *cache, const tq_recurrent_state *state) {
    sizes n = {0};
    for (int l = 0; l < cache->params.n_layers; l++) {
        n.exact += exact_values(&cache->layers[l].store);
        n.pages += (size_t)used_pages(&cache->layers[l].store);
    }
    n.bytes = sizeof(tq_checkpoint) + (size_t)cache->params.n_layers * sizeof(checkpoint_layer) +
              n.pages * sizeof(uint8_t *) + n.exact * sizeof(uint16_t) + tq_recurrent_state_bytes(state);
    return n;
}

size_t tq_checkpoint_bytes_of(const tq_cache *cache, const tq_recurrent_state *state) {
    return sizes_of(cache, state).bytes;
}

static tq_status allocate(tq_checkpoint *c, const sizes *n, const tq_recurrent_state *state, tq_error *err) {
    if (!tq_page_budget_charge(c->budget, n->bytes, TQ_HELD_KEPT))
        return tq_fail(err, TQ_FULL, "the cache budget of %zu bytes has no room for a checkpoint of %zu", c->budget->limit,
                       n->bytes);
    c->own_bytes = n->bytes;
    c->layers = calloc((size_t)c->n_layers, sizeof *c->layers);
    c->pages = malloc((n->pages + 1) * sizeof *c->pages);
    c->exact = malloc((n->exact + 1) * sizeof *c->exact);
    if (!c->layers || !c->pages || !c->exact) return tq_fail_memory(err, n->bytes, "a checkpoint");
    return tq_recurrent_state_init(&c->state, state->n_layers, state->layer_floats, err);
}

static void fill(tq_checkpoint *c, const tq_cache *cache) {
    uint16_t *exact = c->exact;
    uint8_t **pages = c->pages;
    for (int l = 0; l < c->n_layers; l++) {
        const tq_kv_store *store = &cache->layers[l].store;
        checkpoint_layer *layer = &c->layers[l];
        *layer = (checkpoint_layer){.pool = cache->layers[l].pool, .n_sinks = store->n_sinks, .n_packed = store->n_packed,
                                    .n_forgotten = store->n_forgotten, .n_window = store->n_window,
                                    .n_pages = used_pages(store), .pages = pages, .decided = cache->layers[l].decided,
                                    .kind = tq_cache_layer_kind(&cache->layers[l])};
        for (int p = 0; p < layer->n_pages; p++) {
            layer->pages[p] = store->pages[p];
            tq_page_pool_share(layer->pool, store->pages[p], TQ_HELD_KEPT);
        }
        pages += layer->n_pages;
        copy_exact(store, exact, false);
        exact += exact_values(store);
    }
}

tq_status tq_checkpoint_new(const tq_cache *cache, const tq_recurrent_state *state, tq_checkpoint **out, tq_error *err) {
    if (!cache->budget) return tq_fail(err, TQ_INVALID, "a checkpoint wants a cache within a budget");
    tq_checkpoint *c = calloc(1, sizeof *c);
    if (!c) return tq_fail_memory(err, sizeof *c, "a checkpoint");
    c->budget = cache->budget;
    c->n_layers = cache->params.n_layers;
    c->n_tokens = tq_cache_length(cache);
    memcpy(c->kv, cache->kv, sizeof c->kv);
    sizes n = sizes_of(cache, state);
    tq_status status = allocate(c, &n, state, err);
    if (status != TQ_OK) {
        free(c->layers);
        c->layers = NULL; /* it holds no pages yet */
        tq_checkpoint_free(c);
        return status;
    }
    fill(c, cache);
    tq_recurrent_state_copy(&c->state, state);
    *out = c;
    return TQ_OK;
}

void tq_checkpoint_free(tq_checkpoint *c) {
    if (!c) return;
    for (int l = 0; c->layers && l < c->n_layers; l++)
        for (int p = 0; p < c->layers[l].n_pages; p++)
            tq_page_pool_return(c->layers[l].pool, c->layers[l].pages[p], TQ_HELD_KEPT);
    tq_page_budget_discharge(c->budget, c->own_bytes, TQ_HELD_KEPT);
    tq_recurrent_state_destroy(&c->state);
    free(c->layers);
    free(c->pages);
    free(c->exact);
    free(c);
}

static tq_status check_fit(const tq_checkpoint *c, const tq_cache *cache, const tq_recurrent_state *state, tq_error *err) {
    if (cache->budget != c->budget || cache->params.n_layers != c->n_layers || memcmp(cache->kv, c->kv, sizeof c->kv) != 0)
        return tq_fail(err, TQ_INVALID, "checkpoint: want a cache of %s of the same budget, got one of %s", c->kv, cache->kv);
    if (c->n_tokens > cache->params.max_tokens)
        return tq_fail(err, TQ_FULL, "checkpoint: %d tokens do not fit into %d", c->n_tokens, cache->params.max_tokens);
    for (int l = 0; l < c->n_layers; l++)
        if (c->layers[l].n_sinks + c->layers[l].n_window > cache->exact_cap || c->layers[l].pool != cache->layers[l].pools[c->layers[l].kind] ||
            c->layers[l].n_pages > cache->layers[l].max_pages)
            return tq_fail(err, TQ_INVALID, "checkpoint: taken from a cache with another window, shape or context");
    if (state->n_layers != c->state.n_layers || state->layer_floats != c->state.layer_floats)
        return tq_fail(err, TQ_INVALID, "checkpoint: want a recurrent state of %d layers of %zu floats, got %d of %zu",
                       c->state.n_layers, c->state.layer_floats, state->n_layers, state->layer_floats);
    return TQ_OK;
}

tq_status tq_checkpoint_restore(const tq_checkpoint *c, tq_cache *cache, tq_recurrent_state *state, tq_error *err) {
    TQ_TRY(check_fit(c, cache, state, err));
    tq_cache_clear(cache);
    const uint16_t *exact = c->exact;
    for (int l = 0; l < c->n_layers; l++) {
        const checkpoint_layer *from = &c->layers[l];
        tq_cache_layer *layer = &cache->layers[l];
        if (from->decided) tq_cache_layer_decide(layer, from->kind);
        for (int p = 0; p < from->n_pages; p++) {
            tq_page_pool_share(from->pool, from->pages[p], TQ_HELD_RUNNING);
            layer->pages[layer->n_pages++] = from->pages[p];
        }
        layer->store.n_sinks = from->n_sinks;
        layer->store.n_packed = from->n_packed;
        layer->store.n_forgotten = from->n_forgotten;
        layer->store.n_window = from->n_window;
        copy_exact(&layer->store, (uint16_t *)exact, true);
        exact += exact_values(&layer->store);
    }
    tq_recurrent_state_copy(state, &c->state);
    return TQ_OK;
}

int tq_checkpoint_length(const tq_checkpoint *c) { return c->n_tokens; }
size_t tq_checkpoint_own_bytes(const tq_checkpoint *c) { return c->own_bytes; }

size_t tq_checkpoint_unshared_bytes(const tq_checkpoint *c) {
    size_t bytes = c->own_bytes;
    for (int l = 0; l < c->n_layers; l++)
        for (int p = 0; p < c->layers[l].n_pages; p++)
            if (!tq_page_pool_shared(c->layers[l].pool, c->layers[l].pages[p])) bytes += c->layers[l].pool->slot_bytes;
    return bytes;
}
