"""Constraints on longer texts: tables, sections, the order of words and of list items, the language. Each check gets a text and
its parameters, and returns the fault in words, or None. Knows no teacher and no topic.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from agents.checks.text.text_units import (
    WORD,
    fold_text,
    fold_to_plain_letters,
    parse_list_items,
    remove_code,
    split_sentences,
    split_words,
)
from core.project_files import read_shipped_table

ConstraintParams = Mapping[str, Any]

HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(\S.*)$", re.MULTILINE)
TABLE_RULE = re.compile(r"\|?(?:[ \t]*:?-+:?[ \t]*\|)*(?:[ \t]*:?-+:?)?")
"""The line between the header of a Markdown table and its rows."""
COMMON_WORDS: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in read_shipped_table("data/seeds/constraint_wordings.toml")["common_words"].items()
}
"""The most frequent words of each language."""
MIN_COMMON_SHARE = 0.2
"""Least share of a text's words that are in `COMMON_WORDS` of its language."""
LANGUAGE_MARGIN = 1.1
"""Least ratio of that share to the share of any other language. Both were measured: benchmarks/family-details.md."""
FOREIGN_WORDS = 9
"""Least words of a sentence that may be found to be of another language."""


def check_table(text: str, p: ConstraintParams) -> str | None:
    tables = measure_tables(text)
    if len(tables) != 1:
        return f"it has {len(tables) or 'no'} Markdown tables, not one"
    [(columns, *rows)] = tables
    if {columns, *rows} == {p["columns"]} and len(rows) == p["rows"]:
        return None
    return f"its table has {columns} columns and {len(rows)} rows, not {p['columns']} and {p['rows']}"


def measure_tables(text: str) -> list[list[int]]:
    """The tables of a text, each as the number of cells in the header and in every row."""
    tables: list[list[int]] = []
    lines, open_table = remove_code(text).splitlines(), False
    for before, line in pairwise(["", *lines]):
        is_rule = "|" in line and "-" in line and TABLE_RULE.fullmatch(line.strip())
        if is_rule and "|" in before and _count_cells(line) == _count_cells(before):
            tables.append([_count_cells(before)])
            open_table = True
        elif open_table and "|" in line:
            tables[-1].append(_count_cells(line))
        else:
            open_table = False
    return tables


def _count_cells(line: str) -> int:
    return len(re.split(r"(?<!\\)\|", re.sub(r"^\s*\||(?<!\\)\|\s*$", "", line)))


def _read_sections(text: str) -> list[tuple[str, str]] | None:
    """Titles and texts; None where words precede the first heading, levels differ, or a section has no words."""
    parts = HEADING.split(remove_code(text))
    levels, titles, texts = parts[1::3], parts[2::3], parts[3::3]
    whole = not WORD.search(parts[0]) and len(set(levels)) == 1 and all(map(WORD.search, texts))
    return list(zip(titles, texts, strict=True)) if whole else None


def check_sections(text: str, p: ConstraintParams) -> str | None:
    sections = _read_sections(text)
    met = sections is not None and len(sections) == p["n"]
    return None if met else f"it is not {p['n']} sections, each a Markdown heading of one level over a text"


def check_section_titles(text: str, p: ConstraintParams) -> str | None:
    found = [fold_text(title.rstrip(" \t#").strip("*_: ")) for title, _ in _read_sections(text) or []]
    if found == [fold_text(title) for title in p["titles"]]:
        return None
    return f"its sections are {found}, not exactly {p['titles']} in this order, each a Markdown heading over a text"


def check_sorted_bullets(text: str, p: ConstraintParams) -> str | None:
    texts = [item["text"].strip("*_\"'“‘ ") for item in parse_list_items(text, "[-*]") or []]
    items = [fold_to_plain_letters(fold_text(item)) for item in texts]
    if len(items) != p["n"]:
        return f"it is not {p['n']} bullets alone"
    late = next((one for one, following in pairwise(items) if one > following), None)
    return None if late is None else f"its bullets are not in alphabetical order: {late[:30]!r} comes too early"


def check_words_in_order(text: str, p: ConstraintParams) -> str | None:
    places = [re.search(rf"(?<!\w){re.escape(word)}(?:e?s)?(?!\w)", text, re.IGNORECASE) for word in p["words"]]
    missing = [word for word, place in zip(p["words"], places, strict=True) if place is None]
    if missing:
        return f"it lacks {', '.join(map(repr, missing))}"
    starts = [place.start() for place in places if place]
    return None if starts == sorted(starts) else f"it does not first mention {', '.join(p['words'])} in this order"


def check_language(text: str, p: ConstraintParams) -> str | None:
    text = remove_code(text)
    own, other = _share_common_words(text, p["language"])
    met = own >= MIN_COMMON_SHARE and own >= LANGUAGE_MARGIN * other
    for sentence in split_sentences(text):
        if len(split_words(sentence)) >= FOREIGN_WORDS:
            own, other = _share_common_words(sentence, p["language"])
            met = met and own >= other / 2
    return None if met else f"it is not in {p['language']} throughout"


def _share_common_words(text: str, language: str) -> tuple[float, float]:
    """The shares of the words of `text` that are common words of a language, and of the nearest other one."""
    words = [word.lower() for word in split_words(fold_text(text))]
    shares = {name: sum(word in common for word in words) / max(1, len(words)) for name, common in COMMON_WORDS.items()}
    return shares.pop(language), max(shares.values())
