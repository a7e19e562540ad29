"""The check `supported`: an answer says what its quotes say: every number with its unit, every name, most other words.

English; knows no family and no teacher. What it cannot see: polarity (yes or no, is or is not, may or must), to which of the
things in a quote a number or a name belongs, and the order of words. An independent reader must see these.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from pydantic import Field

from agents.checks.base import Options, Subject, check, first_fault
from agents.checks.quotes import plain
from agents.checks.schema import part_of
from agents.checks.written import NOT_AFTER, OUTER, RUN, SCALES, read_text

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
LEAD = re.compile(r"(yes|no)\b(?:\s*[,.;:!-]+\s*|$)", re.IGNORECASE)
"""What answers a question of yes or no; whether it is the right one of the two, no code here sees."""
FUNCTION_WORDS = frozenset(
    """a about against along also although among an and any are around as at be because been being between but by can
could did do does doing done during each for from had has have having he hence her here him his how however i if in into is
it it's its itself may me might must my of on one ones onto or other otherwise our own per shall she should so some such than that
that's the their them themselves then there therefore these they this those though through thus to too us very via was we
were what when where whether which while who whom whose why will with would yes you your""".split()
)
"""Words that say nothing by themselves: they need not be in a quote."""
NAMES = frozenset(("May", "US", "IT"))
"""Written so, these are names."""
DENIALS = frozenset("cannot hardly neither never no nobody none nor not nothing nowhere without".split())
TURNING = frozenset(
    """above after all almost always before below both double down downward downwards earlier early either every except
exactly fewer fifth first fourth half higher inside last late later least less lower maximum minimum more most next once
only outside over quarter second since third triple twice under unless until up upper upward upwards""".split()
)
"""Small words that turn what is said around: each must be in a quote or in the question."""
IRREGULAR = {
    form: lemma
    for lemma, *forms in map(
        str.split,
        """begin began begun|break broke broken|bring brought|build built|buy bought|catch caught|child children
choose chose chosen|come came|draw drew drawn|drink drank drunk|drive drove driven|eat ate eaten|fall fell fallen|feed fed
feel felt|find found|fly flew flown|foot feet|forget forgot forgotten|freeze froze frozen|get got|give gave given
go went gone|goose geese|grow grew grown|half halves|hang hung|hear heard|hide hid hidden|hold held|keep kept|knife knives
know knew known|lay laid|lead led|leaf leaves|leave left|lend lent|life lives|light lit|loaf loaves|lose lost|make made
man men|mean meant|meet met|mouse mice|pay paid|person people|ride rode ridden|ring rang rung|rise rose risen|run ran
say said|see saw seen|sell sold|send sent|shake shook shaken|shelf shelves|show shown|sing sang|sink sank sunk|sit sat
sleep slept|speak spoke spoken|spend spent|spin spun|stand stood|steal stole stolen|stick stuck|swim swam|take took taken
teach taught|tell told|think thought|throw threw thrown|tooth teeth|wake woke woken|wear wore worn|win won|wind wound
wolf wolves|woman women|write wrote written""".replace("\n", "|").split("|"),
    )
    for form in forms
}
UNITS = {
    name: unit
    for unit, *names in map(
        str.split,
        """second seconds sec secs s|minute minutes min mins|hour hours hr hrs h|day days|week weeks|month months
year years|millimetre millimetres millimeter millimeters mm|centimetre centimetres centimeter centimeters cm
metre metres meter meters m|kilometre kilometres kilometer kilometers km|mile miles|inch inches|foot feet ft
milligram milligrams mg|gram grams gramme grammes g|kilogram kilograms kilo kilos kg|tonne tonnes ton tons t|lb lbs
millilitre millilitres milliliter milliliters ml|litre litres liter liters l|degree degrees ° °c|fahrenheit °f
percent %|watt watts w|kilowatt kilowatts kw|volt volts v|euro euros eur €|dollar dollars usd $|pound pounds gbp £
cent cents|pence p|am|pm|o'clock""".replace("\n", "|").split("|"),
    )
    for name in (unit, *names)
}
"""One name for each unit by all its names; the short ones are read behind a number alone."""
SPELLINGS = {r"\bper cent\b": "percent", r"\b([ap])\.m\b\.?": r"\1m", r"(?<=\d) ?°\s?([CF])\b": r" °\1"}
MONEY = "€$£"
PARTS = re.compile(rf"(?P<money>[{MONEY}]?)(?P<number>.*\d)-?(?P<suffix>[^\W\d_]*|%|°[CF]?|[{MONEY}])")
PLAIN = re.compile(r"-?[\d.,'/½⅓⅔¼¾⅛⅜⅝⅞-]+(?: [a-z]+)?")
"""A number whose value may be written in another way; what has other signs (<5, 14:30, K17) must be in a quote as it is."""
MINUS = re.compile(r"(?<![\w-])(?:minus|negative) $", re.IGNORECASE)
FOLLOWING = re.compile(rf"[\s-]+([^\W\d_]+(?:'clock)?|%|°[CF]?|[{MONEY}])")
TO = re.compile(r"\s*(?:-|to|and|or)\s*")
"""Between two numbers with one unit."""
CHOICE, CHOICES = re.compile(r"\bor\b"), re.compile(r"\b(?:or|and|versus|vs)\b")
BESIDE = 3
"""Content words on either side of `or` that are taken for what is offered to choose from."""
TOLD = 4


class SupportedOptions(Options):
    answer: str = "answer"
    """Which field of the candidate is the answer."""
    quotes: str = "quotes"
    """Which field of the candidate holds the quotes."""
    question: str = "question"
    """Which field of the candidate, or key of the seed, is the question."""
    answerable: str = "answerable"
    """Which key of the seed says whether the text has the answer; where it is false nothing is looked at."""
    share: float = Field(0.8, ge=0, le=1)
    """Share of the answer's content words that must be in the quotes or the question, in any inflection. Numbers, names and
    small words such as `before` must all be. (Chosen by the golden cases; not measured on a teacher.)"""
    max_words: int = Field(80, ge=1)


@check("supported", SupportedOptions)
def supported(subject: Subject, options: SupportedOptions) -> str | None:
    """The answer must say what its quotes say: all numbers, units and names, and most other words, stem from them."""
    candidate, seed = subject.candidate.fields, subject.seed.data
    if seed.get(options.answerable, True) is False:
        return None
    answer = part_of(candidate, options.answer, "the candidate")
    given = part_of(candidate, options.quotes, "the candidate")
    question = part_of({**seed, **candidate}, options.question, "neither the candidate nor the seed")
    if (words := len(answer.split())) > options.max_words:
        return f"the answer has {words} words; give at most {options.max_words}"
    return supported_fault(answer, given, question, options.share)


def supported_fault(answer: str, quotes: Sequence[str], question: str, share: float) -> str | None:
    """The first thing that the answer says and the quotes do not, in words."""
    (lead, said), source = led(spelled(answer)), " | ".join(map(spelled, quotes))
    there, asked = pool_in(source), pool_of(given_words(spelled(question)))
    told, numbers = content_words(said), quantities(said)
    if not told and not numbers:
        return _bare_fault(lead, there, question)
    turning = [word for word in told if word.lower() in TURNING or word[0].isupper()]
    return first_fault(
        [
            _number_fault(said, source, question),
            _denial_fault(told, [*words_of(source), *words_of(spelled(question))]),
            _missing([word for word in turning if not is_denial(word)], there | asked, 1.0),
            _missing([word for word in told if word not in turning and not is_denial(word)], there | asked, share),
            None if numbers or any(forms(word) & there for word in told) else "the quotes have no word of the answer",
        ]
    )


def _bare_fault(lead: str, there: frozenset[str], question: str) -> str | None:
    """Of an answer without content: yes or no alone needs quotes that are about what is asked."""
    if not lead:
        return "the answer says nothing"
    return None if pool_of(content_words(spelled(question))) & there else "the quotes have no word of the question"


def _missing(words: Sequence[str], pool: frozenset[str], share: float) -> str | None:
    missing = [word for word in words if not forms(word) & pool]
    if len(words) - len(missing) >= share * len(words):
        return None
    shown = ", ".join(repr(word[:40]) for word in dict.fromkeys(missing[:TOLD]))
    return f"{shown} of the answer {'is' if len(missing) == 1 else 'are'} not in the quotes; keep to their words"


def _denial_fault(told: Sequence[str], source: Sequence[str]) -> str | None:
    denials = [word for word in told if is_denial(word)]
    if not denials or any(map(is_denial, source)):
        return None
    return f"the answer says {denials[0]!r}, and no quote denies anything"


def _number_fault(said: str, source: str, question: str) -> str | None:
    there, names = distinct(source), {one.text for one in distinct(spelled(question)) if one.text[0].isalpha()}
    for number in distinct(said):
        if number.text not in names and not number.is_among(there):
            return f"{f'{number.text} {number.unit}'.strip()!r} is a number of the answer that is not so in the quotes"
    answer, quoted = read_text(said), read_text(source)
    strange = (*(answer.dates - quoted.dates), *(answer.times - quoted.times))
    return f"{strange[0]} is not in the quotes" if strange else None


def given_words(question: str) -> list[str]:
    """The words of a question that an answer may repeat: not those between which it lets one choose."""
    joint = CHOICES if re.match(r"(?:which|who|whose)\b", question, re.IGNORECASE) else CHOICE
    offered: list[str] = []
    for clause in re.split(r"[,;:?]", question):
        for found in joint.finditer(clause.lower()):
            offered += content_words(clause[: found.start()])[-BESIDE:] + content_words(clause[found.end() :])[:BESIDE]
    return [word for word in words_of(question) if word not in offered]


# Words


def spelled(text: str) -> str:
    """`text` made plain, with one spelling for units that have several."""
    text = plain(text)
    for pattern, spelling in SPELLINGS.items():
        text = re.sub(pattern, spelling, text)
    return text


def words_of(text: str) -> list[str]:
    """The words of a text, without its numbers."""
    edges = [0, *(edge for number in quantities(text) for edge in (number.start, number.end)), len(text)]
    return [word for start, end in zip(edges[::2], edges[1::2], strict=True) for word in WORD.findall(text[start:end])]


def led(text: str) -> tuple[str, str]:
    """The yes or no that an answer begins with, in lower case and empty where there is none; and the rest."""
    found = LEAD.match(text)
    return (found[1].lower(), text[found.end() :]) if found else ("", text)


def content_words(text: str) -> list[str]:
    """The words of a spelled text that say something by themselves."""
    words = words_of(re.sub(r"^May(?= [a-zA-Z])", "", text))  # which there is more often a verb than the month
    return [word for word in words if word in NAMES or word.lower() not in FUNCTION_WORDS]


def is_denial(word: str) -> bool:
    return word.lower() in DENIALS or word.lower().endswith("n't")


def pool_in(text: str) -> frozenset[str]:
    """The forms of all words of a spelled text, and the units of its numbers."""
    return pool_of(words_of(text)) | {f"unit {number.unit}" for number in quantities(text) if number.unit}


def pool_of(words: Sequence[str]) -> frozenset[str]:
    return frozenset().union(*map(forms, words))


@lru_cache(maxsize=4096)
def forms(word: str) -> frozenset[str]:
    """What `word` may be an inflection of, itself among it: two words are one if they share a form."""
    if word in NAMES:
        return frozenset([word])
    word = word.lower().removesuffix("'s")
    found = {word, IRREGULAR.get(word, word)}
    if unit_of(word) and len(word) > 1:
        found.add(f"unit {unit_of(word)}")
    if len(word) > 3:
        found |= {form for form in _stripped(word) if len(form) > 1}
    return frozenset(found)


def _stripped(word: str) -> Iterator[str]:
    if word.endswith(("ies", "ied")):
        yield f"{word[:-3]}y"
    elif word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        yield from (word[:-1], word[:-2])
    elif word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]
    for ending in ("ed", "ing"):
        base = word.removesuffix(ending)
        if base != word and len(base) > 1:
            yield from (base, f"{base}e")
            if base[-1] == base[-2]:
                yield base[:-1]


# Numbers


class Quantity(NamedTuple):
    """A number as a text has it, in digits or in words, with its unit."""

    start: int
    end: int
    text: str
    values: frozenset[Fraction]
    """Both ends of a range; none where it can only be compared as it is written."""
    unit: str

    def is_among(self, others: Sequence["Quantity"]) -> bool:
        """Whether `others` say this number, of the same unit where this has one, or both ends of this range."""
        fit = [other for other in others if self.unit in ("", other.unit)]
        values = frozenset().union(*(other.values for other in fit))
        return any(self.text == other.text for other in fit) or (bool(self.values) and self.values <= values)


def distinct(text: str) -> list[Quantity]:
    """The numbers of a spelled text, each once."""
    return list({(number.text, number.unit): number for number in quantities(text)}.values())


def quantities(text: str) -> list[Quantity]:
    """The numbers of a spelled text, in their order. In a range, the first has the unit of the second."""
    digits = list(_in_digits(text))
    taken = [(one.start, one.end) for one in digits]
    words = [one for one in _in_words(text) if not any(one.start < end and start < one.end for start, end in taken)]
    found = sorted([*digits, *words])
    for i, (one, after) in reversed(list(enumerate(pairwise(found)))):
        if not one.unit and TO.fullmatch(text[one.end : after.start]):
            found[i] = one._replace(unit=found[i + 1].unit)
    return found


def unit_of(word: str) -> str:
    """The one name of a unit; empty where `word` is none."""
    return UNITS.get(word) or (UNITS.get(word.lower(), "") if len(word) > 1 else "")


def _in_digits(text: str) -> Iterator[Quantity]:
    for piece in re.finditer(r"\S+", text):
        core = piece.group().lstrip(OUTER).rstrip(f"{OUTER}.")
        if any(char.isnumeric() for char in core):
            start = piece.start() + piece.group().index(core)
            yield _quantity(text, start, core)


def _quantity(text: str, start: int, core: str) -> Quantity:
    number, unit, end = core, "", start + len(core)
    if parts := PARTS.fullmatch(core):
        suffix = unit_of(parts["suffix"])
        if suffix or not parts["suffix"]:
            number, unit = parts["number"], suffix or unit_of(parts["money"])
    if (scale := FOLLOWING.match(text, end)) and scale[1].lower() in SCALES:
        number, end = f"{number} {scale[1].lower()}", scale.end()
    if (core[0].isnumeric() or core[0] in f"{MONEY}.") and (minus := MINUS.search(text[max(0, start - 10) : start])):
        number, start = f"-{number}", start - len(minus[0])
    readable = PLAIN.fullmatch(number) and not read_text(number).dates
    values = read_text(number).numbers if readable else frozenset()
    return Quantity(start, end, number.casefold(), values, unit or _unit_after(text, end))


def _in_words(text: str) -> Iterator[Quantity]:
    lowered = text.lower()
    if len(lowered) != len(text):
        return  # a letter of a script without number words that are read here
    for found in RUN.finditer(lowered):
        run, values = found.group(), read_text(found.group()).numbers
        pronoun = run == "one" and 1 not in read_text(lowered).numbers and not NOT_AFTER.match(lowered, found.end())
        if not pronoun:
            yield Quantity(found.start(), found.end(), run, values, _unit_after(text, found.end()))


def _unit_after(text: str, end: int) -> str:
    following = FOLLOWING.match(text, end)
    return unit_of(following[1]) if following else ""
