/* hub_cache.h: the cache of files from a hub that Hugging Face's own programs share:
 *
 *     $HF_HUB_CACHE (else $HF_HOME/hub)/models--ORG--NAME/refs/main                  the commit that "main" was
 *                                                        /blobs/DIGEST               contents, by their digest
 *                                                        /blobs/DIGEST.incomplete    what came before a download broke off
 *                                                        /snapshots/COMMIT/PATH      links to ../../blobs/DIGEST
 *     $HF_HUB_CACHE/.locks/models--ORG--NAME/DIGEST.lock                             flock, while a blob is written
 *
 * Owns: paths, links, the environment's settings.  Not here: the network (hub_http.h). */
#ifndef TQ_HUB_CACHE_H
#define TQ_HUB_CACHE_H

#include "hub_names.h"

enum { HUB_DISK_PATH_CAP = 4096 };

/* The environment.  docs/hub.md lists the variables. */
typedef struct hub_settings {
    char endpoint[512]; /* HF_ENDPOINT, without a slash at its end */
    char cache[2048];   /* HF_HUB_CACHE, ... */
    char token[512];    /* HF_TOKEN, else the token file; "" if there is none */
    const char *token_from; /* "HF_TOKEN", or the file; for messages */
    char token_path[2048];
    bool offline;       /* HF_HUB_OFFLINE */
} hub_settings;

/* TQ_INVALID for an endpoint that is no http(s) address, a token that cannot be one. */
tq_status hub_settings_read(hub_settings *out, tq_error *err);

/* A model's folder in the cache. */
typedef struct hub_folder {
    char path[HUB_DISK_PATH_CAP], locks[HUB_DISK_PATH_CAP];
} hub_folder;

tq_status hub_folder_of(const hub_settings *settings, const char *repo, hub_folder *out, tq_error *err);

/* What refs/REVISION says; false if it says nothing that is a commit. */
bool hub_folder_ref(const hub_folder *folder, const char *revision, char commit[41]);
tq_status hub_folder_set_ref(const hub_folder *folder, const char *revision, const char *commit, tq_error *err);

/* Into path (HUB_DISK_PATH_CAP); with create, its folders are made. */
tq_status hub_folder_blob(const hub_folder *folder, const char *digest, bool create, char *path, tq_error *err);
tq_status hub_folder_snapshot(const hub_folder *folder, const char *commit, const char *file, char *path, tq_error *err);

/* Link snapshots/COMMIT/PATH to its blob; what is there already is replaced in one step. */
tq_status hub_folder_link(const hub_folder *folder, const char *commit, const char *file, const char *digest, tq_error *err);

/* Hold the blob's lock (waiting for others) until hub_folder_unlock. */
tq_status hub_folder_lock(const hub_folder *folder, const char *digest, int *fd, tq_error *err);
void hub_folder_unlock(int fd);

/* The model as it lies in the cache, nothing asked of any server: a directory or a GGUF file into path.  TQ_NOT_FOUND if
 * it is not there or not complete; other codes as hub_choose. */
tq_status hub_cache_find(const hub_settings *settings, const hub_name *name, const char *revision, char *path, tq_error *err);

/* Read a small file whole; free().  TQ_NOT_FOUND, TQ_IO, TQ_FORMAT if it is larger than cap. */
tq_status hub_read_file(const char *path, size_t cap, char **text, size_t *n, tq_error *err);

/* Make a folder and those above it. */
tq_status hub_make_folders(const char *path, tq_error *err);
/* fsync the folder that holds path: a rename in it lasts. */
void hub_sync_folder_of(const char *path);

#endif
