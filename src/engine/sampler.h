/* sampler.h: logits -> a token. */
#ifndef TQ_ENGINE_SAMPLER_H
#define TQ_ENGINE_SAMPLER_H

#include <turboquant/tq_scheduler.h>

#include "base/rng.h"

typedef struct tq_candidate {
    float logit;
    int32_t id;
} tq_candidate;

/* Refuse what makes no sense: temp below 0, top_p outside (0, 1], a bias for an id outside the vocabulary, ... */
tq_status tq_sampling_check(const tq_sampling *s, int vocab, tq_error *err);

/* Order: biases, repeat penalty, presence and frequency penalty, temp 0 takes the largest (the lowest id among equals),
 * top_k, softmax with temp, top_p, min_p, draw.  recent: the n_recent last tokens, of which the last n_reply are the
 * reply's.  work: (vocab). */
int32_t tq_sample(const tq_sampling *s, tq_rng *rng, const float *logits, int vocab, const int32_t *recent, int n_recent,
                  int n_reply, tq_candidate *work);

/* The logarithm of a token's probability, and the n_top likeliest tokens in order with theirs: top (n_top).
 * work: (vocab). */
float tq_logprobs(const float *logits, int vocab, int32_t id, tq_token_logprob *top, int n_top, tq_candidate *work);

#endif
