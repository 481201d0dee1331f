/* eval_recall.c: facts asked for at the end of long documents. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file_map.h"
#include "engine/session.h"

#include <turboquant/tq_eval.h>

/* From the first answer on, tokens are evaluated this many at a time: what a query sees exactly is then the window and
 * fewer than this, as in decoding. */
enum { TAIL_CHUNK = 16 };

typedef struct span {
    int from, to;
} span;

typedef struct document {
    int32_t *ids;
    int n_ids;
    span *answers;
    int n_answers;
} document;

struct tq_recall_data {
    document *documents;
    int n_documents;
};

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static tq_status read_document(const json_t *json, int index, const char *path, document *out, tq_error *err) {
    const json_t *ids = json_object_get(json, "ids"), *answers = json_object_get(json, "answers");
    size_t n_ids = json_array_size(ids), n_answers = json_array_size(answers);
    if (n_ids == 0 || n_ids > 1 << 26)
        return tq_fail(err, TQ_FORMAT, "%s: document %d: want \"ids\", an array of token ids", path, index);
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
    if (!data || !data->documents) status = tq_fail_memory(err, n * sizeof(document), "documents");
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

typedef struct recall_run {
    const document *doc;
    int vocab, base;       /* base: position of the first token of this call */
    int answer;            /* the answer that is awaited or under way */
    bool wrong;            /* one of its tokens was not the argmax */
    tq_recall_result *result;
} recall_run;

/* The logits after token base + i say what position base + i + 1 should hold. */
static void check_logits(void *ctx, int i, const float *logits) {
    recall_run *run = ctx;
    const document *d = run->doc;
    int position = run->base + i + 1;
    if (run->answer == d->n_answers || position < d->answers[run->answer].from) return;
    int best = 0;
    for (int j = 1; j < run->vocab; j++)
        if (logits[j] > logits[best]) best = j;
    if (best != d->ids[position]) run->wrong = true;
    if (position + 1 == d->answers[run->answer].to) {
        run->result->right += !run->wrong;
        run->result->total++;
        run->wrong = false;
        run->answer++;
    }
}

static tq_status run_document(tq_session *s, const document *d, tq_recall_result *result, tq_error *err) {
    if (d->n_answers == 0) return TQ_OK;
    recall_run run = {.doc = d, .vocab = s->model->config.vocab, .result = result};
    int head = d->answers[0].from - 1, end = d->answers[d->n_answers - 1].to - 1; /* the last token needs no logits */
    TQ_TRY(tq_session_eval(s, d->ids, head, err));
    for (int at = head; at < end; at += TAIL_CHUNK) {
        int n = end - at < TAIL_CHUNK ? end - at : TAIL_CHUNK;
        run.base = at;
        TQ_TRY(tq_session_eval_all(s, d->ids + at, n, check_logits, &run, err));
    }
    tq_cache_stats stats;
    tq_session_get_cache_stats(s, &stats);
    result->bits_per_value = stats.bits_per_value;
    result->packed_fraction = (double)stats.packed_tokens / stats.tokens;
    return TQ_OK;
}

tq_status tq_eval_recall(tq_model *model, const tq_recall_data *data, int index, const tq_session_params *session_params,
                         tq_recall_result *result, tq_error *err) {
    *result = (tq_recall_result){0};
    if (index < 0 || index >= data->n_documents)
        return tq_fail(err, TQ_INVALID, "recall: want a document from 0 to %d, got %d", data->n_documents - 1, index);
    const document *d = &data->documents[index];
    tq_session_params params = *session_params;
    params.ctx = d->n_ids;
    tq_session *s;
    TQ_TRY(tq_session_new(model, &params, &s, err));
    struct timespec start, stop;
    clock_gettime(CLOCK_MONOTONIC, &start);
    tq_status status = run_document(s, d, result, err);
    clock_gettime(CLOCK_MONOTONIC, &stop);
    result->seconds = (double)(stop.tv_sec - start.tv_sec) + 1e-9 * (double)(stop.tv_nsec - start.tv_nsec);
    tq_session_free(s);
    return status;
}
