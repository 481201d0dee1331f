/* template_python.c: truth, equality, order, iteration, str() and repr() of template values, as Python has them. */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/template_value.h"

enum { max_nesting = 200 };

const char *tq_tv_type_name(tq_tv value) {
    static const char *const lists[] = {"list",      "tuple",       "generator", "dict_items",
                                        "dict_keys", "dict_values", "range"};
    switch (value.type) {
    case TQ_TV_UNDEFINED: return "undefined";
    case TQ_TV_NONE: return "none";
    case TQ_TV_BOOL: return "bool";
    case TQ_TV_INT: return "int";
    case TQ_TV_FLOAT: return "float";
    case TQ_TV_STR: return "str";
    case TQ_TV_LIST: return lists[value.as.list->kind];
    case TQ_TV_DICT: return "dict";
    case TQ_TV_NAMESPACE: return "namespace";
    case TQ_TV_CALLABLE: return value.as.callable->macro ? "macro" : "function";
    case TQ_TV_LOOP: return "loop";
    case TQ_TV_MISSING: break;
    }
    return "nothing";
}

bool tq_tv_truth(tq_tv value) {
    switch (value.type) {
    case TQ_TV_UNDEFINED:
    case TQ_TV_NONE:
    case TQ_TV_MISSING: return false;
    case TQ_TV_BOOL: return value.as.b;
    case TQ_TV_INT: return value.as.i != 0;
    case TQ_TV_FLOAT: return value.as.f != 0;
    case TQ_TV_STR: return value.as.s->n != 0;
    case TQ_TV_LIST: return value.as.list->kind == TQ_TV_GENERATOR || value.as.list->n != 0;
    case TQ_TV_DICT: return value.as.dict->n != 0;
    default: return true;
    }
}

/* ---- equality and order ---- */

static int64_t as_int(tq_tv v) { return v.type == TQ_TV_BOOL ? v.as.b : v.as.i; }
static double as_double(tq_tv v) { return v.type == TQ_TV_FLOAT ? v.as.f : (double)as_int(v); }

static bool equal_numbers(tq_tv a, tq_tv b) {
    if (a.type != TQ_TV_FLOAT && b.type != TQ_TV_FLOAT) return as_int(a) == as_int(b);
    return as_double(a) == as_double(b);
}

static tq_status equal(tq_render *r, tq_tv a, tq_tv b, bool *same, int depth) {
    *same = false;
    TQ_TRY(tq_render_charge(r, 1));
    if (depth > max_nesting) return tq_render_fail(r, TQ_INVALID, "comparing values nested too deeply");
    if (tq_tv_is_number(a) && tq_tv_is_number(b)) {
        *same = equal_numbers(a, b);
        return TQ_OK;
    }
    if (a.type != b.type) return TQ_OK;
    switch (a.type) {
    case TQ_TV_UNDEFINED:
    case TQ_TV_NONE: *same = true; return TQ_OK;
    case TQ_TV_STR:
        *same = a.as.s->n == b.as.s->n && memcmp(a.as.s->bytes, b.as.s->bytes, a.as.s->n) == 0;
        return tq_render_charge(r, *same ? a.as.s->n / 64 : 0);
    case TQ_TV_LIST:
        if (a.as.list == b.as.list) *same = true;
        if (a.as.list->kind != b.as.list->kind || a.as.list->n != b.as.list->n || *same) return TQ_OK;
        if (a.as.list->kind == TQ_TV_GENERATOR || a.as.list->kind == TQ_TV_VALUES) return TQ_OK;
        for (size_t i = 0; i < a.as.list->n; i++) {
            TQ_TRY(equal(r, a.as.list->items[i], b.as.list->items[i], same, depth + 1));
            if (!*same) return TQ_OK;
        }
        *same = true;
        return TQ_OK;
    case TQ_TV_DICT:
        if (a.as.dict->n != b.as.dict->n) return TQ_OK;
        for (size_t i = 0; i < a.as.dict->n; i++) {
            TQ_TRY(tq_render_charge(r, b.as.dict->n / 64));
            const tq_tv *other = tq_tv_dict_get(b.as.dict, a.as.dict->keys[i]);
            if (!other) return *same = false, TQ_OK;
            TQ_TRY(equal(r, a.as.dict->values[i], *other, same, depth + 1));
            if (!*same) return TQ_OK;
        }
        *same = true;
        return TQ_OK;
    case TQ_TV_CALLABLE: *same = a.as.callable == b.as.callable; return TQ_OK;
    case TQ_TV_NAMESPACE: *same = a.as.dict == b.as.dict; return TQ_OK;
    default: *same = a.as.loop == b.as.loop; return TQ_OK;
    }
}

tq_status tq_tv_equal(tq_render *r, tq_tv a, tq_tv b, bool *same) { return equal(r, a, b, same, 0); }

static tq_status compare(tq_render *r, tq_tv a, tq_tv b, int *order, int depth) {
    TQ_TRY(tq_render_charge(r, 1));
    if (depth > max_nesting) return tq_render_fail(r, TQ_INVALID, "comparing values nested too deeply");
    if (tq_tv_is_number(a) && tq_tv_is_number(b)) {
        if (a.type != TQ_TV_FLOAT && b.type != TQ_TV_FLOAT) {
            *order = (as_int(a) > as_int(b)) - (as_int(a) < as_int(b));
        } else {
            *order = (as_double(a) > as_double(b)) - (as_double(a) < as_double(b));
        }
        return TQ_OK;
    }
    if (a.type == TQ_TV_STR && b.type == TQ_TV_STR) { /* UTF-8 orders as code points do */
        size_t n = a.as.s->n < b.as.s->n ? a.as.s->n : b.as.s->n;
        int c = n ? memcmp(a.as.s->bytes, b.as.s->bytes, n) : 0;
        *order = c ? (c > 0) - (c < 0) : (a.as.s->n > b.as.s->n) - (a.as.s->n < b.as.s->n);
        return tq_render_charge(r, n / 64);
    }
    if (a.type == TQ_TV_LIST && b.type == TQ_TV_LIST && a.as.list->kind == b.as.list->kind &&
        a.as.list->kind <= TQ_TV_TUPLE) {
        size_t na = a.as.list->n, nb = b.as.list->n;
        for (size_t i = 0; i < na && i < nb; i++) {
            bool same;
            TQ_TRY(equal(r, a.as.list->items[i], b.as.list->items[i], &same, depth + 1));
            if (!same) return compare(r, a.as.list->items[i], b.as.list->items[i], order, depth + 1);
        }
        *order = (na > nb) - (na < nb);
        return TQ_OK;
    }
    return tq_render_fail(r, TQ_INVALID, "'%s' and '%s' cannot be ordered", tq_tv_type_name(a), tq_tv_type_name(b));
}

tq_status tq_tv_compare(tq_render *r, tq_tv a, tq_tv b, int *order) { return compare(r, a, b, order, 0); }

tq_status tq_tv_iterate(tq_render *r, tq_tv value, tq_tv_list **out) {
    tq_tv_list *list;
    if (value.type == TQ_TV_LIST && value.as.list->kind != TQ_TV_GENERATOR) {
        *out = value.as.list;
        return TQ_OK;
    }
    TQ_TRY(tq_tv_list_new(r, TQ_TV_PLAIN_LIST, &list));
    *out = list;
    if (value.type == TQ_TV_LIST) {
        tq_tv_list *generator = value.as.list;
        list->items = generator->items, list->n = list->cap = generator->n;
        generator->items = NULL, generator->n = generator->cap = 0;
        return TQ_OK;
    }
    if (value.type == TQ_TV_UNDEFINED) return TQ_OK;
    if (value.type == TQ_TV_DICT) {
        list->items = value.as.dict->keys;
        list->n = value.as.dict->n; /* cap 0: adding copies */
        list->cap = list->n;
        return TQ_OK;
    }
    if (value.type == TQ_TV_STR) {
        const tq_tv_str *s = value.as.s;
        TQ_TRY(tq_render_charge(r, s->n));
        for (size_t at = 0; at < s->n;) {
            size_t next = at + tq_utf8_width(s->bytes[at]);
            const tq_tv_str *character;
            TQ_TRY(tq_tv_str_part(r, s, at, next, &character));
            TQ_TRY(tq_tv_list_add(r, list, tq_tv_string(character)));
            at = next;
        }
        return TQ_OK;
    }
    return tq_render_fail(r, TQ_INVALID, "'%s' is not iterable", tq_tv_type_name(value));
}

/* ---- text of values ---- */

double tq_parse_double(const char *text, char **end) {
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (plain == (locale_t)0) return strtod(text, end);
    locale_t before = uselocale(plain);
    double value = strtod(text, end);
    uselocale(before);
    freelocale(plain);
    return value;
}

/* Fewest digits that read back as the same number; an exponent below 1e-4 and from 1e16. */
void tq_float_repr(double value, char *dst) {
    if (isnan(value)) {
        strcpy(dst, "nan");
        return;
    }
    if (isinf(value)) {
        strcpy(dst, value > 0 ? "inf" : "-inf");
        return;
    }
    char text[40], digits[20];
    int precision = 0;
    do snprintf(text, sizeof text, "%.*e", precision, value);
    while (precision++ < 16 && strtod(text, NULL) != value); /* same locale both ways */
    int n = 0, exponent = atoi(strchr(text, 'e') + 1);
    for (const char *p = text; *p != 'e'; p++) {
        if (*p >= '0' && *p <= '9') digits[n++] = *p;
    }
    if (signbit(value)) *dst++ = '-';
    if (exponent < -4 || exponent >= 16) {
        *dst++ = digits[0];
        if (n > 1) *dst++ = '.';
        for (int i = 1; i < n; i++) *dst++ = digits[i];
        sprintf(dst, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        *dst++ = '0', *dst++ = '.';
        for (int i = -1; i > exponent; i--) *dst++ = '0';
        for (int i = 0; i < n; i++) *dst++ = digits[i];
    } else {
        for (int i = 0; i < n || i <= exponent + 1; i++) {
            if (i == exponent + 1) *dst++ = '.';
            if (i < n || i <= exponent + 1) *dst++ = i < n ? digits[i] : '0';
        }
    }
    *dst = '\0';
}

static tq_status put_data(tq_render *r, tq_tv_builder *b, const char *text) {
    return tq_tv_put(r, b, text, strlen(text), false);
}

static bool is_printable(uint32_t c) {
    if (c < 0x7f) return c >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO: return false;
    default: return true;
    }
}

static tq_status repr_str(tq_render *r, tq_tv_builder *b, const tq_tv_str *s) {
    bool single = s->n && memchr(s->bytes, '\'', s->n), twice = s->n && memchr(s->bytes, '"', s->n);
    char quote = single && !twice ? '"' : '\'';
    TQ_TRY(tq_tv_put(r, b, &quote, 1, false));
    for (size_t at = 0; at < s->n;) {
        size_t width = tq_utf8_width(s->bytes[at]);
        uint32_t c = tq_utf8_decode(s->bytes + at);
        char text[16];
        if (c == (uint32_t)quote || c == '\\') snprintf(text, sizeof text, "\\%c", (char)c);
        else if (c == '\n') strcpy(text, "\\n");
        else if (c == '\r') strcpy(text, "\\r");
        else if (c == '\t') strcpy(text, "\\t");
        else if (is_printable(c)) memcpy(text, s->bytes + at, width), text[width] = '\0';
        else snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        TQ_TRY(put_data(r, b, text));
        at += width;
    }
    return tq_tv_put(r, b, &quote, 1, false);
}

static tq_status repr(tq_render *r, tq_tv_builder *b, tq_tv value, int depth);

static tq_status repr_list(tq_render *r, tq_tv_builder *b, tq_tv_list *list, int depth) {
    static const char *const opening[] = {"[", "(", "", "dict_items([", "dict_keys([", "dict_values(["};
    static const char *const closing[] = {"]", ")", "", "])", "])", "])"};
    if (list->kind == TQ_TV_GENERATOR) return put_data(r, b, "<generator object>");
    if (list->kind == TQ_TV_RANGE) {
        char text[80];
        int n = snprintf(text, sizeof text, "range(%lld, %lld", (long long)list->range[0], (long long)list->range[1]);
        if (list->range[2] != 1) n += snprintf(text + n, sizeof text - (size_t)n, ", %lld", (long long)list->range[2]);
        strcpy(text + n, ")");
        return put_data(r, b, text);
    }
    TQ_TRY(put_data(r, b, opening[list->kind]));
    for (size_t i = 0; i < list->n; i++) {
        if (i) TQ_TRY(put_data(r, b, ", "));
        TQ_TRY(repr(r, b, list->items[i], depth + 1));
    }
    if (list->kind == TQ_TV_TUPLE && list->n == 1) TQ_TRY(put_data(r, b, ","));
    return put_data(r, b, closing[list->kind]);
}

static tq_status repr(tq_render *r, tq_tv_builder *b, tq_tv value, int depth) {
    char text[64];
    TQ_TRY(tq_render_charge(r, 1));
    if (depth > max_nesting) return tq_render_fail(r, TQ_INVALID, "a value nested too deeply");
    switch (value.type) {
    case TQ_TV_UNDEFINED: return put_data(r, b, "Undefined");
    case TQ_TV_NONE: return put_data(r, b, "None");
    case TQ_TV_BOOL: return put_data(r, b, value.as.b ? "True" : "False");
    case TQ_TV_INT: snprintf(text, sizeof text, "%lld", (long long)value.as.i); return put_data(r, b, text);
    case TQ_TV_FLOAT: tq_float_repr(value.as.f, text); return put_data(r, b, text);
    case TQ_TV_STR: return repr_str(r, b, value.as.s);
    case TQ_TV_LIST: return repr_list(r, b, value.as.list, depth);
    case TQ_TV_DICT:
        TQ_TRY(put_data(r, b, "{"));
        for (size_t i = 0; i < value.as.dict->n; i++) {
            if (i) TQ_TRY(put_data(r, b, ", "));
            TQ_TRY(repr(r, b, value.as.dict->keys[i], depth + 1));
            TQ_TRY(put_data(r, b, ": "));
            TQ_TRY(repr(r, b, value.as.dict->values[i], depth + 1));
        }
        return put_data(r, b, "}");
    default: return tq_render_fail(r, TQ_INVALID, "a %s has no text", tq_tv_type_name(value));
    }
}

tq_status tq_tv_repr(tq_render *r, tq_tv_builder *b, tq_tv value) { return repr(r, b, value, 0); }

tq_status tq_tv_to_str(tq_render *r, tq_tv value, const tq_tv_str **out) {
    if (value.type == TQ_TV_STR) {
        *out = value.as.s;
        return TQ_OK;
    }
    if (value.type == TQ_TV_UNDEFINED) return tq_tv_str_new(r, "", 0, true, false, out);
    tq_tv_builder b = {0};
    tq_tv text;
    TQ_TRY(repr(r, &b, value, 0));
    TQ_TRY(tq_tv_finish(r, &b, &text));
    *out = text.as.s;
    return TQ_OK;
}
