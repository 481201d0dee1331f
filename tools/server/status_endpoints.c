/* status_endpoints.c: what the server is and does: models, health, properties, slots, metrics, the description of its API. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server_state.h"
#include "web_files.h"

/* ---- models -------------------------------------------------------------------------------------------------------- */

static void put_model(server *s, jout *j) {
    const tq_model_info *info = tq_model_get_info(s->model);
    jout_object(j);
    jout_put_string(j, "id", s->name);
    jout_put_string(j, "object", "model");
    jout_put_int(j, "created", s->started);
    jout_put_string(j, "owned_by", "turboquant");
    jout_key(j, "meta");
    jout_object(j);
    jout_put_string(j, "family", info->family);
    jout_put_int(j, "n_ctx", s->ctx);
    jout_put_int(j, "n_ctx_train", info->max_context);
    jout_put_int(j, "n_params", info->n_parameters);
    jout_put_int(j, "n_vocab", info->vocab);
    jout_put_int(j, "size", info->weight_bytes);
    jout_end(j);
    jout_end(j);
}

void serve_models(void *ctx, const http_request *request, http_reply *reply) {
    (void)request;
    server *s = ctx;
    api_error error;
    if (!server_is_ready(s, &error)) {
        http_reply_error(reply, &error);
        return;
    }
    jout j = {0};
    jout_object(&j);
    jout_put_string(&j, "object", "list");
    jout_key(&j, "data");
    jout_array(&j);
    put_model(s, &j);
    jout_end(&j);
    jout_end(&j);
    http_reply_json(reply, 200, &j);
}

void serve_model(void *ctx, const http_request *request, http_reply *reply) {
    server *s = ctx;
    api_error error;
    const char *id = strstr(request->path, "/models/") + 8;
    if (!server_is_ready(s, &error)) {
        http_reply_error(reply, &error);
    } else if (strcmp(id, s->name) != 0) {
        api_fail(&error, 404, "model", "model_not_found", "The model '%.200s' does not exist; this server has '%s'", id, s->name);
        http_reply_error(reply, &error);
    } else {
        jout j = {0};
        put_model(s, &j);
        http_reply_json(reply, 200, &j);
    }
}

/* ---- state --------------------------------------------------------------------------------------------------------- */

void serve_health(void *ctx, const http_request *request, http_reply *reply) {
    (void)request;
    server *s = ctx;
    api_error error;
    jout j = {0};
    if (server_is_ready(s, &error)) {
        jout_object(&j);
        jout_put_string(&j, "status", "ok");
        jout_end(&j);
        http_reply_json(reply, 200, &j);
        return;
    }
    jout_object(&j);
    bool loading = atomic_load(&s->phase) == SERVER_LOADING;
    jout_put_string(&j, "status", loading ? "loading" : "stopping");
    if (loading) jout_put_number(&j, "progress", atomic_load(&s->loaded_permille) / 1000.0);
    jout_key(&j, "error");
    api_error_write(&j, &error);
    jout_end(&j);
    http_reply_json(reply, 503, &j);
    reply->retry_after = error.retry_after;
}

void serve_metrics(void *ctx, const http_request *request, http_reply *reply) {
    (void)request;
    server *s = ctx;
    api_error error;
    tq_scheduler_stats *stats = NULL;
    if (server_is_ready(s, &error) && (stats = malloc(sizeof *stats))) tq_scheduler_get_stats(s->scheduler, stats);
    size_t n = 0;
    char *text = server_metrics_text(s->metrics, stats, &n);
    free(stats);
    if (text) {
        http_reply_text(reply, 200, "text/plain; version=0.0.4; charset=utf-8", text, n);
    } else {
        api_fail(&error, 503, NULL, "out_of_memory", "No memory for the metrics");
        http_reply_error(reply, &error);
    }
}

static void put_cache(jout *j, const tq_request_cache *c) {
    jout_object(j);
    jout_put_int(j, "tokens", c->tokens);
    jout_put_int(j, "packed_tokens", c->packed_tokens);
    jout_put_int(j, "exact_tokens", c->exact_tokens);
    jout_put_int(j, "shared_pages", c->shared_pages);
    jout_put_int(j, "bytes", (int64_t)c->bytes);
    jout_put_int(j, "f16_bytes", (int64_t)c->f16_bytes);
    jout_end(j);
}

static void put_slot(jout *j, int id, const tq_slot_stats *slot) {
    static const char *const states[] = {"free", "prefill", "decode", "wait"};
    jout_object(j);
    jout_put_int(j, "id", id);
    jout_put_string(j, "state", states[slot->state]);
    if (slot->state != TQ_SLOT_FREE) {
        jout_put_int(j, "request", (int64_t)slot->request);
        jout_put_string(j, "task", slot->task == TQ_TASK_GENERATE ? "generate" : "embed");
        jout_put_string(j, "kv", slot->kv);
        jout_put_int(j, "prompt_tokens", slot->prompt_tokens);
        jout_put_int(j, "prompt_done", slot->prompt_done);
        jout_put_int(j, "cached_tokens", slot->cached_tokens);
        jout_put_int(j, "generated", slot->generated_tokens);
        jout_put_int(j, "max_tokens", slot->max_tokens);
        jout_put_number(j, "elapsed_ms", (double)(long long)(slot->seconds * 1e3));
        jout_key(j, "cache");
        put_cache(j, &slot->cache);
    }
    jout_end(j);
}

void serve_slots(void *ctx, const http_request *request, http_reply *reply) {
    server *s = ctx;
    api_error error;
    tq_scheduler_stats *stats;
    if (!server_is_ready(s, &error) ||
        (!(stats = malloc(sizeof *stats)) && !api_fail(&error, 503, NULL, "out_of_memory", "No memory for the slots"))) {
        http_reply_error(reply, &error);
        return;
    }
    tq_scheduler_get_stats(s->scheduler, stats);
    const char *want_free = http_query(request, "fail_on_no_slot");
    bool any_free = stats->running < stats->parallel;
    jout j = {0};
    jout_array(&j);
    for (int i = 0; i < stats->n_slots; i++) put_slot(&j, i, &stats->slots[i]);
    jout_end(&j);
    free(stats);
    if (want_free && strcmp(want_free, "1") == 0 && !any_free) {
        free(j.data);
        api_fail(&error, 503, NULL, "no_slot_available", "All places are taken");
        error.retry_after = 1;
        http_reply_error(reply, &error);
    } else {
        http_reply_json(reply, 200, &j);
    }
}

/* ---- properties ---------------------------------------------------------------------------------------------------- */

static void put_defaults(const server *s, jout *j) {
    const tq_sampling *d = &s->limits.sampling;
    jout_object(j);
    jout_put_number(j, "temperature", d->temp);
    jout_put_number(j, "top_p", d->top_p);
    jout_put_number(j, "min_p", d->min_p);
    jout_put_int(j, "top_k", d->top_k);
    jout_put_number(j, "repeat_penalty", d->repeat_penalty);
    jout_put_number(j, "presence_penalty", d->presence_penalty);
    jout_put_number(j, "frequency_penalty", d->frequency_penalty);
    jout_put_int(j, "max_tokens", s->limits.max_tokens);
    jout_end(j);
}

void serve_props(void *ctx, const http_request *request, http_reply *reply) {
    (void)request;
    static const char *const codecs[] = {"tq2", "tq3", "tq4", "tcq2", "tcq3", "tcq4", "q8", "f16", "f32"};
    server *s = ctx;
    api_error error;
    if (!server_is_ready(s, &error)) {
        http_reply_error(reply, &error);
        return;
    }
    const tq_model_info *info = tq_model_get_info(s->model);
    jout j = {0};
    jout_object(&j);
    jout_put_string(&j, "model", s->name);
    jout_put_string(&j, "family", info->family);
    jout_put_string(&j, "weights", info->weights);
    jout_put_string(&j, "backend", info->backend);
    jout_put_string(&j, "build", tq_version());
    jout_put_int(&j, "n_parameters", info->n_parameters);
    jout_put_int(&j, "n_threads", info->n_threads);
    jout_put_int(&j, "max_context", info->max_context);
    jout_put_int(&j, "ctx", s->ctx);
    jout_put_int(&j, "total_slots", s->config->parallel);
    jout_put_int(&j, "queue_limit", s->config->queue);
    jout_put_int(&j, "max_choices", s->limits.max_choices);
    jout_put_bool(&j, "has_chat_template", info->has_chat_template);
    jout_put_bool(&j, "synthetic", info->synthetic);
    jout_put_string(&j, "kv", s->kv);
    jout_key(&j, "kv_available"); /* the names that a menu shows; a request may give any that tq codecs lists */
    jout_array(&j);
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) jout_string(&j, codecs[i], strlen(codecs[i]));
    jout_end(&j);
    jout_put_int(&j, "buffer_size", s->config->cache.buffer_size);
    jout_put_int(&j, "sinks", s->config->cache.sinks);
    jout_put_int(&j, "page_tokens", TQ_PAGE_TOKENS);
    jout_put_int(&j, "cache_ram_bytes", s->cache_bytes);
    jout_put_int(&j, "f16_bytes_per_token", (int64_t)info->n_layers * info->n_kv_heads * info->head_dim * 4);
    jout_key(&j, "default_generation_settings");
    put_defaults(s, &j);
    jout_end(&j);
    http_reply_json(reply, 200, &j);
}

/* ---- files built in ------------------------------------------------------------------------------------------------ */

void serve_openapi(void *ctx, const http_request *request, http_reply *reply) {
    (void)ctx;
    (void)request;
    http_reply_static(reply, "application/json", web_openapi.data, web_openapi.n, web_openapi.etag);
}

/* The page runs its own scripts and talks to this server: nothing else. */
static const char page_policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

void serve_file(void *ctx, const http_request *request, http_reply *reply) {
    (void)ctx;
    const char *path = strcmp(request->path, "/") == 0 ? "/index.html" : request->path;
    for (int i = 0; i < web_n_files; i++) {
        const web_file *f = &web_files[i];
        if (strcmp(f->path, path) != 0) continue;
        const char *known = http_header(request, "If-None-Match");
        http_reply_static(reply, f->type, f->data, f->n, f->etag);
        if (known && strcmp(known, f->etag) == 0) {
            reply->status = 304;
            reply->body_n = 0;
        }
        reply->policy = page_policy;
        return;
    }
}
