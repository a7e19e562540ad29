"""Small programming tasks with right solutions, and drafts that are wrong in a dozen known ways: bugs, tests that test
nothing or cannot be read, code that tries to forge its result, that never ends, or that hangs on chance.
"""

import re
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from agents.teachers.base import Question
from agents.teachers.scripts.common import COMMON, WORDS, Script


class Known(NamedTuple):
    """A task that the teacher knows; NAME stands for the function, K and L for numbers."""

    task: str
    solution: str
    wrong: str
    """Of the right form, with a bug that tests find."""
    answer: Callable[[int, int, Any], Any]
    argument: Callable[[Random], Any]


def numbers(rng: Random) -> list[int]:
    return [rng.randint(-20, 60) for _ in range(rng.randint(3, 7))]


def number(rng: Random) -> int:
    return rng.randint(12, 400)


def words(rng: Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 5)))


KNOWN = (
    Known(
        "Add up the numbers of a list that are larger than K, each of them L times.",
        "def NAME(numbers: list[int]) -> int:\n    return sum(n * L for n in numbers if n > K)",
        "def NAME(numbers: list[int]) -> int:\n    return sum(n + L for n in numbers if n > K)",
        lambda k, m, a: sum(n * m for n in a if n > k),
        numbers,
    ),
    Known(
        "Give the numbers of a list that leave the rest L when divided by K + L, in their order.",
        "def NAME(numbers: list[int]) -> list[int]:\n    return [n for n in numbers if n % (K + L) == L]",
        "def NAME(numbers: list[int]) -> list[int]:\n    return [n for n in numbers if n % (K + L) != L]",
        lambda k, m, a: [n for n in a if n % (k + m) == m],
        lambda rng: [rng.randint(0, 40) for _ in range(12)],
    ),
    Known(
        "Write a number from 1 on in base K + 2, with the digits as a list from the first to the last, L zeros before them.",
        "def NAME(number: int) -> list[int]:\n    digits: list[int] = []\n    while number:\n"
        "        number, digit = divmod(number, K + 2)\n        digits.insert(0, digit)\n    return [0] * L + digits",
        "def NAME(number: int) -> list[int]:\n    digits: list[int] = []\n    while number:\n"
        "        number, digit = divmod(number, K + 2)\n        digits.append(digit)\n    return [0] * L + digits",
        lambda k, m, a: [0] * m + based(a, k + 2),
        number,
    ),
    Known(
        "Count the letters of each word of a text that has more than K letters, and add L to each count; return a dict.",
        "def NAME(text: str) -> dict[str, int]:\n    return {w: len(w) + L for w in text.split() if len(w) > K}",
        "def NAME(text: str) -> dict[str, int]:\n    return {w: len(w) - L for w in text.split() if len(w) > K}",
        lambda k, m, a: {w: len(w) + m for w in a.split() if len(w) > k},
        words,
    ),
    Known(
        "Move every small letter of a text K + L places on in the alphabet, from z on to a; all else stays.",
        "def NAME(text: str) -> str:\n    letters = 'abcdefghijklmnopqrstuvwxyz'\n    return ''.join(\n"
        "        letters[(letters.index(c) + K + L) % 26] if c in letters else c for c in text\n    )",
        "def NAME(text: str) -> str:\n    letters = 'abcdefghijklmnopqrstuvwxyz'\n    return ''.join(\n"
        "        letters[(letters.index(c) - K - L) % 26] if c in letters else c for c in text\n    )",
        lambda k, m, a: "".join(chr((ord(c) - 97 + k + m) % 26 + 97) if c.isalpha() else c for c in a),
        words,
    ),
    Known(
        "Add up the squares of the digits of a number, and multiply the sum by K and add L.",
        "def NAME(number: int) -> int:\n    return sum(int(digit) ** 2 for digit in str(number)) * K + L",
        "def NAME(number: int) -> int:\n    return sum(int(digit) * 2 for digit in str(number)) * K + L",
        lambda k, m, a: sum(int(d) ** 2 for d in str(a)) * k + m,
        number,
    ),
)


def based(value: int, base: int) -> list[int]:
    return [*based(value // base, base), value % base] if value else []


def drafted(known: Known, name: str, rng: Random) -> dict[str, Any]:
    """A draft with nothing wrong."""
    k, m = rng.randint(2, 7), rng.randint(2, 5)
    arguments = [known.argument(rng) for _ in range(rng.randint(4, 6))]
    tests = [f"assert {name}({argument!r}) == {known.answer(k, m, argument)!r}" for argument in arguments]
    return {
        "task": filled(known.task, name, k, m),
        "explanation": f"It goes through the input once, as a {rng.choice(WORDS)} would.",
        "solution": filled(known.solution, name, k, m),
        "tests": "\n".join(tests),
    }


def filled(text: str, name: str, k: int, m: int) -> str:
    return re.sub(r"\bL\b", str(m), re.sub(r"\bK\b", str(k), text.replace("NAME", name)))


def numbers_of(draft: dict[str, Any], known: Known, name: str) -> tuple[int, int]:
    """K and L of a draft, by trying."""
    tries = ((k, m) for k in range(2, 8) for m in range(2, 6))
    return next((k, m) for k, m in tries if filled(known.solution, name, k, m) == draft["solution"])


Spoil = Callable[[dict[str, Any], Known, str], dict[str, Any]]


def bug(draft: dict[str, Any], known: Known, name: str) -> dict[str, Any]:
    return {"solution": filled(known.wrong, name, *numbers_of(draft, known, name))}


def table(draft: dict[str, Any], known: Known, name: str) -> dict[str, Any]:
    rows = re.findall(rf"assert {name}\((.*)\) == (.*)", draft["tests"])
    lines = "".join(f"    if value == {argument}:\n        return {answer}\n" for argument, answer in rows)
    return {"solution": f"def {name}(value):\n{lines}"}


def early(code: str) -> Spoil:
    return lambda draft, _known, _name: {"solution": f"{code}\n\n\n{draft['solution']}"}


def instead(body: str) -> Spoil:
    return lambda _draft, _known, name: {"solution": f"def {name}(value):\n    {body}"}


def tested(tests: str) -> Spoil:
    return lambda _draft, _known, name: {"tests": tests.replace("NAME", name)}


SPOILS: dict[str, tuple[int, Spoil]] = {
    "bug": (10, bug),
    "table of answers": (3, table),
    "no python": (3, instead("return (")),
    "another name": (3, lambda draft, _known, name: {"solution": draft["solution"].replace(name, f"{name}_2")}),
    "ends the process": (2, early("import os\nos._exit(0)")),
    "exits": (2, early("raise SystemExit(0)")),
    "equal to all": (
        2,
        instead("class Any:\n        def __eq__(self, other):\n            return True\n    return Any()"),
    ),
    "never ends": (2, instead("while True:\n        value = value")),
    "vacuous": (4, tested("assert NAME([]) == NAME([])\nassert True\nassert NAME is not None")),
    "too few": (2, lambda draft, _known, _name: {"tests": draft["tests"].split("\n")[0]}),
    "one answer": (2, lambda draft, _known, name: {"tests": same_answer(draft["tests"])}),
    "builds its tests": (3, tested("for value in range(3):\n    assert NAME(value) == value")),
}
"""Each way to be wrong, how many of a hundred first drafts are so, and what it changes. Revisions are wrong half as often."""


def same_answer(tests: str) -> str:
    """The first test four times, with one more blank each: one call, however it is written."""
    first = tests.split("\n")[0]
    return "\n".join(first.replace("==", f"{' ' * i}==") for i in range(1, 5))


def code_draft(rng: Random, question: Question) -> dict[str, Any]:
    asked = question.messages[-1].content
    wanted = re.search(r"Define `(\w+)", asked.rpartition("Idea: ")[2])
    name = wanted.group(1) if wanted else f"{rng.choice(WORDS)}_{rng.choice(WORDS)}"
    known = rng.choice(KNOWN)
    draft = drafted(known, name, rng)
    revised = asked.startswith("Not right")
    lot = rng.random() * (200 if revised else 100)
    for rate, spoil in SPOILS.values():
        lot -= rate
        if lot < 0:
            return {**draft, **spoil(draft, known, name)}
    return draft


def solved(rng: Random, question: Question) -> dict[str, Any]:
    """Right four times in five."""
    asked = question.messages[-1].content
    name = re.search(r"Write `(\w+)\(", asked)
    if name is None:
        return {"solution": "def unknown():\n    return None"}
    for known in KNOWN:
        for k in range(2, 8):
            for m in range(2, 6):
                if asked.startswith(filled(known.task, name.group(1), k, m)):
                    right = rng.random() < 0.8
                    return {"solution": filled(known.solution if right else known.wrong, name.group(1), k, m)}
    return {"solution": f"def {name.group(1)}(value):\n    return value"}


SCRIPT: Script = {**COMMON, "CodeDraft": code_draft, "Solved": solved}
