/* slot.c: one running request: its cache and what it takes from the tree and leaves there, its tokens as events. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/scheduler.h"

/* Without being asked for, a checkpoint is kept every SPACING chunks, and further in after an eighth more. */
enum { SPACING = 4 };

static int max_int(int a, int b) { return a > b ? a : b; }
static int min_int(int a, int b) { return a < b ? a : b; }
static int boundary(const tq_scheduler *s, int tokens) { return tokens / s->params.prefill_chunk * s->params.prefill_chunk; }

static uint64_t id_of(const tq_slot *slot) { return slot->request ? slot->request->id : 0; }

/* ---- memory -------------------------------------------------------------------------------------------------------- */

/* Bytes that running requests hold or can come to hold. */
static size_t promised(const tq_scheduler *s) {
    size_t bytes = s->budget.running;
    for (int i = 0; i < s->params.parallel; i++)
        if (!tq_slot_is_free(&s->slots[i])) bytes += tq_cache_bytes_wanted(s->slots[i].cache, s->slots[i].most_tokens);
    return bytes;
}

static tq_status no_room(const tq_scheduler *s, size_t want, tq_error *err) {
    return tq_fail(err, TQ_FULL, "the cache budget of %zu bytes has no room for %zu more beside what runs", s->budget.limit, want);
}

tq_status tq_slot_reserve(tq_scheduler *s, tq_slot *slot, int n, tq_error *err) {
    tq_status status;
    while ((status = tq_cache_reserve(slot->cache, n, err)) == TQ_FULL && tq_prefix_tree_evict(s->tree)) continue;
    return status;
}

static tq_status new_cache(tq_scheduler *s, tq_slot *slot, const char *kv, tq_error *err) {
    tq_cache_params params = tq_scheduler_cache_params(s, kv);
    const tq_cache *tables = tq_scheduler_tables(s, kv);
    tq_status status;
    do status = tq_cache_new_sharing(s->model->backend, &params, s->params.prefill_chunk, &s->budget, tables, &slot->cache, err);
    while (status == TQ_FULL && tq_prefix_tree_evict(s->tree));
    return status;
}

static tq_status new_state(tq_scheduler *s, tq_slot *slot, tq_error *err) {
    tq_recurrent_state shape = {.n_layers = s->model->config.n_delta_layers,
                                .layer_floats = tq_transformer_state_floats(s->model->transformer)};
    TQ_TRY(tq_recurrent_state_init(&slot->state_of_delta, shape.n_layers, shape.layer_floats, err));
    size_t bytes = tq_recurrent_state_bytes(&slot->state_of_delta);
    while (!tq_page_budget_charge(&s->budget, bytes, TQ_HELD_RUNNING))
        if (!tq_prefix_tree_evict(s->tree)) {
            tq_recurrent_state_destroy(&slot->state_of_delta);
            return no_room(s, bytes, err);
        }
    return TQ_OK;
}

static void free_all(tq_scheduler *s, tq_slot *slot) {
    tq_page_budget_discharge(&s->budget, tq_recurrent_state_bytes(&slot->state_of_delta), TQ_HELD_RUNNING);
    tq_recurrent_state_destroy(&slot->state_of_delta);
    tq_cache_free(slot->cache);
    tq_reply_free(&slot->reply);
    free(slot->tokens);
    free(slot->sum);
    *slot = (tq_slot){.state = TQ_SLOT_FREE};
}

/* ---- what the tree has ----------------------------------------------------------------------------------------------- */

static void log_match(const tq_scheduler *s, const tq_slot *slot, const tq_prefix_match *m) {
    unsigned long long id = (unsigned long long)id_of(slot);
    if (m->evicted > m->length)
        tq_scheduler_log(s, TQ_LOG_INFO, "request %llu: %d of %d prompt tokens reused: up to %d had been kept, but the budget took it",
                         id, m->length, slot->n_prompt, m->evicted);
    else if (m->result == TQ_PREFIX_HIT)
        tq_scheduler_log(s, TQ_LOG_DEBUG, "request %llu: %d of %d prompt tokens reused", id, m->length, slot->n_prompt);
    else if (m->result == TQ_PREFIX_SHORT)
        tq_scheduler_log(s, TQ_LOG_DEBUG, "request %llu: nothing to reuse: a prompt of %d tokens, chunks of %d", id, slot->n_prompt,
                         s->params.prefill_chunk);
    else
        tq_scheduler_log(s, TQ_LOG_INFO, "request %llu: %d of %d prompt tokens reused: what is kept of %s parts from it at token %d",
                         id, m->length, slot->n_prompt, slot->cache->kv, m->known);
}

/* What the tree has beyond what the slot holds. */
static tq_prefix_match take_from_tree(tq_scheduler *s, tq_slot *slot, tq_error *err) {
    tq_prefix_match m = tq_prefix_tree_find(s->tree, slot->cache->kv, slot->tokens, slot->n_prompt);
    if (m.length > slot->n_evaluated) {
        tq_status status = tq_checkpoint_restore(m.checkpoint, slot->cache, &slot->state_of_delta, err);
        if (status == TQ_OK) slot->n_evaluated = slot->cached = slot->kept_at = m.length;
        else tq_scheduler_log(s, TQ_LOG_WARNING, "request %llu: %s", (unsigned long long)id_of(slot), err->text);
    }
    int branch = boundary(s, min_int(m.known, slot->n_prompt - 1));
    slot->branch_at = branch > slot->n_evaluated ? branch : 0;
    return m;
}

/* ---- starting ---------------------------------------------------------------------------------------------------------- */

/* With tokens, n_prompt, most_tokens, keeps set: the rest that needs memory.  On failure the slot is free again. */
static tq_status open_slot(tq_scheduler *s, tq_slot *slot, const char *kv, tq_prefix_match *m, tq_error *err) {
    bool owned;
    tq_cache *shape = NULL;
    tq_status status = tq_scheduler_shape(s, kv, &shape, &owned, err);
    if (status == TQ_OK) {
        size_t least = shape->exact_bytes, room = promised(s);
        if (owned) tq_cache_free(shape);
        if (room > s->budget.limit || least > s->budget.limit - room) status = no_room(s, least, err);
    }
    if (status == TQ_OK) status = new_cache(s, slot, kv, err);
    if (status == TQ_OK) status = new_state(s, slot, err);
    if (status == TQ_OK && slot->keeps) *m = take_from_tree(s, slot, err);
    if (status == TQ_OK) {
        size_t all = promised(s); /* this slot's with it */
        if (all > s->budget.limit) status = no_room(s, tq_cache_bytes_wanted(slot->cache, slot->most_tokens), err);
    }
    if (status != TQ_OK) free_all(s, slot);
    return status;
}

static tq_status copy_prompt(tq_slot *slot, const int32_t *ids, int n, int most, tq_error *err) {
    slot->tokens = malloc((size_t)most * sizeof *slot->tokens);
    if (!slot->tokens) return tq_fail_memory(err, (size_t)most * sizeof *slot->tokens, "a request's tokens");
    memcpy(slot->tokens, ids, (size_t)n * sizeof *ids);
    slot->n_prompt = n;
    slot->most_tokens = most;
    return TQ_OK;
}

tq_status tq_slot_start(tq_scheduler *s, tq_slot *slot, tq_request *r, tq_error *err) {
    const tq_request_params *p = &r->params;
    bool generates = p->task == TQ_TASK_GENERATE;
    tq_prefix_match m = {.result = TQ_PREFIX_UNUSED};
    *slot = (tq_slot){.request = r, .keeps = generates && p->use_cache && s->params.keep_prompts, .rng = {p->sampling.seed},
                      .reply = tq_reply_of(s->model->tokenizer, p->stops, p->n_stops)};
    slot->reply.shown = p->shown;
    slot->reply.n_shown = p->n_shown;
    tq_status status = copy_prompt(slot, p->ids, p->n_ids, tq_request_most_tokens(r), err);
    if (status == TQ_OK && p->task == TQ_TASK_EMBED_MEAN) {
        slot->sum = calloc((size_t)s->model->config.hidden, sizeof *slot->sum);
        if (!slot->sum) status = tq_fail_memory(err, (size_t)s->model->config.hidden * sizeof *slot->sum, "an embedding");
    }
    if (status != TQ_OK) {
        free_all(s, slot);
        return status;
    }
    TQ_TRY(open_slot(s, slot, p->kv, &m, err));
    slot->order = ++s->last_order;
    slot->started = tq_clock_seconds();
    if (slot->keeps) log_match(s, slot, &m);
    pthread_mutex_lock(&s->lock);
    s->stats.prefix[m.result]++;
    pthread_mutex_unlock(&s->lock);
    tq_event event = {.kind = TQ_EVENT_START, .done = slot->n_evaluated, .total = slot->n_prompt, .cached = slot->cached};
    tq_request_tell(r, &event);
    tq_slot_line_up(s, slot);
    return TQ_OK;
}

tq_status tq_slot_start_settling(tq_scheduler *s, tq_slot *slot, const tq_settle_job *job, tq_error *err) {
    tq_prefix_match m;
    *slot = (tq_slot){.settles = true, .keeps = true};
    tq_status status = copy_prompt(slot, job->ids, job->n, job->n, err);
    if (status != TQ_OK) {
        free_all(s, slot);
        return status;
    }
    TQ_TRY(open_slot(s, slot, job->kv, &m, err));
    slot->order = ++s->last_order;
    slot->started = tq_clock_seconds();
    slot->state = TQ_SLOT_PREFILL;
    int n_reply = job->n - boundary(s, job->n_prompt);
    if (job->n - slot->n_evaluated <= n_reply + s->params.prefill_chunk) return TQ_OK;
    free_all(s, slot); /* the prompt itself is gone: too much work for a guess */
    return tq_fail(err, TQ_NOT_FOUND, "the prompt is no longer kept");
}

/* ---- sharing a prefill ------------------------------------------------------------------------------------------------- */

static int common_tokens(const tq_slot *a, const tq_slot *b) {
    int n = min_int(a->n_prompt, b->n_prompt), i = 0;
    while (i < n && a->tokens[i] == b->tokens[i]) i++;
    return i;
}

void tq_slot_line_up(tq_scheduler *s, tq_slot *slot) {
    slot->state = TQ_SLOT_PREFILL;
    slot->leader = NULL;
    slot->lead_to = 0;
    for (int i = 0; slot->keeps && i < s->params.parallel; i++) {
        tq_slot *a = &s->slots[i];
        if (tq_slot_is_free(a) || a->order >= slot->order || !a->keeps || a->state == TQ_SLOT_DECODE ||
            strcmp(a->cache->kv, slot->cache->kv) != 0)
            continue;
        int to = boundary(s, min_int(common_tokens(a, slot), slot->n_prompt - 1));
        if (to <= max_int(a->n_evaluated, slot->n_evaluated) || to <= slot->lead_to) continue;
        slot->state = TQ_SLOT_WAIT;
        slot->leader = a;
        slot->lead_to = to;
    }
}

/* Those that wait for `leader`, if it has come to where they part or has ended, go on from what it left. */
static void wake_followers(tq_scheduler *s, const tq_slot *leader, bool ended) {
    for (int i = 0; i < s->params.parallel; i++) {
        tq_slot *slot = &s->slots[i];
        if (slot->state != TQ_SLOT_WAIT || slot->leader != leader || (!ended && leader->n_evaluated < slot->lead_to)) continue;
        tq_error err;
        take_from_tree(s, slot, &err);
        tq_slot_line_up(s, slot);
    }
}

static bool is_awaited(const tq_scheduler *s, const tq_slot *leader) {
    for (int i = 0; i < s->params.parallel; i++) {
        const tq_slot *slot = &s->slots[i];
        if (slot->state == TQ_SLOT_WAIT && slot->leader == leader && slot->lead_to == leader->n_evaluated) return true;
    }
    return false;
}

static void keep(tq_scheduler *s, tq_slot *slot) {
    int n = slot->n_evaluated, chunk = s->params.prefill_chunk;
    if (!slot->keeps || n % chunk) return;
    bool last = n == slot->n_prompt || (!slot->settles && n == boundary(s, slot->n_prompt - 1));
    bool wanted = last || n == slot->branch_at || is_awaited(s, slot);
    if (!wanted && n - slot->kept_at < max_int(SPACING * chunk, n / 8)) return;
    tq_error err;
    tq_status status = tq_prefix_tree_keep(s->tree, slot->cache, &slot->state_of_delta, slot->tokens, n, wanted, &err);
    if (status == TQ_OK) slot->kept_at = n;
    else if (wanted) tq_scheduler_log(s, TQ_LOG_INFO, "request %llu: %s", (unsigned long long)id_of(slot), err.text);
}

void tq_slot_advance(tq_scheduler *s, tq_slot *slot, int n) {
    slot->n_evaluated += n;
    keep(s, slot);
    wake_followers(s, slot, false);
    if (!slot->request) return;
    tq_event event = {.kind = TQ_EVENT_PREFILL, .done = slot->n_evaluated, .total = slot->n_prompt, .cached = slot->cached};
    tq_request_tell(slot->request, &event);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------------ */

/* Text that events have not had yet. */
static void take_text(tq_slot *slot, tq_event *event) {
    event->text = slot->reply.text ? slot->reply.text + slot->told : NULL;
    event->text_len = slot->reply.sent - slot->told;
    slot->told = slot->reply.sent;
}

static void tell_token(tq_scheduler *s, tq_slot *slot, int32_t id, const float *logits) {
    tq_event event = {.kind = TQ_EVENT_TOKEN, .id = id};
    int n = slot->request->params.n_logprobs, vocab = s->model->config.vocab;
    if (n >= 0) {
        event.n_top = min_int(n, vocab);
        event.top = s->top;
        event.logprob = tq_logprobs(logits, vocab, id, s->top, event.n_top, s->candidates);
    }
    take_text(slot, &event);
    tq_request_tell(slot->request, &event);
}

void tq_slot_sample(tq_scheduler *s, tq_slot *slot, const float *logits) {
    const tq_request_params *p = &slot->request->params;
    tq_error err;
    int32_t id = tq_sample(&p->sampling, &slot->rng, logits, s->model->config.vocab, slot->tokens, slot->n_evaluated,
                           slot->n_reply, s->candidates);
    if (slot->first_token == 0) slot->first_token = tq_clock_seconds();
    slot->state = TQ_SLOT_DECODE;
    if (!p->ignore_eos && tq_model_is_eos(s->model, id)) {
        tq_slot_finish(s, slot, TQ_REQUEST_STOP, &(tq_event){.end_id = id, .stop = -1});
        return;
    }
    tq_status status = tq_reply_append(&slot->reply, id, &err);
    if (status != TQ_OK) {
        tq_slot_fail(s, slot, status, err.text);
        return;
    }
    slot->tokens[slot->n_evaluated] = id;
    slot->n_reply++;
    tell_token(s, slot, id, logits);
    if (slot->reply.stop >= 0)
        tq_slot_finish(s, slot, TQ_REQUEST_STOP, &(tq_event){.end_id = -1, .stop = slot->reply.stop});
    else if (slot->n_reply == p->max_tokens)
        tq_slot_finish(s, slot, TQ_REQUEST_LENGTH, NULL);
}

/* ---- the end --------------------------------------------------------------------------------------------------------- */

/* A reply that a conversation may go on from is to be kept, up to the last boundary. */
static void remember_reply(tq_scheduler *s, const tq_slot *slot, int32_t end_id) {
    int length = slot->n_prompt + slot->n_reply + (end_id >= 0), n = boundary(s, length);
    if (!slot->keeps || !s->params.keep_replies || n <= boundary(s, slot->n_prompt)) return;
    tq_settle_job job = {.ids = malloc((size_t)length * sizeof *job.ids), .n = n, .n_prompt = slot->n_prompt};
    if (!job.ids) return; /* a guess less */
    memcpy(job.ids, slot->tokens, (size_t)(slot->n_prompt + slot->n_reply) * sizeof *job.ids);
    if (end_id >= 0) job.ids[length - 1] = end_id;
    memcpy(job.kv, slot->cache->kv, sizeof job.kv);
    if (s->n_settle == TQ_SETTLE_JOBS) {
        free(s->settle[0].ids);
        memmove(s->settle, s->settle + 1, (TQ_SETTLE_JOBS - 1) * sizeof *s->settle);
        s->n_settle--;
    }
    s->settle[s->n_settle++] = job;
}

static void get_cache(const tq_slot *slot, tq_request_cache *out) {
    tq_cache_stats stats;
    tq_cache_get_stats(slot->cache, &stats);
    *out = (tq_request_cache){.tokens = stats.tokens, .packed_tokens = stats.packed_tokens, .exact_tokens = stats.exact_tokens,
                              .forgotten_tokens = stats.forgotten_tokens, .bytes = stats.bytes, .f16_bytes = stats.f16_bytes};
    memcpy(out->kv, slot->cache->kv, sizeof out->kv);
    const tq_cache_layer *fullest = &slot->cache->layers[0];
    for (int l = 1; l < slot->cache->params.n_layers; l++)
        if (slot->cache->layers[l].store.n_packed > fullest->store.n_packed) fullest = &slot->cache->layers[l];
    int pages = (fullest->store.n_packed + TQ_PAGE_TOKENS - 1) / TQ_PAGE_TOKENS;
    for (int p = 0; p < pages; p++) out->shared_pages += tq_page_pool_shared(fullest->pool, fullest->pages[p]);
    out->packed_pages = pages - out->shared_pages;
}

static tq_usage usage_of(const tq_slot *slot) {
    double now = tq_clock_seconds(), first = slot->first_token;
    tq_usage u = {.prompt_tokens = slot->n_prompt, .cached_tokens = slot->cached, .generated_tokens = slot->n_reply,
                  .queue_seconds = slot->started - slot->request->submitted,
                  .ttft_seconds = first > 0 ? first - slot->request->submitted : 0,
                  .prefill_seconds = (first > 0 ? first : now) - slot->started, .decode_seconds = first > 0 ? now - first : 0};
    get_cache(slot, &u.cache);
    return u;
}

static void count_finished(tq_scheduler *s, const tq_slot *slot, tq_request_finish finish) {
    pthread_mutex_lock(&s->lock);
    s->stats.finished[finish]++;
    s->stats.prompt_tokens += (uint64_t)slot->n_prompt;
    s->stats.cached_tokens += (uint64_t)slot->cached;
    s->stats.generated_tokens += (uint64_t)slot->n_reply;
    pthread_mutex_unlock(&s->lock);
}

void tq_slot_finish(tq_scheduler *s, tq_slot *slot, tq_request_finish finish, const tq_event *more) {
    if (s->chunk_slot == slot) s->chunk_slot = NULL;
    tq_request *r = slot->request;
    tq_event event = more ? *more : (tq_event){.end_id = -1, .stop = -1};
    if (r) {
        tq_reply_end(&slot->reply);
        event.kind = TQ_EVENT_DONE;
        event.finish = finish;
        event.usage = usage_of(slot);
        event.done = slot->n_evaluated < slot->n_prompt ? slot->n_evaluated : slot->n_prompt;
        event.total = slot->n_prompt;
        event.cached = slot->cached;
        take_text(slot, &event);
        count_finished(s, slot, finish);
        if (finish == TQ_REQUEST_STOP || finish == TQ_REQUEST_LENGTH) remember_reply(s, slot, event.end_id);
        tq_scheduler_publish(s); /* whoever hears of the end finds in the statistics what the request did */
        tq_request_tell(r, &event);
    }
    slot->keeps = false; /* nobody lines up behind it any more */
    wake_followers(s, slot, true);
    free_all(s, slot);
    s->blocked = false;
    tq_scheduler_publish(s);
    if (!r) return;
    pthread_mutex_lock(&s->lock);
    s->n_open--;
    pthread_cond_broadcast(&s->ended);
    pthread_mutex_unlock(&s->lock);
    tq_request_release(r);
}

void tq_slot_fail(tq_scheduler *s, tq_slot *slot, tq_status status, const char *text) {
    tq_scheduler_log(s, TQ_LOG_WARNING, "request %llu failed: %s", (unsigned long long)id_of(slot), text);
    tq_slot_finish(s, slot, TQ_REQUEST_FAILED, &(tq_event){.status = status, .error = text, .end_id = -1, .stop = -1});
}

void tq_slot_get_stats(const tq_slot *slot, tq_slot_stats *out) {
    *out = (tq_slot_stats){.state = slot->state};
    if (tq_slot_is_free(slot)) return;
    out->request = id_of(slot);
    out->prompt_tokens = slot->n_prompt;
    out->prompt_done = min_int(slot->n_evaluated, slot->n_prompt);
    out->cached_tokens = slot->cached;
    out->generated_tokens = slot->n_reply;
    double since = slot->started;
    if (slot->request) {
        out->task = slot->request->params.task;
        out->max_tokens = slot->request->params.max_tokens;
        since = slot->request->submitted;
    }
    out->seconds = tq_clock_seconds() - since;
    memcpy(out->kv, slot->cache->kv, sizeof out->kv);
    get_cache(slot, &out->cache);
}
