import asyncio
import json
import math
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from agents.checks import Subject
from agents.checks.base import CheckBroken
from agents.checks.schema import BadSchema, check_schema, closed, schema, value_fault, without_notes
from core.sample import Candidate, Message, Seed

GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "golden/schema.jsonl").read_text().splitlines()]


def subject_of(data: dict[str, Any], fields: dict[str, Any]) -> Subject:
    async def ask(*_: Any, **__: Any) -> Any:
        raise AssertionError("no teacher is asked")

    said = [Message(role="user", content="q"), Message(role="assistant", content="a")]
    return Subject(Seed(id="s-0", data=data), Candidate(messages=said, fields=fields), ask)


def test_there_are_many_golden_cases_of_both_kinds() -> None:
    assert len(GOLDEN) >= 50
    assert 20 < sum(case["passes"] for case in GOLDEN) < len(GOLDEN) - 20
    assert len({case["about"] for case in GOLDEN}) == len(GOLDEN)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["about"])
def test_a_value_fits_its_schema_or_not(case: dict[str, Any]) -> None:
    subject = subject_of({"schema": case["schema"]}, {"values": case["values"]})
    (finding,) = asyncio.run(schema.findings(subject, schema.options()))
    assert finding.passed == case["passes"], finding.evidence
    assert finding.passed or finding.evidence.startswith("values must follow the schema: ")
    assert len(finding.evidence) < 300


def test_another_field_and_another_key_can_be_looked_at() -> None:
    subject = subject_of({"parameters": {"type": "object", "properties": {"a": {}}}}, {"arguments": {"a": 1, "b": 2}})
    strict, lenient = ({"field": "arguments", "wanted": "parameters", "strict": strict} for strict in (True, False))
    for options, passed in ((strict, False), (lenient, True)):
        (finding,) = asyncio.run(schema.findings(subject, schema.options.model_validate(options)))
        assert finding.passed == passed
    with pytest.raises(CheckBroken, match="the candidate has no 'values'; it has arguments"):
        asyncio.run(schema.findings(subject, schema.options()))


def test_numbers_that_json_does_not_have_fit_nothing() -> None:
    wanted = {"type": "object", "properties": {"a": {"type": "number"}}}
    for value in (math.nan, math.inf, -math.inf):
        assert value_fault({"a": value}, wanted) is not None


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
def test_a_schema_that_cannot_be_used_is_told_in_a_sentence(
    bad: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr(urllib.request, "urlopen", fetched)
    with pytest.raises(BadSchema) as raised:
        check_schema(bad)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(BadSchema):
        value_fault({}, bad)


def test_names_of_properties_are_not_keywords() -> None:
    wanted = {"type": "object", "properties": {"$ref": {"type": "string"}, "x-a": {"x-b": 1}, "$id": {}, "not": {}}}
    check_schema(wanted)
    assert value_fault({"$ref": "https://example.org", "x-a": 1, "$id": 2, "not": 3}, wanted) is None
    assert without_notes(wanted)["properties"] == {"$ref": {"type": "string"}, "x-a": {}, "$id": {}, "not": {}}


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
    check_schema(exported)
    assert value_fault({"items": [{"name": "x", "count": None}], "first": None}, exported) is None
    assert value_fault({"items": [{"name": "x", "colour": "red"}]}, exported) is not None
    assert value_fault({"items": [], "first": {"name": "x", "colour": "red"}}, exported) is not None
    assert value_fault({"items": [{"name": "x", "colour": "red"}]}, exported, strict=False) is None
    closed(exported)
    assert json.dumps(exported) == before


@pytest.mark.parametrize(
    "value", [{"a": list(range(6_000))}, {"a": ["x" * 60_000] * 2}, {"a": {"x" * 120_000: 1}}, {"a": 10**41}]
)
def test_a_value_that_is_too_large_is_not_looked_into(value: Any) -> None:
    assert value_fault(value, {"type": "object"}) is not None
