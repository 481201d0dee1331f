"""hub_server.py: a hub on 127.0.0.1 that behaves, or misbehaves as it is told.

Repositories are dicts of path -> bytes.  Large files (LFS) are redirected to a second port, as the real hub redirects to
another host.  Per path, `faults` holds functions that are asked in turn: each answers one request."""
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A connection that ends early is what these tests are about."""


class Hub:
    def __init__(self):
        self.repos, self.faults, self.requests, self.cdn_requests = {}, {}, [], []
        self.commit, self.listing, self.token, self.headers = COMMIT, None, None, {}
        self.api = self._start(ApiHandler)
        self.cdn = self._start(CdnHandler)
        self.endpoint = f"http://127.0.0.1:{self.api.server_port}"

    def _start(self, handler):
        server = QuietServer(("127.0.0.1", 0), handler)
        server.hub = self
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def close(self):
        for server in (self.api, self.cdn):
            server.shutdown()
            server.server_close()

    def is_lfs(self, path):
        return path.endswith((".safetensors", ".gguf", ".bin"))

    def entry(self, path, data):
        entry = {"rfilename": path, "size": len(data), "blobId": git_sha1(data)}
        if self.is_lfs(path):
            entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
        return entry

    def ranges(self):
        """Range headers of the requests for contents, in order."""
        return [r["range"] for r in self.cdn_requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self.wfile.write(body)
        except ConnectionError:  # the program has seen enough
            self.close_connection = True

    def answer_content(self, data, etag, **more):
        """The content or, as Range and If-Range ask, the rest of it."""
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if wanted and (condition is None or condition == etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                return self.answer(416, Content_Range=f"bytes */{len(data)}")
            return self.answer(206, data[start:], ETag=etag, Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}", **more)
        return self.answer(200, data, ETag=etag, **more)

    def fault(self, path):
        """Has something been set up for this request?  Then it has answered."""
        waiting = self.server.hub.faults.get(path)
        if not waiting:
            return False
        waiting.pop(0)(self)
        return True

    def do_HEAD(self):
        self.do_GET()


class ApiHandler(Handler):
    def do_GET(self):
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        hub.requests.append({"path": self.path, "authorization": self.headers.get("Authorization"), "method": self.command})
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.answer(401, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found\x1b[31m")
        parts = path.split("/")
        if path.startswith("/api/models/"):
            repo, kind = "/".join(parts[3:5]), parts[5] if len(parts) > 5 else "revision"
            files = hub.repos.get(repo)
            if self.fault(f"api:{repo}"):
                return None
            if files is None:
                return self.answer(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            if kind == "tree":
                tree = [{"type": "file", "oid": e["blobId"], "size": e["size"], "path": e["rfilename"],
                         **({"lfs": {"oid": e["lfs"]["sha256"], "size": e["size"], "pointerSize": 134}} if "lfs" in e else {})}
                        for e in (hub.entry(p, d) for p, d in files.items())]
                return self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
            info = {"id": repo, "modelId": repo, "sha": hub.commit, "siblings": [hub.entry(p, d) for p, d in files.items()]}
            return self.answer(200, json.dumps(info).encode() if hub.listing is None else hub.listing, Content_Type="application/json")
        repo, name = "/".join(parts[1:3]), "/".join(parts[5:])
        data = hub.repos.get(repo, {}).get(name)
        if self.fault(f"resolve:{name}"):
            return None
        if data is None or parts[3] != "resolve":
            return self.answer(404, b"no", X_Error_Code="EntryNotFound")
        more = {"X_Repo_Commit": hub.commit, **hub.headers}
        if not hub.is_lfs(name):
            return self.answer_content(data, f'"{git_sha1(data)}"', **more)
        return self.answer(302, b"", Location=f"http://127.0.0.1:{hub.cdn.server_port}/{repo}/{name}?Signature=x",
                           X_Linked_Etag=f'"{sha256(data)}"', X_Linked_Size=len(data), **more)


class CdnHandler(Handler):
    def do_GET(self):
        hub = self.server.hub
        org, model, name = self.path.split("?")[0].strip("/").split("/", 2)
        repo = f"{org}/{model}"
        hub.cdn_requests.append({"range": self.headers.get("Range"), "authorization": self.headers.get("Authorization"),
                                 "if_range": self.headers.get("If-Range"), "method": self.command})
        data = hub.repos[repo][name]
        if not self.fault(f"cdn:{name}"):
            self.answer_content(data, f'"{hashlib.md5(data).hexdigest()}"')


# ---- faults ----------------------------------------------------------------------------------------------------------


def breaks_after(n, data):
    """Announces everything (or the rest that was asked for) and sends n bytes of it."""
    def run(handler):
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        rest = data[start:]
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        more = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        handler.answer(206 if start else 200, rest[:n], Content_Length=len(rest), ETag=etag, **more)
        handler.close_connection = True
    return run


def answers(status, body=b"", **headers):
    return lambda handler: handler.answer(status, body, **headers)
