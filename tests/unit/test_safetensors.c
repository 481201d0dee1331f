/* test_safetensors.c: hostile and honest headers.  Every test is named after the failure it guards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "file/safetensors.h"

#define LABEL "m.safetensors"

/* A file with this header and data_bytes zero bytes behind it, in an allocation of exactly its size so that a sanitizer
 * sees every byte read beyond it. */
static uint8_t *make_file(const char *header, size_t data_bytes, size_t *bytes) {
    size_t n = strlen(header);
    *bytes = 8 + n + data_bytes;
    uint8_t *file = calloc(1, *bytes);
    assert_non_null(file);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)n >> 8 * i);
    memcpy(file + 8, header, n);
    return file;
}

static void expect_failure(const char *header, size_t data_bytes, tq_status want, const char *text) {
    size_t bytes;
    uint8_t *file = make_file(header, data_bytes, &bytes);
    tq_safetensors st;
    tq_error err = {0};
    tq_status status = tq_safetensors_parse(file, bytes, LABEL, &st, &err);
    if (status != want || !strstr(err.text, text) || strncmp(err.text, LABEL, strlen(LABEL)) != 0)
        fail_msg("%.200s: got %d \"%s\", want %d \"%s\"", header, status, err.text, want, text);
    assert_int_equal(err.code, want);
    assert_null(st.tensors);
    assert_int_equal(st.n_tensors, 0);
    tq_safetensors_free(&st); /* harmless after a failure */
    assert_int_equal(tq_safetensors_parse(file, bytes, LABEL, &st, NULL), want);
    free(file);
}

#define ENTRY(name, dtype, shape, begin, end)                                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void honest_tensors_are_read(void **state) {
    (void)state;
    size_t bytes;
    uint8_t *file =
        make_file("{\"__metadata__\":{\"format\":\"pt\"}," ENTRY("b", "BF16", "[2,3]", 0, 12) "," ENTRY(
                      "a", "F32", "[1]", 12, 16) "," ENTRY("scalar", "I64", "[]", 16,
                                                           24) "," ENTRY("none", "F8_E4M3", "[0,7]", 16,
                                                                         16) "," ENTRY("deep", "U8", "[1,1,1,1,1,2]",
                                                                                       24, 26) "}   ",
                  26, &bytes);
    tq_safetensors st;
    tq_error err;
    assert_int_equal(tq_safetensors_parse(file, bytes, LABEL, &st, &err), TQ_OK);
    assert_int_equal(st.n_tensors, 5);
    const uint8_t *data = file + bytes - 26;
    assert_string_equal(st.tensors[0].name, "b"); /* the header's order, not the alphabet's */
    assert_int_equal(st.tensors[0].dtype, TQ_BF16);
    assert_int_equal(st.tensors[0].n_dims, 2);
    assert_int_equal(st.tensors[0].shape[0], 2);
    assert_int_equal(st.tensors[0].shape[1], 3);
    assert_ptr_equal(st.tensors[0].data, data);
    assert_string_equal(st.tensors[1].name, "a");
    assert_ptr_equal(st.tensors[1].data, data + 12);
    assert_int_equal(st.tensors[2].n_dims, 0);
    assert_int_equal(st.tensors[2].bytes, 8);
    assert_int_equal(st.tensors[3].bytes, 0);
    assert_int_equal(st.tensors[4].n_dims, 6);
    free(file);
    /* The names are the parser's own, not the file's. */
    assert_string_equal(st.tensors[4].name, "deep");
    tq_safetensors_free(&st);
}

static void every_dtype_is_known(void **state) {
    (void)state;
    static const struct {
        const char *name;
        tq_dtype dtype;
        int bytes;
    } cases[] = {{"F64", TQ_F64, 8},         {"F32", TQ_F32, 4},         {"F16", TQ_F16, 2},  {"BF16", TQ_BF16, 2},
                 {"I64", TQ_I64, 8},         {"I32", TQ_I32, 4},         {"I16", TQ_I16, 2},  {"I8", TQ_I8, 1},
                 {"U64", TQ_U64, 8},         {"U32", TQ_U32, 4},         {"U16", TQ_U16, 2},  {"U8", TQ_U8, 1},
                 {"F8_E4M3", TQ_F8_E4M3, 1}, {"F8_E5M2", TQ_F8_E5M2, 1}, {"BOOL", TQ_BOOL, 1}};
    assert_int_equal(sizeof cases / sizeof *cases, TQ_Q4_0); /* the first that GGUF alone has */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[200];
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}",
                 cases[i].name, 3 * cases[i].bytes);
        size_t bytes;
        uint8_t *file = make_file(header, 24, &bytes);
        tq_safetensors st;
        tq_error err;
        assert_int_equal(tq_safetensors_parse(file, bytes, LABEL, &st, &err), TQ_OK);
        assert_int_equal(st.tensors[0].dtype, cases[i].dtype);
        assert_string_equal(tq_safetensors_dtype_name(cases[i].dtype), cases[i].name);
        tq_safetensors_free(&st);
        free(file);
    }
    expect_failure("{" ENTRY("t", "F4", "[2]", 0, 1) "}", 1, TQ_UNSUPPORTED, "F4");
    expect_failure("{" ENTRY("t", "f32", "[1]", 0, 4) "}", 4, TQ_UNSUPPORTED, "f32");
}

static void truncated_files_are_refused_at_every_length(void **state) {
    (void)state;
    size_t bytes;
    uint8_t *file = make_file("{" ENTRY("a", "F32", "[2]", 0, 8) "," ENTRY("b", "U8", "[3]", 8, 11) "}", 11, &bytes);
    for (size_t n = 0; n < bytes; n++) {
        uint8_t *part = malloc(n ? n : 1);
        assert_non_null(part);
        memcpy(part, file, n);
        tq_safetensors st;
        tq_error err;
        assert_int_equal(tq_safetensors_parse(n ? part : NULL, n, LABEL, &st, &err), TQ_FORMAT);
        free(part);
    }
    free(file);
}

static void header_length_beyond_the_file_or_the_limit_is_refused(void **state) {
    (void)state;
    tq_safetensors st;
    tq_error err;
    uint8_t file[16] = {9, 0, 0, 0, 0, 0, 0, 0, '{', '}', ' ', ' ', ' ', ' ', ' ', ' '};
    assert_int_equal(tq_safetensors_parse(file, 16, LABEL, &st, &err), TQ_FORMAT);
    assert_non_null(strstr(err.text, "9 bytes"));
    memset(file, 0xff, 8); /* 8 + length wraps around to 7 */
    assert_int_equal(tq_safetensors_parse(file, 16, LABEL, &st, &err), TQ_FORMAT);
    memset(file, 0, 8);
    file[0] = 8;
    assert_int_equal(tq_safetensors_parse(file, 16, LABEL, &st, &err), TQ_OK);
    tq_safetensors_free(&st);
    size_t bytes = ((size_t)101 << 20) + 8, n = bytes - 8;
    uint8_t *large = calloc(1, bytes);
    assert_non_null(large);
    for (int i = 0; i < 8; i++) large[i] = (uint8_t)((uint64_t)n >> 8 * i);
    assert_int_equal(tq_safetensors_parse(large, bytes, LABEL, &st, &err), TQ_FORMAT);
    assert_non_null(strstr(err.text, "at most"));
    free(large);
}

static void headers_that_are_not_a_json_object_are_refused(void **state) {
    (void)state;
    expect_failure("", 0, TQ_FORMAT, "header");
    expect_failure("[]", 0, TQ_FORMAT, "object");
    expect_failure("{\"a\":", 0, TQ_FORMAT, "header");
    expect_failure("{} {}", 0, TQ_FORMAT, "header");
    expect_failure("{\"a\xff\":1}", 0, TQ_FORMAT, "header");
    expect_failure("{\"a\":1}", 0, TQ_FORMAT, "want an object");
    expect_failure("{\"a\":{}}", 0, TQ_FORMAT, "dtype");
    expect_failure("{\"a\":{\"dtype\":\"F32\"}}", 0, TQ_FORMAT, "shape");
    expect_failure("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, TQ_FORMAT, "data_offsets");
    expect_failure("{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, TQ_FORMAT, "dtype");
    expect_failure("{\"a\":{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[0,4]}}", 4, TQ_FORMAT, "shape");
    expect_failure("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, TQ_FORMAT, "two integers");
    expect_failure("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4, TQ_FORMAT, "two integers");
    expect_failure("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 8, TQ_FORMAT, "two integers");
}

static void deep_json_does_not_exhaust_the_stack(void **state) {
    (void)state;
    size_t n = 1 << 20;
    char *header = malloc(n + 1);
    assert_non_null(header);
    memset(header, '[', n);
    header[n] = 0;
    expect_failure(header, 0, TQ_FORMAT, "header");
    free(header);
}

static void duplicate_names_are_refused(void **state) {
    (void)state;
    expect_failure("{" ENTRY("a", "U8", "[1]", 0, 1) "," ENTRY("a", "U8", "[1]", 1, 2) "}", 2, TQ_FORMAT, "duplicate");
}

static void names_that_would_break_error_lines_are_refused(void **state) {
    (void)state;
    expect_failure("{" ENTRY("a\\nb", "U8", "[1]", 0, 1) "}", 1, TQ_FORMAT, "control character");
    expect_failure("{" ENTRY("\\u001b[2J", "U8", "[1]", 0, 1) "}", 1, TQ_FORMAT, "control character");
    expect_failure("{" ENTRY("a\\u0000b", "U8", "[1]", 0, 1) "}", 1, TQ_FORMAT, "header");
    expect_failure("{" ENTRY("", "U8", "[1]", 0, 1) "}", 1, TQ_FORMAT, "name of 0 bytes");
    char header[800], name[514];
    memset(name, 'x', 513);
    name[513] = 0;
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", name);
    expect_failure(header, 1, TQ_FORMAT, "name of 513 bytes");
}

static void shapes_that_overflow_are_refused(void **state) {
    (void)state;
    /* 2^62 * 4 is 2^64, which is 0: the data would seem to fit. */
    expect_failure("{" ENTRY("a", "F32", "[4611686018427387904]", 0, 0) "}", 0, TQ_FORMAT, "overflows");
    expect_failure("{" ENTRY("a", "U8", "[4294967296,4294967296]", 0, 0) "}", 0, TQ_FORMAT, "overflows");
    expect_failure("{" ENTRY("a", "U8", "[0,4294967296,4294967296]", 0, 0) "}", 0, TQ_FORMAT, "overflows");
    expect_failure("{" ENTRY("a", "F32", "[99999999999999999999]", 0, 0) "}", 0, TQ_FORMAT, "header");
}

static void dimensions_that_are_negative_or_no_integers_are_refused(void **state) {
    (void)state;
    expect_failure("{" ENTRY("a", "U8", "[-1]", 0, 1) "}", 1, TQ_FORMAT, "dimension 0");
    expect_failure("{" ENTRY("a", "U8", "[-1,-1]", 0, 1) "}", 1, TQ_FORMAT, "dimension 0");
    expect_failure("{" ENTRY("a", "U8", "[1,1.0]", 0, 1) "}", 1, TQ_FORMAT, "dimension 1");
    expect_failure("{" ENTRY("a", "U8", "[\"1\"]", 0, 1) "}", 1, TQ_FORMAT, "dimension 0");
    expect_failure("{" ENTRY("a", "U8", "[1,1,1,1,1,1,1]", 0, 1) "}", 1, TQ_UNSUPPORTED, "7 dimensions");
}

static void offsets_outside_the_data_are_refused(void **state) {
    (void)state;
    expect_failure("{" ENTRY("a", "F32", "[1]", 0, 4) "}", 3, TQ_FORMAT, "3 bytes of data");
    expect_failure("{" ENTRY("a", "F32", "[1]", -4, 0) "}", 8, TQ_FORMAT, "do not lie");
    expect_failure("{" ENTRY("a", "F32", "[1]", 8, 4) "}", 8, TQ_FORMAT, "do not lie");
    expect_failure("{" ENTRY("a", "F32", "[1]", 9223372036854775803, 9223372036854775807) "}", 8, TQ_FORMAT,
                   "do not lie");
}

static void size_that_contradicts_the_shape_names_both(void **state) {
    (void)state;
    expect_failure("{" ENTRY("model.norm.weight", "BF16", "[2,256]", 0, 2048) "}", 2048, TQ_FORMAT,
                   "tensor model.norm.weight: want 1024 bytes for bf16 [2, 256], the header gives 2048");
    expect_failure("{" ENTRY("a", "F32", "[]", 0, 0) "}", 0, TQ_FORMAT, "want 4 bytes for f32 []");
}

static void overlapping_tensors_are_refused(void **state) {
    (void)state;
    expect_failure("{" ENTRY("a", "U8", "[4]", 4, 8) "," ENTRY("b", "U8", "[5]", 0, 5) "}", 8, TQ_FORMAT,
                   "tensors b and a overlap");
    expect_failure("{" ENTRY("a", "U8", "[4]", 0, 4) "," ENTRY("b", "U8", "[4]", 0, 4) "}", 4, TQ_FORMAT, "overlap");
    expect_failure("{" ENTRY("a", "U8", "[8]", 0, 8) "," ENTRY("b", "U8", "[1]", 3, 4) "}", 8, TQ_FORMAT, "overlap");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_tensors_are_read),
        cmocka_unit_test(every_dtype_is_known),
        cmocka_unit_test(truncated_files_are_refused_at_every_length),
        cmocka_unit_test(header_length_beyond_the_file_or_the_limit_is_refused),
        cmocka_unit_test(headers_that_are_not_a_json_object_are_refused),
        cmocka_unit_test(deep_json_does_not_exhaust_the_stack),
        cmocka_unit_test(duplicate_names_are_refused),
        cmocka_unit_test(names_that_would_break_error_lines_are_refused),
        cmocka_unit_test(shapes_that_overflow_are_refused),
        cmocka_unit_test(dimensions_that_are_negative_or_no_integers_are_refused),
        cmocka_unit_test(offsets_outside_the_data_are_refused),
        cmocka_unit_test(size_that_contradicts_the_shape_names_both),
        cmocka_unit_test(overlapping_tensors_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
