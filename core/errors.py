"""What can go wrong with a run, as a tree; what goes wrong with one sample is data (`core.sample.Reason`), not here.

StillhouseError          one sentence a stranger can act on, and an exit code
├── UsageError      2    the command was called wrongly, or names something that is not there
│   ├── RecipeError 2    the recipe has problems; carries all of them
│   └── RunExists   2    a run directory is in the way
├── RunFailed       1    the run cannot go on
│   ├── ProviderError    a teacher cannot be reached, refuses the key, or keeps failing
│   └── StoreError       the run directory cannot be read or written: no space, no permission, a damaged file
└── GateNotMet      3    a collapse gate was not met

Anything else that reaches the command line is a bug and is shown as a traceback.
"""

import difflib
from collections.abc import Collection
from typing import NamedTuple


class StillhouseError(Exception):
    """An error whose text is written for the person at the command line."""

    exit_code = 1


class UsageError(StillhouseError):
    exit_code = 2


def advice_on(name: str, known: Collection[str], otherwise: str = "known are") -> str:
    """What to do about a name that is not known: the one that may be meant, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise} {', '.join(known) or 'none'}"


class Problem(NamedTuple):
    """One thing wrong in a recipe: the dotted path of the key, and what to do about it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class RecipeError(UsageError):
    """A recipe that cannot be used, with every problem found in it."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.problems = problems
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        super().__init__("\n  ".join([f"{name}: {count}", *map(str, problems)]))


class RunExists(UsageError):
    pass


class RunFailed(StillhouseError):
    pass


class ProviderError(RunFailed):
    pass


class StoreError(RunFailed):
    pass


class GateNotMet(StillhouseError):
    exit_code = 3


INTERRUPTED = 130
"""The exit code after Ctrl-C or SIGTERM, by shell convention (128 + SIGINT)."""
