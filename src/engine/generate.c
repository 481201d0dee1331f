/* generate.c: sample, stream, evaluate, until something says stop. */
#include <stdlib.h>

#include "base/clock.h"
#include "engine/reply.h"
#include "engine/session.h"

tq_generate_params tq_generate_params_default(void) {
    return (tq_generate_params){.max_tokens = 256, .sampling = tq_sampling_default()};
}

static tq_status run(tq_session *s, const tq_generate_params *p, tq_generate_result *r, tq_reply *reply, tq_error *err) {
    int room = s->params.ctx - s->n_tokens; /* one more can be sampled than evaluated */
    int limit = p->max_tokens < room + 1 ? p->max_tokens : room + 1;
    r->ids = malloc(((size_t)limit + 1) * sizeof *r->ids);
    if (!r->ids) return tq_fail_memory(err, ((size_t)limit + 1) * sizeof *r->ids, "generated tokens");
    tq_rng rng = {p->sampling.seed};
    r->finish = TQ_FINISH_LENGTH;
    while (r->n_ids < limit) {
        int32_t id = tq_sample(&p->sampling, &rng, s->logits, s->model->config.vocab, s->tokens, s->n_tokens, r->n_ids,
                               s->candidates);
        if (!p->ignore_eos && tq_model_is_eos(s->model, id)) {
            r->finish = TQ_FINISH_STOP;
            break;
        }
        r->ids[r->n_ids++] = id;
        size_t sent = reply->sent;
        TQ_TRY(tq_reply_append(reply, id, err));
        if (reply->sent > sent && p->on_text && !p->on_text(p->ctx, reply->text + sent, reply->sent - sent)) {
            r->finish = TQ_FINISH_CANCELLED;
            break;
        }
        if (r->n_ids < limit) TQ_TRY(tq_session_eval(s, &id, 1, err));
    }
    size_t sent = reply->sent;
    tq_reply_end(reply);
    if (reply->sent > sent && p->on_text) p->on_text(p->ctx, reply->text + sent, reply->sent - sent);
    return TQ_OK;
}

/* The reply's text becomes the result's: "" where there is none. */
static tq_status hand_over(tq_reply *reply, tq_generate_result *r, tq_error *err) {
    r->text = reply->text ? reply->text : calloc(1, 1);
    r->text_len = reply->length;
    reply->text = NULL;
    return r->text ? TQ_OK : tq_fail_memory(err, 1, "generated text");
}

tq_status tq_generate(tq_session *session, const tq_generate_params *params, tq_generate_result *result, tq_error *err) {
    *result = (tq_generate_result){0};
    TQ_TRY(tq_sampling_check(&params->sampling, session->model->config.vocab, err));
    if (params->max_tokens < 1) return tq_fail(err, TQ_INVALID, "max tokens: want 1 or more, got %d", params->max_tokens);
    if (!session->has_logits) return tq_fail(err, TQ_INVALID, "generate: nothing has been evaluated yet");
    double start = tq_clock_seconds();
    tq_reply reply = tq_reply_of(session->model->tokenizer, NULL, 0);
    tq_status status = run(session, params, result, &reply, err);
    if (status == TQ_OK) status = hand_over(&reply, result, err);
    tq_reply_free(&reply);
    result->decode_seconds = tq_clock_seconds() - start;
    if (status != TQ_OK) tq_generate_result_free(result);
    return status;
}

void tq_generate_result_free(tq_generate_result *result) {
    free(result->ids);
    free(result->text);
    *result = (tq_generate_result){0};
}
