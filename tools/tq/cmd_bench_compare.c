/* cmd_bench_compare.c: `tq bench compare`: one prompt, answered with several caches. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_kinds.h"
#include "bench_table.h"
#include "codec_list.h"
#include "setup.h"
#include "terminal.h"

/* Of the greedy tokens, how many are the first row's, and how many before the first that is not. */
static void match(const bench_cell *a, const bench_cell *b, int *same, int *until) {
    int n = a->run.n_ids < b->run.n_ids ? a->run.n_ids : b->run.n_ids;
    *same = 0;
    *until = n;
    for (int i = 0; i < n; i++) {
        *same += a->run.ids[i] == b->run.ids[i];
        if (a->run.ids[i] != b->run.ids[i] && *until == n) *until = i;
    }
}

static void print_answers(const bench_table *t) {
    const bench_cell *first = &t->cells[0];
    printf("\ngreedy tokens equal to %s's, those before the first other one, and the first words:\n", first->label);
    for (int i = 0; i < t->n; i++) {
        const bench_cell *c = &t->cells[i];
        if (c->failure[0] || c->peer) continue;
        int same, until;
        match(first, c, &same, &until);
        printf("%-18s %4d/%-4d %4d  ", c->label, same, c->run.n_ids, until);
        char words[64];
        snprintf(words, sizeof words, "%.60s", c->run.text ? c->run.text : "");
        for (char *p = words; *p; p++)
            if (*p == '\n') *p = ' ';
        size_t n = strlen(words); /* not the half of a character */
        while (n > 0 && ((unsigned char)words[n - 1] & 0xc0) == 0x80) n--;
        if (n > 0 && (unsigned char)words[n - 1] >= 0xc0) n--;
        else n = strlen(words);
        terminal_write_text(stdout, words, n);
        printf("\n");
    }
}

int bench_compare_main(int argc, char **argv) {
    static const char *const name = "bench compare";
    bench_spec spec = bench_spec_default();
    spec.decode = 64;
    bench_table table;
    const char *kv = "f16,minmax:4:64,tq4,tq3,tq2", *prompt = NULL, *prompt_file = NULL;
    model_options model;
    options o;
    options_begin(&o, "tq bench compare (--prompt TEXT | --prompt-file FILE) [OPTIONS]",
                  "Answer one prompt with several caches: speed, memory, and whether the answers are the same.\n"
                  "minmax:4:64 is what MLX-LM keeps with 4 bits: min-max groups of 64.");
    options_add(&o, (option_row){.name = "prompt", .letter = 'p', .argument = "TEXT", .type = OPTION_STRING, .to = &prompt,
                                 .help = "the user's message"});
    options_add(&o, (option_row){.name = "prompt-file", .argument = "FILE", .type = OPTION_STRING, .to = &prompt_file,
                                 .help = "a file with it (- is stdin)"});
    options_add_model(&o, &model);
    options_heading(&o, "Cells");
    options_add(&o, (option_row){.name = "kv", .argument = "CODEC,...", .type = OPTION_STRING, .to = &kv,
                                 .help = "caches (default f16,minmax:4:64,tq4,tq3,tq2); the others are compared with the first"});
    bench_add_spec(&o, &spec);
    options_find(&o, "decode")->help = "tokens of the answer (default 64)";
    bench_table_options(&o, &table);
    int code = options_parse(&o, argc, argv, NULL);
    if (code == OPTIONS_RUN) code = bench_check_spec(&o, &spec);
    if (code != OPTIONS_RUN) return code;
    if (!prompt == !prompt_file) return options_usage_error(&o, "want --prompt or --prompt-file");
    codec_list codecs;
    code = codec_list_cut(&o, kv, &codecs);
    if (code != OPTIONS_RUN) return code;
    char *text = NULL;
    size_t n;
    bool from_stdin = prompt_file && strcmp(prompt_file, "-") == 0; /* which each cell cannot read again */
    code = from_stdin ? setup_read_text(name, prompt_file, &text, &n) : EXIT_SUCCESS;
    if (code == EXIT_SUCCESS) code = bench_table_new(&o, &table, name);
    spec.from = model;
    spec.text = from_stdin ? text : prompt;
    spec.text_file = from_stdin ? NULL : prompt_file;
    for (int i = 0; code == EXIT_SUCCESS && i < codecs.n; i++) {
        bench_cell *cell = bench_table_add(&table, codecs.names[i]);
        cell->spec = spec;
        cell->spec.kv = codecs.names[i];
    }
    if (code == EXIT_SUCCESS) code = bench_table_run(&table);
    if (code == EXIT_SUCCESS) code = bench_table_print(&table);
    if (code == EXIT_SUCCESS && !table.json && !table.csv && !table.cells[0].failure[0]) print_answers(&table);
    bench_table_free(&table);
    free(text);
    return code;
}
