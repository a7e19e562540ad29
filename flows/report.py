"""What a run says of itself: the card on the terminal, a sample's history, the report page, and the dataset's card.

Knows neither how samples are made nor how students are trained. Text from teachers is untrusted: on a terminal it
loses its control characters, in the page it is escaped and no script but the page's own may run.
"""

import base64
import hashlib
import json
import math
import re
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.recipe import Recipe
from core.run import CollapseRecord, Manifest, MetricRecord, RunDir, RunState
from core.sample import Critique, Sample, Turn, Usage, Verdict
from core.store import counted, write_json, write_text

TEMPLATES = Path(__file__).with_name("templates")

WIDTH = 100
"""Columns of everything for a terminal, paths excepted: a path that is broken cannot be copied."""
LABEL = 12
"""Columns before the values of a row of the card."""
CARD_REASONS = 12
"""Reasons on the card; the rest is summed, and whole on the page."""
EMBEDDED = 500
"""Samples in the page. At some 8 kB each it stays under 5 MB, which a phone still opens."""
LONGEST_TEXT = 4000
"""Characters of one text in the page; the Parquet files have all of it."""

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a cursor, recolour a terminal, turn the direction of text around, or are not text at all."""

DATASET_COLUMNS = {
    "id": "the sample's id, the same as in the run's `samples/kept.parquet`",
    "messages": "the conversation: a list of `{role, content}`, the form that chat models are trained on",
}
"""The columns of the Parquet files in `dataset/`, with what they hold, for the dataset's card."""

VERIFIER_WORDS = {
    "constraints": "a program checks every constraint that the instruction states",
    "on_topic": "the answer must speak of its topic",
    "sound_prose": "the answer must read as prose, in whole sentences",
    "expression": "the stated answer must equal the value of its expression",
    "agreement": "solutions made independently of the candidate must give its answer",
}
FILTER_WORDS = {
    "length": "removes texts that are too short or too long",
    "refusal": "removes refusals and talk about being a model",
    "repetition": "removes texts that repeat themselves, by the rules of Rae et al. 2021, table A1",
    "exact": "removes exact duplicates",
    "minhash": "removes near-duplicates, by Jaccard similarity of word shingles",
}


class CheckRate(NamedTuple):
    """How often one check passed, over the verdicts of all samples and revisions."""

    check: str
    passed: int
    verdicts: int

    @property
    def share(self) -> float:
        return self.passed / self.verdicts


class ReasonGroup(NamedTuple):
    """The samples not kept for one reason, by detail, most frequent first."""

    reason: str
    samples: int
    details: list[tuple[str, int]]


class Strip(NamedTuple):
    """One collapse metric as a plot: where each number lies, in percent of its width."""

    metric: MetricRecord
    place: str
    low: float
    high: float
    reference: float
    candidate: float


class Revision(NamedTuple):
    """What happened to one revision, in this order."""

    number: int
    drafts: list[Turn]
    critiques: list[Critique]
    checks: list[Turn]
    verdicts: list[Verdict]


# The card


def run_card(manifest: Manifest, run: RunDir, resume: str | None = None) -> str:
    """What a run prints when it ends.

    `resume` is the command that goes on with it. Without one the card names the recipe only, which is right for a
    built-in recipe run without `--set`.
    """
    lines = [f"run {manifest.run}  {manifest.state}  {run.path}"]
    if manifest.error:
        lines += _labelled("error", textwrap.wrap(plain(manifest.error), WIDTH - LABEL))
    steps = _filled([f"{name} {left:,}" for name, left in manifest.funnel], " -> ", WIDTH - 2)
    lines += [f"  {line}" for line in steps]
    lines += _labelled("not kept", _filled(_reason_items(manifest), "   ", WIDTH - LABEL))
    if manifest.collapse:
        lines += _labelled("collapse", _collapse_lines(manifest.collapse))
    if manifest.gates:
        lines += _labelled(
            "gates", _filled(["not met:", *(one_line(gate, 60) for gate in manifest.gates)], "   ", WIDTH - LABEL)
        )
    usage = [*_usage_items(manifest.usage), duration(sum(manifest.seconds.values()))]
    lines += _labelled("usage", _filled(usage, "   ", WIDTH - LABEL))
    lines += _artifact_lines(manifest, run)
    return "\n".join([*lines, f"next: {_next_command(manifest, run, resume)}"])


def _labelled(label: str, values: Sequence[str]) -> list[str]:
    labels = [label, *[""] * (len(values) - 1)]
    return [f"  {name:<{LABEL - 2}}{value}" for name, value in zip(labels, values, strict=False)]


def _filled(items: Iterable[str], joint: str, width: int) -> list[str]:
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
    return [_not_kept(manifest), *items]


def _not_kept(manifest: Manifest) -> str:
    counts = manifest.counts
    parts = [f"{counts.dropped:,} dropped"] * bool(counts.dropped) + [f"{counts.failed:,} failed"] * bool(counts.failed)
    return ", ".join(parts)


def _collapse_lines(collapse: CollapseRecord) -> list[str]:
    items = [
        f"{m.name} {number(m.candidate)} (real {number(m.low)} to {number(m.high)}{_outside(m)})"
        for m in collapse.metrics
    ]
    return _filled(items, "   ", WIDTH - LABEL) + textwrap.wrap(plain(collapse.note), WIDTH - LABEL)


def _outside(metric: MetricRecord) -> str:
    place = place_of(metric)
    return "" if place == "inside" else f", {place}"


def _usage_items(usage: Usage) -> list[str]:
    return [
        f"{usage.calls:,} calls",
        f"{usage.prompt_tokens:,} tokens in",
        f"{usage.completion_tokens:,} out",
    ]


def _artifact_lines(manifest: Manifest, run: RunDir) -> list[str]:
    lines = []
    if run.dataset.exists():
        lines += _labelled("dataset", [str(run.dataset)])
    if run.report_file.exists():
        lines += _labelled("report", [str(run.report_file)])
    if student := manifest.student:
        losses = f"held-out loss {student.loss_before:.2f} -> {student.loss_after:.2f}"
        lines += _labelled("student", _filled([str(run.student), losses], "   ", WIDTH - LABEL))
    return lines


def _next_command(manifest: Manifest, run: RunDir, resume: str | None) -> str:
    usual = run.path.parent.resolve() == Path("data/runs").resolve()
    if manifest.state is RunState.done:
        verb = "show" if manifest.counts.kept else "report"
        return f"stillhouse {verb} {manifest.run if usual else shlex.quote(str(run.path))}"
    recipe = manifest.run.rpartition("-")[0]
    elsewhere = "" if usual else f" --runs-dir {shlex.quote(str(run.path.parent))}"
    return resume or f"stillhouse run {recipe} --resume{elsewhere}"


# One sample


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
    repair = f"   repair {turn.attempt}" if turn.attempt else ""
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


# The page


def write_report(
    run: RunDir, manifest: Manifest, recipe: Recipe, kept: Sequence[Sample], dropped: Sequence[Sample]
) -> None:
    """Write `report.html`, which needs no network, and `report.json` with the same numbers.

    `dropped` holds the failed samples too, as `dropped.parquet` does.
    """
    numbers = report_numbers(manifest, kept, dropped)
    write_json(run.report_file.with_suffix(".json"), {**numbers, "recipe": recipe.model_dump(mode="json")})
    write_text(run.report_file, _page(manifest, recipe, numbers, [*kept, *dropped]))


def report_numbers(manifest: Manifest, kept: Sequence[Sample], dropped: Sequence[Sample]) -> dict[str, Any]:
    """The manifest, with what can be counted only over the samples."""
    samples = [*kept, *dropped]
    return {
        **manifest.model_dump(mode="json", exclude={"files"}),
        "conclusion": conclusion(manifest),
        "checks": [{**rate._asdict(), "share": rate.share} for rate in check_rates(samples)],
        "agents": [{"agent": agent, **usage.model_dump()} for agent, usage in usage_by_agent(samples).items()],
        "kept_by_revisions": _counts_by_revisions(kept),
    }


def conclusion(manifest: Manifest) -> str:
    """The run in a few words: how much was kept, beside what real text does, and what the student learned."""
    counts = manifest.counts
    made = f"{counts.kept:,} of {plural(counts.candidates, 'candidate')} kept"
    if manifest.state is RunState.done:
        parts = [made if counts.candidates else "No candidate was made"]
    else:
        parts = [f"{STATE_WORDS[manifest.state]}: {made if counts.candidates else 'no candidate made'} so far"]
    if manifest.collapse and manifest.collapse.metrics:
        parts.append(_collapse_words(manifest.collapse.metrics))
    if student := manifest.student:
        turned = "fell" if student.loss_after < student.loss_before else "did not fall"
        parts.append(f"the student’s held-out loss {turned}, {student.loss_before:.2f} to {student.loss_after:.2f}")
    return "; ".join(parts) + "."


STATE_WORDS = {
    RunState.running: "Still running",
    RunState.interrupted: "Interrupted",
    RunState.failed: "The run failed",
}


def _collapse_words(metrics: Sequence[MetricRecord]) -> str:
    outside = [f"{m.name} {place_of(m)}" for m in metrics if place_of(m) != "inside"]
    inside = len(metrics) - len(outside)
    if not outside:
        return f"all {len(metrics)} collapse metrics lie where real text does"
    told = ", ".join(outside[:3]) + (f" and {len(outside) - 3} more" if len(outside) > 3 else "")
    return f"{inside} of {len(metrics)} collapse metrics lie where real text does ({told})"


def place_of(metric: MetricRecord) -> str:
    if metric.candidate < metric.low:
        return "below"
    return "above" if metric.candidate > metric.high else "inside"


def check_rates(samples: Iterable[Sample]) -> list[CheckRate]:
    """How often each check passed, the hardest first."""
    found: dict[str, list[bool]] = {}
    for sample in samples:
        for verdict in sample.verdicts:
            found.setdefault(verdict.check, []).append(verdict.passed)
    rates = [CheckRate(check, sum(passed), len(passed)) for check, passed in found.items()]
    return sorted(rates, key=lambda rate: (rate.share, rate.check))


def usage_by_agent(samples: Iterable[Sample]) -> dict[str, Usage]:
    """What each agent's turns used, in the order the agents first spoke."""
    found: dict[str, Usage] = {}
    for sample in samples:
        for turn in sample.turns:
            found[turn.agent] = found.get(turn.agent, Usage()) + turn.usage
    return found


def _counts_by_revisions(samples: Iterable[Sample]) -> dict[str, int]:
    counts: dict[int, int] = {}
    for sample in samples:
        counts[sample.revisions] = counts.get(sample.revisions, 0) + 1
    return {str(revisions): counts[revisions] for revisions in sorted(counts)}


def reason_groups(reasons: Mapping[str, int], most: int = 8) -> list[ReasonGroup]:
    """Counts of `reason:detail` by reason; at most `most` details each, the last then the sum of the rest."""
    found: dict[str, list[tuple[str, int]]] = {}
    for name, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        reason, _, detail = name.partition(":")
        found.setdefault(reason, []).append((detail, count))
    groups = []
    for reason, details in found.items():
        shown = details
        if len(details) > most:
            rest = details[most - 1 :]
            shown = [*details[: most - 1], (f"{len(rest)} more", sum(count for _, count in rest))]
        groups.append(ReasonGroup(reason, sum(count for _, count in details), shown))
    return sorted(groups, key=lambda group: -group.samples)


def strips_of(collapse: CollapseRecord | None) -> list[Strip]:
    return [_strip(metric) for metric in collapse.metrics] if collapse else []


def _strip(metric: MetricRecord) -> Strip:
    ends = (metric.low, metric.high, metric.reference, metric.candidate)
    left, right = min(ends), max(ends)
    span = (right - left) or 1.0
    # A fifth of the strip on each side is left for the labels, which grow away from the band.
    low, high, reference, candidate = (round(20 + 60 * (value - left) / span, 2) for value in ends)
    return Strip(metric, place_of(metric), low, high, reference, candidate)


def _page(manifest: Manifest, recipe: Recipe, numbers: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    shown = samples[:EMBEDDED]
    return (
        _environment(autoescape=True)
        .get_template("report.html")
        .render(
            m=manifest,
            numbers=numbers,
            groups=reason_groups(manifest.reasons),
            strips=strips_of(manifest.collapse),
            checks=check_rates(samples),
            agents=usage_by_agent(samples),
            samples=shown,
            total=len(samples),
            states=counted([s.state for s in shown]),
            reasons=counted([s.reason for s in shown if s.reason]),
            recipe=recipe,
            recipe_text=json.dumps(recipe.model_dump(mode="json"), indent=2, ensure_ascii=False),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    own = (cell, clock, cut, duration, history_of, number, one_line, outcome, percent, plural, seed_value)
    environment.filters.update({function.__name__: function for function in own})
    environment.globals["not_kept"] = _not_kept
    return environment


# The dataset's card


def dataset_card(manifest: Manifest, recipe: Recipe, train: int, validation: int) -> str:
    """The README.md of the dataset, as the Hugging Face hub and `datasets` read it."""
    card = _environment(autoescape=False).get_template("dataset_card.md")
    checked = bool(recipe.verifiers) and recipe.topology.kind == "centralized"
    text = card.render(
        m=manifest,
        recipe=recipe,
        train=train,
        validation=validation,
        size=size_category(train + validation),
        columns=DATASET_COLUMNS,
        teachers=_teachers_at_work(recipe),
        checked=checked,
        verifiers=[(v.type, VERIFIER_WORDS[v.type]) for v in recipe.verifiers] if checked else [],
        filters=[(f.type, FILTER_WORDS[f.type], _options(f.model_dump())) for f in recipe.filters],
        strips=strips_of(manifest.collapse),
    )
    return text + "\n"


def _teachers_at_work(recipe: Recipe) -> dict[str, list[str]]:
    """The agents of each model that wrote or judged something."""
    agents = recipe.agents
    roles = {"generator": agents.generator, "critic": agents.critic if recipe.topology.kind != "single" else None}
    if any(verifier.type == "agreement" for verifier in recipe.verifiers):
        roles["verifier"] = agents.verifier
    found: dict[str, list[str]] = {}
    for role, agent in roles.items():
        if agent:
            found.setdefault(recipe.teachers[agent.teacher].model, []).append(role)
    return found


def _options(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in table.items() if key != "type")


def size_category(rows: int) -> str:
    """The hub's name for a dataset of this many rows."""
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    place = sum(rows >= 10 ** (3 + i) for i in range(len(bounds)))
    if place == 0:
        return "n<1K"
    return f"{bounds[place - 1]}<n<{bounds[place]}" if place < len(bounds) else "n>1B"


# Words and numbers


def plain(text: str) -> str:
    """`text` with nothing in it that a terminal would obey."""
    return UNSAFE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str, most: int = 160) -> str:
    words = " ".join(plain(text).split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def cut(text: str) -> str:
    """As much of `text` as the page shows, saying how much is missing."""
    left_out = len(text) - LONGEST_TEXT
    return text if left_out <= 0 else f"{text[:LONGEST_TEXT]}… ({left_out:,} characters more)"


def cell(text: str) -> str:
    """`text` inside a Markdown table or list: one line, no markup, no table borders."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", one_line(text, 400))


def number(value: float) -> str:
    """Three significant digits, thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(share: float) -> str:
    """A whole percentage that is 0 or 100 only when the share is."""
    whole = round(100 * share)
    if 0 < share < 1:
        whole = min(max(whole, 1), 99)
    return f"{whole} %"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    minutes = math.floor(seconds / 60 + 0.5)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def clock(iso: str) -> str:
    """An ISO time for people, as given where it is not one."""
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = moment.strftime(" %Z") if moment.tzinfo else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"
