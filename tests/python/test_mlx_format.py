"""test_mlx_format.py [TQ]: does `tq quantize` write what MLX would?  TQ defaults to build/tq.

Three oracles: results of the real mlx (goldens/mlx), a numpy version of its quantizer, and the reconstruction error
that a grid of that step allows.  Needs numpy."""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

import safetensors_io as st
from tally import check, finish

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
TQ = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.join(ROOT, "build", "tq")
ALL_BITS, ALL_GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)

def same(actual, expected, what):
    check(actual is not None and actual[0] == expected[0] and np.array_equal(actual[1], expected[1]), what)


def run(*arguments):
    return subprocess.run([TQ, "quantize", *map(str, arguments)], capture_output=True, text=True)


def make_source(directory, tensors, config=None, header_multiple=8):
    os.makedirs(directory)
    st.write(os.path.join(directory, "model.safetensors"), tensors, header_multiple)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump(config or {"model_type": "test", "rms_norm_eps": 1e-06, "scale": 0.08838834764831845}, file)
    return directory


# ---- MLX's format, written down a second time -----------------------------------------------------------------------

def quantize(x, bits, group):
    """x: (rows, cols) float32 -> codes (rows, cols), scales, biases (rows, cols / group), all in float32."""
    rows, cols = x.shape
    g = x.reshape(rows, cols // group, group)
    levels = np.float32(2 ** bits - 1)
    low, high = g.min(-1), g.max(-1)
    low_is_edge = np.abs(low) > np.abs(high)
    step = np.maximum((high - low) / levels, np.float32(1e-7))
    step = np.where(low_is_edge, step, -step)
    edge = np.where(low_is_edge, low, high)
    q0 = np.rint(edge / step)
    scale = np.where(q0 != 0, edge / np.where(q0 != 0, q0, 1), step).astype(np.float32)
    bias = np.where(q0 != 0, edge, 0).astype(np.float32)
    q = np.clip(np.rint((g - bias[..., None]) / scale[..., None]), 0, levels)
    return q.astype(np.uint8).reshape(rows, cols), scale, bias


def unpack(words, bits):
    """One little-endian bit stream a row -> codes (rows, cols)."""
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    planes = stream.reshape(words.shape[0], -1, bits).astype(np.int64)
    return (planes << np.arange(bits)).sum(-1)


# ---- tests ----------------------------------------------------------------------------------------------------------

def test_equals_mlx(temporary):
    """Bit for bit what the real mlx made of difficult rows."""
    golden, _ = st.read(os.path.join(ROOT, "tests", "goldens", "mlx", "golden.safetensors"))
    source = make_source(os.path.join(temporary, "golden"),
                         {f"{d}.weight": golden[f"{d}.weight"] for d in ("F32", "BF16", "F16")})
    for bits in ALL_BITS:
        for group in ALL_GROUPS:
            target = os.path.join(temporary, f"golden-{bits}-{group}")
            result = run(source, target, "--bits", bits, "--group-size", group)
            check(result.returncode == 0, f"golden {bits} {group}: {result.stderr}")
            if result.returncode:
                continue
            actual, _ = st.read(os.path.join(target, "model.safetensors"))
            check(len(actual) == 9, "three tensors a matrix")
            for dtype in ("BF16", "F16", "F32"):
                for part in ("weight", "scales", "biases"):
                    same(actual.get(f"{dtype}.{part}"), golden[f"{dtype}.b{bits}.g{group}.{part}"],
                         f"mlx {dtype} {bits} bits, groups of {group}: {part}")


def test_whole_directory(temporary):
    """Every tensor arrives: matrices packed and within half a step, the rest unchanged, the config says which."""
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((300, 384)) * 0.05).astype(np.float32)  # more rows than are quantized at once
    tensors = {"model.layers.0.mlp.up_proj.weight": ("BF16", st.to_bf16(x)),
               "model.odd.weight": ("BF16", st.to_bf16(x[:3, :100])),
               "model.norm.weight": ("F32", x[0]),
               "model.up_proj.bias": ("BF16", st.to_bf16(x[1, :3])),
               "model.conv.weight": ("F16", x[:4, :64].reshape(4, 8, 8).astype(np.float16))}
    source = make_source(os.path.join(temporary, "whole"), tensors, header_multiple=1)
    with open(os.path.join(source, "tokenizer.json"), "w") as file:
        file.write("{}")
    with open(os.path.join(source, "pytorch_model.bin"), "w") as file:
        file.write("not copied")
    os.mkdir(os.path.join(source, "additional_chat_templates"))
    with open(os.path.join(source, "additional_chat_templates", "tool_use.jinja"), "w") as file:
        file.write("{{ tools }}")
    matrix = "model.layers.0.mlp.up_proj"
    exact = st.to_float32(*tensors[matrix + ".weight"])
    for bits in ALL_BITS:
        for group in ALL_GROUPS:
            what = f"{bits} bits, groups of {group}"
            target = os.path.join(temporary, f"whole-{bits}-{group}")
            result = run(source, target, "--bits", bits, "--group-size", group)
            check(result.returncode == 0 and result.stdout.count("\n") == 1, f"{what}: {result.stderr}")
            if result.returncode:
                continue
            check(sorted(os.listdir(target)) == ["additional_chat_templates", "config.json", "model.safetensors", "tokenizer.json"] and
                  os.listdir(os.path.join(target, "additional_chat_templates")) == ["tool_use.jinja"],
                  f"{what}: files {os.listdir(target)}")
            actual, metadata = st.read(os.path.join(target, "model.safetensors"))
            check(metadata == {"format": "mlx"}, f"{what}: metadata {metadata}")
            check(len(actual) == len(tensors) + 2, f"{what}: {sorted(actual)}")
            for name in tensors:
                if name != matrix + ".weight":
                    same(actual.get(name), tensors[name], f"{what}: {name} is unchanged")

            codes, scales, biases = quantize(exact, bits, group)
            check(actual[matrix + ".weight"][1].shape == (300, 384 * bits // 32), f"{what}: shape")
            check(np.array_equal(unpack(actual[matrix + ".weight"][1], bits), codes), f"{what}: codes")
            same(actual[matrix + ".scales"], ("BF16", st.to_bf16(scales)), f"{what}: scales")
            same(actual[matrix + ".biases"], ("BF16", st.to_bf16(biases)), f"{what}: biases")
            # A value is half a step from its code, or more where the stretched grid ends short of the range; scale
            # and bias are then rounded by at most 2^-9 of themselves.
            rounded = [np.repeat(st.to_float32(*actual[f"{matrix}.{part}"]), group, axis=1)
                       for part in ("scales", "biases")]
            decoded = rounded[0] * unpack(actual[matrix + ".weight"][1], bits) + rounded[1]
            ranges = exact.reshape(300, -1, group)
            reach = np.repeat((ranges.max(-1) - ranges.min(-1)), group, axis=1)
            bound = np.maximum(np.abs(rounded[0]) * 0.5, np.abs(reach) / (2 ** bits - 1)) + \
                2.0 ** -8 * (np.abs(rounded[1]) + np.abs(rounded[0]) * (2 ** bits - 1))
            check((np.abs(decoded - exact) <= bound).all(), f"{what}: reconstruction")
            check(np.abs(decoded - exact).max() > 0, f"{what}: the comparison compares")

            config = json.load(open(os.path.join(target, "config.json")))
            entry = {"group_size": group, "bits": bits, "model.odd": False}
            check(config.pop("quantization", None) == entry, f"{what}: quantization")
            check(config.pop("quantization_config", None) == entry, f"{what}: quantization_config")
            check(config == json.load(open(os.path.join(source, "config.json"))), f"{what}: the rest of the config")


def test_refusals(temporary):
    """What is refused, with which exit code, and that nothing is left behind."""
    x = np.ones((2, 64), np.float32)
    plain = make_source(os.path.join(temporary, "plain"), {"a.weight": ("F32", x)})
    bad = x.copy()
    bad[1, 3] = np.nan
    wide = np.zeros((2, 64), np.float32)
    wide[0, :2] = 3e38, -3e38
    sources = {"nan": ({"a.weight": ("F32", bad)}, "not finite"),
               "range": ({"a.weight": ("F32", wide)}, "not finite"),
               "integers": ({"a.weight": ("I32", x.astype(np.int32))}, "i32"),
               "nothing": ({"a.weight": ("F32", x[:, :48])}, "no matrix"),
               "scales": ({"a.weight": ("F32", x), "a.scales": ("F32", x)}, "already quantized")}
    for name, (tensors, text) in sources.items():
        source = make_source(os.path.join(temporary, "bad-" + name), tensors)
        result = run(source, os.path.join(temporary, "out"))
        check(result.returncode == 1 and text in result.stderr and result.stderr.startswith("tq quantize: "),
              f"{name}: {result.returncode} {result.stderr}")
    foreign = make_source(os.path.join(temporary, "bad-awq"), {"a.weight": ("F32", x)},
                          {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}})
    result = run(foreign, os.path.join(temporary, "out"))
    check(result.returncode == 1 and "awq" in result.stderr, f"awq: {result.stderr}")
    done = os.path.join(temporary, "done")
    check(run(plain, done).returncode == 0, "plain")
    for source, target, text in ((plain, done, "already exists"), (done, os.path.join(temporary, "out"), "already"),
                                 (plain, os.path.join(plain, "out"), "inside"),
                                 (plain, os.path.join(temporary, "no", "out"), "No such file"),
                                 (os.path.join(temporary, "no"), os.path.join(temporary, "out"), "No such file")):
        result = run(source, target)
        check(result.returncode == 1 and text in result.stderr, f"{text}: {result.returncode} {result.stderr}")
    for arguments in ((), (plain,), (plain, "x", "y"), (plain, "x", "--bits", "7"), (plain, "x", "--bits", "1"),
                      (plain, "x", "--group-size", "48"), (plain, "x", "--what")):
        check(run(*arguments).returncode == 2, f"usage: {arguments}")
    check(run("--help").returncode == 0, "--help")
    left = [name for name in os.listdir(temporary) if name.startswith("out")]
    check(not left, f"left behind: {left}")


def test_greedy_text():
    """The bundled directory says what mlx-lm says with it."""
    for entry in json.load(open(os.path.join(ROOT, "tests", "goldens", "bookworm", "mlx_text.json"))):
        result = subprocess.run([TQ, "generate", "--model", os.path.join(ROOT, "models", "bookworm"), "--prompt", entry["prompt"],
                                 "--temp", "0", "-m", "48", "--kv", "f16"], capture_output=True, text=True)
        check(result.stdout.strip() == entry["text"].strip(), f"{entry['prompt']}: mlx-lm says {entry['text']!r}, tq {result.stdout!r}")


test_greedy_text()
with tempfile.TemporaryDirectory() as directory:
    test_equals_mlx(directory)
    test_whole_directory(directory)
    test_refusals(directory)
sys.exit(finish())
