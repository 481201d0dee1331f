/* added_tokens.h: finding the added tokens in a text, longest first, leftmost first. */
#ifndef TQ_TEXT_ADDED_TOKENS_H
#define TQ_TEXT_ADDED_TOKENS_H

#include <stdbool.h>

#include "text/hash_tables.h"
#include "text/regex.h"

typedef struct tq_added_token {
    int32_t id;
    bool special, single_word, lstrip, rstrip;
} tq_added_token;

/* A set of tokens as a tree over bytes. */
typedef struct tq_added_tokens {
    tq_added_token *tokens;
    size_t n, cap;
    tq_pair_map children; /* (node << 8 | byte) to node */
    int32_t *ends;        /* (n_nodes): index of the token that ends at a node, or -1 */
    size_t n_nodes, ends_cap;
    bool begins[256]; /* bytes that some token begins with */
    tq_regex *word;   /* one \w character; NULL until a token needs it */
} tq_added_tokens;

/* content is not kept.  Of two tokens with the same content the first stays. */
tq_status tq_added_tokens_put(tq_added_tokens *added, const tq_added_token *token, const char *content, size_t length,
                              tq_error *err);
void tq_added_tokens_free(tq_added_tokens *added);

/* A walk through a text: set text, length, with_special, scratch; the rest zero. */
typedef struct tq_added_walk {
    const char *text;
    size_t length;
    bool with_special;                     /* false: a special token is passed over where it stands */
    const struct tq_control_range *ranges; /* (n_ranges) or NULL: special tokens count only within one of them */
    size_t n_ranges, range;
    tq_regex_scratch *scratch;
    size_t search, done;
} tq_added_walk;

/* The next stretch of plain text (start, end; may be empty) and the id of the token after it, or -1 at the end of the
 * text. */
tq_status tq_added_walk_next(const tq_added_tokens *added, tq_added_walk *walk, size_t *start, size_t *end, int32_t *id,
                             tq_error *err);

#endif
