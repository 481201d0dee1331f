/* synthetic.h: models of published shapes with random weights, made in memory: for measuring speed, never text.
 *
 * The weights are an image of a safetensors file with MLX's 4-bit groups of 64, so a synthetic model takes the same path
 * through the engine as one from a disk.  Of the largest shapes only a part is made, and mapped again and again until the
 * file is full: 1 GB of codes, which is more than processors cache, so reading them takes as long as reading 20 GB. */
#ifndef TQ_ENGINE_SYNTHETIC_H
#define TQ_ENGINE_SYNTHETIC_H

#include <jansson.h>
#include <stdbool.h>

#include "base/file_map.h"

/* Is it "synthetic:NAME"? */
bool tq_synthetic_names(const char *path);

typedef struct tq_synthetic {
    json_t *config;
    tq_file_map image;
    int64_t bytes; /* of memory, which with repeated values are fewer than the image's */
    bool repeated;
} tq_synthetic;

/* The config and the weights of "synthetic:NAME"; both are the caller's (json_decref, tq_file_map_close).  The same bytes
 * every time.  TQ_NOT_FOUND lists the names there are; TQ_NO_MEMORY if memory_limit (as in tq_model_params) is too small. */
tq_status tq_synthetic_make(const char *path, int64_t memory_limit, tq_synthetic *out, tq_error *err);

#endif
