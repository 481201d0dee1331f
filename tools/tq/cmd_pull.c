/* cmd_pull.c: tq pull ORG/NAME[:FILE]. */
#include "commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "hub_progress.h"
#include "options.h"
#include "setup.h"

int cmd_pull(int argc, char **argv) {
    const char *revision = "main";
    int first;
    options o;
    options_begin(&o, "tq pull ORG/NAME[:FILE] [OPTIONS]",
                  "Fetch what a model needs from the Hugging Face hub into the cache that its own programs share, and print\n"
                  "where it lies.  FILE is a GGUF file of the repository, or its quantization: org/name:Q4_K_M.\n"
                  "What broke off is taken up again; every file's digest is checked.  HF_HOME, HF_HUB_CACHE, HF_TOKEN,\n"
                  "HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to huggingface_hub.");
    options_add(&o, (option_row){.name = "revision", .argument = "REV", .type = OPTION_STRING, .to = &revision,
                                 .help = "branch, tag or commit (default main)"});
    int code = options_parse(&o, argc, argv, &first);
    if (code != OPTIONS_RUN) return code;
    if (argc - first != 1) return options_usage_error(&o, "want ORG/NAME, got %d operands", argc - first);
    hub_name name;
    hub_settings settings;
    tq_error err;
    char path[HUB_DISK_PATH_CAP];
    if (!hub_name_parse(argv[first], &name))
        return options_usage_error(&o, "want ORG/NAME or ORG/NAME:FILE, got '%s'", argv[first]);
    if (hub_settings_read(&settings, &err) != TQ_OK || hub_progress_pull(&settings, &name, revision, path, &err) != TQ_OK)
        return setup_fail("pull", "%s", err.text);
    printf("%s\n", path);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : setup_fail("pull", "cannot write to stdout");
}
