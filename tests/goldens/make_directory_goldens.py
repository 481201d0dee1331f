"""Make directories/directories.json: what transformers makes of the files of a directory: which of several chat templates
a conversation takes, and which tokens stand around a prompt.

    pip install transformers==5.24.0 tokenizers==0.23.3 jinja2 && python tests/goldens/make_directory_goldens.py

Made with transformers 5.24.0 and tokenizers 0.23.3; torch is not needed.  The directories are those of
tests/python/text_directories.py: "templates" holds a description of each and, for no tools, an empty list and one tool,
the text that the template gave or which of "errors" there was; "ids" the texts' tokens; "prompts" the tokens of one prompt
for every post-processor, and which of "configs", more of tokenizer_config.json, gave them."""
import itertools
import json
import os
import pathlib
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "critical"
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import text_directories as directories

SINGLE, MORE = "chat_template.jinja", "additional_chat_templates/"


def same(*names):
    return [[name, name] for name in names]


TEMPLATES = [
    (None, {}), ("other", {}), (same("default"), {}), (same("default", "tool_use"), {}),
    (same("tool_use", "rag", "default"), {}), (same("default", "rag"), {}), (same("tool_use"), {}), (same("rag"), {}),
    ([["default", "default"], ["default", "other"]], {}),
    (same("default", "tool_use"), {SINGLE: "other"}),
    (same("default", "tool_use"), {MORE + "rag.jinja": "rag"}),
    (None, {SINGLE: "other", MORE + "tool_use.jinja": "tool_use"}),
    (same("default"), {MORE + "tool_use.jinja": "tool_use"}),
    (None, {MORE + "default.jinja": "default", SINGLE: "other"}),
    (None, {SINGLE: "other", MORE + "tool_use.txt": "tool_use"}),
]
AROUND = [[], ["<|im_start|>"], ["<|im_start|>", "<|im_end|>"]]
CLASSES = ["PreTrainedTokenizerFast", "LlamaTokenizerFast", "Qwen2Tokenizer"]
KEYS = [{}, {"add_bos_token": True}, {"add_bos_token": False}, {"add_eos_token": True, "add_bos_token": True}]
CONFIGS = [keys | {"tokenizer_class": name} for name, keys in itertools.product(CLASSES, KEYS)]


def load(directory):
    return transformers.AutoTokenizer.from_pretrained(str(directory))


def templates(temporary, ids, errors):
    for i, (listed, files) in enumerate(TEMPLATES):
        case = {"listed": listed, "files": files, "answers": []}
        tokenizer = load(directories.make_templates(temporary / f"templates{i}", case))
        for tools in directories.TOOLS:
            try:
                text = tokenizer.apply_chat_template(directories.MESSAGES, tools=tools, tokenize=False)
            except ValueError as error:
                text = str(error).split("! ")[0]
                if text not in errors:
                    errors.append(text)
                case["answers"].append({"error": errors.index(text)})
            else:
                ids[text] = tokenizer.encode(text, add_special_tokens=False)
                case["answers"].append({"text": text})
        yield case


def prompts(temporary):
    for i, around in enumerate(AROUND):
        made = {}
        for j, config in enumerate(CONFIGS):
            tokenizer = load(directories.make(temporary / f"prompt{i}_{j}", config, around=around))
            made.setdefault(tuple(tokenizer(directories.PROMPT)["input_ids"]), []).append(j)
        yield from ({"around": around, "ids": ids, "configs": configs} for ids, configs in made.items())


def main():
    golden = {"transformers": transformers.__version__, "errors": [], "ids": {}, "configs": CONFIGS}
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        golden["templates"] = list(templates(temporary, golden["ids"], golden["errors"]))
        golden["prompts"] = list(prompts(temporary))
    # A case a line.
    lines = []
    for key, value in golden.items():
        if isinstance(value, list):
            lines.append(f"{json.dumps(key)}: [\n" + ",\n".join(map(json.dumps, value)) + "\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    directories.GOLDEN.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
