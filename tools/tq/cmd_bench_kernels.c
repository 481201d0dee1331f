/* cmd_bench_kernels.c: `tq bench kernels`: is every kernel right, and how far is it from what the machine can do? */
#include <stdio.h>
#include <stdlib.h>

#include "bench_kinds.h"
#include "json_out.h"
#include "options.h"
#include "setup.h"
#include "turboquant/tq_bench.h"

typedef struct printer {
    bool json, csv;
    double read_gb_per_s;
    int wrong;
    jout j;
} printer;

static bool print_row(void *ctx, const tq_kernel_row *r) {
    printer *p = ctx;
    bool right = r->error <= r->tolerance;
    double share = r->bytes_per_second * 1e-9 / p->read_gb_per_s;
    p->wrong += !right;
    if (p->json) {
        jout_object(&p->j);
        jout_put_string(&p->j, "kernels", r->kernels);
        jout_put_string(&p->j, "name", r->name);
        jout_put_string(&p->j, "shape", r->shape);
        jout_put_bool(&p->j, "right", right);
        jout_put_number(&p->j, "error", r->error);
        jout_put_number(&p->j, "tolerance", r->tolerance);
        jout_put_number(&p->j, "nanoseconds", r->nanoseconds);
        jout_put_number(&p->j, "spread", r->spread);
        jout_put_number(&p->j, "gb_per_s", r->bytes_per_second * 1e-9);
        jout_put_number(&p->j, "gflop_per_s", r->flops_per_second * 1e-9);
        jout_end(&p->j);
    } else if (p->csv) {
        printf("%s,%s,\"%s\",%s,%.3g,%.1f,%.3f,%.3f,%.3f\n", r->kernels, r->name, r->shape, right ? "right" : "wrong", r->error,
               r->nanoseconds, r->spread, r->bytes_per_second * 1e-9, r->flops_per_second * 1e-9);
    } else {
        printf("%-8s %-14s %-34s %-6s %8.1e %12.2f %4.0f%% %8.2f %5.0f%% %9.1f\n", r->kernels, r->name, r->shape,
               right ? "right" : "WRONG", r->error, r->nanoseconds * 1e-3, 100 * r->spread, r->bytes_per_second * 1e-9, 100 * share,
               r->flops_per_second * 1e-9);
        fflush(stdout);
    }
    return true;
}

int bench_kernels_main(int argc, char **argv) {
    static const char *const name = "bench kernels";
    tq_bench_kernels_params params = {.repeats = 5, .seconds = 0.05};
    printer p = {0};
    options o;
    options_begin(&o, "tq bench kernels [OPTIONS]",
                  "Check every kernel against the scalar ones, then time it on one thread (its processor time).\n"
                  "Weights of gemv are streamed from memory; everything else is in the processor's caches.");
    options_add(&o, (option_row){.name = "kernels", .argument = "NAME", .type = OPTION_STRING, .to = &params.kernels,
                                 .help = "one instruction set (default: all that run here)"});
    options_add(&o, (option_row){.name = "only", .argument = "TEXT", .type = OPTION_STRING, .to = &params.filter,
                                 .help = "kernels whose name contains this"});
    options_add(&o, (option_row){.name = "repeats", .argument = "N", .type = OPTION_INT, .to = &params.repeats, .min = 1,
                                 .max = 101, .help = "rounds; the median counts (default 5)"});
    options_add(&o, (option_row){.name = "seconds", .argument = "X", .type = OPTION_DOUBLE, .to = &params.seconds, .min = 0,
                                 .max = 60, .help = "that a round takes for each, about (default 0.05)"});
    options_add(&o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &p.json, .help = "print one JSON object"});
    options_add(&o, (option_row){.name = "csv", .type = OPTION_FLAG, .to = &p.csv, .help = "print comma-separated values"});
    int code = options_parse(&o, argc, argv, NULL);
    if (code != OPTIONS_RUN) return code;
    if (p.json && p.csv) return options_usage_error(&o, "--json and --csv: give one of them");
    tq_error err;
    if (tq_bench_read_bandwidth(1, (size_t)512 << 20, 5, &p.read_gb_per_s, &err) != TQ_OK) return setup_fail(name, "%s", err.text);
    if (p.json) {
        jout_object(&p.j);
        jout_put_string(&p.j, "version", tq_version());
        jout_put_number(&p.j, "read_gb_per_s", p.read_gb_per_s);
        jout_key(&p.j, "results");
        jout_array(&p.j);
    } else if (p.csv) {
        printf("kernels,name,shape,right,error,nanoseconds,spread,gb_per_s,gflop_per_s\n");
    } else {
        printf("one thread reads %.1f GB/s from memory\n\n%-8s %-14s %-34s %-6s %8s %12s %5s %8s %6s %9s\n", p.read_gb_per_s,
               "kernels", "name", "shape", "", "error", "us", "+-", "GB/s", "of it", "GFLOP/s");
    }
    tq_status status = tq_bench_kernels(&params, print_row, &p, &err);
    if (p.json && status == TQ_OK) {
        jout_end(&p.j);
        jout_end(&p.j);
        jout_print(&p.j, stdout);
    } else free(p.j.data);
    if (status != TQ_OK) {
        setup_fail(name, "%s", err.text);
        return status == TQ_INVALID ? EXIT_USAGE : EXIT_FAILURE;
    }
    return p.wrong ? setup_fail(name, "%d kernels are wrong", p.wrong) : EXIT_SUCCESS;
}
