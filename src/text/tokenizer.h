/* tokenizer.h: text to token ids and back, by a Hugging Face tokenizer.json.
 * Pipeline: added tokens split off, normalizer, pre-tokenizer, model, and a decoder for the way back.
 * Read-only once made; any number of threads may use one. */
#ifndef TQ_TEXT_TOKENIZER_H
#define TQ_TEXT_TOKENIZER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct tq_tokenizer tq_tokenizer;

/* Read tokenizer.json from memory.  Anything it asks for that is not supported is TQ_UNSUPPORTED, named: a tokenizer
 * that would split differently is never used.  label names the file in error texts.
 * "truncation" and "padding" are passed over: they are habits of whoever saved the file, not part of the model, and
 * nothing is ever cut or padded here. */
tq_status tq_tokenizer_new(const char *json, size_t json_len, const char *label, tq_tokenizer **out, tq_error *err);
/* The same from the parsed object, which is not kept. */
tq_status tq_tokenizer_from_json(const json_t *root, const char *label, tq_tokenizer **out, tq_error *err);
void tq_tokenizer_free(tq_tokenizer *tokenizer);

/* For a vocabulary whose merges follow from scores, as SentencePiece has it: two neighbours merge if their union is a
 * token, the highest score first.  scores, merges: (vocab_size); tokens with merges[id] false take no part.  To be
 * called once, before the tokenizer is used; NaN scores are the caller's to refuse. */
tq_status tq_tokenizer_merge_by_score(tq_tokenizer *tokenizer, const float *scores, const bool *merges, tq_error *err);

/* A growing list of ids; zero-initialised is empty; release with free(list.ids). */
typedef struct tq_ids {
    int32_t *ids;
    size_t n, cap;
} tq_ids;

/* Append the ids of text.  parse_control: the text of special added tokens becomes those tokens; otherwise only
 * non-special added tokens are matched.  No beginning- or end-of-text token is added.  TQ_INVALID on invalid UTF-8 with
 * the byte offset. */
tq_status tq_tokenizer_encode(const tq_tokenizer *tokenizer, const char *text, size_t text_len, bool parse_control,
                              tq_ids *out, tq_error *err);

/* The same with the tokens that the file's post_processor puts around a text.  If the text begins with those in front by
 * itself, which takes parse_control, it does not get them twice. */
tq_status tq_tokenizer_encode_prompt(const tq_tokenizer *tokenizer, const char *text, size_t text_len, bool parse_control,
                                     tq_ids *out, tq_error *err);

/* Those in front, *n of them, and those behind. */
const int32_t *tq_tokenizer_prefix(const tq_tokenizer *tokenizer, size_t *n);
const int32_t *tq_tokenizer_suffix(const tq_tokenizer *tokenizer, size_t *n);

/* Bytes of a text, in order and without overlap. */
typedef struct tq_control_range {
    size_t start, length;
} tq_control_range;

/* As above for a text of mixed origin, such as a rendered chat template: special added tokens are matched only where
 * all their bytes lie in one range.  Everything else is encoded as one text: the ids are those of the whole, as if a
 * control token spelt outside of the ranges were ordinary words. */
tq_status tq_tokenizer_encode_ranges(const tq_tokenizer *tokenizer, const char *text, size_t text_len,
                                     const tq_control_range *ranges, size_t n_ranges, tq_ids *out, tq_error *err);

/* The bytes of one token as they appear in running text; special tokens give their content if with_control, else
 * nothing.  Writes up to cap bytes and returns the full length; 0 for an id outside the vocabulary. */
size_t tq_tokenizer_piece(const tq_tokenizer *tokenizer, int32_t id, bool with_control, char *dst, size_t cap);

/* The id of a token by its exact content ("<|im_end|>"), or -1. */
int32_t tq_tokenizer_find(const tq_tokenizer *tokenizer, const char *content);

/* What it is, in a few words. */
const char *tq_tokenizer_kind(const tq_tokenizer *tokenizer);
size_t tq_tokenizer_merges(const tq_tokenizer *tokenizer); /* 0: none */
int tq_tokenizer_added(const tq_tokenizer *tokenizer);     /* how many added tokens */

int tq_tokenizer_vocab_size(const tq_tokenizer *tokenizer); /* largest id + 1 */
bool tq_tokenizer_is_special(const tq_tokenizer *tokenizer, int32_t id);

#endif
