/* gguf.h: one GGUF file, version 2 or 3 (github.com/ggml-org/ggml, docs/gguf.md).
 * Magic, version, counts; metadata: key, type, value; tensor directory: name, dimensions, type, offset; data.
 * Owns: the directories and the names in them.  Values, strings of values and tensors stay in the caller's bytes. */
#ifndef TQ_FILE_GGUF_H
#define TQ_FILE_GGUF_H

#include <stdbool.h>

#include "base/status.h"
#include "base/tensor.h"

typedef enum tq_gguf_type {
    TQ_GGUF_U8, TQ_GGUF_I8, TQ_GGUF_U16, TQ_GGUF_I16, TQ_GGUF_U32, TQ_GGUF_I32, TQ_GGUF_F32, TQ_GGUF_BOOL,
    TQ_GGUF_STRING, TQ_GGUF_ARRAY, TQ_GGUF_U64, TQ_GGUF_I64, TQ_GGUF_F64, TQ_GGUF_N_TYPES
} tq_gguf_type;

typedef struct tq_gguf_entry {
    const char *key;
    tq_gguf_type type; /* of the items, if is_array */
    bool is_array;
    uint64_t n;          /* items; 1 unless is_array */
    const uint8_t *data; /* the first item, unaligned, little-endian; strings: u64 length and bytes, one after another */
    size_t bytes;        /* of all items */
} tq_gguf_entry;

/* Bytes of a string in the file: no NUL ends them, and they may be no UTF-8. */
typedef struct tq_gguf_string {
    const char *text;
    size_t length;
} tq_gguf_string;

typedef struct tq_gguf {
    const char *label; /* borrowed from the caller */
    int version;
    tq_gguf_entry *entries; /* in the file's order */
    tq_tensor *tensors;     /* in the file's order, shapes row-major: (rows, cols) */
    int n_entries, n_tensors;
    char *names; /* of both */
} tq_gguf;

/* Read the head of data[0..bytes).  Everything is checked before use: counts, lengths, that no key or name occurs
 * twice, that tensors lie in the file, aligned, and do not overlap.  A tensor type that is not read here is
 * TQ_UNSUPPORTED, by its name.  label names the file in error texts and must outlive *out. */
tq_status tq_gguf_parse(const void *data, size_t bytes, const char *label, tq_gguf *out, tq_error *err);
void tq_gguf_free(tq_gguf *gguf);

/* The metadata under `key`, or NULL. */
const tq_gguf_entry *tq_gguf_find(const tq_gguf *gguf, const char *key);

/* ---- values, checked.  An absent key gives *found = false (found may be NULL: then it is TQ_FORMAT) and leaves *out
 * alone; a value of another type or out of range is TQ_FORMAT. ---- */

tq_status tq_gguf_integer(const tq_gguf *gguf, const char *key, int64_t low, int64_t high, bool *found, int64_t *out,
                          tq_error *err);
tq_status tq_gguf_number(const tq_gguf *gguf, const char *key, bool *found, double *out, tq_error *err);
tq_status tq_gguf_boolean(const tq_gguf *gguf, const char *key, bool *found, bool *out, tq_error *err);
tq_status tq_gguf_text(const tq_gguf *gguf, const char *key, bool *found, tq_gguf_string *out, tq_error *err);

/* Item i of an entry as an integer or a number; the entry's type must be one of integers, or of numbers. */
bool tq_gguf_is_integer(tq_gguf_type type);
int64_t tq_gguf_integer_at(const tq_gguf_entry *entry, uint64_t i); /* u64 beyond INT64_MAX: INT64_MAX */
double tq_gguf_number_at(const tq_gguf_entry *entry, uint64_t i);

/* All strings of an array of strings; *out is the caller's to free. */
tq_status tq_gguf_strings(const tq_gguf *gguf, const char *key, tq_gguf_string **out, size_t *n, tq_error *err);

#endif
