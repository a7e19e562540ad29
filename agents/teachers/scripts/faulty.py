"""The teacher of the topology study: word problems, critiques, solutions and debates, right or with one of four faults.

Every role does its work without a mistake unless a fault is drawn for this reply, at the rates of the recipe's
`[teachers.X.faults]`, anew for every question. It knows the messages that it is sent and nothing else, so a fault that
they do not show stays unseen.
"""

import json
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from operator import add, mul, sub, truediv
from random import Random
from typing import Any, NamedTuple

from agents.teachers.base import Question
from agents.teachers.scripts.common import COMMON, Script
from core.recipe import Faults

CLASSES = ("contradiction", "drift", "omission", "miscoordination")
SENTENCES = {
    "+": "Then {} more come.",
    "-": "Then {} are taken away.",
    "*": "Then there are {} times as many.",
    "/": "Then they are shared equally by {}, and one share stays.",
}
"""What happens in a story, by what it does to the number of things."""
APPLY: dict[str, Callable[[Fraction, int], Fraction]] = {"+": add, "-": sub, "*": mul, "/": truediv}
OPERANDS = {"+": (2, 40), "-": (2, 40), "*": (2, 9), "/": (2, 9)}
NAMED = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
THINGS = (
    "apples baskets beads books cards coins cups eggs keys lamps letters plates shells stamps tiles tickets".split()
)
ELSEWHERE = ("a lighthouse", "a museum", "a circus", "a castle", "a desert camp")
"""What other samples are about, for a reply that belongs to one of them."""
MOST = 9999
REQUEST = re.compile(r"Write (?:a|another) problem about (.+?) that needs (.+?)\.")
STORY = re.compile(
    r"This is about ([^.]+)\. There are (\d+) (\w+)\.((?: Then [^.]+\.)*) How many \3 are there in the end\?"
)


class Problem(NamedTuple):
    """A story and its sum: numbers that are worked off from left to right."""

    place: str
    things: str
    numbers: tuple[int, ...]
    operations: str
    """One sign fewer than numbers."""

    @property
    def results(self) -> list[Fraction]:
        """After each operation, from the number at the start to the answer."""
        found = [Fraction(self.numbers[0])]
        for sign, number in zip(self.operations, self.numbers[1:], strict=True):
            found.append(APPLY[sign](found[-1], number))
        return found

    @property
    def value(self) -> Fraction:
        return self.results[-1]

    @property
    def pleasant(self) -> bool:
        """Whether every number on the way is a whole one, as children count."""
        return all(result.denominator == 1 and 0 < result <= MOST for result in self.results)


class Request(NamedTuple):
    place: str
    operations: str


def script(faults: Faults) -> Script:
    """Replies with these rates of faults."""
    return {
        **COMMON,
        "ProblemDraft": partial(draft, faults),
        "Review": partial(review, faults),
        "Solution": partial(solution, faults),
    }


def drawn(rng: Random, faults: Faults) -> str | None:
    """The fault of one reply: one class at most."""
    chance = rng.random()
    for name in CLASSES:
        if chance < getattr(faults, name):
            return name
        chance -= getattr(faults, name)
    return None


# The roles


def draft(faults: Faults, rng: Random, question: Question) -> dict[str, Any]:
    """A generator's or debater's reply. Without a fault: a right problem of the kind that was asked for; in a debate, the
    first right one of those that it reads.
    """
    request, heard, fault = _requested(question), _heard(question), drawn(rng, faults)
    if fault == "miscoordination":
        return _own_last(question) or as_draft(_new(rng, Request(rng.choice(ELSEWHERE), rng.choice(("+", "*-", "-/")))))
    right = next((found for one in heard if (found := _right(one, request))), None)
    return _spoilt(rng, right or _new(rng, request), fault)


def review(faults: Faults, rng: Random, question: Question) -> dict[str, Any]:
    """A critic's reply. Without a fault: poor scores for a story without one reading, for steps that are not the story's, and
    for what is not what was asked for, where it is told that.
    """
    asked = _last(question, "Problem: ")
    shown = re.search(r"Problem: (.+)\nSolution: (.+)", asked, re.DOTALL)
    fault, found = drawn(rng, faults), read(shown[1]) if shown else None
    if found and fault == "drift":
        found = _drifted(rng, found)
    good = bool(found and shown and as_draft(found)["solution"] == shown[2] and _is_asked(found, _request_in(asked)))
    if fault == "omission":
        good = True  # it overlooked whatever there was
    if fault == "miscoordination":
        good = drawn(rng, faults) is None  # as good as any other draft
    said = good != (fault == "contradiction")
    rubrics = re.findall(r'"(\w+)":', question.messages[0].content) or ["sense"]
    return {
        "scores": dict.fromkeys(rubrics, 5 if said else 1),
        "faults": [] if good else ["story and solution do not agree"],
        "advice": "Keep it as it is." if good else "Let story, steps and answer agree.",
    }


def solution(faults: Faults, rng: Random, question: Question) -> dict[str, Any]:
    """A solver's reply. Without a fault: the story's answer, or that it has none."""
    found, fault = read(_last(question, "This is about ")), drawn(rng, faults)
    if found is None:
        return {"solution": "A number is missing.", "answer": float(rng.randint(1, 99)) if fault else "unknown"}
    if fault == "drift":
        found = _drifted(rng, found)
    if fault == "omission":
        if not found.operations:  # the story lost its only step before
            return {"solution": "", "answer": "unknown"}
        found = _without(found, rng.randrange(len(found.operations)))
    if fault == "miscoordination":
        found = _new(rng, Request(found.place, rng.choice(("+", "*-", "-/"))))
    told = as_draft(found)
    more = rng.randint(1, 9) if fault == "contradiction" else 0
    return {"solution": told["solution"], "answer": told["answer"] + more}


# What is said, and how it is understood


def as_draft(problem: Problem) -> dict[str, Any]:
    """The problem in words, solved."""
    expression = str(problem.numbers[0])
    for number, sign in zip(problem.numbers[1:], problem.operations, strict=True):
        expression = f"({expression} {sign} {number})"
    return {
        "problem": _story(problem, list(map(str, problem.numbers))),
        "solution": _steps(problem, problem.value),
        "expression": expression,
        "answer": float(problem.value),
    }


def _story(problem: Problem, told: Sequence[str | None]) -> str:
    """With the numbers as they are `told`; what happens with one that is None is left out."""
    happens = [SENTENCES[sign].format(n) for sign, n in zip(problem.operations, told[1:], strict=True) if n]
    first = f"This is about {problem.place}. There are {told[0]} {problem.things}."
    return " ".join([first, *happens, f"How many {problem.things} are there in the end?"])


def _steps(problem: Problem, end: Fraction) -> str:
    signs = zip(problem.results, problem.operations, problem.numbers[1:], problem.results[1:], strict=False)
    steps = [f"{float(left):g} {sign} {number} = {float(right):g}." for left, sign, number, right in signs]
    return " ".join([f"Start with {problem.numbers[0]}.", *steps, f"So there are {float(end):g}."])


def read(story: str) -> Problem | None:
    """The problem that a story tells; None where it is not one with a number for everything that happens."""
    parts = STORY.fullmatch(story.strip())
    if parts is None:
        return None
    numbers, operations = [int(parts[2])], ""
    for happens in re.findall(r" (Then [^.]+\.)", parts[4]):
        for sign, sentence in SENTENCES.items():
            if said := re.fullmatch(re.escape(sentence).replace(r"\{\}", r"(\d+)"), happens):
                numbers.append(int(said[1]))
                operations += sign
    if len(operations) != parts[4].count(" Then "):
        return None
    return Problem(parts[1], parts[3], tuple(numbers), operations)


def _last(question: Question, part: str) -> str:
    """The last of the user's messages that has `part`: a wish for a repair may follow it."""
    said = (message.content for message in reversed(question.messages) if message.role == "user")
    return next((text for text in said if part in text), "")


def _request_in(text: str) -> Request | None:
    asked = REQUEST.findall(text)
    if not asked:
        return None
    named = re.findall(r"(add|subtract|multiply|divide)( twice)?", asked[-1][1])
    return Request(asked[-1][0], "".join(NAMED[name] * (2 if twice else 1) for name, twice in named))


def _requested(question: Question) -> Request:
    return _request_in(_last(question, " problem about ")) or Request(ELSEWHERE[0], "+")


def _is_asked(problem: Problem, request: Request | None) -> bool:
    return request is None or (problem.place, problem.operations) == request


def _own_last(question: Question) -> dict[str, Any] | None:
    """The draft that a revision or a debate comes back to."""
    if not re.search(r"^Not right: |You are writer \d", _last(question, "")):
        return None
    return next((_parsed(m.content) for m in reversed(question.messages) if m.role == "assistant"), None)


def _heard(question: Question) -> list[dict[str, Any]]:
    """In a debate: all drafts that can be read, its own too, in the writers' order."""
    asked = _last(question, "You are writer ")
    if not asked:
        return []
    texts = {int(number): text for number, text in re.findall(r"^Writer (\d+):\n(.+)$", asked, re.MULTILINE)}
    if own := re.search(r"You are writer (\d+)", asked):
        texts[int(own[1])] = json.dumps(_own_last(question))
    return [found for number in sorted(texts) if (found := _parsed(texts[number]))]


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _right(heard: dict[str, Any], request: Request) -> Problem | None:
    """The problem of a draft in which everything agrees, and that is what was asked for."""
    found = read(str(heard.get("problem")))
    return found if found and _is_asked(found, request) and as_draft(found) == heard else None


# Problems, and what goes wrong with them


def _new(rng: Random, request: Request) -> Problem:
    while True:
        numbers = [rng.randint(5, 99), *(rng.randint(*OPERANDS[sign]) for sign in request.operations)]
        found = Problem(request.place, rng.choice(THINGS), tuple(numbers), request.operations)
        if found.pleasant:
            return found


def _drifted(rng: Random, problem: Problem) -> Problem:
    """With one number changed by up to a dozen, and so another answer."""
    changed = [
        problem._replace(numbers=(*problem.numbers[:i], n + by, *problem.numbers[i + 1 :]))
        for i, n in enumerate(problem.numbers)
        for by in range(-12, 13)
        if n + by > 0
    ]
    others = [one for one in changed if one.value != problem.value]
    return rng.choice([one for one in others if one.pleasant] or others)


def _without(problem: Problem, step: int) -> Problem:
    numbers = problem.numbers[: step + 1] + problem.numbers[step + 2 :]
    return problem._replace(numbers=numbers, operations=problem.operations[:step] + problem.operations[step + 1 :])


def _spoilt(rng: Random, problem: Problem, fault: str | None) -> dict[str, Any]:
    right = as_draft(problem)
    if fault == "contradiction":
        other = problem.value + rng.randint(1, 9)
        return right | (
            {"answer": float(other)} if rng.random() < 0.5 else {"solution": _steps(problem, Fraction(other))}
        )
    if fault == "drift":
        return as_draft(_drifted(rng, problem)) | {"problem": right["problem"]}
    if fault == "omission":
        told: list[str | None] = list(map(str, problem.numbers))
        gap = rng.randrange(len(told))
        told[gap] = None if gap and rng.random() < 0.5 else "some"
        return right | {"problem": _story(problem, told)}
    return right
