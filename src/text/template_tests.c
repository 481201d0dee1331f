/* template_tests.c: what stands after `is`. */
#include <string.h>
#include <utf8proc.h>

#include "text/template_ast.h"

typedef struct test {
    const char *name;
    int n_args;
    tq_status (*holds)(tq_render *r, tq_tv value, const tq_tv *args, bool *out);
} test;

#define TEST(name, expression)                                                                                         \
    static tq_status name(tq_render *r, tq_tv v, const tq_tv *args, bool *out) {                                       \
        (void)r, (void)args;                                                                                           \
        *out = (expression);                                                                                           \
        return TQ_OK;                                                                                                  \
    }

TEST(is_defined, v.type != TQ_TV_UNDEFINED)
TEST(is_undefined, v.type == TQ_TV_UNDEFINED)
TEST(is_none, v.type == TQ_TV_NONE)
TEST(is_string, v.type == TQ_TV_STR)
TEST(is_mapping, v.type == TQ_TV_DICT)
TEST(is_true, v.type == TQ_TV_BOOL && v.as.b)
TEST(is_false, v.type == TQ_TV_BOOL && !v.as.b)
TEST(is_boolean, v.type == TQ_TV_BOOL)
TEST(is_number, tq_tv_is_number(v))
TEST(is_integer, v.type == TQ_TV_INT)
TEST(is_float, v.type == TQ_TV_FLOAT)
TEST(is_iterable, v.type == TQ_TV_STR || v.type == TQ_TV_LIST || v.type == TQ_TV_DICT || v.type == TQ_TV_UNDEFINED ||
                      v.type == TQ_TV_LOOP)
TEST(is_sequence, v.type == TQ_TV_STR || v.type == TQ_TV_DICT || v.type == TQ_TV_UNDEFINED ||
                      (v.type == TQ_TV_LIST && (v.as.list->kind <= TQ_TV_TUPLE || v.as.list->kind == TQ_TV_RANGE)))
TEST(is_callable, v.type == TQ_TV_CALLABLE || v.type == TQ_TV_UNDEFINED || v.type == TQ_TV_LOOP)
TEST(is_filter, v.type == TQ_TV_STR && tq_filter_exists(v.as.s))
TEST(is_test, v.type == TQ_TV_STR && tq_test_exists(v.as.s))

static tq_status remainder_is(tq_render *r, tq_tv value, tq_tv divisor, int64_t wanted, bool *out) {
    tq_tv rest;
    TQ_TRY(tq_binary(r, TQ_OP_MOD, value, divisor, &rest));
    return tq_tv_equal(r, rest, tq_tv_int(wanted), out);
}

static tq_status is_even(tq_render *r, tq_tv v, const tq_tv *args, bool *out) {
    (void)args;
    return remainder_is(r, v, tq_tv_int(2), 0, out);
}

static tq_status is_odd(tq_render *r, tq_tv v, const tq_tv *args, bool *out) {
    (void)args;
    return remainder_is(r, v, tq_tv_int(2), 1, out);
}

static tq_status is_divisible(tq_render *r, tq_tv v, const tq_tv *args, bool *out) {
    return remainder_is(r, v, args[0], 0, out);
}

static tq_status is_in(tq_render *r, tq_tv v, const tq_tv *args, bool *out) { return tq_contains(r, args[0], v, out); }

static tq_status is_equal(tq_render *r, tq_tv v, const tq_tv *args, bool *out) {
    return tq_tv_equal(r, v, args[0], out);
}

static tq_status is_unequal(tq_render *r, tq_tv v, const tq_tv *args, bool *out) {
    TQ_TRY(tq_tv_equal(r, v, args[0], out));
    *out = !*out;
    return TQ_OK;
}

static tq_status is_same(tq_render *r, tq_tv v, const tq_tv *args, bool *out) {
    tq_tv a = args[0];
    if (v.type != a.type) return *out = false, TQ_OK;
    if (v.type == TQ_TV_LIST) return *out = v.as.list == a.as.list, TQ_OK;
    if (v.type == TQ_TV_DICT) return *out = v.as.dict == a.as.dict, TQ_OK;
    return tq_tv_equal(r, v, a, out);
}

#define ORDER_TEST(name, condition)                                                                                    \
    static tq_status name(tq_render *r, tq_tv v, const tq_tv *args, bool *out) {                                       \
        int order;                                                                                                     \
        TQ_TRY(tq_tv_compare(r, v, args[0], &order));                                                                  \
        *out = order condition;                                                                                        \
        return TQ_OK;                                                                                                  \
    }

ORDER_TEST(is_less, < 0)
ORDER_TEST(is_at_most, <= 0)
ORDER_TEST(is_greater, > 0)
ORDER_TEST(is_at_least, >= 0)

/* Some cased character, and none of the other case. */
static tq_status has_case(tq_render *r, tq_tv v, bool upper, bool *out) {
    const tq_tv_str *s;
    bool some = false;
    TQ_TRY(tq_tv_to_str(r, v, &s));
    TQ_TRY(tq_render_charge(r, s->n / 8));
    *out = false;
    for (size_t at = 0; at < s->n; at += tq_utf8_width(s->bytes[at])) {
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)tq_utf8_decode(s->bytes + at));
        if (category == UTF8PROC_CATEGORY_LT) return TQ_OK;
        if (category == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU)) return TQ_OK;
        some = some || category == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
    }
    *out = some;
    return TQ_OK;
}

static tq_status is_lower(tq_render *r, tq_tv v, const tq_tv *args, bool *out) {
    (void)args;
    return has_case(r, v, false, out);
}

static tq_status is_upper(tq_render *r, tq_tv v, const tq_tv *args, bool *out) {
    (void)args;
    return has_case(r, v, true, out);
}

static const test tests[] = {
    {"defined", 0, is_defined},   {"undefined", 0, is_undefined},
    {"none", 0, is_none},         {"string", 0, is_string},
    {"mapping", 0, is_mapping},   {"iterable", 0, is_iterable},
    {"sequence", 0, is_sequence}, {"true", 0, is_true},
    {"false", 0, is_false},       {"boolean", 0, is_boolean},
    {"number", 0, is_number},     {"integer", 0, is_integer},
    {"float", 0, is_float},       {"in", 1, is_in},
    {"callable", 0, is_callable}, {"eq", 1, is_equal},
    {"equalto", 1, is_equal},     {"==", 1, is_equal},
    {"ne", 1, is_unequal},        {"!=", 1, is_unequal},
    {"sameas", 1, is_same},       {"lt", 1, is_less},
    {"lessthan", 1, is_less},     {"<", 1, is_less},
    {"le", 1, is_at_most},        {"<=", 1, is_at_most},
    {"gt", 1, is_greater},        {"greaterthan", 1, is_greater},
    {">", 1, is_greater},         {"ge", 1, is_at_least},
    {">=", 1, is_at_least},       {"even", 0, is_even},
    {"odd", 0, is_odd},           {"divisibleby", 1, is_divisible},
    {"lower", 0, is_lower},       {"upper", 0, is_upper},
    {"filter", 0, is_filter},     {"test", 0, is_test},
};

static const test *find_test(const tq_tv_str *name) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (tq_tv_str_is(name, tests[i].name)) return &tests[i];
    }
    return NULL;
}

bool tq_test_exists(const tq_tv_str *name) { return find_test(name) != NULL; }

tq_status tq_apply_test(tq_render *r, const tq_tv_str *name, tq_tv value, const tq_args *args, bool *out) {
    const test *found = find_test(name);
    int n = (int)(name->n < 80 ? name->n : 80);
    if (!found) return tq_render_fail(r, TQ_UNSUPPORTED, "there is no test %.*s", n, name->bytes);
    if (args->n_named || args->n != (size_t)found->n_args) {
        return tq_render_fail(r, TQ_INVALID, "test %.*s takes %d arguments", n, name->bytes, found->n_args);
    }
    return found->holds(r, value, args->values, out);
}
