/* server.h: `tq serve`: an HTTP server that speaks OpenAI's API, from settings to the end of the process.
 *
 * server_run listens first and loads the model afterwards, so that clients are told to wait (503, Retry-After) and a
 * supervisor sees progress at /health.  It returns when SIGTERM or SIGINT has ended everything. */
#ifndef TQ_SERVER_H
#define TQ_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "turboquant/tq.h"

typedef struct server_config {
    const char *host; /* address to listen on; "localhost" is 127.0.0.1 */
    int port;         /* 0: any free one, printed */
    const char *api_key_file;       /* one key a line, '#' comments; NULL: none */
    const char *api_keys;           /* keys separated by commas, from the environment; NULL: none */
    bool insecure;                  /* another address than loopback without a key */
    const char *cors_origins;       /* "https://a.example,http://localhost:3000" or "*"; NULL: same origin only */
    const char *allowed_hosts;      /* names that may stand in Host, besides loopback's and `host` */
    int64_t max_body_bytes;
    int max_connections;
    int idle_seconds;     /* a connection without traffic, and a request not yet read to its end */
    int request_seconds;  /* longest life of a request; 0: as long as it takes */
    int shutdown_seconds; /* what runs may finish for so long after SIGTERM */
    bool log_prompts;     /* prompts and answers into the log */
    bool quiet;           /* no line a request */

    const char *alias; /* the model's name in answers; NULL: the last part of its path */
    int ctx;           /* most tokens of one request, prompt and answer; 0: what the model was made for */
    int parallel;      /* requests decoded together */
    int queue;         /* requests that may wait beside them */
    int64_t cache_bytes; /* budget of everything cached; 0: sized from ctx and parallel */
    int prefill_chunk;
    int max_tokens; /* of an answer, when the request does not say; 0: to the end of the context */
    int max_choices; /* largest n of a request */
    tq_cache_config cache;
    bool sampling_given;
    tq_sampling (*get_sampling)(void *ctx, const tq_model *model); /* defaults of requests that do not say */
    void *sampling_ctx;
    /* Opens the model (the caller knows how to find it); 0 or the code to exit with, its reason printed. */
    int (*open_model)(void *ctx, void (*progress)(void *ctx, double fraction), void *progress_ctx, tq_model **out);
    void *open_ctx;
} server_config;

/* Defaults of everything but the model. */
server_config server_config_default(void);

/* 0, or the code to exit with, its reason printed on stderr. */
int server_run(const server_config *config);

#endif
