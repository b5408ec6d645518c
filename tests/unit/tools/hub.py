"""A stand-in for the Hugging Face hub: what huggingface_hub asks of it to make a model and to upload files."""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs

from huggingface_hub.utils.sha import git_hash

TOKEN = "hf_ofTheStandIn"


class Hub:
    """What it holds.

    Attributes:
        models: name → {private, branches: branch → {path → content}}.
        asked: (method, path) of every request, in their order.
        ignored: names that its .gitignore keeps out.
    """

    def __init__(self):
        self.models: dict = {}
        self.asked: list[tuple[str, str]] = []
        self.ignored: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.address = ""

    def head(self, name: str, branch: str) -> str:
        content = {path: git_hash(data) for path, data in self.models[name]["branches"][branch].items()}
        return hashlib.sha1(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def answer(self, method: str, path: str, headers, body: bytes):
        """(status, JSON value or None) of a request."""
        if method == "PUT":
            self.large[path.rpartition("/")[2]] = body
            return 200, None
        if headers["Authorization"] != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials in Authorization header"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.models:
                return 409, {"error": "You already created this model repo", "url": f"{self.address}/{name}"}
            private = asked.get("visibility") == "private"
            self.models[name] = {"private": private, "branches": {"main": {".gitattributes": b"*.gguf lfs\n"}}}
            return 200, {"url": f"{self.address}/{name}"}
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.address}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        name, action, branch = re.fullmatch(r"/api/models/(\w+/[\w.-]+)(?:/([\w-]+)/(\w+))?", path).groups()
        branches = self.models[name]["branches"]
        if action == "branch":
            if branch in branches:
                return 409, {"error": "exists"}
            branches[branch] = dict(branches["main"])
            return 200, None
        branch = branch or "main"
        if action in (None, "revision"):
            return 200, {"id": name, "sha": self.head(name, branch), "private": self.models[name]["private"]}
        files = branches[branch]
        if action == "paths-info":
            return 200, [
                self.described(each, files[each]) for each in parse_qs(body.decode())["paths"] if each in files
            ]
        if action == "preupload":
            return 200, {"files": [self.mode(each["path"]) for each in json.loads(body)["files"]]}
        assert action == "commit"
        head, *operations = map(json.loads, body.splitlines())
        if head["value"]["parentCommit"] != self.head(name, branch):
            return 412, {"error": "A commit has happened since. Please refresh and try again."}
        for operation in operations:
            value = operation["value"]
            large = operation["key"] == "lfsFile"
            files[value["path"]] = self.large[value["oid"]] if large else base64.b64decode(value["content"])
        return 200, {"commitUrl": f"{self.address}/{name}/commit/1", "commitOid": self.head(name, branch)}

    def described(self, path: str, content: bytes) -> dict:
        found = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        if path.endswith(".safetensors"):
            digest = hashlib.sha256(content).hexdigest()
            found |= {"oid": "0" * 40, "lfs": {"size": len(content), "oid": digest, "pointerSize": 130}}
        return found

    def mode(self, path: str) -> dict:
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": path in self.ignored, "oid": None}


@contextmanager
def serving():
    """A hub that answers on this machine while the context lasts."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.asked.append((self.command, self.path))
            status, value = hub.answer(self.command, self.path.partition("?")[0], self.headers, body)
            text = b"" if value is None else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
