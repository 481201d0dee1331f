/* test_cache.c: what a cache holds after any sequence of appends, rewinds, saves and loads, and what it costs. */
#define _GNU_SOURCE
#include "testing.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/half.h"
#include "cache/kv_cache.h"
#include "cache/snapshot.h"
#include "codec/page.h"

typedef struct shape {
    const char *kv;
    int layers, heads, kv_heads, dim, max_tokens, buffer, sinks, flush;
} shape;

static tq_cache_params params_of(const shape *s) {
    tq_cache_params p = tq_cache_params_default();
    p.n_layers = s->layers, p.n_heads = s->heads, p.n_kv_heads = s->kv_heads, p.head_dim = s->dim;
    p.max_tokens = s->max_tokens, p.n_threads = 1;
    p.config =
        (tq_cache_config){.kv = s->kv, .buffer_size = s->buffer, .sinks = s->sinks, .flush_batch_size = s->flush};
    return p;
}

static tq_cache *cache_of(const shape *s) {
    tq_cache_params p = params_of(s);
    tq_cache *cache = NULL;
    OK(tq_cache_new(&p, &cache, &e));
    return cache;
}

/* Key, value or query of a token: a function of its position, so that the same token can be appended again. */
static void make_rows(const tq_cache *cache, int layer, int from, int n, int what, float *x) {
    const tq_cache_params *p = &cache->params;
    int width = (what == 2 ? p->n_heads : p->n_kv_heads) * p->head_dim;
    for (int t = 0; t < n; t++) {
        tq_rng rng = {(uint64_t)((from + t) * 64 + layer * 4 + what)};
        for (int i = 0; i < width; i++)
            x[t * width + i] = (float)(tq_rng_uniform(&rng) * 4 - 2) + (what == 0 && i % 16 == 3 ? 20.0f : 0);
    }
}

/* Append tokens from.. to every layer; outputs of the last layer (n, heads, dim) if out. */
static tq_status append(tq_cache *cache, int from, int n, float *out, tq_error *err) {
    const tq_cache_params *p = &cache->params;
    size_t kv = (size_t)(n * p->n_kv_heads * p->head_dim), q_n = (size_t)(n * p->n_heads * p->head_dim);
    float *k = test_floats(kv), *v = test_floats(kv), *q = test_floats(q_n), *own = test_floats(q_n);
    tq_status status = TQ_OK;
    for (int l = 0; l < p->n_layers && status == TQ_OK; l++) {
        make_rows(cache, l, from, n, 0, k);
        make_rows(cache, l, from, n, 1, v);
        make_rows(cache, l, from, n, 2, q);
        status = tq_cache_attend(cache, l, q, k, v, n, own, err);
    }
    if (out) memcpy(out, own, q_n * sizeof *out);
    free(k), free(v), free(q), free(own);
    return status;
}

static void grow(tq_cache *cache, int n, int piece) {
    for (int at = tq_cache_length(cache); n > 0; at += piece, n -= piece) {
        if (piece > n) piece = n;
        OK(append(cache, at, piece, NULL, &e));
    }
}

static tq_cache_stats stats_of(const tq_cache *cache) {
    tq_cache_stats stats;
    tq_cache_get_stats(cache, &stats);
    return stats;
}

/* Every exact row is the f16 of the token that it stands for. */
static void check_exact_rows(const tq_cache *cache) {
    const tq_cache_params *p = &cache->params;
    float *x = test_floats((size_t)(p->n_kv_heads * p->head_dim));
    for (int l = 0; l < p->n_layers; l++) {
        const tq_kv_store *s = &cache->layers[l].store;
        for (int r = 0; r < s->n_sinks + s->n_window; r++) {
            int token = r < s->n_sinks ? r : r + s->n_packed + s->n_forgotten;
            for (int side = 0; side < 2; side++) {
                make_rows(cache, l, token, 1, side, x);
                for (int h = 0; h < p->n_kv_heads; h++)
                    for (int i = 0; i < p->head_dim; i++) {
                        const uint16_t *rows = side ? s->exact_v : s->exact_k;
                        uint16_t half =
                            rows[((size_t)h * (size_t)s->exact_cap + (size_t)r) * (size_t)p->head_dim + (size_t)i];
                        if (half != tq_f32_f16(x[h * p->head_dim + i]))
                            fail_msg("layer %d, exact row %d is not token %d", l, r, token);
                    }
            }
        }
    }
    free(x);
}

/* Every packed row decodes to something near its token, and to nothing near another's. */
static void check_packed_rows(const tq_cache *cache, double bound) {
    const tq_cache_params *p = &cache->params;
    float *x = test_floats((size_t)(p->n_kv_heads * p->head_dim)), y[512];
    for (int l = 0; l < p->n_layers; l++) {
        const tq_kv_store *s = &cache->layers[l].store;
        for (int r = 0; r < s->n_packed; r++)
            for (int side = 0; side < 2; side++) {
                make_rows(cache, l, r + s->n_sinks, 1, side, x);
                for (int h = 0; h < p->n_kv_heads; h++) {
                    const uint8_t *block =
                        s->pages[r / TQ_PAGE_TOKENS] + (size_t)h * s->page_bytes + (side ? s->value_at : 0);
                    tq_block_load(side ? s->value : s->key, side ? TQ_VALUES : TQ_KEYS, block, r % TQ_PAGE_TOKENS, y);
                    double error = test_relative_error(x + h * p->head_dim, y, (size_t)p->head_dim);
                    if (!(error < bound)) fail_msg("layer %d, row %d, side %d: error %g", l, r, side, error);
                }
            }
    }
    free(x);
}

/* ---- when rows are packed
 * --------------------------------------------------------------------------------------------- */

/* By hand: a row is packed when a whole batch has left the window. */
static void the_window_holds_between_buffer_and_a_batch_more(void **state) {
    (void)state;
    static const int buffers[] = {0, 1, 16, 100, 128, 300}, flushes[] = {1, 7, 32, 200}, sinks[] = {0, 4},
                     pieces[] = {1, 3, 50, 513};
    for (int b = 0; b < 6; b++)
        for (int f = 0; f < 4; f++)
            for (int s = 0; s < 2; s++)
                for (int c = 0; c < 4; c++) {
                    if (pieces[c] == 1 && b % 2) continue;
                    shape sh = {"tq3", 1, 1, 1, 16, 700, buffers[b], sinks[s], flushes[f]};
                    tq_cache *cache = cache_of(&sh);
                    int packed = 0, window = 0;
                    for (int at = 0; at < 600;) {
                        int n = at + pieces[c] <= 600 ? pieces[c] : 600 - at;
                        OK(append(cache, at, n, NULL, &e));
                        for (int from = 0; from < n; from += 512) { /* the cache's own chunks */
                            int m = n - from < 512 ? n - from : 512, first = at + from;
                            window += first + m > sinks[s] ? m - (first < sinks[s] ? sinks[s] - first : 0) : 0;
                            while (window - flushes[f] >= buffers[b]) window -= flushes[f], packed += flushes[f];
                        }
                        at += n;
                        const tq_kv_store *store = &cache->layers[0].store;
                        assert_int_equal(store->n_sinks, at < sinks[s] ? at : sinks[s]);
                        assert_int_equal(store->n_packed, packed);
                        assert_int_equal(store->n_window, window);
                        assert_true(window <= buffers[b] + flushes[f] - 1);
                        if (packed > 0) assert_true(window >= buffers[b]);
                        tq_cache_stats stats = stats_of(cache);
                        assert_int_equal(stats.tokens, at);
                        assert_int_equal(stats.packed_tokens, packed);
                        assert_int_equal(stats.exact_tokens, at - packed);
                        assert_int_equal(cache->layers[0].n_pages, (packed + TQ_PAGE_TOKENS - 1) / TQ_PAGE_TOKENS);
                        if (at % 50 == 0 || at == 600) check_exact_rows(cache);
                    }
                    tq_cache_free(cache);
                }
}

/* Row after row on both sides of a page's end, on every layer and head. */
static void rows_stand_where_their_tokens_belong(void **state) {
    (void)state;
    static const char *const kv[] = {"q8", "tq4", "tq:k=tq3,v=f16", "paper-mse:4", "tq:k=f32,v=tq3", "mlx-k4v4"};
    static const double bounds[] = {1e-4, .04, .1, .04, .1, .2}; /* of a single row */
    for (int c = 0; c < 6; c++)
        for (int piece = 1; piece <= 400; piece += 133) {
            shape s = {kv[c], 2, 2, 2, 64, 400, 10, 3, 5};
            tq_cache *cache = cache_of(&s);
            grow(cache, 400, piece);
            assert_int_equal(cache->layers[1].n_pages, (cache->layers[1].store.n_packed + 127) / 128);
            assert_true(cache->layers[1].store.n_packed > 2 * TQ_PAGE_TOKENS);
            check_packed_rows(cache, bounds[c]);
            check_exact_rows(cache);
            tq_cache_free(cache);
        }
}

/* With 128 in the window, the keys of a page are all there when its first rows are packed. */
static void a_page_is_centred_on_the_mean_of_its_keys(void **state) {
    (void)state;
    shape s = {"tq3", 1, 2, 2, 80, 600, 128, 4, 32};
    tq_cache *cache = cache_of(&s);
    grow(cache, 600, 1);
    const tq_kv_store *store = &cache->layers[0].store;
    assert_true(store->n_packed > 3 * TQ_PAGE_TOKENS);
    float *x = test_floats((size_t)(2 * 80));
    for (int page = 0; page < 3; page++)
        for (int h = 0; h < 2; h++) {
            double mean[80] = {0};
            float as_float[80], rotated[80];
            for (int r = 0; r < TQ_PAGE_TOKENS; r++) {
                make_rows(cache, 0, 4 + page * TQ_PAGE_TOKENS + r, 1, 0, x);
                for (int i = 0; i < 80; i++) mean[i] += tq_f16_f32(tq_f32_f16(x[h * 80 + i])) / TQ_PAGE_TOKENS;
            }
            for (int i = 0; i < 80; i++) as_float[i] = (float)mean[i];
            tq_rotate(&store->key->rotation, as_float, rotated);
            const uint16_t *centre = tq_block_centre(store->key, store->pages[page] + (size_t)h * store->page_bytes);
            for (int i = 0; i < 80; i++) /* half a unit of f16, and float sums of 128 */
                if (!(fabs((double)tq_f16_f32(centre[i]) - rotated[i]) <=
                      fabs((double)rotated[i]) * 0x1p-11 * 1.01 + 1e-5))
                    fail_msg("page %d, head %d, %d: %g, mean %g", page, h, i, (double)tq_f16_f32(centre[i]),
                             (double)rotated[i]);
        }
    free(x);
    tq_cache_free(cache);
}

/* Without a window a page begins before its keys are known: it takes over the centre of the page before. */
static void a_page_begun_with_few_keys_is_centred_all_the_same(void **state) {
    (void)state;
    shape s = {"tq3", 1, 1, 1, 64, 600, 0, 0, 1};
    tq_cache *cache = cache_of(&s);
    grow(cache, 600, 1);
    check_packed_rows(cache, .12); /* 3 bits of a key whose offset of 20 in 4 channels would be far more than that */
    tq_cache_free(cache);
}

static void every_value_of_every_option_is_checked(void **state) {
    (void)state;
    shape good = {"tq3", 1, 4, 2, 64, 100, 10, 2, 5};
    tq_cache *cache = (tq_cache *)&good;
    tq_cache_params p = params_of(&good);
#define REFUSED(change, part)                                                                                          \
    do {                                                                                                               \
        p = params_of(&good);                                                                                          \
        change;                                                                                                        \
        FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, part);                                                         \
        assert_ptr_equal(cache, &good);                                                                                \
    } while (0)
    REFUSED(p.n_layers = 0, "got 0, 2, 4");
    REFUSED(p.n_heads = 3, "got 1, 2, 3");
    REFUSED(p.n_kv_heads = 0, "KV heads");
    REFUSED(p.n_heads = -4, "heads");
    REFUSED(p.head_dim = 0, "got 0");
    REFUSED(p.head_dim = 72, "got 72");
    REFUSED(p.head_dim = 1 << 20, "got 1048576");
    REFUSED(p.max_tokens = 0, "got 0");
    REFUSED(p.config.buffer_size = -1, "buffer size: want 0 or more tokens, got -1");
    REFUSED(p.config.sinks = -1, "sinks: want 0 or more tokens, got -1");
    REFUSED(p.config.flush_batch_size = 0, "flush batch size: want 1 or more rows, got 0");
    REFUSED(p.kernels = "mmx", "unknown kernels 'mmx'");
    REFUSED(p.n_threads = -2, "-2");
    REFUSED(p.config.kv = "tq9", "unknown codec 'tq9'");
    REFUSED(p.config.kv = "", "unknown codec ''");
    REFUSED(p.config.kv = "mlx-k5v2", "mlx-k{2,3,4}v{2,4}");
    REFUSED(p.config.kv = "mlx-k3v3", "mlx-k{2,3,4}v{2,4}");
    REFUSED(p.config.kv = "mlx-k3v2x", "mlx-k{2,3,4}v{2,4}");
    REFUSED(p.config.kv = "tq:k=tq3", "tq:k=CODEC,v=CODEC");
    REFUSED(p.config.kv = "tq:v=tq3,k=tq3", "tq:k=CODEC,v=CODEC");
    REFUSED(p.config.kv = "tq:k=tq3,v=nothing", "nothing'");
    REFUSED(p.config.kv = "tq:k=,v=tq3", "unknown codec");
    REFUSED(p.config.kv = "window:", "window:TOKENS");
    REFUSED(p.config.kv = "window:-3", "window:TOKENS");
    REFUSED(p.config.kv = "window:3x", "window:TOKENS");
    REFUSED(p.config.kv = "tq:k=tq3,v=a name that is much too long for any codec and then some more of it",
            "want tq:k=CODEC");
    REFUSED(p.config.kv = "a name that is much too long for any codec and then some more of it", "unknown codec");
    REFUSED(p.config.key_bits = 5, "key bits: codec 'tq3' has 2, 3, 4 or 8 bits, got 5");
    REFUSED(p.config.value_bits = 1, "value bits");
    REFUSED((p.config.kv = "f16", p.config.key_bits = 4), "no choice of bits");
    REFUSED((p.config.kv = "f16", p.config.value_bits = 4), "no choice of bits");
    REFUSED((p.config.kv = "paper:2.5", p.config.key_bits = 3), "no choice of bits");
    REFUSED((p.config.kv = "q4-group", p.config.value_bits = 8), "no choice of bits");
    REFUSED((p.config.kv = "q4-group", p.config.value_group_size = 48), "divides 64, got 48");
    REFUSED((p.config.kv = "mlx-k3v2", p.config.value_bits = 3), "want 2 or 4 bits, got 3");
    REFUSED((p.config.kv = "mlx-k3v2", p.config.key_bits = 7), "want 2 to 4 bits, got 7");
    REFUSED(p.config.value_group_size = 32, "no groups");
    REFUSED((p.config.kv = "mlx-k3v2", p.config.value_group_size = 48), "divides 64, got 48");
    REFUSED((p.config.kv = "mlx-k3v2", p.config.value_group_size = -32), "");
#undef REFUSED
    tq_cache_free(NULL);
}

static void overrides_choose_the_codec_of_their_side(void **state) {
    (void)state;
    static const struct {
        const char *kv;
        int key_bits, value_bits, group;
        const char *key, *value, *name;
    } known[] = {
        {"tq3", 0, 0, 0, "tq3", "tq3", "tq3"},
        {"tq3", 4, 0, 0, "tq4", "tq3", "tq:k=tq4,v=tq3"},
        {"tq3", 8, 2, 0, "q8", "tq2", "tq:k=q8,v=tq2"},
        {"tq3", 4, 4, 0, "tq4", "tq4", "tq4"},
        {"q8", 0, 3, 0, "q8", "tq3", "tq:k=q8,v=tq3"},
        {"tcq3", 4, 0, 0, "tcq4", "tcq3", "tq:k=tcq4,v=tcq3"},
        {"lm3", 0, 2, 0, "lm3", "lm2", "tq:k=lm3,v=lm2"},
        {"tq2.5", 4, 0, 0, "tq4", "tq2.5", "tq:k=tq4,v=tq2.5"},
        {"tq:k=3.5,v=2.5", 0, 0, 0, "tq3.5", "tq2.5", "tq:k=3.5,v=2.5"},
        {"tq:k=4,v=vq3", 0, 0, 0, "tq4", "vq3", "tq:k=4,v=vq3"},
        {"mlx-k3v2", 0, 0, 0, "paper-prod:3", "minmax:2:32", "mlx-k3v2"},
        {"mlx-k4v4", 2, 2, 64, "paper-prod:2", "minmax:2:64", "tq:k=paper-prod:2,v=minmax:2:64"},
        {"paper-mse:3", 5, 0, 0, "paper-mse:5", "paper-mse:3", "tq:k=paper-mse:5,v=paper-mse:3"},
        {"tq:k=f16,v=minmax:4", 0, 2, 16, "f16", "minmax:2:16", "tq:k=f16,v=minmax:2:16"},
        {"window:100", 0, 0, 0, "f16", "f16", "window:100"},
        {"uniform:4", 0, 3, 0, "uniform:4", "uniform:3", "tq:k=uniform:4,v=uniform:3"},
        {"paper-prod-orth:3", 4, 0, 0, "paper-prod-orth:4", "paper-prod-orth:3",
         "tq:k=paper-prod-orth:4,v=paper-prod-orth:3"},
        {"q4-group", 0, 0, 32, "q4-group:32", "q4-group:32", "q4-group:32"},
        {"tq:k=paper:2.5,v=q8-group", 0, 0, 32, "paper:2.5", "q8-group:32", "tq:k=paper:2.5,v=q8-group:32"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        tq_cache_config config = tq_cache_config_default();
        config.kv = known[i].kv, config.key_bits = known[i].key_bits, config.value_bits = known[i].value_bits;
        config.value_group_size = known[i].group;
        char key[64], value[64], name[64];
        OK(tq_cache_codec_names(&config, key, value, name, &e));
        assert_string_equal(key, known[i].key);
        assert_string_equal(value, known[i].value);
        assert_string_equal(name, known[i].name);
    }
}

/* ---- full, rewind
 * ----------------------------------------------------------------------------------------------------- */

static void a_full_cache_says_so_and_stays_as_it_was(void **state) {
    (void)state;
    shape s = {"tq3", 2, 2, 1, 32, 200, 20, 4, 8};
    tq_cache *cache = cache_of(&s), *other = cache_of(&s);
    grow(cache, 190, 19);
    grow(other, 190, 19);
    FAILS(append(cache, 190, 11, NULL, &e), TQ_FULL, "190 tokens and 11 more do not fit into 200");
    float a[10 * 64] = {0}, b[10 * 64];
    FAILS(tq_cache_attend(cache, 0, a, a, a, INT32_MAX, b, &e), TQ_FULL, "190 tokens and 2147483647 more");
    assert_int_equal(tq_cache_length(cache), 190);
    OK(append(cache, 190, 10, a, &e));
    OK(append(other, 190, 10, b, &e));
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(tq_cache_length(cache), 200);
    FAILS(append(cache, 200, 1, NULL, &e), TQ_FULL, "200 tokens and 1 more do not fit into 200");
    FAILS(tq_cache_attend(cache, 2, a, a, a, 1, b, &e), TQ_INVALID, "layer from 0 to 1, got 2");
    FAILS(tq_cache_attend(cache, -1, a, a, a, 1, b, &e), TQ_INVALID, "got -1");
    FAILS(tq_cache_attend(cache, 0, a, a, a, -1, b, &e), TQ_INVALID, "got -1");
    OK(tq_cache_attend(cache, 0, a, a, a, 0, b, &e));
    tq_cache_free(cache), tq_cache_free(other);
}

/* Tokens still in the window: forgetting them and appending them again is as if nothing had happened. */
static void a_rewind_within_the_window_is_exact(void **state) {
    (void)state;
    static const char *const kv[] = {"tq3", "f16", "q8", "mlx-k3v2", "tq:k=tq2,v=f16"};
    for (int c = 0; c < 5; c++) {
        shape s = {kv[c], 2, 2, 1, 32, 600, 64, 4, 16};
        tq_cache *cache = cache_of(&s);
        grow(cache, 400, 37);
        int window = cache->layers[0].store.n_window;
        if (c != 1) assert_true(window >= 64 && cache->layers[0].store.n_packed > 300);
        float *before = test_floats(20 * 64), *after = test_floats(20 * 64);
        for (int back = 1; back <= (c == 1 ? 200 : 40); back += 13) {
            int packed = cache->layers[0].store.n_packed;
            OK(append(cache, 400, 1, before, &e));
            OK(tq_cache_rewind(cache, 400, &e));
            OK(tq_cache_rewind(cache, 400 - back, &e));
            assert_int_equal(tq_cache_length(cache), 400 - back);
            if (c != 1) assert_int_equal(cache->layers[0].store.n_packed, packed);
            grow(cache, back, 1);
            OK(append(cache, 400, 1, after, &e));
            OK(tq_cache_rewind(cache, 400, &e));
            assert_memory_equal(before, after, 64 * sizeof *before);
            check_exact_rows(cache);
        }
        free(before), free(after);
        tq_cache_free(cache);
    }
}

static void a_rewind_below_the_window_drops_whole_rows(void **state) {
    (void)state;
    static const int lengths[] = {399, 300, 260, 259, 133, 132, 131, 5, 4, 3, 1, 0};
    shape s = {"tq4", 2, 2, 2, 64, 600, 16, 4, 8};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        tq_cache *cache = cache_of(&s);
        grow(cache, 400, 50);
        size_t most = stats_of(cache).bytes;
        OK(tq_cache_rewind(cache, lengths[i], &e));
        assert_int_equal(tq_cache_length(cache), lengths[i]);
        const tq_kv_store *store = &cache->layers[1].store;
        assert_int_equal(store->n_sinks, lengths[i] < 4 ? lengths[i] : 4);
        if (lengths[i] < 384) { /* below the window: nothing but packed rows */
            assert_int_equal(store->n_window, 0);
            assert_int_equal(store->n_packed, lengths[i] - store->n_sinks);
        }
        check_exact_rows(cache);
        check_packed_rows(cache, .04);
        if (lengths[i] < 260) assert_true(stats_of(cache).bytes < most); /* pages go back */
        grow(cache, 100, 7);                                             /* and it goes on */
        assert_int_equal(tq_cache_length(cache), lengths[i] + 100);
        check_exact_rows(cache);
        check_packed_rows(cache, .04);
        tq_cache_free(cache);
    }
}

static void an_impossible_rewind_is_refused(void **state) {
    (void)state;
    shape s = {"tq3", 2, 2, 1, 32, 100, 20, 4, 8};
    tq_cache *cache = cache_of(&s);
    grow(cache, 50, 50);
    FAILS(tq_cache_rewind(cache, -1, &e), TQ_INVALID, "want 0 to 50 tokens, got -1");
    FAILS(tq_cache_rewind(cache, 51, &e), TQ_INVALID, "want 0 to 50 tokens, got 51");
    assert_int_equal(tq_cache_length(cache), 50);
    OK(tq_cache_rewind(cache, 50, &e));
    /* One layer ahead of the other, as after a failure between them: a rewind evens them out. */
    float x[64] = {0}, out[64];
    OK(tq_cache_attend(cache, 0, x, x, x, 1, out, &e));
    assert_int_equal(tq_cache_length(cache), 50);
    OK(tq_cache_rewind(cache, 50, &e));
    assert_int_equal(cache->layers[0].store.n_window, cache->layers[1].store.n_window);
    tq_cache_free(cache);
}

static void pages_are_used_again_and_never_run_out(void **state) {
    (void)state;
    shape s = {"tq3", 3, 2, 1, 32, 500, 0, 0, 1};
    tq_cache *cache = cache_of(&s);
    tq_rng rng = {1};
    int length = 0;
    for (int i = 0; i < 60; i++) {
        int n = test_below(&rng, 501 - length);
        grow(cache, n, 100);
        length += n;
        int pages = 0;
        for (int l = 0; l < 3; l++)
            for (int p = 0; p < cache->layers[l].n_pages; p++, pages++)
                for (int m = 0; m < l; m++) /* no page belongs to two layers */
                    for (int o = 0; o < cache->layers[m].n_pages; o++)
                        assert_ptr_not_equal(cache->layers[l].pages[p], cache->layers[m].pages[o]);
        assert_int_equal(pages, 3 * ((length + TQ_PAGE_TOKENS - 1) / TQ_PAGE_TOKENS));
        assert_int_equal(tq_page_pool_used(cache->layers[0].pool), pages);
        length = test_below(&rng, length + 1);
        OK(tq_cache_rewind(cache, length, &e));
    }
    tq_cache_free(cache);
}

/* window:N really forgets: the same as if the old tokens had never been. */
static void a_window_forgets_what_leaves_it(void **state) {
    (void)state;
    shape s = {"window:32", 1, 2, 1, 32, 400, 999, 2, 1};
    tq_cache *cache = cache_of(&s);
    grow(cache, 300, 10);
    tq_cache_stats stats = stats_of(cache);
    assert_int_equal(stats.tokens, 300);
    assert_int_equal(stats.exact_tokens, 34);
    assert_int_equal(stats.forgotten_tokens, 266);
    assert_int_equal(stats.packed_tokens, 0);
    check_exact_rows(cache);
    FAILS(tq_cache_rewind(cache, 200, &e), TQ_INVALID, "forgotten");
    assert_int_equal(tq_cache_length(cache), 300);
    OK(tq_cache_rewind(cache, 280, &e));
    OK(tq_cache_rewind(cache, 0, &e));
    assert_int_equal(tq_cache_length(cache), 0);
    tq_cache_free(cache);
}

/* ---- bytes ---------------------------------------------------------------------------------------------------------
 */

/* 102 bytes a token and KV head: 2 * (48 of codes + 2 of scale), and 256 of centre a page of 128. */
static void tq3_costs_102_bytes_a_token_and_head(void **state) {
    (void)state;
    static const struct {
        const char *kv;
        int dim;
        double bytes;
    } known[] = {{"tq3", 128, 102}, {"tq2", 128, 70},   {"tq4", 128, 134}, {"q8", 128, 262},
                 {"f16", 128, 512}, {"f32", 128, 1024}, {"tq3", 64, 53},   {"tq3", 256, 200}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        shape s = {known[i].kv, 2, 2, 2, known[i].dim, 1024, 0, 0, 1};
        tq_cache *cache = cache_of(&s);
        grow(cache, 1024, 512);
        tq_cache_stats stats = stats_of(cache);
        double bytes = stats.bits_per_value / 8 * 2 * known[i].dim;
        if (fabs(bytes - known[i].bytes) > 1e-9) fail_msg("%s, d %d: %g bytes", known[i].kv, known[i].dim, bytes);
        /* as allocated: whole pages, nothing else but the rotation's signs */
        double tables = 2.0 * (strchr("tq", known[i].kv[0]) ? known[i].dim * sizeof(float) : 0);
        assert_true(fabs((double)stats.bytes - tables - known[i].bytes * 2 * 2 * 1024) < 1);
        assert_int_equal(stats.f16_bytes, 2 * 2 * 1024 * 4 * known[i].dim);
        tq_cache_free(cache);
    }
}

/* Pages that the system really gave to this cache, and the memory behind its other tables. */
static size_t resident_bytes(const tq_cache *cache) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (cache->layers[0].pool->reserved_bytes + page - 1) / page, resident = 0;
    unsigned char *in_core = test_alloc(n);
    assert_int_equal(mincore(cache->layers[0].pool->memory, cache->layers[0].pool->reserved_bytes, in_core), 0);
    for (size_t i = 0; i < n; i++) resident += (in_core[i] & 1) * page;
    free(in_core);
    return resident;
}

static void a_cache_of_16k_tokens_is_4_8_times_smaller_than_f16(void **state) {
    (void)state;
    shape s = {"tq3", 1, 1, 1, 128, 32768, 128, 4, 32};
    tq_cache *cache = cache_of(&s);
    grow(cache, 16384, 512);
    tq_cache_stats stats = stats_of(cache);
    double ratio = (double)stats.f16_bytes / (double)stats.bytes;
    size_t resident = resident_bytes(cache);
    print_message("16,384 tokens: %zu bytes, f16 %zu: %.3f times smaller; resident pages %zu\n", stats.bytes,
                  stats.f16_bytes, ratio, resident);
    assert_true(ratio >= 4.8);
    assert_true(stats.packed_tokens > 16384 * 9 / 10);
    /* from the parts */
    size_t pages = (size_t)cache->layers[0].n_pages * cache->layers[0].store.page_bytes;
    size_t rows = 2 * (4 + 128 + 31) * 128 * sizeof(uint16_t), signs = 2 * 128 * sizeof(float);
    assert_int_equal(stats.bytes, pages + rows + signs);
    assert_int_equal(cache->layers[0].n_pages, (stats.packed_tokens + 127) / 128);
    /* and from the system: no more than the pages in use, but for a huge page begun (2 MB) */
    assert_true(resident >= pages && resident <= pages + (2u << 20));
    tq_cache_free(cache);
}

/* ---- snapshots
 * ------------------------------------------------------------------------------------------------------- */

static char path[64];

static int make_path(void **state) {
    (void)state;
    /* In memory where there is such a place: every save is synced, and a busy disk takes a second for that. */
    snprintf(path, sizeof path, "%s/test_cache.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state) {
    (void)state;
    return unlink(path);
}

static void expect_same_continuation(tq_cache *a, tq_cache *b) {
    int n = a->params.n_heads * a->params.head_dim, at = tq_cache_length(a);
    assert_int_equal(tq_cache_length(b), at);
    float *x = test_floats((size_t)(5 * n)), *y = test_floats((size_t)(5 * n));
    for (int round = 0; round < 40; round++, at += 5) { /* long enough to pack what was in the window */
        OK(append(a, at, 5, x, &e));
        OK(append(b, at, 5, y, &e));
        if (memcmp(x, y, (size_t)(5 * n) * sizeof *x) != 0)
            fail_msg("%s differs after %d more tokens", a->kv, 5 * round);
    }
    free(x), free(y);
}

static void a_saved_cache_goes_on_bit_for_bit(void **state) {
    (void)state;
    static const char *const kv[] = {"tq3",      "q8", "f16", "f32", "mlx-k3v2", "paper-mse:2", "tq:k=tq4,v=f16",
                                     "window:20", "paper:2.5", "uniform:3", "tq:k=paper-prod-orth:3,v=q4-group:16"};
    static const int lengths[] = {0, 1, 3, 5, 40, 300};
    for (int c = 0; c < 11; c++)
        for (int l = 0; l < 6; l++) {
            shape s = {kv[c], 2, 4, 2, 32, 600, 16, 4, 8};
            tq_cache *cache = cache_of(&s), *loaded = cache_of(&s);
            grow(cache, lengths[l], 33);
            OK(tq_cache_save(cache, path, &e));
            grow(loaded, 77, 20); /* what it held is replaced */
            OK(tq_cache_load(loaded, path, &e));
            expect_same_continuation(cache, loaded);
            tq_cache_free(cache), tq_cache_free(loaded);
        }
}

/* A loaded cache may be larger; not smaller than what is in the file. */
static void a_snapshot_needs_room(void **state) {
    (void)state;
    shape s = {"tq3", 2, 2, 1, 32, 600, 16, 4, 8}, small = s, large = s;
    small.max_tokens = 299, large.max_tokens = 5000;
    tq_cache *cache = cache_of(&s), *too_small = cache_of(&small), *larger = cache_of(&large);
    grow(cache, 300, 50);
    OK(tq_cache_save(cache, path, &e));
    OK(tq_cache_load(larger, path, &e));
    expect_same_continuation(cache, larger);
    FAILS(tq_cache_load(too_small, path, &e), TQ_FULL, "holds 300 tokens, the cache has room for 299");
    assert_int_equal(tq_cache_length(too_small), 0);
    tq_cache_free(cache), tq_cache_free(too_small), tq_cache_free(larger);
}

static void what_differs_is_named(void **state) {
    (void)state;
    shape s = {"tq3", 2, 2, 1, 32, 600, 16, 4, 8};
    tq_cache *cache = cache_of(&s);
    grow(cache, 300, 50);
    OK(tq_cache_save(cache, path, &e));
    tq_cache_free(cache);
    struct {
        shape s;
        const char *text;
    } others[] = {
        {{"tq4", 2, 2, 1, 32, 600, 16, 4, 8}, "codec: want tq4, the snapshot has tq3"},
        {{"tq3", 3, 2, 1, 32, 600, 16, 4, 8}, "layers: want 3, the snapshot has 2"},
        {{"tq3", 2, 2, 2, 32, 600, 16, 4, 8}, "KV heads: want 2, the snapshot has 1"},
        {{"tq3", 2, 2, 1, 64, 600, 16, 4, 8}, "head dimension: want 64, the snapshot has 32"},
        {{"tq3", 2, 2, 1, 32, 600, 17, 4, 8}, "buffer size: want 17, the snapshot has 16"},
        {{"tq3", 2, 2, 1, 32, 600, 16, 3, 8}, "sinks: want 3, the snapshot has 4"},
        {{"tq3", 2, 2, 1, 32, 600, 16, 4, 9}, "flush batch size: want 9, the snapshot has 8"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        cache = cache_of(&others[i].s);
        grow(cache, 20, 20);
        FAILS(tq_cache_load(cache, path, &e), TQ_INVALID, others[i].text);
        assert_int_equal(tq_cache_length(cache), 0); /* documented: empty after a failure */
        grow(cache, 20, 20);                         /* and usable */
        check_exact_rows(cache);
        tq_cache_free(cache);
    }
    cache = cache_of(&s);
    FAILS(tq_cache_load(cache, "/tmp/no such snapshot", &e), TQ_NOT_FOUND, "no such snapshot");
    FAILS(tq_cache_load(cache, "/tmp", &e), TQ_FORMAT, "/tmp");
    FAILS(tq_cache_save(cache, "/tmp/no such directory/x", &e), TQ_IO, "no such directory");
    tq_cache_free(cache);
}

static tq_status read_bytes(tq_cache *cache, uint8_t *data, size_t n, tq_error *err) {
    FILE *file = fmemopen(data, n, "rb");
    assert_non_null(file);
    tq_status status = tq_snapshot_read(cache, file, "damaged", err);
    fclose(file);
    return status;
}

static void expect_refusal(tq_cache *cache, uint8_t *data, size_t n, const char *what, size_t at) {
    tq_error err = {0};
    tq_status status = read_bytes(cache, data, n, &err);
    if (status == TQ_OK || err.code != status || !strstr(err.text, "damaged"))
        fail_msg("%s %zu: status %d, \"%s\"", what, at, status, err.text);
    assert_int_equal(tq_cache_length(cache), 0);
    assert_int_equal(tq_page_pool_used(cache->layers[0].pool), 0);
}

static void every_damage_to_a_snapshot_is_found(void **state) {
    (void)state;
    shape s = {"tq2", 2, 2, 1, 16, 200, 4, 2, 2};
    tq_cache *cache = cache_of(&s);
    grow(cache, 140, 20); /* two pages a layer */
    OK(tq_cache_save(cache, path, &e));
    size_t n = 0;
    uint8_t *data = test_read(path, &n);
    OK(read_bytes(cache, data, n, &e)); /* undamaged, it is read */
    assert_int_equal(tq_cache_length(cache), 140);
    print_message("%zu bytes, each cut off and each flipped\n", n);
    for (size_t cut = 1; cut < n; cut++) expect_refusal(cache, data, cut, "cut at", cut);
    for (size_t at = 0; at < n; at++) {
        uint8_t mask = (uint8_t)(1u << at % 8);
        data[at] ^= mask;
        expect_refusal(cache, data, n, "flipped", at);
        data[at] ^= mask;
    }
    OK(read_bytes(cache, data, n, &e)); /* and after all that the cache still works */
    check_exact_rows(cache);
    grow(cache, 60, 7);
    assert_int_equal(tq_cache_length(cache), 200);
    free(data);
    tq_cache_free(cache);
}

static void a_failed_save_leaves_the_old_snapshot(void **state) {
    (void)state;
    shape s = {"tq3", 1, 1, 1, 16, 50, 4, 2, 2};
    tq_cache *cache = cache_of(&s);
    grow(cache, 20, 20);
    FILE *full = fopen("/dev/full", "wb");
    if (!full) skip();
    setvbuf(full, NULL, _IONBF, 0);
    FAILS(tq_snapshot_write(cache, full, "full disk", &e), TQ_IO, "full disk: ");
    fclose(full);
    tq_cache_free(cache);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_window_holds_between_buffer_and_a_batch_more),
        cmocka_unit_test(rows_stand_where_their_tokens_belong),
        cmocka_unit_test(a_page_is_centred_on_the_mean_of_its_keys),
        cmocka_unit_test(a_page_begun_with_few_keys_is_centred_all_the_same),
        cmocka_unit_test(every_value_of_every_option_is_checked),
        cmocka_unit_test(overrides_choose_the_codec_of_their_side),
        cmocka_unit_test(a_full_cache_says_so_and_stays_as_it_was),
        cmocka_unit_test(a_rewind_within_the_window_is_exact),
        cmocka_unit_test(a_rewind_below_the_window_drops_whole_rows),
        cmocka_unit_test(an_impossible_rewind_is_refused),
        cmocka_unit_test(pages_are_used_again_and_never_run_out),
        cmocka_unit_test(a_window_forgets_what_leaves_it),
        cmocka_unit_test(tq3_costs_102_bytes_a_token_and_head),
        cmocka_unit_test(a_cache_of_16k_tokens_is_4_8_times_smaller_than_f16),
        cmocka_unit_test(a_saved_cache_goes_on_bit_for_bit),
        cmocka_unit_test(a_snapshot_needs_room),
        cmocka_unit_test(what_differs_is_named),
        cmocka_unit_test(every_damage_to_a_snapshot_is_found),
        cmocka_unit_test(a_failed_save_leaves_the_old_snapshot),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
