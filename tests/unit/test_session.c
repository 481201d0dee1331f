/* test_session.c: whole models: logits and answers of other implementations, memory, files, and what a packed cache
 * remembers. */
#define _GNU_SOURCE
#include "testing.h"

#include <jansson.h>
#include <unistd.h>

#include "backend/cpu/kernels.h"
#include "codec/page.h"
#include "engine/session.h"
#include "file/safetensors.h"

#define GOLDENS TQ_SOURCE_DIR "/tests/goldens/"
#define BOOKWORM TQ_SOURCE_DIR "/models/bookworm"

/* ---- counting allocations
 * --------------------------------------------------------------------------------------------- This program's own
 * malloc and kin, over glibc's; a sanitizer has its own. */
#if defined(__has_feature) /* clang's word for __SANITIZE_THREAD__ */
#if __has_feature(thread_sanitizer)
#define TQ_NO_INTERPOSERS
#endif
#endif
#if defined(__GLIBC__) && !TESTING_ASAN && !defined(__SANITIZE_THREAD__) && !defined(TQ_NO_INTERPOSERS)
#define COUNTING 1
#include <stdatomic.h>

static _Atomic bool counting;
static _Atomic int n_allocations;

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static void count(void) {
    if (atomic_load(&counting)) atomic_fetch_add(&n_allocations, 1);
}

void *malloc(size_t n) { return count(), __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return count(), __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return count(), __libc_realloc(p, n); }
void *aligned_alloc(size_t alignment, size_t n) { return count(), __libc_memalign(alignment, n); }
int posix_memalign(void **out, size_t alignment, size_t n) {
    count();
    return (*out = __libc_memalign(alignment, n)) ? 0 : 12;
}
#else
#define COUNTING 0
#endif

/* ---- models and sessions
 * --------------------------------------------------------------------------------------------- */

static tq_model *open_model(const char *path, const char *kernels, int threads) {
    tq_model_params params = {.n_threads = threads, .kernels = kernels};
    tq_model *model = NULL;
    OK(tq_model_open(path, &params, &model, &e));
    return model;
}

static tq_session *session_of(tq_model *model, const char *kv, int ctx, int chunk) {
    tq_session_params params = tq_session_params_default();
    params.cache.kv = kv;
    params.ctx = ctx;
    params.prefill_chunk = chunk;
    tq_session *session = NULL;
    OK(tq_session_new(model, &params, &session, &e));
    return session;
}

static int vocab_of(const tq_model *model) { return tq_model_get_info(model)->vocab; }

static int argmax(const float *logits, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* Greedy decoding with nothing but evaluations. */
static void continue_greedily(tq_session *s, int n, int32_t *out) {
    for (int i = 0; i < n; i++) {
        out[i] = argmax(tq_session_logits(s), vocab_of(s->model));
        if (i + 1 < n) OK(tq_session_eval(s, &out[i], 1, &e));
    }
}

static double largest_difference(const float *a, const float *b, int n) {
    double worst = 0;
    for (int i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

/* ---- goldens ----------------------------------------------------------------------------------------------------- */

typedef struct golden {
    uint8_t *data;
    size_t bytes;
    tq_safetensors tensors;
} golden;

typedef struct prompt {
    const int32_t *ids, *greedy;
    const float *logits; /* of the last rows tokens */
    int n, n_greedy, rows;
} prompt;

static bool golden_open(const char *path, golden *g) {
    g->data = test_read(path, &g->bytes);
    if (!g->data) return false;
    OK(tq_safetensors_parse(g->data, g->bytes, path, &g->tensors, &e));
    return true;
}

static void golden_close(golden *g) {
    tq_safetensors_free(&g->tensors);
    free(g->data);
}

static const tq_tensor *find(const golden *g, const char *name, int index) {
    char full[40];
    snprintf(full, sizeof full, index < 0 ? "%s" : "%s_%d", name, index);
    for (int i = 0; i < g->tensors.n_tensors; i++)
        if (strcmp(g->tensors.tensors[i].name, full) == 0) return &g->tensors.tensors[i];
    fail_msg("no tensor %s", full);
    return NULL;
}

static prompt prompt_of(const golden *g, int index) {
    const tq_tensor *ids = find(g, "input_ids", index), *greedy = find(g, "greedy_ids", index),
                    *logits = find(g, "logits", index);
    assert_true(ids->dtype == TQ_I32 && greedy->dtype == TQ_I32 && logits->dtype == TQ_F32);
    return (prompt){ids->data,          greedy->data,          logits->data,
                    (int)ids->shape[0], (int)greedy->shape[0], (int)logits->shape[0]};
}

typedef struct comparison {
    const prompt *p;
    int vocab, seen;
    double worst;
} comparison;

static void compare_row(void *ctx, int i, const float *logits) {
    comparison *c = ctx;
    assert_int_equal(i, c->seen++); /* every token's, in order */
    int row = i - (c->p->n - c->p->rows);
    if (row < 0) return;
    double d = largest_difference(logits, c->p->logits + (size_t)row * (size_t)c->vocab, c->vocab);
    if (!(d <= c->worst)) c->worst = d;
}

/* Largest difference of any logit; the greedy tokens must be equal. */
static double run_prompt(tq_model *model, const prompt *p, int n_greedy, const char *what) {
    if (n_greedy > p->n_greedy) n_greedy = p->n_greedy;
    tq_session *s = session_of(model, "f32", p->n + p->n_greedy, 256);
    comparison c = {p, vocab_of(model), 0, 0};
    OK(tq_session_eval_all(s, p->ids, p->n, compare_row, &c, &e));
    assert_int_equal(c.seen, p->n);
    int32_t *made = test_alloc((size_t)n_greedy * sizeof *made);
    continue_greedily(s, n_greedy, made);
    for (int i = 0; i < n_greedy; i++)
        if (made[i] != p->greedy[i]) fail_msg("%s: greedy token %d is %d, want %d", what, i, made[i], p->greedy[i]);
    free(made);
    tq_session_free(s);
    return c.worst;
}

static void tiny_models_have_the_logits_of_transformers(void **state) {
    (void)state;
    static const char *const families[] = {"llama", "llama2", "qwen2"};
    double worst = 0;
    int n = 0;
    for (int f = 0; f < 3; f++) {
        char directory[300], file[400];
        snprintf(directory, sizeof directory, GOLDENS "%s", families[f]);
        snprintf(file, sizeof file, "%s/golden.safetensors", directory);
        golden g;
        assert_true(golden_open(file, &g));
        prompt p = prompt_of(&g, -1);
        assert_true(p.n == 72 && p.rows == 72 && p.n_greedy == 24);
        for (const tq_kernels *const *k = tq_kernels_all; *k; k++)
            for (int threads = 1; (*k)->runs_here() && threads <= 3; threads++, n++) {
                tq_model *model = open_model(directory, (*k)->name, threads);
                double d = run_prompt(model, &p, 24, families[f]);
                if (!(d < 1e-4))
                    fail_msg("%s, %s, %d threads: logits differ by %g", families[f], (*k)->name, threads, d);
                worst = fmax(worst, d);
                tq_model_free(model);
            }
        golden_close(&g);
    }
    assert_true(n >= 9);
    print_message("   logits within %.1e\n", worst);
}

/* models/bookworm as MLX quantized it, against float64 in numpy; the long prompt on the best table only. */
static void the_bundled_model_has_the_logits_of_numpy(void **state) {
    (void)state;
    golden g;
    if (!golden_open(GOLDENS "bookworm/bundled.safetensors", &g)) {
        print_message("skipped: no " GOLDENS "bookworm/bundled.safetensors (see make_golden.py beside it)\n");
        skip();
    }
    double worst = 0;
    bool best = true;
    for (const tq_kernels *const *k = tq_kernels_all; *k; k++) {
        if (!(*k)->runs_here()) continue;
        for (int threads = 1; threads <= (best ? 2 : 1); threads++) {
            tq_model *model = open_model(BOOKWORM, (*k)->name, threads);
            int long_prompts = 0;
            for (int i = 0; i < 8; i++) {
                prompt p = prompt_of(&g, i);
                bool is_long = p.n > 1000;
                if (is_long && (!best || threads > 1)) continue;
                long_prompts += is_long;
                /* every greedy token once; elsewhere enough to leave the prompt behind */
                double d = run_prompt(model, &p, best && threads == 2 ? 100 : 8, "bookworm");
                if (!(d < 2e-3)) fail_msg("prompt %d, %s, %d threads: logits differ by %g", i, (*k)->name, threads, d);
                worst = fmax(worst, d);
            }
            if (best && threads == 1) assert_int_equal(long_prompts, 1);
            tq_model_free(model);
        }
        best = false;
    }
    golden_close(&g);
    print_message("   logits within %.1e\n", worst);
}

/* The bf16 model that it was made of, where it lies beside the repository. */
static void the_unquantized_model_has_the_logits_of_numpy(void **state) {
    (void)state;
    const char *path = TQ_SOURCE_DIR "/../shared/models/bookworm";
    if (!test_exists(TQ_SOURCE_DIR "/../shared/models/bookworm/config.json") || TESTING_ASAN) {
        print_message("skipped: %s\n", TESTING_ASAN ? "too long under a sanitizer" : "no ../shared/models/bookworm");
        skip();
    }
    golden g;
    assert_true(golden_open(GOLDENS "bookworm/golden.safetensors", &g));
    tq_model *model = open_model(path, NULL, 2);
    double worst = 0;
    for (int i = 0; i < 8; i++) {
        prompt p = prompt_of(&g, i);
        double d = run_prompt(model, &p, 100, "bf16");
        if (!(d < 2e-3)) fail_msg("prompt %d: logits differ by %g", i, d);
        worst = fmax(worst, d);
    }
    tq_model_free(model);
    golden_close(&g);
    print_message("   logits within %.1e\n", worst);
}

/* ---- the shared model
 * --------------------------------------------------------------------------------------------------- */

static tq_model *bookworm;
static json_t *greedy; /* golden.json's */

static int open_bookworm(void **state) {
    (void)state;
    bookworm = open_model(BOOKWORM, NULL, 2);
    json_t *json = json_load_file(GOLDENS "bookworm/golden.json", 0, NULL);
    assert_non_null(json);
    greedy = json_incref(json_object_get(json, "greedy"));
    json_decref(json);
    return 0;
}

static int close_bookworm(void **state) {
    (void)state;
    tq_model_free(bookworm);
    json_decref(greedy);
    return 0;
}

static int32_t *golden_ids(int index, const char *key, int *n) {
    const json_t *list = json_object_get(json_array_get(greedy, (size_t)index), key);
    *n = (int)json_array_size(list);
    assert_true(*n > 0);
    int32_t *ids = test_alloc((size_t)*n * sizeof *ids);
    for (int i = 0; i < *n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return ids;
}

/* ---- evaluation ---------------------------------------------------------------------------------------------------
 */

/* With an exact cache, chunks are a matter of summation order: bounds from float sums, measured at 4e-6 and 3e-5. */
static void chunks_of_any_size_give_the_same_logits(void **state) {
    (void)state;
    int n;
    int32_t *ids = golden_ids(3, "prompt_ids", &n);
    static const char *const paths[] = {GOLDENS "llama", BOOKWORM};
    static const double bounds[] = {1e-4, 1e-3};
    for (int m = 0; m < 2; m++) {
        tq_model *model = open_model(paths[m], NULL, 2);
        int vocab = vocab_of(model), used = n < 70 ? n : 70;
        int32_t *own = test_alloc((size_t)used * sizeof *own);
        for (int i = 0; i < used; i++) own[i] = ids[i] % vocab;
        float *want = test_floats((size_t)vocab);
        static const int chunks[] = {256, 1, 7, 64, 33};
        double worst = 0;
        for (int c = 0; c < 5; c++) {
            tq_session *s = session_of(model, "f32", 100, chunks[c] > 100 ? 100 : chunks[c]);
            OK(tq_session_eval(s, own, used, &e));
            if (c == 0) memcpy(want, tq_session_logits(s), (size_t)vocab * sizeof *want);
            double d = largest_difference(want, tq_session_logits(s), vocab);
            if (!(d < bounds[m])) fail_msg("chunks of %d: logits differ by %g", chunks[c], d);
            worst = fmax(worst, d);
            assert_int_equal(tq_session_length(s), used);
            assert_memory_equal(tq_session_tokens(s), own, (size_t)used * sizeof *own);
            tq_session_free(s);
        }
        print_message("   within %.1e\n", worst);
        free(want), free(own);
        tq_model_free(model);
    }
    free(ids);
}

static void logits_are_the_same_for_any_number_of_threads(void **state) {
    (void)state;
    int n;
    int32_t *ids = golden_ids(4, "prompt_ids", &n);
    float *want = test_floats(8192);
    for (int threads = 1; threads <= 3; threads++) {
        tq_model *model = open_model(BOOKWORM, NULL, threads);
        tq_session *s = session_of(model, "tq3", 200, 32);
        OK(tq_session_eval(s, ids, n, &e));
        OK(tq_session_eval(s, ids, 1, &e));
        if (threads == 1) memcpy(want, tq_session_logits(s), 8192 * sizeof *want);
        assert_memory_equal(want, tq_session_logits(s), 8192 * sizeof *want);
        tq_session_free(s);
        tq_model_free(model);
    }
    free(want), free(ids);
}

static void a_decoded_token_allocates_nothing(void **state) {
    (void)state;
#if !COUNTING
    print_message("skipped: a sanitizer's allocator cannot be counted\n");
    skip();
#else
    static const char *const kv[] = {"tq3", "f16", "mlx-k3v2"};
    for (int c = 0; c < 3; c++) {
        tq_session *s = session_of(bookworm, kv[c], 600, 64);
        int32_t ids[400];
        for (int i = 0; i < 400; i++) ids[i] = 100 + i % 1000;
        atomic_store(&n_allocations, 0);
        atomic_store(&counting, true);
        void *volatile probe = malloc(10); /* the count works */
        atomic_store(&counting, false);
        free(probe);
        assert_int_equal(atomic_load(&n_allocations), 1);
        OK(tq_session_eval(s, ids, 200, &e));
        tq_error err = {0};
        atomic_store(&n_allocations, 0);
        atomic_store(&counting, true);
        tq_status status = TQ_OK;
        for (int i = 0; i < 150 && status == TQ_OK; i++) status = tq_session_eval(s, ids + i, 1, &err);
        if (status == TQ_OK) status = tq_session_eval(s, ids, 130, &err); /* nor does prefill */
        if (status == TQ_OK) status = tq_session_rewind(s, 300, &err);
        if (status == TQ_OK) status = tq_session_eval(s, ids, 2, &err);
        atomic_store(&counting, false);
        if (status != TQ_OK) fail_msg("%s", err.text);
        tq_cache_stats stats;
        tq_session_get_cache_stats(s, &stats);
        if (c != 1)
            assert_true(stats.packed_tokens > 200 &&
                        s->cache->layers[0].n_pages >= 2); /* rows were packed and pages taken on the way */
        if (atomic_load(&n_allocations) != 0) fail_msg("%s: %d allocations", kv[c], atomic_load(&n_allocations));
        tq_session_free(s);
    }
#endif
}

static bool stop_at_64(void *ctx, int done, int total) {
    int *calls = ctx;
    ++*calls;
    assert_true(done <= total);
    return done < 64;
}

static void a_stopped_evaluation_keeps_what_it_did(void **state) {
    (void)state;
    tq_session *s = session_of(bookworm, "tq3", 400, 32);
    int32_t ids[200];
    for (int i = 0; i < 200; i++) ids[i] = 300 + i;
    int calls = 0;
    tq_session_set_progress(s, stop_at_64, &calls);
    assert_null(tq_session_logits(s));
    FAILS(tq_session_eval(s, ids, 200, &e), TQ_CANCELLED, "64 of 200");
    assert_int_equal(calls, 2);
    assert_int_equal(tq_session_length(s), 64);
    tq_session_set_progress(s, NULL, NULL);
    OK(tq_session_eval(s, ids + 64, 136, &e));
    tq_session *whole = session_of(bookworm, "tq3", 400, 32);
    OK(tq_session_eval(whole, ids, 200, &e));
    double d = largest_difference(tq_session_logits(s), tq_session_logits(whole), 8192);
    assert_true(d == 0); /* the same chunks */
    tq_session_free(s), tq_session_free(whole);
}

static void impossible_evaluations_change_nothing(void **state) {
    (void)state;
    tq_session *s = session_of(bookworm, "tq3", 50, 16);
    assert_int_equal(tq_session_ctx(s), 50);
    int32_t ids[60];
    for (int i = 0; i < 60; i++) ids[i] = i;
    FAILS(tq_session_eval(s, ids, 51, &e), TQ_FULL, "0 tokens held and 51 new ones do not fit into 50");
    OK(tq_session_eval(s, ids, 40, &e));
    float *before = test_floats(8192);
    memcpy(before, tq_session_logits(s), 8192 * sizeof *before);
    FAILS(tq_session_eval(s, ids, 11, &e), TQ_FULL, "40 tokens held and 11 new ones do not fit into 50");
    FAILS(tq_session_eval(s, ids, -1, &e), TQ_INVALID, "got -1");
    ids[5] = 8192;
    FAILS(tq_session_eval(s, ids, 6, &e), TQ_INVALID, "token id 8192 is outside the vocabulary of 8192");
    ids[5] = -1;
    FAILS(tq_session_eval(s, ids, 6, &e), TQ_INVALID, "token id -1 is outside the vocabulary of 8192");
    OK(tq_session_eval(s, ids, 0, &e));
    assert_int_equal(tq_session_length(s), 40);
    assert_int_equal(tq_cache_length(s->cache), 40);
    assert_memory_equal(before, tq_session_logits(s), 8192 * sizeof *before);
    FAILS(tq_session_rewind(s, 41, &e), TQ_INVALID, "want 0 to 40 tokens, got 41");
    FAILS(tq_session_rewind(s, -1, &e), TQ_INVALID, "got -1");
    free(before);
    tq_session_free(s);

    tq_session_params params = tq_session_params_default();
    s = NULL;
    params.ctx = 32769;
    FAILS(tq_session_new(bookworm, &params, &s, &e), TQ_INVALID, "1 to 32768 tokens, got 32769");
    params.ctx = -1;
    FAILS(tq_session_new(bookworm, &params, &s, &e), TQ_INVALID, "got -1");
    params.ctx = 100, params.prefill_chunk = 0;
    FAILS(tq_session_new(bookworm, &params, &s, &e), TQ_INVALID, "1 to 1024 tokens, got 0");
    params.prefill_chunk = 1025;
    FAILS(tq_session_new(bookworm, &params, &s, &e), TQ_INVALID, "got 1025");
    params.prefill_chunk = 10, params.cache.kv = "tq7";
    FAILS(tq_session_new(bookworm, &params, &s, &e), TQ_INVALID, "tq7");
    assert_null(s);
    tq_session_free(NULL);
}

static void tokens_after_a_rewind_are_as_if_never_rewound(void **state) {
    (void)state;
    static const char *const kv[] = {"tq3", "f16"};
    for (int c = 0; c < 2; c++) {
        tq_session *s = session_of(bookworm, kv[c], 500, 64);
        int32_t ids[300];
        for (int i = 0; i < 300; i++) ids[i] = 200 + i * 7;
        OK(tq_session_eval(s, ids, 280, &e));
        int packed = s->cache->layers[0].store.n_packed;
        if (c == 0) assert_true(packed > 100);
        for (int i = 280; i < 290; i++) OK(tq_session_eval(s, ids + i, 1, &e));
        /* No batch left the window meanwhile: what is packed is the same. */
        if (c == 0) assert_int_equal(s->cache->layers[0].store.n_packed, packed);
        float *before = test_floats(8192);
        memcpy(before, tq_session_logits(s), 8192 * sizeof *before);
        OK(tq_session_rewind(s, 280, &e));
        assert_int_equal(tq_session_length(s), 280);
        assert_null(tq_session_logits(s)); /* those of a token that is gone */
        int32_t other[] = {5, 6, 7};
        OK(tq_session_eval(s, other, 3, &e)); /* another branch */
        assert_memory_not_equal(before, tq_session_logits(s), 8192 * sizeof *before);
        OK(tq_session_rewind(s, 280, &e));
        for (int i = 280; i < 290; i++) OK(tq_session_eval(s, ids + i, 1, &e));
        assert_memory_equal(before, tq_session_logits(s), 8192 * sizeof *before);
        free(before);
        tq_session_free(s);
    }
}

/* ---- files
 * ------------------------------------------------------------------------------------------------------------ */

static char path[64];

static int make_path(void **state) {
    snprintf(path, sizeof path, "%s/test_session.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0 || close(fd) != 0) return -1;
    return open_bookworm(state);
}

static int remove_path(void **state) {
    unlink(path);
    return close_bookworm(state);
}

static void a_saved_session_goes_on_bit_for_bit(void **state) {
    (void)state;
    int n;
    int32_t *ids = golden_ids(5, "prompt_ids", &n);
    static const char *const kv[] = {"tq3", "f16"};
    for (int c = 0; c < 2; c++) {
        tq_session *s = session_of(bookworm, kv[c], 800, 64), *loaded = session_of(bookworm, kv[c], 900, 64);
        OK(tq_session_eval(s, ids, 450, &e));
        OK(tq_session_save(s, path, &e));
        OK(tq_session_eval(loaded, ids + 100, 30, &e)); /* to be replaced */
        OK(tq_session_load(loaded, path, &e));
        assert_int_equal(tq_session_length(loaded), 450);
        assert_memory_equal(tq_session_tokens(loaded), ids, 450 * sizeof *ids);
        assert_null(tq_session_logits(loaded)); /* documented: not saved */
        for (int i = 450; i < 500; i++) {
            OK(tq_session_eval(s, ids + i, 1, &e));
            OK(tq_session_eval(loaded, ids + i, 1, &e));
            assert_memory_equal(tq_session_logits(s), tq_session_logits(loaded), 8192 * sizeof(float));
        }
        OK(tq_session_eval(s, ids + 500, 100, &e));
        OK(tq_session_eval(loaded, ids + 500, 100, &e));
        assert_memory_equal(tq_session_logits(s), tq_session_logits(loaded), 8192 * sizeof(float));
        tq_session_free(s), tq_session_free(loaded);
    }
    free(ids);
}

static void a_session_of_something_else_is_refused(void **state) {
    (void)state;
    int32_t ids[100];
    for (int i = 0; i < 100; i++) ids[i] = i + 3;
    tq_session *s = session_of(bookworm, "tq3", 300, 64), *small = session_of(bookworm, "tq3", 99, 64),
               *tq4 = session_of(bookworm, "tq4", 300, 64);
    OK(tq_session_eval(s, ids, 100, &e));
    OK(tq_session_save(s, path, &e));
    OK(tq_session_eval(small, ids, 10, &e));
    FAILS(tq_session_load(small, path, &e), TQ_FULL, "holds 100 tokens, the context has room for 99");
    assert_int_equal(tq_session_length(small), 0); /* documented: empty */
    assert_int_equal(tq_cache_length(small->cache), 0);
    OK(tq_session_eval(small, ids, 10, &e)); /* and usable */
    FAILS(tq_session_load(tq4, path, &e), TQ_INVALID, "codec: want tq4, the snapshot has tq3");
    tq_model *llama = open_model(GOLDENS "llama", NULL, 1);
    tq_session *other = session_of(llama, "tq3", 300, 64);
    FAILS(tq_session_load(other, path, &e), TQ_INVALID, "saved with another model");
    FAILS(tq_session_load(other, GOLDENS "llama/config.json", &e), TQ_FORMAT, "not a saved session");
    FAILS(tq_session_load(other, "/tmp/no such session", &e), TQ_NOT_FOUND, "no such session");
    tq_session_free(other), tq_model_free(llama);

    size_t n = 0; /* damage at the seams, and at some places in between */
    uint8_t *data = test_read(path, &n);
    tq_session *target = session_of(bookworm, "tq3", 300, 64);
    for (size_t at = 0; at < n; at += at < 600 ? 1 : n / 50) {
        data[at] ^= 4;
        test_write(path, data, n);
        data[at] ^= 4;
        tq_error err = {0};
        if (tq_session_load(target, path, &err) == TQ_OK && (at < 20 || at >= 24)) fail_msg("byte %zu of %zu", at, n);
        if (at < 20 || at >= 24) assert_int_equal(tq_session_length(target), 0);
        assert_int_equal(tq_cache_length(target->cache), tq_session_length(target));
        test_write(path, data, at);
        assert_int_not_equal(tq_session_load(target, path, &err), TQ_OK);
        assert_int_equal(tq_session_length(target), 0);
    }
    free(data);
    tq_session_free(s), tq_session_free(small), tq_session_free(tq4), tq_session_free(target);
}

/* ---- what a packed cache remembers
 * ------------------------------------------------------------------------------------- */

static void the_recall_prompts_are_answered_exactly(void **state) {
    (void)state;
    static const char *const kv[] = {"f16", "tq3"};
    for (int i = 3; i <= 5; i++) {
        int n, n_greedy;
        int32_t *ids = golden_ids(i, "prompt_ids", &n), *want = golden_ids(i, "greedy_ids", &n_greedy);
        const char *want_text = json_string_value(json_object_get(json_array_get(greedy, (size_t)i), "greedy_text"));
        for (int c = 0; c < 2; c++) {
            if (TESTING_ASAN && i == 5 && c == 0) continue;
            tq_session *s = session_of(bookworm, kv[c], n + n_greedy, 256);
            OK(tq_session_eval(s, ids, n, &e));
            int32_t made[40];
            assert_true(n_greedy <= 40);
            continue_greedily(s, n_greedy, made);
            char *text;
            size_t length;
            OK(tq_detokenize(bookworm, made, (size_t)n_greedy, true, &text, &length, &e));
            if (strcmp(text, want_text) != 0) fail_msg("prompt %d, %s: \"%s\", want \"%s\"", i, kv[c], text, want_text);
            assert_memory_equal(made, want, (size_t)n_greedy * sizeof *want);
            tq_free(text);
            tq_cache_stats stats;
            tq_session_get_cache_stats(s, &stats);
            if (c == 1 && i == 5) assert_true(stats.packed_tokens > stats.tokens * 9 / 10);
            tq_session_free(s);
        }
        free(ids), free(want);
    }
}

/* A fact told in the first of several turns, then a long passage, then the question. */
static int32_t *conversation(int *n) {
    const char *whole = json_string_value(json_object_get(json_array_get(greedy, 5), "prompt"));
    const char *from = strstr(whole, "\n\n"), *end = strstr(whole, "\n\nHow old is");
    assert_true(from && end && end > from);
    char *passage = test_alloc((size_t)(end - from) + 100);
    snprintf(passage, (size_t)(end - from) + 100, "Please read this.%.*s", (int)(end - from), from);
    const tq_message messages[] = {
        {"user", "Clara Webb lives in Lisbon. Oscar Frost works as a miller."},
        {"assistant", "Noted."},
        {"user", passage},
        {"assistant", "Noted."},
        {"user", "Where does Clara Webb live?"},
    };
    int32_t *ids, *copy;
    size_t count;
    OK(tq_chat_tokens(bookworm, messages, 5, TQ_CHAT_ADD_GENERATION_PROMPT, &ids, &count, &e));
    copy = test_alloc(count * sizeof *copy);
    memcpy(copy, ids, count * sizeof *copy);
    tq_free(ids);
    free(passage);
    *n = (int)count;
    return copy;
}

static void a_fact_of_2000_tokens_ago_is_read_from_packed_rows(void **state) {
    (void)state;
    int n;
    int32_t *ids = conversation(&n);
    /* Where the fact stands: " Lisbon" in the first turn. */
    int32_t *word;
    size_t n_word;
    OK(tq_tokenize(bookworm, " Lisbon", 7, false, &word, &n_word, &e));
    int fact = -1;
    for (int i = 0; i + (int)n_word <= n && fact < 0; i++)
        if (memcmp(ids + i, word, n_word * sizeof *word) == 0) fact = i;
    assert_true(fact > 0 && fact < 60);
    assert_true(n - fact > 2000);
    tq_session *s = session_of(bookworm, "tq3", n + 40, 256);
    OK(tq_session_eval(s, ids, n, &e));
    float *logits = test_floats(8192);
    memcpy(logits, tq_session_logits(s), 8192 * sizeof *logits);
    int32_t made[20];
    int n_made = 0;
    for (; n_made < 20; n_made++) {
        continue_greedily(s, 1, made + n_made);
        if (tq_model_is_eos(bookworm, made[n_made])) break;
        OK(tq_session_eval(s, made + n_made, 1, &e));
    }
    char *text;
    size_t length;
    OK(tq_detokenize(bookworm, made, (size_t)n_made, false, &text, &length, &e));
    tq_cache_stats stats;
    tq_session_get_cache_stats(s, &stats);
    print_message("   \"%s\", told %d tokens ago; %d of %d tokens packed\n", text, n - fact, stats.packed_tokens,
                  stats.tokens);
    assert_string_equal(text, "Clara Webb lives in Lisbon.");
    assert_true(stats.packed_tokens > stats.tokens * 9 / 10);
    tq_free(text);

    /* The same last token again, before and after the codes of one packed row, a token of the fact, are flipped. */
    OK(tq_session_rewind(s, n - 1, &e));
    OK(tq_session_eval(s, ids + n - 1, 1, &e));
    memcpy(logits, tq_session_logits(s), 8192 * sizeof *logits);
    const tq_kv_store *store = &s->cache->layers[3].store;
    int row = fact - store->n_sinks;
    assert_true(row >= 0 && row < store->n_packed && row < TQ_PAGE_TOKENS);
    const tq_codec *codec = store->value;
    size_t tile = tq_block_tile_bytes(codec, TQ_VALUES);
    uint8_t *block = store->pages[0] + store->value_at; /* KV head 0 */
    for (int flips = 0; flips < 2; flips++) {
        for (int dim = 0; dim < 128; dim++) { /* the high bit of every value code: codec/page.h */
            int vector = row / 4, place = 4 * (dim % 16) + row % 4;
            block[(size_t)(dim / 16) * tile + (size_t)(vector / 8 * 192 + 128 + place)] ^= (uint8_t)(1u << vector % 8);
        }
        float was[128], now[128];
        tq_block_load(codec, TQ_VALUES, block, row, was);
        tq_block_load(codec, TQ_VALUES, block, row + 1, now); /* its neighbour is as before */
        OK(tq_session_rewind(s, n - 1, &e));
        OK(tq_session_eval(s, ids + n - 1, 1, &e));
        bool same = memcmp(logits, tq_session_logits(s), 8192 * sizeof *logits) == 0;
        if (same != (flips == 1))
            fail_msg("row %d %s: logits %s", row, flips ? "restored" : "flipped", same ? "stay" : "differ");
    }
    free(logits), free(ids);
    tq_free(word);
    tq_session_free(s);
}

/* Without its sinks and window the fact is gone: the answer did come from the rows of long ago. */
static void a_window_that_forgets_does_not_know_the_fact(void **state) {
    (void)state;
    if (TESTING_ASAN) skip();
    int n;
    int32_t *ids = conversation(&n);
    tq_session *s = session_of(bookworm, "window:128", n + 40, 256);
    OK(tq_session_eval(s, ids, n, &e));
    int32_t made[18];
    continue_greedily(s, 18, made);
    char *text;
    size_t length;
    OK(tq_detokenize(bookworm, made, 18, false, &text, &length, &e));
    if (strstr(text, "Lisbon")) fail_msg("it knew: %s", text);
    tq_free(text);
    free(ids);
    tq_session_free(s);
}

/* ---- generation -----------------------------------------------------------------------------------------------------
 */

typedef struct heard {
    char text[4000];
    size_t n;
    int pieces;
} heard;

static bool hear(void *ctx, const char *text, size_t n) {
    heard *h = ctx;
    assert_true(h->n + n < sizeof h->text);
    memcpy(h->text + h->n, text, n);
    h->n += n;
    h->pieces++;
    return true;
}

static bool hear_three(void *ctx, const char *text, size_t n) {
    hear(ctx, text, n);
    return ((heard *)ctx)->pieces < 3;
}

static void generation_is_greedy_decoding_until_the_end_token(void **state) {
    (void)state;
    int n, n_greedy;
    int32_t *ids = golden_ids(4, "prompt_ids", &n), *want = golden_ids(4, "greedy_ids", &n_greedy);
    tq_generate_params params = tq_generate_params_default();
    heard h = {.n = 0};
    params.max_tokens = 50, params.on_text = hear, params.ctx = &h;
    tq_session *s = session_of(bookworm, "tq3", n + 60, 256);
    tq_generate_result r;
    FAILS(tq_generate(s, &params, &r, &e), TQ_INVALID, "nothing has been evaluated");
    OK(tq_session_eval(s, ids, n, &e));
    OK(tq_generate(s, &params, &r, &e));
    assert_int_equal(r.finish, TQ_FINISH_STOP);
    assert_int_equal(r.n_ids, n_greedy - 1); /* without the end token */
    assert_memory_equal(r.ids, want, (size_t)r.n_ids * sizeof *want);
    assert_int_equal(h.n, r.text_len);
    assert_memory_equal(h.text, r.text, h.n);
    assert_string_equal(r.text, "Clara Webb lives in Lisbon.");
    assert_true(h.pieces > 3); /* it came as it was made */
    assert_int_equal(tq_session_length(s), n + r.n_ids);
    tq_generate_result_free(&r);

    OK(tq_session_rewind(s, 0, &e));
    OK(tq_session_eval(s, ids, n, &e));
    params.max_tokens = 4;
    OK(tq_generate(s, &params, &r, &e));
    assert_int_equal(r.finish, TQ_FINISH_LENGTH);
    assert_int_equal(r.n_ids, 4);
    tq_generate_result_free(&r);

    OK(tq_session_rewind(s, 0, &e));
    OK(tq_session_eval(s, ids, n, &e));
    h = (heard){.n = 0};
    params.max_tokens = 50, params.on_text = hear_three;
    OK(tq_generate(s, &params, &r, &e));
    assert_int_equal(r.finish, TQ_FINISH_CANCELLED);
    assert_int_equal(h.pieces, 3);
    tq_generate_result_free(&r);
    tq_session_free(s);

    s = session_of(bookworm, "tq3", n + 3, 256); /* the context ends first: one more can be sampled than held */
    OK(tq_session_eval(s, ids, n, &e));
    params.on_text = NULL;
    OK(tq_generate(s, &params, &r, &e));
    assert_int_equal(r.finish, TQ_FINISH_LENGTH);
    assert_int_equal(r.n_ids, 4);
    assert_memory_equal(r.ids, want, 4 * sizeof *want);
    tq_generate_result_free(&r);
    params.max_tokens = 0;
    FAILS(tq_generate(s, &params, &r, &e), TQ_INVALID, "got 0");
    tq_session_free(s);
    free(ids), free(want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_models_have_the_logits_of_transformers),
        cmocka_unit_test(the_bundled_model_has_the_logits_of_numpy),
        cmocka_unit_test(the_unquantized_model_has_the_logits_of_numpy),
        cmocka_unit_test(chunks_of_any_size_give_the_same_logits),
        cmocka_unit_test(logits_are_the_same_for_any_number_of_threads),
        cmocka_unit_test(a_decoded_token_allocates_nothing),
        cmocka_unit_test(a_stopped_evaluation_keeps_what_it_did),
        cmocka_unit_test(impossible_evaluations_change_nothing),
        cmocka_unit_test(tokens_after_a_rewind_are_as_if_never_rewound),
        cmocka_unit_test(a_saved_session_goes_on_bit_for_bit),
        cmocka_unit_test(a_session_of_something_else_is_refused),
        cmocka_unit_test(the_recall_prompts_are_answered_exactly),
        cmocka_unit_test(a_fact_of_2000_tokens_ago_is_read_from_packed_rows),
        cmocka_unit_test(a_window_that_forgets_does_not_know_the_fact),
        cmocka_unit_test(generation_is_greedy_decoding_until_the_end_token),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
