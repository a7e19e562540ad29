"""The units of a text as a reader counts them: letters, words, sentences, questions, lines, list items.

Knows no constraint and no check.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from core.project_files import read_shipped_table

ENGLISH: Mapping[str, Any] = read_shipped_table("data/words/english.toml")
"""Lists of words by name, as texts."""
FUNCTION_WORDS = frozenset(ENGLISH["function_words"].split())
"""Words without content: they need not be in a quote."""
DENIALS = frozenset(ENGLISH["denials"].split())
CONTRAST_WORDS = frozenset(ENGLISH["contrast_words"].split())
"""Short words that change a statement's meaning: each must be in a quote or in the question, or a quote must mean the same."""
NEGATION_BEFORE = (
    r"\b(?:no|not|non|never|without|neither|nor|hardly|cannot|\w+n't)\s+(?:an?\s+|the\s+|any\s+|yet\s+|very\s+)?$"
)
NEGATED_SUBJECT = (
    r"\b(?:nothing|none|nobody|no(?!\s+(?:doubt|question|wonder|matter|later|sooner)\b)\s+[\w']+|not\s+(?:one|a\s+single))"
    r"(?:\s+(?!(?:and|but|so|as|because|since|which|who|that|it|this|they|he|she|we|you|i|if|except|other|else)\b)[\w']+){0,3}?"
    r"\s+(?:(?:has|have|had|will|can|could|may|needs?\s+to)\s+(?:ever\s+)?)?(?:is|are|was|were|be|been)"
    r"(?:\s+(?:an?|the|any|very|even|ever|really))?\s+$"
)
"""Denies a predicate by its subject: `Nothing here is estimated`; not `No doubt it is estimated`."""
PUNCTUATION_VARIANTS = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "‐": "-", "‑": "-", "–": "-", "—": " - "}
)
JOINED_SCRIPT = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
"""Scripts that put no spaces between words, or join particles to them: Thai, Lao, Burmese, Khmer, Chinese, Japanese, Korean."""
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"'”’)]*+(?=\s|$)")
WEB_ADDRESS = re.compile(r"(?:https?://|www\.)\S+")


def read_word_groups(name: str) -> list[list[str]]:
    """A list of `ENGLISH` with a group of words on each line."""
    return [line.split() for line in ENGLISH[name].strip().split("\n")]


def fold_text(text: str) -> str:
    """`text` with case, white space, quotes and dashes unified."""
    alike = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).translate(PUNCTUATION_VARIANTS)
    return " ".join(alike.split())


def loosen_text(text: str) -> str:
    """`text` folded, with hyphens and underscores as spaces."""
    return " ".join(re.sub(r"[-_]", " ", fold_text(text)).split())


def find_positions(text: str, sought: str) -> Iterator[int]:
    at = text.find(sought)
    while at >= 0:
        yield at
        at = text.find(sought, at + 1)


def _part_of_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")


def has_word_edges(text: str, start: int, end: int) -> bool:
    """Whether no word crosses an edge of a span."""
    return not any(
        0 < edge < len(text)
        and _part_of_word(text[edge - 1])
        and _part_of_word(text[edge])
        and not JOINED_SCRIPT.match(text[edge - 1])
        and not JOINED_SCRIPT.match(text[edge])
        for edge in (start, end)
    )


def joins_word(outside: str, edge: str) -> bool:
    """Whether the two characters outside an edge, nearest first, belong to the word inside it."""
    if len(outside) < 2 or not _part_of_word(edge) or not _part_of_word(outside[1]):
        return False
    return outside[0] in "-@.&" or (outside[0] in ",:/'" and edge.isdigit() and outside[1].isdigit())


# What a reader sees

INVISIBLE_CHARACTERS = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""Default_Ignorable_Code_Point of Unicode 15 (DerivedCoreProperties.txt), and the empty Braille pattern."""
LOOK_ALIKES = str.maketrans(
    "ĸаеорсухіјѕһԁԛԝкмтАВЕКМНОРСТУХІЈЅԚԜαειοκνρτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "kaeopcyxijshdqwkmtABEKMHOPCTYXIJSQWaeioknptuxABEZHIKMNOPTYX",
)
"""Cyrillic and Greek letters that most fonts draw as Latin ones (after Unicode's confusables.txt, UTS 39)."""
TAG = re.compile(r"</?[a-z][^<>\n]{0,40}>", re.IGNORECASE)
"""Of HTML."""


def remove_invisible(text: str) -> str:
    """`text` without invisible characters, in NFC."""
    return unicodedata.normalize("NFC", INVISIBLE_CHARACTERS.sub("", text))


def fold_to_plain_letters(text: str) -> str:
    """`text` in plain lower-case letters, as a reader sees it: no accents, no styles, no look-alikes."""
    apart = unicodedata.normalize("NFKD", html.unescape(TAG.sub("", remove_invisible(text))))
    return "".join(map(_plain_letter, apart)).translate(LOOK_ALIKES).casefold()


LATIN = re.compile(r"LATIN (?:(?:SMALL|CAPITAL) LETTER|LETTER SMALL CAPITAL) (?:DOTLESS )?([A-Z])(?: WITH .+)?$")


@cache
def _plain_letter(character: str) -> str:
    """The plain Latin letter in the Unicode name, such as z for ʐ; empty for a combining accent."""
    if character.isascii():
        return character
    if unicodedata.category(character)[0] == "M":
        return ""
    match = LATIN.search(unicodedata.name(character, ""))
    return match[1] if match else character


# Words


def split_words(text: str) -> list[str]:
    """The words of `text`, as written: runs of letters and digits, inner apostrophes and hyphens kept."""
    return WORD.findall(text)


ONE_WORD = re.compile(rf"{WEB_ADDRESS.pattern}|[^\W_]+(?:[.,:/@_'’-]+[^\W_]+)*")
MAX_HYPHENATED_PARTS = 4
"""Parts of the longest common hyphenated word: state-of-the-art. More parts are a chain of words."""
MAX_WORD_CHARACTERS = 45
"""Letters of the longest word in English dictionaries. More letters are words run together."""
LETTERS_PER_WORD = 5
"""Mean length of words run together."""
UNSPACED_SCRIPT = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters, written without spaces: at most one word each."""


JOINING_CHARACTERS = re.compile("[\u115f\u1160\u200b-\u200f\u2060-\u2064\u2800\u3164\ufeff\uffa0]")
"""Invisible characters that may replace a space."""


def max_word_count(text: str) -> int:
    """The largest word count that a reader may get, for a rule with a maximum."""
    count = 0
    for word in split_words(remove_invisible(JOINING_CHARACTERS.sub(" ", text))):
        hyphened, unspaced = len(re.split("['’-]", word)), len(UNSPACED_SCRIPT.findall(word))
        run = len(word) // LETTERS_PER_WORD if len(word) > MAX_WORD_CHARACTERS else 1
        count += max(run, unspaced, hyphened if hyphened > MAX_HYPHENATED_PARTS else 1)
    return count


def min_word_count(text: str) -> int:
    """The smallest word count that a reader may get, for a rule with a minimum: numbers, addresses, U.S.A. are one each."""
    return len(ONE_WORD.findall("".join(c for c in remove_invisible(text) if unicodedata.category(c)[0] != "M")))


def count_occurrences(word: str, text: str) -> int:
    """How often `word`, which may be several words, occurs whole or as its regular plural, in any case."""
    several = len(split_words(word)) > 1
    whole = space_word_parts(word.lower()) if several else word.lower()
    candidates = word_part_runs(text, len(WORD_PART.findall(word))) if several else split_words(text)
    return sum(candidate.lower() in {whole, f"{whole}s", f"{whole}es"} for candidate in candidates)


WORD_PART = re.compile(r"[^\W_]+")
"""Of a word: well-being has two, mother's day three."""


def space_word_parts(word: str) -> str:
    """The parts of `word` with a space between them; a word of one part is unchanged."""
    parts = WORD_PART.findall(word)
    return " ".join(parts) if len(parts) > 1 else word


def word_part_runs(text: str, n: int) -> list[str]:
    """Each run of `n` word parts, with a space between them."""
    parts = WORD_PART.findall(text)
    return [" ".join(parts[start : start + n]) for start in range(len(parts) - n + 1)]


# Sentences


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`: pieces that end with `.`, `!` or `?` before white space, and an unfinished last piece."""
    pieces, start = [], 0
    for end in SENTENCE_END.finditer(text):
        pieces.append(text[start : end.end()].strip())
        start = end.end()
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if WORD.search(piece)]


MARKS = str.maketrans({"。": ". ", "！": "! ", "？": "? ", "…": "...", "‼": "!!", "⁉": "!?"})
LIST_MARK = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•#>]+)[ \t]+", re.MULTILINE)
POSSIBLE_END = re.compile(r"(?<![.!?])[.!?]++[\"'”’)*_]*+(?=\s|$|[A-Z])|\n\s*\n|\n(?=[A-Z])")
NON_ENDING_ABBREVIATIONS = frozenset(ENGLISH["abbreviations"].split())
"""Abbreviations that never end a sentence."""
POSSIBLY_ENDING_ABBREVIATIONS = frozenset(ENGLISH["ending_abbreviations"].split())
CONTEXT_CHARACTERS = 80
"""Characters before a mark that decide whether it ends a sentence: its last word, or a name's initials."""
QUOTES = re.compile('["“”]')
INITIALS = re.compile(r"(?:[A-Z]\.\s*)*[A-Z]")


class SentenceReading(NamedTuple):
    pieces: list[str]
    """Split at certain ends."""
    doubtful: int
    """Number of possible further ends."""


def read_sentences(text: str) -> SentenceReading:
    """The sentences of `text` as a reader counts them: `Dr.` ends none, and `"Why?" he said` may be one or two."""
    text = LIST_MARK.sub("", remove_invisible(text.translate(MARKS))).strip().strip('"“”')
    pieces, start, doubtful = [], 0, 0
    small = text == text.lower()
    # State of text[start:read], so that nothing is scanned twice where many marks end no sentence.
    read, worded, quotes = 0, False, Counter[str]()
    for end in POSSIBLE_END.finditer(text):
        worded = worded or bool(WORD.search(text[read : end.end()]))
        quotes.update(QUOTES.findall(text[read : end.start()]))
        read = end.start()
        if not worded:
            continue
        before = text[max(start, end.start() - CONTEXT_CHARACTERS) : end.start()]
        whole = before.strip() if end.start() - start <= CONTEXT_CHARACTERS else ""
        certain = _ends_sentence(before, whole, quotes, end.group(), text[end.end() : end.end() + 40], small)
        doubtful += certain is None
        if certain:
            pieces.append(text[start : end.end()].strip())
            start = read = end.end()
            worded, quotes = False, Counter()
    return SentenceReading([*pieces, *([text[start:].strip()] if WORD.search(text[start:]) else [])], doubtful)


def _ends_sentence(before: str, whole: str, quotes: Counter[str], mark: str, after: str, small: bool) -> bool | None:
    """Whether a sentence ends at `mark`; None if in doubt. `before` are the last characters before it, `whole` the sentence
    before it if short, `quotes` its quotation marks. `small`: the text has no capitals.
    """
    rest = after.lstrip().lstrip("\"'“‘(*_")
    last = (before.split() or [""])[-1].strip("\"'“‘(*_").lower()
    if not after.strip():
        return True
    if not mark.strip():
        return None
    if last in NON_ENDING_ABBREVIATIONS or INITIALS.fullmatch(whole) or whole.isdecimal():
        return False
    if last in POSSIBLY_ENDING_ABBREVIATIONS:
        return None if rest[:1].isupper() else False
    if not after[0].isspace():
        return False if len(last.rpartition(".")[2]) == 1 else None
    single = len(last) == 1 and last.isalpha() and last != "i"
    if single or quotes['"'] % 2 != mark.count('"') % 2 or quotes["“"] > quotes["”"] + mark.count("”"):
        return None
    return None if rest[:1].islower() and not (small and mark in {".", "!", "?"}) else True


def contains_question(text: str) -> bool:
    """Whether a question mark follows a word anywhere in `text`; marks in an address, in code or alone do not count."""
    return any("?" in mark for mark, _end in find_question_marks(text))


QUESTION = re.compile(r"[^\W_][\"'”’)\]*_]*+(?P<marks>[!?]++)[\"'”’)\]*_]*+(?=\s|$)")


def find_question_marks(text: str) -> list[tuple[str, int]]:
    """The marks after questions and exclamations, each with the number of characters after it."""
    bare = WEB_ADDRESS.sub("", text).rstrip()
    return [(match["marks"], len(bare) - match.end()) for match in QUESTION.finditer(bare)]


# Lines


def nonempty_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def parse_list_items(text: str, mark: str) -> list[re.Match[str]] | None:
    """The items of a list that begin with `mark`; None if any line is not an item, is indented differently or has no words."""
    matches = [re.match(rf"(?P<in>\s*){mark} +(?P<text>.*)", line) for line in text.splitlines() if line.strip()]
    items = [item for item in matches if item and WORD.search(item["text"])]
    return items if len(items) == len(matches) and len({item["in"] for item in items}) == 1 else None


def remove_code(text: str) -> str:
    """`text` without code and HTML comments."""
    shown = re.sub(r"```.*?(?:```|$)|<!--.*?(?:-->|$)|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.sub(r"^(?: {4}|\t).*$", "", shown, flags=re.MULTILINE)
