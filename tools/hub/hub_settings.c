/* hub_settings.c: what the environment says about the hub; the names and rules are huggingface_hub's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hub_cache.h"
#include "hub_error.h"

static const char *value_of(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool is_true(const char *name) {
    const char *value = value_of(name);
    return value && (strcmp(value, "1") == 0 || strcasecmp(value, "on") == 0 || strcasecmp(value, "yes") == 0 ||
                     strcasecmp(value, "true") == 0);
}

/* The path with "~" as the home folder, without slashes at its end. */
static tq_status set_path(char *to, size_t cap, const char *path, const char *more, tq_error *err) {
    const char *home = value_of("HOME");
    bool tilde = path[0] == '~' && (path[1] == '/' || path[1] == 0);
    if (tilde && !home) return hub_fail(err, TQ_INVALID, "HOME is not set: there is no place for downloaded models");
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    int used = snprintf(to, cap, "%s%.*s%s", tilde ? home : "", (int)(tilde ? n - 1 : n), tilde ? path + 1 : path, more);
    if (used < 0 || (size_t)used >= cap) return hub_fail(err, TQ_INVALID, "%.60s...: the path is too long", path);
    return TQ_OK;
}

static tq_status find_home(char home[2048], tq_error *err) {
    if (value_of("HF_HOME")) return set_path(home, 2048, value_of("HF_HOME"), "", err);
    if (value_of("XDG_CACHE_HOME")) return set_path(home, 2048, value_of("XDG_CACHE_HOME"), "/huggingface", err);
    return set_path(home, 2048, "~/.cache", "/huggingface", err);
}

static tq_status find_cache(hub_settings *s, const char *home, tq_error *err) {
    const char *cache = value_of("HF_HUB_CACHE");
    if (!cache) cache = value_of("HUGGINGFACE_HUB_CACHE");
    return cache ? set_path(s->cache, sizeof s->cache, cache, "", err) : set_path(s->cache, sizeof s->cache, home, "/hub", err);
}

/* A token goes into a header: nothing but visible characters. */
static tq_status take_token(hub_settings *s, const char *text, size_t n, const char *from, tq_error *err) {
    while (n && strchr(" \t\r\n", text[0])) text++, n--;
    while (n && strchr(" \t\r\n", text[n - 1])) n--;
    if (n >= sizeof s->token) return hub_fail(err, TQ_INVALID, "%.300s: want a token of less than %zu characters", from, sizeof s->token);
    for (size_t i = 0; i < n; i++)
        if (text[i] <= 0x20 || text[i] >= 0x7f) return hub_fail(err, TQ_INVALID, "%.300s: there are characters in it that no token has", from);
    memcpy(s->token, text, n);
    s->token[n] = 0;
    s->token_from = from;
    return TQ_OK;
}

static tq_status find_token(hub_settings *s, const char *home, tq_error *err) {
    static const char *const names[] = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"};
    if (is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return TQ_OK;
    for (size_t i = 0; i < 2; i++)
        if (value_of(names[i])) return take_token(s, value_of(names[i]), strlen(value_of(names[i])), names[i], err);
    const char *path = value_of("HF_TOKEN_PATH");
    HUB_TRY(path ? set_path(s->token_path, sizeof s->token_path, path, "", err)
                 : set_path(s->token_path, sizeof s->token_path, home, "/token", err));
    char *text;
    size_t n;
    tq_status status = hub_read_file(s->token_path, 4096, &text, &n, err);
    if (status == TQ_NOT_FOUND) return TQ_OK;
    if (status != TQ_OK) return status;
    status = take_token(s, text, n, s->token_path, err);
    free(text);
    return status;
}

/* http without encryption is for this machine and for mirrors that need no token. */
static bool is_local(const char *endpoint) {
    const char *host = endpoint + 7;
    size_t n = strcspn(host, ":/");
    return (n == 9 && (strncmp(host, "localhost", 9) == 0 || strncmp(host, "127.0.0.1", 9) == 0)) || strncmp(host, "[::1]", 5) == 0;
}

static tq_status find_endpoint(hub_settings *s, tq_error *err) {
    const char *endpoint = value_of("HF_ENDPOINT");
    if (!endpoint) endpoint = "https://huggingface.co";
    size_t n = strlen(endpoint);
    while (n && endpoint[n - 1] == '/') n--;
    if ((strncmp(endpoint, "http://", 7) != 0 && strncmp(endpoint, "https://", 8) != 0) || n >= sizeof s->endpoint ||
        strpbrk(endpoint, " \t\r\n?#@"))
        return hub_fail(err, TQ_INVALID, "HF_ENDPOINT: want an address that begins with https:// or http://, got '%.100s'", endpoint);
    memcpy(s->endpoint, endpoint, n);
    s->endpoint[n] = 0;
    return TQ_OK;
}

tq_status hub_settings_read(hub_settings *out, tq_error *err) {
    char home[2048];
    *out = (hub_settings){.offline = is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE")};
    HUB_TRY(find_home(home, err));
    HUB_TRY(find_cache(out, home, err));
    HUB_TRY(find_endpoint(out, err));
    HUB_TRY(find_token(out, home, err));
    if (*out->token && strncmp(out->endpoint, "http://", 7) == 0 && !is_local(out->endpoint))
        return hub_fail(err, TQ_INVALID, "HF_ENDPOINT %.100s is not encrypted: the token (%.100s) is not sent there; use https:// or "
                        "set HF_HUB_DISABLE_IMPLICIT_TOKEN=1", out->endpoint, out->token_from);
    return TQ_OK;
}
