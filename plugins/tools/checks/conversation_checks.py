"""Checks of conversations with tools, simulated ones and the user's own: needed calls, and arguments from the conversation. Calls
of a simulated service are repeated: after each turn, the state must be that of the seed's plan.

Knows no teacher. plugins/tools/README.md lists what these checks cannot see.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from agents.checks import Finding, Options, Subject, build_finding, check
from agents.checks.text.item_clauses import ISO_DAY
from agents.checks.text.quantities import read_written
from agents.checks.text.text_units import fold_text
from agents.checks.text.value_in_text import ValueLeaf, find_leaf_fault, iter_leaves
from core.sample import Message, ToolCall
from plugins.tools.checks.reply_facts import (
    NO_DAY,
    TEXT_SEPARATOR,
    TIME,
    append_dates,
    find_clock_times,
    find_days,
    find_weekdays,
    matched_times,
    value_lines,
)
from plugins.tools.simulation.conversation_plan import PlannedTurn
from plugins.tools.simulation.service_state import SimulatedService
from plugins.tools.toolbox.tool_spec import ERROR_PREFIX, read_parameter_schemas

MARKUP = re.compile(r"[{}]|</?tool|<\|")
NEGATION_PATTERN = (
    r"(?:\b(?:not|cannot|never|unable|nothing|none|nobody|without|neither|nor|fail(?:s|ed)?|\w+n't"
    r"|no(?!\s+(?:problem|worr|doubt|need|matter)))\b)"
)
DENIAL = re.compile(NEGATION_PATTERN, re.IGNORECASE)
NOT_DONE = re.compile(
    rf"{NEGATION_PATTERN}[^\w.,;:!?]+(?:[\w']+[^\w.,;:!?]+){{0,4}}$"
    r"|\b(?:can|could|may|might|must|should|(?:need|ha[sv])\w* to)(?: \w+){0,2} be $",
    re.IGNORECASE,
)
"""Before a claim of success: a denial up to four words before, or a possibility, as in `can only be booked`."""
DONE_PATTERN = re.compile(
    r"\b(?:booked|ordered|cancelled|canceled|deleted|removed|placed|scheduled|added|renewed|extended|saved|confirmed|arranged"
    r"|all set|(?:is|are|been|'s|have) set\b|will remind|(?:is|are|'s) done|done[.!])",
    re.IGNORECASE,
)
STATE = re.compile(
    r"(?:\b(?:is|are|was|were|been|stays?|remains?)|'s)(?: (?:still|already|only|currently|now))? (\w+)[.!]?$",
    re.IGNORECASE,
)
"""A word that says how things are, not what somebody did."""
RECORDED = ("booked", "ordered", "placed", "scheduled", "saved", "arranged")
"""Words for what a record that a tool shows says by being there."""
IDENTIFIER = re.compile(r"[a-z]+(?:_[a-z0-9]+)+|[a-z]+(?:[A-Z][a-z0-9]+)+")
"""A tool's name that is no ordinary word, as `find_book` and `findBook` are and `search` is not. No message may contain it."""
KINDS_WITHOUT_CALL = ("ask", "outside")
"""Of turns with the user's own tools."""
KINDS_WITH_CALL = ("call", "both", "recover", "error")
KINDS_WITH_QUESTION = ("ask", "confirm")
KINDS_WITH_REFUSAL = ("error", "limit", "outside")
REFUSAL = re.compile(
    rf"{NEGATION_PATTERN}|\b(?:at most|only|maximum|limit|colleague|approv\w*|too (?:many|much|long))\b", re.IGNORECASE
)
COMPLETE_REQUEST = "the request must give every detail of the notes, and the calls exactly those details"
MIN_WORD_LETTERS = 4
SHARE_OF_WORDS = 0.5
"""Of the longer words of a free text, such as a search: this share must be in the conversation."""
MAX_NAME_WORDS = 4
"""Of a value that a reply states as it is; of a longer text it states a number or a word."""


class ConversationTurn(NamedTuple):
    """The user's request, the calls with their results, step by step, and the assistant's final reply."""

    request: str
    steps: tuple[tuple[tuple[ToolCall, Any], ...], ...]
    reply: str

    @property
    def calls(self) -> list[ToolCall]:
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
        steps: list[tuple[tuple[ToolCall, Any], ...]] = []
        reply = ""
        for i, message in enumerate(rest[start:end], start):
            if message.role == "assistant" and message.tool_calls:
                calls = [call for call in message.tool_calls]
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


def has_plan(subject: Subject) -> bool:
    """Whether the tools are those of a simulated service, with planned turns."""
    return "service" in subject.seed.data


def find_today(subject: Subject) -> date:
    return date.fromisoformat(subject.seed.data["today"]) if has_plan(subject) else NO_DAY


def dump_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


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


@check("tool_use", languages=("en",))
def tool_use_check(subject: Subject, _options: Options) -> list[Finding]:
    """Each turn must make the calls that its seed wants and no other; without a call, the assistant asks or declines.

    Calls of a simulated service must change its state as the plan does, and the reply states what was asked for. A call of the
    user's own tools must succeed in the end, is not repeated, and serves the reply.
    """
    turns, kinds, planned = split_turns(subject.candidate.messages), subject.seed.data["kinds"], has_plan(subject)
    if len(turns) != len(kinds):
        return [build_finding("tool_use", f"there must be {len(kinds)} turns, not {len(turns)}", "")]
    offered = read_parameter_schemas(subject.candidate.fields["tools"])
    names = [name for name in offered if IDENTIFIER.fullmatch(name)]
    faults = [_find_word_fault(turn, names) for turn in turns]
    if planned:
        plan = [PlannedTurn.model_validate(turn) for turn in subject.seed.data["plan"]]
        changes = _find_state_faults(subject, turns, plan, offered)
        faults = [
            fault or change or _find_planned_fault(turn, wish, find_today(subject), list_results(turns[: number + 1]))
            for number, (fault, change, turn, wish) in enumerate(zip(faults, changes, turns, plan, strict=True))
        ]
    else:
        faults = [
            fault or _find_own_fault(turn, kind, list_results(turns[:number]))
            for number, (fault, turn, kind) in enumerate(zip(faults, turns, kinds, strict=True))
        ]
    results = list_results(turns)
    if not planned and results and all(map(is_failure, results)):
        faults[-1] = faults[-1] or f"each call failed, the last with {str(results[-1])[:120]!r}; make one that succeeds"
    return build_turn_findings("tool_use", faults, "calls what is wanted")


def list_results(turns: Sequence[ConversationTurn]) -> list[Any]:
    return [result for turn in turns for result in turn.results]


def is_failure(result: Any) -> bool:
    """Whether a call's result is an error."""
    return (
        result.startswith(ERROR_PREFIX) if isinstance(result, str) else isinstance(result, dict) and "error" in result
    )


def _find_word_fault(turn: ConversationTurn, names: Sequence[str]) -> str | None:
    for text in (turn.request, turn.reply):
        if not any(c.isalnum() for c in text) or MARKUP.search(text):
            return f"the user and the assistant speak in plain words, not {text[:80]!r}"
    if named := next((name for name in names if name in f"{turn.request} {turn.reply}"), None):
        return f"a message names the tool {named}; say in plain words what is wanted and what came out"
    return None


def _find_own_fault(turn: ConversationTurn, kind: str, results: Sequence[Any]) -> str | None:
    """What is wrong with a turn of the user's own tools: a needless call, none, a claim, or no plain question or refusal."""
    if kind not in KINDS_WITHOUT_CALL:
        return _needless_fault(turn) if turn.calls else "a tool must be called; the reply cannot come from nothing"
    if turn.calls:
        return f"no tool may be called, but {turn.calls[0].name} is; leave calls empty"
    if claim := find_success_claim(turn.reply, results, turn.request):
        return f"nothing was done, but the reply says {claim!r}"
    if kind == "outside":
        return None if DENIAL.search(turn.reply) else "the reply must say plainly that this cannot be done here"
    return None if "?" in turn.reply else "the reply must ask for the detail that is missing"


def _find_state_faults(
    subject: Subject, turns: Sequence[ConversationTurn], plan: Sequence[PlannedTurn], offered: Mapping[str, Any]
) -> list[str | None]:
    """The first turn after which the service is not in the state of the plan."""
    made, wanted = (SimulatedService(**subject.seed.data["service"]) for _ in range(2))
    every = {name: tool.spec.parameters for name, tool in wanted.tools.items()}
    faults: list[str | None] = [None] * len(turns)
    for number, (turn, wish) in enumerate(zip(turns, plan, strict=True)):
        for call in turn.calls:
            made.execute(call, offered)
        before = wanted.snapshot()
        for call in wish.calls:
            wanted.execute(call, every)
        if made.snapshot() != wanted.snapshot():
            # The assistant reads a fault too when it revises, so no fault contains the plan.
            faults[number] = (
                f"the service is not changed as the user wants it; {COMPLETE_REQUEST}"
                if before != wanted.snapshot()
                else "nothing may be changed here"
            )
            break
        for call in wish.calls:
            if (asked := _read_filters(wanted, call)) and asked not in (_read_filters(made, one) for one in turn.calls):
                faults[number] = f"a list or count is not the one that the user wants; {COMPLETE_REQUEST}"
    return faults


def _read_filters(service: SimulatedService, call: ToolCall) -> tuple[str, Any] | None:
    """What a call that lists or counts selects; None for another call, and for a lookup by name."""
    tool = service.tools.get(call.name)
    if tool is None or tool.operation not in ("search", "count") or tool.entity.label.path[0] in call.arguments:
        return None
    selects = {key: value for key, value in call.arguments.items() if key not in ("sort_by", "total_of") and value}
    return tool.entity.name, selects


def _find_planned_fault(turn: ConversationTurn, wish: PlannedTurn, today: date, results: Sequence[Any]) -> str | None:
    if wish.kind in KINDS_WITH_CALL and not turn.calls:
        return "a tool must be called; the reply cannot come from nothing"
    if wish.kind in KINDS_WITH_QUESTION and "?" not in turn.reply:
        return "the reply must ask for the detail that is missing, or whether to go on"
    if wish.kind in KINDS_WITH_REFUSAL and not REFUSAL.search(turn.reply):
        return "the reply must say plainly that this cannot be done, and why"
    stated = re.sub(r"[^.!?]*\?", " ", turn.reply)
    if wish.kind not in KINDS_WITH_CALL and (claim := find_success_claim(stated, results, turn.request)):
        return f"nothing was done, but the reply says {claim!r}"
    for words, value in wish.facts:
        if not (is_stated(value, turn.reply) or _names_day(value, turn.reply, today)):
            return f"the request must ask for the {words}, and the reply must state it"
    return _needless_fault(turn)


def _needless_fault(turn: ConversationTurn) -> str | None:
    """The first call that was made before with the same result, or that nothing later uses."""
    steps = [pair for step in turn.steps for pair in step]
    for n, (call, result) in enumerate(steps):
        if any(call == earlier and result == before for earlier, before in steps[:n]):
            return f"{call.name} {dump_json(call.arguments)} is called twice with the same result"
        later = TEXT_SEPARATOR.join([turn.reply, *value_lines([other.arguments for other, _ in steps[n + 1 :]])])
        values = [] if is_failure(result) else [*iter_values(result)]
        if values and not any(is_stated(value, later) for value in (*values, *iter_values(call.arguments))):
            return (
                f"neither the reply nor a later call uses what {call.name} returned; leave out calls that nothing needs"
            )
    return None


def iter_values(value: Any) -> Iterator[Any]:
    """What a result has to state: numbers, names and texts, but no flags and no bare words such as `ok`."""
    if isinstance(value, str) and len(value.split()) > MAX_NAME_WORDS:
        yield from sorted(float(number) for number in read_written(value).numbers)
        yield from re.findall(r"[^\W\d_]{5,}|[A-Z]\w+", value)
        return
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from iter_values(inner)
    elif (
        isinstance(value, int | float | str) and not isinstance(value, bool) and not re.fullmatch(r"[a-z]*", str(value))
    ):
        yield value


def _names_day(value: Any, reply: str, today: date) -> bool:
    """Whether a reply names a day without its year."""
    if not (isinstance(value, str) and ISO_DAY.fullmatch(value)):
        return False
    wanted = date.fromisoformat(value)
    return any((day.day, day.month) == (wanted.day, wanted.month) for day in find_days(reply, today))


def is_stated(value: Any, text: str) -> bool:
    return find_leaf_fault(ValueLeaf("", value, ()), read_written(text)) is None


def find_success_claim(reply: str, results: Sequence[Any] = (), request: str = "") -> str | None:
    """The words in which a reply claims success, unless `NOT_DONE` precedes them or `results` report them: as the status of what
    the sentence or the `request` names (`B-12 is confirmed`), or of a record's value after them (`is booked for Monday at 9:00`).
    """
    for claim in DONE_PATTERN.finditer(reply):
        upto, after = reply[: claim.end()], re.split(r"[.!?;](?:\s|$)", reply[claim.end() :])[0]
        state, named = STATE.search(upto), f"{re.split(r'[.!?] ', upto)[-1]} {request}"
        given = state and any(_is_status(state[1], result, named) for result in results)
        if state and state[1].lower() in RECORDED:
            lines = value_lines([result for result in results if not is_failure(result)])
            values = [line for line in lines if not re.fullmatch(r"[a-z]*|\d{1,2}", line)]
            given = given or any(is_stated(value, after) and not is_stated(value, request) for value in values)
        if not given and not NOT_DONE.search(reply[: claim.start()]):
            return claim.group()
    return None


def _is_status(word: str, result: Any, named: str) -> bool:
    """Whether a result has a word next to a value that a text names, or is an error with the word."""
    inner = [*result.values()] if isinstance(result, dict) else result if isinstance(result, list) else [result]
    has_word = any(isinstance(value, str) and re.search(rf"\b{word}\b", value, re.IGNORECASE) for value in inner)
    if has_word and (is_failure(result) or any(is_stated(value, named) for value in iter_values(result))):
        return True
    return any(_is_status(word, value, named) for value in inner if isinstance(value, dict | list))


@check("tool_arguments", languages=("en",))
def tool_arguments_check(subject: Subject, _options: Options) -> list[Finding]:
    """Each argument must come from the conversation so far: from what the user said, or from an earlier result.

    Flags, choices of an enum and defaults may be inferred, and half of the words of a free text; but no weekday if the
    conversation names only others. The hour of a named time, and its minute for an argument named so, count as numbers.
    """
    planned, today = has_plan(subject), find_today(subject)
    schemas = read_parameter_schemas(subject.candidate.fields["tools"])
    said: list[str] = []
    faults = []
    for turn in split_turns(subject.candidate.messages):
        said.append(append_dates(turn.request, today) if planned else turn.request)
        fault = None
        for step in turn.steps:
            text = TEXT_SEPARATOR.join(said)
            fault = fault or next(filter(None, (find_grounding_fault(call, text, schemas) for call, _ in step)), None)
            said += value_lines([result for _, result in step])
        faults.append(fault)
    return build_turn_findings("tool_arguments", faults, "each argument was said")


def find_grounding_fault(call: ToolCall, text: str, schemas: Mapping[str, Any]) -> str | None:
    """The first argument of a call that does not occur in `text`. An unknown tool has no words for its values."""
    weekdays = find_weekdays(text)
    for leaf in iter_leaves(call.arguments, schemas.get(call.name, {})):
        another_day = bool(weekdays and find_weekdays(str(leaf.value)) - weekdays)
        if leaf.value is None or (_may_be_inferred(leaf) and not another_day):
            continue
        supported = not another_day and (_shares_words if isinstance(leaf.value, str) else _is_time_part)(leaf, text)
        if not supported and (fault := find_leaf_fault(leaf, read_written(text))):
            return f"`{leaf.path}` of {call.name} {fault.replace('the text', 'the conversation')}"
    return None


def _may_be_inferred(leaf: ValueLeaf) -> bool:
    schemas = [part.schema for part in leaf.parts]
    by_default = any("default" in schema and schema["default"] == leaf.value for schema in schemas)
    return isinstance(leaf.value, bool) or by_default or any({"enum", "const"} & schema.keys() for schema in schemas)


def _is_time_part(leaf: ValueLeaf, text: str) -> bool:
    """Whether a number is the hour of a time that `text` names, or its minute if the argument's name says so."""
    times = find_clock_times(text)
    minutes = {moment.minute for moment in times} if re.search("minute(?!s)", leaf.path) else set()
    return leaf.value in minutes | {moment.hour for moment in times}


def _shares_words(leaf: ValueLeaf, text: str) -> bool:
    """Whether a free text, of several words and no number, is made of words of `text`, apart from times that `text` names."""
    times = find_clock_times(text)
    value = TIME.sub(lambda match: " " if times.intersection(matched_times(match)) else match.group(), leaf.value)
    if not value.strip():
        return True
    words = [word for word in re.findall(r"[^\W\d_]+", fold_text(value)) if len(word) >= MIN_WORD_LETTERS]
    known = set(re.findall(r"[^\W\d_]+", fold_text(text)))
    common = sum(any(word.startswith(other[:-1]) or other.startswith(word) for other in known) for word in words)
    return (
        len(leaf.value.split()) > 1
        and not re.search(r"\d", value)
        and bool(words)
        and common >= SHARE_OF_WORDS * len(words)
    )
