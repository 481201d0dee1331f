/* gguf_text.h: the tokenizer, chat template and control tokens that a GGUF file's metadata describes. */
#ifndef TQ_ENGINE_GGUF_TEXT_H
#define TQ_ENGINE_GGUF_TEXT_H

#include "file/gguf.h"
#include "text/tokenizer.h"

/* *out stays NULL where the file has no vocabulary.  A kind of tokenizer, or a pre-tokenizer, that is not read here is
 * TQ_UNSUPPORTED, by its name. */
tq_status tq_gguf_tokenizer(const tq_gguf *gguf, tq_tokenizer **out, tq_error *err);

#endif
