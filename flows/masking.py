"""What filters mask, masked in every column of a table that may hold it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from filters.base import Mask, mask_value

if TYPE_CHECKING:
    import pyarrow as pa


def masked_table(table: "pa.Table", masks: Mapping[int, Sequence[Mask]]) -> "pa.Table":
    """With what is to be masked in each row, by its place, masked in every column of texts or numbers but `id`. Types stay: a
    number is masked by null, and so is what stands under a name.
    """
    for i, field in enumerate(table.schema):
        if field.name != "id" and _may_say(field.type):
            values = table.column(i).to_pylist()
            masked = [_masked(value, masks.get(row, ()), field.type) for row, value in enumerate(values)]
            table = table.set_column(i, field, _array(masked, field.type))
    return table


def _may_say(type_: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_nested(type_) or pa.types.is_integer(type_) or is_text(type_)


def _masked(value: Any, masks: Sequence[Mask], type_: "pa.DataType") -> Any:
    return _fitting(mask_value(value, masks), type_) if masks else value


def _fitting(value: Any, type_: "pa.DataType") -> Any:
    """`value` without what `type_` has no place for since it is masked."""
    from pyarrow import types

    if types.is_struct(type_) and value is not None:
        return {field.name: _fitting(value.get(field.name), field.type) for field in type_}
    if types.is_map(type_) and value is not None:
        fitting = [(_fitting(key, type_.key_type), _fitting(one, type_.item_type)) for key, one in value]
        return [(key, one) for key, one in fitting if key is not None]
    if isinstance(value, list):
        return [_fitting(one, type_.value_type) for one in value]
    number = types.is_integer(type_) or types.is_floating(type_)
    return None if number and isinstance(value, str) else value


def _array(values: Sequence[Any], type_: "pa.DataType") -> "pa.Array":
    import pyarrow as pa

    if pa.types.is_dictionary(type_):
        return pa.array(values, type_.value_type).dictionary_encode().cast(type_)
    return pa.array(values, type_)


def is_text(type_: "pa.DataType") -> bool:
    """Whether it is text, in a dictionary or not."""
    import pyarrow as pa

    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    return plain in (pa.string(), pa.large_string(), pa.string_view())
