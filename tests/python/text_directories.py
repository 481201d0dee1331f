"""text_directories.py: model directories for the choice of a chat template and for the tokens around a prompt.  Made from
the same descriptions by tests/goldens/make_directory_goldens.py and by test_directories.py."""
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests" / "goldens" / "qwen2"
BOOKWORM = ROOT / "models" / "bookworm"
GOLDEN = ROOT / "tests" / "goldens" / "directories" / "directories.json"

BODY = "{% for m in messages %}{{ m.content }}{% endfor %}{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
MESSAGES = [{"role": "user", "content": "hi"}]
TOOLS = [None, [], [{"type": "function", "function": {"name": "clock", "description": "", "parameters": {}}}]]
PROMPT = "Clara Webb"


def template(says):
    return f"this is {says}: {BODY}"


def make(directory, config, files=None, around=()):
    """The tiny model with the bundled model's tokenizer; config: more of tokenizer_config.json; files: {path: text};
    around: the control token before a prompt, and those after it."""
    directory.mkdir()
    for name in ("config.json", "model.safetensors"):
        (directory / name).symlink_to(MODEL / name)
    tokenizer = json.loads((BOOKWORM / "tokenizer.json").read_text())
    if around:
        tokenizer["post_processor"] = processor({t["content"]: t["id"] for t in tokenizer["added_tokens"]}, around)
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | config))
    for name, text in (files or {}).items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    return directory


def processor(ids, around):
    def token(name):
        return {"SpecialToken": {"id": name, "type_id": 0}}

    single = [*map(token, around[:1]), {"Sequence": {"id": "A", "type_id": 0}}, *map(token, around[1:])]
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in around}}


def make_templates(directory, case):
    """case: "listed", chat_template of tokenizer_config.json: null, what a single one says, or a list of [name, what it
    says]; "files": {path: what its template says}."""
    listed = case["listed"]
    if isinstance(listed, list):
        config = {"chat_template": [{"name": name, "template": template(says)} for name, says in listed]}
    else:
        config = {} if listed is None else {"chat_template": template(listed)}
    return make(directory, config, {path: template(says) for path, says in case["files"].items()})
