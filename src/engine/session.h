/* session.h: inside of a tq_session: the timeline of one sequence. */
#ifndef TQ_ENGINE_SESSION_H
#define TQ_ENGINE_SESSION_H

#include "engine/model.h"
#include "engine/sampler.h"

/* Rows of logits kept at a time when every token's are wanted. */
enum { TQ_LOGIT_ROWS = 16 };

struct tq_session {
    tq_model *model;
    tq_session_params params;
    tq_cache *cache;
    tq_activations activations;
    tq_recurrent_state state, checkpoint; /* of delta layers, now and after checkpoint_tokens */
    int checkpoint_tokens;                /* 0: none, but the state of an empty session is always known */
    float *logits; /* (TQ_LOGIT_ROWS, vocab); row 0 after an evaluation: the last token's */
    bool has_logits;
    int32_t *tokens; /* (ctx) */
    int n_tokens;
    tq_candidate *candidates; /* (vocab) */
    tq_progress_fn progress;
    void *progress_ctx;
};

/* A session of params->ctx tokens, whether or not there is room for it: memory is reserved, and taken as it fills. */
tq_status tq_session_build(tq_model *model, const tq_session_params *params, tq_session **out, tq_error *err);

#endif
