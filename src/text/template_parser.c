/* template_parser.c: tokens to a tree; the grammar is Jinja's. */
#include <stdlib.h>
#include <string.h>

#include "text/template_ast.h"
#include "text/template_lexer.h"

enum { max_nesting = 200 };

typedef struct parser {
    tq_render *r;
    const tq_lex_token *tokens;
    size_t at;
    int depth, loops; /* loops: for statements around, within the macro */
} parser;

typedef struct node_list {
    tq_tn **nodes;
    size_t n, cap;
} node_list;

static const tq_lex_token *peek(const parser *p) { return &p->tokens[p->at]; }

static bool is_token(const tq_lex_token *token, tq_lex_type type, const char *text) {
    return token->type == type && token->n == strlen(text) && memcmp(token->text, text, token->n) == 0;
}

static bool at_op(const parser *p, const char *op) { return is_token(peek(p), TQ_LEX_OP, op); }
static bool at_name(const parser *p, const char *name) { return is_token(peek(p), TQ_LEX_NAME, name); }

static bool skip_op(parser *p, const char *op) { return at_op(p, op) ? p->at++, true : false; }
static bool skip_name(parser *p, const char *name) { return at_name(p, name) ? p->at++, true : false; }

static tq_status fail_at(parser *p, tq_status code, const char *what) {
    const tq_lex_token *token = peek(p);
    p->r->line = token->line;
    if (token->type == TQ_LEX_END) return tq_render_fail(p->r, code, "%s, found the end", what);
    return tq_render_fail(p->r, code, "%s, found %.*s", what, (int)(token->n < 40 ? token->n : 40), token->text);
}

static tq_status expect_op(parser *p, const char *op) {
    char what[24] = "expected ";
    if (skip_op(p, op)) return TQ_OK;
    return fail_at(p, TQ_FORMAT, strcat(what, op));
}

static tq_status new_node(parser *p, tq_tn_kind kind, tq_tn **out) {
    TQ_TRY(TQ_NEW(p->r, 1, out));
    (*out)->kind = kind;
    (*out)->line = peek(p)->line;
    return TQ_OK;
}

static tq_status add_node(parser *p, node_list *list, tq_tn *node) {
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 4;
        tq_tn **wider;
        TQ_TRY(TQ_NEW(p->r, cap, &wider));
        if (list->n) memcpy(wider, list->nodes, list->n * sizeof *wider);
        list->nodes = wider, list->cap = cap;
    }
    list->nodes[list->n++] = node;
    return TQ_OK;
}

static tq_status enter(parser *p) {
    if (++p->depth > max_nesting) return fail_at(p, TQ_UNSUPPORTED, "nested too deeply");
    return TQ_OK;
}

static tq_status take_name(parser *p, const tq_tv_str **name) {
    const tq_lex_token *token = peek(p);
    if (token->type != TQ_LEX_NAME) return fail_at(p, TQ_FORMAT, "expected a name");
    p->at++;
    return tq_tv_str_new(p->r, token->text, token->n, true, false, name);
}

/* ---- expressions ---- */

static tq_status parse_expression(parser *p, tq_tn **out);
static tq_status parse_unary(parser *p, bool with_filter, tq_tn **out);
static tq_status parse_tuple(parser *p, bool with_cond, bool parentheses, tq_tn **out);

static tq_status parse_number(parser *p, tq_tn *node) {
    const tq_lex_token *token = &p->tokens[p->at++];
    char text[400];
    size_t n = 0;
    for (size_t i = 0; i < token->n && n + 1 < sizeof text; i++) {
        if (token->text[i] != '_') text[n++] = token->text[i];
    }
    text[n] = '\0';
    if (token->type == TQ_LEX_FLOAT) {
        node->value = tq_tv_float(tq_parse_double(text, NULL));
        return TQ_OK;
    }
    if (n > 18 || (n > 1 && text[0] == '0' && strspn(text, "0") != n)) {
        p->at--;
        return fail_at(p, TQ_UNSUPPORTED, "an integer that cannot be read");
    }
    node->value = tq_tv_int(strtoll(text, NULL, 10));
    return TQ_OK;
}

static tq_status parse_strings(parser *p, tq_tn *node) {
    tq_tv_builder b = {0};
    while (peek(p)->type == TQ_LEX_STRING) {
        TQ_TRY(tq_tv_put(p->r, &b, peek(p)->text, peek(p)->n, true));
        p->at++;
    }
    return tq_tv_finish(p->r, &b, &node->value);
}

static tq_status parse_name(parser *p, tq_tn *node) {
    static const struct {
        const char *name;
        tq_tv_type type;
        bool truth;
    } constants[] = {{"true", TQ_TV_BOOL, true},   {"True", TQ_TV_BOOL, true},  {"false", TQ_TV_BOOL, false},
                     {"False", TQ_TV_BOOL, false}, {"none", TQ_TV_NONE, false}, {"None", TQ_TV_NONE, false}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (!skip_name(p, constants[i].name)) continue;
        node->value = constants[i].type == TQ_TV_NONE ? tq_tv_none() : tq_tv_bool(constants[i].truth);
        return TQ_OK;
    }
    node->kind = TQ_TN_NAME;
    return take_name(p, &node->name);
}

static tq_status parse_bracketed(parser *p, tq_tn *node) {
    bool dict = at_op(p, "{");
    const char *closing = dict ? "}" : "]";
    node_list keys = {0}, values = {0};
    node->kind = dict ? TQ_TN_DICT : TQ_TN_LIST;
    p->at++;
    while (!at_op(p, closing)) {
        tq_tn *item;
        if (keys.n) TQ_TRY(expect_op(p, ","));
        if (at_op(p, closing)) break;
        TQ_TRY(parse_expression(p, &item));
        TQ_TRY(add_node(p, &keys, item));
        if (!dict) continue;
        TQ_TRY(expect_op(p, ":"));
        TQ_TRY(parse_expression(p, &item));
        TQ_TRY(add_node(p, &values, item));
    }
    node->list = keys.nodes, node->n = keys.n;
    node->others = values.nodes, node->n_others = values.n;
    return expect_op(p, closing);
}

static tq_status parse_primary(parser *p, tq_tn **out) {
    const tq_lex_token *token = peek(p);
    TQ_TRY(new_node(p, TQ_TN_CONST, out));
    if (token->type == TQ_LEX_NAME) return parse_name(p, *out);
    if (token->type == TQ_LEX_STRING) return parse_strings(p, *out);
    if (token->type == TQ_LEX_INT || token->type == TQ_LEX_FLOAT) return parse_number(p, *out);
    if (at_op(p, "[") || at_op(p, "{")) return parse_bracketed(p, *out);
    if (skip_op(p, "(")) {
        TQ_TRY(parse_tuple(p, true, true, out));
        return expect_op(p, ")");
    }
    return fail_at(p, TQ_FORMAT, "expected an expression");
}

/* (a, b, name=c) into list, names and others of node. */
static tq_status parse_arguments(parser *p, tq_tn *node) {
    node_list positional = {0}, named = {0};
    const tq_tv_str *names[32];
    TQ_TRY(expect_op(p, "("));
    while (!at_op(p, ")")) {
        tq_tn *value;
        if (positional.n + named.n) TQ_TRY(expect_op(p, ","));
        if (at_op(p, ")")) break;
        if (at_op(p, "*") || at_op(p, "**")) return fail_at(p, TQ_UNSUPPORTED, "unpacked arguments are not supported");
        if (peek(p)->type == TQ_LEX_NAME && is_token(&p->tokens[p->at + 1], TQ_LEX_OP, "=")) {
            if (named.n == sizeof names / sizeof *names) return fail_at(p, TQ_UNSUPPORTED, "too many arguments");
            TQ_TRY(take_name(p, &names[named.n]));
            p->at++;
            TQ_TRY(parse_expression(p, &value));
            TQ_TRY(add_node(p, &named, value));
            continue;
        }
        if (named.n) return fail_at(p, TQ_FORMAT, "an argument without a name after one with a name");
        TQ_TRY(parse_expression(p, &value));
        TQ_TRY(add_node(p, &positional, value));
    }
    node->list = positional.nodes, node->n = positional.n;
    node->others = named.nodes, node->n_others = named.n;
    if (named.n) {
        TQ_TRY(TQ_NEW(p->r, named.n, &node->names));
        memcpy(node->names, names, named.n * sizeof *names);
    }
    return expect_op(p, ")");
}

static tq_status parse_subscript(parser *p, tq_tn *target, tq_tn **out) {
    TQ_TRY(new_node(p, TQ_TN_ITEM, out));
    tq_tn *node = *out;
    node->a = target;
    p->at++;
    if (!at_op(p, ":")) {
        TQ_TRY(parse_expression(p, &node->b));
        if (at_op(p, ",")) return fail_at(p, TQ_UNSUPPORTED, "several subscripts are not supported");
    }
    if (skip_op(p, ":")) {
        node->kind = TQ_TN_SLICE;
        if (!at_op(p, "]") && !at_op(p, ":")) TQ_TRY(parse_expression(p, &node->c));
        if (skip_op(p, ":") && !at_op(p, "]")) TQ_TRY(parse_expression(p, &node->d));
    }
    return expect_op(p, "]");
}

static tq_status parse_call(parser *p, tq_tn *target, tq_tn **out) {
    TQ_TRY(new_node(p, TQ_TN_CALL, out));
    (*out)->a = target;
    return parse_arguments(p, *out);
}

static tq_status parse_postfix(parser *p, tq_tn **node) {
    for (;;) {
        tq_tn *made;
        if (at_op(p, ".")) {
            p->at++;
            if (peek(p)->type == TQ_LEX_INT) {
                TQ_TRY(new_node(p, TQ_TN_ITEM, &made));
                TQ_TRY(new_node(p, TQ_TN_CONST, &made->b));
                TQ_TRY(parse_number(p, made->b));
            } else {
                TQ_TRY(new_node(p, TQ_TN_ATTR, &made));
                TQ_TRY(take_name(p, &made->name));
            }
            made->a = *node;
        } else if (at_op(p, "[")) {
            TQ_TRY(parse_subscript(p, *node, &made));
        } else if (at_op(p, "(")) {
            TQ_TRY(parse_call(p, *node, &made));
        } else {
            return TQ_OK;
        }
        *node = made;
    }
}

/* name(arguments) of a filter or test; names may have dots. */
static tq_status parse_filter_name(parser *p, tq_tn *node) {
    TQ_TRY(take_name(p, &node->name));
    if (at_op(p, ".")) return fail_at(p, TQ_UNSUPPORTED, "a filter name with a dot");
    return TQ_OK;
}

static tq_status parse_filters(parser *p, tq_tn **node) {
    while (at_op(p, "|")) {
        tq_tn *made;
        p->at++;
        TQ_TRY(new_node(p, TQ_TN_FILTER, &made));
        made->a = *node;
        TQ_TRY(parse_filter_name(p, made));
        if (at_op(p, "(")) TQ_TRY(parse_arguments(p, made));
        *node = made;
    }
    return TQ_OK;
}

static tq_status parse_test(parser *p, tq_tn **node) {
    tq_tn *made;
    TQ_TRY(new_node(p, TQ_TN_TEST, &made));
    p->at++;
    made->a = *node;
    made->flag = skip_name(p, "not");
    TQ_TRY(parse_filter_name(p, made));
    *node = made;
    const tq_lex_token *next = peek(p);
    if (at_op(p, "(")) return parse_arguments(p, made);
    bool operand = next->type == TQ_LEX_NAME || next->type == TQ_LEX_STRING || next->type == TQ_LEX_INT ||
                   next->type == TQ_LEX_FLOAT || at_op(p, "[") || at_op(p, "{");
    if (!operand || at_name(p, "else") || at_name(p, "or") || at_name(p, "and")) return TQ_OK;
    if (at_name(p, "is")) return fail_at(p, TQ_FORMAT, "two tests in a row");
    TQ_TRY(TQ_NEW(p->r, 1, &made->list));
    TQ_TRY(parse_primary(p, &made->list[0]));
    TQ_TRY(parse_postfix(p, &made->list[0]));
    made->n = 1;
    return TQ_OK;
}

static tq_status parse_filter_expression(parser *p, tq_tn **node) {
    for (;;) {
        if (at_op(p, "|")) {
            TQ_TRY(parse_filters(p, node));
        } else if (at_name(p, "is")) {
            TQ_TRY(parse_test(p, node));
        } else if (at_op(p, "(")) {
            tq_tn *made;
            TQ_TRY(parse_call(p, *node, &made));
            *node = made;
        } else {
            return TQ_OK;
        }
    }
}

static tq_status parse_unary(parser *p, bool with_filter, tq_tn **out) {
    TQ_TRY(enter(p));
    if (at_op(p, "-") || at_op(p, "+")) {
        TQ_TRY(new_node(p, TQ_TN_UNARY, out));
        (*out)->op = at_op(p, "-") ? TQ_OP_SUB : TQ_OP_ADD;
        p->at++;
        TQ_TRY(parse_unary(p, false, &(*out)->a));
    } else {
        TQ_TRY(parse_primary(p, out));
    }
    TQ_TRY(parse_postfix(p, out));
    if (with_filter) TQ_TRY(parse_filter_expression(p, out));
    p->depth--;
    return TQ_OK;
}

/* Left-associative operators, by level: ** binds closest, then * / // %, then ~, then + -. */
static tq_status parse_binary(parser *p, int level, tq_tn **out) {
    static const struct {
        const char *text;
        tq_tn_op op;
        int level;
    } operators[] = {{"+", TQ_OP_ADD, 0},        {"-", TQ_OP_SUB, 0}, {"*", TQ_OP_MUL, 2}, {"/", TQ_OP_DIV, 2},
                     {"//", TQ_OP_FLOOR_DIV, 2}, {"%", TQ_OP_MOD, 2}, {"**", TQ_OP_POW, 3}};
    enum { concat = 1, unary = 4 };
    if (level == unary) return parse_unary(p, true, out);
    TQ_TRY(parse_binary(p, level + 1, out));
    node_list parts = {0};
    while (level == concat && at_op(p, "~")) {
        tq_tn *part;
        p->at++;
        if (parts.n == 0) TQ_TRY(add_node(p, &parts, *out));
        TQ_TRY(parse_binary(p, level + 1, &part));
        TQ_TRY(add_node(p, &parts, part));
    }
    if (parts.n) {
        TQ_TRY(new_node(p, TQ_TN_CONCAT, out));
        (*out)->list = parts.nodes, (*out)->n = parts.n;
    }
    for (size_t i = 0; i < sizeof operators / sizeof *operators;) {
        if (operators[i].level != level || !at_op(p, operators[i].text)) {
            i++;
            continue;
        }
        tq_tn *made;
        TQ_TRY(new_node(p, TQ_TN_BINARY, &made));
        made->op = operators[i].op, made->a = *out;
        p->at++;
        TQ_TRY(parse_binary(p, level + 1, &made->b));
        *out = made;
        i = 0;
    }
    return TQ_OK;
}

static bool take_comparison(parser *p, tq_tn_op *op) {
    static const struct {
        const char *text;
        tq_tn_op op;
    } operators[] = {{"==", TQ_OP_EQ}, {"!=", TQ_OP_NE}, {"<", TQ_OP_LT},
                     {"<=", TQ_OP_LE}, {">", TQ_OP_GT},  {">=", TQ_OP_GE}};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (skip_op(p, operators[i].text)) return *op = operators[i].op, true;
    }
    if (skip_name(p, "in")) return *op = TQ_OP_IN, true;
    if (at_name(p, "not") && is_token(&p->tokens[p->at + 1], TQ_LEX_NAME, "in")) {
        p->at += 2;
        return *op = TQ_OP_NOT_IN, true;
    }
    return false;
}

static tq_status parse_compare(parser *p, tq_tn **out) {
    TQ_TRY(parse_binary(p, 0, out));
    tq_tn_op ops[32];
    size_t n = 0;
    node_list operands = {0};
    tq_tn *first = *out, *operand;
    while (n < 32 && take_comparison(p, &ops[n])) {
        n++;
        TQ_TRY(parse_binary(p, 0, &operand));
        TQ_TRY(add_node(p, &operands, operand));
    }
    if (n == 0) return TQ_OK;
    TQ_TRY(new_node(p, TQ_TN_COMPARE, out));
    (*out)->a = first;
    (*out)->list = operands.nodes, (*out)->n = n;
    TQ_TRY(TQ_NEW(p->r, n, &(*out)->ops));
    memcpy((*out)->ops, ops, n * sizeof *ops);
    return TQ_OK;
}

static tq_status parse_not(parser *p, tq_tn **out) {
    if (!at_name(p, "not")) return parse_compare(p, out);
    TQ_TRY(enter(p));
    TQ_TRY(new_node(p, TQ_TN_NOT, out));
    p->at++;
    TQ_TRY(parse_not(p, &(*out)->a));
    p->depth--;
    return TQ_OK;
}

static tq_status parse_logic(parser *p, bool is_or, tq_tn **out) {
    TQ_TRY(is_or ? parse_logic(p, false, out) : parse_not(p, out));
    while (skip_name(p, is_or ? "or" : "and")) {
        tq_tn *made;
        TQ_TRY(new_node(p, is_or ? TQ_TN_OR : TQ_TN_AND, &made));
        made->a = *out;
        TQ_TRY(is_or ? parse_logic(p, false, &made->b) : parse_not(p, &made->b));
        *out = made;
    }
    return TQ_OK;
}

static tq_status parse_expression(parser *p, tq_tn **out) {
    TQ_TRY(enter(p));
    TQ_TRY(parse_logic(p, true, out));
    while (skip_name(p, "if")) {
        tq_tn *made;
        TQ_TRY(new_node(p, TQ_TN_COND, &made));
        made->a = *out;
        TQ_TRY(parse_logic(p, true, &made->b));
        if (skip_name(p, "else")) TQ_TRY(parse_expression(p, &made->c));
        *out = made;
    }
    p->depth--;
    return TQ_OK;
}

/* a or a, b, ...; nothing only between parentheses. */
static tq_status parse_tuple(parser *p, bool with_cond, bool parentheses, tq_tn **out) {
    node_list items = {0};
    bool comma = false;
    for (;;) {
        const tq_lex_token *token = peek(p);
        bool ends = token->type == TQ_LEX_BLOCK_END || token->type == TQ_LEX_PRINT_END || at_op(p, ")") ||
                    (!with_cond && at_name(p, "recursive"));
        if (ends) break;
        TQ_TRY(with_cond ? parse_expression(p, out) : parse_logic(p, true, out));
        TQ_TRY(add_node(p, &items, *out));
        if (!skip_op(p, ",")) break;
        comma = true;
    }
    if (items.n == 0 && !parentheses) return fail_at(p, TQ_FORMAT, "expected an expression");
    if (items.n == 1 && !comma) return TQ_OK;
    TQ_TRY(new_node(p, TQ_TN_TUPLE, out));
    (*out)->list = items.nodes, (*out)->n = items.n;
    return TQ_OK;
}

/* ---- statements ---- */

static tq_status parse_body(parser *p, const char *const *ends, node_list *out);

static tq_status expect_block_end(parser *p) {
    if (peek(p)->type != TQ_LEX_BLOCK_END) return fail_at(p, TQ_FORMAT, "expected %}");
    p->at++;
    return TQ_OK;
}

/* The statements up to {% end %}, which is eaten. */
static tq_status parse_block(parser *p, const char *end, tq_tn *node) {
    const char *const ends[] = {end, NULL};
    node_list body = {0};
    TQ_TRY(expect_block_end(p));
    TQ_TRY(parse_body(p, ends, &body));
    node->list = body.nodes, node->n = body.n;
    p->at++; /* the end's name */
    return expect_block_end(p);
}

static tq_status parse_target(parser *p, bool with_namespace, tq_tn **out) {
    node_list names = {0};
    bool comma = false;
    if (with_namespace && is_token(&p->tokens[p->at + 1], TQ_LEX_OP, ".")) {
        tq_tn *ns;
        TQ_TRY(new_node(p, TQ_TN_NAME, &ns));
        TQ_TRY(take_name(p, &ns->name));
        p->at++;
        TQ_TRY(new_node(p, TQ_TN_ATTR, out));
        (*out)->a = ns;
        return take_name(p, &(*out)->name);
    }
    bool parentheses = skip_op(p, "(");
    do {
        tq_tn *name;
        if (names.n && (at_name(p, "in") || at_op(p, "=") || at_op(p, ")"))) break;
        TQ_TRY(new_node(p, TQ_TN_NAME, &name));
        TQ_TRY(enter(p));
        if (at_op(p, "(")) TQ_TRY(parse_target(p, false, &name));
        else TQ_TRY(take_name(p, &name->name));
        p->depth--;
        static const char *const taken[] = {"true", "false", "none", "True", "False", "None"};
        for (size_t i = 0; name->kind == TQ_TN_NAME && i < sizeof taken / sizeof *taken; i++) {
            if (tq_tv_str_is(name->name, taken[i])) return fail_at(p, TQ_FORMAT, "a constant cannot be set");
        }
        TQ_TRY(add_node(p, &names, name));
        comma = at_op(p, ",") || comma;
    } while (skip_op(p, ","));
    if (parentheses) TQ_TRY(expect_op(p, ")"));
    *out = names.nodes[0];
    if (!comma) return TQ_OK;
    TQ_TRY(new_node(p, TQ_TN_TUPLE, out));
    (*out)->list = names.nodes, (*out)->n = names.n;
    return TQ_OK;
}

/* Whether a name is read anywhere in tokens from..to: then it is worth providing. */
static bool mentions(const parser *p, size_t from, size_t to, const char *name) {
    for (size_t i = from; i < to; i++) {
        if (is_token(&p->tokens[i], TQ_LEX_NAME, name)) return true;
    }
    return false;
}

static tq_status parse_for(parser *p, tq_tn *node) {
    static const char *const ends[] = {"endfor", "else", NULL}, *const else_ends[] = {"endfor", NULL};
    node_list body = {0}, otherwise = {0};
    node->kind = TQ_TN_FOR;
    TQ_TRY(parse_target(p, false, &node->a));
    if (!skip_name(p, "in")) return fail_at(p, TQ_FORMAT, "expected in");
    TQ_TRY(parse_tuple(p, false, false, &node->b));
    if (skip_name(p, "if")) TQ_TRY(parse_expression(p, &node->c));
    node->flag = skip_name(p, "recursive");
    TQ_TRY(expect_block_end(p));
    size_t start = p->at;
    p->loops++;
    TQ_TRY(parse_body(p, ends, &body));
    p->loops--;
    node->uses_loop = node->flag || mentions(p, start, p->at, "loop");
    node->list = body.nodes, node->n = body.n;
    if (skip_name(p, "else")) {
        TQ_TRY(expect_block_end(p));
        TQ_TRY(parse_body(p, else_ends, &otherwise));
        node->others = otherwise.nodes, node->n_others = otherwise.n;
    }
    p->at++;
    return expect_block_end(p);
}

static tq_status parse_if(parser *p, tq_tn *node) {
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const else_ends[] = {"endif", NULL};
    for (;;) { /* every elif is an if in the else of the one before */
        node_list body = {0}, otherwise = {0};
        node->kind = TQ_TN_IF;
        TQ_TRY(parse_tuple(p, false, false, &node->a));
        TQ_TRY(expect_block_end(p));
        TQ_TRY(parse_body(p, ends, &body));
        node->list = body.nodes, node->n = body.n;
        if (skip_name(p, "elif")) {
            tq_tn *next;
            TQ_TRY(new_node(p, TQ_TN_IF, &next));
            TQ_TRY(add_node(p, &otherwise, next));
            node->others = otherwise.nodes, node->n_others = 1;
            node = next;
            continue;
        }
        if (skip_name(p, "else")) {
            TQ_TRY(expect_block_end(p));
            TQ_TRY(parse_body(p, else_ends, &otherwise));
            node->others = otherwise.nodes, node->n_others = otherwise.n;
        }
        p->at++;
        return expect_block_end(p);
    }
}

static tq_status parse_set(parser *p, tq_tn *node) {
    TQ_TRY(parse_target(p, true, &node->a));
    if (skip_op(p, "=")) {
        node->kind = TQ_TN_SET;
        TQ_TRY(parse_tuple(p, true, false, &node->b));
        return expect_block_end(p);
    }
    node->kind = TQ_TN_SET_BLOCK;
    if (at_op(p, "|")) TQ_TRY(parse_filters(p, &node->b));
    return parse_block(p, "endset", node);
}

/* (name, name=default, ...) into names and others; others holds NULL where there is no default. */
static tq_status parse_parameters(parser *p, tq_tn *node) {
    const tq_tv_str *names[32];
    node_list defaults = {0};
    bool optional = false;
    size_t n = 0;
    TQ_TRY(expect_op(p, "("));
    while (!at_op(p, ")")) {
        tq_tn *value = NULL;
        if (n) TQ_TRY(expect_op(p, ","));
        if (n == sizeof names / sizeof *names) return fail_at(p, TQ_UNSUPPORTED, "too many parameters");
        TQ_TRY(take_name(p, &names[n]));
        if (skip_op(p, "=")) {
            TQ_TRY(parse_expression(p, &value));
            optional = true;
        } else if (optional) {
            return fail_at(p, TQ_FORMAT, "a parameter without a default after one with a default");
        }
        TQ_TRY(add_node(p, &defaults, value));
        n++;
    }
    node->others = defaults.nodes, node->n_others = node->n_names = n;
    if (n) {
        TQ_TRY(TQ_NEW(p->r, n, &node->names));
        memcpy(node->names, names, n * sizeof *names);
    }
    return expect_op(p, ")");
}

static tq_status parse_macro_body(parser *p, const char *end, tq_tn *macro) {
    size_t start = p->at;
    int loops = p->loops;
    macro->kind = TQ_TN_MACRO;
    p->loops = 0;
    TQ_TRY(parse_block(p, end, macro));
    p->loops = loops;
    macro->uses_varargs = mentions(p, start, p->at, "varargs");
    macro->uses_kwargs = mentions(p, start, p->at, "kwargs");
    macro->uses_caller = mentions(p, start, p->at, "caller");
    return TQ_OK;
}

static tq_status parse_call_block(parser *p, tq_tn *node) {
    node->kind = TQ_TN_CALL_BLOCK;
    TQ_TRY(new_node(p, TQ_TN_MACRO, &node->b));
    TQ_TRY(tq_tv_str_new(p->r, "caller", 6, true, false, &node->b->name));
    if (at_op(p, "(")) TQ_TRY(parse_parameters(p, node->b));
    TQ_TRY(parse_expression(p, &node->a));
    if (node->a->kind != TQ_TN_CALL) return fail_at(p, TQ_FORMAT, "expected a call");
    return parse_macro_body(p, "endcall", node->b);
}

static tq_status parse_with(parser *p, tq_tn *node) {
    node_list targets = {0}, values = {0};
    node->kind = TQ_TN_SCOPE;
    while (peek(p)->type != TQ_LEX_BLOCK_END) {
        tq_tn *target, *value;
        if (targets.n) TQ_TRY(expect_op(p, ","));
        TQ_TRY(new_node(p, TQ_TN_NAME, &target));
        TQ_TRY(take_name(p, &target->name));
        TQ_TRY(expect_op(p, "="));
        TQ_TRY(parse_expression(p, &value));
        TQ_TRY(add_node(p, &targets, target));
        TQ_TRY(add_node(p, &values, value));
    }
    if (targets.n) TQ_TRY(TQ_NEW(p->r, targets.n, &node->names));
    for (size_t i = 0; i < targets.n; i++) node->names[i] = targets.nodes[i]->name;
    node->others = values.nodes, node->n_others = values.n;
    return parse_block(p, "endwith", node);
}

static tq_status parse_statement(parser *p, tq_tn **out) {
    TQ_TRY(new_node(p, TQ_TN_SCOPE, out));
    tq_tn *node = *out;
    if (skip_name(p, "for")) return parse_for(p, node);
    if (skip_name(p, "if")) return parse_if(p, node);
    if (skip_name(p, "set")) return parse_set(p, node);
    if (skip_name(p, "with")) return parse_with(p, node);
    if (skip_name(p, "call")) return parse_call_block(p, node);
    if (skip_name(p, "generation")) return parse_block(p, "endgeneration", node);
    if (skip_name(p, "macro")) {
        TQ_TRY(take_name(p, &node->name));
        TQ_TRY(parse_parameters(p, node));
        return parse_macro_body(p, "endmacro", node);
    }
    if (at_name(p, "filter")) {
        node->kind = TQ_TN_FILTER_BLOCK;
        p->at++;
        TQ_TRY(new_node(p, TQ_TN_FILTER, &node->a));
        TQ_TRY(parse_filter_name(p, node->a));
        if (at_op(p, "(")) TQ_TRY(parse_arguments(p, node->a));
        TQ_TRY(parse_filters(p, &node->a));
        return parse_block(p, "endfilter", node);
    }
    if (at_name(p, "break") || at_name(p, "continue")) {
        node->kind = at_name(p, "break") ? TQ_TN_BREAK : TQ_TN_CONTINUE;
        if (!p->loops) return fail_at(p, TQ_FORMAT, "outside of a loop");
        p->at++;
        return expect_block_end(p);
    }
    bool known = at_name(p, "include") || at_name(p, "import") || at_name(p, "from") || at_name(p, "extends") ||
                 at_name(p, "block") || at_name(p, "autoescape") || at_name(p, "do") || at_name(p, "trans");
    if (known) return fail_at(p, TQ_UNSUPPORTED, "a statement that is not supported");
    return fail_at(p, TQ_FORMAT, "expected a statement");
}

/* Statements up to {% one of ends, whose name is the next token; ends NULL: up to the end of the template. */
static tq_status parse_body(parser *p, const char *const *ends, node_list *out) {
    TQ_TRY(enter(p));
    for (;;) {
        const tq_lex_token *token = peek(p);
        tq_tn *node;
        if (token->type == TQ_LEX_END) {
            if (ends) return fail_at(p, TQ_FORMAT, "a block without end");
            break;
        }
        if (token->type == TQ_LEX_TEXT) {
            const tq_tv_str *text;
            TQ_TRY(new_node(p, TQ_TN_TEXT, &node));
            TQ_TRY(tq_tv_str_new(p->r, token->text, token->n, true, false, &text));
            node->value = tq_tv_string(text);
            p->at++;
        } else if (token->type == TQ_LEX_PRINT) {
            p->at++;
            TQ_TRY(new_node(p, TQ_TN_OUTPUT, &node));
            TQ_TRY(parse_tuple(p, true, false, &node->a));
            if (peek(p)->type != TQ_LEX_PRINT_END) return fail_at(p, TQ_FORMAT, "expected }}");
            p->at++;
        } else {
            p->at++;
            for (const char *const *end = ends; end && *end; end++) {
                if (!at_name(p, *end)) continue;
                p->depth--;
                return TQ_OK;
            }
            TQ_TRY(parse_statement(p, &node));
        }
        TQ_TRY(add_node(p, out, node));
    }
    p->depth--;
    return TQ_OK;
}

tq_status tq_template_parse(tq_render *r, const char *source, size_t n, tq_tn **out) {
    parser p = {.r = r};
    tq_lex_token *tokens;
    size_t n_tokens;
    TQ_TRY(tq_lex(r, source, n, &tokens, &n_tokens));
    p.tokens = tokens;
    node_list body = {0};
    TQ_TRY(new_node(&p, TQ_TN_SCOPE, out));
    TQ_TRY(parse_body(&p, NULL, &body));
    (*out)->list = body.nodes, (*out)->n = body.n;
    return TQ_OK;
}
