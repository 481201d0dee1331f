/* hub_pull.h: a model from a hub into the cache that Hugging Face's programs share; and back out of it.
 *
 *     hub_settings s;  hub_name name;
 *     hub_settings_read(&s, &err);  hub_name_parse("org/model:Q4_K_M", &name);
 *     if (hub_cache_find(&s, &name, "main", path, &err) == TQ_NOT_FOUND) hub_pull(&s, &name, "main", NULL, path, &err);
 */
#ifndef TQ_HUB_PULL_H
#define TQ_HUB_PULL_H

#include "hub_cache.h"

typedef struct hub_watch {
    /* Once, before the weights: how many files, bytes of all, bytes that are there already.  May be NULL. */
    void (*begin)(void *ctx, const char *commit, size_t n_files, int64_t bytes, int64_t have);
    /* While they come; false stops (TQ_CANCELLED).  May be NULL. */
    bool (*progress)(void *ctx, int64_t done, int64_t bytes);
    void *ctx;
} hub_watch;

/* Fetch what the model needs (hub_choose) and is not there; then refs/REVISION names the commit, and not before.  path
 * (HUB_DISK_PATH_CAP): the directory, or the GGUF file.  TQ_UNSUPPORTED in a build without downloads. */
tq_status hub_pull(const hub_settings *settings, const hub_name *name, const char *revision, const hub_watch *watch, char *path, tq_error *err);

/* What the repository has, fetching nothing else; hub_listing_free. */
tq_status hub_list(const hub_settings *settings, const hub_name *name, const char *revision, hub_listing *listing, tq_error *err);

#endif
