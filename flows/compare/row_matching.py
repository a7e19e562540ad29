"""Matches the rows of two datasets one to one, by joins of their indexes. Reads no text."""

from typing import NamedTuple

import polars as pl

from flows.compare.row_index import RowIndex, RowPlace

PLACES = ("file", "row", "file_b", "row_b")


class RowMatches(NamedTuple):
    """All rows of both datasets: each is in exactly one frame, once."""

    same: pl.DataFrame
    """Pairs with equal content: the columns `PLACES`."""
    changed_by_id: pl.DataFrame
    """Pairs with the same id and other content: the columns `PLACES`."""
    changed_by_request: pl.DataFrame
    """Pairs with the same request and another answer: the columns `PLACES`."""
    removed: pl.DataFrame
    """Rows of A only: `file` and `row`."""
    added: pl.DataFrame
    """Rows of B only: `file` and `row`."""

    @property
    def changed(self) -> pl.DataFrame:
        return pl.concat([self.changed_by_id, self.changed_by_request]).sort("file", "row")


def match_rows(a: RowIndex, b: RowIndex) -> RowMatches:
    """Match rows by id and content, then by id, by content, and by request. Of equal keys, the n-th row of A matches the n-th of
    B.
    """
    equal, rest_a, rest_b = _join(a.frame, b.frame, "id", "content")
    by_id, rest_a, rest_b = _join(rest_a, rest_b, "id")
    by_content, rest_a, rest_b = _join(rest_a, rest_b, "content")
    by_request, rest_a, rest_b = _join(rest_a, rest_b, "request")
    return RowMatches(
        same=pl.concat([equal, by_content]).select(PLACES).sort("file", "row"),
        changed_by_id=by_id.select(PLACES),
        changed_by_request=by_request.select(PLACES),
        removed=rest_a.select("file", "row"),
        added=rest_b.select("file", "row"),
    )


def _join(a: pl.DataFrame, b: pl.DataFrame, *key: str) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The matched rows, and the rest of each side in its order. Rows without the key match nothing."""
    a, b = (side.with_columns(nth=pl.int_range(pl.len(), dtype=pl.UInt32).over(key)) for side in (a, b))
    keys = [*key, "nth"]
    matched = a.join(b, on=keys, suffix="_b", maintain_order="left", coalesce=False)
    rest_a, rest_b = (
        side.join(other.select(keys), on=keys, how="anti", maintain_order="left").drop("nth")
        for side, other in ((a, b), (b, a))
    )
    return matched, rest_a, rest_b


def pick_evenly(frame: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most `most` rows of the frame, evenly spaced from its first row on, so that examples are from all parts."""
    if frame.height <= most:
        return frame
    return frame[[round(i * frame.height / most) for i in range(most)]]


def list_places(frame: pl.DataFrame, suffix: str = "") -> list[RowPlace]:
    """The places in the columns `file` and `row`, or in those of B with the suffix `_b`."""
    return [RowPlace(*place) for place in frame.select(f"file{suffix}", f"row{suffix}").iter_rows()]
