"""server_process.py: a `tq serve` to test against, and its contract: every answer is checked against /openapi.json."""
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
API = json.load(open(os.path.join(ROOT, "tools", "server", "openapi.json")))
REGISTRY = Registry().with_resource("urn:api", Resource.from_contents(API, default_specification=DRAFT202012))
validators = {}


def schema_problem(name, value):
    """What is wrong with a value of a named schema; None if nothing is."""
    if name not in validators:
        reference = {"$ref": "urn:api#/components/schemas/" + name}
        validators[name] = jsonschema.Draft202012Validator(reference, registry=REGISTRY)
    error = jsonschema.exceptions.best_match(validators[name].iter_errors(value))
    return error and f"{name}{error.json_path}: {error.message[:300]}"


def find_operation(method, path):
    path = path.split("?")[0]
    for candidate in (path, "/v1" + path, path.removeprefix("/v1")):
        for pattern, operations in API["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), candidate) and method.lower() in operations:
                return operations[method.lower()]
    return None


def events_of(body):
    """The data of server-sent events; the text must consist of whole events and comments."""
    text = body.decode()
    assert text.endswith("\n\n"), f"a stream ends within an event: {text[-100:]!r}"
    found = []
    for event in text[:-2].split("\n\n"):
        if not event.startswith(":"):
            assert event.startswith("data: ") and "\n" not in event, f"not an event: {event!r}"
            found.append(event[6:])
    return found


def stream_problem(schema, body):
    events = events_of(body)
    failed = False
    for event in events:
        if event == "[DONE]":
            continue
        value = json.loads(event)
        failed = "error" in value
        problem = schema_problem("Error" if failed else schema, value)
        if problem:
            return problem
    if failed != (events[-1] != "[DONE]"):
        return f"a stream ends with {events[-1]!r}"
    return None


def contract_problem(method, path, status, mime, body):
    """What is wrong with an answer; None if it is one that the API's description allows."""
    operation = find_operation(method, path)
    if status >= 400 and not (path.endswith("/health") and status == 503):
        return schema_problem("Error", json.loads(body)) if mime == "application/json" else f"{status} of type {mime}"
    if operation is None:
        return None if status in (200, 204, 304) else f"{status} of an undescribed path"
    response = operation["responses"].get(str(status))
    if response is None:
        return f"status {status} is not in the description"
    content = response["content"].get(mime.split(";")[0])
    if content is None:
        return f"type {mime} is not in the description"
    name = content["schema"].get("$ref", "").rsplit("/", 1)[-1]
    if mime == "text/event-stream":
        return stream_problem(name, body)
    return schema_problem(name, json.loads(body)) if name else None


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


class Server:
    """A server on a free port of loopback; its log goes to a file."""

    def __init__(self, tq, *options, model=None, env=None, ready=True):
        self.log = tempfile.NamedTemporaryFile(mode="w+b", suffix=".log")
        model = model or os.path.join(ROOT, "models", "bookworm")
        self.process = subprocess.Popen([tq, "serve", "--port", "0", "--model", model, *options], stderr=self.log,
                                        env={**os.environ, **(env or {})})
        self.port = self.wait_for(rb"listening on http://[^\s]*:(\d+)\b.*\n", int)
        if ready:
            self.wait_for(rb"(ready): ", bytes)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def text(self):
        with open(self.log.name, "rb") as log:
            return log.read()

    def wait_for(self, pattern, convert, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = re.search(pattern, self.text())
            if found:
                return convert(found.group(1))
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"tq serve: no {pattern} in its log: {self.text().decode()}")

    def stop(self, seconds=120):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def read_response(stream, head_only=False):
    """One response of a socket's file: status, headers, body.  None at the end of the connection."""
    line = stream.readline(65536)
    if not line:
        return None
    match = re.fullmatch(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n", line)
    assert match, f"not a status line: {line!r}"
    headers = {}
    while (line := stream.readline(65536)) not in (b"\r\n", b""):
        name, value = line.rstrip(b"\r\n").decode().split(": ", 1)
        headers[name.lower()] = value
    status, body = int(match.group(1)), b""
    if head_only or status in (204, 304) or status < 200:
        return status, headers, body
    if headers.get("transfer-encoding") == "chunked":
        while (size := int(stream.readline(), 16)):
            body += stream.read(size)
            assert stream.read(2) == b"\r\n"
        stream.readline()
    elif "content-length" in headers:
        body = stream.read(int(headers["content-length"]))
    else:
        body = stream.read()
    return status, headers, body


def raw(port, data, timeout=300):
    """Bytes on a fresh connection; the response or None if it was closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
        s.sendall(data)
        with s.makefile("rb") as stream:
            return read_response(stream, data.startswith(b"HEAD"))


def request(port, method, path, value=None, headers=None, body=None, timeout=300):
    """A request and its answer, whose contract is checked: status, headers, JSON (or bytes)."""
    body = json.dumps(value).encode() if value is not None else body or b""
    lines = [f"{method} {path} HTTP/1.1", "Connection: close"]
    headers = {"Host": f"127.0.0.1:{port}", **(headers or {})}
    if body or method == "POST":
        headers.setdefault("Content-Length", str(len(body)))
    lines += [f"{name}: {text}" for name, text in headers.items() if text is not None]
    answer = raw(port, "\r\n".join(lines).encode() + b"\r\n\r\n" + body, timeout)
    if answer is None:
        raise ConnectionError("closed without an answer")
    status, headers, got = answer
    mime = headers.get("content-type", "")
    if method != "HEAD":
        problem = contract_problem(method, path, status, mime, got)
        assert problem is None, f"{method} {path}: {status}: {problem}"
    return status, headers, json.loads(got) if mime == "application/json" and got else got


def metric(port, name):
    """The value of a line of /metrics."""
    text = request(port, "GET", "/metrics")[2].decode()
    return float(re.search("^" + re.escape(name) + r" (\S+)$", text, re.M).group(1))
