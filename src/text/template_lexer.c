/* template_lexer.c: see template_lexer.h. */
#include "text/template_lexer.h"

#include <string.h>

typedef struct lexer {
    tq_render *r;
    const char *source;
    size_t n, at;
    int line;
    bool line_starting; /* nothing but a newline came right before `at` */
    tq_lex_token *tokens;
    size_t n_tokens, cap;
} lexer;

static tq_status add(lexer *lx, tq_lex_type type, const char *text, size_t n) {
    if (lx->n_tokens == lx->cap) {
        size_t cap = lx->cap ? lx->cap * 2 : 64;
        tq_lex_token *wider;
        TQ_TRY(TQ_NEW(lx->r, cap, &wider));
        if (lx->n_tokens) memcpy(wider, lx->tokens, lx->n_tokens * sizeof *wider);
        lx->tokens = wider, lx->cap = cap;
    }
    lx->tokens[lx->n_tokens++] = (tq_lex_token){type, lx->line, text, n};
    return TQ_OK;
}

static tq_status fail(lexer *lx, const char *what) {
    lx->r->line = lx->line;
    return tq_render_fail(lx->r, TQ_FORMAT, "%s", what);
}

/* Move to `to`, counting lines. */
static void advance(lexer *lx, size_t to) {
    if (to > lx->at) lx->line_starting = lx->source[to - 1] == '\n';
    for (; lx->at < to; lx->at++) lx->line += lx->source[lx->at] == '\n';
}

static bool looking_at(const lexer *lx, const char *text) {
    size_t n = strlen(text);
    return lx->n - lx->at >= n && memcmp(lx->source + lx->at, text, n) == 0;
}

static size_t skip_space(const lexer *lx, size_t at) {
    while (at < lx->n && tq_tv_is_space(tq_utf8_decode(lx->source + at))) at += tq_utf8_width(lx->source[at]);
    return at;
}

/* Where the text from..to ends once white space before a tag is taken off. */
static size_t strip_end(const lexer *lx, size_t from, size_t to, char sign, bool is_print) {
    size_t end = to;
    if (sign == '+' || (sign != '-' && is_print)) return to;
    while (end > from) {
        size_t before = end - 1;
        while (before > from && ((unsigned char)lx->source[before] & 0xc0) == 0x80) before--;
        if (!tq_tv_is_space(tq_utf8_decode(lx->source + before))) break;
        if (sign != '-' && lx->source[before] == '\n') return end; /* lstrip_blocks: back to the line's beginning */
        end = before;
    }
    if (sign == '-') return end;
    return end == from && lx->line_starting ? from : to; /* the line must hold nothing else */
}

static char sign_at(const lexer *lx, size_t at) {
    return at < lx->n && (lx->source[at] == '-' || lx->source[at] == '+') ? lx->source[at] : ' ';
}

/* After a tag: -%} takes all white space, %} the newline, +%} nothing. */
static void close_tag(lexer *lx, char sign, bool trim_newline) {
    advance(lx, lx->at + (sign == ' ' ? 2 : 3));
    if (sign == '-') advance(lx, skip_space(lx, lx->at));
    else if (sign == ' ' && trim_newline && lx->at < lx->n && lx->source[lx->at] == '\n') advance(lx, lx->at + 1);
}

static tq_status skip_comment(lexer *lx) {
    size_t at = lx->at + 2;
    while (at + 2 <= lx->n && memcmp(lx->source + at, "#}", 2) != 0) at++;
    if (at + 2 > lx->n) return fail(lx, "a comment without end");
    size_t opened = lx->at + 2;
    char sign = at > opened ? sign_at(lx, at - 1) : ' ';
    advance(lx, sign == ' ' ? at : at - 1);
    close_tag(lx, sign, true);
    return TQ_OK;
}

/* At a tag `{% word %}`: its end, or 0. */
static size_t match_word_tag(const lexer *lx, size_t at, const char *word, char *open_sign, char *close_sign) {
    size_t n = strlen(word);
    if (lx->n - at < 2 || memcmp(lx->source + at, "{%", 2) != 0) return 0;
    *open_sign = sign_at(lx, at + 2);
    at = skip_space(lx, at + 2 + (*open_sign != ' '));
    if (lx->n - at < n || memcmp(lx->source + at, word, n) != 0) return 0;
    at = skip_space(lx, at + n);
    *close_sign = sign_at(lx, at);
    if (*close_sign != ' ') at++;
    return lx->n - at >= 2 && memcmp(lx->source + at, "%}", 2) == 0 ? at + 2 : 0;
}

/* {% raw %}...{% endraw %}; at the opening tag, whose end is `end`. */
static tq_status lex_raw(lexer *lx, size_t end, char close_sign) {
    advance(lx, end);
    if (close_sign == '-') advance(lx, skip_space(lx, lx->at));
    for (size_t at = lx->at; at < lx->n; at++) {
        char open, close;
        size_t tag_end = lx->source[at] == '{' ? match_word_tag(lx, at, "endraw", &open, &close) : 0;
        if (!tag_end) continue;
        size_t text_end = strip_end(lx, lx->at, at, open, false);
        if (text_end > lx->at) TQ_TRY(add(lx, TQ_LEX_TEXT, lx->source + lx->at, text_end - lx->at));
        advance(lx, tag_end - (close == ' ' ? 2 : 3));
        close_tag(lx, close, true);
        return TQ_OK;
    }
    return fail(lx, "a raw block without end");
}

/* ---- inside {% %} and {{ }} ---- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c) || (unsigned char)c >= 0x80;
}

static size_t skip_digits(const lexer *lx, size_t at) {
    while (at < lx->n &&
           (is_digit(lx->source[at]) || (lx->source[at] == '_' && at + 1 < lx->n && is_digit(lx->source[at + 1])))) {
        at++;
    }
    return at;
}

static tq_status lex_number(lexer *lx) {
    size_t start = lx->at, at = skip_digits(lx, start);
    bool is_float = false;
    if (at + 1 < lx->n && lx->source[at] == '.' && is_digit(lx->source[at + 1])) {
        at = skip_digits(lx, at + 1);
        is_float = true;
    }
    if (at < lx->n && (lx->source[at] == 'e' || lx->source[at] == 'E')) {
        size_t digits = at + 1;
        if (digits < lx->n && (lx->source[digits] == '+' || lx->source[digits] == '-')) digits++;
        if (digits < lx->n && is_digit(lx->source[digits])) {
            at = skip_digits(lx, digits);
            is_float = true;
        }
    }
    if (at < lx->n && is_name(lx->source[at])) return fail(lx, "a number that cannot be read");
    TQ_TRY(add(lx, is_float ? TQ_LEX_FLOAT : TQ_LEX_INT, lx->source + start, at - start));
    advance(lx, at);
    return TQ_OK;
}

static int hex_digit(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The character of an escape at p (after the backslash).  Returns the bytes read, or 0 if it is none that Python
 * knows: then the backslash stays. */
static size_t read_escape(const char *p, size_t n, uint32_t *c) {
    static const char letters[] = "n\nt\tr\ra\ab\bf\fv\v\\\\''\"\"";
    for (const char *l = letters; *l; l += 2) {
        if (*p == *l) return *c = (uint32_t)l[1], 1;
    }
    if (*p >= '0' && *p <= '7') {
        size_t k = 0;
        for (*c = 0; k < 3 && k < n && p[k] >= '0' && p[k] <= '7'; k++) *c = *c * 8 + (uint32_t)(p[k] - '0');
        return k;
    }
    size_t want = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    if (!want) return 0;
    *c = 0;
    for (size_t k = 1; k <= want; k++) {
        if (k >= n || hex_digit(p[k]) < 0 || *c > 0xfffffff) return *c = UINT32_MAX, 1;
        *c = *c * 16 + (uint32_t)hex_digit(p[k]);
    }
    return want + 1;
}

static tq_status lex_string(lexer *lx) {
    char quote = lx->source[lx->at];
    size_t start = lx->at + 1, end = start, n = 0;
    while (end < lx->n && lx->source[end] != quote) end += lx->source[end] == '\\' ? 2 : 1;
    if (end >= lx->n) return fail(lx, "a string without end");
    char *value;
    TQ_TRY(TQ_NEW(lx->r, end - start + 1, &value));
    for (size_t at = start; at < end;) {
        char c = lx->source[at++];
        uint32_t code;
        if (c != '\\') {
            value[n++] = c;
            continue;
        }
        if (lx->source[at] == '\n') { /* a line continued */
            at++;
            continue;
        }
        size_t used = read_escape(lx->source + at, end - at, &code);
        if (!used) {
            value[n++] = '\\';
            continue;
        }
        if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return fail(lx, "a string with a bad escape");
        n += tq_utf8_encode(code, value + n);
        at += used;
    }
    TQ_TRY(add(lx, TQ_LEX_STRING, value, n));
    advance(lx, end + 1);
    return TQ_OK;
}

static tq_status lex_operator(lexer *lx, int *nesting) {
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
    const char *p = lx->source + lx->at;
    size_t n = 1;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
        if (looking_at(lx, two[i])) n = 2;
    }
    if (n == 1 && !strchr("+-/*%~[](){}<>=.:|,;", *p)) return fail(lx, "a character that does not belong here");
    if (n == 1 && strchr("([{", *p)) ++*nesting;
    if (n == 1 && strchr(")]}", *p) && --*nesting < 0) return fail(lx, "a closing bracket without an opening one");
    TQ_TRY(add(lx, TQ_LEX_OP, p, n));
    advance(lx, lx->at + n);
    return TQ_OK;
}

static tq_status lex_tag(lexer *lx, bool is_print) {
    const char *closing = is_print ? "}}" : "%}";
    int nesting = 0;
    for (;;) {
        advance(lx, skip_space(lx, lx->at));
        if (lx->at >= lx->n) return fail(lx, is_print ? "{{ without }}" : "{% without %}");
        if (nesting == 0) {
            char sign = sign_at(lx, lx->at);
            if (is_print && sign == '+') sign = ' '; /* +%} exists, +}} does not */
            size_t at = lx->at + (sign != ' ');
            if (lx->n - at >= 2 && memcmp(lx->source + at, closing, 2) == 0) {
                TQ_TRY(add(lx, is_print ? TQ_LEX_PRINT_END : TQ_LEX_BLOCK_END, lx->source + at, 2));
                close_tag(lx, sign, !is_print);
                return TQ_OK;
            }
        }
        char c = lx->source[lx->at];
        if (is_digit(c)) {
            TQ_TRY(lex_number(lx));
        } else if (is_name(c)) {
            size_t end = lx->at;
            while (end < lx->n && is_name(lx->source[end])) end++;
            TQ_TRY(add(lx, TQ_LEX_NAME, lx->source + lx->at, end - lx->at));
            advance(lx, end);
        } else if (c == '"' || c == '\'') {
            TQ_TRY(lex_string(lx));
        } else {
            TQ_TRY(lex_operator(lx, &nesting));
        }
    }
}

static bool begins_tag(const lexer *lx, size_t at) {
    if (lx->source[at] != '{' || at + 1 == lx->n) return false;
    char kind = lx->source[at + 1];
    return kind == '{' || kind == '%' || kind == '#';
}

tq_status tq_lex(tq_render *r, const char *source, size_t n, tq_lex_token **tokens, size_t *n_tokens) {
    lexer lx = {.r = r, .source = source, .n = n, .line = 1, .line_starting = true};
    while (lx.at < n) {
        size_t tag = lx.at;
        while (tag < n && !begins_tag(&lx, tag)) tag++;
        if (tag == n) {
            TQ_TRY(add(&lx, TQ_LEX_TEXT, source + lx.at, n - lx.at));
            break;
        }
        char kind = source[tag + 1], sign = sign_at(&lx, tag + 2);
        size_t end = strip_end(&lx, lx.at, tag, sign, kind == '{');
        if (end > lx.at) TQ_TRY(add(&lx, TQ_LEX_TEXT, source + lx.at, end - lx.at));
        advance(&lx, tag);
        char open, close;
        size_t raw_end = kind == '%' ? match_word_tag(&lx, tag, "raw", &open, &close) : 0;
        if (raw_end) {
            TQ_TRY(lex_raw(&lx, raw_end, close));
        } else if (kind == '#') {
            TQ_TRY(skip_comment(&lx));
        } else {
            TQ_TRY(add(&lx, kind == '{' ? TQ_LEX_PRINT : TQ_LEX_BLOCK, source + tag, 2));
            advance(&lx, tag + 2 + (sign != ' '));
            TQ_TRY(lex_tag(&lx, kind == '{'));
        }
    }
    TQ_TRY(add(&lx, TQ_LEX_END, "", 0));
    *tokens = lx.tokens, *n_tokens = lx.n_tokens;
    return TQ_OK;
}
