/* gnuplot.h: pictures drawn by gnuplot as a child process. */
#ifndef TQ_TOOL_GNUPLOT_H
#define TQ_TOOL_GNUPLOT_H

#include <stdio.h>

/* Before measuring: is gnuplot there, and does the file end in .svg?  0 or EXIT_FAILURE, the reason printed. */
int gnuplot_check(const char *command, const char *path);

/* Draw a script that sets terminal svg and no output.  The file appears complete or not at all.  0 or EXIT_FAILURE, the
 * reason printed. */
int gnuplot_run(const char *command, const char *path, FILE *script);

/* Text in a gnuplot string in double quotes, without its markup. */
void gnuplot_quote(FILE *to, const char *text);

#endif
