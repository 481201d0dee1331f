/* bench_kinds.h: the measurements of `tq bench`; argv[0] is the name of one. */
#ifndef TQ_TOOL_BENCH_KINDS_H
#define TQ_TOOL_BENCH_KINDS_H

int bench_compare_main(int argc, char **argv);
int bench_context_main(int argc, char **argv);
int bench_kernels_main(int argc, char **argv);
int bench_parallel_main(int argc, char **argv);
int bench_sweep_main(int argc, char **argv);

#endif
