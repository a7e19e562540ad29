"""Preference pairs: two answers to one prompt, and what tells them apart. Knows samples and their families, not files.

Nothing here is asked of a teacher: the difference is what a check found wrong, or what a critic scored lower, when the
samples were made.
"""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from agents.contract import ContractFault, read
from agents.families.base import Family
from core.recipe import PreferenceConfig, Recipe
from core.run import PairsRecord
from core.sample import Candidate, Critique, Message, Sample, State, Verdict, index_of
from core.store import counted, message_type
from flows.formats import asked
from flows.words import plural

if TYPE_CHECKING:
    import polars as pl

NEAR = 0.9
"""Share of words in common, in order, from which two answers are too alike for a pair (`difflib`'s ratio). Where the two
differ in a few tokens only, DPO lowers the likelihood of the chosen one too (Pal et al. 2024, arXiv 2402.13228)."""


class Answer(NamedTuple):
    """What one sample said at one of its revisions, and what was found out about it."""

    id: str
    """The sample's; with `/n` behind it for an earlier revision."""
    prompt: list[Message]
    said: list[Message]
    words: list[str]
    """Of all that was said."""
    kept: bool
    """Whether it is in the dataset."""
    faults: list[Verdict]
    """Of the checks that it failed."""
    sound: bool
    """Whether it passed all checks, not merely came to none."""
    critique: Critique | None
    tools: Any

    @property
    def question(self) -> str:
        """The prompt as text; equal for equal prompts only."""
        return "\n".join(message.model_dump_json() for message in self.prompt)

    @property
    def score(self) -> float:
        """The mean over the critic's rubrics; not a number where there is none."""
        scores = self.critique.scores.values() if self.critique else ()
        return sum(scores) / len(scores) if scores else math.nan


class Pair(NamedTuple):
    chosen: Answer
    rejected: Answer
    gap: float
    """By how much the mean critic score of the rejected answer is lower; 0 where not both have one."""

    @property
    def kind(self) -> str:
        faults = self.rejected.faults
        return f"verifier:{faults[0].check}" if faults else "critic"

    @property
    def difference(self) -> str:
        if self.rejected.faults:
            return "; ".join(f"{fault.check}: {fault.evidence}" for fault in self.rejected.faults)
        return f"critic: mean score {self.chosen.score:.2f} against {self.rejected.score:.2f}{_rubrics(self)}"

    @property
    def place(self) -> tuple[str, str]:
        """In the order of the run."""
        return (self.chosen.id, self.rejected.id)

    @property
    def clearness(self) -> tuple[Any, ...]:
        """The clearest difference first: checks before scores, more failed checks, then the larger gap."""
        faults = self.rejected.faults
        return (not faults, -len(faults), -self.gap, self.place)


def _rubrics(pair: Pair) -> str:
    ours = pair.chosen.critique.scores if pair.chosen.critique else {}
    theirs = pair.rejected.critique.scores if pair.rejected.critique else {}
    told = [f"{rubric} {ours[rubric]} to {theirs[rubric]}" for rubric in ours if rubric in theirs]
    return f" ({', '.join(told)})" if told else ""


class Found(NamedTuple):
    """The pairs of a run, in its order."""

    pairs: list[Pair]
    prompts: int
    """Prompts that a kept sample answers."""


def find_pairs(samples: Iterable[Sample], family: Family, recipe: Recipe) -> Found:
    """Pairs of `samples`, which come in the order of the run: among the samples of a seed, and among the revisions of each.

    Failed samples are in none. At most `pairs_per_prompt` are of one prompt, also where several seeds led to it.
    """
    config = recipe.preference
    found: dict[str, list[Pair]] = {}
    for _, siblings in groupby(samples, key=lambda sample: index_of(sample.id) // recipe.answers_per_seed):
        answers = [one for sample in siblings for one in answers_of(sample, family, checked=bool(recipe.verifiers))]
        for question, pairs in _pairs_among(answers, config.margin).items():
            found[question] = clearest([*found.get(question, ()), *pairs], config.pairs_per_prompt)
    chosen_first = sorted((pair for pairs in found.values() for pair in pairs), key=lambda pair: pair.place)
    return Found(chosen_first, len(found))


def _pairs_among(answers: Sequence[Answer], margin: float) -> dict[str, list[Pair]]:
    """All pairs of some answers by their question: a key for each that a kept answer has."""
    pairs: dict[str, list[Pair]] = {}
    for chosen in answers:
        if chosen.kept and chosen.sound:
            worse = (pair_of(chosen, rejected, margin) for rejected in answers)
            pairs.setdefault(chosen.question, []).extend(pair for pair in worse if pair)
    return pairs


def pair_of(chosen: Answer, rejected: Answer, margin: float) -> Pair | None:
    """The two as a pair, if they answer one prompt in different words, and `rejected` is verifiably or clearly worse."""
    if chosen.prompt != rejected.prompt or not (rejected.faults or rejected.sound):
        return None
    apart = chosen.score - rejected.score
    gap = 0.0 if math.isnan(apart) else round(apart, 6)  # means of whole scores, but 13/3 - 10/3 is not quite 1
    if not rejected.faults and gap < margin:
        return None
    return None if alike(chosen.words, rejected.words) else Pair(chosen, rejected, gap)


def alike(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether two texts, as words, are the same or nearly so."""
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    return all(bound() >= NEAR for bound in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio))


def clearest(pairs: Sequence[Pair], most: int) -> list[Pair]:
    """The `most` pairs with the clearest difference, no rejected text among them twice."""
    taken: dict[tuple[str, ...], Pair] = {}
    for pair in sorted(pairs, key=lambda pair: pair.clearness):
        if len(taken) < most:
            taken.setdefault(tuple(pair.rejected.words), pair)
    return list(taken.values())


def answers_of(sample: Sample, family: Family, *, checked: bool) -> Iterator[Answer]:
    """What `sample` said, revision by revision, the last one last; nothing where it failed. Where the recipe has checks
    (`checked`), an answer without a verdict is not sound.
    """
    if sample.state == State.failed:
        return
    for revision in range(sample.revisions + 1):
        last = revision == sample.revisions
        candidate = sample.candidate if last else rebuilt(sample, family, revision)
        if candidate is None:
            continue
        end = asked([message.role for message in candidate.messages])
        prompt, said = candidate.messages[:end], candidate.messages[end:]
        verdicts = [verdict for verdict in sample.verdicts if verdict.revision == revision]
        faults = [verdict for verdict in verdicts if not verdict.passed]
        if prompt and said:
            yield Answer(
                id=sample.id if last else f"{sample.id}/{revision}",
                prompt=prompt,
                said=said,
                words=" ".join(message.text for message in said).split(),
                kept=last and sample.state == State.kept,
                faults=faults,
                sound=not faults and (bool(verdicts) or not checked),
                critique=next((one for one in sample.critiques if one.revision == revision), None),
                tools=candidate.fields.get("tools", sample.seed.data.get("tools")),
            )


def rebuilt(sample: Sample, family: Family, revision: int) -> Candidate | None:
    """The candidate of an earlier revision, read again from its writer's last reply; None where that never fitted."""
    replies = [turn.reply for turn in sample.turns if turn.agent == "generator" and turn.revision == revision]
    if not replies:
        return None
    try:
        return family.candidate(sample.seed, read(family.contract(sample.seed), replies[-1]))
    except ContractFault:
        return None


def parted(found: Found, aside: Collection[str]) -> tuple[list["pl.DataFrame"], PairsRecord]:
    """The pairs as rows, those whose chosen sample is not `aside` and those whose is, with their counts."""
    sides = [[pair for pair in found.pairs if (pair.chosen.id in aside) is held_out] for held_out in (False, True)]
    record = PairsRecord(
        train=len(sides[0]),
        validation=len(sides[1]),
        prompts=found.prompts,
        paired=len({pair.chosen.question for pair in found.pairs}),
        differences=counted(pair.kind for pair in found.pairs),
    )
    return [_rows(pairs) for pairs in sides], record


def _rows(pairs: Sequence[Pair]) -> "pl.DataFrame":
    import polars as pl

    talk = dict.fromkeys(("prompt", "chosen", "rejected"), pl.List(message_type()))
    texts = dict.fromkeys(("difference", "chosen_id", "rejected_id", "tools"), pl.String)
    return pl.DataFrame([_row(pair) for pair in pairs], schema={**talk, **texts})


def _row(pair: Pair) -> dict[str, Any]:
    tools = pair.chosen.tools
    return {
        "prompt": [_flat(message) for message in pair.chosen.prompt],
        "chosen": [_flat(message) for message in pair.chosen.said],
        "rejected": [_flat(message) for message in pair.rejected.said],
        "difference": pair.difference,
        "chosen_id": pair.chosen.id,
        "rejected_id": pair.rejected.id,
        "tools": json.dumps(tools, ensure_ascii=False) if tools else None,
    }


def _flat(message: Message) -> dict[str, Any]:
    """A message as a samples file has it."""
    calls = [call.model_dump() for call in message.tool_calls]
    return {
        "role": message.role,
        "content": message.content,
        "name": message.name,
        "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else None,
    }


def no_pairs(record: PairsRecord, config: PreferenceConfig) -> str:
    """Why there is no pair, in a sentence."""
    if not record.prompts:
        return "no preference pair could be made: no sample that passed all checks is kept"
    return (
        f"no preference pair could be made of {plural(record.prompts, 'prompt')} with a kept answer: no other answer to them "
        f"failed a check or scored lower by preference.margin = {config.margin:g}; raise answers_per_seed, or lower the margin"
    )
