/* test_attention_kinds.c: sliding windows, soft caps and learned sinks, against plain loops in double over the rows that
 * the cache says it holds; and that a sliding layer gives back what it no longer sees. */
#include "testing.h"

#include <unistd.h>

#include "backend/cpu/kernels.h"
#include "base/half.h"
#include "cache/kv_cache.h"
#include "codec/page.h"

enum { DIM = 64, KV_HEADS = 2, GROUP = 3, HEADS = KV_HEADS * GROUP };

typedef struct kind {
    const char *kv;
    int window, buffer;
    float cap;
    bool sinks;
} kind;

typedef struct tokens {
    float *q, *k, *v, *sink_logits;
    int n;
} tokens;

/* Keys have a large common part, if their pages are to have centres. */
static tokens tokens_new(int n, bool common) {
    tokens t = {test_floats((size_t)n * HEADS * DIM), test_floats((size_t)n * KV_HEADS * DIM),
                test_floats((size_t)n * KV_HEADS * DIM), test_floats(HEADS), n};
    tq_rng rng = {7};
    for (int i = 0; i < n * HEADS * DIM; i++) t.q[i] = (float)test_normal(&rng);
    for (int i = 0; i < n * KV_HEADS * DIM; i++) {
        t.k[i] = (float)test_normal(&rng) + (common && i % DIM < 3 ? 20 : 0);
        t.v[i] = (float)test_normal(&rng);
    }
    for (int h = 0; h < HEADS; h++) t.sink_logits[h] = (float)test_normal(&rng) * 3;
    return t;
}

static void tokens_free(tokens *t) { free(t->q), free(t->k), free(t->v), free(t->sink_logits); }

static tq_cache *cache_new(const kind *k, const tokens *t, const char *kernels, int threads, bool bf16) {
    tq_cache_params p = tq_cache_params_default();
    p.n_layers = 1, p.n_heads = HEADS, p.n_kv_heads = KV_HEADS, p.head_dim = DIM, p.max_tokens = t->n;
    p.config.kv = k->kv, p.config.buffer_size = k->buffer, p.config.flush_batch_size = 8, p.config.sinks = 4;
    p.softcap = k->cap, p.windows = &k->window, p.sink_logits = k->sinks ? t->sink_logits : NULL;
    p.kernels = kernels, p.n_threads = threads;
    tq_cache *cache = NULL;
    if (!bf16) {
        OK(tq_cache_new(&p, &cache, &e));
        return cache;
    }
    tq_backend *backend;
    OK(tq_cpu_backend_new(threads, kernels, true, DIM, &backend, &e));
    OK(tq_cache_new_on(backend, &p, 256, &cache, &e));
    cache->owns_backend = true;
    return cache;
}

/* Row `pos` as the store holds it; false: it does not. */
static bool stored_row(const tq_kv_store *s, tq_side side, int head, int pos, float *x) {
    int at = pos - s->n_sinks - s->n_forgotten, exact = -1;
    if (pos < s->n_sinks) exact = pos;
    else if (at >= s->n_packed) exact = s->n_sinks + at - s->n_packed;
    else if (at < 0) return false;
    if (exact >= 0) {
        const uint16_t *row = (side == TQ_KEYS ? s->exact_k : s->exact_v) +
                              ((size_t)head * (size_t)s->exact_cap + (size_t)exact) * DIM;
        for (int i = 0; i < DIM; i++) x[i] = tq_f16_f32(row[i]);
        return true;
    }
    const uint8_t *page = s->pages[at / TQ_PAGE_TOKENS] + (size_t)head * s->page_bytes;
    tq_block_load(side == TQ_KEYS ? s->key : s->value, side, page + (side == TQ_VALUES ? s->value_at : 0),
                  at % TQ_PAGE_TOKENS, x);
    return true;
}

/* What token `t` of a chunk that begins at `first` must get, from the store as it was before the chunk. */
static void reference(const kind *kd, const tq_kv_store *s, const tokens *t, int first, int i, int head, double *out) {
    int kv_head = head / GROUP, pos = first + i, from = kd->window ? pos - kd->window + 1 : 0;
    const float *q = t->q + ((size_t)pos * HEADS + (size_t)head) * DIM;
    double sum = kd->sinks ? exp((double)t->sink_logits[head]) : 0, acc[DIM] = {0};
    for (int r = from < 0 ? 0 : from; r <= pos; r++) {
        float k[DIM], v[DIM];
        size_t row = ((size_t)r * KV_HEADS + (size_t)kv_head) * DIM;
        memcpy(k, t->k + row, sizeof k), memcpy(v, t->v + row, sizeof v);
        if (r < first && (!stored_row(s, TQ_KEYS, kv_head, r, k) || !stored_row(s, TQ_VALUES, kv_head, r, v)))
            fail_msg("token %d sees token %d, which is not there", pos, r);
        double score = 0;
        for (int d = 0; d < DIM; d++) score += (double)q[d] * k[d];
        score /= 8;
        if (kd->cap > 0) score = kd->cap * tanh(score / kd->cap);
        double w = exp(score);
        sum += w;
        for (int d = 0; d < DIM; d++) acc[d] += w * v[d];
    }
    for (int d = 0; d < DIM; d++) out[d] = acc[d] / sum;
}

/* All tokens in chunks; the worst |difference| / |reference|. */
static double run(const kind *kd, const tokens *t, const char *kernels, int threads, bool bf16, int chunk, int *packed) {
    tq_cache *cache = cache_new(kd, t, kernels, threads, bf16);
    const tq_kv_store *s = &cache->layers[0].store;
    float *out = test_floats((size_t)chunk * HEADS * DIM);
    double worst = 0;
    *packed = 0;
    for (int first = 0; first < t->n; first += chunk) {
        int n = t->n - first < chunk ? t->n - first : chunk;
        double *want = test_alloc((size_t)n * HEADS * DIM * sizeof *want);
        bool check = first + chunk >= t->n || first % 5 == 0; /* not each of a thousand single tokens */
        for (int i = 0; check && i < n; i++)
            for (int h = 0; h < HEADS; h++)
                reference(kd, s, t, first, i, h, want + ((size_t)i * HEADS + (size_t)h) * DIM);
        OK(tq_cache_attend(cache, 0, t->q + (size_t)first * HEADS * DIM, t->k + (size_t)first * KV_HEADS * DIM,
                           t->v + (size_t)first * KV_HEADS * DIM, n, out, &e));
        double differs = 0, size = 0;
        for (int i = 0; check && i < n * HEADS * DIM; i++) {
            differs += (out[i] - want[i]) * (out[i] - want[i]);
            size += want[i] * want[i];
        }
        if (check && !(sqrt(differs / size) <= worst)) worst = sqrt(differs / size);
        free(want);
        if (s->n_packed > *packed) *packed = s->n_packed;
    }
    assert_int_equal(tq_cache_length(cache), t->n);
    free(out);
    tq_cache_free(cache);
    return worst;
}

/* Bounds as in test_attention.c: 16-bit queries and weights; caps and sinks add nothing to them.  In bf16, where there is that, 8 bits, but
 * for scores with a cap, which are floats as ever. */
static void windows_caps_and_sinks_are_exact(void **state) {
    (void)state;
    static const kind kinds[] = {
        {"f32", 24, 16, 0, false},  {"tq4", 24, 16, 0, false},   {"tq4", 24, 0, 0, false}, {"tq4", 100, 16, 0, false},
        {"tq3", 200, 16, 0, false}, {"q8", 1, 0, 0, false},      {"tq4", 0, 16, 20, false}, {"tq4", 0, 16, 0, true},
        {"f16", 130, 0, 30, true},  {"tq2", 150, 32, 50, true},  {"tq4", 5000, 16, 50, true},
        {"mlx-k3v2", 150, 32, 50, true},
    };
    tokens with = tokens_new(TESTING_ASAN ? 300 : 500, true), without = tokens_new(with.n, false);
    double worst = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (const tq_kernels *const *k = tq_kernels_all; *k; k++) {
            if (!(*k)->runs_here()) continue;
            bool has_bf16 = (*k)->bf16 && (*k)->bf16->runs_here() && (*k)->bf16->attends;
            static const int chunks[] = {1, 37, 256};
            for (int c = 0; c < 3; c++) {
                if (has_bf16 && chunks[c] > 16) {
                    int n;
                    double d = run(&kinds[i], c == 1 ? &without : &with, (*k)->name, 1, true, chunks[c], &n);
                    if (kinds[i].cap > 0 ? !(d < 1e-4) : !(d > 2e-4 && d < 5e-3))
                        fail_msg("%s, window %d, cap %g, sinks %d, %s in bf16, chunks of %d: off by %g", kinds[i].kv, kinds[i].window,
                                 (double)kinds[i].cap, kinds[i].sinks, (*k)->name, chunks[c], d);
                }
                int packed;
                double d = run(&kinds[i], c == 1 ? &without : &with, (*k)->name, 1 + c % 2, false, chunks[c], &packed);
                if (!(d < 1e-4))
                    fail_msg("%s, window %d, cap %g, sinks %d, %s, chunks of %d: off by %g", kinds[i].kv, kinds[i].window,
                             (double)kinds[i].cap, kinds[i].sinks, (*k)->name, chunks[c], d);
                if (kinds[i].window == 0 || kinds[i].window > kinds[i].buffer + 100) assert_true(packed > 50);
                worst = fmax(worst, d);
            }
        }
    tokens_free(&with), tokens_free(&without);
    print_message("   within %.1e\n", worst);
}

/* A cache with a small window stays small, whatever it has seen; and goes back as far as it says. */
static void a_sliding_layer_keeps_its_window_only(void **state) {
    (void)state;
    tokens t = tokens_new(3000, true);
    kind full = {"tq4", 0, 16, 0, false}, sliding = {"tq4", 200, 16, 0, false};
    tq_cache *all = cache_new(&full, &t, NULL, 1, false), *some = cache_new(&sliding, &t, NULL, 1, false);
    float *out = test_floats((size_t)3000 * HEADS * DIM);
    OK(tq_cache_attend(all, 0, t.q, t.k, t.v, 3000, out, &e));
    OK(tq_cache_attend(some, 0, t.q, t.k, t.v, 2900, out, &e));
    for (int i = 2900; i < 3000; i++)
        OK(tq_cache_attend(some, 0, t.q + (size_t)i * HEADS * DIM, t.k + (size_t)i * KV_HEADS * DIM,
                           t.v + (size_t)i * KV_HEADS * DIM, 1, out, &e));
    assert_int_equal(tq_cache_length(some), 3000);
    tq_cache_stats a, s;
    tq_cache_get_stats(all, &a);
    tq_cache_get_stats(some, &s);
    assert_int_equal(a.forgotten_tokens, 0);
    assert_true(s.packed_tokens >= 180 && s.packed_tokens < 200 + 2 * 128 + 128);
    assert_int_equal(s.packed_tokens + s.exact_tokens + s.forgotten_tokens, 3000);
    assert_true(some->layers[0].n_pages <= 5 && s.bytes * 4 < a.bytes);
    FAILS(tq_cache_rewind(some, 2000, &e), TQ_INVALID, "keeps a window of 200 tokens");
    assert_int_equal(tq_cache_length(some), 3000);
    OK(tq_cache_rewind(some, 3000 - TQ_PAGE_TOKENS, &e));
    assert_int_equal(tq_cache_length(some), 3000 - TQ_PAGE_TOKENS);
    OK(tq_cache_rewind(some, 0, &e));
    assert_int_equal(some->layers[0].n_pages, 0);
    OK(tq_cache_attend(some, 0, t.q, t.k, t.v, 100, out, &e));
    free(out);
    tq_cache_free(all), tq_cache_free(some);
    tokens_free(&t);
}

/* A saved sliding layer goes on bit for bit, and is not read as one with another window. */
static void a_sliding_layer_is_saved_and_loaded(void **state) {
    (void)state;
    tokens t = tokens_new(700, false);
    kind k = {"tq4", 200, 16, 30, true}, other = {"tq4", 201, 16, 30, true};
    tq_cache *cache = cache_new(&k, &t, NULL, 1, false), *copy = cache_new(&k, &t, NULL, 1, false), *wrong = cache_new(&other, &t, NULL, 1, false);
    float *out = test_floats((size_t)700 * HEADS * DIM), *again = test_floats((size_t)HEADS * DIM);
    OK(tq_cache_attend(cache, 0, t.q, t.k, t.v, 699, out, &e));
    assert_true(cache->layers[0].store.n_forgotten > 0 && cache->layers[0].store.n_packed > 100);
    char path[64];
    snprintf(path, sizeof path, "%s/test_kinds.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && close(fd) == 0);
    OK(tq_cache_save(cache, path, &e));
    OK(tq_cache_load(copy, path, &e));
    FAILS(tq_cache_load(wrong, path, &e), TQ_INVALID, "sliding window: want 201, the snapshot has 200");
    unlink(path);
    size_t at = 699;
    OK(tq_cache_attend(cache, 0, t.q + at * HEADS * DIM, t.k + at * KV_HEADS * DIM, t.v + at * KV_HEADS * DIM, 1, out, &e));
    OK(tq_cache_attend(copy, 0, t.q + at * HEADS * DIM, t.k + at * KV_HEADS * DIM, t.v + at * KV_HEADS * DIM, 1, again, &e));
    assert_memory_equal(out, again, HEADS * DIM * sizeof *out);
    free(out), free(again);
    tq_cache_free(cache), tq_cache_free(copy), tq_cache_free(wrong);
    tokens_free(&t);
}

static void impossible_settings_are_refused(void **state) {
    (void)state;
    tokens t = tokens_new(10, true);
    tq_cache_params p = tq_cache_params_default();
    int window = -1;
    p.n_layers = 1, p.n_heads = HEADS, p.n_kv_heads = KV_HEADS, p.head_dim = DIM, p.max_tokens = 10, p.windows = &window;
    tq_cache *cache = NULL;
    FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "layer 0: want a window of 0 or more tokens, got -1");
    p.windows = NULL, p.softcap = -1;
    FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "soft cap of 0 or more");
    tokens_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_caps_and_sinks_are_exact),
        cmocka_unit_test(a_sliding_layer_keeps_its_window_only),
        cmocka_unit_test(a_sliding_layer_is_saved_and_loaded),
        cmocka_unit_test(impossible_settings_are_refused),
    };
    return cmocka_run_group_tests_name("attention of other kinds", tests, NULL, NULL);
}
