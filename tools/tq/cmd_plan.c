/* cmd_plan.c: tq plan MODEL: which context and which cache fit into memory, and how fast decoding can be at most. */
#include "commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec_list.h"
#include "json_out.h"
#include "options.h"
#include "setup.h"
#include "terminal.h"
#include "turboquant/tq_bench.h"
#include "turboquant/tq_plan.h"

enum { CONTEXTS_CAP = 24, SPEED_BYTES = 512 << 20 };

typedef struct planner {
    tq_model *model;
    const codec_list *codecs;
    int contexts[CONTEXTS_CAP], n_contexts;
    tq_memory memory;
    int64_t room; /* what a plan's total may be */
    double bandwidth; /* GB/s */
} planner;

/* "4096,16384"; 0 for anything else. */
static int read_contexts(const char *text, int most, int contexts[CONTEXTS_CAP]) {
    int n = 0;
    for (const char *at = text; n < CONTEXTS_CAP;) {
        char *end;
        long value = strtol(at, &end, 10);
        if (end == at || value < 1 || value > most || (*end && *end != ',')) return 0;
        contexts[n++] = (int)value;
        if (!*end) return n;
        at = end + 1;
    }
    return 0;
}

/* 4K and every fourfold of it, and what the model was made for. */
static int usual_contexts(int most, int contexts[CONTEXTS_CAP]) {
    int n = 0;
    for (int64_t c = 4096; c < most && n + 1 < CONTEXTS_CAP; c *= 4) contexts[n++] = (int)c;
    contexts[n++] = most;
    return n;
}

static tq_status plan_cell(const planner *p, const char *kv, int ctx, tq_plan *out, tq_error *err) {
    tq_session_params params = tq_session_params_default();
    params.cache.kv = kv;
    return tq_plan_session(p->model, &params, ctx, out, err);
}

static tq_status plan_fit(const planner *p, const char *kv, int *ctx, tq_error *err) {
    tq_session_params params = tq_session_params_default();
    params.cache.kv = kv;
    return tq_plan_fit(p->model, &params, p->room, ctx, err);
}

static double speed_bound(const planner *p, const tq_plan *plan) { return p->bandwidth * 1e9 / (double)plan->read_bytes; }

static int fail(const tq_error *err) { return setup_fail("plan", "%s", err->text); }

static int print_table(const planner *p) {
    const tq_model_info *info = tq_model_get_info(p->model);
    char a[32], b[32], c[32];
    printf("%s: %s of weights; room for %s (%s); %.1f GB/s of memory\n\n", info->path, terminal_bytes(a, (uint64_t)info->weight_bytes),
           terminal_bytes(b, (uint64_t)p->room), p->memory.limit, p->bandwidth);
    printf("%-18s %9s %12s %12s %12s %9s\n", "cache", "context", "its bytes", "in all", "tok/s below", "");
    for (int k = 0; k < p->codecs->n; k++) {
        const char *kv = p->codecs->names[k];
        tq_error err;
        int fits;
        for (int i = 0; i < p->n_contexts; i++) {
            tq_plan plan;
            if (plan_cell(p, kv, p->contexts[i], &plan, &err) != TQ_OK) return fail(&err);
            printf("%-18s %9d %12s %12s %12.1f %9s\n", i ? "" : kv, plan.ctx, terminal_bytes(a, (uint64_t)plan.cache_bytes),
                   terminal_bytes(c, (uint64_t)plan.total_bytes), speed_bound(p, &plan), plan.total_bytes <= p->room ? "fits" : "too much");
        }
        if (plan_fit(p, kv, &fits, &err) != TQ_OK) return fail(&err);
        if (fits) printf("%-18s %9d tokens of context fit%s\n", "", fits, fits == info->max_context ? ", all that the model was made for" : "");
        else printf("%-18s no context fits\n", "");
    }
    return fflush(stdout) == 0 ? EXIT_SUCCESS : setup_fail("plan", "cannot write to stdout");
}

static tq_status put_codec(const planner *p, jout *j, const char *kv, tq_error *err) {
    for (int i = 0; i < p->n_contexts; i++) {
        tq_plan plan;
        tq_status status = plan_cell(p, kv, p->contexts[i], &plan, err);
        if (status != TQ_OK) return status;
        jout_object(j);
        jout_put_string(j, "kv", kv);
        jout_put_int(j, "context", plan.ctx);
        jout_put_int(j, "mapped_bytes", plan.mapped_bytes);
        jout_put_int(j, "copied_bytes", plan.copied_bytes);
        jout_put_int(j, "cache_bytes", plan.cache_bytes);
        jout_put_int(j, "state_bytes", plan.state_bytes);
        jout_put_int(j, "work_bytes", plan.work_bytes);
        jout_put_int(j, "total_bytes", plan.total_bytes);
        jout_put_int(j, "read_bytes", plan.read_bytes);
        jout_put_number(j, "decode_tokens_per_s_bound", speed_bound(p, &plan));
        jout_put_bool(j, "fits", plan.total_bytes <= p->room);
        jout_end(j);
    }
    return TQ_OK;
}

static int print_json(const planner *p) {
    jout j = {0};
    tq_error err;
    tq_status status = TQ_OK;
    jout_object(&j);
    jout_put_string(&j, "model", tq_model_get_info(p->model)->path);
    jout_put_int(&j, "memory_bytes", p->room);
    jout_put_string(&j, "memory_limit", p->memory.limit);
    jout_put_number(&j, "bandwidth_gb_per_s", p->bandwidth);
    jout_key(&j, "plans");
    jout_array(&j);
    for (int k = 0; k < p->codecs->n && status == TQ_OK; k++) status = put_codec(p, &j, p->codecs->names[k], &err);
    jout_end(&j);
    jout_key(&j, "largest_context");
    jout_object(&j);
    for (int k = 0; k < p->codecs->n && status == TQ_OK; k++) {
        int fits;
        status = plan_fit(p, p->codecs->names[k], &fits, &err);
        if (status == TQ_OK) jout_put_int(&j, p->codecs->names[k], fits);
    }
    jout_end(&j);
    jout_end(&j);
    if (status == TQ_OK) return jout_print(&j, stdout) ? EXIT_SUCCESS : setup_fail("plan", "cannot write to stdout");
    free(j.data);
    return fail(&err);
}

/* The room for everything, what the open model has taken already included. */
static void find_room(planner *p, const model_options *o) {
    tq_plan plan;
    tq_memory_now(&p->memory);
    if (o->memory && options_parse_bytes(o->memory, &p->room)) {
        strcpy(p->memory.limit, "as given");
        return;
    }
    p->room = p->memory.available;
    if (plan_cell(p, "f16", 1, &plan, NULL) == TQ_OK) p->room += plan.copied_bytes;
}

int cmd_plan(int argc, char **argv) {
    const char *kv = "f16,tq4,tq3,tq2", *contexts = NULL;
    bool json = false;
    model_options model;
    codec_list codecs;
    tq_error err;
    options o;
    options_begin(&o, "tq plan [MODEL] [OPTIONS]",
                  "Tell which contexts fit into memory with which cache, and how fast a decoded token can be at most:\n"
                  "the weights and the cache that it reads, at the measured speed of this machine's memory.");
    options_add_model(&o, &model);
    options_heading(&o, "Plan");
    options_add(&o, (option_row){.name = "contexts", .argument = "N,...", .type = OPTION_STRING, .to = &contexts,
                                 .help = "tokens (default: 4096, fourfolds of it, and what the model was made for)"});
    options_add(&o, (option_row){.name = "kv", .argument = "CODEC,...", .type = OPTION_STRING, .to = &kv, .help = "caches (default f16,tq4,tq3,tq2)"});
    options_add(&o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &json, .help = "one JSON object on stdout"});
    int first, code = options_parse(&o, argc, argv, &first);
    if (code == OPTIONS_RUN) code = options_take_model(&o, &model, argc, argv, first);
    if (code == OPTIONS_RUN) code = codec_list_cut(&o, kv, &codecs);
    if (code != OPTIONS_RUN) return code;
    planner p = {.codecs = &codecs};
    code = setup_model("plan", &model, &p.model, NULL);
    if (code != EXIT_SUCCESS) return code;
    int most = tq_model_get_info(p.model)->max_context;
    p.n_contexts = contexts ? read_contexts(contexts, most, p.contexts) : usual_contexts(most, p.contexts);
    find_room(&p, &model);
    if (p.n_contexts == 0)
        code = options_usage_error(&o, "--contexts: want up to %d counts from 1 to %d with commas between, got '%s'", CONTEXTS_CAP, most, contexts);
    else if (tq_bench_read_bandwidth(model.threads, SPEED_BYTES, 3, &p.bandwidth, &err) != TQ_OK) code = fail(&err);
    else code = json ? print_json(&p) : print_table(&p);
    tq_model_free(p.model);
    return code;
}
