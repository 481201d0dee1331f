/* test_synthetic.c: models with random weights.  Guards against scales that part from their biases where values repeat,
 * against shapes that are not those published, and against a repeated file that takes the memory of a whole one. */
#include "testing.h"

#include <turboquant/tq.h>

#include "base/half.h"
#include "engine/synthetic.h"
#include "engine/synthetic_shapes.h"
#include "file/safetensors.h"

static const tq_tensor *find(const tq_safetensors *st, const char *path, size_t n, const char *part) {
    char name[128];
    snprintf(name, sizeof name, "%.*s%s", (int)n, path, part);
    for (int i = 0; i < st->n_tensors; i++)
        if (strcmp(st->tensors[i].name, name) == 0) return &st->tensors[i];
    return NULL;
}

static void biases_belong_to_their_scales(void **state) {
    (void)state;
    static const char *const names[] = {"synthetic:tiny", "synthetic:tiny-hybrid"};
    for (int k = 0; k < 2; k++) {
        tq_synthetic made;
        tq_safetensors st;
        int n_pairs = 0;
        OK(tq_synthetic_make(names[k], 0, &made, &e));
        OK(tq_safetensors_parse(made.image.data, made.image.bytes, names[k], &st, &e));
        for (int i = 0; i < st.n_tensors; i++) {
            const char *dot = strrchr(st.tensors[i].name, '.');
            if (strcmp(dot, ".scales") != 0) continue;
            const tq_tensor *biases = find(&st, st.tensors[i].name, (size_t)(dot - st.tensors[i].name), ".biases");
            const tq_tensor *codes = find(&st, st.tensors[i].name, (size_t)(dot - st.tensors[i].name), ".weight");
            assert_true(biases && codes && biases->bytes == st.tensors[i].bytes && codes->bytes == 16 * biases->bytes);
            const uint16_t *s = st.tensors[i].data, *b = biases->data;
            for (size_t j = 0; j < biases->bytes / 2; j++)
                if (tq_bf16_f32(s[j]) <= 0 || b[j] != tq_f32_bf16(-7.5f * tq_bf16_f32(s[j]))) fail_msg("%s: group %zu", st.tensors[i].name, j);
            n_pairs++;
        }
        assert_true(n_pairs >= 10);
        assert_int_equal(made.repeated, k == 1);
        if (k == 1) assert_true((size_t)made.bytes * 3 < made.image.bytes); /* it would be 17 MB */
        else assert_int_equal(made.bytes, made.image.bytes);
        tq_safetensors_free(&st);
        json_decref(made.config);
        tq_file_map_close(&made.image);
    }
}

/* A hybrid with experts answers like any model: finite logits that depend on the tokens, the same in one go and token by token. */
static void a_repeated_hybrid_runs(void **state) {
    (void)state;
    enum { N = 40 };
    tq_model *model;
    tq_session *sessions[2];
    tq_session_params params = tq_session_params_default();
    int32_t ids[N];
    params.ctx = 64;
    params.cache.kv = "f32";
    OK(tq_model_open("synthetic:tiny-hybrid", &(tq_model_params){.n_threads = 1}, &model, &e));
    int vocab = tq_model_get_info(model)->vocab;
    for (int i = 0; i < N; i++) ids[i] = (i * 577 + 3) % vocab;
    for (int k = 0; k < 2; k++) OK(tq_session_new(model, &params, &sessions[k], &e));
    OK(tq_session_eval(sessions[0], ids, N, &e));
    for (int i = 0; i < N; i++) OK(tq_session_eval(sessions[1], ids + i, 1, &e));
    const float *a = tq_session_logits(sessions[0]), *b = tq_session_logits(sessions[1]);
    float largest = 0, difference = 0;
    for (int i = 0; i < vocab; i++) {
        assert_true(isfinite(a[i]));
        largest = fmaxf(largest, fabsf(a[i]));
        difference = fmaxf(difference, fabsf(a[i] - b[i]));
    }
    assert_true(largest > 0.1f);
    if (difference > 1e-3f * largest) fail_msg("token by token differs by %g of %g", (double)difference, (double)largest);
    for (int k = 0; k < 2; k++) tq_session_free(sessions[k]);
    tq_model_free(model);
}

/* Nothing is made: the tensors' shapes alone. */
static void shapes_are_those_published(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double parameters;
    } published[] = {{"qwen2.5-0.5b", 494e6}, {"llama-3.1-8b", 8.03e9}, {"qwen2.5-32b", 32.76e9}, {"llama-3.1-70b", 70.55e9},
                     {"qwen3.5-35b-a3b", 34.66e9}};
    for (size_t k = 0; k < sizeof published / sizeof *published; k++) {
        const tq_shape *shape;
        tq_synthetic_tensors list = {0};
        double parameters = 0;
        OK(tq_shape_find(published[k].name, &shape, &e));
        assert_true(tq_shape_tensors(shape, &list));
        for (size_t i = 0; i < list.n; i++) {
            if (list.at[i].kind == TQ_SYNTHETIC_CODES) parameters += 2.0 * (double)list.at[i].bytes;
            if (list.at[i].kind >= TQ_SYNTHETIC_NORM) parameters += (double)list.at[i].bytes / 2;
        }
        if (fabs(parameters / published[k].parameters - 1) > 0.002) fail_msg("%s: %.0f parameters", published[k].name, parameters);
        free(list.at);
    }
    tq_model *model;
    FAILS(tq_model_open("synthetic:nix", NULL, &model, &e), TQ_NOT_FOUND, "qwen3.5-35b-a3b");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(biases_belong_to_their_scales),
        cmocka_unit_test(a_repeated_hybrid_runs),
        cmocka_unit_test(shapes_are_those_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
