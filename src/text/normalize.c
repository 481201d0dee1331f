/* normalize.c: see normalize.h. */
#include "text/normalize.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/unicode9.h"

enum { most_growth = 64 }; /* NFKD makes 11 bytes of one at most */

void tq_norm_steps_free(tq_norm_steps *steps) {
    for (size_t i = 0; i < steps->n; i++) {
        free(steps->steps[i].from);
        free(steps->steps[i].to);
        tq_regex_free(steps->steps[i].regex);
        tq_charsmap_free(steps->steps[i].map);
    }
    free(steps->steps);
    *steps = (tq_norm_steps){0};
}

static bool is_ascii(const char *text, size_t length) {
    uint8_t bits = 0;
    for (size_t i = 0; i < length; i++) bits |= (uint8_t)text[i];
    return bits < 0x80;
}

static tq_status add_form(utf8proc_option_t options, const char *text, size_t length, tq_text_buf *out, tq_error *err) {
    utf8proc_uint8_t *form = NULL;
    if (length == 0) return TQ_OK;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &form, options);
    if (n < 0) {
        if (n == UTF8PROC_ERROR_NOMEM) return tq_fail_memory(err, length, "normalising text");
        return tq_fail(err, TQ_INVALID, "normalising text: %s", utf8proc_errmsg(n));
    }
    tq_status status = tq_text_buf_add(out, (const char *)form, (size_t)n, err);
    free(form);
    return status;
}

static tq_status to_form(tq_norm_kind kind, const tq_text_buf *text, tq_text_buf *out, tq_error *err) {
    utf8proc_option_t options = UTF8PROC_STABLE;
    options |= kind == TQ_NORM_NFC || kind == TQ_NORM_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (kind == TQ_NORM_NFKC || kind == TQ_NORM_NFKD) options |= UTF8PROC_COMPAT;
    size_t kept = 0;
    for (size_t at = 0; at < text->n;) {
        utf8proc_int32_t c = (uint8_t)text->data[at];
        utf8proc_ssize_t width = 1;
        if (c >= 0x80) {
            width = utf8proc_iterate((const utf8proc_uint8_t *)text->data + at, (utf8proc_ssize_t)(text->n - at), &c);
        }
        if (width < 1) return tq_fail(err, TQ_INVALID, "normalising text: not valid UTF-8");
        if (tq_unicode9_lacks_form((uint32_t)c)) {
            TQ_TRY(add_form(options, text->data + kept, at - kept, out, err));
            TQ_TRY(tq_text_buf_add(out, text->data + at, (size_t)width, err));
            kept = at + (size_t)width;
        }
        at += (size_t)width;
    }
    return add_form(options, text->data + kept, text->n - kept, out, err);
}

static tq_status replace_text(const tq_norm_step *step, const tq_text_buf *text, tq_text_buf *out, tq_error *err) {
    for (size_t i = 0, kept = 0; i <= text->n;) {
        const char *hit = i < text->n ? memchr(text->data + i, step->from[0], text->n - i) : NULL;
        if (!hit) return tq_text_buf_add(out, text->data + kept, text->n - kept, err);
        i = (size_t)(hit - text->data);
        if (text->n - i < step->from_len || memcmp(hit, step->from, step->from_len) != 0) {
            i++;
            continue;
        }
        TQ_TRY(tq_text_buf_add(out, text->data + kept, i - kept, err));
        TQ_TRY(tq_text_buf_add(out, step->to, step->to_len, err));
        i = kept = i + step->from_len;
    }
    return TQ_OK;
}

/* An empty match right after a match is passed over, as in splits. */
static tq_status replace_matches(const tq_norm_step *step, const tq_text_buf *text, tq_text_buf *out, tq_error *err) {
    tq_regex_scratch *scratch;
    TQ_TRY(tq_regex_scratch_new(&scratch, err));
    tq_status status = TQ_OK;
    size_t kept = 0, from = 0;
    for (bool any = false; from <= text->n && status == TQ_OK;) {
        bool found;
        size_t start, end;
        status = tq_regex_find(step->regex, scratch, text->data, text->n, from, &found, &start, &end, err);
        if (status != TQ_OK || !found) break;
        if (start == end && any && end == kept) {
            for (from++; from < text->n && ((uint8_t)text->data[from] & 0xc0) == 0x80;) from++;
            continue;
        }
        if (start < kept || end < start) {
            status = tq_fail(err, TQ_UNSUPPORTED, "regular expression: a match that goes backwards");
            break;
        }
        status = tq_text_buf_add(out, text->data + kept, start - kept, err);
        if (status == TQ_OK) status = tq_text_buf_add(out, step->to, step->to_len, err);
        from = kept = end;
        any = true;
    }
    tq_regex_scratch_free(scratch);
    return status == TQ_OK ? tq_text_buf_add(out, text->data + kept, text->n - kept, err) : status;
}

/* The property White_Space. */
static bool is_space(utf8proc_int32_t c) {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static utf8proc_int32_t next_character(const tq_text_buf *text, size_t at, size_t *width) {
    utf8proc_int32_t c = 0;
    *width = (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text->data + at, (utf8proc_ssize_t)(text->n - at), &c);
    return c;
}

static tq_status strip(const tq_norm_step *step, const tq_text_buf *text, tq_text_buf *out, tq_error *err) {
    size_t start = 0, end = text->n, width;
    while (step->left && start < end && is_space(next_character(text, start, &width))) start += width;
    while (step->right && end > start) {
        size_t last = end - 1;
        while (((uint8_t)text->data[last] & 0xc0) == 0x80) last--;
        if (!is_space(next_character(text, last, &width))) break;
        end = last;
    }
    return tq_text_buf_add(out, text->data + start, end - start, err);
}

static tq_status lower(const tq_text_buf *text, tq_text_buf *out, tq_error *err) {
    for (size_t at = 0, width; at < text->n; at += width) {
        utf8proc_uint8_t utf8[4];
        utf8proc_int32_t c = next_character(text, at, &width);
        size_t n = (size_t)utf8proc_encode_char(c == 0x130 ? 'i' : utf8proc_tolower(c), utf8);
        TQ_TRY(tq_text_buf_add(out, (const char *)utf8, n, err));
        if (c == 0x130) TQ_TRY(tq_text_buf_add(out, "\xcc\x87", 2, err)); /* the one that becomes two */
    }
    return TQ_OK;
}

static tq_status strip_accents(const tq_text_buf *text, tq_text_buf *out, tq_error *err) {
    for (size_t at = 0, width; at < text->n; at += width) {
        utf8proc_int32_t c = next_character(text, at, &width);
        if (!tq_unicode9_is_mark((uint32_t)c)) TQ_TRY(tq_text_buf_add(out, text->data + at, width, err));
    }
    return TQ_OK;
}

static tq_status prepend(const tq_norm_step *step, const tq_text_buf *text, tq_text_buf *out, tq_error *err) {
    TQ_TRY(tq_text_buf_add(out, step->to, step->to_len, err));
    return tq_text_buf_add(out, text->data, text->n, err);
}

static tq_status change(const tq_norm_step *step, const tq_text_buf *text, tq_text_buf *out, tq_error *err) {
    switch (step->kind) {
    case TQ_NORM_PREPEND: return prepend(step, text, out, err);
    case TQ_NORM_REPLACE: return step->regex ? replace_matches(step, text, out, err) : replace_text(step, text, out, err);
    case TQ_NORM_LOWERCASE: return lower(text, out, err);
    case TQ_NORM_STRIP: return strip(step, text, out, err);
    case TQ_NORM_STRIP_ACCENTS: return strip_accents(text, out, err);
    case TQ_NORM_CHARSMAP: return tq_charsmap_apply(step->map, text->data, text->n, out, err);
    default: return to_form(step->kind, text, out, err);
    }
}

static tq_status apply(const tq_norm_step *step, tq_text_buf *text, size_t limit, tq_error *err) {
    if (text->n == 0) return TQ_OK;
    if (step->kind <= TQ_NORM_NFKD && is_ascii(text->data, text->n)) return TQ_OK;
    tq_text_buf changed = {.limit = limit};
    tq_status status = change(step, text, &changed, err);
    tq_text_buf_free(text);
    *text = changed;
    text->limit = 0;
    return status;
}

tq_status tq_normalize(const tq_norm_steps *steps, const char *text, size_t length, tq_text_buf *out, tq_error *err) {
    out->n = 0;
    TQ_TRY(tq_text_buf_add(out, text, length, err));
    size_t limit = (length + 1024) * most_growth; /* replacements of replacements would never end */
    for (size_t i = 0; i < steps->n; i++) TQ_TRY(apply(&steps->steps[i], out, limit, err));
    return TQ_OK;
}
