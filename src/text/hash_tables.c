/* hash_tables.c: see hash_tables.h.  Linear probing, at most half full. */
#include "text/hash_tables.h"

#include <stdlib.h>
#include <string.h>

uint32_t tq_bytes_hash(const char *bytes, size_t n) {
    uint64_t hash = 0xcbf29ce484222325u ^ n;
    while (n >= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
        bytes += 8, n -= 8;
    }
    for (size_t i = 0; i < n; i++) hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3u;
    hash ^= hash >> 32;
    return (uint32_t)(hash * 0x9e3779b97f4a7c15u >> 32);
}

static size_t find_word(const tq_word_map *map, const char *key, size_t length, uint32_t hash) {
    size_t at = hash & (map->cap - 1);
    while (map->entries[at].key) {
        const tq_word_entry *entry = &map->entries[at];
        if (entry->hash == hash && entry->length == length && memcmp(entry->key, key, length) == 0) break;
        at = (at + 1) & (map->cap - 1);
    }
    return at;
}

static tq_status grow_words(tq_word_map *map, tq_error *err) {
    tq_word_map wider = {.n = map->n, .cap = map->cap ? map->cap * 2 : 64};
    wider.entries = calloc(wider.cap, sizeof *wider.entries);
    if (!wider.entries) return tq_fail_memory(err, wider.cap * sizeof *wider.entries, "a table of words");
    for (size_t i = 0; i < map->cap; i++) {
        const tq_word_entry *entry = &map->entries[i];
        if (entry->key) wider.entries[find_word(&wider, entry->key, entry->length, entry->hash)] = *entry;
    }
    free(map->entries);
    *map = wider;
    return TQ_OK;
}

tq_status tq_word_map_put(tq_word_map *map, const char *key, size_t length, int32_t id, tq_error *err) {
    if (map->n * 2 >= map->cap) TQ_TRY(grow_words(map, err));
    uint32_t hash = tq_bytes_hash(key, length);
    tq_word_entry *entry = &map->entries[find_word(map, key, length, hash)];
    if (!entry->key) map->n++;
    *entry = (tq_word_entry){key, (uint32_t)length, hash, id};
    return TQ_OK;
}

int32_t tq_word_map_get(const tq_word_map *map, const char *key, size_t length) {
    if (!map->cap) return -1;
    const tq_word_entry *entry = &map->entries[find_word(map, key, length, tq_bytes_hash(key, length))];
    return entry->key ? entry->id : -1;
}

void tq_word_map_free(tq_word_map *map) {
    free(map->entries);
    *map = (tq_word_map){0};
}

static size_t find_pair(const tq_pair_map *map, uint64_t key) {
    uint64_t mixed = (key ^ key >> 31) * 0x9e3779b97f4a7c15u;
    size_t at = (size_t)(mixed >> 24) & (map->cap - 1);
    while (map->entries[at].key != UINT64_MAX && map->entries[at].key != key) at = (at + 1) & (map->cap - 1);
    return at;
}

static tq_status grow_pairs(tq_pair_map *map, tq_error *err) {
    tq_pair_map wider = {.n = map->n, .cap = map->cap ? map->cap * 2 : 64};
    wider.entries = malloc(wider.cap * sizeof *wider.entries);
    if (!wider.entries) return tq_fail_memory(err, wider.cap * sizeof *wider.entries, "a table of pairs");
    for (size_t i = 0; i < wider.cap; i++) wider.entries[i].key = UINT64_MAX;
    for (size_t i = 0; i < map->cap; i++) {
        if (map->entries[i].key != UINT64_MAX) wider.entries[find_pair(&wider, map->entries[i].key)] = map->entries[i];
    }
    free(map->entries);
    *map = wider;
    return TQ_OK;
}

tq_status tq_pair_map_put(tq_pair_map *map, uint64_t key, int32_t value, int32_t rank, tq_error *err) {
    if (map->n * 2 >= map->cap) TQ_TRY(grow_pairs(map, err));
    tq_pair_entry *entry = &map->entries[find_pair(map, key)];
    if (entry->key == UINT64_MAX) map->n++;
    *entry = (tq_pair_entry){key, value, rank};
    return TQ_OK;
}

const tq_pair_entry *tq_pair_map_get(const tq_pair_map *map, uint64_t key) {
    if (!map->cap) return NULL;
    const tq_pair_entry *entry = &map->entries[find_pair(map, key)];
    return entry->key == UINT64_MAX ? NULL : entry;
}

void tq_pair_map_free(tq_pair_map *map) {
    free(map->entries);
    *map = (tq_pair_map){0};
}
