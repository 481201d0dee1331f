#!/usr/bin/env python3
"""check_includes.py: includes go one way, and no two files of the tree share a name.

    base <- codec <- backend <- cache <- model <- engine <- tools;  file and text stand on base alone

A static library keeps one object a name, and a reader one thought: hence unique names.  Long files are only remarked."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAY_INCLUDE = {
    "base": "base",
    "codec": "base codec",
    "backend": "base codec backend",
    "cache": "base codec backend cache",
    "file": "base file",
    "text": "base text",
    "model": "base codec backend cache file model",
    "engine": "base codec backend cache file text model engine",
}
LINES_MAX = 800
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.M)

problems = []


def check_source(path):
    """src/MODULE/...: "module/file.h" of modules it may use; the public headers; headers that are not this project's."""
    module = path.relative_to(ROOT / "src").parts[0]
    for quote, name in INCLUDE.findall(path.read_text()):
        if quote == "<":
            continue
        if not (ROOT / "src" / name).exists():
            problems.append(f"{path.relative_to(ROOT)}: \"{name}\" is not a path below src/")
        elif name.split("/")[0] not in MAY_INCLUDE[module].split():
            problems.append(f"{path.relative_to(ROOT)}: {module} may not include {name}")


def check_client(path):
    """Programs and examples: public headers, those in their own folder, and for programs those of tools/hub."""
    places = [path.parent, ROOT / "include"] + [ROOT / "tools" / "hub"] * path.is_relative_to(ROOT / "tools")
    for quote, name in INCLUDE.findall(path.read_text()):
        if quote == '"' and not any((place / name).exists() for place in places):
            problems.append(f"{path.relative_to(ROOT)}: {name} is neither beside it nor public")


def check_public(path):
    for quote, name in INCLUDE.findall(path.read_text()):
        if quote == '"' and not (path.parent / name).exists():
            problems.append(f"{path.relative_to(ROOT)}: a public header may not include {name}")


seen = {}
n_files = 0
for folder, check in (("src", check_source), ("tools", check_client), ("docs/examples", check_client),
                      ("include", check_public), ("tests", None), ("bench", None)):
    for path in sorted((ROOT / folder).rglob("*.[ch]")):
        n_files += 1
        if check:
            check(path)
        if path.name in seen:
            problems.append(f"{path.relative_to(ROOT)} and {seen[path.name].relative_to(ROOT)} have the same name")
        seen[path.name] = path
        lines = path.read_text().count("\n")
        if lines > LINES_MAX:
            print(f"remark: {path.relative_to(ROOT)} has {lines} lines; is it one thing?")
for module in {p.name for p in (ROOT / "src").iterdir() if p.is_dir()} - MAY_INCLUDE.keys():
    problems.append(f"src/{module}: which modules it may include is not written down in {pathlib.Path(__file__).name}")

print("\n".join(problems) or f"{n_files} files, every include goes the right way")
sys.exit(1 if problems else 0)
