"""Building the plan of a run: everything that a recipe names is found, and every problem that needs no teacher is reported."""

from collections.abc import Callable, Iterator
from pathlib import Path

from agents.checks.judge import JudgeOptions, read_labeled_answers
from agents.checks.registry import bind_checks, list_checks
from agents.families import find_recipe_family
from agents.planning.rubrics import find_rubrics
from agents.planning.run_plan import NO_PROBABILITIES, PROMOTED_TEACHER, RunPlan, asks_generator, find_agent_table
from agents.planning.seed_rows import load_documents
from agents.sources.conditions import load_conditions
from agents.sources.documents import documents_problem
from agents.sources.seed_source import find_source_extension
from core.config.loading import validate_table
from core.config.recipe import Recipe
from core.config.teacher_prices import PriceRecord, apply_prices, find_teacher_prices
from core.errors import RecipeError, RecipeProblem, UsageError
from core.plugins import UnusablePlugin
from teachers.local_weights import takes_images
from teachers.providers import find_teacher_problems

LEAST_PROMPT_TOKENS = 512
"""Shorter than the prompts of most families."""


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
                read_labeled_answers(Path(bound.options.calibration))
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
        if student and student.image_limits:
            yield RecipeProblem("student.steps", f"conversations of {plan.family.name} have no images; leave it out")
        return
    if student and not student.image_limits:
        yield RecipeProblem(
            "student",
            f"conversations of {plan.family.name} have images, and a student that reads text alone would learn to guess; add "
            'steps = [{ type = "sight" }], or leave the student out',
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
