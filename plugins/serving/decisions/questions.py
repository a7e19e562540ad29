"""Typed questions about a text: yes or no, one of several labels, several of them, a score, a short span.

Knows no teacher and no student; a recipe's `[task]`, a decision student and its server share them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from core.config.base import RecipeTable

QuestionType = Literal["yes_no", "one_of", "several_of", "score", "span"]
Answer = bool | int | str | list[str]
"""In JSON: true or false; the score; the label or the words; the list of labels."""
YES, NO = "yes", "no"
NONE_OF_THESE = "none of these"
"""A label of `one_of` for texts that no other label fits."""
MAX_SPAN_CHARACTERS = 200
PROMPTS = Path(__file__).parents[1] / "prompts" / "decisions"
REPLY_TOKENS = 400
"""Of a reply with the answers to all questions."""


class DecisionQuestion(RecipeTable):
    """One question about a text."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Of its answer."""
    ask: str = Field(min_length=1)
    """As the teacher reads it."""
    type: QuestionType = "one_of"
    labels: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """At least two, of `one_of` and `several_of`. `"none of these"`: no other label fits."""
    meanings: dict[str, str] = Field({})
    """Of labels whose name does not say it."""
    low: int = Field(1, ge=-100)
    high: int = Field(5, le=100)

    @model_validator(mode="after")
    def _check_answers(self) -> Self:
        labeled = self.type in ("one_of", "several_of")
        if labeled and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            raise ValueError(f'{self.name}: type = "{self.type}" needs two or more different labels')
        if not labeled and self.labels:
            raise ValueError(f'{self.name}: type = "{self.type}" has no labels; leave them out')
        if unknown := sorted(set(self.meanings) - {*self.labels, *((YES, NO) if self.type == "yes_no" else ())}):
            raise ValueError(f"{self.name}: meanings of {unknown[0]!r}, which is no label of it")
        if self.type == "score" and self.low >= self.high:
            raise ValueError(f"{self.name}: low = {self.low} must be under high = {self.high}")
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        """The possible answers as text, in the order of probabilities; of `several_of`, its labels; of a span, none."""
        scores = map(str, range(self.low, self.high + 1)) if self.type == "score" else ()
        return (NO, YES) if self.type == "yes_no" else self.labels or tuple(scores)

    @property
    def has_single_class(self) -> bool:
        """Whether each answer is one of `classes`."""
        return self.type in ("yes_no", "one_of", "score")

    @property
    def json_schema(self) -> dict[str, Any]:
        """Of its answer."""
        if self.type == "yes_no":
            return {"type": "boolean"}
        if self.type == "score":
            return {"type": "integer", "minimum": self.low, "maximum": self.high}
        if self.type == "span":
            return {"type": "string", "maxLength": MAX_SPAN_CHARACTERS}
        label = {"type": "string", "enum": list(self.labels)}
        return label if self.type == "one_of" else {"type": "array", "items": label}

    def parse_answer(self, value: Any) -> Answer:
        """A JSON value as an answer; labels of `several_of` in the order of the question.

        Raises:
            ValueError: with the value and what is allowed.
        """
        fits = {
            "yes_no": isinstance(value, bool),
            "one_of": value in self.labels,
            "several_of": isinstance(value, list) and all(one in self.labels for one in value),
            "score": isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high,
            "span": isinstance(value, str) and len(value) <= MAX_SPAN_CHARACTERS,
        }[self.type]
        if not fits:
            raise ValueError(f"{self.name}: {str(value)[:60]!r} is no answer; allowed is {self.allowed}")
        return [label for label in self.labels if label in value] if self.type == "several_of" else value

    @property
    def allowed(self) -> str:
        """The possible answers in words."""
        labels = ", ".join(self.labels)
        return {
            "yes_no": "true or false",
            "one_of": f"one of {labels}",
            "several_of": f"a list of any of {labels}",
            "score": f"a whole number from {self.low} to {self.high}",
            "span": f"words copied from the text, at most {MAX_SPAN_CHARACTERS} characters",
        }[self.type]

    @property
    def wording(self) -> str:
        """The question with its possible answers, as a line of a prompt."""
        known = {NONE_OF_THESE: "no other label fits"} if NONE_OF_THESE in self.labels else {}
        meanings = "".join(f"; {label}: {meaning}" for label, meaning in {**known, **self.meanings}.items())
        return f"{self.name}: {self.ask} ({self.allowed}{meanings})"

    def is_same_answer(self, left: Answer, right: Answer) -> bool:
        """Whether two answers are equal; the order of labels and the case of spans do not count."""
        if self.type == "span":
            return str(left).casefold().strip() == str(right).casefold().strip()
        return sorted(left) == sorted(right) if isinstance(left, list) and isinstance(right, list) else left == right

    def to_class(self, answer: Answer) -> str:
        """An answer of `yes_no`, `one_of` or `score` as one of `classes`; of the other types, as text that equals for equal
        answers.
        """
        if isinstance(answer, bool):
            return YES if answer else NO
        return json.dumps(answer, ensure_ascii=False) if isinstance(answer, list) else str(answer)

    def from_class(self, name: str) -> Answer:
        """The inverse of `to_class`."""
        if self.type == "yes_no":
            return name == YES
        if self.type == "several_of":
            return list(json.loads(name))
        return int(name) if self.type == "score" else name


_QUESTIONS = TypeAdapter(tuple[DecisionQuestion, ...])


def parse_questions(values: Any) -> tuple[DecisionQuestion, ...]:
    """Questions from plain values (TOML, JSON).

    Raises:
        ValueError: with the first fault, in one line.
    """
    try:
        questions = _QUESTIONS.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}") from None
    check_question_names(questions)
    return questions


def check_question_names(questions: Sequence[DecisionQuestion]) -> None:
    """Raises ValueError if there is no question, or two have one name."""
    names = [question.name for question in questions]
    if not names:
        raise ValueError("needs at least one question")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]}: two questions have this name")


def build_response_format(questions: Sequence[DecisionQuestion]) -> dict[str, Any]:
    """The `response_format` of a chat request for a JSON object with an answer to each question."""
    schema = {
        "type": "object",
        "properties": {question.name: question.json_schema for question in questions},
        "required": [question.name for question in questions],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "DecisionAnswers", "schema": schema, "strict": True}}
