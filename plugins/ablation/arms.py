"""The arms of an ablation: which rows of a run's candidates a student learns from. Trains nothing and asks nobody."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from random import Random
from typing import NamedTuple

from agents.planning.run_plan import RunPlan
from core.errors import UsageError
from core.sample import Message, RejectionReason, Sample, SampleStatus, remove_thinking
from flows.data.preference_pairs import find_preference_pairs, list_refused_answers, rebuild_candidate

AGENT_REASONS = {
    RejectionReason.provider, RejectionReason.contract, RejectionReason.critic, RejectionReason.verifier,
    RejectionReason.difficulty,
}  # fmt: skip
"""Why agents drop a sample. Every other reason comes from filters, goals or a person."""


class Arm(NamedTuple):
    letter: str
    name: str
    about: str
    trains: bool = True


ARMS: Mapping[str, Arm] = {
    arm.letter: arm
    for arm in (
        Arm("a", "all candidates", "every candidate that could be parsed, whatever its verdicts"),
        Arm("b", "checks", "candidates that pass the checks that ask no model"),
        Arm("c", "critic", "of those, the ones that pass the critic and the checks that ask a model"),
        Arm("d", "dataset", "of those, the ones that the filters keep: what the run releases"),
        Arm("e", "placebo", "as many random candidates as the dataset has rows: verdicts shuffled"),
        Arm("f", "first drafts", "the samples of the dataset in their first draft: what revision changed"),
        Arm("g", "equal cost", "unverified first drafts for the teacher tokens of the dataset's rows, if the run has them"),
        Arm("h", "prompted teacher", "no training: the teacher with the prompt and the examples of the run", trains=False),
        Arm("i", "start", "no training: the student before it", trains=False),
        Arm("j", "refused pairs", "the dataset, with the refused first drafts of its revised rows by dpo"),
        Arm("k", "kept and refused", "the dataset, and all drafts that a check refused on the way to its rows, by kto"),
        Arm("l", "shuffled verdicts", "the same answers with their verdicts shuffled"),
    )
}  # fmt: skip
DEFAULT_ARMS = "a,b,c,d,e,f,g,h,i"
"""The arms that measure the steps."""
EQUAL_ARMS = "abcdefjkl"
"""Arms with equally many rows."""
ADDED_OBJECTIVES = {"j": {"dpo": 0.5}, "k": {"kto": 1.0}, "l": {"kto": 1.0}}
"""For arms that learn from refused drafts too, added to the run's: both terms of a step have gradients of about the same size."""
STEPS = (
    ("checks", "b", "a"),
    ("critic", "c", "b"),
    ("filters", "d", "c"),
    ("revision", "d", "f"),
    ("verification as a whole", "d", "a"),
    ("verification against a placebo", "d", "e"),
    ("verification against equal cost", "d", "g"),
    ("training on the dataset", "d", "i"),
    ("the dataset against the prompted teacher", "d", "h"),
    ("refused first drafts by dpo", "j", "d"),
    ("refused drafts by kto", "k", "d"),
    ("verdicts against shuffled ones", "k", "l"),
    ("kept and refused against the prompted teacher", "k", "h"),
)
"""What is compared: a step, the arm with it and the arm without it."""


def parse_arms(letters: str) -> list[Arm]:
    """Arms from letters separated by commas, in their order. Raises UsageError for an unknown letter."""
    wanted = [letter.strip().lower() for letter in letters.split(",") if letter.strip()]
    if unknown := [letter for letter in wanted if letter not in ARMS]:
        known = ", ".join(f"{arm.letter} ({arm.name})" for arm in ARMS.values())
        raise UsageError(f"--arms: unknown arm {unknown[0]!r}; known are {known}")
    if not wanted:
        raise UsageError("--arms: names no arm; name some, as in a,d,e")
    return [arm for letter, arm in ARMS.items() if letter in wanted]


class CandidateRow(NamedTuple):
    """A sample of the run as training rows."""

    id: str
    last: list[Message] | None
    """Its conversation as the run ended it; None if no draft could be parsed."""
    first: list[Message] | None
    """Its first draft, None if that could not be parsed."""
    passes_checks: bool
    passes_critic: bool
    kept: bool
    tokens: int
    """Of all calls for the sample: prompts and replies."""
    draft_tokens: int
    """Of the calls for the first draft."""
    refused: list[list[Message]]
    """Its drafts that failed a check."""
    rejected: list[Message] | None
    """The first draft of a kept sample, if a check refused it and both make a preference pair."""


def read_candidates(samples: Iterable[Sample], plan: RunPlan, held_out: Collection[str]) -> list[CandidateRow]:
    """The finished samples of a run, without those `held_out` from training, by id.

    Raises:
        UsageError: if the samples have no turns, so that no first draft can be read.
    """
    found = [one for one in samples if one.id not in held_out]
    rows = [_read_candidate(one, plan) for one in found]
    if rows and plan.asks_generator and not any(turn.agent == "generator" for one in found for turn in one.turns):
        raise UsageError("the run recorded no replies of its generator, so there are no first drafts; make a new run")
    return sorted(rows, key=lambda row: row.id)


def _read_candidate(sample: Sample, plan: RunPlan) -> CandidateRow:
    family, recipe = plan.family, plan.recipe
    asking = {bound.check.name for bound in plan.asking_checks}
    thinking = recipe.dataset.thinking is not None
    judged = sample.state is not SampleStatus.failed
    faults = {one.check for one in sample.verdicts if one.revision == sample.revisions and not one.passed}
    passes_checks = judged and not faults - asking
    revised = sample.revisions > 0
    first = rebuild_candidate(sample, family, 0) if revised else sample.candidate

    def read(messages: Sequence[Message]) -> list[Message] | None:
        return (list(messages) if thinking else remove_thinking(messages)) or None

    every = recipe.preference.model_copy(update={"pairs_per_prompt": sample.revisions + 1})
    pairs = find_preference_pairs([sample], family, recipe.model_copy(update={"preference": every})).pairs
    worse = [pair.rejected for pair in pairs if pair.rejected.faults and pair.rejected.id == f"{sample.id}/0"]
    drafting = [turn.usage for turn in sample.turns if turn.agent == "generator" and turn.revision == 0]
    return CandidateRow(
        id=sample.id,
        last=read(sample.candidate.messages),
        first=read(first.messages) if first else None,
        passes_checks=passes_checks,
        passes_critic=passes_checks and sample.reason not in AGENT_REASONS,
        kept=sample.state is SampleStatus.kept,
        tokens=sample.usage.prompt_tokens + sample.usage.completion_tokens,
        draft_tokens=sum(usage.prompt_tokens + usage.completion_tokens for usage in drafting),
        refused=list_refused_answers(sample, family, thinking=thinking),
        rejected=read([*worse[0].prompt, *worse[0].response]) if worse else None,
    )


class ArmRows(NamedTuple):
    """The rows of an arm, and what the teacher was paid for them."""

    ids: list[str]
    rows: list[list[Message]]
    tokens: int
    rejected: Sequence[list[Message] | None] = ()
    judged: Sequence[tuple[list[Message], bool]] = ()


class CandidatePool:
    """The candidates of a run, from which each arm draws."""

    def __init__(self, candidates: Sequence[CandidateRow]) -> None:
        self._candidates = candidates
        self.tokens = sum(one.tokens for one in candidates)
        self._members: dict[str, list[CandidateRow]] = {
            "a": [one for one in candidates if one.last],
            "b": [one for one in candidates if one.last and one.passes_checks],
            "c": [one for one in candidates if one.last and one.passes_critic],
            "d": [one for one in candidates if one.last and one.kept],
            "f": [one for one in candidates if one.first and one.kept],
            "g": [one for one in candidates if one.first],
        }
        self._members |= {"e": self._members["a"], **dict.fromkeys(ADDED_OBJECTIVES, self._members["d"])}

    def count(self, letter: str) -> int:
        """The most rows of an arm. A placebo has as many as the dataset."""
        return min(len(self._members["d"]), len(self._members["a"])) if letter == "e" else len(self._members[letter])

    def find_equal_number(self, letters: Iterable[str]) -> int:
        """The rows of the smallest arm among those that are compared at equal numbers."""
        return min((self.count(letter) for letter in letters if letter in EQUAL_ARMS), default=self.count("d"))

    def draw(self, letter: str, number: int, seed: int) -> ArmRows:
        """`number` rows of an arm, drawn with `seed`, at most all. Arms of one seed draw in the same order of samples, so they
        differ only where a step differs. The placebo draws in an order of its own.
        """
        order = sorted(one.id for one in self._candidates)
        Random(f"{seed}/placebo" if letter == "e" else str(seed)).shuffle(order)
        place = {name: i for i, name in enumerate(order)}
        chosen = sorted(self._members[letter], key=lambda one: place[one.id])[: min(number, self.count(letter))]
        drawn = ArmRows(
            [one.id for one in chosen],
            [(one.first if letter in "fg" else one.last) or [] for one in chosen],
            self._count_tokens(letter, chosen),
        )
        if letter == "j":
            return drawn._replace(rejected=[one.rejected for one in chosen])
        if letter not in ADDED_OBJECTIVES:
            return drawn
        last = max((place[name] for name in drawn.ids), default=-1)
        passed = sorted((one for one in self._candidates if place[one.id] <= last), key=lambda one: place[one.id])
        answers = [*drawn.rows, *(refused for one in passed for refused in one.refused)]
        verdicts = [index < len(drawn.rows) for index in range(len(answers))]
        if letter == "l":
            Random(f"{seed}/verdicts").shuffle(verdicts)
        return drawn._replace(judged=list(zip(answers, verdicts, strict=True)))

    def _count_tokens(self, letter: str, chosen: Sequence[CandidateRow]) -> int:
        """What these rows cost: the same share of all calls as of the arm's rows, since refused samples are paid for too. Those
        of g cost first drafts alone, with the drafts that could not be parsed.
        """
        if letter == "g":
            return round(self._draft_cost * len(chosen))
        members = self._members["a" if letter == "e" else letter]
        return round(self.tokens * len(chosen) / max(1, len(members)))

    @property
    def _draft_cost(self) -> float:
        """The tokens of a first draft that could be parsed."""
        return sum(one.draft_tokens for one in self._candidates) / max(1, len(self._members["g"]))

    def count_equal_cost(self, rows: int) -> int:
        """The first drafts that the tokens of `rows` rows of the dataset would have bought."""
        drafts = round(self.tokens * rows / max(1, self.count("d")) / max(1.0, self._draft_cost))
        return min(self.count("g"), drafts)
