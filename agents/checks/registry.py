"""Which checks there are: a family's own, the built-in ones, those of installed packages, and a user's file beside the recipe."""

import importlib.util
import inspect
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

from agents.checks.agreement import agreement
from agents.checks.answer import answer
from agents.checks.base import Check, Options, files_in
from agents.checks.code import code, solved_again
from agents.checks.judge import judge
from agents.checks.occurs import occurs
from agents.checks.quotes import quotes
from agents.checks.read_again import read_again
from agents.checks.schema import schema
from agents.checks.steps import steps
from agents.checks.supported import supported
from agents.checks.tool_schema import tool_schema
from core.errors import Problem, advice_on
from core.loading import table_problems
from core.recipe import VerifierConfig, find_file

BUILT_IN: tuple[Check, ...] = (
    agreement,
    answer,
    steps,
    judge,
    occurs,
    schema,
    code,
    solved_again,
    quotes,
    supported,
    read_again,
    tool_schema,
)
"""For every family whose candidates have what the check looks at."""
ENTRY_POINTS = "stillhouse.checks"
"""The group of entry points under which a package offers its checks."""


class Bound(NamedTuple):
    """A check with the options of one recipe."""

    check: Check
    options: Options
    asked: VerifierConfig
    """As the recipe has it, with every default."""
    files: tuple[str, ...] = ()
    """The files that its options name, as the recipe has them; in `options` they are absolute."""

    @property
    def code(self) -> Path | None:
        """The file that defines it, for a check of an installed package."""
        file = inspect.getsourcefile(self.check.run)
        own = self.asked.path is None and self.check.run.__module__.split(".")[0] != "agents"
        return Path(file) if own and file else None


class Faulty(Exception):
    """A check that cannot be had; `where` is a key of its table."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(what)
        self.where = where


def bind(verifiers: Sequence[VerifierConfig], own: Sequence[Check], folder: Path) -> tuple[list[Bound], list[Problem]]:
    """The checks of a recipe in `folder`, and what is wrong with them; `own` are the family's."""
    bound: list[Bound] = []
    problems: list[Problem] = []
    for i, config in enumerate(verifiers):
        where = f"verifiers.{i}"
        try:
            found = _find(config, own, folder)
        except Faulty as fault:
            problems.append(Problem(f"{where}.{fault.where}", str(fault)))
            continue
        options, wrong = table_problems(found.options, config.options, where)
        problems += wrong
        if options is not None:
            resolved = VerifierConfig(type=config.type, path=config.path, **options.model_dump(mode="json"))
            placed, missing = _placed(options, folder, where)
            bound.append(Bound(found, placed, resolved, tuple(files_in(options).values())))
            problems += missing
            problems += [Problem(where, lack) for lack in [found.lacks()] if lack]
    return bound, problems


def _placed(options: Options, folder: Path, where: str) -> tuple[Options, list[Problem]]:
    """`options` with the files that they name as absolute paths, and what is no file."""
    paths = {field: find_file(name, folder).absolute() for field, name in files_in(options).items()}
    what = "is no file; paths start from the recipe's folder, the working directory or the project"
    missing = [Problem(f"{where}.{field}", f"{path}: {what}") for field, path in paths.items() if not path.is_file()]
    return options.model_copy(update={field: str(path) for field, path in paths.items()}), missing


def _find(config: VerifierConfig, own: Sequence[Check], folder: Path) -> Check:
    if config.path is not None:
        there = {check.name: check for check in _checks_in(find_file(config.path, folder))}
        place = f"{config.path} has"
    else:
        there = {check.name: check for check in (*BUILT_IN, *own)}
        place = "this family has"
    if found := there.get(config.type) or (_installed(config.type) if config.path is None else None):
        return found
    names = sorted({*there, *(entry_points(group=ENTRY_POINTS).names if config.path is None else ())})
    advice = advice_on(config.type, names, place)
    more = "" if config.path else "; a check of your own needs `path`, the file that defines it"
    raise Faulty("type", f"there is no check {config.type!r}; {advice}{more}")


@cache
def _checks_in(path: Path) -> tuple[Check, ...]:
    """The checks that a Python file defines."""
    name = f"stillhouse_checks_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise Faulty("path", f"{path}: is not a Python file that can be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Faulty("path", f"{path}: cannot be imported: {type(error).__name__}: {error}") from None
    return tuple(value for value in vars(module).values() if isinstance(value, Check))


def _installed(name: str) -> Check | None:
    """The check that an installed package offers under this name. What else is installed is not touched."""
    for point in entry_points(group=ENTRY_POINTS, name=name):
        try:
            found = point.load()
        except Exception as error:
            raise Faulty("type", f"the check {name!r} of {point.value} cannot be loaded: {error}") from None
        if isinstance(found, Check):
            return found
        raise Faulty(
            "type", f"{point.value}, which is installed as the check {name!r}, is {type(found).__name__} and no check"
        )
    return None
