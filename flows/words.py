"""Numbers, durations and untrusted text in words, for the card and for the page."""

import math
import re
from datetime import datetime

from core.run import MetricRecord

LONGEST_TEXT = 4000
"""Characters of one text in the page; the Parquet files have all of it."""
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a cursor, recolour a terminal, turn the direction of text around, or are not text at all."""


def place_of(metric: MetricRecord) -> str:
    if metric.candidate < metric.low:
        return "below"
    return "above" if metric.candidate > metric.high else "inside"


def plain(text: str) -> str:
    """`text` with nothing in it that a terminal would obey."""
    return UNSAFE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str, most: int = 160) -> str:
    words = " ".join(plain(text).split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def cut(text: str) -> str:
    """As much of `text` as the page shows, saying how much is missing."""
    left_out = len(text) - LONGEST_TEXT
    return text if left_out <= 0 else f"{text[:LONGEST_TEXT]}… ({left_out:,} characters more)"


def number(value: float) -> str:
    """Three significant digits, thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(share: float) -> str:
    """A whole percentage that is 0 or 100 only when the share is."""
    whole = round(100 * share)
    if 0 < share < 1:
        whole = min(max(whole, 1), 99)
    return f"{whole} %"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    minutes = math.floor(seconds / 60 + 0.5)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def clock(iso: str) -> str:
    """An ISO time for people, as given where it is not one."""
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = moment.strftime(" %Z") if moment.tzinfo else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"
