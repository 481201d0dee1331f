/* config_gguf.h: a GGUF file's metadata as the config.json of the same model. */
#ifndef TQ_MODEL_CONFIG_GGUF_H
#define TQ_MODEL_CONFIG_GGUF_H

#include <jansson.h>

#include "file/gguf_model.h"

/* The object that tq_config_read reads, so that a family is described once, there.  An architecture that has no row in
 * the table here is TQ_UNSUPPORTED, by its name.  *out is the caller's (json_decref). */
tq_status tq_config_from_gguf(const tq_gguf_model *files, json_t **out, tq_error *err);

/* Whether value heads of delta nets are tiled (tq_delta_config), which no config.json says. */
bool tq_gguf_has_tiled_heads(const tq_gguf_model *files);

#endif
