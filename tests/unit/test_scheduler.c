/* test_scheduler.c: requests that run together get what they get alone, whatever is reused; budgets; refusals. */
#define _GNU_SOURCE
#include "scheduler_testing.h"

/* ---- together as alone ----------------------------------------------------------------------------------------------- */

enum { MANY = 10 };

static void together(const char *path, const char *const *kvs, int n_kvs, int longest) {
    tq_model *model = open_model(path);
    tq_scheduler_params sp = small();
    int vocab = tq_model_get_info(model)->vocab, most = tq_model_get_info(model)->max_context;
    if (sp.ctx > most) sp.ctx = most;
    sp.parallel = 6; /* some queue */
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t *ids = test_alloc((size_t)longest * MANY * sizeof *ids);
    heard *h[MANY];
    tq_request_params p[MANY];
    for (int i = 0; i < MANY; i++) {
        int32_t *mine = ids + (size_t)longest * (size_t)i;
        int n = 1 + (longest - 1) * (i + 1) / MANY;
        random_ids(mine, n, vocab, i % 3 == 2 ? 1000 : 1000 + (uint64_t)i); /* some begin alike */
        h[i] = listener();
        p[i] = ask(mine, n, 12 + i, h[i]);
        p[i].kv = kvs[i % n_kvs];
        p[i].ignore_eos = i % 2;
        p[i].sampling.seed = 7 + (uint64_t)i;
        if (i % 4) p[i].sampling.temp = .8f, p[i].sampling.top_p = .95f;
        if (i == 5) p[i].sampling.repeat_penalty = 1.3f, p[i].sampling.presence_penalty = .5f;
        submit(s, &p[i], h[i]);
    }
    for (int i = 0; i < MANY; i++) {
        wait_done(h[i]);
        assert_string_equal(h[i]->error, "");
        tq_generate_result want = alone(model, &sp, &p[i]);
        want_same(h[i], &want, kvs[i % n_kvs]);
        assert_int_equal(h[i]->finish, want.finish == TQ_FINISH_STOP ? TQ_REQUEST_STOP : TQ_REQUEST_LENGTH);
        tq_generate_result_free(&want);
        forget(h[i]);
    }
    tq_scheduler_stats stats = stats_of(s);
    assert_int_equal(stats.accepted, MANY);
    assert_int_equal(stats.finished[TQ_REQUEST_STOP] + stats.finished[TQ_REQUEST_LENGTH], MANY);
    assert_true(stats.decode_steps < stats.generated_tokens); /* some steps were taken together */
    tq_scheduler_free(s);
    tq_model_free(model);
    free(ids);
}

static void requests_together_get_what_they_get_alone(void **state) {
    (void)state;
    const char *const kvs[] = {NULL, "tq3", "f16", "mlx-k3v2", "tq2,first=2,last=2:q8"};
    together(TINY, kvs, 5, 700);
    together(BOOKWORM, kvs, 2, 150); /* 4-bit weights, and text */
}

static void so_do_those_of_hybrid_and_sliding_models(void **state) {
    (void)state;
    const char *const kvs[] = {"f16", "q8"};
    together(HYBRID, kvs, 2, 200);
    together(SLIDING, kvs, 2, 200);
}


/* ---- reuse ------------------------------------------------------------------------------------------------------------ */

/* A run with a checkpoint must give what a run from nothing gives. */
static void reuse(const char *path, const char *kv, int n, int boundary) {
    tq_model *model = open_model(path);
    tq_scheduler_params sp = small();
    int most = tq_model_get_info(model)->max_context, vocab = tq_model_get_info(model)->vocab;
    if (sp.ctx > most) sp.ctx = most;
    sp.prefill_chunk = boundary;
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t *ids = test_alloc((size_t)(n + 100) * sizeof *ids);
    random_ids(ids, n + 100, vocab, 5);
    tq_request_params p = ask(ids, n, 20, NULL);
    p.kv = kv;
    p.sampling.temp = 1, p.sampling.seed = 11;

    heard *h = want_as_alone(s, model, &sp, p);
    assert_int_equal(h->usage.cached_tokens, 0);
    forget(h);
    h = want_as_alone(s, model, &sp, p); /* the same */
    assert_int_equal(h->usage.cached_tokens, (n - 1) / boundary * boundary);
    forget(h);
    p.n_ids = n + 100; /* longer */
    h = want_as_alone(s, model, &sp, p);
    assert_int_equal(h->usage.cached_tokens, n / boundary * boundary);
    forget(h);
    h = want_as_alone(s, model, &sp, p); /* the first two wrote behind it, into pages of their own */
    assert_int_equal(h->usage.cached_tokens, (n + 99) / boundary * boundary);
    forget(h);
    p.n_ids = n;
    h = want_as_alone(s, model, &sp, p);
    assert_int_equal(h->usage.cached_tokens, (n - 1) / boundary * boundary);
    forget(h);
    p.kv = strcmp(kv, "f16") ? "f16" : "q8"; /* another codec has another tree */
    h = want_as_alone(s, model, &sp, p);
    assert_int_equal(h->usage.cached_tokens, 0);
    forget(h);
    p.kv = kv;
    p.use_cache = false;
    h = want_as_alone(s, model, &sp, p);
    assert_int_equal(h->usage.cached_tokens, 0);
    forget(h);

    tq_scheduler_stats stats = stats_of(s);
    assert_int_equal(stats.prefix[TQ_PREFIX_NEW], 2);
    assert_int_equal(stats.prefix[TQ_PREFIX_UNUSED], 1);
    assert_int_equal(stats.prefix[TQ_PREFIX_HIT] + stats.prefix[TQ_PREFIX_PARTIAL], 4);
    assert_true(stats.tree_tokens >= (n + 99) / boundary * boundary && stats.tree_checkpoints >= 2);
    tq_scheduler_free(s);
    tq_model_free(model);
    free(ids);
}

static void a_reused_prefix_gives_the_bits_of_a_cold_run(void **state) {
    (void)state;
    reuse(TINY, "tq3", 1000, 64);
    reuse(TINY, "tq3", 640, 128);
    reuse(TINY, "f16", 500, 64);
    reuse(TINY, "mlx-k3v2", 300, 32);
    reuse(TINY, "tq3,first=2:q8", 400, 96);
}

static void so_do_recurrent_states_and_sliding_windows(void **state) {
    (void)state;
    reuse(HYBRID, "q8", 150, 32);
    reuse(SLIDING, "q8", 300, 32);
    reuse(SLIDING, "f16", 150, 16);
}

/* Prompts that part in the middle: the second one meets the first's checkpoints up to there, the third one's is exact. */
static void prompts_that_part_share_what_they_have_in_common(void **state) {
    (void)state;
    tq_model *model = open_model(TINY);
    tq_scheduler_params sp = small();
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[3][600];
    for (int i = 0; i < 3; i++) {
        random_ids(ids[i], 600, 384, 20 + (uint64_t)i);
        random_ids(ids[i], 300, 384, 77);
    }
    int want[3] = {0, 256, 256}; /* of 300 in common, chunks of 64: 256; the spaced checkpoint is there */
    for (int i = 0; i < 3; i++) {
        heard *h = want_as_alone(s, model, &sp, ask(ids[i], 600, 8, NULL));
        assert_int_equal(h->usage.cached_tokens, want[i]);
        if (i > 0) assert_true(h->usage.cache.shared_pages >= 1);
        forget(h);
    }
    assert_int_equal(stats_of(s).tree_tokens, 256 + 3 * (576 - 256));
    tq_scheduler_free(s);
    tq_model_free(model);
}

/* Four choices at once: one prefill. */
static void choices_wait_for_the_first_ones_prefill(void **state) {
    (void)state;
    tq_model *model = open_model(TINY);
    tq_scheduler_params sp = small();
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[1000];
    random_ids(ids, 1000, 384, 3);
    heard *h[4];
    tq_request_params p[4];
    for (int i = 0; i < 4; i++) {
        h[i] = listener();
        p[i] = ask(ids, i == 3 ? 700 : 1000, 10, h[i]); /* the last one is only a part */
        p[i].sampling.temp = 1, p[i].sampling.seed = (uint64_t)i;
        submit(s, &p[i], h[i]);
    }
    int differ = 0;
    for (int i = 0; i < 4; i++) {
        wait_done(h[i]);
        tq_generate_result want = alone(model, &sp, &p[i]);
        want_same(h[i], &want, "choice");
        tq_generate_result_free(&want);
        differ += memcmp(h[i]->ids, h[0]->ids, 10 * sizeof(int32_t)) != 0;
        if (i > 0) assert_int_equal(h[i]->usage.cached_tokens, i == 3 ? 640 : 960);
    }
    assert_true(differ >= 2);
    assert_int_equal(stats_of(s).prefill_tokens, 1000 + 40 + 40 + 60);
    for (int i = 0; i < 4; i++) forget(h[i]);
    tq_scheduler_free(s);
    tq_model_free(model);
}

static void wait_idle(tq_scheduler *s, uint64_t prefill_tokens) {
    for (int i = 0; i < 2000 && stats_of(s).prefill_tokens < prefill_tokens; i++)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

/* The second turn goes on from the first reply, and still gives the bits of a cold run. */
static void replies_join_the_tree_when_idle(void **state) {
    (void)state;
    tq_model *model = open_model(TINY);
    tq_scheduler_params sp = small();
    sp.keep_replies = true;
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[800];
    random_ids(ids, 800, 384, 9);
    tq_request_params p = ask(ids, 300, 200, NULL);
    p.ignore_eos = true;
    heard *h = want_as_alone(s, model, &sp, p);
    memcpy(ids + 300, h->ids, 200 * sizeof *ids);
    forget(h);
    wait_idle(s, 300 + 448 - 256); /* from the prompt's last boundary to the reply's */
    assert_int_equal(stats_of(s).running, 0);
    h = want_as_alone(s, model, &sp, ask(ids, 530, 8, NULL));
    assert_int_equal(h->usage.cached_tokens, 448);
    forget(h);
    tq_scheduler_free(s);
    tq_model_free(model);
}

/* ---- budgets ---------------------------------------------------------------------------------------------------------- */

typedef struct log_lines {
    pthread_mutex_t lock;
    char text[1 << 16];
} log_lines;

static void keep_line(void *ctx, tq_log_level level, const char *text) {
    (void)level;
    log_lines *log = ctx;
    pthread_mutex_lock(&log->lock);
    if (strlen(log->text) + strlen(text) + 2 < sizeof log->text) strcat(strcat(log->text, text), "\n");
    pthread_mutex_unlock(&log->lock);
}

/* Far more prompts than fit: nothing fails, the limit holds, and what was taken is named. */
static void the_budget_is_hard_and_the_oldest_go(void **state) {
    (void)state;
    tq_model *model = open_model(TINY);
    tq_scheduler_params sp = small();
    log_lines *log = test_alloc(sizeof *log);
    pthread_mutex_init(&log->lock, NULL);
    sp.log = keep_line, sp.log_ctx = log;
    sp.cache_bytes = (size_t)5 << 20; /* a prompt of 1,000 tokens and its checkpoint: 1 MB */
    sp.parallel = 2;
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[1000];
    for (int i = 0; i < 8; i++) {
        random_ids(ids, 1000, 384, 40 + (uint64_t)i);
        forget(want_as_alone(s, model, &sp, ask(ids, 1000, 4, NULL)));
        assert_true(stats_of(s).cache_free < sp.cache_bytes);
    }
    tq_scheduler_stats stats = stats_of(s);
    assert_true(stats.checkpoints_evicted > 0 && stats.tree_checkpoints > 0);
    heard *h = want_as_alone(s, model, &sp, ask(ids, 1000, 4, NULL)); /* the newest is there */
    assert_int_equal(h->usage.cached_tokens, 960);
    forget(h);
    random_ids(ids, 1000, 384, 40);
    h = want_as_alone(s, model, &sp, ask(ids, 1000, 4, NULL));
    assert_int_equal(h->usage.cached_tokens, 0);
    forget(h);
    assert_int_equal(stats_of(s).prefix[TQ_PREFIX_EVICTED], 1);
    assert_non_null(strstr(log->text, "up to 960 had been kept, but the budget took it"));
    assert_non_null(strstr(log->text, "parts from it at token 0"));
    tq_scheduler_free(s);
    tq_model_free(model);
    free(log);
}

/* One may hold all of the budget: the others wait for their turn, and all get what they get alone. */
static void requests_wait_for_bytes_and_none_fails(void **state) {
    (void)state;
    tq_model *model = open_model(TINY);
    tq_scheduler_params sp = small();
    sp.cache_bytes = (size_t)5500 << 10;
    sp.cache.kv = "f16"; /* 2 KB a token: two requests of 1,000 tokens at once, not three */
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[6][1000];
    heard *h[6];
    tq_request_params p[6];
    for (int i = 0; i < 6; i++) {
        random_ids(ids[i], 1000, 384, 60 + (uint64_t)i);
        h[i] = listener();
        p[i] = ask(ids[i], 960, 40, h[i]);
        p[i].ignore_eos = true;
        submit(s, &p[i], h[i]);
    }
    int most_running = 0;
    for (bool all = false; !all;) {
        tq_scheduler_stats stats = stats_of(s);
        if (stats.running > most_running) most_running = stats.running;
        all = stats.finished[TQ_REQUEST_LENGTH] == 6 || stats.finished[TQ_REQUEST_FAILED] > 0;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    assert_true(most_running <= 2);
    for (int i = 0; i < 6; i++) {
        wait_done(h[i]);
        assert_string_equal(h[i]->error, "");
        tq_generate_result want = alone(model, &sp, &p[i]);
        want_same(h[i], &want, "after waiting");
        tq_generate_result_free(&want);
        forget(h[i]);
    }
    tq_scheduler_free(s);
    tq_model_free(model);
}

/* Whatever cannot be is refused at once, with both numbers, and nothing comes of it. */
/* Rotations of random codecs are drawn for the first request that asks for the codec, not for each; who shares them gets what
 * it gets alone. */
static void tables_of_a_codec_are_made_once(void **state) {
    (void)state;
    tq_scheduler_params sp = small();
    tq_model *model = open_model(TINY);
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t ids[300];
    random_ids(ids, 300, 384, 21);
    size_t none = stats_of(s).table_bytes, first = 0;
    assert_true(stats_of(s).work_bytes > 0);
    for (int i = 0; i < 3; i++) {
        tq_request_params p = ask(ids + i, 290, 5, NULL);
        p.kv = "paper:3.5";
        heard *h = want_as_alone(s, model, &sp, p);
        assert_true(h->usage.cache.packed_tokens > 0);
        if (i == 0) first = stats_of(s).table_bytes;
        forget(h);
    }
    assert_true(first > none);
    assert_int_equal(stats_of(s).table_bytes, first);
    tq_scheduler_free(s);
    tq_model_free(model);
}

static void what_cannot_be_is_refused_with_both_numbers(void **state) {
    (void)state;
    tq_model *model = open_model(TINY);
    tq_scheduler_params sp = small();
    sp.cache_bytes = (size_t)6 << 20;
    sp.parallel = 1;
    sp.queue_limit = 1;
    tq_scheduler *s = open_scheduler(model, &sp);
    int32_t *ids = test_alloc(5000 * sizeof *ids);
    random_ids(ids, 5000, 384, 1);
    heard *h = listener();
    tq_request *r;
    tq_request_params p = ask(ids, 4000, 97, h);
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_FULL, "context of 4096 tokens: no room for a prompt of 4000 and a reply of 97");
    p.n_ids = 4097, p.max_tokens = 0;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_FULL, "4097");
    p.n_ids = 4000, p.max_tokens = 96, p.kv = "f16";
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_FULL, "cache budget of 6291456 bytes: 4096 tokens can take");
    p.kv = "tq9";
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "tq9");
    p.kv = "";
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "");
    p.kv = NULL, p.n_ids = 0;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "prompt");
    p.n_ids = 10, ids[3] = 384;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "token id 384 is outside the vocabulary of 384");
    ids[3] = 5, p.n_logprobs = 21;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "n_logprobs");
    const char *stops[] = {"x"};
    p.n_logprobs = -1, p.stops = stops, p.n_stops = 1;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_UNSUPPORTED, "no tokenizer");
    p.n_stops = 0, p.sampling.temp = -1;
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_INVALID, "temp");
    assert_int_equal(h->starts + h->dones, 0);
    assert_int_equal(stats_of(s).refused_full, 3);

    heard *first = listener(), *second = listener();
    tq_request_params long_one = ask(ids, 2000, 500, first), next = ask(ids, 10, 4, second);
    long_one.ignore_eos = true;
    submit(s, &long_one, first);
    submit(s, &next, second);
    p = ask(ids, 10, 4, h);
    FAILS(tq_scheduler_submit(s, &p, &r, &e), TQ_BUSY, "2 requests run or wait already: 1 may run, and 1 wait");
    tq_request_cancel(first->request);
    wait_done(second);
    assert_string_equal(second->error, "");
    assert_int_equal(first->finish, TQ_REQUEST_CANCELLED);
    assert_int_equal(stats_of(s).refused_busy, 1);
    forget(first), forget(second);
    free(h);
    tq_scheduler_free(s);
    tq_scheduler *none;
    sp.cache_bytes = 1000;
    FAILS(tq_scheduler_new(model, &sp, &none, &e), TQ_FULL, "1000");
    sp.cache_bytes = (size_t)1 << 50;
    FAILS(tq_scheduler_new(model, &sp, &none, &e), TQ_NO_MEMORY, "the model and the cache budget want 1125899"); /* MB */
    sp.cache_bytes = 1 << 24, sp.parallel = 65;
    FAILS(tq_scheduler_new(model, &sp, &none, &e), TQ_INVALID, "parallel");
    tq_model_free(model);
    free(ids);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_together_get_what_they_get_alone),
        cmocka_unit_test(so_do_those_of_hybrid_and_sliding_models),
        cmocka_unit_test(a_reused_prefix_gives_the_bits_of_a_cold_run),
        cmocka_unit_test(so_do_recurrent_states_and_sliding_windows),
        cmocka_unit_test(prompts_that_part_share_what_they_have_in_common),
        cmocka_unit_test(choices_wait_for_the_first_ones_prefill),
        cmocka_unit_test(replies_join_the_tree_when_idle),
        cmocka_unit_test(the_budget_is_hard_and_the_oldest_go),
        cmocka_unit_test(requests_wait_for_bytes_and_none_fails),
        cmocka_unit_test(tables_of_a_codec_are_made_once),
        cmocka_unit_test(what_cannot_be_is_refused_with_both_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
