/* reply_json.h: parts of answers that several endpoints share. */
#ifndef TQ_SERVER_REPLY_JSON_H
#define TQ_SERVER_REPLY_JSON_H

#include "openai_reply.h"

void reply_json_chat_logprobs(jout *j, const tq_model *model, const reply_logprob *list, int n);
void reply_json_text_logprobs(jout *j, const tq_model *model, const reply_logprob *list, int n);
void reply_json_usage(jout *j, const tq_usage *usage, int reasoning_tokens);
void reply_json_timings(jout *j, const tq_usage *usage);
/* kv, tokens, bytes as stored and in f16, and a strip of runs: exact, packed, shared, in the order of the tokens. */
void reply_json_cache(jout *j, int sinks, const tq_request_cache *cache);

#endif
