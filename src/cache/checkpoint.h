/* checkpoint.h: the state of a cache at one length, to go on from in another cache.
 *
 * Packed pages are shared, not copied: by the cache it was taken from, by every cache it is restored into, and by other
 * checkpoints of the same sequence; whoever writes to a shared page copies it first (tq_cache_reserve).  Exact rows are
 * copied.  A restored cache holds the same bits as the one the checkpoint was taken from. */
#ifndef TQ_CACHE_CHECKPOINT_H
#define TQ_CACHE_CHECKPOINT_H

#include "cache/kv_cache.h"

typedef struct tq_checkpoint tq_checkpoint;

/* Of a cache within a budget.  TQ_FULL if the budget has no room for its exact rows. */
tq_status tq_checkpoint_new(const tq_cache *cache, tq_checkpoint **out, tq_error *err);
void tq_checkpoint_free(tq_checkpoint *checkpoint); /* NULL is fine */

/* Into a cache of the same budget, shape, codec and window, whose content is forgotten first. */
tq_status tq_checkpoint_restore(const tq_checkpoint *checkpoint, tq_cache *cache, tq_error *err);

int tq_checkpoint_length(const tq_checkpoint *checkpoint); /* tokens */
size_t tq_checkpoint_own_bytes(const tq_checkpoint *checkpoint); /* what it holds alone: exact rows and lists */
size_t tq_checkpoint_unshared_bytes(const tq_checkpoint *checkpoint); /* what freeing it would give back now */
int tq_checkpoint_pages(const tq_checkpoint *checkpoint); /* slots it holds */

#endif
