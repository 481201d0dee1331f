/* eval_golden.c: logits and greedy tokens against those of another implementation. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_map.h"
#include "engine/session.h"
#include "file/safetensors.h"

#include <turboquant/tq_eval.h>

typedef struct golden_files {
    const char *path;
    tq_file_map map;
    tq_safetensors tensors;
    json_t *json; /* golden.json beside it, or NULL */
} golden_files;

typedef struct golden_prompt {
    int32_t *ids; /* input, then greedy */
    int n_input, n_greedy;
    const float *logits; /* (rows, vocab) */
    int rows;
} golden_prompt;

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static const tq_tensor *find(const golden_files *g, const char *name, int index) {
    char full[64];
    if (index < 0) snprintf(full, sizeof full, "%s", name);
    else snprintf(full, sizeof full, "%s_%d", name, index);
    for (int i = 0; i < g->tensors.n_tensors; i++)
        if (strcmp(g->tensors.tensors[i].name, full) == 0) return &g->tensors.tensors[i];
    return NULL;
}

/* Ids from a tensor, else from golden.json; the count, or -1 where neither has them. */
static int read_ids(const golden_files *g, const char *tensor, const char *key, int index, int32_t **out) {
    const tq_tensor *t = find(g, tensor, index);
    const json_t *entry = json_array_get(json_object_get(g->json, "greedy"), index < 0 ? 0 : (size_t)index);
    const json_t *list = json_object_get(entry, key);
    size_t n = t ? (size_t)(t->bytes / sizeof(int32_t)) : json_array_size(list);
    if ((t && t->dtype != TQ_I32) || n == 0 || n > 1 << 24) return -1;
    *out = malloc(n * sizeof **out);
    if (!*out) return -1;
    if (t) memcpy(*out, t->data, n * sizeof **out);
    else
        for (size_t i = 0; i < n; i++) (*out)[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return (int)n;
}

static tq_status read_prompt(const golden_files *g, int index, int vocab, golden_prompt *out, tq_error *err) {
    const tq_tensor *logits = find(g, "logits", index);
    if (!logits || logits->dtype != TQ_F32 || logits->n_dims != 2 || logits->shape[1] != vocab ||
        (uintptr_t)logits->data % sizeof(float))
        return tq_fail(err, TQ_FORMAT, "%s: logits of prompt %d: want f32 (rows, %d)", g->path, index < 0 ? 0 : index, vocab);
    int32_t *input = NULL, *greedy = NULL;
    out->n_input = read_ids(g, "input_ids", "prompt_ids", index, &input);
    out->n_greedy = read_ids(g, "greedy_ids", "greedy_ids", index, &greedy);
    out->logits = logits->data;
    out->rows = (int)logits->shape[0];
    tq_status status = TQ_OK;
    if (out->n_input < 1 || out->n_greedy < 1 || out->rows < 1 || out->rows > out->n_input)
        status = tq_fail(err, TQ_FORMAT, "%s: prompt %d: want input ids, greedy ids and logits of the last inputs",
                         g->path, index < 0 ? 0 : index);
    else if (!(out->ids = malloc((size_t)(out->n_input + out->n_greedy) * sizeof *out->ids)))
        status = tq_fail_memory(err, (size_t)out->n_input * sizeof *out->ids, "a prompt");
    if (status == TQ_OK) {
        memcpy(out->ids, input, (size_t)out->n_input * sizeof *input);
        memcpy(out->ids + out->n_input, greedy, (size_t)out->n_greedy * sizeof *greedy);
    }
    free(input);
    free(greedy);
    return status;
}

static tq_status open_files(const char *path, golden_files *g, tq_error *err) {
    *g = (golden_files){.path = path};
    TQ_TRY(tq_file_map_open(path, &g->map, err));
    TQ_TRY(tq_safetensors_parse(g->map.data, g->map.bytes, path, &g->tensors, err));
    size_t n = strlen(path);
    char *json_path = malloc(n + 16);
    if (!json_path) return tq_fail_memory(err, n + 16, "a path");
    const char *slash = strrchr(path, '/');
    size_t directory = slash ? (size_t)(slash - path) + 1 : 0;
    memcpy(json_path, path, directory);
    strcpy(json_path + directory, "golden.json");
    g->json = json_load_file(json_path, 0, NULL);
    free(json_path);
    return TQ_OK;
}

static void close_files(golden_files *g) {
    json_decref(g->json);
    tq_safetensors_free(&g->tensors);
    tq_file_map_close(&g->map);
}

/* ---- comparing ------------------------------------------------------------------------------------------------------- */

typedef struct compare_ctx {
    const golden_prompt *prompt;
    int vocab;
    double worst;
} compare_ctx;

static void compare(void *ctx, int i, const float *logits) {
    compare_ctx *c = ctx;
    int row = i - (c->prompt->n_input - c->prompt->rows);
    if (row < 0) return;
    const float *want = c->prompt->logits + (size_t)row * (size_t)c->vocab;
    for (int j = 0; j < c->vocab; j++) {
        double difference = fabs((double)logits[j] - want[j]);
        if (!(difference <= c->worst)) c->worst = difference; /* a NaN is the worst */
    }
}

static tq_status run_prompt(tq_model *model, const golden_prompt *p, const tq_session_params *session_params,
                            tq_golden_result *result, tq_error *err) {
    tq_session_params params = *session_params;
    params.ctx = p->n_input + p->n_greedy;
    tq_session *s;
    TQ_TRY(tq_session_new(model, &params, &s, err));
    compare_ctx ctx = {p, model->config.vocab, result->max_abs_diff};
    tq_generate_params gp = tq_generate_params_default();
    gp.max_tokens = p->n_greedy;
    gp.ignore_eos = true;
    tq_generate_result generated = {0};
    tq_status status = tq_session_eval_all(s, p->ids, p->n_input, compare, &ctx, err);
    if (status == TQ_OK) status = tq_generate(s, &gp, &generated, err);
    if (status == TQ_OK) {
        result->max_abs_diff = ctx.worst;
        result->n_prompts++;
        result->greedy_equal += generated.n_ids == p->n_greedy &&
                                memcmp(generated.ids, p->ids + p->n_input, (size_t)p->n_greedy * sizeof(int32_t)) == 0;
    }
    tq_generate_result_free(&generated);
    tq_session_free(s);
    return status;
}

tq_status tq_eval_golden(tq_model *model, const char *golden_path, const tq_session_params *session_params,
                         tq_golden_result *result, tq_error *err) {
    *result = (tq_golden_result){0};
    golden_files g;
    tq_status status = open_files(golden_path, &g, err);
    bool single = status == TQ_OK && find(&g, "logits", -1);
    for (int i = single ? -1 : 0; status == TQ_OK && (single ? i < 0 : find(&g, "logits", i) != NULL); i++) {
        golden_prompt prompt = {0};
        status = read_prompt(&g, i, model->config.vocab, &prompt, err);
        if (status == TQ_OK) status = run_prompt(model, &prompt, session_params, result, err);
        free(prompt.ids);
    }
    if (status == TQ_OK && result->n_prompts == 0)
        status = tq_fail(err, TQ_FORMAT, "%s: want a tensor logits or logits_0", golden_path);
    close_files(&g);
    return status;
}
