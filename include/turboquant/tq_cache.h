/* tq_cache.h: a compressed KV cache and attention over it, for any engine.
 *
 *     tq_cache_params p = tq_cache_params_default();
 *     p.n_layers = 32; p.n_heads = 32; p.n_kv_heads = 8; p.head_dim = 128;
 *     p.max_tokens = 32768; p.kv = "tq3";
 *     tq_cache_new(&p, &cache, &err);
 *     for each chunk of n tokens, for each layer in order:
 *         tq_cache_attend(cache, layer, q, k, v, n, out, &err);   // attends, then stores k and v
 *     tq_cache_free(cache);
 *
 * Keys and values enter as float32, keys after rotary position encoding.  The first `sinks` tokens and the newest
 * `buffer_size` stay exact (f16); older ones are packed, `flush_batch_size` rows at a time, into pages of
 * TQ_PAGE_TOKENS tokens, and are attended to as they are: no decompressed copy exists at any time.  A chunk attends
 * exactly to itself and to what is stored before it.
 *
 * One thread uses a cache at a time; it splits work over its own n_threads workers and gives the same result for any
 * number of them. */
#ifndef TQ_CACHE_H
#define TQ_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tq_status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TQ_PAGE_TOKENS 128 /* tokens of a page: one layer, one KV head */

typedef struct tq_cache tq_cache;

/* Whether pages of keys keep the mean of their keys apart, so that codes hold only what differs from it.  It concerns codecs
 * with the rotation of tq* (q8 tq* lm* tcq* vq* uniform); the others never do.  Scores are exact either way, whatever soft
 * caps and sinks come after.  A centre costs 16 bits for TQ_PAGE_TOKENS values, 1/8 bit a value, and keys with biases are lost
 * without one at few bits.
 *   AUTO  each layer decides when it packs its first rows: a centre pays where it takes away more of the squared error than 1/8
 *         bit more of codes would, which is 16 % of the energy of the keys that will fill the page, over its KV heads.
 *         Fewer than 16 keys say nothing: then it has one.  The decision is the layer's until nothing of it is packed any
 *         more (a rewind to before its first page), and goes with its pages into snapshots and shared prefixes.  Pages
 *         without a centre are so much smaller.
 *   ON    always.  Refused where every layer has a codec that keeps none, f16 and f32 aside
 *   OFF   never: for measurements */
typedef enum tq_key_centre { TQ_KEY_CENTRE_AUTO, TQ_KEY_CENTRE_ON, TQ_KEY_CENTRE_OFF } tq_key_centre;

/* What is stored and how.  kv names the codec of keys and values:
 *   auto                   the default: tq3; f16 where no tq codec takes the head dimension (a multiple of 16 up to 512)
 *   tq4 tq3.5 tq3 tq2.5 tq2
 *                          the best measured cache of a size (docs/quality.md): with 8 layers or more each a schedule of
 *                          codecs for keys and values, early and late layers; with fewer, or inside the forms below, the
 *                          codec of that name for both
 *   f32 f16 q8 lm2 lm3 lm4 tcq2 tcq3 tcq4 vq2.5 vq3 vq3.5 uniform:2..4 paper-mse:1..8 paper-prod:2..4
 *   paper-prod-orth:2..4 paper:2.5 paper:3.5 minmax:B[:G] q4-group[:G] q8-group[:G]
 *                          one codec for both (tq_codec.h says what they are)
 *   mlx-k{2,3,4}v{2,4}     the mlx-turboquant prototype: paper-prod keys, min-max values in groups of 32
 *   tq:k=A,v=B             keys and values set apart; A and B are any codec of tq_codec.h, or bits:
 *                          tq:k=3.5,v=2.5 is tq:k=tq3.5,v=tq2.5
 *   window:N               a control for measurements: f16, and what leaves a window of N tokens (which replaces
 *                          buffer_size) is forgotten
 *   CODEC,first=N[:CODEC],last=M[:CODEC]
 *                          the first N and the last M layers have another codec than those between; either part may be
 *                          left out, and one without a codec takes the other's: tq3,first=2,last=2:q8.  Each CODEC is
 *                          one of the above but window:N.  No codec's name begins with first= or last= (nor with v=),
 *                          so in a list of codecs with commas between these commas belong to the name before
 * 63 characters at most.  key_bits and value_bits, when not 0, replace the bits of that side, of a preset in all layers; value_group_size, when not
 * 0, the group of min-max values; with a schedule of layers those between.  An option that the codec cannot honour is
 * refused, not ignored. */
typedef struct tq_cache_config {
    const char *kv; /* NULL: auto */
    int key_bits, value_bits, value_group_size;
    tq_key_centre key_centre;
    int buffer_size;      /* newest tokens kept exact; 0 is legal */
    int sinks;            /* first tokens kept exact */
    int flush_batch_size; /* rows packed at a time, 1 or more */
} tq_cache_config;

/* auto, window 128, 4 sinks, 32 rows a flush: 160 exact rows at most, so that a page's centre is the mean of all its
 * keys (they are in the window when its first rows are packed). */
TQ_API tq_cache_config tq_cache_config_default(void);

typedef struct tq_cache_params {
    int n_layers, n_heads, n_kv_heads, head_dim; /* n_heads is a multiple of n_kv_heads */
    int max_tokens;                              /* capacity; memory is reserved for it, used page by page */
    tq_cache_config config;
    float scale;         /* of q.k before softmax; 0 means 1/sqrt(head_dim) */
    float softcap;       /* scores become softcap * tanh(score / softcap); 0: they stay */
    const int *windows;  /* (n_layers): a query sees only the newest windows[l] keys, its own among them; 0: all.  NULL:
                          * no layer has one.  Such a layer keeps its window (and TQ_PAGE_TOKENS rows for rewinding), has
                          * no sinks, and packs what the window has of rows older than buffer_size. */
    const float *sink_logits; /* (n_layers, n_heads): learned sinks, a score in every softmax of a head that brings no
                               * value; NULL: none.  Both arrays are copied. */
    int n_threads;       /* 0: one a usable processor */
    const char *kernels; /* scalar, avx2, avx512, amx, neon, neon-dotprod; NULL: the best that runs here */
} tq_cache_params;

TQ_API tq_cache_params tq_cache_params_default(void);

TQ_API tq_status tq_cache_new(const tq_cache_params *params, tq_cache **out, tq_error *err);
TQ_API void tq_cache_free(tq_cache *cache); /* NULL is fine */

/* Attend n new tokens of one layer, then store them.  The tokens follow those the layer holds.
 *   q, out: (n, n_heads, head_dim); k, v: (n, n_kv_heads, head_dim), read before return.
 * Query i sees everything stored and the chunk's keys 0..i.  TQ_FULL (both counts named) changes nothing. */
TQ_API tq_status tq_cache_attend(tq_cache *cache, int layer, const float *q, const float *k, const float *v, int n,
                                 float *out, tq_error *err);

/* Tokens that every layer holds. */
TQ_API int tq_cache_length(const tq_cache *cache);

/* Forget tokens from position `length` on.  Exact for tokens still in the window; below it, whole packed rows are
 * dropped and what remains stays packed.  TQ_INVALID if length is negative or more than is stored, or if a layer no
 * longer holds what a query there would see: window:N, and sliding windows more than TQ_PAGE_TOKENS further on. */
TQ_API tq_status tq_cache_rewind(tq_cache *cache, int length, tq_error *err);

typedef struct tq_cache_stats {
    int tokens;
    int packed_tokens; /* held as codes, in the layer that holds the most; 0 for f32 and f16 */
    int exact_tokens;  /* sinks, window, or everything for f32 and f16 */
    int forgotten_tokens; /* kept nowhere: window:N, or every layer has a sliding window */
    size_t bytes;      /* allocated for them: pages in use, window, sinks, tables of the codec */
    size_t f16_bytes;  /* what each layer sees of the same tokens as plain f16 keys and values */
    double bits_per_value; /* of a packed page, everything in it counted; with centres where a layer has not decided yet */
} tq_cache_stats;

TQ_API void tq_cache_get_stats(const tq_cache *cache, tq_cache_stats *stats);

/* Write the cache to a file (temporary file, fsync, rename) and read it back, bit for bit.  Loading wants a cache made
 * with the same shape and codec, and says what differs. */
TQ_API tq_status tq_cache_save(const tq_cache *cache, const char *path, tq_error *err);
TQ_API tq_status tq_cache_load(tq_cache *cache, const char *path, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
