/* fuzz_chat_template.c: any bytes as a template, rendered with a fixed conversation.  What comes out must be covered by
 * spans, and text of the conversation must never be marked as the template's. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* U+2603 stands in the conversation and nowhere else, unless the template writes it. */
static const char context_text[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\" S\\u2603 \"},{\"role\":\"user\",\"content\":\"H\\u2603i <x>\\n"
    "b\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\\u2603\",\"arguments\":{"
    "\"a\":1,\"b\":[0.5,null,true,\"\\u2603\"]}}}]}],\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"n\":3,"
    "\"d\":"
    "{\"b\":\"2\",\"A\":1},\"w\":[\"b\",\"A\",\"c\"]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char snowman[] = "\xe2\x98\x83";
    tq_chat_template *tmpl;
    tq_error err;
    if (size > 4096) return 0;
    if (tq_chat_template_new((const char *)data, size, &tmpl, &err) != TQ_OK) return 0;
    json_t *context = json_loads(context_text, 0, NULL);
    tq_chat_text text;
    if (tq_chat_template_render(tmpl, context, &text, &err) == TQ_OK) {
        bool own = memchr(data, 0xe2, size) || memchr(data, '\\', size); /* then it may write the character itself */
        size_t at = 0;
        if (tq_utf8_valid_prefix(text.text, text.length) != text.length) abort();
        for (size_t i = 0; i < text.n_spans; at += text.spans[i++].length) {
            if (text.spans[i].start != at || text.spans[i].length == 0) abort();
            for (size_t k = at; !own && text.spans[i].from_template && k + 3 <= at + text.spans[i].length; k++) {
                if (memcmp(text.text + k, snowman, 3) == 0) abort();
            }
        }
        if (at != text.length) abort();
        tq_chat_text_free(&text);
    }
    json_decref(context);
    tq_chat_template_free(tmpl);
    return 0;
}
