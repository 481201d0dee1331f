"""test_eval.py: what `tq eval` and `tq quality` say, computed once more from logits and rows, and the forms they say it in.

    python3 tests/python/test_eval.py PATH_TO_TQ"""
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TQ = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "tq")
DUMP = Path(TQ).parent / "tests" / "tools" / "dump_logits"
MODEL = ROOT / "models" / "bookworm"
TEXT = ROOT / "models" / "evaluation.txt"
SVG = "{http://www.w3.org/2000/svg}"


def run(*args, code=0, env=None):
    done = subprocess.run([TQ, *map(str, args)], capture_output=True, timeout=300, env=env)
    assert done.returncode == code, f"tq {args}: want exit code {code}, got {done.returncode}: {done.stderr.decode()}"
    assert code or not done.stderr, f"tq {args}: progress belongs on terminals, got {done.stderr!r}"
    return done


def run_json(*args):
    return json.loads(run(*args, "--json", "--model", MODEL).stdout)


def by_name(rows):
    return {row["kv"]: row for row in rows}


def one_document(tmp):
    """The shortest recall document, alone in a file."""
    documents = json.loads((ROOT / "tests/goldens/recall/recall.json").read_text())
    document = min(documents, key=lambda d: len(d["ids"]))
    path = tmp / "one.json"
    path.write_text(json.dumps([document]))
    return document, path


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def dump_logits(tmp, kv, ids, head, chunk):
    np.asarray(ids, np.int32).tofile(tmp / "ids")
    out = subprocess.run([DUMP, MODEL, kv, tmp / "ids", str(head), str(chunk), tmp / "logits"], check=True,
                         capture_output=True, text=True).stdout.split()
    return np.fromfile(tmp / "logits", np.float32).reshape(len(ids) - head, -1), float(out[0]), int(out[1])


def test_divergence_is_what_logits_say(tmp):
    document, path = one_document(tmp)
    answers = document["answers"]
    head, end = answers[0][0] - 1, answers[-1][1] - 1
    ids = document["ids"][:end]
    said = run_json("eval", "kld", "--data", path, "--kv", "tq3,tq2")
    rows = by_name(said["results"])
    exact = log_softmax(dump_logits(tmp, "f16", ids, head, 16)[0])
    for kv in ("tq3", "tq2", "window:128"):
        logits, bits, packed = dump_logits(tmp, kv, ids, head, 16)
        other = log_softmax(logits)
        kld = (np.exp(exact) * (exact - other)).sum(axis=1)
        row = rows[kv]
        assert row["positions"] == len(kld) == end - head
        for key, want in (("kld_mean", kld.mean()), ("kld_median", np.sort(kld)[len(kld) // 2]),
                          ("kld_p99", np.sort(kld)[int(0.99 * (len(kld) - 1))])):
            assert abs(row[key] - want) <= 1e-6 + 1e-4 * want, f"{kv} {key}: numpy has {want}, got {row[key]}"
        same = (other.argmax(axis=1) == exact.argmax(axis=1)).mean()
        assert abs(row["same_top"] - same) < 1e-12, f"{kv}: numpy has {same} same, got {row['same_top']}"
        nll = -other[np.arange(len(kld)), document["ids"][head + 1:end + 1]].mean()
        assert abs(row["nll"] - nll) < 1e-4, f"{kv}: numpy has nll {nll}, got {row['nll']}"
        right = sum(all(other[p - 1 - head].argmax() == document["ids"][p] for p in range(a, b)) for a, b in answers)
        assert row["right"] == right and row["total"] == len(answers)
        if kv != "window:128":
            assert row["bits_per_value"] == bits and packed > 0.8 * len(ids)
    assert rows["f16"]["kld_mean"] == 0 and rows["f16"]["same_top"] == 1
    assert 0 < rows["tq3"]["kld_mean"] < rows["tq2"]["kld_mean"] < rows["window:128"]["kld_mean"], "no order of damage"


def test_a_window_of_text_is_measured_at_its_end(tmp):
    said = run_json("eval", "kld", "--text", TEXT, "--window", 512, "--windows", 2, "--positions", 64, "--kv", "q8,tq2")
    rows = by_name(said["results"])
    assert all(row["positions"] == 128 and row["total"] is None for row in rows.values())
    assert rows["q8"]["kld_mean"] < rows["tq2"]["kld_mean"] < rows["window:128"]["kld_mean"]
    assert list(rows) == ["f16", "q8", "tq2", "window:128"], "the exact cache comes first, the control last"


def test_distortion_is_what_rows_say(tmp):
    tokens = 512
    said = run_json("eval", "distortion", "--kv", "f32,lm3,paper-mse:3", "--tokens", tokens, "--vectors", 2000,
                    "--buffer-size", 0, "--sinks", 0, "--flush-batch-size", 128, "--dump", tmp / "rows")
    config = json.loads((MODEL / "config.json").read_text())
    layers, heads, dim = (config[k] for k in ("num_hidden_layers", "num_key_value_heads", "head_dim"))
    rows = np.fromfile(tmp / "rows", np.float32).reshape(layers, heads, 2, tokens, dim).astype(np.float64)
    assert len(said["details"]) == 3 * layers * heads * 2
    rotated = []
    for row in said["details"]:
        x = rows[row["layer"], row["kv_head"], int(row["side"] == "values")]
        pages = x.reshape(-1, 128, dim)
        energy = (x**2).sum()
        spread = ((pages - pages.mean(axis=1, keepdims=True)) ** 2).sum()
        channels = (x**2).sum(axis=0)
        outliers = channels > 16 * np.sort(channels)[dim // 2]
        assert row["rows"] == tokens
        assert abs(row["centre_energy"] - (1 - spread / energy)) < 1e-9
        assert row["outlier_channels"] == outliers.sum()
        assert abs(row["outlier_share"] - channels[outliers].sum() / energy) < 1e-9
        assert abs(row["norm"] - np.sqrt(energy / tokens)) < 1e-6 * row["norm"]
        if row["kv"] == "f32":
            assert row["error"] == 0, "f32 keeps rows as they are"
        elif energy > 0:
            assert abs(row["error_of_spread"] / row["error"] - energy / spread) < 1e-6 * energy / spread
        if row["kv"] == "lm3" and row["side"] == "keys":  # theory, about the centre, rounded to f16
            assert 0.028 < row["error_of_spread"] < 0.045, f"lm3 keys: want near .0335 of the spread, got {row}"
        if row["kv"] == "paper-mse:3":  # a rotated row's error is a share of its own energy
            # A head whose keys are nearly all its centre has one direction, and one direction's error: a tenth of spread.
            assert 0.02 < row["error"] < 0.05, f"paper-mse:3: want near .034, got {row}"
            rotated.append(row["error"])
    assert 0.0325 < np.mean(rotated) < 0.0355, "over all heads and sides"
    centred = {(row["kv"], row["side"], row["centred"]) for row in said["details"]}
    assert centred == {("f32", "keys", "no"), ("lm3", "keys", "yes"), ("paper-mse:3", "keys", "no")} | {
        (kv, "values", "-") for kv in ("f32", "lm3", "paper-mse:3")}, centred
    theory = {row["codec"]: row for row in said["theory"]}
    assert abs(theory["paper-mse:3"]["expected"] - 0.033966) < 1e-5
    for codec in ("lm3", "paper-mse:3"):
        assert abs(theory[codec]["measured"] / theory[codec]["expected"] - 1) < 0.03
    alone = json.loads(run("eval", "distortion", "--alone", "--dim", 64, "--vectors", 500, "--kv", "lm2", "--json").stdout)
    assert abs(alone["results"][0]["expected"] - 0.114526) < 1e-5, "the table of exact distortions, d = 64"


def test_keys_without_centres_are_coded_with_all_their_energy(tmp):
    rows = {}
    for centre in ("on", "off"):
        said = run_json("eval", "distortion", "--kv", "lm3", "--tokens", 512, "--vectors", 1, "--key-centre", centre)
        assert said["key_centre"] == centre
        assert {row["centred"] for row in said["details"] if row["side"] == "keys"} == {"yes" if centre == "on" else "no"}
        rows[centre] = said["results"][0]
    assert rows["on"]["bits_per_value"] - rows["off"]["bits_per_value"] == 16 / 256
    assert rows["on"]["value_error"] == rows["off"]["value_error"]
    # Three quarters of this model's keys and more are their centre, and so is as much of the error.
    assert 0.02 < rows["off"]["key_error"] < 0.04 and rows["on"]["key_error"] < rows["off"]["key_error"] / 3, rows
    assert "want auto, on or off, got 'of'" in run("eval", "distortion", "--key-centre", "of", code=2).stderr.decode()


def test_needles_are_packed_and_found(tmp):
    out = tmp / "needles.svg"
    said = run_json("eval", "niah", "--lengths", "512,1024", "--depths", 4, "--kv", "tq3", "--repeats", 1, "--plot", out)
    rows = by_name(said["results"])
    assert rows["tq3"]["needles_packed"] == rows["tq3"]["total"] == 8, "a needle in the exact window tests nothing"
    assert rows["f16"]["right"] >= 6 and rows["tq3"]["right"] >= rows["f16"]["right"] - 1
    assert rows["window:128"]["right"] <= 1, "what was forgotten was found"
    cells = said["details"]
    assert len(cells) == 3 * 2 * 4
    for kv, row in rows.items():
        assert sum(c["right"] for c in cells if c["kv"] == kv) == row["right"]
    svg = ET.parse(out).getroot()
    assert svg.tag == SVG + "svg"
    text = "".join(svg.itertext())
    assert all(name in text for name in ("f16", "tq3", "window:128", "1024", "100 %")), "names of maps and axes"
    anywhere = run_json("eval", "niah", "--lengths", "512", "--depths", 2, "--kv", "tq3", "--repeats", 1, "--anywhere",
                        "--no-control")
    assert by_name(anywhere["results"])["tq3"]["needles_packed"] < 2, "the last place of all is exact"
    assert "window:128" not in by_name(anywhere["results"])
    error = run("eval", "niah", "--lengths", "200", "--model", MODEL, code=1).stderr.decode()
    assert "200 tokens are too few" in error, error


def test_text_measures(tmp):
    out = tmp / "ppl.svg"
    rows = by_name(run_json("eval", "ppl", "--text", TEXT, "--window", 256, "--windows", 2, "--kv", "tq2", "--buffer-size", 32,
                            "--plot", out)["results"])
    assert list(rows) == ["f16", "tq2", "window:128"]
    assert rows["f16"]["perplexity_change"] == 0 and rows["tq2"]["perplexity_change"] != 0
    assert abs(np.exp(rows["tq2"]["nll"]) / rows["tq2"]["perplexity"] - 1) < 1e-9 and rows["tq2"]["packed_fraction"] > 0.5
    drawn = "".join(ET.parse(out).getroot().itertext())
    assert "tq2" in drawn and "perplexity" in drawn and "window" not in drawn
    match = run_json("eval", "match", "--text", TEXT, "--prompt-tokens", 256, "--prompts", 2, "--max-tokens", 24, "--kv", "tq2",
                     "--buffer-size", 32)
    rows = by_name(match["results"])
    assert rows["f16"]["identical"] == 2 and rows["f16"]["first_difference"] is None
    assert rows["tq2"]["same_fraction"] < 1, "two bits and nothing differs: is anything packed?"
    firsts = [d["first_difference"] if d["first_difference"] is not None else 24 for d in match["details"] if d["kv"] == "tq2"]
    assert abs(rows["tq2"]["same_fraction"] - sum(firsts) / 48) < 1e-9


def test_csv_holds_what_json_holds(tmp):
    _, path = one_document(tmp)
    args = ["eval", "recall", "--data", path, "--kv", "tq:k=tq4,v=tq3", "--no-control"]
    raw = run(*args, "--csv", "--model", MODEL).stdout.decode()
    rows = list(csv.DictReader(io.StringIO(raw, newline="")))
    details = run_json(*args)["details"]
    assert [row["kv"] for row in rows] == ["f16", "tq:k=tq4,v=tq3"], "a comma in a name is quoted"
    for row, want in zip(rows, details, strict=True):
        assert row.keys() == want.keys() and all(str(want[key]) == row[key] for key in row), (row, want)


def test_refusals(tmp):
    _, path = one_document(tmp)
    for args, reason in (
        (["kld"], "got neither"),
        (["kld", "--data", path, "--text", TEXT], "got both"),
        (["kld", "--data", path, "--windows", "3"], "want --text FILE with them"),
        (["kld", "--text", TEXT, "--max-length", "3"], "all of one length"),
        (["kld", "--data", path, "--json", "--csv"], "give one of them"),
        (["kld", "--data", path, "--kv", "tq3,tq3"], "named twice"),
        (["kld", "--data", path, "--key-bits", "3"], "name the codecs in --kv"),
        (["niah", "--lengths", "1,x"], "--lengths"),
        (["distortion", "--alone", "--text", TEXT], "opens no model"),
        (["distortion", "--dim", "64"], "want --alone with it"),
    ):
        error = run("eval", *args, code=2).stderr.decode()
        assert reason in error, f"{args}: want {reason!r} in {error!r}"
    error = run("eval", "kld", "--data", path, "--plot", tmp / "x.png", code=1).stderr.decode()
    assert "ends in .svg" in error
    lonely = dict(os.environ, PATH=str(tmp))
    error = run("eval", "kld", "--data", path, "--plot", tmp / "x.svg", code=1, env=lonely).stderr.decode()
    assert "gnuplot" in error and "not installed" in error, error
    assert not (tmp / "x.svg").exists()
    assert "packs none" in run("eval", "distortion", "--kv", "window:8", "--model", MODEL, "--vectors", "1",
                               code=1).stderr.decode()


def test_quality_gives_verdicts(tmp):
    said = run_json("quality", "--length", 1024, "--windows", 2, "--documents", 1, "--kv", "q8,mlx-k3v2")
    rows = by_name(said["results"])
    assert said["sees_text"] == said["sees_needles"] == "yes", "the check must see what forgetting does"
    assert rows["f16"]["verdict"] == "exact" and rows["window:128"]["verdict"] == "control"
    assert rows["q8"]["verdict"] == "safe" and rows["mlx-k3v2"]["verdict"] == "no", rows
    assert said["smallest_safe"] == "q8"


def main():
    if not DUMP.exists():
        print(f"test_eval: no {DUMP}")
        return 1
    if not shutil.which("gnuplot"):
        print("test_eval: gnuplot is not installed (scripts/setup test)")
        return 1
    passed = failed = 0
    for name, function in list(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            with tempfile.TemporaryDirectory() as tmp:
                function(Path(tmp))
            passed += 1
        except Exception as error:
            failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
