/* eval_text.c: measurements on a text: `tq eval ppl` and `tq eval match`. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval_common.h"
#include "eval_measures.h"
#include "setup.h"

/* What both have in common: a text cut into pieces of `window` tokens, evenly spread over it, each of which begins as a
 * prompt does. */
typedef struct text_options {
    eval_options e;
    const char *text;
    int window, pieces;
} text_options;

typedef struct text_pieces {
    tq_model *model;
    int32_t *ids; /* (n_pieces, window) */
    int n_pieces;
} text_pieces;

static int parse_text(options *o, text_options *t, int argc, char **argv) {
    int code = options_parse(o, argc, argv, NULL);
    if (code != OPTIONS_RUN) return code;
    if (!t->text) return options_usage_error(o, "want --text FILE");
    return eval_options_read(o, &t->e);
}

static int cut_pieces(const text_options *t, const int32_t *ids, int n_ids, text_pieces *p) {
    int n_prefix;
    const int32_t *prefix = tq_prompt_prefix(p->model, &n_prefix);
    int of_text = t->window - n_prefix;
    if (of_text < 1)
        return setup_fail(t->e.command, "a window of %d tokens: want more than the %d in front of a text", t->window,
                          n_prefix);
    if (n_ids < of_text)
        return setup_fail(t->e.command, "%s: %d tokens, want at least one window of %d", t->text, n_ids, of_text);
    int fit = n_ids / of_text;
    p->n_pieces = t->pieces && t->pieces < fit ? t->pieces : fit;
    size_t bytes = (size_t)p->n_pieces * (size_t)t->window * sizeof *p->ids;
    p->ids = malloc(bytes);
    if (!p->ids) return setup_fail(t->e.command, "out of memory: %zu bytes for the windows", bytes);
    for (int i = 0; i < p->n_pieces; i++) {
        int32_t *piece = p->ids + (size_t)i * (size_t)t->window;
        int64_t first = p->n_pieces > 1 ? (int64_t)(n_ids - of_text) * i / (p->n_pieces - 1) : 0;
        if (n_prefix) memcpy(piece, prefix, (size_t)n_prefix * sizeof *piece);
        memcpy(piece + n_prefix, ids + first, (size_t)of_text * sizeof *piece);
    }
    return EXIT_SUCCESS;
}

/* Open the model and cut the text.  `room`: tokens that a piece needs of the model's context. */
static int open_pieces(const text_options *t, int room, text_pieces *p) {
    const char *name = t->e.command;
    int code = setup_model(name, &t->e.model, &p->model, NULL);
    if (code != EXIT_SUCCESS) return code;
    int max_context = tq_model_get_info(p->model)->max_context;
    if (room > max_context)
        return setup_fail(name, "a piece needs %d tokens of context, the model was made for %d", room, max_context);
    int32_t *ids = NULL;
    int n_ids;
    code = eval_read_tokens(name, p->model, t->text, false, &ids, &n_ids);
    if (code == EXIT_SUCCESS) code = cut_pieces(t, ids, n_ids, p);
    tq_free(ids);
    return code;
}

static const int32_t *piece_at(const text_options *t, const text_pieces *p, int index) {
    return p->ids + (size_t)index * (size_t)t->window;
}

static void close_pieces(text_pieces *p) {
    free(p->ids);
    tq_model_free(p->model);
}

/* ---- ppl --------------------------------------------------------------------------------------------------------- */

typedef struct ppl_row {
    double nll, packed, bits_per_value;
    int tokens;
} ppl_row;

static int run_ppl(const text_options *t, const text_pieces *p, int chunk, ppl_row *rows) {
    eval_watch w;
    eval_watch_begin(&w, "ppl", eval_work(t->window) * p->n_pieces * t->e.codecs.n);
    int code = EXIT_SUCCESS;
    for (int piece = 0; code == EXIT_SUCCESS && piece < p->n_pieces; piece++)
        for (int i = 0; i < t->e.codecs.n; i++) {
            tq_session_params params = eval_session_params(&t->e, t->e.codecs.names[i], &w, t->window);
            tq_perplexity_result r;
            tq_error err;
            if (tq_eval_perplexity(p->model, piece_at(t, p, piece), t->window, chunk, &params, &r, &err) != TQ_OK) {
                eval_watch_end(&w);
                code = setup_fail(t->e.command, "%s", err.text);
                break;
            }
            eval_watch_next(&w);
            rows[i].nll += r.nll;
            rows[i].tokens += r.tokens;
            rows[i].packed += r.packed_fraction / p->n_pieces;
            rows[i].bits_per_value = r.bits_per_value;
        }
    eval_watch_end(&w);
    return code;
}

static int report_ppl(const text_options *t, const text_pieces *p, const ppl_row *rows) {
    double base = rows[0].nll / rows[0].tokens;
    table results = {0};
    table_column(&results, "kv", "kv", TABLE_TEXT, 0);
    table_column(&results, "bits_per_value", "bits/value", TABLE_NUMBER, 3);
    table_column(&results, "perplexity", "perplexity", TABLE_NUMBER, 4);
    table_column(&results, "nll", "nll", TABLE_NUMBER, 5);
    table_column(&results, "perplexity_change", "to the first", TABLE_SHARE, 3);
    table_column(&results, "packed_fraction", "packed", TABLE_SHARE, 1);
    for (int i = 0; i < t->e.codecs.n; i++) {
        double nll = rows[i].nll / rows[i].tokens;
        table_text(&results, t->e.codecs.names[i]);
        table_number(&results, rows[i].bits_per_value);
        table_number(&results, exp(nll));
        table_number(&results, nll);
        table_number(&results, expm1(nll - base));
        table_number(&results, rows[i].packed);
    }
    char headline[64];
    snprintf(headline, sizeof headline, "%d windows of %d tokens", p->n_pieces, t->window);
    const eval_fact facts[] = {{"text", t->text, 0}, {"windows", NULL, p->n_pieces}, {"window", NULL, t->window}};
    int code = eval_report(&t->e, p->model, headline, facts, 3, (eval_tables){.results = &results});
    if (code == EXIT_SUCCESS && t->e.plot)
        code = eval_plot_rates(&t->e, &results, 2,
                               (plot_labels){"Rate and perplexity", "bits a value, as allocated", "perplexity"}, true);
    table_free(&results);
    return code;
}

int eval_ppl(int argc, char **argv) {
    text_options t = {.e = {.command = "eval ppl"}, .window = 2048, .pieces = 16};
    int chunk = 32;
    options o;
    options_begin(&o, "tq eval ppl --text FILE [OPTIONS]",
                  "Perplexity over windows of a text, evaluated in small chunks so that the past is packed.");
    options_add(&o, (option_row){.name = "text", .argument = "FILE", .type = OPTION_STRING, .to = &t.text,
                                 .help = "the text; - is stdin"});
    options_add(&o, (option_row){.name = "window", .argument = "N", .type = OPTION_INT, .to = &t.window, .min = 2,
                                 .max = 1 << 24, .help = "tokens of a window (default 2048)"});
    options_add(&o, (option_row){.name = "windows", .argument = "N", .type = OPTION_INT, .to = &t.pieces, .min = 0,
                                 .max = 1 << 24, .help = "how many, spread over the text; 0: all (default 16)"});
    options_add(&o, (option_row){.name = "chunk", .argument = "N", .type = OPTION_INT, .to = &chunk, .min = 1,
                                 .max = 1024, .help = "tokens evaluated together (default 32)"});
    eval_options_add(&o, &t.e, EVAL_COMPARED, "f16,tq3", "perplexity over bits a value");
    int code = parse_text(&o, &t, argc, argv);
    if (code != OPTIONS_RUN) return code;
    text_pieces p = {0};
    ppl_row rows[CODEC_LIST_CAP] = {{0}};
    code = open_pieces(&t, t.window, &p);
    if (code == EXIT_SUCCESS) code = run_ppl(&t, &p, chunk, rows);
    if (code == EXIT_SUCCESS) code = report_ppl(&t, &p, rows);
    close_pieces(&p);
    return code;
}

/* ---- match ------------------------------------------------------------------------------------------------------- */

typedef struct match_row {
    tq_greedy_result cache;
    int *same; /* (prompts): tokens before the first difference */
} match_row;

/* One prompt with every cache; the reference is the first. */
static tq_status match_prompt(const text_options *t, const text_pieces *p, int piece, int max_tokens, int32_t *want,
                              int32_t *got, eval_watch *w, match_row *rows, tq_error *err) {
    for (int i = 0; i < t->e.codecs.n; i++) {
        tq_session_params params = eval_session_params(&t->e, t->e.codecs.names[i], w, t->window + max_tokens);
        tq_status status = tq_eval_greedy(p->model, piece_at(t, p, piece), t->window, max_tokens, &params,
                                          i == 0 ? want : got, &rows[i].cache, err);
        if (status != TQ_OK) return status;
        eval_watch_next(w);
        int same = 0;
        while (same < max_tokens && (i == 0 || got[same] == want[same])) same++;
        rows[i].same[piece] = same;
    }
    return TQ_OK;
}

static int run_match(const text_options *t, const text_pieces *p, int max_tokens, match_row *rows) {
    size_t bytes = (size_t)max_tokens * sizeof(int32_t);
    int32_t *want = malloc(bytes), *got = malloc(bytes);
    bool memory = want && got;
    for (int i = 0; i < t->e.codecs.n; i++) {
        rows[i].same = calloc((size_t)p->n_pieces, sizeof *rows[i].same);
        memory = memory && rows[i].same;
    }
    tq_error err = {0};
    tq_status status = TQ_OK;
    eval_watch w;
    eval_watch_begin(&w, "match", eval_work(t->window + max_tokens) * p->n_pieces * t->e.codecs.n);
    for (int piece = 0; memory && status == TQ_OK && piece < p->n_pieces; piece++)
        status = match_prompt(t, p, piece, max_tokens, want, got, &w, rows, &err);
    eval_watch_end(&w);
    free(want);
    free(got);
    if (!memory) return setup_fail(t->e.command, "out of memory for %d tokens", max_tokens);
    return status == TQ_OK ? EXIT_SUCCESS : setup_fail(t->e.command, "%s", err.text);
}

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void add_match_row(table *results, const char *kv, match_row *row, int n, int max_tokens) {
    double same = 0;
    int identical = 0;
    for (int k = 0; k < n; k++) {
        same += row->same[k];
        identical += row->same[k] == max_tokens;
    }
    qsort(row->same, (size_t)n, sizeof *row->same, by_value);
    table_text(results, kv);
    table_number(results, row->cache.bits_per_value);
    table_number(results, identical);
    table_number(results, n);
    table_number(results, same / n / max_tokens);
    table_number(results, row->same[0] < max_tokens ? row->same[0] : NAN);
    table_number(results, row->same[n / 2] < max_tokens ? row->same[n / 2] : NAN);
    table_number(results, row->cache.packed_fraction);
}

static int report_match(const text_options *t, const text_pieces *p, int max_tokens, match_row *rows) {
    table results = {0}, details = {0};
    table_column(&results, "kv", "kv", TABLE_TEXT, 0);
    table_column(&results, "bits_per_value", "bits/value", TABLE_NUMBER, 3);
    table_column(&results, "identical", "identical", TABLE_INT, 0);
    table_column(&results, "prompts", "of", TABLE_INT, 0);
    table_column(&results, "same_fraction", "before they part", TABLE_SHARE, 1);
    table_column(&results, "first_difference", "first difference", TABLE_INT, 0);
    table_column(&results, "median_difference", "median", TABLE_INT, 0);
    table_column(&results, "packed_fraction", "packed", TABLE_SHARE, 1);
    table_column(&details, "kv", "kv", TABLE_TEXT, 0);
    table_column(&details, "prompt", "prompt", TABLE_INT, 0);
    table_column(&details, "first_difference", "first difference", TABLE_INT, 0);
    for (int i = 0; i < t->e.codecs.n; i++)
        for (int k = 0; k < p->n_pieces; k++) {
            table_text(&details, t->e.codecs.names[i]);
            table_number(&details, k);
            table_number(&details, rows[i].same[k] < max_tokens ? rows[i].same[k] : NAN);
        }
    for (int i = 0; i < t->e.codecs.n; i++) add_match_row(&results, t->e.codecs.names[i], &rows[i], p->n_pieces, max_tokens);
    char headline[128];
    snprintf(headline, sizeof headline, "%d prompts of %d tokens, %d greedy tokens each, against %s", p->n_pieces, t->window,
             max_tokens, t->e.reference);
    const eval_fact facts[] = {
        {"text", t->text, 0}, {"prompt_tokens", NULL, t->window}, {"max_tokens", NULL, max_tokens}};
    int code = eval_report(&t->e, p->model, headline, facts, 3, (eval_tables){.results = &results, .details = &details});
    if (code == EXIT_SUCCESS && t->e.plot)
        code = eval_plot_rates(&t->e, &results, 4,
                               (plot_labels){"Rate and agreement", "bits a value, as allocated",
                                             "share of greedy tokens before the first difference"},
                               false);
    table_free(&results);
    table_free(&details);
    return code;
}

int eval_match(int argc, char **argv) {
    text_options t = {.e = {.command = "eval match"}, .window = 1024, .pieces = 16};
    int max_tokens = 128;
    options o;
    options_begin(&o, "tq eval match --text FILE [OPTIONS]",
                  "Continue pieces of a text greedily, and see where each cache parts from the exact one.");
    options_add(&o, (option_row){.name = "text", .argument = "FILE", .type = OPTION_STRING, .to = &t.text,
                                 .help = "the text; - is stdin"});
    options_add(&o, (option_row){.name = "prompt-tokens", .argument = "N", .type = OPTION_INT, .to = &t.window, .min = 1,
                                 .max = 1 << 24, .help = "tokens of a prompt (default 1024)"});
    options_add(&o, (option_row){.name = "prompts", .argument = "N", .type = OPTION_INT, .to = &t.pieces, .min = 1,
                                 .max = 1 << 24, .help = "how many, spread over the text (default 16)"});
    options_add(&o, (option_row){.name = "max-tokens", .argument = "N", .type = OPTION_INT, .to = &max_tokens, .min = 1,
                                 .max = 1 << 20, .help = "tokens to generate (default 128)"});
    eval_options_add(&o, &t.e, EVAL_COMPARED, "f16,tq3", "agreement over bits a value");
    int code = parse_text(&o, &t, argc, argv);
    if (code != OPTIONS_RUN) return code;
    text_pieces p = {0};
    match_row rows[CODEC_LIST_CAP] = {{.same = NULL}};
    code = open_pieces(&t, t.window + max_tokens, &p);
    if (code == EXIT_SUCCESS) code = run_match(&t, &p, max_tokens, rows);
    if (code == EXIT_SUCCESS) code = report_match(&t, &p, max_tokens, rows);
    for (int i = 0; i < CODEC_LIST_CAP; i++) free(rows[i].same);
    close_pieces(&p);
    return code;
}
