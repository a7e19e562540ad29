"""Checks of conversations with tools, those of the simulated world and the user's own: needed calls, and arguments from the
conversation. Calls of the simulated tools must be exactly those of the seed's plan.

Knows no teacher. plugins/tools/README.md lists what these checks cannot see.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from agents.checks import Finding, Options, Subject, build_finding, check
from agents.checks.base import first_fault
from agents.checks.json_schema import InvalidSchema, JsonSchema, find_schema_fault, get_required
from agents.checks.text.quantities import read_written
from agents.checks.text.text_units import fold_text
from agents.checks.text.value_in_text import ValueLeaf, find_leaf_fault, iter_leaves
from core.sample import Message, ToolCall
from plugins.tools.checks.reply_facts import (
    NO_DAY,
    TEXT_SEPARATOR,
    append_dates,
    collect_known_facts,
    find_names,
    value_lines,
)
from plugins.tools.simulation.conversation_plan import (
    KINDS_WITHOUT_CALL,
    PlannedCall,
    PlannedTurn,
    dump_json,
    is_same_call,
    parse_planned_turn,
)
from plugins.tools.simulation.simulated_tools import SIMULATED_TOOLS
from plugins.tools.simulation.simulated_world import TOWNS
from plugins.tools.toolbox.tool_spec import ERROR_PREFIX

MARKUP = re.compile(r"[{}]|</?tool|<\|")
NEGATION_PATTERN = (
    r"(?:\b(?:not|cannot|never|unable|nothing|none|nobody|without|neither|nor|fail(?:s|ed)?|\w+n't"
    r"|no(?!\s+(?:problem|worr|doubt|need|matter)))\b)"
)
DENIAL = re.compile(NEGATION_PATTERN, re.IGNORECASE)
DONE_PATTERN = re.compile(
    r"\b(?:booked|ordered|placed|scheduled|added|renewed|extended|saved|confirmed|arranged|all set|(?:is|are|been|'s|have) set"
    r"|will remind|(?:is|are|'s) done|done[.!])",
    re.IGNORECASE,
)
IDENTIFIER = re.compile(r"[a-z]+(?:_[a-z0-9]+)+|[a-z]+(?:[A-Z][a-z0-9]+)+")
"""A tool's name that is no ordinary word, as `find_book` and `findBook` are and `search` is not. No message may contain it."""
MIN_WORD_LETTERS = 4
SHARE_OF_WORDS = 0.5
"""Of the longer words of a free text, such as a search: that many must be in the conversation."""
MAX_NAME_WORDS = 4
"""Of a value that a reply states as it is; of a longer text it states a number or a word."""


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


def has_plan(subject: Subject) -> bool:
    """Whether the tools are the simulated ones, with planned calls."""
    return "wishes" in subject.seed.data


def _list_plan(subject: Subject) -> list[PlannedTurn]:
    """The plan of each turn; with the user's own tools only its kind."""
    data = subject.seed.data
    if has_plan(subject):
        return [parse_planned_turn(wish) for wish in data["wishes"]]
    return [PlannedTurn(kind) for kind in data["kinds"]]


def find_today(subject: Subject) -> date:
    return date.fromisoformat(subject.seed.data["world"]["today"]) if has_plan(subject) else NO_DAY


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
    """Each turn must make the calls that its seed wants and no other; without a call, the assistant asks or declines.

    A call of the user's own tools must succeed in the end, is not repeated, and serves the reply.
    """
    turns, plan, planned = split_turns(subject.candidate.messages), _list_plan(subject), has_plan(subject)
    if len(turns) != len(plan):
        return [build_finding("tool_use", f"there must be {len(plan)} turns, not {len(turns)}", "")]
    offered = SIMULATED_TOOLS if planned else _tool_parameter_schemas(subject.candidate.fields["tools"])
    names, today = [name for name in offered if IDENTIFIER.fullmatch(name)], find_today(subject)
    faults = [_use_fault(turn, wish, names, today) for turn, wish in zip(turns, plan, strict=True)]
    results = [result for turn in turns for result in turn.results]
    if not planned and results and all(map(is_failure, results)):
        faults[-1] = faults[-1] or f"each call failed, the last with {str(results[-1])[:120]!r}; make one that succeeds"
    return build_turn_findings("tool_use", faults, "calls what is wanted")


def is_failure(result: Any) -> bool:
    """Whether a call's result is an error."""
    return (
        result.startswith(ERROR_PREFIX) if isinstance(result, str) else isinstance(result, dict) and "error" in result
    )


def _use_fault(turn: ConversationTurn, wish: PlannedTurn, names: Sequence[str], today: date) -> str | None:
    for text in (turn.request, turn.reply):
        if not any(c.isalnum() for c in text) or MARKUP.search(text):
            return f"the user and the assistant speak in plain words, not {text[:80]!r}"
    if named := next((name for name in names if name in f"{turn.request} {turn.reply}"), None):
        return f"a message names the tool {named}; say in plain words what is wanted and what came out"
    if wish.calls:
        wanted = ", then ".join(f"{call.name} {dump_json(call.arguments)}" for call in wish.calls)
        same = len(turn.calls) == len(wish.calls) and all(
            is_same_call(call, made.name, made.arguments) for call, made in zip(wish.calls, turn.calls, strict=True)
        )
        return None if same else f"the calls must be exactly {wanted}"
    if wish.kind not in KINDS_WITHOUT_CALL:
        return _needless_fault(turn) if turn.calls else "a tool must be called; the reply cannot come from nothing"
    return _uncalled_fault(turn, wish, today)


def _uncalled_fault(turn: ConversationTurn, wish: PlannedTurn, today: date) -> str | None:
    """What is wrong with a turn without a call: a call, a claim, or no plain question or refusal."""
    if turn.calls:
        return f"no tool may be called, but {turn.calls[0].name} is; leave calls empty"
    if claim := find_success_claim(turn.reply):
        return f"nothing was done, but the reply says {claim!r}"
    if wish.kind == "outside":
        return None if DENIAL.search(turn.reply) else "the reply must say plainly that this cannot be done here"
    if not wish.tool:
        return None if "?" in turn.reply else "the reply must ask for the detail that is missing"
    asked = SIMULATED_TOOLS[wish.tool].asked[wish.missing]
    if "?" not in turn.reply or not any(read_written(turn.reply).contains_phrase(word) for word in asked):
        return f"the reply must ask for `{wish.missing}` ({', '.join(asked)})"
    return _disclosed_argument_fault(turn.request, wish, today)


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
    """What a result has to tell: numbers, names and texts, but no flags and no bare words such as `ok`."""
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


def is_stated(value: Any, text: str) -> bool:
    return find_leaf_fault(ValueLeaf("", value, ()), read_written(text)) is None


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
    """Each argument must come from the conversation so far: from what the user said, or from an earlier result.

    Of the user's own tools, flags, choices of an enum and defaults may be inferred, and half of the words of a free text.
    """
    planned, today = has_plan(subject), find_today(subject)
    schemas = None if planned else _tool_parameter_schemas(subject.candidate.fields["tools"])
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


def find_grounding_fault(call: PlannedCall, text: str, own: Mapping[str, Any] | None = None) -> str | None:
    """The first argument of a call that does not occur in `text`. `own`: the schemas of the user's own tools, by name.

    An unknown tool has no words for its values.
    """
    tool = SIMULATED_TOOLS.get(call.name)
    schema = own.get(call.name, {}) if own is not None else tool.parameters if tool else {}
    for leaf in iter_leaves(call.arguments, schema):
        if leaf.value is None or (own is not None and _may_be_inferred(leaf)):
            continue
        fault = find_leaf_fault(leaf, read_written(text))
        if fault and isinstance(leaf.value, str):
            known = _shares_words(leaf.value, text) if own is not None else _is_plural_product(leaf, text)
            fault = None if known else fault
        if (
            own is None
            and isinstance(leaf.value, bool)
            and not any(part.schema.get("type") == "boolean" for part in leaf.parts)
        ):
            fault = f"is {leaf.value}, which is no text and no number"
        if fault:
            return f"`{leaf.path}` of {call.name} {fault.replace('the text', 'the conversation')}"
    return None


def _may_be_inferred(leaf: ValueLeaf) -> bool:
    schemas = [part.schema for part in leaf.parts]
    by_default = any("default" in schema and schema["default"] == leaf.value for schema in schemas)
    return isinstance(leaf.value, bool) or by_default or any({"enum", "const"} & schema.keys() for schema in schemas)


def _is_plural_product(leaf: ValueLeaf, text: str) -> bool:
    """Whether `text` has a product as `5 linen mugs`."""
    name = leaf.value
    plurals = (f"{name}s", f"{name}es", re.sub("y$", "ies", name), re.sub("fe?$", "ves", name))
    return leaf.path == "product" and any(map(read_written(text).contains_phrase, plurals))


def _shares_words(value: str, text: str) -> bool:
    """Whether a free text, of several words and no number, is made of words of `text`."""
    words = [word for word in re.findall(r"[^\W\d_]+", fold_text(value)) if len(word) >= MIN_WORD_LETTERS]
    known = set(re.findall(r"[^\W\d_]+", fold_text(text)))
    common = sum(any(word.startswith(other[:-1]) or other.startswith(word) for other in known) for word in words)
    return (
        len(value.split()) > 1 and not re.search(r"\d", value) and bool(words) and common >= SHARE_OF_WORDS * len(words)
    )


class ToolSchemaOptions(Options):
    field: str = "tools"
    """Of the candidate, with the offered tools."""
    strict: bool = True
    """Refuse arguments that the schema neither names nor allows."""


@check("tool_schema", ToolSchemaOptions)
def tool_schema_check(subject: Subject, options: ToolSchemaOptions) -> str | None:
    """Every call must name an offered tool, its arguments must fit that tool's schema, and the tool must answer it."""
    offered = _tool_parameter_schemas(get_required(subject.candidate.fields, options.field, "the candidate"))
    messages = subject.candidate.messages
    calls = [call for message in messages for call in message.tool_calls]
    faults = [find_call_fault(call, offered, strict=options.strict) for call in calls]
    # Tools answer in the order of the calls, before the next text.
    unanswered: list[str] = []
    for message in messages:
        if message.role == "tool":
            if unanswered[:1] != [message.name]:
                called = unanswered[0] if unanswered else "no tool"
                faults.append(f"{message.name or 'a tool'} answers, but {called} was called")
            unanswered = unanswered[1:]
            continue
        if unanswered:
            faults.append(f"the call of {unanswered[0]} is not answered")
        if message.tool_calls and message.role != "assistant":
            faults.append(f"a call stands in a turn of the {message.role}")
        unanswered = [call.name for call in message.tool_calls]
    if unanswered:
        faults.append(f"the call of {unanswered[0]} is not answered")
    if messages and messages[-1].role == "tool":
        faults.append("the assistant says nothing to the last answer of a tool")
    return first_fault(faults)


def _tool_parameter_schemas(tools: Any) -> dict[str, JsonSchema]:
    """The schemas of the parameters of `tools`, by name.

    Raises:
        ValueError: if `tools` are not functions with different names.
    """
    schemas: dict[str, JsonSchema] = {}
    for tool in tools if isinstance(tools, list) else [tools]:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or function["name"] in schemas:
            raise ValueError(f"each tool must be a function with a name of its own, not {str(tool)[:80]!r}")
        schemas[function["name"]] = function.get("parameters") or {"type": "object", "properties": {}}
    return schemas


def find_call_fault(call: ToolCall, offered: Mapping[str, JsonSchema], *, strict: bool) -> str | None:
    """Why a call cannot be made, in a sentence.

    Raises:
        ValueError: where the tool's own schema cannot be used.
    """
    if call.name not in offered:
        return f"there is no tool {call.name[:80]!r}; there are {', '.join(offered) or 'none'}"
    try:
        fault = find_schema_fault(call.arguments, offered[call.name], strict=strict)
    except InvalidSchema as error:
        raise ValueError(f"tool {call.name}: {error}") from None
    return f"the arguments of {call.name} do not fit its schema: {fault}" if fault else None
