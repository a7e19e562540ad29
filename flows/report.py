"""The report page, the same numbers for machines, and the dataset card.

Knows neither how samples are made nor how students are trained. Text from teachers is untrusted: in the page it is
escaped, and no script but the page's own may run.
"""

import base64
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from core.errors import UsageError
from core.recipe import AgentConfig, Recipe
from core.run import CollapseRecord, FormatRecord, Manifest, RunDir, RunState
from core.sample import Sample, State, Usage
from core.store import counted, read_json, write_json, write_text
from flows.card import paid_items
from flows.collapse_page import HEIGHT, WIDTH, shown_of
from flows.formats import COLUMNS
from flows.lineage import comparisons_before
from flows.pages import TEMPLATES, page_environment
from flows.similarity import PLOT, plots_of
from flows.training_page import curves_of
from flows.words import place_of, plural

if TYPE_CHECKING:
    from flows.cascade import Routing
    from flows.routing_plot import Cascade

logger = logging.getLogger("stillhouse")

EVALUATION = "evaluation.json"
ROUTING = "routing.json"
EMBEDDED = 500
"""Samples in the page. At some 8 kB each it stays under 5 MB, which a phone still opens."""
FORM_WORDS = {
    "messages": "conversations, as chat models are trained on",
    "prompt_completion": "conversations up to their last question, and what is said to it",
    "preference": "pairs of answers to one prompt, one better than the other",
    "alpaca": "question and answer, with the turns before as history",
    "sharegpt": "conversations, with the older names of who speaks",
}
FILTER_WORDS = {
    "length": "removes texts that are too short or too long",
    "refusal": "removes refusals and talk about being a model",
    "boilerplate": "removes answers that begin with an assistant's phrases instead of with the answer",
    "repetition": "removes texts that repeat themselves, by the rules of Rae et al. 2021, table A1",
    "exact": "removes exact duplicates",
    "novelty": "removes what asks the same as an earlier one, by ROUGE-L",
    "minhash": "removes near-duplicates, by Jaccard similarity of word shingles",
    "semantic": "removes near-duplicates by meaning, by the cosine of sentence embeddings (all-MiniLM-L6-v2)",
    "quality": "removes texts by rules for the quality of web pages (Gopher, C4, FineWeb)",
    "language": "removes texts in other languages",
    "contamination": "removes what shares n-grams with evaluation sets",
    "pii": "masks or removes personal data: addresses, phone, card, account and identity numbers",
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


class Overview(NamedTuple):
    """What can be counted only over the samples, gone through once, and the first of them for the page."""

    shown: list[Sample]
    total: int
    checks: list[CheckRate]
    agents: dict[str, Usage]
    kept_by_revisions: dict[str, int]


def overview(kept: Iterable[Sample], dropped: Iterable[Sample]) -> Overview:
    shown: list[Sample] = []
    total = 0
    passed: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    agents: dict[str, Usage] = {}
    revisions: Counter[int] = Counter()
    for sample in chain(kept, dropped):
        total += 1
        if len(shown) < EMBEDDED:
            shown.append(sample)
        for verdict in sample.verdicts:
            verdicts[verdict.check] += 1
            passed[verdict.check] += verdict.passed
        for turn in sample.turns:
            agents[turn.agent] = agents.get(turn.agent, Usage()) + turn.usage
        if sample.state == State.kept:
            revisions[sample.revisions] += 1
    rates = [CheckRate(check, passed[check], count) for check, count in verdicts.items()]
    hardest_first = sorted(rates, key=lambda rate: (rate.share, rate.check))
    by_revisions = {str(count): revisions[count] for count in sorted(revisions)}
    return Overview(shown, total, hardest_first, agents, by_revisions)


def write_report(
    run: RunDir, manifest: Manifest, recipe: Recipe, kept: Iterable[Sample], dropped: Iterable[Sample]
) -> None:
    """Write `report.html`, which needs no network, and `report.json` with the same numbers.

    `dropped` holds the failed samples too, as `dropped/` does.
    """
    seen = overview(kept, dropped)
    routing = routing_of(run.student)
    numbers = {
        **report_numbers(manifest, seen),
        "evaluation": evaluation_of(run.student),
        "routing": routing and routing.model_dump(mode="json", exclude=HELD_BACK),
    }
    write_json(run.report_file.with_suffix(".json"), {**numbers, "recipe": recipe.model_dump(mode="json")})
    write_text(run.report_file, _page(run, manifest, recipe, numbers, seen, routing))


def evaluation_of(student: Path) -> dict[str, Any] | None:
    """What `stillhouse evaluate` found, without the answers; None where it was not called."""
    file = student / EVALUATION
    found: dict[str, Any] | None = read_json(file) if file.is_file() else None
    return found and {key: value for key, value in found.items() if key != "examples"}


HELD_BACK: dict[str, Any] = {"classifier": True, "curves": {"__all__": {"scores"}}}
"""Of a routing: what only `serve` needs."""


def routing_of(student: Path) -> "Routing | None":
    """What `stillhouse route` found; None where it was not called, or by a version that wrote it otherwise."""
    file = student / ROUTING
    if not file.is_file():
        return None
    from flows.cascade import read_routing

    try:
        return read_routing(file)
    except UsageError as error:
        logger.warning("the report leaves it out: %s", error)
        return None


def report_numbers(manifest: Manifest, seen: Overview) -> dict[str, Any]:
    """The manifest, with what can be counted only over the samples."""
    return {
        **manifest.model_dump(mode="json", exclude={"files"}),
        "conclusion": conclusion(manifest),
        "checks": [{**rate._asdict(), "share": rate.share} for rate in seen.checks],
        "agents": [{"agent": agent, **usage.model_dump()} for agent, usage in seen.agents.items()],
        "kept_by_revisions": seen.kept_by_revisions,
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
        parts.append(_collapse_words(manifest.collapse))
    if student := manifest.student:
        turned = "fell" if student.loss_after < student.loss_before else "did not fall"
        parts.append(f"the student’s held-out loss {turned}, {student.loss_before:.2f} to {student.loss_after:.2f}")
    return "; ".join(parts) + "."


STATE_WORDS = {
    RunState.running: "Still running",
    RunState.interrupted: "Interrupted",
    RunState.partial: "Less than was asked for",
    RunState.failed: "The run failed",
}


def _collapse_words(collapse: CollapseRecord) -> str:
    outside = [metric.name for metric in collapse.metrics if place_of(metric) != "inside"]
    of = len(collapse.metrics)
    if outside:
        told = ", ".join(outside[:3]) + (f" and {len(outside) - 3} more" if len(outside) > 3 else "")
        words = f"{of - len(outside)} of {of} metrics lie where real text does, not {told}"
    else:
        words = f"all {of} metrics lie where real text does"
    return f"collapse: {collapse.verdict or 'not judged'} ({words})"


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


def _page(
    run: RunDir,
    manifest: Manifest,
    recipe: Recipe,
    numbers: Mapping[str, Any],
    seen: Overview,
    routing: "Routing | None",
) -> str:
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    return (
        page_environment(autoescape=True)
        .get_template("report.html")
        .render(
            m=manifest,
            numbers=numbers,
            groups=reason_groups(manifest.reasons),
            collapse=shown_of(manifest.collapse, comparisons_before(run, recipe)) if manifest.collapse else None,
            plots=plots_of(manifest.similarities),
            curves=curves_of(run.student, manifest.student.loss_before) if manifest.student else [],
            cascade=routing and _cascade_of(routing),
            plot_width=WIDTH,
            plot_height=HEIGHT,
            bars_height=PLOT,
            checks=seen.checks,
            agents=seen.agents,
            paid=paid_items(manifest),
            samples=seen.shown,
            total=seen.total,
            states=counted([s.state for s in seen.shown]),
            reasons=counted([s.reason for s in seen.shown if s.reason]),
            recipe=recipe,
            recipe_text=json.dumps(recipe.model_dump(mode="json"), indent=2, ensure_ascii=False),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _cascade_of(routing: "Routing") -> "Cascade":
    from flows.routing_plot import cascade_of

    return cascade_of(routing)


def dataset_card(manifest: Manifest, recipe: Recipe, train: int, validation: int) -> str:
    """The README.md of the dataset, as the Hugging Face hub and `datasets` read it; `train` and `validation` count kept
    conversations, whatever forms they are written in.
    """
    card = page_environment(autoescape=False).get_template("dataset_card.md")
    checked = bool(recipe.verifiers) and recipe.topology.kind == "centralized"
    text = card.render(
        m=manifest,
        recipe=recipe,
        train=train,
        validation=validation,
        size=size_category(max([train + validation, *(form.train + form.validation for form in manifest.formats)])),
        columns={name: COLUMNS[name] for form in manifest.formats for name in form.columns},
        form_words=FORM_WORDS,
        configs=configs_of(manifest.formats),
        teachers=_teachers_at_work(manifest, recipe),
        checked=checked,
        verifiers=[(check.type, _clause(check.about)) for check in manifest.checks] if checked else [],
        filters=[(f.type, FILTER_WORDS[f.type], _options(f.model_dump())) for f in recipe.filters],
        metrics=manifest.collapse.metrics if manifest.collapse else [],
    )
    return text + "\n"


def configs_of(formats: Sequence[FormatRecord]) -> list[dict[str, Any]]:
    """Which files are which form, as `datasets` reads it from the card. It cannot load a split without rows, so that one
    is not named.
    """
    configs = []
    for place, form in enumerate(formats):
        folder = f"{form.name}/" if place else ""
        sides = {"train": form.train, "validation": form.validation}
        files = [{"split": side, "path": f"{folder}{side}.parquet"} for side, rows in sides.items() if rows]
        if files:
            configs.append({"config_name": form.name, **({} if place else {"default": True}), "data_files": files})
    return configs


JUDGING = ("centralized", "independent")
"""Topologies with a critic."""


def _teachers_at_work(manifest: Manifest, recipe: Recipe) -> dict[str, list[str]]:
    """The agents of each model that wrote or judged something."""
    agents = recipe.agents
    judged = agents.critic and agents.critic.type == "teacher" and recipe.topology.kind in JUDGING
    roles: dict[str, AgentConfig | None] = {
        "generator": agents.generator,
        "critic": agents.critic if judged else None,
    }
    if any(check.asks for check in manifest.checks):
        roles["verifier"] = agents.verifier
    found: dict[str, list[str]] = {}
    for role, agent in roles.items():
        if agent:
            found.setdefault(recipe.teachers[agent.teacher].model, []).append(role)
    return found


def _clause(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _options(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in table.items() if key != "type" and value is not None)


def size_category(rows: int) -> str:
    """The hub's name for a dataset of this many rows."""
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    place = sum(rows >= 10 ** (3 + i) for i in range(len(bounds)))
    if place == 0:
        return "n<1K"
    return f"{bounds[place - 1]}<n<{bounds[place]}" if place < len(bounds) else "n>1B"
