/* template_text.c: see template_text.h. */
#include "text/template_text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static size_t before(const tq_tv_str *s, size_t at) {
    do at--;
    while (at > 0 && ((unsigned char)s->bytes[at] & 0xc0) == 0x80);
    return at;
}

static bool strips(const tq_tv_str *s, size_t at, const tq_tv_str *chars) {
    if (!chars) return tq_tv_is_space(tq_utf8_decode(s->bytes + at));
    size_t width = tq_utf8_width(s->bytes[at]);
    for (size_t k = 0; k < chars->n; k += tq_utf8_width(chars->bytes[k])) {
        if (chars->n - k >= width && memcmp(chars->bytes + k, s->bytes + at, width) == 0) return true;
    }
    return false;
}

tq_status tq_text_strip(tq_render *r, const tq_tv_str *s, const tq_tv_str *chars, int sides, tq_tv *out) {
    size_t from = 0, to = s->n;
    const tq_tv_str *part;
    if (sides & TQ_STRIP_LEFT) {
        while (from < to && strips(s, from, chars)) from += tq_utf8_width(s->bytes[from]);
    }
    if (sides & TQ_STRIP_RIGHT) {
        while (to > from && strips(s, before(s, to), chars)) to = before(s, to);
    }
    size_t stripped = s->n - (to - from);
    TQ_TRY(tq_render_charge(r, stripped / 64 * (chars ? 1 + chars->n : 1)));
    TQ_TRY(tq_tv_str_part(r, s, from, to, &part));
    *out = tq_tv_string(part);
    return TQ_OK;
}

size_t tq_text_find(const tq_tv_str *s, const tq_tv_str *part, size_t from) {
    if (part->n == 0) return from <= s->n ? from : SIZE_MAX;
    while (from + part->n <= s->n) {
        const char *hit = memchr(s->bytes + from, part->bytes[0], s->n - part->n - from + 1);
        if (!hit) break;
        if (memcmp(hit, part->bytes, part->n) == 0) return (size_t)(hit - s->bytes);
        from = (size_t)(hit - s->bytes) + 1;
    }
    return SIZE_MAX;
}

size_t tq_text_find_last(const tq_tv_str *s, const tq_tv_str *part) {
    for (size_t at = s->n + 1; at-- > 0;) {
        if (s->n - at >= part->n && (!part->n || memcmp(s->bytes + at, part->bytes, part->n) == 0)) return at;
    }
    return SIZE_MAX;
}

/* Python puts the new text before every character and at the end. */
static tq_status replace_nothing(tq_render *r, const tq_tv_str *s, const tq_tv_str *with, int64_t most, tq_tv *out) {
    tq_tv_builder text = {0};
    size_t at = 0;
    TQ_TRY(tq_render_charge(r, s->n));
    for (; most != 0; most--) {
        TQ_TRY(tq_tv_put_str(r, &text, with));
        if (at == s->n) return tq_tv_finish(r, &text, out);
        size_t next = at + tq_utf8_width(s->bytes[at]);
        TQ_TRY(tq_tv_put_part(r, &text, s, at, next));
        at = next;
    }
    TQ_TRY(tq_tv_put_part(r, &text, s, at, s->n));
    return tq_tv_finish(r, &text, out);
}

tq_status tq_text_replace(tq_render *r, const tq_tv_str *s, const tq_tv_str *old, const tq_tv_str *with, int64_t most,
                          tq_tv *out) {
    tq_tv_builder text = {0};
    size_t kept = 0;
    if (old->n == 0) return replace_nothing(r, s, with, most, out);
    TQ_TRY(tq_render_charge(r, s->n / 64));
    for (; most != 0; most--) {
        size_t at = tq_text_find(s, old, kept);
        if (at == SIZE_MAX) break;
        TQ_TRY(tq_render_charge(r, 1));
        TQ_TRY(tq_tv_put_part(r, &text, s, kept, at));
        TQ_TRY(tq_tv_put_str(r, &text, with));
        kept = at + old->n;
    }
    TQ_TRY(tq_tv_put_part(r, &text, s, kept, s->n));
    return tq_tv_finish(r, &text, out);
}

static tq_status add_part(tq_render *r, tq_tv_list *list, const tq_tv_str *s, size_t from, size_t to) {
    const tq_tv_str *part;
    TQ_TRY(tq_render_charge(r, 1));
    TQ_TRY(tq_tv_str_part(r, s, from, to, &part));
    return tq_tv_list_add(r, list, tq_tv_string(part));
}

static bool space_at(const tq_tv_str *s, size_t at) { return tq_tv_is_space(tq_utf8_decode(s->bytes + at)); }

static tq_status split_words(tq_render *r, const tq_tv_str *s, int64_t most, bool from_right, tq_tv_list *list) {
    size_t from = 0, to = s->n;
    for (;;) {
        while (from < to && space_at(s, from)) from += tq_utf8_width(s->bytes[from]);
        while (from_right && to > from && space_at(s, before(s, to))) to = before(s, to);
        if (from == to) return TQ_OK;
        /* What is left is kept with the white space at its far end. */
        if (most-- == 0) return add_part(r, list, s, from_right ? 0 : from, from_right ? to : s->n);
        size_t at = from_right ? to : from;
        if (from_right) {
            while (at > from && !space_at(s, before(s, at))) at = before(s, at);
            TQ_TRY(add_part(r, list, s, at, to));
            to = at;
        } else {
            while (at < to && !space_at(s, at)) at += tq_utf8_width(s->bytes[at]);
            TQ_TRY(add_part(r, list, s, from, at));
            from = at;
        }
    }
}

static tq_status split_right(tq_render *r, const tq_tv_str *s, const tq_tv_str *separator, int64_t most,
                             tq_tv_list *list) {
    size_t end = s->n;
    for (size_t at = s->n + 1; at-- > 0 && most != 0;) {
        if (end - at < separator->n || at > end || memcmp(s->bytes + at, separator->bytes, separator->n) != 0) continue;
        TQ_TRY(add_part(r, list, s, at + separator->n, end));
        end = at;
        most--;
    }
    return add_part(r, list, s, 0, end);
}

tq_status tq_text_split(tq_render *r, const tq_tv_str *s, const tq_tv_str *separator, int64_t most, bool from_right,
                        tq_tv *out) {
    tq_tv_list *list;
    TQ_TRY(tq_tv_list_new(r, TQ_TV_PLAIN_LIST, &list));
    TQ_TRY(tq_render_charge(r, s->n / 64));
    *out = tq_tv_of_list(list);
    if (separator && separator->n == 0) return tq_render_fail(r, TQ_INVALID, "empty separator");
    if (!separator) {
        TQ_TRY(split_words(r, s, most, from_right, list));
    } else if (from_right) {
        TQ_TRY(split_right(r, s, separator, most, list));
    } else {
        size_t from = 0, at;
        for (; most != 0 && (at = tq_text_find(s, separator, from)) != SIZE_MAX; most--) {
            TQ_TRY(add_part(r, list, s, from, at));
            from = at + separator->n;
        }
        return add_part(r, list, s, from, s->n);
    }
    for (size_t i = 0, k = list->n; from_right && i + 1 < k; i++) { /* found from the end: turn round */
        tq_tv swapped = list->items[--k];
        list->items[k] = list->items[i];
        list->items[i] = swapped;
    }
    return TQ_OK;
}

tq_status tq_text_lines(tq_render *r, const tq_tv_str *s, bool keep_ends, tq_tv_list **out) {
    TQ_TRY(tq_tv_list_new(r, TQ_TV_PLAIN_LIST, out));
    TQ_TRY(tq_render_charge(r, s->n / 64));
    size_t from = 0;
    for (size_t at = 0; at < s->n;) {
        uint32_t c = tq_utf8_decode(s->bytes + at);
        size_t next = at + tq_utf8_width(s->bytes[at]);
        bool ends = (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
        if (ends) {
            if (c == '\r' && next < s->n && s->bytes[next] == '\n') next++;
            TQ_TRY(add_part(r, *out, s, from, keep_ends ? next : at));
            from = next;
        }
        at = next;
    }
    return from < s->n ? add_part(r, *out, s, from, s->n) : TQ_OK;
}

/* ---- case ---- */

static bool is_cased(uint32_t c) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

static bool is_word_break(uint32_t c) {
    return tq_tv_is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
}

tq_status tq_text_change_case(tq_render *r, const tq_tv_str *s, tq_text_case wanted, tq_tv *out) {
    tq_tv_builder text = {0};
    bool first = true;
    size_t run = 0;
    TQ_TRY(tq_render_charge(r, s->n / 16));
    for (size_t at = 0; at < s->n;) {
        uint32_t c = tq_utf8_decode(s->bytes + at);
        bool up = wanted == TQ_CASE_UPPER || (wanted != TQ_CASE_LOWER && first);
        utf8proc_int32_t mapped = up ? utf8proc_toupper((utf8proc_int32_t)c) : utf8proc_tolower((utf8proc_int32_t)c);
        char utf8[4];
        const char *bytes = utf8;
        size_t n = tq_utf8_encode((uint32_t)mapped, utf8), next = at + tq_utf8_width(s->bytes[at]);
        if (up && c == 0xdf) { /* sharp s has no upper-case form of one character */
            bytes = wanted == TQ_CASE_UPPER ? "SS" : "Ss";
            n = 2;
        }
        while (s->runs && s->runs[run].end <= at) run++;
        TQ_TRY(tq_tv_put(r, &text, bytes, n, s->runs ? s->runs[run].from_template : s->from_template));
        first = wanted == TQ_CASE_TITLE ? !is_cased(c) : wanted == TQ_CASE_WORDS ? is_word_break(c) : false;
        at = next;
    }
    return tq_tv_finish(r, &text, out);
}

tq_status tq_text_join(tq_render *r, const tq_tv_str *separator, const tq_tv_list *items, bool only_strings,
                       tq_tv *out) {
    tq_tv_builder text = {0};
    for (size_t i = 0; i < items->n; i++) {
        const tq_tv_str *s;
        TQ_TRY(tq_render_charge(r, 1));
        if (only_strings && items->items[i].type != TQ_TV_STR) {
            return tq_render_fail(r, TQ_INVALID, "join: item %zu is %s, not str", i, tq_tv_type_name(items->items[i]));
        }
        if (i) TQ_TRY(tq_tv_put_str(r, &text, separator));
        TQ_TRY(tq_tv_to_str(r, items->items[i], &s));
        TQ_TRY(tq_tv_put_str(r, &text, s));
    }
    return tq_tv_finish(r, &text, out);
}

/* ---- numbers ---- */

/* The text without white space around it and without underscores between digits, in a buffer. */
static bool plain_number(const tq_tv_str *s, char *dst, size_t cap) {
    size_t from = 0, to = s->n, n = 0;
    while (from < to && space_at(s, from)) from += tq_utf8_width(s->bytes[from]);
    while (to > from && space_at(s, before(s, to))) to = before(s, to);
    for (size_t i = from; i < to; i++) {
        char c = s->bytes[i];
        bool digits_around = i > from && i + 1 < to && s->bytes[i - 1] >= '0' && s->bytes[i - 1] <= '9' &&
                             s->bytes[i + 1] >= '0' && s->bytes[i + 1] <= '9';
        if (c == '_' && digits_around) continue;
        if (c == '\0' || c == '_' || c == 'x' || c == 'X' || c == '(' || n + 1 >= cap) return false;
        dst[n++] = c;
    }
    dst[n] = '\0';
    return n > 0;
}

bool tq_text_to_int(const tq_tv_str *s, int64_t *out) {
    char text[64];
    if (!plain_number(s, text, sizeof text)) return false;
    const char *p = text + (*text == '-' || *text == '+');
    int64_t value = 0;
    if (!*p) return false;
    for (; *p; p++) {
        if (*p < '0' || *p > '9') return false;
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *p - '0', &value)) return false;
    }
    *out = *text == '-' ? -value : value;
    return true;
}

bool tq_text_to_float(const tq_tv_str *s, double *out) {
    char text[512], *end;
    if (!plain_number(s, text, sizeof text) || tq_tv_is_space((unsigned char)text[0])) return false;
    *out = tq_parse_double(text, &end);
    return *end == '\0';
}
