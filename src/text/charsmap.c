/* charsmap.c: see charsmap.h. */
#include "text/charsmap.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

/* ---- reading ---- */

static int digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* dst: length / 4 * 3 bytes. */
static bool decode_base64(const char *text, size_t length, uint8_t *dst, size_t *n) {
    *n = 0;
    if (length % 4) return false;
    for (size_t i = 0; i < length; i += 4) {
        size_t padding = i + 4 < length ? 0 : (text[i + 3] == '=') + (text[i + 3] == '=' && text[i + 2] == '=');
        uint32_t bits = 0;
        for (size_t k = 0; k < 4; k++) {
            int value = k < 4 - padding ? digit(text[i + k]) : 0;
            if (value < 0) return false;
            bits = bits << 6 | (uint32_t)value;
        }
        for (size_t k = 0; k < 3 - padding; k++) dst[(*n)++] = (uint8_t)(bits >> (16 - 8 * k));
    }
    return true;
}

static uint32_t little_endian(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static tq_status read_table(const uint8_t *bytes, size_t n, tq_charsmap *map, tq_error *err) {
    size_t tree = n < 4 ? SIZE_MAX : little_endian(bytes);
    if (tree == SIZE_MAX || tree > n - 4 || tree < 4 || tree % 4) {
        return tq_fail(err, TQ_FORMAT, "normalizer Precompiled: a tree of %zu bytes in a table of %zu", tree, n);
    }
    map->n_units = tree / 4, map->n_texts = n - 4 - tree;
    map->units = malloc(tree);
    map->texts = malloc(map->n_texts + 1);
    if (!map->units || !map->texts) return tq_fail_memory(err, n, "a normalizer");
    for (size_t i = 0; i < map->n_units; i++) map->units[i] = little_endian(bytes + 4 + 4 * i);
    memcpy(map->texts, bytes + 4 + tree, map->n_texts);
    map->texts[map->n_texts] = '\0';
    if (tq_utf8_valid_prefix(map->texts, map->n_texts) == map->n_texts) return TQ_OK;
    return tq_fail(err, TQ_FORMAT, "normalizer Precompiled: replacements that are not UTF-8");
}

tq_status tq_charsmap_new(const char *base64, size_t length, tq_charsmap **out, tq_error *err) {
    size_t n;
    uint8_t *bytes = malloc(length / 4 * 3 + 1);
    tq_charsmap *map = calloc(1, sizeof *map);
    tq_status status = TQ_OK;
    if (!bytes || !map) status = tq_fail_memory(err, length, "a normalizer");
    else if (!decode_base64(base64, length, bytes, &n)) {
        status = tq_fail(err, TQ_FORMAT, "normalizer Precompiled: precompiled_charsmap is not base 64");
    } else {
        status = read_table(bytes, n, map, err);
    }
    free(bytes);
    *out = status == TQ_OK ? map : NULL;
    if (status != TQ_OK) tq_charsmap_free(map);
    return status;
}

void tq_charsmap_free(tq_charsmap *map) {
    if (!map) return;
    free(map->units);
    free(map->texts);
    free(map);
}

/* ---- applying ---- */

/* A unit of the tree: bit 8 says that a value follows, bits 0 to 7 (and 31) are the byte that leads here, the rest says
 * how far away the children are. */
static size_t offset_of(uint32_t unit) { return (size_t)(unit >> 10) << ((unit & 0x200u) >> 6); }

/* The replacement of the shortest entry that text begins with, or NULL. */
static const char *find(const tq_charsmap *map, const char *text, size_t length) {
    size_t at = offset_of(map->units[0]);
    for (size_t i = 0; i < length && text[i]; i++) {
        at ^= (uint8_t)text[i];
        if (at >= map->n_units) return NULL;
        uint32_t unit = map->units[at];
        if ((unit & 0x800000ffu) != (uint8_t)text[i]) return NULL;
        at ^= offset_of(unit);
        if (!(unit & 0x100u)) continue;
        if (at >= map->n_units) return NULL;
        size_t value = map->units[at] & 0x7fffffffu;
        bool whole = value < map->n_texts && ((uint8_t)map->texts[value] & 0xc0) != 0x80;
        return whole ? map->texts + value : NULL;
    }
    return NULL;
}

static tq_status add(const tq_charsmap *map, const char *part, size_t n, tq_text_buf *out, tq_error *err) {
    const char *with = find(map, part, n);
    return tq_text_buf_add(out, with ? with : part, with ? strlen(with) : n, err);
}

tq_status tq_charsmap_apply(const tq_charsmap *map, const char *text, size_t length, tq_text_buf *out, tq_error *err) {
    enum { longest_whole = 5 };
    utf8proc_int32_t c, next = 0, state = 0;
    for (size_t at = 0, start = 0; at < length;) { /* start: of the cluster */
        size_t width = (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(length - at), &c);
        at += width;
        if (at < length) {
            utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(length - at), &next);
            if (!utf8proc_grapheme_break_stateful(c, next, &state)) continue;
        }
        if (at - start <= longest_whole && find(map, text + start, at - start)) {
            TQ_TRY(add(map, text + start, at - start, out, err));
            start = at;
            continue;
        }
        for (size_t end; start < at; start = end) {
            for (end = start + 1; end < at && ((uint8_t)text[end] & 0xc0) == 0x80;) end++;
            TQ_TRY(add(map, text + start, end - start, out, err));
        }
    }
    return TQ_OK;
}
