/* test_bench.c: synthetic models and what `tq bench` measures with. */
#include "testing.h"

#include <turboquant/tq_bench.h>

static tq_model *open_tiny(int threads) {
    tq_model *m;
    tq_model_params params = {.n_threads = threads};
    OK(tq_model_open("synthetic:tiny", &params, &m, &e));
    return m;
}

static tq_session *new_session(tq_model *m, const char *kv, int ctx) {
    tq_session *s;
    tq_session_params params = tq_session_params_default();
    params.cache.kv = kv;
    params.ctx = ctx;
    OK(tq_session_new(m, &params, &s, &e));
    return s;
}

static void an_unknown_shape_is_refused_with_what_there_is(void **state) {
    (void)state;
    tq_model *m;
    FAILS(tq_model_open("synthetic:gpt-9", NULL, &m, &e), TQ_NOT_FOUND, "qwen2.5-0.5b, ");
    FAILS(tq_model_open("synthetic:", NULL, &m, &e), TQ_NOT_FOUND, "no such shape");
}

/* Somebody who takes its text for a model's must be told. */
static void a_synthetic_model_says_that_it_is_one(void **state) {
    (void)state;
    tq_model *m = open_tiny(1);
    const tq_model_info *info = tq_model_get_info(m);
    assert_true(info->synthetic);
    assert_non_null(strstr(info->weights, "random"));
    assert_string_equal(info->path, "synthetic:tiny");
    /* 2 tables of 2048 x 512 and 2 layers: 4.5 bits a value (codes, a scale and a bias in 16 bits for 64 of them) */
    int64_t layer = 512 * 512 * 2 + 512 * 256 * 2 + 3 * 512 * 768, table = 2048 * 512;
    assert_int_equal(info->weight_bytes, (2 * layer + 2 * table) * 9 / 16 + 2 * (512 + 2 * 256 + 2 * 512) * 2 + 512 * 2);
    assert_int_equal(info->token_bytes, info->weight_bytes - (table - 512) * 9 / 16);
    int32_t *ids;
    size_t n;
    tq_error err;
    assert_int_not_equal(tq_tokenize(m, "x", 1, false, &ids, &n, &err), TQ_OK);
    tq_model_free(m);
}

/* The same weights every time and any number of threads, numbers that a model could have. */
static void synthetic_logits_are_finite_and_always_the_same(void **state) {
    (void)state;
    float *first = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        tq_model *m = open_tiny(threads);
        tq_session *s = new_session(m, "tq3", 512);
        int32_t ids[300];
        for (int i = 0; i < 300; i++) ids[i] = i * 37 % 2048;
        OK(tq_session_eval(s, ids, 300, &e));
        OK(tq_session_eval(s, ids, 1, &e));
        const float *logits = tq_session_logits(s);
        double squares = 0;
        for (int i = 0; i < 2048; i++) squares += (double)logits[i] * logits[i];
        assert_true(squares / 2048 > 0.01 && squares / 2048 < 100);
        if (!first) first = memcpy(test_floats(2048), logits, 2048 * sizeof *first);
        assert_memory_equal(first, logits, 2048 * sizeof *first);
        tq_session_free(s);
        tq_model_free(m);
    }
    free(first);
}

static void a_filled_context_is_as_long_and_as_large_as_a_computed_one(void **state) {
    (void)state;
    tq_model *m = open_tiny(1);
    tq_session *filled = new_session(m, "tq3", 1200), *computed = new_session(m, "tq3", 1200);
    int32_t ids[1000] = {0};
    OK(tq_bench_fill(filled, 1000, &e));
    OK(tq_session_eval(computed, ids, 1000, &e));
    tq_cache_stats a, b;
    tq_session_get_cache_stats(filled, &a);
    tq_session_get_cache_stats(computed, &b);
    assert_int_equal(tq_session_length(filled), 1000);
    assert_int_equal(a.packed_tokens, b.packed_tokens);
    assert_true(a.packed_tokens > 800);
    assert_int_equal(a.bytes, b.bytes);
    assert_null(tq_session_logits(filled));
    OK(tq_session_eval(filled, ids, 1, &e));
    for (int i = 0; i < 2048; i++) assert_true(isfinite(tq_session_logits(filled)[i]));
    FAILS(tq_bench_fill(filled, 200, &e), TQ_FULL, "1001 tokens held and 200 new ones");
    FAILS(tq_bench_fill(filled, -1, &e), TQ_INVALID, "fill");
    assert_int_equal(tq_session_length(filled), 1001);
    tq_session_free(filled);
    tq_session_free(computed);
    tq_model_free(m);
}

static void bandwidth_is_what_a_memory_could_have(void **state) {
    (void)state;
    double rate;
    OK(tq_bench_read_bandwidth(1, 8 << 20, 2, &rate, &e));
    assert_true(rate > 0.05 && rate < 5000);
    FAILS(tq_bench_read_bandwidth(1, 1, 2, &rate, &e), TQ_INVALID, "bandwidth");
}

typedef struct kernel_rows {
    int n, stop_after;
} kernel_rows;

static bool see_row(void *ctx, const tq_kernel_row *row) {
    kernel_rows *rows = ctx;
    if (!(row->error <= row->tolerance)) fail_msg("%s %s %s: %g", row->kernels, row->name, row->shape, row->error);
    assert_true(row->nanoseconds > 0 && row->bytes_per_second > 0);
    return ++rows->n != rows->stop_after;
}

static void measured_kernels_are_right(void **state) {
    (void)state;
    kernel_rows rows = {0};
    tq_bench_kernels_params params = {.filter = "rows_f16", .repeats = 1, .seconds = 1e-4};
    OK(tq_bench_kernels(&params, see_row, &rows, &e));
    assert_true(rows.n >= 2);
    rows = (kernel_rows){.stop_after = 1};
    FAILS(tq_bench_kernels(&params, see_row, &rows, &e), TQ_CANCELLED, "cancelled");
    params.repeats = 0;
    FAILS(tq_bench_kernels(&params, see_row, &rows, &e), TQ_INVALID, "repeats");
    params = (tq_bench_kernels_params){.kernels = "sse9", .repeats = 1};
    FAILS(tq_bench_kernels(&params, see_row, &rows, &e), TQ_INVALID, "sse9");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_shape_is_refused_with_what_there_is),
        cmocka_unit_test(a_synthetic_model_says_that_it_is_one),
        cmocka_unit_test(synthetic_logits_are_finite_and_always_the_same),
        cmocka_unit_test(a_filled_context_is_as_long_and_as_large_as_a_computed_one),
        cmocka_unit_test(bandwidth_is_what_a_memory_could_have),
        cmocka_unit_test(measured_kernels_are_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
