"""What publishing a release sends: repositories, files, hashes; and what forbids it: secrets and personal data in files,
which are never printed. Asks no network.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from core.config.filters import PersonalDataFilter
from core.errors import GateNotMet, StoreError, UsageError
from core.hub_reference import HUB_PREFIX, HubReference, parse_hub_reference
from core.installation import format_install_command
from core.runs.lineage import find_release
from core.runs.releases import RELEASE_MANIFEST, Release, locate_releases, locate_statement
from core.secrets import find_secrets
from core.storage.atomic_files import hash_file
from filters.chain.registry import FILTERS
from filters.rules.personal_data import find_personal_data
from flows.data.run_storage import RunStorage
from flows.release.release_documents import CARD
from flows.release.release_gate import find_release_refusals
from plugins.publish.secret_search import MOST_FOUND, FoundContent, read_texts

HEX_DIGITS = re.compile(
    r"(?<![\w@.+-])(?=[0-9]*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}|[0-9a-f]{16})(?![\w@.+-])"
)
"""Whole hashes, which no person's number is: digits in them are not searched. Digits alone may be a card's or an account's."""


def _check_scan_requirements() -> None:
    """Raises UsageError if a package of the filter for personal data is missing."""
    entry = FILTERS["pii"]
    if missing := [module for module in entry.modules if find_spec(module) is None]:
        raise UsageError(
            f"the search for personal data before publishing needs the extra `{entry.extra}` ({', '.join(missing)} is missing): "
            f"run {format_install_command(str(entry.extra))}"
        )


class ContentScan:
    """A search over files. Texts that occur in several files are searched once if they are clean."""

    def __init__(self, allowed: Sequence[str] = (), stopped: Callable[[], None] = lambda: None) -> None:
        """`allowed` are texts that the user publishes knowingly, such as a contact. `stopped` may raise."""
        self._allowed = [text for text in allowed if text]
        self._stopped = stopped
        self._config = PersonalDataFilter(type="pii")
        self._clean: set[int] = set()

    def search(self, path: Path, name: str) -> Iterator[FoundContent]:
        """What is found in a file, which is called `name` in messages. Files that are no text are skipped."""
        for place, text in read_texts(path):
            self._stopped()
            if (key := hash(text)) in self._clean:
                continue
            secrets = find_secrets(text)
            for allowed in self._allowed:
                text = text.replace(allowed, " ")
            plain = HEX_DIGITS.sub("", text)
            personal = [match.kind for match in find_personal_data(plain, self._config)]
            if not secrets and not personal:
                self._clean.add(key)
            if secrets:
                yield FoundContent(name, place, ", ".join(secrets), is_secret=True)
            if personal:
                counts = ", ".join(f"{kind} {personal.count(kind)}" for kind in dict.fromkeys(personal))
                yield FoundContent(name, place, counts, is_secret=False)


RepoKind = Literal["dataset", "model"]
STUDENT_SUFFIX = "-student"
STUDENT_FOLDER = "student/"
STUDENT_FILES = (
    "README.md", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "added_tokens.json", "vocab.json", "merges.txt", "kept.json",
)  # fmt: skip
STUDENT_ENDINGS = (".safetensors", ".safetensors.index.json", ".gguf")
"""What of a student is sent; logs, digests of rows and measurements with texts stay here."""
STATEMENT = "release.statement.json"
"""In the repository, the signed statement that `stillhouse rebuild --sign` writes next to a release."""
UNSEARCHED_FILES = ("tokenizer.json", "vocab.json", "merges.txt", STATEMENT)
"""Vocabularies of a tokenizer, whose entries are no text of a person; and a statement, which has hashes and versions."""


class PlannedFile(NamedTuple):
    """A file to be in a repository."""

    path: str
    """In the repository."""
    source: Path
    sha256: str
    size: int


class PlannedRepo(NamedTuple):
    """A repository with everything that it is to contain."""

    kind: RepoKind
    repo: str
    """`owner/name`."""
    files: Sequence[PlannedFile]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class PublicationPlan(NamedTuple):
    release: Release
    repos: Sequence[PlannedRepo]
    public: bool


def _parse_repo_name(name: str, option: str) -> str:
    """`OWNER/NAME` of `hf:OWNER/NAME`. Raises UsageError for anything else."""
    reference = parse_hub_reference(name)
    if reference is None or reference.revision or reference.file:
        raise UsageError(f"{option} {name}: must be hf:OWNER/NAME, a repository of the Hugging Face Hub")
    return reference.repo


def parse_pull_reference(name: str) -> HubReference:
    """The repository and revision of `hf:OWNER/NAME[@REVISION]`. Raises UsageError for anything else."""
    reference = parse_hub_reference(name)
    if reference is None or reference.file:
        raise UsageError(f"{name}: must be hf:OWNER/NAME, or hf:OWNER/NAME@REVISION with a branch, a tag or a commit")
    return reference


def find_named_release(name: Path, storage: RunStorage) -> Release:
    """The release at a path, or called RECIPE/GENERATION or RECIPE in `storage`. Raises UsageError if there is none."""
    if not name.exists() and not name.is_absolute():
        storage.fetch_lineage(name.parts[0])
    releases = locate_releases(storage.runs)
    release = find_release(name, releases)
    if release is None:
        raise UsageError(
            f"{name}: is no release; name one in {releases} as RECIPE/GENERATION, or make one: `stillhouse release RUN`"
        )
    return release


def plan_publication(
    release: Release, storage: RunStorage, to: str, student_to: str | None, *, public: bool, with_student: bool
) -> PublicationPlan:
    """The files to send, every one compared with the hash of its record.

    Raises:
        GateNotMet: if the release shows collapse, or does not meet the gate for another reason.
        UsageError: if a name is wrong, the release has no card, or its run has no student.
        StoreError: if a file is missing or was changed.
    """
    repo = _parse_repo_name(to, "--to")
    run = release.manifest.run
    if refusals := find_release_refusals(run, run.gate.gated or True):
        raise GateNotMet("\n  ".join([f"{release.name} is not published:", *(refusal.reason for refusal in refusals)]))
    if CARD not in release.manifest.files:
        raise UsageError(
            f"{release.path}: an earlier version made this release without a card ({CARD}); publish the next of its recipe"
        )
    release.verify_files()
    names = [*release.manifest.files, RELEASE_MANIFEST]
    hashes = {**release.manifest.files, RELEASE_MANIFEST: hash_file(release.path / RELEASE_MANIFEST)}
    files = [_plan_file(release.path, name, name, hashes[name]) for name in sorted(names)]
    statement = locate_statement(release.path)
    if statement.is_file():
        files.append(_plan_file(statement.parent, statement.name, STATEMENT, hash_file(statement)))
    repos = [PlannedRepo("dataset", repo, files)]
    if with_student or student_to:
        student_repo = _parse_repo_name(student_to or f"{HUB_PREFIX}{repo}{STUDENT_SUFFIX}", "--student-to")
        manifest = _plan_file(release.path, RELEASE_MANIFEST, RELEASE_MANIFEST, hashes[RELEASE_MANIFEST])
        repos.append(PlannedRepo("model", student_repo, [manifest, *_plan_student(release, storage)]))
    return PublicationPlan(release, repos, public)


def _plan_file(folder: Path, source: str, path: str, sha256: str) -> PlannedFile:
    return PlannedFile(path, folder / source, sha256, (folder / source).stat().st_size)


def _plan_student(release: Release, storage: RunStorage) -> list[PlannedFile]:
    """The student of the release's run, its files compared with the hashes that the run recorded."""
    recorded = release.manifest.run.files
    chosen = name_student_files(recorded)
    if not chosen:
        raise UsageError(f"{release.name}: its run {release.manifest.run.run} trained no student; leave out --student")
    run = storage.find_run(release.manifest.run.run)
    for name in chosen.values():
        path = run.path / name
        if not path.is_file():
            raise StoreError(f"{path}: is missing, and the release records it; restore it, or leave out --student")
        if hash_file(path) != recorded[name]:
            raise StoreError(f"{path}: is not what the release records: its SHA-256 differs; restore it")
    return [_plan_file(run.path, name, path, recorded[name]) for path, name in sorted(chosen.items())]


def name_student_files(recorded: Iterable[str]) -> dict[str, str]:
    """The files of a student among those that a run recorded: path in the student's repository, path in the run."""
    names = {name.removeprefix(STUDENT_FOLDER): name for name in recorded if name.startswith(STUDENT_FOLDER)}
    return {
        path: name
        for path, name in names.items()
        if path in STUDENT_FILES or (path.endswith(STUDENT_ENDINGS) and "/" not in path)
    }


def check_contents(
    plan: PublicationPlan, *, allow_personal_data: bool, progress: Callable[[str], None], stopped: Callable[[], None]
) -> list[FoundContent]:
    """Search all files for secrets and personal data. Returns the personal data that was allowed.

    Raises:
        GateNotMet: naming each place, never the value.
        UsageError: if a package of the search is missing.
    """
    _check_scan_requirements()
    allowed = plan.release.manifest.run.dataset.publisher or ""
    scan = ContentScan([allowed, json.dumps(allowed)[1:-1]], stopped)

    def search_all() -> Iterator[FoundContent]:
        for repo in plan.repos:
            for file in repo.files:
                if file.path not in UNSEARCHED_FILES:
                    progress(f"search for secrets and personal data in {file.path}")
                    yield from scan.search(file.source, f"{repo.repo}: {file.path}")

    found = list(islice(search_all(), MOST_FOUND))
    refused = [content for content in found if content.is_secret or not allow_personal_data]
    if refused:
        more = [f"and maybe more: the search ended after {MOST_FOUND}"] if len(found) >= MOST_FOUND else []
        advice = 'remove them: filter the recipe\'s samples with `[[filters]] type = "pii"` and release again' + (
            "" if any(content.is_secret for content in refused) else ", or look at each and add --allow-personal-data"
        )
        raise GateNotMet("\n  ".join([f"{plan.release.name} is not published:", *map(str, refused), *more, advice]))
    return found


def describe_plan(plan: PublicationPlan) -> list[Mapping[str, object]]:
    """The JSON form of what would be sent."""
    return [
        {
            "repo": repo.repo,
            "kind": repo.kind,
            "private": not plan.public,
            "bytes": repo.size,
            "files": [{"path": file.path, "bytes": file.size, "sha256": file.sha256} for file in repo.files],
        }
        for repo in plan.repos
    ]
