/* cache_rows.h: rows of a cache as they are stored, for measurements and tests.  Attention never comes here. */
#ifndef TQ_CACHE_CACHE_ROWS_H
#define TQ_CACHE_CACHE_ROWS_H

#include "cache/kv_cache.h"
#include "codec/page.h"

/* Rows of the layer in pages: those of tokens n_sinks .. n_sinks + packed - 1.  For f32 and f16 too. */
int tq_cache_paged_rows(const tq_cache *cache, int layer);
int tq_cache_sink_rows(const tq_cache *cache, int layer);

/* Row 0..tq_cache_paged_rows - 1 of a KV head as its codes say, in the original basis: x (head_dim). */
void tq_cache_load_row(const tq_cache *cache, int layer, int kv_head, tq_side side, int row, float *x);

#endif
