"""What a run lacks at the end, a sentence for each cause."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from core.config.recipe import Recipe
from core.sample import CHECK_BROKE, RejectionReason
from flows.clean.run_curation import CurationResult
from flows.terminal.text_format import format_count

THE_STUDENT = "the student "
"""The beginning of every shortfall of the student."""
UNEVALUATED_STUDENT = f"{THE_STUDENT}is not evaluated"
"""The beginning of a shortfall that a resumed run can make up for."""
UNANSWERED, UNMET_GOAL = "got no answer from a teacher", "are kept of"
EMPTY_FORM, NO_THINKING = "can hold none of the kept samples", "and no reply had thinking"
UNJUDGED, NONE_KEPT = "could not be judged", "is kept; `stillhouse show` prints the reasons"
MAKES_MORE = "`run --resume` makes more"
"""In a shortfall that a person's decisions made, while the recipe allows more candidates."""


class RunShortfalls(NamedTuple):
    """The missing samples at the end of production, a sentence for each cause."""

    resumable: list[str]
    """Causes that a resumed run can remove."""
    lost: list[str]

    @property
    def sentences(self) -> list[str]:
        return [*self.resumable, *self.lost]


def count_unmet_goals(recipe: Recipe, curated: CurationResult) -> dict[str, int]:
    """The number of kept samples of each group below its goal."""
    kept = {name: curated.groups[name].kept if name in curated.groups else 0 for name in recipe.goals}
    return {name: count for name, count in kept.items() if count < recipe.goals[name]}


def describe_shortfalls(recipe: Recipe, curated: CurationResult, *, complete: bool) -> list[str]:
    """The shortfalls after filtering, a sentence each."""
    if recipe.goals and not count_unmet_goals(recipe, curated):
        return []
    lost = curated.reasons.get(RejectionReason.provider, 0)
    return [
        *([f"{format_count(lost, 'sample')} {UNANSWERED}; --resume asks again"] if lost else []),
        *(_describe_unmet_goals(recipe, curated, f", and samples = {recipe.samples} is the most") if complete else []),
    ]


def _describe_unmet_goals(recipe: Recipe, curated: CurationResult, why: str) -> list[str]:
    return [
        f"{kept} of {recipe.goals[name]} samples{f' of {name!r}' if name else ''} {UNMET_GOAL} "
        f"{curated.counts.candidates} candidates{why}"
        for name, kept in count_unmet_goals(recipe, curated).items()
    ]


def update_shortfalls(before: Sequence[str], recipe: Recipe, curated: CurationResult) -> list[str]:
    """The shortfalls of a finished run that is curated again: `before`, with the sentences about filtering as they are now, and
    without those about the forms of its dataset, which is written again.
    """
    known = (UNANSWERED, UNMET_GOAL, UNJUDGED, NONE_KEPT, EMPTY_FORM, NO_THINKING)
    stays = [sentence for sentence in before if not any(part in sentence for part in known)]
    if curated.counts.candidates < recipe.samples:
        goals = _describe_unmet_goals(recipe, curated, f"; {MAKES_MORE}")
        shortfalls = [*describe_shortfalls(recipe, curated, complete=False), *goals]
    else:
        shortfalls = describe_shortfalls(recipe, curated, complete=True)
    return [*stays, *shortfalls, *describe_lost_samples(recipe, curated)]


def describe_lost_samples(recipe: Recipe, curated: CurationResult) -> list[str]:
    """Samples that can never be made, a sentence each. With `keep` or quotas, other samples replace them."""
    faults = Counter(
        "a check broke"
        if reason.startswith(f"{RejectionReason.contract}:{CHECK_BROKE}")
        else "a reply did not match its schema, even after repairs"
        for reason, count in curated.reasons.items()
        if reason.startswith(RejectionReason.contract)
        for _ in range(count)
    )
    lost = [f"{format_count(count, 'sample')} {UNJUDGED}: {fault}" for fault, count in faults.items()]
    lost = [] if recipe.goals else lost
    if curated.counts.candidates and not curated.counts.kept and not recipe.goals:
        lost.append(f"none of {format_count(curated.counts.candidates, 'candidate')} {NONE_KEPT}")
    return lost
