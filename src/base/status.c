/* status.c: status names and error texts. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

#ifndef TQ_VERSION
#error "the build defines TQ_VERSION"
#endif

const char *tq_version(void) { return TQ_VERSION; }

const char *tq_status_name(tq_status status) {
    switch (status) {
    case TQ_OK: return "ok";
    case TQ_INVALID: return "invalid argument";
    case TQ_NOT_FOUND: return "not found";
    case TQ_IO: return "input/output error";
    case TQ_FORMAT: return "malformed file";
    case TQ_UNSUPPORTED: return "not supported";
    case TQ_NO_MEMORY: return "out of memory";
    case TQ_FULL: return "full";
    case TQ_CANCELLED: return "cancelled";
    case TQ_BUSY: return "busy";
    }
    return "unknown status";
}

tq_status tq_fail(tq_error *err, tq_status code, const char *format, ...) {
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        /* Texts quote names and bytes of files: nothing in them may break the line or steer a terminal. */
        for (char *c = err->text; *c; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
        err->code = code;
    }
    return code;
}

tq_status tq_fail_memory(tq_error *err, size_t bytes, const char *what) {
    return tq_fail(err, TQ_NO_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
}
