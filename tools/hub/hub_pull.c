/* hub_pull.c: see hub_pull.h. */
#include "hub_pull.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "hub_error.h"
#include "hub_fetch.h"

typedef struct pull {
    const hub_settings *settings;
    const hub_name *name;
    const hub_watch *watch;
    hub_client *client;
    hub_folder folder;
    hub_listing listing;
    hub_choice choice;
    int64_t bytes, before; /* of all files; of those that are done */
    int64_t shown;         /* progress never goes back, not even where a file has to be fetched again */
} pull;

static tq_status ask_for_list(pull *p, const char *revision, tq_error *err) {
    char path[HUB_NAME_CAP + 4 * HUB_PATH_CAP], *text;
    size_t n;
    if (!hub_path_is_safe(revision)) return hub_fail(err, TQ_INVALID, "revision '%.100s': want a branch, a tag or a commit", revision);
    char *encoded = hub_encode(revision, ""); /* refs/pr/1 is one part of the address */
    if (!encoded) return hub_fail(err, TQ_NO_MEMORY, "out of memory for an address");
    snprintf(path, sizeof path, "/api/models/%s/revision/%s?blobs=true", p->name->repo, encoded);
    free(encoded);
    HUB_TRY(hub_fetch_text(p->client, p->settings, p->name->repo, "the list of its files", path, HUB_JSON_MAX, &text, &n, err));
    tq_status status = hub_listing_parse(text, n, &p->listing, err);
    free(text);
    if (status != TQ_OK && err) { /* whose answer it was */
        char why[sizeof err->text];
        memcpy(why, err->text, sizeof why);
        return hub_fail(err, status, "%s: %.400s", p->name->repo, why);
    }
    return status;
}

static bool pass_on(void *ctx, int64_t done) {
    pull *p = ctx;
    if (p->before + done > p->shown) p->shown = p->before + done;
    return !p->watch || !p->watch->progress || p->watch->progress(p->watch->ctx, p->shown, p->bytes);
}

static tq_status fetch_file(pull *p, const hub_file *file, tq_error *err) {
    HUB_TRY(hub_fetch(p->client, p->settings, &p->folder, p->name->repo, p->listing.commit, file, pass_on, p, err));
    p->before += file->size;
    pass_on(p, 0);
    return hub_folder_link(&p->folder, p->listing.commit, file->path, file->digest, err);
}

/* The index says which shards there are: it comes first, and they join the choice. */
static tq_status add_shards(pull *p, tq_error *err) {
    char path[HUB_DISK_PATH_CAP], *text;
    size_t n;
    const hub_file *index = p->choice.index;
    HUB_TRY(hub_fetch(p->client, p->settings, &p->folder, p->name->repo, p->listing.commit, index, NULL, NULL, err));
    HUB_TRY(hub_folder_blob(&p->folder, index->digest, false, path, err));
    HUB_TRY(hub_read_file(path, HUB_JSON_MAX, &text, &n, err));
    tq_status status = hub_choose_shards(&p->listing, text, n, &p->choice, err);
    free(text);
    return status;
}

/* Bytes of a file that need not be fetched. */
static int64_t bytes_there(const pull *p, const hub_file *file) {
    char path[HUB_DISK_PATH_CAP], part[HUB_DISK_PATH_CAP + 16];
    struct stat st;
    if (hub_folder_blob(&p->folder, file->digest, false, path, NULL) != TQ_OK) return 0;
    if (stat(path, &st) == 0) return file->size;
    snprintf(part, sizeof part, "%s.incomplete", path);
    return stat(part, &st) == 0 && st.st_size <= file->size ? st.st_size : 0;
}

static tq_status run(pull *p, const char *revision, char *path, tq_error *err) {
    HUB_TRY(hub_client_new(p->settings, &p->client, err));
    HUB_TRY(hub_folder_of(p->settings, p->name->repo, &p->folder, err));
    HUB_TRY(ask_for_list(p, revision, err));
    tq_status status = hub_choose(&p->listing, p->name->file, &p->choice, err);
    if (status != TQ_OK) {
        char why[sizeof err->text];
        memcpy(why, err->text, sizeof why);
        return hub_fail(err, status, "%s: %.400s", p->name->repo, why);
    }
    if (p->choice.index) HUB_TRY(add_shards(p, err));
    int64_t have = 0;
    for (size_t i = 0; i < p->choice.n; i++) {
        p->bytes += p->choice.files[i]->size;
        have += bytes_there(p, p->choice.files[i]);
    }
    if (p->watch && p->watch->begin) p->watch->begin(p->watch->ctx, p->listing.commit, p->choice.n, p->bytes, have);
    for (size_t i = 0; i < p->choice.n; i++) HUB_TRY(fetch_file(p, p->choice.files[i], err));
    if (strcmp(revision, p->listing.commit) != 0) HUB_TRY(hub_folder_set_ref(&p->folder, revision, p->listing.commit, err));
    return hub_folder_snapshot(&p->folder, p->listing.commit, p->choice.gguf ? p->choice.gguf->path : "", path, err);
}

static tq_status begin(const hub_settings *settings, const hub_name *name, pull **out, tq_error *err) {
    if (settings->offline)
        return hub_fail(err, TQ_INVALID, "%s: HF_HUB_OFFLINE is set, so nothing is fetched", name->repo);
    *out = calloc(1, sizeof **out);
    if (!*out) return hub_fail(err, TQ_NO_MEMORY, "out of memory for a download");
    (*out)->settings = settings;
    (*out)->name = name;
    return TQ_OK;
}

static void end(pull *p) {
    hub_choice_free(&p->choice);
    hub_listing_free(&p->listing);
    hub_client_free(p->client);
    free(p);
}

tq_status hub_pull(const hub_settings *settings, const hub_name *name, const char *revision, const hub_watch *watch, char *path, tq_error *err) {
    tq_error own;
    pull *p;
    if (!err) err = &own;
    HUB_TRY(begin(settings, name, &p, err));
    p->watch = watch;
    tq_status status = run(p, revision, path, err);
    end(p);
    return status;
}

tq_status hub_list(const hub_settings *settings, const hub_name *name, const char *revision, hub_listing *listing, tq_error *err) {
    tq_error own;
    pull *p;
    if (!err) err = &own;
    *listing = (hub_listing){0};
    HUB_TRY(begin(settings, name, &p, err));
    tq_status status = hub_client_new(p->settings, &p->client, err);
    if (status == TQ_OK) status = ask_for_list(p, revision, err);
    if (status == TQ_OK) {
        *listing = p->listing;
        p->listing = (hub_listing){0};
    }
    end(p);
    return status;
}
