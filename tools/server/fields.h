/* fields.h: reading a JSON request strictly: every field is either used, known to have no effect here, or refused by name.
 *
 *     fields f;
 *     fields_begin(&f, root, &error);
 *     fields_int(&f, "max_tokens", 1, INT_MAX, &max_tokens);
 *     fields_ignore(&f, "user");
 *     if (!fields_end(&f)) ...                       // error is filled; the first mistake counts
 *
 * null is the same as an absent field, as OpenAI's clients send it.  Getters return whether there was a (good) value. */
#ifndef TQ_SERVER_FIELDS_H
#define TQ_SERVER_FIELDS_H

#include <jansson.h>
#include <stdbool.h>

#include "api_error.h"

enum { FIELDS_CAP = 96, JSON_DEPTH_MAX = 64 };

typedef struct fields {
    const json_t *object;
    const char *seen[FIELDS_CAP];
    int n_seen;
    bool failed;
    api_error *error;
} fields;

/* Parse a body: a JSON object, at most JSON_DEPTH_MAX deep, of at most max_values values, no NUL in its strings, no key
 * twice.  NULL with *error filled. */
json_t *fields_parse(const char *body, size_t n, size_t max_values, api_error *error);

void fields_begin(fields *f, const json_t *object, api_error *error);
const json_t *fields_get(fields *f, const char *name); /* any type; NULL: absent or null */
bool fields_int(fields *f, const char *name, long long min, long long max, long long *value);
bool fields_number(fields *f, const char *name, double min, double max, double *value);
bool fields_bool(fields *f, const char *name, bool *value);
const char *fields_string(fields *f, const char *name); /* NULL: absent */
const json_t *fields_object(fields *f, const char *name);
const json_t *fields_array(fields *f, const char *name);

void fields_ignore(fields *f, const char *name);            /* it changes nothing in what is answered */
/* Known, but not supported: refused unless its value asks for nothing (false, 0, empty, or the string `neutral`). */
void fields_refuse(fields *f, const char *name, const char *neutral, const char *why);
/* Fill the error; later mistakes are not looked at. */
void fields_fail(fields *f, const char *name, const char *code, const char *format, ...) __attribute__((format(printf, 4, 5)));

bool fields_end(fields *f); /* refuses what nobody asked for */

const char *json_kind(const json_t *value); /* "a string", ... */

#endif
