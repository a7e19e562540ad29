"""Constraints on a text that code can check: what each asks for, how it is drawn, how it is checked.

Knows nothing of teachers, prompts or samples. After the idea of IFEval (Zhou et al., arXiv 2311.07911):
an instruction whose every demand has a program that decides it.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from agents.strict_json import strict_json

Params = Mapping[str, Any]

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++[\"'”’)]*+(?=\s|$)")
ADDRESS = re.compile(r"(?:https?://|www\.)\S+")
THANKS = {
    "Spanish": "gracias",
    "French": "merci",
    "German": "danke|dankesch(?:ö|oe)n|(?:vielen|herzlichen|besten|schönen) dank",
    "Italian": "grazie",
    "Portuguese": "obrigad[oa]",
}
"""Patterns of whole words, the plainest before the first bar."""


# What a reader sees

UNSEEN = re.compile(
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


def seen(text: str) -> str:
    """`text` without the characters that nobody sees, accents in one piece with their letters."""
    return unicodedata.normalize("NFC", UNSEEN.sub("", text))


def folded(text: str) -> str:
    """`text` in the plain small letters that a reader takes it for: no accents, no styles, no look-alikes."""
    apart = unicodedata.normalize("NFKD", html.unescape(TAG.sub("", seen(text))))
    return "".join(map(_letter, apart)).translate(LOOK_ALIKES).casefold()


LATIN = re.compile(r"LATIN (?:(?:SMALL|CAPITAL) LETTER|LETTER SMALL CAPITAL) (?:DOTLESS )?([A-Z])(?: WITH .+)?$")


@cache
def _letter(character: str) -> str:
    """The plain letter that Unicode calls a Latin one after, such as the z of ʐ; nothing for an accent of its own."""
    if character.isascii():
        return character
    if unicodedata.category(character)[0] == "M":
        return ""
    found = LATIN.search(unicodedata.name(character, ""))
    return found[1] if found else character


# Words


def words_of(text: str) -> list[str]:
    """The words of `text`, as written: runs of letters and digits, inner apostrophes and hyphens kept."""
    return WORD.findall(text)


ONE_WORD = re.compile(rf"{ADDRESS.pattern}|[^\W_]+(?:[.,:/@_'’-]+[^\W_]+)*")
HYPHENED = 4
"""Parts of the longest word that is commonly hyphened: state-of-the-art. More are words in a chain."""
LONGEST_WORD = 45
"""Letters of the longest word in dictionaries of English. More are words run together, of LETTERS each on the average."""
LETTERS = 5
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters, which are written without spaces: at the most one word each."""


JOINING = re.compile("[\u115f\u1160\u200b-\u200f\u2060-\u2064\u2800\u3164\ufeff\uffa0]")
"""Unseen characters that may stand in the place of a space."""


def most_words(text: str) -> int:
    """The most words that a reader may count: for a rule that allows so many."""
    return sum(map(_most, words_of(seen(JOINING.sub(" ", text)))))


def _most(word: str) -> int:
    hyphened, unspaced = len(re.split("['’-]", word)), len(UNSPACED.findall(word))
    run = len(word) // LETTERS if len(word) > LONGEST_WORD else 1
    return max(run, unspaced, hyphened if hyphened > HYPHENED else 1)


def least_words(text: str) -> int:
    """The fewest words that a reader may count, for a rule that demands so many: numbers, addresses, U.S.A. are one each."""
    return len(ONE_WORD.findall("".join(c for c in seen(text) if unicodedata.category(c)[0] != "M")))


def _times(word: str, text: str) -> int:
    """How often `word`, which may be several, occurs as a whole or as its plain plural, in any case."""
    several = len(words_of(word)) > 1
    whole = _apart(word.lower()) if several else word.lower()
    said = _runs(text, len(PART.findall(word))) if several else words_of(text)
    return sum(found.lower() in {whole, f"{whole}s", f"{whole}es"} for found in said)


PART = re.compile(r"[^\W_]+")
"""Of a word: well-being has two, mother's day three."""


def _apart(word: str) -> str:
    """The parts of `word` with a space between them; one of a single part as it is."""
    parts = PART.findall(word)
    return " ".join(parts) if len(parts) > 1 else word


def _runs(text: str, n: int) -> list[str]:
    """Each `n` parts of words in a row, with a space between them."""
    parts = PART.findall(text)
    return [" ".join(parts[start : start + n]) for start in range(len(parts) - n + 1)]


# Sentences


def sentences_of(text: str) -> list[str]:
    """The sentences of `text`: pieces that end with `.`, `!` or `?` before white space, and an unended last piece."""
    pieces, start = [], 0
    for end in SENTENCE_END.finditer(text):
        pieces.append(text[start : end.end()].strip())
        start = end.end()
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if WORD.search(piece)]


MARKS = str.maketrans({"。": ". ", "！": "! ", "？": "? ", "…": "...", "‼": "!!", "⁉": "!?"})
LIST_MARK = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•#>]+)[ \t]+", re.MULTILINE)
POSSIBLE_END = re.compile(r"(?<![.!?])[.!?]++[\"'”’)*_]*+(?=\s|$|[A-Z])|\n\s*\n|\n(?=[A-Z])")
NO_END = frozenset("mr mrs ms dr prof gen capt rev st mt vs e.g i.e cf approx fig vol ch sec pp".split())
"""Abbreviations that need more after them."""
MAYBE_END = frozenset(
    "etc a.m p.m no inc ltd co corp jr sr u.s u.k u.s.a ph.d b.c a.d jan feb mar apr aug sep sept oct nov dec ave rd".split()
)
INITIALS = re.compile(r"(?:[A-Z]\.\s*)*[A-Z]")


class Sentences(NamedTuple):
    pieces: list[str]
    """By the ends that are certain."""
    doubtful: int
    """How many more ends there may be."""


def read_sentences(text: str) -> Sentences:
    """The sentences of `text` as a reader has them: `Dr.` ends none, and `"Why?" he said` may be one or two."""
    text = LIST_MARK.sub("", seen(text.translate(MARKS))).strip().strip('"“”')
    pieces, start, doubtful = [], 0, 0
    small = text == text.lower()
    for end in POSSIBLE_END.finditer(text):
        piece = text[start : end.end()]
        if not WORD.search(piece):
            continue
        certain = _ends(text[start : end.start()], end.group(), text[end.end() :][:40], small)
        doubtful += certain is None
        if certain:
            pieces.append(piece.strip())
            start = end.end()
    return Sentences([*pieces, *([text[start:].strip()] if WORD.search(text[start:]) else [])], doubtful)


def _ends(before: str, mark: str, after: str, small: bool) -> bool | None:
    """Whether a sentence ends at `mark`; None where that is doubtful. `small`: there are no capitals in the text."""
    rest = after.lstrip().lstrip("\"'“‘(*_")
    last = before.split()[-1].strip("\"'“‘(*_").lower()
    if not after.strip():
        return True
    if not mark.strip():
        return None
    if last in NO_END or INITIALS.fullmatch(before.strip()) or before.strip().isdecimal():
        return False
    if last in MAYBE_END:
        return None if rest[:1].isupper() else False
    if not after[0].isspace():
        return False if len(last.rpartition(".")[2]) == 1 else None
    single = len(last) == 1 and last.isalpha() and last != "i"
    if single or before.count('"') % 2 != mark.count('"') % 2 or before.count("“") > (before + mark).count("”"):
        return None
    return None if rest[:1].islower() and not (small and mark in {".", "!", "?"}) else True


def asks(text: str) -> bool:
    """Whether a question mark ends words anywhere in `text`; one in an address, in code or by itself asks nothing."""
    return any("?" in mark for mark, _end in _marks(text))


QUESTION = re.compile(r"[^\W_][\"'”’)\]*_]*+(?P<marks>[!?]++)[\"'”’)\]*_]*+(?=\s|$)")


def _marks(text: str) -> list[tuple[str, int]]:
    """The marks of questions and exclamations, each with how many characters follow."""
    bare = ADDRESS.sub("", text).rstrip()
    return [(found["marks"], len(bare) - found.end()) for found in QUESTION.finditer(bare)]


# Lines


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _items(text: str, mark: str) -> list[re.Match[str]] | None:
    """The lines of a list whose items begin with `mark`; None where a line is none of it, is set in or has no words."""
    found = [re.match(rf"(?P<in>\s*){mark} +(?P<text>.*)", line) for line in text.splitlines() if line.strip()]
    items = [item for item in found if item and WORD.search(item["text"])]
    return items if len(items) == len(found) and len({item["in"] for item in items}) == 1 else None


def _without_code(text: str) -> str:
    """Nor what is commented out."""
    shown = re.sub(r"```.*?(?:```|$)|<!--.*?(?:-->|$)|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.sub(r"^(?: {4}|\t).*$", "", shown, flags=re.MULTILINE)


def _unless(met: bool, fault: str) -> str | None:
    return None if met else fault


@dataclass(frozen=True)
class Topic:
    """What constraint parameters are drawn from: a topic and a few words that belong to it."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """One kind of constraint. Two kinds of one `group` are never combined, since they can contradict each other."""

    group: str
    phrases: Sequence[str]
    draw: Callable[[Random, Topic], dict[str, Any]]
    check: Callable[[str, Params], str | None]
    """The fault in words, or None where the text meets the constraint."""
    raw: bool = False
    """Whether it looks at the text as it is, and not as `seen`."""
    words: int = 0
    """How many words of the topic it is drawn from."""


def _nothing(_rng: Random, _topic: Topic) -> dict[str, Any]:
    return {}


def _number(name: str, *choices: int) -> Callable[[Random, Topic], dict[str, Any]]:
    return lambda rng, _topic: {name: rng.choice(choices)}


def _one_word(rng: Random, topic: Topic) -> dict[str, Any]:
    return {"word": rng.choice(topic.words)}


def _max_words(text: str, p: Params) -> str | None:
    n = most_words(text)
    return _unless(n <= p["n"], f"it has {n} words, at most {p['n']} are allowed")


def _min_words(text: str, p: Params) -> str | None:
    n = least_words(text)
    return _unless(n >= p["n"], f"it has {n} words, at least {p['n']} are needed")


def _words_between(text: str, p: Params) -> str | None:
    least, most = least_words(text), most_words(text)
    n = least if least < p["low"] else most
    return _unless(p["low"] <= least and most <= p["high"], f"it has {n} words, not {p['low']} to {p['high']}")


def _exact_sentences(text: str, p: Params) -> str | None:
    pieces, doubtful = read_sentences(text)
    n = f"{len(pieces)}{f' to {len(pieces) + doubtful}' if doubtful else ''}"
    ended = bool(re.search(r"[.!?][\"'”’)]*$", text.strip()))
    met = n == str(p["n"]) and ended
    return _unless(met, f"it has {n} sentences{'' if ended else ', the last unended'}, not {p['n']}")


def _max_sentence_words(text: str, p: Params) -> str | None:
    longest = max((most_words(one) for one in read_sentences(JOINING.sub(" ", text)).pieces), default=0)
    return _unless(0 < longest <= p["n"], f"its longest sentence has {longest} words, at most {p['n']} are allowed")


def _exact_paragraphs(text: str, p: Params) -> str | None:
    n = sum(map(_is_paragraph, re.split(r"\n\s*\n", text.strip())))
    return _unless(n == p["n"], f"it has {n} paragraphs, not {p['n']}")


def _is_paragraph(part: str) -> bool:
    """Rather than a heading, a rule, or a fence around others."""
    return bool(WORD.search(TAG.sub("", part))) and not re.fullmatch(
        r"\s*(?:(?:#{1,6} |```).*|\*\*[^*\n]+\*\*\s*)", part
    )


def _include_words(text: str, p: Params) -> str | None:
    missing = [word for word in p["words"] if not _times(word, text)]
    return _unless(not missing, f"it lacks {', '.join(map(repr, missing))}")


def _mention_times(text: str, p: Params) -> str | None:
    n = _times(p["word"], text)
    return _unless(n >= p["n"], f"it uses {p['word']!r} {n} times, at least {p['n']} are needed")


def _avoid_word(text: str, p: Params) -> str | None:
    word, plain = folded(p["word"]), folded(text)
    forms = {_apart(form) for form in (word, f"{word}s", f"{word}es", re.sub("y$", "ies", word))}
    n = max(1, len(PART.findall(word)))
    said = {run for shown in (plain, re.sub(r"[*`~]", "", plain)) for run in _runs(shown, n)}
    return _unless(not forms & said, f"it uses the forbidden word {p['word']!r}")


def _avoid_letter(text: str, p: Params) -> str | None:
    drawn = any(name.endswith(f"LATIN CAPITAL LETTER {p['letter'].upper()}") for name in _names(text))
    return _unless(p["letter"] not in folded(text) and not drawn, f"it has the forbidden letter {p['letter']!r}")


def _names(text: str) -> Iterable[str]:
    """What Unicode calls the characters of `text`, each once."""
    return (unicodedata.name(character, "") for character in set(text))


def _include_number(text: str, _p: Params) -> str | None:
    return _unless(bool(re.search(r"(?<![^\W_])\d", text)), "it has no number in digits")


DRAWN_NUMBERS = "🔟💯🔢🔞"


def _no_digits(text: str, _p: Params) -> str | None:
    digits = sorted(c for c in set(text) if unicodedata.category(c) in {"Nd", "No"} or c in DRAWN_NUMBERS)
    return _unless(not digits, f"it has digits: {' '.join(digits)}")


def _start_with(text: str, p: Params) -> str | None:
    first = next(iter(words_of(text)), "")
    return _unless(first.lower() == p["word"].lower(), f"it starts with {first!r}, not {p['word']!r}")


def _end_with(text: str, p: Params) -> str | None:
    bare = text.rstrip().rstrip("\"'”’")
    before = bare.removesuffix(p["ending"]).rstrip(" \t")
    met = bare.endswith(p["ending"]) and (not before or before[-1] in "\n.!?:;…\"'“”’)*_—–-")
    return _unless(met, f"it does not end with {p['ending']!r} by itself")


def _end_in_language(text: str, p: Params) -> str | None:
    last = (sentences_of(text) or [""])[-1].lower()
    met = re.search(rf"(?<![\w-])(?:{THANKS[p['language']]})(?![\w-])", last)
    return _unless(bool(met), f"its last sentence does not say thank you in {p['language']}")


def _end_question(text: str, _p: Params) -> str | None:
    met = any("?" in mark and not after for mark, after in _marks(text))
    return _unless(met, "it does not end with a question and its mark")


def _ask_question(text: str, _p: Params) -> str | None:
    return _unless(asks(text), "it asks no question")


def _end_exclamation(text: str, _p: Params) -> str | None:
    return _unless(text.rstrip().rstrip("\"'”’").endswith("!"), "it does not end with an exclamation mark")


def _no_commas(text: str, _p: Params) -> str | None:
    text = html.unescape(text)
    found = [c for c in set(text) if c in "‚ꓹ" or (unicodedata.category(c) == "Po" and "COMMA" in unicodedata.name(c))]
    return _unless(not found, f"it has {sum(map(text.count, found))} commas")


def _no_exclamation(text: str, _p: Params) -> str | None:
    text = html.unescape(text)
    named = re.compile("EXCLAMATION|INTERROBANG|LETTER RETROFLEX CLICK")
    found = [c for c in set(text) if named.search(unicodedata.name(c, ""))]
    return _unless(not found, f"it has {sum(map(text.count, found))} exclamation marks")


def _lowercase(text: str, _p: Params) -> str | None:
    capital = any(unicodedata.category(c) in {"Lu", "Lt"} for c in set(text)) or text != text.lower()
    drawn = any("CAPITAL LETTER" in name for name in _names(text))
    return _unless(not capital and not drawn and text.upper() != text, "it has capital letters, or no letters")


def _uppercase(text: str, _p: Params) -> str | None:
    small = any(c.islower() or unicodedata.category(c) in {"Ll", "Lt"} for c in set(text)) or text != text.upper()
    return _unless(not small and text.lower() != text, "it has lower-case letters, or no letters")


def _bullets(text: str, p: Params) -> str | None:
    items = _items(text, "[-*]")
    n = len(_lines(text))
    return _unless(items is not None and n == p["n"], f"its {n} lines are not {p['n']} bullets with words alone")


def _numbered(text: str, p: Params) -> str | None:
    items = _items(text, r"(?P<number>\d+)(?P<mark>[.)])") or []
    wanted = [str(i) for i in range(1, p["n"] + 1)]
    met = [item["number"] for item in items] == wanted and len({item["mark"] for item in items}) == 1
    return _unless(met, f"its lines are not numbered 1 to {p['n']} and nothing else")


def _in_quotes(text: str, _p: Params) -> str | None:
    bare = text.strip()
    inner = bare[1:-1]
    straight = bare[:1] == bare[-1:] == '"' and '"' not in inner
    met = bool(WORD.search(inner)) and (straight or (bare[0] == "“" and bare[-1] == "”" and _balanced(inner)))
    return _unless(met, "it is not in one pair of double quotation marks")


def _balanced(inner: str) -> bool:
    """Whether no curly quotation ends in `inner` that did not begin there, and none is left open."""
    depth = 0
    for mark in re.findall("[“”]", inner):
        depth += 1 if mark == "“" else -1
        if depth < 0:
            return False
    return depth == 0


def _json_keys(text: str, p: Params) -> str | None:
    try:
        value = strict_json(text)
    except (ValueError, RecursionError):
        return "it is not JSON, or has a key twice"
    keys = list(value) if isinstance(value, dict) else None
    return _unless(keys is not None and sorted(keys) == sorted(p["keys"]), f"its keys are {keys}, not {p['keys']}")


def _bold_word(text: str, _p: Params) -> str | None:
    bold = re.findall(r"\*\*([^*]+)\*\*", _without_code(text))
    met = len(bold) == 1 and len(words_of(bold[0])) == 1 and not re.search(r"\s", bold[0])
    return _unless(
        met, f"{len(bold) or 'no'} parts are in **bold**, not one word" if bold else "nothing is in **bold**"
    )


def _heading(text: str, _p: Params) -> str | None:
    first, *below = [line for line in text.splitlines() if line.strip()]
    met = re.match(r" {0,3}#{1,6} ", first) and WORD.search(first) and WORD.search(" ".join(below))
    return _unless(bool(met), "it does not begin with a `# ` heading over a text")


def _postscript(text: str, _p: Params) -> str | None:
    lines = _lines(text)
    told = re.match(r"P\.S\.:? ?(.*)", lines[-1])
    met = len(lines) > 1 and told is not None and WORD.search(told[1]) is not None
    return _unless(met, "its last line is not a postscript that starts with `P.S.`")


def _second_person(text: str, _p: Params) -> str | None:
    said = {re.split("['’]", word.lower())[0] for word in words_of(text)}
    met = said & {"you", "your", "yours", "yourself", "yourselves"}
    return _unless(bool(met), "it does not speak to the reader as `you`")


MINE = {"my", "me", "myself"}
BEFORE_MINE = {"of", "is", "are", "was", "were", "be", "not"}
"""What tells `it is mine` from a mine."""
OPENERS = frozenset(
    """and but or so as if when while once since because before after although though then now today yesterday tomorrow
sometimes often usually always never maybe perhaps here there what how why where who that this these those what which
first last yes no""".split()
)
"""Words that may have a capital before `I` and make no `World War I` of it."""


def _first_person(text: str, _p: Params) -> str | None:
    bare = re.sub(r'"[^"]*"|“[^”]*”|«[^»]*»|„[^“”]*[“”]', " ", text.strip().strip('"“”'))
    found = list(WORD.finditer(bare))
    before = [None, *found]
    met = any(_speaks(bare, word, last) for word, last in zip(found, before, strict=False))
    return _unless(met, "it does not speak as `I`")


def _speaks(text: str, word: re.Match[str], last: re.Match[str] | None) -> bool:
    """Whether a word is one for the speaker. The I of `Charles I`, of a list and of an abbreviation is a number."""
    base, _, rest = word.group().replace("’", "'").partition("'")
    if base.lower() == "mine":
        return last is not None and last.group().lower() in BEFORE_MINE
    if base != "I":
        return base.lower() in MINE
    if rest in {"m", "ve", "ll", "d"}:
        return True
    named = last is not None and last.group()[0].isupper() and last.group().lower() not in OPENERS
    beside = last is not None and not text[last.end() : word.start()].strip()
    return not rest and text[word.end() : word.end() + 1] not in {".", "/", "'", "’"} and not (named and beside)


KINDS: dict[str, Kind] = {
    "max_words": Kind(
        "length",
        ("Use at most {n} words.", "Keep it under {n_more} words.", "Use no more than {n} words."),
        _number("n", 15, 20, 25, 30),
        _max_words,
        raw=True,
    ),
    "min_words": Kind(
        "length", ("Use at least {n} words.", "Write {n} words or more."), _number("n", 20, 25, 30), _min_words
    ),
    "words_between": Kind(
        "length",
        ("Use between {low} and {high} words.", "Write {low} to {high} words."),
        lambda rng, _t: (lambda low: {"low": low, "high": low + 20})(rng.choice((10, 15, 20))),
        _words_between,
        raw=True,
    ),
    "exact_sentences": Kind(
        "sentences",
        ("Write exactly {n_sentences}.", "Use exactly {n_sentences}."),
        _number("n", 1, 2, 2, 2, 3),
        _exact_sentences,
    ),
    "max_sentence_words": Kind(
        "sentences",
        ("No sentence may have more than {n} words.", "Keep every sentence under {n_more} words."),
        _number("n", 12, 15, 18),
        _max_sentence_words,
        raw=True,
    ),
    "exact_paragraphs": Kind(
        "sentences",
        ("Write exactly {n} paragraphs, with an empty line between them.",),
        _number("n", 2, 3),
        _exact_paragraphs,
    ),
    "include_words": Kind(
        "content",
        ("Include the word {quoted}.", "Use the word {quoted}."),
        lambda rng, t: {"words": [rng.choice(t.words)]},
        _include_words,
    ),
    "include_two_words": Kind(
        "content",
        ("Include the words {quoted}.", "Use both words: {quoted}."),
        lambda rng, t: {"words": rng.sample(t.words, 2)},
        _include_words,
        words=2,
    ),
    "mention_times": Kind(
        "content",
        ('Use the word "{word}" at least {n} times.',),
        lambda rng, t: {"word": rng.choice(t.words), "n": 2},
        _mention_times,
    ),
    "avoid_word": Kind("avoid", ('Do not use the word "{word}".', 'Avoid the word "{word}".'), _one_word, _avoid_word),
    "avoid_letter": Kind(
        "avoid", ('Do not use the letter "{letter}".',), lambda rng, _t: {"letter": rng.choice("jkqxz")}, _avoid_letter
    ),
    "include_number": Kind("digits", ("Include at least one number, in digits.",), _nothing, _include_number),
    "no_digits": Kind("digits", ("Do not use any digits.", "Write without digits."), _nothing, _no_digits),
    "start_with": Kind(
        "start",
        ('Start with the word "{word}".', 'Begin with the word "{word}".'),
        lambda rng, _t: {"word": rng.choice(("Many", "Every", "Sometimes", "When", "In", "There", "If", "Today"))},
        _start_with,
    ),
    "end_with": Kind(
        "end",
        ('End with the sentence "{ending}"', 'Finish with the words "{ending}"'),
        lambda rng, _t: {
            "ending": rng.choice(("Try it today.", "It is worth it.", "Enjoy every moment.", "That is all."))
        },
        _end_with,
    ),
    "end_in_language": Kind(
        "end",
        ("End by saying thank you in {language}.",),
        lambda rng, _t: {"language": rng.choice(list(THANKS))},
        _end_in_language,
    ),
    "end_question": Kind("end", ("End with a question.", "Finish with a question."), _nothing, _end_question),
    "ask_question": Kind("end", ("Ask a question.", "Include a question."), _nothing, _ask_question),
    "end_exclamation": Kind(
        "end", ("End with an exclamation mark.", "Finish with an exclamation mark."), _nothing, _end_exclamation
    ),
    "no_commas": Kind("commas", ("Do not use any commas.", "Write without commas."), _nothing, _no_commas),
    "no_exclamation": Kind("end", ("Do not use exclamation marks.",), _nothing, _no_exclamation),
    "lowercase": Kind(
        "form", ("Write everything in lower case.", "Use only lower-case letters."), _nothing, _lowercase
    ),
    "uppercase": Kind("form", ("Write everything in CAPITAL letters.",), _nothing, _uppercase),
    "bullets": Kind(
        "form",
        ('Answer with exactly {n} bullet points that start with "- " or "* ".',),
        _number("n", 2, 3, 4),
        _bullets,
    ),
    "numbered": Kind(
        "form",
        ("Answer with a numbered list of {n} items.", "List {n} points, numbered."),
        _number("n", 3, 4, 5),
        _numbered,
    ),
    "in_quotes": Kind("form", ("Put the whole answer in double quotation marks.",), _nothing, _in_quotes),
    "json_keys": Kind(
        "form",
        ("Answer with a JSON object that has exactly these keys: {quoted}.",),
        lambda rng, _t: {"keys": rng.choice((["title", "text"], ["name", "reason"], ["question", "answer"]))},
        _json_keys,
        raw=True,
    ),
    "bold_word": Kind("form", ("Put the most important word in **bold**.",), _nothing, _bold_word),
    "heading": Kind("form", ("Begin with a Markdown heading.",), _nothing, _heading),
    "postscript": Kind(
        "form", ("Add a postscript that starts with P.S. on a line of its own.",), _nothing, _postscript
    ),
    "second_person": Kind(
        "person", ("Speak to the reader as you.", 'Address the reader as "you".'), _nothing, _second_person
    ),
    "first_person": Kind(
        "person", ("Write in the first person.", "Write it as your own experience."), _nothing, _first_person
    ),
}


class Constraint(BaseModel):
    """A constraint with its parameters and the sentence that states it in the instruction."""

    model_config = ConfigDict(frozen=True)

    kind: str
    params: dict[str, Any] = {}
    text: str

    def fault(self, answer: str) -> str | None:
        """What in `answer` breaks this constraint, in words; None where it is met. An empty answer meets none."""
        kind, shown = KINDS[self.kind], seen(answer)
        return kind.check(answer if kind.raw else shown, self.params) if shown.strip() else "it is empty"


def _stated(phrase: str, params: Params) -> str:
    n = params.get("n", 0)
    quoted = " and ".join(f'"{word}"' for word in params.get("words", params.get("keys", ())))
    n_sentences = (
        f"{('one', 'two', 'three')[n - 1]} sentence{'s' if n > 1 else ''}" if 1 <= n <= 3 else f"{n} sentences"
    )
    return phrase.format(**{**params, "n_more": n + 1, "quoted": quoted, "n_sentences": n_sentences})


SHAPES = {"bullets", "numbered", "json_keys", "heading", "in_quotes", "postscript"}
"""Kinds that say how a text begins or ends, and what its lines are."""


def contradict(one: Constraint, other: Constraint) -> bool:
    """Whether no text, or hardly one, can meet both, though they are of different groups."""
    kinds = {one.kind, other.kind}
    groups = {KINDS[kind].group for kind in kinds}
    shaped = kinds & SHAPES and groups & {"start", "end", "sentences"}
    cased = kinds & {"lowercase", "uppercase"} and groups & {"start", "end"}
    barred = _barred_by(one, other) or _barred_by(other, one)
    return bool(shaped or cased or barred or kinds in ({"numbered", "no_digits"}, {"json_keys", "no_commas"}))


def _barred_by(ban: Constraint, other: Constraint) -> bool:
    """Whether `other` wants something said that `ban` forbids."""
    named = [value for value in other.params.values() if isinstance(value, str)]
    named += [word for value in other.params.values() if isinstance(value, list | tuple) for word in value]
    named += [THANKS[other.params["language"]].split("|")[0]] if other.kind == "end_in_language" else []
    wanted = " ".join(named).casefold()
    if ban.kind == "avoid_word":
        return ban.params["word"].casefold() in wanted
    return ban.kind == "avoid_letter" and ban.params["letter"].casefold() in wanted


def draw_constraints(
    rng: Random, topic: Topic, weights: Mapping[str, int], count: int, beside: Sequence[Constraint] = ()
) -> list[Constraint]:
    """Up to `count` constraints of different groups, drawn by weight, that can all be met at once with those `beside`."""
    chosen: list[Constraint] = []
    taken = {KINDS[constraint.kind].group for constraint in beside}
    fit = {name for name, kind in KINDS.items() if kind.group not in taken and kind.words <= len(topic.words)}
    left = {name: weight for name, weight in weights.items() if weight > 0 and name in fit}
    while left and len(chosen) < count:
        name = rng.choices(list(left), list(left.values()))[0]
        kind = KINDS[name]
        params = kind.draw(rng, topic)
        one = Constraint(kind=name, params=params, text=_stated(rng.choice(kind.phrases), params))
        if any(contradict(one, other) for other in (*beside, *chosen)):
            del left[name]
            continue
        chosen.append(one)
        left = {other: weight for other, weight in left.items() if KINDS[other].group != kind.group}
    return chosen
