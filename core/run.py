"""The run directory: where everything of one run is, who may write it, and the manifest whose counts add up.

Knows nothing of how samples are made or trained on.
"""

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from core.errors import RunExists, StoreError, UsageError
from core.recipe import Parent, Recipe, differences, identity_of, recipe_digest
from core.sample import Spent, Usage
from core.store import file_hash, held, read_json, write_json

RUNS = os.environ.get("STILLHOUSE_RUNS") or "data/runs"
"""Where this machine keeps runs, unless it is told otherwise; releases and students lie beside it."""

FREE_BYTES = 500 * 2**20
"""A run does not start on a disk with less than this: the default recipe's student takes about 200 MB while it is
written, and answers that were paid for must find room."""

RECORDED_VERSIONS = (
    "stillhouse",
    "langgraph",
    "prefect",
    "pydantic",
    "polars",
    "datasketch",
    "torch",
    "transformers",
    "xllamacpp",
)


class RunState(StrEnum):
    running = "running"
    done = "done"
    partial = "partial"
    """Ended in order, with less than was asked for; `shortfalls` say what is missing."""
    interrupted = "interrupted"
    failed = "failed"


class Counts(BaseModel):
    """How many samples there are and where they ended; the parts always add up to the whole."""

    model_config = ConfigDict(frozen=True)

    candidates: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        if self.kept + self.dropped + self.failed != self.candidates:
            raise ValueError(
                f"{self.kept} kept + {self.dropped} dropped + {self.failed} failed are not {self.candidates}"
            )
        return self


class MetricRecord(BaseModel):
    """One collapse metric: of the kept samples, of the reference at equal size, and where real text itself varies."""

    name: str
    candidate: float
    reference: float
    low: float
    high: float
    meaning: str
    family: str | None = None
    """Of those that gate: TAIL, REPEAT, FIDELITY or COVERAGE; the others are shown only."""
    z: float | None = None
    """Standard deviations of real text against real text, positive for the worse; of those that gate."""


class CollapseVerdict(StrEnum):
    collapse = "collapse"
    """Poorer than the reference: in rare words, by repetition, or by likely text only."""
    under_powered = "under-powered"
    """Nothing was found, with too few documents to find it: never a pass."""
    shift = "shift"
    """About other things, or otherwise unlike the reference; whether it is also poorer cannot be told from that."""
    passed = "pass"


class PhraseRecord(BaseModel):
    """How documents begin."""

    text: str
    candidate: float
    """Share of the compared documents that begin so."""
    reference: float
    """The same of real text."""


class CollapseRecord(BaseModel):
    """Metrics of the kept samples beside a real reference at the same number of tokens."""

    verdict: CollapseVerdict = CollapseVerdict.under_powered
    evidence: list[str] = []
    """What speaks for the verdict, a sentence each, the strongest first."""
    reference: str
    documents: int
    tokens: int
    """To which both sides were cut before they were compared."""
    tail: float | None = None
    """Loss of rare words, in deviations of real text. Its rise over generations is what tells replacing from accumulating."""
    metrics: list[MetricRecord]
    openers: list[PhraseRecord] = []
    """The most frequent first three words."""
    templates: list[PhraseRecord] = []
    """The most frequent beginnings as common words and gaps."""
    note: str
    """What these numbers can and cannot say at this size."""


class SimilarityBin(BaseModel):
    """Compared pairs of a similarity from `low` to under `high`."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float
    dropped: int
    """At the threshold or over it."""
    stayed: int
    """Under it. Only of pairs that were compared exactly: there may be more."""


class Similarities(BaseModel):
    """The pairs that one filter compared, by fiftieths of similarity; those without a pair are left out."""

    model_config = ConfigDict(frozen=True)

    threshold: float
    bins: tuple[SimilarityBin, ...]


class MixRecord(BaseModel):
    """What the dataset is made of, in rows."""

    policy: str
    parent: str | None = None
    """The release that the run builds on."""
    own: int
    earlier: dict[str, int] = {}
    """By release."""
    real: int = 0
    min_real_share: float = 0.0

    @property
    def rows(self) -> int:
        return self.own + sum(self.earlier.values()) + self.real

    @property
    def real_share(self) -> float:
        return self.real / self.rows if self.rows else 0.0


ADVICE: dict[CollapseVerdict, tuple[str, ...]] = {
    CollapseVerdict.collapse: (
        "train on more real text (`lineage.real`): in the benchmark a tenth did not stop the loss of rare words, three tenths "
        "slowed it",
        "keep what earlier generations were trained on instead of replacing it",
        "sample at a higher temperature without truncation, and do not filter by likelihood",
        "use more and other seeds, with quotas for what is missing; `stillhouse gaps` makes seeds for it",
    ),
    CollapseVerdict.under_powered: ("assess at least 1,000 documents; better 4,000",),
    CollapseVerdict.shift: ("compare with real text on the same topics, or with an earlier release",),
    CollapseVerdict.passed: (),
}


TRAINING_LOG = "training_log.jsonl"
"""In a student's folder: what each step of its training measured."""


class SparsityRecord(BaseModel):
    """Weights of a student that are zero."""

    zeros: float
    """Their share in the matrices of its layers, as stored."""
    loss_unpruned: float
    """Held-out loss of the start as it was before; `loss_before` of the training is after pruning."""


class StudentRecord(BaseModel):
    """What training did. Losses are mean cross-entropy in nats per assistant token on held-out samples."""

    start: str
    parameters: int
    train_samples: int
    held_out_samples: int
    steps: int
    best_step: int | None = None
    """The step whose weights were kept, where a training may stop early; None where they are those of the last."""
    loss_before: float
    loss_after: float
    kl_before: float | None = None
    """KL divergence from the teacher, in nats per assistant token on held-out samples; None where no teacher was asked."""
    kl_after: float | None = None
    sparsity: SparsityRecord | None = None
    seconds: float


class CheckRecord(BaseModel):
    """One check of the verifier, as it was used."""

    type: str
    about: str
    """What must hold, in a sentence."""
    asks: bool
    """Whether it asked a teacher."""


class FormatRecord(BaseModel):
    """One form of the dataset, as it was written."""

    name: str
    columns: list[str]
    train: int
    validation: int
    left_out: int = 0
    """Rows that this form cannot hold."""
    features: list[dict[str, Any]] = []
    """Its columns as the hub declares them, where some hold JSON that readers are to decode."""


class PairsRecord(BaseModel):
    """The preference pairs of a run; the values of `differences` add up to `train + validation`."""

    train: int
    validation: int
    prompts: int
    """Prompts that a kept sample answers."""
    paired: int
    """Those of them with a pair."""
    differences: dict[str, int]
    """Pairs by what tells the answers apart: `verifier:check`, or `critic`."""

    @property
    def total(self) -> int:
        return self.train + self.validation


class Measured(BaseModel):
    """How a judge did on answers that people had labelled. Intervals are of 95 %; what does not pass counts as judged poor."""

    file: str
    answers: int
    right: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    """Wilson's score interval (1927)."""
    sensitivity: float
    """Of the good answers, the share that it passes."""
    specificity: float
    """Of the poor ones, the share that it does not."""
    youden: float
    """Youden's J: sensitivity + specificity - 1. 0 is chance, however many labels are good."""
    youden_low: float
    youden_high: float
    inconsistent: float
    """Share of answers whose verdict hung on the order of the choices."""
    undecided: float
    """Share of answers with no clear verdict: replies that could not be read, or votes without a majority."""

    @property
    def beyond_chance(self) -> bool:
        return self.youden_low > 0


class JudgeRecord(BaseModel):
    """A judge of the verifier, and how often it is right where that was measured."""

    teacher: str
    """`provider/model`."""
    rubric: str
    min_accuracy: float
    measured: Measured | None = None


class Manifest(BaseModel):
    run: str
    digest: str
    state: RunState = RunState.running
    error: str | None = None
    started: str
    counts: Counts = Counts()
    funnel: list[tuple[str, int]] = []
    """Samples left after each step, from seeds to kept."""
    reasons: dict[str, int] = {}
    """Dropped and failed samples by `reason:detail`; the values add up to `dropped + failed`."""
    usage: Usage = Usage()
    """What the answers in these samples took, wherever they came from."""
    checks: list[CheckRecord] = []
    """Of the verifier, in their order."""
    judges: list[JudgeRecord] = []
    """Of the verifier, in their order; there before the first sample."""
    spent: Spent = Spent()
    """What was paid for them in this run: lost and repeated calls too, answers from the cache not."""
    shortfalls: list[str] = []
    """Why there is less than was asked for, a sentence each."""
    seconds: dict[str, float] = {}
    """Wall time by stage, summed over resumptions."""
    similarities: dict[str, Similarities] = {}
    """Of the pairs that filters compared, by filter."""
    collapse: CollapseRecord | None = None
    gated: bool = True
    """Whether the verdict on collapse decides about a release: `collapse.gate` of the recipe."""
    mix: MixRecord | None = None
    formats: list[FormatRecord] = []
    """Of the dataset; the first is its default."""
    pairs: PairsRecord | None = None
    """Where preference pairs were asked for."""
    student: StudentRecord | None = None
    gates: list[str] = []
    """Gates that were not met: the evidence of collapse, a sentence each."""
    files: dict[str, str] = {}
    """SHA-256 of every artifact, by path in the run directory."""
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class RunDir:
    """A run's directory. Every path below it has one owner; only `written_whole` files count as there."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.json"

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset"

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def own_file(self) -> Path:
        """The run's own rows of the dataset, before they take a form, with the side that each is on."""
        return self.path / "own.parquet"

    @property
    def pairs_file(self) -> Path:
        """Its own preference pairs, likewise."""
        return self.path / "pairs.parquet"

    def shard_file(self, index: int) -> Path:
        """Every finished sample of the shard as the agents left it."""
        return self.path / "shards" / f"{index:05d}.parquet"

    def kept_file(self, index: int) -> Path:
        """What the filters kept of the shard."""
        return self.path / "samples" / f"{index:05d}.parquet"

    def dropped_file(self, index: int) -> Path:
        """The rest of it, dropped and failed."""
        return self.path / "dropped" / f"{index:05d}.parquet"

    def shards(self) -> list[int]:
        """The shards that hold a finished sample, in order."""
        return sorted(int(file.stem) for file in (self.path / "shards").glob("*.parquet"))

    @property
    def spend_file(self) -> Path:
        """The journal of what was paid for."""
        return self.path / "wip" / "spend.jsonl"

    @property
    def cache(self) -> Path:
        """Answers that runs beside this one share."""
        return self.path.parent / ".cache"

    def ledger_file(self, index: int) -> Path:
        """The teacher's answers for a shard that is being made."""
        return self.path / "wip" / f"{index:05d}.calls.jsonl"

    def remove_ledgers(self) -> None:
        """Those of shards that were never filled, since enough was kept before."""
        for ledger in (self.path / "wip").glob("*.calls.jsonl"):
            ledger.unlink()

    @property
    def calibration_ledger(self) -> Path:
        """The judges' answers about labelled answers, until all are there."""
        return self.path / "wip" / "calibration.calls.jsonl"

    @property
    def calibration_file(self) -> Path:
        """What each judge said of each labelled answer."""
        return self.path / "calibration.jsonl"

    def read_manifest(self) -> Manifest:
        return Manifest.model_validate(read_json(self.manifest_file))

    def write_manifest(self, manifest: Manifest) -> None:
        write_json(self.manifest_file, manifest.model_dump(mode="json"))

    def read_recipe(self) -> Recipe:
        """The recipe as resolved when the run began."""
        return Recipe.model_validate(read_json(self.recipe_file)["recipe"])

    def read_folder(self) -> Path:
        """Where the recipe's relative paths start from; here, where it was made on another machine."""
        folder = Path(read_json(self.recipe_file).get("folder", ""))
        return folder if folder.is_dir() else Path.cwd()

    def read_parent(self) -> Parent | None:
        """The release that it builds on, as fixed when the run began."""
        found = read_json(self.recipe_file)["identity"].get("parent")
        return Parent.model_validate(found) if found else None

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every artifact: all finished files but the manifest itself and what is being made."""
        found = sorted(
            p for p in self.path.rglob("*") if p.is_file() and not self._is_scratch(p.relative_to(self.path))
        )
        return {str(p.relative_to(self.path)): file_hash(p) for p in found}

    @staticmethod
    def _is_scratch(path: Path) -> bool:
        return path.parts[0] in {"wip", "manifest.json", "lock"} or any(part.startswith(".") for part in path.parts)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the run for this process. Raises RunExists if another process holds it."""
        return held(self.path / "lock", f"{self.path}: another process is working on this run")


def run_name(recipe: Recipe, digest: str) -> str:
    return f"{recipe.name}-{digest[:8]}"


def open_run(
    runs: Path, recipe: Recipe, sources: Mapping[str, str], *, folder: Path, resume: bool, parent: Parent | None = None
) -> RunDir:
    """Make the directory of the run that builds on `parent`, or open it again with `resume`. The recipe's relative paths start
    from `folder`.

    Raises:
        RunExists: if it is there and `resume` is false.
        UsageError: if it is there and was made from another recipe.
        StoreError: if it cannot be made, or the disk is nearly full.
    """
    digest = recipe_digest(recipe, sources, parent)
    run = RunDir(runs / run_name(recipe, digest))
    identity = identity_of(recipe, sources, parent)
    if run.manifest_file.exists():
        if not resume:
            raise RunExists(
                f"{run.path}: this run exists; go on with --resume, draw other samples with --set seed={recipe.seed + 1}, "
                "or remove the directory"
            )
        there = read_json(run.recipe_file)["identity"]
        if unlike := differences(there, identity):
            raise UsageError(f"{run.path}: was made from another recipe: {'; '.join(map(str, unlike))}")
        return run
    _check_room(runs)
    (run.path / "wip").mkdir(parents=True, exist_ok=True)
    told = {"digest": digest, "recipe": recipe.model_dump(mode="json"), "folder": str(folder), "identity": identity}
    write_json(run.recipe_file, told)
    run.write_manifest(Manifest(run=run.name, digest=digest, started=now(), versions=versions()))
    return run


def _check_room(runs: Path) -> None:
    try:
        runs.mkdir(parents=True, exist_ok=True)
        if not os.access(runs, os.W_OK):
            raise PermissionError(13, "permission denied")
        free = shutil.disk_usage(runs).free
    except OSError as error:
        raise StoreError(f"{runs}: cannot hold a run: {error.strerror}; choose another place with --runs-dir") from None
    if free < FREE_BYTES:
        raise StoreError(
            f"{runs}: {free / 2**20:.0f} MiB are free, a run needs {FREE_BYTES / 2**20:.0f}; free some, or choose --runs-dir"
        )


def find_run(name: str, runs: Path) -> RunDir:
    """The run called `name`, a path or a name in `runs`.

    Raises:
        UsageError: naming the runs that are there.
    """
    for path in (Path(name), runs / name):
        if (path / "manifest.json").is_file():
            return RunDir(path)
    there = sorted(p.parent.name for p in runs.glob("*/manifest.json"))
    raise UsageError(f"{name}: no run of this name; {runs} has {', '.join(there) if there else 'none'}")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    found = {}
    for package in RECORDED_VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def redacted(text: str) -> str:
    """`text` without the values of environment variables that hold secrets, bearer tokens, and passwords in addresses."""
    for name, value in os.environ.items():
        if len(value) >= 6 and re.search(r"KEY|TOKEN|SECRET|PASSWORD|AUTH_STRING|CONNECTION_URL", name, re.IGNORECASE):
            text = text.replace(value, f"[{name}]")
    text = re.sub(r"(?i)(bearer\s+)\S+", r"\1[redacted]", text)
    return re.sub(r"(://[^\s/:@]*:)[^\s/@]+@", r"\1[redacted]@", text)


def summary(manifest: Manifest) -> dict[str, Any]:
    """What `--json` prints of a run."""
    keys = (
        "run", "state", "counts", "reasons", "usage", "spent", "shortfalls", "gates", "seconds", "judges", "collapse", "mix",
        "formats", "pairs", "student", "error",
    )  # fmt: skip
    return {key: value for key, value in manifest.model_dump(mode="json").items() if key in keys}
