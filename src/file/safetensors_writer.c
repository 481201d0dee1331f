/* safetensors_writer.c: laying out and writing a safetensors file.
 * Owns: order, alignment, the header's text.  Not here: when the file is complete (its owner syncs and renames it). */
#include "file/safetensors_writer.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file/safetensors.h"

tq_status tq_safetensors_write_data(int fd, const char *label, const void *data, size_t bytes, int64_t offset,
                                    tq_error *err) {
    const char *from = data;
    while (bytes) {
        ssize_t n = pwrite(fd, from, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return tq_fail(err, TQ_IO, "%s: %s", label, n < 0 ? strerror(errno) : "nothing was written");
        from += n;
        bytes -= (size_t)n;
        offset += n;
    }
    return TQ_OK;
}

static int compare_layout(const void *a, const void *b) {
    const tq_tensor *x = *(const tq_tensor *const *)a, *y = *(const tq_tensor *const *)b;
    size_t m = tq_dtype_bytes(x->dtype), n = tq_dtype_bytes(y->dtype);
    return m != n ? (m < n ? 1 : -1) : strcmp(x->name, y->name);
}

/* One tensor's entry, its data beginning at `begin`; NULL if out of memory. */
static json_t *make_entry(tq_tensor *tensor, int64_t begin) {
    json_t *shape = json_array();
    tensor->bytes = tq_dtype_bytes(tensor->dtype);
    for (int i = 0; i < tensor->n_dims; i++) {
        tensor->bytes *= (size_t)tensor->shape[i];
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", tq_safetensors_dtype_name(tensor->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)begin + (json_int_t)tensor->bytes);
}

/* The header's text, padded with spaces so that the data begins at a multiple of 8; free().  offsets are relative to
 * the data until the caller knows where that begins. */
static char *make_header(const char *format, tq_tensor *tensors, tq_tensor **order, int n, int64_t *offsets,
                         size_t *header_bytes, int64_t *data_bytes) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", format);
    int64_t end = 0;
    bool failed = !header;
    for (int i = 0; i < n && !failed; i++) {
        failed = json_object_set_new(header, order[i]->name, make_entry(order[i], end)) != 0;
        offsets[order[i] - tensors] = end;
        end += (int64_t)order[i]->bytes;
    }
    char *text = failed ? NULL : json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (!text) return NULL;
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    char *out = malloc(padded + 1);
    if (out) {
        memcpy(out, text, length);
        memset(out + length, ' ', padded - length);
        out[padded] = 0;
    }
    free(text);
    *header_bytes = padded;
    *data_bytes = end;
    return out;
}

tq_status tq_safetensors_write_header(int fd, const char *label, const char *format, tq_tensor *tensors, int n,
                                      int64_t *offsets, tq_error *err) {
    tq_tensor **order = malloc((n ? (size_t)n : 1) * sizeof *order);
    if (!order) return tq_fail_memory(err, (size_t)n * sizeof *order, "a table of tensors");
    for (int i = 0; i < n; i++) order[i] = &tensors[i];
    qsort(order, (size_t)n, sizeof *order, compare_layout);
    size_t header_bytes = 0;
    int64_t data_bytes = 0;
    char *header = make_header(format, tensors, order, n, offsets, &header_bytes, &data_bytes);
    free(order);
    if (!header) return tq_fail_memory(err, (size_t)n * 128, "the header of a safetensors file");

    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)header_bytes >> 8 * i);
    int64_t data_begin = 8 + (int64_t)header_bytes;
    for (int i = 0; i < n; i++) offsets[i] += data_begin;
    tq_status status = tq_safetensors_write_data(fd, label, length, 8, 0, err);
    if (status == TQ_OK) status = tq_safetensors_write_data(fd, label, header, header_bytes, 8, err);
    if (status == TQ_OK && ftruncate(fd, (off_t)(data_begin + data_bytes)) != 0)
        status = tq_fail(err, TQ_IO, "%s: %s", label, strerror(errno));
    free(header);
    return status;
}
