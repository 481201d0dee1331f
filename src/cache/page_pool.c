/* page_pool.c: see page_pool.h. */
#define _GNU_SOURCE
#include "cache/page_pool.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

tq_status tq_page_pool_init(tq_page_pool *pool, size_t slot_bytes, int n_slots, tq_error *err) {
    *pool = (tq_page_pool){.slot_bytes = (slot_bytes + 63) / 64 * 64, .n_slots = n_slots};
    size_t bytes;
    if (__builtin_mul_overflow(pool->slot_bytes, (size_t)n_slots, &bytes))
        return tq_fail(err, TQ_NO_MEMORY, "out of memory: %d pages of %zu bytes", n_slots, pool->slot_bytes);
    pool->reserved_bytes = bytes ? bytes : 1;
    void *memory = mmap(NULL, pool->reserved_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return tq_fail_memory(err, bytes, "the cache's pages");
    madvise(memory, pool->reserved_bytes, MADV_HUGEPAGE); /* fewer TLB misses where the kernel can; else no matter */
    pool->memory = memory;
    size_t lists = (size_t)n_slots + 1;
    pool->returned = malloc(lists * sizeof *pool->returned);
    pool->holders = malloc(2 * lists * sizeof *pool->holders);
    if (!pool->returned || !pool->holders) {
        tq_page_pool_destroy(pool);
        return tq_fail_memory(err, 3 * lists * sizeof *pool->returned, "the cache's page lists");
    }
    return TQ_OK;
}

void tq_page_pool_destroy(tq_page_pool *pool) {
    if (pool->memory) munmap(pool->memory, pool->reserved_bytes);
    free(pool->returned);
    free(pool->holders);
    *pool = (tq_page_pool){0};
}

static size_t index_of(const tq_page_pool *pool, const uint8_t *slot) {
    return (size_t)(slot - pool->memory) / pool->slot_bytes;
}

/* Give the memory of free slots back to the system: whole system pages within a slot, so a little stays at each end. */
static void trim(tq_page_pool *pool) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (; pool->n_trimmed < pool->n_returned; pool->n_trimmed++) {
        uintptr_t start = (uintptr_t)pool->memory + (size_t)pool->returned[pool->n_trimmed] * pool->slot_bytes;
        uintptr_t first = (start + page - 1) / page * page, last = (start + pool->slot_bytes) / page * page;
        if (last > first) madvise((void *)first, last - first, MADV_DONTNEED);
    }
}

/* Back below the limit in memory that the system really gave, not only in what is in use. */
static void trim_all(tq_page_budget *budget) {
    if (tq_page_budget_resident(budget) <= budget->limit) return;
    for (tq_page_pool *pool = budget->pools; pool; pool = pool->next) trim(pool);
}

static uint32_t *holders_of(const tq_page_pool *pool, const uint8_t *slot) {
    return pool->holders + 2 * index_of(pool, slot);
}

/* The budget's counts once a slot's holders are no longer what they were. */
static void recount(tq_page_pool *pool, const uint32_t before[2], const uint32_t after[2]) {
    tq_page_budget *b = pool->budget;
    if (!b) return;
    size_t all[2] = {(size_t)before[0] + before[1], (size_t)after[0] + after[1]}, bytes = pool->slot_bytes;
    b->used += bytes * (all[1] > 0) - bytes * (all[0] > 0);
    b->shared += bytes * (all[1] > 1) - bytes * (all[0] > 1);
    b->running += bytes * (after[TQ_HELD_RUNNING] > 0) - bytes * (before[TQ_HELD_RUNNING] > 0);
}

static void change(tq_page_pool *pool, const uint8_t *slot, tq_holder holder, int by) {
    uint32_t *now = holders_of(pool, slot), before[2] = {now[0], now[1]};
    now[holder] += (uint32_t)by;
    recount(pool, before, now);
}

uint8_t *tq_page_pool_take(tq_page_pool *pool) {
    tq_page_budget *budget = pool->budget;
    int slot;
    if (budget && (budget->used > budget->limit || pool->slot_bytes > budget->limit - budget->used)) return NULL;
    if (pool->n_returned > 0) slot = pool->returned[--pool->n_returned];
    else if (pool->n_fresh < pool->n_slots) slot = pool->n_fresh++;
    else return NULL;
    if (pool->n_trimmed > pool->n_returned) pool->n_trimmed = pool->n_returned;
    uint8_t *at = pool->memory + (size_t)slot * pool->slot_bytes;
    memset(holders_of(pool, at), 0, 2 * sizeof *pool->holders);
    change(pool, at, TQ_HELD_RUNNING, 1);
    if (budget) trim_all(budget);
    return at;
}

void tq_page_pool_share(tq_page_pool *pool, const uint8_t *slot, tq_holder holder) { change(pool, slot, holder, 1); }

bool tq_page_pool_shared(const tq_page_pool *pool, const uint8_t *slot) {
    const uint32_t *n = holders_of(pool, slot);
    return (uint64_t)n[0] + n[1] > 1;
}

void tq_page_pool_return(tq_page_pool *pool, uint8_t *slot, tq_holder holder) {
    change(pool, slot, holder, -1);
    const uint32_t *n = holders_of(pool, slot);
    if (n[0] == 0 && n[1] == 0) pool->returned[pool->n_returned++] = (int)index_of(pool, slot);
}

int tq_page_pool_used(const tq_page_pool *pool) { return pool->n_fresh - pool->n_returned; }

/* ---- one limit over several pools -------------------------------------------------------------------------------- */

void tq_page_budget_init(tq_page_budget *budget, size_t limit) { *budget = (tq_page_budget){.limit = limit}; }

void tq_page_budget_destroy(tq_page_budget *budget) {
    for (tq_page_pool *pool = budget->pools, *next; pool; pool = next) {
        next = pool->next;
        tq_page_pool_destroy(pool);
        free(pool);
    }
    free(budget->scratch);
    *budget = (tq_page_budget){0};
}

tq_status tq_page_budget_pool(tq_page_budget *budget, size_t slot_bytes, tq_page_pool **out, tq_error *err) {
    slot_bytes = (slot_bytes + 63) / 64 * 64;
    for (tq_page_pool *pool = budget->pools; pool; pool = pool->next)
        if (pool->slot_bytes == slot_bytes) {
            *out = pool;
            return TQ_OK;
        }
    size_t n = budget->limit / slot_bytes;
    if (n < 1)
        return tq_fail(err, TQ_FULL, "a cache budget of %zu bytes has no room for one page of %zu bytes", budget->limit,
                       slot_bytes);
    tq_page_pool *pool = malloc(sizeof *pool);
    if (!pool) return tq_fail_memory(err, sizeof *pool, "a page pool");
    tq_status status = tq_page_pool_init(pool, slot_bytes, n < INT32_MAX ? (int)n : INT32_MAX, err);
    if (status != TQ_OK) {
        free(pool);
        return status;
    }
    pool->budget = budget;
    pool->next = budget->pools;
    budget->pools = pool;
    *out = pool;
    return TQ_OK;
}

bool tq_page_budget_charge(tq_page_budget *budget, size_t bytes, tq_holder holder) {
    if (!budget) return true;
    if (budget->used > budget->limit || bytes > budget->limit - budget->used) return false;
    budget->used += bytes;
    budget->charged += bytes;
    if (holder == TQ_HELD_RUNNING) budget->running += bytes;
    trim_all(budget);
    return true;
}

void tq_page_budget_discharge(tq_page_budget *budget, size_t bytes, tq_holder holder) {
    if (!budget) return;
    budget->used -= bytes;
    budget->charged -= bytes;
    if (holder == TQ_HELD_RUNNING) budget->running -= bytes;
}

tq_status tq_page_budget_scratch(tq_page_budget *budget, size_t bytes, tq_error *err) {
    bytes = (bytes + 63) / 64 * 64;
    if (bytes <= budget->scratch_bytes) return TQ_OK;
    size_t more = bytes - budget->scratch_bytes;
    if (!tq_page_budget_charge(budget, more, TQ_HELD_RUNNING))
        return tq_fail(err, TQ_FULL, "the cache budget of %zu bytes has no room for attention's scratch of %zu", budget->limit,
                       bytes);
    void *scratch = aligned_alloc(64, bytes);
    if (!scratch) {
        tq_page_budget_discharge(budget, more, TQ_HELD_RUNNING);
        return tq_fail_memory(err, bytes, "attention");
    }
    free(budget->scratch);
    budget->scratch = scratch;
    budget->scratch_bytes = bytes;
    return TQ_OK;
}

size_t tq_page_budget_resident(const tq_page_budget *budget) {
    size_t bytes = budget->charged;
    for (const tq_page_pool *pool = budget->pools; pool; pool = pool->next)
        bytes += (size_t)(pool->n_fresh - pool->n_trimmed) * pool->slot_bytes;
    return bytes;
}
