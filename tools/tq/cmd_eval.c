/* cmd_eval.c: `tq eval`: is a model right, and does its compressed cache keep it so? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec_list.h"
#include "commands.h"
#include "eval_text.h"
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

enum { MAX_LENGTHS = 32 };

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

/* What recall and kld have in common. */
typedef struct documents_options {
    model_options model;
    cache_options cache;
    const char *data, *reference;
    bool json;
    int max_length;
    codec_list codecs;
} documents_options;

/* Options, then the codecs of --kv cut apart.  OPTIONS_RUN or the code to exit with. */
static int parse_documents(options *o, documents_options *d, int argc, char **argv) {
    options_add(o, (option_row){.name = "data", .argument = "FILE", .type = OPTION_STRING, .to = &d->data,
                                .help = "[{\"length\", \"ids\", \"answers\": [[from, to], ...]}, ...]"});
    options_add(o, (option_row){.name = "max-length", .argument = "N", .type = OPTION_INT, .to = &d->max_length, .min = 1,
                                .max = 1 << 26, .help = "leave out documents of more tokens"});
    options_add(o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &d->json, .help = "print one JSON object"});
    options_add_model(o, &d->model);
    options_add_cache(o, &d->cache);
    codec_list_option(o);
    int code = options_parse(o, argc, argv, NULL);
    if (code != OPTIONS_RUN) return code;
    if (!d->data) return options_usage_error(o, "want --data FILE");
    return codec_list_read(o, &d->cache, "f16,tq3", &d->codecs);
}

static tq_session_params params_for(const documents_options *d, const char *kv) {
    tq_session_params params = tq_session_params_default();
    params.cache = d->cache.config;
    params.cache.kv = kv;
    return params;
}

static bool skipped(const documents_options *d, const tq_recall_data *data, int document) {
    return d->max_length && tq_recall_length(data, document) > d->max_length;
}

/* Open the model and the documents, at least one of which is to be measured. */
static int open_documents(const char *name, const documents_options *d, tq_model **m, tq_recall_data **data) {
    int code = setup_model(name, &d->model, m, NULL);
    if (code != EXIT_SUCCESS) return code;
    tq_error err;
    if (tq_recall_open(d->data, data, &err) != TQ_OK) return fail(name, &err);
    int n = 0;
    for (int i = 0; i < tq_recall_documents(*data); i++) n += !skipped(d, *data, i);
    return n ? EXIT_SUCCESS : setup_fail(name, "no document has at most %d tokens", d->max_length);
}

static int run_recall(const char *name, const documents_options *d, tq_model *m, const tq_recall_data *data,
                      recall_row *rows) {
    int n_documents = tq_recall_documents(data), steps = 0;
    progress_bar bar;
    progress_begin(&bar, "recall");
    for (int i = 0; i < d->codecs.n; i++) {
        rows[i].kv = d->codecs.names[i];
        for (int doc = 0; doc < n_documents; doc++, steps++) {
            progress_show(&bar, (double)steps / (d->codecs.n * n_documents));
            if (skipped(d, data, doc)) continue;
            tq_session_params params = params_for(d, d->codecs.names[i]);
            tq_recall_result r;
            tq_error err;
            if (tq_eval_recall(m, data, doc, &params, &r, &err) != TQ_OK) {
                progress_end(&bar);
                return fail(name, &err);
            }
            count_document(&rows[i], tq_recall_length(data, doc), &r);
        }
    }
    progress_end(&bar);
    return EXIT_SUCCESS;
}

static int eval_recall(int argc, char **argv) {
    static const char *const name = "eval recall";
    documents_options d = {0};
    options o;
    options_begin(&o, "tq eval recall --data FILE [OPTIONS]",
                  "Count right answers on documents of token ids with facts asked for at their end.");
    int code = parse_documents(&o, &d, argc, argv);
    if (code != OPTIONS_RUN) return code;
    tq_model *m = NULL;
    tq_recall_data *data = NULL;
    recall_row *rows = calloc((size_t)d.codecs.n, sizeof *rows);
    code = rows ? open_documents(name, &d, &m, &data) : setup_fail(name, "out of memory");
    if (code == EXIT_SUCCESS) code = run_recall(name, &d, m, data, rows);
    if (code == EXIT_SUCCESS) print_recall(rows, d.codecs.n, d.json);
    tq_recall_free(data);
    tq_model_free(m);
    free(rows);
    return code;
}

/* ---- kld ---------------------------------------------------------------------------------------------------------- */

typedef struct kld_row {
    recall_row recall;
    float *kld; /* every position of every document */
    int n, same_top;
    double nll, reference_nll; /* sums */
} kld_row;

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print_kld(kld_row *rows, int n, const char *reference, bool json) {
    jout j = {0};
    if (json) {
        jout_object(&j);
        jout_put_string(&j, "reference", reference);
        jout_key(&j, "results");
        jout_array(&j);
    } else {
        printf("KL divergence from %s, nats, at %d positions\n", reference, rows[0].n);
        printf("%-18s %10s %9s %9s %9s %9s %11s %7s\n", "kv", "bits/value", "mean", "median", "99%", "same top",
               "right/total", "packed");
    }
    for (int i = 0; i < n; i++) {
        kld_row *r = &rows[i];
        qsort(r->kld, (size_t)r->n, sizeof *r->kld, by_value);
        double sum = 0;
        for (int k = 0; k < r->n; k++) sum += r->kld[k];
        double mean = sum / r->n, same = (double)r->same_top / r->n, packed = r->recall.packed_sum / r->recall.documents;
        double median = r->kld[r->n / 2], high = r->kld[(int)(0.99 * (r->n - 1))];
        if (!json) {
            printf("%-18s %10.3f %9.5f %9.6f %9.5f %8.2f%% %5d/%-5d %6.1f%%\n", r->recall.kv,
                   r->recall.total.bits_per_value, mean, median, high, 100 * same, r->recall.total.right,
                   r->recall.total.total, 100 * packed);
            continue;
        }
        jout_object(&j);
        jout_put_string(&j, "kv", r->recall.kv);
        jout_put_number(&j, "bits_per_value", r->recall.total.bits_per_value);
        jout_put_int(&j, "positions", r->n);
        jout_put_number(&j, "kld_mean", mean);
        jout_put_number(&j, "kld_median", median);
        jout_put_number(&j, "kld_p99", high);
        jout_put_number(&j, "same_top", same);
        jout_put_number(&j, "nll", r->nll / r->n);
        jout_put_number(&j, "reference_nll", r->reference_nll / r->n);
        jout_put_int(&j, "right", r->recall.total.right);
        jout_put_int(&j, "total", r->recall.total.total);
        jout_put_number(&j, "packed_fraction", packed);
        jout_end(&j);
    }
    if (!json) return;
    jout_end(&j);
    jout_end(&j);
    jout_print(&j, stdout);
}

/* One document with every codec, against one reference run. */
static tq_status measure_document(const documents_options *d, tq_model *m, const tq_recall_data *data, int document,
                                  kld_row *rows, progress_bar *bar, double done, double share, tq_error *err) {
    tq_session_params params = params_for(d, d->reference);
    tq_reference *reference = NULL;
    tq_status status = tq_reference_new(m, data, document, &params, &reference, err);
    for (int i = 0; status == TQ_OK && i < d->codecs.n; i++) {
        progress_show(bar, done + share * (i + 1) / (d->codecs.n + 1));
        params = params_for(d, d->codecs.names[i]);
        tq_divergence_result r;
        int n = tq_recall_positions(data, document);
        status = tq_eval_divergence(m, data, document, &params, reference, rows[i].kld + rows[i].n, &r, err);
        if (status != TQ_OK) break;
        rows[i].n += n;
        rows[i].same_top += r.same_top;
        rows[i].nll += r.nll * n;
        rows[i].reference_nll += r.reference_nll * n;
        count_document(&rows[i].recall, tq_recall_length(data, document), &r.recall);
    }
    tq_reference_free(reference);
    return status;
}

static int run_kld(const char *name, const documents_options *d, tq_model *m, const tq_recall_data *data, kld_row *rows) {
    int n_documents = tq_recall_documents(data), positions = 0;
    for (int doc = 0; doc < n_documents; doc++) positions += tq_recall_positions(data, doc);
    for (int i = 0; i < d->codecs.n; i++) {
        rows[i].recall.kv = d->codecs.names[i];
        rows[i].kld = malloc(((size_t)positions + 1) * sizeof *rows[i].kld);
        if (!rows[i].kld) return setup_fail(name, "out of memory");
    }
    progress_bar bar;
    progress_begin(&bar, "kld");
    tq_error err;
    tq_status status = TQ_OK;
    for (int doc = 0; status == TQ_OK && doc < n_documents; doc++)
        if (!skipped(d, data, doc))
            status = measure_document(d, m, data, doc, rows, &bar, (double)doc / n_documents, 1.0 / n_documents, &err);
    progress_end(&bar);
    if (status != TQ_OK) return fail(name, &err);
    return rows[0].n ? EXIT_SUCCESS : setup_fail(name, "the documents have no answers");
}

static int eval_kld(int argc, char **argv) {
    static const char *const name = "eval kld";
    documents_options d = {.reference = "f16"};
    options o;
    options_begin(&o, "tq eval kld --data FILE [OPTIONS]",
                  "Measure how far compressed caches move the model's predictions, on documents as in tq eval recall.");
    options_add(&o, (option_row){.name = "reference", .argument = "CODEC", .type = OPTION_STRING, .to = &d.reference,
                                 .help = "what the others are compared with (default f16)"});
    int code = parse_documents(&o, &d, argc, argv);
    if (code != OPTIONS_RUN) return code;
    tq_model *m = NULL;
    tq_recall_data *data = NULL;
    kld_row *rows = calloc((size_t)d.codecs.n, sizeof *rows);
    code = rows ? open_documents(name, &d, &m, &data) : setup_fail(name, "out of memory");
    if (code == EXIT_SUCCESS) code = run_kld(name, &d, m, data, rows);
    if (code == EXIT_SUCCESS) print_kld(rows, d.codecs.n, d.reference, d.json);
    for (int i = 0; rows && i < d.codecs.n; i++) free(rows[i].kld);
    free(rows);
    tq_recall_free(data);
    tq_model_free(m);
    return code;
}

/* ---- eval --------------------------------------------------------------------------------------------------------- */

int cmd_eval(int argc, char **argv) {
    static const struct {
        const char *name, *help;
        int (*run)(int argc, char **argv);
    } kinds[] = {
        {"ppl", "perplexity of a text, its past packed", eval_ppl},
        {"match", "greedy tokens against those of the exact cache", eval_match},
        {"golden", "logits and greedy tokens against another implementation's", eval_golden},
        {"kld", "divergence from the exact cache's predictions, for any list of caches", eval_kld},
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
