"""Extraction to a schema: a text, a JSON schema, and the values that the text gives for it. Knows no teacher.

Two ways: from a schema and a topic the generator writes the text and its values; from a user's document only the values.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, field_validator

from agents.checks import AttemptJudge, Finding, Options, Subject, build_finding, check, first_fault
from agents.checks.json_schema import InvalidSchema, close_objects, describe_booleans, is_same_json, remove_notes
from agents.checks.plain_answers import WHOLE_ANSWER, IndependentSolution
from agents.checks.text.layouts import read_layout
from agents.checks.text.quantities import read_written
from agents.checks.text.value_in_text import ValueLeaf, find_leaf_fault, is_choice, iter_leaves
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text, validate_weights
from agents.families.extraction_forms import (
    FORMS,
    INFERRED,
    INSTRUCTIONS,
    LIST_ITEMS,
    LONG_LISTS,
    PLACES,
    STYLES,
    ComputedField,
    add_scan_noise,
    compute_field,
    describe_computed,
    describe_inferred,
    describe_wish,
    draw_voice,
    find_scene_faults,
    list_computed_fields,
)
from agents.families.extraction_schemas import (
    ListPlan,
    check_extraction_schema,
    empties_parent,
    is_within,
    list_item_fields,
    list_wanted_fields,
    narrow_schema,
    omit_computed,
    order_values,
    part_at,
    value_at,
)
from agents.reply_schema import InvalidReply, ReplySchema, iter_texts, parse_reply
from core.sample import Candidate, Message, Seed
from teachers.grammar_bounds import iter_subschemas

TOLD_OF_EACH = 0.6
"""Probability that all optional fields of list items are told of each item, and not one of them of some items only."""
WORDS_PER_FIELD, WORDS_PER_ITEM_FIELD = 7, 6
"""Words that a natural text needs for a field, and for one of each field of list items (two items of three words): shorter
texts list values in brackets."""
USUAL_ITEMS = 2
"""Items of a list that `WORDS_PER_ITEM_FIELD` is for."""
WRITTEN_INFERENCE = 0.6
"""Share of the inferred choices that only the writing shows, in forms with a voice."""
LETTERS = "ABCDEFGHIJKLMNOPRSTVWYZ"
"""Drawn first letters vary the names; without them, a teacher repeats a few favorites."""

NULL_RULE = "What the text does not say is null where the schema allows null, and left out where it does not."
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
    """Approximate length: one of those with room for the fields, at random. `long` has its own."""
    forms: Annotated[dict[str, int], validate_weights("form", FORMS)] = Field({"prose": 1}, min_length=1)
    """Of written texts, by weight: `prose`, `email`, `form`, `table`, `html`, `scan`, `long`."""
    inferred: float = Field(0.0, ge=0, le=1)
    """Share with an added choice that no word names."""
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
            check_extraction_schema(schema)
        return schema


def _gives_same_values(subject: Subject, reply: IndependentSolution, _options: Options) -> bool:
    return is_same_json(subject.candidate.fields["answer"], str(reply.answer))


@check("complete", attempt=AttemptJudge(IndependentSolution, _gives_same_values, plain=WHOLE_ANSWER), languages=("en",))
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
    faults += find_scene_faults(seed, fields["text"], values)
    met = f"all fields are told but {', '.join(seed['left_out']) or 'none'}"
    findings = [build_finding("complete", first_fault(faults), met)]

    if seed["decoy"]:
        fault = _decoy_fault(seed["decoy"], decoy, read_layout(fields["text"]), leaves)
        findings.append(build_finding("decoy", fault, "the decoy is in the text and in no value"))
    return findings


def _decoy_fault(wanted: str, decoy: str, text: str, leaves: Sequence[ValueLeaf]) -> str | None:
    if not any(character.isalnum() for character in decoy):
        return f"the text must also have {wanted}; name it as decoy"
    if not read_written(text).contains_phrase(decoy):
        return f"the decoy {decoy[:80]!r} is not in the text"
    if any(_matches_decoy(leaf, decoy) for leaf in leaves):
        return f"{decoy[:80]!r} is a value too; {wanted} must differ from all values"
    return None


def _list_fault(items: Any, plan: ListPlan) -> str | None:
    """Which optional field of the items is not told as planned, in words."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    if plan.length and len(items) != plan.length:
        return f"{plan.path} has {len(items)} items, and {plan.length} are wanted"
    for name in (*plan.each, *plan.some):
        told = [item.get(name) not in (None, "", [], {}) for item in items]
        if name in plan.each and not all(told):
            return f"{plan.path}.{told.index(False)}.{name} is empty; tell {name} of each item in {plan.path}"
        if name in plan.some and not any(told):
            return f"{name} is told of no item in {plan.path}; tell it of at least one"
        if name in plan.some and all(told):
            return f"{name} is told of each item in {plan.path}; leave it out of the text for at least one"
    return None


def _repeated_item_fault(values: Any, path: str = "") -> str | None:
    if isinstance(values, list):
        texts = [json.dumps(item, sort_keys=True) for item in values]
        if len(set(texts)) < len(texts):
            return f"{path} has an item twice"
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return first_fault([_repeated_item_fault(value, f"{path}.{key}".lstrip(".")) for key, value in inner])


def _matches_decoy(leaf: ValueLeaf, decoy: str) -> bool:
    """Whether a value occurs in the decoy, or the decoy in the value. Choices and flags are ignored."""
    if leaf.value is None or isinstance(leaf.value, bool) or is_choice(leaf):
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
        "agents": {"generator": {"max_tokens": 3000, "examples": 3}},
        "verifiers": [{"type": "schema"}, {"type": "complete"}, {"type": "occurs"}],
        "filters": [{"type": "exact"}, {"type": "minhash"}],
    }

    def condition(self, row: Mapping[str, Any], options: ExtractionOptions, rng: Random) -> dict[str, Any]:
        schema: Any = row.get("schema", options.wanted)
        if schema is None:
            raise UnusableSeedRow("'schema', or the recipe one as task.schema")
        try:
            check_extraction_schema(schema)
        except InvalidSchema as error:
            raise UnusableSeedRow(f"'schema' with a JSON schema that can be used: {error}") from None

        if "text" in row:
            source = {"source": row.get("source", ""), "number": row.get("number", 0), "text": row["text"]}
            free = {"demanded": [], "left_out": [], "lists": [], "decoy": "", "least": options.least}
            return {**_draw_question(schema, rng, varied="schema" in row), **source, **free}

        # What makes this text differ from others by the same schema.
        has_list = any(list_item_fields(schema, field.path) for field in list_wanted_fields(schema))
        forms = {n: w for n, w in options.forms.items() if w and (has_list or n != "table")} or options.forms
        form = rng.choices(list(forms), list(forms.values()))[0]
        style, place = (
            some if isinstance(some, str) else rng.choice(some)
            for some in (FORMS[form].get("looks") or row.get("style") or STYLES, row.get("place") or PLACES)
        )
        spoken, long = FORMS[form].get("voice", False), "lengths" in FORMS[form]
        demands = _draw_demands(row, schema, options, rng, listing=long or not spoken)
        needed = WORDS_PER_FIELD * len(demands["demanded"])
        counts = {plan[0]: plan[3] for plan in demands["lists"]}
        for path in demands["demanded"]:
            items = max(1, counts.get(path, 0) / USUAL_ITEMS)
            needed += round(WORDS_PER_ITEM_FIELD * items * len(list_item_fields(schema, path)))
        lengths = FORMS[form].get("lengths", options.words)
        words = rng.choice([words for words in lengths if words >= needed] or [max(needed, *lengths)])
        topic = require_text(row, "topic")
        voice = draw_voice([topic, style, f"{words} words"], rng) if spoken else {}
        schema, shown_only = _draw_inference(schema, demands, spoken and not long, options, rng)
        situation = {"topic": topic, "form": form, "style": style, "place": place, "words": words}
        noise = {"noise": rng.randrange(2**32)} if form == "scan" else {}
        asked = {**_draw_question(schema, rng), **situation, **voice, "letters": sorted(rng.sample(LETTERS, 3))}
        return {**asked, **demands, **shown_only, **noise, "least": 1}

    def prompt_role(self, seed: Seed) -> str:
        return "extract" if "text" in seed.data else "generator"

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return ValuesDraft if "text" in seed.data else TextDraft

    def reply_json_schema(self, seed: Seed) -> dict[str, Any]:
        wanted = remove_notes(omit_computed(seed.data))
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
                f"Write {data['style']}, of about {data['words']} words. Subject: {data['topic']}. Setting: {data['place']}; "
                f"names of people begin with {', '.join(data['letters'])}.",
                *(
                    [f"The writer is {data['sender']}; the tone is {data['register']}. Begin {data['opening']}."]
                    if "sender" in data
                    else []
                ),
                f"Do not tell: {', '.join(data['left_out'])}. Tell every other field."
                if data["left_out"]
                else "Tell every field.",
                *(line for plan in data.get("lists", ()) for line in _describe_list_plan(ListPlan(*plan))),
                *([describe_wish(*data["inferred"])] if "inferred" in data else []),
                *([FORMS[data["form"]]["request"]] if "request" in FORMS.get(data.get("form", ""), {}) else []),
                *([f"As decoy, the text also has {data['decoy']}."] if data["decoy"] else []),
            ]
            wish = "\n".join(wish_lines)
        return {"wish": wish, "schema": json.dumps(omit_computed(data), ensure_ascii=False)}

    def questions(self, seed: Seed) -> Sequence[Message] | None:
        return _build_question(seed.data, seed.data["text"]) if "text" in seed.data else None

    def build_answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        try:
            values = json.loads("".join(answers))
        except ValueError as error:
            raise InvalidReply(f"the answer is no JSON: {error}") from None
        return self.candidate(seed, parse_reply(ValuesDraft, {"values": values}))

    def candidate(self, seed: Seed, draft: TextDraft | ValuesDraft) -> Candidate:
        data = seed.data
        text = draft.text.strip() if isinstance(draft, TextDraft) else data["text"]
        computed = {
            field.name: compute_field(field.rule, value_at(field.of, draft.values))
            for field in (ComputedField(*one) for one in data.get("computed", ()))
        }
        values = order_values({**draft.values, **computed}, data["schema"], data["schema"])
        try:
            answer = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except ValueError:
            raise InvalidReply("values: NaN and Infinity are no JSON") from None
        decoy = draft.decoy if isinstance(draft, TextDraft) else ""

        shown = text
        if "noise" in data:
            kept = list_protected_texts(values, data["schema"], decoy)
            shown = add_scan_noise(text, kept, Random(data["noise"]))
        return Candidate(
            messages=[*_build_question(data, shown), Message(role="assistant", content=answer)],
            fields={"text": text, "values": values, "decoy": decoy, "answer": answer},
        )


def _draw_question(schema: Mapping[str, Any], rng: Random, *, varied: bool = True) -> dict[str, Any]:
    """How a student is asked. If it is not `varied`, a student of one schema meets in use the one form that it learned."""
    indent = rng.choice((None, None, 2)) if varied else None
    separators = None if indent else (",", ":")
    return {
        "schema": schema,
        "shown": json.dumps(describe_booleans(schema), ensure_ascii=False, indent=indent, separators=separators),
        "instruction": rng.choice(INSTRUCTIONS) if varied else INSTRUCTIONS[0],
        "layout": rng.choice(LAYOUTS) if varied else "system",
    }


def _draw_inference(
    schema: dict[str, Any], demands: Mapping[str, Any], spoken: bool, options: ExtractionOptions, rng: Random
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema with a field that the text does not say, if one is drawn, and what the seed has of it."""
    if rng.random() >= options.inferred:
        return schema, {}
    found = list_computed_fields({path: part_at(schema, path) for path in demands["demanded"]})
    properties = schema["properties"]
    computed = [field for field in found if field.name not in properties]
    free = [one for one in INFERRED if one["name"] not in properties]
    if spoken and free and (not computed or rng.random() < WRITTEN_INFERENCE):
        inferred = rng.choice(free)
        name, part = inferred["name"], describe_inferred(inferred)
        drawn: dict[str, Any] = {"inferred": [name, rng.choice(list(inferred["values"]))]}
        drawn["demanded"] = [*demands["demanded"], name]
    elif computed:
        field = rng.choice(computed)
        drawn, name, part = {"computed": [list(field)]}, field.name, describe_computed(field)
    else:
        return schema, {}
    required = [*schema.get("required", ()), name]
    return {**schema, "properties": {**properties, name: part}, "required": required}, drawn


def _build_question(data: Mapping[str, Any], text: str) -> list[Message]:
    """What a student is asked about a text."""
    instruction, schema = f"{data['instruction']} {NULL_RULE}", f"Schema:\n{data['shown']}"
    if data["layout"] == "system":
        return [Message(role="system", content=f"{instruction}\n\n{schema}"), Message(role="user", content=text)]
    parts = [schema, f"Text:\n{text}"] if data["layout"] == "schema_first" else [f"Text:\n{text}", schema]
    return [Message(role="user", content="\n\n".join([instruction, *parts]))]


def list_protected_texts(values: Any, schema: Mapping[str, Any], decoy: str) -> list[str]:
    """The texts that noise of a scan must not touch: values, words for values, the decoy."""
    evidence = [part.get("x-evidence", ()) for _, part in iter_subschemas(schema)]
    return [decoy, *iter_texts(values), *iter_texts(evidence)]


def _draw_demands(
    row: Mapping[str, Any], schema: dict[str, Any], options: ExtractionOptions, rng: Random, *, listing: bool
) -> dict[str, Any]:
    """Instructions for the text: fields to state, fields to omit, the decoy, and the length of a list if the text is
    `listing`.
    """
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
        left_out = [path for path in left_out if not empties_parent(path, left_out, known)]
    # A decoy of a field that is left out would read as the field.
    fit = [text for path, text in decoys.items() if not is_within(path, left_out)]
    decoy = rng.choice(fit) if fit and rng.random() < options.decoys else ""
    demanded = [path for path in known if not is_within(path, left_out)]
    lists = [_draw_list_plan(schema, path, rng) for path in demanded]
    roomy = [i for i, plan in enumerate(lists) if list_item_fields(schema, plan.path) and _has_room(schema, plan.path)]
    if listing and roomy and rng.random() < LONG_LISTS:
        at = rng.choice(roomy)
        lists[at] = lists[at]._replace(length=rng.choice(LIST_ITEMS))
    lists = [plan for plan in lists if plan.each or plan.some or plan.length]
    return {"demanded": demanded, "left_out": left_out, "lists": [list(plan) for plan in lists], "decoy": decoy}


def _has_room(schema: Mapping[str, Any], path: str) -> bool:
    """Whether the list at a path may have any number of `LIST_ITEMS`."""
    part, (least, *_, most) = part_at(schema, path), LIST_ITEMS
    return bool(part.get("minItems", 0) <= least and part.get("maxItems", most) >= most)


def _draw_list_plan(schema: dict[str, Any], path: str, rng: Random) -> ListPlan:
    """Which optional fields of a list's items are told of each item, and which one of some only, if any: a second one would
    make an item of which nothing is told.
    """
    single = part_at(schema, path).get("maxItems", 2) < 2
    optional = [field.path for field in list_item_fields(schema, path) if field.optional]
    some = [] if single or not optional or rng.random() < TOLD_OF_EACH else [rng.choice(optional)]
    return ListPlan(path, [name for name in optional if name not in some], some)


def _describe_list_plan(plan: ListPlan) -> Iterator[str]:
    parts = [f"tell {', '.join(plan.each)} of each item"] if plan.each else []
    if plan.some:
        parts.append(f"tell {', '.join(plan.some)} of at least one item, and not of at least one other")
    if plan.length:
        yield f"The list {plan.path} has exactly {plan.length} items, all different."
    if parts:
        yield f"In {plan.path}: {'; '.join(parts)}."
