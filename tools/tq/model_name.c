/* model_name.c: see model_name.h. */
#include "model_name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "hub_progress.h"
#include "hub_pull.h"
#include "model_stores.h"
#include "setup.h"

_Static_assert((int)MODEL_PATH_CAP == (int)HUB_DISK_PATH_CAP, "paths of the hub's cache fit");

static int keep(const char *command, const char *name, char *path) {
    if (strlen(name) >= MODEL_PATH_CAP) return setup_fail(command, "%.60s...: the path is too long", name);
    memcpy(path, name, strlen(name) + 1);
    return EXIT_SUCCESS;
}

static bool looks_like_path(const char *name) {
    return name[0] == '/' || name[0] == '~' || strncmp(name, "./", 2) == 0 || strncmp(name, "../", 3) == 0 || strncmp(name, "synthetic:", 10) == 0;
}

static bool folder_is_here(const char *repo) {
    char org[HUB_NAME_CAP];
    struct stat st;
    snprintf(org, sizeof org, "%.*s", (int)strcspn(repo, "/"), repo);
    return stat(org, &st) == 0 && S_ISDIR(st.st_mode);
}

static int found(const char *name, const char *where, const char *path) {
    fprintf(stderr, "%s: from %s, %s\n", name, where, path);
    return EXIT_SUCCESS;
}

/* A store that has the name and something wrong with it ends the search: another store's model may be another model. */
static bool is_over(tq_status status) { return status != TQ_NOT_FOUND; }

static int fetch(const char *command, const hub_settings *settings, const hub_name *name, char *path) {
    if (folder_is_here(name->repo))
        return setup_fail(command, "%s: no such model directory or GGUF file; a folder %.*s is here, so it is taken for a path and not "
                          "fetched ('tq pull %s' does)", name->repo, (int)strcspn(name->repo, "/"), name->repo, name->repo);
    if (settings->offline)
        return setup_fail(command, "%s: no such directory, not among the models on this machine, and HF_HUB_OFFLINE is set, so it is not fetched",
                          name->repo);
    tq_error err;
    return hub_progress_pull(settings, name, name->revision, path, &err) == TQ_OK ? EXIT_SUCCESS : setup_fail(command, "%s", err.text);
}

int model_name_resolve(const char *command, const char *name, char path[MODEL_PATH_CAP]) {
    struct stat st;
    tq_error err;
    hub_name parsed;
    hub_settings settings;
    if (looks_like_path(name) || stat(name, &st) == 0) return keep(command, name, path);
    bool from_hub = hub_name_parse(name, &parsed);
    if (from_hub) {
        if (hub_settings_read(&settings, &err) != TQ_OK) return setup_fail(command, "%s", err.text);
        tq_status status = hub_cache_find(&settings, &parsed, parsed.revision, path, &err);
        if (status == TQ_OK) return found(name, "Hugging Face's cache", path);
        if (is_over(status) && status != TQ_INVALID) return setup_fail(command, "%s: %s", name, err.text);
    }
    tq_status status = model_store_ollama(name, path, &err);
    if (status == TQ_OK) return found(name, "Ollama's store", path);
    if (is_over(status)) return setup_fail(command, "%s: %s", name, err.text);
    if (strchr(name, '@')) status = TQ_NOT_FOUND; /* which other stores do not know */
    else status = model_store_llama_cpp(name, path, &err);
    if (status == TQ_OK) return found(name, "llama.cpp's cache", path);
    if (is_over(status)) return setup_fail(command, "%s: %s", name, err.text);
    return from_hub ? fetch(command, &settings, &parsed, path) : keep(command, name, path);
}
