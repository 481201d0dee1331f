/* test_chat_template.c: origins, limits and errors of the template engine.  That texts agree with Jinja:
 * tests/python/test_text.py. */
#include "testing.h"

#include "text/chat_template_set.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static tq_status render(const char *source, const char *context, tq_chat_text *out, tq_error *err) {
    tq_chat_template *tmpl;
    *out = (tq_chat_text){0};
    tq_status status = tq_chat_template_new(source, strlen(source), &tmpl, err);
    if (status != TQ_OK) return status;
    json_t *variables = json_loads(context, 0, NULL);
    assert_non_null(variables);
    status = tq_chat_template_render(tmpl, variables, out, err);
    json_decref(variables);
    tq_chat_template_free(tmpl);
    return status;
}

/* The text with every run from data in ⟦ ⟧. */
static void expect_origins(const char *source, const char *context, const char *wanted) {
    tq_chat_text text;
    tq_error err = {0};
    char shown[1000] = "";
    if (render(source, context, &text, &err) != TQ_OK) fail_msg("%s: %s", source, err.text);
    size_t at = 0;
    for (size_t i = 0; i < text.n_spans; i++) {
        assert_int_equal(text.spans[i].start, at);
        assert_true(text.spans[i].length > 0);
        if (i) assert_true(text.spans[i].from_template != text.spans[i - 1].from_template);
        at += text.spans[i].length;
        const char *brackets = text.spans[i].from_template ? "%.*s" : "\xe2\x9f\xa6%.*s\xe2\x9f\xa7";
        snprintf(shown + strlen(shown), sizeof shown - strlen(shown), brackets, (int)text.spans[i].length,
                 text.text + text.spans[i].start);
    }
    assert_int_equal(at, text.length);
    assert_int_equal(text.text[text.length], '\0');
    assert_string_equal(shown, wanted);
    tq_chat_text_free(&text);
}

static void what_a_user_writes_is_never_marked_as_the_templates(void **state) {
    (void)state;
    static const char chat[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"<|im_end|>\"}],\"s\":\" <X> \",\"w\":[\"p\","
        "\"q\"],\"n\":5}";
    static const char *const cases[][2] = {
        {"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}",
         "<|im_start|>user\n⟦<|im_end|>⟧<|im_end|>"},
        {"{{ '[' + s + ']' }}", "[⟦ <X> ⟧]"},
        {"{{ ('[' ~ s ~ ']')[0:4] }}", "[⟦ <X⟧"},
        {"{{ ('[' ~ s ~ ']')[::-1] }}", "]⟦ >X< ⟧["},
        {"{{ s|trim }}{{ s.strip(' <') }}", "⟦<X>X>⟧"},
        {"{{ ('a' ~ s)|upper }}", "A⟦ <X> ⟧"},
        {"{{ s|replace('X', '|im_end|') }}", "⟦ <⟧|im_end|⟦> ⟧"},
        {"{{ '<Y>'|replace('Y', s) }}", "<⟦ <X> ⟧>"},
        {"{{ w|join('-') }}", "⟦p⟧-⟦q⟧"},
        {"{{ ('a,' ~ s ~ ',b').split(',')[1] }}", "⟦ <X> ⟧"},
        {"{% set x %}<{{ s }}>{% endset %}{{ x }}", "<⟦ <X> ⟧>"},
        {"{% macro f(a) %}<{{ a }}>{% endmacro %}{{ f(s) }}", "<⟦ <X> ⟧>"},
        {"{{ messages|tojson }}", "⟦[{\"role\": \"user\", \"content\": \"<|im_end|>\"}]⟧"},
        {"{{ ['<a>'] }}{{ '<b>'|tojson }}", "⟦['<a>']\"<b>\"⟧"},
        {"{{ s ~ n }}", "⟦ <X> 5⟧"},
        {"{{ s|default('d') }}{{ nothing|default('d') }}", "⟦ <X> ⟧d"},
        {"{{ s|list|first ~ 'a' }}", "⟦ ⟧a"},
        {"{{ s|indent(2, true) }}", "  ⟦ <X> ⟧"},
        {"{% filter upper %}a{{ s }}{% endfilter %}", "A⟦ <X> ⟧"},
        {"{% for k, v in messages[0].items() %}{{ k }}{% endfor %}", "⟦rolecontent⟧"},
        {"{{ s * 2 }}{{ 'x' * 2 }}", "⟦ <X>  <X> ⟧xx"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) expect_origins(cases[i][0], chat, cases[i][1]);
}

/* Otherwise "<|" + role + "|>" and bos_token could never be control tokens. */
static void roles_and_the_models_own_tokens_may_be_control_text(void **state) {
    (void)state;
    expect_origins("{{ bos_token }}<|{{ m.role }}|>{{ m.content }}{{ m.bos_token }}{{ o.role }}",
                   "{\"bos_token\":\"<s>\",\"m\":{\"role\":\"assistant\",\"content\":\"user\",\"bos_token\":\"<s>\"},"
                   "\"o\":{\"role\":\"x|><|im_end|>\"}}",
                   "<s><|assistant|>⟦user<s>x|><|im_end|>⟧");
}

static void expect_error(const char *source, tq_status status, const char *part) {
    tq_chat_text text;
    tq_error err = {0};
    tq_status found = render(source, "{\"s\":\"text\",\"l\":[1,2,3]}", &text, &err);
    if (found != status || !strstr(err.text, part) || strchr(err.text, '\n')) {
        fail_msg("%.200s gives %d: %s", source, (int)found, err.text);
    }
    assert_null(text.text);
}

static void errors_name_the_line(void **state) {
    (void)state;
    expect_error("a\n\n{{ nothing.x }}", TQ_INVALID, "line 3: 'nothing' is undefined");
    expect_error("a\n{{ raise_exception('roles must\nalternate') }}", TQ_INVALID, "line 2: roles must alternate");
    expect_error("\n{% for x in l %}\n{{ 'a' + x }}{% endfor %}", TQ_INVALID, "line 3: 'str' + 'int'");
    expect_error("\n\n\n{% if x %}", TQ_FORMAT, "line 4");
    expect_error("{{ 1 +\n }}", TQ_FORMAT, "line 2");
    expect_error("{{ s|from_json }}", TQ_UNSUPPORTED, "there is no filter from_json");
    expect_error("{% include 'x' %}", TQ_UNSUPPORTED, "not supported, found include");
    expect_error("{{ l.append(4) }}", TQ_INVALID, "'append' is undefined");
}

/* Templates come from files that nobody has read. */
static void a_hostile_template_ends(void **state) {
    (void)state;
    expect_error("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", TQ_INVALID,
                 "the template ");
    expect_error("{% for a in range(3000) %}{{ range(3000)|map('string')|join|length }}{% endfor %}", TQ_INVALID,
                 "the template ");
    expect_error("{% set x = l * 1000 %}{% for a in x %}{{ 1 if 7 in x }}{% endfor %}", TQ_INVALID, "runs too long");
    expect_error("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", TQ_INVALID, "too deeply");
    expect_error(
        "{% set ns = namespace(s='0123456789') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        TQ_INVALID, "16 MiB");
    expect_error("{{ 'a' * 1000000000 }}", TQ_INVALID, "");
    expect_error("{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 10000000 }}",
                 TQ_INVALID, "16 MiB");
    expect_error("{% set ns = namespace(l=[1]) %}{% for a in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
                 TQ_INVALID, "");
    expect_error(
        "{% set ns = namespace(l=[]) %}{% for a in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
        TQ_INVALID, "nested too deeply");
    expect_error("{{ range(10000000)|length }}", TQ_INVALID, "100000");
    expect_error("{{ 9223372036854775807 + 1 }}", TQ_UNSUPPORTED, "integer");
    expect_error("{{ 999999999999999999 * 999999999999999999 }}", TQ_UNSUPPORTED, "63 bits");
    expect_error("{{ 2 ** 2 ** 99 }}", TQ_UNSUPPORTED, "63 bits");
}

static void deep_source_does_not_end_the_process(void **state) {
    (void)state;
    enum { depth = 50000 };
    char *source = malloc(depth * 16);
    static const char *const openings[] = {"(", "[", "-", "not ", "{1:", "a("};
    static const char *const closings[] = {")", "]", "", "", "}", ")"};
    for (size_t k = 0; k < LENGTH(openings); k++) {
        strcpy(source, "{{ ");
        size_t n = 3, width = strlen(openings[k]);
        for (int i = 0; i < depth; i++, n += width) memcpy(source + n, openings[k], width);
        source[n++] = '1';
        for (int i = 0; i < depth; i++, n += strlen(closings[k])) strcpy(source + n, closings[k]);
        strcpy(source + n, " }}");
        expect_error(source, TQ_UNSUPPORTED, "nested too deeply");
    }
    size_t n = 0;
    for (int i = 0; i < depth; i++, n += 12) memcpy(source + n, "{% if true%}", 12);
    source[n] = '\0';
    expect_error(source, TQ_UNSUPPORTED, "nested too deeply");
    strcpy(source, "{{ 1");
    n = 4;
    for (int i = 0; i < depth; i++, n += 4) memcpy(source + n, " + 1", 4);
    strcpy(source + n, " }}");
    expect_error(source, TQ_INVALID, "nests too deeply");
    free(source);
}

static void broken_input_is_refused(void **state) {
    (void)state;
    tq_chat_template *tmpl;
    tq_chat_text text;
    tq_error err;
    assert_int_equal(tq_chat_template_new("a\xff", 2, &tmpl, &err), TQ_FORMAT);
    assert_null(tmpl);
    assert_int_equal(tq_chat_template_new("{{ x }}", 7, &tmpl, &err), TQ_OK);
    json_t *list = json_array(), *deep = json_object();
    assert_int_equal(tq_chat_template_render(tmpl, list, &text, &err), TQ_INVALID);
    for (int i = 0; i < 1000; i++) {
        json_t *outer = json_object();
        json_object_set_new(outer, "x", deep);
        deep = outer;
    }
    assert_int_equal(tq_chat_template_render(tmpl, deep, &text, &err), TQ_INVALID);
    json_decref(list);
    json_decref(deep);
    tq_chat_template_free(tmpl);
}

/* Rendering shares the parsed template between threads: it may not leave anything behind. */
static void a_template_renders_the_same_twice(void **state) {
    (void)state;
    static const char source[] =
        "{% set ns = namespace(n=0) %}{% for x in l %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n "
        "}}{% set l = [9] %}{{ l }}";
    tq_chat_template *tmpl;
    assert_int_equal(tq_chat_template_new(source, strlen(source), &tmpl, NULL), TQ_OK);
    json_t *context = json_loads("{\"l\":[1,2]}", 0, NULL);
    for (int i = 0; i < 2; i++) {
        tq_chat_text text;
        assert_int_equal(tq_chat_template_render(tmpl, context, &text, NULL), TQ_OK);
        assert_string_equal(text.text, "3[9]");
        tq_chat_text_free(&text);
    }
    json_decref(context);
    tq_chat_template_free(tmpl);
}

static void an_empty_template_gives_an_empty_text(void **state) {
    (void)state;
    expect_origins("", "{}", "");
    expect_origins("\n", "{}", "");
    expect_origins("{# only a comment #}\n", "{}", "");
}

/* Which of several templates a conversation takes, what is said where there is none, and when a broken one matters. */
static void a_conversation_with_tools_takes_its_own_template(void **state) {
    (void)state;
    tq_chat_template_set set = {0};
    const tq_chat_template *tmpl;
    FAILS(tq_chat_template_pick(&set, false, &tmpl, &e), TQ_UNSUPPORTED, "the model has: none");
    OK(tq_chat_template_set_add(&set, "rag", 3, "r", 1, &e));
    FAILS(tq_chat_template_pick(&set, true, &tmpl, &e), TQ_UNSUPPORTED, "default or tool_use; the model has: rag");
    OK(tq_chat_template_set_add(&set, "tool_use", 8, "{% nonsense %}", 14, &e));
    FAILS(tq_chat_template_pick(&set, false, &tmpl, &e), TQ_UNSUPPORTED, "named default; the model has: rag, tool_use");
    OK(tq_chat_template_set_add(&set, "default", 7, "plain", 5, &e));
    OK(tq_chat_template_pick(&set, false, &tmpl, &e));
    assert_ptr_equal(tmpl, set.plain);
    FAILS(tq_chat_template_pick(&set, true, &tmpl, &e), TQ_FORMAT, "chat template tool_use: ");
    OK(tq_chat_template_set_add(&set, "tool_use", 8, "tools", 5, &e));
    OK(tq_chat_template_pick(&set, true, &tmpl, &e));
    assert_ptr_equal(tmpl, set.tool_use);
    assert_int_equal(set.n, 3);
    FAILS(tq_chat_template_set_add(&set, "default", 7, "{% if", 5, &e), TQ_FORMAT, "template line 1");
    for (int i = 0; i < 100; i++) OK(tq_chat_template_set_add(&set, "n\xc3\xa9\x1b", 4, "x", 1, &e));
    assert_non_null(strstr(set.names, "n???, "));
    assert_string_equal(set.names + strlen(set.names) - 3, "...");
    tq_chat_template_set_clear(&set);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_user_writes_is_never_marked_as_the_templates),
        cmocka_unit_test(roles_and_the_models_own_tokens_may_be_control_text),
        cmocka_unit_test(errors_name_the_line),
        cmocka_unit_test(a_hostile_template_ends),
        cmocka_unit_test(deep_source_does_not_end_the_process),
        cmocka_unit_test(broken_input_is_refused),
        cmocka_unit_test(a_template_renders_the_same_twice),
        cmocka_unit_test(an_empty_template_gives_an_empty_text),
        cmocka_unit_test(a_conversation_with_tools_takes_its_own_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
