"""Words and sentences of German, French, Spanish and Chinese, as a reader counts them. `sentencex` splits sentences; what it
splits wrongly is joined again. Knows no rule.
"""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from agents.checks.text.text_units import (
    LIST_MARK,
    WORD,
    SentenceReading,
    fold_to_plain_letters,
    max_word_count,
    min_word_count,
    remove_invisible,
)
from agents.families.document_constraints import COMMON_WORDS

DATA = Path(__file__).with_name("data")
CHARACTER = re.compile("[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
CHINESE_UNIT = re.compile(rf"{CHARACTER.pattern}|[A-Za-z]+|\d+(?:[.,:]\d+)*")
"""A character, a foreign word, a number: what counts as one in the length of a Chinese text."""
SAYING = re.compile(r"[\u4e00-\u9fff]{0,6}(?:说|问|喊|道|答|叫|笑)")
"""Begins what follows a quotation in the same sentence: `“你好！”他说。`"""
ORDINAL = re.compile(r"(?<![\d.,])\d{1,3}\.$")
INITIAL = re.compile(r"(?:^|[\s(])[^\W\d_]\.$")
SMALL_START = re.compile(r"(?<=[.!?…]\s)[¿¡«„“\"]?[^\W\d_]")
END = re.compile(r"[.!?。！？…][\"'”’»«“)\]*_」』\s]*$")
PART = re.compile(r"[^\W_]+")


@cache
def read_wordings(language: str) -> dict[str, Any]:
    """The table of a language in `data/`."""
    return tomllib.loads((DATA / f"{language}.toml").read_text(encoding="utf-8"))


def count_units(text: str, language: str) -> tuple[int, int]:
    """The fewest and the most words, or Chinese characters, that a reader may count."""
    if language == "zh":
        n = len(CHINESE_UNIT.findall(remove_invisible(text)))
        return n, n
    return min_word_count(text), max_word_count(text)


def read_local_sentences(text: str, language: str) -> SentenceReading:
    """The sentences of a text, and the number of possible further ends, such as `usw.` before a capital letter."""
    text = LIST_MARK.sub("", remove_invisible(text)).strip()
    if text == text.lower():  # `sentencex` takes a small letter for a sign that the sentence continues
        text = SMALL_START.sub(lambda match: match[0].upper(), text)
    pieces = [piece for paragraph in re.split(r"\n+", text) for piece in _split_paragraph(paragraph, language)]
    doubtful = read_wordings(language)["ending_abbreviations"].split()
    inner = [word.lower() for piece in pieces for word in re.findall(r"(\S{1,20}\.)\s+[A-ZÄÖÜÉÈÀÁÍÓÚÑ¿¡]", piece)]
    return SentenceReading(pieces, sum(word in doubtful for word in inner))


def _split_paragraph(paragraph: str, language: str) -> list[str]:
    from sentencex import segment

    pieces: list[str] = []
    for piece in map(str.strip, map(str, segment(language, paragraph))):
        if pieces and _continues(pieces[-1], piece, language):
            pieces[-1] += ("" if language == "zh" else " ") + piece
        elif piece:
            pieces.append(piece)
    return [piece for piece in pieces if WORD.search(piece)]


def _continues(before: str, piece: str, language: str) -> bool:
    """Whether a piece belongs to the sentence before it."""
    if language == "zh":
        return before[-1] in '”」』"' and bool(SAYING.match(piece))
    first, last = next(iter(PART.findall(piece)), ""), before.split()[-1].lower().lstrip("\"'“„«»(¿¡")
    if not first:
        return True
    if before.endswith(".") and (INITIAL.search(before) or last in read_wordings(language)["abbreviations"].split()):
        return True
    if language == "de" and ORDINAL.search(before):  # `im 19. Jahrhundert`, and not `Es sind 19. Und dann`
        return first[0].isupper() and first.lower() not in COMMON_WORDS["German"]
    return first[0].islower() and not before.endswith(("!", "?", "…"))


def is_ended(text: str) -> bool:
    return bool(END.search(text.strip()))


def list_word_parts(text: str, *, plain: bool) -> list[str]:
    """The parts of the words of `text` without case; `plain`: without accents and look-alikes."""
    return PART.findall(fold_to_plain_letters(text) if plain else remove_invisible(text).casefold())


def count_word(word: str, text: str, language: str, *, plain: bool = False) -> int:
    """How often a word, or several, occurs whole or with a regular ending. Of Chinese, as a part of the text."""
    if language == "zh":
        return remove_invisible(text).count(word)
    sought, parts = list_word_parts(word, plain=plain), list_word_parts(text, plain=plain)
    return sum(
        parts[i : i + len(sought) - 1] == sought[:-1]
        and parts[i + len(sought) - 1] in _list_forms(sought[-1], language)
        for i in range(len(parts) - len(sought) + 1)
    )


def _list_forms(word: str, language: str) -> set[str]:
    forms = {word, *(word + ending for ending in read_wordings(language)["endings_of_words"])}
    return forms | ({re.sub("z$", "ces", word)} if language == "es" else set())


def find_word(word: str, text: str, language: str, start: int) -> int:
    """The position from `start` on at which a word begins; below 0 if it does not occur."""
    if language == "zh":
        return text.find(word, start)
    endings = "|".join(["", *read_wordings(language)["endings_of_words"]])
    match = re.compile(rf"(?<![^\W_]){re.escape(word)}(?:{endings})(?![^\W_])", re.IGNORECASE).search(text, start)
    return match.start() if match else -1
