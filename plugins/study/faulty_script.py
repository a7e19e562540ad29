"""The teacher of the topology study: word problems, critiques, solutions and debates, right or with one of four faults.

Every role replies without a mistake unless a fault is drawn for this reply, at the rates of the recipe's
`[teachers.X.extra]`. It sees only the messages of its request, so it cannot detect a fault outside of them.
"""

import json
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from operator import add, mul, sub, truediv
from random import Random
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, TeacherScript, requested_rubrics
from teachers.fake.scripts import FakeOptions

FAULT_CLASSES = ("contradiction", "drift", "omission", "miscoordination")
SENTENCES = {
    "+": "Then {} more come.",
    "-": "Then {} are taken away.",
    "*": "Then there are {} times as many.",
    "/": "Then they are shared equally by {}, and one share stays.",
}
"""What happens in a story, by what it does to the number of things."""
APPLY: dict[str, Callable[[Fraction, int], Fraction]] = {"+": add, "-": sub, "*": mul, "/": truediv}
OPERANDS = {"+": (2, 40), "-": (2, 40), "*": (2, 9), "/": (2, 9)}
OPERATION_NAMES = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
THINGS = (
    "apples baskets beads books cards coins cups eggs keys lamps letters plates shells stamps tiles tickets".split()
)
OTHER_PLACES = ("a lighthouse", "a museum", "a circus", "a castle", "a desert camp")
"""Subjects of other samples, for a reply that belongs to one of them."""
MAX_RESULT = 9999
REQUEST = re.compile(r"Write (?:a|another) problem about (.+?) that needs (.+?)\.")
STORY = re.compile(
    r"This is about ([^.]+)\. There are (\d+) (\w+)\.((?: Then [^.]+\.)*) How many \3 are there in the end\?"
)


class StoryProblem(NamedTuple):
    """A story and its sum: numbers that are worked off from left to right."""

    place: str
    things: str
    numbers: tuple[int, ...]
    operations: str
    """One operation fewer than numbers."""

    @property
    def results(self) -> list[Fraction]:
        """After each operation, from the number at the start to the answer."""
        totals = [Fraction(self.numbers[0])]
        for sign, number in zip(self.operations, self.numbers[1:], strict=True):
            totals.append(APPLY[sign](totals[-1], number))
        return totals

    @property
    def value(self) -> Fraction:
        return self.results[-1]

    @property
    def is_whole(self) -> bool:
        """Whether every intermediate result is a whole number."""
        return all(result.denominator == 1 and 0 < result <= MAX_RESULT for result in self.results)


class ProblemRequest(NamedTuple):
    place: str
    operations: str


class FaultRates(FakeOptions):
    """In every role. A reply has at most one of these four faults."""

    contradiction: float = Field(0.0, ge=0, le=1)
    """The parts of a reply contradict each other."""
    drift: float = Field(0.0, ge=0, le=1)
    """A number differs from the input, or from an earlier number of the reply."""
    omission: float = Field(0.0, ge=0, le=1)
    """A required number, step or finding is missing."""
    miscoordination: float = Field(0.0, ge=0, le=1)
    """The reply answers another message."""

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        if (total := self.contradiction + self.drift + self.omission + self.miscoordination) > 1 + 1e-9:
            raise ValueError(
                f"contradiction, drift, omission and miscoordination add up to {total:g}; a reply has one of them at "
                "most, so lower their sum to 1"
            )
        return self

    def build_script(self) -> TeacherScript:
        return {
            **COMMON,
            "ProblemDraft": partial(_write_faulty_draft, self),
            "Review": partial(_write_faulty_review, self),
            "Solution": partial(_write_faulty_solution, self),
        }


def _draw_fault(rng: Random, faults: FaultRates) -> str | None:
    """The fault of one reply: at most one kind."""
    chance = rng.random()
    for name in FAULT_CLASSES:
        if chance < getattr(faults, name):
            return name
        chance -= getattr(faults, name)
    return None


# The roles


def _write_faulty_draft(faults: FaultRates, rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    """A generator's or debater's reply. Without a fault: a right problem of the requested kind; in a debate, the first right
    problem among the messages.
    """
    asked = _parse_request(_last_message(question, " problem about "))
    request = asked or ProblemRequest(OTHER_PLACES[0], "+")
    fault = _draw_fault(rng, faults)
    if fault == "miscoordination":
        return _last_own_draft(question) or _draft_from_problem(
            _draw_problem(rng, ProblemRequest(rng.choice(OTHER_PLACES), rng.choice(("+", "*-", "-/"))))
        )

    for draft in _debate_drafts(question):
        problem = _parse_story(str(draft.get("problem")))
        if problem and _matches_request(problem, request) and _draft_from_problem(problem) == draft:
            break
    else:
        problem = _draw_problem(rng, request)
    right = _draft_from_problem(problem)

    if fault == "contradiction":
        other = problem.value + rng.randint(1, 9)
        return right | (
            {"answer": float(other)} if rng.random() < 0.5 else {"solution": _write_steps(problem, Fraction(other))}
        )
    if fault == "drift":
        return _draft_from_problem(_drift_number(rng, problem)) | {"problem": right["problem"]}
    if fault == "omission":
        numbers: list[str | None] = list(map(str, problem.numbers))
        gap = rng.randrange(len(numbers))
        numbers[gap] = None if gap and rng.random() < 0.5 else "some"
        return right | {"problem": _write_story(problem, numbers)}
    return right


def _write_faulty_review(faults: FaultRates, rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    """A critic's reply. Without a fault: poor scores for an ambiguous story, for steps that differ from the story, and for
    another problem than requested, if the request is among the messages.
    """
    asked = _last_message(question, "Problem: ")
    shown = re.search(r"Problem: (.+)\nSolution: (.+)", asked, re.DOTALL)
    fault, problem = _draw_fault(rng, faults), _parse_story(shown[1]) if shown else None
    if problem and fault == "drift":
        problem = _drift_number(rng, problem)
    good = bool(
        problem
        and shown
        and _draft_from_problem(problem)["solution"] == shown[2]
        and _matches_request(problem, _parse_request(asked))
    )
    if fault == "omission":
        good = True  # the critic overlooks every fault
    if fault == "miscoordination":
        good = _draw_fault(rng, faults) is None  # as good as any other draft
    approves = good != (fault == "contradiction")
    return {
        "scores": dict.fromkeys(requested_rubrics(question), 5 if approves else 1),
        "faults": [] if good else ["story and solution do not agree"],
        "advice": "Keep it as it is." if good else "Let story, steps and answer agree.",
    }


def _write_faulty_solution(faults: FaultRates, rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    """A solver's reply. Without a fault: the story's answer, or that it has none."""
    problem, fault = _parse_story(_last_message(question, "This is about ")), _draw_fault(rng, faults)
    if problem is None:
        return {"solution": "A number is missing.", "answer": float(rng.randint(1, 99)) if fault else "unknown"}
    if fault == "drift":
        problem = _drift_number(rng, problem)
    if fault == "omission":
        if not problem.operations:  # the story lost its only step before
            return {"solution": "", "answer": "unknown"}
        step = rng.randrange(len(problem.operations))
        problem = problem._replace(
            numbers=problem.numbers[: step + 1] + problem.numbers[step + 2 :],
            operations=problem.operations[:step] + problem.operations[step + 1 :],
        )
    if fault == "miscoordination":
        problem = _draw_problem(rng, ProblemRequest(problem.place, rng.choice(("+", "*-", "-/"))))
    draft = _draft_from_problem(problem)
    more = rng.randint(1, 9) if fault == "contradiction" else 0
    return {"solution": draft["solution"], "answer": draft["answer"] + more}


# Stories: writing and parsing


def _draft_from_problem(problem: StoryProblem) -> dict[str, Any]:
    """The problem in words, solved."""
    expression = str(problem.numbers[0])
    for number, sign in zip(problem.numbers[1:], problem.operations, strict=True):
        expression = f"({expression} {sign} {number})"
    return {
        "problem": _write_story(problem, list(map(str, problem.numbers))),
        "solution": _write_steps(problem, problem.value),
        "expression": expression,
        "answer": float(problem.value),
    }


def _write_story(problem: StoryProblem, numbers: Sequence[str | None]) -> str:
    """The story with these `numbers`; an event whose number is None is left out."""
    happens = [SENTENCES[sign].format(n) for sign, n in zip(problem.operations, numbers[1:], strict=True) if n]
    first = f"This is about {problem.place}. There are {numbers[0]} {problem.things}."
    return " ".join([first, *happens, f"How many {problem.things} are there in the end?"])


def _write_steps(problem: StoryProblem, end: Fraction) -> str:
    signs = zip(problem.results, problem.operations, problem.numbers[1:], problem.results[1:], strict=False)
    steps = [f"{float(left):g} {sign} {number} = {float(right):g}." for left, sign, number, right in signs]
    return " ".join([f"Start with {problem.numbers[0]}.", *steps, f"So there are {float(end):g}."])


def _parse_story(story: str) -> StoryProblem | None:
    """The problem of a story; None if an event has no number."""
    parts = STORY.fullmatch(story.strip())
    if parts is None:
        return None
    numbers, operations = [int(parts[2])], ""
    for happens in re.findall(r" (Then [^.]+\.)", parts[4]):
        for sign, sentence in SENTENCES.items():
            if match := re.fullmatch(re.escape(sentence).replace(r"\{\}", r"(\d+)"), happens):
                numbers.append(int(match[1]))
                operations += sign
    if len(operations) != parts[4].count(" Then "):
        return None
    return StoryProblem(parts[1], parts[3], tuple(numbers), operations)


def _last_message(question: TeacherQuestion, part: str) -> str:
    """The last of the user's messages that has `part`: a request for a repair may follow it."""
    texts = (message.content for message in reversed(question.messages) if message.role == "user")
    return next((text for text in texts if part in text), "")


def _parse_request(text: str) -> ProblemRequest | None:
    asked = REQUEST.findall(text)
    if not asked:
        return None
    named = re.findall(r"(add|subtract|multiply|divide)( twice)?", asked[-1][1])
    return ProblemRequest(asked[-1][0], "".join(OPERATION_NAMES[name] * (2 if twice else 1) for name, twice in named))


def _matches_request(problem: StoryProblem, request: ProblemRequest | None) -> bool:
    return request is None or (problem.place, problem.operations) == request


def _last_own_draft(question: TeacherQuestion) -> dict[str, Any] | None:
    """The draft that a revision or a debate comes back to."""
    if not re.search(r"^Not right:|You are writer \d", _last_message(question, "")):
        return None
    return next((_parse_draft(m.content) for m in reversed(question.messages) if m.role == "assistant"), None)


def _debate_drafts(question: TeacherQuestion) -> list[dict[str, Any]]:
    """In a debate: all drafts that can be read, its own too, in the writers' order."""
    asked = _last_message(question, "You are writer ")
    if not asked:
        return []
    texts = {int(number): text for number, text in re.findall(r"^Writer (\d+):\n(.+)$", asked, re.MULTILINE)}
    if own := re.search(r"You are writer (\d+)", asked):
        texts[int(own[1])] = json.dumps(_last_own_draft(question))
    return [draft for number in sorted(texts) if (draft := _parse_draft(texts[number]))]


def _parse_draft(text: str) -> dict[str, Any] | None:
    try:
        draft = json.loads(text)
    except ValueError:
        return None
    return draft if isinstance(draft, dict) else None


# Problems, and what goes wrong with them


def _draw_problem(rng: Random, request: ProblemRequest) -> StoryProblem:
    while True:
        numbers = [rng.randint(5, 99), *(rng.randint(*OPERANDS[sign]) for sign in request.operations)]
        problem = StoryProblem(request.place, rng.choice(THINGS), tuple(numbers), request.operations)
        if problem.is_whole:
            return problem


def _drift_number(rng: Random, problem: StoryProblem) -> StoryProblem:
    """The problem with one number changed by up to a dozen, and so with another answer."""
    changed = [
        problem._replace(numbers=(*problem.numbers[:i], n + by, *problem.numbers[i + 1 :]))
        for i, n in enumerate(problem.numbers)
        for by in range(-12, 13)
        if n + by > 0
    ]
    others = [candidate for candidate in changed if candidate.value != problem.value]
    return rng.choice([candidate for candidate in others if candidate.is_whole] or others)
