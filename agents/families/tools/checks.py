"""Checks of conversations with simulated tools: that the right calls are made, from what was said, and told as they came out.

Knows no teacher. What it cannot see stands in docs/tool-calls.md.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from fractions import Fraction
from typing import Any, NamedTuple

from agents.checks import Finding, Options, Subject, check, passed
from agents.checks.occurs import leaf_fault, leaves
from agents.checks.written import read_text
from agents.families.tools import TOOLS, Tool, World, run_tool
from agents.families.tools.plan import WITHOUT, Call, Wish, as_json, same_call, wish_of
from agents.families.tools.told import (
    BETWEEN,
    Given,
    Stated,
    given,
    lines_of,
    names_in,
    spelled_out,
    stated,
    without_days,
)
from agents.families.tools.world import AUTHORS, GOODS, TITLES, TOWNS
from core.sample import Message

SKIES = {
    "clear": ("clear", "clear skies", "sunny", "sunshine", "cloudless", "fair", "bright"),
    "cloudy": ("cloudy", "clouds", "overcast", "grey skies"),
    "rain": ("rain", "rainy", "raining", "showers", "drizzle", "rainfall", "wet"),
    "snow": ("snow", "snowy", "snowing", "snowfall"),
    "fog": ("fog", "foggy", "mist", "misty"),
    "storm": ("storm", "stormy", "storms", "thunder", "thunderstorm", "thunderstorms"),
}
STATUSES = {
    "available": ("available", "on the shelf", "in the library", "not on loan"),
    "on loan": ("on loan", "checked out", "lent out", "borrowed by", "out on loan", "not available", "unavailable"),
}
SAID: Mapping[str, Mapping[str, Sequence[str]]] = {"sky": SKIES, "status": STATUSES}
"""Fields of results whose values are words, with the words by which a reply tells each."""
NAMES = (*TOWNS, *GOODS, *TITLES, *AUTHORS)
"""What a reply can only know from the conversation."""
MARKUP = re.compile(r"[{}]|</?tool|<\|")
NEGATED = (
    r"(?:\b(?:not|cannot|never|unable|nothing|none|nobody|without|neither|nor|fail(?:s|ed)?|\w+n't"
    r"|no(?!\s+(?:problem|worr|doubt|need|matter)))\b)"
)
DENIAL = re.compile(NEGATED, re.IGNORECASE)
BLOCKED = re.compile(
    r"\b(?:busy|taken|occupied|sold out|reserved|unknown|impossible|unavailable|only \d+|another reader)\b",
    re.IGNORECASE,
)
"""Other words for what went wrong."""
REASON = re.compile(
    r"\bonly (\d+)|(\d{1,2}:\d\d)(?:\s*[–-]\s*|\s+(?:to|until|till|and)\s+)(\d{1,2}:\d\d)", re.IGNORECASE
)
"""What an error says of how many there are, and between which times one is busy."""
DONE = re.compile(
    r"\b(?:booked|ordered|placed|scheduled|added|renewed|extended|saved|confirmed|arranged|all set|(?:is|are|been|'s|have) set"
    r"|will remind|(?:is|are|'s) done|done[.!])",
    re.IGNORECASE,
)
UNFOUND = re.compile(r"\b(?:could not|couldn't|unable to|failed|error)\b", re.IGNORECASE)
UNDONE = re.compile(
    r"\b(?:could not|couldn't|unable to|failed|error|cannot|can't|can not|was not|wasn't|is not|isn't|has not|hasn't|have not"
    r"|haven't|won't|will not|did not|didn't)\b|\?",
    re.IGNORECASE,
)
"""Of something that was done nobody says so, nor asks whether to do it."""
NOT_THIS = re.compile(
    rf"(?:{NEGATED}[^\w.,;:!?]+(?:[\w']+[^\w.,;:!?]+){{0,2}}|\b(?:than|under|over|below|above|beyond|almost|nearly|at least"
    r"|at most|up to|before|after)\s+)(?:[A-Z]{3}\s|[-€$£¥])?\d",
    re.IGNORECASE,
)
"""A number that is denied, or said to be a limit."""
RANGE = re.compile(
    r"\d(?:\s?[ap]\.?m\.?)?\s*(?:-|–|—|\bto\b|\buntil\b|\btill\b|\band on\b|\bonwards?\b)", re.IGNORECASE
)


class Turn(NamedTuple):
    """What the user wants, what is called with which answer, step by step, and what the assistant says in the end."""

    request: str
    steps: tuple[tuple[tuple[Call, Any], ...], ...]
    reply: str

    @property
    def calls(self) -> list[Call]:
        return [call for step in self.steps for call, _ in step]

    @property
    def results(self) -> list[Any]:
        return [result for step in self.steps for _, result in step]


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """A conversation turn by turn; calls without an answer are left out, as `tool_schema` tells them."""
    turns: list[Turn] = []
    rest = [message for message in messages if message.role != "system"]
    starts = [i for i, message in enumerate(rest) if message.role == "user"]
    for start, end in zip(starts, [*starts[1:], len(rest)], strict=True):
        turns.append(_turn(rest[start:end]))
    return turns


def _turn(messages: Sequence[Message]) -> Turn:
    steps, reply = [], ""
    for i, message in enumerate(messages):
        if message.role == "assistant" and message.tool_calls:
            answers = [as_value(one.content) for one in messages[i + 1 : i + 1 + len(message.tool_calls)]]
            calls = [Call(call.name, call.arguments) for call in message.tool_calls]
            steps.append(tuple(zip(calls, answers, strict=False)))
        elif message.role == "assistant":
            reply = message.content.replace("’", "'")
    return Turn(messages[0].content, tuple(steps), reply)


def as_value(content: str) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content


def wishes_of(subject: Subject) -> list[Wish]:
    return [wish_of(data) for data in subject.seed.data["wishes"]]


def today_of(subject: Subject) -> date:
    return date.fromisoformat(subject.seed.data["world"]["today"])


def _findings(name: str, faults: Sequence[str | None], met: str) -> list[Finding]:
    """One finding for each turn."""
    many = len(faults) > 1
    return [
        passed(name, fault and (f"turn {number}: {fault}" if many else fault), f"turn {number}: {met}" if many else met)
        for number, fault in enumerate(faults, 1)
    ]


@check("tool_use")
def tool_use(subject: Subject, _options: Options) -> list[Finding]:
    """Each turn must make the calls that its seed wants and no other; without a call, the assistant asks or declines."""
    turns, wishes = turns_of(subject.candidate.messages), wishes_of(subject)
    if len(turns) != len(wishes):
        return [passed("tool_use", f"there must be {len(wishes)} turns, not {len(turns)}", "")]
    today = today_of(subject)
    faults = [_use_fault(turn, wish, today) for turn, wish in zip(turns, wishes, strict=True)]
    return _findings("tool_use", faults, "calls what is wanted")


def _use_fault(turn: Turn, wish: Wish, today: date) -> str | None:
    for text in (turn.request, turn.reply):
        if not any(c.isalnum() for c in text) or MARKUP.search(text):
            return f"the user and the assistant speak in plain words, not {text[:80]!r}"
    if named := next((name for name in TOOLS if name in f"{turn.request} {turn.reply}"), None):
        return f"nobody speaks of {named}; say in plain words what is wanted and what came out"
    if wish.kind in WITHOUT:
        return _quiet_fault(turn, wish, today)
    wanted = ", then ".join(f"{call.name} {as_json(call.arguments)}" for call in wish.calls)
    same = len(turn.calls) == len(wish.calls) and all(
        same_call(call, made.name, made.arguments) for call, made in zip(wish.calls, turn.calls, strict=True)
    )
    return None if same else f"the calls must be exactly {wanted}"


def _quiet_fault(turn: Turn, wish: Wish, today: date) -> str | None:
    if turn.calls:
        return f"no tool may be called, but {turn.calls[0].name} is; leave calls empty"
    if claim := _claim_of(turn.reply):
        return f"nothing was done, but the reply says {claim!r}"
    if wish.kind == "outside":
        return None if DENIAL.search(turn.reply) else "the reply must say plainly that this cannot be done here"
    asked = (TOOLS[wish.tool].asked or {})[wish.missing]
    if "?" not in turn.reply or not any(read_text(turn.reply).says(word) for word in asked):
        return f"the reply must ask for `{wish.missing}` ({', '.join(asked)})"
    return _told_fault(turn.request, wish, today)


def _told_fault(request: str, wish: Wish, today: date) -> str | None:
    """Whether the user tells after all what is to be missing."""
    schema, said = TOOLS[wish.tool].parameters["properties"][wish.missing], wish.said or {}
    known = given([request], [], today)
    others = given([], [said], today)
    if "enum" in schema:
        told = read_text(request).speaks_of(schema["x-evidence"]) - {*map(str, said.values())}
    elif schema["type"] in ("integer", "number"):
        lengths = read_text(request).speaks_of(schema.get("x-evidence", {}))
        said_already = others.numbers | {value for value, _ in others.amounts}
        told = {f"{float(n):g}" for n in known.numbers - said_already} | lengths
    elif schema.get("format") == "date":
        told = {day.isoformat() for day in known.days - others.days}
    elif "pattern" in schema:
        told = {moment.isoformat("minutes") for moment in known.times - others.times}
    else:
        towns = {town for town in TOWNS if read_text(request).says(town)}
        told = {name for name in names_in(request) | towns if not read_text(others.text).says(name)}
    return f"the user must not tell `{wish.missing}`, but says {min(told)}" if told else None


def _claim_of(reply: str) -> str | None:
    """What a reply says was done; a denial up to four words before takes it back."""
    for found in DONE.finditer(reply):
        before = reply[: found.start()]
        if not re.search(rf"{NEGATED}[^\w.,;:!?]+(?:[\w']+[^\w.,;:!?]+){{0,4}}$", before, re.IGNORECASE):
            return found.group()
    return None


@check("tool_arguments")
def tool_arguments(subject: Subject, _options: Options) -> list[Finding]:
    """Each argument must come from the conversation so far: from what the user said, or from an earlier result."""
    turns, today = turns_of(subject.candidate.messages), today_of(subject)
    faults = [_ungrounded(turns[:number], turn, today) for number, turn in enumerate(turns)]
    return _findings("tool_arguments", faults, "each argument was said")


def _ungrounded(before: Sequence[Turn], turn: Turn, today: date) -> str | None:
    requests = [spelled_out(one.request, today) for one in (*before, turn)]
    results = [result for one in before for result in one.results]
    for step in turn.steps:
        text = BETWEEN.join([*requests, *lines_of(results)])
        for call, _ in step:
            if fault := grounding_fault(call, text):
                return fault
        results += [result for _, result in step]
    return None


def grounding_fault(call: Call, text: str) -> str | None:
    """Which argument of a call does not stand in `text`. A tool that nobody knows has no words for its values."""
    tool = TOOLS.get(call.name)
    schema = tool.parameters if tool else {}
    for leaf in leaves(call.arguments, schema):
        flag = isinstance(leaf.value, bool) and not any(part.schema.get("type") == "boolean" for part in leaf.parts)
        fault = leaf_fault(leaf, read_text(text)) if leaf.value is not None else None
        fault = f"is {leaf.value}, which is no text and no number" if flag else fault
        if fault:
            return f"nobody said `{leaf.path}` of {call.name}: it {fault.replace('the text', 'the conversation')}"
    return None


@check("tool_result")
def tool_result(subject: Subject, _options: Options) -> list[Finding]:
    """Each result must be what the tool gives, and each reply must tell it right: all that was asked for, and nothing else."""
    turns, world = turns_of(subject.candidate.messages), subject.seed.data["world"]
    tools = {name: TOOLS[name] for name in subject.seed.data["offered"]}
    today, faults = today_of(subject), []
    for number, turn in enumerate(turns):
        fault, world = _replayed(turn, tools, world)
        faults.append(fault or _reply_fault(turns[:number], turn, today))
    return _findings("tool_result", faults, "the reply tells what came out")


def _replayed(turn: Turn, tools: Mapping[str, Tool], world: World) -> tuple[str | None, World]:
    for call, shown in zip(turn.calls, turn.results, strict=True):
        result, world = run_tool(world, tools, call.name, call.arguments)
        if as_json(result) != as_json(shown):
            return f"{call.name} gives {as_json(result)}, not {as_json(shown)[:200]}", world
    return None, world


def _reply_fault(before: Sequence[Turn], turn: Turn, today: date) -> str | None:
    requests = [one.request for one in (*before, turn)]
    known = given(requests, [[call.arguments for call in turn.calls], turn.results], today)
    said = stated(turn.reply, known, today)
    errors = [result for result in turn.results if isinstance(result, dict) and "error" in result]
    faults = [*said.faults, *_strangers(turn.reply, known), *_other_words(turn)]
    faults += _error_faults(turn, errors) if errors else _untold(turn, said, today)
    if not faults:
        return None
    return f"the reply {faults[0]}{_came_out(turn)}"


def _came_out(turn: Turn) -> str:
    return f"; the result is {'; '.join(map(as_json, turn.results))}" if turn.calls else ""


def _strangers(reply: str, known: Given) -> Iterator[str]:
    for name in NAMES:
        if read_text(reply).says(name) and not read_text(known.text).says(name):
            yield f"says {name!r}, which neither the user nor a tool gave"


def _other_words(turn: Turn) -> Iterator[str]:
    """Words for values that a result could have and none has."""
    results = [result for result in turn.results if isinstance(result, dict)]
    called = {call.name for call in turn.calls}
    for key, tool in (("sky", "get_weather"), ("status", "find_book")):
        if tool in called:
            spoken = read_text(turn.reply).speaks_of(SAID[key])
            if wrong := spoken - {result.get(key) for result in results}:
                yield f"says {min(wrong)!r}"


def _error_faults(turn: Turn, errors: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    why = "; ".join(str(error["error"]) for error in errors)
    if not (DENIAL.search(turn.reply) or BLOCKED.search(turn.reply)):
        yield f"must say that it could not be done: {why}"
    if claim := _claim_of(turn.reply):
        yield f"says {claim!r}, but nothing was done"
    if wrong := set(REASON.findall(turn.reply)) - set(REASON.findall(why)):
        yield f"gives {' '.join(min(wrong)).strip()!r} as the reason; it is {why}"


def _untold(turn: Turn, said: Stated, today: date) -> Iterator[str]:
    """What of the results must be told and is not; of calls one after the other, those of the last."""
    acts = any(call.name in TOOLS and TOOLS[call.name].acts for call in turn.calls)
    if turn.calls and (denied := (UNDONE if acts else UNFOUND).search(turn.reply)):
        yield f"says {denied.group()!r}, but it was done"
    if wrong := NOT_THIS.search(without_days(turn.reply)):
        yield f"says {wrong.group()!r}; tell each number as what it is"
    if any(isinstance(value, list) for result in turn.results for value in result.values()) and (
        wrong := RANGE.search(without_days(turn.reply))
    ):
        yield f"says {wrong.group()!r}, as if all that lies between were free; name single times"
    for step in turn.steps[-1:]:
        labels = [_label(call, result) for call, result in step]
        parts = _parts(turn.reply, labels) if len(step) > 1 else [turn.reply]
        if parts is None:
            yield f"must speak of {', then of '.join(filter(None, labels))}, each with what came out"
            return
        for (call, result), part in zip(step, parts, strict=True):
            if len(step) > 1:
                said = stated(part, given([turn.request], [call.arguments, result], today), today)
                yield from said.faults
            yield from _missing(call, result, part, said)


def _label(call: Call, result: Any) -> str:
    tool = TOOLS.get(call.name)
    return str(result.get(tool.label, "")) if tool and tool.label and isinstance(result, dict) else ""


def _parts(reply: str, labels: Sequence[str]) -> list[str] | None:
    """The part of a reply that follows each label, up to the next; None where one is not there, or not in order."""
    found = [re.search(rf"\b{re.escape(label)}\b", reply, re.IGNORECASE) if label else None for label in labels]
    starts = [match.start() if match else -1 for match in found]
    if min(starts) < 0 or starts != sorted(set(starts)):
        return None
    return [reply[start:end] for start, end in zip(starts, [*starts[1:], len(reply)], strict=True)]


def _missing(call: Call, result: Any, reply: str, said: Stated) -> Iterator[str]:
    tool = TOOLS.get(call.name)
    for key in tool.tells if tool and isinstance(result, dict) else ():
        value = result.get(key)
        if value is not None and not _tells(key, value, result, reply, said):
            yield f"must tell {key} of {call.name} ({as_json(value)})"


def _tells(key: str, value: Any, result: Mapping[str, Any], reply: str, said: Stated) -> bool:
    if isinstance(value, list):
        return any(_tells(key, one, result, reply, said) for one in value)
    if isinstance(value, int | float):
        number = Fraction(str(value))
        amounts = given([], [{**_units_of(result), key: value}], date.min).amounts
        return bool(amounts & said.amounts) if amounts else number in said.numbers
    if key in SAID:
        return read_text(reply).speaks_of(SAID[key]) == {value}
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return date.fromisoformat(value) in said.days
    if re.fullmatch(r"\d\d:\d\d", value):
        return time.fromisoformat(value) in said.times
    return read_text(reply).says(value)


def _units_of(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("unit", "currency") if name in result}
