/* prefix_tree.h: what is kept of prompts, to go on from: a radix tree of token chunks with checkpoints at chunk
 * boundaries, one tree a codec, all within one byte budget.
 *
 * An edge is one chunk of a fixed number of tokens, the chunk of prefill: a state is taken up only where a run from the
 * beginning had a boundary too, and then has the same bits.  Nodes without checkpoints at or below them do not exist; of
 * those that the budget took, the fingerprints of the newest are remembered, so that a miss can say so. */
#ifndef TQ_ENGINE_PREFIX_TREE_H
#define TQ_ENGINE_PREFIX_TREE_H

#include <turboquant/tq_scheduler.h>

#include "cache/checkpoint.h"

typedef struct tq_prefix_tree tq_prefix_tree;

/* chunk: tokens of an edge.  The budget outlives the tree. */
tq_status tq_prefix_tree_new(tq_page_budget *budget, int chunk, tq_prefix_tree **out, tq_error *err);
void tq_prefix_tree_free(tq_prefix_tree *tree); /* NULL is fine */

typedef struct tq_prefix_match {
    const tq_checkpoint *checkpoint; /* NULL: none.  Until the tree changes */
    int length;                      /* its tokens, fewer than the prompt's */
    int known;                       /* tokens that the prompt has in common with what is kept */
    int evicted;                     /* where a longer checkpoint was before the budget took it, or 0 */
    tq_prefix_result result;
} tq_prefix_match;

/* The longest beginning of ids (n) that can be gone on from, leaving at least one token to evaluate.  Counts as a use. */
tq_prefix_match tq_prefix_tree_find(tq_prefix_tree *tree, const char *kv, const int32_t *ids, int n);

/* Keep the state of a cache that holds ids (n), n a multiple of chunk; kept already: counts as a use.  evict: others may
 * go for it, those worth least first; otherwise only free room is used.  TQ_FULL: no room, nothing is kept. */
tq_status tq_prefix_tree_keep(tq_prefix_tree *tree, const tq_cache *cache, const tq_recurrent_state *state,
                              const int32_t *ids, int n, bool evict, tq_error *err);

/* Give up the checkpoint that is worth least.  false: there is none. */
bool tq_prefix_tree_evict(tq_prefix_tree *tree);

typedef struct tq_prefix_tree_stats {
    int checkpoints;
    int64_t tokens; /* that can be gone on from; shared beginnings once */
    size_t bytes;   /* of nodes, and of checkpoints but for their pages */
    uint64_t taken, evicted;
} tq_prefix_tree_stats;

void tq_prefix_tree_get_stats(const tq_prefix_tree *tree, tq_prefix_tree_stats *stats);

#endif
