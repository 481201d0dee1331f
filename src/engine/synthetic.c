/* synthetic.c: see synthetic.h.
 * Owns: the table of shapes, the random weights.  Not here: what a family's tensors mean (model/). */
#define _GNU_SOURCE
#include "engine/synthetic.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/half.h"
#include "base/rng.h"
#include "base/tensor.h"
#include "file/safetensors.h"

#define PREFIX "synthetic:"

/* As published in each model's config.json, but for the context: positions beyond it cost the same, and speed at length
 * is what synthetic models are for. */
static const struct shape {
    const char *name, *family;
    int hidden, intermediate, n_layers, n_heads, n_kv_heads, vocab;
    double rope_theta;
    bool tied; /* the embedding is the head too */
} shapes[] = {
    {"qwen2.5-0.5b", "qwen2", 896, 4864, 24, 14, 2, 151936, 1e6, true},
    {"qwen2.5-1.5b", "qwen2", 1536, 8960, 28, 12, 2, 151936, 1e6, true},
    {"qwen2.5-3b", "qwen2", 2048, 11008, 36, 16, 2, 151936, 1e6, true},
    {"qwen2.5-7b", "qwen2", 3584, 18944, 28, 28, 4, 152064, 1e6, false},
    {"llama-3.1-8b", "llama", 4096, 14336, 32, 32, 8, 128256, 5e5, false},
    {"qwen2.5-14b", "qwen2", 5120, 13824, 48, 40, 8, 152064, 1e6, false},
    {"qwen2.5-32b", "qwen2", 5120, 27648, 64, 40, 8, 152064, 1e6, false},
    {"llama-3.1-70b", "llama", 8192, 28672, 80, 64, 8, 128256, 5e5, false},
    {"tiny", "qwen2", 512, 768, 2, 4, 2, 2048, 1e6, false}, /* of no model: opened in a moment, for tests */
};

enum {
    MAX_CONTEXT = 1 << 18,
    BITS = 4,
    GROUP = 64,
    N_SHAPES = sizeof shapes / sizeof *shapes,
    ALIGNMENT = 64,
};

typedef enum tensor_kind { CODES, SCALES, BIASES, NORM, SHIFT } tensor_kind;

typedef struct tensor {
    char name[96];
    tensor_kind kind;
    int64_t rows, cols; /* of values; a vector has one row */
    size_t offset, bytes;
} tensor;

typedef struct tensor_list {
    tensor *at;
    size_t n, cap, bytes;
} tensor_list;

/* ---- the tensors ------------------------------------------------------------------------------------------------- */

static bool add_tensor(tensor_list *list, tensor_kind kind, int64_t rows, int64_t cols, const char *path, const char *part) {
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 256;
        tensor *grown = realloc(list->at, cap * sizeof *grown);
        if (!grown) return false;
        list->at = grown;
        list->cap = cap;
    }
    tensor *t = &list->at[list->n++];
    *t = (tensor){.kind = kind, .rows = rows, .cols = cols, .offset = list->bytes};
    snprintf(t->name, sizeof t->name, "%s.%s", path, part);
    size_t values = (size_t)rows * (size_t)cols;
    t->bytes = kind == CODES ? values * BITS / 8 : kind == SCALES || kind == BIASES ? values / GROUP * 2 : values * 2;
    list->bytes += t->bytes;
    return true;
}

static bool add_matrix(tensor_list *list, int64_t rows, int64_t cols, const char *path) {
    return add_tensor(list, CODES, rows, cols, path, "weight") && add_tensor(list, SCALES, rows, cols, path, "scales") &&
           add_tensor(list, BIASES, rows, cols, path, "biases");
}

static bool add_layer(tensor_list *list, const struct shape *s, int layer) {
    int head_dim = s->hidden / s->n_heads, kv = s->n_kv_heads * head_dim;
    bool biased = strcmp(s->family, "qwen2") == 0;
    const struct {
        const char *part;
        int rows, cols;
        bool bias;
    } matrices[] = {
        {"self_attn.q_proj", s->hidden, s->hidden, biased}, {"self_attn.k_proj", kv, s->hidden, biased},
        {"self_attn.v_proj", kv, s->hidden, biased},        {"self_attn.o_proj", s->hidden, s->hidden, false},
        {"mlp.gate_proj", s->intermediate, s->hidden, false}, {"mlp.up_proj", s->intermediate, s->hidden, false},
        {"mlp.down_proj", s->hidden, s->intermediate, false},
    };
    char path[64];
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        snprintf(path, sizeof path, "model.layers.%d.%s", layer, matrices[i].part);
        if (!add_matrix(list, matrices[i].rows, matrices[i].cols, path)) return false;
        if (matrices[i].bias && !add_tensor(list, SHIFT, 1, matrices[i].rows, path, "bias")) return false;
    }
    snprintf(path, sizeof path, "model.layers.%d", layer);
    return add_tensor(list, NORM, 1, s->hidden, path, "input_layernorm.weight") &&
           add_tensor(list, NORM, 1, s->hidden, path, "post_attention_layernorm.weight");
}

static bool list_tensors(tensor_list *list, const struct shape *s) {
    bool ok = add_matrix(list, s->vocab, s->hidden, "model.embed_tokens");
    for (int i = 0; ok && i < s->n_layers; i++) ok = add_layer(list, s, i);
    ok = ok && add_tensor(list, NORM, 1, s->hidden, "model.norm", "weight");
    return ok && (s->tied || add_matrix(list, s->vocab, s->hidden, "lm_head"));
}

/* ---- the file's image ---------------------------------------------------------------------------------------------- */

static json_t *describe_tensor(const tensor *t) {
    json_int_t cols = t->kind == CODES ? t->cols * BITS / 32 : t->kind == SCALES || t->kind == BIASES ? t->cols / GROUP : t->cols;
    json_t *shape = t->kind == NORM || t->kind == SHIFT ? json_pack("[I]", cols) : json_pack("[I, I]", (json_int_t)t->rows, cols);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->kind == CODES ? "U32" : "BF16", "shape", shape, "data_offsets",
                     (json_int_t)t->offset, (json_int_t)(t->offset + t->bytes));
}

/* NULL: out of memory. */
static char *make_header(const tensor_list *list) {
    json_t *header = json_object();
    bool ok = header != NULL;
    for (size_t i = 0; ok && i < list->n; i++)
        ok = json_object_set_new(header, list->at[i].name, describe_tensor(&list->at[i])) == 0;
    char *text = ok ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    return text;
}

/* Codes are uniform on 0..15 (standard deviation 4.61), so with these scales a matrix keeps the size of what it maps.
 * One seed a tensor, and of a matrix's three tensors the same: scales and biases belong together. */
static void fill_tensor(const struct shape *s, const tensor *t, uint8_t *data) {
    tq_rng rng = {0};
    const char *end = strrchr(t->name, '.');
    for (const char *c = t->name; c < end; c++) rng.state = (rng.state ^ (uint8_t)*c) * 0x100000001b3u;
    rng.state ^= (uint64_t)s->hidden;
    uint16_t *half = (uint16_t *)(void *)data;
    size_t n = t->bytes / sizeof *half;
    float scale = 1.0f / (4.61f * sqrtf((float)t->cols));
    switch (t->kind) {
    case CODES:
        for (size_t i = 0; i + 8 <= t->bytes; i += 8) {
            uint64_t word = tq_rng_u64(&rng);
            memcpy(data + i, &word, sizeof word);
        }
        return;
    case SCALES:
    case BIASES:
        for (size_t i = 0; i < n; i++) {
            float own = tq_bf16_f32(tq_f32_bf16(scale * (float)(0.75 + 0.5 * tq_rng_uniform(&rng))));
            half[i] = tq_f32_bf16(t->kind == SCALES ? own : -7.5f * own);
        }
        return;
    case NORM:
        for (size_t i = 0; i < n; i++) half[i] = tq_f32_bf16(1.0f);
        return;
    case SHIFT:
        for (size_t i = 0; i < n; i++) half[i] = tq_f32_bf16((float)(2 * tq_rng_uniform(&rng) - 1));
        return;
    }
}

static tq_status make_image(const struct shape *s, const tensor_list *list, tq_file_map *image, tq_error *err) {
    char *header = make_header(list);
    if (!header) return tq_fail_memory(err, list->n * 128, "a synthetic model's header");
    size_t length = strlen(header), padded = (8 + length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT - 8;
    size_t bytes = 8 + padded + list->bytes;
    uint8_t *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
        free(header);
        return tq_fail_memory(err, bytes, "a synthetic model's weights");
    }
    madvise(data, bytes, MADV_HUGEPAGE); /* a model from a file has small pages; random access is not what limits */
    uint64_t header_bytes = padded;
    memcpy(data, &header_bytes, 8);
    memcpy(data + 8, header, length);
    memset(data + 8 + length, ' ', padded - length);
    free(header);
    for (size_t i = 0; i < list->n; i++) fill_tensor(s, &list->at[i], data + 8 + padded + list->at[i].offset);
    mprotect(data, bytes, PROT_READ);
    *image = (tq_file_map){.data = data, .bytes = bytes};
    return TQ_OK;
}

/* ---- the model ----------------------------------------------------------------------------------------------------- */

static json_t *make_config(const struct shape *s) {
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:{s:i, s:i}}", "model_type", s->family,
                     "hidden_size", s->hidden, "intermediate_size", s->intermediate, "num_hidden_layers", s->n_layers,
                     "num_attention_heads", s->n_heads, "num_key_value_heads", s->n_kv_heads, "vocab_size", s->vocab,
                     "max_position_embeddings", MAX_CONTEXT, "rope_theta", s->rope_theta, "rms_norm_eps", 1e-6,
                     "tie_word_embeddings", (int)s->tied, "quantization", "bits", BITS, "group_size", GROUP);
}

bool tq_synthetic_names(const char *path) { return strncmp(path, PREFIX, strlen(PREFIX)) == 0; }

static tq_status find_shape(const char *name, const struct shape **out, tq_error *err) {
    char known[256] = "";
    for (int i = 0; i < N_SHAPES; i++) {
        if (strcmp(name, shapes[i].name) == 0) {
            *out = &shapes[i];
            return TQ_OK;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", shapes[i].name);
    }
    return tq_fail(err, TQ_NOT_FOUND, PREFIX "%.60s: no such shape; there are %s", name, known);
}

tq_status tq_synthetic_make(const char *path, json_t **config, tq_file_map *image, tq_error *err) {
    const struct shape *s = NULL;
    TQ_TRY(find_shape(path + strlen(PREFIX), &s, err));
    tensor_list list = {0};
    tq_status status = list_tensors(&list, s) ? TQ_OK : tq_fail_memory(err, list.cap * sizeof *list.at, "a list of tensors");
    if (status == TQ_OK) status = make_image(s, &list, image, err);
    free(list.at);
    if (status != TQ_OK) return status;
    *config = make_config(s);
    if (*config) return TQ_OK;
    tq_file_map_close(image);
    return tq_fail_memory(err, 1024, "a synthetic model's config");
}
