/* eval_rows.c: `tq eval distortion`: codecs against theory, and on a model's own keys and values. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval_common.h"
#include "eval_measures.h"
#include "setup.h"

typedef struct rows_options {
    eval_options e;
    const char *text, *dump;
    int dim, vectors, tokens;
    bool alone, dim_given, model_given;
} rows_options;

/* ---- against theory -------------------------------------------------------------------------------------------------- */

static void add_theory_columns(table *t) {
    table_column(t, "kv", "kv", TABLE_TEXT, 0);
    table_column(t, "side", "side", TABLE_TEXT, 0);
    table_column(t, "codec", "codec", TABLE_TEXT, 0);
    table_column(t, "row_bits", "bits/value", TABLE_NUMBER, 3);
    table_column(t, "measured", "measured", TABLE_NUMBER, 6);
    table_column(t, "expected", "by theory", TABLE_NUMBER, 6);
    table_column(t, "deviation", "off by", TABLE_SHARE, 2);
}

static int measure_theory(const rows_options *r, int dim, table *t) {
    for (int i = 0; i < r->e.codecs.n; i++) {
        tq_cache_config config = r->e.cache.config;
        config.kv = r->e.codecs.names[i];
        tq_codec_distortion d[2];
        tq_error err;
        if (tq_eval_codecs(&config, dim, r->vectors, 1, d, &err) != TQ_OK) return setup_fail(r->e.command, "%s", err.text);
        int sides = strcmp(d[0].codec, d[1].codec) == 0 ? 1 : 2;
        for (int s = 0; s < sides; s++) {
            table_text(t, r->e.codecs.names[i]);
            table_text(t, sides == 1 ? "both" : s ? "values" : "keys");
            table_text(t, d[s].codec);
            table_number(t, d[s].bits_per_value);
            table_number(t, d[s].measured);
            table_number(t, d[s].expected < 0 ? NAN : d[s].expected);
            table_number(t, d[s].expected > 0 ? d[s].measured / d[s].expected - 1 : NAN);
        }
    }
    return EXIT_SUCCESS;
}

/* ---- on the model's rows ---------------------------------------------------------------------------------------------- */

static void add_model_columns(table *results, table *details) {
    table_column(results, "kv", "kv", TABLE_TEXT, 0);
    table_column(results, "bits_per_value", "bits/value", TABLE_NUMBER, 3);
    table_column(results, "key_error", "keys: error", TABLE_NUMBER, 6);
    table_column(results, "key_error_of_spread", "of spread", TABLE_NUMBER, 6);
    table_column(results, "value_error", "values: error", TABLE_NUMBER, 6);
    table_column(results, "value_error_of_spread", "of spread", TABLE_NUMBER, 6);
    table_column(details, "kv", "kv", TABLE_TEXT, 0);
    table_column(details, "layer", "layer", TABLE_INT, 0);
    table_column(details, "kv_head", "head", TABLE_INT, 0);
    table_column(details, "side", "side", TABLE_TEXT, 0);
    table_column(details, "error", "error", TABLE_NUMBER, 6);
    table_column(details, "error_of_spread", "of spread", TABLE_NUMBER, 6);
    table_column(details, "norm", "norm", TABLE_NUMBER, 2);
    table_column(details, "centre_energy", "in centre", TABLE_SHARE, 1);
    table_column(details, "centred", "centred", TABLE_TEXT, 0);
    table_column(details, "outlier_share", "in outliers", TABLE_SHARE, 1);
    table_column(details, "outlier_channels", "channels", TABLE_INT, 0);
    table_column(details, "rows", "rows", TABLE_INT, 0);
}

static int measure_cache(const rows_options *r, tq_model *m, const tq_kv_rows *rows, const char *kv, table *results,
                         table *details) {
    const tq_model_info *info = tq_model_get_info(m);
    int n = info->n_layers * info->n_kv_heads * 2;
    tq_distortion *d = malloc((size_t)n * sizeof *d);
    if (!d) return setup_fail(r->e.command, "out of memory");
    tq_cache_config config = r->e.cache.config;
    config.kv = kv;
    double bits = 0, sums[2][2] = {{0}};
    tq_error err;
    if (tq_eval_distortion(m, rows, &config, d, &bits, &err) != TQ_OK) {
        free(d);
        return setup_fail(r->e.command, "%s", err.text);
    }
    for (int i = 0; i < n; i++) {
        int layer = i / 2 / info->n_kv_heads, head = i / 2 % info->n_kv_heads;
        tq_kv_stats s = tq_kv_rows_stats(rows, layer, head, i % 2 == 1);
        sums[i % 2][0] += d[i].error / (n / 2);
        sums[i % 2][1] += d[i].error_of_spread / (n / 2);
        table_text(details, kv);
        table_number(details, layer);
        table_number(details, head);
        table_text(details, i % 2 ? "values" : "keys");
        table_number(details, d[i].error);
        table_number(details, d[i].error_of_spread);
        table_number(details, s.norm);
        table_number(details, s.centre_energy);
        table_text(details, i % 2 ? "-" : d[i].centred ? "yes" : "no");
        table_number(details, s.outlier_share);
        table_number(details, s.outlier_channels);
        table_number(details, d[i].rows);
    }
    free(d);
    table_text(results, kv);
    table_number(results, bits);
    for (int i = 0; i < 4; i++) table_number(results, sums[i / 2][i % 2]);
    return EXIT_SUCCESS;
}

static int dump_rows(const rows_options *r, tq_model *m, const tq_kv_rows *rows, int n) {
    const tq_model_info *info = tq_model_get_info(m);
    FILE *to = fopen(r->dump, "wb");
    bool ok = to != NULL;
    size_t count = (size_t)n * (size_t)info->head_dim;
    for (int i = 0; ok && i < info->n_layers * info->n_kv_heads * 2; i++)
        ok = fwrite(tq_kv_rows_get(rows, i / 2 / info->n_kv_heads, i / 2 % info->n_kv_heads, i % 2 == 1), sizeof(float),
                    count, to) == count;
    if (to && fclose(to) != 0) ok = false;
    return ok ? EXIT_SUCCESS : setup_fail(r->e.command, "%s: could not write the rows", r->dump);
}

static int measure_model(const rows_options *r, tq_model *m, const char *text, int *tokens, table *results, table *details) {
    int32_t *ids = NULL;
    int n = 0, code = eval_read_tokens(r->e.command, m, text, true, &ids, &n);
    if (code != EXIT_SUCCESS) return code;
    *tokens = n < r->tokens ? n : r->tokens;
    tq_kv_rows *rows = NULL;
    tq_error err;
    eval_watch w;
    eval_watch_begin(&w, "distortion", r->e.codecs.n + 1);
    if (tq_kv_rows_new(m, ids, *tokens, &rows, &err) != TQ_OK) code = setup_fail(r->e.command, "%s", err.text);
    tq_free(ids);
    for (int i = 0; code == EXIT_SUCCESS && i < r->e.codecs.n; i++) {
        progress_show(&w.bar, (i + 1.0) / (r->e.codecs.n + 1));
        code = measure_cache(r, m, rows, r->e.codecs.names[i], results, details);
    }
    eval_watch_end(&w);
    if (code == EXIT_SUCCESS && r->dump) code = dump_rows(r, m, rows, *tokens);
    tq_kv_rows_free(rows);
    return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------------ */

static int print_all(const rows_options *r, const tq_model *m, int dim, int tokens, const table *theory, const table *results,
                     const table *details) {
    char headline[160];
    snprintf(headline, sizeof headline, "|x - decoded|^2 / |x|^2 of %d random directions of dimension %d", r->vectors, dim);
    const eval_fact facts[] = {{"dim", NULL, dim}, {"vectors", NULL, r->vectors}, {"tokens", NULL, tokens}};
    if (!m) return eval_report(&r->e, NULL, headline, facts, 2, (eval_tables){.results = theory});
    if (!r->e.json && !r->e.csv) {
        printf("%s\n", headline);
        table_print(theory, stdout);
        snprintf(headline, sizeof headline, "\nthe model's own rows, %d tokens: mean over layers and heads; "
                                            "spread: about the mean of a page", tokens);
    }
    int code = eval_report(&r->e, m, headline, facts, 3, (eval_tables){results, details, theory});
    if (code == EXIT_SUCCESS && !r->e.json && !r->e.csv) {
        printf("\nby layer and head\n");
        table_print(details, stdout);
    }
    return code;
}

static int plot(const rows_options *r, const table *theory) {
    plot_point points[2 * CODEC_LIST_CAP];
    int n = 0;
    for (int i = 0; i < table_rows(theory); i++) {
        const table_cell *row = &theory->cells[(size_t)i * (size_t)theory->n_columns];
        points[n++] = (plot_point){row[2].text, row[3].number, row[4].number};
    }
    return plot_curves(r->e.command, r->e.plot,
                       (plot_labels){"Rate and distortion, random directions", "bits a value of a row", "relative squared error"},
                       true, points, n);
}

static int parse(int argc, char **argv, rows_options *r) {
    options o;
    options_begin(&o, "tq eval distortion [--text FILE] [OPTIONS]",
                  "What packing loses: of random vectors, for which theory knows it, and of the model's own keys and values.");
    options_add(&o, (option_row){.name = "text", .argument = "FILE", .type = OPTION_STRING, .to = &r->text,
                                 .help = "what the model reads (default: the text that comes with the program)"});
    options_add(&o, (option_row){.name = "tokens", .argument = "N", .type = OPTION_INT, .to = &r->tokens, .min = TQ_PAGE_TOKENS,
                                 .max = 1 << 20, .help = "how much of it (default 2048)"});
    options_add(&o, (option_row){.name = "alone", .type = OPTION_FLAG, .to = &r->alone,
                                 .help = "random vectors only; no model is opened"});
    options_add(&o, (option_row){.name = "dim", .argument = "N", .type = OPTION_INT, .to = &r->dim, .min = 4, .max = 1024,
                                 .given = &r->dim_given, .help = "with --alone: their dimension (default 128; else the model's)"});
    options_add(&o, (option_row){.name = "vectors", .argument = "N", .type = OPTION_INT, .to = &r->vectors, .min = 1,
                                 .max = 1 << 24, .help = "random vectors (default 10000)"});
    options_add(&o, (option_row){.name = "dump", .argument = "FILE", .type = OPTION_STRING, .to = &r->dump,
                                 .help = "write the rows: float32 (layers, heads, keys and values, tokens, dim)"});
    eval_options_add(&o, &r->e, EVAL_GIVEN, "f16,tq4,tq3,tq2", "distortion over bits a value");
    options_find(&o, "model")->given = &r->model_given;
    int code = options_parse(&o, argc, argv, NULL);
    if (code != OPTIONS_RUN) return code;
    if (r->alone && (r->text || r->dump || r->model_given))
        return options_usage_error(&o, "--alone opens no model: --model, --text and --dump have no meaning with it");
    if (!r->alone && r->dim_given) return options_usage_error(&o, "--dim: want --alone with it; a model has its own");
    return eval_options_read(&o, &r->e);
}

int eval_distortion(int argc, char **argv) {
    rows_options r = {.e = {.command = "eval distortion"}, .dim = 128, .vectors = 10000, .tokens = 2048};
    int code = parse(argc, argv, &r);
    if (code != OPTIONS_RUN) return code;
    const char *text = r.alone ? NULL : eval_text_path(&r.e, r.text);
    if (!text && !r.alone) return EXIT_FAILURE;
    tq_model *m = NULL;
    code = r.alone ? EXIT_SUCCESS : setup_model(r.e.command, &r.e.model, &m, NULL);
    if (code != EXIT_SUCCESS) return code;
    table theory = {0}, results = {0}, details = {0};
    add_theory_columns(&theory);
    add_model_columns(&results, &details);
    int dim = m ? tq_model_get_info(m)->head_dim : r.dim, tokens = 0;
    code = measure_theory(&r, dim, &theory);
    if (code == EXIT_SUCCESS && m) code = measure_model(&r, m, text, &tokens, &results, &details);
    if (code == EXIT_SUCCESS) code = print_all(&r, m, dim, tokens, &theory, &results, &details);
    if (code == EXIT_SUCCESS && r.e.plot) code = plot(&r, &theory);
    table_free(&theory);
    table_free(&results);
    table_free(&details);
    tq_model_free(m);
    return code;
}
