/* unigram.h: the most likely way to cut a piece of text into tokens that have scores (a Unigram model). */
#ifndef TQ_TEXT_UNIGRAM_H
#define TQ_TEXT_UNIGRAM_H

#include <stdbool.h>

#include "text/hash_tables.h"
#include "text/tokenizer.h"

typedef struct tq_unigram {
    tq_pair_map children; /* a tree over bytes: (node << 8 | byte) to node */
    int32_t *ends;        /* (n_nodes): the id of the token that ends at a node, or -1 */
    double *scores;       /* (n_nodes): and its score */
    size_t n_nodes, ends_cap, scores_cap;
    double unk_score; /* of a character that is no token */
    int32_t unk_id;   /* -1: such a character is an error */
    bool byte_fallback;
    int32_t fallback_ids[256]; /* byte_fallback: the id of "<0xNN>", or -1 */
} tq_unigram;

/* Working memory of one caller. */
typedef struct tq_unigram_scratch {
    struct tq_unigram_node *best; /* (length + 1) */
    int32_t *cuts;                /* where the chosen tokens begin, last first */
    size_t best_cap, cuts_cap;
} tq_unigram_scratch;

/* name (not empty) is not kept. */
tq_status tq_unigram_put(tq_unigram *unigram, const char *name, size_t length, int32_t id, double score, tq_error *err);
void tq_unigram_free(tq_unigram *unigram);

/* Append the ids of a piece (valid UTF-8, shorter than 2^30 bytes).  Sums of scores are doubles, from left to right;
 * of equal ones the first found stays.  Neighbouring unknown characters become one unknown token, or all their bytes.
 * Time O(length * longest token).  TQ_INVALID for an unknown character if there is no unknown token. */
tq_status tq_unigram_encode(const tq_unigram *unigram, tq_unigram_scratch *scratch, const char *piece, size_t length,
                            tq_ids *out, tq_error *err);
void tq_unigram_scratch_free(tq_unigram_scratch *scratch);

#endif
