/* server_state.h: what the endpoints share: settings, the model once it is there, the scheduler, counters. */
#ifndef TQ_SERVER_STATE_H
#define TQ_SERVER_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "gen_request.h"
#include "http.h"
#include "reasoning_split.h"
#include "server.h"
#include "server_metrics.h"
#include "turboquant/tq_scheduler.h"

typedef enum server_phase { SERVER_LOADING, SERVER_READY, SERVER_STOPPING } server_phase;

enum { LOAD_RUNS = -1 };

typedef struct server {
    const server_config *config;
    atomic_int phase;      /* server_phase; model and scheduler may be used from SERVER_READY on */
    atomic_int loaded_permille;
    atomic_int load_code; /* LOAD_RUNS, 0, or the code to exit with */
    tq_model *model;
    tq_scheduler *scheduler;
    server_metrics *metrics;
    char name[256]; /* the model's, in answers */
    long long started; /* seconds since 1970 */
    int ctx;
    int64_t cache_bytes;
    char kv[64]; /* the codec in use for requests that name none */
    gen_limits limits;
    const reasoning_marks *marks; /* that the model's tokenizer has, and those of them that are control tokens */
    int32_t shown[TQ_MAX_SHOWN];
    int n_shown;
    pthread_mutex_t reading; /* one body at a time becomes JSON and tokens: that is what takes memory */
} server;

/* Everything that needs the model begins with this: false and 503 while it is loaded or the server stops. */
bool server_is_ready(server *s, api_error *error);

/* The model must be one that this server has (any name for it is taken: "" and absent, too).  Kept for answers. */
const char *server_model_name(const server *s, const char *asked);

/* Look which marks of reasoning the model has. */
void server_find_marks(server *s);

void server_random(void *bytes, size_t n);
/* A new id, "chatcmpl-" and 24 letters, into id. */
void server_make_id(char *id, size_t cap, const char *prefix);

/* Why a request failed, from its DONE event. */
void server_fail_event(api_error *error, const tq_event *event);
/* Why the scheduler did not take a request. */
void server_fail_submit(server *s, api_error *error, tq_status status, const tq_error *from, const char *kv);

/* Handlers; ctx is the server. */
void serve_chat_completions(void *ctx, const http_request *request, http_reply *reply);
void serve_completions(void *ctx, const http_request *request, http_reply *reply);
void serve_embeddings(void *ctx, const http_request *request, http_reply *reply);
void serve_models(void *ctx, const http_request *request, http_reply *reply);
void serve_model(void *ctx, const http_request *request, http_reply *reply);
void serve_tokenize(void *ctx, const http_request *request, http_reply *reply);
void serve_detokenize(void *ctx, const http_request *request, http_reply *reply);
void serve_apply_template(void *ctx, const http_request *request, http_reply *reply);
void serve_health(void *ctx, const http_request *request, http_reply *reply);
void serve_metrics(void *ctx, const http_request *request, http_reply *reply);
void serve_slots(void *ctx, const http_request *request, http_reply *reply);
void serve_props(void *ctx, const http_request *request, http_reply *reply);
void serve_openapi(void *ctx, const http_request *request, http_reply *reply);
void serve_file(void *ctx, const http_request *request, http_reply *reply); /* status stays 0 if there is no such file */

#endif
