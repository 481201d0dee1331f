/* prompts.c: messages and prompts to token ids. */
#include "prompts.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

void prompts_free(prompt_list *list) {
    for (int i = 0; i < list->n; i++) free(list->items[i].ids);
    free(list->items);
    *list = (prompt_list){0};
}

static bool fail_memory(api_error *error) {
    api_fail(error, 503, NULL, "out_of_memory", "No memory for the prompt");
    error->retry_after = 1;
    return false;
}

static bool make_room(prompt_list *list, size_t n, api_error *error) {
    list->items = calloc(n, sizeof *list->items);
    return list->items || fail_memory(error);
}

/* ---- chat ---------------------------------------------------------------------------------------------------------- */

/* Messages as templates know them: "developer" is OpenAI's newer word for system; "reasoning" some servers' for
 * reasoning_content. */
static json_t *adapt_message(const json_t *message) {
    json_t *copy = json_copy((json_t *)message);
    if (!copy) return NULL;
    const char *role = json_string_value(json_object_get(copy, "role"));
    if (strcmp(role, "developer") == 0) json_object_set_new(copy, "role", json_string("system"));
    const json_t *reasoning = json_object_get(copy, "reasoning");
    if (reasoning && !json_object_get(copy, "reasoning_content")) json_object_set(copy, "reasoning_content", (json_t *)reasoning);
    if (reasoning) json_object_del(copy, "reasoning");
    return copy;
}

static json_t *make_conversation(const json_t *messages, const json_t *kwargs, const char *effort) {
    json_t *root = json_object(), *list = json_array(), *variables = kwargs ? json_copy((json_t *)kwargs) : json_object();
    bool ok = root && list && variables;
    size_t i;
    json_t *message;
    json_array_foreach((json_t *)messages, i, message) ok = ok && json_array_append_new(list, adapt_message(message)) == 0;
    if (ok && effort && !json_object_get(variables, "reasoning_effort"))
        ok = json_object_set_new(variables, "reasoning_effort", json_string(effort)) == 0;
    ok = ok && json_object_set(root, "messages", list) == 0;
    if (ok && json_object_size(variables)) ok = json_object_set(root, "chat_template_kwargs", variables) == 0;
    json_decref(list);
    json_decref(variables);
    if (ok) return root;
    json_decref(root);
    return NULL;
}

bool prompts_of_chat(server *s, const json_t *messages, const json_t *kwargs, const char *effort, prompt_list *out,
                     api_error *error) {
    json_t *root = make_conversation(messages, kwargs, effort);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (!text) return fail_memory(error);
    tq_error from;
    bool ok = make_room(out, 1, error);
    if (ok && tq_chat_tokens_json(s->model, text, strlen(text), TQ_CHAT_ADD_GENERATION_PROMPT, &out->items[0].ids,
                                  &out->items[0].n, &from) != TQ_OK)
        ok = api_fail_status(error, "messages", &from);
    else if (ok) out->n = 1;
    free(text);
    return ok;
}

/* ---- raw ----------------------------------------------------------------------------------------------------------- */

static bool add_text(server *s, const json_t *text, const char *param, prompt_list *out, api_error *error) {
    prompt_ids *to = &out->items[out->n];
    tq_error from;
    if (tq_tokenize_prompt(s->model, json_string_value(text), json_string_length(text), true, &to->ids, &to->n, &from) != TQ_OK)
        return api_fail_status(error, param, &from);
    out->n++;
    return to->n > 0 || api_fail(error, 400, param, "empty_string", "%s: want at least 1 token, got an empty text", param);
}

static bool add_ids(server *s, const json_t *list, const char *param, prompt_list *out, api_error *error) {
    size_t n = json_array_size(list), i;
    if (n == 0) return api_fail(error, 400, param, "empty_array", "%s: want at least 1 token, got an empty list", param);
    prompt_ids *to = &out->items[out->n];
    to->ids = malloc(n * sizeof *to->ids);
    if (!to->ids) return fail_memory(error);
    to->n = n;
    out->n++;
    json_t *id;
    json_array_foreach((json_t *)list, i, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= s->limits.vocab)
            return api_fail(error, 400, param, "invalid_value", "%s: item %zu: want a token id, 0 to %d", param, i, s->limits.vocab - 1);
        to->ids[i] = (int32_t)json_integer_value(id);
    }
    return true;
}

bool prompts_of_value(server *s, const json_t *value, const char *param, int cap, prompt_list *out, api_error *error) {
    bool is_list = json_is_array(value) && !json_is_integer(json_array_get(value, 0));
    size_t n = is_list ? json_array_size(value) : 1;
    if (is_list && n == 0) return api_fail(error, 400, param, "empty_array", "%s: want at least 1 text, got an empty list", param);
    if (n > (size_t)cap) return api_fail(error, 400, param, "invalid_value", "%s: want at most %d texts, got %zu", param, cap, n);
    if (!make_room(out, n, error)) return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = is_list ? json_array_get(value, i) : value;
        bool ok = json_is_string(item)  ? add_text(s, item, param, out, error)
                  : json_is_array(item) ? add_ids(s, item, param, out, error)
                                        : api_fail(error, 400, param, "invalid_type",
                                                   "%s: want a text, a list of token ids, or a list of these", param);
        if (!ok) return false;
    }
    return true;
}
