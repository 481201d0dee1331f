/* api_error.c: OpenAI's error object. */
#include "api_error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool api_fail(api_error *error, int status, const char *param, const char *code, const char *format, ...) {
    *error = (api_error){.status = status, .code = code};
    if (param) snprintf(error->param, sizeof error->param, "%s", param);
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    if (status >= 500 && status != 503) error->no_retry = true; /* the same request would fail again */
    return false;
}

bool api_fail_context(api_error *error, int n_prompt_tokens, int max_tokens, int n_ctx) {
    if (max_tokens > 1)
        api_fail(error, 400, "messages", "context_length_exceeded",
                 "This model's maximum context length is %d tokens, but %d were requested: %d in the prompt and %d for the answer",
                 n_ctx, n_prompt_tokens + max_tokens, n_prompt_tokens, max_tokens);
    else
        api_fail(error, 400, "messages", "context_length_exceeded",
                 "This model's maximum context length is %d tokens, but the prompt has %d and the answer needs at least 1",
                 n_ctx, n_prompt_tokens);
    error->n_prompt_tokens = n_prompt_tokens;
    error->n_ctx = n_ctx;
    return false;
}

bool api_fail_status(api_error *error, const char *param, const tq_error *from) {
    switch (from->code) {
    case TQ_INVALID: return api_fail(error, 400, param, "invalid_value", "%s", from->text);
    case TQ_UNSUPPORTED: return api_fail(error, 400, param, "unsupported_value", "%s", from->text);
    case TQ_FULL:
        api_fail(error, 503, NULL, "cache_full", "%s", from->text);
        error->retry_after = 2;
        return false;
    case TQ_CANCELLED:
        api_fail(error, 503, NULL, "cancelled", "%s", from->text);
        error->retry_after = 2;
        return false;
    default: return api_fail(error, 500, NULL, "internal_error", "%s", from->text);
    }
}

static const char *get_type(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 501: return "not_supported_error";
    case 503: return "unavailable_error";
    default: return status < 500 ? "invalid_request_error" : "server_error";
    }
}

void api_error_write(jout *j, const api_error *error) {
    jout_object(j);
    jout_put_string(j, "message", error->message);
    jout_put_string(j, "type", get_type(error->status));
    jout_put_string(j, "param", error->param[0] ? error->param : NULL);
    jout_put_string(j, "code", error->code);
    if (error->n_ctx) {
        jout_put_int(j, "n_prompt_tokens", error->n_prompt_tokens);
        jout_put_int(j, "n_ctx", error->n_ctx);
    }
    jout_end(j);
}
