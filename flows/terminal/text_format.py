"""Numbers, durations and untrusted text for people; and the environment of all templates, with the sentences that they share.

Text from teachers is untrusted: everywhere it loses the characters that control a terminal; a page escapes it.
"""

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.teachers import find_student_release
from core.runs.records import MetricRecord
from core.runs.student_records import TruncationRecord
from core.runs.verdict_words import format_count as format_count
from core.sample import Spending, TokenUsage

if TYPE_CHECKING:
    from jinja2 import Environment

TERMINAL_WIDTH = 100
"""Columns of all text for a terminal except paths: a path that is broken cannot be copied."""
LABEL_WIDTH = 12
"""Columns before the values of a card row."""
VALUE_WIDTH = TERMINAL_WIDTH - LABEL_WIDTH
LONGEST_SHOWN_TEXT = 4000
"""Characters of one text in the page. The Parquet files have the whole text."""
UNSAFE_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a cursor, recolour a terminal, reverse the text direction, or are not text."""


def locate_metric(metric: MetricRecord) -> str:
    if metric.candidate < metric.low:
        return "below"
    return "above" if metric.candidate > metric.high else "inside"


def replace_unsafe_characters(text: str) -> str:
    """`text` without characters that control a terminal."""
    return UNSAFE_CHARACTERS.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def format_one_line(text: str, most: int = 160) -> str:
    """`text` on one line of at most `most` characters, cut after a word, or inside a word longer than half of the line."""
    words = " ".join(replace_unsafe_characters(text).split())
    if len(words) <= most:
        return words
    head = words[:most].rpartition(" ")[0]
    return (head if len(head) >= most / 2 else words[: most - 1]) + "…"


def truncate_text(text: str) -> str:
    """The part of `text` that the page shows: its beginning, and its end, which often has the question after a passage."""
    left_out = len(text) - LONGEST_SHOWN_TEXT
    if left_out <= 0:
        return text
    end = LONGEST_SHOWN_TEXT // 4
    return f"{text[: LONGEST_SHOWN_TEXT - end]}… ({left_out:,} characters left out) …{text[-end:]}"


def advise_on_truncation(found: TruncationRecord | None, key: str) -> str | None:
    """The number of truncated conversations, and the setting that would truncate none. None if none was truncated."""
    if not found or not found.truncated:
        return None
    return f"{found.summary}: --set {key}={found.longest} truncates none"


def format_number(value: float) -> str:
    """Three significant digits, thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def describe_generator(model: str) -> str:
    """The model that wrote the samples of a run: its name, or the release whose student it is."""
    release = find_student_release(model)
    return f"student of {release}" if release else replace_unsafe_characters(model)


def format_percent(share: float) -> str:
    """A whole percentage, which is 0 or 100 only if the share is exactly 0 or 1."""
    whole = round(100 * share)
    if 0 < share < 1:
        whole = min(max(whole, 1), 99)
    return f"{whole} %"


def format_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as indented lines; a column is as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def format_token_usage(usage: TokenUsage | Spending) -> list[str]:
    """Calls and tokens; cached and thinking tokens where there are any."""
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    thought = f" ({usage.reasoning_tokens:,} thinking)" if usage.reasoning_tokens else ""
    return [
        format_count(usage.calls, "call"),
        f"{usage.prompt_tokens:,} tokens in{cached}",
        f"{usage.completion_tokens:,} out{thought}",
    ]


def format_money(amount: float, currency: str | None = None) -> str:
    """Three significant digits, and at least cents from 1 on."""
    number = f"{amount:,.2f}" if abs(amount) >= 1 else f"{amount:.3g}"
    return f"{number} {currency}" if currency else number


def format_duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    minutes = math.floor(seconds / 60 + 0.5)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def hide_folder(text: str) -> str:
    """The file's name of an absolute path, whose folders are those of a private machine; any other text unchanged."""
    return Path(text).name if Path(text).is_absolute() else text


def escape_cell(text: str) -> str:
    """`text` inside a Markdown table or list: one line, no markup, no table borders."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", format_one_line(text, 400))


def format_day(iso: str) -> str:
    return re.sub(r"T.*", "", iso)


def format_time(iso: str) -> str:
    """An ISO time for people; other text is returned unchanged."""
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = moment.strftime(" %Z") if moment.tzinfo else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"


# Cards


def format_row(label: str, value: str | Iterable[object] | None, joint: str = "   ") -> str:
    """Labeled lines of a card: a text wrapped; or items, which stay whole. Empty for nothing."""
    if isinstance(value, str):
        return "\n".join(_format_labeled_lines(label, textwrap.wrap(replace_unsafe_characters(value), VALUE_WIDTH)))
    items = map(str, value or ())
    return "\n".join(
        _format_labeled_lines(label, list(items) if joint == "\n" else _wrap_items(items, joint, VALUE_WIDTH))
    )


def _format_labeled_lines(label: str, values: Sequence[str]) -> list[str]:
    labels = [label, *[""] * (len(values) - 1)]
    return [f"  {name:<{LABEL_WIDTH - 2}}{value}" for name, value in zip(labels, values, strict=False)]


def _wrap_items(items: Iterable[str], joint: str, width: int) -> list[str]:
    """Lines of whole items, each line as full as possible."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(joint) + len(item) <= width:
            lines[-1] += joint + item
        else:
            lines.append(joint.lstrip() + item if lines else item)
    return lines


# Templates

FORMATS: tuple[Callable[..., Any], ...] = (
    describe_generator, escape_cell, format_count, format_day, format_duration, format_money, format_number, format_one_line,
    format_percent, format_time, format_token_usage, hide_folder, locate_metric, truncate_text,
)  # fmt: skip
SHARED_TEMPLATES = Path(__file__).with_name("templates")


@cache
def create_environment(
    *folders: Path, filters: tuple[Callable[..., str], ...] = (), pages: bool = False
) -> "Environment":
    """Of the templates in `folders`, before those that all share. `filters` are named as their functions are, next to those of
    `FORMATS`, and can be called too. `pages` are HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([*folders, SHARED_TEMPLATES]),
        autoescape=pages,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: replace_unsafe_characters(value) if type(value) is str else value,
    )
    named = {one.__name__: one for one in (*FORMATS, *filters)}
    environment.filters.update(named)
    environment.globals.update(named, say=say, row=format_row)
    return environment


def say(name: str, *facts: Any) -> str:
    """The sentence `name` of `words.txt` about these facts, on one line, without a full stop; empty for nothing."""
    return " ".join(str(getattr(create_environment().get_template("words.txt").module, name)(*facts)).split())
