"""test_biased_model.py: key biases four times as large leave a centred codec its memory, and an uncentred one nothing.

    python3 tests/python/test_biased_model.py PATH_TO_TQ [MODEL_DIR [MAX_LENGTH]]

The bundled model and documents of 2,048 tokens, unless told otherwise."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import bias_model

ROOT = Path(__file__).resolve().parents[2]
TQ = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "tq")
MODEL = sys.argv[2] if len(sys.argv) > 2 else ROOT / "models" / "bookworm"
MAX_LENGTH = int(sys.argv[3]) if len(sys.argv) > 3 else 2100
RECALL = ROOT / "tests/goldens/recall/recall.json"

MOST_KLD, MOST_LOST = 0.0015, 0  # of tq3: measured .0004 and 0 (bf16), .0007 and 0 (bundled)


def measure(model, data):
    done = subprocess.run([TQ, "eval", "kld", "--model", model, "--data", data, "--kv", "tq3,paper-mse:3", "--json"],
                          capture_output=True, timeout=1200)
    assert done.returncode == 0, done.stderr.decode()
    return {row["kv"]: row for row in json.loads(done.stdout)["results"]}


def main():
    with tempfile.TemporaryDirectory() as tmp:
        data = Path(tmp) / "recall.json"
        shorter = MAX_LENGTH * 3 // 4 if len(sys.argv) < 4 else 0  # by default only the documents of 2,048 tokens
        documents = [d for d in json.loads(RECALL.read_text()) if shorter <= len(d["ids"]) <= MAX_LENGTH]
        data.write_text(json.dumps(documents))
        bias_model.scale_key_biases(MODEL, Path(tmp) / "model", 4)
        rows = measure(Path(tmp) / "model", data)
    for kv, row in rows.items():
        print(f"   {kv}: {row['right']} of {row['total']}, KLD {row['kld_mean']:.5f}, same top {100 * row['same_top']:.2f} %")
    exact, ours, paper, control = (rows[kv] for kv in ("f16", "tq3", "paper-mse:3", "window:128"))
    assert ours["packed_fraction"] > 0.8 and paper["packed_fraction"] > 0.8
    assert exact["right"] >= 0.8 * exact["total"], "the biased model must still find its facts"
    assert control["right"] <= exact["right"] / 3, "the facts are not in packed tokens"
    assert paper["right"] <= exact["right"] / 3 and paper["kld_mean"] > 0.5, "the uncentred codec should collapse"
    lost = exact["right"] - ours["right"]
    assert ours["kld_mean"] <= MOST_KLD and lost <= MOST_LOST, f"tq3: KLD {ours['kld_mean']}, {lost} answers lost"
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
