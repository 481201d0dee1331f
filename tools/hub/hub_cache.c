/* hub_cache.c: folders, links and locks of the cache; see hub_cache.h.  The environment: hub_settings.c. */
#include "hub_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hub_error.h"

static tq_status join(char *path, tq_error *err, const char *a, const char *b, const char *c) {
    int n = snprintf(path, HUB_DISK_PATH_CAP, "%s%s%s", a, b, c);
    if (n < 0 || n >= HUB_DISK_PATH_CAP) return hub_fail(err, TQ_INVALID, "%.60s...: the path is too long", a);
    return TQ_OK;
}

tq_status hub_make_folders(const char *path, tq_error *err) {
    char copy[HUB_DISK_PATH_CAP];
    HUB_TRY(join(copy, err, path, "", ""));
    for (char *c = copy + 1;; c++) {
        if (*c && *c != '/') continue;
        char kept = *c;
        *c = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) return hub_fail(err, TQ_IO, "%.300s: %s", copy, strerror(errno));
        if (!(*c = kept)) return TQ_OK;
    }
}

static tq_status make_folder_of(const char *path, tq_error *err) {
    char copy[HUB_DISK_PATH_CAP];
    HUB_TRY(join(copy, err, path, "", ""));
    *strrchr(copy, '/') = 0;
    return hub_make_folders(copy, err);
}

void hub_sync_folder_of(const char *path) {
    char copy[HUB_DISK_PATH_CAP];
    if (join(copy, NULL, path, "", "") != TQ_OK) return;
    *strrchr(copy, '/') = 0;
    int fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd); /* some file systems refuse it for folders; the rename itself has succeeded */
    close(fd);
}

tq_status hub_read_file(const char *path, size_t cap, char **text, size_t *n, tq_error *err) {
    FILE *file = fopen(path, "rb");
    if (!file) return hub_fail(err, errno == ENOENT ? TQ_NOT_FOUND : TQ_IO, "%.300s: %s", path, strerror(errno));
    struct stat st;
    tq_status status = TQ_OK;
    *text = NULL;
    if (fstat(fileno(file), &st) != 0) status = hub_fail(err, TQ_IO, "%.300s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > cap)
        status = hub_fail(err, TQ_FORMAT, "%.300s: want a file of at most %zu bytes", path, cap);
    else if (!(*text = malloc((size_t)st.st_size + 1))) status = hub_fail(err, TQ_NO_MEMORY, "out of memory for %.300s", path);
    if (status == TQ_OK) {
        *n = fread(*text, 1, (size_t)st.st_size, file);
        (*text)[*n] = 0;
    }
    fclose(file);
    return status;
}

/* ---- a model's folder --------------------------------------------------------------------------------------------- */

tq_status hub_folder_of(const hub_settings *settings, const char *repo, hub_folder *out, tq_error *err) {
    char name[2 * HUB_NAME_CAP];
    const char *slash = strchr(repo, '/');
    snprintf(name, sizeof name, "models--%.*s--%s", (int)(slash - repo), repo, slash + 1);
    HUB_TRY(join(out->path, err, settings->cache, "/", name));
    return join(out->locks, err, settings->cache, "/.locks/", name);
}

static tq_status ref_path(const hub_folder *folder, const char *revision, char *path, tq_error *err) {
    if (!hub_path_is_safe(revision)) return hub_fail(err, TQ_INVALID, "revision '%.100s': want a branch, a tag or a commit", revision);
    return join(path, err, folder->path, "/refs/", revision);
}

bool hub_folder_ref(const hub_folder *folder, const char *revision, char commit[41]) {
    char path[HUB_DISK_PATH_CAP], *text;
    size_t n;
    if (ref_path(folder, revision, path, NULL) != TQ_OK || hub_read_file(path, 4096, &text, &n, NULL) != TQ_OK) return false;
    while (n && (text[n - 1] == '\n' || text[n - 1] == ' ')) n--;
    bool good = n == 40 && strspn(text, "0123456789abcdef") >= 40;
    if (good) {
        memcpy(commit, text, 40);
        commit[40] = 0;
    }
    free(text);
    return good;
}

tq_status hub_folder_set_ref(const hub_folder *folder, const char *revision, const char *commit, tq_error *err) {
    char path[HUB_DISK_PATH_CAP], temporary[HUB_DISK_PATH_CAP];
    HUB_TRY(ref_path(folder, revision, path, err));
    HUB_TRY(join(temporary, err, path, ".XXXXXX", ""));
    HUB_TRY(make_folder_of(path, err));
    int fd = mkstemp(temporary);
    bool good = fd >= 0 && fchmod(fd, 0644) == 0 && write(fd, commit, 40) == 40 && fsync(fd) == 0;
    if (fd >= 0) close(fd);
    if (!good || rename(temporary, path) != 0) {
        tq_status status = hub_fail(err, TQ_IO, "%.300s: %s", path, strerror(errno));
        if (fd >= 0) unlink(temporary);
        return status;
    }
    hub_sync_folder_of(path);
    return TQ_OK;
}

tq_status hub_folder_blob(const hub_folder *folder, const char *digest, bool create, char *path, tq_error *err) {
    HUB_TRY(join(path, err, folder->path, "/blobs/", digest));
    return create ? make_folder_of(path, err) : TQ_OK;
}

tq_status hub_folder_snapshot(const hub_folder *folder, const char *commit, const char *file, char *path, tq_error *err) {
    char root[HUB_DISK_PATH_CAP];
    HUB_TRY(join(root, err, folder->path, "/snapshots/", commit));
    return *file ? join(path, err, root, "/", file) : join(path, err, root, "", "");
}

tq_status hub_folder_link(const hub_folder *folder, const char *commit, const char *file, const char *digest, tq_error *err) {
    char path[HUB_DISK_PATH_CAP], temporary[HUB_DISK_PATH_CAP], target[HUB_DISK_PATH_CAP] = "../../", there[HUB_DISK_PATH_CAP];
    HUB_TRY(hub_folder_snapshot(folder, commit, file, path, err));
    size_t used = 6;
    for (const char *c = file; *c; c++)
        if (*c == '/') used += (size_t)snprintf(target + used, sizeof target - used, "../"); /* at most 1024 slashes */
    snprintf(target + used, sizeof target - used, "blobs/%s", digest);
    ssize_t n = readlink(path, there, sizeof there - 1);
    if (n > 0) there[n] = 0;
    if (n > 0 && strcmp(there, target) == 0) return TQ_OK;
    HUB_TRY(make_folder_of(path, err));
    snprintf(there, sizeof there, ".%ld.link", (long)getpid());
    HUB_TRY(join(temporary, err, path, there, ""));
    unlink(temporary);
    if (symlink(target, temporary) != 0 || rename(temporary, path) != 0) {
        tq_status status = hub_fail(err, TQ_IO, "%.300s: %s", path, strerror(errno));
        unlink(temporary);
        return status;
    }
    hub_sync_folder_of(path);
    return TQ_OK;
}

tq_status hub_folder_lock(const hub_folder *folder, const char *digest, int *fd, tq_error *err) {
    char path[HUB_DISK_PATH_CAP], name[80];
    snprintf(name, sizeof name, "%s.lock", digest);
    HUB_TRY(join(path, err, folder->locks, "/", name));
    HUB_TRY(make_folder_of(path, err));
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*fd < 0) return hub_fail(err, TQ_IO, "%.300s: %s", path, strerror(errno));
    while (flock(*fd, LOCK_EX) != 0) {
        if (errno == EINTR) continue;
        close(*fd);
        return hub_fail(err, TQ_IO, "%.300s: %s", path, strerror(errno));
    }
    return TQ_OK;
}

void hub_folder_unlock(int fd) { close(fd); }

/* ---- what is there --------------------------------------------------------------------------------------------------- */

/* Files below root, links followed; `inside` is the path within it.  Depth is bounded: repositories are not deep. */
static tq_status list_folder(hub_listing *listing, const char *root, const char *inside, int depth, tq_error *err) {
    char path[HUB_DISK_PATH_CAP];
    HUB_TRY(join(path, err, root, *inside ? "/" : "", inside));
    DIR *dir = opendir(path);
    if (!dir) return hub_fail(err, errno == ENOENT ? TQ_NOT_FOUND : TQ_IO, "%.300s: %s", path, strerror(errno));
    tq_status status = TQ_OK;
    const struct dirent *entry;
    while (status == TQ_OK && (entry = readdir(dir)) != NULL) {
        char name[HUB_DISK_PATH_CAP];
        struct stat st;
        if (join(name, NULL, inside, *inside ? "/" : "", entry->d_name) != TQ_OK || !hub_path_is_safe(name) ||
            fstatat(dirfd(dir), entry->d_name, &st, 0) != 0)
            continue; /* ".", "..", a link to nothing */
        if (S_ISREG(st.st_mode)) status = hub_listing_add(listing, name, st.st_size, err);
        else if (S_ISDIR(st.st_mode) && depth < 8) status = list_folder(listing, root, name, depth + 1, err);
    }
    closedir(dir);
    return status;
}

static tq_status add_shards(const hub_listing *listing, const char *root, hub_choice *choice, tq_error *err) {
    char path[HUB_DISK_PATH_CAP], *text;
    size_t n;
    HUB_TRY(join(path, err, root, "/", choice->index->path));
    HUB_TRY(hub_read_file(path, HUB_JSON_MAX, &text, &n, err));
    tq_status status = hub_choose_shards(listing, text, n, choice, err);
    free(text);
    return status;
}

tq_status hub_cache_find(const hub_settings *settings, const hub_name *name, const char *revision, char *path, tq_error *err) {
    hub_folder folder;
    char commit[41], root[HUB_DISK_PATH_CAP];
    HUB_TRY(hub_folder_of(settings, name->repo, &folder, err));
    if (!hub_folder_ref(&folder, revision, commit)) {
        if (strlen(revision) != 40 || strspn(revision, "0123456789abcdef") != 40)
            return hub_fail(err, TQ_NOT_FOUND, "%s is not in %.200s", name->repo, settings->cache);
        memcpy(commit, revision, sizeof commit);
    }
    HUB_TRY(hub_folder_snapshot(&folder, commit, "", root, err));
    hub_listing listing = {0};
    hub_choice choice = {0};
    tq_status status = list_folder(&listing, root, "", 0, err);
    hub_listing_sort(&listing);
    if (status == TQ_OK) status = hub_choose(&listing, name->file, &choice, err);
    /* A shard that is not there makes the snapshot incomplete, not the index wrong. */
    if (status == TQ_OK && choice.index && add_shards(&listing, root, &choice, err) != TQ_OK)
        status = hub_fail(err, TQ_NOT_FOUND, "%s is in %.150s, but not all of it", name->repo, settings->cache);
    if (status == TQ_OK) status = choice.gguf ? join(path, err, root, "/", choice.gguf->path) : join(path, err, root, "", "");
    hub_choice_free(&choice);
    hub_listing_free(&listing);
    return status;
}
