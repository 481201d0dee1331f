/* tq_plan.h: what a model is made of, what a session of it will take, and whether there is room.
 *
 *     tq_plan plan;
 *     tq_plan_session(model, &params, 32768, &plan, &err);           // in bytes: weights, cache, and so on
 *     tq_memory memory;
 *     tq_memory_now(&memory);
 *     tq_plan_fit(model, &params, memory.available, &ctx, &err);     // the longest context for which there is room
 *
 * tq_session_new asks the same questions and refuses what does not fit (tq_model_params.memory_limit). */
#ifndef TQ_PLAN_H
#define TQ_PLAN_H

#include "tq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what it is made of ------------------------------------------------------------------------------------------- */

typedef struct tq_layer_info {
    const char *mixer; /* "attention" or "delta" (a gated delta net, which has a state and no cache) */
    int window;        /* attention: it sees the newest `window` tokens; 0: all */
    bool experts;      /* its ffn is a mixture of experts */
} tq_layer_info;

/* TQ_INVALID unless layer is in 0..n_layers-1. */
TQ_API tq_status tq_model_get_layer(const tq_model *model, int layer, tq_layer_info *out, tq_error *err);

typedef struct tq_weight_type {
    char type[32]; /* "4-bit groups of 64", "bf16", "q4_k" */
    int tensors;
    int64_t parameters, bytes; /* scales and biases count as bytes of the values they belong to */
} tq_weight_type;

/* The types of the weights in the model's files, the most bytes first: up to cap of them into out.  Returns how many there
 * are. */
TQ_API size_t tq_model_weight_types(const tq_model *model, tq_weight_type *out, size_t cap);

typedef struct tq_experts_info {
    int n, active; /* 0: the model has none */
} tq_experts_info;

typedef struct tq_text_info {
    int vocab;                       /* of the tokenizer; 0: there is none */
    const char *bos, *eos;           /* as the template has them; may be NULL */
    const int32_t *end_ids;          /* (n_end_ids): any of them ends a reply */
    int n_end_ids;
    bool has_chat_template;
    const char *tokenizer;           /* "byte-level BPE", "SentencePiece BPE", "BPE of characters with byte fallback", ... */
    char pre_tokenizer[64];          /* the name that a GGUF file has for it; "" where there is no such name */
    size_t n_merges;                 /* of a BPE */
    int n_added;                     /* tokens that stand for themselves in a text: control tokens and others */
    const int32_t *before, *after;   /* (n_before), (n_after): put around a raw prompt */
    int n_before, n_after;
    const char *templates;           /* names of the chat templates, ", " between them; "" if there are none */
} tq_text_info;

TQ_API void tq_model_get_experts(const tq_model *model, tq_experts_info *out);
TQ_API void tq_model_get_text(const tq_model *model, tq_text_info *out);

/* ---- what it takes ------------------------------------------------------------------------------------------------ */

/* Bytes when a context of `ctx` tokens is full. */
typedef struct tq_plan {
    int ctx;
    int64_t mapped_bytes;     /* weights read from mapped files: the system may drop them, and reads them again, slowly */
    int64_t copied_bytes;     /* weights in memory of their own, which opening the model has taken */
    int64_t cache_bytes;      /* keys and values */
    int64_t state_bytes;      /* of delta layers, and the checkpoint that a rewind goes back to */
    int64_t work_bytes;       /* activations, logits, tables, memory of attention */
    int64_t total_bytes;      /* of these */
    int64_t read_bytes;       /* what decoding one more token reads: memory bandwidth over this bounds the speed */
} tq_plan;

/* params: codec and chunk as for tq_session_new; its ctx is not looked at.  NULL: the defaults.  Nothing is kept. */
TQ_API tq_status tq_plan_session(tq_model *model, const tq_session_params *params, int ctx, tq_plan *out, tq_error *err);

/* The largest ctx, up to what the model was made for, whose total is at most `bytes`; 0: none. */
TQ_API tq_status tq_plan_fit(tq_model *model, const tq_session_params *params, int64_t bytes, int *ctx, tq_error *err);

typedef struct tq_memory {
    int64_t available; /* can be had now without anybody being killed: free, or dropped by the system at need */
    int64_t total;
    char limit[96];    /* what sets the bound: "this machine's memory", "the memory limit of cgroup /x" */
} tq_memory;

TQ_API void tq_memory_now(tq_memory *out);

#ifdef __cplusplus
}
#endif
#endif
