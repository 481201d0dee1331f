#!/usr/bin/env python3
"""Logits and greedy tokens of the bookworm model in float64, computed with numpy alone: an oracle that shares no code
with the engine.

    make_golden.py MODEL_DIR GOLDEN_JSON OUT.safetensors [--greedy]

MODEL_DIR holds bf16 weights, or MLX affine quantized ones (as models/bookworm).  The prompts, and without --greedy the
greedy tokens too, come from GOLDEN_JSON, which transformers produced from the bf16 weights.  Written: for every prompt
i, input_ids_i, greedy_ids_i and logits_i (of the last 8 inputs, rounded to f32).

The logits that came with the model (transformers on a GPU, TF32 matrix products allowed) differ from these by up to
2e-2; a float32 engine is within 2e-3 of these, and cannot be of those.
"""
import glob
import json
import os
import struct
import sys

import numpy as np


def read_safetensors(path):
    raw = open(path, "rb").read()
    length = struct.unpack("<Q", raw[:8])[0]
    tensors = {}
    for name, entry in json.loads(raw[8:8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        data = raw[8 + length + begin:8 + length + end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        else:
            assert entry["dtype"] == "U32", entry
            values = np.frombuffer(data, np.uint32)
        tensors[name] = values.reshape(entry["shape"])
    return tensors


def unpack_affine(tensors, bits, group_size):
    """MLX affine: w = scale * q + bias by groups; element k of a row at bits k*bits.. of a little-endian stream."""
    for name in [n for n in tensors if n.endswith(".scales")]:
        path = name[:-len(".scales")]
        packed = tensors[path + ".weight"]
        stream = np.unpackbits(packed.view(np.uint8), axis=1, bitorder="little")
        codes = stream.reshape(packed.shape[0], -1, bits) @ (1 << np.arange(bits))
        scales, biases = tensors.pop(path + ".scales"), tensors.pop(path + ".biases")
        tensors[path + ".weight"] = codes * np.repeat(scales, group_size, 1) + np.repeat(biases, group_size, 1)


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, value in tensors.items():
        dtype = {"float32": "F32", "int32": "I32"}[str(value.dtype)]
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            f.write(value.tobytes())


def norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate_half(x):
    half = x.shape[-1] // 2
    return np.concatenate([-x[..., half:], x[..., :half]], -1)


def forward(config, w, ids):
    """Logits (n, vocab) of a Qwen2 model; rotary angles are rounded to float32 first, as in training."""
    n, d = len(ids), config["head_dim"]
    heads, kv_heads, eps = config["num_attention_heads"], config["num_key_value_heads"], config["rms_norm_eps"]
    frequency = (1.0 / config["rope_theta"] ** (np.arange(0, d, 2) / d)).astype(np.float32)
    angle = np.arange(n, dtype=np.float32)[:, None] * frequency[None]
    angle = np.concatenate([angle, angle], 1).astype(np.float64)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    hidden_future = np.triu(np.ones((n, n), bool), 1)
    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."

        def project(name, h):
            y = h @ w[p + name + ".weight"].T
            return y + w[p + name + ".bias"] if p + name + ".bias" in w else y

        h = norm(x, w[p + "input_layernorm.weight"], eps)
        q = project("self_attn.q_proj", h).reshape(n, heads, d)
        k = project("self_attn.k_proj", h).reshape(n, kv_heads, d)
        v = project("self_attn.v_proj", h).reshape(n, kv_heads, d)
        q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        attended = np.empty((n, heads, d))
        for head in range(heads):
            kv = head // (heads // kv_heads)
            scores = q[:, head] @ k[:, kv].T / np.sqrt(d)
            scores[hidden_future] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            attended[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, kv]
        x = x + project("self_attn.o_proj", attended.reshape(n, heads * d))
        h = norm(x, w[p + "post_attention_layernorm.weight"], eps)
        gate = project("mlp.gate_proj", h)
        x = x + project("mlp.down_proj", gate / (1 + np.exp(-gate)) * project("mlp.up_proj", h))
    return norm(x, w["model.norm.weight"], eps) @ w["model.embed_tokens.weight"].T


def greedy(config, weights, ids, n_max, stops):
    ids, made = list(ids), []
    while len(made) < n_max and (not made or made[-1] not in stops):
        made.append(int(forward(config, weights, ids)[-1].argmax()))
        ids.append(made[-1])
    return made


def main(model_dir, golden_json, out, *flags):
    config = json.load(open(os.path.join(model_dir, "config.json")))
    weights = {}
    for path in sorted(glob.glob(os.path.join(model_dir, "model*.safetensors"))):
        weights.update(read_safetensors(path))
    if "quantization" in config:
        unpack_affine(weights, config["quantization"]["bits"], config["quantization"]["group_size"])
    tensors = {}
    for i, prompt in enumerate(json.load(open(golden_json))["greedy"]):
        ids, made = prompt["prompt_ids"], prompt["greedy_ids"]
        if "--greedy" in flags:
            made = greedy(config, weights, ids, len(made), config["eos_token_id"])
        tensors[f"input_ids_{i}"] = np.array(ids, np.int32)
        tensors[f"greedy_ids_{i}"] = np.array(made, np.int32)
        tensors[f"logits_{i}"] = forward(config, weights, ids)[-8:].astype(np.float32)
        print(i, len(ids), "tokens, greedy", made[:8], flush=True)
    write_safetensors(out, tensors)


if __name__ == "__main__":
    main(*sys.argv[1:])
