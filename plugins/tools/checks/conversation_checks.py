"""Checks of conversations with simulated tools: the right calls, with arguments from the conversation, and true replies.

Knows no teacher. plugins/tools/README.md lists what these checks cannot see.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, time
from fractions import Fraction
from typing import Any, NamedTuple

from agents.checks import Finding, Options, Subject, build_finding, check
from agents.checks.text.quantities import read_written
from agents.checks.text.value_in_text import find_leaf_fault, iter_leaves
from core.sample import Message
from plugins.tools.checks.reply_facts import (
    TEXT_SEPARATOR,
    KnownFacts,
    ReplyFacts,
    append_dates,
    blank_dates,
    collect_known_facts,
    find_names,
    read_reply_facts,
    value_lines,
)
from plugins.tools.simulation import SIMULATED_TOOLS
from plugins.tools.simulation.conversation_plan import (
    KINDS_WITHOUT_CALL,
    PlannedCall,
    PlannedTurn,
    dump_json,
    is_same_call,
    parse_planned_turn,
)
from plugins.tools.simulation.scenario_domains import CATALOGUE
from plugins.tools.simulation.simulated_tool import run_tool
from plugins.tools.simulation.simulated_world import AUTHORS, TITLES
from plugins.tools.simulation.town_map import TOWNS

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
VALUE_WORDS: Mapping[str, Mapping[str, Sequence[str]]] = {"sky": SKIES, "status": STATUSES}
"""Fields of results whose values are words, with the words for each value in a reply."""
KNOWN_NAMES = (*TOWNS, *(name for name in CATALOGUE if " " in name), *TITLES, *AUTHORS)
"""Names that a reply can only know from the conversation."""
MARKUP = re.compile(r"[{}]|</?tool|<\|")
NEGATION_PATTERN = (
    r"(?:\b(?:not|cannot|never|unable|nothing|none|nobody|without|neither|nor|fail(?:s|ed)?|\w+n't"
    r"|no(?!\s+(?:problem|worr|doubt|need|matter)))\b)"
)
DENIAL = re.compile(NEGATION_PATTERN, re.IGNORECASE)
BLOCKED_PATTERN = re.compile(
    r"\b(?:busy|taken|occupied|sold out|reserved|unknown|impossible|unavailable|only \d+|another reader|too far|off the map"
    r"|outside (?:the|of the|its) map)\b",
    re.IGNORECASE,
)
"""Other words for a failure."""
REASON = re.compile(
    r"\bonly (\d+)|(\d{1,2}:\d\d)(?:\s*[–-]\s*|\s+(?:to|until|till|and)\s+)(\d{1,2}:\d\d)", re.IGNORECASE
)
"""The available number, or the busy times, in an error."""
DONE_PATTERN = re.compile(
    r"\b(?:booked|ordered|placed|scheduled|added|renewed|extended|saved|confirmed|arranged|all set|(?:is|are|been|'s|have) set"
    r"|will remind|(?:is|are|'s) done|done[.!])",
    re.IGNORECASE,
)
FAILED_LOOKUP_PATTERN = re.compile(r"\b(?:could not|couldn't|unable to|failed|error)\b", re.IGNORECASE)
UNDONE_PATTERN = re.compile(
    r"\b(?:could not|couldn't|unable to|failed|error|cannot|can't|can not|was not|wasn't|is not|isn't|has not|hasn't|have not"
    r"|haven't|won't|will not|did not|didn't)\b|\?",
    re.IGNORECASE,
)
"""Denials and questions, which must not occur in a reply about a completed action."""
EXCLUDED_VALUE_PATTERN = re.compile(
    rf"(?:{NEGATION_PATTERN}[^\w.,;:!?]+(?:[\w']+[^\w.,;:!?]+){{0,2}}|\b(?:than|under|over|below|above|beyond|almost|nearly"
    r"|at least|at most|up to|before|after)\s+)(?:[A-Z]{3}\s|[-€$£¥])?\d",
    re.IGNORECASE,
)
"""A number that is denied, or used as a limit."""
RANGE = re.compile(
    r"\d(?:\s?[ap]\.?m\.?)?\s*(?:-(?!(?:minute|min|hour)\b)|–|—|\bto\b|\buntil\b|\btill\b|\band on\b|\bonwards?\b)",
    re.IGNORECASE,
)
"""A span of numbers; `a 45-minute lesson` is none."""
ABSENCE_PATTERN = re.compile(
    r"(?:\b(?:no|not|cannot)|n't)\b(?:(?!\b(?:but|it|is|and)\b)[^.!?;:])*?\bin the library\b", re.IGNORECASE
)
"""A book's absence: `there is no book named … in the library`."""


OTHER_RATE_PATTERN = re.compile(
    r"\b(?:tomorrow|yesterday|\w+day(?<!today))'s\s+(?:exchange\s+)?rates?\b|\brates?\s+of\s+(?:tomorrow|yesterday)\b",
    re.IGNORECASE,
)
"""A rate of another day than today."""


class ConversationTurn(NamedTuple):
    """The user's request, the calls with their results, step by step, and the assistant's final reply."""

    request: str
    steps: tuple[tuple[tuple[PlannedCall, Any], ...], ...]
    reply: str

    @property
    def calls(self) -> list[PlannedCall]:
        return [call for step in self.steps for call, _ in step]

    @property
    def results(self) -> list[Any]:
        return [result for step in self.steps for _, result in step]


def split_turns(messages: Sequence[Message]) -> list[ConversationTurn]:
    """The turns of a conversation, without unanswered calls, which `tool_schema` reports."""
    turns: list[ConversationTurn] = []
    rest = [message for message in messages if message.role != "system"]
    starts = [i for i, message in enumerate(rest) if message.role == "user"]
    for start, end in zip(starts, [*starts[1:], len(rest)], strict=True):
        steps: list[tuple[tuple[PlannedCall, Any], ...]] = []
        reply = ""
        for i, message in enumerate(rest[start:end], start):
            if message.role == "assistant" and message.tool_calls:
                calls = [PlannedCall(call.name, call.arguments) for call in message.tool_calls]
                answers = [parse_json_or_text(answer.content) for answer in rest[i + 1 : min(i + 1 + len(calls), end)]]
                steps.append(tuple(zip(calls, answers, strict=False)))
            elif message.role == "assistant":
                reply = message.content.replace("’", "'")
        turns.append(ConversationTurn(rest[start].content, tuple(steps), reply))
    return turns


def parse_json_or_text(content: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content


def planned_turns(subject: Subject) -> list[PlannedTurn]:
    return [parse_planned_turn(data) for data in subject.seed.data["wishes"]]


def world_today(subject: Subject) -> date:
    return date.fromisoformat(subject.seed.data["world"]["today"])


def build_turn_findings(name: str, faults: Sequence[str | None], met: str) -> list[Finding]:
    """One finding for each turn."""
    several = len(faults) > 1
    return [
        build_finding(
            name,
            fault and (f"turn {number}: {fault}" if several else fault),
            f"turn {number}: {met}" if several else met,
        )
        for number, fault in enumerate(faults, 1)
    ]


@check("tool_use")
def tool_use_check(subject: Subject, _options: Options) -> list[Finding]:
    """Each turn must make the calls that its seed wants and no other; without a call, the assistant asks or declines."""
    turns, wishes = split_turns(subject.candidate.messages), planned_turns(subject)
    if len(turns) != len(wishes):
        return [build_finding("tool_use", f"there must be {len(wishes)} turns, not {len(turns)}", "")]
    today = world_today(subject)
    faults = [_tool_use_fault(turn, wish, today) for turn, wish in zip(turns, wishes, strict=True)]
    return build_turn_findings("tool_use", faults, "calls what is wanted")


def _tool_use_fault(turn: ConversationTurn, wish: PlannedTurn, today: date) -> str | None:
    for text in (turn.request, turn.reply):
        if not any(c.isalnum() for c in text) or MARKUP.search(text):
            return f"the user and the assistant speak in plain words, not {text[:80]!r}"
    if named := next((name for name in SIMULATED_TOOLS if name in f"{turn.request} {turn.reply}"), None):
        return f"a message names the tool {named}; say in plain words what is wanted and what came out"
    if wish.kind not in KINDS_WITHOUT_CALL:
        wanted = ", then ".join(f"{call.name} {dump_json(call.arguments)}" for call in wish.calls)
        same = len(turn.calls) == len(wish.calls) and all(
            is_same_call(call, made.name, made.arguments) for call, made in zip(wish.calls, turn.calls, strict=True)
        )
        return None if same else f"the calls must be exactly {wanted}"

    if turn.calls:
        return f"no tool may be called, but {turn.calls[0].name} is; leave calls empty"
    if claim := find_success_claim(turn.reply):
        return f"nothing was done, but the reply says {claim!r}"
    if wish.kind == "outside":
        return None if DENIAL.search(turn.reply) else "the reply must say plainly that this cannot be done here"
    asked = (SIMULATED_TOOLS[wish.tool].asked or {})[wish.missing]
    if "?" not in turn.reply or not any(read_written(turn.reply).contains_phrase(word) for word in asked):
        return f"the reply must ask for `{wish.missing}` ({', '.join(asked)})"
    return _disclosed_argument_fault(turn.request, wish, today)


def _disclosed_argument_fault(request: str, wish: PlannedTurn, today: date) -> str | None:
    """The fault that the user states the argument that must be missing, or None."""
    schema, given = SIMULATED_TOOLS[wish.tool].parameters["properties"][wish.missing], wish.said or {}
    known = collect_known_facts([request], [], today)
    others = collect_known_facts([], [given], today)
    if "enum" in schema:
        disclosed = read_written(request).mentioned_terms(schema["x-evidence"]) - {*map(str, given.values())}
    elif schema["type"] in ("integer", "number"):
        lengths = read_written(request).mentioned_terms(schema.get("x-evidence", {}))
        said_already = others.numbers | {value for value, _ in others.amounts}
        disclosed = {f"{float(n):g}" for n in known.numbers - said_already} | lengths
    elif schema.get("format") == "date":
        disclosed = {day.isoformat() for day in known.days - others.days}
    elif "pattern" in schema:
        disclosed = {moment.isoformat("minutes") for moment in known.times - others.times}
    else:
        towns = {town for town in TOWNS if read_written(request).contains_phrase(town)}
        disclosed = {
            name for name in find_names(request) | towns if not read_written(others.text).contains_phrase(name)
        }
    return f"the user must not tell `{wish.missing}`, but says {min(disclosed)}" if disclosed else None


def find_success_claim(reply: str) -> str | None:
    """The words in which a reply claims success; a denial up to four words before them cancels the claim."""
    for claim in DONE_PATTERN.finditer(reply):
        before = reply[: claim.start()]
        if not re.search(rf"{NEGATION_PATTERN}[^\w.,;:!?]+(?:[\w']+[^\w.,;:!?]+){{0,4}}$", before, re.IGNORECASE):
            return claim.group()
    return None


@check("tool_arguments")
def tool_arguments_check(subject: Subject, _options: Options) -> list[Finding]:
    """Each argument must come from the conversation so far: from what the user said, or from an earlier result."""
    turns, today = split_turns(subject.candidate.messages), world_today(subject)
    faults = [_ungrounded_argument_fault(turns[:number], turn, today) for number, turn in enumerate(turns)]
    return build_turn_findings("tool_arguments", faults, "each argument was said")


def _ungrounded_argument_fault(before: Sequence[ConversationTurn], turn: ConversationTurn, today: date) -> str | None:
    requests = [append_dates(earlier.request, today) for earlier in (*before, turn)]
    results = [result for earlier in before for result in earlier.results]
    for step in turn.steps:
        text = TEXT_SEPARATOR.join([*requests, *value_lines(results)])
        for call, _ in step:
            if fault := find_grounding_fault(call, text):
                return fault
        results += [result for _, result in step]
    return None


def find_grounding_fault(call: PlannedCall, text: str) -> str | None:
    """The first argument of a call that does not occur in `text`. An unknown tool has no words for its values."""
    tool = SIMULATED_TOOLS.get(call.name)
    schema = tool.parameters if tool else {}
    for leaf in iter_leaves(call.arguments, schema):
        flag = isinstance(leaf.value, bool) and not any(part.schema.get("type") == "boolean" for part in leaf.parts)
        fault = find_leaf_fault(leaf, read_written(text)) if leaf.value is not None else None
        if fault and leaf.path == "product" and isinstance(leaf.value, str):  # `5 linen mugs`
            plurals = {
                f"{leaf.value}s",
                f"{leaf.value}es",
                re.sub("y$", "ies", leaf.value),
                re.sub("fe?$", "ves", leaf.value),
            }
            fault = None if any(map(read_written(text).contains_phrase, plurals)) else fault
        fault = f"is {leaf.value}, which is no text and no number" if flag else fault
        if fault:
            return f"`{leaf.path}` of {call.name} {fault.replace('the text', 'the conversation')}"
    return None


@check("tool_result")
def tool_result_check(subject: Subject, _options: Options) -> list[Finding]:
    """Each result must be what the tool gives, and each reply must tell it right: all that was asked for, and nothing else."""
    turns, world = split_turns(subject.candidate.messages), subject.seed.data["world"]
    tools = {name: SIMULATED_TOOLS[name] for name in subject.seed.data["offered"]}
    today, faults = world_today(subject), []
    for number, turn in enumerate(turns):
        fault = None
        for call, shown in zip(turn.calls, turn.results, strict=True):
            result, world = run_tool(world, tools, call.name, call.arguments)
            if dump_json(result) != dump_json(shown):
                fault = f"{call.name} gives {dump_json(result)}, not {dump_json(shown)[:200]}"
                break
        faults.append(fault or _reply_fault(turns[:number], turn, today))
    return build_turn_findings("tool_result", faults, "the reply tells what came out")


def _reply_fault(before: Sequence[ConversationTurn], turn: ConversationTurn, today: date) -> str | None:
    requests = [earlier.request for earlier in (*before, turn)]
    errors = [str(result["error"]) for result in turn.results if isinstance(result, dict) and "error" in result]
    known = _known_facts([*requests, *errors], turn.calls, turn.results, today)
    products = [str(call.arguments["product"]) for call in turn.calls if "product" in call.arguments]
    if any(re.search(rf"\bone {re.escape(product)}\b", turn.reply, re.IGNORECASE) for product in products):
        known = replace(known, numbers=known.numbers | {Fraction(1)})  # the price of one
    facts, spoken = read_reply_facts(turn.reply, known, today), read_written(turn.reply)
    results = [result for result in turn.results if isinstance(result, dict)]
    faults = [*facts.faults]
    for name in KNOWN_NAMES:
        if spoken.contains_phrase(name) and not read_written(known.text).contains_phrase(name):
            faults.append(f"says {name!r}, which neither the user nor a tool gave")
    for key, tool in (("sky", "get_weather"), ("status", "find_book")):
        if any(call.name == tool for call in turn.calls):
            foreign = _mentioned_values(key, turn.reply) - {result.get(key) for result in results}
            faults += [f"says {min(foreign)!r}"] if foreign else []

    if wrong := OTHER_RATE_PATTERN.search(turn.reply):
        faults.append(f"says {wrong.group()!r}, but the rate is today's")
    faults += list_error_faults(turn.reply, "; ".join(errors)) if errors else _missing_result_faults(turn, facts, today)
    if not faults:
        return None
    came_out = f"; the result is {'; '.join(map(dump_json, turn.results))}" if turn.calls else ""
    return f"the reply {faults[0]}{came_out}"


def _known_facts(
    requests: Sequence[str], calls: Sequence[PlannedCall], results: Sequence[Any], today: date
) -> KnownFacts:
    """The facts of requests, calls and results; today is one of them where a result holds for today, as a price does."""
    known = collect_known_facts(requests, [[call.arguments for call in calls], results], today)
    current = any(SIMULATED_TOOLS[call.name].current for call in calls if call.name in SIMULATED_TOOLS)
    return replace(known, days=known.days | {today}) if current else known


def list_error_faults(reply: str, why: str) -> Iterator[str]:
    if not (DENIAL.search(reply) or BLOCKED_PATTERN.search(reply)):
        yield f"must say that it could not be done: {why}"
    if claim := find_success_claim(reply):
        yield f"says {claim!r}, but nothing was done"
    if wrong := set(REASON.findall(reply)) - set(REASON.findall(why)):
        yield f"gives {' '.join(min(wrong)).strip()!r} as the reason; it is {why}"


def _missing_result_faults(turn: ConversationTurn, facts: ReplyFacts, today: date) -> Iterator[str]:
    """Required values that the reply does not state; of consecutive steps, only those of the last."""
    acts = any(call.name in SIMULATED_TOOLS and SIMULATED_TOOLS[call.name].acts for call in turn.calls)
    if turn.calls and (denied := (UNDONE_PATTERN if acts else FAILED_LOOKUP_PATTERN).search(turn.reply)):
        yield f"says {denied.group()!r}, but it was done"
    if wrong := EXCLUDED_VALUE_PATTERN.search(blank_dates(turn.reply)):
        yield f"says {wrong.group()!r}; tell each number as what it is"
    if any(isinstance(value, list) for result in turn.results for value in result.values()) and (
        wrong := RANGE.search(blank_dates(turn.reply))
    ):
        yield f"says {wrong.group()!r}, as if all that lies between were free; name single times"
    for step in turn.steps[-1:]:
        labels = []
        for call, result in step:
            tool = SIMULATED_TOOLS.get(call.name)
            labels.append(str(result.get(tool.label, "")) if tool and tool.label and isinstance(result, dict) else "")
        parts = _split_by_labels(turn.reply, labels) if len(step) > 1 else [turn.reply]
        if parts is None:
            yield f"must speak of {', then of '.join(filter(None, labels))}, each with what came out"
            return
        for (call, result), part in zip(step, parts, strict=True):
            if len(step) > 1:
                known = _known_facts([turn.request], [call], [result], today)
                facts = read_reply_facts(part, known, today)
                yield from facts.faults
            yield from _missing_fields(call, result, part, facts, turn.request)


def _split_by_labels(reply: str, labels: Sequence[str]) -> list[str] | None:
    """The part of a reply after each label, up to the next label; None if a label is missing or out of order."""
    matches = [re.search(rf"\b{re.escape(label)}\b", reply, re.IGNORECASE) if label else None for label in labels]
    starts = [match.start() if match else -1 for match in matches]
    if min(starts) < 0 or starts != sorted(set(starts)):
        return None
    return [reply[start:end] for start, end in zip(starts, [*starts[1:], len(reply)], strict=True)]


def _missing_fields(call: PlannedCall, result: Any, reply: str, facts: ReplyFacts, request: str) -> Iterator[str]:
    tool = SIMULATED_TOOLS.get(call.name)
    if tool is None or not isinstance(result, dict):
        return
    said = request.replace("’", "'")
    asked = {key for key, words in tool.asks.items() if words.search(said)}
    optional = tool.asks.keys() - asked if asked else set()
    for key in tool.tells:
        value = None if key in optional else result.get(key)
        if value is not None and not _states_value(key, value, result, reply, facts):
            yield f"must tell {key} of {call.name} ({dump_json(value)})"


def _states_value(key: str, value: Any, result: Mapping[str, Any], reply: str, facts: ReplyFacts) -> bool:
    if isinstance(value, list):
        return any(_states_value(key, item, result, reply, facts) for item in value)
    if isinstance(value, int | float):
        number = Fraction(str(value))
        units = {name: result[name] for name in ("unit", "currency") if name in result}
        amounts = collect_known_facts([], [{**units, key: value}], date.min).amounts
        return bool(amounts & facts.amounts) if amounts else number in facts.numbers
    if key in VALUE_WORDS:
        return _mentioned_values(key, reply) == {value}
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return date.fromisoformat(value) in facts.days
    if re.fullmatch(r"\d\d:\d\d", value):
        return time.fromisoformat(value) in facts.times
    return read_written(reply).contains_phrase(value)


def _mentioned_values(key: str, reply: str) -> set[str]:
    """The values of a field with words that a reply states; `not in the library` does not say that a book is available."""
    shown = ABSENCE_PATTERN.sub(" ", reply.replace("’", "'")) if key == "status" else reply
    return set(read_written(shown).mentioned_terms(VALUE_WORDS[key]))
