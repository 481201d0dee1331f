/* gguf_text.c: GGUF's vocabulary as what a tokenizer.json of the same model says, so that there is one tokenizer.
 *     gpt2    byte-level BPE: tokens, merges, and the name of a pre-tokenizer
 *     llama   SentencePiece BPE: tokens and scores; spaces are U+2581, unknown characters fall back to bytes */
#include "engine/gguf_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/pre_tokenizer_names.h"

/* "tokenizer.ggml.token_type" */
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

typedef struct vocabulary {
    const tq_gguf *gguf;
    tq_error *err;
    tq_gguf_string *tokens, *merges; /* merges: NULL for llama */
    size_t n, n_merges;
    const tq_gguf_entry *types, *scores; /* NULL: absent */
    int64_t unknown_id;                  /* -1: none */
    bool add_bos;                        /* where the file does not say; as llama.cpp has it, like the ids */
    int64_t bos_id, eos_id;              /* likewise; -1: none */
} vocabulary;

static tq_status no_memory(const vocabulary *v) {
    return tq_fail(v->err, TQ_NO_MEMORY, "%s: out of memory for %zu tokens", v->gguf->label, v->n);
}

static int64_t type_of(const vocabulary *v, size_t id) { return v->types ? tq_gguf_integer_at(v->types, id) : NORMAL; }

static bool is_added(int64_t type) { return type == UNKNOWN || type == CONTROL || type == USER_DEFINED; }

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static tq_status read_column(const vocabulary *v, const char *key, bool integers, const tq_gguf_entry **out) {
    *out = tq_gguf_find(v->gguf, key);
    if (!*out) return TQ_OK;
    bool numbers = integers ? tq_gguf_is_integer((*out)->type) : (*out)->type == TQ_GGUF_F32;
    if ((*out)->is_array && numbers && (*out)->n == v->n) return TQ_OK;
    return tq_fail(v->err, TQ_FORMAT, "%s: %s: want an array of %zu %s", v->gguf->label, key, v->n,
                   integers ? "integers" : "f32");
}

static tq_status read_vocabulary(vocabulary *v, bool merges) {
    TQ_TRY(tq_gguf_strings(v->gguf, "tokenizer.ggml.tokens", &v->tokens, &v->n, v->err));
    TQ_TRY(read_column(v, "tokenizer.ggml.token_type", true, &v->types));
    TQ_TRY(read_column(v, "tokenizer.ggml.scores", false, &v->scores));
    bool found;
    TQ_TRY(tq_gguf_integer(v->gguf, "tokenizer.ggml.unknown_token_id", 0, INT32_MAX, &found, &v->unknown_id, v->err));
    if (!merges) {
        if (v->scores) return TQ_OK;
        return tq_fail(v->err, TQ_FORMAT, "%s: metadata tokenizer.ggml.scores is missing", v->gguf->label);
    }
    return tq_gguf_strings(v->gguf, "tokenizer.ggml.merges", &v->merges, &v->n_merges, v->err);
}

/* ---- as JSON ------------------------------------------------------------------------------------------------------- */

/* vocab and added_tokens.  Control tokens are never made of pieces, so they are added ones; so are those of a user. */
static tq_status pack_tokens(const vocabulary *v, json_t *vocab, json_t *added) {
    for (size_t id = 0; id < v->n; id++) {
        tq_gguf_string token = v->tokens[id];
        if (token.length == 0 || memchr(token.text, 0, token.length))
            return tq_fail(v->err, TQ_FORMAT, "%s: token %zu is empty or has a NUL in it", v->gguf->label, id);
        if (json_object_getn(vocab, token.text, token.length))
            return tq_fail(v->err, TQ_FORMAT, "%s: token %zu, \"%.*s\", occurs twice", v->gguf->label, id,
                           (int)(token.length < 60 ? token.length : 60), token.text);
        if (json_object_setn_new(vocab, token.text, token.length, json_integer((json_int_t)id)) != 0)
            return tq_fail(v->err, TQ_FORMAT, "%s: token %zu is not UTF-8", v->gguf->label, id);
        int64_t type = type_of(v, id);
        if (!is_added(type)) continue;
        json_t *entry = json_pack("{s:I, s:o, s:b, s:b}", "id", (json_int_t)id, "content",
                                  json_stringn(token.text, token.length), "special", type != USER_DEFINED, "normalized", 0);
        if (!entry || json_array_append_new(added, entry) != 0) return no_memory(v);
    }
    return TQ_OK;
}

static tq_status pack_merges(const vocabulary *v, json_t *merges) {
    for (size_t i = 0; i < v->n_merges; i++) {
        json_t *merge = json_stringn(v->merges[i].text, v->merges[i].length);
        if (!merge) return tq_fail(v->err, TQ_FORMAT, "%s: merge %zu is not UTF-8", v->gguf->label, i);
        if (json_array_append_new(merges, merge) != 0) return no_memory(v);
    }
    return TQ_OK;
}

/* The steps around the model, of a byte-level BPE. */
static json_t *pack_byte_level(const tq_pre_tokenizer *pre) {
    json_t *steps = json_array();
    for (size_t i = 0; i < sizeof pre->patterns / sizeof *pre->patterns && pre->patterns[i]; i++)
        json_array_append_new(steps, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                               pre->patterns[i], "behavior", "Isolated", "invert", 0));
    json_array_append_new(steps, json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "use_regex",
                                           pre->gpt2_pattern));
    json_t *normalizer = pre->normalizer ? json_pack("{s:s}", "type", pre->normalizer) : json_null();
    return json_pack("{s:o, s:{s:s, s:o}, s:{s:s}, s:{s:s, s:b}}", "normalizer", normalizer, "pre_tokenizer", "type",
                     "Sequence", "pretokenizers", steps, "decoder", "type", "ByteLevel", "model", "type", "BPE",
                     "ignore_merges", pre->ignore_merges);
}

/* The same of a SentencePiece BPE. */
static json_t *pack_sentencepiece(const vocabulary *v, bool space_prefix) {
    static const char space[] = "\xe2\x96\x81";
    json_t *steps = json_array();
    if (space_prefix) json_array_append_new(steps, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", space));
    json_array_append_new(steps, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content",
                                           space));
    json_t *root = json_pack("{s:{s:s, s:o}, s:{s:s, s:[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]}, s:{s:s, s:b, s:b}}",
                             "normalizer", "type", "Sequence", "normalizers", steps, "decoder", "type", "Sequence",
                             "decoders", "type", "Replace", "pattern", "String", space, "content", " ", "type",
                             "ByteFallback", "type", "Fuse", "model", "type", "BPE", "byte_fallback", 1, "fuse_unk", 1);
    if (root && v->unknown_id >= 0 && (size_t)v->unknown_id < v->n)
        json_object_set_new(json_object_get(root, "model"), "unk_token",
                            json_stringn(v->tokens[v->unknown_id].text, v->tokens[v->unknown_id].length));
    return root;
}

/* ---- tokens around a prompt ---------------------------------------------------------------------------------------- */

/* One end of a prompt: the keys that say whether it has a token and which, and what holds without them. */
typedef struct prompt_end {
    const char *add_key, *id_key;
    bool add;
    int64_t id; /* -1: none */
} prompt_end;

/* id -1: the file wants no token there.  A file that wants one and does not say which is refused; where only the
 * pre-tokenizer's name wants one, it has none. */
static tq_status read_prompt_end(const vocabulary *v, prompt_end *end) {
    bool asked, found;
    TQ_TRY(tq_gguf_boolean(v->gguf, end->add_key, &asked, &end->add, v->err));
    if (!end->add) {
        end->id = -1;
        return TQ_OK;
    }
    TQ_TRY(tq_gguf_integer(v->gguf, end->id_key, 0, (int64_t)v->n - 1, &found, &end->id, v->err));
    if (!found && end->id >= (int64_t)v->n) end->id = -1;
    if (end->id >= 0 || !asked) return TQ_OK;
    return tq_fail(v->err, TQ_FORMAT, "%s: %s is true, but metadata %s is missing", v->gguf->label, end->add_key,
                   end->id_key);
}

static bool pack_piece(json_t *pieces, const char *kind, const char *id) {
    return json_array_append_new(pieces, json_pack("{s:{s:s, s:i}}", kind, "id", id, "type_id", 0)) == 0;
}

static bool pack_end(const prompt_end *end, json_t *pieces, json_t *special) {
    if (end->id < 0) return true;
    json_t *token = json_pack("{s:s, s:[I], s:[s]}", "id", end->id_key, "ids", (json_int_t)end->id, "tokens", end->id_key);
    return json_object_set_new(special, end->id_key, token) == 0 && pack_piece(pieces, "SpecialToken", end->id_key);
}

static tq_status pack_prompt_ends(const vocabulary *v, json_t *root) {
    prompt_end bos = {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", v->add_bos, v->bos_id};
    prompt_end eos = {"tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", false, v->eos_id};
    TQ_TRY(read_prompt_end(v, &bos));
    TQ_TRY(read_prompt_end(v, &eos));
    if (bos.id < 0 && eos.id < 0) return TQ_OK;
    json_t *pieces = json_array(), *special = json_object();
    bool packed = pack_end(&bos, pieces, special) && pack_piece(pieces, "Sequence", "A") && pack_end(&eos, pieces, special);
    json_t *processor = json_pack("{s:s, s:o, s:o}", "type", "TemplateProcessing", "single", pieces, "special_tokens",
                                  special);
    return json_object_set_new(root, "post_processor", processor) == 0 && packed ? TQ_OK : no_memory(v);
}

/* ---- the two kinds ------------------------------------------------------------------------------------------------- */

/* root, which is taken, with the vocabulary -> a tokenizer. */
static tq_status make(const vocabulary *v, json_t *root, tq_tokenizer **out) {
    json_t *model = json_object_get(root, "model"), *vocab = json_object(), *merges = json_array(), *added = json_array();
    bool packed = model && json_object_set_new(model, "vocab", vocab) == 0 &&
                  json_object_set_new(model, "merges", merges) == 0 && json_object_set_new(root, "added_tokens", added) == 0;
    tq_status status = packed ? pack_tokens(v, vocab, added) : no_memory(v);
    if (status == TQ_OK) status = pack_merges(v, merges);
    if (status == TQ_OK) status = pack_prompt_ends(v, root);
    if (status == TQ_OK) status = tq_tokenizer_from_json(root, v->gguf->label, out, v->err);
    json_decref(root);
    return status;
}

static tq_status open_byte_level(vocabulary *v, tq_tokenizer **out) {
    tq_gguf_string name;
    TQ_TRY(tq_gguf_text(v->gguf, "tokenizer.ggml.pre", NULL, &name, v->err));
    const tq_pre_tokenizer *pre = tq_pre_tokenizer_by_name(name.text, name.length);
    if (!pre)
        return tq_fail(v->err, TQ_UNSUPPORTED, "%s: tokenizer.ggml.pre: pre-tokenizer \"%.*s\" is not supported",
                       v->gguf->label, (int)(name.length < 60 ? name.length : 60), name.text);
    v->add_bos = pre->add_bos;
    TQ_TRY(read_vocabulary(v, true));
    return make(v, pack_byte_level(pre), out);
}

static tq_status merge_by_score(const vocabulary *v, tq_tokenizer *tokenizer) {
    float *scores = malloc((v->n + 1) * sizeof *scores);
    bool *merges = malloc((v->n + 1) * sizeof *merges);
    tq_status status = scores && merges ? TQ_OK : no_memory(v);
    for (size_t id = 0; id < v->n && status == TQ_OK; id++) {
        int64_t type = type_of(v, id);
        scores[id] = (float)tq_gguf_number_at(v->scores, id);
        merges[id] = type == NORMAL || type == USER_DEFINED;
        if (scores[id] != scores[id])
            status = tq_fail(v->err, TQ_FORMAT, "%s: the score of token %zu is not a number", v->gguf->label, id);
    }
    if (status == TQ_OK) status = tq_tokenizer_merge_by_score(tokenizer, scores, merges, v->err);
    free(scores);
    free(merges);
    return status;
}

static tq_status open_sentencepiece(vocabulary *v, tq_tokenizer **out) {
    bool found, space_prefix = true;
    TQ_TRY(tq_gguf_boolean(v->gguf, "tokenizer.ggml.add_space_prefix", &found, &space_prefix, v->err));
    v->add_bos = true, v->bos_id = 1, v->eos_id = 2;
    TQ_TRY(read_vocabulary(v, false));
    TQ_TRY(make(v, pack_sentencepiece(v, space_prefix), out));
    return merge_by_score(v, *out);
}

tq_status tq_gguf_tokenizer(const tq_gguf *gguf, tq_tokenizer **out, tq_error *err) {
    static const struct {
        const char *name;
        tq_status (*open)(vocabulary *v, tq_tokenizer **out);
    } kinds[] = {{"gpt2", open_byte_level}, {"llama", open_sentencepiece}};
    tq_gguf_string model;
    bool found;
    *out = NULL;
    TQ_TRY(tq_gguf_text(gguf, "tokenizer.ggml.model", &found, &model, err));
    if (!found) return TQ_OK;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strlen(kinds[i].name) != model.length || memcmp(kinds[i].name, model.text, model.length) != 0) continue;
        vocabulary v = {.gguf = gguf, .err = err, .unknown_id = -1, .bos_id = -1, .eos_id = -1};
        tq_status status = kinds[i].open(&v, out);
        free(v.tokens);
        free(v.merges);
        if (status != TQ_OK) {
            tq_tokenizer_free(*out);
            *out = NULL;
        }
        return status;
    }
    return tq_fail(err, TQ_UNSUPPORTED, "%s: tokenizer.ggml.model: \"%.*s\" is not supported: want gpt2 or llama",
                   gguf->label, (int)(model.length < 60 ? model.length : 60), model.text);
}
