/* tokenizer_parts.h: what a tokenizer consists of; shared by the files that make it and the one that runs it. */
#ifndef TQ_TEXT_TOKENIZER_PARTS_H
#define TQ_TEXT_TOKENIZER_PARTS_H

#include <jansson.h>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalize.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"
#include "text/unigram.h"

#define TQ_MAX_TOKEN_ID 10000000
/* Bytes of a token that is looked for at every place of a text: what a hostile file can make that cost. */
#define TQ_MAX_SOUGHT_TOKEN 1024

typedef struct tq_token {
    const char *name; /* as the file writes it, in tq_tokenizer.names; NULL: no token has this id */
    uint32_t name_len, piece_len;
    size_t piece; /* offset in tq_tokenizer.pieces of its bytes in running text */
    bool special, added;
} tq_token;

/* Ids that a post_processor puts around a text. */
enum { TQ_MAX_AROUND = 8 };
typedef struct tq_around {
    int32_t before[TQ_MAX_AROUND], after[TQ_MAX_AROUND];
    size_t n_before, n_after;
} tq_around;

struct tq_tokenizer {
    tq_token *tokens; /* (n_tokens), by id */
    size_t n_tokens;
    tq_text_buf names, pieces;
    tq_norm_steps normalizer;
    tq_pre_steps pre;
    tq_bpe bpe;         /* its vocabulary is that of any model */
    tq_unigram unigram; /* used if is_unigram */
    bool is_unigram;
    bool by_score;      /* merges follow from scores */
    tq_added_tokens added, added_normalized; /* looked for before and after normalising */
    tq_around around;
    /* decoder */
    bool decode_byte_level, decode_byte_fallback;
    tq_norm_steps decode_replace;
};

/* Fill the parts from members of tokenizer.json; null members allowed.  Texts do not name the file. */
tq_status tq_read_normalizer(const json_t *json, tq_norm_steps *steps, tq_error *err);
/* *byte_level is set if the last step writes bytes as characters. */
tq_status tq_read_pre_tokenizer(const json_t *json, tq_pre_steps *steps, bool *byte_level, tq_error *err);
tq_status tq_read_decoder(const json_t *json, tq_tokenizer *tokenizer, tq_error *err);
/* vocab, merges, added tokens; after normalizer and pre-tokenizer. */
tq_status tq_read_model(const json_t *model, const json_t *added_tokens, tq_tokenizer *tokenizer, tq_error *err);
/* After the model: its ids are those of tokens. */
tq_status tq_read_post_processor(const json_t *json, tq_tokenizer *tokenizer, tq_error *err);

/* Members of an object, with a text if their type is wrong.  part names the object. */
tq_status tq_member_bool(const json_t *object, const char *part, const char *name, bool fallback, bool *out,
                         tq_error *err);
/* NULL if absent or null and not required. */
tq_status tq_member_string(const json_t *object, const char *part, const char *name, bool required, const json_t **out,
                           tq_error *err);
/* The type of a component; never NULL. */
tq_status tq_member_type(const json_t *json, const char *part, const char **type, tq_error *err);
/* The members of a Sequence; depth: of Sequences around it. */
tq_status tq_member_sequence(const json_t *json, const char *part, const char *member, int depth, const json_t **list,
                             tq_error *err);
/* "PART TYPE is not supported" */
tq_status tq_refuse_part(const char *part, const char *type, tq_error *err);

#endif
