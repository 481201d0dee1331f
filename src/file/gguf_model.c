/* gguf_model.c: the one or several GGUF files of a model, mapped. */
#include "file/gguf_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file/gguf_names.h"

enum { MAX_PARTS = 9999, SUFFIX = sizeof "-00001-of-00002.gguf" - 1, RENAMED_CAP = 160 };

/* ---- one file ------------------------------------------------------------------------------------------------------ */

static tq_status open_part(tq_gguf_part *part, tq_error *err) {
    TQ_TRY(tq_file_map_open(part->path, &part->map, err));
    return tq_gguf_parse(part->map.data, part->map.bytes, part->path, &part->gguf, err);
}

/* How many rows a head of the tensor has: they stand as pairs. */
static tq_status find_pairs(const tq_gguf_model *model, tq_gguf_change change, tq_tensor *tensor, tq_error *err) {
    char key[256];
    const tq_gguf *head = tq_gguf_model_head(model);
    int64_t n_queries = 0, n_keys = 0;
    bool found;
    snprintf(key, sizeof key, "%.200s.attention.head_count", model->architecture);
    TQ_TRY(tq_gguf_integer(head, key, 1, 1 << 16, NULL, &n_queries, err));
    snprintf(key, sizeof key, "%.200s.attention.head_count_kv", model->architecture);
    TQ_TRY(tq_gguf_integer(head, key, 1, 1 << 16, &found, &n_keys, err));
    if (!found) n_keys = n_queries;
    int64_t n_heads = change == TQ_GGUF_PAIRED_QUERY ? n_queries : change == TQ_GGUF_PAIRED_KEY ? n_keys : n_queries + 2 * n_keys;
    int64_t rows = tensor->shape[0], size = rows / n_heads;
    if (rows % n_heads || size % 2 || size > TQ_PAIRED_ROWS_MAX)
        return tq_fail(err, TQ_FORMAT, "%s: %.200s: %lld rows are not %lld heads of an even number of rows up to %d",
                       head->label, tensor->name, (long long)rows, (long long)n_heads, TQ_PAIRED_ROWS_MAX);
    tensor->paired_rows = (int)size;
    return TQ_OK;
}

static tq_status rename_tensors(const tq_gguf_model *model, tq_gguf_part *part, tq_error *err) {
    size_t n = (size_t)part->gguf.n_tensors, used = 0;
    part->tensors = malloc((n + 1) * sizeof *part->tensors);
    part->names = malloc(n * RENAMED_CAP + 1);
    if (!part->tensors || !part->names) return tq_fail_memory(err, n * RENAMED_CAP, "the names of tensors");
    for (size_t i = 0; i < n; i++) {
        tq_tensor *tensor = &part->tensors[i];
        tq_gguf_change change;
        *tensor = part->gguf.tensors[i];
        if (!tq_gguf_rename(model->architecture, tensor->name, part->names + used, RENAMED_CAP, &change)) continue;
        if (change != TQ_GGUF_SAME && change != TQ_GGUF_BARE) TQ_TRY(find_pairs(model, change, tensor, err));
        tensor->name = part->names + used;
        used += strlen(tensor->name) + 1;
    }
    return TQ_OK;
}

/* ---- a split ------------------------------------------------------------------------------------------------------- */

static tq_status read_architecture(tq_gguf_model *model, tq_error *err) {
    tq_gguf_string text;
    const tq_gguf *head = tq_gguf_model_head(model);
    TQ_TRY(tq_gguf_text(head, "general.architecture", NULL, &text, err));
    if (text.length == 0 || text.length > 64 || memchr(text.text, 0, text.length))
        return tq_fail(err, TQ_FORMAT, "%s: general.architecture: want 1 to 64 characters", head->label);
    model->architecture = strndup(text.text, text.length);
    return model->architecture ? TQ_OK : tq_fail_memory(err, text.length, "the architecture's name");
}

/* The path of part `no` (from 0), if the first is called "...-00001-of-0000N.gguf". */
static tq_status part_path(const char *first, int no, int n, char **out, tq_error *err) {
    char want[32], now[32];
    size_t length = strlen(first);
    snprintf(want, sizeof want, "-%05d-of-%05d.gguf", 1, n);
    snprintf(now, sizeof now, "-%05d-of-%05d.gguf", no + 1, n);
    if (length < SUFFIX || strcmp(first + length - SUFFIX, want) != 0)
        return tq_fail(err, TQ_INVALID, "%s: the first of %d files: want a name that ends in %s", first, n, want);
    *out = strdup(first);
    if (!*out) return tq_fail_memory(err, length, "a path");
    memcpy(*out + length - SUFFIX, now, SUFFIX);
    return TQ_OK;
}

static tq_status check_split(const tq_gguf *gguf, int no, int n, tq_error *err) {
    int64_t its_no, its_n;
    TQ_TRY(tq_gguf_integer(gguf, "split.no", 0, MAX_PARTS, NULL, &its_no, err));
    TQ_TRY(tq_gguf_integer(gguf, "split.count", 0, MAX_PARTS, NULL, &its_n, err));
    if (its_no == no && its_n == n) return TQ_OK;
    return tq_fail(err, TQ_FORMAT, "%s: want part %d of %d, the file is part %lld of %lld", gguf->label, no + 1, n,
                   (long long)its_no + 1, (long long)its_n);
}

static tq_status open_rest(tq_gguf_model *model, int n, tq_error *err) {
    int64_t want, have = model->parts[0].gguf.n_tensors;
    bool counted;
    for (int no = 1; no < n; no++) {
        tq_gguf_part *part = &model->parts[model->n_parts++];
        TQ_TRY(part_path(model->parts[0].path, no, n, &part->path, err));
        TQ_TRY(open_part(part, err));
        TQ_TRY(check_split(&part->gguf, no, n, err));
        have += part->gguf.n_tensors;
    }
    TQ_TRY(tq_gguf_integer(&model->parts[0].gguf, "split.tensors.count", 0, INT32_MAX, &counted, &want, err));
    if (counted && want != have)
        return tq_fail(err, TQ_FORMAT, "%s: want %lld tensors, the %d files have %lld", model->parts[0].path,
                       (long long)want, n, (long long)have);
    return TQ_OK;
}

static tq_status open_all(tq_gguf_model *model, const char *path, tq_error *err) {
    int64_t n = 1, no = 0;
    bool split;
    model->parts = calloc(1, sizeof *model->parts);
    if (!model->parts) return tq_fail_memory(err, sizeof *model->parts, "a GGUF file");
    model->n_parts = 1;
    model->parts[0].path = strdup(path);
    if (!model->parts[0].path) return tq_fail_memory(err, strlen(path), "a path");
    TQ_TRY(open_part(&model->parts[0], err));
    const tq_gguf *head = tq_gguf_model_head(model);
    TQ_TRY(tq_gguf_integer(head, "split.count", 0, MAX_PARTS, &split, &n, err));
    if (split) TQ_TRY(tq_gguf_integer(head, "split.no", 0, MAX_PARTS, &split, &no, err));
    if (no > 0)
        return tq_fail(err, TQ_INVALID, "%s: this is part %lld of %lld; name the first, which ends in -00001-of-%05lld.gguf",
                       path, (long long)no + 1, (long long)n, (long long)n);
    if (n > 1) {
        tq_gguf_part *parts = realloc(model->parts, (size_t)n * sizeof *parts);
        if (!parts) return tq_fail_memory(err, (size_t)n * sizeof *parts, "the files of a split");
        memset(parts + 1, 0, (size_t)(n - 1) * sizeof *parts);
        model->parts = parts;
        TQ_TRY(open_rest(model, (int)n, err));
    }
    TQ_TRY(read_architecture(model, err));
    for (int i = 0; i < model->n_parts; i++) TQ_TRY(rename_tensors(model, &model->parts[i], err));
    return TQ_OK;
}

tq_status tq_gguf_model_open(const char *path, tq_gguf_model **out, tq_error *err) {
    *out = NULL;
    tq_gguf_model *model = calloc(1, sizeof *model);
    if (!model) return tq_fail_memory(err, sizeof *model, "a GGUF model");
    tq_status status = open_all(model, path, err);
    if (status != TQ_OK) {
        tq_gguf_model_close(model);
        return status;
    }
    *out = model;
    return TQ_OK;
}

void tq_gguf_model_close(tq_gguf_model *model) {
    if (!model) return;
    for (int i = 0; i < model->n_parts; i++) {
        tq_gguf_part *part = &model->parts[i];
        tq_gguf_free(&part->gguf);
        tq_file_map_close(&part->map);
        free(part->tensors);
        free(part->names);
        free(part->path);
    }
    free(model->parts);
    free(model->architecture);
    free(model);
}

const tq_gguf *tq_gguf_model_head(const tq_gguf_model *model) { return &model->parts[0].gguf; }

const tq_tensor *tq_gguf_model_find(const tq_gguf_model *model, const char *name) {
    for (int i = 0; i < model->n_parts; i++)
        for (int j = 0; j < model->parts[i].gguf.n_tensors; j++)
            if (strcmp(model->parts[i].tensors[j].name, name) == 0) return &model->parts[i].tensors[j];
    return NULL;
}
