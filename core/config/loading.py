"""Reads a recipe from TOML, applies overrides and validates it; all problems are reported at once, by dotted path.

Knows neither prompts nor teachers nor the meaning of a family's `[task]` options; callers add such checks through
`load_recipe(checks=…)`.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from core.config.agents import find_band, parse_bands
from core.config.base import list_inner_types
from core.config.filters import FilterTable, find_filter_table
from core.config.inheritance import ABSENT_IF_FALSE, EXTENDS_KEY, list_section_names, read_recipe_tables
from core.config.recipe import Recipe, find_recipe_type
from core.config.student_steps import StudentStep, find_step_table
from core.config.teachers import URL_OF_PROVIDER
from core.config.toml_text import MAX_DEPTH, parse_toml
from core.errors import RecipeError, RecipeProblem
from core.extensions import EXTENSION_ERROR
from core.installation import MISSING_EXTRA
from core.plugins import UnusablePlugin, describe_faults, list_offered_names
from core.secrets import SECRET_ERROR

Table = TypeVar("Table", bound=BaseModel)
RecipeCheck = Callable[[Recipe, Path], Iterable[RecipeProblem]]
"""Problems of a recipe, given the base folder of its relative paths."""
FamilyDefaults = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""The default tables of a family, by its name, for a recipe with these sections."""


TAGGED: dict[type[BaseModel], Callable[[str], type[BaseModel]]] = {
    FilterTable: find_filter_table,
    StudentStep: find_step_table,
}
"""The base classes of tables whose key `type` names their own class, each with what finds it."""


class LoadedRecipe(NamedTuple):
    """A recipe and the base folder of its relative paths."""

    recipe: Recipe
    folder: Path


def load_recipe(
    path: Path,
    overrides: Sequence[str] = (),
    checks: Sequence[RecipeCheck] = (),
    defaults: FamilyDefaults = lambda _name, _sections: {},
    built_in: Mapping[str, Path] = {},
) -> LoadedRecipe:
    """Read a recipe, with the recipes that it extends, fill in the defaults of its family, apply overrides and validate it.

    `built_in` has the recipes that it may extend by name.

    Raises:
        RecipeError: with all problems, each with its dotted path.
    """
    tables = read_recipe_tables(path, built_in)
    data = tables.data

    # The defaults depend on the family and on sections, which an override may change.
    scratch = deepcopy(data)
    _apply_overrides(scratch, [setting for setting in overrides if "." not in setting.partition("=")[0]])
    family = str(scratch.get("family", Recipe.model_fields["family"].default))
    data = _fill_defaults(data, defaults(family, {name: scratch[name] for name in list_section_names(scratch)}))

    problems = _apply_overrides(data, overrides)
    inherited_programs = tables.find_inherited_programs([] if problems else overrides)
    problems += inherited_programs
    if EXTENDS_KEY in data:
        data.pop(EXTENDS_KEY)
        problems.append(RecipeProblem("--set extends", "cannot be set; write `extends` in the recipe's file"))
    if data.get("student") is False:
        del data["student"]
    for table, key in ABSENT_IF_FALSE:
        inner = data.get(table)
        if isinstance(inner, dict) and inner.get(key) is False:
            inner[key] = None
    try:
        recipe_type = find_recipe_type(data)
    except UnusablePlugin as error:
        raise RecipeError(str(path), [*problems, RecipeProblem("", str(error))]) from None
    try:
        recipe = recipe_type.model_validate(data)
    except ValidationError as error:
        raise RecipeError(str(path), problems + _describe_errors(error, recipe_type)) from None
    problems += _check_across_tables(recipe)
    for check in () if inherited_programs else checks:  # a check of the recipe may load the files of its verifiers
        problems += check(recipe, path.resolve().parent)
    if problems:
        raise RecipeError(str(path), problems)
    return LoadedRecipe(recipe, path.resolve().parent)


def _fill_defaults(data: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with defaults for missing keys, table by table; lists are not merged."""
    whole = {**deepcopy(dict(defaults)), **data}
    for key, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(data.get(key), dict):
            whole[key] = _fill_defaults(data[key], default)
    return whole


def parse_settings(model: type[Table], settings: Sequence[str], base: Table | None = None) -> Table:
    """A table from `key=value` settings in the form of `--set`, which replace keys of `base`.

    Raises:
        RecipeError: with all problems.
    """
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True) if base else {}
    problems = _apply_overrides(data, settings)
    try:
        table = model.model_validate(data)
    except ValidationError as error:
        raise RecipeError("--set", problems + _describe_errors(error, model)) from None
    if problems:
        raise RecipeError("--set", problems)
    return table


def validate_table(
    model: type[Table], values: Mapping[str, Any], where: str
) -> tuple[Table | None, list[RecipeProblem]]:
    """`values` as a table of the recipe at `where`, or its problems."""
    try:
        return model.model_validate(dict(values)), []
    except ValidationError as error:
        problems = _describe_errors(error, model)
        return None, [RecipeProblem(f"{where}.{p.where}" if p.where else where, p.what) for p in problems]


def _apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> list[RecipeProblem]:
    """Apply `key=value` settings in place; returns a problem for each that cannot be applied."""
    problems = []
    for setting in overrides:
        key, equals, text = setting.partition("=")
        *parents, last = key.strip().split(".")
        if len(parents) >= MAX_DEPTH:
            problems.append(RecipeProblem("--set", f"a key has at most {MAX_DEPTH} parts, not {len(parents) + 1:,}"))
            continue
        if not equals or not last or not all(parents):
            problems.append(RecipeProblem(f"--set {setting}", "must be key=value, with dots in the key for tables"))
            continue
        table: Any = data
        for i, parent in enumerate(parents):
            table = _enter_table(table, parent)
            if not isinstance(table, dict | list):
                problems.append(RecipeProblem(f"--set {setting}", f"`{'.'.join(parents[: i + 1])}` is not a table"))
                break
        else:
            if isinstance(table, dict):
                table[last] = _parse_toml_value(text)
            elif last.isdigit() and int(last) < len(table):
                table[int(last)] = _parse_toml_value(text)
            else:
                problems.append(RecipeProblem(f"--set {setting}", f"`{'.'.join(parents)}` is a list of {len(table)}"))
    return problems


def _enter_table(table: Any, key: str) -> Any:
    if isinstance(table, dict):
        if table.get(key) is False:  # a table that is off: setting a key in it turns it on
            table[key] = {}
        return table.setdefault(key, {})
    return table[int(key)] if key.isdigit() and int(key) < len(table) else None


def _parse_toml_value(text: str) -> Any:
    """`text` as a TOML value, or as a string if it is not valid TOML."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _describe_errors(error: ValidationError, root: type[BaseModel]) -> list[RecipeProblem]:
    problems = []
    details = error.errors(include_url=False)
    faulty = {detail["loc"][:-1] for detail in details}  # pydantic's `too_short` counts only elements without a fault
    for detail in (one for one in details if one["type"] != "too_short" or one["loc"] not in faulty):
        path, model = _locate_key(detail["loc"], root)
        where = ".".join(path)
        if detail["type"] == "extra_forbidden":
            is_recipe = model is not None and issubclass(model, Recipe)
            offered = [EXTENDS_KEY, *list_offered_names("section")] if is_recipe else []
            known = [*model.model_fields, *offered] if model else []
            near = difflib.get_close_matches(path[-1], known, n=1)
            all_known = f"known are {', '.join(f'`{k}`' for k in known)}" if known else "this table takes no keys"
            advice = f"did you mean `{near[0]}`?" if near else all_known
            what = f"unknown key, {advice}{describe_faults() if is_recipe else ''}"
        elif detail["type"] == "missing":
            what = "is missing"
        elif detail["type"] == EXTENSION_ERROR:
            where += ".type" if where.startswith(("filters.", "student.steps.")) else ""
            what = detail["msg"]
        else:
            text = detail["msg"].removeprefix("Value error, ")
            what = (text[0].lower() + text[1:]).replace("tuple", "list").replace("dictionary", "table")
            value = detail["input"]
            if detail["type"] not in (SECRET_ERROR, MISSING_EXTRA) and not isinstance(value, dict | list | tuple):
                what += f", not {value!r}"
        problems.append(RecipeProblem(where, what))
    return problems


def _locate_key(loc: tuple[str | int, ...], root: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None]:
    """The path as a user writes it (without pydantic's union tags), and the table its last key belongs to."""
    path: list[str] = []
    model: type[BaseModel] | None = root
    current: Any = root
    for i, part in enumerate(loc):
        options = list_inner_types(current)
        tagged = next(
            (find(part) for table, find in TAGGED.items() if table in options and isinstance(part, str)), None
        )
        if tagged is not None and i < len(loc) - 1:
            model = current = tagged
            continue
        path.append(str(part))
        if i < len(loc) - 1:
            if isinstance(part, str) and model and part in model.model_fields:
                current = model.model_fields[part].annotation
            nested = list_inner_types(current)
            if len(nested) == 1:
                model = nested[0]
    return path, model


def _check_across_tables(recipe: Recipe) -> Iterator[RecipeProblem]:
    """Problems that involve several tables."""
    names = ", ".join(f"`{name}`" for name in recipe.teachers)
    roles = {"generator": recipe.agents.generator, "critic": recipe.agents.critic, "verifier": recipe.agents.verifier}
    for role, agent in roles.items():
        if agent and agent.teacher not in recipe.teachers:
            yield RecipeProblem(f"agents.{role}.teacher", f"{agent.teacher!r} is not in [teachers], which has {names}")
    if recipe.topology.kind == "independent" and recipe.agents.critic is None:
        yield RecipeProblem("agents.critic", "an independent topology needs a critic: it votes with the verifier")

    yield from _check_teachers(recipe)

    if recipe.keep and recipe.quotas:
        yield RecipeProblem("quotas", "`keep` sets the number of samples to keep too; leave one of them out")
    wanted = sum(recipe.goals.values())
    if wanted > recipe.samples:
        what = f"at most samples = {recipe.samples} candidates cannot give {wanted} kept samples; raise samples, or lower keep"
        yield RecipeProblem("quotas.keep" if recipe.quotas else "keep", what)

    yield from _check_difficulty(recipe, names)

    if recipe.student and recipe.student.objective_weights.keys() == {"dpo"}:
        what = (
            "not every kept sample of a run has a rejected answer, and dpo alone teaches nothing on the others; add sft, as in "
            "{ sft = 1.0, dpo = 0.5 }"
        )
        yield RecipeProblem("student.objective", what)


def _check_difficulty(recipe: Recipe, teachers: str) -> Iterator[RecipeProblem]:
    difficulty, quotas = recipe.difficulty, recipe.quotas
    if difficulty is None:
        return
    if difficulty.teacher not in recipe.teachers:
        yield RecipeProblem("difficulty.teacher", f"{difficulty.teacher!r} is not in [teachers], which has {teachers}")
    if recipe.topology.kind != "centralized":
        yield RecipeProblem("difficulty", f'topology.kind = {recipe.topology.kind!r} measures none; take "centralized"')
    if quotas and recipe.groups_by_pass_rate:
        try:
            parse_bands(quotas.keep)
        except ValueError as error:
            yield RecipeProblem("quotas.keep", str(error))
            return
        attempts = difficulty.attempts
        rates = [Fraction(n, attempts) for n in range(attempts + 1) if difficulty.is_wanted(n, attempts)]
        reached = {find_band(rate, quotas.keep) for rate in rates}
        for band in quotas.keep:
            if band not in reached:
                listed = ", ".join(f"{float(rate):g}" for rate in rates)
                yield RecipeProblem(
                    f"quotas.keep.{band}", f"has no wanted pass rate; those of attempts = {attempts} are {listed}"
                )


def _check_teachers(recipe: Recipe) -> Iterator[RecipeProblem]:
    for name, teacher in recipe.teachers.items():
        if teacher.engine and not teacher.model.startswith("vllm/"):
            yield RecipeProblem(f"teachers.{name}.engine", f"only vllm/… starts an engine, not {teacher.model!r}")
        provider = teacher.model.partition("/")[0]
        for key in () if provider == "local" else ("gpu_layers", "threads"):
            if getattr(teacher, key) is not None:
                yield RecipeProblem(f"teachers.{name}.{key}", f"only local/… is llama.cpp, not {teacher.model!r}")
        if teacher.api_key_env not in os.environ and teacher.base_url is None and provider in URL_OF_PROVIDER:
            what = f"the environment variable {teacher.api_key_env} is not set; set it, or name a base_url that needs no key"
            yield RecipeProblem(f"teachers.{name}", what)
