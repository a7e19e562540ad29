"""Our checks of known answers, next to reasoning-gym's own scorers, on right answers in several spellings and wrong ones.

    python -m benchmarks.external_truth.reasoning_gym

Whether an answer is right follows from how it was made from the dataset's own answer. Prints a table and every disagreement, and
exits 1 on a wrong answer that one of our checks passes, or if one refuses more than 1 % of the right ones.
"""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from agents.checks import Check, Subject
from benchmarks.machine import describe_measurement
from core.sample import Seed
from plugins.math.checks.known_answer import answer_check
from plugins.math.families.reasoning import (
    CASELESS_TASKS,
    DIGIT_TASKS,
    GYM_TASKS,
    ProceduralQuestion,
    ReasoningDraft,
    ReasoningFamily,
    solved_check,
    task_settings,
)

ENTRIES = 12
"""Per task: more than 1,000 answers in all."""
SEED = 5
MOST_REFUSED = 0.01
PROBABILITY_TASK = "coin_flip"
"""Its answers are rounded to ten digits, so `answer` allows a relative difference of 1e-6."""
OPPOSITES = {"Yes": "No", "No": "Yes", "True": "False", "False": "True"}
INTRODUCTION = """
Each answer is made from the dataset's own, so it is known whether it is right. The scorer of most tasks compares texts, so it
refuses other spellings (184.0, YES, a typographic minus). `solved` accepts what the scorer accepts, and the dataset's own answer
in another spelling; of `coin_flip`, it refuses what the scorer accepts within 1e-4 (0 for 3.05e-5). `answer` compares with the
dataset's answer as a number or as text, and refuses factors in another order than asked for."""
CHECKERS = ("reasoning-gym", "solved", "answer")


class KnownAnswer(NamedTuple):
    """An answer to one entry of a task, made from the right one."""

    question: ProceduralQuestion
    text: str
    right: bool
    change: str
    """What was done to the right answer."""


def build_answers(task: str, rng: Random) -> Iterator[KnownAnswer]:
    """Right and wrong answers to `ENTRIES` entries of a task, without repetition within an entry."""
    first = ProceduralQuestion(task, task_settings(task, {}), SEED, ENTRIES, 0)
    answers = [str(entry["answer"]) for entry in first.dataset]
    for place, answer in enumerate(answers):
        question = first._replace(place=place)
        other = next((text for text in rng.sample(answers, len(answers)) if text != answer), f"{answer}{answer}")
        numeric = task not in DIGIT_TASKS and re.fullmatch(r"-?\d+(\.\d+)?(e-\d+)?", answer)
        spelled = list(_spell_number(answer) if numeric else _spell_text(task, answer))
        right = dict.fromkeys([("as it is", answer), ("white space", f" {answer}\n"), *spelled])
        wrong = [*(_change_number(answer) if numeric else _change_text(answer, rng)), ("of another entry", other)]
        wrong += [("both", f"{answer} or {other}"), ("denied", f"not {answer}"), ("nothing said", "It depends.")]
        texts = {text for _, text in right}
        yield from (KnownAnswer(question, text, True, change) for change, text in right)
        yield from (
            KnownAnswer(question, text, False, change)
            for text, change in {text: change for change, text in wrong}.items()
            if text not in texts
        )


def _spell_number(answer: str) -> Iterator[tuple[str, str]]:
    """Other spellings of a decimal number."""
    if "e" in answer:
        return
    whole, _, part = answer.partition(".")
    yield "thousands separators", f"{int(whole):,}" + f".{part}" * bool(part) if int(whole) else answer
    yield "trailing zero", f"{answer}0" if part else f"{answer}.0"
    yield "minus sign of typesetting", answer.replace("-", "\N{MINUS SIGN}")


def _spell_text(task: str, answer: str) -> Iterator[tuple[str, str]]:
    if task in CASELESS_TASKS:
        yield "lower case", answer.lower()
        yield "upper case", answer.upper()
    if task == "prime_factorization":
        yield "other order of factors", " × ".join(reversed(answer.split(" × ")))


def _change_number(answer: str) -> Iterator[tuple[str, str]]:
    value = float(answer)
    if re.fullmatch(r"-?\d+", answer):
        yield "one more", str(int(answer) + 1)
        yield "one less", str(int(answer) - 1)
        yield "a half more", f"{answer}.5"
        if len(set(answer.strip("-"))) > 1:
            digits = re.sub(r"(\d)(?!\1)(\d)", r"\2\1", answer, count=1)
            yield "digits swapped", digits
    else:
        mantissa, _, exponent = answer.partition("e")
        last = str((int(mantissa[-1]) + 1) % 10)
        near = len(re.sub(r"\D|^0\.0*", "", mantissa)) < 7  # a later digit is within the allowed difference
        if near:
            yield "last digit", f"{mantissa[:-1]}{last}" + f"e{exponent}" * bool(exponent)
        yield "rounded", f"{value:.1g}" if f"{value:.1g}" != answer and float(f"{value:.1g}") != value else f"{value}1"
    yield "ten times", f"{answer}0" if re.fullmatch(r"-?[1-9]\d*", answer) else f"{10 * value + (value == 0)}"
    if value:
        yield "other sign", answer[1:] if answer.startswith("-") else f"-{answer}"
        yield "zero", "0"
    yield "a list", f"{answer}, {answer}"


def _change_text(answer: str, rng: Random) -> Iterator[tuple[str, str]]:
    if answer in OPPOSITES:
        yield "opposite", OPPOSITES[answer]
    place = rng.choice([i for i, character in enumerate(answer) if character.isalnum()])
    if len(answer) > 1:
        yield "a character missing", answer[:place] + answer[place + 1 :]
    yield "a character doubled", answer[:place] + answer[place] + answer[place:]
    joint = next((mark for mark in (" × ", ", ", " ") if mark in answer), "")
    parts = answer.split(joint) if joint else list(answer)
    at = rng.randrange(len(parts) - 1) if len(parts) > 1 else 0
    if len(parts) > 1 and parts[at].casefold() != parts[at + 1].casefold() and joint != " × ":
        yield "two parts swapped", joint.join([*parts[:at], parts[at + 1], parts[at], *parts[at + 2 :]])
    if joint:
        yield "a part missing", joint.join([*parts[:at], *parts[at + 1 :]])
        yield "a part repeated", joint.join([*parts[: at + 1], parts[at], *parts[at + 1 :]])


def judge_answer(answer: KnownAnswer) -> dict[str, bool]:
    """Whether each of `CHECKERS` finds the answer right."""
    question = answer.question
    entry = question.entry
    expected = str(entry["answer"])
    try:
        scored = float(question.dataset.score_answer(answer.text, entry)) == 1
    except Exception:  # a scorer that cannot read the answer gives no point
        scored = False
    numeric = question.task not in DIGIT_TASKS and re.fullmatch(r"-?\d+(\.\d+)?(e-\d+)?", expected)
    options = {"kind": "numeric" if numeric else "exact", "relative": 1e-6 * (question.task == PROBABILITY_TASK)}
    data = {"question": entry["question"], "category": question.task, "made": question._asdict(), "expected": expected}
    candidate = ReasoningFamily().candidate(
        Seed(id="s-0", data=data), ReasoningDraft(reasoning="x", answer=answer.text)
    )
    subject = Subject(Seed(id="s-0", data=data), candidate, None)  # type: ignore[arg-type]
    return {
        "reasoning-gym": scored,
        "solved": _passes(solved_check, subject),
        "answer": _passes(answer_check, subject, **options),
    }


def _passes(check: Check, subject: Subject, **options: object) -> bool:
    return all(
        finding.passed for finding in asyncio.run(check.findings(subject, check.options.model_validate(options)))
    )


class Disagreements(NamedTuple):
    """Of one checker: how many of the wrong answers it passes and of the right ones it refuses, by task and change."""

    passed: Counter[tuple[str, str]]
    refused: Counter[tuple[str, str]]


def compare_checkers() -> tuple[list[KnownAnswer], dict[str, Disagreements]]:
    rng = Random(SEED)
    answers = [answer for task in GYM_TASKS for answer in build_answers(task, rng)]
    found = {checker: Disagreements(Counter(), Counter()) for checker in CHECKERS}
    for answer in answers:
        for checker, passed in judge_answer(answer).items():
            if passed != answer.right:
                found[checker][answer.right][answer.question.task, answer.change] += 1
    return answers, found


def write_table(answers: list[KnownAnswer], found: dict[str, Disagreements]) -> str:
    right = sum(answer.right for answer in answers)
    lines = [
        "| check | wrong answers | passed wrongly | right answers | refused wrongly |",
        "|---|---:|---:|---:|---:|",
    ]
    for checker, (passed, refused) in found.items():
        count = refused.total()
        lines.append(
            f"| {checker} | {len(answers) - right} | {passed.total()} | {right} | {count} ({count / right:.1%}) |"
        )
    lines += ["", "| check | answer | task | change | number |", "|---|---|---|---|---:|"]
    for checker, disagreements in found.items():
        for way, counts in zip(("passed wrongly", "refused wrongly"), disagreements, strict=True):
            changes: dict[str, dict[str, int]] = {}
            for (task, change), count in sorted(counts.items()):
                changes.setdefault(change, {})[task] = count
            lines += [
                f"| {checker} | {way} | {', '.join(tasks)} | {change} | {sum(tasks.values())} |"
                for change, tasks in changes.items()
            ]
    return "\n".join(lines)


def table() -> str:
    return describe_answers(*compare_checkers())


def describe_answers(answers: list[KnownAnswer], found: dict[str, Disagreements]) -> str:
    command = "Command: `python -m benchmarks.external_truth.reasoning_gym`. reasoning-gym 0.1.25."
    return f"{describe_measurement()}. {command}\n\n{INTRODUCTION.strip()}\n\n{write_table(answers, found)}"


def is_sound(answers: list[KnownAnswer], found: dict[str, Disagreements]) -> bool:
    """Whether our checks pass no wrong answer, and each refuses at most `MOST_REFUSED` of the right ones."""
    right = sum(answer.right for answer in answers)
    ours = [found["solved"], found["answer"]]
    return all(not own.passed and own.refused.total() <= MOST_REFUSED * right for own in ours)


def main() -> None:
    answers, found = compare_checkers()
    sys.stdout.write(f"{describe_answers(answers, found)}\n")
    if not is_sound(answers, found):
        sys.exit(1)


if __name__ == "__main__":
    main()
