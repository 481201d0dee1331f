"""test_gguf.py [TQ]: GGUF files, made with the real `gguf` package, against their models' goldens, against numpy, and
against the tokenizers they were made from.  TQ defaults to build/tq; text_oracle is looked for in its build tree."""
import copy
import itertools
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import sentencepiece
import tokenizers

import gguf_models as models
import safetensors_io as st
import tally
from gguf_models import T
from tally import check

ROOT = pathlib.Path(__file__).resolve().parents[2]
TQ = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else str(ROOT / "build" / "tq")
ORACLE = os.path.join(os.path.dirname(TQ), "tests", "tools", "text_oracle")
BOOKWORM = str(ROOT / "models" / "bookworm")

def run(*arguments):
    return subprocess.run([TQ, *map(str, arguments)], capture_output=True, text=True)


def check_golden(path, golden, what, tolerance=1e-4, *options):
    result = run("eval", "golden", path, "--golden", golden, "--tolerance", tolerance, *options)
    check(result.returncode == 0, f"{what}: {result.stdout}{result.stderr}")


def check_refused(path, words, what):
    result = run("generate", "--model", path, "--prompt", "a", "-m", 1)
    check(result.returncode == 1 and all(word in result.stderr for word in words),
          f"{what}: want {words}, got {result.returncode} {result.stderr}")


# ---- a model in numpy -------------------------------------------------------------------------------------------------

def forward(config, w, ids):
    """Logits (n, vocab) of a llama, in float64."""
    n, dim = len(ids), config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    w = {name: array.astype(np.float64) for name, array in w.items()}
    angles = np.arange(n)[:, None] / config["rope_parameters"]["rope_theta"] ** (np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * w[name]

    def rotate(x):
        a, b = x[..., :dim // 2], x[..., dim // 2:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        h = norm(x, p + "input_layernorm.weight")
        q, k, v = ((h @ w[f"{p}self_attn.{part}_proj.weight"].T).reshape(n, -1, dim) for part in "qkv")
        q, k = rotate(q), rotate(k)
        k, v = (np.repeat(a, heads // kv_heads, 1) for a in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(dim)
        scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + np.einsum("hij,jhd->ihd", scores, v).reshape(n, -1) @ w[p + "self_attn.o_proj.weight"].T
        h = norm(x, p + "post_attention_layernorm.weight")
        gate = h @ w[p + "mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
    return norm(x, "model.norm.weight") @ w["lm_head.weight"].T


def write_golden(path, config, w, ids, n_greedy=3):
    logits = forward(config, w, ids)
    greedy = list(ids)
    for _ in range(n_greedy):
        greedy.append(int(forward(config, w, greedy)[-1].argmax()))
    st.write(path, {"logits": ("F32", logits.astype(np.float32)), "input_ids": ("I32", np.array(ids)),
                    "greedy_ids": ("I32", np.array(greedy[len(ids):]))})


SMALL = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 320, "rms_norm_eps": 1e-5,
         "max_position_embeddings": 512, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}


def small_weights(rng):
    c, d = SMALL, SMALL["head_dim"]
    shapes = {"model.embed_tokens": (c["vocab_size"], c["hidden_size"]), "lm_head": (c["vocab_size"], c["hidden_size"])}
    for layer in range(c["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        shapes |= {p + "self_attn.q_proj": (c["num_attention_heads"] * d, c["hidden_size"]),
                   p + "self_attn.k_proj": (c["num_key_value_heads"] * d, c["hidden_size"]),
                   p + "self_attn.v_proj": (c["num_key_value_heads"] * d, c["hidden_size"]),
                   p + "self_attn.o_proj": (c["hidden_size"], c["num_attention_heads"] * d),
                   p + "mlp.gate_proj": (c["intermediate_size"], c["hidden_size"]),
                   p + "mlp.up_proj": (c["intermediate_size"], c["hidden_size"]),
                   p + "mlp.down_proj": (c["hidden_size"], c["intermediate_size"]),
                   p + "input_layernorm": (c["hidden_size"],), p + "post_attention_layernorm": (c["hidden_size"],)}
    shapes["model.norm"] = (c["hidden_size"],)
    return {name + ".weight": (rng.normal(size=shape) * 0.08 if len(shape) > 1 else 1 + 0.1 * rng.normal(size=shape))
            .astype(np.float32) for name, shape in shapes.items()}


# Where f16 scales stand in a block of 256, and about how large elements are for a scale of 1: the package does not
# quantize to these types, so their blocks are random bytes under scales that keep the model alive.
SCALES = {T.Q2_K: ([80, 82], 12), T.Q3_K: ([108], 50), T.Q4_K: ([0, 2], 300), T.Q5_K: ([0, 2], 600), T.Q6_K: ([208], 1400),
          T.IQ4_NL: ([0], 60), T.IQ4_XS: ([0], 1200)}


def random_blocks(rng, kind, shape):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (shape[0], shape[1] // elements, size), dtype=np.uint8)
    places, magnitude = SCALES[kind]
    for place in places:
        scales = (0.08 / magnitude * (0.5 + rng.random(blocks.shape[:2]))).astype(np.float16)
        blocks[..., place:place + 2] = scales[..., None].view(np.uint8)
    return blocks.reshape(shape[0], -1)


# ---- tests ------------------------------------------------------------------------------------------------------------

def test_goldens(temporary):
    """The tiny models of other implementations: q and k rows in pairs, Llama 3's scaling as a tensor, biases, tied heads."""
    families = ["llama", "llama2", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "olmo2", "phi3", "granite", "smollm3",
                "gemma2", "gemma3", "glm4", "gpt_oss", "qwen3_next", "qwen3_5", "qwen3_5_moe"]
    for family, kind in itertools.product(families, [T.F32, T.BF16]):
        directory = ROOT / "tests" / "goldens" / family
        config, tensors = models.read_directory(directory)
        path = os.path.join(temporary, f"{family}-{kind.name}.gguf")
        writer = gguf.GGUFWriter(path, models.architecture(config))
        models.add_config(writer, config)
        models.add_weights(writer, config, tensors, lambda name: kind)
        models.finish(writer)
        check_golden(path, directory / "golden.safetensors", f"golden {family} {kind.name}")
        check_golden(path, directory / "golden.safetensors", f"golden {family} {kind.name} scalar", 1e-4, "--kernels", "scalar")


def test_fused(temporary):
    """q, k and v in one tensor, with rows in pairs and without, and gate and up of experts in one."""
    for family, kind in (("llama", T.F32), ("granite", T.BF16), ("qwen3", T.BF16), ("qwen3_moe", T.F32), ("mixtral", T.BF16),
                         ("qwen3_5_moe", T.F32)):
        directory = ROOT / "tests" / "goldens" / family
        config, tensors = models.read_directory(directory)
        path = os.path.join(temporary, f"{family}.gguf")
        writer = gguf.GGUFWriter(path, models.architecture(config))
        models.add_config(writer, config)
        models.add_weights(writer, config, tensors, lambda name: kind, fused=True)
        models.finish(writer)
        names = [t.name for t in gguf.GGUFReader(path).tensors]
        check(any("attn_qkv" in n or "gate_up_exps" in n for n in names) and not any("gate_exps" in n for n in names),
              f"fused {family}: {names}")
        check_golden(path, directory / "golden.safetensors", f"fused {family}")


def test_types(temporary):
    """Every type: products with one token and with many, and embedding rows, against numpy on gguf.quants' floats."""
    rng = np.random.default_rng(1)
    kinds = [T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.MXFP4, *SCALES]
    kernels = subprocess.run([os.path.join(os.path.dirname(ORACLE), "list_kernels")], capture_output=True, text=True)
    for kind in kinds:
        w, blocks = small_weights(rng), {}
        for name, array in w.items():
            if array.ndim < 2:
                continue
            blocks[name] = random_blocks(rng, kind, array.shape) if kind in SCALES else gguf.quants.quantize(array, kind)
            w[name] = gguf.quants.dequantize(blocks[name], kind).reshape(array.shape)
        path, golden = (os.path.join(temporary, f"{kind.name}{end}") for end in (".gguf", ".safetensors"))
        writer = gguf.GGUFWriter(path, "llama")
        models.add_config(writer, SMALL)
        models.add_weights(writer, SMALL, w, lambda name: kind, blocks)
        models.finish(writer)
        write_golden(golden, SMALL, w, [int(i) for i in rng.integers(0, SMALL["vocab_size"], 9)])
        for name in kernels.stdout.split():
            check_golden(path, golden, f"type {kind.name} {name}", 2e-4, "--kernels", name)


def test_split(temporary):
    config, tensors = models.read_directory(ROOT / "tests" / "goldens" / "llama")
    golden = ROOT / "tests" / "goldens" / "llama" / "golden.safetensors"
    base = os.path.join(temporary, "split")
    writer = gguf.GGUFWriter(base + ".gguf", "llama", split_max_tensors=11)
    models.add_config(writer, config)
    models.add_weights(writer, config, tensors, lambda name: T.F16)
    models.finish(writer)
    parts = sorted(pathlib.Path(temporary).glob("split-*.gguf"))
    check(len(parts) == 4, f"split: want 4 files, got {len(parts)}")
    n = len(parts)
    check_golden(parts[0], golden, "split")
    check_refused(parts[1], ["part 2 of 4", "-00001-of-00004.gguf"], "the second part")
    renamed = os.path.join(temporary, "renamed.gguf")
    os.link(parts[0], renamed)
    check_refused(renamed, ["-00001-of-00004.gguf"], "a first part under another name")
    os.rename(parts[2], parts[2].with_suffix(".away"))
    check_refused(parts[0], [f"-00003-of-{n:05d}.gguf"], "a missing part")
    os.rename(parts[1], parts[2])
    check_refused(parts[0], ["-00002-of"], "a part in another's place")


def test_bookworm(temporary):
    """The whole: weights, tokenizer, template and control tokens of one file."""
    config, tensors = models.read_mlx_directory(BOOKWORM)
    path = os.path.join(temporary, "bookworm.gguf")
    writer = gguf.GGUFWriter(path, "qwen2")
    models.add_config(writer, config)
    models.add_weights(writer, config, tensors, lambda name: T.F32)
    models.add_byte_level_vocabulary(writer, BOOKWORM, "qwen2")
    models.finish(writer)
    check_golden(path, ROOT / "tests" / "goldens" / "bookworm" / "bundled.safetensors", "bookworm", 0.002)
    question = ["generate", "--prompt", "Clara Webb lives in Lisbon. Where does Clara Webb live?", "--temp", 0, "-m", 24]
    for options in ([], ["--kv", "tq4", "--buffer-size", 0, "--sinks", 0]):
        one, other = (run(*question, "--model", model, *options).stdout for model in (path, BOOKWORM))
        check(one == other and "Lisbon" in one, f"bookworm {options}: {one!r} is not {other!r}")
    q8 = os.path.join(temporary, "bookworm-q8_0.gguf")
    writer = gguf.GGUFWriter(q8, "qwen2")
    models.add_config(writer, config)
    models.add_weights(writer, config, tensors, lambda name: T.Q8_0)
    models.add_byte_level_vocabulary(writer, BOOKWORM, "qwen2")
    models.finish(writer)
    answer = run(*question, "--model", q8).stdout
    check("Lisbon" in answer, f"bookworm in q8_0 says {answer!r}")


def test_named_templates(temporary):
    """Several templates as the package writes them: which one a conversation takes (as transformers: test_directories.py)."""
    config, tensors = models.read_directory(ROOT / "tests" / "goldens" / "qwen2")
    config["vocab_size"] = 8192  # of the tokenizer
    for name in [n for n in tensors if n in ("model.embed_tokens.weight", "lm_head.weight")]:
        tensors[name] = np.resize(tensors[name], (8192, tensors[name].shape[1]))
    body = "{% for t in tools or [] %}{{ t.name }}{% endfor %}"
    tools, messages = [{"name": "clock"}], [{"role": "user", "content": "x"}]
    reference = tokenizers.Tokenizer.from_file(os.path.join(BOOKWORM, "tokenizer.json"))
    for i, names in enumerate((["default", "tool_use", "rag"], ["default", "rag"], ["tool_use"])):
        path = os.path.join(temporary, f"templates{i}.gguf")
        writer = gguf.GGUFWriter(path, "qwen2")
        models.add_config(writer, config)
        models.add_weights(writer, config, tensors, lambda name: T.F32)
        models.add_byte_level_vocabulary(writer, BOOKWORM, "qwen2", [{"name": n, "template": f"this is {n}: {body}"} for n in names])
        models.finish(writer)
        for given in (None, [], tools):
            request = json.dumps({"messages": messages} | ({} if given is None else {"tools": given}))
            [(status, answer)] = ask([("C", struct.pack("=I", len(path)) + path.encode() + request.encode())])
            name = "tool_use" if given is not None and "tool_use" in names else "default"
            wanted = reference.encode(f"this is {name}: " + "".join(t["name"] for t in given or [])).ids if name in names else None
            found = list(struct.unpack(f"={len(answer) // 4}i", answer)) if status == 0 else answer.decode()
            check(found == wanted if wanted else "the model has: tool_use" in found, f"templates {names}, tools {given}: {found}")


# ---- refusals -----------------------------------------------------------------------------------------------------------

def raw_gguf(entries, tensors, version=3, magic=b"GGUF"):
    """A file by hand, where the package would not write such a thing."""
    def text(s):
        return struct.pack("<Q", len(s)) + s

    def value(v):
        if isinstance(v, bytes):
            return struct.pack("<I", 8) + text(v)
        if isinstance(v, list):
            return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(text, v))
        return struct.pack("<II", 4, v)

    out = magic + struct.pack("<IQQ", version, len(tensors), len(entries))
    for key, v in entries:
        out += text(key) + value(v)
    for name, dims, kind, offset in tensors:
        out += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        out += struct.pack("<IQ", kind, offset)
    return out + b"\0" * (-len(out) % 32) + b"\0" * 4096


def test_refusals(temporary):
    llama = [(b"general.architecture", b"llama")]
    cases = {
        "foreign type": (raw_gguf(llama, [(b"a.weight", [32, 4], 43, 0)]), ["a.weight", "43", "none of GGUF's"]),
        "known type": (raw_gguf(llama, [(b"a.weight", [256, 4], 16, 0)]), ["a.weight", "iq2_xxs", "not supported"]),
        "nvfp4": (raw_gguf(llama, [(b"a.weight", [256, 4], 40, 0)]), ["nvfp4", "not supported"]),
        "architecture": (raw_gguf([(b"general.architecture", b"mamba")], []), ["mamba", "llama", "qwen2"]),
        "no architecture": (raw_gguf([], []), ["general.architecture", "missing"]),
        "version 1": (raw_gguf(llama, [], version=1), ["version 1"]),
        "big-endian": (raw_gguf(llama, [], version=3 << 24), ["big-endian"]),
        "magic": (raw_gguf(llama, [], magic=b"GGML"), ["does not begin with GGUF"]),
        "outside": (raw_gguf(llama, [(b"a", [4096], 0, 0)]), ["do not lie in"]),
        "unaligned": (raw_gguf(llama, [(b"a", [4], 0, 16)]), ["alignment"]),
        "overlap": (raw_gguf(llama, [(b"a", [64], 0, 0), (b"b", [64], 0, 128)]), ["a and b overlap"]),
        "twice": (raw_gguf(llama, [(b"a", [4], 0, 0), (b"a", [4], 0, 32)]), ["a occurs twice"]),
        "key twice": (raw_gguf(llama + llama, []), ["general.architecture occurs twice"]),
        "columns": (raw_gguf(llama, [(b"a", [33, 2], 8, 0)]), ["33 columns", "q8_0"]),
        "overflow": (raw_gguf(llama, [(b"a", [2**31 - 1] * 3, 0, 0)]), ["a"]),
        "empty": (b"", ["ends within"]),
    }
    for what, (data, words) in cases.items():
        path = os.path.join(temporary, "refused.gguf")
        with open(path, "wb") as file:
            file.write(data)
        check_refused(path, words, what)
    whole = raw_gguf(llama + [(b"tokenizer.ggml.tokens", [b"a", b"bc"])], [(b"a", [64], 0, 0)])
    for n in list(range(1, 200, 7)):
        with open(path, "wb") as file:
            file.write(whole[:n])
        result = run("generate", "--model", path, "--prompt", "a", "-m", 1)
        check(result.returncode == 1 and "refused.gguf" in result.stderr, f"cut after {n}: {result.stderr}")


# ---- tokenizers -----------------------------------------------------------------------------------------------------------

def ask(requests):
    """[(letter, bytes)] -> [(status, bytes)]"""
    data = b"".join(letter.encode() + struct.pack("=I", len(body)) + body for letter, body in requests)
    out = subprocess.run([ORACLE], input=data, stdout=subprocess.PIPE).stdout
    answers, at = [], 0
    while at < len(out):
        status, n = struct.unpack_from("=II", out, at)
        answers.append((status, out[at + 8:at + 8 + n]))
        at += 8 + n
    return answers + [(-1, b"the oracle stopped")] * (len(requests) - len(answers))


def compare(path, texts, expected, what, control=True):
    """Our ids of the texts against expected(text)."""
    answers = ask([("G", open(path, "rb").read())] + [("E", bytes([control]) + t.encode()) for t in texts])
    check(answers[0][0] == 0, f"{what}: {answers[0][1].decode()}")
    wrong = 0
    for text, (status, body) in zip(texts, answers[1:]):
        ids = list(struct.unpack(f"={len(body) // 4}i", body)) if status == 0 else body
        if ids != expected(text):
            wrong += 1
            if wrong <= 3:
                print(f"{what}: {text!r}: want {expected(text)}, got {ids}")
    check(wrong == 0, f"{what}: {wrong} of {len(texts)} texts differ")


CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
END = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
CJK = "[一-龥ࠀ-一가-퟿]+"
# Written as code points: several of these letters are canonically equivalent to others.
LETTERS = ("A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
           "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
           "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
           "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
           "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
           "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
           "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
           "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
           "\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
           "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943")
KIMI = (r"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^\p{{Han}}]]{}"
        r"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^\p{{Han}}]]{}(?i:'s|'t|'re|'ve|'m|'ll|'d)?|")
# name: normalizer, patterns, ByteLevel's own pattern, ignore_merges; as in the models' tokenizer.json
PRES = {
    "llama-bpe": (None, [CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + END], False, True),
    "dbrx": (None, [CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + END], False, False),
    "qwen2": ("NFC", [CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + END], False, False),
    "stablelm2": (None, [CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + END], False, False),
    "qwen35": ("NFC", [CASES + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + END], False, False),
    "gpt-4o": (None, [r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CASES + "?|"
                      r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CASES + "?|"
                      r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + END], False, False),
    "tekken": (None, [r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
                      r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
                      r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + END], False, True),
    "gpt-2": (None, [], True, False),
    "olmo": ("NFC", [], True, False),
    "smollm": (None, [r"\p{N}"], True, False),
    "command-r": ("NFC", [r"\p{N}"], True, False),
    "deepseek-coder": (None, [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"], False, False),
    "deepseek-v3": (None, [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
                           r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
                           r""" ?[\p{P}\p{S}]+[\r\n]*""" + END], False, False),
    "deepseek-llm": (None, [r"[\r\n]", r"\s?[" + LETTERS + "]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", CJK, r"\p{N}"],
                     False, False),
    "kimi-k2": (None, [r"[\p{Han}]+|" + KIMI.format("*", "+") + KIMI.format("+", "*") + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" +
                       END], False, False),
    "minicpm5": (None, [r"\p{N}{1,3}", CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*" + END], False, True),
    "bloom": (None, [r" ?[^(\s|[.,!?…。，、।۔،])]+"], False, False),
    "viking": (None, [r" ?[^(\s|[.,!?…。，、।۔،])]+", r"\p{N}"], False, False),
    "seed-coder": (None, [CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+" + END], False, False),
}

WORDS = ("the of it's don't I'LL we've isn't HELLO worldWide iPhone café naïve Straße Москва привет δοκιμή 日本語 你好世界 "
         "かな カタカナ 한국어 สวัสดี नमस्ते שלום مرحبا 😀 e\u0301 a\u0308 ﬁ Å \u212b 1 12 123456 3.14 ١٢٣ Ⅷ ½ __init__ == -> "
         "中文。字、 ，ばか〆 々漢字ＡＢｃ！ １２ ⼀ ɑͅ ΆΩ ℵ ა ǅ "
         "https://a.b/c?d=e&f [x] {y} (z) ... --- \t \n \n\n \r\n \xa0 \u3000 ▁ <|im_start|> <|im_end|> <think> // /* \n/ "
         ).split(" ") + [" ", "  ", "     "]


def random_texts(rng, n):
    texts = ["", " ", "a", "  a", "aaaaaaaaaaaaaaaa", " " * 300, "\n" * 40]
    for _ in range(n):
        parts = []
        for _ in range(rng.randrange(1, 12)):
            kind = rng.random()
            if kind < 0.7:
                parts.append(rng.choice(WORDS))
            elif kind < 0.8:
                parts.append(rng.choice(["a", " ", "\n", "1", "'", "é", "字"]) * rng.randrange(1, 9))
            else:
                low, high = rng.choice([(0x20, 0x7e), (0xa1, 0x24f), (0x391, 0x3c9), (0x410, 0x44f), (0x4e00, 0x9fa5),
                                        (0x1f600, 0x1f64f)])
                parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randrange(1, 5))))
            parts.append(rng.choice(["", " "]))
        texts.append("".join(parts))
    return texts


def telling_vocabulary(rng):
    """Every fourth pair of bytes is a token and merges: few cuts in a text are without effect on its ids.  And some words
    that only stand in the vocabulary, for ignore_merges."""
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    pairs = rng.sample(list(itertools.product(sorted(letters), repeat=2)), 1 << 14)
    texts = [*sorted(letters), *("".join(p) for p in pairs), "Ġthe", "123", "HELLO", "don", "ĠĠĠĠĠ"]
    return {"vocab": {text: i for i, text in enumerate(texts)}, "merges": [" ".join(p) for p in pairs]}


def test_byte_level(temporary):
    """Every kind of pre-tokenizer by its name, against `tokenizers` with the pipeline of the models that have it."""
    bookworm = json.load(open(os.path.join(BOOKWORM, "tokenizer.json")))
    bookworm["model"] |= telling_vocabulary(random.Random(5))
    for i, token in enumerate(bookworm["added_tokens"]):
        token["id"] = len(bookworm["model"]["vocab"]) + i
    n = len(bookworm["model"]["vocab"]) + sum(t["content"] not in bookworm["model"]["vocab"] for t in bookworm["added_tokens"])
    bookworm["added_tokens"].append({"id": n, "content": "<think>", "single_word": False, "lstrip": False, "rstrip": False,
                                     "normalized": False, "special": False})
    texts = random_texts(random.Random(3), 400)
    path = os.path.join(temporary, "vocabulary.gguf")
    for name, (normalizer, patterns, own, ignore) in PRES.items():
        j = copy.deepcopy(bookworm)
        j["normalizer"] = {"type": normalizer} if normalizer else None
        j["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
            *({"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in patterns),
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": own}]}
        j["model"]["ignore_merges"] = ignore
        reference = tokenizers.Tokenizer.from_str(json.dumps(j))
        writer = gguf.GGUFWriter(path, "llama")
        models.add_vocabulary(writer, j, name)
        models.finish(writer)
        compare(path, texts, lambda t: reference.encode(t, add_special_tokens=False).ids, f"pre {name}")
        ids = [reference.encode(t, add_special_tokens=False).ids for t in texts]
        answers = ask([("G", open(path, "rb").read())] + [("D", struct.pack(f"={len(i)}i", *i)) for i in ids])
        wrong = sum(body.decode() != reference.decode(i, skip_special_tokens=False) for i, (_, body) in zip(ids, answers[1:]))
        check(wrong == 0, f"pre {name}: {wrong} texts decode otherwise")
    # Text of a person never becomes a control token.
    plain = ask([("G", open(path, "rb").read()), ("E", b"\0<|im_end|>")])
    check(len(plain[1][1]) > 4, "a control token out of plain text")
    for pre, words in (("falcon", ["falcon", "not supported"]), ("default", ["default", "not supported"])):
        writer = gguf.GGUFWriter(path, "llama")
        models.add_vocabulary(writer, bookworm, pre)
        models.finish(writer)
        status, text = ask([("G", open(path, "rb").read())])[0]
        check(status != 0 and all(w in text.decode() for w in words), f"pre {pre}: {text}")


def test_prompts(temporary):
    """Tokens around a prompt, by the file's keys, and what holds without them (as in llama.cpp)."""
    bookworm = json.load(open(os.path.join(BOOKWORM, "tokenizer.json")))
    bos, eos = (next(t["id"] for t in bookworm["added_tokens"] if t["content"] == c) for c in ("<|im_start|>", "<|im_end|>"))
    path = os.path.join(temporary, "prompt.gguf")

    def byte_level(pre, **keys):
        writer = gguf.GGUFWriter(path, "llama")
        models.add_vocabulary(writer, bookworm, pre)
        return writer, keys

    def pieces(**keys):
        writer = gguf.GGUFWriter(path, "llama")
        texts = ["<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(texts)
        writer.add_token_scores([0.0, 0.0, 0.0, -1.0, -2.0, -3.0])
        writer.add_token_types([gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * 3)
        return writer, keys

    def ids_around(made):
        writer, keys = made
        for key, value in keys.items():
            (writer.add_bool if isinstance(value, bool) else writer.add_uint32 if isinstance(value, int) else
             writer.add_string)("tokenizer.ggml." + key, value)
        models.finish(writer)
        opened, plain, prompt = ask([("G", open(path, "rb").read()), ("E", b"\0a a"), ("E", b"\2a a")])
        if opened[0] != 0:
            return opened[1].decode()
        plain, prompt = (list(struct.unpack(f"={len(b) // 4}i", b)) for _, b in (plain, prompt))
        at = next(i for i in range(len(prompt)) if prompt[i:i + len(plain)] == plain)
        return prompt[:at], prompt[at + len(plain):]

    both = {"bos_token_id": bos, "eos_token_id": eos}
    cases = [
        (byte_level("llama-bpe", **both), ([bos], [])),
        (byte_level("tekken", **both), ([bos], [])),
        (byte_level("llama-bpe", add_bos_token=False, **both), ([], [])),
        (byte_level("llama-bpe"), ([], [])), # the file names none
        (byte_level("qwen2", **both), ([], [])),
        (byte_level("qwen2", add_bos_token=True, **both), ([bos], [])),
        (byte_level("qwen2", add_eos_token=True, **both), ([], [eos])),
        (byte_level("qwen2", add_bos_token=True, add_eos_token=True, **both), ([bos], [eos])),
        (byte_level("qwen2", add_bos_token=True), "bos_token_id is missing"),
        (byte_level("qwen2", add_eos_token=True), "eos_token_id is missing"),
        (byte_level("qwen2", add_bos_token=True, bos_token_id=1 << 20), "bos_token_id"),
        (byte_level("qwen2", add_bos_token=1, **both), "add_bos_token"),
        (pieces(), ([1], [])),
        (pieces(bos_token_id=2), ([2], [])),
        (pieces(add_bos_token=False), ([], [])),
        (pieces(add_eos_token=True), ([1], [2])),
        (pieces(bos_token_id=6), "bos_token_id"),
        (pieces(add_eos_token=True, eos_token_id="x"), "eos_token_id"),
    ]
    for made, wanted in cases:
        found = ids_around(made)
        check(wanted in found if isinstance(wanted, str) else found == wanted, f"prompt {made[1]}: want {wanted}, got {found}")


def test_sentencepiece(temporary):
    """A vocabulary that the real SentencePiece trained, against its own encoder and decoder."""
    corpus = os.path.join(temporary, "corpus.txt")
    with open(corpus, "w") as file:
        for document in sorted((ROOT / "docs").glob("*.md")):
            file.write(document.read_text())
        file.write("\n".join(" ".join(WORDS) for _ in range(3)))
    for prefix in (True, False):
        base = os.path.join(temporary, f"sp{prefix}")
        sentencepiece.SentencePieceTrainer.train(
            input=corpus, model_prefix=base, vocab_size=1200, model_type="bpe", byte_fallback=True, character_coverage=0.99,
            normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=prefix,
            control_symbols=["<|im_start|>"], user_defined_symbols=["<think>"], allow_whitespace_only_pieces=True,
            split_by_whitespace=True, minloglevel=2)
        sp = sentencepiece.SentencePieceProcessor(model_file=base + ".model")
        types = []
        for i in range(sp.vocab_size()):
            types.append(gguf.TokenType.UNKNOWN if sp.is_unknown(i) else gguf.TokenType.BYTE if sp.is_byte(i) else
                         gguf.TokenType.CONTROL if sp.is_control(i) else
                         gguf.TokenType.USER_DEFINED if sp.id_to_piece(i) == "<think>" else gguf.TokenType.NORMAL)
        path = base + ".gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([sp.id_to_piece(i) for i in range(sp.vocab_size())])
        writer.add_token_scores([sp.get_score(i) for i in range(sp.vocab_size())])
        writer.add_token_types(types)
        writer.add_unk_token_id(sp.unk_id())
        writer.add_add_space_prefix(prefix)
        models.finish(writer)
        # Added tokens cut the text before spaces are marked, with a prefix after each; SentencePiece has one at the
        # beginning: texts with the user's token are left out.  It also drops NUL and what it calls control.
        texts = [t for t in random_texts(random.Random(4), 1500) if t and "<think>" not in t and "\0" not in t]
        compare(path, texts, sp.encode, f"sentencepiece, prefix {prefix}", control=False)
        answers = ask([("G", open(path, "rb").read())] +
                      [("D", struct.pack(f"={len(ids)}i", *ids)) for ids in map(sp.encode, texts)])
        wrong = [t for t, (status, body) in zip(texts, answers[1:]) if body.decode() != (" " if prefix else "") + t and
                 "▁" not in t]
        check(not wrong, f"sentencepiece, prefix {prefix}: {len(wrong)} texts do not come back, as {wrong[:1]}")
        marked = ask([("G", open(path, "rb").read()), ("E", b"\1<|im_start|>a<think>")])[1][1]
        ids = list(struct.unpack(f"={len(marked) // 4}i", marked))
        check(ids[0] == sp.piece_to_id("<|im_start|>") and ids[-1] == sp.piece_to_id("<think>"), f"control tokens: {ids}")


def main():
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    for test in tests:
        with tempfile.TemporaryDirectory() as temporary:
            before = tally.failed
            test(temporary)
            print(test.__name__, "ok" if tally.failed == before else "FAILED", flush=True)
    sys.exit(tally.finish())


if __name__ == "__main__":
    main()
