/* sampler.c: see sampler.h. */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>

#include "base/status.h"

tq_sampling tq_sampling_default(void) {
    return (tq_sampling){.temp = 0, .top_p = 1, .min_p = 0, .top_k = 0, .repeat_penalty = 1, .repeat_last_n = 64, .seed = 0};
}

static tq_status check_biases(const tq_sampling *s, int vocab, tq_error *err) {
    for (int i = 0; i < s->n_biases; i++) {
        const tq_logit_bias *b = &s->biases[i];
        if (b->id < 0 || b->id >= vocab)
            return tq_fail(err, TQ_INVALID, "logit_bias: token id %d is outside the vocabulary of %d", b->id, vocab);
        if (!(b->bias >= -100 && b->bias <= 100))
            return tq_fail(err, TQ_INVALID, "logit_bias: token %d: want -100 to 100, got %g", b->id, (double)b->bias);
    }
    return TQ_OK;
}

tq_status tq_sampling_check(const tq_sampling *s, int vocab, tq_error *err) {
    if (!(s->temp >= 0 && s->temp <= 100)) return tq_fail(err, TQ_INVALID, "temp: want 0 to 100, got %g", (double)s->temp);
    if (!(s->top_p > 0 && s->top_p <= 1)) return tq_fail(err, TQ_INVALID, "top_p: want above 0 to 1, got %g", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1)) return tq_fail(err, TQ_INVALID, "min_p: want 0 to 1, got %g", (double)s->min_p);
    if (s->top_k < 0) return tq_fail(err, TQ_INVALID, "top_k: want 0 or more, got %d", s->top_k);
    if (!(s->repeat_penalty > 0 && s->repeat_penalty <= 100))
        return tq_fail(err, TQ_INVALID, "repeat_penalty: want above 0 to 100, got %g", (double)s->repeat_penalty);
    if (s->repeat_last_n < 0) return tq_fail(err, TQ_INVALID, "repeat_last_n: want 0 or more, got %d", s->repeat_last_n);
    if (!(s->presence_penalty >= -2 && s->presence_penalty <= 2))
        return tq_fail(err, TQ_INVALID, "presence_penalty: want -2 to 2, got %g", (double)s->presence_penalty);
    if (!(s->frequency_penalty >= -2 && s->frequency_penalty <= 2))
        return tq_fail(err, TQ_INVALID, "frequency_penalty: want -2 to 2, got %g", (double)s->frequency_penalty);
    return check_biases(s, vocab, err);
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

/* Whether this is the first time that the token is asked about; its candidate is marked until unmark. */
static bool first_seen(tq_candidate *work, int32_t id) {
    if (work[id].id < 0) return false;
    work[id].id = ~id;
    return true;
}

static void unmark(tq_candidate *work, const int32_t *ids, int n) {
    for (int i = 0; i < n; i++) work[ids[i]].id = ids[i];
}

/* Each token that occurred is made less likely once (Keskar et al., CTRL, section 4.1). */
static void penalize_repeats(const tq_sampling *s, tq_candidate *work, const int32_t *recent, int n_recent) {
    if (n_recent > s->repeat_last_n) {
        recent += n_recent - s->repeat_last_n;
        n_recent = s->repeat_last_n;
    }
    for (int i = 0; i < n_recent; i++) {
        float *logit = &work[recent[i]].logit;
        if (first_seen(work, recent[i])) *logit = *logit > 0 ? *logit / s->repeat_penalty : *logit * s->repeat_penalty;
    }
    unmark(work, recent, n_recent);
}

static void penalize_reply(const tq_sampling *s, tq_candidate *work, const int32_t *reply, int n_reply) {
    for (int i = 0; i < n_reply; i++) {
        float *logit = &work[reply[i]].logit;
        *logit -= s->frequency_penalty;
        if (first_seen(work, reply[i])) *logit -= s->presence_penalty;
    }
    unmark(work, reply, n_reply);
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

/* Lanes side by side: one comparison after the other would wait for itself at every logit. */
int32_t tq_likeliest(const float *logits, int n) {
    enum { LANES = 16 };
    float most[LANES], top = logits[0];
    int whole = n / LANES * LANES;
    for (int l = 0; l < LANES; l++) most[l] = top;
    for (int i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++) most[l] = logits[i + l] > most[l] ? logits[i + l] : most[l];
    for (int l = 0; l < LANES; l++) top = most[l] > top ? most[l] : top;
    for (int i = whole; i < n; i++) top = logits[i] > top ? logits[i] : top;
    for (int i = 0; i < n; i++)
        if (logits[i] == top) return i;
    return 0; /* the first one is no number, than which nothing is larger */
}

int32_t tq_sample(const tq_sampling *s, tq_rng *rng, const float *logits, int vocab, const int32_t *recent, int n_recent,
                  int n_reply, tq_candidate *work) {
    bool changed = s->n_biases > 0 || s->repeat_penalty != 1 || s->presence_penalty != 0 || s->frequency_penalty != 0;
    if (!changed && (s->temp == 0 || s->top_k == 1)) return tq_likeliest(logits, vocab);
    for (int i = 0; i < vocab; i++) work[i] = (tq_candidate){logits[i], i};
    for (int i = 0; i < s->n_biases; i++) work[s->biases[i].id].logit += s->biases[i].bias;
    if (s->repeat_penalty != 1) penalize_repeats(s, work, recent, n_recent);
    if (s->presence_penalty != 0 || s->frequency_penalty != 0)
        penalize_reply(s, work, recent + n_recent - n_reply, n_reply);
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

float tq_logprobs(const float *logits, int vocab, int32_t id, tq_token_logprob *top, int n_top, tq_candidate *work) {
    int best = tq_likeliest(logits, vocab);
    double sum = 0;
    for (int i = 0; i < vocab; i++) sum += exp((double)logits[i] - logits[best]);
    double log_sum = logits[best] + log(sum);
    if (n_top > 0) {
        for (int i = 0; i < vocab; i++) work[i] = (tq_candidate){logits[i], i};
        for (int i = vocab / 2 - 1; i >= 0; i--) sink(work, vocab, i);
    }
    for (int i = 0; i < n_top && i < vocab; i++) {
        tq_candidate c = pop(work, vocab - i);
        top[i] = (tq_token_logprob){c.id, (float)(c.logit - log_sum)};
    }
    return (float)(logits[id] - log_sum);
}
