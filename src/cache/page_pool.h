/* page_pool.h: equal slots of memory under one limit.
 * Address space for all slots is reserved at once; a slot costs memory from its first use.  Taking and giving back a
 * slot allocates nothing.  A slot may have several holders (caches and checkpoints that begin alike): it is free again
 * when the last one gives it back.
 *
 * A budget is one limit in bytes over any number of pools and over whatever else is charged to it.  Pools and budget
 * belong to one thread. */
#ifndef TQ_CACHE_PAGE_POOL_H
#define TQ_CACHE_PAGE_POOL_H

#include <stdbool.h>

#include "base/status.h"

#include <stdint.h>

typedef struct tq_page_budget {
    size_t limit;
    size_t used;    /* slots in use and charges: never above limit */
    size_t charged; /* of these, what is no slot */
    struct tq_page_pool *pools; /* one a slot size; a list */
} tq_page_budget;

typedef struct tq_page_pool {
    uint8_t *memory;
    size_t slot_bytes, reserved_bytes;
    int n_slots, n_fresh; /* slots never used: the last n_slots - n_fresh */
    int *returned;        /* (n_slots): stack of slots given back */
    int n_returned;
    int n_trimmed;        /* the first of the stack whose memory the system has back */
    uint32_t *holders;    /* (n_slots) */
    tq_page_budget *budget; /* NULL: n_slots is the only limit */
    struct tq_page_pool *next;
} tq_page_pool;

tq_status tq_page_pool_init(tq_page_pool *pool, size_t slot_bytes, int n_slots, tq_error *err);
void tq_page_pool_destroy(tq_page_pool *pool);
uint8_t *tq_page_pool_take(tq_page_pool *pool); /* 64-byte aligned, one holder; NULL when there is no room */
void tq_page_pool_share(tq_page_pool *pool, const uint8_t *slot); /* one more holder */
bool tq_page_pool_shared(const tq_page_pool *pool, const uint8_t *slot); /* more than one? */
void tq_page_pool_return(tq_page_pool *pool, uint8_t *slot);
int tq_page_pool_used(const tq_page_pool *pool);

void tq_page_budget_init(tq_page_budget *budget, size_t limit);
void tq_page_budget_destroy(tq_page_budget *budget); /* after everything that holds a slot */

/* The budget's pool of such slots, made on first use. */
tq_status tq_page_budget_pool(tq_page_budget *budget, size_t slot_bytes, tq_page_pool **out, tq_error *err);

/* Count bytes that are allocated elsewhere.  False, and nothing charged, if they do not fit.  budget NULL: no limit. */
bool tq_page_budget_charge(tq_page_budget *budget, size_t bytes);
void tq_page_budget_discharge(tq_page_budget *budget, size_t bytes);

/* What the system sees of it: used, and free slots whose memory has not been given back. */
size_t tq_page_budget_resident(const tq_page_budget *budget);

#endif
