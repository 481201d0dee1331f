/* hub_progress.h: pulling a model while a person watches. */
#ifndef TQ_TOOL_HUB_PROGRESS_H
#define TQ_TOOL_HUB_PROGRESS_H

#include "hub_pull.h"

/* hub_pull, with a line on stderr that says what is fetched from where, a bar on a terminal, and Ctrl-C leaving what came
 * for the next time. */
tq_status hub_progress_pull(const hub_settings *settings, const hub_name *name, const char *revision, char *path, tq_error *err);

#endif
