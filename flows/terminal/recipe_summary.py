"""What a recipe does, in a few lines, and the problems of one that cannot be used."""

from collections.abc import Mapping
from typing import Any

from core.config.recipe import Recipe, list_recipe_plugins
from core.config.teacher_prices import PriceRecord
from core.config.teachers import PRICE_KEYS
from core.errors import RecipeError
from core.plugins import load_hooks
from core.secrets import redact_text
from flows.recipes.recipe_catalog import RecipeFindings
from flows.terminal.text_format import format_count, replace_unsafe_characters

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
