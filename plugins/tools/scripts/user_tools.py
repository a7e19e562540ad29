"""A writer of conversations with tools that it reads from the prompt: it asks with a tool's arguments, calls the tool, and
says what came out; in three of ten replies with one mistake.

The mistakes: a wrong number in the reply, a call made twice, an argument that is not in the conversation, an unknown tool, a
reply without the result.
"""

import json
import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from teachers.base import TeacherQuestion
from teachers.fake.script_parts import COMMON, TeacherScript

MISTAKE_SHARE = 0.15
"""Of the requests, steps and replies, each."""
SAID = re.compile(r"the ([a-z ]+) = ([^,]+)(?:, |\.$)")
OUTSIDE = "Could you water the plants for me?"


def write_request(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    asked = question.messages[-1].content
    if "none of the tools can do" in asked:
        return {"request": OUTSIDE}
    needed = re.search(r"(?:request needs|something that) ([\w-]+)", asked)
    tool = next(tool for tool in _read_tools(asked) if needed and tool["name"] == needed[1])
    names = re.findall(r'"([^"\n]+)"', _read_section(asked, "What is there: ", "The user: ")) or ["the usual"]
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


def write_final_reply(rng: Random, question: TeacherQuestion) -> dict[str, Any]:
    return {"reply": "It could not be done."}


def _read_section(text: str, begin: str, end: str) -> str:
    return text.partition(begin)[2].partition(end)[0]


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
        parts = [f"{key} {value}" for key, value in _iter_leaves("", json.loads(results[-1]))]
    except (ValueError, RecursionError):
        parts = [results[-1]]
    text = f"Here it is: {', '.join(parts) or 'there is nothing'}."
    if rng.random() < MISTAKE_SHARE:
        text = re.sub(r"\d+", lambda found: str(int(found[0]) + rng.randint(1, 9)), text, count=1)
    return text


def _iter_leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _iter_leaves(name.replace("_", " "), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _iter_leaves(key, inner)
    else:
        yield key, value


SCRIPT: TeacherScript = {
    **COMMON, "UserRequest": write_request, "AssistantStep": write_step, "FinalReply": write_final_reply,
}  # fmt: skip
