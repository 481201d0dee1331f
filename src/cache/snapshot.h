/* snapshot.h: a cache as bytes in a stream; the file around it is the caller's.
 *
 * All integers little-endian.  A snapshot is
 *     header     struct snapshot_header: magic, page layout version, shape, codec, window
 *     layers     for each: u32 n_sinks, n_packed, n_forgotten, n_window, sliding window, kind of pages (0 not
 *                decided, 1 centred, 2 bare); then for keys and for values, for each KV head, the sinks and the window (rows
 *                of head_dim f16); then its pages, whole (n_kv_heads pages each)
 *     checksum   u64 of everything before
 * Pages are written as they lie in memory: reading one back gives the same bits. */
#ifndef TQ_CACHE_SNAPSHOT_H
#define TQ_CACHE_SNAPSHOT_H

#include <stdio.h>

#include "cache/kv_cache.h"

tq_status tq_snapshot_write(const tq_cache *cache, FILE *to, const char *label, tq_error *err);

/* Into a cache of the same shape, codec and window.  On failure the cache is empty. */
tq_status tq_snapshot_read(tq_cache *cache, FILE *from, const char *label, tq_error *err);

#endif
