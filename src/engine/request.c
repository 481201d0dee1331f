/* request.c: see request.h. */
#include "engine/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/utf8.h"
#include "engine/sampler.h"

tq_request_params tq_request_params_default(void) {
    return (tq_request_params){.task = TQ_TASK_GENERATE, .sampling = tq_sampling_default(), .n_logprobs = -1, .use_cache = true};
}

/* ---- checking ------------------------------------------------------------------------------------------------------ */

static tq_status check_tokens(const tq_model *model, int ctx, const tq_request_params *p, tq_error *err) {
    if (p->n_ids < 1) return tq_fail(err, TQ_INVALID, "prompt: want 1 or more tokens, got %d", p->n_ids);
    for (int i = 0; i < p->n_ids; i++)
        if (p->ids[i] < 0 || p->ids[i] >= model->config.vocab)
            return tq_fail(err, TQ_INVALID, "prompt: token id %d is outside the vocabulary of %d", p->ids[i],
                           model->config.vocab);
    if (p->max_tokens < 0) return tq_fail(err, TQ_INVALID, "max_tokens: want 0 or more, got %d", p->max_tokens);
    int least = p->task != TQ_TASK_GENERATE ? 0 : p->max_tokens ? p->max_tokens : 1;
    if (p->n_ids > ctx || least > ctx - p->n_ids)
        return tq_fail(err, TQ_FULL, "context of %d tokens: no room for a prompt of %d and a reply of %d", ctx, p->n_ids, least);
    return TQ_OK;
}

static tq_status check_stops(const tq_model *model, const tq_request_params *p, tq_error *err) {
    if (p->n_stops < 0 || p->n_stops > TQ_MAX_STOPS)
        return tq_fail(err, TQ_INVALID, "stop: want up to %d strings, got %d", TQ_MAX_STOPS, p->n_stops);
    if (p->n_stops > 0 && !model->tokenizer)
        return tq_fail(err, TQ_UNSUPPORTED, "stop: %s has no tokenizer, so there is no text to stop at", model->path);
    for (int i = 0; i < p->n_stops; i++) {
        size_t n = strlen(p->stops[i]), valid = tq_utf8_valid_prefix(p->stops[i], n);
        if (n == 0 || n > TQ_MAX_STOP_BYTES)
            return tq_fail(err, TQ_INVALID, "stop: want strings of 1 to %d bytes, got %zu", TQ_MAX_STOP_BYTES, n);
        if (valid < n) return tq_fail(err, TQ_INVALID, "stop: invalid UTF-8 at byte %zu", valid);
    }
    return TQ_OK;
}

static tq_status check(const tq_model *model, int ctx, const tq_request_params *p, tq_error *err) {
    if (p->task > TQ_TASK_EMBED_LAST) return tq_fail(err, TQ_INVALID, "task: there is no task %d", (int)p->task);
    if (!p->on_event) return tq_fail(err, TQ_INVALID, "on_event: want a function, got none");
    if (!(p->deadline >= 0 && isfinite(p->deadline)))
        return tq_fail(err, TQ_INVALID, "deadline: want 0 or more seconds, got %g", p->deadline);
    if (p->n_logprobs < -1 || p->n_logprobs > TQ_MAX_LOGPROBS)
        return tq_fail(err, TQ_INVALID, "n_logprobs: want -1 to %d, got %d", TQ_MAX_LOGPROBS, p->n_logprobs);
    TQ_TRY(tq_sampling_check(&p->sampling, model->config.vocab, err));
    TQ_TRY(check_stops(model, p, err));
    if (p->n_shown < 0 || p->n_shown > TQ_MAX_SHOWN)
        return tq_fail(err, TQ_INVALID, "shown: want up to %d tokens, got %d", TQ_MAX_SHOWN, p->n_shown);
    return check_tokens(model, ctx, p, err);
}

/* ---- one block of memory: the request, its tokens, biases, list of stops, strings ---------------------------------------- */

static char *copy_string(char **to, const char *text) {
    char *at = *to;
    size_t bytes = strlen(text) + 1;
    memcpy(at, text, bytes);
    *to += bytes;
    return at;
}

tq_status tq_request_new(const tq_model *model, int ctx, const tq_request_params *p, tq_request **out, tq_error *err) {
    TQ_TRY(check(model, ctx, p, err));
    size_t stops = (size_t)p->n_stops * sizeof(char *), ids = (size_t)p->n_ids * sizeof *p->ids;
    size_t shown = (size_t)p->n_shown * sizeof *p->shown;
    size_t biases = (size_t)p->sampling.n_biases * sizeof *p->sampling.biases, strings = p->kv ? strlen(p->kv) + 1 : 0;
    for (int i = 0; i < p->n_stops; i++) strings += strlen(p->stops[i]) + 1;
    size_t bytes = sizeof(tq_request) + stops + biases + ids + shown + strings;
    tq_request *r = malloc(bytes);
    if (!r) return tq_fail_memory(err, bytes, "a request");
    *r = (tq_request){.references = 1, .params = *p, .submitted = tq_clock_seconds()};
    const char **stop_list = (const char **)(r + 1);
    tq_logit_bias *bias_list = (tq_logit_bias *)((char *)stop_list + stops);
    int32_t *id_list = (int32_t *)((char *)bias_list + biases);
    int32_t *shown_list = id_list + p->n_ids;
    char *text = (char *)shown_list + shown;
    if (shown) memcpy(shown_list, p->shown, shown);
    if (biases) memcpy(bias_list, p->sampling.biases, biases);
    memcpy(id_list, p->ids, ids);
    for (int i = 0; i < p->n_stops; i++) stop_list[i] = copy_string(&text, p->stops[i]);
    if (p->kv) r->params.kv = copy_string(&text, p->kv);
    r->params.ids = id_list;
    r->params.shown = shown_list;
    r->params.stops = stop_list;
    r->params.sampling.biases = bias_list;
    if (p->task == TQ_TASK_GENERATE && p->max_tokens == 0) r->params.max_tokens = ctx - p->n_ids;
    *out = r;
    return TQ_OK;
}

int tq_request_most_tokens(const tq_request *r) {
    return r->params.n_ids + (r->params.task == TQ_TASK_GENERATE ? r->params.max_tokens : 0);
}

void tq_request_release(tq_request *r) {
    if (r && atomic_fetch_sub(&r->references, 1) == 1) free(r);
}

uint64_t tq_request_id(const tq_request *r) { return r->id; }

void tq_request_cancel(tq_request *r) { atomic_store(&r->cancelled, true); }

void tq_request_tell(tq_request *r, tq_event *event) {
    if (!event->error) event->error = "";
    event->seconds = tq_clock_seconds() - r->submitted;
    r->params.on_event(r->params.ctx, r, event);
}

bool tq_request_is_over(const tq_request *r, double now, tq_request_finish *finish) {
    bool cancelled = atomic_load(&r->cancelled), late = r->params.deadline > 0 && now - r->submitted >= r->params.deadline;
    *finish = cancelled ? TQ_REQUEST_CANCELLED : TQ_REQUEST_DEADLINE;
    return cancelled || late;
}
