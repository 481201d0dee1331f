/* bench_plot.c: a table against context, drawn by gnuplot: speed, memory, speed-up over the first row's codec. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_table.h"
#include "gnuplot.h"
#include "setup.h"

typedef double (*value_fn)(const bench_table *t, const bench_cell *c);

static double speed(const bench_table *t, const bench_cell *c) {
    (void)t;
    return c->decode.median;
}

static double cache_megabytes(const bench_table *t, const bench_cell *c) {
    (void)t;
    return c->run.cache_bytes * 1e-6;
}

static double speed_up(const bench_table *t, const bench_cell *c) {
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->cells[i].label, t->cells[0].label) == 0 && t->cells[i].run.context == c->run.context)
            return c->decode.median / t->cells[i].decode.median;
    return NAN;
}

static bool is_first_of_label(const bench_table *t, int at) {
    for (int i = 0; i < at; i++)
        if (strcmp(t->cells[i].label, t->cells[at].label) == 0) return false;
    return true;
}

/* One curve a label; points that were not measured are left out. */
static void draw(FILE *to, const bench_table *t, const char *title, const char *axis, value_fn value) {
    int n = 0;
    fputs("set title ", to);
    gnuplot_quote(to, title);
    fprintf(to, " noenhanced\nset ylabel '%s'\n", axis);
    for (int i = 0; i < t->n; i++) {
        if (!is_first_of_label(t, i)) continue;
        fprintf(to, "$curve%d << END\n", n++);
        for (int k = 0; k < t->n; k++) {
            const bench_cell *c = &t->cells[k];
            double y = strcmp(c->label, t->cells[i].label) == 0 && !c->failure[0] ? value(t, c) : NAN;
            if (!isnan(y)) fprintf(to, "%d %.6g\n", c->run.context, y);
        }
        fprintf(to, "END\n");
    }
    fprintf(to, "plot ");
    for (int i = 0, k = 0; i < t->n; i++)
        if (is_first_of_label(t, i)) {
            fprintf(to, "%s$curve%d using 1:2 with linespoints pointtype 7 pointsize 0.5 title ", k ? ", " : "", k);
            gnuplot_quote(to, t->cells[i].label);
            fputs(" noenhanced", to);
            k++;
        }
    fputc('\n', to);
}

int bench_table_plot(const bench_table *t) {
    FILE *to = tmpfile();
    if (!to) return setup_fail(t->name, "--plot: %s", strerror(errno));
    fputs("set terminal svg size 640,1100 background 'white'\nset multiplot layout 3,1\n"
          "set xlabel 'tokens of context'\nset grid\nset key outside right\nset yrange [0:*]\n", to);
    draw(to, t, "Decoding", "tokens/s", speed);
    draw(to, t, "Keys and values", "MB", cache_megabytes);
    char title[160];
    snprintf(title, sizeof title, "Speed-up over %.100s", t->cells[0].label);
    draw(to, t, title, "times", speed_up);
    fputs("unset multiplot\n", to);
    int code = gnuplot_run(t->name, t->plot, to);
    fclose(to);
    return code;
}
