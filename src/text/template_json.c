/* template_json.c: json.dumps() of template values: Python's separators, float texts and escapes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template_value.h"

typedef struct writer {
    tq_render *r;
    tq_tv_builder *b;
    const tq_json_style *style;
} writer;

/* What is read back as data is data, the punctuation included. */
static tq_status put(writer *w, const char *text, size_t n) { return tq_tv_put(w->r, w->b, text, n, false); }
static tq_status put_text(writer *w, const char *text) { return put(w, text, strlen(text)); }

static tq_status put_string(writer *w, const char *bytes, size_t n) {
    TQ_TRY(put_text(w, "\""));
    for (size_t at = 0, kept = 0; at <= n;) {
        uint32_t c = at < n ? tq_utf8_decode(bytes + at) : 0;
        size_t width = at < n ? tq_utf8_width(bytes[at]) : 1;
        bool plain = at < n && c >= 0x20 && c != '"' && c != '\\' && (c < 0x7f || !w->style->ensure_ascii);
        if (!plain || at == n) {
            if (at > kept) TQ_TRY(put(w, bytes + kept, at - kept));
            kept = at + width;
        }
        if (at < n && !plain) {
            char text[16];
            const char *brief = strchr("\"\"\\\\\nn\rr\tt\bb\ff", c && c < 0x80 ? (int)c : 'n');
            if (c == '"' || c == '\\' || (c && c < 0x20 && brief)) {
                snprintf(text, sizeof text, "\\%c", c == '"' || c == '\\' ? (char)c : brief[1]);
            } else if (c >= 0x10000) {
                unsigned high = 0xd800 + ((c - 0x10000) >> 10), low = 0xdc00 + ((c - 0x10000) & 0x3ff);
                snprintf(text, sizeof text, "\\u%04x\\u%04x", high, low);
            } else {
                snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
            }
            TQ_TRY(put_text(w, text));
        }
        at += width;
    }
    return put_text(w, "\"");
}

static tq_status put_break(writer *w, int level) {
    if (w->style->indent < 0 && !w->style->indent_text) return TQ_OK;
    TQ_TRY(put_text(w, "\n"));
    for (int i = 0; i < level; i++) {
        if (w->style->indent_text) TQ_TRY(put(w, w->style->indent_text->bytes, w->style->indent_text->n));
        for (int k = 0; !w->style->indent_text && k < w->style->indent; k++) TQ_TRY(put_text(w, " "));
    }
    return TQ_OK;
}

static tq_status put_separator(writer *w, const tq_tv_str *given, const char *usual) {
    return given ? put(w, given->bytes, given->n) : put_text(w, usual);
}

static tq_status put_value(writer *w, tq_tv value, int level);

static tq_status put_number(writer *w, tq_tv value) {
    char text[64];
    if (value.type == TQ_TV_INT) snprintf(text, sizeof text, "%lld", (long long)value.as.i);
    else if (isnan(value.as.f)) strcpy(text, "NaN");
    else if (isinf(value.as.f)) strcpy(text, value.as.f > 0 ? "Infinity" : "-Infinity");
    else tq_float_repr(value.as.f, text);
    return put_text(w, text);
}

static int by_key(const void *a, const void *b) {
    const tq_tv_str *x = ((const tq_tv *)a)->as.s, *y = ((const tq_tv *)b)->as.s;
    size_t n = x->n < y->n ? x->n : y->n;
    int c = n ? memcmp(x->bytes, y->bytes, n) : 0;
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* Keys of a dict in the order asked for. */
static tq_status order_keys(writer *w, const tq_tv_dict *dict, tq_tv **keys) {
    *keys = dict->keys;
    if (!w->style->sort_keys || dict->n == 0) return TQ_OK;
    for (size_t i = 0; i < dict->n; i++) {
        if (dict->keys[i].type != TQ_TV_STR) return tq_render_fail(w->r, TQ_INVALID, "tojson: keys that do not sort");
    }
    TQ_TRY(TQ_NEW(w->r, dict->n, keys));
    memcpy(*keys, dict->keys, dict->n * sizeof **keys);
    qsort(*keys, dict->n, sizeof **keys, by_key);
    return TQ_OK;
}

static tq_status put_key(writer *w, tq_tv key) {
    if (key.type == TQ_TV_STR) return put_string(w, key.as.s->bytes, key.as.s->n);
    if (key.type == TQ_TV_LIST) return tq_render_fail(w->r, TQ_INVALID, "tojson: a tuple cannot be a key");
    TQ_TRY(put_text(w, "\""));
    TQ_TRY(put_value(w, key, 0));
    return put_text(w, "\"");
}

static tq_status put_dict(writer *w, const tq_tv_dict *dict, int level) {
    const tq_json_style *style = w->style;
    bool broken = style->indent >= 0 || style->indent_text;
    tq_tv *keys;
    if (dict->n == 0) return put_text(w, "{}");
    TQ_TRY(order_keys(w, dict, &keys));
    TQ_TRY(put_text(w, "{"));
    for (size_t i = 0; i < dict->n; i++) {
        if (i) TQ_TRY(put_separator(w, style->item_separator, broken ? "," : ", "));
        TQ_TRY(put_break(w, level + 1));
        TQ_TRY(put_key(w, keys[i]));
        TQ_TRY(put_separator(w, style->key_separator, ": "));
        TQ_TRY(put_value(w, keys == dict->keys ? dict->values[i] : *tq_tv_dict_get(dict, keys[i]), level + 1));
    }
    TQ_TRY(put_break(w, level));
    return put_text(w, "}");
}

static tq_status put_list(writer *w, const tq_tv_list *list, int level) {
    bool broken = w->style->indent >= 0 || w->style->indent_text;
    if (list->n == 0) return put_text(w, "[]");
    TQ_TRY(put_text(w, "["));
    for (size_t i = 0; i < list->n; i++) {
        if (i) TQ_TRY(put_separator(w, w->style->item_separator, broken ? "," : ", "));
        TQ_TRY(put_break(w, level + 1));
        TQ_TRY(put_value(w, list->items[i], level + 1));
    }
    TQ_TRY(put_break(w, level));
    return put_text(w, "]");
}

static tq_status put_value(writer *w, tq_tv value, int level) {
    TQ_TRY(tq_render_charge(w->r, 1));
    if (level > 200) return tq_render_fail(w->r, TQ_INVALID, "tojson: a value nested too deeply");
    switch (value.type) {
    case TQ_TV_NONE: return put_text(w, "null");
    case TQ_TV_BOOL: return put_text(w, value.as.b ? "true" : "false");
    case TQ_TV_INT:
    case TQ_TV_FLOAT: return put_number(w, value);
    case TQ_TV_STR: return put_string(w, value.as.s->bytes, value.as.s->n);
    case TQ_TV_DICT: return put_dict(w, value.as.dict, level);
    case TQ_TV_LIST:
        if (value.as.list->kind <= TQ_TV_TUPLE) return put_list(w, value.as.list, level);
        break;
    default: break;
    }
    return tq_render_fail(w->r, TQ_INVALID, "tojson: a value of type %s is not JSON", tq_tv_type_name(value));
}

tq_status tq_tv_to_json(tq_render *r, tq_tv_builder *b, tq_tv value, const tq_json_style *style) {
    writer w = {r, b, style};
    return put_value(&w, value, 0);
}
