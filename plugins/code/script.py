"""Small programming tasks with right solutions, and drafts that are wrong in a dozen known ways: bugs, tests that test
nothing or cannot be read, code that tries to forge its result, that never ends, or that hangs on chance.
"""

import re
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, WORDS, TeacherScript


class KnownTask(NamedTuple):
    """A task that the teacher knows; NAME stands for the function, K and L for numbers."""

    task: str
    solution: str
    wrong: str
    """Of the right form, with a bug that tests find."""
    answer: Callable[[int, int, Any], Any]
    argument: Callable[[Random], Any]


def _draw_numbers(rng: Random) -> list[int]:
    return [rng.randint(-20, 60) for _ in range(rng.randint(3, 7))]


def _draw_number(rng: Random) -> int:
    return rng.randint(12, 400)


def _draw_words(rng: Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 5)))


KNOWN_TASKS = (
    KnownTask(
        "Add up the numbers of a list that are larger than K, each of them L times.",
        "def NAME(numbers: list[int]) -> int:\n    return sum(n * L for n in numbers if n > K)",
        "def NAME(numbers: list[int]) -> int:\n    return sum(n + L for n in numbers if n > K)",
        lambda k, m, a: sum(n * m for n in a if n > k),
        _draw_numbers,
    ),
    KnownTask(
        "Give the numbers of a list that leave the rest L when divided by K + L, in their order.",
        "def NAME(numbers: list[int]) -> list[int]:\n    return [n for n in numbers if n % (K + L) == L]",
        "def NAME(numbers: list[int]) -> list[int]:\n    return [n for n in numbers if n % (K + L) != L]",
        lambda k, m, a: [n for n in a if n % (k + m) == m],
        lambda rng: [rng.randint(0, 40) for _ in range(12)],
    ),
    KnownTask(
        "Write a number from 1 on in base K + 2, with the digits as a list from the first to the last, L zeros before them.",
        "def NAME(number: int) -> list[int]:\n    digits: list[int] = []\n    while number:\n"
        "        number, digit = divmod(number, K + 2)\n        digits.insert(0, digit)\n    return [0] * L + digits",
        "def NAME(number: int) -> list[int]:\n    digits: list[int] = []\n    while number:\n"
        "        number, digit = divmod(number, K + 2)\n        digits.append(digit)\n    return [0] * L + digits",
        lambda k, m, a: [0] * m + _to_base(a, k + 2),
        _draw_number,
    ),
    KnownTask(
        "Count the letters of each word of a text that has more than K letters, and add L to each count; return a dict.",
        "def NAME(text: str) -> dict[str, int]:\n    return {w: len(w) + L for w in text.split() if len(w) > K}",
        "def NAME(text: str) -> dict[str, int]:\n    return {w: len(w) - L for w in text.split() if len(w) > K}",
        lambda k, m, a: {w: len(w) + m for w in a.split() if len(w) > k},
        _draw_words,
    ),
    KnownTask(
        "Move every small letter of a text K + L places on in the alphabet, from z on to a; all else stays.",
        "def NAME(text: str) -> str:\n    letters = 'abcdefghijklmnopqrstuvwxyz'\n    return ''.join(\n"
        "        letters[(letters.index(c) + K + L) % 26] if c in letters else c for c in text\n    )",
        "def NAME(text: str) -> str:\n    letters = 'abcdefghijklmnopqrstuvwxyz'\n    return ''.join(\n"
        "        letters[(letters.index(c) - K - L) % 26] if c in letters else c for c in text\n    )",
        lambda k, m, a: "".join(chr((ord(c) - 97 + k + m) % 26 + 97) if c.isalpha() else c for c in a),
        _draw_words,
    ),
    KnownTask(
        "Add up the squares of the digits of a number, and multiply the sum by K and add L.",
        "def NAME(number: int) -> int:\n    return sum(int(digit) ** 2 for digit in str(number)) * K + L",
        "def NAME(number: int) -> int:\n    return sum(int(digit) * 2 for digit in str(number)) * K + L",
        lambda k, m, a: sum(int(d) ** 2 for d in str(a)) * k + m,
        _draw_number,
    ),
)


def _to_base(value: int, base: int) -> list[int]:
    return [*_to_base(value // base, base), value % base] if value else []


def _correct_draft(known: KnownTask, name: str, rng: Random) -> dict[str, Any]:
    """A draft with nothing wrong."""
    k, m = rng.randint(2, 7), rng.randint(2, 5)
    arguments = [known.argument(rng) for _ in range(rng.randint(4, 6))]
    tests = [f"assert {name}({argument!r}) == {known.answer(k, m, argument)!r}" for argument in arguments]
    return {
        "task": _fill_template(known.task, name, k, m),
        "explanation": f"It goes through the input once, as a {rng.choice(WORDS)} would.",
        "solution": _fill_template(known.solution, name, k, m),
        "tests": "\n".join(tests),
    }


def _fill_template(text: str, name: str, k: int, m: int) -> str:
    return re.sub(r"\bL\b", str(m), re.sub(r"\bK\b", str(k), text.replace("NAME", name)))


def _find_constants(draft: dict[str, Any], known: KnownTask, name: str) -> tuple[int, int]:
    """K and L of a draft, by trying."""
    tries = ((k, m) for k in range(2, 8) for m in range(2, 6))
    return next((k, m) for k, m in tries if _fill_template(known.solution, name, k, m) == draft["solution"])


BATCH = """{compute}


def {name}(values: list) -> list:
    return [compute(value) for value in values]"""
CLASS = """{compute}


class {name}:
    def __init__(self) -> None:
        self.kept: list = []

    def add(self, value) -> None:
        self.kept.append(compute(value))

    def last(self):
        return self.kept[-1] if self.kept else None

    def count(self) -> int:
        return len(self.kept)"""
PROGRAM = """{compute}


def compute_all(values: list) -> list:
    results = []
    for value in values:
        results.append(compute(value))
    return results


def drop_repeats(results: list) -> list:
    kept: list = []
    for result in results:
        if result in kept:
            continue
        kept.append(result)
    return kept


def count_each(results: list, kept: list) -> list:
    counts = []
    for result in kept:
        counts.append(results.count(result))
    return counts


def {name}(values: list) -> tuple:
    results = compute_all(values)
    kept = drop_repeats(results)
    return kept, count_each(results, kept)"""
FORMS = {"class": CLASS, "program": PROGRAM, "given": BATCH}
"""How a task of another kind than a function uses the solution of a known one, as `compute`."""


def _build_form(kind: str, known: KnownTask, name: str, k: int, m: int, wrong: bool = False) -> str:
    compute = _fill_template(known.wrong if wrong else known.solution, "compute", k, m)
    return FORMS[kind].format(compute=compute, name=name)


def _write_other_draft(kind: str, known: KnownTask, name: str, rng: Random) -> dict[str, Any]:
    """A draft of another kind than a function, which is right nine times in ten."""
    k, m = rng.randint(2, 7), rng.randint(2, 5)
    first, second = known.argument(rng), known.argument(rng)
    one, two = known.answer(k, m, first), known.answer(k, m, second)
    tests = {
        "class": f"def test_last():\n    keeper = {name}()\n    assert keeper.last() is None\n    keeper.add({first!r})\n"
        f"    assert keeper.last() == {one!r}\n    keeper.add({second!r})\n    assert keeper.last() == {two!r}\n"
        "    assert keeper.count() == 2",
        "program": f"assert {name}([{first!r}, {first!r}]) == ([{one!r}], [2])\nassert {name}([]) == ([], [])\n"
        f"assert {name}([{second!r}]) == ([{two!r}], [1])",
        "given": f"assert {name}([{first!r}]) == [{one!r}]\nassert {name}([]) == []\n"
        f"assert {name}([{second!r}, {first!r}]) == [{two!r}, {one!r}]",
    }
    given = {"given": _build_form(kind, known, name, k, m, wrong=True)} if kind == "given" else {}
    return {
        "task": _fill_template(known.task, name, k, m),
        **given,
        "explanation": f"Each value is computed alone, as a {rng.choice(WORDS)} would.",
        "solution": _build_form(kind, known, name, k, m, wrong=rng.random() < 0.1),
        "tests": tests[kind],
    }


DraftSpoiler = Callable[[dict[str, Any], KnownTask, str], dict[str, Any]]


def _spoil_with_bug(draft: dict[str, Any], known: KnownTask, name: str) -> dict[str, Any]:
    return {"solution": _fill_template(known.wrong, name, *_find_constants(draft, known, name))}


def _spoil_with_table(draft: dict[str, Any], _known: KnownTask, name: str) -> dict[str, Any]:
    rows = re.findall(rf"assert {name}\((.*)\) == (.*)", draft["tests"])
    lines = "".join(f"    if value == {argument}:\n        return {answer}\n" for argument, answer in rows)
    return {"solution": f"def {name}(value):\n{lines}"}


def _prepend_code(code: str) -> DraftSpoiler:
    return lambda draft, _known, _name: {"solution": f"{code}\n\n\n{draft['solution']}"}


def _replace_body(body: str) -> DraftSpoiler:
    return lambda _draft, _known, name: {"solution": f"def {name}(value):\n    {body}"}


def _replace_tests(tests: str) -> DraftSpoiler:
    return lambda _draft, _known, name: {"tests": tests.replace("NAME", name)}


SPOILERS: dict[str, tuple[int, DraftSpoiler]] = {
    "bug": (10, _spoil_with_bug),
    "table of answers": (3, _spoil_with_table),
    "no python": (3, _replace_body("return (")),
    "another name": (3, lambda draft, _known, name: {"solution": draft["solution"].replace(name, f"{name}_2")}),
    "ends the process": (2, _prepend_code("import os\nos._exit(0)")),
    "exits": (2, _prepend_code("raise SystemExit(0)")),
    "equal to all": (
        2,
        _replace_body("class Any:\n        def __eq__(self, other):\n            return True\n    return Any()"),
    ),
    "never ends": (2, _replace_body("while True:\n        value = value")),
    "vacuous": (4, _replace_tests("assert NAME([]) == NAME([])\nassert True\nassert NAME is not None")),
    "too few": (2, lambda draft, _known, _name: {"tests": draft["tests"].split("\n")[0]}),
    "one answer": (2, lambda draft, _known, name: {"tests": _repeat_first_test(draft["tests"])}),
    "builds its tests": (3, _replace_tests("for value in range(3):\n    assert NAME(value) == value")),
}
"""Each way to be wrong, how many of a hundred first drafts are so, and what it changes. Revisions are wrong half as often."""


def _repeat_first_test(tests: str) -> str:
    """The first test four times, each with one more blank: still one call."""
    first = tests.split("\n")[0]
    return "\n".join(first.replace("==", f"{' ' * i}==") for i in range(1, 5))


def _write_code_draft(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    asked = question.messages[-1].content
    wanted = re.search(r"Function: define `(\w+)", asked.rpartition("Idea: ")[2])
    name = wanted.group(1) if wanted else f"{rng.choice(WORDS)}_{rng.choice(WORDS)}"
    known = rng.choice(KNOWN_TASKS)
    if "Function: define a class" in asked.rpartition("Idea: ")[2]:
        return _write_other_draft("class", known, name.title().replace("_", ""), rng)
    if "Function: define several" in asked.rpartition("Idea: ")[2]:
        return _write_other_draft("program", known, name, rng)
    if question.contract == "GivenDraft":
        return _write_other_draft("given", known, name, rng)
    draft = _correct_draft(known, name, rng)
    revised = asked.startswith("Not right")
    lot = rng.random() * (200 if revised else 100)
    for rate, spoil in SPOILERS.values():
        lot -= rate
        if lot < 0:
            return {**draft, **spoil(draft, known, name)}
    return draft


def _solve_task(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    """Right four times in five."""
    asked = question.messages[-1].content
    name = re.search(r"Write (?:a class )?`(\w+)|^def (?!compute)(\w+)", asked, re.MULTILINE)
    if name is None:
        return {"solution": "def unknown():\n    return None"}
    own = name.group(1) or name.group(2)
    kind = "given" if name.group(2) else "class" if "Write a class" in asked else ""
    kind = kind or ("program" if " -> tuple`" in asked else "")
    for known in KNOWN_TASKS:
        for k in range(2, 8):
            for m in range(2, 6):
                if asked.startswith(_fill_template(known.task, own, k, m)):
                    wrong = rng.random() >= 0.8
                    if kind:
                        return {"solution": _build_form(kind, known, own, k, m, wrong)}
                    return {"solution": _fill_template(known.wrong if wrong else known.solution, own, k, m)}
    return {"solution": f"def {own}(value):\n    return value"}


SCRIPT: TeacherScript = {
    **COMMON,
    "CodeDraft": _write_code_draft,
    "GivenDraft": _write_code_draft,
    "Solved": _solve_task,
}
