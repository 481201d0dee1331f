/* file_map.c: mmap for reading, temporary + fsync + rename for writing. */
#include "base/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

tq_status tq_file_map_open(const char *path, tq_file_map *map, tq_error *err) {
    *map = (tq_file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return tq_fail(err, errno == ENOENT ? TQ_NOT_FOUND : TQ_IO, "%s: %s", path, strerror(errno));
    struct stat st;
    tq_status status = TQ_OK;
    if (fstat(fd, &st) != 0) {
        status = tq_fail(err, TQ_IO, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        status = tq_fail(err, TQ_INVALID, "%s: want a regular file", path);
    } else if (st.st_size > 0) {
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) status = tq_fail(err, TQ_IO, "%s: mmap: %s", path, strerror(errno));
        else *map = (tq_file_map){data, (size_t)st.st_size};
    }
    close(fd);
    return status;
}

void tq_file_map_close(tq_file_map *map) {
    if (map->data) munmap((void *)map->data, map->bytes);
    *map = (tq_file_map){0};
}

tq_status tq_atomic_file_open(const char *path, tq_atomic_file *file, tq_error *err) {
    *file = (tq_atomic_file){0};
    size_t n = strlen(path);
    file->path = malloc(n + 1);
    file->temporary = malloc(n + 8);
    if (!file->path || !file->temporary) {
        tq_atomic_file_abandon(file);
        return tq_fail_memory(err, 2 * n + 9, "a file name");
    }
    memcpy(file->path, path, n + 1);
    memcpy(file->temporary, path, n);
    memcpy(file->temporary + n, ".XXXXXX", 8);
    int fd = mkstemp(file->temporary);
    if (fd < 0 || !(file->stream = fdopen(fd, "wb"))) {
        tq_status status = tq_fail(err, TQ_IO, "%s: %s", file->temporary, strerror(errno));
        if (fd >= 0) {
            close(fd);
            unlink(file->temporary);
        }
        free(file->path);
        free(file->temporary);
        *file = (tq_atomic_file){0};
        return status;
    }
    return TQ_OK;
}

static void sync_directory_of(char *path) {
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
    int fd = open(slash ? (slash == path ? "/" : path) : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (slash) *slash = '/';
    if (fd < 0) return;
    fsync(fd); /* some file systems refuse it for directories; the rename itself has succeeded */
    close(fd);
}

tq_status tq_atomic_file_commit(tq_atomic_file *file, tq_error *err) {
    tq_status status = TQ_OK;
    if (fflush(file->stream) != 0 || ferror(file->stream) || fsync(fileno(file->stream)) != 0)
        status = tq_fail(err, TQ_IO, "%s: %s", file->temporary, strerror(errno));
    if (fclose(file->stream) != 0 && status == TQ_OK)
        status = tq_fail(err, TQ_IO, "%s: %s", file->temporary, strerror(errno));
    file->stream = NULL;
    if (status == TQ_OK && rename(file->temporary, file->path) != 0)
        status = tq_fail(err, TQ_IO, "%s: %s", file->path, strerror(errno));
    if (status == TQ_OK) {
        sync_directory_of(file->path);
        free(file->temporary);
        file->temporary = NULL;
    }
    tq_atomic_file_abandon(file);
    return status;
}

void tq_atomic_file_abandon(tq_atomic_file *file) {
    if (file->stream) fclose(file->stream);
    if (file->temporary) unlink(file->temporary);
    free(file->temporary);
    free(file->path);
    *file = (tq_atomic_file){0};
}
