/* cmd_inspect.c: tq inspect MODEL: what a model is made of, and what a cache of it costs. */
#include "commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec_list.h"
#include "json_out.h"
#include "options.h"
#include "setup.h"
#include "terminal.h"
#include "turboquant/tq_plan.h"

enum { TYPES_CAP = 64 };

typedef struct inspected {
    tq_model *model;
    const tq_model_info *info;
    tq_text_info text;
    tq_experts_info experts;
    tq_weight_type types[TYPES_CAP];
    size_t n_types;
    tq_layer_info *layers;
} inspected;

/* A codec's cache: bytes that one more token of a long context takes, and a full one. */
typedef struct cache_cost {
    int64_t token_bytes, full_bytes, state_bytes;
} cache_cost;

static tq_status learn_cost(tq_model *model, const char *kv, cache_cost *out, tq_error *err) {
    int most = tq_model_get_info(model)->max_context, half = most / 2 / TQ_PAGE_TOKENS * TQ_PAGE_TOKENS;
    tq_session_params params = tq_session_params_default();
    params.cache.kv = kv;
    tq_plan full, part = {0};
    tq_status status = tq_plan_session(model, &params, most, &full, err);
    if (status == TQ_OK && half) status = tq_plan_session(model, &params, half, &part, err);
    if (status != TQ_OK) return status;
    *out = (cache_cost){.token_bytes = (full.cache_bytes - part.cache_bytes) / (most - half), .full_bytes = full.cache_bytes,
                        .state_bytes = full.state_bytes};
    return TQ_OK;
}

/* ---- as text ------------------------------------------------------------------------------------------------------- */

static bool same_layer(const tq_layer_info *a, const tq_layer_info *b) {
    return a->mixer == b->mixer && a->window == b->window && a->experts == b->experts;
}

static void print_kind(const inspected *m, const tq_layer_info *l) {
    printf("%s", l->mixer);
    if (l->window) printf(" within %d tokens", l->window);
    if (l->experts) printf(", %d of %d experts", m->experts.active, m->experts.n);
}

/* "24: attention" or "32: 8 times (3 delta, 1 attention)", in the order of the layers, or else counted. */
static void print_layers(const inspected *m) {
    int n = m->info->n_layers;
    printf("layers      %d:", n);
    for (int i = 0, first = 1; i < n; i++) {
        int count = 0;
        bool seen = false;
        for (int k = 0; k < n; k++) {
            if (!same_layer(&m->layers[i], &m->layers[k])) continue;
            count++;
            seen |= k < i;
        }
        if (seen) continue;
        printf("%s%d ", first ? " " : "; ", count);
        print_kind(m, &m->layers[i]);
        first = 0;
    }
    printf("\n");
}

/* Tokens as text with their ids: `first` before the first, `next` before the others. */
static void print_tokens(const inspected *m, const int32_t *ids, int n_ids, const char *first, const char *next) {
    for (int i = 0; i < n_ids; i++) {
        char *piece = NULL;
        size_t n;
        if (tq_detokenize(m->model, &ids[i], 1, true, &piece, &n, NULL) != TQ_OK) continue;
        printf("%s", i ? next : first);
        terminal_write_text(stdout, piece, n);
        printf(" (%d)", ids[i]);
        tq_free(piece);
    }
}

static void print_text(const inspected *m) {
    if (!m->text.vocab) {
        printf("tokenizer   none: token ids only\n");
        return;
    }
    printf("tokenizer   %s, %d tokens", m->text.tokenizer, m->text.vocab);
    if (m->text.n_added) printf(" (%d added)", m->text.n_added);
    if (m->text.n_merges) printf(", %zu merges", m->text.n_merges);
    if (*m->text.pre_tokenizer) printf(", pre-tokenizer %s", m->text.pre_tokenizer);
    printf("\n            a raw prompt gets");
    print_tokens(m, m->text.before, m->text.n_before, " ", " ");
    printf("%s", m->text.n_before ? " before it" : "");
    print_tokens(m, m->text.after, m->text.n_after, m->text.n_before ? " and " : " ", " ");
    printf("%s", m->text.n_after ? " after it" : "");
    printf("%s", m->text.n_before || m->text.n_after ? "" : " no tokens around it");
    print_tokens(m, m->text.end_ids, m->text.n_end_ids, "; a reply ends with ", " or ");
    if (m->text.has_chat_template) printf("\ntemplate    %s\n", m->text.templates);
    else printf("\ntemplate    none: raw text only\n");
}

static int print_model(const inspected *m, const codec_list *codecs) {
    const tq_model_info *i = m->info;
    char a[32], b[32];
    printf("%s\n", i->path);
    printf("family      %s%s\n", i->family, i->synthetic ? ", random weights: what it says means nothing" : "");
    printf("parameters  %.1f million in %s (%s)\n", (double)i->n_parameters / 1e6, terminal_bytes(a, (uint64_t)i->weight_bytes), i->weights);
    printf("            a token reads %s of them\n", terminal_bytes(b, (uint64_t)i->token_bytes));
    print_layers(m);
    printf("heads       %d, %d of keys and values, %d values each\n", i->n_heads, i->n_kv_heads, i->head_dim);
    printf("width       %d, vocabulary %d\n", i->hidden, i->vocab);
    printf("context     %d tokens\n", i->max_context);
    print_text(m);
    printf("\n%-28s %8s %14s %12s\n", "weights", "tensors", "parameters", "bytes");
    for (size_t t = 0; t < m->n_types; t++)
        printf("%-28s %8d %14lld %12s\n", m->types[t].type, m->types[t].tensors, (long long)m->types[t].parameters,
               terminal_bytes(a, (uint64_t)m->types[t].bytes));
    printf("\n%-28s %8s %14s\n", "cache", "a token", "full context");
    for (int c = 0; c < codecs->n; c++) {
        cache_cost cost;
        tq_error err;
        if (learn_cost(m->model, codecs->names[c], &cost, &err) != TQ_OK) return setup_fail("inspect", "%s", err.text);
        printf("%-28s %8lld %14s\n", codecs->names[c], (long long)cost.token_bytes, terminal_bytes(a, (uint64_t)cost.full_bytes));
        if (c + 1 == codecs->n && cost.state_bytes) printf("%-28s %8s %14s\n", "state of delta layers", "", terminal_bytes(a, (uint64_t)cost.state_bytes));
    }
    return fflush(stdout) == 0 ? EXIT_SUCCESS : setup_fail("inspect", "cannot write to stdout");
}

/* ---- as JSON ------------------------------------------------------------------------------------------------------- */

static void put_layers(jout *j, const inspected *m) {
    jout_key(j, "layers");
    jout_array(j);
    for (int l = 0; l < m->info->n_layers; l++) {
        jout_object(j);
        jout_put_string(j, "mixer", m->layers[l].mixer);
        jout_put_int(j, "window", m->layers[l].window);
        jout_put_bool(j, "experts", m->layers[l].experts);
        jout_end(j);
    }
    jout_end(j);
}

static void put_weights(jout *j, const inspected *m) {
    jout_key(j, "weights");
    jout_array(j);
    for (size_t t = 0; t < m->n_types; t++) {
        jout_object(j);
        jout_put_string(j, "type", m->types[t].type);
        jout_put_int(j, "tensors", m->types[t].tensors);
        jout_put_int(j, "parameters", m->types[t].parameters);
        jout_put_int(j, "bytes", m->types[t].bytes);
        jout_end(j);
    }
    jout_end(j);
}

static void put_ids(jout *j, const char *key, const int32_t *ids, int n) {
    jout_key(j, key);
    jout_array(j);
    for (int i = 0; i < n; i++) jout_int(j, ids[i]);
    jout_end(j);
}

static void put_text(jout *j, const inspected *m) {
    jout_key(j, "tokenizer");
    if (!m->text.vocab) {
        jout_null(j);
    } else {
        jout_object(j);
        jout_put_string(j, "kind", m->text.tokenizer);
        jout_put_string(j, "pre_tokenizer", *m->text.pre_tokenizer ? m->text.pre_tokenizer : NULL);
        jout_put_int(j, "vocab", m->text.vocab);
        jout_put_int(j, "merges", (int64_t)m->text.n_merges);
        jout_put_int(j, "added", m->text.n_added);
        jout_put_string(j, "bos", m->text.bos);
        jout_put_string(j, "eos", m->text.eos);
        put_ids(j, "before", m->text.before, m->text.n_before);
        put_ids(j, "after", m->text.after, m->text.n_after);
        put_ids(j, "end_ids", m->text.end_ids, m->text.n_end_ids);
        jout_end(j);
    }
    jout_put_bool(j, "chat_template", m->text.has_chat_template);
    jout_put_string(j, "chat_templates", m->text.templates);
}

static int print_json(const inspected *m, const codec_list *codecs) {
    const tq_model_info *i = m->info;
    jout j = {0};
    jout_object(&j);
    jout_put_string(&j, "path", i->path);
    jout_put_string(&j, "family", i->family);
    jout_put_bool(&j, "synthetic", i->synthetic);
    jout_put_int(&j, "parameters", i->n_parameters);
    jout_put_int(&j, "weight_bytes", i->weight_bytes);
    jout_put_int(&j, "token_bytes", i->token_bytes);
    jout_put_int(&j, "heads", i->n_heads);
    jout_put_int(&j, "kv_heads", i->n_kv_heads);
    jout_put_int(&j, "head_dim", i->head_dim);
    jout_put_int(&j, "hidden", i->hidden);
    jout_put_int(&j, "vocab", i->vocab);
    jout_put_int(&j, "max_context", i->max_context);
    jout_put_int(&j, "experts", m->experts.n);
    jout_put_int(&j, "active_experts", m->experts.active);
    put_layers(&j, m);
    put_weights(&j, m);
    put_text(&j, m);
    jout_key(&j, "caches");
    jout_array(&j);
    for (int c = 0; c < codecs->n; c++) {
        cache_cost cost;
        tq_error err;
        if (learn_cost(m->model, codecs->names[c], &cost, &err) != TQ_OK) {
            free(j.data);
            return setup_fail("inspect", "%s", err.text);
        }
        jout_object(&j);
        jout_put_string(&j, "kv", codecs->names[c]);
        jout_put_int(&j, "token_bytes", cost.token_bytes);
        jout_put_int(&j, "full_bytes", cost.full_bytes);
        jout_put_int(&j, "state_bytes", cost.state_bytes);
        jout_end(&j);
    }
    jout_end(&j);
    jout_end(&j);
    return jout_print(&j, stdout) ? EXIT_SUCCESS : setup_fail("inspect", "cannot write to stdout");
}

/* ---- the command ----------------------------------------------------------------------------------------------------- */

int cmd_inspect(int argc, char **argv) {
    const char *kv = "f16,q8,tq4,tq3.5,tq3,tq2.5,tq2";
    bool json = false;
    model_options model;
    codec_list codecs;
    options o;
    options_begin(&o, "tq inspect [MODEL] [OPTIONS]",
                  "Tell what a model is made of: layers, weights by type, tokenizer, and what a cache costs.\n"
                  "MODEL is what --model takes.");
    options_add_model(&o, &model);
    options_heading(&o, "Output");
    options_add(&o, (option_row){.name = "kv", .argument = "CODEC,...", .type = OPTION_STRING, .to = &kv,
                                 .help = "caches to tell the costs of (default f16, q8 and the presets)"});
    options_add(&o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &json, .help = "one JSON object on stdout"});
    int first, code = options_parse(&o, argc, argv, &first);
    if (code == OPTIONS_RUN) code = options_take_model(&o, &model, argc, argv, first);
    if (code == OPTIONS_RUN) code = codec_list_cut(&o, kv, &codecs);
    if (code != OPTIONS_RUN) return code;
    inspected *m = calloc(1, sizeof *m);
    if (!m) return setup_fail("inspect", "out of memory");
    code = setup_model("inspect", &model, &m->model, NULL);
    if (code == EXIT_SUCCESS) {
        m->info = tq_model_get_info(m->model);
        tq_model_get_text(m->model, &m->text);
        tq_model_get_experts(m->model, &m->experts);
        m->n_types = tq_model_weight_types(m->model, m->types, TYPES_CAP);
        m->layers = calloc((size_t)m->info->n_layers, sizeof *m->layers);
        for (int l = 0; m->layers && l < m->info->n_layers; l++) tq_model_get_layer(m->model, l, &m->layers[l], NULL);
        if (!m->layers) code = setup_fail("inspect", "out of memory");
        else code = json ? print_json(m, &codecs) : print_model(m, &codecs);
    }
    free(m->layers);
    tq_model_free(m->model);
    free(m);
    return code;
}
