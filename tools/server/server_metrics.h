/* server_metrics.h: what is counted, and its text for Prometheus (format 0.0.4). */
#ifndef TQ_SERVER_METRICS_H
#define TQ_SERVER_METRICS_H

#include <stddef.h>

#include "turboquant/tq_scheduler.h"

typedef struct server_metrics server_metrics;

server_metrics *server_metrics_new(void);
void server_metrics_free(server_metrics *m);

/* From any thread. */
void server_metrics_token(server_metrics *m, double ttft, double gap); /* seconds; 0: not known */
void server_metrics_request(server_metrics *m, const tq_usage *usage);
/* path: of a route, static ("/chat/completions"); NULL: a file or something unknown. */
void server_metrics_http(server_metrics *m, const char *path, int status, double seconds, bool aborted);

/* malloc'ed text; stats NULL while the model is loading.  NULL: out of memory. */
char *server_metrics_text(server_metrics *m, const tq_scheduler_stats *stats, size_t *n);

#endif
