import asyncio
import json
import math
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from agents.checks import Subject
from agents.checks.json_schema import (
    InvalidSchema,
    close_objects,
    find_schema_fault,
    schema_check,
    validate_schema,
)
from core.sample import Candidate, Message, Seed
from tests.agents.checks.rows import check_each

GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "golden/schema.jsonl").read_text().splitlines()]


def subject_of(data: dict[str, Any], fields: dict[str, Any]) -> Subject:
    async def ask(*_: Any, **__: Any) -> Any:
        raise AssertionError("no teacher is asked")

    said = [Message(role="user", content="q"), Message(role="assistant", content="a")]
    return Subject(Seed(id="s-0", data=data), Candidate(messages=said, fields=fields), ask)


@check_each(GOLDEN)
def test_a_value_fits_its_schema_or_not(case: dict[str, Any]) -> None:
    subject = subject_of({"schema": case["schema"]}, {"values": case["values"]})
    (finding,) = asyncio.run(schema_check.findings(subject, schema_check.options()))
    assert finding.passed == case["passes"], finding.evidence
    assert finding.passed or finding.evidence.startswith("values must follow the schema: ")
    assert len(finding.evidence) < 300


def _nested(levels: int) -> dict[str, Any]:
    part: dict[str, Any] = {}
    for _ in range(levels):
        part = {"properties": {"a": part}}
    return part


DOUBLING = {f"A{i}": {"allOf": [{"$ref": f"#/$defs/A{i + 1}"}] * 2} for i in range(30)} | {"A30": {}}
BAD: list[tuple[Any, str]] = [
    ([], "a JSON schema is an object, not []"),
    (True, "a JSON schema is an object, not True"),
    ({"type": "text"}, "type: 'text' is not valid"),
    ({"properties": {"a": {"minimum": "x"}}}, "properties.a.minimum: 'x' is not of type 'number'"),
    ({"properties": []}, "properties: [] is not of type 'object'"),
    ({"pattern": "("}, "is not a 'regex'"),
    ({"patternProperties": {"[": {}}}, "is not a 'regex'"),
    ({"properties": {"a": {"pattern": "^(?!x)"}}}, "properties.a: '^(?!x)' is not a 'regex' here: look-around"),
    ({"pattern": r"(a)\1"}, "backreferences are not supported"),
    ({"pattern": "(?x)a {1000}"}, "has a group with flags"),
    ({"pattern": "^(((a?){40}){40}){40}$"}, "exceeds size limit"),
    ({"pattern": "([ab]?){20000}$"}, "has 20,001 parts with repetitions written out; 2,000 are allowed"),
    ({"allOf": [{"pattern": f"([ab]?){{{n}}}$"} for n in range(700, 704)]}, "its patterns have 2,810 parts"),
    ({"pattern": "\ud800"}, "is not a 'regex'"),
    ({"$ref": "https://example.org/x.json"}, "nothing is fetched"),
    ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "properties.a: $ref must be #/$defs/NAME"),
    ({"$ref": "#"}, "$ref must be #/$defs/NAME"),
    ({"$ref": "#/properties/a", "properties": {"a": {}}}, "$ref must be #/$defs/NAME"),
    ({"$ref": "#/$defs/B", "$defs": {"A": {}}}, "names 'B', which is not in $defs; there is A"),
    ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, "$defs.A refers to itself"),
    ({"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/B"}]}, "B": {"not": {"$ref": "#/$defs/A"}}}}, "refers to itself"),
    ({"$ref": "#/$defs/A0", "$defs": DOUBLING}, "subschemas look at one value"),
    ({"properties": {"a": {"$id": "x"}}}, "properties.a: $id is not supported"),
    ({"$dynamicRef": "#a"}, "$dynamicRef is not supported"),
    ({"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#"}}}, "$schema is not supported"),
    ({"$schema": "http://json-schema.org/draft-07/schema#"}, "is another dialect"),
    ({"$schema": 3}, "is another dialect"),
    ({"description": "x" * 30_000}, "characters; at most 20,000"),
    ({"default": math.nan}, "the schema is not JSON"),
    ({"default": {1, 2}}, "the schema is not JSON"),
    (_nested(17), "nested deeper than 32"),
    (_nested(100_000), "nested deeper than 32"),
]


@pytest.mark.parametrize(("bad", "problem"), BAD, ids=[problem for _, problem in BAD])
def test_an_unusable_schema_is_reported_in_a_sentence(bad: Any, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr(urllib.request, "urlopen", fetched)
    with pytest.raises(InvalidSchema) as raised:
        validate_schema(bad)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(InvalidSchema):
        find_schema_fault({}, bad)


SLOW = "^(([a-z])+.)+[A-Z]([a-z])+$"
"""From OWASP's page on denial of service by regular expressions."""


@pytest.mark.attack(
    "exponential-time `pattern`, `patternProperties` or `format: regex`",
    "bounded linear-time automaton, or refused",
)
@pytest.mark.parametrize(
    "wanted",
    [
        {"pattern": SLOW},
        {"items": {"pattern": "^(a+)+$"}},
        {"patternProperties": {SLOW: {"type": "null"}}},
        {"patternProperties": {SLOW: {}}, "additionalProperties": False},
        {"anyOf": [{"patternProperties": {SLOW: {}}}], "unevaluatedProperties": False},
        {"format": "regex"},
    ],
)
def test_a_pattern_takes_time_linear_in_the_value(wanted: dict[str, Any]) -> None:
    """With Python's `re` each of these takes longer than anybody waits."""
    for value in ("a" * 90_000, ["a" * 33 + "b"], {"a" * 40_000: 1}, "(" * 90_000):
        find_schema_fault(value, wanted)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"^[A-Z]{2}-\d{4}$", "AB-1234", True),
        (r"^[A-Z]{2}-\d{4}$", "AB-1234\n", False),
        (r"\(?\d+\)?", "call (12)", True),
        (r"b", "abc", True),
        (r"^\p{L}+$", "Zoë", True),
        (r"^(?<year>\d{4})\/", "2024/", True),
        (r"^x", "ax", False),
    ],
)
def test_a_pattern_means_what_json_schema_says(pattern: str, text: str, found: bool) -> None:
    assert (find_schema_fault(text, {"pattern": pattern}) is None) == found


def test_a_schema_as_pydantic_exports_it_is_closed_and_left_as_it_is() -> None:
    from pydantic import BaseModel

    class Item(BaseModel):
        name: str
        count: int | None = None

    class Order(BaseModel):
        items: list[Item]
        first: Item | None = None

    exported = Order.model_json_schema()
    before = json.dumps(exported)
    validate_schema(exported)
    assert find_schema_fault({"items": [{"name": "x", "count": None}], "first": None}, exported) is None
    assert find_schema_fault({"items": [{"name": "x", "colour": "red"}]}, exported) is not None
    assert find_schema_fault({"items": [], "first": {"name": "x", "colour": "red"}}, exported) is not None
    assert find_schema_fault({"items": [{"name": "x", "colour": "red"}]}, exported, strict=False) is None
    close_objects(exported)
    assert json.dumps(exported) == before


def test_numbers_that_json_does_not_have_fit_nothing() -> None:
    wanted = {"type": "object", "properties": {"a": {"type": "number"}}}
    for value in (math.nan, math.inf, -math.inf):
        assert find_schema_fault({"a": value}, wanted) is not None


@pytest.mark.parametrize(
    "value", [{"a": list(range(6_000))}, {"a": ["x" * 60_000] * 2}, {"a": {"x" * 120_000: 1}}, {"a": 10**41}]
)
def test_a_value_that_is_too_large_is_rejected_without_validation(value: Any) -> None:
    assert find_schema_fault(value, {"type": "object"}) is not None
