/* test_key_centre.c: which layers have centres in their pages of keys, who decides it and for how long.  That attention over
 * either kind of page is exact, and that shared prefixes bring the decision along: test_attention*.c, test_checkpoint.c. */
#include "testing.h"

#include <unistd.h>

#include "base/half.h"
#include "cache/cache_rows.h"

enum { LAYERS = 4, HEADS = 2, DIM = 64, ROOM = 900, WIDTH = HEADS * DIM };

/* Keys are noise of variance 1 about a mean that has this share of their energy; which text has which, by layer. */
typedef enum text { MIXED, PLAIN, BIASED } text;
static const double shares[][LAYERS] = {{0, .12, .2, .97}, {0, 0, 0, 0}, {.9, .9, .9, .9}};

typedef struct setup {
    const char *kv;
    int buffer, flush;
    tq_key_centre centre;
    const int *windows;
} setup;

static const setup ordinary = {"tq3", 128, 32, TQ_KEY_CENTRE_AUTO, NULL};

static tq_cache *cache_of(const setup *s) {
    tq_cache_params p = tq_cache_params_default();
    p.n_layers = LAYERS, p.n_heads = p.n_kv_heads = HEADS, p.head_dim = DIM, p.max_tokens = ROOM, p.n_threads = 1;
    p.windows = s->windows;
    p.config = (tq_cache_config){.kv = s->kv, .buffer_size = s->buffer, .sinks = 4, .flush_batch_size = s->flush,
                                 .key_centre = s->centre};
    tq_cache *cache = NULL;
    OK(tq_cache_new(&p, &cache, &e));
    return cache;
}

/* n more tokens, `piece` at a time; out (WIDTH): of the last token in the last layer.  Rows are numbers of f16, so that it makes no
 * difference to their codes whether they have been in the window. */
static void grow(tq_cache *cache, text what, int n, int piece, float *out) {
    float *rows = test_floats((size_t)4 * (size_t)piece * WIDTH), *q = rows, *k = q + piece * WIDTH, *v = k + piece * WIDTH,
          *got = v + piece * WIDTH;
    for (int m; n > 0; n -= m) {
        int from = tq_cache_length(cache);
        m = n < piece ? n : piece;
        for (int l = 0; l < LAYERS; l++) {
            double share = shares[what][l], mean = sqrt(share / (1 - share));
            for (int t = 0; t < m; t++) {
                tq_rng rng = {(uint64_t)((from + t) * LAYERS + l)};
                for (int i = 0; i < WIDTH; i++) {
                    k[t * WIDTH + i] = tq_f16_f32(tq_f32_f16((float)(test_normal(&rng) + (i % 2 ? mean : -mean))));
                    v[t * WIDTH + i] = tq_f16_f32(tq_f32_f16((float)test_normal(&rng)));
                    q[t * WIDTH + i] = (float)test_normal(&rng);
                }
            }
            OK(tq_cache_attend(cache, l, q, k, v, m, got, &e));
        }
        if (out) memcpy(out, got + (m - 1) * WIDTH, WIDTH * sizeof *out);
    }
    free(rows);
}

static void want_kinds(const tq_cache *cache, const char *want, const char *when) {
    for (int l = 0; l < LAYERS; l++) {
        char kind = !cache->layers[l].decided ? '?' : tq_cache_layer_kind(&cache->layers[l]) == TQ_CENTRED_PAGES ? 'c' : 'b';
        if (kind != want[l]) fail_msg("%s: layer %d is %c of %s", when, l, kind, want);
    }
}

/* The same pages, bit for bit, as far as rows stand in them. */
static void want_same(const tq_cache *a, const tq_cache *b) {
    float x[DIM], y[DIM];
    for (int l = 0; l < LAYERS; l++) {
        assert_int_equal(tq_cache_paged_rows(a, l), tq_cache_paged_rows(b, l));
        assert_int_equal(tq_cache_layer_kind(&a->layers[l]), tq_cache_layer_kind(&b->layers[l]));
        for (int h = 0; h < HEADS; h++)
            for (int side = 0; side < 2; side++)
                for (int r = 0; r < tq_cache_paged_rows(a, l); r++) {
                    tq_cache_load_row(a, l, h, side ? TQ_VALUES : TQ_KEYS, r, x);
                    tq_cache_load_row(b, l, h, side ? TQ_VALUES : TQ_KEYS, r, y);
                    assert_memory_equal(x, y, sizeof x);
                }
    }
}

static double bits_of(const tq_cache *cache) {
    tq_cache_stats stats;
    tq_cache_get_stats(cache, &stats);
    size_t pages = 0;
    for (int l = 0; l < LAYERS; l++) pages += (size_t)cache->layers[l].n_pages * cache->layers[l].pool->slot_bytes;
    size_t tables = 2 * DIM * sizeof(float);
    assert_int_equal(stats.bytes, cache->exact_bytes + pages + tables);
    return stats.bits_per_value;
}

/* By hand: 16 % of the energy is what 1/8 bit a value takes away; .12 is less, .2 is more. */
static void a_layer_has_centres_where_its_first_page_shows_that_they_pay(void **state) {
    (void)state;
    double bits[3];
    for (tq_key_centre centre = TQ_KEY_CENTRE_AUTO; centre <= TQ_KEY_CENTRE_OFF; centre++) {
        static const char *const kinds[] = {"bbcc", "cccc", "bbbb"};
        setup s = ordinary;
        s.centre = centre;
        tq_cache *cache = cache_of(&s);
        grow(cache, MIXED, 150, 50, NULL);
        want_kinds(cache, "????", "before anything is packed");
        grow(cache, MIXED, 20, 20, NULL);
        want_kinds(cache, kinds[centre], "by its first page");
        grow(cache, BIASED, 430, 50, NULL);
        want_kinds(cache, kinds[centre], "by its first page, whatever comes");
        bits[centre] = bits_of(cache);
        tq_cache_free(cache);
    }
    /* 16 bits of centre for 128 keys and as many values */
    assert_true(fabs(bits[TQ_KEY_CENTRE_ON] - bits[TQ_KEY_CENTRE_OFF] - 16.0 / 256) < 1e-12);
    assert_true(fabs(bits[TQ_KEY_CENTRE_AUTO] - bits[TQ_KEY_CENTRE_OFF] - 16.0 / 512) < 1e-12);
}

static void few_keys_show_nothing(void **state) {
    (void)state;
    static const int sizes[][2] = {{0, 1}, {4, 3}, {0, 16}, {12, 4}};
    for (int i = 0; i < 4; i++) {
        setup s = ordinary;
        s.buffer = sizes[i][0], s.flush = sizes[i][1];
        tq_cache *cache = cache_of(&s);
        grow(cache, PLAIN, 200, 100, NULL); /* a hundred are there, but another chunking would not show them */
        want_kinds(cache, i < 2 ? "cccc" : "bbbb", i < 2 ? "by fewer than 16 keys" : "by 16 keys");
        tq_cache_free(cache);
    }
}

static void chunks_do_not_change_a_layers_decision_nor_its_bits(void **state) {
    (void)state;
    static const int pieces[] = {1, 7, 200, 512};
    tq_cache *first = cache_of(&ordinary);
    grow(first, MIXED, 700, 64, NULL);
    for (int i = 0; i < 4; i++) {
        tq_cache *cache = cache_of(&ordinary);
        grow(cache, MIXED, 700, pieces[i], NULL);
        want_kinds(cache, "bbcc", "in other chunks");
        want_same(cache, first);
        tq_cache_free(cache);
    }
    tq_cache_free(first);
}

/* A rewind to within the packed rows keeps what they were packed by; to before them, nothing is left to keep. */
static void a_rewind_below_the_first_page_forgets_the_decision(void **state) {
    (void)state;
    tq_cache *cache = cache_of(&ordinary), *fresh = cache_of(&ordinary);
    grow(cache, MIXED, 500, 100, NULL);
    OK(tq_cache_rewind(cache, 5, &e)); /* 4 sinks, a row of the first page */
    grow(cache, BIASED, 495, 100, NULL);
    want_kinds(cache, "bbcc", "behind a row that stayed");
    OK(tq_cache_rewind(cache, 4, &e));
    want_kinds(cache, "????", "with no row left");
    grow(cache, BIASED, 496, 100, NULL);
    want_kinds(cache, "cccc", "by another first page");
    OK(tq_cache_rewind(cache, 0, &e));
    grow(cache, PLAIN, 500, 100, NULL);
    grow(fresh, PLAIN, 500, 100, NULL);
    want_kinds(cache, "bbbb", "by yet another");
    want_same(cache, fresh);
    tq_cache_free(cache), tq_cache_free(fresh);
}

/* Its front pages go, even all of them at once, and its decision stays: what comes has room for pages of that kind. */
static void a_sliding_layer_keeps_its_decision(void **state) {
    (void)state;
    static const int windows[LAYERS] = {20, 40, 40, 40};
    setup s = ordinary;
    s.windows = windows, s.buffer = 16, s.flush = 8;
    tq_cache *cache = cache_of(&s);
    grow(cache, MIXED, 120, 60, NULL);
    want_kinds(cache, "bbcc", "by its first page");
    grow(cache, BIASED, 700, 350, NULL);
    assert_true(cache->layers[0].store.n_forgotten > 400);
    want_kinds(cache, "bbcc", "after its first pages");
    tq_cache_free(cache);
}

static void a_snapshot_has_the_decisions(void **state) {
    (void)state;
    char path[] = "/tmp/tq_key_centre_XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    static const int lengths[] = {150, 500};
    for (int i = 0; i < 2; i++) {
        tq_cache *cache = cache_of(&ordinary), *back = cache_of(&ordinary);
        float want[WIDTH], got[WIDTH];
        grow(cache, MIXED, lengths[i], 100, NULL);
        OK(tq_cache_save(cache, path, &e));
        grow(back, PLAIN, 400, 100, NULL); /* another decision, which is forgotten */
        OK(tq_cache_load(back, path, &e));
        want_kinds(back, i ? "bbcc" : "????", "in a snapshot");
        want_same(back, cache);
        grow(cache, BIASED, 300, 30, want);
        grow(back, BIASED, 300, 30, got);
        want_same(back, cache);
        assert_memory_equal(got, want, sizeof got);
        tq_cache_free(cache), tq_cache_free(back);
    }
    setup always = ordinary;
    always.centre = TQ_KEY_CENTRE_ON;
    tq_cache *other = cache_of(&always);
    FAILS(tq_cache_load(other, path, &e), TQ_INVALID, "key centre (0 auto, 1 on, 2 off): want 1, the snapshot has 0");
    tq_cache_free(other);
    unlink(path);
}

static void a_centre_that_cannot_be_is_refused(void **state) {
    (void)state;
    static const char *const without[] = {"paper-mse:3", "mlx-k3v2", "tq:k=q4-group,v=tq3", "paper:2.5,last=1:f16"},
                      *const with[] = {"f16", "window:64", "tq:k=tq3,v=paper-mse:3", "paper-mse:3,last=1:tq3"};
    for (int i = 0; i < 4; i++) {
        tq_cache_params p = tq_cache_params_default();
        p.n_layers = LAYERS, p.n_heads = p.n_kv_heads = HEADS, p.head_dim = DIM, p.max_tokens = ROOM, p.n_threads = 1;
        p.config.key_centre = TQ_KEY_CENTRE_ON;
        tq_cache *cache = NULL;
        p.config.kv = without[i];
        FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "keeps none");
        p.config.kv = with[i];
        OK(tq_cache_new(&p, &cache, &e));
        tq_cache_free(cache);
    }
    tq_cache_params p = tq_cache_params_default();
    p.n_layers = p.n_heads = p.n_kv_heads = 1, p.head_dim = DIM, p.max_tokens = ROOM, p.config.key_centre = 3;
    tq_cache *cache = NULL;
    FAILS(tq_cache_new(&p, &cache, &e), TQ_INVALID, "key centre: want auto, on or off (0 to 2), got 3");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_layer_has_centres_where_its_first_page_shows_that_they_pay),
        cmocka_unit_test(few_keys_show_nothing),
        cmocka_unit_test(chunks_do_not_change_a_layers_decision_nor_its_bits),
        cmocka_unit_test(a_rewind_below_the_first_page_forgets_the_decision),
        cmocka_unit_test(a_sliding_layer_keeps_its_decision),
        cmocka_unit_test(a_snapshot_has_the_decisions),
        cmocka_unit_test(a_centre_that_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
