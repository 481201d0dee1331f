"""test_transformers.py [TQ]: what transformers makes of the files of a directory, and what we do: which of several chat
templates a conversation takes, and which tokens stand around a prompt.  text_oracle is looked for in TQ's build tree."""
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "critical"
import transformers

import tally
from tally import check

ROOT = pathlib.Path(__file__).resolve().parents[2]
TQ = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "tq").resolve()
ORACLE = TQ.parent / "tests" / "tools" / "text_oracle"
MODEL = ROOT / "tests" / "goldens" / "qwen2"
BOOKWORM = ROOT / "models" / "bookworm"


def ask(letter, directory, body):
    """Ids, or the error's text."""
    path = str(directory).encode()
    data = struct.pack("=I", len(path)) + path + body.encode()
    out = subprocess.run([ORACLE], input=letter.encode() + struct.pack("=I", len(data)) + data, stdout=subprocess.PIPE).stdout
    status, n = struct.unpack_from("=II", out)
    return out[8:].decode() if status else list(struct.unpack(f"={n // 4}i", out[8:]))


def make(directory, config=None, files=None, processor=None):
    """The tiny model with the bundled model's tokenizer; config: more of tokenizer_config.json; files: {path: text}."""
    directory.mkdir()
    for name in ("config.json", "model.safetensors"):
        (directory / name).symlink_to(MODEL / name)
    tokenizer = json.loads((BOOKWORM / "tokenizer.json").read_text())
    if processor:
        tokenizer["post_processor"] = processor
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | (config or {})))
    for name, text in (files or {}).items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    return directory


# ---- which template ----------------------------------------------------------------------------------------------------

BODY = "{% for m in messages %}{{ m.content }}{% endfor %}{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
TEMPLATES = {name: f"this is {name}: {BODY}" for name in ("default", "tool_use", "rag", "other")}


def listed(*names):
    return {"chat_template": [{"name": name, "template": TEMPLATES[name]} for name in names]}


def test_templates(temporary):
    tools = [{"type": "function", "function": {"name": "clock", "description": "", "parameters": {}}}]
    single, extra = "chat_template.jinja", "additional_chat_templates/{}.jinja"
    cases = [
        (None, {}), ({"chat_template": TEMPLATES["other"]}, {}), (listed("default"), {}), (listed("default", "tool_use"), {}),
        (listed("tool_use", "rag", "default"), {}), (listed("default", "rag"), {}), (listed("tool_use"), {}), (listed("rag"), {}),
        ({"chat_template": [*listed("default")["chat_template"], {"name": "default", "template": TEMPLATES["other"]}]}, {}),
        (listed("default", "tool_use"), {single: TEMPLATES["other"]}),
        (listed("default", "tool_use"), {extra.format("rag"): TEMPLATES["rag"]}),
        (None, {single: TEMPLATES["other"], extra.format("tool_use"): TEMPLATES["tool_use"]}),
        (listed("default"), {extra.format("tool_use"): TEMPLATES["tool_use"]}),
        (None, {extra.format("default"): TEMPLATES["default"], single: TEMPLATES["other"]}),
        (None, {single: TEMPLATES["other"], "additional_chat_templates/tool_use.txt": TEMPLATES["tool_use"]}),
    ]
    answered = refused = 0
    for i, (config, files) in enumerate(cases):
        directory = make(temporary / str(i), config, files)
        reference = transformers.AutoTokenizer.from_pretrained(str(directory))
        for given in (None, [], tools):
            messages = [{"role": "user", "content": "hi"}]
            try:
                text = reference.apply_chat_template(messages, tools=given, tokenize=False)
                expected = reference.encode(text, add_special_tokens=False)
            except ValueError:
                expected = None
            request = {"messages": messages} | ({} if given is None else {"tools": given})
            found = ask("C", directory, json.dumps(request))
            what = f"templates {i}, tools {given}"
            if expected is None:
                refused += 1
                check(isinstance(found, str) and "template" in found, f"{what}: want a refusal, got {found}")
            else:
                answered += 1
                check(found == expected, f"{what}: want {text!r}, got {found}")
    check(answered >= 30 and refused >= 9, f"templates: {answered} answered, {refused} refused")
    broken = make(temporary / "broken", {"chat_template": [{"name": "default"}]})
    found = ask("C", broken, "{}")
    check("tokenizer_config.json: chat_template" in found, f"a list without templates: {found}")


# ---- tokens around a prompt --------------------------------------------------------------------------------------------

def processor(ids, *around):
    token = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [*map(token, around[:1]), text, *map(token, around[1:])]
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in around}}


def test_prompts(temporary):
    """Beside a tokenizer.json transformers 5 takes no notice of add_bos_token and add_eos_token: neither do we."""
    ids = {t["content"]: t["id"] for t in json.loads((BOOKWORM / "tokenizer.json").read_text())["added_tokens"]}
    processors = [None, processor(ids, "<|im_start|>"), processor(ids, "<|im_start|>", "<|im_end|>")]
    keys = [{}, {"add_bos_token": True}, {"add_bos_token": False}, {"add_eos_token": True, "add_bos_token": True}]
    classes = ["PreTrainedTokenizerFast", "LlamaTokenizerFast", "Qwen2Tokenizer"]
    seen = set()
    for i, (name, one, more) in enumerate(itertools.product(classes, processors, keys)):
        directory = make(temporary / str(i), more | {"tokenizer_class": name}, processor=one)
        expected = transformers.AutoTokenizer.from_pretrained(str(directory))("Clara Webb")["input_ids"]
        found = ask("P", directory, "Clara Webb")
        seen.add(len(expected))
        check(found == expected, f"prompt {name} {more} {one and one['single']}: want {expected}, got {found}")
    check(len(seen) == 3, f"prompts: {seen} tokens")


def main():
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            before = tally.failed
            test(pathlib.Path(temporary))
            print(name, "ok" if tally.failed == before else "FAILED", flush=True)
    sys.exit(tally.finish())


if __name__ == "__main__":
    main()
