"""Drops answers that begin with an assistant's phrases instead of the answer: "Sure! Here is …", "Great question!", "I'd be happy
to help". A student learns these phrases first. Reads the beginning only, in English only.

The phrases are our own list of openers of chat models from 2023 to 2026. Each continues in a way that prose does not, so that "Of
course, nobody came" and "Sure of himself, he left" are kept.
"""

import re
from collections.abc import Sequence

from core.config.filters import BoilerplateFilter
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument
from filters.rules.openers import drop_by_opener
from filters.text_normalization import STRAIGHT_QUOTES

OFFER = (
    r"(?:here(?: is| are|'s)|below (?:is|are)|i(?:'d| would| will|'ll| can) (?:\w+ )?(?:be|help|do|try|provide|give|write|explain"
    r"|create|assist)|let me|let's|the following)\b"
)
THING = r"(?:an?|the|some|my|your|one|two|three|four|five|six|seven|eight|nine|ten|\d+)\b"
OPENERS = {
    "assent": rf"(?:sure(?: thing)?|certainly|of course|absolutely|definitely|no problem|okay|ok|alright|gladly)"
    rf"(?:!|[,.:;-]? {OFFER})",
    "praise of the question": r"(?:(?:that's|that is|what|this is) )?(?:an? )?(?:great|good|excellent|wonderful|fantastic"
    r"|interesting|fascinating|thoughtful) question[!.,]",
    "joy to help": r"(?:i'd|i would|i'll|i will|i am|i'm) (?:be )?(?:\w+ )?(?:happy|glad|delighted|pleased|excited) to"
    r" (?:help|assist|answer|provide|share|explain|write)\b",
    "thanks for the question": r"(?:thank you|thanks) (?:so much )?for (?:your (?:question|message|request|inquiry|interest)"
    r"|asking|reaching out|sharing)\b",
    "announcement": rf"(?:here(?: is| are|'s)|below (?:is|are)) {THING}[^.!?\n]{{0,120}}:(?:\s|$)",
    "as requested": r"as (?:requested|you (?:have )?(?:requested|asked)|per your request)[,:]",
    "hope it finds you well": r"i hope this (?:message|email|letter) finds you\b",
}
"""By the name in the detail; each is matched at the start of the lower-case answer."""

BEGINNING_CHARACTERS = 240
"""Characters that are read; the longest opener is shorter."""
PATTERNS = [(name, re.compile(opener)) for name, opener in OPENERS.items()]


def drop_boilerplate(documents: Sequence[Document], config: BoilerplateFilter) -> list[DroppedDocument]:
    """Drop documents that begin with one of `OPENERS`."""
    return drop_by_opener(
        documents, find_boilerplate_opener, config.type, RejectionReason.boilerplate, "begins with boilerplate"
    )


def find_boilerplate_opener(text: str) -> str | None:
    """The name of the opener that `text` begins with, if it is one."""
    lines = text[: 2 * BEGINNING_CHARACTERS].translate(STRAIGHT_QUOTES).casefold().lstrip("\"'*>#- \t\n")
    beginning = re.sub(r"[^\S\n]+", " ", lines)[:BEGINNING_CHARACTERS]
    return next((name for name, pattern in PATTERNS if pattern.match(beginning)), None)
