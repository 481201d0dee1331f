/* tokenizer_splits.c: the pre_tokenizer of a tokenizer.json, made into splits and rewritings (pretokenize.h).
 * What is not known here is refused by its name. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"

static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* The classes of the reference's own tables, white space apart. */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"
static const char words_pattern[] = "[" WORD "]+|[^" WORD "\\s]+";

/* Punctuation since Unicode 8, which those tables are of, and what was punctuation then. */
#define YOUNG_PUNCTUATION                                                                                              \
    "\\x{61d}\\x{9fd}\\x{a76}\\x{c77}\\x{c84}\\x{1b7d}-\\x{1b7e}\\x{2e43}-\\x{2e4f}\\x{2e52}-\\x{2e5d}\\x{10ead}" \
    "\\x{10f55}-\\x{10f59}\\x{10f86}-\\x{10f89}\\x{1144b}-\\x{1144f}\\x{1145a}-\\x{1145b}\\x{1145d}" \
    "\\x{11660}-\\x{1166c}\\x{116b9}\\x{1183b}\\x{11944}-\\x{11946}\\x{119e2}\\x{11a3f}-\\x{11a46}" \
    "\\x{11a9a}-\\x{11a9c}\\x{11a9e}-\\x{11aa2}\\x{11c41}-\\x{11c45}\\x{11c70}-\\x{11c71}\\x{11ef7}-\\x{11ef8}" \
    "\\x{11fff}\\x{12ff1}-\\x{12ff2}\\x{16e97}-\\x{16e9a}\\x{16fe2}\\x{1e95e}-\\x{1e95f}"
static const char punctuation_pattern[] =
    "(?![" YOUNG_PUNCTUATION "])[\\p{P}$+<=>^`|~]|[\\x{166d}\\x{111c9}]";

static const struct {
    const char *name;
    tq_split_behavior behavior;
} behaviors[] = {{"Removed", TQ_SPLIT_REMOVED},
                 {"Isolated", TQ_SPLIT_ISOLATED},
                 {"MergedWithPrevious", TQ_SPLIT_MERGED_WITH_PREVIOUS},
                 {"MergedWithNext", TQ_SPLIT_MERGED_WITH_NEXT},
                 {"Contiguous", TQ_SPLIT_CONTIGUOUS}};

/* part: with "behavior" at its end. */
static tq_status find_behavior(const json_t *name, const char *part, tq_split_behavior *out, tq_error *err) {
    for (size_t i = 0; i < sizeof behaviors / sizeof *behaviors; i++) {
        *out = behaviors[i].behavior;
        if (strcmp(json_string_value(name), behaviors[i].name) == 0) return TQ_OK;
    }
    return tq_refuse_part(part, json_string_value(name), err);
}

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
    const json_t *pattern = json_object_get(json, "pattern"), *behavior, *text;
    bool invert;
    if (!json_is_object(pattern)) return tq_fail(err, TQ_FORMAT, "pre_tokenizer Split: pattern is not an object");
    bool literal = !json_object_get(pattern, "Regex");
    TQ_TRY(tq_member_string(pattern, "pre_tokenizer Split", literal ? "String" : "Regex", true, &text, err));
    TQ_TRY(tq_member_string(json, "pre_tokenizer Split", "behavior", true, &behavior, err));
    TQ_TRY(tq_member_bool(json, "pre_tokenizer Split", "invert", false, &invert, err));
    if (json_string_length(text) == 0) return tq_refuse_part("pre_tokenizer", "Split by an empty pattern", err);
    tq_split_behavior found;
    TQ_TRY(find_behavior(behavior, "pre_tokenizer Split behavior", &found, err));
    return add_split(steps, json_string_value(text), json_string_length(text), literal, found, invert, err);
}

static tq_status read_punctuation(const json_t *json, tq_pre_steps *steps, tq_error *err) {
    const json_t *name;
    tq_split_behavior behavior = TQ_SPLIT_ISOLATED;
    TQ_TRY(tq_member_string(json, "pre_tokenizer Punctuation", "behavior", false, &name, err));
    if (name) TQ_TRY(find_behavior(name, "pre_tokenizer Punctuation behavior", &behavior, err));
    return add_split(steps, punctuation_pattern, strlen(punctuation_pattern), false, behavior, false, err);
}

static tq_status read_delimiter(const json_t *json, tq_pre_steps *steps, tq_error *err) {
    const json_t *text;
    TQ_TRY(tq_member_string(json, "pre_tokenizer CharDelimiterSplit", "delimiter", true, &text, err));
    size_t n = json_string_length(text);
    if (n == 0) return tq_refuse_part("pre_tokenizer", "CharDelimiterSplit by an empty delimiter", err);
    return add_split(steps, json_string_value(text), n, true, TQ_SPLIT_REMOVED, false, err);
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
    else return tq_refuse_part("pre_tokenizer Metaspace prepend_scheme", name, err);
    if (!scheme && !old_prefix) prefix = TQ_PREFIX_NEVER;
    size_t n = json_string_length(mark);
    if (n == 0 || n > 4) return tq_refuse_part("pre_tokenizer Metaspace", "whose replacement is not one character", err);
    TQ_TRY(add_rewrite(steps, json_string_value(mark), n, prefix, err));
    if (!split) return TQ_OK;
    return add_split(steps, json_string_value(mark), n, true, TQ_SPLIT_MERGED_WITH_NEXT, false, err);
}

static tq_status read_pre_tokenizer(const json_t *json, tq_pre_steps *steps, bool *byte_level, int depth,
                                    tq_error *err) {
    const char *type;
    TQ_TRY(tq_member_type(json, "pre_tokenizer", &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TQ_TRY(tq_member_sequence(json, "pre_tokenizer", "pretokenizers", depth, &list, err));
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
    if (strcmp(type, "Whitespace") == 0) {
        return add_split(steps, words_pattern, strlen(words_pattern), false, TQ_SPLIT_REMOVED, true, err);
    }
    if (strcmp(type, "Punctuation") == 0) return read_punctuation(json, steps, err);
    if (strcmp(type, "BertPreTokenizer") == 0) {
        TQ_TRY(add_split(steps, "\\s", 2, false, TQ_SPLIT_REMOVED, false, err));
        return add_split(steps, punctuation_pattern, strlen(punctuation_pattern), false, TQ_SPLIT_ISOLATED, false, err);
    }
    if (strcmp(type, "CharDelimiterSplit") == 0) return read_delimiter(json, steps, err);
    return tq_refuse_part("pre_tokenizer", type, err);
}

tq_status tq_read_pre_tokenizer(const json_t *json, tq_pre_steps *steps, bool *byte_level, tq_error *err) {
    *byte_level = false;
    return !json || json_is_null(json) ? TQ_OK : read_pre_tokenizer(json, steps, byte_level, 0, err);
}
