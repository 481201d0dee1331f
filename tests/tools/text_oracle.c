/* text_oracle.c: the tokenizer and the template engine as a filter, for tests that compare them with other programs.
 *
 * Reads requests from stdin: a letter, a 32-bit length (this machine's byte order), that many bytes.
 *   L tokenizer.json            make a tokenizer of it
 *   G GGUF file                 make one of its vocabulary
 *   E flags, text               ids, as 32-bit integers; flags is a byte, 1: control tokens are recognised, 2: as a prompt
 *   B n, text                   processor seconds of encoding it, the fastest of n times, as a double
 *   D ids                       the bytes of these tokens, control tokens included
 *   S n, n x (start, length), text   ids, control tokens only within the ranges
 *   C n, directory of n bytes, conversation as JSON   ids of tq_chat_tokens_json with that model
 *   P n, directory of n bytes, text                    ids of tq_tokenize_prompt with it
 *   T n, template of n bytes, context as JSON   the text, preceded by n, n x (length, from_template)
 * Answers each with a 32-bit status (0: done), a 32-bit length and that many bytes: the result or an error text. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <turboquant/tq.h>

#include "engine/gguf_text.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

static void answer(uint32_t status, const void *head, size_t n_head, const void *body, size_t n_body) {
    uint32_t sizes[2] = {status, (uint32_t)(n_head + n_body)};
    fwrite(sizes, sizeof sizes, 1, stdout);
    if (n_head) fwrite(head, n_head, 1, stdout);
    if (n_body) fwrite(body, n_body, 1, stdout);
}

static void answer_error(tq_status status, const tq_error *err) {
    answer((uint32_t)status, NULL, 0, err->text, strlen(err->text));
}

static uint32_t read_u32(const char *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void answer_ids(tq_status status, tq_ids *ids, const tq_error *err) {
    if (status != TQ_OK) answer_error(status, err);
    else answer(0, NULL, 0, ids->ids, ids->n * sizeof *ids->ids);
    free(ids->ids);
}

static void encode(const tq_tokenizer *tokenizer, const char *bytes, size_t n) {
    tq_ids ids = {0};
    tq_error err;
    bool control = bytes[0] & 1;
    tq_status status = bytes[0] & 2 ? tq_tokenizer_encode_prompt(tokenizer, bytes + 1, n - 1, control, &ids, &err)
                                    : tq_tokenizer_encode(tokenizer, bytes + 1, n - 1, control, &ids, &err);
    answer_ids(status, &ids, &err);
}

static double processor_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void time_encoding(const tq_tokenizer *tokenizer, const char *bytes, size_t n) {
    double best = 1e9;
    for (uint32_t i = 0; i < read_u32(bytes); i++) {
        tq_ids ids = {0};
        tq_error err;
        double start = processor_seconds();
        tq_status status = tq_tokenizer_encode(tokenizer, bytes + 4, n - 4, false, &ids, &err);
        double seconds = processor_seconds() - start;
        free(ids.ids);
        if (status != TQ_OK) {
            answer_error(status, &err);
            return;
        }
        if (seconds < best) best = seconds;
    }
    answer(0, &best, sizeof best, NULL, 0);
}

static void encode_ranges(const tq_tokenizer *tokenizer, const char *bytes, size_t n) {
    tq_ids ids = {0};
    tq_error err;
    size_t n_ranges = read_u32(bytes), head = 4 + 8 * n_ranges;
    tq_control_range *ranges = calloc(n_ranges + 1, sizeof *ranges);
    for (size_t i = 0; i < n_ranges; i++) {
        ranges[i] = (tq_control_range){read_u32(bytes + 4 + 8 * i), read_u32(bytes + 8 + 8 * i)};
    }
    tq_status status = tq_tokenizer_encode_ranges(tokenizer, bytes + head, n - head, ranges, n_ranges, &ids, &err);
    answer_ids(status, &ids, &err);
    free(ranges);
}

static void decode(const tq_tokenizer *tokenizer, const char *bytes, size_t n) {
    char *text = malloc(n * 256 + 1);
    size_t length = 0;
    for (size_t i = 0; i + 4 <= n; i += 4) {
        size_t piece = tq_tokenizer_piece(tokenizer, (int32_t)read_u32(bytes + i), true, text + length, 1024);
        length += piece < 1024 ? piece : 1024;
    }
    answer(0, NULL, 0, text, length);
    free(text);
}

static void render(const char *bytes, size_t n) {
    tq_error err = {0};
    tq_chat_template *tmpl;
    tq_chat_text text = {0};
    uint32_t length = read_u32(bytes);
    json_error_t place;
    json_t *context = json_loadb(bytes + 4 + length, n - 4 - length, JSON_ALLOW_NUL, &place);
    tq_status status = tq_chat_template_new(bytes + 4, length, &tmpl, &err);
    if (status == TQ_OK) status = tq_chat_template_render(tmpl, context, &text, &err);
    if (status != TQ_OK) {
        answer_error(status, &err);
    } else {
        uint32_t *head = malloc((1 + 2 * text.n_spans) * sizeof *head);
        head[0] = (uint32_t)text.n_spans;
        for (size_t i = 0; i < text.n_spans; i++) {
            head[1 + 2 * i] = (uint32_t)text.spans[i].length;
            head[2 + 2 * i] = text.spans[i].from_template;
        }
        answer(0, head, (1 + 2 * text.n_spans) * sizeof *head, text.text, text.length);
        free(head);
    }
    json_decref(context);
    tq_chat_text_free(&text);
    tq_chat_template_free(tmpl);
}

/* n, directory of n bytes, a conversation or a prompt: its ids with that model. */
static void ask_model(const char *bytes, size_t n, bool conversation) {
    tq_error err;
    tq_ids ids = {0};
    tq_model *model = NULL;
    uint32_t length = read_u32(bytes);
    char *directory = strndup(bytes + 4, length);
    tq_status status = tq_model_open(directory, NULL, &model, &err);
    bytes += 4 + length, n -= 4 + length;
    if (status == TQ_OK)
        status = conversation ? tq_chat_tokens_json(model, bytes, n, 0, &ids.ids, &ids.n, &err)
                              : tq_tokenize_prompt(model, bytes, n, false, &ids.ids, &ids.n, &err);
    answer_ids(status, &ids, &err);
    tq_model_free(model);
    free(directory);
}

static tq_status make_from_gguf(const char *bytes, size_t n, tq_tokenizer **out, tq_error *err) {
    tq_gguf gguf;
    *out = NULL;
    tq_status status = tq_gguf_parse(bytes, n, "file.gguf", &gguf, err);
    if (status != TQ_OK) return status;
    status = tq_gguf_tokenizer(&gguf, out, err);
    tq_gguf_free(&gguf);
    return status;
}

int main(void) {
    tq_tokenizer *tokenizer = NULL;
    char letter;
    uint32_t n;
    while (fread(&letter, 1, 1, stdin) == 1 && fread(&n, sizeof n, 1, stdin) == 1) {
        char *bytes = malloc((size_t)n + 1);
        if (!bytes || (n && fread(bytes, n, 1, stdin) != 1)) return 1;
        if (letter == 'L' || letter == 'G') {
            tq_error err;
            tq_tokenizer_free(tokenizer);
            tq_status status = letter == 'L' ? tq_tokenizer_new(bytes, n, "tokenizer.json", &tokenizer, &err)
                                             : make_from_gguf(bytes, n, &tokenizer, &err);
            if (status != TQ_OK) answer_error(status, &err);
            else answer(0, NULL, 0, NULL, 0);
        } else if (letter == 'E' && tokenizer) {
            encode(tokenizer, bytes, n);
        } else if (letter == 'B' && tokenizer && n >= 4) {
            time_encoding(tokenizer, bytes, n);
        } else if (letter == 'S' && tokenizer) {
            encode_ranges(tokenizer, bytes, n);
        } else if (letter == 'D' && tokenizer) {
            decode(tokenizer, bytes, n);
        } else if (letter == 'C' || letter == 'P') {
            ask_model(bytes, n, letter == 'C');
        } else if (letter == 'T') {
            render(bytes, n);
        } else {
            return 1;
        }
        free(bytes);
    }
    tq_tokenizer_free(tokenizer);
    return 0;
}
