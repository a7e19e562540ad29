"""Extraction to a schema: a text, a JSON schema, and the values that the text gives for it. Knows no teacher.

Two ways: from a schema and a topic the generator writes the text and its values; from a user's document only the values.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field, field_validator

from agents.checks import Finding, Options, Subject, check, first_fault, passed
from agents.checks.occurs import Leaf, check_evidence, leaf_fault, leaves
from agents.checks.schema import BadSchema, closed, parts_in, referred, validator_of, without_notes
from agents.checks.written import read_text
from agents.contract import Contract, ContractFault
from agents.families.base import BadSeed, Family, text_in
from core.sample import Candidate, Message, Seed

MAX_NESTING = 4
"""Objects in objects whose fields a seed demands one by one; a recursive schema has no last one."""

STYLES = (
    "an e-mail", "a short note", "a message in a group chat", "a notice on a board", "a paragraph of a report",
    "a spoken message, written down", "an entry in a log", "a letter", "a post in a forum", "lines noted down in a hurry",
)  # fmt: skip
PLACES = (
    "a harbour town", "a mountain village", "the outskirts of a large city", "a university", "a farming district",
    "a small island", "an industrial estate", "a spa town", "a border town", "a suburb by a railway line",
    "a fishing port", "the old quarter of a city", "a new housing estate", "a valley with vineyards", "a desert town",
    "a ski resort", "a market town", "a river delta", "a mining town", "a seaside resort",
)  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPRSTVWYZ"
"""Names with a first letter that is drawn vary; without one, a teacher has a handful of favourites."""

RULE = "What the text does not say is null where the schema allows null, and left out where it does not."
INSTRUCTIONS = (
    "Extract the data that the schema asks for from the text. Reply with one JSON object and nothing else.",
    "Read the text and fill in the JSON schema. Answer with the JSON object only.",
    "Give the values of the text as a JSON object that is valid by the schema. No other words.",
    "Turn the text into structured data by the schema below. Output JSON only.",
    "Which values does the text give? Reply with JSON that follows the schema, and with nothing but JSON.",
)
LAYOUTS = ("system", "text_first", "schema_first")
"""The instruction and the schema as system message; or all in one message of the user, in two orders."""


class TextDraft(Contract):
    text: str = Field(min_length=40)
    values: dict[str, Any]
    decoy: str = ""


class ValuesDraft(Contract):
    values: dict[str, Any]


class ExtractionOptions(Options):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    wanted: dict[str, Any] | None = Field(None, alias="schema")
    """The JSON schema for documents, and for rows that have none of their own: a table, or its JSON as text."""
    missing: float = Field(0.3, ge=0, le=1)
    """Share of the written texts in which one or two optional fields must not be told, and are null or left out."""
    decoys: float = Field(0.3, ge=0, le=1)
    """Share of the written texts with a value that is of the right kind and not asked for, where the row names one."""
    words: tuple[int, ...] = Field((60, 110, 170), min_length=1)
    """About how long a written text is: one of these, at random."""
    least: int = Field(1, ge=0)
    """How many values a document must give at least; with 0, chunks that say nothing of the schema are kept too."""

    @field_validator("wanted", mode="before")
    @classmethod
    def _read(cls, schema: Any) -> Any:
        if not isinstance(schema, str):
            return schema
        try:
            return json.loads(schema)
        except ValueError:
            raise ValueError("must be a table, or the text of a JSON schema; a file is not read") from None

    @field_validator("wanted")
    @classmethod
    def _usable(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            check_wanted(schema)
        return schema


class Wish(NamedTuple):
    """A field of a schema that is no part of a list, by its dotted path."""

    path: str
    optional: bool


def check_wanted(schema: Any) -> None:
    """See that a schema can be extracted to. Raises BadSchema naming the place."""
    if not isinstance(schema, dict):
        raise BadSchema(f"a JSON schema is an object, not {str(schema)[:80]!r}")
    validator_of(schema)
    check_evidence(schema)
    if schema.get("type") != "object" or not schema.get("properties"):
        raise BadSchema('the schema must have "type": "object" and at least one of "properties"')
    dotted = [name for _, part in parts_in(schema) for name in part.get("properties", {}) if "." in name]
    if dotted:
        raise BadSchema(f"the property {dotted[0]!r} has a dot, which tells nested fields apart; name it without")


def wishes(schema: Mapping[str, Any]) -> list[Wish]:
    """The fields of a schema, nested ones after the one that holds them."""
    return list(_wishes(schema, schema, "", MAX_NESTING))


def _wishes(schema: Mapping[str, Any], root: Mapping[str, Any], path: str, levels: int) -> Iterator[Wish]:
    for name, part in schema.get("properties", {}).items():
        inner, nullable = bare(part, root)
        place = f"{path}.{name}".lstrip(".")
        yield Wish(place, nullable or name not in schema.get("required", ()))
        if levels > 1 and inner.get("type") == "object":
            yield from _wishes(inner, root, place, levels - 1)


def bare(schema: Any, root: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """What a schema says of a value that is not null, references followed, and whether null is allowed."""
    part = dict(schema) if isinstance(schema, dict) else {}
    nullable = False
    while "$ref" in part:
        reference = part.pop("$ref")
        part = {**referred(reference, root), **part}
    for key in ("anyOf", "oneOf"):
        branches = [branch for branch in part.get(key, ()) if branch != {"type": "null"}]
        nullable |= len(branches) < len(part.get(key, ()))
        if len(branches) == 1 and nullable:
            rest = {name: value for name, value in part.items() if name not in (key, "default")}
            return {**bare(branches[0], root)[0], **rest}, True
    types = part.get("type")
    if isinstance(types, list) and "null" in types:
        left = [one for one in types if one != "null"]
        part["type"], nullable = left[0] if len(left) == 1 else left, True
    if "enum" in part:
        nullable |= None in part["enum"] and "type" not in part
        part["enum"] = [value for value in part["enum"] if value is not None]
    return part, nullable


def canonical(values: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    """`values` in the schema's order, with null for what is absent and may be null, and without null where it may not."""
    inner, _ = bare(schema, root)
    if isinstance(values, list):
        return [canonical(value, inner.get("items"), root) for value in values]
    if not isinstance(values, dict):
        return values
    ordered: dict[str, Any] = {}
    for name, part in inner.get("properties", {}).items():
        _, nullable = bare(part, root)
        value = canonical(values.get(name), part, root)
        if value is not None or nullable or (name in values and name in inner.get("required", ())):
            ordered[name] = value
    return {**ordered, **{name: value for name, value in values.items() if name not in inner.get("properties", {})}}


def narrowed(schema: Any, root: Mapping[str, Any], left_out: Sequence[str], path: str = "") -> dict[str, Any]:
    """`schema` for values in which every field is told but `left_out`: the latter null or gone, the others required."""
    inner, _ = bare(schema, root)
    told: dict[str, Any] = {}
    for name, part in inner.get("properties", {}).items():
        below, nullable = bare(part, root)
        place = f"{path}.{name}".lstrip(".")
        if place in left_out:
            told |= {name: {"type": "null"}} if nullable else {}
        elif below.get("type") == "object" and place.count(".") < MAX_NESTING:
            told[name] = narrowed(part, root, left_out, place)
        else:
            told[name] = (
                {**below, "minItems": max(1, below.get("minItems", 1))} if below.get("type") == "array" else below
            )
    return {**inner, "properties": told, "required": list(told)} if told else inner


@check("complete")
def complete(subject: Subject, _options: Options) -> list[Finding]:
    """Every field that the seed demands is told, none that it leaves out is, and the decoy stands in the text alone."""
    seed, fields = subject.seed.data, subject.candidate.fields
    values = fields["values"]
    met = f"all fields are told but {', '.join(seed['left_out']) or 'none'}"
    fault = first_fault(
        [
            *(_untold(path, values) for path in seed["demanded"]),
            *(_told(path, values) for path in seed["left_out"]),
            _repeated(values),
            _too_few(values, seed["schema"], seed["least"]),
        ]
    )
    found = [passed("complete", fault, met)]
    if seed["decoy"]:
        found.append(passed("decoy", _decoy_fault(fields, seed), "the decoy is in the text and in no value"))
    return found


def at(path: str, values: Any) -> Any:
    """The value at a dotted path; None where there is none."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _untold(path: str, values: Any) -> str | None:
    empty = at(path, values) in (None, "", [], {})
    return f"{path} is asked for and is empty; tell it in the text and give its value" if empty else None


def _told(path: str, values: Any) -> str | None:
    value = at(path, values)
    if value in (None, [], {}):
        return None
    return f"{path} must not be told, but its value is {str(value)[:80]!r}; leave it out of the text and of the values"


def _repeated(values: Any, path: str = "") -> str | None:
    if isinstance(values, list):
        texts = [json.dumps(item, sort_keys=True) for item in values]
        if len(set(texts)) < len(texts):
            return f"{path} has an item twice"
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return first_fault([_repeated(value, f"{path}.{key}".lstrip(".")) for key, value in inner])


def _too_few(values: Any, schema: Mapping[str, Any], least: int) -> str | None:
    found = sum(leaf.value is not None for leaf in leaves(values, schema))
    return f"the text gives {found} values, and {least} are wanted" if found < least else None


def _decoy_fault(fields: Mapping[str, Any], seed: Mapping[str, Any]) -> str | None:
    decoy, written = fields["decoy"], read_text(fields["text"])
    if not any(character.isalnum() for character in decoy):
        return f"the text must also have {seed['decoy']}; name it as decoy"
    if not written.says(decoy):
        return f"the decoy {decoy[:80]!r} is not in the text"
    if any(_takes(leaf, decoy) for leaf in leaves(fields["values"], seed["schema"])):
        return f"{decoy[:80]!r} is a value too; {seed['decoy']} must differ from all values"
    return None


def _takes(leaf: Leaf, decoy: str) -> bool:
    """Whether a value is told by the decoy, or the decoy by the value. A choice or a flag is no one's name or number."""
    if (
        leaf.value is None
        or isinstance(leaf.value, bool)
        or any({"enum", "const"} & part.schema.keys() for part in leaf.parts)
    ):
        return False
    return leaf_fault(leaf, read_text(decoy)) is None or read_text(str(leaf.value)).says(decoy)


class Extraction(Family):
    name = "extraction"
    options = ExtractionOptions
    checks = (complete,)
    writes = ("generator", "extract")
    seeded_by = ("path", "documents")

    def condition(self, row: Mapping[str, Any], options: ExtractionOptions, rng: Random) -> dict[str, Any]:
        schema = _schema_of(row, options)
        asked = {
            "schema": schema,
            "shown": _shown(schema, indent=rng.choice((None, None, 2))),
            "instruction": rng.choice(INSTRUCTIONS),
            "layout": rng.choice(LAYOUTS),
        }
        if "text" in row:
            source = {"source": row.get("source", ""), "number": row.get("number", 0)}
            free = {"text": row["text"], "demanded": [], "left_out": [], "decoy": "", "least": options.least}
            return {**asked, **source, **free}
        return {**asked, **_situation(row, options, rng), **_demands(row, schema, options, rng), "least": 1}

    def role(self, seed: Seed) -> str:
        return "extract" if "text" in seed.data else "generator"

    def contract(self, seed: Seed) -> type[Contract]:
        return ValuesDraft if "text" in seed.data else TextDraft

    def reply_schema(self, seed: Seed) -> dict[str, Any]:
        wanted = without_notes(seed.data["schema"])
        if "text" in seed.data:
            properties = {"values": closed(wanted)}
        else:
            text = {"type": "string", "minLength": 40}
            properties = {"text": text, "values": closed(narrowed(wanted, wanted, seed.data["left_out"]))}
            properties |= {"decoy": {"type": "string", "minLength": 1}} if seed.data["decoy"] else {}
        # References say #/$defs/…, which is the root of what is sent.
        shared = properties["values"].pop("$defs", None)
        whole = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        return {**whole, "$defs": shared} if shared else whole

    def values(self, seed: Seed) -> dict[str, str]:
        return {"wish": _wish(seed.data), "schema": json.dumps(seed.data["schema"], ensure_ascii=False)}

    def candidate(self, seed: Seed, draft: TextDraft | ValuesDraft) -> Candidate:
        data = seed.data
        text = draft.text.strip() if isinstance(draft, TextDraft) else data["text"]
        values = canonical(draft.values, data["schema"], data["schema"])
        try:
            answer = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except ValueError:
            raise ContractFault("values: NaN and Infinity are no JSON") from None
        decoy = draft.decoy if isinstance(draft, TextDraft) else ""
        fields = {"text": text, "values": values, "decoy": decoy, "answer": answer}
        return Candidate(messages=[*_asked(data, text), Message(role="assistant", content=answer)], fields=fields)


def _schema_of(row: Mapping[str, Any], options: ExtractionOptions) -> dict[str, Any]:
    schema = row.get("schema", options.wanted)
    if schema is None:
        raise BadSeed("'schema', or the recipe one as task.schema")
    try:
        check_wanted(schema)
    except BadSchema as error:
        raise BadSeed(f"'schema' with a JSON schema that can be used: {error}") from None
    found: dict[str, Any] = schema
    return found


def _shown(schema: Mapping[str, Any], indent: int | None) -> str:
    separators = (",", ":") if indent is None else None
    return json.dumps(without_notes(schema), ensure_ascii=False, indent=indent, separators=separators)


def _situation(row: Mapping[str, Any], options: ExtractionOptions, rng: Random) -> dict[str, Any]:
    """What makes this text differ from others by the same schema."""
    style = row.get("style") or STYLES
    return {
        "topic": text_in(row, "topic"),
        "style": style if isinstance(style, str) else rng.choice(style),
        "words": rng.choice(options.words),
        "place": rng.choice(PLACES),
        "letters": sorted(rng.sample(LETTERS, 3)),
    }


def _demands(row: Mapping[str, Any], schema: dict[str, Any], options: ExtractionOptions, rng: Random) -> dict[str, Any]:
    """Which fields the text tells, which it does not, and what it tells beside them."""
    all_wishes = wishes(schema)
    decoys = _decoys(row, [wish.path for wish in all_wishes])
    optional = [wish.path for wish in all_wishes if wish.optional]
    left_out: list[str] = []
    if optional and rng.random() < options.missing:
        left_out = sorted(rng.sample(optional, min(len(optional), rng.choice((1, 1, 2)))))
        left_out = [path for path in left_out if not any(path.startswith(f"{other}.") for other in left_out)]
    # A decoy of a field that is left out would read as the field.
    fit = [text for path, text in decoys.items() if not _within(path, left_out)]
    decoy = rng.choice(fit) if fit and rng.random() < options.decoys else ""
    demanded = [wish.path for wish in all_wishes if not _within(wish.path, left_out)]
    return {"demanded": demanded, "left_out": left_out, "decoy": decoy}


def _decoys(row: Mapping[str, Any], known: Sequence[str]) -> Mapping[str, str]:
    decoys = row.get("decoys", {})
    if not isinstance(decoys, dict) or not all(isinstance(text, str) for text in decoys.values()):
        raise BadSeed("'decoys', if any, with texts by the field that each could be taken for")
    if strange := sorted(set(decoys) - set(known)):
        raise BadSeed(f"'decoys', if any, by fields of the schema ({', '.join(known)}), not {strange[0]!r}")
    return decoys


def _within(path: str, left_out: Sequence[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in left_out)


def _wish(data: Mapping[str, Any]) -> str:
    """What is asked of the generator, in words."""
    if "text" in data:
        return f"Give the values of this text.\nText: {data['text']}"
    lines = [
        f"Write {data['style']} of about {data['words']} words on: {data['topic']}. It comes from {data['place']}; "
        f"names begin with {', '.join(data['letters'])}.",
        *(
            [f"Do not tell: {', '.join(data['left_out'])}. Tell every other field."]
            if data["left_out"]
            else ["Tell every field."]
        ),
        *([f"As decoy, the text also has {data['decoy']}."] if data["decoy"] else []),
    ]
    return "\n".join(lines)


def _asked(data: Mapping[str, Any], text: str) -> list[Message]:
    instruction, schema = f"{data['instruction']} {RULE}", f"Schema:\n{data['shown']}"
    if data["layout"] == "system":
        return [Message(role="system", content=f"{instruction}\n\n{schema}"), Message(role="user", content=text)]
    parts = [schema, f"Text:\n{text}"] if data["layout"] == "schema_first" else [f"Text:\n{text}", schema]
    return [Message(role="user", content="\n\n".join([instruction, *parts]))]
