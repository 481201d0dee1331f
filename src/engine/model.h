/* model.h: inside of a tq_model: a transformer with its tokenizer, template and defaults. */
#ifndef TQ_ENGINE_MODEL_H
#define TQ_ENGINE_MODEL_H

#include <pthread.h>
#include <turboquant/tq.h>

#include "model/transformer.h"
#include "text/chat_template_set.h"
#include "text/tokenizer.h"

enum { TQ_MAX_EOS = 16 };

struct tq_model {
    tq_model_info info;
    char *path;
    json_t *config_json;
    tq_gguf_model *gguf; /* NULL: the model is a directory */
    tq_weights *weights;
    tq_config config;
    tq_transformer *transformer;
    tq_backend *backend;
    pthread_mutex_t turn; /* held by the session that is evaluating */
    tq_tokenizer *tokenizer;           /* NULL if there is none */
    tq_chat_template_set templates;
    char *bos_token, *eos_token;       /* texts for the template; may be NULL */
    int32_t eos[TQ_MAX_EOS];
    int n_eos;
    tq_sampling sampling;
    bool synthetic; /* random weights (synthetic.h) */
    bool synthetic_repeats;  /* a part of them, over and over */
    int64_t synthetic_bytes; /* memory that they take */
    int64_t memory_limit;    /* of tq_model_params */
};

/* The chat templates that a directory has, into an empty set; tokenizer_config: the object of that file, or NULL. */
tq_status tq_directory_templates(const char *directory, const json_t *tokenizer_config, tq_chat_template_set *set,
                                 tq_error *err);

/* For a path to a GGUF file: what a directory's files say of a model, into an empty m with its path. */
tq_status tq_model_read_gguf(tq_model *m, tq_error *err);

/* TQ_UNSUPPORTED if the model has no tokenizer. */
tq_status tq_model_want_tokenizer(const tq_model *model, tq_error *err);

bool tq_model_is_eos(const tq_model *model, int32_t id);

#endif
