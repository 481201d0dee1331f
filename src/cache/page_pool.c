/* page_pool.c: see page_pool.h. */
#define _GNU_SOURCE
#include "cache/page_pool.h"

#include <stdlib.h>
#include <sys/mman.h>

tq_status tq_page_pool_init(tq_page_pool *pool, size_t slot_bytes, int n_slots, tq_error *err) {
    *pool = (tq_page_pool){.slot_bytes = (slot_bytes + 63) / 64 * 64, .n_slots = n_slots};
    size_t bytes;
    if (__builtin_mul_overflow(pool->slot_bytes, (size_t)n_slots, &bytes))
        return tq_fail(err, TQ_NO_MEMORY, "out of memory: %d pages of %zu bytes", n_slots, pool->slot_bytes);
    pool->reserved_bytes = bytes ? bytes : 1;
    void *memory = mmap(NULL, pool->reserved_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return tq_fail_memory(err, bytes, "the cache's pages");
    madvise(memory, pool->reserved_bytes, MADV_HUGEPAGE); /* fewer TLB misses where the kernel can; else no matter */
    pool->memory = memory;
    pool->returned = malloc(((size_t)n_slots + 1) * sizeof *pool->returned);
    if (!pool->returned) {
        tq_page_pool_destroy(pool);
        return tq_fail_memory(err, ((size_t)n_slots + 1) * sizeof *pool->returned, "the cache's page list");
    }
    return TQ_OK;
}

void tq_page_pool_destroy(tq_page_pool *pool) {
    if (pool->memory) munmap(pool->memory, pool->reserved_bytes);
    free(pool->returned);
    *pool = (tq_page_pool){0};
}

uint8_t *tq_page_pool_take(tq_page_pool *pool) {
    int slot;
    if (pool->n_returned > 0) slot = pool->returned[--pool->n_returned];
    else if (pool->n_fresh < pool->n_slots) slot = pool->n_fresh++;
    else return NULL;
    return pool->memory + (size_t)slot * pool->slot_bytes;
}

void tq_page_pool_return(tq_page_pool *pool, uint8_t *slot) {
    pool->returned[pool->n_returned++] = (int)((size_t)(slot - pool->memory) / pool->slot_bytes);
}

int tq_page_pool_used(const tq_page_pool *pool) { return pool->n_fresh - pool->n_returned; }
