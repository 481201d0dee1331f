/* recurrent_state.h: what delta layers remember of a sequence: a state of fixed size a layer, whatever the length.
 * Owns: the memory, and its form in a file.  Not here: what the floats mean (model/delta_layer.c). */
#ifndef TQ_CACHE_RECURRENT_STATE_H
#define TQ_CACHE_RECURRENT_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/status.h"

typedef struct tq_recurrent_state {
    int n_layers;        /* 0: the model has none */
    size_t layer_floats; /* a multiple of 16 */
    float *floats;       /* (n_layers, layer_floats), 64-byte aligned */
} tq_recurrent_state;

/* Zeros: the state before the first token.  layer_floats is rounded up. */
tq_status tq_recurrent_state_init(tq_recurrent_state *state, int n_layers, size_t layer_floats, tq_error *err);
void tq_recurrent_state_destroy(tq_recurrent_state *state);
void tq_recurrent_state_clear(tq_recurrent_state *state);
void tq_recurrent_state_copy(tq_recurrent_state *to, const tq_recurrent_state *from); /* of the same shape */
size_t tq_recurrent_state_bytes(const tq_recurrent_state *state);

static inline float *tq_recurrent_state_layer(const tq_recurrent_state *state, int layer) {
    return state->floats + (size_t)layer * state->layer_floats;
}

/* "TQSTATE\n" | u64 n_layers | u64 layer_floats | floats | u64 checksum.  Reading wants the same shape; on failure the
 * state is zeros. */
tq_status tq_recurrent_state_write(const tq_recurrent_state *state, FILE *to, const char *label, tq_error *err);
tq_status tq_recurrent_state_read(tq_recurrent_state *state, FILE *from, const char *label, tq_error *err);

#endif
