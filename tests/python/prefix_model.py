"""prefix_model.py: the bundled model with another tokenizer: one that puts <|im_start|> in front of a prompt, or one with marks of
reasoning."""
import json
from pathlib import Path

MODEL = Path(__file__).resolve().parents[2] / "models" / "bookworm"
TOKEN = "<|im_start|>"


def derive(to, change):
    """A directory of links, but for tokenizer.json, which is changed; `to` must not exist.  Returns it."""
    to = Path(to)
    to.mkdir()
    for file in MODEL.iterdir():
        if file.name != "tokenizer.json":
            (to / file.name).symlink_to(file)
    tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
    change(tokenizer)
    (to / "tokenizer.json").write_text(json.dumps(tokenizer))
    return to


def put_in_front(tokenizer):
    start = next(t["id"] for t in tokenizer["added_tokens"] if t["content"] == TOKEN)
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": TOKEN, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {TOKEN: {"id": TOKEN, "ids": [start], "tokens": [TOKEN]}},
    }


def make(to):
    return derive(to, put_in_front)


def make_marked(to, marks):
    """Rare tokens become control tokens of these names.  Returns the directory and their ids."""
    ids = []

    def rename(tokenizer):
        vocab = tokenizer["model"]["vocab"]
        of_id = {i: token for token, i in vocab.items()}
        for number, mark in enumerate(marks):
            i = len(vocab) - 1 - number
            tokenizer["model"]["merges"] = [m for m in tokenizer["model"]["merges"]
                                            if of_id[i] not in (m if isinstance(m, list) else m.split(" ")) and "".join(m if isinstance(m, list) else m.split(" ")) != of_id[i]]
            del vocab[of_id[i]]
            vocab[mark] = i
            tokenizer["added_tokens"].append({"id": i, "content": mark, "single_word": False, "lstrip": False, "rstrip": False,
                                              "normalized": False, "special": True})
            ids.append(i)

    return derive(to, rename), ids
