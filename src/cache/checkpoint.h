/* checkpoint.h: the state of a sequence at one length, its cache's and its delta layers', to go on from in another.
 *
 * Packed pages are shared, not copied: by the cache it was taken from, by every cache it is restored into, and by other
 * checkpoints of the same sequence; whoever writes to a shared page copies it first (tq_cache_reserve).  Exact rows and
 * recurrent states are copied.  A restored cache holds the same bits as the one the checkpoint was taken from. */
#ifndef TQ_CACHE_CHECKPOINT_H
#define TQ_CACHE_CHECKPOINT_H

#include "cache/kv_cache.h"
#include "cache/recurrent_state.h"

typedef struct tq_checkpoint tq_checkpoint;

/* Of a cache within a budget and the state beside it (of no layers, where the model has none).  TQ_FULL if the budget has
 * no room for what is copied. */
tq_status tq_checkpoint_new(const tq_cache *cache, const tq_recurrent_state *state, tq_checkpoint **out, tq_error *err);
void tq_checkpoint_free(tq_checkpoint *checkpoint); /* NULL is fine */

/* What tq_checkpoint_new would charge to the budget now. */
size_t tq_checkpoint_bytes_of(const tq_cache *cache, const tq_recurrent_state *state);

/* Into a cache of the same budget, shape, codec and window, and a state of the same shape; what they hold is forgotten
 * first.  Takes no memory.  On failure they are as they were. */
tq_status tq_checkpoint_restore(const tq_checkpoint *checkpoint, tq_cache *cache, tq_recurrent_state *state, tq_error *err);

int tq_checkpoint_length(const tq_checkpoint *checkpoint); /* tokens */
size_t tq_checkpoint_own_bytes(const tq_checkpoint *checkpoint); /* what it holds alone: exact rows, states, lists */
size_t tq_checkpoint_unshared_bytes(const tq_checkpoint *checkpoint); /* what freeing it would give back now */

#endif
