"""The plan of a run: a recipe with its family, options, checks, prompts and files found and validated.

Knows no running teacher and no topology.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import prompts
from agents.checks.base import AttemptJudge, Options
from agents.checks.judge import JudgeOptions, read_labelled_answers
from agents.checks.registry import BoundCheck, bind_checks, list_checks
from agents.families import find_family_extension, find_recipe_family
from agents.families.base import RecipeFamily
from agents.planning.rubrics import find_rubrics
from agents.sources.conditions import ConditionChoices, load_conditions
from agents.sources.documents import DocumentReading, documents_problem, hash_documents, read_documents
from agents.sources.seed_source import SeedSource, find_seed_source, find_source_extension
from core.config.agents import DEBATE_ROUNDS, DEBATERS, AgentConfig
from core.config.base import list_marked
from core.config.filters import list_filter_extensions
from core.config.loading import validate_table
from core.config.recipe import Recipe, SeedsConfig
from core.config.teacher_prices import PriceRecord, apply_prices, find_teacher_prices, keep_recorded_prices
from core.errors import RecipeError, RecipeProblem, UsageError
from core.extensions import Extension, find_registered
from core.plugins import UnusablePlugin
from core.project_files import find_referenced_file
from teachers.local_weights import takes_images
from teachers.providers import find_teacher_problems, list_protocol_extensions

NO_PROBABILITIES = (
    'returns no token probabilities, which a critic of type "confidence" needs; set agents.critic to false, or to a model that '
    "can judge"
)

PROMOTED_TEACHER = "promoted"
"""The name of a promoted student among the teachers of a run."""

LEAST_PROMPT_TOKENS = 512
"""Shorter than the prompts of most families."""


@dataclass(frozen=True)
class RunPlan:
    """A validated recipe. Built once per command and handed on."""

    recipe: Recipe
    """With every default of its family and checks."""
    folder: Path
    """The folder from which its relative paths start."""
    family: RecipeFamily
    options: Options
    """The `[task]` table."""
    checks: tuple[BoundCheck, ...]
    draws: Mapping[str, ConditionChoices]
    """The conditions that are drawn for each sample in addition to its seed, by name."""
    prices: Mapping[str, PriceRecord] = field(default_factory=dict)
    """The prices of its teachers, by name, and where they are from. Free teachers and unknown prices are left out."""
    first_seed: int = 0
    """Number of seeds that earlier releases of the recipe used. The run's seeds and random numbers start after them."""

    @cached_property
    def seed_source(self) -> SeedSource | None:
        """The source of a plugin that its seeds come from; None for other seeds."""
        return find_seed_source(self.recipe, self.folder)

    @property
    def shows_images(self) -> bool:
        """Whether the teachers that write and judge are shown images of a seed."""
        return self.seed_source is not None and self.seed_source.shows_images

    @property
    def own_process_reason(self) -> str | None:
        """Why other processes cannot make samples of this plan."""
        return self.family.own_process_reason or find_registered(self.extensions, "making samples elsewhere")

    @cached_property
    def own_prompts(self) -> Path | None:
        return find_referenced_file(self.recipe.prompts, self.folder) if self.recipe.prompts else None

    def prompt(self, role: str) -> prompts.Prompt:
        """The prompt of a role. Raises UsageError if there is none."""
        return prompts.load_prompt(self.recipe.family, role, self.own_prompts, self.family.prompts)

    @cached_property
    def rubrics(self) -> tuple[str, ...]:
        """The rubrics that the critic's prompt scores. Raises UsageError if it names none."""
        return find_rubrics(self.prompt("critic"))

    @property
    def check_calls(self) -> int:
        """The most teacher calls of the checks for one candidate, without repairs."""
        return sum(bound.check.calls(bound.options) for bound in self.checks)

    @property
    def attempt_check(self) -> BoundCheck | None:
        """The first of its checks that can judge an attempt at a candidate's question."""
        return next((bound for bound in self.checks if _find_judge(bound)), None)

    @property
    def attempt_judge(self) -> AttemptJudge | None:
        """How `attempt_check` judges, if the recipe measures difficulty."""
        return _find_judge(self.attempt_check) if self.recipe.difficulty and self.attempt_check else None

    @property
    def free_checks(self) -> tuple[BoundCheck, ...]:
        """The checks that call no teacher."""
        return tuple(bound for bound in self.checks if not bound.check.calls(bound.options))

    @property
    def asking_checks(self) -> tuple[BoundCheck, ...]:
        """The checks that call a teacher."""
        return tuple(bound for bound in self.checks if bound.check.calls(bound.options))

    @property
    def check_files(self) -> list[str]:
        """The files that its checks read, as the recipe names them."""
        return [name for bound in self.checks for name in bound.files]

    @property
    def named_files(self) -> list[str]:
        """The files that keys of such a type name, as the recipe has them: checks, those of plugins' tables, and files in
        commands by relative paths.
        """
        named = [name for _, name in list_marked(self.recipe, "file", "program")]
        words = [word for _, command in list_marked(self.recipe, "command") for word in command]
        return [*named, *(word for word in words if not Path(word).is_absolute() and _is_file(self.folder / word))]

    @property
    def extensions(self) -> list[Extension[Any]]:
        """What it uses of installed packages and of this program."""
        recipe = self.recipe
        checks = {bound.check.name: bound.extension for bound in self.checks}
        found = [
            find_family_extension(recipe.family),
            *checks.values(),
            *list_filter_extensions(recipe.filters),
            find_source_extension(recipe),
            *list_protocol_extensions(recipe),
            *(recipe.student.loss_extensions if recipe.student else ()),
            *(recipe.student.step_extensions if recipe.student else ()),
        ]
        return [extension for extension in found if extension]

    @property
    def agents(self) -> dict[str, AgentConfig]:
        """The agents that call a teacher, by name."""
        agents = self.recipe.agents
        critic = {"critic": agents.critic} if agents.critic and agents.critic.type == "teacher" else {}
        verifier = {"verifier": agents.verifier} if self.check_calls else {}
        solver = {"solver": self.solver} if self.solver else {}
        generator = {"generator": agents.generator} if self.asks_generator else {}
        return {**generator, **critic, **verifier, **solver}

    @property
    def asks_generator(self) -> bool:
        """Whether a teacher writes the drafts; otherwise the family draws them from the seeds that it generates."""
        return asks_generator(self.family, self.recipe.seeds)

    @property
    def solver(self) -> AgentConfig | None:
        """The agent whose attempts measure difficulty; None if the recipe measures none."""
        difficulty = self.recipe.difficulty
        return difficulty.build_agent(self.recipe.agents.generator) if difficulty else None

    @property
    def teachers(self) -> set[str]:
        """The names of the teachers that the agents use."""
        return {agent.teacher for agent in self.agents.values()}

    @property
    def seeing_teachers(self) -> set[str]:
        """The names of the teachers that are shown images."""
        if self.shows_images:
            return self.teachers
        return {self.solver.teacher} if self.family.has_images and self.solver else set()

    @property
    def roles(self) -> list[str]:
        """The roles whose prompts its agents use."""
        critic = self.recipe.agents.critic
        judged = ["critic"] if critic and critic.type == "teacher" else []
        debated = ["debate"] if self.recipe.topology.kind == "decentralized" else []
        return [
            *self.family.writes,
            *self.family.revises,
            "repair",
            *judged,
            *debated,
            *(role for b in self.checks for role in b.check.roles),
            *([self.attempt_judge.role] if self.attempt_judge else []),
        ]

    def with_recipe(self, **changes: Any) -> "RunPlan":
        """The plan with other values of some keys of its recipe, which are not validated again."""
        return replace(self, recipe=self.recipe.model_copy(update=changes))

    def with_recorded_prices(self, recorded: Mapping[str, PriceRecord]) -> "RunPlan":
        """The plan with the prices that its run recorded."""
        prices = keep_recorded_prices(self.prices, recorded)
        return replace(self.with_recipe(teachers=apply_prices(self.recipe.teachers, prices)), prices=prices)

    def with_generator(self, teacher: str) -> "RunPlan":
        """The plan with another teacher as its generator, without a critic, and without a measurement of difficulty."""
        agents = self.recipe.agents
        generator = agents.generator.model_copy(update={"teacher": teacher})
        agents = agents.model_copy(update={"generator": generator, "critic": None})
        return self.with_recipe(agents=agents, difficulty=None)

    def max_calls_per_sample(self) -> int:
        """The most calls of one sample: with every repair and every revision."""
        agents, topology = self.recipe.agents, self.recipe.topology
        if topology.kind == "decentralized":
            return DEBATERS * (1 + DEBATE_ROUNDS)
        replies = self.family.draft_calls(self.options) * (1 + agents.generator.max_repairs)
        calls = replies if self.asks_generator else 0
        if agents.critic and agents.critic.type == "teacher":
            calls += 1 + agents.critic.max_repairs
        calls += self.check_calls * (1 + agents.verifier.max_repairs)
        return calls * (1 + topology.max_revisions) + self.max_attempt_calls

    @property
    def max_attempt_calls(self) -> int:
        """The most calls of a solver for one sample, with every repair."""
        difficulty = self.recipe.difficulty
        if not difficulty or self.recipe.topology.kind != "centralized":
            return 0
        return difficulty.attempts * (1 + difficulty.max_repairs)


def build_plan(recipe: Recipe, folder: Path) -> RunPlan:
    """Find and validate everything that a recipe names.

    Raises:
        RecipeError: with every problem that can be found without asking a teacher.
    """
    try:
        family = find_recipe_family(recipe)
    except UnusablePlugin as error:
        raise RecipeError(recipe.name, [RecipeProblem("family", str(error))]) from None
    try:
        find_source_extension(recipe)
    except UnusablePlugin as error:
        raise RecipeError(recipe.name, [RecipeProblem("seeds.source", str(error))]) from None
    teachers = {name: teacher.in_folder(folder) for name, teacher in recipe.teachers.items()}
    recipe = recipe.model_copy(update={"teachers": teachers})
    options, problems = validate_table(family.options, recipe.task, "task")
    checks, check_problems = bind_checks(recipe.verifiers, family.checks, folder)
    draws, draw_problems = load_conditions(recipe.seeds.draw, folder)
    problems = [*problems, *check_problems, *draw_problems]
    # A recipe whose drafts and checks need no teacher runs where none is installed.
    if (
        asks_generator(family, recipe.seeds)
        or recipe.agents.critic
        or any(one.check.calls(one.options) for one in checks)
    ):
        problems += find_teacher_problems(recipe)
    prices: dict[str, PriceRecord] = {}
    try:
        prices = find_teacher_prices(recipe.teachers, folder)
    except UsageError as error:
        problems.append(RecipeProblem("teachers", str(error)))
    if options is None or problems:
        raise RecipeError(recipe.name, problems)
    resolved = recipe.model_copy(
        update={
            "task": options.model_dump(mode="json"),
            "verifiers": tuple(bound.config for bound in checks),
            "teachers": apply_prices(recipe.teachers, prices),
        }
    )
    plan = RunPlan(resolved, folder, family, options, tuple(checks), draws, prices)
    if problems := [problem for find in PLAN_CHECKS for problem in find(plan)]:
        raise RecipeError(recipe.name, problems)
    return plan


def asks_generator(family: RecipeFamily, seeds: SeedsConfig) -> bool:
    """Whether a teacher writes the drafts of a family with these seeds."""
    return not family.draws_drafts or any((seeds.path, seeds.documents, seeds.source, seeds.recording))


def _find_judge(bound: BoundCheck) -> AttemptJudge | None:
    judge = bound.check.attempt
    return judge if judge and judge.usable(bound.options) else None


def find_agent_table(name: str) -> str:
    """The recipe's table with the keys of an agent, as in `RunPlan.agents`."""
    return "difficulty" if name == "solver" else f"agents.{name}"


def _is_file(path: Path) -> bool:
    """Also for a text that is too long for a path, such as a program after `-c`."""
    try:
        return path.is_file()
    except OSError:
        return False


def load_documents(seeds: SeedsConfig, folder: Path) -> DocumentReading:
    """The documents of a recipe in `folder`, cached while their bytes stay the same. Raises UsageError."""
    path = find_referenced_file(seeds.documents or "", folder)
    return _read_cached(path, seeds.chunk_words, hash_documents(path))


@lru_cache(maxsize=2)
def _read_cached(path: Path, words: int, _hash: str) -> DocumentReading:
    return read_documents(path, words=words)


def _seed_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    seeds, sources = plan.recipe.seeds, plan.family.seeded_by
    given = [key for key in ("path", "documents", "source", "recording") if getattr(seeds, key) is not None]
    keys = [f'seeds.source = "{name}"' if name in plan.family.sources else f"seeds.{name}" for name in sources]
    allowed = " or ".join(key for key in keys if key != "seeds.itself")
    if len(given) > 1:
        yield RecipeProblem("seeds", f"has both `{given[0]}` and `{given[1]}`; leave one out")
    elif given == ["recording"]:
        yield from _recorded_seed_problems(plan)
    elif given and (seeds.source or given[0]) not in sources:
        yield RecipeProblem(
            f"seeds.{given[0]}", f"{plan.family.name} does not take it; it needs {allowed or 'neither'}"
        )
    elif not given and "itself" not in sources:
        yield RecipeProblem("seeds", f"{plan.family.name} needs {allowed}")
    elif given in (["documents"], ["source"]):
        yield from _source_problems(plan)
    if seeds.bootstrap and seeds.source:
        what = f"no sample is one of the {seeds.source} that others could be made from; leave it out"
        yield RecipeProblem("seeds.bootstrap", what)
    if seeds.bootstrap and plan.recipe.quotas:
        yield RecipeProblem(
            "seeds.bootstrap", "cannot go with quotas: which category a sample has would depend on what was kept"
        )


def _source_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    """Of the user's documents, or of a plugin's source."""
    seeds = plan.recipe.seeds
    if seeds.documents and (problem := documents_problem()):
        yield RecipeProblem("seeds.documents", problem)
        return
    try:
        if seeds.documents:
            load_documents(seeds, plan.folder)
        if plan.seed_source:
            plan.seed_source.read_rows()
    except UsageError as error:
        yield RecipeProblem("seeds.documents" if seeds.documents else "seeds.source", str(error))


def _recorded_seed_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    recipe = plan.recipe
    for source in plan.family.sources:
        what = f'a recording has no {source}; name the {source} themselves: seeds.source = "{source}"'
        yield RecipeProblem("seeds.recording", what)
    if recipe.seeds.draw or recipe.seeds.bootstrap:
        yield RecipeProblem("seeds", "recorded seeds are used as they were; leave `draw` and `bootstrap` out")
    if recipe.answers_per_seed > 1:
        yield RecipeProblem("answers_per_seed", "each recorded seed is that of one sample; set it to 1")


def _prompt_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    if plan.own_prompts and not plan.own_prompts.is_dir():
        yield RecipeProblem("prompts", f"{plan.own_prompts}: is not a folder")
        return
    for role in plan.roles:
        try:
            plan.prompt(role)
            if role == "critic":
                find_rubrics(plan.prompt(role))
        except UsageError as error:
            yield RecipeProblem("prompts" if plan.own_prompts else "family", str(error))
    known = {*plan.roles, "critic", "verifier", "debate", *plan.family.writes}
    for file in sorted(plan.own_prompts.glob("*.md")) if plan.own_prompts else ():
        if file.stem not in known and file.stem != "README":
            yield RecipeProblem("prompts", f"{file}: no agent asks with it; there may be {', '.join(sorted(known))}")


def _label_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    for i, bound in enumerate(plan.checks):
        if isinstance(bound.options, JudgeOptions) and bound.options.calibration:
            try:
                read_labelled_answers(Path(bound.options.calibration))
            except UsageError as error:
                yield RecipeProblem(f"verifiers.{i}.calibration", str(error))


def _price_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    teachers = plan.recipe.teachers
    if plan.recipe.budget.cost is None:
        return
    for name in sorted(plan.teachers & teachers.keys()):
        if teachers[name].prices() is None:
            message = (
                "its price is unknown, so budget.cost cannot hold; set input_price and output_price, or list the model in a "
                "prices.toml next to the recipe"
            )
            yield RecipeProblem(f"teachers.{name}", message)


def _family_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    if plan.family.converses and plan.recipe.topology.kind == "decentralized":
        yield RecipeProblem("topology.kind", "debaters write whole drafts and execute no tools; take another topology")
    yield from plan.family.list_problems(plan.recipe, plan.folder)


def _difficulty_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    if plan.recipe.difficulty and not plan.attempt_check:
        able = sorted(check.name for check in (*list_checks(), *plan.family.checks) if check.attempt)
        yield RecipeProblem(
            "difficulty",
            f"no check of this recipe knows the right answer, so no attempt can be judged; leave the table out, or add one "
            f"of {', '.join(able)} to the checks if {plan.recipe.family} has what it reads",
        )


def _promotion_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    if not plan.recipe.lineage.promote:
        return
    evaluation = plan.recipe.student.evaluation if plan.recipe.student else None
    if evaluation is None:
        what = "a student is promoted by its evaluation; add the tables [student] and [student.evaluation], or leave promote out"
        yield RecipeProblem("lineage.promote", what)
    elif not evaluation.panel:
        what = "0 asks no general panel, and lineage.promote needs it: what a student forgot would be unknown; set 64"
        yield RecipeProblem("student.evaluation.panel", what)
    if PROMOTED_TEACHER in plan.recipe.teachers and not plan.recipe.teachers[PROMOTED_TEACHER].student_of:
        what = "with lineage.promote this is the name of the promoted student; name the teacher differently"
        yield RecipeProblem(f"teachers.{PROMOTED_TEACHER}", what)


def _critic_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    agents = plan.recipe.agents
    critic, teacher = agents.critic, plan.recipe.teachers.get(agents.generator.teacher)
    if critic and critic.type == "confidence" and teacher and not teacher.returns_logprobs:
        yield RecipeProblem("agents.critic.type", f"{teacher.model} {NO_PROBABILITIES}")


def _probability_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    teacher = plan.recipe.teachers.get(plan.recipe.agents.verifier.teacher)
    for i, bound in enumerate(plan.checks):
        if teacher and not teacher.returns_logprobs and bound.check.reads_logprobs(bound.options):
            what = f"{teacher.model} returns no token probabilities, which this check needs with these options"
            yield RecipeProblem(f"verifiers.{i}", what)


def _thinking_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    """A limit that vLLM would reject, and thinking that leaves no room for a prompt in a slot of an embedded teacher."""
    for name, agent in plan.agents.items():
        teacher = plan.recipe.teachers.get(agent.teacher)
        if teacher is None:
            continue  # another check names it
        limited = isinstance(agent.reasoning, int) and "thinking_token_budget" not in teacher.drop
        if teacher.model.startswith("vllm/") and limited and not teacher.engine.get("reasoning_parser"):
            yield RecipeProblem(
                f"{find_agent_table(name)}.reasoning",
                f"vLLM rejects a limit of {agent.reasoning:,} tokens without a parser of thinking; set "
                f'teachers.{agent.teacher}.engine.reasoning_parser to the model\'s (as "qwen3"), or reasoning = "low"',
            )
        thinking = teacher.thinking_tokens(agent.reasoning)
        reply = agent.max_tokens + thinking
        if teacher.model.startswith("local/") and thinking and reply + LEAST_PROMPT_TOKENS > teacher.slot_tokens:
            yield RecipeProblem(
                f"{find_agent_table(name)}.reasoning",
                f"{reply:,} tokens of thinking and reply leave no room for a prompt in slot_tokens = {teacher.slot_tokens}; set "
                f"teachers.{agent.teacher}.slot_tokens to {reply + 2 * LEAST_PROMPT_TOKENS} or more",
            )


def _image_problems(plan: RunPlan) -> Iterator[RecipeProblem]:
    recipe, student = plan.recipe, plan.recipe.student
    if not plan.family.has_images:
        if student and student.images:
            yield RecipeProblem("student.images", f"conversations of {plan.family.name} have no images; leave it out")
        return
    if student and not student.images:
        yield RecipeProblem(
            "student",
            f"conversations of {plan.family.name} have images, and a student that reads text alone would learn to guess; add "
            "images = {}, or leave the student out",
        )
    if recipe.topology.kind != "centralized" and not plan.asks_generator:
        yield RecipeProblem("topology.kind", 'no teacher writes these drafts, so nothing is debated; set "centralized"')
    if recipe.topology.kind == "decentralized" and plan.shows_images:
        yield RecipeProblem("topology.kind", "debaters are shown no images; take another topology")
    for teacher in sorted(plan.seeing_teachers & recipe.teachers.keys()):
        if not takes_images(recipe.teachers[teacher]):
            agents = ", ".join(name for name, agent in plan.agents.items() if agent.teacher == teacher)
            what = f"{recipe.teachers[teacher].model} takes no images, which {agents} would be shown; name a model that does"
            yield RecipeProblem(f"teachers.{teacher}.model", what)


PLAN_CHECKS: tuple[Callable[[RunPlan], Iterator[RecipeProblem]], ...] = (
    _seed_problems,
    _prompt_problems,
    _price_problems,
    _label_problems,
    _family_problems,
    _difficulty_problems,
    _promotion_problems,
    _critic_problems,
    _probability_problems,
    _thinking_problems,
    _image_problems,
)
