"""A writer of conversations with tools that does as its plan says, in stiff words, in three of five; else it makes one mistake.

The mistakes: another number in the reply, a call left out, a call too many, another argument, one of the wrong type, one that
no schema has, a tool that is not offered, an argument that nobody told, a result that is not told, a failure told as success.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from agents.teachers.base import Question
from agents.teachers.scripts.common import COMMON, Script

RIGHT = 0.6
"""Share of the drafts without a mistake on purpose."""
CALL = re.compile(r"^- (\w+) (\{.*\}) returns (\{.*\})$", re.MULTILINE)
UNITS = {"_c": " °C", "_kmh": " km/h", "_km": " km", "_percent": "%", "_eur": " EUR"}
MISTAKES = ("number", "fewer", "more", "argument", "type", "extra", "tool", "unsaid", "untold", "claim")

Turn = dict[str, Any]


def draft(rng: Random, question: Question, right: float = RIGHT) -> dict[str, Any]:
    plan = next(m.content for m in reversed(question.messages) if m.role == "user" and "\nTurn 1, " in m.content)
    turns = [_turn(text, rng) for text in re.split(r"^Turn \d+, ", plan, flags=re.MULTILINE)[1:]]
    if rng.random() > right:
        MISTAKEN[rng.choice(MISTAKES)](rng.choice(turns), rng)
    return {"turns": turns}


def _turn(text: str, rng: Random) -> Turn:
    found = [(name, json.loads(arguments), json.loads(result)) for name, arguments, result in CALL.findall(text)]
    calls = [{"name": name, "arguments": arguments} for name, arguments, _ in found]
    results = [result for *_, result in found]
    if missing := re.search(r"forgets to tell `(\w+)`", text):
        said = re.search(r"The user tells (\{.*\}) and", text)
        known = ", ".join(_said(json.loads(said[1]))) if said else "please help"
        return {"request": f"This is what it is about: {known}.", "calls": [], "reply": _asked(missing[1])}
    if not found:
        need = re.search(r"The user wants (.*?)\. None", text)
        return {
            "request": f"What about {need[1] if need else 'it'}?",
            "calls": [],
            "reply": "No, that I cannot do here.",
        }
    taken = {str(value) for _, value in _leaves(results[0])} - {str(value) for _, value in _leaves(found[0][1])}
    taken = taken if "one after the other" in text else set()
    wanted = [line for call in calls for line in _said(call["arguments"]) if line.split(" = ")[1] not in taken]
    opening = rng.choice(("Please do this for me", "I would like this", "Could you see to this"))
    return {
        "request": f"{opening}: {', '.join(dict.fromkeys(wanted))}.",
        "calls": calls,
        "reply": " ".join(map(_told, results)),
    }


def _asked(missing: str) -> str:
    words = {"minutes": "how long", "people": "how many people", "quantity": "how many", "start": "from where"}
    return f"You did not say it: {words.get(missing, missing.removeprefix('to_'))}?"


def _said(arguments: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"the {key.replace('_', ' ')} = {value}" for key, value in _leaves(arguments))


def _leaves(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(inner)
        else:
            yield key, inner


def _told(result: Mapping[str, Any]) -> str:
    """All of a result, one thing after the other."""
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


def _number(turn: Turn, rng: Random) -> None:
    turn["reply"] = re.sub(r"\d+", lambda found: str(int(found[0]) + rng.randint(1, 9)), turn["reply"], count=1)


def _fewer(turn: Turn, _rng: Random) -> None:
    turn["calls"] = turn["calls"][:-1]


def _more(turn: Turn, _rng: Random) -> None:
    turn["calls"] = [*turn["calls"], {"name": "split_bill", "arguments": {"total_eur": 80, "people": 4}}]


def _argument(turn: Turn, rng: Random) -> None:
    for call in turn["calls"][:1]:
        key = rng.choice([*call["arguments"]])
        value = call["arguments"][key]
        changed: Any = (
            f"{value} or so" if isinstance(value, str) else value + 1 if isinstance(value, int | float) else {}
        )
        call["arguments"] = {**call["arguments"], key: changed}


def _type(turn: Turn, rng: Random) -> None:
    for call in turn["calls"][:1]:
        key = rng.choice([*call["arguments"]])
        call["arguments"] = {**call["arguments"], key: [call["arguments"][key]]}


def _extra(turn: Turn, _rng: Random) -> None:
    for call in turn["calls"][:1]:
        call["arguments"] = {**call["arguments"], "note": "quickly"}


def _tool(turn: Turn, _rng: Random) -> None:
    for call in turn["calls"][:1]:
        call["name"] = f"{call['name']}_now"


def _unsaid(turn: Turn, _rng: Random) -> None:
    turn["request"] = "Please do the usual for me."


def _untold(turn: Turn, _rng: Random) -> None:
    turn["reply"] = "I have looked into it for you."


def _claim(turn: Turn, _rng: Random) -> None:
    turn["reply"] = "No problem, it is booked and everything is done."


MISTAKEN: Mapping[str, Callable[[Turn, Random], None]] = {
    "number": _number,
    "fewer": _fewer,
    "more": _more,
    "argument": _argument,
    "type": _type,
    "extra": _extra,
    "tool": _tool,
    "unsaid": _unsaid,
    "untold": _untold,
    "claim": _claim,
}

SCRIPT: Script = {**COMMON, "ToolDraft": draft}
