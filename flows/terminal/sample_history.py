"""A sample on the terminal: one line, or its whole history. Text from teachers is untrusted: it loses its control characters."""

import json
import re
import textwrap
from itertools import takewhile
from typing import Any, NamedTuple

from core.sample import REPAIR_STRIDE, AgentTurn, Critique, Sample, Verdict
from flows.terminal.text_format import (
    TERMINAL_WIDTH,
    create_environment,
    format_count,
    format_one_line,
    replace_unsafe_characters,
)

SHOWN_THINKING = 400
"""Characters shown of the beginning and of the end of thinking."""


class RevisionHistory(NamedTuple):
    """The events of one revision, in this order."""

    number: int
    drafts: list[AgentTurn]
    critiques: list[Critique]
    checks: list[AgentTurn]
    verdicts: list[Verdict]
    attempts: list[AgentTurn]
    """Of the solver, which measures the difficulty."""


def format_request(sample: Sample) -> str:
    """The user's first message."""
    return next((message.content for message in sample.candidate.messages if message.role == "user"), "")


def format_answer(sample: Sample) -> str:
    """The assistant's turns for one line, with a sign between them."""
    return " ↵ ".join(message.text for message in sample.candidate.messages if message.role == "assistant")


def format_sample_line(sample: Sample) -> str:
    """One sample in one line: id, state, reason, and the beginning of its answer."""
    why = f"{sample.reason}:{sample.detail}" if sample.reason else ""
    return f"{sample.id}  {sample.state:<8}{format_one_line(why, 30):<32}{format_one_line(format_answer(sample), 60)}"


def format_sample_history(sample: Sample) -> str:
    """A sample's whole history: seed; turns, critiques and verdicts by revision; outcome. A call has its request, role by role
    from the system prompt on, and the reply; messages shared with the agent's first call are shown only there.
    """
    functions = (
        collect_revisions,
        describe_call,
        format_attempts,
        format_sample_outcome,
        format_seed_value,
        shorten_thinking,
    )
    template = create_environment(filters=functions).get_template("sample.txt")
    text = template.render(s=sample, count_shared=_count_shared, field=_format_field, quote=_quote_text, wrap=_wrap)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.splitlines()))


def format_attempts(sample: Sample) -> str:
    """The attempts at a sample's question, in one line."""
    results = " ".join("pass" if passed else "FAIL" for passed in sample.attempts)
    return f"{sum(sample.attempts)} of {format_count(len(sample.attempts), 'attempt')} passed: {results}"


def format_sample_outcome(sample: Sample) -> str:
    """The sample's outcome, in one line."""
    why = ": ".join(part for part in (sample.reason or "", replace_unsafe_characters(sample.detail)) if part)
    after = "as first written" if not sample.revisions else f"after {format_count(sample.revisions, 'revision')}"
    return f"{sample.state} {after}" + (f", for {why}" if why else "")


def collect_revisions(sample: Sample) -> list[RevisionHistory]:
    """The sample's history by revision: drafts, critiques, checks, verdicts."""
    numbered: list[AgentTurn | Critique | Verdict] = [*sample.turns, *sample.critiques, *sample.verdicts]
    return [
        RevisionHistory(
            number=number,
            drafts=[t for t in sample.turns if t.revision == number and t.agent not in ("verifier", "solver")],
            critiques=[c for c in sample.critiques if c.revision == number],
            checks=[t for t in sample.turns if t.revision == number and t.agent == "verifier"],
            verdicts=[v for v in sample.verdicts if v.revision == number],
            attempts=[t for t in sample.turns if t.revision == number and t.agent == "solver"],
        )
        for number in sorted({part.revision for part in numbered})
    ]


def format_seed_value(value: Any) -> str:
    """A seed's value as text, at any depth: list items with commas, tables with semicolons."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {format_seed_value(part)}" for key, part in value.items())
    if isinstance(value, list):
        joint = "; " if any(isinstance(part, dict | list) for part in value) else ", "
        return joint.join(map(format_seed_value, value))
    return value if isinstance(value, str) else json.dumps(value)


def describe_call(turn: AgentTurn) -> str:
    """Which call of its agent a turn is: the first of a check's several questions is not numbered."""
    which, attempt = divmod(turn.attempt, REPAIR_STRIDE)
    return "   ".join([*([f"question {which + 1}"] if which else []), *([f"repair {attempt}"] if attempt else [])])


def _count_shared(turn: AgentTurn, first: AgentTurn) -> int:
    """The messages that a call shares with the first one of its agent."""
    pairs = zip(turn.context, first.context, strict=False)
    return 0 if turn is first else sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def shorten_thinking(text: str) -> str:
    """The beginning and the end of thinking, which is often longer than all the rest; files have the whole text."""
    left_out = len(text) - 2 * SHOWN_THINKING
    if left_out <= 0:
        return text
    return f"{text[:SHOWN_THINKING].rstrip()}\n… ({left_out:,} characters)\n{text[-SHOWN_THINKING:].lstrip()}"


def _wrap(text: str, indent: str) -> str:
    return "\n".join(textwrap.wrap(replace_unsafe_characters(text), TERMINAL_WIDTH, subsequent_indent=indent))


def _format_field(label: str, value: str) -> str:
    head = f"    {replace_unsafe_characters(label)}  "
    text = textwrap.wrap(replace_unsafe_characters(value), max(TERMINAL_WIDTH - len(head), 40)) or [""]
    return "\n".join([head + text[0], *(" " * len(head) + more for more in text[1:])])


def _quote_text(text: str, indent: int) -> str:
    edge = " " * indent + "| "
    lines = replace_unsafe_characters(text).splitlines() or [""]
    wrapped = [textwrap.wrap(line, TERMINAL_WIDTH - len(edge), replace_whitespace=False) or [""] for line in lines]
    return "\n".join(edge + part for parts in wrapped for part in parts)
