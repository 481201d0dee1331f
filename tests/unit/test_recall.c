/* test_recall.c: facts in long documents: the file's reader, and what each codec finds. */
#include "testing.h"

#include <turboquant/tq_eval.h>
#include <unistd.h>

static char path[64];

static int make_path(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_recall.XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state) {
    (void)state;
    return unlink(path);
}

static void expect_refusal(const char *text, const char *part) {
    test_write(path, text, strlen(text));
    tq_recall_data *data = NULL;
    tq_error err = {0};
    tq_status status = tq_recall_open(path, &data, &err);
    if (status != TQ_FORMAT || err.code != TQ_FORMAT || !strstr(err.text, part) || !strstr(err.text, path))
        fail_msg("%s: got %d \"%s\", want \"%s\"", text, status, err.text, part);
    assert_null(data);
}

static void malformed_files_are_refused_with_the_place(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", ":"},
        {"[", ":"},
        {"{}", "want an array of documents"},
        {"[]", "want an array of documents"},
        {"3", ":"},
        {"[3]", "document 0: want \"ids\""},
        {"[{}]", "document 0: want \"ids\""},
        {"[{\"ids\":[],\"answers\":[]}]", "document 0: want \"ids\""},
        {"[{\"ids\":\"1,2\",\"answers\":[]}]", "document 0: want \"ids\""},
        {"[{\"ids\":[1,2]}]", "document 0: want \"answers\""},
        {"[{\"ids\":[1,2],\"answers\":\"none\"}]", "document 0: want \"answers\""},
        {"[{\"ids\":[1,2,3],\"answers\":[]},{\"ids\":[1,-2],\"answers\":[]}]", "document 1: id 1: want a token id"},
        {"[{\"ids\":[1,2.5],\"answers\":[]}]", "id 1"},
        {"[{\"ids\":[1,\"2\"],\"answers\":[]}]", "id 1"},
        {"[{\"ids\":[1,2147483648],\"answers\":[]}]", "id 1"},
        {"[{\"ids\":[1,2,3,4],\"answers\":[3]}]", "answer 0: want [from, to]"},
        {"[{\"ids\":[1,2,3,4],\"answers\":[[1]]}]", "answer 0"},
        {"[{\"ids\":[1,2,3,4],\"answers\":[[1,2,3]]}]", "answer 0"},
        {"[{\"ids\":[1,2,3,4],\"answers\":[[0,2]]}]", "answer 0"}, /* nothing comes before token 0 */
        {"[{\"ids\":[1,2,3,4],\"answers\":[[2,2]]}]", "answer 0"},
        {"[{\"ids\":[1,2,3,4],\"answers\":[[3,2]]}]", "answer 0"},
        {"[{\"ids\":[1,2,3,4],\"answers\":[[1,5]]}]", "within 1..4"},
        {"[{\"ids\":[1,2,3,4],\"answers\":[[1,9223372036854775807]]}]", "answer 0"},
        {"[{\"ids\":[1,2,3,4],\"answers\":[[-1,2]]}]", "answer 0"},
        {"[{\"ids\":[1,2,3,4],\"answers\":[[1.5,2]]}]", "answer 0"},
        {"[{\"ids\":[1,2,3,4],\"answers\":[[2,4],[1,2]]}]", "answer 1"}, /* out of order */
        {"[{\"ids\":[1,2,3,4],\"answers\":[[1,3],[2,4]]}]", "answer 1"}, /* overlapping */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) expect_refusal(bad[i].text, bad[i].part);
    tq_recall_data *data = NULL;
    FAILS(tq_recall_open("/tmp/no such recall file", &data, &e), TQ_NOT_FOUND, "no such recall file");
    assert_null(data);
    tq_recall_free(NULL);
}

static void what_is_in_a_file_is_counted(void **state) {
    (void)state;
    const char *text = "[{\"length\":5,\"ids\":[1,2,3,4,5],\"answers\":[[1,2],[2,5]]},{\"ids\":[7],\"answers\":[]}]";
    test_write(path, text, strlen(text));
    tq_recall_data *data;
    OK(tq_recall_open(path, &data, &e));
    assert_int_equal(tq_recall_documents(data), 2);
    assert_int_equal(tq_recall_length(data, 0), 5);
    assert_int_equal(tq_recall_answers(data, 0), 2);
    assert_int_equal(tq_recall_length(data, 1), 1);
    assert_int_equal(tq_recall_answers(data, 1), 0);
    tq_recall_free(data);
}

/* ---- with the bundled model ----------------------------------------------------------------------------------------
 */

static tq_model *bundled(void) {
    tq_model_params params = {.n_threads = 2};
    tq_model *model = NULL;
    OK(tq_model_open(TQ_SOURCE_DIR "/models/bookworm", &params, &model, &e));
    return model;
}

static tq_session_params with_codec(const char *kv) {
    tq_session_params params = tq_session_params_default();
    params.cache.kv = kv; /* the window of 128, 4 sinks */
    return params;
}

static void impossible_documents_are_refused(void **state) {
    (void)state;
    tq_model *model = bundled();
    const char *text = "[{\"ids\":[1,2,3,9999,5],\"answers\":[[2,5]]}]";
    test_write(path, text, strlen(text));
    tq_recall_data *data;
    OK(tq_recall_open(path, &data, &e));
    tq_session_params params = with_codec("tq3");
    tq_recall_result r;
    FAILS(tq_eval_recall(model, data, 0, &params, &r, &e), TQ_INVALID, "9999");
    FAILS(tq_eval_recall(model, data, 1, &params, &r, &e), TQ_INVALID, "document from 0 to 0, got 1");
    FAILS(tq_eval_recall(model, data, -1, &params, &r, &e), TQ_INVALID, "got -1");
    params.cache.kv = "tq9";
    FAILS(tq_eval_recall(model, data, 0, &params, &r, &e), TQ_INVALID, "tq9");
    tq_recall_free(data);
    tq_model_free(model);
}

static void windows_begin_with_the_tokens_in_front(void **state) {
    (void)state;
    const int32_t prefix[] = {90, 91}, text[] = {1, 2, 3, 4, 5, 6, 7};
    tq_recall_data *data;
    OK(tq_recall_from_text(prefix, 2, text, 7, 5, 2, 2, &data, &e));
    assert_int_equal(tq_recall_documents(data), 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(tq_recall_length(data, i), 5);
        assert_int_equal(tq_recall_first_position(data, i), 2);
    }
    assert_memory_equal(tq_recall_ids(data, 0), ((int32_t[]){90, 91, 1, 2, 3}), 5 * sizeof *text);
    assert_memory_equal(tq_recall_ids(data, 1), ((int32_t[]){90, 91, 5, 6, 7}), 5 * sizeof *text);
    tq_recall_free(data);
    OK(tq_recall_from_text(prefix, 2, text, 7, 9, 1, 6, &data, &e)); /* the whole text */
    assert_int_equal(tq_recall_ids(data, 0)[8], 7);
    tq_recall_free(data);
    FAILS(tq_recall_from_text(prefix, 2, text, 7, 10, 1, 6, &data, &e), TQ_INVALID, "the text has 7 tokens, a window 8");
    FAILS(tq_recall_from_text(prefix, 2, text, 7, 5, 1, 3, &data, &e), TQ_INVALID, "leave no 3 positions");
}

/* An answer that is nobody's argmax must not count: the count is of answers, not of documents read. */
static void wrong_answers_are_counted_as_wrong(void **state) {
    (void)state;
    tq_model *model = bundled();
    const char *text = "[{\"ids\":[100,200,300,400,500,600,700,800],\"answers\":[[2,4],[5,8]]}]";
    test_write(path, text, strlen(text));
    tq_recall_data *data;
    OK(tq_recall_open(path, &data, &e));
    tq_session_params params = with_codec("f16");
    tq_recall_result r;
    OK(tq_eval_recall(model, data, 0, &params, &r, &e));
    assert_int_equal(r.total, 2);
    assert_int_equal(r.right, 0);
    tq_recall_free(data);
    tq_model_free(model);
}

static tq_recall_result find(tq_model *model, const tq_recall_data *data, int document, const char *kv) {
    tq_session_params params = with_codec(kv);
    tq_recall_result r;
    OK(tq_eval_recall(model, data, document, &params, &r, &e));
    assert_int_equal(r.total, tq_recall_answers(data, document));
    print_message("   %s: %d of %d, %.2f bits a value, %.1f %% packed, %.1f s\n", kv, r.right, r.total,
                  r.bits_per_value, 100 * r.packed_fraction, r.seconds);
    return r;
}

/* The prior system's codec does not centre keys; bookworm's biased keys leave it nothing (issue 2: 0 of 74).
 * If it ever finds as much as tq3, this test no longer shows that centring is at work. */
static void tq3_finds_what_f16_finds_and_uncentred_keys_do_not(void **state) {
    (void)state;
    tq_model *model = bundled();
    tq_recall_data *data;
    OK(tq_recall_open(TQ_SOURCE_DIR "/tests/goldens/recall/recall.json", &data, &e));
    int first = 0, length = TESTING_ASAN ? 2049 : 4097; /* the first of that many; a sanitizer takes its time */
    while (first < tq_recall_documents(data) && tq_recall_length(data, first) != length) first++;
    assert_true(first < tq_recall_documents(data));
    tq_recall_result exact = find(model, data, first, "f16"), packed = find(model, data, first, "tq3");
    assert_true(exact.total == (TESTING_ASAN ? 5 : 11) && exact.right >= exact.total - 1);
    assert_true(exact.packed_fraction == 0 && exact.bits_per_value == 16);
    assert_true(packed.right >= exact.right - 1);
    assert_true(packed.packed_fraction > .9 && packed.bits_per_value < 3.25);
    int shorter = 0; /* 2,048 tokens: dense rotations of every row take their time */
    while (tq_recall_length(data, shorter) != 2049) shorter++;
    tq_recall_result prior = find(model, data, shorter, "mlx-k3v2"), ours = find(model, data, shorter, "tq3");
    assert_true(prior.packed_fraction > .9 && prior.total >= 4);
    assert_true(prior.right <= 1);
    assert_true(ours.right >= ours.total - 1);
    tq_recall_free(data);
    tq_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_files_are_refused_with_the_place),
        cmocka_unit_test(what_is_in_a_file_is_counted),
        cmocka_unit_test(impossible_documents_are_refused),
        cmocka_unit_test(windows_begin_with_the_tokens_in_front),
        cmocka_unit_test(wrong_answers_are_counted_as_wrong),
        cmocka_unit_test(tq3_finds_what_f16_finds_and_uncentred_keys_do_not),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
