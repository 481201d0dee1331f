"""test_families.py TQ: the same tiny models under every name and in every order that libraries store them: each must give
the logits that transformers computed for the original.  And what a file must not have is refused by name.

Usage: python test_families.py path/to/tq"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import safetensors_io as st
from tally import check, finish

TQ = sys.argv[1]
GOLDENS = os.path.join(HERE, "..", "goldens")
def source(family):
    directory = os.path.join(GOLDENS, family)
    return st.read(os.path.join(directory, "model.safetensors"))[0], json.load(open(os.path.join(directory, "config.json")))


def run(directory, family, tensors, config):
    os.makedirs(directory)
    st.write(os.path.join(directory, "model.safetensors"), tensors)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump(config, file)
    return subprocess.run([TQ, "eval", "golden", directory, "--golden", os.path.join(GOLDENS, family, "golden.safetensors"),
                           "--tolerance", "1e-4"], capture_output=True, text=True)


def same_logits(temporary, what, family, tensors, config):
    result = run(os.path.join(temporary, what.replace(" ", "_")), family, tensors, config)
    check(result.returncode == 0 and result.stdout.startswith("pass"), f"{what}: {result.stdout} {result.stderr}")


def refused(temporary, what, family, tensors, config, text):
    result = run(os.path.join(temporary, what.replace(" ", "_")), family, tensors, config)
    check(result.returncode != 0 and text in result.stderr, f"{what}: {result.stdout} {result.stderr}")


def renamed(tensors, old, new):
    return {new + name[len(old):] if name.startswith(old) else name: value for name, value in tensors.items()}


def stacked(tensors, module, parts):
    """Experts one by one -> {new part: one tensor (n, rows, cols)}, a layer at a time; parts: {old: new}."""
    out = {name: value for name, value in tensors.items() if ".experts." not in name}
    layers = sorted({name.split(".")[2] for name in tensors if ".experts." in name})
    for layer in layers:
        prefix = f"model.layers.{layer}.{module}"
        n = len({name.split(".")[5] for name in tensors if name.startswith(prefix + ".experts.")})
        for old, new in parts.items():
            values = [tensors[f"{prefix}.experts.{e}.{old}.weight"] for e in range(n)]
            out[f"{prefix}.{new}"] = (values[0][0], np.stack([value for _, value in values]))
    return out


def packed(tensors):
    """transformers 5: gate and up in one tensor."""
    out = stacked(tensors, "mlp", {"gate_proj": "gate", "up_proj": "up", "down_proj": "experts.down_proj"})
    for name in [name for name in out if name.endswith("mlp.gate") and out[name][1].ndim == 3]:
        dtype, gate = out.pop(name)
        up = out.pop(name.removesuffix("gate") + "up")[1]
        out[name.removesuffix("gate") + "experts.gate_up_proj"] = (dtype, np.concatenate([gate, up], 1))
    return out


def wrapped(config, kind):
    return {"model_type": kind, "text_config": config,
            "vision_config": {"hidden_size": 8}, "tie_word_embeddings": config["tie_word_embeddings"]}


def test_wrappers(temporary):
    """A text model within one that sees: three ways to name it; what is not text is not looked at."""
    sight = {"model.visual.blocks.0.weight": ("BF16", np.zeros((3, 5), np.uint16))}
    for family, kind, prefix, head in (("ministral3", "mistral3", "model.language_model.", "lm_head."),
                                       ("gemma3", "gemma3", "language_model.model.", "language_model.lm_head."),
                                       ("qwen3_5", "qwen3_5", "model.language_model.", "lm_head."),
                                       ("mistral", "mistral3", "language_model.model.", "language_model.lm_head.")):
        tensors, config = source(family)
        tensors = renamed(renamed(tensors, "model.", prefix), "lm_head.", head)
        same_logits(temporary, f"wrapper {kind} of {family}", family, {**tensors, **sight}, wrapped(config, kind))


def test_layouts(temporary):
    """Experts one by one, stacked as MLX has them, and packed; fused and separate projections."""
    tensors, config = source("mixtral")
    parts = {"w1": "switch_mlp.gate_proj.weight", "w3": "switch_mlp.up_proj.weight", "w2": "switch_mlp.down_proj.weight"}
    same_logits(temporary, "mixtral stacked", "mixtral", stacked(tensors, "block_sparse_moe", parts), config)
    newer = renamed_part(tensors, ".block_sparse_moe.", ".mlp.")
    same_logits(temporary, "mixtral in mlp", "mixtral", newer, config)
    for family in ("qwen3_moe", "qwen3_next", "qwen3_5_moe"):
        tensors, config = source(family)
        same_logits(temporary, f"{family} packed", family, packed(tensors), config)
        parts = {part: f"switch_mlp.{part}.weight" for part in ("gate_proj", "up_proj", "down_proj")}
        same_logits(temporary, f"{family} stacked", family, stacked(tensors, "mlp", parts), config)
    tensors, config = source("phi3")
    split = {}
    for name, (dtype, value) in tensors.items():
        if "qkv_proj" in name:
            for part, rows in zip("qkv", np.split(value, [256, 384])):
                split[name.replace("qkv_proj", f"{part}_proj")] = (dtype, rows)
        elif "gate_up_proj" in name:
            for part, rows in zip(("gate", "up"), np.split(value, 2)):
                split[name.replace("gate_up_proj", f"{part}_proj")] = (dtype, rows)
        else:
            split[name] = (dtype, value)
    same_logits(temporary, "phi3 split", "phi3", split, config)


def renamed_part(tensors, old, new):
    return {name.replace(old, new): value for name, value in tensors.items()}


def test_hybrid_of_mlx(temporary):
    """MLX turns conv1d and adds 1 to the norms: the one tells of the other."""
    for family in ("qwen3_next", "qwen3_5"):
        tensors, config = source(family)
        out = {}
        for name, (dtype, value) in tensors.items():
            if name.endswith("conv1d.weight"):
                out[name] = (dtype, np.ascontiguousarray(np.moveaxis(value, 2, 1)))
            elif name.endswith("norm.weight") and "linear_attn" not in name:
                out[name] = ("F32", st.to_float32(dtype, value) + 1)
            else:
                out[name] = (dtype, value)
        order = sorted(out, key=lambda key: -st.DTYPES[out[key][0]].itemsize)
        same_logits(temporary, f"{family} of mlx", family, {key: out[key] for key in order}, config)


def test_refusals(temporary):
    tensors, config = source("llama")
    bias = {"model.layers.1.self_attn.q_proj.bias": ("BF16", np.zeros(256, np.uint16))}
    refused(temporary, "a bias too many", "llama", {**tensors, **bias}, config, "a bias that family llama does not use")
    refused(temporary, "an unknown family", "llama", tensors, {**config, "model_type": "mamba"}, 'model_type "mamba"')
    refused(temporary, "a setting", "llama", tensors, {**config, "logit_scale": 0.25}, '"logit_scale"')
    tensors, config = source("qwen3_moe")
    short = {name: value for name, value in tensors.items() if "experts.7.down_proj" not in name or "layers.2" not in name}
    refused(temporary, "an expert missing", "qwen3_moe", short, config, "model.layers.2.mlp.experts.7.down_proj.weight")
    wrong = packed(tensors)
    wrong["model.layers.0.mlp.experts.gate_up_proj"] = ("BF16", np.zeros((8, 60, 64), np.uint16))
    refused(temporary, "a stack of other size", "qwen3_moe", wrong, config, "[8, 64, 64], file has bf16 [8, 60, 64]")
    refused(temporary, "a mode", "llama", *source("llama")[:1],
            {**source("llama")[1], "quantization": {"bits": 4, "group_size": 32, "mode": "mxfp2"}}, "mxfp2")
    refused(temporary, "bits of a mode", "llama", *source("llama")[:1],
            {**source("llama")[1], "quantization": {"bits": 8, "group_size": 32, "mode": "mxfp4"}}, "mxfp4 has 4 bits")


with tempfile.TemporaryDirectory() as directory:
    test_wrappers(directory)
    test_layouts(directory)
    test_hybrid_of_mlx(directory)
    test_refusals(directory)
sys.exit(finish())
