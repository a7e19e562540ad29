"""The records in a run's manifest: what each stage reports, as frozen forms on disk. Knows no path and no file."""

from dataclasses import replace
from enum import StrEnum
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from core.config.recipe import DatasetThinking, ReleaseGate
from core.config.teacher_prices import PriceRecord
from core.intervals import IntervalEstimate
from core.runs.collapse_facts import AttributeSpread as AttributeSpread
from core.runs.collapse_facts import CollapseVerdict as CollapseVerdict
from core.runs.collapse_facts import ExampleRecord as ExampleRecord
from core.runs.collapse_facts import MetricRecord as MetricRecord
from core.runs.collapse_facts import PhraseRecord as PhraseRecord
from core.runs.collapse_facts import SamenessRecord as SamenessRecord
from core.runs.collapse_facts import SpreadRecord as SpreadRecord
from core.runs.student_records import EvaluationRecord, StudentRecord
from core.runs.verdict_words import CollapseRecord as CollapseRecord
from core.sample import Spending, TokenUsage

Record = TypeVar("Record", bound=BaseModel)


class RunState(StrEnum):
    running = "running"
    done = "done"
    partial = "partial"
    """Ended in order, with less than requested; `shortfalls` state what is missing."""
    interrupted = "interrupted"
    failed = "failed"


class SampleCounts(BaseModel):
    """Samples by their final state; the parts always add up to `candidates`."""

    model_config = ConfigDict(frozen=True)

    candidates: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if self.kept + self.dropped + self.failed != self.candidates:
            raise ValueError(
                f"{self.kept} kept + {self.dropped} dropped + {self.failed} failed do not add up to {self.candidates}"
            )
        return self


class SimilarityBin(BaseModel):
    """Compared pairs with a similarity from `low` to below `high`."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float
    dropped: int
    """At or above the threshold."""
    stayed: int
    """Below the threshold. Only pairs that were compared exactly: there may be more."""


class ComparedSimilarities(BaseModel):
    """The pairs that one filter compared, in bins of 0.02 similarity; empty bins are left out."""

    model_config = ConfigDict(frozen=True)

    threshold: float
    bins: tuple[SimilarityBin, ...]


class DifficultyRecord(BaseModel):
    """The pass rates of the weaker teacher at the questions of the verified samples."""

    model_config = ConfigDict(frozen=True)

    teacher: str
    """`provider/model`."""
    attempts: int
    """Per sample."""
    wanted: tuple[float, float]
    samples: list[int]
    """Samples by passed attempts, from 0 to all."""
    kept: list[int]
    """Those that are kept, after all filters."""

    @property
    def measured(self) -> int:
        return sum(self.samples)

    @property
    def rows(self) -> list[tuple[float, int, int]]:
        """Each possible pass rate, with its samples and those that are kept."""
        return [
            (passed / self.attempts, number, kept)
            for passed, (number, kept) in enumerate(zip(self.samples, self.kept, strict=True))
        ]


class MixRecord(BaseModel):
    """Rows of the dataset by origin."""

    policy: str
    parent: str | None = None
    """The release that the run builds on."""
    own: int
    earlier: dict[str, int] = {}
    """By release."""
    real: int = 0
    min_real_share: float = 0.0
    withheld: int = 0
    """Own samples left out: a promoted teacher answered requests whose earlier rows are held out."""

    @property
    def rows(self) -> int:
        return self.own + sum(self.earlier.values()) + self.real

    @property
    def real_share(self) -> float:
        return self.real / self.rows if self.rows else 0.0


class CheckRecord(BaseModel):
    """A check of the verifier in this run."""

    type: str
    about: str
    """The condition it checks, in one sentence."""
    asks: bool
    """Whether it called a teacher."""


class FormatRecord(BaseModel):
    """A format of the dataset, as written."""

    name: str
    columns: list[str]
    train: int
    validation: int
    left_out: int = 0
    """Rows that this format cannot represent."""
    features: list[dict[str, Any]] = []
    """Columns as the hub declares them, if some contain JSON or images for readers to decode."""
    images: int = 0
    """Number of different images, in a column of their own."""


class ThinkingRecord(BaseModel):
    """The teacher's thinking before the answers of the dataset's conversations."""

    rows: int
    """Conversations of the dataset."""
    thought: int
    """Conversations with thinking."""
    mean_words: float
    """Words of thinking, over conversations with any."""
    form: DatasetThinking
    """How the dataset has it: `dataset.thinking` of the recipe."""

    @property
    def summary(self) -> str:
        forms = {
            False: "kept in the samples only",
            "tags": "in the dataset as tags",
            "field": "in the dataset as a field",
        }
        return f"{self.thought:,} of {self.rows:,} rows, {self.mean_words:.0f} words on average, {forms[self.form]}"


class PairsRecord(BaseModel):
    """The preference pairs of a run; the values of `list_differences` add up to `train + validation`."""

    train: int
    validation: int
    prompts: int
    """Prompts with a kept sample."""
    paired: int
    """Prompts with a pair."""
    differences: dict[str, int]
    """Pairs by what distinguishes the answers: `verifier:check`, or `critic`."""

    @property
    def total(self) -> int:
        return self.train + self.validation


class JudgeAccuracy(BaseModel):
    """Accuracy of a judge on human-labeled answers. Intervals are 95 %; an answer that does not pass counts as poor."""

    file: str
    answers: int
    right: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    """Wilson's score interval (1927)."""
    sensitivity: float
    """Share of good answers that it passes."""
    specificity: float
    """Share of poor answers that it does not pass."""
    youden: float
    """Youden's J: sensitivity + specificity - 1. 0 is chance, for any share of good labels."""
    youden_low: float
    youden_high: float
    inconsistent: float
    """Share of answers whose verdict depends on the order of the choices."""
    undecided: float
    """Share of answers without a clear verdict: unreadable replies, or votes without a majority."""

    @property
    def beyond_chance(self) -> bool:
        return self.youden_low > 0


class JudgeRecord(BaseModel):
    """A judge of the verifier, with its accuracy if that was measured."""

    teacher: str
    """`provider/model`."""
    rubric: str
    min_accuracy: float
    measured: JudgeAccuracy | None = None


class RunEstimate(BaseModel):
    """Totals of producing a run's samples, each with its 95 % prediction interval."""

    model_config = ConfigDict(frozen=True)

    previewed: int
    """Samples that it is computed from."""
    kept: int
    """Of these, the samples that passed all checks."""
    goal: int
    """Samples to keep; 0 if all candidates of the recipe are made."""
    candidates: IntervalEstimate
    kept_samples: IntervalEstimate
    """Samples that pass all checks, before filters."""
    calls: IntervalEstimate
    tokens: IntervalEstimate
    """Of prompts and replies."""
    prompt_tokens: IntervalEstimate
    cached_tokens: IntervalEstimate
    """Of the prompt tokens."""
    completion_tokens: IntervalEstimate
    reasoning_tokens: IntervalEstimate
    """Of the completion tokens."""
    cost: IntervalEstimate | None
    """None if a price is unknown."""
    currency: str | None
    seconds: IntervalEstimate
    """Of producing. Low: with every slot of the teachers in use, at the measured seconds per call. High: at the throughput of the
    preview."""
    agents: dict[str, TokenUsage]
    """Usage of the previewed samples by agent."""
    notes: list[str]
    """What it does not include, and which limits of the budget it exceeds, a sentence each."""

    def __repr__(self) -> str:
        """In a line: calls, tokens, cost and time."""

        def show(amount: IntervalEstimate) -> str:
            return amount.format(lambda number: f"{number:,.6g}")

        cost = f", {show(self.cost)} {self.currency}" if self.cost else ""
        return f"RunEstimate: {show(self.calls)} calls, {show(self.tokens)} tokens{cost}, {show(self.seconds)} seconds"


class RunInvocation(BaseModel):
    """The last command of a run, from which its summary suggests the next command."""

    model_config = ConfigDict(frozen=True)

    verb: Literal["run", "generate"] = "run"
    recipe: str
    """A built-in name or a path, as entered."""
    file: str | None = None
    """The absolute path of the recipe; None for a built-in one."""
    folder: str
    """The working directory of the command."""
    overrides: tuple[str, ...] = ()
    """The values of `--set`."""
    release: bool = False
    """Whether `--release` was given."""


MIN_REVIEWS = 20
"""Reviews without a fault from which a critic counts as silent: one that finds a fault in 14 % of drafts passes so many with a
probability below 5 % (0.86 ** 20)."""


class CriticRecord(BaseModel):
    """What the critic of a run found, in the reviews of the first samples."""

    reviews: int
    faulted: int
    """Reviews that name a fault."""
    by_confidence: bool = False
    """Whether it is the confidence of a promoted student in its own drafts."""

    @property
    def is_silent(self) -> bool:
        return self.reviews >= MIN_REVIEWS and not self.faulted

    @property
    def summary(self) -> str:
        if self.is_silent and self.by_confidence:
            return f"no doubt in {self.reviews:,} drafts: the promoted student is sure of itself; take a critic that is a teacher"
        if self.is_silent:
            return f"no fault in {self.reviews:,} reviews: take a more capable model, or critic = false"
        return f"faults in {self.faulted:,} of {self.reviews:,} reviews"


DRAWN_BY_SEED = "drawn by seed"
"""The generator of samples that no model wrote."""


class AgentsRecord(BaseModel):
    """The agents of a run, and what was measured of them."""

    generator: str | None = None
    """The model that wrote the samples: the recipe's own, or a promoted student; `DRAWN_BY_SEED` if none did."""
    checks: list[CheckRecord] = []
    """Of the verifier, in their order."""
    judges: list[JudgeRecord] = []
    """Of the verifier, in their order; recorded before the first sample."""
    critic: CriticRecord | None = None
    """None if no teacher, and no promoted student, reviewed a draft."""
    difficulty: DifficultyRecord | None = None
    """None if the recipe measures none."""
    missing_thinking: list[str] = []
    """Agents with `reasoning` that got no thinking in any reply, a sentence each."""


class CostsRecord(BaseModel):
    """What a run paid for. Replies from the reply cache cost nothing."""

    spent: Spending = Spending()
    """On production, lost and repeated calls included."""
    evaluation_spent: Spending = Spending()
    """On the student's evaluation, interrupted ones included."""
    prices: dict[str, PriceRecord] = {}
    """The prices in use, by teacher. A resumed run keeps those that are from a table."""
    estimate: RunEstimate | None = None
    """The estimate of the last preview of this recipe on this machine, if there was one before the run."""

    @property
    def currency(self) -> str | None:
        """The currency of all prices, if it is known and one."""
        currencies = {record.currency for record in self.prices.values()}
        return currencies.pop() if len(currencies) == 1 else None

    @property
    def paid(self) -> Spending:
        """All spending of the run; its seconds are those of production."""
        return replace(self.spent + self.evaluation_spent, seconds=self.spent.seconds)


class DatasetRecord(BaseModel):
    """The dataset of a run."""

    mix: MixRecord | None = None
    formats: list[FormatRecord] = []
    """The first is the default."""
    pairs: PairsRecord | None = None
    """None if the recipe asks for no preference pairs."""
    thinking: ThinkingRecord | None = None
    """None if no conversation has thinking."""
    license: str | None = None
    """`dataset.license` of the recipe."""
    publisher: str | None = None
    """`dataset.publisher` of the recipe."""


class GateRecord(BaseModel):
    """The release gate of a run: the keys of its recipe that a finished run accepts too."""

    gated: ReleaseGate = True
    """Which verdicts a release is refused on: `collapse.gate`."""
    judges_structures: bool = True
    """Whether few structures are a collapse: `collapse.structures`."""


class RunManifest(BaseModel):
    run: str
    digest: str
    state: RunState = RunState.running
    error: str | None = None
    remedy: Literal["resume", "preview"] | None = "resume"
    """What can help if the run is not done: the same command with `--resume`; or `preview`, which shows the error of a check of
    the recipe that raised on too many samples. None if nothing brings more.
    """
    invocation: RunInvocation | None = None
    """None in releases."""
    started: str
    counts: SampleCounts = SampleCounts()
    funnel: list[tuple[str, int]] = []
    """Samples left after each step, from seeds to kept."""
    reasons: dict[str, int] = {}
    """Dropped and failed samples by `reason:detail`; the values add up to `dropped + failed`."""
    usage: TokenUsage = TokenUsage()
    """Usage of the replies in these samples, cached ones included."""
    agents: AgentsRecord = AgentsRecord()
    costs: CostsRecord = CostsRecord()
    shortfalls: list[str] = []
    """Why the run has less than requested, one sentence each."""
    seconds: dict[str, float] = {}
    """Wall time by stage, summed over resumptions."""
    similarities: dict[str, ComparedSimilarities] = {}
    """Similarities of compared pairs, by filter."""
    collapse: CollapseRecord | None = None
    collapse_parent: CollapseRecord | None = None
    """Without a reference, from the second generation on: the kept samples compared with those of the earlier releases."""
    gate: GateRecord = GateRecord()
    dataset: DatasetRecord = DatasetRecord()
    student: StudentRecord | None = None
    evaluation: EvaluationRecord | None = None
    """None if the recipe asks for none (`student.evaluation`)."""
    plugins: dict[str, dict[str, Any]] = {}
    """The records of plugins, by plugin: as stored, since a plugin may not be installed where a run is read."""
    files: dict[str, str] = {}
    """SHA-256 of every artifact, by path in the run directory."""
    versions: dict[str, str] = {}

    def get(self, plugin: str, record: type[Record]) -> Record | None:
        """The record of a plugin; None if there is none."""
        return record.model_validate(self.plugins[plugin]) if plugin in self.plugins else None

    def put(self, plugin: str, record: BaseModel | None) -> None:
        self.plugins.pop(plugin, None)
        if record is not None:
            self.plugins[plugin] = record.model_dump(mode="json")

    @property
    def gates(self) -> list[str]:
        """Release gates that were not met: the evidence of collapse, one sentence each."""
        found = self.collapse is not None and self.collapse.verdict is CollapseVerdict.collapse
        return self.collapse.evidence if self.collapse and found else []


def flatten_manifest(manifest: RunManifest) -> dict[str, Any]:
    """The manifest as JSON prints it: fields of its parts on one level."""
    fields = manifest.model_dump(mode="json")
    parts = [fields.pop(part) for part in ("agents", "costs", "dataset", "gate")]
    return {**fields, **{key: value for part in parts for key, value in part.items()}, "gates": manifest.gates}


def summarize_manifest(manifest: RunManifest) -> dict[str, Any]:
    """The fields of a run that `--json` prints."""
    keys = (
        "run", "state", "counts", "reasons", "usage", "spent", "evaluation_spent", "prices", "estimate", "shortfalls", "gates",
        "seconds", "judges", "collapse", "collapse_parent",
        "generator", "mix", "formats", "thinking", "missing_thinking", "critic", "pairs", "student",
        "difficulty", "evaluation", "error", "plugins",
    )  # fmt: skip
    return {key: value for key, value in flatten_manifest(manifest).items() if key in keys}
