/* line_edit.h: reading a line from a person, with editing, history and several-line pastes; or from a pipe, plainly.
 *
 * Keys: arrows, Home, End, Ctrl-A/E/B/F, Alt-B/F and Ctrl-arrows by words; Backspace, Delete, Ctrl-W (word back),
 * Ctrl-U/K (to start, end), Ctrl-Y (put back); Up/Down and Ctrl-P/N through history, Ctrl-R searches it; Alt-Enter
 * starts a new line; Ctrl-L clears the screen; Ctrl-C drops the line; Ctrl-D on an empty line ends.
 * A paste stays in one message, newlines included, until Enter is pressed. */
#ifndef TQ_TOOL_LINE_EDIT_H
#define TQ_TOOL_LINE_EDIT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct line_edit line_edit;

typedef enum line_result {
    LINE_OK,
    LINE_END,         /* end of file, or Ctrl-D */
    LINE_DROPPED,     /* Ctrl-C on a line with something in it */
    LINE_INTERRUPTED, /* Ctrl-C on an empty line */
    LINE_FAILED,      /* reading failed or memory ran out */
} line_result;

/* history_path may be NULL: history in memory only.  NULL if memory runs out.  One editor at a time. */
line_edit *line_edit_new(const char *history_path);
void line_edit_free(line_edit *e); /* NULL is fine */

/* Are stdin and stdout a terminal that can be edited on? */
bool line_edit_is_interactive(const line_edit *e);

/* Read a line.  The prompt is shown to terminals only.  On LINE_OK *line is its text (n bytes, NUL-terminated, without
 * the final newline), valid until the next call. */
line_result line_edit_read(line_edit *e, const char *prompt, const char **line, size_t *n);

/* Remember an entry, which may have several lines.  Nothing is remembered of what does not come from a terminal. */
void line_edit_remember(line_edit *e, const char *text);

#endif
