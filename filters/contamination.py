"""Drops what shares text with evaluation sets that the user names, and counts it by set.

The rule is that of GPT-3 (Brown et al. 2020, appendix C): 13 words in a row, without case and punctuation, that a row of a
set has too. A shorter row is compared whole from eight words on, the least N there. Not taken over: GPT-3 cuts the shared
words and 200 characters around them out of a document, and overlooks n-grams that more than ten documents have; here the
sample goes, since a teacher that tells a test question eleven times is no less contaminated.

All that is said is looked at, question, answer and the rest each by itself. Knows no paraphrase.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from core.filter_config import ContaminationFilter, FilterConfig
from core.recipe import find_file
from core.sample import Reason
from filters.base import Document, Drop
from filters.evaluation import EvaluationSets, Match, read_sets
from filters.text import normalised_words


class SetReport(NamedTuple):
    """What was found of one set."""

    rows: int
    short: int
    """Rows of too few words to be found, were they there."""
    found: int
    """Rows that a document shares text with."""
    documents: int
    """Documents that share text with a row."""


def drop_contaminated(documents: Sequence[Document], config: ContaminationFilter, folder: Path = Path()) -> list[Drop]:
    """Drop each document that shares an n-gram with a row of a set, naming the row that it shares most with.

    Relative paths start from `folder`.

    Raises:
        UsageError: naming a set that cannot be read.
    """
    sets = sets_of(config, folder)
    drops = (_drop(document, sets, config) for document in documents)
    return [drop for drop in drops if drop]


def sets_of(config: ContaminationFilter, folder: Path) -> EvaluationSets:
    """Raises UsageError naming a set that cannot be read."""
    files = [(name, find_file(name, folder)) for name in config.sets]
    return read_sets(files, config.columns, config.ngram)


def _drop(document: Document, sets: EvaluationSets, config: ContaminationFilter) -> Drop | None:
    found: list[tuple[Match, str]] = []
    for part in document.parts:
        words = normalised_words(part)
        for match in sets.matches(words):
            if match.coverage >= config.coverage:
                found.append((match, " ".join(words[match.start : match.start + match.length])))
    if not found:
        return None
    match, shared = max(found, key=lambda one: one[0].coverage)
    rows = tuple(dict.fromkeys(f"{one.file}:{one.row}" for one, _ in found))
    more = f"; and with {len(rows) - 1} more rows" if len(rows) > 1 else ""
    return Drop(
        id=document.id,
        filter=config.type,
        reason=Reason.contamination,
        score=match.coverage,
        overlaps=rows,
        detail=f"shares {match.shared} of {match.words} words with {match.file} row {match.row}: {shared!r}{more}",
    )


def reports_of(drops: Sequence[Drop], config: ContaminationFilter, folder: Path = Path()) -> dict[str, SetReport]:
    """What `drops` say of each set of the filter, by its name in the recipe."""
    rows = [row for drop in drops for row in drop.overlaps]
    sizes = sets_of(config, folder).sizes
    by_set = {name: [row for row in rows if row.rpartition(":")[0] == name] for name in sizes}
    documents = _documents_by_set(drops)
    return {
        name: SetReport(size.rows, size.short, len(set(by_set[name])), documents.get(name, 0))
        for name, size in sizes.items()
    }


def all_reports(
    drops: Sequence[Drop], configs: Sequence[FilterConfig], folder: Path = Path()
) -> dict[str, dict[str, int]]:
    """What was found of each evaluation set that filters name, as plain JSON values."""
    return {
        name: report._asdict()
        for config in configs
        if isinstance(config, ContaminationFilter)
        for name, report in reports_of(drops, config, folder).items()
    }


def _documents_by_set(drops: Iterable[Drop]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for drop in drops:
        for name in {row.rpartition(":")[0] for row in drop.overlaps}:
            counts[name] = counts.get(name, 0) + 1
    return counts
