"""The check `supported`: the quotes contain every number of the answer with its unit, every name, and most other words; words of
time, degree, quantity and cause may be in other words of the same meaning.

English; knows no family and no teacher. It cannot see polarity (yes or no, is or is not, may or must), to which thing in a
quote a number or a name belongs, or the order of words. An independent reader must check these.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from pydantic import Field

from agents.checks.base import Options, Subject, check
from agents.checks.json_schema import get_required
from agents.checks.text.quantities import (
    TextQuantity,
    canonical_unit,
    distinct_quantities,
    find_quantities,
    names_counted_thing,
    read_written,
)
from agents.checks.text.quotes import find_quoted_cells, find_quoted_headers, normalize_quote
from agents.checks.text.text_units import CONTRAST_WORDS, DENIALS, ENGLISH, FUNCTION_WORDS, read_word_groups

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
HYPHENATED = re.compile(r"(?<![\w-])[^\W\d_]+(?:-[^\W\d_]+)+(?![\w-])")
LEADING_POLARITY = re.compile(r"(yes|no)\b(?:\s*[,.;:!-]+\s*|$)", re.IGNORECASE)
"""The answer to a yes-or-no question; this check cannot see whether it is right."""
NAMES = frozenset(("May", "US", "IT"))
"""Written so, these are names."""
DENIED = r"(?:no|not|never|nobody|nothing|none|cannot|\w+n't)\b[^.;|]{0,120}\b"
"""A denial up to the following word in the same sentence."""
_NAMED_PATTERNS = {"<denied>": DENIED, **{f"<{key}>": "|".join(ENGLISH[key].split()) for key in ("smaller", "larger")}}


def _fill_patterns(phrases: str) -> str:
    for name, pattern in _NAMED_PATTERNS.items():
        phrases = phrases.replace(name, pattern)
    return phrases


SAME_MEANING = {
    word: re.compile(rf"\b(?:{_fill_patterns(phrases)})\b", re.IGNORECASE)
    for words, phrases in ENGLISH["same_meaning"].items()
    for word in words.split()
}
"""Phrases of a quote that mean the same as a contrast word of the answer. None of them means its opposite."""
TIME_AFTER_SINCE = re.compile(
    r"\bsince (?:\d|then\b|last\b|noon\b|midnight\b|yesterday\b|childhood\b|birth\b"
    r"|(?:the|that|this) (?:\w+ )?(?:day|year|week|month|morning|night|start|beginning|war|century|spring|summer|autumn|winter)\b"
    r"|(?:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|spring|summer|autumn|winter|mon|tues|wednes|thurs|fri|satur|sun))",
    re.IGNORECASE,
)
"""`since` of time; elsewhere in an answer it may give a reason."""
CAUSAL_SINCE = re.compile(
    r"\bsince (?:(?:it|they|he|she|you|we|there|nobody|nothing|everybody|this|that) |(?:[\w'-]+ ){2})[\w'-]+",
    re.IGNORECASE,
)
"""`since` with a clause."""
CAUSE_WORDS = re.compile(
    r"\b(?:because|since|as|so|for|therefore|hence|thus|(?:due|owing|thanks) to|reasons?|cause[sd]?|otherwise|or else|lest)\b"
    r"|[:;]",
    re.IGNORECASE,
)
ONCE_COUNTED = re.compile(r"\bonce(?= (?:a|an|per|every|each|in|more|again|daily|or)\b|\W*$|[.,;])", re.IGNORECASE)
"""`once` as a number of times, not as `as soon as`."""
PAIRED = {
    "both": re.compile(r"\bboth\b[^.;]{1,80}\band\b", re.I),
    "either": re.compile(r"\beither\b[^.;]{1,80}\bor\b", re.I),
}
"""These add nothing to the `and` or `or` that follows them."""
LARGER_THAN_NUMBER = re.compile(r"\b(?:at least|minimum|(?:more|longer|older|higher) than|over|from)\b", re.IGNORECASE)
"""A quoted number that is a lower bound is not `only` that number."""
PART_OF_NUMBER = (
    r"\b(?:some|most|half|many|few|not|except|but|of(?: the| its| these| those| his| her| their| our)?(?= {number}\b))"
)
"""With these, a quote says something of a part of its number of things, not of all of them."""
HOW_OLD = re.compile(r"\bhow old\b|\b(?:what|which) age\b", re.IGNORECASE)
IRREGULAR_FORMS = {form: lemma for lemma, *forms in read_word_groups("irregular_forms") for form in forms}
SPELLINGS = {r"\bper cent\b": "percent", r"\b([ap])\.m\b\.?": r"\1m", r"(?<=\d) ?°\s?([CF])\b": r" °\1"}
CHOICE, CHOICES = re.compile(r"\bor\b"), re.compile(r"\b(?:or|and|versus|vs)\b")
CHOICE_WINDOW = 3
"""Content words on either side of `or` that count as the offered choices."""
MAX_REPORTED_WORDS = 4


class SupportedOptions(Options):
    answer: str = "answer"
    quotes: str = "quotes"
    question: str = "question"
    text: str = "text"
    answerable: str = "answerable"
    """Whether the text has the answer. Missing: it has."""
    share: float = Field(0.8, ge=0, le=1)
    """Share of content words from quotes or question. Numbers, names and words such as `before` must all be."""
    max_words: int = Field(80, ge=1)


@check("supported", SupportedOptions, languages=("en",))
def supported_check(subject: Subject, options: SupportedOptions) -> str | None:
    """The answer must say what its quotes say: all numbers, units and names, and most other words, stem from them."""
    candidate, seed = subject.candidate.fields, subject.seed.data
    if seed.get(options.answerable, True) is False:
        return None
    answer = get_required(candidate, options.answer, "the candidate")
    given = get_required(candidate, options.quotes, "the candidate")
    question = get_required({**seed, **candidate}, options.question, "neither the candidate nor the seed")
    if (words := len(answer.split())) > options.max_words:
        return f"the answer has {words} words; give at most {options.max_words}"
    text = str(seed.get(options.text, ""))
    tables = [*find_quoted_headers(given, text), *_name_units(find_quoted_cells(given, text))]
    return _find_support_fault(answer, [*given, *tables], question, options.share)


def _name_units(cells: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The numbers of quoted cells with the unit that the name of their column has: `12 minutes`; of `a day, EUR` the money."""
    for name, cell in cells:
        units = [word for word in re.findall(r"[^\W\d_]+|[%€$£]", name) if canonical_unit(word)]
        if units and re.fullmatch(r"[\d.,]*\d", cell):
            yield f"{cell} {next((unit for unit in units if unit in '%€$£' or unit.isupper()), units[0])}"


def _find_support_fault(answer: str, quotes: Sequence[str], question: str, share: float) -> str | None:
    """The first statement of the answer that the quotes do not support, in words; None if there is none."""
    (lead, statement), source = split_polarity(normalize_spelling(answer)), " | ".join(map(normalize_spelling, quotes))
    question = normalize_spelling(question)
    quote_forms, question_forms = collect_forms(source), merge_forms(repeatable_words(question))
    quote_forms |= merge_forms(_join_hyphens(source))
    statement = HYPHENATED.sub(
        lambda match: joined if word_forms(joined := match[0].replace("-", "")) & quote_forms else match[0], statement
    )
    words, numbers = content_words(statement), find_quantities(statement)
    if not words and not numbers:
        if not lead:
            return "the answer says nothing"
        # A bare yes or no needs quotes about the question.
        about = merge_forms(content_words(question)) & quote_forms
        return None if about else "the quotes have no word of the question"
    if fault := _number_fault(statement, source, question):
        return fault
    meant = _contrasts_meant(statement, source)
    words = [word for word in words if word.lower() not in meant]
    denials = [word for word in words if is_denial_word(word)]
    if denials and not any(map(is_denial_word, [*_words_without_numbers(source), *_words_without_numbers(question)])):
        return f"the answer says {denials[0]!r}, and no quote denies anything"
    turning = [word for word in words if word.lower() in CONTRAST_WORDS or word[0].isupper()]
    strict = [word for word in turning if not is_denial_word(word)]
    others = [word for word in words if word not in turning and not is_denial_word(word)]
    pool = quote_forms | question_forms
    if fault := _missing_words_fault(strict, pool, 1.0) or _missing_words_fault(others, pool, share):
        return fault
    if numbers or any(word_forms(word) & quote_forms for word in words):
        return None
    return "the quotes have no word of the answer"


def _missing_words_fault(words: Sequence[str], pool: frozenset[str], share: float) -> str | None:
    missing = [word for word in words if not word_forms(word) & pool]
    if len(words) - len(missing) >= share * len(words):
        return None
    shown = ", ".join(repr(word[:40]) for word in dict.fromkeys(missing[:MAX_REPORTED_WORDS]))
    verb = "is" if len(missing) == 1 else "are"
    return f"{shown} of the answer {verb} not in the quotes; say only what they say, or quote the words for it"


def _contrasts_meant(statement: str, source: str) -> frozenset[str]:
    """The contrast words of an answer, in lower case, that a quote supports in other words."""
    meant = {
        word.lower()
        for word in WORD.findall(statement)
        if (same := SAME_MEANING.get(word.lower())) is not None and same.search(source)
    }
    meant |= {word for word, paired in PAIRED.items() if paired.search(statement)}
    if CAUSAL_SINCE.search(statement) and not TIME_AFTER_SINCE.search(statement) and CAUSE_WORDS.search(source):
        meant.add("since")
    if not ONCE_COUNTED.search(statement) and re.search(r"\b(?:after|when|as soon as)\b", source, re.IGNORECASE):
        meant.add("once")
    numbers = [(number, statement[: number.start]) for number in find_quantities(statement)]
    if re.search(r"\bonly\b", statement, re.IGNORECASE) and not LARGER_THAN_NUMBER.search(source):
        bare = sum(
            re.search(r"\bonly (?:about )?$", before, re.IGNORECASE) is not None
            and not read_written(statement[number.start :][:30]).dates
            for number, before in numbers
        )
        if bare == len(re.findall(r"\bonly\b", statement, re.IGNORECASE)):
            meant.add("only")
    for number, before in numbers:
        part = PART_OF_NUMBER.format(number=re.escape(number.text))
        if re.search(r"\ball (?:of )?(?:the |these |those )?$", before, re.IGNORECASE) and not re.search(
            part, source, re.I
        ):
            meant.add("all")
    return frozenset(meant)


def _join_hyphens(text: str) -> list[str]:
    """The hyphenated words of a text, each as one word."""
    return [word.replace("-", "") for word in HYPHENATED.findall(text)]


def _understood_quantities(source: str, question: str) -> list["TextQuantity"]:
    """Quoted numbers without unit, with the unit that is understood: of an age, or of the number before in the same sentence."""
    understood: list[TextQuantity] = []
    asks_age = HOW_OLD.search(question) is not None
    before: TextQuantity | None = None
    for number in find_quantities(source):
        if number.unit:
            before = number
            continue
        is_year = re.fullmatch(r"1[0-9]{3}|20[0-9]{2}", number.text) is not None
        if is_year or names_counted_thing(source, number.end) or not number.values:
            continue
        if asks_age:
            understood.append(number._replace(unit="year"))
        if before is not None and not re.search(r"[.!?|]\s", source[before.end : number.start]):
            understood.append(number._replace(unit=before.unit))
    return understood


def _number_fault(statement: str, source: str, question: str) -> str | None:
    quoted_numbers, names = (
        [*distinct_quantities(source), *_understood_quantities(source, question)],
        {quantity.text for quantity in distinct_quantities(question) if quantity.text[0].isalpha()},
    )
    for number in distinct_quantities(statement):
        if number.text not in names and not number.is_among(quoted_numbers):
            return f"{f'{number.text} {number.unit}'.strip()!r} is a number of the answer that is not so in the quotes"
    answer, quoted = read_written(statement), read_written(source)
    strange = (*(answer.dates - quoted.dates), *(answer.times - quoted.times))
    return f"{strange[0]} is not in the quotes" if strange else None


def repeatable_words(question: str) -> list[str]:
    """The words of a question that an answer may repeat: all but the choices that it offers."""
    joint = CHOICES if re.match(r"(?:which|who|whose)\b", question, re.IGNORECASE) else CHOICE
    offered: list[str] = []
    for clause in re.split(r"[,;:?]", question):
        for match in joint.finditer(clause.lower()):
            offered += (
                content_words(clause[: match.start()])[-CHOICE_WINDOW:]
                + content_words(clause[match.end() :])[:CHOICE_WINDOW]
            )
    return [word for word in _words_without_numbers(question) if word not in offered]


def list_choices(question: str) -> list[frozenset[str]]:
    """The forms of the words of two things that a question offers: the nearest content words before and after its only `or`."""
    clauses = [clause for clause in re.split(r"[,;:?]", question) if CHOICE.search(clause)]
    if len(clauses) != 1 or len(sides := CHOICE.split(clauses[0])) != 2:
        return []
    before, after = map(content_words, sides)
    return [merge_forms(before[-CHOICE_WINDOW:]), merge_forms(after[:CHOICE_WINDOW])]


# Words


def normalize_spelling(text: str) -> str:
    """`text` normalized, with one spelling for units that have several."""
    text = normalize_quote(text)
    for pattern, spelling in SPELLINGS.items():
        text = re.sub(pattern, spelling, text)
    return text


def _words_without_numbers(text: str) -> list[str]:
    """The words of a text, without its numbers."""
    edges = [0, *(edge for number in find_quantities(text) for edge in (number.start, number.end)), len(text)]
    return [word for start, end in zip(edges[::2], edges[1::2], strict=True) for word in WORD.findall(text[start:end])]


def split_polarity(text: str) -> tuple[str, str]:
    """The leading yes or no of an answer, in lower case and empty if there is none; and the rest."""
    match = LEADING_POLARITY.match(text)
    return (match[1].lower(), text[match.end() :]) if match else ("", text)


def content_words(text: str) -> list[str]:
    """The content words of a text with normalized spelling."""
    words = _words_without_numbers(re.sub(r"^May(?= [a-zA-Z])", "", text))  # here more often a verb than the month
    return [word for word in words if word in NAMES or word.lower() not in FUNCTION_WORDS]


def is_denial_word(word: str) -> bool:
    return word.lower() in DENIALS or word.lower().endswith("n't")


def collect_forms(text: str) -> frozenset[str]:
    """The forms of all words of a text with normalized spelling, and the units of its numbers."""
    return merge_forms(_words_without_numbers(text)) | {
        f"unit {number.unit}" for number in find_quantities(text) if number.unit
    }


def merge_forms(words: Sequence[str]) -> frozenset[str]:
    return frozenset().union(*map(word_forms, words))


@lru_cache(maxsize=4096)
def word_forms(word: str) -> frozenset[str]:
    """The words that `word` may be an inflection of, itself included: two words match if they share a form."""
    if word in NAMES:
        return frozenset([word])
    word = word.lower().removesuffix("'s")
    forms = {word, IRREGULAR_FORMS.get(word, word)}
    if canonical_unit(word) and len(word) > 1:
        forms.add(f"unit {canonical_unit(word)}")
    if len(word) <= 3:
        return frozenset(forms)
    bases = []
    if word.endswith(("ies", "ied")):
        bases.append(f"{word[:-3]}y")
    elif word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        bases += [word[:-1], word[:-2]]
    elif word.endswith("s") and not word.endswith("ss"):
        bases.append(word[:-1])
    for ending in ("ed", "ing"):
        base = word.removesuffix(ending)
        if base != word and len(base) > 1:
            bases += [base, f"{base}e"]
            if base[-1] == base[-2]:
                bases.append(base[:-1])
    return frozenset([*forms, *(base for base in bases if len(base) > 1)])
