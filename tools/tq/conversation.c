/* conversation.c: the messages of a chat, and their file. */
#include "conversation.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json_out.h"
#include "setup.h"

static const char *const FORMAT = "turboquant-chat";
enum { FORMAT_VERSION = 1 };

/* ---- messages ---------------------------------------------------------------------------------------------------- */

void conversation_free(conversation *c) {
    for (size_t i = 0; i < c->n; i++) free((char *)c->messages[i].content);
    free(c->messages);
    *c = (conversation){0};
}

/* The role as a constant, so that messages own one string and not two; NULL for another role. */
static const char *known_role(const char *role) {
    static const char *const roles[] = {"system", "user", "assistant"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(role, roles[i]) == 0) return roles[i];
    return NULL;
}

bool conversation_add(conversation *c, const char *role, const char *content) {
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 16;
        tq_message *grown = realloc(c->messages, cap * sizeof *grown);
        if (!grown) return false;
        c->messages = grown;
        c->cap = cap;
    }
    char *copy = strdup(content);
    if (!copy) return false;
    c->messages[c->n++] = (tq_message){known_role(role), copy};
    return true;
}

void conversation_drop_last(conversation *c) {
    if (c->n > 0) free((char *)c->messages[--c->n].content);
}

const char *conversation_system(const conversation *c) {
    return c->n > 0 && strcmp(c->messages[0].role, "system") == 0 ? c->messages[0].content : NULL;
}

void conversation_reset(conversation *c) {
    size_t kept = conversation_system(c) ? 1 : 0;
    while (c->n > kept) conversation_drop_last(c);
}

bool conversation_set_system(conversation *c, const char *content) {
    if (content && !conversation_add(c, "system", content)) return false;
    tq_message added = content ? c->messages[--c->n] : (tq_message){0};
    if (conversation_system(c)) {
        free((char *)c->messages[0].content);
        memmove(c->messages, c->messages + 1, --c->n * sizeof *c->messages);
    }
    if (!content) return true;
    memmove(c->messages + 1, c->messages, c->n++ * sizeof *c->messages); /* the room that adding made */
    c->messages[0] = added;
    return true;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static void write_json(const conversation *c, jout *j, const char *model, const char *kv) {
    jout_object(j);
    jout_put_string(j, "format", FORMAT);
    jout_put_int(j, "version", FORMAT_VERSION);
    jout_put_string(j, "model", model);
    jout_put_string(j, "kv", kv);
    jout_key(j, "messages");
    jout_array(j);
    for (size_t i = 0; i < c->n; i++) {
        jout_object(j);
        jout_put_string(j, "role", c->messages[i].role);
        jout_put_string(j, "content", c->messages[i].content);
        jout_end(j);
    }
    jout_end(j);
    jout_end(j);
}

int conversation_save(const conversation *c, const char *command, const char *path, const char *model, const char *kv) {
    char temporary[PATH_MAX];
    int n = snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    if (n < 0 || (size_t)n >= sizeof temporary) return setup_fail(command, "%s: the name is too long", path);
    int fd = mkstemp(temporary); /* mode 0600: a conversation is its owner's */
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!file) {
        int code = setup_fail(command, "%s: %s", path, strerror(errno));
        if (fd >= 0) close(fd), unlink(temporary);
        return code;
    }
    jout j = {0};
    write_json(c, &j, model, kv);
    bool ok = jout_print(&j, file) && fsync(fd) == 0;
    ok = fclose(file) == 0 && ok;
    if (ok && rename(temporary, path) == 0) return EXIT_SUCCESS;
    int code = setup_fail(command, "%s: %s", path, strerror(errno));
    unlink(temporary);
    return code;
}

/* NULL if all is well, else what is wrong. */
static const char *take_messages(conversation *c, const json_t *root) {
    const json_t *format = json_object_get(root, "format"), *messages = json_object_get(root, "messages");
    if (!json_is_string(format) || strcmp(json_string_value(format), FORMAT) != 0) return "not a saved conversation";
    if (json_integer_value(json_object_get(root, "version")) != FORMAT_VERSION) return "saved by another version";
    if (!json_is_array(messages)) return "\"messages\" is missing";
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        const char *role = json_string_value(json_object_get(message, "role"));
        const char *content = json_string_value(json_object_get(message, "content"));
        if (!role || !content || !known_role(role)) return "a message is not {\"role\": ..., \"content\": ...}";
        if (!conversation_add(c, role, content)) return "out of memory";
    }
    return NULL;
}

int conversation_load(conversation *c, const char *command, const char *path) {
    char *text;
    size_t n;
    int code = setup_read_text(command, path, &text, &n);
    if (code != EXIT_SUCCESS) return code;
    json_error_t error;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!root) return setup_fail(command, "%s: not a saved conversation (line %d: %s)", path, error.line, error.text);
    conversation read = {0};
    const char *wrong = take_messages(&read, root);
    json_decref(root);
    if (wrong) {
        conversation_free(&read);
        return setup_fail(command, "%s: %s", path, wrong);
    }
    conversation_free(c);
    *c = read;
    return EXIT_SUCCESS;
}
