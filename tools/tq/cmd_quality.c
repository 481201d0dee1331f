/* cmd_quality.c: `tq quality MODEL`: may this model be trusted with a compressed cache?  A verdict a codec. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "eval_documents.h"
#include "setup.h"

/* Where the verdicts lie; docs/quality.md gives the reasons.  Divergence: mean, in nats, from the exact cache on text, and
 * as a share of what it costs to forget all but 128 tokens.  Needles: how many fewer than the exact cache may be found, as a
 * share of all; one at the edge falls either way, whatever the cache. */
static const struct limits {
    double kld, of_forgetting, lost;
} SAFE = {.02, .1, .05}, CAREFUL = {.1, 1.0 / 3, .1};

/* A check that cannot see damage gives no verdict: the exact cache finds so many needles, and a cache that forgets
 * moves predictions by so much. */
static const double NEEDLES_WANTED = .5, FORGETTING_WANTED = .02;

enum { NEEDLES = 10, POSITIONS = 256 };

typedef struct quality_options {
    eval_options e;
    const char *text;
    int length, windows, documents;
} quality_options;

typedef struct quality_run {
    divergence_row *rows; /* a cache */
    int found[CODEC_LIST_CAP], asked;
} quality_run;

/* ---- measuring ------------------------------------------------------------------------------------------------------ */

static int measure_divergence(const quality_options *q, tq_model *m, const char *text, size_t text_n, eval_watch *w,
                              quality_run *run) {
    int32_t *ids = NULL;
    size_t n_ids = 0;
    tq_recall_data *data = NULL;
    tq_error err;
    tq_status status = tq_tokenize(m, text, text_n, false, &ids, &n_ids, &err);
    int positions = q->length / 2 < POSITIONS ? q->length / 2 : POSITIONS;
    int n_prefix;
    const int32_t *prefix = tq_prompt_prefix(m, &n_prefix);
    if (status == TQ_OK)
        status = tq_recall_from_text(prefix, n_prefix, ids, (int)n_ids, q->length, q->windows, positions, &data, &err);
    tq_free(ids);
    if (status != TQ_OK) return setup_fail(q->e.command, "%s", err.text);
    bool *wanted = malloc((size_t)q->windows * sizeof *wanted);
    int code = wanted ? EXIT_SUCCESS : setup_fail(q->e.command, "out of memory");
    if (wanted) memset(wanted, true, (size_t)q->windows * sizeof *wanted);
    if (wanted) code = divergence_measure(&q->e, m, data, wanted, w, run->rows, NULL);
    free(wanted);
    tq_recall_free(data);
    return code;
}

static int measure_needles(const quality_options *q, tq_model *m, const char *text, size_t text_n, eval_watch *w,
                           quality_run *run) {
    for (int doc = 0; doc < q->documents; doc++) {
        tq_needles_params np = tq_needles_params_default();
        np.length = q->length;
        np.n_needles = NEEDLES;
        np.seed = (uint64_t)doc + 1;
        np.cache = q->e.cache.config;
        tq_needles *needles = NULL;
        tq_error err;
        tq_status status = tq_needles_new(m, text, text_n, &np, &needles, &err);
        for (int i = 0; status == TQ_OK && i < q->e.codecs.n; i++) {
            tq_session_params params = eval_session_params(&q->e, q->e.codecs.names[i], w, q->length);
            bool found[NEEDLES];
            tq_needles_result r;
            status = tq_eval_needles(m, needles, &params, found, &r, &err);
            eval_watch_next(w);
            run->found[i] += r.right;
            if (i == 0) run->asked += r.total;
        }
        tq_needles_free(needles);
        if (status == TQ_OK) continue;
        eval_watch_end(w);
        return setup_fail(q->e.command, "%s", err.text);
    }
    return EXIT_SUCCESS;
}

static int measure(const quality_options *q, tq_model *m, const char *text, size_t text_n, quality_run *run) {
    eval_watch w;
    eval_watch_begin(&w, "checking", eval_work(q->length) * (q->windows + q->documents) * q->e.codecs.n);
    int code = measure_divergence(q, m, text, text_n, &w, run);
    if (code == EXIT_SUCCESS) code = measure_needles(q, m, text, text_n, &w, run);
    eval_watch_end(&w);
    return code;
}

/* ---- judging -------------------------------------------------------------------------------------------------------- */

typedef struct judgement {
    double forgetting;  /* mean divergence of the control */
    bool sees_text, sees_needles;
} judgement;

static bool within(const struct limits *limit, double kld, const judgement *j, double lost) {
    return kld <= limit->kld && (!j->sees_text || kld <= limit->of_forgetting * j->forgetting) &&
           (!j->sees_needles || lost <= limit->lost);
}

/* With half of the check blind nothing is called safe. */
static const char *judge(const judgement *j, double kld, double lost) {
    if (!j->sees_text && !j->sees_needles) return "unclear";
    if (within(&SAFE, kld, j, lost)) return j->sees_text && j->sees_needles ? "safe" : "careful";
    return within(&CAREFUL, kld, j, lost) ? "careful" : "no";
}

static double lost_share(const quality_run *run, int i) {
    return (double)(run->found[0] - run->found[i]) / run->asked;
}

static void add_columns(table *t) {
    table_column(t, "kv", "kv", TABLE_TEXT, 0);
    table_column(t, "bits_per_value", "bits/value", TABLE_NUMBER, 3);
    table_column(t, "verdict", "verdict", TABLE_TEXT, 0);
    table_column(t, "kld_mean", "mean KLD", TABLE_NUMBER, 5);
    table_column(t, "of_forgetting", "of forgetting", TABLE_SHARE, 1);
    table_column(t, "kld_p99", "99%", TABLE_NUMBER, 4);
    table_column(t, "same_top", "same top", TABLE_SHARE, 2);
    table_column(t, "needles_found", "needles", TABLE_INT, 0);
    table_column(t, "needles", "of", TABLE_INT, 0);
    table_column(t, "packed_fraction", "packed", TABLE_SHARE, 1);
}

static void add_row(table *t, const quality_options *q, quality_run *run, int i, const divergence_summary *s,
                    const judgement *j) {
    const divergence_row *row = &run->rows[i];
    bool plain = i == 0 || eval_is_control(q->e.codecs.names[i]);
    table_text(t, row->kv);
    table_number(t, row->bits_per_value);
    table_text(t, i == 0 ? "exact" : plain ? "control" : judge(j, s->mean, lost_share(run, i)));
    table_number(t, s->mean);
    table_number(t, j->forgetting > 0 ? s->mean / j->forgetting : NAN);
    table_number(t, s->p99);
    table_number(t, (double)row->same_top / row->n);
    table_number(t, run->found[i]);
    table_number(t, run->asked);
    table_number(t, row->packed_sum / row->documents);
}

static void explain(const quality_options *q, const quality_run *run, const judgement *j, const char *smallest) {
    if (!j->sees_text)
        printf("\nForgetting hardly changes what this model says of this text: divergence tells little here.\n");
    if (!j->sees_needles)
        printf("\nThe exact cache finds %d of %d needles, the one that forgets %d: needles tell nothing of this model.\n",
               run->found[0], run->asked, run->found[q->e.codecs.n - 1]);
    printf("\nsafe: divergence at most %g nats and %.0f %% of what forgetting costs, at most %.0f %% of the needles lost\n"
           "careful: at most %g nats, %.0f %%, and %.0f %% of the needles; look at your own texts with tq eval\n",
           SAFE.kld, 100 * SAFE.of_forgetting, 100 * SAFE.lost, CAREFUL.kld, 100 * CAREFUL.of_forgetting, 100 * CAREFUL.lost);
    if (smallest) printf("\nthe smallest that is safe here: --kv %s\n", smallest);
    else printf("\nnone of them is safe here\n");
}

static int report(const quality_options *q, tq_model *m, quality_run *run) {
    int n = q->e.codecs.n, control = n - 1;
    divergence_summary s[CODEC_LIST_CAP];
    for (int i = 0; i < n; i++) s[i] = divergence_summarize(&run->rows[i]);
    for (int i = 0; i < n; i++)
        if (eval_is_control(q->e.codecs.names[i])) control = i;
    judgement j = {.forgetting = s[control].mean, .sees_text = s[control].mean >= FORGETTING_WANTED};
    j.sees_needles = run->found[0] >= NEEDLES_WANTED * run->asked && 2 * run->found[control] < run->found[0];
    table t = {0};
    add_columns(&t);
    const char *smallest = NULL;
    double bits = INFINITY;
    for (int i = 0; i < n; i++) {
        add_row(&t, q, run, i, &s[i], &j);
        bool candidate = i > 0 && i != control && run->rows[i].bits_per_value < bits;
        if (!candidate || strcmp(judge(&j, s[i].mean, lost_share(run, i)), "safe") != 0) continue;
        smallest = q->e.codecs.names[i];
        bits = run->rows[i].bits_per_value;
    }
    const tq_model_info *info = tq_model_get_info(m);
    char headline[256];
    snprintf(headline, sizeof headline, "%s, %d layers, %d KV heads of %d, %s; %d windows and %d documents of %d tokens",
             info->family, info->n_layers, info->n_kv_heads, info->head_dim, info->weights, q->windows, q->documents, q->length);
    const eval_fact facts[] = {{"text", q->text, 0},
                               {"length", NULL, q->length},
                               {"sees_text", j.sees_text ? "yes" : "no", 0},
                               {"sees_needles", j.sees_needles ? "yes" : "no", 0},
                               {"smallest_safe", smallest ? smallest : "none", 0}};
    int code = eval_report(&q->e, m, headline, facts, 5, (eval_tables){.results = &t});
    if (code == EXIT_SUCCESS && !q->e.json && !q->e.csv) explain(q, run, &j, smallest);
    if (code == EXIT_SUCCESS && q->e.plot)
        code = eval_plot_rates(&q->e, &t, 3,
                               (plot_labels){"Rate and divergence", "bits a value, as allocated", "mean KL divergence, nats"}, true);
    table_free(&t);
    return code;
}

/* ---- the command ----------------------------------------------------------------------------------------------------- */

static int parse(int argc, char **argv, quality_options *q) {
    options o;
    options_begin(&o, "tq quality [MODEL] [OPTIONS]",
                  "Check in a few minutes which compressed caches this model can be trusted with: a verdict a codec, and the\n"
                  "numbers behind it.  Two questions: how far do predictions move on a text, and are facts still found?");
    options_add(&o, (option_row){.name = "text", .argument = "FILE", .type = OPTION_STRING, .to = &q->text,
                                 .help = "a text like yours (default: the one that comes with the program)"});
    options_add(&o, (option_row){.name = "length", .argument = "N", .type = OPTION_INT, .to = &q->length, .min = 512,
                                 .max = 1 << 24, .help = "tokens of a window and of a document (default 2048)"});
    options_add(&o, (option_row){.name = "windows", .argument = "N", .type = OPTION_INT, .to = &q->windows, .min = 1,
                                 .max = 1000, .help = "windows of the text on which predictions are compared (default 3)"});
    options_add(&o, (option_row){.name = "documents", .argument = "N", .type = OPTION_INT, .to = &q->documents, .min = 1,
                                 .max = 1000, .help = "documents with ten needles each (default 2)"});
    eval_options_add(&o, &q->e, EVAL_COMPARED_ALWAYS, "tq4,tq3,tq2", "divergence over bits a value");
    int first, code = options_parse(&o, argc, argv, &first);
    if (code != OPTIONS_RUN) return code;
    if (first + 1 < argc) return options_usage_error(&o, "want one model, got '%s' too", argv[first + 1]);
    if (first < argc && q->e.model.model) return options_usage_error(&o, "want MODEL or --model, got both");
    if (first < argc) q->e.model.model = argv[first];
    return eval_options_read(&o, &q->e);
}

int cmd_quality(int argc, char **argv) {
    quality_options q = {.e = {.command = "quality"}, .length = 2048, .windows = 3, .documents = 2};
    int code = parse(argc, argv, &q);
    if (code != OPTIONS_RUN) return code;
    tq_model *m = NULL;
    char *text = NULL;
    size_t text_n = 0;
    code = eval_open(&q.e, &q.text, &m, &text, &text_n);
    quality_run run = {.rows = calloc((size_t)q.e.codecs.n, sizeof(divergence_row))};
    if (code == EXIT_SUCCESS && !run.rows) code = setup_fail(q.e.command, "out of memory");
    if (code == EXIT_SUCCESS) code = measure(&q, m, text, text_n, &run);
    if (code == EXIT_SUCCESS) code = report(&q, m, &run);
    divergence_free(run.rows, q.e.codecs.n);
    free(text);
    tq_model_free(m);
    return code;
}
