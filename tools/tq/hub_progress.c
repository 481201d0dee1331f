/* hub_progress.c: see hub_progress.h. */
#include "hub_progress.h"

#include <stdio.h>

#include "terminal.h"

typedef struct shown {
    const hub_settings *settings;
    const hub_name *name;
    progress_bar bar;
} shown;

static void begin(void *ctx, const char *commit, size_t n_files, int64_t bytes, int64_t have) {
    shown *s = ctx;
    char all[32], there[32];
    fprintf(stderr, "%s: pulling %zu file%s (%s", s->name->repo, n_files, n_files == 1 ? "" : "s", terminal_bytes(all, (uint64_t)bytes));
    if (have) fprintf(stderr, ", %s of it there", terminal_bytes(there, (uint64_t)have));
    fprintf(stderr, ") of commit %.12s from %s into %s\n", commit, s->settings->endpoint, s->settings->cache);
}

static bool show(void *ctx, int64_t done, int64_t bytes) {
    shown *s = ctx;
    progress_show(&s->bar, bytes ? (double)done / (double)bytes : 1);
    return !interrupt_seen();
}

tq_status hub_progress_pull(const hub_settings *settings, const hub_name *name, const char *revision, char *path, tq_error *err) {
    shown s = {.settings = settings, .name = name};
    hub_watch watch = {.begin = begin, .progress = show, .ctx = &s};
    if (!settings->offline) fprintf(stderr, "%s: asking %s\n", name->repo, settings->endpoint);
    progress_begin(&s.bar, "pulling");
    interrupt_watch(true);
    tq_status status = hub_pull(settings, name, revision, &watch, path, err);
    interrupt_unwatch();
    progress_end(&s.bar);
    return status;
}
