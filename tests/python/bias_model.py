"""bias_model.py: a copy of a model directory with its key biases scaled: a harder test of caches that must centre keys.

    python3 tests/python/bias_model.py SRC DST FACTOR

DST must not exist.  Weights are copied with every *.k_proj.bias multiplied; other files are linked."""
import json
import os
import sys
from pathlib import Path

import safetensors_io


def scale_key_biases(src, dst, factor):
    """Returns how many biases were scaled; fails if there are none: the copy would test nothing."""
    src, dst = Path(src).resolve(), Path(dst)
    dst.mkdir()
    n = 0
    for file in src.iterdir():
        if file.suffix != ".safetensors" or file.name.startswith("golden"):
            if not file.name.startswith("golden"):
                os.symlink(file, dst / file.name)
            continue
        tensors, _ = safetensors_io.read(file)
        for name, (dtype, array) in tensors.items():
            if name.endswith("k_proj.bias"):
                scaled = factor * safetensors_io.to_float32(dtype, array)
                tensors[name] = (dtype, safetensors_io.from_float32(dtype, scaled))
                n += 1
        safetensors_io.write(dst / file.name, tensors)
    layers = json.loads((src / "config.json").read_text())["num_hidden_layers"]
    if n != layers:
        raise ValueError(f"{src}: want a key bias in each of {layers} layers, found {n}")
    return n


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    print(scale_key_biases(sys.argv[1], sys.argv[2], float(sys.argv[3])), "biases scaled")
