"""cases_terminal.py: under a pseudo-terminal: the line editor, Ctrl-C, progress."""

import os
import re
import signal
import stat
import termios
from pathlib import Path

from cases import FACT, LONG_REPLY, MODEL, QUESTION, STORY, TQ, environment, test
from harness import Run, Screen, Terminal, check, check_equal, check_in


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
