/* test_layer_schedule.c: caches whose first and last layers have a codec of their own: the grammar, what is allocated,
 * and that each layer does what a cache of its codec alone would do. */
#include "testing.h"

#include <unistd.h>

#include "cache/kv_cache.h"

enum { LAYERS = 6, HEADS = 4, KV_HEADS = 2, DIM = 64, TOKENS = 400 };

static tq_cache_params params_of(const char *kv, int layers) {
    tq_cache_params p = tq_cache_params_default();
    p.n_layers = layers, p.n_heads = HEADS, p.n_kv_heads = KV_HEADS, p.head_dim = DIM, p.max_tokens = 600, p.n_threads = 1;
    p.config = (tq_cache_config){.kv = kv, .buffer_size = 16, .sinks = 4, .flush_batch_size = 8};
    return p;
}

static tq_cache *cache_of(const char *kv, int layers) {
    tq_cache_params p = params_of(kv, layers);
    tq_cache *cache = NULL;
    OK(tq_cache_new(&p, &cache, &e));
    return cache;
}

/* The same tokens in every layer.  out: (n, HEADS, DIM) of `layer`. */
static void append(tq_cache *cache, int from, int n, int layer, float *out) {
    size_t kv = (size_t)(n * KV_HEADS * DIM), all = (size_t)(n * HEADS * DIM);
    float *q = test_floats(all), *k = test_floats(kv), *v = test_floats(kv), *any = test_floats(all);
    tq_rng rng = {(uint64_t)from};
    test_normals(&rng, q, all), test_normals(&rng, k, kv), test_normals(&rng, v, kv);
    for (int l = 0; l < cache->params.n_layers; l++) {
        OK(tq_cache_attend(cache, l, q, k, v, n, any, &e));
        if (l == layer && out) memcpy(out, any, all * sizeof *out);
    }
    free(q), free(k), free(v), free(any);
}

static void the_grammar_is_what_the_header_says(void **state) {
    (void)state;
    static const struct {
        const char *kv, *first, *middle, *last;
        int n_first, n_middle, n_last;
    } known[] = {
        {"tq3", "", "tq3", "", 0, 6, 0},
        {"tq3,first=2,last=2:q8", "q8", "tq3", "q8", 2, 2, 2},
        {"tq3,first=1:f16,last=2", "f16", "tq3", "f16", 1, 3, 2},
        {"tq3,first=1:f16,last=2:q8", "f16", "tq3", "q8", 1, 3, 2},
        {"tq2,last=3:tq4", "", "tq2", "tq4", 0, 3, 3},
        {"tq2,first=6:tq4", "tq4", "tq2", "", 6, 0, 0},
        {"tq2,last=1,first=2:tq4", "tq4", "tq2", "tq4", 2, 3, 1},
        {"tq:k=tq4,v=tq2,first=1:tq:k=q8,v=tq4,last=1:mlx-k3v2", "tq:k=q8,v=tq4", "tq:k=tq4,v=tq2", "mlx-k3v2", 1, 4, 1},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        tq_layer_schedule s;
        OK(tq_layer_schedule_parse(known[i].kv, LAYERS, &s, &e));
        assert_string_equal(s.name[TQ_FIRST_LAYERS], known[i].first);
        assert_string_equal(s.name[TQ_MIDDLE_LAYERS], known[i].middle);
        assert_string_equal(s.name[TQ_LAST_LAYERS], known[i].last);
        int counts[TQ_LAYER_RUNS] = {0};
        for (int l = 0; l < LAYERS; l++) counts[tq_layer_schedule_run(&s, l)]++;
        assert_int_equal(counts[TQ_FIRST_LAYERS], known[i].n_first);
        assert_int_equal(counts[TQ_MIDDLE_LAYERS], known[i].n_middle);
        assert_int_equal(counts[TQ_LAST_LAYERS], known[i].n_last);
    }
    static const char *const wrong[] = {"tq3,first=2",        "tq3,first=2,last=1", "tq3,first=:q8",   "tq3,first=0:q8",
                                        "tq3,first=-1:q8",    "tq3,first=1:",       ",first=1:q8",     "tq3,first=1x:q8",
                                        "tq3,first=1:q8,first=2:f16", "tq3,last=1:"};
    tq_cache *cache = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        tq_cache_params p = params_of(wrong[i], LAYERS);
        FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "want CODEC,first=N[:CODEC],last=N[:CODEC]");
    }
    tq_cache_params p = params_of("tq3,first=4,last=3:q8", LAYERS);
    FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "want at least 7 layers, got 6");
    p.config.kv = "window:64,first=1:q8";
    FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "window:N forgets in all layers or in none");
    p.config.kv = "tq3,first=1:window:64";
    FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "window:N forgets in all layers or in none");
    p.config.kv = "tq3,first=1:tq9";
    FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "unknown codec 'tq9'");
    p.config.kv = "tq9,first=1:tq3";
    FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "unknown codec 'tq9'");
    p.config.kv = "tq:k=paper-prod-orth:3,v=q4-group:32,first=2,last=2:tq:k=q8,v=f16";
    FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "too long");
    assert_null(cache);
}

static void overrides_are_for_the_layers_between(void **state) {
    (void)state;
    tq_cache_params p = params_of("tq3,first=1,last=1:q8", 3);
    p.config.value_bits = 2;
    tq_cache *cache;
    OK(tq_cache_new(&p, &cache, &e));
    assert_string_equal(cache->kv, "tq:k=tq3,v=tq2,first=1,last=1:q8");
    static const char *const values[] = {"q8", "tq2", "q8"};
    for (int l = 0; l < 3; l++) assert_string_equal(tq_codec_name(cache->layers[l].value), values[l]);
    tq_cache_free(cache);
}

/* Layer by layer the bits of a cache that has that layer's codec everywhere. */
static void each_layer_is_that_of_a_cache_of_its_codec(void **state) {
    (void)state;
    static const struct {
        const char *kv, *layers[LAYERS];
    } known[] = {
        {"tq3,first=2,last=1:q8", {"q8", "q8", "tq3", "tq3", "tq3", "q8"}},
        {"tq2,first=1:f16,last=2:paper-mse:3", {"f16", "tq2", "tq2", "tq2", "paper-mse:3", "paper-mse:3"}},
        {"mlx-k3v2,last=1:paper:2.5", {"mlx-k3v2", "mlx-k3v2", "mlx-k3v2", "mlx-k3v2", "mlx-k3v2", "paper:2.5"}},
    };
    size_t n = 5 * HEADS * DIM;
    float *got = test_floats(n), *want = test_floats(n);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        for (int l = 0; l < LAYERS; l++) {
            tq_cache *cache = cache_of(known[i].kv, LAYERS), *plain = cache_of(known[i].layers[l], LAYERS);
            append(cache, 0, TOKENS, 0, NULL), append(plain, 0, TOKENS, 0, NULL);
            append(cache, TOKENS, 5, l, got), append(plain, TOKENS, 5, l, want);
            assert_true(cache->layers[l].store.n_packed > 300);
            /* f16 alone has no window before its pages: the same rows in other sums */
            if (strcmp(known[i].layers[l], "f16") == 0) assert_true(test_relative_error(want, got, n) < 1e-10);
            else if (memcmp(got, want, n * sizeof *got) != 0) fail_msg("%s: layer %d differs", known[i].kv, l);
            tq_cache_free(cache), tq_cache_free(plain);
        }
    free(got), free(want);
}

/* Everything counted, as allocated: pages of each layer's own size. */
static void bytes_are_those_of_each_layer(void **state) {
    (void)state;
    tq_cache *cache = cache_of("tq3,first=2,last=1:q8", LAYERS), *low = cache_of("tq3", LAYERS), *high = cache_of("q8", LAYERS);
    append(cache, 0, TOKENS, 0, NULL), append(low, 0, TOKENS, 0, NULL), append(high, 0, TOKENS, 0, NULL);
    tq_cache_stats mixed, of_low, of_high;
    tq_cache_get_stats(cache, &mixed), tq_cache_get_stats(low, &of_low), tq_cache_get_stats(high, &of_high);
    assert_true(fabs(mixed.bits_per_value - (of_low.bits_per_value + of_high.bits_per_value) / 2) < 1e-12);
    size_t pages = (size_t)cache->layers[0].n_pages, tables = 2 * DIM * sizeof(float);
    size_t low_page = low->layers[0].pool->slot_bytes, high_page = high->layers[0].pool->slot_bytes;
    assert_true(pages == 3 && high_page > 2 * low_page);
    assert_int_equal(mixed.bytes, cache->exact_bytes + 3 * pages * (low_page + high_page) + 3 * tables);
    assert_int_equal(of_low.bytes, low->exact_bytes + 6 * pages * low_page + tables);
    assert_int_equal(mixed.packed_tokens, of_low.packed_tokens);
    tq_cache_free(cache), tq_cache_free(low), tq_cache_free(high);
    cache = cache_of("tq3,first=1:f16", 2); /* the first layer is exact; the cache is not */
    append(cache, 0, TOKENS, 0, NULL);
    tq_cache_get_stats(cache, &mixed);
    assert_true(mixed.packed_tokens > 300 && mixed.packed_tokens + mixed.exact_tokens == TOKENS);
    tq_cache_free(cache);
}

/* A sliding layer takes fewer pages of its run's pool, and gives them back as its window moves on. */
static void windows_slide_in_every_run(void **state) {
    (void)state;
    static const int windows[LAYERS] = {0, 64, 200, 0, 64, 0};
    tq_cache_params p = params_of("tcq3,first=2:paper:2.5,last=1:q8", LAYERS);
    p.windows = windows, p.max_tokens = 2000;
    tq_cache *cache, *plain;
    OK(tq_cache_new(&p, &cache, &e));
    size_t n = 5 * HEADS * DIM;
    float *got = test_floats(n), *want = test_floats(n);
    for (int t = 0; t < 1900; t += 100) append(cache, t, 100, 0, NULL);
    append(cache, 1900, 5, 1, got);
    assert_true(cache->layers[1].n_pages < 4 && cache->layers[0].n_pages > 10);
    assert_int_equal(tq_page_pool_used(cache->layers[0].pool), cache->layers[0].n_pages + cache->layers[1].n_pages);
    p.config.kv = "paper:2.5";
    OK(tq_cache_new(&p, &plain, &e));
    for (int t = 0; t < 1900; t += 100) append(plain, t, 100, 0, NULL);
    append(plain, 1900, 5, 1, want);
    assert_memory_equal(got, want, n * sizeof *got);
    OK(tq_cache_rewind(cache, 1850, &e));
    append(cache, 1850, 150, 0, NULL); /* full */
    assert_int_equal(tq_cache_length(cache), 2000);
    tq_cache_clear(cache);
    for (int l = 0; l < LAYERS; l++) assert_int_equal(tq_page_pool_used(cache->layers[l].pool), 0);
    free(got), free(want);
    tq_cache_free(cache), tq_cache_free(plain);
}

static void snapshots_and_rewinds_keep_each_layers_bits(void **state) {
    (void)state;
    char path[] = "/tmp/tq_schedule_XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    static const char *const kv = "tq3,first=1:paper:2.5,last=2:q8";
    tq_cache *cache = cache_of(kv, LAYERS), *loaded = cache_of(kv, LAYERS), *other = cache_of("tq3,first=1:f16,last=2:q8", LAYERS);
    append(cache, 0, TOKENS, 0, NULL);
    OK(tq_cache_save(cache, path, &e));
    append(loaded, 7, 50, 0, NULL);
    OK(tq_cache_load(loaded, path, &e));
    FAILS(tq_cache_load(other, path, &e), TQ_INVALID, "codec: want tq3,first=1:f16,last=2:q8, the snapshot has tq3,first=1:paper");
    size_t n = 30 * HEADS * DIM;
    float *a = test_floats(n), *b = test_floats(n);
    for (int round = 0; round < 2; round++) {
        for (int l = 0; l < LAYERS; l += LAYERS - 1) {
            int at = tq_cache_length(cache);
            append(cache, at, 30, l, a), append(loaded, at, 30, l, b);
            assert_memory_equal(a, b, n * sizeof *a);
        }
        OK(tq_cache_rewind(cache, 250, &e)); /* below the window: pages of every size go back to their pools */
        OK(tq_cache_rewind(loaded, 250, &e));
    }
    append(cache, 250, 340, 0, NULL); /* and there are enough of them for a full cache */
    assert_int_equal(tq_cache_length(cache), 590);
    free(a), free(b);
    tq_cache_free(cache), tq_cache_free(loaded), tq_cache_free(other);
    unlink(path);
}

/* A preset is what tq_cache_codec_names makes of its runs: the sizes that issue and README promise, for any number of
 * layers near them; and auto is tq3 where it can be. */
static void presets_have_the_size_of_their_name(void **state) {
    (void)state;
    static const struct {
        const char *kv, *first_key, *first_value, *last_key, *last_value;
        double bits, most; /* of 8 layers, head dimension 128: as measured, and as promised */
    } known[] = {
        {"tq4", "tq3", "tq4", "q8", "tq4", 4.1875, 4.3},
        {"tq3.5", "tq3", "tq4", "tq4", "tq3", 3.6875, 3.75},
        {"tq3", "tq2", "tq3", "tq4", "tq3", 3.1875, 3.1875},
        {"tq2.5", "tq2", "tq2", "tq4", "tq3", 2.6875, 2.75},
        {"tq2", "tq2", "tq2", "tq3", "tq2", 2.28125, 2.3},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        double nominal = strtod(known[i].kv + 2, NULL) + .1875;
        for (int layers = 1; layers <= 40; layers++) {
            tq_cache_params p = params_of(known[i].kv, layers);
            p.head_dim = 128, p.max_tokens = 1;
            tq_cache *cache;
            OK(tq_cache_new(&p, &cache, &e));
            tq_cache_stats stats;
            tq_cache_get_stats(cache, &stats);
            assert_string_equal(cache->kv, known[i].kv);
            if (fabs(stats.bits_per_value - nominal) > .1)
                fail_msg("%s, %d layers: %g bits", known[i].kv, layers, stats.bits_per_value);
            const tq_cache_layer *first = &cache->layers[0], *last = &cache->layers[layers - 1];
            if (layers < 8) { /* too few for a schedule */
                assert_string_equal(tq_codec_name(first->key), known[i].kv);
                assert_string_equal(tq_codec_name(last->value), known[i].kv);
            } else {
                assert_string_equal(tq_codec_name(first->key), known[i].first_key);
                assert_string_equal(tq_codec_name(first->value), known[i].first_value);
                assert_string_equal(tq_codec_name(last->key), known[i].last_key);
                assert_string_equal(tq_codec_name(last->value), known[i].last_value);
            }
            if (layers == 8) {
                assert_true(stats.bits_per_value == known[i].bits);
                assert_true(stats.bits_per_value <= known[i].most);
            }
            tq_cache_free(cache);
        }
    }
    static const struct {
        const char *kv;
        int head_dim, key_bits;
        const char *name;
    } named[] = {{"auto", 64, 0, "tq3"}, {NULL, 80, 0, "tq3"}, {"auto", 72, 0, "f16"}, {"auto", 64, 4, "tq:k=tq4,v=tq3"}};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        tq_cache_params p = params_of(named[i].kv, 8);
        p.head_dim = named[i].head_dim, p.config.key_bits = named[i].key_bits;
        tq_cache *cache;
        OK(tq_cache_new(&p, &cache, &e));
        assert_string_equal(cache->kv, named[i].name);
        tq_cache_free(cache);
    }
}

/* Each layer of a preset does what a cache of its codecs alone does, before and behind a snapshot and a rewind. */
static void a_layer_of_a_preset_is_a_cache_of_its_codecs(void **state) {
    (void)state;
    static const struct {
        const char *kv;
        int layer;
        const char *alone;
    } known[] = {{"tq3", 0, "tq:k=2,v=tcq3"}, {"tq4", 2, "tq:k=tcq3,v=4"}, {"tq3", 5, "tq:k=4,v=3"},     {"tq4", 7, "tq:k=q8,v=tcq4"},
                 {"tq2.5", 4, "tq:k=3,v=2"}, {"tq2", 7, "tq:k=tcq3,v=tq2"}, {"tq3.5", 5, "tq:k=tcq4,v=tcq3"}};
    char path[] = "/tmp/tq_preset_XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    float out[3 * HEADS * DIM], want[3 * HEADS * DIM];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        tq_cache *cache = cache_of(known[i].kv, 8), *loaded = cache_of(known[i].kv, 8), *alone = cache_of(known[i].alone, 1);
        append(cache, 0, TOKENS, -1, NULL), append(alone, 0, TOKENS, -1, NULL);
        OK(tq_cache_save(cache, path, &e));
        OK(tq_cache_load(loaded, path, &e));
        for (int round = 0; round < 2; round++) {
            append(alone, TOKENS, 3, 0, want);
            append(round ? loaded : cache, TOKENS, 3, known[i].layer, out);
            assert_memory_equal(out, want, sizeof out);
            OK(tq_cache_rewind(alone, TOKENS - 50, &e));
            OK(tq_cache_rewind(cache, TOKENS - 50, &e));
            OK(tq_cache_rewind(loaded, TOKENS - 50, &e));
        }
        tq_cache_free(cache), tq_cache_free(loaded), tq_cache_free(alone);
    }
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_grammar_is_what_the_header_says),
        cmocka_unit_test(overrides_are_for_the_layers_between),
        cmocka_unit_test(each_layer_is_that_of_a_cache_of_its_codec),
        cmocka_unit_test(bytes_are_those_of_each_layer),
        cmocka_unit_test(windows_slide_in_every_run),
        cmocka_unit_test(snapshots_and_rewinds_keep_each_layers_bits),
        cmocka_unit_test(presets_have_the_size_of_their_name),
        cmocka_unit_test(a_layer_of_a_preset_is_a_cache_of_its_codecs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
