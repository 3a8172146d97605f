"""A stand-in for the Hugging Face Hub on this machine: enough to create, upload to and load from model repositories.

Files are kept as ordinary git blobs would be (no LFS, no Xet); every commit is a folder of its own.
"""

import base64
import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

OWNER = "me"
DATE = "2026-01-01T00:00:00.000Z"


class Repositories:
    """Repositories below a folder: OWNER/NAME/refs.json and OWNER/NAME/commits/SHA/."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.requests: list[tuple[str, str, str | None]] = []

    def refs(self, name: str) -> dict[str, str] | None:
        path = self.root / name / "refs.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def set_ref(self, name: str, branch: str, sha: str) -> None:
        path = self.root / name / "refs.json"
        path.write_text(json.dumps({**(self.refs(name) or {}), branch: sha}))

    def tree(self, name: str, revision: str) -> Path | None:
        sha = (self.refs(name) or {}).get(unquote(revision), revision)
        path = self.root / name / "commits" / sha
        return path if path.is_dir() else None

    def files(self, name: str, revision: str) -> dict[str, Path]:
        tree = self.tree(name, revision)
        return {path.relative_to(tree).as_posix(): path for path in sorted(tree.rglob("*")) if path.is_file()}

    def create(self, name: str) -> None:
        (self.root / name / "commits").mkdir(parents=True)
        self.commit(name, "main", {".gitattributes": b""}, [])

    def commit(self, name: str, branch: str, added: dict[str, bytes], removed: list[str]) -> str:
        with self.lock:
            parent = (self.refs(name) or {}).get(branch)
            sha = hashlib.sha1(f"{name}{branch}{parent}{sorted(added)}".encode()).hexdigest()
            tree = self.root / name / "commits" / sha
            if parent:
                shutil.copytree(self.root / name / "commits" / parent, tree)
            tree.mkdir(exist_ok=True)
            for path, content in added.items():
                assert tree in (tree / path).resolve().parents
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_bytes(content)
            for path in removed:
                (tree / path).unlink(missing_ok=True)
            self.set_ref(name, branch, sha)
            return sha


class Handler(BaseHTTPRequestHandler):
    """The routes of the Hub's interface that huggingface_hub calls for model repositories."""

    protocol_version = "HTTP/1.1"
    repositories: Repositories

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def route(self) -> None:
        body = self.read_body() if self.command == "POST" else b""
        path = urlsplit(self.path).path
        self.repositories.requests.append((self.command, path, self.headers.get("Authorization")))
        if self.command == "POST" and not self.headers.get("Authorization"):
            return self.refuse(401, "Unauthorized", "a token is needed")
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/whoami-v2":
            return self.answer(200, {"type": "user", "name": OWNER, "orgs": [], "auth": {"type": "access_token"}})
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return self.api("/".join(parts[2:4]), parts[4:], body)
        if len(parts) >= 5 and parts[2] == "resolve":
            return self.file("/".join(parts[:2]), parts[3], unquote("/".join(parts[4:])))
        return self.refuse(404, "EntryNotFound", f"no such route: {path}")

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or OWNER}/{wanted['name']}"
        address = f"http://{self.headers['Host']}/{name}"
        if self.repositories.refs(name) is not None:
            return self.answer(409, {"error": "exists", "url": address, "name": name}, {"X-Error-Code": "RepoExists"})
        self.repositories.create(name)
        return self.answer(200, {"url": address, "name": name, "id": "0"})

    def api(self, name: str, rest: list[str], body: bytes) -> None:
        refs, kind = self.repositories.refs(name), rest[0] if rest else "revision"
        if refs is None:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        revision = rest[1] if len(rest) > 1 else "main"
        if kind == "refs":
            branches = [{"name": key, "ref": f"refs/heads/{key}", "targetCommit": sha} for key, sha in refs.items()]
            return self.answer(200, {"branches": branches, "tags": [], "converts": [], "pullRequests": []})
        if kind == "branch":
            self.repositories.set_ref(name, unquote(revision), refs["main"])
            return self.answer(200, {})
        if kind == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self.answer(200, {"files": modes})
        if kind == "commit":
            return self.commit(name, unquote(revision), body)
        if self.repositories.tree(name, revision) is None:
            return self.refuse(404, "RevisionNotFound", f"no revision {revision}")
        files = self.repositories.files(name, revision)
        if kind == "revision":
            siblings = [{"rfilename": path, "size": file.stat().st_size} for path, file in files.items()]
            about = {"_id": "0", "id": name, "modelId": name, "author": OWNER, "private": False, "gated": False}
            about |= {"sha": self.repositories.tree(name, revision).name, "siblings": siblings, "tags": []}
            return self.answer(200, {**about, "lastModified": DATE, "createdAt": DATE, "disabled": False})
        if kind == "paths-info":
            wanted = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode()).get("paths", [])
            files = {path: file for path, file in files.items() if path in wanted}
        entries = [
            {"type": "file", "path": path, "size": file.stat().st_size, "oid": blob_id(file)}
            for path, file in files.items()
        ]
        return self.answer(200, entries)

    def commit(self, name: str, branch: str, body: bytes) -> None:
        added, removed = {}, []
        for line in filter(None, body.splitlines()):
            item = json.loads(line)
            if item["key"] == "file":
                added[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "deletedFile":
                removed.append(item["value"]["path"])
        sha = self.repositories.commit(name, branch, added, removed)
        address = f"http://{self.headers['Host']}/{name}/commit/{sha}"
        self.answer(200, {"success": True, "commitOid": sha, "commitUrl": address, "hookOutput": ""})

    def file(self, name: str, revision: str, path: str) -> None:
        if self.repositories.refs(name) is None:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        tree = self.repositories.tree(name, revision)
        if tree is None:
            return self.refuse(404, "RevisionNotFound", f"no revision {revision}")
        if not (tree / path).is_file():
            return self.answer(
                404, {"error": "no entry"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": tree.name}
            )
        headers = {"X-Repo-Commit": tree.name, "ETag": f'"{blob_id(tree / path)}"'}
        return self.answer(200, (tree / path).read_bytes(), headers)

    do_GET = do_HEAD = do_POST = route


def blob_id(path: Path) -> str:
    """The id that git gives a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class FakeHub:
    """`with FakeHub(folder) as hub:` serves at hub.url until the block ends."""

    def __init__(self, root: Path) -> None:
        self.repositories = Repositories(root)
        handler = type("BoundHandler", (Handler,), {"repositories": self.repositories})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def environment(self, home: Path, token: str | None = "hf_secret") -> dict[str, str]:
        """What a client process needs to talk to this hub and to nothing else."""
        settings = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        return {**settings, **({"HF_TOKEN": token} if token else {})}

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()
