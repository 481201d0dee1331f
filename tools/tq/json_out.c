/* json_out.c: writing JSON into memory. */
#include "json_out.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static void append(jout *j, const char *text, size_t n) {
    if (j->failed) return;
    if (j->length + n + 1 > j->cap) {
        size_t cap = (j->length + n + 1) * 2;
        char *data = realloc(j->data, cap);
        if (!data) {
            j->failed = true;
            return;
        }
        j->data = data;
        j->cap = cap;
    }
    memcpy(j->data + j->length, text, n);
    j->length += n;
    j->data[j->length] = 0;
}

static void append_text(jout *j, const char *text) { append(j, text, strlen(text)); }

/* The comma before a key, or before a value that no key announces. */
static void separate(jout *j) {
    if (j->after_key) {
        j->after_key = false;
        return;
    }
    if (j->depth == 0) return;
    if (j->has_items[j->depth - 1]) append(j, ", ", 2);
    j->has_items[j->depth - 1] = true;
}

static void open(jout *j, const char *opener, char closer) {
    separate(j);
    append_text(j, opener);
    if (j->depth == JOUT_DEPTH_CAP) {
        j->failed = true;
        return;
    }
    j->closers[j->depth] = closer;
    j->has_items[j->depth++] = false;
}

void jout_object(jout *j) { open(j, "{", '}'); }
void jout_array(jout *j) { open(j, "[", ']'); }

void jout_end(jout *j) {
    if (j->depth > 0) append(j, &j->closers[--j->depth], 1);
}

static void append_quoted(jout *j, const char *text, size_t n) {
    append(j, "\"", 1);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') {
            append(j, (char[]){'\\', (char)c}, 2);
            i++;
        } else if (c < 0x20) {
            const char *names = "\b\t\n\f\r", *letters = "btnfr";
            const char *named = c ? strchr(names, c) : NULL;
            char escape[8];
            if (named) snprintf(escape, sizeof escape, "\\%c", letters[named - names]);
            else snprintf(escape, sizeof escape, "\\u%04x", c);
            append_text(j, escape);
            i++;
        } else {
            utf8proc_int32_t code;
            utf8proc_ssize_t length =
                utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &code);
            if (length > 0) append(j, text + i, (size_t)length);
            else append(j, "\xEF\xBF\xBD", 3);
            i += length > 0 ? (size_t)length : 1;
        }
    }
    append(j, "\"", 1);
}

void jout_key(jout *j, const char *key) {
    separate(j);
    append_quoted(j, key, strlen(key));
    append(j, ": ", 2);
    j->after_key = true;
}

void jout_string(jout *j, const char *text, size_t n) {
    separate(j);
    append_quoted(j, text, n);
}

void jout_int(jout *j, int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    separate(j);
    append_text(j, text);
}

void jout_number(jout *j, double value) {
    char text[40] = "null";
    for (int digits = 1; isfinite(value) && digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    separate(j);
    append_text(j, text);
}

void jout_bool(jout *j, bool value) {
    separate(j);
    append_text(j, value ? "true" : "false");
}

void jout_null(jout *j) {
    separate(j);
    append_text(j, "null");
}

void jout_put_string(jout *j, const char *key, const char *text) {
    jout_key(j, key);
    if (text) jout_string(j, text, strlen(text));
    else jout_null(j);
}

void jout_put_int(jout *j, const char *key, int64_t value) {
    jout_key(j, key);
    jout_int(j, value);
}

void jout_put_number(jout *j, const char *key, double value) {
    jout_key(j, key);
    jout_number(j, value);
}

void jout_put_bool(jout *j, const char *key, bool value) {
    jout_key(j, key);
    jout_bool(j, value);
}

bool jout_print(jout *j, FILE *to) {
    append(j, "\n", 1);
    bool ok = !j->failed && fwrite(j->data, 1, j->length, to) == j->length && fflush(to) == 0;
    free(j->data);
    *j = (jout){0};
    return ok;
}
