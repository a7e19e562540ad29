"""The general panel: tasks that a recipe does not train, asked of a model before and after training, to see what is forgotten.

Knows no student: any model is asked, as in a held-out evaluation.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice, zip_longest
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Literal, NamedTuple

from agents.checks import Options
from agents.checks.registry import BoundCheck
from agents.checks.text.text_units import split_words
from agents.families.constrained_instructions import ConstrainedOptions
from agents.families.constraints import ConstraintTopic
from agents.planning.run_plan import RunPlan
from agents.studies.held_out_evaluation import HeldOutResult, evaluate_held_out
from agents.studies.panel_tasks import CONSTRAINTS, FORM_KINDS, OPEN, REASONING, PanelFamily, panel_check
from core.config.agents import GeneratorConfig, VerifierConfig
from core.config.recipe import BudgetConfig
from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.project_files import SHIPPED
from core.sample import NOTHING_SPENT, Seed, Spending
from core.stop_signal import UserStop

PanelPart = Literal["test", "validation"]
"""Of `validation`, settings of a student may be chosen; no task, topic or question of it is in `test`."""
PANEL_FOLDER = SHIPPED / "data" / "panel"
PANEL_SEED = 20
GROUP_ORDER = (CONSTRAINTS, REASONING, CONSTRAINTS, REASONING, REASONING, CONSTRAINTS, REASONING, REASONING)
"""The groups of judged tasks in turn. Answers to questions cost a fifth of the tokens of a text."""
MAX_TOKENS = {REASONING: 20, OPEN: 112}
"""Tokens of an answer; `FormKind.tokens` for texts. An answer that is cut off there is judged as it is. Of 320 answers of the
embedded model, none to a question of another kind than `products` had its first possible answer behind 16 tokens."""
OPEN_QUESTIONS = 24
"""Open questions of a panel, fewer for fewer tasks than `TASKS_PER_OPEN_QUESTION` times as many."""
TASKS_PER_OPEN_QUESTION = 8


class GeneralPanel(NamedTuple):
    """The tasks of a panel, as seeds of a plan: judged ones first, then open questions."""

    plan: RunPlan
    seeds: list[Seed]

    @property
    def judged(self) -> list[Seed]:
        return [seed for seed in self.seeds if seed.data["group"] != OPEN]


class PanelResults(NamedTuple):
    """A model's answers, in the order of the panel's seeds."""

    panel: GeneralPanel
    results: list[HeldOutResult]

    @property
    def judged(self) -> list[HeldOutResult]:
        return self.results[: len(self.panel.judged)]

    @property
    def open(self) -> list[HeldOutResult]:
        return self.results[len(self.panel.judged) :]

    @property
    def passed(self) -> int:
        return sum(result.fault is None for result in self.judged)

    @property
    def passed_by_group(self) -> dict[str, int]:
        pairs = list(zip(self.panel.judged, self.judged, strict=True))
        return {
            group: sum(result.fault is None for seed, result in pairs if seed.data["group"] == group)
            for group in (CONSTRAINTS, REASONING)
        }

    @property
    def words(self) -> float:
        """Median words of the answers to the open questions."""
        return float(median(len(split_words(result.answer)) for result in self.open))


def build_general_panel(plan: RunPlan, tasks: int, part: PanelPart = "test") -> GeneralPanel:
    """The first `tasks` judged tasks of a part, by `GROUP_ORDER` and in turn of all kinds, and up to `OPEN_QUESTIONS` open
    ones. A larger panel begins with the tasks of a smaller one.

    Raises:
        UsageError: if there are fewer tasks, or the recipe's seeds cannot be read.
    """
    used = _list_used_texts(plan)
    left = {CONSTRAINTS: _list_forms(plan, part, used), REASONING: _list_questions(plan, part, used)}
    judged: list[Mapping[str, Any]] = []
    for place in range(tasks):  # once a group has no more tasks, all are of the other
        first = GROUP_ORDER[place % len(GROUP_ORDER)]
        task = next(left[first], None) or next(left[REASONING if first == CONSTRAINTS else CONSTRAINTS], None)
        judged += [task] if task else []
    if len(judged) < tasks:
        raise UsageError(
            f"{plan.recipe.name}: the general panel has {len(judged)} tasks that the recipe does not train, not {tasks}"
        )
    most = min(OPEN_QUESTIONS, -(-tasks // TASKS_PER_OPEN_QUESTION))
    asked = (row for row in _read_rows("open.jsonl", part) if row["question"].casefold() not in used)
    rows = [*judged, *({"group": OPEN, **row} for row in islice(asked, most))]
    seeds = [Seed(id=f"{part[:5]:0<5}000-{index:06d}", data=row) for index, row in enumerate(rows)]
    return GeneralPanel(_build_panel_plan(plan), seeds)


def find_token_limit(seed: Seed) -> int:
    """The tokens at which an answer to a task is cut off."""
    group = seed.data["group"]
    return FORM_KINDS[seed.data["kind"]].tokens if group == CONSTRAINTS else MAX_TOKENS[group]


def check_panel_tasks(plan: RunPlan) -> None:
    """Raises UsageError if the recipe asks for a panel with more tasks than there are."""
    student = plan.recipe.student
    if student and student.evaluation and student.evaluation.panel:
        build_general_panel(plan, student.evaluation.panel)


async def ask_general_panel(
    panel: GeneralPanel, model: TeacherConfig, stop: UserStop, on_progress: Callable[[int], None], *,
    cache: Path | None = None, budget: BudgetConfig | None = None, journal: Path | None = None,
    elsewhere: Spending = NOTHING_SPENT, on_spent: Callable[[Spending], None] = lambda _spent: None,
) -> PanelResults:  # fmt: skip
    """Ask `model` each task once. Arguments and errors as of `evaluate_held_out`."""
    results = await evaluate_held_out(
        panel.plan, model, panel.seeds, stop, on_progress, cache=cache, budget=budget, journal=journal,
        elsewhere=elsewhere, on_spent=on_spent, cut_at=find_token_limit,
    )  # fmt: skip
    return PanelResults(panel, results)


def _build_panel_plan(plan: RunPlan) -> RunPlan:
    """The recipe's teachers with the panel's family, check and sampling: the most likely token, so that only a change of the
    weights changes an answer.
    """
    generator = GeneratorConfig(temperature=0, reasoning=plan.recipe.agents.generator.reasoning)
    agents = plan.recipe.agents.model_copy(update={"generator": generator, "critic": None})
    checks = (BoundCheck(panel_check, Options(), VerifierConfig(type=panel_check.name)),)
    own = replace(plan, family=PanelFamily(), options=Options(), checks=checks, draws={}, first_seed=0)
    return own.with_recipe(seed=PANEL_SEED, agents=agents, tools=(), difficulty=None)


def _list_used_texts(plan: RunPlan) -> set[str]:
    """The texts of the recipe's own seeds, such as topics and questions."""
    if plan.recipe.seeds.documents is not None or plan.recipe.seeds.source is not None:
        return set()
    rows = plan.seed_rows.rows
    return {value.casefold() for row in rows for value in row.values() if isinstance(value, str)}


def _list_trained_kinds(plan: RunPlan) -> set[str]:
    """Kinds of constraint and of question that the recipe trains."""
    options = plan.options
    if isinstance(options, ConstrainedOptions):
        return {name for name, weight in options.kinds.items() if weight > 0}
    return set(plan.family.list_trained_questions(options, lambda: plan.seed_rows.rows))


def _list_forms(plan: RunPlan, part: PanelPart, used: set[str]) -> Iterator[Mapping[str, Any]]:
    """Each form with each topic of the part: all forms in turn, with another topic each time."""
    trained = _list_trained_kinds(plan)
    kinds = [name for name, kind in FORM_KINDS.items() if not kind.trained_by & trained]
    topics = [
        ConstraintTopic(row["topic"], tuple(row["words"]))
        for row in _read_rows("topics.jsonl", part)
        if row["topic"].casefold() not in used
    ]
    Random(PANEL_SEED).shuffle(kinds)
    for turn in range(len(topics)):
        for place, name in enumerate(kinds):
            topic, other = topics[(turn + place) % len(topics)], topics[(turn + place + 1) % len(topics)]
            kind, rng = FORM_KINDS[name], Random(f"{name}/{topic.name}")
            params = {"other": other.name, **kind.draw(rng, topic)}
            question = kind.wordings[turn % len(kind.wordings)].format(topic=topic.name, **params)
            yield {"group": CONSTRAINTS, "kind": name, "topic": topic.name, "params": params, "question": question}


def _list_questions(plan: RunPlan, part: PanelPart, used: set[str]) -> Iterator[Mapping[str, Any]]:
    """All kinds of question in turn."""
    trained, by_kind = _list_trained_kinds(plan), dict[str, list[dict[str, Any]]]()
    answers: dict[str, list[str]] = {}
    for row in _read_rows("questions.jsonl"):
        answers.setdefault(row["kind"], []).extend(row["answers"])
        if row["part"] == part and row["kind"] not in trained and row["question"].casefold() not in used:
            by_kind.setdefault(row["kind"], []).append(row)
    for turn in zip_longest(*by_kind.values()):
        for row in filter(None, turn):
            options = row.get("options") or sorted(set(answers[row["kind"]]))
            yield {"group": REASONING, **row, "options": options}


@cache
def _read_rows(name: str, part: PanelPart | None = None) -> Sequence[dict[str, Any]]:
    rows = [json.loads(line) for line in (PANEL_FOLDER / name).read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if part is None or row["part"] == part]
