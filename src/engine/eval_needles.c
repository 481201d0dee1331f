/* eval_needles.c: sentences hidden in a text, and asked for at its end.
 *
 * One document holds a needle for each depth; all of them are asked for from one prefill, by rewinding to the end of
 * the text after each answer.  The needles of a document differ in name and number, so that a blurred memory is told
 * from a clear one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "engine/eval_session.h"

#include <turboquant/tq_eval.h>

enum {
    ANSWER_TOKENS = 40,  /* to say a number in a sentence, by any tokenizer */
    SNAP_TOKENS = 48,    /* a needle goes to the end of a sentence at most this far away */
    MIN_TEXT_TOKENS = 32 /* a document that is nothing but needles measures nothing */
};

static const char *const first_names[] = {"Ada", "Hugo", "Clara", "Arthur", "Ivy", "Felix", "Laura", "Jasper", "Lucy", "Edgar",
                                          "Julia", "Frank", "Alice", "Henry", "Helen", "David"};
static const char *const last_names[] = {"Archer", "Marsh", "Baker", "Frost", "Blake", "Carver", "Cooper", "Fisher", "Foster",
                                         "Harper", "Hunter", "Lowell", "Miller", "Morgan", "Palmer", "Fletcher"};
enum { N_FIRST = sizeof first_names / sizeof *first_names, N_LAST = sizeof last_names / sizeof *last_names };

typedef struct needle {
    char name[32], number[8], statement[80];
    size_t at;    /* byte of the haystack before which it stands */
    double depth; /* of its place in the range that was asked for */
    int32_t *ids; /* the whole prompt that asks for it */
    int n_ids;
    int from, to; /* its tokens in the prompt */
} needle;

struct tq_needles {
    const tq_model *model;
    tq_needles_params params;
    bool chat;
    char *hay;
    size_t hay_n;
    needle *needles;
    int n, n_shared; /* n_shared: tokens that all prompts begin with */
};

tq_needles_params tq_needles_params_default(void) {
    return (tq_needles_params){.length = 4096, .n_needles = 5, .cache = tq_cache_config_default()};
}

/* ---- prompts ------------------------------------------------------------------------------------------------------- */

/* The haystack with the needles before byte `end` in it; malloc. */
static char *text_until(const tq_needles *set, size_t end, int n_needles) {
    size_t room = end + (size_t)n_needles * (sizeof set->needles->statement + 2) + 1, at = 0, from = 0;
    char *text = malloc(room);
    if (!text) return NULL;
    for (int i = 0; i < n_needles; i++) {
        const needle *x = &set->needles[i];
        memcpy(text + at, set->hay + from, x->at - from);
        at += x->at - from;
        from = x->at;
        bool apart = x->at == 0 || set->hay[x->at - 1] == ' ' || set->hay[x->at - 1] == '\n';
        at += (size_t)sprintf(text + at, apart ? "%s " : " %s ", x->statement);
    }
    memcpy(text + at, set->hay + from, end - from);
    text[at + end - from] = 0;
    return text;
}

/* A message with the text and a question; or for models without a template, the text and the beginning of a sentence. */
static tq_status encode_prompt(const tq_needles *set, const char *text, const char *name, int32_t **ids, int *n,
                               tq_error *err) {
    const char *format = set->chat ? "Read this text and remember the facts in it.\n\n%s\n\nWhat is the secret number of %s?"
                                   : "%s\n\nThe secret number of %s is";
    size_t room = strlen(text) + strlen(name) + 128, count = 0;
    char *whole = malloc(room);
    if (!whole) return tq_fail_memory(err, room, "a prompt");
    snprintf(whole, room, format, text, name);
    const tq_message message = {"user", whole};
    tq_status status = set->chat ? tq_chat_tokens(set->model, &message, 1, TQ_CHAT_ADD_GENERATION_PROMPT, ids, &count, err)
                                 : tq_tokenize_prompt(set->model, whole, strlen(whole), false, ids, &count, err);
    free(whole);
    *n = (int)count;
    return status;
}

static tq_status count_text(const tq_needles *set, size_t end, int n_needles, int *n, tq_error *err) {
    char *text = text_until(set, end, n_needles);
    if (!text) return tq_fail_memory(err, end, "a text");
    int32_t *ids = NULL;
    size_t count = 0;
    tq_status status = tq_tokenize(set->model, text, strlen(text), false, &ids, &count, err);
    free(ids);
    free(text);
    *n = (int)count;
    return status;
}

/* ---- a document ---------------------------------------------------------------------------------------------------- */

static void name_needles(tq_needles *set) {
    tq_rng seed = {set->params.seed}, rng = {tq_rng_u64(&seed)}; /* neighbouring seeds share no stream */
    for (int i = 0; i < set->n; i++) {
        needle *x = &set->needles[i];
        bool taken = true;
        while (taken) {
            snprintf(x->name, sizeof x->name, "%s %s", first_names[tq_rng_u64(&rng) % N_FIRST],
                     last_names[tq_rng_u64(&rng) % N_LAST]);
            taken = false;
            for (int k = 0; k < i; k++) taken = taken || strcmp(x->name, set->needles[k].name) == 0;
        }
        snprintf(x->number, sizeof x->number, "%d", (int)(10000 + tq_rng_u64(&rng) % 90000));
        snprintf(x->statement, sizeof x->statement, "The secret number of %s is %s.", x->name, x->number);
    }
}

/* A piece of the text of `want` tokens, from a place that the seed names, whole characters and words. */
static tq_status cut_hay(tq_needles *set, const int32_t *ids, int n_ids, int want, tq_error *err) {
    tq_rng rng = {~set->params.seed};
    int spare = n_ids - want, first = spare > 0 && set->params.seed ? (int)(tq_rng_u64(&rng) % (uint64_t)spare) : 0;
    free(set->hay);
    set->hay = NULL;
    TQ_TRY(tq_detokenize(set->model, ids + first, (size_t)want, false, &set->hay, &set->hay_n, err));
    size_t skip = 0;
    while (skip < set->hay_n && ((unsigned char)set->hay[skip] & 0xC0) == 0x80) skip++; /* a cut character */
    size_t whole = skip;
    while (whole < set->hay_n) { /* and what is not UTF-8 inside: none, if the text was */
        whole += tq_utf8_valid_prefix(set->hay + whole, set->hay_n - whole);
        if (whole < set->hay_n) break;
    }
    memmove(set->hay, set->hay + skip, whole - skip);
    set->hay_n = whole - skip;
    set->hay[set->hay_n] = 0;
    return TQ_OK;
}

/* The nearest end of a sentence, else of a word, at or before `at`, not before `floor`. */
static size_t snap(const char *text, size_t at, size_t floor) {
    for (size_t i = at; i > floor; i--)
        if (text[i - 1] == '\n' || (i > 1 && text[i - 1] == ' ' && text[i - 2] == '.')) return i;
    for (size_t i = at; i > floor; i--)
        if (text[i - 1] == ' ') return i;
    while (at > floor && ((unsigned char)text[at] & 0xC0) == 0x80) at--;
    return at;
}

static void place_needles(tq_needles *set, int hay_tokens, int first, int last) {
    double bytes_per_token = (double)set->hay_n / hay_tokens;
    size_t previous = 0;
    for (int i = 0; i < set->n; i++) {
        needle *x = &set->needles[i];
        x->depth = set->n > 1 ? (double)i / (set->n - 1) : 0.5;
        double token = first + x->depth * (last - first), snap_bytes = SNAP_TOKENS * bytes_per_token;
        size_t at = (size_t)(token * bytes_per_token), floor = (size_t)(first * bytes_per_token);
        if (at > set->hay_n) at = set->hay_n;
        if ((double)at > snap_bytes && at - (size_t)snap_bytes > floor) floor = at - (size_t)snap_bytes;
        if (floor < previous) floor = previous;
        if (at < floor) at = floor;
        x->at = snap(set->hay, at, floor);
        previous = x->at;
    }
}

/* Tokens of a prompt around its text: those in front, and all. */
typedef struct prompt_frame {
    int head, all;
} prompt_frame;

static tq_status measure_frame(const tq_needles *set, prompt_frame *frame, tq_error *err) {
    int32_t *one = NULL, *two = NULL, *ids = NULL;
    int n_one = 0, n_two = 0;
    size_t n = 0;
    tq_status status = encode_prompt(set, "The", set->needles[0].name, &one, &n_one, err);
    if (status == TQ_OK) status = encode_prompt(set, "And", set->needles[0].name, &two, &n_two, err);
    if (status == TQ_OK) status = tq_tokenize(set->model, "The", 3, false, &ids, &n, err);
    frame->head = 0;
    while (frame->head < n_one && frame->head < n_two && one[frame->head] == two[frame->head]) frame->head++;
    frame->all = n_one - (int)n;
    free(one);
    free(two);
    free(ids);
    return status;
}

static tq_status fill_prompts(tq_needles *set, tq_error *err) {
    char *text = text_until(set, set->hay_n, set->n);
    if (!text) return tq_fail_memory(err, set->hay_n, "a text");
    tq_status status = TQ_OK;
    for (int i = 0; status == TQ_OK && i < set->n; i++)
        status = encode_prompt(set, text, set->needles[i].name, &set->needles[i].ids, &set->needles[i].n_ids, err);
    free(text);
    if (status != TQ_OK) return status;
    const needle *a = &set->needles[0];
    set->n_shared = a->n_ids - 1;
    for (int i = 1; i < set->n; i++) {
        const needle *b = &set->needles[i];
        int same = 0;
        while (same < set->n_shared && same < b->n_ids - 1 && a->ids[same] == b->ids[same]) same++;
        set->n_shared = same;
    }
    return TQ_OK;
}

/* Where the needles stand, in tokens of the prompt.  Encoded up to there, a text may differ in its last token. */
static tq_status find_needles(tq_needles *set, int head, tq_error *err) {
    for (int i = 0; i < set->n; i++) {
        needle *x = &set->needles[i];
        TQ_TRY(count_text(set, x->at, i, &x->from, err));
        TQ_TRY(count_text(set, x->at, i + 1, &x->to, err));
        x->from += head;
        x->to += head + 1;
    }
    return TQ_OK;
}

static tq_status build(tq_needles *set, const char *text, size_t text_len, tq_error *err) {
    const tq_needles_params *p = &set->params;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    TQ_TRY(tq_tokenize(set->model, text, text_len, false, &ids, &n_ids, err));
    name_needles(set);
    prompt_frame frame = {0, 0};
    int needle_tokens = 0, exact = p->cache.buffer_size + p->cache.flush_batch_size;
    tq_status status = measure_frame(set, &frame, err);
    if (status == TQ_OK) status = count_text(set, 0, set->n, &needle_tokens, err); /* every needle at byte 0 */
    int hay = p->length - frame.all - needle_tokens;
    int first = p->anywhere || frame.head >= p->cache.sinks ? 0 : p->cache.sinks - frame.head + 1;
    int last = p->anywhere ? hay : hay + frame.all - frame.head - exact - 8; /* names differ in length */
    if (last > hay) last = hay;
    if (status == TQ_OK && (hay < MIN_TEXT_TOKENS || last < first))
        status = tq_fail(err, TQ_INVALID,
                         "needles: %d tokens are too few: %d for %d needles, %d for question and template, %d sinks and up "
                         "to %d exact tokens at the end leave none that is packed",
                         p->length, needle_tokens, set->n, frame.all, p->cache.sinks, exact);
    if (status == TQ_OK && (size_t)hay > n_ids)
        status = tq_fail(err, TQ_INVALID, "needles: the text has %zu tokens, a document of %d tokens wants %d of it", n_ids,
                         p->length, hay);
    if (status == TQ_OK) status = cut_hay(set, ids, (int)n_ids, hay, err);
    free(ids);
    TQ_TRY(status);
    place_needles(set, hay, first, last);
    TQ_TRY(fill_prompts(set, err));
    return find_needles(set, frame.head, err);
}

tq_status tq_needles_new(const tq_model *model, const char *text, size_t text_len, const tq_needles_params *params,
                         tq_needles **out, tq_error *err) {
    if (params->n_needles < 1 || params->n_needles > 64)
        return tq_fail(err, TQ_INVALID, "needles: want 1 to 64 in a document, got %d", params->n_needles);
    if (params->length < 1 || params->length + ANSWER_TOKENS > model->config.max_context)
        return tq_fail(err, TQ_INVALID, "needles: want 1 to %d tokens, which leaves %d for an answer, got %d",
                       model->config.max_context - ANSWER_TOKENS, ANSWER_TOKENS, params->length);
    tq_needles *set = calloc(1, sizeof *set);
    if (set) set->needles = calloc((size_t)params->n_needles, sizeof *set->needles);
    if (!set || !set->needles) {
        free(set);
        return tq_fail_memory(err, sizeof *set, "needles");
    }
    set->model = model;
    set->params = *params;
    set->n = params->n_needles;
    set->chat = model->templates.plain && !params->raw;
    tq_status status = build(set, text, text_len, err);
    if (status != TQ_OK) {
        tq_needles_free(set);
        return status;
    }
    *out = set;
    return TQ_OK;
}

void tq_needles_free(tq_needles *set) {
    if (!set) return;
    for (int i = 0; i < set->n; i++) free(set->needles[i].ids);
    free(set->needles);
    free(set->hay);
    free(set);
}

int tq_needles_count(const tq_needles *set) { return set->n; }
double tq_needles_depth(const tq_needles *set, int i) { return set->needles[i].depth; }

int tq_needles_tokens(const tq_needles *set) {
    int n = set->n_shared;
    for (int i = 0; i < set->n; i++) n += set->needles[i].n_ids - set->n_shared + ANSWER_TOKENS;
    return n;
}

/* ---- asking -------------------------------------------------------------------------------------------------------- */

/* The number as a whole one. */
static bool holds_number(const char *text, const char *number) {
    size_t n = strlen(number);
    for (const char *at = text; (at = strstr(at, number)) != NULL; at++) {
        bool before = at > text && at[-1] >= '0' && at[-1] <= '9', after = at[n] >= '0' && at[n] <= '9';
        if (!before && !after) return true;
    }
    return false;
}

static tq_status answer(tq_session *s, const needle *x, bool *found, tq_error *err) {
    tq_generate_params gp = tq_generate_params_default();
    gp.max_tokens = ANSWER_TOKENS;
    tq_generate_result r;
    TQ_TRY(tq_generate(s, &gp, &r, err));
    *found = holds_number(r.text, x->number);
    tq_generate_result_free(&r);
    return TQ_OK;
}

static tq_status ask_all(tq_eval_session *e, const tq_needles *set, bool *found, tq_needles_result *result, tq_error *err) {
    tq_session *s = e->session;
    TQ_TRY(tq_eval_session_run(e, set->needles[0].ids, set->n_shared, NULL, NULL, err));
    for (int i = 0; i < set->n; i++) {
        const needle *x = &set->needles[i];
        if (i > 0) TQ_TRY(tq_session_rewind(s, set->n_shared, err));
        TQ_TRY(tq_eval_session_run(e, x->ids + set->n_shared, x->n_ids - set->n_shared, NULL, NULL, err));
        tq_cache_stats stats;
        tq_session_get_cache_stats(s, &stats);
        int sinks = set->params.cache.sinks, gone = stats.packed_tokens + stats.forgotten_tokens;
        result->packed += x->from >= sinks && x->to <= sinks + gone;
        result->bits_per_value = stats.bits_per_value;
        result->packed_fraction = (double)stats.packed_tokens / stats.tokens;
        TQ_TRY(answer(s, x, &found[i], err));
        e->done += ANSWER_TOKENS;
        result->right += found[i];
        result->total++;
    }
    return TQ_OK;
}

tq_status tq_eval_needles(tq_model *model, const tq_needles *set, const tq_session_params *session_params, bool *found,
                          tq_needles_result *result, tq_error *err) {
    *result = (tq_needles_result){0};
    if (model != set->model) return tq_fail(err, TQ_INVALID, "needles: the documents were made for another model");
    int longest = 0;
    for (int i = 0; i < set->n; i++) longest = set->needles[i].n_ids > longest ? set->needles[i].n_ids : longest;
    tq_eval_session e;
    TQ_TRY(tq_eval_session_open(model, session_params, longest + ANSWER_TOKENS, tq_needles_tokens(set), &e, err));
    tq_status status = ask_all(&e, set, found, result, err);
    result->seconds = tq_clock_seconds() - e.started;
    tq_eval_session_close(&e);
    return status;
}
