/* server_state.c: small things that every endpoint needs. */
#include "server_state.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

bool server_is_ready(server *s, api_error *error) {
    switch (atomic_load(&s->phase)) {
    case SERVER_READY: return true;
    case SERVER_LOADING:
        api_fail(error, 503, NULL, "model_loading", "The model is being loaded (%d %%): try again", atomic_load(&s->loaded_permille) / 10);
        error->retry_after = 1;
        return false;
    default:
        api_fail(error, 503, NULL, "shutting_down", "The server is shutting down");
        error->retry_after = 5;
        return false;
    }
}

const char *server_model_name(const server *s, const char *asked) { return asked && *asked ? asked : s->name; }

/* The one token that a text is, or -1. */
static int32_t find_token(const server *s, const char *text) {
    int32_t *ids, id = -1;
    size_t n;
    tq_error error;
    if (tq_tokenize(s->model, text, strlen(text), true, &ids, &n, &error) != TQ_OK) return -1;
    if (n == 1) id = ids[0];
    tq_free(ids);
    return id;
}

static bool is_hidden(const server *s, int32_t id) {
    char *text;
    size_t n = 1;
    tq_error error;
    if (tq_detokenize(s->model, &id, 1, false, &text, &n, &error) != TQ_OK) return false;
    tq_free(text);
    return n == 0;
}

void server_find_marks(server *s) {
    s->marks = reasoning_formats; /* as text, if nothing else */
    s->n_shown = 0;
    for (int f = REASONING_FORMATS - 1; f >= 0; f--) {
        const reasoning_marks *marks = &reasoning_formats[f];
        const char *texts[] = {marks->open, marks->close, marks->body, marks->body ? "<|start|>" : NULL};
        int32_t ids[sizeof texts / sizeof *texts];
        int n = 0;
        bool all = true;
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
            if (!texts[i]) continue;
            ids[n] = find_token(s, texts[i]);
            all = all && ids[n++] >= 0;
        }
        if (!all) continue;
        s->marks = marks;
        for (int i = 0; i < n; i++)
            if (is_hidden(s, ids[i])) s->shown[s->n_shown++] = ids[i];
        return;
    }
}

void server_random(void *bytes, size_t n) {
    if (getrandom(bytes, n, 0) == (ssize_t)n) return;
    struct timespec t; /* early at boot: a clock will do, nothing here is secret */
    clock_gettime(CLOCK_MONOTONIC, &t);
    memset(bytes, 0, n);
    memcpy(bytes, &t.tv_nsec, n < sizeof t.tv_nsec ? n : sizeof t.tv_nsec);
}

void server_make_id(char *id, size_t cap, const char *prefix) {
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    unsigned char bytes[24];
    server_random(bytes, sizeof bytes);
    int n = snprintf(id, cap, "%s", prefix);
    for (size_t i = 0; i < sizeof bytes && (size_t)n + 1 < cap; i++) id[n++] = letters[bytes[i] % (sizeof letters - 1)];
    id[n] = 0;
}

void server_fail_event(api_error *error, const tq_event *e) {
    switch (e->finish) {
    case TQ_REQUEST_DEADLINE:
        api_fail(error, 504, NULL, "timeout", "The request took longer than this server allows (--request-timeout)");
        return;
    case TQ_REQUEST_CANCELLED:
        api_fail(error, 503, NULL, "shutting_down", "The server is shutting down");
        error->retry_after = 5;
        return;
    default: {
        tq_error from = {.code = e->status};
        snprintf(from.text, sizeof from.text, "%s", e->error ? e->error : "");
        api_fail_status(error, NULL, &from);
    }
    }
}

void server_fail_submit(server *s, api_error *error, tq_status status, const tq_error *from, const char *kv) {
    if (status == TQ_BUSY && !server_is_ready(s, error)) return; /* the end has come between two looks */
    if (status == TQ_BUSY) {
        api_fail(error, 429, NULL, "queue_full", "%s", from->text);
        error->retry_after = 1;
    } else if (status == TQ_FULL) { /* not even alone */
        api_fail(error, 400, "max_tokens", "context_length_exceeded", "%s", from->text);
        error->no_retry = true;
    } else {
        api_fail_status(error, status == TQ_INVALID && kv ? "kv" : NULL, from);
    }
}
