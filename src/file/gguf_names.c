/* gguf_names.c: a table of names.  A new family is a row where its parts have names of their own. */
#include "file/gguf_names.h"

#include <stdio.h>
#include <string.h>

/* Of rows that match, the first: those of one architecture stand before those of all. */
static const struct part {
    const char *architecture; /* NULL: all */
    const char *gguf, *hugging_face;
    tq_gguf_change change;
} layer_parts[] = {
    {"llama", "attn_q", "self_attn.q_proj", TQ_GGUF_PAIRED_QUERY},
    {"llama", "attn_k", "self_attn.k_proj", TQ_GGUF_PAIRED_KEY},
    {"granite", "attn_q", "self_attn.q_proj", TQ_GGUF_PAIRED_QUERY},
    {"granite", "attn_k", "self_attn.k_proj", TQ_GGUF_PAIRED_KEY},
    {"smollm3", "attn_q", "self_attn.q_proj", TQ_GGUF_PAIRED_QUERY},
    {"smollm3", "attn_k", "self_attn.k_proj", TQ_GGUF_PAIRED_KEY},
    {"llama", "attn_qkv", "self_attn.qkv_proj", TQ_GGUF_PAIRED_FUSED},
    {"granite", "attn_qkv", "self_attn.qkv_proj", TQ_GGUF_PAIRED_FUSED},
    {"smollm3", "attn_qkv", "self_attn.qkv_proj", TQ_GGUF_PAIRED_FUSED},
    {"gemma2", "ffn_norm", "pre_feedforward_layernorm", TQ_GGUF_SAME},
    {"gemma3", "ffn_norm", "pre_feedforward_layernorm", TQ_GGUF_SAME},
    {"glm4", "post_attention_norm", "post_self_attn_layernorm", TQ_GGUF_SAME},
    {"glm4", "post_ffw_norm", "post_mlp_layernorm", TQ_GGUF_SAME},
    {"glm4", "ffn_up", "mlp.gate_up_proj", TQ_GGUF_SAME},
    {"phi3", "ffn_up", "mlp.gate_up_proj", TQ_GGUF_SAME},
    {"gpt-oss", "ffn_gate_inp", "mlp.router", TQ_GGUF_SAME},
    {"qwen3next", "attn_qkv", "linear_attn.in_proj_qkv", TQ_GGUF_SAME},
    {"qwen35", "attn_qkv", "linear_attn.in_proj_qkv", TQ_GGUF_SAME},
    {"qwen35moe", "attn_qkv", "linear_attn.in_proj_qkv", TQ_GGUF_SAME},
    {NULL, "attn_norm", "input_layernorm", TQ_GGUF_SAME},
    {NULL, "post_attention_norm", "post_attention_layernorm", TQ_GGUF_SAME},
    {NULL, "post_ffw_norm", "post_feedforward_layernorm", TQ_GGUF_SAME},
    {NULL, "attn_qkv", "self_attn.qkv_proj", TQ_GGUF_SAME},
    {NULL, "attn_sinks", "self_attn.sinks", TQ_GGUF_BARE},
    {NULL, "ffn_gate_inp", "mlp.gate", TQ_GGUF_SAME},
    {NULL, "ffn_gate_exps", "mlp.switch_mlp.gate_proj", TQ_GGUF_SAME},
    {NULL, "ffn_up_exps", "mlp.switch_mlp.up_proj", TQ_GGUF_SAME},
    {NULL, "ffn_gate_up_exps", "mlp.switch_mlp.gate_up_proj", TQ_GGUF_SAME},
    {NULL, "ffn_down_exps", "mlp.switch_mlp.down_proj", TQ_GGUF_SAME},
    {NULL, "ffn_gate_inp_shexp", "mlp.shared_expert_gate", TQ_GGUF_SAME},
    {NULL, "ffn_gate_shexp", "mlp.shared_expert.gate_proj", TQ_GGUF_SAME},
    {NULL, "ffn_up_shexp", "mlp.shared_expert.up_proj", TQ_GGUF_SAME},
    {NULL, "ffn_down_shexp", "mlp.shared_expert.down_proj", TQ_GGUF_SAME},
    {NULL, "attn_gate", "linear_attn.in_proj_z", TQ_GGUF_SAME},
    {NULL, "ssm_in", "linear_attn.in_proj_qkvz", TQ_GGUF_SAME},
    {NULL, "ssm_ba", "linear_attn.in_proj_ba", TQ_GGUF_SAME},
    {NULL, "ssm_alpha", "linear_attn.in_proj_a", TQ_GGUF_SAME},
    {NULL, "ssm_beta", "linear_attn.in_proj_b", TQ_GGUF_SAME},
    {NULL, "ssm_conv1d", "linear_attn.conv1d", TQ_GGUF_SAME},
    {NULL, "ssm_norm", "linear_attn.norm", TQ_GGUF_SAME},
    {NULL, "ssm_out", "linear_attn.out_proj", TQ_GGUF_SAME},
    {NULL, "ssm_dt", "linear_attn.dt_bias", TQ_GGUF_BARE},
    {NULL, "ssm_a", "linear_attn.minus_rate", TQ_GGUF_BARE}, /* -exp(A_log), which has no name there */
    {NULL, "ffn_norm", "post_attention_layernorm", TQ_GGUF_SAME},
    {NULL, "attn_q", "self_attn.q_proj", TQ_GGUF_SAME},
    {NULL, "attn_k", "self_attn.k_proj", TQ_GGUF_SAME},
    {NULL, "attn_v", "self_attn.v_proj", TQ_GGUF_SAME},
    {NULL, "attn_output", "self_attn.o_proj", TQ_GGUF_SAME},
    {NULL, "attn_q_norm", "self_attn.q_norm", TQ_GGUF_SAME},
    {NULL, "attn_k_norm", "self_attn.k_norm", TQ_GGUF_SAME},
    {NULL, "ffn_gate", "mlp.gate_proj", TQ_GGUF_SAME},
    {NULL, "ffn_up", "mlp.up_proj", TQ_GGUF_SAME},
    {NULL, "ffn_down", "mlp.down_proj", TQ_GGUF_SAME},
};

static const struct {
    const char *gguf, *hugging_face;
} whole_parts[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", "lm_head"},
};

static bool is_part(const char *part, const char *name, size_t length) {
    return strlen(part) == length && memcmp(part, name, length) == 0;
}

bool tq_gguf_rename(const char *architecture, const char *name, char *out, size_t cap, tq_gguf_change *change) {
    *change = TQ_GGUF_SAME;
    const char *dot = strrchr(name, '.'); /* before "weight" or "bias", or the end where there is neither */
    if (!dot || (strcmp(dot, ".weight") != 0 && strcmp(dot, ".bias") != 0)) dot = name + strlen(name);
    if (strncmp(name, "blk.", 4) != 0) {
        for (size_t i = 0; i < sizeof whole_parts / sizeof *whole_parts; i++)
            if (is_part(whole_parts[i].gguf, name, (size_t)(dot - name)))
                return (size_t)snprintf(out, cap, "%s%s", whole_parts[i].hugging_face, dot) < cap;
        return false;
    }
    const char *layer = name + 4, *part = layer + strspn(layer, "0123456789");
    if (part == layer || *part++ != '.' || part >= dot) return false;
    for (size_t i = 0; i < sizeof layer_parts / sizeof *layer_parts; i++) {
        const struct part *row = &layer_parts[i];
        if (row->architecture && strcmp(row->architecture, architecture) != 0) continue;
        if (!is_part(row->gguf, part, (size_t)(dot - part))) continue;
        *change = row->change;
        return (size_t)snprintf(out, cap, "model.layers.%.*s.%s%s", (int)(part - 1 - layer), layer, row->hugging_face,
                                row->change == TQ_GGUF_BARE ? "" : dot) < cap;
    }
    return false;
}
