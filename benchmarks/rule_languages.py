"""Whether the rule `language` knows five languages: the messages of installed programs and their translations, as a table of
benchmarks/family-details.md.

python -m benchmarks.rule_languages [FOLDER]

FOLDER is that of the message catalogs, /usr/share/locale by default.
"""

import re
import sys
from collections.abc import Iterator
from gettext import GNUTranslations
from itertools import chain
from pathlib import Path

from agents.checks.text.text_units import split_words
from agents.families.constraints import THANKS
from agents.families.document_constraints import check_language
from benchmarks.machine import describe_measurement

CODES = {
    "German": ("de",),
    "Spanish": ("es",),
    "French": ("fr",),
    "Italian": ("it",),
    "Portuguese": ("pt", "pt_PT", "pt_BR"),
}
MIN_WORDS = 20
NO_PROSE = re.compile(r"[%<>{}=\\|\t\[]|--|\n  ")


def read_messages(folder: Path, language: str) -> Iterator[tuple[str, str]]:
    """The long messages of prose in all catalogs, in English and in a language."""
    for file in (file for code in CODES[language] for file in sorted(folder.glob(f"{code}/LC_MESSAGES/*.mo"))):
        with file.open("rb") as catalog:
            pairs = vars(GNUTranslations(catalog))["_catalog"].items()
        for english, text in pairs:
            if isinstance(english, str) and english != text and is_prose(english) and is_prose(text):
                yield english, text


def is_prose(text: str) -> bool:
    """Whether a message is long, ends as a sentence does, and has no placeholder, option or column."""
    return len(split_words(text)) >= MIN_WORDS and text.rstrip()[-1] in ".!?" and not NO_PROSE.search(text)


def passes(text: str, language: str) -> bool:
    return check_language(text, {"language": language}) is None


def print_share(name: str, found: list[bool], more: str = "") -> None:
    sys.stdout.write(f"| {name} | {sum(found):,} of {len(found):,}{more} |\n")


def main() -> None:
    folder = Path(sys.argv[1] if sys.argv[1:] else "/usr/share/locale")
    pairs = {language: list(dict(read_messages(folder, language)).items()) for language in THANKS}
    own = {language: [passes(text, language) for _, text in some] for language, some in pairs.items()}
    curly = [passes(text.replace("'", "’"), language) for language, some in pairs.items() for _, text in some]
    foreign = [
        passes(text, other)
        for language, some in pairs.items()
        for _, text in some
        for other in THANKS
        if other != language
    ]
    originals = {english for some in pairs.values() for english, _ in some}
    foreign += [passes(english, language) for english in sorted(originals) for language in THANKS]
    mixed = [passes(f"{text}\n\n{english}", language) for language, some in pairs.items() for english, text in some]
    shares = ", ".join(f"{language} {sum(found) / len(found):.0%}" for language, found in own.items())
    sys.stdout.write(f"{describe_measurement()}.\n\n| messages | pass |\n|---|---|\n")
    print_share("in the language asked for", [*chain(*own.values())], f" ({shares})")
    print_share("the same, with curly apostrophes", curly)
    print_share("in another of the six", foreign)
    print_share("with an English message appended", mixed)


if __name__ == "__main__":
    main()
