"""A writer of conversations with tools that follows its plan, in plain words, in three of five cases; else with one mistake.

The mistakes: a wrong number in the reply, a missing call, an extra call, a wrong argument, a wrong type, an unknown argument,
a tool that is not offered, an argument without a source, a missing result, a failure reported as success.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from plugins.tools.scripts.user_tools import SCRIPT as USER_TOOLS_SCRIPT
from teachers.base import TeacherQuestion
from teachers.fake.script_parts import TeacherScript

CORRECT_SHARE = 0.6
"""Share of the drafts without a mistake on purpose."""
CALL = re.compile(r"^- (\w+) (\{.*\}) returns (\{.*\})$", re.MULTILINE)
UNITS = {"_c": " °C", "_kmh": " km/h", "_km": " km", "_percent": "%", "_eur": " EUR"}
MISTAKES = ("number", "fewer", "more", "argument", "type", "extra", "tool", "unsaid", "untold", "claim")

DraftTurnData = dict[str, Any]


def write_conversation(rng: Random, question: TeacherQuestion, right: float = CORRECT_SHARE) -> dict[str, Any]:
    plan = next(m.content for m in reversed(question.messages) if m.role == "user" and "\nTurn 1, " in m.content)
    turns = [_write_turn(text, rng) for text in re.split(r"^Turn \d+, ", plan, flags=re.MULTILINE)[1:]]
    if rng.random() > right:
        MISTAKE_FUNCTIONS[rng.choice(MISTAKES)](rng.choice(turns), rng)
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
    taken = {str(value) for _, value in _iter_leaves(results[0])} - {
        str(value) for _, value in _iter_leaves(found[0][1])
    }
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
    yield from (f"the {key.replace('_', ' ')} = {value}" for key, value in _iter_leaves(arguments))


def _iter_leaves(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _iter_leaves(inner)
        else:
            yield key, inner


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


def _change_number(turn: DraftTurnData, rng: Random) -> None:
    turn["reply"] = re.sub(r"\d+", lambda found: str(int(found[0]) + rng.randint(1, 9)), turn["reply"], count=1)


def _drop_call(turn: DraftTurnData, _rng: Random) -> None:
    turn["calls"] = turn["calls"][:-1]


def _add_call(turn: DraftTurnData, _rng: Random) -> None:
    turn["calls"] = [*turn["calls"], {"name": "split_bill", "arguments": {"total_eur": 80, "people": 4}}]


def _change_argument(turn: DraftTurnData, rng: Random) -> None:
    for call in turn["calls"][:1]:
        key = rng.choice([*call["arguments"]])
        value = call["arguments"][key]
        changed: Any = (
            f"{value} or so" if isinstance(value, str) else value + 1 if isinstance(value, int | float) else {}
        )
        call["arguments"] = {**call["arguments"], key: changed}


def _change_type(turn: DraftTurnData, rng: Random) -> None:
    for call in turn["calls"][:1]:
        key = rng.choice([*call["arguments"]])
        call["arguments"] = {**call["arguments"], key: [call["arguments"][key]]}


def _add_argument(turn: DraftTurnData, _rng: Random) -> None:
    for call in turn["calls"][:1]:
        call["arguments"] = {**call["arguments"], "note": "quickly"}


def _change_tool(turn: DraftTurnData, _rng: Random) -> None:
    for call in turn["calls"][:1]:
        call["name"] = f"{call['name']}_now"


def _drop_request_facts(turn: DraftTurnData, _rng: Random) -> None:
    turn["request"] = "Please do the usual for me."


def _drop_reply_facts(turn: DraftTurnData, _rng: Random) -> None:
    turn["reply"] = "I have looked into it for you."


def _claim_success(turn: DraftTurnData, _rng: Random) -> None:
    turn["reply"] = "No problem, it is booked and everything is done."


MISTAKE_FUNCTIONS: Mapping[str, Callable[[DraftTurnData, Random], None]] = {
    "number": _change_number,
    "fewer": _drop_call,
    "more": _add_call,
    "argument": _change_argument,
    "type": _change_type,
    "extra": _add_argument,
    "tool": _change_tool,
    "unsaid": _drop_request_facts,
    "untold": _drop_reply_facts,
    "claim": _claim_success,
}

SCRIPT: TeacherScript = {**USER_TOOLS_SCRIPT, "ToolDraft": write_conversation}
"""With the replies for a recipe's own tools."""
