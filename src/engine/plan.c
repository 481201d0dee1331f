/* plan.c: what a session will take, and what there is. */
#include "engine/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cache/cache_plan.h"

void tq_memory_now(tq_memory *out) {
    tq_memory_room room;
    tq_memory_room_read("", &room);
    *out = (tq_memory){.available = room.bytes, .total = room.total};
    memcpy(out->limit, room.limit, sizeof out->limit);
}

/* ---- one session --------------------------------------------------------------------------------------------------- */

int tq_plan_probe_ctx(const tq_model *model, const tq_session_params *params) {
    int most = model->config.max_context;
    return params->prefill_chunk < most ? params->prefill_chunk : most;
}

void tq_plan_of(const tq_session *s, int ctx, tq_plan *out) {
    const tq_model *m = s->model;
    tq_cache_bytes cache = tq_cache_full_bytes(s->cache, ctx);
    int64_t vocab = m->config.vocab, logits = (int64_t)(TQ_LOGIT_ROWS * sizeof *s->logits + sizeof *s->candidates) * vocab;
    int64_t weights = m->info.weight_bytes, state = (int64_t)tq_recurrent_state_bytes(&s->state);
    int64_t copied = tq_weights_copied_bytes(m->weights) + (int64_t)m->transformer->owned_bytes + m->synthetic_bytes;
    *out = (tq_plan){.ctx = ctx, .mapped_bytes = weights > copied && !m->synthetic ? weights - copied : 0,
                     .copied_bytes = copied, .cache_bytes = (int64_t)cache.rows,
                     .state_bytes = 2 * state,
                     .work_bytes = (int64_t)cache.rest + (int64_t)s->activations.bytes + logits + ctx * (int64_t)sizeof *s->tokens,
                     .read_bytes = m->info.token_bytes + (int64_t)cache.rows + state};
    out->total_bytes = out->mapped_bytes + out->copied_bytes + out->cache_bytes + out->state_bytes + out->work_bytes;
}

/* What of a plan is still to be had.  Mapped weights are part of it: dropping and reading them again for every token is no
 * way to run a model, though nobody is killed for it. */
static int64_t wanted_now(const tq_plan *plan) { return plan->total_bytes - plan->copied_bytes; }

/* Bytes that a plan's wanted_now may reach, and what sets the bound. */
static int64_t room_for(const tq_session *s, const tq_plan *any, tq_memory *memory) {
    tq_memory_now(memory);
    if (s->model->memory_limit == 0) return memory->available;
    strcpy(memory->limit, "the limit given");
    return s->model->memory_limit - any->copied_bytes;
}

static int largest(const tq_session *s, int most, int64_t room) {
    int fits = 0, over = most + 1;
    while (over - fits > 1) {
        int ctx = fits + (over - fits) / 2;
        tq_plan plan;
        tq_plan_of(s, ctx, &plan);
        if (wanted_now(&plan) <= room) fits = ctx;
        else over = ctx;
    }
    return fits;
}

int tq_plan_room(const tq_session *s, int most) {
    tq_plan plan;
    tq_memory memory;
    if (s->model->memory_limit < 0) return most;
    tq_plan_of(s, most, &plan);
    int64_t room = room_for(s, &plan, &memory);
    return wanted_now(&plan) <= room ? most : largest(s, most, room);
}

static double mb(int64_t bytes) { return (double)bytes / 1e6; }

tq_status tq_plan_check(const tq_session *s, int ctx, tq_error *err) {
    tq_plan plan;
    tq_memory memory;
    if (s->model->memory_limit < 0) return TQ_OK;
    tq_plan_of(s, ctx, &plan);
    int64_t room = room_for(s, &plan, &memory);
    if (wanted_now(&plan) <= room) return TQ_OK;
    int fits = largest(s, ctx, room);
    char instead[64] = "no context fits";
    if (fits) snprintf(instead, sizeof instead, "a context of %d tokens fits", fits);
    return tq_fail(err, TQ_NO_MEMORY,
                   "not enough memory: %d tokens of context as %s want %.1f MB (weights %.1f, cache %.1f, other %.1f), and %s leaves %.1f MB: %s",
                   ctx, s->cache->kv, mb(wanted_now(&plan)), mb(plan.mapped_bytes), mb(plan.cache_bytes), mb(plan.state_bytes + plan.work_bytes),
                   memory.limit, mb(room > 0 ? room : 0), instead);
}

tq_status tq_plan_check_bytes(int64_t memory_limit, int64_t bytes, const char *what, tq_error *err) {
    tq_memory memory;
    tq_memory_now(&memory);
    if (memory_limit < 0 || bytes <= (memory_limit ? memory_limit : memory.available)) return TQ_OK;
    return tq_fail(err, TQ_NO_MEMORY, "not enough memory: %s want %.1f MB, and %s leaves %.1f MB", what, mb(bytes),
                   memory_limit ? "the limit given" : memory.limit, mb(memory_limit ? memory_limit : memory.available));
}

/* ---- questions ------------------------------------------------------------------------------------------------------- */

/* A session to ask: its memory is reserved and not used. */
static tq_status probe(tq_model *model, const tq_session_params *params, tq_session **out, tq_error *err) {
    tq_session_params p = params ? *params : tq_session_params_default();
    p.ctx = tq_plan_probe_ctx(model, &p);
    return tq_session_build(model, &p, out, err);
}

tq_status tq_plan_session(tq_model *model, const tq_session_params *params, int ctx, tq_plan *out, tq_error *err) {
    if (ctx < 1 || ctx > model->config.max_context)
        return tq_fail(err, TQ_INVALID, "ctx: the model was made for 1 to %d tokens, got %d", model->config.max_context, ctx);
    tq_session *s;
    TQ_TRY(probe(model, params, &s, err));
    tq_plan_of(s, ctx, out);
    tq_session_free(s);
    return TQ_OK;
}

tq_status tq_plan_fit(tq_model *model, const tq_session_params *params, int64_t bytes, int *ctx, tq_error *err) {
    tq_session *s;
    tq_plan plan;
    TQ_TRY(probe(model, params, &s, err));
    tq_plan_of(s, 1, &plan);
    *ctx = largest(s, model->config.max_context, bytes - plan.copied_bytes);
    tq_session_free(s);
    return TQ_OK;
}

/* ---- what a model is made of ----------------------------------------------------------------------------------------- */

tq_status tq_model_get_layer(const tq_model *model, int layer, tq_layer_info *out, tq_error *err) {
    if (layer < 0 || layer >= model->config.n_layers)
        return tq_fail(err, TQ_INVALID, "layer: want 0 to %d, got %d", model->config.n_layers - 1, layer);
    const tq_layer_config *l = &model->config.layers[layer];
    *out = (tq_layer_info){.mixer = l->mixer == TQ_MIXER_DELTA ? "delta" : "attention", .window = l->window, .experts = l->moe};
    return TQ_OK;
}

void tq_model_get_experts(const tq_model *model, tq_experts_info *out) {
    *out = (tq_experts_info){model->config.moe.n_experts, model->config.moe.n_active};
}

void tq_model_get_text(const tq_model *model, tq_text_info *out) {
    const tq_tokenizer *t = model->tokenizer;
    *out = (tq_text_info){.bos = model->bos_token, .eos = model->eos_token, .end_ids = model->eos, .n_end_ids = model->n_eos,
                          .has_chat_template = model->templates.n > 0, .templates = model->templates.names};
    if (!t) return;
    size_t n;
    tq_gguf_string name;
    bool found = false;
    out->vocab = tq_tokenizer_vocab_size(t);
    out->tokenizer = tq_tokenizer_kind(t);
    out->n_merges = tq_tokenizer_merges(t);
    out->n_added = tq_tokenizer_added(t);
    out->before = tq_tokenizer_prefix(t, &n), out->n_before = (int)n;
    out->after = tq_tokenizer_suffix(t, &n), out->n_after = (int)n;
    if (!model->gguf || strcmp(out->tokenizer, "byte-level BPE") != 0) return;
    if (tq_gguf_text(tq_gguf_model_head(model->gguf), "tokenizer.ggml.pre", &found, &name, NULL) == TQ_OK && found)
        snprintf(out->pre_tokenizer, sizeof out->pre_tokenizer, "%.*s", (int)(name.length < 60 ? name.length : 60), name.text);
}

static int more_bytes(const void *a, const void *b) {
    const tq_weight_type *x = a, *y = b;
    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

size_t tq_model_weight_types(const tq_model *model, tq_weight_type *out, size_t cap) {
    enum { MAX = 64 };
    tq_weight_type types[MAX];
    size_t n = 0;
    for (int i = 0; i < tq_weights_count(model->weights); i++) {
        const tq_tensor *tensor = tq_weights_at(model->weights, i);
        char type[32];
        int64_t parameters;
        tq_weights_kind(model->weights, tensor, type, &parameters);
        size_t k = 0;
        while (k < n && strcmp(types[k].type, type) != 0) k++;
        if (k == MAX) k = MAX - 1; /* there are fewer types than that */
        if (k == n) {
            types[n++] = (tq_weight_type){0};
            memcpy(types[k].type, type, sizeof type);
        }
        types[k].tensors++;
        types[k].parameters += parameters;
        types[k].bytes += (int64_t)tensor->bytes;
    }
    qsort(types, n, sizeof *types, more_bytes);
    memcpy(out, types, (n < cap ? n : cap) * sizeof *types);
    return n;
}
