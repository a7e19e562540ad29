"""What an improvement found, and its text. Measures nothing."""

from collections.abc import Sequence
from statistics import fmean
from typing import Self

from core.intervals import TAIL, IntervalEstimate, estimate_paired_difference, estimate_share, estimate_small_mean
from core.sample import NOTHING_SPENT, FrozenModel, Spending
from flows.terminal.text_format import format_money, format_table
from plugins.improve.diversity import MEASURES, DiversityComparison, JudgedText, compare_diversity
from plugins.improve.measurement import MeasuredDraft, count_tokens, measure_rate
from plugins.improve.prompt_parts import PromptCandidate
from plugins.improve.search_names import SearchName
from plugins.improve.searches import ScoredCandidate


class SearchDeclaration(FrozenModel):
    """What is searched and compared."""

    recipe: str
    digest: str
    search: SearchName
    teacher: str
    """The reflecting one, of `gepa`."""
    floor: bool
    examples: int
    """Seeds whose passing drafts become examples; `gepa` changes no examples."""
    train: int
    held_out: int
    calls: int
    """The most first drafts of the search, those of the examples' seeds included."""

    @property
    def fewest_calls(self) -> int:
        return self.examples + 2 * self.train

    def describe(self) -> str:
        floor = "" if self.floor else ", without the floor of diversity"
        reflects = f" by the teacher {self.teacher}" if self.search == "gepa" else ""
        more = f" ({self.examples} more for examples)" if self.examples else ""
        return (
            f"{self.recipe}: search {self.search}{reflects} with {self.calls:,} first drafts on {self.train} train seeds"
            f"{more}{floor}; then start and best on {self.held_out} held-out seeds"
        )


class MeasuredSide(FrozenModel):
    """A candidate on the train seeds."""

    drafts: int
    passed: int
    rate: float
    """Verified rows per 1,000 teacher tokens."""
    diversity: dict[str, float]

    @classmethod
    def from_scored(cls, scored: ScoredCandidate, drafts: int) -> Self:
        return cls(drafts=drafts, passed=scored.passed, rate=scored.rate, diversity=scored.diversity.candidate)


class HeldOutSide(FrozenModel):
    passed: IntervalEstimate
    """The share of first drafts that pass."""
    rate: float
    tokens: float
    """Of a draft, on average."""


class HeldOutComparison(FrozenModel):
    """Start and winner on the same held-out seeds."""

    seeds: int
    number: int = 1
    """Which winner on these seeds it is: a search that resumes with more drafts may find another."""
    start: HeldOutSide
    winner: HeldOutSide
    gain: IntervalEstimate
    """Of verified rows per 1,000 teacher tokens. Each winner after the first halves the tails of its 95 % interval, so that all
    together are accepted by chance in less than 5 % of cases."""
    passed_gain: IntervalEstimate
    """Of the share that passes."""
    diversity: DiversityComparison
    refused: str | None
    """Why the winner is under the floor of diversity."""

    @classmethod
    def from_drafts(
        cls, start: Sequence[MeasuredDraft], winner: Sequence[MeasuredDraft], labels: Sequence[dict[str, frozenset[str]]],
        *, floor: bool, number: int = 1,
    ) -> Self:  # fmt: skip
        pairs = [(one.passed, other.passed) for one, other in zip(winner, start, strict=True)]
        counts = (pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False)))
        gain, passed = estimate_rate_gain(start, winner, TAIL / 2 ** (number - 1)), estimate_paired_difference(*counts)
        assert gain is not None, "there are three seeds or more"
        assert passed is not None, "there is a seed"
        sides = (
            [JudgedText(d.answer, d.passed, label) for d, label in zip(side, labels, strict=True)]
            for side in (start, winner)
        )
        diversity = compare_diversity(*sides)
        return cls(
            seeds=len(start), number=number, start=_measure_side(start), winner=_measure_side(winner), gain=gain,
            passed_gain=passed, diversity=diversity, refused=diversity.fault if floor else None,
        )  # fmt: skip

    @property
    def accepted(self) -> bool:
        """Whether the whole interval of the gain is above 0, at enough diversity."""
        return self.gain.low > 0 and self.refused is None


def _measure_side(drafts: Sequence[MeasuredDraft]) -> HeldOutSide:
    passed = estimate_share(sum(draft.passed for draft in drafts), len(drafts))
    assert passed, "there is a draft"
    return HeldOutSide(passed=passed, rate=measure_rate(drafts), tokens=fmean(count_tokens(drafts)))


def estimate_rate_gain(
    start: Sequence[MeasuredDraft], winner: Sequence[MeasuredDraft], tail: float = TAIL
) -> IntervalEstimate | None:
    """The difference of two ratios of sums over the same seeds, with the interval of their linearization: the influence of a seed
    on a ratio R of passed to tokens is (passed - R tokens) / mean tokens (Cochran 1977, Sampling Techniques, section 6.3). The
    seeds' differences of influences have Student's interval. If no pair of drafts differs in passing, the interval counts two
    more that do, one each way (compare Agresti and Min 2005, Statistics in Medicine 24): else tokens alone would decide.
    """
    columns = []
    for drafts in (winner, start):
        tokens = count_tokens(drafts)
        if not sum(tokens):
            return None
        rate, mean = sum(draft.passed for draft in drafts) / sum(tokens), fmean(tokens)
        columns.append([rate + (d.passed - rate * t) / mean for d, t in zip(drafts, tokens, strict=True)])
    gains = [1000 * (left - right) for left, right in zip(*columns, strict=True)]
    if [draft.passed for draft in start] == [draft.passed for draft in winner]:
        reach = 1000 / fmean(count_tokens(start))
        gains += [fmean(gains) + reach, fmean(gains) - reach]
    return estimate_small_mean(gains, tail)


class Proposal(FrozenModel):
    """A part of the prompt as the reflecting teacher rewrote it."""

    part: str
    text: str
    refused: str | None
    """Why it cannot be used."""
    rate: float | None = None
    """Verified rows per 1,000 tokens of the drafts that a reflection had read, asked again with this text."""
    rate_before: float | None = None
    """Of these drafts as the reflection read them."""


class Improvement(FrozenModel):
    """The result of `stillhouse improve`."""

    declared: SearchDeclaration
    complete: bool = False
    calls: int = 0
    """First drafts that the search used."""
    candidates: int = 0
    """Measured on all train seeds, the start included."""
    refused: int = 0
    """Of these: under the floor of diversity."""
    start: MeasuredSide | None = None
    winner: MeasuredSide | None = None
    """The best on the train seeds, which may be the start."""
    changes: tuple[str, ...] = ()
    """How the winner differs from the start."""
    candidate: PromptCandidate | None = None
    held_out: HeldOutComparison | None = None
    proposals: tuple[Proposal, ...] = ()
    spent: Spending = NOTHING_SPENT

    @property
    def verdict(self) -> str:
        held = self.held_out
        if held is None:
            none = "no candidate is better than the start on the train seeds"
            return none if self.complete else "stopped: no verdict yet"
        gain = f"{held.gain.format(_signed)} verified rows per 1,000 tokens on {held.seeds} held-out seeds"
        if held.number > 1:
            gain += f" (winner {held.number} on them, so the tails are {TAIL / 2 ** (held.number - 1):.2%})"
        if held.refused:
            return f"refused: {gain}, but less diverse: {held.refused}"
        return f"accepted: {gain}" if held.accepted else f"not accepted: {gain}, which may be chance"


def _signed(value: float) -> str:
    """Of a rate, which may be far below 1."""
    return f"{value:+.3g}"


def _format_points(value: float) -> str:
    return f"{100 * value:+.0f}"


def _format_share(value: float) -> str:
    return f"{100 * value:.0f}"


def format_improvement(found: Improvement) -> str:
    """The table and the verdict."""
    lines = [found.declared.describe()]
    if found.start and found.winner:
        lines += format_table(list_rows(found))
        under = f", {found.refused} of them under the floor of diversity" if found.refused else ""
        scored = f"{found.candidates} candidates on all train seeds{under}"
        lines.append(f"  search    {found.calls:,} first drafts, {scored}")
        lines += [f"  winner    {change}" for change in found.changes]
    if found.proposals:
        unusable = sum(one.refused is not None for one in found.proposals)
        better = sum((one.rate or 0) > (one.rate_before or 0) for one in found.proposals)
        what = f"{unusable} unusable, {better} better on the drafts of their reflection"
        lines.append(f"  proposals {len(found.proposals)}: {what}; improve.json has them")
    spent = found.spent
    cost = f", {format_money(spent.cost)}" if spent.cost else ""
    lines.append(f"  spent     {spent.calls:,} calls, {spent.tokens:,} tokens{cost}")
    return "\n".join([*lines, found.verdict])


def list_rows(found: Improvement) -> list[list[str]]:
    assert found.start is not None, "the start was measured"
    assert found.winner is not None, "the start may win"
    rows = [["", "start", "winner", "difference"]]
    sides, held = (found.start, found.winner), found.held_out
    rows.append(["train: first drafts that pass", *(f"{one.passed} of {one.drafts}" for one in sides), ""])
    rows.append(["train: verified rows per 1,000 tokens", *(f"{one.rate:.3g}" for one in sides), ""])
    if held is None:
        return rows
    both = (held.start, held.winner)
    share = [one.passed.format(_format_share) + " %" for one in both]
    rows.append(["held-out: first drafts that pass", *share, held.passed_gain.format(_format_points) + " points"])
    rates = [f"{one.rate:.3g}" for one in both]
    rows.append(["held-out: verified rows per 1,000 tokens", *rates, held.gain.format(_signed)])
    rows.append(["held-out: tokens of a draft", *(f"{one.tokens:.0f}" for one in both), ""])
    compared = held.diversity
    for name, ratio in compared.ratios.items():
        values = [f"{side[name]:.2f}" for side in (compared.start, compared.candidate)]
        rows.append([f"{MEASURES[name]}, of {compared.drafts}", *values, ratio.format(_format_share) + " %"])
    return rows
