/* test_tokenizer.c: what must hold without another program to compare with: refusals, limits, control tokens.  That ids
 * agree with the reference implementation: tests/python/test_text.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "text/tokenizer.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static char *read_file(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    char *bytes = malloc(1 << 23);
    *n = fread(bytes, 1, 1 << 23, file);
    fclose(file);
    return bytes;
}

static tq_tokenizer *load_bookworm(void) {
    size_t n = 0;
    char *json = read_file(TQ_SOURCE_DIR "/models/bookworm/tokenizer.json", &n);
    assert_non_null(json);
    tq_tokenizer *tokenizer;
    tq_error err;
    assert_int_equal(tq_tokenizer_new(json, n, "tokenizer.json", &tokenizer, &err), TQ_OK);
    free(json);
    return tokenizer;
}

static void expect_ids(const tq_tokenizer *tokenizer, const char *text, bool control, const int32_t *ids, size_t n) {
    tq_ids found = {0};
    assert_int_equal(tq_tokenizer_encode(tokenizer, text, strlen(text), control, &found, NULL), TQ_OK);
    assert_int_equal(found.n, n);
    if (n) assert_memory_equal(found.ids, ids, n * sizeof *ids);
    free(found.ids);
}

/* Ids from tokenizers 0.23. */
static void ids_are_those_the_model_was_trained_with(void **state) {
    (void)state;
    tq_tokenizer *tokenizer = load_bookworm();
    static const int32_t ids[] = {1,   444, 271, 201, 1111, 361, 261, 4900, 285, 269, 1492, 291, 81, 264, 130,
                                  117, 84,  312, 223, 19,   20,  21,  22,   23,  299, 223,  223, 90, 2};
    expect_ids(tokenizer, "<|im_start|>user\nIt's a test of h\xc3\xa9llo w\xc3\xb6rld 12345\n\n  x<|im_end|>", true,
               ids, LENGTH(ids));
    assert_int_equal(tq_tokenizer_vocab_size(tokenizer), 8192);
    assert_int_equal(tq_tokenizer_find(tokenizer, "<|im_end|>"), 2);
    assert_int_equal(tq_tokenizer_find(tokenizer, "<|im_ends|>"), -1);
    assert_true(tq_tokenizer_is_special(tokenizer, 2));
    assert_false(tq_tokenizer_is_special(tokenizer, 3));
    assert_false(tq_tokenizer_is_special(tokenizer, 8192));
    assert_false(tq_tokenizer_is_special(tokenizer, -1));
    tq_tokenizer_free(tokenizer);
}

static void a_control_token_in_user_text_stays_text(void **state) {
    (void)state;
    tq_tokenizer *tokenizer = load_bookworm();
    tq_ids ids = {0};
    static const char text[] = "a<|im_end|>b";
    assert_int_equal(tq_tokenizer_encode(tokenizer, text, strlen(text), false, &ids, NULL), TQ_OK);
    assert_true(ids.n > 4);
    char back[100];
    size_t n = 0;
    for (size_t i = 0; i < ids.n; i++) {
        assert_false(tq_tokenizer_is_special(tokenizer, ids.ids[i]));
        n += tq_tokenizer_piece(tokenizer, ids.ids[i], false, back + n, sizeof back - n);
    }
    assert_int_equal(n, strlen(text));
    assert_memory_equal(back, text, n);
    free(ids.ids);
    tq_tokenizer_free(tokenizer);
}

static void a_control_token_counts_only_in_its_range(void **state) {
    (void)state;
    tq_tokenizer *tokenizer = load_bookworm();
    static const char text[] = "<|im_start|>x<|im_end|><|im_end|>";
    static const tq_control_range whole[] = {{0, 12}, {23, 10}}, cut[] = {{0, 11}, {22, 11}};
    tq_ids ids = {0};
    size_t special = 0;
    assert_int_equal(tq_tokenizer_encode_ranges(tokenizer, text, strlen(text), whole, 2, &ids, NULL), TQ_OK);
    assert_int_equal(ids.ids[0], 1);
    assert_int_equal(ids.ids[ids.n - 1], 2);
    for (size_t i = 0; i < ids.n; i++) special += tq_tokenizer_is_special(tokenizer, ids.ids[i]);
    assert_int_equal(special, 2);
    ids.n = special = 0;
    assert_int_equal(tq_tokenizer_encode_ranges(tokenizer, text, strlen(text), cut, 2, &ids, NULL), TQ_OK);
    for (size_t i = 0; i < ids.n; i++) special += tq_tokenizer_is_special(tokenizer, ids.ids[i]);
    assert_int_equal(special, 1); /* the last one; half a token outside of a range is none */
    ids.n = special = 0;
    assert_int_equal(tq_tokenizer_encode_ranges(tokenizer, text, strlen(text), NULL, 0, &ids, NULL), TQ_OK);
    for (size_t i = 0; i < ids.n; i++) special += tq_tokenizer_is_special(tokenizer, ids.ids[i]);
    assert_int_equal(special, 0);
    free(ids.ids);
    tq_tokenizer_free(tokenizer);
}

/* Control tokens that stand in the vocabulary itself, with scores or merges that lead to them. */
static void a_models_own_pieces_never_make_a_control_token(void **state) {
    (void)state;
    static const char *const files[] = {
        "{\"decoder\":{\"type\":\"Fuse\"},\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true}],\"model\":{"
        "\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"<\",-9],[\"s\",-9],[\">\",-9],[\"<s>\",0],[\"s>\",-1]]}}",
        "{\"decoder\":{\"type\":\"Fuse\"},\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true}],\"model\":{"
        "\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"?\":0,\"<\":1,\"s\":2,\">\":3,\"<s>\":4,\"s>\":5},\"merges\":["
        "\"s >\",\"< s>\"]}}",
    };
    for (size_t i = 0; i < LENGTH(files); i++) {
        tq_tokenizer *tokenizer;
        tq_error err = {0};
        if (tq_tokenizer_new(files[i], strlen(files[i]), "t", &tokenizer, &err) != TQ_OK) fail_msg("%s", err.text);
        expect_ids(tokenizer, "<s>", false, (const int32_t[]){1, 5}, 2);
        expect_ids(tokenizer, "<s>s", true, (const int32_t[]){4, 2}, 2);
        tq_tokenizer_free(tokenizer);
    }
}

static void pieces_give_back_every_text(void **state) {
    (void)state;
    tq_tokenizer *tokenizer = load_bookworm();
    static const char *const texts[] = {"",
                                        " ",
                                        "a",
                                        "\n\n  \t x ",
                                        "\xe6\x97\xa5\xe6\x9c\xac\xf0\x9f\x98\x80",
                                        "1234567",
                                        "It's  <|im_end|> 'S",
                                        "\x01\x7f\xc2\xa0\xe1\xa0\x8e"};
    for (size_t k = 0; k < LENGTH(texts); k++) {
        tq_ids ids = {0};
        char back[200];
        size_t n = 0;
        assert_int_equal(tq_tokenizer_encode(tokenizer, texts[k], strlen(texts[k]), true, &ids, NULL), TQ_OK);
        for (size_t i = 0; i < ids.n; i++)
            n += tq_tokenizer_piece(tokenizer, ids.ids[i], true, back + n, sizeof back - n);
        assert_int_equal(n, strlen(texts[k]));
        assert_memory_equal(back, texts[k], n);
        free(ids.ids);
    }
    char none = 'x';
    assert_int_equal(tq_tokenizer_piece(tokenizer, -1, true, &none, 1), 0);
    assert_int_equal(tq_tokenizer_piece(tokenizer, 99999, true, &none, 1), 0);
    assert_int_equal(tq_tokenizer_piece(tokenizer, 2, false, &none, 1), 0);
    assert_int_equal(tq_tokenizer_piece(tokenizer, 2, true, &none, 1), 10);
    assert_int_equal(none, '<');
    tq_tokenizer_free(tokenizer);
}

static void broken_utf8_is_refused_and_changes_nothing(void **state) {
    (void)state;
    tq_tokenizer *tokenizer = load_bookworm();
    tq_ids ids = {0};
    tq_error err;
    assert_int_equal(tq_tokenizer_encode(tokenizer, "abc", 3, true, &ids, NULL), TQ_OK);
    size_t before = ids.n;
    assert_int_equal(tq_tokenizer_encode(tokenizer, "ab\xc3(", 4, true, &ids, &err), TQ_INVALID);
    assert_non_null(strstr(err.text, "byte 2"));
    assert_int_equal(ids.n, before);
    free(ids.ids);
    tq_tokenizer_free(tokenizer);
}

/* Quadratic merging would take minutes. */
static void a_megabyte_without_spaces_takes_no_ages(void **state) {
    (void)state;
    tq_tokenizer *tokenizer = load_bookworm();
    enum { n = 1 << 20 };
    char *text = malloc(n);
    for (size_t i = 0; i < n; i++) text[i] = "theandingtionsthere"[i % 19];
    tq_ids ids = {0};
    clock_t start = clock();
    assert_int_equal(tq_tokenizer_encode(tokenizer, text, n, true, &ids, NULL), TQ_OK);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    assert_true(ids.n > n / 20 && ids.n < n / 2);
    if (seconds > 10) fail_msg("%.1f s", seconds);
    free(ids.ids);
    free(text);
    tq_tokenizer_free(tokenizer);
}

/* ---- refusals ---- */

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"
#define LEVEL "\"decoder\":{\"type\":\"ByteLevel\"},"

#define UNIGRAM(vocab, unk) "\"model\":{\"type\":\"Unigram\",\"vocab\":[" vocab "],\"unk_id\":" unk "}"
#define MAP(base64) "{" LEVEL "\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"" base64 "\"}," MODEL "}"

static void expect_refusal(const char *json, tq_status status, const char *part) {
    tq_tokenizer *tokenizer = NULL;
    tq_error err = {0};
    tq_status found = tq_tokenizer_new(json, strlen(json), "tokenizer.json", &tokenizer, &err);
    if (found != status || tokenizer || !strstr(err.text, part) || strncmp(err.text, "tokenizer.json: ", 16) != 0) {
        fail_msg("%s\n  gives %d: %s", json, (int)found, err.text);
    }
}

static void what_is_not_supported_is_named(void **state) {
    (void)state;
    static const struct {
        const char *json, *part;
    } files[] = {
        {"{" LEVEL "\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}," MODEL "}",
         "pre_tokenizer UnicodeScripts is not supported"},
        {"{" LEVEL "\"normalizer\":{\"type\":\"BertNormalizer\"}," MODEL "}", "normalizer BertNormalizer is not supported"},
        {"{" LEVEL "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]}," MODEL "}",
         "normalizer Nmt"},
        {"{" LEVEL "\"post_processor\":{\"type\":\"Nonsense\"}," MODEL "}", "post_processor Nonsense"},
        {"{\"decoder\":{\"type\":\"WordPiece\"}," MODEL "}", "decoder WordPiece"},
        {"{" MODEL "}", "decoder null"},
        {"{" LEVEL "\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "model WordPiece is not supported"},
        {"{" LEVEL "\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}}", "model WordLevel is not supported"},
        {"{" LEVEL "\"pre_tokenizer\":{\"type\":\"ByteLevel\"}," UNIGRAM("[\"a\",0]", "0") "}", "Unigram with a ByteLevel"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}", "dropout"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"vocab\":{\"a\":0},\"merges\":[]}}",
         "end_of_word_suffix"},
        {"{" LEVEL "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
         "\"Digits\"}]}," MODEL "}",
         "Digits after ByteLevel"},
    };
    for (size_t i = 0; i < LENGTH(files); i++) expect_refusal(files[i].json, TQ_UNSUPPORTED, files[i].part);
}

/* Each of these compiles in PCRE2 but cuts differently there. */
static void a_regex_that_two_engines_read_differently_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *regex, *part;
    } patterns[] = {{"[a&&[^b]]", "&&"},     {"[[:alpha:]]", "POSIX"},
                    {"\\\\h+", "\\h"},       {"\\\\R", "\\R"},
                    {"\\\\X", "\\X"},        {"\\\\bx", "\\b"},
                    {"\\\\w+", "\\w"},       {"[\\\\w]", "\\w"},
                    {"(?m:a)", "(?m:"},      {"a(?i)b", "(?i)"},
                    {"[a[b]]", "class"},     {"(a)\\\\1", "\\1"},
                    {"\\\\p{Nonsense}", ""}, {"(", ""},
                    {"[a", "without end"},   {"a{2}?", "quantifier"},
                    {"(?<n>a)", "(?<n"},     {"\\\\", "trailing"},
                    {"\\\\p{", "\\p"},       {"\\\\K", "\\K"},
                    {"(*UCP)a", "(*"},       {"a{x", "{"},
                    {"\\\\x{110000}", ""},   {"[]a]", "]"}};
    for (size_t i = 0; i < LENGTH(patterns); i++) {
        char json[400];
        snprintf(json, sizeof json,
                 "{" LEVEL
                 "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"Isolated\"}"
                 "," MODEL "}",
                 patterns[i].regex);
        expect_refusal(json, TQ_UNSUPPORTED, patterns[i].part);
    }
}

static void a_lying_file_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *json, *part;
    } files[] = {
        {"", "line 1"},
        {"{", "line 1"},
        {"[]", "not a JSON object"},
        {"{" LEVEL "\"x\":1}", "model"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"merges\":[]}}", "vocab"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "merges"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "empty"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "the id of \"a\" is -1"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":10000001},\"merges\":[]}}", "10000001"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":9223372036854775807},\"merges\":[]}}", "the id of"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", "not an integer"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "same id 0"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}", "\"ab\""},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a c\"]}}", "\"c\""},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "merge 0"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b c\"]}}", "merge 0"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]}}", "merge 0"},
        {"{" LEVEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"x\"}}", "unk_token"},
        {"{" LEVEL UNIGRAM("", "0") "}", "empty"},
        {"{" LEVEL UNIGRAM("[\"a\"]", "0") "}", "token 0 is not"},
        {"{" LEVEL UNIGRAM("[\"a\",0],[\"\",0]", "0") "}", "token 1 is not"},
        {"{" LEVEL UNIGRAM("[\"a\",0],[\"b\",\"c\"]", "0") "}", "token 1 is not"},
        {"{" LEVEL UNIGRAM("[\"a\",0],[\"a\",1]", "0") "}", "token 1 occurs twice"},
        {"{" LEVEL UNIGRAM("[\"a\",0]", "1") "}", "unk_id"},
        {"{" LEVEL UNIGRAM("[\"a\",0]", "\"a\"") "}", "unk_id"},
        {"{" LEVEL "\"model\":{\"type\":\"Unigram\",\"vocab\":{\"a\":0}}}", "not an array"},
        {MAP("a"), "base 64"},
        {MAP("====x"), "base 64"},
        {MAP("AAAA"), "a tree of"},             /* three bytes */
        {MAP("AAAAAAAA"), "a tree of 0 bytes"}, /* no tree */
        {MAP("CAAAAAAAAAA="), "a tree of 8 bytes in a table of 8"},
        {MAP("BAAAAAAAAAD/"), "not UTF-8"},
        {"{" LEVEL "\"added_tokens\":5," MODEL "}", "added_tokens"},
        {"{" LEVEL "\"added_tokens\":[{\"id\":3}]," MODEL "}", "content"},
        {"{" LEVEL "\"added_tokens\":[{\"id\":3,\"content\":7}]," MODEL "}", "content"},
        {"{" LEVEL "\"added_tokens\":[{\"content\":\"x\"}]," MODEL "}", "the id of \"x\""},
        {"{" LEVEL "\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]," MODEL "}", "same id 1"},
        {"{" LEVEL "\"added_tokens\":[{\"id\":9,\"content\":\"a\"}]," MODEL "}", "ids 0 and 9"},
        {"{" LEVEL "\"added_tokens\":[{\"id\":9,\"content\":\"x\",\"special\":1}]," MODEL "}", "special"},
        {"{" LEVEL "\"pre_tokenizer\":{\"type\":3}," MODEL "}", "type"},
        {"{" LEVEL "\"pre_tokenizer\":{\"type\":\"Sequence\"}," MODEL "}", "pretokenizers"},
        {"{" LEVEL "\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\"}," MODEL "}", "pattern"},
    };
    for (size_t i = 0; i < LENGTH(files); i++) expect_refusal(files[i].json, TQ_FORMAT, files[i].part);
}

static void deep_nesting_does_not_end_the_process(void **state) {
    (void)state;
    enum { depth = 100000 };
    char *json = malloc(depth * 2 + 1), *sequences = malloc(1000 * 60);
    memset(json, '[', depth);
    memset(json + depth, ']', depth);
    json[2 * depth] = '\0';
    expect_refusal(json, TQ_FORMAT, "");
    strcpy(sequences, "{\"normalizer\":");
    for (int i = 0; i < 500; i++) strcat(sequences, "{\"type\":\"Sequence\",\"normalizers\":[");
    strcat(sequences, "{\"type\":\"NFC\"}");
    for (int i = 0; i < 500; i++) strcat(sequences, "]}");
    strcat(sequences, "," LEVEL MODEL "}");
    expect_refusal(sequences, TQ_UNSUPPORTED, "nested too deeply");
    free(json);
    free(sequences);
}

/* ---- tokens around a prompt ---- */

#define AROUND(processor) "{" LEVEL "\"post_processor\":" processor "," MODEL "}"
#define SPECIAL(ids) "\"special_tokens\":{\"x\":{\"id\":\"x\",\"ids\":[" ids "],\"tokens\":[]}}"
#define X "{\"SpecialToken\":{\"id\":\"x\",\"type_id\":0}}"
#define A "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"
#define TEMPLATE(single, ids) "{\"type\":\"TemplateProcessing\",\"single\":[" single "]," SPECIAL(ids) "}"
#define PAIR(cls, sep) "{\"type\":\"RobertaProcessing\",\"cls\":" cls ",\"sep\":" sep "}"

static void a_lying_post_processor_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *json;
        tq_status status;
        const char *part;
    } files[] = {
        {AROUND("3"), TQ_FORMAT, "post_processor is not an object"},
        {AROUND("{\"type\":\"Sequence\"}"), TQ_FORMAT, "processors"},
        {AROUND("{\"type\":\"TemplateProcessing\"}"), TQ_FORMAT, "single is not an array"},
        {AROUND(TEMPLATE("7", "0")), TQ_FORMAT, "piece 0 of single"},
        {AROUND(TEMPLATE(X ",{\"SpecialToken\":1}", "0")), TQ_FORMAT, "piece 1 of single"},
        {AROUND(TEMPLATE("{\"Sequence\":{\"type_id\":0}}", "0")), TQ_FORMAT, "no member id"},
        {AROUND(TEMPLATE("{\"Sequence\":{\"id\":\"B\"}}", "0")), TQ_FORMAT, "Sequence B (want A)"},
        {AROUND(TEMPLATE(X, "0")), TQ_UNSUPPORTED, "the text 0 times"},
        {AROUND(TEMPLATE(A "," A, "0")), TQ_UNSUPPORTED, "the text 2 times"},
        {AROUND(TEMPLATE("{\"SpecialToken\":{\"id\":\"z\"}}," A, "0")), TQ_FORMAT, "no ids of z"},
        {AROUND(TEMPLATE(X "," A, "3")), TQ_FORMAT, "the id 3 is not in the vocabulary"},
        {AROUND(TEMPLATE(X "," A, "-1")), TQ_FORMAT, "the id -1"},
        {AROUND(TEMPLATE(X "," A, "4294967296")), TQ_FORMAT, "the id 4294967296"},
        {AROUND(TEMPLATE(X "," A, "\"0\"")), TQ_FORMAT, "not an integer"},
        {AROUND(TEMPLATE(X "," A, "0,0,0,0,0,0,0,0,0")), TQ_UNSUPPORTED, "more than 8 tokens"},
        {AROUND(TEMPLATE(A "," X, "0,0,0,0,0,0,0,0,0")), TQ_UNSUPPORTED, "more than 8 tokens"},
        {AROUND("{\"type\":\"Sequence\",\"processors\":[" TEMPLATE(X "," A, "0,0,0,0,0,0,0,0") ","
                PAIR("[\"a\",0]", "[\"b\",1]") "]}"),
         TQ_UNSUPPORTED, "RobertaProcessing: more than 8 tokens before"},
        {AROUND("{\"type\":\"BertProcessing\",\"cls\":[\"a\",0]}"), TQ_FORMAT, "BertProcessing: sep is not"},
        {AROUND(PAIR("[\"a\"]", "[\"b\",1]")), TQ_FORMAT, "RobertaProcessing: cls is not"},
        {AROUND(PAIR("[\"a\",0]", "[\"b\",9]")), TQ_FORMAT, "the id 9"},
    };
    for (size_t i = 0; i < LENGTH(files); i++) expect_refusal(files[i].json, files[i].status, files[i].part);
}

static void expect_prompt(const tq_tokenizer *tokenizer, const char *text, bool control, const int32_t *ids, size_t n) {
    tq_ids found = {0};
    assert_int_equal(tq_tokenizer_encode_prompt(tokenizer, text, strlen(text), control, &found, NULL), TQ_OK);
    assert_int_equal(found.n, n);
    assert_memory_equal(found.ids, ids, n * sizeof *ids);
    free(found.ids);
}

static void a_prompt_has_the_tokens_around_it_once(void **state) {
    (void)state;
    static const char json[] =
        "{" LEVEL "\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true},"
        "{\"id\":4,\"content\":\"<t>\",\"special\":true}],"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" X "," A "," X "],"
        "\"special_tokens\":{\"x\":{\"id\":\"x\",\"ids\":[3,4],\"tokens\":[]}}}," MODEL "}";
    tq_tokenizer *tokenizer;
    tq_error err = {0};
    tq_ids ids = {0};
    if (tq_tokenizer_new(json, strlen(json), "t", &tokenizer, &err) != TQ_OK) fail_msg("%s", err.text);
    expect_prompt(tokenizer, "", false, (int32_t[]){3, 4, 3, 4}, 4);
    expect_prompt(tokenizer, "ab", true, (int32_t[]){3, 4, 2, 3, 4}, 5);
    expect_prompt(tokenizer, "<s><t>ab", true, (int32_t[]){3, 4, 2, 3, 4}, 5);
    expect_prompt(tokenizer, "<s><t>", true, (int32_t[]){3, 4, 3, 4}, 4);
    expect_prompt(tokenizer, "<s>ab", true, (int32_t[]){3, 4, 3, 2, 3, 4}, 6);
    /* what is there stays, also after a failure */
    assert_int_equal(tq_tokenizer_encode(tokenizer, "ab", 2, false, &ids, &err), TQ_OK);
    assert_int_equal(tq_tokenizer_encode_prompt(tokenizer, "\xff", 1, false, &ids, &err), TQ_INVALID);
    assert_int_equal(ids.n, 1);
    assert_int_equal(tq_tokenizer_encode_prompt(tokenizer, "<s><t>b", 7, true, &ids, &err), TQ_OK);
    assert_int_equal(ids.n, 6);
    assert_memory_equal(ids.ids, ((int32_t[]){2, 3, 4, 1, 3, 4}), 6 * sizeof *ids.ids);
    free(ids.ids);
    tq_tokenizer_free(tokenizer);
}

/* A pattern that backtracks without end is stopped, with a text. */
/* Each step doubles the text, or every place of the text begins a long token. */
static void a_text_that_grows_without_end_is_stopped(void **state) {
    (void)state;
    static char json[40000];
    tq_tokenizer *tokenizer;
    tq_error err = {0};
    tq_ids ids = {0};
    size_t n = (size_t)sprintf(json, "{" LEVEL "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 60; i++) {
        n += (size_t)sprintf(json + n, "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aa\"}",
                             i ? "," : "");
    }
    sprintf(json + n, "]}," MODEL "}");
    assert_int_equal(tq_tokenizer_new(json, strlen(json), "t", &tokenizer, &err), TQ_OK);
    assert_int_equal(tq_tokenizer_encode(tokenizer, "b", 1, false, &ids, &err), TQ_OK);
    assert_int_equal(tq_tokenizer_encode(tokenizer, "a", 1, false, &ids, &err), TQ_INVALID);
    assert_non_null(strstr(err.text, "grows"));
    assert_int_equal(ids.n, 1);
    free(ids.ids);
    tq_tokenizer_free(tokenizer);
    char name[1100];
    memset(name, 'a', sizeof name);
    snprintf(json, sizeof json, "{" LEVEL MODEL ",\"added_tokens\":[{\"id\":3,\"content\":\"%.1025s\"}]}", name);
    expect_refusal(json, TQ_UNSUPPORTED, "longer than 1024 bytes");
    snprintf(json, sizeof json, "{" LEVEL "\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"%.1025s\",0]]}}", name);
    expect_refusal(json, TQ_UNSUPPORTED, "longer than 1024 bytes");
}

static void a_pattern_that_never_ends_is_stopped(void **state) {
    (void)state;
    static const char json[] =
        "{" LEVEL "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a|aa)+[xy]\"},"
        "\"behavior\":\"Isolated\"}," MODEL "}";
    tq_tokenizer *tokenizer;
    tq_error err;
    tq_ids ids = {0};
    char text[200];
    memset(text, 'a', sizeof text);
    assert_int_equal(tq_tokenizer_new(json, strlen(json), "x", &tokenizer, &err), TQ_OK);
    assert_int_equal(tq_tokenizer_encode(tokenizer, text, sizeof text, true, &ids, &err), TQ_INVALID);
    assert_non_null(strstr(err.text, "regular expression"));
    free(ids.ids);
    tq_tokenizer_free(tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_the_model_was_trained_with),
        cmocka_unit_test(a_control_token_in_user_text_stays_text),
        cmocka_unit_test(a_control_token_counts_only_in_its_range),
        cmocka_unit_test(a_models_own_pieces_never_make_a_control_token),
        cmocka_unit_test(pieces_give_back_every_text),
        cmocka_unit_test(broken_utf8_is_refused_and_changes_nothing),
        cmocka_unit_test(a_megabyte_without_spaces_takes_no_ages),
        cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(a_regex_that_two_engines_read_differently_is_refused),
        cmocka_unit_test(a_lying_file_is_refused),
        cmocka_unit_test(deep_nesting_does_not_end_the_process),
        cmocka_unit_test(a_lying_post_processor_is_refused),
        cmocka_unit_test(a_prompt_has_the_tokens_around_it_once),
        cmocka_unit_test(a_text_that_grows_without_end_is_stopped),
        cmocka_unit_test(a_pattern_that_never_ends_is_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
