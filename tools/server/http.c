/* http.c: libmicrohttpd made to fit: routing, checks, limits, replies.
 * Owns: connections and their time limits, bodies in the making.  Not here: what endpoints do. */
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "http_watch.h"

enum {
    BODIES_AT_ONCE = 4,             /* all bodies in memory together: this many of the largest */
    BODY_BYTES_PER_SECOND = 32768,  /* slower senders are cut off */
    STACK_BYTES = 4 << 20,
    STREAM_BLOCK = 16384,
};

struct http_server {
    http_config config;
    struct MHD_Daemon *daemon;
    http_watch *watch;
    atomic_llong body_bytes; /* reserved by all requests */
    atomic_bool ending;      /* connections are not kept for a next request */
    pthread_mutex_t lock;
    pthread_cond_t answered;
    int n_exchanges; /* under the lock: requests whose headers have been read and whose answers are not all sent */
    int port;
};

/* One request, from its headers to its last byte. */
typedef struct exchange {
    http_server *server;
    struct MHD_Connection *connection;
    http_request request;
    int route;
    char *body;
    size_t body_n, body_cap;
    int64_t reserved;
    bool refused, replied;
    bool body_unread; /* refused before the client has sent its body */
    api_error refusal; /* sent once the body has been read past, or at once if that would take too long */
    const char *allow;
    http_reply reply;
} exchange;

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- what handlers use --------------------------------------------------------------------------------------------- */

bool http_is_gone(const http_request *request) {
    struct pollfd p = {.fd = request->fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

static struct MHD_Connection *connection_of(const http_request *request) {
    return ((const exchange *)request->connection)->connection;
}

const char *http_header(const http_request *request, const char *name) {
    return MHD_lookup_connection_value(connection_of(request), MHD_HEADER_KIND, name);
}

const char *http_query(const http_request *request, const char *name) {
    return MHD_lookup_connection_value(connection_of(request), MHD_GET_ARGUMENT_KIND, name);
}

void http_reply_text(http_reply *reply, int status, const char *type, char *body, size_t n) {
    reply->status = status;
    reply->type = type;
    reply->body = body;
    reply->body_n = n;
}

void http_reply_json(http_reply *reply, int status, jout *j) {
    if (j->failed) {
        static const char text[] = "{\"error\": {\"message\": \"out of memory\", \"type\": \"server_error\", "
                                   "\"param\": null, \"code\": \"out_of_memory\"}}";
        free(j->data);
        *reply = (http_reply){.status = 500, .type = "application/json", .body = (char *)text,
                              .body_n = sizeof text - 1, .body_static = true};
    } else {
        http_reply_text(reply, status, "application/json", j->data, j->length);
    }
    *j = (jout){0};
}

void http_reply_error(http_reply *reply, const api_error *error) {
    jout j = {0};
    jout_object(&j);
    jout_key(&j, "error");
    api_error_write(&j, error);
    jout_end(&j);
    http_reply_json(reply, error->status, &j);
    reply->retry_after = error->retry_after;
    reply->no_retry = error->no_retry;
}

void http_reply_static(http_reply *reply, const char *type, const void *body, size_t n, const char *etag) {
    *reply = (http_reply){.status = 200, .type = type, .body = (char *)body, .body_n = n, .body_static = true, .etag = etag};
}

void http_reply_stream(http_reply *reply, const char *type, ssize_t (*read)(void *, char *, size_t), void (*free_fn)(void *),
                       void *ctx) {
    reply->status = 200;
    reply->type = type;
    reply->read = read;
    reply->free = free_fn;
    reply->stream = ctx;
}

/* ---- sending ------------------------------------------------------------------------------------------------------- */

static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t cap) {
    (void)pos;
    exchange *x = cls;
    http_watch_expect(x->server->watch, x->connection, 0); /* it waits for us */
    ssize_t n = x->reply.read(x->reply.stream, buf, cap);
    http_watch_expect(x->server->watch, x->connection, x->server->config.idle_seconds); /* to take this */
    if (n > 0) return n;
    return n == 0 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

static bool origin_allowed(const http_server *s, const char *origin) {
    return word_list_has(s->config.origins, "*", 1, false) || word_list_has(s->config.origins, origin, strlen(origin), true);
}

static void add_cors(const exchange *x, struct MHD_Response *response) {
    const char *origin = http_header(&x->request, "Origin");
    MHD_add_response_header(response, "Vary", "Origin");
    if (!origin || !origin_allowed(x->server, origin)) return;
    MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(response, "Access-Control-Expose-Headers", "Retry-After, x-should-retry");
    if (strcmp(x->request.method, "OPTIONS") != 0) return;
    const char *wanted = http_header(&x->request, "Access-Control-Request-Headers");
    MHD_add_response_header(response, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    MHD_add_response_header(response, "Access-Control-Allow-Headers", wanted ? wanted : "Authorization, Content-Type");
    MHD_add_response_header(response, "Access-Control-Max-Age", "600");
}

static void add_headers(const exchange *x, struct MHD_Response *response) {
    const http_reply *r = &x->reply;
    if (r->type) MHD_add_response_header(response, "Content-Type", r->type);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Cache-Control", r->etag ? "no-cache" : "no-store");
    if (r->etag) MHD_add_response_header(response, "ETag", r->etag);
    if (r->policy) MHD_add_response_header(response, "Content-Security-Policy", r->policy);
    if (r->policy) MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    if (r->allow) MHD_add_response_header(response, "Allow", r->allow);
    if (r->status == 401) MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (r->no_retry) MHD_add_response_header(response, "x-should-retry", "false");
    if (r->retry_after) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", r->retry_after);
        MHD_add_response_header(response, "Retry-After", seconds);
    }
    if (r->read) MHD_add_response_header(response, "X-Accel-Buffering", "no"); /* nginx: pass every piece on at once */
    if (atomic_load(&x->server->ending)) MHD_add_response_header(response, "Connection", "close");
    add_cors(x, response);
}

static enum MHD_Result send_reply(exchange *x) {
    http_reply *r = &x->reply;
    x->replied = true;
    struct MHD_Response *response;
    if (r->read) {
        response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x, NULL);
        http_watch_expect(x->server->watch, x->connection, 0);
    } else {
        response = MHD_create_response_from_buffer(r->body_n, r->body, r->body_static ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
        http_watch_expect(x->server->watch, x->connection,
                          x->server->config.idle_seconds + (double)r->body_n / BODY_BYTES_PER_SECOND);
    }
    if (!response) return MHD_NO;
    if (!r->body_static) r->body = NULL; /* the response's now */
    add_headers(x, response);
    enum MHD_Result result = MHD_queue_response(x->connection, (unsigned)r->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result send_refusal(exchange *x) {
    http_reply_error(&x->reply, &x->refusal);
    x->reply.allow = x->allow;
    return send_reply(x);
}

/* ---- may it ask? --------------------------------------------------------------------------------------------------- */

static bool check_host(exchange *x) {
    const http_config *c = &x->server->config;
    const char *header = http_header(&x->request, "Host"), *host;
    size_t host_n;
    if (c->any_host) return true;
    if (!header || !find_host(header, strlen(header), &host, &host_n))
        return api_fail(&x->refusal, 400, NULL, "invalid_host", "Host: want the server's name, got %s",
                        header ? "something else" : "none");
    if (is_loopback_name(host, host_n) || is_numeric_host(host, host_n) || word_list_has(c->hosts, host, host_n, true)) return true;
    api_fail(&x->refusal, 403, NULL, "host_not_allowed",
             "Host: '%.*s' is none of this server's names (a page may have led a browser here); --allowed-host adds one",
             (int)(host_n < 200 ? host_n : 200), host);
    return false;
}

/* A page of another origin may not use this server, whether or not its browser would show it the answer. */
static bool check_origin(exchange *x) {
    const char *origin = http_header(&x->request, "Origin"), *host = http_header(&x->request, "Host");
    if (!origin || origin_allowed(x->server, origin)) return true;
    if (host && origin_is_host(origin, strlen(origin), host, strlen(host))) return true;
    return api_fail(&x->refusal, 403, NULL, "origin_not_allowed",
                    "Origin: '%.200s' may not use this server; --cors-origin allows it", origin);
}

static bool check_key(exchange *x) {
    const word_list *keys = x->server->config.keys;
    if (keys->n == 0) return true;
    const char *bearer = http_header(&x->request, "Authorization"), *plain = http_header(&x->request, "X-Api-Key"), *key;
    size_t n;
    if (bearer && find_bearer(bearer, strlen(bearer), &key, &n) && keys_match(keys, key, n)) return true;
    if (plain && keys_match(keys, plain, strlen(plain))) return true;
    return api_fail(&x->refusal, 401, NULL, "invalid_api_key", "%s",
                    bearer || plain ? "Incorrect API key provided"
                                    : "You didn't provide an API key: send it as 'Authorization: Bearer KEY'");
}

static const char *skip_version(const char *path) { return strncmp(path, "/v1/", 4) == 0 ? path + 3 : path; }

static bool path_matches(const char *route, const char *path) {
    size_t n = strlen(route);
    if (n > 1 && route[n - 1] == '/') return strncmp(path, route, n) == 0 && path[n];
    return strcmp(path, route) == 0;
}

static bool method_matches(const char *route, const char *method) {
    return strcmp(route, method) == 0 || (strcmp(route, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

/* The route, -1 for a file of the page or an OPTIONS request; false: refused. */
static bool find_route(exchange *x) {
    const http_config *c = &x->server->config;
    const char *path = skip_version(x->request.path);
    x->route = -1;
    for (int i = 0; i < c->n_routes; i++) {
        if (!path_matches(c->routes[i].path, path)) continue;
        if (method_matches(c->routes[i].method, x->request.method)) {
            x->route = i;
            return true;
        }
        x->allow = c->routes[i].method[0] == 'G' ? "GET, HEAD, OPTIONS" : "POST, OPTIONS";
    }
    if (strcmp(x->request.method, "OPTIONS") == 0) return true;
    if (x->allow)
        return api_fail(&x->refusal, 405, NULL, "method_not_allowed", "Not allowed to %.20s on %.200s: want %s",
                        x->request.method, x->request.path, x->allow);
    if (c->fallback && method_matches("GET", x->request.method)) {
        c->fallback(c->ctx, &x->request, &x->reply);
        if (x->reply.status) return true;
    }
    return api_fail(&x->refusal, 404, NULL, "unknown_url", "Unknown request URL: %.20s %.200s", x->request.method,
                    x->request.path);
}

static bool check_all(exchange *x) {
    if (!check_host(x) || !check_origin(x) || !find_route(x)) return false;
    bool is_public = x->route < 0 || (x->server->config.routes[x->route].flags & HTTP_PUBLIC);
    return is_public || check_key(x);
}

/* ---- bodies -------------------------------------------------------------------------------------------------------- */

static bool reserve(exchange *x, int64_t bytes) {
    int64_t limit = x->server->config.max_body_bytes;
    if (bytes > limit)
        return api_fail(&x->refusal, 413, NULL, "body_too_large", "The body has more than %lld bytes (--max-body)",
                        (long long)limit);
    if (bytes <= x->reserved) return true;
    int64_t more = bytes - x->reserved;
    if (atomic_fetch_add(&x->server->body_bytes, more) + more > limit * BODIES_AT_ONCE) {
        atomic_fetch_sub(&x->server->body_bytes, more);
        api_fail(&x->refusal, 503, NULL, "busy", "Too many large requests at once: try again");
        x->refusal.retry_after = 1;
        return false;
    }
    x->reserved = bytes;
    return true;
}

static bool append_body(exchange *x, const char *data, size_t n) {
    if (x->body_n + n + 1 > x->body_cap) {
        size_t cap = (x->body_n + n + 1) * 2;
        if (x->body_cap == 0 && x->reserved >= (int64_t)n) cap = (size_t)x->reserved + 1;
        char *grown = realloc(x->body, cap);
        if (!grown) return api_fail(&x->refusal, 503, NULL, "out_of_memory", "No memory for a body of %zu bytes", cap);
        x->body = grown;
        x->body_cap = cap;
    }
    memcpy(x->body + x->body_n, data, n);
    x->body_n += n;
    x->body[x->body_n] = 0;
    return true;
}

/* False: the refusal must be sent at once, since reading on would take too long. */
static bool begin_body(exchange *x) {
    const http_config *c = &x->server->config;
    const char *length = http_header(&x->request, "Content-Length"), *coding = http_header(&x->request, "Transfer-Encoding");
    if (coding && strcasecmp(coding, "chunked") != 0) { /* where such a body ends only its sender knows */
        if (!x->refused) api_fail(&x->refusal, 501, NULL, "unsupported_transfer_coding", "Transfer-Encoding: want chunked, got '%.100s'", coding);
        return false;
    }
    long long announced = length ? strtoll(length, NULL, 10) : 0; /* libmicrohttpd has checked it */
    bool fits = x->refused ? announced <= c->max_body_bytes : reserve(x, announced);
    double patience = c->idle_seconds + (double)announced / BODY_BYTES_PER_SECOND;
    if (!length && !x->refused) patience += (double)c->max_body_bytes / BODY_BYTES_PER_SECOND;
    http_watch_expect(x->server->watch, x->connection, patience);
    return fits;
}

/* What is refused is read past: an answer can be queued before a body or behind it, not within.  Whoever has been told
 * nothing of its length has the idle time to come to its end. */
static void take_body(exchange *x, const char *data, size_t n) {
    x->refused = !(reserve(x, (int64_t)(x->body_n + n)) && append_body(x, data, n));
    if (!x->refused) return;
    free(x->body);
    x->body = NULL;
    x->body_n = x->body_cap = 0;
    http_watch_expect(x->server->watch, x->connection, x->server->config.idle_seconds);
}

/* ---- libmicrohttpd's callbacks ------------------------------------------------------------------------------------- */

static exchange *new_exchange(http_server *s, struct MHD_Connection *connection, const char *url, const char *method) {
    exchange *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    *x = (exchange){.server = s, .connection = connection, .route = -1};
    x->request = (http_request){.method = method, .path = url, .body = "", .connection = x, .began = clock_seconds()};
    x->request.fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    pthread_mutex_lock(&s->lock);
    s->n_exchanges++;
    pthread_mutex_unlock(&s->lock);
    return x;
}

static void free_exchange(exchange *x) {
    http_server *s = x->server;
    atomic_fetch_sub(&s->body_bytes, x->reserved);
    if (!x->reply.body_static) free(x->reply.body);
    free(x->body);
    free(x);
    pthread_mutex_lock(&s->lock);
    if (--s->n_exchanges == 0) pthread_cond_signal(&s->answered);
    pthread_mutex_unlock(&s->lock);
}

/* Read on, and forget it, until the client has seen the refusal and hangs up.  To close a connection with bytes unread is a
 * reset, which makes a client that is still sending fail before it looks for an answer.  The watcher ends what lasts. */
static void linger(const http_server *s, const struct MHD_Connection *connection, int fd) {
    char waste[16384];
    ssize_t n;
    http_watch_expect(s->watch, connection, s->config.idle_seconds);
    shutdown(fd, SHUT_WR);
    do {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        n = poll(&p, 1, -1) > 0 ? recv(fd, waste, sizeof waste, MSG_DONTWAIT) : -1;
    } while (n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN)));
}

static enum MHD_Result dispatch(exchange *x) {
    http_watch_expect(x->server->watch, x->connection, 0);
    if (x->body) {
        x->request.body = x->body;
        x->request.body_n = x->body_n;
    }
    const http_config *c = &x->server->config;
    if (x->route >= 0) c->routes[x->route].handler(c->ctx, &x->request, &x->reply);
    else if (!x->reply.status) x->reply.status = 204; /* OPTIONS */
    return send_reply(x);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *data_n, void **state) {
    (void)version;
    exchange *x = *state;
    if (!x) {
        *state = x = new_exchange(cls, connection, url, method);
        if (!x) return MHD_NO;
        x->refused = !check_all(x);
        x->body_unread = !begin_body(x);
        return x->body_unread ? send_refusal(x) : MHD_YES;
    }
    if (*data_n) {
        if (!x->refused) take_body(x, data, *data_n);
        *data_n = 0;
        return MHD_YES;
    }
    if (x->replied) return MHD_YES;
    return x->refused ? send_refusal(x) : dispatch(x);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why) {
    http_server *s = cls;
    exchange *x = *state;
    if (!x) return;
    *state = NULL;
    if (x->reply.free) x->reply.free(x->reply.stream);
    s->config.finished(s->config.ctx, &x->request, &x->reply, x->route, why != MHD_REQUEST_TERMINATED_COMPLETED_OK);
    bool lingers = x->body_unread && why == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    int fd = x->request.fd;
    free_exchange(x);
    if (lingers) linger(s, connection, fd);
    http_watch_expect(s->watch, connection, s->config.idle_seconds);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode code) {
    (void)context;
    http_server *s = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        http_watch_add(s->watch, connection, MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
                       s->config.idle_seconds);
    else http_watch_remove(s->watch, connection);
}

static void ignore_log(void *cls, const char *format, va_list args) {
    (void)cls;
    (void)format; /* a line for every client that leaves: on_completed knows that, too */
    (void)args;
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

static int listen_on(const char *host, int port, int *bound, tq_error *error) {
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list;
    int code = getaddrinfo(host, service, &hints, &list);
    if (code) {
        snprintf(error->text, sizeof error->text, "--host %s: %s", host, gai_strerror(code));
        return -1;
    }
    int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_storage at;
    socklen_t at_n = sizeof at;
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) != 0 || listen(fd, 128) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &at_n) != 0) {
        snprintf(error->text, sizeof error->text, "cannot listen on %s port %d: %s", host, port, strerror(errno));
        if (fd >= 0) close(fd);
        fd = -1;
    } else {
        *bound = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port : ((struct sockaddr_in *)&at)->sin_port);
    }
    freeaddrinfo(list);
    return fd;
}

static void init_lock(http_server *s) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&s->answered, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&s->lock, NULL);
}

static void destroy(http_server *s) {
    http_watch_free(s->watch);
    pthread_cond_destroy(&s->answered);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

bool http_server_new(const http_config *config, http_server **out, tq_error *error) {
    http_server *s = calloc(1, sizeof *s);
    *error = (tq_error){.code = TQ_IO};
    if (!s || !(s->watch = http_watch_new())) {
        snprintf(error->text, sizeof error->text, "no memory or no thread for the server");
        free(s);
        return false;
    }
    s->config = *config;
    init_lock(s);
    int fd = listen_on(config->host, config->port, &s->port, error);
    if (fd >= 0) {
        s->daemon = MHD_start_daemon(
            MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0,
            NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, ignore_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
            MHD_OPTION_CONNECTION_LIMIT, (unsigned)config->max_connections, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_HEADER_BYTES + STREAM_BLOCK,
            MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
            MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
        if (!s->daemon) snprintf(error->text, sizeof error->text, "cannot start listening on %s port %d", config->host, s->port);
        if (!s->daemon) close(fd);
    }
    if (!s->daemon) {
        destroy(s);
        return false;
    }
    *out = s;
    return true;
}

int http_server_port(const http_server *server) { return server->port; }

void http_server_quiesce(http_server *server) {
    int fd = MHD_quiesce_daemon(server->daemon);
    if (fd >= 0) close(fd);
}

bool http_server_drain(http_server *server, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double end = (double)until.tv_nsec + 1e9 * (seconds > 0 ? seconds : 0);
    until.tv_sec += (time_t)(end / 1e9);
    until.tv_nsec = (long)(end - 1e9 * (double)(time_t)(end / 1e9));
    atomic_store(&server->ending, true);
    pthread_mutex_lock(&server->lock);
    while (server->n_exchanges > 0 && pthread_cond_timedwait(&server->answered, &server->lock, &until) == 0) {}
    bool all = server->n_exchanges == 0;
    pthread_mutex_unlock(&server->lock);
    return all;
}

void http_server_free(http_server *server) {
    if (!server) return;
    http_watch_close_idle(server->watch);
    MHD_stop_daemon(server->daemon);
    destroy(server);
}
