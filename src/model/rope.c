/* rope.c: frequencies and angles of rotary position encodings. */
#include <math.h>

#include "model/transformer.h"

static const double tau = 6.283185307179586;

static double clamp01(double x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

/* llama3: slow pairs are stretched, fast ones kept, those between blended by their turns over the original context. */
static double llama3(const tq_rope_config *r, double f) {
    double turns = r->original_context * f / tau;
    double keep = clamp01((turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor));
    return f * keep + f / r->factor * (1 - keep);
}

/* yarn: likewise, but blended by the pair's index between those that turn beta_fast and beta_slow times. */
static double yarn_index(const tq_rope_config *r, double turns) {
    return r->n_dims * log(r->original_context / (turns * tau)) / (2 * log(r->theta));
}

static double yarn(const tq_rope_config *r, double f, int i) {
    double low = yarn_index(r, r->beta_fast), high = yarn_index(r, r->beta_slow);
    if (r->truncate) low = floor(low), high = ceil(high);
    if (low < 0) low = 0;
    if (high > r->n_dims - 1) high = r->n_dims - 1;
    if (low == high) high += 0.001;
    double stretch = clamp01((i - low) / (high - low));
    return f / r->factor * stretch + f * (1 - stretch);
}

void tq_rope_frequencies(const tq_rope_config *r, int context, float *inverse_frequency) {
    double theta = r->theta;
    if (r->kind == TQ_ROPE_DYNAMIC && context > r->original_context)
        theta *= pow(r->factor * context / r->original_context - (r->factor - 1), r->n_dims / (r->n_dims - 2.0));
    for (int i = 0; i < r->n_dims / 2; i++) {
        double f = 1.0 / pow(theta, (double)(2 * i) / r->n_dims);
        switch (r->kind) {
        case TQ_ROPE_DEFAULT:
        case TQ_ROPE_DYNAMIC: break;
        case TQ_ROPE_LINEAR: f /= r->factor; break;
        case TQ_ROPE_LLAMA3: f = llama3(r, f); break;
        case TQ_ROPE_YARN: f = yarn(r, f, i); break;
        case TQ_ROPE_LONGROPE: f /= (context > r->original_context ? r->long_factor : r->short_factor)[i]; break;
        }
        inverse_frequency[i] = (float)f;
    }
}

void tq_rope_angles(const tq_rope_config *r, const float *inverse_frequency, int n, int pos, float *angles) {
    int half = r->n_dims / 2;
    float factor = (float)r->attention_factor;
    for (int t = 0; t < n; t++)
        for (int i = 0; i < half; i++) {
            float angle = (float)(pos + t) * inverse_frequency[i];
            angles[2 * (t * half + i)] = cosf(angle) * factor;
            angles[2 * (t * half + i) + 1] = sinf(angle) * factor;
        }
}
