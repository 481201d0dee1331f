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

static tq_status to_form(tq_norm_kind kind, tq_text_buf *text, tq_error *err) {
    if (is_ascii(text->data, text->n)) return TQ_OK;
    utf8proc_option_t options = UTF8PROC_STABLE;
    options |= kind == TQ_NORM_NFC || kind == TQ_NORM_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (kind == TQ_NORM_NFKC || kind == TQ_NORM_NFKD) options |= UTF8PROC_COMPAT;
    utf8proc_uint8_t *form = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text->data, (utf8proc_ssize_t)text->n, &form, options);
    if (n < 0) {
        if (n == UTF8PROC_ERROR_NOMEM) return tq_fail_memory(err, text->n, "normalising text");
        return tq_fail(err, TQ_INVALID, "normalising text: %s", utf8proc_errmsg(n));
    }
    text->n = 0;
    tq_status status = tq_text_buf_add(text, (const char *)form, (size_t)n, err);
    free(form);
    return status;
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
    if (step->kind != TQ_NORM_PREPEND && step->kind != TQ_NORM_REPLACE) return to_form(step->kind, text, err);
    tq_text_buf changed = {0};
    tq_status status;
    if (step->kind == TQ_NORM_REPLACE) {
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
