"""cases_models.py: what a name given as --model stands for.  The hub itself: tests/python/test_hub.py."""

import json
from pathlib import Path

from cases import MODEL, copy_model, environment, test, tq
from harness import check, check_equal, check_in

DIGEST = "ab" * 32
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def ask(tmp, name, **env):
    """What generate makes of a name, with no network and nothing but what the test has put there."""
    clean = {k: v for k, v in environment(tmp, HF_HUB_OFFLINE="1").items() if not k.startswith(("HF_HOME", "HF_HUB_CACHE", "OLLAMA", "LLAMA", "XDG_CACHE"))}
    return tq("generate", "--model", name, "--prompt", "x", "-m", "1", env={**clean, **env})


def write(path, data=b"not a GGUF file"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def manifest(*layers):
    return json.dumps({"schemaVersion": 2, "layers": [{"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": 1}
                                                      for kind, digest in layers]}).encode()


@test
def models_of_ollama_are_found_by_their_names(tmp):
    root = tmp / ".ollama/models"
    blob = write(root / f"blobs/sha256-{DIGEST}")
    good = manifest(("template", "sha256:" + "cd" * 32), ("model", f"sha256:{DIGEST}"))
    for inside, names in (("registry.ollama.ai/library/tiny/latest", ["tiny", "tiny:latest"]), ("registry.ollama.ai/library/tiny/3b", ["tiny:3b"]),
                          ("registry.ollama.ai/user/own/v1", ["user/own:v1"]), ("hf.co/org/name/Q4_K_M", ["hf.co/org/name:Q4_K_M"])):
        write(root / "manifests" / inside, good)
        for name in names:
            ask(tmp, name).expect(1, f"{name}: from Ollama's store, {blob}\n", f"{blob}: ")
    ask(tmp, "tiny", OLLAMA_MODELS=str(tmp / "elsewhere")).expect(1, "tiny: no such model directory or GGUF file")
    ask(tmp, "tiny:../../../../secret").expect(1, "no such model")
    for i, (data, reason) in enumerate(((b"{", "no JSON"), (manifest(("model", "sha256:../../x")), "a digest that is none"),
                                        (manifest(("model", f"sha256:{DIGEST}")) [:-1], "no JSON"),
                                        (manifest(("model", f"sha256:{DIGEST}"), ("model", f"sha256:{DIGEST}")), "2 model files"),
                                        (manifest(("tensor", f"sha256:{DIGEST}")), "stored one by one"),
                                        (manifest(("model", "sha256:" + "ef" * 32)), "no such model"))):
        write(root / f"manifests/registry.ollama.ai/library/bad{i}/latest", data)
        ask(tmp, f"bad{i}").expect(1, f"bad{i}: ", reason)


@test
def models_of_llama_cpp_are_found_by_repository_and_tag(tmp):
    root = tmp / ".cache/llama.cpp"
    q4, q8 = write(root / "org_name_m-Q4_K_M.gguf"), write(root / "org_name_m-Q8_0.gguf")
    write(root / "org_name_m-Q8_0.gguf.json")
    ask(tmp, "org/name:Q4_K_M").expect(1, f"org/name:Q4_K_M: from llama.cpp's cache, {q4}\n")
    ask(tmp, "org/name:m-Q8_0.gguf").expect(1, f"from llama.cpp's cache, {q8}\n")
    ask(tmp, "org_name_m-Q8_0.gguf").expect(1, f"from llama.cpp's cache, {q8}\n")
    ask(tmp, "org/name").expect(1, "several GGUF models", "m-Q4_K_M.gguf, m-Q8_0.gguf")
    ask(tmp, "org/name:Q4_K_M", LLAMA_CACHE=str(tmp)).expect(1, "HF_HUB_OFFLINE is set, so it is not fetched")


@test
def models_in_the_hub_cache_come_first_and_only_whole(tmp):
    root = tmp / ".cache/huggingface/hub/models--org--name"
    write(root / "refs/main", COMMIT.encode())
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for file in Path(MODEL).iterdir():
        if file.name != "model.safetensors":
            (snapshot / file.name).symlink_to(file)
    write(tmp / ".cache/llama.cpp/org_name_m.gguf")
    ask(tmp, "org/name").expect(1, "from llama.cpp's cache")  # weights are missing: not a model
    (snapshot / "model.safetensors").symlink_to(Path(MODEL) / "model.safetensors")
    run = ask(tmp, "org/name").expect(0, f"org/name: from Hugging Face's cache, {snapshot}\n")
    check(run.out, "it answers")
    (snapshot / "model.safetensors").unlink()
    write(snapshot / "model.safetensors.index.json", b'{"weight_map": {"a": "model-1.safetensors"}}')
    ask(tmp, "org/name").expect(1, "from llama.cpp's cache")  # a shard is missing


@test
def inspect_tells_what_a_model_is_made_of(tmp):
    text = tq("inspect", MODEL).expect(0).text
    for line in ("family      qwen2", "parameters  27.8 million in 15.7 MB (4-bit groups of 64)", "layers      8: 8 attention", "ends with <|im_end|> (2) or <|endoftext|> (0)",
                 "tokenizer   byte-level BPE, 8192 tokens (3 added), 7933 merges\n", "a raw prompt gets no tokens around it;",
                 "template    default\n", "tq3.5 ", "tq2.5 ", "f16                              8192       268.4 MB"):
        check_in(line, text, "tq inspect")
    bits = {row["codec"]: row["cache_bits"] for row in json.loads(tq("codecs", "--dim", "128", "--json").expect(0).text)}
    for cache in json.loads(tq("inspect", MODEL, "--json", "--kv", "f16,q8,tcq3,paper-mse:3").expect(0).text)["caches"]:  # keys and values of 8 layers, 2 heads of 128
        check_equal(cache["token_bytes"], int(bits[cache["kv"]] / 8 * 2 * 8 * 2 * 128), f"bytes a token of {cache['kv']}")
    goldens = Path(MODEL).parents[1] / "tests/goldens"
    check_in("4: 3 delta, 2 of 8 experts; 1 attention, 2 of 8 experts", tq("inspect", goldens / "qwen3_5_moe").expect(0).text, "a hybrid")
    check_in("4: 3 attention within 24 tokens; 1 attention\n", tq("inspect", goldens / "gemma3").expect(0).text, "sliding layers")
    facts = json.loads(tq("inspect", "--model", goldens / "gpt_oss_mxfp4", "--json", "--kv", "f16,tq:k=q8,v=tq3").expect(0).text)
    check({w["type"] for w in facts["weights"]} >= {"mxfp4", "bf16"}, str(facts["weights"]))
    check(sum(w["bytes"] for w in facts["weights"]) == facts["weight_bytes"] and facts["experts"] > 0, "sums")
    check([c["kv"] for c in facts["caches"]] == ["f16", "tq:k=q8,v=tq3"] and facts["tokenizer"] is None, str(facts["caches"]))
    around = copy_model(tmp / "around", skip=("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"))
    tokenizer = json.loads((Path(MODEL) / "tokenizer.json").read_text())
    text = {"Sequence": {"id": "A", "type_id": 0}}
    tokenizer["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, text],
                                   "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}}}
    (around / "tokenizer.json").write_text(json.dumps(tokenizer))
    both = [{"name": name, "template": "x"} for name in ("default", "tool_use")]
    (around / "tokenizer_config.json").write_text(json.dumps({"chat_template": both}))
    text = tq("inspect", around).expect(0).text
    check_in("a raw prompt gets <|im_start|> (1) before it; a reply ends", text, "tokens around a prompt")
    check_in("template    default, tool_use\n", text, "named templates")
    facts = json.loads(tq("inspect", around, "--json").expect(0).text)
    check_equal((facts["tokenizer"]["before"], facts["tokenizer"]["after"], facts["tokenizer"]["kind"]), ([1], [], "byte-level BPE"), "tokenizer")
    tq("inspect", "--kv", "nix").expect(1, "unknown codec 'nix'")
    tq("inspect", "a", "b").expect(2, "want one MODEL, got 'b' too")
    tq("inspect", "a", "--model", "b").expect(2, "want MODEL or --model, got both")


@test
def plan_tells_what_fits(tmp):
    facts = json.loads(tq("plan", MODEL, "--memory", "60MB", "--kv", "f16,tq3", "--contexts", "4096,32768", "--json").expect(0).text)
    check([p["fits"] for p in facts["plans"]] == [True, False, True, False], str(facts["plans"]))
    for plan in facts["plans"]:
        check(plan["total_bytes"] == sum(plan[k] for k in ("mapped_bytes", "copied_bytes", "cache_bytes", "state_bytes", "work_bytes")), str(plan))
        bound = facts["bandwidth_gb_per_s"] * 1e9 / plan["read_bytes"]
        check(abs(plan["decode_tokens_per_s_bound"] / bound - 1) < 1e-6, "the bound")
    for kv, most in facts["largest_context"].items():
        ask = ["generate", "--model", MODEL, "--prompt", "x", "-m", "1", "--kv", kv, "--memory", "60MB", "--ctx"]
        tq(*ask, most).expect(0)
        tq(*ask, most + 1).expect(1, f"not enough memory: {most + 1} tokens of context as {kv} want", f"a context of {most} tokens fits")
        tq(*ask[:-3], "--no-memory-check", "--ctx", most + 1).expect(0)
    check(facts["largest_context"]["tq3"] > 4 * facts["largest_context"]["f16"], str(facts["largest_context"]))
    check_in("all that the model was made for", tq("plan", MODEL).expect(0).text, "tq plan")
    tq("plan", "--memory", "much").expect(2, "--memory: want a size such as 8GB, got 'much'")
    tq("plan", "--memory", "1GB", "--no-memory-check").expect(2, "give one of them")
    tq("plan", "--contexts", "99999999").expect(2, "--contexts: want")


@test
def shapes_without_a_download_are_labelled(tmp):
    text = tq("inspect", "synthetic:tiny-hybrid").expect(0).text
    check_in("random weights: what it says means nothing", text, "tq inspect")
    check_in("8: 6 delta, 4 of 32 experts; 2 attention, 4 of 32 experts", text, "tq inspect")
    facts = json.loads(tq("inspect", "synthetic:qwen3.5-35b-a3b", "--json", "--kv", "f16").expect(0).text)
    check(34e9 < facts["parameters"] < 36e9 and 1.5e9 < facts["token_bytes"] < 2e9, f"35 billion, 3 of them active: {facts['parameters']}")
    check(facts["caches"][0]["token_bytes"] == 10 * 2 * 2 * 256 * 2, "keys and values of 10 layers")
    cell = ["--context", "300", "--fill", "prefill", "--kv", "tq3", "--decode", "4"]
    row = json.loads(tq("bench", "cell", "--model", "synthetic:tiny-hybrid", *cell).expect(0).text)
    check(row["decode_tokens_per_s"] > 0 and row["weights"].endswith("repeated"), str(row))


@test
def names_that_are_nowhere_are_refused(tmp):
    ask(tmp, "nowhere").expect(1, "nowhere: no such model directory or GGUF file")
    ask(tmp, "/no/where").expect(1, "/no/where: no such model directory or GGUF file")
    ask(tmp, "org/name").expect(1, "org/name: no such directory, not among the models on this machine, and HF_HUB_OFFLINE is set")
    check_in("pull", tq("--help").expect(0).text, "--help")
    tq("pull").expect(2, "want ORG/NAME, got 0 operands")
    tq("pull", "name").expect(2, "want ORG/NAME, ORG/NAME@REVISION or either with :FILE, got 'name'")
