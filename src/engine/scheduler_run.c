/* scheduler_run.c: the scheduler's thread: who starts, who has to end, and whose turn it is. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/scheduler.h"

static const double PUBLISH_SECONDS = 0.05;

/* ---- the queue --------------------------------------------------------------------------------------------------------- */

static tq_request *first_queued(tq_scheduler *s) {
    pthread_mutex_lock(&s->lock);
    tq_request *r = s->first;
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* Out of the queue; only this thread takes out. */
static void unqueue(tq_scheduler *s, tq_request *r) {
    pthread_mutex_lock(&s->lock);
    tq_request **at = &s->first;
    while (*at != r) at = &(*at)->next;
    *at = r->next;
    if (!*at) s->last = at;
    s->n_queued--;
    pthread_mutex_unlock(&s->lock);
}

/* The last event of a request that never started. */
static void end_queued(tq_scheduler *s, tq_request *r, tq_request_finish finish, tq_status status, const char *text) {
    tq_event event = {.kind = TQ_EVENT_DONE, .finish = finish, .stop = -1, .end_id = -1, .status = status, .error = text,
                      .total = r->params.n_ids};
    event.usage.prompt_tokens = r->params.n_ids;
    event.usage.queue_seconds = tq_clock_seconds() - r->submitted;
    if (finish == TQ_REQUEST_FAILED)
        tq_scheduler_log(s, TQ_LOG_WARNING, "request %llu failed: %s", (unsigned long long)r->id, text);
    unqueue(s, r);
    tq_request_tell(r, &event);
    pthread_mutex_lock(&s->lock);
    s->stats.finished[finish]++;
    s->n_open--;
    pthread_cond_broadcast(&s->ended);
    pthread_mutex_unlock(&s->lock);
    tq_request_release(r);
}

static tq_slot *free_slot(tq_scheduler *s) {
    for (int i = 0; i < s->params.parallel; i++)
        if (tq_slot_is_free(&s->slots[i])) return &s->slots[i];
    return NULL;
}

static int count_running(const tq_scheduler *s) {
    int n = 0;
    for (int i = 0; i < s->params.parallel; i++) n += s->slots[i].request != NULL;
    return n;
}

static tq_slot *settling(tq_scheduler *s) {
    for (int i = 0; i < s->params.parallel; i++)
        if (s->slots[i].settles) return &s->slots[i];
    return NULL;
}

/* Nobody asked for it: whoever did ask gets its place. */
static bool give_up_settling(tq_scheduler *s) {
    tq_slot *slot = settling(s);
    if (slot) tq_slot_finish(s, slot, TQ_REQUEST_CANCELLED, NULL);
    return slot != NULL;
}

/* Start what can start, in order. */
static void admit(tq_scheduler *s) {
    for (tq_request *r; !s->blocked && (r = first_queued(s));) {
        tq_slot *slot = free_slot(s);
        if (!slot && give_up_settling(s)) slot = free_slot(s);
        if (!slot) return;
        tq_error err;
        tq_status status = tq_slot_start(s, slot, r, &err);
        if (status == TQ_OK) unqueue(s, r);
        else if (status == TQ_FULL && give_up_settling(s)) continue;
        else if (status == TQ_FULL && count_running(s) > 0) s->blocked = true;
        else end_queued(s, r, TQ_REQUEST_FAILED, status, err.text);
    }
}

/* ---- those that have to end -------------------------------------------------------------------------------------------- */

static void end_those_over(tq_scheduler *s, bool all) {
    double now = tq_clock_seconds();
    tq_request_finish finish;
    for (int i = 0; i < s->params.parallel; i++) {
        tq_slot *slot = &s->slots[i];
        if (!slot->request || (!tq_request_is_over(slot->request, now, &finish) && !all)) continue;
        tq_slot_finish(s, slot, finish == TQ_REQUEST_DEADLINE && all ? TQ_REQUEST_CANCELLED : finish, NULL);
    }
    for (;;) { /* a callback may have added to the queue: begin again after each */
        pthread_mutex_lock(&s->lock);
        tq_request *r = s->first;
        while (r && !tq_request_is_over(r, now, &finish) && !all) r = r->next;
        pthread_mutex_unlock(&s->lock);
        if (!r) return;
        s->blocked = false;
        end_queued(s, r, all ? TQ_REQUEST_CANCELLED : finish, TQ_OK, "");
    }
}

/* ---- replies that settle ------------------------------------------------------------------------------------------------ */

/* Begin with the newest reply, when nothing else runs.  false: there is none. */
static bool settle_next(tq_scheduler *s) {
    while (s->n_settle > 0) {
        tq_settle_job job = s->settle[--s->n_settle];
        tq_error err;
        tq_status status = tq_slot_start_settling(s, &s->slots[0], &job, &err);
        free(job.ids);
        if (status == TQ_OK) return true;
    }
    return false;
}

/* ---- stats --------------------------------------------------------------------------------------------------------------- */

void tq_scheduler_publish(tq_scheduler *s) {
    tq_prefix_tree_stats tree;
    tq_prefix_tree_get_stats(s->tree, &tree);
    const tq_page_budget *b = &s->budget;
    pthread_mutex_lock(&s->lock);
    tq_scheduler_stats *out = &s->stats;
    out->running = count_running(s);
    out->prefill_tokens = s->prefill_tokens;
    out->decode_steps = s->decode_steps;
    out->checkpoints_taken = tree.taken;
    out->checkpoints_evicted = tree.evicted;
    out->tree_checkpoints = tree.checkpoints;
    out->tree_tokens = tree.tokens;
    out->cache_limit = b->limit;
    out->cache_packed = b->used - b->charged;
    out->cache_shared = b->shared;
    out->cache_tree = tree.bytes;
    out->cache_exact = b->charged - tree.bytes;
    out->cache_free = b->limit - b->used;
    out->cache_running = b->running;
    for (int i = 0; i < s->params.parallel; i++) tq_slot_get_stats(&s->slots[i], &out->slots[i]);
    pthread_mutex_unlock(&s->lock);
    s->published = tq_clock_seconds();
}

/* ---- the loop -------------------------------------------------------------------------------------------------------------- */

static bool any_in_state(const tq_scheduler *s, tq_slot_state state) {
    for (int i = 0; i < s->params.parallel; i++)
        if (s->slots[i].state == state) return true;
    return false;
}

/* One step of one kind.  While both kinds are wanted, those that decode get as much time as the layer before took.
 * false: nothing to do. */
static bool step(tq_scheduler *s) {
    bool decoding = any_in_state(s, TQ_SLOT_DECODE);
    double start = tq_clock_seconds();
    if (!decoding) s->credit = 0;
    if (s->credit <= 0 && tq_prefill_step(s, count_running(s) == 0)) {
        if (decoding) s->credit += tq_clock_seconds() - start;
        return true;
    }
    if (!decoding) return false;
    tq_decode_step(s);
    s->credit = s->credit > 0 ? s->credit - (tq_clock_seconds() - start) : 0; /* 0: nobody prefills */
    return true;
}

/* Until there is something to do.  false: the scheduler ends. */
static bool wait_for_work(tq_scheduler *s) {
    tq_scheduler_publish(s);
    pthread_mutex_lock(&s->lock);
    while (!s->first && !s->stop) pthread_cond_wait(&s->work, &s->lock);
    bool stop = s->stop && !s->first;
    pthread_mutex_unlock(&s->lock);
    return !stop;
}

static void free_jobs(tq_scheduler *s) {
    while (s->n_settle > 0) free(s->settle[--s->n_settle].ids);
}

void *tq_scheduler_main(void *arg) {
    tq_scheduler *s = arg;
    for (bool go_on = true; go_on;) {
        pthread_mutex_lock(&s->lock);
        bool cancel = s->cancel_all, draining = s->draining;
        pthread_mutex_unlock(&s->lock);
        end_those_over(s, cancel);
        admit(s);
        if (draining) {
            free_jobs(s);
            give_up_settling(s);
        }
        if (tq_clock_seconds() - s->published > PUBLISH_SECONDS) tq_scheduler_publish(s);
        if (!step(s) && !settle_next(s)) go_on = wait_for_work(s);
    }
    return NULL;
}
