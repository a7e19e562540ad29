"""Which languages checks and filters can judge, and what a recipe names that cannot judge its language."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from agents.checks.registry import list_checks
from agents.families import list_families
from agents.planning.run_plan import RunPlan
from core.config.base import read_table_type
from core.config.filters import FILTER_EXTENSIONS, FILTER_TABLES, FilterConfig
from core.errors import RecipeProblem
from core.installation import format_install_command, list_missing_packages
from core.weights.packaged_weights import EMBEDDED_TEACHER
from filters.base import Document
from filters.chain.registry import find_filter_entry
from filters.rules.quality import ANSWER_RULES
from plugins.languages.codes import ENGLISH, EXAMPLES, SECTION, name_language, name_languages, read_language
from plugins.languages.local_family import LocalFamily
from plugins.languages.localize import LOCAL_FAMILIES, localize
from plugins.languages.rules import LANGUAGES

ANY_LANGUAGE = {"semantic": "`minhash`", "quality": f"its rules for any language ({', '.join(ANSWER_RULES)})"}
"""What judges any language in the place of a filter. Of others, `judge`: a teacher reads."""
OWN_PROMPTS = ("own_prompt", "decisions")
"""Families whose prompts are the recipe's own, or ask about texts in any language."""
NEEDED: dict[str, dict[str, Any]] = {
    "contamination": {"sets": ["rows.jsonl"]},
    "quality": {"sets": ["gopher"]},
    "language": {"languages": ["en"]},
}
"""Settings of filters without a default."""


class Judge(NamedTuple):
    """A check or a filter, and the languages that it can judge: all if there are none."""

    kind: str
    name: str
    family: str
    """Of which it is a check; "" for every family."""
    languages: tuple[str, ...]


def list_judges() -> list[Judge]:
    """All checks and filters that can be used here."""
    judges = [Judge("check", one.name, "", one.languages) for one in list_checks()]
    for family in (*list_families(), *(localize(name, LANGUAGES[0]) for name in LOCAL_FAMILIES)):
        judges += [Judge("check", one.name, family.name, one.languages) for one in family.checks]
    filters = TypeAdapter[Any](FilterConfig)
    for name in FILTER_TABLES:
        table = filters.validate_python({"type": name, **NEEDED.get(name, {})})
        judges.append(Judge("filter", name, "", list_filter_languages(table)))
    judges += [Judge("filter", read_table_type(one), "", one.judges) for one in FILTER_EXTENSIONS.list_usable()]
    return list(dict.fromkeys(judges))


def list_filter_languages(config: Any) -> tuple[str, ...]:
    """The languages that a filter with these settings can judge: of a built-in one, those whose example it judges."""
    judges = find_filter_entry(config).can_judge
    if judges is None:
        return tuple(config.judges)
    known = [code for code, text in EXAMPLES.items() if judges(Document(code, text), config)]
    return () if len(known) == len(EXAMPLES) else tuple(known)


def find_unfit_parts(plan: RunPlan) -> Iterator[RecipeProblem]:
    """Checks, filters, prompts and teachers of a plan that are not for its language."""
    language, recipe = read_language(plan.recipe), plan.recipe
    if language == ENGLISH:
        return
    is_local = isinstance(plan.family, LocalFamily)
    if is_local and (missing := list_missing_packages("languages")):
        what = f"needs {', '.join(missing)}, which are missing; run {format_install_command('languages')}"
        yield RecipeProblem(SECTION, what)
    for i, bound in enumerate(plan.checks):
        if (known := bound.check.languages) and language not in known:
            yield RecipeProblem(f"verifiers.{i}.type", _describe(bound.check.name, known, language))
    for i, config in enumerate(recipe.filters):
        if (known := list_filter_languages(config)) and language not in known:
            yield RecipeProblem(f"filters.{i}.type", _describe(config.type, known, language))
    if plan.asks_generator and not (is_local or recipe.prompts or recipe.family in OWN_PROMPTS):
        what = f"its prompts ask for English, not {name_language(language)}; name a folder of your own in `prompts`"
        yield RecipeProblem("family", what)
    for name in sorted(plan.teachers & recipe.teachers.keys()):
        if recipe.teachers[name].model == f"local/{EMBEDDED_TEACHER}":
            what = f"the embedded teacher writes English only, not {name_language(language)}; name another model"
            yield RecipeProblem(f"teachers.{name}.model", what)


def _describe(name: str, known: Sequence[str], language: str) -> str:
    """Why a check or filter is refused, and what to use."""
    refusal = name == "refusal" and language in LANGUAGES
    instead = "`local_refusal`" if refusal else ANY_LANGUAGE.get(name, "`judge`, which asks a teacher,")
    judges = f"{name!r} judges {name_languages(known)}, not {name_language(language)}"
    return f"{judges}; use {instead} in its place, or leave it out"
