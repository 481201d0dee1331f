/* model_stores.h: models that other programs have downloaded: Ollama's and llama.cpp's own stores, read and never written. */
#ifndef TQ_MODEL_STORES_H
#define TQ_MODEL_STORES_H

#include <stdbool.h>
#include <stddef.h>

#include "turboquant/tq_status.h"

/* "llama3.2", "llama3.2:3b", "user/model:tag", "hf.co/org/name:tag": the GGUF file of that name into path
 * (HUB_DISK_PATH_CAP of hub_cache.h).  Looked for in $OLLAMA_MODELS, or else in ~/.ollama/models and then where a system
 * service keeps its own, /usr/share/ollama/.ollama/models.  TQ_NOT_FOUND, or what is wrong with what is there. */
tq_status model_store_ollama(const char *name, char *path, tq_error *err);

/* "ORG/NAME", "ORG/NAME:TAG", or a file's own name: the GGUF file in $LLAMA_CACHE, or else in llama.cpp under
 * $XDG_CACHE_HOME or ~/.cache; there ORG/NAME's file FILE is called ORG_NAME_FILE. */
tq_status model_store_llama_cpp(const char *name, char *path, tq_error *err);

/* An Ollama manifest: the digest (64 hexadecimal digits) of its one GGUF layer. */
tq_status model_store_manifest(const char *json, size_t n, char digest[65], tq_error *err);

#endif
