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
    """The reply must be in the script of the recipe's language, and from 20 letters on in this language (py3langid)."""
    language, prose = subject.seed.data["language"], read_prose(subject)
    if (letters := sum(map(str.isalpha, prose))) and (len(CHARACTER.findall(prose)) > letters / 2) != (
        language == "zh"
    ):
        return f"it is {'not ' if language == 'zh' else ''}in Chinese characters"
    config = LanguageFilter(type="language", languages=(language,))
    drops = drop_other_languages([Document("", prose.lower())], config)
    return first_fault([drop.detail for drop in drops])


def read_prose(subject: Subject) -> str:
    """What a candidate says in sentences: the text of an extraction, a question with its answer, or the answers."""
    fields = subject.candidate.fields
    if "text" in fields:
        return str(fields["text"])
    said = [turn.content for turn in subject.candidate.messages if turn.role == "assistant"]
    if "question" in fields:
        said = [fields["answer"]] if subject.seed.data.get("answerable", True) else []
    return "\n".join([*(fields[name] for name in ("question", "instruction") if name in fields), *said])
