"""The available checks: a family's, the built-in ones, those of installed packages, and those of a user's file."""

import importlib.util
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from agents.checks.base import Check, Options
from agents.checks.json_schema import schema_check
from agents.checks.judge import judge_check
from agents.checks.text.quotes import quotes_check
from agents.checks.text.second_reader import read_again_check
from agents.checks.text.supported_by_passage import supported_check
from agents.checks.text.value_in_text import occurs_check
from core.config.agents import VerifierConfig
from core.config.base import list_marked
from core.config.loading import validate_table
from core.errors import RecipeProblem, suggest_name
from core.extensions import Extension, ExtensionPoint
from core.plugins import UnusablePlugin
from core.project_files import find_referenced_file

BUILT_IN_CHECKS: tuple[Check, ...] = (
    judge_check,
    occurs_check,
    schema_check,
    quotes_check,
    supported_check,
    read_again_check,
)
"""For every family whose candidates have the fields that the check reads."""
CHECK_EXTENSIONS: ExtensionPoint[Check] = ExtensionPoint(
    "check", Check, lambda: [check.name for check in BUILT_IN_CHECKS]
)


def list_checks() -> list[Check]:
    """The built-in checks, and those of plugins that can be used; none of a family."""
    return [*BUILT_IN_CHECKS, *CHECK_EXTENSIONS.list_usable()]


class BoundCheck(NamedTuple):
    """A check with the options of one recipe."""

    check: Check
    options: Options
    config: VerifierConfig
    """As the recipe has it, with every default."""
    files: tuple[str, ...] = ()
    """The files that its options name, as the recipe has them; in `options` they are absolute."""
    extension: Extension[Check] | None = None
    """Where it comes from, for a check of an installed package or one that this program registered."""


class UnusableCheck(Exception):
    """A check that cannot be loaded; `where` is a key of its table."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(what)
        self.where = where


def bind_checks(
    verifiers: Sequence[VerifierConfig], own: Sequence[Check], folder: Path
) -> tuple[list[BoundCheck], list[RecipeProblem]]:
    """The checks of a recipe in `folder`, and their problems; `own` are the family's checks."""
    bound: list[BoundCheck] = []
    problems: list[RecipeProblem] = []
    for i, config in enumerate(verifiers):
        where = f"verifiers.{i}"
        try:
            check, extension = _find_check(config, own, folder)
        except UnusableCheck as fault:
            problems.append(RecipeProblem(f"{where}.{fault.where}", str(fault)))
            continue
        options, wrong = validate_table(check.options, config.options, where)
        problems += wrong
        if options is not None:
            resolved = VerifierConfig(type=config.type, path=config.path, **options.model_dump(mode="json"))
            files = dict(list_marked(options, "file"))
            paths = {field: find_referenced_file(name, folder).absolute() for field, name in files.items()}
            placed = options.model_copy(update={field: str(path) for field, path in paths.items()})
            bound.append(BoundCheck(check, placed, resolved, tuple(files.values()), extension))
            what = "is no file; paths start from the recipe's folder, the working directory or the project"
            problems += [
                RecipeProblem(f"{where}.{field}", f"{path}: {what}")
                for field, path in paths.items()
                if not path.is_file()
            ]
            problems += [RecipeProblem(where, lack) for lack in [check.lacks()] if lack]
    return bound, problems


def _find_check(config: VerifierConfig, own: Sequence[Check], folder: Path) -> tuple[Check, Extension[Check] | None]:
    """The check that a verifier's table names: of a user's file, the family, this package, or an extension."""
    name = config.type
    if config.path is not None:
        in_file = {check.name: check for check in _load_checks(find_referenced_file(config.path, folder))}
        if name in in_file:
            return in_file[name], None
        raise UnusableCheck("type", f"there is no check {name!r}; {suggest_name(name, in_file, f'{config.path} has')}")
    known = {check.name: check for check in (*BUILT_IN_CHECKS, *own)}
    try:
        extension = CHECK_EXTENSIONS.find(name, known)
    except UnusablePlugin as fault:
        raise UnusableCheck("type", str(fault)) from None
    if extension:
        return extension.value, extension
    if name in known:
        return known[name], None
    advice = suggest_name(name, sorted({*known, *CHECK_EXTENSIONS.list_names()}), "this family has")
    more = "a check of your own needs `path`, the file that defines it"
    raise UnusableCheck("type", f"there is no check {name!r}; {advice}; {more}")


@cache
def _load_checks(path: Path) -> tuple[Check, ...]:
    """The checks that a Python file defines."""
    name = f"stillhouse_checks_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UnusableCheck("path", f"{path}: is not a Python file that can be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        former = isinstance(error, ModuleNotFoundError) and str(error.name).split(".")[0] == "agents"
        advice = "; a check imports from `stillhouse.checks`" if former else ""
        raise UnusableCheck("path", f"{path}: cannot be imported: {type(error).__name__}: {error}{advice}") from None
    return tuple(value for value in vars(module).values() if isinstance(value, Check))
