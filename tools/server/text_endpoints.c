/* text_endpoints.c: /tokenize, /detokenize, /apply-template. */
#include <stdlib.h>
#include <string.h>

#include "fields.h"
#include "prompts.h"
#include "server_state.h"

static json_t *parse(server *s, const http_request *request, api_error *error) {
    if (!server_is_ready(s, error)) return NULL;
    return fields_parse(request->body, request->body_n, s->limits.max_values, error);
}

static void answer(http_reply *reply, bool ok, jout *j, const api_error *error) {
    if (ok) {
        http_reply_json(reply, 200, j);
    } else {
        free(j->data);
        http_reply_error(reply, error);
    }
}

/* A token as clients of llama-server know it: its text, or its bytes if they are no whole characters. */
static bool put_piece(server *s, int32_t id, jout *j, api_error *error) {
    char *text;
    size_t n;
    tq_error from;
    if (tq_detokenize(s->model, &id, 1, true, &text, &n, &from) != TQ_OK) return api_fail_status(error, NULL, &from);
    json_t *whole = json_stringn(text, n); /* NULL: not UTF-8 */
    jout_object(j);
    jout_put_int(j, "id", id);
    jout_key(j, "piece");
    if (whole) {
        jout_string(j, text, n);
    } else {
        jout_array(j);
        for (size_t i = 0; i < n; i++) jout_int(j, (unsigned char)text[i]);
        jout_end(j);
    }
    jout_end(j);
    json_decref(whole);
    tq_free(text);
    return true;
}

static bool put_tokens(server *s, const int32_t *ids, size_t n, bool with_pieces, jout *j, api_error *error) {
    bool ok = true;
    jout_object(j);
    jout_key(j, "tokens");
    jout_array(j);
    for (size_t i = 0; i < n && ok; i++) {
        if (with_pieces) ok = put_piece(s, ids[i], j, error);
        else jout_int(j, ids[i]);
    }
    jout_end(j);
    jout_end(j);
    return ok;
}

void serve_tokenize(void *ctx, const http_request *request, http_reply *reply) {
    server *s = ctx;
    api_error error;
    jout j = {0};
    pthread_mutex_lock(&s->reading);
    json_t *root = parse(s, request, &error);
    bool ok = root != NULL, with_pieces = false, parse_special = true, add_special = false;
    if (ok) {
        fields f;
        fields_begin(&f, root, &error);
        const char *text = fields_string(&f, "content");
        fields_bool(&f, "with_pieces", &with_pieces);
        fields_bool(&f, "parse_special", &parse_special);
        fields_bool(&f, "add_special", &add_special);
        if (!text) fields_fail(&f, "content", "missing_required_parameter", "content: want a text");
        ok = fields_end(&f);
        int32_t *ids = NULL;
        size_t n;
        tq_error from;
        tq_status (*tokenize)(const tq_model *, const char *, size_t, bool, int32_t **, size_t *, tq_error *) =
            add_special ? tq_tokenize_prompt : tq_tokenize;
        if (ok && tokenize(s->model, text, strlen(text), parse_special, &ids, &n, &from) != TQ_OK)
            ok = api_fail_status(&error, "content", &from);
        else if (ok) ok = put_tokens(s, ids, n, with_pieces, &j, &error);
        tq_free(ids);
    }
    json_decref(root);
    pthread_mutex_unlock(&s->reading);
    answer(reply, ok, &j, &error);
}

static bool put_text(server *s, const prompt_ids *ids, const char *key, jout *j, api_error *error) {
    char *text;
    size_t n;
    tq_error from;
    if (tq_detokenize(s->model, ids->ids, ids->n, true, &text, &n, &from) != TQ_OK) return api_fail_status(error, NULL, &from);
    jout_object(j);
    jout_key(j, key);
    jout_string(j, text, n);
    jout_end(j);
    tq_free(text);
    return true;
}

void serve_detokenize(void *ctx, const http_request *request, http_reply *reply) {
    server *s = ctx;
    api_error error;
    jout j = {0};
    prompt_list list = {0};
    pthread_mutex_lock(&s->reading);
    json_t *root = parse(s, request, &error);
    bool ok = root != NULL;
    if (ok) {
        fields f;
        fields_begin(&f, root, &error);
        const json_t *tokens = fields_array(&f, "tokens");
        if (!tokens) fields_fail(&f, "tokens", "missing_required_parameter", "tokens: want a list of token ids");
        ok = fields_end(&f);
        if (ok && json_array_size(tokens) == 0) {
            jout_object(&j);
            jout_put_string(&j, "content", "");
            jout_end(&j);
        } else if (ok) {
            ok = (json_is_integer(json_array_get(tokens, 0)) ||
                  api_fail(&error, 400, "tokens", "invalid_type", "tokens: want a list of token ids")) &&
                 prompts_of_value(s, tokens, "tokens", 1, &list, &error) && put_text(s, &list.items[0], "content", &j, &error);
        }
    }
    prompts_free(&list);
    json_decref(root);
    pthread_mutex_unlock(&s->reading);
    answer(reply, ok, &j, &error);
}

/* Takes a whole chat completion request, so that what was sent can be tried as it is. */
void serve_apply_template(void *ctx, const http_request *request, http_reply *reply) {
    server *s = ctx;
    api_error error;
    jout j = {0};
    prompt_list list = {0};
    gen_request asked = {0};
    bool ok = server_is_ready(s, &error);
    pthread_mutex_lock(&s->reading);
    ok = ok && gen_request_parse(GEN_CHAT, request->body, request->body_n, &s->limits, &asked, &error) &&
         prompts_of_chat(s, asked.messages, asked.template_kwargs, asked.reasoning_effort, &list, &error) &&
         put_text(s, &list.items[0], "prompt", &j, &error);
    prompts_free(&list);
    gen_request_free(&asked);
    pthread_mutex_unlock(&s->reading);
    answer(reply, ok, &j, &error);
}
