"""Make mlx_*: tiny models as the real mlx-lm converter writes them, and what mlx-lm computes with them.

    pip install "mlx[cpu]" mlx-lm tokenizers && python tests/goldens/make_mlx_lm_goldens.py

Made with mlx 0.32.4 and mlx-lm 0.32.2 on the CPU backend, from the families' tiny models beside this file.  Each model
is converted by mlx_lm.convert, loaded again by mlx-lm, and run in float32 (the stored bf16 and packed values are exact in
it).  golden.safetensors holds 72 input ids, their logits and 24 greedy ids, as the families' own goldens do.
gpt_oss_mxfp4 is gpt_oss with its experts as Hugging Face stores them in 4 bits (_blocks, _scales); mlx-lm reads it too,
and its golden is what mlx-lm computes.  Two more variants are made for mlx-lm's rotary encodings."""
import json
import os
import pathlib
import shutil
import sys
import tempfile

import mlx.core as mx
import numpy as np
from mlx_lm import convert
from mlx_lm.utils import load_model
from tokenizers import Tokenizer, models

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "python"))
import safetensors_io as st

# name: (source, what mlx_lm.convert is told, changes of the source's config)
MODELS = {
    "mlx_llama_3bit": ("llama", dict(quantize=True, q_bits=3, q_group_size=64), {}),
    "mlx_qwen3_mixed_2_6": ("qwen3", dict(quantize=True, q_group_size=64, quant_predicate="mixed_2_6"), {}),
    "mlx_qwen3_moe_4bit": ("qwen3_moe", dict(quantize=True, q_bits=4, q_group_size=32), {}),
    "mlx_qwen3_next_6bit": ("qwen3_next", dict(quantize=True, q_bits=6, q_group_size=32), {}),
    "mlx_qwen3_5_mxfp4": ("qwen3_5", dict(quantize=True, q_mode="mxfp4"), {}),
    "mlx_qwen3_5_moe_4bit": ("qwen3_5_moe", dict(quantize=True, q_bits=4, q_group_size=32), {}),
    "mlx_gemma3_mxfp8": ("gemma3", dict(quantize=True, q_mode="mxfp8"), {"sliding_window_pattern": 4}),
    "mlx_qwen3_moe_nvfp4": ("qwen3_moe", dict(quantize=True, q_mode="nvfp4"), {}),
    "mlx_gpt_oss_mxfp4": ("gpt_oss_mxfp4", dict(), {}),
    "mlx_phi3_longrope": ("phi3", dict(quantize=True, q_bits=8, q_group_size=64), {
        "original_max_position_embeddings": 32,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 32,
                         "long_factor": [1.0 + 0.25 * i for i in range(32)]}}),
    "mlx_llama_linear": ("llama", dict(quantize=True, q_bits=5, q_group_size=32), {
        "rope_scaling": {"type": "linear", "factor": 4.0}}),
}


def ids_of(source):
    return st.read(os.path.join(HERE, source, "golden.safetensors"))[0]["input_ids"][1]


def logits_of(model, ids):
    out = model(mx.array(np.array(ids)[None]))
    return np.array(out[0].astype(mx.float32))


def write_golden(directory, ids):
    model, _ = load_model(pathlib.Path(directory))
    model.set_dtype(mx.float32)
    logits = logits_of(model, ids)
    held = list(ids)
    for _ in range(24):
        held.append(int(logits_of(model, held)[-1].argmax()))
    st.write(os.path.join(directory, "golden.safetensors"),
             {"logits": ("F32", logits), "input_ids": ("I32", np.array(ids, np.int32)),
              "greedy_ids": ("I32", np.array(held[len(ids):], np.int32))})


def write_tokenizer(directory):
    """mlx_lm.convert wants one; it is not kept."""
    vocab = {f"t{i}": i for i in range(384)}
    Tokenizer(models.WordLevel(vocab, unk_token="t0")).save(os.path.join(directory, "tokenizer.json"))
    with open(os.path.join(directory, "tokenizer_config.json"), "w") as file:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "t1"}, file)


def make_blocks(target):
    """gpt_oss with experts in Hugging Face's mxfp4."""
    source = os.path.join(HERE, "gpt_oss")
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    tensors, _ = st.read(os.path.join(source, "model.safetensors"))
    out = {}
    for name, (dtype, value) in tensors.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            out[name] = (dtype, value)
            continue
        exact = mx.array(np.swapaxes(st.to_float32(dtype, value), 1, 2).copy())
        weight, scales = mx.quantize(exact, group_size=32, bits=4, mode="mxfp4")
        shape = exact.shape[:2] + (exact.shape[2] // 32, 16)
        out[name + "_blocks"] = ("U8", np.array(weight).view(np.uint8).reshape(shape))
        out[name + "_scales"] = ("U8", np.array(scales))
    order = sorted(out, key=lambda key: (-st.DTYPES[out[key][0]].itemsize, key))
    st.write(os.path.join(target, "model.safetensors"), {key: out[key] for key in order})
    config = json.load(open(os.path.join(source, "config.json")))
    use_old_keys(config)
    del config["rope_scaling"]["truncate"]  # false: mlx-lm does not know that
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    json.dump(config, open(os.path.join(target, "config.json"), "w"), indent=1)


def use_old_keys(config):
    """Where mlx-lm looks for settings: the places before transformers 5."""
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_theta"] = rope["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    else:
        config["rope_theta"] = rope.pop("rope_theta")
        if rope.pop("partial_rotary_factor", 1) != 1:
            assert "partial_rotary_factor" in config
        if rope["rope_type"] != "default":
            config["rope_scaling"] = dict(rope, type=rope["rope_type"])
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts")


def wrap(directory, config):
    """As the hub has these models: a text model within one that sees, and experts in one tensor a layer."""
    path = os.path.join(directory, "model.safetensors")
    tensors, _ = st.read(path)
    out = {}
    for name, value in tensors.items():
        if ".experts." not in name:
            out[name.replace("model.", "model.language_model.", 1)] = value
    for layer in range(config["num_hidden_layers"] if "num_experts" in config else 0):
        def of(part):
            names = [f"model.layers.{layer}.mlp.experts.{e}.{part}.weight" for e in range(config["num_experts"])]
            return np.stack([tensors[name][1] for name in names])
        prefix = f"model.language_model.layers.{layer}.mlp.experts."
        out[prefix + "gate_up_proj"] = ("BF16", np.concatenate([of("gate_proj"), of("up_proj")], 1))
        out[prefix + "down_proj"] = ("BF16", of("down_proj"))
    out["model.visual.patch_embed.weight"] = ("BF16", np.zeros((4, 8), np.uint16))
    st.write(path, out)
    return {"model_type": config["model_type"].removesuffix("_text"), "tie_word_embeddings": False,
            "vision_config": {"depth": 1}, "text_config": config}


def source_of(source, changes, directory):
    copy = os.path.join(directory, source)
    shutil.copytree(os.path.join(HERE, source), copy)
    os.remove(os.path.join(copy, "golden.safetensors"))
    config = json.load(open(os.path.join(copy, "config.json")))
    if config["model_type"].startswith("qwen3_5"):
        config = wrap(copy, config)
    elif "rope_parameters" in config:
        use_old_keys(config)
    config.update(changes)
    json.dump(config, open(os.path.join(copy, "config.json"), "w"))
    write_tokenizer(copy)
    return copy


def main():
    mx.set_default_device(mx.cpu)
    names = sys.argv[1:] or ["gpt_oss_mxfp4"] + list(MODELS)
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            target = os.path.join(HERE, name)
            shutil.rmtree(target, ignore_errors=True)
            if name == "gpt_oss_mxfp4":
                make_blocks(target)
                write_golden(target, ids_of("gpt_oss"))
                continue
            source, told, changes = MODELS[name]
            copy = source_of(source, changes, os.path.join(temporary, name))
            convert(copy, target, **told)
            for file in os.listdir(target):
                if file not in ("config.json", "model.safetensors"):
                    os.remove(os.path.join(target, file))
            write_golden(target, ids_of("gpt_oss" if source == "gpt_oss_mxfp4" else source))


main()
