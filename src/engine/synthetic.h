/* synthetic.h: models of published shapes with random weights, made in memory: for measuring speed, never text.
 *
 * The weights are an image of a safetensors file with MLX's 4-bit groups of 64, so a synthetic model takes the same path
 * through the engine as one from a disk. */
#ifndef TQ_ENGINE_SYNTHETIC_H
#define TQ_ENGINE_SYNTHETIC_H

#include <jansson.h>
#include <stdbool.h>

#include "base/file_map.h"

/* Is it "synthetic:NAME"? */
bool tq_synthetic_names(const char *path);

/* The config and the weights of "synthetic:NAME"; both are the caller's (json_decref, tq_file_map_close).  The same
 * bytes every time.  TQ_NOT_FOUND lists the names there are. */
tq_status tq_synthetic_make(const char *path, json_t **config, tq_file_map *image, tq_error *err);

#endif
