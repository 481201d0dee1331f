/* test_chat_request.c: conversations as JSON: what is refused, and the form that a template can read. */
#include "testing.h"

#include <turboquant/tq.h>

#include "text/chat_request.h"

#define BOOKWORM TQ_SOURCE_DIR "/models/bookworm"

/* Templates of the shapes that the public ones have. */
static const char plain[] = /* content as a text; no tools */
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] + '\n' }}{% endfor %}";
static const char objects[] = /* parts, arguments as an object, tools */
    "{% if tools %}{% for t in tools %}{{ t|tojson }}\n{% endfor %}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{% if m.content is string %}{{ m.content }}{% elif m.content %}"
    "{% for p in m.content %}{% if p.type == 'text' %}({{ p.text }}){% endif %}{% endfor %}{% endif %}"
    "{% for c in m.tool_calls %}{{ c.function.name }}{% for k, v in c.function.arguments.items() %}[{{ k }}={{ v }}]"
    "{% endfor %}{% endfor %}{{ '\\n' }}{% endfor %}{{ mode }}";
static const char texts[] = /* arguments as a text, content that is null is printed */
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "{{ c.function.name + c.function.arguments }}{% endfor %}{% endif %}{{ '\\n' }}{% endfor %}";

static tq_status render(const char *source, const char *request, tq_chat_text *text, tq_error *err) {
    tq_chat_template_set set = {0};
    json_t *variables;
    *text = (tq_chat_text){0};
    OK(tq_chat_template_set_add(&set, "default", 7, source, strlen(source), &e));
    tq_status status = tq_chat_request_read(request, strlen(request), &set, &variables, err);
    if (status == TQ_OK) {
        status = tq_chat_template_render(set.plain, variables, text, err);
        if (status == TQ_OK) status = tq_chat_request_check_tools(variables, text, err);
        json_decref(variables);
    } else {
        assert_null(variables);
    }
    tq_chat_template_set_clear(&set);
    return status;
}

static void expect(const char *source, const char *request, const char *wanted) {
    tq_chat_text text;
    OK(render(source, request, &text, &e));
    assert_string_equal(text.text, wanted);
    tq_chat_text_free(&text);
}

static void refuse(const char *source, const char *request, tq_status status, const char *part) {
    tq_chat_text text;
    FAILS(render(source, request, &text, &e), status, part);
    tq_chat_text_free(&text);
}

#define CALL(arguments)                                                                                                \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["   \
    "{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"clock\",\"arguments\":" arguments "}}]}]}"

static void messages_take_the_form_that_the_template_reads(void **state) {
    (void)state;
    static const char parts[] = "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                                "{\"type\":\"text\",\"text\":\"b\"}]}]}";
    expect(plain, parts, "<|user|>a\nb\n");
    expect(objects, parts, "<|user|>(a)(b)\n");
    expect(texts, parts, "<|user|>a\nb\n");
    expect(objects, CALL("{\"zone\":\"UTC\"}"), "<|user|>hi\n<|assistant|>clock[zone=UTC]\n");
    expect(objects, CALL("\"{\\\"zone\\\":\\\"UTC\\\"}\""), "<|user|>hi\n<|assistant|>clock[zone=UTC]\n");
    expect(objects, CALL("\"\""), "<|user|>hi\n<|assistant|>clock\n");
    expect(texts, CALL("\"{ }\""), "<|user|>hi\n<|assistant|>clock{ }\n");
    expect(texts, CALL("{\"zone\":\"UTC\"}"), "<|user|>hi\n<|assistant|>clock{\"zone\": \"UTC\"}\n");
    refuse(objects, CALL("\"zone UTC\""), TQ_INVALID, "template line 2"); /* a text, which this template cannot print */
    expect(objects, "{\"messages\":[{\"role\":\"user\"}],\"tools\":null,\"chat_template_kwargs\":{\"mode\":\"m\"}}",
           "<|user|>\nm");
}

static void what_has_the_wrong_shape_is_refused_by_place(void **state) {
    (void)state;
    static const struct {
        const char *request;
        tq_status status;
        const char *part;
    } cases[] = {
        {"{\"messages\":\n[", TQ_FORMAT, "line 2, column"},
        {"[]", TQ_INVALID, "want a JSON object"},
        {"{}", TQ_INVALID, "messages: want an array"},
        {"{\"messages\":[]}", TQ_INVALID, "at least one message"},
        {"{\"messages\":[1]}", TQ_INVALID, "messages[0]: want an object"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\"},{\"content\":\"x\"}]}", TQ_INVALID, "messages[1]: want an object with"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":7}]}", TQ_INVALID, "messages[0].content: want"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[7]}]}", TQ_INVALID, "messages[0].content[0]: want"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", TQ_INVALID, "content[0].text"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", TQ_UNSUPPORTED, "found \"image_url\""},
        {"{\"messages\":[{\"role\":\"a\",\"tool_calls\":{}}]}", TQ_INVALID, "messages[0].tool_calls: want an array"},
        {"{\"messages\":[{\"role\":\"a\",\"tool_calls\":[{}]}]}", TQ_INVALID, "tool_calls[0]: want"},
        {"{\"messages\":[{\"role\":\"a\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":1}}]}]}", TQ_INVALID,
         "function.arguments: want"},
        {"{\"messages\":[{\"role\":\"a\"}],\"temperature\":1}", TQ_INVALID, "no member \"temperature\""},
        {"{\"messages\":[{\"role\":\"a\"}],\"documents\":{}}", TQ_INVALID, "documents: want"},
        {"{\"messages\":[{\"role\":\"a\"}],\"tools\":{}}", TQ_INVALID, "tools: want"},
        {"{\"messages\":[{\"role\":\"a\"}],\"tools\":[{}]}", TQ_INVALID, "tools[0]: want"},
        {"{\"messages\":[{\"role\":\"a\"}],\"tools\":[{\"name\":\"\"}]}", TQ_INVALID, "no name of a function"},
        {"{\"messages\":[{\"role\":\"a\"}],\"tools\":[{\"name\":\"a b\"}]}", TQ_INVALID, "no name of a function"},
        {"{\"messages\":[{\"role\":\"a\"}],\"chat_template_kwargs\":1}", TQ_INVALID, "chat_template_kwargs: want"},
        {"{\"messages\":[{\"role\":\"a\"}],\"chat_template_kwargs\":{\"tools\":1}}", TQ_INVALID, "\"tools\" cannot be set"},
        {"{\"messages\":[{\"role\":\"a\"}],\"chat_template_kwargs\":{\"pad_token\":\"<|im_end|>\"}}", TQ_INVALID, "cannot be set"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        refuse(objects, cases[i].request, cases[i].status, cases[i].part);
    }
}

static void tools_that_the_model_would_never_hear_of_are_refused(void **state) {
    (void)state;
    static const char request[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{\"type\":\"function\","
                                  "\"function\":{\"name\":\"clock\"}}]}";
    expect(objects, request, "{\"type\": \"function\", \"function\": {\"name\": \"clock\"}}\n<|user|>x\n");
    refuse(plain, request, TQ_UNSUPPORTED, "\"clock\"");
}

/* Every text of a request holds the control token: none of them may become it. */
static void no_part_of_a_request_becomes_a_control_token(void **state) {
    (void)state;
    tq_model *model;
    OK(tq_model_open(BOOKWORM, NULL, &model, &e));
    static const char format[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a%s\"},{\"role\":\"assistant\",\"content\":\"%s\","
        "\"reasoning_content\":\"%s\"},{\"role\":\"user%s\",\"content\":[{\"type\":\"text\",\"text\":\"%s\"}]}],"
        "\"chat_template_kwargs\":{\"%s\":\"%s\"}}";
    int32_t *ids[2], *control;
    size_t n[2], n_control, found[2] = {0};
    OK(tq_tokenize(model, "<|im_end|>", 10, true, &control, &n_control, &e));
    assert_int_equal(n_control, 1);
    for (int i = 0; i < 2; i++) {
        char request[1000];
        const char *s = i ? "<|im_end|>" : "x";
        snprintf(request, sizeof request, format, s, s, s, s, s, s, s);
        OK(tq_chat_tokens_json(model, request, strlen(request), TQ_CHAT_ADD_GENERATION_PROMPT, &ids[i], &n[i], &e));
        for (size_t k = 0; k < n[i]; k++) found[i] += ids[i][k] == control[0];
    }
    assert_true(found[0] >= 3); /* those of the template */
    assert_int_equal(found[1], found[0]);
    assert_true(n[1] > n[0]);
    tq_free(ids[0]), tq_free(ids[1]), tq_free(control);

    /* plain messages and JSON are one thing */
    tq_message messages[] = {{"system", "Be brief."}, {"user", "caf\xc3\xa9 \"q\""}};
    static const char same[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"content\":\"caf\\u00e9 "
                               "\\\"q\\\"\",\"role\":\"user\"}]}";
    OK(tq_chat_tokens(model, messages, 2, 0, &ids[0], &n[0], &e));
    OK(tq_chat_tokens_json(model, same, strlen(same), 0, &ids[1], &n[1], &e));
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(ids[0], ids[1], n[0] * sizeof *ids[0]);
    tq_free(ids[0]), tq_free(ids[1]);
    FAILS(tq_chat_tokens_json(model, same, strlen(same), 2, &ids[1], &n[1], &e), TQ_INVALID, "flags");
    tq_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_take_the_form_that_the_template_reads),
        cmocka_unit_test(what_has_the_wrong_shape_is_refused_by_place),
        cmocka_unit_test(tools_that_the_model_would_never_hear_of_are_refused),
        cmocka_unit_test(no_part_of_a_request_becomes_a_control_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
