"""Constrained instructions in German, French, Spanish and Chinese: the family of English ones, with rules, wordings and checks of
the language. Knows no teacher.
"""

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import Field

from agents.checks import Check, Finding, Options, Subject, build_finding, check
from agents.checks.text.text_units import fold_to_plain_letters
from agents.families.base import require_text, validate_weights
from agents.families.constrained_instructions import (
    ConstrainedInstructionsFamily,
    ConstrainedOptions,
    read_topic,
    sound_prose_check,
)
from agents.families.document_constraints import COMMON_WORDS
from plugins.languages.codes import NAMES
from plugins.languages.local_family import LocalFamily, in_language_check
from plugins.languages.rules import LANGUAGES, LocalRule, draw_rules, list_kinds
from plugins.languages.units import list_word_parts, read_wordings

EMPTY_CHARACTERS = re.compile("[的一个了着里在]")
LEAST_STEM = 4
"""Letters that a word shares with one of its topic. Of one letter less, the whole word is sought: `thé`."""


@check("constraints", languages=LANGUAGES)
def local_constraints_check(subject: Subject, _options: Options) -> list[Finding]:
    """A program checks every rule that the instruction states."""
    answer = subject.candidate.answer
    rules = [LocalRule.model_validate(rule) for turn in subject.seed.data["constraints"] for rule in turn]
    return [build_finding(rule.kind, rule.fault(answer), f"meets: {rule.text}") for rule in rules]


@check("on_topic", hint=True, languages=LANGUAGES)
def local_topic_check(subject: Subject, _options: Options) -> str | None:
    """The answer must have a word of its topic, or one that begins or ends like it.

    Where a teacher is the critic, it is given what is missing and decides.
    """
    seed = subject.seed.data
    return find_local_topic_fault(subject.candidate.answer, seed["topic"], seed["words"], seed["language"])


def find_local_topic_fault(answer: str, topic: str, words: Sequence[str], language: str) -> str | None:
    """The fault of an answer without a word of its topic, or None."""
    fault = f"it has no word of the topic {topic!r}"
    if language == "zh":
        pairs = (topic[i : i + 2] for i in range(len(topic) - 1))
        wanted = {topic, *words, *(pair for pair in pairs if not EMPTY_CHARACTERS.search(pair))}
        return None if any(word in answer for word in wanted) else fault
    parts = {part for name in (topic, *words) for part in list_word_parts(name, plain=True)}
    parts -= COMMON_WORDS[NAMES[language]]
    stems = {part[: max(LEAST_STEM, len(part) - 2)] for part in parts if len(part) >= LEAST_STEM}
    short = {part for part in parts if len(part) == LEAST_STEM - 1}
    plain = fold_to_plain_letters(answer)
    found = any(stem in plain for stem in stems) or not short.isdisjoint(list_word_parts(answer, plain=True))
    return None if found else fault


CHECKS = (local_constraints_check, local_topic_check, in_language_check, sound_prose_check)
"""The last judges English only, and is refused with its reason."""


class LocalConstrainedFamily(LocalFamily, ConstrainedInstructionsFamily):
    """Of one language, by `localize`."""

    local_checks: ClassVar[Sequence[Check]] = CHECKS
    defaults: ClassVar[Mapping[str, Any]] = {
        **ConstrainedInstructionsFamily.defaults,
        "verifiers": [{"type": "constraints"}, {"type": "on_topic"}, {"type": "in_language"}],
        "filters": [
            {"type": "length"},
            {"type": "local_refusal"},
            {"type": "repetition"},
            {"type": "exact", "of": "answer"},
            {"type": "minhash", "of": "answer"},
        ],
    }

    def condition(self, row: Mapping[str, Any], options: ConstrainedOptions, rng: Random) -> dict[str, Any]:
        topic = read_topic(row)
        rules = draw_rules(rng, topic, options.kinds, rng.choice(options.constraints), self.language)
        task = rng.choice(read_wordings(self.language)["tasks"]).format(topic=topic.name)
        request = ("" if self.language == "zh" else " ").join([task, *(rule.text for rule in rules)])
        return {
            "topic": topic.name,
            "category": require_text(row, "category", ""),
            "words": list(topic.words),
            "language": self.language,
            "language_name": NAMES[self.language],
            "constraints": [[rule.model_dump(mode="json") for rule in rules]],
            "system": "",
            "requests": [request],
            "instruction": request,
        }


def limit_kinds(language: str) -> type[ConstrainedOptions]:
    """The options of the family, with the kinds that the language has."""

    class LocalOptions(ConstrainedOptions):
        kinds: Annotated[dict[str, int], validate_weights(f"{NAMES[language]} kind", list_kinds(language))] = Field(
            default_factory=lambda: dict.fromkeys(list_kinds(language), 1), min_length=1
        )

    return LocalOptions
