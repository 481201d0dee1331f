"""Make golden.safetensors: what mlx.core.quantize makes of a few difficult rows.

    pip install mlx[cpu] numpy && python tests/goldens/mlx/make_mlx_golden.py

Made with mlx 0.32.4 on its CPU backend.  "<dtype>.weight" is the input; "<dtype>.b<bits>.g<group>.weight", ".scales"
and ".biases" the result."""
import os
import sys

import mlx.core as mx
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "python"))
import safetensors_io as st

COLS = 128


def make_rows():
    rng = np.random.default_rng(20)
    x = rng.standard_normal((8, COLS)).astype(np.float32)
    outlier = x[1].copy()
    outlier[5] = -60
    rows = [x[0] * 0.02, outlier, np.abs(x[2]), -np.abs(x[3]),
            np.sign(x[4]),                      # both ends equally far from zero
            np.full(COLS, 0.75), np.zeros(COLS),
            x[5] * 1e-7, x[6] * 0.01 + 3, np.where(np.arange(COLS) < 64, 0, x[7])]
    return np.stack(rows).astype(np.float32)


def main():
    mx.set_default_device(mx.cpu)
    x = make_rows()
    out = {}
    for name, mx_dtype in (("BF16", mx.bfloat16), ("F16", mx.float16), ("F32", mx.float32)):
        stored = st.from_float32(name, x)
        array = mx.array(st.to_float32(name, stored)).astype(mx_dtype)
        out[f"{name}.weight"] = (name, stored)
        for bits in (2, 3, 4, 5, 6, 8):
            for group in (32, 64, 128):
                weight, scales, biases = mx.quantize(array, group, bits)
                prefix = f"{name}.b{bits}.g{group}"
                out[prefix + ".weight"] = ("U32", np.array(weight))
                for part, value in (("scales", scales), ("biases", biases)):
                    exact = np.array(value.astype(mx.float32))
                    out[f"{prefix}.{part}"] = (name, st.from_float32(name, exact))
    # Larger elements first: aligned without gaps.
    order = sorted(out, key=lambda key: (-st.DTYPES[out[key][0]].itemsize, key))
    st.write(os.path.join(HERE, "golden.safetensors"), {key: out[key] for key in order})


main()
