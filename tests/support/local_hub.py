"""A Hugging Face Hub on this machine, written from what the real one documents and sends: models, revisions, LFS files.

It has an address of its own for the bytes of files, as the real one has a CDN. A request that the real one would not understand
gets status 400 and is recorded in `faults`.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from tests.support.http_serving import QueueingServer, QuietHandler, serve

SIGNATURE = "X-Signature=abcdef0123456789"


@dataclass
class HubModel:
    """A repository: its commits by branch, the newest last."""

    commits: dict[str, dict[str, bytes]]
    """The files of each commit."""
    refs: dict[str, str]
    gated: bool = False


class LocalHub(QueueingServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.models: dict[str, HubModel] = {}
        self.token = "hf_thetokenofthistest"
        self.served: list[tuple[str, str, str | None]] = []
        """Method, path and Range of each request."""
        self.faults: list[str] = []
        self.pause_after: int | None = None
        """Bytes of a file after which a response waits for `go_on`."""
        self.go_on = threading.Event()
        self.corrupt = False
        """Whether the CDN sends other bytes than it has."""
        self.lists_as_page = False
        """Whether a page comes instead of a model's list of files, as from a proxy."""

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_address[1]}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/cdn"

    def publish(self, repo: str, files: dict[str, bytes], *, gated: bool = False) -> str:
        """Commit `files` to the main branch. Returns the commit."""
        model = self.models.setdefault(repo, HubModel({}, {}, gated))
        commit = hashlib.sha1(f"{repo}{len(model.commits)}".encode()).hexdigest()
        model.commits[commit] = files
        model.refs["main"] = commit
        return commit

    def list_ranges(self) -> list[str | None]:
        """The ranges of all bytes that were requested."""
        return [part for method, path, part in self.served if path.startswith("/cdn") and method == "GET"]


@contextmanager
def serve_local_hub() -> Iterator[LocalHub]:
    with serve(LocalHub()) as hub:
        try:
            yield hub
        finally:
            hub.go_on.set()


class HubRequest(QuietHandler):
    server: LocalHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.server.served.append((self.command, parts.path, self.headers.get("Range")))
        words = [unquote(word) for word in parts.path.strip("/").split("/")]
        if words[0] == "cdn" and len(words) == 2 and parts.query == SIGNATURE:
            self._send_bytes(words[1])
        elif words[:2] == ["api", "models"] and len(words) in (4, 6) and words[4:5] in ([], ["revision"]):
            self._send_model("/".join(words[2:4]), words[5] if len(words) == 6 else "main")
        elif len(words) >= 5 and words[2] == "resolve":
            self._send_file("/".join(words[:2]), words[3], "/".join(words[4:]))
        elif words == ["api", "agent-harnesses"]:  # asked for by every process with huggingface_hub 2
            self._send(404, {})
        else:
            self._reject(400, f"no such address: {self.command} {self.path}")

    def _find_model(self, repo: str) -> HubModel | None:
        """The model, or None after an answer. A stranger gets the same answer for a private and for a missing model."""
        authorization = self.headers.get("Authorization")
        if authorization not in (None, f"Bearer {self.server.token}"):
            self._send(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        model = self.server.models.get(repo)
        if model is None:
            self._send(404 if authorization else 401, {"X-Error-Code": "RepoNotFound"})
        return model

    def _find_commit(self, model: HubModel, revision: str) -> str | None:
        commit = model.refs.get(revision, revision)
        if commit not in model.commits:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return commit

    def _send_model(self, repo: str, revision: str) -> None:
        model = self._find_model(repo)
        if model is None or (commit := self._find_commit(model, revision)) is None:
            return
        siblings = [{"rfilename": name} for name in model.commits[commit]]
        value = {"_id": "1", "id": repo, "sha": commit, "siblings": siblings, "gated": "auto" if model.gated else False}
        body = "<html>\nLog in" if self.server.lists_as_page else json.dumps(value)
        self._send(200, {"Content-Type": "application/json"}, body.encode())

    def _send_file(self, repo: str, revision: str, file: str) -> None:
        model = self._find_model(repo)
        if model is None or (commit := self._find_commit(model, revision)) is None:
            return
        if model.gated and "Authorization" not in self.headers:
            self._send(401, {"X-Error-Code": "GatedRepo", "X-Repo-Commit": commit})
            return
        data = model.commits[commit].get(file)
        if data is None:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        digest = hashlib.sha256(data).hexdigest()
        self._send(302, {
            "X-Repo-Commit": commit, "X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"',
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Accept-Ranges": "bytes",
            "Location": f"{self.server.cdn}/{digest}?{SIGNATURE}",
            # Most files of the real Hub are in Xet too; this Hub has no Xet, and a request for its token is a fault.
            "X-Xet-Hash": hashlib.sha256(b"xet" + data).hexdigest(),
            "Link": f'<{self.server.url}/api/models/{repo}/xet-read-token/{commit}>; rel="xet-auth"',
        })  # fmt: skip

    def _send_bytes(self, digest: str) -> None:
        if "Authorization" in self.headers:
            self._reject(400, "the token was sent to another host")
            return
        files = [
            file for model in self.server.models.values() for files in model.commits.values() for file in files.values()
        ]
        data = next(file for file in files if hashlib.sha256(file).hexdigest() == digest)
        if self.server.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        begin = 0
        if wanted := self.headers.get("Range"):
            if not (wanted.startswith("bytes=") and wanted.endswith("-")):
                self._reject(400, f"unexpected range {wanted}")
                return
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        pause = self.server.pause_after
        first = len(data) if pause is None else pause
        self.wfile.write(data[begin : begin + first])
        if pause is not None:
            self.wfile.flush()
            self.server.go_on.wait()
            with suppress(ConnectionError):  # the client was killed
                self.wfile.write(data[begin + first :])

    def _reject(self, status: int, fault: str) -> None:
        self.server.faults.append(fault)
        self._send(status, {})

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
