/* eval_plot.h: results as SVG, drawn by gnuplot as a child process. */
#ifndef TQ_TOOL_EVAL_PLOT_H
#define TQ_TOOL_EVAL_PLOT_H

#include <stdbool.h>

typedef struct plot_point {
    const char *name; /* "tq3"; points whose names begin alike are joined by a line */
    double x, y;
} plot_point;

typedef struct plot_labels {
    const char *title, *x, *y;
} plot_labels;

/* Points with their names.  With log_y, points that are not above 0 are left out.  The file appears complete or not at
 * all.  0 or EXIT_FAILURE, the reason printed. */
int plot_curves(const char *command, const char *path, plot_labels labels, bool log_y, const plot_point *points, int n);

typedef struct plot_grid {
    const char *name;
    const double *share; /* (n_y, n_x) of 0..1; NaN is left white */
} plot_grid;

/* One heat map a grid, side by side; x: n_x texts, y: n_y texts, the first on top. */
int plot_heat_maps(const char *command, const char *path, plot_labels labels, const plot_grid *grids, int n_grids,
                   const char *const *x, int n_x, const char *const *y, int n_y);

#endif
