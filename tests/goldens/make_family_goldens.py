"""Make a family's golden: a tiny random model and what transformers computes with it in float32.

    pip install torch transformers safetensors && python tests/goldens/make_family_goldens.py OUT [FAMILY...]

The committed goldens are by this recipe with transformers 5.17; running it again draws other weights.  72 input ids,
their logits, and 24 ids of greedy decoding without a cache.  Parameters are rounded to bf16 before anything is
computed, so that the stored model is exactly the one that ran."""
import os
import sys
import zlib

import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

SIZES = dict(vocab_size=384, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
             num_key_value_heads=2, head_dim=64, max_position_embeddings=4096, rms_norm_eps=1e-6,
             tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=0, initializer_range=.08)
WIDE = {**{key: value for key, value in SIZES.items() if key != "head_dim"}, "hidden_size": 256}
MOE = dict(moe_intermediate_size=32, num_experts=8, num_experts_per_tok=2)
SPARSE = dict(norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])
DELTA = dict(linear_conv_kernel_dim=4, linear_key_head_dim=32, linear_value_head_dim=32, linear_num_key_heads=2,
             linear_num_value_heads=4, full_attention_interval=4, layer_types=["linear_attention"] * 3 + ["full_attention"])
GEMMA = dict(sliding_window=24, query_pre_attn_scalar=64)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000., factor=8., low_freq_factor=1., high_freq_factor=4.,
              original_max_position_embeddings=64)
FAMILIES = {
    "llama": ("llama", dict(SIZES, rope_parameters=LLAMA3)),
    "llama2": ("llama", dict(SIZES, num_key_value_heads=4)),
    "mistral": ("mistral", dict(SIZES, sliding_window=24)),
    "ministral3": ("ministral3", SIZES),
    "qwen2": ("qwen2", SIZES),
    "qwen3": ("qwen3", SIZES),
    "qwen3_moe": ("qwen3_moe", {**SIZES, **MOE, **SPARSE}),
    "mixtral": ("mixtral", dict(SIZES, num_local_experts=4, num_experts_per_tok=2)),
    "qwen3_next": ("qwen3_next", {**SIZES, **MOE, **SPARSE, **DELTA, "shared_expert_intermediate_size": 32,
                                  "partial_rotary_factor": .25}),
    "qwen3_5": ("qwen3_5_text", {**SIZES, **DELTA}),
    "qwen3_5_moe": ("qwen3_5_moe_text", {**SIZES, **MOE, **DELTA, "shared_expert_intermediate_size": 32}),
    "gemma2": ("gemma2", {**SIZES, **GEMMA, "attn_logit_softcapping": 50., "final_logit_softcapping": 30.}),
    "gemma3": ("gemma3_text", {**SIZES, **GEMMA, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}),
    "phi3": ("phi3", WIDE),
    "olmo2": ("olmo2", WIDE),
    "smollm3": ("smollm3", SIZES),
    "granite": ("granite", dict(WIDE, embedding_multiplier=12., residual_multiplier=.22, attention_multiplier=1 / 64,
                                logits_scaling=8.)),
    "glm4": ("glm4", dict(SIZES, partial_rotary_factor=.5)),
    "gpt_oss": ("gpt_oss", dict(SIZES, num_local_experts=4, num_experts_per_tok=2, sliding_window=24,
                                layer_types=["sliding_attention", "full_attention"] * 2)),
}


def draw(model, generator):
    """Norms, biases, sinks and experts are not left at what they are initialized to."""
    for name, p in model.named_parameters():
        if p.dim() == 1 and "norm" in name:
            p.add_(torch.randn(p.shape, generator=generator) * .2)
        elif p.dim() == 1:
            p.copy_(torch.randn(p.shape, generator=generator) * (.5 if "A_log" in name or "dt_bias" in name else .3))
        elif p.abs().max() == 0 or "expert" in name or "router" in name:
            p.copy_(torch.randn(p.shape, generator=generator) * .08)
        p.copy_(p.to(torch.bfloat16).float())


def main():
    torch.set_grad_enabled(False)
    for family in sys.argv[2:] or FAMILIES:
        kind, settings = FAMILIES[family]
        torch.manual_seed(zlib.crc32(family.encode()))
        generator = torch.Generator().manual_seed(1)
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**settings), dtype=torch.float32,
                                                 attn_implementation="eager").eval()
        draw(model, generator)
        ids = torch.randint(3, 384, (1, 72), generator=generator)
        logits, held = model(ids).logits[0].float(), ids
        for _ in range(24):
            held = torch.cat([held, model(held, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        directory = os.path.join(sys.argv[1], family)
        model.to(torch.bfloat16).save_pretrained(directory)
        save_file({"input_ids": ids[0].to(torch.int32), "logits": logits.contiguous(),
                   "greedy_ids": held[0, 72:].to(torch.int32)}, os.path.join(directory, "golden.safetensors"))


main()
