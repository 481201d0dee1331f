/* gguf.c: one GGUF file, version 2 or 3.  The file is not believed: a cursor knows what is left, every count is held
 * against the bytes that its items need at least, every product against overflow. */
#include "file/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "file/gguf_types.h"

enum {
    DEFAULT_ALIGNMENT = 32,
    MAX_ALIGNMENT = 1 << 20,
    MAX_DIMS = 4,
    NAME_BYTES_MAX = 512, /* the format allows names of 64 and keys of 65535 bytes; none is near that */
    ENTRY_BYTES_MIN = 8 + 1 + 4 + 1, /* key of a byte, type, value of a byte */
    TENSOR_BYTES_MIN = 8 + 1 + 4 + 4 + 8,
};

static const size_t type_bytes[TQ_GGUF_N_TYPES] = {
    [TQ_GGUF_U8] = 1,  [TQ_GGUF_I8] = 1,  [TQ_GGUF_BOOL] = 1, [TQ_GGUF_U16] = 2, [TQ_GGUF_I16] = 2, [TQ_GGUF_U32] = 4,
    [TQ_GGUF_I32] = 4, [TQ_GGUF_F32] = 4, [TQ_GGUF_U64] = 8,  [TQ_GGUF_I64] = 8, [TQ_GGUF_F64] = 8,
};

static const char *const type_names[TQ_GGUF_N_TYPES] = {
    [TQ_GGUF_U8] = "u8",      [TQ_GGUF_I8] = "i8",         [TQ_GGUF_U16] = "u16",     [TQ_GGUF_I16] = "i16",
    [TQ_GGUF_U32] = "u32",    [TQ_GGUF_I32] = "i32",       [TQ_GGUF_F32] = "f32",     [TQ_GGUF_BOOL] = "bool",
    [TQ_GGUF_STRING] = "string", [TQ_GGUF_ARRAY] = "array", [TQ_GGUF_U64] = "u64",    [TQ_GGUF_I64] = "i64",
    [TQ_GGUF_F64] = "f64",
};

/* ---- a cursor over the bytes ------------------------------------------------------------------------------------- */

typedef struct cursor {
    const uint8_t *at, *end;
    const char *label;
    tq_error *err;
} cursor;

static size_t left(const cursor *c) { return (size_t)(c->end - c->at); }

static tq_status cut_short(const cursor *c, const char *what) {
    return tq_fail(c->err, TQ_FORMAT, "%s: the file ends within %s", c->label, what);
}

static uint64_t load(const uint8_t *at, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) value |= (uint64_t)at[i] << 8 * i;
    return value;
}

static tq_status take(cursor *c, size_t bytes, const char *what, uint64_t *out) {
    *out = 0;
    if (left(c) < bytes) return cut_short(c, what);
    *out = load(c->at, bytes);
    c->at += bytes;
    return TQ_OK;
}

/* A key or a name: 1 to NAME_BYTES_MAX bytes without control characters; it goes into error texts of one line. */
static tq_status take_name(cursor *c, const char *what, const char **text, size_t *length) {
    uint64_t n;
    TQ_TRY(take(c, 8, what, &n));
    if (n == 0 || n > NAME_BYTES_MAX)
        return tq_fail(c->err, TQ_FORMAT, "%s: %s has %llu bytes; want 1 to %d", c->label, what, (unsigned long long)n,
                       NAME_BYTES_MAX);
    if (left(c) < n) return cut_short(c, what);
    for (size_t i = 0; i < n; i++)
        if (c->at[i] < 0x20 || c->at[i] == 0x7f)
            return tq_fail(c->err, TQ_FORMAT, "%s: %s has a control character", c->label, what);
    *text = (const char *)c->at;
    *length = (size_t)n;
    c->at += n;
    return TQ_OK;
}

/* ---- metadata ------------------------------------------------------------------------------------------------------ */

static tq_status take_items(cursor *c, tq_gguf_entry *entry) {
    entry->data = c->at;
    if (entry->type != TQ_GGUF_STRING) {
        size_t size = type_bytes[entry->type];
        if (entry->n > left(c) / size) return cut_short(c, entry->key);
        c->at += (size_t)entry->n * size;
    } else {
        if (entry->n > left(c) / 8) return cut_short(c, entry->key);
        for (uint64_t i = 0; i < entry->n; i++) {
            uint64_t length;
            TQ_TRY(take(c, 8, entry->key, &length));
            if (length > left(c)) return cut_short(c, entry->key);
            c->at += length;
        }
    }
    entry->bytes = (size_t)(c->at - entry->data);
    return TQ_OK;
}

static tq_status take_value(cursor *c, tq_gguf_entry *entry) {
    uint64_t type;
    TQ_TRY(take(c, 4, entry->key, &type));
    entry->n = 1;
    if (type == TQ_GGUF_ARRAY) {
        entry->is_array = true;
        TQ_TRY(take(c, 4, entry->key, &type));
        TQ_TRY(take(c, 8, entry->key, &entry->n));
        if (type == TQ_GGUF_ARRAY)
            return tq_fail(c->err, TQ_UNSUPPORTED, "%s: %.200s: arrays of arrays are not supported", c->label, entry->key);
    }
    if (type >= TQ_GGUF_N_TYPES)
        return tq_fail(c->err, TQ_FORMAT, "%s: %.200s: metadata type %llu is unknown", c->label, entry->key,
                       (unsigned long long)type);
    entry->type = (tq_gguf_type)type;
    return take_items(c, entry);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------- */

/* Dimensions stand innermost first; a row is a whole number of blocks. */
static tq_status take_shape(cursor *c, tq_tensor *tensor, uint64_t *dims) {
    uint64_t n;
    TQ_TRY(take(c, 4, tensor->name, &n));
    if (n < 1 || n > MAX_DIMS)
        return tq_fail(c->err, TQ_FORMAT, "%s: tensor %.200s: %llu dimensions; want 1 to %d", c->label, tensor->name,
                       (unsigned long long)n, MAX_DIMS);
    tensor->n_dims = (int)n;
    for (uint64_t i = 0; i < n; i++) {
        TQ_TRY(take(c, 8, tensor->name, &dims[i]));
        if (dims[i] < 1 || dims[i] > INT32_MAX)
            return tq_fail(c->err, TQ_FORMAT, "%s: tensor %.200s: dimension %llu is %llu; want 1 to %d", c->label,
                           tensor->name, (unsigned long long)i, (unsigned long long)dims[i], INT32_MAX);
        tensor->shape[n - 1 - i] = (int64_t)dims[i];
    }
    return TQ_OK;
}

static tq_status take_type(cursor *c, tq_tensor *tensor) {
    uint64_t type;
    TQ_TRY(take(c, 4, tensor->name, &type));
    if (tq_gguf_dtype((uint32_t)type, &tensor->dtype)) return TQ_OK;
    const char *name = tq_gguf_type_name((uint32_t)type);
    if (!name)
        return tq_fail(c->err, TQ_UNSUPPORTED, "%s: tensor %.200s: type %llu is none of GGUF's", c->label, tensor->name,
                       (unsigned long long)type);
    return tq_fail(c->err, TQ_UNSUPPORTED,
                   "%s: tensor %.200s: type %s is not supported: want f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, "
                   "q2_k to q6_k, iq4_nl, iq4_xs or mxfp4",
                   c->label, tensor->name, name);
}

static tq_status measure(const cursor *c, tq_tensor *tensor, const uint64_t *dims) {
    size_t block = (size_t)tq_dtype_block(tensor->dtype), bytes = tq_dtype_bytes(tensor->dtype);
    if (dims[0] % block)
        return tq_fail(c->err, TQ_FORMAT, "%s: tensor %.200s: %llu columns are not a whole number of %s blocks of %zu",
                       c->label, tensor->name, (unsigned long long)dims[0], tq_dtype_name(tensor->dtype), block);
    bytes *= (size_t)dims[0] / block;
    for (int i = 1; i < tensor->n_dims; i++)
        if (__builtin_mul_overflow(bytes, (size_t)dims[i], &bytes))
            return tq_fail(c->err, TQ_FORMAT, "%s: tensor %.200s: its size overflows", c->label, tensor->name);
    tensor->bytes = bytes;
    return TQ_OK;
}

/* The offset is kept in shape's last place until the data's beginning is known. */
static tq_status take_tensor(cursor *c, tq_tensor *tensor) {
    uint64_t dims[MAX_DIMS] = {0}, offset;
    TQ_TRY(take_shape(c, tensor, dims));
    TQ_TRY(take_type(c, tensor));
    TQ_TRY(measure(c, tensor, dims));
    TQ_TRY(take(c, 8, tensor->name, &offset));
    if (offset > INT64_MAX) return tq_fail(c->err, TQ_FORMAT, "%s: tensor %.200s: its offset overflows", c->label, tensor->name);
    tensor->shape[TQ_MAX_DIMS - 1] = (int64_t)offset;
    return TQ_OK;
}

static tq_status place_tensors(const tq_gguf *gguf, const uint8_t *data, size_t bytes, uint64_t alignment, tq_error *err) {
    for (int i = 0; i < gguf->n_tensors; i++) {
        tq_tensor *tensor = &gguf->tensors[i];
        uint64_t offset = (uint64_t)tensor->shape[TQ_MAX_DIMS - 1];
        tensor->shape[TQ_MAX_DIMS - 1] = 0;
        if (offset % alignment)
            return tq_fail(err, TQ_FORMAT, "%s: tensor %.200s: offset %llu is not a multiple of the alignment, %llu",
                           gguf->label, tensor->name, (unsigned long long)offset, (unsigned long long)alignment);
        if (offset > bytes || tensor->bytes > bytes - offset)
            return tq_fail(err, TQ_FORMAT, "%s: tensor %.200s: bytes %llu to %llu do not lie in the %zu bytes of data",
                           gguf->label, tensor->name, (unsigned long long)offset,
                           (unsigned long long)offset + tensor->bytes, bytes);
        tensor->data = data + offset;
    }
    return TQ_OK;
}

/* ---- nothing twice ------------------------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static int compare_data(const void *a, const void *b) {
    const uint8_t *x = (*(const tq_tensor *const *)a)->data, *y = (*(const tq_tensor *const *)b)->data;
    return (x > y) - (x < y);
}

static tq_status check_names(const tq_gguf *gguf, bool of_tensors, const void **table, tq_error *err) {
    size_t n = (size_t)(of_tensors ? gguf->n_tensors : gguf->n_entries);
    const char **names = (const char **)table;
    for (size_t i = 0; i < n; i++) names[i] = of_tensors ? gguf->tensors[i].name : gguf->entries[i].key;
    if (n) qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 1; i < n; i++)
        if (strcmp(names[i], names[i - 1]) == 0)
            return tq_fail(err, TQ_FORMAT, "%s: %s %.200s occurs twice", gguf->label, of_tensors ? "tensor" : "key", names[i]);
    return TQ_OK;
}

static tq_status check_overlaps(const tq_gguf *gguf, const void **table, tq_error *err) {
    const tq_tensor **order = (const tq_tensor **)table;
    size_t n = (size_t)gguf->n_tensors;
    for (size_t i = 0; i < n; i++) order[i] = &gguf->tensors[i];
    if (n) qsort(order, n, sizeof *order, compare_data);
    for (size_t i = 1; i < n; i++)
        if ((const uint8_t *)order[i]->data < (const uint8_t *)order[i - 1]->data + order[i - 1]->bytes)
            return tq_fail(err, TQ_FORMAT, "%s: tensors %.150s and %.150s overlap", gguf->label, order[i - 1]->name,
                           order[i]->name);
    return TQ_OK;
}

static tq_status check_unique(const tq_gguf *gguf, tq_error *err) {
    size_t n = (size_t)(gguf->n_tensors > gguf->n_entries ? gguf->n_tensors : gguf->n_entries) + 1;
    const void **table = malloc(n * sizeof *table);
    if (!table) return tq_fail_memory(err, n * sizeof *table, "a table of names");
    tq_status status = check_names(gguf, false, table, err);
    if (status == TQ_OK) status = check_names(gguf, true, table, err);
    if (status == TQ_OK) status = check_overlaps(gguf, table, err);
    free(table);
    return status;
}

/* ---- the file ------------------------------------------------------------------------------------------------------ */

/* Copy a name with a NUL to the end of gguf->names, whose room was measured before. */
static const char *keep_name(tq_gguf *gguf, size_t *used, const char *text, size_t length) {
    char *kept = memcpy(gguf->names + *used, text, length);
    kept[length] = 0;
    *used += length + 1;
    return kept;
}

static tq_status read_counts(cursor *c, tq_gguf *gguf) {
    uint64_t magic, version, n_tensors, n_entries;
    TQ_TRY(take(c, 4, "the magic number", &magic));
    if (magic != 0x46554747) return tq_fail(c->err, TQ_FORMAT, "%s: no GGUF file: it does not begin with GGUF", c->label);
    TQ_TRY(take(c, 4, "the version", &version));
    if (version != 2 && version != 3) {
        bool swapped = version == 0x02000000 || version == 0x03000000;
        return tq_fail(c->err, TQ_UNSUPPORTED, "%s: GGUF version %llu is not supported%s: want 2 or 3", c->label,
                       (unsigned long long)(swapped ? version >> 24 : version), swapped ? " in big-endian order" : "");
    }
    gguf->version = (int)version;
    TQ_TRY(take(c, 8, "the number of tensors", &n_tensors));
    TQ_TRY(take(c, 8, "the number of metadata entries", &n_entries));
    if (n_entries > left(c) / ENTRY_BYTES_MIN || n_tensors > left(c) / TENSOR_BYTES_MIN || n_entries > INT32_MAX / 2 ||
        n_tensors > INT32_MAX / 2)
        return tq_fail(c->err, TQ_FORMAT, "%s: %llu metadata entries and %llu tensors do not fit in %zu bytes", c->label,
                       (unsigned long long)n_entries, (unsigned long long)n_tensors, left(c));
    gguf->n_tensors = (int)n_tensors;
    gguf->n_entries = (int)n_entries;
    return TQ_OK;
}

/* Both directories.  The first pass, without room for names, adds their bytes up; the second keeps them. */
static tq_status read_directories(cursor *c, tq_gguf *gguf, size_t *name_bytes) {
    const char *text;
    char name[NAME_BYTES_MAX + 1];
    size_t length, used = 0;
    for (int i = 0; i < gguf->n_entries; i++) {
        TQ_TRY(take_name(c, "a metadata key", &text, &length));
        tq_gguf_entry entry = {0};
        memcpy(name, text, length);
        name[length] = 0;
        entry.key = gguf->names ? keep_name(gguf, &used, text, length) : name;
        if (!gguf->names) used += length + 1;
        TQ_TRY(take_value(c, &entry));
        if (gguf->entries) gguf->entries[i] = entry;
    }
    for (int i = 0; i < gguf->n_tensors; i++) {
        TQ_TRY(take_name(c, "a tensor's name", &text, &length));
        tq_tensor tensor = {0};
        memcpy(name, text, length);
        name[length] = 0;
        tensor.name = gguf->names ? keep_name(gguf, &used, text, length) : name;
        if (!gguf->names) used += length + 1;
        TQ_TRY(take_tensor(c, &tensor));
        if (gguf->tensors) gguf->tensors[i] = tensor;
    }
    *name_bytes = used;
    return TQ_OK;
}

static tq_status read_all(cursor *c, const uint8_t *data, size_t bytes, tq_gguf *gguf) {
    TQ_TRY(read_counts(c, gguf));
    cursor first = *c;
    size_t name_bytes;
    TQ_TRY(read_directories(&first, gguf, &name_bytes));
    gguf->entries = calloc((size_t)gguf->n_entries + 1, sizeof *gguf->entries);
    gguf->tensors = calloc((size_t)gguf->n_tensors + 1, sizeof *gguf->tensors);
    gguf->names = malloc(name_bytes + 1);
    if (!gguf->entries || !gguf->tensors || !gguf->names) return tq_fail_memory(c->err, name_bytes, "a GGUF directory");
    TQ_TRY(read_directories(c, gguf, &name_bytes));

    int64_t alignment = DEFAULT_ALIGNMENT;
    bool found;
    TQ_TRY(tq_gguf_integer(gguf, "general.alignment", 1, MAX_ALIGNMENT, &found, &alignment, c->err));
    if (alignment & (alignment - 1))
        return tq_fail(c->err, TQ_FORMAT, "%s: general.alignment: want a power of two, got %lld", c->label,
                       (long long)alignment);
    size_t head = (size_t)(c->at - data), begin = (head + (size_t)alignment - 1) & ~((size_t)alignment - 1);
    if (begin > bytes) begin = bytes; /* no tensors, no padding */
    TQ_TRY(place_tensors(gguf, data + begin, bytes - begin, (uint64_t)alignment, c->err));
    return check_unique(gguf, c->err);
}

tq_status tq_gguf_parse(const void *data, size_t bytes, const char *label, tq_gguf *out, tq_error *err) {
    static const uint8_t nothing[1];
    const uint8_t *at = data ? data : nothing;
    *out = (tq_gguf){.label = label};
    cursor c = {at, at + bytes, label, err};
    tq_status status = read_all(&c, at, bytes, out);
    if (status != TQ_OK) tq_gguf_free(out);
    return status;
}

void tq_gguf_free(tq_gguf *gguf) {
    free(gguf->entries);
    free(gguf->tensors);
    free(gguf->names);
    *gguf = (tq_gguf){0};
}

/* ---- values -------------------------------------------------------------------------------------------------------- */

const tq_gguf_entry *tq_gguf_find(const tq_gguf *gguf, const char *key) {
    for (int i = 0; i < gguf->n_entries; i++) /* some dozens, asked for once each */
        if (strcmp(gguf->entries[i].key, key) == 0) return &gguf->entries[i];
    return NULL;
}

bool tq_gguf_is_integer(tq_gguf_type type) {
    return type <= TQ_GGUF_I32 || type == TQ_GGUF_U64 || type == TQ_GGUF_I64;
}

int64_t tq_gguf_integer_at(const tq_gguf_entry *entry, uint64_t i) {
    size_t size = type_bytes[entry->type];
    uint64_t value = load(entry->data + i * size, size);
    switch (entry->type) {
    case TQ_GGUF_I8: return (int8_t)value;
    case TQ_GGUF_I16: return (int16_t)value;
    case TQ_GGUF_I32: return (int32_t)value;
    default: return value > INT64_MAX && entry->type == TQ_GGUF_U64 ? INT64_MAX : (int64_t)value;
    }
}

double tq_gguf_number_at(const tq_gguf_entry *entry, uint64_t i) {
    if (entry->type == TQ_GGUF_F32) return (double)tq_bits_f32((uint32_t)load(entry->data + i * 4, 4));
    if (entry->type == TQ_GGUF_F64) {
        uint64_t bits = load(entry->data + i * 8, 8);
        double value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    return (double)tq_gguf_integer_at(entry, i);
}

/* The entry, or NULL where it may be absent and is. */
static tq_status get(const tq_gguf *gguf, const char *key, bool *found, const tq_gguf_entry **out, tq_error *err) {
    *out = tq_gguf_find(gguf, key);
    if (found) *found = *out != NULL;
    if (*out || found) return TQ_OK;
    return tq_fail(err, TQ_FORMAT, "%s: metadata %s is missing", gguf->label, key);
}

static tq_status wrong_type(const tq_gguf *gguf, const tq_gguf_entry *entry, const char *want, tq_error *err) {
    return tq_fail(err, TQ_FORMAT, "%s: %s: want %s, the file has %s%s", gguf->label, entry->key, want,
                   entry->is_array ? "an array of " : "", type_names[entry->type]);
}

tq_status tq_gguf_integer(const tq_gguf *gguf, const char *key, int64_t low, int64_t high, bool *found, int64_t *out,
                          tq_error *err) {
    const tq_gguf_entry *entry;
    TQ_TRY(get(gguf, key, found, &entry, err));
    if (!entry) return TQ_OK;
    if (entry->is_array || !tq_gguf_is_integer(entry->type)) return wrong_type(gguf, entry, "an integer", err);
    int64_t value = tq_gguf_integer_at(entry, 0);
    if (value < low || value > high)
        return tq_fail(err, TQ_FORMAT, "%s: %s: want %lld to %lld, got %lld", gguf->label, key, (long long)low,
                       (long long)high, (long long)value);
    *out = value;
    return TQ_OK;
}

tq_status tq_gguf_number(const tq_gguf *gguf, const char *key, bool *found, double *out, tq_error *err) {
    const tq_gguf_entry *entry;
    TQ_TRY(get(gguf, key, found, &entry, err));
    if (!entry) return TQ_OK;
    if (entry->is_array || entry->type == TQ_GGUF_STRING || entry->type == TQ_GGUF_BOOL)
        return wrong_type(gguf, entry, "a number", err);
    *out = tq_gguf_number_at(entry, 0);
    return TQ_OK;
}

tq_status tq_gguf_boolean(const tq_gguf *gguf, const char *key, bool *found, bool *out, tq_error *err) {
    const tq_gguf_entry *entry;
    TQ_TRY(get(gguf, key, found, &entry, err));
    if (!entry) return TQ_OK;
    if (entry->is_array || entry->type != TQ_GGUF_BOOL) return wrong_type(gguf, entry, "a bool", err);
    *out = entry->data[0] != 0;
    return TQ_OK;
}

tq_status tq_gguf_text(const tq_gguf *gguf, const char *key, bool *found, tq_gguf_string *out, tq_error *err) {
    const tq_gguf_entry *entry;
    TQ_TRY(get(gguf, key, found, &entry, err));
    if (!entry) return TQ_OK;
    if (entry->is_array || entry->type != TQ_GGUF_STRING) return wrong_type(gguf, entry, "a string", err);
    *out = (tq_gguf_string){(const char *)entry->data + 8, entry->bytes - 8};
    return TQ_OK;
}

tq_status tq_gguf_strings(const tq_gguf *gguf, const char *key, tq_gguf_string **out, size_t *n, tq_error *err) {
    const tq_gguf_entry *entry;
    TQ_TRY(get(gguf, key, NULL, &entry, err));
    if (!entry->is_array || entry->type != TQ_GGUF_STRING) return wrong_type(gguf, entry, "an array of strings", err);
    *n = (size_t)entry->n;
    *out = malloc((*n + 1) * sizeof **out);
    if (!*out) return tq_fail_memory(err, (*n + 1) * sizeof **out, key);
    const uint8_t *at = entry->data;
    for (size_t i = 0; i < *n; i++) { /* the lengths were checked when the file was parsed */
        size_t length = (size_t)load(at, 8);
        (*out)[i] = (tq_gguf_string){(const char *)at + 8, length};
        at += 8 + length;
    }
    return TQ_OK;
}
