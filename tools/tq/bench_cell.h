/* bench_cell.h: one measurement: a model, a cache and a context, in a process of its own.
 *
 * The process is `tq bench cell ...`; it prints one JSON object.  A process a cell, so that peak memory is the cell's and
 * no cell runs in what another left behind. */
#ifndef TQ_TOOL_BENCH_CELL_H
#define TQ_TOOL_BENCH_CELL_H

#include "options.h"

enum { BENCH_TEXT_CAP = 512, BENCH_REPEATS_CAP = 99, BENCH_IDS_CAP = 4096 };

typedef struct bench_spec {
    model_options from;
    const char *kv;
    int context; /* tokens held when decoding begins */
    int prompt;  /* tokens of the timed prefill, which goes on from `context`; 0: none.  Not with fill_prefill */
    int decode;  /* tokens decoded */
    bool fill_prefill; /* compute the context; otherwise it is random rows */
    const char *text, *text_file; /* a prompt: then context is its length; both NULL: random ids */
    int buffer_size, sinks, flush_batch_size;
    int prefill_chunk;
    const char *key_centre_text; /* as given; NULL: auto */
    tq_key_centre key_centre;
} bench_spec;

/* What one run of a cell measured.  NAN and -1: not measured. */
typedef struct bench_run {
    double decode_tokens_per_s; /* of the median token */
    double prefill_tokens_per_s, ttft_ms, load_ms;
    double cache_bytes, peak_rss_bytes, token_bytes; /* token_bytes: weights and cache that a decoded token reads */
    int context;
    int n_ids, ids[BENCH_IDS_CAP]; /* greedy tokens, of a prompt */
    char *text;                    /* what they say; free() */
    char kv[64], weights[64], backend[32];
    int threads;
} bench_run;

/* Defaults: prompt 512, decode 32, chunk 256, the library's window. */
bench_spec bench_spec_default(void);

/* The median of n numbers, which are sorted; NAN of none. */
double bench_median(double *x, int n);

/* Ids that a tokenizer might have made: the same every time. */
void bench_random_ids(int32_t *ids, size_t n, int vocab);

/* "4096,32768" -> up to `cap` counts of min..max, and how many; 0 where it is no list of them. */
int bench_read_counts(const char *text, int min, int max, int *counts, int cap);

/* The options of a cell that do not differ between the cells of a table. */
void bench_add_spec(options *o, bench_spec *spec);
int bench_check_spec(const options *o, bench_spec *spec); /* after parsing; OPTIONS_RUN or the code to exit with */
void bench_add_prompt(options *o, bench_spec *spec, bool *given); /* --prompt N; given: may be NULL */

/* All of them, of `tq bench cell` and of a line of a sweep; *spec are the defaults.  OPTIONS_RUN or the code to exit with. */
int bench_spec_parse(int argc, char **argv, bench_spec *spec);

/* `tq bench cell`: measure here. */
int bench_cell_main(int argc, char **argv);

/* Start that process and wait.  False: *why says what it printed. */
bool bench_cell_run(const bench_spec *spec, bench_run *out, char why[BENCH_TEXT_CAP]);

/* A process of another engine: `command` for /bin/sh, in which {context} stands for the context.  Its tokens/s is what the
 * first group of the regular expression `pattern` (POSIX extended) finds last in what it prints. */
bool bench_peer_run(const char *command, const char *pattern, int context, bench_run *out, char why[BENCH_TEXT_CAP]);

#endif
