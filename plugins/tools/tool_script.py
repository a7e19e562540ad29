"""Scripts of fake teachers for conversations with tools, in plain words and now and then with one mistake.

With a simulated service, the user says the plan's notes and the assistant reads them. With a recipe's own tools, the user asks
with a tool's arguments, which the script reads from the prompt; the assistant calls the tool, and says what came out.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from random import Random
from typing import Any

from plugins.tools.simulation.services import FIELD_UNITS
from plugins.tools.tool_conversation import NOTES_INTRO
from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, TeacherScript

MISTAKE_SHARE = 0.15
"""Of the requests, steps and replies with own tools, each: a wrong number in the reply, a call made twice, an argument that is
not in the conversation, an unknown tool, a reply without the result."""
SAID = re.compile(r"the ([a-z ]+) = ([^,]+)(?:, |\.$)")
OUTSIDE = "Could you water the plants for me?"


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


def _change_number(text: str, rng: Random) -> str:
    return re.sub(r"\d+", lambda found: str(int(found[0]) + rng.randint(1, 9)), text, count=1)


def _write_request(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    asked = question.messages[-1].content
    if NOTES_INTRO in asked:
        notes = asked.partition(NOTES_INTRO)[2].strip().partition("\n")[0]
        return {"request": f"Hello. {notes[0].upper()}{notes[1:]}"}
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
    details = ", ".join(f"the {key.replace('_', ' ')} = {value}" for key, value in said.items())
    return {
        "request": f"I would like this from {tool['description'].split()[0].lower()}: {details or 'you know what'}."
    }


def write_step(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    asked = question.messages[-1].content
    lines = [
        json.loads(line)
        for line in asked.splitlines()
        if line.startswith(('{"user', '{"calls', '{"tool', '{"assistant'))
    ]
    if "You work for " in asked:
        return {"step": write_service_step(asked, lines)}
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
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"name"') and '"parameters"' in line]


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


def write_service_step(asked: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The next step with a simulated service: the calls and the reply that a reader of the notes gives."""
    tools = {tool["description"].rstrip(".").lower(): tool for tool in _read_tools(asked)}
    turns: list[list[dict[str, Any]]] = []
    for line in lines:
        turns += [[]] if "user" in line else []
        turns[-1].append(line)
    matter = 0
    for number, turn in enumerate(turns):
        matter = number if _find_tools(turn[0]["user"], tools) else matter
    said = [turn[0]["user"] for turn in turns[matter:]]
    calls = [call for line in turns[-1] for call in line.get("calls", [])]
    results = [
        {**call, **line} for call, line in zip(calls, (line for line in turns[-1] if "tool" in line), strict=True)
    ]
    if said[-1].startswith("Hello. No. "):
        return {"reply": "Then everything stays as it is."}
    if not _find_tools(said[0], tools) or "omething that no tool" in said[-1]:
        return {"reply": "No, that I cannot do here."}
    parts = said[0].split(" And: ")
    details = [f"{part}; {'; '.join(said[1:])}" for part in parts]
    agreed = said[-1].startswith("Hello. Yes. ")
    for part, text in zip(parts, details, strict=True):
        tool = _find_tools(part, tools)[-1]
        if (stop := _find_rule(asked, tool, text)) and not (agreed and "?" in stop):
            return {"reply": stop}
        step = _build_service_call(tool, text, tools, results, asked)
        if isinstance(step, str):
            return {"reply": step}
        if step and not any(
            result["tool"] == step["name"] and result["arguments"] == step["arguments"] for result in results
        ):
            return {"calls": [{key: step[key] for key in ("name", "arguments")}]}
    return {"reply": describe_service_results(results)}


def _find_tools(text: str, tools: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools whose phrase a text contains, the longest phrase last."""
    found = [
        (phrase, tool)
        for description, tool in tools.items()
        if (phrase := re.split(r", with|, and add| \(|;|:|, a text", description)[0]) in text.lower()
    ]
    return [tool for _, tool in sorted(found, key=lambda pair: len(pair[0]))]


def _find_rule(asked: str, tool: Mapping[str, Any], text: str) -> str | None:
    """What the rules of the system message say against a call."""
    if "cannot be brought back" in tool["description"] and "ask whether to go on" in asked:
        named = re.search(r"number: ([\w-]+)|: ([^;]+) \(its number", text)
        return f"Shall {named[1] or named[2] if named else 'it'} really go?"
    for name, field, most in re.findall(r"Any ([\w -]+) whose ([\w -]+) is over (\d+)", asked):
        given = re.findall(rf"(?:; |\. ){field}: ([\d.]+)", text)
        if given and float(given[-1]) > int(most) and tool["description"].lower().startswith(f"add a new {name}"):
            return f"That is over {most}, and a colleague has to approve it."
    return None


def _build_service_call(
    tool: Mapping[str, Any], text: str, tools: Mapping[str, Any], results: list[dict[str, Any]], asked: str
) -> dict[str, Any] | str | None:
    """The next call for one matter, a reply where it cannot be made, or None where it was made."""
    schema = tool["parameters"]
    made = [result for result in results if result["tool"] == tool["name"]]
    if made and not made[-1]["result"].startswith("error: there is no branch"):
        return None
    arguments = _read_arguments(schema, text, asked)
    if "id" in schema["properties"]:
        if number := re.findall(r"number: ([\w-]+)", text):
            arguments["id"] = number[-1]
        elif label := re.search(r"([\w ]+): ([^;]+) \(its number", text):
            phrase = re.split(r" \(|,|;|:| for good", tool["description"].rstrip("."))[0]
            thing = re.sub(r"^.* (?:the|one|a new) ", "", phrase)
            search = next(t for d, t in tools.items() if d.startswith("search the ") and thing in _singular(d))
            found = [result for result in results if result["tool"] == search["name"] and label[2] in result["result"]]
            if not found:
                return {"name": search["name"], "arguments": {label[1].strip().replace(" ", "_"): label[2]}}
            arguments["id"] = json.loads(found[-1]["result"])["list"][0]["id"]
    missing = [name for name in schema.get("required", []) if name not in arguments]
    return f"Which {missing[0].replace('_', ' ')}?" if missing else {"name": tool["name"], "arguments": arguments}


def _singular(description: str) -> str:
    return description.partition(":")[0].replace("classes", "class").replace("deliveries", "delivery")


def _read_arguments(schema: Mapping[str, Any], text: str, asked: str, before: str = "") -> dict[str, Any]:
    """The arguments that notes give, by the words for each property."""
    found: dict[str, Any] = {}
    for name, inner in schema["properties"].items():
        unit = FIELD_UNITS.get(name.rpartition("_")[2], "")
        words = f"{before}{name.rpartition('_')[0] if unit else name}".replace("_", " ")
        if name == "dates":
            if span := re.search(r"from (\d+ \w+ \d{4}) to (\d+ \w+ \d{4})", text):
                found[name] = {"from": _read_day(span[1]), "to": _read_day(span[2])}
        elif name == "total_of":
            if total := re.search(r"total of: ([\w ]+)", text):
                named = {
                    re.sub(rf" ({'|'.join(FIELD_UNITS)})$", "", key.replace("_", " ")): key for key in inner["enum"]
                }
                found[name] = next(key for words, key in named.items() if total[1].endswith(words))
        elif inner["type"] == "object":
            if values := _read_arguments(inner, text, asked, f"{words} "):
                found[name] = values
        elif name == "text":
            found |= {name: note[1]} if (note := re.search(r'word for word: "([^"]+)"', text)) else {}
        elif written := re.findall(rf"(?:; |\. |with (?:\w+ )?){words}: ([^;]+?)(?=;|\.(?: |;|$)|$)", text):
            found[name] = _read_value(written[-1], inner, unit, asked)
    return found


def _read_value(text: str, schema: Mapping[str, Any], unit: str, asked: str) -> Any:
    text = text.removesuffix(f" {unit}") if unit else text
    if text.endswith(" (as people call it)"):
        name = text.removesuffix(" (as people call it)")
        code = re.search(rf"(\w\w\d) \({name}\)", asked)
        return code[1] if code else name
    match schema["type"]:
        case "integer":
            return int(float(text))
        case "number":
            return float(text) if "." in text else int(text)
        case "boolean":
            return text == "yes"
        case "array":
            return text.split(", ")
    return _read_day(text) if schema.get("format") == "date" else text


def _read_day(text: str) -> str:
    return datetime.strptime(text, "%d %B %Y").date().isoformat()


def describe_service_results(results: list[dict[str, Any]]) -> str:
    last = [result["result"] for result in results if not result["result"].startswith("error: there is no branch")]
    parts = []
    for text in last:
        if text.startswith("error: "):
            return f"That cannot be done: {text.removeprefix('error: ')}."
        parts.append("; ".join(f"{key} {value}" for key, value in _iter_leaves(json.loads(text)) if value is not True))
    return f"Here it is: {'; '.join(parts)}."


SCRIPT: TeacherScript = {
    **COMMON, "UserRequest": _write_request, "AssistantStep": write_step, "FinalReply": _write_final_reply,
}  # fmt: skip
