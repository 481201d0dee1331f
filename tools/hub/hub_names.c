/* hub_names.c: names and lists of files; see hub_names.h.  Which files make a model: hub_choice.c. */
#include "hub_names.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "hub_error.h"

static const int64_t FILE_BYTES_MAX = (int64_t)1 << 42; /* 4 TB: no file of a model is larger */

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* One part of ORG/NAME; its length, or 0. */
static size_t name_part(const char *text) {
    size_t n = 0;
    while (isalnum((unsigned char)text[n]) || text[n] == '.' || text[n] == '_' || text[n] == '-') {
        if ((text[n] == '.' || text[n] == '-') && (n == 0 || text[n - 1] == text[n])) return 0;
        n++;
    }
    return n == 0 || n > 96 || text[n - 1] == '.' || text[n - 1] == '-' ? 0 : n;
}

bool hub_name_parse(const char *text, hub_name *out) {
    *out = (hub_name){0};
    size_t org = name_part(text);
    if (!org || text[org] != '/') return false;
    size_t name = name_part(text + org + 1), n = org + 1 + name;
    if (!name) return false;
    memcpy(out->repo, text, n);
    memcpy(out->revision, "main", 5);
    text += n;
    if (*text == '@') {
        size_t length = strcspn(++text, ":");
        if (length >= sizeof out->revision) return false;
        memcpy(out->revision, text, length);
        out->revision[length] = 0;
        if (!hub_path_is_safe(out->revision)) return false;
        text += length;
    }
    if (!*text) return true;
    if (*text != ':' || !hub_path_is_safe(text + 1)) return false;
    memcpy(out->file, text + 1, strlen(text + 1) + 1);
    return true;
}

bool hub_path_is_safe(const char *path) {
    size_t n = strlen(path), part = 0;
    if (n == 0 || n >= HUB_PATH_CAP || path[0] == '/') return false;
    for (size_t i = 0; i <= n; i++) {
        unsigned char c = (unsigned char)path[i];
        if (c && c != '/') {
            if (c < 0x20 || c == 0x7f || c == '\\') return false;
            part++;
            continue;
        }
        const char *start = path + i - part;
        if (part == 0 || part > 200 || (part == 1 && start[0] == '.') || (part == 2 && start[0] == '.' && start[1] == '.'))
            return false;
        part = 0;
    }
    return true;
}

static bool is_hex(const char *text, size_t digits) {
    for (size_t i = 0; i < digits; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f'))) return false;
    return text[digits] == 0;
}

/* ---- lists ------------------------------------------------------------------------------------------------------- */

static int compare_paths(const void *a, const void *b) {
    return strcmp(((const hub_file *)a)->path, ((const hub_file *)b)->path);
}

void hub_listing_sort(hub_listing *listing) {
    if (listing->n) qsort(listing->files, listing->n, sizeof *listing->files, compare_paths);
}

const hub_file *hub_listing_find(const hub_listing *listing, const char *path) {
    size_t low = 0, high = listing->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(path, listing->files[middle].path);
        if (order == 0) return &listing->files[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

void hub_listing_free(hub_listing *listing) {
    for (size_t i = 0; i < listing->n; i++) free(listing->files[i].path);
    free(listing->files);
    *listing = (hub_listing){0};
}

tq_status hub_listing_add(hub_listing *listing, const char *path, int64_t size, tq_error *err) {
    if (listing->n == HUB_FILES_MAX)
        return hub_fail(err, TQ_FORMAT, "more than %d files: that is no model", HUB_FILES_MAX);
    if ((listing->n & (listing->n - 1)) == 0) { /* full: it grows by doubling */
        hub_file *grown = realloc(listing->files, (listing->n ? 2 * listing->n : 1) * sizeof *grown);
        if (!grown) return hub_fail(err, TQ_NO_MEMORY, "out of memory for a list of files");
        listing->files = grown;
    }
    char *copy = strdup(path);
    if (!copy) return hub_fail(err, TQ_NO_MEMORY, "out of memory for a list of files");
    listing->files[listing->n++] = (hub_file){.path = copy, .size = size};
    return TQ_OK;
}

/* {"rfilename": PATH, "size": N, "blobId": SHA1, "lfs": {"sha256": SHA256, "size": N}}; lfs may be missing or null. */
static tq_status add_entry(hub_listing *out, const json_t *entry, tq_error *err) {
    const char *path = json_string_value(json_object_get(entry, "rfilename"));
    if (!path) return hub_fail(err, TQ_FORMAT, "the hub's list has a file without a name");
    if (strlen(path) != json_string_length(json_object_get(entry, "rfilename")) || !hub_path_is_safe(path))
        return hub_fail(err, TQ_FORMAT, "the hub's list has a file \"%.200s\": that is no path within a model", path);
    const json_t *lfs = json_object_get(entry, "lfs"), *size = json_object_get(entry, "size");
    bool is_lfs = json_is_object(lfs);
    if (is_lfs) size = json_object_get(lfs, "size");
    if (!json_is_integer(size) || json_integer_value(size) < 0 || json_integer_value(size) > FILE_BYTES_MAX)
        return hub_fail(err, TQ_FORMAT, "the hub's list: %.200s: want a size from 0 to %lld bytes", path, (long long)FILE_BYTES_MAX);
    const char *digest = json_string_value(is_lfs ? json_object_get(lfs, "sha256") : json_object_get(entry, "blobId"));
    if (!digest || !is_hex(digest, is_lfs ? 64 : 40))
        return hub_fail(err, TQ_FORMAT, "the hub's list: %.200s: want %s, got \"%.80s\"", path,
                        is_lfs ? "a SHA-256 of 64 digits" : "a blob id of 40 digits", digest ? digest : "nothing");
    HUB_TRY(hub_listing_add(out, path, json_integer_value(size), err));
    out->files[out->n - 1].lfs = is_lfs;
    memcpy(out->files[out->n - 1].digest, digest, strlen(digest) + 1);
    return TQ_OK;
}

static tq_status read_listing(const json_t *root, hub_listing *out, tq_error *err) {
    const char *commit = json_string_value(json_object_get(root, "sha"));
    const json_t *files = json_object_get(root, "siblings"), *entry;
    size_t i;
    if (!commit || !is_hex(commit, 40))
        return hub_fail(err, TQ_FORMAT, "the hub's answer names no commit of 40 hexadecimal digits");
    if (!json_is_array(files)) return hub_fail(err, TQ_FORMAT, "the hub's answer has no list of files");
    memcpy(out->commit, commit, sizeof out->commit);
    json_array_foreach(files, i, entry) HUB_TRY(add_entry(out, entry, err));
    hub_listing_sort(out);
    for (size_t k = 1; k < out->n; k++)
        if (strcmp(out->files[k - 1].path, out->files[k].path) == 0)
            return hub_fail(err, TQ_FORMAT, "the hub's list has %.200s twice", out->files[k].path);
    return TQ_OK;
}

tq_status hub_listing_parse(const char *json, size_t n, hub_listing *out, tq_error *err) {
    *out = (hub_listing){0};
    json_error_t at;
    json_t *root = n <= HUB_JSON_MAX ? json_loadb(json, n, JSON_REJECT_DUPLICATES, &at) : NULL;
    if (n > HUB_JSON_MAX) return hub_fail(err, TQ_FORMAT, "the hub's answer has %zu bytes; at most %d are read", n, HUB_JSON_MAX);
    if (!root) return hub_fail(err, TQ_FORMAT, "the hub's answer is no JSON: %.200s at line %d", at.text, at.line);
    tq_status status = read_listing(root, out, err);
    json_decref(root);
    if (status != TQ_OK) hub_listing_free(out);
    return status;
}

/* ---- headers ----------------------------------------------------------------------------------------------------- */

/* Decimal digits up to 18 of them; the first character behind them, or NULL. */
static const char *read_number(const char *text, int64_t *out) {
    int64_t value = 0;
    int digits = 0;
    for (; *text >= '0' && *text <= '9'; text++, digits++) {
        if (digits == 18) return NULL;
        value = 10 * value + (*text - '0');
    }
    *out = value;
    return digits ? text : NULL;
}

bool hub_content_range(const char *text, int64_t *first, int64_t *last, int64_t *total) {
    if (strncmp(text, "bytes ", 6) != 0) return false;
    text = read_number(text + 6, first);
    if (!text || *text != '-') return false;
    text = read_number(text + 1, last);
    if (!text || *text != '/') return false;
    text = read_number(text + 1, total);
    return text && *text == 0 && *first <= *last && *last < *total;
}

bool hub_etag(const char *text, char *out, size_t cap) {
    if (strncmp(text, "W/", 2) == 0) text += 2;
    size_t n = strlen(text);
    if (n >= 2 && text[0] == '"' && text[n - 1] == '"') text++, n -= 2;
    if (n == 0 || n >= cap) return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] <= 0x20 || text[i] == 0x7f || text[i] == '"') return false;
    memcpy(out, text, n);
    out[n] = 0;
    return true;
}
