/* eval_plot.c: see eval_plot.h. */
#include "eval_plot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gnuplot.h"
#include "setup.h"

static void set_label(FILE *to, const char *what, const char *text) {
    fprintf(to, "set %s ", what);
    gnuplot_quote(to, text);
    fputs(" noenhanced\n", to);
}

/* ---- curves -------------------------------------------------------------------------------------------------------- */

/* A family is the name up to its first digit: tq2 tq3 tq4, paper-mse:3, mlx-k3v2. */
static bool same_family(const char *a, const char *b) {
    size_t n = strcspn(a, "0123456789");
    return n == strcspn(b, "0123456789") && strncmp(a, b, n) == 0;
}

static int by_rate(const void *a, const void *b) {
    const plot_point *p = *(const plot_point *const *)a, *q = *(const plot_point *const *)b;
    return (p->x > q->x) - (p->x < q->x);
}

static void write_points(FILE *to, const plot_point *const *points, int n) {
    for (int i = 0; i < n; i++) {
        fprintf(to, "%.9g %.9g ", points[i]->x, points[i]->y);
        gnuplot_quote(to, points[i]->name);
        fputc('\n', to);
    }
}

/* One data block a family, in order of rate. */
static int write_families(FILE *to, const plot_point *const *points, int n) {
    const plot_point **family = malloc(((size_t)n + 1) * sizeof *family);
    int n_families = 0;
    for (int i = 0; family && i < n; i++) {
        bool seen = false;
        for (int k = 0; k < i; k++) seen = seen || same_family(points[k]->name, points[i]->name);
        if (seen) continue;
        int m = 0;
        for (int k = i; k < n; k++)
            if (same_family(points[i]->name, points[k]->name)) family[m++] = points[k];
        qsort(family, (size_t)m, sizeof *family, by_rate);
        fprintf(to, "$family%d << EOD\n", n_families++);
        write_points(to, family, m);
        fputs("EOD\n", to);
    }
    free(family);
    return n_families;
}

int plot_curves(const char *command, const char *path, plot_labels labels, bool log_y, const plot_point *points, int n) {
    const plot_point **shown = malloc(((size_t)n + 1) * sizeof *shown);
    int n_shown = 0;
    for (int i = 0; shown && i < n; i++)
        if (isfinite(points[i].x) && isfinite(points[i].y) && (!log_y || points[i].y > 0)) shown[n_shown++] = &points[i];
    if (n_shown == 0) {
        free(shown);
        return setup_fail(command, "--plot: there is nothing to draw");
    }
    FILE *to = tmpfile();
    if (!to) {
        free(shown);
        return setup_fail(command, "--plot: %s", strerror(errno));
    }
    fputs("set terminal svg size 800,520 font 'sans-serif,13' background '#ffffff'\n"
          "set key off\nset grid lc rgb '#dddddd'\nset offsets graph 0.04, graph 0.12, graph 0.06, graph 0.06\n", to);
    if (log_y) fputs("set logscale y\nset format y '%g'\n", to);
    set_label(to, "title", labels.title);
    set_label(to, "xlabel", labels.x);
    set_label(to, "ylabel", labels.y);
    int n_families = write_families(to, shown, n_shown);
    fputs("plot ", to);
    for (int i = 0; i < n_families; i++)
        fprintf(to, "%s$family%d using 1:2 with linespoints lw 1.5 pt 7 ps 0.7 lt %d, "
                    "'' using 1:2:3 with labels noenhanced offset char 0.6,0.6 left font ',11'", i ? ", " : "", i, i + 1);
    fputc('\n', to);
    int code = gnuplot_run(command, path, to);
    fclose(to);
    free(shown);
    return code;
}

/* ---- heat maps ----------------------------------------------------------------------------------------------------- */

static void write_tics(FILE *to, const char *axis, const char *const *texts, int n, bool downwards) {
    fprintf(to, "set %stics (", axis);
    for (int i = 0; i < n; i++) {
        if (i) fputs(", ", to);
        char format[64]; /* a tic's text is a format */
        size_t n_format = 0;
        for (const char *at = texts[i]; *at && n_format < sizeof format - 2; at++) {
            if (*at == '%') format[n_format++] = '%';
            format[n_format++] = *at;
        }
        format[n_format] = 0;
        gnuplot_quote(to, format);
        fprintf(to, " %d", downwards ? n - 1 - i : i);
    }
    fputs(")\n", to);
}

int plot_heat_maps(const char *command, const char *path, plot_labels labels, const plot_grid *grids, int n_grids,
                   const char *const *x, int n_x, const char *const *y, int n_y) {
    FILE *to = tmpfile();
    if (!to) return setup_fail(command, "--plot: %s", strerror(errno));
    int columns = n_grids < 3 ? n_grids : 3, rows = (n_grids + columns - 1) / columns;
    fprintf(to, "set terminal svg size %d,%d font 'sans-serif,12' background '#ffffff'\n", 330 * columns + 60,
            280 * rows + 50);
    fputs("set key off\nset palette defined (0 '#c0392b', 0.5 '#f5d76e', 1 '#27ae60')\nset cbrange [0:1]\n"
          "set datafile missing 'NaN'\nset tics out nomirror\n", to);
    fprintf(to, "set xrange [-0.5:%d.5]\nset yrange [-0.5:%d.5]\n", n_x - 1, n_y - 1);
    write_tics(to, "x", x, n_x, false);
    write_tics(to, "y", y, n_y, true);
    set_label(to, "xlabel", labels.x);
    set_label(to, "ylabel", labels.y);
    fprintf(to, "set multiplot layout %d,%d title ", rows, columns);
    gnuplot_quote(to, labels.title);
    fputs(" noenhanced\n", to);
    for (int g = 0; g < n_grids; g++) {
        set_label(to, "title", grids[g].name);
        fprintf(to, "$grid%d << EOD\n", g);
        for (int r = 0; r < n_y; r++)
            for (int c = 0; c < n_x; c++) {
                double share = grids[g].share[r * n_x + c];
                if (isfinite(share)) fprintf(to, "%d %d %.4f\n", c, n_y - 1 - r, share);
            }
        fprintf(to, "EOD\nplot $grid%d using 1:2:3 with image pixels\n", g);
    }
    fputs("unset multiplot\n", to);
    int code = gnuplot_run(command, path, to);
    fclose(to);
    return code;
}
