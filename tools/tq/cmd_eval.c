/* cmd_eval.c: `tq eval`: is a model right, and does its compressed cache keep it so?  Not here: all but golden. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "eval_documents.h"
#include "eval_measures.h"
#include "json_out.h"
#include "setup.h"
#include "turboquant/tq_eval.h"

static int fail(const char *name, const tq_error *err) { return setup_fail(name, "%s", err->text); }

/* ---- golden ------------------------------------------------------------------------------------------------------ */

static int eval_golden(int argc, char **argv) {
    static const char *const name = "eval golden";
    model_options model = {0};
    cache_options cache;
    const char *golden = NULL;
    bool json = false;
    double tolerance = 2e-3;
    options o;
    options_begin(&o, "tq eval golden DIR [OPTIONS]", "Compare a model with the logits and greedy tokens of another implementation.");
    options_add(&o, (option_row){.name = "golden", .argument = "FILE", .type = OPTION_STRING, .to = &golden,
                                 .help = "the golden file (default: golden.safetensors in DIR)"});
    options_add(&o, (option_row){.name = "tolerance", .argument = "X", .type = OPTION_DOUBLE, .to = &tolerance, .min = 0,
                                 .max = 1e9, .help = "largest difference of a logit that passes (default 0.002)"});
    options_add(&o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &json, .help = "print one JSON object"});
    options_add_model(&o, &model);
    options_add_cache(&o, &cache);
    cache.config.kv = "f32";
    options_find(&o, "kv")->help = "codec of keys and values (default f32)";
    int first, code = options_parse(&o, argc, argv, &first);
    if (code == OPTIONS_RUN) code = options_check_cache(&o, &cache);
    if (code != OPTIONS_RUN) return code;
    if (cache.ctx) return options_usage_error(&o, "--ctx: the context is as long as each prompt needs");
    if (first + 1 < argc) return options_usage_error(&o, "want one directory, got '%s' too", argv[first + 1]);
    if (first < argc && model.model) return options_usage_error(&o, "want DIR or --model, got both");
    if (first < argc) model.model = argv[first];
    tq_model *m;
    code = setup_model(name, &model, &m, NULL);
    if (code != EXIT_SUCCESS) return code;

    char path[4096];
    snprintf(path, sizeof path, "%s/golden.safetensors", tq_model_get_info(m)->path);
    tq_session_params params = tq_session_params_default();
    params.cache = cache.config;
    tq_golden_result r;
    tq_error err;
    if (tq_eval_golden(m, golden ? golden : path, &params, &r, &err) != TQ_OK) {
        tq_model_free(m);
        return fail(name, &err);
    }
    bool pass = r.greedy_equal == r.n_prompts && r.max_abs_diff <= tolerance;
    if (json) {
        jout j = {0};
        jout_object(&j);
        jout_put_number(&j, "max_abs_diff", r.max_abs_diff);
        jout_put_bool(&j, "greedy_equal", r.greedy_equal == r.n_prompts);
        jout_put_int(&j, "prompts", r.n_prompts);
        jout_put_int(&j, "prompts_greedy_equal", r.greedy_equal);
        jout_put_bool(&j, "pass", pass);
        jout_end(&j);
        jout_print(&j, stdout);
    } else {
        printf("%s: %s\n  largest logit difference  %.3g (%s %g)\n  greedy tokens equal       %d of %d prompts\n",
               pass ? "pass" : "FAIL", tq_model_get_info(m)->path, r.max_abs_diff,
               r.max_abs_diff <= tolerance ? "within" : "want at most", tolerance, r.greedy_equal, r.n_prompts);
    }
    tq_model_free(m);
    return pass ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- eval --------------------------------------------------------------------------------------------------------- */

int cmd_eval(int argc, char **argv) {
    static const struct {
        const char *name, *help;
        int (*run)(int argc, char **argv);
    } kinds[] = {
        {"kld", "how far predictions move from the exact cache's: KL divergence, same top token", eval_kld},
        {"recall", "facts found in long documents", eval_recall},
        {"niah", "needles found in any text, by depth and length", eval_niah},
        {"ppl", "perplexity of a text, its past packed", eval_ppl},
        {"match", "greedy tokens against those of the exact cache", eval_match},
        {"distortion", "codecs alone against theory, and on the model's own keys and values", eval_distortion},
        {"golden", "logits and greedy tokens against another implementation's", eval_golden},
    };
    const char *want = argc > 1 ? argv[1] : NULL;
    for (size_t i = 0; want && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(want, kinds[i].name) == 0) return kinds[i].run(argc - 1, argv + 1);
    bool help = want && (strcmp(want, "--help") == 0 || strcmp(want, "-h") == 0);
    if (want && !help) fprintf(stderr, "tq eval: unknown measurement '%s'\n", want);
    fprintf(help ? stdout : stderr, "usage: tq eval KIND [OPTIONS]\n\n");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        fprintf(help ? stdout : stderr, "  %-11s %s\n", kinds[i].name, kinds[i].help);
    return help ? EXIT_SUCCESS : EXIT_USAGE;
}
