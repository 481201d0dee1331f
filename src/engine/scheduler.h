/* scheduler.h: inside of a tq_scheduler.  scheduler.c: what other threads see: submission, the queue, draining, stats.
 * scheduler_run.c: its thread: who starts, whose turn it is.  slot.c: one running request, from its cache to its last
 * event.  steps.c: a layer of a chunk, a token of all that decode. */
#ifndef TQ_ENGINE_SCHEDULER_H
#define TQ_ENGINE_SCHEDULER_H

#include <pthread.h>

#include "engine/prefix_tree.h"
#include "engine/reply.h"
#include "engine/request.h"
#include "engine/sampler.h"

enum { TQ_KV_SHAPES = 64, TQ_SETTLE_JOBS = 16 };

/* One running request. */
typedef struct tq_slot {
    tq_slot_state state;
    tq_request *request;    /* NULL: free, or a reply that settles */
    bool settles;           /* a finished prompt and reply, evaluated to be kept; no events */
    uint64_t order;         /* those that started before have less */
    bool keeps;             /* takes from the tree and leaves in it */
    tq_cache *cache;
    tq_recurrent_state state_of_delta;
    int32_t *tokens;        /* prompt and reply, the newest one maybe not evaluated yet */
    int n_prompt, most_tokens;
    int n_evaluated, n_reply, cached;
    int branch_at;          /* a boundary where the prompt parts from what is kept, or 0 */
    int kept_at;            /* the newest boundary that was kept or restored */
    struct tq_slot *leader; /* WAIT: whose prefill is waited for, up to lead_to tokens */
    int lead_to;
    tq_rng rng;
    tq_reply reply;
    size_t told; /* bytes of the reply that events had */
    double *sum; /* (hidden), of EMBED_MEAN */
    double started, first_token;
} tq_slot;

/* A prompt and its reply, to be evaluated as a prompt when nothing else is to do. */
typedef struct tq_settle_job {
    int32_t *ids;
    int n, n_prompt;
    char kv[64];
} tq_settle_job;

/* What a codec's cache takes, known before there is one, and the tables of its codecs, which caches of running requests use:
 * made on the thread that submits, once. */
typedef struct tq_kv_shape {
    char kv[64];
    tq_cache *cache; /* never used: it takes address space only */
} tq_kv_shape;

struct tq_scheduler {
    tq_model *model;
    tq_scheduler_params params;
    char kv[64];
    pthread_t thread;

    /* ---- under the lock ---- */
    pthread_mutex_t lock;
    pthread_cond_t work, ended; /* something to do; a request has ended */
    tq_request *first, **last;  /* queue */
    int n_queued, n_open;       /* n_open: accepted, DONE not told yet */
    bool draining, cancel_all, stop;
    uint64_t last_id;
    tq_scheduler_stats stats;   /* counters, and what was published last */
    tq_kv_shape shapes[TQ_KV_SHAPES]; /* the first: of the scheduler's own codec */
    int n_shapes;
    size_t scratch_bytes; /* that attention wants with the scheduler's own codec; does not change */

    /* ---- the scheduler's thread alone ---- */
    tq_page_budget budget;
    tq_prefix_tree *tree;
    tq_slot slots[TQ_MAX_PARALLEL];
    tq_settle_job settle[TQ_SETTLE_JOBS]; /* a stack: the newest last */
    int n_settle;
    uint64_t last_order;
    bool blocked; /* the first of the queue waits until a request ends */
    tq_activations chunk_activations, step_activations;
    float *logits; /* (TQ_SINGLE_TOKENS, vocab) */
    tq_candidate *candidates;
    tq_token_logprob top[TQ_MAX_LOGPROBS];
    tq_slot *chunk_slot; /* whose chunk is on its way through the layers, or NULL */
    int chunk_layer, chunk_n, turn;
    double credit;    /* seconds that those that decode have to have before the next layer */
    double published; /* when */
    uint64_t prefill_tokens, decode_steps;
};

/* ---- slot.c -------------------------------------------------------------------------------------------------------- */

/* A cache, what the tree has, and room for all that may come.  TQ_FULL: not now; nothing has changed. */
tq_status tq_slot_start(tq_scheduler *s, tq_slot *slot, tq_request *request, tq_error *err);
tq_status tq_slot_start_settling(tq_scheduler *s, tq_slot *slot, const tq_settle_job *job, tq_error *err);

/* The last event, and everything back. */
void tq_slot_finish(tq_scheduler *s, tq_slot *slot, tq_request_finish finish, const tq_event *more);
void tq_slot_fail(tq_scheduler *s, tq_slot *slot, tq_status status, const char *text);

/* Wait for an older one that is about to evaluate what this prompt begins with too; otherwise be ready. */
void tq_slot_line_up(tq_scheduler *s, tq_slot *slot);

/* n more of the prompt's tokens have been evaluated: keep a checkpoint where one is wanted, wake who waited. */
void tq_slot_advance(tq_scheduler *s, tq_slot *slot, int n);

/* Sample from logits and tell; either the request ends or it has a token to evaluate. */
void tq_slot_sample(tq_scheduler *s, tq_slot *slot, const float *logits);

/* Pages for n more tokens, at the tree's cost. */
tq_status tq_slot_reserve(tq_scheduler *s, tq_slot *slot, int n, tq_error *err);

void tq_slot_get_stats(const tq_slot *slot, tq_slot_stats *stats);
static inline bool tq_slot_is_free(const tq_slot *slot) { return !slot->cache; }

/* ---- steps.c ------------------------------------------------------------------------------------------------------- */

/* One layer of one chunk, of the slot whose turn it is; settling ones only when `settle`.  false: nobody prefills. */
bool tq_prefill_step(tq_scheduler *s, bool settle);
void tq_decode_step(tq_scheduler *s); /* one token of each that decodes */

/* ---- scheduler_run.c ------------------------------------------------------------------------------------------------- */

void *tq_scheduler_main(void *scheduler);
void tq_scheduler_publish(tq_scheduler *s); /* what stats say */

/* ---- scheduler.c ----------------------------------------------------------------------------------------------------- */

void tq_scheduler_log(const tq_scheduler *s, tq_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A cache of the codec, to ask for sizes (NULL: the scheduler's codec); *owned: the caller frees it.  From any thread. */
tq_status tq_scheduler_shape(tq_scheduler *s, const char *kv, tq_cache **out, bool *owned, tq_error *err);
/* A cache with the codec's tables, or NULL if there were too many codecs to keep this one's. */
const tq_cache *tq_scheduler_tables(tq_scheduler *s, const char *kv);
tq_cache_params tq_scheduler_cache_params(const tq_scheduler *s, const char *kv);

#endif
