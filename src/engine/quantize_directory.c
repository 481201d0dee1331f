/* quantize_directory.c: a model directory to its MLX-quantized copy.
 * Owns: what is quantized and what is copied, and that the copy appears whole or not at all.
 * Not here: the arithmetic (file/mlx_quantize.c), the file's layout (file/safetensors_writer.c). */
#include <turboquant/tq.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_map.h"
#include "base/half.h"
#include "base/pool.h"
#include "file/mlx_quantization.h"
#include "file/mlx_quantize.h"
#include "file/safetensors_writer.h"
#include "file/weights.h"

#define BLOCK_ROWS 256 /* rows quantized between two writes */
#define PATH_CAP 4096

static const char *const copied_files[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "merges.txt",
    "vocab.json",
};

static const char templates_folder[] = "additional_chat_templates";

/* A tensor of the source and where it goes: outputs[first], and for a matrix also first + 1 and first + 2. */
typedef struct job {
    const tq_tensor *source;
    bool quantize;
    int first;
} job;

typedef struct conversion {
    const char *src;
    int bits, group_size;
    json_t *config; /* of the source */
    tq_weights *weights;
    job *jobs; /* (n_jobs) */
    int n_jobs;
    tq_tensor *outputs; /* (n_outputs); the names of scales and biases are allocated, and the caller's to free */
    int64_t *offsets;   /* (n_outputs) */
    int n_outputs;

    tq_pool *pool;
    float *scratch;                    /* (threads, row and its scales and biases) */
    uint8_t *packed, *scales, *biases; /* of BLOCK_ROWS rows */
    size_t scratch_floats;

    void (*progress)(void *ctx, double fraction);
    void *progress_ctx;
    int64_t done;
} conversion;

static void advance(conversion *c, size_t bytes) {
    c->done += (int64_t)bytes;
    int64_t total = tq_weights_total_bytes(c->weights);
    if (c->progress) c->progress(c->progress_ctx, total ? (double)c->done / (double)total : 1.0);
}

static bool is_float(tq_dtype dtype) { return dtype == TQ_F32 || dtype == TQ_F16 || dtype == TQ_BF16; }

/* ---- names and directories -------------------------------------------------------------------------------------- */

static tq_status join(char path[PATH_CAP], const char *directory, const char *name, tq_error *err) {
    if ((size_t)snprintf(path, PATH_CAP, "%s/%s", directory, name) < PATH_CAP) return TQ_OK;
    return tq_fail(err, TQ_INVALID, "%.200s...: the path is too long", directory);
}

/* dst without trailing slashes, and the directory that will hold it. */
static tq_status split_destination(const char *dst, char path[PATH_CAP], char parent[PATH_CAP], tq_error *err) {
    size_t n = strlen(dst);
    while (n > 1 && dst[n - 1] == '/') n--;
    if (n == 0 || n + 16 > PATH_CAP)
        return tq_fail(err, TQ_INVALID, "the destination's name has %zu bytes; want 1 to %d", n, PATH_CAP - 16);
    memcpy(path, dst, n);
    path[n] = 0;
    struct stat st;
    if (lstat(path, &st) == 0) return tq_fail(err, TQ_INVALID, "%s already exists", path);
    memcpy(parent, path, n + 1);
    char *slash = strrchr(parent, '/');
    if (!slash) memcpy(parent, ".", 2);
    else slash[slash == parent] = 0;
    return TQ_OK;
}

static tq_status check_not_inside(const char *src, const char *parent, const char *dst, tq_error *err) {
    char *outer = realpath(src, NULL), *inner = outer ? realpath(parent, NULL) : NULL;
    tq_status status = TQ_OK;
    if (!outer || !inner) {
        status = tq_fail(err, errno == ENOENT ? TQ_NOT_FOUND : TQ_IO, "%s: %s", outer ? parent : src, strerror(errno));
    } else {
        size_t n = strlen(outer);
        if (strncmp(inner, outer, n) == 0 && (inner[n] == 0 || inner[n] == '/' || n == 1))
            status = tq_fail(err, TQ_INVALID, "the destination %.200s lies inside the source %.200s", dst, src);
    }
    free(inner);
    free(outer);
    return status;
}

static void sync_directory(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd); /* some file systems refuse it for directories */
    close(fd);
}

/* A directory of plain files. */
static void remove_directory(const char *path) {
    DIR *directory = opendir(path);
    const struct dirent *entry;
    while (directory && (entry = readdir(directory)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory) closedir(directory);
    rmdir(path);
}

static tq_status create_file(const char *directory, const char *name, char path[PATH_CAP], int *fd, tq_error *err) {
    TQ_TRY(join(path, directory, name, err));
    *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return *fd >= 0 ? TQ_OK : tq_fail(err, TQ_IO, "%s: %s", path, strerror(errno));
}

static tq_status finish_file(int fd, const char *path, tq_status status, tq_error *err) {
    if (status == TQ_OK && fsync(fd) != 0) status = tq_fail(err, TQ_IO, "%s: %s", path, strerror(errno));
    if (close(fd) != 0 && status == TQ_OK) status = tq_fail(err, TQ_IO, "%s: %s", path, strerror(errno));
    return status;
}

static tq_status write_file(const char *directory, const char *name, const void *data, size_t bytes, tq_error *err) {
    char path[PATH_CAP];
    int fd;
    TQ_TRY(create_file(directory, name, path, &fd, err));
    return finish_file(fd, path, tq_safetensors_write_data(fd, path, data, bytes, 0, err), err);
}

/* ---- the plan --------------------------------------------------------------------------------------------------- */

static tq_status load_source(conversion *c, tq_error *err) {
    char path[PATH_CAP];
    tq_file_map map;
    json_error_t json_err;
    tq_mlx_quantization quantization;
    TQ_TRY(join(path, c->src, "config.json", err));
    TQ_TRY(tq_file_map_open(path, &map, err));
    c->config = json_loadb(map.data ? (const char *)map.data : "", map.bytes, JSON_REJECT_DUPLICATES, &json_err);
    tq_file_map_close(&map);
    if (!c->config) return tq_fail(err, TQ_FORMAT, "%s: %s at line %d", path, json_err.text, json_err.line);
    if (!json_is_object(c->config)) return tq_fail(err, TQ_FORMAT, "%s: want an object", path);
    TQ_TRY(tq_mlx_quantization_read(c->config, &quantization, err));
    if (quantization.entry)
        return tq_fail(err, TQ_INVALID, "%s is already quantized (%d-bit groups of %d)", c->src, quantization.bits,
                       quantization.group_size);
    return tq_weights_open(c->src, c->config, &c->weights, err);
}

/* Length of the module's path if the tensor is "<path>.weight" of two dimensions, else 0. */
static size_t matrix_path(const tq_tensor *tensor) {
    size_t n = strlen(tensor->name);
    if (tensor->n_dims != 2 || n <= 7 || strcmp(tensor->name + n - 7, ".weight") != 0) return 0;
    return n - 7;
}

static tq_status add_matrix(conversion *c, const tq_tensor *tensor, size_t path_length, tq_error *err) {
    static const char *const suffixes[] = {".scales", ".biases"};
    int64_t rows = tensor->shape[0], cols = tensor->shape[1];
    c->outputs[c->n_outputs++] =
        (tq_tensor){.name = tensor->name, .dtype = TQ_U32, .n_dims = 2, .shape = {rows, cols / 32 * c->bits}};
    for (int i = 0; i < 2; i++) {
        char *name = malloc(path_length + 8);
        if (!name) return tq_fail_memory(err, path_length + 8, "a tensor's name");
        memcpy(name, tensor->name, path_length);
        memcpy(name + path_length, suffixes[i], 8);
        c->outputs[c->n_outputs++] =
            (tq_tensor){.name = name, .dtype = tensor->dtype, .n_dims = 2, .shape = {rows, cols / c->group_size}};
        if (tq_weights_find(c->weights, name))
            return tq_fail(err, TQ_INVALID, "%s is already quantized: it has a tensor %.200s", c->src, name);
    }
    return TQ_OK;
}

static tq_status make_plan(conversion *c, tq_error *err) {
    size_t n = (size_t)tq_weights_count(c->weights);
    c->jobs = calloc(n + 1, sizeof *c->jobs);
    c->outputs = calloc(3 * n + 1, sizeof *c->outputs);
    c->offsets = calloc(3 * n + 1, sizeof *c->offsets);
    if (!c->jobs || !c->outputs || !c->offsets)
        return tq_fail_memory(err, n * (sizeof *c->jobs + 3 * sizeof *c->outputs), "a table of tensors");
    int n_matrices = 0;
    for (size_t i = 0; i < n; i++) {
        const tq_tensor *tensor = tq_weights_at(c->weights, (int)i);
        size_t path_length = matrix_path(tensor);
        job *j = &c->jobs[c->n_jobs++];
        if (path_length && !is_float(tensor->dtype))
            return tq_fail(err, TQ_UNSUPPORTED, "%.200s: cannot quantize %s; f32, f16 and bf16 can be", tensor->name,
                           tq_dtype_name(tensor->dtype));
        *j = (job){tensor, path_length && tensor->bytes && tensor->shape[1] % c->group_size == 0, c->n_outputs};
        if (j->quantize && tensor->shape[1] > 1 << 24)
            return tq_fail(err, TQ_UNSUPPORTED, "%.200s: %lld columns", tensor->name, (long long)tensor->shape[1]);
        if (j->quantize) TQ_TRY(add_matrix(c, tensor, path_length, err));
        else c->outputs[c->n_outputs++] = *tensor;
        n_matrices += j->quantize;
    }
    if (n_matrices) return TQ_OK;
    return tq_fail(err, TQ_INVALID, "%s has no matrix whose columns are a multiple of %d", c->src, c->group_size);
}

static tq_status allocate_buffers(conversion *c, tq_error *err) {
    size_t cols = 0, threads = (size_t)tq_pool_threads(c->pool);
    for (int i = 0; i < c->n_jobs; i++)
        if (c->jobs[i].quantize && (size_t)c->jobs[i].source->shape[1] > cols)
            cols = (size_t)c->jobs[i].source->shape[1];
    size_t groups = cols / (size_t)c->group_size;
    c->scratch_floats = cols + 2 * groups;
    c->scratch = malloc(threads * c->scratch_floats * sizeof *c->scratch);
    c->packed = malloc(BLOCK_ROWS * cols * (size_t)c->bits / 8);
    c->scales = malloc(BLOCK_ROWS * groups * sizeof(float));
    c->biases = malloc(BLOCK_ROWS * groups * sizeof(float));
    if (c->scratch && c->packed && c->scales && c->biases) return TQ_OK;
    return tq_fail_memory(err, (threads * c->scratch_floats + BLOCK_ROWS * c->scratch_floats) * sizeof *c->scratch,
                          "rows being quantized");
}

/* ---- the tensors ------------------------------------------------------------------------------------------------ */

static void load_floats(tq_dtype dtype, const void *from, size_t n, float *to) {
    const uint16_t *half = from;
    if (dtype == TQ_F32) memcpy(to, from, n * sizeof *to);
    else if (dtype == TQ_F16)
        for (size_t i = 0; i < n; i++) to[i] = tq_f16_f32(half[i]);
    else
        for (size_t i = 0; i < n; i++) to[i] = tq_bf16_f32(half[i]);
}

static void store_floats(tq_dtype dtype, const float *from, size_t n, void *to) {
    uint16_t *half = to;
    if (dtype == TQ_F32) memcpy(to, from, n * sizeof *from);
    else if (dtype == TQ_F16)
        for (size_t i = 0; i < n; i++) half[i] = tq_f32_f16(from[i]);
    else
        for (size_t i = 0; i < n; i++) half[i] = tq_f32_bf16(from[i]);
}

typedef struct block {
    const conversion *c;
    const tq_tensor *source;
    size_t first, cols, groups, packed_bytes, scale_bytes; /* the last two: of one row */
    atomic_bool not_finite;
} block;

static void quantize_row(void *ctx, int task, int worker) {
    block *b = ctx;
    const conversion *c = b->c;
    size_t row = (size_t)task, item = tq_dtype_bytes(b->source->dtype);
    float *x = c->scratch + (size_t)worker * c->scratch_floats, *scales = x + b->cols, *biases = scales + b->groups;
    load_floats(b->source->dtype, (const uint8_t *)b->source->data + (b->first + row) * b->cols * item, b->cols, x);
    if (!tq_mlx_quantize_row(x, (int)b->cols, c->bits, c->group_size, c->packed + row * b->packed_bytes, scales,
                             biases)) {
        atomic_store(&b->not_finite, true);
        return;
    }
    store_floats(b->source->dtype, scales, b->groups, c->scales + row * b->scale_bytes);
    store_floats(b->source->dtype, biases, b->groups, c->biases + row * b->scale_bytes);
}

static tq_status write_matrix(conversion *c, const job *j, int fd, const char *label, tq_error *err) {
    size_t rows = (size_t)j->source->shape[0], cols = (size_t)j->source->shape[1];
    size_t groups = cols / (size_t)c->group_size, item = tq_dtype_bytes(j->source->dtype);
    block b = {.c = c,
               .source = j->source,
               .cols = cols,
               .groups = groups,
               .packed_bytes = cols * (size_t)c->bits / 8,
               .scale_bytes = groups * item};
    atomic_init(&b.not_finite, false);
    const int64_t *offsets = c->offsets + j->first;
    for (; b.first < rows; b.first += BLOCK_ROWS) {
        size_t n = rows - b.first < BLOCK_ROWS ? rows - b.first : BLOCK_ROWS;
        tq_pool_run(c->pool, quantize_row, &b, (int)n);
        if (atomic_load(&b.not_finite))
            return tq_fail(err, TQ_FORMAT, "%.200s: a value among rows %zu to %zu is not finite, or a group's range",
                           j->source->name, b.first, b.first + n - 1);
        TQ_TRY(tq_safetensors_write_data(fd, label, c->packed, n * b.packed_bytes,
                                         offsets[0] + (int64_t)(b.first * b.packed_bytes), err));
        TQ_TRY(tq_safetensors_write_data(fd, label, c->scales, n * b.scale_bytes,
                                         offsets[1] + (int64_t)(b.first * b.scale_bytes), err));
        TQ_TRY(tq_safetensors_write_data(fd, label, c->biases, n * b.scale_bytes,
                                         offsets[2] + (int64_t)(b.first * b.scale_bytes), err));
        advance(c, n * cols * item);
    }
    return TQ_OK;
}

static tq_status write_tensors(conversion *c, int fd, const char *path, tq_error *err) {
    TQ_TRY(tq_safetensors_write_header(fd, path, "mlx", c->outputs, c->n_outputs, c->offsets, err));
    for (int i = 0; i < c->n_jobs; i++) {
        const job *j = &c->jobs[i];
        if (j->quantize) {
            TQ_TRY(write_matrix(c, j, fd, path, err));
        } else {
            TQ_TRY(tq_safetensors_write_data(fd, path, j->source->data, j->source->bytes, c->offsets[j->first], err));
            advance(c, j->source->bytes);
        }
    }
    return TQ_OK;
}

/* ---- the other files -------------------------------------------------------------------------------------------- */

/* The config in the fewest digits that read back as the same numbers: 1e-06 stays 1e-06. */
static char *print_config(const json_t *config) {
    for (size_t digits = 15;; digits++) {
        char *text = json_dumps(config, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        json_t *back = text && digits < 17 ? json_loads(text, 0, NULL) : NULL;
        bool same = back && json_equal(config, back);
        json_decref(back);
        if (!text || same || digits == 17) return text;
        free(text);
    }
}

static tq_status write_config(const conversion *c, const char *directory, tq_error *err) {
    json_t *config = json_copy(c->config);
    json_t *entry = json_pack("{s:i, s:i}", "group_size", c->group_size, "bits", c->bits);
    bool failed = !config || !entry;
    for (int i = 0; i < c->n_jobs && !failed; i++) {
        size_t path_length = matrix_path(c->jobs[i].source);
        if (!path_length || c->jobs[i].quantize) continue;
        char *path = strndup(c->jobs[i].source->name, path_length);
        failed = !path || json_object_set_new(entry, path, json_false()) != 0;
        free(path);
    }
    if (!failed)
        failed = json_object_set(config, "quantization", entry) != 0 ||
                 json_object_set(config, "quantization_config", entry) != 0;
    char *text = failed ? NULL : print_config(config);
    json_decref(entry);
    json_decref(config);
    if (!text) return tq_fail_memory(err, 4096, "config.json");
    size_t n = strlen(text);
    text[n] = '\n'; /* in the place of the NUL: the bytes are written by length */
    tq_status status = write_file(directory, "config.json", text, n + 1, err);
    free(text);
    return status;
}

/* What is not there is not copied. */
static tq_status copy_file(const char *from, const char *to, const char *name, tq_error *err) {
    char path[PATH_CAP];
    tq_file_map map;
    TQ_TRY(join(path, from, name, err));
    tq_status status = tq_file_map_open(path, &map, err);
    if (status == TQ_NOT_FOUND) return TQ_OK;
    TQ_TRY(status);
    status = write_file(to, name, map.data, map.bytes, err);
    tq_file_map_close(&map);
    return status;
}

/* The folder of named chat templates. */
static tq_status copy_templates(const conversion *c, const char *directory, tq_error *err) {
    static const char end[] = ".jinja";
    char from[PATH_CAP], to[PATH_CAP];
    TQ_TRY(join(from, c->src, templates_folder, err));
    TQ_TRY(join(to, directory, templates_folder, err));
    DIR *entries = opendir(from);
    if (!entries) return TQ_OK;
    tq_status status = mkdir(to, 0777) == 0 ? TQ_OK : tq_fail(err, TQ_IO, "%s: %s", to, strerror(errno));
    const struct dirent *entry;
    while (status == TQ_OK && (entry = readdir(entries))) {
        size_t n = strlen(entry->d_name);
        if (n >= sizeof end && strcmp(entry->d_name + n - (sizeof end - 1), end) == 0)
            status = copy_file(from, to, entry->d_name, err);
    }
    closedir(entries);
    return status;
}

static tq_status copy_files(const conversion *c, const char *directory, tq_error *err) {
    for (size_t i = 0; i < sizeof copied_files / sizeof *copied_files; i++)
        TQ_TRY(copy_file(c->src, directory, copied_files[i], err));
    return copy_templates(c, directory, err);
}

static tq_status write_directory(conversion *c, const char *directory, tq_error *err) {
    char path[PATH_CAP];
    int fd;
    TQ_TRY(create_file(directory, "model.safetensors", path, &fd, err));
    TQ_TRY(finish_file(fd, path, write_tensors(c, fd, path, err), err));
    TQ_TRY(write_config(c, directory, err));
    return copy_files(c, directory, err);
}

/* Everything is written to "<dst>.XXXXXX/model", which then becomes dst.  The inner directory is made by mkdir, whose
 * permissions are the caller's usual ones; mkdtemp's would shut everyone else out. */
static tq_status write_destination(conversion *c, const char *dst, const char *parent, tq_error *err) {
    char temporary[PATH_CAP], inner[PATH_CAP], templates[PATH_CAP];
    snprintf(temporary, sizeof temporary, "%.*s.XXXXXX", PATH_CAP - 16, dst);
    if (!mkdtemp(temporary)) return tq_fail(err, TQ_IO, "%s: %s", temporary, strerror(errno));
    tq_status status = join(inner, temporary, "model", err);
    if (status == TQ_OK && mkdir(inner, 0777) != 0) status = tq_fail(err, TQ_IO, "%s: %s", inner, strerror(errno));
    if (status == TQ_OK) {
        status = write_directory(c, inner, err);
        if (status == TQ_OK) {
            sync_directory(inner);
            if (rename(inner, dst) != 0) status = tq_fail(err, TQ_IO, "%s: %s", dst, strerror(errno));
        }
        if (status != TQ_OK) {
            snprintf(templates, sizeof templates, "%.*s/%s", PATH_CAP - 64, inner, templates_folder);
            remove_directory(templates);
            remove_directory(inner);
        }
    }
    rmdir(temporary);
    if (status == TQ_OK) sync_directory(parent);
    return status;
}

static void release(conversion *c) {
    for (int i = 0; i < c->n_jobs; i++)
        for (int k = 1; c->jobs[i].quantize && k < 3 && c->jobs[i].first + k < c->n_outputs; k++)
            free((char *)c->outputs[c->jobs[i].first + k].name);
    free(c->jobs);
    free(c->outputs);
    free(c->offsets);
    free(c->scratch);
    free(c->packed);
    free(c->scales);
    free(c->biases);
    tq_pool_free(c->pool);
    tq_weights_close(c->weights);
    json_decref(c->config);
}

static tq_status convert(conversion *c, const char *dst, tq_error *err) {
    char path[PATH_CAP], parent[PATH_CAP];
    if (!tq_mlx_bits_known(c->bits)) return tq_fail(err, TQ_INVALID, "%d bits; want 2, 3, 4, 5, 6 or 8", c->bits);
    if (!tq_mlx_group_size_known(c->group_size))
        return tq_fail(err, TQ_INVALID, "groups of %d; want 32, 64 or 128", c->group_size);
    TQ_TRY(split_destination(dst, path, parent, err));
    TQ_TRY(check_not_inside(c->src, parent, path, err));
    TQ_TRY(load_source(c, err));
    TQ_TRY(make_plan(c, err));
    TQ_TRY(tq_pool_new(0, &c->pool, err));
    TQ_TRY(allocate_buffers(c, err));
    return write_destination(c, path, parent, err);
}

tq_status tq_quantize_directory(const char *src, const char *dst, int bits, int group_size,
                                void (*progress)(void *ctx, double fraction), void *ctx, tq_error *err) {
    conversion c = {.src = src, .bits = bits, .group_size = group_size, .progress = progress, .progress_ctx = ctx};
    tq_status status = convert(&c, dst, err);
    release(&c);
    return status;
}
