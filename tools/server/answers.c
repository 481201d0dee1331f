/* answers.c: a list between two threads. */
#include "answers.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct choice {
    answers *owner;
    tq_request *request;
    double last_seconds; /* of the newest token; the scheduler's thread alone looks at it */
    bool done;
} choice;

struct answers {
    pthread_mutex_t lock;
    pthread_cond_t came;
    answer_piece *first, **last;
    server_metrics *metrics;
    int n_choices, n_running;
    bool lost; /* a piece could not be copied */
    bool abandoned;
    choice choices[];
};

answers *answers_new(int n_choices, server_metrics *metrics) {
    answers *a = calloc(1, sizeof *a + (size_t)n_choices * sizeof *a->choices);
    if (!a) return NULL;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&a->came, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&a->lock, NULL);
    a->last = &a->first;
    a->n_choices = n_choices;
    a->metrics = metrics;
    for (int i = 0; i < n_choices; i++) a->choices[i] = (choice){.owner = a, .done = true};
    return a;
}

static void destroy(answers *a) {
    while (a->first) {
        answer_piece *next = a->first->next;
        free(a->first);
        a->first = next;
    }
    pthread_cond_destroy(&a->came);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* ---- on the scheduler's thread ------------------------------------------------------------------------------------- */

static char *put(char *at, const void *from, size_t n, const void **pointer) {
    *pointer = at;
    if (n) memcpy(at, from, n);
    return at + n;
}

static answer_piece *copy_event(int index, const tq_event *e) {
    size_t top = (size_t)(e->n_top > 0 ? e->n_top : 0) * sizeof *e->top;
    size_t embedding = e->embedding ? (size_t)e->n_embedding * sizeof *e->embedding : 0;
    size_t error = e->error ? strlen(e->error) + 1 : 0;
    answer_piece *piece = malloc(sizeof *piece + top + embedding + e->text_len + error);
    if (!piece) return NULL;
    *piece = (answer_piece){.choice = index, .event = *e};
    char *at = (char *)(piece + 1); /* floats first: they are aligned there */
    if (top) at = put(at, e->top, top, (const void **)&piece->event.top);
    if (embedding) at = put(at, e->embedding, embedding, (const void **)&piece->event.embedding);
    at = put(at, e->text, e->text_len, (const void **)&piece->event.text);
    if (error) put(at, e->error, error, (const void **)&piece->event.error);
    return piece;
}

static void count_event(choice *c, const tq_event *e) {
    server_metrics *m = c->owner->metrics;
    if (e->kind == TQ_EVENT_TOKEN) {
        server_metrics_token(m, c->last_seconds == 0 ? e->seconds : 0, c->last_seconds == 0 ? 0 : e->seconds - c->last_seconds);
        c->last_seconds = e->seconds;
    } else if (e->kind == TQ_EVENT_DONE) {
        server_metrics_request(m, &e->usage);
    }
}

static void on_event(void *ctx, tq_request *request, const tq_event *e) {
    (void)request;
    choice *c = ctx;
    answers *a = c->owner;
    count_event(c, e);
    pthread_mutex_lock(&a->lock);
    if (!a->abandoned) {
        answer_piece *piece = copy_event((int)(c - a->choices), e);
        if (piece) {
            *a->last = piece;
            a->last = &piece->next;
        } else {
            a->lost = true;
        }
    }
    bool over = false;
    if (e->kind == TQ_EVENT_DONE) {
        c->done = true;
        over = --a->n_running == 0 && a->abandoned;
    }
    pthread_cond_signal(&a->came);
    pthread_mutex_unlock(&a->lock);
    if (over) destroy(a);
}

/* ---- on the connection's thread ------------------------------------------------------------------------------------ */

tq_status answers_submit(answers *a, int index, tq_scheduler *scheduler, tq_request_params *params, tq_error *error) {
    choice *c = &a->choices[index];
    params->on_event = on_event;
    params->ctx = c;
    pthread_mutex_lock(&a->lock); /* events may come before submit returns */
    c->done = false;
    a->n_running++;
    pthread_mutex_unlock(&a->lock);
    tq_status status = tq_scheduler_submit(scheduler, params, &c->request, error);
    if (status != TQ_OK) {
        pthread_mutex_lock(&a->lock);
        c->done = true;
        c->request = NULL;
        a->n_running--;
        pthread_mutex_unlock(&a->lock);
    }
    return status;
}

answer_piece *answers_wait(answers *a, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double end = (double)until.tv_nsec + seconds * 1e9;
    until.tv_sec += (time_t)(end / 1e9);
    until.tv_nsec = (long)(end - 1e9 * (double)(time_t)(end / 1e9));
    pthread_mutex_lock(&a->lock);
    while (!a->first && pthread_cond_timedwait(&a->came, &a->lock, &until) == 0) {}
    answer_piece *piece = a->first;
    if (piece) {
        a->first = piece->next;
        if (!a->first) a->last = &a->first;
    }
    pthread_mutex_unlock(&a->lock);
    return piece;
}

int answers_running(answers *a) {
    pthread_mutex_lock(&a->lock);
    int n = a->n_running;
    pthread_mutex_unlock(&a->lock);
    return n;
}

bool answers_find_cache(answers *a, int index, tq_scheduler *scheduler, tq_request_cache *out) {
    uint64_t id = a->choices[index].request ? tq_request_id(a->choices[index].request) : 0;
    tq_scheduler_stats stats;
    tq_scheduler_get_stats(scheduler, &stats);
    for (int i = 0; id && i < stats.n_slots; i++) {
        if (stats.slots[i].request != id) continue;
        *out = stats.slots[i].cache;
        return true;
    }
    return false;
}

bool answers_lost(answers *a) {
    pthread_mutex_lock(&a->lock);
    bool lost = a->lost;
    pthread_mutex_unlock(&a->lock);
    return lost;
}

void answers_cancel(answers *a) {
    for (int i = 0; i < a->n_choices; i++)
        if (a->choices[i].request) tq_request_cancel(a->choices[i].request);
}

void answers_free(answers *a) {
    if (!a) return;
    answers_cancel(a);
    for (int i = 0; i < a->n_choices; i++) tq_request_release(a->choices[i].request);
    pthread_mutex_lock(&a->lock);
    a->abandoned = true;
    bool over = a->n_running == 0;
    pthread_mutex_unlock(&a->lock);
    if (over) destroy(a);
}
