/* reply.c: see reply.h. */
#include "engine/reply.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

tq_reply tq_reply_of(const tq_tokenizer *tokenizer, const char *const *stops, int n_stops) {
    return (tq_reply){.tokenizer = tokenizer, .stops = stops, .n_stops = n_stops, .stop = -1};
}

void tq_reply_free(tq_reply *r) {
    free(r->text);
    *r = (tq_reply){.stop = -1};
}

static tq_status make_room(tq_reply *r, size_t more, tq_error *err) {
    if (more < r->cap - r->length) return TQ_OK; /* with the NUL */
    size_t want = (r->length + more + 1) * 2;
    if (want < 256) want = 256;
    char *text = realloc(r->text, want);
    if (!text) return tq_fail_memory(err, want, "generated text");
    r->text = text;
    r->cap = want;
    return TQ_OK;
}

/* The first stop string of those that stand in text from `from` on; of two at one place the longer.  Returns its place,
 * or n. */
static size_t find_stop(const tq_reply *r, size_t from, int *which) {
    for (size_t at = from; at < r->length; at++) {
        size_t longest = 0;
        for (int i = 0; i < r->n_stops; i++) {
            size_t n = strlen(r->stops[i]);
            if (n <= longest || n > r->length - at || memcmp(r->text + at, r->stops[i], n) != 0) continue;
            longest = n;
            *which = i;
        }
        if (longest) return at;
    }
    return r->length;
}

/* Where the part of the text begins that may be the beginning of a stop string. */
static size_t beginning_of_stop(const tq_reply *r, size_t from) {
    for (size_t at = from; at < r->length; at++)
        for (int i = 0; i < r->n_stops; i++)
            if (strncmp(r->text + at, r->stops[i], r->length - at) == 0) return at;
    return r->length;
}

static bool is_shown(const tq_reply *r, int32_t id) {
    for (int i = 0; i < r->n_shown; i++)
        if (r->shown[i] == id) return true;
    return false;
}

tq_status tq_reply_append(tq_reply *r, int32_t id, tq_error *err) {
    if (!r->tokenizer) return TQ_OK;
    bool shown = is_shown(r, id);
    size_t length = tq_tokenizer_piece(r->tokenizer, id, shown, NULL, 0);
    TQ_TRY(make_room(r, length, err));
    tq_tokenizer_piece(r->tokenizer, id, shown, r->text + r->length, length);
    r->length += length;
    r->text[r->length] = 0;
    /* What was passed on cannot belong to a stop string any more. */
    size_t stop = find_stop(r, r->sent, &r->stop);
    if (r->stop >= 0) {
        r->length = r->sent = stop;
        r->text[stop] = 0;
        return TQ_OK;
    }
    size_t whole = r->sent + tq_utf8_complete_prefix(r->text + r->sent, r->length - r->sent);
    size_t safe = beginning_of_stop(r, r->sent);
    r->sent = safe < whole ? safe : whole;
    return TQ_OK;
}

void tq_reply_end(tq_reply *r) { r->sent = r->length; }
