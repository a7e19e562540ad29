"""Constraints on a text that code can check: what each asks for, how it is drawn, how it is checked.

Knows nothing of teachers, prompts or samples. After the idea of IFEval (Zhou et al., arXiv 2311.07911):
an instruction whose every demand has a program that decides it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict

Params = Mapping[str, Any]

WORD = re.compile(r"\w+(?:['’-]\w+)*")
SENTENCE_END = re.compile(r"[.!?]+[\"'”’)]*(?=\s|$)")
BULLET = re.compile(r"^[-*•] +\S")
NUMBERED = re.compile(r"^(\d+)[.)] +\S")
THANKS = {"Spanish": "gracias", "French": "merci", "German": "danke", "Italian": "grazie", "Portuguese": "obrigado"}


def words_of(text: str) -> list[str]:
    """The words of `text`, as written: runs of letters and digits, inner apostrophes and hyphens kept."""
    return WORD.findall(text)


def sentences_of(text: str) -> list[str]:
    """The sentences of `text`: pieces that end with `.`, `!` or `?` before white space, and an unended last piece."""
    pieces, start = [], 0
    for end in SENTENCE_END.finditer(text):
        pieces.append(text[start : end.end()].strip())
        start = end.end()
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if WORD.search(piece)]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _times(word: str, text: str) -> int:
    """How often `word` occurs as a whole word or as its plain plural, in any case."""
    forms = {word.lower(), f"{word.lower()}s", f"{word.lower()}es"}
    return sum(found.lower() in forms for found in words_of(text))


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


def _nothing(_rng: Random, _topic: Topic) -> dict[str, Any]:
    return {}


def _number(name: str, *choices: int) -> Callable[[Random, Topic], dict[str, Any]]:
    return lambda rng, _topic: {name: rng.choice(choices)}


def _one_word(rng: Random, topic: Topic) -> dict[str, Any]:
    return {"word": rng.choice(topic.words)}


def _max_words(text: str, p: Params) -> str | None:
    n = len(words_of(text))
    return _unless(n <= p["n"], f"it has {n} words, at most {p['n']} are allowed")


def _min_words(text: str, p: Params) -> str | None:
    n = len(words_of(text))
    return _unless(n >= p["n"], f"it has {n} words, at least {p['n']} are needed")


def _words_between(text: str, p: Params) -> str | None:
    n = len(words_of(text))
    return _unless(p["low"] <= n <= p["high"], f"it has {n} words, not {p['low']} to {p['high']}")


def _exact_sentences(text: str, p: Params) -> str | None:
    n = len(sentences_of(text))
    ended = bool(re.search(r"[.!?][\"'”’)]*$", text.strip()))
    return _unless(n == p["n"] and ended, f"it has {n} sentences{'' if ended else ', the last unended'}, not {p['n']}")


def _max_sentence_words(text: str, p: Params) -> str | None:
    longest = max((len(words_of(s)) for s in sentences_of(text)), default=0)
    return _unless(0 < longest <= p["n"], f"its longest sentence has {longest} words, at most {p['n']} are allowed")


def _exact_paragraphs(text: str, p: Params) -> str | None:
    n = len([part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()])
    return _unless(n == p["n"], f"it has {n} paragraphs, not {p['n']}")


def _include_words(text: str, p: Params) -> str | None:
    missing = [word for word in p["words"] if not _times(word, text)]
    return _unless(not missing, f"it lacks {', '.join(map(repr, missing))}")


def _mention_times(text: str, p: Params) -> str | None:
    n = _times(p["word"], text)
    return _unless(n >= p["n"], f"it uses {p['word']!r} {n} times, at least {p['n']} are needed")


def _avoid_word(text: str, p: Params) -> str | None:
    return _unless(not _times(p["word"], text), f"it uses the forbidden word {p['word']!r}")


def _avoid_letter(text: str, p: Params) -> str | None:
    return _unless(p["letter"] not in text.lower(), f"it has the forbidden letter {p['letter']!r}")


def _include_number(text: str, _p: Params) -> str | None:
    return _unless(bool(re.search(r"\d", text)), "it has no number in digits")


def _no_digits(text: str, _p: Params) -> str | None:
    return _unless(not re.search(r"\d", text), "it has digits")


def _start_with(text: str, p: Params) -> str | None:
    first = next(iter(words_of(text)), "")
    return _unless(first.lower() == p["word"].lower(), f"it starts with {first!r}, not {p['word']!r}")


def _end_with(text: str, p: Params) -> str | None:
    met = text.rstrip().rstrip("\"'”’").endswith(p["ending"])
    return _unless(met, f"it does not end with {p['ending']!r}")


def _end_in_language(text: str, p: Params) -> str | None:
    last = (sentences_of(text) or [""])[-1].lower()
    return _unless(THANKS[p["language"]] in last, f"its last sentence does not say thank you in {p['language']}")


def _end_question(text: str, _p: Params) -> str | None:
    return _unless(text.rstrip().rstrip("\"'”’").endswith("?"), "it does not end with a question mark")


def _ask_question(text: str, _p: Params) -> str | None:
    return _unless("?" in text, "it asks no question")


def _end_exclamation(text: str, _p: Params) -> str | None:
    return _unless(text.rstrip().rstrip("\"'”’").endswith("!"), "it does not end with an exclamation mark")


def _without(mark: str, name: str) -> Callable[[str, Params], str | None]:
    return lambda text, _p: _unless(mark not in text, f"it has {text.count(mark)} {name}")


def _lowercase(text: str, _p: Params) -> str | None:
    return _unless(text == text.lower(), "it has capital letters")


def _uppercase(text: str, _p: Params) -> str | None:
    return _unless(text == text.upper(), "it has lower-case letters")


def _bullets(text: str, p: Params) -> str | None:
    lines = _lines(text)
    n = sum(bool(BULLET.match(line)) for line in lines)
    return _unless(n == len(lines) == p["n"], f"it has {n} bullets in {len(lines)} lines, not {p['n']} bullets alone")


def _numbered(text: str, p: Params) -> str | None:
    found = [m.group(1) if (m := NUMBERED.match(line)) else "" for line in _lines(text)]
    wanted = [str(i) for i in range(1, p["n"] + 1)]
    return _unless(found == wanted, f"its lines are not numbered 1 to {p['n']} and nothing else")


def _in_quotes(text: str, _p: Params) -> str | None:
    bare = text.strip()
    return _unless(len(bare) > 2 and bare[0] in '"“' and bare[-1] in '"”', "it is not in double quotation marks")


def _json_keys(text: str, p: Params) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return "it is not JSON"
    keys = list(value) if isinstance(value, dict) else None
    return _unless(keys is not None and sorted(keys) == sorted(p["keys"]), f"its keys are {keys}, not {p['keys']}")


def _bold_word(text: str, _p: Params) -> str | None:
    return _unless(bool(re.search(r"\*\*[^*\s][^*]*\*\*", text)), "nothing is in **bold**")


def _heading(text: str, _p: Params) -> str | None:
    lines = _lines(text)
    met = len(lines) > 1 and re.match(r"# \S", lines[0]) is not None
    return _unless(met, "it does not begin with a `# ` heading over a text")


def _postscript(text: str, _p: Params) -> str | None:
    lines = _lines(text)
    met = len(lines) > 1 and re.match(r"P\.?S\.?:? ?\S", lines[-1]) is not None
    return _unless(met, "its last line is not a postscript that starts with `P.S.`")


def _second_person(text: str, _p: Params) -> str | None:
    met = any(word.lower() in {"you", "your", "you're", "yours"} for word in words_of(text))
    return _unless(met, "it does not speak to the reader as `you`")


def _first_person(text: str, _p: Params) -> str | None:
    met = any(word in {"I", "I'm", "I've", "I'll", "I'd", "My", "my", "me"} for word in words_of(text))
    return _unless(met, "it does not speak as `I`")


KINDS: dict[str, Kind] = {
    "max_words": Kind(
        "length",
        ("Use at most {n} words.", "Keep it under {n_more} words.", "Use no more than {n} words."),
        _number("n", 15, 20, 25, 30),
        _max_words,
    ),
    "min_words": Kind(
        "length", ("Use at least {n} words.", "Write {n} words or more."), _number("n", 20, 25, 30), _min_words
    ),
    "words_between": Kind(
        "length",
        ("Use between {low} and {high} words.", "Write {low} to {high} words."),
        lambda rng, _t: (lambda low: {"low": low, "high": low + 20})(rng.choice((10, 15, 20))),
        _words_between,
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
    "no_commas": Kind("commas", ("Do not use any commas.", "Write without commas."), _nothing, _without(",", "commas")),
    "no_exclamation": Kind("end", ("Do not use exclamation marks.",), _nothing, _without("!", "exclamation marks")),
    "lowercase": Kind(
        "form", ("Write everything in lower case.", "Use only lower-case letters."), _nothing, _lowercase
    ),
    "uppercase": Kind("form", ("Write everything in CAPITAL letters.",), _nothing, _uppercase),
    "bullets": Kind(
        "form", ('Answer with exactly {n} bullet points that start with "- ".',), _number("n", 2, 3, 4), _bullets
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
    ),
    "bold_word": Kind("form", ("Put the most important word in **bold**.",), _nothing, _bold_word),
    "heading": Kind("form", ("Begin with a Markdown heading.",), _nothing, _heading),
    "postscript": Kind(
        "form", ("Add a postscript that starts with P.S. on a line of its own.",), _nothing, _postscript
    ),
    "second_person": Kind("person", ("Speak to the reader as you.", 'Use the word "you".'), _nothing, _second_person),
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
        return KINDS[self.kind].check(answer, self.params) if answer.strip() else "it is empty"


def _stated(phrase: str, params: Params) -> str:
    n = params.get("n", 0)
    quoted = " and ".join(f'"{word}"' for word in params.get("words", params.get("keys", ())))
    n_sentences = (
        f"{('one', 'two', 'three')[n - 1]} sentence{'s' if n > 1 else ''}" if 1 <= n <= 3 else f"{n} sentences"
    )
    return phrase.format(**{**params, "n_more": n + 1, "quoted": quoted, "n_sentences": n_sentences})


def draw_constraints(
    rng: Random, topic: Topic, weights: Mapping[str, int], count: int, beside: Sequence[Constraint] = ()
) -> list[Constraint]:
    """Up to `count` constraints of different groups, drawn by weight, that can all be met at once with those `beside`."""
    chosen: list[Constraint] = []
    taken = {KINDS[constraint.kind].group for constraint in beside}
    left = {name: weight for name, weight in weights.items() if weight > 0 and KINDS[name].group not in taken}
    while left and len(chosen) < count:
        name = rng.choices(list(left), list(left.values()))[0]
        kind = KINDS[name]
        params = kind.draw(rng, topic)
        chosen.append(Constraint(kind=name, params=params, text=_stated(rng.choice(kind.phrases), params)))
        left = {other: weight for other, weight in left.items() if KINDS[other].group != kind.group}
    return chosen
