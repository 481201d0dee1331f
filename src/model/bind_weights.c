/* bind_weights.c: names in the file -> places in the model.
 * Owns: what Hugging Face and MLX call and how they lay out the same weights.  Not here: packed matrices (file/). */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/transformer.h"

enum { NAME = 256 };

typedef struct binder {
    const tq_weights *weights;
    tq_transformer *model;
    const char *prefix;  /* of "layers.0..." : "model.", ... */
    float norm_offset;   /* what the file's norms lack */
    tq_error *err;
} binder;

/* ---- what the model owns ------------------------------------------------------------------------------------------- */

/* Zeros, freed with the model. */
static tq_status own(const binder *b, size_t bytes, const char *what, void **out) {
    tq_transformer *m = b->model;
    if (m->n_owned == m->owned_cap) {
        int cap = m->owned_cap ? 2 * m->owned_cap : 64;
        void **more = realloc(m->owned, (size_t)cap * sizeof *more);
        if (!more) return tq_fail_memory(b->err, (size_t)cap * sizeof *more, what);
        m->owned = more;
        m->owned_cap = cap;
    }
    size_t rounded = (bytes + 63) / 64 * 64;
    *out = aligned_alloc(64, rounded ? rounded : 64);
    if (!*out) return tq_fail_memory(b->err, bytes, what);
    memset(*out, 0, rounded ? rounded : 64);
    m->owned[m->n_owned++] = *out;
    m->owned_bytes += rounded;
    return TQ_OK;
}

static tq_status own_floats(const binder *b, size_t n, const char *what, float **out) {
    void *memory = NULL;
    TQ_TRY(own(b, n * sizeof(float), what, &memory));
    *out = memory;
    return TQ_OK;
}

/* ---- parts --------------------------------------------------------------------------------------------------------- */

static const char *print_name(char name[NAME], const char *format, ...) __attribute__((format(printf, 2, 3)));
static const char *print_name(char name[NAME], const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(name, NAME, format, args);
    va_end(args);
    return name;
}

/* "<prefix>layers.<layer>.<part>" */
static const char *layer_name(const binder *b, char name[NAME], int layer, const char *part) {
    return print_name(name, "%slayers.%d.%s", b->prefix, layer, part);
}

static bool has(const binder *b, const char *name) { return tq_weights_find(b->weights, name) != NULL; }

static bool has_weight(const binder *b, const char *path) {
    char name[NAME];
    return has(b, print_name(name, "%.240s.weight", path));
}

static tq_status bind_vector(const binder *b, const char *name, int n, float **out) {
    TQ_TRY(own_floats(b, (size_t)n, name, out));
    return tq_weights_vector(b->weights, name, n, *out, b->err);
}

static tq_status bind_layer_vector(const binder *b, int layer, const char *part, int n, float **out) {
    char name[NAME];
    return bind_vector(b, layer_name(b, name, layer, part), n, out);
}

/* A norm's weights as they are used; part NULL: the family has no norm there. */
static tq_status bind_norm(const binder *b, int layer, const char *part, int n, float **out) {
    char name[NAME];
    if (!part) return TQ_OK;
    if (layer < 0) print_name(name, "%s%s.weight", b->prefix, part);
    else print_name(name, "%slayers.%d.%s.weight", b->prefix, layer, part);
    TQ_TRY(bind_vector(b, name, n, out));
    for (int i = 0; i < n; i++) (*out)[i] += b->norm_offset;
    return TQ_OK;
}

static void note_cols(const binder *b, int cols) {
    if (cols > b->model->max_cols) b->model->max_cols = cols;
}

static tq_status bind_linear(const binder *b, int layer, const char *part, int rows, int cols, bool bias, tq_linear *out) {
    char path[NAME], name[NAME];
    layer_name(b, path, layer, part);
    TQ_TRY(tq_weights_matrix(b->weights, path, rows, cols, &out->w, b->err));
    note_cols(b, cols);
    print_name(name, "%.240s.bias", path);
    if (bias) return bind_vector(b, name, rows, &out->bias);
    if (has(b, name))
        return tq_fail(b->err, TQ_UNSUPPORTED, "%s: the file has a bias that family %s does not use", name,
                       b->model->config.family);
    return TQ_OK;
}

/* Rows of a matrix that holds several, one below the other. */
static tq_linear rows_of(const tq_linear *whole, int first, int n) {
    return (tq_linear){tq_matrix_rows(&whole->w, first, n), whole->bias ? whole->bias + first : NULL};
}

/* ---- attention ------------------------------------------------------------------------------------------------------- */

static tq_status bind_attention(const binder *b, int i) {
    const tq_config *c = &b->model->config;
    tq_attention_weights *w = &b->model->layers[i].attention;
    int q_rows = c->n_heads * c->head_dim, kv_rows = c->n_kv_heads * c->head_dim;
    int out_cols = q_rows;
    if (c->output_gate) q_rows *= 2;
    char path[NAME];
    if (has_weight(b, layer_name(b, path, i, "self_attn.qkv_proj"))) {
        tq_linear whole = {0};
        TQ_TRY(bind_linear(b, i, "self_attn.qkv_proj", q_rows + 2 * kv_rows, c->hidden, c->qkv_bias, &whole));
        w->q = rows_of(&whole, 0, q_rows);
        w->k = rows_of(&whole, q_rows, kv_rows);
        w->v = rows_of(&whole, q_rows + kv_rows, kv_rows);
        w->v.w.paired_rows = 0; /* values do not turn */
    } else {
        TQ_TRY(bind_linear(b, i, "self_attn.q_proj", q_rows, c->hidden, c->qkv_bias, &w->q));
        TQ_TRY(bind_linear(b, i, "self_attn.k_proj", kv_rows, c->hidden, c->qkv_bias, &w->k));
        TQ_TRY(bind_linear(b, i, "self_attn.v_proj", kv_rows, c->hidden, c->qkv_bias, &w->v));
    }
    TQ_TRY(bind_linear(b, i, "self_attn.o_proj", c->hidden, out_cols, c->out_bias, &w->out));
    if (c->qk_norm != TQ_QK_NORM_NONE) {
        bool each = c->qk_norm == TQ_QK_NORM_HEAD;
        TQ_TRY(bind_norm(b, i, "self_attn.q_norm", each ? c->head_dim : out_cols, &w->q_norm));
        TQ_TRY(bind_norm(b, i, "self_attn.k_norm", each ? c->head_dim : kv_rows, &w->k_norm));
    }
    if (!c->learned_sinks) return TQ_OK;
    layer_name(b, path, i, "self_attn.sinks");
    float *sinks = b->model->sink_logits + (size_t)b->model->layers[i].mixer_index * (size_t)c->n_heads;
    return tq_weights_vector(b->weights, path, c->n_heads, sinks, b->err);
}

/* ---- delta nets ------------------------------------------------------------------------------------------------------ */

/* (channels, 1, kernel) of Hugging Face, (channels, kernel, 1) of MLX or (channels, kernel) of GGUF, which lie alike,
 * -> (kernel, channels). */
static tq_status bind_conv(const binder *b, int layer, int channels, int kernel, float **out) {
    char name[NAME];
    const tq_tensor *tensor = tq_weights_find(b->weights, layer_name(b, name, layer, "linear_attn.conv1d.weight"));
    if (!tensor) return tq_fail(b->err, TQ_NOT_FOUND, "the model has no tensor %s", name);
    bool flat = tensor->n_dims == 2 && tensor->shape[1] == kernel;
    bool deep = tensor->n_dims == 3 && tensor->shape[1] * tensor->shape[2] == kernel;
    if ((!flat && !deep) || tensor->shape[0] != channels)
        return tq_fail(b->err, TQ_FORMAT, "%s: want [%d, 1, %d], [%d, %d, 1] or [%d, %d]", name, channels, kernel, channels,
                       kernel, channels, kernel);
    float *stored;
    size_t n = (size_t)channels * (size_t)kernel;
    TQ_TRY(own_floats(b, n, name, &stored));
    TQ_TRY(own_floats(b, n, name, out));
    TQ_TRY(tq_weights_floats(b->weights, name, (int64_t)n, stored, b->err));
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < kernel; i++) (*out)[i * channels + c] = stored[c * kernel + i];
    return TQ_OK;
}

static tq_status bind_delta(const binder *b, int i) {
    const tq_config *c = &b->model->config;
    const tq_delta_config *d = &c->delta;
    tq_delta_weights *w = &b->model->layers[i].delta;
    int keys = d->n_key_heads * d->key_dim, values = d->n_value_heads * d->value_dim, channels = 2 * keys + values;
    char path[NAME];
    if (has_weight(b, layer_name(b, path, i, "linear_attn.in_proj_qkvz"))) {
        TQ_TRY(bind_linear(b, i, "linear_attn.in_proj_qkvz", channels + values, c->hidden, false, &w->qkvz));
    } else {
        TQ_TRY(bind_linear(b, i, "linear_attn.in_proj_qkv", channels, c->hidden, false, &w->qkv));
        TQ_TRY(bind_linear(b, i, "linear_attn.in_proj_z", values, c->hidden, false, &w->z));
    }
    if (has_weight(b, layer_name(b, path, i, "linear_attn.in_proj_ba"))) {
        TQ_TRY(bind_linear(b, i, "linear_attn.in_proj_ba", 2 * d->n_value_heads, c->hidden, false, &w->ba));
    } else {
        TQ_TRY(bind_linear(b, i, "linear_attn.in_proj_a", d->n_value_heads, c->hidden, false, &w->a));
        TQ_TRY(bind_linear(b, i, "linear_attn.in_proj_b", d->n_value_heads, c->hidden, false, &w->b));
    }
    TQ_TRY(bind_linear(b, i, "linear_attn.out_proj", c->hidden, values, false, &w->out));
    TQ_TRY(bind_conv(b, i, channels, d->kernel, &w->conv));
    bool ready = has(b, layer_name(b, path, i, "linear_attn.minus_rate")); /* as GGUF has it */
    TQ_TRY(bind_layer_vector(b, i, ready ? "linear_attn.minus_rate" : "linear_attn.A_log", d->n_value_heads, &w->rate));
    for (int h = 0; h < d->n_value_heads; h++) w->rate[h] = ready ? -w->rate[h] : expf(w->rate[h]);
    TQ_TRY(bind_layer_vector(b, i, "linear_attn.dt_bias", d->n_value_heads, &w->bias));
    return bind_layer_vector(b, i, "linear_attn.norm.weight", d->value_dim, &w->norm); /* stored as it is used */
}

/* ---- ffn --------------------------------------------------------------------------------------------------------------- */

static tq_status bind_ffn(const binder *b, int i, const char *module, int width, tq_ffn_weights *w) {
    const tq_config *c = &b->model->config;
    char part[NAME], path[NAME];
    print_name(part, "%s.gate_up_proj", module);
    if (has_weight(b, layer_name(b, path, i, part))) {
        tq_linear whole = {0};
        TQ_TRY(bind_linear(b, i, part, 2 * width, c->hidden, c->mlp_bias, &whole));
        w->gate = rows_of(&whole, 0, width);
        w->up = rows_of(&whole, width, width);
    } else {
        TQ_TRY(bind_linear(b, i, print_name(part, "%s.gate_proj", module), width, c->hidden, c->mlp_bias, &w->gate));
        TQ_TRY(bind_linear(b, i, print_name(part, "%s.up_proj", module), width, c->hidden, c->mlp_bias, &w->up));
    }
    return bind_linear(b, i, print_name(part, "%s.down_proj", module), c->hidden, width, c->mlp_bias, &w->down);
}

typedef struct stack {
    tq_matrix *matrices; /* (n_experts) */
    float *biases;       /* (n_experts, rows), or NULL */
} stack;

static tq_linear of_expert(const stack *s, int e) {
    return (tq_linear){s->matrices[e], s->biases ? s->biases + (size_t)e * (size_t)s->matrices[e].rows : NULL};
}

/* All experts' matrices of one kind, stacked as "<path>.weight" or "<path>", with biases `bias_name` (n, rows) or NULL.
 * transposed: stored as (n, cols, rows), which is turned round in memory. */
static tq_status bind_stack(const binder *b, const char *path, const char *bias_name, int rows, int cols, bool transposed,
                            stack *out) {
    int n = b->model->config.moe.n_experts;
    void *memory = NULL, *turned = NULL;
    TQ_TRY(own(b, (size_t)n * sizeof(tq_matrix), path, &memory));
    out->matrices = memory;
    if (transposed) {
        TQ_TRY(tq_weights_stack(b->weights, path, n, cols, rows, out->matrices, b->err));
        size_t bytes = tq_weights_transposed_bytes(out->matrices, n);
        if (bytes == 0)
            return tq_fail(b->err, TQ_UNSUPPORTED, "%s: want f32, f16 or bf16 where matrices are stored transposed", path);
        TQ_TRY(own(b, bytes, path, &turned));
        tq_weights_transpose(out->matrices, n, turned);
    } else {
        TQ_TRY(tq_weights_stack(b->weights, path, n, rows, cols, out->matrices, b->err));
    }
    note_cols(b, cols);
    if (!bias_name) return TQ_OK;
    TQ_TRY(own_floats(b, (size_t)n * (size_t)rows, bias_name, &out->biases));
    return tq_weights_floats(b->weights, bias_name, (int64_t)n * rows, out->biases, b->err);
}

/* Stacked by name: "<path>.{gate,up,down}_proj.weight" (n, rows, cols) as MLX writes them. */
static tq_status bind_stacked_experts(const binder *b, const char *path, tq_moe_weights *w) {
    const tq_config *c = &b->model->config;
    const tq_moe_config *m = &c->moe;
    static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
    stack stacks[3] = {{0}};
    for (int k = 0; k < 3; k++) {
        char name[NAME], bias[NAME];
        print_name(name, "%.200s.%s", path, names[k]);
        print_name(bias, "%.200s.%s.bias", path, names[k]);
        int rows = k == 2 ? c->hidden : m->intermediate, cols = k == 2 ? m->intermediate : c->hidden;
        TQ_TRY(bind_stack(b, name, m->expert_bias ? bias : NULL, rows, cols, false, &stacks[k]));
    }
    for (int e = 0; e < m->n_experts; e++)
        w->experts[e] = (tq_ffn_weights){of_expert(&stacks[0], e), of_expert(&stacks[1], e), of_expert(&stacks[2], e)};
    return TQ_OK;
}

/* Gate and up in one stack, "<path>.gate_up_proj" (n, 2 * intermediate, hidden) and "<path>.down_proj": gate's rows and
 * then up's, or in gpt-oss in turn.  gpt-oss stores floats transposed, and 4-bit values as "_blocks" and "_scales". */
static tq_status bind_packed_experts(const binder *b, const char *path, tq_moe_weights *w) {
    const tq_config *c = &b->model->config;
    const tq_moe_config *m = &c->moe;
    static const char *const names[] = {"gate_up_proj", "down_proj"};
    stack stacks[2] = {{0}};
    w->interleaved = m->expert_bias;
    for (int k = 0; k < 2; k++) {
        char name[NAME], bias[NAME], blocks[NAME];
        print_name(name, "%.200s.%s", path, names[k]);
        print_name(bias, "%.200s.%s_bias", path, names[k]);
        bool floats = !has(b, print_name(blocks, "%.200s.%s_blocks", path, names[k]));
        int rows = k == 1 ? c->hidden : 2 * m->intermediate, cols = k == 1 ? m->intermediate : c->hidden;
        TQ_TRY(bind_stack(b, name, m->expert_bias ? bias : NULL, rows, cols, w->interleaved && floats, &stacks[k]));
    }
    for (int e = 0; e < m->n_experts; e++) {
        tq_linear gate_up = of_expert(&stacks[0], e);
        w->experts[e].down = of_expert(&stacks[1], e);
        w->experts[e].gate = w->interleaved ? gate_up : rows_of(&gate_up, 0, m->intermediate);
        if (!w->interleaved) w->experts[e].up = rows_of(&gate_up, m->intermediate, m->intermediate);
    }
    return TQ_OK;
}

static tq_status bind_single_experts(const binder *b, int i, const char *module, tq_moe_weights *w) {
    const tq_config *c = &b->model->config;
    const tq_moe_config *m = &c->moe;
    for (int e = 0; e < m->n_experts; e++) {
        char part[NAME];
        tq_ffn_weights *x = &w->experts[e];
        print_name(part, "%s.experts.%d.%s", module, e, m->gate);
        TQ_TRY(bind_linear(b, i, part, m->intermediate, c->hidden, m->expert_bias, &x->gate));
        print_name(part, "%s.experts.%d.%s", module, e, m->up);
        TQ_TRY(bind_linear(b, i, part, m->intermediate, c->hidden, m->expert_bias, &x->up));
        print_name(part, "%s.experts.%d.%s", module, e, m->down);
        TQ_TRY(bind_linear(b, i, part, c->hidden, m->intermediate, m->expert_bias, &x->down));
    }
    return TQ_OK;
}

/* The module's name in the file: newer files of some families call it "mlp" like all others. */
static const char *module_of(const binder *b, int i) {
    char part[NAME], path[NAME];
    const tq_moe_config *m = &b->model->config.moe;
    print_name(part, "%s.%s", m->module, m->router);
    return has_weight(b, layer_name(b, path, i, part)) ? m->module : "mlp";
}

static tq_status bind_moe(const binder *b, int i) {
    const tq_config *c = &b->model->config;
    const tq_moe_config *m = &c->moe;
    tq_moe_weights *w = &b->model->layers[i].moe;
    const char *module = module_of(b, i);
    char part[NAME], path[NAME], probe[NAME];
    void *memory = NULL;
    TQ_TRY(own(b, (size_t)m->n_experts * sizeof *w->experts, "experts", &memory));
    w->experts = memory;
    TQ_TRY(bind_linear(b, i, print_name(part, "%s.%s", module, m->router), m->n_experts, c->hidden, m->router_bias,
                       &w->router));
    if (m->shared_intermediate > 0) {
        print_name(part, "%s.shared_expert", module);
        TQ_TRY(bind_ffn(b, i, part, m->shared_intermediate, &w->shared));
        print_name(part, "%s.shared_expert_gate", module);
        TQ_TRY(bind_linear(b, i, part, 1, c->hidden, false, &w->shared_gate));
    }
    static const char *const stacked[] = {"switch_mlp", "experts"};
    for (int k = 0; k < 2; k++) {
        print_name(part, "%s.%s", module, stacked[k]);
        layer_name(b, path, i, part);
        if (has_weight(b, print_name(probe, "%.200s.gate_proj", path))) return bind_stacked_experts(b, path, w);
        if (has_weight(b, print_name(probe, "%.200s.gate_up_proj", path)) || has(b, probe) ||
            has(b, print_name(probe, "%.200s.gate_up_proj_blocks", path)))
            return bind_packed_experts(b, path, w);
    }
    return bind_single_experts(b, i, module, w);
}

/* ---- the model ------------------------------------------------------------------------------------------------------- */

static tq_status bind_layer(const binder *b, int i) {
    const tq_config *c = &b->model->config;
    tq_layer *l = &b->model->layers[i];
    TQ_TRY(bind_norm(b, i, c->norms.attention_in, c->hidden, &l->attention_in));
    TQ_TRY(bind_norm(b, i, c->norms.attention_out, c->hidden, &l->attention_out));
    TQ_TRY(bind_norm(b, i, c->norms.ffn_in, c->hidden, &l->ffn_in));
    TQ_TRY(bind_norm(b, i, c->norms.ffn_out, c->hidden, &l->ffn_out));
    TQ_TRY(c->layers[i].mixer == TQ_MIXER_DELTA ? bind_delta(b, i) : bind_attention(b, i));
    return c->layers[i].moe ? bind_moe(b, i) : bind_ffn(b, i, "mlp", c->intermediate, &l->ffn);
}

/* Where the text model stands: alone, or within one that sees and hears, as either library writes it. */
static tq_status find_prefix(binder *b) {
    static const char *const prefixes[] = {"model.", "model.language_model.", "language_model.model.", "language_model.", ""};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        char name[NAME];
        if (!has(b, print_name(name, "%sembed_tokens.weight", prefixes[i]))) continue;
        b->prefix = prefixes[i];
        return TQ_OK;
    }
    return tq_fail(b->err, TQ_NOT_FOUND, "the model has no tensor model.embed_tokens.weight");
}

static tq_status bind_head(const binder *b) {
    tq_transformer *m = b->model;
    const tq_config *c = &m->config;
    static const char *const paths[] = {"lm_head", "language_model.lm_head", "model.lm_head"};
    const char *found = NULL;
    for (size_t i = 0; i < sizeof paths / sizeof *paths && !found; i++)
        if (has_weight(b, paths[i])) found = paths[i];
    m->head = m->embedding;
    if (c->tie_embeddings || (c->tie_unless_head && !found)) return TQ_OK;
    return tq_weights_matrix(b->weights, found ? found : paths[0], c->vocab, c->hidden, &m->head, b->err);
}

/* MLX adds what norms of delta nets' families lack when it converts them; it also turns conv1d, which shows it. */
static float offset_of_norms(const binder *b) {
    const tq_config *c = &b->model->config;
    for (int i = 0; c->mlx_has_offset && i < c->n_layers; i++) {
        if (c->layers[i].mixer != TQ_MIXER_DELTA) continue;
        char name[NAME];
        const tq_tensor *conv = tq_weights_find(b->weights, layer_name(b, name, i, "linear_attn.conv1d.weight"));
        return conv && conv->n_dims == 3 && conv->shape[1] != 1 ? 0 : c->norm_offset;
    }
    return c->norm_offset;
}

static tq_status bind_all(binder *b) {
    tq_transformer *m = b->model;
    const tq_config *c = &m->config;
    m->max_cols = c->hidden;
    void *windows = NULL;
    TQ_TRY(own(b, (size_t)c->n_attention_layers * sizeof(int), "windows", &windows));
    m->windows = windows;
    if (c->learned_sinks)
        TQ_TRY(own_floats(b, (size_t)c->n_attention_layers * (size_t)c->n_heads, "learned sinks", &m->sink_logits));
    int counts[2] = {0, 0}; /* of each mixer */
    for (int i = 0; i < c->n_layers; i++) {
        m->layers[i].mixer_index = counts[c->layers[i].mixer]++;
        if (c->layers[i].mixer == TQ_MIXER_ATTENTION) m->windows[m->layers[i].mixer_index] = c->layers[i].window;
    }
    TQ_TRY(find_prefix(b));
    b->norm_offset = offset_of_norms(b);
    char path[NAME];
    print_name(path, "%sembed_tokens", b->prefix);
    TQ_TRY(tq_weights_matrix(b->weights, path, c->vocab, c->hidden, &m->embedding, b->err));
    TQ_TRY(bind_head(b));
    TQ_TRY(bind_norm(b, -1, "norm", c->hidden, &m->final_norm));
    for (int i = 0; i < c->n_layers; i++) TQ_TRY(bind_layer(b, i));
    return TQ_OK;
}

tq_status tq_transformer_bind(const tq_weights *weights, const tq_config *config, tq_transformer **out, tq_error *err) {
    tq_transformer *model = calloc(1, sizeof *model);
    if (!model) return tq_fail_memory(err, sizeof *model, "a model");
    model->config = *config;
    model->layers = calloc((size_t)config->n_layers, sizeof *model->layers);
    binder b = {.weights = weights, .model = model, .err = err};
    tq_status status = model->layers ? bind_all(&b) : tq_fail_memory(err, sizeof *model->layers, "a model's layers");
    if (status != TQ_OK) {
        tq_transformer_free(model);
        return status;
    }
    *out = model;
    return TQ_OK;
}
