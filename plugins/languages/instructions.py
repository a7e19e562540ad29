"""New instructions with answers in German, French, Spanish and Chinese, from existing ones: the ways of the English family, by
requests, prompts and checks of the language. Knows no teacher.
"""

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import Field
from rapidfuzz.distance import Indel

from agents.checks import Check, Options, Subject, check, first_fault
from agents.families.base import validate_weights
from agents.families.instructions import LENGTHENING_WAYS, MIN_CONCRETE_WORDS, REWRITING_WAYS, InstructionsFamily
from agents.families.task_draws import EVOLUTION_WAYS, InstructionsOptions
from filters.base import Document
from plugins.languages.codes import NAMES
from plugins.languages.local_answers import (
    CHINESE_COMMON,
    count_local_words,
    is_known_word,
    list_content_words,
    list_units,
)
from plugins.languages.local_family import LocalFamily, in_language_check, read_task_wordings
from plugins.languages.local_quantities import fold_letters
from plugins.languages.refusals import find_refusal
from plugins.languages.rules import LANGUAGES


class LocalInstructionsOptions(Options):
    ways: Annotated[dict[str, int], validate_weights("way", EVOLUTION_WAYS)] = Field(
        default_factory=lambda: dict(InstructionsOptions().ways), min_length=1
    )
    """To derive a task, by weight."""
    shown: int = Field(6, ge=1, le=20)
    """Seed tasks shown as examples."""
    shown_made: int = Field(2, ge=0, le=20)
    """Further ones that this run made, with `seeds.bootstrap`."""


class LocalNovelOptions(Options):
    threshold: float = Field(0.7, gt=0, le=1)
    """ROUGE-L of words, or of Chinese characters, from which two tasks are the same."""


class LocalAskableOptions(Options):
    min_words: int = Field(3, ge=1)
    max_words: int = Field(200, ge=1)


@check("novel", LocalNovelOptions, languages=LANGUAGES)
def local_novel_check(subject: Subject, options: LocalNovelOptions) -> str | None:
    """The task must differ from its parent and from those shown; a rewritten one must add content words to its parent."""
    seed, task = subject.seed.data, subject.candidate.fields["instruction"]
    language, parent, way = seed["language"], seed["parent"], seed["way"]
    if way in REWRITING_WAYS:
        return _find_addition_fault(task, parent, way, language)
    near = {other: compare_tasks(task, other, language) for other in [parent, *seed["examples"]]}
    other = max(near, key=near.__getitem__)
    return (
        f"it is too near to this task: {other!r} (ROUGE-L {near[other]:.2f})"
        if near[other] >= options.threshold
        else None
    )


def compare_tasks(left: str, right: str, language: str) -> float:
    """ROUGE-L of two tasks by words, or by Chinese characters."""
    return float(Indel.normalized_similarity(list_units(left, language), list_units(right, language)))


def _find_addition_fault(task: str, parent: str, way: str, language: str) -> str | None:
    units, parent_units = list_units(task, language), list_units(parent, language)
    empty = read_task_wordings(language, "instructions")["empty_words"]
    if units == parent_units:
        return f"it is the task that it came from: {parent!r}"
    if way in LENGTHENING_WAYS and len(units) <= len(parent_units):
        return f"it is no longer than the task that it came from, which it must add to: {parent!r}"
    if language == "zh":
        added = {*units} - {*parent_units, *empty} - CHINESE_COMMON
    else:
        known = list_content_words(f"{parent} {empty}", language)
        added = {word for word in list_content_words(task, language) if not is_known_word(word, known)}
    least = 1 if way in LENGTHENING_WAYS else MIN_CONCRETE_WORDS
    return (
        None
        if len(added) >= least or re.search(r"\d", task)
        else f"it adds nothing to the task that it came from: {parent!r}"
    )


@check("askable", LocalAskableOptions, languages=LANGUAGES)
def local_askable_check(subject: Subject, options: LocalAskableOptions) -> str | None:
    """The task must be for text alone, of a fit length, and not speak of its prompt."""
    task, language = subject.candidate.fields["instruction"], subject.seed.data["language"]
    wordings, parent = read_task_wordings(language, "instructions"), fold_letters(subject.seed.data["parent"])
    count, plain = count_local_words(task, language), fold_letters(task)
    found = {name: re.search(wordings[name], plain) for name in ("beyond_text", "prompt_words")}
    foreign = {name: match[0] for name, match in found.items() if match and match[0] not in parent}
    return first_fault(
        [
            None if options.min_words <= count <= options.max_words else f"the task has {count} words",
            f"a model of text cannot work with {foreign['beyond_text']!r}" if "beyond_text" in foreign else None,
            f"the task speaks of {foreign['prompt_words']!r}; it must stand alone"
            if "prompt_words" in foreign
            else None,
        ]
    )


@check("answered", languages=LANGUAGES)
def local_answered_check(subject: Subject, _options: Options) -> str | None:
    """The answer must not be a refusal, the task again, or empty words."""
    task, language = subject.candidate.fields["instruction"], subject.seed.data["language"]
    answer = subject.candidate.messages[-1].content
    if find_refusal(Document("", answer), [language]):
        return "the answer refuses"
    empty = read_task_wordings(language, "instructions")["empty_words"]
    said, asked, nothing = (list_units(text, language) for text in (answer, task, empty))
    if {*said} <= {*nothing} and not re.search(r"\d", answer):
        return "the answer says nothing"
    return "the answer is the task again" if {*said} <= {*asked, *nothing} and len(said) >= len(asked) else None


class LocalInstructionsFamily(LocalFamily, InstructionsFamily):
    options = LocalInstructionsOptions  # type: ignore[assignment]
    writes = ("generator",)  # type: ignore[assignment]
    local_checks: ClassVar[Sequence[Check]] = (
        local_novel_check,
        local_askable_check,
        local_answered_check,
        in_language_check,
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {"generator": {"max_tokens": 3000}},
        "verifiers": [{"type": "askable"}, {"type": "novel"}, {"type": "answered"}, {"type": "in_language"}],
        "filters": [{"type": "local_refusal"}, {"type": "exact"}, {"type": "novelty"}],
    }

    def condition(self, row: Mapping[str, Any], options: Any, rng: Random) -> dict[str, Any]:
        way = rng.choices(list(options.ways), list(options.ways.values()))[0]
        examples: list[str] = []
        if way == "new":
            examples = rng.sample(row["tasks"], min(options.shown, len(row["tasks"])))
            examples += rng.sample(row["made"], min(options.shown_made, len(row["made"])))
            rng.shuffle(examples)
        shown = "\n".join(f"{number}. {task}" for number, task in enumerate(examples, 1))
        wording = read_task_wordings(self.language, "instructions")[way]
        return {
            "way": way,
            "category": row["category"],
            "parent": row["task"],
            "examples": examples,
            "request": wording.replace("{shown}", shown).replace("{parent}", row["task"]),
            "language": self.language,
            "language_name": NAMES[self.language],
        }
