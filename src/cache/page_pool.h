/* page_pool.h: equal slots of memory under one limit.
 * Address space for all slots is reserved at once; a slot costs memory from its first use.  Taking and giving back a
 * slot allocates nothing. */
#ifndef TQ_CACHE_PAGE_POOL_H
#define TQ_CACHE_PAGE_POOL_H

#include "base/status.h"

#include <stdint.h>

typedef struct tq_page_pool {
    uint8_t *memory;
    size_t slot_bytes, reserved_bytes;
    int n_slots, n_fresh; /* slots never used: the last n_slots - n_fresh */
    int *returned;        /* (n_slots): stack of slots given back */
    int n_returned;
} tq_page_pool;

tq_status tq_page_pool_init(tq_page_pool *pool, size_t slot_bytes, int n_slots, tq_error *err);
void tq_page_pool_destroy(tq_page_pool *pool);
uint8_t *tq_page_pool_take(tq_page_pool *pool); /* 64-byte aligned; NULL when none is left */
void tq_page_pool_return(tq_page_pool *pool, uint8_t *slot);
int tq_page_pool_used(const tq_page_pool *pool);

#endif
