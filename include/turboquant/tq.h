/* tq.h: load a language model, hold its context in a compressed cache, generate text.
 *
 *     tq_model *m;  tq_session *s;
 *     tq_model_open("models/bookworm", NULL, &m, &err);
 *     tq_session_params sp = tq_session_params_default();        // sp.cache.kv = "tq3"
 *     tq_session_new(m, &sp, &s, &err);
 *     tq_message msg = {"user", "What is the password of the mill?"};
 *     tq_chat_tokens(m, &msg, 1, TQ_CHAT_ADD_GENERATION_PROMPT, &ids, &n, &err);
 *     tq_session_eval(s, ids, n, &err);                          // prefill
 *     tq_generate(s, &gp, &result, &err);                        // text arrives in gp.on_text
 *     tq_session_free(s); tq_model_free(m);
 *
 * A model is read-only and may serve many sessions, from many threads; a session belongs to one thread at a time, and
 * sessions of one model take turns on its workers.  Weights stay memory-mapped and are used as they are stored: the
 * files must not change while a model is open.  Everything a session needs is allocated by tq_session_new; evaluating
 * a token allocates nothing.  Strings are UTF-8.  What a function allocates for the caller is released by tq_free. */
#ifndef TQ_H
#define TQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tq_cache.h"
#include "tq_status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tq_model tq_model;
typedef struct tq_session tq_session;

TQ_API void tq_free(void *pointer); /* NULL is fine */

/* ---- model ------------------------------------------------------------------------------------------------------ */

/* Of products of weights and activations with many tokens at a time, and of their attention. */
typedef enum tq_precision {
    TQ_PRECISION_F32,  /* as a float32 sum would be */
    TQ_PRECISION_BF16, /* both sides rounded to bf16, sums in float32: faster, and as exact as engines that compute in bf16 */
} tq_precision;

typedef struct tq_model_params {
    int n_threads;       /* 0: one a usable processor (affinity and cgroup quota are honoured) */
    const char *kernels; /* scalar, avx2, avx512, amx, neon, neon-dotprod; NULL: TQ_KERNELS, else the best that runs here */
    tq_precision prefill; /* of more than 16 tokens at a time: prompts.  Decoding and the cache's codecs are the same either way.
                           * TQ_PRECISION_BF16 wants AVX-512 BF16, which takes the products with weights, or AMX, which takes attention
                           * as well (TQ_UNSUPPORTED where there is neither); 16 tokens or fewer stay in float32, so how a prompt is
                           * cut (by a cached prefix, say) shows within that rounding */
    void (*progress)(void *ctx, double fraction); /* 0..1 while loading; may be NULL */
    void *progress_ctx;
    int64_t memory_limit; /* bytes that the model and a session of it may take; 0: what the system can give when a session is
                           * made; negative: no limit, and the risk of being killed */
} tq_model_params;

/* Open a Hugging Face or MLX directory (config.json, *.safetensors, tokenizer.json) or a GGUF file, of a split the first.
 * params may be NULL.  "synthetic:NAME" makes a model of a published shape with random 4-bit weights, for measuring speed;
 * it has no tokenizer.  A name that does not exist (TQ_NOT_FOUND) is answered with a list of those that do. */
TQ_API tq_status tq_model_open(const char *path, const tq_model_params *params, tq_model **out, tq_error *err);
TQ_API void tq_model_free(tq_model *model); /* after its sessions; NULL is fine */

typedef struct tq_model_info {
    const char *path;
    const char *family;  /* "qwen2", "llama", ... */
    const char *backend; /* "cpu/avx512", ... */
    const char *weights; /* "bf16", "4-bit groups of 64", ... */
    int n_layers, n_heads, n_kv_heads, head_dim, hidden, vocab;
    int max_context; /* what the model was made for */
    int n_threads;
    int64_t n_parameters;
    int64_t weight_bytes; /* mapped */
    int64_t token_bytes;  /* of them, what one decoded token reads: not other experts, nor an embedding's other rows */
    bool has_chat_template;
    bool synthetic; /* random weights: what it says means nothing */
} tq_model_info;

TQ_API const tq_model_info *tq_model_get_info(const tq_model *model);

/* ---- text ------------------------------------------------------------------------------------------------------- */

/* Text to token ids, by the model's tokenizer.  With parse_control, the text of control tokens ("<|im_end|>") becomes
 * those tokens; without it, it is text like any other: use that for whatever a person typed.  TQ_INVALID on invalid
 * UTF-8, with the byte offset. */
TQ_API tq_status tq_tokenize(const tq_model *model, const char *text, size_t text_len, bool parse_control,
                             int32_t **ids, size_t *n_ids, tq_error *err);

/* The same for a text that is a whole prompt: with the tokens that the tokenizer puts around one, which for many models
 * is one at the beginning ("<|begin_of_text|>"), for others none.  If the text begins with those in front by itself,
 * which takes parse_control, it does not get them twice.  Conversations have them from their template. */
TQ_API tq_status tq_tokenize_prompt(const tq_model *model, const char *text, size_t text_len, bool parse_control,
                                    int32_t **ids, size_t *n_ids, tq_error *err);

/* The tokens put in front, *n of them: of the model, may be NULL if there are none. */
TQ_API const int32_t *tq_prompt_prefix(const tq_model *model, int *n);

/* Token ids to text; control tokens are left out unless with_control.  The result is NUL-terminated and may end in the
 * middle of a character if the ids do. */
TQ_API tq_status tq_detokenize(const tq_model *model, const int32_t *ids, size_t n_ids, bool with_control, char **text,
                               size_t *text_len, tq_error *err);

typedef struct tq_message {
    const char *role; /* "system", "user", "assistant" */
    const char *content;
} tq_message;

enum { TQ_CHAT_ADD_GENERATION_PROMPT = 1 };

/* A conversation to token ids, by the model's chat template.  Only the template's own text can become control tokens,
 * never a message's. */
TQ_API tq_status tq_chat_tokens(const tq_model *model, const tq_message *messages, size_t n_messages, unsigned flags,
                                int32_t **ids, size_t *n_ids, tq_error *err);

/* The same for a conversation as JSON (UTF-8), as the OpenAI chat API has it:
 *
 *     {"messages": [{"role": "user", "content": "Weather in Paris?"}, {"role": "assistant", "content": null,
 *        "reasoning_content": "...", "tool_calls": [{"id": "call00001", "type": "function", "function":
 *        {"name": "weather", "arguments": "{\"city\": \"Paris\"}"}}]}, {"role": "tool", "content": "21"}],
 *      "tools": [{"type": "function", "function": {"name": "weather", "parameters": {...}}}],
 *      "documents": [...], "chat_template_kwargs": {"enable_thinking": false}}
 *
 * All but messages may be missing or null.  Where tools are given, a template called "tool_use" is taken if the model
 * has one.  A message needs a role; all its members reach the template, and so do those of chat_template_kwargs, as
 * variables, which may not be named like the other variables or end in "_token".
 * What a template cannot read is put into the form that it can, which is found out with a short conversation: parts
 * of text become one text with line breaks between them; arguments become an object, or a text of JSON (arguments that
 * are no JSON object stay a text); content that is null or missing becomes "".  Anything else stays as it is.
 * TQ_FORMAT: not JSON.  TQ_INVALID: not of this shape, an unknown member, or refused by the template itself ("template
 * line 12: ...").  TQ_UNSUPPORTED: parts that are not text; tools that the template does not write into the prompt.
 * Only the template's own text can become control tokens, and roles of a fixed list ("user", "tool", ...). */
TQ_API tq_status tq_chat_tokens_json(const tq_model *model, const char *json, size_t json_len, unsigned flags,
                                     int32_t **ids, size_t *n_ids, tq_error *err);

/* ---- session ---------------------------------------------------------------------------------------------------- */

/* Called between chunks of a long evaluation with tokens done and in all; return false to stop (TQ_CANCELLED; what was
 * evaluated stays). */
typedef bool (*tq_progress_fn)(void *ctx, int done, int total);

typedef struct tq_session_params {
    int ctx; /* tokens the session can hold; 0: what the model was made for, or as many as there is room for (tq_plan.h) */
    tq_cache_config cache;
    int prefill_chunk;       /* tokens evaluated together, 1..1024 */
    tq_progress_fn progress; /* as tq_session_set_progress; may be NULL */
    void *progress_ctx;
} tq_session_params;

TQ_API tq_session_params tq_session_params_default(void);

/* TQ_NO_MEMORY, with both numbers, if the model and a full context do not fit (tq_model_params.memory_limit). */
TQ_API tq_status tq_session_new(tq_model *model, const tq_session_params *params, tq_session **out, tq_error *err);
TQ_API void tq_session_free(tq_session *session); /* NULL is fine */

TQ_API void tq_session_set_progress(tq_session *session, tq_progress_fn fn, void *ctx);

/* Append n tokens.  Afterwards tq_session_logits is for the token that follows the last one.  TQ_FULL if they do not
 * fit (both numbers named), TQ_INVALID for an id outside the vocabulary: nothing is changed. */
TQ_API tq_status tq_session_eval(tq_session *session, const int32_t *ids, int n, tq_error *err);

/* The same, with the logits of every token: fn(ctx, i, logits) for i = 0..n-1, in order; logits: (vocab). */
typedef void (*tq_logits_fn)(void *ctx, int i, const float *logits);
TQ_API tq_status tq_session_eval_all(tq_session *session, const int32_t *ids, int n, tq_logits_fn fn, void *ctx,
                                     tq_error *err);

TQ_API const float *tq_session_logits(const tq_session *session); /* (vocab); NULL before the first evaluation */
/* The place of the largest of n > 0 logits; the first of equals. */
TQ_API int32_t tq_likeliest(const float *logits, int n);
TQ_API int tq_session_length(const tq_session *session);
TQ_API int tq_session_ctx(const tq_session *session);
TQ_API const int32_t *tq_session_tokens(const tq_session *session); /* (length); until the session changes */

/* Keep the first `length` tokens (see tq_cache_rewind).  The logits are stale until the next evaluation.
 * A model with recurrent layers (qwen3_next, qwen3_5) goes back to 0 or to its checkpoint, which is the end of the newest
 * evaluation of more than one token; from there it evaluates the tokens up to `length` again.  Before the checkpoint:
 * TQ_INVALID, and nothing has changed. */
TQ_API tq_status tq_session_rewind(tq_session *session, int length, tq_error *err);

TQ_API void tq_session_get_cache_stats(const tq_session *session, tq_cache_stats *stats);
TQ_API const char *tq_session_kv(const tq_session *session); /* the codec in use */

/* Tokens, cache and recurrent state to a file (temporary file, fsync, rename) and back, bit for bit; the model and the codec must be the
 * same, and the context large enough: the text says what differs.  A load that fails leaves the session empty.  Logits
 * are not saved: evaluate at least one token after a load. */
TQ_API tq_status tq_session_save(const tq_session *session, const char *path, tq_error *err);
TQ_API tq_status tq_session_load(tq_session *session, const char *path, tq_error *err);

/* ---- generation ------------------------------------------------------------------------------------------------- */

/* Added to the logit of a token before anything else. */
typedef struct tq_logit_bias {
    int32_t id;
    float bias;
} tq_logit_bias;

typedef struct tq_sampling {
    float temp; /* 0: the most likely token */
    float top_p, min_p; /* 1 and 0: off */
    int top_k;          /* 0: off */
    float repeat_penalty; /* 1: off; over the last repeat_last_n tokens */
    int repeat_last_n;
    uint64_t seed;
    float presence_penalty, frequency_penalty; /* 0: off; subtracted from the logit of a token that the reply has, once and
                                                * for each time */
    const tq_logit_bias *biases; /* (n_biases); must last as long as the struct is used */
    int n_biases;
} tq_sampling;

TQ_API tq_sampling tq_sampling_default(void);                         /* greedy */
TQ_API tq_sampling tq_model_get_sampling(const tq_model *model);      /* from generation_config.json */

typedef enum tq_finish { TQ_FINISH_STOP, TQ_FINISH_LENGTH, TQ_FINISH_CANCELLED } tq_finish;

typedef struct tq_generate_params {
    int max_tokens;
    tq_sampling sampling;
    bool ignore_eos;
    /* Text as it is produced, whole UTF-8 characters only; return false to stop.  May be NULL. */
    bool (*on_text)(void *ctx, const char *text, size_t text_len);
    void *ctx;
} tq_generate_params;

TQ_API tq_generate_params tq_generate_params_default(void);

typedef struct tq_generate_result {
    int32_t *ids; /* (n_ids), without the end token; tq_free */
    int n_ids;
    char *text; /* NUL-terminated; tq_free */
    size_t text_len;
    tq_finish finish; /* LENGTH: max_tokens or the context reached */
    double decode_seconds;
} tq_generate_result;

/* Generate from the session's logits.  The end token is neither returned nor evaluated.  The other tokens are evaluated
 * as far as the next one needed them: the last one is not, unless an end token followed it.  A conversation goes on by
 * evaluating what comes after tq_session_tokens. */
TQ_API tq_status tq_generate(tq_session *session, const tq_generate_params *params, tq_generate_result *result,
                             tq_error *err);
TQ_API void tq_generate_result_free(tq_generate_result *result);

/* ---- conversion ------------------------------------------------------------------------------------------------- */

/* Write an MLX-format copy of the model directory `src` with affine quantization of `bits` (2, 3, 4, 5, 6, 8) in
 * groups of `group_size` (32, 64, 128).  `dst` must not exist; it appears complete or not at all. */
TQ_API tq_status tq_quantize_directory(const char *src, const char *dst, int bits, int group_size,
                                       void (*progress)(void *ctx, double fraction), void *ctx, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
