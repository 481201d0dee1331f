/* hub_http.c: see hub_http.h. */
#include "hub_http.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hub_error.h"

enum { HOPS_MAX = 8, URL_CAP = 8192, CONNECT_SECONDS = 30, STALL_SECONDS = 60, RETRY_AFTER_MAX = 300 };

struct hub_client {
    const hub_settings *settings;
    CURL *curl;
};

typedef struct request {
    hub_client *client;
    hub_answer *answer;
    hub_body_fn body;
    void *ctx;
    bool own_host;  /* this hop goes to the endpoint itself */
    bool cancelled;
} request;

tq_status hub_client_new(const hub_settings *settings, hub_client **out, tq_error *err) {
    hub_client *client = calloc(1, sizeof *client);
    if (!client || curl_global_init(CURL_GLOBAL_DEFAULT) != 0 || !(client->curl = curl_easy_init())) {
        free(client);
        return hub_fail(err, TQ_NO_MEMORY, "libcurl does not start");
    }
    client->settings = settings;
    *out = client;
    return TQ_OK;
}

void hub_client_free(hub_client *client) {
    if (!client) return;
    curl_easy_cleanup(client->curl);
    free(client);
}

char *hub_encode(const char *text, const char *kept) {
    static const char digits[] = "0123456789ABCDEF";
    char *out = malloc(3 * strlen(text) + 1), *to = out;
    if (!out) return NULL;
    for (const char *c = text; *c; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("-._~", *c) || strchr(kept, *c);
        if (plain) *to++ = *c;
        else *to++ = '%', *to++ = digits[(unsigned char)*c >> 4], *to++ = digits[*c & 15];
    }
    *to = 0;
    return out;
}

/* ---- headers ----------------------------------------------------------------------------------------------------- */

static bool take(const char *line, size_t n, const char *name, char *to, size_t cap) {
    size_t m = strlen(name);
    if (n <= m || strncasecmp(line, name, m) != 0 || line[m] != ':') return false;
    line += m + 1, n -= m + 1;
    while (n && strchr(" \t", *line)) line++, n--;
    while (n && strchr(" \t\r\n", line[n - 1])) n--;
    if (n >= cap) n = cap - 1;
    memcpy(to, line, n);
    to[n] = 0;
    return true;
}

static size_t read_header(char *line, size_t size, size_t count, void *ctx) {
    request *r = ctx;
    hub_answer *a = r->answer;
    size_t n = size * count;
    char text[256];
    take(line, n, "ETag", a->etag, sizeof a->etag);
    take(line, n, "Content-Range", a->content_range, sizeof a->content_range);
    if (take(line, n, "Retry-After", text, sizeof text)) {
        a->retry_after = atoi(text); /* a date gives 0: at once, with the usual pause */
        if (a->retry_after > RETRY_AFTER_MAX) a->retry_after = RETRY_AFTER_MAX;
    }
    if (!r->own_host) return n; /* only the hub speaks for the hub */
    take(line, n, "X-Error-Message", a->message, sizeof a->message);
    take(line, n, "X-Error-Code", a->code, sizeof a->code);
    take(line, n, "X-Repo-Commit", a->commit, sizeof a->commit);
    if (take(line, n, "X-Linked-Etag", text, sizeof text) && !hub_etag(text, a->linked_etag, sizeof a->linked_etag))
        snprintf(a->linked_etag, sizeof a->linked_etag, "?");
    if (take(line, n, "X-Linked-Size", text, sizeof text)) a->linked_size = strtoll(text, NULL, 10);
    return n;
}

static size_t read_body(char *data, size_t size, size_t count, void *ctx) {
    request *r = ctx;
    size_t n = size * count;
    curl_easy_getinfo(r->client->curl, CURLINFO_RESPONSE_CODE, &r->answer->status);
    if (r->answer->status != 200 && r->answer->status != 206) return n; /* a page for people */
    if (r->body(r->ctx, r->answer, data, n)) return n;
    r->cancelled = true;
    return 0;
}

/* ---- hops -------------------------------------------------------------------------------------------------------- */

/* Scheme, host and port of the address are the endpoint's. */
static bool is_endpoint(const hub_settings *s, const char *url) {
    char *mine[3] = {0}, *its[3] = {0};
    static const CURLUPart parts[3] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
    CURLU *a = curl_url(), *b = curl_url();
    bool same = a && b && !curl_url_set(a, CURLUPART_URL, s->endpoint, 0) && !curl_url_set(b, CURLUPART_URL, url, 0);
    for (int i = 0; i < 3; i++) {
        same = same && !curl_url_get(a, parts[i], &mine[i], CURLU_DEFAULT_PORT) &&
               !curl_url_get(b, parts[i], &its[i], CURLU_DEFAULT_PORT) && strcasecmp(mine[i], its[i]) == 0;
        curl_free(mine[i]);
        curl_free(its[i]);
    }
    curl_url_cleanup(a);
    curl_url_cleanup(b);
    return same;
}

static void note_host(const char *url, hub_answer *answer) {
    CURLU *u = curl_url();
    char *host = NULL;
    if (u && !curl_url_set(u, CURLUPART_URL, url, 0) && !curl_url_get(u, CURLUPART_HOST, &host, 0))
        snprintf(answer->host, sizeof answer->host, "%s", host);
    curl_free(host);
    curl_url_cleanup(u);
}

static bool add_header(struct curl_slist **list, const char *format, const char *value) {
    char line[1024];
    snprintf(line, sizeof line, format, value);
    struct curl_slist *grown = curl_slist_append(*list, line);
    if (grown) *list = grown;
    return grown != NULL;
}

static bool prepare(request *r, const char *url, int64_t from, const char *if_range, struct curl_slist **headers) {
    CURL *curl = r->client->curl;
    const hub_settings *s = r->client->settings;
    char range[32];
    bool good = true;
    curl_easy_reset(curl);
    if (r->own_host && *s->token) good = add_header(headers, "Authorization: Bearer %s", s->token);
    if (from > 0) {
        snprintf(range, sizeof range, "bytes=%lld-", (long long)from);
        good = good && add_header(headers, "Range: %s", range);
        if (*if_range) good = good && add_header(headers, "If-Range: %s", if_range);
    }
    /* Two kinds of address and no other: a redirect to file:// would read this machine's files. */
    return good && !curl_easy_setopt(curl, CURLOPT_URL, url) && !curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") &&
           !curl_easy_setopt(curl, CURLOPT_HTTPHEADER, *headers) && !curl_easy_setopt(curl, CURLOPT_USERAGENT, "turboquant") &&
           !curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) && !curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS) &&
           !curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L) && !curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS) &&
           !curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, read_header) && !curl_easy_setopt(curl, CURLOPT_HEADERDATA, r) &&
           !curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, read_body) && !curl_easy_setopt(curl, CURLOPT_WRITEDATA, r);
}

static bool status_is_transient(long status) { return status == 408 || status == 429 || status >= 500; }

static bool code_is_transient(CURLcode code) {
    return code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_PARTIAL_FILE || code == CURLE_RECV_ERROR ||
           code == CURLE_SEND_ERROR || code == CURLE_GOT_NOTHING || code == CURLE_OPERATION_TIMEDOUT || code == CURLE_HTTP2 ||
           code == CURLE_HTTP2_STREAM || code == CURLE_SSL_CONNECT_ERROR;
}

/* One hop.  *next is where the answer sends us, in `url`'s place, or it is the answer. */
static tq_status hop(request *r, char url[URL_CAP], int64_t from, const char *if_range, bool *next, tq_error *err) {
    hub_answer *a = r->answer;
    struct curl_slist *headers = NULL;
    bool good = prepare(r, url, from, if_range, &headers);
    CURLcode code = good ? curl_easy_perform(r->client->curl) : CURLE_OUT_OF_MEMORY;
    curl_slist_free_all(headers);
    note_host(url, a);
    *next = false;
    if (r->cancelled) return hub_fail(err, TQ_CANCELLED, "cancelled");
    curl_easy_getinfo(r->client->curl, CURLINFO_RESPONSE_CODE, &a->status);
    if (code != CURLE_OK) {
        snprintf(a->trouble, sizeof a->trouble, "%s", curl_easy_strerror(code));
        a->transient = code_is_transient(code);
        return hub_fail(err, TQ_IO, "%.100s: %s", a->host, a->trouble);
    }
    a->transient = status_is_transient(a->status);
    if (a->status < 300 || a->status >= 400) return TQ_OK;
    char *to = NULL;
    curl_easy_getinfo(r->client->curl, CURLINFO_REDIRECT_URL, &to);
    if (!to || strlen(to) >= URL_CAP) return hub_fail(err, TQ_FORMAT, "%.100s: a redirect (%ld) to nowhere", a->host, a->status);
    if (strncasecmp(url, "https:", 6) == 0 && strncasecmp(to, "https:", 6) != 0)
        return hub_fail(err, TQ_FORMAT, "%.100s sends us from https to '%.100s': refused", a->host, to);
    if (strncasecmp(to, "http:", 5) != 0 && strncasecmp(to, "https:", 6) != 0)
        return hub_fail(err, TQ_FORMAT, "%.100s sends us to '%.100s': refused", a->host, to);
    memcpy(url, to, strlen(to) + 1);
    *next = true;
    return TQ_OK;
}

tq_status hub_get(hub_client *client, const char *path, int64_t from, const char *if_range, hub_body_fn body, void *ctx,
                  hub_answer *answer, tq_error *err) {
    char url[URL_CAP];
    *answer = (hub_answer){.linked_size = -1, .retry_after = -1};
    if ((size_t)snprintf(url, sizeof url, "%s%s", client->settings->endpoint, path) >= sizeof url)
        return hub_fail(err, TQ_INVALID, "%.60s...: the address is too long", path);
    request r = {.client = client, .answer = answer, .body = body, .ctx = ctx};
    for (int hops = 0; hops <= HOPS_MAX; hops++) {
        bool next;
        answer->etag[0] = answer->content_range[0] = 0;
        r.own_host = is_endpoint(client->settings, url);
        HUB_TRY(hop(&r, url, from, if_range, &next, err));
        if (!next) return TQ_OK;
    }
    return hub_fail(err, TQ_FORMAT, "%.100s: more than %d redirects", answer->host, HOPS_MAX);
}

tq_status hub_explain(const hub_settings *s, const hub_answer *a, const char *repo, const char *what, tq_error *err) {
    char said[240] = "";
    if (*a->message) snprintf(said, sizeof said, " (\"%s\")", a->message);
    if (a->status == 401 && !*s->token)
        return hub_fail(err, TQ_NOT_FOUND, "%s: no such model on %.100s, or one that wants a token (HF_TOKEN)%s", repo, a->host, said);
    if (a->status == 401) return hub_fail(err, TQ_NOT_FOUND, "%s: no such model on %.100s, or the token (%.100s) is not accepted%s", repo, a->host, s->token_from, said);
    if (a->status == 403)
        return hub_fail(err, TQ_INVALID, "%s: access is refused%s: %s, at %.100s/%s", repo, said,
                        *s->token ? "its terms may have to be accepted" : "it may want a token (HF_TOKEN), and its terms accepted", s->endpoint, repo);
    if (a->status == 404) return hub_fail(err, TQ_NOT_FOUND, "%s: %s: not found on %.100s%s", repo, what, a->host, said);
    if (a->status == 429) return hub_fail(err, TQ_IO, "%s: %.100s wants fewer requests (429); try again later%s", repo, a->host, said);
    return hub_fail(err, TQ_IO, "%s: %s: %.100s answers with status %ld%s", repo, what, a->host, a->status, said);
}
