/* tokenizer_steps.c: the normalizer, pre_tokenizer, post_processor and decoder of a tokenizer.json.
 * What is not known here is refused by its name: a tokenizer that would split differently is never used. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"

enum { max_depth = 8 }; /* of Sequences in Sequences */

static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

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

/* The type of a component; never NULL. */
static tq_status read_type(const json_t *json, const char *part, const char **type, tq_error *err) {
    const json_t *value;
    *type = "";
    if (!json_is_object(json)) return tq_fail(err, TQ_FORMAT, "%s is not an object", part);
    TQ_TRY(tq_member_string(json, part, "type", true, &value, err));
    *type = json_string_value(value);
    return TQ_OK;
}

static tq_status refuse(const char *part, const char *type, tq_error *err) {
    return tq_fail(err, TQ_UNSUPPORTED, "%s %.80s is not supported", part, type);
}

static tq_status read_sequence(const json_t *json, const char *part, const char *member, int depth, const json_t **list,
                               tq_error *err) {
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

/* Replace {pattern: {String}, content}, of a normalizer or a decoder. */
static tq_status read_replace(const json_t *json, const char *part, tq_norm_steps *steps, tq_error *err) {
    const json_t *pattern = json_object_get(json, "pattern"), *from, *content;
    if (!json_is_object(pattern)) return tq_fail(err, TQ_FORMAT, "%s Replace: pattern is not an object", part);
    if (json_object_get(pattern, "Regex")) return refuse(part, "Replace with a Regex", err);
    TQ_TRY(tq_member_string(pattern, part, "String", true, &from, err));
    TQ_TRY(tq_member_string(json, part, "content", true, &content, err));
    if (json_string_length(from) == 0) return refuse(part, "Replace of an empty string", err);
    return add_norm(steps, TQ_NORM_REPLACE, from, content, err);
}

static tq_status read_normalizer(const json_t *json, tq_norm_steps *steps, int depth, tq_error *err) {
    static const struct {
        const char *name;
        tq_norm_kind kind;
    } forms[] = {{"NFC", TQ_NORM_NFC}, {"NFD", TQ_NORM_NFD}, {"NFKC", TQ_NORM_NFKC}, {"NFKD", TQ_NORM_NFKD}};
    const char *type;
    TQ_TRY(read_type(json, "normalizer", &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TQ_TRY(read_sequence(json, "normalizer", "normalizers", depth, &list, err));
        for (size_t i = 0; i < json_array_size(list); i++) {
            TQ_TRY(read_normalizer(json_array_get(list, i), steps, depth + 1, err));
        }
        return TQ_OK;
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(type, forms[i].name) == 0) return add_norm(steps, forms[i].kind, NULL, NULL, err);
    }
    if (strcmp(type, "Prepend") == 0) {
        const json_t *text;
        TQ_TRY(tq_member_string(json, "normalizer Prepend", "prepend", true, &text, err));
        return add_norm(steps, TQ_NORM_PREPEND, NULL, text, err);
    }
    if (strcmp(type, "Replace") == 0) return read_replace(json, "normalizer", steps, err);
    return refuse("normalizer", type, err);
}

tq_status tq_read_normalizer(const json_t *json, tq_norm_steps *steps, tq_error *err) {
    return !json || json_is_null(json) ? TQ_OK : read_normalizer(json, steps, 0, err);
}

/* ---- pre_tokenizer ---- */

static tq_status add_split(tq_pre_steps *steps, const char *pattern, size_t length, bool literal,
                           tq_split_behavior behavior, bool invert, tq_error *err) {
    TQ_TRY(tq_array_reserve(&steps->steps, steps->n, 1, &steps->cap, sizeof *steps->steps, "a pre_tokenizer", err));
    tq_pre_step *step = &steps->steps[steps->n];
    *step = (tq_pre_step){.behavior = behavior, .invert = invert};
    TQ_TRY(tq_regex_new(pattern, length, literal, &step->regex, err));
    steps->n++;
    return TQ_OK;
}

static tq_status add_rewrite(tq_pre_steps *steps, const char *mark, size_t length, tq_prefix_scheme prefix,
                             tq_error *err) {
    TQ_TRY(tq_array_reserve(&steps->steps, steps->n, 1, &steps->cap, sizeof *steps->steps, "a pre_tokenizer", err));
    tq_pre_step *step = &steps->steps[steps->n];
    *step = (tq_pre_step){.prefix = prefix, .replacement = malloc(length + 1), .replacement_len = length};
    if (!step->replacement) return tq_fail_memory(err, length + 1, "a pre_tokenizer");
    memcpy(step->replacement, mark, length + 1);
    steps->n++;
    return TQ_OK;
}

static tq_status read_split(const json_t *json, tq_pre_steps *steps, tq_error *err) {
    static const struct {
        const char *name;
        tq_split_behavior behavior;
    } behaviors[] = {{"Removed", TQ_SPLIT_REMOVED},
                     {"Isolated", TQ_SPLIT_ISOLATED},
                     {"MergedWithPrevious", TQ_SPLIT_MERGED_WITH_PREVIOUS},
                     {"MergedWithNext", TQ_SPLIT_MERGED_WITH_NEXT},
                     {"Contiguous", TQ_SPLIT_CONTIGUOUS}};
    const json_t *pattern = json_object_get(json, "pattern"), *behavior, *text;
    bool invert;
    if (!json_is_object(pattern)) return tq_fail(err, TQ_FORMAT, "pre_tokenizer Split: pattern is not an object");
    bool literal = !json_object_get(pattern, "Regex");
    TQ_TRY(tq_member_string(pattern, "pre_tokenizer Split", literal ? "String" : "Regex", true, &text, err));
    TQ_TRY(tq_member_string(json, "pre_tokenizer Split", "behavior", true, &behavior, err));
    TQ_TRY(tq_member_bool(json, "pre_tokenizer Split", "invert", false, &invert, err));
    if (json_string_length(text) == 0) return refuse("pre_tokenizer", "Split by an empty pattern", err);
    for (size_t i = 0; i < sizeof behaviors / sizeof *behaviors; i++) {
        if (strcmp(json_string_value(behavior), behaviors[i].name) != 0) continue;
        return add_split(steps, json_string_value(text), json_string_length(text), literal, behaviors[i].behavior,
                         invert, err);
    }
    return refuse("pre_tokenizer Split behavior", json_string_value(behavior), err);
}

static tq_status read_byte_level(const json_t *json, tq_pre_steps *steps, tq_error *err) {
    bool prefix, regex;
    TQ_TRY(tq_member_bool(json, "pre_tokenizer ByteLevel", "add_prefix_space", true, &prefix, err));
    TQ_TRY(tq_member_bool(json, "pre_tokenizer ByteLevel", "use_regex", true, &regex, err));
    if (prefix) TQ_TRY(add_rewrite(steps, " ", 1, TQ_PREFIX_ALWAYS, err));
    if (!regex) return TQ_OK;
    return add_split(steps, gpt2_pattern, strlen(gpt2_pattern), false, TQ_SPLIT_ISOLATED, false, err);
}

static tq_status read_metaspace(const json_t *json, tq_pre_steps *steps, tq_error *err) {
    const json_t *mark, *scheme;
    bool split, old_prefix;
    TQ_TRY(tq_member_string(json, "pre_tokenizer Metaspace", "replacement", true, &mark, err));
    TQ_TRY(tq_member_string(json, "pre_tokenizer Metaspace", "prepend_scheme", false, &scheme, err));
    TQ_TRY(tq_member_bool(json, "pre_tokenizer Metaspace", "split", true, &split, err));
    TQ_TRY(tq_member_bool(json, "pre_tokenizer Metaspace", "add_prefix_space", true, &old_prefix, err));
    const char *name = scheme ? json_string_value(scheme) : "always";
    tq_prefix_scheme prefix;
    if (strcmp(name, "always") == 0) prefix = TQ_PREFIX_ALWAYS;
    else if (strcmp(name, "first") == 0) prefix = TQ_PREFIX_FIRST;
    else if (strcmp(name, "never") == 0) prefix = TQ_PREFIX_NEVER;
    else return refuse("pre_tokenizer Metaspace prepend_scheme", name, err);
    if (!scheme && !old_prefix) prefix = TQ_PREFIX_NEVER;
    size_t n = json_string_length(mark);
    if (n == 0) return refuse("pre_tokenizer Metaspace", "with an empty replacement", err);
    TQ_TRY(add_rewrite(steps, json_string_value(mark), n, prefix, err));
    if (!split) return TQ_OK;
    return add_split(steps, json_string_value(mark), n, true, TQ_SPLIT_MERGED_WITH_NEXT, false, err);
}

static tq_status read_pre_tokenizer(const json_t *json, tq_pre_steps *steps, bool *byte_level, int depth,
                                    tq_error *err) {
    const char *type;
    TQ_TRY(read_type(json, "pre_tokenizer", &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TQ_TRY(read_sequence(json, "pre_tokenizer", "pretokenizers", depth, &list, err));
        for (size_t i = 0; i < json_array_size(list); i++) {
            TQ_TRY(read_pre_tokenizer(json_array_get(list, i), steps, byte_level, depth + 1, err));
        }
        return TQ_OK;
    }
    /* What follows ByteLevel would see its characters instead of the text. */
    if (*byte_level) return tq_fail(err, TQ_UNSUPPORTED, "pre_tokenizer %.80s after ByteLevel is not supported", type);
    if (strcmp(type, "Split") == 0) return read_split(json, steps, err);
    if (strcmp(type, "ByteLevel") == 0) {
        *byte_level = true;
        return read_byte_level(json, steps, err);
    }
    if (strcmp(type, "Digits") == 0) {
        bool individual;
        TQ_TRY(tq_member_bool(json, "pre_tokenizer Digits", "individual_digits", false, &individual, err));
        return add_split(steps, "\\p{N}", 5, false, individual ? TQ_SPLIT_ISOLATED : TQ_SPLIT_CONTIGUOUS, false, err);
    }
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(json, steps, err);
    if (strcmp(type, "WhitespaceSplit") == 0) {
        return add_split(steps, "\\s", 2, false, TQ_SPLIT_REMOVED, false, err);
    }
    return refuse("pre_tokenizer", type, err);
}

tq_status tq_read_pre_tokenizer(const json_t *json, tq_pre_steps *steps, bool *byte_level, tq_error *err) {
    *byte_level = false;
    return !json || json_is_null(json) ? TQ_OK : read_pre_tokenizer(json, steps, byte_level, 0, err);
}

/* ---- post_processor ---- */

static tq_status check_post_processor(const json_t *json, int depth, tq_error *err) {
    const char *type;
    TQ_TRY(read_type(json, "post_processor", &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TQ_TRY(read_sequence(json, "post_processor", "processors", depth, &list, err));
        for (size_t i = 0; i < json_array_size(list); i++) {
            TQ_TRY(check_post_processor(json_array_get(list, i), depth + 1, err));
        }
        return TQ_OK;
    }
    /* Both leave the ids alone when no special tokens are asked for, and none ever are: templates write their own. */
    if (strcmp(type, "ByteLevel") == 0 || strcmp(type, "TemplateProcessing") == 0) return TQ_OK;
    return refuse("post_processor", type, err);
}

tq_status tq_check_post_processor(const json_t *json, tq_error *err) {
    return !json || json_is_null(json) ? TQ_OK : check_post_processor(json, 0, err);
}

/* ---- decoder ---- */

static tq_status read_decoder(const json_t *json, tq_tokenizer *tokenizer, int depth, tq_error *err) {
    const char *type;
    TQ_TRY(read_type(json, "decoder", &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TQ_TRY(read_sequence(json, "decoder", "decoders", depth, &list, err));
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
        if (json_string_length(mark) == 0) return refuse("decoder", "Metaspace with an empty replacement", err);
        json_t *space = json_string(" ");
        if (!space) return tq_fail_memory(err, 1, "a decoder");
        tq_status status = add_norm(&tokenizer->decode_replace, TQ_NORM_REPLACE, mark, space, err);
        json_decref(space);
        return status;
    }
    return refuse("decoder", type, err);
}

tq_status tq_read_decoder(const json_t *json, tq_tokenizer *tokenizer, tq_error *err) {
    if (!json || json_is_null(json)) return refuse("decoder", "null", err);
    return read_decoder(json, tokenizer, 0, err);
}
