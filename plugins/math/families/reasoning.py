"""Questions with one right answer, and the reasoning that leads to it: procedural ones of `reasoning-gym` with their own
verifiers, or the user's questions with their answers. Knows no teacher.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from agents.checks import AttemptJudge, Options, Subject, check
from agents.checks.plain_answers import FINAL_ANSWER, IndependentSolution
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.reply_schema import InvalidReply, ReplySchema
from core.errors import UsageError
from core.installation import format_install_command
from core.sample import Candidate, Message, Seed, json_digest
from plugins.math.checks.answer_equality import compare_answers
from plugins.math.families.arithmetic import PANEL_QUESTIONS
from plugins.math.families.question_filters import correct_question, find_question_fault

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

GYM_TASKS = """aiw base_conversion basic_arithmetic binary_alternation caesar_cipher calendar_arithmetic chain_sum coin_flip
count_bits count_primes course_schedule decimal_chain_sum family_relationships gcd isomorphic_strings largest_island lcm
leg_counting letter_counting needle_haystack number_filtering number_sequence prime_factorization products ransom_note
simple_equations simple_geometry spell_backward string_manipulation syllogism word_sequence_reversal zebra_puzzles""".split()
"""Tasks of reasoning-gym whose answers are short texts and whose verifiers only compare. Other verifiers evaluate an answer as
code, or accept wrong answers: `word_sorting` with more words after it, `knights_knaves` a denied one,
`fraction_simplification` one followed by doubts. They are not offered.
"""
ARITHMETIC_TASKS = {"basic_arithmetic", "chain_sum", "decimal_chain_sum", "gcd", "lcm", "products", "simple_equations"}
"""Tasks that train what arithmetic does."""
OPERATORS = ("+", "-", "*", "/")
"""reasoning-gym evaluates terms with these operators, and checks them with an `assert`, which `python -O` removes."""
MAX_SETTING, MAX_VALUE, MAX_SETTINGS = 1_000, 1_000_000_000, 10_000
"""Largest number of a setting, of a setting whose name ends in `value`, and characters of a task's settings as JSON."""
LIMITS = {
    "basic_arithmetic": {"min_digits": 6, "max_digits": 6},
    "calendar_arithmetic": {"year": 9_999},
    "count_primes": {"min_n": 1_000_000, "max_n": 1_000_000},
    "chain_sum": {"min_digits": 100, "max_digits": 100},
    "decimal_chain_sum": {"min_digits": 100, "max_digits": 100},
    "number_sequence": {"max_terms": 6, "max_complexity": 2},
    "products": {"min_digits": 100, "max_digits": 100, "min_terms": 20, "max_terms": 20},
}
"""Lower limits of settings that can make one question take minutes: `basic_arithmetic` tries all numbers with that many digits
as divisors, and `number_sequence` squares its last term up to `max_complexity + 1` times at each step."""
DEFAULTS: dict[str, dict[str, Any]] = {"number_sequence": {"max_terms": 6, "max_complexity": 2}}
"""Replacements of reasoning-gym's defaults beyond these limits."""
ROUNDED_TASKS = ("coin_flip",)
"""Tasks whose verifier allows an absolute difference of 1e-4, which makes 0 right where the answer is 3.05e-5."""
PROBABILITY = re.compile(
    r"\+?(?:\d+/(?P<below>0*[1-9]\d*)|(?=\.?\d)\d*(?:\.(?P<places>\d*))?(?:e(?P<exponent>[-+]?\d{1,2}))?)",
    re.ASCII | re.IGNORECASE,
)
"""A probability as that verifier reads it, without the exponents that would make it compute for hours."""
MAX_ROUNDING = Fraction(1, 200)
"""The largest relative difference of a rounded answer: that of three significant digits."""
EXACT_ROUNDING = Fraction(1, 10**9)
"""The relative rounding of reasoning-gym's own answers, which have ten digits."""
CASELESS_TASKS = (
    "calendar_arithmetic", "course_schedule", "family_relationships", "isomorphic_strings", "needle_haystack", "syllogism",
)  # fmt: skip
"""Tasks whose answer is a name or a truth value, whatever its case."""
DIGIT_TASKS = ("base_conversion",)
"""Tasks whose answers of digits are no decimal numbers."""
PLAIN_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
ANSWER_PREFIX = "Answer: "
"""The text before the answer in the conversation that a student is trained on."""
MAX_QUESTIONS = 1_000_000
MAX_DRAWS = 40
"""Questions that are drawn for each that is wanted: some are refused, and some come again."""
MAX_ANSWER = 500
"""Characters of an answer that a verifier compares."""


class ReasoningDraft(ReplySchema):
    model_config = ConfigDict(title="Draft")  # part of every request digest and of the reply cache

    reasoning: str = Field(min_length=1)
    answer: str = Field(min_length=1)


class ReasoningOptions(Options):
    tasks: dict[str, int] = Field({})
    """Of reasoning-gym, by weight, to generate seeds."""
    settings: dict[str, dict[str, Any]] = Field({})
    """Of tasks (`chain_sum = { max_digits = 2 }`)."""
    questions: int = Field(1000, ge=1, le=MAX_QUESTIONS)
    """Of all tasks together."""

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        if unknown := sorted({*self.tasks, *self.settings} - set(GYM_TASKS)):
            raise ValueError(f"no such task {', '.join(unknown)}; there are {', '.join(GYM_TASKS)}")
        if min(self.tasks.values(), default=1) < 1:
            raise ValueError("the weight of a task must be 1 or more")
        if not self.tasks:
            return self
        if problem := _reasoning_gym_problem():
            raise ValueError(problem)
        from reasoning_gym import create_dataset

        for task in self.tasks:
            settings = task_settings(task, self.settings.get(task, {}))
            if fault := _find_settings_fault(task, settings):
                raise ValueError(f"settings.{task}: {fault}")
            try:
                create_dataset(task, seed=0, size=1, **settings)[0]
            except (TypeError, AssertionError, ValueError) as error:
                raise ValueError(f"settings.{task}: reasoning-gym does not take {settings}: {error}") from None
        return self


def task_settings(task: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a task, defaults included."""
    return {**DEFAULTS.get(task, {}), **settings}


def _find_settings_fault(task: str, settings: Mapping[str, Any]) -> str | None:
    """The first setting of a task with a wrong type or beyond its limit, in words."""
    if len(json.dumps(settings, default=str)) > MAX_SETTINGS:
        return f"more than {MAX_SETTINGS:,} characters; set less"
    if missing := sorted(DEFAULTS.get(task, {}).keys() - settings.keys()):
        return (
            f"{missing[0]} is missing; set {', '.join(f'{name} = {value}' for name, value in DEFAULTS[task].items())}"
        )
    for name, value in settings.items():
        most = LIMITS.get(task, {}).get(name, MAX_VALUE if name.endswith("value") else MAX_SETTING)
        beyond = isinstance(value, int | float) and not -most <= value <= most
        if beyond or isinstance(value, dict):
            return f"{name} = {str(value)[:40]} is not allowed; a number is {most:,} at most, other values are texts or lists"
        if name == "operators" and not (isinstance(value, list) and all(operator in OPERATORS for operator in value)):
            return f"operators = {str(value)[:40]!r} is not allowed; it is a list of {', '.join(OPERATORS)}"
    return None


def _reasoning_gym_problem() -> str | None:
    """Why procedural tasks are not available, in a sentence; None if they are."""
    from importlib.util import find_spec

    if find_spec("reasoning_gym"):
        return None
    return f"procedural tasks need the extra `math` (reasoning_gym is missing): run {format_install_command('math')}"


class ProceduralQuestion(NamedTuple):
    """The values from which one procedural question is generated again."""

    task: str
    settings: dict[str, Any]
    seed: int
    size: int
    """Of the data set that contains the question."""
    place: int

    @property
    def dataset(self) -> "ProceduralDataset":
        return _cached_dataset(self.task, json.dumps(self.settings, sort_keys=True), self.seed, self.size)

    @property
    def entry(self) -> dict[str, Any]:
        """The question with its answer; not to be changed."""
        return _cached_entry(self.dataset, self.place)


def parse_procedural_question(row: Mapping[str, Any]) -> ProceduralQuestion:
    """The values from which a seed's question is generated again. A seeds file can contain them, so they are untrusted.

    Raises:
        UnusableSeedRow: if the task is not in `GYM_TASKS`, or the fields are not those of `ProceduralQuestion`.
    """
    made = row["made"]
    if not isinstance(made, Mapping) or set(made) != set(ProceduralQuestion._fields):
        raise UnusableSeedRow(f"'made' with {', '.join(ProceduralQuestion._fields)}, not {str(made)[:40]!r}")
    task, settings, numbers = made["task"], made["settings"], [made[name] for name in ("seed", "size", "place")]
    if not isinstance(task, str) or task not in GYM_TASKS:
        raise UnusableSeedRow(f"'made.task' with one of {', '.join(GYM_TASKS)}, not {str(task)[:40]!r}")
    if settings is not None and not isinstance(settings, Mapping):
        raise UnusableSeedRow(f"'made.settings' with a table, not {str(settings)[:40]!r}")
    settings = {
        name: value for name, value in (settings or {}).items() if value is not None
    }  # Parquet fills with nulls
    if fault := _find_settings_fault(task, settings):
        raise UnusableSeedRow(f"'made.settings' within limits: {fault}")
    if not all(type(number) is int for number in numbers) or not 0 <= made["place"] < made["size"] <= MAX_QUESTIONS:
        raise UnusableSeedRow(f"'made' with 0 <= place < size <= {MAX_QUESTIONS:,} and a whole number as seed")
    return ProceduralQuestion(task, settings, *numbers)


@lru_cache(maxsize=64)
def _cached_dataset(task: str, settings: str, seed: int, size: int) -> "ProceduralDataset":
    from reasoning_gym import create_dataset

    return create_dataset(task, seed=seed, size=size, **json.loads(settings))


@lru_cache(maxsize=256)
def _cached_entry(dataset: "ProceduralDataset", place: int) -> dict[str, Any]:
    """An entry is generated again for each access, which takes 50 ms for a zebra puzzle, and is needed for each answer to it."""
    entry: dict[str, Any] = dataset[place]
    return entry


@lru_cache(maxsize=4)
def _draw_rows(tasks: tuple[tuple[str, int], ...], settings: str, questions: int, seed: int) -> list[dict[str, Any]]:
    """The same rows for each caller, since a process asks for them several times and zebra puzzles take seconds."""
    rows: list[dict[str, Any]] = []
    own, total = json.loads(settings), sum(weight for _, weight in tasks)
    for task, weight in tasks:
        wanted = max(1, round(questions * weight / total))
        size = min(MAX_DRAWS * wanted, MAX_QUESTIONS)
        numbered = int(json_digest([seed, task], length=7), 16)
        first = ProceduralQuestion(task, task_settings(task, own.get(task, {})), numbered, size, 0)
        rows += islice(draw_fair_questions(first), wanted)
    return rows


def draw_fair_questions(first: ProceduralQuestion) -> Iterator[dict[str, Any]]:
    """The rows of a data set's different questions, from the `first` on, that `question_filters` refuses none of.

    Raises:
        UsageError: if all are refused.
    """
    task, dataset = first.task, first.dataset
    refused, seen = Counter[str](), set[str]()
    for place in range(first.place, first.size):
        entry = dataset[place]
        if fault := find_question_fault(task, dataset, entry):
            refused[fault] += 1
        elif (question := correct_question(task, entry)) not in seen:
            seen.add(question)
            yield {"question": question, "category": task, "made": first._replace(place=place)._asdict()}
    if not seen:
        reasons = ", ".join(f"{name} {count}" for name, count in refused.most_common())
        raise UsageError(
            f"task.settings.{task}: none of {first.size:,} questions is fair ({reasons}); change its settings"
        )


def _solves_procedural_question(subject: Subject, reply: IndependentSolution, _options: Options) -> bool:
    return _find_wrong_answer(subject.seed, reply.answer_text.strip()) is None


@check("solved", attempt=AttemptJudge(IndependentSolution, _solves_procedural_question))
def solved_check(subject: Subject, _options: Options) -> str | None:
    """The verifier of reasoning-gym for this task must find the answer right."""
    return _find_wrong_answer(subject.seed, subject.candidate.fields["answer"].strip())


def _find_wrong_answer(seed: Seed, given: str) -> str | None:
    """The fault of an answer to a procedural question, by reasoning-gym's own verifier."""
    made = parse_procedural_question(seed.data)
    if len(given) > MAX_ANSWER:
        return f"the answer is {len(given)} characters long"
    entry = made.entry
    if made.task in ROUNDED_TASKS and not _is_rounding(entry["answer"], given):
        return f"the answer {given!r} is wrong"
    try:
        score = float(made.dataset.score_answer(given, entry))
    except Exception:  # some verifiers raise any exception on texts that they cannot parse; these are wrong answers
        score = 0.0
    right = score == 1 or _is_other_spelling(made.task, str(entry["answer"]), given)
    return None if right else f"the answer {given!r} is wrong"


def _is_other_spelling(task: str, expected: str, given: str) -> bool:
    """Whether `given` is the dataset's own answer in another spelling that no question asks about: a number of the same value
    (184.0, 1,234, a typographic minus), or a name or truth value in another case. Most verifiers compare texts.
    """
    if task in CASELESS_TASKS and expected.casefold() == given.casefold():
        return True
    if task in ROUNDED_TASKS or task in DIGIT_TASKS or not PLAIN_NUMBER.fullmatch(expected):
        return False
    return compare_answers("numeric", expected, given).equal


def _is_rounding(expected: str, given: str) -> bool:
    """Whether `given` is the number `expected`, or a correct rounding of it that differs by `MAX_ROUNDING` at most."""
    written = PROBABILITY.fullmatch(given)
    if not written:
        return False
    exact, value = Fraction(expected), Fraction(given)
    last_digit = Fraction(10) ** (int(written["exponent"] or 0) - len(written["places"] or "")) * (not written["below"])
    apart = abs(exact - value)
    return apart <= MAX_ROUNDING * abs(exact) and apart <= max(last_digit / 2, EXACT_ROUNDING * abs(exact))


class ReasoningFamily(RecipeFamily):
    name = "reasoning"
    prompts = Path(__file__).parents[1] / "prompts" / "reasoning"
    extra = "math"
    answer_hint = FINAL_ANSWER.hint
    fields = ("reasoning", "answer")
    options = ReasoningOptions
    checks = (solved_check,)
    seeded_by = ("path", "itself")
    # The right answer is known, so no critic is asked. Different questions can have the same answer.
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {"generator": {"max_tokens": 900, "examples": 3}, "critic": False},
        "verifiers": [{"type": "solved"}, {"type": "steps"}],
        "filters": [{"type": "exact"}, {"type": "minhash"}],
    }

    def rows(self, options: ReasoningOptions, seed: int) -> Sequence[Mapping[str, Any]]:
        return _draw_rows(tuple(options.tasks.items()), json.dumps(options.settings), options.questions, seed)

    def list_trained_questions(
        self, options: ReasoningOptions, read_rows: Callable[[], Sequence[Mapping[str, Any]]]
    ) -> Collection[str]:
        tasks = set(options.tasks) or {str(row.get("category", "")) for row in read_rows()}
        return tasks | (PANEL_QUESTIONS if tasks & ARITHMETIC_TASKS else frozenset())

    def condition(self, row: Mapping[str, Any], options: ReasoningOptions, rng: Random) -> dict[str, Any]:
        data = {"question": require_text(row, "question"), "category": require_text(row, "category", "")}
        if row.get("made") is None:
            return {**data, "expected": row["answer"]}
        return {**data, "made": parse_procedural_question(row)._asdict()}

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return ReasoningDraft

    def questions(self, seed: Seed) -> Sequence[Message]:
        return [Message(role="user", content=seed.data["question"])]

    def build_answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        reasoning, text, answer = answers[0].rpartition(ANSWER_PREFIX)
        if not (text and reasoning.strip() and answer.strip()):
            raise InvalidReply(f"the reply does not reason and then say {ANSWER_PREFIX.strip()!r}")
        return self.candidate(seed, ReasoningDraft(reasoning=reasoning, answer=answer))

    def candidate(self, seed: Seed, draft: ReasoningDraft) -> Candidate:
        reasoning, answer = draft.reasoning.strip(), draft.answer.strip()
        asked = Message(role="user", content=seed.data["question"])
        answered = Message(role="assistant", content=f"{reasoning}\n\n{ANSWER_PREFIX}{answer}")
        return Candidate(messages=[asked, answered], fields={"reasoning": reasoning, "answer": answer})
