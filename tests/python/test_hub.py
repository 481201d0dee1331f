"""test_hub.py [TQ]: tq pull against a local hub, well-behaved and not, and against the real huggingface_hub: both see the
same cache."""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hub_server import COMMIT, Hub, answers, breaks_after, git_sha1, sha256
from tally import check, finish

ROOT = Path(__file__).resolve().parents[2]
TQ = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "tq")
BIG = random.Random(1).randbytes(3_000_000)
OTHER = random.Random(2).randbytes(3_000_000)
SMALL = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "tokenizer_config.json": b"{ }",
         "generation_config.json": b"{  }", "chat_template.jinja": b"{{ x }}",
         "additional_chat_templates/tool_use.jinja": b"{{ tools }}"}
EXTRA = {"README.md": b"read", ".gitattributes": b"x", "pytorch_model.bin": b"old", "onnx/model.onnx": b"other",
         "original/consolidated.safetensors": b"twice", "training_args.json": b"{}",
         "additional_chat_templates/notes.md": b"notes", "additional_chat_templates/old/tool_use.jinja": b"no"}
SINGLE = {**SMALL, **EXTRA, "model.safetensors": BIG}


class Case:
    """A hub of its own, an empty home, and the program in between."""

    def __init__(self, files=None, **env):
        self.home = Path(tempfile.mkdtemp())
        self.hub = Hub()
        self.hub.repos["org/model"] = dict(SINGLE if files is None else files)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS", "XDG", "OLLAMA", "LLAMA"))
                    and not k.lower().endswith("_proxy")}
        self.env.update(HOME=str(self.home), HF_ENDPOINT=self.hub.endpoint, **env)
        self.folder = self.home / ".cache/huggingface/hub/models--org--model"

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.hub.close()
        shutil.rmtree(self.home)

    def tq(self, *args, **env):
        return subprocess.run([TQ, *args], capture_output=True, text=True, env={**self.env, **env}, timeout=60, cwd=self.home)

    def pull(self, name="org/model", **env):
        return self.tq("pull", name, **env)

    def expect(self, run, code, *texts):
        check(run.returncode == code, f"{run.args}: exit {run.returncode}, want {code}: {run.stderr}")
        for text in texts:
            check(text in run.stderr, f"{run.args}: want '{text}' in {run.stderr!r}")
        check("\x1b" not in run.stderr, f"escape codes in {run.stderr!r}")

    def snapshot(self, commit=COMMIT):
        root = self.folder / "snapshots" / commit
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()} if root.exists() else {}

    def blobs(self):
        return sorted(p.name for p in (self.folder / "blobs").glob("*"))

    def complete(self, files, what):
        check(self.snapshot() == files, f"{what}: {sorted(self.snapshot())}")
        check(self.blobs() == sorted(sha256(d) if self.hub.is_lfs(p) else git_sha1(d) for p, d in files.items()), f"{what}: {self.blobs()}")
        check((self.folder / "refs/main").read_text() == COMMIT, f"{what}: refs/main")

    def nothing_usable(self, what):
        check(not (self.folder / "refs").exists(), f"{what}: a ref to what is not complete")
        check("model.safetensors" not in self.snapshot(), f"{what}: bad weights were kept")


NEEDED = {**SMALL, "model.safetensors": BIG}


def pulls_what_a_model_needs():
    with Case() as c:
        run = c.pull()
        c.expect(run, 0, "pulling 7 files", c.hub.endpoint)
        check(run.stdout == f"{c.folder}/snapshots/{COMMIT}\n", run.stdout)
        c.complete(NEEDED, "pull")
        link = c.folder / "snapshots" / COMMIT / "model.safetensors"
        check(os.readlink(link) == f"../../blobs/{sha256(BIG)}", "a relative link")
        n = len(c.hub.cdn_requests)
        c.expect(c.pull(), 0)
        check(len(c.hub.cdn_requests) == n, "a second pull fetches the weights again")


def pulls_shards_of_the_index_and_no_others():
    shards = {f"model-0000{i}-of-00002.safetensors": bytes([i]) * 1000 for i in (1, 2)}
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}}
    files = {**SMALL, **shards, "model.safetensors.index.json": json.dumps(index).encode()}
    with Case({**files, "consolidated.safetensors": b"again", **EXTRA}) as c:
        c.expect(c.pull(), 0, "pulling 9 files")
        c.complete(files, "shards")
    for name in ("../x.safetensors", "/etc/passwd", "not-there.safetensors", "config.json", 3):
        index["weight_map"]["b"] = name
        with Case({**files, "model.safetensors.index.json": json.dumps(index).encode()}) as c:
            c.expect(c.pull(), 1, "is no safetensors file beside it")
            c.nothing_usable(f"shard {name}")


def chooses_one_gguf_file():
    files = {"m-Q4_K_M.gguf": b"GGUF4", "m-Q4_K_S.gguf": b"GGUFs", "m-Q8_0.gguf": b"GGUF8", "mmproj-f16.gguf": b"GGUFp", "README.md": b"x",
             "BF16/m-BF16-00001-of-00002.gguf": b"GGUF1", "BF16/m-BF16-00002-of-00002.gguf": b"GGUF2"}
    with Case(files) as c:
        c.expect(c.pull(), 1, "several GGUF models", "m-Q4_K_M.gguf, m-Q4_K_S.gguf, m-Q8_0.gguf")
        c.expect(c.pull("org/model:Q4_K"), 1, "no GGUF file 'Q4_K'; there are: BF16/m-BF16-00001-of-00002.gguf, m-Q4_K_M.gguf")
        for name, want in (("q4_k_m", "m-Q4_K_M.gguf"), ("m-Q8_0.gguf", "m-Q8_0.gguf"), ("BF16", "BF16/m-BF16-00001-of-00002.gguf")):
            run = c.pull(f"org/model:{name}")
            c.expect(run, 0)
            check(run.stdout == f"{c.folder}/snapshots/{COMMIT}/{want}\n", run.stdout)
        check(len(c.snapshot()) == 4, f"both parts of a split: {sorted(c.snapshot())}")
        c.expect(c.pull("org/model:mmproj-f16.gguf"), 1, "is not a model's (first) GGUF file")
    with Case({k: v for k, v in files.items() if "00002-of" not in k}) as c:
        c.expect(c.pull("org/model:BF16"), 1, "part BF16/m-BF16-00002-of-00002.gguf is missing")
    with Case({"README.md": b"x", "pytorch_model.bin": b"x", "config.json": b"{}"}) as c:
        c.expect(c.pull(), 1, "neither config.json with model.safetensors nor a GGUF file")


def a_revision_may_stand_in_the_name():
    with Case() as c:
        run = c.pull("org/model@v1.0")
        c.expect(run, 0)
        check(any("/revision/v1.0?" in r["path"] for r in c.hub.requests), f"the revision is asked for: {c.hub.requests}")
        check((c.folder / "refs/v1.0").read_text() == COMMIT and not (c.folder / "refs/main").exists(), "its ref")
        ask = lambda name: c.tq("inspect", name, HF_HUB_OFFLINE="1")
        c.expect(ask("org/model@v1.0"), 1, "org/model@v1.0: from Hugging Face's cache")  # no model, but found
        c.expect(ask(f"org/model@{COMMIT}"), 1, "from Hugging Face's cache")
        c.expect(ask("org/model"), 1, "HF_HUB_OFFLINE is set")
        c.expect(ask("org/model@v2"), 1, "HF_HUB_OFFLINE is set")


def lists_what_there_is():
    with Case({"m-Q4_K_M.gguf": b"GGUF", "README.md": b"x" * 2000}) as c:
        run = c.tq("pull", "org/model", "--list")
        c.expect(run, 0)
        check(run.stdout == f"    2.0 kB  README.md\n   4 bytes  m-Q4_K_M.gguf\n    2.0 kB  in 2 files of commit {COMMIT}\n", run.stdout)
        check(not c.hub.cdn_requests and not c.folder.exists(), "nothing is fetched")
        c.expect(c.tq("pull", "org/model", "--list", HF_HUB_OFFLINE="1"), 1, "HF_HUB_OFFLINE is set")


def resumes_what_broke_off():
    with Case() as c:
        c.hub.faults["cdn:model.safetensors"] = [breaks_after(1_000_000, BIG), breaks_after(500_000, BIG)]
        c.expect(c.pull(), 0)
        c.complete(NEEDED, "broken off twice")
        check(c.hub.ranges() == [None, "bytes=1000000-", "bytes=1500000-"], c.hub.ranges())
        check(c.hub.cdn_requests[1]["if_range"] is not None, "the rest of the same file is asked for")
    with Case() as c:  # what an earlier process left
        (c.folder / "blobs").mkdir(parents=True)
        (c.folder / "blobs" / (sha256(BIG) + ".incomplete")).write_bytes(BIG[:2_000_000])
        c.expect(c.pull(), 0, "2.0 MB of it there")
        c.complete(NEEDED, "left by an earlier process")
        check(c.hub.ranges() == ["bytes=2000000-"], c.hub.ranges())
    for left in (OTHER[:2_000_000], BIG + b"more", BIG[:-1] + b"x"):
        with Case() as c:
            (c.folder / "blobs").mkdir(parents=True)
            (c.folder / "blobs" / (sha256(BIG) + ".incomplete")).write_bytes(left)
            c.expect(c.pull(), 0)
            c.complete(NEEDED, "damaged by an earlier process")
    with Case() as c:
        c.hub.faults["cdn:model.safetensors"] = [breaks_after(0, BIG)] * 5
        c.expect(c.pull(), 1, "127.0.0.1")
        c.nothing_usable("broken off for good")


def finds_out_a_server_that_lies():
    n = len(BIG)
    for what, lie, text in (
        ("ignores ranges", answers(200, BIG), None),
        ("another part", answers(206, BIG[5:], Content_Range=f"bytes 5-{n - 1}/{n}"), None),
        ("another total", answers(206, BIG[1_000_000:], Content_Range=f"bytes 1000000-{n}/{n + 1}"), None),
        ("no Content-Range", answers(206, BIG[1_000_000:]), None),
        ("nonsense", answers(206, BIG[1_000_000:], Content_Range="bytes 1000000-x/*"), None),
        ("less than all of the rest", answers(206, BIG[1_000_000:2_000_000], Content_Range=f"bytes 1000000-1999999/{n}"), None),
        ("the range's place, other bytes", answers(206, OTHER[1_000_000:], Content_Range=f"bytes 1000000-{n - 1}/{n}"), "the content is not what was announced"),
        ("a range past the end", answers(416), None),
        ("too much", answers(200, BIG + b"more"), "more bytes came than the file has"),
    ):
        with Case() as c:
            c.hub.faults["cdn:model.safetensors"] = [breaks_after(1_000_000, BIG), lie]
            run = c.pull()
            if text:
                c.expect(run, 1, text)
                c.nothing_usable(what)
            else:
                c.expect(run, 0)
                c.complete(NEEDED, what)
    with Case() as c:
        c.hub.faults["cdn:model.safetensors"] = [answers(206, BIG, Content_Range=f"bytes 0-{n - 1}/{n}")]
        c.expect(c.pull(), 1, "a part of the file was sent though all of it was asked for")
        c.nothing_usable("206 without a range")
    with Case() as c:
        c.hub.faults["cdn:model.safetensors"] = [answers(200, OTHER)]
        c.expect(c.pull(), 1, "the content is not what was announced", sha256(BIG), sha256(OTHER))
        c.nothing_usable("wrong bytes")
        check(not list((c.folder / "blobs").glob("*.incomplete")), "wrong bytes stay behind")
    with Case() as c:
        c.hub.faults["resolve:config.json"] = [answers(200, b'{"model_type": "LLAMA"}')]
        c.expect(c.pull(), 1, "config.json: the content is not what was announced: want git SHA-1")


def finds_out_a_file_that_changes():
    with Case() as c:  # a new file of the same size behind the same name: the rest of the old one is not its rest
        def change(handler):
            breaks_after(1_000_000, BIG)(handler)
            c.hub.repos["org/model"]["model.safetensors"] = OTHER
        c.hub.faults["cdn:model.safetensors"] = [change]
        c.expect(c.pull(), 1, "model.safetensors: the file has changed: its digest is another one")
        c.nothing_usable("changed midway")
    with Case() as c:  # the content behind the redirect alone changes: its ETag does
        c.hub.faults["cdn:model.safetensors"] = [breaks_after(1_000_000, BIG), answers(206, OTHER[1_000_000:], ETag='"new"',
                                                 Content_Range=f"bytes 1000000-{len(BIG) - 1}/{len(BIG)}")]
        c.expect(c.pull(), 0)
        c.complete(NEEDED, "ETag changed midway")


def says_what_a_status_means():
    with Case() as c:
        c.expect(c.pull("org/other"), 1, "org/other", "not found")
        c.hub.faults["api:org/model"] = [answers(403, b"", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")]
        c.expect(c.pull(), 1, "access is refused", "Access is restricted", "HF_TOKEN")
        c.hub.faults["api:org/model"] = [answers(429, Retry_After=0), answers(503)]
        c.expect(c.pull(), 0)
        c.hub.faults["api:org/model"] = [answers(429)] * 5
        c.expect(c.pull(), 1, "fewer requests (429)")
        c.hub.faults["api:org/model"] = [answers(418)]
        c.expect(c.pull(), 1, "status 418")
        c.hub.faults["api:org/model"] = [answers(302, Location="/api/models/org/model")] * 20
        c.expect(c.pull(), 1, "more than 8 redirects")
        for target in ("file:///etc/passwd", "gopher://127.0.0.1/"):
            c.hub.faults["api:org/model"] = [answers(302, Location=target)]
            c.expect(c.pull(), 1, f"sends us to '{target[:8]}")
        c.expect(c.pull("model"), 2, "want ORG/NAME")
        c.expect(c.pull("../model"), 2, "want ORG/NAME")
        for name in ("org/model@", "org/model@../x", "org/model@a b:", "org/model@" + "x" * 300, "org/model@v1@"):
            c.expect(c.pull(name), 2 if name[-2:] != "1@" else 0)
        c.expect(c.tq("pull", "org/model@v1", "--revision", "v1"), 2, "want @v1 or --revision, got both")
        c.expect(c.tq("pull", "org/model", "--revision", "../../x"), 1, "revision '../../x'")
        c.expect(c.pull(HF_ENDPOINT="ftp://x"), 1, "HF_ENDPOINT: want an address")
        c.expect(c.pull(HF_HUB_OFFLINE="1"), 1, "HF_HUB_OFFLINE is set")
    with Case() as c:
        c.hub.close()
        c.expect(c.pull(), 1, "127.0.0.1")


def keeps_the_token_to_the_hub():
    with Case(HF_TOKEN=" hf_secret\n") as c:
        c.hub.token = "hf_secret"
        c.expect(c.pull(), 0)
        c.complete(NEEDED, "with a token")
        check(all(r["authorization"] == "Bearer hf_secret" for r in c.hub.requests), "the hub gets the token")
        check(c.hub.cdn_requests and all(r["authorization"] is None for r in c.hub.cdn_requests), "the other host gets the token")
        c.expect(c.pull(HF_TOKEN=""), 1, "wants a token (HF_TOKEN)")
        c.expect(c.pull(HF_TOKEN="wrong"), 1, "the token (HF_TOKEN) is not accepted")
        c.expect(c.pull(HF_TOKEN="a\nX-Evil: 1"), 1, "characters in it that no token has")
        c.expect(c.pull(HF_TOKEN="", HUGGING_FACE_HUB_TOKEN="hf_secret"), 0)
        token_file = c.home / ".cache/huggingface/token"
        token_file.write_text("hf_secret\n")
        c.expect(c.pull(HF_TOKEN=""), 0)
        c.expect(c.pull(HF_TOKEN="", HF_HUB_DISABLE_IMPLICIT_TOKEN="1"), 1, "wants a token")
        token_file.write_text("wrong")
        c.expect(c.pull(HF_TOKEN=""), 1, "token)")
        c.expect(c.pull(HF_ENDPOINT="http://mirror.invalid"), 1, "is not encrypted", "is not sent there")


def honours_the_cache_variables():
    with Case() as c:
        for env, root in (({"HF_HOME": f"{c.home}/a"}, "a/hub"), ({"HF_HUB_CACHE": f"{c.home}/b/"}, "b"),
                          ({"XDG_CACHE_HOME": f"{c.home}/c"}, "c/huggingface/hub"), ({"HF_HOME": "~/d"}, "d/hub")):
            run = c.pull(**env)
            c.expect(run, 0)
            check(run.stdout.strip() == f"{c.home}/{root}/models--org--model/snapshots/{COMMIT}", run.stdout)


def refuses_a_hostile_list():
    good = [{"rfilename": p, "size": len(d), "blobId": git_sha1(d)} for p, d in SMALL.items()]
    def listing(**more):
        return json.dumps({"sha": COMMIT, "siblings": good + [{"rfilename": "model.safetensors", "size": 10, "blobId": "0" * 40, **more}]}).encode()
    for text, reason in (
        (listing(rfilename="../../../.bashrc"), "no path within a model"), (listing(rfilename="/etc/passwd"), "no path within a model"),
        (listing(rfilename="a//b"), "no path"), (listing(rfilename="a/./b"), "no path"), (listing(rfilename="a\\b"), "no path"),
        (listing(rfilename="x\x1b[31m"), "no path"), (listing(rfilename="x\0y"), ""), (listing(rfilename="a" * 300), "no path"),
        (listing(rfilename=7), "without a name"), (listing(rfilename="config.json"), "twice"),
        (listing(size=-1), "want a size"), (listing(size=1 << 62), "want a size"), (listing(size="10"), "want a size"),
        (listing(blobId="../../x"), "want a blob id"), (listing(blobId=None), "want a blob id"),
        (listing(lfs={"sha256": "ab/../c", "size": 10}), "want a SHA-256"),
        (listing(size=1 << 41, blobId="1" * 40), "the disk has room for"),
        (json.dumps({"sha": "main", "siblings": []}).encode(), "names no commit"), (json.dumps({"sha": "../" + "a" * 37, "siblings": []}).encode(), "names no commit"),
        (json.dumps({"sha": COMMIT, "siblings": {}}).encode(), "no list of files"), (b"[]", "names no commit"), (b"", "an empty answer"),
        (b"<html>", "no JSON"), (b"[" * 1_000_000, "no JSON"), (b'{"a":' * 500_000, "no JSON"), (b'"' + b"x" * (40 << 20) + b'"', "more than"),
        (b'{"sha": "' + COMMIT.encode() + b'", "siblings": [' + b'{"rfilename":"x%d","size":1,"blobId":"' % 1 + b"0" * 40 + b'"}]}', "neither config.json"),
        (json.dumps({"sha": COMMIT, "siblings": [{"rfilename": f"f{i}", "size": 1, "blobId": "0" * 40} for i in range(20001)]}).encode(), "more than 20000 files"),
    ):
        with Case() as c:
            c.hub.listing = text
            before = sorted(p for p in c.home.rglob("*"))
            c.expect(c.pull(), 1, reason)
            check(not (c.folder / "refs").exists(), f"a ref after {text[:80]}")
            check(before == [] and not (c.home / ".bashrc").exists(), "a file outside of the cache")


def a_name_is_enough_anywhere():
    files = {p.name: p.read_bytes() for p in (ROOT / "models/bookworm").iterdir() if p.suffix in (".json", ".safetensors", ".jinja")}
    ask = ["generate", "--prompt", "Hugo Marsh lives in Lisbon. Where does Hugo Marsh live?", "--temp", "0", "--model"]
    with Case(files) as c:
        c.expect(c.tq(*ask, "org/model", HF_HUB_OFFLINE="1"), 1, "HF_HUB_OFFLINE is set, so it is not fetched")
        run = c.tq(*ask, "org/model")
        c.expect(run, 0, "org/model: asking", "pulling")
        check("Lisbon" in run.stdout, run.stdout)
        n = len(c.hub.requests)
        run = c.tq(*ask, "org/model", HF_HUB_OFFLINE="1")
        c.expect(run, 0, "from Hugging Face's cache")
        check("Lisbon" in run.stdout and len(c.hub.requests) == n, "from the cache, offline")
        (c.home / "org").mkdir()
        c.expect(c.tq(*ask, "org/mistyped"), 1, "a folder org is here, so it is taken for a path and not fetched")
        check(len(c.hub.requests) == n, "a mistyped path was sent to the hub")
        (c.home / "org/model").symlink_to(ROOT / "models/bookworm")
        run = c.tq(*ask, "org/model")
        c.expect(run, 0)
        check("from " not in run.stderr, f"a local path wins: {run.stderr}")


def one_download_for_two_processes():
    with Case() as c:
        runs = []
        threads = [threading.Thread(target=lambda: runs.append(c.pull())) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for run in runs:
            c.expect(run, 0)
        c.complete(NEEDED, "three at once")
        check(len(c.hub.cdn_requests) == 1, f"fetched {len(c.hub.cdn_requests)} times")


def shares_the_cache_with_huggingface_hub():
    def python(c, code, **env):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                             env={**c.env, "HF_HUB_DISABLE_TELEMETRY": "1", **env})
        check(run.returncode == 0, run.stderr[-2000:])
        return run.stdout.strip()
    read = ("from huggingface_hub import snapshot_download, hf_hub_download, scan_cache_dir\n"
            "print(snapshot_download('org/model')); print(hf_hub_download('org/model', 'model.safetensors'))\n"
            "i = scan_cache_dir(); print(len(i.warnings), [(r.repo_id, r.nb_files, [sorted(v.refs) for v in r.revisions]) for r in i.repos])")
    with Case() as c:
        c.expect(c.pull(), 0)
        root = f"{c.folder}/snapshots/{COMMIT}"
        want = f"{root}\n{root}/model.safetensors\n0 [('org/model', 7, [['main']])]"
        got = python(c, read, HF_HUB_OFFLINE="1")
        check(got == want, f"what it sees: {got}")
        n = len(c.hub.cdn_requests)
        python(c, "from huggingface_hub import hf_hub_download; print(hf_hub_download('org/model', 'model.safetensors'))")
        check(not [r for r in c.hub.cdn_requests[n:] if r["method"] == "GET"], "it fetches again what was pulled")
    files = {p.name: p.read_bytes() for p in (ROOT / "tests/goldens/llama").iterdir() if p.name != "golden.safetensors"}
    with Case(files) as c:  # the other way round
        python(c, "from huggingface_hub import snapshot_download; snapshot_download('org/model')")
        check((c.folder / "refs/main").exists(), "it has downloaded")
        run = c.tq("eval", "golden", "org/model", "--golden", str(ROOT / "tests/goldens/llama/golden.safetensors"), HF_HUB_OFFLINE="1")
        c.expect(run, 0, "from Hugging Face's cache")
        c.expect(c.tq("inspect", "org/model", HF_HUB_OFFLINE="1"), 0, "from Hugging Face's cache")
        n = len(c.hub.cdn_requests)
        c.expect(c.pull(), 0)
        check(len(c.hub.cdn_requests) == n, "fetched again what huggingface_hub had")


CASES = [pulls_what_a_model_needs, pulls_shards_of_the_index_and_no_others, chooses_one_gguf_file, resumes_what_broke_off,
         finds_out_a_server_that_lies, finds_out_a_file_that_changes, says_what_a_status_means, keeps_the_token_to_the_hub,
         honours_the_cache_variables, refuses_a_hostile_list, a_name_is_enough_anywhere, one_download_for_two_processes,
         shares_the_cache_with_huggingface_hub]
with ThreadPoolExecutor(6) as pool:  # most of the time is spent in pauses between tries
    wanted = [case for case in CASES if len(sys.argv) < 3 or any(word in case.__name__ for word in sys.argv[2:])]
    for case, done in [(case, pool.submit(case)) for case in wanted]:
        try:
            done.result()
        except Exception as error:  # a case that breaks is a case that fails
            check(False, f"{case.__name__}: {type(error).__name__}: {error}")
sys.exit(finish())
