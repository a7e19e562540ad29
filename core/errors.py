"""The errors of a run, as a tree. Faults of a single sample are data (`core.sample.RejectionReason`), not errors.

StillhouseError          one sentence that the user can act on, and an exit code
├── UsageError      2    the command was called incorrectly, or names something that does not exist
│   ├── RecipeError 2    the recipe has problems; lists all of them
│   └── RunExists   2    the run directory already exists
│       └── RunInUse     another process is working on it
├── RunFailed       1    the run cannot continue
│   ├── LimitReached     a limit of the recipe ended it: --resume with the same recipe produces nothing more
│   │   └── ChecksBroke  a check of the recipe raised on more samples than may fail
│   ├── ProviderError    a teacher cannot be reached, rejects the key, or keeps failing
│   └── StoreError       the run directory cannot be read or written: no space, no permission, a damaged file
└── GateNotMet      3    a collapse gate was not met

Anything else that reaches the command line is a bug and is shown as a traceback.
"""

import difflib
from collections.abc import Collection
from typing import NamedTuple


class StillhouseError(Exception):
    """An error with a message for the user at the command line."""

    exit_code = 1

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        """A line that the command line prints below the message: a command that helps (`next: …`), or other advice for it."""


class UsageError(StillhouseError):
    exit_code = 2


def suggest_name(name: str, known: Collection[str], otherwise: str = "known are") -> str:
    """Advice on an unknown name: a similar known name, or all known names."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise} {', '.join(known) or 'none'}"


class RecipeProblem(NamedTuple):
    """A problem in a recipe: the dotted path of the key, and advice."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class RecipeError(UsageError):
    """A recipe that cannot be used, with all of its problems."""

    def __init__(self, name: str, problems: list[RecipeProblem]) -> None:
        self.name = name
        self.problems = problems
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        super().__init__("\n  ".join([f"{name}: {count}", *map(str, problems)]))


class RunExists(UsageError):
    pass


class RunInUse(RunExists):
    pass


class RunFailed(StillhouseError):
    pass


class LimitReached(RunFailed):
    pass


class ChecksBroke(LimitReached):
    pass


class ProviderError(RunFailed):
    pass


class StoreError(RunFailed):
    pass


class GateNotMet(StillhouseError):
    exit_code = 3


INTERRUPTED_EXIT_CODE = 130
"""The exit code after Ctrl-C or SIGTERM, by shell convention (128 + SIGINT)."""
