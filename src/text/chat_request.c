/* chat_request.c: see chat_request.h.
 * Owns: the shape of messages and tools, and the forms that templates read.  Not here: rendering (chat_template.c),
 * which role or tool a server allows (its own rules). */
#include "text/chat_request.h"

#include <stdlib.h>
#include <string.h>

#include "text/template_text.h"

enum { max_tools = 4096 };

/* What one request needs to know, and the place it is at. */
typedef struct reader {
    const tq_chat_template *tmpl;
    size_t message;
    int parts, objects, nulls; /* what the template reads: -1 not asked yet */
    tq_error *err;
} reader;

/* ---- what a template reads ---------------------------------------------------------------------------------------- */

static const char needle[] = "needle-in-a-template";

/* Whether the template writes the needle for this conversation, and none of the texts that say it was printed as a value
 * rather than read.  Takes the messages. */
static bool reads(const tq_chat_template *tmpl, json_t *messages, const char *const *never) {
    json_t *variables = json_pack("{s:o, s:n, s:n, s:b}", "messages", messages, "tools", "documents",
                                  "add_generation_prompt", 0);
    tq_chat_text text = {0};
    tq_error ignored;
    bool found = variables && tq_chat_template_render(tmpl, variables, &text, &ignored) == TQ_OK &&
                 strstr(text.text, needle);
    for (; found && *never; never++) found = !strstr(text.text, *never);
    tq_chat_text_free(&text);
    json_decref(variables);
    return found;
}

static bool reads_parts(reader *rd) {
    static const char *const never[] = {"'type'", "\"type\"", NULL};
    if (rd->parts < 0)
        rd->parts = reads(rd->tmpl, json_pack("[{s:s, s:[{s:s, s:s}]}]", "role", "user", "content", "type", "text",
                                              "text", needle), never);
    return rd->parts;
}

/* A user's turn, then a call. */
static json_t *call_messages(json_t *content, const char *name, json_t *arguments) {
    return json_pack("[{s:s, s:s}, {s:s, s:o, s:[{s:s, s:s, s:{s:s, s:o}}]}]", "role", "user", "content", "x", "role",
                     "assistant", "content", content, "tool_calls", "id", "call00001", "type", "function", "function",
                     "name", name, "arguments", arguments);
}

static bool reads_objects(reader *rd) {
    static const char *const never[] = {NULL};
    if (rd->objects < 0)
        rd->objects = reads(rd->tmpl, call_messages(json_string(""), "f", json_pack("{s:i}", needle, 1)), never);
    return rd->objects;
}

static bool reads_nulls(reader *rd) {
    static const char *const never[] = {"None", "null", NULL};
    if (rd->nulls < 0) {
        json_t *arguments = reads_objects(rd) ? json_object() : json_string("{}");
        rd->nulls = reads(rd->tmpl, call_messages(json_null(), needle, arguments), never);
    }
    return rd->nulls;
}

/* ---- messages ----------------------------------------------------------------------------------------------------- */

static tq_status no_memory(const reader *rd) {
    return tq_fail(rd->err, TQ_NO_MEMORY, "messages[%zu]: out of memory", rd->message);
}

/* The text of a part, or a refusal. */
static tq_status part_text(const reader *rd, const json_t *part, size_t i, const json_t **out) {
    const char *type = json_string_value(json_object_get(part, "type"));
    *out = json_object_get(part, "text");
    if (!type) {
        return tq_fail(rd->err, TQ_INVALID, "messages[%zu].content[%zu]: want an object with \"type\"", rd->message, i);
    }
    if (strcmp(type, "text") != 0) {
        return tq_fail(rd->err, TQ_UNSUPPORTED, "messages[%zu].content[%zu]: want \"type\": \"text\", found \"%.60s\"",
                       rd->message, i, type);
    }
    if (json_is_string(*out)) return TQ_OK;
    return tq_fail(rd->err, TQ_INVALID, "messages[%zu].content[%zu].text: want a string", rd->message, i);
}

/* Parts of text as one text, a line break between them. */
static tq_status join_parts(const reader *rd, const json_t *parts, json_t **out) {
    size_t n = 0, at = 0;
    const json_t *text;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        TQ_TRY(part_text(rd, json_array_get(parts, i), i, &text));
        n += json_string_length(text) + 1;
    }
    char *joined = malloc(n + 1);
    if (!joined) return no_memory(rd);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        if (i) joined[at++] = '\n';
        text = json_object_get(json_array_get(parts, i), "text");
        memcpy(joined + at, json_string_value(text), json_string_length(text));
        at += json_string_length(text);
    }
    *out = json_stringn_nocheck(joined, at);
    free(joined);
    return *out ? TQ_OK : no_memory(rd);
}

static tq_status read_content(reader *rd, json_t *message) {
    json_t *content = json_object_get(message, "content"), *text;
    if (json_is_string(content)) return TQ_OK;
    if (json_is_array(content)) {
        TQ_TRY(join_parts(rd, content, &text)); /* which checks them */
        if (reads_parts(rd)) {
            json_decref(text);
            return TQ_OK;
        }
        return json_object_set_new(message, "content", text) == 0 ? TQ_OK : no_memory(rd);
    }
    if (content && !json_is_null(content)) {
        return tq_fail(rd->err, TQ_INVALID, "messages[%zu].content: want a string, an array of parts or null",
                       rd->message);
    }
    text = reads_nulls(rd) ? json_null() : json_string("");
    return json_object_set_new(message, "content", text) == 0 ? TQ_OK : no_memory(rd);
}

static tq_status read_arguments(reader *rd, json_t *function) {
    json_t *arguments = json_object_get(function, "arguments"), *other = NULL;
    bool objects = reads_objects(rd);
    if (json_is_string(arguments) && objects) {
        const char *text = json_string_value(arguments);
        size_t n = json_string_length(arguments);
        other = n ? json_loadb(text, n, JSON_ALLOW_NUL, NULL) : json_object();
        if (!json_is_object(other)) { /* what a model made up: templates that can, print it as it is */
            json_decref(other);
            return TQ_OK;
        }
    } else if (json_is_object(arguments) && !objects) {
        char *text = json_dumps(arguments, 0);
        other = text ? json_string(text) : NULL;
        free(text);
        if (!other) return no_memory(rd);
    } else {
        return TQ_OK;
    }
    return json_object_set_new(function, "arguments", other) == 0 ? TQ_OK : no_memory(rd);
}

static tq_status read_tool_calls(reader *rd, const json_t *message) {
    const json_t *calls = json_object_get(message, "tool_calls");
    if (!calls || json_is_null(calls)) return TQ_OK;
    if (!json_is_array(calls)) {
        return tq_fail(rd->err, TQ_INVALID, "messages[%zu].tool_calls: want an array", rd->message);
    }
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *function = json_object_get(json_array_get(calls, i), "function");
        const json_t *arguments = json_object_get(function, "arguments");
        if (!json_is_string(json_object_get(function, "name"))) {
            return tq_fail(rd->err, TQ_INVALID, "messages[%zu].tool_calls[%zu]: want {\"function\": {\"name\": text, ...}}",
                           rd->message, i);
        }
        if (arguments && !json_is_string(arguments) && !json_is_object(arguments)) {
            return tq_fail(rd->err, TQ_INVALID, "messages[%zu].tool_calls[%zu].function.arguments: want a string or an object",
                           rd->message, i);
        }
        TQ_TRY(read_arguments(rd, function));
    }
    return TQ_OK;
}

static tq_status read_messages(reader *rd, const json_t *messages) {
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        return tq_fail(rd->err, TQ_INVALID, "messages: want an array of at least one message");
    }
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *message = json_array_get(messages, i);
        rd->message = i;
        if (!json_is_string(json_object_get(message, "role"))) {
            return tq_fail(rd->err, TQ_INVALID, "messages[%zu]: want an object with a \"role\"", i);
        }
        TQ_TRY(read_tool_calls(rd, message));
        TQ_TRY(read_content(rd, message));
    }
    return TQ_OK;
}

/* ---- the other members ---------------------------------------------------------------------------------------------- */

/* {"type": "function", "function": {"name", ...}}, or the function alone. */
static const char *tool_name(const json_t *tool) {
    const json_t *function = json_object_get(tool, "function");
    return json_string_value(json_object_get(json_is_object(function) ? function : tool, "name"));
}

static tq_status check_tools(const json_t *tools, tq_error *err) {
    if (!tools || json_is_null(tools)) return TQ_OK;
    if (!json_is_array(tools)) return tq_fail(err, TQ_INVALID, "tools: want an array");
    if (json_array_size(tools) > max_tools) {
        return tq_fail(err, TQ_INVALID, "tools: want at most %d, found %zu", max_tools, json_array_size(tools));
    }
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const char *name = tool_name(json_array_get(tools, i));
        if (!name) return tq_fail(err, TQ_INVALID, "tools[%zu]: want {\"function\": {\"name\": text, ...}}", i);
        for (const char *c = name; *c || c == name; c++) {
            if ((unsigned char)*c <= 0x20 || strchr("\"'\\<>&", *c)) {
                return tq_fail(err, TQ_INVALID, "tools[%zu]: \"%.60s\" is no name of a function", i, name);
            }
        }
    }
    return TQ_OK;
}

/* Variables of the caller's own.  They may not stand for what the model or the conversation says. */
static tq_status add_kwargs(const json_t *kwargs, json_t *variables, tq_error *err) {
    const char *key;
    json_t *value;
    if (!kwargs || json_is_null(kwargs)) return TQ_OK;
    if (!json_is_object(kwargs)) return tq_fail(err, TQ_INVALID, "chat_template_kwargs: want an object");
    json_object_foreach((json_t *)kwargs, key, value) {
        size_t n = strlen(key);
        if (json_object_get(variables, key) || strcmp(key, "add_generation_prompt") == 0 ||
            (n >= 6 && strcmp(key + n - 6, "_token") == 0)) {
            return tq_fail(err, TQ_INVALID, "chat_template_kwargs: \"%.60s\" cannot be set here", key);
        }
        if (json_object_set(variables, key, value) != 0) return tq_fail_memory(err, n, "variables");
    }
    return TQ_OK;
}

static tq_status read_request(const json_t *request, const tq_chat_template_set *set, json_t *variables, tq_error *err) {
    static const char *const known[] = {"messages", "tools", "documents"};
    reader rd = {.parts = -1, .objects = -1, .nulls = -1, .err = err};
    const char *key;
    json_t *value;
    if (!json_is_object(request)) return tq_fail(err, TQ_INVALID, "a conversation: want a JSON object");
    json_object_foreach((json_t *)request, key, value) {
        bool found = strcmp(key, "chat_template_kwargs") == 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) found |= strcmp(key, known[i]) == 0;
        if (!found) return tq_fail(err, TQ_INVALID, "a conversation: there is no member \"%.60s\"", key);
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) { /* null where there is none, as transformers has it */
        value = json_object_get(request, known[i]);
        if (json_object_set_new(variables, known[i], value ? json_incref(value) : json_null()) != 0) {
            return tq_fail_memory(err, 0, "variables");
        }
    }
    const json_t *documents = json_object_get(variables, "documents");
    if (!json_is_null(documents) && !json_is_array(documents)) {
        return tq_fail(err, TQ_INVALID, "documents: want an array");
    }
    const json_t *tools = json_object_get(variables, "tools");
    TQ_TRY(check_tools(tools, err));
    TQ_TRY(tq_chat_template_pick(set, !json_is_null(tools), &rd.tmpl, err));
    TQ_TRY(add_kwargs(json_object_get(request, "chat_template_kwargs"), variables, err));
    return read_messages(&rd, json_object_get(variables, "messages"));
}

tq_status tq_chat_request_read(const char *json, size_t length, const tq_chat_template_set *set,
                               json_t **variables, tq_error *err) {
    json_error_t place;
    *variables = NULL;
    json_t *request = json_loadb(json, length, JSON_ALLOW_NUL, &place);
    if (!request) {
        return tq_fail(err, TQ_FORMAT, "a conversation: line %d, column %d: %s", place.line, place.column, place.text);
    }
    json_t *out = json_object();
    tq_status status = out ? read_request(request, set, out, err) : tq_fail_memory(err, 0, "variables");
    json_decref(request);
    if (status == TQ_OK) *variables = out;
    else json_decref(out);
    return status;
}

tq_status tq_chat_request_check_tools(const json_t *variables, const tq_chat_text *rendered, tq_error *err) {
    const json_t *tools = json_object_get(variables, "tools");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const char *name = tool_name(json_array_get(tools, i));
        tq_tv_str all = {.bytes = rendered->text, .n = rendered->length}, part = {.bytes = name, .n = strlen(name)};
        if (tq_text_find(&all, &part, 0) == SIZE_MAX) {
            return tq_fail(err, TQ_UNSUPPORTED, "tools: the model's chat template does not write \"%.60s\" into the prompt: "
                           "it knows of no tools", name);
        }
    }
    return TQ_OK;
}
