"""Drops documents that share text with evaluation sets that the user names, and counts them by set.

The rule is that of GPT-3 (Brown et al. 2020, appendix C): 13 consecutive words, without case and punctuation, that also occur
in a row of a set. A shorter row is compared as a whole if it has at least eight words, the smallest N there. Two parts of that
rule are not used. GPT-3 cuts the shared words and 200 characters around them out of a document; here the whole sample is dropped.
GPT-3 ignores n-grams that occur in more than ten documents; here they count, since a teacher that repeats a test question eleven
times is no less contaminated.

All text is read: user, assistant and the rest, each separately. Does not detect paraphrases.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from core.config.filters import ContaminationFilter, FilterConfig
from core.errors import RecipeProblem, UsageError
from core.project_files import find_referenced_file
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument
from filters.rules.evaluation_sets import EvaluationMatch, EvaluationSets, read_evaluation_sets
from filters.text_normalization import normalize_words


class EvaluationSetReport(NamedTuple):
    """Contamination by one evaluation set."""

    rows: int
    short: int
    """Rows that have too few words to be detected."""
    found: int
    """Rows that share text with a document."""
    documents: int
    """Documents that share text with a row."""


def drop_contaminated(
    documents: Sequence[Document], config: ContaminationFilter, folder: Path = Path()
) -> list[DroppedDocument]:
    """Drop each document that shares an n-gram with a row of a set, and name the row with the largest overlap.

    Relative paths start from `folder`.

    Raises:
        UsageError: naming a set that cannot be read.
    """
    sets = _load_evaluation_sets(config, folder)
    drops = []
    for document in documents:
        matches: list[tuple[EvaluationMatch, str]] = []
        for part in document.parts:
            words = normalize_words(part)
            matches += [
                (match, " ".join(words[match.start : match.start + match.length]))
                for match in sets.find_matches(words)
                if match.coverage >= config.coverage
            ]
        if not matches:
            continue
        match, shared = max(matches, key=lambda pair: pair[0].coverage)
        rows = tuple(dict.fromkeys(f"{other.file}:{other.row}" for other, _ in matches))
        more = f"; and with {len(rows) - 1} more rows" if len(rows) > 1 else ""
        drops.append(
            DroppedDocument(
                id=document.id,
                filter=config.type,
                reason=RejectionReason.contamination,
                score=match.coverage,
                overlaps=rows,
                detail=f"shares {match.shared} of {match.words} words with {match.file} row {match.row}: {shared!r}{more}",
            )
        )
    return drops


def _load_evaluation_sets(config: ContaminationFilter, folder: Path) -> EvaluationSets:
    """Raises UsageError naming a set that cannot be read."""
    files = [(name, find_referenced_file(name, folder)) for name in config.sets]
    return read_evaluation_sets(files, config.columns, config.ngram)


def find_evaluation_set_problems(config: ContaminationFilter, folder: Path) -> Iterator[RecipeProblem]:
    """Yield a problem if the table names a set that cannot be read."""
    try:
        _load_evaluation_sets(config, folder)
    except UsageError as error:
        yield RecipeProblem("sets", str(error))


def _build_set_reports(
    drops: Sequence[DroppedDocument], config: ContaminationFilter, folder: Path = Path()
) -> dict[str, EvaluationSetReport]:
    """The report of each evaluation set of the filter, by its name in the recipe."""
    rows = [row for drop in drops for row in drop.overlaps]
    sizes = _load_evaluation_sets(config, folder).sizes
    by_set = {name: [row for row in rows if row.rpartition(":")[0] == name] for name in sizes}
    documents = Counter(name for drop in drops for name in {row.rpartition(":")[0] for row in drop.overlaps})
    return {
        name: EvaluationSetReport(size.rows, size.short, len(set(by_set[name])), documents[name])
        for name, size in sizes.items()
    }


def build_all_set_reports(
    drops: Sequence[DroppedDocument], configs: Sequence[FilterConfig], folder: Path = Path()
) -> dict[str, dict[str, int]]:
    """The reports of all evaluation sets that the filters name, as JSON values."""
    return {
        name: report._asdict()
        for config in configs
        if isinstance(config, ContaminationFilter)
        for name, report in _build_set_reports(drops, config, folder).items()
    }
