"""test_server_soak.py TQ [SECONDS [CLIENTS]]: many clients at once, of whom many leave at random.

Every answer equals that of the same request alone; no status is outside the contract; memory does not grow after the first
part of the time (its slope is printed).  12 seconds and 64 clients unless told otherwise."""
import json
import random
import socket
import sys
import threading
import time

import server_process
import tally
from server_process import Server, metric, request, rss_kib

TQ = sys.argv[1]
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 12
CLIENTS = int(sys.argv[3]) if len(sys.argv) > 3 else 64
GROWTH_KIB_A_MINUTE = 256  # of a server that keeps nothing: allocators and stacks settle within this

STORY = "The old miller walked slowly to the river and back again. "


def chat(content, **fields):
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 12, "temperature": 0, **fields}


def make_requests():
    """Requests whose answers are known to repeat: greedy or with a seed."""
    made = []
    for i, (name, place) in enumerate((("Clara", "Lisbon"), ("Tom", "Rome"), ("Ida", "Oslo"), ("Max", "Paris"))):
        made.append(("/v1/chat/completions", chat(f"{name} lives in {place}. Where does {name} live?")))
        made.append(("/v1/chat/completions", chat(STORY * 25 * (i + 1) + f"Where does {name} live?", max_tokens=6)))
        made.append(("/v1/chat/completions", chat(f"Tell me about {place}.", temperature=1.0, seed=i, logprobs=True, top_logprobs=2)))
    made.append(("/v1/chat/completions", chat("Tell a story.", n=2, seed=4, temperature=0.9, kv="tq4")))
    made.append(("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0, "stop": ["sea"]}))
    made.append(("/v1/embeddings", {"input": ["A dog barks.", "The sea is wide."]}))
    return made


def essence(path, body):
    """What must be the same again."""
    if path.endswith("embeddings"):
        return [x["embedding"] for x in body["data"]]
    return [(x.get("message", {}).get("content", x.get("text")), x["finish_reason"], x["logprobs"]) for x in body["choices"]]


def essence_of_stream(body):
    texts, finishes, logprobs = {}, {}, {}
    for event in server_process.events_of(body):
        if event == "[DONE]":
            return [(texts[i], finishes[i], logprobs.get(i)) for i in sorted(texts)]
        for x in json.loads(event)["choices"]:
            i = x["index"]
            texts[i] = texts.get(i, "") + (x.get("delta", {}).get("content") or x.get("text") or "")
            finishes[i] = x["finish_reason"]
            if x["logprobs"] and "content" in x["logprobs"]:
                logprobs.setdefault(i, {"content": [], "refusal": None})["content"] += x["logprobs"]["content"]
    return "no end"


class Soak:
    def __init__(self, server):
        self.port = server.port
        self.requests = make_requests()
        self.alone = [essence(path, request(self.port, "POST", path, value)[2]) for path, value in self.requests]
        self.lock = threading.Lock()
        self.counts = {"same": 0, "left": 0, "queue full": 0}
        self.problems = []

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def leave(self, rng, path, value):
        body = json.dumps(value).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        data = head + body
        with socket.create_connection(("127.0.0.1", self.port), 60) as s:
            s.sendall(data[:rng.randrange(len(data))] if rng.random() < 0.2 else data)
            time.sleep(rng.choice((0, 0.01, 0.1, 0.5)))
        self.count("left")

    def ask(self, rng):
        i = rng.randrange(len(self.requests))
        path, value = self.requests[i]
        stream = not path.endswith("embeddings") and rng.random() < 0.5
        value = {**value, "stream": True} if stream else value
        if rng.random() < 0.35:
            return self.leave(rng, path, value)
        if rng.random() < 0.1:
            value = {**value, "cache_prompt": False} if not path.endswith("embeddings") else value
        status, _, body = request(self.port, "POST", path, value, timeout=300)  # checks the contract
        if status == 429:
            time.sleep(rng.random())
            return self.count("queue full")
        got = f"status {status}" if status != 200 else essence_of_stream(body) if stream else essence(path, body)
        if got != self.alone[i]:
            self.problems.append(f"{path} {str(value)[-200:]}: want {str(self.alone[i])[:300]}, got {str(got)[:300]}")
        return self.count("same")

    def client(self, seed, end):
        rng = random.Random(seed)
        while time.monotonic() < end and len(self.problems) < 10:
            try:
                self.ask(rng)
            except Exception as e:
                self.problems.append(f"{type(e).__name__}: {e}")


def slope(samples):
    """Kilobytes a minute, by least squares."""
    mean_t = sum(t for t, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    below = sum((t - mean_t) ** 2 for t, _ in samples)
    return 60 * sum((t - mean_t) * (y - mean_y) for t, y in samples) / below if below else 0.0


def main():
    with Server(TQ, "--ctx", "4096", "--cache-ram", "96", "--queue", str(CLIENTS), "--max-connections", str(2 * CLIENTS + 8), "--quiet") as s:
        soak = Soak(s)
        began = time.monotonic()
        threads = [threading.Thread(target=soak.client, args=(i, began + SECONDS)) for i in range(CLIENTS)]
        [t.start() for t in threads]
        samples = []
        while any(t.is_alive() for t in threads):
            samples.append((time.monotonic() - began, rss_kib(s.process.pid)))
            time.sleep(0.25)
        for problem in soak.problems:
            tally.check(False, problem)
        tally.check(soak.counts["same"] > 0 and soak.counts["left"] > 0, f"too little happened: {soak.counts}")
        tally.check(s.process.poll() is None, "the server has ended: " + s.text().decode()[-2000:])
        settled = [x for x in samples if x[0] > min(60, SECONDS / 2)]
        growth = slope(settled)
        if SECONDS >= 180:  # shorter, the slope says nothing
            tally.check(growth < GROWTH_KIB_A_MINUTE, f"memory grows by {growth:.0f} KiB a minute")
        tally.check(settled[-1][1] - settled[0][1] < 32 * 1024, f"memory grew from {settled[0][1]} to {settled[-1][1]} KiB")
        end = time.monotonic() + 120
        while metric(s.port, "tq_requests_running") + metric(s.port, "tq_requests_queued") and time.monotonic() < end:
            time.sleep(0.1)
        tally.check(metric(s.port, "tq_requests_running") + metric(s.port, "tq_requests_queued") == 0, "something still runs")
        tally.check(metric(s.port, 'tq_requests_total{finish="failed"}') == 0, "requests failed")
        tally.check(s.stop() == 0, "SIGTERM ends it with 0")
        print(f"  {soak.counts}, memory {samples[0][1]} -> {samples[-1][1]} KiB, {growth:+.0f} KiB a minute in the second part")
        if tally.failed:
            print(s.text().decode()[-3000:])
    sys.exit(tally.finish())


main()
