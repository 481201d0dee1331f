"""test_codec.py [TQ]: do the codecs write what the papers say?  TQ defaults to build/tq; libturboquant.so stands beside it.

Algorithms 1 and 2 of arXiv 2504.19874, the rotated Lloyd-Max and uniform codecs and the min-max ones are written here
once more, with numpy alone (RandomState, linalg.qr, integrals on a grid), and compared row for row, through the public tq_codec.h."""
import ctypes
import functools
import os
import sys

import numpy as np

from tally import check, finish

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
TQ = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else os.path.join(ROOT, "build", "tq")
LIBRARY = os.path.join(os.path.dirname(TQ), "libturboquant.so")

# ---- the library ---------------------------------------------------------------------------------------------------------

class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("text", ctypes.c_char * 512)]


lib = ctypes.CDLL(LIBRARY)
lib.tq_codec_new.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64, ctypes.POINTER(ctypes.c_void_p),
                             ctypes.POINTER(Error)]
lib.tq_codec_free.argtypes = [ctypes.c_void_p]
lib.tq_codec_row_bytes.argtypes, lib.tq_codec_row_bytes.restype = [ctypes.c_void_p], ctypes.c_size_t
lib.tq_codec_query_width.argtypes = [ctypes.c_void_p]
for name in ("encode", "decode"):
    getattr(lib, "tq_codec_" + name).argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
lib.tq_codec_query.argtypes = [ctypes.c_void_p] * 3
lib.tq_codec_score.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
lib.tq_codec_choose_outliers.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Error)]
lib.tq_codec_payload_bits.argtypes, lib.tq_codec_payload_bits.restype = [ctypes.c_void_p], ctypes.c_double
lib.tq_codec_expected_distortion.argtypes = [ctypes.c_void_p]
lib.tq_codec_expected_distortion.restype = ctypes.c_double


class Codec:
    def __init__(self, name, dim, seed):
        self.pointer, error = ctypes.c_void_p(), Error()
        if lib.tq_codec_new(name.encode(), dim, seed, ctypes.byref(self.pointer), ctypes.byref(error)) != 0:
            raise ValueError(error.text.decode())
        self.dim, self.row_bytes = dim, lib.tq_codec_row_bytes(self.pointer)
        self.width = lib.tq_codec_query_width(self.pointer)
        self.expected = lib.tq_codec_expected_distortion(self.pointer)

    def __del__(self):
        lib.tq_codec_free(self.pointer)

    def encode(self, x):
        x = np.ascontiguousarray(x, np.float32)
        rows = np.empty((len(x), self.row_bytes), np.uint8)
        lib.tq_codec_encode(self.pointer, x.ctypes.data, len(x), rows.ctypes.data)
        return rows

    def decode(self, rows):
        x = np.empty((len(rows), self.dim), np.float32)
        lib.tq_codec_decode(self.pointer, rows.ctypes.data, len(rows), x.ctypes.data)
        return x

    def query(self, q):
        q, prepared = np.ascontiguousarray(q, np.float32), np.empty(self.width, np.float32)
        lib.tq_codec_query(self.pointer, q.ctypes.data, prepared.ctypes.data)
        return prepared

    def scores(self, q, rows):
        prepared, scores = self.query(q), np.empty(len(rows), np.float32)
        lib.tq_codec_score(self.pointer, prepared.ctypes.data, rows.ctypes.data, len(rows), scores.ctypes.data)
        return scores


# ---- the mathematics, once more ---------------------------------------------------------------------------------------------

@functools.lru_cache(maxsize=None)
def lloyd_max(dim, bits):
    """Levels (2^bits) for a coordinate of a unit vector: plain Lloyd iteration on cumulative integrals of the density."""
    grid = np.linspace(-1, 1, 1_000_001)
    log_density = (dim - 3) / 2 * np.log1p(-np.minimum(grid * grid, 1 - 1e-12))
    density = np.exp(log_density)
    density /= density.sum()
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    weighted = density * grid
    first = np.concatenate([[0], np.cumsum((weighted[1:] + weighted[:-1]) / 2)])
    n = 1 << bits
    levels = np.interp((np.arange(n) + .5) / n, mass / mass[-1], grid)
    for _ in range(20000):
        edges = np.concatenate([[-1], (levels[1:] + levels[:-1]) / 2, [1]])
        new = np.diff(np.interp(edges, grid, first)) / np.diff(np.interp(edges, grid, mass))
        moved, levels = np.abs(new - levels).max(), new
        if moved < 1e-12:
            break
    return (levels - levels[::-1]) / 2  # symmetric; the grid leaves 1e-12


def haar(dim, seed):
    g = np.random.RandomState(seed).randn(dim, dim).astype(np.float32).astype(np.float64)
    q, r = np.linalg.qr(g)
    return q * np.sign(np.diag(r))


def gaussian(dim, seed):
    return np.random.RandomState(seed).randn(dim, dim).astype(np.float32).astype(np.float64)


def hadamard(dim, seed):
    """(H (x) DCT-II) diag(signs): signs from splitmix64."""
    mask, state, signs = (1 << 64) - 1, seed, []
    for _ in range(dim):
        state = (state + 0x9e3779b97f4a7c15) & mask
        z = state
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & mask
        z = (z ^ z >> 27) * 0x94d049bb133111eb & mask
        signs.append(-1.0 if (z ^ z >> 31) >> 63 else 1.0)
    power = dim & -dim
    odd = dim // power
    h = np.ones((1, 1))
    while len(h) < power:
        h = np.block([[h, h], [h, -h]])
    i, j = np.mgrid[:odd, :odd]
    c = np.sqrt(np.where(i == 0, 1.0, 2.0) / odd) * np.cos(np.pi * (j + .5) * i / odd)
    return np.kron(h / np.sqrt(power), c) * np.array(signs)


def unpack_bits(stream, bits, n):
    """(rows, bytes) -> (rows, n): element k at bits k*bits.. of a little-endian stream."""
    planes = np.unpackbits(stream, axis=1, bitorder="little")[:, :n * bits].reshape(len(stream), n, bits)
    return planes @ (1 << np.arange(bits))


def codes_agree(got, y, levels, what):
    """Nearest levels, where the choice does not hang on the last bit of a float."""
    edges = (levels[1:] + levels[:-1]) / 2
    want = np.searchsorted(edges, y, side="right")
    close = np.abs(y[..., None] - edges).min(-1) < 3e-6 * np.abs(levels).max()
    check(np.array_equal(got[~close], want[~close]), what + ": codes")
    check(close.mean() < .001 and np.abs(got - want)[close].max(initial=0) <= 1, what + ": codes at an edge")


def close(got, want, relative, what):
    scale = np.abs(want).max()
    worst = np.abs(got - want).max() / scale
    check(worst <= relative, f"{what}: differs by {worst:.2g}")


def vectors(dim, n, seed):
    rng = np.random.default_rng(seed)  # not RandomState: vectors must not be the rows that the rotation was made from
    x = rng.standard_normal((n, dim)) * np.exp(rng.standard_normal((n, 1)))
    x[0] = 0
    x[0, dim // 3] = -2.5  # one axis
    return x.astype(np.float32)


# ---- the tests ---------------------------------------------------------------------------------------------------------------

def test_matrices():
    """The rotation and the sketch, column by column: ALG-2."""
    for dim, seed in ((64, 42), (128, 42), (128, 49), (80, 91), (256, 42)):
        codec = Codec("paper-prod:3", dim, seed)
        columns = np.stack([codec.query(e) for e in np.eye(dim, dtype=np.float32)], 1)
        check(np.abs(columns[:dim] - haar(dim, seed)).max() < 1e-6, f"rotation {dim}, seed {seed}")
        check(np.array_equal(columns[dim:], gaussian(dim, seed + 1000)), f"sketch {dim}, seed {seed}")
    for dim, seed in ((64, 42), (80, 7), (96, 42), (112, 42), (128, 123456789012345), (192, 42), (256, 49)):
        codec = Codec("lm3", dim, seed)
        columns = np.stack([codec.query(e) for e in np.eye(dim, dtype=np.float32)], 1)
        check(np.abs(columns - hadamard(dim, seed)).max() < 1e-6, f"Hadamard {dim}, seed {seed}")


def test_paper_mse(dim, bits, seed):
    what = f"paper-mse:{bits}, d {dim}"
    codec, x = Codec(f"paper-mse:{bits}", dim, seed), vectors(dim, 200, seed)
    q, levels = haar(dim, seed), lloyd_max(dim, bits)
    rows = codec.encode(x)
    check(codec.row_bytes == 4 + (dim * bits + 7) // 8, what + ": bytes of a row")
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    close(rows[:, :4].copy().view(np.float32)[:, 0], norms, 1e-6, what + ": norms")
    codes = unpack_bits(rows[:, 4:], bits, dim)
    codes_agree(codes, x / norms[:, None] @ q.T, levels, what)
    restored = norms[:, None] * levels[codes] @ q
    close(codec.decode(rows), restored, 2e-6, what + ": decoded")
    query = vectors(dim, 2, seed + 1)[1]
    close(codec.scores(query, rows), restored @ query, 1e-5, what + ": scores")
    distortion = (((x - restored) ** 2).sum(1) / norms ** 2)[1:].mean()
    check(abs(distortion / codec.expected - 1) < .05, f"{what}: distortion {distortion}, {codec.expected} expected")


def test_paper_prod(dim, bits, seed):
    what = f"paper-prod:{bits}, d {dim}"
    codec, x = Codec(f"paper-prod:{bits}", dim, seed), vectors(dim, 200, seed)
    q, s, levels = haar(dim, seed), gaussian(dim, seed + 1000), lloyd_max(dim, bits - 1)
    rows = codec.encode(x)
    index_bytes = (dim * (bits - 1) + 7) // 8
    check(codec.row_bytes == 8 + index_bytes + (dim + 7) // 8, what + ": bytes of a row")
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    codes = unpack_bits(rows[:, 8:8 + index_bytes], bits - 1, dim)
    codes_agree(codes, x / norms[:, None] @ q.T, levels, what)
    mse = norms[:, None] * levels[codes] @ q
    residual = x - mse
    gamma = np.linalg.norm(residual, axis=1)
    stored = rows[:, :8].copy().view(np.float32)
    close(stored[:, 0], norms, 1e-6, what + ": norms")
    close(stored[:, 1], gamma, 1e-5, what + ": residual norms")
    signs = unpack_bits(rows[:, 8 + index_bytes:], 1, dim)
    z = residual @ s.T
    sure = np.abs(z) > 1e-4 * gamma[:, None]
    check(np.array_equal(signs[sure], (z > 0)[sure]) and sure.mean() > .99, what + ": signs")
    restored = mse + np.sqrt(np.pi / 2) / dim * gamma[:, None] * (2.0 * signs - 1) @ s
    close(codec.decode(rows), restored, 1e-5, what + ": decoded")
    query = vectors(dim, 2, seed + 1)[1]
    close(codec.scores(query, rows), restored @ query, 1e-5, what + ": scores")


def test_paper_prod_orth(dim, bits, seed):
    """The sketch is the Haar matrix O of its seed; a sign is worth gamma / (d E|u|), u a coordinate of a unit vector."""
    what = f"paper-prod-orth:{bits}, d {dim}"
    codec, x = Codec(f"paper-prod-orth:{bits}", dim, seed), vectors(dim, 200, seed)
    q, o, levels = haar(dim, seed), haar(dim, seed + 1000), lloyd_max(dim, bits - 1)
    rows = codec.encode(x)
    index_bytes = (dim * (bits - 1) + 7) // 8
    check(codec.row_bytes == 8 + index_bytes + (dim + 7) // 8, what + ": bytes of a row")
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    codes = unpack_bits(rows[:, 8:8 + index_bytes], bits - 1, dim)
    codes_agree(codes, x / norms[:, None] @ q.T, levels, what)
    mse = norms[:, None] * levels[codes] @ q
    gamma = np.linalg.norm(x - mse, axis=1)
    close(rows[:, 4:8].copy().view(np.float32)[:, 0], gamma, 1e-5, what + ": residual norms")
    signs = unpack_bits(rows[:, 8 + index_bytes:], 1, dim)
    z = (x - mse) @ o.T
    sure = np.abs(z) > 1e-4 * gamma[:, None] / np.sqrt(dim)
    check(np.array_equal(signs[sure], (z > 0)[sure]) and sure.mean() > .99, what + ": signs")
    grid = (np.arange(200000) + .5) / 200000
    density = (1 - grid ** 2) ** ((dim - 3) / 2)
    mean_size = (grid * density).sum() / density.sum()  # E|u|
    restored = mse + gamma[:, None] / (dim * mean_size) * (2.0 * signs - 1) @ o
    close(codec.decode(rows), restored, 1e-5, what + ": decoded")
    query = vectors(dim, 2, seed + 1)[1]
    close(codec.scores(query, rows), restored @ query, 1e-5, what + ": scores")


def test_paper_split(dim, name, seed):
    """32 of 128 channels at a bit more, the others below; each part an instance of its own."""
    what, low = f"{name}, d {dim}", int(name[6])
    codec, x = Codec(name, dim, seed), vectors(dim, 200, seed)
    x[:, 1::3] *= 4  # a third of the channels is larger; the first among them are larger still
    x[:, 1:dim // 2:3] *= 2
    outliers = dim // 4
    energy = (x.astype(np.float64) ** 2).sum(0)
    error = Error()
    check(lib.tq_codec_choose_outliers(codec.pointer, x.ctypes.data, len(x), ctypes.byref(error)) == 0, what + ": chosen")
    chosen = np.zeros(dim, bool)
    chosen[np.argsort(-energy, kind="stable")[:outliers]] = True
    check(lib.tq_codec_payload_bits(codec.pointer) == low + outliers / dim, what + ": payload")
    rows = codec.encode(x)
    at, restored = 4, np.zeros((len(x), dim))
    for i, (channels, bits, matrix_seed) in enumerate(((chosen, low + 1, seed), (~chosen, low, seed + 2000000))):
        part, n = x[:, channels].astype(np.float64), channels.sum()
        q, levels = haar(n, matrix_seed), lloyd_max(n, bits)
        norms = np.linalg.norm(part, axis=1)
        stored = rows[:, 2 * i:2 * i + 2].copy().view(np.float16)[:, 0].astype(np.float64)
        check(np.abs(stored - norms / np.sqrt(n)).max() <= 2 ** -11 * 1.01 * (norms / np.sqrt(n)).max(), what + ": norms")
        codes = unpack_bits(rows[:, at:at + (n * bits + 7) // 8], bits, n)
        at += (n * bits + 7) // 8
        some = norms > 0
        codes_agree(codes[some], (part[some] / norms[some, None]) @ q.T, levels, what)
        restored[:, channels] = (stored * np.sqrt(n))[:, None] * levels[codes] @ q
    check(codec.row_bytes == at, what + ": bytes of a row")
    close(codec.decode(rows), restored, 3e-6, what + ": decoded")
    query = vectors(dim, 2, seed + 1)[1]
    close(codec.scores(query, rows), restored @ query, 1e-5, what + ": scores")


def test_uniform(dim, bits, seed):
    """Whatever step was taken, codes are those of a step, the scale is least squares, and no other step fits 1 % better."""
    what = f"uniform:{bits}, d {dim}"
    codec, x = Codec(f"uniform:{bits}", dim, seed), vectors(dim, 200, seed)[1:]
    x[0] = np.random.default_rng(3).standard_normal(dim)
    rows = codec.encode(x)
    check(codec.row_bytes == 2 + dim * bits // 8, what + ": bytes of a row")
    if bits == 3:
        codes = unpack_bits(rows[:, 2:2 + dim // 4], 2, dim) + 4 * unpack_bits(rows[:, 2 + dim // 4:], 1, dim)
    else:
        codes = unpack_bits(rows[:, 2:], bits, dim)
    y = x.astype(np.float64) @ hadamard(dim, seed).T
    n = 1 << bits
    odd = 2 * codes - (n - 1)
    check(np.array_equal(odd[np.abs(y) > 1e-5] > 0, y[np.abs(y) > 1e-5] > 0), what + ": signs")
    unit = 127 // (n - 1)
    scale = rows[:, :2].copy().view(np.float16)[:, 0].astype(np.float64) * unit / 127
    fitted = (y * odd).sum(1) / (odd ** 2).sum(1)
    check(np.abs(scale / fitted - 1).max() < 2 ** -11 * 1.01, what + ": least-squares scales")
    restored = odd * scale[:, None] @ hadamard(dim, seed)
    close(codec.decode(rows), restored, 2e-6, what + ": decoded")
    query = vectors(dim, 2, seed + 1)[1]
    close(codec.scores(query, rows), restored @ query, 1e-5, what + ": scores")
    deviation = np.linalg.norm(y, axis=1, keepdims=True) / np.sqrt(dim)
    errors = []
    for step in np.geomspace(.15, 2, 800):  # in deviations, of the grid ... -3/2 -1/2 1/2 3/2 ...
        level = np.minimum(np.floor(np.abs(y) / (step * deviation)), n / 2 - 1) + .5
        errors.append((y ** 2).sum(1) - (np.abs(y) * level).sum(1) ** 2 / (level ** 2).sum(1))
    best, ours = np.min(errors, 0), ((y - odd * scale[:, None]) ** 2).sum(1)
    check(ours.sum() <= 1.01 * best.sum() and (ours >= best * .97).all(), f"{what}: {ours.sum() / best.sum():.4f} of the best")


def test_q_group(dim, bits, group):
    """MLX's affine quantization, written from its formula: the edge of larger magnitude is hit, and so is zero."""
    what = f"q{bits}-group:{group}, d {dim}"
    codec, x = Codec(f"q{bits}-group:{group}", dim, 0), vectors(dim, 200, 5)
    rows = codec.encode(x)
    groups, top = x.reshape(len(x), -1, group), np.float32((1 << bits) - 1)
    low, high = groups.min(2), groups.max(2)
    low_edge = np.abs(low) > np.abs(high)
    step = np.maximum((high - low) / top, np.float32(1e-7)) * np.where(low_edge, 1, -1).astype(np.float32)
    edge = np.where(low_edge, low, high)
    whole = np.rint(edge / step)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(whole != 0, edge / whole, step).astype(np.float16).astype(np.float32)
    zero = np.where(whole != 0, edge, 0).astype(np.float16).astype(np.float32)
    constants = rows[:, dim * bits // 8:].copy().view(np.float16).reshape(len(x), -1, 2)
    check(np.array_equal(constants[..., 0].astype(np.float32), scale), what + ": scales")
    check(np.array_equal(constants[..., 1].astype(np.float32), zero), what + ": zeros")
    want = np.clip(np.rint((groups - zero[..., None]) / scale[..., None]), 0, top)
    codes = unpack_bits(rows[:, :dim * bits // 8], bits, dim).reshape(groups.shape)
    check(np.array_equal(codes, want), what + ": codes")
    restored = zero[..., None].astype(np.float64) + scale[..., None].astype(np.float64) * codes
    close(codec.decode(rows), restored.reshape(len(x), dim), 1e-6, what + ": decoded")


def test_planar(dim, bits, seed):
    what = f"lm{bits}, d {dim}"
    codec, x = Codec(f"lm{bits}", dim, seed), vectors(dim, 200, seed)
    levels = lloyd_max(dim, bits)
    integers = np.rint(levels / levels[-1] * 127)
    rows = codec.encode(x)
    check(codec.row_bytes == 2 + dim * bits // 8, what + ": bytes of a row")
    if bits == 3:
        codes = unpack_bits(rows[:, 2:2 + dim // 4], 2, dim) + 4 * unpack_bits(rows[:, 2 + dim // 4:], 1, dim)
    else:
        codes = unpack_bits(rows[:, 2:], bits, dim)
    y = x.astype(np.float64) @ hadamard(dim, seed).T
    codes_agree(codes[1:], (y / np.linalg.norm(y, axis=1, keepdims=True))[1:], levels, what)
    chosen = integers[codes]
    scale = (y * chosen).sum(1) / (chosen ** 2).sum(1) * 127
    stored = rows[:, :2].copy().view(np.float16)[:, 0].astype(np.float64)
    check(np.abs(stored / scale - 1).max() < 2 ** -11 * 1.01, what + ": least-squares scales, rounded to f16")
    restored = chosen * (stored / 127)[:, None] @ hadamard(dim, seed)
    close(codec.decode(rows), restored, 2e-6, what + ": decoded")
    query = vectors(dim, 2, seed + 1)[1]
    close(codec.scores(query, rows), restored @ query, 1e-5, what + ": scores")


def test_q8(dim, seed):
    what = f"q8, d {dim}"
    codec, x = Codec("q8", dim, seed), vectors(dim, 200, seed)
    rows = codec.encode(x)
    y = x.astype(np.float64) @ hadamard(dim, seed).T
    scale = rows[:, :2].copy().view(np.float16)[:, 0].astype(np.float64)
    top = np.abs(y).max(1)
    check((scale >= top * (1 - 1e-6)).all() and (scale <= top * (1 + 2 ** -10)).all(), what + ": scales hold the largest value")
    levels = rows[:, 2:].astype(int) - 128
    exact = y / scale[:, None] * 127
    check(np.abs(levels - exact).max() <= .5 + 1e-3 and levels.min() >= -127, what + ": levels")
    close(codec.decode(rows), levels * (scale / 127)[:, None] @ hadamard(dim, seed), 2e-6, what + ": decoded")


def test_minmax(dim, bits, group):
    """The constants are exact; codes are nearest for the constants as stored (the prior system: before rounding them)."""
    what = f"minmax:{bits}:{group}, d {dim}"
    codec, x = Codec(f"minmax:{bits}:{group}", dim, 0), vectors(dim, 200, 5)
    rows = codec.encode(x)
    groups = x.reshape(len(x), -1, group)
    low, high = groups.min(2), groups.max(2)
    constants = rows[:, dim * bits // 8:].copy().view(np.float16).reshape(len(x), -1, 2)
    check(np.array_equal(constants[..., 1], low.astype(np.float16)), what + ": zeros")
    top = np.float32((1 << bits) - 1)
    check(np.array_equal(constants[..., 0], ((high - low) / top).astype(np.float16)), what + ": scales")
    scale, zero = constants[..., 0].astype(np.float32), constants[..., 1].astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        want = np.clip(np.rint((groups - zero[..., None]) / scale[..., None]), 0, top)
    want = np.where(scale[..., None] > 0, want, 0)
    codes = unpack_bits(rows[:, :dim * bits // 8], bits, dim).reshape(groups.shape)
    check(np.array_equal(codes, want), what + ": codes")
    restored = (zero[..., None].astype(np.float64) + scale[..., None].astype(np.float64) * codes).reshape(len(x), dim)
    close(codec.decode(rows), restored, 1e-6, what + ": decoded")


def main():
    test_matrices()
    for dim in (64, 128, 256):
        for bits in (1, 2, 3, 4):
            test_paper_mse(dim, bits, 42)
    for dim, bits in ((80, 3), (128, 5), (36, 3)):
        test_paper_mse(dim, bits, 7)
    for dim in (64, 128, 256):
        for bits in (2, 3, 4):
            test_paper_prod(dim, bits, 42 + 7 * bits)
    test_paper_prod(80, 3, 42)
    for dim in (64, 80, 96, 112, 128, 192, 256):
        for bits in (2, 3, 4):
            test_planar(dim, bits, 42)
        test_q8(dim, 42)
    for bits in (2, 4):
        for dim, group in ((64, 32), (128, 32), (128, 64), (256, 32), (80, 16)):
            test_minmax(dim, bits, group)
    for dim, bits in ((64, 2), (128, 3), (128, 4), (80, 3), (256, 2)):
        test_paper_prod_orth(dim, bits, 42)
    for dim in (64, 80, 96, 128, 256):
        test_paper_split(dim, "paper:2.5", 49)
        test_paper_split(dim, "paper:3.5", 42)
    for dim in (64, 80, 96, 128, 256):
        for bits in (2, 3, 4):
            test_uniform(dim, bits, 42)
    for bits in (4, 8):
        for dim, group in ((64, 64), (128, 64), (96, 32), (80, 16), (256, 64)):
            test_q_group(dim, bits, group)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
