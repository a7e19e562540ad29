"""A Hugging Face Hub on this machine: datasets and models, commits, LFS files, uploads, private and gated repositories.

Written from what huggingface_hub sends and the real Hub answers. It checks tokens, sizes and hashes. A request that the real one
would not understand gets status 400 and is recorded in `faults`. Contents of large files have an address of their own, as on the
real Hub, to which no token may be sent. It has no Xet, and a request for a token of Xet is a fault.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_serving import QueueingServer, QuietHandler, serve

SIGNATURE = "X-Signature=0123456789abcdef"
LFS_ENDINGS = (".parquet", ".gguf", ".safetensors", ".jsonl")
"""As the attributes of a new repository of the Hub."""
Files = dict[str, bytes]


@dataclass
class HostedRepo:
    """A repository: its commits in order, each with all files."""

    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    gated: bool = False

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: Files) -> str:
        name = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[name] = files
        return name


class LocalHub(QueueingServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.token = "hf_" + "a1B2" * 9
        self.repos: dict[tuple[str, str], HostedRepo] = {}
        """By kind (`dataset`, `model`) and name."""
        self.objects: dict[str, bytes] = {}
        """Contents of large files by SHA-256."""
        self.served: list[tuple[str, str, str | None]] = []
        """Method, path and Range of each request."""
        self.uploads: list[str] = []
        """SHA-256 of each large file whose content arrived."""
        self.faults: list[str] = []
        self.pause_at_upload: int | None = None
        """The upload, from 1 on, that arrives only in part until `go_on` is set."""
        self.pause_after: int | None = None
        """Bytes of a large file after which a response waits for `go_on`."""
        self.paused = threading.Event()
        self.go_on = threading.Event()
        self.failing_commits = 0
        """Commits that are answered with status 503."""
        self.corrupt: str | None = None
        """The path of a file that is sent with another last byte."""
        self.lists_as_page = False
        """Whether a page comes instead of the description of a repository, as from a proxy."""

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_address[1]}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/lfs"

    def environment(self, home: object) -> dict[str, str]:
        """For a client's process."""
        return {
            "HF_ENDPOINT": self.url, "HF_TOKEN": self.token, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip

    def publish(self, name: str, files: Files, *, gated: bool = False) -> str:
        """Commit `files` to a public model. Returns the commit."""
        repo = self.repos.setdefault(("model", name), HostedRepo(private=False, gated=gated))
        self.objects |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}
        return repo.commit(files)

    def list_ranges(self) -> list[str | None]:
        """The ranges of the contents of large files that were requested."""
        return [part for method, path, part in self.served if path.startswith("/lfs/") and method == "GET"]

    def files(self, kind: str, name: str) -> Files:
        repo = self.repos[kind, name]
        return repo.commits[repo.head]


@contextmanager
def serve_local_hub() -> Iterator[LocalHub]:
    with serve(LocalHub()) as hub:
        try:
            yield hub
        finally:
            hub.go_on.set()


class Refused(Exception):
    """A request that is answered with this status."""

    def __init__(self, status: int, headers: Mapping[str, str] | None = None, fault: str = "") -> None:
        super().__init__(fault)
        self.status, self.headers, self.fault = status, headers or {}, fault


class HubRequest(QuietHandler):
    server: LocalHub

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        self.server.served.append((self.command, parts.path, self.headers.get("Range")))
        words = [unquote(word) for word in parts.path.strip("/").split("/")]
        try:
            if words[0] == "lfs":
                self._handle_storage(words[1], parts.query)
            elif self.command == "POST":
                self._send_json(self._post(words, self._read_body()))
            elif words[0] == "api":
                found = self._get(words[1:], parse_qs(parts.query))
                self._send_page() if self.server.lists_as_page else self._send_json(found)
            else:
                self._send_file(words)
        except Refused as refused:
            if refused.fault:
                self.server.faults.append(f"{self.command} {self.path}: {refused.fault}")
            self._send(refused.status, refused.headers, b"{}")

    def _read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _require_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            raise Refused(401, {"X-Error-Message": "Invalid username or password."})

    def _find_repo(self, kind: str, name: str) -> HostedRepo:
        """A stranger gets the same answer for a private and for a missing repository."""
        authorization = self.headers.get("Authorization")
        if authorization not in (None, f"Bearer {self.server.token}"):
            raise Refused(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        repo = self.server.repos.get((kind, name))
        if repo is None or (repo.private and authorization is None):
            raise Refused(404 if authorization else 401, {"X-Error-Code": "RepoNotFound"})
        return repo

    def _find_commit(self, repo: HostedRepo, revision: str) -> str:
        commit = repo.head if revision == "main" else revision
        if commit not in repo.commits:
            raise Refused(404, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _get(self, words: list[str], query: Mapping[str, list[str]]) -> Any:
        if words == ["agent-harnesses"]:  # asked for by every process with huggingface_hub 2
            raise Refused(404)
        kind, name = words[0].removesuffix("s"), "/".join(words[1:3])
        if kind not in ("dataset", "model") or words[3:4] not in ([], ["revision"], ["tree"]):
            raise Refused(400, fault="no such address")
        repo = self._find_repo(kind, name)
        commit = self._find_commit(repo, words[4] if len(words) > 4 else "main")
        files = repo.commits[commit]
        if words[3:4] == ["tree"]:
            if query.get("recursive") not in (["True"], ["true"]):
                raise Refused(400, fault="only whole trees are asked for")
            return [self._describe(path, data) for path, data in sorted(files.items())]
        return {
            "_id": "1", "id": name, "sha": commit, "private": repo.private, "gated": "auto" if repo.gated else False,
            "siblings": [{"rfilename": path} for path in files], "tags": [],
        }  # fmt: skip

    @staticmethod
    def _describe(path: str, data: bytes) -> dict[str, Any]:
        described = {"type": "file", "path": path, "size": len(data), "oid": name_git_blob(data)}
        if path.endswith(LFS_ENDINGS):
            digest = hashlib.sha256(data).hexdigest()
            described |= {"lfs": {"oid": digest, "size": len(data), "pointerSize": 134}}
        return described

    def _post(self, words: list[str], body: bytes) -> Any:
        self._require_token()
        if words == ["api", "repos", "create"]:
            return self._create_repo(json.loads(body))
        if words == ["api", "validate-yaml"]:
            content = json.loads(body)["content"]
            if not content.startswith("---\n"):
                raise Refused(400, fault="a card without a header")
            return {"errors": [], "warnings": []}
        if words[0] == "api" and len(words) == 6 and words[4] in ("preupload", "commit"):
            kind, name = words[1].removesuffix("s"), "/".join(words[2:4])
            repo = self._find_repo(kind, name)
            self._find_commit(repo, words[5])
            if words[4] == "preupload":
                return self._sort_uploads(repo, json.loads(body))
            return self._commit(repo, f"{'/datasets' if kind == 'dataset' else ''}/{name}", body)
        if words[-4:] == ["info", "lfs", "objects", "batch"]:
            return self._answer_batch(words, json.loads(body))
        if words[-2:] == ["lfs-files", "verify"]:
            wanted = json.loads(body)
            data = self.server.objects.get(wanted["oid"])
            if data is None or len(data) != wanted["size"]:
                raise Refused(404, fault="verifies what did not arrive")
            return {}
        raise Refused(400, fault="no such address")

    def _create_repo(self, wanted: dict[str, Any]) -> Any:
        kind, name = wanted["type"], f"{wanted['organization']}/{wanted['name']}"
        if (kind, name) in self.server.repos:
            raise Refused(409, {"X-Error-Message": "You already created this repo"})
        private = wanted.get("private", wanted.get("visibility") == "private")
        self.server.repos[kind, name] = repo = HostedRepo(private)
        repo.commit({".gitattributes": b"*.parquet filter=lfs\n"})
        prefix = "datasets/" if kind == "dataset" else ""
        return {"url": f"{self.server.url}/{prefix}{name}", "name": name, "id": "1"}

    def _sort_uploads(self, repo: HostedRepo, wanted: dict[str, Any]) -> Any:
        there = repo.commits[repo.head]
        answers = []
        for file in wanted["files"]:
            if set(file) != {"path", "sample", "size"} or len(base64.b64decode(file["sample"])) > 512:
                raise Refused(400, fault="a file of preupload has other keys")
            path = file["path"]
            old = name_git_blob(there[path]) if path in there and not path.endswith(LFS_ENDINGS) else None
            mode = "lfs" if path.endswith(LFS_ENDINGS) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": old})
        return {"files": answers}

    def _answer_batch(self, words: list[str], wanted: dict[str, Any]) -> Any:
        kind, name = ("dataset", words[1:3]) if words[0] == "datasets" else ("model", words[0:2])
        self._find_repo(kind, "/".join(name).removesuffix(".git"))
        if wanted["operation"] != "upload" or wanted["hash_algo"] != "sha256" or "basic" not in wanted["transfers"]:
            raise Refused(422, fault="an unknown batch")
        objects = []
        for item in wanted["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.server.objects:
                upload = {"href": f"{self.server.cdn}/{item['oid']}?{SIGNATURE}&size={item['size']}", "header": {}}
                verify = {"href": f"{self.server.url}/api/lfs-files/verify", "header": {}}
                answer["actions"] = {"upload": upload, "verify": verify}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    def _commit(self, repo: HostedRepo, address: str, body: bytes) -> Any:
        if self.server.failing_commits:
            self.server.failing_commits -= 1
            raise Refused(503)
        if self.headers.get("Content-Type") != "application/x-ndjson":
            raise Refused(400, fault="a commit of another type")
        files: Files = dict(repo.commits[repo.head])
        header, *operations = [json.loads(line) for line in body.splitlines()]
        if header["key"] != "header" or not header["value"]["summary"]:
            raise Refused(400, fault="a commit without a header")
        if header["value"].get("parentCommit") not in (None, repo.head):
            raise Refused(412)
        for operation in operations:
            self._apply_operation(files, operation["key"], operation["value"])
        commit = repo.commit(files)
        return {"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}{address}/commit/{commit}"}

    def _apply_operation(self, files: Files, key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "file" and not path.endswith(LFS_ENDINGS):
            files[path] = base64.b64decode(value["content"], validate=True)
        elif key == "lfsFile":
            data = self.server.objects.get(value["oid"])
            if data is None or len(data) != value["size"]:
                raise Refused(400, fault=f"{path} was committed and did not arrive")
            files[path] = data
        elif key == "deletedFile" and path in files:
            del files[path]
        else:
            raise Refused(400, fault=f"wrong operation {key} on {path}")

    def _handle_storage(self, digest: str, query: str) -> None:
        if "Authorization" in self.headers or SIGNATURE not in query:
            raise Refused(400, fault="a token was sent to the storage, or no signature")
        if self.command == "PUT":
            self._receive(digest, int(parse_qs(query)["size"][0]))
        else:
            self._send_object(digest)

    def _receive(self, digest: str, size: int) -> None:
        number = len(self.server.uploads) + 1
        if self.server.pause_at_upload == number:
            self.rfile.read(size // 2)
            self.server.paused.set()
            self.server.go_on.wait()
            self.close_connection = True
            return
        data = self._read_body()
        if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
            raise Refused(400, fault="other bytes arrived than were announced")
        self.server.objects[digest] = data
        self.server.uploads.append(digest)
        self._send(200, {"ETag": f'"{digest}"'}, b"")

    def _send_object(self, digest: str) -> None:
        name, _, spoiled = digest.partition("-")
        data = self.server.objects[name]
        self._send_range(data[:-1] + bytes([data[-1] ^ 1]) if spoiled else data, {})

    def _send_range(self, data: bytes, headers: dict[str, str]) -> None:
        begin = 0
        if wanted := self.headers.get("Range"):
            begin = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self._send(206 if wanted else 200, headers, data[begin:])

    def _send_page(self) -> None:
        self._send(200, {"Content-Type": "application/json"}, b"<html>\nLog in")

    def _send_file(self, words: list[str]) -> None:
        kind = "dataset" if words[0] == "datasets" else "model"
        words = words[1:] if kind == "dataset" else words
        if len(words) < 5 or words[2] != "resolve":
            raise Refused(400, fault="no such address")
        repo, path = self._find_repo(kind, "/".join(words[:2])), "/".join(words[4:])
        commit = self._find_commit(repo, words[3])
        if repo.gated and "Authorization" not in self.headers:
            raise Refused(401, {"X-Error-Code": "GatedRepo", "X-Repo-Commit": commit})
        data = repo.commits[commit].get(path)
        if data is None:
            raise Refused(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        spoiled = self.server.corrupt == path
        if path.endswith(LFS_ENDINGS):
            digest = hashlib.sha256(data).hexdigest()
            headers = {
                "X-Linked-Size": str(len(data)),
                "X-Linked-Etag": f'"{digest}"',
                "ETag": f'"{name_git_blob(data)}"',
                # Most files of the real Hub are in Xet too.
                "X-Xet-Hash": hashlib.sha256(b"xet" + data).hexdigest(),
                "Link": f'<{self.server.url}/api/{kind}s/{"/".join(words[:2])}/xet-read-token/{commit}>; rel="xet-auth"',
            }
            location = f"{self.server.cdn}/{digest}{'-spoiled' if spoiled else ''}?{SIGNATURE}"
            self._send(302, {**headers, "X-Repo-Commit": commit, "Location": location}, b"")
            return
        sent = data[:-1] + b"!" if spoiled else data
        self._send_range(sent, {"ETag": f'"{name_git_blob(data)}"', "X-Repo-Commit": commit})

    def _send_json(self, value: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        with suppress(ConnectionError):  # the client was killed
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                pause = self.server.pause_after if self.path.startswith("/lfs/") else None
                first = len(body) if pause is None else pause
                self.wfile.write(body[:first])
                if body[first:]:
                    self.wfile.flush()
                    self.server.go_on.wait()
                    self.wfile.write(body[first:])


def name_git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
