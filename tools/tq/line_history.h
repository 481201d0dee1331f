/* line_history.h: lines typed before, in memory and in a file that only its owner can read. */
#ifndef TQ_TOOL_LINE_HISTORY_H
#define TQ_TOOL_LINE_HISTORY_H

enum { LINE_HISTORY_MAX = 1000 };

typedef struct line_history {
    char **lines; /* (n), oldest first */
    int n;
    char *path; /* NULL: kept in memory only */
} line_history;

/* $XDG_STATE_HOME/turboquant/history or ~/.local/state/turboquant/history, its directories made; NULL if that cannot
 * be.  free(). */
char *line_history_default_path(void);

/* Read what is there.  A file that cannot be read or written only costs the history. */
void line_history_open(line_history *h, const char *path);
void line_history_add(line_history *h, const char *line); /* empty lines and repetitions are left out */
void line_history_close(line_history *h);

#endif
