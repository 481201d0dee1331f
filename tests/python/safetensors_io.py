"""safetensors_io.py: read and write safetensors files with numpy alone.

bf16 is kept as its 16 bits (dtype "BF16", array of uint16)."""
import json
import struct

import numpy as np

DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "U32": np.dtype("<u4"),
          "I32": np.dtype("<i4"), "U8": np.dtype("u1")}


def write(path, tensors, header_multiple=8):
    """tensors: {name: (dtype name, array)}."""
    header, blobs, end = {}, [], 0
    for name, (dtype, array) in tensors.items():
        blob = np.ascontiguousarray(array, DTYPES[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [end, end + len(blob)]}
        blobs.append(blob)
        end += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % header_multiple)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read(path):
    """{name: (dtype name, array)} and the metadata; fails on what the reference reader refuses: gaps, loose ends."""
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    metadata = header.pop("__metadata__", {})
    assert n % 8 == 0, "the data does not begin at a multiple of 8"
    tensors, ranges = {}, []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = DTYPES[entry["dtype"]]
        assert begin % dtype.itemsize == 0, f"{name} is not aligned"
        tensors[name] = (entry["dtype"],
                         np.frombuffer(data[8 + n + begin:8 + n + end], dtype).reshape(entry["shape"]))
        ranges.append((begin, end))
    end = 0
    for begin, after in sorted(ranges):
        assert begin == end, "a gap or an overlap"
        end = after
    assert 8 + n + end == len(data), "bytes after the last tensor"
    return tensors, metadata


def to_bf16(x):
    """Round to nearest even; finite values."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_float32(dtype, array):
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def from_float32(dtype, x):
    if dtype == "BF16":
        return to_bf16(x)
    return x.astype(DTYPES[dtype])
