/* cmd_pull.c: tq pull ORG/NAME[@REVISION][:FILE]. */
#include "commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hub_progress.h"
#include "options.h"
#include "setup.h"
#include "terminal.h"

static int list(const hub_settings *settings, const hub_name *name, const char *revision) {
    tq_error err;
    hub_listing listing;
    char bytes[32];
    int64_t all = 0;
    if (hub_list(settings, name, revision, &listing, &err) != TQ_OK) return setup_fail("pull", "%s", err.text);
    for (size_t i = 0; i < listing.n; i++) {
        all += listing.files[i].size;
        printf("%10s  ", terminal_bytes(bytes, (uint64_t)listing.files[i].size));
        terminal_write_text(stdout, listing.files[i].path, strlen(listing.files[i].path));
        printf("\n");
    }
    printf("%10s  in %zu files of commit %s\n", terminal_bytes(bytes, (uint64_t)all), listing.n, listing.commit);
    hub_listing_free(&listing);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : setup_fail("pull", "cannot write to stdout");
}

int cmd_pull(int argc, char **argv) {
    const char *revision = NULL;
    bool only_list = false;
    int first;
    options o;
    options_begin(&o, "tq pull ORG/NAME[@REVISION][:FILE] [OPTIONS]",
                  "Fetch what a model needs from the Hugging Face hub into the cache that its own programs share, and print\n"
                  "where it lies.  FILE is a GGUF file of the repository, or its quantization: org/name:Q4_K_M.\n"
                  "What broke off is taken up again; every file's digest is checked.  HF_HOME, HF_HUB_CACHE, HF_TOKEN,\n"
                  "HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to huggingface_hub.");
    options_add(&o, (option_row){.name = "revision", .argument = "REV", .type = OPTION_STRING, .to = &revision,
                                 .help = "branch, tag or commit, as after @ (default main)"});
    options_add(&o, (option_row){.name = "list", .type = OPTION_FLAG, .to = &only_list,
                                 .help = "fetch nothing: tell which files there are"});
    int code = options_parse(&o, argc, argv, &first);
    if (code != OPTIONS_RUN) return code;
    if (argc - first != 1) return options_usage_error(&o, "want ORG/NAME, got %d operands", argc - first);
    hub_name name;
    hub_settings settings;
    tq_error err;
    char path[HUB_DISK_PATH_CAP];
    if (!hub_name_parse(argv[first], &name))
        return options_usage_error(&o, "want ORG/NAME, ORG/NAME@REVISION or either with :FILE, got '%s'", argv[first]);
    if (revision && strchr(argv[first], '@')) return options_usage_error(&o, "want @%s or --revision, got both", name.revision);
    if (!revision) revision = name.revision;
    if (hub_settings_read(&settings, &err) != TQ_OK) return setup_fail("pull", "%s", err.text);
    if (only_list) return list(&settings, &name, revision);
    if (hub_progress_pull(&settings, &name, revision, path, &err) != TQ_OK)
        return setup_fail("pull", "%s", err.text);
    printf("%s\n", path);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : setup_fail("pull", "cannot write to stdout");
}
