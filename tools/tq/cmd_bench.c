/* cmd_bench.c: `tq bench`: how fast, and in how much memory? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_cell.h"
#include "bench_kinds.h"
#include "commands.h"

int cmd_bench(int argc, char **argv) {
    static const struct {
        const char *name, *help;
        int (*run)(int argc, char **argv);
    } kinds[] = {
        {"compare", "one prompt answered with several caches", bench_compare_main},
        {"context", "speed and memory against the length of the context", bench_context_main},
        {"kernels", "every kernel of every instruction set: checked, then timed", bench_kernels_main},
        {"parallel", "several requests that decode together, and one", bench_parallel_main},
        {"sweep", "the cells that a file describes", bench_sweep_main},
        {"cell", "one measurement in this process: what the others start", bench_cell_main},
    };
    const char *want = argc > 1 ? argv[1] : NULL;
    for (size_t i = 0; want && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(want, kinds[i].name) == 0) return kinds[i].run(argc - 1, argv + 1);
    bool help = want && (strcmp(want, "--help") == 0 || strcmp(want, "-h") == 0);
    if (want && !help) fprintf(stderr, "tq bench: unknown measurement '%s'\n", want);
    fprintf(help ? stdout : stderr, "usage: tq bench KIND [OPTIONS]\n\n");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        fprintf(help ? stdout : stderr, "  %-8s %s\n", kinds[i].name, kinds[i].help);
    return help ? EXIT_SUCCESS : EXIT_USAGE;
}
