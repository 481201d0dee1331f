/* reasoning_split.c: <think> ... </think>, and channels. */
#include "reasoning_split.h"

#include <string.h>

const reasoning_marks reasoning_formats[REASONING_FORMATS] = {
    {"<think>", "</think>", NULL},
    {"[THINK]", "[/THINK]", NULL},
    {"<seed:think>", "</seed:think>", NULL},
    {"<|channel|>", "<|end|>", "<|message|>"},
};
static const char thought_channel[] = "analysis";

static const reasoning_marks *marks_of(const reasoning_split *r) { return r->marks ? r->marks : reasoning_formats; }

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static bool ends_with(const char *text, size_t n, const char *end) {
    size_t length = strlen(end);
    return n >= length && memcmp(text + n - length, end, length) == 0;
}

bool reasoning_is_open(const reasoning_marks *marks, const char *prompt, size_t n) {
    while (n && is_space(prompt[n - 1])) n--;
    return !marks->body && ends_with(prompt, n, marks->open);
}

typedef enum tag_match { MATCH_NONE, MATCH_BEGINS, MATCH_WHOLE } tag_match;

/* White space, then a beginning of the tag or all of it? */
static tag_match match_tag(const char *text, size_t n, const char *tag) {
    size_t i = 0, length = strlen(tag);
    while (i < n && is_space(text[i])) i++;
    if (n - i > length || memcmp(text + i, tag, n - i) != 0) return MATCH_NONE;
    return n - i == length ? MATCH_WHOLE : MATCH_BEGINS;
}

/* Output is gathered into runs: what differs in kind or lies apart is passed on before. */
typedef struct run {
    reasoning_fn fn;
    void *ctx;
    bool thought;
    char text[256];
    size_t n;
} run;

static void flush(run *out) {
    if (out->n) out->fn(out->ctx, out->thought, out->text, out->n);
    out->n = 0;
}

static void put(run *out, bool thought, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        /* A full run ends before a character, not within. */
        if (out->n && (out->thought != thought || (out->n > sizeof out->text - 8 && ((unsigned char)text[i] & 0xC0) != 0x80)))
            flush(out);
        out->thought = thought;
        if (out->n == sizeof out->text) flush(out); /* only of text that is no UTF-8 */
        out->text[out->n++] = text[i];
    }
}

/* Let go of held bytes until what remains may be white space and the beginning of the tag, or is it. */
static tag_match settle(reasoning_split *r, const char *tag, bool thought, run *out) {
    for (;;) {
        tag_match m = r->n_held == sizeof r->held ? MATCH_NONE : match_tag(r->held, r->n_held, tag);
        if (m != MATCH_NONE || r->n_held == 0) return m;
        put(out, thought, r->held, 1);
        memmove(r->held, r->held + 1, --r->n_held);
    }
}

/* Keep the newest bytes, and of a channel's header its first, which are its name. */
static void hold(reasoning_split *r, char c, size_t first) {
    if (r->n_held == sizeof r->held) memmove(r->held + first, r->held + first + 1, --r->n_held - first);
    r->held[r->n_held++] = c;
}

static void push_channel_byte(reasoning_split *r, char c, run *out) {
    const reasoning_marks *marks = marks_of(r);
    size_t name = sizeof thought_channel - 1;
    bool thought = r->state == REASONING_INSIDE;
    switch (r->state) {
    case REASONING_HEADER:
        hold(r, c, name);
        if (!ends_with(r->held, r->n_held, marks->body)) return;
        thought = memcmp(r->held, thought_channel, name) == 0;
        r->state = thought ? REASONING_INSIDE : REASONING_SAID;
        break;
    case REASONING_BETWEEN:
        hold(r, c, 0);
        if (!ends_with(r->held, r->n_held, marks->open)) return;
        r->state = REASONING_HEADER;
        break;
    default: /* a message */
        r->held[r->n_held++] = c;
        if (settle(r, marks->close, thought, out) != MATCH_WHOLE) return;
        r->state = REASONING_BETWEEN;
    }
    r->n_held = 0;
}

static void push_byte(reasoning_split *r, char c, run *out) {
    const reasoning_marks *marks = marks_of(r);
    if (marks->body && r->state != REASONING_START && r->state != REASONING_TEXT) {
        push_channel_byte(r, c, out);
        return;
    }
    switch (r->state) {
    case REASONING_START:
        r->held[r->n_held++] = c;
        switch (match_tag(r->held, r->n_held, marks->open)) {
        case MATCH_WHOLE:
            r->n_held = 0;
            r->state = marks->body ? REASONING_HEADER : REASONING_OPENED;
            return;
        case MATCH_BEGINS:
            if (r->n_held < sizeof r->held) return;
            break;
        case MATCH_NONE: break;
        }
        put(out, false, r->held, r->n_held);
        r->n_held = 0;
        r->state = REASONING_TEXT;
        return;
    case REASONING_OPENED:
        if (is_space(c)) return;
        r->state = REASONING_INSIDE; /* fall through */
    case REASONING_INSIDE:
        r->held[r->n_held++] = c;
        if (settle(r, marks->close, true, out) == MATCH_WHOLE) {
            r->n_held = 0;
            r->state = REASONING_CLOSED;
        }
        return;
    case REASONING_CLOSED:
        if (is_space(c)) return;
        r->state = REASONING_TEXT; /* fall through */
    case REASONING_TEXT: put(out, false, &c, 1); return;
    default: return; /* of channels */
    }
}

void reasoning_push(reasoning_split *r, const char *text, size_t n, reasoning_fn fn, void *ctx) {
    run out = {.fn = fn, .ctx = ctx};
    for (size_t i = 0; i < n; i++) push_byte(r, text[i], &out);
    flush(&out);
}

void reasoning_finish(reasoning_split *r, reasoning_fn fn, void *ctx) {
    bool is_text = r->state != REASONING_HEADER && r->state != REASONING_BETWEEN;
    if (r->n_held && is_text) fn(ctx, r->state == REASONING_INSIDE, r->held, r->n_held);
    r->n_held = 0;
}
