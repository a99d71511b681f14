"""A server on this machine that answers as the hub does, for what its own client asks of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_the_right_one"


@dataclass
class Hub:
    """What the server has.

    Attributes:
        models: name to file name to content. gated, private: names that need TOKEN.
        status: answer this to everything instead. cut: of this file, send half and hang up.
        asked: method and path of every request, in order.
    """

    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    status: int | None = None
    cut: str | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def fetched(self) -> set[str]:
        """The files whose content was asked for."""
        return {
            path.rpartition("/")[2]
            for method, path in self.asked
            if method == "GET" and "/resolve/" in path
        }


@contextmanager
def serve_hub(models: Mapping[str, Mapping[str, bytes]]) -> Iterator[Hub]:
    """Serve models on a free port while the block runs."""
    hub = Hub({name: dict(files) for name, files in models.items()})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing: the tests look at hub.asked."""

        def do_GET(self) -> None:
            self.answer(body=True)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            if hub.status is not None:
                return self.send(hub.status, b"{}")
            parts = path.strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            name = "/".join(parts[2:4] if api else parts[:2])
            if refused := self.refuse(name):
                return self.send(*refused)
            rest = parts[4:] if api else parts[2:]
            if rest[:1] in (["revision"], ["resolve"]) and rest[1] not in ("main", "v1", COMMIT):
                return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            files = hub.models[name]
            if api and rest[:1] in ([], ["revision"]):
                return self.send(200, describe(hub, name))
            if api and rest[:1] == ["tree"]:
                return self.send(200, list_tree(hub, name))
            if rest[:1] == ["resolve"] and (content := files.get("/".join(rest[2:]))) is not None:
                return self.send_file(rest[-1], content, body=body)
            return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

        def refuse(self, name: str) -> tuple[int, bytes, dict[str, str]] | None:
            given = self.headers.get("Authorization", "")
            right = given == f"Bearer {TOKEN}"
            if given and not right:
                said = {"X-Error-Message": "Invalid credentials in Authorization header"}
                return 401, b"{}", said
            if name in hub.gated and not right:
                return 401, b"{}", {"X-Error-Code": "GatedRepo"}
            if name not in hub.models or (name in hub.private and not right):
                return 401, b"{}", {"X-Error-Code": "RepoNotFound"}
            return None

        def send_file(self, name: str, content: bytes, *, body: bool) -> None:
            start = 0
            if (asked := self.headers.get("Range", "")).startswith("bytes="):
                start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers = {
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": COMMIT,
                "Accept-Ranges": "bytes",
            }
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send(206 if start else 200, content[start:], headers, body=body, name=name)

        def send(
            self,
            status: int,
            content: bytes,
            headers: Mapping[str, str] | None = None,
            *,
            body: bool = True,
            name: str = "",
        ) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not body or self.command == "HEAD":
                return
            if name and name == hub.cut:
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
                return
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _entries(hub: Hub, name: str) -> list[tuple[str, int, str]]:
    return [
        (file, hub.sizes.get(file, len(content)), hashlib.sha1(content).hexdigest())
        for file, content in hub.models[name].items()
    ]


def describe(hub: Hub, name: str) -> bytes:
    """Return a model's description as the hub's API gives it."""
    siblings = [
        {"rfilename": file, "size": size, "blobId": digest}
        for file, size, digest in _entries(hub, name)
    ]
    return json.dumps(
        {
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "private": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
        }
    ).encode()


def list_tree(hub: Hub, name: str) -> bytes:
    """Return a model's files as the hub's API lists them."""
    return json.dumps(
        [
            {"type": "file", "path": file, "size": size, "oid": digest}
            for file, size, digest in _entries(hub, name)
        ]
    ).encode()
