"""A value for a JSON schema, in words that mention the prompt's topic. Knows no protocol and no contract by name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Self

from teachers.fake.script_parts import VERBS, WORDS

TOPIC = re.compile(r"(?:about|Describe|people like) ([\w' -]+?)[.\n]")
RUBRIC = re.compile(r'^"(\w+)":', re.MULTILINE)
SCORES = (2, 4, 4, 5)


@dataclass(frozen=True)
class ValueWriter:
    """Where words come from: the draws of one request, the topic and the rubrics that its prompt names."""

    rng: Random
    topic: str
    rubrics: Sequence[str]

    @classmethod
    def of(cls, rng: Random, messages: Sequence[dict[str, Any]]) -> Self:
        texts = [read_message_text(message) for message in messages]
        asked = [found for text in reversed(texts) for found in reversed(TOPIC.findall(text))]
        rubrics = RUBRIC.findall(texts[0]) if texts else []
        return cls(rng, asked[0] if asked else rng.choice(WORDS), rubrics or ["sense"])

    def text(self) -> str:
        """One to three sentences on the topic."""
        return " ".join(self._sentence() for _ in range(self.rng.randint(1, 3)))

    def _sentence(self) -> str:
        choice = self.rng.choice
        parts = [self.topic, choice(VERBS), "a", choice(WORDS), choice(WORDS)]
        if self.rng.random() < 0.5:
            parts += ["and", "a", choice(WORDS), choice(WORDS), "near", "the", choice(WORDS)]
        return f"{parts[0][:1].upper()}{' '.join(parts)[1:]}."


def read_message_text(message: dict[str, Any]) -> str:
    """What a message says, whether in one piece or in parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def build_value(schema: dict[str, Any] | None, writer: ValueWriter) -> Any:
    """A value that `schema` allows; plain text where there is none."""
    return writer.text() if schema is None else _build_any(schema, schema.get("$defs", {}), writer)


def _build_any(schema: dict[str, Any], defs: dict[str, Any], writer: ValueWriter) -> Any:
    if "$ref" in schema:
        return _build_any(defs[schema["$ref"].rsplit("/", 1)[-1]], defs, writer)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return writer.rng.choice(schema["enum"])
    if options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return _build_any(options[0], defs, writer)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object":
        return _build_object(schema, defs, writer)
    if kind == "array":
        count = max(schema.get("minItems", 0), writer.rng.randint(0, 1))
        return [_build_any(schema.get("items", {}), defs, writer) for _ in range(count)]
    if kind in ("integer", "number"):
        return _build_number(schema, writer.rng)
    return (
        {"boolean": writer.rng.random() < 0.5, "null": None}.get(kind)
        if kind != "string"
        else _build_string(schema, writer)
    )


def _build_object(schema: dict[str, Any], defs: dict[str, Any], writer: ValueWriter) -> dict[str, Any]:
    named = {name: _build_any(part, defs, writer) for name, part in schema.get("properties", {}).items()}
    others = schema.get("additionalProperties")
    if isinstance(others, dict) and not named:
        return {rubric: _build_any(others, defs, writer) for rubric in writer.rubrics}
    return named


def _build_number(schema: dict[str, Any], rng: Random) -> float:
    low, high = schema.get("minimum", 0), schema.get("maximum", schema.get("minimum", 0) + 9)
    if (low, high) == (1, 5):
        return rng.choice(SCORES)
    return rng.randint(low, high) if schema["type"] == "integer" else rng.uniform(low, high)


def _build_string(schema: dict[str, Any], writer: ValueWriter) -> str:
    text = writer.text()
    return text[: schema["maxLength"]] if "maxLength" in schema else text


def stretch_value(value: Any, size: int) -> Any:
    """`value` with its first text, at any depth, repeated up to `size` bytes."""
    if isinstance(value, str):
        return f"{value} " * (size // (len(value) + 1) + 1)
    if isinstance(value, dict):
        long = next((key for key, part in value.items() if isinstance(part, str)), None)
        return {key: stretch_value(part, size) if key == long else part for key, part in value.items()}
    return value
