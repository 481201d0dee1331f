/* test_weights.c: model directories, honest and hostile.  Every test is named after the failure it guards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/half.h"
#include "file/mlx_quantize.h"
#include "file/weights.h"

/* ---- a directory to write into ---------------------------------------------------------------------------------- */

static char directory[64];

static int make_directory(void **state) {
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/test_weights.XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static const char *const written[] = {"model.safetensors", "model.safetensors.index.json", "s1.safetensors",
                                      "s2.safetensors"};

static void name_file(char path[256], const char *name) { snprintf(path, 256, "%s/%s", directory, name); }

static void clear_directory(void) {
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        char path[256];
        name_file(path, written[i]);
        unlink(path);
    }
}

static int remove_directory(void **state) {
    (void)state;
    clear_directory();
    return rmdir(directory);
}

static void write_bytes(const char *name, const char *prefix, size_t prefix_bytes, const char *text, size_t n,
                        size_t n_data) {
    char path[256];
    name_file(path, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(prefix, 1, prefix_bytes, file), prefix_bytes);
    assert_int_equal(fwrite(text, 1, n, file), n);
    for (size_t i = 0; i < n_data; i++)
        fputc((int)(i * 37 + 11) & 0x3f, file); /* any halves made of these are finite */
    assert_int_equal(fclose(file), 0);
}

static void write_text(const char *name, const char *text) { write_bytes(name, "", 0, text, strlen(text), 0); }

typedef struct spec {
    const char *name, *dtype, *shape;
    size_t bytes;
} spec;

/* A shard; with odd, its data begins at an odd offset of the file. */
static void write_shard(const char *name, const spec *specs, size_t n, bool odd) {
    char header[4096] = "{";
    size_t used = 1, end = 0;
    for (size_t i = 0; i < n; i++) {
        used += (size_t)snprintf(header + used, sizeof header - used,
                                 "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", i ? "," : "",
                                 specs[i].name, specs[i].dtype, specs[i].shape, end, end + specs[i].bytes);
        end += specs[i].bytes;
    }
    header[used++] = '}';
    while (used % 8 != (odd ? 1 : 0)) header[used++] = ' ';
    char length[8] = {(char)(used & 0xff), (char)(used >> 8)};
    write_bytes(name, length, 8, header, used, end);
}

#define WRITE_SHARD(name, odd, ...)                                                                                    \
    write_shard(name, (const spec[]){__VA_ARGS__}, sizeof((const spec[]){__VA_ARGS__}) / sizeof(spec), odd)

static json_t *parse_config(const char *text) {
    json_t *config = json_loads(text, 0, NULL);
    assert_non_null(config);
    return config;
}

static void expect_open_failure(const char *config_text, tq_status want, const char *text) {
    json_t *config = parse_config(config_text);
    tq_weights *weights = (tq_weights *)&want;
    tq_error err = {0};
    tq_status status = tq_weights_open(directory, config, &weights, &err);
    if (status != want || !strstr(err.text, text))
        fail_msg("got %d \"%s\", want %d \"%s\"", status, err.text, want, text);
    assert_null(weights);
    json_decref(config);
}

static tq_weights *open_or_fail(const json_t *config) {
    tq_weights *weights;
    tq_error err = {0};
    if (tq_weights_open(directory, config, &weights, &err) != TQ_OK) fail_msg("%s", err.text);
    return weights;
}

static void expect_matrix_failure(const tq_weights *weights, const char *path, int rows, int cols, tq_status want,
                                  const char *text) {
    tq_matrix matrix;
    tq_error err = {0};
    tq_status status = tq_weights_matrix(weights, path, rows, cols, &matrix, &err);
    if (status != want || !strstr(err.text, text))
        fail_msg("got %d \"%s\", want %d \"%s\"", status, err.text, want, text);
}

/* ---- shards ----------------------------------------------------------------------------------------------------- */

static void directory_without_weights_says_what_is_missing(void **state) {
    (void)state;
    clear_directory();
    char text[160];
    snprintf(text, sizeof text, "no model.safetensors or model.safetensors.index.json in %s", directory);
    expect_open_failure("{}", TQ_NOT_FOUND, text);
    write_text("model.safetensors", "");
    expect_open_failure("{}", TQ_FORMAT, "model.safetensors: 0 bytes");
}

static void single_file_is_read(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("model.safetensors", false, {"b.weight", "F16", "[2,4]", 16}, {"a.bias", "F32", "[3]", 12});
    tq_weights *weights = open_or_fail(NULL);
    assert_int_equal(tq_weights_count(weights), 2);
    assert_string_equal(tq_weights_at(weights, 0)->name, "b.weight");
    assert_string_equal(tq_weights_at(weights, 1)->name, "a.bias");
    assert_ptr_equal(tq_weights_find(weights, "a.bias"), tq_weights_at(weights, 1));
    assert_null(tq_weights_find(weights, "a"));
    assert_null(tq_weights_find(weights, ""));
    assert_int_equal(tq_weights_total_bytes(weights), 28);
    assert_int_equal(tq_weights_total_parameters(weights), 11);
    assert_string_equal(tq_weights_description(weights), "f16");
    tq_matrix matrix;
    assert_int_equal(tq_weights_matrix(weights, "b", 2, 4, &matrix, NULL), TQ_OK);
    assert_int_equal(matrix.kind, TQ_MATRIX_F16);
    assert_ptr_equal(matrix.data, tq_weights_at(weights, 0)->data);
    tq_weights_close(weights);
    tq_weights_close(NULL);
}

static void every_shard_of_an_index_is_read(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("s1.safetensors", false, {"c", "U8", "[1]", 1}, {"a", "U8", "[2]", 2});
    WRITE_SHARD("s2.safetensors", false, {"b", "U8", "[3]", 3}, {"unlisted", "U8", "[4]", 4});
    write_text("model.safetensors.index.json", "{\"weight_map\":{\"b\":\"s2.safetensors\",\"a\":\"s1.safetensors\","
                                               "\"c\":\"s1.safetensors\"}}");
    tq_weights *weights = open_or_fail(NULL);
    assert_int_equal(tq_weights_count(weights), 4);
    assert_string_equal(tq_weights_at(weights, 0)->name, "c");
    assert_int_equal(tq_weights_find(weights, "b")->bytes, 3);
    assert_int_equal(tq_weights_find(weights, "unlisted")->bytes, 4);
    tq_weights_close(weights);
}

static void index_that_names_a_missing_shard_names_it_too(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("s1.safetensors", false, {"a", "U8", "[1]", 1});
    write_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s3.safetensors\"}}");
    expect_open_failure("{}", TQ_NOT_FOUND, "s3.safetensors");
}

static void index_that_lies_about_a_tensor_is_refused(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("s1.safetensors", false, {"a", "U8", "[1]", 1});
    WRITE_SHARD("s2.safetensors", false, {"b", "U8", "[1]", 1});
    write_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"s1.safetensors\",\"c\":\"s2.safetensors\"}}");
    expect_open_failure("{}", TQ_FORMAT, "tensor c is not in s2.safetensors");
    write_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\"}}");
    expect_open_failure("{}", TQ_FORMAT, "tensor a is not in s2.safetensors");
}

static void index_that_leaves_the_directory_is_refused(void **state) {
    (void)state;
    clear_directory();
    static const char *const names[] = {"../s1.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[200];
        snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        write_text("model.safetensors.index.json", text);
        expect_open_failure("{}", TQ_FORMAT, "plain file name");
    }
}

static void malformed_index_is_refused(void **state) {
    (void)state;
    clear_directory();
    static const char *const texts[] = {"",
                                        "[",
                                        "[]",
                                        "{}",
                                        "{\"weight_map\":[]}",
                                        "{\"weight_map\":{\"a\":1}}",
                                        "{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_text("model.safetensors.index.json", texts[i]);
        expect_open_failure("{}", TQ_FORMAT, "model.safetensors.index.json: ");
    }
}

static void tensor_in_two_shards_is_refused(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("s1.safetensors", false, {"a", "U8", "[1]", 1}, {"b", "U8", "[1]", 1});
    WRITE_SHARD("s2.safetensors", false, {"c", "U8", "[1]", 1}, {"a", "U8", "[1]", 1});
    write_text("model.safetensors.index.json", "{\"weight_map\":{\"b\":\"s1.safetensors\",\"c\":\"s2.safetensors\"}}");
    expect_open_failure("{}", TQ_FORMAT, "tensor a occurs in s");
}

/* MLX does not pad its headers; kernels read in place and must not see an odd pointer. */
static void unaligned_tensors_are_moved_unchanged(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("model.safetensors", true, {"a.weight", "U32", "[1,8]", 32}, {"a.scales", "BF16", "[1,1]", 2},
                {"a.biases", "BF16", "[1,1]", 2}, {"bytes", "U8", "[5]", 5}, {"z.weight", "F32", "[1,2]", 8});
    json_t *config = parse_config("{\"quantization\":{\"bits\":4,\"group_size\":64}}");
    tq_weights *weights = open_or_fail(config);
    size_t offset = 0;
    for (int i = 0; i < tq_weights_count(weights); i++) {
        const tq_tensor *tensor = tq_weights_at(weights, i);
        assert_int_equal((uintptr_t)tensor->data % tq_dtype_bytes(tensor->dtype), 0);
        for (size_t k = 0; k < tensor->bytes; k++, offset++)
            assert_int_equal(((const uint8_t *)tensor->data)[k], (offset * 37 + 11) & 0x3f);
    }
    assert_int_equal(offset, 49);
    tq_matrix matrix;
    assert_int_equal(tq_weights_matrix(weights, "a", 1, 64, &matrix, NULL), TQ_OK);
    assert_int_equal((uintptr_t)matrix.data % 4, 0);
    tq_weights_close(weights);
    json_decref(config);
}

/* ---- plain tensors ---------------------------------------------------------------------------------------------- */

static void plain_matrix_of_another_shape_or_type_names_both(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("model.safetensors", false, {"a.weight", "BF16", "[2,4]", 16}, {"i.weight", "I32", "[2,2]", 16},
                {"v.weight", "F32", "[4]", 16}, {"q.weight", "U32", "[2,8]", 64});
    tq_weights *weights = open_or_fail(NULL);
    expect_matrix_failure(weights, "a", 4, 2, TQ_FORMAT,
                          "a.weight: want f32, f16 or bf16 [4, 2], file has bf16 [2, 4]");
    expect_matrix_failure(weights, "i", 2, 2, TQ_FORMAT, "file has i32 [2, 2]");
    expect_matrix_failure(weights, "v", 2, 2, TQ_FORMAT, "file has f32 [4]");
    expect_matrix_failure(weights, "q", 2, 64, TQ_FORMAT, "file has u32 [2, 8]");
    expect_matrix_failure(weights, "none", 2, 2, TQ_NOT_FOUND, "no tensor none.weight");
    char path[2000];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = 0;
    expect_matrix_failure(weights, path, 2, 2, TQ_NOT_FOUND, "no tensor xxx");
    assert_string_equal(tq_weights_description(weights), "mixed");
    tq_weights_close(weights);
}

static void vectors_of_every_float_type_are_converted(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("model.safetensors", true, {"f32", "F32", "[5]", 20}, {"f16", "F16", "[5]", 10},
                {"bf16", "BF16", "[5]", 10}, {"i32", "I32", "[5]", 20}, {"matrix", "F32", "[1,5]", 20});
    tq_weights *weights = open_or_fail(NULL);
    float got[6] = {0, 0, 0, 0, 0, 42};
    uint8_t raw[40];
    for (int i = 0; i < 40; i++) raw[i] = (uint8_t)((i * 37 + 11) & 0x3f);
    uint16_t half;
    float want;
    assert_int_equal(tq_weights_vector(weights, "f32", 5, got, NULL), TQ_OK);
    for (int i = 0; i < 5; i++) assert_memory_equal(&got[i], raw + 4 * i, 4);
    assert_int_equal(tq_weights_vector(weights, "f16", 5, got, NULL), TQ_OK);
    for (int i = 0; i < 5; i++) {
        memcpy(&half, raw + 20 + 2 * i, 2);
        want = tq_f16_f32(half);
        assert_memory_equal(&got[i], &want, 4);
    }
    assert_int_equal(tq_weights_vector(weights, "bf16", 5, got, NULL), TQ_OK);
    for (int i = 0; i < 5; i++) {
        memcpy(&half, raw + 30 + 2 * i, 2);
        want = tq_bf16_f32(half);
        assert_memory_equal(&got[i], &want, 4);
    }
    assert_true(got[5] == 42);
    tq_error err;
    assert_int_equal(tq_weights_vector(weights, "f32", 6, got, &err), TQ_FORMAT);
    assert_string_equal(err.text, "f32: want f32, f16 or bf16 [6], file has f32 [5]");
    assert_int_equal(tq_weights_vector(weights, "i32", 5, got, &err), TQ_FORMAT);
    assert_int_equal(tq_weights_vector(weights, "matrix", 5, got, &err), TQ_FORMAT);
    assert_int_equal(tq_weights_vector(weights, "none", 5, got, &err), TQ_NOT_FOUND);
    tq_weights_close(weights);
}

/* ---- MLX -------------------------------------------------------------------------------------------------------- */

static void every_width_and_group_is_read(void **state) {
    (void)state;
    static const int all_bits[] = {2, 3, 4, 5, 6, 8}, all_groups[] = {32, 64, 128};
    for (int i = 0; i < 18; i++) {
        int bits = all_bits[i / 3], group = all_groups[i % 3];
        char words[32], groups[32], text[100];
        size_t n_words = (size_t)(384 * bits / 32), n_groups = (size_t)(384 / group);
        snprintf(words, sizeof words, "[3,%zu]", n_words);
        snprintf(groups, sizeof groups, "[3,%zu]", n_groups);
        clear_directory();
        WRITE_SHARD("model.safetensors", false, {"m.weight", "U32", words, 12 * n_words},
                    {"m.scales", "F16", groups, 6 * n_groups}, {"m.biases", "F16", groups, 6 * n_groups});
        snprintf(text, sizeof text, "{\"quantization_config\":{\"bits\":%d,\"group_size\":%d,\"mode\":\"affine\"}}",
                 bits, group);
        json_t *config = parse_config(text);
        tq_weights *weights = open_or_fail(config);
        tq_matrix matrix;
        assert_int_equal(tq_weights_matrix(weights, "m", 3, 384, &matrix, NULL), TQ_OK);
        assert_int_equal(matrix.kind, TQ_MATRIX_AFFINE);
        assert_int_equal(matrix.rows, 3);
        assert_int_equal(matrix.cols, 384);
        assert_int_equal(matrix.bits, bits);
        assert_int_equal(matrix.group_size, group);
        assert_int_equal(matrix.scale_dtype, TQ_F16);
        assert_int_equal(tq_matrix_row_bytes(&matrix), 4 * n_words);
        assert_ptr_equal(matrix.scales, tq_weights_find(weights, "m.scales")->data);
        assert_ptr_equal(matrix.biases, tq_weights_find(weights, "m.biases")->data);
        assert_int_equal(tq_weights_total_parameters(weights), 3 * 384);
        snprintf(text, sizeof text, "%d-bit groups of %d", bits, group);
        assert_string_equal(tq_weights_description(weights), text);
        tq_weights_close(weights);
        json_decref(config);
    }
}

static void shape_of_other_bits_names_wanted_and_found(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("model.safetensors", false, {"m.weight", "U32", "[2,48]", 384}, {"m.scales", "BF16", "[2,8]", 32},
                {"m.biases", "BF16", "[2,8]", 32}, {"k.weight", "U32", "[2,64]", 512},
                {"k.scales", "BF16", "[2,4]", 16}, {"k.biases", "BF16", "[2,8]", 32},
                {"t.weight", "U32", "[2,64]", 512}, {"t.scales", "BF16", "[2,8]", 32}, {"t.biases", "F16", "[2,8]", 32},
                {"u.weight", "U32", "[2,64]", 512}, {"u.scales", "U8", "[2,8]", 16}, {"u.biases", "U8", "[2,8]", 16},
                {"w.weight", "U32", "[2,64]", 512}, {"w.scales", "BF16", "[2,8]", 32});
    json_t *config = parse_config("{\"quantization\":{\"bits\":4,\"group_size\":64}}");
    tq_weights *weights = open_or_fail(config);
    expect_matrix_failure(weights, "m", 2, 512, TQ_FORMAT,
                          "m.weight: want u32 [2, 64] for bits = 4, file has u32 [2, 48]");
    expect_matrix_failure(weights, "k", 2, 512, TQ_FORMAT,
                          "k.scales: want f32, f16 or bf16 [2, 8] for groups of 64, "
                          "file has bf16 [2, 4]");
    expect_matrix_failure(weights, "t", 2, 512, TQ_FORMAT, "t.biases: want bf16 [2, 8]");
    expect_matrix_failure(weights, "u", 2, 512, TQ_FORMAT, "u.scales: want f32, f16 or bf16");
    expect_matrix_failure(weights, "w", 2, 512, TQ_NOT_FOUND, "no tensor w.biases");
    expect_matrix_failure(weights, "m", 2, 500, TQ_FORMAT, "500 columns");
    tq_weights_close(weights);
    json_decref(config);
}

static void entry_of_a_path_wins_over_the_default(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("model.safetensors", false, {"four.weight", "U32", "[1,16]", 64}, {"four.scales", "F32", "[1,2]", 8},
                {"four.biases", "F32", "[1,2]", 8}, {"eight.weight", "U32", "[1,32]", 128},
                {"eight.scales", "F32", "[1,4]", 16}, {"eight.biases", "F32", "[1,4]", 16},
                {"plain.weight", "F32", "[1,4]", 16}, {"off.weight", "F32", "[1,4]", 16},
                {"off.scales", "F32", "[1,4]", 16}, {"on.weight", "F32", "[1,4]", 16},
                {"bad.weight", "U32", "[1,16]", 64}, {"bad.scales", "F32", "[1,2]", 8},
                {"odd.weight", "U32", "[1,16]", 64});
    json_t *config = parse_config(
        "{\"quantization\":{\"bits\":4,\"group_size\":64,\"eight\":{\"bits\":8,\"group_size\":32},\"off\":false,"
        "\"four\":true,\"on\":true,\"bad\":{\"mode\":\"mxfp4\",\"bits\":4,\"group_size\":32},\"odd\":\"yes\"}}");
    tq_weights *weights = open_or_fail(config);
    tq_matrix matrix;
    tq_error err = {0};
    assert_int_equal(tq_weights_matrix(weights, "four", 1, 128, &matrix, &err), TQ_OK);
    assert_int_equal(matrix.bits, 4);
    assert_int_equal(tq_weights_matrix(weights, "eight", 1, 128, &matrix, &err), TQ_OK);
    assert_int_equal(matrix.bits, 8);
    assert_int_equal(matrix.group_size, 32);
    assert_int_equal(tq_weights_matrix(weights, "plain", 1, 4, &matrix, &err), TQ_OK);
    assert_int_equal(matrix.kind, TQ_MATRIX_F32);
    assert_int_equal(tq_weights_matrix(weights, "off", 1, 4, &matrix, &err), TQ_OK);
    assert_int_equal(matrix.kind, TQ_MATRIX_F32);
    expect_matrix_failure(weights, "on", 1, 128, TQ_FORMAT, "on.weight: want u32 [1, 16]");
    expect_matrix_failure(weights, "bad", 1, 128, TQ_FORMAT, "bad.scales: want u8 [1, 4] for groups of 32, file has f32 [1, 2]");
    expect_matrix_failure(weights, "odd", 1, 128, TQ_FORMAT, "want an object, true or false");
    assert_string_equal(tq_weights_description(weights), "mixed");
    tq_weights_close(weights);
    json_decref(config);
}

static void unknown_quantizations_are_refused_by_name(void **state) {
    (void)state;
    clear_directory();
    WRITE_SHARD("model.safetensors", false, {"m.weight", "U32", "[1,16]", 64}, {"m.scales", "F32", "[1,2]", 8},
                {"m.biases", "F32", "[1,2]", 8});
    static const struct {
        const char *entry, *text;
        tq_status status;
    } cases[] = {
        {"{\"bits\":4,\"group_size\":32,\"mode\":\"mxint4\"}", "mxint4", TQ_UNSUPPORTED},
        {"{\"bits\":8,\"group_size\":16,\"mode\":\"nvfp4\"}", "nvfp4", TQ_FORMAT},
        {"{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128}", "awq", TQ_UNSUPPORTED},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128}", "gptq", TQ_UNSUPPORTED},
        {"{\"bits\":7,\"group_size\":64}", "7 bits", TQ_UNSUPPORTED},
        {"{\"bits\":4,\"group_size\":48}", "groups of 48", TQ_UNSUPPORTED},
        {"{\"bits\":0,\"group_size\":0}", "0 bits", TQ_UNSUPPORTED},
        {"{\"bits\":-4,\"group_size\":64}", "bits is not", TQ_FORMAT},
        {"{\"bits\":4.0,\"group_size\":64}", "bits is not", TQ_FORMAT},
        {"{\"bits\":4294967300,\"group_size\":64}", "bits is not", TQ_FORMAT},
        {"{\"bits\":4,\"group_size\":\"64\"}", "group_size is not", TQ_FORMAT},
        {"{\"bits\":4,\"group_size\":64,\"mode\":4}", "mode is not", TQ_FORMAT},
        {"[4, 64]", "not an object", TQ_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char config[300];
        snprintf(config, sizeof config, "{\"quantization\":%s}", cases[i].entry);
        expect_open_failure(config, cases[i].status, cases[i].text);
        snprintf(config, sizeof config, "{\"text_config\":{\"quantization_config\":%s}}", cases[i].entry);
        expect_open_failure(config, cases[i].status, cases[i].text);
    }
    json_t *config = parse_config("{\"quantization\":null}");
    tq_weights *weights = open_or_fail(config);
    expect_matrix_failure(weights, "m", 1, 128, TQ_FORMAT, "config.json does not say how");
    tq_weights_close(weights);
    json_decref(config);
}

/* ---- the quantizer ---------------------------------------------------------------------------------------------- */

/* Element k is at bits k * bits of the row, whatever the width: tests/python/test_mlx_format.py compares the values
 * with MLX; this guards the stream's order and its end. */
static void packed_rows_are_one_bit_stream(void **state) {
    (void)state;
    static const int all_bits[] = {2, 3, 4, 5, 6, 8};
    float x[128], scales[4], biases[4];
    for (int i = 0; i < 6; i++) {
        int bits = all_bits[i], levels = (1 << bits) - 1;
        for (int k = 0; k < 128; k++) x[k] = (float)((k * 7 + k / 32) % (levels + 1));
        for (int g = 0; g < 4; g++) x[32 * g] = 0, x[32 * g + 1] = (float)levels;
        uint8_t packed[128 + 8];
        memset(packed, 0xa5, sizeof packed);
        assert_true(tq_mlx_quantize_row(x, 128, bits, 32, packed, scales, biases));
        for (int b = 16 * bits; b < 136; b++) assert_int_equal(packed[b], 0xa5);
        for (int k = 0; k < 128; k++) {
            int code = 0;
            for (int b = 0; b < bits; b++) code |= (packed[(k * bits + b) / 8] >> (k * bits + b) % 8 & 1) << b;
            assert_true(scales[k / 32] * (float)code + biases[k / 32] == x[k]);
        }
    }
}

static void values_that_are_not_finite_are_refused(void **state) {
    (void)state;
    float x[64] = {0}, scales[2], biases[2];
    uint8_t packed[32];
    assert_true(tq_mlx_quantize_row(x, 64, 4, 32, packed, scales, biases));
    static const uint32_t bad[] = {0x7fc00000u, 0x7f800000u, 0xff800000u};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 64; k += 21) {
            memset(x, 0, sizeof x);
            x[k] = tq_bits_f32(bad[i]);
            assert_false(tq_mlx_quantize_row(x, 64, 4, 32, packed, scales, biases));
        }
    memset(x, 0, sizeof x);
    x[40] = 3e38f, x[41] = -3e38f; /* finite; their distance is not */
    assert_false(tq_mlx_quantize_row(x, 64, 4, 32, packed, scales, biases));
}

/* ---- the bundled model ------------------------------------------------------------------------------------------ */

static void every_tensor_of_bookworm_is_read(void **state) {
    (void)state;
    const char *path = TQ_SOURCE_DIR "/models/bookworm";
    json_t *config = json_load_file(TQ_SOURCE_DIR "/models/bookworm/config.json", 0, NULL);
    if (!config) {
        print_message("skipped: no %s\n", path);
        skip();
    }
    tq_weights *weights;
    tq_error err = {0};
    if (tq_weights_open(path, config, &weights, &err) != TQ_OK) fail_msg("%s", err.text);
    assert_string_equal(tq_weights_description(weights), "4-bit groups of 64");
    assert_int_equal(tq_weights_total_parameters(weights), 27804160);
    int n_matrices = 0, n_vectors = 0;
    for (int i = 0; i < tq_weights_count(weights); i++) {
        const tq_tensor *tensor = tq_weights_at(weights, i);
        char name[200];
        assert_true(snprintf(name, sizeof name, "%s", tensor->name) < (int)sizeof name);
        if (tensor->dtype == TQ_U32) {
            tq_matrix matrix;
            name[strlen(name) - 7] = 0;
            int rows = (int)tensor->shape[0], cols = (int)tensor->shape[1] * 8;
            if (tq_weights_matrix(weights, name, rows, cols, &matrix, &err) != TQ_OK) fail_msg("%s", err.text);
            const uint16_t *scales = matrix.scales;
            for (int k = 0; k < rows * (cols / 64); k++) assert_true(tq_bf16_f32(scales[k]) != 0);
            n_matrices++;
        } else if (tensor->n_dims == 1) {
            float values[2048];
            assert_true(tensor->shape[0] <= 2048);
            if (tq_weights_vector(weights, name, (int)tensor->shape[0], values, &err) != TQ_OK)
                fail_msg("%s", err.text);
            for (int k = 0; k < tensor->shape[0]; k++) assert_true(values[k] - values[k] == 0);
            n_vectors++;
        }
    }
    assert_int_equal(n_matrices, 57);
    assert_int_equal(n_vectors, 41);
    tq_weights_close(weights);
    json_decref(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directory_without_weights_says_what_is_missing),
        cmocka_unit_test(single_file_is_read),
        cmocka_unit_test(every_shard_of_an_index_is_read),
        cmocka_unit_test(index_that_names_a_missing_shard_names_it_too),
        cmocka_unit_test(index_that_lies_about_a_tensor_is_refused),
        cmocka_unit_test(index_that_leaves_the_directory_is_refused),
        cmocka_unit_test(malformed_index_is_refused),
        cmocka_unit_test(tensor_in_two_shards_is_refused),
        cmocka_unit_test(unaligned_tensors_are_moved_unchanged),
        cmocka_unit_test(plain_matrix_of_another_shape_or_type_names_both),
        cmocka_unit_test(vectors_of_every_float_type_are_converted),
        cmocka_unit_test(every_width_and_group_is_read),
        cmocka_unit_test(shape_of_other_bits_names_wanted_and_found),
        cmocka_unit_test(entry_of_a_path_wins_over_the_default),
        cmocka_unit_test(unknown_quantizations_are_refused_by_name),
        cmocka_unit_test(packed_rows_are_one_bit_stream),
        cmocka_unit_test(values_that_are_not_finite_are_refused),
        cmocka_unit_test(every_tensor_of_bookworm_is_read),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
