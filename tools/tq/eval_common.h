/* eval_common.h: what all measurements of `tq eval` share: their options, the list of caches, progress and reports.
 *
 * The list of caches begins with the exact one, which the others are compared with, and ends with a control that
 * forgets what leaves a window of 128 tokens: a measurement that does not tell the control from the rest does not see
 * packed tokens at all. */
#ifndef TQ_TOOL_EVAL_COMMON_H
#define TQ_TOOL_EVAL_COMMON_H

#include <limits.h>

#include "codec_list.h"
#include "eval_plot.h"
#include "eval_table.h"
#include "terminal.h"
#include "turboquant/tq_eval.h"

#define EVAL_CONTROL "window:128"

/* ---- options ------------------------------------------------------------------------------------------------------- */

typedef enum eval_columns {
    EVAL_GIVEN,          /* the caches of --kv and no others */
    EVAL_COMPARED,       /* and the reference in front and the control behind, unless --no-control */
    EVAL_COMPARED_ALWAYS /* and both of them whatever happens */
} eval_columns;

typedef struct eval_options {
    const char *command; /* "eval kld" */
    model_options model;
    cache_options cache;
    const char *reference, *plot;
    const char *caches;   /* those measured where --kv names none */
    char caches_help[128];
    char bundled_text[PATH_MAX];
    bool json, csv, no_control;
    eval_columns columns;
    codec_list codecs;
} eval_options;

/* --json --csv --plot, then the groups of model and cache; where caches are compared, --reference too.  caches: what is
 * measured without --kv. */
void eval_options_add(options *o, eval_options *e, eval_columns columns, const char *caches, const char *plot_help);

/* After parsing: the list of caches, and what contradicts itself.  OPTIONS_RUN or the code to exit with. */
int eval_options_read(const options *o, eval_options *e);

/* ---- progress ------------------------------------------------------------------------------------------------------- */

typedef struct eval_watch {
    progress_bar bar;
    double done, total, item; /* work: tokens, and what attending to all before them costs */
} eval_watch;

double eval_work(int tokens);
void eval_watch_begin(eval_watch *w, const char *what, double total);
void eval_watch_end(eval_watch *w);

/* Parameters of a session with cache `kv` that evaluates about so many tokens, and is the next part of the work. */
tq_session_params eval_session_params(const eval_options *e, const char *kv, eval_watch *w, int tokens);

/* That part is done, however many tokens it reported. */
void eval_watch_next(eval_watch *w);

/* ---- reports -------------------------------------------------------------------------------------------------------- */

typedef struct eval_fact {
    const char *key, *text; /* text NULL: a number */
    double number;
} eval_fact;

typedef struct eval_tables {
    const table *results; /* a row a cache */
    const table *details; /* rows behind the results, or NULL */
    const table *theory;  /* of codecs alone, or NULL */
} eval_tables;

/* JSON (facts and all tables), CSV (details where there are some, else results), or `headline` and results for people.
 * 0 or EXIT_FAILURE. */
int eval_report(const eval_options *e, const tq_model *model, const char *headline, const eval_fact *facts, int n_facts,
                eval_tables tables);

/* --plot: column y of the results over column 1, bits a value; column 0 has the names.  The control, which stores f16, is
 * left out. */
int eval_plot_rates(const eval_options *e, const table *results, int y, plot_labels labels, bool log_y);

/* window:N, the control and its kin. */
bool eval_is_control(const char *kv);

/* A text as tokens, for --text.  prompt: with those around it; without, it is to be cut into windows, each of which begins
 * with tq_prompt_prefix.  ids: tq_free.  0 or the code to exit with. */
int eval_read_tokens(const char *command, tq_model *model, const char *path, bool prompt, int32_t **ids, int *n);

/* --text, or the text that comes with the program; NULL after a message if that is not there. */
const char *eval_text_path(eval_options *e, const char *given);

/* The model, and the text to measure it on; *path becomes its path.  model: tq_model_free, text: free, also after a
 * failure.  0 or EXIT_FAILURE. */
int eval_open(eval_options *e, const char **path, tq_model **model, char **text, size_t *n);

/* Numbers of a list "1024,2048".  How many, or -1 if one is not within min..max or there are more than cap. */
int eval_read_list(const char *text, int min, int max, int *out, int cap);

#endif
