/* hub_choice.c: which files of a repository make the model. */
#define _GNU_SOURCE /* strcasestr */
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hub_error.h"
#include "hub_names.h"

#define INDEX "model.safetensors.index.json"

static tq_status add(hub_choice *choice, const hub_file *file, tq_error *err) {
    if ((choice->n & (choice->n - 1)) == 0) {
        const hub_file **grown = realloc(choice->files, (choice->n ? 2 * choice->n : 1) * sizeof *grown);
        if (!grown) return hub_fail(err, TQ_NO_MEMORY, "out of memory for a list of files");
        choice->files = grown;
    }
    choice->files[choice->n++] = file;
    return TQ_OK;
}

void hub_choice_free(hub_choice *choice) {
    free(choice->files);
    *choice = (hub_choice){0};
}

/* ---- GGUF -------------------------------------------------------------------------------------------------------- */

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

/* Of "...-00002-of-00005.gguf": 2 and 5, and the length of what stands before the dash; false for a file of its own. */
static bool is_part(const char *path, int *part, int *parts, size_t *stem) {
    size_t n = strlen(path);
    if (n < 20) return false;
    const char *end = path + n - 20; /* "-00002-of-00005.gguf" */
    for (int i = 0; i < 5; i++)
        if (!isdigit((unsigned char)end[1 + i]) || !isdigit((unsigned char)end[10 + i])) return false;
    if (end[0] != '-' || strncmp(end + 6, "-of-", 4) != 0 || strcasecmp(end + 15, ".gguf") != 0) return false;
    *part = atoi(end + 1);
    *parts = atoi(end + 10);
    *stem = n - 20;
    return true;
}

/* A GGUF file that can be a model: not what belongs beside one, and of a split only the first part. */
static bool is_gguf_model(const char *path) {
    const char *name = base_name(path);
    int part, parts;
    size_t stem;
    if (!ends_with(path, ".gguf") || strncasecmp(name, "mmproj", 6) == 0 || strcasestr(name, "imatrix")) return false;
    return !is_part(path, &part, &parts, &stem) || part == 1;
}

/* The tag stands in the path between separators: "x-Q4_K_M.gguf", "x.q4_k_m.gguf", "Q4_K_M/x.gguf"; Q4_K is not in it. */
static bool has_tag(const char *path, const char *tag) {
    size_t n = strlen(tag);
    for (const char *at = path; (at = strcasestr(at, tag)) != NULL; at++) {
        bool starts = at == path || strchr("-./", at[-1]), ends = at[n] && strchr("-./", at[n]);
        if (starts && ends) return true;
    }
    return false;
}

/* The GGUF models there are, as many as fit. */
static void list_models(const hub_listing *listing, const char *tag, char *text, size_t cap) {
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < listing->n; i++) {
        const char *path = listing->files[i].path;
        if (!is_gguf_model(path) || (tag && !has_tag(path, tag))) continue;
        if (used + strlen(path) + 8 > cap) {
            snprintf(text + used, cap - used, ", ...");
            return;
        }
        used += (size_t)snprintf(text + used, cap - used, "%s%s", used ? ", " : "", path);
    }
    if (!used) snprintf(text, cap, "none");
}

/* The file itself, or all parts of the split that it is the first of. */
static tq_status add_gguf(const hub_listing *listing, const hub_file *file, hub_choice *out, tq_error *err) {
    int part, parts;
    size_t stem;
    out->gguf = file;
    if (!is_part(file->path, &part, &parts, &stem)) return add(out, file, err);
    if (parts < 1 || parts > 1000) return hub_fail(err, TQ_FORMAT, "%.200s: want 1 to 1000 parts", file->path);
    for (int i = 1; i <= parts; i++) {
        char path[HUB_PATH_CAP + 32];
        snprintf(path, sizeof path, "%.*s-%05d-of-%05d%s", (int)stem, file->path, i, parts, file->path + stem + 15);
        const hub_file *found = hub_listing_find(listing, path);
        if (!found) return hub_fail(err, TQ_NOT_FOUND, "part %.200s is missing", path);
        HUB_TRY(add(out, found, err));
    }
    return TQ_OK;
}

/* By path, by tag, or with file "" the only one. */
static tq_status choose_gguf(const hub_listing *listing, const char *file, hub_choice *out, tq_error *err) {
    char there[320];
    const hub_file *found = *file ? hub_listing_find(listing, file) : NULL;
    if (found && !is_gguf_model(found->path))
        return hub_fail(err, TQ_INVALID, "%.200s is not a model's (first) GGUF file", file);
    size_t n = 0;
    for (size_t i = 0; i < listing->n && !(found && n == 0); i++) {
        if (!is_gguf_model(listing->files[i].path) || (*file && !has_tag(listing->files[i].path, file))) continue;
        if (n++ == 0 && !found) out->gguf = &listing->files[i];
    }
    if (!found && n == 1) found = out->gguf;
    out->gguf = NULL;
    if (found) return add_gguf(listing, found, out, err);
    list_models(listing, n > 1 && *file ? file : NULL, there, sizeof there);
    if (n > 1 && *file) return hub_fail(err, TQ_INVALID, "several GGUF files match '%.60s': %s", file, there);
    if (n > 1) return hub_fail(err, TQ_INVALID, "several GGUF models: name one as ORG/NAME:FILE or ORG/NAME:TAG: %s", there);
    if (*file) return hub_fail(err, TQ_NOT_FOUND, "no GGUF file '%.100s'; there are: %s", file, there);
    return hub_fail(err, TQ_NOT_FOUND, "there is neither config.json with model.safetensors nor a GGUF file in it");
}

/* ---- directories --------------------------------------------------------------------------------------------------- */

/* What this engine or another reader of the same directory takes beside the weights. */
static bool is_small_part(const char *path) {
    static const char *const names[] = {"config.json", "generation_config.json", "special_tokens_map.json",
                                        "added_tokens.json", "chat_template.jinja", "chat_template.json", INDEX};
    static const char templates[] = "additional_chat_templates/";
    const char *in_folder = strncmp(path, templates, strlen(templates)) == 0 ? path + strlen(templates) : NULL;
    if (in_folder && !strchr(in_folder, '/') && ends_with(in_folder, ".jinja")) return true;
    if (strchr(path, '/')) return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(path, names[i]) == 0) return true;
    return strncmp(path, "tokenizer", 9) == 0 && (ends_with(path, ".json") || ends_with(path, ".model"));
}

static tq_status choose_directory(const hub_listing *listing, hub_choice *out, tq_error *err) {
    out->index = hub_listing_find(listing, INDEX);
    for (size_t i = 0; i < listing->n; i++)
        if (is_small_part(listing->files[i].path)) HUB_TRY(add(out, &listing->files[i], err));
    return out->index ? TQ_OK : add(out, hub_listing_find(listing, "model.safetensors"), err);
}

tq_status hub_choose(const hub_listing *listing, const char *file, hub_choice *out, tq_error *err) {
    *out = (hub_choice){0};
    bool directory = hub_listing_find(listing, "config.json") &&
                     (hub_listing_find(listing, INDEX) || hub_listing_find(listing, "model.safetensors"));
    tq_status status = directory && !*file ? choose_directory(listing, out, err) : choose_gguf(listing, file, out, err);
    if (status != TQ_OK) hub_choice_free(out);
    return status;
}

static int compare_files(const void *a, const void *b) {
    const hub_file *const *x = a, *const *y = b;
    return strcmp((*x)->path, (*y)->path);
}

static tq_status add_shards(const hub_listing *listing, json_t *map, hub_choice *choice, tq_error *err) {
    const char *tensor;
    json_t *value;
    size_t first = choice->n, kept = first;
    json_object_foreach(map, tensor, value) {
        const char *name = json_string_value(value);
        const hub_file *shard = name && !strchr(name, '/') ? hub_listing_find(listing, name) : NULL;
        if (!shard || !ends_with(name, ".safetensors"))
            return hub_fail(err, TQ_FORMAT, INDEX ": %.100s: \"%.100s\" is no safetensors file beside it", tensor, name ? name : "");
        HUB_TRY(add(choice, shard, err));
    }
    if (choice->n == first) return hub_fail(err, TQ_FORMAT, INDEX " names no shard");
    qsort(choice->files + first, choice->n - first, sizeof *choice->files, compare_files);
    for (size_t i = first; i < choice->n; i++)
        if (i == first || choice->files[i] != choice->files[i - 1]) choice->files[kept++] = choice->files[i];
    choice->n = kept;
    choice->index = NULL;
    return TQ_OK;
}

tq_status hub_choose_shards(const hub_listing *listing, const char *json, size_t n, hub_choice *choice, tq_error *err) {
    json_error_t at;
    if (n > HUB_JSON_MAX) return hub_fail(err, TQ_FORMAT, INDEX ": %zu bytes; at most %d are read", n, HUB_JSON_MAX);
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &at);
    if (!root) return hub_fail(err, TQ_FORMAT, INDEX ": %.200s at line %d", at.text, at.line);
    json_t *map = json_object_get(root, "weight_map");
    tq_status status = json_is_object(map) ? add_shards(listing, map, choice, err)
                                           : hub_fail(err, TQ_FORMAT, INDEX ": want an object weight_map");
    json_decref(root);
    return status;
}
