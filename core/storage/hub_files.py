"""GGUF files of the Hugging Face Hub in its own cache on this machine (HF_HOME). A download that was cut off continues later.
Errors of huggingface_hub become sentences here, for any repository.

huggingface_hub knows addresses, tokens, redirects and the cache. Since version 1 it deletes what an interrupted download has
received (2.4: a random name for each try, unlinked in a `finally`), so a cut-off file of 5 GB would begin anew. The bytes are
stored here, and it finds them in its cache when they are complete and verified.
"""

import asyncio
import io
import logging
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from core.errors import ProviderError, UsageError, suggest_name
from core.hub_reference import COMMIT, HubReference, is_safe_name
from core.secrets import redact_text
from core.storage.atomic_files import hash_once
from core.weights.gguf_files import find_gguf_problem, hash_gguf, list_part_names, match_split_name

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

HUB_LIBRARIES = ("httpx", "httpcore", "hf_xet", "huggingface_hub")  # version 2 has an httpx of its own, httpx2
"""Libraries whose other errors mean that a transfer failed."""
BUSY_STATUS = 429
HubFaultKind = Literal[
    "gated",
    "no_repository",
    "no_revision",
    "no_file",
    "offline",
    "no_name",
    "token",
    "changed",
    "status",
    "unreachable",
]


class HubPlace(NamedTuple):
    """What was asked for."""

    hub: str
    """The address of the Hub."""
    repo: str
    what: Literal["model", "repository"]
    revision: str | None = None
    file: str = ""


class HubFault(NamedTuple):
    kind: HubFaultKind
    sentence: str
    """Without a full stop and without advice."""
    status: int | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether the Hub gave no usable answer, so that a copy on this machine may be used."""
        busy = self.status is not None and (self.status >= 500 or self.status == BUSY_STATUS)
        return busy or self.kind in ("offline", "unreachable")


def find_hub_fault(error: Exception, place: HubPlace) -> HubFault | None:
    """None for an error that is not about the Hub."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub, repo, what, revision, file = place
    page = f"{hub}/{repo}" if what == "model" else hub
    faults: dict[type[Exception], HubFault] = {  # a subclass before its base
        GatedRepoError: HubFault("gated", f"{repo} is gated: accept its terms at {page}"),
        RepositoryNotFoundError: HubFault(
            "no_repository", f"{hub} has no {what} {repo}, or it is private: check the name"
        ),
        RevisionNotFoundError: HubFault("no_revision", f"{repo} has no revision {revision or 'of this name'!r}"),
        OfflineModeIsEnabled: HubFault("offline", "HF_HUB_OFFLINE is set"),
        HFValidationError: HubFault("no_name", f"{repo!r} is no name of a repository"),
    }
    for kind, fault in faults.items():
        if isinstance(error, kind):
            return fault
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return HubFault(
            "no_file", f"{repo} has no file {file!r}" if file else f"{repo} lacks a file ({_shorten(error)})"
        )
    causes = [one for one in (error, error.__cause__) if isinstance(one, Exception)]
    if answered := next((one for one in causes if isinstance(one, HfHubHTTPError)), None):
        return _find_status_fault(answered.response.status_code, answered, place)
    if failed := next((one for one in causes if type(one).__module__.startswith(HUB_LIBRARIES)), None):
        return HubFault("unreachable", f"{hub} cannot be reached ({_shorten(failed)})")
    return None


def _find_status_fault(status: int, error: Exception, place: HubPlace) -> HubFault:
    if status in (401, 403):
        return HubFault("token", f"{place.hub} rejects your token (status {status})", status)
    if status in (409, 412):
        return HubFault("changed", f"{place.repo} was changed by someone else meanwhile (status {status})", status)
    return HubFault("status", f"{place.hub} answers with status {status} ({_shorten(error)})", status)


def _shorten(error: Exception) -> str:
    """Without addresses, which may be signed."""
    text = redact_text(re.sub(r"https?://\S+", "…", str(error)) or type(error).__name__)
    return " ".join(text.split())[:200]


SHA256 = re.compile(r"[0-9a-f]{64}")
"""The name of a blob in the cache, if its file is stored in Git LFS or Xet; the Git hash of a small file is shorter."""
SPARE_BYTES = 2**28
"""Free space that a download leaves."""
MAX_LISTED = 12
"""GGUF files that a message lists."""
CHOICE_HELP = "name a file or its quantization"

Progress = Callable[[str], None]
"""Called with a message whenever bytes have arrived."""


class HubWeights(NamedTuple):
    """A GGUF file of the Hub on this machine."""

    reference: HubReference
    """With its commit and its file."""
    path: Path
    """The file, or the first part of a split file."""
    sha256: str


class DownloadStopped(Exception):
    """The download was stopped; what arrived is stored."""


def find_cached_model(name: str, where: str) -> Path:
    """The folder of a model of the Hub on this machine, found without a network: which model is fetched is the user's choice, not
    that of a file of others.

    Raises:
        UsageError: beginning with `where`, if it is not on this machine.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json")
    except ValueError:  # no name that the Hub allows
        raise UsageError(f"{where}: names the model {name!r}, which is neither a folder nor on the Hub") from None
    if not isinstance(found, str):
        raise UsageError(
            f"{where}: names the model {name!r}, which is not on this machine; nothing that a file names is fetched unasked: if "
            f"you trust the model, fetch it with `hf download {name}`"
        )
    return Path(found).parent


def find_cached_weights(reference: HubReference) -> Path | None:
    """The file on this machine, found without a network; None if a part of it is missing."""
    from huggingface_hub import try_to_load_from_cache

    if not reference.names_file:
        found = _match_files(_list_cached_files(reference), reference.file)
        if len(found) != 1:
            return None
        reference = reference._replace(file=found[0])
    assert reference.file
    parts = _list_parts(reference.file)
    cached = [try_to_load_from_cache(reference.repo, part, revision=reference.revision) for part in parts]
    paths = [Path(path) for path in cached if isinstance(path, str)]
    return paths[0] if len(paths) == len(parts) else None


def fetch_hub_weights(
    reference: HubReference, progress: Progress, stopped: Callable[[], bool] = lambda: False
) -> HubWeights:
    """Download what is missing of the file and verify all of it. Without a network, the newest copy in the cache is used.

    Raises:
        ProviderError: if it cannot be found, read or verified.
        DownloadStopped: soon after `stopped` returns true.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings contain signed addresses
    download = _HubDownload(reference, progress, stopped)
    path = find_cached_weights(reference) if reference.pinned else None
    if path is None:
        chosen = reference if reference.names_file else download.choose_file()
        assert chosen.file
        first, *others = _list_parts(chosen.file)
        path = download.fetch(first, chosen.revision)
        reference = chosen._replace(revision=path.parents[first.count("/")].name)  # snapshots/COMMIT/FILE
        for part in others:
            download.fetch(part, reference.revision)
    for part in list_part_names(path.name):
        _verify_cached_file(reference, path.with_name(part))
    if problem := find_gguf_problem(path):
        raise ProviderError(f"local/{reference}: {problem}")
    return HubWeights(reference, path, hash_gguf(path))


async def fetch_hub_weights_in_background(reference: HubReference, progress: Progress) -> HubWeights:
    """`fetch_hub_weights` in a thread. If this task is cancelled, the thread ends by itself, and the process may end before."""
    stop, loop = threading.Event(), asyncio.get_running_loop()
    done: asyncio.Future[HubWeights] = loop.create_future()

    def finish(result: HubWeights | BaseException) -> None:
        if done.done():
            return
        done.set_exception(result) if isinstance(result, BaseException) else done.set_result(result)

    def work() -> None:
        result: HubWeights | BaseException
        try:
            result = fetch_hub_weights(reference, progress, stop.is_set)
        except BaseException as error:
            result = error
        if not stop.is_set():
            loop.call_soon_threadsafe(finish, result)

    threading.Thread(
        target=work, daemon=True
    ).start()  # a thread of the loop's executor would delay the end of the process
    try:
        return await done
    finally:
        stop.set()


class _HubDownload:
    """One use of a repository, with its messages."""

    def __init__(self, reference: HubReference, progress: Progress, stopped: Callable[[], bool]) -> None:
        self.reference = reference
        self._progress = progress
        self._stopped = stopped

    def choose_file(self) -> HubReference:
        """The reference with the only GGUF file, or the only one of its quantization. Raises ProviderError."""
        names = self._list_files()
        wanted, models = self.reference.file, _match_files(names, self.reference.file)
        if len(models) == 1:
            return self.reference._replace(file=models[0])
        if models:
            raise self._fail(
                f"{len(models)} GGUF files of {self.reference.repo} match: {_list_names(models)}; {CHOICE_HELP}"
            )
        which = f"no GGUF file of the quantization {wanted!r}" if wanted else "no GGUF file"
        raise self._fail(f"{self.reference.repo} has {which}" + (f"; it has {_list_names(names)}" if names else ""))

    def fetch(self, file: str, revision: str | None) -> Path:
        """The file in the cache, downloaded if it is not there. Raises ProviderError."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

        repo = self.reference.repo
        try:
            metadata = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
            self._check_metadata(file, metadata)
            if not isinstance(try_to_load_from_cache(repo, file, revision=metadata.commit_hash), str):
                self._download_blob(file, metadata)
            return Path(hf_hub_download(repo, file, revision=revision))
        except (DownloadStopped, ProviderError):
            raise
        except Exception as error:
            cached = try_to_load_from_cache(repo, file, revision=revision)
            if self._is_unreachable(error) and isinstance(cached, str):
                return Path(cached)
            raise self._describe_error(error, file) from None

    def _check_metadata(self, file: str, metadata: "HfFileMetadata") -> None:
        """Commit and hash become names of files in the cache. Raises ProviderError."""
        from huggingface_hub import constants

        if not (metadata.commit_hash and metadata.etag and metadata.size is not None):
            raise self._fail(
                f"{constants.ENDPOINT} is no Hugging Face Hub: it sends no commit, hash and size of {file}"
            )
        if not (COMMIT.fullmatch(metadata.commit_hash) and re.fullmatch(r"[\w-]+", metadata.etag)):
            raise self._fail(f"{constants.ENDPOINT} sends an invalid commit or hash of {file}")

    def _download_blob(self, file: str, metadata: "HfFileMetadata") -> None:
        """Store the bytes of a file as a blob of the cache, where huggingface_hub finds them."""
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.file_download import repo_folder_name
        from huggingface_hub.utils._fixes import WeakFileLock
        from huggingface_hub.utils._headers import build_hf_headers

        assert metadata.etag
        assert metadata.size is not None
        cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=self.reference.repo, repo_type="model")
        blob = cache / folder / "blobs" / metadata.etag
        lock = cache / ".locks" / folder / f"{metadata.etag}.lock"
        for directory in (blob.parent, lock.parent):
            directory.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if blob.exists():
                return
            partial = blob.with_name(f"{metadata.etag}.incomplete")
            there = partial.stat().st_size if partial.exists() else 0
            if (free := shutil.disk_usage(blob.parent).free) < metadata.size - there + SPARE_BYTES:
                raise self._fail(
                    f"{file} has {format_size(metadata.size)}, and {format_size(free)} are free in {cache}"
                )
            # The address is that of the commit: the file may change between two tries.
            url = hf_hub_url(self.reference.repo, file, revision=metadata.commit_hash)
            self._download_rest(url, build_hf_headers(), partial, file, metadata.size)
            self._verify_download(partial, file, metadata)
            partial.rename(blob)

    def _download_rest(self, url: str, headers: dict[str, str], partial: Path, file: str, size: int) -> None:
        from huggingface_hub.file_download import http_get

        if (there := partial.stat().st_size if partial.exists() else 0) > size:
            partial.unlink()
            there = 0
        self._progress(f"download of {file}: {'continues' if there else 'begins'} at {_format_share(there, size)}")

        def count(done: int) -> None:
            self._progress(f"download of {file}: {_format_share(done, size)}")
            if self._stopped():
                raise DownloadStopped

        with _CountedFile(partial, count) as opened:
            if there < size:
                # Redirects are followed without the token if they leave the Hub.
                http_get(url, opened, resume_size=there, headers=headers, tqdm_class=_NoProgressBar)
        if (got := partial.stat().st_size) != size:
            raise self._fail(f"{file} ended at {got:,} of {size:,} bytes; the next try continues there")

    def _verify_download(self, partial: Path, file: str, metadata: "HfFileMetadata") -> None:
        assert metadata.etag
        if SHA256.fullmatch(metadata.etag) and (found := hash_once(partial)) != metadata.etag:
            partial.unlink()
            raise self._fail(
                f"{file} arrived with other bytes than the Hub has (SHA-256 {found[:16]}…, not {metadata.etag[:16]}…) and was "
                "deleted; try again"
            )

    def _list_files(self) -> list[str]:
        """The GGUF files of the revision; without a network, those in the cache."""
        from huggingface_hub import HfApi, constants

        reference, timeout = self.reference, constants.HF_HUB_ETAG_TIMEOUT
        try:
            info = HfApi().model_info(reference.repo, revision=reference.revision, timeout=timeout)
        except Exception as error:
            if self._is_unreachable(error) and (cached := _list_cached_files(reference)):
                return cached
            raise self._describe_error(error, "") from None
        return _keep_gguf([sibling.rfilename for sibling in info.siblings or []])

    def _describe_error(self, error: Exception, file: str) -> ProviderError:
        """An error of huggingface_hub or of the disk as a sentence; any other error is raised."""
        from huggingface_hub import constants, get_token

        repo, cache = self.reference.repo, constants.HF_HUB_CACHE
        fault = self._find_fault(error, file)
        if fault is None:
            if isinstance(error, OSError):
                return self._fail(f"cannot be stored in {cache}: {error.strerror or error}")
            if isinstance(error, ValueError):  # a name or a value that huggingface_hub refuses
                cause = " ".join(redact_text(str(error)).split())
                return self._fail(f"{file or repo} cannot be downloaded from {constants.ENDPOINT}: {cause}")
            raise error
        token = "the account of your token may not read it" if get_token() else "set HF_TOKEN"
        again = "what has arrived is kept, try again"
        advice: dict[HubFaultKind, str] = {
            "gated": token, "no_repository": token, "offline": "unset it to download", "no_name": "write OWNER/REPO",
            "token": "set HF_TOKEN to a valid one", "changed": again, "status": again, "unreachable": again,
        }  # fmt: skip
        if fault.kind == "no_file":
            advice["no_file"] = self._suggest_file(file)
        missing = f"{file or repo} is not in {cache}, and " if fault.kind == "offline" else ""
        return self._fail("; ".join(filter(None, (f"{missing}{fault.sentence}", advice.get(fault.kind)))))

    def _find_fault(self, error: Exception, file: str) -> HubFault | None:
        from huggingface_hub import constants

        place = HubPlace(constants.ENDPOINT, self.reference.repo, "model", self.reference.revision, file)
        return find_hub_fault(error, place)

    def _is_unreachable(self, error: Exception) -> bool:
        """Whether a copy in the cache may be used."""
        fault = self._find_fault(error, "")
        return fault is not None and fault.is_temporary

    def _suggest_file(self, file: str) -> str:
        try:
            names = self._list_files()
        except ProviderError:
            return CHOICE_HELP
        near = suggest_name(file, names, "")
        listed = f"its GGUF files are {_list_names(names)}" if names else "it has no GGUF file"
        return f"{near} {listed}" if near.startswith("did you mean") else listed

    def _fail(self, text: str) -> ProviderError:
        return ProviderError(f"local/{self.reference}: {text}")


class _CountedFile(io.FileIO):
    """A file to append to, which reports its length after each write."""

    def __init__(self, path: Path, count: Callable[[int], None]) -> None:
        super().__init__(path, "ab")
        self._count = count

    def write(self, data: Any, /) -> int:
        rest = memoryview(data)
        while rest:
            rest = rest[super().write(rest) :]
        self._count(self.tell())
        return memoryview(data).nbytes


class _NoProgressBar:
    """Takes the place of tqdm."""

    def __init__(self, **_options: Any) -> None: ...

    def __enter__(self) -> "_NoProgressBar":
        return self

    def __exit__(self, *_error: object) -> None: ...

    def update(self, _count: float | None = 1) -> None: ...


def _list_cached_files(reference: HubReference) -> list[str]:
    """The GGUF files of its revision on this machine."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=reference.repo, repo_type="model")
    revision = reference.revision or constants.DEFAULT_REVISION
    ref = folder / "refs" / revision
    snapshot = folder / "snapshots" / (ref.read_text(encoding="ascii").strip() if ref.is_file() else revision)
    return _keep_gguf([path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*")])


def _match_files(names: list[str], quantization: str | None) -> list[str]:
    """The models among GGUF files, of this quantization if one is named; of a split file only the first part."""
    whole = [name for name in names if (split := match_split_name(name)) is None or int(split["part"]) == 1]
    models = [name for name in whole if not re.search(r"(?i)mmproj|imatrix", name)]
    tag = re.compile(rf"(?i)(?:^|[-._/]){re.escape(quantization or '')}(?=[-./]|$)")
    return models if quantization is None else [name for name in models if tag.search(name)]


def _list_parts(file: str) -> list[str]:
    *folders, name = file.split("/")
    return ["/".join([*folders, part]) for part in list_part_names(name)]


def _verify_cached_file(reference: HubReference, path: Path) -> None:
    blob = path.resolve().name
    if SHA256.fullmatch(blob) and (found := hash_once(path.resolve())) != blob:
        raise ProviderError(
            f"local/{reference}: {path.resolve()} has other bytes than the Hub (SHA-256 {found[:16]}…); remove it and try again"
        )


def _keep_gguf(names: list[str]) -> list[str]:
    """The GGUF files that a recipe can name. A Hub may send any name."""
    return sorted(name for name in names if name.lower().endswith(".gguf") and is_safe_name(name))


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def format_size(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size} B"


def _format_share(done: int, size: int) -> str:
    return f"{format_size(done)} of {format_size(size)} ({100 * done // max(size, 1)} %)"
