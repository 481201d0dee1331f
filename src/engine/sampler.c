/* sampler.c: see sampler.h. */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>

#include "base/status.h"

tq_sampling tq_sampling_default(void) {
    return (tq_sampling){.temp = 0, .top_p = 1, .min_p = 0, .top_k = 0, .repeat_penalty = 1, .repeat_last_n = 64, .seed = 0};
}

tq_status tq_sampling_check(const tq_sampling *s, tq_error *err) {
    if (!(s->temp >= 0 && s->temp <= 100)) return tq_fail(err, TQ_INVALID, "temp: want 0 to 100, got %g", (double)s->temp);
    if (!(s->top_p > 0 && s->top_p <= 1)) return tq_fail(err, TQ_INVALID, "top_p: want above 0 to 1, got %g", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1)) return tq_fail(err, TQ_INVALID, "min_p: want 0 to 1, got %g", (double)s->min_p);
    if (s->top_k < 0) return tq_fail(err, TQ_INVALID, "top_k: want 0 or more, got %d", s->top_k);
    if (!(s->repeat_penalty > 0 && s->repeat_penalty <= 100))
        return tq_fail(err, TQ_INVALID, "repeat_penalty: want above 0 to 100, got %g", (double)s->repeat_penalty);
    if (s->repeat_last_n < 0) return tq_fail(err, TQ_INVALID, "repeat_last_n: want 0 or more, got %d", s->repeat_last_n);
    return TQ_OK;
}

/* A larger logit comes first, then a lower id: a total order, so the same logits always give the same token. */
static bool before(tq_candidate x, tq_candidate y) { return x.logit != y.logit ? x.logit > y.logit : x.id < y.id; }

static void sink(tq_candidate *heap, int n, int at) {
    tq_candidate moving = heap[at];
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], moving)) break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

/* The first of a heap of n moves to heap[n - 1], the rest stays a heap of n - 1. */
static tq_candidate pop(tq_candidate *heap, int n) {
    tq_candidate first = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = first;
    sink(heap, n - 1, 0);
    return first;
}

/* Each token that occurred is made less likely once (Keskar et al., CTRL, section 4.1). */
static void penalize(const tq_sampling *s, tq_candidate *work, const int32_t *recent, int n_recent) {
    if (n_recent > s->repeat_last_n) {
        recent += n_recent - s->repeat_last_n;
        n_recent = s->repeat_last_n;
    }
    for (int i = 0; i < n_recent; i++) {
        bool seen = false;
        for (int j = 0; j < i && !seen; j++) seen = recent[j] == recent[i];
        float *logit = &work[recent[i]].logit;
        if (!seen) *logit = *logit > 0 ? *logit / s->repeat_penalty : *logit * s->repeat_penalty;
    }
}

/* Candidates in order, as far as somebody asks: popped from a heap, first at the end of work. */
typedef struct ranking {
    tq_candidate *work;
    int vocab, n_popped;
    float top, temp;
} ranking;

static tq_candidate ranked(ranking *r, int i) {
    while (r->n_popped <= i) pop(r->work, r->vocab - r->n_popped++);
    return r->work[r->vocab - 1 - i];
}

/* Relative to the most likely: its own is 1. */
static double weight(const ranking *r, tq_candidate c) { return exp(((double)c.logit - r->top) / r->temp); }

int32_t tq_sample(const tq_sampling *s, tq_rng *rng, const float *logits, int vocab, const int32_t *recent, int n_recent,
                  tq_candidate *work) {
    for (int i = 0; i < vocab; i++) work[i] = (tq_candidate){logits[i], i};
    if (s->repeat_penalty != 1) penalize(s, work, recent, n_recent);
    if (s->temp == 0 || s->top_k == 1) {
        int best = 0;
        for (int i = 1; i < vocab; i++)
            if (work[i].logit > work[best].logit) best = i;
        return work[best].id;
    }
    for (int i = vocab / 2 - 1; i >= 0; i--) sink(work, vocab, i);
    ranking r = {.work = work, .vocab = vocab, .top = work[0].logit, .temp = s->temp};
    int n = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab;
    double total = 0;
    for (int i = 0; i < n; i++) total += weight(&r, n < vocab ? ranked(&r, i) : work[i]);
    if (s->top_p < 1 || s->min_p > 0) {
        int keep = 0;
        double kept = 0;
        for (; keep < n; keep++) {
            double w = weight(&r, ranked(&r, keep));
            if (keep > 0 && (kept >= s->top_p * total || w < s->min_p)) break;
            kept += w;
        }
        n = keep;
        total = kept;
    }
    double draw = tq_rng_uniform(rng) * total;
    for (int i = 0; i + 1 < n; i++)
        if ((draw -= weight(&r, ranked(&r, i))) < 0) return ranked(&r, i).id;
    return ranked(&r, n - 1).id;
}
