/* gguf_model.h: the one or several GGUF files of a model, mapped.
 * Owns: the mappings, the parsed heads, the tensors' names in Hugging Face's terms.  Not here: what metadata means for
 * the model (model/config_gguf.c) and for text (engine/model_open_gguf.c). */
#ifndef TQ_FILE_GGUF_MODEL_H
#define TQ_FILE_GGUF_MODEL_H

#include "base/file_map.h"
#include "file/gguf.h"

typedef struct tq_gguf_part {
    char *path; /* label of gguf */
    tq_file_map map;
    tq_gguf gguf;
    tq_tensor *tensors; /* (gguf.n_tensors): as in gguf, renamed */
    char *names;
} tq_gguf_part;

typedef struct tq_gguf_model {
    tq_gguf_part *parts; /* the first has the metadata */
    int n_parts;
    char *architecture; /* "general.architecture" */
} tq_gguf_model;

/* Open FILE.gguf, or FILE-00001-of-0000N.gguf and its N - 1 siblings.  A later part of a split is TQ_INVALID: the text
 * names the first. */
tq_status tq_gguf_model_open(const char *path, tq_gguf_model **out, tq_error *err);
void tq_gguf_model_close(tq_gguf_model *model);

/* The metadata. */
const tq_gguf *tq_gguf_model_head(const tq_gguf_model *model);

/* The tensor of that Hugging Face name, or NULL. */
const tq_tensor *tq_gguf_model_find(const tq_gguf_model *model, const char *name);

#endif
