/* sampler.h: logits -> a token. */
#ifndef TQ_ENGINE_SAMPLER_H
#define TQ_ENGINE_SAMPLER_H

#include <turboquant/tq.h>

#include "base/rng.h"

typedef struct tq_candidate {
    float logit;
    int32_t id;
} tq_candidate;

/* Refuse what makes no sense: temp below 0, top_p outside (0, 1], ... */
tq_status tq_sampling_check(const tq_sampling *s, tq_error *err);

/* Order: repeat penalty, temp 0 takes the largest (the lowest id among equals), top_k, softmax with temp, top_p, min_p,
 * draw.  recent: the n_recent last tokens.  work: (vocab). */
int32_t tq_sample(const tq_sampling *s, tq_rng *rng, const float *logits, int vocab, const int32_t *recent, int n_recent,
                  tq_candidate *work);

#endif
