/* cmd_eval.c: `tq eval`: is a model right, and does its compressed cache keep it so? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "json_out.h"
#include "setup.h"
#include "terminal.h"
#include "turboquant/tq_eval.h"

static int fail(const char *name, const tq_error *err) { return setup_fail(name, "%s", err->text); }

/* ---- golden ------------------------------------------------------------------------------------------------------ */

static int eval_golden(int argc, char **argv) {
    static const char *const name = "eval golden";
    model_options model = {0};
    cache_options cache;
    const char *golden = NULL;
    bool json = false;
    double tolerance = 2e-3;
    options o;
    options_begin(&o, "tq eval golden DIR [OPTIONS]", "Compare a model with the logits and greedy tokens of another implementation.");
    options_add(&o, (option_row){.name = "golden", .argument = "FILE", .type = OPTION_STRING, .to = &golden,
                                 .help = "the golden file (default: golden.safetensors in DIR)"});
    options_add(&o, (option_row){.name = "tolerance", .argument = "X", .type = OPTION_DOUBLE, .to = &tolerance, .min = 0,
                                 .max = 1e9, .help = "largest difference of a logit that passes (default 0.002)"});
    options_add(&o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &json, .help = "print one JSON object"});
    options_add_model(&o, &model);
    options_add_cache(&o, &cache);
    cache.config.kv = "f32";
    options_find(&o, "kv")->help = "codec of keys and values (default f32)";
    int first, code = options_parse(&o, argc, argv, &first);
    if (code == OPTIONS_RUN) code = options_check_cache(&o, &cache);
    if (code != OPTIONS_RUN) return code;
    if (cache.ctx) return options_usage_error(&o, "--ctx: the context is as long as each prompt needs");
    if (first + 1 < argc) return options_usage_error(&o, "want one directory, got '%s' too", argv[first + 1]);
    if (first < argc && model.model) return options_usage_error(&o, "want DIR or --model, got both");
    if (first < argc) model.model = argv[first];
    tq_model *m;
    code = setup_model(name, &model, &m, NULL);
    if (code != EXIT_SUCCESS) return code;

    char path[4096];
    snprintf(path, sizeof path, "%s/golden.safetensors", tq_model_get_info(m)->path);
    tq_session_params params = tq_session_params_default();
    params.cache = cache.config;
    tq_golden_result r;
    tq_error err;
    if (tq_eval_golden(m, golden ? golden : path, &params, &r, &err) != TQ_OK) {
        tq_model_free(m);
        return fail(name, &err);
    }
    bool pass = r.greedy_equal == r.n_prompts && r.max_abs_diff <= tolerance;
    if (json) {
        jout j = {0};
        jout_object(&j);
        jout_put_number(&j, "max_abs_diff", r.max_abs_diff);
        jout_put_bool(&j, "greedy_equal", r.greedy_equal == r.n_prompts);
        jout_put_int(&j, "prompts", r.n_prompts);
        jout_put_int(&j, "prompts_greedy_equal", r.greedy_equal);
        jout_put_bool(&j, "pass", pass);
        jout_end(&j);
        jout_print(&j, stdout);
    } else {
        printf("%s: %s\n  largest logit difference  %.3g (%s %g)\n  greedy tokens equal       %d of %d prompts\n",
               pass ? "pass" : "FAIL", tq_model_get_info(m)->path, r.max_abs_diff,
               r.max_abs_diff <= tolerance ? "within" : "want at most", tolerance, r.greedy_equal, r.n_prompts);
    }
    tq_model_free(m);
    return pass ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- recall ------------------------------------------------------------------------------------------------------ */

enum { MAX_CODECS = 32, MAX_LENGTHS = 32 };

typedef struct recall_row {
    const char *kv;
    tq_recall_result total;
    double packed_sum;
    int documents;
    struct {
        int length, right, total;
    } by_length[MAX_LENGTHS]; /* in thousands of tokens, rounded */
    int n_lengths;
} recall_row;

static void count_document(recall_row *row, int length, const tq_recall_result *r) {
    int k = (length + 512) / 1024, i = 0;
    while (i < row->n_lengths && row->by_length[i].length != k) i++;
    if (i == row->n_lengths && i < MAX_LENGTHS) row->by_length[row->n_lengths++].length = k;
    if (i < MAX_LENGTHS) {
        row->by_length[i].right += r->right;
        row->by_length[i].total += r->total;
    }
    row->total.right += r->right;
    row->total.total += r->total;
    row->total.seconds += r->seconds;
    row->total.bits_per_value = r->bits_per_value;
    row->packed_sum += r->packed_fraction;
    row->documents++;
}

static void print_recall(const recall_row *rows, int n, bool json) {
    if (!json) {
        printf("%-18s %11s %10s %7s", "kv", "right/total", "bits/value", "packed");
        for (int l = 0; n && l < rows[0].n_lengths; l++) printf(" %8dK", rows[0].by_length[l].length);
        printf("\n");
        for (int i = 0; i < n; i++) {
            printf("%-18s %5d/%-5d %10.3f %6.1f%%", rows[i].kv, rows[i].total.right, rows[i].total.total,
                   rows[i].total.bits_per_value, 100 * rows[i].packed_sum / rows[i].documents);
            for (int l = 0; l < rows[i].n_lengths; l++)
                printf(" %4d/%-4d", rows[i].by_length[l].right, rows[i].by_length[l].total);
            printf("\n");
        }
        return;
    }
    jout j = {0};
    jout_object(&j);
    jout_key(&j, "results");
    jout_array(&j);
    for (int i = 0; i < n; i++) {
        jout_object(&j);
        jout_put_string(&j, "kv", rows[i].kv);
        jout_put_int(&j, "right", rows[i].total.right);
        jout_put_int(&j, "total", rows[i].total.total);
        jout_put_number(&j, "bits_per_value", rows[i].total.bits_per_value);
        jout_put_number(&j, "packed_fraction", rows[i].packed_sum / rows[i].documents);
        jout_put_number(&j, "seconds", rows[i].total.seconds);
        jout_end(&j);
    }
    jout_end(&j);
    jout_end(&j);
    jout_print(&j, stdout);
}

/* "a,b,c", where a comma inside "tq:k=A,v=B" belongs to the name.  Cuts `list` in place; the count, 0 if too many. */
static int split_codecs(char *list, const char **names) {
    int n = 0;
    for (char *at = list; at;) {
        if (n == MAX_CODECS) return 0;
        char *comma = strchr(at, ',');
        if (strncmp(at, "tq:", 3) == 0 && comma) comma = strchr(comma + 1, ',');
        if (comma) *comma++ = 0;
        names[n++] = at;
        at = comma;
    }
    return n;
}

typedef struct recall_options {
    model_options model;
    cache_options cache;
    const char *data, *kv;
    bool json;
    int max_length;
} recall_options;

static int run_recall(const recall_options *ro, tq_model *m, const tq_recall_data *data, const char **names, int n_names,
                      recall_row *rows) {
    int n_documents = tq_recall_documents(data), steps = 0;
    progress_bar bar;
    progress_begin(&bar, "recall");
    for (int i = 0; i < n_names; i++) {
        rows[i].kv = names[i];
        for (int d = 0; d < n_documents; d++, steps++) {
            progress_show(&bar, (double)steps / (n_names * n_documents));
            if (ro->max_length && tq_recall_length(data, d) > ro->max_length) continue;
            tq_session_params params = tq_session_params_default();
            params.cache = ro->cache.config;
            params.cache.kv = names[i];
            tq_recall_result r;
            tq_error err;
            if (tq_eval_recall(m, data, d, &params, &r, &err) != TQ_OK) {
                progress_end(&bar);
                return fail("eval recall", &err);
            }
            count_document(&rows[i], tq_recall_length(data, d), &r);
        }
    }
    progress_end(&bar);
    return EXIT_SUCCESS;
}

static int eval_recall(int argc, char **argv) {
    static const char *const name = "eval recall";
    recall_options ro = {0};
    options o;
    options_begin(&o, "tq eval recall --data FILE [OPTIONS]",
                  "Count right answers on documents of token ids with facts asked for at their end.");
    options_add(&o, (option_row){.name = "data", .argument = "FILE", .type = OPTION_STRING, .to = &ro.data,
                                 .help = "[{\"length\", \"ids\", \"answers\": [[from, to], ...]}, ...]"});
    options_add(&o, (option_row){.name = "max-length", .argument = "N", .type = OPTION_INT, .to = &ro.max_length, .min = 1,
                                 .max = 1 << 26, .help = "leave out documents of more tokens"});
    options_add(&o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &ro.json, .help = "print one JSON object"});
    options_add_model(&o, &ro.model);
    options_add_cache(&o, &ro.cache);
    option_row *kv = options_find(&o, "kv");
    kv->help = "one or more, with commas between (default f16,tq3)";
    kv->argument = "CODEC,...";
    int code = options_parse(&o, argc, argv, NULL);
    if (code != OPTIONS_RUN) return code;
    if (ro.cache.no_turboquant) return options_usage_error(&o, "--no-turboquant: name f16 in --kv instead");
    if (ro.cache.ctx) return options_usage_error(&o, "--ctx: the context is as long as each document needs");
    if (!ro.data) return options_usage_error(&o, "want --data FILE");
    char list[1024];
    const char *names[MAX_CODECS];
    const char *given = ro.cache.kv_given ? ro.cache.config.kv : "f16,tq3";
    if (strlen(given) >= sizeof list) return options_usage_error(&o, "--kv: the list is too long");
    strcpy(list, given);
    int n_names = split_codecs(list, names);
    if (n_names == 0) return options_usage_error(&o, "--kv: want at most %d codecs", MAX_CODECS);

    tq_model *m = NULL;
    tq_recall_data *data = NULL;
    tq_error err;
    recall_row *rows = calloc((size_t)n_names, sizeof *rows);
    code = rows ? setup_model(name, &ro.model, &m, NULL) : setup_fail(name, "out of memory");
    if (code == EXIT_SUCCESS && tq_recall_open(ro.data, &data, &err) != TQ_OK) code = fail(name, &err);
    if (code == EXIT_SUCCESS) code = run_recall(&ro, m, data, names, n_names, rows);
    if (code == EXIT_SUCCESS && rows[0].documents == 0)
        code = setup_fail(name, "no document has at most %d tokens", ro.max_length);
    if (code == EXIT_SUCCESS) print_recall(rows, n_names, ro.json);
    tq_recall_free(data);
    tq_model_free(m);
    free(rows);
    return code;
}

/* ---- eval --------------------------------------------------------------------------------------------------------- */

int cmd_eval(int argc, char **argv) {
    static const struct {
        const char *name, *help;
        int (*run)(int argc, char **argv);
    } kinds[] = {
        {"golden", "logits and greedy tokens against another implementation's", eval_golden},
        {"recall", "facts found in long documents, for any list of caches", eval_recall},
    };
    const char *want = argc > 1 ? argv[1] : NULL;
    for (size_t i = 0; want && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(want, kinds[i].name) == 0) return kinds[i].run(argc - 1, argv + 1);
    bool help = want && (strcmp(want, "--help") == 0 || strcmp(want, "-h") == 0);
    if (want && !help) fprintf(stderr, "tq eval: unknown measurement '%s'\n", want);
    fprintf(help ? stdout : stderr, "usage: tq eval KIND [OPTIONS]\n\n");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        fprintf(help ? stdout : stderr, "  %-8s %s\n", kinds[i].name, kinds[i].help);
    return help ? EXIT_SUCCESS : EXIT_USAGE;
}
