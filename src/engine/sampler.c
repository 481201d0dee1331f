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

/* Larger logits first, then lower ids: a total order, so the same logits always sort the same way. */
static int by_logit(const void *a, const void *b) {
    const tq_candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
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
    qsort(work, (size_t)vocab, sizeof *work, by_logit);
    int n = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab;
    float top = work[0].logit;
    double total = 0;
    for (int i = 0; i < n; i++) { /* the logit's place now holds the weight */
        work[i].logit = expf((work[i].logit - top) / s->temp);
        total += work[i].logit;
    }
    int keep = 0;
    double kept = 0;
    while (keep < n && (keep == 0 || (kept < s->top_p * total && work[keep].logit >= s->min_p))) kept += work[keep++].logit;
    double draw = tq_rng_uniform(rng) * kept;
    for (int i = 0; i < keep; i++)
        if ((draw -= work[i].logit) < 0) return work[i].id;
    return work[keep - 1].id;
}
