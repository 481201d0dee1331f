/* template_ast.h: a parsed template.  Nodes live in the template's arena and are never changed. */
#ifndef TQ_TEXT_TEMPLATE_AST_H
#define TQ_TEXT_TEMPLATE_AST_H

#include "text/template_value.h"

typedef enum tq_tn_kind {
    /* expressions */
    TQ_TN_CONST,  /* value */
    TQ_TN_NAME,   /* name */
    TQ_TN_LIST,   /* list */
    TQ_TN_TUPLE,  /* list; also a target of an assignment */
    TQ_TN_DICT,   /* list: keys, others: values */
    TQ_TN_UNARY,  /* op a */
    TQ_TN_BINARY, /* a op b */
    TQ_TN_AND,
    TQ_TN_OR,
    TQ_TN_NOT,
    TQ_TN_COMPARE, /* a, then list with ops */
    TQ_TN_CONCAT,  /* list */
    TQ_TN_COND,    /* a if b else c; c may be NULL */
    TQ_TN_ATTR,    /* a.name; as a target: namespace member */
    TQ_TN_ITEM,    /* a[b] */
    TQ_TN_SLICE,   /* a[b:c:d]; each may be NULL */
    TQ_TN_CALL,    /* a(list, names=others) */
    TQ_TN_FILTER,  /* a|name(list, names=others); a NULL: the text of a block */
    TQ_TN_TEST,    /* a is name(list, names=others); flag: is not */
    /* statements */
    TQ_TN_TEXT,         /* value */
    TQ_TN_OUTPUT,       /* a */
    TQ_TN_FOR,          /* for a in b if c: list, else: others; flag: recursive; uses_loop */
    TQ_TN_IF,           /* if a: list, else: others (an elif is an IF in others) */
    TQ_TN_SET,          /* a = b */
    TQ_TN_SET_BLOCK,    /* a = list, through filter b or NULL */
    TQ_TN_MACRO,        /* name(names, defaults others): list */
    TQ_TN_CALL_BLOCK,   /* a is the call, b the macro "caller" */
    TQ_TN_FILTER_BLOCK, /* filter a over list */
    TQ_TN_SCOPE,        /* list in a scope of its own, with targets names = others (with), or none (generation) */
    TQ_TN_BREAK,
    TQ_TN_CONTINUE
} tq_tn_kind;

typedef enum tq_tn_op {
    TQ_OP_ADD,
    TQ_OP_SUB,
    TQ_OP_MUL,
    TQ_OP_DIV,
    TQ_OP_FLOOR_DIV,
    TQ_OP_MOD,
    TQ_OP_POW,
    TQ_OP_EQ,
    TQ_OP_NE,
    TQ_OP_LT,
    TQ_OP_LE,
    TQ_OP_GT,
    TQ_OP_GE,
    TQ_OP_IN,
    TQ_OP_NOT_IN
} tq_tn_op;

typedef struct tq_tn {
    tq_tn_kind kind;
    tq_tn_op op;
    int line;
    bool flag, uses_loop, uses_varargs, uses_kwargs, uses_caller;
    struct tq_tn *a, *b, *c, *d;
    struct tq_tn **list, **others;
    size_t n, n_others;
    const tq_tv_str **names; /* of the last arguments (n_others), or of parameters (n_names) */
    size_t n_names;
    const tq_tv_str *name;
    tq_tn_op *ops;
    tq_tv value;
} tq_tn;

/* The statements of a template, as one SCOPE node. */
tq_status tq_template_parse(tq_render *r, const char *source, size_t n, tq_tn **out);

/* Run statements or evaluate; r->out is where output goes. */
tq_status tq_template_run(tq_render *r, const tq_tn *root, tq_tv_scope *scope);

/* ---- calls: shared by the evaluator and the tables of functions ---- */

typedef struct tq_args {
    tq_tv *values; /* positional first, then named */
    size_t n, n_named;
    const tq_tv_str **names; /* (n_named) */
} tq_args;

enum { tq_max_params = 6 };

/* Arguments into the slots of parameters (NULL-terminated names); a slot not given is MISSING. */
tq_status tq_args_bind(tq_render *r, const char *what, const tq_args *args, const char *const *params, tq_tv *slots);

typedef struct tq_function {
    const char *name;
    tq_status (*call)(tq_render *r, const tq_args *args, tq_tv *out);
} tq_function;

typedef struct tq_method {
    const char *name;
    tq_tv_type type;
    const char *params[4]; /* NULL-terminated; a method of any number of arguments has "*" */
    tq_status (*call)(tq_render *r, tq_tv self, const tq_args *args, const tq_tv *slots, tq_tv *out);
} tq_method;

/* A function of the language by name, or NULL. */
const tq_function *tq_find_function(const tq_tv_str *name);
/* A method of a value's type, or NULL. */
const tq_method *tq_find_method(tq_tv self, const tq_tv_str *name);

tq_status tq_apply_filter(tq_render *r, const tq_tv_str *name, tq_tv value, const tq_args *args, tq_tv *out);
tq_status tq_apply_test(tq_render *r, const tq_tv_str *name, tq_tv value, const tq_args *args, bool *out);
bool tq_filter_exists(const tq_tv_str *name);
bool tq_test_exists(const tq_tv_str *name);

/* value.name and value[key] with Jinja's fallbacks: undefined if there is nothing. */
tq_status tq_get_attribute(tq_render *r, tq_tv value, const tq_tv_str *name, tq_tv *out);
tq_status tq_get_item(tq_render *r, tq_tv value, tq_tv key, tq_tv *out);
tq_status tq_call(tq_render *r, tq_tv callee, const tq_args *args, tq_tv *out);
tq_status tq_binary(tq_render *r, tq_tn_op op, tq_tv a, tq_tv b, tq_tv *out);
tq_status tq_contains(tq_render *r, tq_tv container, tq_tv item, bool *out);
tq_status tq_slice(tq_render *r, tq_tv value, tq_tv from, tq_tv to, tq_tv step, tq_tv *out);

#endif
