/* tokenizer.c: see tokenizer.h.
 * Owns: the pipeline from text to ids, and the lookups.  Not here: reading the file (tokenizer_file.c,
 * tokenizer_steps.c, tokenizer_around.c), the steps themselves (added_tokens.c, normalize.c, pretokenize.c, bpe.c,
 * unigram.c). */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/tokenizer_parts.h"

enum {
    cache_slots = 4096, /* pieces remembered within a call: words come again and again */
    cache_from = 2048,  /* bytes of text from which the cache pays for itself */
    cache_longest = 64,
    max_text = 1 << 30
};

static tq_status read_parts(const json_t *root, tq_tokenizer *t, tq_error *err) {
    bool byte_level;
    if (!json_is_object(root)) return tq_fail(err, TQ_FORMAT, "not a JSON object");
    TQ_TRY(tq_read_normalizer(json_object_get(root, "normalizer"), &t->normalizer, err));
    TQ_TRY(tq_read_pre_tokenizer(json_object_get(root, "pre_tokenizer"), &t->pre, &byte_level, err));
    TQ_TRY(tq_read_decoder(json_object_get(root, "decoder"), t, err));
    t->bpe.byte_level = byte_level;
    TQ_TRY(tq_read_model(json_object_get(root, "model"), json_object_get(root, "added_tokens"), t, err));
    return tq_read_post_processor(json_object_get(root, "post_processor"), t, err);
}

tq_status tq_tokenizer_from_json(const json_t *root, const char *label, tq_tokenizer **out, tq_error *err) {
    *out = NULL;
    tq_error inner = {0};
    tq_tokenizer *t = calloc(1, sizeof *t);
    tq_status status = t ? read_parts(root, t, &inner) : tq_fail_memory(&inner, sizeof *t, "a tokenizer");
    if (status == TQ_OK) {
        *out = t;
        return TQ_OK;
    }
    tq_tokenizer_free(t);
    return tq_fail(err, status, "%s: %s", label, inner.text);
}

tq_status tq_tokenizer_new(const char *json, size_t json_len, const char *label, tq_tokenizer **out, tq_error *err) {
    *out = NULL;
    if (json_len > max_text) return tq_fail(err, TQ_UNSUPPORTED, "%s: larger than 1 GiB", label);
    json_error_t place;
    json_t *root = json_loadb(json, json_len, JSON_ALLOW_NUL, &place);
    if (!root) return tq_fail(err, TQ_FORMAT, "%s: line %d: %s", label, place.line, place.text);
    tq_status status = tq_tokenizer_from_json(root, label, out, err);
    json_decref(root);
    return status;
}

void tq_tokenizer_free(tq_tokenizer *t) {
    if (!t) return;
    free(t->tokens);
    tq_text_buf_free(&t->names);
    tq_text_buf_free(&t->pieces);
    tq_norm_steps_free(&t->normalizer);
    tq_norm_steps_free(&t->decode_replace);
    tq_pre_steps_free(&t->pre);
    tq_word_map_free(&t->bpe.vocab);
    tq_pair_map_free(&t->bpe.merges);
    tq_unigram_free(&t->unigram);
    free(t->bpe.control);
    tq_added_tokens_free(&t->added);
    tq_added_tokens_free(&t->added_normalized);
    free(t);
}

/* ---- encoding ---- */

/* A piece seen before in this stretch of text, and where its ids stand in the output. */
typedef struct seen_piece {
    const char *text;
    size_t first_id;
    uint32_t length, n_ids, hash, stretch;
} seen_piece;

typedef struct encoder {
    const tq_tokenizer *tokenizer;
    bool parse_control;
    const tq_control_range *ranges; /* NULL: parse_control holds everywhere */
    size_t n_ranges;
    tq_regex_scratch *regex;
    tq_bpe_scratch bpe;
    tq_unigram_scratch unigram;
    tq_pieces pieces;
    tq_text_buf normal;
    seen_piece *seen; /* (cache_slots), direct-mapped; NULL until a long text comes */
    uint32_t stretch; /* entries of other stretches point to text that is gone */
    tq_ids *out;
    tq_error *err;
} encoder;

static tq_status add_id(encoder *e, int32_t id) {
    TQ_TRY(tq_array_reserve(&e->out->ids, e->out->n, 1, &e->out->cap, sizeof id, "token ids", e->err));
    e->out->ids[e->out->n++] = id;
    return TQ_OK;
}

static tq_status run_model(encoder *e, const char *piece, size_t length) {
    const tq_tokenizer *t = e->tokenizer;
    return t->is_unigram ? tq_unigram_encode(&t->unigram, &e->unigram, piece, length, e->out, e->err)
                         : tq_bpe_encode(&t->bpe, &e->bpe, piece, length, e->out, e->err);
}

static tq_status encode_piece(encoder *e, const char *piece, size_t length) {
    tq_ids *out = e->out;
    if (!e->seen || length > cache_longest) return run_model(e, piece, length);
    uint32_t hash = tq_bytes_hash(piece, length);
    seen_piece *slot = &e->seen[hash % cache_slots];
    if (slot->stretch == e->stretch && slot->hash == hash && slot->length == length &&
        memcmp(slot->text, piece, length) == 0) {
        TQ_TRY(tq_array_reserve(&out->ids, out->n, slot->n_ids, &out->cap, sizeof *out->ids, "token ids", e->err));
        if (slot->n_ids) memcpy(out->ids + out->n, out->ids + slot->first_id, slot->n_ids * sizeof *out->ids);
        out->n += slot->n_ids;
        return TQ_OK;
    }
    size_t first = out->n;
    TQ_TRY(run_model(e, piece, length));
    *slot = (seen_piece){piece, first, (uint32_t)length, (uint32_t)(out->n - first), hash, e->stretch};
    return TQ_OK;
}

/* Text that holds no added token, normalised. */
static tq_status encode_plain(encoder *e, const char *text, size_t length, bool at_start) {
    if (length == 0) return TQ_OK;
    if (!e->seen && length >= cache_from) {
        e->seen = calloc(cache_slots, sizeof *e->seen);
        if (!e->seen) return tq_fail_memory(e->err, cache_slots * sizeof *e->seen, "pieces");
    }
    e->stretch++;
    TQ_TRY(tq_pretokenize(&e->tokenizer->pre, e->regex, text, length, at_start, &e->pieces, e->err));
    for (size_t i = 0; i < e->pieces.n; i++) {
        tq_piece piece = e->pieces.pieces[i];
        for (size_t word; piece.length; piece.start += word, piece.length -= word) {
            const char *start = e->pieces.text.data + piece.start;
            word = tq_bpe_word_length(&e->tokenizer->bpe, start, piece.length);
            TQ_TRY(encode_piece(e, start, word));
        }
    }
    return TQ_OK;
}

/* Normalising moves bytes, so ranges do not reach behind it: there special tokens count only in a stretch that is
 * control text as a whole. */
static bool all_control(const encoder *e, size_t start, size_t length) {
    if (!e->ranges) return e->parse_control;
    for (size_t i = 0; i < e->n_ranges; i++) {
        if (start >= e->ranges[i].start && start + length <= e->ranges[i].start + e->ranges[i].length) return true;
    }
    return false;
}

/* Text between two tokens that are looked for before normalising; it is at `offset` of the whole. */
static tq_status encode_raw(encoder *e, const char *text, size_t length, size_t offset) {
    const tq_tokenizer *t = e->tokenizer;
    bool at_start = offset == 0;
    if (length == 0) return TQ_OK;
    bool control = t->added_normalized.n && all_control(e, offset, length);
    if (t->normalizer.n) {
        TQ_TRY(tq_normalize(&t->normalizer, text, length, &e->normal, e->err));
        text = e->normal.data, length = e->normal.n;
    }
    tq_added_walk walk = {.text = text, .length = length, .with_special = control, .scratch = e->regex};
    for (int32_t id = 0; id >= 0;) {
        size_t start, end;
        TQ_TRY(tq_added_walk_next(&t->added_normalized, &walk, &start, &end, &id, e->err));
        TQ_TRY(encode_plain(e, text + start, end - start, at_start && start == 0));
        if (id >= 0) TQ_TRY(add_id(e, id));
    }
    return TQ_OK;
}

static tq_status encode(encoder *e, const char *text, size_t length) {
    tq_added_walk walk = {.text = text, .length = length, .with_special = e->parse_control};
    walk.ranges = e->ranges, walk.n_ranges = e->n_ranges;
    TQ_TRY(tq_regex_scratch_new(&e->regex, e->err));
    walk.scratch = e->regex;
    for (int32_t id = 0; id >= 0;) {
        size_t start, end;
        TQ_TRY(tq_added_walk_next(&e->tokenizer->added, &walk, &start, &end, &id, e->err));
        TQ_TRY(encode_raw(e, text + start, end - start, start));
        if (id >= 0) TQ_TRY(add_id(e, id));
    }
    return TQ_OK;
}

static tq_status run_encoder(encoder *e, const char *text, size_t text_len) {
    tq_ids *out = e->out;
    tq_error *err = e->err;
    if (text_len == 0) return TQ_OK;
    if (text_len > max_text) return tq_fail(err, TQ_INVALID, "text of %zu bytes (at most 1 GiB)", text_len);
    size_t valid = tq_utf8_valid_prefix(text, text_len);
    if (valid < text_len) return tq_fail(err, TQ_INVALID, "text is not valid UTF-8 at byte %zu", valid);
    size_t before = out->n;
    tq_status status = encode(e, text, text_len);
    if (status != TQ_OK) out->n = before;
    tq_regex_scratch_free(e->regex);
    tq_bpe_scratch_free(&e->bpe);
    tq_unigram_scratch_free(&e->unigram);
    tq_pieces_free(&e->pieces);
    tq_text_buf_free(&e->normal);
    free(e->seen);
    return status;
}

tq_status tq_tokenizer_encode(const tq_tokenizer *tokenizer, const char *text, size_t text_len, bool parse_control,
                              tq_ids *out, tq_error *err) {
    encoder e = {.tokenizer = tokenizer, .parse_control = parse_control, .out = out, .err = err};
    return run_encoder(&e, text, text_len);
}

tq_status tq_tokenizer_encode_prompt(const tq_tokenizer *tokenizer, const char *text, size_t text_len, bool parse_control,
                                     tq_ids *out, tq_error *err) {
    const tq_around *around = &tokenizer->around;
    size_t start = out->n, n = around->n_before, n_after = around->n_after;
    TQ_TRY(tq_array_reserve(&out->ids, out->n, n, &out->cap, sizeof *out->ids, "token ids", err));
    if (n) memcpy(out->ids + start, around->before, n * sizeof *out->ids);
    out->n += n;
    tq_status status = tq_tokenizer_encode(tokenizer, text, text_len, parse_control, out, err);
    if (status == TQ_OK)
        status = tq_array_reserve(&out->ids, out->n, n_after, &out->cap, sizeof *out->ids, "token ids", err);
    if (status != TQ_OK) {
        out->n = start;
        return status;
    }
    if (n_after) memcpy(out->ids + out->n, around->after, n_after * sizeof *out->ids);
    size_t n_text = out->n - start - n;
    out->n += n_after;
    if (!parse_control || n == 0 || n_text < n) return TQ_OK;
    int32_t *ids = out->ids + start;
    if (memcmp(ids, ids + n, n * sizeof *ids) != 0) return TQ_OK;
    out->n -= n; /* the text has them itself */
    memmove(ids, ids + n, (out->n - start) * sizeof *ids);
    return TQ_OK;
}

const int32_t *tq_tokenizer_prefix(const tq_tokenizer *tokenizer, size_t *n) {
    *n = tokenizer->around.n_before;
    return tokenizer->around.before;
}

const int32_t *tq_tokenizer_suffix(const tq_tokenizer *tokenizer, size_t *n) {
    *n = tokenizer->around.n_after;
    return tokenizer->around.after;
}

const char *tq_tokenizer_kind(const tq_tokenizer *t) {
    if (t->is_unigram) return "Unigram";
    if (t->bpe.byte_level) return "byte-level BPE";
    if (t->by_score) return "SentencePiece BPE";
    return t->bpe.byte_fallback ? "BPE of characters with byte fallback" : "BPE of characters";
}

size_t tq_tokenizer_merges(const tq_tokenizer *t) { return t->is_unigram ? 0 : t->bpe.merges.n; }

int tq_tokenizer_added(const tq_tokenizer *t) {
    int n = 0;
    for (size_t id = 0; id < t->n_tokens; id++) n += t->tokens[id].added;
    return n;
}

tq_status tq_tokenizer_encode_ranges(const tq_tokenizer *tokenizer, const char *text, size_t text_len,
                                     const tq_control_range *ranges, size_t n_ranges, tq_ids *out, tq_error *err) {
    encoder e = {.tokenizer = tokenizer, .parse_control = n_ranges > 0, .out = out, .err = err};
    e.ranges = n_ranges ? ranges : NULL, e.n_ranges = n_ranges;
    return run_encoder(&e, text, text_len);
}

/* ---- lookups ---- */

static const tq_token *find_token(const tq_tokenizer *t, int32_t id) {
    return id >= 0 && (size_t)id < t->n_tokens && t->tokens[id].name ? &t->tokens[id] : NULL;
}

size_t tq_tokenizer_piece(const tq_tokenizer *tokenizer, int32_t id, bool with_control, char *dst, size_t cap) {
    const tq_token *token = find_token(tokenizer, id);
    if (!token || (token->special && !with_control)) return 0;
    size_t n = token->piece_len < cap ? token->piece_len : cap;
    if (n) memcpy(dst, tokenizer->pieces.data + token->piece, n);
    return token->piece_len;
}

int32_t tq_tokenizer_find(const tq_tokenizer *tokenizer, const char *content) {
    return tq_word_map_get(&tokenizer->bpe.vocab, content, strlen(content));
}

int tq_tokenizer_vocab_size(const tq_tokenizer *tokenizer) { return (int)tokenizer->n_tokens; }

bool tq_tokenizer_is_special(const tq_tokenizer *tokenizer, int32_t id) {
    const tq_token *token = find_token(tokenizer, id);
    return token && token->special;
}
