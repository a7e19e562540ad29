"""The forms in which a dataset is written, as trainers read them. Knows rows, not files."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def conversational(rows: "pl.DataFrame") -> "pl.DataFrame":
    """`messages` as lists of `{role, content}`."""
    import polars as pl

    plain = pl.element().struct.field("role", "content")
    return rows.with_columns(pl.col("messages").list.eval(pl.struct(plain)))
