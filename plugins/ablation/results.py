"""The records of an ablation: what was declared, what each arm's student did, what each step bought; and their text. Measures
nothing.
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from core.intervals import IntervalEstimate
from flows.terminal.text_format import format_count, format_duration, format_percent, format_table
from plugins.ablation.arms import ARMS
from plugins.ablation.statistics import describe_gain


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Declaration(_Record):
    """What is compared, written before any student is trained."""

    run: str
    digest: str
    """Of the run's recipe and prompts."""
    arms: str
    """Their letters."""
    sizes: list[str]
    """Rows: `equal` (as many as the smallest arm has), `all` (as many as each arm has), or a number."""
    seeds: int
    requests: int
    panel: int
    """Tasks of the general panel."""
    held_out_checks: list[str]
    """Checks that judge and that no arm's selection used."""
    detectable: float
    """The difference of pass rates that these requests show in 80 % of all cases."""
    student: dict[str, object]
    """The settings of every training."""


class AnsweredRequests(_Record):
    """What one model answered, request by request."""

    passed: list[bool]
    """All checks of the recipe."""
    by_check: dict[str, list[bool]]
    """Each check that asks no model, alone; with those of `held_out_checks`."""
    panel: list[bool]
    words: list[int]
    """Of the answers."""
    rows: int = 0
    teacher_tokens: int = 0
    """Paid for the rows. Like `rows`, not stored: arms with equal rows share a training, and paid differently."""
    seconds: float = 0.0
    """Of the training."""
    held_out_loss: float | None = None
    """Of the student, in nats per assistant token; None for a model that was not trained."""


class ArmSummary(_Record):
    """An arm at one number of rows, over its seeds."""

    arm: str
    size: str
    rows: int
    seeds: int
    passed: IntervalEstimate
    by_check: dict[str, float]
    held_out: float | None
    """The share that passes all held-out checks; None without any."""
    panel: float | None
    words: float
    """The median of all answers."""
    teacher_tokens: int
    seconds: float
    """Of training a student, the mean over seeds."""

    @property
    def name(self) -> str:
        return ARMS[self.arm].name if self.arm in ARMS else "bare teacher"


class StepGain(_Record):
    """What a step bought: the arm with it minus the arm without it, on the same requests."""

    step: str
    size: str
    arm: str
    other: str
    gain: IntervalEstimate
    by_check: dict[str, float]
    held_out: IntervalEstimate | None
    panel: IntervalEstimate | None
    same_rows: bool
    """Whether both arms have the same rows, so that there is nothing to compare."""


class Ablation(_Record):
    """The result of `stillhouse ablate`."""

    declared: Declaration
    departures: list[str]
    """What was measured otherwise than declared."""
    arms: list[ArmSummary]
    steps: list[StepGain]
    notes: list[str]
    complete: bool
    """Whether every declared arm was measured."""

    @property
    def sizes(self) -> list[str]:
        """Of the arms that were trained; one empty size if none was."""
        return list(dict.fromkeys(one.size for one in self.arms if one.size)) or [""]

    @property
    def prompted(self) -> ArmSummary | None:
        return next((one for one in self.arms if one.arm == "h"), None)

    def list_arms(self, size: str) -> list[ArmSummary]:
        """The arms at one number of rows, and those that are not trained."""
        return [one for one in self.arms if one.size in (size, "")]


def format_points(gain: IntervalEstimate) -> str:
    return f"{gain.format(lambda value: f'{100 * value:+.0f}')} points"


def describe_step(gain: StepGain) -> str:
    """What a step bought, in a sentence without a full stop."""
    if gain.same_rows:
        return f"{gain.step}: changed none of these rows, so there is nothing to compare"
    sentence = f"{gain.step}: {describe_gain(gain.gain, format_points)}"
    if gain.held_out:
        sentence += f"; by held-out checks {format_points(gain.held_out)}"
    if gain.panel and gain.panel.high < 0:
        sentence += f"; general panel {format_points(gain.panel)}"
    return sentence


def describe_size(size: str, arms: Sequence[ArmSummary]) -> str:
    """The heading of a table."""
    if size == "all":
        return "each arm with all of its rows"
    rows = sorted({one.rows for one in arms if one.rows and one.arm != "g"})
    if not rows:
        return "no training"
    return f"{'' if len(rows) == 1 else 'at most '}{rows[-1]:,} rows in each arm"


def format_declaration(declared: Declaration, counts: dict[str, int], equal: int, seconds: float | None) -> str:
    """What `--dry-run` prints, and every run before it begins."""
    checks = "the recipe's checks" + "".join(f", held out: {name}" for name in declared.held_out_checks)
    panel = f", {declared.panel} tasks of the general panel" if declared.panel else ""
    sizes = [f"{equal} (the smallest arm)" if size == "equal" else size for size in declared.sizes]
    trainings = f"; {format_count(declared.seeds, 'training seed')}" if counts else ""
    lines = [
        f"ablation of {declared.run}",
        f"  requests  {declared.requests}, the same for every arm{trainings}",
        f"            show differences from about {100 * declared.detectable:.0f} points on (5 %, power 80 %)",
        f"  judges    {checks}{panel}",
        *([f"  rows      {', '.join(sizes)}"] if counts else []),
    ]
    lines += [
        f"  {letter}  {ARMS[letter].name}{f', {counts[letter]:,} rows' if letter in counts else ''}: {ARMS[letter].about}"
        for letter in declared.arms
    ]
    if seconds:
        lines.append(
            f"  time      about {format_duration(seconds)} of training on a machine like the run's, and the answers"
        )
    return "\n".join(lines)


def format_ablation(found: Ablation) -> str:
    """The output of `stillhouse ablate`."""
    lines = [f"ablation of {found.declared.run}{'' if found.complete else ', not complete'}"]
    for size in found.sizes:
        arms = found.list_arms(size)
        checks = list(dict.fromkeys(name for one in arms for name in one.by_check))
        heads = ("arm", "", "rows", "passed", *checks, "panel", "words", "teacher tokens", "training")
        table = [heads]
        for one in arms:
            table.append((
                one.arm, one.name,
                f"{one.rows:,}" if one.rows else "", one.passed.format(format_percent),
                *(format_percent(one.by_check[name]) if name in one.by_check else "" for name in checks),
                "" if one.panel is None else format_percent(one.panel), f"{one.words:.0f}",
                f"{one.teacher_tokens:,}" if one.teacher_tokens else "", format_duration(one.seconds) if one.seconds else "",
            ))  # fmt: skip
        lines += [f"  {describe_size(size, arms)}", *format_table(table)]
        lines += [f"  {describe_step(step)}" for step in found.steps if step.size == size]
    lines += [f"  departs from the declaration: {one}" for one in found.departures]
    lines += [f"  {note}" for note in found.notes]
    return "\n".join(lines)
