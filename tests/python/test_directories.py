"""test_directories.py [TQ]: what the files of a directory say, as transformers reads them: which of several chat templates
a conversation takes, and which tokens stand around a prompt.  Its answers are in tests/goldens/directories, made
by make_directory_goldens.py beside it.  text_oracle is looked for in TQ's build tree."""
import json
import pathlib
import struct
import sys
import tempfile

import tally
import text_directories as directories
import text_strings
from tally import check

TQ = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else directories.ROOT / "build" / "tq").resolve()
ORACLE = TQ.parent / "tests" / "tools" / "text_oracle"
GOLDEN = json.loads(directories.GOLDEN.read_text())


def ask(letter, directory, body):
    """Ids, or the error's text."""
    path = str(directory).encode()
    [(status, answer)] = text_strings.ask(ORACLE, [(letter, struct.pack("=I", len(path)) + path + body.encode())])
    return answer.decode() if status else list(struct.unpack(f"={len(answer) // 4}i", answer))


def test_templates(temporary):
    answered = refused = 0
    for i, case in enumerate(GOLDEN["templates"]):
        directory = directories.make_templates(temporary / str(i), case)
        for tools, expected in zip(directories.TOOLS, case["answers"], strict=True):
            request = {"messages": directories.MESSAGES} | ({} if tools is None else {"tools": tools})
            found = ask("C", directory, json.dumps(request))
            what = f"templates {case['listed']}, {case['files']}, tools {tools}"
            if "error" in expected:
                refused += 1
                error = GOLDEN["errors"][expected["error"]]
                check(isinstance(found, str) and "template" in found, f"{what}: want a refusal as {error!r}, got {found}")
            else:
                answered += 1
                check(found == GOLDEN["ids"][expected["text"]], f"{what}: want {expected['text']!r}, got {found}")
    check(answered >= 30 and refused >= 9, f"templates: {answered} answered, {refused} refused")
    broken = directories.make(temporary / "broken", {"chat_template": [{"name": "default"}]})
    found = ask("C", broken, "{}")
    check("tokenizer_config.json: chat_template" in found, f"a list without templates: {found}")
    unread = directories.make(temporary / "unread", {"chat_template": "{{ 1 }}"})
    (unread / "additional_chat_templates").write_text("")
    found = ask("C", unread, "{}")
    check("additional_chat_templates: Not a directory" in found, f"a folder that cannot be read: {found}")


def test_prompts(temporary):
    """Beside a tokenizer.json transformers 5 takes no notice of add_bos_token and add_eos_token: neither do we."""
    asked, sizes = 0, set()
    for case in GOLDEN["prompts"]:
        for config in (GOLDEN["configs"][i] for i in case["configs"]):
            directory = directories.make(temporary / str(asked), config, around=case["around"])
            found = ask("P", directory, directories.PROMPT)
            asked += 1
            sizes.add(len(case["ids"]))
            check(found == case["ids"], f"prompt {config}, {case['around']}: want {case['ids']}, got {found}")
    check(asked == 36 and len(sizes) == 3, f"prompts: {asked}, of {sizes} tokens")


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
