/* charsmap.h: SentencePiece's table of characters and what they become, as a file has it: compiled into a tree. */
#ifndef TQ_TEXT_CHARSMAP_H
#define TQ_TEXT_CHARSMAP_H

#include <stdint.h>

#include "text/text_buf.h"

typedef struct tq_charsmap {
    uint32_t *units; /* (n_units): the tree, a double array */
    size_t n_units;
    char *texts; /* (n_texts): the replacements, each with a NUL behind it */
    size_t n_texts;
} tq_charsmap;

/* From the bytes in base 64, as tokenizer.json has them. */
tq_status tq_charsmap_new(const char *base64, size_t length, tq_charsmap **out, tq_error *err);
void tq_charsmap_free(tq_charsmap *map); /* NULL is fine */

/* Append the replaced text.  Clusters of less than 6 bytes are looked up whole first, then characters; what is found is
 * the shortest entry that the cluster begins with, and stands for all of it: both are habits of the reference, and the
 * models were trained with them. */
tq_status tq_charsmap_apply(const tq_charsmap *map, const char *text, size_t length, tq_text_buf *out, tq_error *err);

#endif
