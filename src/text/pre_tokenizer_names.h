/* pre_tokenizer_names.h: pre-tokenizers that go by a name, as GGUF's "tokenizer.ggml.pre" gives it. */
#ifndef TQ_TEXT_PRE_TOKENIZER_NAMES_H
#define TQ_TEXT_PRE_TOKENIZER_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* What the tokenizer.json of the models with that name says. */
typedef struct tq_pre_tokenizer {
    const char *names;       /* separated by spaces */
    const char *normalizer;  /* "NFC", or NULL */
    const char *patterns[7]; /* splits, each match on its own, one after the other; NULL ends them */
    bool gpt2_pattern;       /* and then ByteLevel's own split */
    bool ignore_merges;
    bool add_bos; /* unless the file says otherwise */
} tq_pre_tokenizer;

/* NULL: the name is unknown. */
const tq_pre_tokenizer *tq_pre_tokenizer_by_name(const char *name, size_t length);

#endif
