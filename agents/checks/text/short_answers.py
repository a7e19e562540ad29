"""Whether two short answers to one question are the same: names, numbers, codes, a few words. Strict where `second_reader` is
generous: what one answer has more than the other, in words, numbers or signs, makes them different. Knows no family.
"""

import re
from fractions import Fraction

from agents.checks.text.supported_by_passage import (
    FUNCTION_WORDS,
    merge_forms,
    normalize_spelling,
    repeatable_words,
    split_polarity,
    word_forms,
)
from agents.checks.text.written_numbers import fold_text, parse_number_words

OUTER_MARKS = ".,;:!?\"'`“”‘’()[]"
HYPHENATED_WORDS = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)+")
PLAIN_WORD = re.compile(r"[^\W\d_]{3,}")
DECIMAL = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?")
LETTER = r"[^\W\d_]"
SPACE_IN_CODE = re.compile(rf"(?<={LETTER})(?:\s+|-)(?={LETTER})|(?<={LETTER})\s+(?=\d)|(?<=\d)(?:\s+|-)(?={LETTER})")
"""Spaces and hyphens between two letters, or a letter and a digit. A hyphen before a digit may be a sign, and 1-3 is not 13."""
FIRST_MARKS = re.compile(rf"(?:[{re.escape(OUTER_MARKS.replace('.', ''))}\s]|\.(?!\d))+")
"""A point before a digit belongs to the number."""


def is_same_short_answer(left: str, right: str, question: str) -> bool:
    """Whether they have the same numbers, words and signs in the same order, whatever their case, articles and inflection. Words
    of the question need not be in both, unless it offers them as a choice.
    """
    (lead, rest), (other_lead, other_rest) = (
        split_polarity(normalize_spelling(text.strip())) for text in (left, right)
    )
    if lead != other_lead:
        return False
    if lead and not (rest.strip(OUTER_MARKS + " ") and other_rest.strip(OUTER_MARKS + " ")):
        return True
    if _join_code(rest) == _join_code(other_rest):
        return True
    known = merge_forms(repeatable_words(normalize_spelling(question)))
    first, second = _list_tokens(rest, known), _list_tokens(other_rest, known)
    return len(first) == len(second) and all(map(_is_same_token, first, second))


def _join_code(text: str) -> str:
    """The answer without the spaces within a code or before a unit: AB 123 CD, 5 cm."""
    return SPACE_IN_CODE.sub("", _strip_marks(fold_text(text)))


def _strip_marks(text: str) -> str:
    """The text without punctuation before and after it."""
    begin = FIRST_MARKS.match(text)
    return text[begin.end() if begin else 0 :].rstrip(OUTER_MARKS + " ")


def _list_tokens(text: str, known: frozenset[str]) -> list[str]:
    """The numbers, words and signs of an answer, without articles and the like, and without words of the question; with them if
    nothing else is there.
    """
    pieces = [_strip_marks(piece) for piece in re.split(r"\s+|,(?!\d)", fold_text(text))]
    tokens = [
        _read_number(part)
        for piece in pieces
        for part in (
            piece.split("-") if HYPHENATED_WORDS.fullmatch(piece) and not parse_number_words(piece) else [piece]
        )
        if part
    ]
    content = [token for token in tokens if token not in FUNCTION_WORDS]
    new = [token for token in content if not (PLAIN_WORD.fullmatch(token) and word_forms(token) & known)]
    return new or content or tokens


def _read_number(token: str) -> str:
    """A number as digits: four, 4.0 and 4 are the same, and so are 1,200 and 1200."""
    if DECIMAL.fullmatch(token) and any(map(str.isdecimal, token)):
        return str(Fraction(token.replace(",", "")))
    value = parse_number_words(token)
    return token if value is None else str(value)


def _is_same_token(left: str, right: str) -> bool:
    both_words = PLAIN_WORD.fullmatch(left) and PLAIN_WORD.fullmatch(right)
    return left == right or bool(both_words and word_forms(left) & word_forms(right))
