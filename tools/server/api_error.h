/* api_error.h: what went wrong with a request, and OpenAI's error object for it.
 *
 *     return api_fail(error, 400, "temperature", "invalid_value", "temperature: want 0 to 2, got %g", t);
 *
 * The `type` follows from the status. */
#ifndef TQ_SERVER_API_ERROR_H
#define TQ_SERVER_API_ERROR_H

#include <stdbool.h>

#include "../tq/json_out.h"
#include "turboquant/tq_status.h"

typedef struct api_error {
    int status;        /* of HTTP; 0: no error */
    char param[128];   /* the field; empty: null */
    const char *code;  /* static; NULL: null */
    char message[640]; /* for people: what was wanted, what was found */
    int retry_after;   /* seconds; 0: no header */
    bool no_retry;     /* x-should-retry: false */
    int n_prompt_tokens, n_ctx; /* of context_length_exceeded; 0 otherwise */
} api_error;

/* Fill *error; always false, so that parsers can return it.  param may be NULL. */
bool api_fail(api_error *error, int status, const char *param, const char *code, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The prompt and what it asks for do not fit: both numbers, as agents parse them. */
bool api_fail_context(api_error *error, int n_prompt_tokens, int max_tokens, int n_ctx);

/* A failure of the library.  Invalid input is the client's (400), the rest the server's. */
bool api_fail_status(api_error *error, const char *param, const tq_error *from);

/* {"message": ..., "type": ..., "param": ..., "code": ...}: the value of "error". */
void api_error_write(jout *j, const api_error *error);

#endif
