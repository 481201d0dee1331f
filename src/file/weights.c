/* weights.c: the tensors of a model directory, by name.
 * Owns: the mapped shards, the table of names, copies of tensors that lie unaligned in their file.
 * Not here: the header of a shard (safetensors.c), the config's rules (mlx_quantization.c). */
#include "file/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "base/half.h"
#include "file/mlx_quantization.h"
#include "file/safetensors.h"

#define INDEX_NAME "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"
#define INDEX_BYTES_MAX ((size_t)100 << 20)
#define TENSOR_NAME_CAP 640    /* bytes: the parser's limit of a name, and a suffix */
#define ALIGNMENT ((size_t)64) /* of copies */

typedef struct shard {
    char *name; /* of the file, within the directory */
    tq_file_map map;
    tq_safetensors st;
    void *aligned; /* copies of the tensors that are not aligned in the file; NULL: there are none */
} shard;

typedef struct entry {
    const tq_tensor *tensor;
    const shard *shard;
} entry;

struct tq_weights {
    shard *shards;
    int n_shards;
    entry *by_order, *by_name; /* (n) */
    int n;
    tq_mlx_quantization quantization;
    int64_t bytes, parameters, copied;
    char description[32];
};

/* ---- names ------------------------------------------------------------------------------------------------------ */

static int compare_names(const void *a, const void *b) {
    return strcmp(((const entry *)a)->tensor->name, ((const entry *)b)->tensor->name);
}

static const entry *find_entry(const tq_weights *weights, const char *name) {
    int low = 0, high = weights->n;
    while (low < high) {
        int middle = low + (high - low) / 2, order = strcmp(name, weights->by_name[middle].tensor->name);
        if (order == 0) return &weights->by_name[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

/* "<path><suffix>", or as much of it as fits: a name that long is one that no file has. */
static void join_name(char name[TENSOR_NAME_CAP], const char *path, const char *suffix) {
    size_t n = strnlen(path, TENSOR_NAME_CAP - 1), m = strnlen(suffix, TENSOR_NAME_CAP - 1 - n);
    memcpy(name, path, n);
    memcpy(name + n, suffix, m);
    name[n + m] = 0;
}

static const tq_tensor *find_part(const tq_weights *weights, const char *path, const char *suffix,
                                  char name[TENSOR_NAME_CAP]) {
    join_name(name, path, suffix);
    return tq_weights_find(weights, name);
}

static bool ends_with(const char *text, const char *suffix) {
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static char *join_path(const char *directory, const char *name) {
    size_t n = strlen(directory), m = strlen(name);
    char *path = malloc(n + m + 2);
    if (!path) return NULL;
    memcpy(path, directory, n);
    path[n] = '/';
    memcpy(path + n + 1, name, m + 1);
    return path;
}

static tq_status map_file(const char *directory, const char *name, tq_file_map *map, tq_error *err) {
    char *path = join_path(directory, name);
    if (!path) return tq_fail_memory(err, strlen(directory) + strlen(name) + 2, "a file name");
    tq_status status = tq_file_map_open(path, map, err);
    free(path);
    return status;
}

static bool is_aligned(const tq_tensor *tensor) { return (uintptr_t)tensor->data % tq_dtype_align(tensor->dtype) == 0; }

/* Kernels read tensors in place and as their element type.  The format does not promise alignment, and files that MLX
 * itself wrote have a header of any length: what is not aligned to its element size is copied, everything else stays
 * in the mapping. */
static tq_status align_tensors(tq_weights *weights, shard *s, tq_error *err) {
    size_t bytes = 0;
    for (int i = 0; i < s->st.n_tensors; i++)
        if (!is_aligned(&s->st.tensors[i])) bytes += (s->st.tensors[i].bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (!bytes) return TQ_OK;
    uint8_t *to = s->aligned = aligned_alloc(ALIGNMENT, bytes);
    if (!to) return tq_fail_memory(err, bytes, "tensors that are not aligned in their file");
    weights->copied += (int64_t)bytes;
    for (int i = 0; i < s->st.n_tensors; i++) {
        tq_tensor *tensor = &s->st.tensors[i];
        if (is_aligned(tensor)) continue;
        memcpy(to, tensor->data, tensor->bytes);
        tensor->data = to;
        to += (tensor->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    return TQ_OK;
}

static tq_status open_shard(tq_weights *weights, const char *directory, const char *name, tq_error *err) {
    shard *s = &weights->shards[weights->n_shards++];
    s->name = strdup(name);
    if (!s->name) return tq_fail_memory(err, strlen(name) + 1, "a file name");
    TQ_TRY(map_file(directory, name, &s->map, err));
    TQ_TRY(tq_safetensors_parse(s->map.data, s->map.bytes, name, &s->st, err));
    return align_tensors(weights, s, err);
}

/* A shard is a file of this directory and no other. */
static tq_status check_shard_name(const char *tensor, const json_t *file, tq_error *err) {
    const char *name = json_string_value(file);
    if (!name) return tq_fail(err, TQ_FORMAT, INDEX_NAME ": %.200s: want the name of a file", tensor);
    if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return tq_fail(err, TQ_FORMAT, INDEX_NAME ": %.200s: \"%.200s\" is not a plain file name", tensor, name);
    return TQ_OK;
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Open every file that the map names, in the order of their names. */
static tq_status open_mapped_shards(tq_weights *weights, const char *directory, json_t *map, tq_error *err) {
    size_t n = json_object_size(map), used = 0, n_shards = 0;
    const char **names = malloc((n ? n : 1) * sizeof *names);
    if (!names) return tq_fail_memory(err, n * sizeof *names, "the names of shards");
    tq_status status = TQ_OK;
    const char *tensor;
    json_t *file;
    json_object_foreach(map, tensor, file) {
        status = check_shard_name(tensor, file, err);
        if (status != TQ_OK) break;
        names[used++] = json_string_value(file);
    }
    if (status == TQ_OK) {
        qsort(names, used, sizeof *names, compare_strings);
        for (size_t i = 0; i < used; i++)
            if (i == 0 || strcmp(names[i], names[i - 1]) != 0) names[n_shards++] = names[i];
        weights->shards = calloc(n_shards ? n_shards : 1, sizeof *weights->shards);
        if (!weights->shards) status = tq_fail_memory(err, n_shards * sizeof *weights->shards, "a table of shards");
    }
    for (size_t i = 0; i < n_shards && status == TQ_OK; i++) status = open_shard(weights, directory, names[i], err);
    free(names);
    return status;
}

static tq_status build_table(tq_weights *weights, tq_error *err) {
    size_t n = 0;
    for (int i = 0; i < weights->n_shards; i++) n += (size_t)weights->shards[i].st.n_tensors;
    weights->by_order = calloc(n ? n : 1, sizeof *weights->by_order);
    weights->by_name = calloc(n ? n : 1, sizeof *weights->by_name);
    if (!weights->by_order || !weights->by_name)
        return tq_fail_memory(err, 2 * n * sizeof *weights->by_name, "a table of tensors");
    for (int i = 0; i < weights->n_shards; i++)
        for (int j = 0; j < weights->shards[i].st.n_tensors; j++)
            weights->by_order[weights->n++] = (entry){&weights->shards[i].st.tensors[j], &weights->shards[i]};
    memcpy(weights->by_name, weights->by_order, n * sizeof *weights->by_name);
    qsort(weights->by_name, n, sizeof *weights->by_name, compare_names);
    for (size_t i = 1; i < n; i++)
        if (compare_names(&weights->by_name[i - 1], &weights->by_name[i]) == 0)
            return tq_fail(err, TQ_FORMAT, "tensor %.200s occurs in %.100s and in %.100s",
                           weights->by_name[i].tensor->name, weights->by_name[i - 1].shard->name,
                           weights->by_name[i].shard->name);
    return TQ_OK;
}

static tq_status check_index(const tq_weights *weights, json_t *map, tq_error *err) {
    const char *name;
    json_t *file;
    json_object_foreach(map, name, file) {
        const entry *found = find_entry(weights, name);
        if (!found || strcmp(found->shard->name, json_string_value(file)) != 0)
            return tq_fail(err, TQ_FORMAT, INDEX_NAME ": tensor %.200s is not in %.200s", name,
                           json_string_value(file));
    }
    return TQ_OK;
}

static tq_status open_index(tq_weights *weights, const char *directory, const tq_file_map *file, tq_error *err) {
    if (file->bytes > INDEX_BYTES_MAX)
        return tq_fail(err, TQ_FORMAT, INDEX_NAME ": %zu bytes; at most %zu are allowed", file->bytes, INDEX_BYTES_MAX);
    json_error_t json_err;
    json_t *index =
        json_loadb(file->data ? (const char *)file->data : "", file->bytes, JSON_REJECT_DUPLICATES, &json_err);
    if (!index) return tq_fail(err, TQ_FORMAT, INDEX_NAME ": %s at line %d", json_err.text, json_err.line);
    json_t *map = json_object_get(index, "weight_map");
    tq_status status = TQ_OK;
    if (!json_is_object(map)) status = tq_fail(err, TQ_FORMAT, INDEX_NAME ": want an object weight_map");
    if (status == TQ_OK) status = open_mapped_shards(weights, directory, map, err);
    if (status == TQ_OK) status = build_table(weights, err);
    if (status == TQ_OK) status = check_index(weights, map, err);
    json_decref(index);
    return status;
}

static tq_status open_single(tq_weights *weights, const char *directory, tq_error *err) {
    weights->shards = calloc(1, sizeof *weights->shards);
    if (!weights->shards) return tq_fail_memory(err, sizeof *weights->shards, "a shard");
    tq_status status = open_shard(weights, directory, SINGLE_NAME, err);
    if (status == TQ_NOT_FOUND)
        return tq_fail(err, TQ_NOT_FOUND, "no " SINGLE_NAME " or " INDEX_NAME " in %s", directory);
    TQ_TRY(status);
    return build_table(weights, err);
}

/* ---- what the tensors amount to --------------------------------------------------------------------------------- */

/* The path of "<path>.<part>", and whether the matrix there is quantized.  A bad entry of the config is left for
 * tq_weights_matrix to report: a tensor that nobody asks for does no harm. */
static bool part_of_quantized(const tq_weights *weights, const tq_tensor *tensor, const char *part,
                              tq_mlx_quantization *how) {
    char path[TENSOR_NAME_CAP], name[TENSOR_NAME_CAP];
    if (!ends_with(tensor->name, part)) return false;
    snprintf(path, sizeof path, "%.*s", (int)(strlen(tensor->name) - strlen(part)), tensor->name);
    const tq_tensor *weight = find_part(weights, path, ".weight", name);
    bool quantized = false, has_scales = find_part(weights, path, ".scales", name) != NULL;
    if (!weight || weight->dtype != TQ_U32) return false;
    return tq_mlx_quantization_of(&weights->quantization, path, has_scales, &quantized, how, NULL) == TQ_OK &&
           quantized;
}

static void print_kind(const tq_mlx_quantization *how, char type[32]) {
    if (how->mode != TQ_MATRIX_AFFINE) snprintf(type, 32, "%s", tq_mlx_mode_name(how->mode));
    else snprintf(type, 32, "%d-bit groups of %d", how->bits, how->group_size);
}

bool tq_weights_kind(const tq_weights *weights, const tq_tensor *tensor, char type[32], int64_t *parameters) {
    tq_mlx_quantization how;
    int64_t n_elements = (int64_t)(tensor->bytes / tq_dtype_bytes(tensor->dtype)) * tq_dtype_block(tensor->dtype);
    bool mxfp4 = tensor->dtype == TQ_U8; /* gpt-oss's, in two tensors */
    *parameters = 0;
    if (part_of_quantized(weights, tensor, ".scales", &how) || part_of_quantized(weights, tensor, ".biases", &how)) {
        print_kind(&how, type);
        return false;
    }
    snprintf(type, 32, "%s", tq_dtype_name(mxfp4 ? TQ_MXFP4 : tensor->dtype));
    if (mxfp4 && ends_with(tensor->name, "_scales")) return false;
    bool quantized = part_of_quantized(weights, tensor, ".weight", &how);
    if (mxfp4 && ends_with(tensor->name, "_blocks")) n_elements *= 2;
    else if (mxfp4) snprintf(type, 32, "%s", tq_dtype_name(tensor->dtype));
    if (quantized) print_kind(&how, type);
    *parameters = quantized ? n_elements * 32 / how.bits : n_elements;
    return true;
}

static void describe(tq_weights *weights) {
    weights->description[0] = 0;
    bool mixed = false;
    for (int i = 0; i < weights->n; i++) {
        const tq_tensor *tensor = weights->by_order[i].tensor;
        char type[sizeof weights->description];
        int64_t parameters;
        weights->bytes += (int64_t)tensor->bytes;
        if (!tq_weights_kind(weights, tensor, type, &parameters)) continue;
        weights->parameters += parameters;
        if (tensor->n_dims < 2 || !ends_with(tensor->name, ".weight")) continue;
        mixed |= weights->description[0] && strcmp(weights->description, type) != 0;
        memcpy(weights->description, type, sizeof type);
    }
    if (mixed) snprintf(weights->description, sizeof weights->description, "mixed");
    else if (!weights->description[0]) snprintf(weights->description, sizeof weights->description, "no matrices");
}

tq_status tq_weights_open(const char *directory, const json_t *config, tq_weights **out, tq_error *err) {
    *out = NULL;
    tq_weights *weights = calloc(1, sizeof *weights);
    if (!weights) return tq_fail_memory(err, sizeof *weights, "the weights");
    tq_file_map index = {0};
    tq_status status = tq_mlx_quantization_read(config, &weights->quantization, err);
    if (status == TQ_OK) {
        status = map_file(directory, INDEX_NAME, &index, err);
        if (status == TQ_OK) status = open_index(weights, directory, &index, err);
        else if (status == TQ_NOT_FOUND) status = open_single(weights, directory, err);
        tq_file_map_close(&index);
    }
    if (status != TQ_OK) {
        tq_weights_close(weights);
        return status;
    }
    describe(weights);
    *out = weights;
    return TQ_OK;
}

/* A shard of its own copy of the directory: what lies unaligned gets other addresses there. */
static tq_status adopt_part(tq_weights *weights, const tq_gguf_part *part, tq_error *err) {
    shard *s = &weights->shards[weights->n_shards++];
    size_t bytes = (size_t)part->gguf.n_tensors * sizeof(tq_tensor);
    s->name = strdup(part->path);
    s->st.tensors = malloc(bytes + 1);
    if (!s->name || !s->st.tensors) return tq_fail_memory(err, bytes, "a table of tensors");
    memcpy(s->st.tensors, part->tensors, bytes);
    s->st.n_tensors = part->gguf.n_tensors;
    return align_tensors(weights, s, err);
}

tq_status tq_weights_open_gguf(const tq_gguf_model *files, tq_weights **out, tq_error *err) {
    *out = NULL;
    tq_weights *weights = calloc(1, sizeof *weights);
    if (!weights) return tq_fail_memory(err, sizeof *weights, "the weights");
    weights->shards = calloc((size_t)files->n_parts, sizeof *weights->shards);
    tq_status status = weights->shards ? TQ_OK : tq_fail_memory(err, sizeof *weights->shards, "a table of files");
    for (int i = 0; i < files->n_parts && status == TQ_OK; i++) status = adopt_part(weights, &files->parts[i], err);
    if (status == TQ_OK) status = build_table(weights, err);
    if (status != TQ_OK) {
        tq_weights_close(weights);
        return status;
    }
    describe(weights);
    *out = weights;
    return TQ_OK;
}

static tq_status adopt_shard(tq_weights *weights, tq_file_map *image, const char *label, tq_error *err) {
    shard *s = weights->shards = calloc(1, sizeof *weights->shards);
    if (!s) return tq_fail_memory(err, sizeof *s, "a shard");
    weights->n_shards = 1;
    s->map = *image;
    *image = (tq_file_map){0};
    s->name = strdup(label);
    if (!s->name) return tq_fail_memory(err, strlen(label) + 1, "a file name");
    TQ_TRY(tq_safetensors_parse(s->map.data, s->map.bytes, label, &s->st, err));
    TQ_TRY(align_tensors(weights, s, err));
    return build_table(weights, err);
}

tq_status tq_weights_adopt(tq_file_map *image, const char *label, const json_t *config, tq_weights **out, tq_error *err) {
    *out = NULL;
    tq_weights *weights = calloc(1, sizeof *weights);
    tq_status status = weights ? tq_mlx_quantization_read(config, &weights->quantization, err)
                               : tq_fail_memory(err, sizeof *weights, "the weights");
    if (status == TQ_OK) status = adopt_shard(weights, image, label, err);
    if (status != TQ_OK) {
        tq_file_map_close(image);
        tq_weights_close(weights);
        return status;
    }
    describe(weights);
    *out = weights;
    return TQ_OK;
}

void tq_weights_close(tq_weights *weights) {
    if (!weights) return;
    for (int i = 0; i < weights->n_shards; i++) {
        shard *s = &weights->shards[i];
        tq_safetensors_free(&s->st);
        tq_file_map_close(&s->map);
        free(s->aligned);
        free(s->name);
    }
    free(weights->shards);
    free(weights->by_order);
    free(weights->by_name);
    free(weights);
}

/* ---- looking up ------------------------------------------------------------------------------------------------- */

const tq_tensor *tq_weights_find(const tq_weights *weights, const char *name) {
    const entry *found = find_entry(weights, name);
    return found ? found->tensor : NULL;
}

static void print_shape(char *text, size_t n, const tq_tensor *tensor) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < tensor->n_dims && used < n; i++)
        used += (size_t)snprintf(text + used, n - used, i ? ", %lld" : "%lld", (long long)tensor->shape[i]);
}

/* want: "u32 [512, 64] for 4 bits". */
static tq_status mismatch(const tq_tensor *tensor, const char *want, tq_error *err) {
    char shape[TQ_MAX_DIMS * 22];
    print_shape(shape, sizeof shape, tensor);
    return tq_fail(err, TQ_FORMAT, "%.200s: want %s, file has %s [%s]", tensor->name, want,
                   tq_dtype_name(tensor->dtype), shape);
}

static bool is_float(tq_dtype dtype) { return dtype == TQ_F32 || dtype == TQ_F16 || dtype == TQ_BF16; }

/* A single row may be a vector. */
static bool is_matrix(const tq_tensor *tensor, int64_t rows, int64_t cols) {
    if (rows == 1 && tensor->n_dims == 1) return tensor->shape[0] == cols;
    return tensor->n_dims == 2 && tensor->shape[0] == rows && tensor->shape[1] == cols;
}

/* A tensor that must exist; name is written either way. */
static tq_status get_part(const tq_weights *weights, const char *path, const char *suffix, char name[TENSOR_NAME_CAP],
                          const tq_tensor **out, tq_error *err) {
    *out = find_part(weights, path, suffix, name);
    return *out ? TQ_OK : tq_fail(err, TQ_NOT_FOUND, "the model has no tensor %.200s", name);
}

/* A tensor of n matrices, or with n = 0 of one. */
static bool is_stack(const tq_tensor *tensor, int n, int64_t rows, int64_t cols) {
    if (n == 0) return is_matrix(tensor, rows, cols);
    return tensor->n_dims == 3 && tensor->shape[0] == n && tensor->shape[1] == rows && tensor->shape[2] == cols;
}

/* "u32 [4, 512, 64] for 4 bits"; n = 0: without the first. */
static void print_want(char want[96], const char *dtype, int n, int rows, int64_t cols, const char *what, int number) {
    char first[24] = "";
    if (n) snprintf(first, sizeof first, "%d, ", n);
    snprintf(want, 96, "%s [%s%d, %lld]", dtype, first, rows, (long long)cols);
    if (what) snprintf(want + strlen(want), 96 - strlen(want), " for %s %d", what, number);
}

/* A quantized matrix, or n of them as one of n * rows rows. */
static tq_status read_groups(const tq_weights *weights, const char *path, const tq_tensor *weight,
                             const tq_mlx_quantization *how, int n, int rows, int cols, tq_matrix *out, tq_error *err) {
    char name[TENSOR_NAME_CAP], want[96];
    const tq_tensor *scales, *biases = NULL;
    bool affine = how->mode == TQ_MATRIX_AFFINE;
    if (cols % how->group_size)
        return tq_fail(err, TQ_FORMAT, "%.200s: %d columns are not a whole number of groups of %d", weight->name, cols,
                       how->group_size);
    int64_t words = (int64_t)cols * how->bits / 32, groups = cols / how->group_size;
    if (weight->dtype != TQ_U32 || !is_stack(weight, n, rows, words)) {
        print_want(want, "u32", n, rows, words, "bits =", how->bits);
        return mismatch(weight, want, err);
    }
    TQ_TRY(get_part(weights, path, ".scales", name, &scales, err));
    if (affine) TQ_TRY(get_part(weights, path, ".biases", name, &biases, err));
    for (int i = 0; i < (affine ? 2 : 1); i++) {
        const tq_tensor *tensor = i ? biases : scales;
        bool good = i         ? tensor->dtype == scales->dtype
                    : affine  ? is_float(tensor->dtype)
                              : tensor->dtype == TQ_U8;
        if (good && is_stack(tensor, n, rows, groups)) continue;
        const char *dtype = !affine ? "u8" : i ? tq_dtype_name(scales->dtype) : "f32, f16 or bf16";
        print_want(want, dtype, n, rows, groups, "groups of", how->group_size);
        return mismatch(tensor, want, err);
    }
    *out = (tq_matrix){.kind = how->mode,
                       .rows = n ? n * rows : rows,
                       .cols = cols,
                       .data = weight->data,
                       .scales = scales->data,
                       .biases = biases ? biases->data : NULL,
                       .scale_dtype = scales->dtype,
                       .bits = how->bits,
                       .group_size = how->group_size};
    return TQ_OK;
}

/* Floats as they are, or GGUF's blocks. */
static tq_status read_plain(const tq_tensor *weight, int n, int rows, int cols, tq_matrix *out, tq_error *err) {
    char want[96];
    if (tq_dtype_block(weight->dtype) > 1 && is_stack(weight, n, rows, cols)) {
        *out = (tq_matrix){.kind = TQ_MATRIX_BLOCKS, .rows = n ? n * rows : rows, .cols = cols, .data = weight->data,
                           .block_type = weight->dtype, .paired_rows = weight->paired_rows};
        return TQ_OK;
    }
    if (!is_float(weight->dtype) || !is_stack(weight, n, rows, cols)) {
        print_want(want, "f32, f16 or bf16", n, rows, cols, NULL, 0);
        return mismatch(weight, want, err);
    }
    tq_matrix_kind kind = weight->dtype == TQ_F32   ? TQ_MATRIX_F32
                          : weight->dtype == TQ_F16 ? TQ_MATRIX_F16
                                                    : TQ_MATRIX_BF16;
    *out = (tq_matrix){.kind = kind, .rows = n ? n * rows : rows, .cols = cols, .data = weight->data,
                       .paired_rows = weight->paired_rows};
    return TQ_OK;
}

static tq_status read_matrix(const tq_weights *weights, const char *path, int n, int rows, int cols, tq_matrix *out,
                             tq_error *err) {
    char name[TENSOR_NAME_CAP];
    const tq_tensor *weight;
    bool quantized, has_scales = find_part(weights, path, ".scales", name) != NULL;
    tq_mlx_quantization how;
    TQ_TRY(get_part(weights, path, ".weight", name, &weight, err));
    TQ_TRY(tq_mlx_quantization_of(&weights->quantization, path, has_scales, &quantized, &how, err));
    if (quantized) return read_groups(weights, path, weight, &how, n, rows, cols, out, err);
    return read_plain(weight, n, rows, cols, out, err);
}

tq_status tq_weights_matrix(const tq_weights *weights, const char *path, int rows, int cols, tq_matrix *out,
                            tq_error *err) {
    return read_matrix(weights, path, 0, rows, cols, out, err);
}

/* Blocks of 32 e2m1 values in 16 bytes and their e8m0 scales: the bytes of MLX's mxfp4. */
static tq_status read_blocks(const tq_weights *weights, const char *path, const tq_tensor *blocks, int n, int rows, int cols,
                             tq_matrix *out, tq_error *err) {
    char name[TENSOR_NAME_CAP], want[96];
    const tq_tensor *scales;
    TQ_TRY(get_part(weights, path, "_scales", name, &scales, err));
    if (blocks->dtype != TQ_U8 || blocks->n_dims != 4 || blocks->shape[0] != n || blocks->shape[1] != rows ||
        blocks->shape[2] * 32 != cols || blocks->shape[3] != 16) {
        snprintf(want, sizeof want, "u8 [%d, %d, %d, 16]", n, rows, cols / 32);
        return mismatch(blocks, want, err);
    }
    if (scales->dtype != TQ_U8 || !is_stack(scales, n, rows, cols / 32)) {
        print_want(want, "u8", n, rows, cols / 32, "groups of", 32);
        return mismatch(scales, want, err);
    }
    *out = (tq_matrix){.kind = TQ_MATRIX_MXFP4, .rows = n * rows, .cols = cols, .data = blocks->data, .scales = scales->data,
                       .scale_dtype = TQ_U8, .bits = 4, .group_size = 32};
    return TQ_OK;
}

tq_status tq_weights_stack(const tq_weights *weights, const char *path, int n, int rows, int cols, tq_matrix *out,
                           tq_error *err) {
    char name[TENSOR_NAME_CAP];
    tq_matrix whole;
    const tq_tensor *bare = tq_weights_find(weights, path), *blocks = find_part(weights, path, "_blocks", name);
    if (bare) TQ_TRY(read_plain(bare, n, rows, cols, &whole, err));
    else if (blocks) TQ_TRY(read_blocks(weights, path, blocks, n, rows, cols, &whole, err));
    else TQ_TRY(read_matrix(weights, path, n, rows, cols, &whole, err));
    for (int i = 0; i < n; i++) out[i] = tq_matrix_rows(&whole, i * rows, rows);
    return TQ_OK;
}

size_t tq_weights_transposed_bytes(const tq_matrix *m, int n) {
    if (m->kind != TQ_MATRIX_F32 && m->kind != TQ_MATRIX_F16 && m->kind != TQ_MATRIX_BF16) return 0;
    return (size_t)n * (size_t)m->rows * tq_matrix_row_bytes(m);
}

void tq_weights_transpose(tq_matrix *matrices, int n, void *to) {
    size_t element = matrices->kind == TQ_MATRIX_F32 ? 4 : 2;
    for (tq_matrix *m = matrices; m < matrices + n; m++) {
        uint8_t *turned = to;
        size_t rows = (size_t)m->rows, cols = (size_t)m->cols;
        for (size_t r = 0; r < rows; r++)
            for (size_t c = 0; c < cols; c++)
                memcpy(turned + (c * rows + r) * element, (const uint8_t *)m->data + (r * cols + c) * element, element);
        *m = (tq_matrix){.kind = m->kind, .rows = (int)cols, .cols = (int)rows, .data = turned};
        to = turned + rows * cols * element;
    }
}

static void convert(const tq_tensor *tensor, int64_t n, float *dst) {
    const uint16_t *half = tensor->data;
    if (tensor->dtype == TQ_F32) memcpy(dst, tensor->data, tensor->bytes);
    else if (tensor->dtype == TQ_F16)
        for (int64_t i = 0; i < n; i++) dst[i] = tq_f16_f32(half[i]);
    else
        for (int64_t i = 0; i < n; i++) dst[i] = tq_bf16_f32(half[i]);
}

tq_status tq_weights_floats(const tq_weights *weights, const char *name, int64_t n, float *dst, tq_error *err) {
    const tq_tensor *tensor = tq_weights_find(weights, name);
    if (!tensor) return tq_fail(err, TQ_NOT_FOUND, "the model has no tensor %.200s", name);
    if (!is_float(tensor->dtype) || (int64_t)(tensor->bytes / tq_dtype_bytes(tensor->dtype)) != n) {
        char want[64];
        snprintf(want, sizeof want, "%lld values in f32, f16 or bf16", (long long)n);
        return mismatch(tensor, want, err);
    }
    convert(tensor, n, dst);
    return TQ_OK;
}

tq_status tq_weights_vector(const tq_weights *weights, const char *name, int n, float *dst, tq_error *err) {
    const tq_tensor *tensor = tq_weights_find(weights, name);
    if (!tensor) return tq_fail(err, TQ_NOT_FOUND, "the model has no tensor %.200s", name);
    if (!is_float(tensor->dtype) || tensor->n_dims != 1 || tensor->shape[0] != n) {
        char want[64];
        snprintf(want, sizeof want, "f32, f16 or bf16 [%d]", n);
        return mismatch(tensor, want, err);
    }
    convert(tensor, n, dst);
    return TQ_OK;
}

int64_t tq_weights_total_bytes(const tq_weights *weights) { return weights->bytes; }
int64_t tq_weights_copied_bytes(const tq_weights *weights) { return weights->copied; }
int64_t tq_weights_total_parameters(const tq_weights *weights) { return weights->parameters; }
const char *tq_weights_description(const tq_weights *weights) { return weights->description; }
int tq_weights_count(const tq_weights *weights) { return weights->n; }
const tq_tensor *tq_weights_at(const tq_weights *weights, int index) { return weights->by_order[index].tensor; }
