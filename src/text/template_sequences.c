/* template_sequences.c: filters over sequences and mappings. */
#include <string.h>

#include "text/template_filters.h"
#include "text/template_text.h"

#define FILTER(name) static tq_status name(tq_render *r, tq_tv value, const tq_tv *slots, tq_tv *out)

static bool given(tq_tv v) { return v.type != TQ_TV_MISSING; }
static bool flag(tq_tv slot) { return given(slot) && tq_tv_truth(slot); }

/* ---- keys to look at items by ---- */

static tq_status one_part(tq_render *r, tq_tv *item, const tq_tv_str *part) {
    int64_t number;
    bool digits = part->n > 0;
    for (size_t i = 0; i < part->n; i++) digits = digits && part->bytes[i] >= '0' && part->bytes[i] <= '9';
    tq_tv key = digits && tq_text_to_int(part, &number) ? tq_tv_int(number) : tq_tv_string(part);
    return tq_get_item(r, *item, key, item);
}

/* item.a.b for the attribute "a.b"; the item itself without an attribute. */
static tq_status get_by(tq_render *r, tq_tv item, tq_tv attribute, tq_tv fallback, tq_tv *out) {
    *out = item;
    TQ_TRY(tq_render_charge(r, 1));
    if (!given(attribute) || attribute.type == TQ_TV_NONE) return TQ_OK;
    if (attribute.type != TQ_TV_STR) return tq_get_item(r, item, attribute, out);
    const tq_tv_str *path = attribute.as.s, *part;
    for (size_t from = 0; from <= path->n;) {
        const char *dot = from < path->n ? memchr(path->bytes + from, '.', path->n - from) : NULL;
        size_t to = dot ? (size_t)(dot - path->bytes) : path->n;
        TQ_TRY(tq_tv_str_part(r, path, from, to, &part));
        TQ_TRY(one_part(r, out, part));
        if (out->type == TQ_TV_UNDEFINED && given(fallback) && fallback.type != TQ_TV_NONE) *out = fallback;
        from = to + 1;
    }
    return TQ_OK;
}

/* The key that sorting and comparing go by: letters without their case, unless that matters. */
static tq_status sort_key(tq_render *r, tq_tv item, tq_tv attribute, bool with_case, tq_tv *out) {
    TQ_TRY(get_by(r, item, attribute, tq_tv_none(), out));
    if (with_case || out->type != TQ_TV_STR) return TQ_OK;
    return tq_text_change_case(r, out->as.s, TQ_CASE_LOWER, out);
}

/* Merge sort, stable; backwards keeps equals in their order too, as Python's reverse=True does. */
static tq_status merge_sort(tq_render *r, tq_tv *keys, tq_tv *items, tq_tv *work, size_t n, bool backwards) {
    if (n < 2) return TQ_OK;
    size_t half = n / 2, a = 0, b = half;
    TQ_TRY(merge_sort(r, keys, items, work, half, backwards));
    TQ_TRY(merge_sort(r, keys + half, items + half, work, n - half, backwards));
    for (size_t i = 0; i < n; i++) {
        bool second = a == half;
        if (a < half && b < n) {
            int order;
            TQ_TRY(tq_tv_compare(r, keys[b], keys[a], &order));
            second = backwards ? order > 0 : order < 0;
        }
        size_t from = second ? b++ : a++;
        work[2 * i] = keys[from], work[2 * i + 1] = items[from];
    }
    for (size_t i = 0; i < n; i++) keys[i] = work[2 * i], items[i] = work[2 * i + 1];
    return TQ_OK;
}

static tq_status sort_items(tq_render *r, const tq_tv_list *from, tq_tv attribute, bool with_case, bool backwards,
                            tq_tv *out) {
    tq_tv_list *list;
    tq_tv *keys, *work;
    TQ_TRY(tq_tv_list_new(r, TQ_TV_PLAIN_LIST, &list));
    TQ_TRY(TQ_NEW(r, from->n, &keys));
    TQ_TRY(TQ_NEW(r, 2 * from->n, &work));
    for (size_t i = 0; i < from->n; i++) {
        TQ_TRY(tq_tv_list_add(r, list, from->items[i]));
        TQ_TRY(sort_key(r, from->items[i], attribute, with_case, &keys[i]));
    }
    TQ_TRY(merge_sort(r, keys, list->items, work, list->n, backwards));
    *out = tq_tv_of_list(list);
    return TQ_OK;
}

FILTER(filter_sort) {
    tq_tv_list *items;
    TQ_TRY(tq_tv_iterate(r, value, &items));
    return sort_items(r, items, slots[2], flag(slots[1]), flag(slots[0]), out);
}

static tq_status item_pairs(tq_render *r, tq_tv value, tq_tv_list_kind kind, tq_tv_list **out) {
    if (value.type != TQ_TV_DICT) return tq_render_fail(r, TQ_INVALID, "'%s' is not a mapping", tq_tv_type_name(value));
    TQ_TRY(tq_tv_list_new(r, kind, out));
    for (size_t i = 0; i < value.as.dict->n; i++) {
        tq_tv_list *pair;
        TQ_TRY(tq_render_charge(r, 1));
        TQ_TRY(tq_tv_list_new(r, TQ_TV_TUPLE, &pair));
        TQ_TRY(tq_tv_list_add(r, pair, value.as.dict->keys[i]));
        TQ_TRY(tq_tv_list_add(r, pair, value.as.dict->values[i]));
        TQ_TRY(tq_tv_list_add(r, *out, tq_tv_of_list(pair)));
    }
    return TQ_OK;
}

FILTER(filter_dictsort) {
    tq_tv_list *pairs;
    int64_t by = 0;
    if (given(slots[1])) {
        bool by_value = slots[1].type == TQ_TV_STR && tq_tv_str_is(slots[1].as.s, "value");
        bool by_key = slots[1].type == TQ_TV_STR && tq_tv_str_is(slots[1].as.s, "key");
        if (!by_value && !by_key) return tq_render_fail(r, TQ_INVALID, "dictsort: by must be key or value");
        by = by_value;
    }
    TQ_TRY(item_pairs(r, value, TQ_TV_PLAIN_LIST, &pairs));
    return sort_items(r, pairs, tq_tv_int(by), flag(slots[0]), flag(slots[2]), out);
}

FILTER(filter_items) {
    tq_tv_list *pairs;
    (void)slots;
    if (value.type == TQ_TV_UNDEFINED) TQ_TRY(tq_tv_list_new(r, TQ_TV_GENERATOR, &pairs));
    else TQ_TRY(item_pairs(r, value, TQ_TV_GENERATOR, &pairs));
    *out = tq_tv_of_list(pairs);
    return TQ_OK;
}

/* ---- whole sequences ---- */

FILTER(filter_length) {
    (void)slots;
    switch (value.type) {
    case TQ_TV_UNDEFINED: *out = tq_tv_int(0); return TQ_OK;
    case TQ_TV_STR: *out = tq_tv_int((int64_t)value.as.s->n_chars); return TQ_OK;
    case TQ_TV_DICT: *out = tq_tv_int((int64_t)value.as.dict->n); return TQ_OK;
    case TQ_TV_LOOP: *out = tq_tv_int((int64_t)value.as.loop->items->n); return TQ_OK;
    case TQ_TV_LIST:
        if (value.as.list->kind != TQ_TV_GENERATOR) return *out = tq_tv_int((int64_t)value.as.list->n), TQ_OK;
        break;
    default: break;
    }
    return tq_render_fail(r, TQ_INVALID, "'%s' has no length", tq_tv_type_name(value));
}

static tq_status copy_list(tq_render *r, tq_tv value, tq_tv_list_kind kind, bool backwards, tq_tv *out) {
    tq_tv_list *items, *list;
    TQ_TRY(tq_tv_iterate(r, value, &items));
    TQ_TRY(tq_tv_list_new(r, kind, &list));
    TQ_TRY(tq_render_charge(r, items->n / 8));
    for (size_t i = 0; i < items->n; i++) {
        TQ_TRY(tq_tv_list_add(r, list, items->items[backwards ? items->n - 1 - i : i]));
    }
    *out = tq_tv_of_list(list);
    return TQ_OK;
}

FILTER(filter_list) { return (void)slots, copy_list(r, value, TQ_TV_PLAIN_LIST, false, out); }

FILTER(filter_reverse) {
    (void)slots;
    if (value.type == TQ_TV_STR) return tq_slice(r, value, tq_tv_none(), tq_tv_none(), tq_tv_int(-1), out);
    bool generator = value.type == TQ_TV_LIST && value.as.list->kind == TQ_TV_GENERATOR;
    bool undefined = value.type == TQ_TV_UNDEFINED;
    return copy_list(r, value, generator || undefined ? TQ_TV_PLAIN_LIST : TQ_TV_GENERATOR, true, out);
}

FILTER(filter_first) {
    tq_tv_list *items;
    (void)slots;
    if (value.type == TQ_TV_LIST && value.as.list->kind == TQ_TV_GENERATOR) {
        tq_tv_list *generator = value.as.list;
        *out = tq_tv_undefined(NULL);
        if (generator->n) *out = *generator->items++, generator->cap = --generator->n;
        return TQ_OK;
    }
    TQ_TRY(tq_tv_iterate(r, value, &items));
    *out = items->n ? items->items[0] : tq_tv_undefined(NULL);
    return TQ_OK;
}

FILTER(filter_last) {
    tq_tv_list *items;
    (void)slots;
    bool generator = value.type == TQ_TV_LIST && value.as.list->kind == TQ_TV_GENERATOR;
    if (generator || value.type == TQ_TV_UNDEFINED) {
        return tq_render_fail(r, TQ_INVALID, "last: '%s' is not reversible", tq_tv_type_name(value));
    }
    TQ_TRY(tq_tv_iterate(r, value, &items));
    *out = items->n ? items->items[items->n - 1] : tq_tv_undefined(NULL);
    return TQ_OK;
}

FILTER(filter_join) {
    tq_tv_list *items;
    const tq_tv_str *separator;
    TQ_TRY(tq_tv_str_new(r, "", 0, true, false, &separator));
    if (given(slots[0])) TQ_TRY(tq_tv_to_str(r, slots[0], &separator));
    TQ_TRY(tq_tv_iterate(r, value, &items));
    if (given(slots[1]) && slots[1].type != TQ_TV_NONE) {
        tq_tv_list *texts;
        TQ_TRY(tq_tv_list_new(r, TQ_TV_PLAIN_LIST, &texts));
        for (size_t i = 0; i < items->n; i++) {
            tq_tv item;
            TQ_TRY(get_by(r, items->items[i], slots[1], tq_tv_none(), &item));
            TQ_TRY(tq_tv_list_add(r, texts, item));
        }
        items = texts;
    }
    return tq_text_join(r, separator, items, false, out);
}

FILTER(filter_sum) {
    tq_tv_list *items;
    TQ_TRY(tq_tv_iterate(r, value, &items));
    *out = given(slots[1]) ? slots[1] : tq_tv_int(0);
    if (out->type == TQ_TV_STR) return tq_render_fail(r, TQ_INVALID, "sum cannot add strings");
    for (size_t i = 0; i < items->n; i++) {
        tq_tv item;
        TQ_TRY(get_by(r, items->items[i], slots[0], tq_tv_none(), &item));
        TQ_TRY(tq_binary(r, TQ_OP_ADD, *out, item, out));
    }
    return TQ_OK;
}

static tq_status extreme(tq_render *r, tq_tv value, const tq_tv *slots, int wanted, tq_tv *out) {
    tq_tv_list *items;
    tq_tv best, key;
    TQ_TRY(tq_tv_iterate(r, value, &items));
    *out = tq_tv_undefined(NULL);
    for (size_t i = 0; i < items->n; i++) {
        int order = wanted;
        TQ_TRY(sort_key(r, items->items[i], slots[1], flag(slots[0]), &key));
        if (i) TQ_TRY(tq_tv_compare(r, key, best, &order));
        if (order == wanted) best = key, *out = items->items[i];
    }
    return TQ_OK;
}

FILTER(filter_min) { return extreme(r, value, slots, -1, out); }
FILTER(filter_max) { return extreme(r, value, slots, 1, out); }

FILTER(filter_unique) {
    tq_tv_list *items, *list, *keys;
    TQ_TRY(tq_tv_iterate(r, value, &items));
    TQ_TRY(tq_tv_list_new(r, TQ_TV_GENERATOR, &list));
    TQ_TRY(tq_tv_list_new(r, TQ_TV_PLAIN_LIST, &keys));
    for (size_t i = 0; i < items->n; i++) {
        tq_tv key;
        bool seen;
        TQ_TRY(sort_key(r, items->items[i], slots[1], flag(slots[0]), &key));
        TQ_TRY(tq_contains(r, tq_tv_of_list(keys), key, &seen));
        if (seen) continue;
        TQ_TRY(tq_tv_list_add(r, keys, key));
        TQ_TRY(tq_tv_list_add(r, list, items->items[i]));
    }
    *out = tq_tv_of_list(list);
    return TQ_OK;
}

FILTER(filter_batch) {
    tq_tv_list *items, *list, *row = NULL;
    int64_t width;
    TQ_TRY(tq_slot_int(r, slots[0], 0, &width));
    if (width < 1 || width > 100000) return tq_render_fail(r, TQ_INVALID, "batch: a width of %lld", (long long)width);
    TQ_TRY(tq_tv_iterate(r, value, &items));
    TQ_TRY(tq_tv_list_new(r, TQ_TV_GENERATOR, &list));
    for (size_t i = 0; i < items->n; i++) {
        if (!row || row->n == (size_t)width) {
            TQ_TRY(tq_tv_list_new(r, TQ_TV_PLAIN_LIST, &row));
            TQ_TRY(tq_tv_list_add(r, list, tq_tv_of_list(row)));
        }
        TQ_TRY(tq_tv_list_add(r, row, items->items[i]));
    }
    bool fill = given(slots[1]) && slots[1].type != TQ_TV_NONE;
    while (row && fill && row->n < (size_t)width) TQ_TRY(tq_tv_list_add(r, row, slots[1]));
    *out = tq_tv_of_list(list);
    return TQ_OK;
}

/* ---- map, select and their kin ---- */

/* The arguments that follow the first `skip`. */
static tq_args rest_of(const tq_args *args, size_t skip) {
    return (tq_args){args->values + skip, args->n - skip, args->n_named, args->names};
}

static tq_status want_name(tq_render *r, const tq_args *args, size_t at, const tq_tv_str **name) {
    if (args->n <= at || args->values[at].type != TQ_TV_STR) {
        return tq_render_fail(r, TQ_INVALID, "a filter is missing the name of a filter, test or attribute");
    }
    *name = args->values[at].as.s;
    return TQ_OK;
}

static tq_status filter_map(tq_render *r, tq_tv value, const tq_args *args, tq_tv *out) {
    static const char *const params[] = {"attribute", "default", NULL};
    tq_tv_list *items, *list;
    tq_tv slots[2];
    const tq_tv_str *name = NULL;
    tq_args rest = {0};
    bool by_attribute = args->n == 0;
    if (by_attribute) {
        TQ_TRY(tq_args_bind(r, "map", args, params, slots));
        if (!given(slots[0])) return tq_render_fail(r, TQ_INVALID, "map takes a filter or an attribute");
    } else {
        TQ_TRY(want_name(r, args, 0, &name));
        rest = rest_of(args, 1);
    }
    TQ_TRY(tq_tv_iterate(r, value, &items));
    TQ_TRY(tq_tv_list_new(r, TQ_TV_GENERATOR, &list));
    for (size_t i = 0; i < items->n; i++) {
        tq_tv item;
        TQ_TRY(tq_render_charge(r, 1));
        if (by_attribute) TQ_TRY(get_by(r, items->items[i], slots[0], slots[1], &item));
        else TQ_TRY(tq_apply_filter(r, name, items->items[i], &rest, &item));
        TQ_TRY(tq_tv_list_add(r, list, item));
    }
    *out = tq_tv_of_list(list);
    return TQ_OK;
}

static tq_status choose(tq_render *r, tq_tv value, const tq_args *args, bool by_attribute, bool wanted, tq_tv *out) {
    tq_tv_list *items, *list;
    const tq_tv_str *test = NULL;
    tq_tv attribute = {.type = TQ_TV_MISSING};
    size_t used = by_attribute;
    tq_args rest = {0};
    if (by_attribute) {
        if (args->n == 0) return tq_render_fail(r, TQ_INVALID, "missing the name of an attribute");
        attribute = args->values[0];
    }
    if (args->n > used) {
        TQ_TRY(want_name(r, args, used, &test));
        rest = rest_of(args, used + 1);
    }
    TQ_TRY(tq_tv_iterate(r, value, &items));
    TQ_TRY(tq_tv_list_new(r, TQ_TV_GENERATOR, &list));
    for (size_t i = 0; i < items->n; i++) {
        tq_tv key;
        TQ_TRY(get_by(r, items->items[i], attribute, tq_tv_none(), &key));
        bool holds = tq_tv_truth(key);
        if (test) TQ_TRY(tq_apply_test(r, test, key, &rest, &holds));
        if (holds == wanted) TQ_TRY(tq_tv_list_add(r, list, items->items[i]));
    }
    *out = tq_tv_of_list(list);
    return TQ_OK;
}

#define CHOICE(name, by_attribute, wanted)                                                                             \
    static tq_status name(tq_render *r, tq_tv value, const tq_args *args, tq_tv *out) {                                \
        return choose(r, value, args, by_attribute, wanted, out);                                                      \
    }

CHOICE(filter_select, false, true)
CHOICE(filter_reject, false, false)
CHOICE(filter_selectattr, true, true)
CHOICE(filter_rejectattr, true, false)

const tq_filter tq_sequence_filters[] = {
    {"length", {0}, filter_length, NULL},
    {"count", {0}, filter_length, NULL},
    {"list", {0}, filter_list, NULL},
    {"reverse", {0}, filter_reverse, NULL},
    {"first", {0}, filter_first, NULL},
    {"last", {0}, filter_last, NULL},
    {"join", {"d", "attribute"}, filter_join, NULL},
    {"sum", {"attribute", "start"}, filter_sum, NULL},
    {"min", {"case_sensitive", "attribute"}, filter_min, NULL},
    {"max", {"case_sensitive", "attribute"}, filter_max, NULL},
    {"unique", {"case_sensitive", "attribute"}, filter_unique, NULL},
    {"batch", {"linecount", "fill_with"}, filter_batch, NULL},
    {"sort", {"reverse", "case_sensitive", "attribute"}, filter_sort, NULL},
    {"dictsort", {"case_sensitive", "by", "reverse"}, filter_dictsort, NULL},
    {"items", {0}, filter_items, NULL},
    {"map", {0}, NULL, filter_map},
    {"select", {0}, NULL, filter_select},
    {"reject", {0}, NULL, filter_reject},
    {"selectattr", {0}, NULL, filter_selectattr},
    {"rejectattr", {0}, NULL, filter_rejectattr},
    {0},
};
