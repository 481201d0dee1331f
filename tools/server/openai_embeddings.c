/* openai_embeddings.c: /embeddings: texts to vectors of length 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "fields.h"
#include "prompts.h"
#include "server_state.h"

enum { INPUTS_CAP = 2048 };

typedef struct embedding_request {
    json_t *root;
    prompt_list inputs;
    const char *model;
    tq_task task;
    bool base64;
    float **vectors; /* (inputs.n) of n_dims floats */
    int n_dims;
} embedding_request;

static void free_request(embedding_request *r) {
    for (int i = 0; r->vectors && i < r->inputs.n; i++) free(r->vectors[i]);
    free(r->vectors);
    prompts_free(&r->inputs);
    json_decref(r->root);
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static const json_t *read_fields(server *s, embedding_request *r, fields *f) {
    const json_t *input = fields_get(f, "input");
    if (!input) fields_fail(f, "input", "missing_required_parameter", "you must provide an input parameter");
    r->model = fields_string(f, "model");
    const char *format = fields_string(f, "encoding_format"), *pooling = fields_string(f, "pooling");
    r->base64 = format && strcmp(format, "base64") == 0;
    if (format && !r->base64 && strcmp(format, "float") != 0)
        fields_fail(f, "encoding_format", "invalid_value", "encoding_format: want float or base64, got '%.40s'", format);
    r->task = pooling && strcmp(pooling, "last") == 0 ? TQ_TASK_EMBED_LAST : TQ_TASK_EMBED_MEAN;
    if (pooling && strcmp(pooling, "last") != 0 && strcmp(pooling, "mean") != 0)
        fields_fail(f, "pooling", "invalid_value", "pooling: want mean or last, got '%.40s'", pooling);
    int hidden = tq_model_get_info(s->model)->hidden;
    long long dimensions;
    if (fields_int(f, "dimensions", 1, 1 << 20, &dimensions) && dimensions != hidden)
        fields_fail(f, "dimensions", "unsupported_parameter", "dimensions: this model's vectors have %d, no other number", hidden);
    fields_ignore(f, "user");
    return input;
}

static bool read_request(server *s, const http_request *request, embedding_request *r, api_error *error) {
    fields f;
    pthread_mutex_lock(&s->reading);
    r->root = fields_parse(request->body, request->body_n, s->limits.max_values, error);
    bool ok = r->root != NULL;
    if (ok) {
        fields_begin(&f, r->root, error);
        const json_t *input = read_fields(s, r, &f);
        ok = fields_end(&f) && prompts_of_value(s, input, "input", INPUTS_CAP, &r->inputs, error);
    }
    pthread_mutex_unlock(&s->reading);
    for (int i = 0; ok && i < r->inputs.n; i++)
        if (r->inputs.items[i].n > (size_t)s->ctx) {
            ok = api_fail_context(error, (int)r->inputs.items[i].n, 0, s->ctx);
            snprintf(error->param, sizeof error->param, "input");
        }
    return ok;
}

/* ---- evaluating ---------------------------------------------------------------------------------------------------- */

static bool take_vector(embedding_request *r, const answer_piece *piece, api_error *error) {
    const tq_event *e = &piece->event;
    if (e->kind != TQ_EVENT_DONE) return true;
    if (e->finish != TQ_REQUEST_STOP || !e->embedding) {
        server_fail_event(error, e);
        return false;
    }
    size_t bytes = (size_t)e->n_embedding * sizeof(float);
    float *copy = malloc(bytes);
    if (!copy) return api_fail(error, 503, NULL, "out_of_memory", "No memory for the vectors");
    memcpy(copy, e->embedding, bytes);
    r->vectors[piece->choice] = copy;
    r->n_dims = e->n_embedding;
    return true;
}

/* As many at once as the scheduler has places for, so that a long list does not fill the queue. */
static bool submit_some(server *s, embedding_request *r, answers *a, int *next, api_error *error) {
    while (*next < r->inputs.n && answers_running(a) < s->config->parallel) {
        tq_request_params p = tq_request_params_default();
        p.task = r->task;
        p.ids = r->inputs.items[*next].ids;
        p.n_ids = (int)r->inputs.items[*next].n;
        p.deadline = s->config->request_seconds;
        tq_error from;
        tq_status status = answers_submit(a, *next, s->scheduler, &p, &from);
        if (status == TQ_BUSY && answers_running(a) > 0) return true; /* when one of ours is through */
        if (status != TQ_OK) {
            server_fail_submit(s, error, status, &from, NULL);
            return false;
        }
        ++*next;
    }
    return true;
}

static bool evaluate(server *s, const http_request *request, embedding_request *r, api_error *error) {
    answers *a = answers_new(r->inputs.n, s->metrics);
    r->vectors = calloc((size_t)r->inputs.n, sizeof *r->vectors);
    bool ok = (a && r->vectors) || api_fail(error, 503, NULL, "out_of_memory", "No memory for %d vectors", r->inputs.n);
    int next = 0, n_done = 0;
    while (ok && n_done < r->inputs.n) {
        ok = submit_some(s, r, a, &next, error);
        answer_piece *piece = ok ? answers_wait(a, 0.1) : NULL;
        if (piece) {
            ok = take_vector(r, piece, error);
            n_done += piece->event.kind == TQ_EVENT_DONE;
        } else if (ok && answers_lost(a)) {
            ok = api_fail(error, 503, NULL, "out_of_memory", "No memory for the vectors");
        } else if (ok && http_is_gone(request)) {
            ok = api_fail(error, 503, NULL, "client_left", "The client has closed the connection"); /* for the log */
        }
        free(piece);
    }
    answers_free(a);
    return ok;
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

/* OpenAI's clients ask for this: float32, little endian, as it lies in memory here. */
static void put_base64(jout *j, const float *v, int n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *bytes = (const unsigned char *)v;
    size_t n_bytes = (size_t)n * sizeof *v, at = 0;
    char *text = malloc(n_bytes / 3 * 4 + 5);
    if (!text) {
        j->failed = true;
        return;
    }
    for (size_t i = 0; i < n_bytes; i += 3) {
        size_t left = n_bytes - i;
        unsigned word = (unsigned)bytes[i] << 16 | (left > 1 ? (unsigned)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        text[at++] = digits[word >> 18];
        text[at++] = digits[word >> 12 & 63];
        text[at++] = left > 1 ? digits[word >> 6 & 63] : '=';
        text[at++] = left > 2 ? digits[word & 63] : '=';
    }
    jout_string(j, text, at);
    free(text);
}

static void put_vector(jout *j, const embedding_request *r, int index) {
    jout_object(j);
    jout_put_string(j, "object", "embedding");
    jout_put_int(j, "index", index);
    jout_key(j, "embedding");
    if (r->base64) {
        put_base64(j, r->vectors[index], r->n_dims);
    } else {
        jout_array(j);
        for (int i = 0; i < r->n_dims; i++) jout_number(j, r->vectors[index][i]);
        jout_end(j);
    }
    jout_end(j);
}

static void write_answer(const server *s, const embedding_request *r, http_reply *reply) {
    int64_t tokens = 0;
    jout j = {0};
    jout_object(&j);
    jout_put_string(&j, "object", "list");
    jout_key(&j, "data");
    jout_array(&j);
    for (int i = 0; i < r->inputs.n; i++) {
        put_vector(&j, r, i);
        tokens += (int64_t)r->inputs.items[i].n;
    }
    jout_end(&j);
    jout_put_string(&j, "model", server_model_name(s, r->model));
    jout_key(&j, "usage");
    jout_object(&j);
    jout_put_int(&j, "prompt_tokens", tokens);
    jout_put_int(&j, "total_tokens", tokens);
    jout_end(&j);
    jout_end(&j);
    http_reply_json(reply, 200, &j);
    snprintf(reply->note, sizeof reply->note, "inputs=%d prompt=%lld", r->inputs.n, (long long)tokens);
}

void serve_embeddings(void *ctx, const http_request *request, http_reply *reply) {
    server *s = ctx;
    embedding_request r = {0};
    api_error error;
    if (server_is_ready(s, &error) && read_request(s, request, &r, &error) && evaluate(s, request, &r, &error))
        write_answer(s, &r, reply);
    else http_reply_error(reply, &error);
    free_request(&r);
}
