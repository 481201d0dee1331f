/* page_pool.h: equal slots of memory under one limit.
 * Address space for all slots is reserved at once; a slot costs memory from its first use.  Taking and giving back a
 * slot allocates nothing.  A slot may have several holders that begin alike: caches, which are running, and checkpoints,
 * which are kept.  It is free again when the last one gives it back.
 *
 * A budget is one limit in bytes over any number of pools and over whatever else is charged to it.  Pools and budget
 * belong to one thread. */
#ifndef TQ_CACHE_PAGE_POOL_H
#define TQ_CACHE_PAGE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* Who holds a slot or is charged. */
typedef enum tq_holder { TQ_HELD_RUNNING, TQ_HELD_KEPT } tq_holder;

typedef struct tq_page_budget {
    size_t limit;
    size_t used;    /* slots in use and charges: never above limit */
    size_t charged; /* of these, what is no slot */
    size_t running; /* of used: slots that a cache holds, and its charges; the rest is only kept */
    size_t shared;  /* of used: slots with more than one holder */
    struct tq_page_pool *pools; /* one a slot size; a list */
    void *scratch;              /* of attention, for all caches of the budget: they run one after the other */
    size_t scratch_bytes;       /* charged, running */
} tq_page_budget;

typedef struct tq_page_pool {
    uint8_t *memory;
    size_t slot_bytes, reserved_bytes;
    int n_slots, n_fresh; /* slots never used: the last n_slots - n_fresh */
    int *returned;        /* (n_slots): stack of slots given back */
    int n_returned;
    int n_trimmed;        /* the first of the stack whose memory the system has back */
    uint32_t *holders;    /* (n_slots, 2): by tq_holder */
    tq_page_budget *budget; /* NULL: n_slots is the only limit */
    struct tq_page_pool *next;
} tq_page_pool;

tq_status tq_page_pool_init(tq_page_pool *pool, size_t slot_bytes, int n_slots, tq_error *err);
void tq_page_pool_destroy(tq_page_pool *pool);
uint8_t *tq_page_pool_take(tq_page_pool *pool); /* 64-byte aligned, one running holder; NULL when there is no room */
void tq_page_pool_share(tq_page_pool *pool, const uint8_t *slot, tq_holder holder); /* one more holder */
void tq_page_pool_return(tq_page_pool *pool, uint8_t *slot, tq_holder holder);
bool tq_page_pool_shared(const tq_page_pool *pool, const uint8_t *slot); /* more than one holder? */
int tq_page_pool_used(const tq_page_pool *pool);

/* ---- one limit over several pools -------------------------------------------------------------------------------- */

void tq_page_budget_init(tq_page_budget *budget, size_t limit);
void tq_page_budget_destroy(tq_page_budget *budget); /* with its pools: no cache or checkpoint may be left */

/* The budget's pool for slots of so many bytes, made when there is none yet.  TQ_FULL if not one slot fits. */
tq_status tq_page_budget_pool(tq_page_budget *budget, size_t slot_bytes, tq_page_pool **out, tq_error *err);

/* Count bytes that are no slots: false, and nothing counted, if they do not fit.  A NULL budget has room for all. */
bool tq_page_budget_charge(tq_page_budget *budget, size_t bytes, tq_holder holder);
void tq_page_budget_discharge(tq_page_budget *budget, size_t bytes, tq_holder holder);

/* budget->scratch is at least so large.  TQ_FULL, TQ_NO_MEMORY: it is as it was. */
tq_status tq_page_budget_scratch(tq_page_budget *budget, size_t bytes, tq_error *err);

/* Memory of all pools and charges that the system has not got back: never above the limit by more than what free slots
 * share with others in a page of the system. */
size_t tq_page_budget_resident(const tq_page_budget *budget);

#endif
