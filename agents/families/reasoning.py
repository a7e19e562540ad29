"""Questions with one right answer, and the reasoning that leads to it: procedural ones of `reasoning-gym` with their own
verifiers, or the user's questions with their answers. Knows no teacher.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import Field, model_validator

from agents.checks import Options, Subject, check
from agents.contract import Contract, ContractFault
from agents.families.base import Family, text_in
from core.sample import Candidate, Message, Seed, digest_of

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

TASKS = """aiw base_conversion basic_arithmetic binary_alternation caesar_cipher calendar_arithmetic chain_sum coin_flip
count_primes course_schedule decimal_chain_sum family_relationships gcd isomorphic_strings lcm leg_counting
letter_counting needle_haystack number_filtering number_sequence prime_factorization products simple_equations
simple_geometry string_manipulation syllogism word_sequence_reversal""".split()
"""Tasks of reasoning-gym whose answers are short texts and whose verifiers only compare. Others evaluate an answer as code, or
take for right what is not: `word_sorting` an answer with more words after it, `knights_knaves` one that is denied,
`fraction_simplification` one with doubts behind it. They are not offered.
"""
ANSWER = "Answer: "
"""What stands before the answer, in the conversation that a student is trained on."""
MAX_ANSWER = 500
"""Characters of an answer that a verifier is shown."""


class Draft(Contract):
    reasoning: str = Field(min_length=1)
    answer: str = Field(min_length=1)


class ReasoningOptions(Options):
    tasks: dict[str, int] = Field({})
    """For seeds of its own: tasks of reasoning-gym, each with its weight."""
    settings: dict[str, dict[str, Any]] = Field({})
    """What reasoning-gym lets one set for a task (`chain_sum = { min_terms = 2, max_digits = 2 }`): how difficult it is."""
    questions: int = Field(1000, ge=1, le=1_000_000)
    """How many different ones are made, of all tasks together."""

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if unknown := sorted({*self.tasks, *self.settings} - set(TASKS)):
            raise ValueError(f"no such task {', '.join(unknown)}; there are {', '.join(TASKS)}")
        if min(self.tasks.values(), default=1) < 1:
            raise ValueError("the weight of a task must be 1 or more")
        if self.tasks:
            if problem := gym_problem():
                raise ValueError(problem)
            for task in self.tasks:
                _try(task, self.settings.get(task, {}))
        return self


def _try(task: str, settings: Mapping[str, Any]) -> None:
    from reasoning_gym import create_dataset

    try:
        create_dataset(task, seed=0, size=1, **settings)[0]
    except (TypeError, AssertionError, ValueError) as error:
        raise ValueError(f"settings.{task}: reasoning-gym does not take {dict(settings)}: {error}") from None


def gym_problem() -> str | None:
    """Why there are no procedural tasks, in a sentence."""
    from importlib.util import find_spec

    if find_spec("reasoning_gym"):
        return None
    return "procedural tasks need the extra `reasoning` (reasoning_gym is missing): run `make install`"


class Made(NamedTuple):
    """How one procedural question is made again."""

    task: str
    settings: dict[str, Any]
    seed: int
    size: int
    """Of the data set that it is one of."""
    place: int

    @property
    def dataset(self) -> "ProceduralDataset":
        return _dataset(self.task, json.dumps(self.settings, sort_keys=True), self.seed, self.size)


@lru_cache(maxsize=64)
def _dataset(task: str, settings: str, seed: int, size: int) -> "ProceduralDataset":
    from reasoning_gym import create_dataset

    return create_dataset(task, seed=seed, size=size, **json.loads(settings))


@check("solved")
def solved(subject: Subject, _options: Options) -> str | None:
    """The verifier of reasoning-gym for this task must find the answer right."""
    made, given = Made(**subject.seed.data["made"]), subject.candidate.fields["answer"].strip()
    if len(given) > MAX_ANSWER:
        return f"the answer is {len(given)} characters long"
    return None if _score(made, given) == 1 else f"the answer {given!r} is wrong"


def _score(made: Made, given: str) -> float:
    """1 where `given` is right. Some verifiers break on what they cannot read, which is no right answer."""
    try:
        return float(made.dataset.score_answer(given, made.dataset[made.place]))
    except Exception:  # whatever another's code raises on a stranger's text
        return 0.0


class Reasoning(Family):
    name = "reasoning"
    options = ReasoningOptions
    checks = (solved,)
    seeded_by = ("path", "itself")

    def rows(self, options: ReasoningOptions, seed: int) -> Sequence[Mapping[str, Any]]:
        return list(_questions(options, seed))

    def condition(self, row: Mapping[str, Any], options: ReasoningOptions, rng: Random) -> dict[str, Any]:
        data = {"question": text_in(row, "question"), "category": text_in(row, "category", "")}
        return {**data, "made": row["made"]} if "made" in row else {**data, "expected": row["answer"]}

    def contract(self, seed: Seed) -> type[Contract]:
        return Draft

    def questions(self, seed: Seed) -> Sequence[Message]:
        return [Message(role="user", content=seed.data["question"])]

    def answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        reasoning, said, answer = answers[0].rpartition(ANSWER)
        if not (said and reasoning.strip() and answer.strip()):
            raise ContractFault(f"the reply does not reason and then say {ANSWER.strip()!r}")
        return self.candidate(seed, Draft(reasoning=reasoning, answer=answer))

    def candidate(self, seed: Seed, draft: Draft) -> Candidate:
        reasoning, answer = draft.reasoning.strip(), draft.answer.strip()
        asked = Message(role="user", content=seed.data["question"])
        answered = Message(role="assistant", content=f"{reasoning}\n\n{ANSWER}{answer}")
        return Candidate(messages=[asked, answered], fields={"reasoning": reasoning, "answer": answer})


def _questions(options: ReasoningOptions, seed: int) -> Iterator[Mapping[str, Any]]:
    total = sum(options.tasks.values())
    for task, weight in options.tasks.items():
        size = max(1, round(options.questions * weight / total))
        first = Made(task, options.settings.get(task, {}), int(digest_of([seed, task], length=7), 16), size, 0)
        for place, entry in enumerate(first.dataset):
            made = first._replace(place=place)._asdict()
            yield {"question": entry["question"], "category": task, "made": made}
