"""Which JSON schemas a server may make a grammar of."""

from typing import Any

import pytest

from core.config.teachers import TeacherConfig
from core.sample import Message
from teachers.base import TeacherQuestion
from teachers.grammar_bounds import GrammarTooLarge, check_grammar_bounds, simplify_schema
from teachers.openai_chat import build_request_body

PATTERN = {"type": "string", "pattern": "^(((a?){40}){40}){40}$"}
TREE = {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"pattern": {"$ref": "#/$defs/a"}}}}}


def chain(ways: int, steps: int) -> dict[str, Any]:
    """Each step refers to the next so often: ways to the power of steps."""
    parts = {f"s{i}": {"anyOf": [{"$ref": f"#/$defs/s{i + 1}"}] * ways} for i in range(steps)}
    return {"$ref": "#/$defs/s0", "$defs": {**parts, f"s{steps}": {"type": "integer"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.attack(
    "schemas with many alternatives, references, repetitions, levels, properties; a `$ref` to a key that holds no "
    "schema",
    "all bounded, references followed to checked schemas only",
)
@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        (PATTERN, "`pattern` in a JSON schema: regular expressions are not allowed here; leave it out"),
        ({"properties": {"a": {"items": [PATTERN]}}}, "`pattern`"),
        ({"patternProperties": {"(a?){9}": {}}}, "`patternProperties`"),
        ({"type": "array", "maxItems": 100_000}, "`maxItems` = 100,000 in a JSON schema; at most 2,000 is allowed"),
        ({"minLength": 2_001}, "`minLength` = 2,001"),
        ({"prefixItems": [{"maxLength": 2_000}] * 11}, "has 22,000 repetitions in all"),
        ({"anyOf": [{"const": 1}] * 201}, "gives 201 alternatives for one value"),
        ({"enum": [1] * 201}, "at most 200 are allowed"),
        ({"allOf": [{"anyOf": [{}] * 40}] * 2}, "alternatives"),
        (chain(10, 12), "alternatives"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {}]}}}, "leads back to itself"),
        ({"$ref": "http://127.0.0.1/x"}, "nothing is fetched"),
        ({"$ref": "#/$defs/no"}, "leads nowhere"),
        ({"x": PATTERN, "$ref": "#/x"}, "'#/x' in a JSON schema leads to no schema; define it under `$defs`"),
        ({"const": {"a": PATTERN}, "items": {"$ref": "#/const/a"}}, "leads to no schema"),
        ({"enum": [PATTERN], "$ref": "#/enum/0"}, "leads nowhere"),
        ({"$defs": PATTERN, "$ref": "#/$defs"}, "leads to no schema"),
        ({"$defs": {"pattern": {}, **PATTERN}, "properties": {"$defs": {}}, "$ref": "#properties/$defs"}, "leads nowhere"),
        ({"": {"$defs": {"a": PATTERN}}, "$defs": {"a": {}}, "$ref": "#//$defs/a"}, "leads nowhere"),
        ({"$defs": {"a~1b": {}, "a/b": {}}, "$ref": "#/$defs/a~1b"}, "leads nowhere"),
        ({"properties": {f"p{i}": {} for i in range(201)}}, "201 properties of one object"),
        ({"minimum": -(10**30)}, "`minimum` in a JSON schema is beyond"),
        (nested(33), "nested deeper than 32"),
        (nested(900), "nested deeper than 32"),
        ({"description": "x" * 20_000}, "bytes; at most 20,000 are allowed"),
        ("^a$", "a JSON schema is an object, not str"),
    ],
)  # fmt: skip
def test_schemas_that_take_long_are_refused_in_a_sentence(schema: Any, sentence: str) -> None:
    with pytest.raises(GrammarTooLarge) as refused:
        check_grammar_bounds(schema)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        {"type": "object", "properties": {"pattern": {"type": "string"}, "maxItems": {"const": 99_999}}},
        {"enum": ["pattern", {"pattern": "x"}], "minimum": 0, "maxLength": 2_000},
        {
            "properties": {
                "a": {"type": "string"},
                "b": {"items": {"$ref": "#/properties/a"}},
                "c": {"$ref": "#/$defs/any"},
            },
            "$defs": {"any": True},
        },
        chain(3, 4),
        {"enum": list(range(200))},
    ],
)
def test_schemas_as_people_write_them_are_taken(schema: dict[str, Any]) -> None:
    check_grammar_bounds(schema)
    assert simplify_schema(schema) == schema


@pytest.mark.attack(
    "a seed's hostile schema reaches the embedded teacher",
    "left out; the check still compares",
)
def test_a_runs_own_schema_reaches_a_local_teacher_within_the_same_bounds() -> None:
    def form(schema: Any, model: str) -> Any:
        question = TeacherQuestion(
            messages=[Message(role="user", content="?")], contract="Draft", json_schema=schema, temperature=0, top_p=1,
            max_tokens=9, seed=1,
        )  # fmt: skip
        return build_request_body(question, "m", TeacherConfig(model=model, base_url="http://x/v1"))["response_format"]

    schema = {
        "properties": {
            "a": PATTERN,
            "b": {"type": "array", "maxItems": 10**6, "minItems": 1},
            "c": {"type": "integer", "enum": list(range(201))},
        }
    }
    loose = {"properties": {"a": {"type": "string"}, "b": {"type": "array", "minItems": 1}, "c": {"type": "integer"}}}
    assert form(schema, "local/smollm2-135m")["json_schema"]["schema"] == loose
    assert form(schema, "openai/m")["json_schema"]["schema"] == schema
    assert form(chain(10, 12), "local/smollm2-135m") == {"type": "json_object"}
