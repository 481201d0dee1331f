"""prefix_model.py: the bundled model with a tokenizer that puts <|im_start|> in front of a prompt."""
import json
from pathlib import Path

MODEL = Path(__file__).resolve().parents[2] / "models" / "bookworm"
TOKEN = "<|im_start|>"


def make(to):
    """A directory of links, but for tokenizer.json; `to` must not exist.  Returns it."""
    to = Path(to)
    to.mkdir()
    for file in MODEL.iterdir():
        if file.name != "tokenizer.json":
            (to / file.name).symlink_to(file)
    tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
    start = next(t["id"] for t in tokenizer["added_tokens"] if t["content"] == TOKEN)
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": TOKEN, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {TOKEN: {"id": TOKEN, "ids": [start], "tokens": [TOKEN]}},
    }
    (to / "tokenizer.json").write_text(json.dumps(tokenizer))
    return to
