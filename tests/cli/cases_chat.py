"""cases_chat.py: tq chat over a pipe."""

import json
import stat

from cases import FACT, QUESTION, chat, test
from harness import check, check_equal, check_in


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
