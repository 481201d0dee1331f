/* fuzz_chat_request.c: any bytes as a conversation in JSON, for templates that read parts and objects or texts.  U+2603
 * is written by no template: it must never be marked as a template's. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/chat_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const sources[] = {
    "{% if tools %}{{ tools|tojson }}{% endif %}{% for m in messages %}<|{{ m.role }}|>{% if m.content is string %}"
    "{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% for c in m.tool_calls %}"
    "{{ c.function.name }}{{ c.function.arguments|tojson }}{% endfor %}{{ m.reasoning_content }}{% endfor %}",
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] + '\n' }}{% for c in m.tool_calls %}"
    "{{ c.function.name + c.function.arguments }}{% endfor %}{% endfor %}{{ x }}",
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char snowman[] = "\xe2\x98\x83";
    if (size > 8192) return 0;
    for (int k = 0; k < 2; k++) {
        tq_chat_template_set set = {0};
        const tq_chat_template *tmpl;
        json_t *variables;
        tq_error err;
        tq_chat_text text;
        if (tq_chat_template_set_add(&set, "default", 7, sources[k], strlen(sources[k]), &err) != TQ_OK) abort();
        if (tq_chat_template_set_add(&set, "tool_use", 8, sources[1 - k], strlen(sources[1 - k]), &err) != TQ_OK) abort();
        if (tq_chat_request_read((const char *)data, size, &set, &variables, &err) == TQ_OK) {
            if (tq_chat_template_pick(&set, !json_is_null(json_object_get(variables, "tools")), &tmpl, &err) != TQ_OK) abort();
            if (tq_chat_template_render(tmpl, variables, &text, &err) == TQ_OK) {
                tq_chat_request_check_tools(variables, &text, &err);
                for (size_t i = 0; i < text.n_spans; i++) {
                    for (size_t at = 0; text.spans[i].from_template && at + 3 <= text.spans[i].length; at++) {
                        if (memcmp(text.text + text.spans[i].start + at, snowman, 3) == 0) abort();
                    }
                }
                tq_chat_text_free(&text);
            }
            json_decref(variables);
        }
        tq_chat_template_set_clear(&set);
    }
    return 0;
}
