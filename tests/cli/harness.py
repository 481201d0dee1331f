"""harness.py: what the tests of the program stand on: running it, a pseudo-terminal, and the screen it draws."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time


class Failure(Exception):
    """A test failed, for the reason given."""


def check(condition, reason):
    if not condition:
        raise Failure(reason)


def check_equal(got, want, what):
    check(got == want, f"{what}: want {want!r}, got {got!r}")


def check_in(needle, text, what):
    check(needle in text, f"{what}: want {needle!r} in {text[-2000:]!r}")


class Run:
    """A finished process: exit code, stdout and stderr as bytes."""

    def __init__(self, args, stdin=b"", env=None, timeout=120):
        done = subprocess.run(args, input=stdin, capture_output=True, timeout=timeout, env=env)
        self.args, self.code, self.out, self.err = args, done.returncode, done.stdout, done.stderr

    @property
    def text(self):
        return self.out.decode()

    @property
    def error(self):
        return self.err.decode(errors="replace")

    def expect(self, code, *in_error):
        check(self.code == code, f"{self.args[1:]}: want exit code {code}, got {self.code}; stderr: {self.error!r}")
        for needle in in_error:
            check_in(needle, self.error, f"stderr of {self.args[1:]}")
        return self


class Terminal:
    """A process under a pseudo-terminal."""

    def __init__(self, args, env, rows=24, columns=80):
        self.output = b""
        self.seen = 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execve(args[0], args, env)
            finally:
                os._exit(127)
        self.resize(rows, columns)

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text):
        os.write(self.fd, text.encode() if isinstance(text, str) else text)

    def pump(self, timeout):
        """Read what there is; False at the end of output."""
        ready, _, _ = select.select([self.fd], [], [], timeout)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.output += data
        return bool(data)

    def wait_for(self, needle, timeout=60):
        """Until needle appears behind what earlier waits have seen; returns the output in between."""
        needle = needle.encode() if isinstance(needle, str) else needle
        end = time.monotonic() + timeout
        while True:
            at = self.output.find(needle, self.seen)
            if at >= 0:
                passed = self.output[self.seen : at]
                self.seen = at + len(needle)
                return passed
            check(time.monotonic() < end, f"waited for {needle!r}, have {self.output[self.seen:][-2000:]!r}")
            if not self.pump(0.2):
                check(needle in self.output[self.seen :], f"it ended without {needle!r}: {self.output[-2000:]!r}")

    def settle(self, quiet=0.3):
        """Until nothing more comes for a while."""
        while True:
            before = len(self.output)
            if not self.pump(quiet) or len(self.output) == before:
                return

    def wait_exit(self, timeout=30):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.pump(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise Failure(f"the program did not end; its last words: {self.output[-500:]!r}")

    def local_modes(self):
        return termios.tcgetattr(self.fd)[3]

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        os.close(self.fd)


SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Screen:
    """The part of a terminal that the line editor uses, written from the control sequences' definitions: it shows what
    a person would see."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.row = self.column = 0
        self.wrap_pending = False

    def line_feed(self):
        if self.row + 1 < self.rows:
            self.row += 1
        else:
            self.cells = self.cells[1:] + [[" "] * self.columns]

    def put(self, char, width):
        if self.wrap_pending or self.column + width > self.columns:
            self.column = 0
            self.line_feed()
        self.wrap_pending = False
        self.cells[self.row][self.column] = char
        for i in range(1, width):
            self.cells[self.row][self.column + i] = ""
        self.column += width
        if self.column >= self.columns:
            self.column = self.columns - 1
            self.wrap_pending = True

    def erase(self, row, column):
        for i in range(column, self.columns):
            self.cells[row][i] = " "

    def control(self, numbers, letter):
        n = int(numbers) if numbers.isdigit() else 1
        self.wrap_pending = False
        if letter == "A":
            self.row = max(0, self.row - n)
        elif letter == "C":
            self.column = min(self.columns - 1, self.column + n)
        elif letter == "H":
            self.row = self.column = 0
        elif letter == "K":
            self.erase(self.row, self.column)
        elif letter == "J":
            if numbers != "2":
                self.erase(self.row, self.column)
            for row in range(0 if numbers == "2" else self.row + 1, self.rows):
                self.erase(row, 0)

    def feed(self, data):
        text, at = data.decode(errors="replace"), 0
        while at < len(text):
            match = SEQUENCE.match(text, at)
            if match:
                self.control(match.group(1), match.group(2))
                at = match.end()
                continue
            char = text[at]
            at += 1
            if char == "\r":
                self.column, self.wrap_pending = 0, False
            elif char == "\n":
                self.wrap_pending = False
                self.line_feed()
            else:
                self.put(char, 2 if "\u3000" <= char <= "\u9fff" else 1)

    def lines(self):
        return ["".join(row).rstrip() for row in self.cells]
