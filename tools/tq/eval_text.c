/* eval_text.c: see eval_text.h. */
#include "eval_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec_list.h"
#include "json_out.h"
#include "setup.h"
#include "terminal.h"
#include "turboquant/tq_eval.h"

/* What both have in common: a text cut into pieces of `window` tokens, evenly spread over it. */
typedef struct text_options {
    model_options model;
    cache_options cache;
    const char *text;
    bool json;
    int window, pieces;
    codec_list codecs;
} text_options;

typedef struct text_pieces {
    tq_model *model;
    int32_t *ids;
    int n_ids, n_pieces;
} text_pieces;

static int parse_text(options *o, text_options *t, int argc, char **argv) {
    options_add(o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &t->json, .help = "print one JSON object"});
    options_add_model(o, &t->model);
    options_add_cache(o, &t->cache);
    codec_list_option(o);
    int code = options_parse(o, argc, argv, NULL);
    if (code != OPTIONS_RUN) return code;
    if (!t->text) return options_usage_error(o, "want --text FILE");
    return codec_list_read(o, &t->cache, "f16,tq3", &t->codecs);
}

/* Open the model and cut the text.  `room`: tokens that a piece needs of the model's context. */
static int open_pieces(const char *name, const text_options *t, int room, text_pieces *p) {
    int code = setup_model(name, &t->model, &p->model, NULL);
    if (code != EXIT_SUCCESS) return code;
    int max_context = tq_model_get_info(p->model)->max_context;
    if (room > max_context)
        return setup_fail(name, "a piece needs %d tokens of context, the model was made for %d", room, max_context);
    char *text = NULL;
    size_t length = 0, n_ids = 0;
    code = setup_read_text(name, t->text, &text, &length);
    if (code != EXIT_SUCCESS) return code;
    tq_error err;
    tq_status status = tq_tokenize(p->model, text, length, false, &p->ids, &n_ids, &err);
    free(text);
    if (status != TQ_OK) return setup_fail(name, "%s: %s", t->text, err.text);
    p->n_ids = (int)n_ids;
    if (p->n_ids < t->window)
        return setup_fail(name, "%s: %d tokens, want at least one window of %d", t->text, p->n_ids, t->window);
    int fit = p->n_ids / t->window;
    p->n_pieces = t->pieces && t->pieces < fit ? t->pieces : fit;
    return EXIT_SUCCESS;
}

static const int32_t *piece_at(const text_options *t, const text_pieces *p, int index) {
    int last = p->n_ids - t->window;
    return p->ids + (p->n_pieces > 1 ? (int64_t)last * index / (p->n_pieces - 1) : 0);
}

static void close_pieces(text_pieces *p) {
    tq_free(p->ids);
    tq_model_free(p->model);
}

static tq_session_params params_for(const text_options *t, const char *kv) {
    tq_session_params params = tq_session_params_default();
    params.cache = t->cache.config;
    params.cache.kv = kv;
    return params;
}

/* ---- ppl --------------------------------------------------------------------------------------------------------- */

typedef struct ppl_row {
    double nll, packed, bits_per_value;
    int tokens;
} ppl_row;

static int run_ppl(const char *name, const text_options *t, const text_pieces *p, int chunk, ppl_row *rows) {
    progress_bar bar;
    progress_begin(&bar, "ppl");
    for (int piece = 0; piece < p->n_pieces; piece++)
        for (int i = 0; i < t->codecs.n; i++) {
            progress_show(&bar, ((double)piece * t->codecs.n + i) / ((double)p->n_pieces * t->codecs.n));
            tq_session_params params = params_for(t, t->codecs.names[i]);
            tq_perplexity_result r;
            tq_error err;
            if (tq_eval_perplexity(p->model, piece_at(t, p, piece), t->window, chunk, &params, &r, &err) != TQ_OK) {
                progress_end(&bar);
                return setup_fail(name, "%s", err.text);
            }
            rows[i].nll += r.nll;
            rows[i].tokens += r.tokens;
            rows[i].packed += r.packed_fraction / p->n_pieces;
            rows[i].bits_per_value = r.bits_per_value;
        }
    progress_end(&bar);
    return EXIT_SUCCESS;
}

static void print_ppl(const text_options *t, const text_pieces *p, const ppl_row *rows) {
    double base = rows[0].nll / rows[0].tokens;
    if (!t->json) {
        printf("%d windows of %d tokens\n%-18s %10s %12s %10s %7s\n", p->n_pieces, t->window, "kv", "bits/value",
               "perplexity", "to first", "packed");
        for (int i = 0; i < t->codecs.n; i++) {
            double nll = rows[i].nll / rows[i].tokens;
            printf("%-18s %10.3f %12.4f %+9.3f%% %6.1f%%\n", t->codecs.names[i], rows[i].bits_per_value, exp(nll),
                   100 * (exp(nll - base) - 1), 100 * rows[i].packed);
        }
        return;
    }
    jout j = {0};
    jout_object(&j);
    jout_put_int(&j, "windows", p->n_pieces);
    jout_put_int(&j, "window", t->window);
    jout_key(&j, "results");
    jout_array(&j);
    for (int i = 0; i < t->codecs.n; i++) {
        jout_object(&j);
        jout_put_string(&j, "kv", t->codecs.names[i]);
        jout_put_number(&j, "bits_per_value", rows[i].bits_per_value);
        jout_put_number(&j, "nll", rows[i].nll / rows[i].tokens);
        jout_put_number(&j, "perplexity", exp(rows[i].nll / rows[i].tokens));
        jout_put_number(&j, "packed_fraction", rows[i].packed);
        jout_end(&j);
    }
    jout_end(&j);
    jout_end(&j);
    jout_print(&j, stdout);
}

int eval_ppl(int argc, char **argv) {
    static const char *const name = "eval ppl";
    text_options t = {.window = 2048, .pieces = 16};
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
    int code = parse_text(&o, &t, argc, argv);
    if (code != OPTIONS_RUN) return code;
    text_pieces p = {0};
    ppl_row rows[CODEC_LIST_CAP] = {{0}};
    code = open_pieces(name, &t, t.window, &p);
    if (code == EXIT_SUCCESS) code = run_ppl(name, &t, &p, chunk, rows);
    if (code == EXIT_SUCCESS) print_ppl(&t, &p, rows);
    close_pieces(&p);
    return code;
}

/* ---- match ------------------------------------------------------------------------------------------------------- */

typedef struct match_row {
    int identical;       /* prompts whose every token is the reference's */
    int64_t same, total; /* tokens before the first difference */
} match_row;

static int run_match(const char *name, const text_options *t, const text_pieces *p, int max_tokens, match_row *rows) {
    size_t bytes = (size_t)max_tokens * sizeof(int32_t);
    int32_t *want = malloc(bytes), *got = malloc(bytes);
    tq_error err = {0};
    tq_status status = TQ_OK;
    progress_bar bar;
    progress_begin(&bar, "match");
    for (int piece = 0; want && got && status == TQ_OK && piece < p->n_pieces; piece++)
        for (int i = -1; status == TQ_OK && i < t->codecs.n; i++) {
            progress_show(&bar, ((double)piece * (t->codecs.n + 1) + i + 1) / ((double)p->n_pieces * (t->codecs.n + 1)));
            tq_session_params params = params_for(t, i < 0 ? "f16" : t->codecs.names[i]);
            status = tq_eval_greedy(p->model, piece_at(t, p, piece), t->window, max_tokens, &params, i < 0 ? want : got, &err);
            if (status != TQ_OK || i < 0) continue;
            int same = 0;
            while (same < max_tokens && got[same] == want[same]) same++;
            rows[i].identical += same == max_tokens;
            rows[i].same += same;
            rows[i].total += max_tokens;
        }
    progress_end(&bar);
    int code = !want || !got     ? setup_fail(name, "out of memory for %d tokens", max_tokens)
               : status != TQ_OK ? setup_fail(name, "%s", err.text)
                                 : EXIT_SUCCESS;
    free(want);
    free(got);
    return code;
}

static void print_match(const text_options *t, const text_pieces *p, int max_tokens, const match_row *rows) {
    if (!t->json) {
        printf("%d prompts of %d tokens, %d greedy tokens each, against f16\n%-18s %10s %26s\n", p->n_pieces, t->window,
               max_tokens, "kv", "identical", "tokens before they part");
        for (int i = 0; i < t->codecs.n; i++)
            printf("%-18s %4d/%-5d %25.1f%%\n", t->codecs.names[i], rows[i].identical, p->n_pieces,
                   100.0 * (double)rows[i].same / (double)rows[i].total);
        return;
    }
    jout j = {0};
    jout_object(&j);
    jout_put_int(&j, "prompts", p->n_pieces);
    jout_put_int(&j, "max_tokens", max_tokens);
    jout_key(&j, "results");
    jout_array(&j);
    for (int i = 0; i < t->codecs.n; i++) {
        jout_object(&j);
        jout_put_string(&j, "kv", t->codecs.names[i]);
        jout_put_int(&j, "identical", rows[i].identical);
        jout_put_number(&j, "same_fraction", (double)rows[i].same / (double)rows[i].total);
        jout_end(&j);
    }
    jout_end(&j);
    jout_end(&j);
    jout_print(&j, stdout);
}

int eval_match(int argc, char **argv) {
    static const char *const name = "eval match";
    text_options t = {.window = 1024, .pieces = 16};
    int max_tokens = 128;
    options o;
    options_begin(&o, "tq eval match --text FILE [OPTIONS]",
                  "Continue pieces of a text greedily, and see where each cache parts from f16.");
    options_add(&o, (option_row){.name = "text", .argument = "FILE", .type = OPTION_STRING, .to = &t.text,
                                 .help = "the text; - is stdin"});
    options_add(&o, (option_row){.name = "prompt-tokens", .argument = "N", .type = OPTION_INT, .to = &t.window, .min = 1,
                                 .max = 1 << 24, .help = "tokens of a prompt (default 1024)"});
    options_add(&o, (option_row){.name = "prompts", .argument = "N", .type = OPTION_INT, .to = &t.pieces, .min = 1,
                                 .max = 1 << 24, .help = "how many, spread over the text (default 16)"});
    options_add(&o, (option_row){.name = "max-tokens", .argument = "N", .type = OPTION_INT, .to = &max_tokens, .min = 1,
                                 .max = 1 << 20, .help = "tokens to generate (default 128)"});
    int code = parse_text(&o, &t, argc, argv);
    if (code != OPTIONS_RUN) return code;
    text_pieces p = {0};
    match_row rows[CODEC_LIST_CAP] = {{0}};
    code = open_pieces(name, &t, t.window + max_tokens, &p);
    if (code == EXIT_SUCCESS) code = run_match(name, &t, &p, max_tokens, rows);
    if (code == EXIT_SUCCESS) print_match(&t, &p, max_tokens, rows);
    close_pieces(&p);
    return code;
}
