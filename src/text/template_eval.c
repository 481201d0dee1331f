/* template_eval.c: running the tree of a template.
 * Owns: scopes, statements, expressions, calls of macros.  Not here: operators (template_operators.c), filters, tests,
 * methods and functions (their own files). */
#include <string.h>

#include "text/template_ast.h"

enum { max_depth = 1200, max_macro_depth = 100 };

typedef enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;

static tq_status eval(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out);
static tq_status run_list(tq_render *r, tq_tn *const *nodes, size_t n, tq_tv_scope *scope, flow *next);

/* ---- scopes ---- */

static tq_status new_scope(tq_render *r, tq_tv_scope *parent, tq_tv_scope **out) {
    TQ_TRY(TQ_NEW(r, 1, out));
    (*out)->parent = parent;
    return TQ_OK;
}

static tq_tv_var *find_var(const tq_tv_scope *scope, const tq_tv_str *name) {
    for (tq_tv_var *var = scope->vars; var; var = var->next) {
        if (var->name->n == name->n && memcmp(var->name->bytes, name->bytes, name->n) == 0) return var;
    }
    return NULL;
}

static tq_status set_var(tq_render *r, tq_tv_scope *scope, const tq_tv_str *name, tq_tv value) {
    tq_tv_var *var = find_var(scope, name);
    if (!var) {
        TQ_TRY(TQ_NEW(r, 1, &var));
        *var = (tq_tv_var){.name = name, .next = scope->vars};
        scope->vars = var;
    }
    var->value = value;
    return TQ_OK;
}

static tq_status set_named(tq_render *r, tq_tv_scope *scope, const char *name, tq_tv value) {
    const tq_tv_str *kept;
    TQ_TRY(tq_tv_str_new(r, name, strlen(name), true, false, &kept));
    return set_var(r, scope, kept, value);
}

static tq_status look_up(tq_render *r, const tq_tv_scope *scope, const tq_tv_str *name, tq_tv *out) {
    for (; scope; scope = scope->parent) {
        const tq_tv_var *var = find_var(scope, name);
        if (!var) continue;
        *out = var->value;
        return TQ_OK;
    }
    const tq_function *function = tq_find_function(name);
    *out = tq_tv_undefined(name);
    if (!function) return TQ_OK;
    tq_tv_callable *callable;
    TQ_TRY(TQ_NEW(r, 1, &callable));
    callable->function = function;
    *out = (tq_tv){.type = TQ_TV_CALLABLE, .as.callable = callable};
    return TQ_OK;
}

static tq_status assign(tq_render *r, const tq_tn *target, tq_tv_scope *scope, tq_tv value) {
    if (target->kind == TQ_TN_NAME) return set_var(r, scope, target->name, value);
    if (target->kind == TQ_TN_ATTR) {
        tq_tv object;
        TQ_TRY(eval(r, target->a, scope, &object));
        if (object.type != TQ_TV_NAMESPACE) {
            return tq_render_fail(r, TQ_INVALID, "cannot assign attribute on non-namespace object");
        }
        return tq_tv_dict_set(r, object.as.dict, tq_tv_string(target->name), value);
    }
    tq_tv_list *items;
    TQ_TRY(tq_tv_iterate(r, value, &items));
    if (items->n != target->n) {
        return tq_render_fail(r, TQ_INVALID, "%zu values to unpack, %zu names", items->n, target->n);
    }
    for (size_t i = 0; i < target->n; i++) TQ_TRY(assign(r, target->list[i], scope, items->items[i]));
    return TQ_OK;
}

/* ---- output into a string ---- */

static tq_status capture(tq_render *r, tq_tn *const *nodes, size_t n, tq_tv_scope *scope, flow *next, tq_tv *out) {
    tq_tv_builder text = {0}, *before = r->out;
    r->out = &text;
    tq_status status = run_list(r, nodes, n, scope, next);
    r->out = before;
    return status == TQ_OK ? tq_tv_finish(r, &text, out) : status;
}

/* ---- calls ---- */

static tq_status eval_args(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_args *args) {
    *args = (tq_args){.n = node->n, .n_named = node->n_others, .names = node->names};
    if (node->n + node->n_others == 0) return TQ_OK;
    TQ_TRY(TQ_NEW(r, node->n + node->n_others, &args->values));
    for (size_t i = 0; i < node->n; i++) TQ_TRY(eval(r, node->list[i], scope, &args->values[i]));
    for (size_t i = 0; i < node->n_others; i++) TQ_TRY(eval(r, node->others[i], scope, &args->values[node->n + i]));
    return TQ_OK;
}

tq_status tq_args_bind(tq_render *r, const char *what, const tq_args *args, const char *const *params, tq_tv *slots) {
    size_t n = 0;
    while (params[n]) slots[n++] = (tq_tv){.type = TQ_TV_MISSING};
    if (args->n > n) return tq_render_fail(r, TQ_INVALID, "%s takes at most %zu arguments, got %zu", what, n, args->n);
    for (size_t i = 0; i < args->n; i++) slots[i] = args->values[i];
    for (size_t i = 0; i < args->n_named; i++) {
        const tq_tv_str *name = args->names[i];
        size_t k = 0;
        while (k < n && !tq_tv_str_is(name, params[k])) k++;
        if (k == n || slots[k].type != TQ_TV_MISSING) {
            return tq_render_fail(r, TQ_INVALID, "%s: unexpected argument %.*s", what, (int)name->n, name->bytes);
        }
        slots[k] = args->values[args->n + i];
    }
    return TQ_OK;
}

static tq_status bind_rest(tq_render *r, const tq_tn *macro, const tq_args *args, tq_tv_scope *scope) {
    size_t n_positional = args->n < macro->n_names ? args->n : macro->n_names;
    tq_tv_list *rest;
    tq_tv_dict *named;
    TQ_TRY(tq_tv_list_new(r, TQ_TV_TUPLE, &rest));
    TQ_TRY(tq_tv_dict_new(r, &named));
    for (size_t i = n_positional; i < args->n; i++) TQ_TRY(tq_tv_list_add(r, rest, args->values[i]));
    bool has_caller = false;
    for (size_t i = 0; i < args->n_named; i++) {
        size_t k = 0;
        while (k < macro->n_names && !(macro->names[k]->n == args->names[i]->n &&
                                       memcmp(macro->names[k]->bytes, args->names[i]->bytes, args->names[i]->n) == 0)) {
            k++;
        }
        if (k < macro->n_names) {
            if (k < n_positional) return tq_render_fail(r, TQ_INVALID, "macro: an argument was given twice");
            continue;
        }
        if (macro->uses_caller && tq_tv_str_is(args->names[i], "caller")) {
            TQ_TRY(set_named(r, scope, "caller", args->values[args->n + i]));
            has_caller = true;
            continue;
        }
        TQ_TRY(tq_tv_dict_set(r, named, tq_tv_string(args->names[i]), args->values[args->n + i]));
    }
    if (macro->uses_caller && !has_caller) TQ_TRY(set_named(r, scope, "caller", tq_tv_undefined(NULL)));
    if (macro->uses_varargs) TQ_TRY(set_named(r, scope, "varargs", tq_tv_of_list(rest)));
    else if (rest->n) return tq_render_fail(r, TQ_INVALID, "macro takes at most %zu arguments", macro->n_names);
    tq_tv kwargs = {.type = TQ_TV_DICT, .as.dict = named};
    if (macro->uses_kwargs) return set_named(r, scope, "kwargs", kwargs);
    if (!named->n) return TQ_OK;
    const tq_tv_str *name = named->keys[0].as.s;
    return tq_render_fail(r, TQ_INVALID, "macro takes no argument %.*s", (int)name->n, name->bytes);
}

static tq_status call_macro(tq_render *r, const tq_tv_callable *callable, const tq_args *args, tq_tv *out) {
    const tq_tn *macro = callable->macro;
    tq_tv_scope *scope;
    if (++r->macro_depth > max_macro_depth) return tq_render_fail(r, TQ_INVALID, "macros call each other too deeply");
    TQ_TRY(new_scope(r, callable->scope, &scope));
    TQ_TRY(bind_rest(r, macro, args, scope));
    for (size_t i = 0; i < macro->n_names; i++) {
        tq_tv value = tq_tv_undefined(macro->names[i]);
        bool given = i < args->n;
        if (given) value = args->values[i];
        for (size_t k = 0; k < args->n_named && !given; k++) {
            given = args->names[k]->n == macro->names[i]->n &&
                    memcmp(args->names[k]->bytes, macro->names[i]->bytes, args->names[k]->n) == 0;
            if (given) value = args->values[args->n + k];
        }
        if (!given && macro->others[i]) TQ_TRY(eval(r, macro->others[i], scope, &value));
        TQ_TRY(set_var(r, scope, macro->names[i], value));
    }
    flow next = FLOW_ON;
    TQ_TRY(capture(r, macro->list, macro->n, scope, &next, out));
    r->macro_depth--;
    return TQ_OK;
}

static tq_status run_for(tq_render *r, const tq_tn *node, tq_tv iterable, size_t depth0, tq_tv_scope *scope);

/* loop(items), in a recursive for. */
static tq_status call_loop(tq_render *r, const tq_tv_loop *loop, const tq_args *args, tq_tv *out) {
    if (!loop->recursive || args->n != 1 || args->n_named) {
        return tq_render_fail(r, TQ_INVALID, "loop() needs a recursive loop and one argument");
    }
    if (++r->macro_depth > max_macro_depth) return tq_render_fail(r, TQ_INVALID, "loops call themselves too deeply");
    tq_tv_builder text = {0}, *before = r->out;
    r->out = &text;
    tq_status status = run_for(r, loop->recursive, args->values[0], loop->depth0 + 1, loop->scope);
    r->out = before;
    TQ_TRY(status);
    r->macro_depth--;
    return tq_tv_finish(r, &text, out);
}

tq_status tq_call(tq_render *r, tq_tv callee, const tq_args *args, tq_tv *out) {
    if (callee.type == TQ_TV_LOOP) return call_loop(r, callee.as.loop, args, out);
    if (callee.type == TQ_TV_UNDEFINED && callee.as.s) {
        return tq_render_fail(r, TQ_INVALID, "'%.*s' is undefined", (int)callee.as.s->n, callee.as.s->bytes);
    }
    if (callee.type != TQ_TV_CALLABLE) {
        return tq_render_fail(r, TQ_INVALID, "'%s' is not callable", tq_tv_type_name(callee));
    }
    const tq_tv_callable *callable = callee.as.callable;
    if (callable->macro) return call_macro(r, callable, args, out);
    if (callable->function) return callable->function->call(r, args, out);
    const tq_method *method = callable->method;
    tq_tv slots[tq_max_params];
    if (!method->params[0] || strcmp(method->params[0], "*") != 0) {
        TQ_TRY(tq_args_bind(r, method->name, args, method->params, slots));
    }
    return method->call(r, callable->self, args, slots, out);
}

/* ---- expressions ---- */

static tq_status eval_list(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out) {
    tq_tv_list *list;
    TQ_TRY(tq_tv_list_new(r, node->kind == TQ_TN_TUPLE ? TQ_TV_TUPLE : TQ_TV_PLAIN_LIST, &list));
    for (size_t i = 0; i < node->n; i++) {
        tq_tv item;
        TQ_TRY(eval(r, node->list[i], scope, &item));
        TQ_TRY(tq_tv_list_add(r, list, item));
    }
    *out = tq_tv_of_list(list);
    return TQ_OK;
}

static tq_status eval_dict(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out) {
    tq_tv_dict *dict;
    TQ_TRY(tq_tv_dict_new(r, &dict));
    for (size_t i = 0; i < node->n; i++) {
        tq_tv key, value;
        TQ_TRY(eval(r, node->list[i], scope, &key));
        TQ_TRY(eval(r, node->others[i], scope, &value));
        TQ_TRY(tq_tv_dict_set(r, dict, key, value));
    }
    *out = (tq_tv){.type = TQ_TV_DICT, .as.dict = dict};
    return TQ_OK;
}

static tq_status eval_compare(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out) {
    tq_tv left, right;
    TQ_TRY(eval(r, node->a, scope, &left));
    for (size_t i = 0; i < node->n; i++) {
        bool holds;
        int order;
        TQ_TRY(eval(r, node->list[i], scope, &right));
        switch (node->ops[i]) {
        case TQ_OP_EQ:
        case TQ_OP_NE:
            TQ_TRY(tq_tv_equal(r, left, right, &holds));
            if (node->ops[i] == TQ_OP_NE) holds = !holds;
            break;
        case TQ_OP_IN:
        case TQ_OP_NOT_IN:
            TQ_TRY(tq_contains(r, right, left, &holds));
            if (node->ops[i] == TQ_OP_NOT_IN) holds = !holds;
            break;
        default:
            TQ_TRY(tq_tv_compare(r, left, right, &order));
            holds = node->ops[i] == TQ_OP_LT   ? order < 0
                    : node->ops[i] == TQ_OP_LE ? order <= 0
                    : node->ops[i] == TQ_OP_GT ? order > 0
                                               : order >= 0;
        }
        *out = tq_tv_bool(holds);
        if (!holds) return TQ_OK;
        left = right;
    }
    return TQ_OK;
}

static tq_status eval_concat(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out) {
    tq_tv_builder text = {0};
    for (size_t i = 0; i < node->n; i++) {
        tq_tv part;
        const tq_tv_str *s;
        TQ_TRY(eval(r, node->list[i], scope, &part));
        TQ_TRY(tq_tv_to_str(r, part, &s));
        TQ_TRY(tq_tv_put_str(r, &text, s));
    }
    return tq_tv_finish(r, &text, out);
}

static tq_status eval_unary(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out) {
    tq_tv value;
    TQ_TRY(eval(r, node->a, scope, &value));
    if (!tq_tv_is_number(value)) {
        return tq_render_fail(r, TQ_INVALID, "bad operand for a sign: '%s'", tq_tv_type_name(value));
    }
    return tq_binary(r, node->op == TQ_OP_SUB ? TQ_OP_SUB : TQ_OP_ADD,
                     value.type == TQ_TV_FLOAT ? tq_tv_float(node->op == TQ_OP_SUB ? -0.0 : 0.0) : tq_tv_int(0), value,
                     out);
}

static tq_status eval_slice(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out) {
    tq_tv value, part[3] = {tq_tv_none(), tq_tv_none(), tq_tv_none()};
    const tq_tn *parts[3] = {node->b, node->c, node->d};
    TQ_TRY(eval(r, node->a, scope, &value));
    for (int i = 0; i < 3; i++) {
        if (parts[i]) TQ_TRY(eval(r, parts[i], scope, &part[i]));
    }
    return tq_slice(r, value, part[0], part[1], part[2], out);
}

static tq_status eval_applied(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out) {
    tq_tv value;
    tq_args args;
    TQ_TRY(eval(r, node->a, scope, &value));
    TQ_TRY(eval_args(r, node, scope, &args));
    r->line = node->line;
    if (node->kind == TQ_TN_CALL) return tq_call(r, value, &args, out);
    if (node->kind == TQ_TN_FILTER) return tq_apply_filter(r, node->name, value, &args, out);
    bool holds;
    TQ_TRY(tq_apply_test(r, node->name, value, &args, &holds));
    *out = tq_tv_bool(holds != node->flag);
    return TQ_OK;
}

static tq_status eval_simple(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out) {
    tq_tv a, b;
    TQ_TRY(eval(r, node->a, scope, &a));
    switch (node->kind) {
    case TQ_TN_NOT: *out = tq_tv_bool(!tq_tv_truth(a)); return TQ_OK;
    case TQ_TN_ATTR: return tq_get_attribute(r, a, node->name, out);
    case TQ_TN_AND:
    case TQ_TN_OR: *out = a; return tq_tv_truth(a) == (node->kind == TQ_TN_OR) ? TQ_OK : eval(r, node->b, scope, out);
    default: break;
    }
    TQ_TRY(eval(r, node->b, scope, &b));
    r->line = node->line;
    return node->kind == TQ_TN_ITEM ? tq_get_item(r, a, b, out) : tq_binary(r, node->op, a, b, out);
}

static tq_status eval_cond(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out) {
    tq_tv condition;
    TQ_TRY(eval(r, node->b, scope, &condition));
    if (tq_tv_truth(condition)) return eval(r, node->a, scope, out);
    if (node->c) return eval(r, node->c, scope, out);
    *out = tq_tv_undefined(NULL);
    return TQ_OK;
}

static tq_status eval(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv *out) {
    tq_status status;
    r->line = node->line;
    TQ_TRY(tq_render_charge(r, 1));
    if (++r->depth > max_depth) return tq_render_fail(r, TQ_INVALID, "the template nests too deeply");
    switch (node->kind) {
    case TQ_TN_CONST: *out = node->value, status = TQ_OK; break;
    case TQ_TN_NAME: status = look_up(r, scope, node->name, out); break;
    case TQ_TN_LIST:
    case TQ_TN_TUPLE: status = eval_list(r, node, scope, out); break;
    case TQ_TN_DICT: status = eval_dict(r, node, scope, out); break;
    case TQ_TN_UNARY: status = eval_unary(r, node, scope, out); break;
    case TQ_TN_COMPARE: status = eval_compare(r, node, scope, out); break;
    case TQ_TN_CONCAT: status = eval_concat(r, node, scope, out); break;
    case TQ_TN_COND: status = eval_cond(r, node, scope, out); break;
    case TQ_TN_SLICE: status = eval_slice(r, node, scope, out); break;
    case TQ_TN_CALL:
    case TQ_TN_FILTER:
    case TQ_TN_TEST: status = eval_applied(r, node, scope, out); break;
    default: status = eval_simple(r, node, scope, out);
    }
    r->depth--;
    return status;
}

/* ---- statements ---- */

/* Items of a for with a condition.  Where the body does not look at the loop, the condition is asked as each turn
 * comes, as the body may change what it depends on. */
static tq_status passes(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv item, bool *pass) {
    tq_tv_scope *inner;
    tq_tv value;
    *pass = true;
    if (!node->c) return TQ_OK;
    TQ_TRY(new_scope(r, scope, &inner));
    TQ_TRY(assign(r, node->a, inner, item));
    TQ_TRY(eval(r, node->c, inner, &value));
    *pass = tq_tv_truth(value);
    return TQ_OK;
}

static tq_status filter_items(tq_render *r, const tq_tn *node, tq_tv_scope *scope, tq_tv_list **items) {
    tq_tv_list *kept;
    TQ_TRY(tq_tv_list_new(r, TQ_TV_PLAIN_LIST, &kept));
    for (size_t i = 0; i < (*items)->n; i++) {
        bool pass;
        TQ_TRY(passes(r, node, scope, (*items)->items[i], &pass));
        if (pass) TQ_TRY(tq_tv_list_add(r, kept, (*items)->items[i]));
    }
    *items = kept;
    return TQ_OK;
}

static tq_status run_for(tq_render *r, const tq_tn *node, tq_tv iterable, size_t depth0, tq_tv_scope *scope) {
    tq_tv_list *items;
    tq_tv_loop *loop = NULL;
    bool any = false;
    flow next = FLOW_ON;
    TQ_TRY(tq_tv_iterate(r, iterable, &items));
    if (node->uses_loop) {
        if (node->c) TQ_TRY(filter_items(r, node, scope, &items));
        TQ_TRY(TQ_NEW(r, 1, &loop));
        *loop = (tq_tv_loop){.items = items, .depth0 = depth0, .scope = scope, .recursive = node->flag ? node : NULL};
        loop->last_changed.type = TQ_TV_MISSING;
    }
    for (size_t i = 0; i < items->n && next != FLOW_BREAK; i++) {
        tq_tv_scope *inner;
        bool pass = true;
        TQ_TRY(tq_render_charge(r, 1));
        if (!loop) TQ_TRY(passes(r, node, scope, items->items[i], &pass));
        if (!pass) continue;
        any = true;
        TQ_TRY(new_scope(r, scope, &inner));
        if (loop) {
            loop->index = i;
            TQ_TRY(set_named(r, inner, "loop", (tq_tv){.type = TQ_TV_LOOP, .as.loop = loop}));
        }
        TQ_TRY(assign(r, node->a, inner, items->items[i]));
        next = FLOW_ON;
        TQ_TRY(run_list(r, node->list, node->n, inner, &next));
    }
    if (any || !node->n_others) return TQ_OK;
    tq_tv_scope *inner;
    TQ_TRY(new_scope(r, scope, &inner));
    next = FLOW_ON;
    return run_list(r, node->others, node->n_others, inner, &next);
}

static tq_status run_set_block(tq_render *r, const tq_tn *node, tq_tv_scope *scope, flow *next) {
    tq_tv_scope *inner;
    tq_tv text;
    TQ_TRY(new_scope(r, scope, &inner));
    TQ_TRY(capture(r, node->list, node->n, inner, next, &text));
    if (node->kind == TQ_TN_SET_BLOCK && !node->b) return assign(r, node->a, scope, text);
    /* A chain of filters ends in nothing: there the text goes. */
    const tq_tn *chain[16];
    size_t n = 0;
    for (const tq_tn *filter = node->kind == TQ_TN_SET_BLOCK ? node->b : node->a; filter; filter = filter->a) {
        if (n == 16) return tq_render_fail(r, TQ_UNSUPPORTED, "too many filters on a block");
        chain[n++] = filter;
    }
    while (n--) {
        tq_args args;
        TQ_TRY(eval_args(r, chain[n], scope, &args));
        TQ_TRY(tq_apply_filter(r, chain[n]->name, text, &args, &text));
    }
    if (node->kind == TQ_TN_SET_BLOCK) return assign(r, node->a, scope, text);
    const tq_tv_str *s;
    TQ_TRY(tq_tv_to_str(r, text, &s));
    return tq_tv_put_str(r, r->out, s);
}

static tq_status define_macro(tq_render *r, const tq_tn *macro, tq_tv_scope *scope, tq_tv *out) {
    tq_tv_callable *callable;
    TQ_TRY(TQ_NEW(r, 1, &callable));
    callable->macro = macro;
    callable->scope = scope;
    *out = (tq_tv){.type = TQ_TV_CALLABLE, .as.callable = callable};
    return TQ_OK;
}

static tq_status run_call_block(tq_render *r, const tq_tn *node, tq_tv_scope *scope) {
    tq_tv caller, callee, result;
    tq_args args, with_caller;
    const tq_tv_str *s;
    TQ_TRY(define_macro(r, node->b, scope, &caller));
    TQ_TRY(eval(r, node->a->a, scope, &callee));
    TQ_TRY(eval_args(r, node->a, scope, &args));
    with_caller = args;
    with_caller.n_named++;
    TQ_TRY(TQ_NEW(r, args.n + with_caller.n_named, &with_caller.values));
    TQ_TRY(TQ_NEW(r, with_caller.n_named, &with_caller.names));
    if (args.n + args.n_named) memcpy(with_caller.values, args.values, (args.n + args.n_named) * sizeof caller);
    if (args.n_named) memcpy(with_caller.names, args.names, args.n_named * sizeof *args.names);
    with_caller.values[args.n + args.n_named] = caller;
    with_caller.names[args.n_named] = node->b->name;
    TQ_TRY(tq_call(r, callee, &with_caller, &result));
    TQ_TRY(tq_tv_to_str(r, result, &s));
    return tq_tv_put_str(r, r->out, s);
}

static tq_status run_scope(tq_render *r, const tq_tn *node, tq_tv_scope *scope, flow *next) {
    tq_tv_scope *inner;
    TQ_TRY(new_scope(r, scope, &inner));
    for (size_t i = 0; i < node->n_others; i++) {
        tq_tv value;
        TQ_TRY(eval(r, node->others[i], scope, &value));
        TQ_TRY(set_var(r, inner, node->names[i], value));
    }
    return run_list(r, node->list, node->n, inner, next);
}

static tq_status run(tq_render *r, const tq_tn *node, tq_tv_scope *scope, flow *next) {
    tq_tv value;
    const tq_tv_str *s;
    switch (node->kind) {
    case TQ_TN_TEXT: return tq_tv_put_str(r, r->out, node->value.as.s);
    case TQ_TN_OUTPUT:
        TQ_TRY(eval(r, node->a, scope, &value));
        TQ_TRY(tq_tv_to_str(r, value, &s));
        return tq_tv_put_str(r, r->out, s);
    case TQ_TN_FOR: TQ_TRY(eval(r, node->b, scope, &value)); return run_for(r, node, value, 0, scope);
    case TQ_TN_IF:
        for (;;) { /* along the elifs without going deeper */
            TQ_TRY(eval(r, node->a, scope, &value));
            if (tq_tv_truth(value)) return run_list(r, node->list, node->n, scope, next);
            if (node->n_others != 1 || node->others[0]->kind != TQ_TN_IF) break;
            node = node->others[0];
        }
        return run_list(r, node->others, node->n_others, scope, next);
    case TQ_TN_SET: TQ_TRY(eval(r, node->b, scope, &value)); return assign(r, node->a, scope, value);
    case TQ_TN_SET_BLOCK:
    case TQ_TN_FILTER_BLOCK: return run_set_block(r, node, scope, next);
    case TQ_TN_MACRO: TQ_TRY(define_macro(r, node, scope, &value)); return set_var(r, scope, node->name, value);
    case TQ_TN_CALL_BLOCK: return run_call_block(r, node, scope);
    case TQ_TN_SCOPE: return run_scope(r, node, scope, next);
    case TQ_TN_BREAK: *next = FLOW_BREAK; return TQ_OK;
    case TQ_TN_CONTINUE: *next = FLOW_CONTINUE; return TQ_OK;
    default: return tq_render_fail(r, TQ_UNSUPPORTED, "an expression where a statement belongs");
    }
}

static tq_status run_list(tq_render *r, tq_tn *const *nodes, size_t n, tq_tv_scope *scope, flow *next) {
    if (++r->depth > max_depth) return tq_render_fail(r, TQ_INVALID, "the template nests too deeply");
    for (size_t i = 0; i < n && *next == FLOW_ON; i++) {
        r->line = nodes[i]->line;
        TQ_TRY(tq_render_charge(r, 1));
        TQ_TRY(run(r, nodes[i], scope, next));
    }
    r->depth--;
    return TQ_OK;
}

tq_status tq_template_run(tq_render *r, const tq_tn *root, tq_tv_scope *scope) {
    flow next = FLOW_ON;
    return run_list(r, root->list, root->n, scope, &next);
}
