/* directory_templates.c: the chat templates of a model directory, found where transformers finds them:
 *     chat_template.jinja                      "default"
 *     additional_chat_templates/NAME.jinja     NAME
 *     tokenizer_config.json, if there is no such file: "chat_template", a text, or a list of {name, template} */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/file_map.h"
#include "engine/model.h"

enum { PATH_CAP = 4096, MAX_TEMPLATES = 64 };

/* A template that is not there is none. */
static tq_status add_file(tq_chat_template_set *set, const char *path, const char *name, size_t name_len, tq_error *err) {
    tq_file_map map = {0};
    tq_error opened;
    tq_status status = tq_file_map_open(path, &map, &opened);
    if (status == TQ_NOT_FOUND) return TQ_OK;
    if (status != TQ_OK) return tq_fail(err, status, "%s", opened.text);
    status = tq_chat_template_set_add(set, name, name_len, (const char *)map.data, map.bytes, err);
    tq_file_map_close(&map);
    return status;
}

static tq_status add_folder(tq_chat_template_set *set, const char *folder, tq_error *err) {
    static const char end[] = ".jinja";
    DIR *entries = opendir(folder);
    if (!entries) return errno == ENOENT ? TQ_OK : tq_fail(err, TQ_IO, "%s: %s", folder, strerror(errno));
    tq_status status = TQ_OK;
    const struct dirent *entry;
    while (status == TQ_OK && (entry = readdir(entries))) {
        char path[PATH_CAP];
        size_t length = strlen(entry->d_name), stem = length - (sizeof end - 1);
        if (length < sizeof end || strcmp(entry->d_name + stem, end) != 0) continue;
        if (set->n >= MAX_TEMPLATES)
            status = tq_fail(err, TQ_UNSUPPORTED, "%s: want at most %d templates", folder, MAX_TEMPLATES);
        else if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= sizeof path)
            status = tq_fail(err, TQ_INVALID, "%.60s...: the path is too long", folder);
        else
            status = add_file(set, path, entry->d_name, stem, err);
    }
    closedir(entries);
    return status;
}

static tq_status add_entry(tq_chat_template_set *set, const json_t *name, const json_t *source, tq_error *err) {
    if (!json_is_string(name) || !json_is_string(source))
        return tq_fail(err, TQ_FORMAT, "tokenizer_config.json: chat_template: want a text, or a list of {\"name\": text, "
                                       "\"template\": text}");
    return tq_chat_template_set_add(set, json_string_value(name), json_string_length(name), json_string_value(source),
                                    json_string_length(source), err);
}

static tq_status add_config(tq_chat_template_set *set, const json_t *value, tq_error *err) {
    const json_t *entry;
    size_t i;
    if (!value || json_is_null(value)) return TQ_OK;
    if (json_is_string(value))
        return tq_chat_template_set_add(set, "default", 7, json_string_value(value), json_string_length(value), err);
    if (!json_is_array(value)) return add_entry(set, NULL, NULL, err);
    json_array_foreach(value, i, entry)
        TQ_TRY(add_entry(set, json_object_get(entry, "name"), json_object_get(entry, "template"), err));
    return TQ_OK;
}

tq_status tq_directory_templates(const char *directory, const json_t *tokenizer_config, tq_chat_template_set *set,
                                 tq_error *err) {
    char path[PATH_CAP], folder[PATH_CAP];
    if ((size_t)snprintf(folder, sizeof folder, "%s/additional_chat_templates", directory) >= sizeof folder)
        return tq_fail(err, TQ_INVALID, "%.60s...: the path is too long", directory);
    snprintf(path, sizeof path, "%.4060s/chat_template.jinja", directory); /* shorter than the folder's */
    TQ_TRY(add_file(set, path, "default", 7, err));
    TQ_TRY(add_folder(set, folder, err)); /* a default.jinja in it counts more, as in transformers */
    return set->n ? TQ_OK : add_config(set, json_object_get(tokenizer_config, "chat_template"), err);
}
