/* server_metrics.c: counters, histograms and their text. */
#include "server_metrics.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Seconds: upper bounds of the buckets.  First tokens: a warm prompt to a book; between tokens: a small model to a slow box. */
static const double first_token_bounds[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
static const double token_gap_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5};
static const double request_bounds[] = {0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800};

enum { BOUNDS_CAP = 16, HTTP_CAP = 256 };

typedef struct histogram {
    const char *name, *help;
    const double *bounds;
    int n_bounds;
    uint64_t counts[BOUNDS_CAP + 1]; /* the last: beyond all bounds */
    double sum;
} histogram;

typedef struct http_count {
    const char *path; /* NULL: other */
    int status;
    uint64_t n;
} http_count;

struct server_metrics {
    pthread_mutex_t lock;
    histogram first_token, token_gap, request;
    uint64_t aborted;
    http_count http[HTTP_CAP]; /* routes times the statuses that they give: bounded */
    int n_http;
    double prefill_seconds, decode_seconds, queue_seconds;
};

#define HISTOGRAM(name_, help_, bounds_) \
    (histogram) { .name = (name_), .help = (help_), .bounds = (bounds_), .n_bounds = (int)(sizeof(bounds_) / sizeof *(bounds_)) }

server_metrics *server_metrics_new(void) {
    server_metrics *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    pthread_mutex_init(&m->lock, NULL);
    m->first_token = HISTOGRAM("tq_time_to_first_token_seconds", "From submission to the first token", first_token_bounds);
    m->token_gap = HISTOGRAM("tq_time_between_tokens_seconds", "From a token of a reply to its next", token_gap_bounds);
    m->request = HISTOGRAM("tq_http_request_seconds", "From a request's headers to its last byte", request_bounds);
    return m;
}

void server_metrics_free(server_metrics *m) {
    if (!m) return;
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static void observe(histogram *h, double value) {
    int i = 0;
    while (i < h->n_bounds && value > h->bounds[i]) i++;
    h->counts[i]++;
    h->sum += value;
}

void server_metrics_token(server_metrics *m, double ttft, double gap) {
    pthread_mutex_lock(&m->lock);
    if (ttft > 0) observe(&m->first_token, ttft);
    if (gap > 0) observe(&m->token_gap, gap);
    pthread_mutex_unlock(&m->lock);
}

void server_metrics_request(server_metrics *m, const tq_usage *usage) {
    pthread_mutex_lock(&m->lock);
    m->prefill_seconds += usage->prefill_seconds;
    m->decode_seconds += usage->decode_seconds;
    m->queue_seconds += usage->queue_seconds;
    pthread_mutex_unlock(&m->lock);
}

void server_metrics_http(server_metrics *m, const char *path, int status, double seconds, bool aborted) {
    pthread_mutex_lock(&m->lock);
    observe(&m->request, seconds);
    m->aborted += aborted;
    int i = 0;
    while (i < m->n_http && !(m->http[i].path == path && m->http[i].status == status)) i++;
    if (i == m->n_http && m->n_http < HTTP_CAP) m->http[m->n_http++] = (http_count){.path = path, .status = status};
    if (i < HTTP_CAP) m->http[i].n++;
    pthread_mutex_unlock(&m->lock);
}

/* ---- text ---------------------------------------------------------------------------------------------------------- */

static void head(FILE *to, const char *name, const char *type, const char *help) {
    fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_number(FILE *to, const char *name, const char *type, const char *help, double value) {
    head(to, name, type, help);
    fprintf(to, "%s %.17g\n", name, value);
}

static void write_histogram(FILE *to, const histogram *h) {
    head(to, h->name, "histogram", h->help);
    uint64_t total = 0;
    for (int i = 0; i < h->n_bounds; i++) {
        total += h->counts[i];
        fprintf(to, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", h->name, h->bounds[i], total);
    }
    total += h->counts[h->n_bounds];
    fprintf(to, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %.9g\n%s_count %" PRIu64 "\n", h->name, total, h->name, h->sum,
            h->name, total);
}

static void write_scheduler(FILE *to, const tq_scheduler_stats *s) {
    write_number(to, "tq_context_tokens", "gauge", "Most tokens of a request", s->ctx);
    write_number(to, "tq_requests_running", "gauge", "Requests in prefill or decode", s->running);
    write_number(to, "tq_requests_queued", "gauge", "Requests that wait for a place", s->queued);
    write_number(to, "tq_queue_limit", "gauge", "Requests that may wait", s->queue_limit);
    write_number(to, "tq_prompt_tokens_total", "counter", "Tokens of prompts", (double)s->prompt_tokens);
    write_number(to, "tq_cached_tokens_total", "counter", "Tokens of prompts taken from the cache", (double)s->cached_tokens);
    write_number(to, "tq_generated_tokens_total", "counter", "Tokens of replies", (double)s->generated_tokens);
    write_number(to, "tq_prefill_tokens_total", "counter", "Tokens evaluated other than one by one", (double)s->prefill_tokens);
    write_number(to, "tq_decode_steps_total", "counter", "Steps of all replies together", (double)s->decode_steps);
    head(to, "tq_requests_total", "counter", "Requests by what became of them");
    static const char *const finishes[] = {"stop", "length", "cancelled", "deadline", "failed"};
    for (int i = 0; i <= TQ_REQUEST_FAILED; i++)
        fprintf(to, "tq_requests_total{finish=\"%s\"} %" PRIu64 "\n", finishes[i], s->finished[i]);
    fprintf(to, "tq_requests_total{finish=\"refused_busy\"} %" PRIu64 "\n", s->refused_busy);
    fprintf(to, "tq_requests_total{finish=\"refused_full\"} %" PRIu64 "\n", s->refused_full);
    head(to, "tq_prefix_total", "counter", "Prompts by how much of them was in the cache, or why nothing was");
    for (int i = 0; i < TQ_PREFIX_RESULTS; i++)
        fprintf(to, "tq_prefix_total{result=\"%s\"} %" PRIu64 "\n", tq_prefix_result_name((tq_prefix_result)i), s->prefix[i]);
    write_number(to, "tq_cache_limit_bytes", "gauge", "Budget of everything cached (--cache-ram)", (double)s->cache_limit);
    head(to, "tq_cache_bytes", "gauge", "The budget by what it is used for; shared is a part of packed");
    const struct {
        const char *state;
        size_t bytes;
    } states[] = {{"exact", s->cache_exact}, {"packed", s->cache_packed}, {"shared", s->cache_shared},
                  {"tree", s->cache_tree},   {"free", s->cache_free}};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        fprintf(to, "tq_cache_bytes{state=\"%s\"} %zu\n", states[i].state, states[i].bytes);
    write_number(to, "tq_cache_running_bytes", "gauge", "What running requests hold", (double)s->cache_running);
    write_number(to, "tq_codec_table_bytes", "gauge", "Beside the budget: tables of codecs that requests asked for", (double)s->table_bytes);
    write_number(to, "tq_work_bytes", "gauge", "Beside the budget: activations and logits, a constant", (double)s->work_bytes);
    write_number(to, "tq_cache_checkpoints", "gauge", "Places that a prompt can go on from", s->tree_checkpoints);
    write_number(to, "tq_cache_warm_tokens", "gauge", "Tokens that a prompt can go on from, shared beginnings once",
                 (double)s->tree_tokens);
    write_number(to, "tq_cache_checkpoints_evicted_total", "counter", "Places given up for want of room",
                 (double)s->checkpoints_evicted);
}

static void write_http(FILE *to, const server_metrics *m) {
    head(to, "tq_http_requests_total", "counter", "Answers by path and status");
    for (int i = 0; i < m->n_http; i++)
        fprintf(to, "tq_http_requests_total{path=\"%s\",status=\"%d\"} %" PRIu64 "\n", m->http[i].path ? m->http[i].path : "other",
                m->http[i].status, m->http[i].n);
    write_number(to, "tq_http_aborted_total", "counter", "Answers that were not read to their end", (double)m->aborted);
}

char *server_metrics_text(server_metrics *m, const tq_scheduler_stats *stats, size_t *n) {
    char *text = NULL;
    FILE *to = open_memstream(&text, n);
    if (!to) return NULL;
    head(to, "tq_build_info", "gauge", "The version");
    fprintf(to, "tq_build_info{version=\"%s\"} 1\n", tq_version());
    write_number(to, "tq_ready", "gauge", "1 once the model is loaded", stats != NULL);
    if (stats) write_scheduler(to, stats);
    pthread_mutex_lock(&m->lock);
    write_histogram(to, &m->first_token);
    write_histogram(to, &m->token_gap);
    write_histogram(to, &m->request);
    write_http(to, m);
    write_number(to, "tq_queue_seconds_total", "counter", "Time that requests waited for a place", m->queue_seconds);
    write_number(to, "tq_prefill_seconds_total", "counter", "Time from start to first token, summed over requests", m->prefill_seconds);
    write_number(to, "tq_decode_seconds_total", "counter", "Time from first to last token, summed over requests", m->decode_seconds);
    pthread_mutex_unlock(&m->lock);
    if (fclose(to) == 0) return text;
    free(text);
    return NULL;
}
