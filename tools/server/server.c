/* server.c: the life of a server: listen, load, serve, end. */
#include "server.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server_state.h"

enum {
    KEY_FILE_BYTES_MAX = 65536,
    ARENAS = 2,
    LARGE_BLOCK_BYTES = 256 << 10,
    LAST_WORDS_SECONDS = 5,    /* to send answers and errors, however little of --shutdown-timeout is left */
    HURRIED_WORDS_SECONDS = 1, /* the same after a second signal */
};

static const http_route routes[] = {
    {"POST", "/chat/completions", serve_chat_completions, 0},
    {"POST", "/completions", serve_completions, 0},
    {"POST", "/embeddings", serve_embeddings, 0},
    {"GET", "/models", serve_models, 0},
    {"GET", "/models/", serve_model, 0},
    {"GET", "/health", serve_health, HTTP_PUBLIC},
    {"GET", "/metrics", serve_metrics, 0},
    {"GET", "/slots", serve_slots, 0},
    {"GET", "/props", serve_props, 0},
    {"POST", "/tokenize", serve_tokenize, 0},
    {"POST", "/detokenize", serve_detokenize, 0},
    {"POST", "/apply-template", serve_apply_template, 0},
    {"GET", "/openapi.json", serve_openapi, HTTP_PUBLIC},
};

server_config server_config_default(void) {
    tq_scheduler_params p = tq_scheduler_params_default();
    return (server_config){
        .host = "127.0.0.1",
        .port = 8080,
        .max_body_bytes = 16 << 20,
        .max_connections = 256,
        .idle_seconds = 30,
        .shutdown_seconds = 10,
        .parallel = p.parallel,
        .queue = p.queue_limit,
        .cache_bytes = (int64_t)p.cache_bytes,
        .prefill_chunk = p.prefill_chunk,
        .max_choices = 16,
        .cache = p.cache,
    };
}

static int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("tq serve: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return EXIT_FAILURE;
}

/* ---- the log ------------------------------------------------------------------------------------------------------- */

/* One line at a time, with the time in UTC; what came from outside is shown without control characters. */
static void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void log_line(const char *format, ...) {
    char line[1024], at[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F) *c = '?';
    fprintf(stderr, "%s %s\n", at, line);
}

static void on_finished(void *ctx, const http_request *request, const http_reply *reply, int route, bool aborted) {
    server *s = ctx;
    double seconds = clock_seconds() - request->began;
    server_metrics_http(s->metrics, route >= 0 ? routes[route].path : NULL, reply->status, seconds, aborted);
    bool is_watching = route >= 0 && routes[route].handler != serve_models && strcmp(routes[route].method, "GET") == 0;
    if (s->config->quiet || (is_watching && reply->status == 200)) return; /* who asks every second fills no log */
    log_line("%.10s %.120s %d %.0f ms%s%s%s", request->method, request->path, reply->status, seconds * 1e3,
             aborted ? " (client left)" : "", reply->note[0] ? " " : "", reply->note);
    if (s->config->log_prompts && request->body_n) log_line("  request: %.900s", request->body);
}

static void on_scheduler_log(void *ctx, tq_log_level level, const char *text) {
    const server *s = ctx;
    if (level >= TQ_LOG_WARNING || (level == TQ_LOG_INFO && !s->config->quiet)) log_line("cache: %s", text);
}

/* ---- who may ask --------------------------------------------------------------------------------------------------- */

typedef struct access_lists {
    word_list keys, origins, hosts;
    bool any_host;
} access_lists;

static int read_key_file(const char *path, word_list *keys) {
    FILE *file = fopen(path, "rb");
    if (!file) return fail("--api-key-file %s: %s", path, strerror(errno));
    char *text = malloc(KEY_FILE_BYTES_MAX + 1);
    size_t n = text ? fread(text, 1, KEY_FILE_BYTES_MAX + 1, file) : 0;
    bool bad = !text || ferror(file) || n > KEY_FILE_BYTES_MAX || !word_list_add(keys, text, n, "\n", true);
    if (text) explicit_bzero(text, n);
    free(text);
    fclose(file);
    if (bad) return fail("--api-key-file %s: want at most %d keys, a line each, of at most %d bytes", path, WORDS_CAP, WORD_CAP - 1);
    return keys->n ? EXIT_SUCCESS : fail("--api-key-file %s: holds no key", path);
}

static int read_access(const server_config *c, access_lists *a) {
    if (c->api_keys && !word_list_add(&a->keys, c->api_keys, strlen(c->api_keys), ",", false))
        return fail("TQ_API_KEY: want at most %d keys of at most %d bytes", WORDS_CAP, WORD_CAP - 1);
    if (c->api_key_file && read_key_file(c->api_key_file, &a->keys) != EXIT_SUCCESS) return EXIT_FAILURE;
    if (c->cors_origins && !word_list_add(&a->origins, c->cors_origins, strlen(c->cors_origins), ",", false))
        return fail("--cors-origin: too many origins");
    if (c->allowed_hosts && !word_list_add(&a->hosts, c->allowed_hosts, strlen(c->allowed_hosts), ",", false))
        return fail("--allowed-host: too many names");
    if (is_loopback_name(c->host, strlen(c->host))) return EXIT_SUCCESS;
    if (a->keys.n == 0 && !c->insecure)
        return fail("--host %s can be reached by other machines: give keys (--api-key-file FILE, or TQ_API_KEY), or --insecure to let "
                    "everybody use this server",
                    c->host);
    word_list_add(&a->hosts, c->host, strlen(c->host), ",", false);
    /* Behind a key the Host header need not be known: a page in somebody's browser has no key. */
    a->any_host = a->keys.n > 0 && a->hosts.n == 1;
    return EXIT_SUCCESS;
}

/* ---- the model ----------------------------------------------------------------------------------------------------- */

static void on_progress(void *ctx, double fraction) { atomic_store(&((server *)ctx)->loaded_permille, (int)(fraction * 1000)); }

static void name_model(server *s) {
    const char *path = s->config->alias ? s->config->alias : tq_model_get_info(s->model)->path;
    size_t n = strlen(path);
    while (!s->config->alias && n > 1 && path[n - 1] == '/') n--;
    size_t from = n;
    while (!s->config->alias && from > 0 && path[from - 1] != '/') from--;
    if (s->config->alias) from = 0;
    snprintf(s->name, sizeof s->name, "%.*s", (int)(n - from), path + from);
}

static int start_scheduler(server *s) {
    const server_config *c = s->config;
    tq_scheduler_params p = tq_scheduler_params_default();
    p.ctx = c->ctx;
    p.parallel = c->parallel;
    p.queue_limit = c->queue;
    if (c->cache_bytes) p.cache_bytes = (size_t)c->cache_bytes;
    p.cache = c->cache;
    p.prefill_chunk = c->prefill_chunk;
    p.log = on_scheduler_log;
    p.log_ctx = s;
    tq_error error;
    if (tq_scheduler_new(s->model, &p, &s->scheduler, &error) != TQ_OK) return fail("%s", error.text);
    tq_scheduler_stats *stats = malloc(sizeof *stats);
    if (!stats) return fail("out of memory");
    tq_scheduler_get_stats(s->scheduler, stats);
    s->ctx = stats->ctx;
    s->cache_bytes = (int64_t)stats->cache_limit;
    memcpy(s->kv, stats->kv, sizeof s->kv);
    free(stats);
    const tq_model_info *info = tq_model_get_info(s->model);
    s->limits = (gen_limits){
        .sampling = c->get_sampling ? c->get_sampling(c->sampling_ctx, s->model) : tq_model_get_sampling(s->model),
        .vocab = info->vocab,
        .max_choices = c->max_choices,
        .max_tokens = c->max_tokens,
        .max_values = 65536 + 4 * (size_t)s->ctx, /* a prompt of token ids has ctx of them */
    };
    return EXIT_SUCCESS;
}

static int load(server *s) {
    int code = s->config->open_model(s->config->open_ctx, on_progress, s, &s->model);
    if (code == EXIT_SUCCESS) name_model(s);
    if (code == EXIT_SUCCESS) server_find_marks(s);
    if (code == EXIT_SUCCESS) code = start_scheduler(s);
    if (code != EXIT_SUCCESS) return code;
    int loading = SERVER_LOADING; /* unless it has been ended meanwhile */
    atomic_compare_exchange_strong(&s->phase, &loading, SERVER_READY);
    const tq_model_info *info = tq_model_get_info(s->model);
    log_line("ready: %s (%s, %s), %d tokens of context, %s cache of %lld MiB, %d at once", s->name, info->weights, info->backend, s->ctx,
             s->kv, (long long)(s->cache_bytes >> 20), s->config->parallel);
    return EXIT_SUCCESS;
}

/* A thread of its own, so that signals are heard meanwhile. */
static void *load_beside(void *ctx) {
    server *s = ctx;
    s->load_code = load(s);
    if (s->load_code != EXIT_SUCCESS) kill(getpid(), SIGTERM); /* the end comes the same way */
    return NULL;
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

static int wait_for_end(void) {
    sigset_t set;
    int got = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    while (sigwait(&set, &got) != 0) {}
    return got;
}

/* SIGTERM and SIGINT are waited for, by one thread at a time; a client that leaves is no reason to die. */
static void block_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static const char *signal_name(int number) { return number == SIGINT ? "SIGINT" : "SIGTERM"; }

/* The end of a server, and the thread that hears further signals meanwhile. */
typedef struct ending {
    server *s;
    pthread_t thread;
    atomic_bool hurried, over;
} ending;

static void *hear_signals(void *ctx) {
    ending *e = ctx;
    for (;;) {
        int got = wait_for_end();
        if (atomic_load(&e->over)) return NULL;
        if (atomic_exchange(&e->hurried, true)) continue;
        log_line("%s again: cancelling what runs", signal_name(got));
        if (e->s->scheduler) tq_scheduler_drain(e->s->scheduler, 0);
    }
}

static void end(server *s, http_server *http) {
    ending e = {.s = s};
    bool hears = pthread_create(&e.thread, NULL, hear_signals, &e) == 0; /* if not, it ends all the same */
    double until = clock_seconds() + s->config->shutdown_seconds;
    if (s->scheduler) {
        bool all = tq_scheduler_drain(s->scheduler, s->config->shutdown_seconds);
        if (atomic_load(&e.hurried)) log_line("cancelled what was not finished");
        else log_line(all ? "all requests are finished" : "cancelled what was not finished after %d s", s->config->shutdown_seconds);
    }
    double last_words = clock_seconds() + LAST_WORDS_SECONDS;
    if (until < last_words) until = last_words;
    bool answered, was_hurried = false;
    do {
        answered = http_server_drain(http, 0.1);
        if (!was_hurried && atomic_load(&e.hurried)) was_hurried = true, until = clock_seconds() + HURRIED_WORDS_SECONDS;
    } while (!answered && clock_seconds() < until);
    if (!answered) log_line("some clients did not take their answers");
    http_server_free(http);
    atomic_store(&e.over, true);
    if (hears) pthread_kill(e.thread, SIGTERM), pthread_join(e.thread, NULL);
    tq_scheduler_free(s->scheduler);
    tq_model_free(s->model);
}

static const char *shown_host(const char *host) { return strchr(host, ':') ? "[::1]" : host; }

static int run(server *s, const access_lists *access) {
    http_config hc = {
        .host = strcmp(s->config->host, "localhost") == 0 ? "127.0.0.1" : s->config->host,
        .port = s->config->port,
        .max_body_bytes = s->config->max_body_bytes,
        .max_connections = s->config->max_connections,
        .idle_seconds = s->config->idle_seconds,
        .keys = &access->keys,
        .origins = &access->origins,
        .hosts = &access->hosts,
        .any_host = access->any_host,
        .routes = routes,
        .n_routes = sizeof routes / sizeof *routes,
        .fallback = serve_file,
        .ctx = s,
        .finished = on_finished,
    };
    http_server *http;
    tq_error error;
    block_signals();
    if (!http_server_new(&hc, &http, &error)) return fail("%s", error.text);
    log_line("listening on http://%s:%d%s", shown_host(s->config->host), http_server_port(http),
             access->keys.n ? " (with a key)" : "");
    pthread_t loader;
    if (pthread_create(&loader, NULL, load_beside, s) != 0) {
        http_server_free(http);
        return fail("no thread to load the model");
    }
    int got = wait_for_end();
    if (atomic_exchange(&s->phase, SERVER_STOPPING) == SERVER_LOADING && s->load_code == LOAD_RUNS) {
        log_line("ended while the model was loaded");
        _exit(EXIT_SUCCESS); /* loading cannot be called off, and there is nothing to finish */
    }
    pthread_join(loader, NULL);
    if (s->load_code == EXIT_SUCCESS)
        log_line("%s: finishing what runs, for %d s at most", signal_name(got), s->config->shutdown_seconds);
    http_server_quiesce(http);
    end(s, http);
    return s->load_code;
}

/* Connections' threads come and go, bodies and caches of all sizes with them: with an arena for each and large blocks within,
 * the heap of a busy server grew for minutes and stayed there.  Large blocks go back to the system when they are freed. */
static void bound_heap(void) {
    mallopt(M_ARENA_MAX, ARENAS);
    mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
    mallopt(M_TRIM_THRESHOLD, LARGE_BLOCK_BYTES);
}

int server_run(const server_config *config) {
    bound_heap();
    static access_lists access;
    int code = read_access(config, &access);
    if (code != EXIT_SUCCESS) return code;
    server s = {.config = config, .load_code = LOAD_RUNS, .started = (long long)time(NULL)};
    pthread_mutex_init(&s.reading, NULL);
    s.metrics = server_metrics_new();
    code = s.metrics ? run(&s, &access) : fail("out of memory");
    server_metrics_free(s.metrics);
    pthread_mutex_destroy(&s.reading);
    explicit_bzero(&access, sizeof access);
    return code;
}
