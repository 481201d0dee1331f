/* hub_error.c: see hub_error.h. */
#include "hub_error.h"

#include <stdarg.h>
#include <stdio.h>

tq_status hub_fail(tq_error *err, tq_status code, const char *format, ...) {
    if (!err) return code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    for (char *c = err->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    err->code = code;
    return code;
}
