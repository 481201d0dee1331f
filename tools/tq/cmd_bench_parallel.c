/* cmd_bench_parallel.c: `tq bench parallel`: how many tokens a second come of several requests that decode together?
 *
 * Requests go through the scheduler, as those of `tq serve` do: sampling, text and events are in the time.  Counted are the
 * tokens from the moment on when the last request has its first one: prompts are not.  Those that begin earlier decode meanwhile,
 * and all go on until enough have been counted.  A request must get the same tokens in every company. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_cell.h"
#include "bench_kinds.h"
#include "bench_table.h"
#include "json_out.h"
#include "setup.h"
#include "terminal.h"
#include "turboquant/tq_bench.h"
#include "turboquant/tq_scheduler.h"

enum { SIZES_CAP = 16, EARLY_TOKENS = 32 }; /* EARLY_TOKENS: room for what is decoded during each other's prompt */

typedef struct plan {
    int sizes[SIZES_CAP], n_sizes, most; /* requests at once; the largest */
    int prompt, decode, repeats;
    const char *kv;
    tq_key_centre key_centre;
    int32_t *prompts;  /* (most, prompt) */
    int room;          /* tokens that a request can come to */
    int32_t *expected; /* (most, room): what a request got so far, */
    int *n_expected;   /* (most): and how many */
} plan;

/* One group of requests.  Callbacks come one at a time; the lock is for who waits. */
typedef struct group {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    int n, n_started, n_done, counted, wanted;
    double from, to; /* of the time in which all decode; to: 0 until it is over */
    double cpu_from, cpu_to; /* the same of the processors' time */
    bool failed;
    char error[256];
} group;

typedef struct seat {
    group *group;
    int32_t *ids; /* (room) */
    int n_ids;
} seat;

/* Of all threads: it says more than the clock where the machine has other work. */
static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void on_event(void *ctx, tq_request *request, const tq_event *e) {
    seat *s = ctx;
    group *g = s->group;
    double now = terminal_seconds();
    pthread_mutex_lock(&g->lock);
    if (e->kind == TQ_EVENT_TOKEN) {
        s->ids[s->n_ids++] = e->id;
        if (g->n_started == g->n && g->to == 0 && ++g->counted == g->wanted) g->to = now, g->cpu_to = cpu_seconds();
        if (s->n_ids == 1 && ++g->n_started == g->n) g->from = now, g->cpu_from = cpu_seconds();
    } else if (e->kind == TQ_EVENT_DONE) {
        if (g->to == 0 && !g->failed) {
            g->failed = true;
            snprintf(g->error, sizeof g->error, "a request of %d ended before enough tokens had been counted: %s", g->n,
                     *e->error ? e->error : "others' prompts took too long");
        }
        g->n_done++;
        pthread_cond_signal(&g->ended);
    }
    bool over = g->to != 0 || g->failed;
    pthread_mutex_unlock(&g->lock);
    if (over && e->kind == TQ_EVENT_TOKEN) tq_request_cancel(request);
}

static tq_status submit(tq_scheduler *scheduler, const plan *p, int index, seat *s, tq_error *err) {
    tq_request_params params = tq_request_params_default();
    tq_request *request;
    params.ids = p->prompts + (size_t)index * (size_t)p->prompt;
    params.n_ids = p->prompt;
    params.max_tokens = p->room;
    params.ignore_eos = true;
    params.use_cache = false;
    params.on_event = on_event;
    params.ctx = s;
    tq_status status = tq_scheduler_submit(scheduler, &params, &request, err);
    if (status == TQ_OK) tq_request_release(request);
    return status;
}

static void wait_for(group *g, int n) {
    pthread_mutex_lock(&g->lock);
    while (g->n_done < n) pthread_cond_wait(&g->ended, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

/* What a request got before says what it has to get again.  0: all did; else 1 + the request. */
static int first_difference(plan *p, const seat *seats, int n) {
    for (int i = 0; i < n; i++) {
        int32_t *expected = p->expected + (size_t)i * (size_t)p->room;
        int both = seats[i].n_ids < p->n_expected[i] ? seats[i].n_ids : p->n_expected[i];
        if (memcmp(expected, seats[i].ids, (size_t)both * sizeof *expected) != 0) return i + 1;
        if (both == seats[i].n_ids) continue;
        memcpy(expected, seats[i].ids, (size_t)seats[i].n_ids * sizeof *expected);
        p->n_expected[i] = seats[i].n_ids;
    }
    return 0;
}

/* n requests at once: tokens a second of all together, and processor time a token; 0 or the code to exit with. */
static int run_group(const char *name, tq_scheduler *scheduler, plan *p, int n, double *tokens_per_s, double *cpu_ms) {
    group g = {.lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER, .n = n, .wanted = n * p->decode};
    seat *seats = calloc((size_t)n, sizeof *seats);
    int32_t *ids = calloc((size_t)n * (size_t)p->room, sizeof *ids);
    if (!seats || !ids) {
        free(seats), free(ids);
        return setup_fail(name, "out of memory");
    }
    tq_error err;
    tq_status status = TQ_OK;
    int submitted = 0;
    for (; submitted < n && status == TQ_OK; submitted += status == TQ_OK) {
        seats[submitted] = (seat){&g, ids + (size_t)submitted * (size_t)p->room, 0};
        status = submit(scheduler, p, submitted, &seats[submitted], &err);
    }
    wait_for(&g, submitted);
    int code = EXIT_SUCCESS, wrong = 0;
    if (status != TQ_OK) code = setup_fail(name, "%s", err.text);
    else if (g.failed) code = setup_fail(name, "%s", g.error);
    else if ((wrong = first_difference(p, seats, n)) != 0)
        code = setup_fail(name, "request %d of %d got other tokens than before, in other company", wrong, n);
    *tokens_per_s = g.counted / (g.to - g.from);
    *cpu_ms = 1e3 * (g.cpu_to - g.cpu_from) / g.counted;
    free(seats), free(ids);
    return code;
}

/* ---- what is printed ---------------------------------------------------------------------------------------------------- */

typedef struct figures {
    double runs[SIZES_CAP][BENCH_REPEATS_CAP], cpu_runs[SIZES_CAP][BENCH_REPEATS_CAP];
    double median[SIZES_CAP], spread[SIZES_CAP], cpu_ms[SIZES_CAP];
} figures;

static void sum_up(const plan *p, figures *f) {
    for (int s = 0; s < p->n_sizes; s++) {
        f->median[s] = bench_median(f->runs[s], p->repeats); /* sorts */
        f->cpu_ms[s] = bench_median(f->cpu_runs[s], p->repeats);
        f->spread[s] = (f->runs[s][p->repeats - 1] - f->runs[s][0]) / f->median[s];
    }
}

static int print_json(const plan *p, const figures *f, const tq_model_info *info, const char *kv) {
    jout j = {0};
    jout_object(&j);
    jout_put_string(&j, "version", tq_version());
    jout_put_string(&j, "weights", info->weights);
    jout_put_string(&j, "backend", info->backend);
    jout_put_int(&j, "threads", info->n_threads);
    jout_put_string(&j, "kv", kv);
    jout_put_int(&j, "prompt", p->prompt);
    jout_put_int(&j, "decode", p->decode);
    jout_put_int(&j, "repeats", p->repeats);
    jout_key(&j, "results");
    jout_array(&j);
    for (int s = 0; s < p->n_sizes; s++) {
        jout_object(&j);
        jout_put_int(&j, "requests", p->sizes[s]);
        jout_put_number(&j, "tokens_per_s", f->median[s]);
        jout_put_number(&j, "spread", f->spread[s]);
        jout_put_number(&j, "over_first", f->median[s] / f->median[0]);
        jout_put_number(&j, "cpu_ms_per_token", f->cpu_ms[s]);
        jout_end(&j);
    }
    jout_end(&j);
    jout_end(&j);
    return jout_print(&j, stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void print_table(const plan *p, const figures *f, const tq_model_info *info, const char *kv, bool csv) {
    if (csv) printf("requests,tokens_per_s,spread,over_first,cpu_ms_per_token\n");
    else
        printf("tq %s, %s, %s, %d threads, %s; prompts of %d tokens, %d decoded, median of %d\n\n%8s %9s %5s %13s %11s %13s\n", tq_version(),
               info->weights, info->backend, info->n_threads, kv, p->prompt, p->decode, p->repeats, "requests", "tok/s", "+-",
               "each, tok/s", "over first", "CPU ms/token");
    for (int s = 0; s < p->n_sizes; s++) {
        double over = f->median[s] / f->median[0];
        if (csv) printf("%d,%.3f,%.3f,%.3f,%.4f\n", p->sizes[s], f->median[s], f->spread[s], over, f->cpu_ms[s]);
        else
            printf("%8d %9.1f %4.0f%% %13.1f %10.2fx %13.3f\n", p->sizes[s], f->median[s], 100 * f->spread[s],
                   f->median[s] / p->sizes[s], over, f->cpu_ms[s]);
    }
}

/* ---- the command ---------------------------------------------------------------------------------------------------------- */

static int make_prompts(const char *name, plan *p, int vocab) {
    size_t count = (size_t)p->most * (size_t)p->prompt;
    p->room = p->decode + EARLY_TOKENS * p->most;
    p->prompts = malloc(count * sizeof *p->prompts);
    p->expected = malloc((size_t)p->most * (size_t)p->room * sizeof *p->expected);
    p->n_expected = calloc((size_t)p->most, sizeof *p->n_expected);
    if (!p->prompts || !p->expected || !p->n_expected) return setup_fail(name, "out of memory");
    bench_random_ids(p->prompts, count, vocab);
    return EXIT_SUCCESS;
}

static int measure(const char *name, tq_model *model, plan *p, figures *f, char kv[64]) {
    tq_scheduler_params params = tq_scheduler_params_default();
    tq_scheduler *scheduler;
    tq_scheduler_stats stats;
    tq_error err;
    params.parallel = p->most;
    params.ctx = p->prompt + p->room;
    params.cache.kv = p->kv;
    params.cache.key_centre = p->key_centre;
    params.keep_prompts = params.keep_replies = false;
    if (tq_scheduler_new(model, &params, &scheduler, &err) != TQ_OK) return setup_fail(name, "%s", err.text);
    tq_scheduler_get_stats(scheduler, &stats);
    snprintf(kv, 64, "%s", stats.kv);
    double unused, unused_cpu;
    int code = run_group(name, scheduler, p, p->sizes[0], &unused, &unused_cpu); /* pays for page tables */
    for (int r = 0; code == EXIT_SUCCESS && r < p->repeats; r++)
        for (int s = 0; code == EXIT_SUCCESS && s < p->n_sizes; s++)
            code = run_group(name, scheduler, p, p->sizes[s], &f->runs[s][r], &f->cpu_runs[s][r]);
    tq_scheduler_free(scheduler);
    return code;
}

int bench_parallel_main(int argc, char **argv) {
    static const char *const name = "bench parallel";
    plan p = {.prompt = 16, .decode = 64, .repeats = 3, .kv = tq_cache_config_default().kv};
    const char *requests = "1,2,4,8,16", *key_centre = NULL;
    bool json = false, csv = false;
    model_options from;
    options o;
    options_begin(&o, "tq bench parallel [OPTIONS]",
                  "Measure how many tokens a second several requests get that decode together, as tq serve runs them.\n"
                  "Each request must get the same tokens in every company.");
    options_add_model(&o, &from);
    options_heading(&o, "Requests");
    options_add(&o, (option_row){.name = "requests", .argument = "N,...", .type = OPTION_STRING, .to = &requests,
                                 .help = "at once (default 1,2,4,8,16)"});
    options_add(&o, (option_row){.name = "kv", .argument = "CODEC", .type = OPTION_STRING, .to = &p.kv,
                                 .help = "codec of keys and values (default tq3)"});
    options_add_key_centre(&o, &key_centre);
    options_add(&o, (option_row){.name = "prompt", .argument = "N", .type = OPTION_INT, .to = &p.prompt, .min = 1, .max = 1 << 20,
                                 .help = "random tokens of each prompt (default 16)"});
    options_add(&o, (option_row){.name = "decode", .argument = "N", .type = OPTION_INT, .to = &p.decode, .min = 4, .max = 1 << 20,
                                 .help = "tokens decoded by each while all decode (default 64)"});
    options_add(&o, (option_row){.name = "repeats", .argument = "N", .type = OPTION_INT, .to = &p.repeats, .min = 1,
                                 .max = BENCH_REPEATS_CAP, .help = "rounds; the median counts (default 3)"});
    options_add(&o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &json, .help = "print one JSON object"});
    options_add(&o, (option_row){.name = "csv", .type = OPTION_FLAG, .to = &csv, .help = "print comma-separated values"});
    int code = options_parse(&o, argc, argv, NULL);
    if (code == OPTIONS_RUN) code = options_read_key_centre(&o, key_centre, &p.key_centre);
    if (code != OPTIONS_RUN) return code;
    if (json && csv) return options_usage_error(&o, "--json and --csv: give one of them");
    p.n_sizes = bench_read_counts(requests, 1, TQ_MAX_PARALLEL, p.sizes, SIZES_CAP);
    if (p.n_sizes == 0)
        return options_usage_error(&o, "--requests: want up to %d counts of 1 to %d with commas between, got '%s'", SIZES_CAP,
                                   TQ_MAX_PARALLEL, requests);
    for (int s = 0; s < p.n_sizes; s++) p.most = p.sizes[s] > p.most ? p.sizes[s] : p.most;
    tq_model *model = NULL;
    code = setup_model(name, &from, &model, NULL);
    if (code != EXIT_SUCCESS) return code;
    figures *f = calloc(1, sizeof *f);
    char kv[64];
    code = f ? make_prompts(name, &p, tq_model_get_info(model)->vocab) : setup_fail(name, "out of memory");
    if (code == EXIT_SUCCESS) code = measure(name, model, &p, f, kv);
    if (code == EXIT_SUCCESS) {
        sum_up(&p, f);
        if (json) code = print_json(&p, f, tq_model_get_info(model), kv);
        else print_table(&p, f, tq_model_get_info(model), kv, csv);
    }
    free(f), free(p.prompts), free(p.expected), free(p.n_expected);
    tq_model_free(model);
    return code;
}
