"""Which questions of reasoning-gym are fair: one right answer, the stated one, and text without faults. What can be corrected
in the text is corrected, the rest is refused for a named reason.

Knows no teacher. Each filter is a function of a task's data set and one of its entries; its name is the reason.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from plugins.math.checks.number_sequences import find_continuation_fault

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

Entry = Mapping[str, Any]
QuestionFilter = Callable[["ProceduralDataset", Entry], bool]
"""Whether it refuses a question."""

# Number sequences


def _sequence_fault(entry: Entry) -> str | None:
    *terms, answer = entry["metadata"]["sequence"]
    return find_continuation_fault(terms, answer)


def constant_ending(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """The last three terms are equal, so nothing is to be found out."""
    return _sequence_fault(entry) == "constant"


def plain_doubling(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """Too easy: each term is twice the one before."""
    return all(after == 2 * before for before, after in pairwise(entry["metadata"]["sequence"]))


def unstated_rounding(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """Only a rule that rounds gives the answer, and the question does not say how to round."""
    return _sequence_fault(entry) == "rounds"


def unconfirmed_rule(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """No simple rule gives the answer and has a shown term to confirm it."""
    return _sequence_fault(entry) == "unconfirmed"


def several_continuations(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """A rule that is as simple gives all shown terms and another next one."""
    return _sequence_fault(entry) == "ambiguous"


# Syllogisms

STATEMENT = re.compile(r"(?P<quantifier>All|No|Some) (?P<subject>\w+) are (?P<negated>not )?(?P<predicate>\w+)")
KINDS = tuple(product((False, True), repeat=3))
"""Whether a thing is of each of the three terms: eight kinds of things, and a model says which of them exist."""
MODELS = tuple(product((False, True), repeat=len(KINDS)))


def _holds(statement: tuple[str, int, int, bool], model: Sequence[bool]) -> bool:
    quantifier, subject, predicate, negated = statement
    members = [kind for kind, exists in zip(KINDS, model, strict=True) if exists and kind[subject]]
    found = [kind[predicate] != negated for kind in members]
    return {"All": all(found), "No": not any(found), "Some": any(found)}[quantifier]


@lru_cache(maxsize=10_000)
def syllogism_answers(premises: tuple[str, ...], conclusion: str) -> tuple[bool, bool]:
    """Whether the conclusion follows: where terms may be empty (modern logic), and where each has a member (Aristotle's).

    By trying all 256 ways in which things of three terms can exist.
    """
    found = [STATEMENT.fullmatch(text) for text in (*premises, conclusion)]
    statements = [match for match in found if match]
    assert len(statements) == len(found), "a statement of another form"
    terms = sorted({match[name] for match in statements for name in ("subject", "predicate")})
    *given, claim = (
        (match["quantifier"], terms.index(match["subject"]), terms.index(match["predicate"]), bool(match["negated"]))
        for match in statements
    )
    models = [model for model in MODELS if all(_holds(premise, model) for premise in given)]
    peopled = [
        model for model in models
        if all(any(exists and kind[term] for kind, exists in zip(KINDS, model, strict=True)) for term in range(3))
    ]  # fmt: skip
    return all(_holds(claim, model) for model in models), all(_holds(claim, model) for model in peopled)


def _syllogism(entry: Entry) -> tuple[bool, bool]:
    data = entry["metadata"]
    return syllogism_answers((data["premise1"], data["premise2"]), data["conclusion"])


def assumes_existence(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """Whether the conclusion follows depends on whether each term has a member, which the question does not say."""
    modern, traditional = _syllogism(entry)
    return modern != traditional


def wrong_conclusion(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """The stated answer is wrong: the two statements together imply what the generator calls invalid, or the reverse."""
    modern, traditional = _syllogism(entry)
    return modern == traditional and modern != (entry["answer"] == "Yes")


# Families

UNISEX_NAMES = frozenset("Atlas Axel Kai Logan Mason Nova Owen Phoenix Rain River Sage Sky Winter Zion".split())


def undirected_relation(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """The stated answer names the other person's relation: asked what A is to B, a parent-in-law, niece or nephew, it says what
    B is to A.
    """
    return entry["answer"] in ("mother-in-law", "father-in-law", "niece", "nephew")


def unstated_gender(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """The word depends on the person's gender, and the name is given to boys and girls."""
    return entry["metadata"]["person1"] in UNISEX_NAMES


def stated_relation(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """The text states the relation in one sentence: "is married to", or "have a child called"."""
    return entry["answer"] in ("wife", "husband", "mother", "father", "daughter", "son")


def muddled_circles(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """Matilda's colleagues in two circles: the stated answer, the women of her own circle, leaves out those of the other, and
    whether "in total" there includes her is not clear.
    """
    return bool(entry["metadata"]["task_type"] == "colleagues")


# Dates

DATED = re.compile(r"((?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day), (\w+ \d{1,2}, \d{4})")
LEAP_DAY = 59
"""Days from January 1 to the day after February 28."""


def impossible_weekday(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """A date of the question does not fall on the weekday that it names: its year is wrong."""
    return any(
        datetime.strptime(date, "%B %d, %Y").strftime("%A") != weekday
        for weekday, date in DATED.findall(entry["question"])
    )


def ambiguous_date(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """A date such as 05/06/2022 is in May for some readers and in June for others."""
    found = re.search(r"\b(\d\d)/(\d\d)/\d{4}", entry["question"])
    return bool(found and int(found[2]) <= 12 and found[1] != found[2])


def unstated_leap_year(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """The weekday depends on whether the year is a leap year, and the question does not name the year."""
    data = entry["metadata"]
    return bool(data["task"] == "weekday_of_date_from_first_date" and data["delta_days"] >= LEAP_DAY)


# Texts


ABBREVIATIONS = frozenset({"Mr", "Mrs", "Dr", "St", "U", "S", "F", "www"})
"""Words before a period that ends no sentence."""


@lru_cache(maxsize=1)
def whole_sentences() -> frozenset[str]:
    """The sentences of the story that reasoning-gym takes texts from, in capitals, of which no word is left out: no comma, no
    number, no abbreviation that looks like the end.
    """
    from reasoning_gym.data import read_data_file

    pieces = [piece.split() for piece in read_data_file("in_the_year_2889.txt").split(".")]
    return frozenset(
        " ".join(piece).upper()
        for before, piece in pairwise(pieces)
        if len(piece) > 3 and all(word.isalpha() for word in piece) and piece[0][0].isupper()
        if before and not ABBREVIATIONS & {before[-1], piece[-1]}
    )  # fmt: skip


def cut_sentence(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """The text is no whole sentence: it is cut at an abbreviation, or words are left out."""
    return entry["metadata"]["clear_text"] not in whole_sentences()


def mixed_case(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """The letter occurs small and as a capital, and the question does not say whether both count."""
    return entry["metadata"]["target_letter"].upper() in " ".join(entry["metadata"]["span"])


def unclear_middle(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """A rule removes the middle character, of which a text of even length has two."""
    return any("middle" in rule for rule in entry["metadata"]["selected_rules"])


def muddled_children(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """A puzzle of mothers and children: clues such as "The person's child is named Alice is Bob" are no sentences, and
    children have the names of residents.
    """
    return "Each mother is accompanied" in entry["question"]


def stated_name(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """A clue says who lives in the house that is asked about."""
    return f". {entry['answer'].title()} is in the first house." in entry["question"]


def repeated_fact(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """More than one person, or none, has this feeling about this thing."""
    text = _correct_verbs(entry["question"], entry)
    asked = re.search(r"\nWho (.+)\? Reply", text)
    return not asked or text.count(f" {asked[1]}.") != 1


# Quantities


UNCLEAR_LEGS = frozenset("starfish crab lobster shrimp scorpion woodlouse".split())
"""Animals whose arms, claws or swimming legs some people count and others do not, or whose number of legs few know."""


def unclear_legs(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """How many legs an animal has is a convention: the arms of a starfish, the claws of a crab, the swimming legs of a shrimp."""
    return not UNCLEAR_LEGS.isdisjoint(entry["metadata"]["animals"])


def few_primes(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """Too easy: the range ends below 20, or has fewer than 10 numbers."""
    data = entry["metadata"]
    return bool(data["end"] < 20 or data["end"] - data["start"] < 9)


def no_convex_polygon(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """The remaining angle of a convex polygon would be 180 degrees or more."""
    return bool(entry["metadata"]["missing_angle_raw"] >= 180)


def inexact_probability(_dataset: "ProceduralDataset", entry: Entry) -> bool:
    """The stated probability is rounded, or so small that the verifier's tolerance accepts wrong ones."""
    ratio = entry["metadata"]["rational"]
    exact = ratio["numerator"] / ratio["denominator"]
    return bool(float(entry["answer"]) != exact or min(exact, 1 - exact) < 0.01)


QUESTION_FILTERS: Mapping[str, tuple[QuestionFilter, ...]] = {
    "number_sequence": (constant_ending, plain_doubling, unstated_rounding, unconfirmed_rule, several_continuations),
    "syllogism": (assumes_existence, wrong_conclusion),
    "family_relationships": (undirected_relation, stated_relation, unstated_gender),
    "calendar_arithmetic": (impossible_weekday, ambiguous_date, unstated_leap_year),
    "caesar_cipher": (cut_sentence,),
    "letter_counting": (mixed_case,),
    "string_manipulation": (unclear_middle,),
    "needle_haystack": (repeated_fact,),
    "zebra_puzzles": (muddled_children, stated_name),
    "leg_counting": (unclear_legs,),
    "aiw": (muddled_circles,),
    "count_primes": (few_primes,),
    "simple_geometry": (no_convex_polygon,),
    "coin_flip": (inexact_probability,),
}
"""The filters of each task that needs some, in their order."""


def find_question_fault(task: str, dataset: "ProceduralDataset", entry: Entry) -> str | None:
    """The name of the first filter that refuses the question; None for a fair one."""
    return next((refuses.__name__ for refuses in QUESTION_FILTERS.get(task, ()) if refuses(dataset, entry)), None)


# Corrections

PLURALS = {
    "leech": "leeches",
    "butterfly": "butterflies",
    "firefly": "fireflies",
    "cockroach": "cockroaches",
    "praying mantis": "praying mantises",
    "jellyfish": "jellyfish",
    "starfish": "starfish",
    "sheep": "sheep",
    "deer": "deer",
    "shrimp": "shrimp",
    "woodlouse": "woodlice",
}
"""Animals whose plural is not the word and an s."""


SPELLINGS = {
    "Provide you answer": "Provide your answer",
    "What is Name of": "What is the name of",
    "boquet": "bouquet",
    "??": "?",
}


def _correct_plurals(question: str, _entry: Entry) -> str:
    """`2 sheeps` becomes `2 sheep`."""
    for animal, plural in PLURALS.items():
        question = re.sub(rf"\b{animal}s\b", plural, question)
    return question.strip()


def _correct_singulars(question: str, _entry: Entry) -> str:
    """`1 sisters` and `in 1 days` lose the s."""
    return re.sub(r"\b1 ((?:fe)?male )?(sister|brother|friend|colleague|day)s\b", r"1 \1\2", question)


def _correct_spacing(question: str, _entry: Entry) -> str:
    """A space after each sentence, and none before a question mark."""
    return re.sub(r"(?<=[a-z)][.?])(?=[A-Z])", " ", question).replace(" ?", "?").strip()


def _correct_spelling(question: str, _entry: Entry) -> str:
    """`Provide you answer`, `What is Name of` and `boquet`."""
    for wrong, right in SPELLINGS.items():
        question = question.replace(wrong, right)
    return question.strip()


def _correct_names(question: str, entry: Entry) -> str:
    """`bob, alice`, the list of a puzzle's people, becomes `Bob, Alice`, as in the clues; and the spelling is corrected."""
    named = r"(?<=unique name: )[a-z, ]+$|(?<=nationalities: )[a-z, ]+$|(?<=birthday month: )[a-z, ]+$"
    question = re.sub(named, lambda match: match[0].title(), question, flags=re.MULTILINE)
    return _correct_spelling(question, entry)


def _correct_siblings(question: str, entry: Entry) -> str:
    """`John's brother`, of whom the text says nothing, becomes the brother of the woman that it speaks of; and singulars."""
    found = re.match(r"(\w+) has \d+ sisters", question)
    if found:
        question = re.sub(r"does \w+'s brother have", f"does {found[1]}'s brother have", question)
    return _correct_singulars(question, entry)


def _correct_verbs(question: str, _entry: Entry) -> str:
    """`yearns cats` becomes `yearns for cats`."""
    for verb, preposition in (("dotes", "on"), ("exults", "in"), ("yearns", "for"), ("pines", "for")):
        question = re.sub(rf"\b{verb} (?!{preposition}\b)", f"{verb} {preposition} ", question)
    return question


def _ask_for_words(_question: str, entry: Entry) -> str:
    """Asks about a list of words instead of a text that is cut in mid-sentence."""
    data = entry["metadata"]
    return f'How many times does the letter "{data["target_letter"]}" appear in these words: {", ".join(data["span"])}?'


def _ask_for_next_term(question: str, _entry: Entry) -> str:
    """Says what is asked for; reasoning-gym shows the terms alone."""
    return f"What is the next number of this sequence: {question}"


CORRECTIONS: Mapping[str, Callable[[str, Entry], str]] = {
    "leg_counting": _correct_plurals,
    "aiw": _correct_siblings,
    "calendar_arithmetic": _correct_singulars,
    "simple_geometry": _correct_spacing,
    "count_primes": _correct_spacing,
    "word_sequence_reversal": _correct_spelling,
    "zebra_puzzles": _correct_names,
    "needle_haystack": _correct_verbs,
    "letter_counting": _ask_for_words,
    "number_sequence": _ask_for_next_term,
}


def correct_question(task: str, entry: Entry) -> str:
    """The question's text without the faults that can be corrected."""
    correct = CORRECTIONS.get(task)
    return correct(entry["question"], entry) if correct else entry["question"]
