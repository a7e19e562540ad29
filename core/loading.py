"""A recipe from its TOML file: read, overridden, validated, every problem told at once by its dotted path.

Knows neither prompts nor teachers nor what a family's own `[task]` options mean; whoever does adds its problems
through `load_recipe(checks=…)`.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from core.errors import Problem, RecipeError
from core.recipe import Recipe

Table = TypeVar("Table", bound=BaseModel)
Check = Callable[[Recipe, Path], Iterable[Problem]]
"""Adds what is wrong in a recipe whose relative paths start from a folder."""


class Loaded(NamedTuple):
    """A recipe, and the folder its relative paths start from."""

    recipe: Recipe
    folder: Path


def load_recipe(path: Path, overrides: Sequence[str] = (), checks: Sequence[Check] = ()) -> Loaded:
    """Read, override and validate a recipe.

    Raises:
        RecipeError: with every problem found, each with its dotted path.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(str(path), [Problem("", f"cannot be read: {error.strerror}")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), [Problem("", f"is not valid TOML: {error}")]) from None
    problems = _override(data, overrides)
    agents = data.get("agents")
    if isinstance(agents, dict) and agents.get("critic") is False:
        agents["critic"] = None
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += [_problem(detail, Recipe) for detail in error.errors(include_url=False)]
        raise RecipeError(str(path), problems) from None
    problems += _cross_checks(recipe)
    for check in checks:
        problems += check(recipe, path.resolve().parent)
    if problems:
        raise RecipeError(str(path), problems)
    return Loaded(recipe, path.resolve().parent)


def parse_settings(model: type[Table], settings: Sequence[str]) -> Table:
    """A table of its own from `key=value` settings, as `--set` takes them.

    Raises:
        RecipeError: with every problem found.
    """
    data: dict[str, Any] = {}
    problems = _override(data, settings)
    try:
        table = model.model_validate(data)
    except ValidationError as error:
        problems += [_problem(detail, model) for detail in error.errors(include_url=False)]
        raise RecipeError("--set", problems) from None
    if problems:
        raise RecipeError("--set", problems)
    return table


def table_problems(model: type[Table], values: Mapping[str, Any], where: str) -> tuple[Table | None, list[Problem]]:
    """`values` as a table of the recipe at `where`, or what is wrong in it."""
    try:
        return model.model_validate(dict(values)), []
    except ValidationError as error:
        found = [_problem(detail, model) for detail in error.errors(include_url=False)]
        return None, [Problem(f"{where}.{one.where}" if one.where else where, one.what) for one in found]


def _override(data: dict[str, Any], overrides: Sequence[str]) -> list[Problem]:
    """Apply `key=value` settings in place; returns those that cannot be applied."""
    problems = []
    for setting in overrides:
        key, equals, text = setting.partition("=")
        *parents, last = key.strip().split(".")
        if not equals or not last or not all(parents):
            problems.append(Problem(f"--set {setting}", "must be key=value, with dots in the key for tables"))
            continue
        table: Any = data
        for i, parent in enumerate(parents):
            table = _step(table, parent)
            if not isinstance(table, dict | list):
                problems.append(Problem(f"--set {setting}", f"`{'.'.join(parents[: i + 1])}` is not a table"))
                break
        else:
            if isinstance(table, dict):
                table[last] = _toml_value(text)
            elif last.isdigit() and int(last) < len(table):
                table[int(last)] = _toml_value(text)
            else:
                problems.append(Problem(f"--set {setting}", f"`{'.'.join(parents)}` is a list of {len(table)}"))
    return problems


def _step(table: Any, key: str) -> Any:
    if isinstance(table, dict):
        return table.setdefault(key, {})
    return table[int(key)] if key.isdigit() and int(key) < len(table) else None


def _toml_value(text: str) -> Any:
    """`text` as a TOML value; anything that is not one is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _problem(detail: ErrorDetails, root: type[BaseModel]) -> Problem:
    place, model = _walk(detail["loc"], root)
    where = ".".join(place)
    if detail["type"] == "extra_forbidden":
        known = list(model.model_fields) if model else []
        near = difflib.get_close_matches(place[-1], known, n=1)
        there = f"known are {', '.join(f'`{k}`' for k in known)}" if known else "this table takes no keys"
        advice = f"did you mean `{near[0]}`?" if near else there
        return Problem(where, f"unknown key, {advice}")
    if detail["type"] == "missing":
        return Problem(where, "is missing")
    if detail["type"] == "union_tag_invalid":
        context = detail.get("ctx", {})
        return Problem(f"{where}.type", f"{context.get('tag')!r} is not one of {context.get('expected_tags')}")
    said = detail["msg"].removeprefix("Value error, ")
    message = (said[0].lower() + said[1:]).replace("tuple", "list").replace("dictionary", "table")
    value = detail["input"]
    shown = "" if isinstance(value, dict | list | tuple) else f", not {value!r}"
    return Problem(where, f"{message}{shown}")


def _walk(loc: tuple[str | int, ...], root: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None]:
    """The path as a user writes it (without pydantic's union tags), and the table its last key belongs to."""
    place: list[str] = []
    model: type[BaseModel] | None = root
    current: Any = root
    for i, part in enumerate(loc):
        options = _models_in(current)
        tagged = next((m for m in options if _tag_of(m) == part), None)
        if tagged is not None and i < len(loc) - 1:
            model = current = tagged
            continue
        place.append(str(part))
        if i < len(loc) - 1:
            if isinstance(part, str) and model and part in model.model_fields:
                current = model.model_fields[part].annotation
            nested = _models_in(current)
            if len(nested) == 1:
                model = nested[0]
    return place, model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _tag_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("type")
    return getattr(field.annotation, "__args__", (None,))[0] if field else None


def _cross_checks(recipe: Recipe) -> list[Problem]:
    """What no table can tell of by itself."""
    checks = (_agent_problems, _teacher_problems, _amount_problems, _student_problems)
    return [problem for check in checks for problem in check(recipe)]


def _agent_problems(recipe: Recipe) -> Iterator[Problem]:
    names = ", ".join(f"`{name}`" for name in recipe.teachers)
    roles = {"generator": recipe.agents.generator, "critic": recipe.agents.critic, "verifier": recipe.agents.verifier}
    for role, agent in roles.items():
        if agent and agent.teacher not in recipe.teachers:
            yield Problem(f"agents.{role}.teacher", f"{agent.teacher!r} is not in [teachers], which has {names}")
    if recipe.topology.kind == "independent" and recipe.agents.critic is None:
        yield Problem("agents.critic", "an independent topology needs one: its vote decides with the verifier's")


def _teacher_problems(recipe: Recipe) -> Iterator[Problem]:
    for name, teacher in recipe.teachers.items():
        if teacher.faults and not teacher.model.startswith("fake/"):
            yield Problem(f"teachers.{name}.faults", f"only a fake teacher has faults, not {teacher.model!r}")
        if teacher.engine and not teacher.model.startswith("vllm/"):
            yield Problem(f"teachers.{name}.engine", f"only vllm/… starts an engine, not {teacher.model!r}")
        if teacher.api_key_env not in os.environ and teacher.base_url is None and teacher.model.startswith("openai/"):
            what = f"the environment variable {teacher.api_key_env} is not set; set it, or name a base_url that needs no key"
            yield Problem(f"teachers.{name}", what)


def _student_problems(recipe: Recipe) -> Iterator[Problem]:
    if recipe.student and "dpo" in recipe.student.weights:
        what = "a run's own student learns from what is kept, not from pairs; leave dpo out, and distill dataset/preference then"
        yield Problem("student.objective", what)


def _amount_problems(recipe: Recipe) -> Iterator[Problem]:
    if recipe.keep and recipe.quotas:
        yield Problem("quotas", "`keep` says already how many to keep; leave one of them out")
    wanted = sum(recipe.goals.values())
    if wanted > recipe.samples:
        what = f"{wanted} kept samples cannot come of at most samples = {recipe.samples} candidates; raise samples"
        yield Problem("quotas.keep" if recipe.quotas else "keep", what)
