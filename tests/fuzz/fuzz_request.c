/* fuzz_request.c: what comes over a socket: bodies of every kind, Host, Origin, Authorization, and replies that are split
 * into thoughts and words.  The first byte chooses. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/server/fields.h"
#include "../../tools/server/gen_request.h"
#include "../../tools/server/http_checks.h"
#include "../../tools/server/reasoning_split.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void want(bool condition) {
    if (!condition) abort();
}

static void parse_request(gen_kind kind, const char *text, size_t n) {
    const gen_limits limits = {.sampling = tq_sampling_default(), .vocab = 8192, .max_choices = 16, .max_values = 4096};
    gen_request r;
    api_error error = {0};
    if (gen_request_parse(kind, text, n, &limits, &r, &error)) {
        want(r.n >= 1 && r.n <= limits.max_choices && r.n_stops <= TQ_MAX_STOPS && r.n_logprobs <= TQ_MAX_LOGPROBS);
        want(r.sampling.temp >= 0 && r.sampling.temp <= 2 && r.sampling.top_p >= 0 && r.sampling.top_p <= 1);
        want(kind == GEN_CHAT ? json_array_size(r.messages) > 0 : r.prompt != NULL);
        for (int i = 0; i < r.sampling.n_biases; i++)
            want(r.sampling.biases[i].id >= 0 && r.sampling.biases[i].id < limits.vocab);
    } else {
        want(error.status >= 400 && error.message[0]);
    }
    jout j = {0};
    api_error_write(&j, &error); /* a refusal is JSON, whatever was refused */
    json_t *object = json_loadb(j.data, j.length, 0, NULL);
    want(object != NULL);
    json_decref(object);
    free(j.data);
    gen_request_free(&r);
}

/* Pieces of a reply, cut anywhere, give the same two texts as the whole. */
typedef struct split_text {
    char text[2][4096];
    size_t n[2];
} split_text;

static void collect(void *ctx, bool thought, const char *text, size_t n) {
    split_text *s = ctx;
    want(s->n[thought] + n <= sizeof s->text[thought]);
    memcpy(s->text[thought] + s->n[thought], text, n);
    s->n[thought] += n;
}

static void split_reply(const char *text, size_t n) {
    if (n == 0 || n > 4096) return;
    size_t step = (unsigned char)text[0] % 16 + 1;
    static split_text whole, pieces;
    whole.n[0] = whole.n[1] = pieces.n[0] = pieces.n[1] = 0;
    reasoning_split a = {0}, b = {0};
    a.marks = b.marks = &reasoning_formats[(unsigned char)text[0] >> 5 & 3];
    a.state = b.state = text[0] & 16 ? REASONING_OPENED : REASONING_START;
    reasoning_push(&a, text, n, collect, &whole);
    reasoning_finish(&a, collect, &whole);
    for (size_t i = 0; i < n; i += step) reasoning_push(&b, text + i, n - i < step ? n - i : step, collect, &pieces);
    reasoning_finish(&b, collect, &pieces);
    for (int k = 0; k < 2; k++) want(whole.n[k] == pieces.n[k] && memcmp(whole.text[k], pieces.text[k], whole.n[k]) == 0);
    want(whole.n[0] + whole.n[1] <= n);
    reasoning_is_open(a.marks, text, n);
}

static void read_headers(const char *text, size_t n) {
    const char *part;
    size_t part_n;
    if (find_bearer(text, n, &part, &part_n)) want(part >= text && part + part_n <= text + n && part_n > 0);
    if (find_host(text, n, &part, &part_n)) {
        want(part >= text && part + part_n <= text + n && part_n > 0);
        want(!is_loopback_name(part, part_n) || !is_numeric_host(part, part_n) || part[0] == '1' || part[0] == ':');
    }
    if (find_origin_host(text, n, &part, &part_n)) want(part > text && part + part_n <= text + n);
    size_t half = n / 2;
    if (origin_is_host(text, half, text + half, n - half)) want(half > n - half);
    static word_list list;
    memset(&list, 0, sizeof list);
    if (word_list_add(&list, text, half, ",\n", true)) {
        for (int i = 0; i < list.n; i++) want(keys_match(&list, list.words[i], strlen(list.words[i])));
        bool known = word_list_has(&list, text + half, n - half, false);
        want(keys_match(&list, text + half, n - half) == known);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    size_t n = size - 1;
    char *text = malloc(n ? n : 1); /* its own: reading past its end is seen */
    if (!text) return 0;
    memcpy(text, data + 1, n);
    switch (data[0] % 4) {
    case 0: parse_request(GEN_CHAT, text, n); break;
    case 1: parse_request(GEN_TEXT, text, n); break;
    case 2: split_reply(text, n); break;
    default: read_headers(text, n); break;
    }
    free(text);
    return 0;
}
