/* eval_niah.c: `tq eval niah`: needles hidden in a text, by depth and length. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval_common.h"
#include "eval_measures.h"
#include "setup.h"

enum { LENGTHS_CAP = 16, DEPTHS_CAP = 32 };

typedef struct niah_options {
    eval_options e;
    const char *text, *lengths_text;
    int lengths[LENGTHS_CAP], n_lengths, n_depths, repeats;
    bool anywhere, raw;
} niah_options;

typedef struct niah_run {
    int right[CODEC_LIST_CAP][LENGTHS_CAP][DEPTHS_CAP];
    tq_needles_result sums[CODEC_LIST_CAP]; /* over documents */
    double packed_sum[CODEC_LIST_CAP];
} niah_run;

/* ---- measuring ------------------------------------------------------------------------------------------------------ */

static int measure_document(const niah_options *n, tq_model *m, const char *text, size_t text_n, int length, int repeat,
                            eval_watch *w, niah_run *run) {
    tq_needles_params np = tq_needles_params_default();
    np.length = n->lengths[length];
    np.n_needles = n->n_depths;
    np.anywhere = n->anywhere;
    np.raw = n->raw;
    np.seed = (uint64_t)(repeat * n->n_lengths + length + 1);
    np.cache = n->e.cache.config;
    tq_needles *needles = NULL;
    tq_error err;
    tq_status status = tq_needles_new(m, text, text_n, &np, &needles, &err);
    for (int i = 0; status == TQ_OK && i < n->e.codecs.n; i++) {
        tq_session_params params = eval_session_params(&n->e, n->e.codecs.names[i], w, np.length);
        bool found[DEPTHS_CAP];
        tq_needles_result r;
        status = tq_eval_needles(m, needles, &params, found, &r, &err);
        eval_watch_next(w);
        if (status != TQ_OK) break;
        for (int k = 0; k < n->n_depths; k++) run->right[i][length][k] += found[k];
        tq_needles_result *sum = &run->sums[i];
        sum->right += r.right, sum->total += r.total, sum->packed += r.packed, sum->seconds += r.seconds;
        sum->bits_per_value = r.bits_per_value;
        run->packed_sum[i] += r.packed_fraction;
    }
    tq_needles_free(needles);
    if (status == TQ_OK) return EXIT_SUCCESS;
    eval_watch_end(w);
    return setup_fail(n->e.command, "%s", err.text);
}

static int measure(const niah_options *n, tq_model *m, const char *text, size_t text_n, niah_run *run) {
    eval_watch w;
    double work = 0;
    for (int l = 0; l < n->n_lengths; l++) work += eval_work(n->lengths[l]);
    eval_watch_begin(&w, "niah", work * n->repeats * n->e.codecs.n);
    int code = EXIT_SUCCESS;
    for (int l = 0; code == EXIT_SUCCESS && l < n->n_lengths; l++)
        for (int r = 0; code == EXIT_SUCCESS && r < n->repeats; r++)
            code = measure_document(n, m, text, text_n, l, r, &w, run);
    eval_watch_end(&w);
    return code;
}

/* ---- reporting ------------------------------------------------------------------------------------------------------ */

static double depth_at(const niah_options *n, int k) { return n->n_depths > 1 ? (double)k / (n->n_depths - 1) : 0.5; }

/* Per cell a digit: tenths found; # is all of them. */
static void print_grids(const niah_options *n, const niah_run *run) {
    printf("\nfound by depth (top: the beginning) and length; # all, 0-9 tenths of %d\n", n->repeats);
    for (int i = 0; i < n->e.codecs.n; i++) {
        printf("\n%-8s", n->e.codecs.names[i]);
        for (int l = 0; l < n->n_lengths; l++) printf(" %6d", n->lengths[l]);
        printf("\n");
        for (int k = 0; k < n->n_depths; k++) {
            printf("%7.0f%%", 100 * depth_at(n, k));
            for (int l = 0; l < n->n_lengths; l++) {
                int right = run->right[i][l][k];
                printf(" %6c", right == n->repeats ? '#' : '0' + 10 * right / n->repeats);
            }
            printf("\n");
        }
    }
}

static int plot(const niah_options *n, const niah_run *run) {
    static double shares[CODEC_LIST_CAP][LENGTHS_CAP * DEPTHS_CAP];
    plot_grid grids[CODEC_LIST_CAP];
    char x[LENGTHS_CAP][16], y[DEPTHS_CAP][16];
    const char *xs[LENGTHS_CAP], *ys[DEPTHS_CAP];
    for (int l = 0; l < n->n_lengths; l++) snprintf(x[l], sizeof x[l], "%d", n->lengths[l]), xs[l] = x[l];
    for (int k = 0; k < n->n_depths; k++) snprintf(y[k], sizeof y[k], "%.0f %%", 100 * depth_at(n, k)), ys[k] = y[k];
    for (int i = 0; i < n->e.codecs.n; i++) {
        for (int k = 0; k < n->n_depths; k++)
            for (int l = 0; l < n->n_lengths; l++)
                shares[i][k * n->n_lengths + l] = (double)run->right[i][l][k] / n->repeats;
        grids[i] = (plot_grid){n->e.codecs.names[i], shares[i]};
    }
    return plot_heat_maps(n->e.command, n->e.plot, (plot_labels){"Needles found", "tokens", "depth"}, grids,
                          n->e.codecs.n, xs, n->n_lengths, ys, n->n_depths);
}

static int report(const niah_options *n, tq_model *m, const niah_run *run) {
    table results = {0}, details = {0};
    table_column(&results, "kv", "kv", TABLE_TEXT, 0);
    table_column(&results, "bits_per_value", "bits/value", TABLE_NUMBER, 3);
    table_column(&results, "right", "found", TABLE_INT, 0);
    table_column(&results, "total", "of", TABLE_INT, 0);
    table_column(&results, "needles_packed", "needles packed", TABLE_INT, 0);
    table_column(&results, "packed_fraction", "packed", TABLE_SHARE, 1);
    table_column(&results, "seconds", "seconds", TABLE_NUMBER, 1);
    table_column(&details, "kv", "kv", TABLE_TEXT, 0);
    table_column(&details, "length", "length", TABLE_INT, 0);
    table_column(&details, "depth", "depth", TABLE_NUMBER, 2);
    table_column(&details, "right", "found", TABLE_INT, 0);
    table_column(&details, "total", "of", TABLE_INT, 0);
    for (int i = 0; i < n->e.codecs.n; i++) {
        const tq_needles_result *r = &run->sums[i];
        table_text(&results, n->e.codecs.names[i]);
        table_number(&results, r->bits_per_value);
        table_number(&results, r->right);
        table_number(&results, r->total);
        table_number(&results, r->packed);
        table_number(&results, run->packed_sum[i] / (n->n_lengths * n->repeats));
        table_number(&results, r->seconds);
        for (int l = 0; l < n->n_lengths; l++)
            for (int k = 0; k < n->n_depths; k++) {
                table_text(&details, n->e.codecs.names[i]);
                table_number(&details, n->lengths[l]);
                table_number(&details, depth_at(n, k));
                table_number(&details, run->right[i][l][k]);
                table_number(&details, n->repeats);
            }
    }
    bool chat = tq_model_get_info(m)->has_chat_template && !n->raw;
    const eval_fact facts[] = {{"text", n->text, 0}, {"prompt", chat ? "chat template" : "raw", 0},
                               {"placed", n->anywhere ? "anywhere" : "packed", 0}};
    char headline[128];
    snprintf(headline, sizeof headline, "needles found; %s; %d documents a length, %d depths", chat ? "chat template" : "raw text",
             n->repeats, n->n_depths);
    int code = eval_report(&n->e, m, headline, facts, 3, (eval_tables){.results = &results, .details = &details});
    if (code == EXIT_SUCCESS && !n->e.json && !n->e.csv) print_grids(n, run);
    if (code == EXIT_SUCCESS && n->e.plot) code = plot(n, run);
    table_free(&results);
    table_free(&details);
    return code;
}

/* ---- the command ----------------------------------------------------------------------------------------------------- */

static int parse(int argc, char **argv, niah_options *n) {
    options o;
    options_begin(&o, "tq eval niah [--text FILE] [OPTIONS]",
                  "Hide sentences in a text and ask for them at its end: needles in a haystack, by depth and length.");
    options_add(&o, (option_row){.name = "text", .argument = "FILE", .type = OPTION_STRING, .to = &n->text,
                                 .help = "the haystack; - is stdin (default: the text that comes with the program)"});
    options_add(&o, (option_row){.name = "lengths", .argument = "N,...", .type = OPTION_STRING, .to = &n->lengths_text,
                                 .help = "tokens of a document (default 1024,2048,4096)"});
    options_add(&o, (option_row){.name = "depths", .argument = "N", .type = OPTION_INT, .to = &n->n_depths, .min = 1,
                                 .max = DEPTHS_CAP, .help = "needles of a document, at even depths (default 5)"});
    options_add(&o, (option_row){.name = "repeats", .argument = "N", .type = OPTION_INT, .to = &n->repeats, .min = 1,
                                 .max = 1000, .help = "documents of each length, with other needles (default 2)"});
    options_add(&o, (option_row){.name = "anywhere", .type = OPTION_FLAG, .to = &n->anywhere,
                                 .help = "depth 100 % is the end of the text, exact or not;\nelse the last place that is packed"});
    options_add(&o, (option_row){.name = "raw", .type = OPTION_FLAG, .to = &n->raw,
                                 .help = "no chat template: the model completes the needle's sentence"});
    eval_options_add(&o, &n->e, EVAL_COMPARED, "f16,tq3", "a heat map a cache");
    int code = options_parse(&o, argc, argv, NULL);
    if (code != OPTIONS_RUN) return code;
    n->n_lengths = eval_read_list(n->lengths_text, 1, 1 << 24, n->lengths, LENGTHS_CAP);
    if (n->n_lengths < 1)
        return options_usage_error(&o, "--lengths: want 1 to %d numbers with commas between, got '%s'", LENGTHS_CAP,
                                   n->lengths_text);
    return eval_options_read(&o, &n->e);
}

int eval_niah(int argc, char **argv) {
    niah_options n = {.e = {.command = "eval niah"}, .lengths_text = "1024,2048,4096", .n_depths = 5, .repeats = 2};
    int code = parse(argc, argv, &n);
    if (code != OPTIONS_RUN) return code;
    tq_model *m = NULL;
    char *text = NULL;
    size_t text_n = 0;
    code = eval_open(&n.e, &n.text, &m, &text, &text_n);
    niah_run *run = calloc(1, sizeof *run);
    if (code == EXIT_SUCCESS && !run) code = setup_fail(n.e.command, "out of memory");
    if (code == EXIT_SUCCESS) code = measure(&n, m, text, text_n, run);
    if (code == EXIT_SUCCESS) code = report(&n, m, run);
    free(run);
    free(text);
    tq_model_free(m);
    return code;
}
