/* terminal.h: what a person sees while waiting (progress), how they say stop (Ctrl-C), and sizes and times in words. */
#ifndef TQ_TOOL_TERMINAL_H
#define TQ_TOOL_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

double terminal_seconds(void); /* a clock that never goes back */

/* A bar on stderr, after some seconds with the time left; nothing at all when stderr is not a terminal or the work is over within a moment. */
typedef struct progress_bar {
    const char *what; /* "loading" */
    double started, drawn;
    bool visible;
} progress_bar;

void progress_begin(progress_bar *bar, const char *what);
void progress_show(progress_bar *bar, double fraction);
void progress_end(progress_bar *bar); /* wipes it */

/* Between watch and unwatch Ctrl-C is noted instead of ending the program; with second_kills only the first one. */
void interrupt_watch(bool second_kills);
void interrupt_unwatch(void);
bool interrupt_seen(void); /* since interrupt_watch */

/* Write text of a model or a file.  To a terminal it goes without control characters (newline and tab are kept), so
 * that it cannot move the cursor or change the title.  False if writing failed. */
bool terminal_write_text(FILE *to, const char *text, size_t n);

/* "1.2 MB" into buf, which is returned. */
char *terminal_bytes(char buf[32], uint64_t bytes);

uint64_t terminal_peak_rss(void); /* bytes */

#endif
