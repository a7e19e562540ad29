"""Text as the duplicate filters compare it: words without case, width and surrounding punctuation.

Words are separated by white space only, so text in a language without it is compared in long pieces.
"""

import unicodedata

STRAIGHT_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})
PROSE_MARKS = ".,;:!?'\"`()[]{}«»…–—"
"""Punctuation removed from both ends of a word. Punctuation inside a word stays (`3.5` is not `35`), and so do signs that can be
operators (`2 - 3` is not `2 + 3`): removal must not change the meaning of a text."""


def normalize_words(text: str) -> list[str]:
    """The words of `text` after NFKC, case folding and removal of prose marks; with the marks if nothing else is left."""
    folded = unicodedata.normalize("NFKC", text).translate(STRAIGHT_QUOTES).casefold().split()
    return [word for chunk in folded if (word := chunk.strip(PROSE_MARKS))] or folded
