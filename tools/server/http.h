/* http.h: HTTP for the endpoints: who may ask is checked, bodies are read whole and within limits, replies are written.
 *
 * Every connection has a thread (libmicrohttpd's), so a handler may wait; it asks http_is_gone now and then and gives up
 * when the client has left.  A watcher closes connections that take too long to say what they want or to take an answer (libmicrohttpd's own time limit
 * would count the time in which a handler works).  What libmicrohttpd
 * itself refuses (no HTTP, headers larger than HTTP_HEADER_BYTES) it answers with a status of 4xx and closes. */
#ifndef TQ_SERVER_HTTP_H
#define TQ_SERVER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "api_error.h"
#include "http_checks.h"

enum { HTTP_HEADER_BYTES = 32768, HTTP_ROUTES_CAP = 64 };

typedef struct http_server http_server;

typedef struct http_request {
    const char *method;
    const char *path; /* as it came, without query */
    const char *body; /* (body_n), NUL-terminated; "" if there is none */
    size_t body_n;
    const void *connection; /* http.c's */
    int fd;
    double began; /* clock_seconds */
} http_request;

/* What a handler answers.  Zero-initialised, then exactly one of the http_reply_* functions. */
typedef struct http_reply {
    int status;
    const char *type; /* static */
    char *body;       /* malloc'd, or static with body_static */
    size_t body_n;
    bool body_static;
    const char *etag;  /* static; NULL: none */
    const char *policy; /* Content-Security-Policy; static; NULL: none */
    int retry_after;
    bool no_retry;
    const char *allow; /* of 405; static */
    /* A stream: read waits for data and returns 1..cap bytes, 0 at the end, or -1: break the connection.  free is called
     * once, at the end or when the client has left. */
    ssize_t (*read)(void *ctx, char *buf, size_t cap);
    void (*free)(void *ctx);
    void *stream;
    char note[160]; /* for the log: what the endpoint has to say, without anybody's text */
} http_reply;

typedef void (*http_handler)(void *ctx, const http_request *request, http_reply *reply);

enum { HTTP_PUBLIC = 1, /* no key needed */
       HTTP_OPEN_ORIGIN = 2 };

typedef struct http_route {
    const char *method; /* GET serves HEAD too */
    const char *path;   /* "/models/" with the slash at its end serves everything below it */
    http_handler handler;
    unsigned flags;
} http_route;

typedef struct http_config {
    const char *host;
    int port; /* 0: any */
    int64_t max_body_bytes;
    int max_connections, idle_seconds;
    const word_list *keys;    /* empty: none needed */
    const word_list *origins; /* that other pages may call from; "*": all */
    const word_list *hosts;   /* names that may stand in Host, besides loopback's */
    bool any_host;            /* Host may be any */
    const http_route *routes; /* (n_routes), each also below /v1 */
    int n_routes;
    http_handler fallback; /* GET of what no route knows: files of the page; leaves reply->status 0 if it has none */
    void *ctx;
    /* One request is over: for the log and the counters.  route: its index, or -1. */
    void (*finished)(void *ctx, const http_request *request, const http_reply *reply, int route, bool aborted);
} http_config;

/* Listen and answer from now on.  config and what it points to must outlive the server.  False, reason in *error. */
bool http_server_new(const http_config *config, http_server **out, tq_error *error);
int http_server_port(const http_server *server);
/* Accept no more connections; those that are there go on. */
void http_server_quiesce(http_server *server);
/* Wait, so many seconds at most, until whatever has been asked is answered to its last byte; connections close then.
 * False: something is not.  libmicrohttpd drops answers that are on their way when it is stopped, so this comes before free. */
bool http_server_drain(http_server *server, double seconds);
/* Breaks off what is still sent or read, and waits for handlers to end: make them.  NULL is fine. */
void http_server_free(http_server *server);

/* Has the client closed its side?  (A client that only half-closes counts as gone.) */
bool http_is_gone(const http_request *request);
/* A header's value or NULL; a query argument's value or NULL. */
const char *http_header(const http_request *request, const char *name);
const char *http_query(const http_request *request, const char *name);

void http_reply_json(http_reply *reply, int status, jout *j); /* takes what was built */
void http_reply_error(http_reply *reply, const api_error *error);
void http_reply_text(http_reply *reply, int status, const char *type, char *body, size_t n); /* takes body */
void http_reply_static(http_reply *reply, const char *type, const void *body, size_t n, const char *etag);
void http_reply_stream(http_reply *reply, const char *type, ssize_t (*read)(void *, char *, size_t), void (*free_fn)(void *),
                       void *ctx);

double clock_seconds(void);

#endif
