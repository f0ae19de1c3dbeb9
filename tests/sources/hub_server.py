"""A hub on this machine: the endpoints by which huggingface_hub lists and downloads a repository
(https://huggingface.co/docs/hub/api), over a folder, with every request on record.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMITS = {"main": "a1" * 20, "older": "b2" * 20}


@dataclass
class Hub:
    """repositories: id -> revision -> folder; gated: ids whose files are refused. asked: (method,
    path) of every request.
    """

    repositories: dict[str, dict[str, Path]]
    gated: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""

    @property
    def downloaded(self) -> list[str]:
        """The files whose content was sent, in order."""
        paths = [path for method, path in self.asked if method == "GET" and "/resolve/" in path]
        return [unquote(path.split("/resolve/", 1)[1].split("/", 1)[1]) for path in paths]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub, answering at its address while the block runs."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        """The record is in `asked`."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if api else parts[:2])
        revisions = self.hub.repositories.get(repo)
        if revisions is None:
            return self._error(404, "RepoNotFound")
        rest = parts[4:] if api else parts[2:]
        names = {commit: name for name, commit in COMMITS.items()}
        revision = rest[1] if len(rest) > 1 else "main"
        folder = revisions.get(names.get(revision, revision))
        if folder is None:
            return self._error(404, "RevisionNotFound")
        commit = COMMITS[names.get(revision, revision)]
        if api:
            return self._list(rest[0] if rest else "revision", repo, commit, folder, body=body)
        if repo in self.hub.gated:
            return self._error(403, "GatedRepo")
        return self._file(folder, "/".join(rest[2:]), commit, body=body)

    def _list(self, what: str, repo: str, commit: str, folder: Path, *, body: bool) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
        found: Any = {"id": repo, "sha": commit, "siblings": [{"rfilename": n} for n in names]}
        if what == "tree":
            found = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                for name, path in zip(names, files, strict=True)
            ]
        self._send(json.dumps(found).encode(), {"Content-Type": "application/json"}, body=body)

    def _file(self, folder: Path, name: str, commit: str, *, body: bool) -> None:
        path = folder / name
        if not path.is_file():
            return self._error(404, "EntryNotFound")
        headers = {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": commit}
        return self._send(path.read_bytes(), headers, body=body)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
