"""Applies masks of filters to every column of a table that may hold masked text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from filters.masks import TextMask, mask_value

if TYPE_CHECKING:
    import pyarrow as pa


def mask_table(table: "pa.Table", masks: Mapping[int, Sequence[TextMask]]) -> "pa.Table":
    """The table with the masks of each row, by its place, applied to every column of texts or numbers except `id`. Types stay: a
    masked number becomes null, and so does a value under a masked key.
    """
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        may_hold_masks = pa.types.is_nested(field.type) or pa.types.is_integer(field.type) or is_text_type(field.type)
        if field.name == "id" or not may_hold_masks:
            continue
        masked = [
            _fit_masked_value(mask_value(value, masks[row]), field.type) if masks.get(row) else value
            for row, value in enumerate(table.column(i).to_pylist())
        ]
        if pa.types.is_dictionary(field.type):
            array = pa.array(masked, field.type.value_type).dictionary_encode().cast(field.type)
        else:
            array = pa.array(masked, field.type)
        table = table.set_column(i, field, array)
    return table


def _fit_masked_value(value: Any, type_: "pa.DataType") -> Any:
    """`value` without masked parts that no longer fit `type_`."""
    from pyarrow import types

    if types.is_struct(type_) and value is not None:
        return {field.name: _fit_masked_value(value.get(field.name), field.type) for field in type_}
    if types.is_map(type_) and value is not None:
        fitting = [
            (_fit_masked_value(key, type_.key_type), _fit_masked_value(item, type_.item_type)) for key, item in value
        ]
        return [(key, item) for key, item in fitting if key is not None]
    if isinstance(value, list):
        return [_fit_masked_value(item, type_.value_type) for item in value]
    number = types.is_integer(type_) or types.is_floating(type_)
    return None if number and isinstance(value, str) else value


def is_text_type(type_: "pa.DataType") -> bool:
    """Whether the type is text, dictionary-encoded or not."""
    import pyarrow as pa

    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    return plain in (pa.string(), pa.large_string(), pa.string_view())
