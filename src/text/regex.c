/* regex.c: see regex.h.
 * The differences that were found between Oniguruma's Ruby syntax and PCRE2 with UTF and UCP: \s differs at U+180E,
 * \p{Script} means script extensions in PCRE2, intervals are never possessive in Ruby, (?m) is dot-all, and nested
 * classes, class intersection, POSIX classes, \h, \R, \X, \b and \w have no equivalent.  What is not known to agree is
 * refused: a silent difference would change token ids. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "text/text_buf.h"

struct tq_regex {
    pcre2_code *code;
};

struct tq_regex_scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* ---- rewriting ---- */

enum { max_groups = 100 };

typedef struct rewriter {
    const char *pattern;
    size_t length, at;
    bool in_class;
    size_t atom;                         /* where in out the last thing began that a quantifier may follow */
    size_t groups[max_groups], n_groups; /* where in out the open groups began */
    tq_text_buf out;
    tq_error *err;
} rewriter;

static tq_status put(rewriter *rw, const char *text, size_t n) { return tq_text_buf_add(&rw->out, text, n, rw->err); }

static tq_status put_text(rewriter *rw, const char *text) { return put(rw, text, strlen(text)); }

static tq_status refuse(rewriter *rw, const char *construct, size_t n) {
    return tq_fail(rw->err, TQ_UNSUPPORTED, "regular expression: %.*s at offset %zu is not supported", (int)n,
                   construct, rw->at);
}

static bool starts_with(const rewriter *rw, const char *text) {
    size_t n = strlen(text);
    return rw->length - rw->at >= n && memcmp(rw->pattern + rw->at, text, n) == 0;
}

/* \p{Name}: general categories and four properties mean the same in both engines; any other name is a script. */
static tq_status rewrite_property(rewriter *rw) {
    const char *p = rw->pattern + rw->at;
    const char *end = memchr(p, '}', rw->length - rw->at);
    if (rw->length - rw->at < 4 || p[2] != '{' || !end) return refuse(rw, p, 2);
    const char *name = p + 3;
    bool negated = p[1] == 'P';
    if (*name == '^') negated = !negated, name++;
    size_t n = (size_t)(end - name);
    if (n == 0 || n > 40) return refuse(rw, p, 3);
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_')) {
            return refuse(rw, p, (size_t)(end + 1 - p));
        }
    }
    static const char *const same[] = {"Alphabetic", "Lowercase", "Uppercase", "White_Space", "Any"};
    bool script = n > 2;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        if (strlen(same[i]) == n && memcmp(same[i], name, n) == 0) script = false;
    }
    TQ_TRY(put_text(rw, negated ? "\\P{" : "\\p{"));
    if (script) TQ_TRY(put_text(rw, "sc:"));
    TQ_TRY(put(rw, name, n));
    rw->at = (size_t)(end + 1 - rw->pattern);
    return put_text(rw, "}");
}

static bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

/* \xHH, \x{H..} and \uHHHH, all as \x{...}. */
static tq_status rewrite_code_point(rewriter *rw) {
    const char *p = rw->pattern + rw->at, *limit = rw->pattern + rw->length;
    const char *digits = p + 2;
    bool braces = p[1] == 'x' && digits < limit && *digits == '{';
    if (braces) digits++;
    size_t n = 0, most = braces ? 8 : p[1] == 'u' ? 4 : 2;
    while (digits + n < limit && n < most && is_hex(digits[n])) n++;
    bool whole = braces ? digits + n < limit && digits[n] == '}' && n > 0 : n == most;
    if (!whole) return refuse(rw, p, 2);
    TQ_TRY(put_text(rw, "\\x{"));
    TQ_TRY(put(rw, digits, n));
    rw->at = (size_t)(digits + n - rw->pattern) + braces;
    return put_text(rw, "}");
}

static tq_status rewrite_escape(rewriter *rw) {
    if (rw->length - rw->at < 2) return refuse(rw, "a trailing \\", 12);
    const char *p = rw->pattern + rw->at;
    char c = p[1];
    if (c == 'p' || c == 'P') return rewrite_property(rw);
    if (c == 'x' || c == 'u') return rewrite_code_point(rw);
    if (c == 's' || c == 'S') {
        rw->at += 2;
        return put_text(rw, c == 's' ? "\\p{White_Space}" : "\\P{White_Space}");
    }
    bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    bool same = memchr("rntfaedD", c, 8) || (!rw->in_class && (c == 'A' || c == 'z'));
    if ((alphanumeric && !same) || (uint8_t)c >= 0x80 || c == '\0') return refuse(rw, p, 2);
    rw->at += 2;
    return put(rw, p, 2);
}

static tq_status rewrite_class(rewriter *rw) {
    rw->in_class = true;
    size_t opened = rw->at++;
    TQ_TRY(put_text(rw, "["));
    if (rw->at < rw->length && rw->pattern[rw->at] == '^') {
        rw->at++;
        TQ_TRY(put_text(rw, "^"));
    }
    if (rw->at < rw->length && rw->pattern[rw->at] == ']') return refuse(rw, "a class that begins with ]", 26);
    while (rw->at < rw->length) {
        const char *p = rw->pattern + rw->at;
        if (*p == ']') {
            rw->at++;
            rw->in_class = false;
            return put_text(rw, "]");
        }
        if (starts_with(rw, "[:")) return refuse(rw, "a POSIX class [:", 16);
        if (*p == '[') return refuse(rw, "a class inside a class", 22);
        if (starts_with(rw, "&&")) return refuse(rw, "&& in a class", 13);
        if (*p == '\\') {
            TQ_TRY(rewrite_escape(rw));
        } else {
            TQ_TRY(put(rw, p, 1));
            rw->at++;
        }
    }
    rw->at = opened;
    return refuse(rw, "a class without end", 19);
}

static tq_status rewrite_group(rewriter *rw) {
    static const char *const same[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    const char *p = rw->pattern + rw->at;
    if (starts_with(rw, "(*")) return refuse(rw, p, 2);
    if (!starts_with(rw, "(?")) {
        rw->at++;
        return put_text(rw, "(");
    }
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        if (!starts_with(rw, same[i])) continue;
        rw->at += strlen(same[i]);
        return put_text(rw, same[i]);
    }
    if (rw->at == 0 && starts_with(rw, "(?i)")) { /* elsewhere its reach over alternatives differs */
        rw->at += 4;
        return put_text(rw, "(?i)");
    }
    size_t left = rw->length - rw->at;
    return refuse(rw, p, left < 4 ? left : 4);
}

/* {n,m} with what follows it.  {,m} is an interval; {n}? is an optional {n}; {n,m}+ repeats rather than possesses. */
static tq_status rewrite_interval(rewriter *rw) {
    size_t at = rw->at + 1, low = at;
    while (at < rw->length && rw->pattern[at] >= '0' && rw->pattern[at] <= '9') at++;
    size_t n_low = at - low, n_high = 0;
    bool comma = at < rw->length && rw->pattern[at] == ',';
    if (comma) {
        at++;
        while (at + n_high < rw->length && rw->pattern[at + n_high] >= '0' && rw->pattern[at + n_high] <= '9') n_high++;
    }
    bool whole = at + n_high < rw->length && rw->pattern[at + n_high] == '}' && (n_low || n_high);
    if (!whole || n_low > 4 || n_high > 4) return refuse(rw, "{ that begins no interval", 25);
    TQ_TRY(put_text(rw, "{"));
    TQ_TRY(n_low ? put(rw, rw->pattern + low, n_low) : put_text(rw, "0"));
    if (comma) {
        TQ_TRY(put_text(rw, ","));
        TQ_TRY(put(rw, rw->pattern + at, n_high));
    }
    TQ_TRY(put_text(rw, "}"));
    rw->at = at + n_high + 1;
    if (rw->at == rw->length) return TQ_OK;
    if (rw->pattern[rw->at] == '+') { /* PCRE2 takes no quantifier after another: x{n,m}+ is (?:x{n,m})+ */
        rw->at++;
        TQ_TRY(put_text(rw, "(?:"));
        memmove(rw->out.data + rw->atom + 3, rw->out.data + rw->atom, rw->out.n - rw->atom - 3);
        memcpy(rw->out.data + rw->atom, "(?:", 3);
        return put_text(rw, ")+");
    }
    if (rw->pattern[rw->at] == '*' || (rw->pattern[rw->at] == '?' && !comma)) {
        return refuse(rw, "a quantifier after an interval", 30);
    }
    return TQ_OK;
}

static tq_status rewrite(rewriter *rw) {
    while (rw->at < rw->length) {
        const char *p = rw->pattern + rw->at;
        if (*p == '{') {
            TQ_TRY(rewrite_interval(rw));
            continue;
        }
        if (((uint8_t)*p & 0xc0) != 0x80) rw->atom = rw->out.n;
        if (*p == '\\') {
            TQ_TRY(rewrite_escape(rw));
        } else if (*p == '[') {
            TQ_TRY(rewrite_class(rw));
        } else if (*p == '(') {
            if (rw->n_groups == max_groups) return refuse(rw, "a group nested this deeply", 26);
            rw->groups[rw->n_groups++] = rw->out.n;
            TQ_TRY(rewrite_group(rw));
        } else {
            if (*p == ')' && rw->n_groups) rw->atom = rw->groups[--rw->n_groups];
            TQ_TRY(put(rw, p, 1));
            rw->at++;
        }
    }
    return TQ_OK;
}

/* ---- compiling and matching ---- */

static tq_status compile(const char *pattern, size_t length, uint32_t options, pcre2_code **code, tq_error *err) {
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return tq_fail_memory(err, 0, "a regular expression");
    int number;
    PCRE2_SIZE offset;
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    *code = pcre2_compile((PCRE2_SPTR)pattern, length, options, &number, &offset, context);
    pcre2_compile_context_free(context);
    if (*code) {
        pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE); /* failing is fine: the interpreter then runs it */
        return TQ_OK;
    }
    if (number == PCRE2_ERROR_NOMEMORY) return tq_fail_memory(err, length, "a regular expression");
    PCRE2_UCHAR text[160];
    pcre2_get_error_message(number, text, sizeof text);
    return tq_fail(err, TQ_UNSUPPORTED, "regular expression: %s (at offset %zu of \"%.*s\")", (char *)text,
                   (size_t)offset, (int)(length < 200 ? length : 200), pattern);
}

tq_status tq_regex_new(const char *pattern, size_t length, bool literal, tq_regex **out, tq_error *err) {
    *out = NULL;
    if (length > 65536) return tq_fail(err, TQ_UNSUPPORTED, "regular expression: %zu bytes (at most 65536)", length);
    tq_regex *regex = calloc(1, sizeof *regex);
    if (!regex) return tq_fail_memory(err, sizeof *regex, "a regular expression");
    tq_status status;
    if (literal) {
        status = compile(pattern, length, PCRE2_UTF | PCRE2_LITERAL, &regex->code, err);
    } else {
        rewriter rw = {.pattern = pattern, .length = length, .err = err};
        status = rewrite(&rw);
        /* Ruby's ^ and $ are always those of lines. */
        uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
        if (status == TQ_OK) status = compile(rw.out.data ? rw.out.data : "", rw.out.n, options, &regex->code, err);
        tq_text_buf_free(&rw.out);
    }
    if (status == TQ_OK) *out = regex;
    else tq_regex_free(regex);
    return status;
}

void tq_regex_free(tq_regex *regex) {
    if (!regex) return;
    pcre2_code_free(regex->code);
    free(regex);
}

tq_status tq_regex_scratch_new(tq_regex_scratch **out, tq_error *err) {
    tq_regex_scratch *scratch = calloc(1, sizeof *scratch);
    *out = scratch;
    if (!scratch) return tq_fail_memory(err, sizeof *scratch, "matching");
    scratch->data = pcre2_match_data_create(1, NULL);
    scratch->context = pcre2_match_context_create(NULL);
    scratch->stack = pcre2_jit_stack_create(32 << 10, 4 << 20, NULL);
    if (scratch->data && scratch->context) {
        /* Bounds what a hostile pattern can cost per piece; far above what real ones need. */
        pcre2_set_match_limit(scratch->context, 4000000);
        if (scratch->stack) pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
        return TQ_OK;
    }
    tq_regex_scratch_free(scratch);
    *out = NULL;
    return tq_fail_memory(err, 0, "matching");
}

void tq_regex_scratch_free(tq_regex_scratch *scratch) {
    if (!scratch) return;
    pcre2_match_data_free(scratch->data);
    pcre2_match_context_free(scratch->context);
    pcre2_jit_stack_free(scratch->stack);
    free(scratch);
}

tq_status tq_regex_find(const tq_regex *regex, tq_regex_scratch *scratch, const char *subject, size_t length,
                        size_t from, bool *found, size_t *start, size_t *end, tq_error *err) {
    uint32_t options = PCRE2_NO_UTF_CHECK;
    PCRE2_SPTR text = (PCRE2_SPTR)subject;
    int rc = pcre2_match(regex->code, text, length, from, options, scratch->data, scratch->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(regex->code, text, length, from, options | PCRE2_NO_JIT, scratch->data, scratch->context);
    }
    *found = rc >= 0;
    if (rc == PCRE2_ERROR_NOMATCH) return TQ_OK;
    if (rc == PCRE2_ERROR_NOMEMORY) return tq_fail_memory(err, length, "matching");
    if (rc < 0) {
        PCRE2_UCHAR message[160];
        pcre2_get_error_message(rc, message, sizeof message);
        return tq_fail(err, TQ_INVALID, "regular expression: %s on a text of %zu bytes", (char *)message, length);
    }
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(scratch->data);
    *start = offsets[0], *end = offsets[1];
    return TQ_OK;
}
