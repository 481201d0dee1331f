/* layer_schedule.c: see layer_schedule.h. */
#include "cache/layer_schedule.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"

static const char *const keys[TQ_LAYER_RUNS] = {"", ",first=", ",last="};

/* Which codec a layer has under the name of a size, chosen by measurement (docs/quality.md): damage to late layers' keys
 * costs a hundred times what the same damage to early ones does where facts are looked up, so bits move there; early values
 * matter in ordinary text and keep theirs.  Shares are of the layers, rounded: a cache is within .1 bit of its name, and
 * tq2, of as many layers as may be, because its first share is 50 and not 48. */
static const struct preset {
    const char *name;
    int first, last; /* sixty-fourths */
    const char *runs[TQ_LAYER_RUNS];
} presets[] = {
    {"tq4", 32, 8, {"tq4", "tq:k=tq3,v=tq4", "tq:k=q8,v=tq4"}},
    {"tq3.5", 32, 0, {"tq:k=tq4,v=tq3", "tq:k=tq3,v=tq4", ""}},
    {"tq3", 32, 0, {"tq:k=tq4,v=tq3", "tq:k=tq2,v=tq3", ""}},
    {"tq2.5", 32, 16, {"tq:k=tq3,v=tq2", "tq2", "tq:k=tq4,v=tq3"}},
    {"tq2", 50, 8, {"tq:k=tq2.5,v=tq2", "tq2", "tq:k=tq3,v=tq2"}},
};
enum { MIN_PRESET_LAYERS = 8 };

const char *tq_layer_schedule_resolve(const char *kv, int head_dim) {
    if (kv && strcmp(kv, "auto") != 0) return kv;
    return head_dim % 16 == 0 && head_dim <= TQ_MAX_PLANAR_DIM ? "tq3" : "f16";
}

bool tq_layer_schedule_of_preset(const char *kv, int n_layers, tq_layer_schedule *out) {
    if (n_layers < MIN_PRESET_LAYERS) return false;
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        const struct preset *p = &presets[i];
        if (strcmp(kv, p->name) != 0) continue;
        *out = (tq_layer_schedule){.n_layers = n_layers};
        out->count[TQ_FIRST_LAYERS] = (n_layers * p->first + 31) / 64;
        out->count[TQ_LAST_LAYERS] = (n_layers * p->last + 31) / 64;
        out->count[TQ_MIDDLE_LAYERS] = n_layers - out->count[TQ_FIRST_LAYERS] - out->count[TQ_LAST_LAYERS];
        for (int run = 0; run < TQ_LAYER_RUNS; run++) strcpy(out->name[run], p->runs[run]);
        return true;
    }
    return false;
}

static tq_status bad_grammar(const char *kv, tq_error *err) {
    return tq_fail(err, TQ_INVALID, "codec '%s': want CODEC,first=N[:CODEC],last=N[:CODEC], with a codec for one of them",
                   kv);
}

static bool keep(char *to, const char *from, size_t length) {
    if (length == 0 || length >= 64) return false;
    memcpy(to, from, length);
    to[length] = 0;
    return true;
}

/* Where the next ",first=" or ",last=" begins, or the end; codecs' own commas stay. */
static const char *next_item(const char *text) {
    for (; *text; text++)
        for (int run = TQ_FIRST_LAYERS; run < TQ_LAYER_RUNS; run++)
            if (strncmp(text, keys[run], strlen(keys[run])) == 0) return text;
    return text;
}

/* ",first=N" or ",first=N:CODEC"; end: behind it. */
static bool read_item(const char *item, const char *end, tq_layer_schedule *out) {
    int run = strncmp(item, keys[TQ_FIRST_LAYERS], strlen(keys[TQ_FIRST_LAYERS])) == 0 ? TQ_FIRST_LAYERS : TQ_LAST_LAYERS;
    const char *number = item + strlen(keys[run]);
    char *after;
    if (out->count[run] || *number < '0' || *number > '9') return false;
    long n = strtol(number, &after, 10);
    if (n < 1 || n > 1000000) return false;
    out->count[run] = (int)n;
    if (after == end) return true;
    return *after == ':' && keep(out->name[run], after + 1, (size_t)(end - after - 1));
}

tq_status tq_layer_schedule_parse(const char *kv, int n_layers, tq_layer_schedule *out, tq_error *err) {
    *out = (tq_layer_schedule){.n_layers = n_layers};
    const char *item = next_item(kv);
    if (!*item) { /* one codec for all: whatever is wrong with its name is told where names are known */
        out->count[TQ_MIDDLE_LAYERS] = n_layers;
        keep(out->name[TQ_MIDDLE_LAYERS], kv, strlen(kv) < 64 ? strlen(kv) : 63);
        return TQ_OK;
    }
    if (!keep(out->name[TQ_MIDDLE_LAYERS], kv, (size_t)(item - kv)) || !keep(out->suffix, item, strlen(item)))
        return bad_grammar(kv, err);
    while (*item) {
        const char *end = next_item(item + 1);
        if (!read_item(item, end, out)) return bad_grammar(kv, err);
        item = end;
    }
    char *first = out->name[TQ_FIRST_LAYERS], *last = out->name[TQ_LAST_LAYERS];
    if (out->count[TQ_FIRST_LAYERS] && !*first) memcpy(first, last, 64);
    if (out->count[TQ_LAST_LAYERS] && !*last) memcpy(last, first, 64);
    if (!*first && !*last) return bad_grammar(kv, err);
    for (int run = 0; run < TQ_LAYER_RUNS; run++)
        if (strncmp(out->name[run], "window:", 7) == 0)
            return tq_fail(err, TQ_INVALID, "codec '%s': window:N forgets in all layers or in none", kv);
    int named = out->count[TQ_FIRST_LAYERS] + out->count[TQ_LAST_LAYERS];
    if (named > n_layers)
        return tq_fail(err, TQ_INVALID, "codec '%s': want at least %d layers, got %d", kv, named, n_layers);
    out->count[TQ_MIDDLE_LAYERS] = n_layers - named;
    return TQ_OK;
}

int tq_layer_schedule_run(const tq_layer_schedule *s, int layer) {
    if (layer < s->count[TQ_FIRST_LAYERS]) return TQ_FIRST_LAYERS;
    return layer >= s->n_layers - s->count[TQ_LAST_LAYERS] ? TQ_LAST_LAYERS : TQ_MIDDLE_LAYERS;
}
