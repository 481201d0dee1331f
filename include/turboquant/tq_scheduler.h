/* tq_scheduler.h: many requests at once on one model, and memory of the prompts that it has seen.
 *
 *     tq_scheduler *s;  tq_request *r;
 *     tq_scheduler_params sp = tq_scheduler_params_default();
 *     sp.parallel = 8; sp.cache_bytes = (size_t)1 << 30;
 *     tq_scheduler_new(model, &sp, &s, &err);
 *     tq_request_params rp = tq_request_params_default();
 *     rp.ids = ids; rp.n_ids = n; rp.max_tokens = 200; rp.on_event = on_event; rp.ctx = my_state;
 *     tq_scheduler_submit(s, &rp, &r, &err);                // returns at once; text arrives in on_event
 *     ...
 *     tq_request_release(r);
 *     tq_scheduler_drain(s, 10); tq_scheduler_free(s); tq_model_free(model);
 *
 * Results.  A request's tokens, text and probabilities are those of tq_session_eval and tq_generate with the same
 * parameters, prefill_chunk among them, whatever else is running and whatever is reused: prompts are evaluated in chunks
 * whose boundaries depend on the position alone, a prefix is taken up only at such a boundary from bits that a cold run
 * has there too, and requests that decode together do not touch each other's sums.
 *
 * Scheduling.  Requests start in the order of their submission, when a place (`parallel`) is free and the budget has room
 * for all that they can come to hold: what has started never wants for memory.  All that decode take their steps
 * together.  Prompts are prefilled by turns, one layer of one chunk at a time; while others decode, the two kinds of work
 * get half of the time each.
 *
 * Prefix reuse.  States at chunk boundaries of prompts are kept in a tree, in packed pages that sequences with the same
 * beginning share; who writes to a shared page copies it first.  Replies join the tree when there is nothing else to do:
 * they are evaluated again as a prompt would be, so that going on from them gives the bits of a cold run.  What is least
 * worth (tokens to evaluate again per byte, by age) goes first when the budget wants room.
 *
 * Threads.  A scheduler has a thread of its own, and evaluates on the model's workers.  Every function here may be called
 * from any thread at any time between tq_scheduler_new and tq_scheduler_free; those that wait (drain, free) not from
 * within a callback.  Callbacks come on the scheduler's thread, one at a time, and hold up every request while they run:
 * they must not block.  They may submit, cancel, release and ask for stats. */
#ifndef TQ_SCHEDULER_H
#define TQ_SCHEDULER_H

#include "tq.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tq_scheduler tq_scheduler;
typedef struct tq_request tq_request;

enum {
    TQ_MAX_PARALLEL = 64,
    TQ_MAX_LOGPROBS = 20,
    TQ_MAX_STOPS = 16,      /* stop strings of a request */
    TQ_MAX_SHOWN = 8,       /* control tokens that it wants to see */
    TQ_MAX_STOP_BYTES = 1024, /* of one stop string */
};

/* ---- the scheduler ---------------------------------------------------------------------------------------------- */

typedef enum tq_log_level { TQ_LOG_DEBUG, TQ_LOG_INFO, TQ_LOG_WARNING } tq_log_level;

typedef struct tq_scheduler_params {
    int ctx;                /* tokens that a request can hold, prompt and reply; 0: what the model was made for */
    int parallel;           /* requests that run at once, 1..TQ_MAX_PARALLEL */
    int queue_limit;        /* requests that wait for a place, 0 or more; the next one gets TQ_BUSY */
    size_t cache_bytes;     /* hard limit for pages, exact rows, recurrent states and the tree, running or kept */
    tq_cache_config cache;  /* of requests that name no codec; window, sinks and batches of all */
    int prefill_chunk;      /* tokens evaluated together, 1..1024 */
    bool keep_prompts;      /* false: nothing is kept once a request has ended */
    bool keep_replies;      /* prefill replies into the tree when idle */
    /* One line, no prompts in it: why a prefix was not reused, what was evicted, what failed.  May be NULL. */
    void (*log)(void *ctx, tq_log_level level, const char *text);
    void *log_ctx;
} tq_scheduler_params;

/* ctx 0, parallel 8, queue_limit 64, cache_bytes 1 GiB, tq_cache_config_default(), prefill_chunk 256, keep both. */
TQ_API tq_scheduler_params tq_scheduler_params_default(void);

/* The model must outlive the scheduler; it may serve sessions at the same time.  Strings in params are copied.
 * TQ_INVALID names a parameter that makes no sense, TQ_FULL says that cache_bytes has no room for one token, TQ_NO_MEMORY
 * that memory (or the model's memory_limit) has none for weights and cache_bytes: both numbers are named. */
TQ_API tq_status tq_scheduler_new(tq_model *model, const tq_scheduler_params *params, tq_scheduler **out, tq_error *err);

/* Accept nothing more, let what has been accepted finish, after so many seconds cancel the rest; returns when every
 * request has had its last event.  false: some were cancelled. */
TQ_API bool tq_scheduler_drain(tq_scheduler *scheduler, double seconds);

/* Drains with 0 seconds, then ends the thread.  Handles of requests stay valid until they are released.  NULL is fine. */
TQ_API void tq_scheduler_free(tq_scheduler *scheduler);

/* ---- requests --------------------------------------------------------------------------------------------------- */

typedef enum tq_request_finish {
    TQ_REQUEST_STOP,      /* an end token or a stop string; of an embedding: it is there */
    TQ_REQUEST_LENGTH,    /* max_tokens */
    TQ_REQUEST_CANCELLED, /* tq_request_cancel, drain or free */
    TQ_REQUEST_DEADLINE,
    TQ_REQUEST_FAILED,    /* status and error text say why; other requests are not concerned */
} tq_request_finish;

typedef struct tq_token_logprob {
    int32_t id;
    float logprob; /* natural logarithm of the model's probability, before penalties, biases and temperature */
} tq_token_logprob;

/* What a request holds.  Pages in the order of the tokens: shared ones, own ones; the exact rows are the first and the
 * last tokens. */
typedef struct tq_request_cache {
    char kv[64]; /* the codec in use: of "auto" what it came to */
    int tokens, packed_tokens, exact_tokens, forgotten_tokens; /* as tq_cache_stats has them */
    int packed_pages, shared_pages; /* of TQ_PAGE_TOKENS tokens; of the layer that has packed the most.  Shared: held by
                                     * other requests or by the tree too; they are not among packed_pages */
    size_t bytes, f16_bytes;        /* bytes: with shared pages */
} tq_request_cache;

typedef struct tq_usage {
    int prompt_tokens, cached_tokens; /* cached: of the prompt, taken from the tree */
    int generated_tokens;             /* with those of a stop string, without the end token */
    double queue_seconds;             /* submission to start */
    double ttft_seconds;              /* submission to first token; 0: there was none */
    double prefill_seconds, decode_seconds; /* by the clock, with the turns of others */
    tq_request_cache cache;
} tq_usage;

typedef enum tq_event_kind {
    TQ_EVENT_START,   /* the request has left the queue: done, total, cached */
    TQ_EVENT_PREFILL, /* after every chunk: done, total, cached */
    TQ_EVENT_TOKEN,   /* id, logprob, top, text */
    TQ_EVENT_DONE,    /* the last one, exactly one for every request that was accepted: finish, text, usage, ... */
} tq_event_kind;

/* Pointers are good until the callback returns. */
typedef struct tq_event {
    tq_event_kind kind;
    double seconds;          /* since submission */
    int done, total, cached; /* tokens of the prompt: evaluated or taken from the tree; all; taken from the tree */
    int32_t id;
    float logprob;               /* of id; with n_logprobs >= 0 */
    const tq_token_logprob *top; /* (n_top): the most likely, in order; n_logprobs of them */
    int n_top;
    /* Text that can be passed on: whole characters, and nothing that may turn out to be the beginning of a stop string.
     * It may lag behind the tokens; DONE brings what was held back.  Concatenated: the reply, without the stop string.
     * Not NUL-terminated; text_len 0 where there is none. */
    const char *text;
    size_t text_len;
    tq_request_finish finish;
    int stop;         /* index of the stop string that ended the reply, or -1 */
    int32_t end_id;   /* the end token that ended the reply, or -1 */
    tq_status status; /* TQ_OK unless FAILED */
    const char *error; /* "" unless FAILED */
    tq_usage usage;
    const float *embedding; /* (n_embedding = hidden), or NULL */
    int n_embedding;
} tq_event;

typedef void (*tq_event_fn)(void *ctx, tq_request *request, const tq_event *event);

typedef enum tq_task {
    TQ_TASK_GENERATE,
    TQ_TASK_EMBED_MEAN, /* the mean of the final states of all tokens, */
    TQ_TASK_EMBED_LAST, /* or the last one's; both of length 1.  No token events */
} tq_task;

typedef struct tq_request_params {
    tq_task task;
    const int32_t *ids; /* (n_ids), 1 or more: the prompt */
    int n_ids;
    int max_tokens;     /* 0: as many as the context has room for */
    tq_sampling sampling;
    bool ignore_eos;
    const char *kv;     /* codec (tq_cache.h); NULL: the scheduler's */
    int n_logprobs;     /* -1: none; 0: of the token alone; up to TQ_MAX_LOGPROBS others */
    const char *const *stops; /* (n_stops): UTF-8, none empty */
    int n_stops;
    const int32_t *shown; /* (n_shown), up to TQ_MAX_SHOWN: control tokens whose text is part of the reply's; that of others is not */
    int n_shown;
    double deadline;    /* seconds from submission to the end of all; 0: none */
    bool use_cache;     /* false: take nothing from the tree and leave nothing in it */
    tq_event_fn on_event;
    void *ctx;
} tq_request_params;

/* GENERATE, greedy, max_tokens 0, the scheduler's codec, no logprobs, use_cache. */
TQ_API tq_request_params tq_request_params_default(void);

/* Everything is copied but ctx, which must last until DONE.  Several choices for one prompt are several requests with
 * different seeds: those that share a prompt wait for the first one's prefill and go on from it.
 * TQ_BUSY: parallel + queue_limit requests run or wait already (try again later), or the scheduler drains.  TQ_FULL: prompt and max_tokens
 * do not fit into ctx, or what they can come to hold not into cache_bytes; the text has both numbers.  TQ_INVALID names
 * the parameter; TQ_UNSUPPORTED: stop strings of a model without a tokenizer.  No event comes of a request that was
 * refused. */
TQ_API tq_status tq_scheduler_submit(tq_scheduler *scheduler, const tq_request_params *params, tq_request **out,
                                     tq_error *err);

/* Takes effect before the next layer of a prompt or the next token; DONE comes then.  Nothing happens to a request that
 * has ended. */
TQ_API void tq_request_cancel(tq_request *request);

/* The handle; a request that runs goes on.  NULL is fine. */
TQ_API void tq_request_release(tq_request *request);

TQ_API uint64_t tq_request_id(const tq_request *request); /* 1, 2, ... in the order of submission */

/* ---- facts ------------------------------------------------------------------------------------------------------ */

typedef enum tq_prefix_result {
    TQ_PREFIX_HIT,      /* up to the last boundary before the prompt's end */
    TQ_PREFIX_PARTIAL,  /* something; then the prompt differs from what is known, or states were not kept */
    TQ_PREFIX_NEW,      /* nothing with this beginning is known */
    TQ_PREFIX_EVICTED,  /* it was known, but the budget had no room */
    TQ_PREFIX_SHORT,    /* the prompt is not longer than a chunk */
    TQ_PREFIX_UNUSED,   /* use_cache false, an embedding, or keep_prompts false */
    TQ_PREFIX_RESULTS,
} tq_prefix_result;

TQ_API const char *tq_prefix_result_name(tq_prefix_result result); /* "hit", "partial", ... */

typedef enum tq_slot_state { TQ_SLOT_FREE, TQ_SLOT_PREFILL, TQ_SLOT_DECODE, TQ_SLOT_WAIT /* for another's prefill */ } tq_slot_state;

typedef struct tq_slot_stats {
    tq_slot_state state;
    uint64_t request; /* its id; 0: none */
    tq_task task;
    char kv[64];
    int prompt_tokens, prompt_done, cached_tokens, generated_tokens, max_tokens;
    double seconds; /* since submission */
    tq_request_cache cache;
} tq_slot_stats;

typedef struct tq_scheduler_stats {
    char kv[64]; /* the codec in use for requests that name none */
    int ctx, parallel, queue_limit, prefill_chunk;
    int queued, running;
    bool draining;
    uint64_t accepted, refused_busy, refused_full;
    uint64_t finished[TQ_REQUEST_FAILED + 1]; /* by tq_request_finish */
    uint64_t prompt_tokens, cached_tokens, generated_tokens; /* of all requests so far */
    uint64_t prefill_tokens; /* evaluated, replies that joined the tree among them */
    uint64_t decode_steps;   /* each of up to `parallel` tokens */
    uint64_t prefix[TQ_PREFIX_RESULTS];
    uint64_t checkpoints_taken, checkpoints_evicted;
    /* limit = exact + packed + tree + free; shared is a part of packed. */
    size_t cache_limit, cache_exact, cache_packed, cache_shared, cache_tree, cache_free;
    size_t cache_running; /* of them: what running requests hold; the rest can be evicted */
    size_t table_bytes, work_bytes; /* beside the budget: rotations of codecs that requests asked for (up to 64 codecs; the
                                     * random ones have some); activations and logits, which do not grow */
    int tree_checkpoints;
    int64_t tree_tokens;  /* tokens of all prompts and replies that a request could go on from, shared beginnings once */
    int n_slots;          /* parallel */
    tq_slot_stats slots[TQ_MAX_PARALLEL];
} tq_scheduler_stats;

/* As of the end of the last step. */
TQ_API void tq_scheduler_get_stats(tq_scheduler *scheduler, tq_scheduler_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
