"""A run in numbers and words, for its cards, its documents and its page; and its cards for the terminal.

The sentences are in `templates/words.txt`. Text from teachers is untrusted: it loses its control characters.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from core.config.agents import AgentConfig
from core.config.recipe import Recipe
from core.config.teachers import find_student_release
from core.intervals import IntervalEstimate
from core.plugins import find_part, load_hooks
from core.runs.batch_records import read_open_batches
from core.runs.records import DRAWN_BY_SEED, CollapseRecord, RunEstimate, RunManifest, RunState
from core.runs.releases import Release
from core.runs.run_dir import RunDir
from core.runs.student_records import GeneralPanelRecord
from core.sample import Sample
from core.shared_options import EMBEDDER_FILE
from flows.release.release_gate import format_promotion
from flows.terminal.sample_history import format_answer, format_request
from flows.terminal.suggested_commands import build_runs_dir_arguments, format_command, suggest_next_command
from flows.terminal.text_format import (
    TERMINAL_WIDTH,
    VALUE_WIDTH,
    advise_on_truncation,
    create_environment,
    describe_generator,
    format_count,
    format_duration,
    format_money,
    format_one_line,
    format_table,
    format_token_usage,
    replace_unsafe_characters,
    say,
)

MOST_CARD_REASONS = 12
"""Reasons on the card; the rest are summed. The page lists all."""
CARD_ROWS = 2
"""Rows of the dataset on the closing card."""
CARD_CHOICE = 50
"""Kept samples among which the closing card takes the shortest, which fit best on a line."""
CRITIC_TOPOLOGIES = ("centralized", "independent")
"""Topologies with a critic."""


class BillRow(NamedTuple):
    """One quantity of producing a run: what was estimated, and what was spent."""

    label: str
    estimated: str
    spent: str


class DropReasonGroup(NamedTuple):
    """The samples not kept for one reason, by detail, most frequent first."""

    reason: str
    samples: int
    details: list[tuple[str, int]]


class RunSummary(NamedTuple):
    """A run for people to read. Lists have one item for each part of a line."""

    manifest: RunManifest
    conclusion: str
    """One sentence."""
    funnel: list[str]
    not_kept: list[str]
    reasons: list[DropReasonGroup]
    measured: list[tuple[str, str]]
    """What judges, the difficulty and plugins say, by label."""
    thinking: list[str]
    usage: list[str]
    """Of the answers in the samples, and the time."""
    paid: list[str]
    """Cost, calls and tokens that the run paid for, its evaluation included, if they differ from those of its samples."""
    estimated: list[str]
    bill: list[BillRow]
    """Empty without an estimate."""
    promoted: list[str]
    """The generator, if it is a promoted student."""
    forms: list[str]
    """The formats of the dataset with their rows, if it has others than `messages`."""
    pairs: list[str]
    losses: str
    truncation: str | None
    panel: list[str]
    """Two lines on the general panel."""
    teachers: dict[str, list[str]]
    """The models that wrote or judged something, each with its roles; empty without a recipe."""


def summarize_run(manifest: RunManifest, recipe: Recipe | None = None) -> RunSummary:
    student, panel = manifest.student, manifest.evaluation and manifest.evaluation.panel
    model, pairs, names = (
        manifest.agents.generator,
        manifest.dataset.pairs,
        [form.name for form in manifest.dataset.formats],
    )
    kinds = [f"{format_one_line(kind, 40)} {count:,}" for kind, count in pairs.differences.items()] if pairs else []
    heads = [f"{format_count(pairs.total, 'pair')} of {format_count(pairs.prompts, 'prompt')}"] if pairs else []
    return RunSummary(
        manifest=manifest,
        conclusion=f"{say('conclusion', manifest)}.",
        funnel=[f"{name} {left:,}" for name, left in manifest.funnel],
        not_kept=_list_not_kept(manifest),
        reasons=_group_drop_reasons(manifest.reasons),
        measured=_list_measured(manifest),
        thinking=[
            *([manifest.dataset.thinking.summary] if manifest.dataset.thinking else []),
            *manifest.agents.missing_thinking,
        ],
        usage=[*format_token_usage(manifest.usage), format_duration(sum(manifest.seconds.values()))],
        paid=_list_paid(manifest),
        estimated=[" ".join(row) for row in _list_estimated(manifest.costs.estimate)],
        bill=_list_bill_rows(manifest),
        promoted=[describe_generator(model)] if model and find_student_release(model) else [],
        forms=[say("form", form) for form in manifest.dataset.formats] if names != ["messages"] else [],
        pairs=[*heads, *kinds[:MOST_CARD_REASONS]],
        losses=f"held-out loss {student.loss_before:.2f} -> {student.loss_after:.2f}" if student else "",
        truncation=advise_on_truncation(student.truncation, "student.max_tokens") if student else None,
        panel=[say("panel_card", panel), say("panel_notes", panel)] if panel else [],
        teachers=_list_active_teachers(manifest, recipe) if recipe else {},
    )


def _list_not_kept(manifest: RunManifest) -> list[str]:
    ranked = sorted(manifest.reasons.items(), key=lambda item: -item[1])
    items = [f"{format_one_line(name, 40).rstrip(':')} {count:,}" for name, count in ranked[:MOST_CARD_REASONS]]
    if rest := ranked[MOST_CARD_REASONS:]:
        items.append(f"{format_count(len(rest), 'more reason')}: {sum(count for _, count in rest):,}")
    counts = say("not_kept", manifest.counts)
    return [counts, *items] if counts else []


def _group_drop_reasons(reasons: Mapping[str, int], most: int = 8) -> list[DropReasonGroup]:
    """Counts of `reason:detail` by reason, each with at most `most` details, of which the last sums the rest."""
    by_reason: dict[str, list[tuple[str, int]]] = {}
    for name, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        reason, _, detail = name.partition(":")
        by_reason.setdefault(reason, []).append((detail, count))
    groups = []
    for reason, details in by_reason.items():
        total, rest = sum(count for _, count in details), details[most - 1 :]
        if len(rest) > 1:
            details = [*details[: most - 1], (f"{len(rest)} more", sum(count for _, count in rest))]
        groups.append(DropReasonGroup(reason, total, details))
    return sorted(groups, key=lambda group: -group.samples)


def _list_measured(manifest: RunManifest) -> list[tuple[str, str]]:
    measured = [("judge", say("judge", judge)) for judge in manifest.agents.judges]
    measured += [("pass rate", say("pass_rates", manifest.agents.difficulty))] if manifest.agents.difficulty else []
    return measured + [row for hooks in load_hooks(manifest.plugins) for row in hooks.list_summary_lines(manifest)]


def _list_paid(manifest: RunManifest) -> list[str]:
    paid, usage = manifest.costs.paid, manifest.usage
    if not paid.cost and (paid.calls, paid.tokens) == (usage.calls, usage.prompt_tokens + usage.completion_tokens):
        return []
    currency, limit = manifest.costs.currency, "at most " if paid.uncounted else ""
    cost = [f"cost {limit}{format_money(paid.cost, currency)}"] if paid.cost else []
    saved = [f"{format_money(paid.saved, currency)} saved by prompt caches"] if paid.saved > 0 else []
    calls, *tokens = format_token_usage(paid)
    uncounted = [f"{format_count(paid.uncounted, 'call')} without a token count"] if paid.uncounted else []
    return [*cost, calls, *(f"{limit}{text}" for text in tokens), *uncounted, *saved]


def _list_bill_rows(manifest: RunManifest) -> list[BillRow]:
    spent, estimated = manifest.costs.spent, dict(_list_estimated(manifest.costs.estimate))
    limit = "at most " if spent.uncounted else ""
    took = {
        "calls": f"{spent.calls:,}",
        "tokens in": f"{limit}{spent.prompt_tokens:,}",
        "of them cached": f"{spent.cached_tokens:,}" if spent.cached_tokens else "",
        "tokens out": f"{limit}{spent.completion_tokens:,}",
        "of them thinking": f"{spent.reasoning_tokens:,}" if spent.reasoning_tokens else "",
        "cost": limit + format_money(spent.cost, manifest.costs.currency) if spent.cost else "",
        "time": format_duration(spent.seconds),
        "saved by prompt caches": format_money(spent.saved, manifest.costs.currency) if spent.saved > 0 else "",
    }
    rows = [BillRow(label, estimated.get(label, ""), amount) for label, amount in took.items()]
    return [row for row in rows if row.estimated or row.spent] if manifest.costs.estimate else []


def _list_active_teachers(manifest: RunManifest, recipe: Recipe) -> dict[str, list[str]]:
    agents = recipe.agents
    judged = agents.critic and agents.critic.type == "teacher" and recipe.topology.kind in CRITIC_TOPOLOGIES
    active: dict[str, AgentConfig | None] = {
        "generator": agents.generator if manifest.agents.generator != DRAWN_BY_SEED else None,
        "critic": agents.critic if judged else None,
        "verifier": agents.verifier if any(check.asks for check in manifest.agents.checks) else None,
        "solver": recipe.difficulty.build_agent(agents.generator) if recipe.difficulty else None,
    }
    teachers: dict[str, list[str]] = {}
    for role, agent in active.items():
        if agent:
            teachers.setdefault(recipe.teachers[agent.teacher].model, []).append(role)
    return teachers


# Estimates


def format_estimate(estimate: RunEstimate, named: str) -> list[str]:
    """The estimate in lines; `named` is the recipe."""
    goal = f"{format_count(estimate.goal, 'kept sample')}" if estimate.goal else "all candidates"
    head = f"estimate of {named}, {goal}: from {format_count(estimate.previewed, 'sample')}, {estimate.kept} kept; 95 % range"
    rows = [("candidates", _format_range(estimate.candidates, "{:,.0f}".format))] if estimate.goal else []
    rows += [("pass checks", _format_range(estimate.kept_samples, "{:,.0f}".format)), *_list_estimated(estimate)]
    for agent, usage in estimate.agents.items():
        each = f"{usage.calls / estimate.previewed:.1f} calls a sample, {usage.prompt_tokens / usage.calls:,.0f} tokens in, "
        rows.append(
            (replace_unsafe_characters(agent), f"{each}{usage.completion_tokens / usage.calls:,.0f} out a call")
        )
    return [head, *format_table(rows), *(f"  note: {note}" for note in estimate.notes)]


def _list_estimated(estimate: RunEstimate | None) -> list[tuple[str, str]]:
    """Label and range of each quantity that is not zero."""
    if estimate is None:
        return []
    whole = "{:,.0f}".format
    amounts: list[tuple[str, IntervalEstimate | None, Callable[[float], str]]] = [
        ("calls", estimate.calls, whole),
        ("tokens in", estimate.prompt_tokens, whole),
        ("of them cached", estimate.cached_tokens, whole),
        ("tokens out", estimate.completion_tokens, whole),
        ("of them thinking", estimate.reasoning_tokens, whole),
        ("cost", estimate.cost, lambda amount: format_money(amount, estimate.currency)),
        ("time", estimate.seconds, format_duration),
    ]
    return [(label, _format_range(amount, form)) for label, amount, form in amounts if amount and amount.high]


def _format_range(amount: IntervalEstimate, form: Callable[[float], str]) -> str:
    return form(amount.value) if amount.low == amount.high else amount.format(form)


# Cards


def format_run_card(
    manifest: RunManifest, run: RunDir, named: str | None = None, runs_dir: str | None = None, *, suggests: bool = True
) -> str:
    """The whole card of a run, with a suggested command. `named` and `runs_dir` are as in `suggest_next_command`."""
    card = _render_card("run_card.txt", manifest, run, batches=list(read_open_batches(run.batches)))
    return f"{card}\n{suggest_next_command(manifest, run, named, runs_dir)}" if suggests else card


def format_closing_card(
    manifest: RunManifest,
    run: RunDir,
    samples: Sequence[Sample],
    named: str,
    runs_dir: str,
    released: Release | None = None,
) -> str:
    """The card at the end of `run`: at most 17 lines for a finished run. `samples` are the first `CARD_CHOICE` kept ones; `named`
    and `runs_dir` are as in `suggest_next_command`.
    """
    rows = sorted(((format_request(one), format_answer(one)) for one in samples), key=lambda row: sum(map(len, row)))
    arguments = (named, *build_runs_dir_arguments(runs_dir))
    card = _render_card(
        "closing_card.txt", manifest, run, samples=rows[:CARD_ROWS], released=released,
        promotion=format_promotion(released) if released else [], more=format_command("show", *arguments),
    )  # fmt: skip
    if manifest.state is not RunState.done or not manifest.student:
        return f"{card}\n{suggest_next_command(manifest, run, named, runs_dir)}"
    if (run.student / EMBEDDER_FILE).is_file():
        return f"{card}\nnext: {format_command('evaluate', str(run.path))}"
    return f"{card}\nnext: {format_command('chat' if find_part('command', 'chat') else 'show', *arguments)}"


def _render_card(template: str, manifest: RunManifest, run: RunDir, **values: Any) -> str:
    text = create_environment().get_template(template).render(
        m=manifest, s=summarize_run(manifest), run=run, width=VALUE_WIDTH, **values
    )  # fmt: skip
    return "\n".join(line for line in text.splitlines() if line)


def list_panel_lines(panel: GeneralPanelRecord) -> list[str]:
    """Pass rates in a line, then the loss, then lengths and divergence."""
    notes = say("panel_notes", panel) + " nats per token from the start" * bool(panel.divergence)
    return [line for line in (say("panel_rates", panel), say("panel_loss", panel), notes) if line]


def format_headline(collapse: CollapseRecord) -> str:
    """The line that says the verdict wherever it is printed."""
    return format_one_line(collapse.line, TERMINAL_WIDTH)


def format_metrics(collapse: CollapseRecord) -> list[str]:
    """Collapse metrics, one per line with its 95 % interval, each with its meaning; then how alike the texts are."""
    lines = create_environment().get_template("metrics.txt").render(c=collapse).splitlines()
    return [part for line in lines for part in textwrap.wrap(line, TERMINAL_WIDTH, subsequent_indent="    ")]
