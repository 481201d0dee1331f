/* eval_common.c: see eval_common.h. */
#include "eval_common.h"

#include "gnuplot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "setup.h"

/* ---- options ------------------------------------------------------------------------------------------------------- */

static void add_comparison(options *o, eval_options *e) {
    e->reference = "f16";
    options_add(o, (option_row){.name = "reference", .argument = "CODEC", .type = OPTION_STRING, .to = &e->reference,
                                .help = "the exact cache that others are compared with (default f16)"});
    if (e->columns != EVAL_COMPARED) return;
    options_add(o, (option_row){.name = "no-control", .type = OPTION_FLAG, .to = &e->no_control,
                                .help = "leave out " EVAL_CONTROL ", which forgets and should be seen to"});
}

void eval_options_add(options *o, eval_options *e, eval_columns columns, const char *caches, const char *plot_help) {
    e->columns = columns;
    e->caches = caches;
    if (columns != EVAL_GIVEN) add_comparison(o, e);
    options_heading(o, "Output");
    options_add(o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &e->json, .help = "print one JSON object"});
    options_add(o, (option_row){.name = "csv", .type = OPTION_FLAG, .to = &e->csv, .help = "print comma-separated values"});
    options_add(o, (option_row){.name = "plot", .argument = "FILE.svg", .type = OPTION_STRING, .to = &e->plot,
                                .help = plot_help});
    options_add_model(o, &e->model);
    options_add_cache(o, &e->cache);
    snprintf(e->caches_help, sizeof e->caches_help, "one or more, with commas between (default %s);\n%s", caches,
             "window:N is a control that forgets what leaves a window");
    codec_list_option(o, e->caches_help);
}

bool eval_is_control(const char *kv) { return strncmp(kv, "window:", 7) == 0; }

static bool holds(const codec_list *list, const char *name) {
    for (int i = 0; i < list->n; i++)
        if (strcmp(list->names[i], name) == 0) return true;
    return false;
}

static int add_reference_and_control(const options *o, eval_options *e) {
    codec_list *list = &e->codecs;
    bool controlled = e->no_control || e->columns == EVAL_GIVEN;
    for (int i = 0; i < list->n; i++) {
        controlled = controlled || eval_is_control(list->names[i]);
        for (int k = 0; k < i; k++)
            if (strcmp(list->names[i], list->names[k]) == 0)
                return options_usage_error(o, "--kv: %s is named twice", list->names[i]);
    }
    if (e->columns == EVAL_GIVEN) return OPTIONS_RUN;
    int extra = !holds(list, e->reference) + !controlled;
    if (list->n + extra > CODEC_LIST_CAP)
        return options_usage_error(o, "--kv: want at most %d codecs, with reference and control", CODEC_LIST_CAP);
    int at = 0;
    while (at < list->n && strcmp(list->names[at], e->reference) != 0) at++;
    if (at == list->n) list->n++;
    memmove(list->names + 1, list->names, (size_t)at * sizeof *list->names);
    list->names[0] = e->reference;
    if (!controlled) list->names[list->n++] = EVAL_CONTROL;
    return OPTIONS_RUN;
}

int eval_options_read(const options *o, eval_options *e) {
    if (e->json && e->csv) return options_usage_error(o, "--json and --csv: give one of them");
    if (e->cache.codec_given)
        return options_usage_error(o, "--key-bits, --value-bits and --value-group-size: name the codecs in --kv instead");
    int code = options_read_key_centre(o, e->cache.key_centre, &e->cache.config.key_centre);
    if (code == OPTIONS_RUN) code = codec_list_read(o, &e->cache, e->caches, &e->codecs);
    if (code == OPTIONS_RUN) code = add_reference_and_control(o, e);
    if (code == OPTIONS_RUN && e->plot && gnuplot_check(e->command, e->plot) != EXIT_SUCCESS) return EXIT_FAILURE;
    return code;
}

int eval_read_list(const char *text, int min, int max, int *out, int cap) {
    int n = 0;
    for (const char *at = text;; at++) {
        char *end;
        if (*at < '0' || *at > '9' || n == cap) return -1;
        long value = strtol(at, &end, 10);
        if (value < min || value > max || (*end && *end != ',')) return -1;
        out[n++] = (int)value;
        if (!*end) return n;
        at = end;
    }
}

/* ---- progress ------------------------------------------------------------------------------------------------------- */

double eval_work(int tokens) { return tokens * (1 + tokens / 16384.0); }

void eval_watch_begin(eval_watch *w, const char *what, double total) {
    *w = (eval_watch){.total = total > 0 ? total : 1};
    progress_begin(&w->bar, what);
}

void eval_watch_end(eval_watch *w) { progress_end(&w->bar); }

static bool watch_tokens(void *ctx, int done, int total) {
    eval_watch *w = ctx;
    double share = total > 0 ? eval_work(done) / eval_work(total) : 1;
    progress_show(&w->bar, (w->done + w->item * (share < 1 ? share : 1)) / w->total);
    return true;
}

tq_session_params eval_session_params(const eval_options *e, const char *kv, eval_watch *w, int tokens) {
    tq_session_params params = tq_session_params_default();
    params.cache = e->cache.config;
    params.cache.kv = kv;
    params.progress = watch_tokens;
    params.progress_ctx = w;
    w->item = eval_work(tokens);
    progress_show(&w->bar, w->done / w->total);
    return params;
}

void eval_watch_next(eval_watch *w) {
    w->done += w->item;
    w->item = 0;
}

/* ---- reports -------------------------------------------------------------------------------------------------------- */

static void put_settings(jout *j, const eval_options *e, const tq_model *model) {
    jout_put_string(j, "measurement", e->command);
    if (model) {
        const tq_model_info *info = tq_model_get_info(model);
        jout_put_string(j, "model", info->path);
        jout_put_string(j, "weights", info->weights);
        jout_put_string(j, "backend", info->backend);
    }
    if (e->columns != EVAL_GIVEN) jout_put_string(j, "reference", e->reference);
    jout_put_int(j, "buffer_size", e->cache.config.buffer_size);
    jout_put_int(j, "sinks", e->cache.config.sinks);
    jout_put_int(j, "flush_batch_size", e->cache.config.flush_batch_size);
    jout_put_string(j, "key_centre", options_key_centres[e->cache.config.key_centre]);
}

static bool failed(const table *t) { return t && t->failed; }

static void put_table(jout *j, const char *key, const table *t) {
    if (!t) return;
    jout_key(j, key);
    table_json(t, j);
}

int eval_report(const eval_options *e, const tq_model *model, const char *headline, const eval_fact *facts, int n_facts,
                eval_tables t) {
    if (failed(t.results) || failed(t.details) || failed(t.theory))
        return setup_fail(e->command, "out of memory for the results");
    bool written = true;
    if (e->csv) table_csv(t.details ? t.details : t.results, stdout);
    else if (!e->json) {
        printf("%s\n", headline);
        table_print(t.results, stdout);
    } else {
        jout j = {0};
        jout_object(&j);
        put_settings(&j, e, model);
        for (int i = 0; i < n_facts; i++) {
            if (facts[i].text) jout_put_string(&j, facts[i].key, facts[i].text);
            else jout_put_number(&j, facts[i].key, facts[i].number);
        }
        put_table(&j, "theory", t.theory);
        put_table(&j, "results", t.results);
        put_table(&j, "details", t.details);
        jout_end(&j);
        written = jout_print(&j, stdout);
    }
    return written && fflush(stdout) == 0 ? EXIT_SUCCESS : setup_fail(e->command, "could not write the results");
}

int eval_plot_rates(const eval_options *e, const table *results, int y, plot_labels labels, bool log_y) {
    plot_point points[CODEC_LIST_CAP];
    int n = 0;
    for (int i = 0; i < table_rows(results) && n < CODEC_LIST_CAP; i++) {
        const table_cell *row = &results->cells[(size_t)i * (size_t)results->n_columns];
        if (!eval_is_control(row[0].text)) points[n++] = (plot_point){row[0].text, row[1].number, row[y].number};
    }
    return plot_curves(e->command, e->plot, labels, log_y, points, n);
}

/* ---- texts ---------------------------------------------------------------------------------------------------------- */

int eval_read_tokens(const char *command, tq_model *model, const char *path, bool prompt, int32_t **ids, int *n) {
    char *text = NULL;
    size_t length = 0, count = 0;
    int code = setup_read_text(command, path, &text, &length);
    if (code != EXIT_SUCCESS) return code;
    tq_error err;
    tq_status status = prompt ? tq_tokenize_prompt(model, text, length, false, ids, &count, &err)
                              : tq_tokenize(model, text, length, false, ids, &count, &err);
    free(text);
    if (status != TQ_OK) return setup_fail(command, "%s: %s", path, err.text);
    *n = (int)count;
    return EXIT_SUCCESS;
}

/* Beside the bundled model, or in the source tree; NULL if it is not there. */
static const char *bundled_text(char *path, size_t cap) {
    static const char *const beside[] = {"../models", "models", "../share/turboquant/models"};
    char own[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    char *slash = NULL;
    if (length > 0) {
        own[length] = 0;
        slash = strrchr(own, '/');
    }
    for (size_t i = 0; slash && i < sizeof beside / sizeof *beside; i++) {
        int n = snprintf(path, cap, "%.*s/%s/evaluation.txt", (int)(slash - own), own, beside[i]);
        if (n > 0 && (size_t)n < cap && access(path, R_OK) == 0) return path;
    }
    snprintf(path, cap, "%s/evaluation.txt", TQ_MODELS_SOURCE_DIR);
    return access(path, R_OK) == 0 ? path : NULL;
}

const char *eval_text_path(eval_options *e, const char *given) {
    const char *path = given ? given : bundled_text(e->bundled_text, sizeof e->bundled_text);
    if (!path) setup_fail(e->command, "the text that comes with the program is not there; want --text FILE");
    return path;
}

int eval_open(eval_options *e, const char **path, tq_model **model, char **text, size_t *n) {
    *path = eval_text_path(e, *path);
    int code = *path ? setup_model(e->command, &e->model, model, NULL) : EXIT_FAILURE;
    return code == EXIT_SUCCESS ? setup_read_text(e->command, *path, text, n) : code;
}
