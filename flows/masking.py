"""What filters mask, masked in every column of a table that holds text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from filters.base import Mask, mask_value

if TYPE_CHECKING:
    import pyarrow as pa


def masked_table(table: "pa.Table", masks: Mapping[int, Sequence[Mask]]) -> "pa.Table":
    """With what is to be masked in each row, by its place, masked in every column of texts but `id`."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if field.name != "id" and (pa.types.is_nested(field.type) or is_text(field.type)):
            values = table.column(i).to_pylist()
            masked = [mask_value(value, masks.get(row, ())) for row, value in enumerate(values)]
            table = table.set_column(i, field, pa.array(masked, field.type))
    return table


def is_text(type_: "pa.DataType") -> bool:
    import pyarrow as pa

    return type_ in (pa.string(), pa.large_string(), pa.string_view())
