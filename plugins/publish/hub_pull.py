"""Pulls a published release: downloads it, compares every file with the hash in its manifest, and only then shows the folder.

What a repository contains is untrusted: its names must stay inside the folder, and nothing in it is executed or imported.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from core.errors import StoreError, UsageError
from core.hub_reference import HubReference, is_safe_name
from core.runs.releases import (
    READ_ONLY_MODE,
    RELEASE_MANIFEST,
    ReleaseManifest,
    compute_manifest_digest,
    locate_statement,
)
from core.storage.atomic_files import hash_file, read_json, write_atomically
from flows.terminal.text_format import format_one_line
from plugins.publish.hub_connection import connect_hub, translate_hub_errors
from plugins.publish.publication_plan import STATEMENT

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PULL_ADVICE = "what has arrived is kept; repeat the command to continue"


class PulledRelease(NamedTuple):
    path: Path
    reference: HubReference
    """With its commit."""
    release: str
    digest: str
    files: int
    size: int
    """In bytes."""
    statement: Path | None = None
    """The signed statement that was published with it, which nobody has verified yet."""


def pull_release(
    reference: HubReference, out: Path, progress: Callable[[str], None], stopped: Callable[[], None] = lambda: None
) -> PulledRelease:
    """Download the release into `out`, which must not exist. Repeat it after an interruption: complete files are kept in a hidden
    folder next to `out`.

    Raises:
        UsageError: if `out` exists, or the repository is none of a release.
        RunFailed: if the Hub cannot be reached.
        StoreError: if a file has another hash than the manifest says, or cannot be written; `out` does not exist then.
    """
    statement = locate_statement(out)
    if taken := [path for path in (out, statement) if path.exists()]:
        raise UsageError(f"{taken[0]}: exists; name a new folder with --out")
    api = connect_hub(to_write=False)
    with translate_hub_errors(reference.repo, PULL_ADVICE):
        info = api.dataset_info(reference.repo, revision=reference.revision)
        assert info.sha
        reference = reference._replace(revision=info.sha)
        partial = out.with_name(f".{out.name}.{info.sha[:12]}.pull")
        manifest = _fetch_manifest(api, reference, partial)
        for number, (name, digest) in enumerate(sorted(manifest.files.items()), start=1):
            stopped()
            progress(f"{reference.repo}: {number} of {len(manifest.files)}: {name}")
            _fetch_file(api, reference, partial, name, digest)
        signed = any(file.rfilename == STATEMENT for file in info.siblings or ())
        if signed:
            _download(api, reference, partial, STATEMENT)
    names = [*manifest.files, RELEASE_MANIFEST]
    size = sum((partial / name).stat().st_size for name in names)
    with write_atomically(out, READ_ONLY_MODE) as folder:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).rename(folder / name)
    if signed:
        (partial / STATEMENT).rename(statement)
    shutil.rmtree(partial, ignore_errors=True)
    sent = statement if signed else None
    return PulledRelease(out, reference, manifest.release, manifest.digest, len(names), size, sent)


def _fetch_manifest(api: "HfApi", reference: HubReference, partial: Path) -> ReleaseManifest:
    """The manifest, compared with its own digest, and all of whose names are safe."""
    _download(api, reference, partial, RELEASE_MANIFEST)
    whole: Any = read_json(partial / RELEASE_MANIFEST)
    try:
        manifest = ReleaseManifest.model_validate(whole)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = format_one_line(".".join(map(str, first["loc"])))
        raise UsageError(
            f"{reference}: its {RELEASE_MANIFEST} is not that of a release: {where}: {first['msg']}"
        ) from None
    if compute_manifest_digest(whole) != manifest.digest:
        raise StoreError(
            f"{reference}: its {RELEASE_MANIFEST} was changed after the release: its digest differs; ask its publisher"
        )
    if unsafe := [
        name
        for name in manifest.files
        if not is_safe_name(name) or name in (RELEASE_MANIFEST, STATEMENT) or name.startswith(".cache/")
    ]:
        raise StoreError(
            f"{reference}: its {RELEASE_MANIFEST} names {unsafe[0][:80]!r}, which is no path inside a release"
        )
    return manifest


def _fetch_file(api: "HfApi", reference: HubReference, partial: Path, name: str, digest: str) -> None:
    path = partial / name
    if not path.is_file() or hash_file(path) != digest:
        _download(api, reference, partial, name)
    if (found := hash_file(path)) != digest:
        path.unlink()
        raise StoreError(
            f"{reference}: {name} has the SHA-256 {found[:16]}…, its manifest says {digest[:16]}…; it was changed after the "
            "release, or damaged on the way: repeat the command, then ask its publisher"
        )


def _download(api: "HfApi", reference: HubReference, partial: Path, name: str) -> None:
    api.hf_hub_download(reference.repo, name, repo_type="dataset", revision=reference.revision, local_dir=partial)
