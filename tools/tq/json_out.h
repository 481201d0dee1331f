/* json_out.h: writing JSON, compactly, into memory.
 *
 *     jout j = {0};
 *     jout_object(&j);
 *     jout_key(&j, "kv");      jout_string(&j, "tq3", 3);
 *     jout_key(&j, "tokens");  jout_int(&j, 12);
 *     jout_end(&j);
 *     if (!jout_print(&j, stdout)) ...                   // prints a line, releases the memory
 *
 * Commas and closing brackets come by themselves.  Running out of memory is remembered and reported at the end. */
#ifndef TQ_TOOL_JSON_OUT_H
#define TQ_TOOL_JSON_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { JOUT_DEPTH_CAP = 32 };

typedef struct jout {
    char *data; /* NUL-terminated; free() or jout_print */
    size_t length, cap;
    int depth;
    char closers[JOUT_DEPTH_CAP];
    bool has_items[JOUT_DEPTH_CAP];
    bool after_key, failed;
} jout;

void jout_object(jout *j);
void jout_array(jout *j);
void jout_end(jout *j); /* of the innermost object or array */

void jout_key(jout *j, const char *key);
void jout_string(jout *j, const char *text, size_t n); /* bytes that are not UTF-8 become U+FFFD */
void jout_int(jout *j, int64_t value);
void jout_number(jout *j, double value); /* shortest text that reads back the same; null if not finite */
void jout_bool(jout *j, bool value);
void jout_null(jout *j);

/* A key and its value. */
void jout_put_string(jout *j, const char *key, const char *text); /* NULL gives null */
void jout_put_int(jout *j, const char *key, int64_t value);
void jout_put_number(jout *j, const char *key, double value);
void jout_put_bool(jout *j, const char *key, bool value);

/* Write what was built and a newline, release it.  False if memory ran out or writing failed. */
bool jout_print(jout *j, FILE *to);

#endif
