"""What a passage can be asked about: its sentences by the kind of question that each can carry, and the sentences that may
answer a question. English; knows no teacher and no check.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from agents.checks.text.quantities import distinct_quantities, find_quantities, names_counted_thing, read_written
from agents.checks.text.quotes import iter_tables
from agents.checks.text.supported_by_passage import (
    collect_forms,
    content_words,
    merge_forms,
    normalize_spelling,
    word_forms,
)
from agents.checks.text.text_units import ENGLISH, LIST_MARK, split_sentences, split_words

TARGET_WORDS = range(6, 61)
"""Number of words of a sentence that a question can be about; longer ones are lists or tables."""
NO_PROSE = re.compile(r"\s*(?:#|\||```|>?\s*-{3,})")
"""Lines of Markdown without sentences: headings, tables, rules."""
ENDED = re.compile(r"[.!。！][\"'”’)\]*_]*$")
"""A statement ends so; a heading, a row of a list or a question does not."""
REFERS_BACK = re.compile(
    r"(?:it|its|this|that|these|those|they|their|he|she|his|her|both|so|then|there|such|otherwise|for this reason)\b",
    re.IGNORECASE,
)
"""A sentence that begins so needs the one before it to be understood."""

REASON = re.compile(
    r"\b(?:because|as a result|therefore|for this reason|due to|thanks to|owing to|so that|in order (?:to|that)|lest"
    r"|otherwise|or else|which is why|the reason|so as to"
    r"|to (?:keep|avoid|prevent|save|protect|stop|make sure|let|allow|give)"
    r"|since(?! (?:\d|last|then|(?:the|that|this) (?:day|year|week|month|morning|night|start|beginning|war)"
    r"|(?:january|february|march|april|may|june|july|august|september|october|november|december|mon|tues|wednes|thurs|fri"
    r"|satur|sun))))\b|[,;] so (?:it|the|that|they|he|she|we|you|no|each|every|a|an|all)\b",
    re.IGNORECASE,
)
COMPARISON = re.compile(
    r"\b(?:\w{2,}er|more|less|rather|other|\w+er \w+) than (?!\d|half|what\b)"
    r"|\bas (?!soon|long|well|far)\w+ as\b(?! (?:you|possible))"
    r"|\b(?:whereas|unlike|instead of|compared (?:with|to)|twice (?:as|the)|half as|in contrast"
    r"|while (?:the \w+ ones?|others|a))\b",
    re.IGNORECASE,
)
LIST_ITEM = r"(?:[\w'’°%£€$./*-]+ ){0,4}[\w'’°%£€$./*-]+"
LISTING = re.compile(
    r", (?!(?:since|because|as|so|which|who|while|whereas|when|where|if|that|but|although|though|until|before|after|unless"
    r"|(?:in|on|of|at|with) which)\b)"
    rf"{LIST_ITEM},? (?:and|or) (?!(?:it|he|she|they|we|you|i|nothing|then|the rest|all|said|says|that|can|must|may|not|were|was"
    r"|is|are)\b)\w",
    re.IGNORECASE,
)
"""Three things or more; clauses that give a reason, a case or somebody's words are none."""
LEADING_CLAUSE = re.compile(r"\W*(?:yet )?(?:if|when|with|after|once|while|at|as|before|until)\b[^,]*", re.IGNORECASE)
"""Before the first comma, this is no item of a list."""
DEFINITION = re.compile(
    r"(?<!there )\b(?:(?:is|was) an? |(?:is|are|was) (?:(?:also )?(?:called|known as|named)\b|used (?:for|to|as)\b"
    r"|meant (?:for|to)\b"
    r"|the \w+ (?:\w+ )?(?:that|which|of|who|where|in which)\b|short for\b))"
    r"|\b(?:means|serves? (?:as|to)|stands? for|refers? to|consists? of|is for)\b|\bcalled (?:an?|the) ",
    re.IGNORECASE,
)
RULE = re.compile(
    r"\b(?:may|must|can|cannot|could|should|shall|not|never|no|none|nobody|neither|nor|only|always|allowed|forbidden|required|without"
    r"|unless|at most|at least|free|needs? (?:no|not|to))\b|n't\b",
    re.IGNORECASE,
)
"""Of what is so or not, or allowed or not."""


class Target(NamedTuple):
    """A sentence of a passage."""

    sentence: str
    focus: str
    """A span of the passage: the sentence, and the one before it if it refers back to that."""


def find_targets(passage: str) -> list[Target]:
    """The statements of a passage that a question can be about, without headings, tables and questions."""
    targets: list[Target] = []
    for line in passage.splitlines():
        if NO_PROSE.match(line):
            continue
        before = ""
        for piece in split_sentences(line):
            sentence = LIST_MARK.sub("", piece)
            if len(split_words(sentence)) in TARGET_WORDS and ENDED.search(sentence):
                refers = bool(before) and REFERS_BACK.match(sentence)
                start = line.find(before) if refers else line.find(sentence)
                targets.append(Target(sentence, line[start : line.find(sentence, start) + len(sentence)]))
            before = sentence if len(split_words(sentence)) > 2 else ""
    return targets


def find_table_rows(passage: str) -> list[str]:
    """The rows of a passage's Markdown tables, without their headers."""
    return [row for _, *rows in iter_tables(passage) for row in rows]


YEAR = re.compile(r"1[0-9]{3}|20[0-9]{2}")
CALENDAR = re.compile(
    r"[\s-]*(?:am|pm|o'clock|january|february|march|april|may|june|july|august|september|october|november|december)\b",
    re.IGNORECASE,
)


def _compares_numbers(sentence: str) -> bool:
    """Whether a sentence gives two different quantities of one unit, joined by `and`, `but` or a semicolon."""
    numbers = {(number.unit, number.values) for number in find_quantities(normalize_spelling(sentence)) if number.unit}
    return len({unit for unit, _ in numbers}) < len(numbers) and re.search(r" (?:and|but) |;", sentence) is not None


def _states_number(sentence: str) -> bool:
    """Whether a sentence has a number with a unit or with what it counts; no year, date or time, and seldom `one`."""
    plain = normalize_spelling(sentence)
    return any(
        number.values
        and (number.unit or (number.text != "one" and names_counted_thing(plain, number.end)))
        and not (CALENDAR.match(plain, number.end) or YEAR.fullmatch(number.text))
        for number in find_quantities(plain)
    )


def _lists_things(sentence: str) -> bool:
    """Whether a sentence names three things or more with `and` or `or`, after a leading clause or not."""
    return any(not LEADING_CLAUSE.fullmatch(sentence[: match.start()]) for match in LISTING.finditer(sentence))


CARRIERS: Mapping[str, Callable[[str], object]] = {
    "fact": bool,
    "number": _states_number,
    "reason": REASON.search,
    "comparison": lambda sentence: COMPARISON.search(sentence) or _compares_numbers(sentence),
    "list": _lists_things,
    "definition": DEFINITION.search,
    "yes_no": RULE.search,
}
"""Whether a sentence gives what a question of a kind asks for, by the kind."""


@lru_cache(maxsize=100_000)
def can_carry(kind: str, sentence: str) -> bool:
    """Whether a sentence can answer a question of this kind. Cached, since many questions are about one passage."""
    return bool(CARRIERS[kind](sentence))


# What a question asks for, and which sentences may give it

TIME = re.compile(
    r"\d|\b(?:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|after|before|when|while|until|till|once|soon|every|during|then|since"
    r"|mornings?|evenings?|afternoons?|nights?|noon|midnight|days?|weeks?|months?|years?|hours?|minutes?|spring|summer"
    r"|autumn|winter|today|yesterday|tomorrow|always|never|now)\b",
    re.IGNORECASE,
)
AMOUNT = re.compile(
    r"\d|\b(?:half|halves|third|quarter|tenth|twice|double|pair|couple|dozen|several|most|few|fewer|some|all|none|no|both|many"
    r"|much|enough|once|single|free)\b",
    re.IGNORECASE,
)
AGE = re.compile(r"\b(?:aged?|old|older|years?|months?|born|birth|century)\b", re.IGNORECASE)
CAUSE = re.compile(REASON.pattern + r"|\b(?:so|since|as)\b|[:;]", re.IGNORECASE)


EFFECT_AFTER = re.compile(r"as a result|therefore|for this reason|which is why|[,;] so (?!that\b)", re.IGNORECASE)
"""Signs of a reason whose effect follows; it precedes the others, unless they begin the sentence."""
PURPOSE = re.compile(r"(?:[,;] )?so that|in order|lest|so as|to ", re.IGNORECASE)
EITHER_SIDE = re.compile(r"the reason|so$|as$|[:;]$", re.IGNORECASE)
PURPOSE_WORDS = 2
"""Content words before a purpose that it is of: in "repaired in March by volunteers, so that", it is not of the repair."""


def _gives_reason(sentence: str, asked: frozenset[str]) -> bool:
    """Whether a sentence gives a reason of what is asked, by the forms of the question's words: its effect has one of them, or
    refers back to the sentence before.
    """
    for match in CAUSE.finditer(sentence):
        before, sign, after = sentence[: match.start()], match.group(), sentence[match.end() :]
        if EITHER_SIDE.match(sign):
            effect = sentence
        elif EFFECT_AFTER.match(sign):
            effect = f"{before} {after}" if sign.lower() == "therefore" else after
        else:
            effect = before if content_words(before) else after.partition(",")[2]
        words = content_words(normalize_spelling(effect))
        if PURPOSE.match(sign) and content_words(before):
            words = words[-PURPOSE_WORDS:]
        if REFERS_BACK.match(sentence) or not words or any(word_forms(word) & asked for word in words):
            return True
    return False


def _gives_amount(sentence: str) -> object:
    return AMOUNT.search(sentence) or read_written(sentence).numbers


WANTED_ANSWERS: tuple[tuple[re.Pattern[str], Callable[[str], object]], ...] = tuple(
    (re.compile(asked, re.IGNORECASE), gives)
    for asked, gives in (
        (r"\bhow old\b|\bwhat age\b", AGE.search),
        (r"\bhow (?:many|much)\b", _gives_amount),
        (r"\bhow (?:tall|high|long|wide|deep|heavy|large|big|far|thick|hot|cold|fast)\b", _gives_amount),
        (r"^\W*(?:and |but )?when\b|\b(?:what|which) (?:time|year|day|date|month)\b", TIME.search),
    )
)
"""What a sentence must have to answer a question, by the words that ask for it. Other questions may be answered by any."""
ASKS_REASON = re.compile(r"\bwhy\b|\bhow come\b|\b(?:what|which) reasons?\b|\bwhat is the reason\b", re.IGNORECASE)
ASKING_WORDS = frozenset(ENGLISH["asking_words"].split())
"""Words that questions ask with: a passage can answer them without having them."""


class PossibleAnswer(NamedTuple):
    """How near a passage is to answering a question."""

    shared: bool
    """Whether the passage has a word of the question."""
    sentence: str | None
    """If the passage has every word of the question: a sentence that may answer it, or an empty text if none is known. None if
    the passage leaves something open: a word of the question, or what it asks for."""


def find_possible_answer(question: str, passage: str) -> PossibleAnswer:
    """Whether a passage may answer a question, by its words and by what the question asks for."""
    plain = normalize_spelling(question)
    words = [word for word in content_words(plain) if word.lower() not in ASKING_WORDS]
    numbers = distinct_quantities(plain)
    pool, pool_numbers = collect_forms(normalize_spelling(passage)), distinct_quantities(normalize_spelling(passage))
    occurs = [bool(word_forms(word) & pool) for word in words]
    occurs += [number.is_among(pool_numbers) for number in numbers]
    if not all(occurs):
        return PossibleAnswer(any(occurs), None)
    gives = next((gives for asked, gives in WANTED_ANSWERS if asked.search(question)), None)
    if gives is None and ASKS_REASON.search(question):
        gives = partial(_gives_reason, asked=merge_forms(words))
    if gives is None or not words:
        return PossibleAnswer(any(occurs), "")
    sentences = [sentence for line in passage.splitlines() for sentence in split_sentences(line)] or [passage]
    forms = [collect_forms(normalize_spelling(sentence)) for sentence in sentences]
    shares = [sum(bool(word_forms(word) & found) for word in words) for found in forms]
    # A sentence next to one with most words of the question may answer it too: "It is marked by a white line."
    near = {i + step for i, share in enumerate(shares) if share == max(shares) for step in (-1, 0, 1)}
    answering = [sentences[i] for i in sorted(near & set(range(len(sentences)))) if gives(sentences[i])]
    return PossibleAnswer(True, max(answering, key=len) if answering else None)
