/* file_map.h: files as memory, and files that appear whole or not at all. */
#ifndef TQ_BASE_FILE_MAP_H
#define TQ_BASE_FILE_MAP_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

/* A read-only mapping.  data is NULL for an empty file. */
typedef struct tq_file_map {
    const uint8_t *data;
    size_t bytes;
} tq_file_map;

tq_status tq_file_map_open(const char *path, tq_file_map *map, tq_error *err);
void tq_file_map_close(tq_file_map *map);

/* A file being written beside its final name: "<path>.XXXXXX". */
typedef struct tq_atomic_file {
    FILE *stream;
    char *path, *temporary;
} tq_atomic_file;

tq_status tq_atomic_file_open(const char *path, tq_atomic_file *file, tq_error *err);
/* Flush, fsync, rename, fsync the directory. */
tq_status tq_atomic_file_commit(tq_atomic_file *file, tq_error *err);
/* Close and remove the temporary; fine after a commit. */
void tq_atomic_file_abandon(tq_atomic_file *file);

#endif
