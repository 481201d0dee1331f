/* pretokenize.h: cutting normalised text into the pieces that the model encodes one by one. */
#ifndef TQ_TEXT_PRETOKENIZE_H
#define TQ_TEXT_PRETOKENIZE_H

#include "text/regex.h"
#include "text/text_buf.h"

/* What becomes of the matches of a split. */
typedef enum tq_split_behavior {
    TQ_SPLIT_REMOVED,
    TQ_SPLIT_ISOLATED,
    TQ_SPLIT_MERGED_WITH_PREVIOUS,
    TQ_SPLIT_MERGED_WITH_NEXT,
    TQ_SPLIT_CONTIGUOUS
} tq_split_behavior;

typedef enum tq_prefix_scheme { TQ_PREFIX_NEVER, TQ_PREFIX_FIRST, TQ_PREFIX_ALWAYS } tq_prefix_scheme;

/* One step: either a split, or (regex NULL) a rewriting of every piece: each space becomes `replacement`, and
 * `replacement` is put before pieces that do not begin with it. */
typedef struct tq_pre_step {
    tq_regex *regex;
    tq_split_behavior behavior;
    bool invert;
    char *replacement; /* owned */
    size_t replacement_len;
    tq_prefix_scheme prefix; /* FIRST: only the piece at the start of the whole text */
} tq_pre_step;

typedef struct tq_pre_steps {
    tq_pre_step *steps;
    size_t n, cap;
} tq_pre_steps;

void tq_pre_steps_free(tq_pre_steps *steps);

typedef struct tq_piece {
    size_t start, length;
} tq_piece;

/* A text and its pieces, in order.  Zero-initialised is empty; reused from text to text. */
typedef struct tq_pieces {
    tq_text_buf text, next_text;
    tq_piece *pieces, *next, *matches;
    size_t n, n_next, n_matches, cap, next_cap, matches_cap;
    bool *is_match;
    size_t is_match_cap;
} tq_pieces;

/* Cut text (valid UTF-8, not empty).  at_start: it is the beginning of the whole input. */
tq_status tq_pretokenize(const tq_pre_steps *steps, tq_regex_scratch *scratch, const char *text, size_t length,
                         bool at_start, tq_pieces *pieces, tq_error *err);
void tq_pieces_free(tq_pieces *pieces);

#endif
