"""Scripts of fake teachers for conversations with tools, in plain words and now and then with one mistake.

With the simulated tools, a writer follows its plan, in three of five cases without a mistake. With a recipe's own tools, it
asks with a tool's arguments, which it reads from the prompt, calls the tool, and says what came out.
"""

import json
import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, TeacherScript

CORRECT_SHARE = 0.6
"""Share of the planned drafts without a mistake on purpose."""
CALL = re.compile(r"^- (\w+) (\{.*\}) returns (\{.*\})$", re.MULTILINE)
UNITS = {"_c": " °C", "_kmh": " km/h", "_km": " km", "_percent": "%", "_eur": " EUR"}
MISTAKES = ("number", "fewer", "more", "argument", "type", "extra", "tool", "unsaid", "untold", "claim")
"""A wrong number in the reply, a missing call, an extra call, a wrong argument, a wrong type, an unknown argument, a tool that is
not offered, an argument without a source, a missing result, a failure reported as success."""
MISTAKE_SHARE = 0.15
"""Of the requests, steps and replies with own tools, each: a wrong number in the reply, a call made twice, an argument that is
not in the conversation, an unknown tool, a reply without the result."""
SAID = re.compile(r"the ([a-z ]+) = ([^,]+)(?:, |\.$)")
OUTSIDE = "Could you water the plants for me?"

DraftTurnData = dict[str, Any]


def _write_conversation(rng: Random, question: TeacherQuestion, right: float = CORRECT_SHARE) -> dict[str, Any]:
    plan = next(m.content for m in reversed(question.messages) if m.role == "user" and "\nTurn 1, " in m.content)
    turns = [_write_turn(text, rng) for text in re.split(r"^Turn \d+, ", plan, flags=re.MULTILINE)[1:]]
    if rng.random() > right:
        mistake = rng.choice(MISTAKES)
        _make_mistake(mistake, rng.choice(turns), rng)
    return {"turns": turns}


def _write_turn(text: str, rng: Random) -> DraftTurnData:
    found = [(name, json.loads(arguments), json.loads(result)) for name, arguments, result in CALL.findall(text)]
    calls = [{"name": name, "arguments": arguments} for name, arguments, _ in found]
    results = [result for *_, result in found]
    if missing := re.search(r"forgets to tell `(\w+)`", text):
        given = re.search(r"The user tells (\{.*\}) and", text)
        known = ", ".join(_describe_arguments(json.loads(given[1]))) if given else "please help"
        words = {"minutes": "how long", "people": "how many people", "quantity": "how many", "start": "from where"}
        asked = words.get(missing[1], missing[1].removeprefix("to_"))
        return {
            "request": f"This is what it is about: {known}.",
            "calls": [],
            "reply": f"You did not say it: {asked}?",
        }
    if not found:
        need = re.search(r"The user wants (.*?)\. None", text)
        return {
            "request": f"What about {need[1] if need else 'it'}?",
            "calls": [],
            "reply": "No, that I cannot do here.",
        }
    plain = {key: value for key, value in results[0].items() if not isinstance(value, list)}
    taken = {str(value) for _, value in _iter_leaves(plain)} - {str(value) for _, value in _iter_leaves(found[0][1])}
    taken = taken if "one after the other" in text else set()
    wanted = [
        line for call in calls for line in _describe_arguments(call["arguments"]) if line.split(" = ")[1] not in taken
    ]
    opening = rng.choice(("Please do this for me", "I would like this", "Could you see to this"))
    return {
        "request": f"{opening}: {', '.join(dict.fromkeys(wanted))}.",
        "calls": calls,
        "reply": " ".join(map(_describe_result, results)),
    }


def _describe_arguments(arguments: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"the {key} = {value}" for key, value in _iter_leaves(arguments))


def _iter_leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values within `value`, each with its key in words."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _iter_leaves(inner, name.replace("_", " "))
    elif isinstance(value, list):
        for inner in value:
            yield from _iter_leaves(inner, key)
    else:
        yield key, value


def _describe_result(result: Mapping[str, Any]) -> str:
    """All values of a result, one after the other."""
    if "error" in result:
        return f"It could not be done: {result['error']}."
    parts = []
    for key, value in result.items():
        unit = next((unit for suffix, unit in UNITS.items() if key.endswith(suffix)), "")
        unit = f" {key}" if key in ("hours", "minutes") else unit
        if key in ("value", "amount"):
            parts.append(f"it is {value} {result.get('unit', result.get('currency'))}")
        elif key not in ("unit", "currency"):
            shown = " or ".join(value) if isinstance(value, list) else f"{value}{unit}"
            parts.append(shown if key in ("hours", "minutes") else f"{key.rsplit('_', 1)[0]} {shown}")
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _make_mistake(kind: str, turn: DraftTurnData, rng: Random) -> None:
    """Change a turn by one of `MISTAKES`; those of a call, by its first one."""
    match kind:
        case "number":
            turn["reply"] = _change_number(turn["reply"], rng)
        case "fewer":
            turn["calls"] = turn["calls"][:-1]
        case "more":
            turn["calls"] = [*turn["calls"], {"name": "split_bill", "arguments": {"total_eur": 80, "people": 4}}]
        case "unsaid":
            turn["request"] = "Please do the usual for me."
        case "untold":
            turn["reply"] = "I have looked into it for you."
        case "claim":
            turn["reply"] = "No problem, it is booked and everything is done."
        case _:
            for call in turn["calls"][:1]:
                _spoil_call(kind, call, rng)


def _change_number(text: str, rng: Random) -> str:
    return re.sub(r"\d+", lambda found: str(int(found[0]) + rng.randint(1, 9)), text, count=1)


def _spoil_call(kind: str, call: dict[str, Any], rng: Random) -> None:
    if kind == "tool":
        call["name"] = f"{call['name']}_now"
    elif kind == "extra":
        call["arguments"] = {**call["arguments"], "note": "quickly"}
    else:
        key = rng.choice([*call["arguments"]])
        value = call["arguments"][key]
        changed: Any = (
            f"{value} or so" if isinstance(value, str) else value + 1 if isinstance(value, int | float) else {}
        )
        call["arguments"] = {**call["arguments"], key: changed if kind == "argument" else [value]}


def _write_request(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    asked = question.messages[-1].content
    if "none of the tools can do" in asked:
        return {"request": OUTSIDE}
    needed = re.search(r"(?:request needs|something that) ([\w-]+)", asked)
    tool = next(tool for tool in _read_tools(asked) if needed and tool["name"] == needed[1])
    names = re.findall(r'"([^"\n]+)"', asked.partition("What is there: ")[2].partition("The user: ")[0]) or [
        "the usual"
    ]
    said = {key: _draw_argument(rng, key, schema, names) for key, schema in tool["parameters"]["properties"].items()}
    if "leaves out one detail" in asked:
        said = {}
    told = ", ".join(f"the {key.replace('_', ' ')} = {value}" for key, value in said.items())
    return {"request": f"I would like this from {tool['description'].split()[0].lower()}: {told or 'you know what'}."}


def write_step(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    asked = question.messages[-1].content
    lines = [
        json.loads(line)
        for line in asked.splitlines()
        if line.startswith(('{"user', '{"calls', '{"tool', '{"assistant'))
    ]
    start = max(n for n, line in enumerate(lines) if "user" in line)
    request, results = lines[start]["user"], [line["result"] for line in lines[start:] if "tool" in line]
    if results:
        if rng.random() < MISTAKE_SHARE / 2 and len(results) == 1:
            return {"step": {"calls": lines[start + 1]["calls"]}}
        return {"step": {"reply": _describe_results(rng, results)}}
    said = dict(SAID.findall(request))
    for tool in _read_tools(asked):
        schemas = tool["parameters"]["properties"]
        if said and {key.replace("_", " ") for key in schemas} == said.keys():
            arguments = {key: _convert(said[key.replace("_", " ")], schema) for key, schema in schemas.items()}
            return {"step": {"calls": [_maybe_spoil({"name": tool["name"], "arguments": arguments}, rng)]}}
    return {"step": {"reply": "No, that I cannot do here." if request == OUTSIDE else "Which one do you mean?"}}


def _write_final_reply(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    return {"reply": "It could not be done."}


def _read_tools(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"name"')]


def _draw_argument(rng: Random, key: str, schema: Mapping[str, Any], names: list[str]) -> Any:
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if schema.get("type") in ("integer", "number"):
        return rng.randint(2, 60)
    fitting = [name for name in names if re.fullmatch(r"[A-Z]-\d+", name)] if key == "card" else []
    return rng.choice(fitting or [name for name in names if not re.search(r"\d", name)] or names)


def _convert(text: str, schema: Mapping[str, Any]) -> Any:
    integral = schema.get("type") in ("integer", "number") and re.fullmatch(r"-?\d+", text)
    return int(text) if integral else text


def _maybe_spoil(call: dict[str, Any], rng: Random) -> dict[str, Any]:
    if rng.random() > MISTAKE_SHARE:
        return call
    if rng.random() < 0.5:
        return {**call, "name": f"{call['name']}_now"}
    return {**call, "arguments": {key: f"{value} or so" for key, value in call["arguments"].items()}}


def _describe_results(rng: Random, results: list[str]) -> str:
    if results[-1].startswith("error: "):
        return f"It could not be done: {results[-1].removeprefix('error: ')}."
    if rng.random() < MISTAKE_SHARE / 2:
        return "I have looked into it for you."
    try:
        parts = [f"{key} {value}" for key, value in _iter_leaves(json.loads(results[-1]))]
    except (ValueError, RecursionError):
        parts = [results[-1]]
    text = f"Here it is: {', '.join(parts) or 'there is nothing'}."
    if rng.random() < MISTAKE_SHARE:
        text = _change_number(text, rng)
    return text


SCRIPT: TeacherScript = {
    **COMMON, "ToolDraft": _write_conversation, "UserRequest": _write_request, "AssistantStep": write_step,
    "FinalReply": _write_final_reply,
}  # fmt: skip
