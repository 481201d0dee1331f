"""cases_large.py: models that are larger than memory, or would be: what is not looked at is not read, and what cannot fit is
refused.  The files are sparse: 20 GB that take no disk."""

import json
import random
import struct
import time
from pathlib import Path

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


def embedding(n):
    """n bytes of bf16, each 1 or -1: 0x3f80 or 0xbf80."""
    values = bytearray(b"\x80") * n
    values[1::2] = random.Random(1).randbytes(n // 2).translate(bytes(b & 0x80 | 0x3F for b in range(256)))
    return values


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
                file.write(embedding(end - begin))
        file.truncate(8 + len(text) + at)
    config = {"model_type": "qwen3_moe", "hidden_size": HIDDEN, "intermediate_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
              "num_key_value_heads": 2, "head_dim": 128, "vocab_size": VOCAB, "max_position_embeddings": 4096, "rope_theta": 10000.0,
              "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": WIDTH,
              "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
    (directory / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).symlink_to(f"{MODEL}/{name}")
    return directory


GGUF_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
              "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
              "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp",
              "mlp.switch_mlp.gate_proj": "ffn_gate_exps", "mlp.switch_mlp.up_proj": "ffn_up_exps", "mlp.switch_mlp.down_proj": "ffn_down_exps"}


def gguf_text(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_value(value):
    """With its type: u32, f32, bool, string, or an array of strings or of i32."""
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_text(value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_text, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)


def large_gguf(path):
    """The same model as one GGUF file."""
    vocabulary = json.loads((Path(MODEL) / "tokenizer.json").read_text())
    added = {token["content"]: token["id"] for token in vocabulary["added_tokens"]}
    texts = {i: text for text, i in {**vocabulary["model"]["vocab"], **added}.items()}
    keys = {"general.architecture": "qwen3moe", "qwen3moe.block_count": LAYERS, "qwen3moe.context_length": 4096,
            "qwen3moe.embedding_length": HIDDEN, "qwen3moe.feed_forward_length": WIDTH, "qwen3moe.attention.head_count": 4,
            "qwen3moe.attention.head_count_kv": 2, "qwen3moe.attention.key_length": 128, "qwen3moe.attention.value_length": 128,
            "qwen3moe.attention.layer_norm_rms_epsilon": 1e-6, "qwen3moe.rope.freq_base": 10000.0, "qwen3moe.expert_count": EXPERTS,
            "qwen3moe.expert_used_count": 2, "qwen3moe.expert_feed_forward_length": WIDTH, "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.tokens": [texts.get(i, f"[PAD{i}]") for i in range(VOCAB)],
            "tokenizer.ggml.token_type": [5 if i not in texts else 3 if texts[i] in added else 1 for i in range(VOCAB)],
            "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in vocabulary["model"]["merges"]],
            "tokenizer.ggml.eos_token_id": added["<|im_end|>"]}
    head = b"".join(gguf_text(key) + gguf_value(value) for key, value in keys.items())
    at, infos, data = 0, b"", []
    for name, shape in shapes().items():
        part = name.removesuffix(".weight")
        layer = part.startswith("model.layers.") and part.split(".")[2]
        new = f"blk.{layer}.{GGUF_NAMES[part.split('.', 3)[3]]}.weight" if layer else GGUF_NAMES[part] + ".weight"
        norm = len(shape) == 1
        infos += gguf_text(new) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", 0 if norm else 30, at)
        n = 4 if norm else 2
        for dim in shape:
            n *= dim
        data.append((at, new, n))
        at += -(-n // 32) * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(data), len(keys)) + head + infos
    head += b"\0" * (-len(head) % 32)
    with open(path, "wb") as file:
        file.write(head)
        for begin, name, n in data:
            file.seek(len(head) + begin)
            if "norm" in name:
                file.write(struct.pack("<f", 1) * (n // 4))
            elif name == "token_embd.weight":
                file.write(embedding(n))
        file.truncate(len(head) + at)
    return path


def is_sparse(path):
    """Whether the file system keeps holes; where it does not, this would fill a disk."""
    size, held = path.stat().st_size, path.stat().st_blocks * 512
    check(size > 20e9, f"a file of 20 GB: {size} bytes")
    if held > 50e6:
        print(f"    skipped: {held} bytes on the disk: this file system has no sparse files")
    return held <= 50e6


@test
def large_files_are_read_only_where_they_are_used(tmp):
    model = large_model(tmp / "large")
    if is_sparse(model / "model.safetensors"):
        answers_at_once(model)


@test
def large_gguf_files_are_read_only_where_they_are_used(tmp):
    model = large_gguf(tmp / "large.gguf")
    if is_sparse(model):
        answers_at_once(model)
        text = tq("inspect", model).expect(0).text
        check_in("2 of 1024 experts", text, "what it is")
        check_in("byte-level BPE", text, "its tokenizer")
        check_in("pre-tokenizer qwen2\n", text, "its pre-tokenizer")


def answers_at_once(model):
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
