"""The families that have prompts and checks of a language, by name."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from plugins.languages.constrained import LocalConstrainedFamily, limit_kinds
from plugins.languages.extraction import LocalExtractionFamily
from plugins.languages.instructions import LocalInstructionsFamily
from plugins.languages.local_family import PROMPTS, LocalFamily
from plugins.languages.questions import LocalGroundedFamily, word_options

LOCAL_FAMILIES: Mapping[str, type[LocalFamily]] = {
    one.name: one
    for one in (LocalConstrainedFamily, LocalExtractionFamily, LocalGroundedFamily, LocalInstructionsFamily)
}
OWN_OPTIONS: Mapping[str, Callable[[str], type[Any]]] = {
    "constrained_instructions": limit_kinds,
    "grounded_qa": word_options,
}
"""Families whose options depend on the language."""


@cache
def localize(name: str, language: str) -> LocalFamily:
    """A family of `LOCAL_FAMILIES` in a language of `LANGUAGES`."""
    base = LOCAL_FAMILIES[name]
    options = OWN_OPTIONS[name](language) if name in OWN_OPTIONS else base.options
    own = {"checks": base.local_checks, "prompts": PROMPTS / name / language, "options": options}
    found: LocalFamily = type(base.__name__, (base,), {"language": language, **own})()
    return found
