/* hub_fetch.h: one file of a repository into the cache's blobs: resumed where it broke off, its digest checked, there
 * whole or not at all. */
#ifndef TQ_HUB_FETCH_H
#define TQ_HUB_FETCH_H

#include "hub_http.h"

/* Bytes of this file that are there; false stops (TQ_CANCELLED, what came stays for the next time). */
typedef bool (*hub_bytes_fn)(void *ctx, int64_t done);

/* file->digest must be known.  A blob that is there already is taken as it is.  The blob's lock is held meanwhile.
 * TQ_FORMAT: the server sent something else than it announced; it is not kept. */
tq_status hub_fetch(hub_client *client, const hub_settings *settings, const hub_folder *folder, const char *repo, const char *commit,
                    const hub_file *file, hub_bytes_fn progress, void *ctx, tq_error *err);

/* A small answer whole, with tries; free(). TQ_FORMAT if it is larger than cap. */
tq_status hub_fetch_text(hub_client *client, const hub_settings *settings, const char *repo, const char *what, const char *path,
                         size_t cap, char **text, size_t *n, tq_error *err);

#endif
