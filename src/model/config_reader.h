/* config_reader.h: typed access to a config's JSON, and which of its keys were asked for. */
#ifndef TQ_MODEL_CONFIG_READER_H
#define TQ_MODEL_CONFIG_READER_H

#include <jansson.h>
#include <stdbool.h>

#include "base/status.h"
#include "model/config.h"

enum { TQ_MAX_KEYS_READ = 96 };

typedef struct tq_config_reader {
    const json_t *json;
    const char *label;
    tq_error *err;
    const char *read[TQ_MAX_KEYS_READ]; /* static strings */
    int n_read;
} tq_config_reader;

/* The value, or NULL where the key is absent or null; the key counts as read. */
const json_t *tq_config_value(tq_config_reader *r, const char *key);
bool tq_config_was_read(const tq_config_reader *r, const char *key);

/* A number from low to high; absent or null: fallback, or an error if fallback < low. */
tq_status tq_config_int(tq_config_reader *r, const char *key, int low, int high, int fallback, int *out);
tq_status tq_config_number(tq_config_reader *r, const char *key, double low, double high, double fallback, double *out);
tq_status tq_config_float(tq_config_reader *r, const char *key, double low, double high, double fallback, float *out);
tq_status tq_config_bool(tq_config_reader *r, const char *key, bool fallback, bool *out);
/* Absent or null: NULL. */
tq_status tq_config_string(tq_config_reader *r, const char *key, const char **out);

/* The rotary encodings of a model: ropes, n_ropes, query_beta; may raise max_context (dynamic).  sliding_rope: the index
 * of the one that sliding layers use. */
tq_status tq_config_ropes(tq_config_reader *r, bool adjacent_pairs, tq_config *config, int *sliding_rope);

#endif
