"""`stillhouse diff`: the rows that two datasets share, the rows that changed, and their records side by side. Knows no page."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

import polars as pl
from pydantic import model_validator

from core.sample import FrozenModel
from flows.compare.recorded_figures import DatasetRecords, Figure, FigureName, check_different, find_dataset_records
from flows.compare.row_index import RowIndex, RowPlace, RowText, build_row_index, read_row_texts
from flows.compare.row_matching import RowMatches, list_places, match_rows, pick_evenly
from flows.data.run_storage import RunStorage
from flows.rows.column_names import name_columns

MOST_EXAMPLES = 20
"""Examples of each kind that are kept, evenly spaced over the rows."""
LONGEST_EXAMPLE = 20_000
"""Characters of a text in an example; the files have the whole text."""

ExampleKind = Literal["changed", "removed", "added"]


class ComparedSide(FrozenModel):
    """One of the two datasets."""

    source: str
    """As named by the user."""
    kind: Literal["files", "run", "release", "filtered"]
    name: str
    path: str
    rows: int
    mean_words: float
    """Words of an answer, mean over rows."""


class RowChanges(FrozenModel):
    """Rows by what became of them. Raises ValueError if they do not add up to the rows of both sides."""

    rows_a: int
    rows_b: int
    same: int
    changed_by_id: int
    changed_by_request: int
    removed: int
    added: int

    @property
    def changed(self) -> int:
        return self.changed_by_id + self.changed_by_request

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        in_both = self.same + self.changed
        if (in_both + self.removed, in_both + self.added) != (self.rows_a, self.rows_b):
            raise ValueError(f"the rows of both sides do not add up: {self!r}")
        return self


class ComparedFigure(FrozenModel):
    """A figure of the records of both datasets; None where one has no such record."""

    group: str
    name: str
    a: Figure | None
    b: Figure | None

    @property
    def difference(self) -> float | None:
        """B minus A; None unless both are numbers."""
        values = [side.value for side in (self.a, self.b) if side and not isinstance(side.value, str)]
        return float(values[1]) - float(values[0]) if len(values) == 2 else None


class ComparedReason(FrozenModel):
    """Samples that were not kept for one reason."""

    reason: str
    a: int
    b: int


class ExampleText(FrozenModel):
    """A row in an example."""

    place: str
    """Its file and its line or row."""
    id: str | None
    request: str
    answer: str


class RowExample(FrozenModel):
    """A row that changed, or that only one dataset has; `a` or `b` is None then."""

    kind: ExampleKind
    matched_by: Literal["id", "request"] | None = None
    a: ExampleText | None
    b: ExampleText | None


class DatasetComparison(FrozenModel):
    """The result of `stillhouse diff`."""

    a: ComparedSide
    b: ComparedSide
    rows: RowChanges
    figures: tuple[ComparedFigure, ...]
    reasons: tuple[ComparedReason, ...]
    examples: tuple[RowExample, ...]

    def list_examples(self, kind: ExampleKind) -> list[RowExample]:
        return [example for example in self.examples if example.kind == kind]


def compare_datasets(
    a: str,
    b: str,
    storage: RunStorage,
    stopped: Callable[[], None] = lambda: None,
    columns: str | None = None,
) -> DatasetComparison:
    """Compare two datasets: paths, runs or releases; `columns` are those that a user named, of both.

    Both are read once, then again as far as examples need it. Of each row only
    hashes stay in memory, about 150 bytes.

    Raises:
        UsageError: if a dataset cannot be found or read, or both are the same.
        StoreError: if a record is damaged.
    """
    records = find_dataset_records(a, storage), find_dataset_records(b, storage)
    check_different(*records)
    first, second = (build_row_index(name_columns(found.path, columns), stopped) for found in records)
    indexes = first, second
    matches = match_rows(*indexes)
    sides = (
        ComparedSide(
            source=named, kind=found.kind, name=found.name, path=str(found.path), rows=index.frame.height,
            mean_words=round(_compute_mean_words(index.frame), 1),
        )
        for named, found, index in zip((a, b), records, indexes, strict=True)
    )  # fmt: skip
    side_a, side_b = sides
    return DatasetComparison(
        a=side_a,
        b=side_b,
        rows=RowChanges(
            rows_a=side_a.rows,
            rows_b=side_b.rows,
            same=matches.same.height,
            changed_by_id=matches.changed_by_id.height,
            changed_by_request=matches.changed_by_request.height,
            removed=matches.removed.height,
            added=matches.added.height,
        ),
        figures=tuple(_pair_figures(*records)),
        reasons=tuple(_pair_reasons(*records)),
        examples=tuple(_read_examples(matches, *indexes)),
    )


def _compute_mean_words(frame: pl.DataFrame) -> float:
    return float(frame.select(pl.col("words").cast(pl.Float64).mean()).item())


def _pair_figures(a: DatasetRecords, b: DatasetRecords) -> list[ComparedFigure]:
    """The figures of both in the order of the first, those of one group together."""
    names = list(dict.fromkeys([*a.figures, *b.figures]))
    groups = list(dict.fromkeys(name.group for name in names))
    ordered: list[FigureName] = sorted(names, key=lambda name: groups.index(name.group))
    return [
        ComparedFigure(group=name.group, name=name.name, a=a.figures.get(name), b=b.figures.get(name))
        for name in ordered
    ]


def _pair_reasons(a: DatasetRecords, b: DatasetRecords) -> list[ComparedReason]:
    """Most frequent first."""
    names = sorted({*a.reasons, *b.reasons}, key=lambda name: (-a.reasons.get(name, 0) - b.reasons.get(name, 0), name))
    return [ComparedReason(reason=name, a=a.reasons.get(name, 0), b=b.reasons.get(name, 0)) for name in names]


def _read_examples(matches: RowMatches, a: RowIndex, b: RowIndex) -> list[RowExample]:
    by_id = set(list_places(matches.changed_by_id))
    changed = pick_evenly(matches.changed, MOST_EXAMPLES)
    removed, added = (pick_evenly(frame, MOST_EXAMPLES) for frame in (matches.removed, matches.added))
    changed_a, changed_b = list_places(changed), list_places(changed, "_b")
    texts_a = read_row_texts(a.files, [*changed_a, *list_places(removed)])
    texts_b = read_row_texts(b.files, [*changed_b, *list_places(added)])

    def show_a(place: RowPlace) -> ExampleText:
        return _build_example_text(a.files, place, texts_a[place])

    def show_b(place: RowPlace) -> ExampleText:
        return _build_example_text(b.files, place, texts_b[place])

    examples = [
        RowExample(
            kind="changed", matched_by="id" if place_a in by_id else "request", a=show_a(place_a), b=show_b(place_b)
        )
        for place_a, place_b in zip(changed_a, changed_b, strict=True)
    ]
    examples += [RowExample(kind="removed", a=show_a(place), b=None) for place in list_places(removed)]
    return examples + [RowExample(kind="added", a=None, b=show_b(place)) for place in list_places(added)]


def _build_example_text(files: Sequence[Path], place: RowPlace, text: RowText) -> ExampleText:
    file = files[place.file]
    name = file.name if len(files) == 1 else os.path.relpath(file, os.path.commonpath([f.parent for f in files]))
    request, answer = (part[:LONGEST_EXAMPLE] for part in (text.request, text.answer))
    return ExampleText(place=f"{name}:{place.row}", id=text.id, request=request, answer=answer)
