"""What the tools of the MCP server return: structured records, each with a short text for a client that reads text."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from core.runs.collapse_facts import MetricRecord
from core.runs.records import RunEstimate, SampleCounts
from core.sample import Message, Verdict


class ToolReport(BaseModel):
    """The result of a tool."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    text: str
    """The result in a few lines."""
    next: str = ""
    """What to do next."""


class ProblemLine(BaseModel):
    """A problem of a recipe."""

    where: str
    """The dotted path of the key; empty for a problem of the whole."""
    what: str


class ValidationReport(ToolReport):
    valid: bool
    problems: list[ProblemLine] = []
    """All problems at once."""
    notes: list[str] = []
    recipe: dict[str, Any] | None = None
    """Every key with its value, defaults included."""


class SampleLine(BaseModel):
    """One sample of a run."""

    id: str
    state: str
    """`kept`, `dropped` (judged and rejected) or `failed` (could not be judged)."""
    reason: str = ""
    """Why it is not kept: check, rubric, filter or fault."""


class ShownSample(SampleLine):
    messages: list[Message]
    """The conversation; empty if no reply could be parsed."""
    verdicts: list[Verdict]
    """Of the checks, with their evidence, revision by revision."""
    faults: list[str]
    """What a critic found."""


class PreviewReport(ToolReport):
    samples: list[ShownSample]
    kept: int
    estimate: RunEstimate
    """What a run takes, with 95 % ranges."""


class SpendingLine(BaseModel):
    """Spending on teachers."""

    requests: int
    tokens: int
    cost: float
    """In the currency of the teachers' prices; 0 for models on this machine."""


class BudgetLine(BaseModel):
    """The limits of this server for all its previews and runs together, and what they have spent."""

    max_requests: int | None
    max_usd: float | None
    spent: SpendingLine


class StartedRun(ToolReport):
    run: str
    """The run's name, for `status`, `cancel`, `show` and `release`."""
    folder: str
    max_requests: int | None
    """The limit of this run, all its sessions together."""
    max_cost: float | None


class RunLine(BaseModel):
    """One run."""

    run: str
    state: str
    kept: int
    started: str


class RunReport(RunLine):
    """How a run is doing, or how it ended."""

    progress: str = ""
    """The last message of a run in progress."""
    error: str = ""
    """Why it ended, in a sentence."""
    counts: SampleCounts
    acceptance: float | None
    """The share of candidates that are kept."""
    reasons: dict[str, int]
    """Dropped and failed samples by reason."""
    shortfalls: list[str]
    """What is missing of what was asked for, a sentence each."""
    verdict: str = ""
    """On collapse: `pass`, `inconclusive`, `shift` or `collapse`, and the main finding."""
    spent: SpendingLine
    dataset: str = ""
    """The folder of the dataset, once it is written."""
    student: str = ""
    page: str = ""
    """The report, as HTML."""


class StatusReport(ToolReport):
    runs: list[RunLine] = []
    """All runs, the newest first, if no run was named."""
    run: RunReport | None = None
    budget: BudgetLine | None = None
    """None on a read-only server."""


class SamplesReport(ToolReport):
    samples: list[SampleLine] = []
    sample: ShownSample | None = None


class FilteringReport(ToolReport):
    rows: int
    kept: int
    dropped: int
    unreadable: int
    reasons: dict[str, int]
    kept_file: str
    folder: str


class AssessmentReport(ToolReport):
    verdict: str
    headline: str
    paragraph: str
    advice: list[str]
    gates: list[str]
    """The evidence of collapse, a sentence each: a release is refused on it."""
    metrics: list[MetricRecord]


class ReleaseReport(ToolReport):
    release: str
    """RECIPE/GENERATION."""
    folder: str
    digest: str
    verdict: str
    rows: int
    already_released: bool
