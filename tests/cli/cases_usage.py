"""cases_usage.py: options, exit codes, and input that is refused."""

import json
import os
import struct
import subprocess
from pathlib import Path

from cases import MODEL, TQ, chat, copy_model, generate, generate_json, test, tq
from harness import check, check_equal, check_in


@test
def no_command_is_a_usage_error(tmp):
    tq().expect(2, "Usage: tq COMMAND", "generate", "chat", "quantize", "eval")


@test
def unknown_command_is_named_with_the_known_ones(tmp):
    tq("frobnicate").expect(2, "unknown command 'frobnicate'", "generate, chat, serve, quantize, quality, eval, bench, pull, inspect, plan, codecs")
    tq("help", "frobnicate").expect(2, "unknown command 'frobnicate'")
    tq("--frobnicate").expect(2, "unknown option '--frobnicate'")


@test
def help_lists_every_flag(tmp):
    check_in("Commands:", tq("--help").expect(0).text, "--help")
    check_equal(tq("help").expect(0).text, tq("--help").text, "tq help")
    flags = """model system max-tokens temp top-p top-k min-p repeat-penalty presence-penalty
               frequency-penalty seed ctx threads kernels prefill-precision kv key-bits value-bits value-group-size
               key-centre buffer-size sinks flush-batch-size no-turboquant""".split()
    for command, more in (("generate", ["prompt", "prompt-file", "raw", "json"]), ("chat", [])):
        text = tq(command, "--help").expect(0).text
        check_equal(tq("help", command).expect(0).text, text, f"tq help {command}")
        for flag in flags + more:
            check_in(f"--{flag}", text, f"help of {command}")


@test
def codecs_are_listed_with_payload_and_total(tmp):
    rows = {row["codec"]: row for row in json.loads(tq("codecs", "--json").expect(0).text)}
    for name, payload, total in (("paper:2.5", 2.25, 2.5), ("paper:3.5", 3.25, 3.5), ("tq3", 3, 3.125), ("q4-group", 4, 4.5)):
        check_equal((rows[name]["payload_bits"], rows[name]["row_bits"]), (payload, total), name)
    check(2.5 < rows["paper:2.5"]["cache_bits"] < 2.55, "a page holds its mask of channels too")
    check(abs(rows["paper:2.5"]["distortion"] - .0947) < 1e-4, "theory")
    text = tq("codecs", "--dim", "80").expect(0).text
    check_in("paper:2.5             2.250    2.700", text, "another dimension")
    check_in("want a group that is a multiple of 4 and divides 80, got 64", text, "what has no such dimension")
    tq("codecs", "--dim", "5").expect(1, "no codec has vectors of 5 values")
    tq("codecs", "tq3").expect(2, "unexpected argument 'tq3'")


@test
def a_schedule_of_layers_is_one_codec_of_a_list(tmp):
    text = tmp / "text"
    text.write_text("The rain fell on the roof, and nobody heard it. " * 8)
    run = tq("eval", "ppl", "--model", MODEL, "--text", text, "--kv", "tq3,first=2,last=2:q8,tq:k=q8,v=tq2,first=1:f16,tq2",
             "--buffer-size", 16, "--window", 64)
    text_out = run.expect(0).text
    for name in ("tq3,first=2,last=2:q8 ", "tq:k=q8,v=tq2,first=1:f16 ", "tq2 "):
        check_in(f"\n{name}", text_out, "one row a codec")
    tq("eval", "ppl", "--model", MODEL, "--text", text, "--window", 64, "--kv", "tq3,first=7,last=7:q8").expect(1, "want at least 14 layers, got 8")


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
        (["--presence-penalty", "3"], "--presence-penalty: want a number from -2 to 2, got '3'"),
        (["--frequency-penalty", "-2.5"], "--frequency-penalty: want a number from -2 to 2, got '-2.5'"),
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
        for other in (["--kv", "tq3"], ["--key-bits", "3"], ["--value-bits", "2"], ["--value-group-size", "32"],
                      ["--key-centre", "on"]):
            tq(command, "--model", MODEL, *prompt, "--no-turboquant", *other).expect(2, "--no-turboquant")


@test
def codecs_that_do_not_exist_are_usage_errors(tmp):
    generate("-p", "Hi", "--kv", "zip").expect(2, "zip")
    generate("-p", "Hi", "--kv", "tq3", "--key-bits", "7").expect(2, "7")
    generate("-p", "Hi", "--key-bits", "9").expect(2, "--key-bits: want a whole number from 1 to 8, got '9'")
    generate("-p", "Hi", "--kv", "q8", "--value-group-size", "32").expect(2, "group")
    generate("-p", "Hi", "--kv", "window:64", "--buffer-size", "32").expect(2, "--buffer-size")
    generate("-p", "Hi", "--key-centre", "perhaps").expect(2, "--key-centre: want auto, on or off, got 'perhaps'")
    generate("-p", "Hi", "--kv", "paper-mse:3", "--key-centre", "on").expect(2, "key centre: codec 'paper-mse:3' keeps none")
    generate("-p", "Hi", "--kernels", "abacus").expect(2, "abacus")
    generate("-p", "Hi", "--prefill-precision", "f8").expect(2, "--prefill-precision: want f32 or bf16, got 'f8'")
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
