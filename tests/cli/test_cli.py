#!/usr/bin/env python3
"""test_cli.py: the program as a person and a script meet it.

    python3 tests/cli/test_cli.py [PATH_TO_TQ [MODEL_DIR [NAME...]]]

The model must be bookworm, which remembers facts.  NAMEs select tests that contain one of them."""

import json
import os
import re
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from harness import Failure, Run, Screen, Terminal, check, check_equal, check_in

ROOT = Path(__file__).resolve().parents[2]
TQ = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "tq")
MODEL = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else ROOT / "models" / "bookworm")

FACT = "The secret number of Ada Archer is 4711."
QUESTION = "What is the secret number of Ada Archer?"
STORY = "It was a dark and stormy night, and"
LONG_REPLY = ["--temp", "100", "--seed", "1", "--max-tokens", "20000"]  # noise that seldom ends by itself

TESTS = []


def test(function):
    TESTS.append(function)
    return function


def environment(home, **extra):
    env = {k: v for k, v in os.environ.items() if k not in ("TQ_MODEL", "XDG_STATE_HOME")}
    env.update(HOME=str(home), XDG_STATE_HOME=str(Path(home) / "state"), TERM="xterm", **extra)
    return env


def tq(*args, stdin=b"", env=None):
    return Run([TQ, *map(str, args)], stdin, env)


def generate(*args, stdin=b""):
    return tq("generate", "--model", MODEL, *args, stdin=stdin)


def generate_json(*args, stdin=b""):
    run = generate("--json", *args, stdin=stdin).expect(0)
    check_equal(run.out.count(b"\n"), 1, "lines of --json")
    return json.loads(run.out)


def chat(lines, *args):
    text = lines if isinstance(lines, bytes) else "".join(line + "\n" for line in lines).encode()
    return tq("chat", "--model", MODEL, *args, stdin=text)


def copy_model(to, skip=()):
    """A directory of links to the model's files, to put damaged ones beside."""
    to.mkdir()
    for file in Path(MODEL).iterdir():
        if file.name not in skip:
            (to / file.name).symlink_to(file)
    return to


# ---- usage ------------------------------------------------------------------------------------------------------


@test
def no_command_is_a_usage_error(tmp):
    tq().expect(2, "Usage: tq COMMAND", "generate", "chat", "quantize", "eval")


@test
def unknown_command_is_named_with_the_known_ones(tmp):
    tq("frobnicate").expect(2, "unknown command 'frobnicate'", "generate, chat, quantize, eval")
    tq("help", "frobnicate").expect(2, "unknown command 'frobnicate'")
    tq("--frobnicate").expect(2, "unknown option '--frobnicate'")


@test
def help_lists_every_flag(tmp):
    check_in("Commands:", tq("--help").expect(0).text, "--help")
    check_equal(tq("help").expect(0).text, tq("--help").text, "tq help")
    flags = """model system max-tokens temp top-p top-k min-p repeat-penalty seed ctx threads kernels kv key-bits
               value-bits value-group-size buffer-size sinks flush-batch-size no-turboquant""".split()
    for command, more in (("generate", ["prompt", "prompt-file", "raw", "json"]), ("chat", [])):
        text = tq(command, "--help").expect(0).text
        check_equal(tq("help", command).expect(0).text, text, f"tq help {command}")
        for flag in flags + more:
            check_in(f"--{flag}", text, f"help of {command}")


@test
def version_is_a_number(tmp):
    words = tq("--version").expect(0).text.split()
    check(words[0] == "tq" and words[1][0].isdigit(), f"--version: got {words}")


@test
def bad_options_are_refused_by_name(tmp):
    for args, reason in (
        (["--top-p", "2"], "--top-p: want a number from 0 to 1, got '2'"),
        (["--top-p", "nan"], "--top-p: want a number from 0 to 1, got 'nan'"),
        (["--temp", "-1"], "--temp: want a number from 0 to 100, got '-1'"),
        (["--temp", "0.5x"], "got '0.5x'"),
        (["--temp", "0x1"], "got '0x1'"),
        (["--temp", ""], "got ''"),
        (["--max-tokens", "0"], "--max-tokens: want a whole number from 1"),
        (["--max-tokens", "1.5"], "got '1.5'"),
        (["--max-tokens", " 5"], "got ' 5'"),
        (["--max-tokens", "99999999999999999999"], "got '99999999999999999999'"),
        (["--seed", "-1"], "--seed: want a whole number"),
        (["--threads", "x"], "--threads: want a whole number"),
        (["--top-k", "-1"], "--top-k: want a whole number"),
        (["--frob"], "unknown option '--frob'"),
        (["--frob=3"], "unknown option '--frob=3'"),
        (["-z"], "unknown option '-z'"),
        (["--max", "5"], "unknown option '--max'"),
        (["--max=5"], "unknown option '--max=5'"),
        (["--json=1"], "--json takes no argument"),
        (["--temp"], "--temp wants an argument"),
        (["extra"], "unexpected argument 'extra'"),
        (["--raw", "--system", "x"], "--system has no place"),
    ):
        run = generate("-p", "Hi", *args).expect(2, "tq generate: ", reason)
        check_equal(run.out, b"", f"stdout with {args}")


@test
def no_turboquant_contradicts_a_codec(tmp):
    for command in ("generate", "chat"):
        prompt = ["-p", "Hi"] if command == "generate" else []
        for other in (["--kv", "tq3"], ["--key-bits", "3"], ["--value-bits", "2"], ["--value-group-size", "32"]):
            tq(command, "--model", MODEL, *prompt, "--no-turboquant", *other).expect(2, "--no-turboquant")


@test
def codecs_that_do_not_exist_are_usage_errors(tmp):
    generate("-p", "Hi", "--kv", "zip").expect(2, "zip")
    generate("-p", "Hi", "--kv", "tq3", "--key-bits", "7").expect(2, "7")
    generate("-p", "Hi", "--key-bits", "9").expect(2, "--key-bits: want a whole number from 1 to 8, got '9'")
    generate("-p", "Hi", "--kv", "q8", "--value-group-size", "32").expect(2, "group")
    generate("-p", "Hi", "--kv", "window:64", "--buffer-size", "32").expect(2, "--buffer-size")
    generate("-p", "Hi", "--kernels", "abacus").expect(2, "abacus")
    tq("chat", "--model", MODEL, "--kv", "zip").expect(2, "zip")


@test
def prompt_is_required(tmp):
    generate().expect(2, "--prompt", "--prompt-file")


# ---- bad input --------------------------------------------------------------------------------------------------


@test
def missing_files_are_named(tmp):
    tq("generate", "--model", tmp / "nowhere", "-p", "Hi").expect(1, str(tmp / "nowhere"))
    tq("chat", "--model", tmp / "nowhere").expect(1, str(tmp / "nowhere"))
    generate("--prompt-file", tmp / "nothing.txt").expect(1, str(tmp / "nothing.txt"))
    generate("--prompt-file", tmp).expect(1, str(tmp))


@test
def truncated_weights_are_refused(tmp):
    whole = (Path(MODEL) / "model.safetensors").read_bytes()
    header = struct.unpack("<Q", whole[:8])[0]
    for i, size in enumerate((0, 4, 8, 8 + header // 2, 8 + header, len(whole) - 1)):
        broken = copy_model(tmp / f"model{i}", skip=("model.safetensors",))
        (broken / "model.safetensors").write_bytes(whole[:size])
        run = tq("generate", "--model", broken, "-p", "Hi").expect(1, "model.safetensors")
        check_equal(run.out, b"", f"stdout with {size} bytes of weights")


@test
def unknown_architecture_is_named(tmp):
    config = json.loads((Path(MODEL) / "config.json").read_text())
    config.update(model_type="abacus", architectures=["AbacusForCausalLM"])
    other = copy_model(tmp / "model", skip=("config.json",))
    (other / "config.json").write_text(json.dumps(config))
    tq("generate", "--model", other, "-p", "Hi").expect(1, "abacus")


@test
def damaged_config_and_tokenizer_are_refused(tmp):
    for name in ("config.json", "tokenizer.json"):
        broken = copy_model(tmp / name, skip=(name,))
        (broken / name).write_text('{"a": ')
        tq("generate", "--model", broken, "-p", "Hi").expect(1, name)


@test
def long_prompt_names_both_numbers(tmp):
    n = generate_json("-p", "word " * 300, "-m", "1")["prompt_tokens"]
    for ctx in (64, n):
        run = generate("-p", "word " * 300, "--ctx", ctx).expect(1, str(n), str(ctx))
        check_equal(run.out, b"", "stdout of a refused prompt")
    check_equal(generate_json("-p", "word " * 300, "--ctx", n + 1)["finish_reason"], "length", "an exact fit")


@test
def invalid_utf8_is_refused_with_its_place(tmp):
    generate("-p", b"ab\xffcd".decode(errors="surrogateescape")).expect(1, "UTF-8", "2")
    generate("--prompt-file", "-", stdin=b"abc\xc3").expect(1, "UTF-8", "3")
    generate("--raw", "--prompt-file", "-", stdin=b"\xed\xa0\x80").expect(1, "UTF-8", "0")
    generate("-p", "Hi", "--system", b"\xc0\x80".decode(errors="surrogateescape")).expect(1, "UTF-8")
    check_in("UTF-8", chat(b"\xff\nHello.\n").expect(1).error, "stderr of the chat")


@test
def nul_bytes_are_refused(tmp):
    generate("--prompt-file", "-", stdin=b"a\0b").expect(1, "NUL")
    chat(b"a\0b\n").expect(1, "NUL")


@test
def closed_stdout_is_a_failure(tmp):
    if not os.path.exists("/dev/full"):
        print("skip closed_stdout_is_a_failure: there is no /dev/full")
        return
    for args in (["-p", "Hi"], ["-p", "Hi", "--json"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([TQ, "generate", "--model", MODEL, *args], stdout=full, stderr=subprocess.PIPE)
        check_equal(done.returncode, 1, f"exit code of {args} with a full disk")


# ---- generate ---------------------------------------------------------------------------------------------------

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
    args = [TQ, "generate", "--model", MODEL, "--raw", "-p", STORY, "--temp", "50", "--seed", "7", "-m", "1500"]
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


# ---- chat over a pipe -------------------------------------------------------------------------------------------


@test
def chat_remembers_across_turns(tmp):
    for kv in ("tq3", "f16"):
        run = chat([FACT, "Tell me a story.", QUESTION], "--kv", kv, "--buffer-size", "0", "-m", "200").expect(0)
        check_in("4711", run.text.splitlines()[-1], f"the answer with {kv}")
        check_in(f"Chat with bookworm (KV {kv})", run.error, "the banner")
        check_in("Type /help for commands, /quit to exit.", run.error, "the banner")
        check_in("Bye!", run.error, "the end")
        check(b">>>" not in run.out + run.err and b"\x1b" not in run.out + run.err, "escape codes in a pipe")
        check_equal(run.error.count(" tok/s, "), 3, "statistics lines")


@test
def chat_reads_only_what_is_new(tmp):
    run = chat([FACT, QUESTION, "/stats"], "--kv", "tq3").expect(0)
    line = next(line for line in run.text.splitlines() if line.startswith("last turn:"))
    kept, read = int(line.split()[2]), int(line.split(",")[1].split()[0])
    check(kept > 30 and read < 30, f"the second turn read the first one again: {line}")


@test
def chat_reset_forgets(tmp):
    run = chat([FACT, "/RESET", "/stats", QUESTION]).expect(0)
    check_in("Conversation cleared.", run.text, "the answer to /RESET")
    check_in("context:   0 tokens of 32768, 0 messages", run.text, "/stats after /reset")
    check("4711" not in run.text, f"the fact survived /reset: {run.text!r}")


@test
def chat_changes_the_codec_and_keeps_the_conversation(tmp):
    run = chat([FACT, "/kv q8", QUESTION, "/kv", "/kv zip", QUESTION]).expect(0, "zip")
    check_in("KV q8, ", run.text, "the answer to /kv q8")
    check_equal(run.text.count("4711"), 2, "answers after /kv")
    check_in("\nKV q8\n", run.text, "the answer to /kv")


@test
def chat_system_message(tmp):
    run = chat(["/system", f"/system {FACT}", "/system", QUESTION, "/reset", "/system -", "/system"])
    run.expect(0)
    check_in("There is no system message.", run.text, "/system at first")
    check_in(f"System message: {FACT}", run.text, "/system later")
    check_in("The system message stays.", run.text, "/reset with a system message")
    check_in("System message removed.", run.text, "/system -")
    check_in(f"System message: {FACT}", chat(["/system"], "--system", FACT).expect(0).text, "--system")


@test
def chat_file_goes_with_the_next_message(tmp):
    (tmp / "a text.txt").write_text(FACT + "\n")
    run = chat([f"/file {tmp}/a text.txt", QUESTION, "/file /nowhere/x", "/file", "/file -"]).expect(0)
    check_in(f"{len(FACT) + 1} bytes, ", run.text, "the answer to /file")
    check_in("4711", run.text, "the answer about the file")
    check_in("/nowhere/x", run.error, "the complaint")
    (tmp / "bad.txt").write_bytes(b"\xff\xfe")
    check_in("UTF-8", chat([f"/file {tmp}/bad.txt"]).expect(0).error, "a file that is not text")


@test
def chat_several_lines(tmp):
    run = chat(['"""', FACT, "/reset", '"""', QUESTION, "/stats"]).expect(0)
    check("cleared" not in run.text, "a command inside quotes was obeyed")
    check_in("4711", run.text, "the answer")
    check_in("4 messages", run.text, "/stats")
    check_in("2 messages", chat([f'"""{FACT}"""', "/stats"]).expect(0).text, "quotes on one line")
    check_equal(chat(['"""', FACT]).expect(0).error.count(" tok/s, "), 1, "quotes closed by the end of input")


@test
def chat_unknown_and_misused_commands(tmp):
    run = chat(["/frob x", "/HELP", "/reset now", "/quit", FACT]).expect(0)
    check_in("Unknown command: /frob. Type /help for commands.", run.error, "/frob")
    check_in("/reset takes no argument", run.error, "/reset now")
    for name in "/help /reset /system /file /save /load /kv /stats /quit /exit".split():
        check_in(name, run.text, "/help")
    check(" tok/s, " not in run.error, "the chat went on after /quit")
    check_equal(chat([]).expect(0).out, b"", "stdout of an empty chat")
    check_equal(chat(["", "  ", "\t"]).expect(0).out, b"", "stdout of a chat of empty lines")


@test
def chat_save_and_load_in_another_process(tmp):
    for kv in ("tq3", "f16"):
        args = ["--kv", kv, "--buffer-size", "32", "-m", "200"]
        saved = tmp / f"talk-{kv}"
        first = chat([FACT, "Tell me a story.", f"/save {saved}"], *args).expect(0)
        check_in("Saved 4 messages", first.text, "/save")
        check(saved.with_name(saved.name + ".kv").exists(), "no file of the cache")
        check_equal(json.loads(saved.read_text())["messages"][0], {"role": "user", "content": FACT}, "the saved JSON")
        check_equal(stat.S_IMODE(saved.stat().st_mode), 0o600, "mode of the saved conversation")
        second = chat([f"/load {saved}", "/stats", QUESTION, "/stats"], *args).expect(0)
        check_in("Loaded 4 messages", second.text, f"/load: {second.error!r}")
        check_in("4711", second.text, "the answer after /load")
        line = [line for line in second.text.splitlines() if line.startswith("last turn:")][-1]
        kept, read = int(line.split()[2]), int(line.split(",")[1].split()[0])
        check(kept > 30 and read < 30, f"/load did not bring the cache back: {line}")
        alone = chat([FACT, "Tell me a story.", QUESTION], *args).expect(0)
        check_equal(second.text.splitlines()[-7], alone.text.splitlines()[-1], "the answer with and without a pause")
    check_equal(sorted(p.name for p in tmp.iterdir()), ["talk-f16", "talk-f16.kv", "talk-tq3", "talk-tq3.kv"], "files")


@test
def chat_load_with_another_codec_reads_again(tmp):
    chat([FACT, f"/save {tmp}/talk"], "--kv", "tq3").expect(0)
    run = chat([f"/load {tmp}/talk", QUESTION], "--kv", "f16").expect(0, "read again")
    check_in("4711", run.text, "the answer")
    (tmp / "talk.kv").write_bytes((tmp / "talk.kv").read_bytes()[:100])
    check_in("4711", chat([f"/load {tmp}/talk", QUESTION], "--kv", "tq3").expect(0, "read again").text, "the answer")


@test
def chat_refuses_what_is_not_a_conversation(tmp):
    for i, text in enumerate(('{"a": 1}', "[]", "{", '{"format": "turboquant-chat", "version": 9, "messages": []}',
                              '{"format": "turboquant-chat", "version": 1, "messages": [{"role": "x", "content": ""}]}',
                              '{"format": "turboquant-chat", "version": 1, "messages": [3]}')):  # fmt: skip
        (tmp / f"f{i}").write_text(text)
        run = chat([FACT, f"/load {tmp}/f{i}", "/load", "/save", "/load /nowhere/x", QUESTION]).expect(0, f"f{i}:")
        check_in("4711", run.text, "the conversation after a refused /load")
    check_in("/nowhere/talk", chat([FACT, "/save /nowhere/talk"]).expect(0).error, "/save into a missing directory")


@test
def chat_full_context_says_both_numbers(tmp):
    run = chat([FACT, "word " * 200, "/stats", QUESTION], "--ctx", "128").expect(1, "context is full", "128", "/reset")
    check_in("4711", run.text, "the answer after a message that did not fit")
    run = chat(["Tell me a story."] * 12, "--ctx", "100", "--kv", "f16").expect(1, "the context is full")
    check_in("Bye!", run.error, "the end of a chat that grew too long")


@test
def chat_max_tokens_cuts_a_reply(tmp):
    run = chat([FACT, "/stats"], "--max-tokens", "3").expect(0, "cut off after 3 tokens")
    check_in("3 replied", run.text, "/stats")


# ---- chat under a terminal --------------------------------------------------------------------------------------


class ChatTerminal(Terminal):
    def __init__(self, tmp, *args, rows=24, columns=80, **extra):
        super().__init__([TQ, "chat", "--model", MODEL, *args], environment(tmp, **extra), rows, columns)
        self.history_path = Path(tmp) / "state" / "turboquant" / "history"

    def __enter__(self):
        self.wait_for("/quit to exit.")
        self.wait_for(">>> ")
        return self

    def __exit__(self, *_):
        self.close()

    def reply(self):
        """The reply's statistics have come, and the next prompt."""
        passed = self.wait_for(" as f16]")
        self.wait_for(">>> ")
        return passed

    def history(self):
        return self.history_path.read_text().splitlines() if self.history_path.exists() else []

    def screen(self):
        self.settle()
        screen = Screen(self.rows, self.columns)
        screen.feed(self.output)
        return screen

    def resize(self, rows, columns):
        super().resize(rows, columns)
        self.rows, self.columns = rows, columns


def submitted(tmp, keys):
    """What the editor makes of the keys, as the history file keeps it."""
    with ChatTerminal(tmp, "--max-tokens", "1") as t:
        t.send(keys + "\r")
        t.reply()
        return t.history()[-1]


@test
def terminal_types_answers_and_leaves(tmp):
    with ChatTerminal(tmp) as t:
        check_in(b"\x1b[?2004h", t.output, "bracketed paste is switched on")
        t.send(FACT + "\r")
        t.reply()
        t.send(QUESTION + "\r")
        check_in(b"4711", t.reply(), "the answer")
        t.send("\x04")
        t.wait_for("Bye!")
        check_equal(t.wait_exit(), 0, "exit code after Ctrl-D")
        check(t.output.endswith(b"Bye!\r\n"), f"the last words: {t.output[-60:]!r}")
        check(t.output.rfind(b"\x1b[?2004l") > t.output.rfind(b"\x1b[?2004h"), "bracketed paste is left on")
        check_equal(stat.S_IMODE(t.history_path.stat().st_mode), 0o600, "mode of the history file")
        check_equal(t.history(), [FACT, QUESTION], "the history file")


@test
def terminal_edits_lines(tmp):
    left, right, home, end, delete = "\x1b[D", "\x1b[C", "\x1b[H", "\x1b[F", "\x1b[3~"
    for i, (keys, want) in enumerate((
        ("hello wrld" + left * 3 + "o", "hello world"),
        ("world" + home + "hello " + end + "!", "hello world!"),
        ("ello\x01h\x05 you", "hello you"),
        ("hello cruel world" + "\x1b[1;5D" * 2 + "\x0b" + "you", "hello you"),
        ("one two three\x17\x17four", "one four"),
        ("abc\x15def", "def"),
        ("abc def\x17\x19\x19", "abc defdef"),
        ("xabc" + home + delete + right + "\x08" + end, "bc"),
        ("žluť" + left + "\x7f" + "ů", "žlůť"),
        ("日本" + left + "x", "日x本"),
        ("e\u0301f" + left + "\x7f" + "g", "gf"),
        ("one\x1bb" + "two " + "\x1bf!", "two one!"),
        ("one\x1b\rtwo", "one\\ntwo"),
        ("back\\slash", "back\\\\slash"),
        ("stray\x1b[99~\x1b[5~ keys\x00", "stray keys"),
    )):  # fmt: skip
        (tmp / str(i)).mkdir()
        check_equal(submitted(tmp / str(i), keys), want, f"after the keys {keys!r}")


@test
def terminal_history_walks_and_searches(tmp):
    with ChatTerminal(tmp) as t:
        for line in ("/kv", "/stats", "/system"):
            t.send(line + "\r")
            t.wait_for({"/kv": "KV ", "/stats": "peak", "/system": "There is no"}[line])
            t.wait_for(">>> ")
        t.send("draft\x1b[A\x1b[A\x1b[A\x1b[A\x1b[B\x1b[B\x1b[B!\x15")  # up past the first, down to the draft
        t.settle()
        t.send("\x1b[A\x1b[A\r")
        t.wait_for("peak")
        t.wait_for(">>> ")
        t.send("\x12k\r")
        t.wait_for("KV ")
        t.wait_for(">>> ")
        check_equal(t.history(), ["/kv", "/stats", "/system", "/stats", "/kv"], "the history file")
        t.send("keep\x12sys\x07 me\x03")  # Ctrl-G gives the line back
        t.wait_for(">>> keep me")
        t.wait_for("^C")
    with ChatTerminal(tmp) as t:  # a second run finds what the first one typed
        t.send("\x1b[A\r")
        t.wait_for("KV ")


@test
def terminal_keeps_a_thousand_lines(tmp):
    path = tmp / "state" / "turboquant" / "history"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"line {i}\n" for i in range(1500)))
    path.chmod(0o644)
    with ChatTerminal(tmp) as t:
        check_equal(t.history(), [f"line {i}" for i in range(500, 1500)], "the history file")
        check_equal(stat.S_IMODE(path.stat().st_mode), 0o600, "its mode")
        t.send("\x1b[A\x03")
        t.wait_for("line 1499")
    check_equal([p.name for p in path.parent.iterdir()], ["history"], "files left behind")


@test
def terminal_paste_is_one_message(tmp):
    with ChatTerminal(tmp) as t:
        t.send(f"\x1b[200~{FACT}\r/reset\r\nlast\x1b[201~")
        t.settle()
        check_equal(t.history(), [], "what was sent before Enter")
        t.send("\r")
        t.reply()
        check_equal(t.history(), [f"{FACT}\\n/reset\\nlast"], "the message")
        t.send("/stats\r")
        check_in(b"2 messages", t.wait_for("peak"), "/stats")


@test
def terminal_several_lines_in_quotes(tmp):
    with ChatTerminal(tmp) as t:
        t.send('"""\r')
        t.wait_for("... ")
        t.send(FACT + "\r")
        t.wait_for("... ")
        t.send('"""\r')
        t.reply()
        t.send('"""\r')
        t.wait_for("... ")
        t.send("x\x03")
        t.wait_for(">>> ")
        check_equal(t.history(), [FACT], "the history file")


@test
def terminal_interrupt_stops_the_reply_and_not_the_program(tmp):
    with ChatTerminal(tmp, *LONG_REPLY) as t:
        t.send("Hello.\r")
        t.wait_for("\n")
        for _ in range(20):
            t.pump(0.1)
        t.send("\x03")
        t.wait_for("stopped; what was said is kept")
        t.wait_for(">>> ")
        t.send("/stats\r")
        check_in(b"2 messages", t.wait_for("peak"), "/stats after a stopped reply")
        t.wait_for(">>> ")
        t.send("half a line\x03")
        t.wait_for("^C")
        t.wait_for(">>> ")
        t.send("\x03")
        t.wait_for("Ctrl-C again leaves")
        t.wait_for(">>> ")
        t.send("\x03")
        t.wait_for("Bye!")
        check_equal(t.wait_exit(), 0, "exit code")


@test
def terminal_is_restored_by_a_signal(tmp):
    with ChatTerminal(tmp) as t:
        before = t.local_modes()
        check(not before & termios.ICANON, "the terminal is not in raw mode at the prompt")
        os.kill(t.pid, signal.SIGTERM)
        check_equal(t.wait_exit(), -signal.SIGTERM, "how it ended")
        check(t.local_modes() & termios.ICANON and t.local_modes() & termios.ECHO, "the terminal was left raw")


@test
def terminal_draws_wrapped_lines(tmp):
    with ChatTerminal(tmp, rows=12, columns=20) as t:
        t.send("abcdefghijklmnopqrstuvwxyz0123456789")
        want = [">>> abcdefghijklmnop", "qrstuvwxyz0123456789"]
        check_equal([line for line in t.screen().lines() if line][-2:], want, "an entry of exactly two rows")
        s = t.screen()
        check_equal((s.column, s.lines()[s.row]), (0, ""), "the cursor behind a full row")
        t.send("\x01X")
        s = t.screen()
        check_equal([line for line in s.lines() if line][-3:], [">>> Xabcdefghijklmno", "pqrstuvwxyz012345678", "9"],
                    "after an insertion at the start")  # fmt: skip
        check_equal((s.column, s.lines()[s.row]), (5, ">>> Xabcdefghijklmno"), "the cursor after it")
        t.send("\x15\x0b日本語日本語日本語")
        check_equal([line for line in t.screen().lines() if line][-2:], [">>> 日本語日本語日本", "語"], "wide characters")
        t.send("\x15" + "é" * 17)
        check_equal([line for line in t.screen().lines() if line][-2:], [">>> " + "é" * 16, "é"], "accents")
        t.send("\x15\x1b[200~one\ntwo\x01three\n\x1b[201~")
        check_equal([line for line in t.screen().lines() if line][-2:], [">>> one", "two^Athree"], "pasted rows")


@test
def terminal_draws_entries_higher_than_the_screen(tmp):
    with ChatTerminal(tmp, rows=6, columns=20) as t:
        t.send("\x1b[200~" + "\n".join(f"row {i}" for i in range(30)) + "\x1b[201~")
        s = t.screen()
        check_equal(s.lines(), [f"row {i}" for i in range(24, 30)], "the end of a long paste")
        t.send("\x1b[A" * 27)
        s = t.screen()
        check_equal((s.lines()[s.row], s.column), ("row 2", 5), "the cursor on its third row")
        t.send("\x1b[B" * 2)
        s = t.screen()
        check_equal((s.lines()[s.row], s.column), ("row 4", 5), "the cursor on its fifth row")


@test
def terminal_follows_a_resize(tmp):
    with ChatTerminal(tmp, columns=80) as t:
        t.send("a" * 50)
        t.settle()
        at = len(t.output)
        t.resize(24, 20)
        t.settle()
        s = Screen(24, 20)
        s.feed(b"\n\n\n\n" + t.output[at:])
        check_equal([line for line in s.lines() if line], [">>> " + "a" * 16, "a" * 20, "a" * 14], "the redrawn entry")


@test
def dumb_terminals_get_no_escape_codes(tmp):
    t = Terminal([TQ, "chat", "--model", MODEL], {**environment(tmp), "TERM": "dumb"})
    try:
        t.wait_for(">>> ")
        t.send(FACT + "\n")
        t.wait_for(" as f16]")
        t.wait_for(">>> ")
        t.send("\x03")
        t.wait_for("Ctrl-C again leaves")
        t.send("\x04")
        t.wait_for("Bye!")
        check_equal(t.wait_exit(), 0, "exit code")
        check(b"\x1b" not in t.output, f"escape codes: {t.output!r}")
        check(not (tmp / "state").exists() or not any((tmp / "state").rglob("history")), "history without an editor")
    finally:
        t.close()


@test
def terminal_shows_progress(tmp):
    (tmp / "long.txt").write_text("The wind was blowing through the trees. " * 400)
    args = [TQ, "generate", "--model", MODEL, "--prompt-file", str(tmp / "long.txt"), "-m", "5", "--threads", "1"]
    t = Terminal(args, environment(tmp))
    try:
        check_equal(t.wait_exit(120), 0, "exit code")
        check_in(b"\rreading [", t.output, "the progress bar")
        check_in(b"\r\x1b[K", t.output[t.output.rfind(b"reading [") :], "what wipes the bar")
    finally:
        t.close()


@test
def terminal_is_safe_from_the_models_control_characters(tmp):
    args = [TQ, "generate", "--model", MODEL, "--raw", "-p", STORY, "--temp", "50", "--seed", "7", "-m", "1500"]
    harmful = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
    check(harmful.search(Run(args).expect(0).out), "the model produced no control characters: nothing is tested")
    t = Terminal(args, environment(tmp))
    try:
        check_equal(t.wait_exit(120), 0, "exit code")
        shown = re.sub(rb"\r(reading|loading)[^\r]*\x1b\[K|\r\x1b\[K", b"", t.output).replace(b"\r\n", b"\n")
        check_in(b"memory:", shown, "the summary")
        check(not harmful.search(shown), f"control characters: {harmful.search(shown)}")
    finally:
        t.close()


# ---- running them -----------------------------------------------------------------------------------------------


def main():
    if not os.access(TQ, os.X_OK) or not os.path.isdir(MODEL):
        print(f"test_cli: no program at {TQ} or no model at {MODEL}")
        return 1
    os.environ.pop("TQ_MODEL", None)
    wanted, passed, failed = sys.argv[3:], 0, 0
    for function in TESTS:
        if wanted and not any(word in function.__name__ for word in wanted):
            continue
        start = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as tmp:
                function(Path(tmp))
            passed += 1
            reason = None
        except Failure as failure:
            reason = str(failure)
        except Exception as error:  # a test that breaks is a test that fails
            reason = f"{type(error).__name__}: {error}"
        if reason:
            failed += 1
            print(f"FAIL {function.__name__}: {reason}", flush=True)
        elif wanted:
            print(f"ok   {function.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
