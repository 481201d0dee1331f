/* bench_table.c: running the cells of a table and summing up.  See bench_table.h. */
#include "bench_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gnuplot.h"
#include "json_out.h"
#include "setup.h"
#include "terminal.h"
#include "turboquant/tq_bench.h"

void bench_table_options(options *o, bench_table *t) {
    *t = (bench_table){.repeats = 3, .peer_pattern = "([0-9]+(\\.[0-9]+)?) *(tok/s|tokens/s|t/s|tokens per second)"};
    options_heading(o, "Table");
    options_add(o, (option_row){.name = "repeats", .argument = "N", .type = OPTION_INT, .to = &t->repeats, .min = 1,
                                .max = BENCH_REPEATS_CAP, .help = "rounds; the median counts (default 3)"});
    options_add(o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &t->json, .help = "print one JSON object"});
    options_add(o, (option_row){.name = "csv", .type = OPTION_FLAG, .to = &t->csv, .help = "print comma-separated values"});
    options_add(o, (option_row){.name = "plot", .argument = "FILE.svg", .type = OPTION_STRING, .to = &t->plot,
                                .help = "draw speed, memory and speed-up against context (with gnuplot)"});
}

int bench_table_new(const options *o, bench_table *t, const char *name) {
    if (t->json && t->csv) return options_usage_error(o, "--json and --csv: give one of them");
    if (t->plot && gnuplot_check(name, t->plot) != EXIT_SUCCESS) return EXIT_FAILURE;
    t->name = name;
    t->cells = calloc(BENCH_CELLS_CAP, sizeof *t->cells);
    return t->cells ? EXIT_SUCCESS : setup_fail(name, "out of memory");
}

bench_cell *bench_table_add(bench_table *t, const char *label) {
    if (t->n == BENCH_CELLS_CAP) return NULL;
    bench_cell *cell = &t->cells[t->n++];
    snprintf(cell->label, sizeof cell->label, "%s", label);
    return cell;
}

void bench_table_free(bench_table *t) {
    for (int i = 0; t->cells && i < t->n; i++) free(t->cells[i].run.text);
    free(t->cells);
    t->cells = NULL;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static void read_machine(char *to, size_t cap) {
    char line[256], model[96] = "unknown processor";
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (!colon || (strncmp(line, "model name", 10) != 0 && strncmp(line, "CPU part", 8) != 0)) continue;
        snprintf(model, sizeof model, "%.90s", colon + 2);
        model[strcspn(model, "\n")] = 0;
        break;
    }
    if (f) fclose(f);
    snprintf(to, cap, "%s, %ld processors", model, sysconf(_SC_NPROCESSORS_ONLN));
}

static void show_left(const bench_table *t, int done, double started) {
    if (!isatty(STDERR_FILENO) || done == 0) return;
    int all = t->n * t->repeats;
    double left = (terminal_seconds() - started) / done * (all - done);
    fprintf(stderr, "\r%s: %d of %d runs, about %.0f s left\x1b[K", t->name, done, all, left);
}

static void run_cell(const bench_table *t, bench_cell *cell) {
    char why[BENCH_TEXT_CAP];
    bench_run run;
    bool ok = cell->peer ? bench_peer_run(cell->peer, t->peer_pattern, cell->spec.context, &run, why)
                         : bench_cell_run(&cell->spec, &run, why);
    if (!ok) {
        memcpy(cell->failure, why, sizeof why);
        return;
    }
    free(cell->run.text);
    cell->run = run;
    cell->decode_runs[cell->n_runs] = run.decode_tokens_per_s;
    cell->prefill_runs[cell->n_runs] = run.prefill_tokens_per_s;
    cell->ttft_runs[cell->n_runs++] = run.ttft_ms;
}

static bench_figure figure_of(double *x, int n) {
    if (n == 0 || isnan(x[0])) return (bench_figure){NAN, NAN};
    double median = bench_median(x, n);
    return (bench_figure){median, (x[n - 1] - x[0]) / median};
}

int bench_table_run(bench_table *t) {
    double started = terminal_seconds();
    int done = 0, ran = 0;
    tq_error err;
    read_machine(t->machine, sizeof t->machine);
    for (int round = 0; round < t->repeats; round++)
        for (int i = 0; i < t->n; i++) {
            show_left(t, done++, started);
            if (!t->cells[i].failure[0]) run_cell(t, &t->cells[i]);
        }
    if (isatty(STDERR_FILENO)) fputs("\r\x1b[K", stderr);
    for (int i = 0; i < t->n; i++) {
        bench_cell *c = &t->cells[i];
        c->decode = figure_of(c->decode_runs, c->n_runs);
        c->prefill = figure_of(c->prefill_runs, c->n_runs);
        c->ttft = figure_of(c->ttft_runs, c->n_runs);
        ran += !c->failure[0];
    }
    /* Afterwards: what a process has used counts for those it starts. */
    if (tq_bench_read_bandwidth(t->n ? t->cells[0].spec.from.threads : 0, (size_t)512 << 20, 5, &t->read_gb_per_s, &err) != TQ_OK)
        return setup_fail(t->name, "%s", err.text);
    return ran ? EXIT_SUCCESS : setup_fail(t->name, "%s: %s", t->cells[0].label, t->cells[0].failure);
}

/* ---- telling ----------------------------------------------------------------------------------------------------- */

static double implied_gb_per_s(const bench_cell *c) { return c->run.token_bytes * c->decode.median * 1e-9; }

static char *cell_number(char buf[32], double value, const char *format) {
    if (isnan(value)) snprintf(buf, 32, "-");
    else snprintf(buf, 32, format, value);
    return buf;
}

static const char *fill_name(const bench_cell *c) {
    return c->peer ? "peer" : c->spec.text || c->spec.text_file ? "text" : c->spec.fill_prefill ? "prefill" : "synthetic";
}

static const bench_cell *first_own(const bench_table *t) {
    for (int i = 0; i < t->n; i++)
        if (!t->cells[i].peer && t->cells[i].n_runs) return &t->cells[i];
    return NULL;
}

static void print_people(const bench_table *t) {
    const bench_cell *own = first_own(t);
    printf("tq %s, %s, %s; memory reads %.1f GB/s\n", tq_version(), t->machine, __VERSION__, t->read_gb_per_s);
    if (own) printf("%s: %s weights, %s, %d threads\n", own->spec.from.model ? own->spec.from.model : "bookworm", own->run.weights,
                    own->run.backend, own->run.threads);
    printf("medians of %d; +- is (largest - smallest) / median\n\n", t->repeats);
    printf("%-18s %8s %-9s %9s %5s %9s %9s %10s %10s %8s\n", "kv", "context", "fill", "decode/s", "+-", "prefill/s", "ttft ms",
           "cache", "peak RSS", "GB/s");
    bool too_fast = false;
    for (int i = 0; i < t->n; i++) {
        const bench_cell *c = &t->cells[i];
        char a[32], b[32], d[32], e[32], f[32], g[32], h[32];
        if (c->failure[0]) {
            printf("%-18s %8d %-9s failed: %s\n", c->label, c->spec.context, fill_name(c), c->failure);
            continue;
        }
        printf("%-18s %8d %-9s %9s %4s%% %9s %9s %10s %10s %8s\n", c->label, c->run.context, fill_name(c),
               cell_number(a, c->decode.median, "%.2f"), cell_number(b, 100 * c->decode.spread, "%.0f"),
               cell_number(d, c->prefill.median, "%.1f"), cell_number(e, c->ttft.median, "%.1f"),
               isnan(c->run.cache_bytes) ? "-" : terminal_bytes(f, (uint64_t)c->run.cache_bytes),
               isnan(c->run.peak_rss_bytes) ? "-" : terminal_bytes(g, (uint64_t)c->run.peak_rss_bytes), cell_number(h, implied_gb_per_s(c), "%.1f"));
        too_fast |= implied_gb_per_s(c) > 1.15 * t->read_gb_per_s;
    }
    printf("\nGB/s: weights and cache that a token reads, times tokens/s; the machine's is %.1f%s\n", t->read_gb_per_s,
           too_fast ? ", so what is above it comes from the processor's caches" : "");
}

static void print_csv(const bench_table *t) {
    printf("label,kv,context,fill,decode_tokens_per_s,decode_spread,prefill_tokens_per_s,ttft_ms,cache_bytes,peak_rss_bytes,"
           "implied_gb_per_s,failure\n");
    for (int i = 0; i < t->n; i++) {
        const bench_cell *c = &t->cells[i];
        printf("\"%s\",\"%s\",%d,%s,%.6g,%.4g,%.6g,%.6g,%.0f,%.0f,%.4g,\"%s\"\n", c->label, c->run.kv,
               c->failure[0] ? c->spec.context : c->run.context, fill_name(c), c->decode.median, c->decode.spread, c->prefill.median,
               c->ttft.median, c->run.cache_bytes, c->run.peak_rss_bytes, implied_gb_per_s(c), c->failure);
    }
}

static void put_cell(jout *j, const bench_cell *c) {
    jout_object(j);
    jout_put_string(j, "label", c->label);
    jout_put_string(j, "kv", c->peer ? NULL : c->failure[0] ? c->spec.kv : c->run.kv);
    jout_put_int(j, "context", c->failure[0] ? c->spec.context : c->run.context);
    jout_put_string(j, "fill", fill_name(c));
    if (c->failure[0]) {
        jout_put_string(j, "failure", c->failure);
    } else {
        jout_put_number(j, "decode_tokens_per_s", c->decode.median);
        jout_put_number(j, "decode_spread", c->decode.spread);
        jout_put_number(j, "prefill_tokens_per_s", c->prefill.median);
        jout_put_number(j, "ttft_ms", c->ttft.median);
        jout_put_number(j, "cache_bytes", c->run.cache_bytes);
        jout_put_number(j, "peak_rss_bytes", c->run.peak_rss_bytes);
        jout_put_number(j, "implied_gb_per_s", implied_gb_per_s(c));
        jout_put_int(j, "runs", c->n_runs);
        jout_put_string(j, "weights", c->peer ? NULL : c->run.weights);
        jout_put_string(j, "backend", c->peer ? NULL : c->run.backend);
        jout_put_int(j, "threads", c->run.threads);
        if (c->run.text) jout_put_string(j, "text", c->run.text);
    }
    jout_end(j);
}

static void print_json(const bench_table *t) {
    jout j = {0};
    jout_object(&j);
    jout_put_string(&j, "version", tq_version());
    jout_put_string(&j, "machine", t->machine);
    jout_put_string(&j, "compiler", __VERSION__);
    jout_put_number(&j, "read_gb_per_s", t->read_gb_per_s);
    jout_put_int(&j, "repeats", t->repeats);
    jout_key(&j, "results");
    jout_array(&j);
    for (int i = 0; i < t->n; i++) put_cell(&j, &t->cells[i]);
    jout_end(&j);
    jout_end(&j);
    jout_print(&j, stdout);
}

int bench_table_print(const bench_table *t) {
    if (t->json) print_json(t);
    else if (t->csv) print_csv(t);
    else print_people(t);
    if (fflush(stdout) != 0) return setup_fail(t->name, "cannot write to stdout");
    int code = t->plot ? bench_table_plot(t) : EXIT_SUCCESS;
    for (int i = 0; code == EXIT_SUCCESS && i < t->n; i++)
        if (t->cells[i].failure[0]) code = setup_fail(t->name, "%s: %s", t->cells[i].label, t->cells[i].failure);
    return code;
}
