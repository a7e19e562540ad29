"""The rules of constrained instructions in German, French, Spanish and Chinese: how each is drawn, stated and checked.

A rule has the name, group and parameters of a kind of `agents.families.constraints`. Kinds whose check holds for any language
(paragraphs, bullets, JSON, tables, case of Latin letters) are used as they are. Knows no teacher.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

from agents.checks.text.text_units import WEB_ADDRESS, nonempty_lines, remove_invisible
from agents.families.constraints import (
    CONSTRAINT_KINDS,
    MAX_DRAWS,
    ConstraintKind,
    ConstraintTopic,
    TextConstraint,
    are_contradictory,
)
from agents.families.document_constraints import ConstraintParams
from plugins.languages.units import (
    CHINESE_UNIT,
    count_units,
    count_word,
    find_word,
    is_ended,
    list_word_parts,
    read_local_sentences,
    read_wordings,
)

LANGUAGES = ("de", "fr", "es", "zh")
LENGTHS = {"max_words": (40, 50, 60, 80), "min_words": (30, 40, 50), "max_sentence_words": (25, 30, 40)} | {
    "long_max_words": (120, 160, 200), "long_min_words": (120, 160, 200)
}  # fmt: skip
"""Characters of a Chinese text, in the place of words."""
RANGES = {"words_between": (30, (20, 30, 40)), "long_words_between": (80, (100, 140, 180))}
"""The width of a range of characters, and its lower ends."""
QUESTION = re.compile(r"\w\W{0,3}[?？]")
CLOSING = "»”’\"'*_)]」』 \u00a0\u202f\n"
QUOTED = re.compile(r"„[^“”]*[“”]|“[^”]*”|«[^»]*»|»[^«]*«|「[^」]*」|\"[^\"]*\"")
LONGEST_BOLD = 6
"""Characters of a Chinese word in bold."""


def _check_length(text: str, p: ConstraintParams, language: str) -> str | None:
    least, most = count_units(text, language)
    low, high = p.get("low", 0), p.get("high", p.get("n"))
    n = least if least < low else most
    return None if low <= least and most <= high else f"it has {n} {_unit(language)}, not {low or 'at most'} to {high}"


def _check_min_length(text: str, p: ConstraintParams, language: str) -> str | None:
    n = count_units(text, language)[0]
    return None if n >= p["n"] else f"it has {n} {_unit(language)}, at least {p['n']} are needed"


def _unit(language: str) -> str:
    return "characters" if language == "zh" else "words"


def _check_sentences(text: str, p: ConstraintParams, language: str) -> str | None:
    pieces, doubtful = read_local_sentences(text, language)
    ended = is_ended(text)
    n = f"{len(pieces)}{f' to {len(pieces) + doubtful}' if doubtful else ''}"
    met = n == str(p["n"]) and ended
    return None if met else f"it has {n} sentences{'' if ended else ', the last unended'}, not {p['n']}"


def _check_sentence_length(text: str, p: ConstraintParams, language: str) -> str | None:
    longest = max((count_units(piece, language)[1] for piece in read_local_sentences(text, language).pieces), default=0)
    return None if 0 < longest <= p["n"] else f"its longest sentence has {longest} {_unit(language)}, over {p['n']}"


def _check_include(text: str, p: ConstraintParams, language: str) -> str | None:
    missing = [word for word in p["words"] if not count_word(word, text, language)]
    return f"it lacks {', '.join(map(repr, missing))}" if missing else None


def _check_mentions(text: str, p: ConstraintParams, language: str) -> str | None:
    n = count_word(p["word"], text, language)
    return None if n >= p["n"] else f"it uses {p['word']!r} {n} times, at least {p['n']} are needed"


def _check_avoid(text: str, p: ConstraintParams, language: str) -> str | None:
    found = any(count_word(p["word"], shown, language, plain=True) for shown in (text, re.sub(r"[*`~]", "", text)))
    return f"it uses the forbidden word {p['word']!r}" if found else None


def _check_order(text: str, p: ConstraintParams, language: str) -> str | None:
    places = [find_word(word, text, language, 0) for word in p["words"]]
    missing = [word for word, place in zip(p["words"], places, strict=True) if place < 0]
    if missing:
        return f"it lacks {', '.join(map(repr, missing))}"
    return None if places == sorted(places) else f"it does not first mention {', '.join(p['words'])} in this order"


def _check_number(text: str, _p: ConstraintParams, _language: str) -> str | None:
    return None if re.search(r"\d", text) else "it has no number in digits"


def _check_start(text: str, p: ConstraintParams, language: str) -> str | None:
    bare = text.lstrip("\"'“„«»「『*_#¿¡- \n").replace("’", "'").casefold()
    word = p["word"].replace("’", "'").casefold()
    met = bare.startswith(word) and (language == "zh" or not re.match(r"[^\W_]", bare[len(word) :]))
    return None if met else f"it starts with {bare[:12]!r}, not {p['word']!r}"


def _check_end(text: str, p: ConstraintParams, _language: str) -> str | None:
    bare = text.rstrip().rstrip(CLOSING).replace("’", "'")
    ending = p["ending"].replace("’", "'")
    before = bare.removesuffix(ending).rstrip(" \t")
    met = bare.endswith(ending) and (not before or before[-1] in "\n.!?:;…\"'“”’)*_—–-。！？：；」』»«")
    return None if met else f"it does not end with {p['ending']!r} by itself"


def _check_end_question(text: str, _p: ConstraintParams, language: str) -> str | None:
    bare = text.rstrip(CLOSING)
    met = bare.endswith(("?", "？")) and bool(QUESTION.search(bare[-5:])) and _is_opened(bare, "¿", language)
    return None if met else "it does not end with a question and its marks"


def _check_ask_question(text: str, _p: ConstraintParams, language: str) -> str | None:
    bare = WEB_ADDRESS.sub("", text)
    found = [match.end() for match in QUESTION.finditer(bare)]
    return None if any(_is_opened(bare[:end], "¿", language) for end in found) else "it asks no question"


def _check_end_exclamation(text: str, _p: ConstraintParams, language: str) -> str | None:
    bare = text.rstrip(CLOSING)
    met = bare.endswith(("!", "！")) and _is_opened(bare, "¡", language)
    return None if met else "it does not end with an exclamation and its marks"


def _is_opened(text: str, mark: str, language: str) -> bool:
    """Whether Spanish text that ends with a question or an exclamation has its opening mark in the last sentence."""
    closed = {"¿": "?", "¡": "!"}[mark]
    return language != "es" or text.rfind(mark) > text.rfind(closed, 0, len(text) - 1)


def _check_no_commas(text: str, _p: ConstraintParams, _language: str) -> str | None:
    n = sum(map(text.count, ",，﹐"))
    return f"it has {n} commas" if n else None


def _check_numbered(text: str, p: ConstraintParams, _language: str) -> str | None:
    items = [re.match(r"\s*(\d+)([.)、．）])\s*\S", line) for line in nonempty_lines(text)]
    met = [item and item[1] for item in items] == [str(i) for i in range(1, p["n"] + 1)]
    one = len({item[2] for item in items if item}) == 1
    return None if met and one else f"its lines are not numbered 1 to {p['n']} and nothing else"


def _check_in_quotes(text: str, _p: ConstraintParams, language: str) -> str | None:
    bare = text.strip()
    for opened, closed in read_wordings(language)["quotes"]:
        inner = bare[1:-1]
        if bare[:1] != opened or bare[-1:] != closed or len(bare) < 3:
            continue
        depth = least = 0
        for mark in inner if opened != closed else ():
            depth += (mark == opened) - (mark == closed)
            least = min(least, depth)
        if depth == least == 0 and (opened != closed or opened not in inner):
            return None
    return "it is not in one pair of quotation marks"


def _check_bold(text: str, p: ConstraintParams, _language: str) -> str | None:
    fault = CONSTRAINT_KINDS["bold_word"].check(text, p)
    long = any(len(CHINESE_UNIT.findall(bold)) > LONGEST_BOLD for bold in re.findall(r"\*\*([^*]+)\*\*", text))
    return fault or ("what is in **bold** is longer than a word" if long else None)


def _check_letter(text: str, p: ConstraintParams, _language: str) -> str | None:
    if p["letter"].isascii():
        return CONSTRAINT_KINDS["avoid_letter"].check(text, p)
    met = p["letter"] in unicodedata.normalize("NFC", remove_invisible(text)).casefold()  # ñ is no n with an accent
    return f"it has the forbidden letter {p['letter']!r}" if met else None


def _check_you(text: str, _p: ConstraintParams, language: str) -> str | None:
    return _find_person(text, "you", language)


def _check_i(text: str, _p: ConstraintParams, language: str) -> str | None:
    return _find_person(text, "i", language)


def _find_person(text: str, name: str, language: str) -> str | None:
    """The fault of a text that has none of the words of a person outside quotations."""
    words = read_wordings(language)[name].split()
    own = QUOTED.sub(" ", text.strip()[1:-1] if _check_in_quotes(text, {}, language) is None else text)
    met = (
        any(word in own for word in words)
        if language == "zh"
        else bool({*words} & {*list_word_parts(own, plain=False)})
    )
    return None if met else f"it has none of these words: {', '.join(words)}"


CHECKS: Mapping[str, Callable[[str, ConstraintParams, str], str | None]] = {
    "max_words": _check_length, "long_max_words": _check_length, "words_between": _check_length,
    "long_words_between": _check_length, "min_words": _check_min_length, "long_min_words": _check_min_length,
    "exact_sentences": _check_sentences, "max_sentence_words": _check_sentence_length,
    "include_words": _check_include, "include_two_words": _check_include, "mention_times": _check_mentions,
    "avoid_word": _check_avoid, "words_in_order": _check_order, "include_number": _check_number,
    "start_with": _check_start, "end_with": _check_end, "end_question": _check_end_question,
    "ask_question": _check_ask_question, "end_exclamation": _check_end_exclamation, "no_commas": _check_no_commas,
    "numbered": _check_numbered, "in_quotes": _check_in_quotes, "bold_word": _check_bold,
    "second_person": _check_you, "first_person": _check_i, "avoid_letter": _check_letter,
}  # fmt: skip
"""By kind; other kinds of a language are checked as in English."""
OWN_VALUES = {"start_with": ("word", "start_words"), "end_with": ("ending", "endings"), "avoid_letter": ("letter", "letters")} | {
    "json_keys": ("keys", "keys"), "section_titles": ("titles", "section_titles")
}  # fmt: skip
"""Kinds whose parameter is one of a list of the language."""


@cache
def list_kinds(language: str) -> Mapping[str, ConstraintKind]:
    """The kinds of rules of a language by name: those that it has a wording for."""
    return {name: _make_kind(name, language) for name in read_wordings(language)["phrases"]}


def _make_kind(name: str, language: str) -> ConstraintKind:
    kind, draw = CONSTRAINT_KINDS[name], CONSTRAINT_KINDS[name].draw
    if name in OWN_VALUES:
        key, values = OWN_VALUES[name]
        draw = lambda rng, _topic: {key: rng.choice(read_wordings(language)[values])}  # noqa: E731
    elif language == "zh" and name in LENGTHS:
        draw = lambda rng, _topic: {"n": rng.choice(LENGTHS[name])}  # noqa: E731
    elif language == "zh" and name in RANGES:
        width, lows = RANGES[name]
        draw = lambda rng, _topic: (lambda low: {"low": low, "high": low + width})(rng.choice(lows))  # noqa: E731
    own = CHECKS.get(name)
    check = (lambda text, p: own(text, p, language)) if own else kind.check
    return replace(kind, draw=draw, check=check)


class LocalRule(TextConstraint):
    """A rule on a text in `language`."""

    language: str

    def fault(self, answer: str) -> str | None:
        """How `answer` breaks this rule, in words; None if it meets it. An empty answer meets none."""
        kind = list_kinds(self.language)[self.kind]
        return kind.check(answer, self.params) if answer.strip() else "it is empty"


def draw_rules(
    rng: Random, topic: ConstraintTopic, weights: Mapping[str, int], count: int, language: str
) -> list[LocalRule]:
    """Up to `count` rules of different groups, drawn by weight, that one text can meet together."""
    kinds, chosen = list_kinds(language), list[LocalRule]()
    left = {name: weight for name, weight in weights.items() if weight > 0 and kinds[name].words <= len(topic.words)}
    while left and len(chosen) < count:
        name = rng.choices(list(left), list(left.values()))[0]
        for _ in range(MAX_DRAWS):
            rule = state_rule(rng, name, kinds[name].draw(rng, topic), language)
            if not _forbids(rule, topic.name) and not any(_exclude_each_other(rule, other) for other in chosen):
                chosen.append(rule)
                left = {other: w for other, w in left.items() if kinds[other].group != kinds[name].group}
                break
        else:
            del left[name]
    return chosen


def _exclude_each_other(left: LocalRule, right: LocalRule) -> bool:
    """Whether no text, or hardly any, can meet both: also one sentence that is a given one."""
    single = {"exact_sentences", "end_with"} == {left.kind, right.kind} and 1 in (
        left.params.get("n"),
        right.params.get("n"),
    )
    return single or are_contradictory(left, right)


def _forbids(rule: LocalRule, name: str) -> bool:
    """Whether a rule forbids a word or letter of the topic's name."""
    barred = rule.params.get({"avoid_word": "word", "avoid_letter": "letter"}.get(rule.kind, ""))
    return barred is not None and barred.casefold() in name.casefold()


def state_rule(rng: Random, kind: str, params: dict[str, Any], language: str) -> LocalRule:
    """A rule in one of the sentences that state its kind."""
    wordings = read_wordings(language)
    listed: Sequence[str] = next((value for value in params.values() if isinstance(value, list)), [])
    marked = [wordings["marks"].format(word) for word in listed]
    separator = "、" if language == "zh" else ", "
    n = params.get("n", 0)
    values = {
        **params,
        "quoted": wordings["joined"].join(filter(None, [separator.join(marked[:-1]), *marked[-1:]])),
        "n_sentences": wordings["sentences"][n - 1] if 1 <= n <= len(wordings["sentences"]) else n,
    }
    text = rng.choice(wordings["phrases"][kind]).format(**values)
    return LocalRule(kind=kind, params=params, text=text, language=language)
