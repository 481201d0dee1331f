/* tq_eval.h: does a model still answer as it should, and as it did with an exact cache?
 *
 * Every measurement runs the engine as it is used: chunked prefill, packed past, exact window.  Results are filled in
 * as measurements proceed; a callback may stop them (TQ_CANCELLED). */
#ifndef TQ_EVAL_H
#define TQ_EVAL_H

#include "tq.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- golden: logits and greedy tokens of another implementation ------------------------------------------------------
 *
 * A golden file is safetensors: input_ids, logits, greedy_ids (i32 (n), f32 (rows, vocab), i32 (m)), or for several
 * prompts input_ids_0, logits_0, greedy_ids_0, input_ids_1, ...  logits are those of the last `rows` input tokens.
 * Where ids are missing, golden.json beside the file has them: {"greedy": [{"prompt_ids": [...], "greedy_ids": [...]}]}.
 */
typedef struct tq_golden_result {
    int n_prompts;
    int greedy_equal;    /* prompts whose greedy tokens are all equal */
    double max_abs_diff; /* largest difference of any logit */
} tq_golden_result;

/* session_params: the cache to use; ctx is set for each prompt. */
TQ_API tq_status tq_eval_golden(tq_model *model, const char *golden_path, const tq_session_params *session_params,
                                tq_golden_result *result, tq_error *err);

/* ---- recall: facts scattered in long documents --------------------------------------------------------------------------
 *
 * A recall file is JSON: [{"length": n, "ids": [...], "answers": [[from, to], ...]}].  An answer counts when each of its
 * tokens is the argmax given all tokens before it.  Everything before the first answer is evaluated in prefill chunks;
 * from `window` tokens before the first answer on, token by token in chunks, so that old tokens are packed. */
typedef struct tq_recall_data tq_recall_data;

TQ_API tq_status tq_recall_open(const char *path, tq_recall_data **out, tq_error *err);
TQ_API void tq_recall_free(tq_recall_data *data);
TQ_API int tq_recall_documents(const tq_recall_data *data);
TQ_API int tq_recall_length(const tq_recall_data *data, int document);  /* tokens */
TQ_API int tq_recall_answers(const tq_recall_data *data, int document); /* how many */

typedef struct tq_recall_result {
    int right, total;
    double bits_per_value;  /* of a packed page */
    double packed_fraction; /* of the tokens held when the last answer of the document was produced */
    double seconds;
} tq_recall_result;

/* One document with one cache. */
TQ_API tq_status tq_eval_recall(tq_model *model, const tq_recall_data *data, int document,
                                const tq_session_params *session_params, tq_recall_result *result, tq_error *err);

/* ---- divergence: how far a compressed cache moves the model's predictions ------------------------------------------------
 *
 * On the same documents: the distribution of the next token at every position from just before the first answer to the
 * last answer, against a reference run (f16, say) of the same document.  KL(reference || other) in nats. */
typedef struct tq_reference tq_reference;

TQ_API tq_status tq_reference_new(tq_model *model, const tq_recall_data *data, int document,
                                  const tq_session_params *session_params, tq_reference **out, tq_error *err);
TQ_API void tq_reference_free(tq_reference *reference);

/* Positions compared in a document. */
TQ_API int tq_recall_positions(const tq_recall_data *data, int document);

typedef struct tq_divergence_result {
    tq_recall_result recall; /* measured in the same run */
    double nll;              /* mean negative log-likelihood of the document's tokens at these positions */
    double reference_nll;
    int same_top; /* positions whose most likely token is the reference's */
} tq_divergence_result;

/* kld: (tq_recall_positions) divergences, in order. */
TQ_API tq_status tq_eval_divergence(tq_model *model, const tq_recall_data *data, int document,
                                    const tq_session_params *session_params, const tq_reference *reference, float *kld,
                                    tq_divergence_result *result, tq_error *err);

/* ---- text: perplexity and greedy agreement --------------------------------------------------------------------------------*/

typedef struct tq_perplexity_result {
    double nll; /* sum of negative log-likelihoods, nats, of tokens 1..n-1 */
    int tokens; /* n - 1 */
    double bits_per_value, packed_fraction;
} tq_perplexity_result;

/* One window of text, ids (n), evaluated `chunk` tokens at a time: what a token sees exactly is the window of the cache
 * and fewer than chunk tokens, everything older is packed, as in decoding. */
TQ_API tq_status tq_eval_perplexity(tq_model *model, const int32_t *ids, int n, int chunk,
                                    const tq_session_params *session_params, tq_perplexity_result *result,
                                    tq_error *err);

/* Greedy continuation of ids (n): max_tokens tokens into out; end tokens do not stop it. */
TQ_API tq_status tq_eval_greedy(tq_model *model, const int32_t *ids, int n, int max_tokens,
                                const tq_session_params *session_params, int32_t *out, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
