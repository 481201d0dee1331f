/* safetensors.c: the header of one safetensors file, checked before anything is believed.
 * Owns: names and shapes, in one allocation.  Not here: mapping files, shards (weights.c). */
#include "file/safetensors.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_BYTES_MAX ((size_t)100 << 20) /* the limit of the reference implementation */
#define NAME_BYTES_MAX 512

/* Where a failure is: the file and, if known, the tensor. */
typedef struct place {
    const char *label, *name;
    tq_error *err;
} place;

#define FAIL(at, code, format, ...)                                                                                    \
    tq_fail((at)->err, code, "%s: tensor %.200s: " format, (at)->label, (at)->name, __VA_ARGS__)

static const char *const dtype_names[TQ_N_DTYPES] = { /* NULL: a type that safetensors files have not */
    [TQ_F32] = "F32", [TQ_F16] = "F16", [TQ_BF16] = "BF16", [TQ_F64] = "F64",         [TQ_I64] = "I64",
    [TQ_I32] = "I32", [TQ_I16] = "I16", [TQ_I8] = "I8",     [TQ_U64] = "U64",         [TQ_U32] = "U32",
    [TQ_U16] = "U16", [TQ_U8] = "U8",   [TQ_BOOL] = "BOOL", [TQ_F8_E4M3] = "F8_E4M3", [TQ_F8_E5M2] = "F8_E5M2",
};

const char *tq_safetensors_dtype_name(tq_dtype dtype) { return dtype_names[dtype]; }

static tq_status read_dtype(const place *at, const json_t *json, tq_dtype *dtype) {
    const char *text = json_string_value(json);
    if (!text) return FAIL(at, TQ_FORMAT, "want a string as %s", "dtype");
    for (int i = 0; i < TQ_N_DTYPES; i++) {
        if (dtype_names[i] && strcmp(text, dtype_names[i]) == 0) {
            *dtype = (tq_dtype)i;
            return TQ_OK;
        }
    }
    return FAIL(at, TQ_UNSUPPORTED, "dtype %.40s is not supported", text);
}

/* Shape, and the bytes it calls for. */
static tq_status read_shape(const place *at, const json_t *json, tq_tensor *tensor, size_t *bytes) {
    if (!json_is_array(json)) return FAIL(at, TQ_FORMAT, "want an array as %s", "shape");
    size_t n = json_array_size(json);
    if (n > TQ_MAX_DIMS) return FAIL(at, TQ_UNSUPPORTED, "%zu dimensions; at most %d are supported", n, TQ_MAX_DIMS);
    tensor->n_dims = (int)n;
    size_t product = tq_dtype_bytes(tensor->dtype);
    bool empty = false;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(json, i);
        json_int_t dim = json_integer_value(item);
        if (!json_is_integer(item) || dim < 0)
            return FAIL(at, TQ_FORMAT, "dimension %zu is not an integer of 0 or more", i);
        tensor->shape[i] = dim;
        empty |= dim == 0;
        /* An overflow counts even beside a zero: nobody writes such a shape in good faith. */
        if (dim > 0 && __builtin_mul_overflow(product, (size_t)dim, &product))
            return FAIL(at, TQ_FORMAT, "the shape overflows at dimension %zu", i);
    }
    *bytes = empty ? 0 : product;
    return TQ_OK;
}

static void print_shape(char *text, size_t n, const tq_tensor *tensor) {
    size_t used = 0;
    for (int i = 0; i < tensor->n_dims && used < n; i++)
        used += (size_t)snprintf(text + used, n - used, i ? ", %lld" : "%lld", (long long)tensor->shape[i]);
    if (!tensor->n_dims) text[0] = 0;
}

static tq_status read_range(const place *at, const json_t *json, const uint8_t *data, size_t data_bytes, size_t want,
                            tq_tensor *tensor) {
    const json_t *first = json_array_get(json, 0), *last = json_array_get(json, 1);
    if (!json_is_array(json) || json_array_size(json) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return FAIL(at, TQ_FORMAT, "want two integers as %s", "data_offsets");
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uintmax_t)end > data_bytes)
        return FAIL(at, TQ_FORMAT, "bytes %lld to %lld do not lie in the %zu bytes of data", (long long)begin,
                    (long long)end, data_bytes);
    tensor->bytes = (size_t)(end - begin);
    tensor->data = data + begin;
    if (tensor->bytes == want) return TQ_OK;
    char shape[TQ_MAX_DIMS * 22];
    print_shape(shape, sizeof shape, tensor);
    return FAIL(at, TQ_FORMAT, "want %zu bytes for %s [%s], the header gives %zu", want, tq_dtype_name(tensor->dtype),
                shape, tensor->bytes);
}

/* A name goes into error texts of one line: control characters have no place in it. */
static tq_status check_name(const char *label, const char *name, tq_error *err) {
    size_t n = strlen(name);
    if (n == 0 || n > NAME_BYTES_MAX)
        return tq_fail(err, TQ_FORMAT, "%s: a tensor name of %zu bytes; want 1 to %d", label, n, NAME_BYTES_MAX);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return tq_fail(err, TQ_FORMAT, "%s: a tensor name with a control character", label);
    return TQ_OK;
}

static tq_status read_tensor(const char *label, const char *name, const json_t *entry, const uint8_t *data,
                             size_t data_bytes, tq_tensor *tensor, tq_error *err) {
    place at = {label, name, err};
    size_t want = 0;
    if (!json_is_object(entry)) return FAIL(&at, TQ_FORMAT, "want an object with %s", "dtype, shape and data_offsets");
    TQ_TRY(read_dtype(&at, json_object_get(entry, "dtype"), &tensor->dtype));
    TQ_TRY(read_shape(&at, json_object_get(entry, "shape"), tensor, &want));
    return read_range(&at, json_object_get(entry, "data_offsets"), data, data_bytes, want, tensor);
}

static int compare_by_data(const void *a, const void *b) {
    const uint8_t *x = (*(const tq_tensor *const *)a)->data, *y = (*(const tq_tensor *const *)b)->data;
    return (x > y) - (x < y);
}

/* Gaps are harmless padding; a byte that belongs to two tensors is a lie. */
static tq_status check_overlaps(const tq_safetensors *st, const char *label, tq_error *err) {
    if (st->n_tensors == 0) return TQ_OK;
    size_t bytes = (size_t)st->n_tensors * sizeof(tq_tensor *);
    const tq_tensor **order = malloc(bytes);
    if (!order) return tq_fail_memory(err, bytes, "a table of tensors");
    size_t n = 0;
    for (int i = 0; i < st->n_tensors; i++)
        if (st->tensors[i].bytes) order[n++] = &st->tensors[i];
    qsort(order, n, sizeof *order, compare_by_data);
    tq_status status = TQ_OK;
    for (size_t i = 1; i < n && status == TQ_OK; i++)
        if ((const uint8_t *)order[i]->data < (const uint8_t *)order[i - 1]->data + order[i - 1]->bytes)
            status = tq_fail(err, TQ_FORMAT, "%s: tensors %.150s and %.150s overlap", label, order[i - 1]->name,
                             order[i]->name);
    free(order);
    return status;
}

static tq_status load_header(const uint8_t *data, size_t bytes, const char *label, json_t **header,
                             size_t *header_bytes, tq_error *err) {
    if (bytes < 8) return tq_fail(err, TQ_FORMAT, "%s: %zu bytes are too few for a safetensors file", label, bytes);
    uint64_t n = 0;
    for (int i = 0; i < 8; i++) n |= (uint64_t)data[i] << 8 * i;
    if (n > bytes - 8)
        return tq_fail(err, TQ_FORMAT, "%s: the header's length is %llu bytes, the file has %zu after it", label,
                       (unsigned long long)n, bytes - 8);
    if (n > HEADER_BYTES_MAX)
        return tq_fail(err, TQ_FORMAT, "%s: a header of %llu bytes; at most %zu are allowed", label,
                       (unsigned long long)n, HEADER_BYTES_MAX);
    json_error_t json_err;
    *header = json_loadb((const char *)data + 8, (size_t)n, JSON_REJECT_DUPLICATES, &json_err);
    if (!*header) return tq_fail(err, TQ_FORMAT, "%s: header: %s at byte %d", label, json_err.text, json_err.position);
    *header_bytes = (size_t)n;
    if (json_is_object(*header)) return TQ_OK;
    json_decref(*header);
    return tq_fail(err, TQ_FORMAT, "%s: the header is not a JSON object", label);
}

/* One block holds the tensors and then their names. */
static tq_status allocate_tensors(json_t *header, const char *label, tq_safetensors *out, char **names, tq_error *err) {
    size_t n = 0, name_bytes = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        TQ_TRY(check_name(label, name, err));
        name_bytes += strlen(name) + 1;
        n++;
    }
    size_t bytes = n * sizeof(tq_tensor) + name_bytes;
    out->tensors = calloc(1, bytes ? bytes : 1);
    if (!out->tensors) return tq_fail_memory(err, bytes, "a table of tensors");
    out->n_tensors = (int)n; /* a header of 100 MB has room for far fewer than INT_MAX */
    *names = (char *)(out->tensors + n);
    return TQ_OK;
}

tq_status tq_safetensors_parse(const void *data, size_t bytes, const char *label, tq_safetensors *out, tq_error *err) {
    *out = (tq_safetensors){0};
    json_t *header;
    size_t header_bytes;
    TQ_TRY(load_header(data, bytes, label, &header, &header_bytes, err));
    const uint8_t *begin = (const uint8_t *)data + 8 + header_bytes;
    size_t data_bytes = bytes - 8 - header_bytes;

    char *names = NULL;
    tq_status status = allocate_tensors(header, label, out, &names, err);
    tq_tensor *tensor = out->tensors;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        if (status != TQ_OK) break;
        if (strcmp(name, "__metadata__") == 0) continue;
        size_t n = strlen(name) + 1;
        tensor->name = memcpy(names, name, n);
        names += n;
        status = read_tensor(label, tensor->name, entry, begin, data_bytes, tensor, err);
        tensor++;
    }
    json_decref(header);
    if (status == TQ_OK) status = check_overlaps(out, label, err);
    if (status != TQ_OK) tq_safetensors_free(out);
    return status;
}

void tq_safetensors_free(tq_safetensors *st) {
    free(st->tensors);
    *st = (tq_safetensors){0};
}
