/* line_history.c: one line of the file is one entry; a newline inside an entry is stored as \n, a backslash as \\.
 * Entries are appended as they come, so that two programs at once lose nothing; a file grown too long is replaced. */
#include "line_history.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the entries ------------------------------------------------------------------------------------------------- */

static char *escape(const char *line) {
    char *out = malloc(2 * strlen(line) + 2), *to = out;
    if (!out) return NULL;
    for (; *line; line++) {
        if (*line == '\n' || *line == '\\') *to++ = '\\';
        *to++ = *line == '\n' ? 'n' : *line;
    }
    *to++ = '\n';
    *to = 0;
    return out;
}

static void unescape(char *line) {
    char *to = line;
    for (; *line; line++) {
        if (*line == '\\' && line[1]) {
            line++;
            *to++ = *line == 'n' ? '\n' : *line;
        } else {
            *to++ = *line;
        }
    }
    *to = 0;
}

/* Takes `line` over.  The oldest entry makes room. */
static bool push(line_history *h, char *line) {
    if (!line) return false;
    if (!*line || (h->n > 0 && strcmp(h->lines[h->n - 1], line) == 0)) {
        free(line);
        return false;
    }
    if (!h->lines && !(h->lines = calloc(LINE_HISTORY_MAX, sizeof *h->lines))) {
        free(line);
        return false;
    }
    if (h->n == LINE_HISTORY_MAX) {
        free(h->lines[0]);
        memmove(h->lines, h->lines + 1, (size_t)--h->n * sizeof *h->lines);
    }
    h->lines[h->n++] = line;
    return true;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static bool make_directories(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        bool there = mkdir(path, 0700) == 0 || errno == EEXIST;
        *slash = '/';
        if (!there) return false;
    }
    return true;
}

char *line_history_default_path(void) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char path[PATH_MAX];
    int n = -1;
    if (state && state[0] == '/') n = snprintf(path, sizeof path, "%s/turboquant/history", state);
    else if (home && home[0] == '/') n = snprintf(path, sizeof path, "%s/.local/state/turboquant/history", home);
    if (n < 0 || (size_t)n >= sizeof path || !make_directories(path)) return NULL;
    return strdup(path);
}

/* Write all entries to a file beside, and move it into place: a reader sees the old or the new, never half. */
static void replace_file(const line_history *h) {
    char temporary[PATH_MAX];
    int n = snprintf(temporary, sizeof temporary, "%s.XXXXXX", h->path);
    int fd = n > 0 && (size_t)n < sizeof temporary ? mkstemp(temporary) : -1; /* mode 0600 */
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!file) {
        if (fd >= 0) close(fd), unlink(temporary);
        return;
    }
    bool ok = true;
    for (int i = 0; i < h->n && ok; i++) {
        char *line = escape(h->lines[i]);
        ok = line && fputs(line, file) >= 0;
        free(line);
    }
    ok = fflush(file) == 0 && fsync(fd) == 0 && ok;
    ok = fclose(file) == 0 && ok;
    if (!ok || rename(temporary, h->path) != 0) unlink(temporary);
}

static void append_to_file(const line_history *h, const char *line) {
    int fd = open(h->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    char *text = escape(line);
    /* One write, so that entries of two programs do not mix.  A file that once was readable by others stops to be. */
    if (fchmod(fd, 0600) == 0 && text && write(fd, text, strlen(text)) < 0) perror(h->path);
    free(text);
    close(fd);
}

void line_history_open(line_history *h, const char *path) {
    *h = (line_history){.path = path ? strdup(path) : NULL};
    FILE *file = h->path ? fopen(h->path, "re") : NULL;
    if (!file) return;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int n_read = 0;
    for (; (n = getline(&line, &cap, file)) > 0; n_read++) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        unescape(line);
        push(h, strdup(line));
    }
    free(line);
    fclose(file);
    if (n_read > LINE_HISTORY_MAX) replace_file(h);
}

void line_history_add(line_history *h, const char *line) {
    if (push(h, strdup(line)) && h->path) append_to_file(h, line);
}

void line_history_close(line_history *h) {
    for (int i = 0; i < h->n; i++) free(h->lines[i]);
    free(h->lines);
    free(h->path);
    *h = (line_history){0};
}
