"""The check `tool_result`: each reply of a conversation with tools says what they returned, and nothing else.

Knows no teacher. plugins/tools/README.md lists what it cannot see.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from agents.checks import Finding, Options, Subject, check
from agents.checks.text.quantities import read_written
from plugins.tools.checks.conversation_checks import (
    DENIAL,
    ConversationTurn,
    build_turn_findings,
    dump_json,
    find_success_claim,
    find_today,
    has_plan,
    is_failure,
    is_stated,
    iter_values,
    list_results,
    parse_json_or_text,
    split_turns,
)
from plugins.tools.checks.reply_facts import (
    NO_DAY,
    TEXT_SEPARATOR,
    collect_known_facts,
    find_days,
    find_unsupported_facts,
    value_lines,
)
from plugins.tools.simulation.service_state import SimulatedService
from plugins.tools.toolbox.tool_spec import read_parameter_schemas

BLOCKED_PATTERN = re.compile(
    r"\b(?:busy|taken|occupied|sold out|reserved|unknown|impossible|unavailable|only \d+|another reader|too far|off the map"
    r"|outside (?:the|of the|its) map|at most|maximum)\b",
    re.IGNORECASE,
)
"""Other words for a failure."""
REASON = re.compile(
    r"\bonly (\d+)|(\d{1,2}:\d\d)(?:\s*[–-]\s*|\s+(?:to|until|till|and)\s+)(\d{1,2}:\d\d)", re.IGNORECASE
)
"""The available number, or the busy times, in an error."""
FAILED_LOOKUP_PATTERN = re.compile(r"\b(?:could not|couldn't|unable to|failed|error)\b", re.IGNORECASE)


@check("tool_result", languages=("en",))
def tool_result_check(subject: Subject, _options: Options) -> list[Finding]:
    """Each reply must say what the tools returned: its numbers, days, times and names come from the user or a result.

    A result of a simulated service must be what the service gives.
    """
    turns, data = split_turns(subject.candidate.messages), subject.seed.data
    functions = [tool["function"] for tool in subject.candidate.fields["tools"]]
    texts = [f"{function['name']} {function.get('description', '')}" for function in functions]
    if not has_plan(subject):
        faults = [find_reply_fault(turns[:number], turn, texts) for number, turn in enumerate(turns)]
        return build_turn_findings("tool_result", faults, "the results support the reply")
    faults = []
    service, offered = SimulatedService(**data["service"]), read_parameter_schemas(subject.candidate.fields["tools"])
    for number, turn in enumerate(turns):
        fault = None
        for call, shown in zip(turn.calls, turn.results, strict=True):
            result = service.execute(call, offered)
            if fault is None and parse_json_or_text(result.content) != shown:
                fault = f"{call.name} gives {result.content}, not {dump_json(shown)[:200]}"
        fault = fault or find_reply_fault(turns[:number], turn, texts, find_today(subject), data["rules"], planned=True)
        faults.append(fault)
    return build_turn_findings("tool_result", faults, "the results support the reply")


def _describe_fault(faults: Sequence[str], turn: ConversationTurn) -> str | None:
    if not faults:
        return None
    came_out = f"; the result is {'; '.join(map(dump_json, turn.results))[:600]}" if turn.calls else ""
    return f"the reply {faults[0]}{came_out}"


def _list_error_faults(turn: ConversationTurn, results: Sequence[Any], why: str) -> Iterator[str]:
    reply = turn.reply
    if not (DENIAL.search(reply) or BLOCKED_PATTERN.search(reply)):
        yield f"must say that it could not be done: {why}"
    if claim := find_success_claim(reply, results, turn.request):
        yield f"says {claim!r}, but nothing was done"
    if wrong := set(REASON.findall(reply)) - set(REASON.findall(why)):
        yield f"gives {' '.join(min(wrong)).strip()!r} as the reason; it is {why}"


def find_reply_fault(
    before: Sequence[ConversationTurn],
    turn: ConversationTurn,
    descriptions: Sequence[str],
    today: date = NO_DAY,
    rules: str = "",
    *,
    planned: bool = False,
) -> str | None:
    """What a reply says that neither the user nor a tool gave, or fails to say. `rules` and `planned`: of a simulated service."""
    every = (*before, turn)
    requests = [*(one.request for one in every), *([rules] if rules else [])]
    results = list_results(every)
    values = [*results, *(call.arguments for one in every for call in one.calls)]
    known = collect_known_facts(requests, values, today)
    # Descriptions know names, such as that of a library, but no facts.
    known = replace(known, text=TEXT_SEPARATOR.join([known.text, *descriptions]))
    called = {call.name for call in turn.calls}
    # A tool that describes its result as today's makes today a given day: `at today's rate`.
    current = [one for one in descriptions if one.partition(" ")[0] in called and NO_DAY in find_days(one, NO_DAY)]
    known = replace(known, days=known.days | {NO_DAY}) if current else known
    faults = find_unsupported_facts(turn.reply, known, today)
    failed = [str(result) for result in turn.results if is_failure(result)]
    if turn.results and len(failed) == len(turn.results):
        faults += _list_error_faults(turn, results, "; ".join(failed))
    else:
        faults += _undone_faults(turn, today) if planned else _unstated_faults(turn)
    return _describe_fault(faults, turn)


def _undone_faults(turn: ConversationTurn, today: date) -> Iterator[str]:
    """A last step of a simulated service that succeeded, and that the reply denies or does not mention."""
    last = [result for _, result in turn.steps[-1]] if turn.steps else []
    if last and not any(map(is_failure, last)):
        if denied := FAILED_LOOKUP_PATTERN.search(turn.reply):
            yield f"says {denied.group()!r}, but it was done"
        values = [value for result in last for value in iter_values(result)]
        days = read_written(TEXT_SEPARATOR.join(value_lines(last))).dates & find_days(turn.reply, today)
        if not (days or any(is_stated(value, turn.reply) for value in values) or find_success_claim(turn.reply)):
            yield "says nothing of what came out"


def _unstated_faults(turn: ConversationTurn) -> Iterator[str]:
    """The results of the last step of which the reply says nothing new. An argument under another name is new: `closed`."""
    for call, result in turn.steps[-1] if turn.steps else ():
        new = _list_new(turn, result)
        fields = result.items() if isinstance(result, dict) else ()
        given = [value for value in call.arguments.values() if isinstance(value, str)]
        done = [(key.replace("_", " "), value) for key, value in fields if key not in call.arguments and value in given]
        stated = any(is_stated(key, turn.reply) and is_stated(value, turn.reply) for key, value in done)
        if new and not (stated or any(is_stated(value, turn.reply) for value in new)):
            yield f"says nothing of what {call.name} returned"


def list_new_values(turn: ConversationTurn) -> list[Any]:
    """The values of the last step's results that neither the request nor an argument has."""
    return [value for _, result in (turn.steps[-1] if turn.steps else ()) for value in _list_new(turn, result)]


def _list_new(turn: ConversationTurn, result: Any) -> list[Any]:
    given = TEXT_SEPARATOR.join([turn.request, *value_lines([call.arguments for call in turn.calls])])
    return [] if is_failure(result) else [value for value in iter_values(result) if not is_stated(value, given)]
