/* layer_schedule.h: which layers of a cache have another codec: "tq3,first=2,last=2:q8" (grammar: turboquant/tq_cache.h),
 * and the presets, which are such schedules.
 *
 * The layers fall into runs: the first, the last, and those between.  Each run has a name as tq_cache_codec_names takes
 * it. */
#ifndef TQ_CACHE_LAYER_SCHEDULE_H
#define TQ_CACHE_LAYER_SCHEDULE_H

#include <stdbool.h>

#include "base/status.h"

enum { TQ_MIDDLE_LAYERS, TQ_FIRST_LAYERS, TQ_LAST_LAYERS, TQ_LAYER_RUNS };

typedef struct tq_layer_schedule {
    int n_layers;
    int count[TQ_LAYER_RUNS];    /* 0 where kv does not name the run; of the middle: what is left */
    char name[TQ_LAYER_RUNS][64];
    char suffix[64];             /* kv from its first comma of the schedule on, or "" */
} tq_layer_schedule;

/* What `kv` is short for: of auto, the preset for heads of head_dim; else itself. */
const char *tq_layer_schedule_resolve(const char *kv, int head_dim);

/* The schedule of preset `kv` for a model of n_layers, or false: no preset, or too few layers for it to be one. */
bool tq_layer_schedule_of_preset(const char *kv, int n_layers, tq_layer_schedule *out);

/* TQ_INVALID names what does not fit: the grammar, more layers than there are, window:N among layers. */
tq_status tq_layer_schedule_parse(const char *kv, int n_layers, tq_layer_schedule *out, tq_error *err);

/* TQ_MIDDLE_LAYERS, TQ_FIRST_LAYERS or TQ_LAST_LAYERS. */
int tq_layer_schedule_run(const tq_layer_schedule *schedule, int layer);

#endif
