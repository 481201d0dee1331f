"""test_server_hostile.py TQ [REQUESTS [SECONDS]]: random mutations of valid requests over sockets, several at a time.

Each gets an answer that the API's description allows, or, where HTTP itself was damaged, a refusal or the end of the
connection; afterwards the server answers as before and has not grown.  10,000 requests or 20 seconds, whichever comes
first, unless told otherwise."""
import itertools
import json
import random
import sys
import threading
import time

import server_process
import tally
from server_process import Server, contract_problem, metric, raw, request, rss_kib

TQ = sys.argv[1]
REQUESTS = int(sys.argv[2]) if len(sys.argv) > 2 else 10000
SECONDS = float(sys.argv[3]) if len(sys.argv) > 3 else 20
CLIENTS = 6

CHAT = {"messages": [{"role": "user", "content": "Clara Webb lives in Lisbon."}], "max_tokens": 2}
VALID = [
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 2}),
    ("POST", "/chat/completions", {**CHAT, "n": 2, "stop": ["x", "yz"], "seed": 3, "temperature": 0.7, "top_p": 0.9, "min_p": 0.1, "top_k": 5}),
    ("POST", "/v1/chat/completions", {**CHAT, "kv": "tq4", "logit_bias": {"5": 1.5}, "chat_template_kwargs": {"a": True}, "presence_penalty": 1}),
    ("POST", "/v1/chat/completions", {**CHAT, "messages": [{"role": "system", "content": [{"type": "text", "text": "Z\u00fc\U0001f600"}]}, *CHAT["messages"]]}),
    ("POST", "/v1/completions", {"prompt": ["Once", "Twice"], "max_tokens": 2, "logprobs": 1}),
    ("POST", "/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 2, "stream": True}),
    ("POST", "/v1/embeddings", {"input": ["a b", "c"], "encoding_format": "base64"}),
    ("POST", "/tokenize", {"content": "Some text", "with_pieces": True}),
    ("POST", "/detokenize", {"tokens": [1, 2, 300]}),
    ("POST", "/apply-template", {"messages": CHAT["messages"]}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/bookworm", None),
    ("GET", "/slots?fail_on_no_slot=1", None),
    ("GET", "/props", None),
    ("GET", "/health", None),
    ("GET", "/metrics", None),
]
WORDS = [b"null", b"true", b"-1", b"0", b"1e309", b"1e308", b"9223372036854775807", b"9223372036854775808", b"{}", b"[]", b'""', b"\x00", b"\xff",
         b"\\u0000", b"\\ud800", b'"a":', b",", b"}", b"]", b"\r\n", b"%00", b"../", b"[[[[[[[[", b'{"a":' * 20, b"\xc0\x80", b"\xed\xa0\x80", b"A" * 5000]


def mutate_bytes(rng, data):
    """A few of: change, remove, repeat, insert, swap."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        size = rng.choice((1, 1, 2, 8, 40))
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:at + size]
        elif kind == 2:
            data[at:at] = data[at:at + size] * rng.choice((1, 2, 30))
        elif kind == 3:
            data[at:at] = rng.choice(WORDS)
        else:
            data[at:at + size] = rng.randbytes(size)
    return bytes(data)


def mutate_value(rng, value):
    """A JSON value with one place in it replaced."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.8:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        copy = value.copy()
        if isinstance(value, dict) and rng.random() < 0.1:
            copy[rng.choice(["tools", "x", "prompt", "", "messages", "stop", "kv", "max_tokens", "\u00e9"])] = copy.pop(key)
        else:
            copy[key] = mutate_value(rng, value[key])
        return copy
    return rng.choice([None, True, -1, 0, 1, 2, 3.7, 1e300, -2**63, "", "x", "\U0001f600" * 100, "tq3", [], {}, [1], ["x", 2], {"type": "text"}, [[]],
                       "<|im_end|>", "y " * 2000, list(range(3000))])


def make(rng):
    """A mutated request: its bytes, method and path, and whether its HTTP is whole."""
    method, path, value = rng.choice(VALID)
    body = b"" if value is None else json.dumps(value).encode()
    if value is not None and rng.random() < 0.5:
        body = json.dumps(mutate_value(rng, value)).encode()
    elif value is not None and rng.random() < 0.7:
        body = mutate_bytes(rng, body)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n" if body or method == "POST" else "\r\n"
    whole = rng.random() < 0.8
    return (head.encode() if whole else mutate_bytes(rng, head.encode())) + body, method, path, whole


def problem_of(port, rng):
    data, method, path, whole = make(rng)
    try:
        answer = raw(port, data)
    except (ConnectionError, TimeoutError, AssertionError, ValueError) as e:
        answer = e
    if not whole:  # what it asks for is unknown: libmicrohttpd's refusals are pages, and it may hang up
        if answer is None or isinstance(answer, ConnectionError):
            return None
        if isinstance(answer, Exception):
            return f"{answer!r} to {data[:300]!r}"
        return None if answer[0] < 600 else f"{answer[0]} to {data[:300]!r}"
    if answer is None or isinstance(answer, Exception):
        return f"no answer ({answer!r}) to {data[:600]!r}"
    status, headers, body = answer
    try:
        problem = contract_problem(method, path, status, headers.get("content-type", ""), body)
    except (AssertionError, ValueError) as e:
        problem = repr(e)
    if status >= 500 and status not in (503, 504):
        problem = f"status {status}: {body[:300]!r}"
    return problem and f"{problem} to {data[:600]!r}"


def main():
    problems, statistics = [], {"n": 0}
    numbers = itertools.count()
    with Server(TQ, "--ctx", "600", "--idle-timeout", "2", "--request-timeout", "5", "--parallel", "4", "--cache-ram", "64", "--quiet") as s:
        end = time.monotonic() + SECONDS

        def client():
            while (number := next(numbers)) < REQUESTS and time.monotonic() < end and len(problems) < 10:
                problem = problem_of(s.port, random.Random(number))
                if problem:
                    problems.append(f"request {number}: {problem}")
                statistics["n"] += 1

        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        early = None
        [t.start() for t in threads]
        while any(t.is_alive() for t in threads):
            time.sleep(0.2)
            if early is None and (statistics["n"] > REQUESTS / 4 or time.monotonic() > end - SECONDS / 2):
                early = rss_kib(s.process.pid)
        for problem in problems:
            tally.check(False, problem)
        tally.check(statistics["n"] > 100, f"only {statistics['n']} requests were made")
        tally.check(s.process.poll() is None, "the server has ended: " + s.text().decode()[-2000:])
        late = rss_kib(s.process.pid)
        tally.check(early is None or late - early < 32 * 1024, f"it has grown from {early} to {late} KiB")
        tally.check(request(s.port, "POST", "/v1/chat/completions", CHAT)[0] == 200, "it answers as before")
        end = time.monotonic() + 120
        while metric(s.port, "tq_requests_running") + metric(s.port, "tq_requests_queued") and time.monotonic() < end:
            time.sleep(0.1)
        tally.check(metric(s.port, "tq_requests_running") == 0, "nothing runs any more")
        tally.check(s.stop() == 0, "SIGTERM ends it with 0")
        print(f"  {statistics['n']} requests, memory {early} -> {late} KiB")
    sys.exit(tally.finish())


main()
