/* chat_template.c: see chat_template.h.
 * Owns: limits, the way from JSON to template values, and the result.  Not here: the language (template_*.c). */
#include "text/chat_template.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/template_ast.h"

enum {
    max_source = 1 << 20,
    max_steps = 4000000,
    max_string = 16 << 20,
    max_arena = 256 << 20,
    max_parse_arena = 64 << 20,
    max_json_depth = 200
};

struct tq_chat_template {
    tq_arena arena;
    tq_tn *root;
};

/* Newlines as \n, and without the last one. */
static size_t normalise_newlines(const char *source, size_t n, char *dst) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r') {
            dst[kept++] = '\n';
            if (i + 1 < n && source[i + 1] == '\n') i++;
        } else {
            dst[kept++] = source[i];
        }
    }
    return kept && dst[kept - 1] == '\n' ? kept - 1 : kept;
}

tq_status tq_chat_template_new(const char *source, size_t source_len, tq_chat_template **out, tq_error *err) {
    *out = NULL;
    if (source_len > max_source) return tq_fail(err, TQ_UNSUPPORTED, "a template of more than 1 MiB");
    size_t valid = tq_utf8_valid_prefix(source, source_len);
    if (valid < source_len) return tq_fail(err, TQ_FORMAT, "the template is not valid UTF-8 at byte %zu", valid);
    tq_chat_template *tmpl = calloc(1, sizeof *tmpl);
    if (!tmpl) return tq_fail_memory(err, sizeof *tmpl, "a template");
    tq_render r = {.arena = {.limit = max_parse_arena}, .steps_left = SIZE_MAX, .string_cap = max_string, .err = err};
    char *kept;
    tq_status status = TQ_NEW(&r, source_len + 1, &kept);
    if (status == TQ_OK) {
        size_t n = normalise_newlines(source, source_len, kept);
        status = tq_template_parse(&r, kept, n, &tmpl->root);
    }
    tmpl->arena = r.arena;
    if (status == TQ_OK) *out = tmpl;
    else tq_chat_template_free(tmpl);
    return status;
}

void tq_chat_template_free(tq_chat_template *tmpl) {
    if (!tmpl) return;
    tq_arena_free(&tmpl->arena);
    free(tmpl);
}

/* ---- context ---- */

/* Words of the protocol rather than of a person: templates build control tokens from them ("<|" + role + "|>").  Each
 * is a fixed word, which by itself is no control token. */
static bool is_role(const char *text, size_t n) {
    static const char *const roles[] = {"system",   "user",    "assistant", "tool",  "developer",
                                        "function", "ipython", "model",     "tools", "environment"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (strlen(roles[i]) == n && memcmp(roles[i], text, n) == 0) return true;
    }
    return false;
}

/* Variables that hold control tokens of the model itself. */
static bool is_token_name(const char *name) {
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                        "sep_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) return true;
    }
    return false;
}

static tq_status convert(tq_render *r, const json_t *json, const char *key, int depth, tq_tv *out);

static tq_status convert_string(tq_render *r, const json_t *json, const char *key, int depth, tq_tv *out) {
    const tq_tv_str *s;
    const char *text = json_string_value(json);
    size_t n = json_string_length(json);
    bool trusted = key && ((strcmp(key, "role") == 0 && is_role(text, n)) || (depth == 1 && is_token_name(key)));
    if (tq_utf8_valid_prefix(text, n) < n) return tq_fail(r->err, TQ_INVALID, "a variable is not valid UTF-8");
    TQ_TRY(tq_tv_str_new(r, text, n, trusted, false, &s)); /* borrowed: the context outlives the render */
    *out = tq_tv_string(s);
    return TQ_OK;
}

static tq_status convert_object(tq_render *r, const json_t *json, int depth, tq_tv *out) {
    tq_tv_dict *dict;
    const char *key;
    const json_t *member;
    size_t n = json_object_size(json);
    TQ_TRY(tq_tv_dict_new(r, &dict));
    *out = (tq_tv){.type = TQ_TV_DICT, .as.dict = dict};
    if (n == 0) return TQ_OK;
    TQ_TRY(TQ_NEW(r, n, &dict->keys));
    TQ_TRY(TQ_NEW(r, n, &dict->values));
    dict->cap = n;
    json_object_foreach((json_t *)json, key, member) {
        const tq_tv_str *name;
        size_t length = strlen(key);
        if (tq_utf8_valid_prefix(key, length) < length) return tq_fail(r->err, TQ_INVALID, "a key is not valid UTF-8");
        TQ_TRY(tq_tv_str_new(r, key, length, false, false, &name));
        dict->keys[dict->n] = tq_tv_string(name);
        TQ_TRY(convert(r, member, key, depth + 1, &dict->values[dict->n]));
        dict->n++;
    }
    return TQ_OK;
}

static tq_status convert(tq_render *r, const json_t *json, const char *key, int depth, tq_tv *out) {
    if (depth > max_json_depth) return tq_fail(r->err, TQ_INVALID, "variables nested too deeply");
    switch (json_typeof(json)) {
    case JSON_OBJECT: return convert_object(r, json, depth, out);
    case JSON_ARRAY: {
        tq_tv_list *list;
        TQ_TRY(tq_tv_list_new(r, TQ_TV_PLAIN_LIST, &list));
        for (size_t i = 0; i < json_array_size(json); i++) {
            tq_tv item;
            TQ_TRY(convert(r, json_array_get(json, i), NULL, depth + 1, &item));
            TQ_TRY(tq_tv_list_add(r, list, item));
        }
        *out = tq_tv_of_list(list);
        return TQ_OK;
    }
    case JSON_STRING: return convert_string(r, json, key, depth, out);
    case JSON_INTEGER: *out = tq_tv_int(json_integer_value(json)); return TQ_OK;
    case JSON_REAL: *out = tq_tv_float(json_real_value(json)); return TQ_OK;
    case JSON_TRUE: *out = tq_tv_bool(true); return TQ_OK;
    case JSON_FALSE: *out = tq_tv_bool(false); return TQ_OK;
    case JSON_NULL: break;
    }
    *out = tq_tv_none();
    return TQ_OK;
}

static tq_status make_root(tq_render *r, const json_t *context, tq_tv_scope **root) {
    tq_tv variables;
    TQ_TRY(convert(r, context, NULL, 0, &variables));
    const tq_tv_dict *dict = variables.as.dict;
    TQ_TRY(TQ_NEW(r, 1, root));
    for (size_t i = 0; i < dict->n; i++) {
        tq_tv_var *var;
        TQ_TRY(TQ_NEW(r, 1, &var));
        *var = (tq_tv_var){.name = dict->keys[i].as.s, .value = dict->values[i], .next = (*root)->vars};
        (*root)->vars = var;
    }
    return TQ_OK;
}

/* ---- result ---- */

static tq_status copy_result(const tq_tv_builder *text, tq_chat_text *out, tq_error *err) {
    *out = (tq_chat_text){.length = text->n, .n_spans = text->n_runs};
    out->text = malloc(text->n + 1);
    out->spans = malloc((text->n_runs + 1) * sizeof *out->spans);
    if (!out->text || !out->spans) {
        tq_chat_text_free(out);
        return tq_fail_memory(err, text->n + 1, "a prompt");
    }
    if (text->n) memcpy(out->text, text->bytes, text->n);
    out->text[text->n] = '\0';
    for (size_t i = 0, start = 0; i < text->n_runs; start = text->runs[i++].end) {
        out->spans[i] = (tq_chat_span){start, text->runs[i].end - start, text->runs[i].from_template};
    }
    return TQ_OK;
}

tq_status tq_chat_template_render(const tq_chat_template *tmpl, const json_t *context, tq_chat_text *out,
                                  tq_error *err) {
    *out = (tq_chat_text){0};
    if (!json_is_object(context)) return tq_fail(err, TQ_INVALID, "the variables of a template are not an object");
    tq_tv_builder text = {0};
    tq_render r = {
        .arena = {.limit = max_arena}, .steps_left = max_steps, .string_cap = max_string, .out = &text, .err = err};
    tq_status status = make_root(&r, context, &r.root);
    if (status == TQ_OK) status = tq_template_run(&r, tmpl->root, r.root);
    if (status == TQ_OK) status = copy_result(&text, out, err);
    tq_arena_free(&r.arena);
    return status;
}

void tq_chat_text_free(tq_chat_text *text) {
    free(text->text);
    free(text->spans);
    *text = (tq_chat_text){0};
}
