"""Replaces found strings by placeholders, in text and in JSON values. Knows no document and no rule for what to mask."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple


class TextMask(NamedTuple):
    """A string to hide, and the placeholder that replaces it."""

    found: str
    placeholder: str


WORD_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
"""No word character before, or an escape of JSON text, whose letter is not part of a word. Words are ASCII here: other scripts
write no spaces.
"""
WORD_END = r"(?![A-Za-z0-9])"


def mask_text(text: str, masks: Sequence[TextMask]) -> str:
    """Replace every masked string in `text`, except inside a longer word or number. Longer strings are replaced first."""
    for found, placeholder in sorted(masks, key=lambda mask: -len(mask.found)):
        before = WORD_START if re.match("[A-Za-z0-9]", found) else ""
        after = WORD_END if re.search(r"[A-Za-z0-9]\Z", found) else ""
        text = re.sub(before + re.escape(found) + after, placeholder.replace("\\", r"\\"), text)
    return text


def mask_value(value: Any, masks: Sequence[TextMask]) -> Any:
    """Apply `mask_text` to every string, key and number in `value`. A masked number becomes a string; a masked key that another
    key already has gets apostrophes at its end; JSON text stays valid JSON.
    """
    if isinstance(value, dict):
        fields: dict[str, Any] = {}
        for key, item in value.items():
            name = mask_text(key, masks)
            while name != key and (name in fields or name in value):
                name += "'"
            fields[name] = mask_value(item, masks)
        return fields
    if isinstance(value, list | tuple):
        return type(value)(mask_value(item, masks) for item in value)
    if isinstance(value, int | float):
        return value if (masked := mask_text(repr(value), masks)) == repr(value) else masked
    if not isinstance(value, str):
        return value
    masked = mask_text(value, masks)
    if (parsed := _parse_json(value)) is None:
        return masked
    inner = mask_value(parsed, masks)  # escapes in JSON text may hide what is masked, and masks may break them
    return masked if _parse_json(masked) == inner else json.dumps(inner, ensure_ascii=False)


def _parse_json(text: str) -> Any:
    """The JSON object or list in `text`; None for other text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
