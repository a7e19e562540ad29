"""Make `extraction_schemas.jsonl` again: the schemas written by hand, and those composed from the taxonomy.

    python data/seeds/make_extraction.py

A composed row is a kind of document, a scene, and a schema of the kind's fixed fields with some of the others. The rows are the
same each time.
"""

import json
import re
import tomllib
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

FOLDER = Path(__file__).parent
WRITTEN, TAXONOMY, SEEDS = (
    FOLDER / name for name in ("extraction_written.jsonl", "extraction_taxonomy.toml", "extraction_schemas.jsonl")
)
_KINDS: dict[str, Any] = tomllib.loads(TAXONOMY.read_text(encoding="utf-8"))
ABOUT: dict[str, str] = _KINDS["about"]
PER_KIND = 6
"""Composed rows of a kind with weight 1."""
OPTIONAL_FIELDS = (2, 5)
"""The fewest and the most optional fields of a composed schema."""
LIST_SHARE = 0.75
"""Share of the composed schemas with a list of objects; such a schema has fewer other fields."""
FIELD = re.compile(
    r"(?P<name>[\w.]+)(?P<fixed>!?) (?P<type>[a-z]\*?)(?:\((?P<notes>.+)\))?(?: : (?P<about>[^~]+?))?(?: ~ (?P<decoy>.+))?"
)
TIME = {"type": "string", "pattern": "^\\d\\d:\\d\\d$"}
TYPES: dict[str, dict[str, Any]] = {
    "s": {"type": "string"}, "i": {"type": "integer"}, "n": {"type": "number"}, "t": TIME,
    "d": {"type": "string", "format": "date"}, "s*": {"type": "array", "items": {"type": "string"}, "minItems": 1},
}  # fmt: skip
MIN_ITEMS = (1, 2, 2)
MOST_DATES = 2
"""Dates outside of the list, if the fixed fields have no more: each is told with its year."""
PLACES = {
    "coast": ["a harbour town", "a small island", "a fishing port", "a seaside resort", "a river delta"],
    "hills": ["a mountain village", "a ski resort", "a valley with vineyards", "a spa town", "a mining town"],
    "country": ["a farming district", "a market town", "a border town", "a river delta", "a valley with vineyards"],
    "town": ["the outskirts of a large city", "a university town", "a border town", "the old quarter of a city"],
}
"""Settings by group, for scenes that not every setting can have."""


def compose_rows() -> list[dict[str, Any]]:
    """The composed rows, kind by kind."""
    rows = []
    for kind in _KINDS["kind"]:
        rng = Random(f"extraction/{kind['topic']}")
        excludes = kind.get("excludes", {})
        pairs = [
            (first, second) for first, second in product(kind["a"], kind["b"]) if second not in excludes.get(first, ())
        ]
        scenes = rng.sample(pairs, round(PER_KIND * kind.get("weight", 1)))
        seen: set[str] = set()
        for first, second in scenes:
            without = frozenset(excludes.get(first, ()))
            schema, decoys = compose_schema(kind, rng, without)
            while json.dumps(schema) in seen:
                schema, decoys = compose_schema(kind, rng, without)
            seen.add(json.dumps(schema))
            topic = kind["topic"].format(a=first, b=second)
            row = {
                "topic": topic,
                "domain": kind["domain"],
                "style": kind["styles"],
                "decoys": decoys,
                "schema": schema,
            }
            groups = kind.get("places", {})
            if chosen := groups.get(first) or groups.get(second) or groups.get("all"):
                row["place"] = list(dict.fromkeys(place for group in chosen for place in PLACES[group]))
            rows.append(row)
    return rows


def compose_schema(
    kind: dict[str, Any], rng: Random, without: frozenset[str] = frozenset()
) -> tuple[dict[str, Any], dict[str, str]]:
    """A schema of a kind, and its decoys by field. Optional fields are nullable, or not required: one way per schema.

    Args:
        kind: an entry of the taxonomy.
        rng: what draws the fields.
        without: names of optional fields that do not go with the scene.
    """
    fields = [FIELD.fullmatch(text) for text in kind["fields"]]
    assert all(fields), kind["topic"]
    fixed = [field for field in fields if field and field["fixed"]]
    others = [field for field in fields if field and not field["fixed"] and field["name"] not in without]
    listed = rng.random() < LIST_SHARE
    few, many = OPTIONAL_FIELDS
    count = rng.randint(few, min(len(others), many - listed))
    drawn = rng.sample(others, len(others))
    room = MOST_DATES - sum(field["type"] == "d" for field in fixed)
    late = [field["name"] for field in drawn if field["type"] == "d"][max(0, room) :]
    chosen = {field["name"] for field in [*fixed, *[one for one in drawn if one["name"] not in late][:count]]}
    nullable = rng.random() < 0.5
    properties: dict[str, Any] = {}
    required: list[str] = []
    decoys: dict[str, str] = {}
    for field in fields:
        assert field
        if field["name"] not in chosen:
            continue
        parent, _, name = field["name"].rpartition(".")
        holder, needed = properties, required
        if parent:
            if parent not in properties:
                properties[parent] = {
                    "type": "object",
                    "description": ABOUT[f"{parent}."],
                    "properties": {},
                    "required": [],
                }
                required.append(parent)
            holder, needed = properties[parent]["properties"], properties[parent]["required"]
        holder[name] = _read_type(field, nullable=nullable and not field["fixed"])
        if nullable or field["fixed"]:
            needed.append(name)
        if field["decoy"]:
            decoys[field["name"]] = field["decoy"]
    if listed:
        name, *item_fields = kind["list"]
        items = _compose_item(item_fields, nullable, rng, without)
        properties[name] = {"type": "array", "description": ABOUT[name], "items": items}
        properties[name]["minItems"] = rng.choice(MIN_ITEMS)
        required.append(name)
    return {"type": "object", "properties": properties, "required": required}, decoys


def _compose_item(fields: list[str], nullable: bool, rng: Random, without: frozenset[str]) -> dict[str, Any]:
    """The schema of a list's items: fixed fields, and one or two others."""
    parsed = [FIELD.fullmatch(text) for text in fields]
    assert all(parsed), fields
    others = [field["name"] for field in parsed if field and not field["fixed"] and field["name"] not in without]
    chosen = set(rng.sample(others, min(len(others), rng.choice((1, 1, 2)))))
    kept = [field for field in parsed if field and (field["fixed"] or field["name"] in chosen)]
    properties = {field["name"]: _read_type(field, nullable=nullable and not field["fixed"]) for field in kept}
    required = [field["name"] for field in kept if nullable or field["fixed"]]
    return {"type": "object", "properties": properties, "required": required}


def _read_type(field: re.Match[str], *, nullable: bool) -> dict[str, Any]:
    kind, notes = field["type"], field["notes"]
    if kind == "f":
        sides = zip(("true", "false"), notes.split("|"), strict=True)
        schema: dict[str, Any] = {"type": "boolean", "x-evidence": {key: words.split("/") for key, words in sides}}
    elif kind == "e":
        choices = [choice.partition("=") for choice in notes.split("|")]
        schema = {"type": "string", "enum": [value for value, _, _ in choices]}
        if words := {value: said.split("/") for value, _, said in choices if said}:
            schema["x-evidence"] = words
    else:
        schema = dict(TYPES[kind])
        if notes:
            schema["x-evidence"] = notes.split("/")
    schema["description"] = field["about"] or ABOUT[field["name"]]
    if nullable:
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema


def main() -> None:
    written = WRITTEN.read_text(encoding="utf-8").splitlines()
    composed = [json.dumps(row, ensure_ascii=False) for row in compose_rows()]
    SEEDS.write_text("\n".join([*written, *composed]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
