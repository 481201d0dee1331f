"""cases.py: what every test of the program uses: the program, the model, the words they are tried with."""

import json
import os
import sys
from pathlib import Path

from harness import Run, check_equal

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "python")) # models that both kinds of tests make
TQ = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "tq")
MODEL = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else ROOT / "models" / "bookworm")

FACT = "The secret number of Ada Archer is 4711."
QUESTION = "What is the secret number of Ada Archer?"
STORY = "It was a dark and stormy night, and"
LONG_REPLY = ["--temp", "100", "--seed", "1", "--max-tokens", "20000"]  # noise that seldom ends by itself

TESTS = []


def test(function):
    TESTS.append(function)
    return function


def environment(home, **extra):
    env = {k: v for k, v in os.environ.items() if k not in ("TQ_MODEL", "XDG_STATE_HOME")}
    env.update(HOME=str(home), XDG_STATE_HOME=str(Path(home) / "state"), TERM="xterm", **extra)
    return env


def tq(*args, stdin=b"", env=None):
    return Run([TQ, *map(str, args)], stdin, env)


def generate(*args, stdin=b""):
    return tq("generate", "--model", MODEL, *args, stdin=stdin)


def generate_json(*args, stdin=b""):
    run = generate("--json", *args, stdin=stdin).expect(0)
    check_equal(run.out.count(b"\n"), 1, "lines of --json")
    return json.loads(run.out)


def chat(lines, *args):
    text = lines if isinstance(lines, bytes) else "".join(line + "\n" for line in lines).encode()
    return tq("chat", "--model", MODEL, *args, stdin=text)


def copy_model(to, skip=()):
    """A directory of links to the model's files, to put damaged ones beside."""
    to.mkdir()
    for file in Path(MODEL).iterdir():
        if file.name not in skip:
            (to / file.name).symlink_to(file)
    return to
