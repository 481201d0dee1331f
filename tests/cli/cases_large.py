"""cases_large.py: models that are larger than memory, or would be: what is not looked at is not read, and what cannot fit is
refused.  The files are sparse: 20 GB that take no disk."""

import json
import random
import struct
import time

from cases import MODEL, test, tq
from harness import check, check_equal, check_in

LAYERS, HIDDEN, VOCAB, EXPERTS, WIDTH = 4, 512, 8192, 1024, 1600


def shapes():
    """Name -> shape, of a mixture of experts in bf16 with the bundled model's vocabulary."""
    out = {"model.embed_tokens.weight": [VOCAB, HIDDEN], "model.norm.weight": [HIDDEN]}
    for layer in range(LAYERS):
        parts = {"self_attn.q_proj.weight": [512, HIDDEN], "self_attn.k_proj.weight": [256, HIDDEN], "self_attn.v_proj.weight": [256, HIDDEN],
                 "self_attn.o_proj.weight": [HIDDEN, 512], "self_attn.q_norm.weight": [128], "self_attn.k_norm.weight": [128],
                 "input_layernorm.weight": [HIDDEN], "post_attention_layernorm.weight": [HIDDEN], "mlp.gate.weight": [EXPERTS, HIDDEN],
                 "mlp.switch_mlp.gate_proj.weight": [EXPERTS, WIDTH, HIDDEN], "mlp.switch_mlp.up_proj.weight": [EXPERTS, WIDTH, HIDDEN],
                 "mlp.switch_mlp.down_proj.weight": [EXPERTS, HIDDEN, WIDTH]}
        out.update({f"model.layers.{layer}.{name}": shape for name, shape in parts.items()})
    return out


def large_model(directory):
    """Norms are 1 and the embedding is not nothing; the rest is holes, which read as zeros: each token says itself."""
    directory.mkdir()
    header, at = {}, 0
    for name, shape in shapes().items():
        n = 2
        for dim in shape:
            n *= dim
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            file.seek(8 + len(text) + begin)
            if "norm" in name:
                file.write(b"\x80\x3f" * ((end - begin) // 2))
            elif "embed" in name:
                values = bytearray(b"\x80") * (end - begin)  # 1 or -1: 0x3f80 or 0xbf80
                values[1::2] = random.Random(1).randbytes((end - begin) // 2).translate(bytes(b & 0x80 | 0x3F for b in range(256)))
                file.write(values)
        file.truncate(8 + len(text) + at)
    config = {"model_type": "qwen3_moe", "hidden_size": HIDDEN, "intermediate_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 128, "vocab_size": VOCAB, "max_position_embeddings": 4096, "rope_theta": 10000.0,
              "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": WIDTH,
              "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
    (directory / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).symlink_to(f"{MODEL}/{name}")
    return directory


@test
def large_files_are_read_only_where_they_are_used(tmp):
    model = large_model(tmp / "large")
    size, held = (model / "model.safetensors").stat().st_size, (model / "model.safetensors").stat().st_blocks * 512
    check(size > 20e9 and held < 50e6, f"a sparse file of 20 GB: {size} bytes, {held} on the disk")
    start = time.monotonic()
    run = tq("generate", "--model", model, "--raw", "--prompt", "the", "-m", "4", "--ctx", "256", "--temp", "0", "--json", "--no-memory-check")
    seconds = time.monotonic() - start
    answer = json.loads(run.expect(0).text)
    check_equal(len(answer["token_ids"]), 4, "tokens")
    check(len(set(answer["token_ids"])) == 1, f"each token says itself: {answer['token_ids']}")
    check(answer["peak_rss_bytes"] < 500e6, f"it took {answer['peak_rss_bytes']} bytes of memory")
    check(seconds < 30, f"it took {seconds} s")


@test
def large_models_that_do_not_fit_are_refused_with_both_numbers(tmp):
    model = large_model(tmp / "large")
    args = ["generate", "--model", model, "--raw", "--prompt", "the", "-m", "1", "--ctx", "256"]
    tq(*args, "--memory", "8GB").expect(1, "not enough memory: 256 tokens of context as tq3 want 201", "the limit given leaves 79", "no context fits")
    text = tq("plan", model, "--memory", "8GB", "--kv", "tq3", "--contexts", "1024").expect(0).text
    check_in("too much", text, "the plan")
    check_in("no context fits", text, "the plan")
    tq("plan", "synthetic:qwen2.5-32b", "--memory", "100MB").expect(1, "not enough memory: the weights of synthetic:qwen2.5-32b want 1", "leaves 100.0 MB")
