"""A GGUF file's fields and tensors: gguf's reader, with the items of a list read at once."""

import struct
from typing import Any

import gguf
import numpy as np
from gguf import GGUFValueType, ReaderField

from core.weights.gguf_files import find_texts

ITEMS_AT = 12
"""Bytes of a list before its items: their type, and their number."""


class QuickGgufReader(gguf.GGUFReader):
    """gguf 0.19 makes a `numpy.memmap` of each number and text of a list: 2.6 s for the header of the embedded teacher, here
    0.4 s. `contents()` of a field gives the same, without an index; `parts` and `data` do not. Big-endian files are not faster.

    Raises:
        ValueError: if the file is no GGUF file, or its header is longer than the file, or it has a key twice or a list of lists.
    """

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: str | None = None) -> np.ndarray:
        order = np.dtype(dtype).newbyteorder(override_order or self.byte_order)
        try:
            return np.frombuffer(self.data, order, int(count), int(offset))
        except (ValueError, OverflowError):
            raise ValueError(f"its header is longer than its {len(self.data):,} bytes") from None

    def _push_field(self, field: ReaderField, skip_sum: bool = False) -> int:
        if field.name in self.fields:
            raise ValueError(f"its header has {field.name} twice")
        return super()._push_field(field, skip_sum)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        """The bytes that a value takes, its parts, which of these are data, and its types."""
        if raw_type != GGUFValueType.ARRAY or self.endianess == gguf.GGUFEndian.BIG:
            return super()._get_field_parts(orig_offs, raw_type)
        item, count = GGUFValueType(self._get(orig_offs, np.uint32)[0]), int(self._get(orig_offs + 4, np.uint64)[0])
        types = [GGUFValueType.ARRAY, item]
        if item in self.gguf_scalar_to_np:
            numbers = self._get(orig_offs + ITEMS_AT, self.gguf_scalar_to_np[item], count)
            return ITEMS_AT + numbers.nbytes, [numbers], [0], types
        if item != GGUFValueType.STRING:
            raise ValueError("it has a list of lists")
        data = memoryview(self.data)  # type: ignore[arg-type]
        try:
            texts = find_texts(data, orig_offs + ITEMS_AT, count)
        except struct.error:
            raise ValueError(f"its header is longer than its {len(data):,} bytes") from None
        end = texts[-1].stop if texts else orig_offs + ITEMS_AT
        return end - orig_offs, [data[text] for text in texts], list(range(count)), types
