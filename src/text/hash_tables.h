/* hash_tables.h: the two open-addressing tables of a tokenizer: byte strings to ids, and number pairs to merges.
 * Written while a tokenizer is made, only read afterwards. */
#ifndef TQ_TEXT_HASH_TABLES_H
#define TQ_TEXT_HASH_TABLES_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Keys are borrowed: the owner of the map keeps their bytes alive. */
typedef struct tq_word_entry {
    const char *key; /* NULL: free */
    uint32_t length, hash;
    int32_t id;
} tq_word_entry;

typedef struct tq_word_map {
    tq_word_entry *entries;
    size_t n, cap; /* cap: 0 or a power of two */
} tq_word_map;

uint32_t tq_bytes_hash(const char *bytes, size_t n);

/* Add or replace.  length < 2^32. */
tq_status tq_word_map_put(tq_word_map *map, const char *key, size_t length, int32_t id, tq_error *err);
/* The id, or -1. */
int32_t tq_word_map_get(const tq_word_map *map, const char *key, size_t length);
void tq_word_map_free(tq_word_map *map);

typedef struct tq_pair_entry {
    uint64_t key; /* UINT64_MAX: free; so no caller may use that key */
    int32_t value, rank;
} tq_pair_entry;

typedef struct tq_pair_map {
    tq_pair_entry *entries;
    size_t n, cap;
} tq_pair_map;

tq_status tq_pair_map_put(tq_pair_map *map, uint64_t key, int32_t value, int32_t rank, tq_error *err);
/* NULL if absent. */
const tq_pair_entry *tq_pair_map_get(const tq_pair_map *map, uint64_t key);
void tq_pair_map_free(tq_pair_map *map);

#endif
