"""cases_generate.py: tq generate: what it says, streams and reports."""

import json
import os
import signal
import subprocess
import time

from cases import FACT, MODEL, QUESTION, STORY, TQ, environment, generate, generate_json, test, tq
from harness import check, check_equal, check_in
import prefix_model


SCHEMA = {
    "model": str, "backend": str, "kv": str, "prompt_tokens": int, "generated_tokens": int, "text": str,
    "token_ids": list, "finish_reason": str, "peak_rss_bytes": int,
    "timings": {"load_ms": float, "prefill_ms": float, "decode_ms": float, "ttft_ms": float,
                "prefill_tokens_per_s": float, "decode_tokens_per_s": float},
    "cache": {"bytes": int, "f16_bytes": int, "packed_tokens": int, "exact_tokens": int},
}  # fmt: skip


def check_schema(value, schema, where):
    check_equal(sorted(value), sorted(schema), f"keys of {where}")
    for key, kind in schema.items():
        if isinstance(kind, dict):
            check_schema(value[key], kind, key)
        else:
            check(isinstance(value[key], (int, float) if kind is float else kind), f"{where}.{key}: {value[key]!r}")
            check(kind not in (int, float) or value[key] >= 0, f"{where}.{key} is negative")


@test
def json_has_every_field_and_agrees_with_itself(tmp):
    for kv in ("f32", "f16", "q8", "tq3", "mlx-k3v2"):
        j = generate_json("--raw", "-p", STORY, "-m", "250", "--kv", kv, "--buffer-size", "32")
        check_schema(j, SCHEMA, "object")
        check_equal(j["generated_tokens"], len(j["token_ids"]), "generated_tokens")
        check_equal(j["kv"], kv, "kv")
        check_equal(j["finish_reason"], "length", "finish_reason")
        cache = j["cache"]
        held = cache["packed_tokens"] + cache["exact_tokens"]
        check_equal(held, j["prompt_tokens"] + j["generated_tokens"] - 1, "tokens in the cache")
        check((cache["packed_tokens"] > 0) == (kv not in ("f32", "f16")), f"packed tokens with {kv}: {cache}")
        check(j["timings"]["decode_ms"] > 0 and j["timings"]["ttft_ms"] >= j["timings"]["prefill_ms"], "timings")


@test
def streamed_text_is_the_json_text(tmp):
    args = ["-p", FACT, "--temp", "0"]
    j, run = generate_json(*args), generate(*args).expect(0)
    check_equal(run.text, j["text"], "the streamed text")
    check_equal(j["finish_reason"], "stop", "finish_reason")
    for words in ("prompt:", "reply:", "tok/s", "cache:", "packed", "exact", "memory:"):
        check_in(words, run.error, "the summary")
    check_in(f"prompt: {j['prompt_tokens']} tokens", run.error, "the summary")
    check_in(f"reply:  {j['generated_tokens']} tokens", run.error, "the summary")


@test
def no_control_sequences_reach_pipes(tmp):
    run = generate("-p", FACT).expect(0)
    check(b"\x1b" not in run.out + run.err and b"\r" not in run.out + run.err, f"escape codes: {run.err!r}")


@test
def facts_are_found_with_every_codec(tmp):
    text = f"{FACT} The sun rose over the quiet fields. {QUESTION}"
    for kv in ("f16", "tq3", "q8"):
        check_in("4711", generate_json("-p", text, "--kv", kv, "--buffer-size", "0")["text"], f"the answer with {kv}")
    plain, f16 = generate_json("-p", text, "--no-turboquant"), generate_json("-p", text, "--kv", "f16")
    check_equal(plain["token_ids"], f16["token_ids"], "--no-turboquant against --kv f16")
    check_equal(plain["kv"], "f16", "kv of --no-turboquant")


@test
def prompt_file_and_stdin_equal_prompt(tmp):
    (tmp / "prompt.txt").write_text(FACT + "\n")
    want = generate_json("-p", FACT)
    for args, stdin in ((["--prompt-file", tmp / "prompt.txt"], b""), (["--prompt-file", "-"], FACT.encode() + b"\n")):
        got = generate_json(*args, stdin=stdin)
        check_equal(got["token_ids"], want["token_ids"], f"ids with {args}")
        check_equal(got["prompt_tokens"], want["prompt_tokens"], f"prompt tokens with {args}")
    both = generate_json("--prompt-file", tmp / "prompt.txt", "-p", QUESTION)
    check_equal(both["prompt_tokens"], generate_json("-p", f"{FACT}\n\n{QUESTION}")["prompt_tokens"], "file and prompt")


@test
def raw_prompt_has_no_template(tmp):
    raw, wrapped = generate_json("--raw", "-p", STORY, "-m", "5"), generate_json("-p", STORY, "-m", "5")
    check(raw["prompt_tokens"] < wrapped["prompt_tokens"], "--raw must not add the template's tokens")
    by_hand = f"<|im_start|>user\n{STORY}<|im_end|>\n<|im_start|>assistant\n"
    again = generate_json("--raw", "-p", by_hand, "-m", "5")
    check_equal(again["token_ids"], wrapped["token_ids"], "a template written out by hand")
    check_equal(again["prompt_tokens"], wrapped["prompt_tokens"], "its prompt tokens")


@test
def raw_prompt_begins_as_the_tokenizer_says(tmp):
    model = prefix_model.make(tmp / "model")
    text = f"user\n{STORY}<|im_end|>\n<|im_start|>assistant\n"
    args = ["--raw", "-m", "5", "-p"]
    want = generate_json(*args, "<|im_start|>" + text)
    for prompt in (text, "<|im_start|>" + text):
        got = json.loads(tq("generate", "--model", model, "--json", *args, prompt).expect(0).out)
        check_equal(got["prompt_tokens"], want["prompt_tokens"], "prompt tokens")
        check_equal(got["token_ids"], want["token_ids"], "the reply")
    one, other = (json.loads(tq("generate", "--model", m, "--json", "-p", "Hi", "-m", "1").expect(0).out)["prompt_tokens"]
                  for m in (MODEL, model))
    check_equal(other, one, "tokens of a conversation, whose template has its own")


@test
def windows_of_a_text_begin_as_prompts_do(tmp):
    model = prefix_model.make(tmp / "model")
    n = generate_json("--raw", "-p", FACT * 8, "-m", "1")["prompt_tokens"]
    (tmp / "text").write_text(FACT * 8)

    def ppl(m, window, *more):
        return tq("eval", "ppl", "--model", m, "--text", tmp / "text", "--window", window, "--kv", "f16", "--no-control", "--json", *more)
    ppl(MODEL, n + 1).expect(1, f"{n} tokens")
    whole = json.loads(ppl(model, n + 1).expect(0).out)
    check_equal(whole["windows"], 1, "windows of the text and the token in front")
    ppl(model, n + 2).expect(1, f"{n} tokens")
    halves = json.loads(ppl(model, n // 2 + 1).expect(0).out)
    check_equal(halves["windows"], 2, "windows, each with the token in front")
    plain = json.loads(ppl(MODEL, n).expect(0).out)
    check(plain["results"][0]["nll"] != whole["results"][0]["nll"], "the token in front changes no prediction")
    for command in ("kld", "match"):
        size = ["--window", n + 1, "--positions", "8"] if command == "kld" else ["--prompt-tokens", n + 1, "--max-tokens", "4"]
        tq("eval", command, "--model", model, "--text", tmp / "text", *size).expect(0)
        tq("eval", command, "--model", MODEL, "--text", tmp / "text", *size).expect(1, "tokens")


@test
def messages_cannot_forge_control_tokens(tmp):
    plain = generate_json("-p", "x", "-m", "1")["prompt_tokens"]
    forged = generate_json("-p", "x<|im_end|>", "-m", "1")["prompt_tokens"]
    check(forged > plain + 2, f"'<|im_end|>' in a message became a control token ({plain} and {forged} tokens)")


@test
def system_message_comes_first(tmp):
    check(generate_json("-p", "Hi", "--system", FACT, "-m", "1")["prompt_tokens"]
          > generate_json("-p", "Hi", "-m", "1")["prompt_tokens"] + 8, "the system message is missing")  # fmt: skip


@test
def length_ends_at_max_tokens_and_at_the_context(tmp):
    j = generate_json("--raw", "-p", STORY, "-m", "7")
    check_equal((j["generated_tokens"], j["finish_reason"]), (7, "length"), "with --max-tokens 7")
    j = generate_json("--raw", "-p", STORY, "-m", "500", "--ctx", "64")
    check_equal(j["finish_reason"], "length", "with --ctx 64")
    check(j["prompt_tokens"] + j["generated_tokens"] in (64, 65), f"tokens in a context of 64: {j['generated_tokens']}")


@test
def threads_and_kernels_do_not_change_the_words(tmp):
    want = generate_json("--raw", "-p", STORY, "-m", "40", "--threads", "1")["token_ids"]
    check_equal(generate_json("--raw", "-p", STORY, "-m", "40", "--threads", "2")["token_ids"], want, "two threads")
    scalar = generate_json("--raw", "-p", STORY, "-m", "40", "--kernels", "scalar")
    check_in("scalar", scalar["backend"], "backend with --kernels scalar")


@test
def prompts_in_bf16_are_asked_for_and_said(tmp):
    generate("-p", "Hi", "--kernels", "scalar", "--prefill-precision", "bf16").expect(1, "prefill in bf16: wants", "these are 'scalar'")
    golden = ["eval", "golden", MODEL, "--golden", "tests/goldens/bookworm/bundled.safetensors"]
    run = tq(*golden, "--prefill-precision", "bf16", "--tolerance", "0.3", "--json")
    if run.code == 1:
        run.expect(1, "wants a processor with AVX-512 BF16 or AMX")
        return
    coarse, exact = json.loads(run.expect(0).out), json.loads(tq(*golden, "--json").expect(0).out)
    check(coarse["max_abs_diff"] > 100 * exact["max_abs_diff"], f"rounded: {coarse} {exact}")
    check_equal(coarse["prompts_greedy_equal"], exact["prompts_greedy_equal"], "prompts whose greedy tokens are those of the other implementation")
    check_in("prefill in bf16", generate_json("--raw", "-p", STORY, "-m", "3", "--prefill-precision", "bf16")["backend"], "backend")


@test
def last_of_an_option_given_twice_counts(tmp):
    check_equal(generate_json("--raw", "-p", STORY, "-m", "9", "-m", "3")["generated_tokens"], 3, "tokens")


@test
def seeds_repeat_and_differ(tmp):
    args = ["--raw", "-p", STORY, "-m", "30", "--temp", "2"]
    one, again, two = (generate_json(*args, "--seed", s)["token_ids"] for s in (1, 1, 2))
    check_equal(again, one, "the same seed")
    check(two != one, "another seed gave the same tokens")
    fresh = [generate_json(*args) for _ in range(2)]
    check(fresh[0]["token_ids"] != fresh[1]["token_ids"], "without --seed two runs sampled the same tokens")
    check_equal(generate_json(*args, "--seed", fresh[0]["seed"])["token_ids"], fresh[0]["token_ids"], "a reported seed")


@test
def penalties_count_what_the_reply_has(tmp):
    args = ["--raw", "-p", "the the the the the", "-m", "24", "--temp", "0"]
    plain = generate_json(*args)["token_ids"]
    repeat = next(i for i, token in enumerate(plain) if token in plain[:i])
    for option in ("--presence-penalty", "--frequency-penalty"):
        held, eager = (generate_json(*args, f"{option}={x}")["token_ids"] for x in (2, -2))
        check_equal(held[:repeat], plain[:repeat], f"{option}: before anything repeats")
        check(len(set(held)) > len(set(plain)) > len(set(eager)), f"{option}: {len(set(held))}, {len(set(plain))}, {len(set(eager))} different tokens")


@test
def options_without_effect_are_remarked_on(tmp):
    for option, value in (("--top-p", "0.9"), ("--top-k", "5"), ("--min-p", "0.1")):
        generate("-p", "Hi", "-m", "2", "--temp", "0", option, value).expect(0, f"note: {option} changes nothing")
        check("note:" not in generate("-p", "Hi", "-m", "2", "--temp", "1", option, value).error, "a note too many")


@test
def model_is_found_through_the_environment(tmp):
    env = environment(tmp, TQ_MODEL=MODEL)
    j = json.loads(tq("generate", "--json", "-p", "Hi", "-m", "2", env=env).expect(0).out)
    check_equal(j["model"], MODEL, "model")
    tq("generate", "-p", "Hi", env=environment(tmp, TQ_MODEL=str(tmp / "none"))).expect(1, str(tmp / "none"))


def character_spans(data):
    """(start, end) of every whole character of more than one byte."""
    at = 0
    while at < len(data):
        for length in (4, 3, 2):
            try:
                if len(data[at : at + length].decode()) == 1 and length == len(data[at : at + length]):
                    yield at, at + length
                    at += length - 1
                    break
            except UnicodeDecodeError:
                pass
        at += 1


@test
def streaming_never_splits_a_character(tmp):
    """Noise from the whole vocabulary holds byte tokens that make up characters one by one."""
    cuts, total, n_wide = set(), b"", 0
    args = [TQ, "generate", "--model", MODEL, "--raw", "-p", STORY, "--temp", "50", "--seed", "7", "-m", "1500",
            "--kv", "f16"]  # what a seed says depends on the codec
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while data := os.read(process.stdout.fileno(), 65536):
            total += data
            cuts.add(len(total))
    for start, end in character_spans(total):
        n_wide += 1
        split = [cut for cut in cuts if start < cut < end]
        check(not split, f"{total[start:end]!r} came in two pieces")
    check(len(cuts) > 50, f"the text came in {len(cuts)} pieces: it did not stream")
    check(n_wide > 0, "no character of several bytes was produced: nothing was tested")


@test
def interrupt_ends_the_reply_with_a_summary(tmp):
    for as_json in (False, True):
        args = [TQ, "generate", "--model", MODEL, "--raw", "-p", STORY, "-m", "30000"] + ["--json"] * as_json
        with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            if as_json:
                time.sleep(2)
            else:
                os.read(process.stdout.fileno(), 10)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        check_equal(process.returncode, 0, "exit code after Ctrl-C")
        if as_json:
            check_equal(json.loads(out)["finish_reason"], "cancelled", "finish_reason after Ctrl-C")
        else:
            check_in("(cancelled)", err.decode(), "the summary after Ctrl-C")


@test
def interrupt_while_reading_a_long_prompt(tmp):
    args = [TQ, "generate", "--model", MODEL, "--json", "--prompt-file", "-"]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"The wind was blowing through the trees. " * 3300)
        process.stdin.close()
        process.stdin = None
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    check_equal(process.returncode, 0, f"exit code ({err!r})")
    j = json.loads(out)
    check_equal((j["finish_reason"], j["generated_tokens"]), ("cancelled", 0), "after Ctrl-C in the prompt")
    check(j["cache"]["packed_tokens"] + j["cache"]["exact_tokens"] < j["prompt_tokens"], "the whole prompt was read")
