"""A server that speaks enough of W&B's protocol for a run to begin, and that can fall silent.

It takes everything, and keeps the points of curves.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = {
    "id": "run1",
    "name": "abcd1234",
    "displayName": "one",
    "config": "{}",
    "historyLineCount": 0,
    "project": {"id": "project1", "name": "nlp-5", "entity": {"id": "entity1", "name": "tester"}},
}


class WandbServer(ThreadingHTTPServer):
    """Answers on a free port of this machine until `fall_silent`; then no request ends.

    Attributes:
        unanswered: set once a request has come after that.
        streamed: what was sent of runs' files, in order.
        opened: id of each run that was begun, or gone on with.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.closing = threading.Event()
        self.silent = threading.Event()
        self.unanswered = threading.Event()
        self.streamed: list[dict[str, Any]] = []
        self.opened: list[str] = []

    @property
    def url(self) -> str:
        """What WANDB_BASE_URL has to be."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def find_history(self) -> list[dict[str, Any]]:
        """Return the points of runs' curves that were sent, in order."""
        found = []
        for sent in self.streamed:
            part = sent.get("files", {}).get("wandb-history.jsonl", {"content": []})
            found += [json.loads(line) for line in part["content"]]
        return found

    def fall_silent(self) -> None:
        """Leave every request from now on without an answer, its connection open."""
        self.silent.set()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[WandbServer]:
        """Serve in a thread until the block ends."""
        server = cls()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer what a client asks at its start; take the rest."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.silent.is_set():
            self.server.unanswered.set()
            self.server.closing.wait()
            return
        if self.path.endswith("/file_stream"):
            self.server.streamed.append(json.loads(body))
        query = json.loads(body)["query"] if self.path.startswith("/graphql") else ""
        data: dict[str, Any] = {}
        if "viewer" in query:
            data["viewer"] = {"id": "v", "entity": "tester", "username": "tester", "flags": "{}"}
        if "upsertBucket" in query:
            name = json.loads(body)["variables"]["name"]
            self.server.opened.append(name)
            data["upsertBucket"] = {"bucket": {**BUCKET, "name": name}, "inserted": True}
        if "createRunFiles" in query:
            data["createRunFiles"] = {"runID": "run1", "uploadHeaders": [], "files": []}
        answer = json.dumps({"data": data} if query else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST
