/* steps.c: the two kinds of work: a layer of a chunk of a prompt, a token of all that decode. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/scheduler.h"

/* ---- prefill --------------------------------------------------------------------------------------------------------- */

static bool is_awaited(const tq_scheduler *s, const tq_slot *leader) {
    for (int i = 0; i < s->params.parallel; i++)
        if (s->slots[i].state == TQ_SLOT_WAIT && s->slots[i].leader == leader) return true;
    return false;
}

/* By turns, a chunk each. */
static tq_slot *next_to_prefill(tq_scheduler *s, bool settle) {
    for (int i = 0; i < s->params.parallel; i++) {
        int at = (s->turn + i) % s->params.parallel;
        tq_slot *slot = &s->slots[at];
        if (slot->state != TQ_SLOT_PREFILL || (slot->settles && !settle && !is_awaited(s, slot))) continue;
        s->turn = at + 1;
        return slot;
    }
    return NULL;
}

static tq_part chunk_part(const tq_scheduler *s) {
    tq_slot *slot = s->chunk_slot;
    return (tq_part){.cache = slot->cache, .state = &slot->state_of_delta, .ids = slot->tokens + slot->n_evaluated,
                     .n = s->chunk_n, .pos = slot->n_evaluated};
}

static bool begin_chunk(tq_scheduler *s, tq_slot *slot) {
    int left = slot->n_prompt - slot->n_evaluated; /* n_evaluated is a boundary */
    tq_error err;
    s->chunk_n = left < s->params.prefill_chunk ? left : s->params.prefill_chunk;
    s->chunk_layer = 0;
    tq_status status = tq_slot_reserve(s, slot, s->chunk_n, &err);
    if (status != TQ_OK) {
        tq_slot_fail(s, slot, status, err.text);
        return false;
    }
    s->chunk_slot = slot;
    tq_part part = chunk_part(s);
    tq_batch batch = {.parts = &part, .n_parts = 1, .n = s->chunk_n};
    pthread_mutex_lock(&s->model->turn);
    tq_forward_begin(s->model->transformer, s->model->backend, &batch, &s->chunk_activations);
    pthread_mutex_unlock(&s->model->turn);
    return true;
}

static void add_states(tq_scheduler *s, tq_slot *slot, int n) {
    const float *h = s->chunk_activations.h;
    for (int t = 0; t < n; t++)
        for (int i = 0; i < s->model->config.hidden; i++) slot->sum[i] += *h++;
}

static void finish_embedding(tq_scheduler *s, tq_slot *slot, int n) {
    int hidden = s->model->config.hidden;
    float *x = s->chunk_activations.x; /* used up */
    const float *last = s->chunk_activations.h + (size_t)(n - 1) * (size_t)hidden;
    double squares = 0;
    for (int i = 0; i < hidden; i++) {
        double v = slot->sum ? slot->sum[i] : last[i];
        squares += v * v;
    }
    for (int i = 0; i < hidden; i++) {
        double v = slot->sum ? slot->sum[i] : last[i];
        x[i] = squares > 0 ? (float)(v / sqrt(squares)) : 0;
    }
    tq_slot_finish(s, slot, TQ_REQUEST_STOP,
                   &(tq_event){.end_id = -1, .stop = -1, .embedding = x, .n_embedding = hidden});
}

/* All layers of the chunk are done. */
static void end_chunk(tq_scheduler *s) {
    tq_slot *slot = s->chunk_slot;
    int n = s->chunk_n;
    bool last = slot->n_evaluated + n == slot->n_prompt;
    const float *h = s->chunk_activations.h + (size_t)(n - 1) * (size_t)s->model->config.hidden;
    s->chunk_slot = NULL;
    if (last && slot->request && slot->request->params.task == TQ_TASK_GENERATE) {
        pthread_mutex_lock(&s->model->turn);
        tq_forward_logits(s->model->transformer, s->model->backend, h, 1, s->logits);
        pthread_mutex_unlock(&s->model->turn);
    }
    if (slot->sum) add_states(s, slot, n);
    s->prefill_tokens += (uint64_t)n;
    tq_slot_advance(s, slot, n);
    if (!last) return;
    if (slot->settles) tq_slot_finish(s, slot, TQ_REQUEST_STOP, NULL);
    else if (slot->request->params.task == TQ_TASK_GENERATE) tq_slot_sample(s, slot, s->logits);
    else finish_embedding(s, slot, n);
}

bool tq_prefill_step(tq_scheduler *s, bool settle) {
    if (!s->chunk_slot) {
        tq_slot *slot = next_to_prefill(s, settle);
        if (!slot) return false;
        if (!begin_chunk(s, slot)) return true;
    }
    tq_part part = chunk_part(s);
    tq_batch batch = {.parts = &part, .n_parts = 1, .n = s->chunk_n};
    tq_error err;
    bool last = s->chunk_layer + 1 == s->model->config.n_layers;
    pthread_mutex_lock(&s->model->turn);
    tq_status status = tq_forward_layer(s->model->transformer, s->chunk_layer++, s->model->backend, &batch,
                                        &s->chunk_activations, &err);
    if (status == TQ_OK && last) tq_forward_end(s->model->transformer, s->model->backend, &batch, &s->chunk_activations);
    pthread_mutex_unlock(&s->model->turn);
    if (status != TQ_OK) tq_slot_fail(s, s->chunk_slot, status, err.text);
    else if (last) end_chunk(s);
    return true;
}

/* ---- decode ---------------------------------------------------------------------------------------------------------- */

/* Up to TQ_SINGLE_TOKENS slots with a token to evaluate; each gets the bits that it would get alone. */
static void step_together(tq_scheduler *s, tq_slot **slots, int n) {
    tq_part parts[TQ_SINGLE_TOKENS];
    for (int i = 0; i < n; i++)
        parts[i] = (tq_part){.cache = slots[i]->cache, .state = &slots[i]->state_of_delta,
                             .ids = slots[i]->tokens + slots[i]->n_evaluated, .n = 1, .pos = slots[i]->n_evaluated};
    tq_batch batch = {.parts = parts, .n_parts = n, .n = n};
    tq_error err;
    pthread_mutex_lock(&s->model->turn);
    tq_status status = tq_forward(s->model->transformer, s->model->backend, &batch, &s->step_activations, &err);
    if (status == TQ_OK)
        tq_forward_logits(s->model->transformer, s->model->backend, s->step_activations.h, n, s->logits);
    pthread_mutex_unlock(&s->model->turn);
    for (int i = 0; i < n; i++) {
        if (status != TQ_OK) {
            tq_slot_fail(s, slots[i], status, err.text);
            continue;
        }
        slots[i]->n_evaluated++;
        tq_slot_sample(s, slots[i], s->logits + (size_t)i * (size_t)s->model->config.vocab);
    }
}

void tq_decode_step(tq_scheduler *s) {
    tq_slot *ready[TQ_MAX_PARALLEL];
    int n = 0;
    tq_error err;
    for (int i = 0; i < s->params.parallel; i++) {
        tq_slot *slot = &s->slots[i];
        if (slot->state != TQ_SLOT_DECODE) continue;
        tq_status status = tq_slot_reserve(s, slot, 1, &err);
        if (status == TQ_OK) ready[n++] = slot;
        else tq_slot_fail(s, slot, status, err.text);
    }
    for (int first = 0, m; first < n; first += m) {
        m = n - first < TQ_SINGLE_TOKENS ? n - first : TQ_SINGLE_TOKENS;
        step_together(s, ready + first, m);
    }
    s->decode_steps++;
}
