"""Extraction to a schema: a text, a JSON schema, and the values that the text gives for it. Knows no teacher.

Two ways: from a schema and a topic the generator writes the text and its values; from a user's document only the values.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any, ClassVar, NamedTuple

from pydantic import ConfigDict, Field, field_validator

from agents.checks import AttemptJudge, Finding, Options, Subject, build_finding, check, first_fault
from agents.checks.json_schema import (
    InvalidSchema,
    build_validator,
    close_objects,
    describe_booleans,
    is_same_json,
    remove_notes,
    resolve_reference,
)
from agents.checks.plain_answers import WHOLE_ANSWER, IndependentSolution
from agents.checks.text.quantities import read_written
from agents.checks.text.value_in_text import ValueLeaf, find_leaf_fault, iter_leaves, validate_evidence
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.reply_schema import InvalidReply, ReplySchema
from core.project_files import read_shipped_table
from core.sample import Candidate, Message, Seed
from teachers.grammar_bounds import iter_subschemas

MAX_NESTING = 4
"""Nesting depth to which a seed requires fields individually; a recursive schema has no deepest level."""

_SCENES: Mapping[str, Any] = read_shipped_table("data/seeds/extraction_scenes.toml")
STYLES: tuple[str, ...] = tuple(_SCENES["styles"])
PLACES: tuple[str, ...] = tuple(_SCENES["places"])
SENDERS: Mapping[str, int] = _SCENES["senders"]
"""Who writes a text, with weights."""
REGISTERS: Mapping[str, int] = _SCENES["registers"]
OPENINGS: Mapping[str, int] = _SCENES["openings"]
UNFIT = tuple((re.compile(rf"\b(?:{one})"), re.compile(rf"\b(?:{other})")) for one, other in _SCENES["unfit"].items())
"""Pairs of a person, tone or opening, and of what does not go with it: a topic, a kind of text, a length, or another of them."""
TOLD_OF_EACH = 0.6
"""Probability that all optional fields of list items are told of each item, and not one of them of some items only."""
WORDS_PER_FIELD, WORDS_PER_ITEM_FIELD = 7, 6
"""Words that a natural text needs for a field, and for one of each field of list items (two items of three words): shorter
texts list values in brackets."""
LETTERS = "ABCDEFGHIJKLMNOPRSTVWYZ"
"""Drawn first letters vary the names; without them, a teacher repeats a few favorites."""

NULL_RULE = "What the text does not say is null where the schema allows null, and left out where it does not."
INSTRUCTIONS: tuple[str, ...] = tuple(_SCENES["instructions"])
LAYOUTS = ("system", "text_first", "schema_first")
"""Instruction and schema as system message, or all in one user message, in two orders."""


class TextDraft(ReplySchema):
    text: str = Field(min_length=40)
    values: dict[str, Any]
    decoy: str = ""


class ValuesDraft(ReplySchema):
    values: dict[str, Any]


class ExtractionOptions(Options):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    wanted: dict[str, Any] | None = Field(None, alias="schema")
    """For documents and rows without one, as a table or JSON text."""
    missing: float = Field(0.3, ge=0, le=1)
    """Share of written texts that omit one or two optional fields."""
    decoys: float = Field(0.3, ge=0, le=1)
    """Share with a decoy, a value that no field asks for."""
    words: tuple[int, ...] = Field((60, 110, 170, 240), min_length=1)
    """Approximate length: one of those with room for the fields, at random."""
    least: int = Field(1, ge=0)
    """Fewest values in a document. 0 keeps chunks without values."""

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
            _check_extraction_schema(schema)
        return schema


class ListPlan(NamedTuple):
    """Which optional fields of a list's items a text tells."""

    path: str
    each: Sequence[str]
    """Told of each item."""
    some: Sequence[str]
    """Told of at least one item, and not of at least one other."""


class WantedField(NamedTuple):
    """A field of a schema outside of lists, by its dotted path."""

    path: str
    optional: bool


def _check_extraction_schema(schema: Any) -> None:
    """Check that a schema is suitable for extraction. Raises InvalidSchema with the location."""
    if not isinstance(schema, dict):
        raise InvalidSchema(f"a JSON schema is an object, not {str(schema)[:80]!r}")
    build_validator(schema)
    validate_evidence(schema)
    if schema.get("type") != "object" or not schema.get("properties"):
        raise InvalidSchema('the schema must have "type": "object" and at least one of "properties"')
    dotted = [name for _, part in iter_subschemas(schema) for name in part.get("properties", {}) if "." in name]
    if dotted:
        raise InvalidSchema(f"the property {dotted[0]!r} has a dot, which tells nested fields apart; name it without")


def list_wanted_fields(schema: Mapping[str, Any]) -> list[WantedField]:
    """The fields of a schema, nested fields after their parent."""
    return list(_iter_wanted_fields(schema, schema, "", MAX_NESTING))


def _iter_wanted_fields(
    schema: Mapping[str, Any], root: Mapping[str, Any], path: str, levels: int
) -> Iterator[WantedField]:
    for name, part in schema.get("properties", {}).items():
        inner, nullable = _resolve_nullable(part, root)
        location = f"{path}.{name}".lstrip(".")
        yield WantedField(location, nullable or name not in schema.get("required", ()))
        if levels > 1 and inner.get("type") == "object":
            yield from _iter_wanted_fields(inner, root, location, levels - 1)


def _list_item_fields(schema: Mapping[str, Any], path: str) -> list[WantedField]:
    """The fields of the items of the list at a dotted path; none if it is no list of objects of one kind."""
    inner = _part_at(schema, path)
    item, _ = _resolve_nullable(inner.get("items"), schema) if inner.get("type") == "array" else ({}, False)
    required = item.get("required", ())
    return [
        WantedField(name, name not in required or _resolve_nullable(below, schema)[1])
        for name, below in item.get("properties", {}).items()
    ]


def _part_at(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The schema of the field at a dotted path, with references resolved."""
    part, _ = _resolve_nullable(schema, schema)
    for name in path.split("."):
        part, _ = _resolve_nullable(part.get("properties", {}).get(name), schema)
    return part


def _resolve_nullable(schema: Any, root: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema of a value that is not null, with references resolved, and whether null is allowed."""
    part = dict(schema) if isinstance(schema, dict) else {}
    nullable = False
    while "$ref" in part:
        reference = part.pop("$ref")
        part = {**resolve_reference(reference, root), **part}
    for key in ("anyOf", "oneOf"):
        branches = [branch for branch in part.get(key, ()) if branch != {"type": "null"}]
        nullable |= len(branches) < len(part.get(key, ()))
        if len(branches) == 1 and nullable:
            rest = {name: value for name, value in part.items() if name not in (key, "default")}
            return {**_resolve_nullable(branches[0], root)[0], **rest}, True
    types = part.get("type")
    if isinstance(types, list) and "null" in types:
        left = [kind for kind in types if kind != "null"]
        part["type"], nullable = left[0] if len(left) == 1 else left, True
    if "enum" in part:
        nullable |= None in part["enum"] and "type" not in part
        part["enum"] = [value for value in part["enum"] if value is not None]
    return part, nullable


def _order_values(values: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    """`values` in the schema's order: null for absent nullable fields, no null for other fields."""
    inner, _ = _resolve_nullable(schema, root)
    if isinstance(values, list):
        return [_order_values(value, inner.get("items"), root) for value in values]
    if not isinstance(values, dict):
        return values
    ordered: dict[str, Any] = {}
    for name, part in inner.get("properties", {}).items():
        _, nullable = _resolve_nullable(part, root)
        value = _order_values(values.get(name), part, root)
        if value is not None or nullable or (name in values and name in inner.get("required", ())):
            ordered[name] = value
    return {**ordered, **{name: value for name, value in values.items() if name not in inner.get("properties", {})}}


def narrow_schema(
    schema: Any, root: Mapping[str, Any], left_out: Sequence[str], lists: Sequence[ListPlan] = (), path: str = ""
) -> dict[str, Any]:
    """`schema` with all fields required, except `left_out`, which are null or absent; items of `lists` follow their plan."""
    plans = {plan.path: plan for plan in lists}
    inner, _ = _resolve_nullable(schema, root)
    required: dict[str, Any] = {}
    for name, part in inner.get("properties", {}).items():
        below, nullable = _resolve_nullable(part, root)
        location = f"{path}.{name}".lstrip(".")
        if location in left_out:
            required |= {name: {"type": "null"}} if nullable else {}
        elif below.get("type") == "object" and location.count(".") < MAX_NESTING:
            required[name] = narrow_schema(part, root, left_out, lists, location)
        elif below.get("type") == "array":
            required[name] = _narrow_list(below, root, plans.get(location, ListPlan(location, (), ())))
        else:
            required[name] = below
    return {**inner, "properties": required, "required": list(required)} if required else inner


def _narrow_list(schema: dict[str, Any], root: Mapping[str, Any], plan: ListPlan) -> dict[str, Any]:
    narrow = {**schema, "minItems": max(2 if plan.some else 1, schema.get("minItems", 1))}
    if plan.each:
        item, _ = _resolve_nullable(schema["items"], root)
        told = {name: _resolve_nullable(item["properties"][name], root)[0] for name in plan.each}
        required = [name for name in item["properties"] if name in told or name in item.get("required", ())]
        narrow["items"] = {**item, "properties": {**item["properties"], **told}, "required": required}
    return narrow


def _gives_same_values(subject: Subject, reply: IndependentSolution, _options: Options) -> bool:
    return is_same_json(subject.candidate.fields["answer"], str(reply.answer))


@check("complete", attempt=AttemptJudge(IndependentSolution, _gives_same_values, plain=WHOLE_ANSWER))
def complete_check(subject: Subject, _options: Options) -> list[Finding]:
    """Every field that the seed demands has a value, none that it leaves out has one, list items follow their plan, and the
    decoy is in the text only.
    """
    seed, fields = subject.seed.data, subject.candidate.fields
    values, decoy = fields["values"], fields["decoy"]
    faults: list[str | None] = []
    for path in seed["demanded"]:
        if value_at(path, values) in (None, "", [], {}):
            faults.append(f"{path} is asked for and is empty; tell it in the text and give its value")
    faults += [_list_fault(value_at(plan[0], values), ListPlan(*plan)) for plan in seed.get("lists", ())]
    for path in seed["left_out"]:
        if (value := value_at(path, values)) not in (None, [], {}):
            faults.append(
                f"{path} must not be told, but its value is {str(value)[:80]!r}; leave it out of the text and of the values"
            )
    faults.append(_repeated_item_fault(values))
    leaves = list(iter_leaves(values, seed["schema"]))
    count = sum(leaf.value is not None for leaf in leaves)
    if count < seed["least"]:
        faults.append(f"the text gives {count} values, and {seed['least']} are wanted")
    met = f"all fields are told but {', '.join(seed['left_out']) or 'none'}"
    findings = [build_finding("complete", first_fault(faults), met)]

    if seed["decoy"]:
        fault = None
        if not any(character.isalnum() for character in decoy):
            fault = f"the text must also have {seed['decoy']}; name it as decoy"
        elif not read_written(fields["text"]).contains_phrase(decoy):
            fault = f"the decoy {decoy[:80]!r} is not in the text"
        elif any(_matches_decoy(leaf, decoy) for leaf in leaves):
            fault = f"{decoy[:80]!r} is a value too; {seed['decoy']} must differ from all values"
        findings.append(build_finding("decoy", fault, "the decoy is in the text and in no value"))
    return findings


def _list_fault(items: Any, plan: ListPlan) -> str | None:
    """Which optional field of the items is not told as planned, in words."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    for name in (*plan.each, *plan.some):
        told = [item.get(name) not in (None, "", [], {}) for item in items]
        if name in plan.each and not all(told):
            return f"{plan.path}.{told.index(False)}.{name} is empty; tell {name} of each item in {plan.path}"
        if name in plan.some and not any(told):
            return f"{name} is told of no item in {plan.path}; tell it of at least one"
        if name in plan.some and all(told):
            return f"{name} is told of each item in {plan.path}; leave it out of the text for at least one"
    return None


def value_at(path: str, values: Any) -> Any:
    """The value at a dotted path; None if it is absent."""
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def _repeated_item_fault(values: Any, path: str = "") -> str | None:
    if isinstance(values, list):
        texts = [json.dumps(item, sort_keys=True) for item in values]
        if len(set(texts)) < len(texts):
            return f"{path} has an item twice"
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return first_fault([_repeated_item_fault(value, f"{path}.{key}".lstrip(".")) for key, value in inner])


def _matches_decoy(leaf: ValueLeaf, decoy: str) -> bool:
    """Whether a value occurs in the decoy, or the decoy in the value. Choices and flags are ignored."""
    if (
        leaf.value is None
        or isinstance(leaf.value, bool)
        or any({"enum", "const"} & part.schema.keys() for part in leaf.parts)
    ):
        return False
    return find_leaf_fault(leaf, read_written(decoy)) is None or read_written(str(leaf.value)).contains_phrase(decoy)


class ExtractionFamily(RecipeFamily):
    name = "extraction"
    fields = ("text", "values", "decoy", "answer")
    options = ExtractionOptions
    checks = (complete_check,)
    writes = ("generator", "extract")
    seeded_by = ("path", "documents")
    # Answers are JSON, whose keys repeat and whose length is the schema's, so no filter for prose. Two texts can have the same
    # values.
    defaults: ClassVar[Mapping[str, Any]] = {
        "collapse": {"kind": "json"},
        "agents": {"generator": {"max_tokens": 1200, "examples": 3}},
        "verifiers": [{"type": "schema"}, {"type": "complete"}, {"type": "occurs"}],
        "filters": [{"type": "exact"}, {"type": "minhash"}],
    }

    def condition(self, row: Mapping[str, Any], options: ExtractionOptions, rng: Random) -> dict[str, Any]:
        schema: Any = row.get("schema", options.wanted)
        if schema is None:
            raise UnusableSeedRow("'schema', or the recipe one as task.schema")
        try:
            _check_extraction_schema(schema)
        except InvalidSchema as error:
            raise UnusableSeedRow(f"'schema' with a JSON schema that can be used: {error}") from None

        indent = rng.choice((None, None, 2))
        separators = (",", ":") if indent is None else None
        asked = {
            "schema": schema,
            "shown": json.dumps(describe_booleans(schema), ensure_ascii=False, indent=indent, separators=separators),
            "instruction": rng.choice(INSTRUCTIONS),
            "layout": rng.choice(LAYOUTS),
        }
        if "text" in row:
            source = {"source": row.get("source", ""), "number": row.get("number", 0)}
            free = {
                "text": row["text"],
                "demanded": [],
                "left_out": [],
                "lists": [],
                "decoy": "",
                "least": options.least,
            }
            return {**asked, **source, **free}

        # What makes this text differ from others by the same schema.
        style, place = (
            some if isinstance(some, str) else rng.choice(some)
            for some in (row.get("style") or STYLES, row.get("place") or PLACES)
        )
        demands = _draw_demands(row, schema, options, rng)
        needed = WORDS_PER_FIELD * len(demands["demanded"])
        needed += sum(WORDS_PER_ITEM_FIELD * len(_list_item_fields(schema, path)) for path in demands["demanded"])
        roomy = [words for words in options.words if words >= needed] or [max(options.words)]
        words = rng.choice(roomy)
        topic = require_text(row, "topic")
        voice = _draw_voice([topic, style, f"{words} words"], rng)
        situation = {"topic": topic, "style": style, "place": place, "words": words}
        return {**asked, **situation, **voice, "letters": sorted(rng.sample(LETTERS, 3)), **demands, "least": 1}

    def prompt_role(self, seed: Seed) -> str:
        return "extract" if "text" in seed.data else "generator"

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return ValuesDraft if "text" in seed.data else TextDraft

    def reply_json_schema(self, seed: Seed) -> dict[str, Any]:
        wanted = remove_notes(seed.data["schema"])
        if "text" in seed.data:
            properties = {"values": close_objects(wanted)}
        else:
            text = {"type": "string", "minLength": 40}
            lists = [ListPlan(*plan) for plan in seed.data.get("lists", ())]
            narrow = narrow_schema(wanted, wanted, seed.data["left_out"], lists)
            properties = {"text": text, "values": close_objects(narrow)}
            properties |= {"decoy": {"type": "string", "minLength": 1}} if seed.data["decoy"] else {}
        # References begin with #/$defs/, so $defs must be at the root of the sent schema.
        shared = properties["values"].pop("$defs", None)
        whole = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        return {**whole, "$defs": shared} if shared else whole

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        data = seed.data
        if "text" in data:
            wish = f"Give the values of this text.\nText: {data['text']}"
        else:
            wish_lines = [
                f"Write {data['style']} of about {data['words']} words. Subject: {data['topic']}. Setting: {data['place']}; "
                f"names of people begin with {', '.join(data['letters'])}.",
                *(
                    [f"The writer is {data['sender']}; the tone is {data['register']}. Begin {data['opening']}."]
                    if "sender" in data
                    else []
                ),
                f"Do not tell: {', '.join(data['left_out'])}. Tell every other field."
                if data["left_out"]
                else "Tell every field.",
                *(_describe_list_plan(ListPlan(*plan)) for plan in data.get("lists", ())),
                *([f"As decoy, the text also has {data['decoy']}."] if data["decoy"] else []),
            ]
            wish = "\n".join(wish_lines)
        return {"wish": wish, "schema": json.dumps(data["schema"], ensure_ascii=False)}

    def candidate(self, seed: Seed, draft: TextDraft | ValuesDraft) -> Candidate:
        data = seed.data
        text = draft.text.strip() if isinstance(draft, TextDraft) else data["text"]
        values = _order_values(draft.values, data["schema"], data["schema"])
        try:
            answer = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except ValueError:
            raise InvalidReply("values: NaN and Infinity are no JSON") from None
        decoy = draft.decoy if isinstance(draft, TextDraft) else ""

        instruction, schema = f"{data['instruction']} {NULL_RULE}", f"Schema:\n{data['shown']}"
        if data["layout"] == "system":
            messages = [
                Message(role="system", content=f"{instruction}\n\n{schema}"),
                Message(role="user", content=text),
            ]
        else:
            parts = [schema, f"Text:\n{text}"] if data["layout"] == "schema_first" else [f"Text:\n{text}", schema]
            messages = [Message(role="user", content="\n\n".join([instruction, *parts]))]
        return Candidate(
            messages=[*messages, Message(role="assistant", content=answer)],
            fields={"text": text, "values": values, "decoy": decoy, "answer": answer},
        )


def _draw_voice(given: Sequence[str], rng: Random) -> dict[str, str]:
    """A sender, a register and an opening that go with each other and with what is `given`."""
    drawn: dict[str, str] = {}
    for name, choices in (("sender", SENDERS), ("register", REGISTERS), ("opening", OPENINGS)):
        known = [*given, *drawn.values()]
        fit = [one for one in choices if not any(_is_unfit(one, other) for other in known)] or list(choices)
        drawn[name] = rng.choices(fit, [choices[one] for one in fit])[0]
    return drawn


def _is_unfit(one: str, other: str) -> bool:
    """Whether two conditions of a text do not go together, such as a formal tone and a diary."""
    (first, second), (other_first, other_second) = _match_unfit(one), _match_unfit(other)
    return bool(first & other_second or other_first & second)


@lru_cache(maxsize=4096)
def _match_unfit(text: str) -> tuple[int, int]:
    """Which of the pairs in `UNFIT` have a first pattern that `text` matches, and which a second one, as bits."""
    first, second = (sum(bool(pair[i].search(text)) << bit for bit, pair in enumerate(UNFIT)) for i in (0, 1))
    return first, second


def _draw_demands(
    row: Mapping[str, Any], schema: dict[str, Any], options: ExtractionOptions, rng: Random
) -> dict[str, Any]:
    """Instructions for the text: fields to state, fields to omit, and the decoy."""
    all_wishes = list_wanted_fields(schema)
    known, decoys = [wish.path for wish in all_wishes], row.get("decoys", {})
    if not isinstance(decoys, dict) or not all(isinstance(text, str) for text in decoys.values()):
        raise UnusableSeedRow("'decoys', if any, with texts by the field that each could be taken for")
    if strange := sorted(set(decoys) - set(known)):
        raise UnusableSeedRow(f"'decoys', if any, by fields of the schema ({', '.join(known)}), not {strange[0]!r}")

    optional = [wish.path for wish in all_wishes if wish.optional]
    left_out: list[str] = []
    if optional and rng.random() < options.missing:
        left_out = sorted(rng.sample(optional, min(len(optional), rng.choice((1, 1, 2)))))
        left_out = [path for path in left_out if not any(path.startswith(f"{other}.") for other in left_out)]
        left_out = [path for path in left_out if not _empties_parent(path, left_out, known)]
    # A decoy of a field that is left out would read as the field.
    fit = [text for path, text in decoys.items() if not _is_within(path, left_out)]
    decoy = rng.choice(fit) if fit and rng.random() < options.decoys else ""
    demanded = [path for path in known if not _is_within(path, left_out)]
    lists = [plan for path in demanded if (plan := _draw_list_plan(schema, path, rng)).each or plan.some]
    return {"demanded": demanded, "left_out": left_out, "lists": [list(plan) for plan in lists], "decoy": decoy}


def _draw_list_plan(schema: dict[str, Any], path: str, rng: Random) -> ListPlan:
    """Which optional fields of a list's items are told of each item, and which one of some only, if any: a second one would
    make an item of which nothing is told.
    """
    single = _part_at(schema, path).get("maxItems", 2) < 2
    optional = [field.path for field in _list_item_fields(schema, path) if field.optional]
    some = [] if single or not optional or rng.random() < TOLD_OF_EACH else [rng.choice(optional)]
    return ListPlan(path, [name for name in optional if name not in some], some)


def _describe_list_plan(plan: ListPlan) -> str:
    parts = [f"tell {', '.join(plan.each)} of each item"] if plan.each else []
    if plan.some:
        parts.append(f"tell {', '.join(plan.some)} of at least one item, and not of at least one other")
    return f"In {plan.path}: {'; '.join(parts)}."


def _empties_parent(path: str, left_out: Sequence[str], known: Sequence[str]) -> bool:
    """Whether an object that is told would have no field, and `path` is its first."""
    parent = path.rpartition(".")[0]
    siblings = [other for other in known if parent and other.rpartition(".")[0] == parent]
    return siblings[:1] == [path] and set(siblings) <= set(left_out)


def _is_within(path: str, left_out: Sequence[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in left_out)
