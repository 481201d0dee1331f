/* cmd_serve.c: `tq serve`: its options, and what they come to as settings of the server. */
#include <stdlib.h>
#include <unistd.h>

#include "../server/server.h"
#include "commands.h"
#include "options.h"
#include "setup.h"
#include "turboquant/tq_scheduler.h"

static const char about[] =
    "Serve a model to OpenAI clients, with a page to chat at the same address.\n"
    "\n"
    "    tq serve                                  the bundled model, http://127.0.0.1:8080\n"
    "    tq serve --model DIR --ctx 32768 --cache-ram 4096\n"
    "    TQ_API_KEY=... tq serve --host 0.0.0.0    for other machines: they need the key\n"
    "\n"
    "Clients use the base URL http://HOST:PORT/v1.  Prompts that begin alike share their cache: --cache-ram says how\n"
    "much of it is kept, and a request may choose its codec with the field \"kv\".  SIGTERM ends the server when what\n"
    "runs is finished, a second one at once.  docs/server.md has the API, a systemd unit and a proxy for TLS.";

typedef struct serve_options {
    server_config config;
    model_options model;
    cache_options cache;
    sampling_options sampling;
    int cache_mib, max_body_mib;
} serve_options;

/* The model is opened while the server listens. */
static int open_model(void *ctx, void (*progress)(void *, double), void *progress_ctx, tq_model **out) {
    return setup_model_reporting("serve", ctx, progress, progress_ctx, out);
}

static tq_sampling get_sampling(void *ctx, const tq_model *model) { return options_get_sampling(ctx, model); }

static void add_int(options *o, const char *name, const char *argument, int *to, int min, int max, const char *help) {
    options_add(o, (option_row){.name = name, .argument = argument, .type = OPTION_INT, .to = to, .min = min, .max = max, .help = help});
}

static void add_string(options *o, const char *name, const char *argument, const char **to, const char *help) {
    options_add(o, (option_row){.name = name, .argument = argument, .type = OPTION_STRING, .to = to, .help = help});
}

static void add_flag(options *o, const char *name, bool *to, const char *help) {
    options_add(o, (option_row){.name = name, .type = OPTION_FLAG, .to = to, .help = help});
}

static void add_network(options *o, server_config *c) {
    options_heading(o, "Network");
    add_string(o, "host", "ADDRESS", &c->host, "address to listen on (default 127.0.0.1: this machine alone)");
    add_int(o, "port", "N", &c->port, 0, 65535, "port (default 8080; 0: any free one, which the log names)");
    add_string(o, "api-key-file", "FILE", &c->api_key_file,
               "keys, one a line ('#' comments); or $TQ_API_KEY, with commas between.\n"
               "Clients send one as 'Authorization: Bearer KEY'");
    add_flag(o, "insecure", &c->insecure, "listen for other machines without a key");
    add_string(o, "cors-origin", "LIST", &c->cors_origins,
               "origins, with commas between, whose pages may use this server\n(https://chat.example; '*': all; default: its own page only)");
    add_string(o, "allowed-host", "LIST", &c->allowed_hosts,
               "names of this server that may stand in a request's Host header,\nbesides localhost and --host (behind a proxy: its name)");
    add_int(o, "max-connections", "N", &c->max_connections, 1, 4096, "connections at once (default 256)");
    add_int(o, "idle-timeout", "SECONDS", &c->idle_seconds, 1, 3600, "for a client to say or take something (default 30)");
    add_int(o, "request-timeout", "SECONDS", &c->request_seconds, 0, 1 << 20, "longest life of a request (default 0: as long as it takes)");
    add_int(o, "shutdown-timeout", "SECONDS", &c->shutdown_seconds, 0, 3600, "to finish what runs after SIGTERM (default 10)");
}

static void add_requests(options *o, serve_options *s) {
    server_config *c = &s->config;
    options_heading(o, "Requests");
    add_int(o, "parallel", "N", &c->parallel, 1, TQ_MAX_PARALLEL, "requests that run at once (default 8)");
    add_int(o, "queue", "N", &c->queue, 0, 65536, "requests that may wait; the next gets 429 (default 64)");
    add_int(o, "cache-ram", "MIB", &s->cache_mib, 1, 1 << 24,
            "hard limit of everything cached, running or kept for the next turn\n(default 1024)");
    add_int(o, "prefill-chunk", "N", &c->prefill_chunk, 1, 1024, "tokens of a prompt evaluated together (default 256)");
    add_int(o, "max-tokens", "N", &c->max_tokens, 0, 1 << 24, "of an answer, if the request does not say (default 0: to the end of\nthe context)");
    add_int(o, "max-choices", "N", &c->max_choices, 1, 128, "replies of one request: prompts times n (default 16)");
    add_int(o, "max-body", "MIB", &s->max_body_mib, 1, 1024, "of a request (default 16)");
    add_string(o, "alias", "NAME", &c->alias, "the model's name in answers (default: of its folder or file)");
}

static void add_log(options *o, server_config *c) {
    options_heading(o, "Log (stderr)");
    add_flag(o, "quiet", &c->quiet, "no line a request");
    add_flag(o, "log-prompts", &c->log_prompts, "what clients send, too: other people's words");
}

int cmd_serve(int argc, char **argv) {
    serve_options s = {.config = server_config_default(), .max_body_mib = 16};
    server_config *c = &s.config;
    s.cache_mib = (int)(c->cache_bytes >> 20);
    options o;
    options_begin(&o, "tq serve [OPTIONS]", about);
    add_network(&o, c);
    options_add_model(&o, &s.model);
    add_requests(&o, &s);
    options_add_cache(&o, &s.cache);
    options_add_sampling(&o, &s.sampling);
    add_log(&o, c);
    int code = options_parse(&o, argc, argv, NULL);
    if (code == OPTIONS_RUN) code = options_check_cache(&o, &s.cache);
    if (code != OPTIONS_RUN) return code;
    if (s.sampling.seed_given)
        return options_usage_error(&o, "--seed: a server whose requests all had the same seed would repeat itself; requests give their own");
    /* A name of the hub is the model's name; a path gives its last part. */
    if (!c->alias && s.model.model && access(s.model.model, F_OK) != 0) c->alias = s.model.model;
    c->api_keys = getenv("TQ_API_KEY");
    c->cache_bytes = (int64_t)s.cache_mib << 20;
    c->max_body_bytes = (int64_t)s.max_body_mib << 20;
    c->ctx = s.cache.ctx;
    c->cache = s.cache.config;
    c->open_model = open_model;
    c->open_ctx = &s.model;
    c->get_sampling = get_sampling;
    c->sampling_ctx = &s.sampling;
    return server_run(c);
}
