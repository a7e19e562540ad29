"""The available checks: a family's, the built-in ones, those of installed packages, and those of a user's file."""

import importlib.util
import inspect
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

from agents.checks.base import Check, Options, find_file_options
from agents.checks.code.tested_solution import code_check, solved_again_check
from agents.checks.judge import judge_check
from agents.checks.math.known_answer import answer_check
from agents.checks.math.solution_agreement import agreement_check
from agents.checks.math.worked_steps import steps_check
from agents.checks.structure.json_schema import schema_check
from agents.checks.structure.tool_schema import tool_schema_check
from agents.checks.text.quotes import quotes_check
from agents.checks.text.second_reader import read_again_check
from agents.checks.text.supported_by_passage import supported_check
from agents.checks.text.value_in_text import occurs_check
from core.config.agents import VerifierConfig
from core.config.loading import validate_table
from core.errors import RecipeProblem, suggest_name
from core.project_files import find_referenced_file

BUILT_IN_CHECKS: tuple[Check, ...] = (
    agreement_check,
    answer_check,
    steps_check,
    judge_check,
    occurs_check,
    schema_check,
    code_check,
    solved_again_check,
    quotes_check,
    supported_check,
    read_again_check,
    tool_schema_check,
)
"""For every family whose candidates have the fields that the check reads."""
ENTRY_POINTS = "stillhouse.checks"
"""The group of entry points under which a package offers its checks."""
AGENTS = __name__.removesuffix("checks.registry")
"""The package of the built-in checks, with a dot: `agents.`, or `stillhouse.agents.` in a wheel."""


class BoundCheck(NamedTuple):
    """A check with the options of one recipe."""

    check: Check
    options: Options
    config: VerifierConfig
    """As the recipe has it, with every default."""
    files: tuple[str, ...] = ()
    """The files that its options name, as the recipe has them; in `options` they are absolute."""

    @property
    def code(self) -> Path | None:
        """The file that defines it, for a check of an installed package."""
        file = inspect.getsourcefile(self.check.run)
        own = self.config.path is None and not self.check.run.__module__.startswith(AGENTS)
        return Path(file) if own and file else None


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
            check = _find_check(config, own, folder)
        except UnusableCheck as fault:
            problems.append(RecipeProblem(f"{where}.{fault.where}", str(fault)))
            continue
        options, wrong = validate_table(check.options, config.options, where)
        problems += wrong
        if options is not None:
            resolved = VerifierConfig(type=config.type, path=config.path, **options.model_dump(mode="json"))
            files = find_file_options(options)
            paths = {field: find_referenced_file(name, folder).absolute() for field, name in files.items()}
            placed = options.model_copy(update={field: str(path) for field, path in paths.items()})
            bound.append(BoundCheck(check, placed, resolved, tuple(files.values())))
            what = "is no file; paths start from the recipe's folder, the working directory or the project"
            problems += [
                RecipeProblem(f"{where}.{field}", f"{path}: {what}")
                for field, path in paths.items()
                if not path.is_file()
            ]
            problems += [RecipeProblem(where, lack) for lack in [check.lacks()] if lack]
    return bound, problems


def _find_check(config: VerifierConfig, own: Sequence[Check], folder: Path) -> Check:
    """The check that a verifier's table names, of a user's file, a family, this package or an installed package."""
    if config.path is not None:
        known_names = {check.name: check for check in _load_checks(find_referenced_file(config.path, folder))}
        place = f"{config.path} has"
    else:
        known_names = {check.name: check for check in (*BUILT_IN_CHECKS, *own)}
        place = "this family has"
    if found := known_names.get(config.type):
        return found
    # Only the entry point of this name is loaded: what else is installed is not touched.
    for point in entry_points(group=ENTRY_POINTS, name=config.type) if config.path is None else ():
        try:
            loaded = point.load()
        except Exception as error:
            raise UnusableCheck(
                "type", f"the check {config.type!r} of {point.value} cannot be loaded: {error}"
            ) from None
        if isinstance(loaded, Check):
            return loaded
        raise UnusableCheck(
            "type",
            f"{point.value}, which is installed as the check {config.type!r}, is {type(loaded).__name__} and no check",
        )
    names = sorted({*known_names, *(entry_points(group=ENTRY_POINTS).names if config.path is None else ())})
    advice = suggest_name(config.type, names, place)
    more = "" if config.path else "; a check of your own needs `path`, the file that defines it"
    raise UnusableCheck("type", f"there is no check {config.type!r}; {advice}{more}")


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
