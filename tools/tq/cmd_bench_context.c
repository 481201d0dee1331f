/* cmd_bench_context.c: `tq bench context`: speed and memory against the length of the context. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_kinds.h"
#include "bench_table.h"
#include "codec_list.h"
#include "setup.h"

enum { CONTEXTS_CAP = 32 };

int bench_context_main(int argc, char **argv) {
    static const char *const name = "bench context";
    bench_spec spec = bench_spec_default();
    bench_table table;
    bool prompt_given = false, pattern_given = false;
    const char *kv = "f16,tq3", *contexts_text = "4096,16384,32768", *fill = "prefill", *peer = NULL;
    model_options model;
    options o;
    options_begin(&o, "tq bench context [OPTIONS]",
                  "Measure speed and memory at several lengths of context: a process a cell, cells in turn.");
    options_add_model(&o, &model);
    options_heading(&o, "Cells");
    options_add(&o, (option_row){.name = "contexts", .argument = "N,...", .type = OPTION_STRING, .to = &contexts_text,
                                 .help = "tokens held when decoding begins (default 4096,16384,32768)"});
    options_add(&o, (option_row){.name = "kv", .argument = "CODEC,...", .type = OPTION_STRING, .to = &kv,
                                 .help = "codecs of keys and values (default f16,tq3); the first is what speed-up is over"});
    options_add(&o, (option_row){.name = "fill", .argument = "HOW", .type = OPTION_STRING, .to = &fill,
                                 .help = "prefill: the context is computed (default); synthetic: it is random rows, and\n"
                                         "a prefill of --prompt tokens behind them is timed"});
    bench_add_prompt(&o, &spec, &prompt_given);
    bench_add_spec(&o, &spec);
    options_add(&o, (option_row){.name = "peer", .argument = "COMMAND", .type = OPTION_STRING, .to = &peer,
                                 .help = "another engine's command, run in turn with the cells; {context} in it stands\n"
                                         "for the context, and without it the command runs once a round"});
    bench_table_options(&o, &table);
    options_add(&o, (option_row){.name = "peer-pattern", .argument = "REGEX", .type = OPTION_STRING, .to = &table.peer_pattern,
                                 .given = &pattern_given,
                                 .help = "finds the peer's tokens/s: its first group, the last time it occurs\n"
                                         "(default: a number before tok/s, tokens/s, t/s)"});
    int code = options_parse(&o, argc, argv, NULL), contexts[CONTEXTS_CAP];
    if (code == OPTIONS_RUN) code = bench_check_spec(&o, &spec);
    if (code != OPTIONS_RUN) return code;
    codec_list codecs;
    code = codec_list_cut(&o, kv, &codecs);
    if (code != OPTIONS_RUN) return code;
    int n = bench_read_counts(contexts_text, 0, 1 << 24, contexts, CONTEXTS_CAP);
    if (n == 0) return options_usage_error(&o, "--contexts: want up to %d counts of tokens with commas between, got '%s'",
                                           CONTEXTS_CAP, contexts_text);
    spec.fill_prefill = strcmp(fill, "prefill") == 0;
    if (!spec.fill_prefill && strcmp(fill, "synthetic") != 0)
        return options_usage_error(&o, "--fill: want prefill or synthetic, got '%s'", fill);
    if (spec.fill_prefill && prompt_given) return options_usage_error(&o, "--prompt: only with --fill synthetic");
    if (pattern_given && !peer) return options_usage_error(&o, "--peer-pattern: only with --peer");
    for (int i = 0; i < n; i++)
        if (spec.fill_prefill && contexts[i] == 0) return options_usage_error(&o, "--contexts 0: only with --fill synthetic");
    spec.from = model;
    if (n * (codecs.n + 1) > BENCH_CELLS_CAP) return options_usage_error(&o, "want at most %d cells", BENCH_CELLS_CAP);
    code = bench_table_new(&o, &table, name);
    for (int k = 0; code == EXIT_SUCCESS && k < codecs.n; k++)
        for (int i = 0; i < n; i++) {
            bench_cell *cell = bench_table_add(&table, codecs.names[k]);
            cell->spec = spec;
            cell->spec.kv = codecs.names[k];
            cell->spec.context = contexts[i];
        }
    for (int i = 0; code == EXIT_SUCCESS && peer && i < (strstr(peer, "{context}") ? n : 1); i++) {
        bench_cell *cell = bench_table_add(&table, "peer");
        cell->peer = peer;
        cell->spec = spec;
        cell->spec.context = contexts[i];
    }
    if (code == EXIT_SUCCESS) code = bench_table_run(&table);
    if (code == EXIT_SUCCESS) code = bench_table_print(&table);
    bench_table_free(&table);
    return code;
}
