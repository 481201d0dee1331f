/* template_functions.c: the functions a template finds: namespace, range, dict, raise_exception, strftime_now. */
#include <locale.h>
#include <string.h>
#include <time.h>

#include "text/template_ast.h"

static tq_status add_named(tq_render *r, const tq_args *args, tq_tv_dict *dict) {
    for (size_t i = 0; i < args->n_named; i++) {
        TQ_TRY(tq_tv_dict_set(r, dict, tq_tv_string(args->names[i]), args->values[args->n + i]));
    }
    return TQ_OK;
}

static tq_status make_dict(tq_render *r, const tq_args *args, tq_tv *out) {
    tq_tv_dict *dict;
    TQ_TRY(tq_tv_dict_new(r, &dict));
    if (args->n > 1) return tq_render_fail(r, TQ_INVALID, "dict takes at most one argument without a name");
    if (args->n == 1 && args->values[0].type == TQ_TV_DICT) {
        const tq_tv_dict *from = args->values[0].as.dict;
        for (size_t i = 0; i < from->n; i++) TQ_TRY(tq_tv_dict_set(r, dict, from->keys[i], from->values[i]));
    } else if (args->n == 1) {
        tq_tv_list *pairs, *pair;
        TQ_TRY(tq_tv_iterate(r, args->values[0], &pairs));
        for (size_t i = 0; i < pairs->n; i++) {
            TQ_TRY(tq_tv_iterate(r, pairs->items[i], &pair));
            if (pair->n != 2) return tq_render_fail(r, TQ_INVALID, "dict: element %zu is not a pair", i);
            TQ_TRY(tq_tv_dict_set(r, dict, pair->items[0], pair->items[1]));
        }
    }
    *out = (tq_tv){.type = TQ_TV_DICT, .as.dict = dict};
    return add_named(r, args, dict);
}

static tq_status make_namespace(tq_render *r, const tq_args *args, tq_tv *out) {
    TQ_TRY(make_dict(r, args, out));
    out->type = TQ_TV_NAMESPACE;
    return TQ_OK;
}

static tq_status make_range(tq_render *r, const tq_args *args, tq_tv *out) {
    enum { most = 100000 };
    int64_t bound[3] = {0, 0, 1};
    if (args->n < 1 || args->n > 3 || args->n_named) return tq_render_fail(r, TQ_INVALID, "range takes 1 to 3 numbers");
    for (size_t i = 0; i < args->n; i++) {
        tq_tv value = args->values[i];
        if (value.type != TQ_TV_INT && value.type != TQ_TV_BOOL) {
            return tq_render_fail(r, TQ_INVALID, "range: '%s' is not an integer", tq_tv_type_name(value));
        }
        bound[args->n == 1 ? 1 : i] = value.type == TQ_TV_INT ? value.as.i : value.as.b;
    }
    if (bound[2] == 0) return tq_render_fail(r, TQ_INVALID, "range: a step of zero");
    tq_tv_list *list;
    TQ_TRY(tq_tv_list_new(r, TQ_TV_RANGE, &list));
    memcpy(list->range, bound, sizeof bound);
    *out = tq_tv_of_list(list);
    for (int64_t i = bound[0]; bound[2] > 0 ? i < bound[1] : i > bound[1];) {
        if (list->n == most) return tq_render_fail(r, TQ_INVALID, "range: more than %d numbers", most);
        TQ_TRY(tq_tv_list_add(r, list, tq_tv_int(i)));
        if (__builtin_add_overflow(i, bound[2], &i)) break;
    }
    return tq_render_charge(r, list->n / 8);
}

static tq_status raise_exception(tq_render *r, const tq_args *args, tq_tv *out) {
    static const char *const params[] = {"message", NULL};
    tq_tv message;
    const tq_tv_str *s;
    (void)out;
    TQ_TRY(tq_args_bind(r, "raise_exception", args, params, &message));
    if (message.type == TQ_TV_MISSING) return tq_render_fail(r, TQ_INVALID, "raise_exception without a message");
    TQ_TRY(tq_tv_to_str(r, message, &s));
    return tq_render_fail(r, TQ_INVALID, "%.*s", (int)(s->n < 300 ? s->n : 300), s->bytes);
}

static tq_status strftime_now(tq_render *r, const tq_args *args, tq_tv *out) {
    static const char *const params[] = {"format", NULL};
    tq_tv value;
    const tq_tv_str *s;
    char format[200], text[800];
    TQ_TRY(tq_args_bind(r, "strftime_now", args, params, &value));
    if (value.type != TQ_TV_STR || value.as.s->n >= sizeof format - 1) {
        return tq_render_fail(r, TQ_INVALID, "strftime_now wants a format");
    }
    memcpy(format, value.as.s->bytes, value.as.s->n);
    format[value.as.s->n] = '.'; /* so that an empty result differs from a failure */
    format[value.as.s->n + 1] = '\0';
    time_t now = time(NULL);
    struct tm parts;
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (plain == (locale_t)0 || !localtime_r(&now, &parts)) {
        return tq_render_fail(r, TQ_INVALID, "strftime_now: no calendar");
    }
    size_t n = strftime_l(text, sizeof text, format, &parts, plain);
    freelocale(plain);
    if (n == 0) return tq_render_fail(r, TQ_INVALID, "strftime_now: a date that is too long");
    TQ_TRY(tq_tv_str_new(r, text, n - 1, false, true, &s));
    *out = tq_tv_string(s);
    return TQ_OK;
}

static const tq_function functions[] = {{"namespace", make_namespace},
                                        {"dict", make_dict},
                                        {"range", make_range},
                                        {"raise_exception", raise_exception},
                                        {"strftime_now", strftime_now}};

const tq_function *tq_find_function(const tq_tv_str *name) {
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (tq_tv_str_is(name, functions[i].name)) return &functions[i];
    }
    return NULL;
}
