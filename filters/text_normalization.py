"""Text as filters count and compare it: words without case, width and surrounding punctuation.

Words are separated by white space; in scripts without it, each character is a word. Knows scripts, not languages.
"""

import re
import unicodedata

STRAIGHT_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})
PROSE_MARKS = ".,;:!?'\"`()[]{}«»…–—。、「」『』《》〈〉【】"
"""Punctuation removed from both ends of a word. Punctuation inside a word stays (`3.5` is not `35`), and so do signs that can be
operators (`2 - 3` is not `2 + 3`): removal must not change the meaning of a text."""
SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters (Unicode blocks): scripts without spaces between words."""
SPACELESS_LETTER = re.compile(f"[{SPACELESS}]")
WORD = re.compile(rf"[{SPACELESS}]|[^\s{SPACELESS}]+")
LATIN_LETTER = re.compile(r"[^\W\d_\u0370-\u1dff\u2c00-\U0003ffff]")
"""Letters of the Latin blocks (to U+024F, phonetic ones, U+1E00 to U+1EFF)."""
MIN_LATIN_SHARE = 0.5
"""Least share of Latin letters in a text that may be English: an answer in English may quote other scripts."""


def is_spaceless(word: str) -> bool:
    """Whether a word of `split_words` is a character of a script without spaces."""
    return bool(SPACELESS_LETTER.match(word))


def split_words(text: str) -> list[str]:
    """The words of `text` as written; each character of a script without spaces is one."""
    if text.isascii() or not SPACELESS_LETTER.search(text):
        return text.split()
    return [
        word
        for chunk in text.split()
        for word in WORD.findall(chunk)
        if len(chunk) == len(word) or word.strip(PROSE_MARKS + "，！？：；（）")
    ]


def normalize_words(text: str) -> list[str]:
    """The words of `text` after NFKC, case folding and removal of prose marks; with the marks if nothing else is left."""
    folded = split_words(unicodedata.normalize("NFKC", text).translate(STRAIGHT_QUOTES).casefold())
    return [word for chunk in folded if (word := chunk.strip(PROSE_MARKS))] or folded


def may_be_english(text: str) -> bool:
    """Whether at least half of the letters are Latin. Texts in other languages with Latin letters are not told apart."""
    if text.isascii():
        return True
    letters = sum(map(str.isalpha, text))
    return len(LATIN_LETTER.findall(text)) >= MIN_LATIN_SHARE * letters
