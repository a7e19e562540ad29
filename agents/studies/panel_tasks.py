"""Tasks of the general panel: requests for a text of some form that code can check, and questions with one short answer.

Each names the kinds of constraint and of question that would train it. Knows no teacher, recipe or model.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from agents.checks import Options, Subject, check
from agents.checks.text.prose_faults import find_topic_fault
from agents.checks.text.text_units import (
    fold_to_plain_letters,
    min_word_count,
    nonempty_lines,
    read_sentences,
    remove_invisible,
    split_words,
)
from agents.families.base import RecipeFamily
from agents.families.constraints import CONSTRAINT_KINDS, ConstraintTopic
from agents.reply_schema import ReplySchema
from core.sample import Candidate, Message, Seed

CONSTRAINTS, REASONING, OPEN = "constraints", "reasoning", "open"
"""The groups of a panel's tasks; answers to open questions are not judged."""


@dataclass(frozen=True)
class FormKind:
    """A request for a text of some form on a topic, and the program that checks it."""

    wordings: tuple[str, ...]
    """With `{topic}`, and the parameters by name."""
    check: Callable[[str, Mapping[str, Any]], str | None]
    """The fault in words, or None."""
    draw: Callable[[Random, ConstraintTopic], dict[str, Any]] = lambda _rng, _topic: {}
    trained_by: frozenset[str] = frozenset()
    """Kinds of constraint in recipes that train this form. Empty: no recipe can."""
    tokens: int = 56
    """Where an answer is cut off: as many as most answers that pass need, measured on the embedded model."""


def _constraint(name: str, *wordings: str, also: str = "", tokens: int = 56, **params: Any) -> FormKind:
    """A kind of constraint in wordings that no recipe uses."""
    kind = CONSTRAINT_KINDS[name]
    return FormKind(
        wordings,
        kind.check,
        lambda rng, topic: {**kind.draw(rng, topic), **params},
        frozenset({name, *also.split()}),
        tokens,
    )


def _draw_two(rng: Random, topic: ConstraintTopic) -> dict[str, Any]:
    first, second = rng.sample(topic.words, 2)
    return {"words": [first, second], "first": first, "second": second}


def _draw_speakers(rng: Random, _topic: ConstraintTopic) -> dict[str, Any]:
    first, second = rng.choice((("Anna", "Ben"), ("Maria", "Tom"), ("Sam", "Lucy")))
    return {"names": [first, second], "a": first, "b": second}


def _check_sentences(text: str, p: Mapping[str, Any]) -> str | None:
    count = len(read_sentences(text).pieces)
    return None if count >= p["n"] else f"it has {count} sentences, at least {p['n']} are needed"


def _check_items(text: str, p: Mapping[str, Any]) -> str | None:
    count = sum(bool(re.match(r"\s*(?:[-*•]|\d+[.):])\s*\S", line)) for line in text.splitlines())
    return None if count >= p["n"] else f"its list has {count} items, at least {p['n']} are needed"


def _check_paragraphs(text: str, p: Mapping[str, Any]) -> str | None:
    count = sum(min_word_count(part) >= 8 for part in re.split(r"\n\s*\n", text.strip()))
    return None if count >= p["n"] else f"it has {count} paragraphs, at least {p['n']} are needed"


def _check_letter(text: str, _p: Mapping[str, Any]) -> str | None:
    return None if re.match(r"\W*(?:dear|hi|hello)\b", text, re.IGNORECASE) else "it does not begin with a greeting"


def _check_email(text: str, _p: Mapping[str, Any]) -> str | None:
    return None if re.search(r"^\W*subject\W", text, re.IGNORECASE | re.MULTILINE) else "it has no subject line"


def _check_poem(text: str, _p: Mapping[str, Any]) -> str | None:
    lines = [line for line in nonempty_lines(text) if len(split_words(line)) > 1]
    short = sum(len(split_words(line)) <= 12 for line in lines)
    return (
        None
        if short >= 4 and short >= 0.8 * len(lines)
        else f"{short} of its {len(lines)} lines are short, as of a poem"
    )


def _check_dialogue(text: str, p: Mapping[str, Any]) -> str | None:
    missing = [name for name in p["names"] if not re.search(rf"^\W*{name}\W*:", text, re.MULTILINE)]
    return f"no line of {' or '.join(missing)}" if missing else None


def _check_compare(text: str, p: Mapping[str, Any]) -> str | None:
    return find_topic_fault(text, p["other"]) or _check_sentences(text, {"n": 2})


def _check_opening(text: str, p: Mapping[str, Any]) -> str | None:
    begins = fold_to_plain_letters(text).lstrip("\"'“‘*# ").startswith(p["opening"].casefold())
    return None if begins else f"it does not begin with {p['opening']!r}"


def _check_steps(text: str, _p: Mapping[str, Any]) -> str | None:
    missing = [number for number in (1, 2) if not re.search(rf"\bstep {number}\b", text, re.IGNORECASE)]
    return f"it has no Step {missing[0]}" if missing else None


def _check_speech(text: str, _p: Mapping[str, Any]) -> str | None:
    spoken = re.findall(r'"([^"]+)"|“([^”]+)”', text)
    return None if any(len(split_words("".join(part))) > 2 for part in spoken) else "nobody speaks in quotation marks"


FORM_KINDS: dict[str, FormKind] = {
    "long_text": _constraint(
        "min_words", "Write a long text about {topic}, of more than {n} words.",
        "Write an essay about {topic}. It has to be longer than {n} words.", also="words_between", n=50, tokens=96,
    ),
    "two_paragraphs": _constraint(
        "exact_paragraphs", "I need two paragraphs on {topic}, separated by a blank line.",
        "Say something about {topic} in two paragraphs with a blank line between them.", n=2, tokens=96,
    ),
    "two_words": FormKind(
        ('What can you tell me about {topic}? Bring in "{first}" and "{second}".',
         'Make up a few sentences on {topic} in which "{first}" and "{second}" occur.'),
        CONSTRAINT_KINDS["include_two_words"].check, _draw_two,
        frozenset({"include_words", "include_two_words", "mention_times"}),
    ),
    "repeated_word": _constraint(
        "mention_times", 'I want a text on {topic} in which "{word}" comes up two times or more.',
        'Talk about {topic}, and say "{word}" more than once.', also="include_words include_two_words",
    ),
    "figure": _constraint(
        "include_number", "Give me facts about {topic}, with a figure such as a year or an amount.",
        "What are some facts and figures about {topic}? Write numbers in digits.", tokens=72,
    ),
    "three_tips": _constraint(
        "numbered", "Three short tips about {topic}, numbered 1. 2. 3., with nothing before or after them.",
        "Count up three things about {topic} as 1. 2. 3., and add nothing else.", n=3,
    ),
    "advice": _constraint(
        "second_person", "Advise me on {topic}: what should I do, and what not?",
        'What would you tell me about {topic} as my teacher? Call me "you".',
    ),
    "memory": _constraint(
        "first_person", "Speak as somebody who remembers {topic} from childhood, and say I.",
        "Pretend to be a person who knows {topic} well, and tell me your memories of them.",
    ),
    "list": FormKind(
        ("Make a list of {n} or more facts about {topic}, one on each line.",
         "List {n} words or more that have to do with {topic}, one a line."),
        _check_items, lambda rng, _topic: {"n": rng.choice((3, 4))}, frozenset({"bullets", "numbered"}), 96,
    ),
    "paragraphs": FormKind(
        ("Write a report on {topic} that has several paragraphs, with blank lines between them.",
         "Discuss {topic} from two sides, in a paragraph of its own for each side."),
        _check_paragraphs, lambda _rng, _topic: {"n": 2}, frozenset({"exact_paragraphs"}), 96,
    ),
    "letter": FormKind(
        ("Write a letter to a friend about {topic}, with a greeting.",
         "Compose a letter to the mayor on the subject of {topic}."), _check_letter,
    ),
    "email": FormKind(
        ("Write an e-mail to a colleague about {topic}, with a subject line.",
         "Draft an e-mail on {topic}. Begin with the line of the subject."),
        _check_email,
    ),
    "poem": FormKind(
        ("Write a poem of four lines or more on {topic}.", "Compose a song with short lines on {topic}."), _check_poem,
    ),
    "dialogue": FormKind(
        ('Write a dialogue on {topic} between {a} and {b}. Each line begins with a name, as in "{a}:".',),
        _check_dialogue, _draw_speakers,
    ),
    "compare": FormKind(
        ("What do {topic} and {other} have in common, and how do they differ?", "Compare {topic} with {other}."),
        _check_compare,
    ),
    "fairy_tale": FormKind(
        ('Tell a fairy tale about {topic} that starts with "{opening}".',
         'Write a bedtime tale about {topic}. Start with "{opening}".'),
        _check_opening, lambda _rng, _topic: {"opening": "Once upon a time"}, frozenset({"start_with"}),
    ),
    "steps": FormKind(
        ('Teach me about {topic} in three steps, called "Step 1", "Step 2" and "Step 3".',
         'Plan a lesson on {topic} with "Step 1", "Step 2", "Step 3".'),
        _check_steps, tokens=64,
    ),
    "speech": FormKind(
        ("Tell a short story about {topic} in which somebody says something in quotation marks.",
         "Report on {topic} and quote, in quotation marks, what a visitor said."), _check_speech,
    ),
}  # fmt: skip


# Answers

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?")
NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        """two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty""".split(), 2
    )
}  # fmt: skip
"""Without `one`, which most often is no number."""


def find_short_answer_fault(reply: str, question: str, answers: Sequence[str], options: Iterable[str]) -> str | None:
    """The fault of a reply to a question with one known answer; None if the first of the possible answers in it is right.

    Possible answers are `options`, or all numbers if the answer is one; if the right one is not in the question, only those that
    are not in it either. So a reply that lists everything is right as often as a guess.
    """
    if NUMBER.fullmatch(answers[0]):
        mentions = _list_numbers(reply, question, answers[0])
    else:
        possible = {fold_to_plain_letters(option) for option in (*options, *answers)}
        asked, right = fold_to_plain_letters(question), {fold_to_plain_letters(answer) for answer in answers}
        if not any(_find_words(answer, asked) for answer in right):
            possible = {option for option in possible if not _find_words(option, asked)}
        text = fold_to_plain_letters(reply)
        places = [
            (match.start(), -len(option), option) for option in possible for match in _find_words(option, text)[:1]
        ]
        mentions = [option for _, _, option in sorted(places)]
        answers = tuple(right)
    if not mentions:
        return "it gives no answer"
    return None if mentions[0] in answers else f"it answers {mentions[0]!r}, not {answers[0]!r}"


def _find_words(words: str, text: str) -> list[re.Match[str]]:
    return list(re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text))


def _list_numbers(reply: str, question: str, answer: str) -> list[str]:
    """The numbers of a reply in order, those of the question left out; where its first line has `=`, those behind that."""
    text = re.sub(
        r"[^\W\d_]+", lambda word: NUMBER_WORDS.get(word.group().lower(), word.group()), remove_invisible(reply)
    )
    line = next(iter(nonempty_lines(text)), "")
    tail = line.rpartition("=")[2]
    numbers = [match.group().replace(",", "") for match in NUMBER.finditer(tail if NUMBER.search(tail) else text)]
    numbers = [number.removesuffix(".0") for number in numbers]
    asked = {match.group() for match in NUMBER.finditer(question)}
    return [number for number in numbers if answer in asked or number not in asked]


# One family for all tasks


class PanelAnswer(ReplySchema):
    answer: str


@check("general_panel")
def panel_check(subject: Subject, _options: Options) -> str | None:
    """The answer must have the form that is asked for and a word of its topic, or be the known answer."""
    data, answer = subject.seed.data, subject.candidate.answer
    if data["group"] == REASONING:
        return find_short_answer_fault(answer, data["question"], data["answers"], data["options"])
    if data["group"] == CONSTRAINTS:
        shown = remove_invisible(answer)
        return FORM_KINDS[data["kind"]].check(shown, data["params"]) or find_topic_fault(shown, data["topic"])
    return None


class PanelFamily(RecipeFamily):
    """Serves the panel only; no recipe can name it."""

    name: ClassVar[str] = "general_panel"
    checks = (panel_check,)

    def condition(self, row: Mapping[str, Any], options: Any, rng: Random) -> dict[str, Any]:
        return dict(row)

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return PanelAnswer

    def questions(self, seed: Seed) -> Sequence[Message]:
        return [Message(role="user", content=seed.data["question"])]

    def build_answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        return self.candidate(seed, PanelAnswer(answer=answers[0]))

    def candidate(self, seed: Seed, draft: PanelAnswer) -> Candidate:
        messages = [*self.questions(seed), Message(role="assistant", content=draft.answer)]
        return Candidate(messages=messages, fields={})
