/* template_operators.c: arithmetic, membership, attributes, items and slices, as Python and Jinja have them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/template_ast.h"

static int64_t as_int(tq_tv v) { return v.type == TQ_TV_BOOL ? v.as.b : v.as.i; }
static double as_double(tq_tv v) { return v.type == TQ_TV_FLOAT ? v.as.f : (double)as_int(v); }

static tq_status too_large(tq_render *r) {
    return tq_render_fail(r, TQ_UNSUPPORTED, "an integer of more than 63 bits");
}

static tq_status integer_power(tq_render *r, int64_t base, int64_t exponent, tq_tv *out) {
    if (exponent < 0) {
        if (base == 0) return tq_render_fail(r, TQ_INVALID, "division by zero");
        *out = tq_tv_float(pow((double)base, (double)exponent));
        return TQ_OK;
    }
    int64_t result = 1;
    while (exponent) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) return too_large(r);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base)) return too_large(r);
    }
    *out = tq_tv_int(result);
    return TQ_OK;
}

static tq_status integers(tq_render *r, tq_tn_op op, int64_t a, int64_t b, tq_tv *out) {
    int64_t result = 0;
    bool overflow = false;
    switch (op) {
    case TQ_OP_ADD: overflow = __builtin_add_overflow(a, b, &result); break;
    case TQ_OP_SUB: overflow = __builtin_sub_overflow(a, b, &result); break;
    case TQ_OP_MUL: overflow = __builtin_mul_overflow(a, b, &result); break;
    case TQ_OP_POW: return integer_power(r, a, b, out);
    default:
        if (b == 0) return tq_render_fail(r, TQ_INVALID, "division by zero");
        if (op == TQ_OP_DIV) {
            *out = tq_tv_float((double)a / (double)b);
            return TQ_OK;
        }
        if (b == -1) { /* INT64_MIN / -1 does not exist */
            overflow = op == TQ_OP_FLOOR_DIV && __builtin_sub_overflow((int64_t)0, a, &result);
            break;
        }
        result = op == TQ_OP_MOD ? a % b : a / b;
        if (a % b != 0 && (a < 0) != (b < 0)) result += op == TQ_OP_MOD ? b : -1; /* towards minus infinity */
    }
    if (overflow) return too_large(r);
    *out = tq_tv_int(result);
    return TQ_OK;
}

static tq_status floats(tq_render *r, tq_tn_op op, double a, double b, tq_tv *out) {
    double result;
    if (b == 0 && (op == TQ_OP_DIV || op == TQ_OP_FLOOR_DIV || op == TQ_OP_MOD)) {
        return tq_render_fail(r, TQ_INVALID, "division by zero");
    }
    switch (op) {
    case TQ_OP_ADD: result = a + b; break;
    case TQ_OP_SUB: result = a - b; break;
    case TQ_OP_MUL: result = a * b; break;
    case TQ_OP_DIV: result = a / b; break;
    case TQ_OP_POW:
        if (a == 0 && b < 0) return tq_render_fail(r, TQ_INVALID, "division by zero");
        result = pow(a, b);
        if (isnan(result) && !isnan(a) && !isnan(b)) {
            return tq_render_fail(r, TQ_UNSUPPORTED, "a power that is not a real number");
        }
        if (isinf(result) && !isinf(a) && !isinf(b)) return tq_render_fail(r, TQ_INVALID, "a number too large");
        break;
    default: {
        double rest = fmod(a, b);
        if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
        else if (rest == 0) rest = copysign(0.0, b);
        result = op == TQ_OP_MOD ? rest : floor((a - rest) / b + 0.5);
    }
    }
    *out = tq_tv_float(result);
    return TQ_OK;
}

static tq_status repeat(tq_render *r, tq_tv value, int64_t times, tq_tv *out) {
    if (value.type == TQ_TV_STR) {
        tq_tv_builder text = {0};
        for (int64_t i = 0; i < times && value.as.s->n; i++) {
            TQ_TRY(tq_render_charge(r, 1));
            TQ_TRY(tq_tv_put_str(r, &text, value.as.s));
        }
        return tq_tv_finish(r, &text, out);
    }
    tq_tv_list *list;
    TQ_TRY(tq_tv_list_new(r, value.as.list->kind, &list));
    for (int64_t i = 0; i < times && value.as.list->n; i++) {
        TQ_TRY(tq_render_charge(r, value.as.list->n));
        for (size_t k = 0; k < value.as.list->n; k++) TQ_TRY(tq_tv_list_add(r, list, value.as.list->items[k]));
    }
    *out = tq_tv_of_list(list);
    return TQ_OK;
}

static bool repeats(tq_tv v) { return v.type == TQ_TV_STR || (v.type == TQ_TV_LIST && v.as.list->kind <= TQ_TV_TUPLE); }

static tq_status join_lists(tq_render *r, const tq_tv_list *a, const tq_tv_list *b, tq_tv *out) {
    tq_tv_list *list;
    TQ_TRY(tq_tv_list_new(r, a->kind, &list));
    TQ_TRY(tq_render_charge(r, (a->n + b->n) / 8));
    for (size_t i = 0; i < a->n; i++) TQ_TRY(tq_tv_list_add(r, list, a->items[i]));
    for (size_t i = 0; i < b->n; i++) TQ_TRY(tq_tv_list_add(r, list, b->items[i]));
    *out = tq_tv_of_list(list);
    return TQ_OK;
}

/* Fail because value is undefined, with its name if there is one. */
static tq_status fail_undefined(tq_render *r, tq_tv value) {
    if (!value.as.s) return tq_render_fail(r, TQ_INVALID, "an undefined value is used");
    return tq_render_fail(r, TQ_INVALID, "'%.*s' is undefined", (int)(value.as.s->n < 80 ? value.as.s->n : 80),
                          value.as.s->bytes);
}

tq_status tq_binary(tq_render *r, tq_tn_op op, tq_tv a, tq_tv b, tq_tv *out) {
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "**"};
    if (a.type == TQ_TV_UNDEFINED) return fail_undefined(r, a);
    if (b.type == TQ_TV_UNDEFINED) return fail_undefined(r, b);
    if (tq_tv_is_number(a) && tq_tv_is_number(b)) {
        if (a.type == TQ_TV_FLOAT || b.type == TQ_TV_FLOAT) return floats(r, op, as_double(a), as_double(b), out);
        return integers(r, op, as_int(a), as_int(b), out);
    }
    if (op == TQ_OP_ADD && a.type == TQ_TV_STR && b.type == TQ_TV_STR) {
        tq_tv_builder text = {0};
        TQ_TRY(tq_tv_put_str(r, &text, a.as.s));
        TQ_TRY(tq_tv_put_str(r, &text, b.as.s));
        return tq_tv_finish(r, &text, out);
    }
    if (op == TQ_OP_ADD && repeats(a) && repeats(b) && a.type == TQ_TV_LIST && b.type == TQ_TV_LIST &&
        a.as.list->kind == b.as.list->kind) {
        return join_lists(r, a.as.list, b.as.list, out);
    }
    if (op == TQ_OP_MUL && repeats(a) && tq_tv_is_number(b) && b.type != TQ_TV_FLOAT) {
        return repeat(r, a, as_int(b), out);
    }
    if (op == TQ_OP_MUL && repeats(b) && tq_tv_is_number(a) && a.type != TQ_TV_FLOAT) {
        return repeat(r, b, as_int(a), out);
    }
    if (op == TQ_OP_MOD && a.type == TQ_TV_STR) {
        return tq_render_fail(r, TQ_UNSUPPORTED, "formatting with %% is not supported");
    }
    return tq_render_fail(r, TQ_INVALID, "'%s' %s '%s' does not exist", tq_tv_type_name(a), names[op],
                          tq_tv_type_name(b));
}

tq_status tq_contains(tq_render *r, tq_tv container, tq_tv item, bool *out) {
    *out = false;
    if (container.type == TQ_TV_STR) {
        if (item.type != TQ_TV_STR) {
            return tq_render_fail(r, TQ_INVALID, "'in <string>' requires string as left operand, not %s",
                                  tq_tv_type_name(item));
        }
        const tq_tv_str *s = container.as.s, *part = item.as.s;
        TQ_TRY(tq_render_charge(r, s->n / 64));
        for (size_t at = 0; part->n <= s->n - at;) {
            const char *hit = part->n ? memchr(s->bytes + at, part->bytes[0], s->n - at) : s->bytes;
            if (!hit || s->n - (size_t)(hit - s->bytes) < part->n) return TQ_OK;
            TQ_TRY(tq_render_charge(r, part->n / 64));
            if (part->n == 0 || memcmp(hit, part->bytes, part->n) == 0) return *out = true, TQ_OK;
            at = (size_t)(hit - s->bytes) + 1;
        }
        return TQ_OK;
    }
    if (container.type == TQ_TV_DICT) {
        if (item.type == TQ_TV_DICT || (item.type == TQ_TV_LIST && item.as.list->kind != TQ_TV_TUPLE)) {
            return tq_render_fail(r, TQ_INVALID, "unhashable type: '%s'", tq_tv_type_name(item));
        }
        TQ_TRY(tq_render_charge(r, container.as.dict->n / 64));
        *out = tq_tv_dict_get(container.as.dict, item) != NULL;
        return TQ_OK;
    }
    if (container.type == TQ_TV_UNDEFINED) return TQ_OK;
    if (container.type != TQ_TV_LIST) {
        return tq_render_fail(r, TQ_INVALID, "'%s' is not iterable", tq_tv_type_name(container));
    }
    tq_tv_list *list = container.as.list;
    size_t i = 0;
    for (; i < list->n && !*out; i++) TQ_TRY(tq_tv_equal(r, list->items[i], item, out));
    if (list->kind == TQ_TV_GENERATOR) list->items += i, list->n -= i, list->cap = list->n;
    return TQ_OK;
}

/* ---- attributes and items ---- */

static tq_status loop_attribute(tq_render *r, const tq_tv_loop *loop, const tq_tv_str *name, tq_tv *out) {
    int64_t index = (int64_t)loop->index, n = (int64_t)loop->items->n;
    const tq_tv *items = loop->items->items;
    (void)r;
    if (tq_tv_str_is(name, "index")) *out = tq_tv_int(index + 1);
    else if (tq_tv_str_is(name, "index0")) *out = tq_tv_int(index);
    else if (tq_tv_str_is(name, "revindex")) *out = tq_tv_int(n - index);
    else if (tq_tv_str_is(name, "revindex0")) *out = tq_tv_int(n - index - 1);
    else if (tq_tv_str_is(name, "first")) *out = tq_tv_bool(index == 0);
    else if (tq_tv_str_is(name, "last")) *out = tq_tv_bool(index == n - 1);
    else if (tq_tv_str_is(name, "length")) *out = tq_tv_int(n);
    else if (tq_tv_str_is(name, "depth")) *out = tq_tv_int((int64_t)loop->depth0 + 1);
    else if (tq_tv_str_is(name, "depth0")) *out = tq_tv_int((int64_t)loop->depth0);
    else if (tq_tv_str_is(name, "previtem")) *out = index > 0 ? items[index - 1] : tq_tv_undefined(NULL);
    else if (tq_tv_str_is(name, "nextitem")) *out = index + 1 < n ? items[index + 1] : tq_tv_undefined(NULL);
    else *out = tq_tv_undefined(name);
    return TQ_OK;
}

static tq_status find_bound_method(tq_render *r, tq_tv value, const tq_tv_str *name, bool *found, tq_tv *out) {
    const tq_method *method = tq_find_method(value, name);
    *found = method != NULL;
    if (!method) return TQ_OK;
    tq_tv_callable *callable;
    TQ_TRY(TQ_NEW(r, 1, &callable));
    callable->method = method;
    callable->self = value;
    *out = (tq_tv){.type = TQ_TV_CALLABLE, .as.callable = callable};
    return TQ_OK;
}

tq_status tq_get_attribute(tq_render *r, tq_tv value, const tq_tv_str *name, tq_tv *out) {
    bool found;
    if (value.type == TQ_TV_UNDEFINED) return fail_undefined(r, value);
    TQ_TRY(find_bound_method(r, value, name, &found, out));
    if (found) return TQ_OK;
    if (value.type == TQ_TV_LOOP) return loop_attribute(r, value.as.loop, name, out);
    if (value.type == TQ_TV_CALLABLE && value.as.callable->macro && tq_tv_str_is(name, "name")) {
        *out = tq_tv_string(value.as.callable->macro->name);
        return TQ_OK;
    }
    *out = tq_tv_undefined(name);
    if (value.type != TQ_TV_DICT && value.type != TQ_TV_NAMESPACE) return TQ_OK;
    const tq_tv *member = tq_tv_dict_get(value.as.dict, tq_tv_string(name));
    if (member) *out = *member;
    return tq_render_charge(r, value.as.dict->n / 64);
}

tq_status tq_get_item(tq_render *r, tq_tv value, tq_tv key, tq_tv *out) {
    if (value.type == TQ_TV_UNDEFINED) return fail_undefined(r, value);
    bool is_int = key.type == TQ_TV_INT || key.type == TQ_TV_BOOL;
    *out = tq_tv_undefined(key.type == TQ_TV_STR ? key.as.s : NULL);
    if (value.type == TQ_TV_DICT) {
        TQ_TRY(tq_render_charge(r, value.as.dict->n / 64));
        const tq_tv *member = tq_tv_dict_get(value.as.dict, key);
        if (member) return *out = *member, TQ_OK;
    } else if (value.type == TQ_TV_LIST && is_int) {
        const tq_tv_list *list = value.as.list;
        int64_t index = as_int(key), n = (int64_t)list->n;
        bool indexed = list->kind <= TQ_TV_TUPLE || list->kind == TQ_TV_RANGE;
        if (index < 0) index += n;
        if (indexed && index >= 0 && index < n) *out = list->items[index];
    } else if (value.type == TQ_TV_STR && is_int) {
        const tq_tv_str *s = value.as.s, *character;
        int64_t index = as_int(key), n = (int64_t)s->n_chars;
        if (index < 0) index += n;
        if (index < 0 || index >= n) return TQ_OK;
        if (s->n != s->n_chars) TQ_TRY(tq_render_charge(r, s->n / 64));
        size_t at = tq_tv_str_offset(s, (size_t)index);
        TQ_TRY(tq_tv_str_part(r, s, at, at + tq_utf8_width(s->bytes[at]), &character));
        *out = tq_tv_string(character);
    }
    if (key.type != TQ_TV_STR) return TQ_OK;
    return tq_get_attribute(r, value, key.as.s, out);
}

/* ---- slices ---- */

static bool is_bound(tq_tv v) { return v.type == TQ_TV_NONE || v.type == TQ_TV_INT || v.type == TQ_TV_BOOL; }

static int64_t slice_bound(tq_tv bound, int64_t fallback, int64_t n, int64_t low, int64_t high) {
    if (bound.type == TQ_TV_NONE) return fallback;
    int64_t index = as_int(bound);
    if (index < 0) index += n;
    return index < low ? low : index > high ? high : index;
}

static tq_status slice_string(tq_render *r, const tq_tv_str *s, int64_t from, int64_t to, int64_t step, tq_tv *out) {
    if (step == 1) {
        const tq_tv_str *part;
        if (to < from) to = from;
        size_t start = tq_tv_str_offset(s, (size_t)from), end = tq_tv_str_offset(s, (size_t)to);
        TQ_TRY(tq_render_charge(r, s->n / 64));
        TQ_TRY(tq_tv_str_part(r, s, start, end, &part));
        *out = tq_tv_string(part);
        return TQ_OK;
    }
    tq_tv_list *characters;
    tq_tv_builder text = {0};
    TQ_TRY(tq_tv_iterate(r, tq_tv_string(s), &characters));
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step) {
        TQ_TRY(tq_tv_put_str(r, &text, characters->items[i].as.s));
    }
    return tq_tv_finish(r, &text, out);
}

tq_status tq_slice(tq_render *r, tq_tv value, tq_tv from_bound, tq_tv to_bound, tq_tv step_bound, tq_tv *out) {
    if (value.type == TQ_TV_UNDEFINED) return fail_undefined(r, value);
    bool list = value.type == TQ_TV_LIST && (value.as.list->kind <= TQ_TV_TUPLE || value.as.list->kind == TQ_TV_RANGE);
    bool bounds = is_bound(from_bound) && is_bound(to_bound) && is_bound(step_bound);
    if (value.type != TQ_TV_STR && !list) {
        return tq_render_fail(r, TQ_INVALID, "'%s' cannot be sliced", tq_tv_type_name(value));
    }
    if (!bounds) return tq_render_fail(r, TQ_INVALID, "slice indices must be integers or none");
    int64_t n = value.type == TQ_TV_STR ? (int64_t)value.as.s->n_chars : (int64_t)value.as.list->n;
    int64_t step = slice_bound(step_bound, 1, 0, -n - 1, n + 1);
    if (step == 0) return tq_render_fail(r, TQ_INVALID, "slice step cannot be zero");
    bool back = step < 0;
    int64_t from = slice_bound(from_bound, back ? n - 1 : 0, n, back ? -1 : 0, back ? n - 1 : n);
    int64_t to = slice_bound(to_bound, back ? -1 : n, n, back ? -1 : 0, back ? n - 1 : n);
    if (value.type == TQ_TV_STR) return slice_string(r, value.as.s, from, to, step, out);
    tq_tv_list *part;
    TQ_TRY(tq_tv_list_new(r, value.as.list->kind == TQ_TV_TUPLE ? TQ_TV_TUPLE : TQ_TV_PLAIN_LIST, &part));
    for (int64_t i = from; back ? i > to : i < to; i += step) {
        TQ_TRY(tq_render_charge(r, 1));
        TQ_TRY(tq_tv_list_add(r, part, value.as.list->items[i]));
    }
    *out = tq_tv_of_list(part);
    return TQ_OK;
}
