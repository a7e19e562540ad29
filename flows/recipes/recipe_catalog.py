"""The built-in recipes, and how any recipe is found and loaded with everything that can be checked before a run."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.config.inheritance import ABSENT_IF_FALSE, RECIPE_FILE_NAME, relocate_files
from core.config.loading import RecipeCheck, load_recipe
from core.config.recipe import Recipe, list_recipe_plugins
from core.config.teacher_prices import PriceRecord
from core.config.teachers import PRICE_KEYS
from core.config.toml_text import format_toml, parse_toml
from core.errors import RecipeError, RecipeProblem, UsageError, suggest_name
from core.plugins import list_plugins, load_hooks
from core.secrets import redact_text
from flows.release.release_gate import build_gate_record, describe_release_gate
from flows.terminal.text_format import format_count, replace_unsafe_characters

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan
    from agents.planning.seeds import RunSeeds


class RecipeFindings(NamedTuple):
    """All but the gate by name of the teacher."""

    gate: str
    prices: Mapping[str, PriceRecord]
    weights: Mapping[str, Path | None]
    """None if they are not downloaded."""
    abilities: Mapping[str, str]
    """Empty if no teacher was asked."""
    facts: Mapping[str, Mapping[str, Sequence[str]]]
    """Of plugins, by their name and source."""

    def to_json(self) -> dict[str, Any]:
        return {
            "live": self.abilities,
            **self.facts,
            "gate": self.gate,
            "weights": {name: file and str(file) for name, file in self.weights.items()},
            "prices": {name: record.model_dump(mode="json") for name, record in self.prices.items()},
        }


def list_built_in_recipes() -> dict[str, Path]:
    """Recipe files by name."""
    folder = Path(str(files(__package__)))
    folders = [folder, *(plugin.folder / "recipes" for plugin in list_plugins() if plugin.folder)]
    files_by_name = {file.stem: file for one in folders for file in one.glob("*.toml")}
    return dict(sorted(files_by_name.items()))


def locate_recipe(name: str) -> Path:
    """The file of a built-in recipe, or of the path `name`.

    Raises:
        UsageError: naming the built-in recipes.
    """
    known = list_built_in_recipes()
    if name in known:
        return known[name]
    if (inside := Path(name) / RECIPE_FILE_NAME).is_file():
        return inside
    if Path(name).is_dir():
        raise UsageError(f"{name}: is a folder without a recipe.toml")
    if name.endswith(".toml") or Path(name).exists():
        return Path(name)
    advice = suggest_name(name, known, "built in are")
    if not advice.startswith("did you mean"):
        advice += "; a path must name a .toml file, or a folder with a recipe.toml"
    raise UsageError(f"{name}: no recipe of this name; {advice}")


def resolve_recipe_name(name: str) -> str:
    """The same recipe for every working folder of this machine: a built-in name is unchanged, a path becomes absolute.

    Raises:
        UsageError: as `locate_recipe`.
    """
    return name if name in list_built_in_recipes() else str(locate_recipe(name).resolve())


def read_recipe_name(recipe: str, overrides: Sequence[str] = ()) -> str:
    """A recipe's name: the last one that `overrides` set, or else that in the file if `recipe` is a path.

    Raises:
        UsageError: if the file has no name.
    """
    for setting in reversed(overrides):
        key, _, name = setting.partition("=")
        if key.strip() == "name":
            return name.strip().strip("'\"")
    path = inside if (inside := Path(recipe) / RECIPE_FILE_NAME).is_file() else Path(recipe)
    if path.suffix != ".toml":
        return recipe
    try:
        return str(parse_toml(path.read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path}: cannot be read as a recipe with a name: {error}") from None


def read_recipe_headline(path: Path) -> str:
    """A recipe's first comment, up to its first empty line: the output and the requirements."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.strip() == "#":
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


_guards: list[RecipeCheck] = []


def guard_recipes(guard: RecipeCheck) -> None:
    """From now on, this process builds no plan of a recipe in which `guard` finds a problem. It sees the very recipe that is
    built, before any program or file of it is loaded, so a file that is replaced after an earlier check changes nothing.
    """
    _guards[:] = [guard]


def load_recipe_plan(name: str, overrides: Sequence[str] | None = ()) -> "RunPlan":
    """Read, check and resolve a recipe. Raises RecipeError with every problem that can be found without asking a teacher."""
    from agents.families import family_defaults
    from agents.planning.plan_building import build_plan
    from filters.chain.registry import find_recipe_filter_problems

    plans: list[RunPlan] = []

    def find_problems(recipe: Recipe, folder: Path) -> list[RecipeProblem]:
        if problems := [problem for guard in _guards for problem in guard(recipe, folder)]:
            return problems
        return [*find_plan_problems(recipe, folder), *find_recipe_filter_problems(recipe, folder)]

    def find_plan_problems(recipe: Recipe, folder: Path) -> list[RecipeProblem]:
        try:
            plan = build_plan(recipe, folder)
        except RecipeError as error:
            return error.problems
        plans.append(plan)
        used = load_hooks(list_recipe_plugins(recipe))
        return [problem for hooks in used for problem in hooks.list_plan_problems(plan)]

    load_recipe(locate_recipe(name), overrides or (), [find_problems], family_defaults, list_built_in_recipes())
    return plans[0]


def open_seeds(plan: "RunPlan", *, distill: bool = True) -> "RunSeeds":
    """The seeds of a recipe, checked; with `distill`, whether they suffice for the student's evaluation too.

    Raises:
        UsageError: with what is wrong with them for the recipe, or for a plugin that it uses.
    """
    from agents.planning.seeds import RunSeeds
    from agents.studies.held_out_evaluation import check_evaluation_requests

    seeds = RunSeeds(plan, "held0out")
    seeds.check()
    used = load_hooks(list_recipe_plugins(plan.recipe))
    if problems := [problem for hooks in used for problem in hooks.list_seed_problems(plan, seeds)]:
        raise UsageError("\n  ".join(problems))
    if distill:
        check_evaluation_requests(plan, seeds)
        if plan.recipe.student:
            from agents.studies.general_panel import check_panel_tasks

            check_panel_tasks(plan)
    return seeds


class ValidatedRecipe(NamedTuple):
    """A recipe without problems, with its seeds."""

    plan: "RunPlan"
    seeds: "RunSeeds"

    def describe(self) -> str:
        """The verdict, with the number of seeds."""
        rows, samples = len(self.seeds.rows), self.plan.recipe.samples
        seeds, candidates = f"seed{'s' * (rows != 1)}", f"candidate{'s' * (samples != 1)}"
        return f"valid: {rows:,} {seeds} for at most {samples:,} {candidates}"


def validate_recipe(name: str, overrides: Sequence[str] = ()) -> ValidatedRecipe:
    """Load a recipe and its seeds.

    Raises:
        UsageError: if there is no such recipe.
        RecipeError: with every problem that can be found without asking a teacher, those of the seeds last.
    """
    plan = load_recipe_plan(name, overrides)
    try:
        seeds = open_seeds(plan)
    except UsageError as error:
        raise RecipeError(name, [RecipeProblem("", line) for line in str(error).split("\n  ")]) from None
    return ValidatedRecipe(plan, seeds)


async def inspect_recipe(plan: "RunPlan", *, live: bool) -> RecipeFindings:
    """With `live`, each teacher is asked a few short questions, and plugins ask what they name, as servers of tools.

    Raises:
        ProviderError: as `probe_teachers`.
        RunFailed: if a source of a plugin cannot be used.
    """
    from teachers.local_weights import list_local_weights

    recipe = plan.recipe
    abilities: dict[str, str] = {}
    if live:
        from agents.studies.teacher_probe import probe_teachers

        abilities = await probe_teachers(plan)
    facts = {}
    for name in list_recipe_plugins(recipe):
        for hooks in load_hooks([name]):
            if found := await hooks.find_recipe_facts(plan, live=live):
                facts[name] = found
    return RecipeFindings(
        describe_release_gate(recipe, build_gate_record(recipe)),
        plan.prices,
        list_local_weights(recipe),
        abilities,
        facts,
    )


def format_resolved_recipe(recipe: Recipe, folder: Path) -> str:
    """The recipe in `folder` as the text of a TOML file for any folder: its own files have absolute paths."""
    data = recipe.model_dump(mode="json")
    for table, key in ABSENT_IF_FALSE:
        if isinstance(data.get(table), dict) and data[table].get(key, False) is None:
            data[table][key] = False
    task = data.pop("task")
    data = _drop_nulls(data)
    # A schema may contain null, which TOML lacks; families read a schema's JSON text too.
    data["task"] = {key: json.dumps(value) if _has_null(value) else value for key, value in _drop_none(task).items()}
    return format_toml(relocate_files(data, folder, None))


def _drop_none(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _drop_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_drop_nulls(inner) for inner in value] if isinstance(value, list) else value


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


# What a recipe does, in a few lines, and the problems of one that cannot be used

NOT_DOWNLOADED = "not on this machine; `run` and `validate --live` download them"


def format_recipe_summary(recipe: Recipe) -> list[str]:
    """The recipe's parts, one a line."""
    agents, seeds = recipe.agents, recipe.seeds
    critic = f"critic {agents.critic.teacher}" if agents.critic and agents.critic.type == "teacher" else ""
    if agents.critic and not critic:
        critic = f"critic by {agents.critic.type}"
    goal = f", until {format_count(sum(recipe.goals.values()), 'sample')} are kept" if recipe.goals else ""
    parts = {
        "recipe": f"{recipe.name}, family {recipe.family}{goal}",
        "seeds": seeds.path or seeds.documents or seeds.source or seeds.recording or "made by the family",
        "teachers": ", ".join(
            f"{name} {teacher.model}" + (f" at {teacher.base_url}" if teacher.base_url else "")
            for name, teacher in recipe.teachers.items()
        ),
        "agents": ", ".join(filter(None, [recipe.topology.kind, f"generator {agents.generator.teacher}", critic])),
        **dict(line for hooks in load_hooks(list_recipe_plugins(recipe)) for line in hooks.list_recipe_lines(recipe)),
        "checks": ", ".join(check.type for check in recipe.verifiers) or "none",
        "difficulty": _describe_difficulty(recipe),
        "filters": ", ".join(entry.type for entry in recipe.filters) or "none",
        "dataset": ", ".join(recipe.dataset.formats),
        "student": f"starts from {recipe.student.start}" if recipe.student else "none",
    }
    if not recipe.difficulty:
        del parts["difficulty"]
    wide = max(9, *map(len, parts))
    return [f"  {name:<{wide}} {replace_unsafe_characters(redact_text(text))}" for name, text in parts.items()]


def _describe_difficulty(recipe: Recipe) -> str:
    if (difficulty := recipe.difficulty) is None:
        return ""
    low, high = difficulty.wanted
    return f"{format_count(difficulty.attempts, 'attempt')} of {difficulty.teacher}, pass rate {low:g} to {high:g}"


def format_findings(findings: RecipeFindings, recipe: Recipe) -> list[str]:
    """A line for each finding."""
    return [
        f"release gate: {findings.gate}",
        *_format_price_notes(recipe, findings.prices),
        *(f"teacher {name}: weights {file or NOT_DOWNLOADED}" for name, file in findings.weights.items()),
        *(f"teacher {name}: {text}" for name, text in findings.abilities.items()),
        *(
            f"{kind} of {source}: {', '.join(names)}"
            for kind, found in findings.facts.items()
            for source, names in found.items()
        ),
    ]


def _format_price_notes(recipe: Recipe, prices: Mapping[str, PriceRecord]) -> list[str]:
    """A line for the price of each teacher that is not free: what it is, and where it is from."""
    notes = []
    for name, teacher in recipe.teachers.items():
        if record := prices.get(name):
            listed = record.model_dump(include=set(PRICE_KEYS), exclude_none=True)
            each = ", ".join(
                f"{key.removesuffix('_price').replace('_', ' ')} {value:g}" for key, value in listed.items()
            )
            currency = f" {record.currency}" if record.currency else ""
            batched = f", times {teacher.price_factor:g} in batches" if teacher.batch else ""
            notes.append(f"price of {name}: {each}{currency} per million tokens{batched}, from {record.source}")
        elif not teacher.has_price:
            keys = f"teachers.{name}.input_price and output_price"
            notes.append(f"price of {name}: unknown; set {keys}, or list {teacher.model} in a prices.toml")
    return [replace_unsafe_characters(note) for note in notes]


def format_invalid_recipe(error: RecipeError) -> str:
    """The verdict, then all problems."""
    head = f"invalid: {format_count(len(error.problems), 'problem')} in {error.name}"
    return replace_unsafe_characters(redact_text("\n  ".join([head, *map(str, error.problems)])))


def describe_invalid_recipe(error: RecipeError) -> dict[str, Any]:
    """The same as JSON values."""
    problems = [{"where": problem.where, "what": redact_text(problem.what)} for problem in error.problems]
    return {"valid": False, "problems": problems}
