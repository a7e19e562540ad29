"""The check `tool_result`: each reply of a conversation with tools says what they returned, and nothing else.

Knows no teacher. plugins/tools/README.md lists what it cannot see.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, time
from fractions import Fraction
from typing import Any

from agents.checks import Finding, Options, Subject, check
from agents.checks.text.quantities import read_written
from plugins.tools.checks.conversation_checks import (
    DENIAL,
    NEGATION_PATTERN,
    ConversationTurn,
    build_turn_findings,
    find_success_claim,
    find_today,
    has_plan,
    is_failure,
    is_stated,
    iter_values,
    split_turns,
)
from plugins.tools.checks.reply_facts import (
    NO_DAY,
    TEXT_SEPARATOR,
    UNITS,
    KnownFacts,
    ReplyFacts,
    blank_dates,
    collect_known_facts,
    find_days,
    read_reply_facts,
    value_lines,
)
from plugins.tools.simulation.conversation_plan import PlannedCall, dump_json
from plugins.tools.simulation.simulated_tools import SIMULATED_TOOLS, SimulatedTool, run_tool
from plugins.tools.simulation.simulated_world import AUTHORS, CATALOGUE, TITLES, TOWNS

VALUE_WORDS = {key: words for tool in SIMULATED_TOOLS.values() for key, words in tool.words.items()}
KNOWN_NAMES = (*TOWNS, *(name for name in CATALOGUE if " " in name), *TITLES, *AUTHORS)
"""Names that a reply can only know from the conversation."""
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


@check("tool_result")
def tool_result_check(subject: Subject, _options: Options) -> list[Finding]:
    """Each reply must say what the tools returned: its numbers, days, times and names come from the user or a result.

    A result of a simulated tool must be what the tool gives, and its reply tells all that was asked for.
    """
    turns, faults = split_turns(subject.candidate.messages), []
    if has_plan(subject):
        world, today = subject.seed.data["world"], find_today(subject)
        tools = {name: SIMULATED_TOOLS[name] for name in subject.seed.data["offered"]}
        for number, turn in enumerate(turns):
            fault = None
            for call, shown in zip(turn.calls, turn.results, strict=True):
                result, world = run_tool(world, tools, call.name, call.arguments)
                if dump_json(result) != dump_json(shown):
                    fault = f"{call.name} gives {dump_json(result)}, not {dump_json(shown)[:200]}"
                    break
            faults.append(fault or _find_planned_reply_fault(turns[:number], turn, today))
    else:
        functions = [tool["function"] for tool in subject.candidate.fields["tools"]]
        texts = [f"{function['name']} {function.get('description', '')}" for function in functions]
        faults = [find_reply_fault(turns[:number], turn, texts) for number, turn in enumerate(turns)]
    return build_turn_findings("tool_result", faults, "the results support the reply")


def _find_planned_reply_fault(before: Sequence[ConversationTurn], turn: ConversationTurn, today: date) -> str | None:
    requests = [earlier.request for earlier in (*before, turn)]
    errors = [str(result["error"]) for result in turn.results if isinstance(result, dict) and "error" in result]
    known = _collect_planned_facts([*requests, *errors], turn.calls, turn.results, today)
    products = [str(call.arguments["product"]) for call in turn.calls if "product" in call.arguments]
    if any(re.search(rf"\bone {re.escape(product)}\b", turn.reply, re.IGNORECASE) for product in products):
        known = replace(known, numbers=known.numbers | {Fraction(1)})  # the price of one
    facts, spoken = read_reply_facts(turn.reply, known, today), read_written(turn.reply)
    faults = [*facts.faults]
    for name in KNOWN_NAMES:
        if spoken.contains_phrase(name) and not read_written(known.text).contains_phrase(name):
            faults.append(f"says {name!r}, which neither the user nor a tool gave")
    for key in {key: None for tool in _called_tools(turn.calls) for key in tool.words}:
        given = {result.get(key) for result in turn.results if isinstance(result, dict)}
        foreign = _mentioned_values(key, turn.reply) - given
        faults += [f"says {min(foreign)!r}"] if foreign else []
    if wrong := OTHER_RATE_PATTERN.search(turn.reply):
        faults.append(f"says {wrong.group()!r}, but the rate is today's")
    faults += (
        _list_error_faults(turn.reply, "; ".join(errors)) if errors else _missing_result_faults(turn, facts, today)
    )
    return _describe_fault(faults, turn)


def _called_tools(calls: Sequence[PlannedCall]) -> list[SimulatedTool]:
    return [SIMULATED_TOOLS[call.name] for call in calls if call.name in SIMULATED_TOOLS]


def _describe_fault(faults: Sequence[str], turn: ConversationTurn) -> str | None:
    if not faults:
        return None
    came_out = f"; the result is {'; '.join(map(dump_json, turn.results))[:600]}" if turn.calls else ""
    return f"the reply {faults[0]}{came_out}"


def _collect_planned_facts(
    requests: Sequence[str], calls: Sequence[PlannedCall], results: Sequence[Any], today: date
) -> KnownFacts:
    """The facts of requests, calls and results; today is one of them where a result holds for today, as a price does."""
    known = collect_known_facts(requests, [[call.arguments for call in calls], results], today)
    current = any(tool.current for tool in _called_tools(calls))
    return replace(known, days=known.days | {today}) if current else known


def _list_error_faults(reply: str, why: str) -> Iterator[str]:
    if not (DENIAL.search(reply) or BLOCKED_PATTERN.search(reply)):
        yield f"must say that it could not be done: {why}"
    if claim := find_success_claim(reply):
        yield f"says {claim!r}, but nothing was done"
    if wrong := set(REASON.findall(reply)) - set(REASON.findall(why)):
        yield f"gives {' '.join(min(wrong)).strip()!r} as the reason; it is {why}"


def _missing_result_faults(turn: ConversationTurn, facts: ReplyFacts, today: date) -> Iterator[str]:
    """Required values that the reply does not state; of consecutive steps, only those of the last."""
    acts = any(tool.acts for tool in _called_tools(turn.calls))
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
                known = _collect_planned_facts([turn.request], [call], [result], today)
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


def find_reply_fault(
    before: Sequence[ConversationTurn], turn: ConversationTurn, descriptions: Sequence[str]
) -> str | None:
    """What a reply says that neither the user nor a tool gave, or fails to say."""
    every = (*before, turn)
    requests = [one.request for one in every]
    results = [result for one in every for result in one.results]
    values = [*results, *(call.arguments for one in every for call in one.calls)]
    known = _collect_own_facts(requests, values)
    # Descriptions know names, such as that of a library, but no facts.
    known = replace(known, text=TEXT_SEPARATOR.join([known.text, *descriptions]))
    called = {call.name for call in turn.calls}
    # A tool that describes its result as today's makes today a given day: `at today's rate`.
    current = [one for one in descriptions if one.partition(" ")[0] in called and NO_DAY in find_days(one, NO_DAY)]
    known = replace(known, days=known.days | {NO_DAY}) if current else known
    faults = list(read_reply_facts(turn.reply, known, NO_DAY).faults)
    failed = [str(result) for result in turn.results if is_failure(result)]
    if turn.results and len(failed) == len(turn.results):
        faults += _list_error_faults(turn.reply, "; ".join(failed))
    else:
        faults += _unstated_faults(turn)
    return _describe_fault(faults, turn)


def _collect_own_facts(requests: Sequence[str], values: Sequence[Any]) -> KnownFacts:
    """The facts of a conversation. A tool's fields do not say which unit their numbers have, so any may follow."""
    texts = [text for value in values for text in value_lines(value) if isinstance(value, str)]
    known = collect_known_facts([*requests, *texts], values, NO_DAY)
    numbers = known.numbers | frozenset(number for value in values for number in _iter_numbers(value))
    return replace(
        known, numbers=numbers, amounts=known.amounts | {(number, unit) for number in numbers for unit in UNITS}
    )


def _iter_numbers(value: Any) -> Iterator[Fraction]:
    """The numbers of a value, and how many things its lists have."""
    if isinstance(value, dict | list | tuple):
        yield from () if isinstance(value, dict) else (Fraction(len(value)),)
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _iter_numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield Fraction(str(value))
    elif isinstance(value, str):
        yield from read_written(value).numbers


def _unstated_faults(turn: ConversationTurn) -> Iterator[str]:
    """The results of the last step of which the reply says nothing new."""
    for call, result in turn.steps[-1] if turn.steps else ():
        new = _list_new(turn, result)
        if new and not any(is_stated(value, turn.reply) for value in new):
            yield f"says nothing of what {call.name} returned"


def list_new_values(turn: ConversationTurn) -> list[Any]:
    """The values of the last step's results that neither the request nor an argument has."""
    return [value for _, result in (turn.steps[-1] if turn.steps else ()) for value in _list_new(turn, result)]


def _list_new(turn: ConversationTurn, result: Any) -> list[Any]:
    given = TEXT_SEPARATOR.join([turn.request, *value_lines([call.arguments for call in turn.calls])])
    return [] if is_failure(result) else [value for value in iter_values(result) if not is_stated(value, given)]
