/* normalize.h: the normalizer of a tokenizer. */
#ifndef TQ_TEXT_NORMALIZE_H
#define TQ_TEXT_NORMALIZE_H

#include <stdbool.h>

#include "text/charsmap.h"
#include "text/regex.h"

typedef enum tq_norm_kind {
    TQ_NORM_NFC,
    TQ_NORM_NFD,
    TQ_NORM_NFKC,
    TQ_NORM_NFKD,
    TQ_NORM_PREPEND,
    TQ_NORM_REPLACE,
    TQ_NORM_LOWERCASE,
    TQ_NORM_STRIP,         /* white space at the ends */
    TQ_NORM_STRIP_ACCENTS, /* combining marks, wherever they are */
    TQ_NORM_CHARSMAP
} tq_norm_kind;

typedef struct tq_norm_step {
    tq_norm_kind kind;
    char *from, *to; /* owned.  PREPEND: to.  REPLACE: every from (not empty), or match of regex, becomes to. */
    size_t from_len, to_len;
    tq_regex *regex;   /* owned; REPLACE: NULL for plain text */
    tq_charsmap *map;  /* owned; CHARSMAP */
    bool left, right;  /* STRIP: which ends */
} tq_norm_step;

typedef struct tq_norm_steps {
    tq_norm_step *steps;
    size_t n, cap;
} tq_norm_steps;

void tq_norm_steps_free(tq_norm_steps *steps);

/* Put the normal form of text (valid UTF-8) in place of what out held.  out may not hold text itself.
 * TQ_INVALID if it becomes many times as long. */
tq_status tq_normalize(const tq_norm_steps *steps, const char *text, size_t length, tq_text_buf *out, tq_error *err);

#endif
