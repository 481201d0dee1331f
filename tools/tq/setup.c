/* setup.c: opening models, sessions and prompt files for every command, with one wording of what can go wrong. */
#include "setup.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>

#include "model_name.h"
#include "terminal.h"

enum { TEXT_BYTES_MAX = 256 << 20 };

int setup_fail(const char *command, const char *format, ...) {
    fflush(stdout);
    fprintf(stderr, "tq %s: ", command);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return EXIT_FAILURE;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static bool holds_model(const char *dir) {
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/config.json", dir);
    return n > 0 && (size_t)n < sizeof path && access(path, R_OK) == 0;
}

/* The directory of the program itself, so that a build tree and an installed copy find their own model. */
static bool find_own_directory(char *dir, size_t cap) {
    ssize_t n = readlink("/proc/self/exe", dir, cap - 1);
    if (n <= 0) return false;
    dir[n] = 0;
    char *slash = strrchr(dir, '/');
    if (!slash) return false;
    *slash = 0;
    return true;
}

static const char *find_bundled_model(char path[PATH_MAX]) {
    static const char *const beside[] = {"../models/bookworm", "models/bookworm",
                                         "../share/turboquant/models/bookworm"};
    char own[PATH_MAX];
    if (find_own_directory(own, sizeof own)) {
        for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
            int n = snprintf(path, PATH_MAX, "%s/%s", own, beside[i]);
            char real[PATH_MAX];
            if (n < 0 || n >= PATH_MAX || !holds_model(path)) continue;
            if (realpath(path, real)) memcpy(path, real, sizeof real); /* without "build/..", for people */
            return path;
        }
    }
    snprintf(path, PATH_MAX, "%s/bookworm", TQ_MODELS_SOURCE_DIR);
    return holds_model(path) ? path : NULL;
}

static void show_loading(void *ctx, double fraction) { progress_show(ctx, fraction); }

int setup_model_reporting(const char *command, const model_options *o, void (*progress)(void *, double), void *ctx,
                          tq_model **out) {
    char found[PATH_MAX], resolved[MODEL_PATH_CAP];
    const char *path = o->model, *from_env = getenv("TQ_MODEL");
    if (!path && from_env && *from_env) path = from_env;
    if (!path) path = find_bundled_model(found);
    if (!path)
        return setup_fail(command,
                          "the bundled model (bookworm) was found neither beside the program nor in %s; "
                          "name a model with --model DIR or TQ_MODEL",
                          TQ_MODELS_SOURCE_DIR);
    int64_t limit;
    int code = options_get_memory(command, o, &limit);
    if (code != OPTIONS_RUN) return code;
    tq_precision prefill;
    code = options_get_prefill(command, o, &prefill);
    if (code != OPTIONS_RUN) return code;
    code = model_name_resolve(command, path, resolved);
    if (code != EXIT_SUCCESS) return code;
    path = resolved;
    tq_model_params params = {
        .n_threads = o->threads, .kernels = o->kernels, .prefill = prefill, .progress = progress, .progress_ctx = ctx, .memory_limit = limit};
    tq_error err;
    tq_status status = tq_model_open(path, &params, out, &err);
    if (status == TQ_OK) return EXIT_SUCCESS;
    setup_fail(command, "%s", err.text);
    /* Of what was typed, only these can be invalid in themselves; the rest is about files. */
    return status == TQ_INVALID && (o->kernels || o->threads) ? EXIT_USAGE : EXIT_FAILURE;
}

int setup_model(const char *command, const model_options *o, tq_model **out, double *load_seconds) {
    progress_bar bar;
    progress_begin(&bar, "loading");
    double start = terminal_seconds();
    int code = setup_model_reporting(command, o, show_loading, &bar, out);
    progress_end(&bar);
    if (load_seconds) *load_seconds = terminal_seconds() - start;
    return code;
}

int setup_session(const char *command, tq_model *model, const tq_cache_config *config, int ctx, tq_session **out) {
    tq_session_params params = tq_session_params_default();
    params.cache = *config;
    params.ctx = ctx;
    tq_error err;
    tq_status status = tq_session_new(model, &params, out, &err);
    int most = tq_model_get_info(model)->max_context;
    if (status == TQ_OK && ctx == 0 && tq_session_ctx(*out) < most)
        fprintf(stderr, "note: there is memory for a context of %d tokens of the model's %d\n", tq_session_ctx(*out), most);
    if (status == TQ_OK) return EXIT_SUCCESS;
    setup_fail(command, "%s", err.text);
    return status == TQ_INVALID ? EXIT_USAGE : EXIT_FAILURE;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

int setup_check_utf8(const char *command, const char *what, const char *text) {
    size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t code;
        utf8proc_ssize_t length =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &code);
        if (length <= 0) return setup_fail(command, "%s is not valid UTF-8 at byte %zu", what, i);
        i += (size_t)length;
    }
    return EXIT_SUCCESS;
}

static int read_all(const char *command, const char *name, FILE *file, char **text, size_t *n) {
    char *data = NULL;
    size_t length = 0, cap = 0;
    for (;;) {
        if (length + 1 >= cap) {
            size_t wanted = cap ? 2 * cap : 1 << 16;
            char *grown = realloc(data, wanted);
            if (!grown) {
                free(data);
                return setup_fail(command, "out of memory: %zu bytes for %s", wanted, name);
            }
            data = grown;
            cap = wanted;
        }
        size_t got = fread(data + length, 1, cap - 1 - length, file);
        length += got;
        if (got == 0 || length > TEXT_BYTES_MAX) break;
    }
    int code = EXIT_SUCCESS;
    if (ferror(file)) code = setup_fail(command, "%s: %s", name, strerror(errno));
    else if (length > TEXT_BYTES_MAX) code = setup_fail(command, "%s: more than %d bytes", name, TEXT_BYTES_MAX);
    else if (memchr(data, 0, length)) code = setup_fail(command, "%s: holds NUL bytes, so it is not text", name);
    if (code != EXIT_SUCCESS) {
        free(data);
        return code;
    }
    data[length] = 0;
    *text = data;
    *n = length;
    return EXIT_SUCCESS;
}

int setup_read_text(const char *command, const char *path, char **text, size_t *n) {
    if (strcmp(path, "-") == 0) return read_all(command, "stdin", stdin, text, n);
    FILE *file = fopen(path, "rb");
    if (!file) return setup_fail(command, "%s: %s", path, strerror(errno));
    int code = read_all(command, path, file, text, n);
    fclose(file);
    return code;
}
