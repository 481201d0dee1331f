"""Make mlx_text.json: what mlx-lm says, greedily and in float32, with a model directory (default: the bundled one).

    pip install "mlx[cpu]" mlx-lm && python tests/goldens/bookworm/make_mlx_text.py [DIRECTORY [FILE]]

Made with mlx 0.32.4 and mlx-lm 0.32.2 on the CPU backend."""
import json
import pathlib
import sys

import mlx.core as mx
from mlx_lm import generate, load
from mlx_lm.sample_utils import make_sampler

HERE = pathlib.Path(__file__).resolve().parent
PROMPTS = ["Clara Webb lives in Lisbon. Where does Clara Webb live?", "Hugo Marsh keeps a red boat. What does Hugo Marsh keep?",
           "Tell me a story about the sea.", "The secret number of Ada Archer is 4711. What is the secret number of Ada Archer?",
           "Who was Napoleon?", "Write a letter to a friend."]

mx.set_default_device(mx.cpu)
model, tokenizer = load(sys.argv[1] if len(sys.argv) > 1 else str(HERE.parents[2] / "models" / "bookworm"))
model.set_dtype(mx.float32)
answers = []
for prompt in PROMPTS:
    ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
    answers.append({"prompt": prompt, "text": generate(model, tokenizer, ids, max_tokens=48, sampler=make_sampler(0.0))})
with open(sys.argv[2] if len(sys.argv) > 2 else HERE / "mlx_text.json", "w") as file:
    json.dump(answers, file, indent=1, ensure_ascii=False)
