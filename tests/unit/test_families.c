/* test_families.c: every family's tiny model: logits and answers of transformers, and what a compressed cache makes of
 * them; sessions with a recurrent state. */
#include "testing.h"

#include <dirent.h>
#include <unistd.h>

#include "backend/cpu/kernels.h"
#include "engine/session.h"
#include "file/safetensors.h"

#define GOLDENS TQ_SOURCE_DIR "/tests/goldens/"

static const char *const families[] = {
    "llama",   "llama2", "mistral", "ministral3", "qwen2",    "qwen3",   "qwen3_moe", "mixtral", "qwen3_next", "qwen3_5",
    "qwen3_5_moe", "gemma2", "gemma3", "phi3",    "olmo2",    "smollm3", "granite",   "glm4",    "gpt_oss",
};
enum { N_FAMILIES = sizeof families / sizeof *families, VOCAB = 384 };

static tq_model *open_family(const char *family, const char *kernels, int threads) {
    char path[400];
    snprintf(path, sizeof path, GOLDENS "%s", family);
    tq_model_params params = {.n_threads = threads, .kernels = kernels};
    tq_model *model = NULL;
    OK(tq_model_open(path, &params, &model, &e));
    assert_int_equal(tq_model_get_info(model)->vocab, VOCAB);
    return model;
}

static tq_session *session_of(tq_model *model, const char *kv, int ctx, int chunk, int buffer) {
    tq_session_params params = tq_session_params_default();
    params.cache.kv = kv;
    params.cache.buffer_size = buffer;
    params.cache.flush_batch_size = 8;
    params.ctx = ctx;
    params.prefill_chunk = chunk;
    tq_session *session = NULL;
    OK(tq_session_new(model, &params, &session, &e));
    return session;
}

static void make_ids(int32_t *ids, int n) {
    tq_rng rng = {11};
    for (int i = 0; i < n; i++) ids[i] = 3 + (int32_t)(tq_rng_u64(&rng) % (VOCAB - 3));
}

/* ---- compressed against exact -------------------------------------------------------------------------------------- */

typedef struct rows {
    float *logits; /* (n, VOCAB) */
} rows;

static void keep_row(void *ctx, int i, const float *logits) {
    memcpy(((rows *)ctx)->logits + (size_t)i * VOCAB, logits, VOCAB * sizeof(float));
}

static int argmax(const float *logits) {
    int best = 0;
    for (int i = 1; i < VOCAB; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* Logits of the last n_rows tokens, single tokens after a prompt: everything older is packed by then. */
static rows logits_with(tq_model *model, const char *kv, const int32_t *ids, int n, int n_rows, tq_cache_stats *stats) {
    tq_session *s = session_of(model, kv, n, 64, 8);
    rows r = {test_floats((size_t)n_rows * VOCAB)};
    OK(tq_session_eval(s, ids, n - n_rows, &e));
    for (int i = 0; i < n_rows; i++) {
        rows row = {r.logits + (size_t)i * VOCAB};
        OK(tq_session_eval_all(s, ids + n - n_rows + i, 1, keep_row, &row, &e));
    }
    tq_session_get_cache_stats(s, stats);
    tq_session_free(s);
    return r;
}

/* |a - b| / |b - mean b| */
static double relative_difference(const float *a, const float *b, int n) {
    double mean = 0, differs = 0, size = 0;
    for (int i = 0; i < n; i++) mean += b[i];
    mean /= n;
    for (int i = 0; i < n; i++) {
        differs += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (b[i] - mean) * (b[i] - mean);
    }
    return sqrt(differs / size);
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the median row: where a router is undecided, noise of any size makes it choose other experts, and that row another. */
static double median_difference(const float *a, const float *b, int n_rows) {
    double *differs = test_alloc((size_t)n_rows * sizeof *differs);
    for (int i = 0; i < n_rows; i++) differs[i] = relative_difference(a + (size_t)i * VOCAB, b + (size_t)i * VOCAB, VOCAB);
    qsort(differs, (size_t)n_rows, sizeof *differs, compare_doubles);
    double median = differs[n_rows / 2];
    free(differs);
    return median;
}

/* Random models look at all tokens alike, so that what attention brings is small beside its noise, and noise in keys and
 * values shows in full, the more the sharper their softmax: tq4 is off by 0.01 to 0.3 of the logits' spread.  So what
 * counts is that it stays far below what forgetting the same rows does. */
static void compressed_caches_come_close_to_exact_ones(void **state) {
    (void)state;
    enum { N = 400, ROWS = 40 };
    int32_t ids[N];
    make_ids(ids, N);
    for (int f = 0; f < N_FAMILIES; f++) {
        tq_model *model = open_family(families[f], NULL, 2);
        tq_cache_stats exact, stats;
        rows want = logits_with(model, "f16", ids, N, ROWS, &exact);
        static const char *const kv[] = {"q8", "tq4", "tq3", "window:8"};
        double differs[4];
        int same[4] = {0};
        assert_int_equal(exact.packed_tokens, 0);
        for (int c = 0; c < 4; c++) {
            rows got = logits_with(model, kv[c], ids, N, ROWS, &stats);
            /* Rows were packed: all but sinks and window, or what a window of 24 has of them. */
            bool slides_all = strcmp(families[f], "mistral") == 0;
            if (c < 3) assert_true(stats.packed_tokens > (slides_all ? 8 : 350));
            assert_true(stats.bytes < exact.bytes * 3);
            differs[c] = median_difference(got.logits, want.logits, ROWS);
            for (int i = 0; i < ROWS; i++)
                same[c] += argmax(got.logits + (size_t)i * VOCAB) == argmax(want.logits + (size_t)i * VOCAB);
            free(got.logits);
        }
        print_message("   %-12s q8 %.1e  tq4 %.1e  tq3 %.1e  forgotten %.1e   same top token %d %d %d %d of %d\n",
                      families[f], differs[0], differs[1], differs[2], differs[3], same[0], same[1], same[2], same[3], ROWS);
        if (!(differs[0] < .03 && differs[1] > differs[0] && differs[2] > differs[1] && differs[1] < .5 * differs[3] &&
              differs[0] < .1 * differs[3]))
            fail_msg("%s: off by %g, %g, %g, %g", families[f], differs[0], differs[1], differs[2], differs[3]);
        if (same[0] < ROWS - 3) fail_msg("%s: %d of %d top tokens are the same with q8", families[f], same[0], ROWS);
        free(want.logits);
        tq_model_free(model);
    }
}

/* The bits of a packed row are read: changing them changes the logits, in every family. */
static void packed_rows_are_attended_to(void **state) {
    (void)state;
    enum { N = 200 };
    int32_t ids[N];
    make_ids(ids, N);
    for (int f = 0; f < N_FAMILIES; f++) {
        tq_model *model = open_family(families[f], NULL, 1);
        float logits[2][VOCAB];
        for (int flip = 0; flip < 2; flip++) {
            tq_session *s = session_of(model, "tq4", N, 64, 8);
            OK(tq_session_eval(s, ids, N - 1, &e));
            for (int l = 0; flip && l < s->cache->params.n_layers; l++) {
                tq_cache_layer *layer = &s->cache->layers[l];
                assert_true(layer->n_pages > 0);
                for (int p = 0; p < layer->n_pages; p++) memset(layer->pages[p], 0x5a, 4096); /* all codes of keys */
            }
            OK(tq_session_eval(s, ids + N - 1, 1, &e));
            memcpy(logits[flip], tq_session_logits(s), sizeof logits[flip]);
            tq_session_free(s);
        }
        if (memcmp(logits[0], logits[1], sizeof logits[0]) == 0) fail_msg("%s does not read its pages", families[f]);
        tq_model_free(model);
    }
}

/* ---- the same, however it is cut ------------------------------------------------------------------------------------ */

static void chunks_and_threads_do_not_matter(void **state) {
    (void)state;
    enum { N = 150 };
    int32_t ids[N];
    make_ids(ids, N);
    double worst = 0;
    for (int f = 0; f < N_FAMILIES; f++) {
        float want[VOCAB], single[VOCAB];
        for (int threads = 1; threads <= 2; threads++) {
            tq_model *model = open_family(families[f], NULL, threads);
            static const int chunks[] = {150, 64, 33, 1};
            for (int c = 0; c < 4; c++) {
                tq_session *s = session_of(model, "f32", N, chunks[c], 8);
                OK(tq_session_eval(s, ids, N, &e));
                if (c == 0 && threads == 1) memcpy(want, tq_session_logits(s), sizeof want);
                if (c == 3 && threads == 1) memcpy(single, tq_session_logits(s), sizeof single);
                if (c == 3 && threads == 2) assert_memory_equal(single, tq_session_logits(s), sizeof single);
                if (c == 0 && threads == 2) assert_memory_equal(want, tq_session_logits(s), sizeof want);
                for (int i = 0; i < VOCAB; i++) worst = fmax(worst, fabs((double)want[i] - tq_session_logits(s)[i]));
                if (!(worst < 1e-4)) fail_msg("%s, chunks of %d: off by %g", families[f], chunks[c], worst);
                tq_session_free(s);
            }
            tq_model_free(model);
        }
    }
    print_message("   within %.1e\n", worst);
}

/* ---- recurrent states ------------------------------------------------------------------------------------------------ */

static const char *const hybrids[] = {"qwen3_next", "qwen3_5", "qwen3_5_moe"};

static void a_recurrent_state_goes_back_to_its_checkpoint(void **state) {
    (void)state;
    int32_t ids[120], other[3] = {5, 6, 7};
    make_ids(ids, 120);
    for (int f = 0; f < 3; f++) {
        tq_model *model = open_family(hybrids[f], NULL, 1);
        tq_session *s = session_of(model, "tq4", 200, 32, 32), *fresh = session_of(model, "tq4", 200, 32, 32);
        float want[VOCAB];
        OK(tq_session_eval(s, ids, 80, &e));
        for (int i = 80; i < 90; i++) OK(tq_session_eval(s, ids + i, 1, &e));
        memcpy(want, tq_session_logits(s), sizeof want);
        FAILS(tq_session_rewind(s, 79, &e), TQ_INVALID, "goes back to 0 tokens or to 80 or more, not to 79");
        assert_int_equal(tq_session_length(s), 90);
        assert_memory_equal(want, tq_session_logits(s), sizeof want); /* nothing has changed */
        OK(tq_session_rewind(s, 80, &e));
        OK(tq_session_eval(s, other, 1, &e)); /* another branch */
        assert_memory_not_equal(want, tq_session_logits(s), sizeof want);
        OK(tq_session_rewind(s, 80, &e));
        for (int i = 80; i < 90; i++) OK(tq_session_eval(s, ids + i, 1, &e));
        assert_memory_equal(want, tq_session_logits(s), sizeof want);
        OK(tq_session_rewind(s, 85, &e)); /* five tokens are evaluated again, at once: other bits, the same numbers */
        assert_int_equal(tq_session_length(s), 85);
        for (int i = 85; i < 90; i++) OK(tq_session_eval(s, ids + i, 1, &e));
        for (int i = 0; i < VOCAB; i++) assert_true(fabs((double)want[i] - tq_session_logits(s)[i]) < .05);
        OK(tq_session_rewind(s, 0, &e));
        OK(tq_session_eval(s, ids, 20, &e));
        OK(tq_session_eval(fresh, ids, 20, &e));
        assert_memory_equal(tq_session_logits(fresh), tq_session_logits(s), sizeof want);
        tq_session_free(s), tq_session_free(fresh);
        tq_model_free(model);
    }
}

static void a_saved_recurrent_state_goes_on_bit_for_bit(void **state) {
    (void)state;
    int32_t ids[120];
    make_ids(ids, 120);
    char path[64];
    snprintf(path, sizeof path, "%s/test_families.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && close(fd) == 0);
    for (int f = 0; f < 3; f++) {
        tq_model *model = open_family(hybrids[f], NULL, 1);
        tq_session *s = session_of(model, "tq3", 200, 32, 8), *loaded = session_of(model, "tq3", 200, 32, 8);
        OK(tq_session_eval(s, ids, 100, &e));
        OK(tq_session_save(s, path, &e));
        OK(tq_session_load(loaded, path, &e));
        assert_int_equal(tq_session_length(loaded), 100);
        for (int i = 100; i < 105; i++) {
            OK(tq_session_eval(s, ids + i, 1, &e));
            OK(tq_session_eval(loaded, ids + i, 1, &e));
            assert_memory_equal(tq_session_logits(s), tq_session_logits(loaded), VOCAB * sizeof(float));
        }
        OK(tq_session_rewind(loaded, 100, &e)); /* what was loaded is a checkpoint */
        /* One byte of the state is wrong. */
        FILE *file = fopen(path, "r+b");
        assert_non_null(file);
        assert_int_equal(fseek(file, -1000, SEEK_END), 0);
        int byte = fgetc(file);
        assert_int_equal(fseek(file, -1000, SEEK_END), 0);
        fputc(byte ^ 1, file);
        fclose(file);
        FAILS(tq_session_load(loaded, path, &e), TQ_FORMAT, "recurrent state's checksum");
        assert_int_equal(tq_session_length(loaded), 0);
        assert_int_equal(truncate(path, 3000), 0);
        FAILS(tq_session_load(loaded, path, &e), TQ_FORMAT, "ends");
        OK(tq_session_eval(loaded, ids, 10, &e));
        tq_session_free(s), tq_session_free(loaded);
        tq_model_free(model);
    }
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compressed_caches_come_close_to_exact_ones),
        cmocka_unit_test(packed_rows_are_attended_to),
        cmocka_unit_test(chunks_and_threads_do_not_matter),
        cmocka_unit_test(a_recurrent_state_goes_back_to_its_checkpoint),
        cmocka_unit_test(a_saved_recurrent_state_goes_on_bit_for_bit),
    };
    return cmocka_run_group_tests_name("families", tests, NULL, NULL);
}
