"""gguf_models.py: GGUF files of models, made with the real `gguf` package as the converters of Hugging Face models do."""
import json
import os

import gguf
import numpy as np

import safetensors_io as st

T = gguf.GGMLQuantizationType
A = gguf.MODEL_ARCH
ARCHITECTURES = {"llama": A.LLAMA, "mistral": A.LLAMA, "mixtral": A.LLAMA, "qwen2": A.QWEN2, "qwen3": A.QWEN3,
                 "qwen3_moe": A.QWEN3MOE, "olmo2": A.OLMO2, "phi3": A.PHI3, "granite": A.GRANITE, "smollm3": A.SMOLLM3,
                 "gemma2": A.GEMMA2, "gemma3_text": A.GEMMA3, "glm4": A.GLM4, "gpt_oss": A.GPT_OSS,
                 "qwen3_next": A.QWEN3NEXT, "qwen3_5_text": A.QWEN35, "qwen3_5_moe_text": A.QWEN35MOE}
HYBRID = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
PAIRED = ("llama", "mistral", "mixtral", "granite", "smollm3")


def architecture(config):
    return gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config["model_type"]]]


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
    if config.get("intermediate_size"):
        writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters") or {}
    if "full_attention" in rope:
        writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
        writer.add_float32(f"{writer.arch}.rope.freq_base_swa", rope["sliding_attention"]["rope_theta"])
    else:
        writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_rope_dimension_count(int(dim * rope.get("partial_rotary_factor", 1)))
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
        if config.get("layer_types"):
            writer.add_array(f"{writer.arch}.attention.sliding_window_pattern",
                             [t == "sliding_attention" for t in config["layer_types"]])
    for key, add in (("num_local_experts", writer.add_expert_count), ("num_experts", writer.add_expert_count), ("num_experts_per_tok", writer.add_expert_used_count),
                     ("moe_intermediate_size", writer.add_expert_feed_forward_length),
                     ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
                     ("final_logit_softcapping", writer.add_final_logit_softcapping),
                     ("attention_multiplier", writer.add_attention_scale),
                     ("embedding_multiplier", writer.add_embedding_scale),
                     ("residual_multiplier", writer.add_residual_scale), ("logits_scaling", writer.add_logit_scale)):
        if config.get(key):
            add(config[key])
    if config["model_type"] in HYBRID:
        writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
        writer.add_ssm_state_size(config["linear_key_head_dim"])
        writer.add_ssm_group_count(config["linear_num_key_heads"])
        writer.add_ssm_time_step_rank(config["linear_num_value_heads"])
        writer.add_ssm_inner_size(config["linear_value_head_dim"] * config["linear_num_value_heads"])
        writer.add_full_attention_interval(config["full_attention_interval"])
        if config["model_type"] != "qwen3_next":
            writer.add_rope_dimension_sections([2, 3, 3, 0])
        if config.get("shared_expert_intermediate_size"):
            writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_vocab_size(config["vocab_size"])


def tile(array, axis, config, size):
    """Value heads of `size` rows along an axis: from those of a key head together to one of each key head in turn."""
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    shape = array.shape
    parts = array.reshape(*shape[:axis], keys, values // keys, size, *shape[axis + 1:])
    return parts.swapaxes(axis, axis + 1).reshape(shape)


def prepare_delta(config, name, array):
    """A tensor of a delta net as the converters write it: {name: array}."""
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    key, value = config["linear_key_head_dim"], config["linear_value_head_dim"]
    ratio = values // keys
    path, part = name.split("linear_attn.")
    path += "linear_attn."
    tiled = config["model_type"] != "qwen3_next"
    if part == "in_proj_qkvz.weight":
        heads = array.reshape(keys, -1, array.shape[1])
        q, k, v, z = (x.reshape(-1, array.shape[1])
                      for x in np.split(heads, np.cumsum([key, key, ratio * value]), axis=1))
        return {path + "in_proj_qkv.weight": np.concatenate([q, k, v]), path + "in_proj_z.weight": z}
    if part == "A_log":
        array = -np.exp(array)
    if part == "conv1d.weight":
        array = array.reshape(array.shape[0], -1)
    if tiled and part in ("in_proj_qkv.weight", "conv1d.weight"):
        array = np.concatenate([array[:2 * keys * key], tile(array[2 * keys * key:], 0, config, value)])
    if tiled and part == "in_proj_z.weight":
        array = tile(array, 0, config, value)
    if tiled and part in ("in_proj_a.weight", "in_proj_b.weight", "A_log", "dt_bias"):
        array = tile(array, 0, config, 1)
    if tiled and part == "out_proj.weight":
        array = tile(array, 1, config, value)
    return {path + part.replace("dt_bias", "dt_proj.bias"): array}


def prepare(config, tensors):
    """What the converters do to weights besides pairs: stack experts, part gpt-oss's, add 1 to Gemma's norms."""
    out, experts = {}, {}
    for name, array in tensors.items():
        if config["model_type"].startswith("gemma") and name.endswith("norm.weight"):
            array = array + np.float32(1)
        if config["model_type"] in HYBRID and name.endswith("norm.weight") and "linear_attn" not in name:
            array = array + np.float32(1)
        if "linear_attn" in name:
            out |= prepare_delta(config, name, array)
            continue
        if name.endswith("shared_expert_gate.weight"):
            array = array.reshape(-1)
        if ".experts." not in name:
            out[name.replace("block_sparse_moe", "mlp")] = array
            continue
        path, rest = name.replace("block_sparse_moe", "mlp").split(".experts.")
        if config["model_type"] == "gpt_oss":
            bias = rest.endswith("_bias")
            part = rest.removesuffix("_bias")
            array = array if bias else array.swapaxes(1, 2)
            end = ".bias" if bias else ".weight"
            if part == "gate_up_proj":
                out[f"{path}.experts.gate_proj{end}"] = array[:, ::2]
                out[f"{path}.experts.up_proj{end}"] = array[:, 1::2]
            else:
                out[f"{path}.experts.down_proj{end}"] = array
            continue
        number, part, _ = rest.split(".")
        part = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}.get(part, part)
        experts.setdefault(f"{path}.experts.{part}.weight", {})[int(number)] = array
    return out | {name: np.stack([parts[i] for i in range(len(parts))]) for name, parts in experts.items()}


def fuse(tensors, layer, attention):
    """tensors: {GGUF's name: (array, type)}.  Put a layer's q, k and v, and its experts' gate and up, into one each."""
    for whole, parts, axis in (("attn_qkv", ("attn_q", "attn_k", "attn_v"), 0), ("ffn_gate_up_exps", ("ffn_gate_exps", "ffn_up_exps"), 1)):
        names = [f"blk.{layer}.{part}.weight" for part in parts]
        if (attention or axis) and all(name in tensors for name in names):
            arrays, kinds = zip(*(tensors.pop(name) for name in names))
            tensors[f"blk.{layer}.{whole}.weight"] = np.concatenate(arrays, axis), kinds[0]


def add_weights(writer, config, tensors, type_of, blocks=None, fused=False):
    """tensors: {Hugging Face name: float32 array}.  type_of(name) says how a matrix is stored; blocks: {name: bytes} of
    matrices that are quantized already, rows in Hugging Face's order."""
    family = config["model_type"]
    names = gguf.get_tensor_name_map(ARCHITECTURES[family], config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    out = {}
    for name, array in prepare(config, tensors).items():
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None and name == "lm_head.weight":
            new = "output.weight"  # Gemma's models have none, its goldens do
        if name.endswith("sinks"):
            new += ".weight"
        if new is None:
            raise KeyError(f"{family}: {name}")
        kind = T.F32 if array.ndim == 1 or name.endswith(".bias") else type_of(name)
        data = (blocks or {}).get(name)
        if data is None:
            data = array if kind == T.F32 else gguf.quants.quantize(array, kind)
        part = name.split(".")[-2]
        if family in PAIRED and part in heads:
            data = permute(data, heads[part])
        out[new] = data, kind
    for layer in range(config["num_hidden_layers"] if fused else 0):
        fuse(out, layer, family not in HYBRID)  # there attn_qkv is of the delta nets
    for name, (data, kind) in out.items():
        writer.add_tensor(name, np.ascontiguousarray(data), raw_dtype=kind)
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


def add_byte_level_vocabulary(writer, directory, pre, templates=None):
    """tokenizer.json and tokenizer_config.json -> tokens, types, merges, control tokens, template."""
    tokenizer = json.load(open(os.path.join(directory, "tokenizer.json")))
    settings = json.load(open(os.path.join(directory, "tokenizer_config.json")))
    add_vocabulary(writer, tokenizer, pre)
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    writer.add_eos_token_id(ids[settings["eos_token"]])
    if settings.get("bos_token"):
        writer.add_bos_token_id(ids[settings["bos_token"]])
    writer.add_add_bos_token(False)
    if templates or settings.get("chat_template"):
        writer.add_chat_template(templates or settings["chat_template"])


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
