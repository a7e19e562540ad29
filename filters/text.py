"""Text as the duplicate filters compare it: words without case, width and the punctuation around them.

Knows words by white space only, so a language written without it is compared in long pieces.
"""

import unicodedata

STRAIGHT = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})
PROSE_MARKS = ".,;:!?'\"`()[]{}«»…–—"
"""Punctuation taken off both ends of a word. Inside one it stays (`3.5` is not `35`), and so do signs that can be
operators (`2 - 3` is not `2 + 3`): what two texts mean must not depend on what is thrown away."""


def normalised_words(text: str) -> list[str]:
    """The words of `text` after NFKC, case folding and removal of prose marks; if nothing is left, with them."""
    folded = unicodedata.normalize("NFKC", text).translate(STRAIGHT).casefold().split()
    return [word for chunk in folded if (word := chunk.strip(PROSE_MARKS))] or folded
