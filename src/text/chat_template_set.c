/* chat_template_set.c: see chat_template_set.h. */
#include "text/chat_template_set.h"

#include <stdio.h>
#include <string.h>

static bool is_name(const char *wanted, const char *name, size_t length) {
    return strlen(wanted) == length && memcmp(wanted, name, length) == 0;
}

/* Names come from files: what is not printable ASCII becomes '?'. */
static void note_name(tq_chat_template_set *set, const char *name, size_t length) {
    static const char more[] = "...";
    size_t used = strlen(set->names), cap = sizeof set->names - sizeof more;
    set->n++;
    if (set->cut) return;
    if (used + 2 + length >= cap) {
        set->cut = true;
        memcpy(set->names + used, more, sizeof more);
        return;
    }
    if (used) used += (size_t)snprintf(set->names + used, cap - used, ", ");
    for (size_t i = 0; i < length; i++) set->names[used++] = (char)(name[i] > ' ' && name[i] < 0x7f ? name[i] : '?');
    set->names[used] = 0;
}

static tq_status replace(tq_chat_template **slot, const char *source, size_t length, tq_error *err) {
    tq_chat_template *made;
    TQ_TRY(tq_chat_template_new(source, length, &made, err));
    tq_chat_template_free(*slot);
    *slot = made;
    return TQ_OK;
}

tq_status tq_chat_template_set_add(tq_chat_template_set *set, const char *name, size_t name_len, const char *source,
                                   size_t source_len, tq_error *err) {
    if (is_name("default", name, name_len)) {
        bool first = !set->plain;
        TQ_TRY(replace(&set->plain, source, source_len, err));
        if (first) note_name(set, name, name_len);
        return TQ_OK;
    }
    if (is_name("tool_use", name, name_len)) {
        set->tool_use_status = replace(&set->tool_use, source, source_len, &set->tool_use_error);
        if (set->has_tool_use) return TQ_OK;
        set->has_tool_use = true;
    }
    note_name(set, name, name_len);
    return TQ_OK;
}

void tq_chat_template_set_clear(tq_chat_template_set *set) {
    tq_chat_template_free(set->plain);
    tq_chat_template_free(set->tool_use);
    *set = (tq_chat_template_set){0};
}

tq_status tq_chat_template_pick(const tq_chat_template_set *set, bool tools, const tq_chat_template **out, tq_error *err) {
    bool with_tools = tools && set->has_tool_use;
    *out = with_tools ? set->tool_use : set->plain;
    if (with_tools && set->tool_use_status != TQ_OK)
        return tq_fail(err, set->tool_use_status, "chat template tool_use: %s", set->tool_use_error.text);
    if (*out) return TQ_OK;
    return tq_fail(err, TQ_UNSUPPORTED, "want a chat template named default%s; the model has: %s",
                   tools ? " or tool_use" : "", set->n ? set->names : "none");
}
