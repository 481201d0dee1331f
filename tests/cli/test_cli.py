#!/usr/bin/env python3
"""test_cli.py: the program as a person and a script meet it.

    python3 tests/cli/test_cli.py [PATH_TO_TQ [MODEL_DIR [NAME...]]]

The model must be bookworm, which remembers facts.  NAMEs select tests that contain one of them."""

import os
import sys
import tempfile
import time
from pathlib import Path

import cases_bench  # noqa: F401 (each adds its tests to TESTS)
import cases_chat  # noqa: F401
import cases_generate  # noqa: F401
import cases_large  # noqa: F401
import cases_models  # noqa: F401
import cases_terminal  # noqa: F401
import cases_usage  # noqa: F401
from cases import MODEL, TESTS, TQ
from harness import Failure


def main():
    if not os.access(TQ, os.X_OK) or not os.path.isdir(MODEL):
        print(f"test_cli: no program at {TQ} or no model at {MODEL}")
        return 1
    os.environ.pop("TQ_MODEL", None)
    wanted, passed, failed = sys.argv[3:], 0, 0
    for function in TESTS:
        if wanted and not any(word in function.__name__ for word in wanted):
            continue
        start = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as tmp:
                function(Path(tmp))
            passed += 1
            reason = None
        except Failure as failure:
            reason = str(failure)
        except Exception as error:  # a test that breaks is a test that fails
            reason = f"{type(error).__name__}: {error}"
        if reason:
            failed += 1
            print(f"FAIL {function.__name__}: {reason}", flush=True)
        elif wanted:
            print(f"ok   {function.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
