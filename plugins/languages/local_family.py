"""What families of one language share: their language, their wordings, and the check of the language of a reply. Knows no
teacher.
"""

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from agents.checks import Check, Options, Subject, check, first_fault
from agents.families.base import RecipeFamily
from core.config.filters import LanguageFilter
from filters.base import Document
from filters.rules.language import drop_other_languages
from plugins.languages.rules import LANGUAGES
from plugins.languages.units import CHARACTER

PROMPTS = Path(__file__).with_name("prompts")
TASKS = Path(__file__).with_name("data") / "tasks"


class LocalFamily(RecipeFamily):
    """A family whose prompts, requests and checks are of one language."""

    language: ClassVar[str]
    local_checks: ClassVar[Sequence[Check]]
    """In the place of the family's own."""


@cache
def read_task_wordings(language: str, family: str) -> dict[str, Any]:
    """The wordings of a family in a language."""
    table: dict[str, Any] = tomllib.loads((TASKS / f"{language}.toml").read_text(encoding="utf-8"))[family]
    return table


@check("in_language", languages=LANGUAGES)
def in_language_check(subject: Subject, _options: Options) -> str | None:
    """The reply must be in the script of the recipe's language, and from 20 letters on in this language (py3langid). A task
    and its answer are each judged alone: next to a long task, the language of a short answer hardly counts.
    """
    language, parts = subject.seed.data["language"], list_prose(subject)
    prose = "\n".join(parts)
    if (letters := sum(map(str.isalpha, prose))) and (len(CHARACTER.findall(prose)) > letters / 2) != (
        language == "zh"
    ):
        return f"it is {'not ' if language == 'zh' else ''}in Chinese characters"
    wanted = LanguageFilter(type="language", languages=(language,))
    drops = drop_other_languages([Document("", part.lower()) for part in parts], wanted)
    return first_fault([drop.detail for drop in drops])


def list_prose(subject: Subject) -> list[str]:
    """What a candidate says in sentences: a task and its answer, or one text of an extraction, a question with its answer, or the
    answers.
    """
    fields = subject.candidate.fields
    said = [turn.content for turn in subject.candidate.messages if turn.role == "assistant"]
    if "question" in fields:
        said = [fields["question"], *([fields["answer"]] if subject.seed.data.get("answerable", True) else [])]
    if "instruction" in fields:
        return [fields["instruction"], *said]
    return [str(fields.get("text", "\n".join(said)))]
