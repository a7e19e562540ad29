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
LEAD = re.compile(r"(?:yes|no)\b[\s,.;:!-]*", re.IGNORECASE)
"""What answers a question of yes or no; whether it is the right one of the two, no code here sees."""
FUNCTION_WORDS = frozenset(
    """a about against along also although among an and any are around as at be because been being between but by can
could did do does doing done during each for from had has have having he hence her here him his how however i if in into is
it it's its itself may me might must my of on onto or other otherwise our own per shall she should so some such than that
that's the their them themselves then there therefore these they this those though through thus to too us very via was we
were what when where whether which while who whom whose why will with would yes you your""".split()
)
"""Words that say nothing by themselves: they need not be in a quote."""
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
PIECE = re.compile(r"\S*\d\S*|\S*[½⅓⅔¼¾⅛⅜⅝⅞²³]\S*|\S*[^\x00-\x7f]\S*")
"""What may be a number: pieces with a digit of any script, or something that could be one."""
PARTS = re.compile(r"(?P<money>[€$£]?)(?P<number>.*\d)-?(?P<suffix>[^\W\d_]*|%|°[CF]?)")
TO = re.compile(r"\s*(?:-|to|and|or)\s*")
"""Between two numbers with one unit."""
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
    """The first thing that the answer says and the quotes do not."""
    said = LEAD.sub("", spelled(answer), count=1) if LEAD.match(answer.strip()) else spelled(answer)
    source = " | ".join(map(spelled, quotes))
    if not WORD.search(said):
        return None if _bare_fault(answer, source, question) is None else _bare_fault(answer, source, question)
    return None
