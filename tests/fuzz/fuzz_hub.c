/* fuzz_hub.c: what a hub answers: lists of files and which are chosen, an index of shards, names, headers; and an Ollama
 * manifest.  The first byte says which.
 * Holds: no path that was accepted leaves its folder, and what was chosen is of the list. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hub_names.h"
#include "model_stores.h"

static void want(int condition) {
    if (!condition) abort();
}

static void check_listing(const hub_listing *listing) {
    want(strlen(listing->commit) == 40);
    for (size_t i = 0; i < listing->n; i++) {
        const hub_file *f = &listing->files[i];
        want(hub_path_is_safe(f->path) && f->path[0] != '/' && !strstr(f->path, "/../") && strncmp(f->path, "../", 3) != 0);
        want(f->size >= 0 && strlen(f->digest) == (f->lfs ? 64u : 40u) && hub_listing_find(listing, f->path) == f);
    }
}

static void check_choice(const hub_listing *listing, const hub_choice *choice) {
    for (size_t i = 0; i < choice->n; i++) want(choice->files[i] >= listing->files && choice->files[i] < listing->files + listing->n);
}

/* "FILE\nJSON" or, of an index, "JSON\nJSON". */
static void try_listing(const char *text, size_t n, int with_index) {
    tq_error err;
    hub_listing listing;
    hub_choice choice;
    const char *line = memchr(text, '\n', n);
    size_t first = line ? (size_t)(line - text) : n, rest = line ? n - first - 1 : 0;
    char file[128] = "";
    if (!with_index) memcpy(file, text, first < sizeof file ? first : 0);
    const char *json = with_index || !line ? text : line + 1;
    if (hub_listing_parse(json, with_index || !line ? first : rest, &listing, &err) != TQ_OK) return;
    check_listing(&listing);
    if (hub_choose(&listing, file, &choice, &err) == TQ_OK) {
        if (with_index && line) (void)hub_choose_shards(&listing, line + 1, rest, &choice, &err);
        check_choice(&listing, &choice);
        hub_choice_free(&choice);
    }
    hub_listing_free(&listing);
}

static void try_words(const char *text) {
    hub_name name;
    char etag[64];
    int64_t first, last, total;
    if (hub_name_parse(text, &name)) want(strchr(name.repo, '/') && !strstr(name.repo, "..") && hub_path_is_safe(name.revision) &&
                                          (!*name.file || hub_path_is_safe(name.file)));
    if (hub_content_range(text, &first, &last, &total)) want(first >= 0 && first <= last && last < total);
    if (hub_etag(text, etag, sizeof etag)) want(*etag && strlen(etag) < sizeof etag && !strchr(etag, '"'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    char *text = malloc(size), digest[65];
    if (!text) return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    switch (data[0] & 3) {
    case 0: try_listing(text, size - 1, 0); break;
    case 1: try_listing(text, size - 1, 1); break;
    case 2: try_words(text); break;
    case 3:
        if (model_store_manifest(text, size - 1, digest, NULL) == TQ_OK) want(strlen(digest) == 64 && !strchr(digest, '/'));
        break;
    }
    free(text);
    return 0;
}
