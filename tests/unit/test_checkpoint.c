/* test_checkpoint.c: sequences that share pages within one budget hold what each would hold alone, and every byte is
 * counted. */
#include "testing.h"

#include "cache/checkpoint.h"

enum { LAYERS = 3, HEADS = 2, KV_HEADS = 1, DIM = 32, MAX_TOKENS = 1200, CHUNK = 48, FORGOTTEN = 9 };

static tq_backend *backend;

static int set_up(void **state) {
    (void)state;
    return tq_cpu_backend_new(2, NULL, false, DIM, &backend, NULL) != TQ_OK;
}

static int tear_down(void **state) {
    (void)state;
    tq_backend_free(backend);
    return 0;
}

static tq_cache *cache_within(tq_page_budget *budget, const char *kv, const int *windows) {
    tq_cache_params p = tq_cache_params_default();
    p.n_layers = LAYERS, p.n_heads = HEADS, p.n_kv_heads = KV_HEADS, p.head_dim = DIM, p.max_tokens = MAX_TOKENS;
    p.config.kv = kv, p.config.buffer_size = 40, p.config.sinks = 3, p.config.flush_batch_size = 16;
    p.windows = windows;
    tq_cache *cache = NULL;
    OK(tq_cache_new_within(backend, &p, CHUNK, budget, &cache, &e));
    return cache;
}

/* n tokens of the text `text`, which stand behind those that the cache holds; out: the last layer's. */
static tq_status append(tq_cache *cache, int text, int n, float *out, tq_error *err) {
    float q[CHUNK * HEADS * DIM], k[CHUNK * KV_HEADS * DIM], v[CHUNK * KV_HEADS * DIM];
    int from = tq_cache_length(cache), plain = text == FORGOTTEN ? 0 : 1; /* a layer whose pages have no centres */
    for (int l = 0; l < LAYERS; l++) {
        for (int t = 0; t < n; t++) {
            tq_rng rng = {(uint64_t)(text * 100000 + (from + t) * 8 + l)};
            for (int i = 0; i < HEADS * DIM; i++) q[t * HEADS * DIM + i] = (float)tq_rng_uniform(&rng) - .5f;
            for (int i = 0; i < KV_HEADS * DIM; i++) k[t * KV_HEADS * DIM + i] = (float)(tq_rng_uniform(&rng) - (l == plain ? .5 : 0)) * 3;
            for (int i = 0; i < KV_HEADS * DIM; i++) v[t * KV_HEADS * DIM + i] = (float)tq_rng_uniform(&rng) - .5f;
        }
        TQ_TRY(tq_cache_attend(cache, l, q, k, v, n, out, err));
    }
    return TQ_OK;
}

static void grow(tq_cache *cache, int text, int tokens, float *out) {
    for (int done = 0, n; done < tokens; done += n) {
        n = tokens - done < CHUNK ? tokens - done : CHUNK;
        OK(append(cache, text, n, out, &e));
    }
}

static const tq_recurrent_state no_state = {0};
static tq_recurrent_state no_state_to_fill = {0};

static tq_checkpoint *checkpoint_of(const tq_cache *cache) {
    tq_checkpoint *c = NULL;
    OK(tq_checkpoint_new(cache, &no_state, &c, &e));
    return c;
}

/* What the budget says against what its pools' lists say. */
static void want_counts_right(const tq_page_budget *b) {
    size_t used = b->charged, shared = 0, free_slots = 0;
    for (const tq_page_pool *p = b->pools; p; p = p->next) {
        for (int i = 0; i < p->n_fresh; i++) {
            bool returned = false;
            for (int j = 0; j < p->n_returned; j++) returned = returned || p->returned[j] == i;
            free_slots += returned;
            if (returned) continue;
            used += p->slot_bytes;
            if (p->holders[2 * i] + p->holders[2 * i + 1] > 1) shared += p->slot_bytes;
        }
    }
    assert_int_equal(b->used, used);
    assert_int_equal(b->shared, shared);
    assert_true(b->used <= b->limit && b->running <= b->used);
    assert_true(tq_page_budget_resident(b) <= b->limit || free_slots > 0);
}

/* Two texts that begin alike, by one prefix and two ways on; and the same texts in caches of their own. */
static void branches(const char *kv, const int *windows, int prefix, int rest) {
    tq_page_budget budget;
    tq_page_budget_init(&budget, (size_t)8 << 20);
    tq_cache *a = cache_within(&budget, kv, windows), *b = cache_within(&budget, kv, windows);
    float got[CHUNK * HEADS * DIM], want[CHUNK * HEADS * DIM];
    size_t values = (size_t)(rest % CHUNK ? rest % CHUNK : CHUNK) * HEADS * DIM;
    grow(a, 1, prefix, got);
    tq_checkpoint *c = checkpoint_of(a);
    want_counts_right(&budget);
    assert_int_equal(tq_checkpoint_length(c), prefix);
    grow(b, FORGOTTEN, 100, got);
    OK(tq_checkpoint_restore(c, b, &no_state_to_fill, &e));
    want_counts_right(&budget);
    for (int text = 2; text < 5; text++) { /* a goes on, then b, then b once more from the checkpoint */
        tq_cache *on = text == 2 ? a : b, *plain = cache_within(NULL, kv, windows);
        if (text == 4) OK(tq_checkpoint_restore(c, b, &no_state_to_fill, &e));
        grow(on, text, rest, got);
        want_counts_right(&budget);
        grow(plain, 1, prefix, want);
        grow(plain, text, rest, want);
        assert_memory_equal(got, want, values * sizeof *got);
        tq_cache_free(plain);
    }
    size_t own = tq_checkpoint_own_bytes(c), alone = tq_checkpoint_unshared_bytes(c);
    assert_true(alone >= own && alone <= budget.used);
    tq_cache_free(a);
    tq_cache_free(b);
    want_counts_right(&budget);
    assert_int_equal(budget.running, budget.scratch_bytes);
    assert_int_equal(tq_checkpoint_unshared_bytes(c) + budget.scratch_bytes, budget.used); /* it holds all that is left */
    tq_checkpoint_free(c);
    assert_int_equal(budget.used, budget.scratch_bytes);
    tq_page_budget_destroy(&budget);
}

static void a_restored_cache_goes_on_bit_for_bit(void **state) {
    (void)state;
    static const char *const kvs[] = {"tq3", "f16", "tcq2", "paper-prod:3", "tq3,first=1:q8", "window:40"};
    static const int prefixes[] = {1, 3, 44, 60, 171, 300, 640};
    for (size_t i = 0; i < sizeof kvs / sizeof *kvs; i++)
        for (size_t j = 0; j < sizeof prefixes / sizeof *prefixes; j++) branches(kvs[i], NULL, prefixes[j], 150);
}

static void so_does_one_with_sliding_layers(void **state) {
    (void)state;
    static const int windows[LAYERS] = {0, 64, 200};
    static const int prefixes[] = {50, 171, 300, 700};
    for (size_t j = 0; j < sizeof prefixes / sizeof *prefixes; j++) {
        branches("tq3", windows, prefixes[j], 400);
        branches("f16", windows, prefixes[j], 200);
    }
}

static void recurrent_states_are_copied(void **state) {
    (void)state;
    tq_page_budget budget;
    tq_page_budget_init(&budget, (size_t)8 << 20);
    tq_cache *cache = cache_within(&budget, "q8", NULL);
    float out[CHUNK * HEADS * DIM];
    grow(cache, 1, 90, out);
    tq_recurrent_state s, other;
    OK(tq_recurrent_state_init(&s, 2, 40, &e));
    OK(tq_recurrent_state_init(&other, 3, 40, &e));
    for (int i = 0; i < 80; i++) s.floats[i] = (float)i;
    size_t before = budget.used;
    tq_checkpoint *c = NULL;
    size_t want = tq_checkpoint_bytes_of(cache, &s);
    OK(tq_checkpoint_new(cache, &s, &c, &e));
    assert_int_equal(budget.used - before, want);
    assert_true(want > tq_recurrent_state_bytes(&s));
    tq_recurrent_state_clear(&s);
    OK(tq_checkpoint_restore(c, cache, &s, &e));
    for (int i = 0; i < 80; i++) assert_true(s.floats[i] == (float)i);
    FAILS(tq_checkpoint_restore(c, cache, &other, &e), TQ_INVALID, "recurrent state of 2 layers");
    tq_cache *q4 = cache_within(&budget, "tq4", NULL);
    FAILS(tq_checkpoint_restore(c, q4, &s, &e), TQ_INVALID, "want a cache of q8");
    tq_cache_free(q4);
    tq_checkpoint_free(c);
    tq_recurrent_state_destroy(&s);
    tq_recurrent_state_destroy(&other);
    tq_cache_free(cache);
    tq_page_budget_destroy(&budget);
}

/* A cache that finds no room keeps what it has, and goes on when there is room again. */
/* What attention takes of a budget, whatever is stored. */
static size_t scratch_of(const char *kv) {
    tq_page_budget budget;
    tq_page_budget_init(&budget, (size_t)8 << 20);
    tq_cache_free(cache_within(&budget, kv, NULL));
    size_t bytes = budget.scratch_bytes;
    tq_page_budget_destroy(&budget);
    return bytes;
}

static void a_full_budget_changes_nothing(void **state) {
    (void)state;
    tq_page_budget budget;
    size_t limit = scratch_of("tq3") + 160000; /* room for some pages of both, and no more */
    tq_page_budget_init(&budget, limit);
    tq_cache *a = cache_within(&budget, "tq3", NULL), *b = cache_within(&budget, "tq3", NULL);
    float got[CHUNK * HEADS * DIM], want[CHUNK * HEADS * DIM];
    grow(a, 1, 300, got);
    tq_checkpoint *c = checkpoint_of(a);
    int held = 0;
    tq_status status = TQ_OK;
    while (status == TQ_OK && held < MAX_TOKENS - CHUNK) { /* b takes the rest */
        status = tq_cache_reserve(b, CHUNK, NULL);
        if (status != TQ_OK) break;
        OK(append(b, 2, CHUNK, got, &e));
        held += CHUNK;
    }
    assert_int_equal(status, TQ_FULL);
    want_counts_right(&budget);
    tq_error err;
    int length = tq_cache_length(a);
    while ((status = tq_cache_reserve(a, CHUNK, &err)) == TQ_OK) {
        OK(append(a, 1, CHUNK, got, &e));
        length += CHUNK;
    }
    assert_int_equal(status, TQ_FULL);
    char named[32];
    snprintf(named, sizeof named, "%zu bytes", limit);
    assert_non_null(strstr(err.text, named));
    assert_int_equal(append(a, 1, CHUNK, got, NULL), TQ_FULL); /* without reserving: the first layer refuses */
    assert_int_equal(tq_cache_length(a), length);
    assert_int_equal(tq_cache_length(b), held);
    want_counts_right(&budget);
    tq_cache_free(b);
    int more = 100;
    grow(a, 1, more, got);
    tq_cache *plain = cache_within(NULL, "tq3", NULL);
    grow(plain, 1, 300, want);
    for (int n = 300; n < length; n += CHUNK) grow(plain, 1, CHUNK, want);
    grow(plain, 1, more, want);
    assert_memory_equal(got, want, (size_t)(more % CHUNK) * HEADS * DIM * sizeof *got);
    tq_cache_free(plain);
    tq_checkpoint_free(c);
    tq_cache_free(a);
    assert_int_equal(budget.used, budget.scratch_bytes);
    tq_page_budget_destroy(&budget);
}

/* What tq_cache_bytes_for promises is never exceeded, in any way of getting there. */
static void a_cache_stays_within_what_it_said(void **state) {
    (void)state;
    static const char *const kvs[] = {"tq3", "f16", "tq3,first=1:q8", "window:40"};
    static const int windows[LAYERS] = {0, 64, 200};
    float out[CHUNK * HEADS * DIM];
    for (int i = 0; i < 8; i++) {
        tq_page_budget budget;
        tq_page_budget_init(&budget, (size_t)8 << 20);
        tq_cache *cache = cache_within(&budget, kvs[i / 2], i % 2 ? windows : NULL);
        tq_cache *asked = cache_within(NULL, kvs[i / 2], i % 2 ? windows : NULL);
        tq_checkpoint *c = NULL;
        tq_rng rng = {(uint64_t)i};
        for (int n = 0; n < 1000;) {
            int step = 1 + (int)(tq_rng_u64(&rng) % CHUNK);
            size_t at_most = budget.running + tq_cache_bytes_wanted(cache, n + step);
            if (tq_rng_u64(&rng) % 4 == 0) tq_checkpoint_free(c), c = checkpoint_of(cache); /* so that pages are copied */
            OK(append(cache, 1, step, out, &e));
            n += step;
            assert_true(budget.running <= at_most);
            assert_true(budget.running - budget.scratch_bytes <= tq_cache_bytes_for(asked, n));
        }
        tq_checkpoint_free(c);
        tq_cache_free(cache);
        tq_cache_free(asked);
        tq_page_budget_destroy(&budget);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restored_cache_goes_on_bit_for_bit),
        cmocka_unit_test(so_does_one_with_sliding_layers),
        cmocka_unit_test(recurrent_states_are_copied),
        cmocka_unit_test(a_full_budget_changes_nothing),
        cmocka_unit_test(a_cache_stays_within_what_it_said),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
