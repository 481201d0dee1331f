/* normalize.c: see normalize.h. */
#include "text/normalize.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void tq_norm_steps_free(tq_norm_steps *steps) {
    for (size_t i = 0; i < steps->n; i++) {
        free(steps->steps[i].from);
        free(steps->steps[i].to);
    }
    free(steps->steps);
    *steps = (tq_norm_steps){0};
}

static bool is_ascii(const char *text, size_t length) {
    uint8_t bits = 0;
    for (size_t i = 0; i < length; i++) bits |= (uint8_t)text[i];
    return bits < 0x80;
}

/* Characters that the tables behind the models' own tokenizers (Unicode 9) do not know and that later versions reorder,
 * compose or decompose: combining marks and compatibility letters, through Unicode 15.  They stand as they are, and
 * nothing moves across them.  Found by comparing every code point; tests/python/test_text.py would see others. */
static const struct {
    uint32_t first, last;
} young[] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},
    {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},
    {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},   {0xa82c, 0xa82c},   {0xab69, 0xab69},   {0x10781, 0x10785},
    {0x10787, 0x107b0}, {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff},
    {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e},
    {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943},
    {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42},
    {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e130, 0x1e136},
    {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
};

static bool is_young(uint32_t c) {
    size_t low = 0, high = sizeof young / sizeof *young;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > young[middle].last) low = middle + 1;
        else high = middle;
    }
    return low < sizeof young / sizeof *young && c >= young[low].first;
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
        if (c >= (utf8proc_int32_t)young[0].first && is_young((uint32_t)c)) {
            TQ_TRY(add_form(options, text->data + kept, at - kept, out, err));
            TQ_TRY(tq_text_buf_add(out, text->data + at, (size_t)width, err));
            kept = at + (size_t)width;
        }
        at += (size_t)width;
    }
    return add_form(options, text->data + kept, text->n - kept, out, err);
}

static tq_status replace(const tq_norm_step *step, const tq_text_buf *text, tq_text_buf *out, tq_error *err) {
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

static tq_status apply(const tq_norm_step *step, tq_text_buf *text, tq_error *err) {
    if (text->n == 0) return TQ_OK;
    bool form = step->kind != TQ_NORM_PREPEND && step->kind != TQ_NORM_REPLACE;
    if (form && is_ascii(text->data, text->n)) return TQ_OK;
    tq_text_buf changed = {0};
    tq_status status;
    if (form) {
        status = to_form(step->kind, text, &changed, err);
    } else if (step->kind == TQ_NORM_REPLACE) {
        status = replace(step, text, &changed, err);
    } else {
        status = tq_text_buf_add(&changed, step->to, step->to_len, err);
        if (status == TQ_OK) status = tq_text_buf_add(&changed, text->data, text->n, err);
    }
    tq_text_buf_free(text);
    *text = changed;
    return status;
}

tq_status tq_normalize(const tq_norm_steps *steps, const char *text, size_t length, tq_text_buf *out, tq_error *err) {
    out->n = 0;
    TQ_TRY(tq_text_buf_add(out, text, length, err));
    for (size_t i = 0; i < steps->n; i++) TQ_TRY(apply(&steps->steps[i], out, err));
    return TQ_OK;
}
