/* codec_list.h: --kv as a list of codecs to compare. */
#ifndef TQ_TOOL_CODEC_LIST_H
#define TQ_TOOL_CODEC_LIST_H

#include "options.h"

enum { CODEC_LIST_CAP = 32 };

typedef struct codec_list {
    char text[1024];
    const char *names[CODEC_LIST_CAP]; /* into text */
    int n;
} codec_list;

/* Before parsing, after options_add_cache: make --kv say that it is a list. */
void codec_list_option(options *o, const char *help);

/* After parsing: cut --kv, or `fallback` where it was not given.  Refuses the options of a single cache that make no
 * sense for a measurement (--ctx, --no-turboquant).  OPTIONS_RUN or the code to exit with. */
int codec_list_read(const options *o, const cache_options *cache, const char *fallback, codec_list *out);

/* Cut a list.  OPTIONS_RUN or the code to exit with. */
int codec_list_cut(const options *o, const char *given, codec_list *out);

#endif
