/* generate.c: sample, stream, evaluate, until something says stop. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/utf8.h"
#include "engine/session.h"

tq_generate_params tq_generate_params_default(void) {
    return (tq_generate_params){.max_tokens = 256, .sampling = tq_sampling_default()};
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Append a token's text; pass on what is whole characters.  *sent counts bytes already passed on. */
static tq_status stream_piece(const tq_session *s, const tq_generate_params *p, int32_t id, tq_generate_result *r,
                              size_t *cap, size_t *sent, bool *go_on, tq_error *err) {
    if (!s->model->tokenizer) return TQ_OK;
    size_t length = tq_tokenizer_piece(s->model->tokenizer, id, false, NULL, 0);
    if (r->text_len + length + 1 > *cap) {
        size_t want = (r->text_len + length + 1) * 2;
        char *text = realloc(r->text, want);
        if (!text) return tq_fail_memory(err, want, "generated text");
        r->text = text;
        *cap = want;
    }
    tq_tokenizer_piece(s->model->tokenizer, id, false, r->text + r->text_len, length);
    r->text_len += length;
    r->text[r->text_len] = 0;
    size_t whole = *sent + tq_utf8_complete_prefix(r->text + *sent, r->text_len - *sent);
    if (whole > *sent && p->on_text) *go_on = p->on_text(p->ctx, r->text + *sent, whole - *sent);
    *sent = whole;
    return TQ_OK;
}

static tq_status run(tq_session *s, const tq_generate_params *p, tq_generate_result *r, tq_error *err) {
    size_t cap = (size_t)p->max_tokens < 4096 ? (size_t)p->max_tokens * 8 + 1 : 32768, sent = 0;
    int room = s->params.ctx - s->n_tokens; /* one more can be sampled than evaluated */
    int limit = p->max_tokens < room + 1 ? p->max_tokens : room + 1;
    r->ids = malloc(((size_t)limit + 1) * sizeof *r->ids);
    r->text = calloc(cap, 1);
    if (!r->ids || !r->text) return tq_fail_memory(err, cap, "generated text");
    tq_rng rng = {p->sampling.seed};
    r->finish = TQ_FINISH_LENGTH;
    for (bool go_on = true; r->n_ids < limit;) {
        int32_t id = tq_sample(&p->sampling, &rng, s->logits, s->model->config.vocab, s->tokens, s->n_tokens, s->candidates);
        if (!p->ignore_eos && tq_model_is_eos(s->model, id)) {
            r->finish = TQ_FINISH_STOP;
            break;
        }
        r->ids[r->n_ids++] = id;
        TQ_TRY(stream_piece(s, p, id, r, &cap, &sent, &go_on, err));
        if (!go_on) {
            r->finish = TQ_FINISH_CANCELLED;
            break;
        }
        if (r->n_ids < limit) TQ_TRY(tq_session_eval(s, &id, 1, err));
    }
    if (r->text_len > sent && p->on_text) p->on_text(p->ctx, r->text + sent, r->text_len - sent);
    return TQ_OK;
}

tq_status tq_generate(tq_session *session, const tq_generate_params *params, tq_generate_result *result, tq_error *err) {
    *result = (tq_generate_result){0};
    TQ_TRY(tq_sampling_check(&params->sampling, err));
    if (params->max_tokens < 1) return tq_fail(err, TQ_INVALID, "max tokens: want 1 or more, got %d", params->max_tokens);
    if (!session->has_logits) return tq_fail(err, TQ_INVALID, "generate: nothing has been evaluated yet");
    double start = seconds();
    tq_status status = run(session, params, result, err);
    result->decode_seconds = seconds() - start;
    if (status != TQ_OK) tq_generate_result_free(result);
    return status;
}

void tq_generate_result_free(tq_generate_result *result) {
    free(result->ids);
    free(result->text);
    *result = (tq_generate_result){0};
}
