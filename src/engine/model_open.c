/* model_open.c: a directory or a GGUF file -> a model ready for sessions. */
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/file_map.h"
#include "engine/model.h"
#include "engine/synthetic.h"

/* ---- files ------------------------------------------------------------------------------------------------------- */

static tq_status path_in(const char *directory, const char *name, char *path, size_t cap, tq_error *err) {
    if ((size_t)snprintf(path, cap, "%s/%s", directory, name) >= cap)
        return tq_fail(err, TQ_INVALID, "%.60s...: the path is too long", directory);
    return TQ_OK;
}

enum { PATH_CAP = 4096, JSON_CAP = 64 << 20 };

/* The object in a JSON file; TQ_NOT_FOUND if there is no such file. */
static tq_status read_json(const char *directory, const char *name, json_t **out, tq_error *err) {
    char path[PATH_CAP];
    TQ_TRY(path_in(directory, name, path, sizeof path, err));
    tq_file_map map;
    TQ_TRY(tq_file_map_open(path, &map, err));
    json_error_t at;
    if (map.bytes > JSON_CAP) {
        tq_file_map_close(&map);
        return tq_fail(err, TQ_FORMAT, "%s: want at most %d MB", path, JSON_CAP >> 20);
    }
    *out = map.data ? json_loadb((const char *)map.data, map.bytes, JSON_REJECT_DUPLICATES, &at) : NULL;
    bool empty = !map.data;
    tq_file_map_close(&map);
    if (!*out && empty) return tq_fail(err, TQ_FORMAT, "%s: empty file", path);
    if (!*out) return tq_fail(err, TQ_FORMAT, "%s:%d: %s", path, at.line, at.text);
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return tq_fail(err, TQ_FORMAT, "%s: want a JSON object", path);
    }
    return TQ_OK;
}

/* The same, with *out NULL where there is no such file. */
static tq_status read_optional_json(const char *directory, const char *name, json_t **out, tq_error *err) {
    *out = NULL;
    tq_status status = read_json(directory, name, out, err);
    return status == TQ_NOT_FOUND ? TQ_OK : status;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static tq_status open_tokenizer(tq_model *m, tq_error *err) {
    char path[PATH_CAP];
    TQ_TRY(path_in(m->path, "tokenizer.json", path, sizeof path, err));
    tq_file_map map;
    tq_status status = tq_file_map_open(path, &map, err);
    if (status == TQ_NOT_FOUND) return TQ_OK; /* ids still work; text functions say what is missing */
    if (status != TQ_OK) return status;
    status = tq_tokenizer_new((const char *)map.data, map.bytes, path, &m->tokenizer, err);
    tq_file_map_close(&map);
    return status;
}

/* "eos_token": "text" or {"content": "text"}. */
static char *token_text(const json_t *config, const char *key) {
    const json_t *value = json_object_get(config, key);
    if (json_is_object(value)) value = json_object_get(value, "content");
    return json_is_string(value) ? strdup(json_string_value(value)) : NULL;
}

static tq_status open_templates(tq_model *m, tq_error *err) {
    json_t *config;
    TQ_TRY(read_optional_json(m->path, "tokenizer_config.json", &config, err));
    m->bos_token = token_text(config, "bos_token");
    m->eos_token = token_text(config, "eos_token");
    tq_status status = tq_directory_templates(m->path, config, &m->templates, err);
    json_decref(config);
    return status;
}

/* ---- generation defaults ---------------------------------------------------------------------------------------------- */

static void add_eos(tq_model *m, const json_t *value) {
    const json_t *entry;
    size_t i;
    if (json_is_integer(value) && m->n_eos < TQ_MAX_EOS && !tq_model_is_eos(m, (int32_t)json_integer_value(value)))
        m->eos[m->n_eos++] = (int32_t)json_integer_value(value);
    json_array_foreach(value, i, entry) if (json_is_integer(entry)) add_eos(m, entry);
}

static float number_or(const json_t *object, const char *key, double fallback) {
    const json_t *value = json_object_get(object, key);
    return (float)(json_is_number(value) ? json_number_value(value) : fallback);
}

static tq_status open_generation_config(tq_model *m, tq_error *err) {
    json_t *g;
    TQ_TRY(read_optional_json(m->path, "generation_config.json", &g, err));
    add_eos(m, json_object_get(g, "eos_token_id"));
    if (m->n_eos == 0) add_eos(m, json_object_get(m->config_json, "eos_token_id"));
    if (m->n_eos == 0) add_eos(m, json_object_get(json_object_get(m->config_json, "text_config"), "eos_token_id"));
    m->sampling = tq_sampling_default();
    if (json_is_true(json_object_get(g, "do_sample"))) {
        m->sampling.temp = number_or(g, "temperature", 1);
        m->sampling.top_p = number_or(g, "top_p", 1);
        m->sampling.min_p = number_or(g, "min_p", 0);
        m->sampling.top_k = (int)number_or(g, "top_k", 0);
    }
    m->sampling.repeat_penalty = number_or(g, "repetition_penalty", 1);
    json_decref(g);
    return TQ_OK;
}

bool tq_model_is_eos(const tq_model *model, int32_t id) {
    for (int i = 0; i < model->n_eos; i++)
        if (model->eos[i] == id) return true;
    return false;
}

/* ---- the model ------------------------------------------------------------------------------------------------------- */

static int64_t matrix_bytes(const tq_matrix *w) {
    int64_t constants = w->biases ? 2 : w->scales ? 1 : 0;
    if (constants) constants *= (int64_t)(w->cols / w->group_size) * (int64_t)tq_dtype_bytes(w->scale_dtype);
    return w->rows * ((int64_t)tq_matrix_row_bytes(w) + constants);
}

/* Of the weights, what a decoded token reads: not an embedding that is no head (but for a row), not the experts that it is
 * not sent to. */
static int64_t token_bytes(const tq_model *m) {
    const tq_transformer *t = m->transformer;
    const tq_moe_config *moe = &m->config.moe;
    int64_t bytes = tq_weights_total_bytes(m->weights);
    if (t->head.data != t->embedding.data) bytes -= matrix_bytes(&t->embedding) / t->embedding.rows * (t->embedding.rows - 1);
    for (int l = 0; l < m->config.n_layers; l++) {
        const tq_ffn_weights *expert = t->layers[l].moe.experts;
        if (!m->config.layers[l].moe || !expert) continue;
        int64_t one = matrix_bytes(&expert->gate.w) + matrix_bytes(&expert->up.w) + matrix_bytes(&expert->down.w);
        bytes -= (moe->n_experts - moe->n_active) * one;
    }
    return bytes;
}

static void fill_info(tq_model *m) {
    const tq_config *c = &m->config;
    m->info = (tq_model_info){
        .path = m->path, .family = c->family, .backend = m->backend->name,
        .weights = m->synthetic_repeats ? "random 4-bit groups of 64, repeated" : m->synthetic ? "random 4-bit groups of 64" : tq_weights_description(m->weights),
        .n_layers = c->n_layers, .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim,
        .hidden = c->hidden, .vocab = c->vocab, .max_context = c->max_context, .n_threads = m->backend->n_threads,
        .n_parameters = tq_weights_total_parameters(m->weights), .weight_bytes = tq_weights_total_bytes(m->weights),
        .token_bytes = token_bytes(m),
        .has_chat_template = m->templates.n > 0, .synthetic = m->synthetic,
    };
}

static void report(const tq_model_params *p, double fraction) {
    if (p->progress) p->progress(p->progress_ctx, fraction);
}

static tq_status start_backend(tq_model *m, const tq_model_params *p, tq_error *err) {
    if (p->prefill != TQ_PRECISION_F32 && p->prefill != TQ_PRECISION_BF16)
        return tq_fail(err, TQ_INVALID, "prefill: want TQ_PRECISION_F32 or TQ_PRECISION_BF16, got %d", (int)p->prefill);
    TQ_TRY(tq_cpu_backend_new(p->n_threads, p->kernels, p->prefill == TQ_PRECISION_BF16, m->transformer->max_cols, &m->backend, err));
    fill_info(m);
    report(p, 1.0);
    return TQ_OK;
}

static tq_status open_synthetic(tq_model *m, const tq_model_params *p, tq_error *err) {
    tq_synthetic made;
    m->synthetic = true;
    m->sampling = tq_sampling_default();
    TQ_TRY(tq_synthetic_make(m->path, m->memory_limit, &made, err));
    m->config_json = made.config;
    m->synthetic_bytes = made.bytes;
    m->synthetic_repeats = made.repeated;
    report(p, 0.8);
    TQ_TRY(tq_weights_adopt(&made.image, m->path, m->config_json, &m->weights, err));
    TQ_TRY(tq_config_read(m->config_json, m->path, &m->config, err));
    TQ_TRY(tq_transformer_bind(m->weights, &m->config, &m->transformer, err));
    return start_backend(m, p, err);
}

static tq_status open_all(tq_model *m, const tq_model_params *p, tq_error *err) {
    if (tq_synthetic_names(m->path)) return open_synthetic(m, p, err);
    struct stat st;
    if (stat(m->path, &st) != 0) return tq_fail(err, TQ_NOT_FOUND, "%s: no such model directory or GGUF file", m->path);
    if (S_ISREG(st.st_mode)) {
        TQ_TRY(tq_model_read_gguf(m, err));
        return start_backend(m, p, err);
    }
    if (!S_ISDIR(st.st_mode)) return tq_fail(err, TQ_INVALID, "%s: want a directory with config.json, or a GGUF file", m->path);
    char label[PATH_CAP];
    TQ_TRY(path_in(m->path, "config.json", label, sizeof label, err));
    TQ_TRY(read_json(m->path, "config.json", &m->config_json, err));
    TQ_TRY(tq_config_read(m->config_json, label, &m->config, err));
    report(p, 0.1);
    TQ_TRY(tq_weights_open(m->path, m->config_json, &m->weights, err));
    TQ_TRY(tq_transformer_bind(m->weights, &m->config, &m->transformer, err));
    report(p, 0.5);
    TQ_TRY(open_tokenizer(m, err));
    TQ_TRY(open_templates(m, err));
    TQ_TRY(open_generation_config(m, err));
    report(p, 0.9);
    return start_backend(m, p, err);
}

tq_status tq_model_open(const char *path, const tq_model_params *params, tq_model **out, tq_error *err) {
    tq_model_params defaults = {0};
    tq_model *m = calloc(1, sizeof *m);
    if (!m) return tq_fail_memory(err, sizeof *m, "a model");
    pthread_mutex_init(&m->turn, NULL);
    m->path = strdup(path);
    m->memory_limit = params ? params->memory_limit : 0;
    tq_status status = m->path ? open_all(m, params ? params : &defaults, err) : tq_fail_memory(err, strlen(path), "a path");
    if (status != TQ_OK) {
        tq_model_free(m);
        return status;
    }
    *out = m;
    return TQ_OK;
}

void tq_model_free(tq_model *m) {
    if (!m) return;
    tq_backend_free(m->backend);
    tq_chat_template_set_clear(&m->templates);
    tq_tokenizer_free(m->tokenizer);
    tq_transformer_free(m->transformer);
    tq_weights_close(m->weights);
    tq_gguf_model_close(m->gguf);
    json_decref(m->config_json);
    free(m->bos_token);
    free(m->eos_token);
    free(m->path);
    pthread_mutex_destroy(&m->turn);
    free(m);
}

const tq_model_info *tq_model_get_info(const tq_model *model) { return &model->info; }
tq_sampling tq_model_get_sampling(const tq_model *model) { return model->sampling; }
