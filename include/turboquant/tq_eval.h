/* tq_eval.h: does a model still answer as it should, and as it did with an exact cache?
 *
 *     tq_recall_data *d;  tq_reference *exact;                     // a text, in windows whose ends are compared
 *     prefix = tq_prompt_prefix(m, &n_prefix);
 *     tq_recall_from_text(prefix, n_prefix, ids, n, 2048, 8, 256, &d, &err);
 *     for each document:  tq_session_params sp = tq_session_params_default();
 *         sp.cache.kv = "f16";  tq_reference_new(m, d, document, &sp, &exact, &err);
 *         for each codec:   sp.cache.kv = codec;  tq_eval_divergence(m, d, document, &sp, exact, kld, &result, &err);
 *
 * Every measurement runs the engine as it is used: chunked prefill, packed past, exact window.  It makes a session of
 * its own with the given parameters, whose ctx it replaces; their progress callback hears of tokens done and in all,
 * and may stop it (TQ_CANCELLED).  bits_per_value counts everything that a packed page stores, as allocated.
 *
 * Measure a codec that forgets ("window:128") beside those that compress: a measurement that does not tell it from the
 * others has not looked at the packed tokens. */
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

/* ---- documents ----------------------------------------------------------------------------------------------------------
 *
 * A recall file is JSON: [{"length": n, "ids": [...], "answers": [[from, to], ...]}]: facts scattered in long documents
 * and asked for at their end.  An answer counts when each of its tokens is the argmax given all tokens before it.
 * Everything before the first answer is evaluated in prefill chunks, the rest 16 tokens at a time: what a prediction
 * sees exactly is the window and fewer tokens than that, as in decoding.  Predictions are compared from just before the
 * first answer to the last answer. */
typedef struct tq_recall_data tq_recall_data;

TQ_API tq_status tq_recall_open(const char *path, tq_recall_data **out, tq_error *err);

/* Documents without answers: n_windows windows of `window` tokens, spread evenly over a text (they may overlap), of
 * each of which the predictions of the last `positions` tokens are compared.  Each begins with prefix (n_prefix, may be
 * 0), which counts as tokens of the window. */
TQ_API tq_status tq_recall_from_text(const int32_t *prefix, int n_prefix, const int32_t *ids, int n_ids, int window,
                                     int n_windows, int positions, tq_recall_data **out, tq_error *err);
TQ_API void tq_recall_free(tq_recall_data *data); /* NULL is fine */
TQ_API int tq_recall_documents(const tq_recall_data *data);
TQ_API int tq_recall_length(const tq_recall_data *data, int document);  /* tokens */
TQ_API int tq_recall_answers(const tq_recall_data *data, int document); /* how many */
TQ_API const int32_t *tq_recall_ids(const tq_recall_data *data, int document);

/* Predictions compared, and the first of them: what token first_position should be followed by. */
TQ_API int tq_recall_positions(const tq_recall_data *data, int document);
TQ_API int tq_recall_first_position(const tq_recall_data *data, int document);

/* ---- recall: are the answers right? ---------------------------------------------------------------------------------------*/

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
 * The distribution of the next token at every compared position, against a reference run (f16, say) of the same
 * document, which is made once for all codecs and keeps (positions, vocab) floats.  KL(reference || other) in nats. */
typedef struct tq_reference tq_reference;

TQ_API tq_status tq_reference_new(tq_model *model, const tq_recall_data *data, int document,
                                  const tq_session_params *session_params, tq_reference **out, tq_error *err);
TQ_API void tq_reference_free(tq_reference *reference); /* NULL is fine */
TQ_API const tq_recall_result *tq_reference_recall(const tq_reference *reference); /* measured in the same run */

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

typedef struct tq_greedy_result {
    double bits_per_value, packed_fraction;
} tq_greedy_result;

/* Greedy continuation of ids (n): max_tokens tokens into out; end tokens do not stop it.  result may be NULL. */
TQ_API tq_status tq_eval_greedy(tq_model *model, const int32_t *ids, int n, int max_tokens,
                                const tq_session_params *session_params, int32_t *out, tq_greedy_result *result,
                                tq_error *err);

/* ---- needles in a haystack -----------------------------------------------------------------------------------------------
 *
 * A document is a piece of any text with sentences hidden in it at even depths: "The secret number of Hugo Marsh is
 * 40517."  The numbers are asked for at its end, one by one: in a conversation by the model's chat template, or for
 * models without one, as the beginning of the sentence.  A needle is found when the greedy answer holds its number. */
typedef struct tq_needles tq_needles;

typedef struct tq_needles_params {
    int length;    /* tokens of the document with question and template; the result may differ by a few */
    int n_needles; /* 1..64; at depth 0, 1/(n-1), .. 1; a single one in the middle */
    bool anywhere; /* depth 1 is the end of the text.  Otherwise it is the last place that is packed when the question
                      comes, and depth 0 the first behind the sinks */
    bool raw;      /* no conversation, even if the model has a template */
    uint64_t seed; /* of names and numbers; not 0: of the place in the text, too */
    tq_cache_config cache; /* of the caches to be measured: only its sizes matter here */
} tq_needles_params;

TQ_API tq_needles_params tq_needles_params_default(void);

/* TQ_INVALID if the text is shorter than the document, or nothing of the document would be packed. */
TQ_API tq_status tq_needles_new(const tq_model *model, const char *text, size_t text_len, const tq_needles_params *params,
                                tq_needles **out, tq_error *err);
TQ_API void tq_needles_free(tq_needles *needles); /* NULL is fine */
TQ_API int tq_needles_count(const tq_needles *needles);
TQ_API double tq_needles_depth(const tq_needles *needles, int needle); /* 0..1 */
TQ_API int tq_needles_tokens(const tq_needles *needles); /* evaluated by one measurement, at most */

typedef struct tq_needles_result {
    int right, total;
    int packed; /* needles of which every token was packed (or forgotten) when its question came */
    double bits_per_value, packed_fraction, seconds;
} tq_needles_result;

/* found: (tq_needles_count).  A document is evaluated once and rewound after each answer. */
TQ_API tq_status tq_eval_needles(tq_model *model, const tq_needles *needles, const tq_session_params *session_params,
                                 bool *found, tq_needles_result *result, tq_error *err);

/* ---- distortion ------------------------------------------------------------------------------------------------------------
 *
 * How far vectors are from what they were after packing: sum |x - decoded|^2 / sum |x|^2. */
typedef struct tq_codec_distortion {
    char codec[32];
    double measured;
    double expected; /* by theory, for random directions; negative: none is known */
    double bits_per_value; /* of a single row */
} tq_codec_distortion;

/* The codecs of keys (out[0]) and of values (out[1]) of a cache, on n random unit vectors. */
TQ_API tq_status tq_eval_codecs(const tq_cache_config *config, int dim, int n, uint64_t seed, tq_codec_distortion out[2],
                                tq_error *err);

/* A model's keys (after rotary encoding) and values for a text of n tokens, exact. */
typedef struct tq_kv_rows tq_kv_rows;

TQ_API tq_status tq_kv_rows_new(tq_model *model, const int32_t *ids, int n, tq_kv_rows **out, tq_error *err);
TQ_API void tq_kv_rows_free(tq_kv_rows *rows); /* NULL is fine */
TQ_API const float *tq_kv_rows_get(const tq_kv_rows *rows, int layer, int kv_head, bool values); /* (n, head_dim) */

#define TQ_OUTLIER_RATIO 16 /* an outlier channel has so many times the energy of the median channel */

typedef struct tq_kv_stats {
    double norm;          /* root of the mean square of |x| */
    double centre_energy; /* share of the energy in the mean of each TQ_PAGE_TOKENS rows */
    double outlier_share; /* share of the energy in outlier channels */
    int outlier_channels;
} tq_kv_stats;

TQ_API tq_kv_stats tq_kv_rows_stats(const tq_kv_rows *rows, int layer, int kv_head, bool values);

typedef struct tq_distortion {
    bool centred;           /* pages of these keys have centres (tq_key_centre); false for values */
    int rows;               /* packed, and compared */
    double error;           /* sum |x - decoded|^2 / sum |x|^2 */
    double error_of_spread; /* the same, over the energy about the mean of each page: what theory says of a codec that
                               takes the mean away */
} tq_distortion;

/* The rows through a cache of the model's shape, which packs them as in use.
 * results: (n_layers, n_kv_heads, 2): keys, values. */
TQ_API tq_status tq_eval_distortion(tq_model *model, const tq_kv_rows *rows, const tq_cache_config *config,
                                    tq_distortion *results, double *bits_per_value, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
