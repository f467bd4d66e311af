"""A stand-in for the Hugging Face Hub: what huggingface_hub asks for to make a repository, commit to it and fetch."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """What the server has.

    Attributes:
        commits: (repository, commit) -> file -> content. `refs`: (repository, branch) -> commit.
        private: repository -> whether it is. `asked`: method and path of every request.
        claims: file -> the size that the server claims for it.
    """

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        self.refs: dict[tuple[str, str], str] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.claims: dict[str, int] = {}
        self.token = "hf_right"

    def commit(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Put files on top of a branch; returns the commit."""
        self.private.setdefault(repo, False)
        before = self.files(repo, branch) or {}
        number = hashlib.sha1(repr((repo, branch, len(self.commits))).encode()).hexdigest()
        self.commits[repo, number] = before | files
        self.refs[repo, branch] = number
        return number

    def files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        return self.commits.get((repo, self.refs.get((repo, revision), revision)))


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def _say(self, status: int, content: object = None, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_GET(self) -> None:
        hub, path = self.hub, urlsplit(self.path).path
        hub.asked.append(f"{self.command} {unquote(path)}")
        if path.startswith("/api/models/"):
            repo = "/".join(path.split("/")[3:5])
            known = {"id": repo, "private": hub.private.get(repo), "sha": "", "siblings": []}
            self._say(200 if repo in hub.private else 401, known)
            return
        if "/resolve/" not in path:
            self._say(404)
            return
        user, name, _, revision, file = path.lstrip("/").split("/", 4)
        repo, revision = f"{user}/{name}", unquote(revision)
        allowed = self.headers.get("Authorization") == f"Bearer {hub.token}"
        if repo not in hub.private or (hub.private[repo] and not allowed):
            self._say(401, headers={"X-Error-Code": "RepoNotFound"})
        elif (files := hub.files(repo, revision)) is None:
            self._say(404, headers={"X-Error-Code": "RevisionNotFound"})
        elif file not in files:
            self._say(404, headers={"X-Error-Code": "EntryNotFound"})
        else:
            content = files[file]
            size = hub.claims.get(file, len(content))
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Content-Length": str(size)}
            self._say(200, content, headers | {"X-Repo-Commit": hub.refs.get((repo, revision), revision)})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        hub, path, body = self.hub, urlsplit(self.path).path, self._body()
        hub.asked.append(f"{self.command} {unquote(path)}")
        parts = path.strip("/").split("/")
        repo = "/".join(parts[2:4])
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._say(403)
        elif path == "/api/validate-yaml":
            self._say(200, {"warnings": [], "errors": []})
        elif path == "/api/repos/create":
            given = json.loads(body)
            repo, is_new = f"{given['organization']}/{given['name']}", True
            if repo in hub.private:
                is_new = False
            else:
                # Versions of the library say it in one way or the other.
                hub.private[repo] = given.get("visibility") == "private" or bool(given.get("private"))
                hub.commit(repo, {})
            self._say(200 if is_new else 409, {"url": f"http://{self.headers['Host']}/{repo}", "name": repo})
        elif parts[4:5] == ["branch"]:
            branch = unquote(parts[5])
            is_new = (repo, branch) not in hub.refs
            if is_new:
                hub.refs[repo, branch] = hub.refs[repo, "main"]
            self._say(200 if is_new else 409)
        elif parts[4:5] == ["preupload"]:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [("lfs" if name.endswith(".safetensors") else "regular") for name in names]
            files = [
                {"path": name, "uploadMode": mode, "shouldIgnore": False}
                for name, mode in zip(names, modes, strict=True)
            ]
            self._say(200, {"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"http://{self.headers['Host']}/lfs/{item['oid']}", "header": {}}}
            self._say(200, {"transfer": "basic", "objects": objects})
        else:
            self._commit(repo, unquote(parts[5]), body)

    def do_PUT(self) -> None:
        body = self._body()
        assert hashlib.sha256(body).hexdigest() == self.path.rpartition("/")[2]
        self.hub.objects[self.path.rpartition("/")[2]] = body
        self._say(200)

    def _commit(self, repo: str, branch: str, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        number = self.hub.commit(repo, files, branch)
        self._say(200, {"commitUrl": f"http://{self.headers['Host']}/{repo}/commit/{number}", "commitOid": number})


@contextmanager
def serving() -> Iterator[tuple[Hub, str]]:
    """A hub, and its address."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
