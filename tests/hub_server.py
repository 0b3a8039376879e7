"""A hub on this machine for tests: folders served as repositories, through the protocol of the hub's own library."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants

GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this repository is restricted."}


class Hub:
    """Repositories by their id, each a folder, and the commit that all of them are at; None stands for a gated one."""

    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self) -> None:
        self.repositories: dict[str, Path | None] = {}

    def answer(self, url: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of /api/models/ID/revision/main, /api/models/ID/tree/... and ID/resolve/.../FILE."""
        parts = url.partition("?")[0].strip("/").removeprefix("api/models/").split("/", 4)
        hub_id, what = "/".join(parts[:2]), parts[2]
        if hub_id not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        folder = self.repositories[hub_id]
        if folder is None:
            return 403, GATED, b"{}"
        if what == "resolve":
            content = (folder / parts[4]).read_bytes()
            return 200, {"ETag": f'"{blob(content)}"', "X-Repo-Commit": self.commit}, content
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        tree = [{"path": str(file.relative_to(folder)), "size": file.stat().st_size} for file in files]
        for entry, file in zip(tree, files, strict=True):
            entry |= {"type": "file", "oid": blob(file.read_bytes())}
        facts = {"id": hub_id, "sha": self.commit, "siblings": [], "tags": [], "private": False, "downloads": 0}
        return 200, {}, json.dumps(tree if what == "tree" else facts).encode()


def blob(content: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            """Nothing on the screen."""

    return Handler


@contextmanager
def serving(cache: Path) -> Iterator[Hub]:
    """A hub that the library asks meanwhile, with a cache of its own."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    place = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", place)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        try:
            yield hub
        finally:
            server.shutdown()
            server.server_close()
