/* template_methods.c: methods of strings, dicts, lists and the loop.  Those that would change a value do not exist, as
 * in the sandbox that templates are written for. */
#include <string.h>
#include <utf8proc.h>

#include "text/template_ast.h"
#include "text/template_text.h"

#define METHOD(name)                                                                                                   \
    static tq_status name(tq_render *r, tq_tv self, const tq_args *args, const tq_tv *slots, tq_tv *out)

/* ---- arguments ---- */

static tq_status want_str(tq_render *r, tq_tv value, const tq_tv_str **out) {
    *out = value.type == TQ_TV_STR ? value.as.s : NULL;
    if (*out) return TQ_OK;
    return tq_render_fail(r, TQ_INVALID, "expected a string, not '%s'", tq_tv_type_name(value));
}

/* A string or none. */
static tq_status maybe_str(tq_render *r, tq_tv value, const tq_tv_str **out) {
    *out = NULL;
    return value.type == TQ_TV_MISSING || value.type == TQ_TV_NONE ? TQ_OK : want_str(r, value, out);
}

static tq_status want_int(tq_render *r, tq_tv value, int64_t fallback, int64_t *out) {
    *out = fallback;
    if (value.type == TQ_TV_MISSING) return TQ_OK;
    if (value.type != TQ_TV_INT && value.type != TQ_TV_BOOL) {
        return tq_render_fail(r, TQ_INVALID, "expected an integer, not '%s'", tq_tv_type_name(value));
    }
    *out = value.type == TQ_TV_INT ? value.as.i : value.as.b;
    return TQ_OK;
}

/* ---- strings ---- */

static tq_status strip(tq_render *r, tq_tv self, const tq_tv *slots, int sides, tq_tv *out) {
    const tq_tv_str *chars;
    TQ_TRY(maybe_str(r, slots[0], &chars));
    return tq_text_strip(r, self.as.s, chars, sides, out);
}

METHOD(str_strip) { return (void)args, strip(r, self, slots, TQ_STRIP_LEFT | TQ_STRIP_RIGHT, out); }
METHOD(str_lstrip) { return (void)args, strip(r, self, slots, TQ_STRIP_LEFT, out); }
METHOD(str_rstrip) { return (void)args, strip(r, self, slots, TQ_STRIP_RIGHT, out); }
METHOD(str_lower) { return (void)args, (void)slots, tq_text_change_case(r, self.as.s, TQ_CASE_LOWER, out); }
METHOD(str_upper) { return (void)args, (void)slots, tq_text_change_case(r, self.as.s, TQ_CASE_UPPER, out); }
METHOD(str_title) { return (void)args, (void)slots, tq_text_change_case(r, self.as.s, TQ_CASE_TITLE, out); }
METHOD(str_capitalize) { return (void)args, (void)slots, tq_text_change_case(r, self.as.s, TQ_CASE_CAPITALIZE, out); }

static tq_status split(tq_render *r, tq_tv self, const tq_tv *slots, bool from_right, tq_tv *out) {
    const tq_tv_str *separator;
    int64_t most;
    TQ_TRY(maybe_str(r, slots[0], &separator));
    TQ_TRY(want_int(r, slots[1], -1, &most));
    return tq_text_split(r, self.as.s, separator, most, from_right, out);
}

METHOD(str_split) { return (void)args, split(r, self, slots, false, out); }
METHOD(str_rsplit) { return (void)args, split(r, self, slots, true, out); }

METHOD(str_splitlines) {
    tq_tv_list *lines;
    (void)args;
    TQ_TRY(tq_text_lines(r, self.as.s, slots[0].type != TQ_TV_MISSING && tq_tv_truth(slots[0]), &lines));
    *out = tq_tv_of_list(lines);
    return TQ_OK;
}

static bool has_affix(const tq_tv_str *s, const tq_tv_str *affix, bool at_end) {
    if (affix->n > s->n) return false;
    return !affix->n || memcmp(s->bytes + (at_end ? s->n - affix->n : 0), affix->bytes, affix->n) == 0;
}

static tq_status test_affix(tq_render *r, tq_tv self, tq_tv affix, bool at_end, tq_tv *out) {
    const tq_tv_str *part;
    *out = tq_tv_bool(false);
    if (affix.type == TQ_TV_LIST && affix.as.list->kind == TQ_TV_TUPLE) {
        for (size_t i = 0; i < affix.as.list->n; i++) {
            TQ_TRY(want_str(r, affix.as.list->items[i], &part));
            if (has_affix(self.as.s, part, at_end)) *out = tq_tv_bool(true);
        }
        return TQ_OK;
    }
    TQ_TRY(want_str(r, affix, &part));
    *out = tq_tv_bool(has_affix(self.as.s, part, at_end));
    return TQ_OK;
}

METHOD(str_startswith) { return (void)args, test_affix(r, self, slots[0], false, out); }
METHOD(str_endswith) { return (void)args, test_affix(r, self, slots[0], true, out); }

static tq_status remove_affix(tq_render *r, tq_tv self, tq_tv affix, bool at_end, tq_tv *out) {
    const tq_tv_str *part, *s = self.as.s;
    TQ_TRY(want_str(r, affix, &part));
    *out = self;
    if (!has_affix(s, part, at_end)) return TQ_OK;
    TQ_TRY(tq_tv_str_part(r, s, at_end ? 0 : part->n, at_end ? s->n - part->n : s->n, &s));
    *out = tq_tv_string(s);
    return TQ_OK;
}

METHOD(str_removeprefix) { return (void)args, remove_affix(r, self, slots[0], false, out); }
METHOD(str_removesuffix) { return (void)args, remove_affix(r, self, slots[0], true, out); }

METHOD(str_replace) {
    const tq_tv_str *old, *with;
    int64_t most;
    (void)args;
    TQ_TRY(want_str(r, slots[0], &old));
    TQ_TRY(want_str(r, slots[1], &with));
    TQ_TRY(want_int(r, slots[2], -1, &most));
    return tq_text_replace(r, self.as.s, old, with, most, out);
}

static tq_status find(tq_render *r, tq_tv self, tq_tv wanted, bool last, tq_tv *out) {
    const tq_tv_str *part, *s = self.as.s;
    TQ_TRY(want_str(r, wanted, &part));
    TQ_TRY(tq_render_charge(r, s->n / 64));
    size_t at = last ? tq_text_find_last(s, part) : tq_text_find(s, part, 0);
    int64_t index = 0;
    for (size_t i = 0; at != SIZE_MAX && i < at; i++) index += ((unsigned char)s->bytes[i] & 0xc0) != 0x80;
    *out = tq_tv_int(at == SIZE_MAX ? -1 : index);
    return TQ_OK;
}

METHOD(str_find) { return (void)args, find(r, self, slots[0], false, out); }
METHOD(str_rfind) { return (void)args, find(r, self, slots[0], true, out); }

METHOD(str_index) {
    (void)args;
    TQ_TRY(find(r, self, slots[0], false, out));
    return out->as.i < 0 ? tq_render_fail(r, TQ_INVALID, "index: substring not found") : TQ_OK;
}

METHOD(str_count) {
    const tq_tv_str *part, *s = self.as.s;
    int64_t count = 0;
    (void)args;
    TQ_TRY(want_str(r, slots[0], &part));
    TQ_TRY(tq_render_charge(r, s->n / 16));
    if (part->n == 0) count = (int64_t)s->n_chars + 1;
    for (size_t at = 0; part->n && (at = tq_text_find(s, part, at)) != SIZE_MAX; at += part->n) count++;
    *out = tq_tv_int(count);
    return TQ_OK;
}

METHOD(str_join) {
    tq_tv_list *items;
    (void)args;
    if (slots[0].type == TQ_TV_MISSING) return tq_render_fail(r, TQ_INVALID, "join takes one argument");
    TQ_TRY(tq_tv_iterate(r, slots[0], &items));
    return tq_text_join(r, self.as.s, items, true, out);
}

/* Every character (and at least one) is of these categories. */
static tq_status all_of(tq_render *r, const tq_tv_str *s, bool letters, bool digits, bool spaces, tq_tv *out) {
    TQ_TRY(tq_render_charge(r, s->n / 16));
    *out = tq_tv_bool(s->n > 0);
    for (size_t at = 0; at < s->n; at += tq_utf8_width(s->bytes[at])) {
        uint32_t c = tq_utf8_decode(s->bytes + at);
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
        bool fits = (letters && category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
                    (digits && category == UTF8PROC_CATEGORY_ND) || (spaces && tq_tv_is_space(c));
        if (!fits) *out = tq_tv_bool(false);
    }
    return TQ_OK;
}

METHOD(str_isalpha) { return (void)args, (void)slots, all_of(r, self.as.s, true, false, false, out); }
METHOD(str_isdigit) { return (void)args, (void)slots, all_of(r, self.as.s, false, true, false, out); }
METHOD(str_isalnum) { return (void)args, (void)slots, all_of(r, self.as.s, true, true, false, out); }
METHOD(str_isspace) { return (void)args, (void)slots, all_of(r, self.as.s, false, false, true, out); }

static tq_status test_case(tq_render *r, tq_tv self, const char *name, tq_tv *out) {
    tq_tv_str test = {.bytes = name, .n = 5};
    tq_args none = {0};
    bool holds;
    TQ_TRY(tq_apply_test(r, &test, self, &none, &holds));
    *out = tq_tv_bool(holds);
    return TQ_OK;
}

METHOD(str_isupper) { return (void)args, (void)slots, test_case(r, self, "upper", out); }
METHOD(str_islower) { return (void)args, (void)slots, test_case(r, self, "lower", out); }

/* ---- dicts and lists ---- */

METHOD(dict_get) {
    (void)args;
    if (slots[0].type == TQ_TV_MISSING) return tq_render_fail(r, TQ_INVALID, "get takes a key");
    if (slots[0].type == TQ_TV_DICT || (slots[0].type == TQ_TV_LIST && slots[0].as.list->kind != TQ_TV_TUPLE)) {
        return tq_render_fail(r, TQ_INVALID, "unhashable type: '%s'", tq_tv_type_name(slots[0]));
    }
    TQ_TRY(tq_render_charge(r, self.as.dict->n / 64));
    const tq_tv *member = tq_tv_dict_get(self.as.dict, slots[0]);
    *out = member ? *member : slots[1].type == TQ_TV_MISSING ? tq_tv_none() : slots[1];
    return TQ_OK;
}

static tq_status view(tq_render *r, tq_tv self, tq_tv_list_kind kind, tq_tv *out) {
    tq_tv_list *list;
    TQ_TRY(tq_tv_list_new(r, kind, &list));
    *out = tq_tv_of_list(list);
    for (size_t i = 0; i < self.as.dict->n; i++) {
        tq_tv item = kind == TQ_TV_KEYS ? self.as.dict->keys[i] : self.as.dict->values[i];
        TQ_TRY(tq_render_charge(r, 1));
        if (kind == TQ_TV_ITEMS) {
            tq_tv_list *pair;
            TQ_TRY(tq_tv_list_new(r, TQ_TV_TUPLE, &pair));
            TQ_TRY(tq_tv_list_add(r, pair, self.as.dict->keys[i]));
            TQ_TRY(tq_tv_list_add(r, pair, item));
            item = tq_tv_of_list(pair);
        }
        TQ_TRY(tq_tv_list_add(r, list, item));
    }
    return TQ_OK;
}

METHOD(dict_items) { return (void)args, (void)slots, view(r, self, TQ_TV_ITEMS, out); }
METHOD(dict_keys) { return (void)args, (void)slots, view(r, self, TQ_TV_KEYS, out); }
METHOD(dict_values) { return (void)args, (void)slots, view(r, self, TQ_TV_VALUES, out); }

METHOD(dict_copy) {
    (void)args, (void)slots;
    tq_tv_dict *copy;
    TQ_TRY(tq_tv_dict_new(r, &copy));
    for (size_t i = 0; i < self.as.dict->n; i++) {
        TQ_TRY(tq_tv_dict_set(r, copy, self.as.dict->keys[i], self.as.dict->values[i]));
    }
    *out = (tq_tv){.type = TQ_TV_DICT, .as.dict = copy};
    return TQ_OK;
}

static tq_status search(tq_render *r, tq_tv self, tq_tv wanted, int64_t *first, int64_t *count) {
    *first = -1, *count = 0;
    if (wanted.type == TQ_TV_MISSING || self.as.list->kind > TQ_TV_TUPLE) {
        return tq_render_fail(r, TQ_INVALID, "a method that does not exist, or without its argument");
    }
    for (size_t i = 0; i < self.as.list->n; i++) {
        bool same;
        TQ_TRY(tq_tv_equal(r, self.as.list->items[i], wanted, &same));
        if (same && *first < 0) *first = (int64_t)i;
        *count += same;
    }
    return TQ_OK;
}

METHOD(list_index) {
    int64_t first, count;
    (void)args;
    TQ_TRY(search(r, self, slots[0], &first, &count));
    *out = tq_tv_int(first);
    return first < 0 ? tq_render_fail(r, TQ_INVALID, "index: value is not in list") : TQ_OK;
}

METHOD(list_count) {
    int64_t first, count;
    (void)args;
    TQ_TRY(search(r, self, slots[0], &first, &count));
    *out = tq_tv_int(count);
    return TQ_OK;
}

/* ---- the loop ---- */

METHOD(loop_cycle) {
    (void)slots;
    if (args->n == 0) return tq_render_fail(r, TQ_INVALID, "cycle: nothing to choose from");
    *out = args->values[self.as.loop->index % args->n];
    return TQ_OK;
}

METHOD(loop_changed) {
    tq_tv_list *now;
    tq_tv_loop *loop = self.as.loop;
    bool same = false;
    (void)slots;
    TQ_TRY(tq_tv_list_new(r, TQ_TV_TUPLE, &now));
    for (size_t i = 0; i < args->n; i++) TQ_TRY(tq_tv_list_add(r, now, args->values[i]));
    if (loop->last_changed.type != TQ_TV_MISSING) {
        TQ_TRY(tq_tv_equal(r, loop->last_changed, tq_tv_of_list(now), &same));
    }
    loop->last_changed = tq_tv_of_list(now);
    *out = tq_tv_bool(!same);
    return TQ_OK;
}

static const tq_method methods[] = {
    {"strip", TQ_TV_STR, {"chars"}, str_strip},
    {"lstrip", TQ_TV_STR, {"chars"}, str_lstrip},
    {"rstrip", TQ_TV_STR, {"chars"}, str_rstrip},
    {"lower", TQ_TV_STR, {0}, str_lower},
    {"upper", TQ_TV_STR, {0}, str_upper},
    {"title", TQ_TV_STR, {0}, str_title},
    {"capitalize", TQ_TV_STR, {0}, str_capitalize},
    {"split", TQ_TV_STR, {"sep", "maxsplit"}, str_split},
    {"rsplit", TQ_TV_STR, {"sep", "maxsplit"}, str_rsplit},
    {"splitlines", TQ_TV_STR, {"keepends"}, str_splitlines},
    {"startswith", TQ_TV_STR, {"prefix"}, str_startswith},
    {"endswith", TQ_TV_STR, {"suffix"}, str_endswith},
    {"removeprefix", TQ_TV_STR, {"prefix"}, str_removeprefix},
    {"removesuffix", TQ_TV_STR, {"suffix"}, str_removesuffix},
    {"replace", TQ_TV_STR, {"old", "new", "count"}, str_replace},
    {"find", TQ_TV_STR, {"sub"}, str_find},
    {"rfind", TQ_TV_STR, {"sub"}, str_rfind},
    {"index", TQ_TV_STR, {"sub"}, str_index},
    {"count", TQ_TV_STR, {"sub"}, str_count},
    {"join", TQ_TV_STR, {"iterable"}, str_join},
    {"isalpha", TQ_TV_STR, {0}, str_isalpha},
    {"isdigit", TQ_TV_STR, {0}, str_isdigit},
    {"isalnum", TQ_TV_STR, {0}, str_isalnum},
    {"isspace", TQ_TV_STR, {0}, str_isspace},
    {"isupper", TQ_TV_STR, {0}, str_isupper},
    {"islower", TQ_TV_STR, {0}, str_islower},
    {"get", TQ_TV_DICT, {"key", "default"}, dict_get},
    {"items", TQ_TV_DICT, {0}, dict_items},
    {"keys", TQ_TV_DICT, {0}, dict_keys},
    {"values", TQ_TV_DICT, {0}, dict_values},
    {"copy", TQ_TV_DICT, {0}, dict_copy},
    {"index", TQ_TV_LIST, {"value"}, list_index},
    {"count", TQ_TV_LIST, {"value"}, list_count},
    {"cycle", TQ_TV_LOOP, {"*"}, loop_cycle},
    {"changed", TQ_TV_LOOP, {"*"}, loop_changed},
};

const tq_method *tq_find_method(tq_tv self, const tq_tv_str *name) {
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (methods[i].type == self.type && tq_tv_str_is(name, methods[i].name)) return &methods[i];
    }
    return NULL;
}
