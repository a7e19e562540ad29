"""An improvement of a recipe: seeds are set apart, a search proposes prompts on the train seeds, and the best is compared
with the start on held-out seeds.
"""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import NamedTuple

from agents.calls.agent_context import LocalAgentContext, open_scratch_context
from agents.calls.budget import BudgetExhausted, read_journal
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from core.config.agents import CriticConfig
from core.config.recipe import recipe_digest
from core.errors import LimitReached, UsageError, suggest_name
from core.installation import format_install_command, list_missing_packages
from core.sample import Seed
from core.storage.atomic_files import read_record, write_text
from core.storage.file_locks import hold_lock
from flows.terminal.console import CommandSession
from plugins.improve.diversity import label_seeds
from plugins.improve.measurement import DraftMeter, count_tokens
from plugins.improve.prompt_parts import Example, PromptCandidate, describe_change, read_start
from plugins.improve.results import HeldOutComparison, Improvement, MeasuredSide, Proposal, SearchDeclaration
from plugins.improve.search_names import SearchName
from plugins.improve.searches import (
    CandidateScorer,
    Pools,
    ScoredCandidate,
    search_examples,
    search_randomly,
)

RESERVED_SEEDS = 500
"""After a run's last seed: those that evaluations of students ask."""
EXAMPLE_SHARE = 0.5
"""Seeds whose passing drafts become examples to choose from, of the number of train seeds. No candidate is scored on them."""
WEAK_PROVIDERS = ("local", "fake")
"""Of teachers that are not asked to reflect unless `--search gepa` names it."""
DECLARED, RESULT, SEARCH_FOLDER = "declared.json", "improve.json", "search"


class ImproveOptions(NamedTuple):
    search: SearchName | None
    teacher: str
    train: int
    held_out: int
    calls: int
    floor: bool


class ImproveSeeds(NamedTuple):
    examples: list[Seed]
    train: list[Seed]
    held_out: list[Seed]


class ImproveTask(NamedTuple):
    plan: RunPlan
    folder: Path
    start: PromptCandidate
    seeds: ImproveSeeds
    declared: SearchDeclaration

    @property
    def search_folder(self) -> Path:
        return self.folder / SEARCH_FOLDER


def prepare_improvement(plan: RunPlan, options: ImproveOptions, folder: Path) -> ImproveTask:
    """Asks nothing and writes nothing.

    Raises:
        UsageError: if no check can score a draft, the recipe has too few seeds, or no teacher of this name.
    """
    name, teachers = plan.recipe.name, plan.recipe.teachers
    if options.teacher not in teachers:
        advice = suggest_name(options.teacher, teachers, "the recipe has")
        raise UsageError(f"--teacher {options.teacher}: {name} has no teacher of this name; {advice}")
    if not plan.checks:
        raise UsageError(
            f'{name}: has no check, so no draft can be scored; add a table [[verifiers]], as type = "judge" with a rubric'
        )
    start = read_start(plan)
    weak = teachers[options.teacher].model.partition("/")[0] in WEAK_PROVIDERS
    search = options.search or ("examples" if weak else "gepa")
    if search == "gepa" and list_missing_packages("improve"):
        raise UsageError(
            f"the search gepa needs the package gepa; {format_install_command('improve')} installs it, or take --search examples"
        )
    examples = 0 if search == "gepa" else round(EXAMPLE_SHARE * options.train)
    declared = SearchDeclaration(
        recipe=name, digest=recipe_digest(plan.recipe, plan.sources), search=search, teacher=options.teacher,
        floor=options.floor, examples=examples, train=options.train, held_out=options.held_out, calls=options.calls,
    )  # fmt: skip
    if declared.fewest_calls > options.calls:
        raise UsageError(
            f"--calls {options.calls}: start and one candidate need {declared.fewest_calls} drafts; give more, or lower --train"
        )
    return ImproveTask(plan, folder, start, _draw_seeds(plan, declared), declared)


def _draw_seeds(plan: RunPlan, declared: SearchDeclaration) -> ImproveSeeds:
    """Of one pass over the rows, so that no row is both train and held-out; after all seeds of a run and of evaluations.

    Raises:
        UsageError: if the recipe has fewer rows.
    """
    needed = declared.examples + declared.train + declared.held_out
    longer = plan.with_recipe(samples=1, answers_per_seed=1)
    rows = len(RunSeeds(longer, "improve0").rows)
    if rows < needed:
        raise UsageError(
            f"{plan.recipe.name}: has {rows} seeds, and {needed} are needed: {declared.train} to train, {declared.examples} for "
            f"examples and {declared.held_out} held out; give it more seeds, or lower --train and --held-out (20 or more)"
        )
    used = plan.first_seed + -(-plan.recipe.samples // plan.recipe.answers_per_seed) + RESERVED_SEEDS
    first = -(-used // rows) * rows - plan.first_seed
    seeds = RunSeeds(plan.with_recipe(samples=first + rows, answers_per_seed=1), "improve0").without_choice()
    found = seeds[first : first + needed]
    examples, train = declared.examples, declared.examples + declared.train
    return ImproveSeeds(found[:examples], found[examples:train], found[train:])


def run_improvement(task: ImproveTask, session: CommandSession) -> Improvement:
    """Measure what is not measured yet, and write `improve.json`.

    Raises:
        UsageError: if the folder has another search.
        LimitReached: if the recipe's budget ended; the result so far is written.
        RunStopped, StillhouseError: with all drafts so far stored.
    """
    with ExitStack() as stack:
        stack.enter_context(hold_lock(task.folder / "lock", f"{task.folder}: another process works there"))
        _declare(task)
        return asyncio.run(_Improver(task, session).run())


def _declare(task: ImproveTask) -> None:
    """Write the declaration, or compare with the one that is there; only `calls` may differ."""
    file = task.folder / DECLARED
    if file.is_file():
        before = read_record(file, SearchDeclaration).model_copy(update={"calls": task.declared.calls})
        if before != task.declared:
            raise UsageError(
                f"{task.folder}: has another search ({before.describe()}); name another folder with --out, or delete this one"
            )
    task.search_folder.mkdir(parents=True, exist_ok=True)
    write_text(file, task.declared.model_dump_json(indent=2) + "\n")


class _Improver:
    """The steps of one improvement, and its result so far."""

    def __init__(self, task: ImproveTask, session: CommandSession) -> None:
        self._task = task
        self._session = session
        self._found = Improvement(declared=task.declared)
        self._proposals: dict[tuple[str, str], Proposal] = {}

    async def run(self) -> Improvement:
        task = self._task
        journal = task.search_folder / "spend.jsonl"
        try:
            async with open_scratch_context(
                self._with_reflecting_teacher(), self._session.stop, task.search_folder,
                budget=task.plan.recipe.budget, journal=journal,
            ) as context:  # fmt: skip
                meter = DraftMeter(context, task.plan, task.search_folder, self._show)
                await self._search(context, meter)
                self._found = self._found.model_copy(update={"complete": True})
        except BudgetExhausted as error:
            what = "what was measured is kept: the same command with a higher budget resumes"
            raise LimitReached(f"{error}; {what}") from None
        finally:
            if self._found.start:
                self._write(journal)
        return self._found

    def _with_reflecting_teacher(self) -> RunPlan:
        """The plan whose context has the reflecting teacher too, in the place of the critic, which no draft needs."""
        task = self._task
        agents = task.plan.recipe.agents
        critic = CriticConfig(teacher=task.declared.teacher) if task.declared.search == "gepa" else None
        return task.plan.with_recipe(agents=agents.model_copy(update={"critic": critic}), difficulty=None)

    def _show(self, asked: int) -> None:
        self._session.show_progress(lambda: f"improve: {asked:,} drafts in this session")

    async def _search(self, context: LocalAgentContext, meter: DraftMeter) -> None:
        task, declared = self._task, self._task.declared
        labels = label_seeds([seed.data for seed in task.seeds.train])
        calls = declared.calls - declared.examples
        scorer = CandidateScorer(meter, task.seeds.train, labels, calls, floor=declared.floor)
        pools = await self._collect_examples(meter)
        try:
            await scorer.score(task.start)
            await self._run_search(context, scorer, pools)
        finally:
            self._record_search(scorer)
        winner = scorer.best
        if winner.candidate.digest != task.start.digest:
            await self._compare(meter, winner)

    async def _collect_examples(self, meter: DraftMeter) -> Pools:
        """By role: the examples of the prompt, then passing drafts of the example seeds."""
        task = self._task
        earned: dict[str, list[Example]] = {role: [] for role in task.start.prompts}
        drafts = await meter.measure(task.start, task.seeds.examples or task.seeds.train)
        if not sum(count_tokens(drafts)):
            raise UsageError(
                f"{task.plan.recipe.generator_teacher.model}: reports 0 tokens (usage) of {len(drafts)} drafts, so there is no "
                "rate of rows per token; take a teacher that reports them"
            )
        for seed, draft in zip(task.seeds.examples, drafts, strict=False):
            example, role = Example(asked=draft.asked, reply=draft.reply), task.plan.family.prompt_role(seed)
            if draft.passed and role in earned and example.usable:
                earned[role].append(example)
        return {role: (*parts.examples, *earned[role]) for role, parts in task.start.prompts.items()}

    async def _run_search(self, context: LocalAgentContext, scorer: CandidateScorer, pools: Pools) -> None:
        declared = self._task.declared
        rng = Random(f"{self._task.plan.recipe.seed}/improve")
        if declared.search == "gepa":
            from plugins.improve.gepa_search import search_by_reflection

            await search_by_reflection(scorer, context, declared, self._proposals)
        else:
            await (search_randomly if declared.search == "random" else search_examples)(scorer, pools, rng)

    def _record_search(self, scorer: CandidateScorer) -> None:
        start = scorer.scored.get(self._task.start.digest)
        if start is None:
            return
        winner = scorer.best
        update = {
            "calls": self._task.declared.examples + scorer.used, "candidates": len(scorer.scored),
            "refused": sum(one.refused is not None for one in scorer.scored.values()),
            "start": MeasuredSide.from_scored(start, len(scorer.seeds)),
            "winner": MeasuredSide.from_scored(winner, len(scorer.seeds)),
            "changes": tuple(describe_change(self._task.start, winner.candidate)),
        }  # fmt: skip
        self._found = self._found.model_copy(update=update)

    async def _compare(self, meter: DraftMeter, winner: ScoredCandidate) -> None:
        """Start and winner on the held-out seeds; an accepted winner becomes a recipe."""
        task, seeds = self._task, self._task.seeds.held_out
        labels = label_seeds([seed.data for seed in seeds])
        start = await meter.measure(task.start, seeds)
        better = await meter.measure(winner.candidate, seeds)
        number = [one for one in meter.list_candidates(seeds) if one != task.start.digest].index(
            winner.candidate.digest
        ) + 1
        compared = HeldOutComparison.from_drafts(start, better, labels, floor=task.declared.floor, number=number)
        self._found = self._found.model_copy(update={"held_out": compared, "candidate": winner.candidate})

    def _write(self, journal: Path) -> None:
        update = {"spent": read_journal(journal).spent, "proposals": tuple(self._proposals.values())}
        self._found = self._found.model_copy(update=update)
        write_text(self._task.folder / RESULT, self._found.model_dump_json(indent=2) + "\n")
