/* gen_request.c: fields of completions: OpenAI's, and those that other servers taught clients to send. */
#include "gen_request.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fields.h"

/* ---- messages ------------------------------------------------------------------------------------------------------ */

static bool fail_part(const char *param, const char *type, api_error *error) {
    static const char *const media[] = {"image_url", "input_audio", "file", "input_image", "image", "video_url"};
    for (size_t i = 0; i < sizeof media / sizeof *media; i++)
        if (strcmp(type, media[i]) == 0)
            return api_fail(error, 400, param, "unsupported_content", "%s: parts of type '%s' are not supported: this model reads text",
                            param, type);
    return api_fail(error, 400, param, "invalid_value", "%s: want parts of type 'text', got '%.40s'", param, type);
}

static bool check_part(const json_t *part, const char *param, api_error *error) {
    if (!json_is_object(part))
        return api_fail(error, 400, param, "invalid_type", "%s: a part is %s; want an object", param, json_kind(part));
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!type) return api_fail(error, 400, param, "missing_required_parameter", "%s: a part has no type", param);
    if (strcmp(type, "text") != 0) return fail_part(param, type, error);
    const json_t *text = json_object_get(part, "text");
    return json_is_string(text) || api_fail(error, 400, param, "invalid_type", "%s: the text of a part is %s; want a string", param,
                                            text ? json_kind(text) : "missing");
}

static bool check_content(const json_t *content, const char *param, api_error *error) {
    if (!content || json_is_null(content) || json_is_string(content)) return true;
    if (!json_is_array(content))
        return api_fail(error, 400, param, "invalid_type", "%s: want a string or an array of parts, got %s", param, json_kind(content));
    size_t i;
    json_t *part;
    json_array_foreach((json_t *)content, i, part)
        if (!check_part(part, param, error)) return false;
    return true;
}

static void check_message(fields *outer, const json_t *message, size_t i) {
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function"};
    char param[64];
    snprintf(param, sizeof param, "messages[%zu]", i);
    if (!json_is_object(message)) {
        fields_fail(outer, param, "invalid_type", "%s: want an object, got %s", param, json_kind(message));
        return;
    }
    const json_t *role = json_object_get(message, "role");
    bool known = false;
    for (size_t r = 0; r < sizeof roles / sizeof *roles; r++)
        known |= json_is_string(role) && strcmp(json_string_value(role), roles[r]) == 0;
    if (!known) {
        snprintf(param, sizeof param, "messages[%zu].role", i);
        fields_fail(outer, param, "invalid_value", "%s: want system, developer, user, assistant or tool, got %.40s", param,
                    json_is_string(role) ? json_string_value(role) : role ? json_kind(role) : "nothing");
        return;
    }
    snprintf(param, sizeof param, "messages[%zu].content", i);
    const json_t *content = json_object_get(message, "content");
    bool is_assistant = strcmp(json_string_value(role), "assistant") == 0;
    if ((!content || json_is_null(content)) && !is_assistant) {
        fields_fail(outer, param, "missing_required_parameter", "%s: want a string or an array of parts, got nothing", param);
        return;
    }
    api_error error = {0};
    if (!check_content(content, param, &error)) fields_fail(outer, param, error.code, "%s", error.message);
}

static void read_messages(fields *f, gen_request *r) {
    r->messages = fields_array(f, "messages");
    if (f->failed) return;
    if (!r->messages) {
        fields_fail(f, "messages", "missing_required_parameter", "you must provide a messages parameter");
        return;
    }
    if (json_array_size(r->messages) == 0) {
        fields_fail(f, "messages", "empty_array", "messages: want at least 1 message, got none");
        return;
    }
    size_t i;
    json_t *message;
    json_array_foreach((json_t *)r->messages, i, message) check_message(f, message, i);
}

/* ---- sampling ------------------------------------------------------------------------------------------------------ */

static void read_float(fields *f, const char *name, double min, double max, float *to) {
    double value;
    if (fields_number(f, name, min, max, &value)) *to = (float)value;
}

static void read_biases(fields *f, const gen_limits *limits, gen_request *r) {
    const json_t *map = fields_object(f, "logit_bias");
    if (!map || json_object_size(map) == 0) return;
    if (json_object_size(map) > GEN_BIASES_CAP) {
        fields_fail(f, "logit_bias", "invalid_value", "logit_bias: want at most %d tokens, got %zu", GEN_BIASES_CAP,
                    json_object_size(map));
        return;
    }
    r->biases = malloc(json_object_size(map) * sizeof *r->biases);
    if (!r->biases) {
        fields_fail(f, "logit_bias", "out_of_memory", "No memory for logit_bias");
        return;
    }
    const char *key;
    json_t *value;
    int n = 0;
    json_object_foreach((json_t *)map, key, value) {
        char *end;
        long id = strtol(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end || id >= limits->vocab) {
            fields_fail(f, "logit_bias", "invalid_value", "logit_bias: want token ids 0 to %d as keys, got '%.20s'", limits->vocab - 1,
                        key);
            return;
        }
        double bias = json_number_value(value);
        if (!json_is_number(value) || !(bias >= -100 && bias <= 100)) {
            fields_fail(f, "logit_bias", "invalid_value", "logit_bias: the bias of token %ld: want -100 to 100, got %s", id,
                        json_is_number(value) ? "another number" : json_kind(value));
            return;
        }
        r->biases[n++] = (tq_logit_bias){(int32_t)id, (float)bias};
    }
    r->sampling.biases = r->biases;
    r->sampling.n_biases = n;
}

static void read_sampling(fields *f, const gen_limits *limits, gen_request *r) {
    tq_sampling *s = &r->sampling;
    long long value;
    read_float(f, "temperature", 0, 2, &s->temp);
    read_float(f, "top_p", 0, 1, &s->top_p);
    read_float(f, "min_p", 0, 1, &s->min_p);
    if (fields_int(f, "top_k", -1, INT_MAX, &value)) s->top_k = value < 0 ? 0 : (int)value;
    read_float(f, "presence_penalty", -2, 2, &s->presence_penalty);
    read_float(f, "frequency_penalty", -2, 2, &s->frequency_penalty);
    read_float(f, "repeat_penalty", 0.01, 100, &s->repeat_penalty);
    read_float(f, "repetition_penalty", 0.01, 100, &s->repeat_penalty); /* the same, as others call it */
    if (fields_int(f, "repeat_last_n", 0, INT_MAX, &value)) s->repeat_last_n = (int)value;
    if (fields_int(f, "seed", LLONG_MIN, LLONG_MAX, &value)) {
        s->seed = (uint64_t)value;
        r->seed_given = true;
    }
    read_biases(f, limits, r);
}

/* ---- the rest ------------------------------------------------------------------------------------------------------ */

static void read_stops(fields *f, gen_request *r) {
    const json_t *stop = fields_get(f, "stop");
    if (!stop) return;
    size_t n = json_is_array(stop) ? json_array_size(stop) : 1;
    if (!json_is_array(stop) && !json_is_string(stop)) {
        fields_fail(f, "stop", "invalid_type", "stop: want a string or an array of strings, got %s", json_kind(stop));
        return;
    }
    if (n > TQ_MAX_STOPS) {
        fields_fail(f, "stop", "invalid_value", "stop: want at most %d strings, got %zu", TQ_MAX_STOPS, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_is_array(stop) ? json_array_get(stop, i) : stop;
        size_t length = json_string_length(text);
        if (!json_is_string(text) || length == 0 || length > TQ_MAX_STOP_BYTES) {
            fields_fail(f, "stop", "invalid_value", "stop: want strings of 1 to %d bytes, got %s", TQ_MAX_STOP_BYTES,
                        !json_is_string(text) ? json_kind(text) : length ? "a longer one" : "an empty one");
            return;
        }
        r->stops[r->n_stops++] = json_string_value(text);
    }
}

static void read_chat_logprobs(fields *f, gen_request *r) {
    bool wanted = false;
    long long top = 0;
    fields_bool(f, "logprobs", &wanted);
    bool given = fields_int(f, "top_logprobs", 0, TQ_MAX_LOGPROBS, &top);
    if (given && top > 0 && !wanted)
        fields_fail(f, "top_logprobs", "invalid_value", "top_logprobs: wants logprobs to be true");
    if (wanted) r->n_logprobs = (int)top;
}

static void read_stream(fields *f, gen_request *r) {
    fields_bool(f, "stream", &r->stream);
    const json_t *options = fields_object(f, "stream_options");
    if (!options) return;
    if (!r->stream) {
        fields_fail(f, "stream_options", "invalid_value", "stream_options: wants stream to be true");
        return;
    }
    api_error error;
    fields inner;
    fields_begin(&inner, options, &error);
    fields_bool(&inner, "include_usage", &r->include_usage);
    fields_ignore(&inner, "include_obfuscation");
    if (!fields_end(&inner)) fields_fail(f, "stream_options", error.code, "stream_options: %s", error.message);
}

static void read_format(fields *f) {
    const json_t *format = fields_object(f, "response_format");
    if (!format) return;
    const char *type = json_string_value(json_object_get(format, "type"));
    if (type && strcmp(type, "text") == 0) return;
    fields_fail(f, "response_format", "unsupported_parameter", "response_format: want type text; %.40s is not enforced by this version",
                type ? type : "an unnamed type");
}

static void read_lengths(fields *f, gen_request *r) {
    long long value;
    if (fields_int(f, "max_tokens", 1, INT_MAX, &value)) r->max_tokens = (int)value;
    if (r->kind == GEN_CHAT && fields_int(f, "max_completion_tokens", 1, INT_MAX, &value)) r->max_tokens = (int)value;
    if (fields_int(f, "n_predict", -1, INT_MAX, &value) && value > 0) r->max_tokens = (int)value;
}

static void read_chat_fields(fields *f, gen_request *r) {
    read_messages(f, r);
    read_chat_logprobs(f, r);
    read_format(f);
    r->template_kwargs = fields_object(f, "chat_template_kwargs");
    r->reasoning_effort = fields_string(f, "reasoning_effort");
    const char *format = fields_string(f, "reasoning_format");
    if (format && strcmp(format, "none") == 0) r->reasoning = GEN_REASONING_KEEP;
    else if (format && strcmp(format, "auto") != 0 && strcmp(format, "deepseek") != 0)
        fields_fail(f, "reasoning_format", "invalid_value", "reasoning_format: want auto, deepseek or none, got '%.40s'", format);
    fields_refuse(f, "tools", NULL, "tool calls are not supported by this version");
    fields_refuse(f, "tool_choice", "none", "tool calls are not supported by this version");
    fields_ignore(f, "parallel_tool_calls");
    fields_refuse(f, "functions", NULL, "tool calls are not supported by this version");
    fields_refuse(f, "function_call", "none", "tool calls are not supported by this version");
    fields_refuse(f, "audio", NULL, "this model speaks text only");
    fields_refuse(f, "web_search_options", NULL, "there is no web search here");
    const json_t *modalities = fields_array(f, "modalities");
    for (size_t i = 0; modalities && i < json_array_size(modalities); i++) {
        const char *name = json_string_value(json_array_get(modalities, i));
        if (!name || strcmp(name, "text") != 0)
            fields_fail(f, "modalities", "unsupported_parameter", "modalities: want text alone");
    }
}

static void read_text_fields(fields *f, gen_request *r) {
    r->prompt = fields_get(f, "prompt");
    if (!r->prompt) fields_fail(f, "prompt", "missing_required_parameter", "you must provide a prompt parameter");
    long long value;
    if (fields_int(f, "logprobs", 0, 5, &value)) r->n_logprobs = (int)value;
    if (fields_int(f, "best_of", 1, 128, &value) && value > r->n)
        fields_fail(f, "best_of", "unsupported_parameter", "best_of: more than n (%d) is not supported", r->n);
    fields_refuse(f, "echo", NULL, "the prompt is not repeated in answers");
    fields_refuse(f, "suffix", "", "this model writes on, it does not fill in");
}

static void read_common(fields *f, const gen_limits *limits, gen_request *r) {
    long long value;
    r->model = fields_string(f, "model");
    if (fields_int(f, "n", 1, limits->max_choices, &value)) r->n = (int)value;
    read_lengths(f, r);
    read_sampling(f, limits, r);
    read_stops(f, r);
    read_stream(f, r);
    r->kv = fields_string(f, "kv");
    fields_bool(f, "ignore_eos", &r->ignore_eos);
    fields_bool(f, "cache_prompt", &r->use_cache);
    fields_bool(f, "return_progress", &r->return_progress);
    fields_bool(f, "timings_per_token", &r->timings_per_token);
    static const char *const ignored[] = {"user", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention",
                                          "safety_identifier", "verbosity", "prediction", "id_slot"};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) fields_ignore(f, ignored[i]);
    static const char *const refused[] = {"grammar", "json_schema", "guided_json", "guided_regex", "guided_choice", "mirostat",
                                          "dry_multiplier", "xtc_probability", "adapters", "draft_model", "lora", "return_tokens"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) fields_refuse(f, refused[i], NULL, "not supported by this version");
}

bool gen_request_parse(gen_kind kind, const char *body, size_t n, const gen_limits *limits, gen_request *r, api_error *error) {
    *r = (gen_request){.kind = kind, .n = 1, .n_logprobs = -1, .sampling = limits->sampling, .use_cache = true};
    r->root = fields_parse(body, n, limits->max_values, error);
    if (!r->root) return false;
    fields f;
    fields_begin(&f, r->root, error);
    read_common(&f, limits, r);
    if (kind == GEN_CHAT) read_chat_fields(&f, r);
    else read_text_fields(&f, r);
    if (!fields_end(&f)) return false;
    if (r->max_tokens == 0) r->max_tokens = limits->max_tokens;
    if (r->max_tokens == 0 && kind == GEN_TEXT) r->max_tokens = 16; /* OpenAI's default */
    return true;
}

void gen_request_free(gen_request *r) {
    json_decref(r->root);
    free(r->biases);
    *r = (gen_request){0};
}
