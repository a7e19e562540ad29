"""Untrusted regular expressions, such as JSON Schema's `pattern`, matched in time linear in the text. Knows no schema.

The engine is Rust's `regex`, a dependency of pydantic: a finite automaton without look-around or backreferences.
Python's `re` backtracks, so `^(a+)+$` takes minutes for a text of 33 characters.
"""

import re
from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

MAX_STEPS = 2_000
"""Of a pattern: its parts with repetitions written out, `[a-z]{2,40}` being 40. An automaton can be in all of them at once, so
their number times the length of a text bounds the time: 6 s for 100,000 characters at the worst, a millisecond as a rule."""
TOKEN = re.compile(
    r"\\[pPxuU]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*\]?|\((?:\?(?:P?<\w+>|[ims-]*:))?|\{(\d*)(,?)(\d*)\}|.", re.DOTALL
)
"""An escape, a class, the beginning of a group, a repetition, or another character."""
MAX_SHOWN_CHARACTERS = 80


class InvalidPattern(ValueError):
    """A pattern that is not supported; the text is the reason."""


def matches_pattern(pattern: str, text: str) -> bool:
    """Whether `pattern` is found somewhere in `text`. Raises InvalidPattern as `count_pattern_steps`."""
    return bool(_compile_pattern(pattern).isinstance_python(text))


def count_pattern_steps(pattern: str) -> int:
    """How many parts a pattern has with its repetitions written out.

    Raises:
        InvalidPattern: if it cannot be matched in linear time, or is too large.
    """
    _compile_pattern(pattern)
    groups, last = [0], 0
    for token in TOKEN.finditer(pattern):
        text = token.group()
        if text == "(" and pattern.startswith("?", token.end()):
            raise InvalidPattern(
                f"{_short_pattern(pattern)} has a group with flags; groups here are `(…)`, `(?:…)` and `(?<name>…)`"
            )
        if text.startswith("("):
            groups.append(0)
        elif text in "*+?":
            continue
        elif text.startswith("{") and len(text) > 1:
            times = max(int(token[3] or 0), int(token[1] or 0) + (token[2] == "," and not token[3]), 1)
            groups[-1] += last * (times - 1)
            last *= times
        else:
            last = max(1, groups.pop()) if text == ")" else 1
            groups[-1] += last
    if groups[0] > MAX_STEPS:
        raise InvalidPattern(
            f"{_short_pattern(pattern)} has {groups[0]:,} parts with repetitions written out; {MAX_STEPS:,} are allowed"
        )
    return groups[0]


@lru_cache(maxsize=1024)
def _compile_pattern(pattern: str) -> SchemaValidator:
    try:
        pattern.encode()  # with a lone surrogate, pydantic would leave it to Python's `re`
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except (SchemaError, UnicodeError) as error:
        why = str(error).rpartition("rror: ")[2].strip()
        raise InvalidPattern(f"{_short_pattern(pattern)} is not a 'regex' here: {why}") from None


def _short_pattern(pattern: str) -> str:
    return repr(pattern if len(pattern) <= MAX_SHOWN_CHARACTERS else f"{pattern[:MAX_SHOWN_CHARACTERS]}…")
