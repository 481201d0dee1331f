/* eval_documents.c: see eval_documents.h. */
#include "eval_documents.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "setup.h"

/* ---- documents ------------------------------------------------------------------------------------------------------ */

typedef struct documents_options {
    eval_options e;
    const char *data, *text;
    int max_length, window, windows, positions;
    bool text_given; /* one of the options that only a text has */
} documents_options;

typedef struct documents {
    tq_model *model;
    tq_recall_data *data;
    bool *wanted; /* a document */
    int n;
} documents;

static void add_documents_options(options *o, documents_options *d) {
    options_add(o, (option_row){.name = "data", .argument = "FILE", .type = OPTION_STRING, .to = &d->data,
                                .help = "[{\"length\", \"ids\", \"answers\": [[from, to], ...]}, ...]"});
    options_add(o, (option_row){.name = "max-length", .argument = "N", .type = OPTION_INT, .to = &d->max_length, .min = 1,
                                .max = 1 << 26, .help = "leave out documents of more tokens"});
}

static void add_text_options(options *o, documents_options *d) {
    options_add(o, (option_row){.name = "text", .argument = "FILE", .type = OPTION_STRING, .to = &d->text,
                                .help = "instead of --data: windows of a text; - is stdin"});
    options_add(o, (option_row){.name = "window", .argument = "N", .type = OPTION_INT, .to = &d->window, .min = 2,
                                .max = 1 << 24, .given = &d->text_given, .help = "tokens of a window (default 2048)"});
    options_add(o, (option_row){.name = "windows", .argument = "N", .type = OPTION_INT, .to = &d->windows, .min = 1,
                                .max = 1 << 20, .given = &d->text_given,
                                .help = "how many, spread over the text (default 8)"});
    options_add(o, (option_row){.name = "positions", .argument = "N", .type = OPTION_INT, .to = &d->positions, .min = 1,
                                .max = 1 << 24, .given = &d->text_given,
                                .help = "predictions compared at the end of a window (default 256)"});
}

static int check_documents(const options *o, documents_options *d) {
    if (!d->data == !d->text) return options_usage_error(o, "want --data FILE or --text FILE, %s", d->data ? "got both" : "got neither");
    if (d->text && d->max_length) return options_usage_error(o, "--max-length: the windows of --text are all of one length");
    if (d->data && d->text_given) return options_usage_error(o, "--window, --windows and --positions: want --text FILE with them");
    if (d->text && d->positions >= d->window)
        return options_usage_error(o, "--positions %d: want fewer than the %d tokens of a window", d->positions, d->window);
    return OPTIONS_RUN;
}

static int open_data(const documents_options *d, documents *docs) {
    const char *name = d->e.command;
    tq_error err;
    tq_status status;
    if (d->data) status = tq_recall_open(d->data, &docs->data, &err);
    else {
        int32_t *ids = NULL;
        int n = 0, code = eval_read_tokens(name, docs->model, d->text, false, &ids, &n), n_prefix;
        if (code != EXIT_SUCCESS) return code;
        const int32_t *prefix = tq_prompt_prefix(docs->model, &n_prefix);
        status = tq_recall_from_text(prefix, n_prefix, ids, n, d->window, d->windows, d->positions, &docs->data, &err);
        tq_free(ids);
    }
    return status == TQ_OK ? EXIT_SUCCESS : setup_fail(name, "%s", err.text);
}

/* Open the model and the documents, at least one of which is to be measured. */
static int open_documents(const documents_options *d, documents *docs) {
    const char *name = d->e.command;
    int code = setup_model(name, &d->e.model, &docs->model, NULL);
    if (code == EXIT_SUCCESS) code = open_data(d, docs);
    if (code != EXIT_SUCCESS) return code;
    docs->n = tq_recall_documents(docs->data);
    docs->wanted = calloc((size_t)docs->n, sizeof *docs->wanted);
    if (!docs->wanted) return setup_fail(name, "out of memory");
    int shortest = 1 << 26;
    bool any = false, any_answers = false;
    for (int i = 0; i < docs->n; i++) {
        int length = tq_recall_length(docs->data, i);
        bool fits = !d->max_length || length <= d->max_length;
        any = any || fits;
        docs->wanted[i] = fits && tq_recall_positions(docs->data, i) > 0;
        any_answers = any_answers || docs->wanted[i];
        if (length < shortest) shortest = length;
    }
    if (!any) return setup_fail(name, "no document has at most %d tokens; the shortest has %d", d->max_length, shortest);
    return any_answers ? EXIT_SUCCESS : setup_fail(name, "the documents have no answers");
}

static void close_documents(documents *docs) {
    free(docs->wanted);
    tq_recall_free(docs->data);
    tq_model_free(docs->model);
}

/* ---- by length -------------------------------------------------------------------------------------------------------- */

/* Thousands of tokens, by which documents are grouped. */
static int length_class(int length) { return (length + 512) / 1024; }

/* Documents of a cache, summed by length: what the table of details holds. */
typedef struct length_sums {
    int length, documents, right, total, n, same_top;
    double kld;
} length_sums;

enum { LENGTHS_CAP = 64 };

static length_sums *sums_of(length_sums *sums, int *n, int length) {
    int i = 0;
    while (i < *n && sums[i].length != length_class(length)) i++;
    if (i == LENGTHS_CAP) return NULL;
    if (i == *n) sums[(*n)++] = (length_sums){.length = length_class(length)};
    return &sums[i];
}

/* Right answers by length, a line a cache, after the main table. */
static void print_lengths(const length_sums (*sums)[LENGTHS_CAP], int n_lengths, const codec_list *codecs) {
    table t = {0};
    char titles[TABLE_COLUMNS_CAP][16], text[32];
    int shown = n_lengths < TABLE_COLUMNS_CAP - 1 ? n_lengths : TABLE_COLUMNS_CAP - 1;
    table_column(&t, "kv", "answers at", TABLE_TEXT, 0);
    for (int k = 0; k < shown; k++) {
        snprintf(titles[k], sizeof titles[k], "%dK", sums[0][k].length);
        table_column(&t, titles[k], titles[k], TABLE_TEXT, 0);
    }
    for (int i = 0; i < codecs->n; i++) {
        table_text(&t, codecs->names[i]);
        for (int k = 0; k < shown; k++) {
            snprintf(text, sizeof text, "%d/%d", sums[i][k].right, sums[i][k].total);
            table_text(&t, text);
        }
    }
    printf("\n");
    table_print(&t, stdout);
    table_free(&t);
}

/* ---- recall ----------------------------------------------------------------------------------------------------------- */

typedef struct recall_run {
    length_sums sums[CODEC_LIST_CAP][LENGTHS_CAP];
    int n_lengths;
    table results, details;
} recall_run;

static int measure_recall(const eval_options *e, const documents *docs, recall_run *run) {
    eval_watch w;
    double work = 0;
    for (int doc = 0; doc < docs->n; doc++) work += docs->wanted[doc] ? eval_work(tq_recall_length(docs->data, doc)) : 0;
    eval_watch_begin(&w, "recall", work * e->codecs.n);
    int code = EXIT_SUCCESS;
    for (int i = 0; code == EXIT_SUCCESS && i < e->codecs.n; i++) {
        tq_recall_result sum = {0};
        double packed = 0;
        int n = 0, n_lengths = 0;
        for (int doc = 0; code == EXIT_SUCCESS && doc < docs->n; doc++) {
            if (!docs->wanted[doc]) continue;
            int length = tq_recall_length(docs->data, doc);
            tq_session_params params = eval_session_params(e, e->codecs.names[i], &w, length);
            tq_recall_result r;
            tq_error err;
            if (tq_eval_recall(docs->model, docs->data, doc, &params, &r, &err) != TQ_OK) {
                eval_watch_end(&w);
                code = setup_fail(e->command, "%s", err.text);
                break;
            }
            eval_watch_next(&w);
            length_sums *s = sums_of(run->sums[i], &n_lengths, length);
            if (s) s->documents++, s->right += r.right, s->total += r.total;
            sum.right += r.right, sum.total += r.total, sum.seconds += r.seconds;
            sum.bits_per_value = r.bits_per_value;
            packed += r.packed_fraction;
            n++;
        }
        run->n_lengths = n_lengths;
        table_text(&run->results, e->codecs.names[i]);
        table_number(&run->results, sum.bits_per_value);
        table_number(&run->results, sum.right);
        table_number(&run->results, sum.total);
        table_number(&run->results, packed / (n ? n : 1));
        table_number(&run->results, sum.seconds);
    }
    eval_watch_end(&w);
    return code;
}

static void detail_lengths(const eval_options *e, recall_run *run) {
    for (int i = 0; i < e->codecs.n; i++)
        for (int k = 0; k < run->n_lengths; k++) {
            const length_sums *s = &run->sums[i][k];
            table_text(&run->details, e->codecs.names[i]);
            table_number(&run->details, s->length);
            table_number(&run->details, s->documents);
            table_number(&run->details, s->right);
            table_number(&run->details, s->total);
        }
}

static int report_recall(const documents_options *d, const documents *docs, recall_run *run) {
    detail_lengths(&d->e, run);
    char headline[128];
    int n = 0;
    for (int i = 0; i < docs->n; i++) n += docs->wanted[i];
    snprintf(headline, sizeof headline, "answers that are right, of %d documents", n);
    const eval_fact facts[] = {{"data", d->data, 0}, {"documents", NULL, n}};
    int code = eval_report(&d->e, docs->model, headline, facts, 2,
                           (eval_tables){.results = &run->results, .details = &run->details});
    if (code == EXIT_SUCCESS && !d->e.json && !d->e.csv) print_lengths((const length_sums(*)[LENGTHS_CAP])run->sums, run->n_lengths, &d->e.codecs);
    if (code == EXIT_SUCCESS && d->e.plot)
        code = eval_plot_rates(&d->e, &run->results, 2,
                               (plot_labels){"Answers found", "bits a value, as allocated", "right answers"}, false);
    return code;
}

int eval_recall(int argc, char **argv) {
    documents_options d = {.e = {.command = "eval recall"}};
    options o;
    options_begin(&o, "tq eval recall --data FILE [OPTIONS]",
                  "Count right answers on documents of token ids with facts asked for at their end.");
    add_documents_options(&o, &d);
    eval_options_add(&o, &d.e, EVAL_COMPARED, "f16,tq3", "right answers over bits a value");
    int code = options_parse(&o, argc, argv, NULL);
    if (code == OPTIONS_RUN && !d.data) code = options_usage_error(&o, "want --data FILE");
    if (code == OPTIONS_RUN) code = eval_options_read(&o, &d.e);
    if (code != OPTIONS_RUN) return code;
    documents docs = {0};
    recall_run *run = calloc(1, sizeof *run);
    if (!run) return setup_fail(d.e.command, "out of memory");
    table_column(&run->results, "kv", "kv", TABLE_TEXT, 0);
    table_column(&run->results, "bits_per_value", "bits/value", TABLE_NUMBER, 3);
    table_column(&run->results, "right", "right", TABLE_INT, 0);
    table_column(&run->results, "total", "of", TABLE_INT, 0);
    table_column(&run->results, "packed_fraction", "packed", TABLE_SHARE, 1);
    table_column(&run->results, "seconds", "seconds", TABLE_NUMBER, 1);
    table_column(&run->details, "kv", "kv", TABLE_TEXT, 0);
    table_column(&run->details, "length_k", "length", TABLE_INT, 0);
    table_column(&run->details, "documents", "documents", TABLE_INT, 0);
    table_column(&run->details, "right", "right", TABLE_INT, 0);
    table_column(&run->details, "total", "of", TABLE_INT, 0);
    code = open_documents(&d, &docs);
    if (code == EXIT_SUCCESS) code = measure_recall(&d.e, &docs, run);
    if (code == EXIT_SUCCESS) code = report_recall(&d, &docs, run);
    table_free(&run->results);
    table_free(&run->details);
    free(run);
    close_documents(&docs);
    return code;
}

/* ---- kld --------------------------------------------------------------------------------------------------------------- */

double divergence_work(const eval_options *e, const tq_recall_data *data, const bool *wanted) {
    double work = 0;
    for (int doc = 0; doc < tq_recall_documents(data); doc++)
        work += wanted[doc] ? eval_work(tq_recall_length(data, doc)) : 0;
    return work * e->codecs.n;
}

static void add_detail(table *details, const char *kv, int document, int length, const tq_recall_result *recall,
                       const float *kld, int n, int same_top) {
    double sum = 0;
    for (int i = 0; kld && i < n; i++) sum += kld[i];
    table_text(details, kv);
    table_number(details, document);
    table_number(details, length);
    table_number(details, n);
    table_number(details, sum / n);
    table_number(details, (double)same_top / n);
    table_number(details, recall->right);
    table_number(details, recall->total);
}

static void add_recall(divergence_row *row, const tq_recall_result *r) {
    row->documents++;
    row->right += r->right;
    row->total += r->total;
    row->packed_sum += r->packed_fraction;
    row->seconds += r->seconds;
    row->bits_per_value = r->bits_per_value;
}

/* One document with every cache, against one run of the reference, which is row 0. */
static tq_status measure_document(const eval_options *e, tq_model *m, const tq_recall_data *data, int document,
                                  eval_watch *w, divergence_row *rows, table *details, tq_error *err) {
    int n = tq_recall_positions(data, document), length = tq_recall_length(data, document);
    tq_session_params params = eval_session_params(e, e->reference, w, length);
    tq_reference *reference = NULL;
    tq_status status = tq_reference_new(m, data, document, &params, &reference, err);
    eval_watch_next(w);
    if (status == TQ_OK) {
        add_recall(&rows[0], tq_reference_recall(reference));
        memset(rows[0].kld + rows[0].n, 0, (size_t)n * sizeof *rows[0].kld);
        rows[0].n += n;
        rows[0].same_top += n;
        rows[0].nll = NAN;
        if (details) add_detail(details, rows[0].kv, document, length, tq_reference_recall(reference), NULL, n, n);
    }
    for (int i = 1; status == TQ_OK && i < e->codecs.n; i++) {
        params = eval_session_params(e, e->codecs.names[i], w, length);
        tq_divergence_result r;
        float *kld = rows[i].kld + rows[i].n;
        status = tq_eval_divergence(m, data, document, &params, reference, kld, &r, err);
        eval_watch_next(w);
        if (status != TQ_OK) break;
        add_recall(&rows[i], &r.recall);
        rows[i].n += n;
        rows[i].same_top += r.same_top;
        rows[i].nll += r.nll * n;
        rows[i].reference_nll += r.reference_nll * n;
        if (details) add_detail(details, rows[i].kv, document, length, &r.recall, kld, n, r.same_top);
    }
    tq_reference_free(reference);
    return status;
}

int divergence_measure(const eval_options *e, tq_model *m, const tq_recall_data *data, const bool *wanted,
                       eval_watch *w, divergence_row *rows, table *details) {
    int n_documents = tq_recall_documents(data), positions = 0;
    for (int doc = 0; doc < n_documents; doc++) positions += wanted[doc] ? tq_recall_positions(data, doc) : 0;
    for (int i = 0; i < e->codecs.n; i++) {
        rows[i].kv = e->codecs.names[i];
        rows[i].kld = malloc(((size_t)positions + 1) * sizeof *rows[i].kld);
        if (!rows[i].kld) return setup_fail(e->command, "out of memory");
    }
    tq_error err;
    tq_status status = TQ_OK;
    for (int doc = 0; status == TQ_OK && doc < n_documents; doc++)
        if (wanted[doc]) status = measure_document(e, m, data, doc, w, rows, details, &err);
    if (e->codecs.n > 1) rows[0].nll = rows[1].reference_nll;
    if (status == TQ_OK) return EXIT_SUCCESS;
    eval_watch_end(w);
    return setup_fail(e->command, "%s", err.text);
}

void divergence_free(divergence_row *rows, int n) {
    for (int i = 0; rows && i < n; i++) free(rows[i].kld);
    free(rows);
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

divergence_summary divergence_summarize(divergence_row *row) {
    qsort(row->kld, (size_t)row->n, sizeof *row->kld, by_value);
    double sum = 0;
    for (int k = 0; k < row->n; k++) sum += row->kld[k];
    return (divergence_summary){sum / row->n, row->kld[row->n / 2], row->kld[(int)(0.99 * (row->n - 1))]};
}

static void add_kld_columns(table *results, table *details) {
    table_column(results, "kv", "kv", TABLE_TEXT, 0);
    table_column(results, "bits_per_value", "bits/value", TABLE_NUMBER, 3);
    table_column(results, "kld_mean", "mean KLD", TABLE_NUMBER, 5);
    table_column(results, "kld_median", "median", TABLE_NUMBER, 6);
    table_column(results, "kld_p99", "99%", TABLE_NUMBER, 5);
    table_column(results, "same_top", "same top", TABLE_SHARE, 2);
    table_column(results, "nll", "nll", TABLE_NUMBER, 4);
    table_column(results, "right", "right", TABLE_INT, 0);
    table_column(results, "total", "of", TABLE_INT, 0);
    table_column(results, "packed_fraction", "packed", TABLE_SHARE, 1);
    table_column(results, "seconds", "seconds", TABLE_NUMBER, 1);
    table_column(results, "positions", NULL, TABLE_INT, 0);
    table_column(details, "kv", "kv", TABLE_TEXT, 0);
    table_column(details, "document", "document", TABLE_INT, 0);
    table_column(details, "length", "length", TABLE_INT, 0);
    table_column(details, "positions", "positions", TABLE_INT, 0);
    table_column(details, "kld_mean", "mean KLD", TABLE_NUMBER, 5);
    table_column(details, "same_top", "same top", TABLE_SHARE, 2);
    table_column(details, "right", "right", TABLE_INT, 0);
    table_column(details, "total", "of", TABLE_INT, 0);
}

static void add_kld_row(table *results, divergence_row *r) {
    divergence_summary s = divergence_summarize(r);
    bool answers = r->total > 0;
    table_text(results, r->kv);
    table_number(results, r->bits_per_value);
    table_number(results, s.mean);
    table_number(results, s.median);
    table_number(results, s.p99);
    table_number(results, (double)r->same_top / r->n);
    table_number(results, r->nll / r->n);
    table_number(results, answers ? r->right : NAN);
    table_number(results, answers ? r->total : NAN);
    table_number(results, r->packed_sum / r->documents);
    table_number(results, r->seconds);
    table_number(results, r->n);
}

/* Right answers by length of document, from the details. */
static void print_kld_lengths(const eval_options *e, const table *details) {
    length_sums(*sums)[LENGTHS_CAP] = calloc(CODEC_LIST_CAP, sizeof *sums);
    int counts[CODEC_LIST_CAP] = {0};
    for (int row = 0; sums && row < table_rows(details); row++) {
        const table_cell *c = &details->cells[(size_t)row * (size_t)details->n_columns];
        int i = 0;
        while (strcmp(e->codecs.names[i], c[0].text) != 0) i++;
        length_sums *s = sums_of(sums[i], &counts[i], (int)c[2].number);
        if (s) s->right += (int)c[6].number, s->total += (int)c[7].number;
    }
    if (sums) print_lengths((const length_sums(*)[LENGTHS_CAP])sums, counts[0], &e->codecs);
    free(sums);
}

static int report_kld(const documents_options *d, const documents *docs, divergence_row *rows, const table *details) {
    table results = {0}, unused = {0};
    add_kld_columns(&results, &unused);
    for (int i = 0; i < d->e.codecs.n; i++) add_kld_row(&results, &rows[i]);
    char headline[128];
    snprintf(headline, sizeof headline, "KL divergence from %s, nats, at %d positions of %d documents", d->e.reference,
             rows[0].n, rows[0].documents);
    const eval_fact facts[] = {{"source", d->data ? d->data : d->text, 0}, {"documents", NULL, rows[0].documents}};
    int code = eval_report(&d->e, docs->model, headline, facts, 2,
                           (eval_tables){.results = &results, .details = details});
    if (code == EXIT_SUCCESS && !d->e.json && !d->e.csv && rows[0].total > 0) print_kld_lengths(&d->e, details);
    if (code == EXIT_SUCCESS && d->e.plot)
        code = eval_plot_rates(&d->e, &results, 2,
                               (plot_labels){"Rate and divergence", "bits a value, as allocated", "mean KL divergence, nats"}, true);
    table_free(&results);
    return code;
}

int eval_kld(int argc, char **argv) {
    documents_options d = {.e = {.command = "eval kld"}, .window = 2048, .windows = 8, .positions = 256};
    options o;
    options_begin(&o, "tq eval kld --data FILE | --text FILE [OPTIONS]",
                  "Measure how far compressed caches move the model's predictions, on documents or on windows of a text.");
    add_documents_options(&o, &d);
    add_text_options(&o, &d);
    eval_options_add(&o, &d.e, EVAL_COMPARED, "f16,tq3", "divergence over bits a value");
    int code = options_parse(&o, argc, argv, NULL);
    if (code == OPTIONS_RUN) code = check_documents(&o, &d);
    if (code == OPTIONS_RUN) code = eval_options_read(&o, &d.e);
    if (code != OPTIONS_RUN) return code;
    documents docs = {0};
    table details = {0}, unused = {0};
    add_kld_columns(&unused, &details);
    divergence_row *rows = calloc((size_t)d.e.codecs.n, sizeof *rows);
    code = rows ? open_documents(&d, &docs) : setup_fail(d.e.command, "out of memory");
    eval_watch w;
    if (code == EXIT_SUCCESS) {
        eval_watch_begin(&w, "kld", divergence_work(&d.e, docs.data, docs.wanted));
        code = divergence_measure(&d.e, docs.model, docs.data, docs.wanted, &w, rows, &details);
        eval_watch_end(&w);
    }
    if (code == EXIT_SUCCESS) code = report_kld(&d, &docs, rows, &details);
    divergence_free(rows, d.e.codecs.n);
    table_free(&details);
    close_documents(&docs);
    return code;
}
