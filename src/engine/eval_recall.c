/* eval_recall.c: documents, of which the tokens from some place on are predicted: facts asked for at the end, or the
 * last part of a window of text.  How many answers are right, and how far predictions are from an exact cache's. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file_map.h"
#include "engine/eval_session.h"

#include <turboquant/tq_eval.h>

/* From the first answer on, tokens are evaluated this many at a time: what a query sees exactly is then the window and
 * fewer than this, as in decoding. */
enum { TAIL_CHUNK = 16 };

typedef struct span {
    int from, to;
} span;

typedef struct recall_document {
    int32_t *ids;
    int n_ids;
    span *answers;
    int n_answers;
    int head, end; /* the predictions after tokens head .. end-1 are compared */
} recall_document;

struct tq_recall_data {
    recall_document *documents;
    int n_documents;
};

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static tq_status read_document(const json_t *json, int index, const char *path, recall_document *out, tq_error *err) {
    const json_t *ids = json_object_get(json, "ids"), *answers = json_object_get(json, "answers");
    size_t n_ids = json_array_size(ids), n_answers = json_array_size(answers);
    if (n_ids == 0 || n_ids > 1 << 26)
        return tq_fail(err, TQ_FORMAT, "%s: document %d: want \"ids\", an array of token ids", path, index);
    if (!json_is_array(answers))
        return tq_fail(err, TQ_FORMAT, "%s: document %d: want \"answers\", an array of [from, to]", path, index);
    out->ids = malloc(n_ids * sizeof *out->ids);
    out->answers = malloc((n_answers + 1) * sizeof *out->answers);
    if (!out->ids || !out->answers) return tq_fail_memory(err, n_ids * sizeof *out->ids, "a document");
    for (size_t i = 0; i < n_ids; i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return tq_fail(err, TQ_FORMAT, "%s: document %d: id %zu: want a token id", path, index, i);
        out->ids[i] = (int32_t)json_integer_value(id);
    }
    out->n_ids = (int)n_ids;
    for (size_t i = 0; i < n_answers; i++) {
        const json_t *pair = json_array_get(answers, i);
        json_int_t from = json_integer_value(json_array_get(pair, 0)), to = json_integer_value(json_array_get(pair, 1));
        int floor = i ? out->answers[i - 1].to : 1;
        if (json_array_size(pair) != 2 || from < floor || to <= from || to > (json_int_t)n_ids)
            return tq_fail(err, TQ_FORMAT, "%s: document %d: answer %zu: want [from, to] in order, within 1..%zu", path,
                           index, i, n_ids);
        out->answers[out->n_answers++] = (span){(int)from, (int)to};
    }
    if (out->n_answers == 0) return TQ_OK;
    out->head = out->answers[0].from - 1;
    out->end = out->answers[out->n_answers - 1].to - 1; /* the last token needs no prediction */
    return TQ_OK;
}

tq_status tq_recall_open(const char *path, tq_recall_data **out, tq_error *err) {
    tq_file_map map;
    TQ_TRY(tq_file_map_open(path, &map, err));
    json_error_t at = {0};
    json_t *json = map.data ? json_loadb((const char *)map.data, map.bytes, 0, &at) : NULL;
    tq_file_map_close(&map);
    if (!json) return tq_fail(err, TQ_FORMAT, "%s:%d: %s", path, at.line, at.text);
    tq_recall_data *data = calloc(1, sizeof *data);
    size_t n = json_array_size(json);
    tq_status status = TQ_OK;
    if (data) data->documents = calloc(n + 1, sizeof *data->documents);
    if (!data || !data->documents) status = tq_fail_memory(err, n * sizeof(recall_document), "documents");
    else if (n == 0) status = tq_fail(err, TQ_FORMAT, "%s: want an array of documents", path);
    for (size_t i = 0; status == TQ_OK && i < n; i++)
        status = read_document(json_array_get(json, i), (int)i, path, &data->documents[data->n_documents++], err);
    json_decref(json);
    if (status != TQ_OK) {
        tq_recall_free(data);
        return status;
    }
    *out = data;
    return TQ_OK;
}

tq_status tq_recall_from_text(const int32_t *prefix, int n_prefix, const int32_t *ids, int n_ids, int window,
                              int n_windows, int positions, tq_recall_data **out, tq_error *err) {
    int n_text = window - n_prefix;
    if (window < 2 || positions < 1 || positions >= window || n_windows < 1)
        return tq_fail(err, TQ_INVALID, "windows: want 1 or more of 2 or more tokens, and 1 to window - 1 positions; got %d "
                                        "windows of %d tokens, %d positions", n_windows, window, positions);
    if (n_prefix < 0 || positions >= n_text)
        return tq_fail(err, TQ_INVALID, "windows: %d tokens with %d in front leave no %d positions", window, n_prefix, positions);
    if (n_ids < n_text) return tq_fail(err, TQ_INVALID, "windows: the text has %d tokens, a window %d", n_ids, n_text);
    tq_recall_data *data = calloc(1, sizeof *data);
    if (data) data->documents = calloc((size_t)n_windows, sizeof *data->documents);
    tq_status status = data && data->documents ? TQ_OK : tq_fail_memory(err, sizeof(recall_document), "documents");
    for (int i = 0; status == TQ_OK && i < n_windows; i++) {
        recall_document *d = &data->documents[data->n_documents++];
        d->ids = malloc((size_t)window * sizeof *d->ids);
        if (!d->ids) {
            status = tq_fail_memory(err, (size_t)window * sizeof *d->ids, "a document");
            break;
        }
        int64_t first = n_windows > 1 ? (int64_t)(n_ids - n_text) * i / (n_windows - 1) : 0;
        if (n_prefix) memcpy(d->ids, prefix, (size_t)n_prefix * sizeof *ids);
        memcpy(d->ids + n_prefix, ids + first, (size_t)n_text * sizeof *ids);
        d->n_ids = window;
        d->end = window - 1;
        d->head = d->end - positions;
    }
    if (status != TQ_OK) {
        tq_recall_free(data);
        return status;
    }
    *out = data;
    return TQ_OK;
}

void tq_recall_free(tq_recall_data *data) {
    if (!data) return;
    for (int i = 0; i < data->n_documents; i++) {
        free(data->documents[i].ids);
        free(data->documents[i].answers);
    }
    free(data->documents);
    free(data);
}

int tq_recall_documents(const tq_recall_data *data) { return data->n_documents; }
int tq_recall_length(const tq_recall_data *data, int i) { return data->documents[i].n_ids; }
int tq_recall_answers(const tq_recall_data *data, int i) { return data->documents[i].n_answers; }

/* ---- measuring ------------------------------------------------------------------------------------------------------- */

/* Logits of a reference run at the compared positions. */
struct tq_reference {
    int n, vocab;
    float *logits; /* (n, vocab) */
    tq_recall_result recall;
};

typedef struct recall_run {
    const recall_document *doc;
    int vocab, base; /* base: position of the first token of this call */
    int answer;      /* the answer that is awaited or under way */
    bool wrong;      /* one of its tokens was not the argmax */
    tq_recall_result *result;
    tq_reference *record;          /* filled, or NULL */
    const tq_reference *reference; /* compared with, or NULL */
    float *kld;
    tq_divergence_result *divergence;
} recall_run;

static void compare_logits(recall_run *run, int place, int next_id, const float *logits) {
    const float *want = run->reference->logits + (size_t)place * (size_t)run->vocab;
    double log_z = tq_eval_log_sum_exp(logits, run->vocab), want_z = tq_eval_log_sum_exp(want, run->vocab), divergence = 0;
    for (int j = 0; j < run->vocab; j++) {
        double log_p = want[j] - want_z;
        divergence += exp(log_p) * (log_p - (logits[j] - log_z));
    }
    run->kld[place] = (float)divergence;
    run->divergence->same_top += tq_eval_argmax(logits, run->vocab) == tq_eval_argmax(want, run->vocab);
    run->divergence->nll += log_z - logits[next_id];
    run->divergence->reference_nll += want_z - want[next_id];
}

static void check_answer(recall_run *run, int position, const float *logits) {
    const recall_document *d = run->doc;
    if (run->answer == d->n_answers || position < d->answers[run->answer].from) return;
    if (tq_eval_argmax(logits, run->vocab) != d->ids[position]) run->wrong = true;
    if (position + 1 == d->answers[run->answer].to) {
        run->result->right += !run->wrong;
        run->result->total++;
        run->wrong = false;
        run->answer++;
    }
}

/* The logits after token base + i say what position base + i + 1 should hold. */
static void take_logits(void *ctx, int i, const float *logits) {
    recall_run *run = ctx;
    int position = run->base + i + 1, place = run->base + i - run->doc->head;
    check_answer(run, position, logits);
    if (run->record)
        memcpy(run->record->logits + (size_t)place * (size_t)run->vocab, logits, (size_t)run->vocab * sizeof *logits);
    if (run->reference) compare_logits(run, place, run->doc->ids[position], logits);
}

int tq_recall_positions(const tq_recall_data *data, int index) {
    const recall_document *d = &data->documents[index];
    return d->end - d->head;
}

const int32_t *tq_recall_ids(const tq_recall_data *data, int index) { return data->documents[index].ids; }
int tq_recall_first_position(const tq_recall_data *data, int index) { return data->documents[index].head; }

static tq_status run_session(tq_eval_session *s, recall_run *run, tq_error *err) {
    const recall_document *d = run->doc;
    TQ_TRY(tq_eval_session_run(s, d->ids, d->head, NULL, NULL, err));
    for (int at = d->head; at < d->end; at += TAIL_CHUNK) {
        int n = d->end - at < TAIL_CHUNK ? d->end - at : TAIL_CHUNK;
        run->base = at;
        TQ_TRY(tq_eval_session_run(s, d->ids + at, n, take_logits, run, err));
    }
    tq_cache_stats stats;
    tq_session_get_cache_stats(s->session, &stats);
    run->result->bits_per_value = stats.bits_per_value;
    run->result->packed_fraction = (double)stats.packed_tokens / stats.tokens;
    run->result->seconds = tq_clock_seconds() - s->started;
    return TQ_OK;
}

static tq_status run_document(tq_model *model, const tq_recall_data *data, int index,
                              const tq_session_params *session_params, recall_run *run, tq_error *err) {
    if (index < 0 || index >= data->n_documents)
        return tq_fail(err, TQ_INVALID, "recall: want a document from 0 to %d, got %d", data->n_documents - 1, index);
    run->doc = &data->documents[index];
    run->vocab = model->config.vocab;
    *run->result = (tq_recall_result){0};
    if (run->doc->end == 0) return TQ_OK;
    tq_eval_session s;
    TQ_TRY(tq_eval_session_open(model, session_params, run->doc->n_ids, run->doc->end, &s, err));
    tq_status status = run_session(&s, run, err);
    tq_eval_session_close(&s);
    return status;
}

tq_status tq_eval_recall(tq_model *model, const tq_recall_data *data, int document,
                         const tq_session_params *session_params, tq_recall_result *result, tq_error *err) {
    recall_run run = {.result = result};
    return run_document(model, data, document, session_params, &run, err);
}

/* ---- divergence ------------------------------------------------------------------------------------------------------ */

tq_status tq_reference_new(tq_model *model, const tq_recall_data *data, int document,
                           const tq_session_params *session_params, tq_reference **out, tq_error *err) {
    tq_reference *r = calloc(1, sizeof *r);
    if (!r) return tq_fail_memory(err, sizeof *r, "a reference");
    bool known = document >= 0 && document < data->n_documents; /* run_document says so if not */
    r->vocab = model->config.vocab;
    r->n = known ? tq_recall_positions(data, document) : 0;
    size_t bytes = (size_t)r->n * (size_t)r->vocab * sizeof *r->logits;
    r->logits = malloc(bytes + 1);
    recall_run run = {.result = &r->recall, .record = r};
    tq_status status = r->logits ? run_document(model, data, document, session_params, &run, err)
                                 : tq_fail_memory(err, bytes, "reference logits");
    if (status != TQ_OK) {
        tq_reference_free(r);
        return status;
    }
    *out = r;
    return TQ_OK;
}

const tq_recall_result *tq_reference_recall(const tq_reference *reference) { return &reference->recall; }

void tq_reference_free(tq_reference *reference) {
    if (!reference) return;
    free(reference->logits);
    free(reference);
}

tq_status tq_eval_divergence(tq_model *model, const tq_recall_data *data, int document,
                             const tq_session_params *session_params, const tq_reference *reference, float *kld,
                             tq_divergence_result *result, tq_error *err) {
    *result = (tq_divergence_result){0};
    bool known = document >= 0 && document < data->n_documents;
    int n = known ? tq_recall_positions(data, document) : 0;
    if (known && (reference->n != n || reference->vocab != model->config.vocab))
        return tq_fail(err, TQ_INVALID, "divergence: the reference is of another document or model");
    recall_run run = {.result = &result->recall, .reference = reference, .kld = kld, .divergence = result};
    TQ_TRY(run_document(model, data, document, session_params, &run, err));
    if (n > 0) {
        result->nll /= n;
        result->reference_nll /= n;
    }
    return TQ_OK;
}
