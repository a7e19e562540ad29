"""Sends a planned publication to the Hugging Face Hub: what is there with the same hash is not sent again, each repository
changes in one commit, and the commit is recorded next to the release. Decides nothing about what may be published.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from core.errors import RunFailed, StoreError, UsageError
from core.runs.releases import RELEASE_MANIFEST, Release
from core.runs.run_dir import format_current_time
from core.storage.atomic_files import read_json, write_json
from core.storage.hub_files import format_size
from flows.terminal.text_format import format_one_line
from plugins.publish.hub_connection import RESUME_ADVICE, connect_hub, find_endpoint, translate_hub_errors
from plugins.publish.publication_plan import (
    STATEMENT,
    STUDENT_ENDINGS,
    PlannedFile,
    PlannedRepo,
    PublicationPlan,
    name_student_files,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile


class PublicationRecord(BaseModel):
    """One repository that a release was sent to, as recorded next to the release."""

    endpoint: str
    kind: str
    repo: str
    revision: str
    """The commit, which pins what was sent."""
    release: str
    digest: str
    """Of the release."""
    published: str
    private: bool
    files: dict[str, str]
    """SHA-256 by path."""


class SentRepo(NamedTuple):
    """What was done for one repository."""

    record: PublicationRecord
    sent: Sequence[PlannedFile]
    present: int
    """Files that were there with the same hash."""
    removed: Sequence[str]
    """Files of an earlier release that this one does not have."""


class RepoState(NamedTuple):
    """A repository as it is on the Hub before something is sent."""

    head: str | None
    """Its newest commit; None if it does not exist."""
    private: bool
    remote: Mapping[str, "RepoFile"]
    stale: Sequence[str]
    """Files that the release there recorded and the one to publish does not have."""


def check_repositories(plan: PublicationPlan) -> list[RepoState]:
    """The state of all repositories. Creates and sends nothing.

    Raises:
        UsageError: if the token or a name is wrong, a repository is public and `plan` is not, or it has the release or student of
            another recipe, or of a later release.
        RunFailed: if the Hub cannot be reached or fails.
    """
    api = connect_hub(to_write=True)
    states = []
    for repo in plan.repos:
        with translate_hub_errors(repo.repo):
            states.append(_read_repo_state(api, plan, repo))
    return states


def publish_plan(plan: PublicationPlan, progress: Callable[[str], None]) -> list[SentRepo]:
    """Check all repositories, then send them one by one, and record each as soon as it is complete.

    Raises:
        UsageError: as `check_repositories` does; nothing was sent then.
        RunFailed: if the Hub cannot be reached or fails. Repeat it then: complete files are not sent again.
        StoreError: if the record cannot be written.
    """
    states = check_repositories(plan)
    api = connect_hub(to_write=True)
    done = []
    for repo, state in zip(plan.repos, states, strict=True):
        with translate_hub_errors(repo.repo, RESUME_ADVICE):
            sent = _publish_repo(api, plan, repo, state, progress)
        _write_publication_record(plan.release, sent.record)
        done.append(sent)
    return done


def _publish_repo(
    api: "HfApi", plan: PublicationPlan, repo: PlannedRepo, state: RepoState, progress: Callable[[str], None]
) -> SentRepo:
    if state.head is None:
        api.create_repo(repo.repo, repo_type=repo.kind, private=not plan.public, exist_ok=True)
        state = _read_repo_state(api, plan, repo)
    head = str(state.head)
    missing = _list_missing_files(repo, state.remote)
    progress(f"{repo.repo}: {len(repo.files) - len(missing)} of {len(repo.files)} files are there")
    changed = bool(missing or state.stale)
    revision = _commit_files(api, plan.release, repo, head, missing, state.stale, progress) if changed else head
    if wrong := _list_missing_files(repo, _list_remote_files(api, repo, revision)):
        raise RunFailed(
            f"{repo.repo}: {wrong[0].path} is there with another content after the commit {revision}; {RESUME_ADVICE}"
        )
    record = PublicationRecord(
        endpoint=find_endpoint(), kind=repo.kind, repo=repo.repo, revision=revision, release=plan.release.name,
        digest=plan.release.manifest.digest, published=format_current_time(), private=state.private,
        files={file.path: file.sha256 for file in repo.files},
    )  # fmt: skip
    return SentRepo(record, missing, len(repo.files) - len(missing), state.stale)


def _read_repo_state(api: "HfApi", plan: PublicationPlan, repo: PlannedRepo) -> RepoState:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.repo_info(repo.repo, repo_type=repo.kind)
    except RepositoryNotFoundError:
        return RepoState(None, not plan.public, {}, ())
    if not info.private and not plan.public:
        raise UsageError(f"{repo.repo}: is a public repository; add --public, or name another one")
    assert info.sha
    remote = _list_remote_files(api, repo, info.sha)
    return RepoState(info.sha, bool(info.private), remote, _find_stale_files(api, plan.release, repo, info.sha, remote))


def _list_remote_files(api: "HfApi", repo: PlannedRepo, revision: str) -> dict[str, "RepoFile"]:
    from huggingface_hub.hf_api import RepoFile

    listed = api.list_repo_tree(repo.repo, recursive=True, revision=revision, repo_type=repo.kind)
    return {item.path: item for item in listed if isinstance(item, RepoFile)}


def _is_there(file: PlannedFile, remote: "RepoFile | None") -> bool:
    """Whether the Hub has the same bytes: by SHA-256 for large files, by Git's hash for others."""
    from huggingface_hub.utils.sha import git_hash

    if remote is None or remote.size != file.size:
        return False
    return remote.lfs.sha256 == file.sha256 if remote.lfs else remote.blob_id == git_hash(file.source.read_bytes())


def _list_missing_files(repo: PlannedRepo, remote: Mapping[str, "RepoFile"]) -> list[PlannedFile]:
    return [file for file in repo.files if not _is_there(file, remote.get(file.path))]


def _find_stale_files(
    api: "HfApi", release: Release, repo: PlannedRepo, head: str, remote: Mapping[str, "RepoFile"]
) -> list[str]:
    """Files that the release there before recorded and this one does not have. Files of other origin are never removed.

    Raises:
        UsageError: if the release or student there is of another recipe or of a later release, or a model there is of no release.
    """
    if RELEASE_MANIFEST not in remote:
        if weights := sorted(
            file.path for file in _list_missing_files(repo, remote) if _is_foreign_model(file, remote)
        ):
            raise UsageError(
                f"{repo.repo}: has a model that no release recorded ({weights[0]}), which the student of {release.name} would "
                "replace; name another repository with --student-to"
            )
        return []
    path = api.hf_hub_download(repo.repo, RELEASE_MANIFEST, repo_type=repo.kind, revision=head)
    recorded: Any = None
    with suppress(ValueError, OSError):
        recorded = json.loads(Path(path).read_text(encoding="utf-8"))
    recorded = recorded if isinstance(recorded, dict) else {}
    there = format_one_line(str(recorded.get("release", "")))
    recipe, _, generation = there.rpartition("/")
    own_recipe, _, own_generation = release.name.rpartition("/")
    if recipe and (recipe != own_recipe or (generation.isdecimal() and int(generation) > int(own_generation))):
        content = "the release" if repo.kind == "dataset" else "the student of the release"
        option = "--to" if repo.kind == "dataset" else "--student-to"
        raise UsageError(
            f"{repo.repo}: has {content} {there}, which {release.name} would replace; name another repository with {option}"
        )
    here = {file.path for file in repo.files}
    return sorted(name for name in _list_recorded_files(recorded, repo) if name in remote and name not in here)


def _is_foreign_model(file: PlannedFile, remote: Mapping[str, "RepoFile"]) -> bool:
    return file.path in remote and file.path.endswith(STUDENT_ENDINGS)


def _list_recorded_files(recorded: Mapping[str, Any], repo: PlannedRepo) -> list[str]:
    """The paths in the repository that a manifest, which is untrusted, records."""
    if repo.kind == "dataset":
        files = recorded.get("files")
        return [*files, STATEMENT] if isinstance(files, dict) else []
    run = recorded.get("run")
    files = run.get("files") if isinstance(run, dict) else None
    return list(name_student_files(files)) if isinstance(files, dict) else []


def _commit_files(
    api: "HfApi",
    release: Release,
    repo: PlannedRepo,
    head: str,
    missing: Sequence[PlannedFile],
    stale: Sequence[str],
    progress: Callable[[str], None],
) -> str:
    """Send the contents one by one, then commit all at once. A large file that arrived stays there without a commit, so that
    after an interruption it is not sent again. Returns the commit.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    additions: list[CommitOperationAdd] = []
    for number, file in enumerate(missing, start=1):
        progress(f"{repo.repo}: {number} of {len(missing)}: {file.path}, {format_size(file.size)}")
        addition = CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=file.source)
        api.preupload_lfs_files(repo.repo, [addition], repo_type=repo.kind, free_memory=False)
        additions.append(addition)
    deletions = [CommitOperationDelete(path_in_repo=name) for name in stale]
    commit = api.create_commit(
        repo.repo, [*additions, *deletions], commit_message=f"Release {release.name}",
        commit_description=f"Digest {release.manifest.digest}", repo_type=repo.kind, parent_commit=head,
    )  # fmt: skip
    return str(commit.oid)


def locate_publication_record(release: Release) -> Path:
    """The file next to the release: a release itself never changes."""
    return release.path.with_name(f"{release.path.name}.published.json")


def _read_publication_records(release: Release) -> list[PublicationRecord]:
    """Every repository that the release was sent to, oldest first. Raises StoreError if the file is damaged."""
    path = locate_publication_record(release)
    if not path.is_file():
        return []
    try:
        return [PublicationRecord.model_validate(record) for record in read_json(path)]
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path}: is damaged: {error}; remove it, and publish again") from None


def _write_publication_record(release: Release, record: PublicationRecord) -> None:
    """Add the record, instead of one of the same commit."""
    identity = (record.endpoint, record.kind, record.repo, record.revision)
    others = [
        other
        for other in _read_publication_records(release)
        if (other.endpoint, other.kind, other.repo, other.revision) != identity
    ]
    write_json(locate_publication_record(release), [one.model_dump(mode="json") for one in [*others, record]])
