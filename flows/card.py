"""What a person reads on a terminal: the run card, and a sample with its whole history.

Text from teachers is untrusted: it loses its control characters.
"""

import json
import re
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.run import ADVICE, RUNS, CollapseRecord, JudgeRecord, Manifest, MetricRecord, MixRecord, RunDir, RunState
from core.sample import REPAIR_STRIDE, Critique, Sample, Turn, Usage, Verdict
from flows.words import duration, number, one_line, percent, place_of, plain, plural

if TYPE_CHECKING:
    from flows.curation import Assessment

WIDTH = 100
"""Columns of everything for a terminal, paths excepted: a path that is broken cannot be copied."""
LABEL = 12
"""Columns before the values of a row of the card."""
CARD_REASONS = 12
"""Reasons on the card; the rest is summed, and whole on the page."""


class Revision(NamedTuple):
    """What happened to one revision, in this order."""

    number: int
    drafts: list[Turn]
    critiques: list[Critique]
    checks: list[Turn]
    verdicts: list[Verdict]


def run_card(manifest: Manifest, run: RunDir, resume: str | None = None) -> str:
    """What a run prints when it ends.

    `resume` is the command that goes on with it. Without one the card names the recipe only, which is right for a
    built-in recipe run without `--set`.
    """
    lines = [f"run {manifest.run}  {manifest.state}  {run.path}"]
    if manifest.error:
        lines += labelled("error", textwrap.wrap(plain(manifest.error), WIDTH - LABEL))
    for shortfall in manifest.shortfalls:
        lines += labelled("missing", textwrap.wrap(plain(shortfall), WIDTH - LABEL))
    steps = filled([f"{name} {left:,}" for name, left in manifest.funnel], " -> ", WIDTH - 2)
    lines += [f"  {line}" for line in steps]
    lines += labelled("not kept", filled(_reason_items(manifest), "   ", WIDTH - LABEL))
    for judge in manifest.judges:
        lines += labelled("judge", textwrap.wrap(judge_words(judge), WIDTH - LABEL))
    if manifest.collapse:
        lines += labelled("collapse", _collapse_lines(manifest.collapse))
    if manifest.gates:
        lines += labelled(
            "gates", filled(["not met:", *(one_line(gate, 60) for gate in manifest.gates)], "   ", WIDTH - LABEL)
        )
    usage = [*_usage_items(manifest.usage), duration(sum(manifest.seconds.values()))]
    lines += labelled("usage", filled(usage, "   ", WIDTH - LABEL))
    if paid := paid_items(manifest):
        lines += labelled("paid", filled(paid, "   ", WIDTH - LABEL))
    lines += _artifact_lines(manifest, run)
    return "\n".join([*lines, f"next: {_next_command(manifest, run, resume)}"])


def labelled(label: str, values: Sequence[str]) -> list[str]:
    labels = [label, *[""] * (len(values) - 1)]
    return [f"  {name:<{LABEL - 2}}{value}" for name, value in zip(labels, values, strict=False)]


def filled(items: Iterable[str], joint: str, width: int) -> list[str]:
    """Lines of whole items, as many in each as fit."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(joint) + len(item) <= width:
            lines[-1] += joint + item
        else:
            lines.append(joint.lstrip() + item if lines else item)
    return lines


def _reason_items(manifest: Manifest) -> list[str]:
    counts = manifest.counts
    if not counts.dropped + counts.failed:
        return []
    ranked = sorted(manifest.reasons.items(), key=lambda item: -item[1])
    items = [f"{one_line(name, 40).rstrip(':')} {count:,}" for name, count in ranked[:CARD_REASONS]]
    if rest := ranked[CARD_REASONS:]:
        items.append(f"and {len(rest)} reasons more {sum(count for _, count in rest):,}")
    return [not_kept(manifest), *items]


def not_kept(manifest: Manifest) -> str:
    counts = manifest.counts
    parts = [f"{counts.dropped:,} dropped"] * bool(counts.dropped) + [f"{counts.failed:,} failed"] * bool(counts.failed)
    return ", ".join(parts)


def _collapse_lines(collapse: CollapseRecord) -> list[str]:
    """The first sentence of the note, the evidence, and the metrics; the report has all of it."""
    items = [
        f"{m.name} {number(m.candidate)} (real {number(m.low)} to {number(m.high)}{_outside(m)})"
        for m in collapse.metrics
    ]
    first = re.split(r"(?<=\.) (?=[A-Z])", plain(collapse.note), maxsplit=1)[0]
    told = [line for sentence in collapse.evidence for line in textwrap.wrap(plain(sentence), WIDTH - LABEL)]
    return textwrap.wrap(first, WIDTH - LABEL) + told + filled(items, "   ", WIDTH - LABEL)


def _outside(metric: MetricRecord) -> str:
    place = place_of(metric)
    return "" if place == "inside" else f", {place}"


def _usage_items(usage: Usage) -> list[str]:
    return [
        f"{usage.calls:,} calls",
        f"{usage.prompt_tokens:,} tokens in",
        f"{usage.completion_tokens:,} out",
    ]


def judge_words(judge: JudgeRecord) -> str:
    """How often a judge is right, in a line, with a warning where that is not known to be more often than chance."""
    m = judge.measured
    if m is None:
        return f"{plain(judge.teacher)}: its accuracy was not measured"
    parts = [
        f"{plain(judge.teacher)}: right on {m.right} of {m.answers} labelled answers, {percent(m.accuracy)} "
        f"({percent(m.accuracy_low)} to {percent(m.accuracy_high)})",
        f"passes {percent(m.sensitivity)} of the good and {percent(1 - m.specificity)} of the poor",
    ]
    parts += [f"{percent(m.inconsistent)} hang on the order of the choices"] if m.inconsistent else []
    parts += [f"{percent(m.undecided)} got no clear verdict"] if m.undecided else []
    if not m.beyond_chance:
        parts.append("NOT SHOWN TO BE BETTER THAN CHANCE")
    return "; ".join(parts)


def paid_items(manifest: Manifest) -> list[str]:
    """What the run paid for, where that is not just the answers in its samples: money, lost and repeated calls, the cache."""
    spent, usage = manifest.spent, manifest.usage
    if not spent.cost and (spent.calls, spent.tokens) == (usage.calls, usage.prompt_tokens + usage.completion_tokens):
        return []
    cost = [f"cost {number(spent.cost)}"] if spent.cost else []
    return [*cost, f"{spent.calls:,} calls", f"{spent.tokens:,} tokens"]


def _artifact_lines(manifest: Manifest, run: RunDir) -> list[str]:
    lines = []
    if run.dataset.exists():
        lines += labelled("dataset", filled([str(run.dataset), *_form_items(manifest)], "   ", WIDTH - LABEL))
    if manifest.mix and manifest.mix.rows > manifest.mix.own:
        lines += labelled("rows", textwrap.wrap(mix_words(manifest.mix), WIDTH - LABEL))
    if pairs := manifest.pairs:
        head = f"{plural(pairs.total, 'pair')} of {plural(pairs.prompts, 'prompt')}"
        kinds = [f"{one_line(kind, 40)} {count:,}" for kind, count in pairs.differences.items()]
        lines += labelled("pairs", filled([head, *kinds[:CARD_REASONS]], "   ", WIDTH - LABEL))
    if run.report_file.exists():
        lines += labelled("report", [str(run.report_file)])
    if student := manifest.student:
        losses = f"held-out loss {student.loss_before:.2f} -> {student.loss_after:.2f}"
        lines += labelled("student", filled([str(run.student), losses], "   ", WIDTH - LABEL))
    return lines


def mix_words(mix: MixRecord) -> str:
    """What a dataset is made of, in a line."""
    parts = [f"{mix.own:,} own", *(f"{rows:,} of {name}" for name, rows in mix.earlier.items())]
    short = f", less than min_real_share = {mix.min_real_share:g}" if mix.real_share < mix.min_real_share else ""
    parts += [f"{mix.real:,} real ({percent(mix.real_share)}{short})"] if mix.real else []
    return f"{mix.rows:,}: {', '.join(parts)}"


def _form_items(manifest: Manifest) -> list[str]:
    """The dataset's forms with their rows, where there is more to tell than how many samples are kept."""
    forms = manifest.formats
    if [form.name for form in forms] == ["messages"]:
        return []
    left = {form.name: f" ({form.left_out:,} left out)" for form in forms if form.left_out}
    return [f"{form.name} {form.train + form.validation:,}{left.get(form.name, '')}" for form in forms]


def _next_command(manifest: Manifest, run: RunDir, resume: str | None) -> str:
    usual = run.path.parent.resolve() == Path(RUNS).resolve()
    if manifest.state is RunState.done:
        verb = "show" if manifest.counts.kept else "report"
        return f"stillhouse {verb} {manifest.run if usual else shlex.quote(str(run.path))}"
    recipe = manifest.run.rpartition("-")[0]
    elsewhere = "" if usual else f" --runs-dir {shlex.quote(str(run.path.parent))}"
    return resume or f"stillhouse run {recipe} --resume{elsewhere}"


def verdict_lines(found: "Assessment") -> list[str]:
    """A page for a terminal: the verdict, what speaks for it, what to do, and the metrics."""
    lines = [f"verdict   {found.verdict.upper()}"]
    for record in (found.collapse, found.parent):
        if record:
            lines += ["", f"beside {plain(record.reference)}: {record.verdict}", *_evidence_lines(record), ""]
            lines += metric_lines(record)
    if advice := ADVICE[found.verdict]:
        lines += ["", "what may help", *(f"  - {one}" for one in advice)]
    return lines


def _evidence_lines(record: CollapseRecord) -> list[str]:
    return [
        line
        for sentence in record.evidence
        for line in textwrap.wrap(plain(sentence), WIDTH, initial_indent="  - ", subsequent_indent="    ")
    ]


def metric_lines(collapse: CollapseRecord) -> list[str]:
    """Collapse metrics, one a line with what each means, and what they can say at this size."""
    lines = []
    for metric in collapse.metrics:
        real = f"real {number(metric.low)} to {number(metric.high)}{_outside(metric)}"
        z = "" if metric.z is None else f"   z {metric.z:+.1f}"
        lines.append(f"{metric.name:<22}{number(metric.candidate):>9}   {real}{z}")
        lines += textwrap.wrap(plain(metric.meaning), WIDTH, initial_indent="    ", subsequent_indent="    ")
    return [*lines, *textwrap.wrap(plain(collapse.note), WIDTH)]


def sample_line(sample: Sample) -> str:
    """One sample in one line: id, how it ended, and the beginning of its answer."""
    why = f"{sample.reason}:{sample.detail}" if sample.reason else ""
    return f"{sample.id}  {sample.state:<8}{one_line(why, 30):<32}{one_line(sample.answer, 60)}"


def sample_text(sample: Sample) -> str:
    """A sample's whole history, for a terminal: seed, turns, critiques and verdicts by revision, and how it ended."""
    lines = [f"sample {sample.id}  {sample.state}", "", "seed"]
    wide = max((len(key) for key in sample.seed.data), default=0)
    for key, value in sample.seed.data.items():
        lines += _field(key, seed_value(value), wide)
    for revision in history_of(sample):
        lines += ["", f"revision {revision.number}"]
        for turn in revision.drafts:
            lines += _turn_lines(turn)
        for critique in revision.critiques:
            lines += _critique_lines(critique)
        for turn in revision.checks:
            lines += _turn_lines(turn)
        lines += _verdict_lines(revision.verdicts)
    if sample.answer:
        lines += ["", "answer", *_quoted(sample.answer, 2)]
    lines += ["", *textwrap.wrap(f"outcome   {outcome(sample)}", WIDTH, subsequent_indent=" " * 10)]
    lines.append("usage     " + "   ".join(_usage_items(sample.usage)))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines))


def outcome(sample: Sample) -> str:
    """How the sample ended, in one line."""
    why = ": ".join(part for part in (sample.reason or "", plain(sample.detail)) if part)
    after = "as first written" if not sample.revisions else f"after {plural(sample.revisions, 'revision')}"
    return f"{sample.state} {after}" + (f", for {why}" if why else "")


def history_of(sample: Sample) -> list[Revision]:
    """What happened to the sample, revision by revision: drafts, critique, checks, verdicts."""
    numbered: list[Turn | Critique | Verdict] = [*sample.turns, *sample.critiques, *sample.verdicts]
    return [
        Revision(
            number=number,
            drafts=[t for t in sample.turns if t.revision == number and t.agent != "verifier"],
            critiques=[c for c in sample.critiques if c.revision == number],
            checks=[t for t in sample.turns if t.revision == number and t.agent == "verifier"],
            verdicts=[v for v in sample.verdicts if v.revision == number],
        )
        for number in sorted({part.revision for part in numbered})
    ]


def seed_value(value: Any) -> str:
    """A value of a seed in words, however deep: lists by comma, tables by semicolon."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {seed_value(part)}" for key, part in value.items())
    if isinstance(value, list):
        joint = "; " if any(isinstance(part, dict | list) for part in value) else ", "
        return joint.join(map(seed_value, value))
    return value if isinstance(value, str) else json.dumps(value)


def _turn_lines(turn: Turn) -> list[str]:
    which, attempt = divmod(turn.attempt, REPAIR_STRIDE)
    repair = (f"   question {which + 1}" if which else "") + (f"   repair {attempt}" if attempt else "")
    tokens = f"{turn.usage.prompt_tokens:,} tokens in   {turn.usage.completion_tokens:,} out"
    head = f"  {turn.agent}{repair}   {turn.teacher}   {tokens}"
    return [head, "    asked", *_quoted(turn.asked, 4), "    replied", *_quoted(turn.reply, 4), ""]


def _critique_lines(critique: Critique) -> list[str]:
    scores = "   ".join(f"{rubric} {score}/5" for rubric, score in critique.scores.items())
    lines = ["  critique", *_field("scores", scores)]
    for fault in critique.faults:
        lines += _field("fault", fault)
    return [*lines, *(_field("advice", critique.advice) if critique.advice else []), ""]


def _verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    if not verdicts:
        return []
    wide = max(len(verdict.check) for verdict in verdicts)
    lines = ["  verdicts"]
    for verdict in verdicts:
        head = f"    {'pass' if verdict.passed else 'FAIL'}  {verdict.check:<{wide}}  "
        text = textwrap.wrap(plain(verdict.evidence), max(WIDTH - len(head), 40)) or [""]
        lines += [head + text[0], *(" " * len(head) + more for more in text[1:])]
    return lines


def _field(label: str, value: str, wide: int = 6) -> list[str]:
    head = f"    {plain(label):<{wide}}  "
    text = textwrap.wrap(plain(value), WIDTH - len(head)) or [""]
    return [head + text[0], *(" " * len(head) + more for more in text[1:])]


def _quoted(text: str, indent: int) -> list[str]:
    edge = " " * indent + "| "
    wrapped = [
        part
        for line in plain(text).splitlines() or [""]
        for part in textwrap.wrap(line, WIDTH - len(edge), replace_whitespace=False) or [""]
    ]
    return [edge + part for part in wrapped]
