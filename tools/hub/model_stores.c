/* model_stores.c: see model_stores.h. */
#include "model_stores.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hub_cache.h"
#include "hub_error.h"

enum { MANIFEST_MAX = 4 << 20 };

static const char *value_of(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* ---- Ollama ------------------------------------------------------------------------------------------------------ */

tq_status model_store_manifest(const char *json, size_t n, char digest[65], tq_error *err) {
    static const char model[] = "application/vnd.ollama.image.model";
    json_error_t at;
    json_t *root = n <= MANIFEST_MAX ? json_loadb(json, n, JSON_REJECT_DUPLICATES, &at) : NULL;
    const json_t *layer;
    size_t i;
    int found = 0;
    bool tensors = false, good = true;
    if (!root) return hub_fail(err, TQ_FORMAT, "an Ollama manifest that is no JSON");
    json_array_foreach(json_object_get(root, "layers"), i, layer) {
        const char *type = json_string_value(json_object_get(layer, "mediaType"));
        const char *text = json_string_value(json_object_get(layer, "digest"));
        tensors |= type && strcmp(type, "application/vnd.ollama.image.tensor") == 0;
        if (!type || strcmp(type, model) != 0) continue;
        found++;
        good = good && text && strncmp(text, "sha256:", 7) == 0 && strlen(text) == 71 && strspn(text + 7, "0123456789abcdef") == 64;
        if (good) memcpy(digest, text + 7, 65);
    }
    json_decref(root);
    if (found == 1 && good) return TQ_OK;
    if (!good) return hub_fail(err, TQ_FORMAT, "an Ollama manifest with a digest that is none");
    if (found > 1) return hub_fail(err, TQ_UNSUPPORTED, "an Ollama manifest of %d model files: want one GGUF file", found);
    return hub_fail(err, TQ_UNSUPPORTED, "an Ollama manifest without a GGUF file%s", tensors ? ": its tensors are stored one by one" : "");
}

/* "NAME[:TAG]" as the path of its manifest: registry.ollama.ai and library stand for what is left out. */
static bool manifest_path(const char *name, char *to, size_t cap) {
    int slashes = 0;
    for (const char *c = name; *c; c++) slashes += *c == '/';
    const char *last = strrchr(name, '/'), *tag = strchr(last ? last : name, ':');
    int n = snprintf(to, cap, "%s%.*s/%s", slashes == 0 ? "registry.ollama.ai/library/" : slashes == 1 ? "registry.ollama.ai/" : "",
                     tag ? (int)(tag - name) : (int)strlen(name), name, tag ? tag + 1 : "latest");
    return n > 0 && (size_t)n < cap && slashes <= 2 && hub_path_is_safe(to);
}

static tq_status find_in_ollama(const char *root, const char *name, char *path, tq_error *err) {
    char inside[HUB_PATH_CAP], digest[65], *text;
    size_t n;
    if (!manifest_path(name, inside, sizeof inside)) return hub_fail(err, TQ_NOT_FOUND, "'%.100s' is no name of an Ollama model", name);
    int length = snprintf(path, HUB_DISK_PATH_CAP, "%s/manifests/%s", root, inside);
    if (length < 0 || length >= HUB_DISK_PATH_CAP || !is_file(path)) return hub_fail(err, TQ_NOT_FOUND, "not in %.200s", root);
    HUB_TRY(hub_read_file(path, MANIFEST_MAX, &text, &n, err));
    tq_status status = model_store_manifest(text, n, digest, err);
    free(text);
    if (status != TQ_OK) return status;
    length = snprintf(path, HUB_DISK_PATH_CAP, "%s/blobs/sha256-%s", root, digest);
    if (length >= HUB_DISK_PATH_CAP || !is_file(path))
        return hub_fail(err, TQ_NOT_FOUND, "Ollama's %.100s: its file %.300s is missing", name, path);
    return TQ_OK;
}

tq_status model_store_ollama(const char *name, char *path, tq_error *err) {
    char root[2048];
    if (value_of("OLLAMA_MODELS")) return find_in_ollama(value_of("OLLAMA_MODELS"), name, path, err);
    tq_status status = TQ_NOT_FOUND;
    if (value_of("HOME") && (size_t)snprintf(root, sizeof root, "%s/.ollama/models", value_of("HOME")) < sizeof root)
        status = find_in_ollama(root, name, path, err);
    return status == TQ_NOT_FOUND ? find_in_ollama("/usr/share/ollama/.ollama/models", name, path, err) : status;
}

/* ---- llama.cpp ----------------------------------------------------------------------------------------------------- */

static bool llama_folder(char root[2048]) {
    int n = -1;
    if (value_of("LLAMA_CACHE")) n = snprintf(root, 2048, "%s", value_of("LLAMA_CACHE"));
    else if (value_of("XDG_CACHE_HOME")) n = snprintf(root, 2048, "%s/llama.cpp", value_of("XDG_CACHE_HOME"));
    else if (value_of("HOME")) n = snprintf(root, 2048, "%s/.cache/llama.cpp", value_of("HOME"));
    return n > 0 && n < 2048;
}

/* The GGUF files of one repository, by their names in it. */
static tq_status list_repository(const char *root, const char *prefix, hub_listing *listing, tq_error *err) {
    DIR *dir = opendir(root);
    if (!dir) return hub_fail(err, TQ_NOT_FOUND, "there is no %.200s", root);
    tq_status status = TQ_OK;
    const struct dirent *entry;
    size_t n = strlen(prefix);
    while (status == TQ_OK && (entry = readdir(dir)) != NULL) {
        size_t length = strlen(entry->d_name);
        if (strncmp(entry->d_name, prefix, n) == 0 && length > n + 5 && strcmp(entry->d_name + length - 5, ".gguf") == 0)
            status = hub_listing_add(listing, entry->d_name + n, 0, err);
    }
    closedir(dir);
    hub_listing_sort(listing);
    if (status == TQ_OK && listing->n == 0) return hub_fail(err, TQ_NOT_FOUND, "not in %.200s", root);
    return status;
}

tq_status model_store_llama_cpp(const char *name, char *path, tq_error *err) {
    char root[2048], prefix[HUB_NAME_CAP + 2];
    hub_name parsed;
    hub_listing listing = {0};
    hub_choice choice = {0};
    if (!llama_folder(root)) return hub_fail(err, TQ_NOT_FOUND, "there is no home folder");
    if (!strchr(name, '/')) {
        int n = snprintf(path, HUB_DISK_PATH_CAP, "%s/%s", root, name);
        bool gguf = strlen(name) > 5 && strcmp(name + strlen(name) - 5, ".gguf") == 0;
        return n < HUB_DISK_PATH_CAP && gguf && hub_path_is_safe(name) && is_file(path) ? TQ_OK : hub_fail(err, TQ_NOT_FOUND, "not in %.200s", root);
    }
    if (!hub_name_parse(name, &parsed)) return hub_fail(err, TQ_NOT_FOUND, "'%.100s' is no ORG/NAME", name);
    snprintf(prefix, sizeof prefix, "%s_", parsed.repo);
    *strchr(prefix, '/') = '_';
    for (char *c = parsed.file; (c = strchr(c, '/')) != NULL;) *c = '_';
    tq_status status = list_repository(root, prefix, &listing, err);
    if (status == TQ_OK) status = hub_choose(&listing, parsed.file, &choice, err);
    if (status == TQ_OK && snprintf(path, HUB_DISK_PATH_CAP, "%s/%s%s", root, prefix, choice.gguf->path) >= HUB_DISK_PATH_CAP)
        status = hub_fail(err, TQ_INVALID, "%.60s...: the path is too long", root);
    hub_choice_free(&choice);
    hub_listing_free(&listing);
    return status;
}
