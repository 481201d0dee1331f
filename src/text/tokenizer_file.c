/* tokenizer_file.c: the model and the added tokens of a tokenizer.json, and the pieces made from them.
 * The file is not trusted: ids are bounded and unique, merges name known tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template_value.h"
#include "text/tokenizer_parts.h"

/* One line of an error text: no control characters of the file in it. */
static const char *show(const char *text, size_t length, char shown[64]) {
    size_t n = length < 60 ? length : 60;
    for (size_t i = 0; i < n; i++) shown[i] = (uint8_t)text[i] < 0x20 ? '?' : text[i];
    shown[n] = '\0';
    return shown;
}

static tq_status read_id(const json_t *value, const char *name, size_t length, int32_t *id, tq_error *err) {
    char shown[64];
    if (!json_is_integer(value)) {
        return tq_fail(err, TQ_FORMAT, "the id of \"%s\" is not an integer", show(name, length, shown));
    }
    json_int_t number = json_integer_value(value);
    if (number < 0 || number > TQ_MAX_TOKEN_ID) {
        return tq_fail(err, TQ_FORMAT, "the id of \"%s\" is %lld (want 0 to %d)", show(name, length, shown),
                       (long long)number, TQ_MAX_TOKEN_ID);
    }
    *id = (int32_t)number;
    return TQ_OK;
}

/* Give a token its id.  names was sized beforehand, so that it does not move under the keys of the vocabulary. */
static tq_status place_token(tq_tokenizer *t, const char *name, size_t length, int32_t id, tq_error *err) {
    char shown[64], other[64];
    tq_token *token = &t->tokens[id];
    if (token->name) {
        return tq_fail(err, TQ_FORMAT, "\"%s\" and \"%s\" have the same id %d",
                       show(token->name, token->name_len, other), show(name, length, shown), (int)id);
    }
    const char *kept = t->names.data + t->names.n;
    TQ_TRY(tq_text_buf_add(&t->names, name, length, err));
    token->name = kept;
    token->name_len = (uint32_t)length;
    return tq_word_map_put(&t->bpe.vocab, kept, length, id, err);
}

/* The vocabulary of a Unigram: [[name, score], ...], by id. */
static tq_status check_scores(const json_t *vocab, tq_error *err) {
    if (json_array_size(vocab) > TQ_MAX_TOKEN_ID) {
        return tq_fail(err, TQ_FORMAT, "model Unigram: %zu tokens (want at most %d)", json_array_size(vocab), TQ_MAX_TOKEN_ID);
    }
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *entry = json_array_get(vocab, i), *name = json_array_get(entry, 0);
        if (json_array_size(entry) != 2 || !json_is_string(name) || json_string_length(name) == 0 ||
            !json_is_number(json_array_get(entry, 1))) {
            return tq_fail(err, TQ_FORMAT, "model Unigram: token %zu is not [\"text\", score]", i);
        }
        if (json_string_length(name) > TQ_MAX_SOUGHT_TOKEN) {
            return tq_fail(err, TQ_UNSUPPORTED, "model Unigram: token %zu is longer than %d bytes", i, TQ_MAX_SOUGHT_TOKEN);
        }
    }
    return TQ_OK;
}

/* Sizes of tokens and names. */
static tq_status measure(const json_t *vocab, const json_t *added, tq_tokenizer *t, tq_error *err) {
    size_t bytes = 1;
    int32_t id, largest = (int32_t)json_array_size(vocab) - 1;
    const char *name;
    const json_t *value;
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        bytes += json_string_length(json_array_get(json_array_get(vocab, i), 0));
    }
    json_object_foreach((json_t *)vocab, name, value) {
        size_t length = strlen(name);
        TQ_TRY(read_id(value, name, length, &id, err));
        bytes += length;
        if (id > largest) largest = id;
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i), *content;
        if (!json_is_object(token)) return tq_fail(err, TQ_FORMAT, "added_tokens: element %zu is not an object", i);
        TQ_TRY(tq_member_string(token, "added_tokens", "content", true, &content, err));
        size_t length = json_string_length(content);
        TQ_TRY(read_id(json_object_get(token, "id"), json_string_value(content), length, &id, err));
        bytes += length;
        if (id > largest) largest = id;
    }
    if (largest < 0) return tq_fail(err, TQ_FORMAT, "the vocabulary is empty");
    t->n_tokens = (size_t)largest + 1;
    t->tokens = calloc(t->n_tokens, sizeof *t->tokens);
    t->bpe.control = calloc(t->n_tokens, sizeof *t->bpe.control);
    if (!t->tokens || !t->bpe.control) return tq_fail_memory(err, t->n_tokens * sizeof *t->tokens, "the vocabulary");
    t->bpe.n_control = t->n_tokens;
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        if (json_is_true(json_object_get(token, "special"))) {
            t->bpe.control[json_integer_value(json_object_get(token, "id"))] = true;
        }
    }
    return tq_array_reserve(&t->names.data, 0, bytes, &t->names.cap, 1, "the vocabulary", err);
}

static tq_status read_vocab(const json_t *vocab, tq_tokenizer *t, tq_error *err) {
    const char *name;
    const json_t *value;
    json_object_foreach((json_t *)vocab, name, value) {
        TQ_TRY(place_token(t, name, strlen(name), (int32_t)json_integer_value(value), err));
    }
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        value = json_array_get(json_array_get(vocab, i), 0);
        if (tq_word_map_get(&t->bpe.vocab, json_string_value(value), json_string_length(value)) >= 0) {
            return tq_fail(err, TQ_FORMAT, "model Unigram: token %zu occurs twice", i);
        }
        TQ_TRY(place_token(t, json_string_value(value), json_string_length(value), (int32_t)i, err));
    }
    return TQ_OK;
}

/* The two halves of a merge: "a b" or ["a", "b"]. */
static tq_status read_halves(const json_t *merge, size_t number, const char *half[2], size_t length[2], tq_error *err) {
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge);
        size_t n = json_string_length(merge);
        const char *space = memchr(text, ' ', n);
        if (space && !memchr(space + 1, ' ', n - (size_t)(space + 1 - text))) {
            half[0] = text, length[0] = (size_t)(space - text);
            half[1] = space + 1, length[1] = n - length[0] - 1;
            return TQ_OK;
        }
    } else if (json_array_size(merge) == 2 && json_is_string(json_array_get(merge, 0)) &&
               json_is_string(json_array_get(merge, 1))) {
        for (size_t i = 0; i < 2; i++) {
            half[i] = json_string_value(json_array_get(merge, i));
            length[i] = json_string_length(json_array_get(merge, i));
        }
        return TQ_OK;
    }
    return tq_fail(err, TQ_FORMAT, "model BPE: merge %zu is neither \"a b\" nor [\"a\", \"b\"]", number);
}

static tq_status read_merges(const json_t *merges, tq_bpe *bpe, tq_error *err) {
    tq_text_buf joined = {0};
    tq_status status = TQ_OK;
    for (size_t i = 0; i < json_array_size(merges) && status == TQ_OK; i++) {
        const char *half[2], *unknown = NULL;
        size_t length[2], unknown_len = 0;
        status = read_halves(json_array_get(merges, i), i, half, length, err);
        if (status != TQ_OK) break;
        joined.n = 0;
        status = tq_text_buf_add(&joined, half[0], length[0], err);
        if (status == TQ_OK) status = tq_text_buf_add(&joined, half[1], length[1], err);
        if (status != TQ_OK) break;
        int32_t left = tq_word_map_get(&bpe->vocab, half[0], length[0]);
        int32_t right = tq_word_map_get(&bpe->vocab, half[1], length[1]);
        int32_t both = tq_word_map_get(&bpe->vocab, joined.data ? joined.data : "", joined.n);
        if (both < 0) unknown = joined.data ? joined.data : "", unknown_len = joined.n;
        if (right < 0) unknown = half[1], unknown_len = length[1];
        if (left < 0) unknown = half[0], unknown_len = length[0];
        if (unknown) {
            char shown[64];
            status = tq_fail(err, TQ_FORMAT, "model BPE: merge %zu names \"%s\", which is not in the vocabulary", i,
                             show(unknown, unknown_len, shown));
            break;
        }
        if (tq_bpe_is_control(bpe, both)) continue;
        uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
        status = tq_pair_map_put(&bpe->merges, key, both, (int32_t)i, err);
    }
    tq_text_buf_free(&joined);
    return status;
}

static void find_fallback_ids(const tq_word_map *vocab, int32_t ids[256]) {
    static const char digits[] = "0123456789ABCDEF";
    for (int byte = 0; byte < 256; byte++) {
        char code[6] = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
        ids[byte] = tq_word_map_get(vocab, code, sizeof code);
    }
}

static tq_status check_absent(const json_t *model, const char *name, tq_error *err) {
    const json_t *value;
    TQ_TRY(tq_member_string(model, "model BPE", name, false, &value, err));
    if (!value || json_string_length(value) == 0) return TQ_OK;
    return tq_fail(err, TQ_UNSUPPORTED, "model BPE: %s is not supported", name);
}

static tq_status read_options(const json_t *model, tq_tokenizer *t, tq_error *err) {
    tq_bpe *bpe = &t->bpe;
    const json_t *dropout = json_object_get(model, "dropout"), *unk;
    if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0.0)) {
        return tq_fail(err, TQ_UNSUPPORTED, "model BPE: dropout is not supported");
    }
    TQ_TRY(check_absent(model, "continuing_subword_prefix", err));
    TQ_TRY(check_absent(model, "end_of_word_suffix", err));
    TQ_TRY(tq_member_bool(model, "model BPE", "fuse_unk", false, &bpe->fuse_unk, err));
    TQ_TRY(tq_member_bool(model, "model BPE", "byte_fallback", false, &bpe->byte_fallback, err));
    TQ_TRY(tq_member_bool(model, "model BPE", "ignore_merges", false, &bpe->ignore_merges, err));
    TQ_TRY(tq_member_string(model, "model BPE", "unk_token", false, &unk, err));
    bpe->unk_id = -1;
    if (unk) {
        bpe->unk_id = tq_word_map_get(&bpe->vocab, json_string_value(unk), json_string_length(unk));
        if (bpe->unk_id < 0) return tq_fail(err, TQ_FORMAT, "model BPE: unk_token is not in the vocabulary");
    }
    if (bpe->byte_level && bpe->byte_fallback) {
        return tq_fail(err, TQ_UNSUPPORTED, "model BPE: byte_fallback with a ByteLevel pre_tokenizer is not supported");
    }
    for (int byte = 0; byte < 256; byte++) {
        char utf8[3];
        int n = tq_byte_level_char((uint8_t)byte, utf8);
        bpe->byte_ids[byte] = tq_word_map_get(&bpe->vocab, utf8, (size_t)n);
    }
    find_fallback_ids(&bpe->vocab, bpe->fallback_ids);
    return TQ_OK;
}

static tq_status read_bpe(const json_t *model, tq_tokenizer *t, tq_error *err) {
    TQ_TRY(read_merges(json_object_get(model, "merges"), &t->bpe, err));
    TQ_TRY(read_options(model, t, err));
    tq_bpe_find_words(&t->bpe, t->tokens);
    return TQ_OK;
}

/* A score as the reference reads it, whose reader of numbers rounds twice: the digits as an integer, then times a power of
 * ten.  The last bit decides between ways that sum up alike. */
static double read_score(double exact) {
    char text[40], power[16], *end;
    tq_float_repr(exact, text); /* the shortest that gives the number, which is what files have */
    uint64_t digits = 0;
    int exponent = 0;
    const char *c = text + (*text == '-');
    for (bool behind_point = false; (*c >= '0' && *c <= '9') || *c == '.'; c++) {
        if (*c == '.') behind_point = true;
        else digits = digits * 10 + (uint64_t)(*c - '0'), exponent -= behind_point;
    }
    if (*c == 'e') exponent += atoi(c + 1);
    snprintf(power, sizeof power, "1e%d", exponent < 0 ? -exponent : exponent);
    double size = tq_parse_double(power, &end), value = exponent < 0 ? (double)digits / size : (double)digits * size;
    return *text == '-' ? -value : value;
}

static tq_status read_unigram(const json_t *model, tq_tokenizer *t, tq_error *err) {
    const double unk_penalty = 10.0; /* below the least likely token: SentencePiece's constant */
    const json_t *vocab = json_object_get(model, "vocab"), *unk = json_object_get(model, "unk_id");
    tq_unigram *u = &t->unigram;
    double least = INFINITY;
    if (t->bpe.byte_level) return tq_fail(err, TQ_UNSUPPORTED, "model Unigram with a ByteLevel pre_tokenizer is not supported");
    TQ_TRY(tq_member_bool(model, "model Unigram", "byte_fallback", false, &u->byte_fallback, err));
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const tq_token *token = &t->tokens[i];
        double score = read_score(json_number_value(json_array_get(json_array_get(vocab, i), 1)));
        if (score < least) least = score;
        if (tq_bpe_is_control(&t->bpe, (int32_t)i)) continue;
        TQ_TRY(tq_unigram_put(u, token->name, token->name_len, (int32_t)i, score, err));
    }
    u->unk_id = -1;
    u->unk_score = least - unk_penalty;
    if (unk && !json_is_null(unk)) {
        json_int_t id = json_is_integer(unk) ? json_integer_value(unk) : -1;
        if (id < 0 || (size_t)id >= json_array_size(vocab)) {
            return tq_fail(err, TQ_FORMAT, "model Unigram: unk_id is no id of the vocabulary");
        }
        u->unk_id = (int32_t)id;
    }
    find_fallback_ids(&t->bpe.vocab, u->fallback_ids);
    t->is_unigram = true;
    return TQ_OK;
}

static tq_status read_added(const json_t *json, tq_tokenizer *t, tq_error *err) {
    static const char part[] = "added_tokens";
    const json_t *content;
    tq_added_token token = {0};
    bool normalized;
    TQ_TRY(tq_member_string(json, part, "content", true, &content, err));
    const char *text = json_string_value(content);
    size_t length = json_string_length(content);
    token.id = (int32_t)json_integer_value(json_object_get(json, "id"));
    TQ_TRY(tq_member_bool(json, part, "special", false, &token.special, err));
    TQ_TRY(tq_member_bool(json, part, "single_word", false, &token.single_word, err));
    TQ_TRY(tq_member_bool(json, part, "lstrip", false, &token.lstrip, err));
    TQ_TRY(tq_member_bool(json, part, "rstrip", false, &token.rstrip, err));
    TQ_TRY(tq_member_bool(json, part, "normalized", !token.special, &normalized, err));

    int32_t known = tq_word_map_get(&t->bpe.vocab, text, length);
    char shown[64];
    if (known >= 0 && known != token.id) {
        return tq_fail(err, TQ_FORMAT, "added_tokens: \"%s\" has the ids %d and %d", show(text, length, shown),
                       (int)known, (int)token.id);
    }
    if (known < 0) TQ_TRY(place_token(t, text, length, token.id, err));
    t->tokens[token.id].added = true;
    t->tokens[token.id].special |= token.special;
    tq_text_buf normal = {0};
    tq_status status = normalized ? tq_normalize(&t->normalizer, text, length, &normal, err) : TQ_OK;
    if (status == TQ_OK && (normalized ? normal.n : length) > TQ_MAX_SOUGHT_TOKEN) {
        status = tq_fail(err, TQ_UNSUPPORTED, "added_tokens: \"%s\" is longer than %d bytes", show(text, length, shown),
                         TQ_MAX_SOUGHT_TOKEN);
    }
    if (status == TQ_OK && !normalized) return tq_added_tokens_put(&t->added, &token, text, length, err);
    if (status == TQ_OK) status = tq_added_tokens_put(&t->added_normalized, &token, normal.data, normal.n, err);
    tq_text_buf_free(&normal);
    return status;
}

static int hex_value(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

/* The bytes of a token in running text. */
static tq_status make_piece(tq_tokenizer *t, tq_token *token, tq_text_buf *work, tq_error *err) {
    const char *name = token->name;
    size_t n = token->name_len;
    token->piece = t->pieces.n;
    TQ_TRY(tq_array_reserve(&work->data, 0, n + 1, &work->cap, 1, "a token", err));
    if (t->decode_byte_level && !token->added && tq_byte_level_decode(name, n, work->data, &work->n)) {
        TQ_TRY(tq_text_buf_add(&t->pieces, work->data, work->n, err));
    } else if (t->decode_byte_fallback && n == 6 && memcmp(name, "<0x", 3) == 0 && name[5] == '>' &&
               hex_value(name[3]) >= 0 && hex_value(name[4]) >= 0) {
        char byte = (char)(hex_value(name[3]) * 16 + hex_value(name[4]));
        TQ_TRY(tq_text_buf_add(&t->pieces, &byte, 1, err));
    } else if (t->decode_replace.n) {
        TQ_TRY(tq_normalize(&t->decode_replace, name, n, work, err));
        TQ_TRY(tq_text_buf_add(&t->pieces, work->data, work->n, err));
    } else {
        TQ_TRY(tq_text_buf_add(&t->pieces, name, n, err));
    }
    if (t->pieces.n > (size_t)1 << 30) return tq_fail(err, TQ_UNSUPPORTED, "the vocabulary is larger than 1 GiB");
    token->piece_len = (uint32_t)(t->pieces.n - token->piece);
    return TQ_OK;
}

/* Which kind of model, and whether its parts have the types that the rest relies on. */
static tq_status check_model(const json_t *model, const json_t *added_tokens, bool *unigram, tq_error *err) {
    const json_t *type;
    if (!json_is_object(model)) return tq_fail(err, TQ_FORMAT, "no object \"model\"");
    const json_t *vocab = json_object_get(model, "vocab");
    TQ_TRY(tq_member_string(model, "model", "type", false, &type, err));
    *unigram = type && strcmp(json_string_value(type), "Unigram") == 0;
    if (type && !*unigram && strcmp(json_string_value(type), "BPE") != 0) {
        return tq_refuse_part("model", json_string_value(type), err);
    }
    if (added_tokens && !json_is_null(added_tokens) && !json_is_array(added_tokens)) {
        return tq_fail(err, TQ_FORMAT, "added_tokens is not an array");
    }
    if (*unigram) {
        return json_is_array(vocab) ? check_scores(vocab, err) : tq_fail(err, TQ_FORMAT, "model Unigram: vocab is not an array");
    }
    if (!json_is_object(vocab)) return tq_fail(err, TQ_FORMAT, "model BPE: vocab is not an object");
    if (!json_is_array(json_object_get(model, "merges"))) return tq_fail(err, TQ_FORMAT, "model BPE: merges is not an array");
    return TQ_OK;
}

tq_status tq_read_model(const json_t *model, const json_t *added_tokens, tq_tokenizer *t, tq_error *err) {
    bool unigram = false;
    TQ_TRY(check_model(model, added_tokens, &unigram, err));
    TQ_TRY(measure(json_object_get(model, "vocab"), added_tokens, t, err));
    TQ_TRY(read_vocab(json_object_get(model, "vocab"), t, err));
    TQ_TRY(unigram ? read_unigram(model, t, err) : read_bpe(model, t, err));
    for (size_t i = 0; i < json_array_size(added_tokens); i++) {
        TQ_TRY(read_added(json_array_get(added_tokens, i), t, err));
    }
    tq_text_buf work = {0};
    tq_status status = TQ_OK;
    for (size_t i = 0; i < t->n_tokens && status == TQ_OK; i++) {
        if (t->tokens[i].name) status = make_piece(t, &t->tokens[i], &work, err);
    }
    tq_text_buf_free(&work);
    return status;
}
