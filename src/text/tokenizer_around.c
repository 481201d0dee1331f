/* tokenizer_around.c: the post_processor of a tokenizer.json: which tokens stand around a text that is a prompt.
 *     TemplateProcessing               its pattern for a single text: special tokens, and the text once
 *     BertProcessing, RobertaProcessing   cls and sep
 *     ByteLevel                        none: it corrects offsets
 *     Sequence                         the later around the earlier
 * What is not known here is refused by its name. */
#include <string.h>

#include "text/tokenizer_parts.h"

/* In front: the ids come before those that are there.  Behind: after them. */
static tq_status put_around(tq_around *around, bool front, const int32_t *ids, size_t n, const char *type, tq_error *err) {
    int32_t *to = front ? around->before : around->after;
    size_t *count = front ? &around->n_before : &around->n_after;
    if (n > TQ_MAX_AROUND - *count) {
        return tq_fail(err, TQ_UNSUPPORTED, "post_processor %s: more than %d tokens %s a text are not supported", type,
                       TQ_MAX_AROUND, front ? "before" : "after");
    }
    if (front) memmove(to + n, to, *count * sizeof *to);
    memcpy(front ? to : to + *count, ids, n * sizeof *to);
    *count += n;
    return TQ_OK;
}

static tq_status read_id(const json_t *value, const tq_tokenizer *t, const char *type, int32_t *id, tq_error *err) {
    if (!json_is_integer(value)) return tq_fail(err, TQ_FORMAT, "post_processor %s: an id is not an integer", type);
    json_int_t number = json_integer_value(value);
    if (number < 0 || number >= (json_int_t)t->n_tokens || !t->tokens[number].name) {
        return tq_fail(err, TQ_FORMAT, "post_processor %s: the id %lld is not in the vocabulary", type, (long long)number);
    }
    *id = (int32_t)number;
    return TQ_OK;
}

/* ---- TemplateProcessing ---- */

static const char TEMPLATE[] = "TemplateProcessing";

/* {"id": name} of a piece: special_tokens has its ids, which are added to side. */
static tq_status add_special(const json_t *piece, const json_t *special_tokens, const tq_tokenizer *t, tq_around *side,
                             tq_error *err) {
    const json_t *name;
    TQ_TRY(tq_member_string(piece, "post_processor TemplateProcessing: SpecialToken", "id", true, &name, err));
    const json_t *ids = json_object_get(json_object_get(special_tokens, json_string_value(name)), "ids");
    if (!json_is_array(ids)) {
        return tq_fail(err, TQ_FORMAT, "post_processor %s: special_tokens has no ids of %.60s", TEMPLATE,
                       json_string_value(name));
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        int32_t id = 0;
        TQ_TRY(read_id(json_array_get(ids, i), t, TEMPLATE, &id, err));
        TQ_TRY(put_around(side, false, &id, 1, TEMPLATE, err));
    }
    return TQ_OK;
}

static tq_status read_template(const json_t *json, tq_tokenizer *t, tq_error *err) {
    const json_t *pieces = json_object_get(json, "single"), *special = json_object_get(json, "special_tokens");
    tq_around sides[2] = {{.n_after = 0}}; /* before and after the text, both in .after */
    int texts = 0;
    if (!json_is_array(pieces)) return tq_fail(err, TQ_FORMAT, "post_processor %s: single is not an array", TEMPLATE);
    for (size_t i = 0; i < json_array_size(pieces); i++) {
        const json_t *piece = json_array_get(pieces, i), *name;
        const json_t *token = json_object_get(piece, "SpecialToken"), *text = json_object_get(piece, "Sequence");
        if (json_object_size(piece) != 1 || !json_is_object(token ? token : text)) {
            return tq_fail(err, TQ_FORMAT, "post_processor %s: piece %zu of single is neither SpecialToken nor Sequence",
                           TEMPLATE, i);
        }
        if (token) {
            TQ_TRY(add_special(token, special, t, &sides[texts > 0], err));
            continue;
        }
        TQ_TRY(tq_member_string(text, "post_processor TemplateProcessing: Sequence", "id", true, &name, err));
        if (strcmp(json_string_value(name), "A") != 0) {
            return tq_fail(err, TQ_FORMAT, "post_processor %s: single has Sequence %.20s (want A)", TEMPLATE,
                           json_string_value(name));
        }
        texts++;
    }
    if (texts != 1) {
        return tq_fail(err, TQ_UNSUPPORTED, "post_processor %s: single has the text %d times (want once)", TEMPLATE, texts);
    }
    TQ_TRY(put_around(&t->around, true, sides[0].after, sides[0].n_after, TEMPLATE, err));
    return put_around(&t->around, false, sides[1].after, sides[1].n_after, TEMPLATE, err);
}

/* ---- the others ---- */

/* "cls": ["<s>", 0], "sep": ["</s>", 2] */
static tq_status read_pair(const json_t *json, const char *type, tq_tokenizer *t, tq_error *err) {
    static const char *const names[] = {"cls", "sep"};
    for (int i = 0; i < 2; i++) {
        const json_t *pair = json_object_get(json, names[i]);
        int32_t id = 0;
        if (json_array_size(pair) != 2) {
            return tq_fail(err, TQ_FORMAT, "post_processor %s: %s is not [\"token\", id]", type, names[i]);
        }
        TQ_TRY(read_id(json_array_get(pair, 1), t, type, &id, err));
        TQ_TRY(put_around(&t->around, i == 0, &id, 1, type, err));
    }
    return TQ_OK;
}

static tq_status read_processor(const json_t *json, int depth, tq_tokenizer *t, tq_error *err) {
    const char *type;
    TQ_TRY(tq_member_type(json, "post_processor", &type, err));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TQ_TRY(tq_member_sequence(json, "post_processor", "processors", depth, &list, err));
        for (size_t i = 0; i < json_array_size(list); i++) {
            TQ_TRY(read_processor(json_array_get(list, i), depth + 1, t, err));
        }
        return TQ_OK;
    }
    if (strcmp(type, TEMPLATE) == 0) return read_template(json, t, err);
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0) return read_pair(json, type, t, err);
    return strcmp(type, "ByteLevel") == 0 ? TQ_OK : tq_refuse_part("post_processor", type, err);
}

tq_status tq_read_post_processor(const json_t *json, tq_tokenizer *t, tq_error *err) {
    return !json || json_is_null(json) ? TQ_OK : read_processor(json, 0, t, err);
}
