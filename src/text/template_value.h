/* template_value.h: the values of the template language, and the memory of one render.
 *
 * Everything made during a render lies in its arena and goes with it: no value is ever freed by itself.  Strings carry
 * where their bytes come from: the template, or data. */
#ifndef TQ_TEXT_TEMPLATE_VALUE_H
#define TQ_TEXT_TEMPLATE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* ---- memory and limits ---- */

typedef struct tq_arena {
    struct tq_arena_block *blocks;
    size_t total, limit; /* bytes */
} tq_arena;

/* Zeroed memory, aligned for anything; lives as long as the arena. */
tq_status tq_arena_alloc(tq_arena *arena, size_t bytes, void *out_pointer, tq_error *err);
void tq_arena_free(tq_arena *arena);

/* One render (or one parse): its memory, what it may still spend, and the line it is at. */
typedef struct tq_render {
    tq_arena arena;
    size_t steps_left, string_cap; /* string_cap: bytes of the longest string */
    int depth, macro_depth, line;
    struct tq_tv_builder *out; /* where output goes now */
    struct tq_tv_scope *root;
    tq_error *err;
} tq_render;

/* Fail with "line N: ...". */
tq_status tq_render_fail(tq_render *r, tq_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Pay for n units of work (a unit is about a node, or 64 bytes). */
tq_status tq_render_charge(tq_render *r, size_t n);
#define TQ_NEW(r, count, out) tq_arena_alloc(&(r)->arena, (count) * sizeof **(out), (out), (r)->err)

/* ---- values ---- */

typedef enum tq_tv_type {
    TQ_TV_UNDEFINED,
    TQ_TV_NONE,
    TQ_TV_BOOL,
    TQ_TV_INT,
    TQ_TV_FLOAT,
    TQ_TV_STR,
    TQ_TV_LIST,
    TQ_TV_DICT,
    TQ_TV_NAMESPACE,
    TQ_TV_CALLABLE,
    TQ_TV_LOOP,
    TQ_TV_MISSING /* an argument that was not given; never seen by a template */
} tq_tv_type;

/* Bytes up to `end` (from the end of the run before) have one origin. */
typedef struct tq_tv_run {
    size_t end;
    bool from_template;
} tq_tv_run;

typedef struct tq_tv_str {
    const char *bytes;     /* UTF-8, any characters; not NUL-terminated */
    size_t n, n_chars;     /* n_chars: characters */
    const tq_tv_run *runs; /* NULL: all bytes are as from_template says */
    size_t n_runs;
    bool from_template;
} tq_tv_str;

typedef struct tq_tv {
    tq_tv_type type;
    union {
        bool b;
        int64_t i;
        double f;
        const tq_tv_str *s; /* UNDEFINED: the name that was looked for, or NULL */
        struct tq_tv_list *list;
        struct tq_tv_dict *dict; /* DICT, NAMESPACE */
        struct tq_tv_callable *callable;
        struct tq_tv_loop *loop;
    } as;
} tq_tv;

/* What Python would call it: they print, index and count differently. */
typedef enum tq_tv_list_kind {
    TQ_TV_PLAIN_LIST,
    TQ_TV_TUPLE,
    TQ_TV_GENERATOR,
    TQ_TV_ITEMS,
    TQ_TV_KEYS,
    TQ_TV_VALUES,
    TQ_TV_RANGE
} tq_tv_list_kind;

typedef struct tq_tv_list {
    tq_tv_list_kind kind;
    tq_tv *items;
    size_t n, cap;
    int64_t range[3]; /* RANGE: start, stop, step */
} tq_tv_list;

typedef struct tq_tv_dict {
    tq_tv *keys, *values; /* in order of insertion */
    size_t n, cap;
} tq_tv_dict;

/* What can be called: a macro with the scope it was defined in, a function by name, or a method of a value. */
typedef struct tq_tv_callable {
    const struct tq_tn *macro;
    struct tq_tv_scope *scope;
    const struct tq_function *function;
    const struct tq_method *method;
    tq_tv self;
} tq_tv_callable;

typedef struct tq_tv_loop {
    const tq_tv_list *items;
    size_t index, depth0;
    tq_tv last_changed;            /* for loop.changed() */
    const struct tq_tn *recursive; /* the statement, if it may call itself */
    struct tq_tv_scope *scope;
} tq_tv_loop;

typedef struct tq_tv_var {
    const tq_tv_str *name;
    tq_tv value;
    struct tq_tv_var *next;
} tq_tv_var;

typedef struct tq_tv_scope {
    struct tq_tv_scope *parent;
    tq_tv_var *vars;
} tq_tv_scope;

static inline tq_tv tq_tv_none(void) { return (tq_tv){.type = TQ_TV_NONE}; }
static inline tq_tv tq_tv_bool(bool b) { return (tq_tv){.type = TQ_TV_BOOL, .as.b = b}; }
static inline tq_tv tq_tv_int(int64_t i) { return (tq_tv){.type = TQ_TV_INT, .as.i = i}; }
static inline tq_tv tq_tv_float(double f) { return (tq_tv){.type = TQ_TV_FLOAT, .as.f = f}; }
static inline tq_tv tq_tv_string(const tq_tv_str *s) { return (tq_tv){.type = TQ_TV_STR, .as.s = s}; }
static inline tq_tv tq_tv_undefined(const tq_tv_str *name) { return (tq_tv){.type = TQ_TV_UNDEFINED, .as.s = name}; }
static inline bool tq_tv_is_number(tq_tv v) {
    return v.type == TQ_TV_BOOL || v.type == TQ_TV_INT || v.type == TQ_TV_FLOAT;
}
/* "string", "list", ...: for error texts, in Python's words. */
const char *tq_tv_type_name(tq_tv value);

/* ---- strings ---- */

/* Borrowed bytes, or a copy. */
tq_status tq_tv_str_new(tq_render *r, const char *bytes, size_t n, bool from_template, bool copy,
                        const tq_tv_str **out);
bool tq_tv_str_is(const tq_tv_str *s, const char *text);
/* Part of a string, bytes from..to, which are at characters. */
tq_status tq_tv_str_part(tq_render *r, const tq_tv_str *s, size_t from, size_t to, const tq_tv_str **out);
/* Byte offset of character `index` (<= n_chars). */
size_t tq_tv_str_offset(const tq_tv_str *s, size_t index);
/* Bytes of the character that begins with this byte. */
size_t tq_utf8_width(char first);
uint32_t tq_utf8_decode(const char *at);
size_t tq_utf8_encode(uint32_t c, char dst[4]);
/* Python's str.isspace(). */
bool tq_tv_is_space(uint32_t c);

/* A string being built. */
typedef struct tq_tv_builder {
    char *bytes;
    size_t n, cap;
    tq_tv_run *runs;
    size_t n_runs, runs_cap;
} tq_tv_builder;

tq_status tq_tv_put(tq_render *r, tq_tv_builder *b, const char *bytes, size_t n, bool from_template);
tq_status tq_tv_put_part(tq_render *r, tq_tv_builder *b, const tq_tv_str *s, size_t from, size_t to);
tq_status tq_tv_put_str(tq_render *r, tq_tv_builder *b, const tq_tv_str *s);
/* The string so far; the builder may go on. */
tq_status tq_tv_finish(tq_render *r, const tq_tv_builder *b, tq_tv *out);

/* ---- lists and dicts ---- */

tq_status tq_tv_list_new(tq_render *r, tq_tv_list_kind kind, tq_tv_list **out);
tq_status tq_tv_list_add(tq_render *r, tq_tv_list *list, tq_tv item);
tq_tv tq_tv_of_list(tq_tv_list *list);
tq_status tq_tv_dict_new(tq_render *r, tq_tv_dict **out);
tq_status tq_tv_dict_set(tq_render *r, tq_tv_dict *dict, tq_tv key, tq_tv value);
/* NULL if absent. */
const tq_tv *tq_tv_dict_get(const tq_tv_dict *dict, tq_tv key);
const tq_tv *tq_tv_dict_find(const tq_tv_dict *dict, const char *key);

/* ---- what Python does with any value ---- */

bool tq_tv_truth(tq_tv value);
tq_status tq_tv_equal(tq_render *r, tq_tv a, tq_tv b, bool *equal);
/* -1, 0, 1; fails for values that have no order. */
tq_status tq_tv_compare(tq_render *r, tq_tv a, tq_tv b, int *order);
/* The items that iterating gives: characters, keys, items; empty for undefined.  Uses up a generator. */
tq_status tq_tv_iterate(tq_render *r, tq_tv value, tq_tv_list **out);
/* str(value); origins are kept for strings, anything else is data. */
tq_status tq_tv_to_str(tq_render *r, tq_tv value, const tq_tv_str **out);
tq_status tq_tv_repr(tq_render *r, tq_tv_builder *b, tq_tv value);
/* repr(float); dst holds 40 bytes. */
void tq_float_repr(double value, char *dst);
/* strtod as in the C locale, whatever the program's is; text is NUL-terminated. */
double tq_parse_double(const char *text, char **end);

typedef struct tq_json_style {
    int indent; /* -1: one line */
    bool ensure_ascii, sort_keys;
    const tq_tv_str *item_separator, *key_separator; /* NULL: Python's */
    const tq_tv_str *indent_text;                    /* instead of indent spaces, if not NULL */
} tq_json_style;

/* json.dumps(value). */
tq_status tq_tv_to_json(tq_render *r, tq_tv_builder *b, tq_tv value, const tq_json_style *style);

#endif
