/* codebook.c: see codebook.h.  Works on the positive half in double precision, with x scaled to unit variance. */
#include "codec/codebook.h"

#include <math.h>

enum { HALF = TQ_MAX_LEVELS / 2, GRID = 4096, MAX_STEPS = 200 };

typedef struct density {
    double d, norm; /* f(z) = norm * (1 - z^2/d)^((d-3)/2), z = x sqrt(d) in [0, sqrt(d)] */
} density;

static double density_at(const density *f, double z) {
    double inside = 1.0 - z * z / f->d;
    return inside > 0 ? f->norm * pow(inside, (f->d - 3.0) / 2.0) : 0.0;
}

/* Eight-point Gauss-Legendre on panels of at most a quarter: far below 1e-13 for these smooth densities. */
static double mass(const density *f, double a, double b) {
    static const double node[4] = {0.1834346424956498, 0.5255324099163290, 0.7966664774136267, 0.9602898564975363};
    static const double weight[4] = {0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763};
    int panels = (int)ceil((b - a) / 0.25);
    double width = (b - a) / panels, sum = 0;
    for (int p = 0; p < panels; p++) {
        double middle = a + (p + 0.5) * width;
        for (int i = 0; i < 4; i++)
            sum += weight[i] * (density_at(f, middle - node[i] * width / 2) + density_at(f, middle + node[i] * width / 2));
    }
    return sum * width / 2;
}

/* The integral of z f(z), in closed form. */
static double first_moment(const density *f, double a, double b) {
    double power = (f->d - 1.0) / 2.0, left = 1.0 - a * a / f->d, right = 1.0 - b * b / f->d;
    double difference = pow(left, power) - (right > 0 ? pow(right, power) : 0.0);
    return f->norm * f->d / (f->d - 1.0) * difference;
}

/* Levels at the quantiles of f^(1/3): optimal in the limit of many levels, a good start for few. */
static void initial_levels(const density *f, int n, double top, double *level) {
    static const double third = 1.0 / 3.0;
    double total = 0, step = top / GRID;
    for (int i = 0; i < GRID; i++) total += pow(density_at(f, (i + 0.5) * step), third);
    double sum = 0;
    int k = 0;
    for (int i = 0; i < GRID && k < n; i++) {
        double here = pow(density_at(f, (i + 0.5) * step), third);
        while (k < n && (sum + here) / total >= (k + 0.5) / n) {
            level[k] = (i + ((k + 0.5) / n * total - sum) / here) * step;
            k++;
        }
        sum += here;
    }
}

/* One Newton step on F_i = c_i - E[z | cell i]; the Jacobian is tridiagonal (Thomas algorithm).  Returns max |F|. */
static double newton_step(const density *f, int n, double top, double *level, double *cell_mass) {
    double lower[HALF], diagonal[HALF], upper[HALF], residual[HALF], worst = 0;
    for (int i = 0; i < n; i++) {
        double a = i ? (level[i - 1] + level[i]) / 2 : 0.0, b = i + 1 < n ? (level[i] + level[i + 1]) / 2 : top;
        double m = mass(f, a, b), mean = first_moment(f, a, b) / m;
        double da = i ? density_at(f, a) * (mean - a) / m / 2 : 0.0;
        double db = i + 1 < n ? density_at(f, b) * (b - mean) / m / 2 : 0.0;
        cell_mass[i] = m;
        residual[i] = level[i] - mean;
        lower[i] = -da;
        upper[i] = -db;
        diagonal[i] = 1.0 - da - db;
        if (fabs(residual[i]) > worst) worst = fabs(residual[i]);
    }
    for (int i = 1; i < n; i++) {
        double w = lower[i] / diagonal[i - 1];
        diagonal[i] -= w * upper[i - 1];
        residual[i] -= w * residual[i - 1];
    }
    for (int i = n - 1; i >= 0; i--) {
        if (i + 1 < n) residual[i] -= upper[i] * residual[i + 1];
        residual[i] /= diagonal[i];
    }
    for (int i = 0; i < n; i++) level[i] -= residual[i];
    return worst;
}

tq_status tq_codebook_make(int dim, int bits, tq_codebook *out, tq_error *err) {
    if (bits < 1 || bits > 8) return tq_fail(err, TQ_INVALID, "codebook: want 1..8 bits, got %d", bits);
    if (dim < 4) return tq_fail(err, TQ_INVALID, "codebook: want a dimension of at least 4, got %d", dim);
    density f = {.d = dim};
    f.norm = exp(tq_log_gamma(f.d / 2) - tq_log_gamma((f.d - 1) / 2)) / sqrt(3.14159265358979323846 * f.d);
    double top = sqrt(f.d);
    if (top > 12) top = 12; /* beyond 12 standard deviations nothing is left in double precision */
    int n = 1 << (bits - 1);
    double level[HALF] = {0}, cell_mass[HALF] = {0}, worst = 1;
    initial_levels(&f, n, top, level);
    for (int step = 0; step < MAX_STEPS && worst > 1e-13; step++) {
        worst = newton_step(&f, n, top, level, cell_mass);
        for (int i = 0; i < n; i++) /* an overshoot is pulled back into order; does not happen near the solution */
            if (level[i] <= (i ? level[i - 1] : 0.0)) level[i] = (i ? level[i - 1] : 0.0) + 1e-6;
    }
    if (worst > 1e-10) return tq_fail(err, TQ_UNSUPPORTED, "codebook: no convergence for dim %d, %d bits", dim, bits);
    *out = (tq_codebook){.bits = bits, .n_levels = 2 * n, .distortion = 1.0};
    for (int i = 0; i < n; i++) {
        out->levels[n + i] = (float)level[i];
        out->levels[n - 1 - i] = (float)-level[i];
        out->distortion -= 2 * level[i] * level[i] * cell_mass[i];
    }
    for (int i = 0; i + 1 < 2 * n; i++) {
        double below = i < n ? -level[n - 1 - i] : level[i - n], above = i + 1 < n ? -level[n - 2 - i] : level[i + 1 - n];
        out->boundaries[i] = (float)((below + above) / 2);
    }
    return TQ_OK;
}
