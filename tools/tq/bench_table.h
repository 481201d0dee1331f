/* bench_table.h: cells measured in turn, several times, and what becomes of them: a table, JSON, CSV, a plot. */
#ifndef TQ_TOOL_BENCH_TABLE_H
#define TQ_TOOL_BENCH_TABLE_H

#include "bench_cell.h"

enum { BENCH_CELLS_CAP = 256 };

typedef struct bench_figure {
    double median, spread; /* spread: (largest - smallest) / median */
} bench_figure;

typedef struct bench_cell {
    char label[96]; /* what the row is called: the codec, a line of a sweep, a peer */
    bench_spec spec;
    const char *peer; /* another engine's command, or NULL */
    bench_run run;    /* the last */
    int n_runs;
    double decode_runs[BENCH_REPEATS_CAP], prefill_runs[BENCH_REPEATS_CAP], ttft_runs[BENCH_REPEATS_CAP];
    bench_figure decode, prefill, ttft;
    char failure[BENCH_TEXT_CAP]; /* empty: it ran */
} bench_cell;

typedef struct bench_table {
    const char *name; /* "bench context" */
    bench_cell *cells; /* (BENCH_CELLS_CAP) */
    int n;
    int repeats;
    const char *peer_pattern;
    bool json, csv;
    const char *plot; /* a file, or NULL */
    double read_gb_per_s; /* of the machine's memory */
    char machine[128];
} bench_table;

/* The options that every table has: --repeats --json --csv --plot. */
void bench_table_options(options *o, bench_table *table);

/* After parsing them: room for cells, and is what is asked for possible?  0 or the code to exit with. */
int bench_table_new(const options *o, bench_table *table, const char *name);

/* The next cell; NULL when the table is full. */
bench_cell *bench_table_add(bench_table *table, const char *label);

/* Run them all, `repeats` times, one after the other in each round, so that a machine that slows down slows all alike.
 * Progress and the time left on a terminal's stderr.  0 or the code to exit with: it fails when no cell ran. */
int bench_table_run(bench_table *table);

/* As asked for: a table for people, JSON or CSV on stdout, and the plot.  0 or the code to exit
 * with: a cell that failed is a failure, after everything has been told. */
int bench_table_print(const bench_table *table);
int bench_table_plot(const bench_table *table);
void bench_table_free(bench_table *table);

#endif
