"""What is drawn for a task and its answer, by weight, and the check that the answer has the drawn length and form. Knows no
teacher and no seed task.
"""

import re
from collections.abc import Callable, Mapping
from random import Random
from textwrap import shorten
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from agents.checks import Options, Subject, check
from agents.checks.text.text_units import max_word_count, min_word_count, remove_code
from agents.families.base import validate_weights
from agents.families.document_constraints import HEADING, measure_tables
from agents.sources.conditions import draw_persona, draw_situation
from core.errors import suggest_name
from core.sample import Seed

EVOLUTION_WAYS = {
    "new": "Write a new task of another kind than these:\n{shown}",
    "constrain": "Rewrite this task with one more condition that its answer must meet:\n{parent}",
    "deepen": "Rewrite this task so that it goes deeper into one side of the same matter:\n{parent}",
    "concretize": "Rewrite this task for a concrete case, with names, numbers or material of your own:\n{parent}",
    "reason": "Rewrite this task so that it takes several steps of thought where it took one:\n{parent}",
    "broaden": (
        "Write a task of the same field and about the same length as this one, of a kind that is seldom asked for:\n{parent}"
    ),
}
"""Self-Instruct's way, and Evol-Instruct's four that deepen and one that broadens (WizardLM, section 3.2 and appendix A)."""
SHAPED_WAYS = {"new", "broaden", "deepen"}
"""The ways whose answer has a drawn length, and whose task may have a system message and later turns."""
MAX_EVOLVED_WORDS = 400
"""A task that is evolved from a short one needs no longer answer."""
NONE = "none"
"""A drawn value that adds nothing to the request."""
SYSTEM_LABEL, TURN_LABEL = "System message", "Turn {} of the user"
MAX_TURNS = 6
TASK_LENGTH_LABEL = "Length of the task"
FORM_LABEL, LENGTH_LABEL = "Form of the answer", "Length of the answer"
BAND = re.compile(r"(\d+) to (\d+) words")
ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)]) +\S", re.MULTILINE)
FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(?:(?![ \t]*```).*\n)+[ \t]*```", re.MULTILINE)
"""A block of code with a line or more."""
FORMULA = re.compile(
    r"\$\$.{1,2000}?\$\$|\\\[.{1,2000}?\\\]|\\\(.{1,2000}?\\\)|\$[^$\n]{0,200}[=^_\\+<>/-][^$\n]{0,200}\$", re.DOTALL
)
"""LaTeX between its marks. Between the dollar signs of two prices there is seldom an operator."""
TOLERANCE = 0.2
"""Words beyond the asked length, as a share of its bounds."""
Weights = Annotated[dict[str, float], validate_weights("value")]
LEAST_HEADINGS, LEAST_ITEMS, LEAST_ROWS = 2, 3, 2


def parse_length_band(band: str) -> tuple[int, int]:
    """The fewest and most words of `80 to 150 words`. Raises ValueError for other text."""
    match = BAND.fullmatch(band)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"{band!r} is no length; write one such as `80 to 150 words`")
    return int(match[1]), int(match[2])


LengthBand = Annotated[str, AfterValidator(lambda band: parse_length_band(band) and band)]


def _has_table(text: str) -> bool:
    return any(len(rows) > LEAST_ROWS for rows in measure_tables(text))


def _is_plain(text: str) -> bool:
    return not (HEADING.search(text) or FENCE.search(text) or _has_table(text) or len(ITEM.findall(text)) > 1)


ANSWER_FORMS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "plain prose": (_is_plain, "has Markdown where plain prose is asked for"),
    "headings": (
        lambda text: len(HEADING.findall(remove_code(text))) >= LEAST_HEADINGS,
        f"has fewer than {LEAST_HEADINGS} Markdown headings",
    ),
    "a list": (
        lambda text: len(ITEM.findall(FENCE.sub("", text))) >= LEAST_ITEMS,
        f"has no list with {LEAST_ITEMS} items or more, each on a line",
    ),
    "a table": (_has_table, f"has no Markdown table with {LEAST_ROWS} rows or more"),
    "code": (lambda text: bool(FENCE.search(text)), "has no code between lines of ```"),
    "mathematics": (lambda text: bool(FORMULA.search(text)), "has no formula in LaTeX between dollar signs"),
}
"""By the form that is asked for: whether a text has it, and the fault."""


@check("answer_shape")
def answer_shape_check(subject: Subject, _options: Options) -> str | None:
    """The first answer must have the drawn length and form. Code and formulas may count as words or not."""
    answer = next((turn.content for turn in subject.candidate.messages if turn.role == "assistant"), "")
    asked, faults = subject.seed.conditions, []
    if BAND.fullmatch(asked.get(LENGTH_LABEL, "")):
        low, high = parse_length_band(asked[LENGTH_LABEL])
        least, most = min_word_count(FORMULA.sub(" ", remove_code(answer))), max_word_count(answer)
        if most < low * (1 - TOLERANCE) or least > high * (1 + TOLERANCE):
            faults.append(f"has {most if most < low else least} words where {low} to {high} are asked for")
    has_form, fault = ANSWER_FORMS.get(asked.get(FORM_LABEL, ""), (None, ""))
    if has_form and not has_form(answer):
        faults.append(fault)
    return f"the answer {' and '.join(faults)}" if faults else None


class TaskType(Options):
    """Kinds of tasks with like answers."""

    kinds: tuple[str, ...] = Field(min_length=1)
    """Such as `correct given text`."""
    weight: float = Field(1, ge=0)
    """Of the type."""
    forms: Annotated[dict[str, float], validate_weights("form", (*ANSWER_FORMS, NONE))] = Field(default_factory=dict)
    """Of the answer, by weight."""
    words: tuple[int, int] = (1, 10_000)
    """The bounds of its `answers`."""
    draw: dict[str, Weights] = Field(default_factory=dict)
    """More lines of the request, by weight."""

    @field_validator("words")
    @classmethod
    def _ordered(cls, words: tuple[int, int]) -> tuple[int, int]:
        if words[0] >= words[1]:
            raise ValueError(f"needs the fewest words before the most, such as [40, 800], not {list(words)}")
        return words


class InstructionsOptions(Options):
    ways: Annotated[dict[str, int], validate_weights("way", EVOLUTION_WAYS)] = Field(
        default_factory=lambda: {"new": len(EVOLUTION_WAYS) - 1} | dict.fromkeys(list(EVOLUTION_WAYS)[1:], 1),
        min_length=1,
    )
    """To derive a task; by weight, as all tables here."""
    types: dict[str, TaskType] = Field(default_factory=dict)
    """Of a new task. Empty: any."""
    fields: Weights = Field(default_factory=dict)
    """Subjects of new tasks."""
    lengths: Weights = Field(default_factory=dict)
    """Of new tasks, in your words."""
    openings: Weights = Field(default_factory=dict)
    """How a task begins."""
    answers: Annotated[dict[LengthBand, float], validate_weights("value")] = Field(default_factory=dict)
    """Lengths of answers, such as `80 to 150 words`."""
    systems: Weights = Field(default_factory=dict)
    """Kinds of system messages, and `none`."""
    turns: Annotated[dict[int, float], validate_weights("number", range(1, MAX_TURNS + 1))] = Field(
        default_factory=lambda: {1: 1.0}, min_length=1
    )
    """Numbers of the user's turns."""
    reactions: Weights = Field(default_factory=dict)
    """What a later turn does, each once."""
    askers: float = Field(0, ge=0, le=1)
    """Share with a person and situation."""
    apart: tuple[tuple[str, str], ...] = ()
    """Values, types or ways never drawn together."""
    shown: int = Field(6, ge=1, le=20)
    """Seed tasks shown as examples."""
    shown_made: int = Field(2, ge=0, le=20)
    """Further ones that this run made, with `seeds.bootstrap`."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.types and not sum(one.weight for one in self.types.values()):
            raise ValueError("types: needs at least one type with a weight above 0")
        later, ways = max(self.turns) - 1, sum(weight > 0 for weight in self.reactions.values())
        if ways < later:
            raise ValueError(
                f"turns = {later + 1} needs {later} `reactions` or more, one for each later turn, not {ways}"
            )
        tables = [self.fields, self.lengths, self.openings, self.answers, self.systems, self.reactions]
        tables += [table for one in self.types.values() for table in (one.forms, *one.draw.values())]
        kinds = [kind for one in self.types.values() for kind in one.kinds]
        values = [*EVOLUTION_WAYS, *self.types, *kinds, *(value for table in tables for value in table)]
        if unknown := next((value for pair in self.apart for value in pair if value not in values), None):
            advice = shorten(suggest_name(unknown, values), 200, placeholder=" …")
            raise ValueError(f"apart: {unknown!r} is no value, type or way of the recipe; {advice}")
        return self


def count_later_turns(seed: Seed) -> int:
    """Turns of the user after the first one."""
    return sum(TURN_LABEL.format(number) in seed.conditions for number in range(2, MAX_TURNS + 1))


class TaskDraw:
    """What is drawn for a task of a way, by its label in the request; later values fit the earlier ones."""

    def __init__(self, options: InstructionsOptions, way: str, rng: Random) -> None:
        self._options, self._way, self._rng = options, way, rng
        self._taken = {way}
        self._drawn: dict[str, str] = {}

    def draw_all(self) -> tuple[str, dict[str, str]]:
        """The name of the type, "" for none, and the values by label."""
        options, type_name, words = self._options, "", (1, MAX_EVOLVED_WORDS)
        if self._way == "new":
            type_name = self._choose({name: one.weight for name, one in options.types.items()})
            drawn = options.types.get(type_name, TaskType.model_construct(kinds=()))
            words = drawn.words
            self._draw("Kind", dict.fromkeys(drawn.kinds, 1.0))
            for label, weights in drawn.draw.items():
                self._draw(label, weights)
            if TASK_LENGTH_LABEL not in self._drawn:
                self._draw(TASK_LENGTH_LABEL, options.lengths)
        if self._way in SHAPED_WAYS:
            if type_name:
                self._draw(FORM_LABEL, options.types[type_name].forms)
            self._draw(LENGTH_LABEL, _bands_within(options.answers, words))
            self._draw(SYSTEM_LABEL, options.systems)
            reactions = dict(options.reactions)
            for number in range(2, self._rng.choices(list(options.turns), list(options.turns.values()))[0] + 1):
                self._draw(TURN_LABEL.format(number), reactions)
                reactions.pop(self._drawn.get(TURN_LABEL.format(number), ""), None)
        if self._way == "new":
            self._draw("Field", options.fields)
        self._draw("Opening", options.openings)
        if options.askers and self._rng.random() < options.askers:
            self._drawn |= {"Asker": draw_persona(self._rng), "Situation": draw_situation(self._rng)}
        return type_name, self._drawn

    def _draw(self, label: str, weights: Mapping[str, float]) -> None:
        if (value := self._choose(weights)) not in ("", NONE):
            self._drawn[label] = value

    def _choose(self, weights: Mapping[str, float]) -> str:
        """A value that goes with all that is drawn; "" without any."""
        apart, taken = self._options.apart, self._taken
        barred = {b for a, b in apart if a in taken} | {a for a, b in apart if b in taken}
        fitting = {value: weight for value, weight in weights.items() if value not in barred}
        if not sum(fitting.values()):
            return ""
        value: str = self._rng.choices(list(fitting), list(fitting.values()))[0]
        self._taken.add(value)
        return value


def _bands_within(answers: Mapping[str, float], words: tuple[int, int]) -> dict[str, float]:
    bands = {band: parse_length_band(band) for band in answers}
    return {band: answers[band] for band, (low, high) in bands.items() if words[0] <= low and high <= words[1]}
