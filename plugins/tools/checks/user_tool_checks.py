"""Checks of conversations with the user's own tools: needed calls, arguments from the conversation, and replies that the results
support. Knows no particular tool and no teacher; plugins/tools/README.md lists what these checks cannot see.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from fractions import Fraction
from typing import Any

from agents.checks import Finding, Options, Subject, build_finding, check
from agents.checks.text.quantities import read_written
from agents.checks.text.text_units import fold_text
from agents.checks.text.value_in_text import ValueLeaf, find_leaf_fault, iter_leaves
from plugins.tools.checks.conversation_checks import (
    DENIAL,
    MARKUP,
    ConversationTurn,
    build_turn_findings,
    find_success_claim,
    list_error_faults,
    split_turns,
)
from plugins.tools.checks.reply_facts import (
    TEXT_SEPARATOR,
    UNITS,
    KnownFacts,
    collect_known_facts,
    find_days,
    read_reply_facts,
    value_lines,
)
from plugins.tools.checks.tool_schema import tool_parameter_schemas
from plugins.tools.simulation.conversation_plan import PlannedCall, dump_json
from plugins.tools.toolbox.tool_spec import ERROR_PREFIX

NO_DAY = date(2001, 1, 1)
"""Used as today's date, which these conversations do not have: `tomorrow` in a reply is known only if the user said it too."""
MIN_WORD_LETTERS = 4
SHARE_OF_WORDS = 0.5
"""Of the longer words of a free text, such as a search: that many must be in the conversation."""
MAX_NAME_WORDS = 4
"""Of a value that a reply states as it is; of a longer text it states a number or a word."""
IDENTIFIER = re.compile(r"[a-z]+(?:_[a-z0-9]+)+|[a-z]+(?:[A-Z][a-z0-9]+)+")
"""A tool's name that is no ordinary word, as `find_book` and `findBook` are and `search` is not. No message may contain it."""


@check("tool_use")
def user_tool_use_check(subject: Subject, _options: Options) -> list[Finding]:
    """A turn calls tools exactly where its seed wants it; a call succeeds, is not repeated, and serves the reply."""
    turns, kinds = split_turns(subject.candidate.messages), subject.seed.data["kinds"]
    if len(turns) != len(kinds):
        return [build_finding("tool_use", f"there must be {len(kinds)} turns, not {len(turns)}", "")]
    names = [name for name in tool_parameter_schemas(subject.candidate.fields["tools"]) if IDENTIFIER.fullmatch(name)]
    faults = [_use_fault(turn, kind, names) for turn, kind in zip(turns, kinds, strict=True)]
    results = [result for turn in turns for result in turn.results]
    if results and all(map(is_failure, results)):
        faults[-1] = faults[-1] or f"each call failed, the last with {str(results[-1])[:120]!r}; make one that succeeds"
    return build_turn_findings("tool_use", faults, "calls what is wanted")


def is_failure(result: Any) -> bool:
    """Whether a call's result is an error."""
    return (
        result.startswith(ERROR_PREFIX) if isinstance(result, str) else isinstance(result, dict) and "error" in result
    )


def _use_fault(turn: ConversationTurn, kind: str, names: Sequence[str]) -> str | None:
    for text in (turn.request, turn.reply):
        if not any(c.isalnum() for c in text) or MARKUP.search(text):
            return f"the user and the assistant speak in plain words, not {text[:80]!r}"
        if named := next((name for name in names if name in text), None):
            return f"a message names the tool {named}; say in plain words what is wanted and what came out"
    if kind == "call":
        return _needless_fault(turn) if turn.calls else "a tool must be called; the reply cannot come from nothing"
    if turn.calls:
        return f"no tool may be called, but {turn.calls[0].name} is"
    if claim := find_success_claim(turn.reply):
        return f"nothing was done, but the reply says {claim!r}"
    if kind == "ask":
        return None if "?" in turn.reply else "the reply must ask for the detail that is missing"
    return None if DENIAL.search(turn.reply) else "the reply must say plainly that this cannot be done here"


def _needless_fault(turn: ConversationTurn) -> str | None:
    """The first call that was made before with the same result, or that nothing later uses."""
    steps = [pair for step in turn.steps for pair in step]
    for n, (call, result) in enumerate(steps):
        if any(call == earlier and result == before for earlier, before in steps[:n]):
            return f"{call.name} {dump_json(call.arguments)} is called twice with the same result"
        later = TEXT_SEPARATOR.join([turn.reply, *value_lines([other.arguments for other, _ in steps[n + 1 :]])])
        values = [] if is_failure(result) else [*_iter_values(result)]
        if values and not any(_is_stated(value, later) for value in (*values, *_iter_values(call.arguments))):
            return (
                f"neither the reply nor a later call uses what {call.name} returned; leave out calls that nothing needs"
            )
    return None


@check("tool_arguments")
def user_tool_arguments_check(subject: Subject, _options: Options) -> list[Finding]:
    """Each argument must come from the conversation so far: numbers and names as they are, half of the words of a free text."""
    turns, schemas = split_turns(subject.candidate.messages), tool_parameter_schemas(subject.candidate.fields["tools"])
    said: list[str] = []
    faults = []
    for turn in turns:
        said.append(turn.request)
        fault = None
        for step in turn.steps:
            text = TEXT_SEPARATOR.join(said)
            fault = fault or next(filter(None, (_argument_fault(call, schemas, text) for call, _ in step)), None)
            said += value_lines([result for _, result in step])
        faults.append(fault)
    return build_turn_findings("tool_arguments", faults, "each argument was said")


def _argument_fault(call: PlannedCall, schemas: Mapping[str, Any], text: str) -> str | None:
    for leaf in iter_leaves(call.arguments, schemas.get(call.name, {})):
        chosen = any({"enum", "const"} & part.schema.keys() for part in leaf.parts)
        by_default = any("default" in part.schema and part.schema["default"] == leaf.value for part in leaf.parts)
        if leaf.value is None or isinstance(leaf.value, bool) or chosen or by_default:
            continue
        fault = find_leaf_fault(leaf, read_written(text))
        if fault and not (isinstance(leaf.value, str) and _shares_words(leaf.value, text)):
            return f"`{leaf.path}` of {call.name} {fault.replace('the text', 'the conversation')}"
    return None


def _shares_words(value: str, text: str) -> bool:
    """Whether a free text, of several words and no number, is made of words of `text`."""
    words = [word for word in re.findall(r"[^\W\d_]+", fold_text(value)) if len(word) >= MIN_WORD_LETTERS]
    known = set(re.findall(r"[^\W\d_]+", fold_text(text)))
    common = sum(any(word.startswith(other[:-1]) or other.startswith(word) for other in known) for word in words)
    return (
        len(value.split()) > 1 and not re.search(r"\d", value) and bool(words) and common >= SHARE_OF_WORDS * len(words)
    )


@check("tool_result")
def user_tool_result_check(subject: Subject, _options: Options) -> list[Finding]:
    """Each reply must say what the tools returned: every number, day, time and name in it comes from the user or a result."""
    turns = split_turns(subject.candidate.messages)
    tools = [f"{name} {tool['function'].get('description', '')}" for name, tool in _tools_by_name(subject).items()]
    faults = [find_reply_fault(turns[:n], turn, tools) for n, turn in enumerate(turns)]
    return build_turn_findings("tool_result", faults, "the results support the reply")


def _tools_by_name(subject: Subject) -> dict[str, Any]:
    return {tool["function"]["name"]: tool for tool in subject.candidate.fields["tools"]}


def find_reply_fault(
    before: Sequence[ConversationTurn], turn: ConversationTurn, descriptions: Sequence[str]
) -> str | None:
    """What a reply says that neither the user nor a tool gave, or fails to say."""
    every = (*before, turn)
    requests = [one.request for one in every]
    results = [result for one in every for result in one.results]
    values = [*results, *(call.arguments for one in every for call in one.calls)]
    known = _known_facts(requests, values)
    # Descriptions know names, such as that of a library, but no facts.
    known = replace(known, text=TEXT_SEPARATOR.join([known.text, *descriptions]))
    called = {call.name for call in turn.calls}
    # A tool that describes its result as today's makes today a given day: `at today's rate`.
    current = [one for one in descriptions if one.partition(" ")[0] in called and NO_DAY in find_days(one, NO_DAY)]
    known = replace(known, days=known.days | {NO_DAY}) if current else known
    faults = list(read_reply_facts(turn.reply, known, NO_DAY).faults)
    failed = [str(result) for result in turn.results if is_failure(result)]
    if turn.results and len(failed) == len(turn.results):
        faults += list_error_faults(turn.reply, "; ".join(failed))
    else:
        faults += _unstated_faults(turn)
    if not faults:
        return None
    came_out = f"; the result is {'; '.join(map(dump_json, turn.results))[:600]}" if turn.calls else ""
    return f"the reply {faults[0]}{came_out}"


def _known_facts(requests: Sequence[str], values: Sequence[Any]) -> KnownFacts:
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
        if new and not any(_is_stated(value, turn.reply) for value in new):
            yield f"says nothing of what {call.name} returned"


def list_new_values(turn: ConversationTurn) -> list[Any]:
    """The values of the last step's results that neither the request nor an argument has."""
    return [value for _, result in (turn.steps[-1] if turn.steps else ()) for value in _list_new(turn, result)]


def _list_new(turn: ConversationTurn, result: Any) -> list[Any]:
    given = TEXT_SEPARATOR.join([turn.request, *value_lines([call.arguments for call in turn.calls])])
    return [] if is_failure(result) else [value for value in _iter_values(result) if not _is_stated(value, given)]


def _iter_values(value: Any) -> Iterator[Any]:
    """What a result has to tell: numbers, names and texts, but no flags and no bare words such as `ok`."""
    if isinstance(value, str) and len(value.split()) > MAX_NAME_WORDS:
        yield from sorted(float(number) for number in read_written(value).numbers)
        yield from re.findall(r"[^\W\d_]{5,}|[A-Z]\w+", value)
        return
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _iter_values(inner)
    elif (
        isinstance(value, int | float | str) and not isinstance(value, bool) and not re.fullmatch(r"[a-z]*", str(value))
    ):
        yield value


def _is_stated(value: Any, text: str) -> bool:
    return find_leaf_fault(ValueLeaf("", value, ()), read_written(text)) is None
