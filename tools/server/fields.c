/* fields.c: strict reading of JSON requests. */
#include "fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What would take memory out of proportion or recurse too deeply is found before the parser builds anything. */
static bool check_shape(const char *text, size_t n, size_t max_values, api_error *error) {
    size_t values = 0;
    int depth = 0;
    for (size_t i = 0; i < n; i++) {
        switch (text[i]) {
        case '"':
            for (i++; i < n && text[i] != '"'; i++)
                if (text[i] == '\\') i++;
            break;
        case '[':
        case '{':
            values++;
            if (++depth > JSON_DEPTH_MAX)
                return api_fail(error, 400, NULL, "json_too_deep", "The JSON is nested more than %d levels deep", JSON_DEPTH_MAX);
            break;
        case ']':
        case '}': depth--; break;
        case ',': values++; break;
        default: break;
        }
    }
    if (values <= max_values) return true;
    return api_fail(error, 400, NULL, "json_too_large", "The JSON has more than %zu values", max_values);
}

json_t *fields_parse(const char *body, size_t n, size_t max_values, api_error *error) {
    if (!check_shape(body, n, max_values, error)) return NULL;
    json_error_t where;
    json_t *root = json_loadb(body, n, JSON_REJECT_DUPLICATES, &where);
    if (!root) {
        /* jansson's text quotes what it read; the place says enough, and invalid bytes would have to be escaped. */
        api_fail(error, 400, NULL, "invalid_json", "The body is not valid JSON (line %d, column %d): %s", where.line, where.column,
                 json_error_code(&where) == json_error_duplicate_key          ? "a key stands twice in an object"
                 : json_error_code(&where) == json_error_invalid_utf8         ? "invalid UTF-8"
                 : json_error_code(&where) == json_error_null_character       ? "NUL characters are not allowed"
                 : json_error_code(&where) == json_error_null_byte_in_key     ? "NUL characters are not allowed"
                 : json_error_code(&where) == json_error_numeric_overflow     ? "a number is too large"
                 : json_error_code(&where) == json_error_premature_end_of_input ? "it ends too early"
                                                                              : "a syntax error");
        return NULL;
    }
    if (json_is_object(root)) return root;
    api_fail(error, 400, NULL, "invalid_type", "The body is %s; want a JSON object", json_kind(root));
    json_decref(root);
    return NULL;
}

const char *json_kind(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_NULL: return "null";
    default: return "a boolean";
    }
}

void fields_begin(fields *f, const json_t *object, api_error *error) { *f = (fields){.object = object, .error = error}; }

void fields_fail(fields *f, const char *name, const char *code, const char *format, ...) {
    if (f->failed) return;
    f->failed = true;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    api_fail(f->error, 400, name, code, "%s", text);
}

const json_t *fields_get(fields *f, const char *name) {
    if (f->n_seen < FIELDS_CAP) f->seen[f->n_seen++] = name;
    const json_t *value = json_object_get(f->object, name);
    return value && !json_is_null(value) ? value : NULL;
}

static const json_t *get_typed(fields *f, const char *name, json_type type, const char *wanted) {
    const json_t *value = fields_get(f, name);
    if (!value || json_typeof(value) == type) return value;
    fields_fail(f, name, "invalid_type", "%s: want %s, got %s", name, wanted, json_kind(value));
    return NULL;
}

bool fields_int(fields *f, const char *name, long long min, long long max, long long *value) {
    const json_t *v = get_typed(f, name, JSON_INTEGER, "an integer");
    if (!v) return false;
    long long got = json_integer_value(v);
    if (got < min || got > max) {
        fields_fail(f, name, "invalid_value", "%s: want %lld to %lld, got %lld", name, min, max, got);
        return false;
    }
    *value = got;
    return true;
}

bool fields_number(fields *f, const char *name, double min, double max, double *value) {
    const json_t *v = fields_get(f, name);
    if (!v) return false;
    if (!json_is_number(v)) {
        fields_fail(f, name, "invalid_type", "%s: want a number, got %s", name, json_kind(v));
        return false;
    }
    double got = json_number_value(v);
    if (!(got >= min && got <= max)) {
        fields_fail(f, name, "invalid_value", "%s: want %g to %g, got %g", name, min, max, got);
        return false;
    }
    *value = got;
    return true;
}

bool fields_bool(fields *f, const char *name, bool *value) {
    const json_t *v = fields_get(f, name);
    if (!v) return false;
    if (!json_is_boolean(v)) {
        fields_fail(f, name, "invalid_type", "%s: want true or false, got %s", name, json_kind(v));
        return false;
    }
    *value = json_is_true(v);
    return true;
}

const char *fields_string(fields *f, const char *name) {
    const json_t *v = get_typed(f, name, JSON_STRING, "a string");
    return v ? json_string_value(v) : NULL;
}

const json_t *fields_object(fields *f, const char *name) { return get_typed(f, name, JSON_OBJECT, "an object"); }
const json_t *fields_array(fields *f, const char *name) { return get_typed(f, name, JSON_ARRAY, "an array"); }

void fields_ignore(fields *f, const char *name) { fields_get(f, name); }

static bool asks_for_nothing(const json_t *v, const char *neutral) {
    switch (json_typeof(v)) {
    case JSON_FALSE: return true;
    case JSON_INTEGER: return json_integer_value(v) == 0;
    case JSON_REAL: return json_real_value(v) == 0;
    case JSON_ARRAY: return json_array_size(v) == 0;
    case JSON_OBJECT: return json_object_size(v) == 0;
    case JSON_STRING: return neutral && strcmp(json_string_value(v), neutral) == 0;
    default: return false;
    }
}

void fields_refuse(fields *f, const char *name, const char *neutral, const char *why) {
    const json_t *v = fields_get(f, name);
    if (v && !asks_for_nothing(v, neutral)) fields_fail(f, name, "unsupported_parameter", "%s: %s", name, why);
}

bool fields_end(fields *f) {
    const char *key;
    json_t *value;
    if (f->failed) return false;
    json_object_foreach((json_t *)f->object, key, value) {
        bool known = false;
        for (int i = 0; i < f->n_seen && !known; i++) known = strcmp(f->seen[i], key) == 0;
        if (known) continue;
        char shown[100]; /* a long key is cut at a character */
        snprintf(shown, sizeof shown, "%.64s", key);
        fields_fail(f, shown, "unknown_parameter", "Unrecognized request argument supplied: %s", shown);
        return false;
    }
    return true;
}
