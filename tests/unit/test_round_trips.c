/* test_round_trips.c: every codec there is, and every way to name a cache, through a snapshot, a rewind and a shared prefix, bit
 * for bit.  The names are taken from the list that messages show, so that a codec cannot be left out. */
#include "testing.h"

#include "cache/cache_rows.h"
#include "cache/checkpoint.h"
#include "cache/snapshot.h"

enum { HEADS = 2, DIM = 32, ROOM = 700, CHUNK = 64, PREFIX = 290 };

typedef struct names {
    char text[64][64];
    int n;
} names;

static void add(names *all, const char *name) {
    assert_true(all->n < 64 && strlen(name) < 64);
    snprintf(all->text[all->n++], sizeof *all->text, "%s", name);
}

/* "uniform:2..4" -> three names; "minmax:2|4[:GROUP]" -> two, with a group that divides DIM. */
static void expand(names *all, const char *item) {
    char stem[40], name[64];
    size_t length = strcspn(item, "[");
    bool group = item[length] == '[';
    assert_true(length < sizeof stem);
    memcpy(stem, item, length), stem[length] = 0;
    char *range = strstr(stem, ".."), *bar = strchr(stem, '|');
    if (range || bar) {
        char *colon = strrchr(stem, ':');
        double numbers[8];
        int n = 0;
        char *end;
        numbers[n++] = strtod(colon + 1, range ? NULL : &end);
        if (range) for (int b = (int)numbers[0] + 1; b <= atoi(range + 2); b++) numbers[n++] = b;
        else while (*end == '|') numbers[n++] = strtod(end + 1, &end);
        assert_true(n > 1);
        for (int i = 0; i < n; i++) {
            snprintf(name, sizeof name, "%.*s:%g%s", (int)(colon - stem), stem, numbers[i], group ? ":16" : "");
            add(all, name);
        }
        return;
    }
    snprintf(name, sizeof name, "%s%s", stem, group ? ":16" : "");
    add(all, name);
}

static names every_name(void) {
    names all = {.n = 0};
    char list[512], *rest = NULL;
    assert_true(strlen(tq_codec_names) < sizeof list);
    strcpy(list, tq_codec_names);
    for (char *item = strtok_r(list, ", ", &rest); item; item = strtok_r(NULL, ", ", &rest)) expand(&all, item);
    assert_true(all.n > 36); /* 17 of planar and exact codecs, 3 + 8 + 3 + 3 + 2 + 2 + 1 + 1 by number */
    static const char *const more[] = {"auto", "mlx-k2v2", "mlx-k2v4", "mlx-k3v2", "mlx-k3v4", "mlx-k4v2", "mlx-k4v4", "window:30",
                                       "tq:k=3.5,v=2.5", "tq:k=tcq4,v=q4-group:16", "tq:k=paper:2.5,v=vq3",
                                       "tcq3,first=1:vq2.5,last=2:tq:k=q8,v=tcq4", "f16,last=3:tcq2"};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) add(&all, more[i]);
    return all;
}

static tq_backend *backend;

/* Eight layers for a name that is a schedule of them then, else three. */
static tq_cache *cache_of(const char *kv, tq_page_budget *budget) {
    tq_cache_params p = tq_cache_params_default();
    p.n_layers = strncmp(kv, "tq", 2) == 0 && !strchr(kv, ':') ? 8 : strcmp(kv, "auto") == 0 ? 8 : 3;
    p.n_heads = HEADS, p.n_kv_heads = 1, p.head_dim = DIM, p.max_tokens = ROOM;
    p.config = (tq_cache_config){.kv = kv, .buffer_size = 40, .sinks = 3, .flush_batch_size = 16};
    if (strncmp(kv, "mlx", 3) == 0) p.config.value_group_size = 16;
    tq_cache *cache = NULL;
    OK(tq_cache_new_within(backend, &p, CHUNK, budget, &cache, &e));
    return cache;
}

/* n more tokens of a text, as many at a time as a chunk has; keys of every other layer have no common part.  out: of the last. */
static void grow(tq_cache *cache, int text, int n, float *out) {
    float q[CHUNK * HEADS * DIM], k[CHUNK * DIM], v[CHUNK * DIM], got[CHUNK * HEADS * DIM];
    for (int m; n > 0; n -= m) {
        int from = tq_cache_length(cache);
        m = n < CHUNK ? n : CHUNK;
        for (int l = 0; l < cache->params.n_layers; l++) {
            tq_rng rng = {(uint64_t)(text * 1000000 + from * 100 + l)};
            for (int i = 0; i < m * HEADS * DIM; i++) q[i] = (float)tq_rng_uniform(&rng) - .5f;
            for (int i = 0; i < m * DIM; i++) k[i] = (float)(tq_rng_uniform(&rng) - (l % 2 ? .5 : 0)) * 3;
            for (int i = 0; i < m * DIM; i++) v[i] = (float)tq_rng_uniform(&rng) - .5f;
            OK(tq_cache_attend(cache, l, q, k, v, m, got, &e));
        }
    }
    memcpy(out, got, HEADS * DIM * sizeof *out);
}

/* What two caches hold, packed and exact, is the same, and so is what they say next. */
static void want_same(tq_cache *a, tq_cache *b, const char *what) {
    for (int l = 0; l < a->params.n_layers; l++) {
        const tq_kv_store *x = &a->layers[l].store, *y = &b->layers[l].store;
        if (x->n_sinks != y->n_sinks || x->n_packed != y->n_packed || x->n_window != y->n_window || x->n_forgotten != y->n_forgotten)
            fail_msg("%s, %s: layer %d holds %d + %d + %d, and not %d + %d + %d", a->kv, what, l, x->n_sinks, x->n_packed, x->n_window,
                     y->n_sinks, y->n_packed, y->n_window);
        size_t exact = (size_t)(x->n_sinks + x->n_window) * DIM * sizeof(uint16_t);
        bool same = memcmp(x->exact_k, y->exact_k, exact) == 0 && memcmp(x->exact_v, y->exact_v, exact) == 0;
        for (int page = 0; page < x->n_packed / TQ_PAGE_TOKENS; page++)
            same = same && x->page_bytes == y->page_bytes && memcmp(x->pages[page], y->pages[page], x->page_bytes) == 0;
        for (int row = x->n_packed / TQ_PAGE_TOKENS * TQ_PAGE_TOKENS; row < x->n_packed; row++)
            for (tq_side side = TQ_KEYS; side <= TQ_VALUES; side++) {
                float r[2][DIM];
                tq_cache_load_row(a, l, 0, side, row, r[0]), tq_cache_load_row(b, l, 0, side, row, r[1]);
                same = same && memcmp(r[0], r[1], sizeof r[0]) == 0;
            }
        if (!same) fail_msg("%s, %s: layer %d holds other bits", a->kv, what, l);
    }
    float out[2][HEADS * DIM];
    grow(a, 7, 70, out[0]), grow(b, 7, 70, out[1]);
    if (memcmp(out[0], out[1], sizeof out[0]) != 0) fail_msg("%s, %s: it goes on otherwise", a->kv, what);
}

static void through_a_snapshot(const char *kv) {
    tq_cache *cache = cache_of(kv, NULL), *back = cache_of(kv, NULL);
    float out[HEADS * DIM];
    grow(cache, 1, PREFIX, out);
    grow(back, 2, 200, out); /* is replaced */
    FILE *file = tmpfile();
    assert_non_null(file);
    OK(tq_snapshot_write(cache, file, "a snapshot", &e));
    rewind(file);
    OK(tq_snapshot_read(back, file, "a snapshot", &e));
    fclose(file);
    want_same(back, cache, "saved and loaded");
    tq_cache_free(cache), tq_cache_free(back);
}

/* Back into the window, on another way, and once more: as if there had been no other way.  Then below the window, where rows that
 * were packed with those that go stay as they are. */
static void through_rewinds(const char *kv) {
    tq_cache *cache = cache_of(kv, NULL), *plain = cache_of(kv, NULL);
    float out[HEADS * DIM];
    grow(cache, 1, PREFIX, out), grow(plain, 1, PREFIX, out);
    grow(cache, 2, 5, out);
    OK(tq_cache_rewind(cache, PREFIX, &e));
    want_same(cache, plain, "rewound into its window");
    bool forgets = strncmp(kv, "window", 6) == 0;
    for (int i = 0; !forgets && i < 2; i++) {
        tq_cache *each = i ? plain : cache;
        if (i == 0) grow(each, 3, 90, out); /* packs more of what goes */
        OK(tq_cache_rewind(each, 150, &e));
    }
    if (!forgets) want_same(cache, plain, "rewound below its window");
    tq_cache_free(cache), tq_cache_free(plain);
}

static void through_a_shared_prefix(const char *kv) {
    tq_page_budget budget;
    tq_page_budget_init(&budget, (size_t)16 << 20);
    tq_cache *first = cache_of(kv, &budget), *second = cache_of(kv, &budget), *plain = cache_of(kv, NULL);
    static const tq_recurrent_state none;
    tq_recurrent_state none_to_fill = {0};
    tq_checkpoint *prefix = NULL;
    float out[HEADS * DIM];
    grow(first, 1, PREFIX, out);
    OK(tq_checkpoint_new(first, &none, &prefix, &e));
    grow(first, 4, 100, out); /* writes behind the prefix: into its own page */
    grow(second, 2, 200, out);
    OK(tq_checkpoint_restore(prefix, second, &none_to_fill, &e));
    tq_cache_free(first);
    grow(plain, 1, PREFIX, out);
    want_same(second, plain, "from a shared prefix");
    tq_checkpoint_free(prefix);
    want_same(second, plain, "alone with its pages");
    tq_cache_free(second), tq_cache_free(plain);
    tq_page_budget_destroy(&budget);
}

static void every_codec_round_trips_bit_for_bit(void **state) {
    (void)state;
    names all = every_name();
    for (int i = 0; i < all.n; i++) {
        through_a_snapshot(all.text[i]);
        through_rewinds(all.text[i]);
        through_a_shared_prefix(all.text[i]);
    }
    print_message("   %d names\n", all.n);
}

int main(void) {
    if (tq_cpu_backend_new(1, NULL, false, DIM, &backend, NULL) != TQ_OK) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_codec_round_trips_bit_for_bit)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tq_backend_free(backend);
    return failed;
}
