/* test_codec_names.c: which names are codecs, and what is said of those that are not. */
#include "testing.h"

#include "codec/codec.h"

static tq_codec *codec_of(const char *name, int dim, uint64_t seed) {
    tq_codec *codec = NULL;
    OK(tq_codec_new(name, dim, seed, &codec, &e));
    return codec;
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static void unknown_names_and_wrong_numbers_are_refused(void **state) {
    (void)state;
    tq_codec *codec = (tq_codec *)&state;
    static const char *const unknown[] = {"",
                                          "tq",
                                          "tq1",
                                          "tq5",
                                          "tq33",
                                          "TQ3",
                                          "tq3 ",
                                          " tq3",
                                          "q4",
                                          "f64",
                                          "paper-mse",
                                          "paper-mse:",
                                          "paper-mse:x",
                                          "paper-mse:2x",
                                          "paper-mse:-2",
                                          "paper-mse:+2",
                                          "paper-mse: 2",
                                          "paper-prod",
                                          "minmax",
                                          "minmax:",
                                          "minmax:4:",
                                          "minmax:4:32:1",
                                          "minmax:4:x",
                                          "paper:2",
                                          "paper:2.5x",
                                          "paper:4.5",
                                          "uniform",
                                          "q4-group:",
                                          "q6-group",
                                          "paper-prod-orth",
                                          "a name that is far longer than any codec's name can be"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        FAILS(tq_codec_new(unknown[i], 128, 0, &codec, &e), TQ_INVALID, "unknown codec");
    FAILS(tq_codec_new(NULL, 128, 0, &codec, &e), TQ_INVALID, "unknown codec");
    FAILS(tq_codec_new("paper-mse:0", 128, 0, &codec, &e), TQ_INVALID, "want 1 to 8 bits, got 0");
    FAILS(tq_codec_new("paper-mse:9", 128, 0, &codec, &e), TQ_INVALID, "want 1 to 8 bits, got 9");
    FAILS(tq_codec_new("paper-mse:99999999999999999999", 128, 0, &codec, &e), TQ_INVALID, "paper-mse");
    FAILS(tq_codec_new("paper-prod:1", 128, 0, &codec, &e), TQ_INVALID, "want 2 to 4 bits, got 1");
    FAILS(tq_codec_new("paper-prod:5", 128, 0, &codec, &e), TQ_INVALID, "want 2 to 4 bits, got 5");
    FAILS(tq_codec_new("paper-prod-orth:5", 128, 0, &codec, &e), TQ_INVALID, "want 2 to 4 bits, got 5");
    FAILS(tq_codec_new("uniform:1", 128, 0, &codec, &e), TQ_INVALID, "want 2 to 4 bits, got 1");
    FAILS(tq_codec_new("uniform:3", 72, 0, &codec, &e), TQ_INVALID, "multiple of 16, up to 512, got 72");
    FAILS(tq_codec_new("paper:2.5", 66, 0, &codec, &e), TQ_INVALID, "multiple of 4, from 16, got 66");
    FAILS(tq_codec_new("paper:2.5", 12, 0, &codec, &e), TQ_INVALID, "multiple of 4, from 16, got 12");
    FAILS(tq_codec_new("q4-group", 80, 0, &codec, &e), TQ_INVALID, "divides 80, got 64");
    FAILS(tq_codec_new("minmax:3", 128, 0, &codec, &e), TQ_INVALID, "want 2 or 4 bits, got 3");
    FAILS(tq_codec_new("minmax:2:3", 128, 0, &codec, &e), TQ_INVALID, "group");
    FAILS(tq_codec_new("minmax:2:0", 128, 0, &codec, &e), TQ_INVALID, "group");
    FAILS(tq_codec_new("minmax:2:48", 128, 0, &codec, &e), TQ_INVALID, "divides 128, got 48");
    FAILS(tq_codec_new("minmax:2", 80, 0, &codec, &e), TQ_INVALID, "divides 80, got 32");
    FAILS(tq_codec_new("tq3", 72, 0, &codec, &e), TQ_INVALID, "multiple of 16, up to 512, got 72");
    FAILS(tq_codec_new("q8", 528, 0, &codec, &e), TQ_INVALID, "got 528");
    static const int dims[] = {-128, 0, 2, 3, 5, 127, 1026, INT32_MAX};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        FAILS(tq_codec_new("paper-mse:2", dims[i], 0, &codec, &e), TQ_INVALID, "dimension from 4 to 1024");
    assert_ptr_equal(codec, &state); /* untouched by a failure */
    tq_codec_free(NULL);
    static const int fine[] = {4, 6, 34, 1024};
    for (int i = 0; i < 4; i++) {
        codec = codec_of(i < 3 ? "paper-mse:3" : "f16", fine[i], 0);
        tq_codec_free(codec);
    }
}

/* The list in messages and the table of families are one beside the other; here, that they say the same. */
static void every_name_of_the_list_is_a_codec(void **state) {
    (void)state;
    static const char *const listed[] = {"f32", "f16", "q8", "tq2", "tq2.5", "tq3", "tq3.5", "tq4", "lm2", "lm3", "lm4", "tcq2", "tcq3", "tcq4", "vq2.5", "vq3", "vq3.5", "uniform:2..4",
                                         "paper-mse:1..8", "paper-prod:2..4", "paper-prod-orth:2..4", "paper:2.5|3.5",
                                         "minmax:2|4[:GROUP]", "q4-group[:GROUP]", "q8-group[:GROUP]"};
    static const char *const made[] = {"f32", "f16", "q8", "tq2", "tq2.5", "tq3", "tq3.5", "tq4", "lm2", "lm3", "lm4", "tcq2", "tcq3", "tcq4", "vq2.5", "vq3", "vq3.5", "uniform:4",
                                       "paper-mse:8", "paper-prod:2", "paper-prod-orth:3", "paper:3.5",
                                       "minmax:2:16", "q4-group", "q8-group:32"};
    size_t length = 0;
    for (size_t i = 0; i < sizeof listed / sizeof *listed; i++) {
        assert_non_null(strstr(tq_codec_names, listed[i]));
        length += strlen(listed[i]) + (i > 0 ? 2 : 0);
        assert_true(tq_codec_is_known(made[i]));
        tq_codec_free(codec_of(made[i], 128, 0));
    }
    assert_int_equal(length, strlen(tq_codec_names)); /* nothing else */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_names_and_wrong_numbers_are_refused),
        cmocka_unit_test(every_name_of_the_list_is_a_codec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
