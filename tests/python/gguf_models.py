"""gguf_models.py: GGUF files of models, made with the real `gguf` package as the converters of Hugging Face models do."""
import json
import os

import gguf
import numpy as np

import safetensors_io as st

T = gguf.GGMLQuantizationType
ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}


def permute(weights, n_heads):
    """Rows of each head from two halves to rotary pairs, as for the architecture llama."""
    return (weights.reshape(n_heads, 2, weights.shape[0] // n_heads // 2, *weights.shape[1:])
            .swapaxes(1, 2).reshape(weights.shape))


def rope_factors(config):
    """Llama 3's scaling as a divisor a pair."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type") != "llama3":
        return None
    dim = config["head_dim"]
    freqs = 1.0 / rope["rope_theta"] ** (np.arange(0, dim, 2) / dim)
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for freq in freqs:
        wavelength = 2 * np.pi / freq
        if wavelength < high:
            factors.append(1)
        elif wavelength > low:
            factors.append(rope["factor"])
        else:
            smooth = ((rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"])
                      / (rope["high_freq_factor"] - rope["low_freq_factor"]))
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def add_config(writer, config):
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters") or {}
    writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_rope_dimension_count(dim)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_vocab_size(config["vocab_size"])


def add_weights(writer, config, tensors, type_of, blocks=None):
    """tensors: {Hugging Face name: float32 array}.  type_of(name) says how a matrix is stored; blocks: {name: bytes} of
    matrices that are quantized already, rows in Hugging Face's order."""
    family = config["model_type"]
    names = gguf.get_tensor_name_map(ARCHITECTURES[family], config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, array in tensors.items():
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        kind = T.F32 if array.ndim == 1 else type_of(name)
        data = (blocks or {}).get(name)
        if data is None:
            data = array if kind == T.F32 else gguf.quants.quantize(array, kind)
        part = name.split(".")[-2]
        if family == "llama" and part in heads:
            data = permute(data, heads[part])
        writer.add_tensor(new, np.ascontiguousarray(data), raw_dtype=kind)
    factors = rope_factors(config) if family == "llama" else None
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_directory(directory):
    """The config and the weights, as float32, of a directory of plain safetensors."""
    config = json.load(open(os.path.join(directory, "config.json")))
    tensors, _ = st.read(os.path.join(directory, "model.safetensors"))
    return config, {name: st.to_float32(*entry) for name, entry in tensors.items()}


def read_mlx_directory(directory):
    """The same of a directory whose matrices MLX quantized to 4 bits."""
    config = json.load(open(os.path.join(directory, "config.json")))
    tensors, _ = st.read(os.path.join(directory, "model.safetensors"))
    out = {}
    for name, (dtype, array) in tensors.items():
        if name.endswith((".scales", ".biases")):
            continue
        if dtype != "U32":
            out[name] = st.to_float32(dtype, array)
            continue
        group = config["quantization"]["group_size"]
        codes = (array[:, :, None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).astype(np.float32)
        codes = codes.reshape(array.shape[0], -1, group)
        path = name.removesuffix(".weight")
        scales, biases = (st.to_float32(*tensors[path + end])[:, :, None] for end in (".scales", ".biases"))
        out[name] = (codes * scales + biases).reshape(array.shape[0], -1)
    return config, out


def add_byte_level_vocabulary(writer, directory, pre):
    """tokenizer.json and tokenizer_config.json -> tokens, types, merges, control tokens, template."""
    tokenizer = json.load(open(os.path.join(directory, "tokenizer.json")))
    settings = json.load(open(os.path.join(directory, "tokenizer_config.json")))
    add_vocabulary(writer, tokenizer, pre)
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    writer.add_eos_token_id(ids[settings["eos_token"]])
    if settings.get("bos_token"):
        writer.add_bos_token_id(ids[settings["bos_token"]])
    writer.add_add_bos_token(False)
    if settings.get("chat_template"):
        writer.add_chat_template(settings["chat_template"])


def add_vocabulary(writer, tokenizer, pre):
    vocab = {**tokenizer["model"]["vocab"], **{t["content"]: t["id"] for t in tokenizer["added_tokens"]}}
    texts = {i: text for text, i in vocab.items()}
    added = {t["id"]: t for t in tokenizer["added_tokens"]}
    n = max(texts) + 1
    types = []
    for i in range(n):
        if i not in texts:
            types.append(gguf.TokenType.UNUSED)
        elif i in added:
            types.append(gguf.TokenType.CONTROL if added[i]["special"] else gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([texts.get(i, f"[PAD{i}]") for i in range(n)])
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in tokenizer["model"]["merges"]])
