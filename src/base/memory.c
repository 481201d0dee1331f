/* memory.c: see memory.h. */
#include "base/memory.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number behind `key` at the beginning of a line ("MemAvailable:  123 kB", "inactive_file 123"), or -1. */
static int64_t number_of(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    char line[256];
    int64_t value = -1;
    size_t n = strlen(key);
    while (file && value < 0 && fgets(line, sizeof line, file))
        if (strncmp(line, key, n) == 0 && strchr(": \t", line[n])) value = strtoll(line + n + 1, NULL, 10);
    if (file) fclose(file);
    return value;
}

/* A file that holds one number; "max" and what cannot be read are -1. */
static int64_t number_in(const char *folder, const char *name) {
    char path[PATH_MAX], text[64] = "";
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path) return -1;
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    bool good = fgets(text, sizeof text, file) && text[0] >= '0' && text[0] <= '9';
    fclose(file);
    return good ? strtoll(text, NULL, 10) : -1;
}

static int64_t stat_of(const char *folder, const char *key) {
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s/memory.stat", folder) >= sizeof path) return 0;
    int64_t value = number_of(path, key);
    return value > 0 ? value : 0;
}

typedef struct controller {
    const char *mount, *limits[2], *usage, *files[2]; /* limits: the hard one, and one that throttles */
} controller;

static const controller version2 = {"/sys/fs/cgroup", {"memory.max", "memory.high"}, "memory.current", {"inactive_file", "active_file"}};
static const controller version1 = {"/sys/fs/cgroup/memory", {"memory.limit_in_bytes", NULL}, "memory.usage_in_bytes",
                                    {"total_inactive_file", "total_active_file"}};

/* The limits of one group; cached files within it are given back before anybody is killed. */
static void consider(const controller *c, const char *folder, const char *group, tq_memory_room *out) {
    int64_t usage = number_in(folder, c->usage);
    for (int i = 0; i < 2 && c->limits[i] && usage >= 0; i++) {
        int64_t limit = number_in(folder, c->limits[i]);
        if (limit < 0) continue;
        int64_t left = limit - usage + stat_of(folder, c->files[0]) + stat_of(folder, c->files[1]);
        left = left < 0 ? 0 : left > limit ? limit : left;
        if (limit < out->total) out->total = limit;
        if (left >= out->bytes) continue;
        out->bytes = left;
        snprintf(out->limit, sizeof out->limit, "the memory limit of cgroup %.60s", group);
    }
}

/* The group and all above it.  In a container the path may be that of the machine outside: then only the mount's top, which
 * is the container's own group, is there. */
static void walk(const char *root, const controller *c, const char *group, tq_memory_room *out) {
    char folder[PATH_MAX];
    size_t mount = (size_t)snprintf(folder, sizeof folder, "%s%s", root, c->mount);
    if (mount >= sizeof folder || (size_t)snprintf(folder + mount, sizeof folder - mount, "%s", group) >= sizeof folder - mount) return;
    for (;;) {
        consider(c, folder, folder[mount] ? folder + mount : "/", out);
        char *slash = strrchr(folder + mount, '/');
        if (!slash) return;
        *slash = 0;
    }
}

void tq_memory_room_read(const char *root, tq_memory_room *out) {
    char path[PATH_MAX], line[PATH_MAX];
    *out = (tq_memory_room){.bytes = INT64_MAX, .total = INT64_MAX, .limit = "nothing that is known"};
    if ((size_t)snprintf(path, sizeof path, "%s/proc/meminfo", root) >= sizeof path) return;
    int64_t available = number_of(path, "MemAvailable"), total = number_of(path, "MemTotal");
    if (available >= 0 && total >= 0) {
        out->bytes = available * 1024;
        out->total = total * 1024;
        snprintf(out->limit, sizeof out->limit, "this machine's memory");
    }
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) { /* "0::/group" or "4:memory,...:/group" */
        line[strcspn(line, "\n")] = 0;
        char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        if (!names[1]) walk(root, &version2, group, out);
        else if (strstr(names + 1, "memory")) walk(root, &version1, group, out);
    }
    if (file) fclose(file);
}
