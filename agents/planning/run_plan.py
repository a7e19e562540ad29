"""The plan of a run: a recipe with its family, options, checks, prompts and files found and validated.

Knows no running teacher and no topology.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import prompts
from agents.checks.base import AttemptJudge, Options
from agents.checks.registry import BoundCheck
from agents.families import find_family_extension
from agents.families.base import RecipeFamily
from agents.planning.rubrics import find_rubrics
from agents.planning.seed_rows import SeedRows, load_seed_rows
from agents.sources.conditions import ConditionChoices
from agents.sources.documents import hash_documents
from agents.sources.seed_source import SeedSource, find_seed_source, find_source_extension
from core.config.agents import DEBATE_ROUNDS, DEBATERS, AgentConfig
from core.config.base import RecipeTable, list_marked
from core.config.filters import list_filter_extensions, list_filter_files
from core.config.recipe import Recipe, SeedsConfig, list_recipe_plugins
from core.config.teacher_prices import PriceRecord, apply_prices, keep_recorded_prices
from core.errors import UsageError
from core.extensions import Extension, find_registered
from core.hooks import SeedChoice
from core.hub_reference import find_hub_reference, remove_revision
from core.plugins import load_hooks
from core.project_files import NAMED_REFERENCES, find_referenced_file
from core.storage.atomic_files import hash_file
from core.weights.gguf_files import hash_gguf
from core.weights.packaged_weights import EMBEDDED_TEACHER
from teachers.local_weights import find_local_weights
from teachers.providers import list_protocol_extensions

NO_PROBABILITIES = (
    'returns no token probabilities, which a critic of type "confidence" needs; set agents.critic to false, or to a model that '
    "can judge"
)
PROMOTED_TEACHER = "promoted"
"""The name of a promoted student among the teachers of a run."""


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
    run: Path | None = None
    """The folder of the run that carries it out; None before there is one."""
    in_work: bool = False
    """Whether a stage of that run makes samples now. If not, the run is only read, and may be a stranger's."""
    first_seed: int = 0
    """Number of seeds that earlier releases of the recipe used. The run's seeds and random numbers start after them."""

    @cached_property
    def seed_source(self) -> SeedSource | None:
        """The source of a plugin that its seeds come from; None for other seeds."""
        return find_seed_source(self.recipe, self.folder)

    @property
    def seed_choice(self) -> SeedChoice | None:
        """A plugin's choice among the seeds, asked for each time. None where all are used."""
        hooks = load_hooks(list_recipe_plugins(self.recipe))
        return next((choice for one in hooks if (choice := one.choose_seeds(self))), None)

    @cached_property
    def seed_rows(self) -> SeedRows:
        """The rows of its seeds. Raises UsageError naming the file or line that cannot be read."""
        recipe = self.recipe
        return load_seed_rows(recipe.seeds, self.folder, self.seed_source, self.family, self.options, recipe.seed)

    @cached_property
    def sources(self) -> dict[str, str]:
        """Hashes of all files that a run of this plan reads, by their names in the recipe: `own_sources`, and the weights of its
        teachers except those on the Hub that are not pinned to a commit. Raises UsageError naming a file that cannot be read.
        """
        return self.own_sources | _hash_weights(self.recipe)

    @cached_property
    def own_sources(self) -> dict[str, str]:
        """Hashes of prompts, seeds, reference, own checks, and the files that checks and filters read."""
        recipe = self.recipe
        prompt_hashes = prompts.hash_prompts(recipe.family, self.own_prompts, self.family.prompts)
        hashes = {f"prompts/{name}": digest for name, digest in prompt_hashes.items()}
        reference = recipe.collapse.reference if recipe.collapse else None
        names = [recipe.seeds.path, recipe.seeds.recording, None if reference in NAMED_REFERENCES else reference]
        names += [draw for draw in recipe.seeds.draw.values() if isinstance(draw, str)]
        names += [name for _, table in recipe if isinstance(table, RecipeTable) for name in table.list_files()]
        names += [*self.check_files, *self.named_files, *list_filter_files(recipe.filters), recipe.lineage.real]
        for name in filter(None, names):
            path = find_referenced_file(name, self.folder)
            try:
                hashes[name] = hash_file(path)[:16]
            except OSError as error:
                raise UsageError(f"{path}: cannot be read: {error.strerror}; the recipe names it") from None
        hashes |= {f"{one.kind} {one.name}": one.identity for one in self.extensions if not one.own}
        if recipe.seeds.documents:
            documents = find_referenced_file(recipe.seeds.documents, self.folder)
            hashes[recipe.seeds.documents] = hash_documents(documents)[:16]
        if self.seed_source:
            hashes[self.seed_source.file] = self.seed_source.digest[:16]
        return hashes

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
    def early_checks(self) -> tuple[BoundCheck, ...]:
        """The checks before the critic's review."""
        return tuple(bound for bound in self.checks if bound.check.early or bound in self.free_checks)

    @property
    def late_checks(self) -> tuple[BoundCheck, ...]:
        """The checks after it."""
        return tuple(bound for bound in self.checks if bound not in self.early_checks)

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
        # Of `os.path`, since it takes a text that is too long for a path, such as a program after `-c`
        own = (word for word in words if not Path(word).is_absolute() and os.path.isfile(self.folder / word))  # noqa: PTH113
        return [*named, *own]

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


def asks_generator(family: RecipeFamily, seeds: SeedsConfig) -> bool:
    """Whether a teacher writes the drafts of a family with these seeds."""
    return not family.draws_drafts or any((seeds.path, seeds.documents, seeds.source, seeds.recording))


def _find_judge(bound: BoundCheck) -> AttemptJudge | None:
    judge = bound.check.attempt
    return judge if judge and judge.usable(bound.options) else None


def find_agent_table(name: str) -> str:
    """The recipe's table with the keys of an agent, as in `RunPlan.agents`."""
    return "difficulty" if name == "solver" else f"agents.{name}"


def _hash_weights(recipe: Recipe) -> dict[str, str]:
    """Hashes of its teachers' GGUF files, without the embedded teacher's, which is the same everywhere, and those on the Hub
    that are not pinned to a commit.
    """
    hashes = {}
    for teacher in recipe.teachers.values():
        reference = find_hub_reference(teacher.model)
        if teacher.replays:
            hashes[teacher.model] = hash_file(teacher.recording_file)[:16]
        if not teacher.model.startswith("local/") or teacher.model == f"local/{EMBEDDED_TEACHER}":
            continue
        if (reference is None or reference.pinned) and (file := find_local_weights(teacher)) and file.is_file():
            hashes[remove_revision(teacher.model)] = hash_gguf(file)[:16]
    return hashes
