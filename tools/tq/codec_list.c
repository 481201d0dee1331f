/* codec_list.c: see codec_list.h. */
#include "codec_list.h"

#include <string.h>

void codec_list_option(options *o, const char *help) {
    option_row *kv = options_find(o, "kv");
    kv->argument = "CODEC,...";
    kv->help = help;
}

/* A comma before one of these belongs to the codec's name: tq:k=A,v=B and A,first=N,last=N:B. */
static bool goes_on(const char *text) {
    return strncmp(text, "v=", 2) == 0 || strncmp(text, "first=", 6) == 0 || strncmp(text, "last=", 5) == 0;
}

/* "a,b,c".  Cuts `list` in place; the count, 0 if too many. */
static int split_codecs(char *list, const char **names) {
    int n = 0;
    for (char *at = list; at;) {
        if (n == CODEC_LIST_CAP) return 0;
        char *comma = strchr(at, ',');
        while (comma && goes_on(comma + 1)) comma = strchr(comma + 1, ',');
        if (comma) *comma++ = 0;
        names[n++] = at;
        at = comma;
    }
    return n;
}

int codec_list_read(const options *o, const cache_options *cache, const char *fallback, codec_list *out) {
    if (cache->no_turboquant) return options_usage_error(o, "--no-turboquant: name f16 in --kv instead");
    if (cache->ctx) return options_usage_error(o, "--ctx: the context is as long as the measurement needs");
    return codec_list_cut(o, cache->kv_given ? cache->config.kv : fallback, out);
}

int codec_list_cut(const options *o, const char *given, codec_list *out) {
    if (strlen(given) >= sizeof out->text) return options_usage_error(o, "--kv: the list is too long");
    strcpy(out->text, given);
    out->n = split_codecs(out->text, out->names);
    if (out->n == 0) return options_usage_error(o, "--kv: want at most %d codecs", CODEC_LIST_CAP);
    return OPTIONS_RUN;
}
