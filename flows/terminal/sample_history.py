"""A sample on the terminal: one line, or its whole history. Text from teachers is untrusted: it loses its control characters."""

import json
import re
import textwrap
from itertools import takewhile
from typing import Any, NamedTuple

from core.sample import REPAIR_STRIDE, AgentTurn, Critique, Sample, Verdict
from flows.terminal.text_format import (
    TERMINAL_WIDTH,
    format_count,
    format_one_line,
    format_token_usage,
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
    """A sample's whole history: seed; turns, critiques and verdicts by revision; outcome."""
    lines = [f"sample {sample.id}  {sample.state}", "", "seed"]
    wide = max((len(key) for key in sample.seed.data), default=0)
    for key, value in sample.seed.data.items():
        lines += _format_field(key, format_seed_value(value), wide)
    calls: dict[str, AgentTurn] = {}
    for revision in collect_revisions(sample):
        lines += ["", f"revision {revision.number}"]
        for turn in revision.drafts:
            lines += _format_turn(turn, calls.setdefault(turn.agent, turn))
        for critique in revision.critiques:
            scores = "   ".join(f"{rubric} {score}/5" for rubric, score in critique.scores.items())
            lines += ["  critique", *_format_field("scores", scores)]
            for fault in critique.faults:
                lines += _format_field("fault", fault)
            lines += _format_field("advice", critique.advice) if critique.advice else []
            lines.append("")
        for turn in revision.checks:
            lines += _format_turn(turn, calls.setdefault(turn.agent, turn))
        lines += ["  verdicts"] if revision.verdicts else []
        longest = max((len(verdict.check) for verdict in revision.verdicts), default=0)
        for verdict in revision.verdicts:
            head = f"    {'pass' if verdict.passed else 'FAIL'}  {verdict.check:<{longest}}  "
            width = max(TERMINAL_WIDTH - len(head), 40)
            text = textwrap.wrap(replace_unsafe_characters(verdict.evidence), width) or [""]
            lines += [head + text[0], *(" " * len(head) + more for more in text[1:])]
        lines += [""] if revision.attempts else []
        for turn in revision.attempts:
            lines += _format_turn(turn, calls.setdefault(turn.agent, turn))
    lines += ["", f"difficulty  {format_attempts(sample)}"] if sample.attempts else []
    if sample.answer:
        lines += ["", "answer", *_quote_text(sample.answer, 2)]
    lines += [
        "",
        *textwrap.wrap(f"outcome   {format_sample_outcome(sample)}", TERMINAL_WIDTH, subsequent_indent=" " * 10),
    ]
    lines.append("usage     " + "   ".join(format_token_usage(sample.usage)))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines))


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


def _format_turn(turn: AgentTurn, first: AgentTurn) -> list[str]:
    """A call: its request, role by role from the system prompt on, and the reply. Messages shared with the agent's `first` call
    of the sample are shown only there.
    """
    head = "   ".join(
        filter(None, (turn.agent, describe_call(turn), turn.teacher, *format_token_usage(turn.usage)[1:]))
    )
    pairs = zip(turn.context, first.context, strict=False)
    same = 0 if turn is first else sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    before = [f"    {format_count(same, 'message')} as in the first call of the {turn.agent}"] if same else []
    for message in turn.context[same:]:
        before += [f"    {message.role}", *_quote_text(message.text, 4)]
        before += [f"    | image {format_one_line(url, 80)}" for url in message.images]
    asked = ["    user", *_quote_text(turn.asked, 4)]
    thinking = ["    thinking", *_quote_text(shorten_thinking(turn.reasoning), 4)] if turn.reasoning else []
    return [f"  {head}", *before, *asked, *thinking, "    reply", *_quote_text(turn.reply, 4), ""]


def shorten_thinking(text: str) -> str:
    """The beginning and the end of thinking, which is often longer than all the rest; files have the whole text."""
    left_out = len(text) - 2 * SHOWN_THINKING
    if left_out <= 0:
        return text
    return f"{text[:SHOWN_THINKING].rstrip()}\n… ({left_out:,} characters)\n{text[-SHOWN_THINKING:].lstrip()}"


def _format_field(label: str, value: str, wide: int = 6) -> list[str]:
    head = f"    {replace_unsafe_characters(label):<{wide}}  "
    text = textwrap.wrap(replace_unsafe_characters(value), TERMINAL_WIDTH - len(head)) or [""]
    return [head + text[0], *(" " * len(head) + more for more in text[1:])]


def _quote_text(text: str, indent: int) -> list[str]:
    edge = " " * indent + "| "
    wrapped = [
        part
        for line in replace_unsafe_characters(text).splitlines() or [""]
        for part in textwrap.wrap(line, TERMINAL_WIDTH - len(edge), replace_whitespace=False) or [""]
    ]
    return [edge + part for part in wrapped]
