/* template_filters.c: filters that work on one value.  Those over sequences: template_sequences.c. */
#include "text/template_filters.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "text/template_text.h"

#define FILTER(name) static tq_status name(tq_render *r, tq_tv value, const tq_tv *slots, tq_tv *out)

static bool given(tq_tv v) { return v.type != TQ_TV_MISSING; }

tq_status tq_slot_int(tq_render *r, tq_tv slot, int64_t fallback, int64_t *out) {
    *out = fallback;
    if (!given(slot) || slot.type == TQ_TV_NONE) return TQ_OK;
    if (slot.type != TQ_TV_INT && slot.type != TQ_TV_BOOL) {
        return tq_render_fail(r, TQ_INVALID, "expected an integer, not '%s'", tq_tv_type_name(slot));
    }
    *out = slot.type == TQ_TV_INT ? slot.as.i : slot.as.b;
    return TQ_OK;
}

/* ---- text ---- */

static tq_status change_case(tq_render *r, tq_tv value, tq_text_case wanted, tq_tv *out) {
    const tq_tv_str *s;
    TQ_TRY(tq_tv_to_str(r, value, &s));
    return tq_text_change_case(r, s, wanted, out);
}

FILTER(filter_lower) { return (void)slots, change_case(r, value, TQ_CASE_LOWER, out); }
FILTER(filter_upper) { return (void)slots, change_case(r, value, TQ_CASE_UPPER, out); }
FILTER(filter_title) { return (void)slots, change_case(r, value, TQ_CASE_WORDS, out); }
FILTER(filter_capitalize) { return (void)slots, change_case(r, value, TQ_CASE_CAPITALIZE, out); }

FILTER(filter_string) {
    const tq_tv_str *s;
    (void)slots;
    TQ_TRY(tq_tv_to_str(r, value, &s));
    *out = tq_tv_string(s);
    return TQ_OK;
}

FILTER(filter_trim) {
    const tq_tv_str *s, *chars = NULL;
    TQ_TRY(tq_tv_to_str(r, value, &s));
    if (given(slots[0]) && slots[0].type != TQ_TV_NONE) {
        if (slots[0].type != TQ_TV_STR) return tq_render_fail(r, TQ_INVALID, "trim: chars is not a string");
        chars = slots[0].as.s;
    }
    return tq_text_strip(r, s, chars, TQ_STRIP_LEFT | TQ_STRIP_RIGHT, out);
}

FILTER(filter_replace) {
    const tq_tv_str *s, *old, *with;
    int64_t most;
    if (!given(slots[0]) || !given(slots[1])) return tq_render_fail(r, TQ_INVALID, "replace takes old and new");
    TQ_TRY(tq_tv_to_str(r, value, &s));
    TQ_TRY(tq_tv_to_str(r, slots[0], &old));
    TQ_TRY(tq_tv_to_str(r, slots[1], &with));
    TQ_TRY(tq_slot_int(r, slots[2], -1, &most));
    return tq_text_replace(r, s, old, with, most, out);
}

static tq_status put_times(tq_render *r, tq_tv_builder *b, const char *text, int64_t times) {
    for (int64_t i = 0; i < times; i++) {
        TQ_TRY(tq_render_charge(r, 1));
        TQ_TRY(tq_tv_put(r, b, text, strlen(text), true));
    }
    return TQ_OK;
}

FILTER(filter_indent) {
    const tq_tv_str *unit = NULL;
    int64_t width = 4;
    tq_tv_list *lines;
    tq_tv_builder text = {0};
    bool first = given(slots[1]) && tq_tv_truth(slots[1]), blank = given(slots[2]) && tq_tv_truth(slots[2]);
    if (value.type != TQ_TV_STR) return tq_render_fail(r, TQ_INVALID, "indent: not a string");
    if (given(slots[0]) && slots[0].type == TQ_TV_STR) unit = slots[0].as.s;
    else TQ_TRY(tq_slot_int(r, slots[0], 4, &width));
    TQ_TRY(tq_text_lines(r, value.as.s, false, &lines));
    /* Jinja adds a newline before it splits into lines: a text that ends in one keeps an empty line there. */
    const tq_tv_str *s = value.as.s, *empty;
    TQ_TRY(tq_tv_str_new(r, "", 0, true, false, &empty));
    tq_tv_list *ended;
    TQ_TRY(tq_text_lines(r, s, true, &ended));
    bool open = lines->n == 0;
    if (lines->n) {
        const tq_tv_str *kept = ended->items[lines->n - 1].as.s, *bare = lines->items[lines->n - 1].as.s;
        open = kept->n != bare->n && !(kept->n - bare->n == 1 && kept->bytes[kept->n - 1] == '\r');
    }
    if (open) TQ_TRY(tq_tv_list_add(r, lines, tq_tv_string(empty)));
    for (size_t i = 0; i < lines->n; i++) {
        const tq_tv_str *line = lines->items[i].as.s;
        if (i) TQ_TRY(tq_tv_put(r, &text, "\n", 1, true));
        bool wanted = i == 0 ? first : line->n > 0 || blank;
        if (wanted && unit) TQ_TRY(tq_tv_put_str(r, &text, unit));
        else if (wanted) TQ_TRY(put_times(r, &text, " ", width));
        TQ_TRY(tq_tv_put_str(r, &text, line));
    }
    return tq_tv_finish(r, &text, out);
}

FILTER(filter_center) {
    const tq_tv_str *s;
    int64_t width;
    tq_tv_builder text = {0};
    TQ_TRY(tq_tv_to_str(r, value, &s));
    TQ_TRY(tq_slot_int(r, slots[0], 80, &width));
    int64_t free_columns = width - (int64_t)s->n_chars;
    int64_t left = free_columns > 0 ? free_columns / 2 + (free_columns & width & 1) : 0;
    TQ_TRY(put_times(r, &text, " ", left));
    TQ_TRY(tq_tv_put_str(r, &text, s));
    TQ_TRY(put_times(r, &text, " ", free_columns - left));
    return tq_tv_finish(r, &text, out);
}

FILTER(filter_truncate) {
    const tq_tv_str *s, *end;
    int64_t length, leeway;
    tq_tv_builder text = {0};
    TQ_TRY(tq_tv_to_str(r, value, &s));
    TQ_TRY(tq_slot_int(r, slots[0], 255, &length));
    TQ_TRY(tq_slot_int(r, slots[3], 5, &leeway));
    TQ_TRY(tq_tv_str_new(r, "...", 3, true, false, &end));
    if (given(slots[2])) TQ_TRY(tq_tv_to_str(r, slots[2], &end));
    if (length < (int64_t)end->n_chars || leeway < 0) return tq_render_fail(r, TQ_INVALID, "truncate: too short");
    *out = tq_tv_string(s);
    if ((int64_t)s->n_chars <= length || (int64_t)s->n_chars - length <= leeway) return TQ_OK;
    size_t cut = tq_tv_str_offset(s, (size_t)length - end->n_chars);
    if (!given(slots[1]) || !tq_tv_truth(slots[1])) { /* back to the last space */
        for (size_t at = cut; at-- > 0;) {
            if (s->bytes[at] != ' ') continue;
            cut = at;
            break;
        }
    }
    TQ_TRY(tq_tv_put_part(r, &text, s, 0, cut));
    TQ_TRY(tq_tv_put_str(r, &text, end));
    return tq_tv_finish(r, &text, out);
}

FILTER(filter_wordcount) {
    const tq_tv_str *s;
    int64_t count = 0;
    bool inside = false;
    (void)slots;
    TQ_TRY(tq_tv_to_str(r, value, &s));
    TQ_TRY(tq_render_charge(r, s->n / 16));
    for (size_t at = 0; at < s->n; at += tq_utf8_width(s->bytes[at])) {
        uint32_t c = tq_utf8_decode(s->bytes + at);
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
        bool word = c == '_' || (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
                    (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
        count += word && !inside;
        inside = word;
    }
    *out = tq_tv_int(count);
    return TQ_OK;
}

FILTER(filter_escape) {
    const tq_tv_str *s;
    tq_tv_builder text = {0};
    (void)slots;
    TQ_TRY(tq_tv_to_str(r, value, &s));
    for (size_t at = 0; at < s->n; at++) {
        char c = s->bytes[at];
        const char *entity = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '\'' ? "&#39;" : "&#34;";
        if (c == '&' || c == '<' || c == '>' || c == '\'' || c == '"') {
            TQ_TRY(tq_tv_put(r, &text, entity, strlen(entity), false));
        } else {
            TQ_TRY(tq_tv_put_part(r, &text, s, at, at + 1));
        }
    }
    return tq_tv_finish(r, &text, out);
}

FILTER(filter_tojson) {
    tq_json_style style = {.indent = -1};
    tq_tv_builder text = {0};
    style.ensure_ascii = given(slots[0]) && tq_tv_truth(slots[0]);
    style.sort_keys = given(slots[3]) && tq_tv_truth(slots[3]);
    if (given(slots[1]) && slots[1].type == TQ_TV_STR) {
        style.indent_text = slots[1].as.s;
    } else {
        int64_t indent;
        TQ_TRY(tq_slot_int(r, slots[1], -1, &indent));
        bool none = !given(slots[1]) || slots[1].type == TQ_TV_NONE;
        style.indent = none ? -1 : indent < 0 ? 0 : indent > 1000 ? 1000 : (int)indent;
    }
    if (given(slots[2]) && slots[2].type != TQ_TV_NONE) {
        tq_tv_list *pair;
        TQ_TRY(tq_tv_iterate(r, slots[2], &pair));
        if (pair->n != 2 || pair->items[0].type != TQ_TV_STR || pair->items[1].type != TQ_TV_STR) {
            return tq_render_fail(r, TQ_INVALID, "tojson: separators are not two strings");
        }
        style.item_separator = pair->items[0].as.s;
        style.key_separator = pair->items[1].as.s;
    }
    TQ_TRY(tq_tv_to_json(r, &text, value, &style));
    return tq_tv_finish(r, &text, out);
}

/* ---- numbers ---- */

FILTER(filter_int) {
    tq_tv fallback = given(slots[0]) ? slots[0] : tq_tv_int(0);
    int64_t number, base;
    double real = NAN;
    if (value.type == TQ_TV_UNDEFINED) return tq_render_fail(r, TQ_INVALID, "int of an undefined value");
    TQ_TRY(tq_slot_int(r, slots[1], 10, &base));
    if (base != 10) return tq_render_fail(r, TQ_UNSUPPORTED, "int: a base other than 10");
    if (value.type == TQ_TV_STR && tq_text_to_int(value.as.s, &number)) return *out = tq_tv_int(number), TQ_OK;
    if (value.type == TQ_TV_STR && !tq_text_to_float(value.as.s, &real)) return *out = fallback, TQ_OK;
    if (value.type == TQ_TV_INT) return *out = value, TQ_OK;
    if (value.type == TQ_TV_BOOL) return *out = tq_tv_int(value.as.b), TQ_OK;
    if (value.type == TQ_TV_FLOAT) real = value.as.f;
    if (value.type == TQ_TV_FLOAT && isinf(real)) return tq_render_fail(r, TQ_INVALID, "int of infinity");
    *out = fallback;
    if (isnan(real) || isinf(real)) return TQ_OK;
    if (fabs(real) >= 0x1p63) return tq_render_fail(r, TQ_UNSUPPORTED, "an integer of more than 63 bits");
    *out = tq_tv_int((int64_t)real);
    return TQ_OK;
}

FILTER(filter_float) {
    double real;
    (void)r;
    if (value.type == TQ_TV_UNDEFINED) return tq_render_fail(r, TQ_INVALID, "float of an undefined value");
    *out = given(slots[0]) ? slots[0] : tq_tv_float(0);
    if (value.type == TQ_TV_STR && tq_text_to_float(value.as.s, &real)) *out = tq_tv_float(real);
    else if (value.type == TQ_TV_INT) *out = tq_tv_float((double)value.as.i);
    else if (value.type == TQ_TV_BOOL) *out = tq_tv_float(value.as.b);
    else if (value.type == TQ_TV_FLOAT) *out = value;
    return TQ_OK;
}

FILTER(filter_abs) {
    (void)slots;
    if (!tq_tv_is_number(value)) return tq_render_fail(r, TQ_INVALID, "abs of '%s'", tq_tv_type_name(value));
    if (value.type == TQ_TV_FLOAT) return *out = tq_tv_float(fabs(value.as.f)), TQ_OK;
    tq_tv zero = tq_tv_int(0);
    bool negative = value.type == TQ_TV_INT && value.as.i < 0;
    return tq_binary(r, negative ? TQ_OP_SUB : TQ_OP_ADD, zero, value, out);
}

FILTER(filter_round) {
    int64_t precision;
    const tq_tv_str *method = NULL;
    TQ_TRY(tq_slot_int(r, slots[0], 0, &precision));
    if (given(slots[1])) TQ_TRY(tq_tv_to_str(r, slots[1], &method));
    bool up = method && tq_tv_str_is(method, "ceil"), down = method && tq_tv_str_is(method, "floor");
    if (method && !up && !down && !tq_tv_str_is(method, "common")) {
        return tq_render_fail(r, TQ_INVALID, "round: method must be common, ceil or floor");
    }
    if (!tq_tv_is_number(value)) return tq_render_fail(r, TQ_INVALID, "round of '%s'", tq_tv_type_name(value));
    if (precision < -300 || precision > 300) return tq_render_fail(r, TQ_UNSUPPORTED, "round: precision");
    double real = value.type == TQ_TV_FLOAT ? value.as.f : value.type == TQ_TV_INT ? (double)value.as.i : value.as.b;
    double scale = pow(10, (double)precision);
    if (up || down) return *out = tq_tv_float((up ? ceil(real * scale) : floor(real * scale)) / scale), TQ_OK;
    if (value.type != TQ_TV_FLOAT && precision >= 0) {
        *out = tq_tv_int(value.type == TQ_TV_INT ? value.as.i : value.as.b);
        return TQ_OK;
    }
    if (precision < 0) {
        double unit = pow(10, (double)-precision);
        double rounded = rint(real / unit) * unit; /* halves to even */
        *out = value.type == TQ_TV_FLOAT ? tq_tv_float(rounded) : tq_tv_int((int64_t)rounded);
        return TQ_OK;
    }
    char text[700];
    if (!isfinite(real)) return *out = value, TQ_OK;
    snprintf(text, sizeof text, "%.*f", (int)precision, real); /* the decimal nearest to the exact binary value */
    char *point = strpbrk(text, ".,");
    if (point) *point = '.';
    *out = tq_tv_float(tq_parse_double(text, NULL));
    return TQ_OK;
}

/* ---- any ---- */

FILTER(filter_default) {
    bool by_truth = given(slots[1]) && tq_tv_truth(slots[1]);
    const tq_tv_str *empty;
    *out = value;
    if (value.type != TQ_TV_UNDEFINED && !(by_truth && !tq_tv_truth(value))) return TQ_OK;
    TQ_TRY(tq_tv_str_new(r, "", 0, true, false, &empty));
    *out = given(slots[0]) ? slots[0] : tq_tv_string(empty);
    return TQ_OK;
}

FILTER(filter_attr) {
    const tq_tv_str *name;
    if (!given(slots[0])) return tq_render_fail(r, TQ_INVALID, "attr takes a name");
    TQ_TRY(tq_tv_to_str(r, slots[0], &name));
    if (value.type == TQ_TV_DICT && !tq_find_method(value, name)) return *out = tq_tv_undefined(name), TQ_OK;
    return tq_get_attribute(r, value, name, out);
}

const tq_filter tq_value_filters[] = {
    {"lower", {0}, filter_lower, NULL},
    {"upper", {0}, filter_upper, NULL},
    {"title", {0}, filter_title, NULL},
    {"capitalize", {0}, filter_capitalize, NULL},
    {"string", {0}, filter_string, NULL},
    {"safe", {0}, filter_string, NULL},
    {"trim", {"chars"}, filter_trim, NULL},
    {"replace", {"old", "new", "count"}, filter_replace, NULL},
    {"indent", {"width", "first", "blank"}, filter_indent, NULL},
    {"center", {"width"}, filter_center, NULL},
    {"truncate", {"length", "killwords", "end", "leeway"}, filter_truncate, NULL},
    {"wordcount", {0}, filter_wordcount, NULL},
    {"escape", {0}, filter_escape, NULL},
    {"e", {0}, filter_escape, NULL},
    {"forceescape", {0}, filter_escape, NULL},
    {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, filter_tojson, NULL},
    {"int", {"default", "base"}, filter_int, NULL},
    {"float", {"default"}, filter_float, NULL},
    {"abs", {0}, filter_abs, NULL},
    {"round", {"precision", "method"}, filter_round, NULL},
    {"default", {"default_value", "boolean"}, filter_default, NULL},
    {"d", {"default_value", "boolean"}, filter_default, NULL},
    {"attr", {"name"}, filter_attr, NULL},
    {0},
};

static const tq_filter *find_filter(const tq_tv_str *name) {
    const tq_filter *const tables[] = {tq_value_filters, tq_sequence_filters};
    for (size_t t = 0; t < 2; t++) {
        for (const tq_filter *filter = tables[t]; filter->name; filter++) {
            if (tq_tv_str_is(name, filter->name)) return filter;
        }
    }
    return NULL;
}

bool tq_filter_exists(const tq_tv_str *name) { return find_filter(name) != NULL; }

tq_status tq_apply_filter(tq_render *r, const tq_tv_str *name, tq_tv value, const tq_args *args, tq_tv *out) {
    const tq_filter *filter = find_filter(name);
    if (!filter) {
        return tq_render_fail(r, TQ_UNSUPPORTED, "there is no filter %.*s", (int)(name->n < 80 ? name->n : 80),
                              name->bytes);
    }
    if (filter->apply_args) return filter->apply_args(r, value, args, out);
    tq_tv slots[tq_max_params];
    TQ_TRY(tq_args_bind(r, filter->name, args, filter->params, slots));
    return filter->apply(r, value, slots, out);
}
