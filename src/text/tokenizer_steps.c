/* tokenizer_steps.c: the normalizer and decoder of a tokenizer.json.  Not here: its pre_tokenizer (tokenizer_splits.c)
 * and its post_processor (tokenizer_around.c).
 * What is not known here is refused by its name: a tokenizer that would split differently is never used. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"

tq_status tq_member_bool(const json_t *object, const char *part, const char *name, bool fallback, bool *out,
                         tq_error *err) {
    const json_t *value = json_object_get(object, name);
    *out = value ? json_is_true(value) : fallback;
    if (value && !json_is_boolean(value)) {
        return tq_fail(err, TQ_FORMAT, "%s: %s is not a boolean", part, name);
    }
    return TQ_OK;
}

tq_status tq_member_string(const json_t *object, const char *part, const char *name, bool required, const json_t **out,
                           tq_error *err) {
    const json_t *value = json_object_get(object, name);
    *out = NULL;
    if (!value || json_is_null(value)) {
        return required ? tq_fail(err, TQ_FORMAT, "%s: no member %s", part, name) : TQ_OK;
    }
    if (!json_is_string(value)) return tq_fail(err, TQ_FORMAT, "%s: %s is not a string", part, name);
    *out = value;
    return TQ_OK;
}

tq_status tq_member_type(const json_t *json, const char *part, const char **type, tq_error *err) {
    const json_t *value;
    *type = "";
    if (!json_is_object(json)) return tq_fail(err, TQ_FORMAT, "%s is not an object", part);
    TQ_TRY(tq_member_string(json, part, "type", true, &value, err));
    *type = json_string_value(value);
    return TQ_OK;
}

tq_status tq_refuse_part(const char *part, const char *type, tq_error *err) {
    return tq_fail(err, TQ_UNSUPPORTED, "%s %.80s is not supported", part, type);
}

tq_status tq_member_sequence(const json_t *json, const char *part, const char *member, int depth, const json_t **list,
                             tq_error *err) {
    enum { max_depth = 8 }; /* of Sequences in Sequences */
    *list = json_object_get(json, member);
    if (!json_is_array(*list)) return tq_fail(err, TQ_FORMAT, "%s Sequence: %s is not an array", part, member);
    if (depth >= max_depth) return tq_fail(err, TQ_UNSUPPORTED, "%s: Sequences nested too deeply", part);
    return TQ_OK;
}

static tq_status copy_string(const json_t *string, char **out, size_t *length, tq_error *err) {
    *length = json_string_length(string);
    *out = malloc(*length + 1);
    if (!*out) return tq_fail_memory(err, *length + 1, "a string");
    memcpy(*out, json_string_value(string), *length + 1);
    return TQ_OK;
}

/* ---- normalizer ---- */

static tq_status add_norm(tq_norm_steps *steps, tq_norm_kind kind, const json_t *from, const json_t *to,
                          tq_error *err) {
    TQ_TRY(tq_array_reserve(&steps->steps, steps->n, 1, &steps->cap, sizeof *steps->steps, "a normalizer", err));
    tq_norm_step *step = &steps->steps[steps->n++];
    *step = (tq_norm_step){.kind = kind};
    if (from) TQ_TRY(copy_string(from, &step->from, &step->from_len, err));
    if (to) TQ_TRY(copy_string(to, &step->to, &step->to_len, err));
    return TQ_OK;
}

/* Replace {pattern: {String or Regex}, content}, of a normalizer or a decoder. */
static tq_status read_replace(const json_t *json, const char *part, tq_norm_steps *steps, tq_error *err) {
    const json_t *pattern = json_object_get(json, "pattern"), *from, *content;
    if (!json_is_object(pattern)) return tq_fail(err, TQ_FORMAT, "%s Replace: pattern is not an object", part);
    bool regex = json_object_get(pattern, "Regex");
    TQ_TRY(tq_member_string(pattern, part, regex ? "Regex" : "String", true, &from, err));
    TQ_TRY(tq_member_string(json, part, "content", true, &content, err));
    size_t n = json_string_length(from);
    if (n == 0) return tq_refuse_part(part, "Replace of an empty string", err);
    TQ_TRY(add_norm(steps, TQ_NORM_REPLACE, from, content, err));
    return regex ? tq_regex_new(json_string_value(from), n, false, &steps->steps[steps->n - 1].regex, err) : TQ_OK;
}

static tq_status read_normalizer(const json_t *json, tq_norm_steps *steps, int depth, tq_error *err) {
    static const struct {
        const char *name;
        tq_norm_kind kind;
    } plain[] = {{"NFC", TQ_NORM_NFC},   {"NFD", TQ_NORM_NFD},
                 {"NFKC", TQ_NORM_NFKC}, {"NFKD", TQ_NORM_NFKD},
                 {"Lowercase", TQ_NORM_LOWERCASE}, {"StripAccents", TQ_NORM_STRIP_ACCENTS}};
    const char *type;
    TQ_TRY(tq_member_type(json, "normalizer", &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TQ_TRY(tq_member_sequence(json, "normalizer", "normalizers", depth, &list, err));
        for (size_t i = 0; i < json_array_size(list); i++) {
            TQ_TRY(read_normalizer(json_array_get(list, i), steps, depth + 1, err));
        }
        return TQ_OK;
    }
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (strcmp(type, plain[i].name) == 0) return add_norm(steps, plain[i].kind, NULL, NULL, err);
    }
    if (strcmp(type, "Strip") == 0) {
        bool left, right;
        TQ_TRY(tq_member_bool(json, "normalizer Strip", "strip_left", true, &left, err));
        TQ_TRY(tq_member_bool(json, "normalizer Strip", "strip_right", true, &right, err));
        TQ_TRY(add_norm(steps, TQ_NORM_STRIP, NULL, NULL, err));
        steps->steps[steps->n - 1].left = left, steps->steps[steps->n - 1].right = right;
        return TQ_OK;
    }
    if (strcmp(type, "Precompiled") == 0) {
        const json_t *map;
        TQ_TRY(tq_member_string(json, "normalizer Precompiled", "precompiled_charsmap", true, &map, err));
        TQ_TRY(add_norm(steps, TQ_NORM_CHARSMAP, NULL, NULL, err));
        return tq_charsmap_new(json_string_value(map), json_string_length(map), &steps->steps[steps->n - 1].map, err);
    }
    if (strcmp(type, "Prepend") == 0) {
        const json_t *text;
        TQ_TRY(tq_member_string(json, "normalizer Prepend", "prepend", true, &text, err));
        return add_norm(steps, TQ_NORM_PREPEND, NULL, text, err);
    }
    if (strcmp(type, "Replace") == 0) return read_replace(json, "normalizer", steps, err);
    return tq_refuse_part("normalizer", type, err);
}

tq_status tq_read_normalizer(const json_t *json, tq_norm_steps *steps, tq_error *err) {
    return !json || json_is_null(json) ? TQ_OK : read_normalizer(json, steps, 0, err);
}

/* ---- decoder ---- */

static tq_status read_decoder(const json_t *json, tq_tokenizer *tokenizer, int depth, tq_error *err) {
    const char *type;
    TQ_TRY(tq_member_type(json, "decoder", &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TQ_TRY(tq_member_sequence(json, "decoder", "decoders", depth, &list, err));
        for (size_t i = 0; i < json_array_size(list); i++) {
            TQ_TRY(read_decoder(json_array_get(list, i), tokenizer, depth + 1, err));
        }
        return TQ_OK;
    }
    if (strcmp(type, "ByteLevel") == 0) {
        tokenizer->decode_byte_level = true;
        return TQ_OK;
    }
    if (strcmp(type, "ByteFallback") == 0) {
        tokenizer->decode_byte_fallback = true;
        return TQ_OK;
    }
    /* Fuse joins, which pieces do anyway; Strip takes the space before the first piece of a text, which a single piece
     * cannot know: whoever shows a whole text drops it. */
    if (strcmp(type, "Fuse") == 0 || strcmp(type, "Strip") == 0) return TQ_OK;
    if (strcmp(type, "Replace") == 0) return read_replace(json, "decoder", &tokenizer->decode_replace, err);
    if (strcmp(type, "Metaspace") == 0) {
        const json_t *mark;
        TQ_TRY(tq_member_string(json, "decoder Metaspace", "replacement", true, &mark, err));
        if (json_string_length(mark) == 0) return tq_refuse_part("decoder", "Metaspace with an empty replacement", err);
        json_t *space = json_string(" ");
        if (!space) return tq_fail_memory(err, 1, "a decoder");
        tq_status status = add_norm(&tokenizer->decode_replace, TQ_NORM_REPLACE, mark, space, err);
        json_decref(space);
        return status;
    }
    return tq_refuse_part("decoder", type, err);
}

tq_status tq_read_decoder(const json_t *json, tq_tokenizer *tokenizer, tq_error *err) {
    if (!json || json_is_null(json)) return tq_refuse_part("decoder", "null", err);
    return read_decoder(json, tokenizer, 0, err);
}
