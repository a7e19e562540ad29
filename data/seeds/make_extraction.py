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
PER_KIND = 6
"""Composed rows of a kind with weight 1."""
OPTIONAL_FIELDS = (2, 5)
"""The fewest and the most optional fields of a composed schema."""
LIST_SHARE = 0.75
"""Share of the composed schemas with a list of objects; such a schema has fewer other fields."""
FIELD = re.compile(r"(?P<name>[\w.]+)(?P<fixed>!?) (?P<type>[a-z]\*?)(?:\((?P<notes>.+)\))?(?: ~ (?P<decoy>.+))?")
TIME = {"type": "string", "pattern": "^\\d\\d:\\d\\d$"}
TYPES: dict[str, dict[str, Any]] = {
    "s": {"type": "string"}, "i": {"type": "integer"}, "n": {"type": "number"}, "t": TIME,
    "d": {"type": "string", "format": "date"}, "s*": {"type": "array", "items": {"type": "string"}, "minItems": 1},
}  # fmt: skip
MIN_ITEMS = (1, 2, 2)


def compose_rows() -> list[dict[str, Any]]:
    """The composed rows, kind by kind."""
    rows = []
    for kind in tomllib.loads(TAXONOMY.read_text(encoding="utf-8"))["kind"]:
        rng = Random(f"extraction/{kind['topic']}")
        scenes = rng.sample([*product(kind["a"], kind["b"])], round(PER_KIND * kind.get("weight", 1)))
        seen: set[str] = set()
        for first, second in scenes:
            schema, decoys = compose_schema(kind, rng)
            while json.dumps(schema) in seen:
                schema, decoys = compose_schema(kind, rng)
            seen.add(json.dumps(schema))
            topic = kind["topic"].format(a=first, b=second)
            rows.append({"topic": topic, "domain": kind["domain"], "style": kind["styles"], "decoys": decoys, "schema": schema})
    return rows


def compose_schema(kind: dict[str, Any], rng: Random) -> tuple[dict[str, Any], dict[str, str]]:
    """A schema of a kind, and its decoys by field. Optional fields are nullable, or not required: one way per schema."""
    fields = [FIELD.fullmatch(text) for text in kind["fields"]]
    assert all(fields), kind["topic"]
    fixed = [field for field in fields if field and field["fixed"]]
    others = [field for field in fields if field and not field["fixed"]]
    listed = rng.random() < LIST_SHARE
    few, many = OPTIONAL_FIELDS
    count = rng.randint(few, min(len(others), many - listed))
    chosen = {field["name"] for field in [*fixed, *rng.sample(others, count)]}
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
                properties[parent] = {"type": "object", "properties": {}, "required": []}
                required.append(parent)
            holder, needed = properties[parent]["properties"], properties[parent]["required"]
        holder[name] = _read_type(field, nullable=nullable and not field["fixed"])
        if nullable or field["fixed"]:
            needed.append(name)
        if field["decoy"]:
            decoys[field["name"]] = field["decoy"]
    if listed:
        name, *item_fields = kind["list"]
        properties[name] = {"type": "array", "items": _compose_item(item_fields, nullable, rng)}
        properties[name]["minItems"] = rng.choice(MIN_ITEMS)
        required.append(name)
    return {"type": "object", "properties": properties, "required": required}, decoys


def _compose_item(fields: list[str], nullable: bool, rng: Random) -> dict[str, Any]:
    """The schema of a list's items: fixed fields, and one or two others."""
    parsed = [FIELD.fullmatch(text) for text in fields]
    assert all(parsed), fields
    others = [field["name"] for field in parsed if field and not field["fixed"]]
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
