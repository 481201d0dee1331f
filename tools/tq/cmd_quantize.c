/* cmd_quantize.c: tq quantize SRC DST. */
#include "commands.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model_name.h"
#include "options.h"
#include "setup.h"
#include "terminal.h"

/* Bytes of the model*.safetensors files of a directory. */
static uint64_t measure_weights(const char *directory) {
    DIR *dir = opendir(directory);
    const struct dirent *entry;
    uint64_t bytes = 0;
    while (dir && (entry = readdir(dir)) != NULL) {
        const char *dot = strrchr(entry->d_name, '.');
        struct stat st;
        if (dot && strcmp(dot, ".safetensors") == 0 && strncmp(entry->d_name, "model", 5) == 0 &&
            fstatat(dirfd(dir), entry->d_name, &st, 0) == 0)
            bytes += (uint64_t)st.st_size;
    }
    if (dir) closedir(dir);
    return bytes;
}

static void show_progress(void *ctx, double fraction) { progress_show(ctx, fraction); }

int cmd_quantize(int argc, char **argv) {
    int bits = 4, group_size = 64, first;
    options o;
    options_begin(&o, "tq quantize SRC DST [OPTIONS]",
                  "Write a quantized copy of the model directory SRC (or ORG/NAME) as DST, in MLX's format.\n"
                  "DST must not exist; it appears complete or not at all.");
    options_heading(&o, "Quantization");
    options_add(&o, (option_row){.name = "bits",
                                 .argument = "N",
                                 .type = OPTION_INT,
                                 .to = &bits,
                                 .min = 2,
                                 .max = 8,
                                 .help = "bits of a weight: 2, 3, 4, 5, 6 or 8 (default 4)"});
    options_add(&o, (option_row){.name = "group-size",
                                 .argument = "N",
                                 .type = OPTION_INT,
                                 .to = &group_size,
                                 .min = 32,
                                 .max = 128,
                                 .help = "weights that share a scale: 32, 64 or 128 (default 64)"});
    int code = options_parse(&o, argc, argv, &first);
    if (code != OPTIONS_RUN) return code;
    if (argc - first != 2) return options_usage_error(&o, "want SRC and DST, got %d operands", argc - first);
    if (bits == 7) return options_usage_error(&o, "--bits 7: want 2, 3, 4, 5, 6 or 8");
    if (group_size != 32 && group_size != 64 && group_size != 128)
        return options_usage_error(&o, "--group-size %d: want 32, 64 or 128", group_size);

    char src[MODEL_PATH_CAP];
    const char *dst = argv[first + 1];
    code = model_name_resolve("quantize", argv[first], src);
    if (code != EXIT_SUCCESS) return code;
    progress_bar bar;
    tq_error err;
    progress_begin(&bar, "quantizing");
    tq_status status = tq_quantize_directory(src, dst, bits, group_size, show_progress, &bar, &err);
    progress_end(&bar);
    if (status != TQ_OK) return setup_fail("quantize", "%s", err.text);
    char before[32], after[32];
    printf("%s: %s of weights, %s before\n", dst, terminal_bytes(after, measure_weights(dst)),
           terminal_bytes(before, measure_weights(src)));
    return fflush(stdout) == 0 ? EXIT_SUCCESS : setup_fail("quantize", "cannot write to stdout");
}
