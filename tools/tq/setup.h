/* setup.h: from options to an open model and a session, with the messages and exit codes that every command shares. */
#ifndef TQ_TOOL_SETUP_H
#define TQ_TOOL_SETUP_H

#include <stddef.h>

#include "options.h"

/* "tq COMMAND: TEXT" on stderr.  Returns EXIT_FAILURE. */
int setup_fail(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Open the model, with a progress bar when stderr is a terminal.  Without --model: $TQ_MODEL, else bookworm beside the
 * program, else in the source tree.  *load_seconds may be NULL.  0 or the code to exit with. */
int setup_model(const char *command, const model_options *o, tq_model **out, double *load_seconds);

/* The same without a bar: progress(ctx, fraction) is called instead. */
int setup_model_reporting(const char *command, const model_options *o, void (*progress)(void *, double), void *ctx,
                          tq_model **out);

/* Make a session of `ctx` tokens (0: what the model was made for).  An option that the codec cannot honour is a usage
 * error.  0 or the code to exit with. */
int setup_session(const char *command, tq_model *model, const tq_cache_config *config, int ctx, tq_session **out);

/* Is it UTF-8?  If not, say so with the byte offset; `what` is "the prompt", ...  0 or EXIT_FAILURE. */
int setup_check_utf8(const char *command, const char *what, const char *text);

/* A whole file as text ("-" is stdin): at most 256 MB and without NUL bytes, because messages are C strings.  *text is
 * NUL-terminated; free().  0 or EXIT_FAILURE. */
int setup_read_text(const char *command, const char *path, char **text, size_t *n);

#endif
