"""Kinds of constraints on a text, how code checks each, and the drawing of constraints that one text can meet together.

Knows no teacher, prompt or sample. After the idea of IFEval (Zhou et al., arXiv 2311.07911): an instruction of which
a program can decide every demand.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict

from agents.checks.json_schema import parse_strict_json
from agents.checks.text.text_units import (
    ENGLISH,
    JOINING_CHARACTERS,
    TAG,
    WORD,
    WORD_PART,
    contains_question,
    count_occurrences,
    find_question_marks,
    fold_to_plain_letters,
    max_word_count,
    min_word_count,
    nonempty_lines,
    parse_list_items,
    read_sentences,
    remove_code,
    remove_invisible,
    space_word_parts,
    split_sentences,
    split_words,
    word_part_runs,
)
from agents.families.document_constraints import (
    ConstraintParams,
    check_language,
    check_section_titles,
    check_sections,
    check_sorted_bullets,
    check_table,
    check_words_in_order,
)
from core.project_files import read_shipped_table

WORDINGS: Mapping[str, Any] = read_shipped_table("data/seeds/constraint_wordings.toml")
PHRASES: Mapping[str, Sequence[str]] = WORDINGS["phrases"]
THANKS: Mapping[str, str] = WORDINGS["thanks"]
"""Patterns of whole words, the most common first."""


def _fault_unless(met: bool, fault: str) -> str | None:
    return None if met else fault


@dataclass(frozen=True)
class ConstraintTopic:
    """The source of constraint parameters: a topic and a few words that belong to it."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class ConstraintKind:
    """One kind of constraint. Two kinds of one `group` are never combined, since they can contradict each other."""

    group: str
    draw: Callable[[Random, ConstraintTopic], dict[str, Any]]
    check: Callable[[str, ConstraintParams], str | None]
    """The fault in words, or None if the text meets the constraint."""
    raw: bool = False
    """Whether the check reads the unchanged text instead of the result of `remove_invisible`."""
    words: int = 0
    """Number of topic words that its parameters need."""


def _draw_nothing(_rng: Random, _topic: ConstraintTopic) -> dict[str, Any]:
    return {}


def _draw_one(name: str, *choices: Any) -> Callable[[Random, ConstraintTopic], dict[str, Any]]:
    return lambda rng, _topic: {name: rng.choice(choices)}


def _draw_range(width: int, *lows: int) -> Callable[[Random, ConstraintTopic], dict[str, Any]]:
    return lambda rng, _topic: (lambda low: {"low": low, "high": low + width})(rng.choice(lows))


def _draw_words(count: int) -> Callable[[Random, ConstraintTopic], dict[str, Any]]:
    return lambda rng, topic: {"words": rng.sample(topic.words, count)}


def _check_max_words(text: str, p: ConstraintParams) -> str | None:
    n = max_word_count(text)
    return _fault_unless(n <= p["n"], f"it has {n} words, at most {p['n']} are allowed")


def _check_min_words(text: str, p: ConstraintParams) -> str | None:
    n = min_word_count(text)
    return _fault_unless(n >= p["n"], f"it has {n} words, at least {p['n']} are needed")


def _check_words_between(text: str, p: ConstraintParams) -> str | None:
    least, most = min_word_count(text), max_word_count(text)
    n = least if least < p["low"] else most
    return _fault_unless(p["low"] <= least and most <= p["high"], f"it has {n} words, not {p['low']} to {p['high']}")


def _check_exact_sentences(text: str, p: ConstraintParams) -> str | None:
    pieces, doubtful = read_sentences(text)
    n = f"{len(pieces)}{f' to {len(pieces) + doubtful}' if doubtful else ''}"
    ended = bool(re.search(r"[.!?][\"'”’)]*$", text.strip()))
    met = n == str(p["n"]) and ended
    return _fault_unless(met, f"it has {n} sentences{'' if ended else ', the last unended'}, not {p['n']}")


def _check_max_sentence_words(text: str, p: ConstraintParams) -> str | None:
    longest = max(
        (max_word_count(sentence) for sentence in read_sentences(JOINING_CHARACTERS.sub(" ", text)).pieces), default=0
    )
    return _fault_unless(
        0 < longest <= p["n"], f"its longest sentence has {longest} words, at most {p['n']} are allowed"
    )


def _check_exact_paragraphs(text: str, p: ConstraintParams) -> str | None:
    parts = re.split(r"\n\s*\n", text.strip())
    heading_rule_or_fence = re.compile(r"\s*(?:(?:#{1,6} |```).*|\*\*[^*\n]+\*\*\s*)")
    n = sum(bool(WORD.search(TAG.sub("", part))) and not heading_rule_or_fence.fullmatch(part) for part in parts)
    return _fault_unless(n == p["n"], f"it has {n} paragraphs, not {p['n']}")


def _check_include_words(text: str, p: ConstraintParams) -> str | None:
    missing = [word for word in p["words"] if not count_occurrences(word, text)]
    return _fault_unless(not missing, f"it lacks {', '.join(map(repr, missing))}")


def _check_mention_times(text: str, p: ConstraintParams) -> str | None:
    n = count_occurrences(p["word"], text)
    return _fault_unless(n >= p["n"], f"it uses {p['word']!r} {n} times, at least {p['n']} are needed")


def _check_avoid_word(text: str, p: ConstraintParams) -> str | None:
    word, plain = fold_to_plain_letters(p["word"]), fold_to_plain_letters(text)
    forms = {space_word_parts(form) for form in (word, f"{word}s", f"{word}es", re.sub("y$", "ies", word))}
    n = max(1, len(WORD_PART.findall(word)))
    runs = {run for shown in (plain, re.sub(r"[*`~]", "", plain)) for run in word_part_runs(shown, n)}
    return _fault_unless(not forms & runs, f"it uses the forbidden word {p['word']!r}")


def _check_avoid_letter(text: str, p: ConstraintParams) -> str | None:
    drawn = any(name.endswith(f"LATIN CAPITAL LETTER {p['letter'].upper()}") for name in _character_names(text))
    return _fault_unless(
        p["letter"] not in fold_to_plain_letters(text) and not drawn, f"it has the forbidden letter {p['letter']!r}"
    )


def _character_names(text: str) -> Iterable[str]:
    """The Unicode names of the characters of `text`, each once."""
    return (unicodedata.name(character, "") for character in set(text))


def _check_include_number(text: str, _p: ConstraintParams) -> str | None:
    return _fault_unless(bool(re.search(r"(?<![^\W_])\d", text)), "it has no number in digits")


NUMBER_EMOJI = "🔟💯🔢🔞"


def _check_no_digits(text: str, _p: ConstraintParams) -> str | None:
    digits = sorted(c for c in set(text) if unicodedata.category(c) in {"Nd", "No"} or c in NUMBER_EMOJI)
    return _fault_unless(not digits, f"it has digits: {' '.join(digits)}")


def _check_start_with(text: str, p: ConstraintParams) -> str | None:
    first = next(iter(split_words(text)), "")
    return _fault_unless(first.lower() == p["word"].lower(), f"it starts with {first!r}, not {p['word']!r}")


def _check_end_with(text: str, p: ConstraintParams) -> str | None:
    bare = text.rstrip().rstrip("\"'”’")
    before = bare.removesuffix(p["ending"]).rstrip(" \t")
    met = bare.endswith(p["ending"]) and (not before or before[-1] in "\n.!?:;…\"'“”’)*_—–-")
    return _fault_unless(met, f"it does not end with {p['ending']!r} by itself")


def _check_end_in_language(text: str, p: ConstraintParams) -> str | None:
    last = (split_sentences(text) or [""])[-1].lower()
    met = re.search(rf"(?<![\w-])(?:{THANKS[p['language']]})(?![\w-])", last)
    return _fault_unless(bool(met), f"its last sentence does not say thank you in {p['language']}")


def _check_end_question(text: str, _p: ConstraintParams) -> str | None:
    met = any("?" in mark and not after for mark, after in find_question_marks(text))
    return _fault_unless(met, "it does not end with a question and its mark")


def _check_ask_question(text: str, _p: ConstraintParams) -> str | None:
    return _fault_unless(contains_question(text), "it asks no question")


def _check_end_exclamation(text: str, _p: ConstraintParams) -> str | None:
    return _fault_unless(text.rstrip().rstrip("\"'”’").endswith("!"), "it does not end with an exclamation mark")


def _check_no_commas(text: str, _p: ConstraintParams) -> str | None:
    text = html.unescape(text)
    commas = [c for c in set(text) if c in "‚ꓹ" or (unicodedata.category(c) == "Po" and "COMMA" in unicodedata.name(c))]
    return _fault_unless(not commas, f"it has {sum(map(text.count, commas))} commas")


def _check_no_exclamation(text: str, _p: ConstraintParams) -> str | None:
    text = html.unescape(text)
    named = re.compile("EXCLAMATION|INTERROBANG|LETTER RETROFLEX CLICK")
    marks = [c for c in set(text) if named.search(unicodedata.name(c, ""))]
    return _fault_unless(not marks, f"it has {sum(map(text.count, marks))} exclamation marks")


def _check_lowercase(text: str, _p: ConstraintParams) -> str | None:
    capital = any(unicodedata.category(c) in {"Lu", "Lt"} for c in set(text)) or text != text.lower()
    drawn = any("CAPITAL LETTER" in name for name in _character_names(text))
    return _fault_unless(not capital and not drawn and text.upper() != text, "it has capital letters, or no letters")


def _check_uppercase(text: str, _p: ConstraintParams) -> str | None:
    small = any(c.islower() or unicodedata.category(c) in {"Ll", "Lt"} for c in set(text)) or text != text.upper()
    return _fault_unless(not small and text.lower() != text, "it has lower-case letters, or no letters")


def _check_bullets(text: str, p: ConstraintParams) -> str | None:
    items = parse_list_items(text, "[-*]")
    n = len(nonempty_lines(text))
    return _fault_unless(items is not None and n == p["n"], f"its {n} lines are not {p['n']} bullets with words alone")


def _check_numbered(text: str, p: ConstraintParams) -> str | None:
    items = parse_list_items(text, r"(?P<number>\d+)(?P<mark>[.)])") or []
    wanted = [str(i) for i in range(1, p["n"] + 1)]
    met = [item["number"] for item in items] == wanted and len({item["mark"] for item in items}) == 1
    return _fault_unless(met, f"its lines are not numbered 1 to {p['n']} and nothing else")


def _check_in_quotes(text: str, _p: ConstraintParams) -> str | None:
    bare = text.strip()
    inner = bare[1:-1]
    straight = bare[:1] == bare[-1:] == '"' and '"' not in inner
    # Every curly quotation that ends inside also begins there, and none is left open.
    depths = [0, *accumulate(1 if mark == "“" else -1 for mark in re.findall("[“”]", inner))]
    curly = bare[:1] == "“" and bare[-1:] == "”" and min(depths) == depths[-1] == 0
    met = bool(WORD.search(inner)) and (straight or curly)
    return _fault_unless(met, "it is not in one pair of double quotation marks")


def _check_json_keys(text: str, p: ConstraintParams) -> str | None:
    try:
        value = parse_strict_json(text)
    except (ValueError, RecursionError):
        return "it is not JSON, or has a key twice"
    keys = list(value) if isinstance(value, dict) else None
    return _fault_unless(
        keys is not None and sorted(keys) == sorted(p["keys"]), f"its keys are {keys}, not {p['keys']}"
    )


def _check_bold_word(text: str, _p: ConstraintParams) -> str | None:
    bold = re.findall(r"\*\*([^*]+)\*\*", remove_code(text))
    met = len(bold) == 1 and len(split_words(bold[0])) == 1 and not re.search(r"\s", bold[0])
    return _fault_unless(
        met, f"{len(bold) or 'no'} parts are in **bold**, not one word" if bold else "nothing is in **bold**"
    )


def _check_heading(text: str, _p: ConstraintParams) -> str | None:
    first, *below = [line for line in text.splitlines() if line.strip()]
    met = re.match(r" {0,3}#{1,6} ", first) and WORD.search(first) and WORD.search(" ".join(below))
    return _fault_unless(bool(met), "it does not begin with a `# ` heading over a text")


def _check_postscript(text: str, _p: ConstraintParams) -> str | None:
    lines = nonempty_lines(text)
    postscript = re.match(r"P\.S\.:? ?(.*)", lines[-1])
    met = len(lines) > 1 and postscript is not None and WORD.search(postscript[1]) is not None
    return _fault_unless(met, "its last line is not a postscript that starts with `P.S.`")


def _check_second_person(text: str, _p: ConstraintParams) -> str | None:
    bases = {re.split("['’]", word.lower())[0] for word in split_words(text)}
    met = bases & {"you", "your", "yours", "yourself", "yourselves"}
    return _fault_unless(bool(met), "it does not speak to the reader as `you`")


POSSESSIVES = {"my", "me", "myself"}
WORDS_BEFORE_POSSESSIVE = {"of", "is", "are", "was", "were", "be", "not"}
"""Words that distinguish `it is mine` from a mine."""
SENTENCE_OPENERS = frozenset(ENGLISH["sentence_openers"].split())
"""Capitalized words before `I` that do not form a name such as `World War I`."""


NUMBERED_THINGS = frozenset(ENGLISH["numbered_things"].split())
"""Words after which a lower-case `i` is a Roman numeral."""


def _check_first_person(text: str, _p: ConstraintParams) -> str | None:
    bare = re.sub(r'"[^"]*"|“[^”]*”|«[^»]*»|„[^“”]*[“”]', " ", text.strip().strip('"“”'))
    words = list(WORD.finditer(bare))
    before = [None, *words]
    met = any(_is_speaker_word(bare, word, last) for word, last in zip(words, before, strict=False))
    return _fault_unless(met, "it does not speak as `I`")


def _is_speaker_word(text: str, word: re.Match[str], last: re.Match[str] | None) -> bool:
    """Whether a word refers to the speaker. The I of `Charles I`, of a list and of an abbreviation does not."""
    base, _, rest = word.group().replace("’", "'").partition("'")
    if base == "i" and not any(character.isupper() for character in text):  # in a text without capital letters
        numeral = text[word.end() : word.end() + 1] == ")" or (last is not None and last.group() in NUMBERED_THINGS)
        base = base if numeral else "I"
    if base.lower() == "mine":
        return last is not None and last.group().lower() in WORDS_BEFORE_POSSESSIVE
    if base != "I":
        return base.lower() in POSSESSIVES
    if rest in {"m", "ve", "ll", "d"}:
        return True
    named = last is not None and last.group()[0].isupper() and last.group().lower() not in SENTENCE_OPENERS
    adjacent = last is not None and not text[last.end() : word.start()].strip()
    return not rest and text[word.end() : word.end() + 1] not in {".", "/", "'", "’"} and not (named and adjacent)


CONSTRAINT_KINDS: dict[str, ConstraintKind] = {
    "max_words": ConstraintKind("length", _draw_one("n", 15, 20, 25, 30), _check_max_words, raw=True),
    "min_words": ConstraintKind("length", _draw_one("n", 20, 25, 30), _check_min_words),
    "words_between": ConstraintKind("length", _draw_range(20, 10, 15, 20), _check_words_between, raw=True),
    "exact_sentences": ConstraintKind("sentences", _draw_one("n", 1, 2, 2, 2, 3), _check_exact_sentences),
    "max_sentence_words": ConstraintKind("sentences", _draw_one("n", 12, 15, 18), _check_max_sentence_words, raw=True),
    "exact_paragraphs": ConstraintKind("sentences", _draw_one("n", 2, 3), _check_exact_paragraphs),
    "include_words": ConstraintKind("content", lambda rng, t: {"words": [rng.choice(t.words)]}, _check_include_words),
    "include_two_words": ConstraintKind("content", _draw_words(2), _check_include_words, words=2),
    "mention_times": ConstraintKind(
        "content", lambda rng, t: {"word": rng.choice(t.words), "n": 2}, _check_mention_times
    ),
    "avoid_word": ConstraintKind("avoid", lambda rng, t: {"word": rng.choice(t.words)}, _check_avoid_word),
    "avoid_letter": ConstraintKind("avoid", _draw_one("letter", *"jkqxz"), _check_avoid_letter),
    "include_number": ConstraintKind("digits", _draw_nothing, _check_include_number),
    "no_digits": ConstraintKind("digits", _draw_nothing, _check_no_digits),
    "start_with": ConstraintKind("start", _draw_one("word", *WORDINGS["start_words"]), _check_start_with),
    "end_with": ConstraintKind("end", _draw_one("ending", *WORDINGS["endings"]), _check_end_with),
    "end_in_language": ConstraintKind("end", _draw_one("language", *THANKS), _check_end_in_language),
    "end_question": ConstraintKind("end", _draw_nothing, _check_end_question),
    "ask_question": ConstraintKind("end", _draw_nothing, _check_ask_question),
    "end_exclamation": ConstraintKind("end", _draw_nothing, _check_end_exclamation),
    "no_commas": ConstraintKind("commas", _draw_nothing, _check_no_commas),
    "no_exclamation": ConstraintKind("end", _draw_nothing, _check_no_exclamation),
    "lowercase": ConstraintKind("form", _draw_nothing, _check_lowercase),
    "uppercase": ConstraintKind("form", _draw_nothing, _check_uppercase),
    "bullets": ConstraintKind("form", _draw_one("n", 2, 3, 4), _check_bullets),
    "numbered": ConstraintKind("form", _draw_one("n", 3, 4, 5), _check_numbered),
    "in_quotes": ConstraintKind("form", _draw_nothing, _check_in_quotes),
    "json_keys": ConstraintKind(
        "form",
        _draw_one("keys", ["title", "text"], ["name", "reason"], ["question", "answer"]),
        _check_json_keys,
        raw=True,
    ),
    "bold_word": ConstraintKind("form", _draw_nothing, _check_bold_word),
    "heading": ConstraintKind("form", _draw_nothing, _check_heading),
    "postscript": ConstraintKind("form", _draw_nothing, _check_postscript),
    "second_person": ConstraintKind("person", _draw_nothing, _check_second_person),
    "first_person": ConstraintKind("person", _draw_nothing, _check_first_person),
    # Of texts of 60 words and more.
    "long_max_words": ConstraintKind("length", _draw_one("n", 60, 80, 100), _check_max_words, raw=True),
    "long_min_words": ConstraintKind("length", _draw_one("n", 80, 100, 120, 150), _check_min_words),
    "long_words_between": ConstraintKind(
        "length", _draw_range(50, 60, 80, 100, 130, 160), _check_words_between, raw=True
    ),
    "words_in_order": ConstraintKind("content", _draw_words(3), check_words_in_order, words=3),
    "table": ConstraintKind(
        "form", lambda rng, _t: {"columns": rng.choice((2, 3)), "rows": rng.choice((3, 4, 5))}, check_table
    ),
    "sections": ConstraintKind("form", _draw_one("n", 2, 3), check_sections),
    "section_titles": ConstraintKind("form", _draw_one("titles", *WORDINGS["section_titles"]), check_section_titles),
    "sorted_bullets": ConstraintKind("form", _draw_one("n", 4, 5, 6), check_sorted_bullets),
    "language": ConstraintKind("language", _draw_one("language", *THANKS), check_language),
}


class TextConstraint(BaseModel):
    """A constraint with its parameters and the sentence that states it in the instruction."""

    model_config = ConfigDict(frozen=True)

    kind: str
    params: dict[str, Any] = {}
    text: str

    def list_values(self) -> list[Any]:
        """The values of all parameters, and those of lists one by one."""
        return [one for value in self.params.values() for one in (value if isinstance(value, list) else [value])]

    def fault(self, answer: str) -> str | None:
        """How `answer` breaks this constraint, in words; None if it meets it. An empty answer meets none."""
        kind, shown = CONSTRAINT_KINDS[self.kind], remove_invisible(answer)
        return kind.check(answer if kind.raw else shown, self.params) if shown.strip() else "it is empty"


MAX_DRAWS = 8
"""Attempts to draw a forbidden word or letter that the topic's name does not have."""
DOCUMENT_KINDS = {"table", "sections", "section_titles", "sorted_bullets"}
SHAPE_KINDS = {"bullets", "numbered", "json_keys", "heading", "in_quotes", "postscript", *DOCUMENT_KINDS}
"""Kinds that determine how a text begins or ends, and the form of its lines."""
END_KINDS = {"end_with", "end_in_language", "end_question", "end_exclamation"}
ENGLISH_KINDS = {
    *(name for name, kind in CONSTRAINT_KINDS.items() if kind.group in {"content", "avoid", "start", "person"}),
    *("end_with", "end_in_language", "end_question", "ask_question", "section_titles", "json_keys"),
}
"""Kinds about English words and marks; French has a space before a question mark."""
APART: Sequence[tuple[set[str], set[str]]] = (
    (SHAPE_KINDS, {"start_with", "exact_sentences", "max_sentence_words", "exact_paragraphs", *END_KINDS}),
    (DOCUMENT_KINDS, {"max_words", "words_between"}),
    ({"lowercase", "uppercase"}, {"end_with"}),
    ({"language"}, ENGLISH_KINDS),
    ({"exact_sentences"}, {"long_min_words", "long_words_between", "end_in_language"}),
    ({"numbered"}, {"no_digits"}),
    ({"json_keys"}, {"no_commas"}),
)
"""Kinds of different groups that no text, or hardly any, can meet together, or of which nobody knows: whether `Merci.` is one of
the sentences, and what a list has of them.
"""


def are_contradictory(left: TextConstraint, right: TextConstraint) -> bool:
    """Whether no text, or hardly any, can meet both, although they belong to different groups."""
    pairs = ((left, right), (right, left))
    return any(
        _is_forbidden_by(one, other) or any(one.kind in some and other.kind in others for some, others in APART)
        for one, other in pairs
    )


def _is_forbidden_by(ban: TextConstraint, other: TextConstraint) -> bool:
    """Whether `other` requires a text that `ban` forbids."""
    named = [value for value in other.list_values() if isinstance(value, str)]
    named += [THANKS[other.params["language"]].split("|")[0]] if other.kind == "end_in_language" else []
    wanted = " ".join(named).casefold()
    if ban.kind == "avoid_word":
        return ban.params["word"].casefold() in wanted
    return ban.kind == "avoid_letter" and ban.params["letter"].casefold() in wanted


def _is_in_topic(kind: str, params: Mapping[str, Any], topic: ConstraintTopic) -> bool:
    """Whether a constraint forbids a word or letter of the topic's name."""
    barred = {"avoid_word": "word", "avoid_letter": "letter"}.get(kind)
    return barred is not None and params[barred].casefold() in topic.name.casefold()


def state_constraint(rng: Random, kind: str, params: dict[str, Any]) -> TextConstraint:
    """The constraint in one of the sentences that state its kind."""
    n, listed = params.get("n", 0), next((value for value in params.values() if isinstance(value, list)), [])
    values = {
        **params,
        "n_more": n + 1,
        "quoted": " and ".join(f'"{word}"' for word in listed),
        "listed": ", ".join(f'"{word}"' for word in listed),
        "n_sentences": f"{('one', 'two', 'three')[n - 1] if 1 <= n <= 3 else n} sentence{'s' * (n != 1)}",
    }
    return TextConstraint(kind=kind, params=params, text=rng.choice(PHRASES[kind]).format(**values))


def draw_constraints(
    rng: Random, topic: ConstraintTopic, weights: Mapping[str, int], count: int, existing: Sequence[TextConstraint] = ()
) -> list[TextConstraint]:
    """Up to `count` constraints of different groups, drawn by weight, that one text can meet together with `existing`."""
    chosen: list[TextConstraint] = []
    taken = {CONSTRAINT_KINDS[constraint.kind].group for constraint in existing}
    fit = {
        name for name, kind in CONSTRAINT_KINDS.items() if kind.group not in taken and kind.words <= len(topic.words)
    }
    left = {name: weight for name, weight in weights.items() if weight > 0 and name in fit}
    while left and len(chosen) < count:
        name = rng.choices(list(left), list(left.values()))[0]
        kind = CONSTRAINT_KINDS[name]
        params = kind.draw(rng, topic)
        for _ in range(MAX_DRAWS):
            if not _is_in_topic(name, params, topic):
                break
            params = kind.draw(rng, topic)
        constraint = state_constraint(rng, name, params)
        contradicts = any(are_contradictory(constraint, other) for other in (*existing, *chosen))
        if contradicts or _is_in_topic(name, params, topic):
            del left[name]
            continue
        chosen.append(constraint)
        left = {other: weight for other, weight in left.items() if CONSTRAINT_KINDS[other].group != kind.group}
    return chosen
