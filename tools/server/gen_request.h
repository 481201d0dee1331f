/* gen_request.h: what a completion or chat completion asks for, read from its JSON. */
#ifndef TQ_SERVER_GEN_REQUEST_H
#define TQ_SERVER_GEN_REQUEST_H

#include <jansson.h>
#include <stdbool.h>

#include "api_error.h"
#include "turboquant/tq_scheduler.h"

enum { GEN_PROMPTS_CAP = 64, GEN_BIASES_CAP = 1024 };

typedef enum gen_kind { GEN_CHAT, GEN_TEXT } gen_kind;
typedef enum gen_reasoning { GEN_REASONING_SPLIT, GEN_REASONING_KEEP } gen_reasoning;

/* Strings belong to `root`. */
typedef struct gen_request {
    gen_kind kind;
    json_t *root;
    const char *model; /* NULL: not said */
    const json_t *messages; /* of a chat: checked by gen_request_parse */
    const json_t *template_kwargs;
    const char *reasoning_effort;
    const json_t *prompt; /* of a text completion */
    gen_reasoning reasoning;
    int n; /* choices a prompt */
    int max_tokens; /* 0: not said */
    tq_sampling sampling;
    tq_logit_bias *biases;
    const char *kv;
    int n_logprobs; /* -1: none */
    const char *stops[TQ_MAX_STOPS];
    int n_stops;
    bool ignore_eos, use_cache;
    bool stream, include_usage, return_progress, timings_per_token;
    bool seed_given;
} gen_request;

/* Limits and defaults that come from the server. */
typedef struct gen_limits {
    tq_sampling sampling;
    int vocab, max_choices, max_tokens;
    size_t max_values; /* of the JSON */
} gen_limits;

/* Read a body.  False with *error filled; gen_request_free either way. */
bool gen_request_parse(gen_kind kind, const char *body, size_t n, const gen_limits *limits, gen_request *out, api_error *error);
void gen_request_free(gen_request *r);

#endif
