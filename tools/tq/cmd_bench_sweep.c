/* cmd_bench_sweep.c: `tq bench sweep FILE`: any set of cells, a line each. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_kinds.h"
#include "bench_table.h"
#include "setup.h"

enum { WORDS_CAP = 64 };

/* Cut a line into words at blanks, in place. */
static int split_words(char *line, char **words) {
    int n = 0;
    for (char *at = line; n < WORDS_CAP;) {
        while (isspace((unsigned char)*at)) at++;
        if (!*at) break;
        words[n++] = at;
        while (*at && !isspace((unsigned char)*at)) at++;
        if (*at) *at++ = 0;
    }
    return n;
}

/* "NAME: OPTIONS" -> a cell.  A line that is empty or begins with # is none. */
static int read_line(bench_table *table, char *line, int number, const bench_spec *defaults) {
    char *words[WORDS_CAP + 1], command[] = "cell", *colon = strchr(line, ':');
    line += strspn(line, " \t");
    if (!*line || *line == '#') return EXIT_SUCCESS;
    if (!colon || colon == line) return setup_fail(table->name, "line %d: want NAME: OPTIONS of tq bench cell", number);
    *colon = 0;
    words[0] = command;
    int n = 1 + split_words(colon + 1, words + 1);
    if (n >= WORDS_CAP) return setup_fail(table->name, "line %d: want at most %d words", number, WORDS_CAP - 2);
    words[n] = NULL;
    bench_cell *cell = bench_table_add(table, line);
    if (!cell) return setup_fail(table->name, "line %d: want at most %d cells", number, BENCH_CELLS_CAP);
    cell->spec = *defaults;
    int code = bench_spec_parse(n, words, &cell->spec);
    if (code == OPTIONS_RUN) return EXIT_SUCCESS;
    setup_fail(table->name, "in line %d", number);
    return code == EXIT_SUCCESS ? EXIT_USAGE : code; /* --help is no cell */
}

int bench_sweep_main(int argc, char **argv) {
    static const char *const name = "bench sweep";
    bench_spec spec = bench_spec_default();
    bench_table table;
    model_options model;
    options o;
    options_begin(&o, "tq bench sweep FILE [OPTIONS]",
                  "Measure the cells that FILE describes, a line each:  NAME: OPTIONS of tq bench cell\n"
                  "What a line does not say is as given here.  Lines that begin with # are comments.");
    options_add_model(&o, &model);
    options_heading(&o, "Cells");
    bench_add_prompt(&o, &spec, NULL);
    bench_add_spec(&o, &spec);
    bench_table_options(&o, &table);
    int first, code = options_parse(&o, argc, argv, &first);
    if (code == OPTIONS_RUN) code = bench_check_spec(&o, &spec);
    if (code != OPTIONS_RUN) return code;
    if (argc - first != 1) return options_usage_error(&o, "want one FILE, got %d operands", argc - first);
    spec.from = model;
    char *text = NULL, *end;
    size_t n;
    code = setup_read_text(name, argv[first], &text, &n);
    if (code != EXIT_SUCCESS) return code;
    code = bench_table_new(&o, &table, name);
    int number = 1;
    for (char *line = text; code == EXIT_SUCCESS && *line; line = end, number++) {
        end = line + strcspn(line, "\n");
        if (*end) *end++ = 0;
        code = read_line(&table, line, number, &spec);
    }
    if (code == EXIT_SUCCESS && table.n == 0) code = setup_fail(name, "%s: describes no cell", argv[first]);
    if (code == EXIT_SUCCESS) code = bench_table_run(&table);
    if (code == EXIT_SUCCESS) code = bench_table_print(&table);
    bench_table_free(&table);
    free(text);
    return code;
}
