/* test_reasoning_split.c: what a model thought and what it said, in each of the forms, however the text is cut. */
#include "testing.h"

#include "../../tools/server/reasoning_split.c"

typedef struct split_text {
    char thought[256], said[256];
} split_text;

static void collect(void *ctx, bool thought, const char *text, size_t n) {
    split_text *s = ctx;
    strncat(thought ? s->thought : s->said, text, n);
}

static void want_split(int format, bool opened, const char *text, const char *thought, const char *said) {
    for (size_t step = 1; step <= strlen(text); step++) {
        split_text got = {0};
        reasoning_split r = {.marks = &reasoning_formats[format], .state = opened ? REASONING_OPENED : REASONING_START};
        for (size_t i = 0, n = strlen(text); i < n; i += step) reasoning_push(&r, text + i, n - i < step ? n - i : step, collect, &got);
        reasoning_finish(&r, collect, &got);
        assert_string_equal(got.thought, thought);
        assert_string_equal(got.said, said);
    }
}

static void tags_of_each_model(void **state) {
    (void)state;
    static const char *const tags[][2] = {{"<think>", "</think>"}, {"[THINK]", "[/THINK]"}, {"<seed:think>", "</seed:think>"}};
    for (int f = 0; f < 3; f++) {
        char text[256];
        snprintf(text, sizeof text, "\n%s\nHm, %.3s</x.\n%s\n\nIt is %s.", tags[f][0], tags[f][1], tags[f][1], tags[f][0]);
        char thought[64], said[64];
        snprintf(thought, sizeof thought, "Hm, %.3s</x.", tags[f][1]);
        snprintf(said, sizeof said, "It is %s.", tags[f][0]);
        want_split(f, false, text, thought, said);
        snprintf(text, sizeof text, "Hm.%sYes.", tags[f][1]);
        want_split(f, true, text, "Hm.", "Yes.");
        want_split(f, false, "No marks at all <", "", "No marks at all <");
        want_split(f, true, "Cut off within </", "Cut off within </", "");
        snprintf(text, sizeof text, "x %s ", tags[f][0]);
        assert_true(reasoning_is_open(&reasoning_formats[f], text, strlen(text)));
        assert_false(reasoning_is_open(&reasoning_formats[(f + 1) % 3], text, strlen(text)));
    }
    want_split(0, false, "[THINK]a[/THINK]b", "", "[THINK]a[/THINK]b"); /* another model's */
}

static void channels(void **state) {
    (void)state;
    want_split(3, false, "<|channel|>analysis<|message|>Let me see. <|end|><|start|>assistant<|channel|>final<|message|>Lisbon.", "Let me see.", "Lisbon.");
    want_split(3, false, "<|channel|>final<|message|>Lisbon <|en> .", "", "Lisbon <|en> .");
    want_split(3, false, "<|channel|>commentary<|message|>First,<|end|><|start|>assistant<|channel|>analysis<|message|>a<|end|><|start|>assistant"
                         "<|channel|>analysis<|message|>b<|end|><|start|>assistant<|channel|>final<|message|> then.", "ab", "First, then.");
    want_split(3, false, "<|channel|>final and a very long header, longer than what is held of it, and then more<|message|>x", "", "x");
    want_split(3, false, "<|channel|>analysis<|message|>cut o", "cut o", "");
    want_split(3, false, "<|channel|>analy", "", "");
    want_split(3, false, "No channel.", "", "No channel.");
    assert_false(reasoning_is_open(&reasoning_formats[3], "<|channel|>", 11));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tags_of_each_model),
        cmocka_unit_test(channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
