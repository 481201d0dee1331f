/* test_sampler.c: what each sampling option leaves to chance, and what it does not. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/sampler.h"

enum { VOCAB = 50, DRAWS = 40000 };

/* Probabilities .4, .3, .2, .1 at ids 7, 3, 20, 11; next to nothing elsewhere. */
static void four_tokens(float *logits) {
    for (int i = 0; i < VOCAB; i++) logits[i] = -50;
    logits[7] = logf(.4f), logits[3] = logf(.3f), logits[20] = logf(.2f), logits[11] = logf(.1f);
}

static void count_draws(const tq_sampling *s, const float *logits, int *counts) {
    tq_candidate work[VOCAB];
    tq_rng rng = {s->seed};
    memset(counts, 0, VOCAB * sizeof *counts);
    for (int i = 0; i < DRAWS; i++) counts[tq_sample(s, &rng, logits, VOCAB, NULL, 0, 0, work)]++;
}

static void want_share(const int *counts, int id, double p) {
    double deviation = sqrt(p * (1 - p) * DRAWS);
    assert_true(fabs(counts[id] - p * DRAWS) <= 4 * deviation + 1e-9);
}

static void plain_sampling_follows_the_softmax(void **state) {
    (void)state;
    float logits[VOCAB];
    int counts[VOCAB];
    four_tokens(logits);
    tq_sampling s = tq_sampling_default();
    s.temp = 1;
    s.seed = 1;
    count_draws(&s, logits, counts);
    want_share(counts, 7, .4), want_share(counts, 3, .3), want_share(counts, 20, .2), want_share(counts, 11, .1);
    s.temp = .5f; /* squares the probabilities: .16 .09 .04 .01 of .30 */
    count_draws(&s, logits, counts);
    want_share(counts, 7, 16. / 30), want_share(counts, 3, 9. / 30), want_share(counts, 11, 1. / 30);
}

static void top_k_keeps_the_k_likeliest(void **state) {
    (void)state;
    float logits[VOCAB];
    int counts[VOCAB];
    four_tokens(logits);
    tq_sampling s = tq_sampling_default();
    s.temp = 1;
    s.top_k = 2;
    count_draws(&s, logits, counts);
    want_share(counts, 7, 4. / 7), want_share(counts, 3, 3. / 7);
    assert_int_equal(counts[7] + counts[3], DRAWS);
}

static void top_p_keeps_the_smallest_set_that_reaches_p(void **state) {
    (void)state;
    float logits[VOCAB];
    int counts[VOCAB];
    four_tokens(logits);
    tq_sampling s = tq_sampling_default();
    s.temp = 1;
    s.top_p = .6f; /* .4 is short of it, .4 + .3 is not */
    count_draws(&s, logits, counts);
    want_share(counts, 7, 4. / 7), want_share(counts, 3, 3. / 7);
    assert_int_equal(counts[7] + counts[3], DRAWS);
    s.top_p = .01f; /* at least one token stays */
    count_draws(&s, logits, counts);
    assert_int_equal(counts[7], DRAWS);
    s.top_k = 3; /* top_p counts within the top_k: 4/9, 7/9 */
    s.top_p = .75f;
    count_draws(&s, logits, counts);
    assert_int_equal(counts[7] + counts[3], DRAWS);
}

static void min_p_is_relative_to_the_likeliest(void **state) {
    (void)state;
    float logits[VOCAB];
    int counts[VOCAB];
    four_tokens(logits);
    tq_sampling s = tq_sampling_default();
    s.temp = 1;
    s.min_p = .4f; /* .16 and more: .4, .3, .2 */
    count_draws(&s, logits, counts);
    want_share(counts, 20, 2. / 9);
    assert_int_equal(counts[11], 0);
    assert_int_equal(counts[7] + counts[3] + counts[20], DRAWS);
}

static void greedy_takes_the_lowest_id_among_equals(void **state) {
    (void)state;
    float logits[VOCAB] = {0};
    tq_candidate work[VOCAB];
    tq_rng rng = {5};
    logits[30] = logits[12] = 1;
    tq_sampling s = tq_sampling_default();
    assert_int_equal(tq_sample(&s, &rng, logits, VOCAB, NULL, 0, 0, work), 12);
}

/* Ties, places beside the lanes, what is no number: as one comparison after the other finds it. */
static void the_likeliest_is_the_first_of_the_largest(void **state) {
    (void)state;
    static const float values[] = {-INFINITY, -1, -0.0f, 0, 1, 2, NAN, INFINITY};
    tq_rng rng = {7};
    for (int round = 0; round < 20000; round++) {
        float logits[70];
        int n = 1 + (int)(tq_rng_u64(&rng) % 70), kinds = 1 + (int)(tq_rng_u64(&rng) % 8), best = 0;
        for (int i = 0; i < n; i++) logits[i] = values[tq_rng_u64(&rng) % (uint64_t)kinds];
        for (int i = 1; i < n; i++)
            if (logits[i] > logits[best]) best = i;
        assert_int_equal(tq_likeliest(logits, n), best);
    }
}

static void a_repeated_token_is_penalised_once_and_only_recent_ones(void **state) {
    (void)state;
    float logits[VOCAB] = {0};
    tq_candidate work[VOCAB];
    tq_rng rng = {5};
    int32_t recent[] = {4, 9, 9, 9};
    logits[9] = 3, logits[4] = 2.5f, logits[5] = 1.4f;
    tq_sampling s = tq_sampling_default();
    s.repeat_penalty = 2; /* once: 9 -> 1.5, 4 -> 1.25; twice 9 would fall behind 5 */
    s.repeat_last_n = 64;
    assert_int_equal(tq_sample(&s, &rng, logits, VOCAB, recent, 4, 0, work), 9);
    s.repeat_last_n = 3; /* 4 is forgotten */
    assert_int_equal(tq_sample(&s, &rng, logits, VOCAB, recent, 4, 0, work), 4);
    logits[9] = -1, logits[4] = -1.5f;
    for (int i = 0; i < VOCAB; i++)
        if (i != 9 && i != 4) logits[i] = -10;
    s.repeat_penalty = 1.2f; /* negative logits are multiplied: -1.2 still leads */
    assert_int_equal(tq_sample(&s, &rng, logits, VOCAB, recent, 4, 0, work), 9);
}

static void presence_counts_a_token_once_and_frequency_each_time(void **state) {
    (void)state;
    float logits[VOCAB] = {0};
    tq_candidate work[VOCAB];
    tq_rng rng = {5};
    int32_t recent[] = {5, 5, 5, 4, 9, 9}; /* the reply: 4, 9, 9 */
    logits[9] = 3, logits[4] = 2.6f, logits[5] = 1.5f;
    tq_sampling s = tq_sampling_default();
    s.presence_penalty = 1; /* 9: 2, 4: 1.6, the prompt's 5 stays 1.5; twice 9 would be 1 */
    assert_int_equal(tq_sample(&s, &rng, logits, VOCAB, recent, 6, 3, work), 9);
    s.presence_penalty = 1.6f; /* 9: 1.4, 4: 1, 5: 1.5 */
    assert_int_equal(tq_sample(&s, &rng, logits, VOCAB, recent, 6, 3, work), 5);
    s.presence_penalty = 0, s.frequency_penalty = .5f; /* 9: 2, 4: 2.1 */
    assert_int_equal(tq_sample(&s, &rng, logits, VOCAB, recent, 6, 3, work), 4);
    s.frequency_penalty = -1; /* 9: 5 */
    assert_int_equal(tq_sample(&s, &rng, logits, VOCAB, recent, 6, 3, work), 9);
}

static void biases_come_before_everything(void **state) {
    (void)state;
    float logits[VOCAB];
    int counts[VOCAB];
    tq_candidate work[VOCAB];
    tq_rng rng = {5};
    four_tokens(logits);
    tq_logit_bias biases[] = {{7, -100}, {30, 100}};
    tq_sampling s = tq_sampling_default();
    s.biases = biases, s.n_biases = 1;
    assert_int_equal(tq_sample(&s, &rng, logits, VOCAB, NULL, 0, 0, work), 3);
    s.n_biases = 2;
    assert_int_equal(tq_sample(&s, &rng, logits, VOCAB, NULL, 0, 0, work), 30);
    s.temp = 1, s.n_biases = 1;
    count_draws(&s, logits, counts);
    assert_int_equal(counts[7], 0);
    want_share(counts, 3, 3. / 6), want_share(counts, 20, 2. / 6);
}

static void logprobs_are_of_the_softmax_in_order(void **state) {
    (void)state;
    float logits[VOCAB];
    tq_candidate work[VOCAB];
    tq_token_logprob top[3];
    four_tokens(logits);
    for (int i = 0; i < VOCAB; i++) logits[i] += 17; /* no matter */
    assert_true(fabs(tq_logprobs(logits, VOCAB, 20, top, 3, work) - log(.2)) < 1e-5);
    assert_int_equal(top[0].id, 7), assert_int_equal(top[1].id, 3), assert_int_equal(top[2].id, 20);
    assert_true(fabs(top[0].logprob - log(.4)) < 1e-5 && fabs(top[2].logprob - log(.2)) < 1e-5);
    assert_true(fabs(tq_logprobs(logits, VOCAB, 11, NULL, 0, work) - log(.1)) < 1e-5);
}

static void the_same_seed_gives_the_same_tokens(void **state) {
    (void)state;
    float logits[VOCAB];
    tq_candidate work[VOCAB];
    for (int i = 0; i < VOCAB; i++) logits[i] = sinf((float)i);
    tq_sampling s = tq_sampling_default();
    s.temp = 1;
    tq_rng a = {42}, b = {42}, c = {43};
    int differs = 0;
    for (int i = 0; i < 100; i++) {
        int32_t x = tq_sample(&s, &a, logits, VOCAB, NULL, 0, 0, work), y = tq_sample(&s, &b, logits, VOCAB, NULL, 0, 0, work);
        assert_int_equal(x, y);
        differs += x != tq_sample(&s, &c, logits, VOCAB, NULL, 0, 0, work);
    }
    assert_true(differs > 50);
}

static void senseless_options_are_refused_by_name(void **state) {
    (void)state;
    tq_error err;
    tq_sampling s = tq_sampling_default();
    assert_int_equal(tq_sampling_check(&s, VOCAB, &err), TQ_OK);
    s.temp = NAN;
    assert_int_equal(tq_sampling_check(&s, VOCAB, &err), TQ_INVALID);
    assert_non_null(strstr(err.text, "temp"));
    s = tq_sampling_default(), s.top_p = 0;
    assert_int_equal(tq_sampling_check(&s, VOCAB, &err), TQ_INVALID);
    assert_non_null(strstr(err.text, "top_p"));
    s = tq_sampling_default(), s.top_k = -1;
    assert_int_equal(tq_sampling_check(&s, VOCAB, &err), TQ_INVALID);
    s = tq_sampling_default(), s.presence_penalty = 2.5f;
    assert_int_equal(tq_sampling_check(&s, VOCAB, &err), TQ_INVALID);
    assert_non_null(strstr(err.text, "presence_penalty"));
    s = tq_sampling_default(), s.frequency_penalty = NAN;
    assert_int_equal(tq_sampling_check(&s, VOCAB, &err), TQ_INVALID);
    tq_logit_bias outside = {VOCAB, 1}, too_much = {3, 101};
    s = tq_sampling_default(), s.biases = &outside, s.n_biases = 1;
    assert_int_equal(tq_sampling_check(&s, VOCAB, &err), TQ_INVALID);
    assert_non_null(strstr(err.text, "50"));
    s.biases = &too_much;
    assert_int_equal(tq_sampling_check(&s, VOCAB, &err), TQ_INVALID);
    s = tq_sampling_default(), s.repeat_penalty = 0;
    assert_int_equal(tq_sampling_check(&s, VOCAB, &err), TQ_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_sampling_follows_the_softmax),
        cmocka_unit_test(top_k_keeps_the_k_likeliest),
        cmocka_unit_test(top_p_keeps_the_smallest_set_that_reaches_p),
        cmocka_unit_test(min_p_is_relative_to_the_likeliest),
        cmocka_unit_test(the_likeliest_is_the_first_of_the_largest),
        cmocka_unit_test(greedy_takes_the_lowest_id_among_equals),
        cmocka_unit_test(a_repeated_token_is_penalised_once_and_only_recent_ones),
        cmocka_unit_test(presence_counts_a_token_once_and_frequency_each_time),
        cmocka_unit_test(biases_come_before_everything),
        cmocka_unit_test(logprobs_are_of_the_softmax_in_order),
        cmocka_unit_test(the_same_seed_gives_the_same_tokens),
        cmocka_unit_test(senseless_options_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
