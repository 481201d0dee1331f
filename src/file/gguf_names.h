/* gguf_names.h: GGUF's tensor names in Hugging Face's, which the model layer asks for, and what an architecture's
 * converter changed about the tensor. */
#ifndef TQ_FILE_GGUF_NAMES_H
#define TQ_FILE_GGUF_NAMES_H

#include <stdbool.h>
#include <stddef.h>

typedef enum tq_gguf_change {
    TQ_GGUF_SAME,
    TQ_GGUF_PAIRED_QUERY, /* rows of each head stand as rotary pairs */
    TQ_GGUF_PAIRED_KEY,
    TQ_GGUF_PAIRED_FUSED, /* the same of queries and keys, and below them values, whose rows do not */
    TQ_GGUF_BARE, /* the other name does not end in ".weight" */
} tq_gguf_change;

/* "blk.3.attn_q.weight" of "llama" -> "model.layers.3.self_attn.q_proj.weight".  False where there is no such name, or
 * cap bytes do not hold it: such a tensor keeps GGUF's. */
bool tq_gguf_rename(const char *architecture, const char *name, char *out, size_t cap, tq_gguf_change *change);

#endif
