"""The check `tool_schema` on the functions and possible answers of the Berkeley Function Calling Leaderboard (BFCL).

    python -m benchmarks.external_truth.bfcl [FOLDER]

FOLDER is the unpacked wheel of the package `bfcl-eval`, or its folder `data`; without it, an installed `bfcl-eval` is used. Every
right answer must pass, and every answer with one planted fault must fail. It exits with 1 if a wrong answer passes, or if more
than 1 % of the right ones fail. Some of BFCL's possible answers contradict their own schemas; they are counted apart.
Source: https://github.com/ShishirPatil/gorilla (Apache-2.0).
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from agents.checks.base import Subject
from agents.checks.json_schema import find_schema_fault
from core.sample import Candidate, Message, Seed, ToolCall
from plugins.tools.checks.call_schema import ToolSchemaOptions, tool_schema_check

CATEGORIES = (
    "simple_python", "multiple", "parallel", "parallel_multiple",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple",
)  # fmt: skip
"""The categories whose functions are Python's and whose answers are listed."""
JSON_TYPES = {
    "dict": "object",
    "float": "number",
    "tuple": "array",
    "list": "array",
    "int": "integer",
    "bool": "boolean",
}
"""BFCL names types as Python does."""
LEFT_OUT = ""
"""Among the possible values of an argument, the sign that it may be left out."""
MAX_REFUSED_SHARE = 0.01
WRONG_VALUES: Mapping[str, Sequence[Any]] = {
    "string": (7, True, ["text"]),
    "integer": ("7", 7.5, True),
    "number": ("7.5", True),
    "boolean": ("true", 1),
    "array": ("text", {"a": 1}),
    "object": ("text", [1]),
}
"""By the type of a parameter: values of another type."""


PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "float": (int, float), "number": (int, float), "boolean": (bool,),
    "array": (list,), "tuple": (list,), "dict": (dict,), "object": (dict,),
}  # fmt: skip
"""Of the values of BFCL's types, in JSON."""


class BfclRow(NamedTuple):
    """A row of BFCL: the tools in OpenAI's form, and for each call its function and the possible values of each argument."""

    id: str
    functions: dict[str, dict[str, Any]]
    """The functions' parameters in BFCL's form, by name."""
    tools: list[dict[str, Any]]
    answers: list[tuple[str, dict[str, list[Any]]]]


class WrongAnswer(NamedTuple):
    fault: str
    calls: list[ToolCall]


def read_category(folder: Path, category: str) -> list[BfclRow]:
    """Raises FileNotFoundError if the folder is not BFCL's."""
    name = f"BFCL_v4_{category}.json"
    questions = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    answers = [
        json.loads(line) for line in (folder / "possible_answer" / name).read_text(encoding="utf-8").splitlines()
    ]
    truths = {answer["id"]: answer["ground_truth"] for answer in answers}
    return [convert_row({**question, "ground_truth": truths[question["id"]]}) for question in questions]


def convert_row(row: Mapping[str, Any]) -> BfclRow:
    tools = [
        {"type": "function", "function": {**function, "parameters": convert_schema(function["parameters"])}}
        for function in row["function"]
    ]
    answers = [(name, arguments) for call in row["ground_truth"] for name, arguments in call.items()]
    return BfclRow(row["id"], {one["name"]: one["parameters"] for one in row["function"]}, tools, answers)


def convert_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A BFCL schema as JSON Schema.

    Python's names of types are replaced, and notes such as `optional` are left out. A default is always a possible value, as in
    Python, even if its type is another. The enum of an array is that of its items. An enum without a value of the schema's type
    is left out.
    """
    kept = {key: schema[key] for key in ("description", "enum", "default", "minimum", "maximum") if key in schema}
    name = JSON_TYPES.get(schema.get("type", "any"), schema.get("type", "any"))
    if name != "any":
        kept["type"] = name
    if "properties" in schema:
        kept["properties"] = {key: convert_schema(value) for key, value in schema["properties"].items()}
        kept["required"] = list(schema.get("required", ()))
    if "items" in schema:
        kept["items"] = convert_schema(schema["items"])
    if name == "array" and "enum" in kept:
        kept["items"] = {**kept.get("items", {}), "enum": kept.pop("enum")}
    if "enum" in kept and not any(find_schema_fault(value, {"type": name}) is None for value in kept["enum"]):
        del kept["enum"]
    if "default" in kept and find_schema_fault(kept["default"], kept):
        return {"anyOf": [kept, {"const": kept["default"]}]}
    return kept


def list_right_answers(row: BfclRow) -> Iterator[list[ToolCall]]:
    """The first possible answer, then each other possible value of each argument in its place."""
    first = [ToolCall(name=name, arguments=_first_values(arguments)) for name, arguments in row.answers]
    yield first
    for number, (name, arguments) in enumerate(row.answers):
        for key, values in arguments.items():
            for value in values:
                changed = dict(first[number].arguments)
                changed.pop(key, None)
                if value != LEFT_OUT:
                    changed[key] = _resolve(value)
                elif LEFT_OUT not in values or _is_required(row, name, key):
                    continue
                if changed != first[number].arguments:
                    yield [*first[:number], ToolCall(name=name, arguments=changed), *first[number + 1 :]]


def _first_values(arguments: Mapping[str, list[Any]]) -> dict[str, Any]:
    """The first possible value of each argument that is not left out."""
    values = {key: next((v for v in some if v != LEFT_OUT), LEFT_OUT) for key, some in arguments.items()}
    return {key: _resolve(value) for key, value in values.items() if value != LEFT_OUT}


def _resolve(value: Any) -> Any:
    """A possible value as an argument: inside an object, each key has a list of possible values."""
    if isinstance(value, dict):
        return _first_values({key: some if isinstance(some, list) else [some] for key, some in value.items()})
    return [_resolve(item) for item in value] if isinstance(value, list) else value


def _is_required(row: BfclRow, name: str, key: str) -> bool:
    return key in _parameters(row, name).get("required", ())


def _parameters(row: BfclRow, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(t["function"]["parameters"] for t in row.tools if t["function"]["name"] == name)
    return found


def list_wrong_answers(row: BfclRow) -> Iterator[WrongAnswer]:
    """The first possible answer that passes, with one fault, for each fault that can be planted in one of its calls."""
    right = next((calls for calls in list_right_answers(row) if find_fault(row, calls) is None), [])
    for number, call in enumerate(right):
        for fault, name, arguments in _plant_faults(call, _parameters(row, call.name)):
            wrong = ToolCall(name=name, arguments=arguments)
            yield WrongAnswer(fault, [*right[:number], wrong, *right[number + 1 :]])


def _plant_faults(call: ToolCall, schema: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    given = call.arguments
    yield "unknown function", f"{call.name}_now", given
    yield "unknown argument", call.name, {**given, "unknown_argument": 1}
    for key in schema.get("required", ()):
        yield "missing argument", call.name, {name: value for name, value in given.items() if name != key}
    for key, value in given.items():
        part = schema["properties"].get(key, {})
        part = part["anyOf"][0] if "anyOf" in part else part
        kind = part.get("type", "")
        for wrong in WRONG_VALUES.get(kind, ()):
            yield "wrong type", call.name, {**given, key: wrong}
        if "enum" in part and kind == "string":
            yield "outside the enum", call.name, {**given, key: f"{value} or another"}
        items = part.get("items", {})
        for wrong in WRONG_VALUES.get(items.get("type", ""), ())[:1] if isinstance(value, list) else ():
            yield "wrong type of an item", call.name, {**given, key: [*value, wrong]}


def find_fault(row: BfclRow, calls: Sequence[ToolCall]) -> str | None:
    """What `tool_schema` finds in a conversation with these calls, each answered."""
    messages = [
        Message(role="user", content="-"),
        Message(role="assistant", content="", tool_calls=tuple(calls)),
        *(Message(role="tool", name=call.name, content="-") for call in calls),
        Message(role="assistant", content="-"),
    ]
    candidate = Candidate(messages=messages, fields={"tools": row.tools})
    found = tool_schema_check.run(Subject(Seed(id="bfcl-0", data={}), candidate, _ask_nobody), ToolSchemaOptions())
    assert found is None or isinstance(found, str)
    return found


def find_contradiction(value: Any, schema: Mapping[str, Any]) -> str | None:
    """How a value contradicts a schema in BFCL's form; None if it does not. Written without our check and without jsonschema, so
    that a refusal of the check is explained by something else than the check.
    """
    name = schema.get("type", "any")
    if ("default" in schema and value == schema["default"]) or name == "any":
        return None
    if not isinstance(value, PYTHON_TYPES[name]) or (isinstance(value, bool) and name != "boolean"):
        return "of another type"
    if isinstance(value, list):
        items = {**schema.get("items", {}), **({"enum": schema["enum"]} if "enum" in schema else {})}
        return next(filter(None, (find_contradiction(item, items) for item in value)), None)
    if isinstance(value, str) and value not in schema.get("enum", [value]):
        return "outside its enum"
    if not isinstance(value, dict) or "properties" not in schema:
        return None
    if missing := set(schema.get("required", ())) - value.keys():
        return f"without the required {min(missing)}"
    if unknown := value.keys() - schema["properties"].keys():
        return f"with {min(unknown)}, which the function does not have"
    parts = schema["properties"]
    return next(filter(None, (find_contradiction(inner, parts[key]) for key, inner in value.items())), None)


async def _ask_nobody(*_: Any, **__: Any) -> Any:
    raise AssertionError("tool_schema asks no teacher")


class CategoryResult(NamedTuple):
    category: str
    rows: int
    right: int
    contradictory: list[tuple[str, str]]
    """Answers that fail and contradict BFCL's own schema: the row, and the contradiction."""
    refused: list[tuple[str, str]]
    """Right answers that fail: the row, and the fault that was found."""
    wrong: Counter[str]
    """The wrong answers by fault."""
    passed: list[tuple[str, str]]
    """Wrong answers that pass: the row, and the planted fault."""


def measure_category(category: str, rows: Sequence[BfclRow]) -> CategoryResult:
    result = CategoryResult(category, len(rows), 0, [], [], Counter(), [])
    right = 0
    for row in rows:
        for calls in list_right_answers(row):
            right += 1
            if fault := find_fault(row, calls):
                found = [find_contradiction(call.arguments, row.functions[call.name]) for call in calls]
                why = next(filter(None, found), None)
                (result.contradictory if why else result.refused).append((row.id, why or fault))
        for wrong in list_wrong_answers(row):
            result.wrong[wrong.fault] += 1
            if find_fault(row, wrong.calls) is None:
                result.passed.append((row.id, wrong.fault))
    return result._replace(right=right)


def find_data_folder(given: str | None) -> Path:
    """The folder with BFCL's files. Raises FileNotFoundError with what to do."""
    spec = None if given else find_spec("bfcl_eval")
    installed = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    for folder in [Path(given)] if given else installed:
        for place in (folder, folder / "data", folder / "bfcl_eval" / "data"):
            if (place / "BFCL_v4_multiple.json").is_file():
                return place
    raise FileNotFoundError(f"{given or 'bfcl-eval'}: no BFCL_v4_multiple.json; name the unpacked wheel of bfcl-eval")


def table(results: Sequence[CategoryResult]) -> str:
    lines = [
        "| category | rows | possible answers | contradict their schema | falsely refused | wrong answers | passed |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    totals = [0] * 6
    for one in results:
        numbers = (one.rows, one.right, len(one.contradictory), len(one.refused), one.wrong.total(), len(one.passed))
        lines.append(f"| {one.category} | {' | '.join(map(str, numbers))} |")
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
    lines.append(f"| all | {' | '.join(map(str, totals))} |")
    faults: Counter[str] = sum((one.wrong for one in results), Counter())
    kinds = Counter(
        re.sub(r"(required|with) \w+.*", r"\1 argument", cause) for one in results for _, cause in one.contradictory
    )
    lines += ["", "Contradictions: " + ", ".join(f"{count} {name}" for name, count in kinds.most_common()) + "."]
    lines += [
        "",
        "Wrong answers by fault: " + ", ".join(f"{count} {name}" for name, count in faults.most_common()) + ".",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    folder = find_data_folder(arguments[0] if arguments else None)
    results = [measure_category(category, read_category(folder, category)) for category in CATEGORIES]
    lines = [table(results), ""]
    for one in results:
        lines += [f"{row} contradicts its schema: {cause}" for row, cause in one.contradictory]
        lines += [f"REFUSED {row}: {fault}" for row, fault in one.refused]
        lines += [f"PASSED {row}: {fault}" for row, fault in one.passed]
    sys.stdout.write("\n".join(lines) + "\n")
    refused, right = sum(len(one.refused) for one in results), sum(one.right for one in results)
    return int(any(one.passed for one in results) or refused > MAX_REFUSED_SHARE * right)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
