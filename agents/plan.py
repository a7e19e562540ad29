"""The plan of a run: a recipe with all that it names found and checked: family, options, checks, prompts, files.

Knows no teacher that runs, and no topology.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import prompts
from agents.checks.base import Options
from agents.checks.judge import JudgeOptions, read_labelled
from agents.checks.registry import Bound, bind
from agents.documents import Reading, documents_hash, documents_problem, read_documents
from agents.draws import Choices, choices_of
from agents.families import FAMILIES
from agents.families.base import Family
from agents.teachers import teacher_problems
from core.errors import Problem, RecipeError, UsageError, advice_on
from core.loading import table_problems
from core.recipe import Recipe, SeedsConfig, find_file


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    """With every default of its family and checks."""
    folder: Path
    """Where its relative paths start from."""
    family: Family
    options: Options
    """The `[task]` table."""
    checks: tuple[Bound, ...]
    draws: Mapping[str, Choices]
    """What each sample is conditioned on beside its seed."""
    first: int = 0
    """Seeds that earlier releases of the recipe have used up: its own come behind them, and its randomness too."""

    @cached_property
    def own_prompts(self) -> Path | None:
        return find_file(self.recipe.prompts, self.folder) if self.recipe.prompts else None

    def prompt(self, role: str) -> prompts.Prompt:
        """Raises UsageError where there is none."""
        return prompts.load(self.recipe.family, role, self.own_prompts)

    @property
    def check_calls(self) -> int:
        """The most questions that the checks put to a teacher about one candidate."""
        return sum(bound.check.calls(bound.options) for bound in self.checks)

    @property
    def files(self) -> list[str]:
        """The files that its checks read, as the recipe names them."""
        return [name for bound in self.checks for name in bound.files]

    @property
    def code(self) -> dict[str, Path]:
        """The files that define its checks of installed packages, by check."""
        return {bound.check.name: bound.code for bound in self.checks if bound.code}

    @property
    def teachers(self) -> set[str]:
        """The names of the teachers that some agent asks."""
        agents = self.recipe.agents
        used = {agents.generator.teacher}
        used |= {agents.critic.teacher} if agents.critic and agents.critic.type == "teacher" else set()
        return used | ({agents.verifier.teacher} if self.check_calls else set())

    @property
    def roles(self) -> list[str]:
        """The prompts that its agents ask with."""
        critic = self.recipe.agents.critic
        judged = ["critic"] if critic and critic.type == "teacher" else []
        debated = ["debate"] if self.recipe.topology.kind == "decentralized" else []
        return [
            *self.family.writes,
            "revise",
            "repair",
            *judged,
            *debated,
            *(role for b in self.checks for role in b.check.roles),
        ]

    def longest_way(self) -> int:
        """Calls that a sample can take at the most: every reply repaired, every revision made, nothing ever passing."""
        agents, topology = self.recipe.agents, self.recipe.topology
        if topology.kind == "decentralized":
            return topology.debaters * (1 + topology.rounds)
        calls = 1 + agents.generator.max_repairs
        if agents.critic and agents.critic.type == "teacher":
            calls += 1 + agents.critic.max_repairs
        calls += self.check_calls * (1 + agents.verifier.max_repairs)
        return calls * (1 + topology.max_revisions)


def plan_of(recipe: Recipe, folder: Path) -> Plan:
    """Find and check all that a recipe names.

    Raises:
        RecipeError: with every problem that can be told without asking a teacher.
    """
    family = FAMILIES.get(recipe.family)
    if family is None:
        what = f"unknown family {recipe.family!r}; {advice_on(recipe.family, FAMILIES)}"
        raise RecipeError(recipe.name, [Problem("family", what)])
    options, problems = table_problems(family.options, recipe.task, "task")
    bound, wrong = bind(recipe.verifiers, family.checks, folder)
    draws, undrawn = choices_of(recipe.seeds.draw, folder)
    problems = [*problems, *wrong, *undrawn, *teacher_problems(recipe)]
    if options is None or problems:
        raise RecipeError(recipe.name, problems)
    resolved = recipe.model_copy(
        update={"task": options.model_dump(mode="json"), "verifiers": tuple(one.asked for one in bound)}
    )
    plan = Plan(resolved, folder, family, options, tuple(bound), draws)
    if problems := [problem for find in LOOKS for problem in find(plan)]:
        raise RecipeError(recipe.name, problems)
    return plan


def plan_problems(recipe: Recipe, folder: Path) -> list[Problem]:
    """What keeps a recipe from being a plan."""
    try:
        plan_of(recipe, folder)
    except RecipeError as error:
        return error.problems
    return []


def documents_of(seeds: SeedsConfig, folder: Path) -> Reading:
    """The documents of a recipe in `folder`, read once as long as they stay the same. Raises UsageError."""
    place = find_file(seeds.documents or "", folder)
    return _read(place, seeds.chunk_words, documents_hash(place))


@lru_cache(maxsize=2)
def _read(place: Path, words: int, _hash: str) -> Reading:
    return read_documents(place, words=words)


def _seeds(plan: Plan) -> Iterator[Problem]:
    seeds, ways = plan.recipe.seeds, plan.family.seeded_by
    given = [way for way in ("path", "documents") if getattr(seeds, way) is not None]
    wanted = " or ".join(f"seeds.{way}" for way in ways if way != "itself")
    if len(given) > 1:
        yield Problem("seeds", "has both `path` and `documents`; leave one out")
    elif given and given[0] not in ways:
        yield Problem(f"seeds.{given[0]}", f"{plan.family.name} does not take it; it needs {wanted or 'neither'}")
    elif not given and "itself" not in ways:
        yield Problem("seeds", f"{plan.family.name} needs {wanted}")
    elif given == ["documents"]:
        yield from _documents(plan)
    if seeds.bootstrap and plan.recipe.quotas:
        yield Problem(
            "seeds.bootstrap", "cannot go with quotas: which category a sample has would depend on what was kept"
        )


def _documents(plan: Plan) -> Iterator[Problem]:
    if what := documents_problem():
        yield Problem("seeds.documents", what)
        return
    try:
        documents_of(plan.recipe.seeds, plan.folder)
    except UsageError as error:
        yield Problem("seeds.documents", str(error))


def _prompts(plan: Plan) -> Iterator[Problem]:
    if plan.own_prompts and not plan.own_prompts.is_dir():
        yield Problem("prompts", f"{plan.own_prompts}: is not a folder")
        return
    for role in plan.roles:
        try:
            plan.prompt(role)
        except UsageError as error:
            yield Problem("prompts" if plan.own_prompts else "family", str(error))
    known = {*plan.roles, "critic", "verifier", "debate", *plan.family.writes}
    for file in sorted(plan.own_prompts.glob("*.md")) if plan.own_prompts else ():
        if file.stem not in known and file.stem != "README":
            yield Problem("prompts", f"{file}: no agent asks with it; there may be {', '.join(sorted(known))}")


def _labels(plan: Plan) -> Iterator[Problem]:
    for i, bound in enumerate(plan.checks):
        if isinstance(bound.options, JudgeOptions) and bound.options.calibration:
            try:
                read_labelled(Path(bound.options.calibration))
            except UsageError as error:
                yield Problem(f"verifiers.{i}.calibration", str(error))


def _prices(plan: Plan) -> Iterator[Problem]:
    teachers = plan.recipe.teachers
    if plan.recipe.budget.cost is None:
        return
    for name in sorted(plan.teachers & teachers.keys()):
        if teachers[name].prices() is None:
            what = "its price is unknown, so budget.cost cannot hold; set input_price and output_price"
            yield Problem(f"teachers.{name}", what)


LOOKS: tuple[Callable[[Plan], Iterator[Problem]], ...] = (_seeds, _prompts, _prices, _labels)
