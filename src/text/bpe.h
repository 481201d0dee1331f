/* bpe.h: byte-pair encoding of one piece of text. */
#ifndef TQ_TEXT_BPE_H
#define TQ_TEXT_BPE_H

#include <stdbool.h>

#include "text/hash_tables.h"
#include "text/tokenizer.h"

struct tq_token;

typedef struct tq_bpe {
    tq_word_map vocab;  /* token text as the file writes it */
    tq_pair_map merges; /* (left id << 32 | right id) to (new id, rank) */
    bool byte_level;    /* symbols are bytes written as printable characters; otherwise characters */
    bool ignore_merges; /* a piece that is a token needs no merging */
    bool byte_fallback, fuse_unk;
    int32_t byte_ids[256];     /* byte_level: the id of each byte, or -1 */
    int32_t fallback_ids[256]; /* byte_fallback: the id of "<0xNN>", or -1 */
    int32_t unk_id;            /* -1: unknown symbols are dropped */
    bool *control;             /* (n_control), by id: no text becomes these tokens */
    size_t n_control;
    bool words_apart; /* no merge reaches over the beginning of a word (U+2581 after another character) */
} tq_bpe;

static inline bool tq_bpe_is_control(const tq_bpe *bpe, int32_t id) {
    return id >= 0 && (size_t)id < bpe->n_control && bpe->control[id];
}

/* Working memory of one caller. */
typedef struct tq_bpe_scratch {
    struct tq_bpe_symbol *symbols;
    struct tq_bpe_candidate *heap;
    size_t n_symbols, symbols_cap, n_heap, heap_cap;
    char *mapped;
    size_t mapped_cap;
} tq_bpe_scratch;

/* Set words_apart; tokens: by id.  After the last merge. */
void tq_bpe_find_words(tq_bpe *bpe, const struct tq_token *tokens);

/* The length of the first word of a piece if words are apart, else of all of it: words one by one give the same ids. */
size_t tq_bpe_word_length(const tq_bpe *bpe, const char *piece, size_t length);

/* Append the ids of a piece (valid UTF-8, shorter than 2^30 bytes).  Time O(n log n). */
tq_status tq_bpe_encode(const tq_bpe *bpe, tq_bpe_scratch *scratch, const char *piece, size_t length, tq_ids *out,
                        tq_error *err);
void tq_bpe_scratch_free(tq_bpe_scratch *scratch);

/* The character (as UTF-8, 1 or 2 bytes, NUL-terminated) that stands for a byte in a byte-level vocabulary. */
int tq_byte_level_char(uint8_t byte, char utf8[3]);
/* Turn byte-level characters back to bytes.  False if some character stands for no byte; dst then holds garbage.
 * dst: length bytes. */
bool tq_byte_level_decode(const char *text, size_t length, char *dst, size_t *n);

#endif
