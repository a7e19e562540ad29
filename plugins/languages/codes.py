"""Languages by their ISO 639-1 code. Knows no check and no filter."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator


def _check_code(code: str) -> str:
    if not (len(code) == 2 and code.isascii() and code.islower()):
        raise ValueError("must be the two small letters of a language (ISO 639-1), such as de")
    return code


LanguageCode = Annotated[str, AfterValidator(_check_code)]
"""Of a recipe: `de`. Default: `en`."""
SECTION, ENGLISH = "language", "en"
NAMES = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "zh": "Chinese"}
EXAMPLES = {
    "en": "The bees carry the pollen from one flower to the next, and the farmer is glad that they do it.",
    "de": "Die Bienen tragen den Pollen von einer Blüte zur nächsten, und der Bauer freut sich darüber.",
    "fr": "Les abeilles portent le pollen d’une fleur à l’autre, et le paysan en est très content.",
    "es": "Las abejas llevan el polen de una flor a otra, y el campesino se alegra mucho por ello.",
    "zh": "蜜蜂把花粉从一朵花带到另一朵花，农民为此感到非常高兴。",
}
"""A sentence of each, by which the languages of a filter are found."""


def read_language(recipe: Any) -> str:
    return getattr(recipe, SECTION, None) or ENGLISH


def find_language(sections: Mapping[str, Any]) -> str:
    """The language of a recipe with these sections, validated or not."""
    value = sections.get(SECTION)
    return value if isinstance(value, str) else ENGLISH


def name_language(code: str) -> str:
    return NAMES.get(code, repr(code))


def name_languages(codes: Iterable[str]) -> str:
    """`German, French and Chinese`; `any language` without codes."""
    *others, last = map(name_language, codes) if (codes := tuple(codes)) else ["any language"]
    return f"{', '.join(others)} and {last}" if others else last
