/* openai_reply.h: completions as JSON: whole ones, and chunks of a stream.
 *
 * A gen_reply gathers what comes of every choice.  gen_reply_take takes a piece in; what a client may see by then is in the
 * choice's fresh text, which either stays (the whole answer is written at the end) or is written as chunks and cleared. */
#ifndef TQ_SERVER_OPENAI_REPLY_H
#define TQ_SERVER_OPENAI_REPLY_H

#include "answers.h"
#include "gen_request.h"
#include "reasoning_split.h"

typedef struct reply_text {
    char *data;
    size_t n, cap;
} reply_text;

typedef struct reply_logprob {
    char *token; /* its bytes */
    size_t token_n;
    size_t start; /* where its text begins in the reply */
    float logprob;
    tq_token_logprob *top; /* (n_top) */
    int n_top;
} reply_logprob;

typedef struct reply_choice {
    reasoning_split split;
    reply_text content, reasoning; /* not yet written */
    reply_logprob *logprobs;       /* (n_logprobs): not yet written */
    int n_logprobs, logprobs_cap;
    size_t produced, released; /* bytes of tokens; bytes of text that has come */
    int reasoning_tokens;
    bool done, written; /* its finish_reason has gone out */
    tq_request_finish finish;
    int stop;
    tq_usage usage;
} reply_choice;

typedef struct gen_reply {
    const tq_model *model;
    gen_kind kind;
    bool split_reasoning, with_logprobs, include_usage, failed_memory;
    char id[48];
    const char *model_name; /* as the request has it */
    long long created;
    int sinks; /* first rows that stay exact, for the picture of the cache */
    char kv[64];
    int n_choices, n_per_prompt;
    reply_choice *choices;
} gen_reply;

bool gen_reply_init(gen_reply *r, const gen_request *request, int n_choices);
void gen_reply_free(gen_reply *r);

/* A TOKEN or DONE event of a choice. */
void gen_reply_take(gen_reply *r, int choice, const tq_event *event);
bool gen_reply_done(const gen_reply *r);
tq_usage gen_reply_usage(const gen_reply *r); /* of all choices: the prompts once each */

void gen_reply_write(gen_reply *r, jout *j); /* the whole answer */

/* Chunks, one JSON object a call; true if there was something to write. */
void gen_reply_write_role(gen_reply *r, int choice, jout *j);
bool gen_reply_write_reasoning(gen_reply *r, int choice, jout *j);
bool gen_reply_write_content(gen_reply *r, int choice, jout *j); /* text and log probabilities */
bool gen_reply_write_finish(gen_reply *r, int choice, jout *j);
void gen_reply_write_usage(gen_reply *r, jout *j);
void gen_reply_write_progress(gen_reply *r, const tq_event *event, jout *j);
void gen_reply_write_cache(gen_reply *r, const tq_request_cache *cache, jout *j); /* what a choice holds by now */

#endif
